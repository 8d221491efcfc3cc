//! One running flow: ring, sources, stage, outputs.
//!
//! A flow is an actor on one worker. A datagram is received, unwrapped, chosen by the stage, published and sent to all
//! outputs in one pass.

use std::io;
use std::mem;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use super::config::{MonitorConfig, OUTPUTS_MAX, OutputConfig, SOURCES_MAX};
use super::event::{EndName, EventKind};
use super::monitor::{Findings, Monitor, Needed, Tap};
use super::output::RunningOutput;
use super::stage::{self, Stage, Totals};
use super::stats::MergeSnapshot;
use super::supervisor::Message;
use crate::adapters::{
    Actor, Context, Driven, DriverEvent, Host, LegView, Ready, SOCKETS_MAX, SendFailure, SocketKey, Tuning, clock, rtp,
};
#[cfg(feature = "media")]
use crate::bus::Pool;
use crate::bus::{LagPolicy, Packet, Publisher, Subscribe};
use crate::path::failover::{CAUSES, Switches};
use crate::path::health::{Counts, Fault, Seen};
use crate::proto::mpegts::analysis::Snapshot;
use crate::proto::{self, Done};
use crate::units::{Counter, FlowId, SourceName, Time};

/// The part of a flow that lives on a worker.
pub(super) struct RunningFlow {
    id: FlowId,
    publisher: Publisher,
    stage: Stage,
    monitor: Monitor,
    sources: [Option<RunningSource>; SOURCES_MAX],
    /// Of sources that are watched one by one, what each brings.
    rings: [Option<Publisher>; SOURCES_MAX],
    outputs: Vec<Option<RunningOutput>>,
    /// Outputs that go on at key frames.
    outputs_at_key_frames: usize,
    counters: Arc<FlowCounters>,
    supervisor: SyncSender<Message>,
    /// Packets of one turn, kept for its memory.
    taken_in: Vec<Packet>,
}

struct RunningSource {
    name: SourceName,
    driver: Box<dyn Driven>,
    pace: Pace,
    /// As they were counted last.
    shortages: u64,
}

/// Counters of the flow as a whole.
#[derive(Debug, Default)]
pub(super) struct FlowCounters {
    /// Slot of the active source plus one; zero for none, and where they are merged.
    pub(super) active: Counter,
    /// As [`Switches::counts`].
    switches: [Counter; CAUSES],
    /// For each slot what is seen of its source: two bits for each thing, 0 for unknown, 1 for no, 2 for yes, 3 for not yet
    /// known. The supervisor
    /// writes it.
    seen: [Counter; SOURCES_MAX],
    /// For each slot the fault of its source plus one; zero for none.
    faults: [Counter; SOURCES_MAX],
    pub(super) returns: Counter,
    /// Of switches and returns, those that waited for a key frame in vain.
    pub(super) key_frame_timeouts: Counter,
    /// Events lost because the supervisor was busy for too long.
    pub(super) events_dropped: Counter,
    /// The same, of those that the watching thread told.
    pub(super) watch_events_dropped: Counter,
}

impl FlowCounters {
    pub(super) fn switches(&self) -> Switches {
        Switches::of_counts(self.switches.each_ref().map(Counter::value))
    }

    /// Notes what is seen of the source in a slot, and what of it is about to be known.
    #[cfg(feature = "media")]
    pub(super) fn see(&self, slot: SourceSlot, seen: Seen<Option<bool>>, awaited: Seen<bool>) {
        let bits = seen.each().into_iter().zip(awaited.each()).rev().fold(0, |bits, (is_so, is_awaited)| {
            let unknown = if is_awaited { AWAITED } else { 0 };
            bits << 2 | is_so.map_or(unknown, |is_so| 1 + u64::from(is_so))
        });
        self.seen[usize::from(slot.0)].set(bits);
    }

    /// What of that is about to be known.
    fn awaited(&self, slot: u8) -> Seen<bool> {
        let bits = self.seen[usize::from(slot)].value();
        let is_so = |at: u32| bits >> (2 * at) & 3 == AWAITED;
        Seen { black: is_so(0), frozen: is_so(1), silent: is_so(2), no_video: is_so(3), no_audio: is_so(4) }
    }

