//! `Finder`: in which packets of a transport stream a decoder may begin (13818-1 2.4.3.5, ITU-T H.264 and H.265, here
//! "H.264" and "H.265"; ETSI TS 101 154 4.1.5 and 4.3.3 on what broadcasters put before such pictures).
//!
//! It looks at what little it takes: PAT and PMT for the PID of the pictures, and of that PID the beginning of each PES packet.
//! A decoder may begin
//!
//! - where `random_access_indicator` says so, at once or ahead (13818-1 2.4.3.5), whatever the codec;
//! - with an IDR picture, or one of nothing but I slices, or a sequence parameter set, with which broadcasters begin what can be
//!   decoded alone (H.264);
//! - with an IRAP picture or a sequence parameter set (H.265);
//! - with a key frame behind a sequence header (AV1);
//! - with a sequence header, unless a picture follows that is not intra-coded (MPEG-1 and MPEG-2 video);
//! - in a stream without pictures with each PES packet of its sound.
//!
//! Of several programs the first with pictures counts, in the order of the PAT, else the first with sound.

use std::cmp::Ordering;

use arrayvec::ArrayVec;

use super::packet::{Pid, SYNC_BYTE, TS_PACKET_BYTES};
use super::pes::PesHeader;
use super::programs::{TABLE_ID_PAT, TABLE_ID_PMT};
use super::section::{Assembler, LongSection};
use super::stream::{Media, Stream, format_identifier};
use super::table::{PmtBody, read_pat};
use crate::proto::av1;

/// Follows one transport stream. Memory: 500 bytes, and up to 4 KiB for each of 8 PMTs and the PAT while a section is under
/// way.
#[derive(Clone, Debug, Default)]
pub struct Finder {
    pat: Assembler,
    /// CRC of the PAT's last section that was read.
    pat_crc: Option<u32>,
    programs: ArrayVec<Program, PROGRAMS_MAX>,
    /// What counts; `None` until a PMT came.
    track: Option<Track>,
    /// `random_access_indicator` came in a packet in which no PES packet starts: the next one is meant.
    is_announced: bool,
}

/// A program whose PMT is read.
#[derive(Clone, Debug)]
struct Program {
    number: u16,
    pmt_pid: Pid,
    assembler: Assembler,
    pmt_crc: Option<u32>,
    track: Option<Track>,
}

/// The stream that a decoder's beginning depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Track {
    pid: Pid,
    kind: Kind,
}

/// How a beginning is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    H264,
    H265,
    Av1,
    /// MPEG-1 or MPEG-2.
    Mpeg,
    /// Pictures that are not looked into: only `random_access_indicator` tells.
    OtherVideo,
    Audio,
}

impl Finder {
    /// Looks at the next packet: whole TS packets, of which those are left out that have no sync byte. True if a decoder may
    /// begin with it: a key frame begins in it.
    #[inline]
    pub fn handle_packet(&mut self, packet: &[u8]) -> bool {
        let (ts_packets, _) = packet.as_chunks::<TS_PACKET_BYTES>();
        let mut is_entry = false;
        for (index, ts_packet) in ts_packets.iter().enumerate() {
            let [sync, b1, b2, ..] = *ts_packet;
            let pid = Pid::from_low_bits(u16::from_be_bytes([b1, b2]));
            if sync != SYNC_BYTE || b1 & TRANSPORT_ERROR != 0 {
                continue;
            }
            if let Some(track) = self.track.filter(|track| track.pid == pid) {
                is_entry |= self.handle_track(track, ts_packet, ts_packets.get(index + 1..).unwrap_or_default());
            } else if pid == Pid::PAT || self.programs.iter().any(|program| program.pmt_pid == pid) {
                self.handle_tables(pid, ts_packet);
            }
        }
        is_entry
    }

