//! RIST with users and passwords in virtual time: bad paths, wrong passwords, replays, and strangers in great number.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use std::net::SocketAddr;
use std::time::Duration;

use anabranch::bus::{Meta, Pool, PoolLimits};
use anabranch::proto::rist::srp::Accounts;
use anabranch::proto::rist::{Config, Receiver, Sender};
use anabranch::proto::{Core, Datagram, Event, Port, Surroundings};
use anabranch::sim::link;
use anabranch::sim::loss::Model;
use anabranch::sim::net::{Network, Node, NodeId};
use anabranch::sim::traffic::{Check, Numbered};
use anabranch::units::Time;

const SENDER: ([u8; 4], u16) = ([192, 0, 2, 1], 40_000);
const RECEIVER: ([u8; 4], u16) = ([192, 0, 2, 2], 5_000);
const DELAY: Duration = Duration::from_millis(20);
const PERIOD: Duration = Duration::from_millis(2);
/// One line for peers until librist 0.2.7 and one for later ones: alice, wonder.
const USERS: &str = include_str!("data/rist/srp-0212.txt");

fn surroundings(seed: u64) -> Surroundings {
    Surroundings { pool: Pool::new(PoolLimits::default()), seed, unix_ns_at_zero: 1_700_000_000_000_000_000 }
}

fn config(secret: &str) -> Config {
    Config { buffer: Duration::from_millis(300), secret: secret.parse().ok(), key_rotation: 500, ..Config::default() }
}

fn login(password: &str) -> Accounts {
    Accounts::login("alice", password).unwrap()
}

/// What a core's secret numbers come from.
fn entropy(seed: u64, who: u8) -> [u8; 32] {
    let mut entropy = [who; 32];
    entropy[..8].copy_from_slice(&seed.to_be_bytes());
    entropy
}

fn lossy(share: f64) -> link::Config {
    link::Config {
        loss: Model::Random { share },
        delay: DELAY,
        held_back: 0.02,
        held_back_by: Duration::from_millis(5),
        duplicated: 0.02,
        ..link::Config::default()
    }
}

struct Rig {
    network: Network,
    sender: NodeId,
    receivers: Vec<NodeId>,
    numbered: Numbered,
    checks: Vec<Check>,
    now: Time,
    events: Vec<Event>,
}

impl Rig {
    /// The receiver listens; secrets are of sender and receiver.
    fn push(seed: u64, [ours, theirs]: [&str; 2], password: &str, accounts: Accounts, path: link::Config) -> Self {
        let sender =
            Sender::calling(config(ours), &surroundings(seed)).authenticated(login(password), entropy(seed, 1));
        let sender = Node::new(sender).connect(Port::Media, RECEIVER.into()).connect(Port::Control, RECEIVER.into());
        let receiver = Receiver::listening(config(theirs), &surroundings(seed ^ 0x5555));
        let receiver = Node::new(receiver.authenticated(accounts, entropy(seed, 2)));
        Self::new(seed, sender, vec![receiver.bind(Port::Media, RECEIVER.into())], path)
    }

    /// The sender listens, and each of the passwords is that of a receiver.
    fn pull(seed: u64, [ours, theirs]: [&str; 2], passwords: &[&str], accounts: Accounts, path: link::Config) -> Self {
        let sender = Sender::listening(config(ours), &surroundings(seed)).authenticated(accounts, entropy(seed, 1));
        let receiver = |(n, password): (usize, &&str)| {
            let core = Receiver::calling(config(theirs), &surroundings(seed ^ 0x5555 ^ n as u64));
            let core = core.authenticated(login(password), entropy(seed, 2 + n as u8));
            let node = Node::new(core).connect(Port::Media, SENDER.into()).connect(Port::Control, SENDER.into());
            node.bind(Port::Media, (RECEIVER.0, RECEIVER.1 + 2 * n as u16).into())
        };
        Self::new(seed, Node::new(sender), passwords.iter().enumerate().map(receiver).collect(), path)
    }

