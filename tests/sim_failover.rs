//! Failover behind two receivers in the simulator: how long the hole is when a path dies.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]
#![allow(clippy::print_stdout, reason = "a failing test shows its seed")]

use std::net::SocketAddr;
use std::time::Duration;

use anabranch::bus::Packet;
use anabranch::path::failover::{Cause, Config, Event, Failover, SwitchAt};
use anabranch::path::health::{Counts, Fault, Rules};
use anabranch::proto::mpegts::entry::Finder;
use anabranch::proto::mpegts::{TestPicture, picture};
use anabranch::proto::{Core, Port, Surroundings, udp};
use anabranch::sim::link;
use anabranch::sim::loss::Model;
use anabranch::sim::net::{Network, Node, NodeId};
use anabranch::sim::traffic::{self, Numbered};
use anabranch::units::{Bitrate, Time};

#[test]
fn a_dead_path_costs_the_health_timeout_and_its_return_costs_nothing() {
    for seed in 0..8 {
        println!("seed {seed}");
        let mut flow = Flow::new(seed);
        flow.run_until(3_000);
        flow.impair(0, lossy(1.0));
        flow.run_until(6_000);
        flow.impair(0, link::Config::default());
        flow.run_until(20_000);

        let switched = Event::Switched { from: 0, to: 1, cause: Cause::Silent };
        let back = Event::SwitchedBack { from: 1, to: 0 };
        assert_eq!(flow.changes(), [(0, Event::Activated { source: 0 }), (3_499, switched), (11_000, back)]);
        // The last packet of the first path came at 2999 ms; the second path goes on with that of 3499 ms.
        assert_eq!(flow.missing(), (3_000..3_499).collect::<Vec<_>>());
    }
}

#[test]
fn a_poor_path_is_not_left() {
    for seed in 0..8 {
        println!("seed {seed}");
        let mut flow = Flow::new(seed);
        flow.run_until(1_000);
        flow.impair(0, lossy(0.2));
        flow.run_until(20_000);
        assert_eq!(flow.changes(), [(0, Event::Activated { source: 0 })]);
    }
}

/// With rules a path that loses too much is left, and returned to when it has been good for the hold-off, whatever the dice
/// say; nobody goes back and forth.
#[test]
fn a_poor_path_is_left_by_the_rules_and_comes_back_after_the_hold_off() {
    for seed in 0..5 {
        println!("seed {seed}");
        let mut flow = Flow::judged(seed);
        flow.run_until(1_000);
        flow.impair(0, lossy(0.3));
        flow.impair(1, lossy(0.02));
        flow.run_until(20_000);
        flow.impair(0, link::Config::default());
        flow.run_until(40_000);
        let cause = Cause::Faulty(Fault::Loss);
        let changes = flow.changes();
        let events = changes.iter().map(|change| change.1).collect::<Vec<_>>();
        let (switched, back) = (Event::Switched { from: 0, to: 1, cause }, Event::SwitchedBack { from: 1, to: 0 });
        assert_eq!(events, [Event::Activated { source: 0 }, switched, back]);
        let [_, (switched_at, _), (back_at, _)] = changes[..] else { unreachable!("three changes") };
        println!("left {} ms after it began, returned to {} ms after it ended", switched_at - 1_000, back_at - 20_000);
        assert!((3_000..3_600).contains(&switched_at), "the hold-off, and until 10 % of a second are lost");
        assert!((25_000..26_300).contains(&back_at), "five seconds, and until the second before is good");
        // The backup's next packet is the first after the decision: no more than its own loss is missing around it.
        let before = flow.forwarded_at.iter().rfind(|at| **at < switched_at).unwrap();
        let after = flow.forwarded_at.iter().find(|at| **at >= switched_at).unwrap();
        println!("first packet {} ms after the decision, a hole of {} ms", after - switched_at, after - before);
        assert!(after - switched_at <= 50);
    }
}

/// All poor: the flow stays, or goes once to what is clearly better.
#[test]
fn of_poor_paths_the_best_is_kept() {
    for seed in 0..3 {
        println!("seed {seed}");
        for (losses, expected) in [([0.3, 0.3], 0), ([0.3, 0.2], 0), ([0.5, 0.15], 1)] {
            let mut flow = Flow::judged(seed);
            flow.run_until(1_000);
            losses.into_iter().enumerate().for_each(|(path, loss)| flow.impair(path, lossy(loss)));
            flow.run_until(30_000);
            assert_eq!(flow.failover.active(), Some(expected), "{losses:?}");
            assert_eq!(flow.failover.stats().switches.total(), u64::from(expected), "{losses:?}");
        }
    }
}

