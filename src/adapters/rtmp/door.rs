//! TCP ports that several RTMP sources and outputs wait on, told apart by application and key.
//!
//! A thread talks with those who call until they say what they want, and hands them to the source or output that has the
//! stream, which goes on with the connection on its worker. Whoever is slow, or wants what is not there, is its business
//! alone: callers have bounds, together and from each address.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use socket2::{Domain, Protocol, Socket, Type};

use super::{BOTH, Key, Leaving, unusable};
use crate::adapters::accept::{AcceptHook, Arrival};
use crate::adapters::background::Remote;
use crate::adapters::clock;
use crate::adapters::socket::OpenError;
use crate::adapters::stream::Stream;
use crate::adapters::stream_driver::{Broken, Connection};
use crate::adapters::tls::{Failure, FailureCounts, Identity, IdentityFiles, Session};
use crate::bus::Pool;
use crate::proto::rtmp::{Config, End, Error, Refusal, Request, Role, Server, ServerMessage};
use crate::proto::{Detail, Done};
use crate::units::Time;

/// The shared ports of an engine.
#[derive(Clone, Debug, Default)]
pub(in crate::adapters) struct Doors {
    open: Arc<Mutex<BTreeMap<SocketAddr, Weak<Door>>>>,
    /// Who is asked about those who know the name of a stream.
    hook: Option<AcceptHook>,
}

/// A place at a port; the port closes with the last one.
#[derive(Debug)]
pub(super) struct Seat {
    door: Arc<Door>,
    id: u64,
}

/// Somebody who wants this stream: waits to be let in or sent away.
#[derive(Debug)]
pub(super) struct Visitor {
    pub(super) connection: Connection<Server>,
    pub(super) request: Request,
}

/// The port's counters have changed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recounted;

/// Somebody was sent away at the port before he had a stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct SentAway {
    pub(super) peer: SocketAddr,
    pub(super) reason: &'static str,
}

struct Door {
    tls: Option<IdentityFiles>,
    shared: Arc<Shared>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    places: Mutex<Vec<Place>>,
    /// With that every connection begins with TLS.
    identity: Mutex<Option<Identity>>,
    is_closing: AtomicBool,
    next_id: AtomicU64,
    counts: Counts,
}

/// Of those who were sent away at the door.
#[derive(Debug, Default)]
struct Counts {
    /// Too many at once, together or from one address.
    crowded: AtomicU64,
    /// Asked for what nobody has, or with a wrong key.
    unknown: AtomicU64,
    /// Were not wanted by who was asked about them.
    denied: AtomicU64,
    /// Did not say in time what they want.
    slow: AtomicU64,
    /// Broke the protocol before that.
    broken: AtomicU64,
    /// Announced a message that is too long.
    oversize: AtomicU64,
    /// Came to nothing with TLS, and why.
    insecure: AtomicU64,
    tls: FailureCounts,
    /// Left before that.
    left: AtomicU64,
}

struct Place {
    id: u64,
    role: Role,
    app: String,
    key: Key,
    /// Where it is to be reached; `None` until it is on its worker.
    remote: Option<Remote>,
}

impl Doors {
    pub(in crate::adapters) fn new(hook: Option<AcceptHook>) -> Self {
        Self { open: Arc::default(), hook }
    }

    /// Takes a place at a port, and opens the port for the first one.
    ///
    /// # Errors
    /// What the system refused, or that the stream is taken.
    pub(super) fn join(
        &self,
        (address, tls): (SocketAddr, Option<&IdentityFiles>),
        role: Role,
        (app, key): (&str, &Key),
        pool: &Pool,
    ) -> Result<Seat, OpenError> {
        let mut open = lock(&self.open);
        open.retain(|_, door| door.strong_count() > 0);
        // Read anew each time, as certificates are renewed.
        let identity = tls.map(|files| Identity::read(&files.certificate, &files.key)).transpose();
        let identity = identity.map_err(|error| unusable(&error))?;
        let door = match open.get(&address).and_then(Weak::upgrade) {
            Some(door) if door.tls.as_ref() != tls => {
                return Err(OpenError::InUse { address: format!("{address} with other TLS settings") });
            }
            Some(door) => {
                *lock(&door.shared.identity) = identity;
                door
            }
            None => Arc::new(Door::open(address, (tls.cloned(), identity), pool, self.hook.clone())?),
        };
        let id = door.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let mut places = lock(&door.shared.places);
        if places.iter().any(|place| place.role == role && place.app == app && place.key == *key) {
            return Err(OpenError::InUse { address: format!("application {app} with this key on {address}") });
        }
        places.push(Place { id, role, app: app.into(), key: key.clone(), remote: None });
        drop(places);
        open.insert(address, Arc::downgrade(&door));
        Ok(Seat { door, id })
    }
}

