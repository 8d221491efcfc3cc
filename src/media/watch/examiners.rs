//! `Examiners`: what is kept of all streams that are decoded in one place, within a bound.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::examiner::Examiner;
use super::job::{Failure, Findings, Job, Work};
use crate::media::decode::may_abort;
use crate::proto::mpegts::demux::Codec;

/// One [`Examiner`] for each stream. Together they keep no more than [`KEPT_BYTES_MAX`] of pictures to compare others to:
/// beyond that, of those that were used least recently only a part is kept, which is enough to compare others to. Where not
/// even that has room they are given up, and their streams' next pictures are compared to nothing.
#[derive(Debug)]
pub struct Examiners {
    streams: BTreeMap<u64, (Examiner, u64)>,
    /// Counts jobs: who was used when.
    used: u64,
    bytes_max: usize,
    /// This process does nothing else, and may abort.
    is_apart: bool,
}

impl Default for Examiners {
    fn default() -> Self {
        Self::new()
    }
}

impl Examiners {
    /// For no stream yet. What can only be decoded in a process of its own is refused.
    #[must_use]
    pub const fn new() -> Self {
        Self { streams: BTreeMap::new(), used: 0, bytes_max: KEPT_BYTES_MAX, is_apart: false }
    }

    /// The same in a process that does nothing else, where a decoder may abort: nothing is refused for that.
    #[must_use]
    pub fn apart() -> Self {
        Self { is_apart: true, ..Self::new() }
    }

    /// Does what the job of a stream asks for. If that panics nothing is kept of the stream.
    ///
    /// # Errors
    /// Why there is nothing to tell.
    pub fn examine(&mut self, stream: u64, job: &Job) -> Result<Findings, Failure> {
        if job.units.iter().any(|unit| !self.accepts(unit.codec)) {
            return Err(Failure::Unsupported(Cow::Borrowed("only decoded in a process of its own")));
        }
        if matches!(job.work, Work::Proof { .. }) {
            // Nothing of it is kept.
            return Examiner::new().examine(job);
        }
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

    const fn accepts(&self, codec: Codec) -> bool {
        self.is_apart || !may_abort(codec)
    }

    fn shed(&mut self) {
        while self.bytes_kept() > self.bytes_max {
            let whole = self.streams.values_mut().filter(|(examiner, _)| examiner.is_whole());
            if let Some((examiner, _)) = whole.min_by_key(|(_, used)| *used) {
                examiner.reduce_picture();
                continue;
            }
            let with_picture = self.streams.values_mut().filter(|(examiner, _)| examiner.bytes_kept() > 0);
            let Some((examiner, _)) = with_picture.min_by_key(|(_, used)| *used) else { break };
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

/// Eighty pictures of 1080 lines, or a part of 1,300; or two of the largest that are decoded.
pub const KEPT_BYTES_MAX: usize = 256 << 20;
/// Sound keeps some 100 KB of each stream.
const STREAMS_MAX: usize = 1_024;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::proto::mpegts::demux::AccessUnit;

    #[test]
    fn more_streams_than_there_is_room_for_are_compared_all_the_same() {
        let mut examiners = Examiners::new();
        let same = |examiners: &mut Examiners, stream| match examiners.examine(stream, &job()) {
            Ok(Findings::Picture(findings)) => findings.same,
            other => panic!("{other:?}"),
        };
        assert_eq!(same(&mut examiners, 0), None);
        let whole = examiners.bytes_kept();
        // Room for two, and twenty come one after the other.
        examiners.bytes_max = 2 * whole + 18 * whole / 15;
        for stream in 1..20 {
            assert_eq!(same(&mut examiners, stream), None);
        }
        assert!(examiners.bytes_kept() <= examiners.bytes_max);
        for stream in 0..20 {
            assert_eq!(same(&mut examiners, stream), Some(true), "{stream}");
        }
        examiners.bytes_max = 0;
        assert_eq!((same(&mut examiners, 3), examiners.bytes_kept()), (Some(true), 0));
        assert_eq!(same(&mut examiners, 3), None);
    }

    fn job() -> Job {
        let bytes = include_bytes!("../../../tests/data/media/h264_mbaff").to_vec();
        let unit = AccessUnit { pid: Default::default(), codec: Codec::H264, pts: None, dts: None, bytes };
        let work = Work::Picture { thumbnail: false, quality: true, anew: false };
        Job { number: 1, work, units: vec![Arc::new(unit)] }
    }
}
