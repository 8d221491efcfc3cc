//! CPU time per packet of whole flows with legs (SMPTE ST 2022-7) over loopback sockets: several RTP sources merged into one
//! output, and one source sent over several legs.
//!
//! As in `fanout`, a burst is fed in as one train, everything that must come of it is drained before the next one, and
//! what is timed is the CPU of all threads of this process but the one that feeds and drains. `merge` has the core alone.
#![allow(clippy::unwrap_used, reason = "a bench that cannot go on may panic")]

mod burst;
#[allow(dead_code, reason = "shared with the benchmark of peers, which needs more of it")]
#[path = "peers/sys.rs"]
mod sys;

use std::net::{SocketAddrV4, UdpSocket};
use std::time::Duration;

use anabranch::adapters::clock;
use anabranch::engine::{
    Engine, EngineConfig, FailoverConfig, FailoverMode, FlowConfig, MergeConfig, Mode, MonitorConfig, OutputConfig,
    SourceConfig, url,
};
use anabranch::path::AllowList;
use anabranch::proto::rtp::{HEADER_BYTES, Header};
use anabranch::units::Seq;
use burst::{LOST_AFTER, address, cpu_of_others_ns, cut_into_datagrams, open, receive};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use sys::Batch;

criterion_group!(benches, merged, sent);
criterion_main!(benches);

fn merged(criterion: &mut Criterion) {
    run(criterion, "merged flow", |legs| {
        let sources: Vec<SocketAddrV4> = (0..legs).map(|_| free_pair()).collect();
        let sink = open();
        let urls = sources.iter().map(|source| format!("rtp://{source}")).collect();
        let engine = start(urls, &format!("udp://{}", address(&sink)));
        Bench { feeds: sources.into_iter().map(Feed::new).collect(), sinks: vec![sink], _engine: engine }
    });
}

fn sent(criterion: &mut Criterion) {
    run(criterion, "output over legs", |legs| {
        let sinks: Vec<UdpSocket> = (0..legs).map(|_| open()).collect();
        let source = free_pair();
        let further: String = sinks.iter().skip(1).map(|sink| format!("&leg={}", address(sink))).collect();
        let engine = start(vec![format!("rtp://{source}")], &format!("rtp://{}?ttl=1{further}", address(&sinks[0])));
        Bench { feeds: vec![Feed::new(source)], sinks, _engine: engine }
    });
}

fn run(criterion: &mut Criterion, name: &str, make: impl Fn(usize) -> Bench) {
    let mut group = criterion.benchmark_group(name);
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(1));
    for burst in [7, BURST_MAX] {
        for legs in [1, 2, 4] {
            let mut bench = None;
            group.bench_function(BenchmarkId::new(format!("{legs} legs"), format!("bursts of {burst}")), |bencher| {
                let bench = bench.get_or_insert_with(|| make(legs).warm());
                bencher.iter_custom(|wanted| {
                    let rounds = wanted.div_ceil(burst as u64);
                    let spent_ns = bench.rounds(burst, rounds);
                    let scaled_ns = u128::from(spent_ns) * u128::from(wanted) / u128::from(rounds * burst as u64);
                    Duration::from_nanos(scaled_ns as u64)
                });
            });
        }
    }
}

/// A flow at work, what feeds it, and where everything must arrive.
struct Bench {
    feeds: Vec<Feed>,
    sinks: Vec<UdpSocket>,
    /// Runs for as long as it is held.
    _engine: Engine,
}

impl Bench {
    /// Until receivers believe in the sender and sources are merged.
    fn warm(mut self) -> Self {
        for _ in 0..100 {
            self.feed(BURST_MAX);
            sys::sleep(Duration::from_millis(2));
        }
        let mut batch = Batch::new(BURST_MAX, SLOT_BYTES);
        for sink in &self.sinks {
            sink.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
            while batch.receive(sink, 0, true) > 0 {}
            sink.set_read_timeout(Some(LOST_AFTER)).unwrap();
        }
        self
    }

