//! The test picture as a stream; that decoders show it is tested against ffmpeg in `tests/mux.rs`.

use super::*;
use crate::bus::{Pool, PoolLimits};
use crate::proto::mpegts::TsPacket;

#[test]
fn the_rate_is_exact_and_nothing_comes_late_even_at_the_slowest() {
    for bps in [1_000_000, 10_000_000] {
        let mut signal = signal(bps);
        let bytes: usize = run(&mut signal, Duration::from_secs(10)).iter().map(|packet| packet.len()).sum();
        let exact = bps as usize * 10 / 8;
        assert!((exact..=exact + 1_316).contains(&bytes), "{bps}: {bytes}");
        let stats = signal.mux.stats();
        assert_eq!((stats.units, stats.late, stats.stale, stats.overflow, stats.malformed), (251 + 417, 0, 0, 0, 0));
        assert!(stats.nulls * 188 * 8 > 10 * (bps - 950_000), "{stats:?}");
    }
}

#[test]
fn a_very_late_call_goes_on_with_a_picture_that_decoders_can_start_at() {
    let mut signal = signal(2_000_000);
    run(&mut signal, Duration::from_millis(100));
    signal.handle_timeout(Time::ZERO + Duration::from_secs(5));
    let packets = run(&mut signal, Duration::from_millis(5_200));
    let first = packets.iter().flat_map(|packet| packet.chunks(188)).map(|bytes| TsPacket::parse(bytes).unwrap());
    let mut starts = first.filter(|packet| packet.pid.value() == 0x100 && packet.payload_unit_start);
    assert!(starts.next().unwrap().adaptation.unwrap().random_access);
    assert!(signal.stats().overflow > 500);
}

#[test]
fn too_slow_a_rate_is_refused() {
    assert_eq!(Config::new(Bitrate::from_bps(999_999)), Err(ConfigError::Rate));
}

fn signal(bps: u64) -> TestPicture {
    let pool = Pool::new(PoolLimits::default());
    let config = Config::new(Bitrate::from_bps(bps)).unwrap();
    TestPicture::new(config, &Surroundings { pool, seed: 0, unix_ns_at_zero: 0 })
}

fn run(signal: &mut TestPicture, until: Duration) -> Vec<Packet> {
    let mut out = Vec::new();
    while let Some(due) = signal.poll_timeout().filter(|due| *due <= Time::ZERO + until) {
        signal.handle_timeout(due);
        out.extend(std::iter::from_fn(|| signal.poll_packet()));
    }
    out
}
