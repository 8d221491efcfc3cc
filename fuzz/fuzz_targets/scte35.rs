//! Any bytes as splice information, as they are and with a length and a CRC that fit.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| anabranch::proto::mpegts::scte35::check_any_bytes(bytes));
