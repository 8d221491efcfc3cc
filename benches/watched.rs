//! Latency from socket to socket of a flow of 8 Mb/s, with and without its pictures and sound being watched.
//!
//! Prints percentiles of several runs by turns, and the load of the machine. A quiet one is needed: a busy machine shows itself.
#![allow(clippy::unwrap_used, reason = "a bench that cannot go on may panic")]
#![allow(clippy::print_stdout, reason = "figures are what it is for")]

use std::fs;
use std::net::UdpSocket;
use std::time::Duration;

use anabranch::adapters::clock;
use anabranch::bus::{Pool, PoolLimits};
use anabranch::engine::{
    Engine, EngineConfig, FailoverConfig, FlowConfig, Mode, MonitorConfig, OutputConfig, SourceConfig, url,
};
use anabranch::path::AllowList;
use anabranch::path::health::Seen;
use anabranch::proto::mpegts::{TestPicture, picture};
use anabranch::proto::{Core, Surroundings};
use anabranch::units::{Bitrate, Time};

fn main() {
    // As a test of this target it only has to build.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    // Only to see that it runs: a short round.
    let is_quick = std::env::args().any(|argument| argument == "--quick");
    let (span, rounds) = if is_quick { (RUN / 6, 1) } else { (RUN, ROUNDS) };
    let datagrams = signal(span);
    for round in 0..rounds {
        for (name, monitor, is_judged) in [
            ("nothing", MonitorConfig::default(), false),
            ("metadata", metadata(), false),
            ("everything", everything(), false),
            ("each source", everything(), true),
        ] {
            let mut latencies = run(monitor, is_judged, &datagrams, span);
            latencies.sort_unstable();
            let at = |per_mille: usize| latencies[(latencies.len() - 1) * per_mille / 1_000].as_micros();
            let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
            println!(
                "round {round}, watching {name:<11}: p50 {:>5} µs, p90 {:>5} µs, p99 {:>6} µs, p99.9 {:>6} µs, {} of {}, load {}",
                at(500),
                at(900),
                at(990),
                at(999),
                latencies.len(),
                datagrams.len(),
                load.split(' ').next().unwrap_or("?")
            );
        }
    }
}

fn metadata() -> MonitorConfig {
    MonitorConfig { ts_analysis: true, ..MonitorConfig::default() }
}

fn everything() -> MonitorConfig {
    MonitorConfig { thumbnail_every: Some(Duration::from_secs(1)), content_quality: true, ..metadata() }
}

/// How long each took from before it was sent until after it was received.
fn run(monitor: MonitorConfig, is_judged: bool, datagrams: &[Vec<u8>], span: Duration) -> Vec<Duration> {
    let [feed, sink] = [0; 2].map(|_| UdpSocket::bind("127.0.0.1:0").unwrap());
    sink.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let input = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut failover = FailoverConfig { health_timeout: Duration::from_secs(60), ..FailoverConfig::default() };
    failover.switch_on.seen = Seen { black: is_judged, ..Seen::NONE };
    let source = SourceConfig {
        name: "source".parse().unwrap(),
        endpoint: url::parse_source(&format!("udp://{input}")).unwrap(),
        allow: AllowList::default(),
        limit: None,
    };
    let output = OutputConfig {
        name: "output".parse().unwrap(),
        endpoint: url::parse_output(&format!("udp://{}", sink.local_addr().unwrap())).unwrap().endpoint,
        enabled: true,
        policy: anabranch::bus::LagPolicy::DropOldest,
        coalesce: Duration::ZERO,
        limit: None,
        allow: AllowList::default(),
    };
    let flow = FlowConfig { name: "bench".into(), sources: vec![source], outputs: vec![output], failover, monitor };
    let engine = Engine::start(&EngineConfig { workers: 1, ..EngineConfig::default() }, |_| ()).unwrap();
    engine.apply(&"bench".parse().unwrap(), flow, Mode::Strict).unwrap();

    let every = span / datagrams.len() as u32;
    let receiver = std::thread::spawn({
        let count = datagrams.len();
        move || {
            let mut came = Vec::with_capacity(count);
            let mut datagram = [0; 2_048];
            while came.len() < count && sink.recv(&mut datagram).is_ok() {
                came.push(clock::now());
            }
            came
        }
    });
    let start = clock::now();
    let mut sent = Vec::with_capacity(datagrams.len());
    for (n, datagram) in datagrams.iter().enumerate() {
        let due = start + every * n as u32;
        while clock::now() < due {
            std::thread::park_timeout(due.since(clock::now()));
        }
        sent.push(clock::now());
        feed.send_to(datagram, input).unwrap();
    }
    let came = receiver.join().unwrap();
    assert_eq!(came.len(), sent.len(), "datagrams were lost");
    came.iter().zip(&sent).map(|(came, sent)| came.since(*sent)).collect()
}

/// Datagrams of the test picture, for so long.
fn signal(span: Duration) -> Vec<Vec<u8>> {
    let surroundings = Surroundings { pool: Pool::new(PoolLimits::default()), seed: 0, unix_ns_at_zero: 0 };
    let config = picture::Config::new(Bitrate::from_bps(8_000_000)).unwrap();
    let mut signal = TestPicture::new(config, &surroundings);
    let mut datagrams = Vec::new();
    signal.handle_timeout(Time::ZERO);
    while let Some(due) = signal.poll_timeout().filter(|due| *due < Time::ZERO + span) {
        signal.handle_timeout(due);
        while let Some(packet) = signal.poll_packet() {
            datagrams.push(packet.to_vec());
        }
    }
    datagrams
}

const RUN: Duration = Duration::from_secs(12);
const ROUNDS: usize = 3;
