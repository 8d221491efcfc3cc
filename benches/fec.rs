//! What forward error correction costs for each media packet of 1,316 bytes: making rows and columns of 8x4, and
//! receiving them, without loss and with.
#![allow(clippy::unwrap_used, reason = "a bench that cannot go on may panic")]

use std::hint::black_box;

use anabranch::bus::{Meta, Packet, Pool, PoolLimits};
use anabranch::proto::fec::{Decoder, Encoder, Matrix};
use anabranch::proto::rtp::Header;
use anabranch::units::{Seq, Time};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

criterion_group!(benches, encode, decode);
criterion_main!(benches);

fn encode(criterion: &mut Criterion) {
    let packets: Vec<Vec<u8>> = (0..PACKETS).map(datagram).collect();
    let mut encoder = Encoder::new(Matrix::DEFAULT, Pool::new(PoolLimits::default()), 1);
    let mut n = 0;
    let mut group = criterion.benchmark_group("fec_encode");
    group.throughput(Throughput::Elements(PACKETS));
    group.bench_function("8x4", |bencher| {
        bencher.iter(|| {
            for packet in &packets {
                let (_, rest) = packet.split_first_chunk::<12>().unwrap();
                encoder.handle(&header(n).to_bytes(), black_box(rest));
                n += 1;
                while let Some(packet) = encoder.poll() {
                    black_box(packet);
                }
            }
        });
    });
    group.finish();
}

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fec_decode");
    group.throughput(Throughput::Elements(PACKETS));
    for (name, lost_per_mille) in [("8x4 no loss", 0), ("8x4 5 % lost", 50)] {
        let pool = Pool::new(PoolLimits::default());
        let mut encoder = Encoder::new(Matrix::DEFAULT, pool.clone(), 1);
        let mut decoder = Decoder::new(pool.clone());
        let (mut n, mut random) = (0_u64, 1_u64);
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || {
                    let mut batch = Vec::new();
                    for _ in 0..PACKETS {
                        let bytes = datagram(n);
                        let (fixed, rest) = bytes.split_first_chunk().unwrap();
                        encoder.handle(fixed, rest);
                        let media = pool.copy(&bytes, Meta::default()).unwrap();
                        let fec = std::iter::from_fn(|| encoder.poll()).map(|fec| (None, fec.packet));
                        for (number, packet) in std::iter::once((Some((1 << 16) + n), media)).chain(fec) {
                            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                            if (random >> 33) % 1_000 >= lost_per_mille {
                                batch.push((number, packet));
                            }
                        }
                        n += 1;
                    }
                    batch
                },
                |batch: Vec<(Option<u64>, Packet)>| {
                    for (number, packet) in batch {
                        match number {
                            Some(number) => decoder.handle_media(Time::ZERO, number, &packet),
                            None => decoder.handle_fec(Time::ZERO, packet),
                        }
                        while let Some(recovered) = decoder.poll_recovered() {
                            black_box(recovered);
                        }
                    }
                },
                BatchSize::PerIteration,
            );
        });
        let stats = decoder.stats();
        assert_eq!(stats.refused + stats.malformed + stats.no_buffer, 0);
        assert!((stats.repaired > 0) == (lost_per_mille > 0));
    }
    group.finish();
}

/// Packets in one round: as many as a batched receive may bring.
const PACKETS: u64 = 64;

fn datagram(n: u64) -> Vec<u8> {
    [&header(n).to_bytes()[..], &[n as u8; 1_316]].concat()
}

fn header(n: u64) -> Header {
    Header { marker: false, payload_type: 33, sequence: Seq::new(n as u32), timestamp: n as u32 * 90, ssrc: 1 }
}
