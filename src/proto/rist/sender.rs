//! Sends RIST: packets out, reports every 90 ms, and again what receivers miss.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use arrayvec::ArrayVec;

use super::config::{Config, PAYLOAD_BYTES_MAX, Profile};
use super::error::{self, Refusal};
use super::gre::{Ports, Version};
use super::history::{Budget, History};
use super::round_trip::RoundTrip;
use super::rtcp::{Echo, Feedback, Requested, write_echo_request, write_echo_response};
use super::srp::{Accounts, Role};
use super::stats::{self, Refusals};
use super::wire::{Arrival, Remote, Wire};
use crate::bus::{Packet, Pool};
use crate::proto::rtp::rtcp::{Compound, CompoundWriter, ReportBlock, Rtcp, SenderInfo};
use crate::proto::rtp::{HEADER_BYTES, Header, Numbering, SenderConfig, ntp, random::Random, ticks_at};
use crate::proto::{Core, Datagram, Detail, Done, Event, PeerEnd, Port, Stats, Surroundings, Transmit, Work};
use crate::units::{Seq, Time};

/// One of several ways to one receiver (TR-06-1 5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leg {
    /// Where it leads: in the Simple profile media goes there, and RTCP to the next port.
    pub peer: SocketAddr,
    /// What part of the packets it gets, in relation to other legs that have a weight. With zero it gets all of them.
    pub weight: u16,
}

/// Packets in, RIST datagrams out, and again what is asked for: once in a round trip each, never more of it than the
/// media itself takes, with the number and timestamp that it had (TR-06-1 5.3).
///
/// A sender that calls sends to whom its sockets are connected to, whether he answers or not. One that listens (Main
/// profile only) sends to everyone who reports to it, at most [`Sender::PEERS_MAX`]. One that bonds sends over several
/// legs; what is missing is sent again over the leg that it was asked for on.
#[derive(Debug)]
pub struct Sender {
    config: Config,
    wire: Wire,
    kind: Kind,
    unix_ns_at_zero: u64,
    /// Even: the next one marks what is sent again.
    ssrc: u32,
    numbering: Numbering,
    /// Timestamp and arrival of the latest packet: how the two clocks relate.
    latest: (u32, Time),
    peers: ArrayVec<Peer, PEERS_MAX>,
    peers_named: u32,
    history: History,
    budget: Budget,
    media: VecDeque<Outgoing>,
    /// How many peers have got the front of that already, and what it was for the one before.
    fan_out: usize,
    /// Which of the legs with a weight gets it.
    chosen: Option<u32>,
    wrapped: Option<(Version, Ports, Transmit)>,
    /// Asked for and not yet sent again: which, and to whom.
    again: VecDeque<(Seq<16>, u32)>,
    resends: VecDeque<Transmit>,
    /// Packets looked at for the requests of one datagram.
    looked_at: usize,
    control: VecDeque<Transmit>,
    /// Behind the media.
    goodbyes: VecDeque<Transmit>,
    sent: Sent,
    report_at: Option<Time>,
    reports: u32,
    keep_alive_at: Time,
    events: VecDeque<Event>,
    refusals: Refusals,
    stats: Stats,
    counts: stats::Sending,
}

/// How peers come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Calls,
    Listens,
    Bonds,
}

/// Somebody who receives, or one of several ways to him.
#[derive(Clone, Copy, Debug)]
struct Peer {
    /// Never given twice.
    name: u32,
    remote: Remote,
    address: Option<SocketAddr>,
    /// When he was last heard, if he is there.
    heard: Option<Time>,
    round_trip: RoundTrip,
    sent_at_report: Sent,
    weight: u16,
    /// How much of its share a leg has not got yet.
    credit: i32,
}

/// A packet on its way out.
#[derive(Debug)]
struct Outgoing {
    sequence: Seq<16>,
    timestamp: u32,
    payload: Packet,
}

/// What went out since the start, wrapping (RFC 3550 6.4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sent {
    packets: u32,
    octets: u32,
}

impl Sender {
    /// Most who may pull from one sender.
    pub const PEERS_MAX: usize = PEERS_MAX;

