//! Any bytes as sections, tables and descriptors.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| anabranch::proto::mpegts::check_any_tables(bytes));
