//! Any bytes as AMF0 values.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| anabranch::proto::rtmp::amf::check_any_bytes(bytes));
