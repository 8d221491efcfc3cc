//! Any bytes as audio and video tags.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| anabranch::proto::rtmp::flv::check_any_bytes(bytes));