    fn new(seed: u64, sender: Node, receivers: Vec<Node>, path: link::Config) -> Self {
        let mut network = Network::new(seed);
        let sender = network.add(sender.bind(Port::Media, SENDER.into()));
        let receivers: Vec<NodeId> = receivers.into_iter().map(|node| network.add(node)).collect();
        for receiver in &receivers {
            network.link(sender, *receiver, path);
            network.link(*receiver, sender, path);
        }
        let checks = receivers.iter().map(|_| Check::default()).collect();
        Self { network, sender, receivers, numbered: Numbered::new(1_316), checks, now: Time::ZERO, events: Vec::new() }
    }

    fn idle(&mut self, span: Duration) {
        self.now += span;
        self.network.run_until(self.now);
        for (receiver, check) in self.receivers.iter().zip(&mut self.checks) {
            self.network.take_packets(*receiver).iter().for_each(|delivery| check.handle(&delivery.packet));
        }
        for node in self.receivers.iter().chain([&self.sender]) {
            self.events.extend(self.network.take_events(*node).into_iter().map(|(_, event)| event));
        }
    }

    fn send(&mut self, packets: usize) {
        for _ in 0..packets {
            let packet = self.numbered.packet(self.network.pool(), self.now).unwrap();
            self.network.send(self.now, self.sender, packet);
            self.idle(PERIOD);
        }
    }

    /// What the receiver `n` got.
    fn received(&self, n: usize) -> u64 {
        let report = self.checks[n].report(self.numbered.made());
        assert_eq!((report.duplicated, report.reordered, report.corrupt), (0, 0, 0), "{report:?}");
        report.received
    }

    /// Until both ends of each path have been let in.
    fn connect(&mut self, peers: usize, context: &str) {
        for _ in 0..400 {
            self.idle(Duration::from_millis(50));
            let nodes = self.receivers.iter().map(|node| (node, 1)).chain([(&self.sender, peers as u32)]);
            if nodes.into_iter().all(|(node, peers)| self.network.core(*node).stats().peers >= Some(peers)) {
                return;
            }
        }
        unreachable!("{context}: not connected after 20 s");
    }

    fn figure(&self, node: NodeId, name: &str) -> f64 {
        let mut found = None;
        self.network.core(node).visit_details(&mut |figures| {
            found = figures.iter().find(|figure| figure.0 == name).map(|figure| figure.1);
        });
        found.unwrap()
    }

    fn refusals(&self) -> usize {
        self.events.iter().filter(|event| matches!(event, Event::PeerRefused { .. })).count()
    }
}

#[test]
fn who_knows_the_password_gets_in_over_any_path_and_loses_nothing_after_that() {
    let mut seed = 0;
    for share in [0.05, 0.25] {
        for secrets in [["", ""], ["hunter22", "hunter22"]] {
            for users in [login("wonder"), USERS.parse().unwrap()] {
                seed += 1;
                let context = format!("seed {seed}, {share}, {secrets:?}");
                let rigs = [
                    Rig::push(seed, secrets, "wonder", users.clone(), lossy(share)),
                    Rig::pull(seed, secrets, &["wonder", "wonder"], users.clone(), lossy(share)),
                ];
                for mut rig in rigs {
                    let peers = rig.receivers.len();
                    rig.connect(peers, &context);
                    let sent = 500;
                    rig.send(sent);
                    rig.idle(Duration::from_secs(1));
                    for n in 0..peers {
                        // The very first may be gone before there is a key, the very last missing without anyone noticing.
                        let came = rig.received(n);
                        let few = if share > 0.2 { 30 } else { 5 };
                        assert!(came + few >= sent as u64, "{context}: {came} of {sent}");
                    }
                    assert_eq!(rig.refusals(), 0, "{context}: {:?}", rig.events);
                }
            }
        }
    }
}

