//! One peer, from the end of the handshake to the end of the connection (draft 4.4 to 4.10).
//!
//! Both directions run in every connection; the one that carries nothing costs nothing. Whoever owns the connection
//! hands in the datagrams that are meant for it and drains the polls.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use super::config::{Config, Tuning};
use super::crypto::Crypto;
use super::entropy::Entropy;
use super::error::Ended;
use super::filter::{self, Arq, Filter, Member, Rebuilt, Repair};
use super::packet::{
    AckBody, AckFigures, ControlHeader, ControlKind, DataHeader, DropBody, Header, KeyFlag, LossRanges,
};
use super::receive::{self, Ack, Arrived, Data, Origin};
use super::send::{self, RoundTrip, Sealed};
use super::tsbpd::Tsbpd;
use crate::bus::{Meta, Packet, Pool};
use crate::proto::{Port, Transmit, wire_header};
use crate::units::{Seq, Time};

/// What a handshake settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settled {
    pub local_id: u32,
    pub peer_id: u32,
    pub peer: SocketAddr,
    /// Where timestamps of ours begin.
    pub epoch: Time,
    /// First sequence number of what we send.
    pub initial: Seq<31>,
    /// First sequence number of what the peer sends; another than ours only after a rendezvous.
    pub peer_initial: Seq<31>,
    pub receive_latency: Duration,
    pub send_latency: Duration,
    /// Both sides give up what is too late.
    pub too_late_drop: bool,
    /// The peer reports losses again and again.
    pub peer_nak_reports: bool,
    /// The peer's handshake with its extension: arrival and timestamp.
    pub base_arrival: Time,
    pub base_timestamp: u32,
    pub flow_window: u32,
    /// The packet filter, if there is one.
    pub filter: Option<filter::Settled>,
    /// Longest payload that the path carries.
    pub payload_max: usize,
}

/// An established connection.
#[derive(Debug)]
pub(super) struct Connection {
    settled: Settled,
    payload_max: usize,
    cut: bool,
    idle_timeout: Duration,
    pub(super) sender: send::Sender,
    pub(super) receiver: receive::Receiver,
    /// `None` if nothing is encrypted.
    crypto: Option<Crypto>,
    filter: Option<Box<Filter>>,
    entropy: Entropy,
    pool: Pool,
    /// When it was last fed: what the polls go by.
    now: Time,
    last_heard: Time,
    last_sent: Time,
    /// When the last packet to send came.
    last_origin: Time,
    /// Control packets to send.
    control: VecDeque<Transmit>,
    /// Bodies are written here.
    scratch: Vec<u8>,
    ended: Option<Ended>,
    /// What came and is for the group to take; `None` without a group.
    passed: Option<VecDeque<Data>>,
    pub(super) counts: Counts,
}

/// What only the connection counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub malformed: u64,
    pub unexpected: u64,
    pub acks_received: u64,
    pub naks_received: u64,
    pub no_buffer: u64,
    /// Packets that the send buffer refused.
    pub overflow: u64,
    /// Packets that the peer does not take and that must not be cut.
    pub too_long: u64,
    /// Packets that the filter added, and the bytes of their payloads.
    pub repairs_sent: u64,
    pub repair_bytes_sent: u64,
}

