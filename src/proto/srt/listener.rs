//! The side that is called: one socket, many callers, each found by the socket id that it was given (draft 4.3.1).
//!
//! Until a caller has brought back its cookie nothing is kept of it.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::agree::{self, Latencies, Parties, Wishes};
use super::caller::{EVENTS_MAX, handshake_datagram};
use super::config::Config;
use super::connection::{Connection, Settled};
use super::crypto::{Crypto, KeyLength};
use super::entropy::Entropy;
use super::error::{Ended, Rejection};
use super::filter;
use super::handshake::{Capabilities, Extension, Extensions, Handshake, Stage, extension};
use super::packet::{ControlHeader, ControlKind, HEADER_BYTES, Header};
use super::stats::{self, Totals};
use crate::bus::{Packet, Pool};
use crate::proto::{Core, Datagram, Detail, Event, Stats, Transmit};
use crate::units::Time;

/// What a listener does with those who call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// One caller at a time delivers packets.
    Receive,
    /// Any number of callers, up to this one, gets the packets.
    Send {
        /// Most callers at a time.
        callers_max: usize,
    },
}

/// A listener as a core.
#[derive(Debug)]
pub struct Listener {
    config: Config,
    service: Service,
    pool: Pool,
    entropy: Entropy,
    callers: BTreeMap<u32, Caller>,
    /// By address and the caller's own socket id, for handshakes that come again.
    known: BTreeMap<(SocketAddr, u32), u32>,
    /// Callers that may have something to send or to deliver; each once.
    ready: Vec<u32>,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
    next_refusal_told: Time,
    totals: Totals,
}

#[derive(Debug)]
struct Caller {
    connection: Connection,
    /// The answer to its conclusion, should that come again.
    answer: Vec<u8>,
    is_ready: bool,
}

/// Somebody who may come in.
struct Admitted {
    request: Capabilities,
    filter: Option<filter::Agreed>,
    crypto: Option<Crypto>,
    announcement: Option<Vec<u8>>,
}

