//! `Edges`: what is decoded fully to know when a defect began and ended, to the picture.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::groups::{Groups, is_leading};
use super::job::{Failure, JOB_BYTES_MAX, JOB_UNITS_MAX, ProofFindings, Work};
use super::judge::{Change, Finished, Judge, LASTS_MIN};
use super::report::{Defect, WatchCounts};
use super::shares::STREAM_BYTES_MAX;
use super::sight::Out;
use crate::media::boundary::Turn;
use crate::proto::mpegts::demux::AccessUnit;
use crate::units::{Ticks90k, Time};

/// Edges of the defects of one stream's pictures that are to be proven. What is told of a defect's end waits for its proof,
/// for [`WAIT_MAX`] at most, and never for longer than until the next of the same kind begins.
///
/// All coded pictures that are kept for this have no more bytes than it was told ([`Edges::set_bytes_max`]). Those that
/// wait for a proof go last.
#[derive(Debug)]
pub(super) struct Edges {
    groups: Groups,
    /// What the runs began with of which nothing was asked yet: most are too short. Empty where it was not there any more.
    begins: [Option<Kept>; 2],
    /// Runs whose edges decoding does not tell: key frames are equal, but what is predicted from them differs from them.
    doubtful: [Option<Ticks90k>; 2],
    queue: VecDeque<Edge>,
    asked: Option<Edge>,
    bytes_max: usize,
    /// Proofs that crashed in a row, and until when nothing is proven therefore.
    crashes: u32,
    not_before: Time,
}

/// Coded pictures.
#[derive(Debug, Default)]
struct Kept {
    /// Empty if there is nothing to be proven with.
    units: Vec<Arc<AccessUnit>>,
    bytes: usize,
    /// When the key frame is shown that is the last of them, as long as others may come that are shown before it.
    until: Option<Ticks90k>,
}

impl Kept {
    fn new(groups: &Groups, from: Ticks90k, to: Ticks90k, behind: usize) -> Self {
        let Some((units, is_whole)) = groups.between(from, to, behind) else { return Self::default() };
        let bytes = units.iter().map(|unit| unit.bytes.len()).sum();
        Self { units, bytes, until: (!is_whole).then_some(to) }
    }

    /// The next picture of the stream.
    fn push(&mut self, unit: &Arc<AccessUnit>, pts: Ticks90k, is_key: bool) {
        self.until = self.until.filter(|until| is_leading(pts, is_key, *until));
        if self.until.is_some() {
            self.bytes += unit.bytes.len();
            self.units.push(Arc::clone(unit));
            if self.bytes > JOB_BYTES_MAX || self.units.len() > JOB_UNITS_MAX {
                *self = Self::default();
            }
        }
    }

    /// What comes does not go on from what came.
    fn disturb(&mut self) {
        if self.until.is_some() {
            *self = Self::default();
        }
    }
}

#[derive(Debug)]
struct Edge {
    defect: Defect,
    /// The picture that was found to be the first that is so, or the first that is well.
    seen: Ticks90k,
    end: Option<End>,
    kept: Kept,
    since: Time,
}

/// The end of a run.
#[derive(Clone, Copy, Debug)]
struct End {
    run: Finished,
    /// Nobody was told that it began, as it may have been too short.
    is_news: bool,
}

impl End {
    /// With all that is known now.
    fn tell(&self, defect: Defect, out: &mut Out<'_>) {
        if !self.is_news {
            out.ended(defect, &self.run);
        } else if self.run.between().0 >= LASTS_MIN {
            out.began(defect, self.run.lasted());
            out.ended(defect, &self.run);
        }
    }
}

impl Edges {
    pub(super) const fn new() -> Self {
        Self {
            groups: Groups::new(),
            begins: [None, None],
            doubtful: [None, None],
            queue: VecDeque::new(),
            asked: None,
            bytes_max: STREAM_BYTES_MAX,
            crashes: 0,
            not_before: Time::ZERO,
        }
    }

    /// The next picture of the stream.
    pub(super) fn push(&mut self, unit: &Arc<AccessUnit>, pts: Ticks90k, is_key: bool, out: &mut Out<'_>) {
        out.counts.groups_dropped += self.groups.push(unit, pts, is_key);
        self.kept_mut().for_each(|kept| kept.push(unit, pts, is_key));
        self.shed(out);
    }

