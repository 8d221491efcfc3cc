//! RIST's sender and receiver against each other in virtual time, over every kind of bad path.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anabranch::bus::{Pool, PoolLimits};
use anabranch::proto::rist::crypto::KeyLength;
use anabranch::proto::rist::rtcp::RequestFormat;
use anabranch::proto::rist::{Config, Leg, Profile, Receiver, Sender};
use anabranch::proto::rtp::HeaderMode;
use anabranch::proto::{Event, Port, Stats, Surroundings};
use anabranch::sim::link;
use anabranch::sim::loss::Model;
use anabranch::sim::net::{Clock, Network, Node, NodeId};
use anabranch::sim::traffic::{self, Check, Numbered, Report};
use anabranch::units::{Bitrate, Time};

const SENDER: ([u8; 4], u16) = ([192, 0, 2, 1], 40_000);
const RECEIVER: ([u8; 4], u16) = ([192, 0, 2, 2], 5_000);
const DELAY: Duration = Duration::from_millis(20);
const BUFFER: Duration = Duration::from_millis(300);
/// 10 Mb/s.
const PERIOD: Duration = Duration::from_micros(1_053);
const TAIL: u64 = 400;

/// Who calls whom, with which profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Simple,
    Push,
    Pull,
}

struct Rig {
    network: Network,
    sender: NodeId,
    receiver: NodeId,
    numbered: Numbered,
    check: Check,
    now: Time,
    /// Shortest and longest time from sending to release.
    took: Option<(Duration, Duration)>,
    sent_at: BTreeMap<u64, Time>,
    events: Vec<Event>,
}

fn surroundings(seed: u64) -> Surroundings {
    Surroundings { pool: Pool::new(PoolLimits::default()), seed, unix_ns_at_zero: 1_700_000_000_000_000_000 }
}

fn after((ip, port): ([u8; 4], u16)) -> SocketAddr {
    (ip, port + 1).into()
}

impl Rig {
    fn new(seed: u64, way: Way, config: Config) -> Self {
        Self::with(seed, way, config.clone(), config, Clock::default())
    }

    fn with(seed: u64, way: Way, sender: Config, receiver: Config, clock: Clock) -> Self {
        let mut network = Network::new(seed);
        let (ours, theirs) = (surroundings(seed), surroundings(seed ^ 0x5555));
        let is_main = |config| Config { profile: Profile::Main, ..config };
        let is_simple = |config| Config { profile: Profile::Simple, ..config };
        let (sender, receiver) = match way {
            Way::Simple => (
                Node::new(Sender::calling(is_simple(sender), &ours))
                    .bind(Port::Control, after(SENDER))
                    .connect(Port::Control, after(RECEIVER))
                    .connect(Port::Media, RECEIVER.into()),
                Node::new(Receiver::listening(is_simple(receiver), &theirs)).bind(Port::Control, after(RECEIVER)),
            ),
            Way::Push => (
                Node::new(Sender::calling(is_main(sender), &ours))
                    .connect(Port::Media, RECEIVER.into())
                    .connect(Port::Control, RECEIVER.into()),
                Node::new(Receiver::listening(is_main(receiver), &theirs)),
            ),
            Way::Pull => (
                Node::new(Sender::listening(sender, &ours)),
                Node::new(Receiver::calling(receiver, &theirs))
                    .connect(Port::Media, SENDER.into())
                    .connect(Port::Control, SENDER.into()),
            ),
        };
        let sender = network.add(sender.bind(Port::Media, SENDER.into()));
        let receiver = network.add(receiver.bind(Port::Media, RECEIVER.into()).with_clock(clock));
        let mut rig = Self {
            network,
            sender,
            receiver,
            numbered: Numbered::new(1_316),
            check: Check::default(),
            now: Time::ZERO,
            took: None,
            sent_at: BTreeMap::new(),
            events: Vec::new(),
        };
        rig.links(link::Config { delay: DELAY, ..link::Config::default() });
        rig.idle(Duration::from_secs(1));
        rig
    }

    /// Both ways.
    fn links(&mut self, config: link::Config) {
        self.network.link(self.sender, self.receiver, config);
        self.network.link(self.receiver, self.sender, config);
    }

    fn idle(&mut self, span: Duration) {
        self.now += span;
        self.network.run_until(self.now);
        self.collect();
    }

