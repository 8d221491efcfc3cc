//! `Buffers`: the decoder of 13818-1 2.4.2 (T-STD) for each program, in the stream's own time: TR 101 290 3.3, 3.9 and 3.10.
//!
//! ```text
//!                 ┌─► TB, 512 bytes ──1.2 R──► MB and EB, by profile and level ──DTS──►  each video stream
//!  PCR ─► Clock ──┼─► TB, 512 bytes ──2 Mb/s─► B, 3,584 bytes and more ─────────DTS──►  each audio stream
//!  when a byte    └─► TBsys, 512 ─────1 Mb/s─► Bsys, 1,536 ────────────────────80 kb/s►  PAT, CAT and PMT of each program
//!  enters
//! ```
//!
//! How data arrive does not matter, only what PCR says of when they should. That is known for each byte where the rate is
//! constant. Where it varies, nothing in the stream says when its bytes were to come between two PCRs, and such a stream comes in
//! bursts, picture by picture: of it only 3.10 is told. MB and EB are taken together, as what both hold does not depend on
//! the parameters of the hypothetical reference decoder nor on how data go from one to the other. A PES packet is one picture, or
//! frames of sound that are equally long.
//!
//! Sections of 13818-1 are those of its editions since 2018, which have a 2.4.2.1 that older ones, and TR 101 290, have not.

mod clock;
mod stream;
mod tank;
#[cfg(test)]
mod tests;

use clock::{Clock, Moment, Pace};
use stream::Stream;
use tank::Tank;

use super::indicator::{Indicator, Indicators};
use crate::proto::mpegts::{self, Media, PcrReading, PesHeader, Pid, Scanner, Seen};
use crate::units::{Bitrate, DataSize, Time};

/// The decoders of all programs. Up to [`STREAMS_MAX`] streams and [`PROGRAMS_MAX`] programs have one: 18 KiB, 20 KiB more for each
/// stream that keeps its decoder waiting on purpose.
#[derive(Clone, Debug)]
pub(super) struct Buffers {
    clocks: Vec<Clock>,
    streams: Vec<Stream>,
    systems: Vec<System>,
    /// By PID: the stream's place plus one, or [`IS_SYSTEM`]; zero for others.
    index: Box<[u16; PIDS]>,
    /// The header of the PES packet that has just begun.
    header: Option<PesHeader>,
    /// Video and audio streams that there was no room for.
    left_out: usize,
    has_programs: bool,
    /// When each of the indicators was counted last: of one is told ten times a second at most.
    told: [Option<Time>; INDICATORS.len()],
}

/// The buffers for the tables that lead to one program.
#[derive(Clone, Debug)]
struct System {
    pmt_pid: Pid,
    clock: usize,
    era: u32,
    tanks: Option<(Tank, Tank)>,
}

/// What is wrong, as bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Findings(u8);

impl Findings {
    const NONE: Self = Self(0);
    /// A buffer overflows, or data come after they were to be decoded.
    const BUFFER: Self = Self(1);
    /// A transport buffer has not been empty for a second.
    const NEVER_EMPTY: Self = Self(2);
    /// Data come so early that they stay too long.
    const DELAY: Self = Self(4);
}

impl std::ops::BitOrAssign for Findings {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl Default for Buffers {
    fn default() -> Self {
        Self {
            clocks: Vec::new(),
            streams: Vec::new(),
            systems: Vec::new(),
            index: Box::new([0; PIDS]),
            header: None,
            left_out: 0,
            has_programs: false,
            told: [None; INDICATORS.len()],
        }
    }
}

impl Buffers {
    pub(super) fn handle_pcr(&mut self, pid: Pid, reading: &PcrReading) {
        if let Some(clock) = self.clocks.iter_mut().find(|clock| clock.pid == pid) {
            clock.handle_pcr(reading);
        }
    }

    /// A PES packet begins; the TS packet with it follows.
    pub(super) const fn handle_pes(&mut self, header: &PesHeader) {
        self.header = Some(*header);
    }

    /// A TS packet with a payload.
    #[inline]
    pub(super) fn handle_packet(&mut self, now: Time, packet: &Seen<'_>, indicators: &mut Indicators) {
        let header = if packet.unit_start { self.header.take() } else { None };
        let place = self.index.get(usize::from(packet.pid.value())).copied().unwrap_or_default();
        if place == IS_SYSTEM {
            // Filler behind the sections is none of their bytes.
            let bytes = packet.payload.iter().rposition(|byte| *byte != 0xff).map_or(0, |last| last + 1);
            return self.handle_system(now, (packet.pid, packet.position), bytes, indicators);
        }
        let Some(stream) = self.streams.get_mut(usize::from(place).wrapping_sub(1)) else { return };
        let Some(clock) = self.clocks.get(stream.clock) else { return };
        let found = stream.handle_packet(clock, packet, header.as_ref());
        if found != Findings::NONE {
            self.tell(now, packet.pid, found, indicators);
        }
    }

