//! Statements and migrations.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OpenFlags, Row, Transaction, TransactionBehavior, params};

use super::{EVENTS_PER_FLOW_MAX, EventRecord, Record};
use crate::units::FlowId;

/// What went wrong, before it is told to people.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error("flow {id}: {problem}")]
    Row { id: String, problem: String },
    #[error("format {found}")]
    TooNew { found: i64 },
    #[error(transparent)]
    Create(#[from] io::Error),
}

pub(super) fn open(path: &Path) -> Result<Connection, Failure> {
    create(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // A file that may not be written is opened for reading without a word; a write says so.
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "journal_size_limit", WAL_BYTES_MAX)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    migrate(&mut connection)?;
    check(&connection)?;
    Ok(connection)
}

/// Passphrases may stand in it: nobody else may read it. SQLite gives its other files the same permissions.
fn create(path: &Path) -> io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    let mut options = OpenOptions::new();
    options.write(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

fn migrate(connection: &mut Connection) -> Result<(), Failure> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let done = usize::try_from(found).ok().filter(|done| *done <= MIGRATIONS.len());
    let done = done.ok_or(Failure::TooNew { found })?;
    for migration in &MIGRATIONS[done..] {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    Ok(transaction.commit()?)
}

/// Reads through the flows, which are few; damage among the events shows when they are read.
fn check(connection: &Connection) -> Result<(), Failure> {
    let found: String = connection.query_row("PRAGMA quick_check(flows)", [], |row| row.get(0))?;
    if found == "ok" { Ok(()) } else { Err(Failure::Row { id: "table".into(), problem: found }) }
}

pub(super) fn flows(connection: &Connection) -> Result<Vec<Record>, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT id, json, wanted_running, created_ms, updated_ms, started_ms, stopped_ms
         FROM flows ORDER BY created_ms, id",
    )?;
    let mut rows = statement.query([])?;
    let mut records = Vec::new();
    while let Some(row) = rows.next()? {
        records.push(flow(row)?);
    }
    Ok(records)
}

fn flow(row: &Row<'_>) -> Result<Record, Failure> {
    let id: String = row.get(0)?;
    let json: String = row.get(1)?;
    let bad = |problem: String| Failure::Row { id: id.clone(), problem };
    Ok(Record {
        id: id.parse().map_err(|error: crate::units::IdError| bad(error.to_string()))?,
        flow: serde_json::from_str(&json).map_err(|error| bad(error.to_string()))?,
        wanted_running: row.get(2)?,
        created: time(row.get(3)?),
        updated: time(row.get(4)?),
        started: row.get::<_, Option<i64>>(5)?.map(time),
        stopped: row.get::<_, Option<i64>>(6)?.map(time),
    })
}

pub(super) fn save(connection: &mut Connection, record: &Record) -> Result<(), Failure> {
    let json = serde_json::to_string(&record.flow)
        .map_err(|error| Failure::Row { id: record.id.to_string(), problem: error.to_string() })?;
    let transaction = begin(connection, Durability::PowerCut)?;
    transaction
        .prepare_cached(
            "INSERT INTO flows (id, json, wanted_running, created_ms, updated_ms, started_ms, stopped_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (id) DO UPDATE SET json = ?2, wanted_running = ?3, created_ms = ?4, updated_ms = ?5,
             started_ms = ?6, stopped_ms = ?7",
        )?
        .execute(params![
            record.id.as_str(),
            json,
            record.wanted_running,
            millis(record.created),
            millis(record.updated),
            record.started.map(millis),
            record.stopped.map(millis),
        ])?;
    Ok(transaction.commit()?)
}

pub(super) fn delete(connection: &mut Connection, id: &FlowId) -> Result<(), Failure> {
    let transaction = begin(connection, Durability::PowerCut)?;
    transaction.prepare_cached("DELETE FROM flows WHERE id = ?1")?.execute([id.as_str()])?;
    Ok(transaction.commit()?)
}

