//! TS packets to access units: what the PES packets of each stream carry.
//!
//! A unit that a packet is missing of is dropped, never handed on: what is decoded shows no errors of transport. Units
//! are what PES packets carry, from one start to the next; streams whose pictures do not begin where PES packets do are
//! not read well.

mod access_unit;

use std::collections::{BTreeMap, VecDeque};

use crate::proto::mpegts::section::{LongSection, SectionError};
use crate::proto::mpegts::table::PmtBody;
use crate::proto::mpegts::{
    self, Observer, PesHeader, Pid, PidStats, Programs, Scanner, ScannerStats, Seen, TS_PACKET_BYTES, format_identifier,
};
use crate::units::Time;

pub use crate::proto::mpegts::STREAMS_MAX;
pub use access_unit::{AccessUnit, Codec, UNIT_BYTES_MAX};

/// Reads a transport stream.
#[derive(Debug, Default)]
pub struct Demux {
    scanner: Scanner,
    assembly: Assembly,
    /// Changes of the tables that `assembly` knows of.
    changes: u64,
}

/// An elementary stream that units can come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Number of the program that it was first seen in.
    pub program: u16,
    /// As the program's PMT has it.
    pub entry: mpegts::Stream,
    /// What it is coded with; `None` for what is not read here.
    pub codec: Option<Codec>,
    /// Its last packet was scrambled.
    pub scrambled: bool,
}

/// What came of units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DemuxCounts {
    /// Units handed on.
    pub units: u64,
    /// Units dropped because packets of them are missing, bad or scrambled.
    pub damaged: u64,
    /// Units dropped because they or all open ones together were too long.
    pub too_long: u64,
    /// Units dropped because nobody took those before.
    pub overflow: u64,
    /// PES headers that could not be read.
    pub bad_header: u64,
    /// Streams beyond [`STREAMS_MAX`].
    pub too_many: u64,
}

/// Puts units together out of what the scanner shows.
#[derive(Debug, Default)]
struct Assembly {
    streams: BTreeMap<Pid, StreamState>,
    /// Bytes of all units that are not complete.
    open_bytes: usize,
    /// And whether units of the same stream were lost right before.
    ready: VecDeque<(AccessUnit, bool)>,
    counts: DemuxCounts,
}

#[derive(Debug)]
struct StreamState {
    stream: Stream,
    open: Option<Open>,
    /// Something was lost since the last unit, or there was none yet.
    after_hole: bool,
}

/// A unit that is being put together.
#[derive(Debug)]
struct Open {
    unit: AccessUnit,
    /// Bytes still to come; `None` where the header does not say how many.
    missing: Option<usize>,
}

impl Demux {
    /// Of a stream that nothing came from.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in bytes that came at `now`: a datagram's payload, or a piece of a file.
    pub fn push(&mut self, now: Time, bytes: &[u8]) {
        self.scanner.push(now, bytes, &mut self.assembly);
        let programs = self.scanner.programs();
        if programs.stats().changes != self.changes {
            self.changes = programs.stats().changes;
            let numbers: Vec<u16> = programs.list().iter().map(|program| program.number).collect();
            self.assembly.retain(|stream| numbers.contains(&stream.program));
        }
    }

    /// The next unit; `None` when there is none left.
    pub fn poll_unit(&mut self) -> Option<AccessUnit> {
        self.poll_unit_and_hole().map(|(unit, _)| unit)
    }

    /// The same, and whether something of its stream was lost between the unit before and this one, or this is the first.
    pub fn poll_unit_and_hole(&mut self) -> Option<(AccessUnit, bool)> {
        self.assembly.ready.pop_front()
    }

    /// The stream is over: what is open counts as complete, unless it is known to be longer.
    pub fn finish(&mut self) {
        let pids: Vec<Pid> = self.assembly.streams.keys().copied().collect();
        for pid in pids {
            self.assembly.end_unit(pid);
        }
    }

    /// Packets are missing: what is open is dropped, as nothing tells what it would have become.
    pub fn disturb(&mut self) {
        self.scanner.disturb();
        let pids: Vec<Pid> = self.assembly.streams.keys().copied().collect();
        for pid in pids {
            self.assembly.drop_unit(pid);
        }
    }

    /// Ends the window that rates are taken over, and begins the next: see [`Scanner::close_window`].
    pub fn close_window(&mut self, now: Time) {
        self.scanner.close_window(now);
    }

