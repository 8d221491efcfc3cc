//! What a sender keeps to send again, and how much of that it may.

use std::collections::VecDeque;
use std::time::Duration;

use crate::bus::Packet;
use crate::units::{Bitrate, DataSize, Seq, Time};

/// Packets sent, the oldest first, each in the place of its number: where numbers are kept, a gap of the source is one
/// here. Bounded by age and by [`PACKETS_MAX`].
#[derive(Debug, Default)]
pub(super) struct History {
    packets: VecDeque<Sent>,
}

/// One of them.
#[derive(Debug)]
struct Sent {
    sequence: Seq<16>,
    timestamp: u32,
    /// `None` for a number that the source left out.
    payload: Option<Packet>,
    at: Time,
    /// When it was last sent again, and to whom.
    again: Option<(Time, u32)>,
    /// Who waits for it to be sent again.
    waiting: Option<u32>,
}

impl History {
    /// Keeps a packet that was sent at `now`, and forgets those older than `age`; all, if its number does not go on from
    /// theirs.
    pub(super) fn push(&mut self, now: Time, sequence: Seq<16>, timestamp: u32, payload: Packet, age: Duration) {
        let next = self.packets.back().map_or(sequence, |last| last.sequence.add(1));
        match next.distance(sequence) {
            gap @ 0..=GAP_MAX => (0..gap).for_each(|n| self.keep(now, next.add(n as u32), timestamp, None, age)),
            _ => self.packets.clear(),
        }
        self.keep(now, sequence, timestamp, Some(payload), age);
    }

    fn keep(&mut self, now: Time, sequence: Seq<16>, timestamp: u32, payload: Option<Packet>, age: Duration) {
        while self.packets.len() >= PACKETS_MAX || self.packets.front().is_some_and(|sent| now.since(sent.at) > age) {
            self.packets.pop_front();
        }
        self.packets.push_back(Sent { sequence, timestamp, payload, at: now, again: None, waiting: None });
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.packets.clear();
    }

    /// The part of a run of numbers that is there: where it starts, and how long it is.
    pub(super) fn overlap(&self, first: Seq<16>, count: u32) -> (Seq<16>, u32) {
        let Some(oldest) = self.packets.front() else { return (first, 0) };
        let start = oldest.sequence.distance(first);
        let end = i64::from(start) + i64::from(count);
        let (from, to) = (i64::from(start).max(0), end.clamp(0, self.packets.len() as i64));
        (oldest.sequence.add(from as u32), u32::try_from(to - from).unwrap_or(0))
    }

    /// Whether a packet shall be sent to `peer` again: it does not wait for that already, and was not sent to him less
    /// than `spacing` ago. It waits from now on. `None` if it is not there.
    pub(super) fn want(&mut self, now: Time, sequence: Seq<16>, peer: u32, spacing: Duration) -> Option<bool> {
        let sent = self.find(sequence)?;
        let is_on_its_way = sent.again.is_some_and(|(last, to)| to == peer && now.since(last) < spacing);
        if is_on_its_way || sent.waiting == Some(peer) {
            return Some(false);
        }
        sent.waiting = Some(peer);
        Some(true)
    }

    /// Timestamp and payload of a packet that is sent to `peer` again now; `None` if it is not there any more.
    pub(super) fn take(&mut self, now: Time, sequence: Seq<16>, peer: u32) -> Option<(u32, Packet)> {
        let sent = self.find(sequence)?;
        sent.again = Some((now, peer));
        sent.waiting = None;
        Some((sent.timestamp, sent.payload.clone()?))
    }

    fn find(&mut self, sequence: Seq<16>) -> Option<&mut Sent> {
        let at = usize::try_from(self.packets.front()?.sequence.distance(sequence)).ok()?;
        self.packets.get_mut(at).filter(|sent| sent.payload.is_some())
    }
}

