//! CPU time per delivered datagram, 1 to 50 over loopback sockets: the engine beside the bare system calls.
//!
//! A burst is fed in as one train, and all 50 sinks have it before the next one comes. Each forwarder runs on a thread
//! of its own, and what is timed is the CPU of all threads of this process but the one that feeds and drains.
//! `scripts/bench-peers` measures whole programs at a steady rate, and latency.
#![allow(clippy::unwrap_used, reason = "a bench that cannot go on may panic")]

mod burst;
#[allow(dead_code, reason = "shared with the benchmark of peers, which needs more of it")]
#[path = "peers/sys.rs"]
mod sys;

use std::net::{SocketAddrV4, UdpSocket};
use std::thread;
use std::time::Duration;

use anabranch::engine::{
    Engine, EngineConfig, FailoverConfig, FlowConfig, Mode, MonitorConfig, OutputConfig, SourceConfig, url,
};
use anabranch::path::AllowList;
use burst::{address, cpu_of_others_ns, cut_into_datagrams, open, receive};
use criterion::{Criterion, criterion_group, criterion_main};
use sys::{Batch, FanOut};

criterion_group!(benches, fanout);
criterion_main!(benches);

fn fanout(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group(format!("fan-out to {OUTPUTS}"));
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(1));
    for burst in BURSTS {
        let feed = Feed::new(burst);
        let forwarders: [(&str, Option<Calls>); 4] =
            [("engine", None), ("send_to", Some(send_to)), ("sendmmsg", Some(send_each)), (TRAINS, Some(send_trains))];
        for (name, calls) in forwarders.into_iter().filter(|(name, _)| burst > 1 || *name != TRAINS) {
            let mut forwarder = None;
            group.bench_function(format!("{name}, bursts of {burst}"), |bencher| {
                let forwarder = forwarder.get_or_insert_with(|| match calls {
                    None => Forwarder::engine(),
                    Some(calls) => Forwarder::calls(burst, calls),
                });
                bencher.iter_custom(|wanted| {
                    let per_round = (burst * OUTPUTS) as u64;
                    let rounds = wanted.div_ceil(per_round);
                    let spent_ns = forwarder.rounds(&feed, rounds);
                    let scaled_ns = u128::from(spent_ns) * u128::from(wanted) / u128::from(rounds * per_round);
                    Duration::from_nanos(scaled_ns as u64)
                });
            });
        }
    }
}

/// Something on another thread that brings bursts to the sinks.
struct Forwarder {
    input: SocketAddrV4,
    sinks: Sinks,
    /// Runs for as long as it is held.
    _engine: Option<Engine>,
}

/// A way to send the first datagrams of a batch everywhere.
type Calls = fn(&mut FanOut, &UdpSocket, &[SocketAddrV4], usize);

impl Forwarder {
    /// A flow of one source and 50 outputs.
    fn engine() -> Self {
        let sinks = Sinks::open();
        let input = address(&open());
        let source = SourceConfig {
            name: "source".parse().unwrap(),
            endpoint: url::parse_source(&format!("udp://{input}")).unwrap(),
            allow: AllowList::default(),
            limit: None,
        };
        let outputs = sinks.addresses.iter().map(|address| OutputConfig {
            name: address.to_string().parse().unwrap(),
            endpoint: url::parse_output(&format!("udp://{address}")).unwrap().endpoint,
            enabled: true,
            coalesce: Duration::ZERO,
            policy: anabranch::bus::LagPolicy::default(),
            limit: None,
            allow: AllowList::default(),
        });
        let failover = FailoverConfig::default();
        let flow = FlowConfig {
            name: "bench".into(),
            sources: vec![source],
            outputs: outputs.collect(),
            failover,
            monitor: MonitorConfig::default(),
        };
        let engine = Engine::start(&EngineConfig { workers: 1, ..EngineConfig::default() }, |_| ()).unwrap();
        engine.apply(&"bench".parse().unwrap(), flow, Mode::Strict).unwrap();
        Self { input, sinks, _engine: Some(engine) }
    }

    /// Receives a burst and sends it on, and nothing else. Its thread ends when nothing comes any more.
    fn calls(burst: usize, send: Calls) -> Self {
        let sinks = Sinks::open();
        let socket = open();
        let input = address(&socket);
        let addresses = sinks.addresses.clone();
        thread::spawn(move || {
            let mut fan_out = FanOut::new(Batch::new(burst, SLOT_BYTES), &addresses);
            while receive(&mut fan_out.batch, &socket, burst) == burst {
                send(&mut fan_out, &socket, &addresses, burst);
            }
        });
        Self { input, sinks, _engine: None }
    }

    /// CPU time that the forwarder spent, in nanoseconds.
    fn rounds(&mut self, feed: &Feed, rounds: u64) -> u64 {
        let start_ns = cpu_of_others_ns();
        for _ in 0..rounds {
            feed.send(self.input);
            self.sinks.drain(feed.burst);
        }
        cpu_of_others_ns() - start_ns
    }
}

fn send_to(fan_out: &mut FanOut, socket: &UdpSocket, addresses: &[SocketAddrV4], count: usize) {
    for slot in 0..count {
        for address in addresses {
            socket.send_to(fan_out.batch.bytes(slot), address).unwrap();
        }
    }
}

fn send_each(fan_out: &mut FanOut, socket: &UdpSocket, _: &[SocketAddrV4], count: usize) {
    fan_out.send_each(socket, count);
}

fn send_trains(fan_out: &mut FanOut, socket: &UdpSocket, _: &[SocketAddrV4], count: usize) {
    fan_out.send_trains(socket, count);
}

/// Sends bursts that arrive at once.
struct Feed {
    burst: usize,
    socket: UdpSocket,
    bytes: Vec<u8>,
}

impl Feed {
    fn new(burst: usize) -> Self {
        let socket = open();
        cut_into_datagrams(&socket, DATAGRAM_BYTES);
        Self { burst, socket, bytes: vec![0x47; burst * DATAGRAM_BYTES] }
    }

    fn send(&self, to: SocketAddrV4) {
        self.socket.send_to(&self.bytes, to).unwrap();
    }
}

/// Where everything must arrive.
struct Sinks {
    sockets: Vec<UdpSocket>,
    addresses: Vec<SocketAddrV4>,
    batch: Batch,
}

impl Sinks {
    fn open() -> Self {
        let sockets: Vec<_> = (0..OUTPUTS).map(|_| open()).collect();
        let addresses = sockets.iter().map(address).collect();
        Self { sockets, addresses, batch: Batch::new(BURST_MAX, SLOT_BYTES) }
    }

    /// The last one first: when it has everything, so have the others, and nobody had to be woken for each of them.
    fn drain(&mut self, burst: usize) {
        for socket in self.sockets.iter().rev() {
            assert_eq!(receive(&mut self.batch, socket, burst), burst, "datagrams were lost");
        }
    }
}

/// Pointless for one datagram.
const TRAINS: &str = "UDP_SEGMENT";
const OUTPUTS: usize = 50;
/// Datagrams at once: one at 20 Mb/s; what 400 Mb/s brings in 180 µs; close to the longest train the kernel takes.
const BURSTS: [usize; 3] = [1, 7, BURST_MAX];
const BURST_MAX: usize = 40;
const DATAGRAM_BYTES: usize = 1_316;
const SLOT_BYTES: usize = 2_048;
