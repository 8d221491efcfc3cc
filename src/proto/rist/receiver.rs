//! Receives RIST: puts packets in order, asks for what is missing, releases each when it is due.
//!
//! ```text
//!            first packet                 same SSRC, near the latest number
//!  waiting ---------------> receiving <---------------------------------------+
//!                               |  another SSRC, or a number far away         |
//!                               v                                             |
//!                           on probation --- the next number of the same SSRC +  (Restarted)
//! ```
//!
//! A sender that starts over loses nothing that had come before: it is released when it is due, and what comes then
//! behind it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use super::config::{Config, Profile};
use super::error::{self, Refusal};
use super::gre::{Ports, Version};
use super::npd;
use super::playout::Playout;
use super::round_trip::RoundTrip;
use super::rtcp::{Echo, Feedback, RequestFormat, Run, write_echo_request, write_echo_response, write_request};
use super::sender::{ECHO_MAX, EVENTS_MAX, REPORT_INTERVAL, RETRANSMITTED};
use super::srp::{Accounts, Role};
use super::stats::{self, Refusals};
use super::window::{Insertion, SLOTS_MAX, Window};
use super::wire::{Arrival, Remote, Wire};
use crate::bus::{Packet, Pool};
use crate::proto::rtp::rtcp::{Compound, CompoundWriter, Rtcp};
use crate::proto::rtp::{Header, RtpPacket, random::Random, source::Source};
use crate::proto::{Core, Datagram, Detail, Done, Event, PeerEnd, Stats, Surroundings, Transmit, Work};
use crate::units::Time;

/// RIST datagrams in, payload out: in order, each packet once, and each the buffer's length after it would have come
/// over the same path without being held up.
///
/// Has an SSRC of its own for its reports: a receiver that takes the sender's is taken for a collision (GStreamer).
/// Packets leave with their extended sequence number, which never goes back, and with their RTP timestamp.
#[derive(Debug)]
pub struct Receiver {
    config: Config,
    wire: Wire,
    pool: Pool,
    random: Random,
    /// Our own, in reports.
    ssrc: u32,
    calls: bool,
    /// Who sends, as far as he has been heard.
    remote: Option<Remote>,
    address: Option<SocketAddr>,
    heard: Option<Time>,
    round_trip: RoundTrip,
    source: Option<Source>,
    probation: Option<Arrived>,
    window: Window,
    playout: Playout,
    /// Of a sender's life before this, with when they are due.
    drained: VecDeque<(Time, Packet)>,
    released: VecDeque<(Time, Packet)>,
    packets: VecDeque<Packet>,
    last_due: Time,
    /// The lowest number of a life of the sender of which nothing has left yet: its first packet is a discontinuity.
    begins_at: Option<u64>,
    released_at: Time,
    report_at: Option<Time>,
    keep_alive_at: Time,
    requests: (Vec<u64>, Vec<Run>),
    /// What may have been sent before the first packet that came is asked for as well: from where on, when, how often.
    before: Option<(u64, Time, u32)>,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
    refusals: Refusals,
    stats: Stats,
    counts: stats::Receiving,
}

/// A packet and the header that was taken off it.
#[derive(Debug)]
struct Arrived {
    /// Its SSRC without the mark.
    header: Header,
    is_again: bool,
    peer: SocketAddr,
    packet: Packet,
}

impl Receiver {
    /// A receiver that waits for a sender.
    #[must_use]
    pub fn listening(config: Config, surroundings: &Surroundings) -> Self {
        Self::new(config, surroundings, false)
    }

    /// A receiver of the Main profile that asks whom its socket is connected to for his stream.
    #[must_use]
    pub fn calling(config: Config, surroundings: &Surroundings) -> Self {
        let mut receiver = Self::new(Config { profile: Profile::Main, ..config }, surroundings, true);
        receiver.remote = Some(receiver.new_remote(None));
        receiver.report_at = Some(Time::ZERO);
        receiver
    }

