//! RTMP on real sockets: computing time of ingest beside nginx-rtmp, latency from a publisher's message to the bus, memory of
//! publishers that are idle.
//!
//! `cargo bench --bench rtmp_live [-- --quick]`. Publishers, the engine and nginx run as processes of their own, so that each is
//! measured alone; nginx (`apt install libnginx-mod-rtmp`) is left out where it is not installed. A quiet machine is needed.
#![allow(clippy::unwrap_used, reason = "a bench that cannot go on may panic")]
#![allow(clippy::print_stdout, reason = "figures are what it is for")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::pin::pin;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use anabranch::adapters::clock;
use anabranch::bus::{LagPolicy, Meta, Pool, PoolLimits};
use anabranch::engine::{Engine, EngineConfig, FailoverConfig, FlowConfig, Mode, MonitorConfig, SourceConfig, url};
use anabranch::path::AllowList;
use anabranch::proto::bridge::FromTs;
use anabranch::proto::mpegts::{TestPicture, picture};
use anabranch::proto::rtmp::flv::{self, AccessUnit, Codec, Content};
use anabranch::proto::rtmp::{Client, ClientMessage, Config, Role, Target};
use anabranch::proto::{Core, StreamCore, Surroundings};
use anabranch::units::{Bitrate, Ticks90k, Time};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        // As a test of this target it only has to build.
        _ if words.contains(&"--test") => {}
        ["--engine", port, count] => serve(port.parse().unwrap(), count.parse().unwrap()),
        ["--publish", port, count, rate_mbps, seconds] => {
            publish(
                port.parse().unwrap(),
                count.parse().unwrap(),
                rate_mbps.parse().unwrap(),
                seconds.parse().unwrap(),
            );
        }
        _ => measure(words.contains(&"--quick")),
    }
}

fn measure(is_quick: bool) {
    let (rounds, seconds) = if is_quick { (1, 3) } else { (5, 20) };
    let load = || fs::read_to_string("/proc/loadavg").unwrap_or_default().split(' ').next().unwrap_or("?").to_owned();
    for round in 0..rounds {
        let port = free_port();
        let engine = EngineProcess::start(port, STREAMS);
        ingest("anabranch", round, seconds, port, engine.0.id(), &load());
        drop(engine);
        let port = free_port();
        if let Some(nginx) = Nginx::start(port) {
            ingest("nginx-rtmp", round, seconds, port, nginx.worker(), &load());
        }
    }
    for round in 0..rounds {
        let mut latencies = latencies(if is_quick { 75 } else { 750 });
        latencies.sort_unstable();
        let at = |per_mille: usize| latencies[(latencies.len() - 1) * per_mille / 1_000].as_micros();
        let (p50, p90, p99, most) = (at(500), at(900), at(990), at(1_000));
        let count = latencies.len();
        println!(
            "latency to the bus, 6 Mb/s, round {round}: p50 {p50} µs, p90 {p90} µs, p99 {p99} µs, most {most} µs, \
             {count} pictures, load {}",
            load()
        );
    }
    let count = if is_quick { 50 } else { 500 };
    println!("memory of {count} idle publishers: {:.1} KB each", idle_kib(count));
}

