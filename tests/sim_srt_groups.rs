//! SRT's connection groups against each other in virtual time: several bad paths, one good stream.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]
#![allow(clippy::print_stdout, reason = "a test that fails shows its seed")]

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use fastrand::Rng;

use anabranch::bus::{Meta, Packet, Pool, PoolLimits};
use anabranch::proto::srt::crypto::KeyLength;
use anabranch::proto::srt::handshake::{Extension, Group, Handshake, extension};
use anabranch::proto::srt::packet::{ControlKind, Header};
use anabranch::proto::srt::{CallerGroup, Config, GroupKind, GroupMember, Listener, Service};
use anabranch::proto::{Core, Datagram, Event, Port, Stats, Transmit, WireHeader};
use anabranch::sim::link;
use anabranch::sim::loss::Model;
use anabranch::sim::net::{Network, Node, NodeId};
use anabranch::sim::traffic::{Check, Numbered, Report};
use anabranch::units::{Seq, Time};

const CALLER: ([u8; 4], u16) = ([192, 0, 2, 1], 40_000);
const LISTENER: ([u8; 4], u16) = ([192, 0, 2, 2], 9_000);
const LATENCY: Duration = Duration::from_millis(200);
/// 10 Mb/s.
const PERIOD: Duration = Duration::from_micros(1_053);
const TAIL: u64 = 200;

fn path(delay_ms: u64) -> link::Config {
    link::Config { delay: Duration::from_millis(delay_ms), ..link::Config::default() }
}

fn good() -> link::Config {
    path(5)
}

/// Another way to the listener: what comes to it goes on to the other side.
#[derive(Debug, Default)]
struct Relay {
    waiting: VecDeque<Transmit>,
}

impl Core for Relay {
    fn handle_datagram(&mut self, _now: Time, datagram: Datagram) {
        let to = if datagram.peer == CALLER.into() { LISTENER } else { CALLER };
        let header = WireHeader::new();
        let payload = Some(datagram.packet);
        self.waiting.push_back(Transmit { port: Port::Media, to: Some(to.into()), header, payload });
    }
    fn handle_packet(&mut self, _now: Time, _packet: &Packet) {}
    fn handle_timeout(&mut self, _now: Time) {}
    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.waiting.pop_front()
    }
    fn poll_packet(&mut self) -> Option<Packet> {
        None
    }
    fn poll_event(&mut self) -> Option<Event> {
        None
    }
    fn poll_timeout(&self) -> Option<Time> {
        None
    }
    fn stats(&self) -> Stats {
        Stats::default()
    }
}

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sends {
    Caller,
    Listener,
}

struct Rig {
    network: Network,
    caller: NodeId,
    relays: Vec<NodeId>,
    sender: NodeId,
    receiver: NodeId,
    numbered: Numbered,
    check: Check,
    now: Time,
    /// When each packet was sent, and when it was released.
    sent_at: Vec<Time>,
    released: Vec<(u64, Time)>,
    events: Vec<(NodeId, Event)>,
}

/// How many members, and the first sequence number.
struct Setup {
    seed: u64,
    kind: GroupKind,
    sends: Sends,
    paths: Vec<link::Config>,
    initial: Option<u32>,
    config: Config,
}

impl Setup {
    fn new(seed: u64, kind: GroupKind, sends: Sends, paths: &[link::Config]) -> Self {
        let config = Config { receive_latency: LATENCY, peer_latency: LATENCY, ..Config::default() };
        Self { seed, kind, sends, paths: paths.to_vec(), initial: None, config }
    }
}

fn relay_address(n: usize) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, n as u8 + 1], 9_000))
}

