//! Whether pictures are bad for long enough, judged by single ones of them: what is proven and what is possible.

use std::time::Duration;

use crate::units::{Ticks90k, Time};

/// Where in the stream's own time something was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    /// When it came.
    pub(super) at: Time,
    /// When it is to be shown, unwrapped.
    pub(super) pts: Ticks90k,
}

/// Follows one defect by pictures that were looked at now and then.
///
/// ```text
///   looked at:    good        bad         bad         bad        good
///                  |           |<------ proven ------->|           |
///                  |<----------------- possible ------------------>|
/// ```
///
/// Only what is proven raises it, so that what was too short to matter is never taken for more than it was.
#[derive(Debug, Default)]
pub(super) struct Judge {
    /// Last picture before the run that was not bad.
    good: Option<Moment>,
    /// Picture that a run would begin with though it is not bad itself: the one that those after it are compared to.
    reference: Option<Moment>,
    run: Option<Run>,
    /// The answer, once there is one.
    value: Option<bool>,
}

#[derive(Clone, Copy, Debug)]
struct Run {
    /// Last picture before it.
    before: Option<Moment>,
    first: Moment,
    last: Moment,
    /// Since then nothing was far apart.
    near: Moment,
    pictures: u32,
    is_raised: bool,
    /// When it was proven to have begun: all pictures from there to the first that was looked at are bad.
    exact: Option<Ticks90k>,
}

/// What a picture changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It has been bad for long enough.
    Began {
        /// At least.
        lasted: Duration,
    },
    /// It is over, and had been told of.
    Ended(Finished),
    /// It is over, and may have been long enough or not.
    Passed(Finished),
}

/// A run that is over, by the stream's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Finished {
    /// Last picture before it, or where it was proven to begin.
    pub(super) before: Ticks90k,
    /// First picture that is known to belong to it.
    pub(super) first: Ticks90k,
    /// Last picture that is known to belong to it, or where it was proven to end.
    pub(super) last: Ticks90k,
    /// First picture that does not belong to it.
    pub(super) end: Ticks90k,
}

impl Finished {
    /// It was proven to begin there.
    pub(super) const fn set_begin(&mut self, exact: Ticks90k) {
        (self.before, self.first) = (exact, exact);
    }

    /// It was proven to end there.
    pub(super) const fn set_end(&mut self, exact: Ticks90k) {
        (self.last, self.end) = (exact, exact);
    }

    /// From the first picture that was bad to the first that was not.
    pub(super) const fn lasted(&self) -> Duration {
        span_90k(self.end.0.saturating_sub(self.first.0))
    }

    /// What is proven, and what is possible.
    pub(super) const fn between(&self) -> (Duration, Duration) {
        (span_90k(self.last.0.saturating_sub(self.first.0)), span_90k(self.end.0.saturating_sub(self.before.0)))
    }
}

impl Judge {
    pub(super) const fn new() -> Self {
        Self { good: None, reference: None, run: None, value: None }
    }

    /// Takes in what the next picture that was looked at is like.
    pub(super) fn handle_picture(&mut self, moment: Moment, is_bad: bool) -> Option<Change> {
        if is_bad {
            return self.handle_bad(moment);
        }
        let change = self.end(moment);
        self.value = Some(false);
        self.good = Some(moment);
        self.reference = None;
        change
    }

    /// The same where a picture is bad if it is like the first of its run, which is told to be so only by the next.
    pub(super) fn handle_compared(&mut self, moment: Moment, is_same: bool) -> Option<Change> {
        if is_same {
            return self.handle_bad(moment);
        }
        let last = self.run.map(|run| run.last);
        let change = self.end(moment);
        if self.reference.is_some() {
            // It was compared to another one and differs.
            self.value = Some(false);
        }
        self.good = last.or(self.reference);
        self.reference = Some(moment);
        change
    }

    /// Nothing is known any more. How long what was told of has lasted at least, and at most as far as it was seen.
    pub(super) fn forget(&mut self) -> Option<Duration> {
        let run = std::mem::take(self).run.filter(|run| run.is_raised)?;
        Some(span(run.first, run.last))
    }

    /// `None` as long as nothing was seen that tells, and while a run is on that may be long enough or not.
    pub(super) fn value(&self) -> Option<bool> {
        self.value.filter(|_| self.run.is_none_or(|run| run.is_raised))
    }

    /// When the first bad picture came, if it is bad now.
    pub(super) fn since(&self) -> Option<Time> {
        self.run.filter(|run| run.is_raised).map(|run| run.first.at)
    }

