//! A TCP connection that does not block, with TLS around it or not.

use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;

use mio::net::TcpStream;
use socket2::{MaybeUninitSlice, SockRef};

use super::tls::{Failure, Session};
use crate::proto::Payload;
use crate::units::Time;

/// Reads and writes like the socket would, with or without TLS.
#[derive(Debug)]
pub(super) struct Stream {
    tcp: TcpStream,
    session: Option<Box<Session>>,
}

/// Memory to read into, of all connections of a thread: it is still in the processor's cache then. What is filled with much
/// is given away, and other memory comes in its place.
#[derive(Debug, Default)]
pub(super) struct Ahead(Vec<u8>);

impl Ahead {
    /// Empty, with room for so many bytes, at most [`AHEAD_BYTES`].
    pub(super) fn room(&mut self, count: usize) -> &mut Vec<u8> {
        self.0.clear();
        debug_assert!(count <= AHEAD_BYTES);
        self.0.reserve_exact(AHEAD_BYTES);
        &mut self.0
    }

    /// What was put there.
    pub(super) fn take(&mut self) -> Payload {
        if self.0.len() <= BEGINNING_BYTES {
            return self.0.as_slice().into();
        }
        let mut bytes = std::mem::take(&mut self.0);
        bytes.shrink_to_fit();
        bytes.into()
    }
}

impl Stream {
    /// As it is.
    pub(super) const fn plain(tcp: TcpStream) -> Self {
        Self { tcp, session: None }
    }

    /// With TLS around it.
    pub(super) fn secured(tcp: TcpStream, session: Session) -> Self {
        Self { tcp, session: Some(Box::new(session)) }
    }

    /// Whether it is without TLS.
    pub(super) const fn is_plain(&self) -> bool {
        self.session.is_none()
    }

    /// For registering it.
    pub(super) const fn tcp(&mut self) -> &mut TcpStream {
        &mut self.tcp
    }

    /// Why TLS can carry nothing more.
    pub(super) fn failure(&self) -> Option<Failure> {
        self.session.as_ref().and_then(|session| session.failure())
    }

    /// Whether the kernel has all that was written.
    pub(super) fn is_flushed(&self) -> bool {
        self.session.as_ref().is_none_or(|session| session.is_flushed())
    }

    /// When a handshake must be over.
    pub(super) fn poll_timeout(&self) -> Option<Time> {
        self.session.as_ref().and_then(|session| session.poll_timeout())
    }

    /// The clock goes on to `now`.
    pub(super) fn handle_timeout(&mut self, now: Time) {
        if let Some(session) = &mut self.session {
            session.handle_timeout(now);
        }
    }

    /// Says that nothing more will come.
    pub(super) fn shutdown(&mut self) {
        if let Some(session) = &mut self.session {
            session.close(&mut self.tcp);
        }
        let _ = self.tcp.shutdown(Shutdown::Write);
    }

    /// Reads up to `count` bytes behind those of `bytes`, which has the capacity; gives how many came.
    #[allow(unsafe_code, reason = "memory that nobody has written to yet is read into")]
    pub(super) fn read_behind(&mut self, bytes: &mut Vec<u8>, count: usize) -> io::Result<usize> {
        let before = bytes.len();
        if let Some(session) = &mut self.session {
            bytes.resize(before + count.min(RECORD_BYTES), 0);
            let read = session.read(&mut self.tcp, &mut bytes[before..]);
            bytes.truncate(before + read.as_ref().map_or(0, |len| *len));
            return read;
        }
        let len = SockRef::from(&self.tcp).recv(&mut bytes.spare_capacity_mut()[..count])?;
        // SAFETY: the system wrote so many bytes behind those that were there, within the capacity.
        unsafe { bytes.set_len(before + len) };
        Ok(len)
    }

