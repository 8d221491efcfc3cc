//! `Sight`: the pictures of a stream. Which are looked at, and what they show over time.

use std::sync::Arc;
use std::time::Duration;

use super::clock::Unwrap;
use super::edges::Edges;
use super::job::{Failure, JOB_BYTES_MAX, JOB_UNITS_MAX, PictureFindings, ProofFindings, Work};
use super::judge::{Change, Finished, Judge, Moment};
use super::presence::{Presence, Turn};
use super::report::{Defect, Event, Picture as Thumbnail, Reason, Settings, WatchCounts};
use crate::media::decode::RECOVERY_FRAMES_MAX;
use crate::media::headers::{Entry, Picture, Structure};
use crate::proto::mpegts::Pid;
use crate::proto::mpegts::demux::{AccessUnit, Codec};
use crate::units::Time;

/// The pictures of one stream.
#[derive(Debug)]
pub(super) struct Sight {
    pub(super) pid: Pid,
    /// `None` if it is not decoded here.
    pub(super) codec: Option<Codec>,
    /// As ffprobe names it.
    pub(super) name: &'static str,
    pub(super) is_scrambled: bool,
    pub(super) presence: Presence,
    clock: Unwrap,
    /// Its clock jumped: what comes has nothing to do with what came before.
    anew: bool,
    black: Judge,
    frozen: Judge,
    edges: Edges,
    /// A picture that is wanted and not whole yet.
    open: Option<Open>,
    waiting: Option<Waiting>,
    asked: Option<Asked>,
    sampled_at: Option<Time>,
    thumbnail_at: Option<Time>,
    /// When a picture was looked at last, or nothing had been.
    seen_at: Time,
    key_at: Option<Time>,
    /// When a picture came that is whole by itself.
    alone_at: Option<Time>,
    /// Distance of the last two pictures that decoding can begin with.
    key_distance: Duration,
    failures: u32,
    failure: Option<Reason>,
    /// Not before that: pictures that fail cost time that others could use.
    retry_at: Time,
}

/// A picture that needs more units.
#[derive(Debug)]
struct Open {
    units: Vec<Arc<AccessUnit>>,
    bytes: usize,
    moment: Moment,
    missing: Missing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    /// The second field.
    Field,
    /// So many pictures that others are predicted from: it builds up over several, from a recovery point on.
    Pictures(u16),
}

/// A picture that waits to be decoded.
#[derive(Debug)]
struct Waiting {
    units: Vec<Arc<AccessUnit>>,
    moment: Moment,
    thumbnail: bool,
    quality: bool,
}

/// A picture that is being decoded.
#[derive(Clone, Copy, Debug)]
struct Asked {
    moment: Moment,
    quality: bool,
}

impl Sight {
    pub(super) const fn new(now: Time, pid: Pid, codec: Option<Codec>, name: &'static str) -> Self {
        Self {
            pid,
            codec,
            name,
            is_scrambled: false,
            presence: Presence::new(now),
            clock: Unwrap::new(),
            anew: true,
            black: Judge::new(),
            frozen: Judge::new(),
            edges: Edges::new(),
            open: None,
            waiting: None,
            asked: None,
            sampled_at: None,
            thumbnail_at: None,
            seen_at: now,
            key_at: None,
            alone_at: None,
            key_distance: Duration::ZERO,
            failures: 0,
            failure: None,
            retry_at: Time::ZERO,
        }
    }

    /// How often pictures are wanted; `None` if none are.
    pub(super) fn wanted_every(&self, settings: &Settings) -> Option<Duration> {
        let quality = settings.content_quality.then_some(SAMPLED_EVERY);
        let wanted = [quality, settings.thumbnail_every].into_iter().flatten().min()?;
        Some(wanted.max(self.key_distance))
    }

