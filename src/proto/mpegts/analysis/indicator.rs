//! The indicators of ETSI TR 101 290 5.2: what is wrong with a stream, as counters and as states.

use std::fmt;
use std::time::Duration;

use arrayvec::ArrayVec;

use crate::proto::mpegts::Pid;
use crate::units::Time;

/// One indicator. Those of priority 1 say whether a stream can be decoded at all, of 2 what should be watched, of 3 what
/// depends on the application.
///
/// 3.3, 3.9 and 3.10 follow each byte through the buffers of a decoder (13818-1 2.4.2), at the moment that PCR gives it. They are
/// told where they can be: of streams whose codec, profile and level say what buffers they need (H.264, HEVC, MPEG-2; MPEG audio, AAC
/// with ADTS, AC-3), 3.3 and 3.9 only where the rate is constant, as nothing else says when a byte was to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Indicator {
    /// 1.1: two sync bytes in a row were wrong, and none are found again. Unknown where there never were any.
    TsSyncLoss,
    /// 1.2: a sync byte was not 0x47.
    SyncByteError,
    /// 1.3a: no PAT for 0.5 s, another table on its PID, or it is scrambled.
    PatError,
    /// 1.4: packets missing, out of order or repeated too often.
    ContinuityCountError,
    /// 1.5a: a PMT that the PAT lists is missing for 0.5 s, or scrambled.
    PmtError,
    /// 1.6: a video or audio PID that a PMT lists is missing for 5 s. Other streams may well be silent.
    PidError,
    /// 2.1: `transport_error_indicator` is set.
    TransportError,
    /// 2.2: a table's CRC is wrong.
    CrcError,
    /// 2.3a: more than 100 ms from PCR to PCR; a warning above 40 ms.
    PcrRepetitionError,
    /// 2.3b: PCR steps by less than 0 or more than 100 ms, unannounced.
    PcrDiscontinuityIndicatorError,
    /// 2.4: PCR is off by more than 500 ns. Unknown where the rate is not constant.
    PcrAccuracyError,
    /// 2.5: no PTS for 700 ms in a video or audio stream, unless it is scrambled.
    PtsError,
    /// 2.6: scrambled packets and no CAT, or another table on its PID.
    CatError,
    /// 3.1: no NIT for 10 s, or another table on its PID. Unknown where there never was one; so with SDT, EIT and TDT. A table that
    /// comes just as often as it must is in time while it is no more than 100 ms late.
    NitError,
    /// 3.1b: a section of a NIT of another network did not come again for 10 s. It stays an error until that comes, its table
    /// has fewer sections, or an hour has passed. Unknown where there never was one; so with the others of other networks and
    /// streams.
    NitOtherError,
    /// 3.2: sections of a table less than 25 ms apart.
    SiRepetitionError,
    /// 3.3: a decoder's buffer overflows, or data come after they were to be decoded. Not of NIT and other tables of DVB, which no
    /// buffer of 13818-1 is for. Counted ten times a second at most.
    BufferError,
    /// 3.4a: a PID that no table refers to for 0.5 s.
    UnreferencedPid,
    /// 3.5a: no SDT for 2 s, or another table on its PID.
    SdtError,
    /// 3.5b: a section of an SDT of another stream did not come again for 10 s.
    SdtOtherError,
    /// 3.6a: no EIT of present or of following events for 2 s, of all services or of one that had it, or another table on its
    /// PID. Of one alone it stays an error as 3.1b does.
    EitError,
    /// 3.6b: a section of an EIT of present and following events of another stream did not come again for 10 s.
    EitOtherError,
    /// 3.6c: of the EIT of a service only one of present and following events goes on coming, for 2 s, or 10 s of another stream.
    EitPfError,
    /// 3.7: RST sections less than 25 ms apart, or another table on its PID.
    RstError,
    /// 3.8: no TDT for 30 s, or another table on its PID.
    TdtError,
    /// 3.9: a transport buffer is not empty for a second.
    EmptyBufferError,
    /// 3.10: data stay in a decoder for more than 1 s; for more than 10 s where they are H.264 or HEVC, as 13818-1 2.14.3 and
    /// 2.17.2 have it, and for more than 60 s where the PMT says that pictures may stand still.
    DataDelayError,
}

impl Indicator {
    /// All of them, in the order of TR 101 290.
    pub const ALL: [Self; 27] = [
        Self::TsSyncLoss,
        Self::SyncByteError,
        Self::PatError,
        Self::ContinuityCountError,
        Self::PmtError,
        Self::PidError,
        Self::TransportError,
        Self::CrcError,
        Self::PcrRepetitionError,
        Self::PcrDiscontinuityIndicatorError,
        Self::PcrAccuracyError,
        Self::PtsError,
        Self::CatError,
        Self::NitError,
        Self::NitOtherError,
        Self::SiRepetitionError,
        Self::BufferError,
        Self::UnreferencedPid,
        Self::SdtError,
        Self::SdtOtherError,
        Self::EitError,
        Self::EitOtherError,
        Self::EitPfError,
        Self::RstError,
        Self::TdtError,
        Self::EmptyBufferError,
        Self::DataDelayError,
    ];

