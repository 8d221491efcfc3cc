//! Any bytes as access units of every codec.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| anabranch::media::headers::check_any_bytes(bytes));
