//! A TCP connection that does not block, with TLS around it or not.

use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;

use mio::net::TcpStream;
use socket2::{MaybeUninitSlice, SockRef};

use super::tls::{Failure, Session};
use crate::units::Time;

/// Reads and writes like the socket would, with or without TLS.
#[derive(Debug)]
pub(super) struct Stream {
    tcp: TcpStream,
    session: Option<Box<Session>>,
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
}

impl Stream {
    /// Reads up to `count` bytes behind those of `first`, which has the capacity, and what follows them into `rest`; gives how
    /// many went where. Only if it is plain.
    #[allow(unsafe_code, reason = "memory that nobody has written to yet is read into")]
    pub(super) fn read_behind(
        &self,
        (first, count): (&mut Vec<u8>, usize),
        rest: &mut [u8],
    ) -> io::Result<(usize, usize)> {
        debug_assert!(self.is_plain());
        let room = &mut first.spare_capacity_mut()[..count];
        // SAFETY: bytes that are initialised may be overwritten, and the system writes nothing else.
        let rest = unsafe { &mut *(std::ptr::from_mut(rest) as *mut [MaybeUninit<u8>]) };
        let parts = &mut [MaybeUninitSlice::new(room), MaybeUninitSlice::new(rest)];
        let (len, _) = SockRef::from(&self.tcp).recv_vectored(parts)?;
        let behind = len.min(count);
        // SAFETY: the system wrote so many bytes behind those that were there, within the capacity.
        unsafe { first.set_len(first.len() + behind) };
        Ok((behind, len - behind))
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

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    #[test]
    fn what_comes_goes_behind_what_is_there_and_then_elsewhere() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (tcp, _) = listener.accept().unwrap();
        let stream = Stream::plain(TcpStream::from_std(tcp));
        let (mut first, mut rest) = (Vec::with_capacity(8), [0; 4]);
        first.push(b'-');
        peer.write_all(b"abcde").unwrap();
        assert_eq!(stream.read_behind((&mut first, 3), &mut rest).unwrap(), (3, 2));
        assert_eq!((&first[..], rest), (&b"-abc"[..], *b"de\0\0"));
        peer.write_all(b"f").unwrap();
        assert_eq!(stream.read_behind((&mut first, 3), &mut rest).unwrap(), (1, 0));
        assert_eq!(first, b"-abcf");
        drop(peer);
        assert_eq!(stream.read_behind((&mut first, 3), &mut rest).unwrap(), (0, 0));
    }
}
