//! Pictures.

#![cfg_attr(fuzzing, no_main)]

skipstone_fuzz::target!(skipstone_fuzz::data::check_picture, skipstone_fuzz::plain);
