//! One thread of low priority that watches what flows carry, and hands to others what is to be decoded.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::bus::Subscribe;
use crate::media::watch::{Event, Report, Settings};
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
    /// In processes of their own, which can crash and be killed: this program, started with [`WORKER_ARGUMENT`].
    Child(PathBuf),
}

/// Names one stream that is watched, as long as the [`Watchers`] live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatchId(u64);

/// Takes a stream's events, with the moment of each. Runs on the watching thread: it must not wait.
pub type EventSink = Box<dyn FnMut(Time, Event) + Send>;

/// Watches streams. Ends with the last handle.
#[derive(Debug)]
pub struct Watchers {}

impl Watchers {
    /// Starts the thread. Nothing is computed as long as nothing is watched.
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn spawn(_config: WatchersConfig) -> io::Result<Self> {
        Ok(Self {})
    }

    /// Another budget, in thousandths of a core.
    pub fn set_budget(&self, _per_mille: u32) {}

    /// Watches what is published there from now on, until [`Watchers::remove`] or the end of the flow.
    pub fn add(&self, _packets: Subscribe, _settings: Settings, _sink: EventSink) -> WatchId {
        WatchId(0)
    }

    /// Wants something else of a stream from now on.
    pub fn set(&self, _id: WatchId, _settings: Settings) {}

    /// Watches a stream no longer. Its sink may be called until this returns, and once more while it does.
    pub fn remove(&self, _id: WatchId) {}

    /// What is known of a stream, at most a second old; `None` before that is anything, and after it was removed.
    #[must_use]
    pub fn report(&self, _id: WatchId) -> Option<Arc<Report>> {
        None
    }
}

/// With this as its first argument a program has to call `run_decode_worker` before anything else.
pub const WORKER_ARGUMENT: &str = "--decode-worker";
