//! The side that calls: knocks, asks, is connected, and calls again whenever that ends (draft 4.3.1).
//!
//! ```text
//!            ┌── induction ──> conclusion ──> connected ──┐
//!   resting ─┤        └──────────────┴── refused, silent ─┴──> resting
//!      ^     └─────────────────────────────────────────────────────┘
//! ```

use std::collections::VecDeque;
use std::mem;
use std::net::SocketAddr;
use std::time::Duration;

use super::agree::{self, Latencies, Parties, Wishes};
use super::config::Config;
use super::connection::{Connection, Settled, timestamp};
use super::crypto::{Crypto, Derivation, Kek, KeyLength};
use super::entropy::Entropy;
use super::error::{Ended, Rejection};
use super::filter;
use super::handshake::{Extension, GROUP_ID, Group, Handshake, Stage, extension};
use super::packet::{ControlHeader, ControlKind, HEADER_BYTES, Header};
use super::stats::{self, Totals};
use crate::bus::{Meta, Packet, Pool};
use crate::proto::{Core, Datagram, Detail, Done, Event, PeerEnd, Port, Stats, Transmit, WireHeader, Work};
use crate::units::{Seq, Time};

/// A caller as a core.
#[derive(Debug)]
pub struct Caller {
    config: Config,
    peer: SocketAddr,
    pool: Pool,
    entropy: Entropy,
    state: State,
    /// Attempts that failed since the last connection.
    failures: u32,
    /// Why the last attempt failed, which is told once.
    told: Option<PeerEnd>,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
    totals: Totals,
    /// What the keys were wrapped with last; good for every connection with keys of this length.
    kek: Option<Kek>,
    /// Derivations asked for so far.
    derivations: u64,
    work: Option<Work>,
    /// Instead of one drawn by chance.
    pub(super) initial: Option<Seq<31>>,
    membership: Option<Membership>,
}

/// The group that a caller is a member of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Membership {
    /// As the listener is told.
    pub group: Group,
    /// The listener's, by its answer or by its answer to another member.
    pub peer: Option<u32>,
    /// Where timestamps of all members begin; `None` until the first of them calls.
    pub epoch: Option<Time>,
}

#[derive(Debug)]
enum State {
    Resting { until: Time },
    Calling(Box<Attempt>),
    Connected(Box<Connection>),
    Closed,
}

/// A handshake under way.
#[derive(Debug)]
struct Attempt {
    epoch: Time,
    local_id: u32,
    initial: Seq<31>,
    /// Given by the listener; `None` until it has answered.
    cookie: Option<u32>,
    /// The keys, and how they are announced.
    crypto: Option<(Crypto, Vec<u8>)>,
    /// What the keys are to be wrapped with is being derived.
    is_deriving: bool,
    next_send: Time,
    deadline: Time,
}

impl Caller {
    /// Calls `peer` as soon as it is run. `secret` must be unpredictable.
    #[must_use]
    pub fn new(config: Config, peer: SocketAddr, pool: Pool, secret: [u8; 32]) -> Self {
        Self {
            config,
            peer,
            pool,
            entropy: Entropy::new(secret),
            state: State::Resting { until: Time::ZERO },
            failures: 0,
            told: None,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            totals: Totals::default(),
            kek: None,
            derivations: 0,
            work: None,
            initial: None,
            membership: None,
        }
    }

    /// The same, with this first sequence number instead of one drawn by chance: for those who want to see it wrap.
    #[must_use]
    pub const fn starting_at(mut self, initial: Seq<31>) -> Self {
        self.initial = Some(initial);
        self
    }

    /// The same as a member of a group.
    pub(super) const fn in_group(mut self, membership: Membership) -> Self {
        self.membership = Some(membership);
        self
    }

    pub(super) const fn membership_mut(&mut self) -> Option<&mut Membership> {
        self.membership.as_mut()
    }

    pub(super) const fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The id that the peer's datagrams name, while there is one.
    pub(super) fn local_id(&self) -> Option<u32> {
        match &self.state {
            State::Calling(attempt) => Some(attempt.local_id),
            State::Connected(connection) => Some(connection.settled().local_id),
            State::Resting { .. } | State::Closed => None,
        }
    }

    pub(super) fn connection(&self) -> Option<&Connection> {
        match &self.state {
            State::Connected(connection) => Some(connection),
            State::Resting { .. } | State::Calling(_) | State::Closed => None,
        }
    }

