//! Why a datagram was refused; why a peer was lost.

use crate::proto::PeerEnd;

/// Why a datagram of the Main profile goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No packet of this protocol.
    #[error("malformed")]
    Malformed,
    /// In the clear, where there is a secret; or encrypted, where there is none; or with another secret.
    #[error("the passphrases differ")]
    Secret,
    /// Its key is not there yet; it may come up again.
    #[error("the key is being derived")]
    NoKey,
    /// From somebody who has not proven who he is; he is asked.
    #[error("not authenticated")]
    Stranger,
    /// The peer asks for user and password, and there are none.
    #[error("it asks for user and password")]
    NoLogin,
    /// No buffer to decrypt it in.
    #[error("no buffer")]
    NoBuffer,
}

pub(super) const SILENT: PeerEnd = PeerEnd { reason: "nothing was heard of it for too long", refusal: None };
pub(super) const LEFT: PeerEnd = PeerEnd { reason: "it said goodbye", refusal: None };
pub(super) const SECRETS_DIFFER: PeerEnd =
    PeerEnd { reason: "the passphrases differ, or only one side has one", refusal: None };
pub(super) const NO_LOGIN: PeerEnd =
    PeerEnd { reason: "it asks for user and password, or gives some that nobody asked for", refusal: None };
pub(super) const FULL: PeerEnd = PeerEnd { reason: "as many as may be are connected already", refusal: None };
