//! RTMP on real sockets: computing time of ingest beside nginx-rtmp, latency from a publisher's message to the bus, memory of
//! publishers that are idle, with the feature `tls` over TLS as well.
//!
//! nginx does not multiplex: what it takes is compared to what we take for pictures of VP9, which no transport stream carries.
//!
//! `cargo bench --bench rtmp_live [-- --quick]`. Publishers, the engine and nginx run as processes of their own, so that each is
//! measured alone, the two servers in turns; nginx (`apt install libnginx-mod-rtmp`) is left out where it is not installed. Of
//! several rounds the tables have the middle one, and the range. A quiet machine is needed.
#![allow(clippy::unwrap_used, reason = "a bench that cannot go on may panic")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "figures are what it is for")]

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
use anabranch::bus::{LagPolicy, Pool, PoolLimits};
use anabranch::engine::{
    Engine, EngineConfig, FailoverConfig, FlowConfig, Mode, MonitorConfig, SourceConfig, SourceSnapshot, url,
};
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
        ["--engine", scheme, port, count] => serve(scheme, port.parse().unwrap(), count.parse().unwrap()),
        ["--publish", port, count, rate_mbps, seconds, chunk_bytes, pace, codec] => {
            let numbers = [count, rate_mbps, seconds, chunk_bytes].map(|number| number.parse().unwrap());
            let [streams, rate_mbps, seconds, chunk_bytes] = numbers;
            let codec = if codec == "vp9" { Codec::Vp9 } else { Codec::H264 };
            let is_paced = pace == "paced";
            publish(port.parse().unwrap(), Load { streams, rate_mbps, seconds, chunk_bytes, is_paced, codec });
        }
        _ => measure(words.contains(&"--quick")),
    }
}

/// What publishers send: so many streams at so many Mb/s, for so long by their own clocks, at the pace of these or as fast as
/// it is taken.
#[derive(Clone, Copy)]
struct Load {
    streams: usize,
    rate_mbps: usize,
    seconds: usize,
    chunk_bytes: usize,
    is_paced: bool,
    /// Of the pictures: H.264 becomes a transport stream, VP9 is received and left out.
    codec: Codec,
}

fn measure(is_quick: bool) {
    let (rounds, seconds, fast_seconds) = if is_quick { (1, 3, 60) } else { (5, 8, 330) };
    // Few streams show what bytes cost, many what streams do: each has a clock that is told 40 times a second.
    // Chunks are as ffmpeg sends them, and as OBS does.
    let loads = [
        (4, 50, seconds, 60_000, true),
        (16, 12, seconds, 60_000, true),
        (16, 12, seconds, 4_096, true),
        (1, 8, fast_seconds, 60_000, false),
    ];
    println!("| ingest, CPU s per Gbit | received | and multiplexed | nginx-rtmp, received | received / nginx-rtmp |");
    println!("|---|---|---|---|---|");
    for (streams, rate_mbps, seconds, chunk_bytes, is_paced) in loads {
        let load = Load { streams, rate_mbps, seconds, chunk_bytes, is_paced, codec: Codec::H264 };
        let (mut received, mut carried, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            for (codec, figures) in [(Codec::Vp9, &mut received), (Codec::H264, &mut carried)] {
                let engine = EngineProcess::start("rtmp", free_port(), streams);
                let (each, units) = ingest(Load { codec, ..load }, engine.port, engine.child.id());
                figures.push(each);
                engine.assert_taken(units);
            }
            if let Some(nginx) = Nginx::start(free_port()) {
                theirs.push(ingest(load, nginx.port, nginx.worker()).0);
            }
        }
        let pace = if is_paced { "" } else { ", as fast as they go" };
        let ratio = middle(&mut received) / middle(&mut theirs);
        let [received, carried, theirs] = [received, carried, theirs].map(|mut figures| range(&mut figures));
        println!(
            "| {streams} x {rate_mbps} Mb/s in chunks of {chunk_bytes}{pace} | {received} | {carried} | {theirs} | {ratio:.2} |"
        );
    }
    println!(
        "\n| from a publisher's message to the bus, 6 Mb/s | p50 µs | p90 µs | p99 µs | most µs |\n|---|---|---|---|---|"
    );
    for round in 0..rounds {
        let mut latencies = latencies(if is_quick { 75 } else { 750 });
        latencies.sort_unstable();
        let at = |per_mille: usize| latencies[(latencies.len() - 1) * per_mille / 1_000].as_micros();
        let (p50, p90, p99, most) = (at(500), at(900), at(990), at(1_000));
        println!("| {} pictures, round {round} | {p50} | {p90} | {p99} | {most} |", latencies.len());
    }
    println!("\n| idle publishers | KB of memory each |\n|---|---|");
    let schemes: &[&str] = if cfg!(feature = "tls") { &["rtmp", "rtmps"] } else { &["rtmp"] };
    for scheme in schemes {
        let each = idle_kib(scheme, IDLE);
        println!("| {IDLE} by {scheme} | {each:.1} |");
        assert!(each <= IDLE_KIB_MAX, "an idle publisher must not cost more than {IDLE_KIB_MAX} KiB");
    }
}