    pub(super) fn connection_mut(&mut self) -> Option<&mut Connection> {
        match &mut self.state {
            State::Connected(connection) => Some(connection),
            State::Resting { .. } | State::Calling(_) | State::Closed => None,
        }
    }

    fn call(&mut self, now: Time) {
        let drawn = Seq::new(self.entropy.word());
        let initial = self.initial.unwrap_or(drawn);
        self.state = State::Calling(Box::new(Attempt {
            epoch: self.membership.and_then(|membership| membership.epoch).unwrap_or(now),
            local_id: self.entropy.socket_id(),
            initial,
            cookie: None,
            crypto: None,
            is_deriving: false,
            next_send: now,
            deadline: now + self.config.connect_timeout,
        }));
    }

    /// Sends what the attempt is at, again and again.
    fn knock(&mut self, now: Time) {
        let State::Calling(attempt) = &mut self.state else { return };
        attempt.next_send = now + KNOCK_INTERVAL;
        if attempt.is_deriving {
            return;
        }
        let mut handshake = Handshake {
            version: 4,
            encryption: 0,
            extension: extension::DATAGRAM,
            initial: attempt.initial,
            mtu: u32::from(self.config.mtu),
            flow_window: self.config.flow_window,
            stage: Stage::Induction,
            socket_id: attempt.local_id,
            cookie: 0,
            peer_ip: self.peer.ip(),
        };
        let mut body = Vec::with_capacity(BODY_TYPICAL);
        if let Some(cookie) = attempt.cookie {
            handshake.version = 5;
            handshake.stage = Stage::Conclusion;
            handshake.cookie = cookie;
            handshake.extension = extension::HANDSHAKE;
            if let Some((crypto, _)) = &attempt.crypto {
                handshake.extension |= extension::KEYS;
                handshake.encryption = (crypto.length().bytes() / 8) as u16;
            }
            let has_more = !self.config.stream_id.is_empty() || self.config.packet_filter.is_some();
            if has_more || self.membership.is_some() {
                handshake.extension |= extension::CONFIG;
            }
            handshake.write(&mut body);
            Extension::Request(agree::request(&self.config)).write(&mut body);
            if let Some((_, announcement)) = &attempt.crypto {
                Extension::KeyRequest(announcement).write(&mut body);
            }
            if !self.config.stream_id.is_empty() {
                Extension::StreamId(self.config.stream_id.clone()).write(&mut body);
            }
            if let Some(filter) = &self.config.packet_filter {
                Extension::Filter(filter.to_string()).write(&mut body);
            }
            if let Some(membership) = &self.membership {
                Extension::Group(membership.group).write(&mut body);
            }
        } else {
            handshake.write(&mut body);
        }
        let transmit = handshake_datagram(&self.pool, self.peer, (attempt.epoch, now), 0, &body);
        self.transmits.extend(transmit);
    }

    fn handle_handshake(&mut self, now: Time, header: &ControlHeader, datagram: &Packet) {
        let State::Calling(attempt) = &mut self.state else { return };
        let Ok((handshake, extensions)) = Handshake::parse(&datagram[HEADER_BYTES..]) else {
            self.totals.malformed += 1;
            return;
        };
        match (handshake.stage, attempt.cookie) {
            (Stage::Induction, None) if handshake.version < 5 => self.fail(now, Ended::Refusing(Rejection::VERSION)),
            (Stage::Induction, None) => {
                attempt.cookie = Some(handshake.cookie);
                if self.config.passphrase.is_some() {
                    self.make_keys(KeyLength::of_bytes(usize::from(handshake.encryption) * 8));
                }
                self.knock(now);
            }
            (Stage::Conclusion, Some(_)) => {
                let settled = Wishes::of(extensions).and_then(|wishes| {
                    let response = wishes.response.ok_or(Rejection::ROGUE)?;
                    settle_keys(&mut attempt.crypto, wishes.key_response.as_deref(), response.version)?;
                    let filter = filter::conclude(self.config.packet_filter.as_ref(), wishes.filter.as_deref())?;
                    if let Some(membership) = &mut self.membership {
                        membership.settle(wishes.group.as_ref())?;
                    }
                    let latencies = Latencies { receive: response.send_latency, send: response.receive_latency };
                    let parties = Parties {
                        local_id: attempt.local_id,
                        peer: self.peer,
                        epoch: attempt.epoch,
                        base: (datagram.meta.arrival, header.timestamp),
                    };
                    let settled = agree::settle(&self.config, parties, &handshake, &response, latencies);
                    Ok(Settled { filter: filter.map(|agreed| agreed.settled), ..settled })
                });
                match settled {
                    Ok(settled) => {
                        let crypto = attempt.crypto.take().map(|keys| keys.0);
                        let crypto = (crypto, self.entropy.child());
                        let connection = Connection::new(now, settled, &self.config, self.pool.clone(), crypto);
                        self.state = State::Connected(Box::new(connection));
                        self.failures = 0;
                        self.note(Event::PeerConnected { peer: self.peer });
                    }
                    Err(rejection) => self.fail(now, Ended::Refusing(rejection)),
                }
            }
            (Stage::Rejected(rejection), _) => self.fail(now, Ended::Refused(rejection)),
            _ => self.totals.unexpected += 1,
        }
    }

