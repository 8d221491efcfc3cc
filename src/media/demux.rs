//! TS packets to access units: which programs and streams there are, and what their PES packets carry.
//!
//! A unit that a packet is missing of is dropped, never handed on: what is decoded shows no errors of transport. Units
//! are what PES packets carry, from one start to the next; streams whose pictures do not begin where PES packets do are
//! not read well.

use std::collections::{BTreeMap, VecDeque};

use super::access_unit::{AccessUnit, Codec, Descriptors, UNIT_BYTES_MAX};
use crate::proto::mpegts::psi::{SECTION_BYTES_MAX, crc32};
use crate::proto::mpegts::{Pid, TS_PACKET_BYTES, TsPacket};
use crate::units::Ticks90k;

/// Reads a transport stream that is already cut into packets.
#[derive(Debug, Default)]
pub struct Demux {
    pat: Sections,
    /// By the PID of their PMT.
    programs: BTreeMap<Pid, ProgramState>,
    streams: BTreeMap<Pid, StreamState>,
    /// Bytes of all units that are not complete.
    open_bytes: usize,
    ready: VecDeque<AccessUnit>,
    /// One more whenever programs or streams change.
    version: u64,
    counts: DemuxCounts,
}

/// A program of the PAT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its number.
    pub number: u16,
    /// Where its PMT is found.
    pub pmt_pid: Pid,
    /// Where its clock is found, once the PMT came.
    pub pcr_pid: Option<Pid>,
}

/// An elementary stream of a PMT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Number of its program.
    pub program: u16,
    /// Where it is found.
    pub pid: Pid,
    /// As the PMT has it (13818-1 table 2-34).
    pub stream_type: u8,
    /// What it is coded with; `None` for what is not read here.
    pub codec: Option<Codec>,
    /// ISO 639 code of the first language descriptor.
    pub language: Option<[u8; 3]>,
    /// Its last packet was scrambled.
    pub scrambled: bool,
}

/// What came of packets and units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DemuxCounts {
    /// Units handed on.
    pub units: u64,
    /// Units dropped because packets of them are missing or bad.
    pub damaged: u64,
    /// Units dropped because they or all open ones together were too long.
    pub too_long: u64,
    /// Units dropped because nobody took those before.
    pub overflow: u64,
    /// Packets dropped because they were scrambled.
    pub scrambled: u64,
    /// Packets that were no TS packets.
    pub malformed: u64,
    /// PES headers that could not be read.
    pub bad_header: u64,
    /// Sections with a wrong CRC or layout.
    pub bad_section: u64,
    /// Programs and streams beyond [`PROGRAMS_MAX`] and [`STREAMS_MAX`].
    pub too_many: u64,
}

#[derive(Debug)]
struct ProgramState {
    program: Program,
    sections: Sections,
}

#[derive(Debug)]
struct StreamState {
    stream: Stream,
    /// Continuity counter of the last packet.
    cc: Option<u8>,
    open: Option<Open>,
}

/// A unit that is being put together.
#[derive(Debug)]
struct Open {
    unit: AccessUnit,
    /// Bytes still to come; `None` where the header does not say how many.
    missing: Option<usize>,
}

impl Demux {
    /// Of a stream that no packet came from.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a whole number of TS packets; what is left over at the end counts as malformed.
    pub fn push(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(TS_PACKET_BYTES) {
            match TsPacket::parse(chunk) {
                Ok(packet) => self.push_packet(&packet),
                Err(_) => self.counts.malformed += 1,
            }
        }
    }

    /// The next unit; `None` when there is none left.
    pub fn poll_unit(&mut self) -> Option<AccessUnit> {
        self.ready.pop_front()
    }

    /// The stream is over: what is open counts as complete, unless it is known to be longer.
    pub fn finish(&mut self) {
        let pids: Vec<Pid> = self.streams.keys().copied().collect();
        for pid in pids {
            self.end_unit(pid);
        }
    }

    /// The programs, in the order of their PMT's PIDs.
    pub fn programs(&self) -> impl Iterator<Item = &Program> {
        self.programs.values().map(|state| &state.program)
    }

    /// The streams, in the order of their PIDs.
    pub fn streams(&self) -> impl Iterator<Item = &Stream> {
        self.streams.values().map(|state| &state.stream)
    }

