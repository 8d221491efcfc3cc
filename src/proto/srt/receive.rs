//! The receiving half of a connection in live mode: buffer, loss reports, acknowledgements, release in time.
//!
//! Follows draft 4.5 to 4.10 and libsrt 1.5. Packets lie in a ring by their extended sequence number. The window of the
//! ring starts at `start`; all before it has been released or given up:
//!
//! ```text
//!   released, given up │ held … held │ missing │ held │ missing │ held │ not sent yet, as far as we know
//!                      start         contiguous        ▲               end                      start + capacity
//!                                                      └ given up before, when this one is due
//! ```
//!
//! Nothing happens by itself: whoever owns the receiver hands in what came, then drains `poll_packet`, `poll_nak` and
//! `poll_ack`, and comes back at `poll_timeout`.

use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use super::acks::{Acks, RoundTrip, Wanted};
use super::arrival::Arrivals;
use super::missing::{Bits, Missing, Tolerance};
use super::tsbpd::{Stamp, Tsbpd};
use crate::bus::Packet;
use crate::units::{Seq, Time};

/// One peer's packets, from the handshake on.
#[derive(Debug)]
pub(super) struct Receiver {
    config: Config,
    tsbpd: Tsbpd,
    /// A power of two.
    slots: Box<[Option<Held>]>,
    /// Numbers of the window that nothing is expected for any more: held, or settled without a packet.
    present: Bits,
    /// Numbers just before the window that were released: the rest came to nothing.
    released: Bits,
    /// The lowest number neither released nor given up.
    start: u64,
    /// The lowest number that is not present: what an ACK asks for next.
    contiguous: u64,
    /// One more than the highest number heard of.
    end: u64,
    /// The same for what really came in a datagram: FEC and drop requests move only the other.
    wire_end: u64,
    /// The lowest number held, while there is one.
    first_held: u64,
    held: Count,
    missing: Missing,
    tolerance: Tolerance,
    nak_at: Time,
    nak: Vec<RangeInclusive<u64>>,
    acks: Acks,
    round_trip: RoundTrip,
    arrivals: Arrivals,
    /// A number beyond the window that came while nothing was held.
    stray: Option<u64>,
    payload_average: u64,
    stats: Stats,
}

/// What the handshake settled, and what the operator wants.
#[derive(Clone, Debug)]
pub(super) struct Config {
    /// The peer's initial sequence number, extended.
    pub(super) first: u64,
    /// Time from sending to release that both sides agreed on.
    pub(super) latency: Duration,
    /// When the handshake packet with the peer's extension (HSREQ or HSRSP) arrived.
    pub(super) base_arrival: Time,
    /// The timestamp in that packet's header, in microseconds of the peer's clock. It may name a moment before our epoch,
    /// which is why the difference of the two is not taken outside.
    pub(super) base_timestamp: u32,
    /// Whether what is missing when its successor is due is given up (TLPKTDROP); else the successor waits.
    pub(super) too_late_drop: bool,
    /// Whether what is missing is reported again and again (NAKREPORT).
    pub(super) nak_reports: bool,
    /// Whether gaps are reported at all without [`Receiver::report`]: not if FEC fills them.
    pub(super) gap_reports: bool,
    /// Most packets that a gap may wait for reordering before it is reported (`SRTO_LOSSMAXTTL`).
    pub(super) reorder_max: u32,
    /// Packets in the buffer, rounded up to a power of two; 64 to [`CAPACITY_MAX`].
    pub(super) capacity: usize,
    /// Bytes of payload in a full datagram; bounds a NAK.
    pub(super) payload_max: usize,
}

/// A data packet.
#[derive(Clone, Debug)]
pub(super) struct Data {
    /// Extended by [`Receiver::extend`].
    pub(super) sequence: u64,
    /// From the header, in microseconds of the peer's clock.
    pub(super) timestamp: u32,
    /// How it came.
    pub(super) origin: Origin,
    /// The payload in the clear, with its arrival.
    pub(super) packet: Packet,
}

