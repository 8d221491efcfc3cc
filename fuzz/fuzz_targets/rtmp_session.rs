//! Any bytes from an RTMP peer, and any path between a client and a server.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    anabranch::proto::rtmp::check_any_peer(bytes);
    anabranch::proto::rtmp::check_any_path(bytes);
});
