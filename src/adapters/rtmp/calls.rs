//! Connections to a server that we call, again and again, and elsewhere if it asks for that.

use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use mio::net::TcpStream;

use super::inside::{is_inside, is_ours};
use super::lookup::{self, Called};
use super::{BOTH, Ends, PORT, TLS_PORT};
use crate::adapters::host::Host;
use crate::adapters::stream::Stream;
use crate::adapters::stream_driver::{Broken, Connection};
use crate::adapters::tls::{Session, Trust};
use crate::adapters::worker::{Context, Ready, SocketKey};
use crate::proto::Detail;
use crate::proto::rtmp::{Client, ClientMessage, Config, End, Message, Role, Target};
use crate::units::Time;

/// A connection that we make, and keep.
#[derive(Debug)]
pub(super) struct Calls {
    place: Place,
    /// Over TLS: whom to believe that it is who.
    trust: Option<Trust>,
    lookup: Lookup,
    role: Role,
    key: String,
    config: Config,
    pub(super) connection: Option<Connection<Client>>,
    retries: Retries,
    /// Media went over the connection, or may have.
    has_worked: bool,
    /// The same of the one before.
    had_worked: bool,
    /// When it is made next; `None` while there is one.
    next: Option<Time>,
    /// Where we were told to call, while a server asked us to call another place.
    home: Option<Box<Place>>,
    /// Requests to call anew that were followed in a row, and when the last one was.
    follows: u32,
    followed: Option<Time>,
    /// What the server asked for: made while the connection goes on, whose place it takes.
    coming: Option<Box<Self>>,
    /// Requests that were not followed, or in vain.
    moves_failed: u64,
}

/// Where a server is.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// What is known of its address: nothing before a name that a server gave was looked up.
    pub(super) ip: Option<IpAddr>,
    pub(super) port: u16,
    /// What the address was looked up from.
    pub(super) host: Host,
    /// As its certificate must have it.
    pub(super) name: Option<String>,
    pub(super) tc_url: String,
    pub(super) app: String,
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

/// What became of a connection.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// The server agrees.
    pub(super) is_ready: bool,
    pub(super) lost: Option<Lost>,
}

/// How a connection ended, or that none came about.
#[derive(Debug)]
pub(super) struct Lost {
    pub(super) peer: SocketAddr,
    pub(super) end: Option<End>,
    pub(super) broken: Option<Broken>,
    /// The server had agreed.
    pub(super) was_ready: bool,
    /// It had asked for another connection, which goes on.
    pub(super) has_moved: bool,
}

impl Place {
    /// What a server's URL says; `None` if it is no URL of the same scheme.
    fn parse(url: &str, is_secure: bool) -> Option<Self> {
        let (scheme, usual) = if is_secure { ("rtmps", TLS_PORT) } else { ("rtmp", PORT) };
        let (authority, app) = url.strip_prefix(scheme)?.strip_prefix("://")?.split_once('/')?;
        let (host, port) = match authority.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) {
            Some((host, port)) => (host, port.parse().ok().filter(|port| *port != 0)?),
            None => (authority, usual),
        };
        let app = app.trim_matches('/').to_owned();
        (!app.is_empty()).then_some(())?;
        let host: Host = host.parse().ok()?;
        let ip = if let Host::Ip(ip) = host { Some(ip) } else { None };
        let name = is_secure.then(|| host.to_string());
        Some(Self { ip, port, host, name, tc_url: url.to_owned(), app })
    }

    /// Without an address nobody is called.
    fn address(&self) -> SocketAddr {
        SocketAddr::new(self.ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), self.port)
    }
}

impl Calls {
    pub(super) fn new(place: Place, trust: Option<Trust>, role: Role, (key, config): (String, Config)) -> Self {
        Self {
            place,
            trust,
            lookup: Lookup::Fresh,
            role,
            key,
            config,
            connection: None,
            retries: Retries::default(),
            has_worked: false,
            had_worked: false,
            next: Some(Time::ZERO),
            home: None,
            follows: 0,
            followed: None,
            coming: None,
            moves_failed: 0,
        }
    }

    /// Whom we call.
    pub(super) fn peer(&self) -> SocketAddr {
        self.place.address()
    }

    /// Whether the server agrees.
    pub(super) const fn is_ready(&self) -> bool {
        self.retries.agreed.is_some()
    }

