//! Which legs carry the same packets: how they join, leave, start over and are told apart.

use std::time::Duration;

use super::leg::{Leg, SAMPLES, Sample, State};
use super::trace::Look;
use super::{Event, LEGS_MAX, Merger, Mismatch, NEVER, ROW, nearest};
use crate::bus::{Packet, Place};
use crate::units::Time;

impl Merger {
    /// A leg that was not alive delivers.
    #[cold]
    pub(super) fn revive(&mut self, now: Time, index: usize) {
        let leg = &mut self.legs[index];
        leg.is_alive = true;
        leg.must_reanchor = leg.state == State::Member;
        leg.waiting.restart_period(now);
        if std::mem::take(&mut leg.was_lost) {
            self.tell(Event::LegRecovered { leg: index as u8 });
        }
        self.refresh(now);
    }

    /// A packet of a leg that is not merged: it is kept, and compared with what the merged ones brought.
    pub(super) fn push_waiting(&mut self, index: usize, now: Time, sequence: u64, packet: Packet) {
        let look = Look::of(&packet);
        let (capacity, keep) = (self.ring.capacity() as usize, self.window.max(self.patience(index)));
        let continues = self.continues_queue(index, now, &packet);
        let leg = &mut self.legs[index];
        if !continues {
            leg.stats.unmerged += leg.drop_queue();
            leg.waiting.restart_period(now);
        }
        let is_first = leg.waiting.queue.is_empty();
        leg.waiting.packets += 1;
        leg.waiting.queue.push_back((now, packet));
        while leg.waiting.queue.front().is_some_and(|(arrival, _)| *arrival + keep < now)
            || leg.waiting.queue.len() > capacity
        {
            leg.waiting.queue.pop_front();
            leg.stats.unmerged += 1;
        }
        if let Some(offset) = self.compare(index, sequence, look) {
            self.join(index, now, offset);
            return;
        }
        if is_first {
            self.refresh(now);
        }
        if now >= self.takeover_at(index) {
            self.settle(now);
        }
    }

    /// Whether a packet may be of the same run as the latest one queued on its leg.
    fn continues_queue(&self, index: usize, now: Time, packet: &Packet) -> bool {
        let Some((arrival, latest)) = self.legs[index].waiting.queue.back() else {
            return true;
        };
        let (from, to) = (latest.meta.sequence.unwrap_or(0), packet.meta.sequence.unwrap_or(0));
        let timestamps = latest.meta.rtp_timestamp.zip(packet.meta.rtp_timestamp);
        from.abs_diff(to) < self.ring.capacity()
            && !timestamps.is_some_and(|(from, to)| self.is_off((*arrival, from), (now, to)))
    }

    /// Compares a packet of a waiting leg with what the merged ones brought: says what maps its numbers, once that is
    /// certain.
    fn compare(&mut self, index: usize, sequence: u64, look: Look) -> Option<u64> {
        let number = nearest(self.ring.end(), sequence);
        let waiting = &mut self.legs[index].waiting;
        let offset = number.wrapping_sub(sequence);
        match self.traces.find(number).filter(|trace| trace.legs != 0).map(|trace| trace.look()) {
            Some(other) if other == look => return waiting.matched(offset).then_some(offset),
            Some(other) => waiting.differed(how(other, look)),
            None if waiting.samples.try_push(Sample { sequence, look }).is_ok() => self.watched |= 1 << index,
            None => {}
        }
        None
    }

    /// Compares a packet of a merged leg with those that waiting ones have brought earlier.
    #[cold]
    pub(super) fn watch(&mut self, now: Time, number: u64, look: Look) {
        for index in 0..LEGS_MAX {
            let waiting = &mut self.legs[index].waiting;
            let Some(at) = waiting.samples.iter().position(|sample| sample.sequence as u16 == number as u16) else {
                continue;
            };
            let sample = waiting.samples.swap_remove(at);
            let offset = number.wrapping_sub(sample.sequence);
            if sample.look != look {
                waiting.differed(how(look, sample.look));
            } else if waiting.matched(offset) {
                self.join(index, now, offset);
            }
        }
    }

    /// A packet of a merged leg that continues nothing: a stray one is dropped with the next, a row of them is believed.
    #[cold]
    pub(super) fn push_unexpected(&mut self, index: usize, now: Time, packet: Packet) {
        let continues = self.continues_queue(index, now, &packet);
        let leg = &mut self.legs[index];
        if !continues {
            leg.stats.unexpected += leg.drop_queue();
        }
        leg.waiting.queue.push_back((now, packet));
        if leg.waiting.queue.len() < ROW as usize {
            return;
        }
        leg.leave(now, true);
        self.refresh(now);
        self.compare_queue(index, now);
        self.settle(now);
    }