    fn seen(&self, slot: u8) -> Seen<Option<bool>> {
        let bits = self.seen[usize::from(slot)].value();
        let is_so = |at: u32| match bits >> (2 * at) & 3 {
            0 | AWAITED => None,
            bit => Some(bit == 2),
        };
        Seen { black: is_so(0), frozen: is_so(1), silent: is_so(2), no_video: is_so(3), no_audio: is_so(4) }
    }

    /// What is wrong with the source in a slot.
    pub(super) fn fault(&self, slot: SourceSlot) -> Option<Fault> {
        let fault = self.faults.get(usize::from(slot.0))?.value().checked_sub(1)?;
        Fault::ALL.get(fault as usize).copied()
    }
}

/// Two bits of what is not known yet.
const AWAITED: u64 = 3;

/// What only the worker knows of a flow, by slot.
#[derive(Debug, Default)]
pub(super) struct Inside {
    pub(super) merge: Option<MergeSnapshot<u8>>,
    pub(super) findings: Findings,
}

/// Where a source sits in its flow; stable while it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SourceSlot(pub(super) u8);

/// Where an output sits in its flow; stable while it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OutputSlot(pub(super) u16);

impl RunningFlow {
    pub(super) fn new(
        id: FlowId,
        publisher: Publisher,
        stage: stage::Config,
        counters: Arc<FlowCounters>,
        supervisor: SyncSender<Message>,
    ) -> Self {
        let (sources, rings) = (std::array::from_fn(|_| None), std::array::from_fn(|_| None));
        let stage = Stage::new(stage);
        let (monitor, outputs, taken_in) = (Monitor::default(), Vec::new(), Vec::new());
        Self {
            id,
            publisher,
            stage,
            monitor,
            sources,
            rings,
            outputs,
            outputs_at_key_frames: 0,
            counters,
            supervisor,
            taken_in,
        }
    }

    pub(super) fn subscribe(&self) -> Subscribe {
        self.publisher.subscribe()
    }

    /// What the source in a slot brings goes into a ring of its own as well, from now on.
    #[cfg(feature = "media")]
    pub(super) fn open_ring(&mut self, slot: SourceSlot, pool: Pool) -> Subscribe {
        let ring = Publisher::new(pool, self.publisher.capacity());
        self.rings[usize::from(slot.0)].insert(ring).subscribe()
    }

    /// It does no longer.
    pub(super) fn close_ring(&mut self, slot: SourceSlot) {
        self.rings[usize::from(slot.0)] = None;
    }

    /// Puts a source into its slot, in place of the one that was there.
    pub(super) fn set_source(
        &mut self,
        cx: &mut Context<'_>,
        slot: SourceSlot,
        name: SourceName,
        mut driver: Box<dyn Driven>,
    ) -> io::Result<()> {
        // The old socket must be gone before the new one has its key.
        self.close_source(cx, slot);
        driver.start(cx, SocketKey(u16::from(slot.0) * SOCKETS_EACH))?;
        // Counters may be those of the source before it.
        let shortages = driver.counters().shortages();
        self.stage.add_source(cx.now, slot.0);
        self.monitor.start_source(cx.now, slot.0);
        self.sources[usize::from(slot.0)] = Some(RunningSource { name, driver, pace: Pace::default(), shortages });
        Ok(())
    }

    /// Closes a source's sockets; for the stage it is merely silent.
    pub(super) fn close_source(&mut self, cx: &mut Context<'_>, slot: SourceSlot) {
        self.close_ring(slot);
        if let Some(mut source) = self.sources[usize::from(slot.0)].take() {
            source.driver.close(cx);
        }
    }

    pub(super) fn remove_source(&mut self, cx: &mut Context<'_>, slot: SourceSlot) {
        self.stage.remove_source(cx.now, slot.0);
        self.monitor.remove_source(slot.0);
        self.tell_stage();
        self.close_source(cx, slot);
        self.publish_due(cx);
        self.send(cx);
    }

    /// Puts an output into its slot, in place of the one that was there.
    pub(super) fn set_output(
        &mut self,
        cx: &mut Context<'_>,
        slot: OutputSlot,
        config: &OutputConfig,
        mut driver: Box<dyn Driven>,
    ) -> io::Result<()> {
        let index = usize::from(slot.0);
        if self.outputs.len() <= index {
            self.outputs.resize_with(index + 1, || None);
        }
        self.remove_output(cx, slot);
        driver.start(cx, SocketKey((SOURCES_MAX as u16 + slot.0) * SOCKETS_EACH))?;
        let mut output = RunningOutput::new(config, driver, &self.publisher);
        output.watch(cx.now, self.monitor.watches_output(&output.name));
        self.outputs[index] = Some(output);
        self.count_outputs();
        Ok(())
    }

