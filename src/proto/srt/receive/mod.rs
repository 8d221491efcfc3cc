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

mod stats;
#[cfg(test)]
mod tests;

use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use super::acks::{Acks, RoundTrip, Wanted};
use super::arrival::Arrivals;
use super::missing::{Bits, Missing, Tolerance};
use super::tsbpd::{Stamp, Tsbpd};
use crate::bus::Packet;
use crate::units::{Seq, Time};
pub(super) use stats::{Count, Stats};

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
