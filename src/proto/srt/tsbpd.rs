//! When a received packet is due: the sender's clock as seen from ours (timestamp-based packet delivery).
//!
//! A packet is released the latency after the moment that its timestamp names (draft 4.5). What that moment is on our
//! clock follows from the handshake packet, whose timestamp and arrival are known, and from the drift of the two clocks,
//! which every acknowledged ACK measures anew (draft 4.7).

use std::time::Duration;

use crate::units::Time;

/// The sender's clock, seen from ours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tsbpd {
    /// Arrival of the handshake packet: zero of the stamps.
    origin: Time,
    origin_timestamp: u32,
    latency_us: i64,
    /// Drift that has moved the base for good.
    shift_us: i64,
    /// What remains of it, at most the step unless the clock jumped.
    drift_us: i64,
    samples_sum_us: i64,
    samples: u32,
    first_round_trip_us: Option<i64>,
    /// By how much the way that is measured is longer than the handshake packet's; `None` until a first round of
    /// samples has shown it.
    path_us: Option<i64>,
}

/// A moment on the sender's clock that never wraps: microseconds since it sent its handshake packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stamp(i64);

impl Tsbpd {
    /// A clock that showed `timestamp` in the packet with the handshake extension that arrived at `origin`, for packets
    /// that shall be released `latency` after they were sent.
    pub(super) fn new(origin: Time, timestamp: u32, latency: Duration) -> Self {
        Self {
            origin,
            origin_timestamp: timestamp,
            latency_us: micros(latency),
            shift_us: 0,
            drift_us: 0,
            samples_sum_us: 0,
            samples: 0,
            first_round_trip_us: None,
            path_us: Some(0),
        }
    }

    /// The same clock, to be measured over another way from now on: what is found there at first is that way's length
    /// and no drift.
    pub(super) const fn elsewhere(self) -> Self {
        Self { samples_sum_us: 0, samples: 0, first_round_trip_us: None, path_us: None, ..self }
    }

    /// The moment that the `timestamp` of a packet means which came at `arrival`. Timestamps repeat every 71.6 minutes
    /// (draft 3); the moment nearest to our own clock is meant, so no silence is too long. libsrt watches for the wrap
    /// within 30 s of it instead and loses its base when nothing comes in that time.
    ///
    /// One that lies too far ahead would hold up all packets behind its own: that one counts as sent when it came.
    pub(super) fn stamp(&self, timestamp: u32, arrival: Time) -> Stamp {
        let expected_us = self.expected_us(arrival);
        let ahead_us = self.ahead_us(timestamp, expected_us);
        Stamp(expected_us + if ahead_us <= AHEAD_MAX_US { ahead_us } else { 0 })
    }

    /// When a packet with `stamp` is due on our clock.
    pub(super) fn due(&self, stamp: Stamp) -> Time {
        let after = stamp.0.saturating_add(self.shift_us + self.drift_us).saturating_add(self.latency_us);
        let span = Duration::from_micros(after.unsigned_abs());
        if after >= 0 { self.origin + span } else { self.origin - span }
    }

    /// The peer answered an ACK `round_trip` after it was sent, with `timestamp`, and that arrived at `arrival`. Half of
    /// what the round trip has grown since the first is taken for delay on the way here.
    pub(super) fn measure(&mut self, timestamp: u32, arrival: Time, round_trip: Duration) {
        let round_trip_us = micros(round_trip);
        let first_us = *self.first_round_trip_us.get_or_insert(round_trip_us);
        let late_us = -self.ahead_us(timestamp, self.expected_us(arrival));
        self.samples_sum_us = self.samples_sum_us.saturating_add(late_us - (round_trip_us - first_us) / 2);
        self.samples += 1;
        if self.samples < SAMPLES {
            return;
        }
        let mean_us = self.samples_sum_us / i64::from(SAMPLES);
        self.drift_us = mean_us - *self.path_us.get_or_insert(mean_us - self.drift_us);
        (self.samples_sum_us, self.samples) = (0, 0);
        if self.drift_us.abs() > STEP_US {
            let step = self.drift_us.signum() * STEP_US;
            self.shift_us += step;
            self.drift_us -= step;
        }
    }