    /// What comes does not go on from what came.
    pub(super) fn disturb(&mut self) {
        self.groups.clear();
        self.kept_mut().for_each(Kept::disturb);
    }

    /// No more may be kept from now on.
    pub(super) fn set_bytes_max(&mut self, bytes_max: usize, out: &mut Out<'_>) {
        self.bytes_max = bytes_max;
        self.shed(out);
    }

    /// Bytes of the pictures that are kept. Those that are kept for several reasons count as often.
    pub(super) fn bytes(&self) -> usize {
        let begins = self.begins.iter().flatten();
        let kept: usize = begins.chain(self.queue.iter().map(|edge| &edge.kept)).map(|kept| kept.bytes).sum();
        kept + self.groups.bytes()
    }

    /// Nothing will have to be proven that was shown before this key frame.
    pub(super) fn forget_before(&mut self, pts: Ticks90k) {
        self.groups.forget_before(pts);
    }

    /// A run of bad pictures began with `first`: what that began in is kept until it is known whether it matters.
    pub(super) fn handle_suspicion(
        &mut self,
        defect: Defect,
        before: Option<Ticks90k>,
        first: Ticks90k,
        out: &mut Out<'_>,
    ) {
        let behind = if defect == Defect::Frozen { BEHIND } else { 0 };
        let kept = before.map(|before| Kept::new(&self.groups, before, first, behind)).unwrap_or_default();
        if let Some(begin) = self.begins.get_mut(place(defect)) {
            *begin = Some(kept);
        }
        self.shed(out);
    }

    /// The run that `first` is the first picture of is or may be long enough to be told of.
    pub(super) fn handle_begin(&mut self, now: Time, defect: Defect, first: Ticks90k, out: &mut Out<'_>) {
        let Some(kept) = self.begins.get_mut(place(defect)).and_then(Option::take) else { return };
        if kept.units.is_empty() || !self.is_proving(now) {
            out.counts.edges_unproven += 1;
        } else {
            self.queue.push_back(Edge { defect, seen: first, end: None, kept, since: now });
        }
    }

    /// A run ended that was told of, or if it `is_news` may have been long enough to be. It is told at once if it cannot be
    /// proven when.
    pub(super) fn handle_end(&mut self, now: Time, defect: Defect, run: Finished, is_news: bool, out: &mut Out<'_>) {
        let end = Some(End { run, is_news });
        let is_doubtful = self.doubtful.get(place(defect)).is_some_and(|doubtful| *doubtful == Some(run.first));
        let kept = Kept::new(&self.groups, run.last, run.end, 0);
        if kept.units.is_empty() || is_doubtful || !self.is_proving(now) {
            unproven(defect, end.as_ref(), out);
        } else {
            self.queue.push_back(Edge { defect, seen: run.end, end, kept, since: now });
        }
        self.shed(out);
    }

    /// A run ended that nobody was told of.
    pub(super) fn forget_begin(&mut self, defect: Defect) {
        if let Some(begin) = self.begins.get_mut(place(defect)) {
            *begin = None;
        }
    }

    /// Pictures of the edge that is to be proven next, if there is one.
    pub(super) fn waiting(&self) -> Option<usize> {
        let next = &self.queue.front().filter(|_| self.asked.is_none())?.kept;
        (next.until.is_none() && !next.units.is_empty()).then_some(next.units.len())
    }

    pub(super) fn poll_job(&mut self) -> Option<(Work, Vec<Arc<AccessUnit>>)> {
        self.waiting()?;
        let mut edge = self.queue.pop_front()?;
        let units = std::mem::take(&mut edge.kept).units;
        let is_end = edge.end.is_some();
        let work = Work::Proof {
            black: is_end && edge.defect == Defect::Black,
            frozen: is_end && edge.defect == Defect::Frozen,
        };
        self.asked = Some(edge);
        Some((work, units))
    }

    /// The edge that waits is never going to be proven.
    pub(super) fn refuse(&mut self, out: &mut Out<'_>) {
        if let Some(edge) = self.queue.pop_front() {
            unproven(edge.defect, edge.end.as_ref(), out);
        }
    }

