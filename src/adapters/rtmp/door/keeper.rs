//! The thread of a port: hears what callers want, and lets them in or sends them away.

use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Poll, Token};

use super::callers::{Stage, Standing, who_goes};
use super::counts::{Cause, Told};
use super::porter::{Answer, Asked, Porter};
use super::{CALLERS_MAX, Handover, LISTENER, Place, Recounted, SentAway, Shared, Visitor, lock};
use crate::adapters::accept::Arrival;
use crate::adapters::background::Remote;
use crate::adapters::clock;
use crate::adapters::rtmp::{BOTH, Leaving};
use crate::adapters::stream::{Ahead, Stream};
use crate::adapters::stream_driver::{Broken, Connection};
use crate::adapters::tls::Session;
use crate::adapters::worker::Ready;
use crate::path::allow::AllowList;
use crate::proto::Done;
use crate::proto::rtmp::{Config, End, Error, Refusal, Request, Role, Server, ServerMessage};
use crate::units::Time;

/// What the thread has.
pub(super) struct Keeper {
    pub(super) port: u16,
    pub(super) listener: TcpListener,
    pub(super) poll: Poll,
    pub(super) shared: Arc<Shared>,
    pub(super) porter: Option<Porter>,
    pub(super) state: State,
}

/// What changes while it runs.
#[derive(Default)]
pub(super) struct State {
    /// Those who were not let in yet, at most [`CALLERS_MAX`].
    callers: Vec<Option<Caller>>,
    /// What they are read into.
    ahead: Ahead,
    /// Those of them who have said more than was listened to.
    again: Vec<usize>,
    leaving: Leaving,
    told: Told,
    /// When others are to be accepted whom the system has, whatever it says.
    accept_at: Option<Time>,
    /// When everybody is to look at the counts.
    recount_due: Option<Time>,
    recounted: Time,
}

struct Caller {
    connection: Connection<Server>,
    began: Time,
    /// TLS has a limit of its own for its handshake; there is that of the core for both together.
    is_secure: bool,
    /// What he wants, once he has said it.
    wants: Option<Box<Wants>>,
}

struct Wants {
    role: Role,
    request: Request,
    /// He is sent away then.
    due: Time,
    /// Somebody is asked about him. Otherwise nobody has what he wants, yet.
    asked: Option<Asked>,
    /// Whoever was asked let him in.
    is_wanted: bool,
}

/// Who has a stream.
struct Found {
    seat: u64,
    remote: Remote,
    allow: AllowList,
}

impl Caller {
    fn standing(&self) -> Standing {
        let stage = match &self.wants {
            Some(wants) if wants.is_for_nobody() => Stage::Waits,
            Some(wants) if wants.role == Role::Player => Stage::Plays,
            Some(_) => Stage::Publishes,
            None if self.has_shaken_hands() => Stage::Greeted,
            None => Stage::Called,
        };
        Standing { ip: self.connection.peer().ip(), stage, began: self.began }
    }

    fn has_shaken_hands(&self) -> bool {
        self.connection.core.stats().received_bytes >= HANDSHAKE_BYTES
    }

    fn handshake_due(&self) -> Option<Time> {
        (!self.is_secure && !self.has_shaken_hands()).then(|| self.began + HANDSHAKE_MAX)
    }

    fn poll_timeout(&self) -> Option<Time> {
        let wants = self.wants.as_ref().map(|wants| wants.due);
        [wants, self.handshake_due(), self.connection.poll_timeout()].into_iter().flatten().min()
    }
}

impl Wants {
    /// Nobody has it, as far as is known.
    const fn is_for_nobody(&self) -> bool {
        self.asked.is_none() && !self.is_wanted
    }
}

