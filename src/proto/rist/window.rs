//! What a receiver holds and what it misses: packets by number, each released when it is due.

use std::collections::VecDeque;
use std::time::Duration;

use super::rtcp::Run;
use crate::bus::Packet;
use crate::units::Time;

/// Packets from the next one to be released up to the highest that came.
///
/// Grows with what is under way, up to [`SLOTS_MAX`] packets: further apart, numbers of 16 bits have no order. What does
/// not fit pushes out the oldest. A packet that is missing is lost as soon as one behind it is due.
#[derive(Debug)]
pub(super) struct Window {
    /// A power of two.
    slots: Vec<Slot>,
    /// The next to be released.
    next: u64,
    /// Behind the highest number that came.
    end: u64,
    /// The first that is held; `end` if none is.
    first: u64,
    held: usize,
    /// Nothing was released or lost yet: what comes late may still go before the first.
    is_new: bool,
    /// When which missing packet is to be asked for, the first time and again; those that came meanwhile included. In
    /// order of time as long as waits are alike.
    fresh: VecDeque<(Time, u64)>,
    again: VecDeque<(Time, u64)>,
    counts: Counts,
}

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    /// Were missing when one behind them was due.
    pub(super) lost: u64,
    /// Pushed out before they were due, or not asked for, because of a bound.
    pub(super) overflow: u64,
}

#[derive(Debug, Default)]
struct Slot {
    sequence: u64,
    state: State,
    /// How often it was asked for, and when last.
    asked: u8,
    asked_at: Time,
    /// When it is due; of a missing one: when the packet is that showed the gap.
    due: Time,
    packet: Option<Packet>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Unknown,
    Missing,
    Held,
    Released,
    Lost,
}

/// What a packet turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Insertion {
    /// Ahead of all before it.
    Ahead,
    /// It was missing, and nobody had asked for it yet.
    Reordered,
    /// It was missing and asked for.
    Recovered {
        /// How often.
        asked: u8,
        /// When, the last time.
        asked_at: Time,
    },
    /// It is there already, or was.
    Duplicate,
    /// It had been given up.
    Late,
}

impl Window {
    /// Waits for `next`.
    pub(super) fn new(next: u64) -> Self {
        Self {
            slots: new_slots(SLOTS_MIN),
            next,
            end: next,
            first: next,
            held: 0,
            is_new: true,
            fresh: VecDeque::new(),
            again: VecDeque::new(),
            counts: Counts::default(),
        }
    }

    /// Takes in a packet that is due at `due`. What it shows to be missing is asked for from `ask_at` on. What it pushes
    /// out goes to `out`.
    pub(super) fn insert(
        &mut self,
        sequence: u64,
        due: Time,
        packet: Packet,
        ask_at: Time,
        out: &mut VecDeque<(Time, Packet)>,
    ) -> Insertion {
        if sequence < self.next && self.is_new && self.next - sequence <= REACH_BACK {
            // All between were sent, too.
            let before = std::mem::replace(&mut self.next, sequence);
            (sequence..before).for_each(|missing| self.miss(missing, due, ask_at));
        }
        if sequence < self.next {
            return self.insert_behind(sequence);
        }
        self.make_room(sequence, out);
        if sequence < self.end {
            return self.fill(sequence, due, packet);
        }
        (self.end..sequence).for_each(|missing| self.miss(missing, due, ask_at));
        if self.held == 0 {
            self.first = sequence;
        }
        self.end = sequence + 1;
        self.held += 1;
        *self.slot_mut(sequence) = Slot { sequence, state: State::Held, due, packet: Some(packet), ..Slot::default() };
        Insertion::Ahead
    }

    /// Releases what is due, in order.
    pub(super) fn release(&mut self, now: Time, out: &mut VecDeque<(Time, Packet)>) {
        while self.next_due().is_some_and(|due| due <= now) {
            self.release_first(out);
        }
    }

    /// Releases all that is held, due or not, and waits for `next`. What is missing among it is lost.
    pub(super) fn restart(&mut self, next: u64, out: &mut VecDeque<(Time, Packet)>) {
        while self.held > 0 {
            self.release_first(out);
        }
        self.fresh.clear();
        self.again.clear();
        (self.next, self.end, self.first, self.is_new) = (next, next, next, true);
    }

    /// Behind the highest number that came.
    pub(super) const fn end(&self) -> u64 {
        self.end
    }

    /// When [`Window::release`] has something to release.
    pub(super) fn next_due(&self) -> Option<Time> {
        (self.held > 0).then(|| self.slot(self.first).due)
    }

    /// When [`Window::take_requests`] has something to ask for; perhaps a little sooner.
    pub(super) fn next_request(&self) -> Option<Time> {
        let front = |queue: &VecDeque<(Time, u64)>| queue.front().map(|(at, _)| *at);
        [front(&self.fresh), front(&self.again)].into_iter().flatten().min()
    }

