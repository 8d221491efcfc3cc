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
    /// The peer's clock as it is known now.
    pub(super) tsbpd: Tsbpd,
    /// A power of two.
    slots: Box<[Option<Held>]>,
    /// Numbers of the window that nothing is expected for any more: held, or settled without a packet.
    present: Bits,
    /// Numbers just before the window that were released: the rest came to nothing.
    released: Bits,
    /// The lowest number neither released nor given up.
    pub(super) start: u64,
    /// The lowest number that is not present: what an ACK asks for next.
    contiguous: u64,
    /// When packets left last.
    released_at: Time,
    /// One more than the highest number heard of.
    pub(super) end: u64,
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
    /// A group keeps the packets, and this receiver only sees to the reports: see [`Receiver::join`].
    pub(super) is_shared: bool,
    /// Whether no packet has left yet.
    is_at_start: bool,
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

/// A data packet without its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Noted {
    /// Extended.
    pub(super) sequence: u64,
    /// How it came.
    pub(super) origin: Origin,
    /// When.
    pub(super) arrival: Time,
    /// Bytes of its payload.
    pub(super) bytes: usize,
}

impl Data {
    /// What remains to be known when the payload has gone its way.
    pub(super) fn noted(&self) -> Noted {
        let Self { sequence, origin, ref packet, .. } = *self;
        Noted { sequence, origin, arrival: packet.meta.arrival, bytes: packet.len() }
    }
}