    /// A sender to whom its sockets are connected to: in the Simple profile two, in the Main profile one.
    #[must_use]
    pub fn calling(config: Config, surroundings: &Surroundings) -> Self {
        let mut sender = Self::new(config, surroundings, Kind::Calls);
        sender.add_peer(None, sender.control_port());
        sender
    }

    /// A sender over several legs, at most [`Sender::PEERS_MAX`]: further ones are left out. Its sockets are connected to
    /// nobody.
    #[must_use]
    pub fn bonding(config: Config, surroundings: &Surroundings, legs: &[Leg]) -> Self {
        let is_simple = config.profile == Profile::Simple;
        let mut sender = Self::new(config, surroundings, Kind::Bonds);
        for leg in legs.iter().take(PEERS_MAX) {
            sender.add_peer(Some(leg.peer), sender.control_port());
            if let Some(peer) = sender.peers.last_mut() {
                peer.weight = leg.weight;
                if is_simple {
                    peer.remote.control = Some(SocketAddr::new(leg.peer.ip(), leg.peer.port().wrapping_add(1)));
                }
            }
        }
        sender
    }

    /// A sender of the Main profile that waits for receivers.
    #[must_use]
    pub fn listening(config: Config, surroundings: &Surroundings) -> Self {
        Self::new(Config { profile: Profile::Main, ..config }, surroundings, Kind::Listens)
    }

    /// The same with authentication by EAP-SRP: who listens lets in whom the accounts have, who calls says who he is.
    /// Main profile only. `seed` is secret, and never the same twice.
    #[must_use]
    pub fn authenticated(mut self, accounts: Accounts, seed: [u8; 32]) -> Self {
        let role = if self.kind == Kind::Listens { Role::Server } else { Role::Client };
        self.wire.authenticate(&self.config, role, accounts, seed);
        self.peers.iter().for_each(|peer| self.wire.call(peer.remote.media));
        self
    }

    fn new(config: Config, surroundings: &Surroundings, kind: Kind) -> Self {
        let mut random = Random::new(surroundings.seed);
        let pool: Pool = surroundings.pool.clone();
        let wire = Wire::new(&config, pool, random.next(), if kind == Kind::Calls { 1 } else { PEERS_MAX });
        let ssrc = random.next() as u32 & !RETRANSMITTED;
        let (header, ssrc_of_media) = (config.header, Some(ssrc));
        let numbers = SenderConfig {
            header,
            ssrc: ssrc_of_media,
            payload_bytes_max: PAYLOAD_BYTES_MAX,
            ..SenderConfig::default()
        };
        Self {
            wire,
            kind,
            unix_ns_at_zero: surroundings.unix_ns_at_zero,
            ssrc,
            numbering: Numbering::new(&numbers, &mut random),
            latest: (0, Time::ZERO),
            peers: ArrayVec::new(),
            peers_named: 0,
            history: History::default(),
            budget: Budget::new(config.bandwidth),
            media: VecDeque::new(),
            fan_out: 0,
            chosen: None,
            wrapped: None,
            again: VecDeque::new(),
            resends: VecDeque::new(),
            looked_at: 0,
            control: VecDeque::new(),
            goodbyes: VecDeque::new(),
            sent: Sent::default(),
            report_at: Some(Time::ZERO),
            reports: 0,
            keep_alive_at: Time::ZERO,
            events: VecDeque::new(),
            refusals: Refusals::default(),
            stats: Stats { peers: Some(0), ..Stats::default() },
            counts: stats::Sending::default(),
            config,
        }
    }

    const fn control_port(&self) -> u16 {
        self.config.virtual_port | 1
    }

    /// Ours are those that librist has.
    fn add_peer(&mut self, address: Option<SocketAddr>, their_control: u16) {
        let media = Ports { source: OWN_MEDIA_PORT, destination: self.config.virtual_port };
        let control = Ports { source: OWN_CONTROL_PORT, destination: their_control };
        self.peers_named += 1;
        self.peers.push(Peer {
            name: self.peers_named,
            remote: Remote::new(address, media, control),
            address,
            heard: None,
            round_trip: RoundTrip::new(self.config.round_trip),
            sent_at_report: Sent::default(),
            weight: 0,
            credit: 0,
        });
    }

