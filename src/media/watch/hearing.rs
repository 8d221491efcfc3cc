//! `Hearing`: the sound of a stream. All of it is listened to, a piece at a time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::clock::Unwrap;
use super::crashes::Crashes;
use super::job::{Failure, Heard, SOUND_BYTES_MAX, SOUND_UNITS_MAX, SoundFindings, Work};
use super::judge::{LASTS_MIN, Moment, span_90k};
use super::presence::{Presence, Turn};
use super::report::{Defect, Event, Levels, Reason, Settings};
use super::sight::Out;
use crate::media::quality::Loudness;
use crate::proto::mpegts::Pid;
use crate::proto::mpegts::demux::{AccessUnit, Codec};
use crate::units::{Ticks90k, Time};

/// The sound of one stream.
#[derive(Debug)]
pub(super) struct Hearing {
    pub(super) pid: Pid,
    /// `None` if it is not decoded here.
    pub(super) codec: Option<Codec>,
    /// As ffprobe names it.
    pub(super) name: &'static str,
    pub(super) is_scrambled: bool,
    pub(super) presence: Presence,
    clock: Unwrap,
    /// What waits, and its bytes.
    units: VecDeque<Arc<AccessUnit>>,
    bytes: usize,
    /// When the first of them came.
    first_at: Time,
    /// Last unit that came.
    last: Option<Moment>,
    /// What comes has nothing to do with what came before it.
    anew: bool,
    is_asked: bool,
    /// There was no time for it until then.
    passed_over_until: Option<Time>,
    silent: Option<bool>,
    /// When there was an outcome last, or nothing had come yet.
    heard_at: Time,
    /// By the stream's clock, and when that was.
    silent_since: Option<(Ticks90k, Time)>,
    /// How far listening came, for whoever is asked next.
    heard: Option<Heard>,
    loudness: Loudness,
    levels: Option<Levels>,
    failures: u32,
    crashes: Crashes,
    failure: Option<Reason>,
    retry_at: Time,
}

impl Hearing {
    pub(super) fn new(now: Time, pid: Pid, codec: Option<Codec>, name: &'static str) -> Self {
        Self {
            pid,
            codec,
            name,
            is_scrambled: false,
            presence: Presence::new(now),
            clock: Unwrap::new(),
            units: VecDeque::new(),
            bytes: 0,
            first_at: now,
            last: None,
            anew: true,
            is_asked: false,
            passed_over_until: None,
            silent: None,
            heard_at: now,
            silent_since: None,
            heard: None,
            loudness: Loudness::default(),
            levels: None,
            failures: 0,
            crashes: Crashes::new(),
            failure: None,
            retry_at: Time::ZERO,
        }
    }

    pub(super) fn handle_unit(&mut self, now: Time, unit: AccessUnit, settings: &Settings, out: &mut Out<'_>) {
        out.turned(self.presence.handle_unit(now), is_audio);
        let Some(pts) = unit.pts else { return };
        let (pts, jumped) = self.clock.unwrap(pts);
        if jumped {
            self.stop_listening(Reason::Listening, out);
        }
        self.last = Some(Moment { at: now, pts });
        let is_over = self.passed_over_until.is_none_or(|until| now >= until);
        if !settings.content_quality || !is_over || now < self.retry_at {
            out.counts.sounds_passed_over += u64::from(settings.content_quality);
            return;
        }
        self.passed_over_until = None;
        if self.units.len() == SOUND_UNITS_MAX || self.bytes + unit.bytes.len() > SOUND_BYTES_MAX {
            // Sound with holes tells nothing: better none for a while, and then all of it.
            out.counts.sounds_passed_over += self.units.len() as u64 + 1;
            self.stop_listening(Reason::Budget, out);
            self.passed_over_until = Some(now + PASSED_OVER);
            return;
        }
        if self.units.is_empty() {
            self.first_at = now;
        }
        self.bytes += unit.bytes.len();
        self.units.push_back(Arc::new(AccessUnit { pts: Some(pts), ..unit }));
    }

