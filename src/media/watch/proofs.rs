//! `Proofs`: the account of edges that are to be proven, without a clock of its own.

use std::collections::BTreeMap;
use std::time::Duration;

use super::edges::WAIT_MAX;
use super::governor::Averaged;
use crate::units::Time;

/// Says whose edge is proven next.
///
/// A proof decodes up to ten seconds of pictures, for an answer that is nice to have. So it is paid for only by what
/// pictures and sound left over of the budget, and begins once all that it is expected to cost was saved up: what it costs
/// in the end is nothing that anybody else waits for. One is done at a time. Streams take turns by what theirs cost.
#[derive(Debug, Default)]
pub(super) struct Proofs {
    /// Of computing time; below zero if a proof cost more than was expected.
    balance_ns: i64,
    burst_ns: i64,
    streams: BTreeMap<u64, Stream>,
    running: Option<Running>,
    /// Virtual time: that of the proof that began last.
    virtual_ns: u64,
    /// What was left over of late, per second.
    earned_ns: Averaged,
    earned_now_ns: u64,
}

#[derive(Debug, Default)]
struct Stream {
    waiting: Option<Wanted>,
    /// Virtual time at which its next proof may begin.
    used_ns: u64,
    /// What a picture of it cost, when it was proven.
    picture_ns: Averaged,
}

#[derive(Clone, Copy, Debug)]
struct Wanted {
    pictures: u64,
    expected_ns: u64,
    since: Time,
}

#[derive(Clone, Copy, Debug)]
struct Running {
    stream: u64,
    pictures: u64,
}

impl Proofs {
    /// Another budget of the whole, in thousandths of a core.
    pub(super) fn set_budget(&mut self, per_mille: u32) {
        self.burst_ns = BURST.as_millis() as i64 * 1_000 * i64::from(per_mille);
        self.earn(0);
    }

    /// So much was left over.
    pub(super) fn earn(&mut self, ns: i64) {
        self.balance_ns = self.balance_ns.saturating_add(ns).min(self.burst_ns);
        self.earned_now_ns = self.earned_now_ns.saturating_add_signed(ns);
    }

    /// A second has passed.
    pub(super) fn close_second(&mut self) {
        self.earned_ns.push(std::mem::take(&mut self.earned_now_ns));
    }

    /// The stream wants so many pictures to be proven, of which key frames cost about `key_ns`; `None` if it does not any
    /// more. False if it never will be granted, or so late that nobody waits for it any more.
    pub(super) fn ask(&mut self, now: Time, id: u64, pictures: Option<usize>, key_ns: u64) -> bool {
        let Some(pictures) = pictures else {
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.waiting = None;
            }
            return true;
        };
        let virtual_ns = self.virtual_ns;
        let stream = self.streams.entry(id).or_default();
        if stream.waiting.is_none() {
            // Time that it did not use is not saved up.
            stream.used_ns = stream.used_ns.max(virtual_ns);
        }
        let pictures = pictures as u64;
        let unmeasured_ns = key_ns / KEY_SHARE;
        let expected_ns = pictures.saturating_mul(stream.picture_ns.or(unmeasured_ns));
        let fits = i64::try_from(expected_ns).is_ok_and(|expected| expected <= self.burst_ns);
        let since = stream.waiting.map_or(now, |waiting| waiting.since);
        let left = WAIT_MAX.saturating_sub(now.since(since)).as_secs_f64();
        let missing_ns = i64::try_from(expected_ns).unwrap_or(i64::MAX).saturating_sub(self.balance_ns);
        let comes_in_time = missing_ns as f64 <= self.earned_ns.or(u64::MAX) as f64 * left;
        if !fits && stream.picture_ns.or(0) > unmeasured_ns {
            // What was measured once is no reason to refuse for ever.
            stream.picture_ns.push(unmeasured_ns);
        }
        let is_worth_it = fits && comes_in_time;
        stream.waiting = is_worth_it.then_some(Wanted { pictures, expected_ns, since });
        is_worth_it
    }

    /// The stream whose edge is proven now.
    pub(super) fn poll(&mut self) -> Option<u64> {
        if self.running.is_some() {
            return None;
        }
        let waiting = self.streams.iter_mut().filter(|(_, stream)| stream.waiting.is_some());
        let (id, stream) = waiting.min_by_key(|(_, stream)| stream.used_ns)?;
        // Whoever's turn it is has what it costs saved up for: many small ones do not keep out a large one.
        let Wanted { pictures, expected_ns, .. } = stream.waiting?;
        if self.balance_ns < i64::try_from(expected_ns).unwrap_or(i64::MAX) {
            return None;
        }
        stream.waiting = None;
        self.virtual_ns = self.virtual_ns.max(stream.used_ns);
        self.running = Some(Running { stream: *id, pictures });
        Some(*id)
    }

    /// What it cost; zero if it was not done after all.
    pub(super) fn handle_cost(&mut self, cost_ns: u64) {
        let Some(Running { stream, pictures }) = self.running.take() else { return };
        self.balance_ns = self.balance_ns.saturating_sub_unsigned(cost_ns);
        let Some(stream) = self.streams.get_mut(&stream).filter(|_| cost_ns > 0) else { return };
        stream.used_ns = stream.used_ns.max(self.virtual_ns).saturating_add(cost_ns);
        stream.picture_ns.push(cost_ns / pictures.max(1));
    }

    pub(super) fn is_waited_for(&self) -> bool {
        self.running.is_none() && self.streams.values().any(|stream| stream.waiting.is_some())
    }

    pub(super) fn remove_stream(&mut self, id: u64) {
        self.streams.remove(&id);
    }
}

