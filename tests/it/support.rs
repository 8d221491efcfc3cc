//! What the tests share: free ports, senders and receivers of numbered packets, an engine with its events.
//!
//! Nothing here sleeps for a fixed time: whoever waits polls with a deadline, and senders wait for their receivers, so
//! that a busy machine makes a test slow and not red.

use std::cell::RefCell;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anabranch::adapters::clock;
use anabranch::bus::{Pool, PoolLimits};
use anabranch::engine::{
    ApplyError, Cause, Engine, EngineConfig, Event, EventKind, FailoverConfig, FlowConfig, FlowSnapshot, Mode,
    MonitorConfig, OutputConfig, OutputSnapshot, SourceConfig, SourceSnapshot, url,
};
use anabranch::path::AllowList;
use anabranch::sim::traffic::{Check, Numbered, Report};
use anabranch::units::{FlowId, Time};
use socket2::SockRef;

pub(crate) const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
pub(crate) const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// A packet of seven TS packets.
pub(crate) const TS: usize = 1_316;

/// Waits until `probe` has found something.
pub(crate) fn wait_for<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = clock::now() + PATIENCE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(clock::now() < deadline, "waited {PATIENCE:?} for {what}");
        std::thread::park_timeout(POLL);
    }
}

/// Waits until `probe` is true.
pub(crate) fn wait_until(what: &str, mut probe: impl FnMut() -> bool) {
    wait_for(what, || probe().then_some(()));
}

/// Lets `span` pass: for showing that something does not happen.
pub(crate) fn let_pass(span: Duration) {
    let end = clock::now() + span;
    while clock::now() < end {
        std::thread::park_timeout(end.since(clock::now()));
    }
}

/// An even port that is free, as is the next one. Below the range from which the system hands out ports, so that no
/// sender of another test takes it meanwhile.
pub(crate) fn free_port() -> u16 {
    free_block(1)
}

/// The first of so many pairs of free ports in a row.
pub(crate) fn free_block(pairs: usize) -> u16 {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let start = std::process::id() as usize * 97;
    for _ in 0..PORT_PAIRS {
        let pair = (start + NEXT.fetch_add(pairs, Ordering::Relaxed)) % PORT_PAIRS;
        if pair + pairs > PORT_PAIRS {
            continue;
        }
        let first = (PORT_FIRST + 2 * pair) as u16;
        if !(first..first + 2 * pairs as u16).any(is_bound) {
            return first;
        }
    }
    unreachable!("every port is taken")
}

/// Whether somebody has a UDP socket on the port. Reads the system's table: a socket that only tries the port would be copied
/// into every peer that is being started meanwhile, and hold the port until that peer runs.
pub(crate) fn is_bound(port: u16) -> bool {
    let mark = format!(":{port:04X} ");
    ["/proc/net/udp", "/proc/net/udp6"]
        .iter()
        .any(|table| fs::read_to_string(table).is_ok_and(|table| table.contains(&mark)))
}

/// A URL of this scheme, address and query.
pub(crate) fn url_of(scheme: &str, address: SocketAddr, query: &str) -> String {
    let mark = if query.is_empty() { "" } else { "?" };
    format!("{scheme}://{address}{mark}{query}")
}

pub(crate) fn udp(address: SocketAddr) -> String {
    url_of("udp", address, "")
}

/// A flow with sources `s1`, `s2`, … and outputs `o1`, `o2`, …
pub(crate) fn flow(
    sources: impl IntoIterator<Item = impl AsRef<str>>,
    outputs: impl IntoIterator<Item = impl AsRef<str>>,
) -> FlowConfig {
    FlowConfig {
        name: "test".into(),
        sources: sources.into_iter().enumerate().map(|(n, url)| source(&format!("s{}", n + 1), url.as_ref())).collect(),
        outputs: outputs.into_iter().enumerate().map(|(n, url)| output(&format!("o{}", n + 1), url.as_ref())).collect(),
        failover: FailoverConfig::default(),
        monitor: MonitorConfig::default(),
    }
}

pub(crate) fn source(name: &str, url: &str) -> SourceConfig {
    let endpoint = url::parse_source(url).unwrap();
    SourceConfig { name: name.parse().unwrap(), endpoint, allow: AllowList::default(), limit: None }
}

