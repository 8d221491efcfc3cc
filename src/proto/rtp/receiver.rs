//! Receives RTP: takes the header off, puts packets in order, rebuilds lost ones where there is FEC, follows restarts,
//! reports to the sender.
//!
//! ```text
//!            first packet                 same SSRC, near the latest number
//!  waiting ---------------> receiving <---------------------------------------+
//!                               |  another SSRC, or a number far away         |
//!                               v                                             |
//!                           on probation --- the next number of the same SSRC +  (Restarted)
//! ```
//!
//! One stray packet never disturbs a stream, and a sender that starts over is followed with its second packet; the first
//! one is kept and released as well (RFC 3550 A.1). A sender that was merely silent for a while, which its timestamp
//! shows, counts its losses and is not called restarted. The first packet of each life of the sender is marked as a
//! discontinuity.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use super::config::{REORDER_WINDOW, ReceiverConfig};
use super::header::{Header, RtpPacket};
use super::random::Random;
use super::reorder::{Insertion, Reorder};
use super::rtcp::{Compound, CompoundWriter, Rtcp, is_rtcp};
use super::source::Source;
use crate::bus::{Meta, Packet, Pool};
use crate::proto::fec::{Decoder, Recovered};
use crate::proto::{Core, Datagram, Detail, Event, Port, Stats, Surroundings, Transmit, WireHeader};
use crate::units::Time;

/// RTP datagrams in, payload out; receiver reports back to the sender.
///
/// Packets leave with their extended sequence number, whose low 16 bits are the sender's and which never goes back, and
/// with their RTP timestamp. [`Event::Restarted`] names the same SSRC twice when only the numbers started over.
#[derive(Debug)]
pub struct Receiver {
    config: ReceiverConfig,
    pool: Pool,
    random: Random,
    /// Our own, in reports.
    ssrc: u32,
    source: Option<Source>,
    probation: Option<Arrived>,
    reorder: Reorder<Packet>,
    /// Whether the next packet is the first of a life of the sender.
    is_at_start: bool,
    fec: Option<Decoder>,
    packets: VecDeque<Packet>,
    /// Whether a packet that was marked as a discontinuity has not left.
    is_mark_due: bool,
    /// Who sent the last packet.
    peer: Option<SocketAddr>,
    /// Who sent the last RTCP datagram of our source.
    control_peer: Option<SocketAddr>,
    ended: bool,
    report_at: Option<Time>,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
    stats: Stats,
}

impl Receiver {
    /// A receiver that waits for its first packet.
    #[must_use]
    pub fn new(config: ReceiverConfig, surroundings: &Surroundings) -> Self {
        let mut random = Random::new(surroundings.seed);
        let pool = surroundings.pool.clone();
        let mut receiver = Self {
            reorder: Reorder::new(config.first_window(), config.reorder_packets_max, 0),
            fec: config.fec.then(|| Decoder::new(pool.clone())),
            config,
            pool,
            is_at_start: false,
            ssrc: random.next() as u32,
            random,
            source: None,
            probation: None,
            packets: VecDeque::new(),
            is_mark_due: false,
            peer: None,
            control_peer: None,
            ended: false,
            report_at: None,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            stats: Stats::default(),
        };
        receiver.follow_fec();
        receiver
    }

    fn handle_media(&mut self, now: Time, datagram: Datagram) {
        let Ok(rtp) = RtpPacket::parse(&datagram.packet) else {
            self.stats.malformed += 1;
            return;
        };
        let (header, payload) = (rtp.header, rtp.payload_range());
        if !self.config.payload_types.contains(header.payload_type) {
            self.stats.unexpected += 1;
            return;
        }
        if self.packets.len() >= QUEUE_MAX {
            self.stats.overflow += 1;
            return;
        }
        let arrived = Arrived { header, peer: datagram.peer, packet: datagram.packet, payload };
        match &self.source {
            Some(source) if source.ssrc() == header.ssrc && source.is_near(header.sequence) => {
                self.fail_probation();
                self.accept(now, arrived);
            }
            Some(_) => self.probe(now, arrived),
            None => {
                self.start(now, &arrived);
                self.accept(now, arrived);
            }
        }
    }

    /// Takes a packet of the present source into the order.
    fn accept(&mut self, now: Time, arrived: Arrived) {
        let Some(source) = &mut self.source else {
            return;
        };
        let Arrived { header, peer, packet: datagram, payload } = arrived;
        self.peer = Some(peer);
        let sequence = source.count(&header, datagram.meta.arrival);
        if let Some(fec) = &mut self.fec {
            fec.handle_media(now, sequence, &datagram);
        }
        let mut packet = datagram.into_slice(payload);
        packet.meta.sequence = Some(sequence);
        packet.meta.rtp_timestamp = Some(header.timestamp);
        packet.meta.discontinuity = std::mem::take(&mut self.is_at_start);
        self.ended = false;
        self.stats.received += 1;
        match self.reorder.insert(now, sequence, packet, &mut self.packets) {
            Insertion::Ahead => {}
            Insertion::Reordered => self.stats.reordered += 1,
            Insertion::Duplicate => self.stats.duplicate += 1,
            Insertion::Late => self.stats.late += 1,
        }
        self.take_recovered(now);
    }

