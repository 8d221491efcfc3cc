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

use super::agree::{self, Parties, Wishes};
use super::config::Config;
use super::connection::{Connection, Settled, timestamp};
use super::crypto::{Crypto, Derivation, Kek, KeyLength};
use super::entropy::Entropy;
use super::error::{Ended, Rejection};
use super::handshake::{GROUP_ID, Group, Handshake, Stage, extension};
use super::listener::TAKEOVER_SILENCE;
use super::packet::{ControlHeader, ControlKind, HEADER_BYTES, Header};
use super::rendezvous::{Answer, Meeting, Step};
use super::stats::{self, Totals};
use crate::bus::{Meta, Packet, Pool};
use crate::proto::{
    Core, Datagram, Detail, Done, Event, PeerEnd, Port, Refusals, Stats, Transmit, Tuning, Work, wire_header,
};
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
    refusals: Refusals,
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
    /// The other side calls as well.
    meets: bool,
    last_word: Option<LastWord>,
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
    approach: Approach,
    /// The keys, and how they are announced.
    crypto: Option<(Crypto, Vec<u8>)>,
    /// What the keys are to be wrapped with is being derived.
    is_deriving: bool,
    /// A request of the other side of a rendezvous, whose keys need what is being derived.
    heard: Option<Packet>,
    next_send: Time,
    deadline: Time,
}

#[derive(Debug)]
enum Approach {
    Call {
        /// Given by the listener; `None` until it has answered.
        cookie: Option<u32>,
    },
    Meet(Meeting),
}

/// What ends the handshake of a rendezvous on our side.
#[derive(Debug)]
struct LastWord {
    body: Vec<u8>,
    /// It is said again and again until something else comes back; `None` if only when asked for.
    repeat_at: Option<Time>,
}