    /// Whether it is known what to look for.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        self.track.is_some()
    }

    /// A TS packet of the track, and those behind it in the same packet.
    #[inline]
    fn handle_track(&mut self, track: Track, packet: &[u8; TS_PACKET_BYTES], behind: &[[u8; TS_PACKET_BYTES]]) -> bool {
        let [_, b1, _, b3, length, flags, ..] = *packet;
        let is_indicated = b3 & HAS_ADAPTATION != 0 && length > 0 && flags & RANDOM_ACCESS != 0;
        let starts = b1 & UNIT_START != 0 && b3 & HAS_PAYLOAD != 0;
        if !starts {
            self.is_announced |= is_indicated;
            return false;
        }
        let is_announced = std::mem::take(&mut self.is_announced) || is_indicated;
        is_announced || begins_with_key_frame(track, packet, behind)
    }

    fn handle_tables(&mut self, pid: Pid, packet: &[u8; TS_PACKET_BYTES]) {
        let Some(payload) = payload_of(packet) else { return };
        let unit_start = packet[1] & UNIT_START != 0;
        if pid == Pid::PAT {
            let mut assembler = std::mem::take(&mut self.pat);
            assembler.push(payload, unit_start, |section| self.read_pat(section));
            self.pat = assembler;
            return;
        }
        let mut is_changed = false;
        // Programs may share a PID for their PMTs, each with an assembler of its own.
        for program in self.programs.iter_mut().filter(|program| program.pmt_pid == pid) {
            let Program { number, assembler, pmt_crc, track, .. } = program;
            assembler.push(payload, unit_start, |section| is_changed |= read_pmt(section, *number, pmt_crc, track));
        }
        if is_changed {
            self.choose();
        }
    }

    fn read_pat(&mut self, section: &[u8]) {
        // The first section has more programs than are followed.
        if section.get(6) != Some(&0) {
            return;
        }
        let Some(section) = read_changed(section, TABLE_ID_PAT, &mut self.pat_crc) else { return };
        let mut before = std::mem::take(&mut self.programs);
        for (number, pmt_pid) in read_pat(section.body).filter(|(number, _)| *number != 0) {
            let is_same = |program: &Program| (program.number, program.pmt_pid) == (number, pmt_pid);
            let known = before.iter().position(is_same).and_then(|at| before.swap_pop(at));
            let new = || Program { number, pmt_pid, assembler: Assembler::default(), pmt_crc: None, track: None };
            if self.programs.try_push(known.unwrap_or_else(new)).is_err() {
                break;
            }
        }
        self.choose();
    }

    fn choose(&mut self) {
        let tracks = || self.programs.iter().filter_map(|program| program.track);
        let track = tracks().find(|track| track.kind != Kind::Audio).or_else(|| tracks().next());
        if track != self.track {
            self.track = track;
            self.is_announced = false;
        }
    }
}

/// Reads a section that is not the one read before; `None` if it is, or is no good.
fn read_changed<'a>(section: &'a [u8], table_id: u8, crc: &mut Option<u32>) -> Option<LongSection<'a>> {
    let same = section.last_chunk().is_some_and(|last| *crc == Some(u32::from_be_bytes(*last)));
    if section.first() != Some(&table_id) || same {
        return None;
    }
    let section = LongSection::parse(section).ok().filter(|section| section.is_current)?;
    *crc = Some(section.crc);
    Some(section)
}

/// Reads a program's PMT; true if what counts of it has changed.
fn read_pmt(section: &[u8], number: u16, crc: &mut Option<u32>, track: &mut Option<Track>) -> bool {
    // On a shared PID other programs' sections come in between; theirs are not to be taken for a change.
    let extension = section.get(3..5).and_then(|bytes| bytes.try_into().ok()).map(u16::from_be_bytes);
    if extension != Some(number) {
        return false;
    }
    let Some(section) = read_changed(section, TABLE_ID_PMT, crc) else { return false };
    let Some(body) = PmtBody::parse(section.body) else { return false };
    let registration = format_identifier(body.descriptors);
    let tracks = || body.streams().filter_map(|entry| Track::of(&Stream::new(&entry, registration)));
    let new = tracks().find(|track| track.kind != Kind::Audio).or_else(|| tracks().next());
    std::mem::replace(track, new) != new
}

impl Track {
    fn of(stream: &Stream) -> Option<Self> {
        let kind = match (stream.media, stream.codec) {
            (Media::Video, Some("h264")) => Kind::H264,
            (Media::Video, Some("hevc")) => Kind::H265,
            (Media::Video, Some("av1")) => Kind::Av1,
            (Media::Video, Some("mpeg1video" | "mpeg2video")) => Kind::Mpeg,
            (Media::Video, _) => Kind::OtherVideo,
            (Media::Audio, _) => Kind::Audio,
            (Media::Subtitle | Media::Cue | Media::Sections | Media::Other, _) => return None,
        };
        Some(Self { pid: stream.pid, kind })
    }
}