/// How a packet came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// In a datagram, sent for the first time.
    Original,
    /// In a datagram with the R flag (draft 3.1).
    Retransmitted,
    /// Rebuilt from others by FEC.
    Rebuilt,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrived {
    /// Will be released in its time.
    New,
    /// Is held or was released already: dropped.
    Duplicate,
    /// Came after it was given up: dropped.
    Late,
    /// Does not fit the buffer: dropped. Reported as missing later, when there is room.
    Beyond,
}

/// An acknowledgement to send (draft 3.2.4, 4.8.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ack {
    /// All before `next` has come; wants no answer.
    Light {
        /// The first packet not acknowledged.
        next: u64,
    },
    /// All before `next` has come; the peer answers with an ACKACK of the same number.
    Full {
        /// Number of this ACK, 31 bits.
        number: u32,
        /// The first packet not acknowledged.
        next: u64,
        /// Smoothed round-trip time.
        round_trip: Duration,
        /// Its variation.
        variation: Duration,
        /// Packets that the buffer has room for from `next` on.
        available: u32,
        /// Packets that arrive in a second.
        packets_per_second: u32,
        /// Packets that the link could carry in a second.
        capacity_per_second: u32,
        /// Bytes that arrive in a second, with headers.
        bytes_per_second: u32,
    },
}

/// Packets, and the bytes of their payloads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

/// Counters since the start, and what is true now. The names of libsrt's statistics stand behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stats {
    /// Data packets in datagrams, all of them (`pktRecv`).
    pub(super) received: Count,
    /// Packets taken into the buffer (`pktRecvUnique`).
    pub(super) unique: Count,
    /// Packets that were missing when a later one came; bytes by the average (`pktRcvLoss`).
    pub(super) lost: Count,
    /// Packets with the R flag (`pktRcvRetrans`).
    pub(super) retransmitted: Count,
    /// Those of them that filled a gap.
    pub(super) recovered: Count,
    /// Packets rebuilt by FEC that filled a gap.
    pub(super) rebuilt: Count,
    /// Originals that came after a later one and filled a gap.
    pub(super) reordered: Count,
    /// Packets that came when their turn was over, given up or released (`pktRcvBelated`).
    pub(super) belated: Count,
    /// Those of them that had been given up.
    pub(super) late: Count,
    /// Packets that were held or had been released.
    pub(super) duplicate: Count,
    /// Packets that the buffer had no room for.
    pub(super) beyond: Count,
    /// Packets that came and could not be decrypted.
    pub(super) undecrypted: Count,
    /// Packets given up, those that could not be decrypted among them; bytes by the average (`pktRcvDrop`).
    pub(super) dropped: Count,
    /// Times that the peer was found beyond the buffer and followed.
    pub(super) jumps: u64,
    /// Drop requests that made no sense.
    pub(super) drop_requests_refused: u64,
    /// Acknowledgements made, full ones (`pktSentACK`).
    pub(super) acks: u64,
    /// Loss reports made (`pktSentNAK`).
    pub(super) naks: u64,
    /// By how much belated packets came late, smoothed (`pktRcvAvgBelatedTime`).
    pub(super) belated_by: Duration,
    /// Greatest distance of a reordered packet (`pktReorderDistance`).
    pub(super) reorder_distance: u64,
    /// Packets that a gap waits for before it is reported (`pktReorderTolerance`).
    pub(super) reorder_tolerance: u32,
    /// What is held now (`pktRcvBuf`).
    pub(super) held: Count,
    /// From the first packet held to the last (`msRcvBuf`).
    pub(super) held_span: Duration,
    /// Packets that there is room for (`byteAvailRcvBuf`, times the MSS).
    pub(super) available: u64,
    /// How much later packets are released because the clocks drift, in microseconds.
    pub(super) drift_us: i64,
    /// Packets that arrive in a second, and bytes with headers.
    pub(super) arrival_rate: (u32, u32),
    /// Packets that the link could carry in a second (`mbpsBandwidth`).
    pub(super) capacity_per_second: u32,
}

#[derive(Debug)]
struct Held {
    stamp: Stamp,
    packet: Packet,
}

