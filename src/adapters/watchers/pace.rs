//! `Pace`: when a stream is looked at next.

use std::time::Duration;

use crate::units::Time;

/// Looks at a stream as often as packets come, and hardly ever while none do; then somebody has to say when they come again,
/// as a ring may not hold what comes until the next look. Moments lie on a grid, so that many streams are looked at in one go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    due: Time,
    looked_at: Time,
    every: Duration,
    /// When packets came last, or it began.
    came_at: Time,
    /// None were there at the last look.
    is_silent: bool,
}

impl Pace {
    pub(super) const fn new(now: Time) -> Self {
        Self { due: now, looked_at: now, every: LOOK_EVERY, came_at: now, is_silent: false }
    }

    pub(super) const fn due(&self) -> Time {
        self.due
    }

    /// Whether packets are worth asking to be told of before the next look.
    pub(super) const fn wants_alarm(&self) -> bool {
        self.is_silent
    }

    /// So many packets were there; while any come it is looked at as often as `every_max` at least. `has_alarm` if the next
    /// ones will be told of.
    pub(super) fn handle_look(&mut self, now: Time, packets: usize, every_max: Duration, has_alarm: bool) {
        let passed = now.since(self.looked_at).max(LOOK_EVERY);
        self.looked_at = now;
        self.is_silent = packets == 0;
        let longest = if packets > 0 {
            self.came_at = now;
            // As long as a convenient number of them takes.
            (passed * PACKETS / u32::try_from(packets).unwrap_or(u32::MAX)).min(every_max)
        } else if now.since(self.came_at) < QUIET {
            STEPS.into_iter().find(|step| *step > self.every).unwrap_or(IDLE_EVERY).min(QUIET_EVERY)
        } else {
            IDLE_EVERY
        };
        let longest = if packets == 0 && !has_alarm { longest.min(METADATA_EVERY) } else { longest };
        let step = STEPS.into_iter().rev().find(|step| *step <= longest);
        self.every = step.unwrap_or(LOOK_EVERY);
        let every_ns = self.every.as_nanos() as u64;
        self.due = Time::from_ns((now.as_ns() / every_ns + 1) * every_ns);
    }

    /// Not before then.
    pub(super) fn pause(&mut self, until: Time) {
        self.due = until;
    }
}

/// A fiftieth of a second of packets waits in a ring at least, which is little, and looking costs little.
pub(super) const LOOK_EVERY: Duration = STEPS[0];
/// A stream whose pictures and sound are wanted: what was looked at says when it came.
pub(super) const CONTENT_EVERY: Duration = STEPS[1];
/// One of which nothing but what it carries is wanted.
pub(super) const METADATA_EVERY: Duration = STEPS[3];
/// Without packets for a while: that they are missing is told in time.
const QUIET_EVERY: Duration = STEPS[4];
const QUIET: Duration = Duration::from_secs(5);
/// Without packets for longer.
const IDLE_EVERY: Duration = STEPS[5];
/// Each divides the last.
const STEPS: [Duration; 6] = [
    Duration::from_millis(20),
    Duration::from_millis(40),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_millis(1_000),
];
/// Few enough for the smallest rings.
const PACKETS: u32 = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_looked_at_as_often_as_packets_come() {
        // Packets a second, the longest interval, and looks within ten seconds of which the first is long past.
        for (rate, every_max, looks) in [
            (0, CONTENT_EVERY, 10),
            (5, METADATA_EVERY, 50),
            (800, METADATA_EVERY, 50),
            (800, CONTENT_EVERY, 250),
            (10_000, METADATA_EVERY, 500),
            (100_000, METADATA_EVERY, 500),
        ] {
            let mut pace = Pace::new(ms(0));
            let (mut told, mut count) = (0, 0);
            while pace.due() < ms(30_000) {
                let now = pace.due();
                let came = now.as_ns() / 1_000_000 * rate / 1_000;
                let has_alarm = pace.wants_alarm();
                pace.handle_look(now, (came - told) as usize, every_max, has_alarm);
                told = came;
                count += u64::from(now >= ms(20_000));
            }
            assert_eq!(count, looks, "{rate} packets a second");
        }
    }

    #[test]
    fn a_stream_that_stops_is_missed_in_time_and_many_are_looked_at_in_one_go() {
        let mut paces = [1, 7, 13].map(|start| Pace::new(ms(start)));
        for pace in &mut paces {
            let mut longest = Duration::ZERO;
            while pace.due() < ms(9_000) {
                let now = pace.due();
                pace.handle_look(now, usize::from(now < ms(2_000)), CONTENT_EVERY, true);
                if now < ms(6_000) {
                    longest = longest.max(pace.due().since(now));
                }
            }
            assert!(longest <= QUIET_EVERY, "{longest:?}");
        }
        assert_eq!(paces.map(|pace| pace.due()), [ms(9_000); 3]);
    }

    #[test]
    fn nobody_sleeps_for_long_who_is_not_told_of_packets() {
        let mut pace = Pace::new(ms(0));
        assert!(!pace.wants_alarm());
        while pace.due() < ms(30_000) {
            let now = pace.due();
            pace.handle_look(now, 0, CONTENT_EVERY, false);
            assert!(pace.wants_alarm() && pace.due().since(now) <= METADATA_EVERY);
        }
        pace.handle_look(pace.due(), 0, CONTENT_EVERY, true);
        assert!(pace.due() >= ms(30_900));
    }

    fn ms(ms: u64) -> Time {
        Time::from_ns(ms * 1_000_000)
    }
}
