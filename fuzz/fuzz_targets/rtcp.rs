//! Any bytes as an RTCP compound.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| anabranch::proto::rtp::rtcp::check_any_bytes(bytes));