/// Whether the PES packet that starts in `packet` begins with a key frame, as far as it lies in this and those behind.
fn begins_with_key_frame(track: Track, packet: &[u8; TS_PACKET_BYTES], behind: &[[u8; TS_PACKET_BYTES]]) -> bool {
    let is_clear = packet[3] & SCRAMBLING == 0;
    let Some(payload) = payload_of(packet).filter(|_| is_clear || track.kind == Kind::Audio) else { return false };
    if matches!(track.kind, Kind::Audio | Kind::OtherVideo) {
        return track.kind == Kind::Audio;
    }
    let Some(header) = PesHeader::parse(payload).ok().filter(|header| !header.is_scrambled) else { return false };
    let Some(data) = payload.get(header.header_bytes..) else { return false };
    let view = look(track.kind, data);
    if matches!(view, View::KeyFrame | View::Other) {
        return view == View::KeyFrame;
    }
    let rest =
        behind.iter().filter(|packet| Pid::from_low_bits(u16::from_be_bytes([packet[1], packet[2]])) == track.pid);
    // Where the next one starts this one ends.
    let mut rest = rest.take_while(|packet| packet[1] & UNIT_START == 0).filter_map(payload_of).peekable();
    if rest.peek().is_none() {
        return view == View::Promising;
    }
    let mut all = ArrayVec::<u8, DATA_BYTES_MAX>::new();
    for data in std::iter::once(data).chain(rest) {
        let room = all.remaining_capacity().min(data.len());
        let _fits = all.try_extend_from_slice(data.get(..room).unwrap_or_default());
    }
    matches!(look(track.kind, &all), View::KeyFrame | View::Promising)
}

/// What the beginning of an access unit shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum View {
    KeyFrame,
    /// A picture that others are needed for.
    Other,
    /// Parameters that hardly ever come before anything but a key frame, and no picture yet.
    Promising,
    Nothing,
}

fn look(kind: Kind, data: &[u8]) -> View {
    let units = start_codes(data);
    match kind {
        Kind::H264 => look_h264(units),
        Kind::H265 => look_h265(units),
        Kind::Av1 => look_av1(units),
        Kind::Mpeg => look_mpeg(units),
        Kind::OtherVideo | Kind::Audio => View::Nothing,
    }
}

/// H.264 7.3.1, table 7-1.
fn look_h264<'a>(units: impl Iterator<Item = &'a [u8]>) -> View {
    let (mut has_parameters, mut is_recovery_point, mut is_intra) = (false, false, false);
    for unit in units {
        let Some((header, body)) = unit.split_first() else { break };
        match (header & 0x1f, body) {
            (5, _) => return View::KeyFrame,
            (1 | 2, _) => {
                // slice_type: 2 this slice is I, 7 all of the picture are (H.264 table 7-6).
                return match slice_type(body) {
                    _ if has_parameters && is_recovery_point => View::KeyFrame,
                    Some(7) => View::KeyFrame,
                    Some(2) if has_parameters || is_intra => View::KeyFrame,
                    Some(_) => View::Other,
                    None => break,
                };
            }
            (6, messages) => is_recovery_point = is_recovery_point || has_recovery_point(messages),
            (7, _) => has_parameters = true,
            // primary_pic_type 0 is for I slices only (H.264 table 7-5).
            (9, [picture_type, ..]) => is_intra = picture_type >> 5 == 0,
            _ => {}
        }
    }
    if has_parameters { View::Promising } else { View::Nothing }
}

/// Whether a recovery point is among the messages of supplemental enhancement information (H.264 7.3.2.3.1).
fn has_recovery_point(data: &[u8]) -> bool {
    let mut bytes = rbsp(data);
    while let Some(payload_type) = message_number(&mut bytes) {
        if payload_type == RECOVERY_POINT {
            return true;
        }
        let Some(size) = message_number(&mut bytes) else { break };
        if size > 0 && bytes.nth(size - 1).is_none() {
            break;
        }
    }
    false
}

/// A message's type or size: as many 255 as go, and the rest.
fn message_number(bytes: &mut impl Iterator<Item = u8>) -> Option<usize> {
    let mut number = 0;
    loop {
        let byte = bytes.next()?;
        number += usize::from(byte);
        if byte < 0xff {
            return Some(number);
        }
    }
}

