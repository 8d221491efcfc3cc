//! Applies steps, opens again what failed, and tells what happens: one thread.
//!
//! The supervisor owns what is wanted and what runs. Everybody else sends it messages; the workers' are events and never
//! wait. It is the only one to talk to workers, so a flow changes in one place.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::config::FlowConfig;
use super::error::{ApplyError, Cause, Field};
use super::event::{Event, EventKind};
use super::flow::RunningFlow;
use super::managed::ManagedFlow;
use super::resolver::{Addresses, Resolver};
use super::stats::FlowSnapshot;
use crate::adapters::{Commands, IoKind, OpenError, Worker, clock, raise_descriptor_limit};
use crate::bus::{Pool, PoolLimits, PoolUse, Subscribe};
use crate::units::FlowId;

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
}

impl Default for EngineConfig {
    /// A ring of 1,024 packets is half a second at 20 Mb/s and 27 ms at 400 Mb/s.
    fn default() -> Self {
        Self { workers: 0, flows_max: 1_000, ring_packets: 1_024, pool: PoolLimits::default(), io: IoKind::Best }
    }
}

/// What [`Engine::apply`] does when something cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Refuses the whole and changes nothing: for somebody who waits for the answer.
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
}

/// Every running flow. The map is locked for look-ups only, a flow for as long as it takes to copy its counters.
type Flows = Arc<Mutex<BTreeMap<FlowId, Arc<Mutex<ManagedFlow>>>>>;

/// What the supervisor can be told.
pub(super) enum Message {
    Apply { id: FlowId, wanted: Box<Wanted>, reply: SyncSender<Result<(), ApplyError>> },
    Stop { id: FlowId, reply: SyncSender<Option<FlowSnapshot>> },
    Happened(Event),
    LookedUp { flow: FlowId, name: String, answer: Result<IpAddr, OpenError> },
    Shutdown,
}

/// A configuration and what is needed to apply it.
pub(super) struct Wanted {
    pub(super) config: FlowConfig,
    pub(super) mode: Mode,
    pub(super) addresses: Addresses,
}

impl Engine {
    /// Starts the workers and the supervisor. `on_event` is called on the supervisor's thread and should not block.
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
        let supervisor = Supervisor {
            workers: workers?,
            flows: Arc::clone(&flows),
            config: config.clone(),
            pool: pool.clone(),
            resolver: Resolver::start(inbox.clone())?,
            inbox: inbox.clone(),
            on_event: Box::new(on_event),
        };
        let thread = std::thread::Builder::new().name("supervisor".into()).spawn(move || supervisor.run(&messages))?;
        Ok(Self(Arc::new(Handle { inbox, flows, pool, thread: Mutex::new(Some(thread)) })))
    }

    /// Says what is wanted of a flow: starts it, or changes what differs. Blocks until it is done: some
    /// milliseconds, and for as long as it takes to look names up if the mode is strict.
    ///
    /// # Errors
    /// The part that is wrong or could not be opened; then nothing has changed.
    pub fn apply(&self, id: &FlowId, wanted: FlowConfig, mode: Mode) -> Result<(), ApplyError> {
        let addresses = if mode == Mode::Strict { Addresses::of(&wanted) } else { Addresses::default() };
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
        let Some(thread) = lock(&self.thread).take() else { return };
        self.send(Message::Shutdown);
        let _its_panic_was_printed = thread.join();
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
    inbox: SyncSender<Message>,
    resolver: Resolver,
    on_event: Box<dyn Fn(Event) + Send>,
}

impl Supervisor {
    fn run(self, messages: &Receiver<Message>) {
        loop {
            let wait = self.retry_due().map(|due| due.since(clock::now()));
            let message = match wait {
                Some(wait) => messages.recv_timeout(wait),
                None => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match message {
                Ok(Message::Apply { id, wanted, reply }) => {
                    // Whoever asked may have given up.
                    let _ = reply.send(self.apply(&id, *wanted));
                }
                Ok(Message::Stop { id, reply }) => {
                    let _ = reply.send(self.stop(&id));
                }
                Ok(Message::Happened(event)) => (self.on_event)(event),
                Ok(Message::LookedUp { flow, name, answer }) => self.handle_looked_up(&flow, name, answer),
                Err(RecvTimeoutError::Timeout) => self.retry(),
                Ok(Message::Shutdown) | Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let ids: Vec<FlowId> = lock(&self.flows).keys().cloned().collect();
        for id in ids {
            self.stop(&id);
        }
        // What the workers told before they ended.
        while let Ok(message) = messages.try_recv() {
            if let Message::Happened(event) = message {
                (self.on_event)(event);
            }
        }
    }

    fn apply(&self, id: &FlowId, wanted: Wanted) -> Result<(), ApplyError> {
        super::diff::check(&wanted.config)?;
        let known = lock(&self.flows).get(id).cloned();
        if let Some(flow) = known {
            return lock(&flow).apply(wanted, &mut |kind| self.tell(id, kind));
        }
        let max = self.config.flows_max;
        if lock(&self.flows).len() >= max {
            return Err(ApplyError { field: Field::Flow, cause: Cause::TooManyFlows { max } });
        }
        let mut flow = ManagedFlow::new(
            id.clone(),
            self.least_busy_worker(),
            self.pool.clone(),
            self.config.ring_packets,
            self.inbox.clone(),
            self.resolver.clone(),
        )?;
        flow.apply(wanted, &mut |kind| self.tell(id, kind))?;
        lock(&self.flows).insert(id.clone(), Arc::new(Mutex::new(flow)));
        self.tell(id, EventKind::FlowStarted);
        Ok(())
    }

    fn stop(&self, id: &FlowId) -> Option<FlowSnapshot> {
        let flow = lock(&self.flows).remove(id)?;
        let flow = lock(&flow);
        flow.close();
        self.tell(id, EventKind::FlowStopped);
        Some(flow.snapshot(clock::now()))
    }

    fn least_busy_worker(&self) -> (usize, Commands<RunningFlow>) {
        let mut load = vec![0_usize; self.workers.len()];
        for flow in lock(&self.flows).values() {
            load[lock(flow).worker()] += 1;
        }
        let least = load.iter().enumerate().min_by_key(|entry| entry.1).map_or(0, |entry| entry.0);
        (least, self.workers[least].commands())
    }

    fn retry_due(&self) -> Option<crate::units::Time> {
        lock(&self.flows).values().filter_map(|flow| lock(flow).retry_due()).min()
    }

    fn retry(&self) {
        let now = clock::now();
        let flows: Vec<_> = lock(&self.flows).iter().map(|(id, flow)| (id.clone(), Arc::clone(flow))).collect();
        for (id, flow) in flows {
            lock(&flow).retry(now, &mut |kind| self.tell(&id, kind));
        }
    }

    fn handle_looked_up(&self, id: &FlowId, name: String, answer: Result<IpAddr, OpenError>) {
        // The flow may have ended meanwhile.
        if let Some(flow) = lock(&self.flows).get(id).cloned() {
            lock(&flow).handle_looked_up(name, answer, &mut |kind| self.tell(id, kind));
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

/// Messages that may wait. Workers drop and count what does not fit; callers wait.
const MESSAGES_MAX: usize = 4_096;
