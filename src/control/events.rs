//! Event log: one thread that counts every event, writes its log line and stores it.

use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use serde_json::{Map, Value, json};

use super::store::{EventRecord, Store, StoreError};
use super::ts::CueMetrics;
use crate::engine::{Event, EventKind, Severity};
use crate::media::watch;
use crate::path::merge::Mismatch;
use crate::proto::mpegts::Pid;
use crate::units::FlowId;

/// Where events go. Cheap to clone; the thread ends with the last clone.
#[derive(Clone, Debug)]
pub struct EventLog {
    sender: SyncSender<Message>,
    counts: Arc<Mutex<Counts>>,
    store: Arc<Store>,
}

/// Events since the start of the process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Seen, by type.
    pub by_type: BTreeMap<&'static str, u64>,
    /// Neither logged nor stored: too many at once.
    pub dropped_queue_full: u64,
    /// Logged but not stored: the database failed.
    pub dropped_storage: u64,
}

impl EventLog {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(store: Arc<Store>) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(QUEUE_MAX);
        let counts = Arc::default();
        let writer = Writer { store: Arc::clone(&store), counts: Arc::clone(&counts), storing: true };
        thread::Builder::new().name("events".into()).spawn(move || writer.run(&receiver))?;
        Ok(Self { sender, counts, store })
    }

    /// Takes an event and returns at once; if too many wait already it is dropped and counted. For any thread, also
    /// one that handles packets.
    pub fn record(&self, event: Event) {
        if let Err(TrySendError::Full(_)) = self.sender.try_send(Message::Event(event)) {
            lock(&self.counts).dropped_queue_full += 1;
        }
    }

    /// Waits until everything recorded so far is stored. Blocks.
    pub fn flush(&self) {
        let (done, stored) = sync_channel(1);
        if self.sender.send(Message::Flush(done)).is_ok() {
            // An error means that the thread is gone, and with it whatever could be waited for.
            let _ = stored.recv();
        }
    }

    /// The latest events of one flow, or of all, newest first, whatever was recorded before this call included.
    /// Blocks.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn latest(&self, flow: Option<&FlowId>, limit: u32) -> Result<Vec<EventRecord>, StoreError> {
        self.flush();
        self.store.events(flow, limit)
    }

    /// What was counted so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        lock(&self.counts).clone()
    }
}

enum Message {
    Event(Event),
    Flush(SyncSender<()>),
}

struct Writer {
    store: Arc<Store>,
    counts: Arc<Mutex<Counts>>,
    /// Whether the last batch could be stored.
    storing: bool,
}

impl Writer {
    fn run(mut self, receiver: &Receiver<Message>) {
        while let Ok(first) = receiver.recv() {
            let waiting = std::iter::once(first).chain(receiver.try_iter()).take(BATCH_MAX);
            let mut batch = Vec::new();
            let mut flushes = Vec::new();
            for message in waiting {
                match message {
                    Message::Event(event) => batch.push(event),
                    Message::Flush(done) => flushes.push(done),
                }
            }
            self.write(&batch);
            for done in flushes {
                // Whoever asked may have gone.
                let _ = done.try_send(());
            }
        }
    }

    fn write(&mut self, batch: &[Event]) {
        if batch.is_empty() {
            return;
        }
        for event in batch {
            log(event);
            *lock(&self.counts).by_type.entry(event.kind.type_name()).or_default() += 1;
        }
        let records: Vec<EventRecord> = batch.iter().map(record).collect();
        match self.store.append(&records) {
            Ok(()) if self.storing => {}
            Ok(()) => {
                self.storing = true;
                let count = lock(&self.counts).dropped_storage;
                tracing::info!(count, "events are stored again");
            }
            Err(error) => {
                lock(&self.counts).dropped_storage += batch.len() as u64;
                if self.storing {
                    self.storing = false;
                    tracing::error!(cause = %error, "events cannot be stored and are dropped until they can");
                }
            }
        }
    }
}