impl Listener {
    /// Waits for callers. `secret` must be unpredictable.
    #[must_use]
    pub fn new(config: Config, service: Service, pool: Pool, secret: [u8; 32]) -> Self {
        Self {
            config,
            service,
            pool,
            entropy: Entropy::new(secret),
            callers: BTreeMap::new(),
            known: BTreeMap::new(),
            ready: Vec::new(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            next_refusal_told: Time::ZERO,
            totals: Totals::default(),
        }
    }

    fn handle_handshake(&mut self, now: Time, header: &ControlHeader, datagram: &Datagram) {
        let Ok((handshake, extensions)) = Handshake::parse(&datagram.packet[HEADER_BYTES..]) else {
            self.totals.malformed += 1;
            return;
        };
        match handshake.stage {
            Stage::Induction => self.answer_induction(now, datagram.peer, &handshake),
            Stage::Conclusion => self.handle_conclusion(now, header, datagram, &handshake, extensions),
            Stage::WaveAHand | Stage::Agreement | Stage::Rejected(_) | Stage::Unknown(_) => {
                self.totals.unexpected += 1;
            }
        }
    }

    fn answer_induction(&mut self, now: Time, peer: SocketAddr, asked: &Handshake) {
        let answer = Handshake {
            version: 5,
            // What length we would like keys to have.
            encryption: self.config.key_length.filter(|_| self.config.passphrase.is_some()).map_or(0, key_units),
            extension: extension::MAGIC,
            mtu: u32::from(self.config.mtu),
            flow_window: self.config.flow_window,
            cookie: self.cookie(now, peer, 0),
            peer_ip: peer.ip(),
            ..asked.clone()
        };
        let mut body = Vec::new();
        answer.write(&mut body);
        self.answer(now, peer, asked.socket_id, &body);
    }

    fn handle_conclusion(
        &mut self,
        now: Time,
        header: &ControlHeader,
        datagram: &Datagram,
        asked: &Handshake,
        extensions: Extensions<'_>,
    ) {
        let peer = datagram.peer;
        if let Some(caller) = self.known.get(&(peer, asked.socket_id)).and_then(|id| self.callers.get(id)) {
            let answer = caller.answer.clone();
            return self.answer(now, peer, asked.socket_id, &answer);
        }
        let is_ours = [0, 1].into_iter().any(|age| self.cookie(now, peer, age) == asked.cookie);
        if !is_ours {
            self.totals.unexpected += 1;
            return;
        }
        match self.judge(now, asked, extensions) {
            Ok(admitted) => {
                self.accept(now, (datagram.packet.meta.arrival, header.timestamp), peer, asked, admitted);
            }
            Err(rejection) => {
                let mut body = Vec::new();
                Handshake { version: 5, stage: Stage::Rejected(rejection), ..asked.clone() }.write(&mut body);
                self.answer(now, peer, asked.socket_id, &body);
                if self.next_refusal_told <= now {
                    self.next_refusal_told = now + REFUSALS_TOLD_APART;
                    self.note(Event::PeerRefused { peer, why: Ended::Refusing(rejection).into() });
                }
            }
        }
    }

    /// Whether a caller may come in.
    fn judge(&mut self, now: Time, asked: &Handshake, extensions: Extensions<'_>) -> Result<Admitted, Rejection> {
        if asked.version < 5 || asked.extension & extension::HANDSHAKE == 0 {
            return Err(Rejection::VERSION);
        }
        let wishes = Wishes::of(extensions)?;
        let request = wishes.check()?;
        let filter = filter::answer(self.config.packet_filter.as_ref(), wishes.filter.as_deref())?;
        if !self.config.stream_id.is_empty() && !names(&wishes.stream_id, &self.config.stream_id) {
            return Err(Rejection::NOT_FOUND);
        }
        match self.service {
            Service::Send { callers_max } if self.callers.len() >= callers_max => return Err(Rejection::RESOURCE),
            Service::Send { .. } => {}
            Service::Receive => {
                // A sender that lost its line comes back sooner than we can be sure that it was lost.
                let silent: Vec<u32> = self
                    .callers
                    .iter()
                    .filter(|(_, caller)| now.since(caller.connection.last_heard()) > TAKEOVER_SILENCE)
                    .map(|(id, _)| *id)
                    .collect();
                silent.into_iter().for_each(|id| self.remove(id, Ended::Silent));
                if !self.callers.is_empty() {
                    return Err(Rejection::CONFLICT);
                }
            }
        }
        // Last, as it is what costs.
        let crypto = match (&self.config.passphrase, &wishes.key_request) {
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => return Err(Rejection::UNSECURE),
            (Some(passphrase), Some(announcement)) => {
                let refresh = self.config.refresh();
                let mut crypto = Crypto::respond(passphrase, self.config.cipher, refresh, announcement)?;
                crypto.set_peer_version(request.version);
                Some(crypto)
            }
        };
        Ok(Admitted { request, filter, crypto, announcement: wishes.key_request })
    }

    fn accept(
        &mut self,
        now: Time,
        base: (Time, u32),
        peer: SocketAddr,
        asked: &Handshake,
        Admitted { request, filter, crypto, announcement }: Admitted,
    ) {
        let mut id = self.entropy.socket_id();
        while self.callers.contains_key(&id) {
            id = self.entropy.socket_id();
        }
        let response = agree::respond(&self.config, &request);
        let latencies = Latencies { receive: response.receive_latency, send: response.send_latency };
        let parties = Parties { local_id: id, peer, epoch: now, base };
        let settled = agree::settle(&self.config, parties, asked, &request, latencies);
        let settled = Settled { filter: filter.map(|agreed| agreed.settled), ..settled };
        let mut body = Vec::new();
        let answer = Handshake {
            version: 5,
            encryption: crypto.as_ref().map_or(0, |crypto| key_units(crypto.length())),
            extension: extension::HANDSHAKE
                | if crypto.is_some() { extension::KEYS } else { 0 }
                | if filter.is_some() { extension::CONFIG } else { 0 },
            mtu: asked.mtu.min(u32::from(self.config.mtu)),
            flow_window: self.config.flow_window,
            socket_id: id,
            peer_ip: peer.ip(),
            ..asked.clone()
        };
        answer.write(&mut body);
        Extension::Response(response).write(&mut body);
        if let Some(announcement) = &announcement {
            Extension::KeyResponse(announcement).write(&mut body);
        }
        if let Some(agreed) = &filter {
            Extension::Filter(agreed.config.to_string()).write(&mut body);
        }
        // Its timestamp is the beginning of our clock.
        self.answer(now, peer, asked.socket_id, &body);
        let crypto = (crypto, self.entropy.child());
        let connection = Connection::new(now, settled, &self.config, self.pool.clone(), crypto);
        self.known.insert((peer, asked.socket_id), id);
        self.callers.insert(id, Caller { connection, answer: body, is_ready: false });
        self.note(Event::PeerConnected { peer });
    }

    fn answer(&mut self, now: Time, peer: SocketAddr, destination: u32, body: &[u8]) {
        if self.transmits.len() < ANSWERS_MAX {
            let epoch = self.known.get(&(peer, destination)).and_then(|id| self.callers.get(id));
            let epoch = epoch.map_or(now, |caller| caller.connection.settled().epoch);
            self.transmits.extend(handshake_datagram(&self.pool, peer, (epoch, now), destination, body));
        }
    }

    /// Belongs to the caller's address and the minute, `age` minutes ago.
    fn cookie(&self, now: Time, peer: SocketAddr, age: u64) -> u32 {
        let minute = (now.as_ns() / 60_000_000_000).wrapping_sub(age).to_be_bytes();
        let port = peer.port().to_be_bytes();
        match peer.ip() {
            IpAddr::V4(ip) => self.entropy.tag(&[b"cookie", &ip.octets(), &port, &minute]),
            IpAddr::V6(ip) => self.entropy.tag(&[b"cookie", &ip.octets(), &port, &minute]),
        }
    }

    fn remove(&mut self, id: u32, why: Ended) {
        let Some(caller) = self.callers.remove(&id) else { return };
        let peer = caller.connection.settled().peer;
        self.known.remove(&(peer, caller.connection.settled().peer_id));
        self.totals.add(&caller.connection);
        self.note(Event::PeerLost { peer, why: why.into() });
    }

    fn note(&mut self, event: Event) {
        if self.events.len() < EVENTS_MAX {
            self.events.push_back(event);
        }
    }

    /// Runs `run` on a caller, and notes that it may have something.
    fn with(&mut self, id: u32, run: impl FnOnce(&mut Connection)) -> bool {
        let Some(caller) = self.callers.get_mut(&id) else { return false };
        run(&mut caller.connection);
        if !caller.is_ready {
            caller.is_ready = true;
            self.ready.push(id);
        }
        if let Some(why) = caller.connection.ended() {
            self.remove(id, why);
        }
        true
    }
}

impl Core for Listener {
    fn handle_datagram(&mut self, now: Time, datagram: Datagram) {
        let Ok(header) = Header::parse(&datagram.packet) else {
            self.totals.malformed += 1;
            return;
        };
        let id = header.destination();
        if let Some(caller) = self.callers.get(&id) {
            // An id is no secret: only its owner may use it.
            if caller.connection.settled().peer == datagram.peer {
                self.with(id, |connection| connection.handle(now, &header, datagram.packet));
            } else {
                self.totals.unexpected += 1;
            }
            return;
        }
        match header {
            Header::Control(header) if header.kind == ControlKind::Handshake => {
                self.handle_handshake(now, &header, &datagram);
            }
            Header::Control(_) | Header::Data(_) => self.totals.unexpected += 1,
        }
    }

