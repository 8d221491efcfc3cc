//! What librist and GStreamer sent, to our receiver at the same times.

use std::net::SocketAddr;
use std::time::Duration;

use super::capture::{Side, read};
use super::{Config, Profile, Receiver};
use crate::bus::{Meta, Pool, PoolLimits};
use crate::proto::rtp::rtcp::{Compound, is_rtcp};
use crate::proto::{Core, Datagram, Event, Port, Surroundings};
use crate::units::Time;

const SESSIONS: [(&str, Profile, bool); 8] = [
    ("simple-027", Profile::Simple, false),
    ("gstreamer-ristsink", Profile::Simple, false),
    ("main-027", Profile::Main, false),
    ("main-0211", Profile::Main, false),
    ("npd-0211", Profile::Main, false),
    ("psk128-027", Profile::Main, true),
    ("psk256-027", Profile::Main, true),
    ("psk256-0211", Profile::Main, true),
];

struct Run {
    core: Receiver,
    /// Numbers and lengths of what was released.
    released: Vec<(u64, usize)>,
    answers: usize,
    connected: usize,
}

impl Run {
    fn until(&mut self, end: Time) {
        while let Some(due) = self.core.poll_timeout().filter(|due| *due <= end) {
            self.core.handle_timeout(due);
            self.drain(due);
        }
    }

    fn drain(&mut self, now: Time) {
        while let Some(work) = self.core.poll_work() {
            self.core.handle_done(now, work.run());
        }
        while let Some(transmit) = self.core.poll_transmit() {
            let bytes = transmit.payload.unwrap();
            assert_eq!(transmit.port, Port::Control);
            if is_rtcp(&bytes) {
                assert!(Compound::new(&bytes).all(|packet| packet.is_ok()));
            }
            self.answers += 1;
        }
        while let Some(packet) = self.core.poll_packet() {
            self.released.push((packet.meta.sequence.unwrap(), packet.len()));
        }
        while let Some(event) = self.core.poll_event() {
            self.connected += usize::from(matches!(event, Event::PeerConnected { .. }));
        }
    }
}

#[test]
fn recorded_senders_are_received() {
    for (name, profile, is_secret) in SESSIONS {
        let pool = Pool::new(PoolLimits::default());
        let secret = if is_secret { "hunter22".parse().ok() } else { None };
        let config = Config { profile, secret, buffer: Duration::from_millis(500), ..Config::default() };
        let surroundings = Surroundings { pool: pool.clone(), seed: 7, unix_ns_at_zero: 0 };
        let core = Receiver::listening(config, &surroundings);
        let mut run = Run { core, released: Vec::new(), answers: 0, connected: 0 };
        let start = Time::ZERO + Duration::from_secs(1);
        let (mut now, mut media) = (start, 0);
        for recorded in read(name).into_iter().filter(|recorded| recorded.from == Side::Sender) {
            now = start + recorded.at.since(Time::ZERO);
            run.until(now);
            media += usize::from(recorded.bytes.len() > 600);
            let packet = pool.copy(&recorded.bytes, Meta { arrival: now, ..Meta::default() }).unwrap();
            let peer = SocketAddr::from(([192, 0, 2, 1], if recorded.port == Port::Media { 6_000 } else { 6_001 }));
            run.core.handle_datagram(now, Datagram { port: recorded.port, peer, packet });
            run.drain(now);
        }
        run.until(now + Duration::from_millis(600));
        let stats = run.core.stats();
        assert_eq!((stats.malformed, stats.unexpected, stats.lost), (0, 0, 0), "{name}: {stats:?}");
        assert!(media > 20 && run.released.len() + stats.duplicate as usize == media, "{name}: {media} {stats:?}");
        let is_next = |pair: &[(u64, usize)]| pair[1].0 == pair[0].0 + 1;
        assert!(run.released.windows(2).all(is_next), "{name}");
        // Null packets that were left out are back.
        assert!(run.released.iter().all(|(_, len)| *len == 1_316), "{name}");
        assert_eq!(run.connected, 1, "{name}");
        assert!(run.answers > 20, "{name}: {} reports and answers", run.answers);
    }
}