/// How a packet came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// In a datagram, sent for the first time.
    Original,
    /// In a datagram with the R flag (draft 3.1).
    Retransmitted,
    /// Rebuilt from others by FEC, or brought by another member of a group than the one that misses it.
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
    /// Packets rebuilt by FEC that had not come.
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
            released_at: Time::ZERO,
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
            is_shared: false,
            is_at_start: true,
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
        if !self.config.too_late_drop && !self.is_shared {
            let dropped = self.present.insert_range(range);
            self.count_dropped(dropped as u64);
            self.extend_contiguous();
            self.skip_settled();
        }
    }

    /// The peer answered ACK `number` (draft 3.2.8) at `timestamp` of its clock.
    pub(super) fn handle_ack_ack(&mut self, arrival: Time, number: u32, timestamp: u32) {
        if let Some(sent) = self.acks.confirm(number) {
            // Two clock reads may be equal.
            let round_trip = arrival.since(sent).max(Duration::from_micros(1));
            self.round_trip.insert(round_trip);
            // Before the first answer the wait was for as long as one may take on a long path.
            self.nak_at = self.nak_at.min(arrival + self.round_trip.nak_interval());
            self.tsbpd.measure(timestamp, arrival, round_trip);
        }
    }

    /// FEC gave up on `first` to `last`: the next NAK names what is missing of them.
    pub(super) fn report(&mut self, first: u64, last: u64) {
        self.urge(first..last.saturating_add(1));
    }

    /// Whether a number is beyond the buffer.
    pub(super) const fn is_beyond(&self, sequence: u64) -> bool {
        sequence >= self.window_end()
    }

    /// The next packet that is due, in order, with its extended sequence number.
    pub(super) fn poll_packet(&mut self, now: Time) -> Option<Packet> {
        // What is due at one time leaves at one time.
        if self.due()? > now || (now < self.released_at + TOGETHER && now != self.released_at) {
            return None;
        }
        self.released_at = now;
        if self.first_held > self.start {
            self.give_up_before(self.first_held);
        }
        let slot = self.slot(self.start);
        let Held { mut packet, stamp } = self.slots[slot].take()?;
        packet.meta.arrival = self.tsbpd.due(stamp);
        packet.meta.discontinuity = std::mem::take(&mut self.is_at_start);
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
        let next = self.wanted();
        match self.acks.poll(now, next, self.available(), &self.round_trip)? {
            Wanted::Light => Some(Ack::Light { next }),
            Wanted::Full => {
                let available = self.available();
                let number = self.acks.record(now, next, available);
                let (packets_per_second, bytes_per_second) = self.arrivals.rates();
                self.stats.acks += 1;
                Some(Ack::Full {
                    number,
                    next,
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
        let ack = self.acks.deadline(self.wanted(), self.available(), &self.round_trip);
        [self.release_at(), self.nak_deadline(), ack].into_iter().flatten().min()
    }

    #[cfg(test)]
    pub(super) const fn next_expected(&self) -> u64 {
        self.contiguous
    }

    /// Changes how many packets a gap may wait for reordering.
    pub(super) fn set_reorder_max(&mut self, packets: u32) {
        self.tolerance.set_max(packets);
    }

    /// Smoothed round-trip time and its variation; a guess until the first ACKACK.
    pub(super) const fn round_trip(&self) -> (Duration, Duration) {
        (self.round_trip.smoothed(), self.round_trip.variation())
    }

    /// Packets that the link could carry in a second (`mbpsBandwidth`).
    pub(super) fn capacity_per_second(&self) -> u32 {
        self.arrivals.capacity()
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
            ..self.stats
        }
    }

    /// Hands the packets over to a group, which keeps them in `merged` and releases them by `clock`: from now on this
    /// receiver is told what came with [`Receiver::note`] and sees to the reports of its own link.
    pub(super) fn join(&mut self, now: Time, merged: &Self, clock: Tsbpd) {
        self.is_shared = true;
        self.tsbpd = clock;
        self.present = merged.present.clone();
        let first = merged.start;
        (self.start, self.contiguous, self.first_held) = (first, first, first);
        (self.end, self.wire_end) = (first, first);
        self.acks = Acks::new(first, now);
    }

    /// This packet came here, and `arrived` is what became of it in the group.
    pub(super) fn note(&mut self, now: Time, noted: &Noted, arrived: Arrived) {
        let Noted { sequence, origin, arrival, bytes } = *noted;
        self.count_wire(sequence, origin, arrival, bytes);
        if arrived == Arrived::Beyond || sequence >= self.window_end() {
            self.stats.beyond.add(bytes);
            return;
        }
        self.count_gap(sequence, origin);
        match arrived {
            Arrived::New => self.stats.unique.add(bytes),
            Arrived::Late => self.stats.late.add(bytes),
            Arrived::Duplicate | Arrived::Beyond => self.stats.duplicate.add(bytes),
        }
        if sequence < self.start {
            self.stats.belated.add(bytes);
            return;
        }
        // It may be there by another way and yet be the first to show where this link is.
        if self.present.insert(sequence) || sequence >= self.end {
            self.settle(now, sequence, origin);
            self.extend_contiguous();
        }
    }

    /// Another member of the group brought this one: no use in asking for it here.
    pub(super) fn elsewhere(&mut self, sequence: u64) {
        let is_inside = (self.start..self.window_end()).contains(&sequence);
        if is_inside && self.present.insert(sequence) && sequence < self.end {
            self.missing.remove(sequence);
            if sequence == self.contiguous {
                self.extend_contiguous();
            }
        }
    }

    /// The group has released or given up all before `start`.
    pub(super) fn follow(&mut self, start: u64) {
        if start <= self.start {
            return;
        }
        let past = self.start..start.min(self.window_end());
        self.present.remove_range(past.clone());
        self.missing.remove_range(past);
        self.start = start;
        self.contiguous = self.contiguous.max(start);
        self.end = self.end.max(start);
        self.extend_contiguous();
    }

    /// After a pause nothing before `next` is missing here: others carried it.
    pub(super) fn resume(&mut self, next: u64) {
        self.end = self.end.max(next);
        self.wire_end = self.wire_end.max(next);
        self.extend_contiguous();
    }

    /// Whether this number is not behind what came last on this link.
    pub(super) const fn is_ahead(&self, sequence: u64) -> bool {
        sequence >= self.wire_end
    }

    /// What an ACK asks for next. A member of a group claims nothing that did not come this way, though the group may
    /// have it: a peer that has not sent it here would take that for an attack (libsrt 1.5).
    fn wanted(&self) -> u64 {
        if self.is_shared { self.contiguous.min(self.wire_end) } else { self.contiguous }
    }

    /// Decides about a number, and follows the peer if it is far ahead.
    fn admit(&mut self, sequence: u64) -> Arrived {
        if sequence < self.start {
            let is_known = self.start - sequence <= self.slots.len() as u64;
            return if is_known && self.released.contains(sequence) { Arrived::Duplicate } else { Arrived::Late };
        }
        if self.is_beyond(sequence) && !self.jump(sequence) {
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
        // What was rebuilt may be the last packet of its group, which nobody has missed yet.
        if sequence < self.end || origin == Origin::Rebuilt {
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
            let gap = self.end..sequence;
            self.end = sequence + 1;
            if !gap.is_empty() {
                self.open_gap(now, gap);
            }
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
        if self.is_shared {
            self.forget_present(&gap);
        }
        if self.config.gap_reports && self.tolerance.gap(&gap) {
            self.urge(gap);
        }
    }

    /// Of a gap on one link others may have brought something.
    fn forget_present(&mut self, gap: &Range<u64>) {
        let mut from = gap.start;
        while let Some(first) = self.present.next_set(from..gap.end) {
            from = self.present.next_unset(first..gap.end).unwrap_or(gap.end);
            self.missing.remove_range(first..from);
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
        if self.held.packets > 0 || !self.config.too_late_drop || self.is_shared || sequence >= SEQUENCE_END {
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
        (self.start, self.contiguous, self.end) = (target, target, target);
        self.stats.jumps += 1;
        true
    }

    /// Moves past numbers at the start that are settled without a packet.
    fn skip_settled(&mut self) {
        // A group's members move on together.
        while !self.is_shared && self.start < self.contiguous && self.slots[self.slot(self.start)].is_none() {
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

    /// When packets leave next.
    pub(super) fn release_at(&self) -> Option<Time> {
        self.due().map(|due| due.max(self.released_at + TOGETHER))
    }

    /// When the time of the first packet held has come.
    fn due(&self) -> Option<Time> {
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

/// Judgement: packets closer than this leave together. One wake-up for each would cost more than the packet.
const TOGETHER: Duration = Duration::from_millis(1);
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

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::super::missing::tests::Random;
    use super::*;
    use crate::bus::{Meta, Pool, PoolLimits};
    use crate::units::Extender;

    #[test]
    fn a_packet_is_released_exactly_the_latency_after_it_was_sent() {
        let mut rig = Rig::new(|_| ());
        assert_eq!(rig.data(3, 0), Arrived::New);
        assert_eq!(rig.receiver.release_at(), Some(ms(100)));
        assert!(rig.receiver.poll_packet(ms(100) - Duration::from_nanos(1)).is_none());
        let packet = rig.receiver.poll_packet(ms(100)).unwrap();
        let (sequence, discontinuity) = (Some(FIRST), true);
        assert_eq!(packet.meta, Meta { arrival: ms(100), sequence, discontinuity, ..Meta::default() });
        assert_eq!(*packet, 0_u64.to_be_bytes());
        assert!(rig.receiver.poll_packet(ms(1_000)).is_none());
        assert_eq!(rig.receiver.release_at(), None);
    }

    #[test]
    fn what_is_due_within_a_millisecond_leaves_together() {
        let mut rig = Rig::new(|_| ());
        (0..4).for_each(|n| assert_eq!(rig.data(n, n), Arrived::New));
        rig.insert(ms(5), FIRST + 4, 3_500, Origin::Original);
        assert_eq!(rig.released(100), [0]);
        assert_eq!(rig.receiver.release_at(), Some(ms(101)));
        assert_eq!(rig.released(103), [1, 2, 3]);
        assert!(rig.receiver.poll_packet(ms(103) + Duration::from_micros(600)).is_none(), "due, but not yet together");
        assert_eq!(rig.receiver.release_at(), Some(ms(104)));
        assert_eq!(rig.released(104), [4]);
    }

    #[test]
    fn packets_that_come_in_disorder_leave_in_order() {
        let mut rig = Rig::new(|_| ());
        for n in [2, 0, 3, 1] {
            assert_eq!(rig.data(10, n), Arrived::New);
        }
        assert_eq!(rig.receiver.next_expected(), FIRST + 4);
        assert_eq!(rig.released(101), [0, 1]);
        assert_eq!(rig.released(200), [2, 3]);
        assert_eq!(rig.receiver.stats().dropped.packets, 0);
        assert_eq!(rig.receiver.stats().reordered.packets, 2);
    }

    #[test]
    fn a_gap_is_given_up_when_its_successor_is_due() {
        let mut rig = Rig::new(|_| ());
        rig.data(0, 0);
        rig.data(5, 4);
        assert_eq!(rig.released(103), [0]);
        assert_eq!((rig.receiver.next_expected(), rig.receiver.release_at()), (FIRST + 1, Some(ms(104))));
        assert_eq!(rig.released(104), [4]);
        assert_eq!(rig.receiver.next_expected(), FIRST + 5);
        assert_eq!(rig.data(105, 2), Arrived::Late);
        let stats = rig.receiver.stats();
        assert_eq!((stats.dropped.packets, stats.lost.packets, stats.late.packets), (3, 3, 1));
        assert_eq!((stats.belated.packets, stats.belated_by), (1, Duration::from_millis(3)));
        assert_eq!(rig.nak(500), None);
    }

    #[test]
    fn a_gap_filled_at_the_last_moment_is_no_loss() {
        let mut rig = Rig::new(|_| ());
        rig.data(0, 0);
        rig.data(5, 2);
        assert_eq!(rig.released(101), [0]);
        assert_eq!(rig.arrive(102, 1, Origin::Retransmitted), Arrived::New);
        assert_eq!(rig.released(102), [1, 2]);
        let stats = rig.receiver.stats();
        assert_eq!((stats.dropped.packets, stats.lost.packets, stats.recovered.packets), (0, 1, 1));
    }

    #[test]
    fn without_too_late_drop_a_gap_blocks_until_it_is_filled_or_dropped_by_the_sender() {
        let mut rig = Rig::new(|config| config.too_late_drop = false);
        for n in [0, 2, 4, 7] {
            rig.data(5, n);
        }
        assert_eq!(rig.released(5_000), [0]);
        assert_eq!(rig.arrive(5_001, 1, Origin::Retransmitted), Arrived::New);
        assert_eq!(rig.released(5_001), [1, 2]);
        rig.receiver.handle_drop_request(FIRST + 3, FIRST + 3);
        assert_eq!(rig.released(5_002), [4]);
        rig.receiver.handle_drop_request(FIRST + 6, FIRST + 6);
        assert_eq!(rig.arrive(5_003, 6, Origin::Retransmitted), Arrived::Late);
        assert_eq!(rig.released(5_003), [0_u64; 0]);
        rig.receiver.handle_drop_request(FIRST + 5, FIRST + 9);
        assert_eq!(rig.released(5_004), [7]);
        assert_eq!(rig.receiver.next_expected(), FIRST + 10);
        assert_eq!(rig.receiver.stats().dropped.packets, 5);
        assert_eq!(rig.data(5_005, 10), Arrived::New);
        assert_eq!(rig.released(5_005), [10]);
    }

    #[test]
    fn with_too_late_drop_a_drop_request_only_ends_the_asking() {
        let mut rig = Rig::new(|_| ());
        rig.data(0, 0);
        rig.data(5, 3);
        rig.receiver.handle_drop_request(FIRST + 1, FIRST + 2);
        assert_eq!((rig.nak(6), rig.nak(400)), (None, None));
        assert_eq!(rig.receiver.next_expected(), FIRST + 1);
        assert_eq!(rig.data(50, 1), Arrived::New);
        assert_eq!(rig.released(103), [0, 1, 3]);
        assert_eq!(rig.receiver.stats().dropped.packets, 1);
    }

    #[test]
    fn a_drop_request_ahead_of_all_that_came_opens_no_gap() {
        let mut rig = Rig::new(|_| ());
        rig.data(0, 0);
        rig.receiver.handle_drop_request(FIRST + 1, FIRST + 9);
        rig.data(10, 10);
        assert_eq!((rig.nak(10), rig.receiver.missing.len()), (None, 0));
        assert_eq!(rig.released(110), [0, 10]);
        let stats = rig.receiver.stats();
        assert_eq!((stats.lost.packets, stats.dropped.packets), (9, 9));
    }

    #[test]
    fn drop_requests_that_make_no_sense_change_nothing() {
        let mut rig = Rig::new(|config| config.too_late_drop = false);
        rig.data(0, 0);
        rig.data(1, 3);
        for (first, last) in [(FIRST + 2, FIRST + 1), (0, u64::MAX), (u64::MAX, u64::MAX)] {
            rig.receiver.handle_drop_request(first, last);
        }
        assert_eq!(rig.receiver.stats().drop_requests_refused, 3);
        // What is behind, and what is beyond the buffer and does not begin with what is next.
        rig.receiver.handle_drop_request(0, FIRST - 1);
        rig.receiver.handle_drop_request(FIRST + 5_000, FIRST + 5_001);
        assert_eq!((rig.receiver.missing.len(), rig.receiver.end), (2, FIRST + 4));
        assert_eq!(rig.released(200), [0]);
        // More than the buffer can hold: no further than that.
        rig.receiver.handle_drop_request(FIRST + 4, FIRST + (1 << 30));
        assert_eq!(rig.receiver.end, FIRST + 1 + 64);
    }

    #[test]
    fn what_is_held_or_was_released_is_a_duplicate() {
        let mut rig = Rig::new(|_| ());
        (0..5).for_each(|n| assert_eq!(rig.data(n, n), Arrived::New));
        assert_eq!(rig.data(10, 4), Arrived::Duplicate);
        assert_eq!(rig.released(102), [0, 1, 2]);
        assert_eq!(rig.data(103, 1), Arrived::Duplicate);
        assert_eq!(rig.data(103, 3), Arrived::Duplicate);
        let stats = rig.receiver.stats();
        assert_eq!((stats.received.packets, stats.unique.packets), (8, 5));
        assert_eq!((stats.duplicate.packets, stats.belated.packets, stats.late.packets), (3, 1, 0));
        assert_eq!(stats.belated_by, Duration::from_millis(2));
        assert_eq!(rig.released(200), [3, 4]);
    }

    #[test]
    fn a_full_buffer_refuses_says_so_and_tells_when_it_has_room() {
        let mut rig = Rig::new(|_| ());
        (0..64).for_each(|n| assert_eq!(rig.data(0, n), Arrived::New));
        assert_eq!(rig.data(1, 64), Arrived::Beyond);
        let Some(Ack::Full { number: 1, next, available: 0, .. }) = rig.full_ack(10) else { panic!() };
        assert_eq!(next, FIRST + 64);
        rig.receiver.handle_ack_ack(ms(11), 1, 11_000);
        assert_eq!(rig.full_ack(99), None);
        assert_eq!(rig.released(101), [0, 1]);
        assert_eq!(rig.receiver.poll_timeout(), Some(ms(102)));
        assert!(matches!(rig.full_ack(109), Some(Ack::Full { available: 2, .. })));
        rig.receiver.handle_ack_ack(ms(110), 2, 110_000);
        // Refused is not come: it is asked for once there is room.
        assert_eq!(rig.data(111, 65), Arrived::New);
        assert_eq!(rig.nak(111), Some(vec![FIRST + 64..=FIRST + 64]));
        assert_eq!(rig.receiver.stats().beyond.packets, 1);
    }

    #[test]
    fn a_peer_far_ahead_is_followed_with_its_second_packet_and_the_first_is_asked_for() {
        let mut rig = Rig::new(|_| ());
        rig.data(0, 0);
        assert_eq!(rig.data(90, 10_000), Arrived::Beyond);
        assert_eq!(rig.released(200), [0]);
        assert_eq!(rig.data(10_005, 10_000), Arrived::Beyond);
        assert_eq!(rig.data(10_005, 10_000), Arrived::Beyond);
        assert_eq!(rig.data(10_006, 10_002), Arrived::New);
        assert_eq!(rig.nak(10_006), Some(vec![FIRST + 10_000..=FIRST + 10_001]));
        assert_eq!(rig.arrive(10_020, 10_000, Origin::Retransmitted), Arrived::New);
        assert_eq!(rig.data(10_020, 50), Arrived::Late);
        assert_eq!(rig.data(10_020, 0), Arrived::Late);
        assert_eq!(rig.released(10_102), [10_000, 10_002]);
        let stats = rig.receiver.stats();
        assert_eq!((stats.jumps, stats.dropped.packets, stats.lost.packets), (1, 10_000, 10_001));
    }

    #[test]
    fn strays_are_not_followed() {
        let mut rig = Rig::new(|_| ());
        for n in 0..100 {
            assert_eq!(rig.data(n * 200, 1_000_000 + n * 1_000), Arrived::Beyond);
            assert_eq!(rig.data(n * 200, n), Arrived::New);
            assert_eq!(rig.data(n * 200, 1_000_001 + n * 1_000), Arrived::Beyond);
            assert_eq!(rig.released(n * 200 + 100), [n]);
        }
        let mut rig = Rig::new(|config| config.too_late_drop = false);
        (0..50).for_each(|n| assert_eq!(rig.data(0, 1_000 + n), Arrived::Beyond));
    }

    #[test]
    fn a_gap_is_reported_once_at_once_and_then_periodically_until_filled() {
        let mut rig = Rig::new(|config| config.latency = Duration::from_secs(2));
        (0..5).for_each(|n| assert_eq!(rig.data(n, n), Arrived::New));
        assert_eq!(rig.nak(4), None);
        rig.data(7, 7);
        assert_eq!(rig.nak(7), Some(vec![FIRST + 5..=FIRST + 6]));
        assert_eq!(rig.nak(8), None);
        rig.data(12, 12);
        assert_eq!(rig.nak(12), Some(vec![FIRST + 8..=FIRST + 11]));
        // The first guess of round trip and variation gives 150 ms.
        assert_eq!(rig.receiver.nak_deadline(), Some(ms(157)));
        assert_eq!(rig.nak(156), None);
        rig.arrive(156, 10, Origin::Retransmitted);
        let all = vec![FIRST + 5..=FIRST + 6, FIRST + 8..=FIRST + 9, FIRST + 11..=FIRST + 11];
        assert_eq!((rig.nak(157), rig.nak(157)), (Some(all), None));
        assert_eq!(rig.receiver.nak_deadline(), Some(ms(307)));
        for n in [5, 6, 8, 9, 11] {
            rig.arrive(160, n, Origin::Retransmitted);
        }
        assert_eq!((rig.nak(400), rig.receiver.nak_deadline()), (None, None));
        assert_eq!(rig.receiver.stats().naks, 3);
    }

    #[test]
    fn a_long_report_is_split_to_datagrams() {
        let mut rig = Rig::new(|config| (config.capacity, config.payload_max) = (8_192, 40));
        (0..50).for_each(|n| assert_eq!(rig.data(0, 2 * n), Arrived::New));
        let mut reported = Vec::new();
        for _ in 0..5 {
            let ranges = rig.nak(0).unwrap();
            assert!(ranges.len() <= 10);
            reported.extend(ranges);
        }
        assert_eq!(rig.nak(0), None);
        assert_eq!(reported, (0..49).map(|n| FIRST + 2 * n + 1..=FIRST + 2 * n + 1).collect::<Vec<_>>());
        // Any gap that the buffer can have is one range.
        rig.data(0, 8_000);
        assert_eq!((rig.nak(0), rig.nak(0)), (Some(vec![FIRST + 99..=FIRST + 7_999]), None));
    }

    #[test]
    fn peers_are_only_told_what_was_agreed_on() {
        let mut rig = Rig::new(|config| config.nak_reports = false);
        rig.data(0, 0);
        rig.data(0, 2);
        assert_eq!(rig.nak(0), Some(vec![FIRST + 1..=FIRST + 1]));
        assert_eq!((rig.nak(90), rig.receiver.nak_deadline()), (None, None));

        let mut rig = Rig::new(|config| config.gap_reports = false);
        rig.data(0, 0);
        rig.data(0, 4);
        assert_eq!((rig.nak(90), rig.receiver.nak_deadline()), (None, None));
        rig.arrive(90, 2, Origin::Rebuilt);
        rig.receiver.report(0, u64::MAX);
        assert_eq!(rig.nak(90), Some(vec![FIRST + 1..=FIRST + 1, FIRST + 3..=FIRST + 3]));
        let stats = rig.receiver.stats();
        assert_eq!((stats.received.packets, stats.rebuilt.packets, stats.lost.packets), (2, 1, 3));
    }

    #[test]
    fn where_packets_are_reordered_reports_wait() {
        let mut rig = Rig::new(|config| config.reorder_max = 3);
        for n in [0, 1, 4] {
            rig.data(0, n);
        }
        assert_eq!(rig.nak(0), Some(vec![FIRST + 2..=FIRST + 3]));
        rig.data(0, 2);
        assert_eq!(rig.receiver.stats().reorder_tolerance, 2);
        for n in [6, 7] {
            rig.data(1, n);
            assert_eq!(rig.nak(1), None);
        }
        rig.data(1, 8);
        assert_eq!(rig.nak(1), Some(vec![FIRST + 5..=FIRST + 5]));
        rig.data(1, 10);
        rig.data(1, 9);
        rig.data(1, 11);
        rig.data(1, 12);
        assert_eq!(rig.nak(1), None);
        let stats = rig.receiver.stats();
        assert_eq!((stats.reorder_tolerance, stats.reorder_distance, stats.reordered.packets), (2, 2, 2));
        // The periodic report does not wait.
        rig.data(1, 14);
        assert_eq!(rig.nak(160), Some(vec![FIRST + 3..=FIRST + 3, FIRST + 5..=FIRST + 5, FIRST + 13..=FIRST + 13]));
    }

    #[test]
    fn a_gap_given_up_while_it_waits_is_never_reported() {
        let mut rig = Rig::new(|config| config.reorder_max = 20);
        for n in [1, 0, 30] {
            rig.data(0, n);
        }
        rig.data(1, 10);
        rig.data(1, 32);
        assert_eq!(rig.released(132), [0, 1, 10, 30, 32]);
        let mut next = 33;
        while next < 33 + 64 {
            rig.data(132, next);
            next += 1;
        }
        assert_eq!(rig.nak(132), None);
    }

    #[test]
    fn full_acks_come_every_ten_milliseconds_until_answered() {
        let mut rig = Rig::new(|_| ());
        assert_eq!((rig.full_ack(50), rig.receiver.poll_timeout()), (None, None));
        rig.data(51, 0);
        assert_eq!(rig.receiver.poll_timeout(), Some(ms(60)));
        let Some(Ack::Full { number, next, round_trip, variation, available, .. }) = rig.full_ack(60) else { panic!() };
        assert_eq!((number, next, available), (1, FIRST + 1, 63));
        assert_eq!((round_trip, variation), (Duration::from_millis(100), Duration::from_millis(50)));
        rig.data(61, 1);
        assert_eq!((rig.full_ack(69), rig.receiver.poll_timeout()), (None, Some(ms(70))));
        assert!(matches!(rig.full_ack(70), Some(Ack::Full { number: 2, .. })));
        // Not answered: again after round trip and four times its variation.
        assert_eq!(rig.released(101), [0, 1]);
        assert_eq!(rig.receiver.poll_timeout(), Some(ms(370)));
        assert!(matches!(rig.full_ack(370), Some(Ack::Full { number: 3, available: 64, .. })));
        rig.receiver.handle_ack_ack(ms(390), 3, 390_000);
        assert_eq!((rig.full_ack(10_000), rig.receiver.poll_timeout()), (None, None));
    }

    #[test]
    fn light_acks_come_every_64_packets_in_between() {
        let mut rig = Rig::new(|config| config.capacity = 512);
        let mut acks = Vec::new();
        for n in 0..200 {
            rig.data(1, n);
            acks.extend(rig.receiver.poll_ack(ms(1)));
        }
        let expected = [64, 128, 192].map(|n| Ack::Light { next: FIRST + n });
        assert_eq!(acks, expected);
        (200..500).for_each(|n| assert_eq!(rig.data(2, n), Arrived::New));
        assert_eq!(rig.receiver.poll_ack(ms(2)), Some(Ack::Light { next: FIRST + 500 }));
        assert_eq!(rig.receiver.poll_ack(ms(2)), None);
    }

    #[test]
    fn an_ack_moves_past_what_was_given_up() {
        let mut rig = Rig::new(|_| ());
        rig.data(0, 0);
        rig.data(12, 12);
        assert!(matches!(rig.full_ack(20), Some(Ack::Full { next, .. }) if next == FIRST + 1));
        rig.receiver.handle_ack_ack(ms(21), 1, 21_000);
        assert_eq!(rig.full_ack(100), None);
        assert_eq!(rig.released(112), [0, 12]);
        assert!(matches!(rig.full_ack(112), Some(Ack::Full { next, .. }) if next == FIRST + 13));
    }

    #[test]
    fn round_trips_are_smoothed_and_odd_answers_ignored() {
        let mut rig = Rig::new(|_| ());
        let mut sent = 0;
        let mut answer = |numbers: &[u32], after: u64| {
            let at = 100 * (sent + 1);
            rig.data(at, sent);
            sent += 1;
            assert!(rig.full_ack(at).is_some());
            for number in numbers {
                rig.receiver.handle_ack_ack(ms(at + after), *number, 0);
            }
            let (smoothed, variation) = rig.receiver.round_trip();
            (smoothed.as_micros(), variation.as_micros())
        };
        assert_eq!(answer(&[0, 2, 513, u32::MAX], 40), (100_000, 50_000));
        assert_eq!(answer(&[2], 40), (40_000, 20_000));
        assert_eq!(answer(&[3, 3], 80), (45_000, 25_000));
        // Older than one that was answered already.
        assert_eq!(answer(&[1, 2, 3], 10), (45_000, 25_000));
        assert_eq!(rig.receiver.round_trip.nak_interval(), Duration::from_micros(72_500));
    }

    #[test]
    fn packets_that_cannot_be_decrypted_are_given_up_and_not_asked_for() {
        let mut rig = Rig::new(|_| ());
        rig.data(0, 0);
        for n in [1, 4] {
            rig.receiver.handle_undecrypted(ms(1), FIRST + n, Origin::Original, ms(1), 1_316);
        }
        assert_eq!(rig.nak(1), Some(vec![FIRST + 2..=FIRST + 3]));
        assert_eq!(rig.data(2, 1), Arrived::Late);
        assert_eq!(rig.receiver.next_expected(), FIRST + 2);
        rig.data(5, 6);
        assert_eq!(rig.released(105), [0]);
        assert_eq!(rig.released(106), [6]);
        assert_eq!(rig.receiver.next_expected(), FIRST + 7);
        let stats = rig.receiver.stats();
        assert_eq!((stats.undecrypted.packets, stats.dropped.packets, stats.unique.packets), (2, 5, 2));
        for n in 7..500 {
            rig.receiver.handle_undecrypted(ms(n), FIRST + n, Origin::Original, ms(n), 1_316);
        }
        assert_eq!(rig.receiver.next_expected(), FIRST + 500);
        assert_eq!(rig.receiver.poll_nak(ms(500)), None);
    }

    #[test]
    fn numbers_wrap_after_2_to_the_31() {
        let first = Extender::<31>::new(Seq::new((1 << 31) - 3)).highest();
        let mut rig = Rig::new(|config| config.first = first);
        for (n, wire) in [(1, (1 << 31) - 2), (4, 1), (0, (1 << 31) - 3), (3, 0)] {
            assert_eq!(rig.receiver.extend(Seq::new(wire)), first + n);
            rig.arrive(0, first + n - FIRST, Origin::Original);
        }
        assert_eq!(rig.receiver.extend(Seq::new((1 << 30) + 1)), first + 4 + (1 << 30));
        assert_eq!(rig.nak(0), Some(vec![first + 2..=first + 2]));
        let released: Vec<u64> = std::iter::from_fn(|| rig.receiver.poll_packet(Time::from_ns(u64::MAX)))
            .map(|packet| packet.meta.sequence.unwrap() - first)
            .collect();
        assert_eq!(released, [0, 1, 3, 4]);
    }

    #[test]
    fn a_timestamp_that_makes_no_sense_holds_nothing_up() {
        let mut rig = Rig::new(|_| ());
        rig.data(0, 0);
        rig.insert(ms(1), FIRST + 1, 1_800_000_000, Origin::Original);
        rig.data(2, 2);
        rig.insert(ms(3), FIRST + 3, 0_u32.wrapping_sub(1_800_000_000), Origin::Original);
        assert_eq!(rig.released(102), [0, 1, 2, 3]);
    }

    #[test]
    fn statistics_tell_what_is_held_and_how_fast_it_comes() {
        let mut rig = Rig::new(|config| config.capacity = 4_096);
        (0..1_000).for_each(|n| assert_eq!(rig.data(n, n), Arrived::New));
        let stats = rig.receiver.stats();
        assert_eq!((stats.held, stats.held_span), (stats.unique, Duration::from_millis(1_000)));
        assert_eq!(stats.available, 3_096);
        rig.data(1_000, 1_009);
        // Nine times the usual payload, which has nearly become the eight bytes of ours.
        let lost = rig.receiver.stats().lost;
        assert_eq!((lost.packets, lost.bytes / 9), (9, 8));
        assert_eq!(rig.released(2_000).len(), 1_001);
        let stats = rig.receiver.stats();
        assert_eq!((stats.held, stats.held_span, stats.available), (Count::default(), Duration::ZERO, 4_096));
    }

    #[test]
    fn garbage_never_panics_and_the_buffer_stays_bounded() {
        for seed in 0..60 {
            let mut random = Random(seed);
            let mut rig = Rig::new(|config| {
                config.too_late_drop = seed % 2 == 0;
                config.reorder_max = [0, 5, u32::MAX][seed as usize % 3];
                config.payload_max = [0, 1_456, usize::MAX][seed as usize / 3 % 3];
                config.first = random.next() >> (2 + random.below(60));
            });
            let mut now = 0;
            for _ in 0..1_000 {
                now += random.below(20);
                let near = rig.receiver.start.wrapping_add(random.below(200)).wrapping_sub(70);
                let wild = random.next() >> random.below(64);
                let sequence = [near, near, near, wild, u64::MAX - random.below(3)][random.below(5) as usize];
                let other =
                    [sequence, sequence.wrapping_add(random.below(100)), wild, u64::MAX][random.below(4) as usize];
                match random.below(8) {
                    0 => rig.receiver.handle_drop_request(sequence, other),
                    1 => rig.receiver.handle_ack_ack(ms(random.below(2 * now + 1)), wild as u32, other as u32),
                    2 => rig.receiver.handle_ack_ack(ms(now), rig.receiver.stats().acks as u32, other as u32),
                    3 => rig.receiver.handle_undecrypted(ms(now), sequence, Origin::Original, ms(now), 9),
                    4 => rig.receiver.report(sequence, other),
                    _ => {
                        let packet = rig.pool.copy(&[7; 9], Meta { arrival: ms(now), ..Meta::default() }).unwrap();
                        let origin =
                            [Origin::Original, Origin::Retransmitted, Origin::Rebuilt][random.below(3) as usize];
                        let timestamp = [now as u32 * 1_000, wild as u32][random.below(2) as usize];
                        let _ = rig.receiver.handle_data(ms(now), Data { sequence, timestamp, origin, packet });
                    }
                }
                let _ = rig.receiver.extend(Seq::new(wild as u32));
                while rig.receiver.poll_packet(ms(now)).is_some() {}
                while rig.receiver.poll_nak(ms(now)).is_some() {}
                while rig.receiver.poll_ack(ms(now)).is_some() {}
                assert!(rig.receiver.poll_timeout().is_none_or(|at| at > ms(now)), "seed {seed}");
                let stats = rig.receiver.stats();
                assert!(stats.held.packets <= 64 && stats.available <= 64, "seed {seed}");
            }
        }
    }

    #[test]
    fn random_traffic_matches_the_slow_model() {
        for seed in 0..150 {
            let mut random = Random(seed);
            let too_late_drop = seed % 3 != 0;
            let mut rig = Rig::new(|config| config.too_late_drop = too_late_drop);
            let mut model = Model { too_late_drop, ..Model::default() };
            let (mut now, mut sent) = (0, 0);
            for step in 0..600 {
                let context = format!("seed {seed} step {step} now {now}");
                let until = now + random.below(6);
                // Wake exactly when told.
                while let Some(at) = rig.receiver.release_at().filter(|at| *at <= ms(until)) {
                    now = now.max((at.since(ms(0)).as_millis()) as u64);
                    assert_eq!(rig.released(now), model.release(now), "{context}");
                }
                assert_eq!(model.release(until), [0_u64; 0], "{context}");
                now = until;
                // Packet n is sent in millisecond n, so that those before `now` may arrive.
                sent = sent.max(now.saturating_sub(random.below(40)));
                let n = sent.saturating_sub([0, 0, 1, 5, 60, 120, 150][random.below(7) as usize]);
                let n = if random.below(100) == 0 { n + 64 + random.below(3) * 1_000 } else { n };
                if random.below(12) == 0 {
                    let last = n + random.below(10);
                    rig.receiver.handle_drop_request(FIRST + n, FIRST + last);
                    model.drop_request(n, last);
                } else if random.below(20) == 0 {
                    rig.receiver.handle_undecrypted(ms(now), FIRST + n, Origin::Original, ms(now), 8);
                    if model.admit(n) == Arrived::New {
                        model.settled.insert(n);
                        model.dropped += 1;
                        model.skip();
                    }
                } else {
                    let arrived = model.admit(n);
                    assert_eq!(rig.data(now, n), arrived, "{context} packet {n}");
                    if arrived == Arrived::New {
                        model.held.insert(n);
                        model.came.insert(n, now);
                    }
                }
                assert_eq!(rig.receiver.missing.len(), model.missing.len(), "{context}");
                let asked: BTreeSet<u64> = rig.nak(now).into_iter().flatten().flatten().map(|n| n - FIRST).collect();
                assert!(asked.is_subset(&model.missing), "{context}: {asked:?}");
                assert!(asked.is_superset(&std::mem::take(&mut model.fresh)), "{context}: {asked:?}");
                let stats = rig.receiver.stats();
                let counts = (stats.held.packets as usize, stats.dropped.packets, stats.unique.packets);
                assert_eq!(counts, (model.held.len(), model.dropped, model.came.len() as u64), "{context}");
                assert_eq!(rig.receiver.next_expected() - FIRST, model.next(), "{context}");
            }
            assert_eq!(rig.released(now), model.release(now), "seed {seed}");
            model.check(now, seed);
        }
    }

    #[test]
    fn clocks_that_drift_for_two_hours_through_all_wraps_keep_the_latency() {
        for ppm in [200, -200] {
            let first = Extender::<31>::new(Seq::new((1 << 31) - 1_000)).highest();
            let base_timestamp = u32::MAX - 1_000_000_000;
            let mut rig = Rig::new(|config| {
                (config.first, config.base_timestamp, config.capacity) = (first, base_timestamp, 8_192);
            });
            let timestamp = |sent_us: i64| base_timestamp.wrapping_add((sent_us + sent_us * ppm / 1_000_000) as u32);
            let (mut worst_us, mut released) = (0, 0);
            for n in 0..2 * 3_600 * 100_u64 {
                // Sent every 10 ms; on its way as long as the handshake packet was, or up to 4 ms longer.
                let arrival = ms(10 * n + n * 7 % 5);
                let sequence = rig.receiver.extend(Seq::new((first + n) as u32));
                rig.insert(arrival, sequence, timestamp(10_000 * n as i64), Origin::Original);
                while let Some(at) = rig.receiver.release_at().filter(|at| *at <= arrival) {
                    let packet = rig.receiver.poll_packet(at).unwrap();
                    assert_eq!(packet.meta.sequence, Some(first + released), "{ppm}");
                    let ideal = ms(10 * released) + LATENCY;
                    worst_us = worst_us.max(at.since(ideal).max(ideal.since(at)).as_micros());
                    released += 1;
                }
                if let Some(Ack::Full { number, .. }) = rig.receiver.poll_ack(arrival) {
                    // The answer: half a round trip of 20 ms to the peer, and half back.
                    let answered_us = i64::try_from(arrival.since(ms(0)).as_micros()).unwrap() + 20_000;
                    rig.receiver.handle_ack_ack(arrival + Duration::from_millis(20), number, timestamp(answered_us));
                }
                assert!(rig.receiver.held.packets < 15, "{ppm} ppm: {}", rig.receiver.held.packets);
            }
            assert!(worst_us < 5_000, "{ppm} ppm: {worst_us} µs");
            assert!(released > 719_980 && rig.receiver.stats().dropped.packets == 0);
            let drift_us = rig.receiver.stats().drift_us;
            assert!((drift_us + 7_200 * ppm).abs() < 5_000, "{ppm} ppm: {drift_us} µs");
        }
    }

    /// What the receiver should do, on sets.
    #[derive(Default)]
    struct Model {
        too_late_drop: bool,
        start: u64,
        end: u64,
        held: BTreeSet<u64>,
        missing: BTreeSet<u64>,
        /// Missing since the last arrival.
        fresh: BTreeSet<u64>,
        /// Settled without a packet, by a drop request or as it could not be decrypted.
        settled: BTreeSet<u64>,
        dropped: u64,
        stray: Option<u64>,
        /// First arrival of what was taken, and release.
        came: BTreeMap<u64, u64>,
        left: BTreeMap<u64, u64>,
    }

    impl Model {
        fn admit(&mut self, n: u64) -> Arrived {
            if self.held.contains(&n) || self.left.contains_key(&n) && n + 64 >= self.start {
                return Arrived::Duplicate;
            }
            if n < self.start || self.settled.contains(&n) {
                return Arrived::Late;
            }
            if n >= self.start + 64 && !self.jump(n) {
                return Arrived::Beyond;
            }
            self.stray = None;
            self.fresh = (self.end..n).collect();
            self.missing.extend(self.end..n);
            self.missing.remove(&n);
            self.end = self.end.max(n + 1);
            Arrived::New
        }

        fn jump(&mut self, n: u64) -> bool {
            if !self.held.is_empty() || !self.too_late_drop {
                return false;
            }
            let Some(target) = self.stray.replace(n).filter(|stray| (stray + 1..stray + 64).contains(&n)) else {
                return false;
            };
            self.dropped += target - self.start - self.settled.range(self.start..).count() as u64;
            (self.start, self.end) = (target, target);
            self.missing.clear();
            true
        }

        fn drop_request(&mut self, first: u64, last: u64) {
            if first <= self.end && last >= self.end {
                self.end = (last + 1).min(self.start + 64).max(self.end);
            }
            for n in first.max(self.start)..(last + 1).min(self.end) {
                self.missing.remove(&n);
                if !self.too_late_drop && !self.held.contains(&n) && self.settled.insert(n) {
                    self.dropped += 1;
                }
            }
            self.skip();
        }

        fn release(&mut self, now: u64) -> Vec<u64> {
            let mut out = Vec::new();
            while let Some(first) = self.held.first().copied().filter(|first| first + 100 <= now) {
                if first > self.start {
                    if !self.too_late_drop {
                        break;
                    }
                    self.dropped += first - self.start - self.settled.range(self.start..first).count() as u64;
                    self.missing.retain(|n| *n > first);
                }
                self.held.remove(&first);
                self.left.insert(first, now);
                self.start = first + 1;
                self.skip();
                out.push(first);
            }
            out
        }

        fn skip(&mut self) {
            while self.settled.contains(&self.start) {
                self.start += 1;
            }
        }

        fn next(&self) -> u64 {
            let is_open = |n: &u64| !self.held.contains(n) && !self.settled.contains(n);
            (self.start..self.end).find(is_open).unwrap_or(self.end)
        }

        /// Nothing that came in time was lost, and with too-late drop all of it left at its time.
        fn check(&self, now: u64, seed: u64) {
            for (n, came) in &self.came {
                let due = (n + 100).max(*came);
                let left = self.left.get(n).copied();
                if self.too_late_drop && due <= now {
                    assert_eq!(left, Some(due), "seed {seed} packet {n}");
                } else {
                    assert!(left.is_some() || self.held.contains(n), "seed {seed} packet {n}");
                }
            }
        }
    }

    /// A receiver, and the means to feed it. Packet `n` was sent in millisecond `n` and is due 100 ms later.
    struct Rig {
        receiver: Receiver,
        pool: Pool,
    }

    impl Rig {
        fn new(change: impl FnOnce(&mut Config)) -> Self {
            let mut config = Config {
                first: FIRST,
                latency: LATENCY,
                base_arrival: ms(0),
                base_timestamp: 0,
                too_late_drop: true,
                nak_reports: true,
                gap_reports: true,
                reorder_max: 0,
                capacity: 64,
                payload_max: 1_456,
            };
            change(&mut config);
            Self { receiver: Receiver::new(config, ms(0)), pool: Pool::new(PoolLimits::default()) }
        }

        fn data(&mut self, at_ms: u64, n: u64) -> Arrived {
            self.arrive(at_ms, n, Origin::Original)
        }

        fn arrive(&mut self, at_ms: u64, n: u64, origin: Origin) -> Arrived {
            self.insert(ms(at_ms), FIRST.wrapping_add(n), n.wrapping_mul(1_000) as u32, origin)
        }

        fn insert(&mut self, now: Time, sequence: u64, timestamp: u32, origin: Origin) -> Arrived {
            let meta = Meta { arrival: now, ..Meta::default() };
            let packet = self.pool.copy(&sequence.wrapping_sub(FIRST).to_be_bytes(), meta).unwrap();
            self.receiver.handle_data(now, Data { sequence, timestamp, origin, packet })
        }

        /// Numbers of the packets released now.
        fn released(&mut self, at_ms: u64) -> Vec<u64> {
            let packets = std::iter::from_fn(|| self.receiver.poll_packet(ms(at_ms)));
            packets.map(|packet| u64::from_be_bytes((*packet).try_into().unwrap())).collect()
        }

        fn nak(&mut self, at_ms: u64) -> Option<Vec<RangeInclusive<u64>>> {
            self.receiver.poll_nak(ms(at_ms)).map(<[_]>::to_vec)
        }

        /// The ACK sent now, if it is a full one; at most one is.
        fn full_ack(&mut self, at_ms: u64) -> Option<Ack> {
            let acks: Vec<Ack> = std::iter::from_fn(|| self.receiver.poll_ack(ms(at_ms))).collect();
            assert!(acks.len() <= 1, "{acks:?}");
            acks.first().copied().filter(|ack| matches!(ack, Ack::Full { .. }))
        }
    }

    /// One above a cycle, as the edge extends it.
    const FIRST: u64 = (1 << 31) + 12_345;

    const LATENCY: Duration = Duration::from_millis(100);

    /// A moment after the handshake, which came an hour after our epoch.
    fn ms(ms: u64) -> Time {
        Time::from_ns(3_600_000_000_000) + Duration::from_millis(ms)
    }
}
