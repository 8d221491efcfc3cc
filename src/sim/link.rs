//! One direction of a bad path: decides for each datagram whether, when and how often it arrives.
//!
//! In this order: loss, queue and bandwidth, delay with jitter, holding back, duplication. A link carries no bytes and
//! reads no clock, so the same one serves in virtual time and in front of real sockets.

use std::time::Duration;

use arrayvec::ArrayVec;

use super::loss::{Loss, Model};
use crate::units::{Bitrate, DataSize, Time};

/// How bad a link is. The default is perfect.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// What gets lost.
    pub loss: Model,
    /// Time that every datagram takes.
    pub delay: Duration,
    /// Further time, evenly spread between zero and this.
    pub jitter: Duration,
    /// What jitter does to the order.
    pub order: Order,
    /// Share of datagrams that come twice, the second with a jitter of its own.
    pub duplicated: f64,
    /// Share of datagrams that are held back, and so come after later ones.
    pub held_back: f64,
    /// For how long.
    pub held_back_by: Duration,
    /// Rate of payload bits; `None` for any rate.
    pub bandwidth: Option<Bitrate>,
    /// Longest wait for the bandwidth; what would wait longer is dropped.
    pub queue: Duration,
}

impl Default for Config {
    /// A queue of 100 ms, should there be a bandwidth. Judgement: a router's usual buffer.
    fn default() -> Self {
        Self {
            loss: Model::None,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            order: Order::Kept,
            duplicated: 0.0,
            held_back: 0.0,
            held_back_by: Duration::ZERO,
            bandwidth: None,
            queue: Duration::from_millis(100),
        }
    }
}

/// What jitter does to the order of datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Each comes after those before it, except what is held back: one path whose queues vary. Where many come within
    /// the jitter, most wait for the slowest of those before them.
    #[default]
    Kept,
    /// Each comes at its own time: many paths.
    Free,
}

/// Counters of one link, in datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Put in.
    pub sent: u64,
    /// Came out, second copies included: `sent - lost - queue_full + duplicated`, once all have arrived.
    pub delivered: u64,
    /// Lost by the loss model.
    pub lost: u64,
    /// Dropped because the queue was full.
    pub queue_full: u64,
    /// Second copies.
    pub duplicated: u64,
    /// Held back, copies counted singly.
    pub held_back: u64,
}

/// One direction of a path.
#[derive(Clone, Debug)]
pub struct Link {
    config: Config,
    loss: Loss,
    rng: fastrand::Rng,
    /// When the last bit queued so far has left.
    busy_until: Time,
    /// Latest arrival so far, where the order is kept.
    latest: Time,
    stats: Stats,
}

impl Link {
    /// A link whose chance comes from `seed`.
    #[must_use]
    pub fn new(config: Config, seed: u64) -> Self {
        Self {
            config,
            loss: Loss::new(config.loss),
            rng: fastrand::Rng::with_seed(seed),
            busy_until: Time::ZERO,
            latest: Time::ZERO,
            stats: Stats::default(),
        }
    }

    /// Makes the link better or worse from the next datagram on; what is under way arrives as it would have.
    pub fn set_config(&mut self, config: Config) {
        self.config = config;
        self.loss = Loss::new(config.loss);
    }

    /// Takes a datagram of `bytes` bytes at `now`; tells when it arrives, never before `now`: not at all, once or twice.
    pub fn carry(&mut self, now: Time, bytes: usize) -> ArrayVec<Time, 2> {
        let mut arrivals = ArrayVec::new();
        self.stats.sent += 1;
        if self.loss.loses(&mut self.rng) {
            self.stats.lost += 1;
            return arrivals;
        }
        let Some(left) = self.leave_queue(now, bytes) else {
            self.stats.queue_full += 1;
            return arrivals;
        };
        arrivals.push(self.arrival(left));
        if self.rng.f64() < self.config.duplicated {
            self.stats.duplicated += 1;
            arrivals.push(self.arrival(left));
        }
        self.stats.delivered += arrivals.len() as u64;
        arrivals
    }

