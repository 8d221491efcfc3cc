//! A running flow as the supervisor sees it: what is in force, where each part sits, what failed and when to try again.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

#[cfg(not(feature = "media"))]
use super::blind::FlowEyes;
use super::config::{
    FailoverMode, FlowConfig, MonitorConfig, OutputConfig, OutputEndpoint, SourceConfig, SourceEndpoint,
};
use super::diff::{self, Step};
use super::error::{ApplyError, Cause, Field};
use super::event::EventKind;
#[cfg(feature = "media")]
use super::eyes::FlowEyes;
use super::flow::{FlowCounters, Inside, OutputSlot, RunningFlow, SourceSlot};
use super::resolver::{Addresses, Opened, Resolver};
use super::snapshot::Role;
use super::stage;
use super::stats::{FlowSnapshot, OutputSnapshot, SourceSnapshot};
use super::status::{FlowStatus, SourceStatus};
use super::supervisor::{Message, Mode, Wanted};
use super::{output, source};
use crate::adapters::clock;
use crate::adapters::{ActorKey, Commands, Context, Counters, Driven, Granted, Host, LegView, OpenError, Ports};
use crate::bus::{Pool, Publisher, Subscribe};
use crate::units::{FlowId, OutputName, SourceName, Time};

pub(super) struct ManagedFlow {
    worker: usize,
    commands: Commands<RunningFlow>,
    key: ActorKey,
    pub(super) pool: Pool,
    ports: Ports,
    subscribe: Subscribe,
    pub(super) counters: Arc<FlowCounters>,
    started: Time,
    /// In force; `None` until the first configuration was applied.
    config: Option<FlowConfig>,
    pub(super) id: FlowId,
    resolver: Resolver,
    pub(super) eyes: FlowEyes,
    /// In configured order, as are the outputs.
    pub(super) sources: Vec<Managed<SourceConfig, SourceSlot>>,
    outputs: Vec<Managed<OutputConfig, OutputSlot>>,
}

/// A source or an output, open or not.
pub(super) struct Managed<C, S> {
    pub(super) config: C,
    pub(super) slot: S,
    pub(super) state: State,
    /// Of what is being opened anew, to be gone on with.
    counters: Option<Arc<Counters>>,
    retry_attempts: u32,
    pub(super) retry_total: u64,
    retry_due: Option<Time>,
}

pub(super) enum State {
    Open {
        counters: Arc<Counters>,
        receive_buffer: Granted,
        send_buffer: Granted,
        /// Where an output has several.
        legs: Vec<LegView>,
    },
    Failed {
        error: OpenError,
    },
    /// The name of its address is being looked up.
    LookingUp,
    Disabled,
}

type Tell<'a> = &'a mut dyn FnMut(EventKind);

impl ManagedFlow {
    /// A flow without sources or outputs, on its worker.
    pub(super) fn new(
        id: FlowId,
        wanted: &FlowConfig,
        (worker, commands): (usize, Commands<RunningFlow>),
        (pool, ports): (Pool, Ports),
        ring_packets: usize,
        supervisor: SyncSender<Message>,
        (resolver, eyes): (Resolver, FlowEyes),
    ) -> Result<Self, ApplyError> {
        let counters = Arc::new(FlowCounters::default());
        let publisher = Publisher::new(pool.clone(), ring_packets);
        // In a new flow a source's slot is its index: the first packets already meet the right primary.
        let primary = wanted.sources.iter().position(|source| Some(&source.name) == diff::primary(wanted));
        let primary = primary.map(|index| index as u8);
        let flow = RunningFlow::new(
            id.clone(),
            publisher,
            stage::Config::new(wanted, primary),
            Arc::clone(&counters),
            supervisor,
        );
        let subscribe = flow.subscribe();
        let key = commands.insert(flow).map_err(|_| worker_ended())?;
        let started = clock::now();
        let (sources, outputs) = (Vec::new(), Vec::new());
        Ok(Self {
            worker,
            commands,
            key,
            pool,
            ports,
            subscribe,
            counters,
            started,
            config: None,
            id,
            resolver,
            eyes,
            sources,
            outputs,
        })
    }

    /// In force; `None` until the first one was applied.
    pub(super) const fn config(&self) -> Option<&FlowConfig> {
        self.config.as_ref()
    }

    pub(super) const fn started(&self) -> Time {
        self.started
    }

    pub(super) const fn worker(&self) -> usize {
        self.worker
    }