impl Seat {
    /// Callers are to be handed on there.
    pub(super) fn attach(&self, remote: Remote) {
        let mut places = lock(&self.door.shared.places);
        if let Some(place) = places.iter_mut().find(|place| place.id == self.id) {
            place.remote = Some(remote);
        }
    }

    /// Those who were sent away at this port, whatever they wanted.
    pub(super) fn details(&self) -> Vec<Detail> {
        let Counts { crowded, unknown, denied, slow, broken, oversize, insecure, tls, left } = &self.door.shared.counts;
        let own = [
            ("portCrowded", crowded),
            ("portWrongKey", unknown),
            ("portDenied", denied),
            ("portSlow", slow),
            ("portBrokenProtocol", broken),
            ("portOversize", oversize),
            ("portInsecure", insecure),
            ("portLeft", left),
        ]
        .map(|(name, count)| (name, count.load(Ordering::Relaxed) as f64));
        own.into_iter().chain(tls.details()).collect()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        lock(&self.door.shared.places).retain(|place| place.id != self.id);
    }
}

impl Door {
    fn open(
        address: SocketAddr,
        (tls, identity): (Option<IdentityFiles>, Option<Identity>),
        pool: &Pool,
        hook: Option<AcceptHook>,
    ) -> Result<Self, OpenError> {
        let system = |error: io::Error| {
            let address = address.to_string();
            if error.kind() == io::ErrorKind::AddrInUse {
                return OpenError::InUse { address };
            }
            OpenError::System { action: "wait for connections on", address, problem: error.to_string() }
        };
        let mut listener = listen(address).map_err(system)?;
        let poll = Poll::new().map_err(system)?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER).map_err(system)?);
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE).map_err(system)?;
        let shared = Arc::new(Shared { identity: Mutex::new(identity), ..Shared::default() });
        let name = format!("rtmp-{}", address.port());
        let porter = match hook {
            None => None,
            Some(hook) => Some(Porter::start(&name, hook, Arc::clone(&waker)).map_err(system)?),
        };
        let keeper = Keeper {
            listener,
            poll,
            pool: pool.clone(),
            shared: Arc::clone(&shared),
            callers: Vec::new(),
            again: Vec::new(),
            leaving: Leaving::default(),
            porter,
            next_question: 0,
            told: None,
            recount_due: None,
            recounted: Time::ZERO,
        };
        let thread = std::thread::Builder::new().name(name).spawn(move || keeper.run()).map_err(system)?;
        Ok(Self { tls, shared, waker, thread: Some(thread) })
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // Connections of an earlier process that are still closing do not keep the port.
    socket.set_reuse_address(true)?;
    if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

impl Drop for Door {
    fn drop(&mut self) {
        self.shared.is_closing.store(true, Ordering::Relaxed);
        let _ = self.waker.wake();
        if let Some(thread) = self.thread.take() {
            let _its_panic_was_printed = thread.join();
        }
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").finish_non_exhaustive()
    }
}

/// What the thread has.
struct Keeper {
    listener: TcpListener,
    poll: Poll,
    pool: Pool,
    shared: Arc<Shared>,
    /// Those who have not said what they want, at most [`CALLERS_MAX`].
    callers: Vec<Option<Caller>>,
    /// Those of them who have said more than was listened to.
    again: Vec<usize>,
    leaving: Leaving,
    porter: Option<Porter>,
    next_question: u64,
    /// When it was told last that somebody was sent away.
    told: Option<Time>,
    /// When those who show the counters are to look at them, and when they last were.
    recount_due: Option<Time>,
    recounted: Time,
}