    fn send(&mut self, packets: usize, period: Duration) {
        for _ in 0..packets {
            self.sent_at.insert(self.numbered.made(), self.now);
            let packet = self.numbered.packet(self.network.pool(), self.now).unwrap();
            self.network.send(self.now, self.sender, packet);
            self.idle(period);
        }
    }

    fn collect(&mut self) {
        for delivery in self.network.take_packets(self.receiver) {
            self.check.handle(&delivery.packet);
            let number = traffic::number(&delivery.packet).unwrap();
            let took = delivery.at.since(self.sent_at[&number]);
            let (least, most) = self.took.unwrap_or((took, took));
            self.took = Some((least.min(took), most.max(took)));
        }
        for node in [self.sender, self.receiver] {
            self.events.extend(self.network.take_events(node).into_iter().map(|(_, event)| event));
        }
    }

    /// Sends some more over a path that has become good, so that losses at the very end are noticed.
    fn finish(&mut self) -> Report {
        self.links(link::Config { delay: DELAY, ..link::Config::default() });
        self.send(TAIL as usize, PERIOD);
        self.idle(Duration::from_secs(2));
        self.check.report(self.numbered.made())
    }

    fn received(&self) -> Stats {
        self.network.core(self.receiver).stats()
    }

    /// A figure of `node`.
    fn figure(&self, node: NodeId, name: &str) -> f64 {
        let mut found = None;
        self.network.core(node).visit_details(&mut |figures| {
            found = figures.iter().find(|figure| figure.0 == name).map(|figure| figure.1);
        });
        found.unwrap()
    }

    fn assert_took(&self, exactly: Duration, within: Duration, context: &str) {
        let (least, most) = self.took.unwrap();
        let is_right = |took: Duration| took.abs_diff(exactly) <= within;
        assert!(is_right(least) && is_right(most), "{context}: {least:?} to {most:?}");
    }
}

fn config() -> Config {
    Config { buffer: BUFFER, ..Config::default() }
}

fn encrypted(key_length: KeyLength) -> Config {
    Config { secret: "hunter22".parse().ok(), key_length, key_rotation: 700, ..config() }
}

/// All of `made`, and of what the end added.
fn whole(made: u64) -> Report {
    Report { received: made + TAIL, ..Report::default() }
}

fn lossy(share: f64) -> link::Config {
    link::Config {
        loss: Model::Random { share },
        delay: DELAY,
        held_back: 0.01,
        held_back_by: Duration::from_millis(3),
        duplicated: 0.01,
        ..link::Config::default()
    }
}

#[test]
fn nothing_is_lost_on_a_lossy_path_and_everything_comes_at_its_time() {
    for seed in 0..4 {
        for (way, share) in
            [(Way::Simple, 0.05), (Way::Push, 0.05), (Way::Pull, 0.05), (Way::Simple, 0.1), (Way::Push, 0.1)]
        {
            let mut rig = Rig::new(seed, way, config());
            rig.links(lossy(share));
            rig.send(3_000, PERIOD);
            let context = format!("seed {seed}, {way:?}, {share}");
            assert_eq!(rig.finish(), whole(3_000), "{context}: {:?}", rig.received());
            rig.assert_took(BUFFER + DELAY, Duration::from_millis(4), &context);
            let lost = rig.network.link_stats(rig.sender, rig.receiver).lost;
            let again = rig.figure(rig.sender, "retransmitted");
            assert!(again < 1.35 * lost as f64 + 20.0, "{context}: {again} sent again for {lost} losses");
            assert!(rig.received().recovered as f64 > 3_000.0 * share * 0.7, "{context}: {:?}", rig.received());
        }
    }
}

#[test]
fn both_formats_of_requests_recover_bursts() {
    for requests in [RequestFormat::Range, RequestFormat::Bitmask, RequestFormat::Shorter] {
        for seed in 0..4 {
            let mut rig = Rig::new(seed, Way::Simple, Config { requests, ..config() });
            let loss = Model::bursts(0.05, 8.0);
            rig.network.link(rig.sender, rig.receiver, link::Config { loss, delay: DELAY, ..link::Config::default() });
            rig.send(3_000, PERIOD);
            assert_eq!(rig.finish(), whole(3_000), "seed {seed}, {requests:?}: {:?}", rig.received());
        }
    }
}

