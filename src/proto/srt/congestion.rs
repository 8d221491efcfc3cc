//! Pacing: how fast a sender may send, and when its next packet may go.
//!
//! Live mode has no congestion control worth the name: like `LiveCC` of libsrt 1.5, a sender keeps to a rate that is
//! given or taken from its own input, and to the peer's flow window. The pacer is a leaky bucket (ITU-T I.371 annex A,
//! virtual scheduling) one millisecond deep, so that a driver sends a millisecond's worth as one batch and then sleeps,
//! and one that woke late catches up.

use std::time::Duration;

use crate::units::{Bitrate, Time};

/// What a sender may send, retransmissions and headers of 44 bytes included. Where a rate is zero there is
/// no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bandwidth {
    /// As fast as it comes. libsrt calls it MAXBW -1 and means 1 Gb/s; this means what it says.
    Unlimited,
    /// No more than this (MAXBW).
    Max(Bitrate),
    /// The input is known to have this rate (INPUTBW).
    Input {
        /// Rate of the input.
        rate: Bitrate,
        /// What may be added for retransmissions, of the rate (OHEADBW).
        overhead_percent: u8,
    },
    /// The input's rate is measured; no limit until it is known.
    Estimated {
        /// The input is taken to have at least this rate (MININPUTBW).
        floor: Bitrate,
        /// What may be added for retransmissions, of the rate (OHEADBW).
        overhead_percent: u8,
    },
}

/// Lets packets out at a rate.
#[derive(Debug)]
pub(super) struct Pacer {
    bandwidth: Bandwidth,
    estimate: Estimate,
    /// Nanoseconds per byte in fractions of 2^-20, so that a division per packet is saved; zero without a limit.
    cost: u64,
    /// Nanoseconds: until then what was sent fills the rate.
    filled_until: u64,
    /// Nothing was waiting when last asked: time from then on earns no credit.
    is_idle: bool,
    /// The next packet goes right behind the one before.
    is_pair: bool,
    /// Mean payload in 128ths of a byte.
    mean_payload: u64,
}

impl Pacer {
    pub(super) fn new(bandwidth: Bandwidth) -> Self {
        let mut pacer = Self {
            bandwidth,
            estimate: Estimate::default(),
            cost: 0,
            filled_until: 0,
            is_idle: true,
            is_pair: false,
            mean_payload: MEAN_OF * PAYLOAD_BYTES,
        };
        pacer.apply();
        pacer
    }

    /// Changes the rate from now on.
    pub(super) fn set_bandwidth(&mut self, now: Time, bandwidth: Bandwidth) {
        if !matches!((self.bandwidth, bandwidth), (Bandwidth::Estimated { .. }, Bandwidth::Estimated { .. })) {
            self.estimate = Estimate::default();
        }
        self.bandwidth = bandwidth;
        self.apply();
        // A packet that went at a much lower rate must not hold up the new one.
        self.filled_until = self.filled_until.min(now.as_ns().saturating_add(BURST_NS));
    }

    /// A packet came in to be sent: for the estimate of the input's rate.
    pub(super) fn offer(&mut self, now: Time, payload_bytes: usize) {
        if matches!(self.bandwidth, Bandwidth::Estimated { .. }) && self.estimate.add(now, payload_bytes) {
            self.apply();
        }
    }

    /// Whether a packet may go now.
    pub(super) const fn allows(&self, now: Time) -> bool {
        self.cost == 0 || self.is_pair || self.filled_until <= now.as_ns().saturating_add(BURST_NS)
    }

    /// When a whole burst may go: what a timer should wait for.
    pub(super) const fn ready_at(&self) -> Time {
        Time::from_ns(if self.cost == 0 || self.is_pair { 0 } else { self.filled_until })
    }

    /// A packet goes. If it `opens_pair`, the next may follow at once.
    pub(super) fn spend(&mut self, now: Time, payload_bytes: usize, opens_pair: bool) {
        self.mean_payload = self.mean_payload - self.mean_payload / MEAN_OF + payload_bytes as u64;
        if self.cost == 0 {
            return;
        }
        let lateness = if self.is_idle { 0 } else { CATCH_UP_NS };
        let from = self.filled_until.max(now.as_ns().saturating_sub(lateness));
        self.filled_until = from.saturating_add(self.cost_of(payload_bytes as u64));
        self.is_idle = false;
        self.is_pair = opens_pair;
    }

