//! `Scanner`: looks at every TS packet of a stream, and changes none.

use crate::units::{Bitrate, Ticks27M, Time};

use super::packet::{PCR_MODULUS_27M, Pid, TS_PACKET_BYTES};
use super::pcr::{PcrMeter, PcrReading};
use super::pes::PesHeader;
use super::pid_set::PidSet;
use super::programs::Programs;
use super::psi::crc32;
use super::scte35::{SpliceError, SpliceInfo, TABLE_ID_SPLICE_INFO};
use super::section::{Assembler, LongSection, SectionError};
use super::stream::Media;
use super::sync::{Found, Sync, SyncStats};

/// Follows a transport stream: synchronisation, continuity, clock references, tables, PES headers, rates.
///
/// Memory: 18 KiB, some 150 bytes for each PID seen, up to 4 KiB for each with sections, 2 KiB for each with PCR; a hostile
/// stream with all 8,192 PIDs makes 4 MiB of that, and no more.
#[derive(Clone, Debug)]
pub struct Scanner {
    sync: Sync,
    packets: Packets,
}

/// What a [`Scanner`] shows on the way to whoever wants more than counters.
pub trait Observer {
    /// A TS packet with a payload that can be relied on: no transport error, no repetition.
    fn handle_packet(&mut self, _now: Time, _packet: &Seen<'_>) {}

    /// A TS packet that brings nothing: without payload, or a repetition. It begins at byte `position` of the stream.
    fn handle_empty(&mut self, _now: Time, _pid: Pid, _position: u64) {}

    /// A section, whole; with the reason if it is none of the long form, or broken.
    fn handle_section(
        &mut self,
        _now: Time,
        _pid: Pid,
        _table_id: u8,
        _section: Result<LongSection<'_>, SectionError>,
    ) {
    }

    /// Splice information (SCTE 35), of a PID that a PMT names for it. It is no section of the long form and has been handed to
    /// [`Observer::handle_section`] as such before.
    fn handle_splice(&mut self, _now: Time, _pid: Pid, _splice: Result<SpliceInfo<'_>, SpliceError>) {}

    /// A PCR, and what it shows.
    fn handle_pcr(&mut self, _now: Time, _pid: Pid, _reading: &PcrReading) {}

    /// The header of a PES packet; it is not among the counters of its PID yet.
    fn handle_pes(&mut self, _now: Time, _pid: &PidStats, _header: &PesHeader) {}
}

/// For whoever only wants counters.
impl Observer for () {}

/// A TS packet with a payload.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Whose.
    pub pid: Pid,
    /// Where it begins, in bytes of the stream.
    pub position: u64,
    /// 1 to 184 bytes; encrypted if `is_scrambled`.
    pub payload: &'a [u8],
    /// A PES packet starts here, or a section.
    pub unit_start: bool,
    /// A decoder may start here.
    pub random_access: bool,
    /// Something is missing between this PID's last payload and this one.
    pub after_loss: bool,
    /// Not to be looked into.
    pub is_scrambled: bool,
}

/// Counters of a whole stream, in TS packets where nothing else is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScannerStats {
    /// Of synchronisation.
    pub sync: SyncStats,
    /// Null packets.
    pub nulls: u64,
    /// Breaks of a continuity counter (TR 101 290 1.4).
    pub continuity_errors: u64,
    /// The PID of the last of them.
    pub continuity_error_pid: Option<Pid>,
    /// Packets missing at those breaks, at least: the counter has four bits.
    pub lost_min: u64,
    /// Legal repetitions.
    pub duplicates: u64,
    /// Packets with `transport_error_indicator`.
    pub transport_errors: u64,
    /// Encrypted packets.
    pub scrambled: u64,
    /// Packets whose header contradicts itself.
    pub malformed: u64,
    /// Sections with a wrong CRC.
    pub crc_errors: u64,
    /// PIDs with PCR that there was no room for.
    pub pcr_pids_skipped: u64,
}

