//! Runs a core of a byte stream on a TCP connection that does not block.
//!
//! Reading stops while the core takes nothing, so that TCP holds the peer back; what waits to be sent stays in the core,
//! which has a bound for it. Nobody is waited for without end: a core says how long its peer may take, and a connection
//! whose peer takes no bytes for [`STALL_MAX`] is over.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use mio::net::TcpStream;

use super::stream::Stream;
use super::tls::Failure;
use crate::bus::{Meta, Packet, Pool};
use crate::proto::{Piece, StreamCore};
use crate::units::Time;

/// A core and its connection.
#[derive(Debug)]
pub(super) struct Connection<C> {
    pub(super) core: C,
    stream: Stream,
    peer: SocketAddr,
    /// Taken from the core and not yet by the kernel, at most [`PENDING_MAX`].
    pending: VecDeque<Piece>,
    /// Bytes of the first of them that the kernel has.
    begun: usize,
    /// The last read brought more than a small buffer holds: a message in one piece needs no copy.
    is_busy: bool,
    /// Since when the kernel takes nothing of what waits.
    stuck: Option<Time>,
    /// The core was found to be over.
    over: Option<Time>,
    broken: Option<Broken>,
}

/// Why a connection can carry nothing more, where the core does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// The peer closed it.
    Closed,
    /// It was reset, or never came about.
    Failed(io::ErrorKind),
    /// TLS came to nothing.
    Insecure(Failure),
    /// The peer took nothing for too long.
    Stalled,
}

impl Broken {
    /// In words.
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::Closed => "closed by the peer",
            Self::Failed(io::ErrorKind::ConnectionRefused) => "nobody listens there",
            Self::Failed(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => "reset by the peer",
            Self::Failed(io::ErrorKind::TimedOut) => "the peer does not answer",
            Self::Failed(io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable) => "cannot be reached",
            Self::Failed(_) => "the connection failed",
            Self::Insecure(failure) => failure.reason(),
            Self::Stalled => "the peer takes no bytes",
        }
    }
}

impl<C: StreamCore> Connection<C> {
    /// On a connection that was made, or is being made.
    pub(super) fn new(core: C, mut stream: Stream, peer: SocketAddr) -> Self {
        // What goes out is written as a whole; waiting for more would only delay it.
        let _ = stream.tcp().set_nodelay(true);
        Self {
            core,
            stream,
            peer,
            pending: VecDeque::new(),
            begun: 0,
            is_busy: false,
            stuck: None,
            over: None,
            broken: None,
        }
    }

    pub(super) const fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// For registering it.
    pub(super) const fn stream(&mut self) -> &mut TcpStream {
        self.stream.tcp()
    }

    /// Nothing more will be written.
    pub(super) fn shutdown(&mut self) {
        self.stream.shutdown();
    }

    /// Without the core.
    pub(super) fn into_stream(self) -> Stream {
        self.stream
    }

    /// Bytes that left the core, and that the kernel has not taken yet.
    pub(super) fn pending_bytes(&self) -> usize {
        self.pending.iter().map(Piece::len).sum::<usize>() - self.begun
    }

    /// Reads what there is, hands on what the peer said, and writes what waits. True if there is more to read, which is
    /// left for others to have their turn first.
    pub(super) fn turn(&mut self, now: Time, pool: &Pool, mut each: impl FnMut(&mut C, C::Message)) -> bool {
        let mut has_more = true;
        self.stream.handle_timeout(now);
        for _ in 0..READS_PER_TURN {
            self.hear(&mut each);
            if self.broken.is_some() || !self.core.is_taking() {
                has_more = false;
                break;
            }
            let Some(bytes) = self.read(now, pool) else {
                has_more = false;
                break;
            };
            self.core.handle_bytes(now, bytes);
        }
        if self.core.poll_timeout().is_some_and(|at| at <= now) {
            self.core.handle_timeout(now);
        }
        self.hear(&mut each);
        self.flush(now);
        if self.core.is_over() {
            self.over.get_or_insert(now);
        }
        has_more
    }

