//! `Histogram`: how often spans of which length occurred, in fixed buckets.

use std::time::Duration;

/// Counts spans from 0 to 33 s in microseconds, four buckets to each doubling; longer ones fall into the last bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; BUCKETS],
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: [0; BUCKETS] }
    }
}

impl Histogram {
    /// Counts one.
    #[inline]
    pub fn record(&mut self, span: Duration) {
        if let Some(count) = self.counts.get_mut(bucket(span)) {
            *count += 1;
        }
    }

    /// Spans counted.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The buckets that hold any, shortest first: the longest span that falls into it, and how many did.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> + '_ {
        let counts = self.counts.iter().enumerate();
        counts.filter(|(_, count)| **count > 0).map(|(bucket, count)| (longest(bucket), *count))
    }

    /// A span that all but the given number in a thousand stay within, at most a quarter too long; `None` if nothing was
    /// counted since `before` was the same histogram.
    #[must_use]
    pub fn all_but_per_mille(&self, per_mille: u64, before: &Self) -> Option<Duration> {
        let total = self.total().checked_sub(before.total()).filter(|total| *total > 0)?;
        let mut may_exceed = total * per_mille / 1_000;
        for (bucket, (count, before)) in self.counts.iter().zip(&before.counts).enumerate().rev() {
            let count = count - before;
            if count > may_exceed {
                return Some(longest(bucket));
            }
            may_exceed -= count;
        }
        None
    }
}

fn bucket(span: Duration) -> usize {
    // By parts, as a multiplication of 128 bits is slow and this runs for every packet.
    let us = span.as_secs().saturating_mul(1_000_000).saturating_add(u64::from(span.subsec_micros()));
    let us = us.min(LONGEST_US.into()) as u32;
    if us < 4 {
        return us as usize;
    }
    let exponent = us.ilog2();
    (4 * (exponent - 1) + (us >> (exponent - 2)) % 4) as usize
}

/// The longest span of a bucket, in whole microseconds.
const fn longest(bucket: usize) -> Duration {
    let bucket = bucket as u64;
    let us = if bucket < 4 { bucket } else { ((bucket % 4 + 5) << (bucket / 4 - 1)) - 1 };
    Duration::from_micros(us)
}

/// Longer than any window.
const LONGEST_US: u32 = (1 << 25) - 1;

const BUCKETS: usize = 96;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_span_lies_in_its_bucket_and_buckets_are_narrow() {
        assert_eq!(bucket(Duration::from_secs(3_600)), BUCKETS - 1);
        for us in (0..5_000).chain((5_000..40_000_000).step_by(9_973)) {
            let bucket = bucket(Duration::from_micros(us));
            let longest_us = longest(bucket).as_micros() as u64;
            let us = us.min(LONGEST_US.into());
            assert!(longest_us >= us && longest_us <= us + us / 4, "{us} in {bucket} up to {longest_us}");
            assert!(bucket == 0 || longest(bucket - 1) < Duration::from_micros(us));
        }
    }

    #[test]
    fn a_thousandth_may_exceed() {
        let mut histogram = Histogram::default();
        let before = histogram.clone();
        assert_eq!(histogram.all_but_per_mille(1, &before), None);
        histogram.record(Duration::from_millis(150));
        let longest = histogram.all_but_per_mille(1, &before).unwrap();
        assert!((150..=188).contains(&longest.as_millis()));
        for _ in 0..999 {
            histogram.record(Duration::from_micros(3));
        }
        assert_eq!(histogram.all_but_per_mille(1, &before), Some(Duration::from_micros(3)));
        assert_eq!(histogram.buckets().map(|(_, count)| count).collect::<Vec<_>>(), [999, 1]);
        assert_eq!(histogram.total(), 1_000);
    }
}
