//! Any bytes as messages from and to a process that decodes.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| anabranch::media::watch::wire::check_any_bytes(bytes));
