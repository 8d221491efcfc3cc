//! Flows as the user sees them: limits, names, lifecycle.
//!
//! Every call here may block for some milliseconds and belongs on a thread that may; it runs to its end even if nobody
//! waits for it any more. Changes of one flow happen one after the other, changes of different flows side by side, and
//! reading never waits for a change. A change is made in the engine first and stored when the engine has accepted it;
//! if it cannot be stored the engine gets its old configuration back, so that both always agree.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use serde::Serialize;
use serde_json::{Map, Value};

use super::events::EventLog;
use super::figures::rfc3339;
use super::model::{Flow, Output, Source};
use super::problem::{Code, Problem, from_value};
use super::store::{EventRecord, Record, Store};
use super::wanted::{Defaults, Wanted};
use crate::adapters::clock;
use crate::bus::PoolUse;
use crate::engine::{
    ApplyError, Engine, Event, EventKind, Field, FlowConfig, FlowSnapshot, FlowStatus, Mode, SourceStatus,
    WatchSnapshot,
};
use crate::units::FlowId;

/// Every flow, stored and running.
#[derive(Debug)]
pub struct Manager {
    engine: Engine,
    store: Arc<Store>,
    events: EventLog,
    limits: Limits,
    flows: RwLock<BTreeMap<FlowId, Arc<Slot>>>,
    /// Held while a flow is added, so that the limit is exact.
    adding: Mutex<()>,
    restored: AtomicBool,
}

/// What applies to all flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Flows that may exist.
    pub flows_max: usize,
    /// What applies where a flow says nothing.
    pub defaults: Defaults,
}

/// How many flows there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowCounts {
    /// All.
    pub total: usize,
    /// Those that run.
    pub active: usize,
}

/// A flow that runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Running {
    /// Which.
    pub id: FlowId,
    /// What people call it.
    pub name: String,
    /// Its counters.
    pub snapshot: FlowSnapshot,
}

/// What a start or stop has led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Which flow.
    pub id: FlowId,
    /// Its state now.
    pub status: FlowStatus,
    /// One sentence.
    pub message: &'static str,
}

#[derive(Debug)]
struct Slot {
    /// Whoever holds this may change the flow.
    turn: Mutex<()>,
    state: RwLock<State>,
}

#[derive(Clone, Debug)]
struct State {
    record: Record,
    /// What the record means; a problem if an older or newer version wrote what this one does not take.
    config: Result<FlowConfig, Problem>,
    /// Shown while a change is under way.
    transition: Option<FlowStatus>,
    /// Deleted while somebody was waiting for a turn.
    removed: bool,
}

impl Manager {
    /// Reads the stored flows and puts the `declared` ones among them. Nothing runs yet: see [`Manager::restore`].
    ///
    /// # Errors
    /// If the store fails, or the name of a declared flow belongs to several stored ones.
    pub fn open(
        engine: Engine,
        store: Arc<Store>,
        events: EventLog,
        limits: Limits,
        declared: &[Flow],
    ) -> Result<Self, Problem> {
        let mut flows = BTreeMap::new();
        for record in store.flows()? {
            let config = Wanted::new(record.flow.clone(), &limits.defaults).map(|wanted| wanted.config().clone());
            if let Err(problem) = &config {
                tracing::error!(flow = record.id.as_str(), cause = %problem, "stored flow cannot be used");
            }
            let transition = record.wanted_running.then_some(FlowStatus::Starting);
            let state = State { record, config, transition, removed: false };
            flows.insert(state.record.id.clone(), Arc::new(Slot::new(state)));
        }
        let restored = AtomicBool::new(false);
        let manager =
            Self { engine, store, events, limits, flows: RwLock::new(flows), adding: Mutex::default(), restored };
        declared.iter().try_for_each(|flow| manager.declare(flow))?;
        Ok(manager)
    }

