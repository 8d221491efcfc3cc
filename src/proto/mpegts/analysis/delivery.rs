//! How evenly packets arrive: the Media Delivery Index (RFC 4445), time between packets, variation of their delay.

use std::time::Duration;

use crate::proto::mpegts::PcrReading;
use crate::units::{Bitrate, Histogram, Time};

/// Media Delivery Index of one interval of a second (RFC 4445 3).
///
/// With `S` the media bytes of each packet, `T` when it came within the interval and `MR` the media rate, the virtual buffer is
/// `VB(i,pre) = sum(S of those before) - MR * T(i)` before packet `i` and `VB(i,post) = VB(i,pre) + S(i)` behind it, and the
/// delay factor `DF = (max VB - min VB) / MR` (3.1, 3.2). The packet that comes when a second is over ends the interval: the
/// buffer before it is the last that counts, so that a pause across the end is not lost. Media bytes are TS packets, null
/// packets among them, as PCR's rate counts them. The media loss rate (3.3) is what is missing by sequence numbers where
/// there are any, else by continuity counters; packets that were put in order before the bus are not lost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Mdi {
    /// Delay factor: how much a receiver must buffer to play evenly, in time at the media rate. `None` while that rate is
    /// not known: it comes from PCR.
    pub delay_factor: Option<Duration>,
    /// Media loss rate: TS packets lost in a second.
    pub loss_rate: f64,
}

/// Follows the virtual buffer of RFC 4445 3.1: filled by what arrives, drained at the media rate.
#[derive(Clone, Debug, Default)]
pub(super) struct MdiMeter {
    start: Option<Time>,
    media_rate: Option<Bitrate>,
    received_bytes: u64,
    lost: u64,
    vb_min: f64,
    vb_max: f64,
    has_any: bool,
    closed: Option<Mdi>,
}

impl MdiMeter {
    /// Counts a packet of so many bytes of media. `media_rate` is asked for at the beginning of an interval, and holds for
    /// all of it.
    pub(super) fn handle_packet(&mut self, now: Time, bytes: u64, media_rate: impl FnOnce() -> Option<Bitrate>) {
        let start = *self.start.get_or_insert(now);
        let mut elapsed = now.since(start);
        if elapsed >= INTERVAL {
            if let Some(rate) = self.media_rate.filter(|_| self.has_any) {
                self.vb_min = self.vb_min.min(self.level(rate, elapsed));
            }
            self.close(elapsed);
            self.start = Some(now);
            self.media_rate = media_rate();
            elapsed = Duration::ZERO;
        }
        let Some(rate) = self.media_rate else { return };
        // Before and after the packet.
        let pre = self.level(rate, elapsed);
        self.received_bytes += bytes;
        let post = self.level(rate, elapsed);
        (self.vb_min, self.vb_max) =
            if self.has_any { (self.vb_min.min(pre), self.vb_max.max(post)) } else { (pre, post) };
        self.has_any = true;
    }

    /// Of the virtual buffer, in bytes.
    fn level(&self, rate: Bitrate, elapsed: Duration) -> f64 {
        self.received_bytes as f64 - rate.as_bps() as f64 / 8.0 * elapsed.as_secs_f64()
    }

    pub(super) const fn lose(&mut self, ts_packets: u64) {
        self.lost = self.lost.saturating_add(ts_packets);
    }

    /// Of the last whole interval.
    pub(super) const fn last(&self) -> Option<Mdi> {
        self.closed
    }

    fn close(&mut self, elapsed: Duration) {
        let bytes_per_second = self.media_rate.map(|rate| rate.as_bps() as f64 / 8.0).filter(|rate| *rate > 0.0);
        let spread = self.vb_max - self.vb_min;
        let delay = bytes_per_second.filter(|_| self.has_any).map(|rate| (spread / rate).clamp(0.0, 3_600.0));
        let loss_rate = self.lost as f64 / elapsed.as_secs_f64();
        self.closed = Some(Mdi { delay_factor: delay.map(Duration::from_secs_f64), loss_rate });
        (self.received_bytes, self.lost, self.has_any) = (0, 0, false);
    }
}

/// Time between datagrams, and how much later than the quickest of late a PCR came (RFC 5481 4.2).
#[derive(Clone, Debug, Default)]
pub(super) struct Timing {
    last_at: Option<Time>,
    pub(super) inter_arrival: Histogram,
    pub(super) delay_variation: Histogram,
    window_start: Time,
    quickest_ns: Option<i64>,
    quickest_before_ns: Option<i64>,
}

impl Timing {
    #[inline]
    pub(super) fn handle_packet(&mut self, now: Time) {
        if let Some(last_at) = self.last_at.replace(now) {
            self.inter_arrival.record(now.since(last_at));
        }
    }

