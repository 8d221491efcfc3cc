//! What RIST costs for each packet of 1,316 bytes, without sockets: sending and receiving, Simple and Main profile, in the
//! clear and encrypted, packets one by one and in batches of 32, with reports and requests going back as they are made.
//!
//! Figures are nanoseconds per packet of one side alone.
#![allow(clippy::unwrap_used, reason = "a bench that cannot go on may panic")]
#![allow(clippy::disallowed_methods, reason = "times parts of a round, which criterion's own clock cannot")]

#[allow(dead_code, reason = "shared with the test of allocations, which needs more of it")]
#[path = "../tests/rist_line/mod.rs"]
mod rist_line;

use std::time::{Duration, Instant};

use anabranch::proto::rist::crypto::KeyLength;
use anabranch::proto::rist::{Config, Profile};
use criterion::{Criterion, criterion_group, criterion_main};
use rist_line::{Line, PACKETS};

criterion_group!(benches, sender, receiver);
criterion_main!(benches);

fn sender(criterion: &mut Criterion) {
    side(criterion, "rist sender", 0);
}

fn receiver(criterion: &mut Criterion) {
    side(criterion, "rist receiver", 1);
}

fn side(criterion: &mut Criterion, name: &str, side: usize) {
    let mut group = criterion.benchmark_group(name);
    // A round takes longer than the side that is timed, and criterion plans by the latter: little will be plenty.
    group.sample_size(20).warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_millis(300));
    let secret = "hunter22".parse().ok();
    let main = Config { buffer: Duration::from_millis(200), ..Config::default() };
    let simple = Config { profile: Profile::Simple, ..main.clone() };
    let encrypted = |key_length| Config { secret: secret.clone(), key_length, ..main.clone() };
    let kinds = [
        ("simple", simple.clone(), None),
        ("simple, 10 % lost", simple, Some(10)),
        ("main", main.clone(), None),
        ("main, AES-128", encrypted(KeyLength::Aes128), None),
        ("main, AES-256", encrypted(KeyLength::Aes256), None),
    ];
    for (kind, config, loses_one_of) in kinds {
        for batch in [1, 32] {
            let mut line = Line::new(&config, batch, loses_one_of);
            let start = Instant::now();
            group.bench_function(format!("{kind}, batches of {batch}"), |bencher| {
                bencher.iter_custom(|wanted| {
                    let rounds = wanted.div_ceil(PACKETS as u64);
                    let spent_ns: u64 = (0..rounds).map(|_| line.round(|| elapsed_ns(start))[side]).sum();
                    // Only whole rounds are run; criterion wants the time of what it asked for.
                    Duration::from_nanos(
                        (u128::from(spent_ns) * u128::from(wanted) / u128::from(rounds * PACKETS as u64)) as u64,
                    )
                });
            });
            assert_eq!(line.lost(), 0, "{kind}");
            assert_eq!(line.recovered() > 0, loses_one_of.is_some(), "{kind}");
        }
    }
    group.finish();
}

fn elapsed_ns(start: Instant) -> u64 {
    start.elapsed().as_nanos() as u64
}
