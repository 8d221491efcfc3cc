//! A group of two SRT connections over paths that lose, double, damage and invent datagrams as the bytes say.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| anabranch::proto::srt::check_any_group_path(bytes));