    /// Counters since the start.
    #[must_use]
    pub const fn stats(&self) -> Stats {
        self.stats
    }

    /// When the last bit leaves the queue; `None` if there is no room.
    fn leave_queue(&mut self, now: Time, bytes: usize) -> Option<Time> {
        let Some(bandwidth) = self.config.bandwidth else {
            return Some(now);
        };
        if self.busy_until.since(now) > self.config.queue {
            return None;
        }
        self.busy_until = self.busy_until.max(now) + bandwidth.time_for(DataSize::from_bytes(bytes as u64));
        Some(self.busy_until)
    }

    fn arrival(&mut self, left: Time) -> Time {
        let jitter_ns = u64::try_from(self.config.jitter.as_nanos()).unwrap_or(u64::MAX);
        let mut at = left + self.config.delay + Duration::from_nanos(self.rng.u64(0..=jitter_ns));
        if self.rng.f64() < self.config.held_back {
            self.stats.held_back += 1;
            return at + self.config.held_back_by;
        }
        if self.config.order == Order::Kept {
            at = at.max(self.latest);
            self.latest = at;
        }
        at
    }
}

#[cfg(test)]
#[allow(clippy::print_stdout, reason = "a failing test shows its seed")]
mod tests {
    use super::*;

    #[test]
    fn a_perfect_link_changes_nothing() {
        let mut link = Link::new(Config::default(), 1);
        assert_eq!(link.carry(ms(3), 1_316)[..], [ms(3)]);
    }

    #[test]
    fn jitter_keeps_the_order_unless_it_is_free() {
        let jittery =
            Config { delay: Duration::from_millis(20), jitter: Duration::from_millis(5), ..Config::default() };
        let (kept, _) = arrivals(Config { order: Order::Kept, ..jittery });
        assert!(kept.is_sorted());
        let (free, _) = arrivals(Config { order: Order::Free, ..jittery });
        assert!(!free.is_sorted());
        for (sent, at) in free.iter().enumerate() {
            assert!((20..=25).contains(&at.since(ms(sent as u64)).as_millis()));
        }
    }

    #[test]
    fn held_back_datagrams_come_after_later_ones() {
        let (at, stats) =
            arrivals(Config { held_back: 0.01, held_back_by: Duration::from_micros(2_500), ..Config::default() });
        let late = at.windows(2).filter(|pair| pair[1] < pair[0]).count();
        assert!((60..140).contains(&late), "{late} of 10000");
        assert!(stats.held_back >= late as u64, "two in a row make one step back");
    }

    #[test]
    fn a_bandwidth_spreads_what_comes_at_once_and_drops_what_waits_too_long() {
        let bandwidth = Some(Bitrate::from_bps(8_000_000));
        let mut link = Link::new(Config { bandwidth, queue: Duration::from_millis(10), ..Config::default() }, 1);
        let at: Vec<Time> = (0..20).flat_map(|_| link.carry(ms(1), 1_000)).collect();
        assert_eq!(at, (2..=12).map(ms).collect::<Vec<_>>());
        assert_eq!(link.stats(), Stats { sent: 20, delivered: 11, queue_full: 9, ..Stats::default() });
    }

    #[test]
    fn every_datagram_is_accounted_for() {
        let (at, stats) = arrivals(Config { loss: Model::bursts(0.1, 3.0), duplicated: 0.05, ..Config::default() });
        assert_eq!(stats.sent, 10_000);
        assert_eq!(stats.sent - stats.lost + stats.duplicated, stats.delivered);
        assert_eq!(stats.delivered, at.len() as u64);
        assert!(stats.lost > 800 && stats.duplicated > 350, "{stats:?}");
    }

    /// Ten thousand datagrams, one every millisecond.
    fn arrivals(config: Config) -> (Vec<Time>, Stats) {
        let seed = 11;
        println!("seed {seed}");
        let mut link = Link::new(config, seed);
        let at = (0..10_000).flat_map(|at| link.carry(ms(at), 1_316)).collect();
        (at, link.stats())
    }

    fn ms(ms: u64) -> Time {
        Time::from_ns(ms * 1_000_000)
    }
}