    /// Packets of it came that make no units here.
    pub(super) fn handle_packets(&mut self, now: Time, out: &mut Out<'_>) {
        out.turned(self.presence.handle_unit(now), is_audio);
    }

    /// A piece that is long enough to be worth it.
    pub(super) fn has_job(&self, now: Time) -> bool {
        let is_long = now.since(self.first_at) >= PIECE || self.units.len() >= SOUND_UNITS_MAX / 2;
        !self.units.is_empty() && !self.is_asked && (is_long || self.bytes >= SOUND_BYTES_MAX / 2)
    }

    pub(super) fn poll_job(&mut self, now: Time) -> Option<(Work, Vec<Arc<AccessUnit>>)> {
        if !self.has_job(now) {
            return None;
        }
        self.is_asked = true;
        self.bytes = 0;
        if std::mem::take(&mut self.anew) {
            (self.heard, self.loudness) = (None, Loudness::default());
        }
        Some((Work::Sound { before: self.heard }, self.units.drain(..).collect()))
    }

    pub(super) fn handle_outcome(&mut self, now: Time, result: Result<SoundFindings, Failure>, out: &mut Out<'_>) {
        self.is_asked = false;
        self.heard_at = now;
        let findings = match result {
            Ok(findings) => findings,
            Err(failure) => {
                self.handle_failure(now, failure, out);
                return;
            }
        };
        out.counts.sounds_decoded += u64::from(findings.decoded);
        out.counts.sounds_failed += u64::from(findings.failed);
        (self.failures, self.failure) = (0, None);
        self.crashes.handle_success();
        // What was asked before the clock jumped tells nothing any more.
        if self.anew {
            return;
        }
        self.heard = Some(findings.heard);
        self.loudness.add(&findings.loudness);
        self.levels = Some(levels(&self.loudness));
        self.judge(&findings, out);
    }

    pub(super) fn handle_timeout(&mut self, now: Time, settings: &Settings, out: &mut Out<'_>) {
        out.turned(self.presence.handle_timeout(now), is_audio);
        if let Some(reason) = self.deaf(now, settings) {
            self.forget(reason, out);
        }
    }

    pub(super) fn reason(&self, now: Time, settings: &Settings) -> Option<Reason> {
        self.deaf(now, settings).or_else(|| self.silent.is_none().then_some(Reason::Listening))
    }

    pub(super) fn silent(&self, now: Time, settings: &Settings) -> (Option<bool>, Option<Time>) {
        if self.deaf(now, settings).is_some() {
            return (None, None);
        }
        (self.silent, self.silent_since.map(|(_, at)| at))
    }

    pub(super) fn levels(&self, now: Time, settings: &Settings) -> Option<Levels> {
        self.levels.filter(|_| self.deaf(now, settings).is_none())
    }

    /// What was heard and what waits is forgotten; what was told of it is not known any more.
    pub(super) fn stop_listening(&mut self, reason: Reason, out: &mut Out<'_>) {
        self.pause_listening(reason, out);
        self.anew = true;
    }