pub(crate) fn output(name: &str, url: &str) -> OutputConfig {
    let url::OutputUrl { endpoint, coalesce } = url::parse_output(url).unwrap();
    let coalesce = coalesce.unwrap_or_default();
    OutputConfig {
        name: name.parse().unwrap(),
        endpoint,
        enabled: true,
        coalesce,
        policy: anabranch::bus::LagPolicy::default(),
        limit: None,
        allow: AllowList::default(),
    }
}

/// An engine with one worker, its events, and a flow to work with.
pub(crate) struct Rig {
    pub(crate) engine: Engine,
    events: Arc<Mutex<Vec<Event>>>,
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self::with(&EngineConfig { workers: 1, ..EngineConfig::default() })
    }

    pub(crate) fn with(config: &EngineConfig) -> Self {
        let events = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&events);
        let engine = Engine::start(config, move |event| lock(&into).push(event)).unwrap();
        Self { engine, events }
    }

    pub(crate) fn try_apply(&self, id: &str, wanted: FlowConfig) -> Result<(), ApplyError> {
        self.engine.apply(&flow_id(id), wanted, Mode::Strict)
    }

    /// A port may be in use for a moment: a peer that another test starts holds copies of this process's sockets, closed ones
    /// too, until it runs.
    pub(crate) fn apply(&self, id: &str, wanted: FlowConfig) {
        wait_until("the ports", || {
            let applied = self.try_apply(id, wanted.clone());
            let is_held = matches!(applied, Err(ApplyError { cause: Cause::InUse { .. }, .. }));
            assert!(is_held || applied.is_ok(), "{applied:?}");
            applied.is_ok()
        });
    }

    pub(crate) fn apply_leniently(&self, id: &str, wanted: FlowConfig) {
        self.engine.apply(&flow_id(id), wanted, Mode::Lenient).unwrap();
    }

    pub(crate) fn stop(&self, id: &str) {
        assert!(self.engine.stop(&flow_id(id)), "{id} did not run");
    }

    pub(crate) fn snapshot(&self, id: &str) -> FlowSnapshot {
        self.engine.snapshot(&flow_id(id)).unwrap()
    }

    pub(crate) fn source(&self, id: &str, name: &str) -> SourceSnapshot {
        self.snapshot(id).sources.into_iter().find(|source| source.name.as_str() == name).unwrap()
    }

    pub(crate) fn output(&self, id: &str, name: &str) -> OutputSnapshot {
        self.snapshot(id).outputs.into_iter().find(|output| output.name.as_str() == name).unwrap()
    }

    /// What has happened to a flow so far.
    pub(crate) fn events(&self, id: &str) -> Vec<EventKind> {
        let events = lock(&self.events);
        events.iter().filter(|event| event.flow.as_str() == id).map(|event| event.kind.clone()).collect()
    }

    /// Waits for an event that is, or already was.
    pub(crate) fn wait_event(&self, id: &str, what: &str, is: impl Fn(&EventKind) -> bool) -> EventKind {
        wait_for(what, || self.events(id).into_iter().find(&is))
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.engine.shutdown();
    }
}

pub(crate) fn flow_id(id: &str) -> FlowId {
    id.parse().unwrap()
}

/// A socket with room for whatever a test sends at once.
pub(crate) fn roomy(address: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(address).unwrap();
    // The system caps the wish without an error.
    SockRef::from(&socket).set_recv_buffer_size(8 << 20).unwrap();
    socket
}

/// Receives on a thread of its own and checks numbered packets, or keeps what comes.
pub(crate) struct Sink {
    pub(crate) address: SocketAddr,
    state: Arc<(Mutex<Received>, Condvar)>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Received {
    count: u64,
    bytes: u64,
    check: Check,
    /// `None` if not wanted.
    kept: Option<Vec<Vec<u8>>>,
    latest: Option<Time>,
    longest_pause: Duration,
}

impl Sink {
    /// Checks numbered packets.
    pub(crate) fn new(ip: IpAddr) -> Self {
        Self::on(roomy((ip, free_port()).into()), Received::default())
    }

    /// Checks numbered packets at an address of the test's choice.
    pub(crate) fn new_at(address: SocketAddr) -> Self {
        Self::checking_on(roomy(address))
    }

    /// Keeps every datagram.
    pub(crate) fn keeping(ip: IpAddr) -> Self {
        Self::keeping_on(roomy((ip, free_port()).into()))
    }