    /// Counters of one PID; `None` if it never came.
    #[must_use]
    pub fn pid(&self, pid: Pid) -> Option<&PidStats> {
        self.scanner.pid(pid)
    }

    /// Bytes of all units that are not complete, and of those that wait to be taken.
    #[must_use]
    pub fn bytes_held(&self) -> usize {
        self.assembly.open_bytes + self.assembly.ready.iter().map(|(unit, _)| unit.bytes.len()).sum::<usize>()
    }

    /// The programs, and what they are called.
    #[must_use]
    pub const fn programs(&self) -> &Programs {
        self.scanner.programs()
    }

    /// The streams, in the order of their PIDs.
    pub fn streams(&self) -> impl Iterator<Item = &Stream> {
        self.assembly.streams.values().map(|state| &state.stream)
    }

    /// The stream on a PID, if units can come from there.
    #[must_use]
    pub fn stream(&self, pid: Pid) -> Option<&Stream> {
        self.assembly.streams.get(&pid).map(|state| &state.stream)
    }

    /// Counters of units since the start.
    #[must_use]
    pub const fn counts(&self) -> DemuxCounts {
        self.assembly.counts
    }

    /// Counters of packets since the start.
    #[must_use]
    pub const fn stats(&self) -> ScannerStats {
        self.scanner.stats()
    }
}

impl Observer for Assembly {
    fn handle_packet(&mut self, _now: Time, packet: &Seen<'_>) {
        let pid = packet.pid;
        let Some(state) = self.streams.get_mut(&pid) else { return };
        let Some(codec) = state.stream.codec else { return };
        state.stream.scrambled = packet.is_scrambled;
        if packet.after_loss || packet.is_scrambled {
            self.drop_unit(pid);
        }
        if packet.is_scrambled {
            return;
        }
        if packet.unit_start {
            self.end_unit(pid);
            self.start_unit(pid, codec, packet.payload);
        } else {
            self.extend_unit(pid, packet.payload);
        }
    }

    /// Takes streams as soon as a PMT names them: their units may begin with the next packet.
    fn handle_section(&mut self, _now: Time, _pid: Pid, id: u8, section: Result<LongSection<'_>, SectionError>) {
        let Ok(section) = section else { return };
        if id != TABLE_ID_PMT || !section.is_current {
            return;
        }
        if let Some(body) = PmtBody::parse(section.body) {
            self.read_streams(section.extension, &body);
        }
    }
}

impl Assembly {
    fn read_streams(&mut self, program: u16, body: &PmtBody<'_>) {
        let registration = format_identifier(body.descriptors);
        let streams = body.streams().map(|entry| Stream {
            program,
            entry: mpegts::Stream::new(&entry, registration),
            codec: Codec::from_stream_type(entry.stream_type, entry.descriptors),
            scrambled: false,
        });
        let streams: BTreeMap<Pid, Stream> = streams.map(|stream| (stream.entry.pid, stream)).collect();
        self.retain(|old| old.program != program || streams.get(&old.entry.pid).is_some_and(|new| new.is_same(old)));
        for (pid, stream) in streams {
            if self.streams.contains_key(&pid) {
                continue;
            }
            if self.streams.len() == STREAMS_MAX {
                self.counts.too_many += 1;
                return;
            }
            self.streams.insert(pid, StreamState { stream, open: None, after_hole: true });
        }
    }

    fn retain(&mut self, keep: impl Fn(&Stream) -> bool) {
        self.streams.retain(|_, state| keep(&state.stream));
        self.open_bytes =
            self.streams.values().filter_map(|state| state.open.as_ref()).map(|open| open.unit.bytes.len()).sum();
    }

    fn start_unit(&mut self, pid: Pid, codec: Codec, payload: &[u8]) {
        let header = PesHeader::parse(payload).ok().filter(|header| !header.is_scrambled);
        let missing = header.map(|header| missing_of(&header));
        let (Some(header), Some(Ok(missing))) = (header, missing) else {
            self.counts.bad_header += 1;
            self.note_hole(pid);
            return;
        };
        let unit = AccessUnit { pid, codec, pts: header.pts, dts: header.dts, bytes: Vec::new() };
        if let Some(state) = self.streams.get_mut(&pid) {
            state.open = Some(Open { unit, missing });
        }
        self.extend_unit(pid, payload.get(header.header_bytes..).unwrap_or_default());
    }