    /// Starts every flow that ran when the process ended, or was declared for the first time. What cannot be opened
    /// yet is retried by the engine.
    pub fn restore(&self) {
        // In the order of creation: a flow that listens is declared before the one that feeds it.
        let mut slots = self.slots();
        slots.sort_by_key(|slot| slot.read().record.created);
        for slot in slots {
            let _turn = slot.take_turn();
            let State { record, config, removed, .. } = slot.read().clone();
            if record.wanted_running && !removed {
                let started = config.and_then(|config| {
                    self.engine.apply(&record.id, config, Mode::Lenient).map_err(|error| refused(error, &record.flow))
                });
                match started {
                    // Not worth a write to the disk per flow: every process sets it anew.
                    Ok(()) => slot.write().record.started = Some(clock::wall()),
                    Err(problem) => {
                        tracing::error!(flow = record.id.as_str(), cause = %problem, "flow cannot be started");
                    }
                }
            }
            slot.write().transition = None;
        }
        self.restored.store(true, Ordering::Release);
    }

    /// Whether [`Manager::restore`] is through.
    #[must_use]
    pub fn is_restored(&self) -> bool {
        self.restored.load(Ordering::Acquire)
    }

    /// Ends every running flow. They stay wanted: the next process starts them again.
    pub fn shutdown(&self) {
        self.engine.shutdown();
        self.events.flush();
    }

    /// Takes a new flow in; it does not run yet.
    ///
    /// # Errors
    /// The field at fault; too many flows; the store.
    pub fn create(&self, flow: Flow) -> Result<Flow, Problem> {
        let wanted = Wanted::new(flow, &self.limits.defaults)?;
        let slot = self.add(&wanted, false)?;
        Ok(self.view_of(&slot))
    }

    /// Every flow.
    #[must_use]
    pub fn list(&self) -> Vec<Flow> {
        let snapshots: BTreeMap<FlowId, FlowSnapshot> = self.engine.snapshots().into_iter().collect();
        let mut states: Vec<State> = self.slots().iter().map(|slot| slot.read().clone()).collect();
        states.sort_by_key(|state| state.record.created);
        states.iter().map(|state| view(state, snapshots.get(&state.record.id))).collect()
    }

    /// One flow.
    ///
    /// # Errors
    /// If there is none.
    pub fn flow(&self, id: &str) -> Result<Flow, Problem> {
        self.slot(id).map(|slot| self.view_of(&slot))
    }

    /// Takes a flow out, with its events; stops it first.
    ///
    /// # Errors
    /// If there is none; the store, and then it goes on.
    pub fn delete(&self, id: &str) -> Result<(), Problem> {
        let slot = self.slot(id)?;
        let _turn = slot.take_turn();
        let record = slot.record()?;
        self.store.delete(&record.id)?;
        slot.write().removed = true;
        write(&self.flows).remove(&record.id);
        let _was_running = self.engine.stop(&record.id);
        Ok(())
    }

    /// Starts a flow; all of its sources and outputs can be opened, or nothing happens.
    ///
    /// # Errors
    /// What could not be opened; the store.
    pub fn start(&self, id: &str) -> Result<Outcome, Problem> {
        let slot = self.slot(id)?;
        let _turn = slot.take_turn();
        let before = slot.record()?;
        if before.wanted_running && self.engine.snapshot(&before.id).is_some() {
            return Ok(self.outcome(&slot, "flow is running already"));
        }
        let config = slot.read().config.clone()?;
        slot.write().transition = Some(FlowStatus::Starting);
        let record = Record { wanted_running: true, started: Some(clock::wall()), ..before };
        let started = self.engine.apply(&record.id, config, Mode::Strict).map_err(|error| refused(error, &record.flow));
        let started = started.and_then(|()| {
            self.store.save(&record).map_err(|error| {
                let _was_running = self.engine.stop(&record.id);
                error.into()
            })
        });
        let mut state = slot.write();
        state.transition = None;
        started?;
        state.record = record;
        drop(state);
        Ok(self.outcome(&slot, "flow started"))
    }

    /// Stops a flow. One that stands already is no error.
    ///
    /// # Errors
    /// The store, and then the flow goes on.
    pub fn stop(&self, id: &str) -> Result<Outcome, Problem> {
        let slot = self.slot(id)?;
        let _turn = slot.take_turn();
        let before = slot.record()?;
        if !before.wanted_running {
            return Ok(self.outcome(&slot, "flow was not running"));
        }
        let record = Record { wanted_running: false, stopped: Some(clock::wall()), ..before };
        self.store.save(&record)?;
        slot.write().transition = Some(FlowStatus::Stopping);
        let _was_running = self.engine.stop(&record.id);
        let mut state = slot.write();
        state.transition = None;
        state.record = record;
        drop(state);
        Ok(self.outcome(&slot, "flow stopped"))
    }

