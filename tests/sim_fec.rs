//! RTP with forward error correction in the simulator: how much of what gets lost comes back, in order and once.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]
#![allow(clippy::print_stdout, reason = "a failing test shows its seed")]

use std::net::SocketAddr;
use std::time::Duration;

use anabranch::proto::fec::Matrix;
use anabranch::proto::rtp::{Receiver, ReceiverConfig, Sender, SenderConfig};
use anabranch::proto::{Port, Stats, Surroundings};
use anabranch::sim::link::{self, Order};
use anabranch::sim::loss::Model;
use anabranch::sim::net::{Network, Node, NodeId};
use anabranch::sim::traffic::{Check, Numbered, Report};
use anabranch::units::Time;

/// Shares of lost media that come back from 8x4 when media, columns and rows lose as much: those of the peers.
#[test]
fn lost_packets_come_back_from_rows_and_columns() {
    for (lost_share, back_min) in [(0.01, 0.9997), (0.02, 0.999), (0.05, 0.993), (0.1, 0.95)] {
        let mut total = Stats::default();
        for seed in 0..4 {
            let outcome = Path::new("8x4", seed, lossy(lost_share)).run(20_000);
            println!("{lost_share} seed {seed}: {outcome:?}");
            outcome.assert_clean();
            total.lost += outcome.stats.lost;
            total.recovered += outcome.stats.recovered;
        }
        let back = total.recovered as f64 / (total.recovered + total.lost) as f64;
        println!("{lost_share}: {back}");
        assert!(back >= back_min, "{lost_share}: {back}");
    }
}

#[test]
fn every_kind_of_matrix_brings_back_what_it_can() {
    for (matrix, back_min) in [("10x10", 0.99), ("20x5", 0.99), ("5x20", 0.99), ("4x4", 0.995), ("10x5,columns", 0.89)]
    {
        let outcome = Path::new(matrix, 7, lossy(0.02)).run(20_000);
        println!("{matrix}: {outcome:?} {}", outcome.back());
        outcome.assert_clean();
        assert!(outcome.back() >= back_min, "{matrix}: {}", outcome.back());
    }
}

#[test]
fn a_burst_as_long_as_a_row_comes_back() {
    let mut path = Path::new("10x5", 3, link::Config::default());
    path.dark = (2_003..2_013).chain(3_000..3_010).collect();
    let outcome = path.run(5_000);
    outcome.assert_clean();
    assert_eq!((outcome.report.lost, outcome.stats.recovered), (0, 20), "{outcome:?}");
}

#[test]
fn without_loss_nothing_is_rebuilt_whatever_the_path_does() {
    let jitter = link::Config { jitter: Duration::from_millis(3), ..link::Config::default() };
    let doubled = link::Config { duplicated: 0.1, ..jitter };
    for config in [link::Config::default(), jitter, doubled] {
        let outcome = Path::new("8x4", 5, config).run(10_000);
        println!("{outcome:?}");
        outcome.assert_clean();
        assert_eq!((outcome.stats.recovered, outcome.report.lost), (0, 0), "{config:?}");
    }
}

/// Media, columns and rows overtake each other: what was rebuilt and comes all the same is no second packet.
#[test]
fn reordering_and_loss_together_lose_no_more_and_double_nothing() {
    for seed in 0..4 {
        let config =
            link::Config { jitter: Duration::from_millis(5), order: Order::Free, duplicated: 0.02, ..lossy(0.02) };
        let outcome = Path::new("8x4", seed, config).run(10_000);
        println!("seed {seed}: {outcome:?}");
        outcome.assert_clean();
        assert!(outcome.report.lost <= 2, "{outcome:?}");
    }
}

/// ffmpeg's way: a picture's packets at once, then nothing for 33 ms.
#[test]
fn bursts_of_media_come_back_as_well() {
    let mut path = Path::new("8x4", 11, lossy(0.02));
    path.burst = 13;
    let outcome = path.run(20_000);
    println!("{outcome:?}");
    outcome.assert_clean();
    assert!(outcome.back() >= 0.998, "{}", outcome.back());
}

#[test]
fn a_window_of_the_users_is_kept_to() {
    let mut path = Path::new("8x4", 2, lossy(0.02));
    path.window = Some(Duration::from_millis(1));
    let outcome = path.run(5_000);
    outcome.assert_clean();
    assert!(outcome.report.lost > 50, "too short for rows to help: {outcome:?}");
    assert_eq!(outcome.details["window_ms"], 1.0);
}