    /// Whether it has for so long that it works.
    pub(super) fn has_lasted(&self, now: Time) -> bool {
        self.retries.has_lasted(now)
    }

    /// Calls in vain in a row, or such as did not last.
    pub(super) const fn failures(&self) -> u32 {
        self.retries.failures
    }

    /// The connection that is to take the place of the one that there is.
    pub(super) fn coming(&mut self) -> Option<&mut Connection<Client>> {
        self.coming.as_mut()?.connection.as_mut()
    }

    /// Its socket is ready, or that of the one that is to take its place.
    pub(super) fn handle_ready(&mut self, ready: Ready) {
        self.connection.iter_mut().for_each(|connection| connection.handle_ready(ready));
        self.coming().into_iter().for_each(|connection| connection.handle_ready(ready));
    }

    /// Makes the connection if it is due, and hears the server out: `each` gets what it sends, and `None` when it agrees. What
    /// is lost is made again; where the server asked for another connection, that is this one from then on.
    pub(super) fn run(
        &mut self,
        cx: &mut Context<'_>,
        key: SocketKey,
        each: impl FnMut(&mut Client, Option<Message>),
    ) -> Heard {
        let mut heard = self.hear(cx, key, each);
        if let Some(lost) = &mut heard.lost {
            match self.coming.take() {
                Some(coming) => {
                    lost.has_moved = true;
                    *self = *coming;
                }
                None => self.wait(cx.now),
            }
        }
        heard
    }

    /// The same for the connection that a server asked for; `each` says whether it takes over, and the old one is given out
    /// then. Where the new one comes to nothing the old one goes on, but a server that may not have two of them gets it after
    /// the old one, which is given out as well.
    pub(super) fn run_coming(
        &mut self,
        cx: &mut Context<'_>,
        key: SocketKey,
        mut each: impl FnMut(&mut Client, Option<Message>) -> bool,
    ) -> Option<Connection<Client>> {
        let (coming, mut takes_over) = (self.coming.as_mut()?, false);
        let lost = coming.hear(cx, key, |client, said| takes_over |= each(client, said)).lost;
        if takes_over {
            if lost.is_some() {
                match coming.coming.take() {
                    Some(next) => **coming = *next,
                    None => coming.wait(cx.now),
                }
            }
            return self.change_over();
        }
        // Asked on at once: that connection is of no use.
        if let Some(next) = coming.coming.take() {
            **coming = *next;
            return None;
        }
        let lost = lost?;
        if matches!(&lost.end, Some(End::Refused { code, .. }) if code == IN_USE) {
            coming.next = Some(cx.now);
            coming.lookup = Lookup::Fresh;
            return self.change_over();
        }
        self.moves_failed = coming.moves_failed + 1;
        (self.coming, self.followed) = (None, Some(cx.now));
        None
    }

    /// The connection that the server asked for takes the place of the old one, which is given out.
    pub(super) fn change_over(&mut self) -> Option<Connection<Client>> {
        let coming = self.coming.take()?;
        mem::replace(self, *coming).connection
    }

    fn hear(
        &mut self,
        cx: &mut Context<'_>,
        key: SocketKey,
        mut each: impl FnMut(&mut Client, Option<Message>),
    ) -> Heard {
        let (peer, mut heard) = (self.peer(), Heard::default());
        if let Err(broken) = self.call(cx, key) {
            heard.lost = Some(Lost { peer, end: None, broken: Some(broken), was_ready: false, has_moved: false });
            return heard;
        }
        let Some(connection) = &mut self.connection else { return heard };
        let (mut end, mut moved, mut has_media) = (None, None, false);
        let has_more = connection.turn(cx.now, cx.ahead, |client, said| match said {
            ClientMessage::Ready => {
                heard.is_ready = true;
                each(client, None);
            }
            ClientMessage::Media(message) => {
                has_media = true;
                each(client, Some(message));
            }
            ClientMessage::Ended(why) => end = Some(why),
            ClientMessage::Reconnect { tc_url } => moved = Some(tc_url),
        });
        if has_more {
            cx.call_again(key);
        }
        if heard.is_ready {
            connection.flush(cx.now);
            self.retries.agreed = Some(cx.now);
        }
        self.has_worked |= has_media || (heard.is_ready && self.role == Role::Publisher);
        let is_over = end.is_some() || connection.is_done(cx.now);
        let broken = connection.broken();
        if let Some(tc_url) = moved
            && self.is_ready()
        {
            self.follow(cx.now, tc_url.as_deref());
        }
        if is_over {
            self.connection = None;
            heard.lost = Some(Lost { peer, end, broken, was_ready: self.is_ready(), has_moved: false });
        }
        heard
    }