    /// Something goes whether or not it may. The second of a pair may still follow at once.
    pub(super) fn charge(&mut self, now: Time, payload_bytes: usize) {
        self.spend(now, payload_bytes, self.is_pair);
    }

    /// Nothing waits to be sent, or something else than the rate holds it.
    pub(super) const fn rest(&mut self) {
        self.is_idle = true;
    }

    /// The rate in force; `None` without a limit.
    pub(super) fn rate(&self) -> Option<Bitrate> {
        let with_overhead = |rate: Bitrate, percent: u8| {
            let bps = u128::from(rate.as_bps()) * (100 + u128::from(percent)) / 100;
            Bitrate::from_bps(u64::try_from(bps).unwrap_or(u64::MAX))
        };
        let rate = match self.bandwidth {
            Bandwidth::Unlimited => return None,
            Bandwidth::Max(rate) => rate,
            Bandwidth::Input { rate, overhead_percent } => with_overhead(rate, overhead_percent),
            Bandwidth::Estimated { floor, overhead_percent } => {
                with_overhead(self.estimate.rate?.max(floor), overhead_percent)
            }
        };
        (rate != Bitrate::ZERO).then_some(rate)
    }

    /// Time between two packets of mean length at the rate in force; zero without a limit.
    pub(super) const fn period(&self) -> Duration {
        Duration::from_nanos(self.cost_of(self.mean_payload / MEAN_OF))
    }

    fn apply(&mut self) {
        let cost = |rate: Bitrate| (8_000_000_000u128 << COST_FRACTION_BITS) / u128::from(rate.as_bps());
        // A cost that rounds to zero would be no limit, which is what such a rate is.
        self.cost = self.rate().map_or(0, |rate| u64::try_from(cost(rate)).unwrap_or(u64::MAX));
    }

    const fn cost_of(&self, payload_bytes: u64) -> u64 {
        self.cost.saturating_mul(payload_bytes + HEADER_BYTES) >> COST_FRACTION_BITS
    }
}

/// Rate of the input over windows of a second, the first one shorter (libsrt 1.5 `CRateEstimator`).
#[derive(Debug, Default)]
struct Estimate {
    window: Option<Window>,
    rate: Option<Bitrate>,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    start: Time,
    packets: u64,
    bytes: u64,
}

impl Estimate {
    /// Whether a new rate is known. The packet that opens a window is not part of it: its own time lies before.
    fn add(&mut self, now: Time, payload_bytes: usize) -> bool {
        let opened = Window { start: now, packets: 0, bytes: 0 };
        let Some(window) = &mut self.window else {
            self.window = Some(opened);
            return false;
        };
        let elapsed = now.since(window.start);
        window.packets += 1;
        window.bytes += payload_bytes as u64 + HEADER_BYTES;
        let length = if self.rate.is_none() { FIRST_WINDOW } else { WINDOW };
        let is_early = self.rate.is_none() && window.packets > EARLY_PACKETS && elapsed >= EARLY_AFTER;
        if !is_early && elapsed <= length {
            return false;
        }
        let bps = u128::from(window.bytes) * 8_000_000_000 / elapsed.as_nanos();
        self.window = Some(opened);
        // Over a pause of the input the mean says nothing; pacing what comes after it by that would only make it late.
        if elapsed > 2 * length {
            return false;
        }
        self.rate = Some(Bitrate::from_bps(u64::try_from(bps).unwrap_or(u64::MAX)));
        true
    }
}

/// What the rates count beside the payload: IPv4, UDP and SRT header, as libsrt does even over IPv6.
pub(super) const HEADER_BYTES: u64 = 20 + 8 + 16;

/// How much may go at once at the rate: 1 ms. Judgement: at 100 Mb/s nine packets, one batch of a driver; below 11 Mb/s
/// single packets.
const BURST_NS: u64 = 1_000_000;

