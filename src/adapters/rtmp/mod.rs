//! RTMP source and output: publishers and players that call us on a shared port, servers that we pull from and push to.

mod door;
mod lookup;
mod output;
mod slate;
mod source;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use arrayvec::ArrayVec;
use mio::net::TcpStream;
use subtle::ConstantTimeEq;

use super::driver::{Admission, Driven, DriverEvent, EVENTS_MAX, note};
use super::host::{Host, HostPort};
use super::ports::Ports;
use super::socket::OpenError;
use super::stream::Stream;
use super::stream_driver::{Broken, Connection};
use super::tls::{FailureCounts, IdentityFiles, ServerId, Session, SetupError, Trust};
use super::worker::{Context, SocketKey};
use crate::bus::Pool;
use crate::proto::bridge::ToTs;
use crate::proto::mpegts::mux::{self, ConfigError};
use crate::proto::rtmp::{Client, Config, End, Error, Role, Target};
use crate::proto::{self, PeerEnd, StreamCore};
use crate::units::{Bitrate, Time};

pub(super) use door::Doors;
use lookup::Called;

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
                Box::new(source::Source::pulling(calls, self.bridge(pool)?, admission))
            }
            Side::Listener { takeover, absent, tls, .. } => {
                let seat = ports.rtmp.join((address, tls.as_ref()), Role::Publisher, (&self.app, &self.key), pool)?;
                Box::new(source::Source::listening(seat, (*takeover, *absent), self.bridge(pool)?, admission))
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
        (pool, ports): (&Pool, &Ports),
        admission: Admission,
    ) -> Result<Box<dyn Driven>, OpenError> {
        Ok(match &self.side {
            Side::Caller { .. } => Box::new(output::Output::pushing(self.calls(address, Role::Publisher)?, admission)),
            Side::Listener { tls, .. } => {
                let seat = ports.rtmp.join((address, tls.as_ref()), Role::Player, (&self.app, &self.key), pool)?;
                Box::new(output::Output::serving(seat, admission))
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
            Ok((trust, server.name.clone()))
        });
        let target = Target { tc_url, app: self.app.clone(), key: self.key.0.clone() };
        Ok(Calls {
            address,
            trust: trust.transpose()?,
            host: server.host.clone(),
            lookup: Lookup::Fresh,
            has_worked: false,
            role,
            target,
            config,
            connection: None,
            retries: Retries::default(),
            next: Some(Time::ZERO),
            home: None,
            follows: 0,
            is_following: false,
        })
    }
}

/// Host, port and application of the URL that a server gives.
fn place_of(url: &str, is_secure: bool) -> Option<(Host, u16, String)> {
    let (scheme, usual) = if is_secure { ("rtmps", TLS_PORT) } else { ("rtmp", PORT) };
    let (authority, app) = url.strip_prefix(scheme)?.strip_prefix("://")?.split_once('/')?;
    let (host, port) = match authority.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) {
        Some((host, port)) => (host, port.parse().ok().filter(|port| *port != 0)?),
        None => (authority, usual),
    };
    let app = app.trim_matches('/');
    (!app.is_empty()).then_some(())?;
    Some((host.parse().ok()?, port, app.to_owned()))
}

/// TLS cannot be had.
fn unusable(error: &SetupError) -> OpenError {
    OpenError::System { action: "use", address: "TLS".into(), problem: error.to_string() }
}

/// What is known of the address of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lookup {
    /// It was just looked up.
    Fresh,
    /// A connection to it was tried: the name may lead elsewhere by now.
    Used,
    /// It is being looked up.
    UnderWay,
}

/// A connection that we make, again and again.
#[derive(Debug)]
struct Calls {
    address: SocketAddr,
    /// Over TLS: whom to believe that it is who.
    trust: Option<(Trust, String)>,
    /// What the address was looked up from.
    host: Host,
    lookup: Lookup,
    /// Media went over the last connection.
    has_worked: bool,
    role: Role,
    target: Target,
    config: Config,
    connection: Option<Connection<Client>>,
    retries: Retries,
    /// When it is made next; `None` while there is one.
    next: Option<Time>,
    /// Where we were told to call, while a server asked us to call another place.
    home: Option<Box<Place>>,
    /// Requests to call anew that were followed since the last failure.
    follows: u32,
    /// The connection ends for such a one.
    is_following: bool,
}

