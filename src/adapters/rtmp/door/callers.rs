//! Who has to go when too many call: of those who are most, whoever is furthest behind.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use crate::units::Time;

/// One who has not been let in, or sent away.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    pub(super) ip: IpAddr,
    pub(super) stage: Stage,
    pub(super) began: Time,
}

/// How far somebody has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// His handshake is not done.
    Called,
    /// He has not said what he wants.
    Greeted,
    /// He wants what nobody has, which is said fast.
    Waits,
    /// He may play if whoever is asked lets him.
    Plays,
    /// The same of publishing: he knows a key, and goes for nobody as long as there are others.
    Publishes,
}

/// Who has to go for one more, if there are `max` of them; their numbers come with them. As long as there is room, nobody is
/// asked where he comes from: hundreds may have a common address.
pub(super) fn who_goes(callers: impl Iterator<Item = (usize, Standing)>, max: usize) -> Option<usize> {
    let mut callers: Vec<(usize, Standing)> = callers.collect();
    if callers.len() < max {
        return None;
    }
    let knows_key = |caller: &Standing| caller.stage == Stage::Publishes;
    if !callers.iter().all(|(_, caller)| knows_key(caller)) {
        callers.retain(|(_, caller)| !knows_key(caller));
    }
    let mut counts: BTreeMap<IpAddr, usize> = BTreeMap::new();
    for (_, caller) in &callers {
        *counts.entry(network(caller.ip)).or_default() += 1;
    }
    let crowd = |caller: &Standing| counts.get(&network(caller.ip)).copied();
    let last = callers.iter().min_by_key(|(_, caller)| (Reverse(crowd(caller)), caller.stage, caller.began));
    last.map(|(at, _)| *at)
}

/// Of an IPv6 address the part that a site gets (RFC 4291 2.5.4): the rest of it may be anything.
fn network(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MAX: usize = 512;

    /// The later, the older.
    fn standing(at: usize, ip: IpAddr, stage: Stage) -> (usize, Standing) {
        let began = Time::ZERO + Duration::from_millis(1_000 - at as u64);
        (at, Standing { ip, stage, began })
    }

    fn v4(host: usize) -> IpAddr {
        [10, 0, (host >> 8) as u8, host as u8].into()
    }

    fn every_other(at: usize) -> Stage {
        if at % 2 == 1 { Stage::Greeted } else { Stage::Called }
    }

    #[test]
    fn hundreds_may_have_one_address_as_long_as_there_is_room() {
        let site = |count| (0..count).map(|at| standing(at, v4(1), every_other(at)));
        assert_eq!(who_goes(site(511), MAX), None);
        assert_eq!(who_goes(site(512), MAX), Some(510));
    }

    #[test]
    fn a_crowd_makes_room_for_others_and_its_oldest_without_a_handshake_first() {
        let alone = standing(0, v4(1), Stage::Called);
        let crowd = (1..512).map(|at| standing(at, v4(2), every_other(at)));
        assert_eq!(who_goes(crowd.chain([alone]), MAX), Some(510));
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_address() {
        let ip = |network: usize, host: usize| IpAddr::from([0x2001, 0xdb8, 0, network as u16, 0, 0, 0, host as u16]);
        let others = (0..500).map(|at| standing(at, ip(at + 1, 0), Stage::Called));
        let crowd = (500..512).map(|at| standing(at, ip(0, at), Stage::Greeted));
        assert_eq!(who_goes(others.chain(crowd), MAX), Some(511));
    }

    /// As after a power cut: one address each, and the one who is counted last knows a key.
    #[test]
    fn one_who_stays_keeps_no_others_out() {
        for stage in [Stage::Waits, Stage::Plays, Stage::Publishes] {
            let callers = (0..512).map(|at| standing(at, v4(at), if at == 511 { stage } else { Stage::Called }));
            assert_eq!(who_goes(callers, MAX), Some(510), "{stage:?}");
        }
    }

    #[test]
    fn wrong_keys_and_players_keep_no_publisher_out() {
        for stage in [Stage::Waits, Stage::Plays] {
            // A whole site that publishes is no crowd beside them.
            let site = (0..200).map(|at| standing(at, v4(99), Stage::Publishes));
            let crowd = (200..512).map(|at| standing(at, v4(at % 8), stage));
            assert!(who_goes(site.chain(crowd), MAX).is_some_and(|at| at >= 504));
        }
        let site = (0..512).map(|at| standing(at, v4(99), Stage::Publishes));
        assert_eq!(who_goes(site, MAX), Some(511), "one key does not shut the port for others");
    }
}
