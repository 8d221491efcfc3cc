//! `Judge`: what sections, clocks and silences mean for the indicators.

use std::time::Duration;

use super::buffers::Buffers;
use super::indicator::{Event, Indicator, IndicatorSnapshot, Indicators, State};
use super::subtables::SubTables;
use crate::proto::mpegts::pid_set::PidSet;
use crate::proto::mpegts::section::{LongSection, SectionError};
use crate::proto::mpegts::{ACCURACY_NS, Media, PcrReading, PesHeader, Pid, PidStats, Scanner, Seen};
use crate::units::{Bitrate, DataSize, Time};

/// Watches over everything that has to come again in time.
#[derive(Clone, Debug)]
pub(super) struct Judge {
    pub(super) indicators: Indicators,
    /// Of the stream, in bytes, as far as it was handed in; a datagram's beginning.
    pub(super) position: u64,
    /// By PCR, as of the last review.
    pub(super) rate: Option<Bitrate>,
    pat: Watch,
    cat: Watch,
    nit: Watch,
    sdt: Watch,
    /// Of present events, and of following ones.
    eit: [Watch; 2],
    tdt: Watch,
    rst: Watch,
    sub_tables: SubTables,
    pub(super) buffers: Buffers,
    /// One for each program.
    pmts: Vec<PmtWatch>,
    /// One for each video and audio stream.
    streams: Vec<StreamWatch>,
    referenced: PidSet,
    unreferenced: PidSet,
    /// Clocks that have been found missing, and are counted already.
    missing_clocks: PidSet,
    tables_seen: u64,
    scrambled_seen: u64,
    scrambled_at: Option<Time>,
}

/// Something that has to come again within a limit.
#[derive(Clone, Copy, Debug, Default)]
struct Watch {
    /// When it came last, or when it was counted as missing last.
    last: Time,
    /// When it came last of all; `None` if it never did.
    seen: Option<Time>,
    /// Where it came last, in bytes; of tables only.
    position: u64,
    /// It has been counted as missing, and has not come since.
    is_missing: bool,
}

#[derive(Clone, Copy, Debug)]
struct PmtWatch {
    pid: Pid,
    program: u16,
    watch: Watch,
}

#[derive(Clone, Copy, Debug)]
struct StreamWatch {
    pid: Pid,
    packets: Watch,
    pts: Watch,
    /// TS packets and encrypted ones, as of the last review.
    counted: (u64, u64),
    /// Most of those that came last were encrypted.
    is_scrambled: bool,
}

impl Judge {
    pub(super) fn new(now: Time) -> Self {
        let watch = Watch { last: now, ..Watch::default() };
        Self {
            indicators: Indicators::default(),
            position: 0,
            rate: None,
            pat: watch,
            cat: watch,
            nit: watch,
            sdt: watch,
            eit: [watch; 2],
            tdt: watch,
            rst: watch,
            sub_tables: SubTables::default(),
            buffers: Buffers::default(),
            pmts: Vec::new(),
            streams: Vec::new(),
            referenced: PidSet::default(),
            unreferenced: PidSet::default(),
            missing_clocks: PidSet::default(),
            tables_seen: 0,
            scrambled_seen: 0,
            scrambled_at: None,
        }
    }

    /// Whatever was missing in a silence, or while there was no synchronisation, is not missing any more.
    pub(super) fn begin_anew(&mut self, now: Time) {
        let watches = [&mut self.pat, &mut self.cat, &mut self.nit, &mut self.sdt, &mut self.tdt, &mut self.rst];
        let watches = watches.into_iter().chain(&mut self.eit);
        let streams = self.streams.iter_mut().flat_map(|stream| [&mut stream.packets, &mut stream.pts]);
        let pmts = self.pmts.iter_mut().map(|pmt| &mut pmt.watch);
        watches.chain(streams).chain(pmts).for_each(|watch| watch.excuse(now));
        self.sub_tables.begin_anew(now);
        self.buffers.begin_anew();
    }