impl Connection {
    pub(super) fn new(
        now: Time,
        settled: Settled,
        config: &Config,
        pool: Pool,
        (crypto, entropy): (Option<Crypto>, Entropy),
    ) -> Self {
        let [first, first_received] = [settled.initial, settled.peer_initial].map(extended);
        let arq = settled.filter.map_or(Arq::Always, |filter| filter.arq);
        let sender = send::Config {
            first,
            latency: settled.send_latency,
            too_late_drop: settled.too_late_drop,
            drop_delay: config.send_drop_delay,
            capacity: config.buffer_packets,
            flow_window: settled.flow_window,
            // Nor is anything sent again unasked that nobody is to ask for.
            peer_sends_nak_reports: settled.peer_nak_reports || arq == Arq::Never,
            bandwidth: config.bandwidth,
        };
        let receiver = receive::Config {
            first: first_received,
            latency: settled.receive_latency,
            base_arrival: settled.base_arrival,
            base_timestamp: settled.base_timestamp,
            too_late_drop: settled.too_late_drop,
            nak_reports: config.nak_reports,
            gap_reports: arq == Arq::Always,
            reorder_max: config.reorder_max,
            capacity: config.buffer_packets,
            payload_max: settled.payload_max,
        };
        let filter = settled
            .filter
            .map(|filter| Filter::new(&filter, (first, first_received), settled.payload_max, pool.clone()));
        let overhead =
            crypto.as_ref().map_or(0, Crypto::overhead) + filter.as_ref().map_or(0, |_| filter::HEADER_BYTES);
        Self {
            settled,
            payload_max: config.payload_max.min(settled.payload_max - overhead),
            cut: config.cut,
            idle_timeout: config.idle_timeout,
            sender: send::Sender::new(sender, now),
            receiver: receive::Receiver::new(receiver, now),
            crypto,
            filter: filter.map(Box::new),
            entropy,
            pool,
            now,
            last_heard: now,
            last_sent: now,
            last_origin: Time::ZERO,
            control: VecDeque::with_capacity(CONTROL_MAX),
            scratch: Vec::with_capacity(settled.payload_max),
            ended: None,
            passed: None,
            counts: Counts::default(),
        }
    }

    pub(super) const fn last_heard(&self) -> Time {
        self.last_heard
    }

    pub(super) const fn idle_timeout(&self) -> Duration {
        self.idle_timeout
    }

    pub(super) const fn settled(&self) -> &Settled {
        &self.settled
    }

    /// A datagram for this connection, its header already read. The packet is the whole datagram.
    pub(super) fn handle(&mut self, now: Time, header: &Header, datagram: Packet) {
        self.now = now;
        self.last_heard = now;
        match header {
            Header::Data(header) => self.handle_data(header, datagram),
            Header::Control(header) => self.handle_control(header, &datagram),
        }
    }

    /// A packet to send; cut, or left out, if it is longer than the peer takes.
    pub(super) fn send(&mut self, now: Time, packet: &Packet) {
        self.now = now;
        let origin = origin(now, packet);
        if packet.len() <= self.payload_max {
            self.push(origin, packet.clone());
            return;
        }
        if !self.cut {
            self.counts.too_long += 1;
            return;
        }
        for start in (0..packet.len()).step_by(self.payload_max) {
            self.push(origin, packet.slice(start..packet.len().min(start + self.payload_max)));
        }
    }

    /// A packet of a group, no longer than [`Connection::payload_max`], that came from its source at `origin`. Says
    /// whether there was room.
    pub(super) fn send_from(&mut self, now: Time, origin: Time, packet: Packet) -> bool {
        self.now = now;
        self.push(origin, packet)
    }

    /// Longest payload that is sent.
    pub(super) const fn payload_max(&self) -> usize {
        self.payload_max
    }

    /// Leaves what comes to a group, which keeps it in `merged` and releases it by `clock`, and has sent up to `sent`.
    pub(super) fn join(&mut self, merged: &receive::Receiver, clock: Tsbpd, sent: (u64, u32)) {
        self.receiver.join(self.now, merged, clock);
        self.sender.join(sent.0, sent.1);
        self.passed = Some(VecDeque::new());
    }

    /// What came and is for the group to take.
    pub(super) fn take_passed(&mut self) -> Option<Data> {
        self.passed.as_mut()?.pop_front()
    }

    /// Goes on with these settings.
    pub(super) fn tune(&mut self, now: Time, tuning: &Tuning) {
        self.now = now;
        let Tuning { bandwidth, send_drop_delay, reorder_max, idle_timeout, .. } = *tuning;
        self.sender.set_bandwidth(now, bandwidth);
        self.sender.set_drop_delay(send_drop_delay);
        self.receiver.set_reorder_max(reorder_max);
        self.idle_timeout = idle_timeout;
        if let Some(crypto) = &mut self.crypto {
            crypto.set_refresh(tuning.refresh());
        }
    }

    /// Ends it.
    pub(super) fn end(&mut self, why: Ended) {
        self.ended = self.ended.or(Some(why));
    }

    pub(super) fn handle_timeout(&mut self, now: Time) {
        self.now = now;
        self.sender.handle_timeout(now);
        if now.since(self.last_heard) >= self.idle_timeout {
            self.ended = self.ended.or(Some(Ended::Silent));
        } else if now.since(self.last_sent) >= KEEP_ALIVE_INTERVAL {
            self.control(ControlKind::KeepAlive, 0, |_| ());
        }
    }