impl Receiver {
    /// Expects the first packet.
    pub(super) fn new(mut config: Config, now: Time) -> Self {
        config.payload_max = config.payload_max.clamp(PAYLOAD_MIN, PAYLOAD_MAX);
        let capacity = config.capacity.clamp(CAPACITY_MIN, CAPACITY_MAX).next_power_of_two();
        let first = config.first;
        Self {
            tsbpd: Tsbpd::new(config.base_arrival, config.base_timestamp, config.latency),
            slots: std::iter::repeat_with(|| None).take(capacity).collect(),
            present: Bits::new(capacity),
            released: Bits::new(capacity),
            start: first,
            contiguous: first,
            end: first,
            wire_end: first,
            first_held: first,
            held: Count::default(),
            missing: Missing::new(capacity),
            tolerance: Tolerance::new(config.reorder_max),
            nak_at: now,
            nak: Vec::with_capacity(config.payload_max / 4),
            acks: Acks::new(first, now),
            round_trip: RoundTrip::default(),
            arrivals: Arrivals::new(config.payload_max, now),
            stray: None,
            payload_average: PAYLOAD_USUAL,
            stats: Stats::default(),
            config,
        }
    }

    /// The number that a sequence number of the peer's means: the one nearest to what has come so far.
    pub(super) fn extend(&self, sequence: Seq<31>) -> u64 {
        self.end.saturating_add_signed(i64::from(Seq::<31>::new(self.end as u32).distance(sequence)))
    }

    /// A data packet came, or was rebuilt.
    pub(super) fn handle_data(&mut self, now: Time, data: Data) -> Arrived {
        let bytes = data.packet.len();
        self.count_wire(data.sequence, data.origin, data.packet.meta.arrival, bytes);
        let arrived = self.admit(data.sequence);
        if arrived != Arrived::Beyond {
            self.count_gap(data.sequence, data.origin);
        }
        match arrived {
            Arrived::New => self.insert(now, data),
            Arrived::Duplicate | Arrived::Late => self.count_behind(now, &data, arrived),
            Arrived::Beyond => self.stats.beyond.add(bytes),
        }
        arrived
    }

    /// A data packet came that cannot be decrypted. It is given up at once: sent again it would be the same.
    pub(super) fn handle_undecrypted(&mut self, now: Time, sequence: u64, origin: Origin, arrival: Time, bytes: usize) {
        self.count_wire(sequence, origin, arrival, bytes);
        self.stats.undecrypted.add(bytes);
        if self.admit(sequence) == Arrived::New {
            self.count_gap(sequence, origin);
            self.present.insert(sequence);
            self.stats.dropped.add(bytes);
            self.settle(now, sequence, origin);
            self.skip_settled();
        }
    }

    /// The peer will not send `first` to `last` any more (draft 3.2.9), nor shall it be asked. With too-late drop they
    /// keep their chance to come by another way until they are due.
    pub(super) fn handle_drop_request(&mut self, first: u64, last: u64) {
        if first > last || last >= SEQUENCE_END {
            self.stats.drop_requests_refused += 1;
            return;
        }
        if first <= self.end && last >= self.end {
            self.end = self.end.max((last + 1).min(self.window_end()));
        }
        let range = first.max(self.start)..(last + 1).min(self.end);
        if range.is_empty() {
            return;
        }
        self.missing.remove_range(range.clone());
        if !self.config.too_late_drop {
            let dropped = self.present.insert_range(range);
            self.count_dropped(dropped as u64);
            self.extend_contiguous();
            self.skip_settled();
        }
    }

    /// The peer answered ACK `number` (draft 3.2.5) at `timestamp` of its clock.
    pub(super) fn handle_ack_ack(&mut self, arrival: Time, number: u32, timestamp: u32) {
        if let Some(sent) = self.acks.confirm(number) {
            // Two clock reads may be equal.
            let round_trip = arrival.since(sent).max(Duration::from_micros(1));
            self.round_trip.insert(round_trip);
            self.tsbpd.measure(timestamp, arrival, round_trip);
        }
    }

    /// FEC gave up on `first` to `last`: the next NAK names what is missing of them.
    pub(super) fn report(&mut self, first: u64, last: u64) {
        self.urge(first..last.saturating_add(1));
    }

