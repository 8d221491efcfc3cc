//! What must hold for any bytes whatever; shared by the unit tests and the fuzz targets.

use std::net::SocketAddr;
use std::time::Duration;

use super::error::Rejection;
use super::filter;
use super::handshake::Handshake;
use super::packet::{AckBody, DropBody, HEADER_BYTES, Header, LossRanges};
use super::{Caller, CallerGroup, Config, Front, GroupKind, GroupMember, Heard, Listener, Service};
use crate::bus::{Meta, Pool, PoolLimits};
use crate::proto::{Core, Datagram, Port, Transmit};
use crate::units::Time;

/// Every parser reads or refuses `bytes`.
pub fn check_any_bytes(bytes: &[u8]) {
    let _ = AckBody::parse(bytes);
    let _ = DropBody::parse(bytes);
    assert!(LossRanges::parse(bytes).count() <= bytes.len() / 4 + 1);
    if let Ok((_, extensions)) = Handshake::parse(bytes) {
        assert!(extensions.count() <= bytes.len() / 4);
    }
    if let Ok(Header::Data(header)) = Header::parse(bytes) {
        assert_eq!(header.bytes()[..], bytes[..HEADER_BYTES]);
    }
    super::crypto::check_any_bytes(bytes);
    let pool = Pool::new(PoolLimits { small_max: 8, large_max: 0 });
    if let Some(packet) = pool.copy(bytes, Meta::default()) {
        let datagram = Datagram { port: Port::Media, peer: SocketAddr::from(ADDRESSES[0][0]), packet };
        let front = Front::new(pool, [1; 32]);
        assert!(!matches!(front.handle(Time::ZERO, &datagram), Heard::Wanted(_)), "a cookie from nowhere");
        let _ = front.refuse(Time::ZERO, &datagram, Rejection::NOT_FOUND);
    }
    filter::check_any_bytes(bytes);
}

/// A caller and a listener who are connected survive a path that does what `script` says with each of their datagrams,
/// and datagrams made up by it. What is released came in order, and nothing grows without bound. Scripts that begin with
/// a high bit have a packet filter.
pub fn check_any_path(script: &[u8]) {
    let filter = script.first().filter(|first| **first >= 0x80).map(|first| match first % 3 {
        0 => "fec,cols:3,rows:2,arq:onreq",
        1 => "fec,cols:2,rows:-3,layout:even,arq:never",
        _ => "fec,cols:4,arq:always",
    });
    check_path(Pair::new(filter.and_then(|text| text.parse().ok())), script);
}

/// The same for a group of two: what its first byte says is how it sends.
pub fn check_any_group_path(script: &[u8]) {
    if let Some((kind, script)) = script.split_first() {
        check_path(Pair::of_groups(if kind % 2 == 0 { GroupKind::Broadcast } else { GroupKind::Backup }), script);
    }
}

fn check_path(mut pair: Pair, script: &[u8]) {
    pair.run(Time::ZERO + Duration::from_millis(100), &mut std::iter::empty());
    let mut bytes = script.iter().copied();
    let mut now = Time::ZERO + Duration::from_millis(100);
    while let Some(op) = bytes.next() {
        match op % 4 {
            0 => pair.send(now, usize::from(op)),
            1 => now += Duration::from_micros(u64::from(op) * 100),
            2 => now += Duration::from_millis(u64::from(op)),
            _ => {
                let invented: Vec<u8> = bytes.by_ref().take(usize::from(op / 4)).collect();
                pair.invent(now, &invented);
            }
        }
        pair.run(now, &mut bytes);
    }
}

struct Pair {
    pool: Pool,
    cores: [Box<dyn Core>; 2],
    released: Option<u64>,
}

/// Of the caller and of the listener, as the other one knows them: one for each way between them.
const ADDRESSES: [[([u8; 4], u16); 2]; 2] =
    [[([192, 0, 2, 1], 1), ([198, 51, 100, 1], 1)], [([192, 0, 2, 2], 2), ([198, 51, 100, 2], 2)]];