    /// One more whenever programs or streams changed.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// Counters since the start.
    #[must_use]
    pub const fn counts(&self) -> DemuxCounts {
        self.counts
    }

    fn push_packet(&mut self, packet: &TsPacket<'_>) {
        if packet.pid == Pid::NULL {
            return;
        }
        if packet.pid == Pid::PAT {
            if let Some(section) = self.pat.push(packet, &mut self.counts) {
                self.read_pat(&section);
            }
        } else if let Some(program) = self.programs.get_mut(&packet.pid) {
            let pid = packet.pid;
            if let Some(section) = program.sections.push(packet, &mut self.counts) {
                self.read_pmt(pid, &section);
            }
        } else if self.streams.contains_key(&packet.pid) {
            self.push_elementary(packet);
        }
    }

    /// 13818-1 2.4.4.3.
    fn read_pat(&mut self, section: &[u8]) {
        let Some(body) = table_body(section, TABLE_ID_PAT) else {
            self.counts.bad_section += 1;
            return;
        };
        let mut wanted = BTreeMap::new();
        for entry in body.chunks_exact(4) {
            let [n0, n1, p0, p1] = *entry else { continue };
            let number = u16::from_be_bytes([n0, n1]);
            if number == 0 {
                continue; // the network information table's PID
            }
            if wanted.len() == PROGRAMS_MAX {
                self.counts.too_many += 1;
                break;
            }
            wanted.insert(Pid::from_low_bits(u16::from_be_bytes([p0, p1])), number);
        }
        let same = self.programs.iter().map(|(pid, state)| (*pid, state.program.number)).eq(wanted.clone());
        if same {
            return;
        }
        self.version += 1;
        self.programs.retain(|pid, state| wanted.get(pid) == Some(&state.program.number));
        for (pmt_pid, number) in wanted {
            self.programs.entry(pmt_pid).or_insert_with(|| ProgramState {
                program: Program { number, pmt_pid, pcr_pid: None },
                sections: Sections::default(),
            });
        }
        let numbers: Vec<u16> = self.programs.values().map(|state| state.program.number).collect();
        self.retain_streams(|stream| numbers.contains(&stream.program));
    }

    /// 13818-1 2.4.4.8.
    fn read_pmt(&mut self, pid: Pid, section: &[u8]) {
        let Some(number) = self.programs.get(&pid).map(|state| state.program.number) else { return };
        let Some((pcr_pid, streams)) = read_pmt_streams(section, number) else {
            self.counts.bad_section += 1;
            return;
        };
        let old = self.streams.values().map(|state| &state.stream).filter(|stream| stream.program == number);
        let same = old.map(Stream::identity).eq(streams.iter().map(Stream::identity));
        let Some(state) = self.programs.get_mut(&pid) else { return };
        if same && state.program.pcr_pid == Some(pcr_pid) {
            return;
        }
        self.version += 1;
        state.program.pcr_pid = Some(pcr_pid);
        self.retain_streams(|stream| {
            stream.program != number || streams.iter().any(|new| new.identity() == stream.identity())
        });
        for stream in streams {
            if self.streams.contains_key(&stream.pid) || self.programs.contains_key(&stream.pid) {
                continue;
            }
            if self.streams.len() == STREAMS_MAX {
                self.counts.too_many += 1;
                return;
            }
            self.streams.insert(stream.pid, StreamState { stream, cc: None, open: None });
        }
    }

    fn retain_streams(&mut self, keep: impl Fn(&Stream) -> bool) {
        self.streams.retain(|_, state| keep(&state.stream));
        self.open_bytes =
            self.streams.values().filter_map(|state| state.open.as_ref()).map(|open| open.unit.bytes.len()).sum();
    }

    fn push_elementary(&mut self, packet: &TsPacket<'_>) {
        let pid = packet.pid;
        let Some(state) = self.streams.get_mut(&pid) else { return };
        let Some(codec) = state.stream.codec else { return };
        let continuity = continuity(&mut state.cc, packet);
        state.stream.scrambled = packet.scrambling != 0;
        if packet.scrambling != 0 {
            self.counts.scrambled += 1;
            self.drop_unit(pid);
            return;
        }
        match continuity {
            Continuity::Duplicate => return,
            Continuity::Broken => self.drop_unit(pid),
            Continuity::Good => {}
        }
        let Some(payload) = packet.payload else { return };
        if packet.payload_unit_start {
            self.end_unit(pid);
            self.start_unit(pid, codec, payload);
        } else {
            self.extend_unit(pid, payload);
        }
    }