    /// What came of the proof; `judge` is the one of the defect that [`Edges::asked_defect`] names.
    pub(super) fn handle_outcome(
        &mut self,
        now: Time,
        result: Result<ProofFindings, Failure>,
        judge: &mut Judge,
        out: &mut Out<'_>,
    ) {
        if result == Err(Failure::Crashed) {
            // The next one may be as bad.
            self.crashes += 1;
            self.not_before = now + (CRASH_PAUSE * 2_u32.pow(self.crashes.min(8) - 1)).min(CRASH_PAUSE_MAX);
            while !self.queue.is_empty() {
                self.refuse(out);
            }
        } else {
            self.crashes = 0;
        }
        let Some(edge) = self.asked.take() else { return };
        let Ok(proof) = result else {
            unproven(edge.defect, edge.end.as_ref(), out);
            return;
        };
        let [begins, ends] = if edge.defect == Defect::Black {
            [Turn::BlackBegins, Turn::BlackEnds]
        } else {
            [Turn::FreezeBegins, Turn::FreezeEnds]
        };
        out.counts.edges_proven += 1;
        let Some(mut end) = edge.end else {
            match begin_of(&edge, &proof, [begins, ends]) {
                Some(exact) => self.set_begin(&edge, exact, judge, out),
                None => self.set_doubtful(&edge, out),
            }
            return;
        };
        let mut turns = proof.edges.iter().filter(|found| found.0 == ends).map(|found| found.1);
        if let Some(exact) = turns.find(|at| *at <= edge.seen && *at > end.run.last) {
            end.run.set_end(exact);
        }
        end.tell(edge.defect, out);
    }

    pub(super) fn asked_defect(&self) -> Option<Defect> {
        self.asked.as_ref().map(|edge| edge.defect)
    }

    /// What waits for too long is told of without a proof, be it that the proof is being done.
    pub(super) fn handle_timeout(&mut self, now: Time, out: &mut Out<'_>) {
        let is_late = |edge: &Edge| now.since(edge.since) >= WAIT_MAX;
        if let Some(edge) = self.asked.take_if(|edge| is_late(edge)) {
            unproven(edge.defect, edge.end.as_ref(), out);
        }
        while self.queue.front().is_some_and(|edge| is_late(edge) || edge.kept.units.is_empty()) {
            self.refuse(out);
        }
    }

    /// Nothing that came goes on. Ends that wait are told of as they are.
    pub(super) fn clear(&mut self, out: &mut Out<'_>) {
        self.groups.clear();
        self.begins = [None, None];
        for edge in self.asked.take().into_iter().chain(self.queue.drain(..)) {
            unproven(edge.defect, edge.end.as_ref(), out);
        }
    }

    fn kept_mut(&mut self) -> impl Iterator<Item = &mut Kept> {
        self.begins.iter_mut().flatten().chain(self.queue.iter_mut().map(|edge| &mut edge.kept))
    }

    fn is_proving(&self, now: Time) -> bool {
        self.queue.len() < QUEUE_MAX && now >= self.not_before
    }

    /// Tells of the ends that wait, without a proof: the next run of the kind is told of.
    pub(super) fn tell_ends(&mut self, defect: Defect, out: &mut Out<'_>) {
        if let Some(edge) = self.asked.take_if(|edge| edge.defect == defect && edge.end.is_some()) {
            unproven(defect, edge.end.as_ref(), out);
        }
        self.tell_waiting(|edge, _| edge.defect == defect, out);
    }

    /// Tells of those that wait for a proof of their end and are such.
    fn tell_waiting(&mut self, is_such: impl Fn(&Edge, &Finished) -> bool, out: &mut Out<'_>) {
        self.queue.retain(|edge| {
            let is_told = edge.end.as_ref().is_some_and(|end| is_such(edge, &end.run));
            if is_told {
                unproven(edge.defect, edge.end.as_ref(), out);
            }
            !is_told
        });
    }

    /// The run is still on, or its end waits to be proven.
    fn set_begin(&mut self, begin: &Edge, exact: Ticks90k, judge: &mut Judge, out: &mut Out<'_>) {
        if let Some(Change::Began { lasted }) = judge.set_begin(begin.seen, exact) {
            self.tell_ends(begin.defect, out);
            out.began(begin.defect, lasted);
        }
        self.queue.retain_mut(|edge| {
            let Some(end) = &mut edge.end else { return true };
            if edge.defect == begin.defect && end.run.first == begin.seen {
                end.run.set_begin(exact);
            }
            !end.is_news || end.run.between().1 >= LASTS_MIN
        });
    }