#[test]
fn an_outage_that_the_buffer_covers_loses_nothing() {
    for way in [Way::Simple, Way::Push] {
        let mut rig = Rig::new(3, way, Config { buffer: Duration::from_secs(1), ..config() });
        rig.send(1_000, PERIOD);
        rig.links(link::Config { loss: Model::Random { share: 1.0 }, delay: DELAY, ..link::Config::default() });
        rig.send(400, PERIOD);
        let report = rig.finish();
        let figures = ["requested", "retransmitted", "unavailable", "bloat_skipped", "bandwidth_skipped"];
        let sender = figures.map(|name| (name, rig.figure(rig.sender, name)));
        assert_eq!(report, whole(1_400), "{way:?}: {:?} {sender:?}", rig.received());
    }
}

#[test]
fn what_is_encrypted_arrives_through_changes_of_keys() {
    for seed in 0..4 {
        for (way, key_length) in [(Way::Push, KeyLength::Aes128), (Way::Pull, KeyLength::Aes256)] {
            let mut rig = Rig::new(seed, way, encrypted(key_length));
            // Short ones, as encrypting takes its time in a program for debugging.
            rig.numbered = Numbered::new(188);
            rig.links(lossy(0.05));
            rig.send(4_000, PERIOD);
            assert_eq!(rig.finish(), whole(4_000), "seed {seed}, {way:?}: {:?}", rig.received());
            assert!(rig.figure(rig.receiver, "keyless") > 0.0, "the key never changed");
        }
    }
}

/// On a busy machine a key takes its time: what came before it waits, and need not be sent again.
#[test]
fn packets_wait_for_their_key() {
    for way in [Way::Push, Way::Pull] {
        let mut rig = Rig::new(1, way, encrypted(KeyLength::Aes128));
        rig.numbered = Numbered::new(188);
        rig.network.set_work_takes(Duration::from_millis(150));
        rig.send(4_000, PERIOD);
        assert_eq!(rig.finish(), whole(4_000), "{way:?}: {:?}", rig.received());
        let [waited, requested] = ["keyless", "requested"].map(|name| rig.figure(rig.receiver, name));
        assert!(waited > 500.0 && requested < 1.0, "{way:?}: {waited} waited, {requested} asked for");
        rig.assert_took(BUFFER + DELAY, Duration::from_millis(4), &format!("{way:?}"));
    }
}

#[test]
fn another_secret_or_none_brings_nothing_and_is_told_once() {
    let other = Config { secret: "some other".parse().ok(), ..config() };
    for way in [Way::Push, Way::Pull] {
        for (ours, theirs) in
            [(encrypted(KeyLength::Aes128), other.clone()), (config(), other.clone()), (other.clone(), config())]
        {
            let mut rig = Rig::with(1, way, ours, theirs, Clock::default());
            rig.send(2_000, PERIOD);
            assert_eq!(rig.check.report(2_000).received, 0, "{way:?}");
            assert!(
                !rig.events.iter().any(|event| matches!(event, Event::PeerConnected { .. })),
                "{way:?}: {:?}",
                rig.events
            );
            let refused = rig.events.iter().filter(|event| matches!(event, Event::PeerRefused { .. })).count();
            assert!((1..=2).contains(&refused), "{way:?}: {:?}", rig.events);
        }
    }
}

#[test]
fn clocks_that_drift_apart_are_followed() {
    for skew_ppm in [200, -200] {
        let clock = Clock { offset: Duration::from_secs(77), skew_ppm };
        let mut rig = Rig::with(1, Way::Simple, config(), config(), clock);
        rig.send(60_000, PERIOD);
        assert_eq!(rig.finish(), whole(60_000));
        rig.assert_took(BUFFER + DELAY, Duration::from_millis(3), &format!("{skew_ppm} ppm"));
    }
}

#[test]
fn jitter_is_evened_out() {
    let mut rig = Rig::new(5, Way::Simple, config());
    let jitter = Duration::from_millis(15);
    rig.links(link::Config { delay: DELAY, jitter, ..link::Config::default() });
    rig.send(10_000, PERIOD);
    assert_eq!(rig.finish(), whole(10_000));
    let (least, most) = rig.took.unwrap();
    assert!(most - least < jitter, "{least:?} to {most:?}");
}