pub(super) fn append(connection: &mut Connection, events: &[EventRecord]) -> Result<(), Failure> {
    let transaction = begin(connection, Durability::Kill)?;
    let mut flows = BTreeSet::new();
    for event in events {
        flows.insert(&event.flow);
        transaction
            .prepare_cached(
                "INSERT INTO events (flow_id, type, message, severity, at_ms, data)
                 SELECT ?1, ?2, ?3, ?4, ?5, ?6 WHERE EXISTS (SELECT 1 FROM flows WHERE id = ?1)",
            )?
            .execute(params![
                event.flow.as_str(),
                event.type_name,
                event.message,
                event.severity,
                millis(event.at),
                event.data.to_string(),
            ])?;
    }
    for flow in flows {
        transaction
            .prepare_cached(
                "DELETE FROM events WHERE flow_id = ?1 AND id <=
                 (SELECT id FROM events WHERE flow_id = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
            )?
            .execute(params![flow.as_str(), EVENTS_PER_FLOW_MAX])?;
    }
    Ok(transaction.commit()?)
}

pub(super) fn events(connection: &Connection, flow: Option<&FlowId>, limit: u32) -> Result<Vec<EventRecord>, Failure> {
    // Two statements, so that each has its index.
    let (sql, flow) = match flow {
        Some(flow) => (
            "SELECT id, flow_id, type, message, severity, at_ms, data FROM events
             WHERE flow_id = ?1 ORDER BY id DESC LIMIT ?2",
            flow.as_str(),
        ),
        None => (
            "SELECT id, flow_id, type, message, severity, at_ms, data FROM events
             WHERE ?1 = '' ORDER BY id DESC LIMIT ?2",
            "",
        ),
    };
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params![flow, limit])?;
    let mut records = Vec::new();
    while let Some(row) = rows.next()? {
        records.push(event(row)?);
    }
    Ok(records)
}

fn event(row: &Row<'_>) -> Result<EventRecord, Failure> {
    let id: i64 = row.get(0)?;
    let flow: String = row.get(1)?;
    let data: String = row.get(6)?;
    let bad = |problem: String| Failure::Row { id: flow.clone(), problem: format!("event {id}: {problem}") };
    Ok(EventRecord {
        id,
        flow: flow.parse().map_err(|error: crate::units::IdError| bad(error.to_string()))?,
        type_name: row.get(2)?,
        message: row.get(3)?,
        severity: row.get(4)?,
        at: time(row.get(5)?),
        data: serde_json::from_str(&data).map_err(|error| bad(error.to_string()))?,
    })
}

/// What a committed transaction survives.
#[derive(Clone, Copy)]
enum Durability {
    /// The end of the process.
    Kill,
    /// The end of the machine as well: the commit waits for the medium.
    PowerCut,
}

fn begin(connection: &mut Connection, durability: Durability) -> rusqlite::Result<Transaction<'_>> {
    // In WAL mode NORMAL syncs at checkpoints only, FULL after every commit.
    let synchronous = match durability {
        Durability::Kill => "NORMAL",
        Durability::PowerCut => "FULL",
    };
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.transaction_with_behavior(TransactionBehavior::Immediate)
}

/// Milliseconds since 1970; the API shows no more.
fn millis(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

fn time(millis: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

/// Format of the database; the number of migrations it takes to get there.
pub(super) const SCHEMA_VERSION: i64 = MIGRATIONS.len() as i64;

/// Each brings the database from the version of its index to the next. Never changed once released.
const MIGRATIONS: [&str; 1] = ["
CREATE TABLE flows (
    id TEXT NOT NULL PRIMARY KEY,
    json TEXT NOT NULL,
    wanted_running INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    started_ms INTEGER,
    stopped_ms INTEGER
) STRICT;
CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    flow_id TEXT NOT NULL REFERENCES flows (id) ON DELETE CASCADE,
    type TEXT NOT NULL,
    message TEXT NOT NULL,
    severity TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    data TEXT NOT NULL
) STRICT;
CREATE INDEX events_by_flow ON events (flow_id, id);
"];

/// Judgement: somebody who looks into the file with a tool may take this long.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// The write-ahead log shrinks to this after a checkpoint.
const WAL_BYTES_MAX: i64 = 4 << 20;