/// The bytes of a NAL unit without those that keep start codes out, up to the next start code (H.264 7.3.1).
fn rbsp(data: &[u8]) -> impl Iterator<Item = u8> {
    let bytes = data.iter().scan(0, |zeros, byte| {
        let is_guard = *zeros == 2 && *byte == 3;
        if *zeros == 2 && *byte < 3 {
            return None;
        }
        *zeros = if *byte == 0 { *zeros + 1 } else { 0 };
        Some((!is_guard).then_some(*byte))
    });
    bytes.flatten()
}

/// H.265 7.3.1.2, table 7-1.
fn look_h265<'a>(units: impl Iterator<Item = &'a [u8]>) -> View {
    let mut has_parameters = false;
    for unit in units {
        let Some(header) = unit.first() else { break };
        match header >> 1 & 0x3f {
            16..=21 => return View::KeyFrame,
            0..=15 => return View::Other,
            33 => has_parameters = true,
            _ => {}
        }
    }
    if has_parameters { View::Promising } else { View::Nothing }
}

/// Units behind start codes, which those of other forms do not have: their senders have to say where a key frame begins.
fn look_av1<'a>(units: impl Iterator<Item = &'a [u8]>) -> View {
    let mut has_sequence = false;
    for (kind, frame) in units.map_while(av1::look) {
        match frame {
            Some(frame) if has_sequence && frame.is_key && frame.is_shown => return View::KeyFrame,
            Some(_) => return View::Other,
            None => has_sequence |= kind == av1::Kind::Sequence,
        }
    }
    if has_sequence { View::Promising } else { View::Nothing }
}

/// ISO/IEC 13818-2 6.2.2 and 6.2.3, and the same in ISO/IEC 11172-2 2.4.2.
fn look_mpeg<'a>(units: impl Iterator<Item = &'a [u8]>) -> View {
    let mut has_sequence = false;
    for unit in units {
        match unit {
            [0xb3, ..] => has_sequence = true,
            // picture_coding_type behind ten bits; 1 is intra.
            [0x00, _, types, ..] => {
                let is_intra = types >> 3 & 0x07 == 1;
                return if has_sequence && is_intra { View::KeyFrame } else { View::Other };
            }
            _ => {}
        }
    }
    if has_sequence { View::Promising } else { View::Nothing }
}

/// What stands behind each start code, up to the end of `data`.
fn start_codes(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = data;
    std::iter::from_fn(move || {
        loop {
            let [a, b, c] = *rest.first_chunk::<3>()?;
            // The third byte says how far the next start code is away at least.
            let step = match c.cmp(&1) {
                Ordering::Greater => 3,
                Ordering::Equal if (a, b) == (0, 0) => {
                    rest = rest.get(3..)?;
                    return Some(rest);
                }
                Ordering::Equal => 3,
                Ordering::Less => 1,
            };
            rest = rest.get(step..)?;
        }
    })
}

/// The second number of a slice header (H.264 7.3.3); `None` if it does not lie in `data`.
fn slice_type(data: &[u8]) -> Option<u32> {
    // 16 bits each are far more than either needs.
    let bits =
        data.iter().take(8).fold((0_u64, 0_u32), |(bits, count), byte| (bits << 8 | u64::from(*byte), count + 8));
    let bits = if bits.1 == 0 { 0 } else { bits.0 << (64 - bits.1) };
    let (_, used) = exp_golomb(bits)?;
    let (slice_type, more) = exp_golomb(bits << used)?;
    (usize::try_from(used + more).ok()? <= data.len() * 8).then_some(slice_type)
}

/// H.264 9.1: a number and its length, from the highest bit on; `None` if it is longer than 31 bits.
fn exp_golomb(bits: u64) -> Option<(u32, u32)> {
    let zeros = bits.leading_zeros();
    if zeros > 15 {
        return None;
    }
    let length = 2 * zeros + 1;
    Some(((bits >> (64 - length)) as u32 - 1, length))
}

/// What stands behind the adaptation field; `None` if there is nothing, or its length cannot be.
fn payload_of(packet: &[u8; TS_PACKET_BYTES]) -> Option<&[u8]> {
    let [_, _, _, b3, length, ..] = *packet;
    let at = if b3 & HAS_ADAPTATION != 0 { 5 + usize::from(length) } else { 4 };
    packet.get(at..).filter(|payload| b3 & HAS_PAYLOAD != 0 && !payload.is_empty())
}

