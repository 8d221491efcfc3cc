//! What must hold for any events whatever; shared by the unit tests and the fuzz target.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::leg::State;
use super::{Config, Event, Merger, Mode, RecoveryWindow};
use crate::bus::{Meta, Packet, Pool, PoolLimits};
use crate::units::{Ticks90k, Time};

/// Runs a merger by `script`. Its first byte says whether legs are merely lossy, slow and out of order, in which case what
/// is released agrees with a slow model packet by packet; or whether they also start over, told or not, come and go, and
/// carry other programmes, in which case what is released at least never repeats, goes back or gets mixed up.
pub fn check_any_script(script: &[u8]) {
    match script.split_first() {
        Some((first, script)) if first.is_multiple_of(2) => check_against_model(first / 2, script),
        Some((first, script)) => check_wild(first / 2, script),
        None => {}
    }
}

fn check_against_model(kind: u8, script: &[u8]) {
    let reorder_window = Duration::from_millis(u64::from(kind % 3) * 5);
    let config = Config { reorder_window, packets_max: RING, recovery_window: WINDOW, ..Config::default() };
    let mut world = World::new(config);
    world.begin();
    let last = [Some(world.now); LEGS];
    let mut model = Model { next: world.number, reorder_window, last, ..Model::default() };
    let first = world.merger.ring.end() - world.number;
    let mut bytes = script.iter().copied();
    while let Some(op) = bytes.next() {
        match op % 4 {
            // What is further ahead would be out of the blue.
            0 if first + world.number < world.merger.ring.end() + 50 => world.send(op / 4),
            0 => {}
            1 | 2 => {
                let leg = usize::from(op / 4) % LEGS;
                if let Some(sent) = world.take(leg, bytes.next().unwrap_or(0)) {
                    world.deliver(leg, &sent);
                    model.push(leg, world.now, sent.index);
                }
            }
            _ => {
                world.wait(Duration::from_micros(u64::from(op / 4) * 1_500));
                world.forget(Duration::from_millis(800));
            }
        }
        world.run();
        model.run(world.now);
        let released: Vec<u64> = world.released.drain(..).map(|released| released.index).collect();
        assert_eq!(released, model.released, "at {:?}", world.now);
        model.released.clear();
        let stats = world.merger.stats();
        assert_eq!((stats.lost, stats.late, stats.duplicate), (model.lost, model.late, model.duplicate));
        world.check_accounts();
    }
}

fn check_wild(kind: u8, script: &[u8]) {
    let mode = if kind.is_multiple_of(2) { Mode::OnGaps } else { Mode::Align };
    let recovery_window = if kind % 4 < 2 { WINDOW } else { RecoveryWindow::Auto };
    let mut world = World::new(Config { mode, packets_max: RING, recovery_window, ..Config::default() });
    // The last leg carries another programme, or the same numbers with other payload.
    world.programme[LEGS - 1] = kind / 4 % 3;
    let mut bytes = script.iter().copied();
    while let Some(op) = bytes.next() {
        let leg = usize::from(op / 8) % LEGS;
        match op % 8 {
            0 | 1 => world.send(op / 8),
            2..=4 => {
                if let Some(sent) = world.take(leg, bytes.next().unwrap_or(0)) {
                    world.deliver(leg, &sent);
                }
            }
            5 => world.wait(Duration::from_micros(u64::from(op / 8) * 3_000)),
            6 => world.wait(Duration::from_millis(u64::from(op / 8) * 40)),
            _ => match bytes.next().unwrap_or(0) % 4 {
                0 | 1 => world.life += 1,
                2 => world.merger.restart(world.now, leg as u8),
                _ => {
                    world.merger.remove_leg(world.now, leg as u8);
                    world.merger.add_leg(leg as u8);
                    world.delivered[leg] = 0;
                    world.told[leg] = u64::MAX;
                }
            },
        }
        world.run();
        world.check_stream();
    }
}

/// A sender with three legs, and the merger they end at.
struct World {
    pool: Pool,
    merger: Merger,
    now: Time,
    /// Of the next packet.
    number: u64,
    life: u64,
    pending: [VecDeque<Sent>; LEGS],
    /// Zero is the common one.
    programme: [u8; LEGS],
    /// The life that each leg was last in, as far as the merger knows.
    told: [u64; LEGS],
    delivered: [u64; LEGS],
    released: Vec<Released>,
    latest: Option<Released>,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    life: u64,
    index: u64,
    at: Time,
}

