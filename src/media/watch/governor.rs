//! `Governor`: shares the computing time that decoding may take, without a clock of its own.

use std::collections::BTreeMap;
use std::time::Duration;

use super::proofs::Proofs;
use crate::units::Time;

/// Says whose job is done next, and how often pictures are worth asking for.
///
/// What jobs cost is known only after they are done, so the budget is an account that may be overdrawn by the jobs that are
/// being done, and is worked off before the next one begins: over any span, jobs that begin in it take no more than
/// the budget, [`BURST`] of it saved up, and one job for each that is done at a time.
///
/// A stream has one picture and one piece of sound done at a time, beside each other. Its pictures, and its sound, are
/// served by how much time they took, not by how many jobs: one with large pictures gets fewer of them, and everybody else's
/// come as ever (start-time fair queueing, Goyal, Vin and Cheng 1996). When the budget does not reach for
/// all that is wanted, those that want more than their equal share have their pictures taken less often, by steps of
/// [`STEPS`]; what others leave over is shared among them.
///
/// A part is set aside for sound, which cannot wait as pictures can, and is paid from that first: it is listened to
/// while pictures that took too long are worked off.
///
/// All that jobs overdraw is worked off; it is bounded, as a job that takes longer than [`COST_NS_MAX`] is ended. What
/// everything beside jobs takes leaves jobs a tenth of the budget: whatever something costs, decoding goes on. What is not
/// used at all, nor set aside for jobs that are being done, goes to another account, that of proofs.
#[derive(Debug)]
pub struct Governor {
    budget_per_mille: u32,
    /// Of computing time; below zero it is overdrawn.
    balance_ns: i64,
    /// What is set aside for sound.
    sound_balance_ns: i64,
    /// What jobs that are being done are expected to cost.
    reserved_ns: i64,
    /// What was spent beside jobs and is not paid for yet.
    overhead_debt_ns: i64,
    proofs: Proofs,
    updated: Time,
    streams: BTreeMap<u64, Stream>,
    /// Virtual time: that of the job that began last.
    virtual_ns: u64,
    /// What everything beside jobs takes, per second.
    overhead_ns: Averaged,
    overhead_now_ns: u64,
    next_plan: Time,
}

/// What a job is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A picture.
    Picture,
    /// Sound.
    Sound,
}

impl Kind {
    /// All there are; what cannot wait comes first.
    pub const ALL: [Self; 2] = [Self::Sound, Self::Picture];
}

#[derive(Debug)]
struct Stream {
    pictures: Jobs,
    sound: Jobs,
    /// Of sound, per second.
    sound_ns: Averaged,
    sound_now_ns: u64,
    wanted: Option<Duration>,
    /// Longer than wanted while there is not time enough.
    every: Duration,
    /// Since when its pictures could be taken more often.
    fits_since: Option<Time>,
}

/// Those of one stream and kind, of which one is done at a time.
#[derive(Debug, Default)]
struct Jobs {
    is_waiting: bool,
    /// What the one that is being done was expected to cost.
    running_ns: Option<u64>,
    /// Virtual time at which the next one may begin.
    used_ns: u64,
    cost_ns: Averaged,
}

/// A mean that follows slowly.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Averaged(Option<u64>);

impl Averaged {
    pub(super) fn push(&mut self, value: u64) {
        self.0 = Some(self.0.map_or(value, |mean| (mean / 4).saturating_mul(3).saturating_add(value / 4)));
    }

    fn value(self) -> u64 {
        self.0.unwrap_or(0)
    }

    pub(super) fn or(self, unknown: u64) -> u64 {
        self.0.unwrap_or(unknown)
    }
}

impl Governor {
    /// With a budget in thousandths of a core.
    #[must_use]
    pub fn new(now: Time, budget_per_mille: u32) -> Self {
        let mut governor = Self {
            budget_per_mille: 1,
            balance_ns: 0,
            sound_balance_ns: 0,
            reserved_ns: 0,
            overhead_debt_ns: 0,
            proofs: Proofs::default(),
            updated: now,
            streams: BTreeMap::new(),
            virtual_ns: 0,
            overhead_ns: Averaged::default(),
            overhead_now_ns: 0,
            next_plan: now + PLANNED_EVERY,
        };
        governor.set_budget(now, budget_per_mille);
        governor.balance_ns = governor.burst_ns();
        governor.sound_balance_ns = governor.sound_burst_ns();
        governor
    }

