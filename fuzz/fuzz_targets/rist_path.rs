//! A sender and a receiver of RIST over any path.
#![no_main]

libfuzzer_sys::fuzz_target!(|script: &[u8]| anabranch::proto::rist::check_any_path(script));