    fn start_unit(&mut self, pid: Pid, codec: Codec, payload: &[u8]) {
        let Some(header) = PesHeader::parse(payload) else {
            self.counts.bad_header += 1;
            return;
        };
        let bytes = payload.get(header.bytes..).unwrap_or_default();
        let unit = AccessUnit { pid, codec, pts: header.pts, dts: header.dts, bytes: Vec::new() };
        if let Some(state) = self.streams.get_mut(&pid) {
            state.open = Some(Open { unit, missing: header.payload_bytes });
        }
        self.extend_unit(pid, bytes);
    }

    fn extend_unit(&mut self, pid: Pid, bytes: &[u8]) {
        let open = self.streams.get_mut(&pid).and_then(|state| state.open.as_mut());
        let Some(open) = open else { return };
        let bytes = &bytes[..bytes.len().min(open.missing.unwrap_or(usize::MAX))];
        let too_long = open.unit.bytes.len() + bytes.len() > UNIT_BYTES_MAX;
        if too_long || self.open_bytes + bytes.len() > OPEN_BYTES_MAX {
            self.counts.too_long += 1;
            self.forget_unit(pid);
            return;
        }
        open.unit.bytes.extend_from_slice(bytes);
        self.open_bytes += bytes.len();
        if let Some(missing) = &mut open.missing {
            *missing -= bytes.len();
            if *missing == 0 {
                self.end_unit(pid);
            }
        }
    }

    /// Hands on what is open, if nothing of it is missing.
    fn end_unit(&mut self, pid: Pid) {
        let Some(open) = self.forget_unit(pid) else { return };
        if open.missing.is_some_and(|missing| missing > 0) {
            self.counts.damaged += 1;
        } else if self.ready.len() == READY_MAX {
            self.counts.overflow += 1;
        } else if !open.unit.bytes.is_empty() {
            self.counts.units += 1;
            self.ready.push_back(open.unit);
        }
    }

    fn drop_unit(&mut self, pid: Pid) {
        let dropped = self.forget_unit(pid);
        self.counts.damaged += u64::from(dropped.is_some());
    }

    fn forget_unit(&mut self, pid: Pid) -> Option<Open> {
        let open = self.streams.get_mut(&pid)?.open.take()?;
        self.open_bytes -= open.unit.bytes.len();
        Some(open)
    }
}

impl Stream {
    /// What makes it another stream if it changes.
    fn identity(&self) -> (Pid, u8, Option<Codec>, Option<[u8; 3]>) {
        (self.pid, self.stream_type, self.codec, self.language)
    }
}

enum Continuity {
    Good,
    /// The same packet again, as the standard allows once (13818-1 2.4.3.3).
    Duplicate,
    Broken,
}

fn continuity(last: &mut Option<u8>, packet: &TsPacket<'_>) -> Continuity {
    if packet.transport_error {
        *last = None;
        return Continuity::Broken;
    }
    if packet.payload.is_none() {
        return Continuity::Good;
    }
    let discontinuity = packet.adaptation.is_some_and(|adaptation| adaptation.discontinuity);
    let before = last.replace(packet.cc);
    match before {
        None => Continuity::Good,
        Some(_) if discontinuity => Continuity::Broken,
        Some(before) if packet.cc == (before + 1) & 0xf => Continuity::Good,
        Some(before) if packet.cc == before => Continuity::Duplicate,
        Some(_) => Continuity::Broken,
    }
}

/// What a PES header says (13818-1 2.4.3.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PesHeader {
    pts: Option<Ticks90k>,
    dts: Option<Ticks90k>,
    /// Length of the header.
    bytes: usize,
    /// Length of what follows; `None` if it is not said, as with video.
    payload_bytes: Option<usize>,
}