    #[inline]
    pub(super) fn handle_packet(&mut self, now: Time, packet: &Seen<'_>) {
        self.buffers.handle_packet(now, packet, &mut self.indicators);
    }

    pub(super) fn handle_empty(&mut self, now: Time, pid: Pid, position: u64) {
        self.buffers.handle_empty(now, pid, position, &mut self.indicators);
    }

    pub(super) fn handle_section(
        &mut self,
        now: Time,
        (pid, table_id): (Pid, u8),
        section: Result<&LongSection<'_>, &SectionError>,
    ) {
        if section == Err(&SectionError::Crc) {
            self.indicators.count(now, Indicator::CrcError, Some(pid), 1);
            return;
        }
        if let (Pid::NIT | Pid::SDT | Pid::EIT, Ok(section)) = (pid, section) {
            self.sub_tables.handle_section(now, section);
        }
        match (pid, table_id) {
            (Pid::PAT, 0x00) => self.pat.come(now, PAT_MAX, &mut self.indicators, (Indicator::PatError, pid)),
            (Pid::PAT, _) => self.indicators.count(now, Indicator::PatError, Some(pid), 1),
            (Pid::CAT, 0x01) => self.cat.seen = Some(now),
            (Pid::CAT, _) => self.indicators.count(now, Indicator::CatError, Some(pid), 1),
            (_, 0x72) => {} // stuffing table, wherever (EN 300 468 5.2.8)
            (Pid::NIT, 0x40) => {
                self.check_spacing(now, pid, self.nit, Indicator::SiRepetitionError);
                self.nit.position = self.position;
                self.nit.come(now, NIT_MAX, &mut self.indicators, (Indicator::NitError, pid));
            }
            (Pid::NIT, 0x41) => {}
            (Pid::NIT, _) => self.indicators.count(now, Indicator::NitError, Some(pid), 1),
            (Pid::SDT, 0x42) => {
                self.check_spacing(now, pid, self.sdt, Indicator::SiRepetitionError);
                self.sdt.position = self.position;
                self.sdt.come(now, SDT_MAX, &mut self.indicators, (Indicator::SdtError, pid));
            }
            (Pid::SDT, 0x46 | 0x4a) => {}
            (Pid::SDT, _) => self.indicators.count(now, Indicator::SdtError, Some(pid), 1),
            (Pid::EIT, 0x4e) => {
                let half = section.ok().and_then(|section| self.eit.get_mut(usize::from(section.number)));
                if let Some(watch) = half {
                    watch.come(now, EIT_MAX, &mut self.indicators, (Indicator::EitError, pid));
                }
            }
            (Pid::EIT, 0x4f..=0x6f) => {}
            (Pid::EIT, _) => self.indicators.count(now, Indicator::EitError, Some(pid), 1),
            (Pid::RST, 0x71) => {
                self.check_spacing(now, pid, self.rst, Indicator::RstError);
                self.rst.position = self.position;
                self.rst.seen = Some(now);
            }
            (Pid::RST, _) => self.indicators.count(now, Indicator::RstError, Some(pid), 1),
            (Pid::TDT, 0x70) => {
                self.check_spacing(now, pid, self.tdt, Indicator::SiRepetitionError);
                self.tdt.position = self.position;
                self.tdt.come(now, TDT_MAX, &mut self.indicators, (Indicator::TdtError, pid));
            }
            (Pid::TDT, 0x73) => {}
            (Pid::TDT, _) => self.indicators.count(now, Indicator::TdtError, Some(pid), 1),
            (_, 0x02) => {
                let Ok(section) = section else { return };
                let program = self.pmts.iter_mut().find(|pmt| (pmt.pid, pmt.program) == (pid, section.extension));
                let Some(pmt) = program else { return };
                pmt.watch.come(now, PMT_MAX, &mut self.indicators, (Indicator::PmtError, pid));
            }
            _ => {}
        }
    }