    pub(crate) fn keeping_on(socket: UdpSocket) -> Self {
        Self::on(socket, Received { kept: Some(Vec::new()), ..Received::default() })
    }

    pub(crate) fn checking_on(socket: UdpSocket) -> Self {
        Self::on(socket, Received::default())
    }

    fn on(socket: UdpSocket, received: Received) -> Self {
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let address = socket.local_addr().unwrap();
        let (state, stop) = (Arc::new((Mutex::new(received), Condvar::new())), Arc::new(AtomicBool::new(false)));
        let (into, ended) = (Arc::clone(&state), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while !ended.load(Ordering::Relaxed) {
                let Ok(len) = socket.recv(&mut buffer) else { continue };
                lock(&into.0).take(&buffer[..len]);
                into.1.notify_all();
            }
        });
        Self { address, state, stop, thread: Some(thread) }
    }

    pub(crate) fn url(&self) -> String {
        udp(self.address)
    }

    /// Datagrams so far.
    pub(crate) fn count(&self) -> u64 {
        lock(&self.state.0).count
    }

    pub(crate) fn bytes(&self) -> u64 {
        lock(&self.state.0).bytes
    }

    /// Waits for the datagram of this number, counted from one.
    pub(crate) fn wait(&self, count: u64) {
        let (received, changed) = (lock(&self.state.0), &self.state.1);
        let (received, timeout) =
            changed.wait_timeout_while(received, PATIENCE, |received| received.count < count).unwrap();
        assert!(!timeout.timed_out(), "{} of {count} datagrams came to {}", received.count, self.address);
    }

    /// What became of the first `made` packets.
    pub(crate) fn report(&self, made: u64) -> Report {
        lock(&self.state.0).check.report(made)
    }

    /// The highest number that came, and how many came from the number `first` on.
    pub(crate) fn range_from(&self, first: u64) -> (Option<u64>, u64) {
        let received = lock(&self.state.0);
        (received.check.highest(), received.check.received_from(first))
    }

    /// The longest time between two datagrams since this was last asked.
    pub(crate) fn take_longest_pause(&self) -> Duration {
        std::mem::take(&mut lock(&self.state.0).longest_pause)
    }

    /// Waits for `made` packets and asserts that each came once, in order and as it was sent.
    pub(crate) fn assert_perfect(&self, made: u64) {
        self.wait(made);
        assert_eq!(self.report(made), perfect(made), "at {}", self.address);
    }

