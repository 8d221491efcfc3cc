//! A cap on packets and bits per second, for one connection or one output.
//!
//! The generic cell rate algorithm (ITU-T I.371 annex A, virtual scheduling): a bucket is one number, the moment until
//! which the traffic let through so far fills the allowed rate. A packet passes while that moment is at most a burst
//! ahead of now. Nothing waits and nothing needs a timer.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::units::{Bitrate, Time};

/// What may pass. The default lets everything pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Packets per second; `None` for any number.
    pub packets_per_second: Option<NonZeroU32>,
    /// Rate of the payload; `None` for any, zero for nothing at all.
    pub bitrate: Option<Bitrate>,
    /// How much may come at once after a pause: the limit times this span, and always one packet.
    pub burst: Duration,
    /// Excess that is no accident any more: when what was refused would itself have filled the limit for this long,
    /// refusals are called abuse. Up to twice the limit that never happens; at three times the limit it takes this
    /// long, at five times a third of it. `None` never calls it so.
    pub abuse_after: Option<Duration>,
}

impl Default for Config {
    /// Judgement: half a second covers the key frames of a variable bit rate; ten seconds are more than a
    /// misbehaving encoder's start.
    fn default() -> Self {
        Self {
            packets_per_second: None,
            bitrate: None,
            burst: Duration::from_millis(500),
            abuse_after: Some(Duration::from_secs(10)),
        }
    }
}

/// What to do with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Within the limit.
    Pass,
    /// Over the limit: drop it.
    Over,
    /// Over the limit, by far and for long: drop it, and consider cutting off whoever sends.
    Abuse,
}

/// Shared by any number of threads, none of which ever waits.
///
/// Over any span no more passes than the limit times (span + burst), and one packet; rounding adds a ten-thousandth at
/// 10 Gb/s. Refusals cost nothing: a sender at ten times the limit still gets the limit through.
#[derive(Debug)]
pub struct Limiter {
    /// All moments are counted from here.
    start: Time,
    packets: Option<Dimension>,
    bits: Option<Dimension>,
}

impl Limiter {
    /// A limiter that has seen nothing before `now`.
    #[must_use]
    pub fn new(config: Config, now: Time) -> Self {
        let packets = config.packets_per_second.map(|rate| Cost::of_one(TICKS_PER_SECOND, u64::from(rate.get())));
        let bits = config.bitrate.map(|rate| Cost::of_one(8 * TICKS_PER_SECOND, rate.as_bps()));
        Self {
            start: now,
            packets: packets.map(|cost| Dimension::new(cost, config)),
            bits: bits.map(|cost| Dimension::new(cost, config)),
        }
    }

    /// Judges a packet of `bytes` bytes. Threads may disagree about `now` by a little; an earlier one
    /// than before is merely strict.
    pub fn check(&self, now: Time, bytes: usize) -> Verdict {
        let now = ticks(now.since(self.start));
        let bytes = bytes as u64;
        if let Some(packets) = &self.packets
            && !packets.allowed.take(now, packets.cost.of(1))
        {
            return Self::refuse(packets, now, packets.cost.of(1));
        }
        if let Some(bits) = &self.bits
            && !bits.allowed.take(now, bits.cost.of(bytes))
        {
            if let Some(packets) = &self.packets {
                packets.allowed.give_back(packets.cost.of(1));
            }
            return Self::refuse(bits, now, bits.cost.of(bytes));
        }
        Verdict::Pass
    }

    fn refuse(by: &Dimension, now: u64, cost: u64) -> Verdict {
        match &by.refused {
            Some(refused) if !refused.take(now, cost) => Verdict::Abuse,
            Some(_) | None => Verdict::Over,
        }
    }
}

/// Packets or bits.
#[derive(Debug)]
struct Dimension {
    cost: Cost,
    allowed: Bucket,
    /// The same rate again, filled by what was refused.
    refused: Option<Bucket>,
}

