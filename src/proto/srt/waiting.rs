//! Callers whose keys are being derived. Each costs half a millisecond of somebody's time, so nobody gets many.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::gate::Terms;
use crate::proto::Datagram;
use crate::units::Time;

/// Conclusions, and how many each address has sent lately.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    conclusions: BTreeMap<u64, Conclusion>,
    next_id: u64,
    /// Derivations for an address since a time.
    lately: BTreeMap<IpAddr, (Time, u32)>,
}

#[derive(Debug)]
struct Conclusion {
    since: Time,
    /// The caller's own.
    socket_id: u32,
    datagram: Datagram,
    /// What he shall get.
    terms: Terms,
}

impl Waiting {
    /// Whether this caller's conclusion waits already.
    pub(super) fn holds(&mut self, now: Time, socket_id: u32, peer: SocketAddr) -> bool {
        self.conclusions.retain(|_, waiting| now.since(waiting.since) < KEPT);
        self.conclusions.values().any(|waiting| waiting.socket_id == socket_id && waiting.datagram.peer == peer)
    }

    /// Keeps a conclusion until its keys are there, and names it; `None` if it waits already, or too many do.
    pub(super) fn add(&mut self, now: Time, socket_id: u32, datagram: &Datagram, terms: Terms) -> Option<u64> {
        if self.holds(now, socket_id, datagram.peer) || self.conclusions.len() >= CONCLUSIONS_MAX {
            return None;
        }
        self.charge(now, datagram.peer.ip())?;
        let id = self.next_id;
        self.next_id += 1;
        self.conclusions.insert(id, Conclusion { since: now, socket_id, datagram: datagram.clone(), terms });
        Some(id)
    }

    /// The conclusion of this name, and what its sender shall get.
    pub(super) fn take(&mut self, id: u64) -> Option<(Datagram, Terms)> {
        self.conclusions.remove(&id).map(|waiting| (waiting.datagram, waiting.terms))
    }

    /// `None` if this address has had its share.
    fn charge(&mut self, now: Time, address: IpAddr) -> Option<()> {
        self.lately.retain(|_, (since, _)| now.since(*since) < SPAN);
        if self.lately.len() >= ADDRESSES_MAX && !self.lately.contains_key(&address) {
            return None;
        }
        let (_, count) = self.lately.entry(address).or_insert((now, 0));
        *count += 1;
        (*count <= PER_SPAN_MAX).then_some(())
    }
}

/// Longer than any caller waits between two tries.
const KEPT: Duration = Duration::from_secs(3);
/// 32 ms of work.
const CONCLUSIONS_MAX: usize = 64;
/// Judgement: a whole house behind one address may come back in a second, and a guesser gets a twentieth of a processor.
const PER_SPAN_MAX: u32 = 100;
const SPAN: Duration = Duration::from_secs(1);
/// Addresses with a cookie that came within [`SPAN`]: more than as many derivations as a processor could do.
const ADDRESSES_MAX: usize = 2_048;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::{Meta, Pool, PoolLimits};
    use crate::proto::Port;

    #[test]
    fn a_conclusion_that_comes_again_waits_once() {
        let mut waiting = Waiting::default();
        assert_eq!(waiting.add(ms(0), 1, &from(1), Terms::default()), Some(0));
        assert_eq!(waiting.add(ms(250), 1, &from(1), Terms::default()), None);
        assert!(waiting.holds(ms(250), 1, from(1).peer) && !waiting.holds(ms(250), 2, from(1).peer));
        assert_eq!(waiting.add(ms(250), 2, &from(1), Terms::default()), Some(1), "another socket");
        assert_eq!(waiting.take(0).map(|(datagram, _)| datagram.peer), Some(from(1).peer));
        assert!(waiting.take(0).is_none());
        assert_eq!(waiting.add(ms(300), 1, &from(1), Terms::default()), Some(2));
        assert_eq!(
            waiting.add(ms(3_300), 1, &from(1), Terms::default()),
            Some(3),
            "whoever was forgotten is not waited for"
        );
    }

    #[test]
    fn nobody_gets_more_than_his_share_and_all_together_have_a_bound() {
        let mut waiting = Waiting::default();
        let mut taken = 0;
        for n in 0..10_000 {
            if let Some(id) = waiting.add(ms(n / 20), n as u32, &from(1), Terms::default()) {
                waiting.take(id);
                taken += 1;
            }
        }
        assert_eq!(taken, PER_SPAN_MAX);
        assert!(waiting.add(ms(600), 1, &from(2), Terms::default()).is_some(), "another address");
        assert!(waiting.add(ms(1_600), 1, &from(1), Terms::default()).is_some(), "a second later");
        let many =
            (0..1_000).filter(|n| waiting.add(ms(1_700), *n, &from(*n as u8), Terms::default()).is_some()).count();
        assert!(many < CONCLUSIONS_MAX && waiting.conclusions.len() == CONCLUSIONS_MAX, "{many}");
    }

    fn from(host: u8) -> Datagram {
        let pool = Pool::new(PoolLimits::default());
        let packet = pool.copy(&[0], Meta::default()).unwrap();
        Datagram { port: Port::Media, peer: ([192, 0, 2, host], 9).into(), packet }
    }

    fn ms(ms: u64) -> Time {
        Time::ZERO + Duration::from_millis(ms)
    }
}
