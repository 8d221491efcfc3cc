//! A transport stream of exactly constant rate, for tests, measurements and slates, as a core without sockets.
//!
//! Layout, all of it fixed by the position in the stream:
//!
//! | PID | content |
//! |---|---|
//! | 0x0000 | PAT with program 1, at least every 100 ms |
//! | 0x1000 | PMT with one stream of type 0x06 (private PES), at least every 100 ms |
//! | 0x0100 | numbered packets, some of them with PCR, at least every 40 ms |
//! | 0x1fff | null packets, one in eight |
//!
//! Every numbered packet is a whole PES packet of `private_stream_2` (13818-1 2.4.3.7): `00 00 01 bf`, a 16-bit length,
//! then a 64-bit big-endian counter that starts at 0 and goes up by one from numbered packet to numbered packet, then
//! filler of 0xaa. [`number_of`] reads the counter, so a receiver sees loss, repetition and disorder.

use std::time::Duration;

use super::mux::pace::Pace;
use super::mux::timetable::{Due, Table, Timetable, next_cc};
use super::packet::{Adaptation, Pid, TS_PACKET_BYTES, TsPacket};
use super::psi::{Pat, Pmt, STREAM_TYPE_PRIVATE_PES};
use crate::bus::{Meta, Packet, Pool};
use crate::proto::{Core, Datagram, Event, Stats, Surroundings, Transmit};
use crate::units::{Bitrate, Ticks27M, Time};

/// Emits packets of whole TS packets; their arrival is the moment they were due.
///
/// A call that comes late catches up, unless it is more than [`LATE_MAX`] late: then the stream goes on at `now`, PCR
/// jumps by what was left out and says so (`discontinuity_indicator`), counters go on without a gap, and
/// [`Stats::overflow`] counts the packets left out. [`Stats::received`] counts packets emitted.
#[derive(Debug)]
pub struct Generator {
    pace: Pace,
    pool: Pool,
    /// The first packet's moment; set by the first call.
    start: Option<Time>,
    /// Packets are due up to here.
    now: Time,
    /// Index of the next packet.
    position: u64,
    multiplex: Multiplex,
    stats: Stats,
}

impl Generator {
    /// A stream that starts with the first call of `handle_timeout`.
    #[must_use]
    pub fn new(config: Config, surroundings: &Surroundings) -> Self {
        let pace = Pace::new(config.rate, config.ts_packets);
        Self {
            pace,
            pool: surroundings.pool.clone(),
            start: None,
            now: Time::ZERO,
            position: 0,
            multiplex: Multiplex::new(pace),
            stats: Stats::default(),
        }
    }
}

impl Core for Generator {
    fn handle_datagram(&mut self, _now: Time, _datagram: Datagram) {
        self.stats.unexpected += 1;
    }

    fn handle_packet(&mut self, _now: Time, _packet: &Packet) {}

    fn handle_timeout(&mut self, now: Time) {
        let start = *self.start.get_or_insert(now);
        if now.since(self.pace.due(start, self.position)) > LATE_MAX {
            let position = self.pace.position_at(start, now);
            self.stats.overflow += position - self.position;
            self.position = position;
            self.multiplex.timetable.jump(self.pace.first_slot(position), true);
        }
        self.now = now;
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        None
    }

    fn poll_packet(&mut self) -> Option<Packet> {
        let due = self.pace.due(self.start?, self.position);
        if due > self.now {
            return None;
        }
        let ts_packets = self.pace.ts_packets();
        let len = ts_packets * TS_PACKET_BYTES;
        let first_slot = self.pace.first_slot(self.position);
        self.position += 1;
        let Some(mut buffer) = self.pool.take(len) else {
            self.stats.no_buffer += 1;
            return None;
        };
        let (ts_slots, _) = buffer.as_chunks_mut::<TS_PACKET_BYTES>();
        for (slot, out) in (first_slot..).zip(ts_slots.iter_mut().take(ts_packets)) {
            self.multiplex.fill(slot, out);
        }
        self.stats.received += 1;
        Some(Packet::new(buffer, 0..len, Meta { arrival: due, ..Meta::default() }))
    }

    fn poll_event(&mut self) -> Option<Event> {
        None
    }

    fn poll_timeout(&self) -> Option<Time> {
        Some(self.start.map_or(Time::ZERO, |start| self.pace.due(start, self.position).max(self.now + REST)))
    }

    fn stats(&self) -> Stats {
        self.stats
    }
}

/// What stream to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    rate: Bitrate,
    ts_packets: usize,
}

