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
use socket2::{SockRef, TcpKeepalive};

use super::gather::Gather;
use super::stream::{AHEAD_BYTES, Ahead, BEGINNING_BYTES, Stream};
use super::system;
use super::tls::Failure;
use super::worker::Ready;
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
    /// The socket was read empty, and nothing came since.
    is_drained: bool,
    /// Reading tells of the end, or of an error: it is not known to be empty before it has.
    at_end: bool,
    /// What came since the core had no room, as the beginning of something longer.
    begun_bytes: usize,
    /// What came in this turn.
    came_bytes: usize,
    gather: Gather,
    /// The core took nothing at the end of the last turn. Readiness that was told meanwhile is used up.
    is_held: bool,
    /// Since when the kernel takes nothing of what waits.
    stuck: Option<Time>,
    /// The core was found to be over.
    over: Option<Time>,
    /// The peer was told that nothing follows.
    is_shut: bool,
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
        // Best effort, as some systems have less of it: a peer whose power fails says nothing, and may have nothing to say.
        let socket = SockRef::from(&*stream.tcp());
        let probes = TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBES_APART);
        let _ = socket.set_tcp_keepalive(&probes);
        // Bytes that were sent as urgent are like all others; by themselves they would cut reads short.
        let _ = socket.set_out_of_band_inline(true);
        // Linux ends a connection then even if the peer acknowledges everything and its window is closed (tcp(7)).
        #[cfg(target_os = "linux")]
        let _ = socket.set_tcp_user_timeout(Some(STALL_MAX));
        Self {
            core,
            stream,
            peer,
            pending: VecDeque::new(),
            begun: 0,
            is_drained: false,
            at_end: false,
            begun_bytes: 0,
            came_bytes: 0,
            gather: Gather::default(),
            is_held: false,
            stuck: None,
            over: None,
            is_shut: false,
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

    /// The peer has ended it, as far as that shows without reading: what it said before hides it.
    pub(super) fn has_left(&mut self) -> bool {
        match self.stream.tcp().peek(&mut [0]) {
            Ok(len) => len == 0,
            Err(error) => !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
        }
    }

    /// The same of what readiness told.
    pub(super) const fn is_ending(&self) -> bool {
        self.at_end
    }

    /// Bytes that left the core, and that the kernel has not taken yet.
    pub(super) fn pending_bytes(&self) -> usize {
        self.pending.iter().map(Piece::len).sum::<usize>() - self.begun
    }

    /// The socket is ready, or another one that this cannot be told from.
    pub(super) const fn handle_ready(&mut self, ready: Ready) {
        self.is_drained &= !ready.to_read;
        self.at_end |= ready.at_end;
    }

    /// Reads what there is, hands on what the peer said, and writes what waits. True if there is more to read or to hand
    /// on, which is left for others to have their turn first.
    pub(super) fn turn(&mut self, now: Time, ahead: &mut Ahead, mut each: impl FnMut(&mut C, C::Message)) -> bool {
        self.is_held = false;
        self.stream.handle_timeout(now);
        // What TLS comes to by itself shows in reading.
        self.is_drained &= self.stream.failure().is_none() && self.gather.due().is_none_or(|due| due > now);
        let mut messages = MESSAGES_PER_TURN;
        let mut has_more = self.take_in(now, ahead, &mut messages, &mut each);
        if self.core.poll_timeout().is_some_and(|at| at <= now) {
            self.core.handle_timeout(now);
        }
        // The end is one message, and is not left for later.
        has_more |= !self.hear(&mut messages.max(1), &mut each);
        self.flush(now);
        if let Some(bytes) = self.gather.after_turn(now, std::mem::take(&mut self.came_bytes)) {
            system::wake_at(self.stream.tcp(), bytes);
        }
        if self.core.is_over() {
            self.over.get_or_insert(now);
        }
        has_more
    }

    /// True if there may be more.
    fn take_in(
        &mut self,
        now: Time,
        ahead: &mut Ahead,
        messages: &mut usize,
        each: &mut impl FnMut(&mut C, C::Message),
    ) -> bool {
        for _ in 0..READS_PER_TURN {
            if !self.hear(messages, each) {
                return true;
            }
            self.is_held = !self.core.is_taking();
            if self.broken.is_some() || self.is_drained || self.is_held {
                return false;
            }
            if !self.read(now, ahead) {
                return false;
            }
        }
        true
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
        if let Some(failure) = self.stream.failure() {
            return Broken::Insecure(failure);
        }
        // The kernel counts from when the window closed, so that its limit comes before ours.
        if error.kind() == io::ErrorKind::TimedOut && self.stuck.is_some() {
            return Broken::Stalled;
        }
        Broken::Failed(error.kind())
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

    /// Of a core that is over: what waits goes on leaving, and what comes is read into nothing, as unread bytes would have the
    /// connection reset. With `is_last` the peer is told when nothing follows. True when nothing is left to be done.
    pub(super) fn linger(&mut self, now: Time, is_last: bool) -> bool {
        self.flush(now);
        if is_last && !self.is_shut && self.broken.is_none() && self.pending.is_empty() && self.stream.is_flushed() {
            self.stream.shutdown();
            self.is_shut = true;
        }
        let mut unwanted = [0; 16 << 10];
        for _ in 0..LINGER_READS {
            match self.stream.read(&mut unwanted) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let is_open = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected);
                    return !is_open || self.broken.is_some();
                }
            }
        }
        false
    }

    /// When another turn is due, whatever the socket says.
    pub(super) fn poll_timeout(&self) -> Option<Time> {
        if self.broken.is_some() || (self.is_held && self.core.is_taking()) {
            return Some(Time::ZERO);
        }
        let stuck = self.stuck.map(|since| since + STALL_MAX);
        let over = self.over.map(|over| over + LINGER);
        [self.core.poll_timeout(), self.stream.poll_timeout(), self.gather.due(), stuck, over]
            .into_iter()
            .flatten()
            .min()
    }

    /// At most so many messages; false if there may be more.
    fn hear(&mut self, messages: &mut usize, each: &mut impl FnMut(&mut C, C::Message)) -> bool {
        while *messages > 0 {
            let Some(said) = self.core.poll_message() else {
                return !self.core.is_behind();
            };
            each(&mut self.core, said);
            *messages -= 1;
        }
        false
    }

    /// False if there is nothing now, or never will be.
    fn read(&mut self, now: Time, ahead: &mut Ahead) -> bool {
        loop {
            let room = if self.stream.is_plain() { self.core.room() } else { None };
            let (has_room, asked, read) = match room {
                Some((room, count)) => {
                    let count = count.min(AHEAD_BYTES);
                    let rest = ahead.room(BEGINNING_BYTES);
                    (
                        true,
                        count + BEGINNING_BYTES,
                        self.stream.read_behind_both((room, count), (rest, BEGINNING_BYTES)),
                    )
                }
                // What is longer has room as soon as it has begun.
                None => {
                    let count = if self.begun_bytes > AHEAD_BYTES { BEGINNING_BYTES } else { AHEAD_BYTES };
                    (false, count, self.stream.read_behind(ahead.room(count), count))
                }
            };
            match read {
                Ok(0) => self.broken = Some(Broken::Closed),
                Ok(len) => {
                    // Less than was asked for is all that there is (epoll(7)), unless an end is behind it. TLS has its own parts.
                    self.came_bytes += len;
                    self.is_drained = len < asked && !self.at_end && self.stream.is_plain();
                    let bytes = ahead.take();
                    if has_room {
                        self.begun_bytes = self.begun_bytes.saturating_add(len);
                        self.core.handle_appended(now, len - bytes.len());
                    } else {
                        self.begun_bytes = len;
                    }
                    if !bytes.is_empty() {
                        self.core.handle_bytes(now, bytes);
                    }
                    return true;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected) => {
                    // The end that was told was that of another, who is registered by the same name.
                    (self.is_drained, self.at_end) = (true, false);
                }
                Err(error) => self.broken = Some(self.broken_by(&error)),
            }
            return false;
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

/// How long a peer may take nothing of what waits for it, or acknowledge nothing (RFC 5482). Judgement: as long as others'
/// servers; a player is paused for less, and a path found anew.
const STALL_MAX: Duration = Duration::from_secs(30);
/// A connection that nothing comes on is probed after that, and every so long until there is an answer. Judgement: encoders
/// and servers fall silent for less.
const PROBE_AFTER: Duration = Duration::from_secs(10);
const PROBES_APART: Duration = Duration::from_secs(2);
/// How long what is said last may take to leave. Judgement: a round trip and some retransmissions.
const LINGER: Duration = Duration::from_secs(2);
/// Reads of one who leaves before others have their turn. Judgement: more than comes within a wake-up.
const LINGER_READS: usize = 64;
/// Pieces that go out with one call. Judgement: a key frame of 1 MB in chunks of 60 kB.
const PENDING_MAX: usize = 32;
/// Reads before others have their turn: of about 64 KiB each where much comes. Judgement: a key frame of 4 Mbit.
const READS_PER_TURN: usize = 8;
/// Messages before others have their turn. Judgement: half of the packets that a turn of UDP brings, as messages are dearer.
const MESSAGES_PER_TURN: usize = 256;

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener, TcpStream as Peer};

    use super::*;
    use crate::proto::Payload;

    /// Each byte is a message; those that wait are looked at one by one.
    #[derive(Default)]
    struct Bytes {
        waiting: VecDeque<Payload>,
        at: usize,
        out: VecDeque<Piece>,
        refuses: bool,
        /// Says nothing more before the answer to what it said has left.
        answers: bool,
    }

    impl StreamCore for Bytes {
        type Message = u8;

        fn handle_bytes(&mut self, _now: Time, bytes: Payload) {
            self.waiting.push_back(bytes);
        }

        fn handle_timeout(&mut self, _now: Time) {}

        fn handle_close(&mut self, _now: Time) {}

        fn poll_transmit(&mut self) -> Option<Piece> {
            self.out.pop_front()
        }

        fn poll_message(&mut self) -> Option<u8> {
            if !self.out.is_empty() {
                return None;
            }
            let front = self.waiting.front()?;
            let byte = front[self.at];
            self.at += 1;
            if self.at == front.len() {
                self.waiting.pop_front();
                self.at = 0;
            }
            if self.answers {
                self.out.push_back(Piece { payload: Payload::from(vec![byte]), ..Piece::default() });
            }
            Some(byte)
        }

        fn poll_timeout(&self) -> Option<Time> {
            None
        }

        fn is_taking(&self) -> bool {
            self.waiting.len() < 4 && !self.refuses && (!self.answers || self.out.is_empty())
        }

        fn is_over(&self) -> bool {
            false
        }
    }

    fn connection() -> (Connection<Bytes>, Peer) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let peer = Peer::connect(listener.local_addr().unwrap()).unwrap();
        let (tcp, address) = listener.accept().unwrap();
        tcp.set_nonblocking(true).unwrap();
        (Connection::new(Bytes::default(), Stream::plain(TcpStream::from_std(tcp)), address), peer)
    }

    #[test]
    fn a_turn_ends_after_so_many_messages_and_the_next_goes_on() {
        let (mut connection, mut peer) = connection();
        let sent: Vec<u8> = (0..2_000).map(|n| n as u8).collect();
        peer.write_all(&sent).unwrap();
        let (mut ahead, mut came) = (Ahead::default(), Vec::new());
        let mut has_more = true;
        while has_more || came.len() < sent.len() {
            let before = came.len();
            has_more = connection.turn(Time::ZERO, &mut ahead, |_, said| came.push(said));
            assert!(came.len() - before < 300);
        }
        assert_eq!(came, sent);
    }

    #[test]
    fn without_readiness_nothing_is_read() {
        let (mut connection, mut peer) = connection();
        let (mut ahead, mut came) = (Ahead::default(), Vec::new());
        connection.turn(Time::ZERO, &mut ahead, |_, said| came.push(said));
        peer.write_all(&[7]).unwrap();
        connection.turn(Time::ZERO, &mut ahead, |_, said| came.push(said));
        assert!(came.is_empty(), "a timer is no reason to ask the system");
        connection.handle_ready(Ready { to_read: true, at_end: false });
        connection.turn(Time::ZERO, &mut ahead, |_, said| came.push(said));
        assert_eq!(came, [7]);
    }

    /// What comes while a message is looked at is seen only by whoever reads once more.
    #[test]
    fn less_than_was_asked_for_is_all_unless_the_end_is_behind_it() {
        for at_end in [false, true] {
            let (mut connection, mut peer) = connection();
            let (mut ahead, mut came) = (Ahead::default(), Vec::new());
            connection.handle_ready(Ready { to_read: true, at_end });
            peer.write_all(&[1]).unwrap();
            connection.turn(Time::ZERO, &mut ahead, |_, said| {
                came.push(said);
                peer.write_all(&[2][..usize::from(said == 1)]).unwrap();
            });
            assert_eq!(came, &[1, 2][..if at_end { 2 } else { 1 }]);
        }
    }

    #[test]
    fn who_was_held_back_is_heard_as_soon_as_there_is_room() {
        let (mut connection, mut peer) = connection();
        connection.core.refuses = true;
        peer.write_all(&[7]).unwrap();
        let mut ahead = Ahead::default();
        assert!(!connection.turn(Time::ZERO, &mut ahead, |_, _| {}));
        assert_eq!(connection.poll_timeout(), None);
        connection.core.refuses = false;
        assert_eq!(connection.poll_timeout(), Some(Time::ZERO), "no readiness will tell");
        let mut came = Vec::new();
        while came.is_empty() {
            connection.turn(Time::ZERO, &mut ahead, |_, said| came.push(said));
        }
        assert_eq!(connection.poll_timeout(), None);
    }

    #[test]
    fn who_was_held_back_by_what_he_said_himself_is_heard_when_the_answer_has_left() {
        let (mut connection, mut peer) = connection();
        connection.core.answers = true;
        peer.write_all(&[1, 2, 3]).unwrap();
        let (mut ahead, mut came) = (Ahead::default(), Vec::new());
        while came.len() < 3 {
            let has_more = connection.turn(Time::ZERO, &mut ahead, |_, said| came.push(said));
            assert!(came.len() == 3 || has_more || connection.poll_timeout() == Some(Time::ZERO), "{came:?}");
        }
    }

    #[test]
    fn an_end_behind_the_last_bytes_is_told_with_them() {
        let (mut connection, mut peer) = connection();
        let mut poll = mio::Poll::new().unwrap();
        poll.registry().register(connection.stream(), mio::Token(0), mio::Interest::READABLE).unwrap();
        peer.write_all(&[7]).unwrap();
        peer.shutdown(std::net::Shutdown::Write).unwrap();
        let (mut ahead, mut came, mut events) = (Ahead::default(), Vec::new(), mio::Events::with_capacity(4));
        while connection.broken().is_none() {
            poll.poll(&mut events, Some(Duration::from_secs(10))).unwrap();
            assert!(!events.is_empty(), "the end is never told");
            events.iter().for_each(|event| connection.handle_ready(Ready::of(event)));
            connection.turn(Time::ZERO, &mut ahead, |_, said| came.push(said));
        }
        assert_eq!((came, connection.broken()), (vec![7], Some(Broken::Closed)));
    }

    #[test]
    fn a_connection_that_broke_while_writing_wants_its_owner() {
        let (mut connection, peer) = connection();
        SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
        drop(peer);
        while connection.broken().is_none() {
            connection.core.out.push_back(Piece { payload: Payload::from(vec![0; 100]), ..Piece::default() });
            connection.flush(Time::ZERO);
        }
        assert_eq!(connection.poll_timeout(), Some(Time::ZERO));
    }

    /// The kernel ends it first, as its time begins when the window closes.
    #[test]
    fn a_peer_that_takes_nothing_is_told_from_one_that_is_gone() {
        let (mut connection, _peer) = connection();
        let error = io::ErrorKind::TimedOut.into();
        assert_eq!(connection.broken_by(&error), Broken::Failed(io::ErrorKind::TimedOut));
        while connection.stuck.is_none() {
            connection.core.out.push_back(Piece { payload: Payload::from(vec![0; 100_000]), ..Piece::default() });
            connection.flush(Time::ZERO);
        }
        assert_eq!(connection.broken_by(&error), Broken::Stalled);
    }

    #[test]
    fn a_peer_without_power_is_found_out_although_nothing_is_written() {
        let (mut connection, _peer) = connection();
        let socket = SockRef::from(&*connection.stream());
        assert!(socket.keepalive().unwrap());
        #[cfg(target_os = "linux")]
        {
            assert_eq!(socket.tcp_user_timeout().unwrap(), Some(STALL_MAX));
            assert_eq!(socket.tcp_keepalive_time().unwrap(), PROBE_AFTER);
        }
    }
}
