//! The verbs every sans-IO core speaks, and the cores themselves.
//!
//! A core owns no socket, task, lock or clock. Whoever runs it (the driver on sockets, the simulator in virtual time)
//! feeds it with `handle_datagram`, `handle_packet` and `handle_timeout`, then drains `poll_transmit`, `poll_packet` and
//! `poll_event`, then waits until `poll_timeout`. Feeding again before draining is allowed; what piles up is bounded by
//! the core and counted in its [`Stats`]. Over TCP the same holds for a [`StreamCore`].

use std::any::Any;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use arrayvec::ArrayVec;

use crate::bus::{Packet, Pool};
use crate::units::Time;

pub(crate) mod annexb;
pub(crate) mod av1;
pub(crate) mod bits;
pub mod bridge;
pub mod fec;
pub mod mpegts;
mod refusals;
#[cfg(feature = "rist")]
pub mod rist;
pub mod rtmp;
pub mod rtp;
#[cfg(feature = "srt")]
pub mod srt;
mod stream;
pub mod udp;

pub use refusals::Refusals;
pub use stream::{Payload, Piece, StreamCore};

/// A protocol without IO.
pub trait Core {
    /// A datagram came in from the wire.
    fn handle_datagram(&mut self, now: Time, datagram: Datagram);

    /// A packet came from the bus and shall go out. Cores that only receive ignore it.
    fn handle_packet(&mut self, now: Time, packet: &Packet);

    /// `now` reached what [`Core::poll_timeout`] said. Calling it early is harmless.
    fn handle_timeout(&mut self, now: Time);

    /// Settings that it shall go on with. Those of another protocol are not for it.
    fn handle_tuning(&mut self, _now: Time, _tuning: &Tuning) {}

    /// The end: what the peer should know of it is left in [`Core::poll_transmit`].
    fn handle_close(&mut self, _now: Time) {}

    /// The next datagram to send; `None` when there is none left.
    fn poll_transmit(&mut self) -> Option<Transmit>;

    /// The next packet for the bus, in order; `None` when there is none left.
    fn poll_packet(&mut self) -> Option<Packet>;

    /// The next thing worth telling; `None` when there is none left.
    fn poll_event(&mut self) -> Option<Event>;

    /// The next work to be done elsewhere; `None` when there is none left.
    fn poll_work(&mut self) -> Option<Work> {
        None
    }

    /// What [`Core::poll_work`] asked for is done. It may also never be: a core does not rely on it.
    fn handle_done(&mut self, _now: Time, _done: Done) {}

    /// When [`Core::handle_timeout`] wants to be called; `None` for never.
    fn poll_timeout(&self) -> Option<Time>;

    /// How long datagrams and packets may wait before the core sees them, without anything becoming later by it: a
    /// core with a buffer against jitter evens that out, going by when they came.
    fn patience(&self) -> Duration {
        Duration::ZERO
    }

    /// Packets that its one peer will not get, as they became too late or there was no room for them; another number after
    /// each. A core that serves several peers, who lose different packets, has none.
    fn dropped(&self) -> u64 {
        0
    }

    /// Counters since the start.
    fn stats(&self) -> Stats;

    /// Lends the figures that this protocol's users know it by, under their names and always in the same order. A core
    /// without any does nothing.
    fn visit_details(&self, _visit: &mut dyn FnMut(&[Detail])) {}
}

/// Settings that a running core takes on without anything being opened anew, by protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Tuning {
    /// Of SRT, for the connections that there are and those to come.
    #[cfg(feature = "srt")]
    Srt(srt::Tuning),
}

/// Work that takes so long that packets should not wait for it.
pub struct Work {
    id: u64,
    run: Box<dyn FnOnce() -> Box<dyn Any + Send> + Send>,
}

/// What came of [`Work`].
pub struct Done {
    /// As the core named it.
    pub id: u64,
    /// What only the core knows the type of.
    pub result: Box<dyn Any + Send>,
}

impl Work {
    /// Work that the core knows again by `id`.
    #[must_use]
    pub fn new<R: Any + Send>(id: u64, run: impl FnOnce() -> R + Send + 'static) -> Self {
        Self { id, run: Box::new(move || Box::new(run())) }
    }

    /// The same under another id: for a core that is made of several.
    #[must_use]
    pub fn with_id(mut self, id: impl FnOnce(u64) -> u64) -> Self {
        self.id = id(self.id);
        self
    }

    /// Does it.
    #[must_use]
    pub fn run(self) -> Done {
        Done { id: self.id, result: (self.run)() }
    }
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work").field("id", &self.id).finish_non_exhaustive()
    }
}