impl Keeper {
    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(64);
        while !self.is_closing() {
            self.survive(&mut events);
        }
    }

    /// The port stays open, whatever happens here; so that it does not happen all the time, not at once.
    fn survive(&mut self, events: &mut Events) {
        let error = match catch_unwind(AssertUnwindSafe(|| self.pass(events))) {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(_its_panic_was_printed) => io::Error::other("a fault of ours"),
        };
        // Readiness is told once.
        self.state.again = (0..self.state.callers.len()).collect();
        let ready = Ready { to_read: true, at_end: false };
        self.state.callers.iter_mut().flatten().for_each(|caller| caller.connection.handle_ready(ready));
        self.state.accept_at = Some(clock::now());
        self.shared.counts.add(Cause::Fault);
        tracing::error!(%error, port = self.port, "a port cannot wait for callers");
        std::thread::park_timeout(FAULTS_APART);
    }

    fn is_closing(&self) -> bool {
        self.shared.is_closing.load(Ordering::Relaxed)
    }

    fn poll_timeout(&self) -> Option<Time> {
        let callers = self.state.callers.iter().flatten().filter_map(Caller::poll_timeout);
        let own = [self.state.leaving.poll_timeout(), self.state.accept_at, self.state.recount_due];
        callers.chain(own.into_iter().flatten()).min()
    }

    /// Waits for something, and does what is to be done then.
    fn pass(&mut self, events: &mut Events) -> io::Result<()> {
        // A tick later than due rather than a tick too early, again and again.
        let wait = self.poll_timeout().map(|due| due.since(clock::now()) + Duration::from_millis(1));
        let again = std::mem::take(&mut self.state.again);
        let wait = if again.is_empty() { wait } else { Some(Duration::ZERO) };
        match self.poll.poll(events, wait) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let now = clock::now();
        // Before anything that may go wrong, as it is told once, and before anybody else gets the place of one who left.
        let mut ready = Vec::new();
        for event in &*events {
            if let Some(at) = event.token().0.checked_sub(CALLERS_FROM)
                && let Some(Some(caller)) = self.state.callers.get_mut(at)
            {
                caller.connection.handle_ready(Ready::of(event));
                ready.push(at);
            }
        }
        self.state.leaving.handle_timeout(now);
        self.hear_answers(now);
        if self.state.recount_due.is_some_and(|due| due <= now) {
            (self.state.recount_due, self.state.recounted) = (None, now);
            let places = lock(&self.shared.places);
            let remotes = places.iter().filter_map(|place| place.remote.clone());
            Remote::deliver_to_all(remotes, || Done { id: 0, result: Box::new(Recounted) });
        }
        let is_due = self.state.accept_at.is_some_and(|at| at <= now);
        if is_due || events.iter().any(|event| event.token() == LISTENER) {
            self.welcome(now);
        }
        let has_new_places = self.shared.has_new_places.swap(false, Ordering::Relaxed);
        for at in 0..self.state.callers.len() {
            // Whoever closes the port waits for this.
            if self.is_closing() {
                break;
            }
            let is_due = |caller: &Caller| {
                caller.poll_timeout().is_some_and(|due| due <= now) || (has_new_places && caller.wants.is_some())
            };
            if ready.contains(&at) || again.contains(&at) || self.state.callers[at].as_ref().is_some_and(is_due) {
                self.guard(now, |keeper| keeper.hear(now, at));
            }
        }
        Ok(())
    }

    /// A fault costs the caller with whom it happened, who was taken out of his place: nothing of him is used again.
    fn guard(&mut self, now: Time, work: impl FnOnce(&mut Self)) {
        if catch_unwind(AssertUnwindSafe(|| work(self))).is_err() {
            let nobody = SocketAddr::from(([0, 0, 0, 0], 0));
            self.count(now, Cause::Fault, nobody, None);
        }
    }

    /// Takes in those who call, some of them: the others when those who are here had their turn.
    fn welcome(&mut self, now: Time) {
        self.state.accept_at = Some(now);
        for _ in 0..ACCEPTS_PER_PASS {
            let error = match self.listener.accept() {
                Ok((stream, peer)) => {
                    // Mapped to IPv6 it is the same host, and lists of networks have it as it is.
                    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                    self.take_in(now, stream, peer);
                    continue;
                }
                Err(error) => error,
            };
            match after_error(&error) {
                AfterError::GoOn => {}
                AfterError::Wait => return self.state.accept_at = None,
                // As no descriptor is free: nothing tells when one is.
                AfterError::Retry => {
                    self.state.accept_at = Some(now + ACCEPT_AGAIN);
                    let nobody = SocketAddr::from(([0, 0, 0, 0], 0));
                    return self.count(now, Cause::NotAccepted, nobody, None);
                }
            }
        }
    }

    fn take_in(&mut self, now: Time, stream: TcpStream, peer: SocketAddr) {
        let callers = &self.state.callers;
        let standing = |(at, caller): (usize, &Option<Caller>)| Some((at, caller.as_ref()?.standing()));
        let standing = callers.iter().enumerate().filter_map(standing);
        let at = match who_goes(standing, CALLERS_MAX) {
            None => callers.iter().position(Option::is_none).unwrap_or(callers.len()),
            Some(at) => {
                if let Some(last) = self.state.callers[at].take() {
                    self.count(now, Cause::Crowded, last.connection.peer(), None);
                }
                at
            }
        };
        if self.admit(now, at, stream, peer).is_err() {
            return self.count(now, Cause::NotAccepted, peer, None);
        }
        self.guard(now, |keeper| keeper.hear(now, at));
    }

    fn admit(&mut self, now: Time, at: usize, mut tcp: TcpStream, peer: SocketAddr) -> io::Result<()> {
        self.poll.registry().register(&mut tcp, Token(CALLERS_FROM + at), BOTH)?;
        let identity = self.shared.certificate.as_ref().map(|certificate| lock(certificate).identity());
        let is_secure = identity.is_some();
        let stream = match identity {
            Some(identity) => Stream::secured(tcp, Session::server(now, &identity)?),
            None => Stream::plain(tcp),
        };
        let server = Server::new(now, Config::default(), fastrand::u64(..));
        let connection = Connection::new(server, stream, peer);
        let caller = Some(Caller { connection, began: now, is_secure, wants: None });
        match self.state.callers.get_mut(at) {
            Some(place) => *place = caller,
            None => self.state.callers.push(caller),
        }
        Ok(())
    }

    fn hear(&mut self, now: Time, at: usize) {
        let Some(mut caller) = self.state.callers.get_mut(at).and_then(Option::take) else { return };
        let (mut wanted, mut end) = (None, None);
        let has_more = caller.connection.turn(now, &mut self.state.ahead, |_, said| match said {
            ServerMessage::Publish(request) => wanted = Some((Role::Publisher, request)),
            ServerMessage::Play(request) => wanted = Some((Role::Player, request)),
            ServerMessage::Ended(why) => end = Some(why),
            ServerMessage::Media(_) => {}
        });
        if has_more {
            self.state.again.push(at);
        }
        if let Some((role, request)) = wanted {
            let wants = Wants { role, request, due: now + PLACE_WAIT, asked: None, is_wanted: false };
            return self.let_in(now, at, caller, Box::new(wants));
        }
        let said_bytes = caller.connection.core.stats().received_bytes;
        let peer = caller.connection.peer();
        if said_bytes > UNASKED_BYTES_MAX && end.is_none() {
            return self.count(now, Cause::Oversize, peer, None);
        }
        if end.is_none() && !caller.connection.is_done(now) {
            if caller.handshake_due().is_some_and(|due| due <= now) {
                return self.count(now, Cause::Slow, peer, None);
            }
            let Some(wants) = caller.wants.take() else {
                self.state.callers[at] = Some(caller);
                return;
            };
            return self.let_in(now, at, caller, wants);
        }
        let cause = match (caller.connection.broken(), end) {
            (Some(Broken::Insecure(failure)), _) => Cause::Insecure(failure),
            (_, Some(End::Slow)) => Cause::Slow,
            (_, Some(End::Broken(Error::Held))) => Cause::Oversize,
            (_, Some(End::Broken(_))) => Cause::Broken,
            _ => Cause::Left,
        };
        self.count(now, cause, peer, None);
    }

    /// He has said what he wants: he is handed on, asked about, kept for a while, or sent away.
    fn let_in(&mut self, now: Time, at: usize, mut caller: Caller, mut wants: Box<Wants>) {
        let peer = caller.connection.peer();
        // Once he wants something nothing is read that would tell.
        if caller.connection.is_ending() {
            return self.count(now, Cause::Left, peer, None);
        }
        let found = self.find(wants.role, &wants.request);
        match (found, &mut self.porter) {
            // A flow that starts, or is changed, has its place in a moment.
            (None, _) if now < wants.due && wants.asked.is_none() => self.bound_waiting(now, wants.role),
            (None, _) => return self.send_away_unknown(now, caller, &wants),
            (Some(found), _) if wants.asked.is_some() && wants.due <= now => {
                let to = Some((found.seat, found.remote));
                return self.send_away(now, caller, Refusal::Denied, Cause::Unanswered, to);
            }
            (Some(found), Some(porter)) if !wants.is_wanted && found.allow.allows(peer.ip()) => {
                if wants.asked.is_none() {
                    wants.due = now + ANSWER_MAX;
                    wants.asked = porter.ask(wants.role, arrival(peer, &wants), wants.due);
                    if wants.asked.is_none() {
                        let to = Some((found.seat, found.remote));
                        return self.send_away(now, caller, Refusal::Denied, Cause::Unanswered, to);
                    }
                }
            }
            // Whoever is not allowed is sent away there, and nobody is asked about him.
            (Some(found), _) => return self.hand_on(now, caller, wants.request, found),
        }
        caller.wants = Some(wants);
        self.state.callers[at] = Some(caller);
    }

    /// One more is going to wait for what nobody has: of those who want the same, so that players displace no publishers.
    fn bound_waiting(&mut self, now: Time, role: Role) {
        let waiting = |(at, caller): (usize, &Option<Caller>)| {
            let caller = caller.as_ref()?;
            let wants = caller.wants.as_ref()?;
            (wants.role == role && wants.is_for_nobody()).then(|| (at, caller.standing()))
        };
        let last = who_goes(self.state.callers.iter().enumerate().filter_map(waiting), WAITING_MAX);
        let Some(mut last) = last.and_then(|at| self.state.callers[at].take()) else { return };
        if let Some(wants) = last.wants.take() {
            self.send_away_unknown(now, last, &wants);
        }
    }

    fn hear_answers(&mut self, now: Time) {
        while let Some((question, answer)) = self.porter.as_ref().and_then(Porter::poll_answer) {
            let is_meant = |caller: &Option<Caller>| {
                let wants = caller.as_ref().and_then(|caller| caller.wants.as_ref());
                wants.and_then(|wants| wants.asked.as_ref()).is_some_and(|asked| asked.is(question))
            };
            let Some(at) = self.state.callers.iter().position(is_meant) else { continue };
            let Some(mut caller) = self.state.callers[at].take() else { continue };
            let Some(mut wants) = caller.wants.take() else { continue };
            wants.asked = None;
            let cause = match answer {
                Answer::Wanted => {
                    // Who has the stream may have changed meanwhile.
                    (wants.is_wanted, wants.due) = (true, now + PLACE_WAIT);
                    self.let_in(now, at, caller, wants);
                    continue;
                }
                Answer::Unwanted => Cause::Denied,
                Answer::Failed => {
                    tracing::error!(port = self.port, "the accept hook failed");
                    Cause::Failed
                }
            };
            let to = self.find(wants.role, &wants.request).map(|found| (found.seat, found.remote));
            self.send_away(now, caller, Refusal::Denied, cause, to);
        }
    }

    fn hand_on(&mut self, now: Time, mut caller: Caller, request: Request, to: Found) {
        let _ = self.poll.registry().deregister(caller.connection.stream());
        let visitor = Visitor { seat: to.seat, connection: caller.connection, request };
        let visitor = Arc::new(Mutex::new(Some(visitor)));
        let handover = Handover { visitor: Arc::clone(&visitor), shared: Arc::clone(&self.shared) };
        if to.remote.deliver(Done { id: 0, result: Box::new(handover) }) {
            return;
        }
        let visitor = lock(&visitor).take();
        if let Some(Visitor { mut connection, .. }) = visitor {
            let peer = connection.peer();
            connection.core.refuse(Refusal::Denied);
            self.state.leaving.add(connection, now);
            self.tell(now, Cause::NotTaken, peer, Some((to.seat, to.remote)));
        }
    }

    fn send_away(&mut self, now: Time, mut caller: Caller, refusal: Refusal, cause: Cause, to: Option<(u64, Remote)>) {
        let peer = caller.connection.peer();
        caller.connection.core.refuse(refusal);
        // His place is the next one's, who shall not be taken for him.
        let _ = self.poll.registry().reregister(caller.connection.stream(), LEAVERS, BOTH);
        self.state.leaving.add(caller.connection, now);
        self.count(now, cause, peer, to);
    }

    /// Nobody has what he wants.
    fn send_away_unknown(&mut self, now: Time, caller: Caller, wants: &Wants) {
        let &Wants { role, ref request, .. } = wants;
        let of_app = |place: &&Place| place.role == role && place.app == request.app;
        let to = of_one_flow(lock(&self.shared.places).iter().filter(of_app));
        self.send_away(now, caller, Refusal::NotFound, Cause::Unknown(role), to);
    }

    /// Counts one who was sent away, and tells it.
    fn count(&mut self, now: Time, cause: Cause, peer: SocketAddr, to: Option<(u64, Remote)>) {
        self.shared.counts.add(cause);
        self.tell(now, cause, peer, to);
    }

    /// Tells it to those whom he wanted; what concerns nobody to the flow that has the port alone, or the log.
    fn tell(&mut self, now: Time, cause: Cause, peer: SocketAddr, to: Option<(u64, Remote)>) {
        self.state.recount_due.get_or_insert_with(|| now.max(self.state.recounted + RECOUNTS_APART));
        let Some(count) = self.state.told.tell(now, cause, to.as_ref().map(|to| to.0)) else { return };
        let reason = cause.reason();
        match to.or_else(|| of_one_flow(lock(&self.shared.places).iter())) {
            Some((seat, remote)) => {
                remote.deliver(Done { id: 0, result: Box::new(SentAway { seat, peer, reason, count }) });
            }
            None => tracing::warn!(port = self.port, cause = reason, count, "callers were sent away"),
        }
    }

    /// Who has the stream. All are compared, and each takes the same time.
    fn find(&self, role: Role, request: &Request) -> Option<Found> {
        let places = lock(&self.shared.places);
        let path = format!("{}/{}", request.app, request.key);
        let mut found = None;
        for place in places.iter().filter(|place| place.role == role) {
            if place.path.is(&path) {
                found = Some(place);
            }
        }
        let place = found?;
        Some(Found { seat: place.id, remote: place.remote.clone()?, allow: place.allow.clone() })
    }
}

