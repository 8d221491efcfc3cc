//! Two UDP cores over a bad link in virtual time: a minute of a 20 Mb/s feed in a moment.
//!
//! `cargo run --release --no-default-features --features sim --example sim_lossy_link [SEED]`
#![allow(clippy::print_stdout, reason = "an example shows what it found")]

use std::net::SocketAddr;
use std::time::Duration;

use anabranch::proto::{Port, udp};
use anabranch::sim::link;
use anabranch::sim::loss::Model;
use anabranch::sim::net::{Network, Node};
use anabranch::sim::traffic::{Check, Numbered, Report};
use anabranch::units::Time;

/// Seven TS packets every 526.4 µs are 20 Mb/s.
const PACKET_BYTES: usize = 1_316;
const PERIOD: Duration = Duration::from_nanos(526_400);
const SPAN: Duration = Duration::from_secs(60);

fn main() {
    let seed = std::env::args().nth(1).and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let delay = Duration::from_millis(20);
    let clean = link::Config { delay, ..link::Config::default() };
    let links = [
        ("clean", clean),
        ("5 % random loss", link::Config { loss: Model::Random { share: 0.05 }, ..clean }),
        ("5 % loss in bursts of 8", link::Config { loss: Model::bursts(0.05, 8.0), ..clean }),
        ("1 % held back 5 ms", link::Config { held_back: 0.01, held_back_by: Duration::from_millis(5), ..clean }),
    ];
    println!("seed {seed}, {} s", SPAN.as_secs());
    println!("{:24} {:>9} {:>9} {:>7} {:>9}  fingerprint", "link", "sent", "received", "lost", "reordered");
    for (name, config) in links {
        let (made, report, fingerprint) = run(seed, config);
        let Report { received, lost, reordered, .. } = report;
        println!("{name:24} {made:>9} {received:>9} {lost:>7} {reordered:>9}  {fingerprint:016x}");
    }
}

/// Packets made, what became of them, and the fingerprint of the run.
fn run(seed: u64, config: link::Config) -> (u64, Report, u64) {
    let sender_address = SocketAddr::from(([192, 0, 2, 1], 5_000));
    let receiver_address = SocketAddr::from(([192, 0, 2, 2], 5_000));
    let sender = Node::new(udp::Sender::new(None));
    let mut network = Network::new(seed);
    let sender = network.add(sender.bind(Port::Media, sender_address).connect(Port::Media, receiver_address));
    let receiver = network.add(Node::new(udp::Receiver::default()).bind(Port::Media, receiver_address));
    network.link(sender, receiver, config);

    let mut numbered = Numbered::new(PACKET_BYTES);
    let mut check = Check::default();
    let mut now = Time::ZERO;
    while now < Time::ZERO + SPAN {
        if let Some(packet) = numbered.packet(network.pool(), now) {
            network.send(now, sender, packet);
        }
        now += PERIOD;
        network.run_until(now);
        network.take_packets(receiver).iter().for_each(|delivery| check.handle(&delivery.packet));
    }
    network.run_until(now + Duration::from_secs(1));
    network.take_packets(receiver).iter().for_each(|delivery| check.handle(&delivery.packet));
    (numbered.made(), check.report(numbered.made()), network.fingerprint())
}