    /// Closes an output; hands out what an analysis of it found to its end.
    pub(super) fn remove_output(&mut self, cx: &mut Context<'_>, slot: OutputSlot) -> Option<Box<Snapshot>> {
        let mut output = self.outputs.get_mut(usize::from(slot.0))?.take()?;
        output.close(cx, &self.publisher);
        self.count_outputs();
        output.tap().map(Tap::snapshot)
    }

    /// How an output reads from the ring from now on.
    pub(super) fn set_reading(&mut self, slot: OutputSlot, coalesce: Duration, policy: LagPolicy) {
        if let Some(Some(output)) = self.outputs.get_mut(usize::from(slot.0)) {
            output.set_reading(coalesce, policy);
        }
        self.count_outputs();
    }

    fn count_outputs(&mut self) {
        let outputs = self.outputs.iter().flatten();
        self.outputs_at_key_frames = outputs.filter(|output| output.goes_on_at_key_frames()).count();
    }

    /// A source goes on with other settings.
    pub(super) fn tune_source(&mut self, cx: &mut Context<'_>, slot: SourceSlot, tuning: &Tuning) {
        self.run_source(cx, slot, |driver, cx, sink| driver.tune(cx, tuning, sink));
    }

    /// An output goes on with other settings.
    pub(super) fn tune_output(&mut self, cx: &mut Context<'_>, slot: OutputSlot, tuning: &Tuning) {
        if let Some(Some(output)) = self.outputs.get_mut(usize::from(slot.0)) {
            output.driver.tune(cx, tuning, &mut |_packet| {});
        }
    }

    /// An output goes on over other legs; the first leads where it led if that is by name. Tells which there are now.
    pub(super) fn set_legs(
        &mut self,
        cx: &mut Context<'_>,
        slot: OutputSlot,
        wanted: &rtp::OutputConfig,
    ) -> Vec<LegView> {
        let Some(Some(output)) = self.outputs.get_mut(usize::from(slot.0)) else { return Vec::new() };
        let first = match wanted.destination.host {
            Host::Ip(ip) => Some(ip),
            Host::Name(_) => None,
        };
        output.driver.set_legs(cx, first, wanted);
        let legs = output.driver.legs();
        self.send(cx);
        legs
    }

    /// Changes how sources work together. Who is alive and who is active stays, unless they are merged from now on, or
    /// no longer, or otherwise: then what waits goes out and the sources begin anew.
    pub(super) fn set_stage(&mut self, cx: &mut Context<'_>, config: stage::Config) {
        let now = cx.now;
        if self.stage.set_config(now, config) {
            self.watch(now, self.monitor.is_on());
            self.show_faults();
            return;
        }
        let mut turn = self.turn();
        while let Some(packet) = self.stage.poll_remains(now) {
            self.publish(cx, packet, &mut turn);
        }
        self.tell_stage();
        let sources = (0..).zip(&self.sources).filter(|(_, source)| source.is_some()).map(|(slot, _)| slot);
        self.stage = self.stage.successor(config, now, sources);
        self.watch(now, self.monitor.is_on());
        self.show_faults();
        self.send(cx);
    }

    /// Changes what is watched.
    pub(super) fn set_monitor(&mut self, now: Time, config: MonitorConfig) {
        self.watch(now, config.ts_analysis);
        self.monitor.set_outputs(config.outputs);
        for output in self.outputs.iter_mut().flatten() {
            output.watch(now, self.monitor.watches_output(&output.name));
        }
    }

    fn watch(&mut self, now: Time, is_on: bool) {
        let sources = (0..).zip(&self.sources).filter(|(_, source)| source.is_some()).map(|(slot, _)| slot);
        let needed = Needed { events: is_on, errors: self.stage.judges_ts(), merged: self.stage.is_merging() };
        self.monitor.set(now, needed, sources);
    }

    /// What only the worker knows, by slot.
    pub(super) fn inside(&self) -> Inside {
        let mut findings = self.monitor.findings();
        let outputs = (0..).zip(&self.outputs);
        let taps = outputs.filter_map(|(slot, output)| Some((slot, output.as_ref()?.tap()?.snapshot())));
        findings.outputs.extend(taps);
        Inside { merge: self.stage.merge_snapshot(), findings }
    }