    /// A merged leg has brought nothing but other packets than the others for a while.
    #[cold]
    pub(super) fn expel(&mut self, index: usize, now: Time) {
        let leg = &mut self.legs[index];
        let why = leg.waiting.blame.unwrap_or(Mismatch::Unrelated);
        leg.leave(now, false);
        leg.waiting.named = Some(why);
        self.tell(Event::MergeError { leg: index as u8, why });
        self.refresh(now);
        self.settle(now);
    }

    /// Names a leg that has had nothing in common with the merged ones for long enough.
    pub(super) fn judge(&mut self, index: usize, now: Time) {
        let leg = &self.legs[index];
        if leg.state != State::Waiting || !leg.is_alive || now < self.judge_at(leg) {
            return;
        }
        let waiting = &leg.waiting;
        if self.members_alive > 0 && waiting.packets >= ROW && waiting.matches == 0 && waiting.named.is_none() {
            // Some of all that is kept, as the merged ones may be behind or ahead.
            let some = waiting.queue.iter().step_by(waiting.queue.len() / SAMPLES + 1);
            let has_other_numbers = some.map(|(_, packet)| Look::of(packet)).any(|look| self.traces.has_look(look));
            let other = waiting.blame.unwrap_or(Mismatch::Unrelated);
            let why = if has_other_numbers { Mismatch::Numbers } else { other };
            self.legs[index].waiting.named = Some(why);
            self.tell(Event::MergeError { leg: index as u8, why });
        }
        self.legs[index].waiting.restart_period(now);
        self.watched &= !(1 << index);
    }

    fn judge_at(&self, leg: &Leg) -> Time {
        leg.waiting.since + self.window + JUDGE_AFTER
    }

    /// Lets waiting legs carry on when no merged one does any more.
    pub(super) fn settle(&mut self, now: Time) {
        while let Some(index) = self.successor(now) {
            match self.legs[index].waiting.offset().filter(|_| self.has_begun) {
                // Not certain, but nobody is left to ask.
                Some(offset) => self.join(index, now, offset),
                None => self.open(index, now),
            }
            // What it brought may have changed the window.
            self.refresh(now);
        }
    }

    fn successor(&self, now: Time) -> Option<usize> {
        let is_ready = |index: &usize| {
            let leg = &self.legs[*index];
            leg.state == State::Waiting
                && leg.is_alive
                && !leg.waiting.queue.is_empty()
                && now >= self.takeover_at(*index)
        };
        let longest_waiting = |index: &usize| {
            let waiting = &self.legs[*index].waiting;
            (waiting.named.is_some(), waiting.queue.front().map(|(arrival, _)| *arrival))
        };
        (0..LEGS_MAX).filter(is_ready).min_by_key(longest_waiting)
    }

    /// When a waiting leg need not wait any longer for merged ones that fell silent.
    fn takeover_at(&self, index: usize) -> Time {
        let patience = self.patience(index);
        let members = self.legs.iter().filter(|leg| leg.state == State::Member && leg.is_alive);
        members.map(|leg| leg.last + patience).max().unwrap_or(Time::ZERO)
    }

    /// A leg that has moved away shows that the sender has started over; others follow within the window. Others may be
    /// strangers, and wait until all merged ones count as lost.
    fn patience(&self, index: usize) -> Duration {
        let waiting = &self.legs[index].waiting;
        if waiting.has_moved && waiting.named.is_none() {
            self.window.max(PATIENCE_MIN)
        } else {
            self.config.leg_timeout
        }
    }

    /// A waiting leg turned out to carry what the merged ones do. What it brought meanwhile and is not too late counts.
    #[cold]
    fn join(&mut self, index: usize, now: Time, offset: u64) {
        let leg = &mut self.legs[index];
        leg.join(offset);
        let mut queue = std::mem::take(&mut leg.waiting.queue);
        self.clock.learn(now);
        self.tell(Event::MergeStarted { leg: index as u8 });
        self.refresh(now);
        for (arrival, packet) in queue.drain(..) {
            let Some(sequence) = packet.meta.sequence else { continue };
            let number = sequence.wrapping_add(offset);
            self.remember(index, arrival, &packet);
            let is_far = number >= self.ring.end().saturating_add(self.ring.capacity());
            if is_far || matches!(self.ring.place(number), Place::Missed | Place::Forgotten) {
                self.legs[index].stats.unmerged += 1;
                continue;
            }
            self.merge(index, arrival, now, number, packet);
        }
        // Only its memory is of use.
        self.legs[index].waiting.queue = queue;
    }