    /// The same, and what follows behind those of `rest`; gives how many came in all. Only if it is plain.
    #[allow(unsafe_code, reason = "memory that nobody has written to yet is read into")]
    pub(super) fn read_behind_both(
        &self,
        (first, count): (&mut Vec<u8>, usize),
        (rest, rest_count): (&mut Vec<u8>, usize),
    ) -> io::Result<usize> {
        debug_assert!(self.is_plain());
        let parts = &mut [
            MaybeUninitSlice::new(&mut first.spare_capacity_mut()[..count]),
            MaybeUninitSlice::new(&mut rest.spare_capacity_mut()[..rest_count]),
        ];
        let (len, _) = SockRef::from(&self.tcp).recv_vectored(parts)?;
        let behind = len.min(count);
        // SAFETY: the system wrote so many bytes behind those that were there, within the capacity: first here, then there.
        unsafe {
            first.set_len(first.len() + behind);
            rest.set_len(rest.len() + len - behind);
        }
        Ok(len)
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.session {
            Some(session) => session.read(&mut self.tcp, buffer),
            None => self.tcp.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match &mut self.session {
            Some(session) => session.write(&mut self.tcp, parts),
            None => self.tcp.write_vectored(parts),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.session.as_mut().map_or(Ok(()), |session| session.flush(&mut self.tcp))
    }
}

impl Drop for Stream {
    /// A peer that finds the end of TLS without a word about it takes it for an attack.
    fn drop(&mut self) {
        if let Some(session) = &mut self.session {
            session.close(&mut self.tcp);
        }
    }
}

/// What is read where nothing is known of what comes. Judgement: as most encoders' chunks have 60 kB or less.
pub(super) const AHEAD_BYTES: usize = 64 << 10;
/// Of something long. Judgement: the headers of some messages; so much is copied again at no cost.
pub(super) const BEGINNING_BYTES: usize = 2 << 10;
/// Of TLS, whose records have so much at most.
const RECORD_BYTES: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    #[test]
    fn memory_that_holds_much_is_given_away_and_that_of_little_is_used_again() {
        let mut ahead = Ahead::default();
        ahead.room(AHEAD_BYTES).extend([7; BEGINNING_BYTES]);
        let (memory, little) = (ahead.0.as_ptr(), ahead.take());
        assert_eq!(ahead.room(1).as_ptr(), memory);
        assert_eq!((little.len(), little.kept_bytes()), (BEGINNING_BYTES, BEGINNING_BYTES));
        ahead.room(AHEAD_BYTES).extend([7; BEGINNING_BYTES + 1]);
        let much = ahead.take();
        assert_eq!((much.as_ptr(), much.kept_bytes()), (memory, BEGINNING_BYTES + 1));
        assert!(ahead.take().is_empty());
        assert!(ahead.room(AHEAD_BYTES).capacity() >= AHEAD_BYTES);
    }

    #[test]
    fn what_comes_goes_behind_what_is_there_and_then_elsewhere() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (tcp, _) = listener.accept().unwrap();
        let mut stream = Stream::plain(TcpStream::from_std(tcp));
        let (mut first, mut rest) = (Vec::with_capacity(8), Vec::with_capacity(8));
        first.push(b'-');
        peer.write_all(b"abcdef").unwrap();
        assert_eq!(stream.read_behind_both((&mut first, 3), (&mut rest, 2)).unwrap(), 5);
        assert_eq!((&first[..], &rest[..]), (&b"-abc"[..], &b"de"[..]));
        assert_eq!(stream.read_behind_both((&mut first, 3), (&mut rest, 2)).unwrap(), 1);
        assert_eq!((&first[..], &rest[..]), (&b"-abcf"[..], &b"de"[..]));
        peer.write_all(b"gh").unwrap();
        assert_eq!(stream.read_behind(&mut rest, 4).unwrap(), 2);
        assert_eq!(rest, b"degh");
        drop(peer);
        assert_eq!(stream.read_behind(&mut first, 1).unwrap(), 0);
        assert_eq!(stream.read_behind_both((&mut first, 1), (&mut rest, 1)).unwrap(), 0);
    }
}
