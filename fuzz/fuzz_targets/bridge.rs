//! Any bytes as messages of publishers that become a transport stream and units again, and as TS packets.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    anabranch::proto::bridge::check_any_bridge(bytes);
});
