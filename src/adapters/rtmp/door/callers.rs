//! Who has to go when too many call: whoever is furthest behind, of those who are most.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use crate::units::Time;

/// One who has not been let in, or sent away.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    pub(super) ip: IpAddr,
    /// He has said what he wants.
    pub(super) wants: bool,
    /// His handshake is done.
    pub(super) has_shaken_hands: bool,
    pub(super) began: Time,
}

/// Whether there is room for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    Free,
    /// If this one goes.
    InPlaceOf(usize),
    Full,
}

/// Room for one from `ip` among `callers`, whose numbers come with them.
pub(super) fn room(
    ip: IpAddr,
    callers: impl Iterator<Item = (usize, Standing)>,
    (each_max, max): (usize, usize),
) -> Room {
    let callers: Vec<(usize, Standing)> = callers.collect();
    let mut counts: BTreeMap<IpAddr, usize> = BTreeMap::new();
    for (_, caller) in &callers {
        *counts.entry(network(caller.ip)).or_default() += 1;
    }
    let own = network(ip);
    let crowd = if counts.get(&own).is_some_and(|count| *count >= each_max) {
        own
    } else if callers.len() < max {
        return Room::Free;
    } else {
        counts.into_iter().max_by_key(|(_, count)| *count).map_or(own, |(network, _)| network)
    };
    let of_crowd = callers.iter().filter(|(_, caller)| network(caller.ip) == crowd && !caller.wants);
    let last = of_crowd.min_by_key(|(_, caller)| (caller.has_shaken_hands, caller.began));
    last.map_or(Room::Full, |(at, _)| Room::InPlaceOf(*at))
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

    const MAX: (usize, usize) = (64, 512);

    fn standing(ip: IpAddr, at: usize) -> (usize, Standing) {
        let began = Time::ZERO + Duration::from_millis(1_000 - at as u64);
        (at, Standing { ip, wants: false, has_shaken_hands: at % 2 == 1, began })
    }

    fn v4(host: usize) -> IpAddr {
        [10, 0, 0, host as u8].into()
    }

    #[test]
    fn eight_addresses_keep_no_ninth_out() {
        let crowd: Vec<_> = (0..512).map(|at| standing(v4(at / 64), at)).collect();
        // The oldest of those without a handshake, of one of the crowds.
        let Room::InPlaceOf(at) = room(v4(9), crowd.iter().copied(), MAX) else { panic!("room") };
        assert_eq!(at % 64, 62);
        assert_eq!(room(v4(0), crowd.iter().copied(), MAX), Room::InPlaceOf(62));
        assert_eq!(room(v4(9), crowd[1..].iter().copied(), MAX), Room::Free);
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_address() {
        let ip = |network: u16, host: usize| IpAddr::from([0x2001, 0xdb8, 0, network, 0, 0, 0, host as u16]);
        let crowd: Vec<_> = (0..64).map(|at| standing(ip(1, at), at)).collect();
        assert_eq!(room(ip(1, 99), crowd.iter().copied(), MAX), Room::InPlaceOf(62));
        assert_eq!(room(ip(2, 99), crowd.iter().copied(), MAX), Room::Free);
    }

    #[test]
    fn who_has_said_what_he_wants_stays() {
        let wants = |(at, caller)| (at, Standing { wants: true, ..caller });
        let crowd = (0..64).map(|at| wants(standing(v4(1), at)));
        assert_eq!(room(v4(1), crowd, MAX), Room::Full);
    }
}