    /// Decoding does not tell when the run began, nor will it tell when it ends.
    fn set_doubtful(&mut self, begin: &Edge, out: &mut Out<'_>) {
        if let Some(doubtful) = self.doubtful.get_mut(place(begin.defect)) {
            *doubtful = Some(begin.seen);
        }
        self.tell_waiting(|edge, run| edge.defect == begin.defect && run.first == begin.seen, out);
    }

    /// Gives up what is least worth until no more is kept than may be.
    fn shed(&mut self, out: &mut Out<'_>) {
        while self.bytes() > self.bytes_max {
            if self.groups.bytes() > 0 {
                self.groups.drop_group();
                out.counts.groups_dropped += 1;
            } else if let Some(begin) = self.begins.iter_mut().flatten().find(|begin| begin.bytes > 0) {
                *begin = Kept::default();
            } else {
                self.refuse(out);
            }
        }
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn bytes_held(&self) -> usize {
        assert!(self.queue.len() <= QUEUE_MAX && self.bytes() <= self.bytes_max);
        let kept = self.begins.iter().flatten().chain(self.queue.iter().map(|edge| &edge.kept));
        for kept in kept {
            assert_eq!(kept.bytes, kept.units.iter().map(|unit| unit.bytes.len()).sum::<usize>());
        }
        self.groups.bytes_held();
        self.bytes()
    }
}

/// The run began with the last beginning, if nothing ended since. What ends behind the key frame that was seen to be the
/// first makes that doubtful.
fn begin_of(edge: &Edge, proof: &ProofFindings, [begins, ends]: [Turn; 2]) -> Option<Ticks90k> {
    let mut turns = proof.edges.iter().filter(|(turn, _)| *turn == begins || *turn == ends);
    let ends_behind = turns.clone().any(|(turn, at)| *turn == ends && *at > edge.seen);
    let last = turns.next_back().filter(|last| last.0 == begins && !ends_behind)?;
    Some(last.1)
}

/// There is no proof of the edge.
fn unproven(defect: Defect, end: Option<&End>, out: &mut Out<'_>) {
    let WatchCounts { edges_unproven, .. } = out.counts;
    *edges_unproven += 1;
    if let Some(end) = end {
        end.tell(defect, out);
    }
}

const fn place(defect: Defect) -> usize {
    matches!(defect, Defect::Frozen) as usize
}

/// Both ends of two defects.
const QUEUE_MAX: usize = 4;
/// Pictures behind the key frame that a freeze was seen to begin with: those next to it tell whether it began there, and
/// those up to the next one, of the short groups of MPEG-2, whether it is one.
const BEHIND: usize = 15;
/// An event that comes later is of no use.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(10);
/// After a proof that crashed, and after many in a row.
const CRASH_PAUSE: Duration = Duration::from_secs(10);
const CRASH_PAUSE_MAX: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::super::{Event, Events};
    use super::*;
    use crate::proto::mpegts::demux::Codec;

    #[test]
    fn an_end_is_told_before_the_next_beginning_and_never_twice() {
        for is_asked in [false, true] {
            let mut bed = Bed::new();
            bed.end(Defect::Black);
            bed.end(Defect::Frozen);
            assert_eq!(bed.take_events(), [], "they wait to be proven");
            if is_asked {
                assert!(bed.edges.poll_job().is_some());
            }
            bed.begin(Defect::Black);
            assert!(matches!(bed.take_events()[..], [Event::Ended { defect: Defect::Black, .. }]));
            let mut judge = Judge::new();
            let proven = Ok(ProofFindings::default());
            let Bed { edges, events, counts, now } = &mut bed;
            edges.handle_outcome(*now, proven, &mut judge, &mut Out { events, counts });
            assert_eq!(bed.take_events(), [], "of what nobody waits for any more");
        }
    }

    #[test]
    fn nothing_waits_for_a_proof_for_ever() {
        let mut bed = Bed::new();
        bed.end(Defect::Black);
        assert!(bed.edges.poll_job().is_some());
        bed.end(Defect::Frozen);
        bed.now += WAIT_MAX - Duration::from_millis(1);
        bed.handle_timeout();
        assert_eq!(bed.take_events(), []);
        bed.now += Duration::from_millis(1);
        bed.handle_timeout();
        assert_eq!((bed.take_events().len(), bed.counts.edges_unproven), (2, 2));
    }