/// How much a pacer that was asked too late makes up for: 20 ms. Judgement: longer than a busy machine's scheduling,
/// short enough for the buffers on the way.
const CATCH_UP_NS: u64 = 20_000_000;

const COST_FRACTION_BITS: u32 = 20;

/// libsrt 1.5: the mean length moves by a 128th with each packet.
const MEAN_OF: u64 = 128;

/// Seven TS packets: the payload before there was any.
const PAYLOAD_BYTES: u64 = 1_316;

/// libsrt 1.5: windows of the estimate, and when the first one ends early.
const FIRST_WINDOW: Duration = Duration::from_millis(500);
const WINDOW: Duration = Duration::from_secs(1);
const EARLY_PACKETS: u64 = 2_000;

/// Judgement: a burst in no time would be an infinite rate.
const EARLY_AFTER: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_limit_everything_goes_at_once() {
        for bandwidth in [Bandwidth::Unlimited, Bandwidth::Max(Bitrate::ZERO), estimated(0)] {
            let mut pacer = Pacer::new(bandwidth);
            for _ in 0..10_000 {
                assert!(pacer.allows(us(0)));
                pacer.spend(us(0), 1_316, false);
            }
            assert_eq!((pacer.rate(), pacer.period()), (None, Duration::ZERO));
        }
    }

    #[test]
    fn the_rate_is_hit_whether_the_driver_is_punctual_late_or_ticks() {
        for mbps in [5, 100, 1_000] {
            for driver in [Driver::Punctual, Driver::Late, Driver::Ticks] {
                let sent = run(Pacer::new(max(mbps)), driver, us(0), 2_000_000);
                let bits: u64 = sent.iter().map(|_| 1_360 * 8).sum();
                let wanted = mbps * 2_000_000;
                assert!(bits.abs_diff(wanted) <= wanted / 100, "{mbps} Mb/s, {driver:?}: {bits} of {wanted} bits");
            }
        }
    }

    #[test]
    fn bursts_are_a_millisecond_long_and_few() {
        for mbps in [5, 100, 1_000] {
            let sent = run(Pacer::new(max(mbps)), Driver::Punctual, us(0), 2_000_000);
            let per_ms = mbps * 1_000 / (1_360 * 8);
            let bursts: Vec<usize> = sent.chunk_by(|a, b| a == b).map(<[u64]>::len).collect();
            let longest = bursts.iter().max().copied().unwrap();
            assert!(longest as u64 <= per_ms + 3, "{mbps} Mb/s: {longest} at once, {per_ms} in a millisecond");
            assert!(bursts.len() <= 2_100, "{mbps} Mb/s: a driver had to wake {} times in 2 s", bursts.len());
        }
    }

    #[test]
    fn a_pause_of_the_input_earns_a_millisecond_and_a_late_driver_twenty() {
        let mut pacer = Pacer::new(max(100));
        // 9.2 packets a millisecond.
        assert_eq!(burst(&mut pacer, 0), 10);
        pacer.rest();
        assert_eq!(burst(&mut pacer, 1_000_000), 10);
        assert_eq!(burst(&mut pacer, 1_010_000), 92, "all of the ten milliseconds are made up for");
        assert_eq!(burst(&mut pacer, 2_000_000), 194, "twenty milliseconds and the burst");
    }

    #[test]
    fn a_new_rate_holds_from_now_on() {
        let mut pacer = Pacer::new(Bandwidth::Max(Bitrate::from_bps(1)));
        assert_eq!(burst(&mut pacer, 0), 1);
        assert!(!pacer.allows(us(3_600_000_000)));
        pacer.set_bandwidth(us(10), max(100));
        assert!(pacer.allows(us(10)));
        assert!(run(pacer, Driver::Punctual, us(10), 1_000_000).len().abs_diff(9_191) < 92);
        let mut pacer = Pacer::new(Bandwidth::Unlimited);
        pacer.set_bandwidth(us(10), max(5));
        assert_eq!(run(pacer, Driver::Late, us(10), 1_000_000).len().abs_diff(459), 1);
    }

    #[test]
    fn overhead_comes_on_top_of_a_known_input() {
        let rate = Bitrate::from_bps(8_000_000);
        let pacer = Pacer::new(Bandwidth::Input { rate, overhead_percent: 25 });
        assert_eq!(pacer.rate(), Some(Bitrate::from_bps(10_000_000)));
        assert_eq!(pacer.period(), Duration::from_nanos(1_088_000));
    }

    #[test]
    fn the_input_is_measured_after_half_a_second_and_then_each_second() {
        let mut pacer = Pacer::new(estimated(0));
        for ms in 0..3_000 {
            // 1316 bytes a millisecond are 10.88 Mb/s with headers; twice that from the second second on.
            let packets = if ms < 2_000 { 1 } else { 2 };
            (0..packets).for_each(|_| pacer.offer(us(ms * 1_000), 1_316));
            let rate = pacer.rate().map(Bitrate::as_bps);
            match ms {
                0..=500 => assert_eq!(rate, None, "{ms} ms"),
                501..=1_501 => assert_eq!(rate, Some(13_600_000), "{ms} ms"),
                2_503.. => assert!((18_000_000..21_000_000).contains(&rate.unwrap()), "{ms} ms: {rate:?}"),
                _ => {}
            }
        }
    }

    #[test]
    fn an_input_that_pauses_or_bursts_keeps_a_usable_rate() {
        let mut pacer = Pacer::new(estimated(2));
        (0..5_000).for_each(|_| pacer.offer(us(0), 1_316));
        assert_eq!(pacer.rate(), None, "no rate in no time");
        (0..2_000).for_each(|ms| pacer.offer(us(ms * 1_000), 1_316));
        let before = pacer.rate();
        assert!(before > Some(Bitrate::from_bps(13_000_000)));
        pacer.offer(us(60_000_000), 1_316);
        assert_eq!(pacer.rate(), before, "the pause is no measurement");
        (0..3_000).for_each(|ms| pacer.offer(us(60_000_000 + ms * 1_000), 10));
        assert_eq!(pacer.rate(), Some(Bitrate::from_bps(2_500_000)), "the floor, with overhead");
    }

    #[test]
    fn a_probe_is_followed_at_once_but_not_for_free() {
        let mut pacer = Pacer::new(max(5));
        pacer.spend(us(0), 1_316, true);
        assert!(pacer.allows(us(0)));
        assert_eq!(pacer.ready_at(), us(0));
        pacer.spend(us(0), 1_316, false);
        assert!(!pacer.allows(us(3_000)));
        assert_eq!(pacer.ready_at(), us(4_352));
    }

    #[derive(Clone, Copy, Debug)]
    enum Driver {
        Punctual,
        /// 0 to 7 ms after the time asked for.
        Late,
        /// Each 4 ms, whatever was asked for.
        Ticks,
    }

    /// When packets go, in microseconds, while there are always some waiting.
    fn run(mut pacer: Pacer, driver: Driver, start: Time, span_us: u64) -> Vec<u64> {
        let (mut sent, mut now) = (Vec::new(), start);
        let end = start + Duration::from_micros(span_us);
        while now < end {
            while pacer.allows(now) {
                let opens_pair = sent.len() % 16 == 0;
                pacer.spend(now, 1_316, opens_pair);
                sent.push(now.as_ns() / 1_000);
            }
            let asked = pacer.ready_at();
            now = match driver {
                Driver::Punctual => asked,
                Driver::Late => asked + Duration::from_millis(sent.len() as u64 * 5 % 8),
                Driver::Ticks => now + Duration::from_millis(4),
            };
        }
        sent
    }

    fn burst(pacer: &mut Pacer, at_us: u64) -> usize {
        let mut count = 0;
        while pacer.allows(us(at_us)) {
            pacer.spend(us(at_us), 1_316, false);
            count += 1;
        }
        count
    }

    fn estimated(floor_mbps: u64) -> Bandwidth {
        Bandwidth::Estimated { floor: Bitrate::from_bps(floor_mbps * 1_000_000), overhead_percent: 25 }
    }

    fn max(mbps: u64) -> Bandwidth {
        Bandwidth::Max(Bitrate::from_bps(mbps * 1_000_000))
    }

    fn us(us: u64) -> Time {
        Time::from_ns(us * 1_000)
    }
}
