//! Sends RTP: puts a header before each packet, tells the receivers about it, listens to what they lost.

use std::collections::VecDeque;

use super::config::SenderConfig;
use super::feedback::Feedback;
use super::header::Header;
use super::ntp;
use super::numbering::{Numbering, ticks_at};
use super::random::Random;
use super::receiver::report_interval;
use super::rtcp::{CompoundWriter, SenderInfo};
use crate::bus::{Meta, Packet, Pool};
use crate::proto::fec::{Direction, Encoder, FecPacket};
use crate::proto::{Core, Datagram, Detail, Event, Port, Stats, Surroundings, Transmit, WireHeader, wire_header};
use crate::units::{Seq, Time};

/// Packets in, RTP datagrams out, the payload never copied; sender reports once or twice a second. The marker bit says
/// that the packet is a discontinuity (RFC 2250 2.1).
///
/// Both ports are connected to the receiver. The first report goes before the first packet: there are receivers that
/// take no media from a sender whose CNAME they have not heard (librist).
#[derive(Debug)]
pub struct Sender {
    config: SenderConfig,
    pool: Pool,
    unix_ns_at_zero: u64,
    random: Random,
    numbering: Numbering,
    /// Timestamp and arrival of the latest packet: how the two clocks relate.
    latest: (u32, Time),
    /// FEC packets stand here, too.
    media: VecDeque<Outgoing>,
    fec: Option<Encoder>,
    /// FEC packets of columns and rows so far.
    fec_sent: [u64; 2],
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
        let fec = config.fec.map(|matrix| Encoder::new(matrix, surroundings.pool.clone(), random.next()));
        Self {
            numbering: Numbering::new(&config, &mut random),
            config,
            pool: surroundings.pool.clone(),
            unix_ns_at_zero: surroundings.unix_ns_at_zero,
            random,
            latest: (0, Time::ZERO),
            media: VecDeque::new(),
            fec,
            fec_sent: [0; 2],
            control: VecDeque::new(),
            goodbye: None,
            sent: Sent::default(),
            sent_at_report: Sent::default(),
            report_at: None,
            stats: Stats::default(),
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
            compound.sender_report(self.numbering.ssrc(), &info, &[])
        } else {
            compound.receiver_report(self.numbering.ssrc(), &[])
        };
        self.sent_at_report = self.sent;
        compound.cname(self.numbering.ssrc(), &self.config.cname)
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

    /// How to read what receivers say about it.
    pub(super) const fn feedback(&self) -> Feedback {
        Feedback { ssrc: self.numbering.ssrc(), unix_ns_at_zero: self.unix_ns_at_zero }
    }
}

impl Core for Sender {
    fn handle_datagram(&mut self, _now: Time, datagram: Datagram) {
        self.feedback().handle(&datagram, &mut self.stats);
    }

    fn handle_packet(&mut self, now: Time, packet: &Packet) {
        if self.media.len() >= QUEUE_MAX {
            self.stats.overflow += 1;
            return;
        }
        let timestamp = self.numbering.timestamp(&packet.meta);
        self.latest = (timestamp, packet.meta.arrival);
        if self.report_at.is_none() {
            self.report(now);
        }
        self.stats.received += 1;
        let header = self.numbering.header(Seq::new(0), timestamp);
        let Self { numbering, sent, media, fec, fec_sent, .. } = self;
        numbering.number(packet, |sequence, payload| {
            sent.packets = sent.packets.wrapping_add(1);
            sent.octets = sent.octets.wrapping_add(payload.len() as u32);
            if let Some(fec) = fec {
                protect(fec, Header { sequence, marker: payload.meta.discontinuity, ..header }, &payload);
            }
            media.push_back(Outgoing::Media { sequence, timestamp, payload });
            if let Some(fec) = fec {
                enqueue(fec, fec_sent, media);
            }
        });
    }

    fn handle_timeout(&mut self, now: Time) {
        if self.report_at.is_some_and(|report_at| report_at <= now) {
            self.report(now);
        }
    }

    /// What is left of FEC, and a last report with BYE (RFC 3550 6.6), behind what was handed in before.
    fn handle_close(&mut self, now: Time) {
        if let Some(fec) = &mut self.fec {
            fec.finish();
            enqueue(fec, &mut self.fec_sent, &mut self.media);
        }
        let goodbye = self.compound(now).goodbye(self.numbering.ssrc());
        self.goodbye = self.control_packet(now, goodbye);
        self.report_at = None;
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        if let Some(report) = self.control.pop_front() {
            return Some(control_transmit(report));
        }
        match self.media.pop_front() {
            Some(Outgoing::Media { sequence, timestamp, payload }) => {
                let marker = payload.meta.discontinuity;
                let header = Header { marker, ..self.numbering.header(sequence, timestamp) };
                let header = wire_header(&header.to_bytes());
                Some(Transmit { port: Port::Media, to: None, header, payload: Some(payload) })
            }
            Some(Outgoing::Fec(FecPacket { direction, packet })) => {
                let port = match direction {
                    Direction::Column => Port::FecColumns,
                    Direction::Row => Port::FecRows,
                };
                Some(Transmit { port, to: None, header: WireHeader::new_const(), payload: Some(packet) })
            }
            None => self.goodbye.take().map(control_transmit),
        }
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
        let no_buffer = self.stats.no_buffer + self.fec.as_ref().map_or(0, Encoder::no_buffer);
        Stats { no_buffer, ..self.stats }
    }

    fn visit_details(&self, visit: &mut dyn FnMut(&[Detail])) {
        if let Some(fec) = &self.fec {
            let [columns, rows] = self.fec_sent;
            visit(&[
                ("columns_sent", columns as f64),
                ("rows_sent", rows as f64),
                ("matrix_columns", fec.matrix().columns().into()),
                ("matrix_rows", fec.matrix().rows().into()),
            ]);
        }
    }
}

/// A datagram that waits for its turn.
#[derive(Debug)]
enum Outgoing {
    Media { sequence: Seq<16>, timestamp: u32, payload: Packet },
    Fec(FecPacket),
}

/// Apart, as the way of packets without FEC is a third shorter so (benches/rtp.rs).
#[inline(never)]
fn protect(fec: &mut Encoder, header: Header, payload: &Packet) {
    fec.handle(&header.to_bytes(), payload);
}

/// What the encoder made goes behind the packet that it made it of.
#[inline(never)]
fn enqueue(fec: &mut Encoder, sent: &mut [u64; 2], media: &mut VecDeque<Outgoing>) {
    while let Some(fec) = fec.poll() {
        sent[fec.direction as usize] += 1;
        media.push_back(Outgoing::Fec(fec));
    }
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

/// Packets that may wait for whoever drains the core; parts of one packet, and FEC packets of them, may exceed
/// it. Whoever runs it drains after every batch, which is shorter.
const QUEUE_MAX: usize = 1_024;

/// Reports that may wait; older ones are of no use.
const CONTROL_MAX: usize = 4;