    /// Numbers a packet, or its parts, and has them sent.
    fn enqueue(&mut self, now: Time, packet: &Packet) {
        let timestamp = self.numbering.timestamp(&packet.meta);
        self.latest = (timestamp, packet.meta.arrival);
        let Self { numbering, sent, budget, history, media, config, .. } = self;
        let age = config.buffer + config.round_trip.1;
        numbering.number(packet, |sequence, payload| {
            sent.packets = sent.packets.wrapping_add(1);
            sent.octets = sent.octets.wrapping_add(payload.len() as u32);
            budget.add_media(now, payload.len());
            history.push(now, sequence, timestamp, payload.clone(), age);
            media.push_back(Outgoing { sequence, timestamp, payload });
        });
    }

    /// SR and SDES, or an empty RR in place of the SR when nothing was sent since the last (RFC 3550 6.4).
    fn compound(&mut self, now: Time, peer: usize) -> CompoundWriter {
        let writer = self.wire.writer();
        let is_first = self.reports <= START_REPORTS;
        let writer = if self.sent != self.peers[peer].sent_at_report || is_first {
            let (timestamp, arrival) = self.latest;
            let info = SenderInfo {
                ntp: ntp::ntp_at(self.unix_ns_at_zero, now),
                rtp_timestamp: timestamp.wrapping_add(ticks_at(now).wrapping_sub(ticks_at(arrival))),
                packets: self.sent.packets,
                octets: self.sent.octets,
            };
            writer.sender_report(self.ssrc, &info, &[])
        } else {
            writer.receiver_report(self.ssrc, &[])
        };
        self.peers[peer].sent_at_report = self.sent;
        writer.cname(self.ssrc, &self.config.cname)
    }

    /// Reports to everybody, with an echo, and looks who is gone.
    fn report(&mut self, now: Time) {
        self.reports = self.reports.saturating_add(1);
        let interval = if self.reports < START_REPORTS { START_INTERVAL } else { REPORT_INTERVAL };
        self.report_at = Some(now + interval);
        let is_start = self.reports <= START_REPORTS;
        let keeps_alive = self.wire.has_tunnel() && (is_start || self.keep_alive_at <= now);
        if keeps_alive {
            self.keep_alive_at = now + self.config.keep_alive;
        }
        for peer in 0..self.peers.len() {
            if keeps_alive {
                self.keep_alive(now, peer, false);
            }
            let writer = self.compound(now, peer);
            let compound = write_echo_request(writer, self.ssrc, now.as_ns());
            self.send_control(now, peer, compound);
        }
        self.expire(now);
    }

    /// Until the peer has shown what he understands he gets both kinds.
    fn keep_alive(&mut self, now: Time, peer: usize, leaves: bool) {
        let remote = self.peers[peer].remote;
        if self.peers[peer].heard.is_none() && remote.version != Version::V2 {
            let both = self.wire.keep_alive(now, &remote, Version::V2, leaves);
            self.push_control(both);
        }
        let alive = self.wire.keep_alive(now, &remote, remote.version, leaves);
        self.push_control(alive);
    }

    fn send_control(&mut self, now: Time, peer: usize, compound: CompoundWriter) {
        let transmit = self.wire.control(now, &self.peers[peer].remote, compound);
        self.push_control(transmit);
    }

    fn push_control(&mut self, transmit: Option<Transmit>) {
        let Some(transmit) = transmit else {
            self.stats.no_buffer += 1;
            return;
        };
        if self.control.len() >= CONTROL_MAX {
            self.control.pop_front();
            self.stats.overflow += 1;
        }
        self.control.push_back(transmit);
    }

    fn expire(&mut self, now: Time) {
        let timeout = self.config.session_timeout;
        for at in (0..self.peers.len()).rev() {
            if self.peers[at].heard.is_some_and(|heard| now.since(heard) > timeout) {
                self.lose(at, error::SILENT);
            }
        }
    }