impl Rig {
    fn new(setup: &Setup) -> Self {
        let Setup { seed, kind, sends, paths, initial, config } = setup;
        println!("seed {seed}");
        let mut network = Network::new(*seed);
        let pool = Pool::new(PoolLimits::default());
        let members: Vec<GroupMember> =
            (0..paths.len()).map(|n| GroupMember { peer: relay_address(n), weight: 10 - n as u16 }).collect();
        let mut caller = CallerGroup::new(config.clone(), *kind, &members, &pool, [*seed as u8; 32]);
        if let Some(initial) = initial {
            caller = caller.starting_at(Seq::new(*initial));
        }
        let service = if *sends == Sends::Caller { Service::Receive } else { Service::Send { callers_max: 4 } };
        let listener = Listener::new(config.clone(), service, network.pool().clone(), [*seed as u8 ^ 0x55; 32]);
        let caller = network.add(Node::new(caller).bind(Port::Media, CALLER.into()));
        let listener = network.add(Node::new(listener).bind(Port::Media, LISTENER.into()));
        let relays: Vec<NodeId> = (0..paths.len())
            .map(|n| network.add(Node::new(Relay::default()).bind(Port::Media, relay_address(n))))
            .collect();
        let (sender, receiver) = if *sends == Sends::Caller { (caller, listener) } else { (listener, caller) };
        let mut rig = Self {
            network,
            caller,
            relays,
            sender,
            receiver,
            numbered: Numbered::new(1_316),
            check: Check::default(),
            now: Time::ZERO,
            sent_at: Vec::new(),
            released: Vec::new(),
            events: Vec::new(),
        };
        paths.iter().enumerate().for_each(|(n, path)| rig.path(n, *path));
        rig.idle(Duration::from_secs(3));
        rig
    }

    /// Both ways of a member.
    fn path(&mut self, n: usize, config: link::Config) {
        self.network.link(self.caller, self.relays[n], config);
        self.network.link(self.relays[n], self.caller, config);
    }

    fn idle(&mut self, span: Duration) {
        self.now += span;
        self.network.run_until(self.now);
        self.collect();
    }

    fn send(&mut self, packets: usize) {
        for _ in 0..packets {
            let packet = self.numbered.packet(self.network.pool(), self.now).unwrap();
            self.sent_at.push(self.now);
            self.network.send(self.now, self.sender, packet);
            self.idle(PERIOD);
        }
    }

    fn collect(&mut self) {
        for delivery in self.network.take_packets(self.receiver) {
            self.check.handle(&delivery.packet);
            // The number stands after the first TS header.
            let number = u64::from_be_bytes(delivery.packet[4..12].try_into().unwrap());
            self.released.push((number, delivery.at));
        }
        for node in [self.sender, self.receiver] {
            self.events.extend(self.network.take_events(node).into_iter().map(|(_, event)| (node, event)));
        }
    }

    /// Sends some more over paths that have become good, so that losses at the very end are noticed.
    fn finish(&mut self) -> Report {
        (0..self.relays.len()).for_each(|n| self.path(n, good()));
        self.send(TAIL as usize);
        self.idle(Duration::from_secs(2));
        assert!(self.released.is_sorted_by(|left, right| left.0 < right.0), "in order and each once");
        self.check.report(self.numbered.made())
    }

    fn took(&self) -> (Duration, Duration) {
        let took = self.released.iter().map(|(number, at)| at.since(self.sent_at[*number as usize]));
        took.fold((Duration::MAX, Duration::ZERO), |(least, most), took| (least.min(took), most.max(took)))
    }

    fn count(&self, node: NodeId, of: impl Fn(&Event) -> bool) -> usize {
        self.events.iter().filter(|(at, event)| *at == node && of(event)).count()
    }

    fn stats(&self, node: NodeId) -> Stats {
        self.network.core(node).stats()
    }

    fn detail(&self, node: NodeId, name: &str) -> f64 {
        let mut found = None;
        self.network.core(node).visit_details(&mut |details| {
            found = details.iter().find(|detail| detail.0 == name).map(|detail| detail.1);
        });
        found.unwrap()
    }

