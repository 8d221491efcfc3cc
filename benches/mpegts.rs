//! What looking at a transport stream costs: computing time for each TS packet, and the share of one core at 1 Gb/s.
//!
//! `cargo bench --bench mpegts [-- --quick]`. The least of many rounds by turns is printed, so other load on the machine matters
//! little. Streams come in datagrams of seven TS packets:
//!
//! - `programme`: 20 Mb/s of H.264 with captions, sound, splice information and all tables of DVB, as the analysis has most to do
//!   with;
//! - `broadcast`: `tests/data/ts/test-026.ts`, a recording;
//! - `numbers`: the test signal of numbered packets at 40 Mb/s;
//! - `starts`: nothing but beginnings of pictures without an end, to make work on purpose.
#![allow(clippy::unwrap_used, reason = "a bench that cannot go on may panic")]
#![allow(clippy::print_stdout, reason = "figures are what it is for")]
#![allow(clippy::disallowed_methods, reason = "time is what it measures, also where there are no adapters")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use anabranch::bus::{Pool, PoolLimits, Publisher};
use anabranch::proto::mpegts::analysis::Analyser;
use anabranch::proto::mpegts::entry::Finder;
use anabranch::proto::mpegts::psi::{Pat, Pmt, Section, crc32, packet_of};
use anabranch::proto::mpegts::{
    Adaptation, Found, Generator, Pid, Scanner, Sync, TS_PACKET_BYTES, TsPacket, generator,
};
use anabranch::proto::{Core, Surroundings};
use anabranch::units::{Bitrate, Ticks27M, Time};

fn main() {
    // As a test of this target it only has to build.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let rounds = if std::env::args().any(|argument| argument == "--quick") { 5 } else { 60 };
    let broadcast = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/ts/test-026.ts")).unwrap();
    println!("{:<10} {:<44} {:>12} {:>18}", "stream", "what", "ns/TS packet", "of a core at 1 Gb/s");
    for (name, bytes, rate_bps) in [
        ("programme", programme(), PROGRAMME_BPS),
        ("broadcast", broadcast, 7_155_787),
        ("numbers", numbers(), 40_000_000),
        ("starts", starts(), 40_000_000),
    ] {
        let mut jobs = jobs(rate_bps);
        let mut least = vec![f64::MAX; jobs.len()];
        for _ in 0..rounds {
            for ((_, job), least) in jobs.iter_mut().zip(&mut least) {
                let start = Instant::now();
                job(&bytes);
                *least = least.min(start.elapsed().as_nanos() as f64);
            }
        }
        let packets = (bytes.len() / TS_PACKET_BYTES) as f64;
        for ((what, _), least) in jobs.iter().zip(least) {
            let each = least / packets;
            let percent = each * 1e9 / (TS_PACKET_BYTES as f64 * 8.0) / 1e9 * 100.0;
            println!("{name:<10} {what:<44} {each:>12.2} {percent:>17.2} %");
        }
    }
}

type Job = Box<dyn FnMut(&[u8])>;

/// What is measured: each goes on where the round before left it.
fn jobs(rate_bps: u64) -> Vec<(&'static str, Job)> {
    let step = Duration::from_nanos(DATAGRAM_BYTES as u64 * 8 * 1_000_000_000 / rate_bps);
    let mut sync = Sync::default();
    let (mut scanner, mut scanned_at) = (Scanner::default(), Time::ZERO);
    let (mut analyser, mut analysed_at) = (Analyser::new(Time::ZERO), Time::ZERO);
    let mut finder = Finder::default();
    let publisher = Publisher::new(Pool::new(PoolLimits::default()), 4_096);
    let mut unneeded = Finder::default();
    vec![
        (
            "synchronisation",
            Box::new(move |bytes| {
                let mut found = 0_u64;
                for datagram in bytes.chunks(DATAGRAM_BYTES) {
                    sync.push(datagram, |what| found += u64::from(matches!(what, Found::Packet(_))));
                }
                black_box(found);
            }),
        ),
        (
            "scanner: counters, clocks, tables",
            Box::new(move |bytes| {
                for datagram in bytes.chunks(DATAGRAM_BYTES) {
                    scanned_at += step;
                    scanner.push(scanned_at, datagram, &mut ());
                }
                black_box(scanner.stats());
            }),
        ),
        (
            "everything: TR 101 290, MDI, cues, captions",
            Box::new(move |bytes| {
                for datagram in bytes.chunks(DATAGRAM_BYTES) {
                    analysed_at += step;
                    analyser.handle_packet(analysed_at, datagram, None);
                }
                while analyser.poll_event().is_some() || analyser.poll_cue().is_some() {}
                black_box(analyser.priority_1_errors());
            }),
        ),
        (
            "key frames: while somebody needs them",
            Box::new(move |bytes| {
                let datagrams = bytes.chunks(DATAGRAM_BYTES);
                black_box(datagrams.filter(|datagram| finder.handle_packet(datagram)).count());
            }),
        ),
        (
            "key frames: while nobody does",
            Box::new(move |bytes| {
                let datagrams = bytes.chunks(DATAGRAM_BYTES).map(black_box);
                black_box(
                    datagrams
                        .filter(|datagram| publisher.needs_key_frames() && unneeded.handle_packet(datagram))
                        .count(),
                );
            }),
        ),
    ]
}