impl Attempt {
    /// What is the same in all handshakes of the attempt, as an induction.
    const fn handshake(&self, config: &Config, peer: SocketAddr) -> Handshake {
        Handshake {
            version: 4,
            encryption: 0,
            extension: extension::DATAGRAM,
            initial: self.initial,
            mtu: config.mtu as u32,
            flow_window: config.flow_window,
            stage: Stage::Induction,
            socket_id: self.local_id,
            cookie: 0,
            peer_ip: peer.ip(),
        }
    }
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
            refusals: Refusals::new(Refusals::CALLED_APART),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            totals: Totals::default(),
            kek: None,
            derivations: 0,
            work: None,
            initial: None,
            membership: None,
            meets: false,
            last_word: None,
        }
    }

    /// Meets `peer`, who calls us as we call him (rendezvous): both from the ports that the other one calls.
    #[must_use]
    pub fn rendezvous(config: Config, peer: SocketAddr, pool: Pool, secret: [u8; 32]) -> Self {
        Self { meets: true, ..Self::new(config, peer, pool, secret) }
    }

    /// When the answer that a rendezvous ends with is to be said again; `None` once it was heard.
    fn answer_due(&self) -> Option<Time> {
        self.last_word.as_ref().and_then(|word| word.repeat_at)
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
        let approach = if self.meets {
            Approach::Meet(Meeting::new(self.entropy.word()))
        } else {
            Approach::Call { cookie: None }
        };
        // Whom we meet may not have been started yet (libsrt waits as long).
        let times = if self.meets { MEETING_TAKES } else { 1 };
        self.state = State::Calling(Box::new(Attempt {
            epoch: self.membership.and_then(|membership| membership.epoch).unwrap_or(now),
            local_id: self.entropy.socket_id(),
            initial: self.initial.unwrap_or(drawn),
            approach,
            crypto: None,
            is_deriving: false,
            heard: None,
            next_send: now,
            deadline: now + self.config.connect_timeout * times,
        }));
    }

    /// Sends what the attempt is at, again and again.
    fn knock(&mut self, now: Time) {
        let State::Calling(attempt) = &mut self.state else { return };
        attempt.next_send = now + KNOCK_INTERVAL;
        if attempt.is_deriving {
            return;
        }
        let base = attempt.handshake(&self.config, self.peer);
        let mut body = Vec::with_capacity(BODY_TYPICAL);
        let keys = attempt.crypto.as_ref();
        let destination = match &attempt.approach {
            Approach::Call { cookie: None } => {
                base.write(&mut body);
                0
            }
            Approach::Call { cookie: Some(cookie) } => {
                let group = self.membership.map(|membership| membership.group);
                agree::write_request(Handshake { cookie: *cookie, ..base }, &self.config, keys, group, &mut body);
                0
            }
            Approach::Meet(meeting) => {
                meeting.write(base, &self.config, keys, &mut body);
                meeting.destination()
            }
        };
        let times = (attempt.epoch, now);
        self.transmits.extend(handshake_datagram(&self.pool, self.peer, times, destination, &body));
    }

    fn handle_handshake(&mut self, now: Time, header: &ControlHeader, datagram: &Packet, kek: Option<Kek>) {
        let State::Calling(attempt) = &mut self.state else { return };
        let Ok((handshake, extensions)) = Handshake::parse(&datagram[HEADER_BYTES..]) else {
            self.totals.malformed += 1;
            return;
        };
        let parties = Parties {
            local_id: attempt.local_id,
            peer: self.peer,
            epoch: attempt.epoch,
            initial: attempt.initial,
            base: (datagram.meta.arrival, header.timestamp),
        };
        let base = attempt.handshake(&self.config, self.peer);
        match (handshake.stage, &mut attempt.approach) {
            (Stage::Rejected(rejection), _) => self.fail(now, Ended::Refused(rejection)),
            (_, Approach::Meet(meeting)) => {
                let (ours, heard) = ((&self.config, parties, base), (&handshake, extensions));
                match meeting.handle(ours, heard, &mut attempt.crypto, kek) {
                    Ok(step) => self.go_on(now, step, datagram),
                    Err(rejection) => self.refuse(now, rejection, handshake.socket_id),
                }
            }
            (Stage::Induction, Approach::Call { cookie: None }) if handshake.version < 5 => {
                self.fail(now, Ended::Refusing(Rejection::VERSION));
            }
            (Stage::Induction, Approach::Call { cookie: cookie @ None }) => {
                *cookie = Some(handshake.cookie);
                if self.config.passphrase.is_some() {
                    self.make_keys(KeyLength::of_bytes(usize::from(handshake.encryption) * 8));
                }
                self.knock(now);
            }
            (Stage::Conclusion, Approach::Call { cookie: Some(_) }) => {
                let settled = Wishes::of(extensions).and_then(|wishes| {
                    let keys = &mut attempt.crypto;
                    let settled = agree::conclude(&self.config, parties, &handshake, &wishes, keys)?;
                    if let Some(membership) = &mut self.membership {
                        membership.settle(wishes.group.as_ref())?;
                    }
                    Ok(settled)
                });
                match settled {
                    Ok(settled) => {
                        let crypto = attempt.crypto.take().map(|keys| keys.0);
                        self.connect(now, settled, crypto);
                        self.note(Event::PeerConnected { peer: self.peer });
                    }
                    Err(rejection) => self.refuse(now, rejection, handshake.socket_id),
                }
            }
            _ => self.totals.unexpected += 1,
        }
    }

    /// What follows from what a meeting heard in `datagram`.
    fn go_on(&mut self, now: Time, step: Step, datagram: &Packet) {
        let State::Calling(attempt) = &mut self.state else { return };
        match step {
            Step::Nothing => {}
            Step::Speak => self.knock(now),
            Step::MakeKeys(proposed) => {
                self.make_keys(proposed);
                self.knock(now);
            }
            Step::Derive(derivation) => {
                if !attempt.is_deriving {
                    attempt.is_deriving = true;
                    attempt.heard = Some(datagram.clone());
                    self.derive(derivation);
                }
            }
            Step::Agreed(settled) => {
                let mut body = Vec::with_capacity(BODY_TYPICAL);
                let base = attempt.handshake(&self.config, self.peer);
                if let Approach::Meet(meeting) = &attempt.approach {
                    meeting.agreement(base, &mut body);
                }
                let crypto = attempt.crypto.take().map(|keys| keys.0);
                self.connect(now, settled, crypto);
                self.last_word = Some(LastWord { body, repeat_at: None });
                self.speak_last(now);
                self.note(Event::PeerConnected { peer: self.peer });
            }
            Step::Answered(answer) => {
                let Answer { settled, crypto, body } = *answer;
                self.connect(now, settled, crypto);
                self.last_word = Some(LastWord { body, repeat_at: Some(now) });
                self.speak_last(now);
            }
        }
    }

    fn connect(&mut self, now: Time, settled: Settled, crypto: Option<Crypto>) {
        let crypto = (crypto, self.entropy.child());
        let connection = Connection::new(now, settled, &self.config, self.pool.clone(), crypto);
        self.state = State::Connected(Box::new(connection));
        self.failures = 0;
    }

    /// Says again what ends the handshake on our side.
    fn speak_last(&mut self, now: Time) {
        let (State::Connected(connection), Some(word)) = (&self.state, &mut self.last_word) else { return };
        if let Some(at) = &mut word.repeat_at {
            *at = now + KNOCK_INTERVAL;
        }
        let Settled { epoch, peer_id, .. } = *connection.settled();
        self.transmits.extend(handshake_datagram(&self.pool, self.peer, (epoch, now), peer_id, &word.body));
    }

    /// The other side of a rendezvous is not content with our answer, or has gone on.
    fn handle_afterwards(&mut self, now: Time, header: &Header, datagram: &Packet) {
        let is_handshake = matches!(header, Header::Control(header) if header.kind == ControlKind::Handshake);
        let stage = if is_handshake {
            Handshake::parse(&datagram[HEADER_BYTES..]).ok().map(|(handshake, _)| handshake.stage)
        } else {
            None
        };
        match (&self.state, stage) {
            (_, Some(Stage::Conclusion)) => self.speak_last(now),
            (State::Connected(connection), Some(Stage::WaveAHand)) => {
                // It was started anew.
                if now.since(connection.last_heard()) > TAKEOVER_SILENCE {
                    self.fail(now, Ended::Silent);
                }
            }
            (_, Some(_) | None) => {
                if self.last_word.take_if(|word| word.repeat_at.is_some()).is_some() {
                    self.note(Event::PeerConnected { peer: self.peer });
                }
            }
        }
    }

    /// The peer, of this id, shall know that there is no connection.
    fn refuse(&mut self, now: Time, rejection: Rejection, peer_id: u32) {
        if let State::Calling(attempt) = &self.state {
            let times = (attempt.epoch, now);
            self.transmits.extend(match &attempt.approach {
                // A listener that has answered takes us for connected, and libsrt's waits for five seconds.
                Approach::Call { .. } => {
                    control_datagram(&self.pool, self.peer, times, (ControlKind::Shutdown, peer_id), &[0; 4])
                }
                Approach::Meet(meeting) => {
                    let base = attempt.handshake(&self.config, self.peer);
                    let mut body = Vec::with_capacity(BODY_TYPICAL);
                    Handshake { version: 5, extension: 0, stage: Stage::Rejected(rejection), ..base }.write(&mut body);
                    handshake_datagram(&self.pool, self.peer, times, meeting.destination(), &body)
                }
            });
        }
        self.fail(now, Ended::Refusing(rejection));
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
        let derivation = Derivation::draw(passphrase, length, &mut self.entropy);
        self.derive(derivation);
    }

    fn derive(&mut self, derivation: Derivation) {
        self.derivations += 1;
        self.work = Some(Work::new(self.derivations, move || derivation.run()));
    }

    /// The attempt or the connection is over; there will be another one.
    fn fail(&mut self, now: Time, why: Ended) {
        let was_answering = self.last_word.take().is_some_and(|word| word.repeat_at.is_some());
        let was_connected = matches!(self.state, State::Connected(_)) && !was_answering;
        if let State::Connected(connection) = &self.state {
            self.totals.add(connection);
        }
        let longest = if self.meets { REST_MIN } else { REST_MAX };
        let wait = (REST_MIN * 2_u32.saturating_pow(self.failures)).min(longest);
        self.failures = (self.failures + 1).min(FAILURES_COUNTED);
        // Not all of those who lost one listener shall come back at the same moment.
        let jitter = wait / 4 * (self.entropy.word() >> 16) / (1 << 16);
        self.state = State::Resting { until: now + wait + jitter };
        let (peer, why) = (self.peer, PeerEnd::from(why));
        if was_connected {
            self.refusals.clear();
            self.note(Event::PeerLost { peer, why });
        } else if let Some(count) = self.refusals.tell(now, why) {
            self.note(Event::PeerRefused { peer, why, count });
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
        // Whoever waves does not know our id.
        let is_for_us = self.local_id() == Some(header.destination()) || (self.meets && header.destination() == 0);
        if datagram.peer != self.peer || !is_for_us {
            self.totals.unexpected += 1;
            return;
        }
        if self.meets && matches!(self.state, State::Connected(_)) {
            self.handle_afterwards(now, &header, &datagram.packet);
            if matches!(header, Header::Control(header) if header.kind == ControlKind::Handshake) {
                return;
            }
        }
        if let State::Connected(connection) = &mut self.state {
            connection.handle(now, &header, datagram.packet);
            self.look_for_the_end(now);
        } else if let Header::Control(header) = header
            && header.kind == ControlKind::Handshake
        {
            self.handle_handshake(now, &header, &datagram.packet, None);
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
        let is_answering = self.answer_due().is_some();
        match &mut self.state {
            State::Resting { until } if *until <= now => {
                self.call(now);
                self.knock(now);
            }
            State::Calling(attempt) if attempt.deadline <= now => self.fail(now, Ended::NoAnswer),
            State::Calling(attempt) if attempt.next_send <= now => self.knock(now),
            State::Connected(connection) if is_answering => {
                if now.since(connection.last_heard()) >= connection.idle_timeout() {
                    self.fail(now, Ended::NoAnswer);
                } else {
                    self.speak_last(now);
                }
            }
            State::Connected(connection) => {
                connection.handle_timeout(now);
                self.look_for_the_end(now);
            }
            State::Resting { .. } | State::Calling(_) | State::Closed => {}
        }
    }

    fn handle_tuning(&mut self, now: Time, tuning: &Tuning) {
        let Tuning::Srt(tuning) = tuning;
        self.config.tune(tuning);
        match &mut self.state {
            State::Connected(connection) => connection.tune(now, tuning),
            State::Calling(attempt) => {
                if let Some((crypto, _)) = &mut attempt.crypto {
                    crypto.set_refresh(tuning.refresh());
                }
            }
            State::Resting { .. } | State::Closed => {}
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
        // Whoever asked and has not heard the answer would take anything else for it.
        let is_answering = self.answer_due().is_some();
        first.or_else(|| match &mut self.state {
            State::Connected(connection) if !is_answering => connection.poll_transmit(),
            State::Connected(_) | State::Resting { .. } | State::Calling(_) | State::Closed => None,
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
        let State::Calling(attempt) = &mut self.state else { return };
        if done.id != self.derivations || !mem::take(&mut attempt.is_deriving) {
            return;
        }
        if let Some(datagram) = attempt.heard.take() {
            // It was read before.
            if let Ok(Header::Control(header)) = Header::parse(&datagram) {
                self.handle_handshake(now, &header, &datagram, Some(*kek));
            }
            return;
        }
        let length = kek.length();
        self.kek = Some(*kek);
        self.make_keys(Some(length));
        self.knock(now);
    }

    fn poll_timeout(&self) -> Option<Time> {
        match &self.state {
            State::Resting { until } => Some(*until),
            State::Calling(attempt) => Some(attempt.next_send.min(attempt.deadline)),
            State::Connected(connection) => self.answer_due().or_else(|| Some(connection.poll_timeout())),
            State::Closed => None,
        }
    }

    fn patience(&self) -> Duration {
        match &self.state {
            State::Connected(connection) => connection.patience(),
            State::Resting { .. } | State::Calling(_) | State::Closed => Duration::ZERO,
        }
    }

    fn dropped(&self) -> u64 {
        self.connection().map_or(0, Connection::dropped)
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

/// A datagram that carries a handshake; `None` if the pool is at its bound.
pub(super) fn handshake_datagram(
    pool: &Pool,
    to: SocketAddr,
    times: (Time, Time),
    destination: u32,
    body: &[u8],
) -> Option<Transmit> {
    control_datagram(pool, to, times, (ControlKind::Handshake, destination), body)
}

fn control_datagram(
    pool: &Pool,
    to: SocketAddr,
    (epoch, now): (Time, Time),
    (kind, destination): (ControlKind, u32),
    body: &[u8],
) -> Option<Transmit> {
    let header = ControlHeader { kind, information: 0, timestamp: timestamp(epoch, now), destination };
    let (header, payload) = (wire_header(&header.bytes()), pool.copy(body, Meta::default())?);
    Some(Transmit { port: Port::Control, to: Some(to), header, payload: Some(payload) })
}

/// A rendezvous may take so many times as long as a call (libsrt).
const MEETING_TAKES: u32 = 10;
/// As libsrt repeats its handshake.
const KNOCK_INTERVAL: Duration = Duration::from_millis(250);
/// Judgement: a listener that was started anew is found within half a second, one that is gone is not pestered.
const REST_MIN: Duration = Duration::from_millis(250);
const REST_MAX: Duration = Duration::from_secs(8);
const FAILURES_COUNTED: u32 = 16;
const BODY_TYPICAL: usize = 128;
/// Events that may wait for whoever drains.
pub(super) const EVENTS_MAX: usize = 64;