    fn handle_fec(&mut self, now: Time, datagram: Packet) {
        let Some(fec) = &mut self.fec else {
            self.stats.unexpected += 1;
            return;
        };
        fec.handle_fec(now, datagram);
        self.follow_fec();
        self.take_recovered(now);
    }

    /// Gaps are held open for as long as FEC packets may come for them, unless it was said for how long.
    fn follow_fec(&mut self) {
        let Some(fec) = &mut self.fec else { return };
        let window = self.config.reorder_window.unwrap_or_else(|| REORDER_WINDOW + fec.delay());
        self.reorder.set_window(window);
        fec.set_hold(self.config.first_window());
    }

    /// Takes what was rebuilt into the order.
    fn take_recovered(&mut self, now: Time) {
        while let Some(Recovered { sequence, packet }) = self.fec.as_mut().and_then(Decoder::poll_recovered) {
            let Ok(rtp) = RtpPacket::parse(&packet) else {
                self.stats.malformed += 1;
                continue;
            };
            let (header, payload) = (rtp.header, rtp.payload_range());
            if !self.config.payload_types.contains(header.payload_type) {
                self.stats.unexpected += 1;
                continue;
            }
            let mut packet = packet.into_slice(payload);
            packet.meta.sequence = Some(sequence);
            packet.meta.rtp_timestamp = Some(header.timestamp);
            match self.reorder.insert(now, sequence, packet, &mut self.packets) {
                Insertion::Ahead | Insertion::Reordered => self.stats.recovered += 1,
                Insertion::Late => self.stats.late += 1,
                Insertion::Duplicate => self.stats.duplicate += 1,
            }
        }
    }