/// Ten seconds of a programme, at exactly constant rate.
fn programme() -> Vec<u8> {
    let packets_per_second = PROGRAMME_BPS / (TS_PACKET_BYTES as u64 * 8);
    // In turns of a second: every so many slots, from the n-th on.
    let every = |ms: u64| packets_per_second * ms / 1_000;
    let tables = tables();
    let mut ccs = [0_u8; 0x2000];
    let mut video = Unit::default();
    let mut sound = Unit::default();
    let mut bytes = Vec::new();
    for slot in 0..10 * packets_per_second {
        let table = tables.iter().find(|(ms, first, ..)| slot % every(*ms) == *first);
        let mut packet = if let Some((.., pid, section)) = table {
            packet_of(section, *pid)
        } else if slot % every(30) == 8 {
            let pcr = Some(Ticks27M(slot * TS_PACKET_BYTES as u64 * 8 * 27_000_000 / PROGRAMME_BPS));
            let adaptation = Some(Adaptation { pcr, ..Adaptation::default() });
            write(&TsPacket { pid: VIDEO, adaptation, ..TsPacket::default() })
        } else if slot % 33 == 20 {
            write(&TsPacket { pid: Pid::NULL, payload: Some(&[0xff; 184]), ..TsPacket::default() })
        } else if slot % 33 == 21 {
            // 600 kb/s of sound, a frame every 24 ms.
            sound.next(SOUND, slot, every(24), &[0xff, 0xf1, 0x4c, 0x80])
        } else {
            let is_key = slot / every(40) % 25 == 0;
            video.next(VIDEO, slot, every(40), if is_key { &KEY_PICTURE } else { &PICTURE })
        };
        let pid = Pid::from_low_bits(u16::from_be_bytes([packet[1], packet[2]]));
        let cc = &mut ccs[usize::from(pid.value())];
        *cc = (*cc + u8::from(packet[3] & 0x10 != 0)) & 0x0f;
        packet[3] |= *cc;
        bytes.extend(packet);
    }
    bytes
}

/// How often in milliseconds, from which slot on, where, what.
fn tables() -> Vec<(u64, u64, Pid, Section)> {
    let (pmt, cues) = (Pid::from_low_bits(0x1000), Pid::from_low_bits(0x1f0));
    let streams = [(0x1b, VIDEO), (0x0f, SOUND), (0x86, cues)];
    let eit = [0, 1, 0xff, 1, 1, 0x4e];
    vec![
        (100, 0, Pid::PAT, Pat { stream_id: 1, version: 0, programs: &[(1, pmt)] }.section()),
        (100, 1, pmt, Pmt { program: 1, version: 0, pcr_pid: VIDEO, streams: &streams }.section()),
        (500, 2, Pid::SDT, section(0x42, 0, &[0xff, 1, 0xff])),
        (500, 3, Pid::EIT, section(0x4e, 0, &eit)),
        (500, 4, Pid::EIT, section(0x4e, 1, &eit)),
        (2_000, 5, Pid::NIT, section(0x40, 0, &[0xf0, 0, 0xf0, 0])),
        (5_000, 6, Pid::TDT, Section::from_iter([0x70, 0x70, 5, 0xc0, 0x79, 0x12, 0x45, 0])),
        (1_000, 7, cues, Section::from_iter(CUE)),
    ]
}

fn section(table_id: u8, number: u8, body: &[u8]) -> Section {
    let mut section = Section::from_iter([table_id, 0xf0, body.len() as u8 + 9, 0, 1, 0xc1, number, 1]);
    section.extend(body.iter().copied());
    let crc = crc32(&section);
    section.extend(crc.to_be_bytes());
    section
}

/// PES packets of one stream.
#[derive(Default)]
struct Unit {
    number: Option<u64>,
}