/// Counters of one PID.
#[derive(Clone, Debug)]
pub struct PidStats {
    /// Which.
    pub pid: Pid,
    /// TS packets, repetitions included.
    pub packets: u64,
    /// See [`ScannerStats`].
    pub continuity_errors: u64,
    /// See [`ScannerStats`].
    pub duplicates: u64,
    /// Breaks that `discontinuity_indicator` announced.
    pub discontinuities: u64,
    /// See [`ScannerStats`].
    pub scrambled: u64,
    /// PES packets.
    pub pes_packets: u64,
    /// PCRs.
    pub pcrs: u64,
    /// When it came first.
    pub first_at: Time,
    /// When it came last.
    pub last_at: Time,
    /// When its last PTS came.
    pub pts_at: Option<Time>,
    /// Over the last window: see [`Scanner::close_window`].
    pub rate: Bitrate,
    packets_before: u64,
    fingerprint: u64,
    cc: u8,
    continuity: Continuity,
    sections: Option<Box<Assembler>>,
    pcr: Option<Box<PcrMeter>>,
}

/// What the next continuity counter may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Continuity {
    /// Anything.
    Any,
    /// One more, or the same once.
    Once,
    /// One more.
    Twice,
}

#[derive(Clone, Debug)]
struct Packets {
    /// Place in `pids` plus one; zero for none.
    index: Box<[u16; PIDS]>,
    pids: Vec<PidStats>,
    programs: Programs,
    /// Whose payloads are sections: those of PMTs and cues, beside the ones that always are.
    tables: PidSet,
    /// Of these those with cues.
    cues: PidSet,
    stats: ScannerStats,
    /// Of the current packet, in bytes since the start.
    position: u64,
    pcr_pids: usize,
    window_start: Option<Time>,
    nulls_before: u64,
    null_rate: Bitrate,
    packets_before: u64,
    rate: Bitrate,
}

impl Default for Scanner {
    fn default() -> Self {
        let packets = Packets {
            index: Box::new([0; PIDS]),
            pids: Vec::new(),
            programs: Programs::default(),
            tables: PidSet::default(),
            cues: PidSet::default(),
            stats: ScannerStats::default(),
            position: 0,
            pcr_pids: 0,
            window_start: None,
            nulls_before: 0,
            null_rate: Bitrate::ZERO,
            packets_before: 0,
            rate: Bitrate::ZERO,
        };
        Self { sync: Sync::default(), packets }
    }
}

impl Scanner {
    /// Takes in bytes that came at `now`: a datagram's payload, or a piece of a file.
    #[inline]
    pub fn push(&mut self, now: Time, bytes: &[u8], observer: &mut impl Observer) {
        let packets = &mut self.packets;
        self.sync.push(bytes, |found| match found {
            Found::Packet(packet) => packets.handle_packet(now, packet, observer),
            Found::BadSyncByte => packets.position += TS_PACKET_BYTES as u64,
            Found::SyncLost | Found::Truncated => packets.disturb(),
        });
    }

    /// Ends the window that rates are taken over, and begins the next. Costs a look at each PID.
    pub fn close_window(&mut self, now: Time) {
        let total = self.sync.stats().packets;
        self.packets.close_window(now, total);
    }

    /// Packets are missing, however many: clocks are not compared across.
    pub fn disturb(&mut self) {
        self.packets.disturb();
    }

    /// Whether TS packets are found now.
    #[must_use]
    pub const fn is_locked(&self) -> bool {
        self.sync.is_locked()
    }

    /// Distance of the sync bytes, 188, 192 or 204; `None` while searching.
    #[must_use]
    pub const fn stride(&self) -> Option<usize> {
        self.sync.stride()
    }

    /// Counters since the start.
    #[must_use]
    pub const fn stats(&self) -> ScannerStats {
        ScannerStats { sync: self.sync.stats(), ..self.packets.stats }
    }

    /// TS packets so far.
    #[must_use]
    pub const fn packets(&self) -> u64 {
        self.sync.stats().packets
    }

    /// A number that changes whenever sync, continuity or transport errors are counted.
    #[must_use]
    pub const fn errors(&self) -> u64 {
        let sync = self.sync.stats();
        sync.sync_byte_errors + self.packets.stats.continuity_errors + self.packets.stats.transport_errors
    }

    /// Each PID seen, in the order of coming. Null packets are not among them.
    #[must_use]
    pub fn pids(&self) -> &[PidStats] {
        &self.packets.pids
    }

    /// Counters of one PID; `None` if it never came.
    #[must_use]
    pub fn pid(&self, pid: Pid) -> Option<&PidStats> {
        self.packets.pids.get(self.packets.place(pid)?)
    }