    pub(super) fn handle_pcr(&mut self, now: Time, reading: &PcrReading) {
        if reading.is_restart {
            (self.quickest_ns, self.quickest_before_ns) = (None, None);
        }
        // Clocks drift, so that the quickest of long ago says nothing.
        if now.since(self.window_start) >= QUICKEST_WINDOW {
            self.window_start = now;
            self.quickest_before_ns = self.quickest_ns.take();
        }
        let transit = reading.transit_ns;
        self.quickest_ns = Some(self.quickest_ns.map_or(transit, |quickest| quickest.min(transit)));
        let base = self.quickest_ns.into_iter().chain(self.quickest_before_ns).min().unwrap_or(transit);
        let later = u64::try_from(transit.saturating_sub(base)).unwrap_or_default();
        self.delay_variation.record(Duration::from_nanos(later));
    }
}

/// RFC 4445 3.3: typically one second.
const INTERVAL: Duration = Duration::from_secs(1);
/// Judgement: clocks that differ by 100 ppm drift by 1 ms in it.
const QUICKEST_WINDOW: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    /// 1,316 bytes each ms are 10.528 Mb/s.
    const RATE: Bitrate = Bitrate::from_bps(10_528_000);
    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn even_packets_need_a_buffer_of_one_packet() {
        let mut meter = MdiMeter::default();
        let mut now = Time::from_ns(5);
        for _ in 0..2_500 {
            meter.handle_packet(now, 1_316, || Some(RATE));
            now += MS;
        }
        let mdi = meter.last().unwrap();
        assert!(mdi.delay_factor.unwrap().abs_diff(MS) < Duration::from_micros(2), "{mdi:?}");
        assert_eq!(mdi.loss_rate, 0.0);
    }

    #[test]
    fn a_pause_and_a_burst_are_as_long_as_the_delay_factor_says() {
        let mut meter = MdiMeter::default();
        for n in 0..3_100_u64 {
            // What should come from 1,400 to 1,450 ms comes at once at the end of it.
            let at = if (1_400..1_450).contains(&n) { 1_450 } else { n };
            meter.handle_packet(Time::from_ns(at * 1_000_000), 1_316, || Some(RATE));
        }
        // Of the last interval, and of the one before.
        assert!(meter.last().unwrap().delay_factor.unwrap() < 2 * MS);
        let mut meter = MdiMeter::default();
        for n in 0..2_100_u64 {
            let at = if (1_400..1_450).contains(&n) { 1_450 } else { n };
            meter.handle_packet(Time::from_ns(at * 1_000_000), 1_316, || Some(RATE));
        }
        let delay = meter.last().unwrap().delay_factor.unwrap();
        assert!(delay.abs_diff(51 * MS) < 2 * MS, "{delay:?}");
    }

    #[test]
    fn a_pause_across_the_end_of_an_interval_counts() {
        let mut meter = MdiMeter::default();
        for n in (0..1_950_u64).chain(2_050..2_100) {
            meter.handle_packet(Time::from_ns(n * 1_000_000), 1_316, || Some(RATE));
        }
        let delay = meter.last().unwrap().delay_factor.unwrap();
        assert!(delay.abs_diff(101 * MS) < 2 * MS, "{delay:?}");
    }

    /// The formulas of RFC 4445 3.1 and 3.2 word for word, over packets of any size at any time.
    #[test]
    fn the_delay_factor_is_that_of_the_formula() {
        let mut seed = 7_u64;
        let mut random = |max: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % max
        };
        let mut meter = MdiMeter::default();
        // The first interval has no rate yet; the second begins with the packet at one second.
        meter.handle_packet(Time::ZERO, 188, || Some(RATE));
        let mut packets = vec![(1_000_000_000, 1_316)];
        while packets.last().is_some_and(|(at, _)| *at < 2_000_000_000) {
            let at = packets.last().unwrap().0 + random(4_000_000);
            packets.push((at, 188 * (1 + random(7))));
        }
        packets.iter().for_each(|(at, bytes)| meter.handle_packet(Time::from_ns(*at), *bytes, || Some(RATE)));
        let rate = RATE.as_bps() as f64 / 8.0;
        let (_, packets) = packets.split_last().unwrap();
        let mut levels = Vec::new();
        for (i, (at, bytes)) in packets.iter().enumerate() {
            let received: u64 = packets[..i].iter().map(|packet| packet.1).sum();
            let pre = received as f64 - rate * (*at - 1_000_000_000) as f64 / 1e9;
            levels.extend([pre, pre + *bytes as f64]);
        }
        let span = levels.iter().copied().fold(f64::MIN, f64::max) - levels.iter().copied().fold(f64::MAX, f64::min);
        let delay = meter.last().unwrap().delay_factor.unwrap().as_secs_f64();
        // What the last packet, which ends the interval, adds is its own wait.
        assert!((delay - span / rate).abs() < 0.004, "{delay} {}", span / rate);
        assert!(delay >= span / rate - 1e-9);
    }

    #[test]
    fn losses_are_per_second() {
        let mut meter = MdiMeter::default();
        for n in 0..2_100_u64 {
            meter.handle_packet(Time::from_ns(n * 1_000_000), 1_316, || None);
            if n == 500 {
                meter.lose(21);
            }
            if n == 1_001 {
                assert_eq!(meter.last(), Some(Mdi { delay_factor: None, loss_rate: 21.0 }));
            }
        }
        assert_eq!(meter.last().map(|mdi| mdi.loss_rate), Some(0.0));
    }
}