    /// A TS packet that brings nothing, and takes room in its transport buffer.
    pub(super) fn handle_empty(&mut self, now: Time, pid: Pid, position: u64, indicators: &mut Indicators) {
        let place = self.index.get(usize::from(pid.value())).copied().unwrap_or_default();
        if place == IS_SYSTEM {
            return self.handle_system(now, (pid, position), 0, indicators);
        }
        let Some(stream) = self.streams.get_mut(usize::from(place).wrapping_sub(1)) else { return };
        let Some(clock) = self.clocks.get(stream.clock) else { return };
        let found = stream.pass(clock, position);
        if found != Findings::NONE {
            self.tell(now, pid, found, indicators);
        }
    }

    /// What was known of clocks is not any more.
    pub(super) fn begin_anew(&mut self) {
        self.clocks.iter_mut().for_each(Clock::begin_anew);
    }

    /// Takes in the clocks' rates.
    pub(super) fn review(&mut self, scanner: &Scanner) {
        self.clocks.iter_mut().for_each(|clock| clock.review(scanner));
        let rate = scanner.pcr_rate().unwrap_or(Bitrate::ZERO);
        for (_, main) in self.systems.iter_mut().filter_map(|system| system.tanks.as_mut()) {
            main.set_leak(system_leak(rate));
        }
    }

    /// Why an indicator cannot be told; `None` if it can.
    pub(super) fn unknown(&self, indicator: Indicator) -> Option<&'static str> {
        let is_paced = |pace| self.clocks.iter().any(|clock| clock.pace == pace);
        if !self.has_programs {
            Some("no PMT")
        } else if !self.clocks.iter().any(Clock::is_running) {
            Some("no PCR")
        } else if indicator == Indicator::DataDelayError {
            let has_stamps = self.streams.iter().any(|stream| stream.has_stamps);
            (!has_stamps).then_some("no time stamps in video or audio")
        } else if is_paced(Pace::Varying) {
            Some("the rate is not constant")
        } else if is_paced(Pace::Unknown) {
            Some("too few PCRs yet")
        } else {
            (self.unmodelled() > 0).then_some("not all streams tell what buffers they need")
        }
    }

    /// Video and audio streams whose buffers are not known.
    pub(super) fn unmodelled(&self) -> u64 {
        let unknown = self.streams.iter().filter(|stream| !stream.is_known()).count();
        (unknown + self.left_out) as u64
    }

    /// The tables have changed: other programs and streams have decoders.
    pub(super) fn assign(&mut self, scanner: &Scanner) {
        let before = std::mem::take(self);
        self.told = before.told;
        for program in scanner.programs().list() {
            let Some(pmt) = program.pmt.as_ref() else { continue };
            self.has_programs = true;
            let clock = pmt.pcr_pid.filter(|_| self.systems.len() < PROGRAMS_MAX).map(|pid| self.clock(pid, &before));
            if let Some(clock) = clock {
                self.systems.push(System::new(program.pmt_pid, clock, &before));
            }
            for entry in pmt.streams.iter().filter(|entry| matches!(entry.media, Media::Video | Media::Audio)) {
                self.add(entry, clock, &before);
            }
        }
        for pid in [Pid::PAT, Pid::CAT].into_iter().chain(self.systems.iter().map(|system| system.pmt_pid)) {
            if let Some(place) = self.index.get_mut(usize::from(pid.value())) {
                *place = IS_SYSTEM;
            }
        }
    }

    fn clock(&mut self, pid: Pid, before: &Self) -> usize {
        if let Some(known) = self.clocks.iter().position(|clock| clock.pid == pid) {
            return known;
        }
        let known = before.clocks.iter().find(|clock| clock.pid == pid).cloned();
        self.clocks.push(known.unwrap_or_else(|| Clock::new(pid)));
        self.clocks.len() - 1
    }

