//! Why a connection was refused, and why it ended.

use std::fmt;

use crate::proto::PeerEnd;

/// Why a listener refuses.
///
/// | code | |
/// |---|---|
/// | 1000 to 1399 | the protocol's own, as on the wire: 1000 and what libsrt numbers from 1 to 17 as `SRT_REJ_…` |
/// | 1400 to 1999 | predefined for applications, like HTTP's status (libsrt's `SRT_REJX_…`, access_control.h) |
/// | 2000 to 2999 | as the application likes |
///
/// libsrt has four predefined ones from 1000 on as well. On the wire they are not the protocol's own of the same code, and
/// here neither: they are not equal, and read differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The handshake's type: 1000 and libsrt's number (`URQFailure`).
    wire: u32,
}

impl Rejection {
    /// A system function failed.
    pub const SYSTEM: Self = Self::new(1_001);
    /// The listener's application refused.
    pub const PEER: Self = Self::new(1_002);
    /// No room for one more.
    pub const RESOURCE: Self = Self::new(1_003);
    /// Contradictory handshake.
    pub const ROGUE: Self = Self::new(1_004);
    /// Too many wait already.
    pub const BACKLOG: Self = Self::new(1_005);
    /// The listener is closing.
    pub const CLOSE: Self = Self::new(1_007);
    /// Too old a version.
    pub const VERSION: Self = Self::new(1_008);
    /// Both sides of a rendezvous drew the same cookie.
    pub const RENDEZVOUS_COOKIE: Self = Self::new(1_009);
    /// Wrong passphrase.
    pub const BAD_SECRET: Self = Self::new(1_010);
    /// One side has a passphrase, the other has none.
    pub const UNSECURE: Self = Self::new(1_011);
    /// Message API against stream API.
    pub const MESSAGE_API: Self = Self::new(1_012);
    /// File mode against live mode.
    pub const CONGESTION: Self = Self::new(1_013);
    /// Packet filters that do not go together.
    pub const FILTER: Self = Self::new(1_014);
    /// Group connections are not taken here.
    pub const GROUP: Self = Self::new(1_015);
    /// CTR against GCM.
    pub const CRYPTO: Self = Self::new(1_017);
    /// A key in the stream id means nothing here (`SRT_REJX_KEY_NOTSUP`).
    pub const UNKNOWN_KEY: Self = Self::of_wire(2_001);
    /// The host in the stream id is not served here (`SRT_REJX_HOSTNOTFOUND`).
    pub const UNKNOWN_HOST: Self = Self::of_wire(2_003);
    /// The stream id makes no sense (1400).
    pub const BAD_REQUEST: Self = Self::new(1_400);
    /// Not allowed (1403).
    pub const FORBIDDEN: Self = Self::new(1_403);
    /// No such stream (1404).
    pub const NOT_FOUND: Self = Self::new(1_404);
    /// The stream is not to be had in this mode (1405).
    pub const BAD_MODE: Self = Self::new(1_405);
    /// Already taken by somebody else (1409).
    pub const CONFLICT: Self = Self::new(1_409);

    /// By its code; below 1000, which is none, and from 3000 on it is [`Rejection::PEER`].
    #[must_use]
    pub const fn new(code: u32) -> Self {
        match code {
            1_000..APPLICATION => Self::of_wire(code),
            APPLICATION..3_000 => Self::of_wire(code + SHIFT),
            _ => Self::of_wire(1_002),
        }
    }

    /// As the draft, or libsrt's access_control.h, has it.
    #[must_use]
    pub const fn code(self) -> u32 {
        if self.wire >= 1_000 + SHIFT { self.wire - SHIFT } else { self.wire }
    }

    /// By the number on the wire.
    pub(super) const fn of_wire(wire: u32) -> Self {
        Self { wire }
    }

    /// The number on the wire.
    pub(super) const fn wire(self) -> u32 {
        self.wire
    }

    /// In words, with the fix where there is one.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self.wire {
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
            // What applications say: on the wire 1000 more than the code.
            2_001 => "a key in the stream id is not supported",
            2_002 => "not a path for a file",
            2_003 => "no such host",
            2_400 => "bad request",
            2_401 => "not authorised",
            2_402 => "too busy",
            2_403 => "forbidden",
            2_404 => "no such stream",
            2_405 => "wrong mode for this stream",
            2_409 => "the stream is in use",
            2_500..=2_599 => "the peer's service failed",
            3_000.. => "for a reason of its application",
            _ => "refused",
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.reason(), self.code())
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

/// The first code that is not the protocol's own.
const APPLICATION: u32 = 1_400;
/// On the wire each code has 1000 added, which the protocol's own are given with.
const SHIFT: u32 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// What libsrt 1.5 makes of it: `RejectReasonForURQ` takes 1000 off, and knows less than 18 or 1000 and more.
    #[test]
    fn on_the_wire_codes_are_those_of_libsrt() {
        let wire = |code: u32| Rejection::new(code).wire();
        assert_eq!((wire(1_002), wire(1_017)), (1_002, 1_017));
        assert_eq!((wire(1_403), wire(1_404), wire(2_042), wire(2_999)), (2_403, 2_404, 3_042, 3_999));
        for code in (1_000..1_020).chain(1_400..3_000) {
            assert_eq!(Rejection::new(code).code(), code);
            assert_eq!(Rejection::of_wire(wire(code)), Rejection::new(code));
        }
    }

    /// `SRT_REJX_KEY_NOTSUP` is 1001, which `SRT_REJ_SYSTEM` is in the draft.
    #[test]
    fn the_same_code_from_the_protocol_and_from_an_application_are_two() {
        let (own, applications) = (Rejection::of_wire(1_001), Rejection::of_wire(2_001));
        assert_eq!((own, applications), (Rejection::SYSTEM, Rejection::UNKNOWN_KEY));
        assert_eq!((own.code(), applications.code()), (1_001, 1_001));
        assert_ne!(own.reason(), applications.reason());
    }

    #[test]
    fn what_is_no_code_says_that_the_application_refused() {
        assert_eq!([0, 1, 999, 3_000, u32::MAX].map(Rejection::new), [Rejection::PEER; 5]);
    }
}
