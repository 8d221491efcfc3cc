//! What is persisted: flows as the user wants them, and the latest events.
//!
//! One connection behind one lock. Its callers are threads that may block (requests that change something, the event
//! log), never an async task or the packet path. A flow is on disk when [`Store::save`] returns: every change is one
//! transaction, written through to the medium, so that neither a killed process nor a power cut loses a flow or leaves
//! half of one. Events are written in batches that survive a killed process but are not waited for on the medium.

mod error;
mod sqlite;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde_json::Value;

pub use error::StoreError;

use super::model::Flow;
use crate::units::FlowId;

/// Events that are kept of each flow; older ones go (API contract).
pub const EVENTS_PER_FLOW_MAX: u32 = 1_000;

/// A flow as the store keeps it.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Never changes.
    pub id: FlowId,
    /// What the user wrote, tidied.
    pub flow: Flow,
    /// Started and not stopped: such a flow starts again with the process.
    pub wanted_running: bool,
    /// When it was created.
    pub created: SystemTime,
    /// When it was last changed.
    pub updated: SystemTime,
    /// When it was last started.
    pub started: Option<SystemTime>,
    /// When it was last stopped.
    pub stopped: Option<SystemTime>,
}

/// An event as the store keeps it.
#[derive(Clone, Debug, PartialEq)]
pub struct EventRecord {
    /// Grows; given by the store, zero before.
    pub id: i64,
    /// Whose.
    pub flow: FlowId,
    /// Stable name of what happened.
    pub type_name: String,
    /// The sentence that people read.
    pub message: String,
    /// `info`, `warning` or `error`.
    pub severity: String,
    /// When.
    pub at: SystemTime,
    /// What happened, for programs.
    pub data: Value,
}

/// The open database.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    connection: Mutex<rusqlite::Connection>,
}

impl Store {
    /// Opens the database at `path`, creates it if there is none, and brings it up to date.
    ///
    /// # Errors
    /// One line with what is wrong with the file and the fix.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let connection = sqlite::open(path).map_err(|error| StoreError::new(path, error))?;
        Ok(Self { path: path.into(), connection: Mutex::new(connection) })
    }

    /// Every flow, oldest first.
    ///
    /// # Errors
    /// If the database cannot be read, or a flow in it makes no sense.
    pub fn flows(&self) -> Result<Vec<Record>, StoreError> {
        self.with(|connection| sqlite::flows(connection))
    }

    /// Puts a flow in, or in the place of what was there. It is on disk when this returns.
    ///
    /// # Errors
    /// Nothing was changed then.
    pub fn save(&self, record: &Record) -> Result<(), StoreError> {
        self.with(|connection| sqlite::save(connection, record))
    }

    /// Takes a flow and its events out.
    ///
    /// # Errors
    /// Nothing was changed then.
    pub fn delete(&self, id: &FlowId) -> Result<(), StoreError> {
        self.with(|connection| sqlite::delete(connection, id))
    }

    /// Adds events, except those of flows that are gone, and prunes to [`EVENTS_PER_FLOW_MAX`].
    ///
    /// # Errors
    /// None of them was added then.
    pub fn append(&self, events: &[EventRecord]) -> Result<(), StoreError> {
        self.with(|connection| sqlite::append(connection, events))
    }

    /// The latest events of one flow, or of all, newest first.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn events(&self, flow: Option<&FlowId>, limit: u32) -> Result<Vec<EventRecord>, StoreError> {
        self.with(|connection| sqlite::events(connection, flow, limit))
    }

    fn with<T>(
        &self,
        action: impl FnOnce(&mut rusqlite::Connection) -> Result<T, sqlite::Failure>,
    ) -> Result<T, StoreError> {
        action(&mut self.lock()).map_err(|error| StoreError::new(&self.path, error))
    }

    /// A panic in the middle of a transaction has rolled that back; the connection is as good as before.
    fn lock(&self) -> MutexGuard<'_, rusqlite::Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
impl Store {
    /// Makes every write fail as on a read-only file.
    pub(super) fn fail_writes(&self, fail: bool) {
        let set = self.lock().pragma_update(None, "query_only", fail);
        assert_eq!(set, Ok(()));
    }
}

#[cfg(test)]
mod tests;