    /// What a packet without delay that comes at `arrival` has for stamp.
    fn expected_us(&self, arrival: Time) -> i64 {
        micros_from(self.origin, arrival) - self.shift_us
    }

    /// By how much `timestamp` is ahead of what is expected, the shorter way round.
    const fn ahead_us(&self, timestamp: u32, expected_us: i64) -> i64 {
        let expected = self.origin_timestamp.wrapping_add(expected_us as u32);
        timestamp.wrapping_sub(expected) as i32 as i64
    }

    /// How much later, in microseconds, packets are released than the handshake alone would say; negative for earlier.
    pub(super) const fn correction_us(&self) -> i64 {
        self.shift_us + self.drift_us
    }
}

/// Microseconds from `earlier` to `later`, negative if they come the other way round.
fn micros_from(earlier: Time, later: Time) -> i64 {
    if later >= earlier { micros(later.since(earlier)) } else { -micros(earlier.since(later)) }
}

/// No span between two [`Time`]s is longer than 2^54 µs.
fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX / 4).min(i64::MAX / 4)
}

/// How far a timestamp may be ahead, which is by how much the handshake packet can have been held up on its way.
/// Judgement: longer than callers wait for one.
const AHEAD_MAX_US: i64 = 5_000_000;

/// Samples that make one correction (libsrt 1.5): about ten seconds, as there is an ACK every 10 ms.
const SAMPLES: u32 = 1_000;

/// How far one correction moves the base (libsrt 1.5); the rest is held as drift.
const STEP_US: i64 = 5_000;

#[cfg(test)]
mod tests {
    use super::*;

    const LATENCY: Duration = Duration::from_millis(120);

    #[test]
    fn a_packet_is_due_the_latency_after_it_was_sent() {
        let tsbpd = Tsbpd::new(Time::from_ns(5_000_000_123), 1_000_000, LATENCY);
        let due = tsbpd.due(tsbpd.stamp(1_250_000, Time::from_ns(5_260_000_000)));
        assert_eq!(due, Time::from_ns(5_250_000_123) + LATENCY);
        // Sent before the handshake packet, and coming long after.
        let due = tsbpd.due(tsbpd.stamp(999_999, Time::from_ns(65_000_000_000)));
        assert_eq!(due, Time::from_ns(4_999_999_123) + LATENCY);
    }

    #[test]
    fn a_peer_that_has_run_for_longer_than_we_have_is_understood() {
        let origin = Time::from_ns(1_000_000_000);
        let tsbpd = Tsbpd::new(origin, 3_600_000_000, LATENCY);
        assert_eq!(tsbpd.due(tsbpd.stamp(3_600_500_000, origin)), origin + Duration::from_millis(500) + LATENCY);
        // A moment before our epoch is the epoch.
        assert_eq!(tsbpd.due(tsbpd.stamp(3_590_000_000, origin)), Time::ZERO);
    }

    #[test]
    fn timestamps_wrap_in_either_order() {
        let origin = Time::from_ns(1_000_000_000);
        let tsbpd = Tsbpd::new(origin, u32::MAX - 999, LATENCY);
        let arrival = origin + Duration::from_millis(2);
        let after = tsbpd.stamp(500, arrival);
        let before = tsbpd.stamp(u32::MAX, arrival);
        assert!(before < after);
        assert_eq!(tsbpd.due(after), origin + Duration::from_micros(1_500) + LATENCY);
        assert_eq!(tsbpd.due(before), origin + Duration::from_micros(999) + LATENCY);
    }

