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
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use socket2::{Domain, Protocol, Socket, Type};

use super::{BOTH, Key};
use crate::adapters::background::Remote;
use crate::adapters::clock;
use crate::adapters::socket::OpenError;
use crate::adapters::stream_driver::Connection;
use crate::bus::Pool;
use crate::proto::rtmp::{Config, Refusal, Request, Role, Server, ServerMessage};
use crate::proto::{Detail, Done};
use crate::units::Time;

/// The shared ports of an engine.
#[derive(Clone, Debug, Default)]
pub(in crate::adapters) struct Doors(Arc<Mutex<BTreeMap<SocketAddr, Weak<Door>>>>);

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

/// Somebody asked for the same application with a key that nobody has.
#[derive(Clone, Copy, Debug)]
pub(super) struct WrongKey {
    pub(super) peer: SocketAddr,
}

struct Door {
    shared: Arc<Shared>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    places: Mutex<Vec<Place>>,
    is_closing: AtomicBool,
    next_id: AtomicU64,
    counts: Counts,
}

/// Of those who were sent away at the door.
#[derive(Debug, Default)]
struct Counts {
    /// Too many at once, together or from one address.
    crowded: AtomicU64,
    /// Asked for what nobody has.
    unknown: AtomicU64,
    /// Left, were slow, or broke the protocol before asking for anything.
    unready: AtomicU64,
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
    /// Takes a place at a port, and opens the port for the first one.
    ///
    /// # Errors
    /// What the system refused, or that the stream is taken.
    pub(super) fn join(
        &self,
        address: SocketAddr,
        role: Role,
        (app, key): (&str, &Key),
        pool: &Pool,
    ) -> Result<Seat, OpenError> {
        let mut open = lock(&self.0);
        open.retain(|_, door| door.strong_count() > 0);
        let door = match open.get(&address).and_then(Weak::upgrade) {
            Some(door) => door,
            None => Arc::new(Door::open(address, pool)?),
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
    pub(super) fn details(&self) -> [Detail; 3] {
        let Counts { crowded, unknown, unready } = &self.door.shared.counts;
        [
            ("portCrowded", crowded.load(Ordering::Relaxed) as f64),
            ("portUnknownStream", unknown.load(Ordering::Relaxed) as f64),
            ("portUnready", unready.load(Ordering::Relaxed) as f64),
        ]
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        lock(&self.door.shared.places).retain(|place| place.id != self.id);
    }
}

impl Door {
    fn open(address: SocketAddr, pool: &Pool) -> Result<Self, OpenError> {
        let system = |error: io::Error| {
            let address = address.to_string();
            if error.kind() == io::ErrorKind::AddrInUse {
                return OpenError::InUse { address };
            }
            OpenError::System { action: "wait for connections on", address, problem: error.to_string() }
        };
        let mut listener = listen(address).map_err(system)?;
        let poll = Poll::new().map_err(system)?;
        let waker = Waker::new(poll.registry(), WAKER).map_err(system)?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE).map_err(system)?;
        let shared = Arc::new(Shared::default());
        let keeper = Keeper {
            listener,
            poll,
            pool: pool.clone(),
            shared: Arc::clone(&shared),
            callers: Vec::new(),
            again: Vec::new(),
            told: None,
        };
        let name = format!("rtmp-{}", address.port());
        let thread = std::thread::Builder::new().name(name).spawn(move || keeper.run()).map_err(system)?;
        Ok(Self { shared, waker, thread: Some(thread) })
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
    callers: Vec<Option<Connection<Server>>>,
    /// Those of them who have said more than was listened to.
    again: Vec<usize>,
    /// When a wrong key was told last.
    told: Option<Time>,
}

impl Keeper {
    fn run(mut self) {
        let mut events = Events::with_capacity(64);
        while !self.shared.is_closing.load(Ordering::Relaxed) {
            let due = self.callers.iter().flatten().filter_map(Connection::poll_timeout).min();
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
            if events.iter().any(|event| event.token() == LISTENER) {
                self.welcome(now);
            }
            let ready = events.iter().map(|event| event.token().0).filter(|token| *token >= CALLERS_FROM);
            let ready: Vec<usize> = ready.map(|token| token - CALLERS_FROM).collect();
            for at in 0..self.callers.len() {
                let is_due = |caller: &Connection<Server>| caller.poll_timeout().is_some_and(|due| due <= now);
                if ready.contains(&at) || again.contains(&at) || self.callers[at].as_ref().is_some_and(is_due) {
                    self.hear(now, at);
                }
            }
        }
    }

    fn welcome(&mut self, now: Time) {
        while let Ok((stream, peer)) = self.listener.accept() {
            let same = self.callers.iter().flatten().filter(|caller| caller.peer().ip() == peer.ip()).count();
            let free = self.callers.iter().position(Option::is_none).unwrap_or(self.callers.len());
            if free >= CALLERS_MAX || same >= CALLERS_EACH_MAX || self.admit(now, free, stream, peer).is_err() {
                self.shared.counts.crowded.fetch_add(1, Ordering::Relaxed);
            } else {
                self.hear(now, free);
            }
        }
    }

    fn admit(&mut self, now: Time, at: usize, mut stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
        self.poll.registry().register(&mut stream, Token(CALLERS_FROM + at), BOTH)?;
        let server = Server::new(now, Config::default(), fastrand::u64(..));
        let caller = Some(Connection::new(server, stream, peer));
        match self.callers.get_mut(at) {
            Some(place) => *place = caller,
            None => self.callers.push(caller),
        }
        Ok(())
    }

    fn hear(&mut self, now: Time, at: usize) {
        let Some(mut caller) = self.callers.get_mut(at).and_then(Option::take) else { return };
        let mut wanted = None;
        let has_more = caller.turn(now, &self.pool, |_, said| match said {
            ServerMessage::Publish(request) => wanted = Some((Role::Publisher, request)),
            ServerMessage::Play(request) => wanted = Some((Role::Player, request)),
            ServerMessage::Media(_) | ServerMessage::Ended(_) => {}
        });
        if has_more {
            self.again.push(at);
        }
        if let Some((role, request)) = wanted {
            match self.remote(now, role, &request, caller.peer()) {
                Some(remote) => {
                    let _ = self.poll.registry().deregister(caller.stream());
                    remote.deliver(Done { id: 0, result: Box::new(Visitor { connection: caller, request }) });
                    return;
                }
                None => {
                    self.shared.counts.unknown.fetch_add(1, Ordering::Relaxed);
                    caller.core.refuse(Refusal::NotFound);
                    caller.turn(now, &self.pool, |_, _| {});
                }
            }
        } else if caller.is_done(now) {
            self.shared.counts.unready.fetch_add(1, Ordering::Relaxed);
        }
        if !caller.is_done(now) {
            self.callers[at] = Some(caller);
        }
    }

    /// Who has the stream. All are compared, and each takes the same time.
    fn remote(&mut self, now: Time, role: Role, request: &Request, peer: SocketAddr) -> Option<Remote> {
        let places = lock(&self.shared.places);
        let (mut found, mut same_app) = (None, None);
        for place in places.iter().filter(|place| place.role == role && place.app == request.app) {
            same_app = same_app.or(place.remote.as_ref());
            if place.key.is(&request.key) {
                found = place.remote.as_ref();
            }
        }
        // Guesses in masses are one event a second.
        if found.is_none()
            && let Some(remote) = same_app
            && self.told.is_none_or(|told| now.since(told) >= TOLD_APART)
        {
            self.told = Some(now);
            remote.deliver(Done { id: 0, result: Box::new(WrongKey { peer }) });
        }
        found.cloned()
    }
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