    /// Fills `runs` with what is to be asked for now, in order; at most `max` packets. Each is asked for again after
    /// `retry`, later and later, but not if it could no longer come: it takes `takes` at least.
    pub(super) fn take_requests(
        &mut self,
        now: Time,
        retry: Duration,
        takes: Duration,
        max: usize,
        scratch: &mut Vec<u64>,
        runs: &mut Vec<Run>,
    ) {
        scratch.clear();
        for is_fresh in [false, true] {
            while scratch.len() < max {
                let queue = if is_fresh { &mut self.fresh } else { &mut self.again };
                let Some((_, sequence)) = queue.pop_front_if(|(at, _)| *at <= now) else { break };
                let slot = self.slot_mut(sequence);
                if slot.sequence != sequence || slot.state != State::Missing || slot.due <= now + takes {
                    continue;
                }
                slot.asked = slot.asked.saturating_add(1);
                slot.asked_at = now;
                // Nobody who has it stays silent for so often: less and less.
                let wait = retry * (1 << (slot.asked / ASKED_OFTEN).min(BACK_OFF_MAX));
                if self.again.len() < SLOTS_MAX {
                    self.again.push_back((now + wait, sequence));
                } else {
                    self.counts.overflow += 1;
                }
                scratch.push(sequence);
            }
        }
        scratch.sort_unstable();
        runs.clear();
        for sequence in &*scratch {
            match runs.last_mut() {
                Some((first, count)) if *first + u64::from(*count) == *sequence => *count += 1,
                _ => runs.push((*sequence, 1)),
            }
        }
    }

    fn miss(&mut self, sequence: u64, due: Time, ask_at: Time) {
        *self.slot_mut(sequence) = Slot { sequence, state: State::Missing, due, ..Slot::default() };
        if self.fresh.len() < SLOTS_MAX {
            self.fresh.push_back((ask_at, sequence));
        } else {
            self.counts.overflow += 1;
        }
    }

    pub(super) const fn counts(&self) -> Counts {
        self.counts
    }

    fn insert_behind(&mut self, sequence: u64) -> Insertion {
        let slot = self.slot_mut(sequence);
        if slot.sequence != sequence {
            // From before the first, or too old to know.
            return Insertion::Late;
        }
        match std::mem::replace(&mut slot.state, State::Released) {
            State::Released => Insertion::Duplicate,
            State::Unknown | State::Missing | State::Held | State::Lost => Insertion::Late,
        }
    }

    fn fill(&mut self, sequence: u64, due: Time, packet: Packet) -> Insertion {
        let slot = self.slot_mut(sequence);
        if slot.state != State::Missing {
            return Insertion::Duplicate;
        }
        (slot.state, slot.due, slot.packet) = (State::Held, due, Some(packet));
        let (asked, asked_at) = (slot.asked, slot.asked_at);
        self.held += 1;
        self.first = self.first.min(sequence);
        if asked == 0 { Insertion::Reordered } else { Insertion::Recovered { asked, asked_at } }
    }

    fn make_room(&mut self, sequence: u64, out: &mut VecDeque<(Time, Packet)>) {
        while sequence - self.next >= self.slots.len() as u64 && self.slots.len() < SLOTS_MAX {
            let mut slots = new_slots(self.slots.len() * 2);
            let mask = slots.len() - 1;
            // Those behind `next` as well: they tell a duplicate from a packet that is late.
            for slot in self.slots.drain(..).filter(|slot| slot.state != State::Unknown) {
                let at = slot.sequence as usize & mask;
                slots[at] = slot;
            }
            self.slots = slots;
        }
        let Some(next) = (sequence + 1).checked_sub(self.slots.len() as u64) else { return };
        while self.held > 0 && self.first < next {
            self.counts.overflow += 1;
            self.release_first(out);
        }
        if self.next < next {
            self.lose_until(next);
            self.end = self.end.max(next);
            if self.held == 0 {
                self.first = self.end;
            }
        }
    }

    fn release_first(&mut self, out: &mut VecDeque<(Time, Packet)>) {
        self.lose_until(self.first);
        let slot = self.slot_mut(self.next);
        slot.state = State::Released;
        let due = slot.due;
        if let Some(packet) = slot.packet.take() {
            out.push_back((due, packet));
        }
        self.held -= 1;
        self.next += 1;
        self.first = self.next;
        while self.first < self.end && self.slot(self.first).state != State::Held {
            self.first += 1;
        }
    }