    pub(super) fn subscribe(&self) -> Subscribe {
        self.subscribe.clone()
    }

    /// Takes the flow off its worker; its sockets close.
    pub(super) fn close(&self) {
        let _ended_anyway = self.commands.remove(self.key);
    }

    /// Changes what differs from `wanted`.
    pub(super) fn apply(&mut self, wanted: Wanted, tell: Tell<'_>) -> Result<(), ApplyError> {
        let steps = diff::diff(self.config.as_ref(), &wanted.config);
        let opened = match self.open_all(&steps, &wanted, tell) {
            Ok(opened) => opened,
            Err(error) => {
                if self.config.is_none() {
                    self.close();
                }
                return Err(error);
            }
        };
        let wanted = wanted.config;
        for (step, opened) in steps.iter().zip(opened) {
            self.carry_out(step, opened, &wanted, tell);
        }
        let position = |name: &SourceName| wanted.sources.iter().position(|source| source.name == *name);
        self.sources.sort_by_key(|source| position(&source.config.name));
        let position = |name: &OutputName| wanted.outputs.iter().position(|output| output.name == *name);
        self.outputs.sort_by_key(|output| position(&output.config.name));
        self.config = Some(wanted);
        self.adjust_eyes();
        Ok(())
    }

    /// Opens everything that the steps need before anything is changed.
    fn open_all(&mut self, steps: &[Step], wanted: &Wanted, tell: Tell<'_>) -> Result<Vec<Option<Opened>>, ApplyError> {
        let mut all = Vec::with_capacity(steps.len());
        let mut vacated = false;
        if steps.iter().any(|step| replaces_multicast(step, &wanted.config)) {
            // Two sockets of one group would both get what comes meanwhile.
            vacated = true;
            self.vacate(steps, &wanted.config);
        }
        for step in steps {
            let mut opened = self.open_for(step, wanted);
            if matches!(opened, Some(Opened::Failed(OpenError::InUse { .. }))) && !vacated {
                // The port may be held by what this very change closes.
                vacated = true;
                self.vacate(steps, &wanted.config);
                opened = self.open_for(step, wanted);
            }
            if wanted.mode == Mode::Strict
                && let Some(Opened::Failed(error)) = &opened
            {
                let error = ApplyError { field: field(step), cause: error.clone().into() };
                if vacated {
                    // What was opened for the change may hold the very ports that are wanted back.
                    drop(all);
                    self.reopen_vacated(steps, &wanted.config, tell);
                }
                return Err(error);
            }
            all.push(opened);
        }
        Ok(all)
    }

    /// `None` for a step that opens nothing.
    fn open_for(&self, step: &Step, wanted: &Wanted) -> Option<Opened> {
        match *step {
            Step::AddSource(index) | Step::ReplaceSource(index) => {
                Some(source::open(&wanted.config.sources[index], &wanted.addresses, (&self.pool, &self.ports)))
            }
            Step::AddOutput(index) | Step::ReplaceOutput(index) => Some(output::open(
                &wanted.config.outputs[index],
                &wanted.addresses,
                (&self.pool, &self.ports),
                wanted.mode,
            )),
            Step::Legs(index) => output::check_legs(&wanted.config.outputs[index]).err().map(Opened::Failed),
            Step::RemoveSource(_)
            | Step::RemoveOutput(_)
            | Step::Reading(_)
            | Step::TuneSource(..)
            | Step::TuneOutput(..)
            | Step::Failover
            | Step::Monitor => None,
        }
    }

    /// Closes the sockets of every source, and every output that holds a port, that the steps remove or replace.
    fn vacate(&self, steps: &[Step], wanted: &FlowConfig) {
        for source in self.sources.iter().filter(|source| is_doomed_source(&source.config.name, steps, wanted)) {
            let slot = source.slot;
            self.visit(move |flow, cx| flow.close_source(cx, slot));
        }
        for output in self.outputs.iter().filter(|output| is_doomed_output(&output.config, steps, wanted)) {
            let slot = output.slot;
            self.visit(move |flow, cx| flow.remove_output(cx, slot));
        }
    }