    /// Gives a flow the top-level fields in `fields`; those that are not there keep their value.
    ///
    /// # Errors
    /// The field at fault; what could not be opened; the store.
    pub fn update(&self, id: &str, fields: Map<String, Value>) -> Result<Flow, Problem> {
        self.change(id, |flow| {
            let mut fields = fields;
            if fields.contains_key("source") {
                // Alone it is the only source, as in a new flow.
                fields.entry("sources").or_insert_with(|| Value::Array(Vec::new()));
            }
            overlay(&flow, fields).map(|new: Flow| Edit::whole(new.with_secrets_of(&flow)))
        })
    }

    /// Adds a source behind those that are there.
    ///
    /// # Errors
    /// The field at fault; the name is taken; what could not be opened; the store.
    pub fn add_source(&self, id: &str, source: Source) -> Result<Flow, Problem> {
        self.change(id, |mut flow| {
            check_free(flow.sources.iter().any(|other| other.name == source.name), "source", &source.name)?;
            let part = format!("sources[{}]", flow.sources.len());
            flow.sources.push(source);
            Ok(Edit { flow, part })
        })
    }

    /// Takes a source away, unless it is the last one.
    ///
    /// # Errors
    /// If there is none of that name, or only this one; the store.
    pub fn remove_source(&self, id: &str, name: &str) -> Result<Flow, Problem> {
        self.change(id, |mut flow| {
            let index = flow.sources.iter().position(|source| source.name == name);
            let index = index.ok_or_else(|| Problem::not_found("source", name))?;
            if flow.sources.len() == 1 {
                let message = "a flow needs at least one source: add another one first, or delete the flow";
                return Err(Problem::new(Code::LastSource, message));
            }
            flow.sources.remove(index);
            let priority = flow.source_failover_config.as_mut().and_then(|config| config.source_priority.as_mut());
            priority.filter(|priority| priority.primary_source.as_deref() == Some(name)).into_iter().for_each(
                |priority| {
                    priority.primary_source = None;
                },
            );
            Ok(Edit::whole(flow))
        })
    }

    /// Adds an output.
    ///
    /// # Errors
    /// The field at fault; the name is taken; what could not be opened; the store.
    pub fn add_output(&self, id: &str, output: Output) -> Result<Flow, Problem> {
        self.change(id, |mut flow| {
            check_free(flow.outputs.iter().any(|other| other.name == output.name), "output", &output.name)?;
            let part = format!("outputs[{}]", flow.outputs.len());
            flow.outputs.push(output);
            Ok(Edit { flow, part })
        })
    }

    /// Gives an output the fields in `fields`; those that are not there keep their value.
    ///
    /// # Errors
    /// If there is none of that name; the field at fault; what could not be opened; the store.
    pub fn update_output(&self, id: &str, name: &str, fields: Map<String, Value>) -> Result<Flow, Problem> {
        self.change(id, |mut flow| {
            let index = flow.outputs.iter().position(|output| output.name == name);
            let index = index.ok_or_else(|| Problem::not_found("output", name))?;
            let old = flow.clone();
            let mut output = flow.outputs.remove(index);
            if fields.get("url").is_some_and(|url| !url.is_null()) {
                // The URL says it all.
                (output.protocol, output.destination, output.port) = (None, None, None);
            }
            let output: Output = overlay(&output, fields)?;
            check_free(flow.outputs.iter().any(|other| other.name == output.name), "output", &output.name)?;
            flow.outputs.insert(index, output);
            let flow = flow.with_secrets_of(&old);
            Ok(Edit { flow, part: format!("outputs[{index}]") })
        })
    }

    /// Takes an output away.
    ///
    /// # Errors
    /// If there is none of that name; the store.
    pub fn remove_output(&self, id: &str, name: &str) -> Result<Flow, Problem> {
        self.change(id, |mut flow| {
            let index = flow.outputs.iter().position(|output| output.name == name);
            flow.outputs.remove(index.ok_or_else(|| Problem::not_found("output", name))?);
            Ok(Edit::whole(flow))
        })
    }