/// Pictures over two paths of random delay and jitter, begun at random moments: whatever the dice say, the flow returns with a
/// key frame, keeps every packet of the source in use until then, and has every one of the next from then on.
#[test]
fn an_aligned_return_begins_with_a_key_frame_and_loses_nothing() {
    for seed in 0..10 {
        println!("seed {seed}");
        let mut run = Pictures::new(seed, WAIT_MAX);
        run.run_until(12_000);
        let events: Vec<_> = run.changes.iter().map(|change| change.event).collect();
        assert_eq!(events, [Event::Activated { source: 0 }, Event::SwitchedBack { from: 0, to: 1 }]);
        let change = run.changes[1];
        assert!(change.with_key_frame && change.at_ms >= run.due_ms, "{change:?}, due at {} ms", run.due_ms);
        // A key frame each second, and what the path makes of that.
        assert!(change.at_ms - run.due_ms <= 1_100, "{change:?}, due at {} ms", run.due_ms);
        assert_eq!(run.failover.stats().key_frame_timeouts_total, 0);
    }
}

/// No key frame within the wait: the flow returns all the same, just then.
#[test]
fn an_aligned_return_waits_for_no_longer_than_it_may() {
    for seed in 0..10 {
        println!("seed {seed}");
        let mut run = Pictures::new(seed, Duration::from_millis(40));
        run.run_until(12_000);
        let change = run.changes[1];
        let waited = change.at_ms - run.due_ms;
        println!("{change:?}, waited {waited} ms");
        assert!(waited <= 50, "a packet comes each 7 ms");
        assert_eq!(change.with_key_frame, run.failover.stats().key_frame_timeouts_total == 0);
    }
}

/// The source in use dies while the return to another waits for a key frame: no longer hole than without waiting.
#[test]
fn a_source_that_dies_while_a_change_waits_is_left_for_its_silence() {
    for seed in 0..10 {
        println!("seed {seed}");
        let mut run = Pictures::new(seed, Duration::from_secs(60));
        run.without_key_frames = true;
        run.run_until(8_000);
        assert_eq!(run.changes.len(), 1, "it waits");
        run.impair(0, lossy(1.0));
        run.run_until(12_000);
        let change = run.changes[1];
        assert_eq!(change.event, Event::Switched { from: 0, to: 1, cause: Cause::Silent });
        assert!((8_400..8_620).contains(&change.at_ms), "{change:?}");
        assert_eq!(run.failover.stats().key_frame_timeouts_total, 0);
    }
}

const WAIT_MAX: Duration = Duration::from_secs(2);

/// Two UDP paths with a picture each, and the failover that joins them and prefers the second.
struct Pictures {
    network: Network,
    paths: [(NodeId, NodeId); 2],
    /// With the millisecond that it begins.
    sources: [(TestPicture, u64); 2],
    finders: [Finder; 2],
    without_key_frames: bool,
    failover: Failover,
    now_ms: u64,
    /// When the second has proved itself.
    due_ms: u64,
    forwarded: Option<u8>,
    changes: Vec<Change>,
}

#[derive(Clone, Copy, Debug)]
struct Change {
    at_ms: u64,
    event: Event,
    /// Whether the first packet afterwards begins with a key frame.
    with_key_frame: bool,
}

impl Pictures {
    fn new(seed: u64, wait_max: Duration) -> Self {
        let mut network = Network::new(seed);
        let switch_at = SwitchAt::KeyFrame { wait_max };
        let mut failover = Failover::new(Config { primary: Some(1), switch_at, ..Config::default() });
        let paths = [0, 1].map(|path| {
            failover.add_source(path);
            let [from, to] = [1, 2].map(|host| SocketAddr::from(([10, 0, path, host], 5_000)));
            let sender = Node::new(udp::Sender::new(None)).bind(Port::Media, from).connect(Port::Media, to);
            let receiver = Node::new(udp::Receiver::default()).bind(Port::Media, to);
            (network.add(sender), network.add(receiver))
        });
        // The phases of the pictures, and the paths, differ from seed to seed.
        let begins_ms = 600 + seed * 377 % 1_000;
        let config = picture::Config::new(Bitrate::from_bps(1_500_000)).unwrap();
        let sources = [0, begins_ms].map(|begins_ms| {
            let surroundings = Surroundings { pool: network.pool().clone(), seed, unix_ns_at_zero: 0 };
            (TestPicture::new(config, &surroundings), begins_ms)
        });
        let mut run = Self {
            network,
            paths,
            sources,
            finders: Default::default(),
            without_key_frames: false,
            failover,
            now_ms: 0,
            due_ms: 0,
            forwarded: None,
            changes: Vec::new(),
        };
        for path in [0, 1] {
            let delay = Duration::from_millis(seed * 13 % 90);
            run.impair(path, link::Config { delay, jitter: Duration::from_millis(20), ..link::Config::default() });
        }
        run
    }

    fn impair(&mut self, path: usize, config: link::Config) {
        let (sender, receiver) = self.paths[path];
        self.network.link(sender, receiver, config);
    }

    fn run_until(&mut self, end_ms: u64) {
        while self.now_ms < end_ms {
            let now = Time::from_ns(self.now_ms * 1_000_000);
            for ((sender, _), (picture, begins_ms)) in self.paths.iter().zip(&mut self.sources) {
                if *begins_ms <= self.now_ms {
                    picture.handle_timeout(now);
                }
                while let Some(packet) = picture.poll_packet() {
                    self.network.send(now, *sender, packet);
                }
            }
            self.network.run_until(now);
            if self.failover.poll_timeout().is_some_and(|due| due <= now) {
                self.failover.handle_timeout(now);
            }
            self.note(false);
            for source in [0, 1] {
                for delivery in self.network.take_packets(self.paths[usize::from(source)].1) {
                    self.take(now, source, &delivery.packet);
                }
            }
            self.now_ms += 1;
        }
    }

