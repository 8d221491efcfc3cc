//! TCP ports that several RTMP sources and outputs wait on, told apart by application and key.
//!
//! A thread talks with those who call until they say what they want, and hands them to the source or output that has the
//! stream, which goes on with the connection on its worker. Whoever is slow, or wants what is not there, is its business
//! alone: callers have bounds, together and from each address.

mod callers;
mod counts;
mod keeper;
mod porter;
mod renewal;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;

use mio::net::TcpListener;
use mio::{Interest, Poll, Token, Waker};
use socket2::{Domain, Protocol, Socket, Type};

use self::counts::{Cause, Counts};
use self::keeper::{Keeper, State};
use self::porter::Porter;
use self::renewal::Certificate;
use super::{Key, unusable};
use crate::adapters::accept::AcceptHook;
use crate::adapters::background::Remote;
use crate::adapters::socket::OpenError;
use crate::adapters::stream_driver::Connection;
use crate::adapters::tls::IdentityFiles;
use crate::path::allow::AllowList;
use crate::proto::rtmp::{Request, Role, Server};
use crate::proto::{self, Detail};

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

/// Somebody who wants the stream of this seat: waits to be let in or sent away.
#[derive(Debug)]
pub(super) struct Visitor {
    seat: u64,
    pub(super) connection: Connection<Server>,
    pub(super) request: Request,
}

/// Brings a visitor.
#[derive(Debug)]
pub(super) struct Handover {
    visitor: Arc<Mutex<Option<Visitor>>>,
    shared: Arc<Shared>,
}

impl Handover {
    /// `None` if he left meanwhile: nobody is to make room for one who is gone.
    pub(super) fn take(&self) -> Option<Visitor> {
        let mut visitor = lock(&self.visitor).take()?;
        if visitor.connection.has_left() {
            self.shared.counts.add(Cause::Left);
            return None;
        }
        Some(visitor)
    }
}

impl Drop for Handover {
    /// Whoever is still there was taken by nobody.
    fn drop(&mut self) {
        if lock(&self.visitor).is_some() {
            self.shared.counts.add(Cause::NotTaken);
        }
    }
}

/// The port's counters have changed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recounted;

/// Somebody was sent away at the port before he had a stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct SentAway {
    seat: u64,
    peer: SocketAddr,
    reason: &'static str,
    /// With those since it was told last.
    count: u64,
}

impl From<SentAway> for proto::Event {
    fn from(SentAway { peer, reason, count, .. }: SentAway) -> Self {
        Self::CallersRefused { peer, reason, count }
    }
}

struct Door {
    shared: Arc<Shared>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
    /// As long as its certificate is to be renewed.
    _renewal: Option<SyncSender<Infallible>>,
}

#[derive(Debug, Default)]
struct Shared {
    places: Mutex<Vec<Place>>,
    /// Callers may find what was not there before.
    has_new_places: AtomicBool,
    /// With that every connection begins with TLS.
    certificate: Option<Arc<Mutex<Certificate>>>,
    is_closing: AtomicBool,
    counts: Counts,
}

#[derive(Debug)]
struct Place {
    id: u64,
    role: Role,
    app: String,
    /// Application and key. Callers divide them as they like: nobody knows where the one ends.
    path: Key,
    allow: AllowList,
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
    ) -> Result<Seat, OpenError> {
        let mut open = lock(&self.open);
        open.retain(|_, door| door.strong_count() > 0);
        let mut certificate = tls.map(Certificate::read).transpose().map_err(|error| unusable(&error))?;
        let door = match open.get(&address).and_then(Weak::upgrade) {
            None => Arc::new(Door::open(address, certificate.take(), self.hook.clone())?),
            Some(door) => match (door.shared.certificate.is_some(), tls.is_some()) {
                (true, false) => return Err(OpenError::InUse { address: format!("{address} with TLS") }),
                (false, true) => return Err(OpenError::InUse { address: format!("{address} without TLS") }),
                (true, true) | (false, false) => door,
            },
        };
        // Of all ports together, so that what was for one is not taken for another's.
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let path = Key(format!("{app}/{}", key.0));
        let mut places = lock(&door.shared.places);
        if places.iter().any(|place| place.role == role && place.path == path) {
            return Err(OpenError::InUse { address: format!("application {app} with this key on {address}") });
        }
        places.push(Place { id, role, app: app.into(), path, allow: AllowList::default(), remote: None });
        drop(places);
        // All who share a port have the certificate of the last one.
        if let (Some(old), Some(new)) = (&door.shared.certificate, certificate) {
            *lock(old) = new;
        }
        open.insert(address, Arc::downgrade(&door));
        Ok(Seat { door, id })
    }
}

impl Seat {
    /// Callers are to be handed on there, where those that `allow` names not are sent away.
    pub(super) fn attach(&self, remote: Remote, allow: &AllowList) {
        let mut places = lock(&self.door.shared.places);
        if let Some(place) = places.iter_mut().find(|place| place.id == self.id) {
            (place.remote, place.allow) = (Some(remote), allow.clone());
        }
        drop(places);
        self.door.shared.has_new_places.store(true, Ordering::Relaxed);
        let _ = self.door.waker.wake();
    }

    /// Whether he is for this seat. Another may have been in its place on the worker when he was handed on.
    pub(super) const fn expects(&self, visitor: &Visitor) -> bool {
        self.id == visitor.seat
    }

    /// Whether it concerns this seat.
    pub(super) const fn is_of(&self, away: &SentAway) -> bool {
        self.id == away.seat
    }

    /// Those who were sent away at this port, whatever they wanted.
    pub(super) fn details(&self) -> Vec<Detail> {
        self.door.shared.counts.details().collect()
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
        certificate: Option<Certificate>,
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
        let certificate = certificate.map(|certificate| Arc::new(Mutex::new(certificate)));
        let name = format!("rtmp-{}", address.port());
        let renewal = certificate.as_ref().map(|certificate| renewal::start(&name, certificate)).transpose();
        let renewal = renewal.map_err(system)?;
        let shared = Arc::new(Shared { certificate, ..Shared::default() });
        let porter = match hook {
            None => None,
            Some(hook) => Some(Porter::start(&name, &hook, &waker).map_err(system)?),
        };
        let port = address.port();
        let state = State::default();
        let keeper = Keeper { port, listener, poll, shared: Arc::clone(&shared), porter, state };
        let thread = std::thread::Builder::new().name(name).spawn(move || keeper.run()).map_err(system)?;
        Ok(Self { shared, waker, thread: Some(thread), _renewal: renewal })
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
            // It may be resting after a fault.
            thread.thread().unpark();
            let _its_panic_was_printed = thread.join();
        }
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").finish_non_exhaustive()
    }
}

/// What is kept is whole after every statement that may panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

static NEXT_ID: AtomicU64 = AtomicU64::new(0);
const LISTENER: Token = Token(0);
const WAKER: Token = Token(1);
/// Connections that the kernel may hold until they are accepted. Judgement: a whole site that starts at once.
const BACKLOG: i32 = 1_024;
/// Callers that have not said what they want. Judgement: as many as come within a round trip after a restart.
const CALLERS_MAX: usize = 512;
