//! One running flow: ring, sources, stage, outputs.
//!
//! A flow is an actor on one worker. A datagram is received, unwrapped, chosen by the stage, published and sent to all
//! outputs in one pass.

use std::io;
use std::mem;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use super::config::{OUTPUTS_MAX, SOURCES_MAX};
use super::event::{EndName, EventKind};
use super::output::RunningOutput;
use super::supervisor::Message;
use crate::adapters::{Actor, Context, Driven, DriverEvent, SOCKETS_MAX, SendFailure, SocketKey, clock};
use crate::bus::{Packet, Publisher, Subscribe};
use crate::path::{Failover, failover};
use crate::proto::{self, Done};
use crate::units::{Counter, FlowId, SourceName, Time};

/// The part of a flow that lives on a worker.
pub(super) struct RunningFlow {
    id: FlowId,
    publisher: Publisher,
    failover: Failover,
    sources: [Option<RunningSource>; SOURCES_MAX],
    outputs: Vec<Option<RunningOutput>>,
    counters: Arc<FlowCounters>,
    supervisor: SyncSender<Message>,
    /// Packets of one turn, kept for its memory.
    taken_in: Vec<Packet>,
}

struct RunningSource {
    name: SourceName,
    driver: Box<dyn Driven>,
    pace: Pace,
}

/// Counters of the flow as a whole.
#[derive(Debug, Default)]
pub(super) struct FlowCounters {
    /// Slot of the active source plus one; zero for none.
    pub(super) active: Counter,
    pub(super) switches: Counter,
    pub(super) returns: Counter,
    /// Events lost because the supervisor was busy for too long.
    pub(super) events_dropped: Counter,
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
        failover: failover::Config,
        counters: Arc<FlowCounters>,
        supervisor: SyncSender<Message>,
    ) -> Self {
        let sources = std::array::from_fn(|_| None);
        let failover = Failover::new(failover);
        Self { id, publisher, failover, sources, outputs: Vec::new(), counters, supervisor, taken_in: Vec::new() }
    }

    pub(super) fn subscribe(&self) -> Subscribe {
        self.publisher.subscribe()
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
        self.failover.add_source(slot.0);
        self.sources[usize::from(slot.0)] = Some(RunningSource { name, driver, pace: Pace::default() });
        Ok(())
    }

    /// Closes a source's sockets; for the stage it is merely silent.
    pub(super) fn close_source(&mut self, cx: &mut Context<'_>, slot: SourceSlot) {
        if let Some(mut source) = self.sources[usize::from(slot.0)].take() {
            source.driver.close(cx);
        }
    }

    pub(super) fn remove_source(&mut self, cx: &mut Context<'_>, slot: SourceSlot) {
        self.failover.remove_source(cx.now, slot.0);
        self.tell_failover();
        self.close_source(cx, slot);
    }

    /// Puts an output into its slot, in place of the one that was there.
    pub(super) fn set_output(
        &mut self,
        cx: &mut Context<'_>,
        slot: OutputSlot,
        config: (crate::units::OutputName, Duration),
        mut driver: Box<dyn Driven>,
    ) -> io::Result<()> {
        let index = usize::from(slot.0);
        if self.outputs.len() <= index {
            self.outputs.resize_with(index + 1, || None);
        }
        self.remove_output(cx, slot);
        driver.start(cx, SocketKey((SOURCES_MAX as u16 + slot.0) * SOCKETS_EACH))?;
        let (name, coalesce) = config;
        self.outputs[index] = Some(RunningOutput::new(name, driver, coalesce, &self.publisher));
        Ok(())
    }

    pub(super) fn remove_output(&mut self, cx: &mut Context<'_>, slot: OutputSlot) {
        if let Some(mut output) = self.outputs.get_mut(usize::from(slot.0)).and_then(Option::take) {
            output.close(cx, &self.publisher);
        }
    }

    pub(super) fn set_coalesce(&mut self, slot: OutputSlot, coalesce: Duration) {
        if let Some(Some(output)) = self.outputs.get_mut(usize::from(slot.0)) {
            output.coalesce = coalesce;
        }
    }

    /// Changes how the active source is chosen; who is alive and who is active stays.
    pub(super) fn set_failover(&mut self, config: failover::Config) {
        self.failover.set_config(config);
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
        let dropped = source.driver.counters().no_buffer.value();
        run(&mut *source.driver, cx, &mut |packet| taken_in.push(packet));
        let is_short_of_buffers = source.driver.counters().no_buffer.value() > dropped;
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
        }
        // What came at once may be more than the ring holds: outputs get their turn in between.
        let turn = self.publisher.capacity() as u64 / 2;
        let mut next_turn = self.publisher.head() + turn;
        for mut packet in taken_in.drain(..) {
            packet.meta.source = slot.0;
            if self.failover.handle_packet(now, slot.0) {
                self.publisher.publish(packet);
            }
            if self.publisher.head() >= next_turn {
                self.send(cx);
                next_turn = self.publisher.head() + turn;
            }
        }
        self.taken_in = taken_in;
        self.tell_driver_of_source(slot);
        self.tell_failover();
        self.send(cx);
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

    fn tell_driver_of_source(&mut self, slot: SourceSlot) {
        let Some(source) = &mut self.sources[usize::from(slot.0)] else { return };
        while let Some(event) = source.driver.poll_event() {
            let source = source.name.clone();
            let kind = match event {
                DriverEvent::Core(proto::Event::Restarted { .. }) => Some(EventKind::SourceRestarted { source }),
                DriverEvent::Core(
                    event @ (proto::Event::PeerConnected { .. }
                    | proto::Event::PeerLost { .. }
                    | proto::Event::PeerRefused { .. }),
                ) => of_peer(EndName::Source(source), event),
                DriverEvent::Core(proto::Event::Ended) => Some(EventKind::SourceEof { source }),
                DriverEvent::Abuse => Some(EventKind::SourceAbuse { source }),
                // A source sends reports only; that they do not arrive is the peer's loss.
                DriverEvent::SendFailed(_) | DriverEvent::SendRecovered => None,
            };
            tell(&self.supervisor, &self.counters, &self.id, kind);
        }
    }

    fn tell_failover(&mut self) {
        while let Some(event) = self.failover.poll_event() {
            let name = |slot: u8| self.sources[usize::from(slot)].as_ref().map(|source| source.name.clone());
            let silent = |cause| match cause {
                failover::Cause::Silent => self.failover.config().health_timeout,
                failover::Cause::Removed => Duration::ZERO,
            };
            let kind = match event {
                failover::Event::Activated { source } => name(source).map(|source| EventKind::SourceActive { source }),
                failover::Event::Switched { from, to, cause } => {
                    let silent = silent(cause);
                    name(from).zip(name(to)).map(|(from, to)| EventKind::SourceFailover { from, to, silent })
                }
                failover::Event::SwitchedBack { to, .. } => {
                    name(to).map(|source| EventKind::PrimaryRecovered { source })
                }
                failover::Event::SourceLost { source } => name(source).map(|source| EventKind::SourceLost { source }),
                failover::Event::SourceAlive { source } => {
                    name(source).map(|source| EventKind::SourceRecovered { source })
                }
            };
            tell(&self.supervisor, &self.counters, &self.id, kind);
        }
        let stats = self.failover.stats();
        self.counters.active.set(self.failover.active().map_or(0, |slot| u64::from(slot) + 1));
        self.counters.switches.set(stats.switches_total);
        self.counters.returns.set(stats.returns_total);
    }
}

