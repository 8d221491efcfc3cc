//! When a received packet is due: the sender's media clock as seen from ours.
//!
//! The timestamps of RTP say when packets were sent, relative to each other (RFC 2250 2: intended transmission time).
//! What they mean on our clock is learnt from when packets arrive: from the first one at once, and from the median of
//! all others little by little, so that clocks may drift and a single delay moves nothing.

use std::time::Duration;

use crate::units::Time;

/// Maps timestamps to moments.
#[derive(Debug)]
pub(super) struct Playout {
    buffer_ns: i64,
    /// Of the base, and latest timestamp seen, without wrapping.
    clock: Option<Clock>,
    /// What packets that arrived in order said about the base, one in [`SAMPLE_EVERY`].
    samples: Vec<i64>,
    sampled: i64,
    corrections: u32,
    /// Packets in a row whose timestamp fits nothing.
    odd: u8,
}

#[derive(Clone, Copy, Debug)]
struct Clock {
    /// Our time when the timestamp was zero, plus what the path takes.
    base_ns: i64,
    timestamp: u32,
    ticks: i64,
}

impl Playout {
    /// Holds packets for `buffer`.
    pub(super) fn new(buffer: Duration) -> Self {
        Self {
            buffer_ns: i64::try_from(buffer.as_nanos()).unwrap_or(i64::MAX / 4).min(i64::MAX / 4),
            clock: None,
            samples: Vec::with_capacity(SAMPLES),
            sampled: 0,
            corrections: 0,
            odd: 0,
        }
    }

    /// Forgets the sender's clock.
    pub(super) fn restart(&mut self) {
        self.clock = None;
        self.samples.clear();
        self.corrections = 0;
        self.odd = 0;
    }

    /// When a packet is due that came at `arrival`, for the first time and not before one that it follows.
    pub(super) fn due(&mut self, timestamp: u32, arrival: Time) -> Time {
        let arrival_ns = signed(arrival);
        let clock = *self.clock.get_or_insert(Clock { base_ns: arrival_ns, timestamp, ticks: 0 });
        let ticks = ticks_of(&clock, timestamp);
        if ticks > clock.ticks {
            self.clock = Some(Clock { timestamp, ticks, ..clock });
        }
        let base_ns = arrival_ns - span_ns(ticks);
        if (base_ns - clock.base_ns).abs() > self.tolerance_ns() {
            self.odd += 1;
            if self.odd >= ODD_MAX {
                // The clock was set, or the path is another one.
                self.restart();
                self.clock = Some(Clock { base_ns: arrival_ns, timestamp, ticks: 0 });
            }
            return moment(arrival_ns + self.buffer_ns);
        }
        self.odd = 0;
        self.sample(ticks, base_ns);
        moment(self.clock.map_or(arrival_ns, |clock| clock.base_ns) + span_ns(ticks) + self.buffer_ns)
    }

    /// When a packet is due that came out of order, or again, at `arrival`.
    pub(super) fn due_of_old(&self, timestamp: u32, arrival: Time) -> Time {
        let latest_ns = signed(arrival) + self.buffer_ns;
        let due_ns =
            self.clock.map_or(latest_ns, |clock| clock.base_ns + span_ns(ticks_of(&clock, timestamp)) + self.buffer_ns);
        moment(due_ns.min(latest_ns))
    }

    /// Whether a packet was sent so much sooner than it came that it is a straggler, and not the first one of a sender
    /// that has started over.
    pub(super) fn is_straggler(&self, timestamp: u32, arrival: Time) -> bool {
        let Some(clock) = &self.clock else { return false };
        let late_ns = signed(arrival) - clock.base_ns - span_ns(ticks_of(clock, timestamp));
        (STRAGGLES_MIN_NS..STRAGGLES_MAX_NS).contains(&late_ns)
    }

    /// One in some milliseconds of the sender's time: of ours would choose those that were held up.
    fn sample(&mut self, ticks: i64, base_ns: i64) {
        // Not always as long, so that no pattern in the arrivals hides behind it.
        let apart = SAMPLE_EVERY + self.samples.len() as i64 % 7 * 90;
        if ticks < self.sampled + apart && !self.samples.is_empty() {
            return;
        }
        self.sampled = ticks;
        self.samples.push(base_ns);
        if self.samples.len() < SAMPLES {
            return;
        }
        let (_, median, _) = self.samples.select_nth_unstable(SAMPLES / 2);
        let step_ns = if self.corrections < FIRST_CORRECTIONS { FIRST_STEP_NS } else { STEP_NS };
        if let Some(clock) = &mut self.clock {
            clock.base_ns += (*median - clock.base_ns).clamp(-step_ns, step_ns);
        }
        self.corrections = self.corrections.saturating_add(1);
        self.samples.clear();
    }

    /// How far a packet may be from where its timestamp says it should be. What is later than half of the buffer could
    /// not be asked for again in time.
    const fn tolerance_ns(&self) -> i64 {
        if self.buffer_ns / 2 > TOLERANCE_MIN_NS { self.buffer_ns / 2 } else { TOLERANCE_MIN_NS }
    }
}