    fn lose_until(&mut self, next: u64) {
        self.counts.lost += next - self.next;
        self.is_new = false;
        // Slots of those that never had any are as good as lost.
        for sequence in self.next.max(next.saturating_sub(self.slots.len() as u64))..next {
            let slot = self.slot_mut(sequence);
            *slot = Slot { sequence, state: State::Lost, ..Slot::default() };
        }
        self.next = next;
    }

    fn slot(&self, sequence: u64) -> &Slot {
        &self.slots[sequence as usize & (self.slots.len() - 1)]
    }

    fn slot_mut(&mut self, sequence: u64) -> &mut Slot {
        let at = sequence as usize & (self.slots.len() - 1);
        &mut self.slots[at]
    }
}

fn new_slots(count: usize) -> Vec<Slot> {
    std::iter::repeat_with(Slot::default).take(count).collect()
}

/// Slots at first: a second of 5 Mb/s.
const SLOTS_MIN: usize = 512;
/// Half of all numbers: a second of 345 Mb/s.
pub(super) const SLOTS_MAX: usize = 32_768;
/// How far before the first packet one may come that was overtaken by it.
const REACH_BACK: u64 = 64;
/// After so many requests the wait doubles, and again after as many, so often.
const ASKED_OFTEN: u8 = 20;
const BACK_OFF_MAX: u8 = 4;

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::bus::{Meta, Pool, PoolLimits};
    use crate::proto::rtp::random::Random;

    const BUFFER: u64 = 200;

    struct Run {
        pool: Pool,
        window: Window,
        out: VecDeque<(Time, Packet)>,
        scratch: Vec<u64>,
        runs: Vec<(u64, u32)>,
    }

    impl Run {
        fn new(next: u64) -> Self {
            let pool = Pool::new(PoolLimits::default());
            let (out, scratch, runs) = (VecDeque::new(), Vec::new(), Vec::new());
            Self { pool, window: Window::new(next), out, scratch, runs }
        }

        fn insert(&mut self, now: u64, sequence: u64, due: u64) -> Insertion {
            let meta = Meta { sequence: Some(sequence), ..Meta::default() };
            let packet = self.pool.copy(&[1], meta).unwrap();
            self.window.insert(sequence, ms(due), packet, ms(now + 25), &mut self.out)
        }

        fn release(&mut self, now: u64) -> Vec<u64> {
            self.window.release(ms(now), &mut self.out);
            self.out.drain(..).map(|(_, packet)| packet.meta.sequence.unwrap()).collect()
        }

        fn requests(&mut self, now: u64) -> Vec<(u64, u32)> {
            let (retry, takes) = (Duration::from_millis(44), Duration::from_millis(20));
            self.window.take_requests(ms(now), retry, takes, 1_000, &mut self.scratch, &mut self.runs);
            self.runs.clone()
        }
    }

    #[test]
    fn a_gap_is_asked_for_until_it_is_filled() {
        let mut run = Run::new(10);
        run.insert(0, 10, 200);
        run.insert(3, 14, 203);
        assert_eq!((run.requests(27), run.requests(28)), (vec![], vec![(11, 3)]));
        assert_eq!(run.requests(40), []);
        assert_eq!(run.insert(50, 12, 201), Insertion::Recovered { asked: 1, asked_at: ms(28) });
        assert_eq!(run.requests(72), [(11, 1), (13, 1)]);
        assert_eq!(run.insert(90, 11, 201), Insertion::Recovered { asked: 2, asked_at: ms(72) });
        assert_eq!(run.insert(90, 13, 202), Insertion::Recovered { asked: 2, asked_at: ms(72) });
        assert_eq!(run.insert(91, 13, 202), Insertion::Duplicate);
        assert_eq!((run.requests(116), run.release(203)), (vec![], vec![10, 11, 12, 13, 14]));
        assert_eq!(run.insert(210, 13, 202), Insertion::Duplicate);
        assert_eq!(run.window.counts().lost, 0);
    }

    #[test]
    fn what_is_missing_when_one_behind_it_is_due_is_lost_and_no_longer_asked_for() {
        let mut run = Run::new(10);
        run.insert(0, 10, 200);
        run.insert(0, 12, 203);
        assert_eq!(run.window.next_due(), Some(ms(200)));
        assert_eq!(run.release(202), [10]);
        assert_eq!(run.requests(190), [], "it could not come in time");
        assert_eq!(run.release(203), [12]);
        assert_eq!((run.window.counts().lost, run.window.next_due()), (1, None));
        assert_eq!((run.insert(204, 11, 201), run.insert(205, 11, 201)), (Insertion::Late, Insertion::Duplicate));
    }

    #[test]
    fn what_the_first_packet_overtook_goes_before_it() {
        let mut run = Run::new(100);
        run.insert(0, 100, 200);
        assert_eq!(run.insert(1, 97, 199), Insertion::Reordered);
        assert_eq!(run.requests(30), [(98, 2)]);
        assert_eq!(
            (run.insert(40, 98, 199), run.release(200)),
            (Insertion::Recovered { asked: 1, asked_at: ms(30) }, vec![97, 98, 100])
        );
        assert_eq!((run.window.counts().lost, run.insert(201, 96, 198)), (1, Insertion::Late));
    }

    #[test]
    fn the_window_grows_and_then_pushes_out_the_oldest() {
        let mut run = Run::new(0);
        assert_eq!(run.insert(0, 0, 200), Insertion::Ahead);
        assert_eq!(run.insert(0, SLOTS_MAX as u64 - 1, 200), Insertion::Ahead);
        assert_eq!((run.out.len(), run.window.slots.len()), (0, SLOTS_MAX));
        assert_eq!(run.insert(0, SLOTS_MAX as u64, 200), Insertion::Ahead);
        assert_eq!(run.out.len(), 1);
        assert_eq!(run.insert(0, 5, 200), Insertion::Reordered);
        assert_eq!(run.insert(0, 10_000_000, 200), Insertion::Ahead);
        assert_eq!(run.release(200), [0, 5, SLOTS_MAX as u64 - 1, SLOTS_MAX as u64, 10_000_000]);
        assert_eq!(run.window.counts().lost, 10_000_001 - 5);
        assert!(run.window.fresh.len() <= SLOTS_MAX);
    }

    #[test]
    fn a_restart_releases_what_is_held() {
        let mut run = Run::new(10);
        run.insert(0, 10, 200);
        run.insert(0, 12, 200);
        run.window.restart(100_000, &mut run.out);
        assert_eq!((run.release(0), run.window.counts().lost), (vec![10, 12], 1));
        assert_eq!(run.insert(0, 100_000, 200), Insertion::Ahead);
        assert_eq!(run.requests(100), []);
    }

    /// The same rules on maps that remember everything.
    #[derive(Default)]
    struct Model {
        next: u64,
        end: u64,
        held: BTreeMap<u64, u64>,
        missing: BTreeSet<u64>,
        released: BTreeSet<u64>,
        lost: u64,
    }

    impl Model {
        fn insert(&mut self, sequence: u64, due: u64) -> Insertion {
            if sequence < self.next || self.held.contains_key(&sequence) {
                let is_new = !self.held.contains_key(&sequence) && self.released.insert(sequence);
                return if is_new { Insertion::Late } else { Insertion::Duplicate };
            }
            self.held.insert(sequence, due);
            if self.missing.remove(&sequence) {
                return Insertion::Reordered;
            }
            self.missing.extend(self.end..sequence);
            self.end = sequence + 1;
            Insertion::Ahead
        }

        fn release(&mut self, now: u64) -> Vec<u64> {
            let mut out = Vec::new();
            while let Some(first) = self.held.first_entry().filter(|first| *first.get() <= now) {
                let (sequence, _) = first.remove_entry();
                self.lost += sequence - self.next;
                self.missing = self.missing.split_off(&sequence);
                self.next = sequence + 1;
                self.released.insert(sequence);
                out.push(sequence);
            }
            out
        }
    }

    #[test]
    fn random_arrivals_match_the_slow_model() {
        for seed in 0..200 {
            let mut random = Random::new(seed);
            let mut run = Run::new(1_000);
            let mut model = Model { next: 1_000, end: 1_000, ..Model::default() };
            let (mut now, mut head) = (0, 1_000);
            for step in 0..800 {
                now += random.below(4);
                head += [0, 1, 1, 1, 1, 2, 3, 40][random.below(8) as usize];
                let back = [1, 1, 4, 60, 300][random.below(5) as usize];
                let sequence = head - random.below(back);
                if sequence < 1_000 {
                    continue;
                }
                let due = sequence / 4 + BUFFER;
                let context = format!("seed {seed} step {step} sequence {sequence}");
                assert_eq!(run.release(now), model.release(now), "{context}");
                let asked = run.requests(now);
                for (first, count) in asked {
                    assert!(
                        (first..first + u64::from(count)).all(|number| model.missing.contains(&number)),
                        "{context}"
                    );
                }
                let mut inserted = run.insert(now, sequence, due);
                if matches!(inserted, Insertion::Recovered { .. }) {
                    inserted = Insertion::Reordered;
                }
                assert_eq!(inserted, model.insert(sequence, due), "{context}");
                assert_eq!((run.window.counts().lost, run.window.held), (model.lost, model.held.len()), "{context}");
                assert!(run.window.fresh.len() + run.window.again.len() <= 2 * model.end as usize, "{context}");
            }
        }
    }

    fn ms(ms: u64) -> Time {
        Time::ZERO + Duration::from_millis(ms)
    }
}