    /// What waits is left out. What was heard before counts when it is heard again.
    fn pause_listening(&mut self, reason: Reason, out: &mut Out<'_>) {
        self.forget(reason, out);
        self.units.clear();
        self.bytes = 0;
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn bytes_held(&self) -> usize {
        assert!(self.units.len() <= SOUND_UNITS_MAX && self.bytes <= SOUND_BYTES_MAX);
        self.bytes
    }

    fn judge(&mut self, findings: &SoundFindings, out: &mut Out<'_>) {
        if let Some(ended) = findings.ended {
            let lasted = span_90k(ended.end.0.saturating_sub(ended.start.0));
            if self.silent_since.take().is_none() {
                out.events.push(Event::Began { defect: Defect::Silent, lasted });
            }
            let between = (lasted, lasted);
            out.events.push(Event::Ended { defect: Defect::Silent, lasted, between, lost_sight: None });
        }
        let Heard { began, until, silent_since, .. } = findings.heard;
        match silent_since {
            Some(since) if self.silent_since.is_none() => {
                let lasted = span_90k(until.0.saturating_sub(since.0));
                out.events.push(Event::Began { defect: Defect::Silent, lasted });
                self.silent_since = Some((since, self.time_of(since)));
            }
            Some(_) => {}
            // It began anew at a break in the sound.
            None => self.forget(Reason::Listening, out),
        }
        let is_sure = silent_since.is_some() || span_90k(until.0.saturating_sub(began.0)) >= LASTS_MIN;
        self.silent = is_sure.then_some(silent_since.is_some());
    }

    /// When a moment of the stream's clock was, by when its last unit came.
    fn time_of(&self, pts: Ticks90k) -> Time {
        let Some(last) = self.last else { return Time::ZERO };
        last.at - span_90k(last.pts.0.saturating_sub(pts.0))
    }

    fn forget(&mut self, reason: Reason, out: &mut Out<'_>) {
        self.silent = None;
        let Some((since, _)) = self.silent_since.take() else { return };
        let until = self.last.map_or(since, |last| last.pts);
        let lasted = span_90k(until.0.saturating_sub(since.0)).max(LASTS_MIN);
        let (defect, lost_sight) = (Defect::Silent, Some(reason));
        out.events.push(Event::Ended { defect, lasted, between: (lasted, lasted), lost_sight });
    }

    fn handle_failure(&mut self, now: Time, failure: Failure, out: &mut Out<'_>) {
        out.counts.sounds_failed += 1;
        self.failures += 1;
        let pause = RETRY_MIN * 2_u32.pow(self.failures.min(6) - 1);
        // That is not of the stream's doing, and its decoder lost nothing.
        let is_paused = failure == Failure::NotStarted;
        let reason = match failure {
            Failure::Unsupported(what) => {
                self.retry_at = now + RETRY_MAX;
                Reason::Unsupported(what)
            }
            Failure::Damaged => {
                self.retry_at = now + pause.min(RETRY_MAX);
                Reason::Damaged
            }
            Failure::Crashed => {
                out.restarted();
                self.retry_at = now + self.crashes.handle_crash();
                Reason::Restarting
            }
            Failure::NotStarted => {
                self.retry_at = now + pause.min(RETRY_MAX);
                Reason::NoDecoder
            }
        };
        self.failure = Some(reason.clone());
        self.levels = None;
        if is_paused { self.pause_listening(reason, out) } else { self.stop_listening(reason, out) }
    }

    /// Why nothing is heard.
    fn deaf(&self, now: Time, settings: &Settings) -> Option<Reason> {
        if !settings.content_quality {
            return Some(Reason::Off);
        }
        if self.is_scrambled {
            return Some(Reason::Scrambled);
        }
        if self.codec.is_none() {
            return Some(Reason::Unsupported(self.name.into()));
        }
        if self.presence.value() == Some(false) {
            return Some(Reason::Missing);
        }
        if self.passed_over_until.is_some() {
            return Some(Reason::Budget);
        }
        if self.failure.is_some() {
            return self.failure.clone();
        }
        // What was heard so long ago says nothing of now.
        let waits = self.is_asked || !self.units.is_empty();
        (now.since(self.heard_at) >= PATIENCE).then_some(if waits { Reason::Budget } else { Reason::Listening })
    }
}

fn levels(loudness: &Loudness) -> Levels {
    let value = |value: Option<f64>| value.map(|value| value as f32);
    Levels {
        momentary_lufs: value(loudness.momentary()),
        short_term_lufs: value(loudness.short_term()),
        integrated_lufs: value(loudness.integrated()),
        true_peak_dbtp: value(loudness.true_peak()),
    }
}

const fn is_audio(turn: Turn) -> Event {
    match turn {
        Turn::Missing => Event::AudioMissing,
        Turn::Back { missed } => Event::AudioBack { missed },
    }
}

/// Judgement: soon enough for an alarm after two seconds, and rarely enough that handing it over costs nothing.
const PIECE: Duration = Duration::from_millis(500);
/// Longest time without an outcome, of which there are two a second, for which the last one counts.
const PATIENCE: Duration = Duration::from_secs(5);
/// Where there was no time for sound there will be none in the next moment either.
const PASSED_OVER: Duration = Duration::from_secs(10);
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(10);