impl Config {
    /// A stream of `rate`, 250 kb/s to 10 Gb/s counting all of its TS packets and nothing else, in packets of
    /// `ts_packets` TS packets, 1 to 7.
    ///
    /// # Errors
    /// What is out of bounds.
    pub fn new(rate: Bitrate, ts_packets: usize) -> Result<Self, ConfigError> {
        if !(RATE_MIN..=RATE_MAX).contains(&rate) {
            return Err(ConfigError::Rate);
        }
        if !(1..=TS_PACKETS_MAX).contains(&ts_packets) {
            return Err(ConfigError::TsPackets);
        }
        Ok(Self { rate, ts_packets })
    }
}

/// Why a configuration is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Below [`RATE_MIN`] or above [`RATE_MAX`].
    #[error("rate must be between 250k and 10G")]
    Rate,
    /// None, or more than [`TS_PACKETS_MAX`].
    #[error("a packet must have 1 to 7 TS packets")]
    TsPackets,
}

/// The counter of a numbered packet of this generator; `None` for any other TS packet.
#[must_use]
pub fn number_of(ts_packet: &[u8]) -> Option<u64> {
    let packet = TsPacket::parse(ts_packet).ok()?;
    if packet.pid != NUMBERED_PID {
        return None;
    }
    let (pes_header, rest) = packet.payload?.split_first_chunk::<PES_HEADER_BYTES>()?;
    let (number, _) = rest.split_first_chunk()?;
    pes_header.starts_with(&PES_START).then_some(u64::from_be_bytes(*number))
}

/// Decides what each slot of 188 bytes carries.
#[derive(Debug)]
struct Multiplex {
    pace: Pace,
    timetable: Timetable,
    number: u64,
    numbered_cc: u8,
    numbered: [u8; TS_PACKET_BYTES],
    null: [u8; TS_PACKET_BYTES],
}

impl Multiplex {
    fn new(pace: Pace) -> Self {
        let pat = Pat { stream_id: 1, version: 0, programs: &[(PROGRAM, PMT_PID)] };
        let pmt = Pmt {
            program: PROGRAM,
            version: 0,
            pcr_pid: NUMBERED_PID,
            streams: &[(STREAM_TYPE_PRIVATE_PES, NUMBERED_PID)],
        };
        let table_interval = pace.slots_in(TABLE_INTERVAL);
        let tables =
            [Table::new(Pid::PAT, table_interval, &pat.section()), Table::new(PMT_PID, table_interval, &pmt.section())];
        let mut null = [0; TS_PACKET_BYTES];
        TsPacket { pid: Pid::NULL, payload: Some(&[0xff; TS_PACKET_BYTES]), ..TsPacket::default() }.write(&mut null);
        Self {
            pace,
            timetable: Timetable::new(0, pace.slots_in(PCR_INTERVAL), tables),
            number: 0,
            numbered_cc: 0,
            numbered: numbered_packet(None),
            null,
        }
    }

    fn fill(&mut self, slot: u64, out: &mut [u8; TS_PACKET_BYTES]) {
        match self.timetable.next(slot, out) {
            Some(Due::Table) => {}
            Some(Due::Pcr { discontinuity, .. }) => {
                let pcr = Some(self.pace.pcr(Ticks27M(0), slot));
                *out = numbered_packet(Some(Adaptation { discontinuity, pcr, ..Adaptation::default() }));
                self.stamp(out, NUMBER_AT + PCR_FIELD_BYTES);
            }
            None if slot % NULL_PERIOD == NULL_PERIOD - 1 => *out = self.null,
            None => {
                *out = self.numbered;
                self.stamp(out, NUMBER_AT);
            }
        }
    }

    /// Writes counter and continuity counter into a numbered packet.
    fn stamp(&mut self, out: &mut [u8; TS_PACKET_BYTES], number_at: usize) {
        out[3] |= next_cc(&mut self.numbered_cc);
        out[number_at..number_at + 8].copy_from_slice(&self.number.to_be_bytes());
        self.number += 1;
    }
}

/// A numbered packet with counter and continuity counter zero.
fn numbered_packet(adaptation: Option<Adaptation<'_>>) -> [u8; TS_PACKET_BYTES] {
    let field_bytes = if adaptation.is_some() { PCR_FIELD_BYTES } else { 0 };
    let mut payload = [FILLER; TS_PACKET_BYTES - 4];
    let payload = &mut payload[field_bytes..];
    let pes_bytes = (payload.len() - PES_HEADER_BYTES) as u16;
    payload[..4].copy_from_slice(&PES_START);
    payload[4..6].copy_from_slice(&pes_bytes.to_be_bytes());
    payload[6..14].fill(0);
    let mut out = [0; TS_PACKET_BYTES];
    let pid = NUMBERED_PID;
    TsPacket { payload_unit_start: true, pid, adaptation, payload: Some(payload), ..TsPacket::default() }
        .write(&mut out);
    out
}

/// How late a call may be and still be caught up with. Judgement: longer than any scheduling hiccup, shorter than what
/// would flood a receiver.
pub const LATE_MAX: Duration = Duration::from_millis(500);
/// Above 42 Mb/s packets come several at a time, because a timer for each would cost more than the packet.
const REST: Duration = Duration::from_micros(250);

