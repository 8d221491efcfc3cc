//! Decides when the bytes of a fast stream are let gather, so that fewer wake-ups bring them.
//!
//! Whoever sends as fast as it is taken has each of its writes wake the reader, which costs more than what was written. No
//! stream that is watched while it comes is that fast, but for the fastest of all, which lose a millisecond.

use std::time::Duration;

use crate::units::Time;

/// For one connection, after each of its turns.
#[derive(Debug, Default)]
pub(super) struct Gather {
    window_start: Time,
    window_bytes: usize,
    is_on: bool,
    /// What has come by then is taken in, however little it is.
    due: Option<Time>,
}

impl Gather {
    /// A turn brought so many bytes. Gives how many shall wake the reader from now on, if that is not what it was.
    pub(super) fn after_turn(&mut self, now: Time, bytes: usize) -> Option<usize> {
        let was_on = self.is_on;
        self.window_bytes += bytes;
        let span = now.since(self.window_start);
        if span >= WINDOW {
            self.is_on = self.window_bytes as f64 >= span.as_secs_f64() * FAST_BYTES_PER_SECOND;
            (self.window_start, self.window_bytes) = (now, 0);
        }
        let is_over = self.due.is_some_and(|due| due <= now);
        if bytes > 0 {
            self.due = Some(now + GATHER_FOR);
        } else if is_over {
            self.is_on = false;
        }
        self.due = self.due.filter(|_| self.is_on);
        (self.is_on != was_on).then_some(if self.is_on { GATHERED_BYTES } else { 1 })
    }

    /// When another turn is due without a wake-up.
    pub(super) const fn due(&self) -> Option<Time> {
        self.due
    }
}

/// Judgement: more than a picture of most streams and its like.
const WINDOW: Duration = Duration::from_millis(50);
/// 200 Mb/s. Judgement: contribution over RTMP has less, but for single pictures.
const FAST_BYTES_PER_SECOND: f64 = 25e6;
/// Judgement: far below any player's buffer.
const GATHER_FOR: Duration = Duration::from_millis(1);
/// Bytes that need not wait any longer: what a turn takes in.
const GATHERED_BYTES: usize = 512 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// So many bytes every so often, for half a second; gives what was told, and when it was over.
    fn run(gather: &mut Gather, bytes: usize, apart: Duration) -> (Vec<usize>, Time) {
        let (mut now, mut told) = (Time::ZERO, Vec::new());
        while now < Time::ZERO + 500 * MS {
            now += apart;
            told.extend(gather.after_turn(now, bytes));
        }
        (told, now)
    }

    #[test]
    fn what_comes_at_the_pace_of_its_pictures_wakes_at_once() {
        for (bytes, apart) in [(30_000, 40 * MS), (250_000, 40 * MS), (400, 20 * MS), (500_000, 40 * MS)] {
            let mut gather = Gather::default();
            assert!(run(&mut gather, bytes, apart).0.is_empty());
            assert_eq!(gather.due(), None);
        }
    }

    #[test]
    fn what_comes_as_fast_as_it_is_taken_gathers_until_it_pauses() {
        let mut gather = Gather::default();
        let (told, mut now) = run(&mut gather, 40_000, MS / 4);
        assert_eq!((told, gather.due()), (vec![GATHERED_BYTES], Some(now + MS)));
        now += MS / 2;
        assert_eq!(gather.after_turn(now, 0), None, "a timer of something else is no pause");
        now += MS / 2;
        assert_eq!((gather.after_turn(now, 0), gather.due()), (Some(1), None));
        assert_eq!((gather.after_turn(now + MS, 40_000), gather.due()), (None, None), "it is found to be fast anew");
    }
}
