//! What must hold for any bytes whatever; shared by the unit tests and the fuzz targets.

use std::time::Duration;

use super::decoder_buffers::{DecoderBuffers, SoundFrame};
use super::opus;
use super::packet::{Pid, TS_PACKET_BYTES};
use super::pcr::PcrReading;
use super::programs::{PROGRAMS_MAX, Programs, STREAMS_MAX};
use super::psi::crc32;
use super::scanner::{Observer, Scanner, Seen};
use super::section::{Assembler, LongSection, SectionError};
use super::table::{PmtBody, conditional_access, descriptors, read_pat, read_sdt};
use super::text::read_text;
use crate::proto::av1;
use crate::units::Time;

/// The body of the fuzz target `ts_packets`, which tests call as well: bytes as a stream that comes in pieces. The first byte
/// of a piece says how long it is and how much later it comes.
///
/// # Panics
/// If a counter disagrees with another one, or anything grows beyond its bound.
pub fn check_any_stream(bytes: &[u8]) {
    let mut scanner = Scanner::default();
    let mut counts = Counts::default();
    let mut now = Time::ZERO;
    let mut rest = bytes;
    while let Some((op, behind)) = rest.split_first() {
        let (piece, after) = behind.split_at((usize::from(*op) * 11).min(behind.len()));
        rest = after;
        now += Duration::from_millis(u64::from(op % 8));
        scanner.push(now, piece, &mut counts);
        if op % 16 == 0 {
            scanner.close_window(now);
        }
    }
    let stats = scanner.stats();
    let seen: u64 = scanner.pids().iter().map(|pid| pid.packets).sum();
    assert_eq!(seen + stats.nulls + stats.transport_errors + stats.malformed, stats.sync.packets);
    assert_eq!(stats.continuity_errors, scanner.pids().iter().map(|pid| pid.continuity_errors).sum::<u64>());
    assert!(counts.packets + stats.duplicates <= seen);
    assert!(stats.sync.packets * TS_PACKET_BYTES as u64 + stats.sync.skipped_bytes <= bytes.len() as u64);
    check_programs(scanner.programs());
}

/// The body of the fuzz target `psi`, which tests call as well: bytes as payloads of one PID, each behind its length, and as
/// the inside of sections of every kind.
///
/// # Panics
/// If anything grows beyond its bound.
pub fn check_any_tables(bytes: &[u8]) {
    let mut assembler = Assembler::default();
    let mut rest = bytes;
    while let Some((op, behind)) = rest.split_first() {
        let (payload, after) = behind.split_at(usize::from(op & 0x7f).min(behind.len()));
        rest = after;
        assembler.push(payload, op & 0x80 != 0, |section| assert!(section.len() <= SECTION_BYTES_MAX));
    }
    read_pat(bytes).for_each(drop);
    let streams = PmtBody::parse(bytes).into_iter().flat_map(|pmt| pmt.streams());
    streams.for_each(|stream| conditional_access(stream.descriptors).for_each(drop));
    for (_, content) in descriptors(bytes) {
        assert!(!read_text(content).chars().any(char::is_control));
    }
    read_sdt(bytes).for_each(drop);
    let mut programs = Programs::default();
    let mut now = Time::ZERO;
    let mut rest = bytes;
    while let Some(([table, extension, version, len], behind)) = rest.split_first_chunk::<4>() {
        let (body, after) = behind.split_at(usize::from(*len).min(behind.len()));
        rest = after;
        let table_id = [0x00, 0x01, 0x02, 0x42][usize::from(table & 3)];
        let pid = [Pid::PAT, Pid::CAT, Pid::from_low_bits(u16::from(table >> 2)), Pid::SDT][usize::from(table & 3)];
        let section = LongSection {
            table_id,
            extension: u16::from(*extension),
            version: version & 0x1f,
            is_current: version & 0x80 == 0,
            number: version >> 5 & 3,
            last_number: 3,
            body,
            crc: crc32(body),
        };
        programs.handle_section(now, pid, &section);
        now += Duration::from_millis(20);
        check_programs(&programs);
    }
}

/// The body of the fuzz target `ts_units`, which tests call as well: bytes as what PES packets begin with, where they are read
/// without a decoder: open bitstream units and sequence headers of AV1, control headers of Opus, and what tells of buffers.
///
/// # Panics
/// If what is found does not lie within `bytes`, or does not come back as it was written.
pub fn check_any_unit(bytes: &[u8]) {
    for codec in ["h264", "hevc", "mpeg2video"] {
        let _ = DecoderBuffers::of_video(codec, bytes);
    }
    for codec in ["mp2", "aac", "ac3"] {
        assert!(SoundFrame::parse(codec, bytes).is_none_or(|frame| frame.ticks_27m > 0));
    }
    if let Ok((header_bytes, packet_bytes)) = opus::read_control_header(bytes) {
        assert!(header_bytes >= 3 && (1..=opus::PACKET_BYTES_MAX + 255).contains(&packet_bytes));
        let _ = bytes.get(header_bytes..).and_then(opus::ticks_90k);
    }
    let _ = av1::look(bytes);
    if let Some(sequence) = av1::Sequence::parse(bytes) {
        assert_eq!(sequence.record()[0], 0x81);
        assert!(sequence.range_and_gamut() <= av1::NO_INDICATION);
    }
    if let Ok(frames) = av1::frames(bytes) {
        assert!(frames.iter().all(|(range, _)| range.start < range.end && range.end <= bytes.len()));
        assert!(frames.windows(2).all(|pair| pair[0].0.end <= pair[1].0.start));
    }
    let Ok(plain) = av1::without_start_codes(bytes) else { return };
    let mut escaped = Vec::new();
    if av1::append_escaped(&plain, &mut escaped).is_ok() && !plain.is_empty() {
        // Each has a size from now on, where it had none.
        let again = av1::without_start_codes(&escaped).unwrap_or_else(|error| unreachable!("{error:?}"));
        let sized: Vec<u8> = av1::obus(&plain).flatten().fold(Vec::new(), |mut sized, obu| {
            obu.append(&mut sized);
            sized
        });
        assert_eq!(again, sized);
    }
}

fn check_programs(programs: &Programs) {
    assert!(programs.list().len() <= PROGRAMS_MAX);
    assert!(programs.streams().count() <= STREAMS_MAX);
}

#[derive(Default)]
struct Counts {
    packets: u64,
}

impl Observer for Counts {
    fn handle_packet(&mut self, _now: Time, packet: &Seen<'_>) {
        self.packets += 1;
        assert!(!packet.payload.is_empty() && packet.payload.len() <= 184);
    }

    fn handle_section(&mut self, _now: Time, _pid: Pid, _table_id: u8, section: Result<LongSection<'_>, SectionError>) {
        assert!(section.is_ok_and(|section| section.body.len() <= SECTION_BYTES_MAX) || section.is_err());
    }

    fn handle_pcr(&mut self, _now: Time, _pid: Pid, reading: &PcrReading) {
        assert!(reading.step.is_some() || reading.is_restart);
    }
}

/// A `section_length` of 4,095 and what stands before.
const SECTION_BYTES_MAX: usize = 4_098;
