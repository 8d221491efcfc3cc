//! Any bytes as what is done with a multiplexer: tracks, access units, pauses, clocks that jump.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    anabranch::proto::mpegts::mux::check_any_units(bytes);
});
