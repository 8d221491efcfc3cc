//! What a transport stream is like, and what is wrong with it: ETSI TR 101 290, RFC 4445, arrival times.
//!
//! ```text
//!  packets, arrival ──► Scanner ──► sections, PCR, PES ──► Judge ──► counters, states, events
//!            │                                               ▲
//!            ├──► time between packets, MDI                  │ every 100 ms: what is missing?
//!            └──────────────────────────────────── reviews ──┘
//! ```
//!
//! [`Analyser`] is fed with what passes by and changes nothing. The text of TR 101 290 is what makers of equipment publish of
//! it; where it leaves a choice, the documentation of [`Indicator`] says which one was made.

mod buffers;
mod captions;
#[cfg(any(test, fuzzing))]
mod check;
mod cues;
mod delivery;
mod indicator;
mod judge;
mod subtables;
#[cfg(test)]
mod tests;

use std::time::Duration;

use super::{Observer, PcrReading, PesHeader, Pid, PidStats, Program, Scanner, ScannerStats, Seen, TS_PACKET_BYTES};
use crate::proto::mpegts::scte35::{SpliceError, SpliceInfo};
use crate::proto::mpegts::section::{LongSection, SectionError};
use crate::units::{Bitrate, Histogram, Time};

#[cfg(any(test, fuzzing))]
pub use check::check_any_stream;
pub use cues::{Cue, CueKind, CueStats, Direction};
pub use delivery::Mdi;
pub use indicator::{CLEAR_AFTER, Event, Indicator, IndicatorSnapshot, State};

use captions::Captions;
use cues::Cues;
use delivery::{MdiMeter, Timing};
use judge::{Judge, REVIEW_INTERVAL};

/// Analyses one stream. Without sockets, threads or a clock; memory as [`Scanner`], and some 20 KiB more, or up to 250 KiB where
/// a stream has thousands of tables of others.
#[derive(Clone, Debug)]
pub struct Analyser {
    scanner: Scanner,
    judge: Judge,
    mdi: MdiMeter,
    timing: Timing,
    accuracy: Extremes,
    cues: Cues,
    captions: Captions,
    started_at: Time,
    first_at: Time,
    last_at: Option<Time>,
    is_silent: bool,
    review_at: Time,
    window_at: Time,
    errors_seen: u64,
    /// As of when errors were counted last.
    counted: ScannerStats,
    expected: Option<u64>,
    clock: Option<Pid>,
    /// Datagrams since the last one with a TS packet.
    without: u32,
}

/// Everything about a stream at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// From the first packet to the last.
    pub span: Duration,
    /// Whether TS packets are found now.
    pub is_locked: bool,
    /// Distance of their sync bytes, 188, 192 or 204.
    pub stride: Option<usize>,
    /// Counters of the whole stream.
    pub stats: ScannerStats,
    /// TS packets over the last second, by arrival.
    pub rate: Bitrate,
    /// Null packets among them.
    pub null_rate: Bitrate,
    /// By PCR, over the last PCRs.
    pub pcr_rate: Option<Bitrate>,
    /// Whether that is constant; `None` while it is not known.
    pub is_constant: Option<bool>,
    /// Greatest error of PCR over the last second, where it can be told.
    pub pcr_accuracy: Option<Duration>,
    /// In the order of [`Indicator::ALL`].
    pub indicators: [IndicatorSnapshot; Indicator::ALL.len()],
    /// Of the last whole second.
    pub mdi: Option<Mdi>,
    /// Time between packets of the bus.
    pub inter_arrival: Histogram,
    /// How much later PCRs came than the quickest.
    pub delay_variation: Histogram,
    /// Each PID, by number.
    pub pids: Vec<PidSnapshot>,
    /// What the tables say.
    pub programs: Vec<Program>,
    /// `transport_stream_id`.
    pub stream_id: Option<u16>,
    /// Of splice information (SCTE 35).
    pub cues: CueStats,
    /// The last cue that was new.
    pub last_cue: Option<Cue>,
    /// Sections of tables of other networks and streams and of EIT that there was no room to watch.
    pub unwatched_sections: u64,
    /// Video and audio streams that do not tell what buffers a decoder needs, or not yet: they are not among 3.3 and 3.9.
    pub unmodelled_streams: u64,
}

