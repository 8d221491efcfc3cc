//! Any bytes as what PES packets begin with: AV1, Opus, and what tells of a decoder's buffers.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| anabranch::proto::mpegts::check_any_unit(bytes));
