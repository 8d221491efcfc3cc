//! Any bytes as an SRT packet, handshake, acknowledgement, loss list or key material.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| anabranch::proto::srt::check_any_bytes(bytes));
