//! Any bytes as a transport stream in pieces.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| anabranch::proto::mpegts::check_any_stream(bytes));