    /// Lets a source's driver do something, publishes what the stage lets through, and sends it on.
    fn run_source(
        &mut self,
        cx: &mut Context<'_>,
        slot: SourceSlot,
        run: impl FnOnce(&mut dyn Driven, &mut Context<'_>, &mut dyn FnMut(Packet)),
    ) {
        let now = cx.now;
        let Some(source) = &mut self.sources[usize::from(slot.0)] else { return };
        let mut taken_in = mem::take(&mut self.taken_in);
        run(&mut *source.driver, cx, &mut |packet| taken_in.push(packet));
        let shortages = source.driver.counters().shortages();
        let is_short_of_buffers = mem::replace(&mut source.shortages, shortages) < shortages;
        let outputs = || self.outputs.iter().flatten().map(RunningOutput::patience).min();
        if source.pace.rest_after(now, taken_in.len() as u32, || (source.driver.patience(), outputs())) {
            source.driver.rest(cx);
        } else if source.pace.resting_until.is_none() {
            // Reports and timers that come meanwhile do not end a rest.
            source.driver.listen(cx);
        }
        if is_short_of_buffers {
            // Whoever holds many gives some back, so that readers that stall here take nothing from other flows.
            self.publisher.shed();
            self.rings.iter_mut().flatten().for_each(Publisher::shed);
        }
        // First of all: if the sender has started over, the stage must know when it sees the new numbers.
        self.tell_driver_of_source(now, slot);
        self.monitor.handle_packets(slot.0, &taken_in);
        self.stage.mark_for_readers(self.needs_key_frames());
        if let Some(ring) = &mut self.rings[usize::from(slot.0)] {
            taken_in.iter().for_each(|packet| ring.publish(packet.clone()));
            ring.flush(ring.head());
        }
        let mut turn = self.turn();
        for mut packet in taken_in.drain(..) {
            packet.meta.source = slot.0;
            let mut next = self.stage.handle_packet(now, slot.0, packet);
            while let Some(packet) = next {
                self.publish(cx, packet, &mut turn);
                next = self.stage.poll_packet(now);
            }
        }
        self.taken_in = taken_in;
        self.tell_stage();
        self.tell_monitor();
        self.send(cx);
    }

    fn needs_key_frames(&self) -> bool {
        self.outputs_at_key_frames > 0 || self.publisher.needs_key_frames()
    }

    /// Publishes what the stage held back until now.
    fn publish_due(&mut self, cx: &mut Context<'_>) {
        let mut turn = self.turn();
        while let Some(packet) = self.stage.poll_packet(cx.now) {
            self.publish(cx, packet, &mut turn);
        }
    }

    /// Where the ring will be when outputs must get their turn: what comes at once may be more than it holds.
    fn turn(&self) -> u64 {
        self.publisher.head() + self.publisher.capacity() as u64 / 2
    }

    #[inline]
    fn publish(&mut self, cx: &mut Context<'_>, packet: Packet, turn: &mut u64) {
        self.monitor.handle_merged(cx.now, &packet);
        self.publisher.publish(packet);
        if self.publisher.head() >= *turn {
            self.send(cx);
            *turn = self.turn();
        }
    }

    /// One pass over all outputs.
    fn send(&mut self, cx: &mut Context<'_>) {
        let mut oldest = self.publisher.head();
        for output in self.outputs.iter_mut().flatten() {
            oldest = oldest.min(output.pump(cx, &self.publisher));
            while let Some(event) = output.driver.poll_event() {
                if matches!(event, DriverEvent::SendFailed(SendFailure::Unreachable | SendFailure::Other(_))) {
                    let (flow, output) = (self.id.clone(), output.name.clone());
                    let _ = self.supervisor.try_send(Message::SendFails { flow, output });
                }
                tell(&self.supervisor, &self.counters, &self.id, of_output(output, event));
            }
        }
        self.publisher.flush(oldest);
    }

    fn tell_driver_of_source(&mut self, now: Time, slot: SourceSlot) {
        let Some(source) = &mut self.sources[usize::from(slot.0)] else { return };
        while let Some(event) = source.driver.poll_event() {
            let source = source.name.clone();
            let kind = match event {
                DriverEvent::Core(proto::Event::Restarted { .. }) => {
                    self.stage.restart_source(now, slot.0);
                    Some(EventKind::SourceRestarted { source })
                }
                DriverEvent::Core(
                    event @ (proto::Event::PeerConnected { .. }
                    | proto::Event::PeerLost { .. }
                    | proto::Event::PeerRefused { .. }
                    | proto::Event::CallersRefused { .. }),
                ) => of_peer(EndName::Source(source), event),
                DriverEvent::Core(proto::Event::Ended) => Some(EventKind::SourceEof { source }),
                DriverEvent::Core(proto::Event::NotCarried(what)) => {
                    Some(EventKind::NotCarried { end: EndName::Source(source), what })
                }
                DriverEvent::Abuse => Some(EventKind::SourceAbuse { source }),
                // A source sends reports only; that they do not arrive is the peer's loss.
                DriverEvent::SendFailed(_)
                | DriverEvent::SendRecovered
                | DriverEvent::LegFailed { .. }
                | DriverEvent::LegRecovered { .. } => None,
            };
            tell(&self.supervisor, &self.counters, &self.id, kind);
        }
    }

    /// Shows the stage what sources have counted, when it wants to know.
    fn judge(&mut self, now: Time) {
        if !self.stage.wants_counts(now) {
            return;
        }
        let sources = (0..).zip(&self.sources);
        let counts = sources.filter_map(|(slot, source)| {
            let core = source.as_ref()?.driver.counters().core.stats();
            let (seen, awaited) = (self.counters.seen(slot), self.counters.awaited(slot));
            let ts_errors = self.monitor.errors(slot);
            Some((slot, Counts { packets: core.received, lost: core.lost, ts_errors, seen, awaited }))
        });
        self.stage.handle_counts(now, counts);
        self.show_faults();
    }

    fn show_faults(&self) {
        for (source, counter) in (0..).zip(&self.counters.faults) {
            counter.set(self.stage.fault(source).map_or(0, |fault| fault as u64 + 1));
        }
    }

    fn tell_stage(&mut self) {
        let name = |slot: u8| self.sources[usize::from(slot)].as_ref().map(|source| source.name.clone());
        while let Some(kind) = self.stage.poll_event(name) {
            tell(&self.supervisor, &self.counters, &self.id, Some(kind));
        }
        let Totals { switches, returns, key_frame_timeouts } = self.stage.totals();
        self.counters.active.set(self.stage.active().map_or(0, |slot| u64::from(slot) + 1));
        for (counter, count) in self.counters.switches.iter().zip(switches.counts()) {
            counter.set(count);
        }
        self.counters.returns.set(returns);
        self.counters.key_frame_timeouts.set(key_frame_timeouts);
    }
}

impl RunningFlow {
    fn tell_monitor(&mut self) {
        let name = |slot: u8| self.sources.get(usize::from(slot))?.as_ref().map(|source| source.name.clone());
        while let Some(kind) = self.monitor.poll_event(name) {
            tell(&self.supervisor, &self.counters, &self.id, Some(kind));
        }
    }
}

impl Actor for RunningFlow {
    fn handle_ready(&mut self, cx: &mut Context<'_>, socket: SocketKey, ready: Ready) {
        let index = socket.0 / SOCKETS_EACH;
        if usize::from(index) < SOURCES_MAX {
            self.run_source(cx, SourceSlot(index as u8), |driver, cx, sink| {
                driver.handle_ready(cx, socket, ready, sink)
            });
            return;
        }
        if let Some(Some(output)) = self.outputs.get_mut(usize::from(index) - SOURCES_MAX) {
            output.driver.handle_ready(cx, socket, ready, &mut |_packet| {});
        }
        self.send(cx);
    }

    fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        for slot in 0..SOURCES_MAX as u8 {
            let Some(source) = &mut self.sources[usize::from(slot)] else { continue };
            let is_due = source.driver.poll_timeout().is_some_and(|due| due <= cx.now);
            if source.pace.rest_is_over(cx.now) || (is_due && source.pace.is_resting()) {
                self.run_source(cx, SourceSlot(slot), |driver, cx, sink| driver.collect(cx, sink));
            } else if is_due {
                self.run_source(cx, SourceSlot(slot), |driver, cx, sink| driver.handle_timeout(cx, sink));
            }
        }
        for output in self.outputs.iter_mut().flatten() {
            if output.driver.poll_timeout().is_some_and(|due| due <= cx.now) {
                output.driver.handle_timeout(cx, &mut |_packet| {});
            }
        }
        self.judge(cx.now);
        self.stage.handle_timeout(cx.now);
        self.publish_due(cx);
        self.monitor.handle_timeout(cx.now);
        self.tell_stage();
        self.tell_monitor();
        self.send(cx);
    }

    fn handle_done(&mut self, cx: &mut Context<'_>, socket: SocketKey, done: Done) {
        let index = usize::from(socket.0 / SOCKETS_EACH);
        if index < SOURCES_MAX {
            self.run_source(cx, SourceSlot(index as u8), |driver, cx, sink| driver.handle_done(cx, done, sink));
            return;
        }
        if let Some(Some(output)) = self.outputs.get_mut(index - SOURCES_MAX) {
            output.driver.handle_done(cx, done, &mut |_packet| {});
        }
        self.send(cx);
    }