const fn ticks_of(clock: &Clock, timestamp: u32) -> i64 {
    clock.ticks + timestamp.wrapping_sub(clock.timestamp).cast_signed() as i64
}

/// So many ticks of 90 kHz.
const fn span_ns(ticks: i64) -> i64 {
    ticks * 100_000 / 9
}

fn signed(time: Time) -> i64 {
    i64::try_from(time.as_ns()).unwrap_or(i64::MAX / 2).min(i64::MAX / 2)
}

fn moment(ns: i64) -> Time {
    Time::from_ns(u64::try_from(ns).unwrap_or(0))
}

/// Samples that make one correction, and ticks of 90 kHz between two at least: about a correction a second.
const SAMPLES: usize = 64;
const SAMPLE_EVERY: i64 = 1_125;
/// What one correction moves at most. Judgement: ten times what the worst clocks drift in a second, and no more than
/// what arrives anyway unevenly.
const STEP_NS: i64 = 1_000_000;
/// At first more, as the first packet may have been held up.
const FIRST_STEP_NS: i64 = 5_000_000;
const FIRST_CORRECTIONS: u32 = 8;
/// Judgement: more than a busy path does to a single packet.
const TOLERANCE_MIN_NS: i64 = 50_000_000;
/// By how much stragglers are late. Judgement: less is a restart with the same clock, more is one with another.
const STRAGGLES_MIN_NS: i64 = 50_000_000;
const STRAGGLES_MAX_NS: i64 = 10_000_000_000;
/// Packets in a row that set the clock anew. Judgement: two of ffmpeg's bursts.
const ODD_MAX: u8 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const BUFFER: Duration = Duration::from_millis(300);

    #[test]
    fn packets_keep_the_distance_that_they_were_sent_with() {
        let mut playout = Playout::new(BUFFER);
        let start = 0xffff_ff00_u32;
        for n in 0..3_000_u64 {
            let jitter = [0, 3_000, 9_000, 1_000][n as usize % 4];
            let due = playout.due(start.wrapping_add(n as u32 * 90), us(1_000_000 + n * 1_000 + jitter));
            let expected = 1_000_000 + n * 1_000 + 300_000;
            assert!(due.as_ns().abs_diff(expected * 1_000) <= 4_000_000, "{n}: {due:?}");
        }
    }

    #[test]
    fn a_packet_sent_again_is_due_when_it_was() {
        let mut playout = Playout::new(BUFFER);
        playout.due(0, us(1_000_000));
        playout.due(9_000, us(1_100_000));
        assert_eq!(playout.due_of_old(4_500, us(1_250_000)), us(1_350_000));
        assert_eq!(playout.due_of_old(900_000, us(1_250_000)), us(1_550_000), "and never later than if it were new");
    }

    #[test]
    fn a_drifting_clock_is_followed() {
        let mut playout = Playout::new(BUFFER);
        for n in 0..200_000_u64 {
            // Theirs is 200 ppm slow.
            let arrival = 1_000_000 + n * 1_000 * 5_001 / 5_000;
            let due = playout.due((n * 90) as u32, us(arrival));
            assert!(due.as_ns().abs_diff((arrival + 300_000) * 1_000) < 3_000_000, "{n}");
        }
    }

    #[test]
    fn a_first_packet_that_was_held_up_does_not_count_for_long() {
        let mut playout = Playout::new(BUFFER);
        playout.due(0, us(1_030_000));
        let mut due = Time::ZERO;
        for n in 1..20_000_u64 {
            due = playout.due((n * 90) as u32, us(1_000_000 + n * 1_000));
        }
        assert!(due.as_ns().abs_diff((1_000_000 + 19_999_000 + 300_000) * 1_000) < 1_000_000);
    }

    #[test]
    fn timestamps_that_jump_or_stand_still_delay_nothing() {
        let mut playout = Playout::new(BUFFER);
        let mut latest = Time::ZERO;
        for n in 0..10_000_u64 {
            let timestamp = match n {
                0..2_000 => n * 90,
                2_000..4_000 => n * 90 + 3_000_000_000,
                // As ffmpeg stamps all of a burst, only longer.
                4_000..6_000 => 7,
                _ => n * 90 + 1_000_000,
            };
            let arrival = us(1_000_000 + n * 1_000);
            let due = playout.due(timestamp as u32, arrival);
            assert!(due <= arrival + BUFFER + BUFFER / 2, "{n}: {:?}", due.since(arrival));
            assert!(due + BUFFER / 2 >= arrival + BUFFER, "{n}: {:?}", due.since(arrival));
            latest = due;
        }
        assert_eq!(latest, us(1_000_000 + 9_999_000 + 300_000));
    }

    fn us(us: u64) -> Time {
        Time::from_ns(us * 1_000)
    }
}