impl Pair {
    fn new(packet_filter: Option<filter::Config>) -> Self {
        let caller = |config, pool| Box::new(Caller::new(config, ADDRESSES[1][0].into(), pool, [1; 32])) as _;
        Self::with(packet_filter, caller)
    }

    fn of_groups(kind: GroupKind) -> Self {
        let members = ADDRESSES[1].map(|address| GroupMember { peer: address.into(), weight: address.0[3].into() });
        Self::with(None, |config, pool| Box::new(CallerGroup::new(config, kind, &members, &pool, [1; 32])))
    }

    fn with(packet_filter: Option<filter::Config>, caller: impl FnOnce(Config, Pool) -> Box<dyn Core>) -> Self {
        let pool = Pool::new(PoolLimits { small_max: 65_536, large_max: 0 });
        let config = Config {
            passphrase: "thelocalmanager".parse().ok(),
            key_refresh_packets: 50,
            packet_filter,
            ..Config::default()
        };
        let listener = Listener::new(config.clone(), Service::Receive, pool.clone(), [2; 32]);
        Self { cores: [caller(config, pool.clone()), Box::new(listener)], pool, released: None }
    }

    fn send(&mut self, now: Time, len: usize) {
        if let Some(packet) = self.pool.copy(&vec![0x47; len + 1], Meta::default()) {
            self.cores[0].handle_packet(now, &packet);
        }
    }

    /// Something that neither of them sent, half of the time with the id of a real connection.
    fn invent(&mut self, now: Time, bytes: &[u8]) {
        for to in 0..2 {
            self.deliver(now, to, bytes, SocketAddr::from(ADDRESSES[1 - to][0]));
        }
    }

    fn run(&mut self, now: Time, script: &mut dyn Iterator<Item = u8>) {
        // As many turns as there may be happenings at one moment.
        for _ in 0..TURNS_MAX {
            let mut quiet = true;
            for from in 0..2 {
                if self.cores[from].poll_timeout().is_some_and(|due| due <= now) {
                    self.cores[from].handle_timeout(now);
                    quiet = false;
                }
                while let Some(transmit) = self.cores[from].poll_transmit() {
                    quiet = false;
                    self.carry(now, 1 - from, &transmit, script.next().unwrap_or(0));
                }
                while let Some(packet) = self.cores[from].poll_packet() {
                    assert!(self.released < packet.meta.sequence, "out of order");
                    self.released = packet.meta.sequence;
                }
                while self.cores[from].poll_event().is_some() {}
                while let Some(work) = self.cores[from].poll_work() {
                    quiet = false;
                    self.cores[from].handle_done(now, work.run());
                }
            }
            if quiet {
                return;
            }
        }
    }

    /// Loses, doubles or damages a datagram, or leaves it as it is.
    fn carry(&mut self, now: Time, to: usize, transmit: &Transmit, fate: u8) {
        let mut bytes = transmit.header.to_vec();
        bytes.extend(transmit.payload.iter().flat_map(|payload| payload.iter()));
        let is_second = transmit.to == Some(ADDRESSES[to][1].into());
        let peer = SocketAddr::from(ADDRESSES[1 - to][usize::from(is_second)]);
        match fate {
            0..128 => {}
            128..176 => return,
            176..208 => self.deliver(now, to, &bytes, peer),
            208.. => {
                let at = usize::from(fate) * 7 % bytes.len().max(1);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << (fate % 8);
                }
            }
        }
        self.deliver(now, to, &bytes, peer);
    }

    fn deliver(&mut self, now: Time, to: usize, bytes: &[u8], peer: SocketAddr) {
        if let Some(packet) = self.pool.copy(bytes, Meta { arrival: now, ..Meta::default() }) {
            self.cores[to].handle_datagram(now, Datagram { port: Port::Media, peer, packet });
        }
    }
}

const TURNS_MAX: usize = 1_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_path_is_survived(script in prop::collection::vec(any::<u8>(), 0..600)) {
            check_any_path(&script);
        }

        #[test]
        fn any_path_of_a_group_is_survived(script in prop::collection::vec(any::<u8>(), 1..600)) {
            check_any_group_path(&script);
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            check_any_bytes(&bytes);
        }
    }
}
