//! The scanner as a whole: streams of our own, broken in every way, and streams that TSDuck has said something about.

use std::path::Path;

use proptest::prelude::*;

use super::psi::{Pat, Pmt, packet_of};
use super::section::LongSection;
use super::*;
use crate::units::{Bitrate, Ticks27M, Time};

#[test]
fn a_clean_stream_has_no_errors() {
    let mut scanner = Scanner::default();
    scanner.push(Time::ZERO, &bytes_of(&stream(100)), &mut ());
    let stats = scanner.stats();
    assert_eq!(stats.sync.packets, 102);
    assert_eq!(ScannerStats { sync: SyncStats::default(), ..stats }, ScannerStats::default());
    let program = &scanner.programs().list()[0];
    assert_eq!((program.number, program.pmt_pid), (1, PMT_PID));
    assert_eq!(program.pmt.as_ref().unwrap().streams[0].codec, Some("h264"));
}

#[test]
fn each_fault_of_continuity_is_told_apart() {
    let counted = |spoil: &dyn Fn(&mut Vec<[u8; 188]>)| {
        let mut packets = stream(100);
        spoil(&mut packets);
        let mut scanner = Scanner::default();
        scanner.push(Time::ZERO, &bytes_of(&packets), &mut ());
        let stats = scanner.stats();
        (stats.continuity_errors, stats.lost_min, stats.duplicates)
    };
    assert_eq!(counted(&|packets| _ = packets.remove(20)), (1, 1, 0));
    assert_eq!(counted(&|packets| drop(packets.drain(20..25))), (1, 5, 0));
    assert_eq!(counted(&|packets| packets.insert(20, packets[20])), (0, 0, 1));
    assert_eq!(
        counted(&|packets| {
            packets.insert(20, packets[20]);
            packets.insert(20, packets[20]);
        }),
        (1, 0, 1),
        "twice is one too many"
    );
    assert_eq!(counted(&|packets| drop(packets.drain(20..36))), (0, 0, 0), "sixteen cannot be seen");
    assert_eq!(counted(&|packets| drop(packets.drain(20..35))), (1, 15, 0), "the same counter is no repetition");
    assert_eq!(counted(&|packets| packets.swap(20, 21)).0, 3);
    let announced = |packets: &mut Vec<[u8; 188]>| {
        packets.drain(20..25);
        packets[20][3] |= 0x20;
        packets[20][4..6].copy_from_slice(&[1, 0x80]);
    };
    assert_eq!(counted(&announced), (0, 0, 0));
    assert_eq!(counted(&|packets| packets[20][1] |= 0x80), (1, 1, 0), "a transport error counts for nothing else");
}

#[test]
fn packets_without_payload_do_not_count() {
    let mut packets = stream(40);
    let mut without = [0xff; 188];
    without[..6].copy_from_slice(&[0x47, 0x01, 0x00, 0x20 | packets[20][3] & 0x0f, 183, 0]);
    packets.insert(21, without);
    let mut scanner = Scanner::default();
    scanner.push(Time::ZERO, &bytes_of(&packets), &mut ());
    assert_eq!((scanner.stats().continuity_errors, scanner.stats().duplicates), (0, 0));
}

#[test]
fn all_pids_and_tables_that_change_with_each_packet_stay_bounded() {
    let mut scanner = Scanner::default();
    let mut now = Time::ZERO;
    for round in 0..3_u16 {
        for n in 0..8_191_u16 {
            let programs: Vec<(u16, Pid)> = (0..40).map(|k| (k + 1, Pid::from_low_bits(n ^ k << 5))).collect();
            let pat = Pat { stream_id: n, version: (n % 32) as u8, programs: &programs };
            let (pid, pcr) = (Pid::from_low_bits(n), Some(Ticks27M(u64::from(n) << 16 | u64::from(round))));
            let adaptation = Some(Adaptation { pcr, ..Adaptation::default() });
            let mut with_pcr = [0; 188];
            TsPacket { pid, cc: (round % 16) as u8, adaptation, payload: Some(&[0; 100]), ..TsPacket::default() }
                .write(&mut with_pcr);
            let mut table = packet_of(&pat.section(), Pid::PAT);
            table[3] |= (n % 16) as u8;
            scanner.push(now, &bytes_of(&[table, with_pcr]), &mut ());
            now += std::time::Duration::from_micros(10);
        }
    }
    assert_eq!(scanner.pids().len(), 8_191);
    let stats = scanner.stats();
    assert!(stats.pcr_pids_skipped > 20_000);
    assert!(scanner.programs().stats().changes <= 512 && scanner.programs().stats().changes_skipped > 20_000);
    scanner.close_window(now);
}

