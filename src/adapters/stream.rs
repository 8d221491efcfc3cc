//! A TCP connection that does not block, with TLS around it or not.

use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;

use mio::net::TcpStream;

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
