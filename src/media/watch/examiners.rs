//! `Examiners`: what is kept of all streams that are decoded in one place, within a bound.

use std::collections::BTreeMap;

use super::examiner::Examiner;
use super::job::{Failure, Findings, Job};

/// One [`Examiner`] for each stream. Together they keep no more than [`KEPT_BYTES_MAX`] of pictures to compare others to:
/// beyond that, those that were used least recently are given up, and their streams' next pictures are compared to nothing.
#[derive(Debug, Default)]
pub struct Examiners {
    streams: BTreeMap<u64, (Examiner, u64)>,
    /// Counts jobs: who was used when.
    used: u64,
}

impl Examiners {
    /// For no stream yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Does what the job of a stream asks for. If that panics nothing is kept of the stream.
    ///
    /// # Errors
    /// Why there is nothing to tell.
    pub fn examine(&mut self, stream: u64, job: &Job) -> Result<Findings, Failure> {
        // Taken out, so that it is not there any more if this panics.
        let mut examiner = self.streams.remove(&stream).map_or_else(Examiner::new, |(examiner, _)| examiner);
        let result = examiner.examine(job);
        self.used += 1;
        self.streams.insert(stream, (examiner, self.used));
        self.shed();
        result
    }

    /// A stream is not watched any more.
    pub fn forget(&mut self, stream: u64) {
        self.streams.remove(&stream);
    }

    /// Bytes of all pictures that are kept.
    #[must_use]
    pub fn bytes_kept(&self) -> usize {
        self.streams.values().map(|(examiner, _)| examiner.bytes_kept()).sum()
    }

    fn shed(&mut self) {
        while self.bytes_kept() > KEPT_BYTES_MAX {
            let with_picture = self.streams.values_mut().filter(|(examiner, _)| examiner.bytes_kept() > 0);
            let Some((examiner, _)) = with_picture.min_by_key(|(_, used)| *used) else { return };
            examiner.forget_picture();
        }
        while self.streams.len() > STREAMS_MAX {
            let Some(oldest) = self.streams.iter().min_by_key(|(_, (_, used))| *used).map(|(stream, _)| *stream) else {
                return;
            };
            self.streams.remove(&oldest);
        }
    }
}

/// Eighty pictures of 1080 lines, or two of the largest that are decoded.
pub const KEPT_BYTES_MAX: usize = 256 << 20;
/// Sound keeps some 100 KB of each stream.
const STREAMS_MAX: usize = 1_024;