    /// The change was refused after all: opens again what [`ManagedFlow::vacate`] closed.
    fn reopen_vacated(&mut self, steps: &[Step], wanted: &FlowConfig, tell: Tell<'_>) {
        for index in 0..self.sources.len() {
            if is_doomed_source(&self.sources[index].config.name, steps, wanted) {
                let opened =
                    source::open(&self.sources[index].config, &Addresses::default(), (&self.pool, &self.ports));
                // If somebody else has taken the port in between, this tells.
                self.place_source(index, opened, tell);
            }
        }
        for index in 0..self.outputs.len() {
            if is_doomed_output(&self.outputs[index].config, steps, wanted) {
                let opened = output::open(
                    &self.outputs[index].config,
                    &Addresses::default(),
                    (&self.pool, &self.ports),
                    Mode::Lenient,
                );
                self.place_output(index, opened, tell);
            }
        }
    }

    /// `opened` is what [`ManagedFlow::open_for`] gave for the step.
    fn carry_out(&mut self, step: &Step, opened: Option<Opened>, wanted: &FlowConfig, tell: Tell<'_>) {
        let opened = || opened.unwrap_or(Opened::Disabled);
        match step {
            Step::RemoveSource(name) => self.remove_source(name),
            Step::RemoveOutput(name) => self.remove_output(name),
            Step::AddSource(index) => {
                let slot = SourceSlot(lowest_free(self.sources.iter().map(|source| usize::from(source.slot.0))) as u8);
                self.sources.push(Managed::new(wanted.sources[*index].clone(), slot));
                self.place_source(self.sources.len() - 1, opened(), tell);
            }
            Step::ReplaceSource(index) => {
                let config = &wanted.sources[*index];
                if let Some(at) = self.sources.iter().position(|source| source.config.name == config.name) {
                    self.sources[at].config = config.clone();
                    self.place_source(at, opened(), tell);
                }
            }
            Step::AddOutput(index) => {
                let slot = OutputSlot(lowest_free(self.outputs.iter().map(|output| usize::from(output.slot.0))) as u16);
                self.outputs.push(Managed::new(wanted.outputs[*index].clone(), slot));
                self.place_output(self.outputs.len() - 1, opened(), tell);
            }
            Step::ReplaceOutput(index) => {
                let config = &wanted.outputs[*index];
                if let Some(at) = self.outputs.iter().position(|output| output.config.name == config.name) {
                    self.outputs[at].counters = None;
                    self.outputs[at].config = config.clone();
                    self.place_output(at, opened(), tell);
                }
            }
            Step::Reading(index) => {
                let config = &wanted.outputs[*index];
                if let Some(output) = self.outputs.iter_mut().find(|output| output.config.name == config.name) {
                    output.config = config.clone();
                    let (slot, coalesce, policy) = (output.slot, config.coalesce, config.policy);
                    self.visit(move |flow, _cx| flow.set_reading(slot, coalesce, policy));
                }
            }
            Step::TuneSource(index, tuning) => {
                let config = &wanted.sources[*index];
                if let Some(source) = self.sources.iter_mut().find(|source| source.config.name == config.name) {
                    source.config = config.clone();
                    let (slot, tuning) = (source.slot, *tuning);
                    self.visit(move |flow, cx| flow.tune_source(cx, slot, &tuning));
                }
            }
            Step::TuneOutput(index, tuning) => {
                let config = &wanted.outputs[*index];
                if let Some(output) = self.outputs.iter_mut().find(|output| output.config.name == config.name) {
                    output.config = config.clone();
                    let (slot, tuning) = (output.slot, *tuning);
                    self.visit(move |flow, cx| flow.tune_output(cx, slot, &tuning));
                }
            }
            Step::Legs(index) => self.set_legs(&wanted.outputs[*index], tell),
            Step::Failover => {
                let primary = diff::primary(wanted);
                let primary = self.sources.iter().find(|source| Some(&source.config.name) == primary);
                let config = stage::Config::new(wanted, primary.map(|source| source.slot.0));
                self.visit(move |flow, cx| flow.set_stage(cx, config));
            }
            Step::Monitor => {
                let monitor = wanted.monitor.clone();
                self.visit(move |flow, cx| flow.set_monitor(cx.now, monitor));
            }
        }
    }

