//! Who was sent away at a port: counted by cause, and told so that a storm is no more than a line.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::adapters::tls::{Failure, FailureCounts};
use crate::proto::Detail;
use crate::proto::rtmp::Role;
use crate::units::Time;

/// Why somebody was sent away at the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    Crowded,
    Unknown(Role),
    Denied,
    Unanswered,
    Failed,
    Slow,
    Broken,
    Oversize,
    Insecure(Failure),
    Left,
    NotAccepted,
    Fault,
    NotTaken,
}

/// Of those who were sent away at the door.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Too many at once, together or from one address.
    crowded: AtomicU64,
    /// Asked for what nobody has, or with a wrong key.
    unknown: AtomicU64,
    /// Were not wanted by who was asked about them.
    denied: AtomicU64,
    /// There was no answer about them, or not in time.
    unanswered: AtomicU64,
    /// Did not say in time what they want.
    slow: AtomicU64,
    /// Broke the protocol before that.
    broken: AtomicU64,
    /// Said too much before that.
    oversize: AtomicU64,
    /// Came to nothing with TLS, and why.
    insecure: AtomicU64,
    tls: FailureCounts,
    /// Left before that.
    left: AtomicU64,
    /// The system had no connection for them, or we a fault.
    failed: AtomicU64,
    /// Were let in where nobody took them: the flow ended, or too much waited there.
    not_taken: AtomicU64,
}

impl Counts {
    pub(super) fn add(&self, cause: Cause) {
        let counter = match cause {
            Cause::Crowded => &self.crowded,
            Cause::Unknown(_) => &self.unknown,
            Cause::Denied => &self.denied,
            Cause::Unanswered | Cause::Failed => &self.unanswered,
            Cause::Slow => &self.slow,
            Cause::Broken => &self.broken,
            Cause::Oversize => &self.oversize,
            Cause::Insecure(failure) => {
                self.tls.count(failure);
                &self.insecure
            }
            Cause::Left => &self.left,
            Cause::NotAccepted | Cause::Fault => &self.failed,
            Cause::NotTaken => &self.not_taken,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn details(&self) -> impl Iterator<Item = Detail> {
        let own = [
            ("portCrowded", &self.crowded),
            ("portWrongKey", &self.unknown),
            ("portDenied", &self.denied),
            ("portUnanswered", &self.unanswered),
            ("portSlow", &self.slow),
            ("portBrokenProtocol", &self.broken),
            ("portOversize", &self.oversize),
            ("portInsecure", &self.insecure),
            ("portLeft", &self.left),
            ("portFailed", &self.failed),
            ("portNotTaken", &self.not_taken),
        ]
        .map(|(name, count)| (name, count.load(Ordering::Relaxed) as f64));
        own.into_iter().chain(self.tls.details())
    }
}

impl Cause {
    /// In words.
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::Crowded => "too many want to be let in at once",
            Self::Unknown(Role::Publisher) => "its stream key is wrong",
            Self::Unknown(Role::Player) => "there is no such stream",
            Self::Denied => "it is not wanted by the accept hook",
            Self::Unanswered => "the accept hook did not answer in time",
            Self::Failed => "the accept hook failed",
            Self::Slow => "did not say in time what it wants",
            Self::Broken => "it does not keep to the protocol",
            Self::Oversize => "it says too much at once",
            Self::Insecure(failure) => failure.reason(),
            Self::Left => "left before it said what it wants",
            Self::NotAccepted => "the system has no room for another connection",
            Self::Fault => "a fault of ours",
            Self::NotTaken => "too much waits for the flow that it wants",
        }
    }

    /// Probes of load balancers and port scanners are no news.
    const fn is_news(self) -> bool {
        !matches!(self, Self::Left)
    }
}

/// What was told when, so that noise hides nothing and fills no flow's history.
#[derive(Debug, Default)]
pub(super) struct Told(BTreeMap<(&'static str, Option<u64>), Since>);

#[derive(Debug)]
struct Since {
    told: Time,
    /// Since then.
    count: u64,
}

impl Told {
    /// Of how many it is to be told now, if at all. `place` is whom they wanted, if that is known.
    pub(super) fn tell(&mut self, now: Time, cause: Cause, place: Option<u64>) -> Option<u64> {
        if !cause.is_news() {
            return None;
        }
        let key = (cause.reason(), place);
        if let Some(since) = self.0.get_mut(&key) {
            since.count += 1;
            if now.since(since.told) < TOLD_APART {
                return None;
            }
            since.told = now;
            return Some(std::mem::take(&mut since.count));
        }
        if self.0.len() >= TOLD_MAX {
            self.0.retain(|_, since| now.since(since.told) < TOLD_APART);
        }
        // With as many causes in a minute nobody reads them one by one.
        (self.0.len() < TOLD_MAX).then(|| {
            self.0.insert(key, Since { told: now, count: 0 });
            1
        })
    }
}

/// Judgement: somebody shall see the first one. What is told more often, as of an encoder that was forgotten and calls every
/// two seconds, displaces what matters.
const TOLD_APART: Duration = Duration::from_secs(60);
/// Causes and places that are remembered. Judgement: more than a port has flows.
const TOLD_MAX: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_is_told_once_a_minute_with_its_count_and_hides_no_other() {
        let mut told = Told::default();
        let at = |seconds| Time::ZERO + Duration::from_secs(seconds);
        let wrong = Cause::Unknown(Role::Publisher);
        let storm: Vec<_> = (0..=60).filter_map(|second| told.tell(at(second), wrong, Some(1))).collect();
        assert_eq!(storm, [1, 60]);
        assert_eq!(told.tell(at(60), wrong, Some(2)), Some(1), "another flow's is its own");
        assert_eq!(told.tell(at(60), wrong, None), Some(1));
        assert_eq!(told.tell(at(60), Cause::Broken, None), Some(1));
        assert_eq!(told.tell(at(99), Cause::Left, None), None);
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let mut told = Told::default();
        let first = (0..9_999).filter(|place| told.tell(Time::ZERO, Cause::Denied, Some(*place)).is_some());
        assert_eq!(first.count(), TOLD_MAX);
        assert_eq!(told.0.len(), TOLD_MAX);
        assert_eq!(told.tell(Time::ZERO + TOLD_APART, Cause::Denied, Some(99_999)), Some(1));
        assert_eq!(told.0.len(), 1);
    }
}