#[test]
fn rates_are_those_of_the_window() {
    let mut scanner = Scanner::default();
    scanner.close_window(Time::ZERO);
    let mut packets = stream(98);
    packets.extend([null(); 100]);
    scanner.push(Time::ZERO, &bytes_of(&packets), &mut ());
    scanner.close_window(Time::from_ns(100_000_000));
    assert_eq!(scanner.rate(), Bitrate::from_bps(200 * 1_504 * 10));
    assert_eq!(scanner.null_rate(), Bitrate::from_bps(100 * 1_504 * 10));
    assert_eq!(scanner.pid(VIDEO_PID).unwrap().rate, Bitrate::from_bps(98 * 1_504 * 10));
}

/// Against `tests/data/ts/test-026`, of which TSDuck's analysis is known.
#[test]
fn a_broadcast_is_what_tsduck_says_it_is() {
    let mut scanner = Scanner::default();
    for (n, piece) in (0..).zip(read("test-026.ts").chunks(1_316)) {
        scanner.push(Time::from_ns(n * 1_471_000), piece, &mut ());
    }
    let stats = scanner.stats();
    assert_eq!((stats.sync.packets, stats.nulls, stats.continuity_errors, stats.crc_errors), (5_320, 0, 0, 0));
    let packets: Vec<(u16, u64)> = scanner.pids().iter().map(|pid| (pid.pid.value(), pid.packets)).collect();
    let mut sorted = packets;
    sorted.sort_unstable();
    let expected = [(0, 12), (17, 1), (110, 12), (120, 4_964), (130, 99), (131, 98), (132, 98), (140, 33), (142, 3)];
    assert_eq!(sorted, expected);
    let video = scanner.pid(Pid::from_low_bits(120)).unwrap();
    assert_eq!((video.pcrs, video.pes_packets), (32, 29));
    let rate = scanner.pcr_rate().unwrap().as_bps();
    assert!(rate.abs_diff(7_155_787) < 7_155_787 / 100, "{rate}");
    let [program] = scanner.programs().list() else { panic!("one program") };
    assert_eq!(scanner.programs().stream_id(), Some(1));
    let service = program.service.as_ref().unwrap();
    assert_eq!((program.number, &*service.name, &*service.provider), (257, "France 2", "GR1 A"));
    let pmt = program.pmt.as_ref().unwrap();
    let streams: Vec<_> =
        pmt.streams.iter().map(|stream| (stream.pid.value(), stream.codec, stream.language)).collect();
    let expected = [
        (120, Some("h264"), None),
        (130, Some("eac3"), Some(*b"fre")),
        (131, Some("eac3"), Some(*b"fra")),
        (132, Some("eac3"), Some(*b"qaa")),
        (140, Some("dvb_subtitle"), Some(*b"fra")),
        (142, Some("dvb_subtitle"), Some(*b"fra")),
    ];
    assert_eq!(streams, expected);
}

/// Against `tests/data/ts/test-064`: every PCR where TSDuck found it, and those that its `pcrverify` complains about.
#[test]
fn clock_references_are_those_that_tsduck_found() {
    #[derive(Default)]
    struct Clock {
        readings: Vec<PcrReading>,
    }
    impl Observer for Clock {
        fn handle_pcr(&mut self, _now: Time, pid: Pid, reading: &PcrReading) {
            if pid.value() == 0x100 {
                self.readings.push(*reading);
            }
        }
    }
    let mut scanner = Scanner::default();
    let mut clock = Clock::default();
    let mut positions = Vec::new();
    for (n, piece) in read("test-064.ts").chunks(188).enumerate() {
        let before = clock.readings.len();
        scanner.push(Time::ZERO, piece, &mut clock);
        positions.extend(std::iter::repeat_n(n, clock.readings.len() - before));
    }
    let csv = String::from_utf8(read("test-064.pcr.csv")).unwrap();
    let expected: Vec<u64> = csv.lines().filter(|line| line.contains(",PCR,")).map(|line| field(line, 5)).collect();
    assert_eq!(clock.readings.iter().map(|reading| reading.pcr.0).collect::<Vec<_>>(), expected);
    let indices: Vec<u64> = csv.lines().filter(|line| line.contains(",PCR,")).map(|line| field(line, 1)).collect();
    // The first five packets come together, when synchronisation is there.
    assert!(positions.iter().zip(&indices).skip(1).all(|(found, index)| *found as u64 == *index));
    // pcrverify compares each step with what the bytes between take at the stream's mean rate, which its log implies.
    let logged = [-4_985_008.0, -3_691_975.0, -7_107_534.0, -3_399_213.0, -6_006_992.0];
    let step = |n: usize| clock.readings[n].step.unwrap() as f64;
    let packets = |n: usize| (indices[n] - indices[n - 1]) as f64;
    let ticks_each = (step(2) - logged[0]) / packets(2);
    let jitter = |n: usize| step(n) - packets(n) * ticks_each;
    let excessive: Vec<f64> = (1..indices.len()).map(jitter).filter(|jitter| jitter.abs() > 2_700_000.0).collect();
    assert_eq!(excessive.len(), logged.len(), "{excessive:?}");
    assert!(excessive.iter().zip(logged).all(|(found, logged)| (found - logged).abs() < 5.0), "{excessive:?}");
}