    /// A packet that does not continue the stream: two in a row are believed.
    fn probe(&mut self, now: Time, arrived: Arrived) {
        let first = self.probation.take();
        match first {
            Some(first) if first.is_followed_by(&arrived) => {
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

    fn fail_probation(&mut self) {
        if self.probation.take().is_some() {
            self.stats.unexpected += 1;
        }
    }

    /// A new life of the sender begins with `arrived`.
    fn start(&mut self, now: Time, arrived: &Arrived) {
        let header = &arrived.header;
        let before = self.source.take();
        let source = Source::new(header, arrived.packet.meta.arrival, before.as_ref());
        self.reorder.restart(source.first_sequence(), &mut self.packets);
        if let Some(fec) = &mut self.fec {
            fec.restart();
        }
        self.source = Some(source);
        self.is_at_start = true;
        // RFC 3550 8.2: whoever sees his own SSRC takes another one.
        while self.ssrc == header.ssrc {
            self.ssrc = self.random.next() as u32;
        }
        if let Some(before) = before {
            self.tell(Event::Restarted { from: before.ssrc(), to: header.ssrc });
        } else {
            // RFC 3550 6.2: half the interval before the first report.
            self.report_at = Some(now + report_interval(&mut self.random) / 2);
        }
    }

    fn handle_control(&mut self, datagram: &Datagram) {
        for packet in Compound::new(&datagram.packet) {
            let Ok(packet) = packet else {
                self.stats.malformed += 1;
                return;
            };
            self.handle_rtcp(&packet, datagram);
        }
    }

    fn handle_rtcp(&mut self, packet: &Rtcp<'_>, datagram: &Datagram) {
        let Some(source) = &mut self.source else {
            return;
        };
        match packet {
            Rtcp::SenderReport { ssrc, info, .. } if *ssrc == source.ssrc() => {
                source.count_report(info, datagram.packet.meta.arrival);
                self.control_peer = Some(datagram.peer);
            }
            Rtcp::ReceiverReport { ssrc, .. } if *ssrc == source.ssrc() => self.control_peer = Some(datagram.peer),
            Rtcp::Goodbye(goodbye) if goodbye.ssrcs().any(|ssrc| ssrc == source.ssrc()) && !self.ended => {
                self.ended = true;
                self.tell(Event::Ended);
            }
            Rtcp::SenderReport { .. }
            | Rtcp::ReceiverReport { .. }
            | Rtcp::SourceDescription(_)
            | Rtcp::Goodbye(_)
            | Rtcp::Other { .. } => {}
        }
    }

    /// RR and SDES to the sender's RTCP address, which is the one after its media address until it shows another
    /// (RFC 3550 11).
    fn report(&mut self, now: Time) {
        let after_media = self.peer.and_then(|peer| {
            let port = peer.port().checked_add(1)?;
            Some(SocketAddr::new(peer.ip(), port))
        });
        let (Some(source), Some(to)) = (&mut self.source, self.control_peer.or(after_media)) else {
            return;
        };
        let block = source.report(now);
        let compound = CompoundWriter::default()
            .receiver_report(self.ssrc, block.as_slice())
            .cname(self.ssrc, &self.config.cname)
            .into_bytes();
        let Some(packet) = self.pool.copy(&compound, Meta { arrival: now, ..Meta::default() }) else {
            self.stats.no_buffer += 1;
            return;
        };
        if self.transmits.len() >= TRANSMITS_MAX {
            self.transmits.pop_front();
            self.stats.overflow += 1;
        }
        let header = WireHeader::new();
        self.transmits.push_back(Transmit { port: Port::Control, to: Some(to), header, payload: Some(packet) });
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
        // A sender may use one port for both (RFC 5761).
        match datagram.port {
            Port::FecColumns | Port::FecRows => self.handle_fec(now, datagram.packet),
            Port::Media if !is_rtcp(&datagram.packet) => self.handle_media(now, datagram),
            Port::Media | Port::Control => self.handle_control(&datagram),
        }
    }

    fn handle_packet(&mut self, _now: Time, _packet: &Packet) {}

    fn handle_timeout(&mut self, now: Time) {
        if let Some(fec) = &mut self.fec {
            fec.handle_timeout(now);
            self.take_recovered(now);
        }
        self.reorder.expire(now, &mut self.packets);
        if self.report_at.is_some_and(|report_at| report_at <= now) {
            self.report_at = Some(now + report_interval(&mut self.random));
            if !self.ended {
                self.report(now);
            }
        }
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    fn poll_packet(&mut self) -> Option<Packet> {
        // A packet without payload keeps a path open (RFC 6263 4.1); it has a number but nothing for the bus.
        loop {
            let mut packet = self.packets.pop_front()?;
            if !packet.is_empty() {
                packet.meta.discontinuity |= std::mem::take(&mut self.is_mark_due);
                return Some(packet);
            }
            self.is_mark_due |= packet.meta.discontinuity;
        }
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn poll_timeout(&self) -> Option<Time> {
        let fec = self.fec.as_ref().and_then(Decoder::poll_timeout);
        [self.reorder.deadline(), self.report_at, fec].into_iter().flatten().min()
    }

    fn stats(&self) -> Stats {
        let jitter = self.source.as_ref().map_or(Duration::ZERO, Source::jitter);
        Stats { lost: self.reorder.lost(), jitter, ..self.stats }
    }

    fn visit_details(&self, visit: &mut dyn FnMut(&[Detail])) {
        if let Some(fec) = &self.fec {
            let stats = fec.stats();
            visit(&[
                ("columns_received", stats.columns_received as f64),
                ("rows_received", stats.rows_received as f64),
                ("repaired", stats.repaired as f64),
                ("unrepaired", stats.unrepaired as f64),
                ("out_of_range", stats.out_of_range as f64),
                ("malformed", stats.malformed as f64),
                ("refused", stats.refused as f64),
                ("no_buffer", stats.no_buffer as f64),
                ("overflow", stats.overflow as f64),
                ("matrix_columns", stats.matrix_columns.into()),
                ("matrix_rows", stats.matrix_rows.into()),
                ("window_ms", self.reorder.window().as_secs_f64() * 1e3),
            ]);
        }
    }
}

/// A packet and the header that was taken off it.
#[derive(Debug)]
struct Arrived {
    header: Header,
    peer: SocketAddr,
    /// The whole datagram.
    packet: Packet,
    /// Where in it the payload stands.
    payload: Range<usize>,
}

impl Arrived {
    fn is_followed_by(&self, next: &Self) -> bool {
        self.header.ssrc == next.header.ssrc && self.header.sequence.add(1) == next.header.sequence
    }
}

/// Half a second to a second, at random so that reports of many do not meet.
///
/// RFC 3550 6.2 has 5 s as its minimum and allows 360 divided by the session's kb/s, which is below a second from
/// 360 kb/s on. A report a second is some 100 bytes and keeps the round trip fresh.
pub(super) fn report_interval(random: &mut Random) -> Duration {
    Duration::from_millis(500 + random.below(500))
}

/// Packets that may wait for whoever drains the core, a full reorder window aside. Whoever runs it drains after every
/// batch, which is shorter.
const QUEUE_MAX: usize = 1_024;

/// Reports that may wait; older ones are of no use.
const TRANSMITS_MAX: usize = 4;

/// Events that may wait. Judgement: nobody reads a longer list of restarts.
const EVENTS_MAX: usize = 16;