#[test]
fn what_is_sent_again_stays_within_its_limit() {
    let limited = Config { bandwidth: Some(Bitrate::from_bps(11_000_000)), ..config() };
    let mut rig = Rig::with(1, Way::Simple, limited, config(), Clock::default());
    rig.links(lossy(0.3));
    rig.send(10_000, PERIOD);
    // A tenth of the media, and a burst or two.
    let again = rig.figure(rig.sender, "retransmitted");
    assert!(again > 500.0 && again < 1_400.0, "{again}");
    let report = rig.finish();
    assert_eq!((report.duplicated, report.reordered, report.corrupt), (0, 0, 0));
}

#[test]
fn a_sender_that_starts_over_is_followed_and_nothing_held_is_lost() {
    let mut rig = Rig::new(1, Way::Simple, config());
    rig.send(1_000, PERIOD);
    // Another sender at the same address.
    let again = Node::new(Sender::calling(Config { profile: Profile::Simple, ..config() }, &surroundings(99)))
        .bind(Port::Control, ([192, 0, 2, 3], 7).into())
        .bind(Port::Media, ([192, 0, 2, 3], 6).into())
        .connect(Port::Control, after(RECEIVER))
        .connect(Port::Media, RECEIVER.into());
    rig.sender = rig.network.add(again);
    rig.links(link::Config { delay: DELAY, ..link::Config::default() });
    rig.send(1_000, PERIOD);
    assert_eq!(rig.finish(), whole(2_000));
    assert!(rig.events.iter().any(|event| matches!(event, Event::Restarted { .. })), "{:?}", rig.events);
}

