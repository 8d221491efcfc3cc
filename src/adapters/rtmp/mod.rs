//! RTMP source and output: publishers and players that call us on a shared port, servers that we pull from and push to.

mod calls;
mod door;
mod inside;
mod leaving;
mod line;
mod lookup;
mod output;
mod slate;
mod source;

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use arrayvec::ArrayVec;
use subtle::ConstantTimeEq;

use super::driven::{Admission, Driven, DriverEvent, SendFailure};
use super::driver::{EVENTS_MAX, note};
use super::host::HostPort;
use super::ports::Ports;
use super::socket::OpenError;
use super::stream_driver::Broken;
use super::tls::{FailureCounts, IdentityFiles, ServerId, Session, SetupError, Trust};
use crate::bus::Pool;
use crate::proto::bridge::ToTs;
use crate::proto::mpegts::mux::{self, ConfigError};
use crate::proto::rtmp::{Config, End, Error, Role};
use crate::proto::{self, PeerEnd, Refusals};
use crate::units::{Bitrate, Time};

use calls::{Calls, Place};
use leaving::Leaving;

pub(super) use door::Doors;
pub(super) use leaving::Farewells;

/// One end of RTMP connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointConfig {
    /// Who calls whom.
    pub side: Side,
    /// Application: what stands between host and key.
    pub app: String,
    /// Name of the stream.
    pub key: Key,
    /// Of a source: exactly that rate, with null packets; `None` for what there is and nothing else.
    pub rate: Option<Bitrate>,
}

/// Who calls whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Side {
    /// We call: a source pulls, an output pushes.
    Caller {
        /// Whom.
        server: HostPort,
        /// Over TLS, if its certificate is for this.
        tls: Option<ServerId>,
        /// How long it may take to be ready, and a source may bring nothing; `None` for what is usual.
        timeout: Option<Duration>,
    },
    /// We wait on this address, with others who wait for other streams: for a publisher, or for players.
    Listener {
        /// As a destination, so that everything that names one is looked at alike.
        listen: HostPort,
        /// Of a source: another publisher takes the place of the one that is there. Otherwise he is sent away.
        takeover: bool,
        /// Over TLS, as this one.
        tls: Option<IdentityFiles>,
        /// Of a source: what comes while no publisher is there.
        absent: Absent,
    },
}

/// What a source brings while its publisher is gone. Outputs stay connected either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Absent {
    /// Nothing, so that a backup source may step in.
    #[default]
    Hold,
    /// The built-in picture in the same stream, for as long as the publisher may take to come back; then nothing.
    Slate {
        /// How long that is.
        grace: Duration,
    },
}

/// What of a source may change while it is open, and keep whoever is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// See [`EndpointConfig::rate`].
    pub rate: Option<Bitrate>,
    /// The last two settings of [`Side::Listener`]; `None` where we call.
    pub listening: Option<(bool, Absent)>,
}

