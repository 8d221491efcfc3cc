//! `Edges`: what is decoded fully to know when a defect began and ended, to the picture.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::groups::Groups;
use super::job::{ProofFindings, Work};
use super::judge::{Finished, Judge, Moment};
use super::report::Defect;
use super::sight::Out;
use crate::media::boundary::Turn;
use crate::proto::mpegts::demux::AccessUnit;
use crate::units::{Ticks90k, Time};

/// Edges of the defects of one stream's pictures that are to be proven. What is told of a defect's end waits for its proof,
/// for [`WAIT_MAX`] at most.
#[derive(Debug, Default)]
pub(super) struct Edges {
    pub(super) groups: Groups,
    /// What the runs began with that are not told of yet: most are too short.
    begins: [Option<Vec<Arc<AccessUnit>>>; 2],
    queue: VecDeque<Edge>,
    asked: Option<Edge>,
}

#[derive(Debug)]
struct Edge {
    defect: Defect,
    /// The picture that was found to be the first that is so, or the first that is well.
    seen: Ticks90k,
    end: Option<Finished>,
    units: Vec<Arc<AccessUnit>>,
    since: Time,
}

impl Edges {
    pub(super) const fn new() -> Self {
        Self { groups: Groups::new(), begins: [None, None], queue: VecDeque::new(), asked: None }
    }

    /// A picture made a run of bad ones begin: what came before it is kept until it is known whether that matters.
    pub(super) fn handle_suspicion(&mut self, defect: Defect, before: Option<Moment>, first: Moment) {
        let units = before.and_then(|before| self.groups.between(before.pts, first.pts));
        if let Some(begin) = self.begins.get_mut(place(defect)) {
            *begin = units;
        }
    }

    /// The run is long enough to be told of.
    pub(super) fn handle_begin(&mut self, now: Time, defect: Defect, first: Ticks90k) {
        let units = self.begins.get_mut(place(defect)).and_then(Option::take);
        if let Some(units) = units.filter(|_| self.queue.len() < QUEUE_MAX) {
            self.queue.push_back(Edge { defect, seen: first, end: None, units, since: now });
        }
    }

    /// A run ended that was told of. It is told at once if it cannot be proven when.
    pub(super) fn handle_end(&mut self, now: Time, defect: Defect, finished: Finished, out: &mut Out<'_>) {
        let units = self.groups.between(finished.last, finished.end).filter(|_| self.queue.len() < QUEUE_MAX);
        match units {
            Some(units) => {
                self.queue.push_back(Edge { defect, seen: finished.end, end: Some(finished), units, since: now });
            }
            None => out.ended(defect, &finished),
        }
    }

    /// A run ended that nobody was told of.
    pub(super) fn forget_begin(&mut self, defect: Defect) {
        if let Some(begin) = self.begins.get_mut(place(defect)) {
            *begin = None;
        }
    }

    pub(super) fn has_job(&self) -> bool {
        self.asked.is_none() && !self.queue.is_empty()
    }

    pub(super) fn poll_job(&mut self) -> Option<(Work, Vec<Arc<AccessUnit>>)> {
        if self.asked.is_some() {
            return None;
        }
        let mut edge = self.queue.pop_front()?;
        let units = std::mem::take(&mut edge.units);
        let is_end = edge.end.is_some();
        let work = Work::Proof {
            black: is_end && edge.defect == Defect::Black,
            frozen: is_end && edge.defect == Defect::Frozen,
        };
        self.asked = Some(edge);
        Some((work, units))
    }

    /// What came of the proof; `judge` is the one of the defect that [`Edges::asked_defect`] names.
    pub(super) fn handle_outcome(&mut self, proof: Option<&ProofFindings>, judge: &mut Judge, out: &mut Out<'_>) {
        let Some(edge) = self.asked.take() else { return };
        let turn = match (edge.defect, edge.end.is_some()) {
            (Defect::Black, false) => Turn::BlackBegins,
            (Defect::Black, true) => Turn::BlackEnds,
            (_, false) => Turn::FreezeBegins,
            (_, true) => Turn::FreezeEnds,
        };
        let turns = proof.iter().flat_map(|proof| &proof.edges).filter(|found| found.0 == turn);
        let mut turns = turns.map(|found| found.1).filter(|at| *at <= edge.seen);
        let Some(mut finished) = edge.end else {
            // The run began with the last of them, or else with the very picture that was seen.
            if let Some(proof) = proof {
                let exact = turns.next_back().or_else(|| proof.edges.is_empty().then_some(edge.seen));
                exact.into_iter().for_each(|exact| self.set_begin(edge.defect, edge.seen, exact, judge));
            }
            return;
        };
        if let Some(exact) = turns.find(|at| *at > finished.last) {
            finished.set_end(exact);
        }
        out.ended(edge.defect, &finished);
    }

    pub(super) fn asked_defect(&self) -> Option<Defect> {
        self.asked.as_ref().map(|edge| edge.defect)
    }

    /// Ends that wait for too long are told of without a proof.
    pub(super) fn handle_timeout(&mut self, now: Time, out: &mut Out<'_>) {
        let is_late = |edge: &Edge| now.since(edge.since) >= WAIT_MAX;
        while self.queue.front().is_some_and(is_late) {
            if let Some((defect, finished)) = self.queue.pop_front().and_then(|edge| Some((edge.defect, edge.end?))) {
                out.ended(defect, &finished);
            }
        }
    }

    /// Nothing that came goes on. Ends that wait are told of as they are.
    pub(super) fn clear(&mut self, out: &mut Out<'_>) {
        self.groups.clear();
        self.begins = [None, None];
        let waiting = self.asked.iter_mut().filter_map(|edge| Some((edge.defect, edge.end.take()?)));
        waiting.for_each(|(defect, finished)| out.ended(defect, &finished));
        for edge in self.queue.drain(..) {
            if let Some(finished) = edge.end {
                out.ended(edge.defect, &finished);
            }
        }
    }

    /// The run is still on, or its end waits to be proven.
    fn set_begin(&mut self, defect: Defect, seen: Ticks90k, exact: Ticks90k, judge: &mut Judge) {
        judge.set_begin(seen, exact);
        let waiting = self.queue.iter_mut().filter(|edge| edge.defect == defect);
        for finished in waiting.filter_map(|edge| edge.end.as_mut()).filter(|finished| finished.first == seen) {
            finished.set_begin(exact);
        }
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn bytes_held(&self) -> usize {
        let begins = self.begins.iter().flatten().flatten();
        let queue = self.queue.iter().flat_map(|edge| &edge.units);
        let kept: usize = begins.chain(queue).map(|unit| unit.bytes.len()).sum();
        assert!(self.queue.len() <= QUEUE_MAX);
        kept + self.groups.bytes_held()
    }
}

const fn place(defect: Defect) -> usize {
    matches!(defect, Defect::Frozen) as usize
}

/// Both ends of two defects. What waits is shared with the groups or not much older.
const QUEUE_MAX: usize = 4;
/// An event that comes later is of no use.
const WAIT_MAX: Duration = Duration::from_secs(10);