    /// Whom we call stays, in case he comes back.
    fn lose(&mut self, at: usize, why: PeerEnd) {
        let peer = &mut self.peers[at];
        if peer.heard.take().is_some()
            && let Some(peer) = peer.address
        {
            self.tell(Event::PeerLost { peer, why });
        }
        if self.kind == Kind::Listens {
            self.peers.remove(at);
            if at < self.fan_out {
                self.fan_out -= 1;
            }
        }
    }

    fn handle_tunnel(&mut self, now: Time, datagram: Datagram) {
        let peer = datagram.peer;
        let mut version = None;
        let arrival = match self.wire.unwrap(now, datagram, None, &mut version) {
            Ok(arrival) => arrival,
            Err(refusal) => return self.refuse(now, peer, refusal),
        };
        let known = self.find(peer);
        if let (Some(at), Some(version)) = (known, version) {
            self.peers[at].remote.hear(version);
        }
        match arrival {
            Arrival::Control(packet, port) => {
                let at = known.or_else(|| self.welcome(now, peer, port, &packet));
                let Some(at) = at else { return };
                if let Some(version) = version {
                    self.peers[at].remote.hear(version);
                }
                self.peers[at].remote.control_ports.destination = port.unwrap_or_else(|| self.control_port());
                self.handle_control(now, at, peer, &packet);
            }
            Arrival::KeepAlive { leaves: true } => known.into_iter().for_each(|at| self.lose(at, error::LEFT)),
            Arrival::KeepAlive { leaves: false } => {
                let heard = known.and_then(|at| self.peers[at].heard.as_mut());
                heard.into_iter().for_each(|heard| *heard = now);
            }
            Arrival::Media(_) => self.stats.unexpected += 1,
            Arrival::Nothing => {}
        }
    }

    /// Who sends from there.
    fn find(&self, address: SocketAddr) -> Option<usize> {
        if self.kind == Kind::Calls {
            return Some(0);
        }
        self.peers.iter().position(|peer| [peer.remote.media, peer.remote.control].contains(&Some(address)))
    }

    /// Somebody who reports, and who is not known yet.
    fn welcome(&mut self, now: Time, peer: SocketAddr, port: Option<u16>, compound: &Packet) -> Option<usize> {
        if !Compound::new(compound).all(|packet| packet.is_ok()) {
            self.stats.malformed += 1;
            return None;
        }
        if self.peers.is_full() || self.kind != Kind::Listens {
            self.stats.unexpected += 1;
            let told = self.refusals.tell_datagram(now, peer, error::FULL);
            told.into_iter().for_each(|event| self.tell(event));
            return None;
        }
        self.add_peer(Some(peer), port.unwrap_or_else(|| self.control_port()));
        // He is told at once who sends.
        self.report_at = Some(now);
        Some(self.peers.len() - 1)
    }

    fn refuse(&mut self, now: Time, peer: SocketAddr, refusal: Refusal) {
        self.refusals.count(refusal, &mut self.stats);
        let told = self.refusals.tell(now, peer, refusal);
        told.into_iter().for_each(|event| self.tell(event));
    }

    fn tell_logins(&mut self, now: Time) {
        while let Some((peer, why)) = self.wire.poll_refusal() {
            let told = self.refusals.tell_login(now, peer, why);
            told.into_iter().for_each(|event| self.tell(event));
        }
    }

    fn handle_control(&mut self, now: Time, at: usize, address: SocketAddr, compound: &Packet) {
        let mut is_left = false;
        for packet in Compound::new(compound) {
            match packet {
                Ok(Rtcp::SenderReport { reports, .. } | Rtcp::ReceiverReport { reports, .. }) => {
                    self.hear(now, at, address);
                    if let Some(block) = reports.iter().find(|block| block.ssrc & !RETRANSMITTED == self.ssrc) {
                        self.stats.peer_fraction_lost = Some(block.fraction_lost);
                        self.measure(now, at, compound.meta.arrival, &block);
                    }
                }
                Ok(Rtcp::Other { packet_type, count, body }) => match Feedback::parse(packet_type, count, body) {
                    Ok(feedback) => self.handle_feedback(now, at, compound.meta.arrival, feedback),
                    Err(_) => self.stats.malformed += 1,
                },
                Ok(Rtcp::Goodbye(_)) => is_left = true,
                Ok(Rtcp::SourceDescription(_)) => {}
                Err(_) => self.stats.malformed += 1,
            }
        }
        if is_left {
            self.lose(at, error::LEFT);
        }
    }