/// The figure in the middle; none of nothing.
fn middle(figures: &mut [f64]) -> f64 {
    figures.sort_unstable_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// It, and the least and the greatest.
fn range(figures: &mut [f64]) -> String {
    let middle = middle(figures);
    match figures {
        [] => "-".to_owned(),
        [only] => format!("{only:.4}"),
        [least, .., most] => format!("{middle:.4} ({least:.4} to {most:.4})"),
    }
}

/// Computing time of a process for each Gbit while publishers send to it, and how many pictures and sounds those sent.
fn ingest(load: Load, port: u16, pid: u32) -> (f64, u64) {
    let Load { streams, rate_mbps, seconds, chunk_bytes, is_paced, codec } = load;
    let numbers = [usize::from(port), streams, rate_mbps, seconds, chunk_bytes].map(|number| number.to_string());
    let [port, streams, rate_mbps, seconds, chunk_bytes] = numbers.each_ref().map(String::as_str);
    let pace = if is_paced { "paced" } else { "fast" };
    let codec = if codec == Codec::Vp9 { "vp9" } else { "h264" };
    let mut publishers = again(&["--publish", port, streams, rate_mbps, seconds, chunk_bytes, pace, codec]);
    let mut lines = BufReader::new(publishers.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    let before = cpu_ns(pid);
    let mut number = || lines.next().unwrap().unwrap().parse::<u64>().unwrap();
    let (bytes, units) = (number(), number());
    let spent = Duration::from_nanos(cpu_ns(pid) - before);
    publishers.wait().unwrap();
    (spent.as_secs_f64() / (bytes as f64 * 8.0 / 1e9), units)
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
struct EngineProcess {
    child: Child,
    port: u16,
}

impl EngineProcess {
    fn start(scheme: &str, port: u16, count: usize) -> Self {
        let mut process = Self { child: again(&["--engine", scheme, &port.to_string(), &count.to_string()]), port };
        assert_eq!(process.says(), "ready");
        process
    }

    fn says(&mut self) -> String {
        let mut line = String::new();
        // It says a line at a time, when it is asked.
        BufReader::new(self.child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Whether everything that was sent came, and of H.264 went into streams.
    fn assert_taken(mut self, units: u64) {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        assert_eq!(self.says(), units.to_string(), "pictures and sounds that came");
    }
}

impl Drop for EngineProcess {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Says how many pictures and sounds all flows carried, or received of a codec that is not carried, when asked.
fn serve(scheme: &str, port: u16, count: usize) {
    let engine = engine(scheme, port, count);
    println!("ready");
    std::io::stdout().flush().unwrap();
    if std::io::stdin().read(&mut [0]).unwrap() > 0 {
        // Counters of detail are renewed once a second.
        wait_until(clock::now() + Duration::from_millis(1_500));
        let of_flow = |n: usize| {
            let flow = engine.snapshot(&format!("flow{n}").parse().unwrap()).unwrap();
            let of_source = |source: SourceSnapshot| {
                let carried = source.details.iter().find(|detail| detail.0 == "unitsCarried");
                carried.map_or(0.0, |detail| detail.1) + source.drops.unexpected as f64
            };
            flow.sources.into_iter().map(of_source).sum::<f64>()
        };
        println!("{}", (0..count).map(of_flow).sum::<f64>());
        let _ = std::io::stdin().read(&mut [0]);
    }
    engine.shutdown();
}

fn engine(scheme: &str, port: u16, count: usize) -> Engine {
    let engine = Engine::start(&EngineConfig { workers: 1, ..EngineConfig::default() }, |_| ()).unwrap();
    let tls = if scheme == "rtmps" { format!("?tls_cert={TLS}/cert.pem&tls_key={TLS}/key.pem") } else { String::new() };
    for n in 0..count {
        let source = SourceConfig {
            name: "source".parse().unwrap(),
            endpoint: url::parse_source(&format!("{scheme}://@127.0.0.1:{port}/live/key{n}{tls}")).unwrap(),
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
struct Nginx {
    child: Child,
    port: u16,
    #[allow(dead_code, reason = "goes with it")]
    directory: tempfile::TempDir,
}

impl Nginx {
    fn start(port: u16) -> Option<Self> {
        let module = "/usr/lib/nginx/modules/ngx_rtmp_module.so";
        if !Path::new(module).exists() {
            eprintln!("!! nginx-rtmp is not installed: its figures are missing");
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
        Some(Self { child, port, directory })
    }

    fn worker(&self) -> u32 {
        let pid = self.child.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        children.split_whitespace().next().unwrap().parse().unwrap()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

/// A client of ours on a blocking socket.
struct Publisher {
    stream: Box<dyn Wire>,
    core: Client,
}

trait Wire: Read + Write {}

impl<T: Read + Write> Wire for T {}

impl Publisher {
    fn new(scheme: &str, port: u16, key: &str, config: Config) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let target = Target { tc_url: format!("{scheme}://{address}/live"), app: "live".into(), key: key.into() };
        let mut core = Client::new(Time::ZERO, config, Role::Publisher, target, 1);
        let mut stream = connect(scheme, address);
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
                    core.handle_bytes(Time::ZERO, buffer[..len].into());
                }
            }
        }
    }

    fn send(&mut self, unit: &AccessUnit) {
        self.core.send(&flv::write(unit)).unwrap();
        flush(&mut self.core, &mut self.stream);
    }
}

fn connect(scheme: &str, address: SocketAddr) -> Box<dyn Wire> {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    #[cfg(feature = "tls")]
    if scheme == "rtmps" {
        return Box::new(secure(stream));
    }
    assert_eq!(scheme, "rtmp");
    Box::new(stream)
}

#[cfg(feature = "tls")]
fn secure(stream: TcpStream) -> impl Wire {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(format!("{TLS}/ca.pem")).unwrap()).unwrap();
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let session = rustls::ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    rustls::StreamOwned::new(session, stream)
}

fn flush(core: &mut Client, stream: &mut impl Write) {
    let mut bytes = Vec::new();
    while let Some(piece) = core.poll_transmit() {
        bytes.extend_from_slice(&piece.header);
        bytes.extend_from_slice(&piece.payload);
    }
    stream.write_all(&bytes).unwrap();
}

/// Pictures of 25 Hz at this rate, from one thread for all streams; what is not paced has sound as well.
fn publish(port: u16, load: Load) {
    let Load { streams, rate_mbps, seconds, chunk_bytes, is_paced, codec } = load;
    let config = Config { chunk_bytes: chunk_bytes as u32, ..Config::default() };
    let mut publishers: Vec<Publisher> =
        (0..streams).map(|n| Publisher::new("rtmp", port, &format!("key{n}"), config)).collect();
    let sound = |content, number: u64, bytes: &[u8]| {
        let at = Ticks90k(number * 1_800);
        AccessUnit { track: 0, codec: Codec::Aac, content, dts: at, pts: at, bytes: bytes.to_vec().into() }
    };
    // AAC-LC, 48 kHz, two channels.
    let headers = [AccessUnit { codec, ..header() }, sound(Content::Header, 0, &[0x11, 0x90])];
    // Sound without its header is received and left out as well.
    let headers = if codec == Codec::Vp9 { &headers[..1] } else { &headers };
    publishers.iter_mut().for_each(|publisher| headers.iter().for_each(|header| publisher.send(header)));
    println!("ready");
    std::io::stdout().flush().unwrap();
    let (start, mut bytes, mut sent) = (clock::now(), 0, 0);
    for n in 0..seconds as u64 * 25 {
        if is_paced {
            wait_until(start + PICTURE * n as u32);
        }
        let picture = AccessUnit { codec, ..unit(n, rate_mbps * 1_000_000 / 8 / 25) };
        let sounds = (0..2).map(|half| sound(Content::KeyFrame, 2 * n + half, &SOUND));
        let units: Vec<AccessUnit> = std::iter::once(picture).chain(sounds.filter(|_| !is_paced)).collect();
        for publisher in &mut publishers {
            units.iter().for_each(|unit| publisher.send(unit));
            bytes += units.iter().map(|unit| unit.bytes.len()).sum::<usize>();
            sent += units.len();
        }
    }
    // What the kernel holds is taken in.
    std::thread::park_timeout(Duration::from_millis(100));
    println!("{bytes}\n{sent}");
    std::io::stdout().flush().unwrap();
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
    let engine = engine("rtmp", port, 1);
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
    let mut publisher = Publisher::new("rtmp", port, "key0", Config::default());
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

/// What so many publishers who send nothing cost, each. They come one after the other: a port hears few callers of one network
/// at a time.
fn idle_kib(scheme: &str, count: usize) -> f64 {
    let engine = EngineProcess::start(scheme, free_port(), count);
    let settled = || {
        std::thread::park_timeout(Duration::from_secs(1));
        resident_kib(engine.child.id())
    };
    let before = settled();
    let publishers: Vec<Publisher> =
        (0..count).map(|n| Publisher::new(scheme, engine.port, &format!("key{n}"), Config::default())).collect();
    let after = settled();
    drop(publishers);
    after.saturating_sub(before) as f64 / count as f64
}

const PICTURE: Duration = Duration::from_millis(40);
/// A frame of AAC at 136 kb/s.
const SOUND: [u8; 340] = [7; 340];
/// Publishers who send nothing, and what each may cost.
const IDLE: usize = 500;
const IDLE_KIB_MAX: f64 = 64.0;
/// A certificate for this machine, its key, and whoever signed it.
const TLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tls");
