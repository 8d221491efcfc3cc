//! Counters of one flow, under the names that librist's statistics have where it has them.

use std::net::SocketAddr;
use std::time::Duration;

use super::error::{self, Refusal};
use crate::proto::{self, Detail, Event, PeerEnd, Stats};
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

/// Datagrams refused, and what was told of that.
#[derive(Debug)]
pub(super) struct Refusals {
    told: proto::Refusals,
    /// Came before their key was there; most wait for it.
    pub(super) keyless: u64,
    /// From whoever has not authenticated.
    strangers: u64,
}

impl Default for Refusals {
    fn default() -> Self {
        Self { told: proto::Refusals::new(proto::Refusals::CALLERS_APART), keyless: 0, strangers: 0 }
    }
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

    /// What is to be told of a datagram that is refused, if anything: nothing of those that follow, which the others count.
    pub(super) fn tell(&mut self, now: Time, peer: SocketAddr, refusal: Refusal) -> Option<Event> {
        let why = match refusal {
            Refusal::Secret => error::SECRETS_DIFFER,
            Refusal::NoLogin => error::NO_LOGIN,
            Refusal::Malformed | Refusal::Stranger | Refusal::NoKey | Refusal::NoBuffer => return None,
        };
        self.tell_datagram(now, peer, why)
    }

    /// One of many that are refused for this.
    pub(super) fn tell_datagram(&mut self, now: Time, peer: SocketAddr, why: PeerEnd) -> Option<Event> {
        // Of attempts nobody knows here: a sender goes on whatever he hears.
        self.told.tell(now, why).map(|_| Event::PeerRefused { peer, why, count: 1 })
    }

    /// Somebody did not say who he is, or could not show it.
    pub(super) fn tell_login(&mut self, now: Time, peer: SocketAddr, why: PeerEnd) -> Option<Event> {
        self.told.tell(now, why).map(|count| Event::PeerRefused { peer, why, count })
    }
}

fn ms(span: Option<Duration>) -> f64 {
    span.map_or(0.0, |span| span.as_secs_f64() * 1e3)
}