    /// Sections of one table are not to come one upon the other: neither by arrival nor, as a network may bring them
    /// together, by the bytes between them.
    fn check_spacing(&mut self, now: Time, pid: Pid, before: Watch, indicator: Indicator) {
        let Some((seen, rate)) = before.seen.zip(self.rate) else { return };
        let between = DataSize::from_bytes(self.position.saturating_sub(before.position));
        if now.since(seen) < SPACING_MIN && rate.time_for(between) < SPACING_MIN {
            self.indicators.count(now, indicator, Some(pid), 1);
        }
    }

    pub(super) fn handle_pcr(&mut self, now: Time, pid: Pid, reading: &PcrReading) {
        self.buffers.handle_pcr(pid, reading);
        let was_missing = self.missing_clocks.remove(pid);
        match reading.interval {
            Some(interval) if interval > PCR_INTERVAL_MAX && !was_missing => {
                self.indicators.count(now, Indicator::PcrRepetitionError, Some(pid), 1);
            }
            Some(interval) if interval > PCR_INTERVAL_GOOD && interval <= PCR_INTERVAL_MAX => {
                self.indicators.warn(now, Indicator::PcrRepetitionError, Some(pid));
            }
            _ => {}
        }
        if reading.is_discontinuity_error {
            self.indicators.count(now, Indicator::PcrDiscontinuityIndicatorError, Some(pid), 1);
        }
        if reading.accuracy_ns.is_some_and(|error| error.abs() > ACCURACY_NS) {
            self.indicators.count(now, Indicator::PcrAccuracyError, Some(pid), 1);
        }
    }

    pub(super) fn handle_pes(&mut self, now: Time, pid: &PidStats, header: &PesHeader) {
        self.buffers.handle_pes(header);
        let late = pid.pts_at.filter(|before| header.pts.is_some() && now.since(*before) > PTS_MAX);
        let Some(before) = late else { return };
        let stream = self.streams.iter().find(|stream| stream.pid == pid.pid);
        // Unless the last review has found it.
        if stream.is_some_and(|stream| stream.pts.last <= before) {
            self.indicators.count(now, Indicator::PtsError, Some(pid.pid), 1);
        }
    }

    /// Looks for what has not come in time. Not while nothing comes at all.
    pub(super) fn review(&mut self, now: Time, scanner: &Scanner) {
        let changes = scanner.programs().stats().changes;
        if changes != self.tables_seen {
            self.tables_seen = changes;
            self.assign(now, scanner);
            self.buffers.assign(scanner);
        }
        self.buffers.review(scanner);
        self.rate = scanner.pcr_rate();
        self.review_tables(now, scanner);
        self.review_streams(now, scanner);
        self.review_unreferenced(now, scanner);
    }

    fn review_tables(&mut self, now: Time, scanner: &Scanner) {
        let indicators = &mut self.indicators;
        self.pat.check(now, PAT_MAX, indicators, (Indicator::PatError, Pid::PAT));
        for pmt in &mut self.pmts {
            pmt.watch.check(now, PMT_MAX, indicators, (Indicator::PmtError, pmt.pid));
        }
        let [present, following] = &mut self.eit;
        for (watch, limit, indicator, pid) in [
            (&mut self.nit, NIT_MAX, Indicator::NitError, Pid::NIT),
            (&mut self.sdt, SDT_MAX, Indicator::SdtError, Pid::SDT),
            (present, EIT_MAX, Indicator::EitError, Pid::EIT),
            (following, EIT_MAX, Indicator::EitError, Pid::EIT),
            (&mut self.tdt, TDT_MAX, Indicator::TdtError, Pid::TDT),
        ] {
            if watch.seen.is_some() {
                watch.check(now, limit, indicators, (indicator, pid));
            }
        }
        let coming = self.eit.map(|watch| watch.seen.is_some() && !watch.is_missing);
        self.sub_tables.review(now, coming, indicators);
        let scrambled = scanner.stats().scrambled;
        if scrambled != self.scrambled_seen {
            self.scrambled_seen = scrambled;
            let since = *self.scrambled_at.get_or_insert(now);
            let latest = self.cat.seen.map_or(since, |seen| seen.max(since));
            if now.since(latest) > CAT_MAX {
                indicators.count(now, Indicator::CatError, Some(Pid::CAT), 1);
                self.scrambled_at = Some(now);
            }
        }
    }

