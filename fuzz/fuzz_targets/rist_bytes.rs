//! Any bytes as RIST's RTCP, tunnel header or extension, and as a datagram to each core.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| anabranch::proto::rist::check_any_bytes(bytes));