/// One PID at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PidSnapshot {
    /// Which.
    pub pid: Pid,
    /// TS packets.
    pub packets: u64,
    /// Over the last second.
    pub rate: Bitrate,
    /// Breaks of its continuity counter.
    pub continuity_errors: u64,
    /// Encrypted packets.
    pub scrambled: u64,
    /// PCRs.
    pub pcrs: u64,
    /// Whether this video stream carries CEA-608 or CEA-708 captions; `None` for another, or where it is not known.
    pub has_captions: Option<bool>,
}

impl Snapshot {
    /// One indicator.
    #[must_use]
    pub const fn indicator(&self, indicator: Indicator) -> &IndicatorSnapshot {
        &self.indicators[indicator as usize]
    }

    /// The gravest priority with an error at this moment; `None` if all is well, as far as it can be told.
    #[must_use]
    pub fn worst_priority(&self) -> Option<u8> {
        let bad = Indicator::ALL.iter().filter(|indicator| self.indicator(**indicator).state == State::Error);
        bad.map(|indicator| indicator.priority()).min()
    }
}

impl Analyser {
    /// An analysis that begins at `now`.
    #[must_use]
    pub fn new(now: Time) -> Self {
        Self {
            scanner: Scanner::default(),
            judge: Judge::new(now),
            mdi: MdiMeter::default(),
            timing: Timing::default(),
            accuracy: Extremes::default(),
            cues: Cues::default(),
            captions: Captions::default(),
            started_at: now,
            first_at: now,
            last_at: None,
            is_silent: false,
            review_at: now + REVIEW_INTERVAL,
            window_at: now,
            errors_seen: 0,
            counted: ScannerStats::default(),
            expected: None,
            clock: None,
            without: 0,
        }
    }

    /// The payload of a packet that arrived at `now`, with its sequence number where there is one. Times must not run
    /// backwards; one that does counts as the last one.
    pub fn handle_packet(&mut self, now: Time, payload: &[u8], sequence: Option<u64>) {
        let now = self.last_at.map_or(now, |last_at| last_at.max(now));
        if self.is_silent || self.last_at.is_none() {
            self.is_silent = false;
            self.judge.begin_anew(now);
            if self.last_at.is_none() {
                self.first_at = now;
                self.scanner.close_window(now);
                self.window_at = now + WINDOW;
            }
        } else if now >= self.review_at {
            self.handle_timeout(now);
        }
        self.last_at = Some(now);
        self.timing.handle_packet(now);
        self.count_lost(payload, sequence);
        if self.is_hopeless() {
            return;
        }
        let before = self.scanner.packets();
        self.judge.position = before * TS_PACKET_BYTES as u64;
        let mut eyes = Eyes {
            judge: &mut self.judge,
            timing: &mut self.timing,
            accuracy: &mut self.accuracy,
            cues: &mut self.cues,
            captions: &mut self.captions,
            clock: &mut self.clock,
        };
        self.scanner.push(now, payload, &mut eyes);
        let packets = self.scanner.packets() - before;
        self.without = if packets > 0 { 0 } else { self.without.saturating_add(1) };
        let scanner = &self.scanner;
        self.mdi.handle_packet(now, packets * TS_PACKET_BYTES as u64, || scanner.pcr_rate());
        if self.scanner.errors() != self.errors_seen {
            self.count_errors(now);
        }
    }

    /// The next packet's sequence number has nothing to do with those before.
    pub const fn restart_sequence(&mut self) {
        self.expected = None;
    }

    /// Looks for what is missing. Calling it early is harmless.
    pub fn handle_timeout(&mut self, now: Time) {
        if now < self.review_at {
            return;
        }
        self.review_at = now + REVIEW_INTERVAL;
        let silence = now.since(self.last_at.unwrap_or(self.started_at));
        self.is_silent = silence >= SILENT_AFTER;
        let why = if self.last_at.is_none() {
            Some("nothing came yet")
        } else if self.is_silent {
            Some("nothing comes")
        } else if !self.scanner.is_locked() {
            self.judge.begin_anew(now);
            self.without_sync(now);
            Some("no TS packets are found")
        } else {
            self.judge.review(now, &self.scanner);
            self.captions.review(now, &self.scanner);
            None
        };
        self.judge.close_review(now, &self.scanner, why);
        if now >= self.window_at {
            self.window_at = now + WINDOW;
            self.scanner.close_window(now);
            self.accuracy.close();
        }
    }

