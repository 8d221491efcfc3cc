//! The same bad networks twice: RTP cores in the simulator, and the engine over loopback through the proxy. What is
//! expected is the same.

use std::net::SocketAddr;
use std::time::Duration;

use anabranch::proto::rtp::{Receiver, ReceiverConfig, Sender, SenderConfig};
use anabranch::proto::{Port, Surroundings};
use anabranch::sim::link::{self, Order};
use anabranch::sim::loss::Model;
use anabranch::sim::net::{Network, Node};
use anabranch::sim::traffic::{Check, Numbered, Report};
use anabranch::units::Time;

use crate::proxy::Proxy;
use crate::support::{Feed, Rig, Sink, TS, V4, flow, free_port, udp, url_of, wait_until};

/// What a receiver made of a bad network.
#[derive(Debug)]
struct Outcome {
    report: Report,
    lost: u64,
    duplicate: u64,
    late: u64,
}

/// Reordering by jitter, within the window; order kept where the network keeps it; every loss counted once.
fn check(name: &str, config: &link::Config, outcome: &Outcome) {
    let Outcome { report, lost, duplicate, late } = outcome;
    assert_eq!((report.duplicated, report.reordered, report.corrupt), (0, 0, 0), "{name}: {outcome:?}");
    assert_eq!(report.lost, *lost, "{name}: {outcome:?}");
    assert_eq!(*late, 0, "{name}: {outcome:?}");
    assert_eq!(*lost > 0, config.loss != Model::None, "{name}: {outcome:?}");
    assert_eq!(*duplicate > 0, config.duplicated > 0.0, "{name}: {outcome:?}");
}

fn in_the_simulator(config: link::Config, seed: u64) -> Outcome {
    let mut network = Network::new(seed);
    let surroundings = |seed| Surroundings { pool: network.pool().clone(), seed, unix_ns_at_zero: 0 };
    let address = |host: u8, port: u16| SocketAddr::from(([10, 0, 0, host], port));
    let receiver_config = ReceiverConfig { reorder_window: Some(WINDOW), ..ReceiverConfig::default() };
    let sender = Node::new(Sender::new(SenderConfig::default(), &surroundings(1)))
        .bind(Port::Media, address(1, 4_000))
        .bind(Port::Control, address(1, 4_001))
        .connect(Port::Media, address(2, 5_004))
        .connect(Port::Control, address(2, 5_005));
    let receiver = Node::new(Receiver::new(receiver_config, &surroundings(2)))
        .bind(Port::Media, address(2, 5_004))
        .bind(Port::Control, address(2, 5_005));
    let (sender, receiver) = (network.add(sender), network.add(receiver));
    let mut numbered = Numbered::new(TS);
    for n in 0..PACKETS {
        match n {
            GOOD_START => network.link(sender, receiver, config),
            GOOD_END => network.link(sender, receiver, link::Config::default()),
            _ => {}
        }
        let now = Time::from_ns(n * INTERVAL.as_nanos() as u64);
        let packet = numbered.packet(network.pool(), now).unwrap();
        network.send(now, sender, packet);
        network.run_until(now);
    }
    network.run_until(network.now() + WINDOW + WINDOW);
    let mut check = Check::default();
    network.take_packets(receiver).iter().for_each(|delivery| check.handle(&delivery.packet));
    let stats = network.core(receiver).stats();
    Outcome { report: check.report(PACKETS), lost: stats.lost, duplicate: stats.duplicate, late: stats.late }
}

fn over_loopback(config: link::Config, seed: u64) -> Outcome {
    let rig = Rig::new();
    let (sink, listen) = (Sink::new(V4), (V4, free_port()).into());
    let receiver = SocketAddr::from((V4, free_port()));
    let proxy = Proxy::new(receiver, seed, Duration::ZERO);
    let source = url_of("rtp", receiver, &format!("reorder={}", WINDOW.as_millis()));
    rig.apply("in", flow([source], [sink.url()]));
    rig.apply("out", flow([udp(listen)], [url_of("rtp", proxy.address, "")]));
    let send = |feed: Feed, until: u64| {
        let feed = feed.run_until(INTERVAL, until);
        // The proxy's settings change between two packets, not while some are under way to it.
        wait_until("the proxy", || proxy.media().sent == until);
        feed
    };
    let feed = send(Feed::new(listen, TS), GOOD_START);
    proxy.set_media(config);
    let feed = send(feed, GOOD_END);
    proxy.set_media(link::Config::default());
    send(feed, PACKETS);
    let lost = proxy.media().lost;
    sink.wait(PACKETS - lost);
    wait_until("all copies", || rig.source("in", "s1").drops.duplicate == proxy.media().duplicated);
    let source = rig.source("in", "s1");
    assert_eq!(source.lost, lost, "what the proxy lost is what the receiver counts");
    let (report, drops) = (sink.report(PACKETS), source.drops);
    Outcome { report, lost: source.lost, duplicate: drops.duplicate, late: drops.late }
}

fn run(name: &str, config: link::Config) {
    for seed in 1..20 {
        let outcome = in_the_simulator(config, seed);
        check(&format!("{name}, simulator, seed {seed}"), &config, &outcome);
    }
    check(&format!("{name}, loopback"), &config, &over_loopback(config, 1));
}

macro_rules! cases {
    ($($name:ident: $config:expr;)*) => {
        $(#[test]
        fn $name() {
            run(stringify!($name), $config);
        })*
    };
}

const GOOD: link::Config = link::Config {
    loss: Model::None,
    delay: Duration::ZERO,
    jitter: Duration::ZERO,
    order: Order::Kept,
    duplicated: 0.0,
    held_back: 0.0,
    held_back_by: Duration::ZERO,
    bandwidth: None,
    queue: Duration::ZERO,
};

cases! {
    a_perfect_path: GOOD;
    a_long_path: link::Config { delay: Duration::from_millis(80), ..GOOD };
    random_loss: link::Config { loss: Model::Random { share: 0.02 }, ..GOOD };
    loss_in_bursts: link::Config { loss: Model::bursts(0.05, 6.0), ..GOOD };
    reordering: link::Config { held_back: 0.05, held_back_by: Duration::from_millis(7), ..GOOD };
    duplication: link::Config { duplicated: 0.03, ..GOOD };
    jitter_that_keeps_the_order: link::Config { jitter: Duration::from_millis(15), ..GOOD };
    jitter_that_does_not: link::Config { jitter: Duration::from_millis(15), order: Order::Free, ..GOOD };
    everything_at_once: link::Config {
        loss: Model::bursts(0.04, 3.0),
        delay: Duration::from_millis(10),
        jitter: Duration::from_millis(10),
        order: Order::Free,
        duplicated: 0.03,
        held_back: 0.03,
        held_back_by: Duration::from_millis(20),
        ..GOOD
    };
}

const PACKETS: u64 = 1_100;
/// The network is good for the first and the last packets, so that nothing is lost before the first that arrives or
/// after the last.
const GOOD_START: u64 = 50;
const GOOD_END: u64 = 1_050;
const INTERVAL: Duration = Duration::from_millis(1);
/// Far above any reordering here, so that a busy machine does not make packets late.
const WINDOW: Duration = Duration::from_millis(1_000);