impl Dimension {
    fn new(cost: Cost, config: Config) -> Self {
        let level = if cost.is_infinite() { NEVER } else { 0 };
        let bucket = |burst| Bucket { burst: ticks(burst), filled_until: AtomicU64::new(level) };
        Self { cost, allowed: bucket(config.burst), refused: config.abuse_after.map(bucket) }
    }
}

/// On a cache line of its own: threads that share a limiter meet here.
#[repr(align(64))]
#[derive(Debug)]
struct Bucket {
    /// Ticks that `filled_until` may be ahead.
    burst: u64,
    filled_until: AtomicU64,
}

impl Bucket {
    /// Puts `cost` ticks in, unless the bucket is more than full.
    fn take(&self, now: u64, cost: u64) -> bool {
        let mut until = self.filled_until.load(Relaxed);
        // Lock-free: whenever one thread goes round, another has got its packet judged.
        loop {
            if until > now.saturating_add(self.burst) {
                return false;
            }
            let filled = until.max(now).saturating_add(cost);
            match self.filled_until.compare_exchange_weak(until, filled, Relaxed, Relaxed) {
                Ok(_) => return true,
                Err(other) => until = other,
            }
        }
    }

    /// Takes out what the same caller has just put in.
    fn give_back(&self, cost: u64) {
        self.filled_until.fetch_sub(cost, Relaxed);
    }
}

/// Ticks for one packet or byte, in fractions of 2^-24 so that a division per packet is saved. Rounded down: a sender
/// that keeps exactly to the limit never loses a packet to rounding.
#[derive(Clone, Copy, Debug)]
struct Cost(u64);

impl Cost {
    const FRACTION_BITS: u32 = 24;

    fn of_one(ticks: u64, rate: u64) -> Self {
        let scaled = (u128::from(ticks) << Self::FRACTION_BITS) / u128::from(rate.max(1));
        Self(if rate == 0 { NEVER } else { u64::try_from(scaled).unwrap_or(NEVER - 1) })
    }

    const fn is_infinite(self) -> bool {
        self.0 == NEVER
    }

    fn of(self, count: u64) -> u64 {
        let scaled = u128::from(self.0) * u128::from(count);
        u64::try_from(scaled >> Self::FRACTION_BITS).unwrap_or(NEVER)
    }
}

fn ticks(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX).saturating_mul(TICKS_PER_NS)
}

