//! Any bytes as units of MPEG video, decoded.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| anabranch::media::decode::check_any_bytes(bytes));