    fn review_streams(&mut self, now: Time, scanner: &Scanner) {
        for stream in &mut self.streams {
            let state = scanner.pid(stream.pid);
            stream.packets.follow(state.map(|state| state.last_at));
            stream.packets.check(now, PID_MAX, &mut self.indicators, (Indicator::PidError, stream.pid));
            stream.pts.follow(state.and_then(|state| state.pts_at));
            if state.is_some_and(|state| stream.is_scrambled(state)) {
                stream.pts.excuse(now);
            } else if stream.pts.seen.is_some() {
                stream.pts.check(now, PTS_MAX, &mut self.indicators, (Indicator::PtsError, stream.pid));
            }
        }
        for program in scanner.programs().list() {
            let pcr_pid = program.pmt.as_ref().and_then(|pmt| pmt.pcr_pid);
            let clock = pcr_pid.and_then(|pid| scanner.pid(pid));
            let last = clock.and_then(|clock| clock.pcr_meter()?.last_at());
            let Some((clock, last)) = clock.zip(last) else { continue };
            if now.since(last) > PCR_MISSING {
                if self.missing_clocks.insert(clock.pid) {
                    self.indicators.count(now, Indicator::PcrRepetitionError, Some(clock.pid), 1);
                }
                self.indicators.touch(now, Indicator::PcrRepetitionError, State::Error);
            }
        }
    }

    fn review_unreferenced(&mut self, now: Time, scanner: &Scanner) {
        if !is_complete(scanner) {
            return;
        }
        for pid in scanner.pids() {
            let is_own = pid.pid.value() < PIDS_RESERVED || self.referenced.has(pid.pid);
            if is_own {
                self.unreferenced.remove(pid.pid);
                continue;
            }
            if now.since(pid.first_at) > UNREFERENCED_MAX && now.since(pid.last_at) < UNREFERENCED_MAX {
                if self.unreferenced.insert(pid.pid) {
                    self.indicators.count(now, Indicator::UnreferencedPid, Some(pid.pid), 1);
                }
                self.indicators.touch(now, Indicator::UnreferencedPid, State::Error);
            }
        }
    }

    /// Ends errors that are over. `silence` says why nothing can be told at all.
    pub(super) fn close_review(&mut self, now: Time, scanner: &Scanner, silence: Option<&'static str>) {
        let is_constant = scanner.clock().and_then(|clock| clock.pcr_meter()?.is_constant());
        let has_pat = scanner.programs().stream_id().is_some();
        let (nit, sdt, tdt) = (self.nit.seen, self.sdt.seen, self.tdt.seen);
        let [eit, following] = self.eit.map(|watch| watch.seen);
        let (sub_tables, buffers) = (&self.sub_tables, &self.buffers);
        let other = |table_id, why| if sub_tables.has(table_id) { None } else { Some(why) };
        let has_clock = scanner.clock().is_some();
        let has_pts = self.streams.iter().any(|stream| stream.pts.seen.is_some());
        let absent = |seen: Option<Time>, why| if seen.is_none() { Some(why) } else { None };
        let is_bad = |indicator: Indicator, indicators: &[IndicatorSnapshot]| {
            indicators.get(indicator as usize).is_some_and(|slot| slot.state == State::Error)
        };
        let before = self.indicators.snapshot();
        self.indicators.review(now, |indicator| {
            if indicator == Indicator::TsSyncLoss && !scanner.is_locked() && is_bad(indicator, &before) {
                return None;
            }
            if silence.is_some() {
                return silence;
            }
            // A wrong table on its PID is an error even where the right one never was.
            if is_bad(indicator, &before) && !matches!(indicator, Indicator::PcrAccuracyError) {
                return None;
            }
            match indicator {
                Indicator::PmtError | Indicator::PidError if !has_pat => Some("no PAT"),
                Indicator::UnreferencedPid if !is_complete(scanner) => Some("not all tables came yet"),
                Indicator::PcrRepetitionError | Indicator::PcrDiscontinuityIndicatorError if !has_clock => {
                    Some("no PCR")
                }
                Indicator::PcrAccuracyError => match is_constant {
                    Some(true) => None,
                    Some(false) => Some("the rate is not constant"),
                    None => Some("too few PCRs yet"),
                },
                Indicator::PtsError if !has_pts => Some("no PTS in video or audio"),
                Indicator::NitError => absent(nit, "no NIT"),
                Indicator::SdtError => absent(sdt, "no SDT"),
                Indicator::EitError => absent(eit.or(following), "no EIT"),
                Indicator::NitOtherError => other(0x41, "no NIT of another network"),
                Indicator::SdtOtherError => other(0x46, "no SDT of another stream"),
                Indicator::EitOtherError => other(0x4f, "no EIT of another stream"),
                Indicator::EitPfError => other(0x4e, "no EIT").and_then(|why| other(0x4f, why)),
                Indicator::TdtError => absent(tdt, "no TDT"),
                Indicator::BufferError | Indicator::EmptyBufferError | Indicator::DataDelayError => {
                    buffers.unknown(indicator)
                }
                Indicator::TsSyncLoss
                | Indicator::SyncByteError
                | Indicator::PatError
                | Indicator::ContinuityCountError
                | Indicator::PmtError
                | Indicator::PidError
                | Indicator::TransportError
                | Indicator::CrcError
                | Indicator::PcrRepetitionError
                | Indicator::PcrDiscontinuityIndicatorError
                | Indicator::PtsError
                | Indicator::CatError
                | Indicator::SiRepetitionError
                | Indicator::UnreferencedPid
                | Indicator::RstError => None,
            }
        });
    }