    fn handle_packet(&mut self, now: Time, packet: &Packet) {
        if self.callers.is_empty() {
            self.totals.not_connected += 1;
        }
        for (id, caller) in &mut self.callers {
            caller.connection.send(now, packet);
            if !caller.is_ready {
                caller.is_ready = true;
                self.ready.push(*id);
            }
        }
    }

    fn handle_timeout(&mut self, now: Time) {
        let is_due = |caller: &Caller| caller.connection.poll_timeout() <= now;
        let mut from = 0;
        // One after the other: a list of them would take memory for every packet.
        while let Some((&id, _)) = self.callers.range(from..).find(|(_, caller)| is_due(caller)) {
            self.with(id, |connection| connection.handle_timeout(now));
            from = id + 1;
        }
    }

    fn handle_close(&mut self, now: Time) {
        let ids: Vec<u32> = self.callers.keys().copied().collect();
        for id in ids {
            self.with(id, |connection| connection.close(now));
        }
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        if let Some(transmit) = self.transmits.pop_front() {
            return Some(transmit);
        }
        while let Some(id) = self.ready.last() {
            if let Some(caller) = self.callers.get_mut(id) {
                if let Some(transmit) = caller.connection.poll_transmit() {
                    return Some(transmit);
                }
                caller.is_ready = false;
            }
            self.ready.pop();
        }
        None
    }

    fn poll_packet(&mut self) -> Option<Packet> {
        if self.service != Service::Receive {
            return None;
        }
        self.callers.values_mut().find_map(|caller| caller.connection.poll_packet())
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn poll_timeout(&self) -> Option<Time> {
        self.callers.values().map(|caller| caller.connection.poll_timeout()).min()
    }

    fn patience(&self) -> Duration {
        self.callers.values().map(|caller| caller.connection.patience()).min().unwrap_or_default()
    }

    fn stats(&self) -> Stats {
        self.totals.stats(self.callers.values().map(|caller| &caller.connection))
    }

    fn visit_details(&self, visit: &mut dyn FnMut(&[Detail])) {
        if !self.callers.is_empty() {
            visit(&stats::libsrt(self.callers.values().map(|caller| &caller.connection)));
        }
    }
}

/// Whether a caller's stream id is, or names as its resource, the one that is served here. `#!::r=news,u=anna` is the
/// form of libsrt's access control guidelines.
fn names(given: &str, served: &str) -> bool {
    let resource =
        given.strip_prefix("#!::").and_then(|pairs| pairs.split(',').find_map(|pair| pair.strip_prefix("r=")));
    given == served || resource == Some(served)
}

/// A length as handshakes give it.
const fn key_units(length: KeyLength) -> u16 {
    (length.bytes() / 8) as u16
}

/// Handshakes answered at a time; whoever is not answered asks again.
const ANSWERS_MAX: usize = 1_024;
/// Whoever is refused calls again and again.
const REFUSALS_TOLD_APART: Duration = Duration::from_secs(1);
/// libsrt says something every second: a sender that was silent for longer may be replaced.
const TAKEOVER_SILENCE: Duration = Duration::from_millis(1_500);
