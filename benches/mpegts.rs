//! What looking at a transport stream costs for each TS packet, with counters only and with everything.
#![allow(clippy::unwrap_used, reason = "a bench that cannot go on may panic")]

use std::hint::black_box;
use std::time::Duration;

use anabranch::bus::{Pool, PoolLimits};
use anabranch::proto::mpegts::analysis::Analyser;
use anabranch::proto::mpegts::entry::Finder;
use anabranch::proto::mpegts::{Found, Generator, Scanner, Sync, TS_PACKET_BYTES, generator};
use anabranch::proto::{Core, Surroundings};
use anabranch::units::{Bitrate, Time};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

criterion_group!(benches, mpegts);
criterion_main!(benches);

fn mpegts(criterion: &mut Criterion) {
    let broadcast = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/ts/test-026.ts")).unwrap();
    for (name, bytes, rate_bps) in [("generator", generated(), 40_000_000), ("broadcast", broadcast, 7_155_787)] {
        let packets = (bytes.len() / TS_PACKET_BYTES) as u64;
        let mut group = criterion.benchmark_group(format!("mpegts/{name}"));
        group.throughput(Throughput::Elements(packets));
        group.bench_function("sync", |bencher| {
            let mut sync = Sync::default();
            let mut found = 0_u64;
            bencher.iter(|| {
                for datagram in bytes.chunks(DATAGRAM_BYTES) {
                    sync.push(datagram, |what| found += u64::from(matches!(what, Found::Packet(_))));
                }
                black_box(found)
            });
        });
        group.bench_function("scanner", |bencher| {
            let mut scanner = Scanner::default();
            let mut now = Time::ZERO;
            bencher.iter(|| {
                for datagram in bytes.chunks(DATAGRAM_BYTES) {
                    now += step(rate_bps);
                    scanner.push(now, datagram, &mut ());
                }
            });
            black_box(scanner.stats());
        });
        group.bench_function("entry", |bencher| {
            let mut finder = Finder::default();
            let mut found = 0_u64;
            bencher.iter(|| {
                for datagram in bytes.chunks(DATAGRAM_BYTES) {
                    found += u64::from(finder.handle_packet(datagram));
                }
                black_box(found)
            });
        });
        group.bench_function("everything", |bencher| {
            let mut analyser = Analyser::new(Time::ZERO);
            let mut now = Time::ZERO;
            bencher.iter(|| {
                for datagram in bytes.chunks(DATAGRAM_BYTES) {
                    now += step(rate_bps);
                    analyser.handle_packet(now, datagram, None);
                }
            });
            while analyser.poll_event().is_some() {}
            black_box(analyser.snapshot());
        });
        group.finish();
    }
}

fn step(rate_bps: u64) -> Duration {
    Duration::from_nanos(DATAGRAM_BYTES as u64 * 8 * 1_000_000_000 / rate_bps)
}

/// Some 2.5 MB at 40 Mb/s.
fn generated() -> Vec<u8> {
    let pool = Pool::new(PoolLimits::default());
    let config = generator::Config::new(Bitrate::from_bps(40_000_000), 7).unwrap();
    let mut generator = Generator::new(config, &Surroundings { pool, seed: 1, unix_ns_at_zero: 0 });
    let mut bytes = Vec::new();
    while bytes.len() < 2_500_000 {
        generator.handle_timeout(generator.poll_timeout().unwrap());
        while let Some(packet) = generator.poll_packet() {
            bytes.extend_from_slice(&packet);
        }
    }
    bytes
}

const DATAGRAM_BYTES: usize = 1_316;