    /// CPU time that the flow spent, in nanoseconds.
    fn rounds(&mut self, burst: usize, rounds: u64) -> u64 {
        let mut batch = Batch::new(BURST_MAX, SLOT_BYTES);
        let start_ns = cpu_of_others_ns();
        for _ in 0..rounds {
            self.feed(burst);
            for sink in self.sinks.iter().rev() {
                assert_eq!(receive(&mut batch, sink, burst), burst, "datagrams were lost");
            }
        }
        cpu_of_others_ns() - start_ns
    }

    fn feed(&mut self, burst: usize) {
        // The same on all legs, and as far on as the time is.
        let timestamp = (clock::now().as_ns() * 9 / 100_000) as u32;
        let count = self.feeds.len() as u64;
        for (leg, feed) in (0..).zip(&mut self.feeds) {
            // Of 64 packets each of several legs loses another one.
            feed.send(burst, timestamp, |number| count > 1 && number % 64 == leg * 16);
        }
    }
}

/// Sends bursts of RTP packets that arrive at once.
struct Feed {
    socket: UdpSocket,
    to: SocketAddrV4,
    next: u64,
    bytes: Vec<u8>,
}

impl Feed {
    fn new(to: SocketAddrV4) -> Self {
        let socket = open();
        cut_into_datagrams(&socket, HEADER_BYTES + PAYLOAD_BYTES);
        Self { socket, to, next: 1_000, bytes: Vec::new() }
    }

    fn send(&mut self, burst: usize, timestamp: u32, loses: impl Fn(u64) -> bool) {
        self.bytes.clear();
        for number in self.next..self.next + burst as u64 {
            if loses(number) {
                continue;
            }
            let sequence = Seq::new(number as u32);
            let header = Header { marker: false, payload_type: 33, sequence, timestamp, ssrc: 7 };
            self.bytes.extend_from_slice(&header.to_bytes());
            self.bytes.extend_from_slice(&number.to_be_bytes().repeat(PAYLOAD_BYTES / 8 + 1)[..PAYLOAD_BYTES]);
        }
        self.next += burst as u64;
        self.socket.send_to(&self.bytes, self.to).unwrap();
    }
}

/// Merges where there is more than one source.
fn start(sources: Vec<String>, output: &str) -> Engine {
    let mode = if sources.len() > 1 { FailoverMode::Merge(MergeConfig::default()) } else { FailoverMode::Failover };
    let source = |(index, url): (usize, String)| SourceConfig {
        name: format!("source-{index}").parse().unwrap(),
        endpoint: url::parse_source(&url).unwrap(),
        allow: AllowList::default(),
        limit: None,
    };
    let output = OutputConfig {
        name: "output".parse().unwrap(),
        endpoint: url::parse_output(output).unwrap().endpoint,
        enabled: true,
        coalesce: Duration::ZERO,
        policy: anabranch::bus::LagPolicy::default(),
        limit: None,
        allow: AllowList::default(),
    };
    let flow = FlowConfig {
        name: "bench".into(),
        sources: sources.into_iter().enumerate().map(source).collect(),
        outputs: vec![output],
        failover: FailoverConfig { mode, ..FailoverConfig::default() },
        monitor: MonitorConfig::default(),
    };
    let engine = Engine::start(&EngineConfig { workers: 1, ..EngineConfig::default() }, |_| ()).unwrap();
    engine.apply(&"bench".parse().unwrap(), flow, Mode::Strict).unwrap();
    engine
}

/// An address whose port is free, as is the next one.
fn free_pair() -> SocketAddrV4 {
    loop {
        let socket = open();
        let port = address(&socket).port();
        if port < u16::MAX && UdpSocket::bind(("127.0.0.1", port + 1)).is_ok() {
            return address(&socket);
        }
    }
}

/// Close to the longest train the kernel takes.
const BURST_MAX: usize = 40;
const PAYLOAD_BYTES: usize = 1_316;
const SLOT_BYTES: usize = 2_048;
