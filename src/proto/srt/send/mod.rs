//! The sending half of a connection: keeps what was sent until the peer has it or it is too late.
//!
//! Follows draft 4.6 (too-late packet drop), 4.8 (acknowledgement and retransmission), and libsrt 1.5 where the draft
//! leaves gaps. A packet is pushed, sent, sent again as often as the peer reports it lost, and leaves when the peer
//! acknowledges it or when it is older than anyone waits for:
//!
//! ```text
//!   acknowledged      oldest            unsent         next
//!        |               |                 |             |
//!        v    dropped    v      sent       v   waiting   v
//!   -----+---------------+-----------------+-------------+----> sequence
//!          asked for:       asked for:
//!          drop request     sent again
//! ```
//!
//! What is sent first: what was lost, then what is new. The rate holds both, the peer's window only what is new.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use super::congestion::{Bandwidth, Pacer};
use super::resend::ResendSet;
use crate::bus::Packet;
use crate::units::{Bitrate, Time};

/// What a sender must know of its connection.
#[derive(Clone, Debug)]
pub(super) struct Config {
    /// Extended number of the first packet.
    pub first: u64,
    /// Receive latency of the peer, as negotiated.
    pub latency: Duration,
    /// Both sides announced TLPKTDROP.
    pub too_late_drop: bool,
    /// What a packet may be late beyond the latency before it is dropped (SNDDROPDELAY); `None` never drops (-1).
    pub drop_delay: Option<Duration>,
    /// Packets kept at most; rounded up to a power of two within 64 and 131,072.
    pub capacity: usize,
    /// Packets that the peer announced it can have in flight.
    pub flow_window: u32,
    /// The peer announced NAKREPORT: what is still missing will be reported again.
    pub peer_sends_nak_reports: bool,
    /// How fast to send.
    pub bandwidth: Bandwidth,
}

impl Config {
    /// Ages at which a packet is dropped, and at which it makes room for a new one.
    fn drop_ages(&self) -> [Duration; 2] {
        let drop_delay = self.drop_delay.filter(|_| self.too_late_drop);
        [LATE_MIN, Duration::ZERO].map(|least| {
            drop_delay.map_or(Duration::MAX, |delay| self.latency.saturating_add(delay).max(least) + REACTION)
        })
    }
}

#[cfg(test)]
impl Config {
    /// What two sides of defaults agree on (libsrt 1.5), with a window as large as this side's buffer.
    pub(super) const fn new(first: u64) -> Self {
        Self {
            first,
            latency: Duration::from_millis(120),
            too_late_drop: true,
            drop_delay: Some(Duration::ZERO),
            capacity: 8_192,
            flow_window: 25_600,
            peer_sends_nak_reports: true,
            bandwidth: Bandwidth::Unlimited,
        }
    }
}

/// A packet ready for the wire but for its header.
#[derive(Clone, Debug)]
pub(super) struct Sealed {
    /// When its source says it came: the timestamp it travels with, each time.
    pub origin: Time,
    /// Which key encrypted it: the bits KK of the header (draft 3.1).
    pub key: u8,
    /// Payload as it travels.
    pub packet: Packet,
}

/// A packet to be sent now.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    pub sequence: u64,
    pub message_number: u32,
    pub origin: Time,
    pub key: u8,
    /// It was sent before: the bit R of the header (draft 3.1).
    pub retransmitted: bool,
    pub packet: Packet,
}

/// The peer asked for packets that are gone (draft 3.2.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DropRequest {
    /// Always zero: the sequence numbers alone say what is gone.
    pub message_number: u32,
    pub first: u64,
    /// The last one, itself included.
    pub last: u64,
}

/// Smoothed round-trip time and its variation (draft 4.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RoundTrip {
    pub smoothed: Duration,
    pub variation: Duration,
}

/// The buffer is full of packets that may still arrive in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

/// Packets and the bytes of their payloads; libsrt adds 44 bytes of headers to each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub packets: u64,
    pub bytes: u64,
}

impl Count {
    const fn add(&mut self, packet: &Packet) {
        self.packets += 1;
        self.bytes += packet.len() as u64;
    }

    const fn remove(&mut self, packet: &Packet) {
        self.packets -= 1;
        self.bytes -= packet.len() as u64;
    }
}