    /// What the tables say.
    #[must_use]
    pub const fn programs(&self) -> &Programs {
        &self.packets.programs
    }

    /// Of all TS packets over the last window.
    #[must_use]
    pub const fn rate(&self) -> Bitrate {
        self.packets.rate
    }

    /// Of null packets over the last window.
    #[must_use]
    pub const fn null_rate(&self) -> Bitrate {
        self.packets.null_rate
    }

    /// By the clock references of the PID that has most of them: the rate that the stream was made for, however it arrived.
    #[must_use]
    pub fn pcr_rate(&self) -> Option<Bitrate> {
        self.clock()?.pcr_meter()?.rate()
    }

    /// The PID that has most PCRs.
    #[must_use]
    pub fn clock(&self) -> Option<&PidStats> {
        self.packets.pids.iter().filter(|pid| pid.pcr.is_some()).max_by_key(|pid| pid.pcrs)
    }
}

impl PidStats {
    /// What its PCRs show, if it has any.
    #[must_use]
    pub fn pcr_meter(&self) -> Option<&PcrMeter> {
        self.pcr.as_deref()
    }

    fn new(pid: Pid, now: Time) -> Self {
        Self {
            pid,
            packets: 0,
            continuity_errors: 0,
            duplicates: 0,
            discontinuities: 0,
            scrambled: 0,
            pes_packets: 0,
            pcrs: 0,
            first_at: now,
            last_at: now,
            pts_at: None,
            rate: Bitrate::ZERO,
            packets_before: 0,
            fingerprint: 0,
            cc: 0,
            continuity: Continuity::Any,
            sections: None,
            pcr: None,
        }
    }

    /// Compares the continuity counter; see 13818-1 2.4.3.3.
    #[inline]
    fn step(&mut self, packet: &[u8; TS_PACKET_BYTES], discontinuity: bool) -> Step {
        let cc = packet[3] & 0x0f;
        let has_payload = packet[3] & 0x10 != 0;
        if !has_payload {
            let is_same = cc == self.cc || self.continuity == Continuity::Any || discontinuity;
            self.cc = cc;
            return if is_same { Step::Next } else { Step::Lost(0) };
        }
        let before = std::mem::replace(&mut self.cc, cc);
        let was = std::mem::replace(&mut self.continuity, Continuity::Once);
        let fingerprint = fingerprint(packet);
        let fingerprint_before = std::mem::replace(&mut self.fingerprint, fingerprint);
        if cc == (before + 1) & 0x0f || was == Continuity::Any || discontinuity {
            return Step::Next;
        }
        if cc == before && fingerprint == fingerprint_before {
            self.continuity = Continuity::Twice;
            return if was == Continuity::Once { Step::Duplicate } else { Step::Repeated };
        }
        Step::Lost(cc.wrapping_sub(before + 1) & 0x0f)
    }
}

/// What a continuity counter shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Next,
    /// A legal repetition.
    Duplicate,
    /// One too many.
    Repeated,
    /// So many are missing, at least and modulo 16.
    Lost(u8),
}

