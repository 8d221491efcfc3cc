//! Runs flows: the public handle of the library.
//!
//! [`Engine::apply`] says what is wanted of a flow. A pure comparison with what runs ([`diff`]) gives steps, the
//! supervisor carries them out, and whatever a step does not name goes on undisturbed. Starting after a crash is the
//! same path as changing one output.

#[cfg(not(feature = "media"))]
mod blind;
pub mod config;
pub mod diff;
mod error;
mod event;
#[cfg(feature = "media")]
mod eyes;
mod flow;
mod managed;
mod marks;
mod monitor;
mod output;
mod resolver;
#[cfg(feature = "media")]
mod seen;
mod snapshot;
mod source;
mod stage;
mod stats;
mod status;
mod supervisor;
pub mod url;

pub use config::{
    FailoverConfig, FailoverMode, FlowConfig, MergeConfig, MonitorConfig, OUTPUTS_MAX, OutputConfig, OutputEndpoint,
    SOURCES_MAX, SourceConfig, SourceEndpoint, TestConfig, TestSignal,
};
pub use error::{ApplyError, Cause, Field};
pub use event::{EndName, Event, EventKind, Severity};
#[cfg(feature = "media")]
pub use stats::WatchSnapshot;
pub use stats::{FlowSnapshot, LegSnapshot, MergeSnapshot, OutputDrops, OutputSnapshot, SourceDrops, SourceSnapshot};
pub use status::{FlowStatus, OutputStatus, SourceStatus};
pub use supervisor::{Engine, EngineConfig, Mode, StartError};
