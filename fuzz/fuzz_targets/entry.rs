//! Any bytes as TS packets to whoever looks for key frames.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| anabranch::proto::mpegts::entry::check_any_bytes(bytes));