struct Caller {
    connection: Connection<Server>,
    /// Somebody is asked about him.
    asked: Option<Box<Asked>>,
}

struct Asked {
    question: u64,
    remote: Remote,
    request: Request,
    /// No answer until then is one.
    due: Time,
}

impl Caller {
    fn poll_timeout(&self) -> Option<Time> {
        let asked = self.asked.as_ref().map(|asked| asked.due);
        [asked, self.connection.poll_timeout()].into_iter().flatten().min()
    }
}

/// A thread that asks about callers, one after the other.
struct Porter {
    questions: SyncSender<(u64, Arrival)>,
    answers: Receiver<(u64, bool)>,
}

impl Porter {
    fn start(name: &str, hook: AcceptHook, waker: Arc<Waker>) -> io::Result<Self> {
        let (questions, asked) = sync_channel::<(u64, Arrival)>(CALLERS_MAX);
        let (answered, answers) = sync_channel(CALLERS_MAX);
        // It ends with the door, whose ends of both it has.
        std::thread::Builder::new().name(format!("{name}-ask")).spawn(move || {
            while let Ok((question, arrival)) = asked.recv() {
                if answered.send((question, hook.ask(&arrival))).is_err() || waker.wake().is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { questions, answers })
    }
}

impl Keeper {
    fn run(mut self) {
        let mut events = Events::with_capacity(64);
        while !self.shared.is_closing.load(Ordering::Relaxed) {
            let callers = self.callers.iter().flatten().filter_map(Caller::poll_timeout);
            let due = callers.chain(self.leaving.poll_timeout()).chain(self.recount_due).min();
            // A tick later than due rather than a tick too early, again and again.
            let wait = due.map(|due| due.since(clock::now()) + Duration::from_millis(1));
            let again = std::mem::take(&mut self.again);
            let wait = if again.is_empty() { wait } else { Some(Duration::ZERO) };
            if let Err(error) = self.poll.poll(&mut events, wait)
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "a port cannot wait for callers");
                return;
            }
            let now = clock::now();
            self.leaving.handle_timeout(now);
            self.hear_answers(now);
            if self.recount_due.is_some_and(|due| due <= now) {
                (self.recount_due, self.recounted) = (None, now);
                for place in lock(&self.shared.places).iter() {
                    place.remote.iter().for_each(|remote| remote.deliver(Done { id: 0, result: Box::new(Recounted) }));
                }
            }
            if events.iter().any(|event| event.token() == LISTENER) {
                self.welcome(now);
            }
            let ready = events.iter().map(|event| event.token().0).filter(|token| *token >= CALLERS_FROM);
            let ready: Vec<usize> = ready.map(|token| token - CALLERS_FROM).collect();
            for at in 0..self.callers.len() {
                let is_due = |caller: &Caller| caller.poll_timeout().is_some_and(|due| due <= now);
                if ready.contains(&at) || again.contains(&at) || self.callers[at].as_ref().is_some_and(is_due) {
                    self.hear(now, at);
                }
            }
        }
    }

    fn welcome(&mut self, now: Time) {
        while let Ok((stream, peer)) = self.listener.accept() {
            let same =
                self.callers.iter().flatten().filter(|caller| caller.connection.peer().ip() == peer.ip()).count();
            let free = self.callers.iter().position(Option::is_none).unwrap_or(self.callers.len());
            if free >= CALLERS_MAX || same >= CALLERS_EACH_MAX || self.admit(now, free, stream, peer).is_err() {
                self.count(now, Cause::Crowded, peer, None);
            } else {
                self.hear(now, free);
            }
        }
    }

    fn admit(&mut self, now: Time, at: usize, mut tcp: TcpStream, peer: SocketAddr) -> io::Result<()> {
        self.poll.registry().register(&mut tcp, Token(CALLERS_FROM + at), BOTH)?;
        let identity = lock(&self.shared.identity).clone();
        let stream = match identity {
            Some(identity) => Stream::secured(tcp, Session::server(now, &identity)?),
            None => Stream::plain(tcp),
        };
        let server = Server::new(now, Config::default(), fastrand::u64(..));
        let caller = Some(Caller { connection: Connection::new(server, stream, peer), asked: None });
        match self.callers.get_mut(at) {
            Some(place) => *place = caller,
            None => self.callers.push(caller),
        }
        Ok(())
    }