    /// Datagrams that crossed a member's path from the sender on.
    fn crossed(&self, n: usize) -> u64 {
        if self.sender == self.caller {
            self.network.link_stats(self.caller, self.relays[n]).sent
        } else {
            self.network.link_stats(self.relays[n], self.caller).sent
        }
    }
}

const BOTH: [Sends; 2] = [Sends::Caller, Sends::Listener];

fn whole(made: u64) -> Report {
    Report { received: made + TAIL, ..Report::default() }
}

fn lossy(share: f64, delay_ms: u64) -> link::Config {
    link::Config { loss: Model::Random { share }, ..path(delay_ms) }
}

fn dead() -> link::Config {
    lossy(1.0, 5)
}

const fn is_lost(event: &Event) -> bool {
    matches!(event, Event::PeerLost { .. })
}

const fn is_connected(event: &Event) -> bool {
    matches!(event, Event::PeerConnected { .. })
}

#[test]
fn two_members_that_lose_a_tenth_each_lose_nothing_together() {
    for seed in 0..8 {
        for sends in BOTH {
            let paths = [lossy(0.1, 20), lossy(0.1, 20)];
            let mut rig = Rig::new(&Setup::new(seed, GroupKind::Broadcast, sends, &paths));
            rig.send(3_000);
            assert_eq!(rig.finish(), whole(3_000), "seed {seed}, {sends:?} sends");
            let stats = rig.stats(rig.receiver);
            assert_eq!((stats.received, stats.lost, stats.peers), (3_200, 0, Some(2)), "{stats:?}");
            assert!(stats.recovered > 5 && stats.duplicate > 2_400, "{stats:?}");
            // What is lost on one link is there by the other, and hardly anything is asked for: a hundredth.
            let again = rig.detail(rig.sender, "pktRetrans");
            assert!(again < 120.0, "seed {seed}, {sends:?} sends: {again} of 6400 sent again");
            assert_eq!(rig.detail(rig.receiver, "pktRecvUnique"), 3_200.0);
            assert_eq!(rig.detail(rig.receiver, "pktRcvDrop"), 0.0);
            assert_eq!(rig.detail(rig.sender, "pktSentUnique"), if sends == Sends::Caller { 3_200.0 } else { 6_400.0 });
        }
    }
}

#[test]
fn a_member_dies_and_comes_back_and_the_stream_does_not_notice() {
    for (seed, kind) in [(0, GroupKind::Broadcast), (1, GroupKind::Backup)] {
        for sends in BOTH {
            let mut rig = Rig::new(&Setup::new(seed, kind, sends, &[good(), path(12)]));
            rig.send(1_000);
            for n in [0, 1] {
                rig.path(n, dead());
                rig.send(8_000);
                rig.path(n, path(7));
                rig.send(12_000);
            }
            let made = 1_000 + 2 * 20_000;
            assert_eq!(rig.finish(), whole(made), "seed {seed}, {kind:?}, {sends:?} sends");
            for node in [rig.sender, rig.receiver] {
                assert_eq!(rig.count(node, is_lost), 2, "{:?}", rig.events);
                assert_eq!(rig.count(node, is_connected), 4, "{:?}", rig.events);
                assert_eq!(rig.stats(node).peers, Some(2));
            }
        }
    }
}

#[test]
fn members_of_very_different_length_lose_nothing_and_keep_their_time() {
    for seed in 0..2 {
        for sends in BOTH {
            let paths = [lossy(0.05, 5), lossy(0.05, 80)];
            let mut rig = Rig::new(&Setup::new(seed, GroupKind::Broadcast, sends, &paths));
            rig.send(30_000);
            assert_eq!(rig.finish(), whole(30_000), "seed {seed}, {sends:?} sends");
            let (least, most) = rig.took();
            let base = LATENCY + Duration::from_millis(5);
            // Whichever handshake came first sets the clock.
            let is_right = |took: Duration| {
                took.abs_diff(base) <= Duration::from_millis(6)
                    || took.abs_diff(base + Duration::from_millis(75)) <= Duration::from_millis(6)
            };
            assert!(is_right(least) && is_right(most), "seed {seed}, {sends:?} sends: {least:?} to {most:?}");
            // Only what the fast one loses is asked for at once.
            let again = rig.detail(rig.sender, "pktRetrans");
            assert!(again < 2_200.0, "seed {seed}, {sends:?} sends: {again} of 60400 sent again");
        }
    }
}