#[test]
fn a_caller_without_secret_is_told_it() {
    for (seed, mut rig) in [
        (1, Rig::push(1, ["", "hunter22"], "wonder", login("wonder"), lossy(0.05))),
        (2, Rig::pull(2, ["hunter22", ""], &["wonder"], login("wonder"), lossy(0.05))),
    ] {
        rig.connect(1, &format!("seed {seed}"));
        rig.send(500);
        rig.idle(Duration::from_secs(1));
        assert!(rig.received(0) > 490, "seed {seed}: {}", rig.received(0));
        assert_eq!(rig.refusals(), 0, "seed {seed}: {:?}", rig.events);
    }
}

#[test]
fn a_wrong_password_brings_nothing_and_is_told_and_counted() {
    for (seed, mut rig) in [
        (1, Rig::push(1, ["", ""], "guess", login("wonder"), lossy(0.05))),
        (2, Rig::pull(2, ["", ""], &["guess"], USERS.parse().unwrap(), lossy(0.05))),
        (3, Rig::push(3, ["hunter22", "hunter22"], "guess", login("wonder"), lossy(0.0))),
        (4, Rig::pull(4, ["hunter22", "hunter22"], &["guess"], login("wonder"), lossy(0.0))),
    ] {
        rig.send(6_000);
        assert_eq!(rig.received(0), 0, "seed {seed}");
        assert!(!rig.events.iter().any(|event| matches!(event, Event::PeerConnected { .. })), "seed {seed}");
        assert_eq!(rig.refusals(), 2, "each side tells it, seed {seed}: {:?}", rig.events);
        for node in [rig.sender, rig.receivers[0]] {
            let failures = rig.figure(node, "auth_failed");
            assert!((1.0..20.0).contains(&failures), "seed {seed}: {failures}");
        }
        assert!(rig.network.core(rig.sender).stats().not_connected == 6_000, "seed {seed}");
        rig.send(30_000);
        let counts = rig.events.iter().filter_map(|event| {
            let Event::PeerRefused { count, .. } = event else { return None };
            Some(*count)
        });
        let counts: Vec<u64> = counts.collect();
        assert!(counts.len() == 4 && counts[2..].iter().all(|count| *count > 1), "seed {seed}: {counts:?}");
    }
}

#[test]
fn one_wrong_password_does_not_disturb_those_who_are_in() {
    let mut rig = Rig::pull(7, ["", ""], &["wonder", "guess", "wonder"], login("wonder"), lossy(0.02));
    rig.idle(Duration::from_secs(3));
    rig.send(2_000);
    rig.idle(Duration::from_secs(1));
    assert!(rig.received(0) > 1_990 && rig.received(2) > 1_990);
    assert_eq!(rig.received(1), 0);
    assert_eq!(rig.network.core(rig.sender).stats().peers, Some(2));
}

/// A core driven by hand.
struct Hand {
    core: Box<dyn Core>,
    pool: Pool,
    jobs: usize,
}

impl Hand {
    fn new(core: impl Core + 'static) -> Self {
        Self { core: Box::new(core), pool: Pool::new(PoolLimits::default()), jobs: 0 }
    }

    fn deliver(&mut self, now: Time, peer: SocketAddr, bytes: &[u8]) {
        let packet = self.pool.copy(bytes, Meta { arrival: now, ..Meta::default() }).unwrap();
        self.core.handle_datagram(now, Datagram { port: Port::Media, peer, packet });
    }

    /// What it wants to send now.
    fn turn(&mut self, now: Time) -> Vec<Vec<u8>> {
        if self.core.poll_timeout().is_some_and(|due| due <= now) {
            self.core.handle_timeout(now);
        }
        while let Some(work) = self.core.poll_work() {
            self.jobs += 1;
            self.core.handle_done(now, work.run());
        }
        let mut out = Vec::new();
        while let Some(transmit) = self.core.poll_transmit() {
            let payload = transmit.payload.iter().flat_map(|payload| payload.iter());
            out.push(transmit.header.iter().chain(payload).copied().collect());
        }
        out
    }