    #[test]
    fn a_silence_over_several_wraps_is_survived() {
        let origin = Time::from_ns(1_000_000_000);
        let tsbpd = Tsbpd::new(origin, 7, LATENCY);
        for hours in [1, 3, 24, 24 * 365] {
            let sent = origin + Duration::from_secs(hours * 3_600);
            let timestamp = 7_u32.wrapping_add((hours * 3_600_000_000) as u32);
            assert_eq!(tsbpd.due(tsbpd.stamp(timestamp, sent + Duration::from_millis(40))), sent + LATENCY, "{hours}");
        }
    }

    #[test]
    fn a_timestamp_far_ahead_is_not_believed() {
        let origin = Time::from_ns(1_000_000_000);
        let tsbpd = Tsbpd::new(origin, 0, LATENCY);
        let due = |timestamp| tsbpd.due(tsbpd.stamp(timestamp, origin + Duration::from_secs(60)));
        assert_eq!(due(65_000_000), origin + Duration::from_secs(65) + LATENCY);
        for timestamp in [65_000_001, 60_000_000 + i32::MAX as u32] {
            assert_eq!(due(timestamp), origin + Duration::from_secs(60) + LATENCY);
        }
        // Long ago is just due.
        assert_eq!(due(5), origin + Duration::from_micros(5) + LATENCY);
    }

    #[test]
    fn drift_is_corrected_after_a_thousand_samples_and_the_base_moves_by_steps() {
        let origin = Time::from_ns(1_000_000_000);
        let mut tsbpd = Tsbpd::new(origin, 0, LATENCY);
        let mut measure = |late_us: u64, count: u32| {
            for _ in 0..count {
                tsbpd.measure(
                    1_000_000,
                    origin + Duration::from_micros(1_000_000 + late_us),
                    Duration::from_millis(30),
                );
            }
            (tsbpd.correction_us(), tsbpd.shift_us)
        };
        assert_eq!(measure(12_000, 999), (0, 0));
        assert_eq!(measure(12_000, 1), (12_000, 5_000));
        assert_eq!(measure(12_000, 1_000), (12_000, 10_000));
        assert_eq!(measure(12_000, 1_000), (12_000, 10_000));
        assert_eq!(measure(3_000, 1_000), (3_000, 5_000));
    }

    #[test]
    fn a_longer_way_is_no_drift() {
        let origin = Time::from_ns(1_000_000_000);
        let mut tsbpd = Tsbpd::new(origin, 0, LATENCY);
        tsbpd.measure(0, origin, Duration::from_millis(20));
        for _ in 0..999 {
            tsbpd.measure(0, origin + Duration::from_millis(40), Duration::from_millis(100));
        }
        assert_eq!(tsbpd.correction_us(), 0);
    }

    #[test]
    fn another_way_shows_its_length_first_and_drift_only_then() {
        let origin = Time::from_ns(1_000_000_000);
        let mut tsbpd = Tsbpd::new(origin, 0, LATENCY);
        let measure = |tsbpd: &mut Tsbpd, late_ms: u64| {
            for _ in 0..SAMPLES {
                tsbpd.measure(0, origin + Duration::from_millis(late_ms), Duration::from_millis(20));
            }
            tsbpd.correction_us()
        };
        assert_eq!(measure(&mut tsbpd, 3), 3_000);
        let mut tsbpd = tsbpd.elsewhere();
        assert_eq!(measure(&mut tsbpd, 78), 3_000);
        assert_eq!(measure(&mut tsbpd, 80), 5_000);
    }

    #[test]
    fn nonsense_does_not_overflow() {
        let mut tsbpd = Tsbpd::new(Time::from_ns(u64::MAX), 5, Duration::MAX);
        for timestamp in [0, 1, i32::MAX as u32, 1 << 31, u32::MAX] {
            for arrival in [Time::ZERO, Time::from_ns(u64::MAX)] {
                let _ = tsbpd.due(tsbpd.stamp(timestamp, arrival));
                for _ in 0..SAMPLES {
                    tsbpd.measure(timestamp, arrival, Duration::MAX);
                }
            }
        }
    }
}
