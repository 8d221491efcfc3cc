//! Exactly constant rate: when each slot of 188 bytes passes by, and what PCR is right there.

use std::time::Duration;

use crate::proto::mpegts::{PCR_MODULUS_27M, TS_PACKET_BYTES};
use crate::units::{Bitrate, Ticks27M, Time};

/// Packets of a fixed number of slots at a fixed rate, counted from the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proto::mpegts) struct Pace {
    rate: Bitrate,
    ts_packets: usize,
}

impl Pace {
    /// `rate` is above zero and counts all TS packets and nothing else; each packet has `ts_packets` of them.
    pub(in crate::proto::mpegts) const fn new(rate: Bitrate, ts_packets: usize) -> Self {
        Self { rate, ts_packets }
    }

    /// Slots in a packet.
    pub(in crate::proto::mpegts) const fn ts_packets(self) -> usize {
        self.ts_packets
    }

    /// Index of the first slot of the packet at `position`.
    pub(in crate::proto::mpegts) const fn first_slot(self, position: u64) -> u64 {
        position.saturating_mul(self.ts_packets as u64)
    }

    /// When the packet at `position` is due: the moment of its first byte.
    pub(in crate::proto::mpegts) fn due(self, start: Time, position: u64) -> Time {
        let bits_ns = u128::from(position) * self.packet_bits() * NS_PER_SECOND;
        start + Duration::from_nanos(saturating(bits_ns / self.rate_bps()))
    }

    /// The first position that is due at `now` or later.
    pub(in crate::proto::mpegts) fn position_at(self, start: Time, now: Time) -> u64 {
        let bits_ns = now.since(start).as_nanos() * self.rate_bps();
        saturating(bits_ns.div_ceil(self.packet_bits() * NS_PER_SECOND))
    }

    /// Whole slots that pass in `span`.
    pub(in crate::proto::mpegts) fn slots_in(self, span: Duration) -> u64 {
        let bits = span.as_nanos() * self.rate_bps() / NS_PER_SECOND;
        saturating(bits / (TS_PACKET_BYTES as u128 * 8))
    }

    /// The moment at which the byte with the last bit of the PCR base passes by (13818-1 2.4.2.3), at exactly the
    /// rate and cut to the tick, which is 37 ns; slot 0 passes when the clock shows `start`.
    pub(in crate::proto::mpegts) fn pcr(self, start: Ticks27M, slot: u64) -> Ticks27M {
        let ticks = self.ticks_at_byte(slot, PCR_BASE_LAST_BYTE) + u128::from(start.0);
        Ticks27M((ticks % u128::from(PCR_MODULUS_27M)) as u64)
    }

    /// Ticks from the first slot to `slot`, cut to the tick.
    pub(in crate::proto::mpegts) fn ticks_to(self, slot: u64) -> u64 {
        saturating(self.ticks_at_byte(slot, 0))
    }

    fn ticks_at_byte(self, slot: u64, byte: u128) -> u128 {
        (u128::from(slot) * TS_PACKET_BYTES as u128 + byte) * 8 * 27_000_000 / self.rate_bps()
    }

    const fn rate_bps(self) -> u128 {
        self.rate.as_bps() as u128
    }

    const fn packet_bits(self) -> u128 {
        (self.ts_packets * TS_PACKET_BYTES * 8) as u128
    }
}

fn saturating(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

/// Offset in the TS packet of the byte with the last bit of the PCR base: header, length and flags are six bytes, the
/// base is 33 bits.
const PCR_BASE_LAST_BYTE: u128 = 10;
const NS_PER_SECOND: u128 = 1_000_000_000;