    fn hear(&mut self, now: Time, at: usize) {
        let Some(mut caller) = self.callers.get_mut(at).and_then(Option::take) else { return };
        let (mut wanted, mut end) = (None, None);
        let has_more = caller.connection.turn(now, &self.pool, |_, said| match said {
            ServerMessage::Publish(request) => wanted = Some((Role::Publisher, request)),
            ServerMessage::Play(request) => wanted = Some((Role::Player, request)),
            ServerMessage::Ended(why) => end = Some(why),
            ServerMessage::Media(_) => {}
        });
        if has_more {
            self.again.push(at);
        }
        if let Some((role, request)) = wanted {
            return self.admit_to(now, at, caller, role, request);
        }
        if caller.asked.as_ref().is_some_and(|asked| asked.due <= now) {
            return self.send_away(now, caller, Refusal::Denied, Cause::Denied);
        }
        let said_bytes = caller.connection.core.stats().received_bytes;
        if said_bytes > UNASKED_BYTES_MAX && end.is_none() {
            return self.count(now, Cause::Oversize, caller.connection.peer(), None);
        }
        if end.is_none() && !caller.connection.is_done(now) {
            self.callers[at] = Some(caller);
            return;
        }
        let insecure = caller.connection.broken().and_then(|broken| match broken {
            Broken::Insecure(failure) => Some(Cause::Insecure(failure)),
            _ => None,
        });
        let cause = match end {
            _ if insecure.is_some() => insecure.unwrap_or(Cause::Left),
            Some(End::Slow) => Cause::Slow,
            Some(End::Broken(Error::MessageTooLong(_) | Error::Held)) => Cause::Oversize,
            Some(End::Broken(_)) => Cause::Broken,
            _ => Cause::Left,
        };
        self.count(now, cause, caller.connection.peer(), None);
    }

    /// He has said what he wants: he is handed on, asked about, or sent away.
    fn admit_to(&mut self, now: Time, at: usize, mut caller: Caller, role: Role, request: Request) {
        let Some(remote) = self.remote(role, &request) else {
            let of_app = self.of_app(role, &request.app);
            let peer = caller.connection.peer();
            caller.connection.core.refuse(Refusal::NotFound);
            self.leaving.add(caller.connection, now);
            return self.count(now, Cause::Unknown(role), peer, of_app);
        };
        let Some(porter) = &self.porter else {
            return self.hand_on(caller.connection, request, &remote);
        };
        let question = self.next_question;
        self.next_question += 1;
        let arrival = Arrival {
            peer: caller.connection.peer(),
            publishes: role == Role::Publisher,
            app: request.app.clone(),
            key: request.key.clone(),
            query: request.query.clone(),
            agent: request.flash_version.clone(),
        };
        // Its queue has a place for each caller, unless some that were asked about are gone.
        if porter.questions.try_send((question, arrival)).is_err() {
            return self.send_away(now, caller, Refusal::Denied, Cause::Crowded);
        }
        caller.asked = Some(Box::new(Asked { question, remote, request, due: now + ANSWER_MAX }));
        self.callers[at] = Some(caller);
    }

    fn hear_answers(&mut self, now: Time) {
        while let Some((question, may_come)) = self.porter.as_ref().and_then(|porter| porter.answers.try_recv().ok()) {
            let is_meant = |caller: &&mut Option<Caller>| {
                let asked = caller.as_ref().and_then(|caller| caller.asked.as_ref());
                asked.is_some_and(|asked| asked.question == question)
            };
            let Some(mut caller) = self.callers.iter_mut().find(is_meant).and_then(Option::take) else { continue };
            match caller.asked.take() {
                Some(asked) if may_come => self.hand_on(caller.connection, asked.request, &asked.remote),
                asked => {
                    caller.asked = asked;
                    self.send_away(now, caller, Refusal::Denied, Cause::Denied);
                }
            }
        }
    }