impl Packets {
    #[inline]
    fn handle_packet(&mut self, now: Time, packet: &[u8; TS_PACKET_BYTES], observer: &mut impl Observer) {
        let position = self.position;
        self.position += TS_PACKET_BYTES as u64;
        let [_, b1, b2, b3, b4, b5, ..] = *packet;
        if b1 & 0x80 != 0 {
            // Not even its PID can be relied on.
            self.stats.transport_errors += 1;
            return;
        }
        let pid = Pid::from_low_bits(u16::from_be_bytes([b1, b2]));
        if pid == Pid::NULL {
            self.stats.nulls += 1;
            return;
        }
        let (has_adaptation, has_payload) = (b3 & 0x20 != 0, b3 & 0x10 != 0);
        let adaptation_bytes = if has_adaptation { usize::from(b4) + 1 } else { 0 };
        let flags = if adaptation_bytes > 1 { b5 } else { 0 };
        let room = TS_PACKET_BYTES - HEADER_BYTES;
        if b3 & 0x30 == 0 || adaptation_bytes > room || (has_payload && adaptation_bytes == room) {
            self.stats.malformed += 1;
            return;
        }
        let place = self.place_for(pid, now);
        let Some(state) = self.pids.get_mut(place) else { return };
        state.packets += 1;
        state.last_at = now;
        let discontinuity = flags & DISCONTINUITY != 0;
        let step = state.step(packet, discontinuity);
        let mut after_loss = discontinuity;
        match step {
            Step::Next => state.discontinuities += u64::from(discontinuity),
            Step::Duplicate => {
                state.duplicates += 1;
                self.stats.duplicates += 1;
                observer.handle_empty(now, pid, position);
                return;
            }
            Step::Repeated | Step::Lost(_) => {
                state.continuity_errors += 1;
                after_loss = true;
                self.lose(pid, step);
            }
        }
        if flags & PCR_FLAG != 0 && adaptation_bytes > 7 {
            self.handle_pcr(now, (place, position), (packet, discontinuity), observer);
        }
        if !has_payload || step == Step::Repeated {
            observer.handle_empty(now, pid, position);
            return;
        }
        let is_scrambled = b3 & 0xc0 != 0;
        let payload = packet.get(HEADER_BYTES + adaptation_bytes..).unwrap_or_default();
        let random_access = flags & RANDOM_ACCESS != 0;
        let seen = Seen { pid, position, payload, unit_start: b1 & 0x40 != 0, random_access, after_loss, is_scrambled };
        self.handle_payload(now, place, &seen, observer);
        observer.handle_packet(now, &seen);
    }

    #[inline]
    fn handle_payload(&mut self, now: Time, place: usize, seen: &Seen<'_>, observer: &mut impl Observer) {
        let Some(state) = self.pids.get_mut(place) else { return };
        if seen.is_scrambled {
            state.scrambled += 1;
            self.stats.scrambled += 1;
        } else if state.sections.is_some() {
            self.handle_sections(now, place, seen, observer);
        } else if seen.unit_start
            && let Ok(header) = PesHeader::parse(seen.payload)
        {
            observer.handle_pes(now, state, &header);
            state.pes_packets += 1;
            if header.pts.is_some() {
                state.pts_at = Some(now);
            }
        }
    }

    fn handle_sections(&mut self, now: Time, place: usize, seen: &Seen<'_>, observer: &mut impl Observer) {
        let Some(mut assembler) = self.pids.get_mut(place).and_then(|state| state.sections.take()) else { return };
        if seen.after_loss {
            assembler.reset();
        }
        let mut is_changed = false;
        assembler.push(seen.payload, seen.unit_start, |bytes| {
            let table_id = bytes.first().copied().unwrap_or_default();
            let mut section = LongSection::parse(bytes);
            if table_id == TABLE_ID_TOT && crc32(bytes) != 0 {
                section = Err(SectionError::Crc);
            }
            match &section {
                Ok(section) => is_changed |= self.programs.handle_section(now, seen.pid, section),
                Err(error) => self.stats.crc_errors += u64::from(*error == SectionError::Crc),
            }
            observer.handle_section(now, seen.pid, table_id, section);
            if table_id == TABLE_ID_SPLICE_INFO && self.cues.has(seen.pid) {
                observer.handle_splice(now, seen.pid, SpliceInfo::parse(bytes));
            }
        });
        if let Some(state) = self.pids.get_mut(place) {
            state.sections = Some(assembler);
        }
        if is_changed {
            self.assign();
        }
    }

    #[cold]
    fn handle_pcr(
        &mut self,
        now: Time,
        (place, position): (usize, u64),
        (packet, discontinuity): (&[u8; TS_PACKET_BYTES], bool),
        observer: &mut impl Observer,
    ) {
        let Some(state) = self.pids.get_mut(place) else { return };
        if state.pcr.is_none() {
            if self.pcr_pids >= PCR_PIDS_MAX {
                self.stats.pcr_pids_skipped += 1;
                return;
            }
            self.pcr_pids += 1;
        }
        let meter = state.pcr.get_or_insert_default();
        let reading = meter.handle_pcr(now, position, read_pcr(packet), discontinuity);
        state.pcrs += 1;
        observer.handle_pcr(now, state.pid, &reading);
    }

    #[cold]
    fn lose(&mut self, pid: Pid, step: Step) {
        self.stats.continuity_errors += 1;
        self.stats.continuity_error_pid = Some(pid);
        if let Step::Lost(lost) = step {
            self.stats.lost_min += u64::from(lost);
            self.disturb();
        }
    }