    /// The next packet that is due, in order, with its extended sequence number.
    pub(super) fn poll_packet(&mut self, now: Time) -> Option<Packet> {
        if self.release_at()? > now {
            return None;
        }
        if self.first_held > self.start {
            self.give_up_before(self.first_held);
        }
        let slot = self.slot(self.start);
        let packet = self.slots[slot].take()?.packet;
        self.present.remove(self.start);
        self.released.insert(self.start);
        self.held.packets -= 1;
        self.held.bytes -= packet.len() as u64;
        self.start += 1;
        self.contiguous = self.contiguous.max(self.start);
        self.skip_settled();
        self.find_first_held();
        Some(packet)
    }

    /// What a NAK shall name now, lowest first; `None` when there is none left to send.
    pub(super) fn poll_nak(&mut self, now: Time) -> Option<&[RangeInclusive<u64>]> {
        if self.nak_deadline().is_some_and(|at| at <= now) {
            self.urge(self.start..self.end);
            self.nak_at = now + self.round_trip.nak_interval();
        }
        if !self.missing.is_urgent() {
            return None;
        }
        self.nak.clear();
        self.missing.take_urgent(self.start..self.end, self.config.payload_max / 4, &mut self.nak);
        if self.nak.is_empty() {
            return None;
        }
        self.stats.naks += 1;
        Some(&self.nak)
    }

    /// The ACK to send now; `None` when there is none left.
    pub(super) fn poll_ack(&mut self, now: Time) -> Option<Ack> {
        match self.acks.poll(now, self.contiguous, self.available(), &self.round_trip)? {
            Wanted::Light => Some(Ack::Light { next: self.contiguous }),
            Wanted::Full => {
                let available = self.available();
                let number = self.acks.record(now, self.contiguous, available);
                let (packets_per_second, bytes_per_second) = self.arrivals.rates();
                self.stats.acks += 1;
                Some(Ack::Full {
                    number,
                    next: self.contiguous,
                    round_trip: self.round_trip.smoothed(),
                    variation: self.round_trip.variation(),
                    available: available as u32,
                    packets_per_second,
                    capacity_per_second: self.arrivals.capacity(),
                    bytes_per_second,
                })
            }
        }
    }

    /// When one of the above has something, if nothing comes until then.
    pub(super) fn poll_timeout(&self) -> Option<Time> {
        let ack = self.acks.deadline(self.contiguous, self.available(), &self.round_trip);
        [self.release_at(), self.nak_deadline(), ack].into_iter().flatten().min()
    }

    /// The lowest number that has not come and is not given up.
    pub(super) const fn next_expected(&self) -> u64 {
        self.contiguous
    }

    /// Smoothed round-trip time and its variation; a guess until the first ACKACK.
    pub(super) const fn round_trip(&self) -> (Duration, Duration) {
        (self.round_trip.smoothed(), self.round_trip.variation())
    }

    /// Counters and measurements.
    pub(super) fn stats(&self) -> Stats {
        Stats {
            reorder_distance: self.tolerance.distance_max(),
            reorder_tolerance: self.tolerance.packets(),
            held: self.held,
            held_span: self.held_span(),
            available: self.available(),
            drift_us: self.tsbpd.correction_us(),
            arrival_rate: self.arrivals.rates(),
            capacity_per_second: self.arrivals.capacity(),
            ..self.stats
        }
    }

    /// Decides about a number, and follows the peer if it is far ahead.
    fn admit(&mut self, sequence: u64) -> Arrived {
        if sequence < self.start {
            let is_known = self.start - sequence <= self.slots.len() as u64;
            return if is_known && self.released.contains(sequence) { Arrived::Duplicate } else { Arrived::Late };
        }
        if sequence >= self.window_end() && !self.jump(sequence) {
            return Arrived::Beyond;
        }
        if self.present.contains(sequence) {
            let is_held = self.slots[self.slot(sequence)].is_some();
            return if is_held { Arrived::Duplicate } else { Arrived::Late };
        }
        self.stray = None;
        Arrived::New
    }