    /// Legs that stay go on; if the output is not open, it is tried with the new ones.
    fn set_legs(&mut self, wanted: &OutputConfig, tell: Tell<'_>) {
        let Some(at) = self.outputs.iter().position(|output| output.config.name == wanted.name) else { return };
        let slot = self.outputs[at].slot;
        self.outputs[at].config = wanted.clone();
        match (&self.outputs[at].state, &wanted.endpoint) {
            (State::Open { .. }, OutputEndpoint::Rtp(rtp)) => {
                let rtp = rtp.clone();
                let views = self.visit(move |flow, cx| flow.set_legs(cx, slot, &rtp)).unwrap_or_default();
                if let State::Open { legs, .. } = &mut self.outputs[at].state {
                    *legs = views;
                }
            }
            (State::Failed { .. }, _) => {
                let opened = output::open(wanted, &Addresses::default(), (&self.pool, &self.ports), Mode::Lenient);
                self.place_output(at, opened, tell);
            }
            (State::Open { .. } | State::LookingUp | State::Disabled, _) => {}
        }
    }

    fn remove_source(&mut self, name: &SourceName) {
        if let Some(at) = self.sources.iter().position(|source| source.config.name == *name) {
            let slot = self.sources.remove(at).slot;
            self.eyes.forget_source(slot);
            self.visit(move |flow, cx| flow.remove_source(cx, slot));
        }
    }

    fn remove_output(&mut self, name: &OutputName) {
        if let Some(at) = self.outputs.iter().position(|output| output.config.name == *name) {
            let slot = self.outputs.remove(at).slot;
            self.visit(move |flow, cx| flow.remove_output(cx, slot));
        }
    }

    fn place_source(&mut self, at: usize, opened: Opened, tell: Tell<'_>) {
        let (slot, name) = (self.sources[at].slot, self.sources[at].config.name.clone());
        self.eyes.forget_source(slot);
        let state = match opened {
            Opened::Ready(driver) => {
                let state = State::of(&*driver);
                let placed = name.clone();
                let result = self.visit(move |flow, cx| flow.set_source(cx, slot, placed, driver));
                result
                    .unwrap_or_else(worker_gone)
                    .map_or_else(|error| State::Failed { error: refused(&error) }, |()| state)
            }
            Opened::Failed(error) => self.without_source(slot, State::Failed { error }),
            Opened::Disabled => self.without_source(slot, State::Disabled),
            Opened::Nameless(host) => {
                let state = self.look_up(host);
                self.without_source(slot, state)
            }
        };
        let source = &mut self.sources[at];
        match &state {
            State::Failed { error } => {
                tell(EventKind::SourceError { source: name.clone(), error: error.to_string() });
                let wait = source.schedule_retry();
                tell(EventKind::SourceRetry { source: name, attempt: source.retry_attempts, wait });
            }
            State::LookingUp => source.retry_due = None,
            State::Open { .. } | State::Disabled => drop(source.forget_retry()),
        }
        source.state = state;
    }

    fn place_output(&mut self, at: usize, opened: Opened, tell: Tell<'_>) {
        let output = &mut self.outputs[at];
        let mut is_reopened = false;
        let (slot, name) = (output.slot, output.config.name.clone());
        let state = match opened {
            Opened::Ready(mut driver) => {
                if let Some(counters) = output.counters.take() {
                    is_reopened = true;
                    driver.adopt(counters);
                }
                let state = State::of(&*driver);
                let config = output.config.clone();
                let result = self.visit(move |flow, cx| flow.set_output(cx, slot, &config, driver));
                result
                    .unwrap_or_else(worker_gone)
                    .map_or_else(|error| State::Failed { error: refused(&error) }, |()| state)
            }
            Opened::Failed(error) => self.without_output(slot, State::Failed { error }),
            Opened::Disabled => self.without_output(slot, State::Disabled),
            Opened::Nameless(host) => {
                let state = self.look_up(host);
                self.without_output(slot, state)
            }
        };
        let output = &mut self.outputs[at];
        match &state {
            State::Failed { error } => {
                tell(EventKind::OutputError { output: name, error: error.to_string() });
                output.schedule_retry();
            }
            // Whether it helped, the driver tells; until then the next attempt is due.
            State::Open { .. } if is_reopened => {
                if output.retry_due.is_none() {
                    output.schedule_retry();
                }
            }
            State::Open { .. } if output.forget_retry() => tell(EventKind::OutputRecovered { output: name }),
            State::Disabled => drop(output.forget_retry()),
            State::LookingUp => output.retry_due = None,
            State::Open { .. } => {}
        }
        output.state = state;
    }

    /// Has a name looked up; [`ManagedFlow::handle_looked_up`] goes on.
    fn look_up(&self, host: String) -> State {
        if self.resolver.ask(&self.id, &host) {
            return State::LookingUp;
        }
        State::Failed { error: OpenError::Resolve { host, problem: "too many names wait".into() } }
    }

