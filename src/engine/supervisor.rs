//! Applies steps, opens again what failed, and tells what happens: one thread.
//!
//! The supervisor owns what is wanted and what runs. Everybody else sends it messages; the workers' are events and never
//! wait. It is the only one to talk to workers, so a flow changes in one place.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, ThreadId};
use std::time::Duration;

#[cfg(not(feature = "media"))]
use super::blind::{FlowEyes, Watching};
use super::config::FlowConfig;
use super::error::{ApplyError, Cause, Field};
use super::event::{Event, EventKind};
#[cfg(feature = "media")]
use super::eyes::{FlowEyes, Watching};
use super::flow::RunningFlow;
use super::managed::ManagedFlow;
use super::resolver::{Addresses, Resolver};
use super::stats::FlowSnapshot;
#[cfg(feature = "media")]
use super::stats::WatchSnapshot;
#[cfg(feature = "media")]
use crate::adapters::watchers::WatchersConfig;
use crate::adapters::{AcceptHook, Commands, IoKind, OpenError, Ports, Worker, clock, raise_descriptor_limit};
use crate::bus::{Pool, PoolLimits, PoolUse, Subscribe};
use crate::units::{FlowId, OutputName, Time};

/// How an engine is built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineConfig {
    /// Worker threads; zero for one per processor.
    pub workers: usize,
    /// Most flows that may run at once.
    pub flows_max: usize,
    /// Packets that each flow's ring holds: what an output may fall behind before it loses some. Rounded up to a
    /// power of two.
    pub ring_packets: usize,
    /// Bounds of the buffer pool that all flows share.
    pub pool: PoolLimits,
    /// Which way datagrams take.
    pub io: IoKind,
    /// Who is asked about everybody who calls on an RTMP port and knows the name of a stream.
    pub accept: Option<AcceptHook>,
    /// How pictures and sound of all flows are watched.
    #[cfg(feature = "media")]
    pub watchers: WatchersConfig,
}

impl Default for EngineConfig {
    /// A ring of 1,024 packets is half a second at 20 Mb/s and 27 ms at 400 Mb/s.
    fn default() -> Self {
        Self {
            workers: 0,
            flows_max: 1_000,
            ring_packets: 1_024,
            pool: PoolLimits::default(),
            io: IoKind::Best,
            accept: None,
            #[cfg(feature = "media")]
            watchers: WatchersConfig::default(),
        }
    }
}

/// What [`Engine::apply`] does when something cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Refuses the whole and changes nothing: for somebody who waits for the answer. Only where a source shall be
    /// replaced on a port that it holds itself, it must be closed to find out; it is then opened again.
    Strict,
    /// Runs what can be opened and tries the rest again and again: for start-up.
    Lenient,
}

