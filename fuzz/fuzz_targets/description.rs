//! Descriptions of checkpoints, and the checkpoints.

#![cfg_attr(fuzzing, no_main)]

skipstone_fuzz::target!(skipstone_fuzz::import::check_description, skipstone_fuzz::plain);