    /// A flow's counters.
    ///
    /// # Errors
    /// If there is no such flow, or it does not run.
    pub fn running(&self, id: &str) -> Result<Running, Problem> {
        let record = self.slot(id)?.record()?;
        let snapshot = self.engine.snapshot(&record.id);
        let snapshot = snapshot.ok_or_else(not_active)?;
        Ok(Running { id: record.id, name: record.flow.name, snapshot })
    }

    /// What is seen and heard of a flow; `None` if nothing of it is watched.
    ///
    /// # Errors
    /// If there is no such flow, or it does not run.
    pub fn watch(&self, id: &str) -> Result<Option<Box<WatchSnapshot>>, Problem> {
        let id = self.slot(id)?.record()?.id;
        let watch = self.engine.watch(&id);
        if watch.is_none() && self.engine.subscribe(&id).is_none() {
            return Err(not_active());
        }
        Ok(watch)
    }

    /// The counters of every flow that runs.
    #[must_use]
    pub fn all_running(&self) -> Vec<Running> {
        let flows = read(&self.flows);
        let named = self.engine.snapshots().into_iter().filter_map(|(id, snapshot)| {
            let name = flows.get(&id)?.read().record.flow.name.clone();
            Some(Running { id, name, snapshot })
        });
        named.collect()
    }

    /// How many flows there are.
    #[must_use]
    pub fn counts(&self) -> FlowCounts {
        let active = self.engine.snapshots().iter().filter(|pair| pair.1.status == FlowStatus::Active).count();
        FlowCounts { total: read(&self.flows).len(), active }
    }

    /// How much of the engine's packet memory is in use.
    #[must_use]
    pub fn pool_usage(&self) -> PoolUse {
        self.engine.pool_usage()
    }

    /// The latest events of one flow, or of all, newest first.
    ///
    /// # Errors
    /// If there is no such flow; the store.
    pub fn latest_events(&self, id: Option<&str>, limit: u32) -> Result<Vec<EventRecord>, Problem> {
        let flow = id.map(|id| self.slot(id)?.record().map(|record| record.id)).transpose()?;
        Ok(self.events.latest(flow.as_ref(), limit)?)
    }

    /// The event log.
    #[must_use]
    pub const fn events(&self) -> &EventLog {
        &self.events
    }

    fn declare(&self, flow: &Flow) -> Result<(), Problem> {
        let named: Vec<FlowId> = (self.slots().iter().map(|slot| slot.read().record.clone()))
            .filter(|record| record.flow.name == flow.name)
            .map(|record| record.id)
            .collect();
        match named.as_slice() {
            [] => self.add(&Wanted::new(flow.clone(), &self.limits.defaults)?, true).map(drop),
            [id] => self.change(id.as_str(), |_| Ok(Edit::whole(flow.clone()))).map(drop),
            several => {
                let message = format!(
                    "[[flow]] {} could be any of {} stored flows of that name: rename or delete all but one",
                    flow.name,
                    several.len()
                );
                Err(Problem::new(Code::DuplicateName, message))
            }
        }
    }

    fn add(&self, wanted: &Wanted, wanted_running: bool) -> Result<Arc<Slot>, Problem> {
        let _adding = lock(&self.adding);
        if read(&self.flows).len() >= self.limits.flows_max {
            let max = self.limits.flows_max;
            let message = format!("there are {max} flows, which is the limit: delete one or raise engine.max_flows");
            return Err(Problem::new(Code::TooManyFlows, message));
        }
        let id: FlowId = uuid::Uuid::new_v4().to_string().parse().map_err(internal)?;
        let now = clock::wall();
        let flow = wanted.flow().clone();
        let record = Record { id, flow, wanted_running, created: now, updated: now, started: None, stopped: None };
        self.store.save(&record)?;
        self.events.record(Event { flow: record.id.clone(), at: now, kind: EventKind::FlowCreated });
        let id = record.id.clone();
        let transition = wanted_running.then_some(FlowStatus::Starting);
        let slot =
            Arc::new(Slot::new(State { record, config: Ok(wanted.config().clone()), transition, removed: false }));
        write(&self.flows).insert(id, Arc::clone(&slot));
        Ok(slot)
    }