    /// Another budget from now on, in thousandths of a core; at least one.
    pub fn set_budget(&mut self, now: Time, per_mille: u32) {
        self.update(now);
        self.budget_per_mille = per_mille.clamp(1, BUDGET_PER_MILLE_MAX);
        self.balance_ns = self.balance_ns.min(self.burst_ns());
        self.sound_balance_ns = self.sound_balance_ns.min(self.sound_burst_ns());
        self.proofs.set_budget(self.budget_per_mille);
    }

    /// A stream comes in, or wants its pictures at another interval: `None` for no pictures.
    pub fn set_stream(&mut self, id: u64, wanted: Option<Duration>) {
        let virtual_ns = self.virtual_ns;
        let stream = self.streams.entry(id).or_insert_with(|| Stream::new(virtual_ns));
        stream.wanted = wanted;
        if wanted.is_none() {
            stream.every = Duration::ZERO;
        }
    }

    /// A stream is gone. Jobs of it that are being done are charged by [`Governor::handle_cost`] as ever.
    pub fn remove_stream(&mut self, id: u64) {
        self.proofs.remove_stream(id);
        if let Some(stream) = self.streams.remove(&id) {
            let running = [stream.pictures.running_ns, stream.sound.running_ns].into_iter().flatten();
            self.reserved_ns -= running.sum::<u64>() as i64;
        }
    }

    /// Whether the stream has a job of that kind.
    pub fn ask(&mut self, id: u64, kind: Kind, is_waiting: bool) {
        let virtual_ns = self.virtual_ns;
        if let Some(stream) = self.streams.get_mut(&id) {
            let jobs = stream.jobs_mut(kind);
            if !jobs.is_waiting && jobs.running_ns.is_none() {
                // Time that it did not use is not saved up.
                jobs.used_ns = jobs.used_ns.max(virtual_ns);
            }
            jobs.is_waiting = is_waiting;
        }
    }

    /// The stream and the kind of the job that may be done now, among those that `can_run` says there is somebody for.
    pub fn poll_grant(&mut self, now: Time, can_run: impl Fn(u64, Kind) -> bool) -> Option<(u64, Kind)> {
        self.update(now);
        let is_overdrawn = self.balance_ns - self.reserved_ns <= 0;
        if is_overdrawn && self.sound_balance_ns <= 0 {
            return None;
        }
        let kinds = Kind::ALL.into_iter().filter(|kind| *kind == Kind::Sound || !is_overdrawn);
        let all = kinds.flat_map(|kind| self.streams.iter().map(move |(id, stream)| (*id, kind, stream.jobs(kind))));
        let ready = all.filter(|(id, kind, jobs)| jobs.is_waiting && jobs.running_ns.is_none() && can_run(*id, *kind));
        let (id, kind, _) = ready.min_by_key(|(_, _, jobs)| jobs.used_ns)?;
        let stream = self.streams.get_mut(&id)?;
        let expected = stream.expected_ns(kind);
        let jobs = stream.jobs_mut(kind);
        (jobs.is_waiting, jobs.running_ns) = (false, Some(expected));
        self.virtual_ns = self.virtual_ns.max(jobs.used_ns);
        self.reserved_ns += expected as i64;
        Some((id, kind))
    }

    /// What a job that was granted cost; zero if it was not done after all.
    pub fn handle_cost(&mut self, now: Time, id: u64, kind: Kind, cost: Duration) {
        self.update(now);
        let cost_ns = nanos(cost);
        let set_aside_ns = if kind == Kind::Sound { self.set_aside_for_sound().min(cost_ns as i64) } else { 0 };
        self.sound_balance_ns -= set_aside_ns;
        self.balance_ns -= cost_ns as i64 - set_aside_ns;
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let jobs = stream.jobs_mut(kind);
        self.reserved_ns -= jobs.running_ns.take().unwrap_or(0) as i64;
        jobs.used_ns = jobs.used_ns.max(self.virtual_ns).saturating_add(cost_ns);
        if cost_ns > 0 {
            jobs.cost_ns.push(cost_ns);
        }
        if kind == Kind::Sound {
            stream.sound_now_ns += cost_ns;
        }
    }