    /// Makes the keys for an attempt, or has made what it takes. `proposed` is the length that the peer would like.
    fn make_keys(&mut self, proposed: Option<KeyLength>) {
        let (State::Calling(attempt), Some(passphrase)) = (&mut self.state, &self.config.passphrase) else { return };
        let length = self.config.key_length.or(proposed).unwrap_or_default();
        if let Some(kek) = self.kek.as_ref().filter(|kek| kek.length() == length) {
            let (cipher, refresh) = (self.config.cipher, self.config.refresh());
            attempt.crypto = Crypto::initiate(passphrase, kek.clone(), cipher, refresh, &mut self.entropy);
            return;
        }
        attempt.is_deriving = true;
        self.derivations += 1;
        let derivation = Derivation::draw(passphrase, length, &mut self.entropy);
        self.work = Some(Work::new(self.derivations, move || derivation.run()));
    }

    /// The attempt or the connection is over; there will be another one.
    fn fail(&mut self, now: Time, why: Ended) {
        let was_connected = matches!(self.state, State::Connected(_));
        if let State::Connected(connection) = &self.state {
            self.totals.add(connection);
        }
        let wait = (REST_MIN * 2_u32.saturating_pow(self.failures)).min(REST_MAX);
        self.failures = (self.failures + 1).min(FAILURES_COUNTED);
        // Not all of those who lost one listener shall come back at the same moment.
        let jitter = wait / 4 * (self.entropy.word() >> 16) / (1 << 16);
        self.state = State::Resting { until: now + wait + jitter };
        let (peer, why) = (self.peer, PeerEnd::from(why));
        if was_connected {
            self.told = None;
            self.note(Event::PeerLost { peer, why });
        } else if self.told.replace(why) != Some(why) {
            self.note(Event::PeerRefused { peer, why });
        }
    }

    fn note(&mut self, event: Event) {
        if self.events.len() < EVENTS_MAX {
            self.events.push_back(event);
        }
    }

    pub(super) fn look_for_the_end(&mut self, now: Time) {
        if let State::Connected(connection) = &self.state
            && let Some(why) = connection.ended()
        {
            self.fail(now, why);
        }
    }
}

impl Core for Caller {
    fn handle_datagram(&mut self, now: Time, datagram: Datagram) {
        let Ok(header) = Header::parse(&datagram.packet) else {
            self.totals.malformed += 1;
            return;
        };
        if datagram.peer != self.peer || self.local_id() != Some(header.destination()) {
            self.totals.unexpected += 1;
            return;
        }
        if let State::Connected(connection) = &mut self.state {
            connection.handle(now, &header, datagram.packet);
            self.look_for_the_end(now);
        } else if let Header::Control(header) = header
            && header.kind == ControlKind::Handshake
        {
            self.handle_handshake(now, &header, &datagram.packet);
        } else {
            self.totals.unexpected += 1;
        }
    }

    fn handle_packet(&mut self, now: Time, packet: &Packet) {
        match &mut self.state {
            State::Connected(connection) => connection.send(now, packet),
            State::Calling(_) | State::Resting { .. } | State::Closed => self.totals.not_connected += 1,
        }
    }

    fn handle_timeout(&mut self, now: Time) {
        match &mut self.state {
            State::Resting { until } if *until <= now => {
                self.call(now);
                self.knock(now);
            }
            State::Calling(attempt) if attempt.deadline <= now => self.fail(now, Ended::NoAnswer),
            State::Calling(attempt) if attempt.next_send <= now => self.knock(now),
            State::Connected(connection) => {
                connection.handle_timeout(now);
                self.look_for_the_end(now);
            }
            State::Resting { .. } | State::Calling(_) | State::Closed => {}
        }
    }

