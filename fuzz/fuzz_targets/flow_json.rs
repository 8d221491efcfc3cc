//! Any bytes as the JSON of a flow.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| anabranch::control::wanted::check_any_bytes(bytes));