    /// Takes in the stream's next unit, of which the headers told `picture`. `every` is how often pictures may be decoded.
    pub(super) fn handle_unit(
        &mut self,
        now: Time,
        unit: AccessUnit,
        picture: Option<Picture>,
        settings: &Settings,
        every: Duration,
        out: &mut Out<'_>,
    ) {
        out.turned(self.presence.handle_unit(now), is_video);
        let Some(pts) = unit.pts else { return };
        let (pts, jumped) = self.clock.unwrap(pts);
        if jumped {
            self.lose_sight(Reason::Listening, out);
            self.anew = true;
            self.waiting = None;
        }
        let Some(picture) = picture else { return };
        let moment = Moment { at: now, pts };
        let unit = Arc::new(AccessUnit { pts: Some(pts), ..unit });
        let is_key = matches!(picture.entry, Entry::Key | Entry::Recovery { frames: 0 });
        if settings.content_quality && picture.structure == Structure::Frame {
            self.edges.groups.push(&unit, pts, is_key);
        } else {
            self.edges.groups.clear();
        }
        if self.open.is_some() {
            self.go_on(unit, picture, moment, settings, every, out);
            return;
        }
        let missing = match picture.entry {
            Entry::Key | Entry::Recovery { frames: 0 } if picture.structure == Structure::Field => Some(Missing::Field),
            Entry::Key | Entry::Recovery { frames: 0 } => None,
            Entry::Recovery { frames } if self.builds_up(now) && frames <= RECOVERY_FRAMES_MAX => {
                Some(Missing::Pictures(frames))
            }
            Entry::Recovery { .. } | Entry::None => return,
        };
        if let Some(before) = self.key_at.replace(now) {
            self.key_distance = now.since(before).min(KEY_DISTANCE_MAX);
        }
        if is_key {
            self.alone_at = Some(now);
        }
        if !self.is_due(now, settings, every) {
            return;
        }
        match missing {
            Some(missing) => self.open = Some(Open { bytes: unit.bytes.len(), units: vec![unit], moment, missing }),
            None => self.hold(vec![unit], moment, settings, every, out),
        }
    }

    /// Packets of it came that make no units here.
    pub(super) fn handle_packets(&mut self, now: Time, out: &mut Out<'_>) {
        out.turned(self.presence.handle_unit(now), is_video);
    }

    /// Packets are missing.
    pub(super) fn disturb(&mut self) {
        self.open = None;
        self.edges.groups.clear();
    }

    /// The picture to be decoded next, or else an edge to be proven, if there is one.
    pub(super) fn poll_job(&mut self) -> Option<(Work, Vec<Arc<AccessUnit>>)> {
        let Some(Waiting { units, moment, thumbnail, quality }) = self.waiting.take() else {
            return self.edges.poll_job();
        };
        if quality {
            self.sampled_at = Some(moment.at);
        }
        if thumbnail {
            self.thumbnail_at = Some(moment.at);
        }
        self.asked = Some(Asked { moment, quality });
        let anew = std::mem::take(&mut self.anew);
        Some((Work::Picture { thumbnail, quality, anew }, units))
    }

    pub(super) fn has_job(&self) -> bool {
        self.waiting.is_some() || self.edges.has_job()
    }

    /// What came of an edge that was to be proven: without an answer it is told of as it was seen.
    pub(super) fn handle_proof(&mut self, result: Result<ProofFindings, Failure>, out: &mut Out<'_>) {
        if result == Err(Failure::Crashed) {
            out.restarted();
            self.anew = true;
        }
        let judge = match self.edges.asked_defect() {
            Some(Defect::Frozen) => &mut self.frozen,
            Some(Defect::Black | Defect::Silent) | None => &mut self.black,
        };
        self.edges.handle_outcome(result.as_ref().ok(), judge, out);
    }

    /// What came of the picture that was asked for; the small one of it, if there is one.
    pub(super) fn handle_outcome(
        &mut self,
        now: Time,
        result: Result<PictureFindings, Failure>,
        out: &mut Out<'_>,
    ) -> Option<Thumbnail> {
        let Asked { moment, quality } = self.asked.take()?;
        let findings = match result {
            Ok(findings) => findings,
            Err(failure) => {
                self.handle_failure(now, failure, out);
                return None;
            }
        };
        out.counts.pictures_decoded += 1;
        (self.failures, self.failure, self.seen_at) = (0, None, now);
        // What was asked before the clock jumped tells nothing any more.
        if quality && !self.anew {
            self.judge(now, moment, &findings, out);
        }
        let thumbnail = findings.thumbnail?;
        let (width, height, taken) = (thumbnail.width, thumbnail.height, moment.at);
        Some(Thumbnail { jpeg: thumbnail.jpeg.into(), width, height, taken })
    }

    pub(super) fn handle_timeout(&mut self, now: Time, settings: &Settings, every: Duration, out: &mut Out<'_>) {
        out.turned(self.presence.handle_timeout(now), is_video);
        self.edges.handle_timeout(now, out);
        if let Some(reason) = self.blind(now, settings, every) {
            self.lose_sight(reason, out);
        }
    }

    /// Why pictures are not looked at, or not often enough; `None` if all is well.
    pub(super) fn reason(&self, now: Time, settings: &Settings, every: Duration) -> Option<Reason> {
        let wanted = self.wanted_every(settings).unwrap_or_default();
        let is_stretched = every > wanted.max(SAMPLED_EVERY) * 11 / 10;
        self.blind(now, settings, every).or_else(|| is_stretched.then_some(Reason::Budget))
    }

