//! A source or an output on its sockets, as the engine sees it, whatever its protocol.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::counters::Counters;
use super::legs::{LegConfig, LegError, LegView};
use super::socket::Granted;
use super::worker::{Context, Ready, SocketKey};
use super::{rtmp, rtp};
use crate::bus::{LocalCursor, Packet, Publisher};
use crate::path::{AllowList, Limiter};
use crate::proto::{self, Done};
use crate::units::Time;

/// Settings that a source or an output takes on without being opened anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tuning {
    /// Of the core that it runs.
    Core(proto::Tuning),
    /// Of a source of RTMP.
    Rtmp(rtmp::Tuning),
}

/// A core on its sockets, as the engine sees it, whatever its protocol.
pub trait Driven: Send {
    /// Registers the sockets with the worker: `first` names the media socket, the numbers after it those of the other ports.
    ///
    /// # Errors
    /// What the system refused.
    fn start(&mut self, cx: &mut Context<'_>, first: SocketKey) -> io::Result<()>;

    /// A socket is ready: receives what there is, hands packets to `sink`, sends what waits.
    fn handle_ready(&mut self, cx: &mut Context<'_>, socket: SocketKey, ready: Ready, sink: &mut dyn FnMut(Packet));

    /// The time that [`Driven::poll_timeout`] named has come.
    fn handle_timeout(&mut self, cx: &mut Context<'_>, sink: &mut dyn FnMut(Packet));

    /// Sends what `cursor` has not seen yet, until there is no more or the socket takes no more.
    fn send_from(&mut self, cx: &mut Context<'_>, publisher: &Publisher, cursor: &mut LocalCursor);

    /// Stops listening for media, so that datagrams gather in the socket, until [`Driven::collect`] takes them in.
    fn rest(&mut self, cx: &mut Context<'_>);

    /// Takes in what has gathered, and does what is due.
    fn collect(&mut self, cx: &mut Context<'_>, sink: &mut dyn FnMut(Packet));

    /// Listens again, if it does not already.
    fn listen(&mut self, cx: &mut Context<'_>);

    /// What was done elsewhere, as it asked for.
    fn handle_done(&mut self, cx: &mut Context<'_>, done: Done, sink: &mut dyn FnMut(Packet));

    /// Goes on with other settings; those of another protocol are not for it.
    fn tune(&mut self, cx: &mut Context<'_>, tuning: &Tuning, sink: &mut dyn FnMut(Packet));

    /// The end: tells the peer, where the protocol has a word for it. The sockets close with the driver.
    fn close(&mut self, cx: &mut Context<'_>);

    /// When [`Driven::handle_timeout`] wants to be called.
    fn poll_timeout(&self) -> Option<Time>;

    /// How long datagrams and packets may be held back from it without anything becoming later by it.
    fn patience(&self) -> Duration {
        Duration::ZERO
    }

    /// Whether the kernel takes no more for now; the driver then waits for its socket.
    fn is_blocked(&self) -> bool {
        false
    }

    /// The next thing worth telling.
    fn poll_event(&mut self) -> Option<DriverEvent>;

    /// Counters that this driver writes.
    fn counters(&self) -> &Arc<Counters>;

    /// Goes on counting where the driver before it left off.
    fn adopt(&mut self, counters: Arc<Counters>);

    /// Buffers of the media socket, receive and send; `None` without a socket.
    fn buffers(&self) -> Option<(Granted, Granted)> {
        None
    }

    /// Its legs, where there are several.
    fn legs(&self) -> Vec<LegView> {
        Vec::new()
    }

    /// Goes on over the legs of `wanted`; the first one leads to `first`, or, if that is `None`, where it led before.
    fn set_legs(&mut self, _cx: &mut Context<'_>, _first: Option<IpAddr>, _wanted: &rtp::OutputConfig) {}
}

/// What a driver has to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DriverEvent {
    /// From the core.
    Core(proto::Event),
    /// Somebody exceeds the limit and keeps doing so. Told once until the rate was within the limit for a while.
    Abuse,
    /// The system began to refuse what is sent.
    SendFailed(SendFailure),
    /// Sending has worked for a while since.
    SendRecovered,
    /// One of several legs does not work.
    LegFailed {
        /// Which.
        leg: LegConfig,
        /// Why.
        why: LegError,
    },
    /// It has worked for a while since.
    LegRecovered {
        /// Which.
        leg: LegConfig,
    },
}

/// Why the system refuses what is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendFailure {
    /// ICMP port unreachable came back.
    #[error("the destination answers that nobody listens on this port")]
    Refused,
    /// No route, host or interface.
    #[error("the destination cannot be reached: check the route and the interface")]
    Unreachable,
    /// Longer than the path's MTU, or than UDP allows.
    #[error("datagrams are longer than the path allows: set pkt_size")]
    TooLong,
    /// None of several legs works; each has its own reason.
    #[error("no leg can be sent on")]
    EveryLeg,
    /// A server that is called again and again does not get together with us, for this reason.
    #[error("the server that it pushes to is not reached: {0}")]
    Server(&'static str),
    /// Anything else.
    #[error("the system refuses to send, error {0}")]
    Other(i32),
}

/// Who may send to a source, and how much may pass.
#[derive(Debug, Default)]
pub struct Admission {
    /// Allowed senders.
    pub allow: AllowList,
    /// Rate limit.
    pub limiter: Option<Limiter>,
}

impl SendFailure {
    pub(super) fn of(error: &io::Error) -> Self {
        use io::ErrorKind;
        let kind = error.kind();
        let no_way = [
            ErrorKind::HostUnreachable,
            ErrorKind::NetworkUnreachable,
            ErrorKind::NetworkDown,
            ErrorKind::AddrNotAvailable,
            ErrorKind::PermissionDenied,
        ];
        if kind == ErrorKind::ConnectionRefused {
            Self::Refused
        } else if no_way.contains(&kind) {
            Self::Unreachable
        } else if error.raw_os_error() == Some(libc::EMSGSIZE) {
            Self::TooLong
        } else {
            Self::Other(error.raw_os_error().unwrap_or(0))
        }
    }
}