#[derive(Clone, Copy, Debug)]
struct Released {
    sequence: u64,
    programme: u8,
    life: u64,
    index: u64,
}

impl World {
    fn new(config: Config) -> Self {
        let mut merger = Merger::new(config);
        (0..LEGS as u8).for_each(|leg| merger.add_leg(leg));
        Self {
            pool: Pool::new(PoolLimits { small_max: 4_096, large_max: 0 }),
            merger,
            now: Time::from_ns(1_000_000_000),
            number: 0,
            life: 0,
            pending: Default::default(),
            programme: [0; LEGS],
            told: [u64::MAX; LEGS],
            delivered: [0; LEGS],
            released: Vec::new(),
            latest: None,
        }
    }

    /// All legs deliver some packets, so that all are merged.
    fn begin(&mut self) {
        for _ in 0..6 {
            self.send(0);
            for leg in 0..LEGS {
                if let Some(sent) = self.take(leg, 0) {
                    self.deliver(leg, &sent);
                }
            }
            self.run();
        }
        assert!((0..LEGS as u8).all(|leg| self.merger.leg_stats(leg).is_some_and(|stats| stats.is_merged)));
        self.released.clear();
        self.merger.stats.duplicate = 0;
        self.delivered = [0; LEGS];
        self.merger.legs.iter_mut().for_each(|leg| leg.stats = super::LegStats::default());
    }

    /// The sender makes a packet; bits of `lost_on` say which legs lose it.
    fn send(&mut self, lost_on: u8) {
        let sent = Sent { life: self.life, index: self.number, at: self.now };
        self.number += 1;
        for (leg, pending) in self.pending.iter_mut().enumerate() {
            if lost_on & (1 << leg) == 0 {
                pending.push_back(sent);
            }
            // The ring forgets what is further behind.
            while pending.front().is_some_and(|sent| sent.index + 40 < self.number) {
                pending.pop_front();
            }
        }
    }

    /// A packet on the way on a leg, mostly the oldest.
    fn take(&mut self, leg: usize, choice: u8) -> Option<Sent> {
        let index = if choice < 160 { 0 } else { usize::from(choice) % self.pending[leg].len().max(1) };
        self.pending[leg].remove(index)
    }

    /// The next packet of a leg arrives.
    fn deliver(&mut self, leg: usize, sent: &Sent) {
        let programme = self.programme[leg];
        let life = sent.life + if programme == 1 { 500 } else { 0 };
        // Every other life is told to the merger.
        if self.told[leg] != u64::MAX && self.told[leg] < life && life % 2 == 1 {
            self.merger.restart(self.now, leg as u8);
        }
        self.told[leg] = life;
        // The upper bits differ from leg to leg, the lower ones and the clock from life to life.
        let sequence = ((leg as u64 + 1) << 16) + ((life * 7_919) << 17) + life * 10_007 + 65_500 + sent.index;
        let ticks = Ticks90k::from_span(sent.at.since(Time::ZERO)).0 + life * 90_000 * 3_600;
        let mut payload = [0_u8; 48];
        let words = [sent.index, life, programme.into()];
        for (chunk, word) in payload.chunks_exact_mut(8).zip(words.iter().cycle()) {
            chunk.copy_from_slice(&word.to_be_bytes());
        }
        let meta =
            Meta { arrival: self.now, sequence: Some(sequence), rtp_timestamp: Some(ticks as u32), ..Meta::default() };
        if let Some(packet) = self.pool.copy(&payload, meta) {
            self.delivered[leg] += 1;
            self.merger.push(leg as u8, self.now, packet);
        }
    }

    fn wait(&mut self, span: Duration) {
        let end = self.now + span;
        // As many turns as there may be deadlines.
        for _ in 0..1_000 {
            match self.merger.poll_timeout().filter(|due| *due < end) {
                Some(due) => self.now = due.max(self.now),
                None => break,
            }
            self.run();
            assert!(self.merger.poll_timeout().is_none_or(|due| due > self.now), "due again at {:?}", self.now);
        }
        self.now = end;
    }

    /// Loses what is on the way for longer than `age`: a leg whose clock is off by more is not believed.
    fn forget(&mut self, age: Duration) {
        for pending in &mut self.pending {
            pending.retain(|sent| sent.at + age > self.now);
        }
    }