    /// A run is on that may be long enough or not.
    pub(super) fn is_undecided(&self) -> bool {
        self.run.is_some_and(|run| !run.is_raised)
    }

    /// The last picture before the run that is on, its first, and its last so far.
    pub(super) fn run(&self) -> Option<(Option<Moment>, Moment, Moment)> {
        self.run.map(|run| (run.before, run.first, run.last))
    }

    /// When the last picture was shown that pictures to come may have to be told from.
    pub(super) fn known_at(&self) -> Option<Ticks90k> {
        let known = self.run.map(|run| run.last).or(self.good).or(self.reference);
        known.map(|known| known.pts)
    }

    /// The run that was seen to begin with one picture was proven to begin with another: it may be long enough now.
    pub(super) fn set_begin(&mut self, seen: Ticks90k, exact: Ticks90k) -> Option<Change> {
        self.run.as_mut().filter(|run| run.first.pts == seen)?.exact = Some(exact);
        self.raise()
    }

    fn handle_bad(&mut self, moment: Moment) -> Option<Change> {
        let first = self.reference.unwrap_or(moment);
        let (before, first_seen) = (self.good, self.reference.is_some());
        let pictures = u32::from(first_seen);
        let run = self.run.get_or_insert(Run {
            before,
            first,
            last: first,
            near: first,
            pictures,
            is_raised: false,
            exact: None,
        });
        if span(run.last, moment) > FAR_APART {
            run.near = moment;
        }
        run.last = moment;
        run.pictures += 1;
        self.raise()
    }

    /// Tells of the run once it is long enough, be it by what was decoded fully alone.
    fn raise(&mut self) -> Option<Change> {
        let run = self.run.as_mut().filter(|run| !run.is_raised)?;
        let begin = run.exact.unwrap_or(run.first.pts);
        let lasted = span_90k(run.last.pts.0.saturating_sub(begin.0));
        let decoded = span_90k(run.first.pts.0.saturating_sub(begin.0));
        // Of pictures far apart two are not enough, nor is one that comes soon after them: between them there may have been
        // anything.
        let near = if run.near == run.first { lasted } else { span(run.near, run.last) };
        let is_third = run.near == run.last && run.pictures >= 3 && lasted >= LASTS_MIN;
        if decoded < LASTS_MIN && near < LASTS_MIN && !is_third {
            return None;
        }
        run.is_raised = true;
        self.value = Some(true);
        Some(Change::Began { lasted })
    }

    fn end(&mut self, moment: Moment) -> Option<Change> {
        let run = self.run.take()?;
        let before = run.before.unwrap_or(run.first).pts;
        let mut finished = Finished { before, first: run.first.pts, last: run.last.pts, end: moment.pts };
        if let Some(exact) = run.exact {
            finished.set_begin(exact);
        }
        // What lies between pictures far apart is proven neither by them nor by its edges.
        let is_possible = run.near == run.first && finished.between().1 >= LASTS_MIN;
        match run.is_raised {
            true => Some(Change::Ended(finished)),
            false => is_possible.then_some(Change::Passed(finished)),
        }
    }
}

/// By the stream's clock.
pub(super) fn span(from: Moment, to: Moment) -> Duration {
    span_90k(to.pts.0.saturating_sub(from.pts.0))
}

pub(super) const fn span_90k(ticks: u64) -> Duration {
    Duration::from_micros(ticks.saturating_mul(100) / 9)
}

