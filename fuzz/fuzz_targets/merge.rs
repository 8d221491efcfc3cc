//! Any script of what legs bring, when and in which order, through the merger.
#![no_main]

libfuzzer_sys::fuzz_target!(|script: &[u8]| anabranch::path::merge::check_any_script(script));