    /// Everything that came.
    pub(crate) fn kept(&self) -> Vec<Vec<u8>> {
        lock(&self.state.0).kept.clone().unwrap_or_default()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the thread at once; where that does not arrive, its timeout will.
        let local = if self.address.is_ipv4() { V4 } else { V6 };
        if let Ok(socket) = UdpSocket::bind((local, 0)) {
            let _ = socket.send_to(&[], self.address);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Received {
    fn take(&mut self, datagram: &[u8]) {
        self.count += 1;
        self.bytes += datagram.len() as u64;
        let now = clock::now();
        let pause = self.latest.replace(now).map_or(Duration::ZERO, |latest| now.since(latest));
        self.longest_pause = self.longest_pause.max(pause);
        match &mut self.kept {
            Some(kept) => kept.push(datagram.to_vec()),
            None => self.check.handle(datagram),
        }
    }
}

pub(crate) fn perfect(received: u64) -> Report {
    Report { received, ..Report::default() }
}

/// Sends numbered packets.
pub(crate) struct Feed {
    pub(crate) socket: UdpSocket,
    numbered: Numbered,
    pool: Pool,
}

impl Feed {
    /// From a port that the system chooses to `target`.
    pub(crate) fn new(target: SocketAddr, bytes: usize) -> Self {
        let local = if target.is_ipv4() { V4 } else { V6 };
        Self::from(UdpSocket::bind((local, 0)).unwrap(), target, bytes)
    }

    pub(crate) fn from(socket: UdpSocket, target: SocketAddr, bytes: usize) -> Self {
        socket.connect(target).unwrap();
        SockRef::from(&socket).set_send_buffer_size(4 << 20).unwrap();
        Self { socket, numbered: Numbered::new(bytes), pool: Pool::new(PoolLimits::default()) }
    }

    pub(crate) const fn made(&self) -> u64 {
        self.numbered.made()
    }

    /// The next packet's bytes.
    pub(crate) fn next(&mut self) -> Vec<u8> {
        self.numbered.packet(&self.pool, clock::now()).unwrap().to_vec()
    }

    /// Sends the next one.
    pub(crate) fn send(&mut self) {
        let datagram = self.next();
        // What an earlier datagram brought back is not this one's concern.
        if self.socket.send(&datagram).is_err() {
            self.socket.send(&datagram).unwrap();
        }
    }

    /// Sends `count` packets, never more than some dozens ahead of the slowest of `sinks`, and waits for the last.
    pub(crate) fn send_to_all(&mut self, count: u64, sinks: &[&Sink]) {
        let before: Vec<u64> = sinks.iter().map(|sink| sink.count()).collect();
        let wait = |sent| sinks.iter().zip(&before).for_each(|(sink, before)| sink.wait(before + sent));
        for sent in 1..=count {
            self.send();
            if sent % 16 == 0 {
                wait(sent.saturating_sub(WINDOW));
            }
        }
        wait(count);
    }

    /// Sends one packet every `interval` until it has made `until`.
    pub(crate) fn run_until(mut self, interval: Duration, until: u64) -> Self {
        let mut due = clock::now();
        while self.made() < until {
            self.send();
            due = pause(due, interval);
        }
        self
    }

    /// Sends one packet every `interval` until told to stop.
    pub(crate) fn run(mut self, interval: Duration) -> RunningFeed {
        let stop = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut due = clock::now();
            while !ended.load(Ordering::Relaxed) {
                self.send();
                due = pause(due, interval);
            }
            self
        });
        RunningFeed { stop, thread: Some(thread) }
    }
}

/// Waits for the moment after `due`. After a pause of the machine it goes on at its pace; a burst would be another test.
fn pause(due: Time, interval: Duration) -> Time {
    let due = (due + interval).max(clock::now());
    while clock::now() < due {
        std::thread::park_timeout(due.since(clock::now()));
    }
    due
}

/// A feed on a thread of its own.
pub(crate) struct RunningFeed {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Feed>>,
}

impl RunningFeed {
    /// Ends it and gives back the feed, which knows how many it made.
    pub(crate) fn stop(mut self) -> Feed {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for RunningFeed {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Runs `body` in a process of its own, where nothing else counts descriptors, memory or wake-ups: the test named `test`
/// starts this program again for itself alone.
pub(crate) fn alone(test: &str, body: impl FnOnce()) {
    if std::env::var_os(ALONE).is_some_and(|name| name == test) {
        return body();
    }
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(ALONE, test)
        .status()
        .unwrap();
    assert!(status.success(), "{test} failed in its own process: {status}");
}

/// Repeats a case that failed and had an excuse: a busy machine makes a test slow and not red.
pub(crate) fn patiently(run: impl Fn()) {
    for left in (0..REPEATED_MAX).rev() {
        EXCUSE.set(None);
        let Err(failure) = catch_unwind(AssertUnwindSafe(&run)) else { return };
        match EXCUSE.take() {
            Some(excuse) if left > 0 => eprintln!("repeated: {excuse}"),
            _ => resume_unwind(failure),
        }
    }
}

/// From here on a failure of this thread's case may be due to somebody else.
pub(crate) fn excuse(why: impl FnOnce() -> String) {
    EXCUSE.with_borrow_mut(|excuse| {
        excuse.get_or_insert_with(why);
    });
}

/// The same, if packets paused for longer than `most`, which only happens where there is too much to do: within the time that
/// a buffer gives nobody can then be asked, nor answer, often enough.
pub(crate) fn excuse_pause(pause: Duration, most: Duration) {
    if pause > most {
        excuse(|| format!("the machine paused for {pause:?}"));
    }
}

thread_local! {
    static EXCUSE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Says that a test, or a part of it, was not run.
pub(crate) fn skipped(why: &str) {
    eprintln!("SKIPPED: {why}");
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Longest wait for anything. Far beyond what a healthy run needs, so that only a real failure reaches it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(2);
const ALONE: &str = "ANABRANCH_TEST_ALONE";
const PORT_FIRST: usize = 10_000;
const PORT_PAIRS: usize = 11_000;
/// Packets that a feed may be ahead of its sinks: half of them fit the smallest receive buffer that systems grant.
const WINDOW: u64 = 64;
const REPEATED_MAX: u32 = 6;