    #[test]
    fn a_run_begins_where_nothing_ends_any_more() {
        let turns = [Turn::FreezeBegins, Turn::FreezeEnds];
        let [begins, ends] = turns;
        for (edges, exact) in [
            (vec![(begins, 4), (ends, 6), (begins, 8)], Some(8)),
            (vec![(begins, 4), (ends, 9), (begins, 9), (Turn::BlackEnds, 12)], Some(9)),
            (vec![(begins, 9), (ends, 10), (begins, 11)], None),
            (vec![(begins, 4), (ends, 6)], None),
            (vec![(Turn::BlackBegins, 4)], None),
            (vec![], None),
        ] {
            let (defect, seen, kept, since) = (Defect::Frozen, Ticks90k(9), Kept::default(), Time::ZERO);
            let edge = Edge { defect, seen, end: None, kept, since };
            let proof = ProofFindings { edges: edges.iter().map(|(turn, at)| (*turn, Ticks90k(*at))).collect() };
            assert_eq!(begin_of(&edge, &proof, turns), exact.map(Ticks90k), "{edges:?}");
        }
    }

    #[test]
    fn a_run_that_was_too_short_for_key_frames_is_told_of_if_it_is_proven_to_be_long_enough() {
        // Key frames come every 1.2 s; seen from the second to the third, or only at the second.
        for (last_ms, begin_ms, end_ms, asked, is_told) in [
            (2_400, 500, 2_500, 2, true),
            (2_400, 500, 2_499, 2, false),
            (2_400, 1_200, 3_100, 2, false),
            (1_200, 300, 2_300, 2, true),
            // The beginning tells that it is too short.
            (1_200, 500, 2_300, 1, false),
        ] {
            let mut bed = Bed::new();
            bed.edges.groups.clear();
            (0..=4).for_each(|at| bed.push(at * 108_000));
            let [before, first, last, end] = [0, 1_200, last_ms, last_ms + 1_200].map(at_ms);
            let run = Finished { before, first, last, end };
            let Bed { edges, events, counts, now } = &mut bed;
            let out = &mut Out { events, counts };
            edges.handle_suspicion(Defect::Black, Some(run.before), run.first, out);
            edges.handle_begin(*now, Defect::Black, run.first, out);
            edges.handle_end(*now, Defect::Black, run, true, out);
            let mut found = [(Turn::BlackBegins, at_ms(begin_ms)), (Turn::BlackEnds, at_ms(end_ms))].into_iter();
            while edges.poll_job().is_some() {
                let proof = ProofFindings { edges: found.next().into_iter().collect() };
                edges.handle_outcome(*now, Ok(proof), &mut Judge::new(), out);
            }
            assert_eq!(found.len(), 2 - asked);
            let exact = Duration::from_millis(end_ms - begin_ms);
            let (defect, between) = (Defect::Black, (exact, exact));
            let told = [
                Event::Began { defect, lasted: exact },
                Event::Ended { defect, lasted: exact, between, lost_sight: None },
            ];
            assert_eq!(bed.take_events(), if is_told { &told[..] } else { &[] }, "{begin_ms} {end_ms}");
        }
    }

    #[test]
    fn nothing_is_said_to_be_exact_where_pictures_between_equal_key_frames_differ() {
        let mut bed = Bed::new();
        let Bed { edges, events, counts, now } = &mut bed;
        let out = &mut Out { events, counts };
        edges.handle_suspicion(Defect::Frozen, Some(Ticks90k(1)), Ticks90k(2), out);
        edges.handle_begin(*now, Defect::Frozen, Ticks90k(1), out);
        bed.end(Defect::Frozen);
        assert_eq!((bed.edges.poll_job().is_some(), bed.take_events().len()), (true, 0));
        let Bed { edges, events, counts, now } = &mut bed;
        let pulses = ProofFindings { edges: vec![(Turn::FreezeBegins, Ticks90k(1)), (Turn::FreezeEnds, Ticks90k(2))] };
        edges.handle_outcome(*now, Ok(pulses), &mut Judge::new(), &mut Out { events, counts });
        assert_eq!((bed.take_events().len(), bed.edges.waiting()), (1, None), "its end is told of as it was seen");
        bed.end(Defect::Frozen);
        assert_eq!((bed.take_events().len(), bed.edges.waiting()), (1, None), "nor is that of any other");
    }

