//! Runs any sans-IO core on sockets, or on none.
//!
//! The driver does what every protocol needs alike: it receives in batches, checks the sender against the allow-list
//! and the limit, feeds the core, hands its packets on and its datagrams to the kernel, and counts all of it.

use std::io;
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arrayvec::ArrayVec;
use mio::Interest;

use super::counters::Counters;
use super::driven::{Admission, Driven, DriverEvent, SendFailure, Tuning};
use super::guests::{GUESTS_MAX, Guests};
use super::io::Sent;
use super::legs::LEGS_MAX;
use super::ports::{Seat, Visitor};
use super::socket::{Granted, SocketOptions, UdpSocket};
use super::worker::{Context, Ready, SocketKey};
use crate::bus::{LocalCursor, Packet, Publisher};
use crate::path::limit::Verdict;
use crate::path::{AllowList, Limiter};
use crate::proto::{self, Core, Datagram, Done, Port, Transmit};
use crate::units::Time;

/// A core, its sockets and what is under way between them.
#[derive(Debug)]
pub struct Driver<C> {
    core: C,
    role: Role,
    /// Whether datagrams come in on the media socket.
    listens: bool,
    media: Option<Endpoint>,
    control: Option<Endpoint>,
    /// For columns and rows of forward error correction.
    fec: [Option<Endpoint>; 2],
    /// What the worker knows the driver by.
    first: SocketKey,
    guests: Option<Guests>,
    admission: Admission,
    /// Who sent last and was found on the allow-list.
    last_allowed: Option<IpAddr>,
    /// Taken from the core and not yet taken by the kernel.
    pending: Vec<Transmit>,
    /// The kernel takes no more for now; readiness to write is awaited.
    blocked: bool,
    health: SendHealth,
    abuse_seen: Option<Time>,
    /// [`Core::dropped`] as of the last packets given to it.
    dropped: u64,
    /// When the protocol's own figures are looked at next.
    details_due: Time,
    events: ArrayVec<DriverEvent, EVENTS_MAX>,
    counters: Arc<Counters>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Source,
    Output,
    Server,
}

#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) socket: UdpSocket,
    key: SocketKey,
    /// What the worker tells about this socket now.
    interest: Option<Interest>,
}

#[derive(Debug, Default)]
struct SendHealth {
    failing: bool,
    last_error: Time,
}

/// What passed in one batch; added to the shared counters once.
#[derive(Debug, Default)]
pub(super) struct Tally {
    packets: u64,
    bytes: u64,
}

impl<C: Core + Send> Driver<C> {
    /// A source that listens on `media`, and on `control` for reports. Without sockets its core makes packets itself.
    #[must_use]
    pub fn source(core: C, media: Option<UdpSocket>, control: Option<UdpSocket>, admission: Admission) -> Self {
        Self::new(core, Role::Source, media, control, admission)
    }

    /// A source that gets its callers from a port that it shares with others.
    #[must_use]
    pub(super) fn guest_house(core: C, seat: Seat, socket: SocketOptions, admission: Admission) -> Self {
        Self { guests: Some(Guests::new(seat, socket)), ..Self::new(core, Role::Source, None, None, admission) }
    }

    /// An output that sends on `media`, and exchanges reports on `control`.
    #[must_use]
    pub fn output(core: C, media: UdpSocket, control: Option<UdpSocket>, limiter: Option<Limiter>) -> Self {
        let admission = Admission { allow: AllowList::default(), limiter };
        Self::new(core, Role::Output, Some(media), control, admission)
    }

    /// An output that talks with its peers on `media`.
    #[must_use]
    pub fn conversation(core: C, media: UdpSocket, admission: Admission) -> Self {
        Self { listens: true, ..Self::new(core, Role::Output, Some(media), None, admission) }
    }

    /// An output whose peers call it. That one of them cannot be reached is not its fault: the others have theirs.
    #[must_use]
    pub fn serving(core: C, media: UdpSocket, admission: Admission) -> Self {
        Self { role: Role::Server, ..Self::conversation(core, media, admission) }
    }