/// Counters since the start, and how things stand. The names in brackets are libsrt's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stats {
    /// Sent for the first time (pktSentUnique, byteSentUnique); with `retransmitted`, pktSent and byteSent.
    pub unique: Count,
    /// Sent again (pktRetrans, byteRetrans).
    pub retransmitted: Count,
    /// Dropped as too late, sent or not (pktSndDrop, byteSndDrop).
    pub dropped: Count,
    /// Not taken as the buffer was full.
    pub refused: Count,
    /// Put on the list to be sent again, by report or by timer (pktSndLoss).
    pub lost: u64,
    /// Retransmissions not made as one was under way already.
    pub gated: u64,
    /// Acknowledgements of what was never sent.
    pub acks_invalid: u64,
    /// Ranges reported lost that were never sent.
    pub naks_invalid: u64,
    /// Ranges reported lost more often than anyone needs, and not heeded.
    pub naks_excess: u64,
    /// In the buffer (pktSndBuf, byteSndBuf).
    pub buffered: Count,
    /// Origin of the oldest in the buffer to that of the newest (msSndBuf, which adds a millisecond).
    pub buffered_span: Duration,
    /// Packets sent and not acknowledged (pktFlightSize).
    pub flight: u64,
    /// Packets that the peer has room for (pktFlowWindow).
    pub flow_window: u32,
    /// Time between two packets at the rate in force; zero without a limit (usPktSndPeriod).
    pub period: Duration,
    /// The rate in force (mbpsMaxBW).
    pub rate: Option<Bitrate>,
}

/// Sends the packets of one connection, in order, and again until they have arrived.
#[derive(Debug)]
pub(super) struct Sender {
    config: Config,
    /// From `oldest` on, without holes; grows up to the capacity.
    buffer: VecDeque<Slot>,
    oldest: u64,
    /// The first that was never sent.
    unsent: u64,
    /// What the peer expects next, by its latest acknowledgement.
    acknowledged: u64,
    resend: ResendSet,
    pacer: Pacer,
    /// Packets that the peer has room for, counted from `oldest`.
    flow_window: u32,
    round_trip: RoundTrip,
    /// How long a retransmission is given to arrive before there may be another.
    resend_after: Duration,
    /// Age at which a packet is dropped.
    late_after: Duration,
    /// Age at which a packet makes room for a new one.
    useless_after: Duration,
    /// Where the span starts after which everything in flight is sent again unasked.
    blind_from: Time,
    reports: ReportBudget,
    drop_requests: VecDeque<DropRequest>,
    next_message_number: u32,
    stats: Stats,
}

#[derive(Debug)]
struct Slot {
    packet: Packet,
    origin: Time,
    resent_at: Option<Time>,
    message_number: u32,
    key: u8,
}

impl Sender {
    /// A sender that has sent nothing.
    pub(super) fn new(config: Config, now: Time) -> Self {
        let capacity = config.capacity.clamp(CAPACITY_MIN, CAPACITY_MAX).next_power_of_two();
        let [late_after, useless_after] = config.drop_ages();
        let mut sender = Self {
            buffer: VecDeque::new(),
            oldest: config.first,
            unsent: config.first,
            acknowledged: config.first,
            resend: ResendSet::new(capacity),
            pacer: Pacer::new(config.bandwidth),
            flow_window: config.flow_window,
            round_trip: ROUND_TRIP_UNKNOWN,
            resend_after: Duration::ZERO,
            late_after,
            useless_after,
            blind_from: now,
            reports: ReportBudget { left: 0, until: now },
            drop_requests: VecDeque::with_capacity(DROP_REQUESTS_MAX),
            next_message_number: 1,
            stats: Stats::default(),
            config: Config { capacity, ..config },
        };
        sender.set_round_trip(ROUND_TRIP_UNKNOWN);
        sender
    }

    /// The number that the next packet pushed gets: encryption needs it before.
    pub(super) fn next_sequence(&self) -> u64 {
        self.oldest + self.buffer.len() as u64
    }

    /// The message number that the next packet pushed gets; in live mode each packet is a message.
    pub(super) const fn next_message_number(&self) -> u32 {
        self.next_message_number
    }

    /// The link belongs to a group that has come as far as `sequence`: begins there. Nothing was pushed yet.
    pub(super) fn join(&mut self, sequence: u64, message_number: u32) {
        // The peer may ask for what others sent before, and shall learn that it is gone.
        self.config.first = sequence.saturating_sub(self.config.capacity as u64);
        self.begin_at(sequence, message_number);
    }

    /// Leaves out what others in the group have sent, up to `sequence`; what waits is dropped.
    pub(super) fn restart_at(&mut self, sequence: u64, message_number: u32) {
        if sequence > self.next_sequence() {
            self.begin_at(sequence, message_number);
        }
    }