    pub(super) fn black(&self, now: Time, settings: &Settings, every: Duration) -> (Option<bool>, Option<Time>) {
        self.value(&self.black, now, settings, every)
    }

    pub(super) fn frozen(&self, now: Time, settings: &Settings, every: Duration) -> (Option<bool>, Option<Time>) {
        self.value(&self.frozen, now, settings, every)
    }

    /// What was told of it is not known any more.
    pub(super) fn lose_sight(&mut self, reason: Reason, out: &mut Out<'_>) {
        self.edges.clear(out);
        for (defect, judge) in [(Defect::Black, &mut self.black), (Defect::Frozen, &mut self.frozen)] {
            if let Some(lasted) = judge.forget() {
                out.lost_sight(defect, lasted, reason.clone());
            }
        }
    }

    /// Bytes of the units that wait or are kept.
    #[cfg(any(test, fuzzing))]
    pub(super) fn bytes_held(&self) -> usize {
        let waiting = self.waiting.iter().flat_map(|waiting| &waiting.units);
        let open = self.open.iter().flat_map(|open| &open.units);
        let bytes: usize = waiting.chain(open).map(|unit| unit.bytes.len()).sum();
        bytes + self.edges.bytes_held()
    }

    /// The next unit of a picture that is not whole.
    fn go_on(
        &mut self,
        unit: Arc<AccessUnit>,
        picture: Picture,
        moment: Moment,
        settings: &Settings,
        every: Duration,
        out: &mut Out<'_>,
    ) {
        let Some(mut open) = self.open.take() else { return };
        open.bytes += unit.bytes.len();
        open.units.push(unit);
        if open.bytes > JOB_BYTES_MAX || open.units.len() >= JOB_UNITS_MAX {
            return;
        }
        let is_whole = match &mut open.missing {
            Missing::Field if picture.structure == Structure::Field => true,
            Missing::Field => return,
            Missing::Pictures(left) => {
                let was_last = *left == 0 || picture.entry == Entry::Key;
                *left = left.saturating_sub(u16::from(picture.reference));
                open.moment = moment;
                was_last && picture.reference
            }
        };
        if is_whole {
            self.hold(open.units, open.moment, settings, every, out);
        } else {
            self.open = Some(open);
        }
    }

    /// Pictures that can be decoded alone do not come, so that one has to be built up.
    fn builds_up(&self, now: Time) -> bool {
        self.codec == Some(Codec::H264) && self.alone_at.is_none_or(|at| now.since(at) >= ALONE_MAX)
    }

    fn judge(&mut self, now: Time, moment: Moment, findings: &PictureFindings, out: &mut Out<'_>) {
        if let Some(black) = findings.black {
            let had_run = self.black.run().is_some();
            let change = self.black.handle_picture(moment, black);
            self.follow(now, Defect::Black, had_run, change, out);
        }
        if findings.same.is_none()
            && let Some(lasted) = self.frozen.forget()
        {
            // What it was compared to is gone.
            out.lost_sight(Defect::Frozen, lasted, Reason::Restarting);
        }
        let had_run = self.frozen.run().is_some();
        let change = self.frozen.handle_compared(moment, findings.same == Some(true));
        self.follow(now, Defect::Frozen, had_run, change, out);
    }

    /// Tells what changed, and has its edges proven.
    fn follow(&mut self, now: Time, defect: Defect, had_run: bool, change: Option<Change>, out: &mut Out<'_>) {
        let judge = if defect == Defect::Black { &self.black } else { &self.frozen };
        match judge.run() {
            Some((before, first)) if !had_run => self.edges.handle_suspicion(defect, before, first),
            None if had_run => self.edges.forget_begin(defect),
            Some(_) | None => {}
        }
        match change {
            Some(Change::Began { lasted }) => {
                out.events.push(Event::Began { defect, lasted });
                if let Some((_, first)) = judge.run() {
                    self.edges.handle_begin(now, defect, first.pts);
                }
            }
            Some(Change::Ended(finished)) => self.edges.handle_end(now, defect, finished, out),
            None => {}
        }
    }

    fn is_due(&self, now: Time, settings: &Settings, every: Duration) -> bool {
        now >= self.retry_at && (self.quality_due(now, settings, every) || self.thumbnail_due(now, settings, every))
    }

    fn quality_due(&self, now: Time, settings: &Settings, every: Duration) -> bool {
        settings.content_quality && is_over(self.sampled_at, now, every.max(SAMPLED_EVERY))
    }

    fn thumbnail_due(&self, now: Time, settings: &Settings, every: Duration) -> bool {
        settings.thumbnail_every.is_some_and(|wanted| is_over(self.thumbnail_at, now, every.max(wanted)))
    }

