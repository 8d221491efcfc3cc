//! The product around the engine: REST API, store, events, metrics.
//!
//! [`Server::start`] opens everything that can fail, [`Server::run`] answers until it is told to end.

pub mod api;
pub mod config;
pub mod content;
pub mod events;
pub mod figures;
pub mod manager;
pub mod metrics;
pub mod model;
pub mod problem;
pub mod store;
pub mod ts;
pub mod wanted;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::spawn_blocking;

pub use self::figures::metrics_json;

use self::api::Access;
use self::config::{ConfigError, Settings};
use self::events::EventLog;
use self::manager::{Limits, Manager};
use self::problem::Problem;
use self::store::{Store, StoreError};
use crate::engine::{Engine, EngineConfig, StartError};

/// Everything is open, nothing is answered yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    access: Access,
    manager: Arc<Manager>,
}

/// Why the server does not start: one line with the fix.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The settings contradict each other, or the token cannot be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The address cannot be had.
    #[error("cannot listen on {address}: {cause}: choose another api.listen, or stop whoever has it")]
    Listen {
        /// What was asked for.
        address: SocketAddr,
        /// What the system says.
        cause: io::Error,
    },
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The engine cannot start.
    #[error(transparent)]
    Engine(#[from] StartError),
    /// The system gives no thread.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    /// Stored and declared flows do not go together.
    #[error(transparent)]
    Flows(#[from] Problem),
}

impl Server {
    /// Opens the address, the database and the engine, and reads the flows.
    ///
    /// # Errors
    /// The first of them that fails; nothing is left behind.
    pub async fn start(settings: &Settings) -> Result<Self, ServeError> {
        let access = Access::new(&settings.api)?;
        let refused = |cause| ServeError::Listen { address: settings.api.listen, cause };
        let listener = TcpListener::bind(settings.api.listen).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let settings = settings.clone();
        // Opening files may block for a moment.
        let opened = spawn_blocking(move || open(&settings)).await;
        let manager = opened.map_err(|error| ServeError::Thread(io::Error::other(error)))??;
        Ok(Self { listener, address, access, manager: Arc::new(manager) })
    }

    /// Where it listens, with the port that the system chose if that was 0.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The flows, for whoever runs in the same process. Its calls may block.
    #[must_use]
    pub const fn manager(&self) -> &Arc<Manager> {
        &self.manager
    }

    /// Starts the flows that ran when the last process ended, and answers requests, until `shutdown`. Then requests
    /// under way are finished and flows end; they stay wanted and start again with the next process.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let router = api::router(Arc::clone(&self.manager), self.access);
        let manager = Arc::clone(&self.manager);
        let restoring = spawn_blocking(move || manager.restore());
        tracing::info!(local = %self.address, "serving");
        api::serve(self.listener, router, shutdown).await;
        let manager = self.manager;
        // A panic in there has printed itself; there is nothing more to end.
        let _ = spawn_blocking(move || manager.shutdown()).await;
        let _ = restoring.await;
    }
}

/// Returns when the process is asked to end, by Ctrl-C or SIGTERM.
///
/// # Errors
/// If the system will not tell.
pub async fn shutdown_signal() -> io::Result<()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => interrupted,
            _ = terminate.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}

fn open(settings: &Settings) -> Result<Manager, ServeError> {
    let store = Arc::new(Store::open(&settings.storage.path)?);
    let events = EventLog::start(Arc::clone(&store)).map_err(ServeError::Thread)?;
    let config = EngineConfig {
        workers: settings.engine.workers,
        flows_max: settings.engine.flows_max,
        watchers: settings.engine.watchers.clone(),
        ..EngineConfig::default()
    };
    let log = events.clone();
    let engine = Engine::start(&config, move |event| log.record(event))?;
    let limits = Limits { flows_max: settings.engine.flows_max, defaults: settings.defaults() };
    Ok(Manager::open(engine, store, events, limits, &settings.flows)?)
}