/// The name of a stream, with a query if a server wants one: whoever knows it may publish.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// Any text that is not empty.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        (!text.is_empty() && text.len() <= KEY_BYTES_MAX).then(|| Self(text.into()))
    }

    /// Compares in a time that does not tell how much is right.
    fn is(&self, given: &str) -> bool {
        self.0.as_bytes().ct_eq(given.as_bytes()).into()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl EndpointConfig {
    /// Whether it holds a port of this machine that was asked for: shared ones are held by nobody alone.
    #[must_use]
    pub const fn holds_port(&self) -> bool {
        matches!(self.side, Side::Listener { .. })
    }

    /// The address that is called, or listened on.
    #[must_use]
    pub const fn address(&self) -> &HostPort {
        match &self.side {
            Side::Caller { server, .. } => server,
            Side::Listener { listen, .. } => listen,
        }
    }

    /// What of a source may change while it is open, if that is all that differs from `old`, and something does.
    #[must_use]
    pub fn tuning_from(&self, old: &Self) -> Option<Tuning> {
        let mut tuned = Self { rate: self.rate, ..old.clone() };
        let mut listening = None;
        if let (
            Side::Listener { takeover: new_takeover, absent: new_absent, .. },
            Side::Listener { takeover, absent, .. },
        ) = (&self.side, &mut tuned.side)
        {
            (*takeover, *absent) = (*new_takeover, *new_absent);
            listening = Some((*takeover, *absent));
        }
        (self != old && tuned == *self).then_some(Tuning { rate: self.rate, listening })
    }

    /// Opens a source; `address` is what ours was looked up to.
    ///
    /// # Errors
    /// What the system refused, with the address, or that the stream is taken.
    pub fn open_source(
        &self,
        address: SocketAddr,
        (pool, ports): (&Pool, &Ports),
        admission: Admission,
    ) -> Result<Box<dyn Driven>, OpenError> {
        Ok(match &self.side {
            Side::Caller { .. } => {
                let calls = self.calls(address, Role::Player)?;
                Box::new(source::Source::pulling(calls, self.bridge(pool)?, (admission, ports.farewells.clone())))
            }
            Side::Listener { takeover, absent, tls, .. } => {
                // What may fail comes before the seat, whose certificate is everybody's.
                let bridge = self.bridge(pool)?;
                let seat = ports.rtmp.join((address, tls.as_ref()), Role::Publisher, (&self.app, &self.key))?;
                let lent = (admission, ports.farewells.clone());
                Box::new(source::Source::listening(seat, (*takeover, *absent), bridge, lent))
            }
        })
    }

    /// Opens an output; `address` is what ours was looked up to.
    ///
    /// # Errors
    /// As [`EndpointConfig::open_source`].
    pub fn open_output(
        &self,
        address: SocketAddr,
        ports: &Ports,
        admission: Admission,
    ) -> Result<Box<dyn Driven>, OpenError> {
        Ok(match &self.side {
            Side::Caller { .. } => {
                let calls = self.calls(address, Role::Publisher)?;
                Box::new(output::Output::pushing(calls, (admission, ports.farewells.clone())))
            }
            Side::Listener { tls, .. } => {
                let seat = ports.rtmp.join((address, tls.as_ref()), Role::Player, (&self.app, &self.key))?;
                Box::new(output::Output::serving(seat, (admission, ports.farewells.clone())))
            }
        })
    }

    fn bridge(&self, pool: &Pool) -> Result<ToTs, OpenError> {
        let wrong = |error: ConfigError| OpenError::System {
            action: "make",
            address: "a transport stream".into(),
            problem: error.to_string(),
        };
        ToTs::new(mux::Config { rate: self.rate, ..mux::Config::default() }, pool.clone()).map_err(wrong)
    }

    fn calls(&self, address: SocketAddr, role: Role) -> Result<Calls, OpenError> {
        let (server, tls, timeout) = match &self.side {
            Side::Caller { server, tls, timeout } => (server, tls.as_ref(), *timeout),
            Side::Listener { listen, .. } => (listen, None, None),
        };
        let usual_config = Config::default();
        let config = Config {
            setup_timeout: timeout.unwrap_or(usual_config.setup_timeout),
            idle_timeout: timeout.unwrap_or(usual_config.idle_timeout),
            ..usual_config
        };
        let (scheme, usual) = if tls.is_some() { ("rtmps", TLS_PORT) } else { ("rtmp", PORT) };
        let tc_url = if server.port == usual {
            format!("{scheme}://{}/{}", server.host, self.app)
        } else {
            format!("{scheme}://{}:{}/{}", server.host, server.port, self.app)
        };
        let trust = tls.map(|server| {
            let trust = server.authorities.as_deref().map_or_else(Trust::public, Trust::read);
            let trust = trust.map_err(|error| unusable(&error))?;
            // A name that is none shows here, and not with every call.
            Session::client(Time::ZERO, &trust, &server.name).map_err(|error| unusable(&error))?;
            Ok(trust)
        });
        let place = Place {
            ip: Some(address.ip()),
            port: address.port(),
            host: server.host.clone(),
            name: tls.map(|server| server.name.clone()),
            tc_url,
            app: self.app.clone(),
        };
        Ok(Calls::new(place, trust.transpose()?, role, (self.key.0.clone(), config)))
    }
}

/// TLS cannot be had.
fn unusable(error: &SetupError) -> OpenError {
    OpenError::System { action: "use", address: "TLS".into(), problem: error.to_string() }
}

/// Why connections ended, by cause.
#[derive(Debug, Default)]
struct Ends {
    left: u64,
    broken: u64,
    oversize: u64,
    failed: u64,
    slow: u64,
    silent: u64,
    stalled: u64,
    refused: u64,
    taken_over: u64,
    /// For another connection, as the server asked.
    moved: u64,
    /// By us.
    ours: u64,
    /// Of those that failed.
    tls: FailureCounts,
}

impl Ends {
    /// Counts one, and says it in words: by what the core said, else by what became of the connection.
    fn count(&mut self, end: Option<&End>, broken: Option<Broken>) -> PeerEnd {
        let (counter, reason) = match (end, broken) {
            (Some(End::Broken(Error::Held)), _) => (&mut self.oversize, "its messages are too long"),
            (Some(End::Broken(Error::ChunkSize(_))), _) => (&mut self.broken, "its chunk size is none"),
            (Some(End::Broken(_)), _) => (&mut self.broken, "it does not keep to the protocol"),
            (Some(End::Slow), _) => (&mut self.slow, "not ready in time"),
            (Some(End::Silent), _) => (&mut self.silent, "silent for too long"),
            (Some(End::Left), _) => (&mut self.left, "ended by the peer"),
            (Some(End::Refused { code, .. }), _) => (&mut self.refused, refusal(code)),
            (Some(End::NotLetIn | End::Closed), _) | (None, None) => (&mut self.ours, "closed by us"),
            (_, Some(why @ Broken::Closed)) => (&mut self.left, why.reason()),
            (_, Some(why @ Broken::Failed(_))) => (&mut self.failed, why.reason()),
            (_, Some(why @ Broken::Stalled)) => (&mut self.stalled, why.reason()),
            (_, Some(why @ Broken::Insecure(failure))) => {
                self.tls.count(failure);
                (&mut self.failed, why.reason())
            }
        };
        *counter += 1;
        PeerEnd { reason, refusal: None }
    }

    /// Counts one that made way for another, as the server asked.
    const fn count_moved(&mut self) -> PeerEnd {
        self.moved += 1;
        PeerEnd { reason: "the server asked for another connection", refusal: None }
    }

    const fn details(&self) -> [proto::Detail; 11] {
        [
            ("endsByPeer", self.left as f64),
            ("endsBrokenProtocol", self.broken as f64),
            ("endsOversize", self.oversize as f64),
            ("endsFailedConnection", self.failed as f64),
            ("endsSlowSetup", self.slow as f64),
            ("endsSilent", self.silent as f64),
            ("endsStalled", self.stalled as f64),
            ("endsRefused", self.refused as f64),
            ("endsTakenOver", self.taken_over as f64),
            ("endsMoved", self.moved as f64),
            ("endsByUs", self.ours as f64),
        ]
    }
}

/// What a server says against us, in words of our own: its own may be anything.
fn refusal(code: &str) -> &'static str {
    match code {
        "NetStream.Publish.BadName" => "refused: the stream is in use, or its key is wrong",
        "NetStream.Publish.Denied" | "NetConnection.Connect.Rejected" => "refused: not authorized",
        "NetStream.Play.StreamNotFound" | "NetStream.Play.Failed" => "refused: there is no such stream",
        "NetConnection.Connect.InvalidApp" => "refused: there is no such application",
        _ => "refused by the server",
    }
}