    /// Says goodbye.
    pub(super) fn close(&mut self, now: Time) {
        self.now = now;
        self.control(ControlKind::Shutdown, 0, |_| ());
    }

    /// The goodbye, instead of all that waits: for whoever does not drain any more.
    pub(super) fn farewell(&mut self, now: Time) -> Option<Transmit> {
        self.control.clear();
        self.close(now);
        self.control.pop_back()
    }

    /// Packets that the peer never gets as they were too late, or there was no room for them.
    pub(super) const fn dropped(&self) -> u64 {
        self.sender.dropped() + self.counts.overflow
    }

    /// The next datagram to send: reports first, as they are short and others wait for them.
    pub(super) fn poll_transmit(&mut self) -> Option<Transmit> {
        self.write_reports();
        if let Some(transmit) = self.control.pop_front() {
            self.last_sent = self.now;
            return Some(transmit);
        }
        // Right behind the last packet of its group.
        if let Some(repair) = self.filter.as_mut().and_then(|filter| filter.encoder.poll()) {
            return Some(self.transmit_repair(repair));
        }
        let outgoing = self.sender.poll(self.now)?;
        let header = DataHeader {
            key: KeyFlag::of(u32::from(outgoing.key)),
            retransmitted: outgoing.retransmitted,
            ..self.data_header(outgoing.sequence, outgoing.message_number, outgoing.origin)
        };
        if let Some(filter) = self.filter.as_mut().filter(|_| !outgoing.retransmitted) {
            let member = member(&header, outgoing.sequence, &outgoing.packet);
            self.counts.no_buffer += u64::from(!filter.encoder.handle(&self.pool, &member));
        }
        Some(self.transmit_data(&header, outgoing.packet))
    }

    /// The next packet whose time has come.
    pub(super) fn poll_packet(&mut self) -> Option<Packet> {
        self.receiver.poll_packet(self.now)
    }

    /// Why the connection is over; `None` while it is not.
    pub(super) const fn ended(&self) -> Option<Ended> {
        self.ended
    }

    pub(super) fn poll_timeout(&self) -> Time {
        let idle = self.last_heard + self.idle_timeout;
        let keep_alive = self.last_sent + KEEP_ALIVE_INTERVAL;
        let keys = self.crypto.as_ref().and_then(Crypto::poll_timeout);
        let halves = [self.sender.poll_timeout(), self.receiver.poll_timeout(), keys];
        halves.into_iter().flatten().fold(idle.min(keep_alive), Time::min)
    }

    pub(super) fn patience(&self) -> Duration {
        let latency = self.settled.receive_latency.min(self.settled.send_latency);
        (latency / PATIENCE_PART).min(PATIENCE_MAX)
    }

    pub(super) fn sender_stats(&self) -> send::Stats {
        self.sender.stats()
    }

    pub(super) fn receiver_stats(&self) -> receive::Stats {
        self.receiver.stats()
    }

    /// What came of the filter; all zero without one.
    pub(super) fn filter_stats(&self) -> filter::Stats {
        self.filter.as_ref().map_or_else(filter::Stats::default, |filter| filter.decoder.stats())
    }

    /// What the path to us could carry, estimated.
    pub(super) fn link_packets_per_second(&self) -> u32 {
        self.receiver.capacity_per_second()
    }

    pub(super) const fn round_trip(&self) -> (Duration, Duration) {
        self.receiver.round_trip()
    }

    fn handle_data(&mut self, header: &DataHeader, datagram: Packet) {
        let arrival = datagram.meta.arrival;
        let len = datagram.len();
        let packet = datagram.into_slice(super::packet::HEADER_BYTES..len);
        if packet.is_empty() || packet.len() > self.settled.payload_max {
            self.counts.malformed += 1;
            return;
        }
        let sequence = self.receiver.extend(header.sequence);
        // A number beyond the buffer may be a damaged one, after which the filter would find everything else too old.
        let filter = self.filter.as_mut().filter(|_| !self.receiver.is_beyond(sequence));
        if header.message_number == 0 {
            match filter {
                Some(filter) => filter.decoder.handle_repair(arrival, sequence, header.timestamp, &packet),
                None => self.counts.unexpected += 1,
            }
        } else {
            if let Some(filter) = filter {
                filter.decoder.handle_data(arrival, &member(header, sequence, &packet));
            }
            let origin = if header.retransmitted { Origin::Retransmitted } else { Origin::Original };
            self.accept(header, sequence, origin, packet);
        }
        self.take_from_filter();
    }