    /// The same with authentication by EAP-SRP: who listens lets in whom the accounts have, who calls says who he is.
    /// Main profile only. `seed` is secret, and never the same twice.
    #[must_use]
    pub fn authenticated(mut self, accounts: Accounts, seed: [u8; 32]) -> Self {
        let role = if self.calls { Role::Client } else { Role::Server };
        self.wire.authenticate(&self.config, role, accounts, seed);
        if self.calls {
            self.wire.call(None);
        }
        self
    }

    fn new(config: Config, surroundings: &Surroundings, calls: bool) -> Self {
        let mut random = Random::new(surroundings.seed);
        let pool = surroundings.pool.clone();
        Self {
            // A sender before this one may still have a key.
            wire: Wire::new(&config, pool.clone(), random.next(), 2),
            pool,
            ssrc: random.next() as u32,
            random,
            calls,
            remote: None,
            address: None,
            heard: None,
            round_trip: RoundTrip::new(config.round_trip),
            source: None,
            probation: None,
            window: Window::new(0),
            playout: Playout::new(config.buffer),
            drained: VecDeque::new(),
            released: VecDeque::new(),
            packets: VecDeque::new(),
            last_due: Time::ZERO,
            begins_at: None,
            released_at: Time::ZERO,
            report_at: None,
            keep_alive_at: Time::ZERO,
            requests: (Vec::new(), Vec::new()),
            before: None,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            refusals: Refusals::default(),
            stats: Stats { peers: Some(0), ..Stats::default() },
            counts: stats::Receiving::default(),
            config,
        }
    }

    const fn new_remote(&self, address: Option<SocketAddr>) -> Remote {
        let own = self.config.virtual_port | 1;
        let media = Ports { source: self.config.virtual_port, destination: THEIR_CONTROL_PORT | 1 };
        Remote::new(address, media, Ports { source: own, destination: THEIR_CONTROL_PORT })
    }

    fn handle_media(&mut self, now: Time, peer: SocketAddr, packet: Packet) {
        let arrived = match self.parse(peer, packet) {
            Ok(arrived) => arrived,
            Err(counter) => {
                *counter += 1;
                return;
            }
        };
        if self.packets.len() >= SLOTS_MAX {
            self.stats.overflow += 1;
            return;
        }
        let header = &arrived.header;
        match &self.source {
            Some(source) if source.ssrc() != header.ssrc && arrived.is_again => self.stats.unexpected += 1,
            Some(source) if source.ssrc() != header.ssrc => self.probe(now, arrived),
            Some(source)
                if arrived.is_again
                    || source.is_near(header.sequence)
                    || self.playout.is_straggler(header.timestamp, arrived.packet.meta.arrival) =>
            {
                self.accept(now, arrived);
            }
            Some(_) => self.probe(now, arrived),
            None if arrived.is_again => self.stats.unexpected += 1,
            None => {
                self.start(now, &arrived);
                self.accept(now, arrived);
            }
        }
    }

    /// Takes the header off, and puts null packets back; or says which counter this is a case of.
    fn parse(&mut self, peer: SocketAddr, packet: Packet) -> Result<Arrived, &mut u64> {
        let Ok(rtp) = RtpPacket::parse(&packet) else { return Err(&mut self.stats.malformed) };
        let (mut header, payload) = (rtp.header, rtp.payload_range());
        let extension = rtp.extension().and_then(|(profile, bytes)| npd::Extension::parse(profile, bytes));
        let is_again = header.ssrc & RETRANSMITTED != 0;
        header.ssrc &= !RETRANSMITTED;
        let packet = match extension.filter(|extension| extension.nulls != 0) {
            None => packet.into_slice(payload),
            Some(extension) => {
                let Ok(len) = npd::expanded_len(rtp.payload(), extension) else {
                    return Err(&mut self.stats.malformed);
                };
                let Some(mut buffer) = self.pool.take(len) else { return Err(&mut self.stats.no_buffer) };
                npd::expand(rtp.payload(), extension, &mut buffer[..len]);
                Packet::new(buffer, 0..len, packet.meta)
            }
        };
        Ok(Arrived { header, is_again, peer, packet })
    }

