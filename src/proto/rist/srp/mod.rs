//! Authentication of the Main profile by EAP-SRP (TR-06-2 annex D): whoever calls says who he is, whoever listens asks,
//! and neither shows the password.
//!
//! ```text
//!  caller (client)                                     listener (server)
//!        -- start, or any packet of the tunnel ---------->
//!        <------------------------- request: identity --
//!        -- response: user ------------------------------>
//!        <------------------------ request: challenge --   salt
//!        -- response: A --------------------------------->
//!        <----------------------- request: server key --   B; both have K now
//!        -- response: M1 -------------------------------->  the caller is in
//!        <------------------------ request: validator --   M2
//!        -- success (version 2: response) --------------->  media may pass
//! ```
//!
//! The server repeats what is not answered. Versions are those of librist: 2 until 0.2.7, 3 later; within version 3
//! numbers are hashed with or without padding, and nothing says how, so both are tried, one attempt each.
//!
//! As in librist since 0.2.8, a listener without a secret of its own encrypts what it sends with K, which each pair of
//! peers has for itself; what a caller sends is in the clear then. With a secret on both ends all is encrypted with that,
//! and a caller who has none is told it, wrapped with K.

mod accounts;
#[cfg(any(test, fuzzing))]
mod check;
mod client;
mod eap;
mod gate;
mod math;
mod server;

pub use accounts::{Accounts, AccountsError};
#[cfg(any(test, fuzzing))]
pub use check::check_any_bytes;
pub(super) use eap::is_bare;
pub(super) use gate::{Gate, Role, Settings};

use zeroize::Zeroizing;

use self::math::{Agreement, Bytes, Hash, hash};
use super::crypto::Sealing;
use crate::proto::PeerEnd;

/// Secret numbers from what the system gave: SHA-256 of that and a count.
struct Entropy {
    seed: Zeroizing<Hash>,
    drawn: u64,
}

impl Entropy {
    fn new(seed: Hash) -> Self {
        Self { seed: Zeroizing::new(seed), drawn: 0 }
    }

    fn draw(&mut self) -> Zeroizing<Hash> {
        self.drawn += 1;
        Zeroizing::new(hash(&[&*self.seed, &self.drawn.to_be_bytes()], true))
    }
}

/// Arithmetic to be done where no packet waits for it.
type Job = Box<dyn FnOnce() -> Outcome + Send>;

/// What came of it.
enum Outcome {
    /// A.
    Public(Bytes),
    /// At the client; `None` if B was none.
    Agreed(Option<Agreement>),
    /// At the server: B, and what it may send with. `None` if A was none.
    Served(Option<(Bytes, Agreement, Option<Box<Sealing>>)>),
}

/// What a step brought.
enum News {
    /// The peer has proven who he is.
    Accepted {
        key: Zeroizing<Hash>,
        /// What he sends is encrypted with it.
        is_keyed: bool,
        /// What we shall send with from now on.
        sealing: Option<Box<Sealing>>,
    },
    /// He knows that we are who we say.
    Confirmed,
    /// What he sends is encrypted with this; so shall be what we send unless it is the key of the session.
    Passphrase {
        secret: Zeroizing<Vec<u8>>,
        is_session_key: bool,
    },
    Refused(PeerEnd),
}

const WRONG_LOGIN: PeerEnd = PeerEnd { reason: "user or password is wrong", refusal: None };
const UNPROVEN: PeerEnd = PeerEnd { reason: "it does not know the password itself", refusal: None };
const OTHER_GROUP: PeerEnd = PeerEnd { reason: "it wants another group than that of 2048 bits", refusal: None };
