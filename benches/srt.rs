//! What SRT costs for each packet of 1,316 bytes, without sockets: sending and receiving, in the clear and encrypted,
//! packets one by one and in batches of 32, with acknowledgements and loss reports going back as they are made.
//!
//! Figures are nanoseconds per packet of one side alone.
#![allow(clippy::unwrap_used, reason = "a bench that cannot go on may panic")]
#![allow(clippy::disallowed_methods, reason = "times parts of a round, which criterion's own clock cannot")]

#[allow(dead_code, reason = "shared with the test of allocations, which needs more of it")]
#[path = "../tests/srt_line/mod.rs"]
mod srt_line;

use std::time::{Duration, Instant};

use anabranch::proto::srt::Config;
use anabranch::proto::srt::crypto::{CipherMode, KeyLength};
use criterion::{Criterion, criterion_group, criterion_main};
use srt_line::{Line, PACKETS, Traffic};

criterion_group!(benches, sender, receiver);
criterion_main!(benches);

fn sender(criterion: &mut Criterion) {
    side(criterion, "srt sender", 0);
}

fn receiver(criterion: &mut Criterion) {
    side(criterion, "srt receiver", 1);
}

fn side(criterion: &mut Criterion, name: &str, side: usize) {
    let mut group = criterion.benchmark_group(name);
    // A round takes longer than the side that is timed, and criterion plans by the latter: little will be plenty.
    group.sample_size(20).warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_millis(300));
    let kinds = [
        ("clear", None, None),
        ("AES-128-CTR", Some((CipherMode::Ctr, KeyLength::Aes128)), None),
        ("AES-256-GCM", Some((CipherMode::Gcm, KeyLength::Aes256)), None),
        ("clear, 2 % lost", None, Some(LOSES_ONE_OF)),
    ];
    for (kind, cipher, loses_one_of) in kinds {
        for batch in BATCHES {
            let mut line = Line::to_listener(&config(cipher), Traffic { batch, payload_bytes: 1_316, loses_one_of });
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

fn config(cipher: Option<(CipherMode, KeyLength)>) -> Config {
    let default = Config::default();
    Config {
        passphrase: cipher.map(|_| "thelocalmanager".parse().unwrap()),
        cipher: cipher.map_or(default.cipher, |cipher| cipher.0),
        key_length: cipher.map(|cipher| cipher.1),
        ..default
    }
}

/// As they come one by one, and as the engine gets them from a busy socket.
const BATCHES: [usize; 2] = [1, 32];
const LOSES_ONE_OF: usize = 50;