    /// The source is in no state to receive: closes what may be left of it.
    fn without_source(&self, slot: SourceSlot, state: State) -> State {
        self.visit(move |flow, cx| flow.close_source(cx, slot));
        state
    }

    /// The output is in no state to send: takes what may be left of it off the worker.
    fn without_output(&self, slot: OutputSlot, state: State) -> State {
        self.visit(move |flow, cx| flow.remove_output(cx, slot));
        state
    }

    /// What an output sends is refused: its route, its own address or its peer's may have changed, so it is opened anew.
    pub(super) fn handle_send_fails(&mut self, name: &OutputName) {
        let output = self.outputs.iter_mut().find(|output| output.config.name == *name);
        if let Some(output) = output.filter(|output| output.retry_due.is_none()) {
            output.schedule_retry();
        }
    }

    /// A name was looked up: opens what waits for it.
    pub(super) fn handle_looked_up(&mut self, name: String, answer: Result<IpAddr, OpenError>, tell: Tell<'_>) {
        let host = Host::Name(name.clone());
        let addresses = Addresses::single(name, answer);
        for at in 0..self.sources.len() {
            let source = &self.sources[at];
            let called = source.config.endpoint.called();
            if matches!(source.state, State::LookingUp) && called.is_some_and(|called| called.host == host) {
                let opened = source::open(&source.config, &addresses, (&self.pool, &self.ports));
                self.place_source(at, opened, tell);
            }
        }
        for at in 0..self.outputs.len() {
            let output = &self.outputs[at];
            if matches!(output.state, State::LookingUp) && output.config.endpoint.destination().host == host {
                let opened = output::open(&output.config, &addresses, (&self.pool, &self.ports), Mode::Lenient);
                self.place_output(at, opened, tell);
            }
        }
        self.adjust_eyes();
    }

    /// When something that failed shall be opened again, or sources be looked at.
    pub(super) fn retry_due(&self) -> Option<Time> {
        let sources = self.sources.iter().filter_map(|source| source.retry_due);
        let outputs = self.outputs.iter().filter_map(|output| output.retry_due);
        sources.chain(outputs).chain(self.eyes.look_due()).min()
    }

    /// Opens again what is due.
    pub(super) fn retry(&mut self, now: Time, tell: Tell<'_>) {
        for at in 0..self.sources.len() {
            if self.sources[at].take_retry(now) {
                let opened = source::open(&self.sources[at].config, &Addresses::default(), (&self.pool, &self.ports));
                self.place_source(at, opened, tell);
                self.adjust_eyes();
            }
        }
        self.look(now);
        for at in 0..self.outputs.len() {
            let output = &mut self.outputs[at];
            if output.take_retry(now) {
                if let State::Open { counters, .. } = &output.state {
                    if counters.failing.value() == 0 {
                        output.forget_retry();
                        continue;
                    }
                    output.counters = Some(Arc::clone(counters));
                    output.schedule_retry();
                    if output.config.endpoint.holds_port() {
                        // Its port must be free before it can be opened again.
                        let slot = output.slot;
                        self.visit(move |flow, cx| flow.remove_output(cx, slot));
                    }
                }
                let opened = output::open(
                    &self.outputs[at].config,
                    &Addresses::default(),
                    (&self.pool, &self.ports),
                    Mode::Lenient,
                );
                self.place_output(at, opened, tell);
            }
        }
    }

    /// Runs `visit` on the worker; `None` if the flow crashed there, and will be told of, or the engine is ending.
    pub(super) fn visit<R: Send + 'static>(
        &self,
        visit: impl FnOnce(&mut RunningFlow, &mut Context<'_>) -> R + Send + 'static,
    ) -> Option<R> {
        self.commands.visit(self.key, visit).ok().flatten()
    }

    fn events_dropped(&self) -> u64 {
        let sources: u64 = self.sources.iter().map(Managed::events_dropped).sum();
        let outputs: u64 = self.outputs.iter().map(Managed::events_dropped).sum();
        let of_flow = self.counters.events_dropped.value() + self.counters.watch_events_dropped.value();
        of_flow + sources + outputs
    }

    /// Takes the flow off its worker and tells what it counted to its very end.
    pub(super) fn finish(&self) -> FlowSnapshot {
        let flow = self.commands.remove(self.key).ok().flatten();
        self.snapshot_of(clock::now(), flow.map(|flow| flow.inside()).unwrap_or_default())
    }

