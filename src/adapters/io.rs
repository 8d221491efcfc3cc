//! Datagrams in and out: batched where the kernel can, one by one elsewhere.
//!
//! A worker has one [`Io`] and lends it to whichever driver runs. The batched kind is Linux' `recvmmsg` and `sendmmsg`
//! with segmentation offload; the portable kind needs nothing but `recv_from` and `send_to`, and can be forced so that
//! tests run it everywhere.

use std::io;
use std::net::SocketAddr;

use super::portable::Portable;
use super::socket::UdpSocket;
use crate::bus::{Packet, Pool};
use crate::proto::Transmit;
use crate::units::Time;

#[cfg(target_os = "linux")]
use super::batched::Batched;

/// Which way datagrams take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IoKind {
    /// Batched on Linux, portable elsewhere.
    #[default]
    Best,
    /// One system call a datagram.
    Portable,
}

/// Scratch memory for system calls, one per worker.
pub(super) struct Io(Imp);

enum Imp {
    #[cfg(target_os = "linux")]
    Batched(Box<Batched>),
    Portable(Portable),
}

impl Io {
    pub(super) fn new(kind: IoKind) -> Self {
        match kind {
            #[cfg(target_os = "linux")]
            IoKind::Best => Self(Imp::Batched(Box::new(Batched::new()))),
            #[cfg(not(target_os = "linux"))]
            IoKind::Best => Self(Imp::Portable(Portable::new())),
            IoKind::Portable => Self(Imp::Portable(Portable::new())),
        }
    }

    /// Makes a socket ready for this way of receiving, before the first call of [`Io::receive`].
    pub(super) fn prepare(&self, socket: &UdpSocket) {
        match &self.0 {
            #[cfg(target_os = "linux")]
            Imp::Batched(_) => super::system::coalesce_received(&socket.io),
            Imp::Portable(_) => {}
        }
    }

    /// Takes datagrams off `socket`, some dozens at most, and hands each to `sink` with its sender.
    pub(super) fn receive(
        &mut self,
        socket: &mut UdpSocket,
        pool: &Pool,
        now: Time,
        sink: &mut dyn FnMut(SocketAddr, Packet),
    ) -> Received {
        match &mut self.0 {
            #[cfg(target_os = "linux")]
            Imp::Batched(batched) => batched.receive(socket, pool, now, sink),
            Imp::Portable(portable) => portable.receive(socket, pool, now, sink),
        }
    }

    /// Hands as many of `transmits`, in order, to the kernel as it takes.
    pub(super) fn send(&mut self, socket: &mut UdpSocket, transmits: &[Transmit]) -> Sent {
        match &mut self.0 {
            #[cfg(target_os = "linux")]
            Imp::Batched(batched) => batched.send(socket, transmits),
            Imp::Portable(portable) => portable.send(socket, transmits),
        }
    }
}

impl std::fmt::Debug for Io {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.0 {
            #[cfg(target_os = "linux")]
            Imp::Batched(_) => "Batched",
            Imp::Portable(_) => "Portable",
        })
    }
}

/// What one call of [`Io::receive`] did.
#[derive(Debug, Default)]
pub(super) struct Received {
    /// There may be more; call again.
    pub more: bool,
    /// Datagrams that the kernel dropped since the last call because the socket's buffer was full.
    pub kernel_drops: u64,
    /// Datagrams dropped because the pool was at its bound.
    pub no_buffer: u64,
}

/// What one call of [`Io::send`] did.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// Datagrams taken, from the front.
    pub count: usize,
    /// Of those, how many shared a segmented send with others.
    pub segmented: usize,
    /// Why it stopped before the end, and how many datagrams from there on the error is about.
    pub error: Option<(io::Error, usize)>,
}