/// How much may be sent again: as much as the media takes, or what a limit leaves, and a little at once.
#[derive(Debug)]
pub(super) struct Budget {
    limit: Option<Bitrate>,
    media_bps: u64,
    window_start: Time,
    window_bytes: u64,
    /// Bytes that may be sent now, times 2^10; below zero for a debt.
    tokens: i64,
    filled_at: Time,
}

impl Budget {
    pub(super) const fn new(limit: Option<Bitrate>) -> Self {
        Self { limit, media_bps: 0, window_start: Time::ZERO, window_bytes: 0, tokens: 0, filled_at: Time::ZERO }
    }

    /// So much media was sent.
    pub(super) fn add_media(&mut self, now: Time, bytes: usize) {
        let span = now.since(self.window_start);
        if span >= WINDOW {
            let bps = self.window_bytes * 8_000_000 / u64::try_from(span.as_micros()).unwrap_or(u64::MAX).max(1);
            self.media_bps = if self.media_bps == 0 { bps } else { (self.media_bps * 3 + bps) / 4 };
            (self.window_start, self.window_bytes) = (now, 0);
        }
        self.window_bytes += bytes as u64;
    }

    /// When anything may be sent again.
    pub(super) fn ready_at(&self) -> Time {
        if self.tokens > 0 {
            return Time::ZERO;
        }
        let missing = DataSize::from_bytes((1 - self.tokens).unsigned_abs() / SCALE.unsigned_abs() + 1);
        self.filled_at + self.rate().time_for(missing).max(STEP)
    }

    /// Whether a packet may be sent again now.
    pub(super) fn allows(&mut self, now: Time) -> bool {
        let ns = now.since(self.filled_at).as_nanos().min(1_000_000_000);
        let rate = self.rate().as_bps();
        let most = i64::try_from(rate / 8 / BURSTS_PER_SECOND).unwrap_or(i64::MAX / SCALE).max(BURST_MIN_BYTES) * SCALE;
        let filled = i64::try_from(ns * u128::from(rate) * u128::from(SCALE.unsigned_abs()) / 8_000_000_000);
        self.tokens = self.tokens.saturating_add(filled.unwrap_or(most)).min(most);
        self.filled_at = now;
        self.tokens > 0
    }

    /// A packet of so many bytes was sent again.
    pub(super) fn spend(&mut self, bytes: usize) {
        self.tokens -= i64::try_from(bytes).unwrap_or(i64::MAX / SCALE) * SCALE;
    }

    fn rate(&self) -> Bitrate {
        let share = self.media_bps.max(RATE_MIN.as_bps());
        Bitrate::from_bps(match self.limit {
            // Something always may: a receiver that gets nothing back asks all the more.
            Some(limit) => limit.as_bps().saturating_sub(self.media_bps).max(limit.as_bps() / 20).max(8_000),
            None => share,
        })
    }
}