#[test]
fn a_backup_group_sends_over_the_heaviest_and_changes_within_the_stability_time() {
    for seed in 0..4 {
        for sends in BOTH {
            let mut rig = Rig::new(&Setup::new(seed, GroupKind::Backup, sends, &[path(10), path(15)]));
            rig.send(2_000);
            assert!(rig.crossed(0) > 2_000 && rig.crossed(1) < 200, "{} {}", rig.crossed(0), rig.crossed(1));
            rig.path(0, dead());
            let before = rig.crossed(1);
            // 60 ms without an answer, and what it takes to see one packet.
            rig.send(75);
            assert!(rig.crossed(1) > before + 50, "changed by now: {before} to {}", rig.crossed(1));
            rig.send(3_000);
            // It comes back before it counts as gone, is watched for four latencies, and then has all again.
            rig.path(0, path(10));
            rig.send(2_000);
            let before = rig.crossed(1);
            rig.send(1_000);
            let after = rig.crossed(1);
            assert!(after < before + 100, "seed {seed}, {sends:?} sends: {before} to {after}");
            assert_eq!(rig.finish(), whole(8_075), "seed {seed}, {sends:?} sends");
            assert_eq!(rig.count(rig.receiver, is_lost), 0);
        }
    }
}

#[test]
fn sequence_numbers_wrap_in_a_group_and_members_join_behind_the_wrap() {
    for kind in [GroupKind::Broadcast, GroupKind::Backup] {
        let mut setup = Setup::new(1, kind, Sends::Caller, &[lossy(0.1, 20), dead()]);
        setup.initial = Some(0x7fff_ff00);
        // Time for the change to another member and for two losses in a row there.
        setup.config.peer_latency = 3 * LATENCY;
        let mut rig = Rig::new(&setup);
        rig.send(1_000);
        rig.path(1, lossy(0.1, 20));
        // It calls again after 8 s at the latest.
        rig.send(12_000);
        assert_eq!(rig.stats(rig.receiver).peers, Some(2));
        rig.path(0, dead());
        rig.send(2_000);
        assert_eq!(rig.finish(), whole(15_000), "{kind:?}");
    }
}

#[test]
fn while_one_member_is_well_nothing_is_lost_whatever_happens_to_the_others() {
    for (seed, kind) in [(0, GroupKind::Broadcast), (1, GroupKind::Backup)] {
        for sends in BOTH {
            let mut setup = Setup::new(seed, kind, sends, &[good(), path(20), path(40)]);
            // Long enough to find, in a backup group, that the first and the second are dead.
            setup.config.receive_latency = 5 * LATENCY;
            setup.config.peer_latency = 5 * LATENCY;
            let mut rig = Rig::new(&setup);
            let mut rng = Rng::with_seed(seed);
            for _ in 0..6 {
                let well = rng.usize(0..3);
                for n in 0..3 {
                    let delay_ms = [5, 20, 40][n];
                    // A member in use that answers is not given up, even if it loses half.
                    let bad = if kind == GroupKind::Broadcast { 0.5 } else { 0.1 };
                    let share = [1.0, 1.0, bad, 0.1, 0.0][rng.usize(0..5)];
                    rig.path(n, if n == well { lossy(0.01, delay_ms) } else { lossy(share, delay_ms) });
                }
                // The well one may have been dead, and calls again after 8 s at the latest: until then all are well.
                rig.send(rng.usize(100..3_000));
                (0..3).for_each(|n| rig.path(n, lossy(0.01, [5, 20, 40][n])));
                rig.send(if rng.bool() { 500 } else { 10_000 });
                if rig.stats(rig.receiver).peers != Some(3) {
                    rig.send(10_000);
                }
            }
            let made = rig.numbered.made();
            assert_eq!(rig.finish(), whole(made), "seed {seed}, {kind:?}, {sends:?} sends: {:?}", rig.events);
        }
    }
}