/// Where a server is.
#[derive(Debug)]
struct Place {
    address: SocketAddr,
    host: Host,
    /// As its certificate must have it.
    name: Option<String>,
    tc_url: String,
    app: String,
}

impl Calls {
    /// Makes the connection if it is due. Gives why it cannot be made.
    fn call(&mut self, cx: &Context<'_>, key: SocketKey) -> Option<Broken> {
        if self.connection.is_some() || self.next.is_none_or(|next| cx.now < next) {
            return None;
        }
        if self.lookup == Lookup::Used
            && let Host::Name(name) = &self.host
            && lookup::start(name, Called { ip: self.address.ip(), has_worked: self.has_worked }, cx.remote(key))
        {
            self.lookup = Lookup::UnderWay;
            self.next = Some(cx.now + lookup::ANSWER_MAX);
            return None;
        }
        self.lookup = Lookup::Used;
        let seed = fastrand::u64(..);
        let client = Client::new(cx.now, self.config, self.role, self.target.clone(), seed);
        let connected = TcpStream::connect(self.address).and_then(|mut tcp| {
            cx.register(&mut tcp, key, BOTH)?;
            let Some((trust, name)) = &self.trust else { return Ok(Stream::plain(tcp)) };
            let session = Session::client(cx.now, trust, name).map_err(io::Error::other)?;
            Ok(Stream::secured(tcp, session))
        });
        match connected {
            Ok(stream) => {
                self.next = None;
                self.connection = Some(Connection::new(client, stream, self.address));
                None
            }
            Err(error) => {
                self.wait(cx.now, false);
                Some(Broken::Failed(error.kind()))
            }
        }
    }

    /// The name was looked up once more; an address that is not known any more is tried for want of a better one.
    fn looked_up(&mut self, now: Time, answer: &lookup::Answer) {
        let is_ours = matches!(&self.host, Host::Name(name) if *name == answer.name);
        if is_ours && self.connection.is_none() && self.lookup == Lookup::UnderWay {
            if let Some(ip) = answer.ip {
                self.address.set_ip(ip);
            }
            self.lookup = Lookup::Fresh;
            self.next = Some(now);
        }
    }

    /// The server asks us to call anew, there if it says where: at once, and once more where we were told to if that fails.
    /// False where it is not followed: too often, or to something else than the same scheme.
    fn follow(&mut self, tc_url: Option<&str>) -> bool {
        if self.follows >= FOLLOWS_MAX {
            return false;
        }
        if let Some(url) = tc_url {
            let Some((host, port, app)) = place_of(url, self.trust.is_some()) else { return false };
            let place = Place {
                address: SocketAddr::new(if let Host::Ip(ip) = host { ip } else { self.address.ip() }, port),
                name: self.trust.is_some().then(|| host.to_string()),
                host,
                tc_url: url.to_owned(),
                app,
            };
            let before = self.move_to(place);
            self.home.get_or_insert_with(|| Box::new(before));
        }
        self.follows += 1;
        self.is_following = true;
        true
    }

    /// Gives where it was.
    fn move_to(&mut self, place: Place) -> Place {
        self.lookup = Lookup::Used;
        let name = self.trust.as_mut().zip(place.name).map(|((_, name), new)| std::mem::replace(name, new));
        Place {
            address: std::mem::replace(&mut self.address, place.address),
            host: std::mem::replace(&mut self.host, place.host),
            name,
            tc_url: std::mem::replace(&mut self.target.tc_url, place.tc_url),
            app: std::mem::replace(&mut self.target.app, place.app),
        }
    }

    /// Another call is made after a while, by chance a little shorter or longer. `has_worked` says whether media went over
    /// the last connection.
    fn wait(&mut self, now: Time, has_worked: bool) {
        self.has_worked = has_worked;
        if std::mem::take(&mut self.is_following) {
            self.next = Some(now);
            return;
        }
        self.follows = 0;
        if let Some(home) = self.home.take() {
            self.move_to(*home);
        }
        let longest = self.retries.next(now, has_worked);
        self.next = Some(now + longest.mul_f64(0.5 + fastrand::f64() / 2.0));
    }

    fn poll_timeout(&self) -> Option<Time> {
        let connection = self.connection.as_ref().and_then(Connection::poll_timeout);
        [connection, self.next].into_iter().flatten().min()
    }
}