    fn begin_at(&mut self, sequence: u64, message_number: u32) {
        self.buffer.clear();
        self.stats.buffered = Count::default();
        (self.oldest, self.unsent, self.acknowledged) = (sequence, sequence, sequence);
        self.resend.remove_below(sequence);
        self.flow_window = self.config.flow_window;
        self.next_message_number = message_number;
    }

    /// Whether nothing waits, sent or not.
    pub(super) fn is_drained(&self) -> bool {
        self.buffer.is_empty()
    }

    /// What the peer expects next.
    pub(super) const fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// As the peer measures it; a guess until it has told.
    pub(super) const fn round_trip(&self) -> RoundTrip {
        self.round_trip
    }

    /// Packets given up since the start, sent or not.
    pub(super) const fn dropped(&self) -> u64 {
        self.stats.dropped.packets
    }

    /// Whether a packet could be pushed now: asking first saves the sealing of one that would be refused.
    ///
    /// A full buffer drops what the peer does not wait for any more, though it might have been kept for the least of a
    /// second. What may still be in time is never given up for something newer.
    pub(super) fn make_room(&mut self, now: Time) -> bool {
        self.drop_late(now, self.late_after);
        if self.buffer.len() == self.config.capacity {
            self.drop_late(now, self.useless_after);
        }
        self.buffer.len() < self.config.capacity
    }

    /// Takes a packet sealed as number [`Sender::next_sequence`], and says that number again. A refused packet leaves no
    /// hole: the next one gets its number.
    pub(super) fn push(&mut self, now: Time, sealed: Sealed) -> Result<u64, Full> {
        let Sealed { origin, key, packet } = sealed;
        self.pacer.offer(now, packet.len());
        if !self.make_room(now) {
            self.stats.refused.add(&packet);
            return Err(Full);
        }
        let sequence = self.next_sequence();
        let message_number = self.next_message_number;
        self.next_message_number = next_message_number(message_number);
        self.stats.buffered.add(&packet);
        self.buffer.push_back(Slot { packet, origin, resent_at: None, message_number, key });
        Ok(sequence)
    }

    /// The next packet to send now; `None` when there is none, or none yet.
    pub(super) fn poll(&mut self, now: Time) -> Option<Outgoing> {
        self.drop_late(now, self.late_after);
        if !self.has_something_to_send() {
            self.pacer.rest();
            return None;
        }
        if !self.pacer.allows(now) {
            return None;
        }
        let Some(outgoing) = self.next_lost(now).or_else(|| self.next_new(now)) else {
            self.pacer.rest();
            return None;
        };
        let opens_pair = !outgoing.retransmitted && outgoing.sequence.is_multiple_of(PROBE_EVERY);
        self.pacer.spend(now, outgoing.packet.len(), opens_pair);
        Some(outgoing)
    }

    /// Something else goes, which counts like a packet's payload of so many bytes.
    pub(super) fn charge(&mut self, now: Time, bytes: usize) {
        self.pacer.charge(now, bytes);
    }

    /// The peer has everything below `next_expected`. A full acknowledgement tells the round trip and how many packets
    /// from there on the peer has room for, a light one does not.
    pub(super) fn handle_ack(
        &mut self,
        now: Time,
        next_expected: u64,
        round_trip: Option<RoundTrip>,
        available_buffer: Option<u32>,
    ) {
        if next_expected > self.unsent {
            self.stats.acks_invalid += 1;
            return;
        }
        // Overtaken by a newer one.
        if next_expected < self.acknowledged {
            return;
        }
        self.acknowledged = next_expected;
        self.blind_from = now + ACK_INTERVAL;
        if let Some(round_trip) = round_trip {
            self.set_round_trip(round_trip);
        }
        // What was dropped lies beyond what the peer acknowledges; its room is counted from there on.
        let Some(advance) = next_expected.checked_sub(self.oldest) else {
            return;
        };
        for slot in self.buffer.drain(..advance as usize) {
            self.stats.buffered.remove(&slot.packet);
        }
        self.oldest = next_expected;
        self.resend.remove_below(next_expected);
        self.flow_window = available_buffer.unwrap_or_else(|| self.flow_window.saturating_sub(advance as u32));
    }

    /// The peer misses `first` to `last`. What is gone is answered with a drop request, as the peer may not know; what
    /// was never sent is no reason to break the connection, as libsrt does, but counted and ignored.
    pub(super) fn handle_nak(&mut self, now: Time, first: u64, last: u64) {
        if first > last || last >= self.unsent || first < self.config.first {
            self.stats.naks_invalid += 1;
            return;
        }
        if first < self.oldest {
            self.request_drop(first, last.min(self.oldest - 1));
        }
        let first = first.max(self.oldest);
        if first > last {
            return;
        }
        if self.reports.take(now, last - first + 1, self.config.capacity) {
            self.stats.lost += self.resend.insert(first, last);
        } else {
            self.stats.naks_excess += 1;
        }
    }