    /// Makes the connection if it is due.
    fn call(&mut self, cx: &Context<'_>, key: SocketKey) -> Result<(), Broken> {
        if self.connection.is_some() || self.next.is_none_or(|next| cx.now < next) {
            return Ok(());
        }
        if self.lookup == Lookup::Used
            && let Host::Name(name) = &self.place.host
            && lookup::start(name, Called { ip: self.place.ip, has_worked: self.had_worked }, cx.remote(key))
        {
            self.lookup = Lookup::UnderWay;
            self.next = Some(cx.now + lookup::ANSWER_MAX);
            return Ok(());
        }
        self.lookup = Lookup::Used;
        self.next = None;
        if self.place.ip.is_none() || self.is_led_inside() {
            return Err(Broken::Failed(io::ErrorKind::HostUnreachable));
        }
        let address = self.place.address();
        let target = Target { tc_url: self.place.tc_url.clone(), app: self.place.app.clone(), key: self.key.clone() };
        let client = Client::new(cx.now, self.config, self.role, target, fastrand::u64(..));
        let connected = TcpStream::connect(address).and_then(|mut tcp| {
            cx.register(&mut tcp, key, BOTH)?;
            let Some((trust, name)) = self.trust.as_ref().zip(self.place.name.as_ref()) else {
                return Ok(Stream::plain(tcp));
            };
            let session = Session::client(cx.now, trust, name).map_err(io::Error::other)?;
            Ok(Stream::secured(tcp, session))
        });
        let stream = connected.map_err(|error| Broken::Failed(error.kind()))?;
        self.connection = Some(Connection::new(client, stream, address));
        Ok(())
    }

    /// A server out there leads us to somewhere in here, where nobody from out there may knock.
    fn is_led_inside(&self) -> bool {
        let Some(home) = &self.home else { return false };
        self.place.ip.is_some_and(is_inside) && !home.ip.is_some_and(is_ours)
    }

    /// The name was looked up once more; an address that is not known any more is tried for want of a better one.
    pub(super) fn looked_up(&mut self, now: Time, answer: &lookup::Answer) {
        if let Some(coming) = &mut self.coming {
            coming.looked_up(now, answer);
        }
        let is_ours = matches!(&self.place.host, Host::Name(name) if *name == answer.name);
        if is_ours && self.connection.is_none() && self.lookup == Lookup::UnderWay {
            self.place.ip = answer.ip.or(self.place.ip);
            self.lookup = Lookup::Fresh;
            self.next = Some(now);
        }
    }

    /// The server asks us to call anew, there if it says where: the connection to that place is made while this one goes on.
    /// Not if it asks too often, or for another scheme.
    fn follow(&mut self, now: Time, tc_url: Option<&str>) {
        if self.coming.is_some() {
            return;
        }
        // A server that asks for what comes to nothing, again and again, is not followed each time.
        let has_rested = self.followed.is_none_or(|at| now.since(at) >= LASTED_MIN);
        let follows = if self.has_lasted(now) && has_rested { 0 } else { self.follows };
        let place = match tc_url {
            None => Some(self.place.clone()),
            Some(url) => Place::parse(url, self.trust.is_some()),
        };
        let Some(place) = place.filter(|_| follows < FOLLOWS_MAX) else {
            self.moves_failed += 1;
            return;
        };
        let home = self.home.clone().unwrap_or_else(|| Box::new(self.place.clone()));
        let mut coming = Self::new(place, self.trust.clone(), self.role, (self.key.clone(), self.config));
        coming.lookup = Lookup::Used;
        coming.home = Some(home);
        coming.follows = follows + 1;
        coming.moves_failed = self.moves_failed;
        // To be sent on is no success.
        coming.retries.failures = if self.has_worked && self.has_lasted(now) { 0 } else { self.retries.failures };
        (self.follows, self.followed) = (follows + 1, Some(now));
        self.coming = Some(Box::new(coming));
    }