    #[test]
    fn after_a_crash_nothing_is_proven_for_a_while() {
        let mut bed = Bed::new();
        for pause in [CRASH_PAUSE, CRASH_PAUSE * 2] {
            bed.end(Defect::Black);
            assert!(bed.edges.poll_job().is_some());
            let Bed { edges, events, counts, now } = &mut bed;
            edges.handle_outcome(*now, Err(Failure::Crashed), &mut Judge::new(), &mut Out { events, counts });
            assert_eq!(bed.take_events().len(), 1);
            bed.now += pause - Duration::from_millis(1);
            bed.end(Defect::Black);
            assert_eq!((bed.edges.waiting(), bed.take_events().len()), (None, 1));
            bed.now += Duration::from_millis(1);
        }
    }

    #[test]
    fn no_more_is_kept_than_may_be_and_what_waits_goes_last() {
        let mut bed = Bed::new();
        bed.end(Defect::Black);
        let kept = bed.edges.bytes();
        assert_eq!(kept, 4 * 1_000 + 2 * 1_000);
        for (bytes_max, left) in [(3_000, 3_000), (1_999, 0)] {
            let Bed { edges, events, counts, .. } = &mut bed;
            edges.set_bytes_max(bytes_max, &mut Out { events, counts });
            assert_eq!(bed.edges.bytes_held(), left);
        }
        assert_eq!((bed.take_events().len(), bed.counts.groups_dropped, bed.counts.edges_unproven), (1, 4, 1));
        // And nothing comes in that has no place.
        bed.push(90);
        assert_eq!(bed.edges.bytes_held(), 1_000);
        bed.push(91);
        assert_eq!(bed.edges.bytes_held(), 1_000);
    }

    #[test]
    fn a_proof_waits_for_the_pictures_that_are_shown_before_its_last_one() {
        for is_disturbed in [false, true] {
            let mut bed = Bed::new();
            bed.push(50);
            let [before, first, last, end] = [2, 3, 4, 50].map(Ticks90k);
            let Bed { edges, events, counts, now } = &mut bed;
            let run = Finished { before, first, last, end };
            edges.handle_end(*now, Defect::Black, run, false, &mut Out { events, counts });
            bed.push_picture(48, false);
            assert_eq!(bed.edges.waiting(), None);
            if is_disturbed {
                bed.edges.disturb();
            }
            bed.push_picture(51, false);
            assert_eq!(bed.edges.waiting(), (!is_disturbed).then_some(3));
            bed.handle_timeout();
            assert_eq!(bed.take_events().len(), usize::from(is_disturbed), "told as it was seen");
            bed.edges.bytes_held();
        }
    }

    /// Edges of a stream of key frames at 1, 2, 3, 4, of a kilobyte each.
    struct Bed {
        edges: Edges,
        events: Events,
        counts: WatchCounts,
        now: Time,
    }

    impl Bed {
        fn new() -> Self {
            let (events, counts) = (Events::default(), WatchCounts::default());
            let mut bed = Self { edges: Edges::new(), events, counts, now: Time::from_ns(1 << 40) };
            (1..=4).for_each(|at| bed.push(at));
            bed
        }

        fn push(&mut self, pts: u64) {
            self.push_picture(pts, true);
        }

        fn push_picture(&mut self, pts: u64, is_key: bool) {
            let pts = Ticks90k(pts);
            let codec = Codec::H264;
            let unit = AccessUnit { pid: Default::default(), codec, pts: Some(pts), dts: None, bytes: vec![0; 1_000] };
            let Self { edges, events, counts, .. } = self;
            edges.push(&Arc::new(unit), pts, is_key, &mut Out { events, counts });
        }

        fn begin(&mut self, defect: Defect) {
            let Self { edges, events, counts, .. } = self;
            edges.tell_ends(defect, &mut Out { events, counts });
        }

        fn end(&mut self, defect: Defect) {
            let [before, first, last, end] = [1, 1, 2, 3].map(Ticks90k);
            let Self { edges, events, counts, now } = self;
            let run = Finished { before, first, last, end };
            edges.handle_end(*now, defect, run, false, &mut Out { events, counts });
        }

        fn handle_timeout(&mut self) {
            let Self { edges, events, counts, now } = self;
            edges.handle_timeout(*now, &mut Out { events, counts });
        }

        fn take_events(&mut self) -> Vec<Event> {
            self.events.queue.drain(..).collect()
        }
    }

    const fn at_ms(ms: u64) -> Ticks90k {
        Ticks90k(ms * 90)
    }
}
