//! What a packet pays to be merged: legs that bring the same packets, each with losses of its own, one behind the other.
#![allow(clippy::unwrap_used, reason = "a bench that cannot go on may panic")]
#![allow(missing_docs, reason = "criterion's macros make a public function")]

use std::hint::black_box;
use std::time::Duration;

use anabranch::bus::{Meta, Packet, Pool, PoolLimits};
use anabranch::path::Merger;
use anabranch::path::merge::{Config, Mode};
use anabranch::units::{Ticks90k, Time};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

criterion_group!(benches, merge);
criterion_main!(benches);

fn merge(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("merge");
    for legs in [1, 2, 4] {
        for mode in [Mode::OnGaps, Mode::Align] {
            let mut feed = Feed::new(legs);
            let mut merger = Merger::new(Config { mode, ..Config::default() });
            (0..legs as u8).for_each(|leg| merger.add_leg(leg));
            let inputs = feed.round().len() as u64;
            group.throughput(Throughput::Elements(inputs));
            group.bench_function(format!("{legs} legs, 2 % lost, {mode:?}"), |bencher| {
                bencher.iter_batched(
                    || (feed.round(), Vec::with_capacity(4 * PACKETS as usize)),
                    |(round, mut released)| {
                        for (now, leg, packet) in round {
                            merger.push(leg, now, packet);
                            while let Some(packet) = merger.poll_packet(now) {
                                released.push(packet);
                            }
                        }
                        black_box(released)
                    },
                    BatchSize::PerIteration,
                );
            });
        }
    }
    group.finish();
}

/// Packets of one round: what a busy worker finds waiting.
const PACKETS: u64 = 64;

/// How many packets each leg is behind the one before.
const BEHIND: u64 = 20;

/// Payloads are read, but not made: as many as lie in the caches of a running engine.
const PAYLOADS: u64 = 512;

struct Feed {
    payloads: Vec<Packet>,
    legs: u64,
    next: u64,
    chance: u64,
}

impl Feed {
    fn new(legs: u64) -> Self {
        let pool = Pool::new(PoolLimits::default());
        let payloads = (0..PAYLOADS).map(|n| {
            let bytes: Vec<u8> = (0..1_316_u64).map(|at| (n * 31 + at * 7 + at * at) as u8).collect();
            pool.copy(&bytes, Meta::default()).unwrap()
        });
        Self { payloads: payloads.collect(), legs, next: 1_000, chance: 1 }
    }

    /// 64 packets of each leg, less what it loses.
    fn round(&mut self) -> Vec<(Time, u8, Packet)> {
        let mut round = Vec::new();
        for head in self.next..self.next + PACKETS {
            for leg in 0..self.legs {
                self.chance = self.chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                if self.chance >> 33 < (1 << 31) / 50 {
                    continue;
                }
                let number = head - leg * BEHIND;
                let mut packet = self.payloads[(number % PAYLOADS) as usize].clone();
                packet.meta.sequence = Some(number + (leg << 16));
                packet.meta.rtp_timestamp = Some(Ticks90k::from_span(sent(number).since(Time::ZERO)).0 as u32);
                packet.meta.arrival = sent(head);
                round.push((sent(head), leg as u8, packet));
            }
        }
        self.next += PACKETS;
        round
    }
}

/// 1,316 bytes at 20 Mb/s.
fn sent(n: u64) -> Time {
    Time::ZERO + Duration::from_nanos(n * 526_400)
}