    /// What was rebuilt goes the way of what came, and what cannot be is asked for where that is wanted.
    fn take_from_filter(&mut self) {
        while let Some(rebuilt) = self.filter.as_mut().and_then(|filter| filter.decoder.poll_rebuilt()) {
            let header = rebuilt.header(self.settled.local_id);
            let Rebuilt { sequence, packet, .. } = rebuilt;
            self.accept(&header, sequence, Origin::Rebuilt, packet);
        }
        let Some(filter) = &mut self.filter else { return };
        while let Some(lost) = filter.decoder.poll_lost() {
            if filter.arq == Arq::OnRequest {
                self.receiver.report(*lost.start(), *lost.end());
            }
        }
    }

    fn accept(&mut self, header: &DataHeader, sequence: u64, origin: Origin, packet: Packet) {
        let (arrival, len) = (packet.meta.arrival, packet.len());
        let Some(packet) = self.open(header, packet) else {
            self.receiver.handle_undecrypted(self.now, sequence, origin, arrival, len);
            return;
        };
        let data = Data { sequence, timestamp: header.timestamp, origin, packet };
        if let Some(passed) = &mut self.passed {
            // Taken after each datagram, so that there is no more than one can bring.
            passed.push_back(data);
            return;
        }
        match self.receiver.handle_data(self.now, data) {
            Arrived::New | Arrived::Duplicate | Arrived::Late | Arrived::Beyond => {}
        }
    }

    fn handle_control(&mut self, header: &ControlHeader, datagram: &Packet) {
        let body = &datagram[super::packet::HEADER_BYTES..];
        match header.kind {
            ControlKind::Ack => self.handle_ack(header, body),
            ControlKind::Nak => self.handle_nak(body),
            ControlKind::AckAck => {
                self.receiver.handle_ack_ack(datagram.meta.arrival, header.information, header.timestamp);
            }
            ControlKind::DropRequest => match DropBody::parse(body) {
                Ok(DropBody { first, last }) => {
                    let (first, last) = (self.receiver.extend(first), self.receiver.extend(last));
                    self.receiver.handle_drop_request(first, last);
                }
                Err(_) => self.counts.malformed += 1,
            },
            ControlKind::Shutdown => self.ended = self.ended.or(Some(Ended::ByPeer)),
            ControlKind::KeyRequest => {
                if let Some(answer) = self.crypto.as_mut().and_then(|crypto| crypto.handle_request(body)) {
                    self.control_with(ControlKind::KeyResponse, 0, &answer);
                }
            }
            ControlKind::KeyResponse => {
                if let Some(crypto) = &mut self.crypto {
                    crypto.handle_response(body);
                }
            }
            ControlKind::KeepAlive | ControlKind::CongestionWarning => {}
            ControlKind::Handshake | ControlKind::PeerError | ControlKind::Unknown { .. } => {
                self.counts.unexpected += 1;
            }
        }
    }

    fn handle_ack(&mut self, header: &ControlHeader, body: &[u8]) {
        let Ok(AckBody { next, figures }) = AckBody::parse(body) else {
            self.counts.malformed += 1;
            return;
        };
        self.counts.acks_received += 1;
        let next = self.extend_sent(next);
        let us = |us: u32| Duration::from_micros(u64::from(us));
        let round_trip = figures
            .map(|figures| RoundTrip { smoothed: us(figures.round_trip_us), variation: us(figures.variation_us) });
        self.sender.handle_ack(self.now, next, round_trip, figures.map(|figures| figures.available));
        // A light one carries no number (draft 3.2.4) and wants no answer.
        if figures.is_some() {
            self.control(ControlKind::AckAck, header.information, |_| ());
        }
    }

    fn handle_nak(&mut self, body: &[u8]) {
        self.counts.naks_received += 1;
        for range in LossRanges::parse(body) {
            let Ok(range) = range else {
                self.counts.malformed += 1;
                return;
            };
            let (first, last) = (self.extend_sent(*range.start()), self.extend_sent(*range.end()));
            self.sender.handle_nak(self.now, first, last);
        }
    }