/// Why an engine could not start.
#[derive(Debug, thiserror::Error)]
#[error("the engine cannot start a thread: {0}")]
pub struct StartError(#[from] io::Error);

/// Runs flows. Clones are handles of the same engine; the last one dropped ends it.
#[derive(Clone)]
pub struct Engine(Arc<Handle>);

struct Handle {
    inbox: SyncSender<Message>,
    flows: Flows,
    pool: Pool,
    thread: Mutex<Option<JoinHandle<()>>>,
    supervisor: ThreadId,
    /// Tells the supervisor to end after the message at hand.
    ending: Arc<AtomicBool>,
}

/// Every running flow. The map is locked for look-ups only; a flow by whoever copies its counters, and by the supervisor
/// while it changes the flow. Nobody outside is called meanwhile.
type Flows = Arc<Mutex<BTreeMap<FlowId, Arc<Mutex<ManagedFlow>>>>>;

/// What the supervisor can be told.
pub(super) enum Message {
    Apply {
        id: FlowId,
        wanted: Box<Wanted>,
        reply: SyncSender<Result<(), ApplyError>>,
    },
    Stop {
        id: FlowId,
        reply: SyncSender<Option<FlowSnapshot>>,
    },
    Happened(Event),
    /// What an output sends is refused, and not because nobody listens: opening it anew may help.
    SendFails {
        flow: FlowId,
        output: OutputName,
    },
    /// A fault of ours took the flow off its worker.
    Crashed {
        flow: FlowId,
    },
    LookedUp {
        flow: FlowId,
        name: String,
        answer: Result<IpAddr, OpenError>,
    },
    Shutdown,
}

/// A configuration and what is needed to apply it.
pub(super) struct Wanted {
    pub(super) config: FlowConfig,
    pub(super) mode: Mode,
    pub(super) addresses: Addresses,
}

impl Engine {
    /// Starts the workers and the supervisor. `on_event` is called on the supervisor's thread: it should not block, and
    /// must not call [`Engine::apply`], [`Engine::stop`] or [`Engine::finish`], which wait for that thread. Everything
    /// else may be called from it, and the engine may end in it.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub fn start(config: &EngineConfig, on_event: impl Fn(Event) + Send + 'static) -> Result<Self, StartError> {
        raise_descriptor_limit();
        let pool = Pool::new(config.pool);
        let count = match config.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            count => count,
        };
        let workers: Result<Vec<Worker<RunningFlow>>, io::Error> =
            (0..count).map(|n| Worker::spawn(&format!("worker-{n}"), config.io, pool.clone())).collect();
        let (inbox, messages) = sync_channel(MESSAGES_MAX);
        let flows = Flows::default();
        let ending = Arc::new(AtomicBool::new(false));
        let supervisor = Supervisor {
            workers: workers?,
            flows: Arc::clone(&flows),
            config: config.clone(),
            pool: pool.clone(),
            ports: Ports::new(config.accept.clone()),
            resolver: Resolver::start(inbox.clone())?,
            watching: Watching::new(config, inbox.clone()),
            inbox: inbox.clone(),
            crashed: BTreeMap::new(),
            ending: Arc::clone(&ending),
            on_event: Box::new(on_event),
        };
        let thread = std::thread::Builder::new().name("supervisor".into()).spawn(move || supervisor.run(&messages))?;
        let supervisor = thread.thread().id();
        Ok(Self(Arc::new(Handle { inbox, flows, pool, thread: Mutex::new(Some(thread)), supervisor, ending })))
    }

    /// Says what is wanted of a flow: starts it, or changes what differs. Blocks until it is done: some
    /// milliseconds, and for as long as it takes to look names up if the mode is strict.
    ///
    /// # Errors
    /// The part that is wrong or could not be opened; then nothing has changed.
    pub fn apply(&self, id: &FlowId, wanted: FlowConfig, mode: Mode) -> Result<(), ApplyError> {
        let mut addresses = Addresses::default();
        if mode == Mode::Strict {
            let running = lock(&self.0.flows).get(id).cloned();
            let running = running.and_then(|flow| lock(&flow).config().cloned());
            addresses = Addresses::of(&wanted, running.as_ref());
        }
        let wanted = Box::new(Wanted { config: wanted, mode, addresses });
        let (reply, answer) = sync_channel(1);
        self.0.send(Message::Apply { id: id.clone(), wanted, reply });
        answer.recv().unwrap_or(Err(ApplyError { field: Field::Flow, cause: Cause::Closing }))
    }

    /// Ends a flow; false if it did not run.
    #[must_use = "says whether the flow ran"]
    pub fn stop(&self, id: &FlowId) -> bool {
        self.finish(id).is_some()
    }

    /// Ends a flow and tells what it counted to its very end; `None` if it did not run.
    #[must_use = "says what the flow counted"]
    pub fn finish(&self, id: &FlowId) -> Option<FlowSnapshot> {
        let (reply, answer) = sync_channel(1);
        self.0.send(Message::Stop { id: id.clone(), reply });
        answer.recv().ok().flatten()
    }

    /// What a running flow counts; `None` if it does not run.
    #[must_use]
    pub fn snapshot(&self, id: &FlowId) -> Option<FlowSnapshot> {
        let flow = lock(&self.0.flows).get(id).cloned()?;
        Some(lock(&flow).snapshot(clock::now()))
    }

    /// What all running flows count.
    #[must_use]
    pub fn snapshots(&self) -> Vec<(FlowId, FlowSnapshot)> {
        let flows: Vec<_> = lock(&self.0.flows).iter().map(|(id, flow)| (id.clone(), Arc::clone(flow))).collect();
        let now = clock::now();
        flows.into_iter().map(|(id, flow)| (id, lock(&flow).snapshot(now))).collect()
    }

    /// What is seen and heard of a running flow; `None` if it does not run, or nothing of it is watched.
    #[cfg(feature = "media")]
    #[must_use]
    pub fn watch(&self, id: &FlowId) -> Option<Box<WatchSnapshot>> {
        let flow = lock(&self.0.flows).get(id).cloned()?;
        lock(&flow).watch_snapshot()
    }

    /// Makes readers of a running flow's packets, for recorders, analysers and programs that embed the engine.
    #[must_use]
    pub fn subscribe(&self, id: &FlowId) -> Option<Subscribe> {
        let flow = lock(&self.0.flows).get(id).cloned()?;
        Some(lock(&flow).subscribe())
    }

    /// How much of the buffer pool is in use.
    #[must_use]
    pub fn pool_usage(&self) -> PoolUse {
        self.0.pool.usage()
    }

    /// Ends all flows and threads. Handles that are left answer as an engine without flows.
    pub fn shutdown(&self) {
        self.0.shutdown();
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("flows", &lock(&self.0.flows).len()).finish_non_exhaustive()
    }
}