    /// The stream has an edge to be proven, of so many pictures; `None` if it has none any more. False if that is more than
    /// can be saved up, ever or in time: it will not be granted.
    pub fn ask_proof(&mut self, id: u64, pictures: Option<usize>) -> bool {
        let picture_ns = self.streams.get(&id).map_or(PICTURE_NS, |stream| stream.expected_ns(Kind::Picture));
        self.proofs.ask(self.updated, id, pictures, picture_ns)
    }

    /// The stream that may have its edge proven now. There is one at a time, and none before what it will cost was saved
    /// up of what was left over.
    pub fn poll_proof(&mut self, now: Time) -> Option<u64> {
        self.update(now);
        self.proofs.poll()
    }

    /// What the proof that was granted cost; zero if it was not done after all.
    pub fn handle_proof_cost(&mut self, now: Time, cost: Duration) {
        self.update(now);
        self.proofs.handle_cost(nanos_up_to(cost, PROOF_COST_NS_MAX));
    }

    /// Whether anybody waits for anything.
    #[must_use]
    pub fn is_waited_for(&self) -> bool {
        let waits = |stream: &Stream| stream.pictures.is_waiting || stream.sound.is_waiting;
        self.proofs.is_waited_for() || self.streams.values().any(waits)
    }

    /// What was spent on other things than jobs, of the same budget.
    pub fn handle_overhead(&mut self, now: Time, cost: Duration) {
        self.update(now);
        let cost_ns = nanos(cost);
        self.overhead_debt_ns = (self.overhead_debt_ns + cost_ns as i64).min(self.overhead_debt_max_ns());
        self.overhead_now_ns = self.overhead_now_ns.saturating_add(cost_ns);
    }

    /// Has to be called about once a second: finds out how often pictures can be taken.
    pub fn handle_timeout(&mut self, now: Time) {
        if now < self.next_plan {
            return;
        }
        self.next_plan = now + PLANNED_EVERY;
        self.update(now);
        self.proofs.close_second();
        self.overhead_ns.push(std::mem::take(&mut self.overhead_now_ns));
        for stream in self.streams.values_mut() {
            stream.sound_ns.push(std::mem::take(&mut stream.sound_now_ns));
        }
        let share = self.equal_share();
        for stream in self.streams.values_mut() {
            stream.plan(now, share);
        }
    }

    /// How often the stream's pictures are worth asking for, and whether that is less often than wanted; `None` if it wants none.
    #[must_use]
    pub fn every(&self, id: u64) -> Option<(Duration, bool)> {
        let stream = self.streams.get(&id)?;
        let wanted = stream.wanted?;
        // What is wanted follows the distance of key frames, which varies a little.
        Some((stream.every.max(wanted), stream.every > wanted + wanted / 10))
    }

    /// What may be spent right now; less than nothing if the budget is overdrawn.
    #[must_use]
    pub const fn balance_ns(&self) -> i64 {
        self.balance_ns
    }

    /// Time per second, in nanoseconds, up to which streams get what they want for pictures.
    fn equal_share(&self) -> f64 {
        let sound: u64 = self.streams.values().map(|stream| stream.sound_ns.value()).sum();
        let budget = f64::from(self.budget_per_mille) * 1e6;
        // Sound and the looking at packets are not stretched; a little is always left for pictures.
        let left = (budget * ROOM - (sound + self.overhead_ns.value()) as f64).max(budget * LEAST);
        let mut demands: Vec<f64> = self.streams.values().filter_map(Stream::demand).collect();
        demands.sort_by(f64::total_cmp);
        let mut left = left;
        for (at, demand) in demands.iter().enumerate() {
            let share = left / (demands.len() - at) as f64;
            if *demand > share {
                return share;
            }
            left -= demand;
        }
        f64::INFINITY
    }

