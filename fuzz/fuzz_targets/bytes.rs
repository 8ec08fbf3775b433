//! Any bytes as a blob.

#![cfg_attr(fuzzing, no_main)]

skipstone_fuzz::target!(skipstone_fuzz::blob::check, skipstone_fuzz::plain);