    fn extend_unit(&mut self, pid: Pid, bytes: &[u8]) {
        let open = self.streams.get_mut(&pid).and_then(|state| state.open.as_mut());
        let Some(open) = open else { return };
        let bytes = &bytes[..bytes.len().min(open.missing.unwrap_or(usize::MAX))];
        let too_long = open.unit.bytes.len() + bytes.len() > UNIT_BYTES_MAX;
        if too_long || self.open_bytes + bytes.len() > OPEN_BYTES_MAX {
            self.counts.too_long += 1;
            self.note_hole(pid);
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
            self.note_hole(pid);
        } else if self.ready.len() == READY_MAX {
            self.counts.overflow += 1;
            self.note_hole(pid);
        } else if !open.unit.bytes.is_empty() {
            self.counts.units += 1;
            let state = self.streams.get_mut(&pid);
            let after_hole = state.is_none_or(|state| std::mem::take(&mut state.after_hole));
            self.ready.push_back((open.unit, after_hole));
        }
    }

    /// The next unit does not go on from the last.
    fn note_hole(&mut self, pid: Pid) {
        if let Some(state) = self.streams.get_mut(&pid) {
            state.after_hole = true;
        }
    }

    fn drop_unit(&mut self, pid: Pid) {
        self.note_hole(pid);
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
    /// Whether it can go on where `other` was.
    fn is_same(&self, other: &Self) -> bool {
        (self.entry, self.codec) == (other.entry, other.codec)
    }
}

/// Bytes behind the header; an error if the header is longer than the packet.
fn missing_of(header: &PesHeader) -> Result<Option<usize>, ()> {
    let Some(bytes) = header.packet_bytes else { return Ok(None) };
    (usize::from(bytes) + 6).checked_sub(header.header_bytes).map(Some).ok_or(())
}

/// The body of the fuzz target `media_demux`, which tests call as well: any bytes as TS packets, with sync bytes put right.
///
/// # Panics
/// If a bound does not hold.
pub fn check_any_bytes(bytes: &[u8]) {
    let mut demux = Demux::new();
    for chunk in bytes.chunks(TS_PACKET_BYTES) {
        let mut packet = [0xff; TS_PACKET_BYTES];
        packet[..chunk.len()].copy_from_slice(chunk);
        packet[0] = mpegts::SYNC_BYTE;
        demux.push(Time::ZERO, &packet);
        let assembly = &demux.assembly;
        assert!(assembly.streams.len() <= STREAMS_MAX);
        assert!(assembly.open_bytes <= OPEN_BYTES_MAX && assembly.ready.len() <= READY_MAX);
        let open = assembly.streams.values().filter_map(|state| state.open.as_ref()).map(|open| open.unit.bytes.len());
        assert_eq!(open.sum::<usize>(), assembly.open_bytes);
    }
    demux.finish();
    assert_eq!(demux.assembly.open_bytes, 0);
    while let Some(unit) = demux.poll_unit() {
        assert!(!unit.bytes.is_empty());
        assert!(unit.pts.is_none_or(|pts| pts.0 < 1 << 33));
    }
}

/// Bytes of all units together that are not complete: four of the longest.
const OPEN_BYTES_MAX: usize = 4 * UNIT_BYTES_MAX;
/// Units that wait to be taken. Whoever takes them after each datagram never has more than one per stream.
const READY_MAX: usize = STREAMS_MAX;

const TABLE_ID_PMT: u8 = 0x02;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proto::mpegts::psi::{Pat, Pmt, packet_of};
    use crate::proto::mpegts::{Adaptation, TsPacket};
    use crate::units::Ticks90k;

    #[test]
    fn units_come_whole_with_their_times() {
        let mut demux = with_streams(&[(0x1b, VIDEO)]);
        for packet in video_packets(0) {
            demux.push(Time::ZERO, &packet);
        }
        assert!(demux.poll_unit().is_none(), "only the next start shows that it is over");
        demux.push(Time::ZERO, &video_packets(3)[0]);
        let unit = demux.poll_unit().unwrap();
        assert_eq!((unit.codec, unit.pts, unit.dts), (Codec::H264, Some(Ticks90k(0x1_2345_6789)), Some(Ticks90k(1))));
        assert_eq!(unit.bytes.len(), 165 + 184 + 184);
    }

    #[test]
    fn a_unit_with_a_packet_missing_is_dropped_and_counted() {
        let mut demux = with_streams(&[(0x1b, VIDEO)]);
        let packets = video_packets(0);
        demux.push(Time::ZERO, &packets[0]);
        demux.push(Time::ZERO, &packets[2]);
        demux.push(Time::ZERO, &video_packets(3)[0]);
        demux.finish();
        assert_eq!((demux.counts().damaged, demux.counts().units), (1, 1));
    }

