//! What the multiplexer costs: a picture of 20 Mb/s and sound, at a varying and at a constant rate. Says as well what of that
//! is computing time, by Gbit of access units.
#![allow(clippy::unwrap_used, reason = "a bench that cannot go on may panic")]
#![allow(clippy::disallowed_methods, reason = "times parts of a round, which criterion's own clock cannot")]
#![allow(clippy::print_stdout, reason = "figures are what it is for")]

use std::fs;
use std::hint::black_box;
use std::time::{Duration, Instant};

use anabranch::bus::{Pool, PoolLimits};
use anabranch::proto::Payload;
use anabranch::proto::mpegts::mux::{AccessUnit, Config, Format, Multiplexer};
use anabranch::units::{Bitrate, Ticks90k, Time};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

criterion_group!(benches, mux);
criterion_main!(benches);

/// One second of it goes in and out with each iteration; the throughput is that of the access units.
fn mux(criterion: &mut Criterion) {
    let record = [1, 0x64, 0, 31, 0xff, 0xe1, 0, 4, 0x67, 0x64, 0, 31, 1, 0, 4, 0x68, 0xee, 0x3c, 0x80];
    let formats = [("lengths", Format::h264_with_record(&record).unwrap()), ("start codes", Format::h264())];
    let mut group = criterion.benchmark_group("mux");
    group.throughput(Throughput::Bytes(SECOND_BYTES));
    for (name, format) in formats {
        let picture = Payload::from(picture(name == "lengths"));
        for rate in [None, Some(24_000_000)] {
            let config = Config { rate: rate.map(Bitrate::from_bps), ..Config::default() };
            let mut mux = Multiplexer::new(config, Pool::new(PoolLimits::default())).unwrap();
            let video = mux.add_track(format.clone(), None).unwrap();
            let audio = mux.add_track(Format::mpeg_audio(), None).unwrap();
            let sound = Payload::from([&[0xff, 0xfd][..], &[0x55; SOUND_BYTES - 2]].concat());
            let (mut tick, mut spent_ns) = (0, 0);
            let rate = if rate.is_some() { "constant" } else { "varying" };
            group.bench_function(format!("{name}, {rate} rate"), |bencher| {
                bencher.iter_custom(|seconds| {
                    let (start, before_ns) = (Instant::now(), cpu_ns());
                    for _ in 0..seconds * 50 {
                        let now = Time::ZERO + Duration::from_millis(tick * 20);
                        let dts = Ticks90k(tick * 1_800);
                        let unit =
                            |data: &Payload| AccessUnit { pts: dts, dts, random_access: false, data: data.clone() };
                        if tick % 2 == 0 {
                            mux.handle_access_unit(now, video, &unit(&picture));
                        }
                        mux.handle_access_unit(now, audio, &unit(&sound));
                        while let Some(packet) = mux.poll_packet() {
                            black_box(packet);
                        }
                        tick += 1;
                    }
                    spent_ns += cpu_ns() - before_ns;
                    start.elapsed()
                });
            });
            let gbit = (tick / 50 * SECOND_BYTES * 8) as f64 / 1e9;
            println!("| {name}, {rate} rate | {:.4} |", spent_ns as f64 / 1e9 / gbit);
            let stats = mux.stats();
            assert_eq!((stats.stale, stats.malformed, stats.overflow, stats.undecodable), (0, 0, 0, 0), "{stats:?}");
        }
    }
    group.finish();
}

/// Nanoseconds that this thread was on a processor (proc_pid_schedstat). It is counted by the tick, which levels out.
fn cpu_ns() -> u64 {
    fs::read_to_string("/proc/thread-self/schedstat").unwrap().split(' ').next().unwrap().parse().unwrap()
}

/// An IDR picture of one slice.
fn picture(with_length: bool) -> Vec<u8> {
    let parameter_sets = [0, 0, 0, 1, 0x67, 0x64, 0, 31, 0, 0, 0, 1, 0x68, 0xee, 0x3c, 0x80];
    let length = (PICTURE_BYTES as u32 - 4).to_be_bytes();
    let mut out = if with_length { length.to_vec() } else { [&parameter_sets[..], &[0, 0, 0, 1]].concat() };
    out.push(0x65);
    out.resize(PICTURE_BYTES, 0x5a);
    out
}

/// 20 Mb/s at 25 Hz.
const PICTURE_BYTES: usize = 100_000;
/// 192 kb/s in frames of 20 ms.
const SOUND_BYTES: usize = 480;
const SECOND_BYTES: u64 = (PICTURE_BYTES * 25 + SOUND_BYTES * 50) as u64;