    /// Sections of tables that are not watched, as there was no room.
    pub(super) const fn unwatched(&self) -> u64 {
        self.sub_tables.unwatched()
    }

    /// Video and audio streams whose decoder is not known.
    pub(super) fn unmodelled(&self) -> u64 {
        self.buffers.unmodelled()
    }

    pub(super) fn poll_event(&mut self) -> Option<Event> {
        self.indicators.poll_event()
    }

    /// The tables have changed: other programs and streams are to be watched.
    fn assign(&mut self, now: Time, scanner: &Scanner) {
        let programs = scanner.programs();
        let begun = Watch { last: now, ..Watch::default() };
        let pmts = programs.list().iter().map(|program| {
            let key = (program.pmt_pid, program.number);
            let known = self.pmts.iter().find(|pmt| (pmt.pid, pmt.program) == key).copied();
            known.unwrap_or(PmtWatch { pid: key.0, program: key.1, watch: begun })
        });
        self.pmts = pmts.collect();
        self.referenced = PidSet::default();
        let mut timed = PidSet::default();
        let mut streams = Vec::new();
        for stream in programs.streams() {
            self.referenced.insert(stream.pid);
            stream.ecm_pid.map(|pid| self.referenced.insert(pid));
            if !matches!(stream.media, Media::Video | Media::Audio) || !timed.insert(stream.pid) {
                continue;
            }
            let known = self.streams.iter().find(|known| known.pid == stream.pid).copied();
            streams.push(known.unwrap_or_else(|| StreamWatch::new(stream.pid, begun)));
        }
        self.streams = streams;
        for program in programs.list() {
            self.referenced.insert(program.pmt_pid);
            let pmt = program.pmt.as_ref();
            let others = pmt.and_then(|pmt| pmt.pcr_pid).into_iter().chain(pmt.and_then(|pmt| pmt.ecm_pid));
            others.for_each(|pid| _ = self.referenced.insert(pid));
        }
        programs.emm_pids().iter().chain(&programs.nit_pid()).for_each(|pid| _ = self.referenced.insert(*pid));
    }
}

/// Whether PAT and all PMTs came, so that it is known which PIDs belong to something.
fn is_complete(scanner: &Scanner) -> bool {
    let programs = scanner.programs();
    programs.stream_id().is_some()
        && programs.list().iter().all(|program| program.pmt.is_some())
        && programs.stats().entries_skipped == 0
}