    /// Asks the worker where sources are merged, or analysed.
    pub(super) fn snapshot(&self, now: Time) -> FlowSnapshot {
        let is_more = |config: &FlowConfig| {
            config.failover.mode != FailoverMode::Failover || config.monitor != MonitorConfig::default()
        };
        let inside = self.config.as_ref().is_some_and(is_more).then(|| self.visit(|flow, _cx| flow.inside()));
        self.snapshot_of(now, inside.flatten().unwrap_or_default())
    }

    fn snapshot_of(&self, now: Time, Inside { merge, findings }: Inside) -> FlowSnapshot {
        let slots = self.sources.iter().map(|source| (source.slot.0, &source.config.name));
        let merge = merge.map(|merge| merge.named(slots));
        let active = self.counters.active.value().checked_sub(1);
        let role = |source: &Managed<SourceConfig, SourceSlot>| match &merge {
            None => {
                let (selected, fault) = (active == Some(u64::from(source.slot.0)), self.counters.fault(source.slot));
                Role { selected, merged: false, fault }
            }
            Some(merge) => {
                let mut legs = merge.legs.iter();
                let selected = legs.any(|(name, leg)| *name == source.config.name && leg.is_alive && leg.is_merged);
                Role { selected, merged: selected && merge.is_active(), fault: None }
            }
        };
        let switches = self.counters.switches();
        let health_timeout = self.config.as_ref().map_or(Duration::ZERO, |config| config.failover.health_timeout);
        let mut sources: Vec<SourceSnapshot> =
            self.sources.iter().map(|source| source.snapshot(now, role(source), health_timeout)).collect();
        for (slot, ts) in findings.sources {
            if let Some(at) = self.sources.iter().position(|source| source.slot.0 == slot) {
                sources[at].ts = Some(ts);
            }
        }
        let mut outputs: Vec<OutputSnapshot> = self.outputs.iter().map(|output| output.snapshot(now)).collect();
        for (slot, ts) in findings.outputs {
            if let Some(at) = self.outputs.iter().position(|output| output.slot.0 == slot) {
                outputs[at].ts = Some(ts);
            }
        }
        let all_failed = sources.iter().all(|source| source.status == SourceStatus::Error);
        FlowSnapshot {
            status: if all_failed { FlowStatus::Error } else { FlowStatus::Active },
            active_source: sources.iter().find(|source| source.selected).map(|source| source.name.clone()),
            uptime: now.since(self.started),
            failover_total: switches.total() + self.counters.returns.value(),
            switches,
            primary_return_total: self.counters.returns.value(),
            key_frame_timeout_total: self.counters.key_frame_timeouts.value(),
            events_dropped_total: self.events_dropped(),
            merge,
            merged_ts: findings.merged,
            #[cfg(feature = "media")]
            watch: self.watch_snapshot(),
            sources,
            outputs,
        }
    }
}

impl<C, S> Managed<C, S> {
    /// Events of its driver that were dropped.
    fn events_dropped(&self) -> u64 {
        if let State::Open { counters, .. } = &self.state { counters.events_dropped.value() } else { 0 }
    }

    const fn new(config: C, slot: S) -> Self {
        let (state, counters) = (State::Disabled, None);
        Self { config, slot, state, counters, retry_attempts: 0, retry_total: 0, retry_due: None }
    }

    /// Capped exponential backoff with jitter; returns the wait.
    fn schedule_retry(&mut self) -> Duration {
        let doubled = RETRY_FIRST.saturating_mul(1 << self.retry_attempts.min(10));
        let wait = doubled.min(RETRY_LONGEST).mul_f64(fastrand::f64().mul_add(0.4, 0.8));
        self.retry_attempts = self.retry_attempts.saturating_add(1);
        self.retry_due = Some(clock::now() + wait);
        wait
    }

    /// Nothing is to be opened again any more; returns whether something was.
    const fn forget_retry(&mut self) -> bool {
        self.retry_due = None;
        std::mem::replace(&mut self.retry_attempts, 0) > 0
    }

    /// Whether a retry is due; it is then under way.
    fn take_retry(&mut self, now: Time) -> bool {
        let due = self.retry_due.is_some_and(|due| due <= now);
        if due {
            self.retry_due = None;
            self.retry_total += 1;
        }
        due
    }

