//! Any bytes as a FEC packet, and as a script of media, FEC packets and time for a decoder.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| anabranch::proto::fec::check_any_bytes(bytes));