    fn hand_on(&self, mut connection: Connection<Server>, request: Request, remote: &Remote) {
        let _ = self.poll.registry().deregister(connection.stream());
        remote.deliver(Done { id: 0, result: Box::new(Visitor { connection, request }) });
    }

    fn send_away(&mut self, now: Time, mut caller: Caller, refusal: Refusal, cause: Cause) {
        let peer = caller.connection.peer();
        caller.connection.core.refuse(refusal);
        self.leaving.add(caller.connection, now);
        self.count(now, cause, peer, caller.asked.map(|asked| asked.remote));
    }

    /// Counts one who was sent away, and tells it: `to` those whom he wanted, else whoever is at this port. Guesses in masses
    /// are one event a second.
    fn count(&mut self, now: Time, cause: Cause, peer: SocketAddr, to: Option<Remote>) {
        let counts = &self.shared.counts;
        let (counter, reason) = match cause {
            Cause::Crowded => (&counts.crowded, "too many want to be let in at once"),
            Cause::Unknown(Role::Publisher) => (&counts.unknown, "its stream key is wrong"),
            Cause::Unknown(Role::Player) => (&counts.unknown, "there is no such stream"),
            Cause::Denied => (&counts.denied, "it is not wanted by the accept hook"),
            Cause::Slow => (&counts.slow, "did not say in time what it wants"),
            Cause::Broken => (&counts.broken, "it does not keep to the protocol"),
            Cause::Oversize => (&counts.oversize, "it says too much at once"),
            Cause::Insecure(failure) => {
                counts.tls.count(failure);
                (&counts.insecure, failure.reason())
            }
            Cause::Left => (&counts.left, "left before it said what it wants"),
        };
        counter.fetch_add(1, Ordering::Relaxed);
        self.recount_due.get_or_insert_with(|| now.max(self.recounted + TOLD_APART));
        // Probes of load balancers and port scanners are no news.
        if cause == Cause::Left || self.told.is_some_and(|told| now.since(told) < TOLD_APART) {
            return;
        }
        let remote = to.or_else(|| lock(&self.shared.places).iter().find_map(|place| place.remote.clone()));
        if let Some(remote) = remote {
            self.told = Some(now);
            remote.deliver(Done { id: 0, result: Box::new(SentAway { peer, reason }) });
        }
    }

    /// Who has the stream. All are compared, and each takes the same time.
    fn remote(&self, role: Role, request: &Request) -> Option<Remote> {
        let places = lock(&self.shared.places);
        let mut found = None;
        for place in places.iter().filter(|place| place.role == role && place.app == request.app) {
            if place.key.is(&request.key) {
                found = place.remote.clone();
            }
        }
        found
    }

    /// Somebody who has a stream of this application, to be told of wrong keys.
    fn of_app(&self, role: Role, app: &str) -> Option<Remote> {
        let places = lock(&self.shared.places);
        let mut same = places.iter().filter(|place| place.role == role && place.app == app);
        same.find_map(|place| place.remote.clone())
    }
}

/// Why somebody was sent away at the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Crowded,
    Unknown(Role),
    Denied,
    Slow,
    Broken,
    Oversize,
    Insecure(Failure),
    Left,
}

/// What is kept is whole after every statement that may panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const LISTENER: Token = Token(0);
const WAKER: Token = Token(1);
const CALLERS_FROM: usize = 2;
/// Connections that the kernel may hold until they are accepted. Judgement: a whole site that starts at once.
const BACKLOG: i32 = 1_024;
/// Callers that have not said what they want. Judgement: as many as come within a round trip after a restart.
const CALLERS_MAX: usize = 512;
/// The same from one address, so that one cannot keep all others out. Judgement: a studio behind one address.
const CALLERS_EACH_MAX: usize = 64;
/// Judgement: somebody shall see it, and a storm is one.
const TOLD_APART: Duration = Duration::from_secs(1);
/// What a caller may send until it has said what it wants, as nobody vouches for it: the handshake is 3 kB, and the commands
/// of encoders are less than that.
const UNASKED_BYTES_MAX: u64 = 64 << 10;
/// How long an answer about a caller may take. Judgement: encoders wait for ten seconds or more.
const ANSWER_MAX: Duration = Duration::from_secs(5);
