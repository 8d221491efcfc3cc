//! `Suspects`: streams that brought down what decoded them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::media::watch::governor::Kind;
use crate::units::Time;

/// Whose pictures or sound are decoded where crashes hurt nobody else, and since when.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    /// Those of the last [`SUSPECTED`], and some that are not watched any more.
    crashed: BTreeMap<(u64, Kind), Time>,
}

impl Suspects {
    /// A stream's pictures or sound had a crash.
    pub(super) fn handle_crash(&mut self, now: Time, stream: u64, kind: Kind) {
        self.crashed.retain(|_, at| now.since(*at) < SUSPECTED);
        self.crashed.insert((stream, kind), now);
    }

    /// Whether those of a stream had a crash of late.
    pub(super) fn has(&self, now: Time, stream: u64, kind: Kind) -> bool {
        self.crashed.get(&(stream, kind)).is_some_and(|at| now.since(*at) < SUSPECTED)
    }

    /// A stream is not watched any more.
    pub(super) fn forget(&mut self, stream: u64) {
        self.crashed.retain(|(suspect, _), _| *suspect != stream);
    }
}

/// Judgement: whoever is hostile has others decoded anew six times an hour at most.
const SUSPECTED: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_crashed_is_suspected_for_ten_minutes() {
        let at = |seconds| Time::ZERO + Duration::from_secs(seconds);
        let mut suspects = Suspects::default();
        suspects.handle_crash(at(0), 1, Kind::Picture);
        suspects.handle_crash(at(300), 2, Kind::Sound);
        suspects.handle_crash(at(500), 2, Kind::Sound);
        assert!(suspects.has(at(599), 1, Kind::Picture) && !suspects.has(at(599), 1, Kind::Sound));
        assert!(!suspects.has(at(600), 1, Kind::Picture) && suspects.has(at(1_099), 2, Kind::Sound));
        suspects.handle_crash(at(1_000), 3, Kind::Picture);
        assert_eq!(suspects.crashed.len(), 2);
        suspects.forget(2);
        assert!(!suspects.has(at(1_000), 2, Kind::Sound) && suspects.has(at(1_000), 3, Kind::Picture));
    }
}
