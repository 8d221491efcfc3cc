//! Sends RTP: puts a header before each packet, tells the receivers about it, listens to what they lost.

use std::collections::VecDeque;

use super::config::{HeaderMode, SenderConfig};
use super::header::Header;
use super::ntp;
use super::random::Random;
use super::receiver::report_interval;
use super::rtcp::{Compound, CompoundWriter, ReportBlocks, Rtcp, SenderInfo};
use crate::bus::{Meta, Packet, Pool};
use crate::proto::mpegts::{SYNC_BYTE, TS_PACKET_BYTES};
use crate::proto::{Core, Datagram, Event, Port, Stats, Surroundings, Transmit, WireHeader, wire_header};
use crate::units::{Seq, Ticks90k, Time};

/// Packets in, RTP datagrams out, the payload never copied; sender reports once or twice a second.
///
/// Both ports are connected to the receiver. The first report goes before the first packet: there are receivers that
/// take no media from a sender whose CNAME they have not heard (librist).
#[derive(Debug)]
pub struct Sender {
    config: SenderConfig,
    pool: Pool,
    unix_ns_at_zero: u64,
    random: Random,
    ssrc: u32,
    next_sequence: Seq<16>,
    /// What a timestamp of our own adds to the arrival (RFC 3550 5.1: random).
    timestamp_offset: u32,
    /// Timestamp and arrival of the latest packet: how the two clocks relate.
    latest: (u32, Time),
    media: VecDeque<Outgoing>,
    control: VecDeque<Packet>,
    /// Goes when nothing else is left.
    goodbye: Option<Packet>,
    sent: Sent,
    /// How much was sent at the last report.
    sent_at_report: Sent,
    report_at: Option<Time>,
    stats: Stats,
}

impl Sender {
    /// A sender that has not sent anything.
    #[must_use]
    pub fn new(config: SenderConfig, surroundings: &Surroundings) -> Self {
        let mut random = Random::new(surroundings.seed);
        Self {
            ssrc: config.ssrc.unwrap_or_else(|| random.next() as u32),
            config,
            pool: surroundings.pool.clone(),
            unix_ns_at_zero: surroundings.unix_ns_at_zero,
            next_sequence: Seq::new(random.next() as u32),
            timestamp_offset: random.next() as u32,
            random,
            latest: (0, Time::ZERO),
            media: VecDeque::new(),
            control: VecDeque::new(),
            goodbye: None,
            sent: Sent::default(),
            sent_at_report: Sent::default(),
            report_at: None,
            stats: Stats::default(),
        }
    }

    fn enqueue(&mut self, sequence: Seq<16>, timestamp: u32, payload: Packet) {
        self.next_sequence = sequence.add(1);
        self.sent.packets = self.sent.packets.wrapping_add(1);
        self.sent.octets = self.sent.octets.wrapping_add(payload.len() as u32);
        self.media.push_back(Outgoing { sequence, timestamp, payload });
    }

    fn timestamp(&self, meta: &Meta) -> u32 {
        match meta.rtp_timestamp {
            Some(timestamp) if self.config.header == HeaderMode::Keep => timestamp,
            _ => ticks_at(meta.arrival).wrapping_add(self.timestamp_offset),
        }
    }

    /// SR and SDES, or an empty RR in place of the SR when nothing was sent since the last report (RFC 3550 6.4).
    fn compound(&mut self, now: Time) -> CompoundWriter {
        let is_first = self.report_at.is_none();
        let compound = CompoundWriter::default();
        let compound = if self.sent != self.sent_at_report || is_first {
            let (timestamp, arrival) = self.latest;
            let info = SenderInfo {
                ntp: ntp::ntp_at(self.unix_ns_at_zero, now),
                rtp_timestamp: timestamp.wrapping_add(ticks_at(now).wrapping_sub(ticks_at(arrival))),
                packets: self.sent.packets,
                octets: self.sent.octets,
            };
            compound.sender_report(self.ssrc, &info, &[])
        } else {
            compound.receiver_report(self.ssrc, &[])
        };
        self.sent_at_report = self.sent;
        compound.cname(self.ssrc, &self.config.cname)
    }

    fn report(&mut self, now: Time) {
        let compound = self.compound(now);
        self.report_at = Some(now + report_interval(&mut self.random));
        let Some(packet) = self.control_packet(now, compound) else {
            return;
        };
        if self.control.len() >= CONTROL_MAX {
            self.control.pop_front();
            self.stats.overflow += 1;
        }
        self.control.push_back(packet);
    }

    fn control_packet(&mut self, now: Time, compound: CompoundWriter) -> Option<Packet> {
        let packet = self.pool.copy(&compound.into_bytes(), Meta { arrival: now, ..Meta::default() });
        self.stats.no_buffer += u64::from(packet.is_none());
        packet
    }

