//! `Cues`: what splice information (SCTE 35) says, each cue told once however often it is repeated.

use std::fmt;
use std::time::Duration;

use arrayvec::ArrayVec;

use crate::proto::mpegts::Pid;
use crate::proto::mpegts::scte35::{
    Command, Insert, Segmentation, SpliceError, SpliceInfo, is_break_start, to_span, type_name,
};
use crate::units::{Ticks90k, Time};

/// A cue: leave the network, return to it, or a segment begins or ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cue {
    /// Where it came.
    pub pid: Pid,
    /// `splice_event_id` or `segmentation_event_id`.
    pub event_id: u32,
    /// What it is.
    pub kind: CueKind,
    /// The event does not take place.
    pub is_cancelled: bool,
    /// When, on the clock of the programme; `None` for at once.
    pub pts: Option<Ticks90k>,
    /// How long it is planned to be.
    pub duration: Option<Duration>,
}

/// What a cue is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CueKind {
    /// `splice_insert`: out of the network, or back into it; a cancelled one does not say which.
    Insert {
        /// Out.
        is_out: bool,
    },
    /// A segmentation descriptor's type; a cancelled one has none.
    Segment(u8),
}

/// Where a cue leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Out of the programme, into a break.
    Out,
    /// Back.
    In,
    /// Neither.
    Neither,
}

impl Direction {
    /// As events name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::In => "in",
            Self::Neither => "none",
        }
    }
}

impl Cue {
    /// The command's name, or that of the type of segment.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self.kind {
            CueKind::Insert { .. } => "Splice Insert",
            CueKind::Segment(_) if self.is_cancelled => "Segmentation",
            CueKind::Segment(type_id) => match type_name(type_id) {
                Some(name) => name,
                None => "Reserved",
            },
        }
    }

    /// Where it leads, unless it is cancelled.
    #[must_use]
    pub const fn direction(&self) -> Direction {
        if self.is_cancelled {
            return Direction::Neither;
        }
        let is_out = match self.kind {
            CueKind::Insert { is_out } => Some(is_out),
            CueKind::Segment(type_id) => is_break_start(type_id),
        };
        match is_out {
            Some(true) => Direction::Out,
            Some(false) => Direction::In,
            None => Direction::Neither,
        }
    }
}

/// As people read it.
impl fmt::Display for Cue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self.direction() {
            _ if self.is_cancelled => f.write_str(", cancelled")?,
            Direction::Out => f.write_str(", a break begins")?,
            Direction::In => f.write_str(", a break ends")?,
            Direction::Neither => {}
        }
        match self.pts {
            Some(pts) => write!(f, ", at PTS {:.3} s", pts.0 as f64 / 90_000.0)?,
            None if self.is_cancelled => {}
            None => f.write_str(", at once")?,
        }
        if let Some(duration) = self.duration {
            write!(f, ", for {:.3} s", duration.as_secs_f64())?;
        }
        write!(f, ", event {:#010x} on PID {}", self.event_id, self.pid.value())
    }
}

/// Counters of splice information, in sections where nothing else is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CueStats {
    /// `splice_insert`.
    pub inserts: u64,
    /// `time_signal`.
    pub time_signals: u64,
    /// `splice_null`.
    pub nulls: u64,
    /// Other commands.
    pub others: u64,
    /// Encrypted ones.
    pub encrypted: u64,
    /// That could not be read, most of them for a wrong CRC.
    pub malformed: u64,
    /// Cues that had come before.
    pub repeated: u64,
    /// Cues that were not told because too many came at once.
    pub untold: u64,
}

impl CueStats {
    /// Sections of all kinds.
    #[must_use]
    pub const fn sections(&self) -> u64 {
        self.inserts + self.time_signals + self.nulls + self.others + self.encrypted + self.malformed
    }
}

/// Keeps what came of late, to know repetitions by.
#[derive(Clone, Debug, Default)]
pub(super) struct Cues {
    stats: CueStats,
    last: Option<Cue>,
    known: ArrayVec<(Cue, Time), KNOWN_MAX>,
    ready: ArrayVec<Cue, READY_MAX>,
    window_start: Time,
    window_cues: u32,
}

impl Cues {
    pub(super) fn handle_section(&mut self, now: Time, pid: Pid, section: Result<SpliceInfo<'_>, SpliceError>) {
        let Ok(info) = section else {
            self.stats.malformed += 1;
            return;
        };
        match info.command {
            Command::Null => self.stats.nulls += 1,
            Command::Encrypted => self.stats.encrypted += 1,
            Command::Insert(insert) => {
                self.stats.inserts += 1;
                self.handle_cue(now, insert_cue(pid, &insert));
            }
            Command::TimeSignal(pts) => {
                self.stats.time_signals += 1;
                // A section has room for hundreds of them.
                for segmentation in info.segmentations().take(SEGMENTATIONS_MAX) {
                    self.handle_cue(now, segment_cue(pid, pts, &segmentation));
                }
            }
            Command::Schedule | Command::BandwidthReservation | Command::Private | Command::Reserved(_) => {
                self.stats.others += 1;
            }
        }
    }