    fn crashed(&self) {
        // A full inbox is being worked on; the supervisor finds out with its next visit.
        let _ = self.supervisor.try_send(Message::Crashed { flow: self.id.clone() });
    }

    fn close(&mut self, cx: &mut Context<'_>) {
        for slot in 0..SOURCES_MAX as u8 {
            self.close_source(cx, SourceSlot(slot));
        }
        let slots = 0..self.outputs.len() as u16;
        let last = slots.filter_map(|slot| Some((slot, self.remove_output(cx, OutputSlot(slot))?))).collect();
        self.monitor.keep_outputs(last);
    }

    fn poll_timeout(&self) -> Option<Time> {
        let sources = self.sources.iter().flatten();
        let sources = sources.flat_map(|source| [source.driver.poll_timeout(), source.pace.resting_until]);
        let outputs = self.outputs.iter().flatten();
        let outputs = outputs.map(|output| output.poll_timeout(&self.publisher));
        sources.chain(outputs).chain([self.stage.poll_timeout(), self.monitor.poll_timeout()]).flatten().min()
    }
}

fn of_peer(end: EndName, event: proto::Event) -> Option<EventKind> {
    match event {
        proto::Event::PeerConnected { peer } => Some(EventKind::PeerConnected { end, peer }),
        proto::Event::PeerLost { peer, why } => Some(EventKind::PeerDisconnected { end, peer, why }),
        proto::Event::PeerRefused { peer, why, count } => Some(EventKind::ConnectionError { end, peer, why, count }),
        proto::Event::CallersRefused { peer, reason, count } => {
            Some(EventKind::CallersRefused { end, peer, reason, count })
        }
        proto::Event::NotCarried(what) => Some(EventKind::NotCarried { end, what }),
        proto::Event::Restarted { .. } | proto::Event::Ended => None,
    }
}

fn of_output(output: &RunningOutput, event: DriverEvent) -> Option<EventKind> {
    let output = output.name.clone();
    match event {
        DriverEvent::SendFailed(failure) => Some(EventKind::OutputError { output, error: failure.to_string() }),
        DriverEvent::SendRecovered => Some(EventKind::OutputRecovered { output }),
        DriverEvent::LegFailed { leg, why } => {
            Some(EventKind::OutputLegError { output, leg: leg.to_string(), error: why.to_string() })
        }
        DriverEvent::LegRecovered { leg } => Some(EventKind::OutputLegRecovered { output, leg: leg.to_string() }),
        DriverEvent::Core(event) => of_peer(EndName::Output(output), event),
        DriverEvent::Abuse => None,
    }
}

/// Never waits: a worker does not stand still for the sake of an event.
fn tell(supervisor: &SyncSender<Message>, counters: &FlowCounters, id: &FlowId, kind: Option<EventKind>) {
    let Some(kind) = kind else { return };
    let event = super::Event { flow: id.clone(), at: clock::wall(), kind };
    if supervisor.try_send(Message::Happened(event)).is_err() {
        counters.events_dropped.add(1);
    }
}

/// Decides when a busy source is left alone for a moment, so that its packets come and go in groups.
///
/// One wake-up per packet costs more than the packet. A rest gathers some, which `recvmmsg` takes in and `UDP_SEGMENT` sends
/// out at once. It is short where it adds to the latency, and longer where somebody evens it out again.
#[derive(Debug, Default)]
struct Pace {
    window_start: Time,
    window_packets: u32,
    /// How long to rest; zero while there is little to do.
    rest: Duration,
    /// Whether the source evens out what a rest adds.
    is_patient: bool,
    resting_until: Option<Time>,
}