/// Computing time of a process while publishers send to it.
fn ingest(name: &str, round: usize, seconds: u64, port: u16, pid: u32, load: &str) {
    let mut publishers =
        again(&["--publish", &port.to_string(), &STREAMS.to_string(), RATE_MBPS, &seconds.to_string()]);
    let mut lines = BufReader::new(publishers.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    let before = cpu_ns(pid);
    let bytes: u64 = lines.next().unwrap().unwrap().parse().unwrap();
    let spent = Duration::from_nanos(cpu_ns(pid) - before);
    publishers.wait().unwrap();
    let gbit = bytes as f64 * 8.0 / 1e9;
    let each = spent.as_secs_f64() / gbit;
    println!("ingest, {name:<10}, round {round}: {each:.4} CPU s/Gbit, {gbit:.2} Gbit, load {load}");
}

/// This program once more.
fn again(arguments: &[&str]) -> Child {
    let program = std::env::current_exe().unwrap();
    Command::new(program).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}

/// Nanoseconds on a processor, of all threads (proc_pid_schedstat).
fn cpu_ns(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let spent = |path: &Path| fs::read_to_string(path.join("schedstat")).unwrap_or_default();
    tasks.filter_map(|task| spent(&task.unwrap().path()).split(' ').next()?.parse::<u64>().ok()).sum()
}

/// Resident memory in KiB.
fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The engine with so many flows, as a process.
struct EngineProcess(Child);

impl EngineProcess {
    fn start(port: u16, count: usize) -> Self {
        let mut child = again(&["--engine", &port.to_string(), &count.to_string()]);
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self(child)
    }
}

impl Drop for EngineProcess {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn serve(port: u16, count: usize) {
    let engine = engine(port, count);
    println!("ready");
    std::io::stdout().flush().unwrap();
    let _ = std::io::stdin().read(&mut [0]);
    engine.shutdown();
}

fn engine(port: u16, count: usize) -> Engine {
    let engine = Engine::start(&EngineConfig { workers: 1, ..EngineConfig::default() }, |_| ()).unwrap();
    for n in 0..count {
        let source = SourceConfig {
            name: "source".parse().unwrap(),
            endpoint: url::parse_source(&format!("rtmp://@127.0.0.1:{port}/live/key{n}")).unwrap(),
            allow: AllowList::default(),
            limit: None,
        };
        let flow = FlowConfig {
            name: "bench".into(),
            sources: vec![source],
            outputs: Vec::new(),
            failover: FailoverConfig::default(),
            monitor: MonitorConfig::default(),
        };
        engine.apply(&format!("flow{n}").parse().unwrap(), flow, Mode::Strict).unwrap();
    }
    engine
}

/// nginx with its RTMP module, as a process with one worker.
struct Nginx(Child, #[allow(dead_code, reason = "goes with it")] tempfile::TempDir);

impl Nginx {
    fn start(port: u16) -> Option<Self> {
        let module = "/usr/lib/nginx/modules/ngx_rtmp_module.so";
        if !Path::new(module).exists() {
            println!("!! nginx-rtmp is not installed: its rows are missing");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let home = directory.path().display();
        let config = format!(
            "load_module {module}; daemon off; worker_processes 1; pid {home}/pid; error_log {home}/error.log; \
             events {{}} rtmp {{ server {{ listen 127.0.0.1:{port}; chunk_size 60000; application live {{ live on; }} }} }}"
        );
        fs::write(directory.path().join("nginx.conf"), config).unwrap();
        let (conf, log) = (format!("{home}/nginx.conf"), format!("{home}/error.log"));
        let child = Command::new("nginx").args(["-c", &conf, "-e", &log]).spawn().unwrap();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::park_timeout(Duration::from_millis(10));
        }
        Some(Self(child, directory))
    }

    fn worker(&self) -> u32 {
        let pid = self.0.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        children.split_whitespace().next().unwrap().parse().unwrap()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

/// A client of ours on a blocking socket.
struct Publisher {
    stream: TcpStream,
    core: Client,
}

impl Publisher {
    fn new(port: u16, key: &str) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let target = Target { tc_url: format!("rtmp://{address}/live"), app: "live".into(), key: key.into() };
        let mut core = Client::new(Time::ZERO, Config::default(), Role::Publisher, target, 1);
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        let pool = Pool::new(PoolLimits::default());
        loop {
            let said = core.poll_message();
            flush(&mut core, &mut stream);
            match said {
                Some(ClientMessage::Ready) => return Self { stream, core },
                Some(said) => panic!("{said:?}"),
                None => {
                    let mut buffer = [0; 1_024];
                    let len = stream.read(&mut buffer).unwrap();
                    assert!(len > 0, "not let in");
                    core.handle_bytes(Time::ZERO, pool.copy(&buffer[..len], Meta::default()).unwrap());
                }
            }
        }
    }

    fn send(&mut self, unit: &AccessUnit) {
        self.core.send(&flv::write(unit)).unwrap();
        flush(&mut self.core, &mut self.stream);
    }
}

fn flush(core: &mut Client, stream: &mut TcpStream) {
    let mut bytes = Vec::new();
    while let Some(piece) = core.poll_transmit() {
        bytes.extend_from_slice(&piece.header);
        bytes.extend_from_slice(&piece.payload);
    }
    stream.write_all(&bytes).unwrap();
}

/// Pictures of 25 Hz at this rate, from one thread for all streams.
fn publish(port: u16, count: usize, rate_mbps: usize, seconds: u64) {
    let mut publishers: Vec<Publisher> = (0..count).map(|n| Publisher::new(port, &format!("key{n}"))).collect();
    let header = header();
    publishers.iter_mut().for_each(|publisher| publisher.send(&header));
    println!("ready");
    std::io::stdout().flush().unwrap();
    let (start, mut bytes) = (clock::now(), 0);
    for n in 0..seconds * 25 {
        wait_until(start + PICTURE * n as u32);
        let unit = unit(n, rate_mbps * 1_000_000 / 8 / 25);
        for publisher in &mut publishers {
            publisher.send(&unit);
            bytes += unit.bytes.len();
        }
    }
    // What the kernel holds is taken in.
    std::thread::park_timeout(Duration::from_millis(100));
    println!("{bytes}");
}

fn wait_until(due: Time) {
    while clock::now() < due {
        std::thread::park_timeout(due.since(clock::now()));
    }
}

/// What a decoder would need for the pictures: those of the test picture.
fn header() -> AccessUnit {
    let surroundings = Surroundings { pool: Pool::new(PoolLimits::default()), seed: 0, unix_ns_at_zero: 0 };
    let mut signal = TestPicture::new(picture::Config::new(Bitrate::from_bps(2_000_000)).unwrap(), &surroundings);
    let (mut from_ts, mut now) = (FromTs::new(), Time::ZERO);
    loop {
        signal.handle_timeout(now);
        while let Some(packet) = signal.poll_packet() {
            from_ts.handle_packet(now, &packet);
        }
        if let Some(header) = std::iter::from_fn(|| from_ts.poll_unit()).find(|unit| unit.content == Content::Header) {
            return AccessUnit { dts: Ticks90k(0), pts: Ticks90k(0), ..header };
        }
        now += Duration::from_millis(10);
    }
}

/// A picture that is nothing but its number, again and again.
fn unit(number: u64, len: usize) -> AccessUnit {
    let (content, kind) = if number.is_multiple_of(25) { (Content::KeyFrame, 0x65) } else { (Content::Frame, 0x41) };
    let mut bytes = ((len - 4) as u32).to_be_bytes().to_vec();
    bytes.extend([kind, 0x88]);
    bytes.extend(mark(number).into_iter().cycle().take(len - bytes.len()));
    let at = Ticks90k(number * 3_600);
    AccessUnit { track: 0, codec: Codec::H264, content, dts: at, pts: at, bytes: bytes.into() }
}

/// Bytes that are no start code, whatever follows.
fn mark(number: u64) -> [u8; 4] {
    [0xa5, 0x80 | (number >> 14) as u8, 0x80 | (number >> 7) as u8, 0x80 | number as u8]
}

/// From before a picture is sent until its last packet is on the bus and read there by somebody who waits for it.
fn latencies(count: u64) -> Vec<Duration> {
    let port = free_port();
    let engine = engine(port, 1);
    let mut subscriber = engine.subscribe(&"flow0".parse().unwrap()).unwrap().subscriber(LagPolicy::DropOldest);
    let reader = std::thread::spawn(move || {
        let mut came = vec![Time::ZERO; count as usize];
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        loop {
            let received = {
                let mut next = pin!(subscriber.recv());
                loop {
                    match next.as_mut().poll(&mut Context::from_waker(&waker)) {
                        Poll::Ready(received) => break received,
                        Poll::Pending => std::thread::park(),
                    }
                }
            };
            let Ok(packet) = received else { return came };
            let now = clock::now();
            for ts in packet.chunks_exact(188) {
                // Of one that has the end of a picture the stuffing comes first, and its number is behind that.
                let Some(at) = ts
                    .iter()
                    .rposition(|byte| *byte == 0xa5)
                    .filter(|at| at + 4 <= ts.len())
                    .or_else(|| ts[..185].iter().rposition(|byte| *byte == 0xa5))
                else {
                    continue;
                };
                let Some([_, high, middle, low]) = ts.get(at..at + 4).and_then(<[u8]>::first_chunk) else { continue };
                let number = u64::from(high & 0x7f) << 14 | u64::from(middle & 0x7f) << 7 | u64::from(low & 0x7f);
                if let Some(cell) = came.get_mut(number as usize).filter(|_| high & middle & low & 0x80 != 0) {
                    *cell = now;
                }
            }
        }
    });
    let mut publisher = Publisher::new(port, "key0");
    publisher.send(&header());
    let (start, mut sent) = (clock::now(), Vec::new());
    for n in 0..count {
        wait_until(start + PICTURE * n as u32);
        let unit = unit(n, 6_000_000 / 8 / 25);
        sent.push(clock::now());
        publisher.send(&unit);
    }
    wait_until(clock::now() + Duration::from_millis(200));
    engine.shutdown();
    let came = reader.join().unwrap();
    // The first ones come while everything is still being set up.
    let both = came.iter().zip(&sent).skip(25);
    both.filter(|(came, _)| **came > Time::ZERO).map(|(came, sent)| came.since(*sent)).collect()
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// What so many publishers who send nothing cost, each.
fn idle_kib(count: usize) -> f64 {
    let port = free_port();
    let engine = EngineProcess::start(port, count);
    let settled = || {
        std::thread::park_timeout(Duration::from_secs(1));
        resident_kib(engine.0.id())
    };
    let before = settled();
    let publishers: Vec<TcpStream> = (0..count).map(|n| Publisher::new(port, &format!("key{n}")).stream).collect();
    let after = settled();
    drop(publishers);
    after.saturating_sub(before) as f64 / count as f64
}

const STREAMS: usize = 16;
const RATE_MBPS: &str = "12";
const PICTURE: Duration = Duration::from_millis(40);