    fn insert(&mut self, now: Time, data: Data) {
        let Data { sequence, timestamp, origin, mut packet } = data;
        let bytes = packet.len();
        packet.meta.sequence = Some(sequence);
        let stamp = self.tsbpd.stamp(timestamp, packet.meta.arrival);
        let slot = self.slot(sequence);
        self.slots[slot] = Some(Held { stamp, packet });
        self.present.insert(sequence);
        if self.held.packets == 0 || sequence < self.first_held {
            self.first_held = sequence;
        }
        self.held.add(bytes);
        self.stats.unique.add(bytes);
        if sequence < self.end {
            let filled = match origin {
                Origin::Original => &mut self.stats.reordered,
                Origin::Retransmitted => &mut self.stats.recovered,
                Origin::Rebuilt => &mut self.stats.rebuilt,
            };
            filled.add(bytes);
        }
        self.settle(now, sequence, origin);
    }

    /// A number is present that was not: finds and closes gaps.
    fn settle(&mut self, now: Time, sequence: u64, origin: Origin) {
        if sequence >= self.end {
            if sequence > self.end {
                self.open_gap(now, self.end..sequence);
            }
            self.end = sequence + 1;
            self.tolerance.in_order();
        } else {
            self.missing.remove(sequence);
            if origin == Origin::Original {
                self.tolerance.belated(sequence, self.end - 1 - sequence);
            } else {
                self.tolerance.in_order();
            }
        }
        if sequence == self.contiguous {
            self.extend_contiguous();
        }
        self.tolerance.arrived();
        while let Some(gap) = self.tolerance.poll_report() {
            self.urge(gap);
        }
    }

    fn open_gap(&mut self, now: Time, gap: Range<u64>) {
        if self.missing.len() == 0 {
            self.nak_at = now + self.round_trip.nak_interval();
        }
        self.missing.insert(gap.clone());
        if self.config.gap_reports && self.tolerance.gap(&gap) {
            self.urge(gap);
        }
    }

    fn urge(&mut self, range: Range<u64>) {
        self.missing.urge(range.start.max(self.start)..range.end.min(self.end));
    }

    /// Gives up all before `target`, which is held; nothing before it is.
    fn give_up_before(&mut self, target: u64) {
        let range = self.start..target;
        let settled = self.present.remove_range(range.clone());
        self.count_dropped(target - self.start - settled as u64);
        self.missing.remove_range(range.clone());
        self.released.remove_range(range);
        self.start = target;
        self.contiguous = self.contiguous.max(target);
        self.extend_contiguous();
    }

    /// The peer is beyond the window and nothing is held, as after a long outage: no use in waiting for what lies
    /// between. A single number may be a damaged one, so it takes two near each other. libsrt ends the connection.
    fn jump(&mut self, sequence: u64) -> bool {
        if self.held.packets > 0 || !self.config.too_late_drop || sequence >= SEQUENCE_END {
            return false;
        }
        let Some(target) =
            self.stray.replace(sequence).filter(|stray| (1..JUMP_NEAR).contains(&sequence.wrapping_sub(*stray)))
        else {
            return false;
        };
        let settled = self.present.count_range(self.start..self.end);
        self.count_dropped(target - self.start - settled as u64);
        self.present.clear();
        self.released.clear();
        self.missing.clear();
        self.tolerance.clear();
        (self.start, self.contiguous, self.end) = (target, target, target);
        self.stats.jumps += 1;
        true
    }

    /// Moves past numbers at the start that are settled without a packet.
    fn skip_settled(&mut self) {
        while self.start < self.contiguous && self.slots[self.slot(self.start)].is_none() {
            self.present.remove(self.start);
            self.released.remove(self.start);
            self.start += 1;
        }
    }

    fn extend_contiguous(&mut self) {
        self.contiguous = self.present.next_unset(self.contiguous..self.end).unwrap_or(self.end);
    }

    fn find_first_held(&mut self) {
        if self.held.packets == 0 {
            return;
        }
        let mut from = self.start;
        while let Some(present) = self.present.next_set(from..self.end) {
            if self.slots[self.slot(present)].is_some() {
                self.first_held = present;
                return;
            }
            from = present + 1;
        }
    }

    fn release_at(&self) -> Option<Time> {
        let is_blocked = self.first_held > self.start && !self.config.too_late_drop;
        if self.held.packets == 0 || is_blocked {
            return None;
        }
        let held = self.slots[self.slot(self.first_held)].as_ref()?;
        Some(self.tsbpd.due(held.stamp))
    }

    fn nak_deadline(&self) -> Option<Time> {
        let is_wanted = self.config.nak_reports && self.config.gap_reports && self.missing.len() > 0;
        is_wanted.then_some(self.nak_at)
    }

