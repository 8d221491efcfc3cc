//! `Edges`: what is decoded fully to know when a defect began and ended, to the picture.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::groups::Groups;
use super::job::{Failure, ProofFindings, Work};
use super::judge::{Finished, Judge, Moment};
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
    /// What the runs began with that are not told of yet: most are too short.
    begins: [Option<Kept>; 2],
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
    units: Vec<Arc<AccessUnit>>,
    bytes: usize,
}

impl Kept {
    fn new(units: Vec<Arc<AccessUnit>>) -> Self {
        let bytes = units.iter().map(|unit| unit.bytes.len()).sum();
        Self { units, bytes }
    }
}

#[derive(Debug)]
struct Edge {
    defect: Defect,
    /// The picture that was found to be the first that is so, or the first that is well.
    seen: Ticks90k,
    end: Option<Finished>,
    kept: Kept,
    since: Time,
}

impl Edges {
    pub(super) const fn new() -> Self {
        Self {
            groups: Groups::new(),
            begins: [None, None],
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
        self.shed(out);
    }

    /// What comes does not go on from what came.
    pub(super) fn disturb(&mut self) {
        self.groups.clear();
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

    /// A picture made a run of bad ones begin: what came before it is kept until it is known whether that matters.
    pub(super) fn handle_suspicion(
        &mut self,
        defect: Defect,
        before: Option<Moment>,
        first: Moment,
        out: &mut Out<'_>,
    ) {
        let units = before.and_then(|before| self.groups.between(before.pts, first.pts));
        if let Some(begin) = self.begins.get_mut(place(defect)) {
            *begin = units.map(Kept::new);
        }
        self.shed(out);
    }

    /// The run is long enough to be told of. Earlier ones of the same kind are told of now, if they are not yet.
    pub(super) fn handle_begin(&mut self, now: Time, defect: Defect, first: Ticks90k, out: &mut Out<'_>) {
        self.tell_ends(defect, out);
        let kept = self.begins.get_mut(place(defect)).and_then(Option::take);
        match kept.filter(|_| self.is_proving(now)) {
            Some(kept) => self.queue.push_back(Edge { defect, seen: first, end: None, kept, since: now }),
            None => out.counts.edges_unproven += 1,
        }
    }

    /// A run ended that was told of. It is told at once if it cannot be proven when.
    pub(super) fn handle_end(&mut self, now: Time, defect: Defect, finished: Finished, out: &mut Out<'_>) {
        let units = self.groups.between(finished.last, finished.end).filter(|_| self.is_proving(now));
        match units {
            Some(units) => {
                let edge = Edge { defect, seen: finished.end, end: Some(finished), kept: Kept::new(units), since: now };
                self.queue.push_back(edge);
            }
            None => unproven(defect, Some(&finished), out),
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
        let next = self.queue.front().filter(|_| self.asked.is_none())?;
        Some(next.kept.units.len())
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
        let Some(mut finished) = edge.end else {
            if let Some(exact) = begin_of(&edge, &proof, [begins, ends]) {
                self.set_begin(edge.defect, edge.seen, exact, judge);
            }
            return;
        };
        let mut turns = proof.edges.iter().filter(|found| found.0 == ends).map(|found| found.1);
        if let Some(exact) = turns.find(|at| *at <= edge.seen && *at > finished.last) {
            finished.set_end(exact);
        }
        out.ended(edge.defect, &finished);
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
        while self.queue.front().is_some_and(is_late) {
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

    fn is_proving(&self, now: Time) -> bool {
        self.queue.len() < QUEUE_MAX && now >= self.not_before
    }

    /// Tells of the ends that wait, without a proof.
    fn tell_ends(&mut self, defect: Defect, out: &mut Out<'_>) {
        let is_such = |edge: &Edge| edge.defect == defect && edge.end.is_some();
        if let Some(edge) = self.asked.take_if(|edge| is_such(edge)) {
            unproven(defect, edge.end.as_ref(), out);
        }
        self.queue.retain(|edge| {
            if is_such(edge) {
                unproven(defect, edge.end.as_ref(), out);
            }
            !is_such(edge)
        });
    }

    /// The run is still on, or its end waits to be proven.
    fn set_begin(&mut self, defect: Defect, seen: Ticks90k, exact: Ticks90k, judge: &mut Judge) {
        judge.set_begin(seen, exact);
        let waiting = self.queue.iter_mut().filter(|edge| edge.defect == defect);
        for finished in waiting.filter_map(|edge| edge.end.as_mut()).filter(|finished| finished.first == seen) {
            finished.set_begin(exact);
        }
    }

    /// Gives up what is least worth until no more is kept than may be.
    fn shed(&mut self, out: &mut Out<'_>) {
        while self.bytes() > self.bytes_max {
            if self.groups.bytes() > 0 {
                self.groups.drop_group();
                out.counts.groups_dropped += 1;
            } else if let Some(begin) = self.begins.iter_mut().find(|begin| begin.is_some()) {
                *begin = None;
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

/// The run began with the last beginning before the picture that was seen, if nothing ended since; or else with that very
/// picture: that others are like it is told only by those after it.
fn begin_of(edge: &Edge, proof: &ProofFindings, [begins, ends]: [Turn; 2]) -> Option<Ticks90k> {
    let mut turns = proof.edges.iter().filter(|(turn, at)| *at <= edge.seen && (*turn == begins || *turn == ends));
    match turns.next_back() {
        Some((turn, at)) if *turn == begins => Some(*at),
        _ if edge.defect == Defect::Frozen || proof.edges.is_empty() => Some(edge.seen),
        _ => None,
    }
}

/// There is no proof of the edge.
fn unproven(defect: Defect, end: Option<&Finished>, out: &mut Out<'_>) {
    let WatchCounts { edges_unproven, .. } = out.counts;
    *edges_unproven += 1;
    if let Some(finished) = end {
        out.ended(defect, finished);
    }
}

const fn place(defect: Defect) -> usize {
    matches!(defect, Defect::Frozen) as usize
}

/// Both ends of two defects.
const QUEUE_MAX: usize = 4;
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
    fn a_freeze_begins_where_nothing_ends_any_more() {
        let (begins, ends) = (Turn::FreezeBegins, Turn::FreezeEnds);
        for (defect, edges, exact) in [
            (Defect::Frozen, vec![(begins, 4), (ends, 6), (begins, 8)], Some(8)),
            (Defect::Frozen, vec![(begins, 4), (ends, 6)], Some(9)),
            (Defect::Frozen, vec![(begins, 4), (ends, 9)], Some(9)),
            (Defect::Frozen, vec![(begins, 4), (ends, 6), (begins, 9), (ends, 10)], Some(9)),
            (Defect::Frozen, vec![(Turn::BlackEnds, 4)], Some(9)),
            (Defect::Frozen, vec![], Some(9)),
            (Defect::Black, vec![(Turn::BlackBegins, 7), (begins, 8)], Some(7)),
            (Defect::Black, vec![(Turn::BlackBegins, 4), (Turn::BlackEnds, 6)], None),
        ] {
            let (seen, kept, since) = (Ticks90k(9), Kept::default(), Time::ZERO);
            let edge = Edge { defect, seen, end: None, kept, since };
            let turns = if defect == Defect::Black { [Turn::BlackBegins, Turn::BlackEnds] } else { [begins, ends] };
            let proof = ProofFindings { edges: edges.iter().map(|(turn, at)| (*turn, Ticks90k(*at))).collect() };
            assert_eq!(begin_of(&edge, &proof, turns), exact.map(Ticks90k), "{edges:?}");
        }
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
        assert_eq!(kept, 3 * 1_000 + 2 * 1_000);
        for (bytes_max, left) in [(3_000, 3_000), (1_999, 0)] {
            let Bed { edges, events, counts, .. } = &mut bed;
            edges.set_bytes_max(bytes_max, &mut Out { events, counts });
            assert_eq!(bed.edges.bytes_held(), left);
        }
        assert_eq!((bed.take_events().len(), bed.counts.groups_dropped, bed.counts.edges_unproven), (1, 3, 1));
        // And nothing comes in that has no place.
        bed.push(90);
        assert_eq!(bed.edges.bytes_held(), 1_000);
        bed.push(91);
        assert_eq!(bed.edges.bytes_held(), 1_000);
    }

    /// Edges of a stream of key frames at 1, 2, 3, of a kilobyte each.
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
            (1..=3).for_each(|at| bed.push(at));
            bed
        }

        fn push(&mut self, pts: u64) {
            let pts = Ticks90k(pts);
            let codec = Codec::H264;
            let unit = AccessUnit { pid: Default::default(), codec, pts: Some(pts), dts: None, bytes: vec![0; 1_000] };
            let Self { edges, events, counts, .. } = self;
            edges.push(&Arc::new(unit), pts, true, &mut Out { events, counts });
        }

        fn begin(&mut self, defect: Defect) {
            let Self { edges, events, counts, now } = self;
            edges.handle_begin(*now, defect, Ticks90k(3), &mut Out { events, counts });
        }

        fn end(&mut self, defect: Defect) {
            let [before, first, last, end] = [1, 1, 2, 3].map(Ticks90k);
            let Self { edges, events, counts, now } = self;
            edges.handle_end(*now, defect, Finished { before, first, last, end }, &mut Out { events, counts });
        }

        fn handle_timeout(&mut self) {
            let Self { edges, events, counts, now } = self;
            edges.handle_timeout(*now, &mut Out { events, counts });
        }

        fn take_events(&mut self) -> Vec<Event> {
            self.events.queue.drain(..).collect()
        }
    }
}