/// The default of ffmpeg's filters.
pub(super) const LASTS_MIN: Duration = Duration::from_secs(2);
/// Key frames of broadcasts come every two seconds at most; with tolerance.
const FAR_APART: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_seconds_have_to_be_proven() {
        let mut judge = Judge::default();
        assert_eq!((judge.handle_picture(at(0), false), judge.value()), (None, Some(false)));
        // 1.6 s of black may be seen twice.
        assert_eq!((judge.handle_picture(at(1), true), judge.handle_picture(at(2), true)), (None, None));
        let passed = Finished { before: at(0).pts, first: at(1).pts, last: at(2).pts, end: at(3).pts };
        assert_eq!(judge.handle_picture(at(3), false), Some(Change::Passed(passed)));
        assert_eq!(judge.value(), Some(false));
        assert_eq!((judge.handle_picture(at(4), true), judge.value()), (None, None), "it may have begun");
        assert_eq!((judge.handle_picture(at(5), true), judge.value()), (None, None));
        assert_eq!(judge.handle_picture(at(6), true), Some(Change::Began { lasted: seconds(2) }));
        assert_eq!((judge.value(), judge.since()), (Some(true), Some(at(4).at)));
        assert_eq!(judge.handle_picture(at(7), true), None);
        let Some(Change::Ended(mut ended)) = judge.handle_picture(at(8), false) else { panic!("it is over") };
        assert_eq!((ended.lasted(), ended.between()), (seconds(4), (seconds(3), seconds(5))));
        ended.set_begin(at(3).pts);
        ended.set_end(at(7).pts);
        assert_eq!((ended.lasted(), ended.between()), (seconds(4), (seconds(4), seconds(4))));
        assert_eq!((judge.value(), judge.since()), (Some(false), None));
    }

    #[test]
    fn a_freeze_begins_with_the_picture_that_the_others_are_compared_to() {
        let mut judge = Judge::default();
        assert_eq!((judge.handle_compared(at(0), false), judge.value()), (None, None), "compared to nothing");
        assert_eq!((judge.handle_compared(at(1), false), judge.value()), (None, Some(false)));
        assert_eq!(judge.handle_compared(at(2), true), None);
        assert_eq!(judge.handle_compared(at(3), true), Some(Change::Began { lasted: seconds(2) }));
        let Some(Change::Ended(ended)) = judge.handle_compared(at(4), false) else { panic!("it is over") };
        assert_eq!((ended.lasted(), ended.between()), (seconds(3), (seconds(2), seconds(4))));
    }

    #[test]
    fn what_is_bad_from_the_start_is_unknown_until_it_is_proven() {
        let mut judge = Judge::default();
        judge.handle_picture(at(0), true);
        assert_eq!(judge.value(), None);
        judge.handle_picture(at(2), true);
        assert_eq!(judge.value(), Some(true));
        assert_eq!((judge.forget(), judge.value()), (Some(seconds(2)), None));
        assert_eq!(judge.forget(), None, "once");
    }

    #[test]
    fn pictures_far_apart_need_a_third() {
        let mut judge = Judge::default();
        judge.handle_picture(at(0), false);
        assert_eq!((judge.handle_picture(at(5), true), judge.handle_picture(at(10), true)), (None, None));
        assert_eq!(judge.handle_picture(at(15), true), Some(Change::Began { lasted: seconds(10) }));
        // Or two seconds of others.
        judge.handle_picture(at(20), false);
        let later = [25, 30, 31, 32].map(|second| judge.handle_picture(at(second), true));
        assert_eq!(later, [None, None, None, Some(Change::Began { lasted: seconds(7) })]);
        // They are not worth a proof if it is over before.
        let over = [35, 40, 45, 46].map(|second| judge.handle_picture(at(second), (40..46).contains(&second)));
        assert!(matches!(over, [Some(Change::Ended(_)), None, None, None]), "{over:?}");
    }

    #[test]
    fn what_was_decoded_fully_counts_with_what_was_looked_at() {
        for (exact_ms, is_long) in [(501, false), (500, true)] {
            let mut judge = Judge::default();
            judge.handle_picture(at_ms(0), false);
            assert_eq!((judge.handle_picture(at_ms(1_000), true), judge.known_at()), (None, Some(at_ms(1_000).pts)));
            assert_eq!(judge.handle_picture(at_ms(2_500), true), None);
            let change = judge.set_begin(at_ms(1_000).pts, at_ms(exact_ms).pts);
            assert_eq!(change, is_long.then_some(Change::Began { lasted: seconds(2) }));
            assert_eq!(judge.value(), is_long.then_some(true));
            assert_eq!(judge.set_begin(at_ms(1_000).pts, at_ms(exact_ms).pts), None, "once");
        }
        // One picture after four seconds says nothing, but all of those before it do.
        let mut judge = Judge::default();
        judge.handle_picture(at(0), false);
        assert_eq!(judge.handle_picture(at(4), true), None);
        assert_eq!(judge.set_begin(at(4).pts, at(1).pts), Some(Change::Began { lasted: seconds(3) }));
    }

    #[test]
    fn a_freeze_after_a_freeze_begins_behind_the_last_picture_of_it() {
        let mut judge = Judge::default();
        for second in 0..4 {
            judge.handle_compared(at(second), (1..3).contains(&second));
        }
        assert_eq!(judge.handle_compared(at(4), true), None);
        assert_eq!(judge.run(), Some((Some(at(2)), at(3), at(4))));
    }

    fn at(seconds: u64) -> Moment {
        at_ms(seconds * 1_000)
    }

    fn at_ms(ms: u64) -> Moment {
        Moment { at: Time::from_ns(ms * 1_000_000), pts: Ticks90k(ms * 90) }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }
}