    fn update(&mut self, now: Time) {
        let passed = u64::try_from(now.since(self.updated).as_nanos()).unwrap_or(u64::MAX);
        self.updated = self.updated.max(now);
        // A thousandth of a nanosecond is not worth keeping.
        let earned = u128::from(passed) * u128::from(self.budget_per_mille) / 1_000;
        let earned = i64::try_from(earned).unwrap_or(i64::MAX);
        // A little is always left for jobs.
        let paid = self.overhead_debt_ns.min((earned as f64 * (1.0 - LEAST)) as i64);
        self.overhead_debt_ns -= paid;
        let earned = earned - paid;
        let for_sound = ((earned as f64 * SOUND) as i64).min(self.sound_burst_ns() - self.sound_balance_ns);
        self.sound_balance_ns += for_sound;
        let balance = self.balance_ns.saturating_add(earned - for_sound);
        // What is set aside is earned, too: it is to pay for jobs that are not charged yet.
        self.balance_ns = balance.min(self.burst_ns() + self.reserved_ns.max(0));
        self.proofs.earn(balance - self.balance_ns);
    }

    const fn overhead_debt_max_ns(&self) -> i64 {
        let bursts = 2 * self.burst_ns();
        if bursts > OVERHEAD_DEBT_NS_MIN { bursts } else { OVERHEAD_DEBT_NS_MIN }
    }

    const fn burst_ns(&self) -> i64 {
        BURST.as_millis() as i64 * 1_000 * self.budget_per_mille as i64
    }

    /// What may be paid from what is set aside: more than there is if there is nothing else to pay from.
    fn set_aside_for_sound(&self) -> i64 {
        let overdraft = if self.balance_ns > 0 { 0 } else { self.sound_burst_ns() };
        (self.sound_balance_ns + overdraft).max(0)
    }

    fn sound_burst_ns(&self) -> i64 {
        (self.burst_ns() as f64 * SOUND) as i64
    }
}

impl Stream {
    fn new(virtual_ns: u64) -> Self {
        let jobs = || Jobs { used_ns: virtual_ns, ..Jobs::default() };
        Self {
            pictures: jobs(),
            sound: jobs(),
            sound_ns: Averaged::default(),
            sound_now_ns: 0,
            wanted: None,
            every: Duration::ZERO,
            fits_since: None,
        }
    }

    const fn jobs(&self, kind: Kind) -> &Jobs {
        match kind {
            Kind::Picture => &self.pictures,
            Kind::Sound => &self.sound,
        }
    }

    const fn jobs_mut(&mut self, kind: Kind) -> &mut Jobs {
        match kind {
            Kind::Picture => &mut self.pictures,
            Kind::Sound => &mut self.sound,
        }
    }

    fn expected_ns(&self, kind: Kind) -> u64 {
        self.jobs(kind).cost_ns.or(if kind == Kind::Picture { PICTURE_NS } else { SOUND_NS })
    }

    /// What its pictures would take if all wanted ones were decoded, in nanoseconds per second.
    fn demand(&self) -> Option<f64> {
        let wanted = self.wanted?.max(STEPS[0]);
        Some(self.pictures.cost_ns.value() as f64 / wanted.as_secs_f64())
    }

    fn plan(&mut self, now: Time, share: f64) {
        let Some(wanted) = self.wanted else { return };
        let needed = |room: f64| Duration::from_secs_f64(self.pictures.cost_ns.value() as f64 * room / share.max(1.0));
        let step = |needed: Duration| {
            if needed <= wanted {
                return Duration::ZERO;
            }
            let last = STEPS[STEPS.len() - 1];
            STEPS.into_iter().find(|step| *step > wanted && *step >= needed).unwrap_or_else(|| last.max(wanted))
        };
        let now_needed = step(needed(1.0));
        if now_needed > self.every {
            (self.every, self.fits_since) = (now_needed, None);
            return;
        }
        // Back only if it fits easily, and has for a while.
        let easily = step(needed(1.0 / EASILY));
        if easily >= self.every {
            self.fits_since = None;
            return;
        }
        let since = *self.fits_since.get_or_insert(now);
        if now.since(since) >= BACK_AFTER {
            (self.every, self.fits_since) = (easily, None);
        }
    }
}