/// The other member is on its way, but not connected, when the active one dies.
#[test]
fn a_backup_that_joins_after_the_active_one_died_sends_what_that_had_not_delivered() {
    for sends in BOTH {
        let mut setup = Setup::new(8, GroupKind::Backup, sends, &[good(), dead()]);
        setup.config.receive_latency = 5 * LATENCY;
        setup.config.peer_latency = 5 * LATENCY;
        let until_connected = |dies_after: Option<usize>| {
            let mut rig = Rig::new(&setup);
            rig.path(1, good());
            let mut sent = 0;
            while rig.count(rig.sender, is_connected) < 2 {
                if dies_after == Some(sent) {
                    rig.path(0, dead());
                }
                rig.send(1);
                sent += 1;
            }
            (rig, sent)
        };
        let (_, sent) = until_connected(None);
        let (mut rig, _) = until_connected(Some(sent - 200));
        rig.send(3_000);
        let made = rig.numbered.made();
        assert_eq!(rig.finish(), whole(made), "{sends:?} sends");
    }
}

#[test]
fn encrypted_members_have_keys_of_their_own() {
    for sends in BOTH {
        let mut setup = Setup::new(5, GroupKind::Broadcast, sends, &[lossy(0.1, 10), lossy(0.1, 30)]);
        setup.config = Config {
            passphrase: Some("thelocalmanager".parse().unwrap()),
            key_length: Some(KeyLength::Aes256),
            key_refresh_packets: 2_000,
            key_announce_packets: 500,
            ..setup.config
        };
        let mut rig = Rig::new(&setup);
        rig.send(6_500);
        assert_eq!(rig.finish(), whole(6_500), "{sends:?} sends");
    }
}

#[test]
fn all_members_gone_and_back_again_go_on() {
    for kind in [GroupKind::Broadcast, GroupKind::Backup] {
        for sends in BOTH {
            let mut rig = Rig::new(&Setup::new(3, kind, sends, &[good(), good()]));
            rig.send(1_000);
            rig.idle(Duration::from_secs(1));
            (0..2).for_each(|n| rig.path(n, dead()));
            rig.idle(Duration::from_secs(7));
            assert_eq!(rig.stats(rig.sender).peers, Some(0));
            (0..2).for_each(|n| rig.path(n, good()));
            rig.idle(Duration::from_secs(12));
            rig.send(1_000);
            assert_eq!(rig.finish(), whole(2_000), "{kind:?}, {sends:?} sends");
            let (least, most) = rig.took();
            let exactly = LATENCY + Duration::from_millis(5);
            let is_right = |took: Duration| took.abs_diff(exactly) <= Duration::from_millis(6);
            assert!(is_right(least) && is_right(most), "{kind:?}, {sends:?} sends: {least:?} to {most:?}");
        }
    }
}

#[test]
fn after_a_blackout_of_all_members_the_stream_goes_on() {
    let mut rig = Rig::new(&Setup::new(4, GroupKind::Broadcast, Sends::Caller, &[good(), path(9)]));
    rig.send(1_000);
    (0..2).for_each(|n| rig.path(n, dead()));
    rig.send(3_000);
    (0..2).for_each(|n| rig.path(n, good()));
    rig.send(2_000);
    let Report { lost, duplicated, corrupt, .. } = rig.finish();
    assert!((2_000..3_400).contains(&lost), "{lost} lost");
    assert_eq!((duplicated, corrupt), (0, 0));
    assert_eq!(rig.count(rig.receiver, is_lost), 0);
}