    /// Takes a packet of the present source in.
    fn accept(&mut self, now: Time, arrived: Arrived) {
        let Some(source) = &mut self.source else { return };
        let Arrived { header, is_again, peer, mut packet } = arrived;
        let arrival = packet.meta.arrival;
        let sequence = source.place(header.sequence);
        let is_ahead = sequence >= self.window.end();
        if is_again && is_ahead {
            // Nobody asks for what he does not know of.
            self.stats.unexpected += 1;
            return;
        }
        if !is_again {
            if self.probation.take().is_some() {
                self.stats.unexpected += 1;
            }
            source.count(&header, arrival);
        }
        self.counts.retransmitted += u64::from(is_again);
        let due = if is_ahead {
            self.playout.due(header.timestamp, arrival)
        } else {
            self.playout.due_of_old(header.timestamp, arrival)
        };
        packet.meta.sequence = Some(sequence);
        packet.meta.rtp_timestamp = Some(header.timestamp);
        let ask_at = now + self.first_wait();
        let insertion = self.window.insert(sequence, due, packet, ask_at, &mut self.released);
        self.count(now, insertion);
        self.hear(now, peer, true);
    }

    fn count(&mut self, now: Time, insertion: Insertion) {
        self.stats.received += 1;
        match insertion {
            Insertion::Ahead => {}
            Insertion::Reordered => self.stats.reordered += 1,
            Insertion::Recovered { asked, asked_at } => {
                self.stats.recovered += 1;
                if asked == 1 {
                    self.counts.recovered_at_once += 1;
                    self.round_trip.answer(now, now.since(asked_at));
                }
            }
            Insertion::Duplicate => self.stats.duplicate += 1,
            Insertion::Late => self.stats.late += 1,
        }
    }

    /// How long a packet may merely be late: half a round trip as well, but never so long that asking could come too
    /// late.
    fn first_wait(&self) -> Duration {
        let wait = self.config.reorder.max(self.round_trip.measured().unwrap_or_default() / 2);
        wait.min(self.config.buffer / 4)
    }

    /// A packet that does not continue the stream: two in a row are believed.
    fn probe(&mut self, now: Time, arrived: Arrived) {
        match self.probation.take() {
            Some(first)
                if first.header.ssrc == arrived.header.ssrc
                    && first.header.sequence.add(1) == arrived.header.sequence =>
            {
                let same_run = self.source.as_ref().is_some_and(|source| {
                    source.ssrc() == first.header.ssrc && source.is_same_run(&first.header, first.packet.meta.arrival)
                });
                if !same_run {
                    self.start(now, &first);
                }
                self.accept(now, first);
                self.accept(now, arrived);
            }
            other => {
                self.stats.unexpected += u64::from(other.is_some());
                self.probation = Some(arrived);
            }
        }
    }

    /// A new life of the sender begins with `arrived`.
    fn start(&mut self, now: Time, arrived: &Arrived) {
        let before = self.source.take();
        let source = Source::new(&arrived.header, arrived.packet.meta.arrival, before.as_ref());
        let first = source.first_sequence();
        self.window.restart(first, &mut self.drained);
        let lowest = first - u64::from(BEFORE);
        self.before = Some((lowest, now + self.first_wait(), 0));
        self.begins_at = Some(lowest);
        // Two lives within one buffer: the first of them has waited for long enough.
        while self.drained.len() > SLOTS_MAX {
            self.released.extend(self.drained.pop_front());
            self.stats.overflow += 1;
        }
        self.source = Some(source);
        self.playout.restart();
        // RFC 3550 8.2: whoever sees his own SSRC takes another one.
        while self.ssrc & !RETRANSMITTED == arrived.header.ssrc {
            self.ssrc = self.random.next() as u32;
        }
        if let Some(before) = before {
            self.tell(Event::Restarted { from: before.ssrc(), to: arrived.header.ssrc });
        }
    }