/// Half of all numbers, as a receiver could not tell more apart.
pub(super) const PACKETS_MAX: usize = 32_768;
/// Numbers that a source may leave out at once. Judgement: as long an outage is a new start.
const GAP_MAX: i32 = 4_096;
const WINDOW: Duration = Duration::from_millis(100);
/// What may be sent again where the media takes less.
const RATE_MIN: Bitrate = Bitrate::from_bps(1_000_000);
/// A tenth of a second's worth at once.
const BURSTS_PER_SECOND: u64 = 10;
/// Judgement: as fine as timers are, and a few packets at once on a fast path.
const STEP: Duration = Duration::from_micros(500);
const BURST_MIN_BYTES: i64 = 16 * 1_400;
const SCALE: i64 = 1 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::{Meta, Pool, PoolLimits};

    fn ms(ms: u64) -> Time {
        Time::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn packets_are_found_by_number_until_they_are_old() {
        let pool = Pool::new(PoolLimits::default());
        let mut history = History::default();
        for n in 0..100_u32 {
            let payload = pool.copy(&[n as u8], Meta::default()).unwrap();
            history.push(ms(u64::from(n)), Seq::new(65_500 + n), n, payload, Duration::from_millis(49));
        }
        // From 49 milliseconds before the last.
        assert_eq!(history.overlap(Seq::new(65_500), 1_000), (Seq::new(65_550 - 65_536), 50));
        assert_eq!(history.overlap(Seq::new(65_500), 10).1, 0);
        assert_eq!(history.overlap(Seq::new(60), 65_536), (Seq::new(60), 4));
        assert_eq!(history.overlap(Seq::new(70), 5).1, 0);
        let spacing = Duration::from_millis(20);
        let want = |history: &mut History, at, number, peer| history.want(ms(at), Seq::new(number), peer, spacing);
        assert_eq!(want(&mut history, 100, 20, 0), Some(true));
        assert_eq!(want(&mut history, 100, 20, 0), Some(false), "it waits already");
        assert_eq!(history.take(ms(100), Seq::new(20), 0).unwrap().1[0], 56);
        assert_eq!(want(&mut history, 119, 20, 0), Some(false), "it is on its way");
        assert_eq!(want(&mut history, 119, 20, 1), Some(true), "but not to him");
        assert!(history.take(ms(119), Seq::new(20), 1).is_some());
        assert_eq!(want(&mut history, 139, 20, 0), Some(true));
        assert_eq!(want(&mut history, 139, 65_530, 0), None, "too old");
        assert_eq!(want(&mut history, 139, 64, 0), None, "not sent yet");
        assert!(history.take(ms(120), Seq::new(65_530), 0).is_none());
    }

    #[test]
    fn gaps_of_the_source_stay_gaps_and_a_jump_begins_anew() {
        let pool = Pool::new(PoolLimits::default());
        let mut history = History::default();
        let push = |history: &mut History, number: u32| {
            let payload = pool.copy(&[number as u8], Meta::default()).unwrap();
            history.push(ms(0), Seq::new(number), number, payload, Duration::from_secs(1));
        };
        [65_534, 65_535, 2, 3].iter().for_each(|number| push(&mut history, *number));
        assert_eq!(history.overlap(Seq::new(65_530), 100), (Seq::new(65_534), 6));
        let there = |history: &mut History, number: u32| {
            history.take(ms(0), Seq::new(number), 0).map(|(timestamp, payload)| (timestamp, payload[0]))
        };
        assert_eq!([0, 1].map(|number| there(&mut history, number)), [None; 2]);
        assert_eq!(history.want(ms(0), Seq::new(1), 0, Duration::ZERO), None);
        assert_eq!([65_535, 2].map(|number| there(&mut history, number)), [Some((65_535, 255)), Some((2, 2))]);
        // Back, and too far ahead.
        for number in [1, 40_000, 40_000] {
            push(&mut history, number);
            assert_eq!((history.packets.len(), there(&mut history, number)), (1, Some((number, number as u8))));
        }
    }

    #[test]
    fn as_much_is_sent_again_as_the_media_takes() {
        let mut budget = Budget::new(None);
        let mut again = 0;
        for n in 0..10_000_u64 {
            budget.add_media(ms(n), 1_250);
            while budget.allows(ms(n)) {
                budget.spend(1_250);
                again += 1_250;
            }
        }
        assert!((11_000_000..12_700_000).contains(&again), "{again} of 12.5 million");
        assert!(budget.ready_at() > ms(9_999) && budget.ready_at() < ms(10_002));
    }

    #[test]
    fn a_limit_leaves_what_the_media_does_not_take() {
        let mut budget = Budget::new(Some(Bitrate::from_bps(12_000_000)));
        let mut again = 0;
        for n in 0..10_000_u64 {
            budget.add_media(ms(n), 1_250);
            while n > 1_000 && budget.allows(ms(n)) {
                budget.spend(1_250);
                again += 1_250;
            }
        }
        assert!((2_200_000..2_700_000).contains(&again), "{again} of 2.25 million and a burst");
    }
}