/// Events that wait for whoever asks.
#[derive(Debug)]
struct Events {
    waiting: ArrayVec<DriverEvent, EVENTS_MAX>,
    refusals: Refusals,
}

impl Events {
    /// As long as nothing is told; the same refusal is told again `apart` later.
    const fn new(apart: Duration) -> Self {
        Self { waiting: ArrayVec::new_const(), refusals: Refusals::new(apart) }
    }

    fn tell(&mut self, event: proto::Event, counters: &super::Counters) {
        note(DriverEvent::Core(event), &mut self.waiting, counters);
    }

    /// A server that we called agrees: if another call comes to nothing, that is news.
    fn tell_agreed(&mut self, peer: SocketAddr, counters: &super::Counters) {
        self.refusals.clear();
        self.tell(proto::Event::PeerConnected { peer }, counters);
    }

    /// Nobody gets together with us; told again after a while.
    fn tell_refused(&mut self, now: Time, (peer, why): (SocketAddr, PeerEnd), counters: &super::Counters) {
        if let Some(count) = self.refusals.tell(now, why) {
            self.tell(proto::Event::PeerRefused { peer, why, count }, counters);
        }
    }

    /// Nothing gets out, or does again.
    fn tell_failing(&mut self, failure: SendFailure, counters: &super::Counters) {
        note(DriverEvent::SendFailed(failure), &mut self.waiting, counters);
    }

    fn tell_recovered(&mut self, counters: &super::Counters) {
        note(DriverEvent::SendRecovered, &mut self.waiting, counters);
    }

    fn poll(&mut self) -> Option<DriverEvent> {
        self.waiting.pop_at(0)
    }
}

/// Readiness is told once for each direction, so that both can be asked for all the time.
const BOTH: mio::Interest = mio::Interest::READABLE.add(mio::Interest::WRITABLE);

/// Registered for RTMP.
pub const PORT: u16 = 1_935;
/// Of RTMP over TLS, which has none registered: that of HTTPS, as others use it.
pub const TLS_PORT: u16 = 443;
/// Longest key. Judgement: those of content delivery networks, with their tokens, have a fourth of it.
const KEY_BYTES_MAX: usize = 1_024;
/// As the other drivers.
const DETAILS_APART: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_again_once_the_server_agreed_in_between() {
        let (mut events, counters) = (Events::new(Refusals::CALLED_APART), crate::adapters::Counters::default());
        let (now, peer) = (Time::from_ns(1), SocketAddr::from(([192, 0, 2, 1], PORT)));
        let refused = (peer, PeerEnd { reason: "refused by the server", refusal: None });
        let told = |events: &mut Events| std::iter::from_fn(|| events.poll()).count();
        for is_news in [true, false] {
            events.tell_refused(now, refused, &counters);
            assert_eq!(told(&mut events), usize::from(is_news));
        }
        events.tell_agreed(peer, &counters);
        assert_eq!(told(&mut events), 1);
        events.tell_refused(now, refused, &counters);
        assert_eq!(told(&mut events), 1);
    }
}