/// The body of the fuzz target `entry`, which tests call as well: any bytes as TS packets, with sync bytes put right, in
/// packets of seven.
///
/// # Panics
/// If a bound does not hold, or a mark where no PES packet starts.
#[cfg(any(test, fuzzing))]
pub fn check_any_bytes(bytes: &[u8]) {
    let mut finder = Finder::default();
    let mut packets = bytes.to_vec();
    packets.chunks_mut(TS_PACKET_BYTES).for_each(|chunk| chunk[0] = SYNC_BYTE);
    for packet in packets.chunks(7 * TS_PACKET_BYTES) {
        let is_entry = finder.handle_packet(packet);
        let starts = packet.as_chunks::<TS_PACKET_BYTES>().0.iter().any(|packet| packet[1] & UNIT_START != 0);
        assert!(starts || !is_entry);
        assert!(finder.programs.len() <= PROGRAMS_MAX);
        assert!(finder.track.is_none() || finder.programs.iter().any(|program| program.track == finder.track));
    }
}

/// Programs whose PMT is read: the first with pictures is nearly always the first of all.
const PROGRAMS_MAX: usize = 8;
/// Bytes of a PES packet's data that are looked at. Judgement: delimiter, parameter sets and messages before the first slice; an
/// MPEG-2 sequence header with both matrices is 140.
const DATA_BYTES_MAX: usize = 512;

/// `payloadType` (H.264 D.1.1).
const RECOVERY_POINT: usize = 6;