    /// Writes what waits.
    pub(super) fn flush(&mut self, now: Time) {
        while self.broken.is_none() {
            while self.pending.len() < PENDING_MAX
                && let Some(piece) = self.core.poll_transmit()
            {
                if !piece.is_empty() {
                    self.pending.push_back(piece);
                }
            }
            let is_last = self.pending.is_empty();
            match if is_last { self.stream.flush() } else { self.write() } {
                Ok(()) => {
                    self.stuck = None;
                    if is_last {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Not connected yet is no error, either.
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected) => {
                    let since = *self.stuck.get_or_insert(now);
                    if now.since(since) >= STALL_MAX {
                        self.broken = Some(Broken::Stalled);
                    }
                    return;
                }
                Err(error) => self.broken = Some(self.broken_by(&error)),
            }
        }
    }

    fn broken_by(&self, error: &io::Error) -> Broken {
        self.stream.failure().map_or_else(|| Broken::Failed(error.kind()), Broken::Insecure)
    }

    /// Whether nothing more will come or go: to be dropped.
    pub(super) fn is_done(&self, now: Time) -> bool {
        let has_said_all = (self.pending.is_empty() && self.stream.is_flushed())
            || self.over.is_some_and(|over| now.since(over) >= LINGER);
        self.broken.is_some() || (self.over.is_some() && has_said_all)
    }

    pub(super) const fn broken(&self) -> Option<Broken> {
        self.broken
    }

    /// When another turn is due, whatever the socket says.
    pub(super) fn poll_timeout(&self) -> Option<Time> {
        let stuck = self.stuck.map(|since| since + STALL_MAX);
        let over = self.over.map(|over| over + LINGER);
        [self.core.poll_timeout(), self.stream.poll_timeout(), stuck, over].into_iter().flatten().min()
    }

    fn hear(&mut self, each: &mut impl FnMut(&mut C, C::Message)) {
        while let Some(said) = self.core.poll_message() {
            each(&mut self.core, said);
        }
    }

    /// The next bytes; `None` if there are none now, or ever.
    fn read(&mut self, now: Time, pool: &Pool) -> Option<Packet> {
        let size = if self.is_busy { Pool::LARGE } else { Pool::SMALL };
        // Without a buffer the bytes stay where they are: TCP holds the peer back, and the next turn tries again.
        let mut buffer = pool.take(size).or_else(|| pool.take(Pool::SMALL))?;
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => self.broken = Some(Broken::Closed),
                Ok(len) => {
                    self.is_busy = len >= Pool::SMALL;
                    return Some(Packet::new(buffer, 0..len, Meta { arrival: now, ..Meta::default() }));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected) => {}
                Err(error) => self.broken = Some(self.broken_by(&error)),
            }
            return None;
        }
    }

    fn write(&mut self) -> io::Result<()> {
        let mut slices = [IoSlice::new(&[]); 2 * PENDING_MAX];
        let (mut count, mut skip) = (0, self.begun);
        for part in self.pending.iter().flat_map(|piece| [&piece.header[..], &piece.payload[..]]) {
            let skipped = skip.min(part.len());
            skip -= skipped;
            if skipped < part.len() {
                slices[count] = IoSlice::new(&part[skipped..]);
                count += 1;
            }
        }
        let mut left = self.stream.write_vectored(&slices[..count])? + self.begun;
        while let Some(first) = self.pending.front().map(Piece::len).filter(|first| *first <= left) {
            left -= first;
            self.pending.pop_front();
        }
        self.begun = left;
        Ok(())
    }
}

/// How long a peer may take nothing of what waits for it. Judgement: as long as others' servers.
const STALL_MAX: Duration = Duration::from_secs(30);
/// How long what is said last may take to leave. Judgement: a round trip and some retransmissions.
const LINGER: Duration = Duration::from_secs(2);
/// Pieces that go out with one call. Judgement: a key frame of 1 MB in chunks of 60 kB.
const PENDING_MAX: usize = 32;
/// Reads before others have their turn: of 64 KiB each where much comes.
const READS_PER_TURN: usize = 16;