    /// The number of ours that the peer means: the one nearest to what will be sent next.
    fn extend_sent(&self, sequence: Seq<31>) -> u64 {
        let next = self.sender.next_sequence();
        next.saturating_add_signed(i64::from(Seq::<31>::new(next as u32).distance(sequence)))
    }

    fn push(&mut self, origin: Time, packet: Packet) -> bool {
        // Asked first, so that nothing is encrypted in vain.
        if !self.sender.make_room(self.now) {
            self.counts.overflow += 1;
            return false;
        }
        // In order, or it would hold up others.
        let origin = origin.max(self.last_origin);
        self.last_origin = origin;
        let Some((key, packet)) = self.seal(origin, packet) else {
            self.counts.no_buffer += 1;
            return false;
        };
        let is_taken = self.sender.push(self.now, Sealed { origin, key: key.bits() as u8, packet }).is_ok();
        self.counts.overflow += u64::from(!is_taken);
        is_taken
    }

    /// Encrypts a packet for the next sequence number; `None` if there is no buffer for the result.
    fn seal(&mut self, origin: Time, packet: Packet) -> Option<(KeyFlag, Packet)> {
        let header = self.data_header(self.sender.next_sequence(), self.sender.next_message_number(), origin);
        let Some(crypto) = &mut self.crypto else {
            return Some((KeyFlag::Clear, packet));
        };
        let key = crypto.in_use();
        let len = packet.len() + crypto.overhead();
        let mut buffer = self.pool.take(len)?;
        buffer[..packet.len()].copy_from_slice(&packet);
        crypto.seal(self.now, &DataHeader { key, ..header }.bytes(), &mut buffer[..len], &mut self.entropy);
        Some((key, Packet::new(buffer, 0..len, packet.meta)))
    }

    /// Decrypts a packet in place; `None` if that cannot be done.
    fn open(&mut self, header: &DataHeader, mut packet: Packet) -> Option<Packet> {
        let Some(crypto) = &mut self.crypto else {
            return (header.key == KeyFlag::Clear).then_some(packet);
        };
        if packet.bytes_mut().is_none() {
            packet = self.pool.copy(&packet, packet.meta)?;
        }
        let len = crypto.open(header.key, &header.bytes(), packet.bytes_mut()?)?;
        Some(packet.into_slice(0..len))
    }

    /// Brings announcements of keys, acknowledgements, loss reports and drop requests on their way.
    fn write_reports(&mut self) {
        let round_trip = self.receiver.round_trip().0;
        let announcement = self.crypto.as_mut().and_then(|crypto| crypto.poll_announcement(self.now, round_trip));
        if let Some(announcement) = announcement {
            self.control_with(ControlKind::KeyRequest, 0, &announcement);
        }
        while self.control.len() < CONTROL_MAX {
            let Some(ack) = self.receiver.poll_ack(self.now) else { break };
            let (number, body) = ack_body(&ack);
            self.control(ControlKind::Ack, number, |out| body.write(out));
        }
        while self.control.len() < CONTROL_MAX {
            let mut body = std::mem::take(&mut self.scratch);
            body.clear();
            let Some(ranges) = self.receiver.poll_nak(self.now) else {
                self.scratch = body;
                break;
            };
            for range in ranges {
                LossRanges::write(&(Seq::new(*range.start() as u32)..=Seq::new(*range.end() as u32)), &mut body);
            }
            self.control_with(ControlKind::Nak, 0, &body);
            self.scratch = body;
        }
        while self.control.len() < CONTROL_MAX {
            let Some(request) = self.sender.poll_drop_request() else { break };
            let body = DropBody { first: Seq::new(request.first as u32), last: Seq::new(request.last as u32) };
            self.control(ControlKind::DropRequest, request.message_number, |out| body.write(out));
        }
    }

    fn control(&mut self, kind: ControlKind, information: u32, write: impl FnOnce(&mut Vec<u8>)) {
        let mut body = std::mem::take(&mut self.scratch);
        body.clear();
        write(&mut body);
        self.control_with(kind, information, &body);
        self.scratch = body;
    }