    /// A receiver without echoes says when our last report came and how long he kept it (RFC 3550 6.4.1).
    fn measure(&mut self, now: Time, at: usize, arrival: Time, block: &ReportBlock) {
        let arrival = ntp::middle(ntp::ntp_at(self.unix_ns_at_zero, arrival));
        let span = arrival.wrapping_sub(block.last_sr).wrapping_sub(block.since_last_sr).cast_signed();
        // Rounding on both sides may put a short round trip just below zero.
        if block.last_sr != 0 && (-2..REPORT_SPAN_MAX).contains(&span) {
            self.peers[at].round_trip.answer(now, ntp::span_from_short(span.max(0).cast_unsigned()));
        }
    }

    fn hear(&mut self, now: Time, at: usize, address: SocketAddr) {
        let peer = &mut self.peers[at];
        peer.address = Some(address);
        if peer.heard.replace(now).is_none() {
            self.tell(Event::PeerConnected { peer: address });
        }
    }

    fn handle_feedback(&mut self, now: Time, at: usize, arrival: Time, feedback: Feedback<'_>) {
        match feedback {
            Feedback::Request { ssrc, missing } if ssrc & !RETRANSMITTED == self.ssrc => {
                self.request(now, at, missing);
                self.send_again(now);
            }
            Feedback::EchoRequest(echo) => self.answer(now, at, arrival, echo),
            Feedback::EchoResponse(echo) if echo.ssrc == self.ssrc => {
                let took = arrival.since(Time::from_ns(echo.timestamp));
                if took < ECHO_MAX {
                    self.peers[at]
                        .round_trip
                        .echo(now, took.saturating_sub(Duration::from_micros(echo.delay_us.into())));
                }
            }
            Feedback::Request { .. } | Feedback::EchoResponse(_) => self.stats.unexpected += 1,
            // Numbers of 16 bits reach for all that is kept.
            Feedback::UpperHalf { .. } | Feedback::Other => {}
        }
    }

    /// What is there, and not on its way already, is queued.
    fn request(&mut self, now: Time, at: usize, missing: Requested<'_>) {
        let Peer { name, round_trip, .. } = self.peers[at];
        // Measured from our side it may be a little longer than the peer takes to ask again.
        let spacing = round_trip.measured().map_or(SPACING_UNKNOWN, |span| span * 3 / 4);
        for (first, count) in missing.runs() {
            let (start, there) = self.history.overlap(first, count);
            self.counts.requested += u64::from(count);
            self.counts.unavailable += u64::from(count - there);
            for n in 0..there {
                self.looked_at += 1;
                if self.again.len() >= AGAIN_MAX || self.looked_at > LOOKED_AT_MAX {
                    self.counts.over_budget += u64::from(there - n);
                    break;
                }
                match self.history.want(now, start.add(n), name, spacing) {
                    Some(true) => self.again.push_back((start.add(n), name)),
                    Some(false) => self.counts.too_soon += 1,
                    None => self.counts.unavailable += 1,
                }
            }
        }
    }

    fn answer(&mut self, now: Time, at: usize, arrival: Time, echo: Echo) {
        if self.control.len() >= CONTROL_MAX / 2 {
            // Nobody needs more than a few in a moment.
            self.stats.overflow += 1;
            return;
        }
        let delay_us = u32::try_from(now.since(arrival).as_micros()).unwrap_or(u32::MAX);
        let writer = self.wire.writer().receiver_report(self.ssrc, &[]).cname(self.ssrc, &self.config.cname);
        self.send_control(now, at, write_echo_response(writer, echo, delay_us));
    }

