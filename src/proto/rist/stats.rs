//! Counters of one flow, under the names that librist's statistics have where it has them.

use std::time::Duration;

use super::error::{self, Refusal};
use crate::proto::{Detail, PeerEnd, Stats};
use crate::units::Time;

/// What a sender counts beside [`Stats`], in packets.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sending {
    pub(super) requested: u64,
    pub(super) retransmitted: u64,
    /// Asked for, and not kept any more.
    pub(super) unavailable: u64,
    /// Asked for again before what was sent again could arrive.
    pub(super) too_soon: u64,
    /// Asked for, while too much was waiting to be sent again.
    pub(super) over_budget: u64,
}

impl Sending {
    pub(super) fn details(&self, round_trip: Option<Duration>, refusals: &Refusals, failures: u64) -> [Detail; 8] {
        [
            ("requested", self.requested as f64),
            ("retransmitted", self.retransmitted as f64),
            ("unavailable", self.unavailable as f64),
            ("bloat_skipped", self.too_soon as f64),
            ("bandwidth_skipped", self.over_budget as f64),
            ("rtt", ms(round_trip)),
            ("unauthenticated", refusals.strangers as f64),
            ("auth_failed", failures as f64),
        ]
    }
}

/// What a receiver counts beside [`Stats`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Receiving {
    /// Datagrams with requests.
    pub(super) requests: u64,
    /// Packets asked for, each as often as it was.
    pub(super) requested: u64,
    /// Packets that came again.
    pub(super) retransmitted: u64,
    /// Came after one request.
    pub(super) recovered_at_once: u64,
}

impl Receiving {
    pub(super) fn details(&self, stats: &Stats, refusals: &Refusals, failures: u64) -> [Detail; 10] {
        [
            ("nacks", self.requests as f64),
            ("requested", self.requested as f64),
            ("retransmitted", self.retransmitted as f64),
            ("recovered", stats.recovered as f64),
            ("recovered_one_retry", self.recovered_at_once as f64),
            ("lost", stats.lost as f64),
            ("keyless", refusals.keyless as f64),
            ("rtt", ms(stats.round_trip)),
            ("unauthenticated", refusals.strangers as f64),
            ("auth_failed", failures as f64),
        ]
    }
}

/// Datagrams refused, and when that was last told.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Refusals {
    told: Option<Time>,
    /// Came before their key was there; most wait for it.
    pub(super) keyless: u64,
    /// From whoever has not authenticated.
    strangers: u64,
}

impl Refusals {
    pub(super) const fn count(&mut self, refusal: Refusal, stats: &mut Stats) {
        match refusal {
            Refusal::Malformed => stats.malformed += 1,
            Refusal::Secret | Refusal::NoLogin => stats.unexpected += 1,
            Refusal::Stranger => self.strangers += 1,
            Refusal::NoKey => self.keyless += 1,
            Refusal::NoBuffer => stats.no_buffer += 1,
        }
    }

    /// What is to be told of `refusal`, if nothing was told lately.
    pub(super) fn tell(&mut self, now: Time, refusal: Refusal) -> Option<PeerEnd> {
        let why = match refusal {
            Refusal::Secret => error::SECRETS_DIFFER,
            Refusal::NoLogin => error::NO_LOGIN,
            Refusal::Malformed | Refusal::Stranger | Refusal::NoKey | Refusal::NoBuffer => return None,
        };
        self.is_news(now).then_some(why)
    }

    /// Whether it was not told lately; it then counts as told.
    pub(super) fn is_news(&mut self, now: Time) -> bool {
        let is_news = self.told.is_none_or(|told| now.since(told) >= TOLD_EVERY);
        if is_news {
            self.told = Some(now);
        }
        is_news
    }
}

fn ms(span: Option<Duration>) -> f64 {
    span.map_or(0.0, |span| span.as_secs_f64() * 1e3)
}

/// Judgement: nobody wants to read it more often.
const TOLD_EVERY: Duration = Duration::from_secs(10);
