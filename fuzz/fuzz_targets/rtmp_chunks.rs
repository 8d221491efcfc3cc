//! Any bytes as chunk streams, at any cut.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| anabranch::proto::rtmp::chunk::check_any_bytes(bytes));