impl Pace {
    /// What it adds to the latency of a busy source at most. Judgement: far below any receiver's buffer.
    const ALWAYS: Duration = Duration::from_micros(420);
    /// Judgement: far below what failover takes for silence.
    const LONGEST: Duration = Duration::from_millis(10);
    /// A rest that gathers less than this is none. With [`Pace::ALWAYS`] that is 8,000 packets or 84 Mb/s.
    const WORTH_PACKETS: f64 = 3.36;
    /// A longer one is not needed, and would send longer bursts: these are 42 kB.
    const ENOUGH_PACKETS: f64 = 32.0;
    const WINDOW: Duration = Duration::from_millis(20);

    /// Counts `packets`; true if the source shall rest now. `patience` is that of the source, and that of the outputs if
    /// there are any.
    fn rest_after(&mut self, now: Time, packets: u32, patience: impl FnOnce() -> (Duration, Option<Duration>)) -> bool {
        self.window_packets += packets;
        let span = now.since(self.window_start);
        if span >= Self::WINDOW {
            let per_second = f64::from(self.window_packets) / span.as_secs_f64();
            let patience = patience();
            self.rest = Self::rest_for(per_second, patience);
            self.is_patient = !patience.0.is_zero();
            self.window_start = now;
            self.window_packets = 0;
        }
        // A source that holds packets back goes on resting: nothing need come out of what it took in.
        let rest = !self.rest.is_zero() && (packets > 0 || self.is_patient);
        if rest {
            self.resting_until = Some(now + self.rest);
        }
        rest
    }

    fn rest_for(per_second: f64, (source, outputs): (Duration, Option<Duration>)) -> Duration {
        let Some(outputs) = outputs else { return Duration::ZERO };
        let least = Self::ALWAYS.max(source).min(Self::LONGEST);
        let longest = least.max(outputs.min(Self::LONGEST));
        if per_second * longest.as_secs_f64() < Self::WORTH_PACKETS {
            return Duration::ZERO;
        }
        Duration::from_secs_f64(Self::ENOUGH_PACKETS / per_second).clamp(least, longest)
    }

    const fn is_resting(&self) -> bool {
        self.resting_until.is_some()
    }

    fn rest_is_over(&mut self, now: Time) -> bool {
        let over = self.resting_until.is_some_and(|until| until <= now);
        if over {
            self.resting_until = None;
        }
        over
    }
}

const SOCKETS_EACH: u16 = SOCKETS_MAX;
const _: () = assert!((SOURCES_MAX + OUTPUTS_MAX) * (SOCKETS_EACH as usize) < u16::MAX as usize);

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "media")]
    #[test]
    fn what_is_seen_is_read_as_it_was_noted() {
        let counters = FlowCounters::default();
        assert_eq!(counters.seen(3), Seen::default());
        let seen =
            Seen { black: Some(true), frozen: None, silent: Some(false), no_video: Some(false), no_audio: Some(true) };
        let awaited = Seen { frozen: true, ..Seen::NONE };
        counters.see(SourceSlot(3), seen, awaited);
        assert_eq!((counters.seen(3), counters.seen(2)), (seen, Seen::default()));
        assert_eq!((counters.awaited(3), counters.awaited(2)), (awaited, Seen::NONE));
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn rests_are_as_long_as_the_rate_makes_worth_and_patience_allows() {
        let none = Duration::ZERO;
        assert_eq!(Pace::rest_for(1e6, (none, None)), none, "nobody gains");
        assert_eq!(Pace::rest_for(7_900.0, (none, Some(none))), none);
        assert_eq!(Pace::rest_for(8_100.0, (none, Some(none))), Pace::ALWAYS);
        assert_eq!(Pace::rest_for(2_000.0, (none, Some(2 * MS))), 2 * MS);
        assert_eq!(Pace::rest_for(1_000.0, (none, Some(2 * MS))), none, "two packets are not worth it");
        assert_eq!(Pace::rest_for(64_000.0, (none, Some(2 * MS))), MS / 2, "32 are enough");
        assert_eq!(Pace::rest_for(2_000.0, (2 * MS, Some(none))), 2 * MS);
        assert_eq!(Pace::rest_for(100.0, (none, Some(1_000 * MS))), none, "never long enough to be taken for silence");
    }
}