/// The unit of a bucket is 1/64 ns: a packet of 188 bytes at 10 Gb/s is then rounded by a hundredth of a percent, and
/// 64 bits last for nine years of one limiter.
const TICKS_PER_NS: u64 = 64;
const TICKS_PER_SECOND: u64 = 1_000_000_000 * TICKS_PER_NS;
const NEVER: u64 = u64::MAX;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Time = Time::from_ns(1_700_000_000_000_000_000);

    #[test]
    fn without_a_limit_everything_passes() {
        let limiter = Limiter::new(Config::default(), START);
        assert!((0..1_000).all(|_| limiter.check(START, 65_507) == Verdict::Pass));
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let limiter = Limiter::new(packets(100, 50), START);
        assert_eq!(passed(&limiter, 0, 100), 6, "50 ms at 100/s, and one");
        assert_eq!(passed(&limiter, 9, 100), 0);
        assert_eq!(passed(&limiter, 10, 100), 1);
        assert_eq!(passed(&limiter, 40, 100), 3);
        assert_eq!(passed(&limiter, 60_000, 100), 6, "a pause earns no more than the burst");
    }

    #[test]
    fn a_packet_longer_than_the_burst_still_passes_at_the_rate() {
        let config = Config { bitrate: Some(Bitrate::from_bps(10_528)), burst: Duration::ZERO, ..Config::default() };
        let limiter = Limiter::new(config, START);
        let verdicts = (0..10).map(|second| limiter.check(at(second * 1_000), 1_316));
        assert!(verdicts.into_iter().all(|verdict| verdict == Verdict::Pass));
        assert_eq!(limiter.check(at(9_999), 1_316), Verdict::Over);
    }

    #[test]
    fn a_bitrate_of_zero_lets_nothing_pass() {
        let config = Config { bitrate: Some(Bitrate::ZERO), ..Config::default() };
        assert_ne!(Limiter::new(config, START).check(at(100_000), 1), Verdict::Pass);
    }

    #[test]
    fn the_stricter_limit_decides_and_refusals_use_up_neither() {
        let config = Config { bitrate: Some(Bitrate::from_bps(8_000)), ..packets(100, 0) };
        let limiter = Limiter::new(config, START);
        assert_eq!(limiter.check(at(0), 1_000), Verdict::Pass);
        for ms in (10..1_000).step_by(10) {
            assert_eq!(limiter.check(at(ms), 1), Verdict::Over, "one second is full of bits");
        }
        assert_eq!(limiter.check(at(1_000), 1), Verdict::Pass);
        assert_eq!(limiter.check(at(1_001), 1), Verdict::Over, "the next may only come after ten milliseconds");
        assert_eq!(limiter.check(at(1_010), 1), Verdict::Pass);
    }

    #[test]
    fn three_times_the_limit_is_abuse_after_the_configured_span_and_forgiven_afterwards() {
        let limiter = Limiter::new(packets(1_000, 100), START);
        let first_abuse = (0..30_000u64).find(|ms| (0..3).any(|_| limiter.check(at(*ms), 188) == Verdict::Abuse));
        let first_abuse = first_abuse.unwrap();
        assert!((9_900..10_300).contains(&first_abuse), "{first_abuse} ms");
        let calm = (first_abuse + 1_000..first_abuse + 2_000).map(|ms| limiter.check(at(ms), 188));
        assert!(calm.into_iter().all(|verdict| verdict == Verdict::Pass));
        assert_eq!(passed(&limiter, first_abuse + 12_000, 1_000), 101);
        let again = limiter.check(at(first_abuse + 12_000), 188);
        assert_eq!(again, Verdict::Over, "being over once is no abuse");
    }

    #[test]
    fn a_little_over_the_limit_is_never_abuse() {
        let limiter = Limiter::new(packets(1_000, 100), START);
        let mut refused = 0;
        for half_ms in 0..400_000u64 {
            let now = START + Duration::from_micros(half_ms * 510);
            let verdict = limiter.check(now, 188);
            assert_ne!(verdict, Verdict::Abuse);
            refused += u64::from(verdict == Verdict::Over);
        }
        assert!(refused > 190_000, "{refused}");
    }

    #[test]
    fn threads_together_get_the_limit_and_no_more() {
        let limiter = Limiter::new(packets(1_000_000, 0), START);
        let pass = |thread| {
            let moments = (0..50_000u64).map(|step| START + Duration::from_nanos(100 * step + thread));
            moments.filter(|now| limiter.check(*now, 188) == Verdict::Pass).count()
        };
        let passed: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|thread| scope.spawn(move || pass(thread))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert!((1..=5_001).contains(&passed), "5 ms at 1/us, and one: {passed}");
    }

    proptest! {
        /// Rates whose cost is a whole number of ticks: every single verdict is that of the exact model.
        #[test]
        fn verdicts_are_those_of_the_model(
            pps in prop::option::of(prop::sample::select(vec![1u32, 40, 1_000, 12_500])),
            bps in prop::option::of(prop::sample::select(vec![8_000u64, 1_000_000, 20_000_000])),
            burst_ms in 0u64..200,
            packets in prop::collection::vec((0u64..3_000_000, 0usize..3_000), 1..300),
        ) {
            let config = Config {
                packets_per_second: pps.and_then(NonZeroU32::new),
                bitrate: bps.map(Bitrate::from_bps),
                burst: Duration::from_millis(burst_ms),
                abuse_after: None,
            };
            let limiter = Limiter::new(config, START);
            let mut model = Model::new(config);
            let mut now = START;
            for (pause_ns, bytes) in packets {
                now += Duration::from_nanos(pause_ns);
                prop_assert_eq!(limiter.check(now, bytes) == Verdict::Pass, model.check(now.since(START), bytes));
            }
        }

        /// Any rate: a greedy sender gets the limit, exact to one packet and the rounding.
        #[test]
        fn a_greedy_sender_gets_the_limit(bps in 100_000u64..20_000_000_000, bytes in 100usize..2_000, burst_us in 0u64..50_000) {
            let burst = Duration::from_micros(burst_us);
            let config = Config { bitrate: Some(Bitrate::from_bps(bps)), burst, ..Config::default() };
            let limiter = Limiter::new(config, START);
            let step = Duration::from_nanos((bytes as u64 * 8_000_000_000 / bps / 3).max(1));
            let span = step * 3_000;
            let passed = (0..=3_000).filter(|n| limiter.check(START + step * *n, bytes) == Verdict::Pass).count();
            let bits = passed as f64 * bytes as f64 * 8.0;
            let allowed = bps as f64 * (span + burst).as_secs_f64();
            let packet = bytes as f64 * 8.0;
            prop_assert!(bits <= allowed * 1.0005 + packet, "{} of {}", bits, allowed);
            let offered = packet * 3_001.0;
            // A packet can only pass at the sender's own steps, so a third of a packet's time may be lost each time.
            prop_assert!(bits >= (allowed * 0.74 - packet).min(offered), "{} of {}", bits, allowed);
        }
    }

    /// Counts bits and packets in fractions that are exact: in units of 1/rate of a nanosecond.
    struct Model {
        config: Config,
        /// Debt in packets · ns and bits · ns, each paid off at its rate, and when it was last paid.
        packet_debt: u128,
        bit_debt: u128,
        paid_ns: u128,
    }

    impl Model {
        fn new(config: Config) -> Self {
            Self { config, packet_debt: 0, bit_debt: 0, paid_ns: 0 }
        }

        fn check(&mut self, now: Duration, bytes: usize) -> bool {
            let pps = self.config.packets_per_second.map(|rate| u128::from(rate.get()));
            let bps = self.config.bitrate.map(|rate| u128::from(rate.as_bps()));
            let elapsed_ns = now.as_nanos() - self.paid_ns;
            self.paid_ns = now.as_nanos();
            self.packet_debt = self.packet_debt.saturating_sub(elapsed_ns * pps.unwrap_or(0));
            self.bit_debt = self.bit_debt.saturating_sub(elapsed_ns * bps.unwrap_or(0));
            let burst_ns = self.config.burst.as_nanos();
            let packets_pass = pps.is_none_or(|rate| self.packet_debt <= rate * burst_ns);
            let bits_pass = bps.is_none_or(|rate| self.bit_debt <= rate * burst_ns);
            if !(packets_pass && bits_pass) {
                return false;
            }
            self.packet_debt += if pps.is_some() { 1_000_000_000 } else { 0 };
            self.bit_debt += if bps.is_some() { bytes as u128 * 8_000_000_000 } else { 0 };
            true
        }
    }

    fn packets(per_second: u32, burst_ms: u64) -> Config {
        let burst = Duration::from_millis(burst_ms);
        Config { packets_per_second: NonZeroU32::new(per_second), burst, ..Config::default() }
    }

    fn at(ms: u64) -> Time {
        START + Duration::from_millis(ms)
    }

    /// How many of `count` packets pass at one moment.
    fn passed(limiter: &Limiter, ms: u64, count: usize) -> usize {
        (0..count).filter(|_| limiter.check(at(ms), 188) == Verdict::Pass).count()
    }
}