fn nanos(cost: Duration) -> u64 {
    nanos_up_to(cost, COST_NS_MAX)
}

fn nanos_up_to(cost: Duration, max: u64) -> u64 {
    u64::try_from(cost.as_nanos()).unwrap_or(u64::MAX).min(max)
}

/// Intervals between pictures of a stream when there is not time enough for those that are wanted.
pub const STEPS: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(5), Duration::from_secs(10)];
/// So much of the budget is saved up while nothing is to be done.
pub const BURST: Duration = Duration::from_millis(500);
/// A thousand cores.
const BUDGET_PER_MILLE_MAX: u32 = 1_000_000;
/// What everything beside jobs may overdraw, however small the budget is.
const OVERHEAD_DEBT_NS_MIN: i64 = 1_000_000_000;
/// No job takes longer: it would have been ended.
pub const COST_NS_MAX: u64 = 10_000_000_000;
/// Nor does a proof.
const PROOF_COST_NS_MAX: u64 = 30_000_000_000;
/// Before anything was measured: a large picture, and half a second of sound.
const PICTURE_NS: u64 = 60_000_000;
const SOUND_NS: u64 = 3_000_000;
const PLANNED_EVERY: Duration = Duration::from_secs(1);
/// Shares of the budget: what is planned with, as costs vary; and what pictures have whatever else there is.
const ROOM: f64 = 0.9;
const LEAST: f64 = 0.1;
/// What is set aside for sound: with half a core that of thirty stereo streams.
const SOUND: f64 = 0.2;
/// Pictures are taken more often again if that takes less than this share of what is there, for so long.
const EASILY: f64 = 0.8;
const BACK_AFTER: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_stream_with_large_pictures_does_not_starve_the_others() {
        // 15 streams of 15 ms and one of 400 ms, each once a second: 0.625 of a core wanted, 0.5 there.
        let costs: Vec<u64> = (0..16).map(|id| if id == 0 { 400 } else { 15 }).collect();
        let run = run(500, &costs, Duration::from_secs(120), 1, false);
        assert!(run.spent <= Duration::from_secs(61), "{:?}", run.spent);
        for id in 1..16 {
            assert!(run.done[id] >= 115, "{id}: {:?}", run.done);
        }
        // What the others leave is its own: 0.275 of a core, less the room, is a picture every two seconds.
        assert!((55..=65).contains(&run.done[0]), "{:?}", run.done);
        assert_eq!(run.every[0], (Duration::from_secs(2), true));
        assert!(run.every[1..].iter().all(|every| *every == (Duration::from_secs(1), false)));
    }

    #[test]
    fn intervals_stretch_step_by_step_and_shrink_slowly() {
        let mut governor = Governor::new(Time::ZERO, 500);
        (0..50).for_each(|id| governor.set_stream(id, Some(Duration::from_secs(1))));
        let mut now = Time::ZERO;
        let mut second = |governor: &mut Governor, cost_ms| {
            for id in 0..50 {
                governor.ask(id, Kind::Picture, true);
                if governor.poll_grant(now, |other, _| other == id).is_some() {
                    governor.handle_cost(now, id, Kind::Picture, Duration::from_millis(cost_ms));
                }
                now += Duration::from_millis(20);
            }
            governor.handle_timeout(now);
        };
        (0..20).for_each(|_| second(&mut governor, 5));
        assert_eq!(governor.every(7), Some((Duration::from_secs(1), false)));
        (0..40).for_each(|_| second(&mut governor, 30));
        assert_eq!(governor.every(7), Some((Duration::from_secs(5), true)));
        (0..5).for_each(|_| second(&mut governor, 3));
        assert_eq!(governor.every(7), Some((Duration::from_secs(5), true)), "not so soon");
        (0..30).for_each(|_| second(&mut governor, 3));
        assert_eq!(governor.every(7), Some((Duration::from_secs(1), false)));
    }

    #[test]
    fn a_stream_that_goes_while_its_job_is_done_gives_back_what_was_set_aside() {
        let mut governor = Governor::new(Time::ZERO, 500);
        governor.set_stream(1, Some(Duration::from_secs(1)));
        governor.ask(1, Kind::Picture, true);
        assert_eq!(governor.poll_grant(Time::ZERO, |_, _| true), Some((1, Kind::Picture)));
        governor.remove_stream(1);
        governor.handle_cost(Time::ZERO, 1, Kind::Picture, Duration::from_millis(10));
        assert_eq!((governor.reserved_ns, governor.balance_ns), (0, 240_000_000));
    }

    #[test]
    fn what_everything_else_takes_leaves_jobs_their_least() {
        let mut governor = Governor::new(Time::ZERO, 500);
        governor.set_stream(1, Some(Duration::from_secs(1)));
        let (mut now, mut spent_ms) = (Time::ZERO, 0);
        // Looking at packets alone takes more than there is, for ten minutes.
        for _ in 0..60_000 {
            now += Duration::from_millis(10);
            governor.handle_overhead(now, Duration::from_millis(6));
            governor.ask(1, Kind::Picture, true);
            if governor.poll_grant(now, |_, _| true).is_some() {
                governor.handle_cost(now, 1, Kind::Picture, Duration::from_millis(20));
                spent_ms += 20;
            }
        }
        // A tenth of half a core.
        assert!((29_000..=31_000).contains(&spent_ms), "{spent_ms}");
    }

    #[test]
    fn what_took_as_long_as_it_may_is_worked_off_and_no_more() {
        let mut governor = Governor::new(Time::ZERO, 500);
        (1..=2).for_each(|id| governor.set_stream(id, Some(Duration::from_secs(1))));
        governor.ask(1, Kind::Picture, true);
        assert_eq!(governor.poll_grant(Time::ZERO, |_, _| true), Some((1, Kind::Picture)));
        governor.handle_cost(Time::ZERO, 1, Kind::Picture, Duration::from_secs(3_000));
        governor.ask(2, Kind::Picture, true);
        // 10 s at half a core, less what was saved up.
        let later = |ms| Time::ZERO + Duration::from_millis(ms);
        assert_eq!(governor.poll_grant(later(19_500), |_, _| true), None);
        assert_eq!(
            governor.poll_grant(later(19_501), |_, _| true),
            Some((2, Kind::Picture)),
            "{}",
            governor.balance_ns()
        );
    }

    #[test]
    fn sound_is_listened_to_while_pictures_that_took_too_long_are_worked_off() {
        let mut governor = Governor::new(Time::ZERO, 500);
        (1..=4).for_each(|id| governor.set_stream(id, Some(Duration::from_secs(1))));
        governor.ask(1, Kind::Picture, true);
        assert_eq!(governor.poll_grant(Time::ZERO, |_, _| true), Some((1, Kind::Picture)));
        governor.handle_cost(Time::ZERO, 1, Kind::Picture, Duration::from_secs(10));
        let (mut now, mut greedy, mut pictures) = (Time::ZERO, Duration::ZERO, Vec::new());
        while now < Time::ZERO + Duration::from_secs(40) {
            now += Duration::from_millis(10);
            // One that is heard twice a second, a picture, and one whose sound takes whatever it can get.
            if now.as_ns() % 500_000_000 == 0 {
                governor.ask(2, Kind::Sound, true);
            }
            governor.ask(3, Kind::Picture, true);
            governor.ask(4, Kind::Sound, true);
            while let Some((id, kind)) = governor.poll_grant(now, |_, _| true) {
                let cost_ms = [3, 20, 10][id as usize - 2];
                governor.handle_cost(now, id, kind, Duration::from_millis(cost_ms));
                greedy += Duration::from_millis(if id == 4 { cost_ms } else { 0 });
                pictures.extend((id == 3).then_some(now));
                governor.ask(4, Kind::Sound, id == 4);
            }
            let waits = governor.streams[&2].sound.is_waiting && now.as_ns() % 500_000_000 >= 100_000_000;
            assert!(!waits, "{now:?}");
            if pictures.is_empty() {
                // A fifth of half a core, and what was saved up of that.
                assert!(greedy <= now.since(Time::ZERO) / 10 + Duration::from_millis(60), "{greedy:?} at {now:?}");
            }
        }
        // 10 s at four fifths of half a core, less what was saved up.
        let first = pictures[0].since(Time::ZERO).as_millis();
        assert!((24_000..=25_000).contains(&first), "{first}");
    }

    #[test]
    fn what_pays_for_a_job_is_not_given_to_proofs() {
        let mut governor = Governor::new(Time::ZERO, 500);
        governor.set_stream(1, Some(Duration::from_secs(10)));
        let (mut now, mut spent) = (Time::ZERO, Duration::ZERO);
        let (picture, proof) = (Duration::from_millis(2_300), Duration::from_millis(1_000));
        let mut running = None;
        // Pictures that build up, as many as there may be, and proofs whenever there is something left.
        while now < Time::ZERO + Duration::from_secs(300) {
            now += Duration::from_millis(10);
            if running.take_if(|end| *end <= now).is_some() {
                governor.handle_cost(now, 1, Kind::Picture, picture);
                spent += picture;
            }
            governor.ask(1, Kind::Picture, true);
            if governor.poll_grant(now, |_, _| true).is_some() {
                running = Some(now + picture);
            }
            governor.ask_proof(1, Some(1));
            if governor.poll_proof(now).is_some() {
                governor.handle_proof_cost(now, proof);
                spent += proof;
            }
        }
        // Half of 300 s, what was saved up, and what is estimated too low to begin with.
        assert!((140..=156).contains(&spent.as_secs()), "{spent:?}");
    }

    #[test]
    fn proofs_take_what_is_left_over_and_nothing_else() {
        let mut governor = Governor::new(Time::ZERO, 500);
        (1..=2).for_each(|id| governor.set_stream(id, Some(Duration::from_secs(1))));
        // A second of pictures that take half of 60 ms each, as nothing else is known.
        assert!(governor.ask_proof(1, Some(25)));
        let (mut now, mut granted) = (Time::ZERO, None);
        while granted.is_none() {
            now += Duration::from_millis(10);
            // All the same, pictures of another stream are decoded for a quarter of a core.
            governor.ask(2, Kind::Picture, true);
            if now.as_ns() % 100_000_000 == 0 {
                assert_eq!(governor.poll_grant(now, |_, _| true), Some((2, Kind::Picture)));
                governor.handle_cost(now, 2, Kind::Picture, Duration::from_millis(25));
            }
            granted = governor.poll_proof(now);
        }
        // 0.75 s at a quarter of a core.
        assert_eq!(granted, Some(1));
        assert!((2_900..=3_100).contains(&(now.as_ns() / 1_000_000)), "{now:?}");
        assert_eq!(governor.poll_proof(now), None, "one at a time");
        // It takes ten times as long: only later proofs pay for that.
        governor.handle_proof_cost(now, Duration::from_secs(15));
        assert!(governor.balance_ns() > 0);
        governor.ask(1, Kind::Picture, true);
        assert_eq!(governor.poll_grant(now, |_, _| true), Some((1, Kind::Picture)));
        assert!(!governor.ask_proof(1, Some(25)), "a second of those would cost more than can be saved up");
        assert!(governor.ask_proof(1, Some(5)), "but not fewer");
        governor.remove_stream(1);
        assert_eq!(governor.poll_proof(now + Duration::from_secs(900)), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn the_budget_holds_over_any_window_and_nobody_starves(
            budget in 50_u32..2_000,
            costs in proptest::collection::vec(prop_oneof![9 => 1_u64..300, 1 => 300_u64..10_000], 1..24),
            threads in 1_usize..4,
            proofs in any::<bool>(),
        ) {
            let run = run(budget, &costs, Duration::from_secs(90), threads, proofs);
            let largest = *costs.iter().max().unwrap();
            // All windows that begin and end with a job, or a proof.
            let bursts = BURST + super::super::proofs::BURST;
            let burst = u64::from(budget) * bursts.as_millis() as u64 / 1_000;
            for (at, (from, _)) in run.grants.iter().enumerate() {
                let mut sum = 0;
                for (to, cost) in &run.grants[at..] {
                    sum += cost;
                    let window = to.since(*from).as_millis() as u64;
                    let over = largest * threads as u64 + if proofs { proof_ms(&costs) } else { 0 };
                    let allowed = window * u64::from(budget) / 1_000 + burst + over + 1;
                    prop_assert!(sum <= allowed, "{sum} ms in {window} ms, {allowed} allowed");
                }
            }
            // Each gets a share by time of what there is, less a job's length.
            let total: u64 = run.done.iter().zip(&costs).map(|(done, cost)| *done as u64 * cost).sum();
            let fair = total / costs.len() as u64 / 2;
            for (id, cost) in costs.iter().enumerate() {
                let got = run.done[id] as u64 * cost;
                let wanted = 80 * cost / 10;
                prop_assert!(got + 2 * largest >= fair.min(wanted), "{id} got {got} ms of {total}");
            }
        }
    }

    /// What a proof of stream 0 takes.
    fn proof_ms(costs_ms: &[u64]) -> u64 {
        (10 * costs_ms[0]).min(30_000)
    }

    struct Run {
        spent: Duration,
        done: Vec<usize>,
        every: Vec<(Duration, bool)>,
        grants: Vec<(Time, u64)>,
    }

    /// Streams that each offer a picture a second, or as often as they are told; jobs run on so many threads.
    fn run(budget: u32, costs_ms: &[u64], length: Duration, threads: usize, proofs: bool) -> Run {
        let mut governor = Governor::new(Time::ZERO, budget);
        let mut offered = vec![None; costs_ms.len()];
        let mut running: Vec<(Time, u64)> = Vec::new();
        let mut run =
            Run { spent: Duration::ZERO, done: vec![0; costs_ms.len()], every: Vec::new(), grants: Vec::new() };
        (0..costs_ms.len()).for_each(|id| governor.set_stream(id as u64, Some(Duration::from_secs(1))));
        let mut now = Time::ZERO;
        let mut proving: Option<(Time, Duration)> = None;
        while now < Time::ZERO + length {
            // Stream 0 has something to prove at all times.
            if let Some((_, cost)) = proving.take_if(|(end, _)| *end <= now) {
                governor.handle_proof_cost(now, cost);
            }
            governor.ask_proof(0, proofs.then_some(10));
            if governor.poll_proof(now).is_some() {
                let cost = proof_ms(costs_ms);
                proving = Some((now + Duration::from_millis(cost), Duration::from_millis(cost)));
                run.grants.push((now, cost));
            }
            let (done, left): (Vec<_>, Vec<_>) = running.into_iter().partition(|(end, _)| *end <= now);
            running = left;
            for (_, id) in done {
                governor.handle_cost(now, id, Kind::Picture, Duration::from_millis(costs_ms[id as usize]));
                run.done[id as usize] += 1;
            }
            for (id, offered) in offered.iter_mut().enumerate() {
                let every = governor.every(id as u64).unwrap().0;
                if offered.is_none_or(|at| now.since(at) >= every) {
                    *offered = Some(now);
                    governor.ask(id as u64, Kind::Picture, true);
                }
            }
            while running.len() < threads {
                let Some((id, _)) = governor.poll_grant(now, |_, _| true) else { break };
                let cost = costs_ms[id as usize];
                running.push((now + Duration::from_millis(cost), id));
                run.grants.push((now, cost));
                run.spent += Duration::from_millis(cost);
            }
            governor.handle_timeout(now);
            now += Duration::from_millis(5);
        }
        run.every = (0..costs_ms.len()).map(|id| governor.every(id as u64).unwrap()).collect();
        run
    }
}