impl fmt::Debug for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Done").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A figure under the name that a protocol's users know it by.
pub type Detail = (&'static str, f64);

/// One UDP payload from the wire; its arrival stands in the packet's metadata.
#[derive(Clone, Debug)]
pub struct Datagram {
    /// Which of the core's ports it came to.
    pub port: Port,
    /// Who sent it.
    pub peer: SocketAddr,
    /// The payload.
    pub packet: Packet,
}

/// One UDP payload for the wire: a header of the core's own, and bytes straight from the bus.
#[derive(Clone, Debug)]
pub struct Transmit {
    /// Which of the core's ports it leaves from.
    pub port: Port,
    /// Where to; `None` for the peer that the port is connected to.
    pub to: Option<SocketAddr>,
    /// What goes before the payload.
    pub header: WireHeader,
    /// The rest, never copied.
    pub payload: Option<Packet>,
}

impl Transmit {
    /// Length of the whole datagram in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.header.len() + self.payload.as_ref().map_or(0, |payload| payload.len())
    }

    /// Whether the datagram is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Header bytes in front of a payload.
pub type WireHeader = ArrayVec<u8, WIRE_HEADER_BYTES_MAX>;

/// A header of `bytes`, cut to [`WIRE_HEADER_BYTES_MAX`].
pub(crate) fn wire_header(bytes: &[u8]) -> WireHeader {
    let mut header = WireHeader::new_const();
    let _fits = header.try_extend_from_slice(&bytes[..bytes.len().min(WIRE_HEADER_BYTES_MAX)]);
    header
}

/// Longest header that is not part of the payload's buffer: an RTP header without CSRC list (RFC 3550 5.1) is 12 bytes, an
/// SRT header 16, and RIST's tunnel has up to 16 before an RTP header.
pub const WIRE_HEADER_BYTES_MAX: usize = 28;

/// The sockets a core may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Port {
    /// Carries the media.
    #[default]
    Media,
    /// Carries reports about it, as RTCP does.
    Control,
    /// Carries forward error correction of columns (SMPTE ST 2022-1).
    FecColumns,
    /// Carries forward error correction of rows (SMPTE ST 2022-1).
    FecRows,
}

impl Port {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Media, Self::Control, Self::FecColumns, Self::FecRows];
}

/// What a core has to tell its operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Somebody is connected.
    PeerConnected {
        /// Who.
        peer: SocketAddr,
    },
    /// A connection ended.
    PeerLost {
        /// With whom.
        peer: SocketAddr,
        /// Why.
        why: PeerEnd,
    },
    /// No connection came about.
    PeerRefused {
        /// With whom.
        peer: SocketAddr,
        /// Why.
        why: PeerEnd,
        /// How often since it was told last.
        count: u64,
    },
    /// Callers were sent away at a port.
    CallersRefused {
        /// One of them.
        peer: SocketAddr,
        /// Why, in words.
        reason: &'static str,
        /// How many since that was told last.
        count: u64,
    },
    /// The sender started over with another identity: RTP's SSRC changed.
    Restarted {
        /// SSRC until now.
        from: u32,
        /// SSRC from now on.
        to: u32,
    },
    /// The sender said goodbye (RTCP BYE).
    Ended,
    /// Something of the stream is not carried to the other side; told once.
    NotCarried(bridge::Uncarried),
}

/// Why a connection ended, or did not come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerEnd {
    /// In words.
    pub reason: &'static str,
    /// What goes before them, and the protocol's number for it, if the protocol says why.
    pub refusal: Option<(&'static str, u32)>,
}

impl fmt::Display for PeerEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.refusal {
            None => f.write_str(self.reason),
            Some((by, code)) => write!(f, "{by}: {} ({code})", self.reason),
        }
    }
}

/// Counters of one core, in packets. What a protocol does not have stays zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Packets taken in, valid ones.
    pub received: u64,
    /// Packets that were missing at their deadline.
    pub lost: u64,
    /// Packets that were missing and came by retransmission, FEC or another leg.
    pub recovered: u64,
    /// Packets that came again.
    pub duplicate: u64,
    /// Packets that came after their deadline.
    pub late: u64,
    /// Packets that came after a later one and were put back in order.
    pub reordered: u64,
    /// Datagrams that were no packets of this protocol.
    pub malformed: u64,
    /// Well-formed packets refused: another SSRC, payload type or port.
    pub unexpected: u64,
    /// Packets that no buffer could be had for.
    pub no_buffer: u64,
    /// Packets dropped because the core's own queue was full.
    pub overflow: u64,
    /// Packets longer than a peer takes, where they must not be cut; outputs only.
    pub too_long: u64,
    /// Packets that nobody was connected to take; outputs only.
    pub not_connected: u64,
    /// Who is connected, where the protocol has connections.
    pub peers: Option<u32>,
    /// Interarrival jitter (RFC 3550 6.4.1).
    pub jitter: Duration,
    /// Round-trip time, where the protocol measures it.
    pub round_trip: Option<Duration>,
    /// Share of packets that the peer says it lost, of 256 (RFC 3550 6.4.1); outputs only.
    pub peer_fraction_lost: Option<u8>,
}

/// What a core may need from outside at its birth.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Buffers for what the core makes itself.
    pub pool: Pool,
    /// A seed for identifiers that must be random (SSRC, first sequence number).
    pub seed: u64,
    /// Wall-clock nanoseconds since 1970 at [`Time::ZERO`]: RTCP needs NTP time.
    pub unix_ns_at_zero: u64,
}