    /// Of pictures that wait the newest wins.
    fn hold(
        &mut self,
        units: Vec<Arc<AccessUnit>>,
        moment: Moment,
        settings: &Settings,
        every: Duration,
        out: &mut Out<'_>,
    ) {
        out.counts.pictures_passed_over += u64::from(self.waiting.is_some());
        let thumbnail = self.thumbnail_due(moment.at, settings, every);
        let quality = self.quality_due(moment.at, settings, every);
        self.waiting = Some(Waiting { units, moment, thumbnail, quality });
    }

    fn handle_failure(&mut self, now: Time, failure: Failure, out: &mut Out<'_>) {
        out.counts.pictures_failed += 1;
        self.failures += 1;
        // The next one may be as bad: the more there were, the longer it is left alone.
        let pause = RETRY_MIN * 2_u32.pow(self.failures.min(6) - 1);
        match failure {
            Failure::Unsupported(what) => {
                self.failure = Some(Reason::Unsupported(what));
                self.retry_at = now + RETRY_MAX;
            }
            Failure::Damaged if self.failures < FAILURES_MAX => return,
            Failure::Damaged => {
                self.failure = Some(Reason::Damaged);
                self.retry_at = now + pause.min(RETRY_MAX);
            }
            Failure::Crashed => {
                out.restarted();
                self.failure = Some(Reason::Restarting);
                self.retry_at = now + pause;
                self.anew = true;
            }
        }
        if let Some(reason) = self.failure.clone() {
            self.lose_sight(reason, out);
        }
    }

    /// Why nothing is seen.
    fn blind(&self, now: Time, settings: &Settings, every: Duration) -> Option<Reason> {
        let wanted = self.wanted_every(settings);
        if wanted.is_none() {
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
        if self.failure.is_some() {
            return self.failure.clone();
        }
        let patience = (wanted.unwrap_or_default().max(every) * 3).max(PATIENCE_MIN);
        let is_fresh = self.is_seen() && now.since(self.seen_at) < patience;
        if is_fresh {
            return None;
        }
        Some(if self.waiting.is_some() || self.asked.is_some() { Reason::Budget } else { Reason::WaitingKeyFrame })
    }

    const fn is_seen(&self) -> bool {
        self.sampled_at.is_some() || self.thumbnail_at.is_some()
    }

    fn value(&self, judge: &Judge, now: Time, settings: &Settings, every: Duration) -> (Option<bool>, Option<Time>) {
        let can_tell = settings.content_quality && self.blind(now, settings, every).is_none();
        if can_tell { (judge.value(), judge.since()) } else { (None, None) }
    }
}

/// Where what happens goes to.
#[derive(Debug)]
pub(super) struct Out<'a> {
    pub(super) events: &'a mut super::Events,
    pub(super) counts: &'a mut WatchCounts,
}

impl Out<'_> {
    pub(super) fn ended(&mut self, defect: Defect, finished: &Finished) {
        let (lasted, between) = (finished.lasted(), finished.between());
        self.events.push(Event::Ended { defect, lasted, between, lost_sight: None });
    }

    pub(super) fn lost_sight(&mut self, defect: Defect, lasted: Duration, reason: Reason) {
        let lost_sight = Some(reason);
        self.events.push(Event::Ended { defect, lasted, between: (lasted, lasted), lost_sight });
    }

    pub(super) fn turned(&mut self, turn: Option<Turn>, event: impl FnOnce(Turn) -> Event) {
        if let Some(turn) = turn {
            self.events.push(event(turn));
        }
    }

    pub(super) fn restarted(&mut self) {
        self.counts.decoder_restarts += 1;
        self.events.push(Event::DecoderRestarted { restarts: self.counts.decoder_restarts });
    }
}

const fn is_video(turn: Turn) -> Event {
    match turn {
        Turn::Missing => Event::VideoMissing,
        Turn::Back { missed } => Event::VideoBack { missed },
    }
}

/// A tenth less: key frames that are a second apart do not come so to the millisecond.
fn is_over(last: Option<Time>, now: Time, every: Duration) -> bool {
    last.is_none_or(|last| now.since(last) >= every / 10 * 9)
}

/// Key frames are looked at so often, if they come so often.
pub(super) const SAMPLED_EVERY: Duration = Duration::from_secs(1);
/// Longer ones are no groups of pictures, but breaks.
const KEY_DISTANCE_MAX: Duration = Duration::from_secs(30);
/// Judgement: one picture is damaged now and then, three in a row are not.
const FAILURES_MAX: u32 = 3;
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// Longest time without a picture after which the last one still counts.
const PATIENCE_MIN: Duration = Duration::from_secs(10);
/// A stream in which none came for so long has none.
const ALONE_MAX: Duration = Duration::from_secs(5);