    /// Gives a flow what `edit` makes of it, in the engine if it runs, and in the store; or changes neither.
    fn change(&self, id: &str, edit: impl FnOnce(Flow) -> Result<Edit, Problem>) -> Result<Flow, Problem> {
        let slot = self.slot(id)?;
        let _turn = slot.take_turn();
        let before = slot.record()?;
        let Edit { flow, part } = edit(before.flow.clone())?;
        let wanted = Wanted::new(flow, &self.limits.defaults).map_err(|problem| problem.seen_from(&part))?;
        if *wanted.flow() == before.flow {
            return Ok(self.view_of(&slot));
        }
        let record = Record { flow: wanted.flow().clone(), updated: clock::wall(), ..before };
        let running = self.engine.snapshot(&record.id).is_some();
        if running {
            let applied = self.engine.apply(&record.id, wanted.config().clone(), Mode::Strict);
            applied.map_err(|error| refused(error, &record.flow).seen_from(&part))?;
        }
        if let Err(error) = self.store.save(&record) {
            if running {
                self.take_back(&slot);
            }
            return Err(error.into());
        }
        let mut state = slot.write();
        state.record = record;
        state.config = Ok(wanted.config().clone());
        drop(state);
        Ok(self.view_of(&slot))
    }

    fn take_back(&self, slot: &Slot) {
        let State { record, config, .. } = slot.read().clone();
        let result = config.map(|config| self.engine.apply(&record.id, config, Mode::Lenient));
        if let Ok(Err(error)) = result {
            tracing::error!(flow = record.id.as_str(), cause = %error, "a change that was not stored stays in force");
        }
    }

    fn slot(&self, id: &str) -> Result<Arc<Slot>, Problem> {
        let found = id.parse().ok().and_then(|id: FlowId| read(&self.flows).get(&id).cloned());
        found.ok_or_else(|| Problem::not_found("flow", id))
    }

    fn slots(&self) -> Vec<Arc<Slot>> {
        read(&self.flows).values().cloned().collect()
    }

    fn view_of(&self, slot: &Slot) -> Flow {
        let state = slot.read().clone();
        view(&state, self.engine.snapshot(&state.record.id).as_ref())
    }

    fn outcome(&self, slot: &Slot, message: &'static str) -> Outcome {
        let state = slot.read().clone();
        let snapshot = self.engine.snapshot(&state.record.id);
        Outcome { status: status(&state, snapshot.as_ref()), id: state.record.id, message }
    }
}

/// A changed flow.
struct Edit {
    flow: Flow,
    /// The part that whoever asked has sent; empty for the whole.
    part: String,
}

impl Edit {
    const fn whole(flow: Flow) -> Self {
        Self { flow, part: String::new() }
    }
}

impl Slot {
    const fn new(state: State) -> Self {
        Self { turn: Mutex::new(()), state: RwLock::new(state) }
    }

    fn take_turn(&self) -> MutexGuard<'_, ()> {
        lock(&self.turn)
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        read(&self.state)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        write(&self.state)
    }

    /// The record, unless the flow is gone.
    fn record(&self) -> Result<Record, Problem> {
        let state = self.read();
        if state.removed { Err(Problem::not_found("flow", state.record.id.as_str())) } else { Ok(state.record.clone()) }
    }
}

fn not_active() -> Problem {
    Problem::new(Code::NotActive, "the flow does not run: start it first")
}

fn status(state: &State, snapshot: Option<&FlowSnapshot>) -> FlowStatus {
    let stands = if state.record.wanted_running { FlowStatus::Error } else { FlowStatus::Standby };
    state.transition.or_else(|| snapshot.map(|snapshot| snapshot.status)).unwrap_or(stands)
}

/// A flow as answers show it: with what only the server knows, without secrets.
fn view(state: &State, snapshot: Option<&FlowSnapshot>) -> Flow {
    let record = &state.record;
    let mut flow = record.flow.clone().without_secrets();
    for source in &mut flow.sources {
        let live = snapshot.and_then(|flow| flow.sources.iter().find(|live| live.name.as_str() == source.name));
        source.status = Some(live.map_or(SourceStatus::Disconnected, |live| live.status).to_string());
    }
    Flow {
        id: Some(record.id.to_string()),
        status: Some(status(state, snapshot).to_string()),
        source: flow.sources.first().cloned(),
        created_at: Some(rfc3339(record.created)),
        updated_at: Some(rfc3339(record.updated)),
        started_at: record.started.map(rfc3339),
        stopped_at: record.stopped.map(rfc3339),
        ..flow
    }
}