    fn control_with(&mut self, kind: ControlKind, information: u32, body: &[u8]) {
        if self.control.len() >= CONTROL_MAX {
            return;
        }
        // libsrt sends four bytes where there is nothing to say, and expects as much.
        let body = if body.is_empty() { &[0; 4] } else { body };
        let Some(payload) = self.pool.copy(body, Meta::default()) else {
            self.counts.no_buffer += 1;
            return;
        };
        let header = ControlHeader {
            kind,
            information,
            timestamp: timestamp(self.settled.epoch, self.now),
            destination: self.settled.peer_id,
        };
        let header = wire_header(&header.bytes());
        let to = Some(self.settled.peer);
        self.control.push_back(Transmit { port: Port::Control, to, header, payload: Some(payload) });
    }

    fn transmit_data(&mut self, header: &DataHeader, packet: Packet) -> Transmit {
        self.last_sent = self.now;
        let (to, header) = (Some(self.settled.peer), wire_header(&header.bytes()));
        Transmit { port: Port::Media, to, header, payload: Some(packet) }
    }

    /// As libsrt sends it: without the flag R, whatever its document says, and with the flags KK of the last key, though
    /// it is not encrypted as such.
    fn transmit_repair(&mut self, repair: Repair) -> Transmit {
        let Repair { sequence, timestamp, packet } = repair;
        self.counts.repairs_sent += 1;
        self.counts.repair_bytes_sent += packet.len() as u64;
        self.sender.charge(self.now, packet.len());
        let key = self.crypto.as_ref().map_or(KeyFlag::Clear, Crypto::in_use);
        let (sequence, destination) = (Seq::new(sequence as u32), self.settled.peer_id);
        let header = DataHeader { key, ..DataHeader::whole(sequence, 0, timestamp, destination) };
        self.transmit_data(&header, packet)
    }

    fn data_header(&self, sequence: u64, message_number: u32, origin: Time) -> DataHeader {
        let timestamp = timestamp(self.settled.epoch, origin);
        DataHeader::whole(Seq::new(sequence as u32), message_number, timestamp, self.settled.peer_id)
    }
}

/// A packet of a filter's groups.
const fn member<'payload>(header: &DataHeader, sequence: u64, payload: &'payload [u8]) -> Member<'payload> {
    let DataHeader { message_number, in_order, timestamp, key, .. } = *header;
    Member { sequence, message_number, in_order, timestamp, key, payload }
}

/// A first sequence number, extended so that there is room below.
pub(super) fn extended(initial: Seq<31>) -> u64 {
    (1 << 31) | u64::from(initial.value())
}

/// When a packet came: what it waited for since is taken off the latency again at the peer.
pub(super) fn origin(now: Time, packet: &Packet) -> Time {
    packet.meta.arrival.max(now - WAIT_MAX).min(now)
}

/// Microseconds since `epoch`, wrapping (draft 3).
pub(super) fn timestamp(epoch: Time, at: Time) -> u32 {
    at.since(epoch).as_micros() as u32
}

/// An acknowledgement's number, and its body.
fn ack_body(ack: &Ack) -> (u32, AckBody) {
    let us = |span: Duration| u32::try_from(span.as_micros()).unwrap_or(u32::MAX);
    match *ack {
        Ack::Light { next } => (0, AckBody { next: Seq::new(next as u32), figures: None }),
        Ack::Full {
            number,
            next,
            round_trip,
            variation,
            available,
            packets_per_second,
            capacity_per_second,
            bytes_per_second,
        } => {
            let figures = AckFigures {
                round_trip_us: us(round_trip),
                variation_us: us(variation),
                available,
                packets_per_second,
                capacity_per_second,
                bytes_per_second,
            };
            (number, AckBody { next: Seq::new(next as u32), figures: Some(figures) })
        }
    }
}

/// Packets that waited for longer count as if they had come so long ago. Judgement: some times what [`Connection::patience`]
/// allows, and little beside any latency.
const WAIT_MAX: Duration = Duration::from_millis(10);
/// Longest patience, and what part of the latency it is. Judgement: a small part, as what is to be sent again has less time.
const PATIENCE_MAX: Duration = Duration::from_millis(2);
const PATIENCE_PART: u32 = 32;
/// What keeps the connection alive when there is nothing else to say (draft 3.2.3).
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// Control packets that may wait for whoever drains. What does not fit is made again later.
const CONTROL_MAX: usize = 64;