impl Actor for RunningFlow {
    fn handle_ready(&mut self, cx: &mut Context<'_>, socket: SocketKey) {
        let index = socket.0 / SOCKETS_EACH;
        if usize::from(index) < SOURCES_MAX {
            self.run_source(cx, SourceSlot(index as u8), |driver, cx, sink| driver.handle_ready(cx, socket, sink));
            return;
        }
        if let Some(Some(output)) = self.outputs.get_mut(usize::from(index) - SOURCES_MAX) {
            output.driver.handle_ready(cx, socket, &mut |_packet| {});
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
        self.failover.handle_timeout(cx.now);
        self.tell_failover();
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
        for slot in 0..self.outputs.len() as u16 {
            self.remove_output(cx, OutputSlot(slot));
        }
    }

    fn poll_timeout(&self) -> Option<Time> {
        let sources = self.sources.iter().flatten();
        let sources = sources.flat_map(|source| [source.driver.poll_timeout(), source.pace.resting_until]);
        let outputs = self.outputs.iter().flatten();
        let outputs = outputs.map(|output| output.poll_timeout(&self.publisher));
        sources.chain(outputs).chain([self.failover.poll_timeout()]).flatten().min()
    }
}

fn of_peer(end: EndName, event: proto::Event) -> Option<EventKind> {
    match event {
        proto::Event::PeerConnected { peer } => Some(EventKind::PeerConnected { end, peer }),
        proto::Event::PeerLost { peer, why } => Some(EventKind::PeerDisconnected { end, peer, why }),
        proto::Event::PeerRefused { peer, why } => Some(EventKind::ConnectionError { end, peer, why }),
        proto::Event::Restarted { .. } | proto::Event::Ended => None,
    }
}

fn of_output(output: &RunningOutput, event: DriverEvent) -> Option<EventKind> {
    let output = output.name.clone();
    match event {
        DriverEvent::SendFailed(failure) => Some(EventKind::OutputError { output, error: failure.to_string() }),
        DriverEvent::SendRecovered => Some(EventKind::OutputRecovered { output }),
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