/// `model` with `fields` in the place of its own.
fn overlay<Model>(model: &Model, fields: Map<String, Value>) -> Result<Model, Problem>
where
    Model: Serialize + serde::de::DeserializeOwned,
{
    let mut value = serde_json::to_value(model).map_err(internal)?;
    value.as_object_mut().into_iter().for_each(|object| object.extend(fields.clone()));
    from_value(value)
}

/// What the engine refused, with the field that the user wrote.
fn refused(error: ApplyError, flow: &Flow) -> Problem {
    let leaf = match error.field {
        Field::Source(index) => flow.sources.get(index).map(|source| match source.url {
            Some(_) => "url",
            None => "ingest_port",
        }),
        Field::Output(index) => flow.outputs.get(index).map(|output| match output.url {
            Some(_) => "url",
            None => "destination",
        }),
        Field::Flow | Field::Sources | Field::Outputs | Field::Failover => None,
    };
    let mut problem = Problem::from(error);
    let can_be_leaf = matches!(problem.code, Code::PortInUse | Code::CannotOpen);
    if let (true, Some(leaf), Some(field)) = (can_be_leaf, leaf, &mut problem.field) {
        *field = format!("{field}.{leaf}");
    }
    problem
}

fn check_free(taken: bool, what: &str, name: &str) -> Result<(), Problem> {
    let message = || format!("this flow has {what} {name} already: choose another name");
    if taken { Err(Problem::at("name", Code::NameTaken, message())) } else { Ok(()) }
}

fn internal(error: impl std::fmt::Display) -> Problem {
    Problem::new(Code::Internal, error.to_string())
}

