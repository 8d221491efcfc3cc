//! Any bytes as an RTP packet.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| anabranch::proto::rtp::check_any_bytes(bytes));