    /// With sockets for columns and rows of forward error correction.
    #[must_use]
    pub fn with_fec(self, columns: UdpSocket, rows: UdpSocket) -> Self {
        Self { fec: [columns, rows].map(|socket| Some(Endpoint::new(socket, SocketKey(0)))), ..self }
    }

    fn new(core: C, role: Role, media: Option<UdpSocket>, control: Option<UdpSocket>, admission: Admission) -> Self {
        let endpoint = |socket| Endpoint::new(socket, SocketKey(0));
        Self {
            core,
            role,
            listens: role == Role::Source,
            media: media.map(endpoint),
            control: control.map(endpoint),
            fec: [None, None],
            first: SocketKey(0),
            guests: None,
            admission,
            last_allowed: None,
            pending: Vec::with_capacity(PENDING_TYPICAL),
            blocked: false,
            health: SendHealth::default(),
            abuse_seen: None,
            dropped: 0,
            details_due: Time::ZERO,
            events: ArrayVec::new(),
            counters: Arc::new(Counters::default()),
        }
    }

    /// Gives the core something to send, and sends it.
    pub(super) fn feed(&mut self, cx: &mut Context<'_>, feed: impl FnOnce(&mut C)) {
        feed(&mut self.core);
        self.drain(cx, &mut |_packet| {});
    }

    /// Takes datagrams in from one port.
    fn receive(&mut self, cx: &mut Context<'_>, from: From, sink: &mut dyn FnMut(Packet)) {
        let now = cx.now;
        let Self { core, role, media, control, fec, guests, .. } = self;
        let Self { admission, last_allowed, abuse_seen, events, counters, .. } = self;
        let (endpoint, port) = match from {
            From::Media => (media.as_mut(), Port::Media),
            From::Control => (control.as_mut(), Port::Control),
            From::FecColumns => (fec[0].as_mut(), Port::FecColumns),
            From::FecRows => (fec[1].as_mut(), Port::FecRows),
            From::Guest(at) => (guests.as_mut().and_then(|guests| guests.hear(at, now)), Port::Media),
        };
        let Some(endpoint) = endpoint else { return };
        let mut tally = Tally::default();
        for _ in 0..BATCHES_PER_TURN {
            let received = cx.io.receive(&mut endpoint.socket, cx.pool, now, &mut |peer, packet| {
                match admit(admission, last_allowed, *role, now, peer, &packet) {
                    Refusal::None => {}
                    Refusal::Address => return counters.not_allowed.add(1),
                    Refusal::Rate(verdict) => {
                        counters.over_limit.add(1);
                        return note_abuse(verdict, now, abuse_seen, events, counters);
                    }
                }
                core.handle_datagram(now, Datagram { port, peer, packet });
                while let Some(packet) = core.poll_packet() {
                    tally.add(&packet);
                    sink(packet);
                }
            });
            counters.kernel_drops.add(received.kernel_drops);
            counters.no_buffer.add(received.no_buffer);
            if !received.more {
                tally.count(counters, now);
                return;
            }
            if tally.packets >= PACKETS_PER_TURN {
                break;
            }
        }
        tally.count(counters, now);
        cx.call_again(endpoint.key);
    }

    /// Takes everything out of the core: packets to `sink`, datagrams to the kernel, events to whoever asks.
    fn drain(&mut self, cx: &mut Context<'_>, sink: &mut dyn FnMut(Packet)) {
        let mut tally = Tally::default();
        while let Some(packet) = self.core.poll_packet() {
            tally.add(&packet);
            sink(packet);
        }
        tally.count(&self.counters, cx.now);
        // While blocked it stays in the core, whose queues have bounds.
        if !self.blocked {
            while let Some(transmit) = self.core.poll_transmit() {
                self.pending.push(transmit);
            }
            self.flush(cx);
        }
        while let Some(work) = self.core.poll_work() {
            cx.offload(self.first, work);
        }
        while let Some(event) = self.core.poll_event() {
            if let (Some(guests), proto::Event::PeerLost { peer, .. }) = (&mut self.guests, event) {
                guests.remove(peer);
            }
            note(DriverEvent::Core(event), &mut self.events, &self.counters);
        }
        self.counters.core.set(&self.core.stats());
        if self.details_due <= cx.now {
            self.details_due = cx.now + DETAILS_APART;
            self.core.visit_details(&mut |details| self.counters.details.set(details));
        }
    }