// What is behind these locks is replaced as a whole, so that a panic in between leaves nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use serde_json::json;
    use tempfile::TempDir;

    use super::*;
    use crate::engine::EngineConfig;

    #[test]
    fn what_cannot_be_stored_is_taken_back() {
        let bench = Bench::new();
        let manager = bench.open(&[]).unwrap();
        let id = running(&manager, "news");
        manager.store.fail_writes(true);
        let refused = manager.add_output(&id, output("two")).unwrap_err();
        assert_eq!(refused.code, Code::Storage);
        assert_eq!(manager.running(&id).unwrap().snapshot.outputs.len(), 1);
        assert_eq!(manager.flow(&id).unwrap().outputs.len(), 1);
        assert_eq!(manager.stop(&id).unwrap_err().code, Code::Storage);
        assert_eq!(manager.delete(&id).unwrap_err().code, Code::Storage);
        assert_eq!(manager.flow(&id).unwrap().status.as_deref(), Some("ACTIVE"));
        manager.store.fail_writes(false);
        assert_eq!(manager.add_output(&id, output("two")).unwrap().outputs.len(), 2);
        assert_eq!(manager.stop(&id).unwrap().status, FlowStatus::Standby);
    }

    #[test]
    fn a_start_that_cannot_be_stored_is_taken_back() {
        let bench = Bench::new();
        let manager = bench.open(&[]).unwrap();
        let id = manager.create(flow("news")).unwrap().id.unwrap();
        manager.store.fail_writes(true);
        assert_eq!(manager.start(&id).unwrap_err().code, Code::Storage);
        assert_eq!(manager.create(flow("more")).unwrap_err().code, Code::Storage);
        assert_eq!(manager.flow(&id).unwrap().status.as_deref(), Some("STANDBY"));
        assert_eq!(manager.counts(), FlowCounts { total: 1, active: 0 });
    }

    #[test]
    fn flows_that_ran_run_again_even_if_a_port_is_taken_for_now() {
        let bench = Bench::new();
        let manager = bench.open(&[]).unwrap();
        let id = running(&manager, "news");
        let listen = manager.flow(&id).unwrap().sources[0].url.clone().unwrap();
        manager.shutdown();
        drop(manager);
        let taken = UdpSocket::bind(listen.strip_prefix("udp://").unwrap()).unwrap();
        let manager = bench.open(&[]).unwrap();
        assert_eq!(manager.flow(&id).unwrap().status.as_deref(), Some("STARTING"));
        assert!(!manager.is_restored());
        manager.restore();
        assert!(manager.is_restored());
        assert_eq!(manager.flow(&id).unwrap().status.as_deref(), Some("ERROR"));
        assert!(manager.running(&id).is_ok());
        drop(taken);
    }

    #[test]
    fn the_limit_of_flows_is_exact() {
        let bench = Bench { limits: Limits { flows_max: 2, ..limits() }, ..Bench::new() };
        let manager = bench.open(&[]).unwrap();
        let made = std::thread::scope(|scope| {
            let create = || manager.create(flow("news")).is_ok();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(create)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).filter(|made| *made).count()
        });
        assert_eq!(made, 2);
        assert_eq!(manager.create(flow("news")).unwrap_err().code, Code::TooManyFlows);
    }

    #[test]
    fn a_declared_name_that_two_flows_have_is_ambiguous() {
        let bench = Bench::new();
        let manager = bench.open(&[]).unwrap();
        manager.create(flow("news")).unwrap();
        manager.create(flow("news")).unwrap();
        drop(manager);
        assert_eq!(bench.open(&[flow("news")]).unwrap_err().code, Code::DuplicateName);
    }

    #[test]
    fn a_stored_flow_that_means_nothing_any_more_hurts_no_other() {
        let bench = Bench::new();
        let manager = bench.open(&[]).unwrap();
        let good = running(&manager, "good");
        let bad = running(&manager, "bad");
        let mut record = manager.slot(&bad).unwrap().record().unwrap();
        record.flow.sources[0].url = Some("gopher://x".into());
        manager.store.save(&record).unwrap();
        manager.shutdown();
        drop(manager);
        let manager = bench.open(&[]).unwrap();
        manager.restore();
        assert_eq!(manager.flow(&good).unwrap().status.as_deref(), Some("ACTIVE"));
        assert_eq!(manager.flow(&bad).unwrap().status.as_deref(), Some("ERROR"));
        assert_eq!(manager.start(&bad).unwrap_err().field.as_deref(), Some("sources[0].url"));
        assert!(manager.update(&bad, Map::from_iter([("source".into(), json!(flow("x").source))])).is_ok());
    }

    #[test]
    fn the_primary_that_goes_is_primary_no_more() {
        let bench = Bench::new();
        let manager = bench.open(&[]).unwrap();
        let mut two = flow("news");
        two.sources = vec![source("a"), source("b")];
        two.source = None;
        let priority = json!({ "source_priority": { "primary_source": "b" } });
        two.source_failover_config = serde_json::from_value(priority).unwrap();
        let id = manager.create(two).unwrap().id.unwrap();
        let left = manager.remove_source(&id, "b").unwrap();
        assert_eq!(left.source_failover_config.unwrap().source_priority.unwrap().primary_source, None);
    }

    struct Bench {
        directory: TempDir,
        limits: Limits,
    }

    impl Bench {
        fn new() -> Self {
            Self { directory: tempfile::tempdir().unwrap(), limits: limits() }
        }

        fn open(&self, declared: &[Flow]) -> Result<Manager, Problem> {
            let store = Arc::new(Store::open(&self.directory.path().join("test.db")).unwrap());
            let events = EventLog::start(Arc::clone(&store)).unwrap();
            let log = events.clone();
            let config = EngineConfig { workers: 1, ..EngineConfig::default() };
            let engine = Engine::start(&config, move |event| log.record(event)).unwrap();
            Manager::open(engine, store, events, self.limits, declared)
        }
    }

    fn limits() -> Limits {
        Limits { flows_max: 10, defaults: Defaults::default() }
    }

    fn running(manager: &Manager, name: &str) -> String {
        let id = manager.create(flow(name)).unwrap().id.unwrap();
        assert_eq!(manager.start(&id).unwrap().status, FlowStatus::Active);
        id
    }

    fn flow(name: &str) -> Flow {
        Flow { name: name.into(), source: Some(source("main")), outputs: vec![output("one")], ..Flow::default() }
    }

    fn source(name: &str) -> Source {
        let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        Source { name: name.into(), url: Some(format!("udp://{free}")), ..Source::default() }
    }

    fn output(name: &str) -> Output {
        Output { name: name.into(), url: Some("udp://127.0.0.1:9".into()), ..Output::default() }
    }
}