fn log(event: &Event) {
    let flow = event.flow.as_str();
    let source = event.kind.source().map(tracing::field::display);
    let output = event.kind.output().map(tracing::field::display);
    let message = event.kind.to_string();
    match event.kind.severity() {
        Severity::Info => tracing::info!(flow, source, output, "{message}"),
        Severity::Warning => tracing::warn!(flow, source, output, "{message}"),
        Severity::Error => tracing::error!(flow, source, output, "{message}"),
    }
}

fn record(event: &Event) -> EventRecord {
    EventRecord {
        id: 0,
        flow: event.flow.clone(),
        type_name: event.kind.type_name().into(),
        message: event.kind.to_string(),
        severity: event.kind.severity().as_str().into(),
        at: event.at,
        data: data(&event.kind),
    }
}

/// What happened, for programs.
fn data(kind: &EventKind) -> Value {
    let mut data = Map::new();
    if let Some(source) = kind.source() {
        data.insert("source".into(), source.as_str().into());
    }
    if let Some(output) = kind.output() {
        data.insert("output".into(), output.as_str().into());
    }
    let more = match kind {
        EventKind::SourceFailover { from, to, cause, silent } => {
            let (cause, silent_ms) = (cause.as_str(), millis(*silent));
            json!({ "from": from.as_str(), "to": to.as_str(), "cause": cause, "silent_ms": silent_ms })
        }
        EventKind::SourceDegraded { fault, .. } | EventKind::SourceRestored { fault, .. } => {
            json!({ "cause": fault.as_str() })
        }
        EventKind::SourceRetry { attempt, wait, .. } => json!({ "attempt": attempt, "wait_ms": millis(*wait) }),
        EventKind::SourceError { error, .. } | EventKind::OutputError { error, .. } => json!({ "error": error }),
        EventKind::OutputLegError { leg, error, .. } => json!({ "leg": leg, "error": error }),
        EventKind::OutputLegRecovered { leg, .. } => json!({ "leg": leg }),
        EventKind::MergeError { why, .. } => json!({ "reason": difference(*why) }),
        EventKind::TsError { indicator, pid, errors, .. } => json!({
            "indicator": indicator.name(), "priority": indicator.priority(), "errors": errors,
            "pid": pid.map(Pid::value),
        }),
        EventKind::TsRecovered { indicator, errors, .. } => {
            json!({ "indicator": indicator.name(), "priority": indicator.priority(), "errors": errors })
        }
        EventKind::Scte35Cue { cue, .. } => json!(CueMetrics::from(cue)),
        EventKind::Watched { event, .. } => of_watch(event),
        EventKind::PeerConnected { peer, .. } => json!({ "peer": peer }),
        EventKind::PeerDisconnected { peer, why, .. } => {
            json!({ "peer": peer, "reason": why.to_string(), "code": why.refusal.map(|refusal| refusal.1) })
        }
        EventKind::ConnectionError { peer, why, count, .. } => {
            let code = why.refusal.map(|refusal| refusal.1);
            json!({ "peer": peer, "reason": why.to_string(), "code": code, "count": count })
        }
        EventKind::CallersRefused { peer, reason, count, .. } => {
            json!({ "peer": peer, "reason": reason, "count": count })
        }
        EventKind::NotCarried { what, .. } => json!({ "what": what.to_string() }),
        EventKind::FlowCreated
        | EventKind::FlowStarted
        | EventKind::FlowStopped
        | EventKind::FlowCrashed
        | EventKind::SourceActive { .. }
        | EventKind::PrimaryRecovered { .. }
        | EventKind::SourceLost { .. }
        | EventKind::SourceRecovered { .. }
        | EventKind::MergeStarted { .. }
        | EventKind::LegLost { .. }
        | EventKind::MergeEof
        | EventKind::LegRecovered { .. }
        | EventKind::SourceEof { .. }
        | EventKind::SourceRestarted { .. }
        | EventKind::SourceAbuse { .. }
        | EventKind::OutputRecovered { .. } => Value::Null,
    };
    if let Value::Object(more) = more {
        data.extend(more);
    }
    data.into()
}