    /// The sender is there. Media comes from one of his ports and reports from another.
    fn hear(&mut self, now: Time, peer: SocketAddr, is_media: bool) {
        if !self.calls {
            let mut remote = self.remote.unwrap_or_else(|| {
                // RFC 3550 11: until he shows another, the port after that of the media.
                let after = peer.port().checked_add(1).map(|port| SocketAddr::new(peer.ip(), port));
                Remote { control: after, ..self.new_remote(Some(peer)) }
            });
            if self.wire.has_tunnel() || is_media {
                remote.media = Some(peer);
            }
            if !is_media {
                remote.control = Some(peer);
            }
            self.remote = Some(remote);
        }
        self.address = Some(peer);
        if self.heard.replace(now).is_none() {
            self.report_at = Some(self.report_at.unwrap_or(now).min(now));
            self.tell(Event::PeerConnected { peer });
        }
    }

    fn lose(&mut self, why: PeerEnd) {
        if self.heard.take().is_some()
            && let Some(peer) = self.address
        {
            self.tell(Event::PeerLost { peer, why });
        }
        if !self.calls {
            self.report_at = None;
            self.remote = None;
        }
    }

    fn handle_control(&mut self, now: Time, peer: SocketAddr, compound: &Packet) {
        let arrival = compound.meta.arrival;
        for packet in Compound::new(compound) {
            let Ok(packet) = packet else {
                self.stats.malformed += 1;
                return;
            };
            match packet {
                Rtcp::SenderReport { ssrc, info, .. } if self.is_from_source(ssrc) => {
                    if let Some(source) = &mut self.source {
                        source.count_report(&info, arrival);
                    }
                    self.hear(now, peer, false);
                }
                Rtcp::ReceiverReport { ssrc, .. } if self.is_from_source(ssrc) => self.hear(now, peer, false),
                Rtcp::Goodbye(goodbye) if goodbye.ssrcs().any(|ssrc| self.is_from_source(ssrc)) => {
                    self.lose(error::LEFT);
                }
                Rtcp::Other { packet_type, count, body } => match Feedback::parse(packet_type, count, body) {
                    Ok(Feedback::EchoRequest(echo)) if self.remote_at(peer).is_some() => {
                        self.answer(now, arrival, echo)
                    }
                    Ok(Feedback::EchoResponse(echo)) if echo.ssrc == self.ssrc => {
                        let took = arrival.since(Time::from_ns(echo.timestamp));
                        if took < ECHO_MAX {
                            let delay = Duration::from_micros(echo.delay_us.into());
                            self.round_trip.echo(now, took.saturating_sub(delay));
                        }
                    }
                    Ok(_) => {}
                    Err(_) => self.stats.malformed += 1,
                },
                Rtcp::SenderReport { .. }
                | Rtcp::ReceiverReport { .. }
                | Rtcp::SourceDescription(_)
                | Rtcp::Goodbye(_) => {}
            }
        }
    }

    /// Before there is any, anyone may be the source.
    fn is_from_source(&self, ssrc: u32) -> bool {
        self.source.as_ref().is_none_or(|source| source.ssrc() == ssrc & !RETRANSMITTED)
    }

    fn answer(&mut self, now: Time, arrival: Time, echo: Echo) {
        if self.transmits.len() >= TRANSMITS_MAX / 2 {
            // Nobody needs more than a few in a moment.
            self.stats.overflow += 1;
            return;
        }
        let delay_us = u32::try_from(now.since(arrival).as_micros()).unwrap_or(u32::MAX);
        let compound = write_echo_response(self.empty_report(), echo, delay_us);
        self.send_control(now, compound);
    }

    fn empty_report(&mut self) -> CompoundWriter {
        self.wire.writer().receiver_report(self.ssrc, &[]).cname(self.ssrc, &self.config.cname)
    }

    /// RR, SDES and an echo; and in the Main profile now and then a keep-alive.
    fn report(&mut self, now: Time) {
        self.report_at = Some(now + REPORT_INTERVAL);
        let block = self.source.as_mut().and_then(|source| source.report(now));
        let writer =
            self.wire.writer().receiver_report(self.ssrc, block.as_slice()).cname(self.ssrc, &self.config.cname);
        let compound = write_echo_request(writer, self.ssrc, now.as_ns());
        if self.wire.has_tunnel() && self.keep_alive_at <= now {
            self.keep_alive_at = now + if self.heard.is_some() { self.config.keep_alive } else { REPORT_INTERVAL };
            self.keep_alive(now, false);
        }
        self.send_control(now, compound);
        if self.heard.is_some_and(|heard| now.since(heard) > self.config.session_timeout) {
            self.lose(error::SILENT);
        }
    }