    fn take(&mut self, now: Time, source: u8, packet: &Packet) {
        if source == 1 && self.due_ms == 0 {
            self.due_ms = self.now_ms + 5_000;
        }
        let is_key_frame = self.finders[usize::from(source)].handle_packet(packet) && !self.without_key_frames;
        let forward = match is_key_frame {
            true => self.failover.handle_key_frame(now, source),
            false => self.failover.handle_packet(now, source),
        };
        assert_eq!(
            forward,
            self.failover.active() == Some(source),
            "of the source in use everything, of others nothing"
        );
        self.note(is_key_frame && forward && self.forwarded != Some(source));
        if forward {
            self.forwarded = Some(source);
        }
    }

    fn note(&mut self, with_key_frame: bool) {
        while let Some(event) = self.failover.poll_event() {
            if matches!(event, Event::Activated { .. } | Event::Switched { .. } | Event::SwitchedBack { .. }) {
                self.changes.push(Change { at_ms: self.now_ms, event, with_key_frame });
            }
        }
    }
}

/// Two UDP paths with the same packets, one every millisecond, and the failover that joins them.
struct Flow {
    network: Network,
    paths: [(NodeId, NodeId); 2],
    numbered: [Numbered; 2],
    failover: Failover,
    now_ms: u64,
    forwarded: Vec<u64>,
    /// When, in milliseconds.
    forwarded_at: Vec<u64>,
    events: Vec<(u64, Event)>,
}

impl Flow {
    fn new(seed: u64) -> Self {
        Self::with(seed, Config { primary: Some(0), ..Config::default() })
    }

    /// 10 % of loss for two seconds; at most 5 % for five.
    fn judged(seed: u64) -> Self {
        let switch_on = Rules { loss_per_mille: Some(100), ..Rules::default() };
        Self::with(seed, Config { primary: Some(0), switch_on, ..Config::default() })
    }

    fn with(seed: u64, config: Config) -> Self {
        let mut network = Network::new(seed);
        let mut failover = Failover::new(config);
        let paths = [0, 1].map(|path| {
            failover.add_source(path);
            let [from, to] = [1, 2].map(|host| SocketAddr::from(([10, 0, path, host], 5_000)));
            let sender = Node::new(udp::Sender::new(None)).bind(Port::Media, from).connect(Port::Media, to);
            let receiver = Node::new(udp::Receiver::default()).bind(Port::Media, to);
            (network.add(sender), network.add(receiver))
        });
        let numbered = [Numbered::new(188), Numbered::new(188)];
        Self {
            network,
            paths,
            numbered,
            failover,
            now_ms: 0,
            forwarded: Vec::new(),
            forwarded_at: Vec::new(),
            events: Vec::new(),
        }
    }

    fn impair(&mut self, path: usize, config: link::Config) {
        let (sender, receiver) = self.paths[path];
        self.network.link(sender, receiver, config);
    }

    fn run_until(&mut self, end_ms: u64) {
        while self.now_ms < end_ms {
            let now = Time::from_ns(self.now_ms * 1_000_000);
            for ((sender, _), numbered) in self.paths.iter().zip(&mut self.numbered) {
                let packet = numbered.packet(self.network.pool(), now).unwrap();
                self.network.send(now, *sender, packet);
            }
            self.network.run_until(now);
            if self.failover.wants_counts(now) {
                // What the link lost is what an RTP receiver would miss.
                let stats = self.paths.map(|(from, to)| self.network.link_stats(from, to));
                let counts =
                    stats.map(|link| Counts { packets: link.sent - link.lost, lost: link.lost, ..Counts::default() });
                self.failover.handle_counts(now, (0..).zip(counts));
            }
            if self.failover.poll_timeout().is_some_and(|due| due <= now) {
                self.failover.handle_timeout(now);
            }
            for source in [0, 1] {
                for delivery in self.network.take_packets(self.paths[usize::from(source)].1) {
                    if self.failover.handle_packet(now, source) {
                        self.forwarded.push(traffic::number(&delivery.packet).unwrap());
                        self.forwarded_at.push(self.now_ms);
                    }
                }
            }
            while let Some(event) = self.failover.poll_event() {
                self.events.push((self.now_ms, event));
            }
            self.now_ms += 1;
        }
    }

    /// Changes of the active source, with their milliseconds.
    fn changes(&self) -> Vec<(u64, Event)> {
        let is_change = |event: &Event| {
            matches!(event, Event::Activated { .. } | Event::Switched { .. } | Event::SwitchedBack { .. })
        };
        self.events.iter().filter(|(_, event)| is_change(event)).copied().collect()
    }

    fn missing(&self) -> Vec<u64> {
        (0..self.now_ms).filter(|number| self.forwarded.binary_search(number).is_err()).collect()
    }
}

fn lossy(share: f64) -> link::Config {
    link::Config { loss: Model::Random { share }, ..link::Config::default() }
}
