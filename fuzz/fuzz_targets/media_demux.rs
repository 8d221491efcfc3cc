//! Any bytes as TS packets to a demultiplexer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| anabranch::proto::mpegts::demux::check_any_bytes(bytes));
