//! What a packet pays to be judged: limiter and failover, one thread.
#![allow(missing_docs, reason = "criterion's macros make a public function")]

use std::hint::black_box;
use std::num::NonZeroU32;
use std::time::Duration;

use anabranch::path::{Failover, Limiter, failover, limit};
use anabranch::units::{Bitrate, Time};
use criterion::{Criterion, criterion_group, criterion_main};

/// 20 Mb/s in datagrams of 1316 bytes.
const STEP: Duration = Duration::from_nanos(526_400);

fn limiter(c: &mut Criterion) {
    let bitrate = Some(Bitrate::from_bps(25_000_000));
    let packets_per_second = NonZeroU32::new(5_000);
    let configs = [
        ("unlimited", limit::Config::default()),
        ("bits", limit::Config { bitrate, ..limit::Config::default() }),
        ("bits and packets", limit::Config { bitrate, packets_per_second, ..limit::Config::default() }),
        ("refused", limit::Config { bitrate: Some(Bitrate::from_bps(1_000)), ..limit::Config::default() }),
    ];
    for (name, config) in configs {
        let mut now = Time::ZERO;
        let limiter = Limiter::new(config, now);
        c.bench_function(&format!("limiter/{name}"), |b| {
            b.iter(|| {
                now += STEP;
                limiter.check(black_box(now), black_box(1_316))
            });
        });
    }
}

fn failover(c: &mut Criterion) {
    let mut now = Time::ZERO;
    let mut failover = Failover::new(failover::Config { primary: Some(0), ..failover::Config::default() });
    failover.add_source(0);
    failover.add_source(1);
    let mut source = 0;
    c.bench_function("failover/packet of one of two sources", |b| {
        b.iter(|| {
            now += STEP;
            source ^= 1;
            failover.handle_packet(black_box(now), black_box(source))
        });
    });
}

criterion_group!(benches, limiter, failover);
criterion_main!(benches);