    /// The next datagram with media: each packet goes to every peer.
    fn poll_media(&mut self) -> Option<Transmit> {
        loop {
            let Outgoing { sequence, timestamp, payload } = self.media.front()?;
            let (sequence, timestamp, payload) = (*sequence, *timestamp, payload.clone());
            if self.fan_out == 0 {
                self.chosen = self.choose();
            }
            let Some(peer) = self.peers.get(self.fan_out) else {
                (self.fan_out, self.wrapped) = (0, None);
                self.media.pop_front();
                continue;
            };
            let remote = peer.remote;
            self.fan_out += 1;
            let is_chosen = peer.weight == 0 || self.chosen == Some(peer.name);
            if !is_chosen || !self.wire.lets_out(&remote) {
                continue;
            }
            let header = self.header(sequence, timestamp, payload.meta.discontinuity, 0);
            // Peers that are spoken to alike get the same datagram, encrypted once.
            let is_alone = self.wire.seals_alone(&remote);
            let alike = |(version, ports, _): &(Version, Ports, Transmit)| {
                !is_alone && (*version, *ports) == (remote.version, remote.media_ports)
            };
            if let Some((_, _, transmit)) = self.wrapped.as_ref().filter(|wrapped| alike(wrapped)) {
                return Some(Transmit { to: remote.media, ..transmit.clone() });
            }
            let Some(transmit) = self.wire.media(&remote, header, payload) else {
                self.stats.no_buffer += 1;
                continue;
            };
            if self.peers.len() > 1 && !is_alone {
                self.wrapped = Some((remote.version, remote.media_ports, transmit.clone()));
            }
            return Some(transmit);
        }
    }

    /// Which leg with a weight gets the next packet: each as often as its weight says, and evenly in between. Those that
    /// are not heard get nothing while others are.
    fn choose(&mut self) -> Option<u32> {
        let is_any_heard = self.peers.iter().any(|peer| peer.weight > 0 && peer.heard.is_some());
        let may = |peer: &&mut Peer| peer.weight > 0 && (peer.heard.is_some() || !is_any_heard);
        let mut total = 0;
        for peer in self.peers.iter_mut().filter(may) {
            peer.credit += i32::from(peer.weight);
            total += i32::from(peer.weight);
        }
        let chosen = self.peers.iter_mut().filter(may).max_by_key(|peer| peer.credit)?;
        chosen.credit -= total;
        Some(chosen.name)
    }

    /// Sends again what was asked for, as far as there is room for it now.
    fn send_again(&mut self, now: Time) {
        while self.resends.len() < RESENDS_MAX && self.budget.allows(now) {
            let Some((sequence, name)) = self.again.pop_front() else { return };
            let Some(peer) = self.peers.iter().find(|peer| peer.name == name) else { continue };
            let remote = peer.remote;
            let Some((timestamp, payload)) = self.history.take(now, sequence, name) else {
                self.counts.unavailable += 1;
                continue;
            };
            self.budget.spend(payload.len());
            let header = self.header(sequence, timestamp, payload.meta.discontinuity, RETRANSMITTED);
            match self.wire.media(&remote, header, payload) {
                Some(transmit) => {
                    self.counts.retransmitted += 1;
                    self.resends.push_back(transmit);
                }
                None => self.stats.no_buffer += 1,
            }
        }
    }

    /// `ssrc_bit` is added to the SSRC; the marker is that of a discontinuity (RFC 2250 2.1).
    fn header(&self, sequence: Seq<16>, timestamp: u32, marker: bool, ssrc_bit: u32) -> [u8; HEADER_BYTES] {
        let header = self.numbering.header(sequence, timestamp);
        Header { marker, ssrc: header.ssrc | ssrc_bit, ..header }.to_bytes()
    }

    fn tell(&mut self, event: Event) {
        if self.events.len() < EVENTS_MAX {
            self.events.push_back(event);
        } else {
            self.stats.overflow += 1;
        }
    }
}

impl Core for Sender {
    fn handle_datagram(&mut self, now: Time, datagram: Datagram) {
        self.looked_at = 0;
        if self.wire.has_tunnel() {
            self.handle_tunnel(now, datagram);
            return self.tell_logins(now);
        }
        if datagram.port == Port::Media {
            self.stats.unexpected += 1;
            return;
        }
        match self.find(datagram.peer) {
            Some(at) => self.handle_control(now, at, datagram.peer, &datagram.packet),
            None => self.stats.unexpected += 1,
        }
    }