    /// When [`Analyser::handle_timeout`] wants to be called; `None` while nothing comes.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        (self.last_at.is_some() && !self.is_silent).then_some(self.review_at)
    }

    /// The oldest change of an indicator not fetched yet. Of more than 40 waiting ones the newest are dropped and counted.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.judge.poll_event()
    }

    /// The oldest cue (SCTE 35) not fetched yet, each once. Of more than 40 waiting ones the newest are dropped and counted.
    pub fn poll_cue(&mut self) -> Option<Cue> {
        self.cues.poll()
    }

    /// Events that nobody fetched in time.
    #[must_use]
    pub const fn events_dropped(&self) -> u64 {
        self.judge.indicators.events_dropped()
    }

    /// Errors of priority 1 since the start: what failover goes by.
    #[must_use]
    pub const fn priority_1_errors(&self) -> u64 {
        self.judge.indicators.priority_1_errors()
    }

    /// What is known of the stream's packets and tables.
    #[must_use]
    pub const fn scanner(&self) -> &Scanner {
        &self.scanner
    }

    /// Everything at this moment; costs a copy of it.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let scanner = &self.scanner;
        let mut pids: Vec<PidSnapshot> = scanner.pids().iter().map(|pid| self.pid_snapshot(pid)).collect();
        pids.sort_unstable_by_key(|pid| pid.pid);
        Snapshot {
            span: self.last_at.map_or(Duration::ZERO, |last_at| last_at.since(self.first_at)),
            is_locked: scanner.is_locked() && !self.is_silent,
            stride: scanner.stride(),
            stats: scanner.stats(),
            rate: scanner.rate(),
            null_rate: scanner.null_rate(),
            pcr_rate: scanner.pcr_rate(),
            is_constant: scanner.clock().and_then(|clock| clock.pcr_meter()?.is_constant()),
            pcr_accuracy: self.accuracy.last.map(Duration::from_nanos),
            indicators: self.judge.indicators.snapshot(),
            mdi: self.mdi.last(),
            inter_arrival: self.timing.inter_arrival.clone(),
            delay_variation: self.timing.delay_variation.clone(),
            pids,
            programs: scanner.programs().list().to_vec(),
            stream_id: scanner.programs().stream_id(),
            cues: self.cues.stats(),
            last_cue: self.cues.last(),
            unwatched_sections: self.judge.unwatched(),
            unmodelled_streams: self.judge.unmodelled(),
        }
    }

    fn pid_snapshot(&self, pid: &PidStats) -> PidSnapshot {
        PidSnapshot {
            pid: pid.pid,
            packets: pid.packets,
            rate: pid.rate,
            continuity_errors: pid.continuity_errors,
            scrambled: pid.scrambled,
            pcrs: pid.pcrs,
            has_captions: self.captions.are_present(self.last_at.unwrap_or(self.started_at), pid.pid),
        }
    }

    /// Packets of the bus that are missing by their numbers; where there are none, continuity counters tell.
    fn count_lost(&mut self, payload: &[u8], sequence: Option<u64>) {
        let Some(sequence) = sequence else { return };
        let missing = self.expected.map_or(0, |expected| sequence.saturating_sub(expected));
        if missing > 0 && missing < SEQUENCE_JUMP {
            self.mdi.lose(missing * (payload.len() / TS_PACKET_BYTES) as u64);
            self.scanner.disturb();
        }
        self.expected = Some(sequence + 1);
    }

    /// A payload that is no transport stream is looked at now and then only.
    const fn is_hopeless(&mut self) -> bool {
        if self.without < HOPELESS_AFTER {
            return false;
        }
        self.without = self.without.saturating_add(1);
        if self.without >= HOPELESS_AFTER + HOPELESS_PAUSE {
            self.without = HOPELESS_AFTER - LOOKS;
        }
        true
    }

    #[cold]
    fn count_errors(&mut self, now: Time) {
        self.errors_seen = self.scanner.errors();
        let (stats, before) = (self.scanner.stats(), std::mem::replace(&mut self.counted, self.scanner.stats()));
        for (indicator, new, pid) in [
            (Indicator::TsSyncLoss, stats.sync.sync_losses - before.sync.sync_losses, None),
            (Indicator::SyncByteError, stats.sync.sync_byte_errors - before.sync.sync_byte_errors, None),
            (
                Indicator::ContinuityCountError,
                stats.continuity_errors - before.continuity_errors,
                stats.continuity_error_pid,
            ),
            (Indicator::TransportError, stats.transport_errors - before.transport_errors, None),
        ] {
            if new > 0 {
                self.judge.indicators.count(now, indicator, pid, new);
            }
        }
        if self.expected.is_none() {
            self.mdi.lose(stats.lost_min - before.lost_min);
        }
    }

    /// Bytes come, and no packets are in them. Where there never were any the payload is another, and nothing is wrong.
    fn without_sync(&mut self, now: Time) {
        let indicators = &mut self.judge.indicators;
        if indicators.of(Indicator::TsSyncLoss).errors > 0 {
            indicators.touch(now, Indicator::TsSyncLoss, State::Error);
        }
    }
}