    fn disturb(&mut self) {
        self.pids.iter_mut().filter_map(|pid| pid.pcr.as_mut()).for_each(|meter| meter.disturb());
    }

    fn place(&self, pid: Pid) -> Option<usize> {
        self.index.get(usize::from(pid.value())).and_then(|place| usize::from(*place).checked_sub(1))
    }

    #[inline]
    fn place_for(&mut self, pid: Pid, now: Time) -> usize {
        self.place(pid).unwrap_or_else(|| self.add(pid, now))
    }

    #[cold]
    fn add(&mut self, pid: Pid, now: Time) -> usize {
        let mut state = PidStats::new(pid, now);
        state.sections = (self.tables.has(pid) || has_tables(pid)).then(Box::default);
        self.pids.push(state);
        if let Some(place) = self.index.get_mut(usize::from(pid.value())) {
            *place = self.pids.len() as u16;
        }
        self.pids.len() - 1
    }

    /// Which PIDs have sections may have changed.
    fn assign(&mut self) {
        (self.tables, self.cues) = Default::default();
        for program in self.programs.list() {
            self.tables.insert(program.pmt_pid);
        }
        for stream in self.programs.streams().filter(|stream| stream.media == Media::Cue) {
            self.cues.insert(stream.pid);
            self.tables.insert(stream.pid);
        }
        for state in &mut self.pids {
            if !self.tables.has(state.pid) && !has_tables(state.pid) {
                state.sections = None;
            } else if state.sections.is_none() {
                state.sections = Some(Box::default());
            }
        }
    }

    fn close_window(&mut self, now: Time, total: u64) {
        let span_ns = self.window_start.replace(now).map_or(0, |start| now.since(start).as_nanos());
        let rate = |packets: u64| {
            let bits_ns = u128::from(packets) * TS_PACKET_BYTES as u128 * 8 * 1_000_000_000;
            Bitrate::from_bps(bits_ns.checked_div(span_ns).map_or(0, |bps| u64::try_from(bps).unwrap_or(u64::MAX)))
        };
        for pid in &mut self.pids {
            pid.rate = rate(pid.packets - pid.packets_before);
            pid.packets_before = pid.packets;
        }
        self.null_rate = rate(self.stats.nulls - self.nulls_before);
        self.nulls_before = self.stats.nulls;
        self.rate = rate(total - self.packets_before);
        self.packets_before = total;
    }
}

/// PIDs that always carry tables (13818-1 table 2-3, EN 300 468 table 1): PAT, CAT, NIT, SDT, EIT, RST, TDT.
const fn has_tables(pid: Pid) -> bool {
    matches!(pid.value(), 0x00 | 0x01 | 0x10..=0x14)
}

/// Tells a repetition from a packet that only has the same counter, without keeping the packet. What may differ in a
/// repetition, PCR, stands before (13818-1 2.4.3.3).
fn fingerprint(packet: &[u8; TS_PACKET_BYTES]) -> u64 {
    let word = |at: usize| packet.get(at..at + 8).and_then(|word| word.try_into().ok()).map_or(0, u64::from_ne_bytes);
    word(16) ^ word(96).rotate_left(21) ^ word(180).rotate_left(42)
}

/// 13818-1 2.4.3.5, for a packet whose adaptation field has room for it.
fn read_pcr(packet: &[u8; TS_PACKET_BYTES]) -> Ticks27M {
    let [_, _, _, _, _, _, b0, b1, b2, b3, b4, b5, ..] = *packet;
    let bits = u64::from_be_bytes([0, 0, b0, b1, b2, b3, b4, b5]);
    Ticks27M(((bits >> 15) * 300 + (bits & 0x1ff)) % PCR_MODULUS_27M)
}

const HEADER_BYTES: usize = 4;
const PIDS: usize = 8_192;
/// Flags of an adaptation field.
const DISCONTINUITY: u8 = 0x80;
const RANDOM_ACCESS: u8 = 0x40;
const PCR_FLAG: u8 = 0x10;
/// PIDs whose clock is followed. Judgement: more programs have clocks of their own in no multiplex.
const PCR_PIDS_MAX: usize = 256;
/// It has a CRC, but no long form (EN 300 468 5.2.6).
const TABLE_ID_TOT: u8 = 0x73;