#[test]
fn peers_that_fall_silent_are_lost_and_found_again() {
    for way in [Way::Simple, Way::Push, Way::Pull] {
        let mut rig = Rig::new(1, way, config());
        rig.send(100, PERIOD);
        rig.links(link::Config { loss: Model::Random { share: 1.0 }, ..link::Config::default() });
        rig.idle(Duration::from_secs(4));
        rig.links(link::Config { delay: DELAY, ..link::Config::default() });
        rig.idle(Duration::from_secs(1));
        rig.send(100, PERIOD);
        rig.idle(Duration::from_secs(1));
        let count = |is: fn(&Event) -> bool| rig.events.iter().filter(|event| is(event)).count();
        assert_eq!(count(|event| matches!(event, Event::PeerConnected { .. })), 4, "{way:?}: {:?}", rig.events);
        assert_eq!(count(|event| matches!(event, Event::PeerLost { .. })), 2, "{way:?}: {:?}", rig.events);
        assert_eq!(rig.check.report(200).received, 200, "{way:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = || {
        let mut rig = Rig::new(11, Way::Push, encrypted(KeyLength::Aes128));
        rig.links(lossy(0.1));
        rig.send(1_000, PERIOD);
        rig.network.fingerprint()
    };
    assert_eq!(run(), run());
}

/// What a source left out is missing, and nothing else; numbers and timestamps come through, over a restart, too.
#[test]
fn kept_headers_come_through_with_the_gaps_of_the_source() {
    for (seed, way) in [(1, Way::Simple), (2, Way::Push)] {
        let mut rig = Rig::new(seed, way, Config { header: HeaderMode::Keep, ..config() });
        rig.links(lossy(0.05));
        let (mut sent, mut came) = (Vec::new(), Vec::new());
        for number in (64_000..67_000_u64).chain(10_000..12_000) {
            if number == 66_600 || number == 11_600 {
                rig.links(link::Config { delay: DELAY, ..link::Config::default() });
            }
            if number == 10_000 {
                rig.now += BUFFER * 2;
                rig.network.run_until(rig.now);
                rig.links(lossy(0.05));
            }
            // Every hundredth, and a burst, never reached us.
            if number % 100 != 50 && !(65_000..65_040).contains(&number) {
                let mut packet = rig.numbered.packet(rig.network.pool(), rig.now).unwrap();
                packet.meta.sequence = Some(number);
                packet.meta.rtp_timestamp = Some(number as u32 * 95);
                sent.push((number as u16, number as u32 * 95));
                rig.network.send(rig.now, rig.sender, packet);
            }
            rig.now += PERIOD;
            rig.network.run_until(rig.now);
        }
        rig.now += BUFFER * 2;
        rig.network.run_until(rig.now);
        for delivery in rig.network.take_packets(rig.receiver) {
            let meta = delivery.packet.meta;
            came.push((meta.sequence.unwrap() as u16, meta.rtp_timestamp.unwrap()));
        }
        assert!(came == sent, "{way:?}: {} of {}, {:?}", came.len(), sent.len(), rig.received());
        assert_eq!(rig.received().lost, 30 + 40 + 20, "{way:?}");
    }
}

/// Two legs with addresses of their own to one receiver.
struct Bond {
    network: Network,
    sender: NodeId,
    receivers: [NodeId; 2],
}

#[test]
fn legs_with_weights_share_the_packets_and_those_without_get_all() {
    for (weights, shares) in [([0, 0], [1.0, 1.0]), ([3, 1], [0.75, 0.25])] {
        let mut network = Network::new(1);
        let addresses: [SocketAddr; 2] = [([192, 0, 2, 8], 5_000).into(), ([192, 0, 2, 9], 5_000).into()];
        let legs = [0, 1].map(|n| Leg { peer: addresses[n], weight: weights[n] });
        let sender = Node::new(Sender::bonding(config(), &surroundings(1), &legs));
        let sender = network.add(sender.bind(Port::Media, SENDER.into()));
        let receiver =
            |n| Node::new(Receiver::listening(config(), &surroundings(n))).bind(Port::Media, addresses[n as usize]);
        let receivers = [network.add(receiver(0)), network.add(receiver(1))];
        let mut bond = Bond { network, sender, receivers };
        let mut numbered = Numbered::new(1_316);
        let mut now = Time::ZERO + Duration::from_secs(1);
        bond.network.run_until(now);
        for _ in 0..1_000 {
            let packet = numbered.packet(bond.network.pool(), now).unwrap();
            bond.network.send(now, bond.sender, packet);
            now += PERIOD;
            bond.network.run_until(now);
        }
        for (receiver, share) in bond.receivers.into_iter().zip(shares) {
            let crossed = bond.network.link_stats(bond.sender, receiver).sent as f64;
            // Reports beside the media, and what each asks for that the other got.
            let stats = bond.network.core(receiver).stats();
            let first = stats.received as f64 - stats.recovered as f64;
            assert!((first / 1_000.0 - share).abs() < 0.02, "{weights:?}: {first} of {crossed}, {stats:?}");
        }
    }
}

#[test]
fn a_path_that_loses_a_third_both_ways_still_brings_everything() {
    for seed in 0..3 {
        for way in [Way::Simple, Way::Push] {
            let mut rig = Rig::new(seed, way, Config { buffer: Duration::from_millis(1_200), ..config() });
            rig.links(lossy(0.33));
            rig.send(3_000, PERIOD);
            assert_eq!(rig.finish(), whole(3_000), "seed {seed}, {way:?}: {:?}", rig.received());
        }
    }
}

#[test]
fn a_far_peer_is_waited_for_and_not_asked_twice_too_soon() {
    for (seed, delay_ms) in [(1, 150), (2, 230)] {
        let delay = Duration::from_millis(delay_ms);
        let buffer = Duration::from_secs(3);
        let mut rig = Rig::new(seed, Way::Push, Config { buffer, ..config() });
        rig.links(link::Config { delay, ..link::Config::default() });
        rig.idle(Duration::from_secs(2));
        rig.links(link::Config { loss: Model::Random { share: 0.05 }, delay, ..link::Config::default() });
        rig.send(3_000, PERIOD);
        let again = rig.figure(rig.sender, "retransmitted");
        let lost = rig.network.link_stats(rig.sender, rig.receiver).lost as f64;
        assert!(again < 1.15 * lost, "{delay_ms} ms: {again} sent again for {lost}");
        rig.links(link::Config { delay, ..link::Config::default() });
        rig.send(TAIL as usize, PERIOD);
        rig.idle(Duration::from_secs(5));
        assert_eq!(rig.check.report(rig.numbered.made()), whole(3_000), "{delay_ms} ms: {:?}", rig.received());
        assert!(rig.received().round_trip.unwrap().abs_diff(2 * delay) < Duration::from_millis(5));
    }
}
