//! TLS around a connection that does not block (RFC 8446, RFC 5246): bytes of the wire on one side, ours on the other.
//!
//! A `Session` owns no socket and no clock. It reads from one and writes to one as far as that goes without waiting, and
//! its `read` and `write` behave like those of the socket, so that whoever drives a plain connection drives this one, too.
//!
//! ```text
//!  Session::client, Session::server ─► handshake, within eight seconds ─► bytes ─► Session::close
//!                                             │                             │
//!                                             └────────► Failure ◄──────────┘
//! ```
//!
//! What is held is bounded: what was encrypted and not yet written by 64 KiB, and nothing is taken before the handshake is
//! over; what was read by one record, as no more is read before its content was fetched.
//!
//! Without the feature `tls` there are no sessions, and whoever asks for one is told so.

#[cfg(not(feature = "tls"))]
mod absent;
#[cfg(feature = "tls")]
mod session;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(not(feature = "tls"))]
pub(super) use absent::{Identity, Session, Trust};
#[cfg(feature = "tls")]
pub(super) use session::{Identity, Session, Trust};

use crate::proto::Detail;

/// Who a server of ours says it is: files in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityFiles {
    /// The certificate, with those that vouch for it.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Which server we mean to call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerId {
    /// Its name or address, as its certificate must have it.
    pub name: String,
    /// A file in PEM of those who may vouch for it; `None` for those whom browsers believe.
    pub authorities: Option<PathBuf>,
}

/// Why certificates or keys cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// A file cannot be read, or has no such thing in PEM.
    #[error("{path}: {problem}")]
    File {
        /// Which.
        path: String,
        /// In the system's words, or the reader's.
        problem: String,
    },
    /// The key is not that of the certificate, or is of a kind that is not known.
    #[error("{path}: key does not fit the certificate")]
    Key {
        /// Of the key.
        path: String,
    },
    /// This program was built without.
    #[error("TLS is not built into this program")]
    Absent,
    /// The server's name is none.
    #[error("{0} is no name of a server")]
    Name(String),
}

/// Why a session can carry nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::adapters) enum Failure {
    /// The handshake was not over in time.
    Slow,
    /// What came first is no TLS.
    NotTls,
    /// Nobody whom we believe vouches for the certificate.
    UnknownIssuer,
    /// The certificate is another name's.
    WrongName,
    /// The certificate is no longer valid, or not yet.
    Expired,
    /// The certificate cannot be used for other reasons.
    Certificate,
    /// The peer did not want to go on: it does not believe us, mostly.
    Refused,
    /// No version or cipher is common to both.
    Incompatible,
    /// The peer broke the protocol.
    Broken,
}

impl Failure {
    /// All of them.
    pub(in crate::adapters) const ALL: [Self; 9] = [
        Self::Slow,
        Self::NotTls,
        Self::UnknownIssuer,
        Self::WrongName,
        Self::Expired,
        Self::Certificate,
        Self::Refused,
        Self::Incompatible,
        Self::Broken,
    ];

    /// As figures name it.
    const fn name(self) -> &'static str {
        match self {
            Self::Slow => "tlsSlow",
            Self::NotTls => "tlsNotTls",
            Self::UnknownIssuer => "tlsUnknownIssuer",
            Self::WrongName => "tlsWrongName",
            Self::Expired => "tlsExpired",
            Self::Certificate => "tlsBadCertificate",
            Self::Refused => "tlsRefused",
            Self::Incompatible => "tlsIncompatible",
            Self::Broken => "tlsBrokenProtocol",
        }
    }

    /// In words.
    pub(in crate::adapters) const fn reason(self) -> &'static str {
        match self {
            Self::Slow => "the TLS handshake took too long",
            Self::NotTls => "it does not speak TLS",
            Self::UnknownIssuer => "its certificate is from nobody who is trusted",
            Self::WrongName => "its certificate is for another name",
            Self::Expired => "its certificate is out of date",
            Self::Certificate => "its certificate cannot be used",
            Self::Refused => "it refused the TLS handshake, or ended TLS with an alert",
            Self::Incompatible => "no TLS version or cipher is common to both",
            Self::Broken => "it broke the TLS protocol",
        }
    }
}

/// Failures by cause.
#[derive(Debug, Default)]
pub(super) struct FailureCounts([AtomicU64; Failure::ALL.len()]);

impl FailureCounts {
    pub(super) fn count(&self, failure: Failure) {
        let counters = Failure::ALL.iter().zip(&self.0).filter(|(one, _)| **one == failure);
        counters.for_each(|(_, counter)| _ = counter.fetch_add(1, Ordering::Relaxed));
    }

    pub(super) fn details(&self) -> impl Iterator<Item = Detail> {
        let counted = Failure::ALL.iter().zip(&self.0);
        counted.map(|(failure, counter)| (failure.name(), counter.load(Ordering::Relaxed) as f64))
    }
}