    fn handle_packet(&mut self, now: Time, packet: &Packet) {
        if self.reports == 0 {
            // Some take no media from whom they have not heard (librist).
            self.report(now);
        }
        if !self.peers.iter().any(|peer| self.wire.lets_out(&peer.remote)) {
            self.stats.not_connected += 1;
            return;
        }
        if self.media.len() >= QUEUE_MAX {
            self.stats.overflow += 1;
            return;
        }
        self.stats.received += 1;
        self.enqueue(now, packet);
    }

    fn handle_timeout(&mut self, now: Time) {
        if self.report_at.is_some_and(|at| at <= now) {
            self.report(now);
        }
        self.send_again(now);
        self.wire.handle_timeout(now);
        self.tell_logins(now);
    }

    /// A last report with BYE (RFC 3550 6.6), behind what was handed in before.
    fn handle_close(&mut self, now: Time) {
        for peer in 0..self.peers.len() {
            let goodbye = self.compound(now, peer).goodbye(self.ssrc);
            let remote = self.peers[peer].remote;
            self.goodbyes.extend(self.wire.control(now, &remote, goodbye));
            self.goodbyes.extend(self.wire.keep_alive(now, &remote, remote.version, true));
        }
        self.report_at = None;
        self.again.clear();
        self.history.clear();
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        let first = self.wire.poll_login().or_else(|| self.control.pop_front()).or_else(|| self.poll_media());
        first.or_else(|| self.resends.pop_front()).or_else(|| self.goodbyes.pop_front())
    }

    fn poll_packet(&mut self) -> Option<Packet> {
        None
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn poll_work(&mut self) -> Option<Work> {
        self.wire.poll_work()
    }

    fn handle_done(&mut self, now: Time, done: Done) {
        for datagram in self.wire.handle_done(now, done) {
            self.handle_datagram(now, datagram);
        }
        self.tell_logins(now);
    }

    fn poll_timeout(&self) -> Option<Time> {
        let has_room = self.resends.len() < RESENDS_MAX;
        let again = (has_room && !self.again.is_empty()).then(|| self.budget.ready_at());
        [self.report_at, again, self.wire.poll_timeout()].into_iter().flatten().min()
    }

    fn patience(&self) -> Duration {
        self.config.patience()
    }

    fn stats(&self) -> Stats {
        let connected = self.peers.iter().filter(|peer| peer.heard.is_some());
        let round_trip = connected.clone().filter_map(|peer| peer.round_trip.measured()).max();
        let overflow = self.stats.overflow + self.wire.refused()[1];
        Stats { peers: Some(connected.count() as u32), round_trip, overflow, ..self.stats }
    }

    fn visit_details(&self, visit: &mut dyn FnMut(&[Detail])) {
        visit(&self.counts.details(self.stats().round_trip, &self.refusals, self.wire.refused()[0]));
    }
}

/// The lowest bit of the SSRC marks packets that are sent again (TR-06-1 5.3.3).
pub(super) const RETRANSMITTED: u32 = 1;

/// Time between two reports: never more than 100 ms (TR-06-1 5.2.1), with some room for being late.
pub(super) const REPORT_INTERVAL: Duration = Duration::from_millis(90);
/// The first reports go sooner: each may get lost, and no media counts before one has come (librist).
const START_REPORTS: u32 = 3;
const START_INTERVAL: Duration = Duration::from_millis(10);
/// How long nothing is sent twice, while nobody knows how far away the peer is. Judgement: less than anyone waits.
const SPACING_UNKNOWN: Duration = Duration::from_millis(8);
/// Echoes that took longer say nothing about the path.
pub(super) const ECHO_MAX: Duration = Duration::from_secs(10);
/// The same in units of 1/65,536 s.
const REPORT_SPAN_MAX: i32 = 10 << 16;
/// Virtual ports that librist has on its side.
const OWN_MEDIA_PORT: u16 = 32_769;
const OWN_CONTROL_PORT: u16 = 32_768;

/// Judgement: whoever has more to serve has other means than copying.
const PEERS_MAX: usize = 16;
/// Packets that may wait for whoever drains the core. Whoever runs it drains after every batch, which is shorter.
const QUEUE_MAX: usize = 1_024;
/// Reports and answers that may wait: three to each peer.
const CONTROL_MAX: usize = 64;
/// Numbers that may wait to be sent again, and datagrams that wait with them.
const AGAIN_MAX: usize = 16_384;
const RESENDS_MAX: usize = 256;
/// Packets that the requests of one datagram may ask for. Judgement: as many as may wait; all ranges that fit into one
/// would be millions, again and again the same.
const LOOKED_AT_MAX: usize = AGAIN_MAX;
/// Judgement: nobody reads a longer list.
pub(super) const EVENTS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::super::rtcp::write_request;
    use super::*;
    use crate::bus::{Meta, PoolLimits};
    use crate::proto::rist::rtcp::RequestFormat;