impl PesHeader {
    /// The header must lie in the first TS packet, as it always does.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let [0, 0, 1, _stream_id, l0, l1, flags, fields, length, rest @ ..] = bytes else { return None };
        if flags & 0xc0 != 0x80 || flags & 0x30 != 0 || rest.len() < usize::from(*length) {
            return None; // not MPEG-2, scrambled, or a header longer than the packet
        }
        let header_bytes = 9 + usize::from(*length);
        let payload_bytes = match usize::from(u16::from_be_bytes([*l0, *l1])) {
            0 => None,
            length => Some((length + 6).checked_sub(header_bytes)?),
        };
        let rest = &rest[..usize::from(*length)];
        let pts = if fields & 0x80 != 0 { Some(read_timestamp(rest)?) } else { None };
        let dts = if fields & 0xc0 == 0xc0 { Some(read_timestamp(rest.get(5..)?)?) } else { None };
        Some(Self { pts, dts, bytes: header_bytes, payload_bytes })
    }
}

/// 33 bits in five bytes, with marker bits that are not looked at.
fn read_timestamp(bytes: &[u8]) -> Option<Ticks90k> {
    let [b0, b1, b2, b3, b4] = *bytes.first_chunk::<5>()?;
    let high = u64::from(b0 >> 1 & 7) << 30;
    let middle = u64::from(u16::from_be_bytes([b1, b2]) >> 1) << 15;
    Some(Ticks90k(high | middle | u64::from(u16::from_be_bytes([b3, b4]) >> 1)))
}

/// Puts the sections of one PID together (13818-1 2.4.4). Of several sections in one packet the first is read.
#[derive(Debug, Default)]
struct Sections {
    cc: Option<u8>,
    bytes: Vec<u8>,
    open: bool,
}

impl Sections {
    fn push(&mut self, packet: &TsPacket<'_>, counts: &mut DemuxCounts) -> Option<Vec<u8>> {
        match continuity(&mut self.cc, packet) {
            Continuity::Good => {}
            Continuity::Duplicate => return None,
            Continuity::Broken => self.open = false,
        }
        let payload = packet.payload?;
        if packet.payload_unit_start {
            let (&pointer, rest) = payload.split_first()?;
            // What stands before the pointer ends the section before.
            let (end, start) = rest.split_at_checked(usize::from(pointer))?;
            let done = self.extend(end, counts);
            self.bytes.clear();
            self.open = true;
            return self.extend(start, counts).or(done);
        }
        self.extend(payload, counts)
    }

    fn extend(&mut self, bytes: &[u8], counts: &mut DemuxCounts) -> Option<Vec<u8>> {
        if !self.open {
            return None;
        }
        let room = SECTION_BYTES_MAX - self.bytes.len().min(SECTION_BYTES_MAX);
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
        let &[_, l0, l1, ..] = &self.bytes[..] else { return None };
        let length = 3 + usize::from(u16::from_be_bytes([l0, l1]) & 0x0fff);
        if length > SECTION_BYTES_MAX {
            self.open = false;
            counts.bad_section += 1;
            return None;
        }
        let section = self.bytes.get(..length)?.to_vec();
        self.open = false;
        if crc32(&section) != 0 {
            counts.bad_section += 1;
            return None;
        }
        Some(section)
    }
}

/// What stands between a table's header and CRC, if it is the table in force.
fn table_body(section: &[u8], table_id: u8) -> Option<&[u8]> {
    let current = section.get(5)? & 1 == 1;
    if section.first() != Some(&table_id) || !current || section.len() < 12 {
        return None;
    }
    section.get(8..section.len() - 4)
}

fn read_pmt_streams(section: &[u8], number: u16) -> Option<(Pid, Vec<Stream>)> {
    let body = table_body(section, TABLE_ID_PMT)?;
    if section.get(3..5)? != number.to_be_bytes() {
        return None;
    }
    let (&[c0, c1, i0, i1], rest) = body.split_first_chunk()?;
    let mut rest = rest.get(usize::from(u16::from_be_bytes([i0, i1]) & 0x0fff)..)?;
    let mut streams: Vec<Stream> = Vec::new();
    while let Some((&[stream_type, p0, p1, l0, l1], after)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([l0, l1]) & 0x0fff);
        let (descriptors, after) = after.split_at_checked(length)?;
        rest = after;
        streams.push(Stream {
            program: number,
            pid: Pid::from_low_bits(u16::from_be_bytes([p0, p1])),
            stream_type,
            codec: Codec::from_stream_type(stream_type, descriptors),
            language: Descriptors::new(descriptors).find_map(|(tag, body)| {
                if tag == LANGUAGE_DESCRIPTOR { body.first_chunk::<3>().copied() } else { None }
            }),
            scrambled: false,
        });
    }
    streams.sort_by_key(|stream| stream.pid);
    streams.dedup_by_key(|stream| stream.pid);
    Some((Pid::from_low_bits(u16::from_be_bytes([c0, c1])), streams))
}

