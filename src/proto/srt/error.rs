//! Why a connection was refused, and why it ended.

use std::fmt;

use crate::proto::PeerEnd;

/// Why a listener refuses: 1000 and up as libsrt's `SRT_REJECT_REASON`, 1400 to 1599 like HTTP's status, 2000 and up
/// as the application likes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejection(u32);

impl Rejection {
    /// A system function failed.
    pub const SYSTEM: Self = Self(1_001);
    /// The listener's application refused.
    pub const PEER: Self = Self(1_002);
    /// No room for one more.
    pub const RESOURCE: Self = Self(1_003);
    /// Contradictory handshake.
    pub const ROGUE: Self = Self(1_004);
    /// Too many wait already.
    pub const BACKLOG: Self = Self(1_005);
    /// The listener is closing.
    pub const CLOSE: Self = Self(1_007);
    /// Too old a version.
    pub const VERSION: Self = Self(1_008);
    /// Both sides of a rendezvous drew the same cookie.
    pub const RENDEZVOUS_COOKIE: Self = Self(1_009);
    /// Wrong passphrase.
    pub const BAD_SECRET: Self = Self(1_010);
    /// One side has a passphrase, the other has none.
    pub const UNSECURE: Self = Self(1_011);
    /// Message API against stream API.
    pub const MESSAGE_API: Self = Self(1_012);
    /// File mode against live mode.
    pub const CONGESTION: Self = Self(1_013);
    /// Packet filters that do not go together.
    pub const FILTER: Self = Self(1_014);
    /// Group connections are not taken here.
    pub const GROUP: Self = Self(1_015);
    /// CTR against GCM.
    pub const CRYPTO: Self = Self(1_017);
    /// No such stream (1404).
    pub const NOT_FOUND: Self = Self(1_404);
    /// Not allowed (1403).
    pub const FORBIDDEN: Self = Self(1_403);
    /// Already taken by somebody else (1409).
    pub const CONFLICT: Self = Self(1_409);

    /// Any code.
    #[must_use]
    pub const fn new(code: u32) -> Self {
        Self(code)
    }

    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> u32 {
        self.0
    }

    /// In words, with the fix where there is one.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self.0 {
            1_001 => "the peer's system failed",
            1_002 => "the peer's application refused",
            1_003 => "the peer has no room for one more connection",
            1_004 => "the peer found the handshake contradictory",
            1_005 => "too many connections wait at the peer",
            1_006 => "the peer has an internal error",
            1_007 => "the peer is closing",
            1_008 => "the peer's version is too old: 1.3 is the least",
            1_009 => "the rendezvous cookies collided",
            1_010 => "the passphrases differ",
            1_011 => "one side has a passphrase and the other has none",
            1_012 => "one side wants messages and the other a stream",
            1_013 => "one side is in live mode and the other in file mode",
            1_014 => "the packet filters do not go together",
            1_015 => "the peer takes no group connections",
            1_016 => "the handshake took too long",
            1_017 => "the encryption modes differ: set cryptomode alike",
            1_400 => "bad request",
            1_401 => "not authorised",
            1_402 => "too busy",
            1_403 => "forbidden",
            1_404 => "no such stream",
            1_405 => "wrong mode for this stream",
            1_409 => "the stream is in use",
            1_500..=1_599 => "the peer's service failed",
            2_000.. => "refused by the peer's application",
            _ => "refused",
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.reason(), self.0)
    }
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The peer said so.
    ByPeer,
    /// Nothing was heard for too long.
    Silent,
    /// No handshake came about in time.
    NoAnswer,
    /// Refused by the peer.
    Refused(Rejection),
    /// Refused by us.
    Refusing(Rejection),
    /// A member of a backup group that did not answer as it should for too long.
    Unstable,
    /// A caller for whom packets had to be dropped for too long.
    Slow,
}

impl From<Ended> for PeerEnd {
    fn from(ended: Ended) -> Self {
        let (reason, refusal) = match ended {
            Ended::ByPeer => ("the peer closed the connection", None),
            Ended::Silent => ("the peer fell silent", None),
            Ended::NoAnswer => ("nobody answered: check address and port", None),
            Ended::Slow => ("could not keep up: raise latency or lower the rate", None),
            Ended::Unstable => ("the link was unstable for too long", None),
            Ended::Refused(rejection) => (rejection.reason(), Some(("the peer refused", rejection.code()))),
            Ended::Refusing(rejection) => (rejection.reason(), Some(("refused", rejection.code()))),
        };
        Self { reason, refusal }
    }
}