    fn add(&mut self, entry: &mpegts::Stream, clock: Option<usize>, before: &Self) {
        let Some(place) = self.index.get_mut(usize::from(entry.pid.value())).filter(|place| **place == 0) else {
            return;
        };
        let Some(clock) = clock.filter(|_| self.streams.len() < STREAMS_MAX) else {
            self.left_out += 1;
            return;
        };
        let clock_pid = self.clocks.get(clock).map(|clock| clock.pid);
        let is_same = |known: &&Stream| {
            let known_clock = before.clocks.get(known.clock).map(|clock| clock.pid);
            known.pid == entry.pid && Some(known.codec) == entry.codec && known_clock == clock_pid
        };
        let mut stream = before.streams.iter().find(is_same).cloned().unwrap_or_else(|| Stream::new(entry, clock));
        stream.clock = clock;
        self.streams.push(stream);
        *place = self.streams.len() as u16;
    }

    #[cold]
    fn handle_system(&mut self, now: Time, (pid, position): (Pid, u64), bytes: usize, indicators: &mut Indicators) {
        let mut found = Findings::NONE;
        let is_of_all = matches!(pid, Pid::PAT | Pid::CAT);
        for system in self.systems.iter_mut().filter(|system| is_of_all || system.pmt_pid == pid) {
            let Some(clock) = self.clocks.get(system.clock).filter(|clock| clock.pace == Pace::Constant) else {
                continue;
            };
            let Some(moment) = clock.moment(position) else { continue };
            if std::mem::replace(&mut system.era, clock.era) != clock.era {
                system.tanks = None;
            }
            found |= system.fill(moment, bytes);
        }
        if found != Findings::NONE {
            self.tell(now, pid, found, indicators);
        }
    }

    #[cold]
    fn tell(&mut self, now: Time, pid: Pid, found: Findings, indicators: &mut Indicators) {
        for ((finding, indicator), told) in INDICATORS.into_iter().zip(&mut self.told) {
            let is_due = told.is_none_or(|told| now.since(told) >= super::REVIEW_INTERVAL);
            if found.0 & finding.0 != 0 && is_due {
                *told = Some(now);
                indicators.count(now, indicator, Some(pid), 1);
            }
        }
    }
}

impl System {
    fn new(pmt_pid: Pid, clock: usize, before: &Buffers) -> Self {
        let known = before.systems.iter().find(|known| known.pmt_pid == pmt_pid && known.clock == clock).cloned();
        known.unwrap_or(Self { pmt_pid, clock, era: 0, tanks: None })
    }

    fn fill(&mut self, moment: Moment, bytes: usize) -> Findings {
        let (transport, main) = self.tanks.get_or_insert_with(|| {
            let leak = Bitrate::from_bps(SYSTEM_TRANSPORT_BPS);
            let transport = Tank::new(DataSize::from_bytes(TRANSPORT_BYTES), leak, moment.at);
            // What is still in the transport buffer is not here yet.
            let size = DataSize::from_bytes(SYSTEM_BYTES + TRANSPORT_BYTES);
            (transport, Tank::new(size, system_leak(Bitrate::ZERO), moment.at))
        });
        let mut found = Findings::NONE;
        let is_over = transport.fill(moment, mpegts::TS_PACKET_BYTES);
        let is_main_over = main.fill(moment, bytes) || main.bytes() > SYSTEM_BYTES + transport.bytes();
        if is_over || is_main_over {
            found |= Findings::BUFFER;
        }
        if transport.is_never_empty() {
            found |= Findings::NEVER_EMPTY;
        }
        found
    }
}

/// 13818-1 2.4.2.4: R_b,sys, the higher one of 80 kb/s and a 500th of the rate of all.
fn system_leak(rate: Bitrate) -> Bitrate {
    Bitrate::from_bps((rate.as_bps() / 500).max(80_000))
}

const INDICATORS: [(Findings, Indicator); 3] = [
    (Findings::BUFFER, Indicator::BufferError),
    (Findings::NEVER_EMPTY, Indicator::EmptyBufferError),
    (Findings::DELAY, Indicator::DataDelayError),
];
/// 13818-1 2.4.2.4: TBS and TBS_sys.
const TRANSPORT_BYTES: u64 = 512;
/// 13818-1 2.4.2.4: BS_sys and R_x,sys.
const SYSTEM_BYTES: u64 = 1_536;
const SYSTEM_TRANSPORT_BPS: u64 = 1_000_000;
/// Judgement: a full multiplex has half as many, and a flood of PATs costs less than 1 us for each.
const PROGRAMS_MAX: usize = 64;
/// Judgement: two of each program.
const STREAMS_MAX: usize = 128;
const PIDS: usize = 8_192;
const IS_SYSTEM: u16 = u16::MAX;