/// How often a server is called in vain.
#[derive(Debug, Default)]
struct Retries {
    /// In a row.
    failures: u32,
    /// Since when the server agrees.
    agreed: Option<Time>,
}

impl Retries {
    /// The server is there, and agrees: which says little, as many look at keys and quotas only after that.
    const fn agreed(&mut self, now: Time) {
        self.agreed = Some(now);
    }

    /// The longest wait until the next call, which grows with every failure.
    fn next(&mut self, now: Time, has_worked: bool) -> Duration {
        let agreed = self.agreed.take();
        if has_worked && agreed.is_some_and(|at| now.since(at) >= LASTED_MIN) {
            self.failures = 0;
        }
        let longest = RETRY_FIRST.saturating_mul(1 << self.failures.min(10)).min(RETRY_LONGEST);
        self.failures = self.failures.saturating_add(1);
        longest
    }
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
            (Some(End::NotLetIn | End::Closed), None) => (&mut self.left, "closed"),
            (_, Some(why @ Broken::Closed)) => (&mut self.left, why.reason()),
            (_, Some(why @ Broken::Failed(_))) => (&mut self.failed, why.reason()),
            (_, Some(why @ Broken::Stalled)) => (&mut self.stalled, why.reason()),
            (_, Some(why @ Broken::Insecure(failure))) => {
                self.tls.count(failure);
                (&mut self.failed, why.reason())
            }
            (None, None) => (&mut self.left, "closed"),
        };
        *counter += 1;
        PeerEnd { reason, refusal: None }
    }

    const fn details(&self) -> [proto::Detail; 9] {
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
#[derive(Debug, Default)]
struct Events(ArrayVec<DriverEvent, EVENTS_MAX>);

impl Events {
    fn tell(&mut self, event: proto::Event, counters: &super::Counters) {
        note(DriverEvent::Core(event), &mut self.0, counters);
    }

    fn poll(&mut self) -> Option<DriverEvent> {
        self.0.pop_at(0)
    }
}

/// Connections that are over on our side, and are left open for a while: closed at once with something unread, they would
/// be reset, and the peer lose what it was told last; others take a close before their own for an error.
#[derive(Debug, Default)]
struct Leaving(ArrayVec<(Stream, Time), LEAVING_MAX>);

impl Leaving {
    /// Tells the peer that it is over, as far as that leaves at once, and keeps the connection open for [`LEAVING_FOR`].
    fn add<C: StreamCore>(&mut self, mut connection: Connection<C>, now: Time) {
        connection.core.handle_close(now);
        connection.flush(now);
        if connection.broken().is_some() {
            return;
        }
        if self.0.is_full() {
            self.0.remove(0);
        }
        self.0.push((connection.into_stream(), now + LEAVING_FOR));
    }

    fn handle_timeout(&mut self, now: Time) {
        self.0.retain(|(_, due)| *due > now);
    }

    fn poll_timeout(&self) -> Option<Time> {
        self.0.first().map(|(_, due)| *due)
    }
}

/// Tells the peer that it is over, as far as that leaves at once.
fn say_goodbye<C: StreamCore>(connection: &mut Connection<C>, now: Time) {
    connection.core.handle_close(now);
    connection.flush(now);
    connection.shutdown();
}

/// Judgement: several round trips, after which whoever was told has read it.
const LEAVING_FOR: Duration = Duration::from_secs(2);
/// What is above is closed at once. Judgement: more end within two seconds only where somebody attacks.
const LEAVING_MAX: usize = 8;

/// Readiness is told once for each direction, so that both can be asked for all the time.
const BOTH: mio::Interest = mio::Interest::READABLE.add(mio::Interest::WRITABLE);

/// Registered for RTMP.
pub const PORT: u16 = 1_935;
/// Of RTMP over TLS, which has none registered: that of HTTPS, as others use it.
pub const TLS_PORT: u16 = 443;
/// Longest key. Judgement: those of content delivery networks, with their tokens, have a fourth of it.
const KEY_BYTES_MAX: usize = 1_024;
/// Judgement: a server that restarts is back within seconds, and who repairs one does not want to wait longer.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LONGEST: Duration = Duration::from_secs(30);
/// A connection that worked for so long is no failure. Judgement: servers that look at a key late do so within that.
const LASTED_MIN: Duration = Duration::from_secs(10);
/// Requests to call anew that are followed without a pause. Judgement: a server that moves its callers does so once.
const FOLLOWS_MAX: u32 = 4;
/// As the other drivers.
const DETAILS_APART: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_leads_elsewhere_is_followed_and_one_that_leads_nowhere_is_not() {
        let server = HostPort { host: "cdn.example".parse().unwrap(), port: 1_936 };
        let (app, key) = ("live".to_owned(), Key::new("key").unwrap());
        let config = EndpointConfig { side: Side::Caller { server, tls: None, timeout: None }, app, key, rate: None };
        let [first, second] = ["192.0.2.1:1936", "192.0.2.2:1936"].map(|text| text.parse::<SocketAddr>().unwrap());
        let mut calls = config.calls(first, Role::Publisher).unwrap();
        let now = Time::ZERO + Duration::from_secs(9);
        let answer = |name: &str, ip| lookup::Answer { name: name.into(), ip };
        // Nobody asked: an answer that comes too late changes nothing, nor does one for who was here before.
        calls.looked_up(now, &answer("cdn.example", Some(second.ip())));
        calls.lookup = Lookup::UnderWay;
        calls.looked_up(now, &answer("other.example", Some(second.ip())));
        assert_eq!((calls.address, calls.lookup), (first, Lookup::UnderWay));
        for (ip, address) in [(None, first), (Some(second.ip()), second), (None, second)] {
            calls.lookup = Lookup::UnderWay;
            calls.looked_up(now, &answer("cdn.example", ip));
            assert_eq!((calls.address, calls.lookup, calls.next), (address, Lookup::Fresh, Some(now)));
        }
    }

    #[test]
    fn servers_that_agree_and_hang_up_are_called_less_and_less() {
        let (mut retries, mut now) = (Retries::default(), Time::ZERO);
        let mut lasting = |span: Duration, has_worked: bool| {
            retries.agreed(now);
            now += span;
            retries.next(now, has_worked).as_secs()
        };
        let short = Duration::from_millis(100);
        assert_eq!([(); 6].map(|()| lasting(short, true)), [1, 2, 4, 8, 16, 30]);
        assert_eq!(lasting(LASTED_MIN * 3, false), 30, "nothing came of it");
        assert_eq!(lasting(LASTED_MIN, true), 1);
    }

    #[test]
    fn a_server_may_send_us_elsewhere_a_few_times_and_a_failure_leads_home() {
        let server = HostPort { host: Host::Name("first.example".into()), port: PORT };
        let config = EndpointConfig {
            side: Side::Caller { server, tls: None, timeout: None },
            app: "live".into(),
            key: Key::new("cam1").unwrap(),
            rate: None,
        };
        let first = SocketAddr::from(([192, 0, 2, 1], PORT));
        let mut calls = config.calls(first, Role::Publisher).unwrap();
        let now = Time::from_ns(5);
        for url in
            ["rtmps://192.0.2.2/live", "http://192.0.2.2/live", "rtmp://192.0.2.2", "rtmp://192.0.2.2:0/live", "x"]
        {
            assert!(!calls.follow(Some(url)), "{url}");
        }
        for (url, address, app) in [
            ("rtmp://192.0.2.2:1936/other", "192.0.2.2:1936", "other"),
            ("rtmp://[2001:db8::1]/live/eu/", "[2001:db8::1]:1935", "live/eu"),
        ] {
            assert!(calls.follow(Some(url)));
            calls.wait(now, false);
            assert_eq!((calls.address.to_string().as_str(), calls.target.app.as_str()), (address, app));
            assert_eq!((calls.target.tc_url.as_str(), calls.next), (url, Some(now)));
        }
        assert!(calls.follow(None) && calls.follow(Some("rtmp://third.example/live")) && !calls.follow(None));
        assert_eq!((&calls.host, calls.lookup), (&Host::Name("third.example".into()), Lookup::Used));
        calls.wait(now, false);
        assert_eq!(calls.next, Some(now));
        calls.wait(now, false);
        assert_eq!((calls.address, calls.target.tc_url.as_str()), (first, "rtmp://first.example/live"));
        assert!(calls.next > Some(now) && calls.follow(None));
    }
}
