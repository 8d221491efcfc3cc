//! What stands in the headers of outgoing packets: numbers and timestamps of our own, or those they came with.

use super::config::{HeaderMode, SenderConfig};
use super::header::Header;
use super::random::Random;
use crate::bus::{Meta, Packet};
use crate::proto::mpegts::{SYNC_BYTE, TS_PACKET_BYTES};
use crate::units::{Seq, Ticks90k, Time};

/// Numbers the packets of one sender.
#[derive(Debug)]
pub(in crate::proto) struct Numbering {
    mode: HeaderMode,
    payload_type: u8,
    payload_bytes_max: usize,
    ssrc: u32,
    next_sequence: Seq<16>,
    /// What a timestamp of our own adds to the arrival (RFC 3550 5.1: random).
    timestamp_offset: u32,
}

impl Numbering {
    pub(in crate::proto) fn new(config: &SenderConfig, random: &mut Random) -> Self {
        Self {
            mode: config.header,
            payload_type: config.payload_type,
            payload_bytes_max: config.payload_bytes_max,
            ssrc: config.ssrc.unwrap_or_else(|| random.next() as u32),
            next_sequence: Seq::new(random.next() as u32),
            timestamp_offset: random.next() as u32,
        }
    }

    pub(super) const fn ssrc(&self) -> u32 {
        self.ssrc
    }

    pub(in crate::proto) fn timestamp(&self, meta: &Meta) -> u32 {
        match meta.rtp_timestamp {
            Some(timestamp) if self.mode == HeaderMode::Keep => timestamp,
            _ => ticks_at(meta.arrival).wrapping_add(self.timestamp_offset),
        }
    }

    /// Gives `each` the packet with its number, or its parts if it has to be cut. A discontinuity is that of the first
    /// part; it goes into the marker bit (RFC 2250 2.1).
    pub(in crate::proto) fn number(&mut self, packet: &Packet, mut each: impl FnMut(Seq<16>, Packet)) {
        let kept = packet.meta.sequence.filter(|_| self.mode == HeaderMode::Keep);
        let part_bytes = part_bytes(packet, self.payload_bytes_max);
        if kept.is_some() || packet.len() <= part_bytes {
            let sequence = kept.map_or(self.next_sequence, |sequence| Seq::new(sequence as u32));
            self.next_sequence = sequence.add(1);
            return each(sequence, packet.clone());
        }
        for start in (0..packet.len()).step_by(part_bytes) {
            let mut part = packet.slice(start..packet.len().min(start + part_bytes));
            part.meta.discontinuity &= start == 0;
            each(self.next_sequence, part);
            self.next_sequence = self.next_sequence.add(1);
        }
    }

    /// Without the marker.
    pub(in crate::proto) const fn header(&self, sequence: Seq<16>, timestamp: u32) -> Header {
        Header { marker: false, payload_type: self.payload_type, sequence, timestamp, ssrc: self.ssrc }
    }
}

/// Bytes in one datagram when `packet` has to be cut: whole TS packets if it is a transport stream.
pub(in crate::proto) fn part_bytes(packet: &Packet, payload_bytes_max: usize) -> usize {
    let is_ts = packet.first() == Some(&SYNC_BYTE) && packet.len().is_multiple_of(TS_PACKET_BYTES);
    if is_ts { (payload_bytes_max / TS_PACKET_BYTES).max(1) * TS_PACKET_BYTES } else { payload_bytes_max.max(1) }
}

/// A moment as an RTP timestamp.
pub(in crate::proto) const fn ticks_at(time: Time) -> u32 {
    Ticks90k::from_span(time.since(Time::ZERO)).0 as u32
}
