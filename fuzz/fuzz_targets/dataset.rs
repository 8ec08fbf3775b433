//! Data sets of one file.

#![cfg_attr(fuzzing, no_main)]

skipstone_fuzz::target!(skipstone_fuzz::data::check_dataset, skipstone_fuzz::archive::mutate);