fn of_watch(event: &watch::Event) -> Value {
    match event {
        watch::Event::Began { lasted, .. } => json!({ "lasted_ms": millis(*lasted) }),
        watch::Event::Ended { lasted, between: (least, most), lost_sight, .. } => json!({
            "lasted_ms": millis(*lasted), "lasted_ms_min": millis(*least), "lasted_ms_max": millis(*most),
            "reason": lost_sight.as_ref().map(watch::Reason::code),
        }),
        watch::Event::VideoBack { missed } | watch::Event::AudioBack { missed } => {
            json!({ "missed_ms": millis(*missed) })
        }
        watch::Event::MetadataChanged { what, changes } => json!({ "what": what, "changes": changes }),
        watch::Event::Stretched { every } => json!({ "every_ms": millis(*every) }),
        watch::Event::DecoderRestarted { restarts } => json!({ "restarts": restarts }),
        watch::Event::VideoMissing | watch::Event::AudioMissing | watch::Event::Restored => Value::Null,
    }
}

const fn difference(why: Mismatch) -> &'static str {
    match why {
        Mismatch::Unrelated => "unrelated",
        Mismatch::Timestamps => "timestamps",
        Mismatch::Payload => "payload",
        Mismatch::Numbers => "numbers",
    }
}

fn millis(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Counters are whole even if somebody panicked in between.
fn lock(counts: &Mutex<Counts>) -> MutexGuard<'_, Counts> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Judgement: a storm of all sources and outputs of a large flow at once.
const QUEUE_MAX: usize = 1_024;
/// Events of one transaction. Judgement: short enough that a request never waits noticeably for the database.
const BATCH_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::control::model::Flow;
    use crate::control::store::Record;
    use crate::path::failover::Cause;

    fn event(kind: EventKind) -> Event {
        Event { flow: "1".parse().unwrap(), at: UNIX_EPOCH, kind }
    }

    fn log() -> (tempfile::TempDir, EventLog) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("test.db")).unwrap();
        let record = Record {
            id: "1".parse().unwrap(),
            flow: Flow { name: "n".into(), ..Flow::default() },
            wanted_running: false,
            created: UNIX_EPOCH,
            updated: UNIX_EPOCH,
            started: None,
            stopped: None,
        };
        store.save(&record).unwrap();
        (directory, EventLog::start(Arc::new(store)).unwrap())
    }

    #[test]
    fn what_was_recorded_can_be_read_at_once() {
        let (_directory, log) = log();
        log.record(event(EventKind::FlowStarted));
        log.record(event(EventKind::SourceFailover {
            from: "a".parse().unwrap(),
            to: "b".parse().unwrap(),
            cause: Cause::Silent,
            silent: Duration::from_millis(512),
        }));
        let stored = log.latest(None, 10).unwrap();
        assert_eq!(stored[0].type_name, "source_failover");
        assert_eq!(stored[0].severity, "warning");
        let data = json!({ "source": "b", "from": "a", "to": "b", "cause": "silent", "silent_ms": 512 });
        assert_eq!(stored[0].data, data);
        assert_eq!(stored[1].message, "flow started");
        assert_eq!(log.counts().by_type, BTreeMap::from([("flow_started", 1), ("source_failover", 1)]));
    }

    #[test]
    fn without_a_database_events_are_counted_and_nobody_waits() {
        let (_directory, log) = log();
        log.store.fail_writes(true);
        (0..5).for_each(|_| log.record(event(EventKind::FlowStarted)));
        log.flush();
        log.store.fail_writes(false);
        log.record(event(EventKind::FlowStopped));
        assert_eq!(log.latest(None, 10).unwrap().len(), 1);
        assert_eq!(log.counts().dropped_storage, 5);
        assert_eq!(log.counts().by_type["flow_started"], 5);
    }
}