    /// Hands what is pending to the kernel until it takes no more.
    fn flush(&mut self, cx: &mut Context<'_>) {
        let mut pending = mem::take(&mut self.pending);
        if let Some(guests) = &mut self.guests {
            guests.send(cx, &pending);
            pending.clear();
            self.pending = pending;
            return;
        }
        let mut done = 0;
        let mut refusals = 0;
        let mut tally = Tally::default();
        while let Some(next) = pending.get(done) {
            let port = next.port;
            let same_port = pending[done..].iter().take_while(|transmit| transmit.port == port).count();
            let Some(endpoint) = self.endpoint(port) else {
                done += same_port;
                continue;
            };
            let batch = &pending[done..done + same_port];
            let Sent { count, segmented, error } = cx.io.send(&mut endpoint.socket, batch);
            if port == Port::Media {
                batch[..count].iter().for_each(|transmit| tally.add_sent(transmit));
            }
            self.counters.segmented.add(segmented as u64);
            done += count;
            refusals = if count > 0 { 0 } else { refusals };
            let Some((error, concerned)) = error else { continue };
            let kind = error.kind();
            if port != Port::Media {
                // A report that does not get out is followed by the next one, and FEC may be wanted by nobody.
                let unsent = if kind == io::ErrorKind::Interrupted { 0 } else { concerned };
                self.counters.fec_unsent.add(if port == Port::Control { 0 } else { unsent as u64 });
                done += unsent;
                continue;
            }
            if kind == io::ErrorKind::WouldBlock {
                if self.block(cx) {
                    break;
                }
                self.fail(cx.now, SendFailure::of(&error), (pending.len() - done) as u64);
                done = pending.len();
                continue;
            }
            if kind == io::ErrorKind::ConnectionRefused && refusals < REFUSALS_MAX {
                // The answer to an earlier datagram; this one was not even tried.
                refusals += 1;
                self.fail(cx.now, SendFailure::Refused, 1);
            } else if kind != io::ErrorKind::Interrupted {
                self.fail(cx.now, SendFailure::of(&error), concerned as u64);
                done += concerned;
            }
        }
        if done == pending.len() {
            pending.clear();
        } else {
            pending.drain(..done);
        }
        self.pending = pending;
        self.recover(cx.now, tally.packets);
        tally.count(&self.counters, cx.now);
    }

    fn endpoint(&mut self, port: Port) -> Option<&mut Endpoint> {
        match port {
            Port::Media => self.media.as_mut(),
            // A protocol with one port has its reports leave by that.
            Port::Control => self.control.as_mut().or(self.media.as_mut()),
            Port::FecColumns => self.fec[0].as_mut(),
            Port::FecRows => self.fec[1].as_mut(),
        }
    }

    /// Waits for the media socket to take more; false if the system will not tell when.
    fn block(&mut self, cx: &Context<'_>) -> bool {
        let interest = if self.listens { Interest::READABLE | Interest::WRITABLE } else { Interest::WRITABLE };
        self.blocked = self.media.as_mut().is_some_and(|media| media.listen_for(cx, Some(interest)).is_ok());
        self.blocked
    }

    /// Readiness to write would be told after every datagram that leaves: it is listened for only while blocked.
    fn unblock(&mut self, cx: &Context<'_>) {
        self.blocked = false;
        let interest = self.listens.then_some(Interest::READABLE);
        if let Some(media) = &mut self.media {
            let _ = media.listen_for(cx, interest);
        }
    }

