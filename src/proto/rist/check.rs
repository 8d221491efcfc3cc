//! Bodies of the fuzz targets, which tests call as well: any bytes, and any sequence of happenings on a path.

use std::net::SocketAddr;
use std::time::Duration;

use super::gre::{Content, Header};
use super::rtcp::Feedback;
use super::{Config, Profile, Receiver, Sender, npd};
use crate::bus::{Meta, Pool, PoolLimits};
use crate::proto::rtp::rtcp::{Compound, Rtcp};
use crate::proto::{Core, Datagram, Event, Port, Surroundings, Transmit};
use crate::units::Time;

/// Every parser reads or refuses `bytes`, and every core survives them.
pub fn check_any_bytes(bytes: &[u8]) {
    for packet in Compound::new(bytes).flatten() {
        if let Rtcp::Other { packet_type, count, body } = packet {
            check_feedback(packet_type, count, body);
        }
    }
    if let Ok((header, at)) = Header::parse(bytes) {
        let written = header.bytes();
        assert_eq!(Header::parse(&written), Ok((header, written.len())));
        if let Ok(Content::Reduced { at: start, .. }) = Content::parse(header.protocol, &bytes[at..]) {
            assert!(at + start <= bytes.len());
        }
    }
    if let Some((extension, payload)) = bytes.split_first_chunk::<4>()
        && let Some(extension) = npd::Extension::parse(0x5249, extension)
        && let Ok(len) = npd::expanded_len(payload, extension)
    {
        let mut out = vec![0; len];
        npd::expand(payload, extension, &mut out);
        assert!(len <= npd::PLACES_MAX * 204);
    }
    for is_main in [false, true] {
        for is_secret in [false, true] {
            let mut pair = Pair::new(is_main, is_secret, false);
            for port in [Port::Media, Port::Control] {
                pair.deliver(Time::ZERO, 0, bytes, port);
                pair.deliver(Time::ZERO, 1, bytes, port);
            }
            pair.run(Time::ZERO, &mut std::iter::empty());
        }
    }
}

fn check_feedback(packet_type: u8, count: u8, body: &[u8]) {
    if let Ok(Feedback::Request { missing, .. }) = Feedback::parse(packet_type, count, body) {
        assert!(missing.runs().all(|(_, count)| (1..=65_536).contains(&count)));
        assert!(missing.runs().count() <= body.len() / 4 * 17);
    }
}

/// A sender and a receiver survive a path that does what `script` says with each of their datagrams, and datagrams made
/// up by it. What is released comes in order and only once. The first byte says which profile they use and who calls.
pub fn check_any_path(script: &[u8]) {
    let Some((kind, script)) = script.split_first() else { return };
    let mut pair = Pair::new(kind & 1 != 0, kind & 2 != 0, kind & 4 != 0);
    let mut now = Time::ZERO;
    pair.run(now, &mut std::iter::empty());
    let mut bytes = script.iter().copied();
    while let Some(op) = bytes.next() {
        match op % 4 {
            0 => pair.send(now, usize::from(op)),
            1 => now += Duration::from_micros(u64::from(op) * 100),
            2 => now += Duration::from_millis(u64::from(op)),
            _ => {
                let invented: Vec<u8> = bytes.by_ref().take(usize::from(op / 4)).collect();
                for to in 0..2 {
                    pair.deliver(now, to, &invented, if op & 64 == 0 { Port::Media } else { Port::Control });
                }
            }
        }
        pair.run(now, &mut bytes);
    }
}

struct Pair {
    pool: Pool,
    cores: [Box<dyn Core>; 2],
    /// The latest that was released.
    released: Option<u64>,
}

/// Of the sender and of the receiver.
const ADDRESSES: [([u8; 4], u16); 2] = [([192, 0, 2, 1], 1_000), ([192, 0, 2, 2], 2_000)];

impl Pair {
    fn new(is_main: bool, is_secret: bool, pulls: bool) -> Self {
        let pool = Pool::new(PoolLimits { small_max: 16_384, large_max: 0 });
        let config = Config {
            profile: if is_main { Profile::Main } else { Profile::Simple },
            buffer: Duration::from_millis(200),
            secret: if is_secret { "a secret".parse().ok() } else { None },
            key_rotation: 64,
            null_packet_deletion: true,
            ..Config::default()
        };
        let surroundings = |seed| Surroundings { pool: pool.clone(), seed, unix_ns_at_zero: 0 };
        let cores: [Box<dyn Core>; 2] = if is_main && pulls {
            let sender = Sender::listening(config.clone(), &surroundings(1));
            [Box::new(sender), Box::new(Receiver::calling(config, &surroundings(2)))]
        } else {
            let sender = Sender::calling(config.clone(), &surroundings(1));
            [Box::new(sender), Box::new(Receiver::listening(config, &surroundings(2)))]
        };
        Self { pool, cores, released: None }
    }

    fn send(&mut self, now: Time, len: usize) {
        let mut payload = vec![0x47; (len + 1) * 7 % 1_500];
        payload.iter_mut().skip(188).for_each(|byte| *byte = 0xff);
        if let Some(packet) = self.pool.copy(&payload, Meta { arrival: now, ..Meta::default() }) {
            self.cores[0].handle_packet(now, &packet);
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
                while let Some(event) = self.cores[from].poll_event() {
                    assert!(!matches!(event, Event::Ended), "that is for RTP");
                }
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
        match fate {
            0..128 => {}
            128..176 => return,
            176..208 => self.deliver(now, to, &bytes, transmit.port),
            208.. => {
                let at = usize::from(fate) * 7 % bytes.len().max(1);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << (fate % 8);
                }
            }
        }
        self.deliver(now, to, &bytes, transmit.port);
    }

    fn deliver(&mut self, now: Time, to: usize, bytes: &[u8], port: Port) {
        if let Some(packet) = self.pool.copy(bytes, Meta { arrival: now, ..Meta::default() }) {
            let peer = SocketAddr::from(ADDRESSES[1 - to]);
            self.cores[to].handle_datagram(now, Datagram { port, peer, packet });
        }
    }
}

const TURNS_MAX: usize = 1_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::capture;
    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_path_is_survived(script in prop::collection::vec(any::<u8>(), 0..600)) {
            check_any_path(&script);
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            check_any_bytes(&bytes);
        }
    }

    #[test]
    fn whatever_is_cut_from_a_recorded_datagram_is_survived() {
        for name in ["simple-027", "main-0211", "gstreamer-ristsink"] {
            let mut seen = Vec::new();
            for recorded in capture::read(name) {
                // One of each kind.
                if seen.contains(&recorded.bytes.len()) {
                    continue;
                }
                seen.push(recorded.bytes.len());
                (0..recorded.bytes.len().min(140)).for_each(|len| check_any_bytes(&recorded.bytes[..len]));
            }
        }
    }
}
