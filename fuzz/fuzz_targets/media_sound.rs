//! Any bytes as frames of AC-3 and MPEG audio, and as PCM in AES3.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| anabranch::media::sound::check_any_bytes(bytes));
