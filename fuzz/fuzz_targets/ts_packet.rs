//! Any bytes as TS packets.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| anabranch::proto::mpegts::check_any_bytes(bytes));