/// The body of the fuzz target `media_demux`, which tests call as well: any bytes as TS packets, with sync byte and table
/// CRCs put right so that more of them are believed.
///
/// # Panics
/// If a bound does not hold.
pub fn check_any_bytes(bytes: &[u8]) {
    let mut demux = Demux::new();
    for chunk in bytes.chunks(TS_PACKET_BYTES) {
        let mut packet = [0xff; TS_PACKET_BYTES];
        packet[..chunk.len()].copy_from_slice(chunk);
        packet[0] = crate::proto::mpegts::SYNC_BYTE;
        demux.push(&packet);
        assert!(demux.streams.len() <= STREAMS_MAX && demux.programs.len() <= PROGRAMS_MAX);
        assert!(demux.open_bytes <= OPEN_BYTES_MAX && demux.ready.len() <= READY_MAX);
        let open = demux.streams.values().filter_map(|state| state.open.as_ref()).map(|open| open.unit.bytes.len());
        assert_eq!(open.sum::<usize>(), demux.open_bytes);
    }
    demux.finish();
    assert_eq!(demux.open_bytes, 0);
    while let Some(unit) = demux.poll_unit() {
        assert!(!unit.bytes.is_empty());
        assert!(unit.pts.is_none_or(|pts| pts.0 < 1 << 33));
    }
}

/// More programs are not in one multiplex of 40 to 80 Mb/s.
pub const PROGRAMS_MAX: usize = 64;
/// Streams of all programs together.
pub const STREAMS_MAX: usize = 256;
/// Bytes of all units together that are not complete: four of the longest.
const OPEN_BYTES_MAX: usize = 4 * UNIT_BYTES_MAX;
/// Units that wait to be taken. Whoever takes them after each packet never has more than one per stream.
const READY_MAX: usize = STREAMS_MAX;