/// The first of these places, if all are of one flow, which knows what to do about strangers.
fn of_one_flow<'a>(mut places: impl Iterator<Item = &'a Place>) -> Option<(u64, Remote)> {
    let first = places.next()?;
    let remote = first.remote.clone()?;
    let is_its = |place: &Place| place.remote.as_ref().is_some_and(|other| other.is_of_same_actor(&remote));
    places.all(is_its).then_some((first.id, remote))
}

fn arrival(peer: SocketAddr, wants: &Wants) -> Arrival {
    let Request { app, key, query, flash_version, .. } = wants.request.clone();
    Arrival { peer, publishes: wants.role == Role::Publisher, app, key, query, agent: flash_version }
}

/// What to do when one could not be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AfterError {
    /// Others may wait.
    GoOn,
    /// Nobody waits.
    Wait,
    /// Somebody waits, for whom there is nothing.
    Retry,
}

/// Readiness is told once, so that whatever is left is left for good.
#[allow(clippy::wildcard_enum_match_arm, reason = "whatever else there is or will be")]
fn after_error(error: &io::Error) -> AfterError {
    match error.kind() {
        io::ErrorKind::WouldBlock => AfterError::Wait,
        // He has gone already (accept(2)).
        io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset => {
            AfterError::GoOn
        }
        _ => AfterError::Retry,
    }
}