    /// The next thing to tell the peer about what it will never get.
    pub(super) fn poll_drop_request(&mut self) -> Option<DropRequest> {
        self.drop_requests.pop_front()
    }

    /// Changes the rate from now on.
    pub(super) fn set_bandwidth(&mut self, now: Time, bandwidth: Bandwidth) {
        self.config.bandwidth = bandwidth;
        self.pacer.set_bandwidth(now, bandwidth);
    }

    /// Changes how late a packet may be before it is dropped, those that wait already included.
    pub(super) fn set_drop_delay(&mut self, drop_delay: Option<Duration>) {
        self.config.drop_delay = drop_delay;
        [self.late_after, self.useless_after] = self.config.drop_ages();
    }

    /// `now` reached [`Sender::poll_timeout`]; [`Sender::poll`] may then have something. Calling it early is harmless.
    pub(super) fn handle_timeout(&mut self, now: Time) {
        self.drop_late(now, self.late_after);
        if self.blind_at().is_some_and(|at| at <= now) {
            self.stats.lost += self.resend.insert(self.oldest, self.unsent - 1);
            self.blind_from = now;
        }
    }

    /// When the rate lets a batch go, something is too late, or the peer was silent for too long.
    pub(super) fn poll_timeout(&self) -> Option<Time> {
        let ready = self.has_something_to_send().then(|| self.pacer.ready_at());
        let oldest = self.buffer.front().filter(|_| self.late_after < Duration::MAX);
        let late = oldest.map(|slot| slot.origin + self.late_after + DROP_TOGETHER);
        [ready, late, self.blind_at()].into_iter().flatten().min()
    }

    pub(super) fn stats(&self) -> Stats {
        let span = self.buffer.back().zip(self.buffer.front());
        Stats {
            buffered_span: span.map_or(Duration::ZERO, |(newest, oldest)| newest.origin.since(oldest.origin)),
            flight: self.flight(),
            flow_window: self.flow_window,
            period: self.pacer.period(),
            rate: self.pacer.rate(),
            ..self.stats
        }
    }

    const fn flight(&self) -> u64 {
        self.unsent - self.oldest
    }

    fn has_something_to_send(&self) -> bool {
        let has_new = self.flight() < self.buffer.len() as u64;
        !self.resend.is_empty() || (has_new && self.window_is_open())
    }

    /// Like libsrt 1.5, live mode has no window of its own beside what the peer announced and has room for.
    fn window_is_open(&self) -> bool {
        self.flight() < u64::from(self.flow_window.min(self.config.flow_window))
    }

    /// A report may find that what it asks for is under way: then it came too early to know (libsrt 1.5,
    /// RETRANSMITALGO 1). Only a peer that reports again can be refused that way.
    fn next_lost(&mut self, now: Time) -> Option<Outgoing> {
        // Ends when the set is empty, and the budget of reports bounds how often it is filled.
        while let Some(sequence) = self.resend.pop_first() {
            let slot = &mut self.buffer[(sequence - self.oldest) as usize];
            let is_under_way = slot.resent_at.is_some_and(|at| at + self.resend_after >= now);
            if is_under_way && self.config.peer_sends_nak_reports {
                self.stats.gated += 1;
                continue;
            }
            slot.resent_at = Some(now);
            self.stats.retransmitted.add(&slot.packet);
            return Some(slot.outgoing(sequence, true));
        }
        None
    }

    fn next_new(&mut self, now: Time) -> Option<Outgoing> {
        if !self.window_is_open() {
            return None;
        }
        let flight = self.flight();
        let slot = self.buffer.get(flight as usize)?;
        let outgoing = slot.outgoing(self.unsent, false);
        self.stats.unique.add(&slot.packet);
        if flight == 0 {
            self.blind_from = now + ACK_INTERVAL;
        }
        self.unsent += 1;
        Some(outgoing)
    }

    /// Drops what is older than `age`, from the oldest on.
    #[inline]
    fn drop_late(&mut self, now: Time, age: Duration) {
        if self.buffer.front().is_some_and(|slot| slot.origin + age < now) {
            self.drop_late_ones(now, age);
        }
    }