    /// Until the sender has shown what he understands he gets both kinds.
    fn keep_alive(&mut self, now: Time, leaves: bool) {
        let Some(remote) = self.remote else { return };
        if self.heard.is_none() && remote.version != Version::V2 {
            let both = self.wire.keep_alive(now, &remote, Version::V2, leaves);
            self.transmits.extend(both);
        }
        let alive = self.wire.keep_alive(now, &remote, remote.version, leaves);
        self.transmits.extend(alive);
    }

    fn send_control(&mut self, now: Time, compound: CompoundWriter) {
        let Some(remote) = self.remote else { return };
        match self.wire.control(now, &remote, compound) {
            Some(transmit) => {
                if self.transmits.len() >= TRANSMITS_MAX {
                    self.transmits.pop_front();
                    self.stats.overflow += 1;
                }
                self.transmits.push_back(transmit);
            }
            None => self.stats.no_buffer += 1,
        }
    }

    /// The first packets of a stream may get lost like any other, and nothing that comes shows it.
    fn ask_before_first(&mut self, now: Time) {
        let Some((first, at, asked)) = self.before.filter(|(_, at, _)| *at <= now) else { return };
        let Some(media) = self.source.as_ref().map(Source::ssrc) else { return };
        let runs = [(first, BEFORE)];
        let (writer, _) = write_request(self.empty_report(), RequestFormat::Shorter, (self.ssrc, media), &runs);
        self.send_control(now, writer);
        let again_at = at + self.round_trip.assumed() * 11 / 10;
        self.before = Some((first, again_at, asked + 1)).filter(|(.., asked)| *asked < BEFORE_ASKED_MAX);
    }

    /// Asks for what is missing, as far as it is time for it.
    fn send_requests(&mut self, now: Time) {
        self.ask_before_first(now);
        if self.window.next_request().is_none_or(|at| at > now) {
            return;
        }
        let Some(media) = self.source.as_ref().map(Source::ssrc) else { return };
        let round_trip = self.round_trip.assumed();
        let retry = (round_trip * 11 / 10).max(RETRY_MIN);
        let (mut scratch, mut runs) = std::mem::take(&mut self.requests);
        self.window.take_requests(now, retry, round_trip / 2, REQUESTED_AT_ONCE, &mut scratch, &mut runs);
        self.counts.requested += scratch.len() as u64;
        if self.config.requests == RequestFormat::Bitmask {
            split(&mut runs);
        }
        let mut rest = &runs[..];
        while !rest.is_empty() {
            let (writer, taken) = write_request(self.empty_report(), self.config.requests, (self.ssrc, media), rest);
            self.send_control(now, writer);
            self.counts.requests += 1;
            rest = &rest[taken.max(1)..];
        }
        self.requests = (scratch, runs);
    }

    /// What is due goes out, what was of a life before first. What is due at nearly one time leaves at one time.
    fn release(&mut self, now: Time) {
        if now < self.released_at + TOGETHER {
            return;
        }
        while let Some(first) = self.drained.pop_front_if(|(due, _)| *due <= now) {
            self.released.push_back(first);
        }
        if self.drained.is_empty() {
            self.window.release(now, &mut self.released);
        }
        if !self.released.is_empty() {
            self.released_at = now;
        }
        while let Some((due, mut packet)) = self.released.pop_front() {
            // A packet without payload keeps a path open (RFC 6263 4.1); it has nothing for the bus.
            if !packet.is_empty() {
                self.last_due = self.last_due.max(due);
                packet.meta.arrival = self.last_due.min(now);
                if self.begins_at.is_some_and(|number| packet.meta.sequence >= Some(number)) {
                    packet.meta.discontinuity = true;
                    self.begins_at = None;
                }
                self.packets.push_back(packet);
            }
        }
    }