    #[test]
    fn a_flood_of_requests_costs_no_more_than_one_round_of_packets() {
        let pool = Pool::new(PoolLimits::default());
        let surroundings = Surroundings { pool: pool.clone(), seed: 1, unix_ns_at_zero: 0 };
        let config = Config { profile: Profile::Simple, ..Config::default() };
        let mut sender = Sender::calling(config, &surroundings);
        let mut now = Time::ZERO;
        for _ in 0..2_000 {
            now += Duration::from_micros(100);
            sender.handle_packet(now, &pool.copy(&[0x47; 188], Meta { arrival: now, ..Meta::default() }).unwrap());
            while sender.poll_transmit().is_some() {}
        }
        let mut compound = CompoundWriter::default().receiver_report(9, &[]);
        for _ in 0..16 {
            // All numbers that there are, sixteen times.
            compound = write_request(compound, RequestFormat::Range, (9, sender.ssrc), &[(0, 65_536); 16]).0;
        }
        let packet = pool.copy(&compound.into_bytes(), Meta { arrival: now, ..Meta::default() }).unwrap();
        let peer = SocketAddr::from(([192, 0, 2, 1], 5_001));
        sender.handle_datagram(now, Datagram { port: Port::Control, peer, packet });
        assert!(sender.looked_at <= LOOKED_AT_MAX + 256, "{}", sender.looked_at);
        assert!(sender.again.len() <= 2_000);
        let mut again = 0;
        while sender.poll_transmit().is_some() {
            again += 1;
        }
        // The first burst; the rest follows at the pace of the media.
        assert!((10..300).contains(&again), "{again}");
        assert!(sender.counts.over_budget > 100_000, "{:?}", sender.counts);
    }

    #[test]
    fn a_packet_sent_again_has_its_number_and_timestamp_and_the_mark() {
        let pool = Pool::new(PoolLimits::default());
        let surroundings = Surroundings { pool: pool.clone(), seed: 1, unix_ns_at_zero: 0 };
        let config = Config { profile: Profile::Simple, ..Config::default() };
        let mut sender = Sender::calling(config, &surroundings);
        let packet = pool.copy(&[0x47; 188], Meta::default()).unwrap();
        sender.handle_packet(Time::ZERO, &packet);
        let media = |sender: &mut Sender| loop {
            let transmit = sender.poll_transmit().unwrap();
            if transmit.port == Port::Media {
                break transmit.header;
            }
        };
        let first = media(&mut sender);
        let number = u64::from(u16::from_be_bytes([first[2], first[3]]));
        let now = Time::ZERO + Duration::from_millis(50);
        let writer = CompoundWriter::default().receiver_report(9, &[]);
        // Whoever asks may have the mark in the SSRC or not.
        let (writer, _) = write_request(writer, RequestFormat::Bitmask, (9, sender.ssrc | 1), &[(number, 1)]);
        let packet = pool.copy(&writer.into_bytes(), Meta { arrival: now, ..Meta::default() }).unwrap();
        let peer = SocketAddr::from(([192, 0, 2, 1], 5_001));
        sender.handle_datagram(now, Datagram { port: Port::Control, peer, packet });
        let again = media(&mut sender);
        assert_eq!((&again[..11], again[11]), (&first[..11], first[11] | 1));
        assert_eq!(first[11] & 1, 0);
    }
}