    /// The name that TR 101 290 has for it, without its case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TsSyncLoss => "ts_sync_loss",
            Self::SyncByteError => "sync_byte_error",
            Self::PatError => "pat_error",
            Self::ContinuityCountError => "continuity_count_error",
            Self::PmtError => "pmt_error",
            Self::PidError => "pid_error",
            Self::TransportError => "transport_error",
            Self::CrcError => "crc_error",
            Self::PcrRepetitionError => "pcr_repetition_error",
            Self::PcrDiscontinuityIndicatorError => "pcr_discontinuity_indicator_error",
            Self::PcrAccuracyError => "pcr_accuracy_error",
            Self::PtsError => "pts_error",
            Self::CatError => "cat_error",
            Self::NitError => "nit_error",
            Self::NitOtherError => "nit_other_error",
            Self::SiRepetitionError => "si_repetition_error",
            Self::BufferError => "buffer_error",
            Self::UnreferencedPid => "unreferenced_pid",
            Self::SdtError => "sdt_error",
            Self::SdtOtherError => "sdt_other_error",
            Self::EitError => "eit_error",
            Self::EitOtherError => "eit_other_error",
            Self::EitPfError => "eit_pf_error",
            Self::RstError => "rst_error",
            Self::TdtError => "tdt_error",
            Self::EmptyBufferError => "empty_buffer_error",
            Self::DataDelayError => "data_delay_error",
        }
    }

    /// The number that TR 101 290 5.2 has for it.
    #[must_use]
    pub const fn number(self) -> &'static str {
        match self {
            Self::TsSyncLoss => "1.1",
            Self::SyncByteError => "1.2",
            Self::PatError => "1.3",
            Self::ContinuityCountError => "1.4",
            Self::PmtError => "1.5",
            Self::PidError => "1.6",
            Self::TransportError => "2.1",
            Self::CrcError => "2.2",
            Self::PcrRepetitionError => "2.3a",
            Self::PcrDiscontinuityIndicatorError => "2.3b",
            Self::PcrAccuracyError => "2.4",
            Self::PtsError => "2.5",
            Self::CatError => "2.6",
            Self::NitError => "3.1a",
            Self::NitOtherError => "3.1b",
            Self::SiRepetitionError => "3.2",
            Self::BufferError => "3.3",
            Self::UnreferencedPid => "3.4",
            Self::SdtError => "3.5a",
            Self::SdtOtherError => "3.5b",
            Self::EitError => "3.6a",
            Self::EitOtherError => "3.6b",
            Self::EitPfError => "3.6c",
            Self::RstError => "3.7",
            Self::TdtError => "3.8",
            Self::EmptyBufferError => "3.9",
            Self::DataDelayError => "3.10",
        }
    }

    /// 1 to 3.
    #[must_use]
    pub const fn priority(self) -> u8 {
        match self as u8 {
            0..=5 => 1,
            6..=12 => 2,
            _ => 3,
        }
    }
}

/// How an indicator stands now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It cannot be told, and why.
    Unknown(&'static str),
    /// No error for [`CLEAR_AFTER`].
    Good,
    /// Not an error yet.
    Warning,
    /// An error within [`CLEAR_AFTER`], or it goes on.
    Error,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Unknown(_) => "unknown",
            Self::Good => "good",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// One indicator at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndicatorSnapshot {
    /// Errors since the start.
    pub errors: u64,
    /// Since the start; PCR repetition has them.
    pub warnings: u64,
    /// How it stands.
    pub state: State,
    /// Where the last error was, if it was on one PID.
    pub pid: Option<Pid>,
}

/// An indicator came into error, or out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Which.
    pub indicator: Indicator,
    /// [`State::Error`] or [`State::Good`].
    pub state: State,
    /// Where, if it is on one PID.
    pub pid: Option<Pid>,
    /// Since the start.
    pub errors: u64,
}

/// Counters and states of all indicators.
///
/// An error is told at once, its end after [`CLEAR_AFTER`] without another: each indicator tells at most two things in that
/// time.
#[derive(Clone, Debug)]
pub(super) struct Indicators {
    slots: [Slot; Indicator::ALL.len()],
    events: ArrayVec<Event, EVENTS_MAX>,
    events_dropped: u64,
    priority_1_errors: u64,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    now: IndicatorSnapshot,
    last_at: Time,
}

impl Default for Indicators {
    fn default() -> Self {
        let now = IndicatorSnapshot { errors: 0, warnings: 0, state: State::Unknown("nothing came yet"), pid: None };
        let slots = [Slot { now, last_at: Time::ZERO }; Indicator::ALL.len()];
        Self { slots, events: ArrayVec::new(), events_dropped: 0, priority_1_errors: 0 }
    }
}

impl Indicators {
    pub(super) fn count(&mut self, now: Time, indicator: Indicator, pid: Option<Pid>, errors: u64) {
        if indicator.priority() == 1 {
            self.priority_1_errors += errors;
        }
        let slot = &mut self.slots[indicator as usize];
        slot.now.errors += errors;
        slot.now.pid = pid;
        self.touch(now, indicator, State::Error);
    }

