//! A whole SRT connection over a path that loses, doubles, damages and invents datagrams as the bytes say.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| anabranch::proto::srt::check_any_path(bytes));