impl StreamWatch {
    const fn new(pid: Pid, begun: Watch) -> Self {
        Self { pid, packets: begun, pts: begun, counted: (0, 0), is_scrambled: false }
    }

    /// Whether its PTS cannot be seen: most packets since the last review were encrypted, or, as none came, those before.
    const fn is_scrambled(&mut self, state: &PidStats) -> bool {
        let before = std::mem::replace(&mut self.counted, (state.packets, state.scrambled));
        let (packets, scrambled) = (state.packets - before.0, state.scrambled - before.1);
        if packets > 0 {
            self.is_scrambled = 2 * scrambled > packets;
        }
        self.is_scrambled
    }
}

impl Watch {
    /// It came; too late, if no review has found that already.
    fn come(&mut self, now: Time, limit: Duration, indicators: &mut Indicators, whose: (Indicator, Pid)) {
        if self.seen.is_some() {
            self.check(now, limit, indicators, whose);
        }
        self.seen = Some(now);
        self.excuse(now);
    }

    /// It came at that time, if that is news.
    fn follow(&mut self, at: Option<Time>) {
        if at > self.seen {
            self.seen = at;
            self.last = at.map_or(self.last, |at| at.max(self.last));
            self.is_missing = false;
        }
    }

    /// It is not missing, whether it came or not: its time begins anew.
    const fn excuse(&mut self, now: Time) {
        self.last = now;
        self.is_missing = false;
    }

    /// Counts each limit that has passed without it; between them the error goes on.
    fn check(&mut self, now: Time, limit: Duration, indicators: &mut Indicators, (indicator, pid): (Indicator, Pid)) {
        if now.since(self.last) > limit {
            indicators.count(now, indicator, Some(pid), 1);
            self.last = now;
            self.is_missing = true;
        } else if self.is_missing {
            indicators.touch(now, indicator, State::Error);
        }
    }
}

/// How often it is looked for what is missing; what is missing is found so much later.
pub(super) const REVIEW_INTERVAL: Duration = Duration::from_millis(100);
/// TR 101 290 1.3a.
const PAT_MAX: Duration = Duration::from_millis(500);
/// TR 101 290 1.5a.
const PMT_MAX: Duration = Duration::from_millis(500);
/// TR 101 290 1.6 leaves it to the user; 5 s is usual.
const PID_MAX: Duration = Duration::from_secs(5);
/// TR 101 290 2.3a, and what it was before version 1.3.1.
const PCR_INTERVAL_MAX: Duration = Duration::from_millis(100);
const PCR_INTERVAL_GOOD: Duration = Duration::from_millis(40);
/// Without PCR for so long it is counted before the next one comes. Judgement: no network holds packets back for so long.
const PCR_MISSING: Duration = Duration::from_millis(500);
/// TR 101 290 2.5.
const PTS_MAX: Duration = Duration::from_millis(700);
/// As a PAT: 13818-1 has no limit for it.
const CAT_MAX: Duration = Duration::from_millis(500);
/// TR 101 290 3.1a, 3.5a, 3.6a, 3.8: 10, 2, 2 and 30 s. A table that comes just as often as it must is now and then a little later
/// than that, by where there is room for it and by what the network does: of that there may be 100 ms. Judgement: four times what
/// sections of a table keep apart (EN 300 468 5.1.4), and more jitter than a buffer of a receiver lets through.
const NIT_MAX: Duration = Duration::from_millis(10_100);
const SDT_MAX: Duration = Duration::from_millis(2_100);
pub(super) const EIT_MAX: Duration = Duration::from_millis(2_100);
const TDT_MAX: Duration = Duration::from_millis(30_100);
/// TR 101 290 3.2, 3.7.
const SPACING_MIN: Duration = Duration::from_millis(25);
/// TR 101 290 3.4a.
const UNREFERENCED_MAX: Duration = Duration::from_millis(500);
/// PIDs below are those of tables (EN 300 468 table 1).
const PIDS_RESERVED: u16 = 0x20;