const TABLE_ID_PAT: u8 = 0x00;
const TABLE_ID_PMT: u8 = 0x02;
/// `ISO_639_language_descriptor` (13818-1 2.6.18).
const LANGUAGE_DESCRIPTOR: u8 = 0x0a;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proto::mpegts::Adaptation;
    use crate::proto::mpegts::psi::{Pat, Pmt, packet_of};

    #[test]
    fn units_come_whole_with_their_times() {
        let mut demux = with_streams(&[(0x1b, VIDEO)]);
        for packet in video_packets(0) {
            demux.push(&packet);
        }
        assert!(demux.poll_unit().is_none(), "only the next start shows that it is over");
        demux.push(&video_packets(3)[0]);
        let unit = demux.poll_unit().unwrap();
        assert_eq!((unit.codec, unit.pts, unit.dts), (Codec::H264, Some(Ticks90k(0x1_2345_6789)), Some(Ticks90k(1))));
        assert_eq!(unit.bytes.len(), 165 + 184 + 184);
    }

    #[test]
    fn a_unit_with_a_packet_missing_is_dropped_and_counted() {
        let mut demux = with_streams(&[(0x1b, VIDEO)]);
        let packets = video_packets(0);
        demux.push(&packets[0]);
        demux.push(&packets[2]);
        demux.push(&video_packets(3)[0]);
        demux.finish();
        assert_eq!((demux.counts().damaged, demux.counts().units), (1, 1));
    }

    #[test]
    fn a_packet_that_comes_twice_is_taken_once() {
        let mut demux = with_streams(&[(0x1b, VIDEO)]);
        for packet in video_packets(0) {
            demux.push(&packet);
            demux.push(&packet);
        }
        demux.finish();
        assert_eq!(demux.poll_unit().unwrap().bytes.len(), 165 + 184 + 184);
        assert_eq!(demux.counts().damaged, 0);
    }

    #[test]
    fn scrambled_packets_make_no_unit_and_are_shown() {
        let mut demux = with_streams(&[(0x1b, VIDEO)]);
        let mut packet = video_packets(0)[0];
        packet[3] |= 0x80;
        demux.push(&packet);
        demux.finish();
        assert!(demux.streams().next().unwrap().scrambled);
        assert_eq!((demux.counts().scrambled, demux.counts().units), (1, 0));
    }

    #[test]
    fn a_stream_that_leaves_the_pmt_takes_its_bytes_along() {
        let mut demux = with_streams(&[(0x1b, VIDEO)]);
        demux.push(&video_packets(0)[0]);
        assert!(demux.open_bytes > 0);
        let pmt = Pmt { program: 1, version: 1, pcr_pid: VIDEO, streams: &[(0x0f, VIDEO)] };
        let mut packet = packet_of(&pmt.section(), PMT);
        packet[3] |= 1;
        demux.push(&packet);
        assert_eq!((demux.open_bytes, demux.streams().next().unwrap().codec), (0, Some(Codec::Aac)));
        assert_eq!(demux.version(), 3);
    }

    #[test]
    fn a_unit_without_an_end_stops_growing() {
        let mut demux = with_streams(&[(0x1b, VIDEO)]);
        demux.push(&video_packets(0)[0]);
        for cc in 1..60_000_u32 {
            demux.push(&packet(false, (cc & 0xf) as u8, &[0xaa; 184]));
        }
        assert_eq!((demux.counts().too_long, demux.open_bytes), (1, 0));
    }

    #[test]
    fn every_truncation_of_tables_is_refused_without_harm() {
        let pmt = Pmt { program: 1, version: 0, pcr_pid: VIDEO, streams: &[(0x1b, VIDEO), (0x0f, Pid::NULL)] };
        let section = pmt.section();
        assert!(read_pmt_streams(&section, 1).is_some());
        for len in 0..section.len() {
            let _ = read_pmt_streams(&section[..len], 1);
            assert!(len >= 12 || table_body(&section[..len], TABLE_ID_PMT).is_none());
        }
        let pes = [0, 0, 1, 0xe0, 0, 0, 0x80, 0x80, 5, 0x21, 0, 1, 0, 1];
        assert!(PesHeader::parse(&pes).is_some());
        assert!((0..pes.len()).all(|len| PesHeader::parse(&pes[..len]).is_none()));
    }

    proptest! {
        #[test]
        fn any_bytes_keep_the_bounds(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            check_any_bytes(&bytes);
        }
    }

    fn with_streams(streams: &[(u8, Pid)]) -> Demux {
        let mut demux = Demux::new();
        demux.push(&packet_of(&Pat { stream_id: 1, version: 0, programs: &[(1, PMT)] }.section(), Pid::PAT));
        demux.push(&packet_of(&Pmt { program: 1, version: 0, pcr_pid: VIDEO, streams }.section(), PMT));
        assert_eq!((demux.programs().count(), demux.streams().count()), (1, streams.len()));
        demux
    }

    /// A unit in three packets, with continuity counters from `cc`.
    fn video_packets(cc: u8) -> [[u8; TS_PACKET_BYTES]; 3] {
        let mut start = vec![0, 0, 1, 0xe0, 0, 0, 0x80, 0xc0, 10];
        start.extend([0x39, 0x8d, 0x15, 0xcf, 0x13, 0x11, 0, 1, 0, 3]);
        start.resize(184, 0xbb);
        [packet(true, cc, &start), packet(false, cc + 1, &[0xcc; 184]), packet(false, cc + 2, &[0xdd; 184])]
    }

    fn packet(start: bool, cc: u8, payload: &[u8]) -> [u8; TS_PACKET_BYTES] {
        let mut bytes = [0; TS_PACKET_BYTES];
        let adaptation: Option<Adaptation<'_>> = None;
        TsPacket {
            payload_unit_start: start,
            pid: VIDEO,
            cc,
            adaptation,
            payload: Some(payload),
            ..TsPacket::default()
        }
        .write(&mut bytes);
        bytes
    }

    const PMT: Pid = Pid::from_low_bits(0x1000);
    const VIDEO: Pid = Pid::from_low_bits(0x100);
}