    fn fail(&mut self, now: Time, failure: SendFailure, datagrams: u64) {
        let counters = &self.counters;
        let counter = match failure {
            SendFailure::Refused => &counters.refused,
            SendFailure::Unreachable => &counters.unreachable,
            SendFailure::TooLong => &counters.too_long,
            SendFailure::EveryLeg | SendFailure::Server(_) | SendFailure::Other(_) => &counters.other,
        };
        counter.add(datagrams);
        self.health.last_error = now;
        // One of many may be cut off; what is refused here is so for all.
        let is_of_one = self.role == Role::Server && matches!(failure, SendFailure::Refused | SendFailure::Unreachable);
        if !self.health.failing && !is_of_one {
            self.health.failing = true;
            counters.disconnections.add(1);
            counters.failing.set(1);
            note(DriverEvent::SendFailed(failure), &mut self.events, counters);
        }
    }

    fn recover(&mut self, now: Time, sent: u64) {
        if self.health.failing && sent > 0 && now.since(self.health.last_error) >= RECOVERED_AFTER {
            self.health.failing = false;
            self.counters.failing.set(0);
            note(DriverEvent::SendRecovered, &mut self.events, &self.counters);
        }
    }
}

impl Endpoint {
    pub(super) const fn new(socket: UdpSocket, key: SocketKey) -> Self {
        Self { socket, key, interest: None }
    }

    pub(super) fn listen_for(&mut self, cx: &Context<'_>, interest: Option<Interest>) -> io::Result<()> {
        if self.interest == interest {
            return Ok(());
        }
        match (self.interest, interest) {
            (None, Some(interest)) => cx.register(&mut self.socket.io, self.key, interest)?,
            (Some(_), Some(interest)) => cx.reregister(&mut self.socket.io, self.key, interest)?,
            (Some(_), None) => cx.deregister(&mut self.socket.io)?,
            (None, None) => {}
        }
        self.interest = interest;
        Ok(())
    }
}

impl<C: Core + Send> Driven for Driver<C> {
    fn start(&mut self, cx: &mut Context<'_>, first: SocketKey) -> io::Result<()> {
        self.counters.core.set(&self.core.stats());
        self.first = first;
        if let Some(guests) = &mut self.guests {
            guests.attach(first, cx.remote(first));
        }
        let [columns, rows] = &mut self.fec;
        for (port, endpoint) in Port::ALL.into_iter().zip([&mut self.media, &mut self.control, columns, rows]) {
            let Some(endpoint) = endpoint else { continue };
            endpoint.key = SocketKey(first.0 + port as u16);
            if self.listens || port == Port::Control {
                cx.io.prepare(&endpoint.socket);
                endpoint.listen_for(cx, Some(Interest::READABLE))?;
            }
        }
        Ok(())
    }

    fn handle_ready(&mut self, cx: &mut Context<'_>, socket: SocketKey, _ready: Ready, sink: &mut dyn FnMut(Packet)) {
        let is = |endpoint: &Option<Endpoint>| endpoint.as_ref().is_some_and(|endpoint| endpoint.key == socket);
        if is(&self.control) {
            self.receive(cx, From::Control, sink);
        } else if is(&self.fec[0]) {
            self.receive(cx, From::FecColumns, sink);
        } else if is(&self.fec[1]) {
            self.receive(cx, From::FecRows, sink);
        } else if self.guests.is_some() {
            self.receive(cx, From::Guest(usize::from(socket.0 - self.first.0 - OWN_SOCKETS)), sink);
        } else {
            if self.blocked {
                self.unblock(cx);
            }
            if self.listens {
                self.receive(cx, From::Media, sink);
            }
        }
        self.drain(cx, sink);
    }

    fn handle_timeout(&mut self, cx: &mut Context<'_>, sink: &mut dyn FnMut(Packet)) {
        self.core.handle_timeout(cx.now);
        self.drain(cx, sink);
    }

    fn send_from(&mut self, cx: &mut Context<'_>, publisher: &Publisher, cursor: &mut LocalCursor) {
        let now = cx.now;
        let dropped = self.core.dropped();
        if mem::replace(&mut self.dropped, dropped) != dropped {
            cursor.resume_at_key_frame();
        }
        while !self.blocked {
            let mut taken = 0;
            while taken < PACKETS_PER_FLUSH
                && let Some(packet) = publisher.read(cursor)
            {
                taken += 1;
                let limiter = self.admission.limiter.as_ref();
                if limiter.is_some_and(|limiter| limiter.check(now, packet.len()) != Verdict::Pass) {
                    self.counters.over_limit.add(1);
                    continue;
                }
                self.core.handle_packet(now, &packet);
                while let Some(transmit) = self.core.poll_transmit() {
                    self.pending.push(transmit);
                }
            }
            if taken == 0 {
                break;
            }
            self.flush(cx);
        }
        self.counters.count_missed(cursor);
    }

