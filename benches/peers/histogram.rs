//! Counts of durations in buckets that are at most 1.6 % wide.

#[derive(Default)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    max_ns: u64,
}

/// Buckets for each doubling.
const STEPS: u64 = 64;

impl Histogram {
    pub(crate) fn note(&mut self, span_ns: u64) {
        let bucket = bucket(span_ns);
        if bucket >= self.counts.len() {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
        self.max_ns = self.max_ns.max(span_ns);
    }

    /// The upper edge of the bucket that holds this share of all; 0 if there are none.
    pub(crate) fn quantile(&self, per_mille: u64) -> u64 {
        let total: u64 = self.counts.iter().sum();
        let mut left = (total * per_mille).div_ceil(1000);
        for (bucket, &count) in self.counts.iter().enumerate() {
            if count >= left && left > 0 {
                return upper_edge(bucket as u64).min(self.max_ns);
            }
            left = left.saturating_sub(count);
        }
        0
    }
}

fn bucket(span_ns: u64) -> usize {
    let doublings = span_ns.max(1).ilog2().saturating_sub(STEPS.ilog2());
    usize::try_from(u64::from(doublings) * STEPS + (span_ns >> doublings)).unwrap_or(usize::MAX)
}

fn upper_edge(bucket: u64) -> u64 {
    let doublings = (bucket / STEPS).saturating_sub(1);
    ((bucket - doublings * STEPS + 1) << doublings) - 1
}