    fn run(&mut self) {
        self.merger.handle_timeout(self.now);
        while let Some(packet) = self.merger.poll_packet(self.now) {
            self.released.push(Released::of(&packet));
        }
        while let Some(event) = self.merger.poll_event() {
            if let Event::Restarted { .. } = event {
                assert!(self.merger.stats().restarts > 0);
            }
        }
    }

    /// Numbers only grow, and as long as they do so without the jump of a restart, they belong to one life of one programme.
    fn check_stream(&mut self) {
        for released in self.released.drain(..) {
            if let Some(latest) = self.latest {
                assert!(released.sequence > latest.sequence, "{released:?} after {latest:?}");
                if released.sequence - latest.sequence < 1 << 15 {
                    let same = (released.programme, released.life) == (latest.programme, latest.life)
                        && released.sequence - latest.sequence == released.index - latest.index;
                    assert!(same, "{released:?} after {latest:?}");
                }
            }
            self.latest = Some(released);
        }
        self.check_accounts();
    }

    /// Every packet has one fate, and nothing piles up.
    fn check_accounts(&self) {
        let merger = &self.merger;
        for (leg, delivered) in merger.legs.iter().zip(self.delivered) {
            let stats = &leg.stats;
            assert_eq!(stats.received, delivered);
            let dropped = stats.stale + stats.mismatched + stats.unexpected + stats.unmerged + stats.unnumbered;
            let queued = leg.waiting.queue.len() as u64;
            assert_eq!(stats.received, stats.first + stats.duplicate + stats.late + dropped + queued, "{leg:?}");
            assert!(queued <= RING as u64 && (leg.state == State::Waiting || queued < 16));
        }
        assert!(merger.out.is_empty() && merger.ring.len() <= RING && merger.stats.overflow == 0);
        assert_eq!(merger.stats.events_dropped, 0);
    }
}

impl Released {
    fn of(packet: &Packet) -> Self {
        let word = |at: usize| {
            packet.get(at * 8..at * 8 + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes)
        };
        let sequence = packet.meta.sequence.unwrap_or(0);
        Self { sequence, programme: word(2) as u8, life: word(1), index: word(0) }
    }
}

/// The same rules on sets that remember everything, for legs that are merged and in order of mapping.
#[derive(Default)]
struct Model {
    next: u64,
    held: BTreeMap<u64, Time>,
    came: BTreeSet<u64>,
    last: [Option<Time>; LEGS],
    released: Vec<u64>,
    lost: u64,
    late: u64,
    duplicate: u64,
    reorder_window: Duration,
}

impl Model {
    fn push(&mut self, leg: usize, now: Time, number: u64) {
        self.last[leg] = Some(now);
        if !self.came.insert(number) {
            self.duplicate += 1;
        } else if number < self.next {
            self.late += 1;
        } else {
            while number >= self.next + RING as u64 {
                self.step();
            }
            self.held.insert(number, now);
        }
    }

    fn run(&mut self, now: Time) {
        let alive = self.last.iter().filter(|last| last.is_none_or(|last| now < last + LEG_TIMEOUT)).count();
        let wait = if alive > 1 { Duration::from_millis(20) } else { self.reorder_window };
        let overdue = self.held.iter().filter(|(_, at)| **at + wait <= now).map(|(number, _)| *number).max();
        while overdue.is_some_and(|overdue| self.next < overdue) || self.held.contains_key(&self.next) {
            self.step();
        }
    }

    fn step(&mut self) {
        if self.held.remove(&self.next).is_some() {
            self.released.push(self.next);
        } else {
            self.lost += 1;
        }
        self.next += 1;
    }
}

const LEGS: usize = 3;

const RING: usize = 64;

const WINDOW: RecoveryWindow = RecoveryWindow::Fixed(Duration::from_millis(20));

const LEG_TIMEOUT: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Found by fuzzing: a leg was merged by what it had brought before it fell silent, and came back with another stream.
    #[test]
    fn a_lost_leg_is_not_merged_by_its_past() {
        check_any_script(include_bytes!("../../../fuzz/seeds/merge/lost-leg"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn any_script_is_survived(script in prop::collection::vec(any::<u8>(), 0..2_000)) {
            check_any_script(&script);
        }
    }
}
