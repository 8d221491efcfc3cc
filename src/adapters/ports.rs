//! UDP ports that several SRT sources listen on, told apart by the stream id that callers ask for; beside them the TCP
//! ports of RTMP.
//!
//! A thread answers those who are not connected yet. Whoever brings a cookie back is handed to the source that has the
//! stream, which goes on with him on a socket of its own: one on the same port, connected to the caller, so that the
//! kernel tells their datagrams apart from then on.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;

use mio::{Events, Interest, Poll, Token, Waker};

use super::accept::AcceptHook;
use super::background::Remote;
use super::clock;
use super::rtmp::{Doors, Farewells};
use super::socket::{OpenError, SocketOptions, UdpSocket};
use crate::bus::{Meta, Pool};
use crate::proto::srt::access::names;
use crate::proto::srt::error::Rejection;
use crate::proto::srt::{Front, Heard};
use crate::proto::{Datagram, Done, Port as CorePort, Transmit};

/// The shared ports of an engine.
#[derive(Clone, Debug, Default)]
pub struct Ports {
    srt: Arc<Mutex<BTreeMap<SocketAddr, Weak<Port>>>>,
    pub(super) rtmp: Doors,
    pub(super) farewells: Farewells,
}

/// A source's place at a port; the port closes with the last one.
#[derive(Debug)]
pub(super) struct Seat {
    port: Arc<Port>,
    stream_id: String,
}

/// A caller who wants a source's stream: his conclusion, for a connected socket on this port.
#[derive(Debug)]
pub(super) struct Visitor {
    pub(super) datagram: Datagram,
}

struct Port {
    address: SocketAddr,
    shared: Arc<Shared>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    secret: [u8; 32],
    /// Where a source is to be reached; `None` until it is on its worker.
    seats: Mutex<BTreeMap<String, Option<Remote>>>,
    is_closing: AtomicBool,
}

impl Ports {
    /// None is open. `hook` is asked about those who call on RTMP ports.
    #[must_use]
    pub fn new(hook: Option<AcceptHook>) -> Self {
        Self { srt: Arc::default(), rtmp: Doors::new(hook), farewells: Farewells::default() }
    }

    /// Takes a place at a port, and opens the port for the first one.
    ///
    /// # Errors
    /// What the system refused, or that the stream id is taken.
    pub(super) fn join(
        &self,
        address: SocketAddr,
        stream_id: &str,
        pool: &Pool,
        options: &SocketOptions,
    ) -> Result<Seat, OpenError> {
        let mut open = lock(&self.srt);
        open.retain(|_, port| port.strong_count() > 0);
        let port = match open.get(&address).and_then(Weak::upgrade) {
            Some(port) => port,
            None => Arc::new(Port::open(address, pool, options)?),
        };
        let mut seats = lock(&port.shared.seats);
        if seats.contains_key(stream_id) {
            return Err(OpenError::InUse { address: format!("stream id {stream_id} on {address}") });
        }
        seats.insert(stream_id.into(), None);
        drop(seats);
        open.insert(address, Arc::downgrade(&port));
        Ok(Seat { port, stream_id: stream_id.into() })
    }
}

impl Seat {
    /// What the cookies of the port are made with.
    pub(super) fn secret(&self) -> [u8; 32] {
        self.port.shared.secret
    }

    /// The port's own address.
    pub(super) fn address(&self) -> SocketAddr {
        self.port.address
    }

    /// Callers are to be handed on there.
    pub(super) fn attach(&self, remote: Remote) {
        lock(&self.port.shared.seats).insert(self.stream_id.clone(), Some(remote));
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        lock(&self.port.shared.seats).remove(&self.stream_id);
    }
}

impl Port {
    fn open(address: SocketAddr, pool: &Pool, options: &SocketOptions) -> Result<Self, OpenError> {
        let system = |error: io::Error| OpenError::System {
            action: "wait for callers on",
            address: address.to_string(),
            problem: error.to_string(),
        };
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|error| system(io::Error::other(error)))?;
        let mut socket = UdpSocket::share(address, None, options)?;
        let poll = Poll::new().map_err(system)?;
        let waker = Waker::new(poll.registry(), WAKER).map_err(system)?;
        poll.registry().register(&mut socket.io, SOCKET, Interest::READABLE).map_err(system)?;
        let shared = Arc::new(Shared { secret, seats: Mutex::default(), is_closing: AtomicBool::new(false) });
        let door = Door { socket, front: Front::new(pool.clone(), secret), pool: pool.clone(), shared };
        let shared = Arc::clone(&door.shared);
        let name = format!("port-{}", address.port());
        let thread = std::thread::Builder::new().name(name).spawn(move || door.run(poll)).map_err(system)?;
        Ok(Self { address, shared, waker, thread: Some(thread) })
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.shared.is_closing.store(true, Ordering::Relaxed);
        let _ = self.waker.wake();
        if let Some(thread) = self.thread.take() {
            let _its_panic_was_printed = thread.join();
        }
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Port").field("address", &self.address).finish_non_exhaustive()
    }
}

/// What the thread has.
struct Door {
    socket: UdpSocket,
    front: Front,
    pool: Pool,
    shared: Arc<Shared>,
}

impl Door {
    fn run(self, mut poll: Poll) {
        let mut events = Events::with_capacity(2);
        while !self.shared.is_closing.load(Ordering::Relaxed) {
            if let Err(error) = poll.poll(&mut events, None)
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "a port cannot wait for callers");
                return;
            }
            let mut buffer = [0; DATAGRAM_BYTES_MAX];
            while let Ok((len, peer)) = self.socket.io.recv_from(&mut buffer) {
                self.handle(peer, &buffer[..len]);
            }
        }
    }

    fn handle(&self, peer: SocketAddr, bytes: &[u8]) {
        let now = clock::now();
        let Some(packet) = self.pool.copy(bytes, Meta { arrival: now, ..Meta::default() }) else { return };
        let datagram = Datagram { port: CorePort::Media, peer, packet };
        match self.front.handle(now, &datagram) {
            Heard::Answer(answer) => self.send(&answer),
            Heard::Wanted(stream_id) => {
                let seats = lock(&self.shared.seats);
                let found =
                    seats.iter().find(|(served, _)| names(&stream_id, served)).map(|(_, remote)| remote.clone());
                drop(seats);
                match found {
                    Some(Some(remote)) => {
                        remote.deliver(Done { id: 0, result: Box::new(Visitor { datagram }) });
                    }
                    // It is not on its worker yet: the caller asks again.
                    Some(None) => {}
                    None => {
                        let answer = self.front.refuse(now, &datagram, Rejection::NOT_FOUND);
                        answer.iter().for_each(|answer| self.send(answer));
                    }
                }
            }
            Heard::Nothing => {}
        }
    }

    /// What does not get out is asked for again.
    fn send(&self, transmit: &Transmit) {
        let mut bytes = transmit.header.to_vec();
        bytes.extend_from_slice(transmit.payload.as_deref().unwrap_or_default());
        if let Some(to) = transmit.to {
            let _ = self.socket.io.send_to(&bytes, to);
        }
    }
}

/// What is kept is whole after every statement that may panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const SOCKET: Token = Token(0);
const WAKER: Token = Token(1);
/// A handshake fits into one packet of any path.
const DATAGRAM_BYTES_MAX: usize = 2_048;