    fn take_in(&mut self, now: Time, datagram: Datagram) {
        let peer = datagram.peer;
        if let Err(refusal) = self.handle_arrival(now, datagram) {
            self.refusals.count(refusal, &mut self.stats);
            let told = self.refusals.tell(now, peer, refusal);
            told.into_iter().for_each(|event| self.tell(event));
        }
    }

    fn handle_arrival(&mut self, now: Time, datagram: Datagram) -> Result<(), Refusal> {
        let peer = datagram.peer;
        let mut version = None;
        let ssrc = self.source.as_ref().map(Source::ssrc);
        let arrival = self.wire.unwrap(now, datagram, ssrc, &mut version)?;
        match arrival {
            Arrival::Media(packet) => self.handle_media(now, peer, packet),
            Arrival::Control(packet, port) => {
                self.handle_control(now, peer, &packet);
                if let (Some(remote), Some(port)) = (self.remote_at(peer), port) {
                    remote.control_ports.destination = port;
                }
            }
            Arrival::KeepAlive { leaves } if self.address == Some(peer) => {
                if leaves {
                    self.lose(error::LEFT);
                } else if let Some(heard) = &mut self.heard {
                    *heard = now;
                }
            }
            Arrival::KeepAlive { .. } | Arrival::Nothing => {}
        }
        if let (Some(remote), Some(version)) = (self.remote_at(peer), version) {
            remote.hear(version);
        }
        Ok(())
    }

    fn tell_logins(&mut self, now: Time) {
        while let Some((peer, why)) = self.wire.poll_refusal() {
            let told = self.refusals.tell_login(now, peer, why);
            told.into_iter().for_each(|event| self.tell(event));
        }
    }

    /// Whom we talk with, if that is `peer`.
    fn remote_at(&mut self, peer: SocketAddr) -> Option<&mut Remote> {
        let calls = self.calls;
        self.remote.as_mut().filter(|remote| calls || [remote.media, remote.control].contains(&Some(peer)))
    }

    fn tell(&mut self, event: Event) {
        if self.events.len() < EVENTS_MAX {
            self.events.push_back(event);
        } else {
            self.stats.overflow += 1;
        }
    }
}

impl Core for Receiver {
    fn handle_datagram(&mut self, now: Time, datagram: Datagram) {
        // What came later may still wait in the socket: after a pause of the machine nothing is lost that came in time.
        let came = datagram.packet.meta.arrival.min(now);
        self.take_in(now, datagram);
        self.tell_logins(now);
        self.release(came);
    }

    fn handle_packet(&mut self, _now: Time, _packet: &Packet) {}

    fn handle_timeout(&mut self, now: Time) {
        self.release(now);
        self.send_requests(now);
        if self.report_at.is_some_and(|at| at <= now) {
            self.report(now);
        }
        self.wire.handle_timeout(now);
        self.tell_logins(now);
    }

    fn handle_close(&mut self, now: Time) {
        let goodbye = self.empty_report().goodbye(self.ssrc);
        self.send_control(now, goodbye);
        if self.wire.has_tunnel() {
            self.keep_alive(now, true);
        }
        self.report_at = None;
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.wire.poll_login().or_else(|| self.transmits.pop_front())
    }