/// Slowest stream: below it PSI and PCR would fill the stream (PCR every fifth, tables every sixth slot).
pub const RATE_MIN: Bitrate = Bitrate::from_bps(250_000);

/// Fastest stream. Judgement: no network card here is faster.
pub const RATE_MAX: Bitrate = Bitrate::from_bps(10_000_000_000);

/// Most TS packets in one packet: 1316 bytes, what fits an Ethernet frame.
pub const TS_PACKETS_MAX: usize = 7;

/// PID of the numbered packets.
pub const NUMBERED_PID: Pid = Pid::from_low_bits(0x100);

/// PID of the PMT.
pub const PMT_PID: Pid = Pid::from_low_bits(0x1000);

const PROGRAM: u16 = 1;
/// 40 ms at most (TR 101 290, 2.3a); the margin is for jitter of whoever sends.
const PCR_INTERVAL: Duration = Duration::from_millis(35);
/// 100 ms at most (ETSI TS 101 154); margin as above.
const TABLE_INTERVAL: Duration = Duration::from_millis(90);
/// Judgement: enough null packets for what treats them specially to show.
const NULL_PERIOD: u64 = 8;
/// Start code and stream id of `private_stream_2` (13818-1 table 2-22).
const PES_START: [u8; 4] = [0x00, 0x00, 0x01, 0xbf];
const PES_HEADER_BYTES: usize = 6;
/// Where the counter stands in a numbered packet without PCR.
const NUMBER_AT: usize = 4 + PES_HEADER_BYTES;
/// Length byte, flags and PCR.
const PCR_FIELD_BYTES: usize = 8;
const FILLER: u8 = 0xaa;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::bus::PoolLimits;

    #[test]
    fn rate_is_exact_over_ten_seconds() {
        for (bps, ts_packets) in [(20_000_000, 7), (3_333_333, 7), (250_000, 1), (50_000_001, 3)] {
            let mut generator = generator(bps, ts_packets);
            let (mut now, mut bits) = (Time::ZERO, 0);
            let end = Time::ZERO + Duration::from_secs(10);
            let last = end - Duration::from_nanos(1);
            while now < end {
                generator.handle_timeout(now);
                bits += drain(&mut generator).iter().map(|packet| packet.len() as u64 * 8).sum::<u64>();
                now = if now < last { generator.poll_timeout().unwrap().min(last) } else { end };
            }
            let packet_bits = ts_packets as u64 * 1_504;
            assert_eq!(bits, (bps * 10).div_ceil(packet_bits) * packet_bits, "{bps}");
        }
    }

    #[test]
    fn pcr_is_the_byte_position_at_the_rate() {
        let rate_bps = 19_392_658;
        let mut last = None;
        let mut count = 0;
        for (slot, bytes) in ts_packets(rate_bps, 7, 10).iter().enumerate() {
            let packet = TsPacket::parse(bytes).unwrap();
            let Some(pcr) = packet.adaptation.and_then(|adaptation| adaptation.pcr) else {
                continue;
            };
            let exact_ns = (slot * 188 + 10) as f64 * 8e9 / rate_bps as f64;
            let pcr_ns = pcr.0 as f64 * 1_000.0 / 27.0;
            assert!((exact_ns - pcr_ns).abs() < 40.0, "slot {slot}: {exact_ns} {pcr_ns}");
            let step = pcr.0 - last.unwrap_or(pcr.0);
            assert!(step <= 40 * 27_000, "slot {slot}: {step}");
            last = Some(pcr.0);
            count += 1;
        }
        assert!((285..=290).contains(&count), "{count}");
    }

    #[test]
    fn tables_and_pcr_repeat_in_time_even_at_the_slowest_rate() {
        for bps in [250_000, 1_000_000, 20_000_000] {
            let slot_ms = 1_504_000.0 / bps as f64;
            let mut last = BTreeMap::new();
            let packets = ts_packets(bps, 1, 5);
            for (slot, bytes) in packets.iter().enumerate() {
                let packet = TsPacket::parse(bytes).unwrap();
                let has_pcr = packet.adaptation.is_some();
                if has_pcr || packet.pid == Pid::PAT || packet.pid == PMT_PID {
                    let since = slot - last.insert((packet.pid, has_pcr), slot).unwrap_or(0);
                    let limit_ms = if has_pcr { 40.0 } else { 100.0 };
                    assert!(since as f64 * slot_ms <= limit_ms, "{bps} {:?} {since}", packet.pid);
                }
            }
            assert!(last.values().all(|&slot| (packets.len() - slot) as f64 * slot_ms < 101.0), "{last:?}");
            assert_eq!(last.len(), 3);
        }
    }

    #[test]
    fn continuity_counters_and_numbers_go_up_by_one() {
        let mut ccs = BTreeMap::new();
        let mut numbers = 0..;
        let mut nulls = 0;
        let packets = ts_packets(5_000_000, 7, 3);
        for bytes in &packets {
            let packet = TsPacket::parse(bytes).unwrap();
            nulls += usize::from(packet.pid == Pid::NULL);
            if packet.pid != Pid::NULL {
                let cc = ccs.insert(packet.pid, packet.cc).map_or(0, |cc| (cc + 1) & 0x0f);
                assert_eq!(packet.cc, cc, "{:?}", packet.pid);
            }
            if packet.pid == NUMBERED_PID {
                assert_eq!(number_of(bytes), numbers.next());
            } else {
                assert_eq!(number_of(bytes), None);
            }
        }
        assert!(nulls * 9 > packets.len(), "{nulls} of {}", packets.len());
    }

    #[test]
    fn a_late_call_catches_up_with_everything() {
        let mut generator = generator(1_316 * 8 * 1_000, 7);
        generator.handle_timeout(Time::ZERO);
        drain(&mut generator);
        generator.handle_timeout(Time::ZERO + Duration::from_millis(400));
        let arrivals: Vec<u64> = drain(&mut generator).iter().map(|packet| packet.meta.arrival.as_ns()).collect();
        assert_eq!(arrivals, (1..=400).map(|ms| ms * 1_000_000).collect::<Vec<_>>());
        assert_eq!(generator.stats().overflow, 0);
    }

    #[test]
    fn a_very_late_call_goes_on_at_now_and_says_so() {
        let mut generator = generator(1_316 * 8 * 1_000, 7);
        generator.handle_timeout(Time::ZERO);
        let before = drain(&mut generator);
        generator.handle_timeout(Time::ZERO + Duration::from_millis(700));
        let after = drain(&mut generator);
        assert_eq!(generator.stats().overflow, 699);
        assert_eq!(after.len(), 1);
        let first = TsPacket::parse(&after[0]).unwrap();
        let adaptation = first.adaptation.unwrap();
        assert!(adaptation.discontinuity);
        assert_eq!(adaptation.pcr.unwrap().0 / 27_000, 700);
        let last_number = before[0].chunks(188).filter_map(number_of).max().unwrap();
        assert_eq!(number_of(&after[0]), Some(last_number + 1));
    }

    #[test]
    fn an_empty_pool_costs_a_packet_and_not_the_pace() {
        let pool = Pool::new(PoolLimits { small_max: 128, large_max: 0 });
        let surroundings = Surroundings { pool: pool.clone(), seed: 0, unix_ns_at_zero: 0 };
        let mut generator = Generator::new(config(1_316 * 8 * 1_000, 7), &surroundings);
        let taken: Vec<_> = (0..128).map(|_| pool.take(1)).collect();
        generator.handle_timeout(Time::ZERO);
        assert!(generator.poll_packet().is_none());
        drop(taken);
        generator.handle_timeout(Time::ZERO + Duration::from_millis(1));
        assert_eq!(generator.poll_packet().unwrap().meta.arrival, Time::from_ns(1_000_000));
        assert_eq!((generator.stats().no_buffer, generator.stats().received), (1, 1));
    }

    #[test]
    fn bounds_are_checked_at_the_door() {
        assert_eq!(Config::new(Bitrate::from_bps(249_999), 7), Err(ConfigError::Rate));
        assert_eq!(Config::new(RATE_MAX, 8), Err(ConfigError::TsPackets));
        assert_eq!(Config::new(RATE_MAX, 0), Err(ConfigError::TsPackets));
        assert!(Config::new(RATE_MIN, 1).is_ok());
    }

    fn config(bps: u64, ts_packets: usize) -> Config {
        Config::new(Bitrate::from_bps(bps), ts_packets).unwrap()
    }

    fn generator(bps: u64, ts_packets: usize) -> Generator {
        let pool = Pool::new(PoolLimits::default());
        Generator::new(config(bps, ts_packets), &Surroundings { pool, seed: 0, unix_ns_at_zero: 0 })
    }

    fn drain(generator: &mut Generator) -> Vec<Packet> {
        std::iter::from_fn(|| generator.poll_packet()).collect()
    }

    /// All TS packets of `seconds`.
    fn ts_packets(bps: u64, ts_packets: usize, seconds: u64) -> Vec<Vec<u8>> {
        let mut generator = generator(bps, ts_packets);
        let mut out = Vec::new();
        for ms in (0..seconds * 1_000).step_by(10) {
            generator.handle_timeout(Time::from_ns(ms * 1_000_000));
            let packets = drain(&mut generator);
            out.extend(packets.iter().flat_map(|packet| packet.chunks(188)).map(<[u8]>::to_vec));
        }
        out
    }
}