#[test]
fn figures_tell_what_was_learnt() {
    let outcome = Path::new("8x4", 1, link::Config::default()).run(30_000);
    let details = &outcome.details;
    assert_eq!((details["matrix_columns"], details["matrix_rows"]), (8.0, 4.0));
    // 53 packets of 0.658 ms, a quarter of that, and 25 ms.
    assert!((68.0..70.0).contains(&details["window_ms"]), "{}", details["window_ms"]);
    let fec = details["columns_received"] + details["rows_received"];
    assert!((11_230.0..11_252.0).contains(&fec), "{fec}");
    for name in ["repaired", "unrepaired", "malformed", "refused", "overflow", "no_buffer"] {
        assert_eq!(details[name], 0.0, "{name}");
    }
}

struct Path {
    network: Network,
    sender: NodeId,
    config: link::Config,
    matrix: String,
    window: Option<Duration>,
    /// Packets sent at once.
    burst: u64,
    /// Numbers of packets around which nothing passes.
    dark: Vec<u64>,
}

#[derive(Debug)]
struct Outcome {
    report: Report,
    stats: Stats,
    details: std::collections::BTreeMap<&'static str, f64>,
}

impl Outcome {
    fn assert_clean(&self) {
        let Report { duplicated, reordered, corrupt, .. } = self.report;
        assert_eq!((duplicated, reordered, corrupt), (0, 0, 0), "{self:?}");
        assert_eq!(self.report.lost, self.stats.lost, "{self:?}");
        assert_eq!((self.stats.malformed, self.stats.unexpected), (0, 0), "{self:?}");
    }

    fn back(&self) -> f64 {
        self.stats.recovered as f64 / (self.stats.recovered + self.stats.lost) as f64
    }
}

impl Path {
    fn new(matrix: &str, seed: u64, config: link::Config) -> Self {
        let mut network = Network::new(seed);
        let surroundings = Surroundings { pool: network.pool().clone(), seed, unix_ns_at_zero: 0 };
        let sender_config = SenderConfig::with_fec(self::matrix(matrix));
        let mut sender = Node::new(Sender::new(sender_config, &surroundings));
        for port in Port::ALL {
            sender = sender.bind(port, address(1, port)).connect(port, address(2, port));
        }
        let sender = network.add(sender);
        Self { network, sender, config, matrix: matrix.into(), window: None, burst: 1, dark: Vec::new() }
    }

    /// A packet of 16 Mb/s each 0.658 ms, were it 1,316 bytes long. The beginning and the end are good.
    fn run(mut self, packets: u64) -> Outcome {
        println!("{} {:?}", self.matrix, self.config);
        let surroundings = Surroundings { pool: self.network.pool().clone(), seed: 99, unix_ns_at_zero: 0 };
        let config = ReceiverConfig { fec: true, reorder_window: self.window, ..ReceiverConfig::default() };
        let mut receiver = Node::new(Receiver::new(config, &surroundings));
        for port in Port::ALL {
            receiver = receiver.bind(port, address(2, port));
        }
        let receiver = self.network.add(receiver);
        let mut numbered = Numbered::new(188);
        let mut check = Check::default();
        for n in 0..packets {
            let now = Time::from_ns(n / self.burst * self.burst * 658_000);
            if n == 500 {
                self.network.link(self.sender, receiver, self.config);
            } else if n == packets - 500 {
                self.network.link(self.sender, receiver, link::Config::default());
            }
            if !self.dark.is_empty()
                && (n == 500 || self.dark.contains(&n) || n.checked_sub(1).is_some_and(|n| self.dark.contains(&n)))
            {
                let config = if self.dark.contains(&n) { lossy(1.0) } else { self.config };
                self.network.link(self.sender, receiver, config);
            }
            let packet = numbered.packet(self.network.pool(), now).unwrap();
            self.network.send(now, self.sender, packet);
            self.network.run_until(now);
            self.network.take_packets(receiver).iter().for_each(|delivery| check.handle(&delivery.packet));
        }
        self.network.run_until(self.network.now() + Duration::from_secs(2));
        self.network.take_packets(receiver).iter().for_each(|delivery| check.handle(&delivery.packet));
        let core = self.network.core(receiver);
        let mut details = std::collections::BTreeMap::new();
        core.visit_details(&mut |figures| details.extend(figures.iter().copied()));
        assert_eq!(self.network.stats().no_buffer, 0);
        Outcome { report: check.report(packets), stats: core.stats(), details }
    }
}

fn address(host: u8, port: Port) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host], 5_000 + port as u16))
}

fn lossy(share: f64) -> link::Config {
    link::Config { loss: Model::Random { share }, ..link::Config::default() }
}

/// As `8x4`, or `8x4,columns` if no rows are sent.
fn matrix(text: &str) -> Matrix {
    let (shape, sends_rows) = text.strip_suffix(",columns").map_or((text, true), |shape| (shape, false));
    let (columns, rows) = shape.split_once('x').unwrap();
    Matrix::new(columns.parse().unwrap(), rows.parse().unwrap(), sends_rows).unwrap()
}