    fn poll_packet(&mut self) -> Option<Packet> {
        self.packets.pop_front()
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn poll_work(&mut self) -> Option<Work> {
        self.wire.poll_work()
    }

    fn handle_done(&mut self, now: Time, done: Done) {
        for datagram in self.wire.handle_done(now, done) {
            self.take_in(now, datagram);
        }
        self.tell_logins(now);
    }

    fn poll_timeout(&self) -> Option<Time> {
        let due = self.drained.front().map(|(due, _)| *due).or_else(|| self.window.next_due());
        // What was pushed out for others waits for nothing else.
        let pushed_out = self.released.front().map(|(due, _)| *due);
        let due = pushed_out.or(due).map(|due| due.max(self.released_at + TOGETHER));
        let before = self.before.map(|(_, at, _)| at);
        [due, self.window.next_request(), before, self.report_at, self.wire.poll_timeout()].into_iter().flatten().min()
    }

    fn patience(&self) -> Duration {
        self.config.patience()
    }

    fn stats(&self) -> Stats {
        let window = self.window.counts();
        Stats {
            lost: window.lost,
            overflow: self.stats.overflow + window.overflow + self.wire.refused()[1],
            jitter: self.source.as_ref().map_or(Duration::ZERO, Source::jitter),
            round_trip: self.round_trip.measured(),
            peers: Some(u32::from(self.heard.is_some())),
            ..self.stats
        }
    }

    fn visit_details(&self, visit: &mut dyn FnMut(&[Detail])) {
        let [failures, _] = self.wire.refused();
        visit(&self.counts.details(&self.stats(), &self.refusals, failures));
    }
}

/// Cuts runs so that each fits into one request with bitmasks.
fn split(runs: &mut Vec<Run>) {
    let pieces = runs.iter().flat_map(|(first, count)| {
        let starts = (0..*count).step_by(MASKED_MAX as usize);
        starts.map(move |start| (first + u64::from(start), (count - start).min(MASKED_MAX)))
    });
    *runs = pieces.collect();
}

/// Where librist has its RTCP.
const THEIR_CONTROL_PORT: u16 = 32_768;
/// Judgement: packets closer than this leave together. One wake-up for each would cost more than the packet.
const TOGETHER: Duration = Duration::from_millis(1);
/// Shortest time between two requests for a packet. Judgement: a sender's own timers are not finer.
const RETRY_MIN: Duration = Duration::from_millis(10);
/// Packets before the first that are asked for, so often. A sender that did not send them does not have them.
const BEFORE: u32 = 32;
const BEFORE_ASKED_MAX: u32 = 3;
/// Packets that are asked for at one moment: sixteen datagrams with masks, and a receive buffer full of answers.
const REQUESTED_AT_ONCE: usize = 512;
/// What sixteen masks hold of one run.
const MASKED_MAX: u32 = 16 * 17;
/// Reports, answers and requests that may wait.
const TRANSMITS_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::{Meta, PoolLimits};
    use crate::proto::Port;
    use crate::units::Seq;

    #[test]
    fn what_came_in_time_is_not_lost_when_it_is_read_late() {
        let pool = Pool::new(PoolLimits::default());
        let surroundings = Surroundings { pool: pool.clone(), seed: 1, unix_ns_at_zero: 0 };
        let buffer = Duration::from_millis(200);
        let config = Config { profile: Profile::Simple, buffer, ..Config::default() };
        let mut receiver = Receiver::listening(config, &surroundings);
        let media = |sequence: u32, again: u32, came: u64| {
            let (sequence, timestamp) = (Seq::new(sequence), sequence * 900);
            let header = Header { marker: false, payload_type: 33, sequence, timestamp, ssrc: 8 | again };
            let meta = Meta { arrival: ms(came), ..Meta::default() };
            let packet = pool.copy(&[&header.to_bytes()[..], &[0x47; 188]].concat(), meta).unwrap();
            Datagram { port: Port::Media, peer: ([192, 0, 2, 1], 5_000).into(), packet }
        };
        receiver.handle_datagram(ms(10), media(1, 0, 10));
        receiver.handle_datagram(ms(30), media(3, 0, 30));
        // The machine pauses; then all that came meanwhile is read at once.
        for datagram in [media(4, 0, 40), media(2, RETRANSMITTED, 90), media(5, 0, 250)] {
            receiver.handle_datagram(ms(900), datagram);
        }
        receiver.handle_timeout(ms(900));
        let out = std::iter::from_fn(|| receiver.poll_packet()).map(|packet| packet.meta).collect::<Vec<_>>();
        let numbers = out.iter().filter_map(|meta| meta.sequence).map(|sequence| sequence % 65_536);
        assert_eq!(numbers.collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
        let marks = out.iter().map(|meta| meta.discontinuity);
        assert_eq!(marks.collect::<Vec<_>>(), [true, false, false, false, false], "what begins is marked");
        assert_eq!((receiver.stats().lost, receiver.stats().late), (0, 0));
    }

    fn ms(ms: u64) -> Time {
        Time::ZERO + Duration::from_millis(ms)
    }
}
