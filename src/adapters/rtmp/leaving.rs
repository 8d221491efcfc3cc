//! Connections that are over on our side: what was said still leaves, and the peer is heard out.
//!
//! Closed at once with something unread, or that comes after it, the system would reset them, and the peer lose what it
//! was told last.

use std::fmt;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Poll, Token, Waker};

use super::BOTH;
use crate::adapters::clock;
use crate::adapters::stream_driver::Connection;
use crate::adapters::worker::Context;
use crate::proto::StreamCore;
use crate::units::Time;

/// Those of one driver or port; others of its sockets have its readiness told.
#[derive(Debug)]
pub(super) struct Leaving {
    leavers: Vec<Leaver>,
    max: usize,
}

/// One of them.
#[derive(Debug)]
struct Leaver {
    connection: Box<dyn Linger>,
    /// We close first, as we called.
    is_last: bool,
    due: Time,
}

/// A connection of whatever core.
trait Linger: fmt::Debug + Send {
    /// As [`Connection::linger`].
    fn linger(&mut self, now: Time, is_last: bool) -> bool;

    fn stream(&mut self) -> &mut TcpStream;
}

impl<C: StreamCore + fmt::Debug + Send> Linger for Connection<C> {
    fn linger(&mut self, now: Time, is_last: bool) -> bool {
        Self::linger(self, now, is_last)
    }

    fn stream(&mut self) -> &mut TcpStream {
        Self::stream(self)
    }
}

impl Default for Leaving {
    fn default() -> Self {
        Self { leavers: Vec::new(), max: LEAVING_MAX }
    }
}

impl Leaving {
    /// Tells a peer that called us that it is over. Some take a close before their own for an error: they have
    /// [`LEAVING_FOR`] for it.
    pub(super) fn add<C: StreamCore + fmt::Debug + Send + 'static>(&mut self, connection: Connection<C>, now: Time) {
        self.take_in(connection, now, false);
    }

    /// The same for a server that we called; we close when all has left.
    pub(super) fn close<C: StreamCore + fmt::Debug + Send + 'static>(&mut self, connection: Connection<C>, now: Time) {
        self.take_in(connection, now, true);
    }

    fn take_in<C: StreamCore + fmt::Debug + Send + 'static>(
        &mut self,
        mut connection: Connection<C>,
        now: Time,
        is_last: bool,
    ) {
        connection.core.handle_close(now);
        if !connection.linger(now, is_last) {
            self.push(Leaver { connection: Box::new(connection), is_last, due: now + LEAVING_FOR });
        }
    }

    fn push(&mut self, leaver: Leaver) {
        if self.leavers.len() >= self.max {
            self.leavers.remove(0);
        }
        self.leavers.push(leaver);
    }

    /// Writes and reads what can be, and closes what is over.
    pub(super) fn handle_timeout(&mut self, now: Time) {
        self.leavers.retain_mut(|leaver| leaver.due > now && !leaver.connection.linger(now, leaver.is_last));
    }

    pub(super) fn poll_timeout(&self) -> Option<Time> {
        self.leavers.first().map(|leaver| leaver.due)
    }
}

/// Where those of drivers that end go on: a thread, from the first of them to the end of the engine, which waits for them.
#[derive(Clone, Debug, Default)]
pub(in crate::adapters) struct Farewells(Arc<Mutex<Option<Room>>>);

struct Room {
    /// `None` at the end.
    inbox: Option<SyncSender<Leaver>>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

impl Farewells {
    /// All of them leave the worker. What there is no room for is closed as it is.
    pub(super) fn take(&self, cx: &Context<'_>, leaving: &mut Leaving) {
        if leaving.leavers.is_empty() {
            return;
        }
        let mut room = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if room.is_none() {
            *room = Room::open().ok();
        }
        let Some(Room { inbox: Some(inbox), waker, .. }) = &*room else { return };
        for mut leaver in leaving.leavers.drain(..) {
            let _ = cx.deregister(leaver.connection.stream());
            let _ = inbox.try_send(leaver);
        }
        let _ = waker.wake();
    }
}

impl Room {
    fn open() -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let (inbox, leavers) = sync_channel(FAREWELLS_MAX);
        let thread = std::thread::Builder::new().name("rtmp-farewell".into()).spawn(move || run(poll, &leavers))?;
        Ok(Self { inbox: Some(inbox), waker, thread: Some(thread) })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.inbox = None;
        let _ = self.waker.wake();
        if let Some(thread) = self.thread.take() {
            let _its_panic_was_printed = thread.join();
        }
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room").finish_non_exhaustive()
    }
}

fn run(mut poll: Poll, inbox: &Receiver<Leaver>) {
    let mut events = Events::with_capacity(64);
    let mut leaving = Leaving { max: FAREWELLS_MAX, ..Leaving::default() };
    loop {
        let wait = leaving.poll_timeout().map(|due| due.since(clock::now()) + Duration::from_millis(1));
        if let Err(error) = poll.poll(&mut events, wait)
            && error.kind() != io::ErrorKind::Interrupted
        {
            tracing::error!(%error, "connections that end cannot be waited for");
            return;
        }
        let is_closing = loop {
            match inbox.try_recv() {
                Ok(mut leaver) => {
                    // Without readiness it is looked at again at its end.
                    let _ = poll.registry().register(leaver.connection.stream(), SOCKET, BOTH);
                    leaving.push(leaver);
                }
                Err(TryRecvError::Empty) => break false,
                Err(TryRecvError::Disconnected) => break true,
            }
        };
        leaving.handle_timeout(clock::now());
        if is_closing && leaving.leavers.is_empty() {
            return;
        }
    }
}

/// Judgement: several round trips, after which whoever was told has read it.
const LEAVING_FOR: Duration = Duration::from_secs(2);
/// What is above is closed at once. Judgement: all players of an output; more end within two seconds only where somebody attacks.
pub(super) const LEAVING_MAX: usize = 32;
/// Judgement: all pushes of an engine that stops.
const FAREWELLS_MAX: usize = 1_024;
const WAKER: Token = Token(0);
const SOCKET: Token = Token(1);

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{Ipv4Addr, TcpListener, TcpStream as Peer};

    use super::*;
    use crate::adapters::stream::Stream;
    use crate::proto::rtmp::{Config, Server};

    #[test]
    fn of_more_than_there_is_room_for_the_first_is_closed_and_no_other() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (mut leaving, now) = (Leaving::default(), Time::from_ns(1));
        let mut peers: Vec<Peer> = (0..=LEAVING_MAX)
            .map(|_| {
                let peer = Peer::connect(listener.local_addr().unwrap()).unwrap();
                peer.set_nonblocking(true).unwrap();
                let (stream, address) = listener.accept().unwrap();
                stream.set_nonblocking(true).unwrap();
                let stream = Stream::plain(TcpStream::from_std(stream));
                leaving.add(Connection::new(Server::new(now, Config::default(), 1), stream, address), now);
                peer
            })
            .collect();
        let is_closed = |peer: &mut Peer| match peer.read(&mut [0; 9]) {
            Ok(len) => len == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        };
        assert_eq!(leaving.leavers.len(), LEAVING_MAX);
        peers[0].set_nonblocking(false).unwrap();
        peers[0].set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        while peers[0].read(&mut [0; 9]).unwrap() > 0 {}
        assert!(!peers.iter_mut().skip(1).any(is_closed));
        leaving.handle_timeout(now + LEAVING_FOR);
        assert!(leaving.leavers.is_empty());
    }
}