    pub(super) fn warn(&mut self, now: Time, indicator: Indicator, pid: Option<Pid>) {
        let slot = &mut self.slots[indicator as usize];
        slot.now.warnings += 1;
        if slot.now.state != State::Error {
            slot.now.pid = pid;
            self.touch(now, indicator, State::Warning);
        }
    }

    /// An error goes on.
    pub(super) fn touch(&mut self, now: Time, indicator: Indicator, state: State) {
        let slot = &mut self.slots[indicator as usize];
        slot.last_at = now;
        self.set(indicator, state);
    }

    /// Ends errors that are over, and says what cannot be told.
    pub(super) fn review(&mut self, now: Time, unknown: impl Fn(Indicator) -> Option<&'static str>) {
        for indicator in Indicator::ALL {
            let slot = self.slots[indicator as usize];
            let is_bad = matches!(slot.now.state, State::Error | State::Warning);
            match unknown(indicator) {
                Some(why) => self.set(indicator, State::Unknown(why)),
                None if is_bad && now.since(slot.last_at) < CLEAR_AFTER => {}
                None => self.set(indicator, State::Good),
            }
        }
    }

    pub(super) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_at(0)
    }

    pub(super) fn snapshot(&self) -> [IndicatorSnapshot; Indicator::ALL.len()] {
        self.slots.map(|slot| slot.now)
    }

    pub(super) const fn of(&self, indicator: Indicator) -> &IndicatorSnapshot {
        &self.slots[indicator as usize].now
    }

    pub(super) const fn priority_1_errors(&self) -> u64 {
        self.priority_1_errors
    }

    pub(super) const fn events_dropped(&self) -> u64 {
        self.events_dropped
    }

    fn set(&mut self, indicator: Indicator, state: State) {
        let slot = &mut self.slots[indicator as usize];
        let before = std::mem::replace(&mut slot.now.state, state);
        if (before == State::Error) == (state == State::Error) {
            return;
        }
        // An error that cannot be told any more is over, too.
        let state = if state == State::Error { state } else { State::Good };
        let event = Event { indicator, state, pid: slot.now.pid, errors: slot.now.errors };
        if self.events.try_push(event).is_err() {
            self.events_dropped += 1;
        }
    }
}

/// How long there must be no error before an indicator is good again. Judgement: long enough that trouble which comes every
/// few seconds is one alarm, short enough to see its end.
pub const CLEAR_AFTER: Duration = Duration::from_secs(5);
/// Not fetched yet. All indicators at once, and again.
const EVENTS_MAX: usize = 2 * Indicator::ALL.len();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_once_and_its_end_after_a_while() {
        let mut indicators = Indicators::default();
        let at = |s: u64| Time::from_ns(s * 1_000_000_000);
        indicators.review(at(0), |_| None);
        for s in 1..4 {
            indicators.count(at(s), Indicator::CrcError, Some(Pid::PAT), 1);
            indicators.review(at(s), |_| None);
        }
        let raised = indicators.poll_event().unwrap();
        assert_eq!((raised.indicator, raised.state, raised.pid), (Indicator::CrcError, State::Error, Some(Pid::PAT)));
        indicators.review(at(7), |_| None);
        assert_eq!(indicators.poll_event(), None);
        indicators.review(at(8), |_| None);
        assert_eq!(indicators.poll_event().map(|event| (event.state, event.errors)), Some((State::Good, 3)));
        assert_eq!(indicators.priority_1_errors(), 0);
    }

    #[test]
    fn what_cannot_be_told_is_no_alarm_but_ends_one() {
        let mut indicators = Indicators::default();
        indicators.review(Time::ZERO, |_| Some("silence"));
        assert_eq!(indicators.poll_event(), None);
        indicators.count(Time::ZERO, Indicator::PatError, None, 1);
        indicators.review(Time::ZERO, |_| Some("silence"));
        assert_eq!(indicators.poll_event().map(|event| event.state), Some(State::Error));
        assert_eq!(indicators.poll_event().map(|event| event.state), Some(State::Good));
        assert_eq!(indicators.snapshot()[Indicator::PatError as usize].state, State::Unknown("silence"));
        assert_eq!(indicators.priority_1_errors(), 1);
    }

    #[test]
    fn events_that_nobody_fetches_are_bounded() {
        let mut indicators = Indicators::default();
        for n in 0..100 {
            indicators.count(Time::from_ns(n), Indicator::PatError, None, 1);
            indicators.review(Time::from_ns(n), |_| Some("silence"));
        }
        assert_eq!(indicators.events_dropped(), 200 - EVENTS_MAX as u64);
    }

    #[test]
    fn priorities_are_those_of_the_standard() {
        let of = |priority| Indicator::ALL.iter().filter(|indicator| indicator.priority() == priority).count();
        assert_eq!((of(1), of(2), of(3)), (6, 7, 14));
        let priority = |indicator: &Indicator| indicator.number()[..1].parse();
        assert!(Indicator::ALL.iter().all(|indicator| priority(indicator) == Ok(indicator.priority())));
        assert!(Indicator::ALL.iter().enumerate().all(|(at, indicator)| *indicator as usize == at));
    }
}