#[test]
fn a_listener_that_takes_no_groups_says_so() {
    let mut setup = Setup::new(6, GroupKind::Broadcast, Sends::Caller, &[good()]);
    setup.config.groups = false;
    let rig = Rig::new(&setup);
    let code = |event: &Event| match event {
        Event::PeerRefused { why, .. } => why.refusal.map(|refusal| refusal.1),
        Event::PeerConnected { .. }
        | Event::PeerLost { .. }
        | Event::CallersRefused { .. }
        | Event::Restarted { .. }
        | Event::NotCarried(_)
        | Event::Ended => None,
    };
    assert_eq!(rig.events.first().and_then(|(_, event)| code(event)), Some(1_015), "{:?}", rig.events);
}

/// What the callers of a recorded session sent, played to a listener of ours.
struct Replay {
    listener: Listener,
    pool: Pool,
    /// By the caller's port: cookie and socket id that ours gave, and the group that it was taken into.
    callers: BTreeMap<u16, (u32, u32, Option<Group>)>,
    /// Sequence numbers and timestamps of the data sent.
    sent: BTreeMap<u32, u32>,
    /// Arrival and timestamp of the first request for a connection.
    base: Option<(Time, u32)>,
    released: Vec<(u32, Time)>,
    naks: usize,
}

impl Replay {
    fn new() -> Self {
        let pool = Pool::new(PoolLimits::default());
        let listener = Listener::new(Config::default(), Service::Receive, pool.clone(), [1; 32]);
        Self {
            listener,
            pool,
            callers: BTreeMap::new(),
            sent: BTreeMap::new(),
            base: None,
            released: Vec::new(),
            naks: 0,
        }
    }

    /// Plays all that `is_carried` of a port and the number of a record.
    fn play(mut self, recording: &[u8], is_carried: impl Fn(u16, usize) -> bool) -> Self {
        let mut rest = recording;
        for n in 0.. {
            let Some((head, tail)) = rest.split_at_checked(8) else { break };
            let at = Time::from_ns(1_000_000_000) + us(u32::from_be_bytes(head[..4].try_into().unwrap()));
            let port = u16::from_be_bytes([head[4], head[5]]);
            let (datagram, tail) = tail.split_at(usize::from(u16::from_be_bytes([head[6], head[7]])));
            rest = tail;
            self.run_until(at);
            self.feed(at, port, datagram.to_vec(), is_carried(port, n));
            self.drain(at);
        }
        let end = self.released.last().map_or(Time::ZERO, |last| last.1) + Duration::from_secs(3);
        self.run_until(end);
        self
    }

    fn feed(&mut self, now: Time, port: u16, mut bytes: Vec<u8>, is_carried: bool) {
        let (cookie, id, _) = self.callers.get(&port).copied().unwrap_or_default();
        let timestamp = u32::from_be_bytes(bytes[8..12].try_into().unwrap());
        match Header::parse(&bytes).unwrap() {
            Header::Control(header) if header.kind == ControlKind::Handshake => {
                if cookie != 0 {
                    bytes[44..48].copy_from_slice(&cookie.to_be_bytes());
                    self.base.get_or_insert((now, timestamp));
                }
            }
            Header::Control(_) => bytes[12..16].copy_from_slice(&id.to_be_bytes()),
            Header::Data(header) => {
                bytes[12..16].copy_from_slice(&id.to_be_bytes());
                self.sent.insert(header.sequence.value(), timestamp);
            }
        }
        if is_carried {
            let packet = self.pool.copy(&bytes, Meta { arrival: now, ..Meta::default() }).unwrap();
            let peer = SocketAddr::from(([127, 0, 0, 1], port));
            self.listener.handle_datagram(now, Datagram { port: Port::Media, peer, packet });
        }
    }

    fn run_until(&mut self, end: Time) {
        while let Some(at) = self.listener.poll_timeout().filter(|at| *at < end) {
            self.listener.handle_timeout(at);
            self.drain(at);
        }
    }