const CALLERS_FROM: usize = 2;
const LEAVERS: Token = Token(usize::MAX);
/// Callers who want what nobody has, of publishers and of players each: who sends wrong keys keeps no places from the others.
/// Judgement: as many as call while one flow is changed.
const WAITING_MAX: usize = 128;
/// How long an answer about a caller may take. Judgement: encoders wait for ten seconds or more.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How long a caller may want what is not there. Judgement: a flow is changed in less, and nobody notices it.
const PLACE_WAIT: Duration = Duration::from_millis(1_500);
/// What a caller may say before he says what he wants. Judgement: encoders say a tenth of it.
const UNASKED_BYTES_MAX: u64 = 64 << 10;
/// C0, C1 and C2 (RTMP 5.2).
const HANDSHAKE_BYTES: u64 = 1 + 2 * 1_536;
/// How long they may take. Judgement: four round trips over a satellite, and some lost packets.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// Judgement: who is here already waits for less than a millisecond.
const ACCEPTS_PER_PASS: usize = 64;
/// Judgement: descriptors get free as connections end.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
const RECOUNTS_APART: Duration = Duration::from_secs(1);
const FAULTS_APART: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::sync::mpsc::{Receiver, sync_channel};

    use mio::Interest;

    use super::*;
    use crate::adapters::accept::AcceptHook;
    use crate::adapters::background::{Background, Parcel};
    use crate::adapters::rtmp::Key;
    use crate::adapters::worker::SocketKey;
    use crate::proto::StreamCore;
    use crate::proto::rtmp::{Client, ClientMessage, Target};

    fn keeper() -> Keeper {
        let mut listener = TcpListener::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let poll = Poll::new().unwrap();
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE).unwrap();
        Keeper { port: 1, listener, poll, shared: Arc::default(), porter: None, state: State::default() }
    }

    #[test]
    fn a_fault_costs_one_caller_and_not_the_port() {
        let mut keeper = keeper();
        let now = clock::now();
        keeper.guard(now, |_| unreachable!("a fault on purpose"));
        let details: Vec<_> = keeper.shared.counts.details().collect();
        assert!(details.contains(&("portFailed", 1.0)), "{details:?}");
        let address = keeper.listener.local_addr().unwrap();
        let _caller = std::net::TcpStream::connect(address).unwrap();
        while keeper.state.callers.is_empty() {
            keeper.pass(&mut Events::with_capacity(8)).unwrap();
        }
    }

    /// One who wants a stream, and who has it.
    struct Peer {
        stream: std::net::TcpStream,
        core: Client,
    }

    impl Peer {
        fn new(keeper: &Keeper, app: &str, key: &str) -> Self {
            let stream = std::net::TcpStream::connect(keeper.listener.local_addr().unwrap()).unwrap();
            stream.set_nonblocking(true).unwrap();
            let target = Target { tc_url: "rtmp://localhost/live".into(), app: app.into(), key: key.into() };
            Self { stream, core: Client::new(clock::now(), Config::default(), Role::Publisher, target, 1) }
        }

        /// Both talk until it is so; true if the server ended it.
        fn talk(&mut self, keeper: &mut Keeper, mut until: impl FnMut(&Keeper) -> bool) -> bool {
            let mut events = Events::with_capacity(8);
            while !until(keeper) {
                keeper.state.accept_at.get_or_insert_with(clock::now);
                keeper.pass(&mut events).unwrap();
                while let Some(piece) = self.core.poll_transmit() {
                    self.stream.write_all(&[&piece.header[..], &piece.payload[..]].concat()).unwrap();
                }
                let mut buffer = [0; 4_096];
                if let Ok(len @ 1..) = self.stream.read(&mut buffer) {
                    self.core.handle_bytes(clock::now(), buffer[..len].into());
                }
                while let Some(said) = self.core.poll_message() {
                    if matches!(said, ClientMessage::Ended(_)) {
                        return true;
                    }
                }
            }
            false
        }
    }

    /// A seat at the keeper's port, and who comes to it. It takes `room` of them.
    fn seat(keeper: &Keeper, id: u64, path: &str, room: usize) -> Receiver<Done> {
        let (worker, receiver) = worker(room);
        seat_of(keeper, id, path, worker.remote(0, SocketKey(0)));
        receiver
    }

    fn worker(room: usize) -> (Background, Receiver<Done>) {
        let (sender, receiver) = sync_channel(room);
        let deliver = move |all: Vec<Parcel>| all.into_iter().all(|parcel| sender.try_send(parcel.done).is_ok());
        (Background::new("test", Arc::new(deliver)), receiver)
    }

    fn seat_of(keeper: &Keeper, id: u64, path: &str, remote: Remote) {
        let (app, path) = ("live".to_owned(), Key::new(path).unwrap());
        let place = Place { id, role: Role::Publisher, app, path, allow: AllowList::default(), remote: Some(remote) };
        lock(&keeper.shared.places).push(place);
        keeper.shared.has_new_places.store(true, Ordering::Relaxed);
    }

    fn told(done: &Receiver<Done>) -> Vec<SentAway> {
        done.try_iter().filter_map(|done| done.result.downcast().ok()).map(|away| *away).collect()
    }

    /// Somebody is asked about each caller. He answers as long as what is given back is there.
    fn ask(keeper: &mut Keeper) -> std::sync::mpsc::SyncSender<()> {
        let (release, released) = sync_channel::<()>(1);
        let released = Mutex::new(released);
        let hook = AcceptHook::new(move |_| lock(&released).recv().is_ok());
        let waker = Arc::new(mio::Waker::new(keeper.poll.registry(), Token(1)).unwrap());
        keeper.porter = Some(Porter::start("test", &hook, &waker).unwrap());
        release
    }

    fn visitor(done: &Receiver<Done>) -> Option<Visitor> {
        let done = done.try_recv().ok()?;
        done.result.downcast::<Handover>().ok()?.take()
    }

    fn figure(keeper: &Keeper, name: &str) -> f64 {
        keeper.shared.counts.details().find(|detail| detail.0 == name).unwrap().1
    }

    fn wants(keeper: &Keeper) -> bool {
        waiting(keeper) > 0
    }

    fn waiting(keeper: &Keeper) -> usize {
        keeper.state.callers.iter().flatten().filter(|caller| caller.wants.is_some()).count()
    }

    #[test]
    fn who_wants_what_is_not_there_yet_waits_for_it_and_nobody_cares_where_the_application_ends() {
        let mut keeper = keeper();
        let mut peer = Peer::new(&keeper, "live/a", "b/cam1");
        assert!(!peer.talk(&mut keeper, wants));
        let done = seat(&keeper, 7, "live/a/b/cam1", 1);
        let mut came = None;
        peer.talk(&mut keeper, |_| {
            came = came.take().or_else(|| visitor(&done));
            came.is_some()
        });
        assert_eq!(came.unwrap().seat, 7);
    }

    #[test]
    fn who_wants_what_never_comes_is_sent_away_after_a_while() {
        let mut keeper = keeper();
        let begin = clock::now();
        assert!(Peer::new(&keeper, "live", "wrong").talk(&mut keeper, |_| false));
        assert!(clock::now().since(begin) >= PLACE_WAIT);
        assert_eq!(figure(&keeper, "portWrongKey"), 1.0);
    }

    #[test]
    fn an_answer_about_an_old_key_lets_nobody_in_where_there_is_a_new_one() {
        let mut keeper = keeper();
        let release = ask(&mut keeper);
        let _old = seat(&keeper, 1, "live/old", 1);
        let mut peer = Peer::new(&keeper, "live", "old");
        peer.talk(&mut keeper, wants);
        lock(&keeper.shared.places).clear();
        let new = seat(&keeper, 2, "live/new", 9);
        release.send(()).unwrap();
        assert!(peer.talk(&mut keeper, |_| false), "he is sent away");
        assert!(new.try_iter().all(|done| !done.result.is::<Handover>()));
    }

    #[test]
    fn who_leaves_while_he_waits_is_nobodys_guest() {
        let mut keeper = keeper();
        let release = ask(&mut keeper);
        let done = seat(&keeper, 1, "live/cam1", 9);
        for is_asked_about in [true, false] {
            let mut peer = Peer::new(&keeper, "live", if is_asked_about { "cam1" } else { "cam2" });
            peer.talk(&mut keeper, wants);
            // What he says last hides his end.
            peer.stream.write_all(&[0; 9]).unwrap();
            drop(peer);
            let mut events = Events::with_capacity(8);
            while waiting(&keeper) > 0 {
                keeper.pass(&mut events).unwrap();
            }
        }
        drop(release);
        assert_eq!((figure(&keeper, "portLeft"), figure(&keeper, "portWrongKey")), (2.0, 0.0));
        assert!(done.try_iter().all(|done| !done.result.is::<Handover>()));
    }

    #[test]
    fn who_leaves_on_the_way_to_his_flow_is_nobodys_guest() {
        let mut keeper = keeper();
        let done = seat(&keeper, 1, "live/cam1", 9);
        let mut peer = Peer::new(&keeper, "live", "cam1");
        let mut came = None;
        peer.talk(&mut keeper, |_| {
            came = done.try_recv().ok().and_then(|done| done.result.downcast::<Handover>().ok());
            came.is_some()
        });
        peer.stream.shutdown(std::net::Shutdown::Both).unwrap();
        assert!(came.unwrap().take().is_none());
        assert_eq!(figure(&keeper, "portLeft"), 1.0);
    }

    #[test]
    fn those_with_wrong_keys_make_room_for_each_other_and_for_no_player() {
        let mut keeper = keeper();
        let now = clock::now();
        let address = keeper.listener.local_addr().unwrap();
        let want = |keeper: &mut Keeper, at: usize, role: Role| {
            let stream = Stream::plain(TcpStream::connect(address).unwrap());
            let connection = Connection::new(Server::new(now, Config::default(), 1), stream, address);
            let caller = Caller { connection, began: now, is_secure: false, wants: None };
            let (request, due) = (Request::default(), now + Duration::from_secs(60));
            let wants = Wants { role, request, due, asked: None, is_wanted: false };
            keeper.state.callers.resize_with(at + 1, || None);
            keeper.let_in(now, at, caller, Box::new(wants));
        };
        for at in 0..=WAITING_MAX {
            want(&mut keeper, at, Role::Publisher);
        }
        assert_eq!((waiting(&keeper), figure(&keeper, "portWrongKey")), (WAITING_MAX, 1.0));
        assert!(keeper.state.callers[0].is_none(), "the first of them");
        want(&mut keeper, WAITING_MAX + 1, Role::Player);
        assert_eq!((waiting(&keeper), figure(&keeper, "portWrongKey")), (WAITING_MAX + 1, 1.0));
    }

    #[test]
    fn wrong_keys_are_told_to_the_flow_that_has_the_application_alone() {
        let mut keeper = keeper();
        let (worker, done) = worker(9);
        // A source of two keys, or two sources.
        seat_of(&keeper, 1, "live/cam1", worker.remote(5, SocketKey(0)));
        seat_of(&keeper, 2, "live/cam2", worker.remote(5, SocketKey(7)));
        for _ in 0..2 {
            assert!(Peer::new(&keeper, "live", "wrong").talk(&mut keeper, |_| false));
        }
        let told_then = told(&done);
        assert!(matches!(told_then[..], [SentAway { seat: 1, count: 1, .. }]), "{told_then:?}");
        assert!(matches!(told_then[0].into(), crate::proto::Event::CallersRefused { .. }), "no error of the flow");
        seat_of(&keeper, 3, "live/cam3", worker.remote(6, SocketKey(0)));
        keeper.state.told = Told::default();
        assert!(Peer::new(&keeper, "live", "wrong").talk(&mut keeper, |_| false));
        assert!(told(&done).is_empty());
        assert_eq!(figure(&keeper, "portWrongKey"), 3.0);
    }

    #[test]
    fn however_many_places_are_told_of_the_counts_each_worker_has_one_message() {
        let mut keeper = keeper();
        let workers = [(); 2].map(|()| {
            let (sender, receiver) = sync_channel(9);
            let deliver = move |all: Vec<Parcel>| sender.try_send(all.len()).is_ok();
            (Background::new("test", Arc::new(deliver)), receiver)
        });
        for id in 0..301 {
            let (worker, _) = &workers[usize::from(id == 7)];
            seat_of(&keeper, id, &format!("live/{id}"), worker.remote(id as usize, SocketKey(0)));
        }
        keeper.state.recount_due = Some(Time::ZERO);
        keeper.pass(&mut Events::with_capacity(8)).unwrap();
        assert_eq!(workers.map(|(_, told)| told.try_iter().collect::<Vec<_>>()), [vec![300], vec![1]]);
    }

    /// The place of one who was sent away is the next one's, while he is still heard out.
    #[test]
    fn who_was_sent_away_does_not_take_the_next_one_with_him() {
        let (mut keeper, mut events) = (keeper(), Events::with_capacity(8));
        let done = seat(&keeper, 1, "live/cam1", 9);
        drop(ask(&mut keeper));
        let mut stranger = Peer::new(&keeper, "live", "cam1");
        assert!(stranger.talk(&mut keeper, |_| false), "he is sent away");
        keeper.porter = None;
        let mut peer = Peer::new(&keeper, "live", "cam1");
        peer.talk(&mut keeper, |keeper| keeper.state.callers[0].is_some());
        drop(stranger);
        while keeper.state.leaving.poll_timeout().is_some() {
            keeper.pass(&mut events).unwrap();
        }
        let mut came = None;
        peer.talk(&mut keeper, |keeper| {
            came = came.take().or_else(|| visitor(&done));
            came.is_some() || figure(keeper, "portLeft") > 0.0
        });
        assert!(came.is_some());
    }

    #[test]
    fn who_was_ready_when_a_fault_happened_is_heard() {
        let mut keeper = keeper();
        let faulty = Background::new("test", Arc::new(|_| unreachable!("a fault on purpose")));
        let mut peer = Peer::new(&keeper, "live", "cam1");
        peer.talk(&mut keeper, |keeper| keeper.state.callers.len() == 1);
        // All that he says at first is there before the next turn, which comes to nothing.
        seat_of(&keeper, 1, "live/cam1", faulty.remote(0, SocketKey(0)));
        keeper.state.recount_due = Some(Time::ZERO);
        let hello: Vec<u8> = std::iter::once(3).chain([0; 1_536]).collect();
        peer.stream.write_all(&hello).unwrap();
        let mut events = Events::with_capacity(8);
        keeper.survive(&mut events);
        assert_eq!(figure(&keeper, "portFailed"), 1.0);
        lock(&keeper.shared.places).clear();
        let mut answer = [0; 1];
        while !matches!(peer.stream.read(&mut answer), Ok(1)) {
            keeper.survive(&mut events);
        }
    }

    #[test]
    fn whom_nobody_can_take_is_told_so_and_counted() {
        let mut keeper = keeper();
        let _full = seat(&keeper, 1, "live/cam1", 0);
        assert!(Peer::new(&keeper, "live", "cam1").talk(&mut keeper, |_| false));
        assert_eq!(figure(&keeper, "portNotTaken"), 1.0);
    }

    #[test]
    fn what_could_not_be_accepted_leaves_nobody_waiting() {
        use io::ErrorKind as Kind;
        for (kind, what) in [
            (Kind::WouldBlock, AfterError::Wait),
            (Kind::ConnectionAborted, AfterError::GoOn),
            (Kind::Interrupted, AfterError::GoOn),
            (Kind::HostUnreachable, AfterError::Retry),
        ] {
            assert_eq!(after_error(&kind.into()), what);
        }
        // Too many open files (errno 24).
        assert_eq!(after_error(&io::Error::from_raw_os_error(24)), AfterError::Retry);
    }
}