/// Bits of the second byte (13818-1 2.4.3.2).
const TRANSPORT_ERROR: u8 = 0x80;
const UNIT_START: u8 = 0x40;
/// Bits of the fourth byte.
const SCRAMBLING: u8 = 0xc0;
const HAS_ADAPTATION: u8 = 0x20;
const HAS_PAYLOAD: u8 = 0x10;
/// Bit of the adaptation field's flags (13818-1 2.4.3.4).
const RANDOM_ACCESS: u8 = 0x40;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::psi::{Pat, Pmt, packet_of};
    use super::super::{Adaptation, TestPicture, TsPacket, picture};
    use super::*;
    use crate::bus::{Pool, PoolLimits};
    use crate::proto::{Core, Surroundings};
    use crate::units::{Bitrate, Time};

    const PMT: Pid = Pid::from_low_bits(0x1000);
    const VIDEO: Pid = Pid::from_low_bits(0x100);
    const AUDIO: Pid = Pid::from_low_bits(0x101);
    const H264: u8 = 0x1b;
    const AAC: u8 = 0x0f;

    #[test]
    fn a_made_picture_is_found_with_and_without_the_indicator() {
        let packets = test_picture(3_100);
        let starts = [0_usize, 1_000, 2_000, 3_000];
        for is_indicated in [true, false] {
            let mut finder = Finder::default();
            let mut found = Vec::new();
            for (at_ms, packet) in &packets {
                let mut packet = packet.clone();
                if !is_indicated {
                    packet.chunks_mut(TS_PACKET_BYTES).for_each(clear_indicator);
                }
                if finder.handle_packet(&packet) {
                    found.push(*at_ms);
                }
            }
            assert_eq!(found.len(), starts.len(), "{found:?}");
            assert!(found.iter().zip(starts).all(|(found, start)| (start..start + 300).contains(found)), "{found:?}");
        }
    }

    #[test]
    fn codecs_begin_with_what_their_standards_say() {
        let (h264, h265, mpeg) = (0x1b, 0x24, 0x02);
        let sps = [0, 0, 1, 0x67, 66, 0, 31];
        // first_mb_in_slice 0, then slice_type 5, 2 and 7.
        let (p, i, all_i) = (0b1001_1000, 0b1011_0000, 0b1000_1000);
        for (stream_type, data, expected) in [
            (h264, &[0, 0, 0, 1, 9, 0xf0, 0, 0, 1, 0x65, 0x88][..], true),
            (h264, &[0, 0, 1, 9, 0x10, 0, 0, 1, 0x61, p], false),
            (h264, &[0, 0, 1, 9, 0xf0, 0, 0, 1, 0x41, all_i], true),
            (h264, &[0, 0, 1, 9, 0xf0, 0, 0, 1, 0x41, p], false),
            (h264, &[0, 0, 1, 0x41, i], false),
            (h264, &[0, 0, 1, 9, 0x10, 0, 0, 1, 0x41, i], true),
            (h264, &[0, 0, 1, 0x06, 6, 1, 0xc4, 0, 0, 1, 0x41, p], false),
            (h264, &[&sps[..], &[0, 0, 1, 0x06, 6, 1, 0xc4, 0, 0, 1, 0x41, p]].concat(), true),
            // Behind another message of the same NAL unit, with a guard byte in it, or of more than 255 bytes.
            (h264, &[&sps[..], &[0, 0, 1, 0x06, 0, 1, 0x80, 6, 1, 0xc4, 0x80, 0, 0, 1, 0x41, p]].concat(), true),
            (h264, &[&sps[..], &[0, 0, 1, 0x06, 0, 3, 0, 0, 3, 1, 6, 1, 0xc4, 0x80, 0, 0, 1, 0x41, p]].concat(), true),
            (h264, &[&sps[..], &[0, 0, 1, 0x06, 5, 2, 6, 6, 0x80, 0, 0, 1, 0x41, p]].concat(), false),
            (h264, &[&sps[..], &[0, 0, 1, 0x06, 5, 0xff, 1, 6, 1, 0x80, 0, 0, 1, 0x41, p]].concat(), false),
            (h264, &[&sps[..], &[0, 0, 1, 0x41, i]].concat(), true),
            (h264, &[&sps[..], &[0, 0, 1, 0x41, p]].concat(), false),
            (h264, &sps, true),
            (h264, &[0, 0, 1, 9, 0xf0], false),
            (h265, &[0, 0, 1, 0x46, 1, 0x50, 0, 0, 1, 0x40, 1, 0, 0, 1, 0x42, 1], true),
            (h265, &[0, 0, 1, 0x46, 1, 0x50, 0, 0, 1, 0x2a, 1], true),
            (h265, &[0, 0, 1, 0x46, 1, 0x50, 0, 0, 1, 0x02, 1], false),
            (mpeg, &[0, 0, 1, 0xb3, 0x50, 0, 0, 1, 0xb8, 0, 0, 1, 0, 0, 0b00_001_000], true),
            (mpeg, &[0, 0, 1, 0xb3, 0x50, 0, 0, 1, 0, 0, 0b00_010_000], false),
            (mpeg, &[0, 0, 1, 0, 0, 0b00_001_000], false),
            (mpeg, &[0, 0, 1, 0xb3, 0x50], true),
        ] {
            let mut finder = with_streams(&[(stream_type, VIDEO), (AAC, AUDIO)]);
            assert_eq!(finder.handle_packet(&pes(VIDEO, data, false)), expected, "{stream_type:#x} {data:x?}");
            assert!(!finder.handle_packet(&pes(AUDIO, data, true)), "sound beside pictures does not count");
            assert!(finder.handle_packet(&pes(VIDEO, data, true)), "the indicator counts for every codec");
        }
    }

    #[test]
    fn what_begins_in_several_ts_packets_is_seen_as_far_as_the_packet_goes() {
        let data =
            [&[0, 0, 1, 9, 0xf0][..], &[0, 0, 1, 6, 5, 0xff][..], &[0xaa; 400], &[0, 0, 1, 0x65, 0x88], &[3; 60]];
        let all = data.concat();
        let (first, rest) = all.split_at(184 - 9);
        let mut packet = pes(VIDEO, first, false);
        for piece in rest.chunks(184) {
            packet.extend(ts_packet(VIDEO, false, Some(piece), None));
        }
        let mut finder = with_streams(&[(H264, VIDEO)]);
        assert!(finder.handle_packet(&packet));
        assert!(!finder.handle_packet(&packet[..2 * TS_PACKET_BYTES]), "the picture lies beyond");
        let mut other = packet.clone();
        other[TS_PACKET_BYTES + 1] |= UNIT_START;
        assert!(!finder.handle_packet(&other), "another one starts before");
    }

    #[test]
    fn av1_begins_with_a_key_frame_behind_a_sequence_header() {
        let (delimiter, sequence) = ([0, 0, 1, 0x12, 0], [0, 0, 1, 0x0a, 2, 0, 0]);
        // Key and shown; key and not shown; another one; one that was shown before.
        for (first, expected) in [(0x10, View::KeyFrame), (0, View::Other), (0x30, View::Other), (0x90, View::Other)] {
            let frame = [0, 0, 1, 0x32, 2, first, 0];
            let data = [&delimiter[..], &sequence, &frame].concat();
            assert_eq!(look(Kind::Av1, &data), expected);
            assert_eq!(look(Kind::Av1, &[&delimiter[..], &frame].concat()), View::Other);
            assert_eq!(look(Kind::Av1, &data[..14]), View::Promising, "the frame lies beyond");
        }
    }

    #[test]
    fn an_indicator_ahead_of_the_pes_packet_counts_for_it() {
        let mut finder = with_streams(&[(H264, VIDEO)]);
        let random_access = Adaptation { random_access: true, ..Adaptation::default() };
        assert!(!finder.handle_packet(&ts_packet(VIDEO, false, None, Some(random_access))));
        let other = [0, 0, 1, 0x41, 0b1001_1000];
        assert!(finder.handle_packet(&pes(VIDEO, &other, false)));
        assert!(!finder.handle_packet(&pes(VIDEO, &other, false)), "once");
    }

    #[test]
    fn sound_alone_begins_with_each_pes_packet() {
        let mut finder = with_streams(&[(AAC, AUDIO)]);
        assert!(finder.handle_packet(&pes(AUDIO, &[0xff, 0xf1], false)));
        assert!(!finder.handle_packet(&ts_packet(AUDIO, false, Some(&[1; 100]), None)));
    }

    #[test]
    fn scrambled_pictures_have_the_indicator_only() {
        let mut finder = with_streams(&[(H264, VIDEO)]);
        for is_indicated in [false, true] {
            let mut packet = pes(VIDEO, &[0, 0, 1, 0x65], is_indicated);
            packet[3] |= 0x80;
            assert_eq!(finder.handle_packet(&packet), is_indicated);
        }
    }

    #[test]
    fn of_several_programs_the_first_with_pictures_counts() {
        let pids = [0x1000, 0x1001, 0x1002].map(Pid::from_low_bits);
        let programs = [(0, Pid::NIT), (1, pids[0]), (2, pids[1]), (3, pids[2])];
        let mut finder = Finder::default();
        finder.handle_packet(&packet_of(&Pat { stream_id: 1, version: 0, programs: &programs }.section(), Pid::PAT));
        let pmt = |n: usize, stream_type| {
            let pid = Pid::from_low_bits(0x200 + n as u16);
            let pmt = Pmt { program: n as u16, version: 0, pcr_pid: pid, streams: &[(stream_type, pid)] };
            (packet_of(&pmt.section(), pids[n - 1]), pid)
        };
        let idr = [0, 0, 1, 0x65, 0x88];
        let (packet, third) = pmt(3, H264);
        finder.handle_packet(&packet);
        assert!(finder.handle_packet(&pes(third, &idr, false)), "until more is known");
        finder.handle_packet(&pmt(1, AAC).0);
        assert!(finder.handle_packet(&pes(third, &idr, false)));
        let (packet, second) = pmt(2, H264);
        finder.handle_packet(&packet);
        assert!(!finder.handle_packet(&pes(third, &idr, false)));
        assert!(finder.handle_packet(&pes(second, &idr, false)));
        // The second leaves the stream.
        let pat = Pat { stream_id: 1, version: 1, programs: &[programs[1], programs[3]] };
        finder.handle_packet(&packet_of(&pat.section(), Pid::PAT));
        assert!(!finder.handle_packet(&pes(second, &idr, false)));
        assert!(finder.handle_packet(&pes(third, &idr, false)));
    }

    #[test]
    fn packets_of_no_transport_stream_are_no_beginning() {
        let mut finder = with_streams(&[(H264, VIDEO)]);
        let whole = pes(VIDEO, &[0, 0, 1, 0x65, 0x88], true);
        for len in 0..whole.len() {
            assert!(!finder.handle_packet(&whole[..len]));
        }
        let mut wrong = whole.clone();
        wrong[0] = 0x46;
        assert!(!finder.handle_packet(&wrong));
        wrong = whole.clone();
        wrong[1] |= TRANSPORT_ERROR;
        assert!(!finder.handle_packet(&wrong));
        assert!(finder.handle_packet(&whole));
    }

    proptest! {
        #[test]
        fn any_bytes_keep_the_bounds(bytes in proptest::collection::vec(any::<u8>(), 0..4_000)) {
            check_any_bytes(&bytes);
        }

        /// Whatever is cut off or damaged, nothing is found that was not there, but for damage that makes it.
        #[test]
        fn damaged_streams_are_survived(
            damage in proptest::collection::vec((0_usize..200_000, any::<u8>()), 0..50), cut in 0_usize..200_000,
        ) {
            let packets = test_picture(1_200);
            let mut bytes: Vec<u8> = packets.into_iter().flat_map(|(_, packet)| packet).collect();
            for (at, byte) in damage {
                let len = bytes.len();
                bytes[at % len] = byte;
            }
            bytes.truncate(cut);
            check_any_bytes(&bytes);
        }

        /// The quick search finds what a slow one does.
        #[test]
        fn start_codes_are_found(data in proptest::collection::vec(0_u8..3, 0..60)) {
            let slow: Vec<&[u8]> =
                (0..data.len().saturating_sub(2)).filter(|at| data[*at..*at + 3] == [0, 0, 1]).map(|at| &data[at + 3..]).collect();
            prop_assert_eq!(start_codes(&data).collect::<Vec<_>>(), slow);
        }

        #[test]
        fn numbers_of_slice_headers_are_read(first in 0_u32..10_000, second in 0_u32..10, cut in 0_usize..9) {
            let mut bits = String::new();
            for number in [first, second] {
                let code = format!("{:b}", number + 1);
                bits.extend(std::iter::repeat_n('0', code.len() - 1));
                bits.push_str(&code);
            }
            let used = bits.len();
            bits.extend(std::iter::repeat_n('1', 64 - used));
            let bytes = u64::from_str_radix(&bits, 2).unwrap().to_be_bytes();
            let expected = (cut * 8 >= used).then_some(second);
            prop_assert_eq!(slice_type(&bytes[..cut.min(8)]), expected);
        }
    }

    /// Packets of our own picture, with the milliseconds of their arrival.
    fn test_picture(span_ms: u64) -> Vec<(usize, Vec<u8>)> {
        let config = picture::Config::new(Bitrate::from_bps(2_000_000)).unwrap();
        let pool = Pool::new(PoolLimits::default());
        let mut picture = TestPicture::new(config, &Surroundings { pool, seed: 1, unix_ns_at_zero: 0 });
        let mut packets = Vec::new();
        for at_ms in 0..span_ms {
            picture.handle_timeout(Time::from_ns(at_ms * 1_000_000));
            packets
                .extend(std::iter::from_fn(|| picture.poll_packet()).map(|packet| (at_ms as usize, packet.to_vec())));
        }
        packets
    }

    fn clear_indicator(packet: &mut [u8]) {
        if packet[3] & HAS_ADAPTATION != 0 && packet[4] > 0 {
            packet[5] &= !RANDOM_ACCESS;
        }
    }

    fn with_streams(streams: &[(u8, Pid)]) -> Finder {
        let mut finder = Finder::default();
        finder.handle_packet(&packet_of(&Pat { stream_id: 1, version: 0, programs: &[(1, PMT)] }.section(), Pid::PAT));
        assert!(!finder.is_ready());
        let pmt = Pmt { program: 1, version: 0, pcr_pid: VIDEO, streams };
        finder.handle_packet(&packet_of(&pmt.section(), PMT));
        assert!(finder.is_ready());
        finder
    }

    /// A TS packet in which a PES packet of video without times starts.
    fn pes(pid: Pid, data: &[u8], is_indicated: bool) -> Vec<u8> {
        let payload = [&[0, 0, 1, 0xe0, 0, 0, 0x80, 0, 0], data].concat();
        let random_access = is_indicated.then(|| Adaptation { random_access: true, ..Adaptation::default() });
        ts_packet(pid, true, Some(&payload), random_access)
    }

    fn ts_packet(pid: Pid, starts: bool, payload: Option<&[u8]>, adaptation: Option<Adaptation<'_>>) -> Vec<u8> {
        let mut bytes = [0; TS_PACKET_BYTES];
        TsPacket { payload_unit_start: starts, pid, adaptation, payload, ..TsPacket::default() }.write(&mut bytes);
        bytes.to_vec()
    }
}