    fn drain(&mut self, now: Time) {
        while let Some(packet) = self.listener.poll_packet() {
            self.released.push((Seq::<31>::new(packet.meta.sequence.unwrap() as u32).value(), now));
        }
        while let Some(transmit) = self.listener.poll_transmit() {
            let Ok(Header::Control(header)) = Header::parse(&transmit.header) else { continue };
            self.naks += usize::from(header.kind == ControlKind::Nak);
            if header.kind == ControlKind::Handshake {
                let body = transmit.payload.unwrap();
                let (handshake, extensions) = Handshake::parse(&body).unwrap();
                let is_group = |extension| if let Extension::Group(group) = extension { Some(group) } else { None };
                let group = extensions.filter_map(Result::ok).find_map(is_group);
                assert_eq!(group.is_some(), handshake.extension == extension::HANDSHAKE | extension::CONFIG);
                let answer = (handshake.cookie, handshake.socket_id, group);
                self.callers.insert(transmit.to.unwrap().port(), answer);
            }
        }
    }

    /// All that was sent was released, each once, in order and at its time.
    fn check(&self) {
        let released: Vec<u32> = self.released.iter().map(|(sequence, _)| *sequence).collect();
        assert_eq!(released, self.sent.keys().copied().collect::<Vec<_>>());
        let (arrival, timestamp) = self.base.unwrap();
        for (sequence, at) in &self.released {
            let due = arrival + us(self.sent[sequence] - timestamp) + Duration::from_millis(120);
            assert_eq!(*at, due, "{sequence}");
        }
    }
}

const fn us(us: u32) -> Duration {
    Duration::from_micros(us as u64)
}

const BROADCAST: &[u8] = include_bytes!("data/srt/group-broadcast-155.bin");
const BACKUP: &[u8] = include_bytes!("data/srt/group-backup-155.bin");

#[test]
fn a_broadcast_group_of_libsrt_is_taken_as_one_stream() {
    let replay = Replay::new().play(BROADCAST, |_, _| true);
    replay.check();
    assert_eq!((replay.released.len(), replay.naks), (200, 0));
    let stats = replay.listener.stats();
    assert_eq!((stats.received, stats.duplicate, stats.lost, stats.peers), (200, 200, 0, Some(0)));
    let groups: Vec<Group> = replay.callers.values().filter_map(|caller| caller.2).collect();
    assert!(groups[0].id & (1 << 30) != 0 && groups[0].id == groups[1].id, "{groups:?}");
    assert_eq!(
        groups.iter().map(|group| (group.kind, group.flags, group.weight)).collect::<Vec<_>>(),
        [(1, 0, 10), (1, 0, 5)]
    );
}

#[test]
fn a_backup_group_of_libsrt_is_taken_as_one_stream() {
    let replay = Replay::new().play(BACKUP, |_, _| true);
    replay.check();
    assert_eq!((replay.released.len(), replay.naks), (200, 0));
    let groups: Vec<_> = replay.callers.values().filter_map(|caller| caller.2).collect();
    assert_eq!(groups.iter().map(|group| (group.kind, group.weight)).collect::<Vec<_>>(), [(2, 10), (2, 5)]);
}

#[test]
fn what_either_link_of_libsrt_loses_comes_by_the_other_and_is_asked_for_only_where_it_was_first() {
    let is_first = |port: u16| port == 60_087;
    // The handshakes are the first four. Records of the two links alternate.
    for lost in [1, 2] {
        let is_carried = |port: u16, n: usize| n < 4 || (n / 2) % 3 != if is_first(port) { 0 } else { lost };
        let replay = Replay::new().play(BROADCAST, is_carried);
        replay.check();
        assert!(replay.naks <= 67, "{}", replay.naks);
    }
    for dies in [true, false] {
        let replay = Replay::new().play(BROADCAST, |port, n| n < 200 || is_first(port) != dies);
        replay.check();
        assert_eq!(replay.naks, 0);
    }
}