    /// What a receiver says about us: loss, and the round trip from when our report left until its answer came, less
    /// the time it kept it (RFC 3550 6.4.1).
    fn handle_reports(&mut self, arrival: Time, reports: ReportBlocks<'_>) {
        for block in reports.iter().filter(|block| block.ssrc == self.ssrc) {
            self.stats.peer_fraction_lost = Some(block.fraction_lost);
            let arrival = ntp::middle(ntp::ntp_at(self.unix_ns_at_zero, arrival));
            let round_trip = arrival.wrapping_sub(block.last_sr).wrapping_sub(block.since_last_sr);
            // Rounding on both sides may put a short round trip just below zero.
            if block.last_sr != 0 && round_trip.cast_signed() >= -2 {
                self.stats.round_trip = Some(ntp::span_from_short(round_trip.cast_signed().max(0).cast_unsigned()));
            }
        }
    }
}

impl Core for Sender {
    fn handle_datagram(&mut self, _now: Time, datagram: Datagram) {
        if datagram.port == Port::Media {
            self.stats.unexpected += 1;
            return;
        }
        for packet in Compound::new(&datagram.packet) {
            match packet {
                Ok(Rtcp::SenderReport { reports, .. } | Rtcp::ReceiverReport { reports, .. }) => {
                    self.handle_reports(datagram.packet.meta.arrival, reports);
                }
                Ok(Rtcp::SourceDescription(_) | Rtcp::Goodbye(_) | Rtcp::Other { .. }) => {}
                Err(_) => self.stats.malformed += 1,
            }
        }
    }

    fn handle_packet(&mut self, now: Time, packet: &Packet) {
        if self.media.len() >= QUEUE_MAX {
            self.stats.overflow += 1;
            return;
        }
        let timestamp = self.timestamp(&packet.meta);
        self.latest = (timestamp, packet.meta.arrival);
        if self.report_at.is_none() {
            self.report(now);
        }
        self.stats.received += 1;
        let kept = packet.meta.sequence.filter(|_| self.config.header == HeaderMode::Keep);
        let part_bytes = part_bytes(packet, self.config.payload_bytes_max);
        if let Some(sequence) = kept {
            self.enqueue(Seq::new(sequence as u32), timestamp, packet.clone());
        } else if packet.len() <= part_bytes {
            self.enqueue(self.next_sequence, timestamp, packet.clone());
        } else {
            for start in (0..packet.len()).step_by(part_bytes) {
                let part = packet.slice(start..packet.len().min(start + part_bytes));
                self.enqueue(self.next_sequence, timestamp, part);
            }
        }
    }

    fn handle_timeout(&mut self, now: Time) {
        if self.report_at.is_some_and(|report_at| report_at <= now) {
            self.report(now);
        }
    }

    /// A last report with BYE (RFC 3550 6.6), behind what was handed in before.
    fn handle_close(&mut self, now: Time) {
        let goodbye = self.compound(now).goodbye(self.ssrc);
        self.goodbye = self.control_packet(now, goodbye);
        self.report_at = None;
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        if let Some(report) = self.control.pop_front() {
            return Some(control_transmit(report));
        }
        let Some(Outgoing { sequence, timestamp, payload }) = self.media.pop_front() else {
            return self.goodbye.take().map(control_transmit);
        };
        let payload_type = self.config.payload_type;
        let header = Header { marker: false, payload_type, sequence, timestamp, ssrc: self.ssrc };
        let header = wire_header(&header.to_bytes());
        Some(Transmit { port: Port::Media, to: None, header, payload: Some(payload) })
    }

    fn poll_packet(&mut self) -> Option<Packet> {
        None
    }

    fn poll_event(&mut self) -> Option<Event> {
        None
    }

    fn poll_timeout(&self) -> Option<Time> {
        self.report_at
    }

    fn stats(&self) -> Stats {
        self.stats
    }
}

/// A datagram that waits for its header.
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

const fn control_transmit(compound: Packet) -> Transmit {
    Transmit { port: Port::Control, to: None, header: WireHeader::new_const(), payload: Some(compound) }
}

/// Bytes in one datagram when `packet` has to be cut: whole TS packets if it is a transport stream.
pub(in crate::proto) fn part_bytes(packet: &Packet, payload_bytes_max: usize) -> usize {
    let is_ts = packet.first() == Some(&SYNC_BYTE) && packet.len().is_multiple_of(TS_PACKET_BYTES);
    if is_ts { (payload_bytes_max / TS_PACKET_BYTES).max(1) * TS_PACKET_BYTES } else { payload_bytes_max.max(1) }
}

const fn ticks_at(time: Time) -> u32 {
    Ticks90k::from_span(time.since(Time::ZERO)).0 as u32
}

/// Packets that may wait for whoever drains the core; parts of one packet may exceed it. Whoever runs it drains after
/// every batch, which is shorter.
const QUEUE_MAX: usize = 1_024;

/// Reports that may wait; older ones are of no use.
const CONTROL_MAX: usize = 4;
