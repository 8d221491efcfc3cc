//! What is told of those with whom no connection comes about.

use std::mem;
use std::time::Duration;

use arrayvec::ArrayVec;

use super::PeerEnd;
use crate::units::Time;

/// Each reason is told at once, and again only after a while, with how many there were.
#[derive(Clone, Debug)]
pub struct Refusals {
    told: ArrayVec<Told, REASONS_MAX>,
    apart: Duration,
}

#[derive(Clone, Debug)]
struct Told {
    why: PeerEnd,
    at: Time,
    /// Since then.
    count: u64,
}

impl Refusals {
    /// Of those whom we call, again and again. Judgement: the thousand events that are kept of a flow last for days then.
    pub const CALLED_APART: Duration = Duration::from_secs(600);
    /// Of those who call us. Judgement: somebody shall see that another one came, and a storm is no more than a line.
    pub const CALLERS_APART: Duration = Duration::from_secs(60);

    /// Nothing was told yet; the same reason is told again `apart` later at the earliest.
    #[must_use]
    pub const fn new(apart: Duration) -> Self {
        Self { told: ArrayVec::new_const(), apart }
    }

    /// How many there were since the last time, with this one, if that is to be told. Of more than eight reasons in that
    /// time the others are not told.
    pub fn tell(&mut self, now: Time, why: PeerEnd) -> Option<u64> {
        if let Some(told) = self.told.iter_mut().find(|told| told.why == why) {
            told.count += 1;
            if now.since(told.at) < self.apart {
                return None;
            }
            told.at = now;
            return Some(mem::take(&mut told.count));
        }
        self.told.retain(|told| now.since(told.at) < self.apart);
        self.told.try_push(Told { why, at: now, count: 0 }).ok().map(|()| 1)
    }

    /// They got together: whatever comes after that is news.
    pub fn clear(&mut self) {
        self.told.clear();
    }
}

/// Judgement: what one server or one encoder has to say.
const REASONS_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_reason_is_told_again_after_a_while_with_how_often_or_once_they_got_together() {
        let at = |seconds| Time::ZERO + Duration::from_secs(seconds);
        let [one, other] = ["one", "other"].map(|reason| PeerEnd { reason, refusal: None });
        let mut refusals = Refusals::new(Duration::from_secs(600));
        assert_eq!(refusals.tell(at(0), one), Some(1));
        assert_eq!(refusals.tell(at(1), other), Some(1));
        assert_eq!([1, 30, 599].map(|seconds| refusals.tell(at(seconds), one)), [None; 3]);
        assert_eq!(refusals.tell(at(600), one), Some(4));
        assert_eq!(refusals.tell(at(600), other), None);
        refusals.clear();
        assert_eq!([one, other].map(|why| refusals.tell(at(601), why)), [Some(1); 2]);
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let mut refusals = Refusals::new(Refusals::CALLED_APART);
        let why = |code| PeerEnd { reason: "any", refusal: Some(("the peer refused", code)) };
        // Whoever has a reason for each time is told no more of than somebody with few.
        for round in 1..=3 {
            let now = Time::ZERO + Refusals::CALLED_APART * round;
            let told = (0..1_000).filter(|n| refusals.tell(now, why(n % 20)).is_some()).count();
            assert_eq!(told, REASONS_MAX, "{round}");
        }
    }
}