    /// Another call is made after a while, by chance a little shorter or longer, and where we were told to.
    fn wait(&mut self, now: Time) {
        self.follows = 0;
        if let Some(home) = self.home.take() {
            self.place = *home;
            self.lookup = Lookup::Used;
        }
        self.had_worked = mem::take(&mut self.has_worked);
        let longest = self.retries.next(now, self.had_worked);
        self.next = Some(now + longest.mul_f64(0.5 + fastrand::f64() / 2.0));
    }

    /// At the end: the connections that there are.
    pub(super) fn give_out(&mut self) -> impl Iterator<Item = Connection<Client>> {
        let coming = self.coming.take().and_then(|coming| coming.connection);
        self.connection.take().into_iter().chain(coming)
    }

    pub(super) fn details(&self, ends: &Ends) -> Vec<Detail> {
        ends.tls.details().chain([("movesFailed", self.moves_failed as f64)]).collect()
    }

    pub(super) fn poll_timeout(&self) -> Option<Time> {
        let connection = self.connection.as_ref().and_then(Connection::poll_timeout);
        let coming = self.coming.as_ref().and_then(|coming| coming.poll_timeout());
        [connection, self.next, coming].into_iter().flatten().min()
    }
}

/// How often a server is called in vain.
#[derive(Debug, Default)]
struct Retries {
    /// In a row.
    failures: u32,
    /// Since when the server agrees: which says little, as many look at keys and quotas only after that.
    agreed: Option<Time>,
}

impl Retries {
    fn has_lasted(&self, now: Time) -> bool {
        self.agreed.is_some_and(|at| now.since(at) >= LASTED_MIN)
    }

    /// The longest wait until the next call, which grows with every failure. `has_worked` says whether media went over the
    /// last connection.
    fn next(&mut self, now: Time, has_worked: bool) -> Duration {
        if has_worked && self.has_lasted(now) {
            self.failures = 0;
        }
        self.agreed = None;
        let longest = RETRY_FIRST.saturating_mul(1 << self.failures.min(10)).min(RETRY_LONGEST);
        self.failures = self.failures.saturating_add(1);
        longest
    }
}

