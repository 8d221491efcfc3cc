//! Who may come in: what the program around a listener says of each caller.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::access::AccessControl;
use super::config::Config;
use super::crypto::Passphrase;
use super::error::Rejection;

/// What is known of a caller when it is decided about him. Nothing of it but the address is proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applicant<'a> {
    /// Where he calls from; he has shown that he hears there.
    pub peer: SocketAddr,
    /// Empty if he has none.
    pub stream_id: &'a str,
    /// What the stream id says, if it is of that form.
    pub access: Option<AccessControl<'a>>,
    /// His version of SRT as libsrt numbers it: 0x010505 is 1.5.5.
    pub version: u32,
    /// Whether he has a passphrase; whether it is the right one is found out after he was let in.
    pub is_encrypted: bool,
}

/// What a caller gets, where it is not what the listener's configuration says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Instead of the listener's passphrase, or of none.
    pub passphrase: Option<Passphrase>,
    /// Least latency, whichever way packets go. The caller may want a longer one.
    pub latency: Option<Duration>,
}

impl Terms {
    pub(super) fn apply(&self, config: &Config) -> Config {
        let Self { passphrase, latency } = self;
        let mut config = config.clone();
        if passphrase.is_some() {
            config.passphrase.clone_from(passphrase);
        }
        if let Some(latency) = *latency {
            (config.receive_latency, config.peer_latency) = (latency, latency);
        }
        config
    }
}

/// A program's function, or nobody who asks.
#[derive(Default)]
pub(super) struct Gate(Option<Box<Decide>>);

type Decide = dyn FnMut(&Applicant<'_>) -> Result<Terms, Rejection> + Send;

impl Gate {
    pub(super) fn new(decide: impl FnMut(&Applicant<'_>) -> Result<Terms, Rejection> + Send + 'static) -> Self {
        Self(Some(Box::new(decide)))
    }

    pub(super) fn ask(&mut self, applicant: &Applicant<'_>) -> Result<Terms, Rejection> {
        self.0.as_mut().map_or_else(|| Ok(Terms::default()), |decide| decide(applicant))
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Gate(..)" } else { "Gate" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_replace_only_what_they_name() {
        let own = Config {
            passphrase: "thelocalmanager".parse().ok(),
            peer_latency: Duration::from_millis(500),
            ..Config::default()
        };
        assert_eq!(Terms::default().apply(&own), own);
        let passphrase: Option<Passphrase> = "another-secret".parse().ok();
        let terms = Terms { passphrase: passphrase.clone(), latency: None };
        assert_eq!(terms.apply(&own), Config { passphrase, ..own.clone() });
        let latency = Duration::from_millis(80);
        let terms = Terms { passphrase: None, latency: Some(latency) };
        assert_eq!(terms.apply(&own), Config { receive_latency: latency, peer_latency: latency, ..own });
    }

    #[test]
    fn where_nobody_asks_everybody_comes_in_as_configured() {
        let peer = SocketAddr::from(([192, 0, 2, 1], 9));
        let applicant = Applicant { peer, stream_id: "", access: None, version: 0x01_05_05, is_encrypted: false };
        assert_eq!(Gate::default().ask(&applicant), Ok(Terms::default()));
        assert_eq!(Gate::new(|_| Err(Rejection::FORBIDDEN)).ask(&applicant), Err(Rejection::FORBIDDEN));
    }
}