    /// A new stream begins with what a waiting leg has brought. All that is left of the old one is released.
    #[cold]
    fn open(&mut self, index: usize, now: Time) {
        self.flush(now);
        for leg in self.legs.iter_mut().filter(|leg| leg.state == State::Member) {
            leg.stats.unmerged += leg.drop_queue();
            leg.leave(now, true);
        }
        let mut queue = std::mem::take(&mut self.legs[index].waiting.queue);
        let lowest = queue.iter().filter_map(|(_, packet)| packet.meta.sequence).min().unwrap_or(0);
        let start = if self.has_begun {
            let after = self.ring.end() + BETWEEN;
            after + u64::from((lowest as u16).wrapping_sub(after as u16))
        } else {
            lowest
        };
        let offset = start.wrapping_sub(lowest);
        self.ring.restart(start);
        self.clock.restart(now);
        self.legs[index].join(offset);
        if self.has_begun {
            self.stats.restarts += 1;
            self.begins_anew = true;
            self.tell(Event::Restarted { leg: index as u8 });
        }
        self.has_begun = true;
        self.begins_until = now + self.window;
        // What others have in common with the old stream means nothing for the new one.
        for leg in self.legs.iter_mut().filter(|leg| leg.state == State::Waiting) {
            leg.waiting.restart_period(now);
        }
        self.refresh(now);
        for (arrival, packet) in queue.drain(..) {
            let Some(sequence) = packet.meta.sequence else { continue };
            self.remember(index, arrival, &packet);
            self.merge(index, arrival, now, sequence.wrapping_add(offset), packet);
        }
        self.legs[index].waiting.queue = queue;
        for other in 0..LEGS_MAX {
            self.compare_queue(other, now);
        }
    }

    /// Compares all that a waiting leg has brought so far.
    fn compare_queue(&mut self, index: usize, now: Time) {
        if self.legs[index].state != State::Waiting {
            return;
        }
        for at in 0..self.legs[index].waiting.queue.len() {
            let Some((_, packet)) = self.legs[index].waiting.queue.get(at) else { return };
            let (Some(sequence), look) = (packet.meta.sequence, Look::of(packet)) else { continue };
            self.legs[index].waiting.packets += 1;
            if let Some(offset) = self.compare(index, sequence, look) {
                self.join(index, now, offset);
                return;
            }
        }
    }

    fn remember(&mut self, index: usize, arrival: Time, packet: &Packet) {
        self.legs[index].last_merged = packet.meta.rtp_timestamp.map(|timestamp| (arrival, timestamp));
    }

    /// Releases all that is held, and gives up what is missing in between.
    fn flush(&mut self, now: Time) {
        while let Some((first, _)) = self.ring.first() {
            self.give_up_before(first, now, Duration::ZERO);
            if let Some(held) = self.ring.take() {
                self.release(held.packet);
            }
        }
        for leg in self.traces.clear() {
            self.legs[leg].stats.unique += 1;
        }
    }

    /// What lost legs brought while they were not merged is of no use any more, and proves nothing of what comes next.
    pub(super) fn drop_remains(&mut self, now: Time) {
        for leg in self.legs.iter_mut().filter(|leg| leg.state == State::Waiting && !leg.is_alive) {
            leg.stats.unmerged += leg.drop_queue();
            leg.waiting.restart_period(now);
        }
    }

    /// Who is there, and when something is due next.
    pub(super) fn refresh(&mut self, now: Time) {
        let is_partner = |leg: &&Leg| {
            leg.is_alive && (leg.state == State::Member || (leg.state == State::Waiting && leg.waiting.named.is_none()))
        };
        self.partners = self.legs.iter().filter(is_partner).count() as u8;
        let is_member = |leg: &&Leg| leg.is_alive && leg.state == State::Member;
        self.members_alive = self.legs.iter().filter(is_member).count() as u8;
        self.watched = 0;
        self.wake_at = NEVER;
        if now < self.begins_until && self.legs.iter().filter(|leg| leg.state != State::Absent).count() > 1 {
            self.partners = self.partners.max(2);
            self.wake_at = self.begins_until;
        }
        for (index, leg) in self.legs.iter().enumerate().filter(|(_, leg)| leg.state != State::Absent) {
            let is_waiting = leg.state == State::Waiting;
            if leg.is_alive {
                self.wake_at = self.wake_at.min(leg.last + self.config.leg_timeout).min(self.next_second);
                if is_waiting {
                    self.wake_at = self.wake_at.min(self.judge_at(leg));
                }
            }
            if is_waiting && !leg.waiting.samples.is_empty() {
                self.watched |= 1 << index;
            }
            if is_waiting && leg.is_alive && !leg.waiting.queue.is_empty() {
                self.wake_at = self.wake_at.min(self.takeover_at(index).max(now));
            }
        }
    }
}

/// How a packet with the same number differs from one that is taken for right.
const fn how(right: Look, other: Look) -> Mismatch {
    if right.timestamp == other.timestamp { Mismatch::Payload } else { Mismatch::Timestamps }
}

/// For how long a leg and the merged ones, beside the window, may have nothing in common. Judgement: some packets at any
/// rate, and soon enough for whoever has just plugged it in.
const JUDGE_AFTER: Duration = Duration::from_secs(1);

/// How long a merged leg may pause until one that has started over is followed, at least. Judgement: longer than
/// senders pause between bursts.
const PATIENCE_MIN: Duration = Duration::from_millis(100);

/// Numbers between two streams, so that stray packets of the old one are told from those of the new one.
const BETWEEN: u64 = 1 << 16;