    #[cold]
    fn drop_late_ones(&mut self, now: Time, age: Duration) {
        let mut dropped = 0;
        while let Some(slot) = self.buffer.pop_front_if(|slot| slot.origin + age < now) {
            self.stats.buffered.remove(&slot.packet);
            self.stats.dropped.add(&slot.packet);
            dropped += 1;
        }
        self.oldest += dropped;
        self.resend.remove_below(self.oldest);
        // libsrt 1.5 opens the window by what it dropped: whoever waits for an acknowledgement that got lost would
        // otherwise wait forever.
        self.flow_window = self.flow_window.saturating_add(dropped as u32);
        if self.unsent < self.oldest {
            // The peer cannot know that these ever were.
            self.request_drop(self.unsent, self.oldest - 1);
            self.unsent = self.oldest;
        }
    }

    fn request_drop(&mut self, first: u64, last: u64) {
        if let Some(request) = self.drop_requests.back_mut()
            && first <= request.last + 1
            && request.first <= last + 1
        {
            request.first = request.first.min(first);
            request.last = request.last.max(last);
        } else if self.drop_requests.len() < DROP_REQUESTS_MAX {
            self.drop_requests.push_back(DropRequest { message_number: 0, first, last });
        }
    }

    fn set_round_trip(&mut self, round_trip: RoundTrip) {
        self.round_trip = round_trip;
        self.resend_after = round_trip.smoothed.saturating_sub(round_trip.variation.saturating_mul(4));
    }

    /// When everything in flight is sent again unasked, after silence: FASTREXMIT of libsrt 1.5. A peer that repeats its
    /// reports needs none of that.
    fn blind_at(&self) -> Option<Time> {
        if self.config.peer_sends_nak_reports || self.flight() == 0 {
            return None;
        }
        let RoundTrip { smoothed, variation } = self.round_trip;
        let span = smoothed.saturating_add(variation.saturating_mul(4)).saturating_add(2 * ACK_INTERVAL);
        Some(self.blind_from + span)
    }
}

/// The one after it; they go round without zero.
pub(super) const fn next_message_number(message_number: u32) -> u32 {
    message_number % MESSAGE_NUMBER_MAX + 1
}

impl Slot {
    fn outgoing(&self, sequence: u64, retransmitted: bool) -> Outgoing {
        let Self { origin, message_number, key, .. } = *self;
        Outgoing { sequence, message_number, origin, key, retransmitted, packet: self.packet.clone() }
    }
}

/// How many numbers the peer may report lost within [`ACK_INTERVAL`]: twice the buffer. An honest receiver reports all
/// it misses once when it notices and then at most each 20 ms (libsrt 1.5, `LiveCC`), so nothing it needs goes unheard,
/// and a dishonest one costs no more than walking through the buffer twice.
#[derive(Debug)]
struct ReportBudget {
    left: u64,
    until: Time,
}

impl ReportBudget {
    fn take(&mut self, now: Time, count: u64, capacity: usize) -> bool {
        if now >= self.until {
            *self = Self { left: 2 * capacity as u64, until: now + ACK_INTERVAL };
        }
        let is_granted = count <= self.left;
        self.left -= if is_granted { count } else { 0 };
        is_granted
    }
}

/// Before the peer has told: libsrt 1.5 and draft 4.10.
const ROUND_TRIP_UNKNOWN: RoundTrip =
    RoundTrip { smoothed: Duration::from_millis(100), variation: Duration::from_millis(50) };

/// Full acknowledgements come this often (draft 4.8.1); libsrt's timers are multiples of it.
const ACK_INTERVAL: Duration = Duration::from_millis(10);

/// Draft 4.6 and libsrt 1.5: a packet is kept for at least a second, so that a long key frame gets through.
const LATE_MIN: Duration = Duration::from_secs(1);

/// libsrt 1.5 adds what both sides take to react.
const REACTION: Duration = Duration::from_millis(20);

/// Judgement: on a congested line packets become late one by one, but are not worth a timer each.
const DROP_TOGETHER: Duration = Duration::from_millis(10);

/// libsrt 1.5 sends each 16th packet and the one behind it back to back: receivers estimate the capacity of the link
/// from their distance.
const PROBE_EVERY: u64 = 16;

/// 26 bits (draft 3.1); zero means no message.
const MESSAGE_NUMBER_MAX: u32 = (1 << 26) - 1;

/// One word of the resend set.
const CAPACITY_MIN: usize = 64;

/// Judgement: a second and a half at 1 Gb/s.
const CAPACITY_MAX: usize = 131_072;

/// Judgement: a peer whose request is not answered reports the loss again.
const DROP_REQUESTS_MAX: usize = 32;
