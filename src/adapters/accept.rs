//! Asks the program that embeds the engine who may come.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// Is asked about everybody who names a stream that is there, before he is let in. Without one, whoever knows the name of the
/// stream may come.
///
/// It runs on threads of the port that was called, of which two ask about publishers and two about players at a time: whoever
/// needs longer than some seconds for an answer has said no, and so has whoever panics.
#[derive(Clone)]
pub struct AcceptHook(Arc<dyn Fn(&Arrival) -> bool + Send + Sync>);

/// Somebody who wants to publish or to play.
#[derive(Clone, PartialEq, Eq)]
pub struct Arrival {
    /// Who.
    pub peer: SocketAddr,
    /// Wants to send; otherwise to receive.
    pub publishes: bool,
    /// Application.
    pub app: String,
    /// Name of the stream: of a publisher, a secret.
    pub key: String,
    /// What stood behind a question mark: mostly a token, and as secret.
    pub query: String,
    /// What it says that it is.
    pub agent: String,
}

impl AcceptHook {
    /// True lets them in.
    #[must_use]
    pub fn new(may_come: impl Fn(&Arrival) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(may_come))
    }

    pub(super) fn ask(&self, arrival: &Arrival) -> bool {
        (self.0)(arrival)
    }
}

impl PartialEq for AcceptHook {
    /// Whether they are the same.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for AcceptHook {}

impl fmt::Debug for AcceptHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AcceptHook")
    }
}

impl fmt::Debug for Arrival {
    /// Without what may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { peer, publishes, app, agent, .. } = self;
        let mut shown = f.debug_struct("Arrival");
        shown.field("peer", peer).field("publishes", publishes).field("app", app).field("agent", agent);
        shown.finish_non_exhaustive()
    }
}