/// Against `tests/data/ts/test-103-tables`: the tables that TSDuck found, each with its versions.
#[test]
fn changes_of_tables_are_those_that_tsduck_found() {
    #[derive(Default)]
    struct Versions {
        changes: Vec<(u8, u8)>,
    }
    impl Observer for Versions {
        fn handle_section(
            &mut self,
            _now: Time,
            _pid: Pid,
            _table_id: u8,
            section: Result<LongSection<'_>, section::SectionError>,
        ) {
            let Ok(section) = section else { return };
            let newest = self.changes.iter().rev().find(|change| change.0 == section.table_id);
            if matches!(section.table_id, 0x00 | 0x40 | 0x42) && newest.is_none_or(|change| change.1 != section.version)
            {
                self.changes.push((section.table_id, section.version));
            }
        }
    }
    let mut scanner = Scanner::default();
    let mut versions = Versions::default();
    scanner.push(Time::ZERO, &read("test-103-tables.ts"), &mut versions);
    let of =
        |table| versions.changes.iter().filter(|change| change.0 == table).map(|change| change.1).collect::<Vec<_>>();
    assert_eq!((of(0x00), of(0x40), of(0x42)), (vec![18, 19, 20], vec![0, 1, 2], vec![10, 11, 12, 13, 14]));
    let names = scanner.programs().list().iter().filter_map(|program| program.service.as_ref());
    assert_eq!(names.map(|service| &*service.name).collect::<Vec<_>>(), ["Srv_1", "Srv_2"]);
    assert_eq!(scanner.stats().crc_errors, 0);
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..4_000)) {
        check_any_stream(&bytes);
        check_any_tables(&bytes);
        check_any_unit(&bytes);
    }

    #[test]
    fn broken_streams_are_survived(
        edits in proptest::collection::vec((0_usize..20_000, any::<u8>()), 0..60), start in 0_usize..800
    ) {
        let mut bytes = bytes_of(&stream(104));
        for (at, byte) in edits {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        // The first byte of each piece is its length.
        let pieces: Vec<u8> = bytes[start..].chunks(1_320).flat_map(|piece| [&[120], piece].concat()).collect();
        check_any_stream(&pieces);
    }

    #[test]
    fn losses_are_counted_as_a_slow_count_does(lost in proptest::collection::vec(any::<bool>(), 90)) {
        let packets = stream(90);
        let kept = packets.iter().skip(2).zip(&lost).filter(|(_, lost)| !**lost).map(|(packet, _)| *packet);
        let kept: Vec<[u8; 188]> = kept.collect();
        let mut scanner = Scanner::default();
        scanner.push(Time::ZERO, &bytes_of(&kept), &mut ());
        let steps = kept.windows(2).map(|pair| (pair[1][3].wrapping_sub(pair[0][3]) & 0x0f, pair[0][3], pair[1][3]));
        let expected = if kept.len() < 5 { 0 } else { steps.filter(|(step, ..)| *step != 1).count() as u64 };
        prop_assert_eq!(scanner.stats().continuity_errors, expected);
    }
}

const PMT_PID: Pid = Pid::from_low_bits(0x1000);
const VIDEO_PID: Pid = Pid::from_low_bits(0x100);

/// PAT, PMT and so many numbered packets of a video stream.
fn stream(count: u16) -> Vec<[u8; 188]> {
    let pat = Pat { stream_id: 1, version: 0, programs: &[(1, PMT_PID)] };
    let pmt = Pmt { program: 1, version: 0, pcr_pid: VIDEO_PID, streams: &[(0x1b, VIDEO_PID)] };
    let tables = [packet_of(&pat.section(), Pid::PAT), packet_of(&pmt.section(), PMT_PID)];
    let numbered = (0..count).map(|n| {
        let payload: Vec<u8> = n.to_be_bytes().repeat(92);
        let mut packet = [0; 188];
        TsPacket { pid: VIDEO_PID, cc: (n % 16) as u8, payload: Some(&payload), ..TsPacket::default() }
            .write(&mut packet);
        packet
    });
    tables.into_iter().chain(numbered).collect()
}

fn null() -> [u8; 188] {
    let mut packet = [0xff; 188];
    packet[..4].copy_from_slice(&[0x47, 0x1f, 0xff, 0x10]);
    packet
}

fn bytes_of(packets: &[[u8; 188]]) -> Vec<u8> {
    packets.concat()
}

fn field(line: &str, n: usize) -> u64 {
    line.split(',').nth(n).unwrap().parse().unwrap()
}

fn read(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/ts").join(name)).unwrap()
}
