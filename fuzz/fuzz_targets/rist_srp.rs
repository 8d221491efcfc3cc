//! Any bytes as a message of EAP-SRP, as a file of users, and as what happens between a client and a server.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| anabranch::proto::rist::srp::check_any_bytes(bytes));