    fn rest(&mut self, cx: &mut Context<'_>) {
        for endpoint in media_endpoints(&mut self.media, &mut self.fec, &mut self.guests) {
            let _ = endpoint.listen_for(cx, None);
        }
    }

    fn collect(&mut self, cx: &mut Context<'_>, sink: &mut dyn FnMut(Packet)) {
        if self.guests.is_some() {
            (0..GUESTS_MAX).for_each(|at| self.receive(cx, From::Guest(at), sink));
        } else {
            self.receive(cx, From::Media, sink);
            self.receive(cx, From::FecColumns, sink);
            self.receive(cx, From::FecRows, sink);
        }
        if self.core.poll_timeout().is_some_and(|due| due <= cx.now) {
            self.core.handle_timeout(cx.now);
        }
        self.drain(cx, sink);
    }

    fn listen(&mut self, cx: &mut Context<'_>) {
        if self.blocked {
            return;
        }
        for endpoint in media_endpoints(&mut self.media, &mut self.fec, &mut self.guests) {
            if endpoint.listen_for(cx, Some(Interest::READABLE)).is_err() {
                // The system has no room for another watch now: looked at again after everybody's turn.
                cx.call_again(endpoint.key);
            }
        }
    }

    fn handle_done(&mut self, cx: &mut Context<'_>, done: Done, sink: &mut dyn FnMut(Packet)) {
        match (done.result.downcast::<Visitor>(), &mut self.guests) {
            (Ok(visitor), Some(guests)) => {
                let Visitor { datagram } = *visitor;
                let refusal =
                    admit(&self.admission, &mut self.last_allowed, self.role, cx.now, datagram.peer, &datagram.packet);
                match refusal {
                    Refusal::None if guests.welcome(cx, datagram.peer) => self.core.handle_datagram(cx.now, datagram),
                    // He asks again.
                    Refusal::None => self.counters.no_buffer.add(1),
                    Refusal::Address => self.counters.not_allowed.add(1),
                    Refusal::Rate(_) => self.counters.over_limit.add(1),
                }
            }
            (Ok(_), None) => {}
            (Err(result), _) => self.core.handle_done(cx.now, Done { id: done.id, result }),
        }
        self.drain(cx, sink);
    }

    fn tune(&mut self, cx: &mut Context<'_>, tuning: &Tuning, sink: &mut dyn FnMut(Packet)) {
        let Tuning::Core(tuning) = tuning else { return };
        self.core.handle_tuning(cx.now, tuning);
        self.drain(cx, sink);
    }

    fn close(&mut self, cx: &mut Context<'_>) {
        self.core.handle_close(cx.now);
        self.drain(cx, &mut |_packet| {});
    }

    fn poll_timeout(&self) -> Option<Time> {
        self.core.poll_timeout()
    }

    fn patience(&self) -> Duration {
        self.core.patience()
    }

    fn is_blocked(&self) -> bool {
        self.blocked
    }

    fn poll_event(&mut self) -> Option<DriverEvent> {
        self.events.pop_at(0)
    }

    fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    fn adopt(&mut self, counters: Arc<Counters>) {
        self.health.failing = counters.failing.value() > 0;
        self.counters = counters;
    }

    fn buffers(&self) -> Option<(Granted, Granted)> {
        self.media.as_ref().map(|media| (media.socket.receive_buffer(), media.socket.send_buffer()))
    }
}

/// Which socket to take datagrams in from.
#[derive(Clone, Copy, Debug)]
enum From {
    Media,
    Control,
    FecColumns,
    FecRows,
    Guest(usize),
}