    pub(super) const fn stats(&self) -> CueStats {
        self.stats
    }

    pub(super) const fn last(&self) -> Option<Cue> {
        self.last
    }

    pub(super) fn poll(&mut self) -> Option<Cue> {
        self.ready.pop_at(0)
    }

    fn handle_cue(&mut self, now: Time, cue: Cue) {
        if let Some((_, seen)) = self.known.iter_mut().find(|(known, _)| *known == cue) {
            let before = std::mem::replace(seen, now);
            if now.since(before) < REPETITION_MAX {
                self.stats.repeated += 1;
                return;
            }
        } else {
            if self.known.is_full() {
                let oldest = (0..self.known.len()).min_by_key(|at| self.known.get(*at).map(|(_, seen)| *seen));
                oldest.map(|at| self.known.remove(at));
            }
            let _room = self.known.try_push((cue, now));
        }
        self.last = Some(cue);
        if now.since(self.window_start) >= Duration::from_secs(1) {
            self.window_start = now;
            self.window_cues = 0;
        }
        self.window_cues += 1;
        if self.window_cues > CUES_PER_SECOND_MAX || self.ready.try_push(cue).is_err() {
            self.stats.untold += 1;
        }
    }
}

fn insert_cue(pid: Pid, insert: &Insert) -> Cue {
    Cue {
        pid,
        event_id: insert.event_id,
        kind: CueKind::Insert { is_out: insert.is_out },
        is_cancelled: insert.is_cancelled,
        pts: insert.pts,
        duration: insert.duration.map(to_span),
    }
}

fn segment_cue(pid: Pid, pts: Option<Ticks90k>, segmentation: &Segmentation) -> Cue {
    Cue {
        pid,
        event_id: segmentation.event_id,
        kind: CueKind::Segment(segmentation.type_id),
        is_cancelled: segmentation.is_cancelled,
        pts,
        duration: segmentation.duration.map(to_span),
    }
}

/// Cues remembered. Judgement: a handful is under way at a time, each repeated for some seconds.
const KNOWN_MAX: usize = 32;
/// One that comes again after so long is another. Judgement: cues are repeated within their pre-roll, 4 to 8 s.
const REPETITION_MAX: Duration = Duration::from_secs(60);
/// Not fetched yet: two seconds' worth.
const READY_MAX: usize = 2 * CUES_PER_SECOND_MAX as usize;
/// Told within a second. Judgement: a programme has a few an hour, a multiplex a few at once.
const CUES_PER_SECOND_MAX: u32 = 20;
/// Read of one section. Judgement: a few segments begin and end at once.
const SEGMENTATIONS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cue_is_told_once_and_a_later_one_again() {
        let mut cues = Cues::default();
        let mut told = |n: u32, at_s: u64| {
            let before = cues.ready.len();
            cues.handle_cue(Time::from_ns(at_s * 1_000_000_000), cue(n));
            cues.ready.len() > before
        };
        assert_eq!([told(1, 10), told(1, 12), told(2, 13), told(1, 14), told(1, 75)], [true, false, true, false, true]);
        assert_eq!((cues.stats.repeated, cues.stats.untold), (2, 0));
    }

    #[test]
    fn a_flood_is_bounded_and_counted() {
        let mut cues = Cues::default();
        for n in 0..10_000 {
            cues.handle_cue(Time::from_ns(u64::from(n) * 1_000_000), cue(n));
        }
        assert_eq!(cues.ready.len(), READY_MAX);
        assert_eq!(cues.stats.untold, 10_000 - READY_MAX as u64);
        assert_eq!(cues.last(), Some(cue(9_999)));
    }

    #[test]
    fn breaks_have_a_direction_and_programmes_have_none() {
        let of = |kind, is_cancelled| Cue { kind, is_cancelled, ..cue(1) }.direction();
        assert_eq!(of(CueKind::Insert { is_out: true }, false), Direction::Out);
        assert_eq!(of(CueKind::Insert { is_out: false }, false), Direction::In);
        assert_eq!(of(CueKind::Insert { is_out: true }, true), Direction::Neither);
        assert_eq!(of(CueKind::Segment(0x34), false), Direction::Out);
        assert_eq!(of(CueKind::Segment(0x35), false), Direction::In);
        assert_eq!(of(CueKind::Segment(0x10), false), Direction::Neither);
        let (pts, duration) = (Some(Ticks90k(90_045)), Some(Duration::from_millis(1_500)));
        let text = Cue { pts, duration, ..cue(1) }.to_string();
        let expected =
            "Provider Advertisement Start, a break begins, at PTS 1.000 s, for 1.500 s, event 0x00000001 on PID 500";
        assert_eq!(text, expected);
        let cancelled = Cue { is_cancelled: true, ..cue(1) }.to_string();
        assert_eq!(cancelled, "Segmentation, cancelled, event 0x00000001 on PID 500");
    }

    fn cue(event_id: u32) -> Cue {
        let pid = Pid::from_low_bits(500);
        Cue { pid, event_id, kind: CueKind::Segment(0x30), is_cancelled: false, pts: None, duration: None }
    }
}
