//! `Sight`: the pictures of a stream. Which are looked at, and what they show over time.

use std::sync::Arc;
use std::time::Duration;

use super::clock::Unwrap;
use super::crashes::Crashes;
use super::edges::Edges;
use super::job::{Failure, JOB_BYTES_MAX, JOB_UNITS_MAX, PictureFindings, ProofFindings, Work};
use super::judge::{Change, Finished, Judge, LASTS_MIN, Moment, span};
use super::presence::{Presence, Turn};
use super::report::{Defect, Event, Picture as Thumbnail, Reason, Settings, WatchCounts};
use crate::media::decode::RECOVERY_FRAMES_MAX;
use crate::media::headers::{Entry, Picture, Structure};
use crate::proto::mpegts::Pid;
use crate::proto::mpegts::demux::{AccessUnit, Codec};
use crate::units::{Ticks90k, Time};

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
    pub(super) edges: Edges,
    /// A picture that is wanted and not whole yet.
    open: Option<Open>,
    waiting: Option<Waiting>,
    asked: Option<Asked>,
    /// The last picture that was judged, and the last that a small one was made of.
    sampled: Option<Moment>,
    pictured: Option<Moment>,
    /// Between the last two that were judged, by the stream's clock.
    sample_distance: Option<Duration>,
    /// When a picture was looked at last, or nothing had been.
    seen_at: Time,
    key_at: Option<Time>,
    /// When a picture came that is whole by itself.
    alone_at: Option<Time>,
    /// Distance of the last two pictures that decoding can begin with.
    key_distance: Duration,
    /// When the last of them is shown: those after it are shown later.
    key_pts: Option<Ticks90k>,
    failures: u32,
    crashes: Crashes,
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
            sampled: None,
            pictured: None,
            sample_distance: None,
            seen_at: now,
            key_at: None,
            alone_at: None,
            key_distance: Duration::ZERO,
            key_pts: None,
            failures: 0,
            crashes: Crashes::new(),
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
        let (Some(pts), Some(picture)) = (unit.pts, picture) else {
            let is_field = picture.is_some_and(|picture| picture.structure == Structure::Field);
            match (&self.open, picture) {
                // It is shown with the first one.
                (Some(Open { missing: Missing::Field, moment, .. }), Some(picture)) if is_field => {
                    let moment = *moment;
                    self.go_on(Arc::new(unit), picture, moment, settings, every, out);
                }
                // It cannot be said where it belongs.
                _ => self.disturb(),
            }
            return;
        };
        let (pts, jumped) = self.clock.unwrap(pts);
        let is_key = matches!(picture.entry, Entry::Key | Entry::Recovery { frames: 0 });
        if jumped || is_key && self.key_pts.is_some_and(|before| pts < before) {
            self.begin_anew(out);
        }
        if is_key {
            self.key_pts = Some(pts);
        }
        let moment = Moment { at: now, pts };
        let unit = Arc::new(AccessUnit { pts: Some(pts), ..unit });
        if settings.content_quality && picture.structure == Structure::Frame {
            self.edges.push(&unit, pts, is_key, out);
        } else {
            self.edges.disturb();
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
        if !self.is_due(moment, settings, every) {
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
        self.edges.disturb();
    }

    /// The picture to be decoded next, if there is one.
    pub(super) fn poll_job(&mut self) -> Option<(Work, Vec<Arc<AccessUnit>>)> {
        let Waiting { units, moment, thumbnail, quality } = self.waiting.take()?;
        let anew = std::mem::take(&mut self.anew);
        if quality {
            let before = self.sampled.replace(moment).filter(|_| !anew);
            self.sample_distance = before.map(|before| span(before, moment)).or(self.sample_distance);
        }
        if thumbnail {
            self.pictured = Some(moment);
        }
        self.asked = Some(Asked { moment, quality });
        Some((Work::Picture { thumbnail, quality, anew }, units))
    }

    pub(super) const fn has_job(&self) -> bool {
        self.waiting.is_some()
    }

    /// What came of an edge that was to be proven: without an answer it is told of as it was seen.
    pub(super) fn handle_proof(&mut self, now: Time, result: Result<ProofFindings, Failure>, out: &mut Out<'_>) {
        if result == Err(Failure::Crashed) {
            out.restarted();
        }
        let judge = match self.edges.asked_defect() {
            Some(Defect::Frozen) => &mut self.frozen,
            Some(Defect::Black | Defect::Silent) | None => &mut self.black,
        };
        self.edges.handle_outcome(now, result, judge, out);
    }

    /// What is seen is not judged any more, nor what is being looked at.
    pub(super) fn stop_judging(&mut self, out: &mut Out<'_>) {
        self.lose_sight(Reason::Off, out);
        if let Some(asked) = &mut self.asked {
            asked.quality = false;
        }
        if let Some(waiting) = &mut self.waiting {
            waiting.quality = false;
        }
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
        self.crashes.handle_success();
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

    /// How often pictures are judged, while they may be `every` so often.
    pub(super) fn sampled_every(&self, every: Duration, is_stretched: bool) -> Duration {
        let last = self.sample_distance.unwrap_or(every);
        if is_stretched { last.max(every) } else { last }
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

    /// Its clock jumped, or went back: what comes has nothing to do with what came.
    fn begin_anew(&mut self, out: &mut Out<'_>) {
        self.lose_sight(Reason::Listening, out);
        self.anew = true;
        (self.open, self.waiting, self.key_pts) = (None, None, None);
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
        if let Some(known_at) = [&self.black, &self.frozen].into_iter().filter_map(Judge::known_at).min() {
            self.edges.forget_before(known_at);
        }
    }

    /// Tells what changed, and has its edges proven.
    fn follow(&mut self, now: Time, defect: Defect, had_run: bool, change: Option<Change>, out: &mut Out<'_>) {
        let judge = if defect == Defect::Black { &self.black } else { &self.frozen };
        let run = judge.run();
        if let Some((before, first, last)) = run {
            if !had_run {
                self.edges.handle_suspicion(defect, before.map(|before| before.pts), first.pts, out);
            }
            if span(before.unwrap_or(first), last) >= LASTS_MIN {
                self.edges.handle_begin(now, defect, first.pts, out);
            }
        }
        match change {
            Some(Change::Began { lasted }) => {
                self.edges.tell_ends(defect, out);
                out.began(defect, lasted);
            }
            Some(Change::Ended(finished)) => self.edges.handle_end(now, defect, finished, false, out),
            Some(Change::Passed(finished)) => {
                self.edges.handle_begin(now, defect, finished.first, out);
                self.edges.handle_end(now, defect, finished, true, out);
            }
            None => {}
        }
        if run.is_none() {
            self.edges.forget_begin(defect);
        }
    }

    fn is_due(&self, this: Moment, settings: &Settings, every: Duration) -> bool {
        let is_wanted = self.quality_due(this, settings, every) || self.thumbnail_due(this, settings, every);
        this.at >= self.retry_at && is_wanted
    }

    fn quality_due(&self, this: Moment, settings: &Settings, every: Duration) -> bool {
        // What may have begun is not left undecided for long, however seldom there is time: two more pictures tell.
        let is_undecided = self.black.is_undecided() || self.frozen.is_undecided();
        let every = if is_undecided { SAMPLED_EVERY } else { every.max(SAMPLED_EVERY) };
        settings.content_quality && is_over(self.sampled, this, every)
    }

    fn thumbnail_due(&self, this: Moment, settings: &Settings, every: Duration) -> bool {
        settings.thumbnail_every.is_some_and(|wanted| is_over(self.pictured, this, every.max(wanted)))
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
        let thumbnail = self.thumbnail_due(moment, settings, every);
        let quality = self.quality_due(moment, settings, every);
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
                self.retry_at = now + self.crashes.handle_crash();
                self.anew = true;
            }
            Failure::NotStarted => {
                self.failure = Some(Reason::NoDecoder);
                self.retry_at = now + pause.min(RETRY_MAX);
                // If it was to begin anew, it has not.
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
        self.sampled.is_some() || self.pictured.is_some()
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

    pub(super) fn began(&mut self, defect: Defect, lasted: Duration) {
        self.events.push(Event::Began { defect, lasted });
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

/// Large pictures take longer on the way than small ones, so key frames that are a second apart come earlier or later than
/// that: the stream's clock counts, with a tenth less where frames do not fill a second. It has to agree with ours roughly.
fn is_over(last: Option<Moment>, this: Moment, every: Duration) -> bool {
    last.is_none_or(|last| {
        let came = this.at.since(last.at);
        came >= every || came >= every / 2 && span(last, this) >= every / 10 * 9
    })
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

#[cfg(test)]
mod tests {
    use super::super::Events;
    use super::*;

    #[test]
    fn a_picture_that_was_begun_before_the_clock_jumped_is_not_finished_after_it() {
        for (jump, is_whole) in [(0, true), (20 * 90_000, false)] {
            let mut sight = Sight::new(Time::ZERO, Pid::default(), Some(Codec::H264), "h264");
            let (mut events, mut counts) = (Events::default(), WatchCounts::default());
            let settings = Settings { thumbnail_every: None, content_quality: true };
            let fields = [(90_000, Entry::Key), (91_800 + jump, Entry::None)];
            for (pts, entry) in fields {
                let unit = AccessUnit {
                    pid: Pid::default(),
                    codec: Codec::H264,
                    pts: Some(Ticks90k(pts)),
                    dts: None,
                    bytes: vec![0; 100],
                };
                let picture = Picture { entry, structure: Structure::Field, reference: true };
                let out = &mut Out { events: &mut events, counts: &mut counts };
                sight.handle_unit(Time::ZERO, unit, Some(picture), &settings, SAMPLED_EVERY, out);
            }
            assert_eq!(sight.has_job(), is_whole, "{jump}");
        }
    }

    #[test]
    fn each_key_frame_of_a_second_is_looked_at_whenever_it_comes() {
        // Distances of key frames and of those that are looked at, in milliseconds.
        for (distance, sampled) in [(1_000, 1_000), (960, 960), (500, 1_000), (600, 1_200), (2_000, 2_000)] {
            let mut sight = Sight::new(Time::ZERO, Pid::default(), Some(Codec::H264), "h264");
            let (mut events, mut counts) = (Events::default(), WatchCounts::default());
            let settings = Settings { thumbnail_every: None, content_quality: true };
            let (mut seed, mut asked) = (7_u32, 0);
            for number in 0..480_u64 {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                // A quarter of a second early or late, at most.
                let jitter = u64::from(seed >> 16) % 500 * distance.min(1_000) / 1_000;
                let now = Time::from_ns((1_000 + number * distance + jitter) * 1_000_000);
                let unit = AccessUnit {
                    pid: Pid::default(),
                    codec: Codec::H264,
                    pts: Some(Ticks90k(number * distance * 90)),
                    dts: None,
                    bytes: vec![0; 100],
                };
                let picture = Picture { entry: Entry::Key, structure: Structure::Frame, reference: true };
                let out = &mut Out { events: &mut events, counts: &mut counts };
                sight.handle_unit(now, unit, Some(picture), &settings, SAMPLED_EVERY, out);
                if sight.poll_job().is_some() {
                    asked += 1;
                    let found = PictureFindings { black: Some(false), same: Some(false), thumbnail: None };
                    sight.handle_outcome(now, Ok(found), out);
                }
            }
            let expected = 480 * distance / sampled;
            assert!(asked + 1 >= expected && asked <= expected + 5, "{asked} at {distance} ms");
            let told = sight.sampled_every(SAMPLED_EVERY, false).as_millis() as u64;
            assert_eq!(told, sampled, "{distance} ms");
        }
    }
}