/// What brings media, or helps to.
fn media_endpoints<'driver>(
    media: &'driver mut Option<Endpoint>,
    fec: &'driver mut [Option<Endpoint>; 2],
    guests: &'driver mut Option<Guests>,
) -> impl Iterator<Item = &'driver mut Endpoint> {
    let guests = guests.iter_mut().flat_map(Guests::endpoints);
    media.iter_mut().chain(fec.iter_mut().flatten()).chain(guests)
}

/// Why a datagram is not let in.
enum Refusal {
    None,
    Address,
    Rate(Verdict),
}

/// An output's limiter is for what goes out.
fn admit(
    admission: &Admission,
    last_allowed: &mut Option<IpAddr>,
    role: Role,
    now: Time,
    peer: SocketAddr,
    packet: &Packet,
) -> Refusal {
    if *last_allowed != Some(peer.ip()) {
        if !admission.allow.allows(peer.ip()) {
            return Refusal::Address;
        }
        *last_allowed = Some(peer.ip());
    }
    let limiter = admission.limiter.as_ref().filter(|_| role == Role::Source);
    let verdict = limiter.map_or(Verdict::Pass, |limiter| limiter.check(now, packet.len()));
    if verdict == Verdict::Pass { Refusal::None } else { Refusal::Rate(verdict) }
}

/// Of more than [`EVENTS_MAX`] waiting events the newest are dropped and counted.
pub(super) fn note(event: DriverEvent, events: &mut ArrayVec<DriverEvent, EVENTS_MAX>, counters: &Counters) {
    if events.try_push(event).is_err() {
        counters.events_dropped.add(1);
    }
}

fn note_abuse(
    verdict: Verdict,
    now: Time,
    seen: &mut Option<Time>,
    events: &mut ArrayVec<DriverEvent, EVENTS_MAX>,
    counters: &Counters,
) {
    if verdict == Verdict::Abuse {
        let is_new = seen.is_none_or(|seen| now.since(seen) >= ABUSE_ENDED_AFTER);
        *seen = Some(now);
        if is_new {
            note(DriverEvent::Abuse, events, counters);
        }
    }
}

impl Tally {
    pub(super) fn add(&mut self, packet: &Packet) {
        self.packets += 1;
        self.bytes += packet.len() as u64;
    }

    fn add_sent(&mut self, transmit: &Transmit) {
        self.packets += 1;
        self.bytes += transmit.payload.as_ref().map_or(0, |payload| payload.len() as u64);
    }

    pub(super) fn count(&self, counters: &Counters, now: Time) {
        if self.packets > 0 {
            counters.packets.add(self.packets);
            counters.bytes.add(self.bytes);
            counters.rate.add(now, self.bytes);
            counters.last_packet_ns.set(now.as_ns());
        }
    }
}

/// Media, control, and two for FEC.
pub(super) const OWN_SOCKETS: u16 = Port::ALL.len() as u16;
/// Sockets that a driver may have, and numbers of them: those of its legs.
pub const SOCKETS_MAX: u16 = OWN_SOCKETS * LEGS_MAX as u16;
const _: () = assert!(GUESTS_MAX as u16 + OWN_SOCKETS <= SOCKETS_MAX);
/// Receive calls per turn: a source with more than that waiting lets the others have theirs first.
const BATCHES_PER_TURN: usize = 4;
/// Packets per turn: a coalesced datagram may carry dozens.
const PACKETS_PER_TURN: u64 = 512;
/// Packets taken from the ring before what they became is sent.
const PACKETS_PER_FLUSH: usize = 64;
const PENDING_TYPICAL: usize = 64;
/// ICMP answers read in a row before a datagram is given up.
const REFUSALS_MAX: usize = 2;
/// Judgement: two seconds of accepted datagrams; a dead port answers at once.
const RECOVERED_AFTER: Duration = Duration::from_secs(2);
/// Abuse after this long a pause is told again.
const ABUSE_ENDED_AFTER: Duration = Duration::from_secs(60);
/// Judgement: often enough for people, and nothing beside the packets.
const DETAILS_APART: Duration = Duration::from_millis(200);
/// Events that may wait for whoever asks, which is after every turn.
pub(super) const EVENTS_MAX: usize = 16;