    pub(super) fn error(&self) -> Option<String> {
        if let State::Failed { error } = &self.state { Some(error.to_string()) } else { None }
    }
}

#[cfg(test)]
impl ManagedFlow {
    /// Panics on the worker, in this flow.
    pub(super) fn fail_on_purpose(&self) {
        let _ = self.commands.visit(self.key, |_flow, _cx| unreachable!("a fault on purpose"));
    }
}

impl State {
    fn of(driver: &dyn Driven) -> Self {
        let (receive_buffer, send_buffer) = driver.buffers().unwrap_or_default();
        Self::Open { counters: Arc::clone(driver.counters()), receive_buffer, send_buffer, legs: driver.legs() }
    }
}

impl From<OpenError> for Cause {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::InUse { address } => Self::InUse { address },
            OpenError::Resolve { .. }
            | OpenError::NoInterface { .. }
            | OpenError::NoControlPort
            | OpenError::System { .. } => Self::System(error.to_string()),
        }
    }
}

fn replaces_multicast(step: &Step, wanted: &FlowConfig) -> bool {
    let Step::ReplaceSource(index) = *step else { return false };
    match &wanted.sources[index].endpoint {
        SourceEndpoint::Udp(udp) => udp.listen.ip().is_multicast(),
        SourceEndpoint::Rtp(rtp) => rtp.listen.ip().is_multicast(),
        SourceEndpoint::Srt(_) | SourceEndpoint::Rist(_) | SourceEndpoint::Rtmp(_) | SourceEndpoint::Test(_) => false,
    }
}

/// Whether the steps remove or replace the source of this name.
fn is_doomed_source(name: &SourceName, steps: &[Step], wanted: &FlowConfig) -> bool {
    steps.iter().any(|step| match step {
        Step::RemoveSource(gone) => gone == name,
        Step::ReplaceSource(index) => wanted.sources[*index].name == *name,
        Step::RemoveOutput(_)
        | Step::AddSource(_)
        | Step::AddOutput(_)
        | Step::ReplaceOutput(_)
        | Step::Legs(_)
        | Step::Reading(_)
        | Step::TuneSource(..)
        | Step::TuneOutput(..)
        | Step::Failover
        | Step::Monitor => false,
    })
}

fn is_doomed_output(config: &OutputConfig, steps: &[Step], wanted: &FlowConfig) -> bool {
    let is_named = steps.iter().any(|step| match step {
        Step::RemoveOutput(gone) => *gone == config.name,
        Step::ReplaceOutput(index) => wanted.outputs[*index].name == config.name,
        Step::RemoveSource(_)
        | Step::AddSource(_)
        | Step::AddOutput(_)
        | Step::ReplaceSource(_)
        | Step::Legs(_)
        | Step::Reading(_)
        | Step::TuneSource(..)
        | Step::TuneOutput(..)
        | Step::Failover
        | Step::Monitor => false,
    });
    is_named && config.endpoint.holds_port()
}

fn lowest_free(taken: impl Iterator<Item = usize>) -> usize {
    let taken: std::collections::BTreeSet<usize> = taken.collect();
    (0..).find(|slot| !taken.contains(slot)).unwrap_or(0)
}

/// The part of the flow that a step is about.
const fn field(step: &Step) -> Field {
    match *step {
        Step::AddSource(index) | Step::ReplaceSource(index) | Step::TuneSource(index, _) => Field::Source(index),
        Step::AddOutput(index)
        | Step::ReplaceOutput(index)
        | Step::Legs(index)
        | Step::Reading(index)
        | Step::TuneOutput(index, _) => Field::Output(index),
        Step::RemoveSource(_) | Step::RemoveOutput(_) | Step::Failover | Step::Monitor => Field::Flow,
    }
}

fn worker_gone() -> std::io::Result<()> {
    Err(std::io::Error::other("the flow is not on its worker any more"))
}

fn refused(error: &std::io::Error) -> OpenError {
    OpenError::System { action: "watch", address: "the socket".into(), problem: error.to_string() }
}

const fn worker_ended() -> ApplyError {
    ApplyError { field: Field::Flow, cause: Cause::Closing }
}

/// Judgement: a cable that was pulled is back at once, a service after some seconds.
const RETRY_FIRST: Duration = Duration::from_millis(500);
/// Judgement: whoever repairs something does not want to wait longer.
const RETRY_LONGEST: Duration = Duration::from_secs(30);