    /// Room from the first packet not acknowledged on (draft 3.2.4).
    const fn available(&self) -> u64 {
        self.slots.len() as u64 - (self.contiguous - self.start)
    }

    const fn window_end(&self) -> u64 {
        self.start + self.slots.len() as u64
    }

    const fn slot(&self, sequence: u64) -> usize {
        sequence as usize & (self.slots.len() - 1)
    }

    fn held_span(&self) -> Duration {
        let mut end = self.end;
        while let Some(last) = self.present.last_set(self.start..end) {
            let first = self.slots[self.slot(self.first_held)].as_ref();
            if let Some((first, last)) = first.zip(self.slots[self.slot(last)].as_ref()) {
                return self.tsbpd.due(last.stamp).since(self.tsbpd.due(first.stamp)) + PACKET_SPAN;
            }
            end = last;
        }
        Duration::ZERO
    }

    /// Counts and measures what came in a datagram, whatever becomes of it.
    fn count_wire(&mut self, sequence: u64, origin: Origin, arrival: Time, bytes: usize) {
        if origin == Origin::Rebuilt {
            return;
        }
        self.stats.received.add(bytes);
        if origin == Origin::Retransmitted {
            self.stats.retransmitted.add(bytes);
        }
        self.payload_average = (self.payload_average * 99 + ((bytes as u64) << AVERAGE_SHIFT)) / 100;
        self.arrivals.insert(sequence, arrival, bytes, sequence >= self.end && origin == Origin::Original);
        self.acks.count_packet();
    }

    /// Counts what is missing before a packet that came in a datagram and was not refused.
    fn count_gap(&mut self, sequence: u64, origin: Origin) {
        if sequence >= self.wire_end && origin != Origin::Rebuilt {
            let packets = sequence - self.wire_end;
            self.stats.lost.add_average(packets, self.payload_average);
            self.wire_end = sequence + 1;
        }
    }

    fn count_behind(&mut self, now: Time, data: &Data, arrived: Arrived) {
        let bytes = data.packet.len();
        if arrived == Arrived::Duplicate {
            self.stats.duplicate.add(bytes);
        } else {
            self.stats.late.add(bytes);
        }
        if data.sequence >= self.start {
            return;
        }
        self.stats.belated.add(bytes);
        let late_by = now.since(self.tsbpd.due(self.tsbpd.stamp(data.timestamp, data.packet.meta.arrival)));
        let average = self.stats.belated_by;
        // A weight of a fifth, as in libsrt.
        self.stats.belated_by = if average.is_zero() { late_by } else { (average * 4 + late_by) / 5 };
    }

    fn count_dropped(&mut self, packets: u64) {
        self.stats.dropped.add_average(packets, self.payload_average);
    }
}

impl Count {
    const fn add(&mut self, bytes: usize) {
        self.packets += 1;
        self.bytes += bytes as u64;
    }

    const fn add_average(&mut self, packets: u64, payload: u64) {
        self.packets += packets;
        self.bytes = self.bytes.saturating_add(packets.saturating_mul(payload >> AVERAGE_SHIFT));
    }
}

/// Most packets in a buffer: over a second of 10 Gb/s.
pub(super) const CAPACITY_MAX: usize = 1 << 20;

/// Fewest: one word of the bits.
const CAPACITY_MIN: usize = 64;

/// Extended numbers stay below, so that none overflows; no connection lives that long.
const SEQUENCE_END: u64 = 1 << 62;

/// Numbers beyond the window that are less than this apart belong together. Judgement: no burst is longer.
const JUMP_NEAR: u64 = 64;

/// Bounds of what a full datagram may hold: a range of a NAK, and what UDP has.
const PAYLOAD_MIN: usize = 8;
const PAYLOAD_MAX: usize = 65_535;

/// What a single packet in the buffer counts for (libsrt 1.5).
const PACKET_SPAN: Duration = Duration::from_millis(1);

/// The average payload is kept with this many bits of fraction, and starts at seven TS packets.
const AVERAGE_SHIFT: u32 = 8;
const PAYLOAD_USUAL: u64 = (7 * 188) << AVERAGE_SHIFT;