/// What a server says that has the stream already.
const IN_USE: &str = "NetStream.Publish.BadName";
/// Judgement: a server that restarts is back within seconds, and who repairs one does not want to wait longer.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LONGEST: Duration = Duration::from_secs(30);
/// A connection that worked for so long is no failure. Judgement: servers that look at a key late do so within that.
const LASTED_MIN: Duration = Duration::from_secs(10);
/// Requests to call anew that are followed without a pause. Judgement: a server that moves its callers does so once.
const FOLLOWS_MAX: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_ns(9_000_000_000);

    fn calls(host: &str, ip: &str) -> Calls {
        let place = Place {
            ip: Some(ip.parse().unwrap()),
            port: PORT,
            host: host.parse().unwrap(),
            name: None,
            tc_url: format!("rtmp://{host}/live"),
            app: "live".into(),
        };
        Calls::new(place, None, Role::Publisher, ("cam1".into(), Config::default()))
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_followed_and_one_that_leads_nowhere_is_not() {
        let [first, second] = ["192.0.2.1", "192.0.2.2"].map(|text| text.parse::<IpAddr>().unwrap());
        let mut calls = calls("cdn.example", "192.0.2.1");
        let answer = |name: &str, ip| lookup::Answer { name: name.into(), ip };
        // Nobody asked: an answer that comes too late changes nothing, nor does one for who was here before.
        calls.looked_up(NOW, &answer("cdn.example", Some(second)));
        calls.lookup = Lookup::UnderWay;
        calls.looked_up(NOW, &answer("other.example", Some(second)));
        assert_eq!((calls.place.ip, calls.lookup), (Some(first), Lookup::UnderWay));
        for (ip, address) in [(None, first), (Some(second), second), (None, second)] {
            calls.lookup = Lookup::UnderWay;
            calls.looked_up(NOW, &answer("cdn.example", ip));
            assert_eq!((calls.place.ip, calls.lookup, calls.next), (Some(address), Lookup::Fresh, Some(NOW)));
        }
    }

    #[test]
    fn servers_that_agree_and_hang_up_are_called_less_and_less() {
        let (mut retries, mut now) = (Retries::default(), Time::ZERO);
        let mut lasting = |span: Duration, has_worked: bool| {
            retries.agreed = Some(now);
            now += span;
            retries.next(now, has_worked).as_secs()
        };
        let short = Duration::from_millis(100);
        assert_eq!([(); 6].map(|()| lasting(short, true)), [1, 2, 4, 8, 16, 30]);
        assert_eq!(lasting(LASTED_MIN * 3, false), 30, "nothing came of it");
        assert_eq!(lasting(LASTED_MIN, true), 1);
    }

    #[test]
    fn a_server_that_sends_us_on_for_ever_is_called_less_and_less() {
        let mut calls = calls("first.example", "192.0.2.1");
        let mut round = |lasted: Duration| {
            for _ in 0..FOLLOWS_MAX {
                (calls.retries.agreed, calls.has_worked) = (Some(NOW), true);
                calls.follow(NOW + lasted, None);
                calls.change_over();
            }
            calls.wait(NOW + lasted);
            calls.failures()
        };
        assert_eq!([(); 3].map(|()| round(Duration::from_millis(100))), [1, 2, 3]);
        assert_eq!(round(LASTED_MIN), 1, "it worked for a while before that");
    }

    #[test]
    fn a_server_may_send_us_elsewhere_a_few_times_in_a_row_and_a_failure_leads_home() {
        let mut calls = calls("first.example", "192.0.2.1");
        for url in
            ["rtmps://192.0.2.2/live", "http://192.0.2.2/live", "rtmp://192.0.2.2", "rtmp://192.0.2.2:0/live", "x"]
        {
            calls.follow(NOW, Some(url));
            assert!(calls.coming.is_none(), "{url}");
        }
        assert_eq!(calls.moves_failed, 5);
        for (url, address, app) in [
            (Some("rtmp://192.0.2.2:1936/other"), "192.0.2.2:1936", "other"),
            (Some("rtmp://[2001:db8::1]/live/eu/"), "[2001:db8::1]:1935", "live/eu"),
            (None, "[2001:db8::1]:1935", "live/eu"),
            // Of a name nothing is known, least of all that the last server has it.
            (Some("rtmp://third.example/live"), "0.0.0.0:1935", "live"),
        ] {
            calls.follow(NOW, url);
            calls.change_over();
            assert_eq!((calls.peer().to_string().as_str(), calls.place.app.as_str()), (address, app));
            assert_eq!(calls.next, Some(Time::ZERO), "at once");
        }
        assert_eq!((calls.place.ip, calls.lookup), (None, Lookup::Used));
        calls.follow(NOW, None);
        assert!(calls.coming.is_none(), "often enough");
        calls.retries.agreed = Some(NOW);
        calls.follow(NOW + LASTED_MIN, None);
        assert!(calls.coming.is_some(), "it lasted");
        let in_vain: Vec<bool> = (0..6)
            .map(|n| {
                calls.coming = None;
                calls.follow(NOW + LASTED_MIN + Duration::from_secs(n), None);
                calls.coming.is_some()
            })
            .collect();
        assert_eq!(in_vain, [true, true, true, false, false, false], "nothing came of it, again and again");
        calls.follow(NOW + LASTED_MIN * 3, None);
        assert!(calls.coming.is_some(), "after a while");
        calls.coming = None;
        calls.wait(NOW);
        assert_eq!(
            (calls.peer().to_string().as_str(), calls.place.tc_url.as_str()),
            ("192.0.2.1:1935", "rtmp://first.example/live")
        );
        assert!(calls.next > Some(NOW) && calls.home.is_none());
    }

    #[test]
    fn a_server_out_there_does_not_lead_us_into_our_own_network() {
        for (home, target, is_refused) in [
            ("192.0.2.1", "rtmp://127.0.0.1:6379/x", true),
            ("192.0.2.1", "rtmp://169.254.169.254/x", true),
            ("192.0.2.1", "rtmp://10.0.0.1/x", true),
            ("192.0.2.1", "rtmp://[fd00::1]/x", true),
            ("192.0.2.1", "rtmp://[::ffff:127.0.0.1]/x", true),
            ("192.0.2.1", "rtmp://100.64.0.1/x", true),
            ("192.0.2.1", "rtmp://198.51.100.1/x", false),
            ("10.0.0.2", "rtmp://10.0.0.1/x", false),
        ] {
            let mut calls = calls("cdn.example", home);
            calls.follow(NOW, Some(target));
            assert_eq!(calls.coming.unwrap().is_led_inside(), is_refused, "{target}");
        }
    }
}
