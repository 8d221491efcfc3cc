//! What taking in an RTMP publisher costs the core: chunks to messages to access units, 8 Mb/s of video with audio, in
//! chunks of 4,096 bytes as OBS sends them, of 60,000 as ffmpeg does, and of 128.
#![allow(clippy::unwrap_used, reason = "a bench that cannot go on may panic")]

use std::collections::VecDeque;
use std::hint::black_box;

use anabranch::proto::Payload;
use anabranch::proto::rtmp::chunk::{Reader, Writer};
use anabranch::proto::rtmp::{Message, flv, kind};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

criterion_group!(benches, ingest);
criterion_main!(benches);

fn ingest(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rtmp_ingest");
    for chunk_bytes in [128, 4_096, 60_000] {
        let stream = stream(chunk_bytes);
        group.throughput(Throughput::Bytes(stream.iter().map(|packet| packet.len() as u64).sum()));
        group.bench_function(format!("chunks of {chunk_bytes}"), |bencher| {
            bencher.iter(|| {
                let (mut reader, mut units) = (Reader::new(), flv::Reader::default());
                for packet in &stream {
                    reader.push(packet.clone()).unwrap();
                    while let Some(message) = reader.poll().unwrap() {
                        for unit in units.read(&message) {
                            black_box(unit.unwrap());
                        }
                    }
                }
            });
        });
    }
    group.finish();
}

/// One second, as it is read from a socket: 64 KiB at a time.
fn stream(chunk_bytes: u32) -> Vec<Payload> {
    let (mut writer, mut pieces) = (Writer::default(), VecDeque::new());
    writer.set_chunk_size(chunk_bytes, &mut pieces);
    for n in 0..30 {
        let video = [&[0x27, 1, 0, 0, 0][..], &[7; 33_000]].concat();
        writer.write(&message(kind::VIDEO, n * 33, video), &mut pieces);
        for _ in 0..2 {
            writer.write(&message(kind::AUDIO, n * 33, [&[0xaf, 1][..], &[7; 340]].concat()), &mut pieces);
        }
    }
    let bytes: Vec<u8> = pieces.iter().flat_map(|piece| [&piece.header[..], &piece.payload].concat()).collect();
    bytes.chunks(65_536).map(Payload::from).collect()
}

fn message(kind: u8, timestamp_ms: u32, payload: Vec<u8>) -> Message {
    Message { kind, stream: 1, timestamp_ms, payload: payload.into() }
}