impl Unit {
    /// The stream's next TS packet; a unit starts every so many slots.
    fn next(&mut self, pid: Pid, slot: u64, every: u64, beginning: &[u8]) -> [u8; TS_PACKET_BYTES] {
        let number = Some(slot / every);
        let starts = std::mem::replace(&mut self.number, number) != number;
        // Bytes without a start code among them, each packet's another.
        let mut payload = [0; 184];
        for (at, byte) in (0..).zip(&mut payload) {
            *byte = 1 | (((slot * 7 + at) * 0x9e37_79b9) >> 13) as u8;
        }
        if starts {
            let pts = slot / every * 3_600 % (1 << 15);
            let header = [0, 0, 1, 0xe0, 0, 0, 0x80, 0x80, 5, 0x21, 0, 1, (pts >> 7) as u8, (pts << 1) as u8 | 1];
            payload[..14].copy_from_slice(&header);
            payload[14..][..beginning.len()].copy_from_slice(beginning);
        }
        write(&TsPacket { payload_unit_start: starts, pid, payload: Some(&payload), ..TsPacket::default() })
    }
}

/// Pictures that begin with parameters, one in each TS packet, and never come to a slice.
fn starts() -> Vec<u8> {
    let pmt = Pid::from_low_bits(0x1000);
    let pat = Pat { stream_id: 1, version: 0, programs: &[(1, pmt)] }.section();
    let map = Pmt { program: 1, version: 0, pcr_pid: VIDEO, streams: &[(0x1b, VIDEO)] }.section();
    let mut bytes = [packet_of(&pat, Pid::PAT), packet_of(&map, pmt)].concat();
    let mut payload = [0; 184];
    for (at, byte) in payload.iter_mut().enumerate() {
        // A start code in every four bytes, of units that are passed over.
        *byte = [0, 0, 1, 0x68][(at + 3) % 4];
    }
    payload[..17].copy_from_slice(&[0, 0, 1, 0xe0, 0, 0, 0x80, 0x80, 5, 0x21, 0, 1, 0, 1, 0, 0, 1]);
    for n in 0..7 * 2_000 {
        let packet = TsPacket { payload_unit_start: true, pid: VIDEO, payload: Some(&payload), ..TsPacket::default() };
        let mut packet = write(&packet);
        packet[3] |= (n % 16) as u8;
        bytes.extend(packet);
    }
    bytes
}

fn write(packet: &TsPacket<'_>) -> [u8; TS_PACKET_BYTES] {
    let mut bytes = [0; TS_PACKET_BYTES];
    packet.write(&mut bytes);
    bytes
}

/// Some 2.5 MB at 40 Mb/s.
fn numbers() -> Vec<u8> {
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
const PROGRAMME_BPS: u64 = 20_000_000;
const VIDEO: Pid = Pid::from_low_bits(0x100);
const SOUND: Pid = Pid::from_low_bits(0x101);
/// Access unit delimiter, captions (A/53 part 4 6.2.3), a P slice.
const PICTURE: [u8; 32] = [
    0, 0, 0, 1, 9, 0x30, 0, 0, 1, 6, 4, 11, 0xb5, 0, 0x31, b'G', b'A', b'9', b'4', 3, 0xc1, 0xff, 0xfc, 0x94, 0xff,
    0x80, 0, 0, 1, 0x41, 0x9a, 0x55,
];
/// Access unit delimiter, parameters, captions, an IDR slice.
const KEY_PICTURE: [u8; 46] = [
    0, 0, 0, 1, 9, 0x10, 0, 0, 1, 0x67, 66, 0xc0, 31, 0xda, 0, 0, 1, 0x68, 0xce, 0x3c, 0, 0, 1, 6, 4, 11, 0xb5, 0,
    0x31, b'G', b'A', b'9', b'4', 3, 0xc1, 0xff, 0xfc, 0x94, 0xff, 0x80, 0, 0, 1, 0x65, 0x88, 0x84,
];
/// SCTE 35 clause 14.2.
const CUE: [u8; 50] = [
    0xfc, 0x30, 0x2f, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xf0, 0x14, 0x05, 0x48, 0x00, 0x00, 0x8f, 0x7f,
    0xef, 0xfe, 0x73, 0x69, 0xc0, 0x2e, 0xfe, 0x00, 0x52, 0xcc, 0xf5, 0x00, 0x00, 0x00, 0x00, 0x00, 0x0a, 0x00, 0x08,
    0x43, 0x55, 0x45, 0x49, 0x00, 0x00, 0x01, 0x35, 0x62, 0xdb, 0xa3, 0x0a,
];