impl Handle {
    fn send(&self, message: Message) {
        // Fails only after the end; then the reply's other end is dropped with the message, and the caller sees that.
        let _ = self.inbox.send(message);
    }

    fn shutdown(&self) {
        self.ending.store(true, Ordering::Release);
        if std::thread::current().id() == self.supervisor {
            // It cannot wait for itself: it ends when the callback that brought us here is done.
            return;
        }
        // Held until the end, so that whoever else calls this waits as well.
        let mut thread = lock(&self.thread);
        if let Some(thread) = thread.take() {
            self.send(Message::Shutdown);
            let _its_panic_was_printed = thread.join();
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shutdown();
    }
}

struct Supervisor {
    workers: Vec<Worker<RunningFlow>>,
    flows: Flows,
    config: EngineConfig,
    pool: Pool,
    ports: Ports,
    inbox: SyncSender<Message>,
    resolver: Resolver,
    watching: Watching,
    /// Flows that a fault of ours ended, to be started again.
    crashed: BTreeMap<FlowId, Crashed>,
    ending: Arc<AtomicBool>,
    on_event: Box<dyn Fn(Event) + Send>,
}

struct Crashed {
    config: FlowConfig,
    due: Time,
}

impl Supervisor {
    fn run(mut self, messages: &Receiver<Message>) {
        while !self.ending.load(Ordering::Acquire) {
            let wait = self.retry_due().map(|due| due.since(clock::now()));
            if wait.is_some_and(|wait| wait.is_zero()) {
                self.retry();
                continue;
            }
            let message = match wait {
                Some(wait) => messages.recv_timeout(wait),
                None => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match message {
                Ok(message) => self.handle(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let ids: Vec<FlowId> = lock(&self.flows).keys().cloned().collect();
        for id in ids {
            self.stop(&id);
        }
        // What the flows told before they ended.
        while let Ok(message) = messages.try_recv() {
            if let Message::Happened(event) = message {
                (self.on_event)(event);
            }
        }
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Apply { id, wanted, reply } => {
                // Whoever asked may have given up.
                let _ = reply.send(self.apply(&id, *wanted));
            }
            Message::Stop { id, reply } => {
                let _ = reply.send(self.stop(&id));
            }
            Message::Happened(event) => (self.on_event)(event),
            Message::SendFails { flow, output } => {
                self.change(&flow, |flow, _tell| flow.handle_send_fails(&output));
            }
            Message::Crashed { flow } => self.handle_crash(&flow),
            Message::LookedUp { flow, name, answer } => {
                self.change(&flow, |flow, tell| flow.handle_looked_up(name, answer, tell));
            }
            // The loop looks for itself.
            Message::Shutdown => {}
        }
    }

    fn apply(&mut self, id: &FlowId, wanted: Wanted) -> Result<(), ApplyError> {
        super::diff::check(&wanted.config)?;
        if lock(&self.flows).contains_key(id) {
            return self.change(id, |flow, tell| flow.apply(wanted, tell)).unwrap_or(Ok(()));
        }
        let max = self.config.flows_max;
        if lock(&self.flows).len() >= max {
            return Err(ApplyError { field: Field::Flow, cause: Cause::TooManyFlows { max } });
        }
        let mut flow = ManagedFlow::new(
            id.clone(),
            &wanted.config,
            self.least_busy_worker(),
            (self.pool.clone(), self.ports.clone()),
            self.config.ring_packets,
            self.inbox.clone(),
            (self.resolver.clone(), FlowEyes::new(self.watching.clone())),
        )?;
        let mut told = Vec::new();
        let result = flow.apply(wanted, &mut |kind| told.push(kind));
        if result.is_ok() {
            self.crashed.remove(id);
            lock(&self.flows).insert(id.clone(), Arc::new(Mutex::new(flow)));
            told.push(EventKind::FlowStarted);
        }
        told.into_iter().for_each(|kind| self.tell(id, kind));
        result
    }

    /// Changes a flow, if it still runs, and tells what came of it once the flow can be looked at again.
    fn change<R>(
        &self,
        id: &FlowId,
        change: impl FnOnce(&mut ManagedFlow, &mut dyn FnMut(EventKind)) -> R,
    ) -> Option<R> {
        let flow = lock(&self.flows).get(id).cloned()?;
        let mut told = Vec::new();
        let result = change(&mut lock(&flow), &mut |kind| told.push(kind));
        told.into_iter().for_each(|kind| self.tell(id, kind));
        Some(result)
    }

    fn stop(&mut self, id: &FlowId) -> Option<FlowSnapshot> {
        self.crashed.remove(id);
        let flow = lock(&self.flows).remove(id)?;
        let last = lock(&flow).finish();
        self.tell(id, EventKind::FlowStopped);
        Some(last)
    }

    /// A flow that has run for a while is started again at once, one that has not a little later.
    fn handle_crash(&mut self, id: &FlowId) {
        let Some(flow) = lock(&self.flows).remove(id) else { return };
        let (config, started) = {
            let flow = lock(&flow);
            (flow.config().cloned(), flow.started())
        };
        if let Some(config) = config {
            self.crashed.insert(id.clone(), Crashed { config, due: started + CRASH_APART });
        }
        self.tell(id, EventKind::FlowCrashed);
    }

    fn least_busy_worker(&self) -> (usize, Commands<RunningFlow>) {
        let mut load = vec![0_usize; self.workers.len()];
        for flow in lock(&self.flows).values() {
            load[lock(flow).worker()] += 1;
        }
        let least = load.iter().enumerate().min_by_key(|entry| entry.1).map_or(0, |entry| entry.0);
        (least, self.workers[least].commands())
    }

    fn retry_due(&self) -> Option<Time> {
        let crashed = self.crashed.values().map(|crashed| crashed.due);
        lock(&self.flows).values().filter_map(|flow| lock(flow).retry_due()).chain(crashed).min()
    }

    fn retry(&mut self) {
        let now = clock::now();
        let ids: Vec<FlowId> = lock(&self.flows).keys().cloned().collect();
        for id in ids {
            self.change(&id, |flow, tell| flow.retry(now, tell));
        }
        let due: Vec<FlowId> =
            self.crashed.iter().filter(|(_, crashed)| crashed.due <= now).map(|(id, _)| id.clone()).collect();
        for id in due {
            let Some(Crashed { config, .. }) = self.crashed.remove(&id) else { continue };
            let wanted = Wanted { config: config.clone(), mode: Mode::Lenient, addresses: Addresses::default() };
            if self.apply(&id, wanted).is_err() {
                self.crashed.insert(id, Crashed { config, due: now + CRASH_APART });
            }
        }
    }

    fn tell(&self, id: &FlowId, kind: EventKind) {
        (self.on_event)(Event { flow: id.clone(), at: clock::wall(), kind });
    }
}

/// A panic elsewhere while holding the lock leaves counters and configuration that are still whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A flow that crashes again and again is started this far apart.
const CRASH_APART: Duration = Duration::from_secs(1);
/// Messages that may wait. Workers drop and count what does not fit; callers wait.
const MESSAGES_MAX: usize = 4_096;

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::sync::mpsc::channel;

    use super::*;
    use crate::engine::{FailoverConfig, MonitorConfig, OutputConfig, SourceConfig, url};
    use crate::path::AllowList;

    /// A flow from a port of its own to `sink`, and a socket that feeds it.
    fn flow(sink: &UdpSocket) -> (FlowConfig, UdpSocket) {
        let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let feed = UdpSocket::bind("127.0.0.1:0").unwrap();
        feed.connect(port).unwrap();
        let source = SourceConfig {
            name: "s1".parse().unwrap(),
            endpoint: url::parse_source(&format!("udp://{port}")).unwrap(),
            allow: AllowList::default(),
            limit: None,
        };
        let output = OutputConfig {
            name: "o1".parse().unwrap(),
            endpoint: url::parse_output(&format!("udp://{}", sink.local_addr().unwrap())).unwrap().endpoint,
            enabled: true,
            coalesce: Duration::ZERO,
            policy: crate::bus::LagPolicy::default(),
            limit: None,
            allow: AllowList::default(),
        };
        let (sources, outputs) = (vec![source], vec![output]);
        let config = FlowConfig {
            name: String::new(),
            sources,
            outputs,
            failover: FailoverConfig::default(),
            monitor: MonitorConfig::default(),
        };
        (config, feed)
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "a handful of events")]
    fn a_fault_in_one_flow_is_told_and_the_flow_starts_again() {
        let (events, told) = channel();
        let config = EngineConfig { workers: 1, ..EngineConfig::default() };
        let engine = Engine::start(&config, move |event| drop(events.send(event))).unwrap();
        let sinks = [0, 1].map(|_| UdpSocket::bind("127.0.0.1:0").unwrap());
        let [(faulty, feed), (other, neighbour)] = [flow(&sinks[0]), flow(&sinks[1])];
        let ids: [FlowId; 2] = ["faulty", "other"].map(|id| id.parse().unwrap());
        engine.apply(&ids[0], faulty, Mode::Strict).unwrap();
        engine.apply(&ids[1], other, Mode::Strict).unwrap();

        let flow = lock(&engine.0.flows).get(&ids[0]).cloned().unwrap();
        lock(&flow).fail_on_purpose();
        let kinds = told.iter().filter(|event| event.flow == ids[0]).map(|event| event.kind);
        let crash_and_restart = [EventKind::FlowCrashed, EventKind::FlowStarted];
        assert_eq!(kinds.skip(1).take(2).collect::<Vec<_>>(), crash_and_restart);

        for (sink, feed) in sinks.iter().zip([feed, neighbour]) {
            feed.send(b"alive").unwrap();
            let mut datagram = [0; 9];
            let len = sink.recv(&mut datagram).unwrap();
            assert_eq!(datagram[..len], *b"alive");
        }
        assert!(!told.try_iter().any(|event| event.kind == EventKind::FlowCrashed));
    }
}
