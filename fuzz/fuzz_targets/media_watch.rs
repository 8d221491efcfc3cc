//! Any bytes as TS packets to a watch.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| anabranch::media::watch::check_any_bytes(bytes));
