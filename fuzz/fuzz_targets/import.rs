//! Models of other tools.

#![cfg_attr(fuzzing, no_main)]

skipstone_fuzz::target!(skipstone_fuzz::import::check, skipstone_fuzz::archive::mutate);