    fn handle_close(&mut self, now: Time) {
        if let State::Connected(connection) = &mut self.state {
            connection.close(now);
            while let Some(transmit) = connection.poll_transmit() {
                self.transmits.push_back(transmit);
            }
            self.totals.add(connection);
        }
        self.state = State::Closed;
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        let first = self.transmits.pop_front();
        first.or_else(|| match &mut self.state {
            State::Connected(connection) => connection.poll_transmit(),
            State::Resting { .. } | State::Calling(_) | State::Closed => None,
        })
    }

    fn poll_packet(&mut self) -> Option<Packet> {
        match &mut self.state {
            State::Connected(connection) => connection.poll_packet(),
            State::Resting { .. } | State::Calling(_) | State::Closed => None,
        }
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn poll_work(&mut self) -> Option<Work> {
        self.work.take()
    }

    fn handle_done(&mut self, now: Time, done: Done) {
        let Ok(kek) = done.result.downcast::<Kek>() else { return };
        let length = kek.length();
        self.kek = Some(*kek);
        if let State::Calling(attempt) = &mut self.state
            && mem::take(&mut attempt.is_deriving)
            && done.id == self.derivations
        {
            self.make_keys(Some(length));
            self.knock(now);
        }
    }

    fn poll_timeout(&self) -> Option<Time> {
        match &self.state {
            State::Resting { until } => Some(*until),
            State::Calling(attempt) => Some(attempt.next_send.min(attempt.deadline)),
            State::Connected(connection) => Some(connection.poll_timeout()),
            State::Closed => None,
        }
    }

    fn patience(&self) -> Duration {
        match &self.state {
            State::Connected(connection) => connection.patience(),
            State::Resting { .. } | State::Calling(_) | State::Closed => Duration::ZERO,
        }
    }

    fn stats(&self) -> Stats {
        self.totals.stats(self.connection().into_iter())
    }

    fn visit_details(&self, visit: &mut dyn FnMut(&[Detail])) {
        if let State::Connected(connection) = &self.state {
            visit(&stats::libsrt(std::iter::once(&**connection)));
        }
    }
}

impl Membership {
    /// A listener that does not say which group it took us into has not understood, and one that says another than to
    /// other members is another one (libsrt 1.5).
    fn settle(&mut self, answer: Option<&Group>) -> Result<(), Rejection> {
        let answer = answer.filter(|group| group.id & GROUP_ID != 0).ok_or(Rejection::GROUP)?;
        if *self.peer.get_or_insert(answer.id) == answer.id { Ok(()) } else { Err(Rejection::GROUP) }
    }
}

/// Whether the listener took our keys, if there are any.
fn settle_keys(crypto: &mut Option<(Crypto, Vec<u8>)>, answer: Option<&[u8]>, version: u32) -> Result<(), Rejection> {
    match (crypto, answer) {
        (None, None) => Ok(()),
        (None, Some(_)) => Err(Rejection::UNSECURE),
        (Some((crypto, _)), answer) => {
            crypto.set_peer_version(version);
            crypto.settle(answer)
        }
    }
}

/// A datagram that carries a handshake; `None` if the pool is at its bound.
pub(super) fn handshake_datagram(
    pool: &Pool,
    to: SocketAddr,
    (epoch, now): (Time, Time),
    destination: u32,
    body: &[u8],
) -> Option<Transmit> {
    let header =
        ControlHeader { kind: ControlKind::Handshake, information: 0, timestamp: timestamp(epoch, now), destination };
    let payload = pool.copy(body, Meta::default())?;
    Some(Transmit {
        port: Port::Control,
        to: Some(to),
        header: WireHeader::from(header.bytes()),
        payload: Some(payload),
    })
}

/// As libsrt repeats its handshake.
const KNOCK_INTERVAL: Duration = Duration::from_millis(250);
/// Judgement: a listener that was started anew is found within half a second, one that is gone is not pestered.
const REST_MIN: Duration = Duration::from_millis(250);
const REST_MAX: Duration = Duration::from_secs(8);
const FAILURES_COUNTED: u32 = 16;
const BODY_TYPICAL: usize = 128;
/// Events that may wait for whoever drains.
pub(super) const EVENTS_MAX: usize = 64;