    #[test]
    fn a_hole_is_told_with_the_unit_behind_it_and_with_no_other_stream() {
        const OTHER: Pid = Pid::from_low_bits(0x102);
        let of = |pid: Pid, mut bytes: [u8; TS_PACKET_BYTES]| {
            bytes[1] = bytes[1] & 0xe0 | (pid.value() >> 8) as u8;
            bytes[2] = pid.value() as u8;
            bytes
        };
        let mut demux = with_streams(&[(0x1b, VIDEO), (0x1b, OTHER)]);
        let mut holes = Vec::new();
        // Of one stream's second unit a packet is missing, and its fourth has a bad header.
        let mut bytes = Vec::new();
        for round in 0..5 {
            for (at, packet) in video_packets(round * 3).into_iter().enumerate() {
                let mut packet = packet;
                if (round, at) == (3, 0) {
                    // Where the PES packet begins.
                    let start = packet.windows(3).position(|bytes| bytes == [0, 0, 1]).unwrap();
                    packet[start + 2] = 7;
                }
                if (round, at) != (1, 1) {
                    bytes.extend(of(VIDEO, packet));
                }
                bytes.extend(of(OTHER, video_packets(round * 3)[at]));
            }
        }
        // All at once: what was whole before the hole is before it.
        demux.push(Time::ZERO, &bytes);
        demux.finish();
        while let Some((unit, after_hole)) = demux.poll_unit_and_hole() {
            holes.push((unit.pid, after_hole));
        }
        let told = |of: Pid| holes.iter().filter(|(pid, _)| *pid == of).map(|(_, hole)| *hole).collect::<Vec<_>>();
        assert_eq!(told(VIDEO), [true, true, true]);
        assert_eq!(told(OTHER), [true, false, false, false, false]);
    }

    #[test]
    fn a_packet_that_comes_twice_is_taken_once() {
        let mut demux = with_streams(&[(0x1b, VIDEO)]);
        for packet in video_packets(0) {
            demux.push(Time::ZERO, &packet);
            demux.push(Time::ZERO, &packet);
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
        demux.push(Time::ZERO, &packet);
        demux.finish();
        assert!(demux.streams().next().unwrap().scrambled);
        assert_eq!((demux.stats().scrambled, demux.counts().units), (1, 0));
    }

    #[test]
    fn a_stream_that_leaves_the_pmt_takes_its_bytes_along() {
        let mut demux = with_streams(&[(0x1b, VIDEO)]);
        demux.push(Time::ZERO, &video_packets(0)[0]);
        assert!(demux.assembly.open_bytes > 0);
        let pmt = Pmt { program: 1, version: 1, pcr_pid: VIDEO, streams: &[(0x0f, VIDEO)] };
        let mut packet = packet_of(&pmt.section(), PMT);
        packet[3] |= 1;
        demux.push(Time::ZERO, &packet);
        assert_eq!((demux.assembly.open_bytes, demux.streams().next().unwrap().codec), (0, Some(Codec::Aac)));
    }

    #[test]
    fn a_unit_without_an_end_stops_growing() {
        let mut demux = with_streams(&[(0x1b, VIDEO)]);
        demux.push(Time::ZERO, &video_packets(0)[0]);
        for cc in 1..60_000_u32 {
            demux.push(Time::ZERO, &packet(false, (cc & 0xf) as u8, &[0xaa; 184]));
        }
        assert_eq!((demux.counts().too_long, demux.assembly.open_bytes), (1, 0));
    }

    proptest! {
        #[test]
        fn any_bytes_keep_the_bounds(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            check_any_bytes(&bytes);
        }
    }

    fn with_streams(streams: &[(u8, Pid)]) -> Demux {
        let mut demux = Demux::new();
        let mut null = [0xff; TS_PACKET_BYTES];
        TsPacket { pid: Pid::NULL, payload: Some(&[0xff; 184]), ..TsPacket::default() }.write(&mut null);
        demux.push(Time::ZERO, &null.repeat(5));
        demux
            .push(Time::ZERO, &packet_of(&Pat { stream_id: 1, version: 0, programs: &[(1, PMT)] }.section(), Pid::PAT));
        demux.push(Time::ZERO, &packet_of(&Pmt { program: 1, version: 0, pcr_pid: VIDEO, streams }.section(), PMT));
        assert_eq!((demux.programs().list().len(), demux.streams().count()), (1, streams.len()));
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
