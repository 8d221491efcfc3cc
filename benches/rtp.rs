//! What RTP costs for each packet of 1,316 bytes: reading a header, receiving in order, sending, reading a report.
#![allow(clippy::unwrap_used, reason = "a bench that cannot go on may panic")]

use std::hint::black_box;
use std::time::Duration;

use anabranch::bus::{Meta, Packet, Pool, PoolLimits};
use anabranch::proto::mpegts::{Generator, generator};
use anabranch::proto::rtp::rtcp::{Compound, CompoundWriter, ReportBlock, Rtcp, SenderInfo};
use anabranch::proto::rtp::{Header, Receiver, ReceiverConfig, RtpPacket, Sender, SenderConfig};
use anabranch::proto::{Core, Datagram, Port, Surroundings};
use anabranch::units::{Bitrate, Seq, Time};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

criterion_group!(benches, header, receiver, sender, rtcp, generator);
criterion_main!(benches);

fn header(criterion: &mut Criterion) {
    let packets: Vec<Vec<u8>> = (0..PACKETS).map(datagram).collect();
    let headers: Vec<Header> = (0..PACKETS).map(numbered_header).collect();
    let mut group = criterion.benchmark_group("rtp_header");
    group.throughput(Throughput::Elements(PACKETS));
    group.bench_function("parse", |bencher| {
        bencher.iter(|| {
            for bytes in &packets {
                black_box(RtpPacket::parse(black_box(bytes)).unwrap());
            }
        });
    });
    group.bench_function("write", |bencher| {
        bencher.iter(|| {
            for header in &headers {
                black_box(black_box(header).to_bytes());
            }
        });
    });
    group.finish();
}

fn receiver(criterion: &mut Criterion) {
    let pool = Pool::new(PoolLimits::default());
    let mut group = criterion.benchmark_group("rtp_receiver");
    group.throughput(Throughput::Elements(PACKETS));
    for (name, is_lost) in [("in order", false), ("2 % lost", true)] {
        let mut receiver = Receiver::new(ReceiverConfig::default(), &surroundings(&pool));
        let mut n = 0;
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || {
                    let batch: Vec<Packet> = (n..n + PACKETS).map(|n| packet(&pool, n, &datagram(n))).collect();
                    n += PACKETS;
                    batch
                },
                |batch| {
                    for (n, packet) in batch.into_iter().enumerate() {
                        if is_lost && n % 50 == 25 {
                            continue;
                        }
                        let now = packet.meta.arrival;
                        let peer = ([192, 0, 2, 1], 5_000).into();
                        receiver.handle_timeout(now);
                        receiver.handle_datagram(now, Datagram { port: Port::Media, peer, packet });
                        while let Some(packet) = receiver.poll_packet() {
                            black_box(packet);
                        }
                    }
                    while receiver.poll_transmit().is_some() {}
                },
                criterion::BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

fn sender(criterion: &mut Criterion) {
    let pool = Pool::new(PoolLimits::default());
    let mut sender = Sender::new(SenderConfig::default(), &surroundings(&pool));
    let packets: Vec<Packet> = (0..PACKETS).map(|n| packet(&pool, n, &[0x47; 1_316])).collect();
    let mut group = criterion.benchmark_group("rtp_sender");
    group.throughput(Throughput::Elements(PACKETS));
    group.bench_function("new header", |bencher| {
        bencher.iter(|| {
            for packet in &packets {
                sender.handle_packet(packet.meta.arrival, packet);
                while let Some(transmit) = sender.poll_transmit() {
                    black_box(transmit);
                }
            }
        });
    });
    group.finish();
}

fn rtcp(criterion: &mut Criterion) {
    let compound = CompoundWriter::default()
        .sender_report(1, &SenderInfo::default(), &[ReportBlock::default()])
        .cname(1, "studio@anabranch")
        .into_bytes();
    criterion.bench_function("rtcp/parse SR and SDES", |bencher| {
        bencher.iter(|| {
            for packet in Compound::new(black_box(&compound)) {
                let packet = packet.unwrap();
                if let Rtcp::SenderReport { reports, .. } = packet {
                    reports.iter().for_each(|block| _ = black_box(block));
                } else if let Rtcp::SourceDescription(names) = packet {
                    names.cnames().for_each(|name| _ = black_box(name));
                }
            }
        });
    });
}

fn generator(criterion: &mut Criterion) {
    let pool = Pool::new(PoolLimits::default());
    // At this rate packets come one at a time.
    let config = generator::Config::new(Bitrate::from_bps(40_000_000), 7).unwrap();
    let mut generator = Generator::new(config, &surroundings(&pool));
    let mut group = criterion.benchmark_group("mpegts_generator");
    group.throughput(Throughput::Elements(1));
    group.bench_function("packet", |bencher| {
        bencher.iter(|| {
            generator.handle_timeout(generator.poll_timeout().unwrap());
            black_box(generator.poll_packet().unwrap());
        });
    });
    group.finish();
}

/// Packets in one round: as many as a batched receive may bring.
const PACKETS: u64 = 64;

fn surroundings(pool: &Pool) -> Surroundings {
    Surroundings { pool: pool.clone(), seed: 1, unix_ns_at_zero: 0 }
}

fn packet(pool: &Pool, n: u64, bytes: &[u8]) -> Packet {
    pool.copy(bytes, Meta { arrival: arrival(n), ..Meta::default() }).unwrap()
}

fn datagram(n: u64) -> Vec<u8> {
    [&numbered_header(n).to_bytes()[..], &[0x47; 1_316]].concat()
}

fn numbered_header(n: u64) -> Header {
    let timestamp = (arrival(n).as_ns() * 9 / 100_000) as u32;
    Header { marker: false, payload_type: 33, sequence: Seq::new(n as u32), timestamp, ssrc: 1 }
}

/// 1,316 bytes at 20 Mb/s.
fn arrival(n: u64) -> Time {
    Time::ZERO + Duration::from_nanos(n * 526_400)
}