    fn listening(seed: u64) -> Self {
        let receiver = Receiver::listening(config(""), &surroundings(seed));
        Self::new(receiver.authenticated(login("wonder"), entropy(seed, 2)))
    }

    fn calling(seed: u64) -> Self {
        let sender = Sender::calling(config(""), &surroundings(seed));
        Self::new(sender.authenticated(login("wonder"), entropy(seed, 1)))
    }

    fn peers(&self) -> u32 {
        self.core.stats().peers.unwrap()
    }
}

/// Lets a caller in; returns all that it said.
fn let_in(caller: &mut Hand, listener: &mut Hand, now: &mut Time) -> Vec<Vec<u8>> {
    let mut said = Vec::new();
    for _ in 0..100 {
        *now += Duration::from_millis(10);
        for bytes in caller.turn(*now) {
            listener.deliver(*now, SENDER.into(), &bytes);
            said.push(bytes);
        }
        for bytes in listener.turn(*now) {
            caller.deliver(*now, RECEIVER.into(), &bytes);
        }
    }
    said
}

#[test]
fn what_was_said_once_lets_nobody_in_again() {
    let mut now = Time::ZERO;
    let (mut caller, mut listener) = (Hand::calling(1), Hand::listening(2));
    let said = let_in(&mut caller, &mut listener, &mut now);
    assert_eq!((caller.peers(), listener.peers()), (1, 1));
    // To another listener with the same users, and to the same one from another address.
    let thief = SocketAddr::from(([198, 51, 100, 7], 1_234));
    let mut other = Hand::listening(3);
    for _ in 0..20 {
        for bytes in &said {
            now += Duration::from_millis(1);
            other.deliver(now, SENDER.into(), bytes);
            listener.deliver(now, thief, bytes);
            other.turn(now);
            listener.turn(now);
        }
    }
    assert_eq!(other.peers(), 0);
    while let Some(event) = listener.core.poll_event() {
        let who = SENDER.into();
        assert!(matches!(event, Event::PeerConnected { peer } if peer == who), "{event:?}");
    }
}

#[test]
fn strangers_in_great_number_cost_little_and_keep_nobody_out() {
    let (mut now, mut listener, mut caller) = (Time::ZERO, Hand::listening(2), Hand::calling(1));
    let start = [0x00, 0x00, 0x88, 0x8e, 3, 1, 0, 0];
    let mut answers = 0;
    for n in 0..50_000_u32 {
        now += Duration::from_micros(100);
        let [_, a, b, c] = n.to_be_bytes();
        let stranger = SocketAddr::from(([10, a, b, c], 1_000));
        // A start, and what is no authentication at all.
        listener.deliver(now, stranger, if n % 2 == 0 { &start } else { &[0, 0, 0x88, 0xb5, 1, 2, 3, 4, 5, 6, 7, 8] });
        // Some guess what the first question was.
        listener.deliver(now, stranger, &[0, 0, 0x88, 0x8e, 3, 0, 0, 6, 2, n as u8, 0, 6, 1, b'x']);
        let out = listener.turn(now);
        // A question to each, and the challenge of who guessed, which is repeated.
        assert!(out.len() < 64);
        answers += out.len();
        if n % 100 == 0 && n > 25_000 {
            for bytes in caller.turn(now) {
                listener.deliver(now, SENDER.into(), &bytes);
            }
            listener.turn(now).iter().for_each(|bytes| caller.deliver(now, RECEIVER.into(), bytes));
        }
    }
    assert!((50_000..55_000).contains(&answers), "{answers} answers in 5 s");
    assert_eq!((caller.peers(), listener.peers()), (1, 1));
    assert!(listener.jobs < 10, "{} jobs", listener.jobs);
}
