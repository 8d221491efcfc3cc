//! One thread of low priority that watches what flows carry, and hands to others what is to be decoded.
//!
//! It looks at the rings of packets by itself, as often as packets come, so whoever forwards packets never has to wake it:
//! to them it is one more reader that may be overtaken.

mod open;
mod pace;
mod thread;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;

use crate::adapters::decoders::{Apart, Bench, Deliver, InProcess, Pool};
use crate::bus::{LagPolicy, Subscribe, Subscriber};
use crate::media::watch::governor::Kind;
use crate::media::watch::{Event, Examiners, Outcome, Report, Settings};
use crate::units::Time;

/// How watching is done, for all streams together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchersConfig {
    /// Computing time that everything together may take, in thousandths of a core.
    pub budget_per_mille: u32,
    /// Where pictures and sound are decoded.
    pub placement: Placement,
}

/// Half a core.
pub const BUDGET_PER_MILLE: u32 = 500;

impl Default for WatchersConfig {
    fn default() -> Self {
        Self { budget_per_mille: BUDGET_PER_MILLE, placement: Placement::Threads }
    }
}

/// Where pictures and sound from strangers are decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    /// In threads of this process. What panics is caught; what never ends is left behind.
    Threads,
    /// In processes of their own, which can crash and be killed: this program, started with [`WORKER_ARGUMENT`]. Linux only.
    Child(PathBuf),
}

/// Names one stream that is watched, as long as the [`Watchers`] live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatchId(u64);

/// Takes a stream's events, with the moment of each. Runs on the watching thread: it must not wait.
pub type EventSink = Box<dyn FnMut(Time, Event) + Send>;

/// Watches streams, until it is dropped.
pub struct Watchers {
    shared: Arc<Shared>,
    thread: Thread,
}

/// Counters of all watching together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchersStats {
    /// Computing time of the watching thread so far, in nanoseconds.
    pub watching_cpu_ns: u64,
    /// Computing time of all jobs so far, in nanoseconds.
    pub decoding_cpu_ns: u64,
    /// Jobs done.
    pub jobs: u64,
    /// Jobs that crashed, or came to no end.
    pub crashes: u64,
    /// Threads that were left behind because they came to no end.
    pub threads_given_up: u64,
    /// Looks at streams.
    pub looks: u64,
    /// Bytes of coded pictures that are kept for proofs at present, of all streams.
    pub bytes_kept: u64,
}

/// With this as its first argument a program has to call [`run_decode_worker`](crate::adapters::decoders::run_decode_worker)
/// before anything else.
pub const WORKER_ARGUMENT: &str = "--decode-worker";

/// What handles and the thread share. Nobody holds a lock for longer than it takes to swap something.
struct Shared {
    wanted: Mutex<Wanted>,
    reports: Mutex<BTreeMap<WatchId, Arc<Report>>>,
    /// Of each stream one of each kind at most, and one of a proof (`None`): it has no more jobs at a time.
    outcomes: Mutex<Vec<(u64, Option<Kind>, Outcome)>>,
    stats: Mutex<WatchersStats>,
    budget_per_mille: AtomicU32,
    next_id: AtomicU64,
    ends: AtomicBool,
}

/// What is to be watched. Not a queue: it does not grow with how often it is changed.
#[derive(Default)]
struct Wanted {
    streams: BTreeMap<WatchId, WantedStream>,
    is_changed: bool,
}

struct WantedStream {
    settings: Settings,
    /// Until the thread takes it.
    newcomer: Option<(Subscriber, EventSink)>,
}

impl Watchers {
    /// Starts the threads. Nothing is computed as long as nothing is watched.
    ///
    /// # Errors
    /// A thread could not be started.
    pub fn spawn(config: WatchersConfig) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            wanted: Mutex::default(),
            reports: Mutex::default(),
            outcomes: Mutex::default(),
            stats: Mutex::default(),
            budget_per_mille: AtomicU32::new(config.budget_per_mille),
            next_id: AtomicU64::new(1),
            ends: AtomicBool::new(false),
        });
        let theirs = Arc::clone(&shared);
        let builder = std::thread::Builder::new().name("anabranch-watch".into());
        let handle = builder.spawn(move || {
            let pool = new_pool(&config, &theirs, std::thread::current());
            thread::run(&theirs, pool);
        })?;
        Ok(Self { shared, thread: handle.thread().clone() })
    }

    /// Another budget from now on, in thousandths of a core. Not more threads.
    pub fn set_budget(&self, per_mille: u32) {
        self.shared.budget_per_mille.store(per_mille, Relaxed);
        self.thread.unpark();
    }

    /// Watches what is published there from now on, until [`Watchers::remove`]. When the flow ends nothing comes any more.
    pub fn add(&self, packets: Subscribe, settings: Settings, sink: EventSink) -> WatchId {
        let id = WatchId(self.shared.next_id.fetch_add(1, Relaxed));
        let newcomer = Some((packets.subscriber(LagPolicy::DropOldest), sink));
        let mut wanted = lock(&self.shared.wanted);
        wanted.streams.insert(id, WantedStream { settings, newcomer });
        wanted.is_changed = true;
        drop(wanted);
        self.thread.unpark();
        id
    }

    /// Wants something else of a stream from now on.
    pub fn set(&self, id: WatchId, settings: Settings) {
        let mut wanted = lock(&self.shared.wanted);
        if let Some(stream) = wanted.streams.get_mut(&id) {
            stream.settings = settings;
            wanted.is_changed = true;
        }
        drop(wanted);
        self.thread.unpark();
    }

    /// Watches a stream no longer. Its sink may be called a last time while this returns.
    pub fn remove(&self, id: WatchId) {
        let mut wanted = lock(&self.shared.wanted);
        let removed = wanted.streams.remove(&id);
        wanted.is_changed = true;
        drop(wanted);
        drop(removed);
        lock(&self.shared.reports).remove(&id);
        self.thread.unpark();
    }

    /// What is known of a stream, a second old, or two if nothing comes; `None` before that is anything, and after it was removed.
    #[must_use]
    pub fn report(&self, id: WatchId) -> Option<Arc<Report>> {
        lock(&self.shared.reports).get(&id).cloned()
    }

    /// Counters since the start.
    #[must_use]
    pub fn stats(&self) -> WatchersStats {
        *lock(&self.shared.stats)
    }
}

impl Drop for Watchers {
    fn drop(&mut self) {
        self.shared.ends.store(true, Relaxed);
        self.thread.unpark();
    }
}

impl fmt::Debug for Watchers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watchers").finish_non_exhaustive()
    }
}

fn new_pool(config: &WatchersConfig, shared: &Arc<Shared>, watching: Thread) -> io::Result<Pool> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = (config.budget_per_mille as usize).div_ceil(500).clamp(1, cores);
    let shared = Arc::clone(shared);
    let deliver: Deliver = Arc::new(move |stream, kind, outcome| {
        lock(&shared.outcomes).push((stream, kind, outcome));
        watching.unpark();
    });
    let placement = config.placement.clone();
    let make_bench = move || -> Box<dyn Bench> {
        match &placement {
            Placement::Threads => Box::new(InProcess::new(Examiners::new())),
            Placement::Child(program) => Box::new(Apart::new(program.clone())),
        }
    };
    Pool::new(threads, Box::new(make_bench), deliver)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