/// Pictures of whole groups cost half as much as their key frames or less: those of H.264 at 8 to 20 Mb/s 23 to 34 ms,
/// their key frames 56 to 78 ms.
const KEY_SHARE: u64 = 2;
/// So much of the budget is saved up for proofs. With half a core it is what 140 pictures take whose key frames take 57 ms.
pub(super) const BURST: Duration = Duration::from_secs(8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_take_turns_by_what_their_proofs_cost() {
        let mut proofs = Proofs::default();
        proofs.set_budget(1_000);
        let mut done = [0_u32; 3];
        for _ in 0..300 {
            proofs.earn(100 * MS as i64);
            for (id, pictures) in [(0, 100), (1, 10), (2, 10)] {
                assert!(proofs.ask(Time::ZERO, id, Some(pictures), 10 * MS));
            }
            if let Some(id) = proofs.poll() {
                done[id as usize] += 1;
                proofs.handle_cost(if id == 0 { 1_000 * MS } else { 100 * MS });
            }
        }
        assert!((8..=12).contains(&done[0]) && done[1] >= 80 && done[2] >= 80, "{done:?}");
    }

    #[test]
    fn what_was_measured_is_what_is_expected() {
        let mut proofs = Proofs::default();
        proofs.set_budget(500);
        proofs.earn(i64::MAX);
        assert!(!proofs.ask(Time::ZERO, 1, Some(45), 200 * MS), "4.5 s of 4 s");
        assert_eq!((proofs.poll(), proofs.is_waited_for()), (None, false));
        assert!(proofs.ask(Time::ZERO, 1, Some(20), 200 * MS) && proofs.is_waited_for());
        assert_eq!(proofs.poll(), Some(1));
        proofs.handle_cost(200 * MS);
        assert!(proofs.ask(Time::ZERO, 1, Some(45), 200 * MS), "it took less");
        assert_eq!(proofs.poll(), Some(1));
        proofs.handle_cost(9_000 * MS);
        assert!(proofs.ask(Time::ZERO, 1, None, 0) && !proofs.is_waited_for());
    }

    #[test]
    fn what_can_be_done_is_not_refused_for_what_could_not() {
        let mut proofs = Proofs::default();
        proofs.set_budget(500);
        proofs.earn(i64::MAX);
        // Two seconds of 50 pictures, whose key frames take 57 ms and all the others 23.
        assert!(proofs.ask(Time::ZERO, 1, Some(100), 57 * MS));
        assert_eq!(proofs.poll(), Some(1));
        proofs.handle_cost(2_300 * MS);
        (0..10).for_each(|_| assert!(!proofs.ask(Time::ZERO, 1, Some(200), 57 * MS)));
        proofs.earn(i64::MAX);
        assert!(proofs.ask(Time::ZERO, 1, Some(173), 57 * MS), "as ever");
        // One that took far too long is forgotten again.
        assert_eq!(proofs.poll(), Some(1));
        proofs.handle_cost(30_000 * MS);
        let refused = (0..20).take_while(|_| !proofs.ask(Time::ZERO, 1, Some(100), 57 * MS)).count();
        assert!((1..10).contains(&refused), "{refused}");
    }

    #[test]
    fn nobody_waits_for_what_cannot_be_paid_for_in_time() {
        for (left_over, is_granted) in [(60, false), (300, true)] {
            let mut proofs = Proofs::default();
            proofs.set_budget(500);
            let second = |proofs: &mut Proofs| {
                proofs.earn((left_over * MS) as i64);
                proofs.close_second();
            };
            (0..3).for_each(|_| second(&mut proofs));
            // 50 pictures take 1.4 s.
            assert_eq!(proofs.ask(Time::ZERO, 1, Some(50), 57 * MS), is_granted, "{left_over}");
        }
        // What looked as if it came in time and does not is given up when that is clear.
        let mut proofs = Proofs::default();
        proofs.set_budget(500);
        proofs.earn((200 * MS) as i64);
        proofs.close_second();
        let ask =
            |proofs: &mut Proofs, seconds| proofs.ask(Time::ZERO + Duration::from_secs(seconds), 1, Some(50), 57 * MS);
        assert!(ask(&mut proofs, 0) && ask(&mut proofs, 3) && !ask(&mut proofs, 4));
        assert!(!proofs.is_waited_for());
    }

    const MS: u64 = 1_000_000;
}