/// What the scanner shows goes to those whom it concerns.
struct Eyes<'a> {
    judge: &'a mut Judge,
    timing: &'a mut Timing,
    accuracy: &'a mut Extremes,
    cues: &'a mut Cues,
    captions: &'a mut Captions,
    clock: &'a mut Option<Pid>,
}

impl Observer for Eyes<'_> {
    #[inline]
    fn handle_packet(&mut self, now: Time, packet: &Seen<'_>) {
        self.judge.handle_packet(now, packet);
        self.captions.handle_packet(now, packet);
    }

    fn handle_empty(&mut self, now: Time, pid: Pid, position: u64) {
        self.judge.handle_empty(now, pid, position);
    }

    fn handle_splice(&mut self, now: Time, pid: Pid, splice: Result<SpliceInfo<'_>, SpliceError>) {
        self.cues.handle_section(now, pid, splice);
    }

    fn handle_section(&mut self, now: Time, pid: Pid, table_id: u8, section: Result<LongSection<'_>, SectionError>) {
        self.judge.handle_section(now, (pid, table_id), section.as_ref());
    }

    fn handle_pcr(&mut self, now: Time, pid: Pid, reading: &PcrReading) {
        self.judge.handle_pcr(now, pid, reading);
        if let Some(error) = reading.accuracy_ns {
            self.accuracy.record(error.unsigned_abs());
        }
        // One clock only, as each has its own beginning.
        if *self.clock.get_or_insert(pid) == pid {
            self.timing.handle_pcr(now, reading);
        }
    }

    fn handle_pes(&mut self, now: Time, pid: &PidStats, header: &PesHeader) {
        self.judge.handle_pes(now, pid, header);
    }
}

/// The greatest of a window, and of the last whole one.
#[derive(Clone, Copy, Debug, Default)]
struct Extremes {
    now: Option<u64>,
    last: Option<u64>,
}

impl Extremes {
    fn record(&mut self, value: u64) {
        self.now = self.now.max(Some(value));
    }

    const fn close(&mut self) {
        self.last = self.now.take();
    }
}

/// Rates are taken over so long.
const WINDOW: Duration = Duration::from_secs(1);
/// Without a packet for so long nothing can be told. Judgement.
const SILENT_AFTER: Duration = Duration::from_secs(1);
/// Numbers that jump by more are others, not losses. Judgement.
const SEQUENCE_JUMP: u64 = 32_768;
/// Datagrams without a TS packet until the payload counts as none. Judgement: a second or so.
const HOPELESS_AFTER: u32 = 1_024;
/// Then so many are left out, and so many looked at. Judgement: 6 % of the cost.
const HOPELESS_PAUSE: u32 = 1_024;
const LOOKS: u32 = 64;
