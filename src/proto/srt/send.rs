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

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::bus::{Meta, Pool, PoolLimits};

    /// Three packets before the 31 bits of the wire wrap.
    const FIRST: u64 = (2 << 31) - 3;

    #[test]
    fn packets_go_out_in_order_with_numbers_of_their_own() {
        let mut rig = Rig::new(config());
        assert_eq!(rig.sender.next_sequence(), FIRST);
        assert_eq!([0, 1, 2].map(|ms| rig.push(ms)), [0, 1, 2]);
        let sent: Vec<_> = std::iter::from_fn(|| rig.sender.poll(ms(5))).collect();
        let numbers: Vec<_> = sent.iter().map(|out| (out.sequence - FIRST, out.message_number, out.origin)).collect();
        assert_eq!(numbers, [(0, 1, ms(0)), (1, 2, ms(1)), (2, 3, ms(2))]);
        assert!(sent.iter().all(|out| !out.retransmitted && out.key == 1));
        assert_eq!(&*sent[2].packet, 2u64.to_be_bytes());
        assert_eq!(rig.sender.poll_timeout(), Some(ms(1_030)));
    }

    #[test]
    fn message_numbers_wrap_past_zero() {
        let mut rig = Rig::new(config());
        rig.sender.next_message_number = MESSAGE_NUMBER_MAX - 1;
        (0..4).for_each(|_| _ = rig.push(0));
        let numbers: Vec<_> = std::iter::from_fn(|| rig.sender.poll(ms(0))).map(|out| out.message_number).collect();
        assert_eq!(numbers, [0x03ff_fffe, 0x03ff_ffff, 1, 2]);
    }

    #[test]
    fn what_is_acknowledged_leaves_the_buffer() {
        let mut rig = Rig::sent(10);
        rig.ack(1, 4);
        let stats = rig.sender.stats();
        assert_eq!((stats.buffered, stats.flight), (Count { packets: 6, bytes: 48 }, 6));
        rig.nak(1, 0, 9);
        assert_eq!(rig.poll(1), [4, 5, 6, 7, 8, 9]);
        rig.nak(2, 4, 9);
        rig.ack(2, 10);
        assert_eq!(rig.poll(2), [0_u64; 0]);
        assert_eq!(rig.sender.poll_timeout(), None);
    }

    #[test]
    fn acknowledgements_of_the_unsent_and_overtaken_ones_change_nothing() {
        let mut rig = Rig::sent(10);
        rig.push(0);
        rig.ack(1, 5);
        let before = rig.sender.stats();
        for next_expected in [FIRST + 11, FIRST + 12, FIRST + (1 << 30), u64::MAX] {
            rig.sender.handle_ack(ms(2), next_expected, Some(round_trip(1, 0)), Some(0));
        }
        for next_expected in [FIRST + 4, FIRST - 1, 0] {
            rig.sender.handle_ack(ms(2), next_expected, Some(round_trip(1, 0)), Some(0));
        }
        assert_eq!(rig.sender.stats(), Stats { acks_invalid: 4, ..before });
        assert_eq!(rig.sender.round_trip, ROUND_TRIP_UNKNOWN);
    }

    #[test]
    fn what_is_lost_goes_again_unchanged_and_before_what_is_new() {
        let mut rig = Rig::new(config());
        rig.push(0);
        rig.push(7);
        let original: Vec<_> = std::iter::from_fn(|| rig.sender.poll(ms(10))).collect();
        rig.push(40);
        rig.nak(50, 1, 1);
        let again = rig.sender.poll(ms(50)).unwrap();
        assert!(again.retransmitted);
        assert_eq!((again.sequence, again.message_number), (FIRST + 1, original[1].message_number));
        assert_eq!((again.origin, again.key, &*again.packet), (ms(7), 1, &*original[1].packet));
        assert_eq!(rig.poll(50), [2]);
        let stats = rig.sender.stats();
        assert_eq!((stats.unique.packets, stats.retransmitted.packets, stats.lost), (3, 1, 1));
    }

    #[test]
    fn a_report_that_came_too_early_to_know_sends_nothing_again() {
        let mut rig = Rig::sent(5);
        rig.sender.handle_ack(ms(1), FIRST, Some(round_trip(40, 2)), None);
        rig.nak(10, 3, 3);
        assert_eq!(rig.poll(10), [3]);
        for early in [10, 30, 42] {
            rig.nak(early, 2, 3);
            assert_eq!(rig.poll(early), if early == 10 { vec![2] } else { vec![] }, "{early} ms");
        }
        rig.nak(43, 2, 3);
        assert_eq!(rig.poll(43), [2, 3], "40 ms less 4 times 2 ms have passed");
        assert_eq!(rig.sender.stats().gated, 5);
    }

    #[test]
    fn a_varying_round_trip_opens_the_gate_but_not_twice_at_a_time() {
        let mut rig = Rig::sent(5);
        for now in [10, 10, 11, 11] {
            rig.nak(now, 0, 0);
            let expected = if rig.sender.stats().lost % 2 == 1 { vec![0] } else { vec![] };
            assert_eq!(rig.poll(now), expected);
        }
    }

    #[test]
    fn a_peer_that_reports_only_once_gets_each_report_answered() {
        let mut rig = Rig::with(Config { peer_sends_nak_reports: false, ..config() }, 5);
        rig.sender.handle_ack(ms(1), FIRST, Some(round_trip(40, 0)), None);
        for now in [10, 11, 12] {
            rig.nak(now, 3, 3);
            assert_eq!(rig.poll(now), [3]);
        }
    }

    #[test]
    fn reports_of_the_unsent_are_counted_and_ignored() {
        let mut rig = Rig::sent(5);
        rig.push(0);
        let (first, last) = (FIRST, FIRST + 4);
        let invalid = [(first, last + 1), (last + 1, last + 1), (last, first), (first - 1, first), (0, 0)];
        invalid.iter().for_each(|(first, last)| rig.sender.handle_nak(ms(1), *first, *last));
        rig.sender.handle_nak(ms(1), 0, u64::MAX);
        assert_eq!(rig.sender.stats().naks_invalid, 6);
        assert_eq!(rig.poll(1), [5]);
        assert_eq!(rig.sender.poll_drop_request(), None);
    }

    #[test]
    fn packets_are_kept_for_a_second_and_20_ms_and_reports_of_them_are_answered_by_a_drop_request() {
        let mut rig = Rig::new(config());
        (0..10).for_each(|at| _ = rig.push(at));
        assert_eq!(rig.poll(10).len(), 10);
        rig.sender.handle_timeout(ms(1_020));
        assert_eq!(rig.sender.stats().dropped.packets, 0);
        rig.sender.handle_timeout(ms(1_024));
        assert_eq!(rig.sender.stats().dropped, Count { packets: 4, bytes: 32 });
        assert_eq!(rig.drop_requests(), [], "the peer has not asked");
        rig.nak(1_024, 2, 5);
        assert_eq!(rig.drop_requests(), [(2, 3)]);
        assert_eq!(rig.poll(1_024), [4, 5]);
    }

    #[test]
    fn what_is_dropped_before_it_was_sent_is_told_at_once() {
        let mut rig = Rig::with(Config { flow_window: 4, ..config() }, 0);
        (0..10).for_each(|_| _ = rig.push(0));
        rig.push(500);
        assert_eq!(rig.poll(0), [0, 1, 2, 3]);
        assert_eq!(rig.poll(1_100), [10]);
        assert_eq!(rig.drop_requests(), [(4, 9)]);
        rig.ack(1_200, 11);
        assert_eq!(rig.sender.stats().acks_invalid, 0);
    }

    #[test]
    fn long_latencies_and_drop_delays_move_the_drop_and_without_agreement_there_is_none() {
        let dropped_after = |config: Config| {
            let mut rig = Rig::with(config, 1);
            (0..10_000).find(|at| {
                rig.sender.handle_timeout(ms(*at));
                rig.sender.stats().dropped.packets > 0
            })
        };
        let latency = |ms| Config { latency: Duration::from_millis(ms), ..config() };
        assert_eq!(dropped_after(latency(999)), Some(1_021));
        assert_eq!(dropped_after(latency(3_000)), Some(3_021));
        let delayed = Config { drop_delay: Some(Duration::from_millis(500)), ..latency(3_000) };
        assert_eq!(dropped_after(delayed), Some(3_521));
        assert_eq!(dropped_after(Config { drop_delay: None, ..config() }), None);
        assert_eq!(dropped_after(Config { too_late_drop: false, ..config() }), None);
    }

    #[test]
    fn another_drop_delay_is_for_packets_that_wait_already() {
        let mut rig = Rig::with(Config { drop_delay: None, ..config() }, 1);
        rig.sender.handle_timeout(ms(5_000));
        assert_eq!(rig.sender.stats().dropped.packets, 0);
        rig.sender.set_drop_delay(Some(Duration::from_millis(6_000)));
        rig.sender.handle_timeout(ms(6_000));
        assert_eq!(rig.sender.stats().dropped.packets, 0);
        rig.sender.set_drop_delay(Some(Duration::ZERO));
        rig.sender.handle_timeout(ms(6_001));
        assert_eq!(rig.sender.stats().dropped.packets, 1);
    }

    #[test]
    fn a_full_buffer_gives_up_what_is_useless_and_refuses_what_is_new_otherwise() {
        let mut rig = Rig::new(Config { capacity: 64, ..config() });
        (0..64).for_each(|at| _ = rig.push(at));
        assert_eq!(rig.poll(64).len(), 64);
        assert!(!rig.sender.make_room(ms(140)));
        assert_eq!(rig.try_push(140), Err(Full), "120 ms of latency and 20 ms are not over");
        assert_eq!(rig.try_push(145), Ok(64), "the number of the refused one");
        let stats = rig.sender.stats();
        assert_eq!((stats.dropped.packets, stats.refused.packets, stats.buffered.packets), (5, 1, 60));
        rig.nak(145, 0, 6);
        assert_eq!((rig.drop_requests(), rig.poll(145)), (vec![(0, 4)], vec![5, 6, 64]));
    }

    #[test]
    fn a_full_buffer_that_must_not_drop_refuses() {
        let mut rig = Rig::new(Config { capacity: 64, too_late_drop: false, ..config() });
        (0..64).for_each(|_| _ = rig.push(0));
        assert_eq!(rig.try_push(60_000), Err(Full));
        rig.poll(60_000);
        rig.ack(60_000, 1);
        assert_eq!(rig.try_push(60_000), Ok(64));
    }

    #[test]
    fn a_key_frame_of_3000_packets_goes_through_at_once_by_default() {
        let mut rig = Rig::new(config());
        assert!((0..3_000).all(|n| rig.push(0) == n));
        assert_eq!(rig.poll(0).len(), 3_000);
        assert_eq!(rig.sender.stats().refused.packets, 0);
    }

    #[test]
    fn the_peers_window_holds_what_is_new_but_not_what_is_lost() {
        let mut rig = Rig::with(Config { flow_window: 4, ..config() }, 0);
        (0..20).for_each(|_| _ = rig.push(0));
        assert_eq!(rig.poll(0), [0, 1, 2, 3]);
        rig.nak(1, 1, 1);
        assert_eq!(rig.poll(1), [1]);
        rig.sender.handle_ack(ms(2), FIRST + 2, None, Some(3));
        assert_eq!(rig.poll(2), [4], "three from number 2 on");
        rig.sender.handle_ack(ms(3), FIRST + 4, None, None);
        assert_eq!(rig.poll(3), [0_u64; 0], "a light acknowledgement tells of no room");
        rig.sender.handle_ack(ms(4), FIRST + 5, None, Some(u32::MAX));
        assert_eq!(rig.poll(4), [5, 6, 7, 8], "never more than announced");
        rig.sender.handle_ack(ms(5), FIRST + 9, None, Some(0));
        assert_eq!(rig.poll(5), [0_u64; 0]);
        let stats = rig.sender.stats();
        assert_eq!((stats.flow_window, stats.flight, stats.buffered.packets), (0, 0, 11));
        let late = rig.sender.poll_timeout().unwrap();
        rig.push(1_000);
        rig.sender.handle_timeout(late);
        assert_eq!(rig.sender.poll(late).map(|out| out.sequence), Some(FIRST + 20), "a lost window does not last");
    }

    #[test]
    fn silence_of_a_peer_that_does_not_repeat_reports_sends_everything_again() {
        let mut rig = Rig::with(Config { peer_sends_nak_reports: false, ..config() }, 0);
        assert_eq!(rig.sender.poll_timeout(), None);
        (0..3).for_each(|_| _ = rig.push(5_000));
        rig.poll(5_000);
        // 100 ms + 4 * 50 ms + 2 * 10 ms, the first time 10 ms on top.
        for (n, at) in [(1, 5_330), (2, 5_650), (3, 5_970)] {
            assert_eq!(rig.sender.poll_timeout(), Some(ms(at)));
            rig.sender.handle_timeout(ms(at - 1));
            assert_eq!(rig.poll(at - 1), [0_u64; 0]);
            rig.sender.handle_timeout(ms(at));
            assert_eq!(rig.poll(at), [0, 1, 2]);
            assert_eq!(rig.sender.stats().lost, 3 * n);
        }
        rig.sender.handle_ack(ms(6_000), FIRST + 1, Some(round_trip(20, 5)), None);
        assert_eq!(rig.sender.poll_timeout(), Some(ms(6_030)), "too late comes first");
        assert_eq!(rig.sender.blind_at(), Some(ms(6_070)));
        rig.ack(6_010, 3);
        assert_eq!(rig.sender.blind_at(), None);
    }

    #[test]
    fn a_peer_that_repeats_its_reports_is_never_sent_anything_unasked() {
        let mut rig = Rig::sent(3);
        (0..1_000).for_each(|at| rig.sender.handle_timeout(ms(at)));
        assert_eq!(rig.poll(1_000), [0_u64; 0]);
    }

    #[test]
    fn drop_requests_are_joined_and_bounded() {
        let mut rig = Rig::sent(1_000);
        rig.ack(0, 1_000);
        for sequence in [5, 6, 8, 9, 7] {
            rig.nak(1, sequence, sequence);
        }
        assert_eq!(rig.drop_requests(), [(5, 6), (7, 9)]);
        (0..1_000).step_by(2).for_each(|sequence| rig.nak(2, sequence, sequence));
        assert_eq!(rig.drop_requests().len(), DROP_REQUESTS_MAX);
        assert_eq!(rig.sender.stats().retransmitted.packets, 0);
    }

    #[test]
    fn reports_beyond_any_need_are_not_heeded_for_a_while() {
        let mut rig = Rig::with(Config { peer_sends_nak_reports: false, ..config() }, 8_192);
        for now in [0, 2, 4, 9] {
            rig.nak(now, 0, 8_191);
            assert_eq!(rig.poll(now).len(), if now < 4 { 8_192 } else { 0 }, "{now} ms");
        }
        rig.nak(10, 0, 8_191);
        assert_eq!(rig.poll(10).len(), 8_192);
        assert_eq!(rig.sender.stats().naks_excess, 2);
        for round in 0..20 {
            (0..8_192).step_by(2).for_each(|sequence| rig.nak(11 + round, sequence, sequence));
        }
        assert_eq!(rig.poll(40).len(), 4_096);
    }

    #[test]
    fn lost_packets_count_towards_the_rate() {
        let rate = Bitrate::from_bps(20_000_000);
        let mut rig = Rig::new(Config { bandwidth: Bandwidth::Max(rate), ..config() });
        rig.payload = vec![0x47; 1_316];
        let (mut bits, mut now) = (0, ms(0));
        while now < ms(2_000) {
            while rig.sender.next_sequence() - rig.sender.oldest < 1_000 {
                rig.try_push(now.as_ns() / 1_000_000).unwrap();
            }
            while let Some(out) = rig.sender.poll(now) {
                bits += (out.packet.len() as u64 + 44) * 8;
                if out.sequence % 3 == 0 && !out.retransmitted {
                    rig.sender.handle_nak(now, out.sequence, out.sequence);
                } else {
                    rig.sender.handle_ack(now, out.sequence, None, Some(8_192));
                }
            }
            now = rig.sender.poll_timeout().unwrap();
        }
        assert!(rig.sender.stats().retransmitted.packets > 800);
        assert!((39_600_000..=40_400_000).contains(&bits), "{bits} bits in 2 s");
    }

    #[test]
    fn garbage_never_panics() {
        for seed in 0..50 {
            let mut random = Random(seed);
            let peer_sends_nak_reports = random.below(2) == 0;
            let mut rig = Rig::new(Config { capacity: 64, peer_sends_nak_reports, ..config() });
            let interesting =
                [0, 1, FIRST - 1, FIRST, FIRST + 63, FIRST + 64, 1 << 31, 1 << 32, u64::MAX - 1, u64::MAX];
            for step in 0..2_000 {
                let now = Time::from_ns(random.below(step * 1_000_000 + 1));
                let mut number = || match random.below(4) {
                    0 => interesting[random.below(10) as usize],
                    1 => random.next(),
                    _ => FIRST + random.below(200),
                };
                let (a, b) = (number(), number());
                let endless = RoundTrip { smoothed: Duration::from_nanos(a), variation: Duration::MAX };
                match random.below(6) {
                    0 => rig.sender.handle_ack(now, a, Some(endless), Some(b as u32)),
                    1 => rig.sender.handle_ack(now, a, None, None),
                    2 => rig.sender.handle_nak(now, a, b),
                    3 => rig.sender.handle_timeout(now),
                    4 => _ = rig.try_push(now.as_ns() / 1_000_000),
                    _ => _ = rig.sender.poll(now),
                }
                rig.sender.poll_timeout();
                rig.sender.stats();
                assert!(rig.sender.buffer.len() <= 64 && rig.sender.drop_requests.len() <= DROP_REQUESTS_MAX);
            }
        }
    }

    /// Loss, acknowledgements and time at random: what is sent, what is kept, and what is told are those of the model.
    #[test]
    fn random_operations_agree_with_the_model() {
        let mut happened = [0; 6];
        for seed in 0..300 {
            let mut random = Random(seed);
            let config = Config {
                latency: Duration::from_millis([0, 120, 1_500][random.below(3) as usize]),
                too_late_drop: random.below(4) > 0,
                drop_delay: [None, Some(Duration::ZERO), Some(Duration::from_millis(300))][random.below(3) as usize],
                capacity: 64,
                flow_window: [10, 60, 25_600][random.below(3) as usize],
                peer_sends_nak_reports: random.below(2) == 0,
                ..config()
            };
            let mut model = Model::new(&config);
            let mut rig = Rig::new(config);
            let mut now = 0;
            for step in 0..1_500 {
                let context = format!("seed {seed} step {step} at {now} ms");
                now += if random.below(100) == 0 { random.below(900) } else { random.below(6) };
                let mut sequence = || model.oldest + random.below(model.packets.len() as u64 + 12) - 5;
                let (a, b) = (sequence(), sequence());
                match random.below(14) {
                    0..5 => {
                        let origin = now - random.below(now.min(5) + 1);
                        let pushed = rig.push_from(now, origin);
                        assert_eq!(pushed, model.push(now, origin), "{context}");
                    }
                    5..9 => {
                        let sent = rig.sender.poll(ms(now)).map(|out| (out.sequence, out.retransmitted));
                        assert_eq!(sent, model.poll(now), "{context}");
                    }
                    9..11 => {
                        let trip = (random.below(2) == 0).then(|| (random.below(60), random.below(20)));
                        let room = (random.below(2) == 0).then(|| random.below(70) as u32);
                        let round_trip = trip.map(|(smoothed, variation)| round_trip(smoothed, variation));
                        rig.sender.handle_ack(ms(now), a, round_trip, room);
                        model.ack(now, a, trip, room);
                    }
                    11..13 => {
                        rig.sender.handle_nak(ms(now), a, b);
                        model.nak(a, b);
                    }
                    _ => {
                        rig.sender.handle_timeout(ms(now));
                        model.timeout(now);
                        while let Some(out) = rig.sender.poll(ms(now)) {
                            assert_eq!(Some((out.sequence, out.retransmitted)), model.poll(now), "{context}");
                        }
                        assert_eq!(model.poll(now), None, "{context}");
                        assert!(rig.sender.poll_timeout().is_none_or(|at| at > ms(now)), "{context}: no progress");
                    }
                }
                model.check(&rig.sender, &context);
                let told: BTreeSet<u64> = rig.drop_requests().iter().flat_map(|(a, b)| FIRST + a..=FIRST + b).collect();
                assert_eq!(told, std::mem::take(&mut model.told), "{context}");
            }
            happened.iter_mut().zip(model.counts).for_each(|(sum, count)| *sum += count);
        }
        assert!(happened.iter().all(|count| *count > 5_000), "{happened:?}");
    }

    /// The same rules on maps and sets, in milliseconds, and at no rate.
    struct Model {
        config: Config,
        /// What is kept: origin, whether it was sent, when it was last sent again.
        packets: BTreeMap<u64, (u64, bool, Option<u64>)>,
        lost: BTreeSet<u64>,
        oldest: u64,
        acknowledged: u64,
        window: u64,
        round_trip: (u64, u64),
        blind_from: u64,
        /// What the peer was told is gone.
        told: BTreeSet<u64>,
        counts: [u64; 6],
    }

    impl Model {
        fn new(config: &Config) -> Self {
            Self {
                config: config.clone(),
                packets: BTreeMap::new(),
                lost: BTreeSet::new(),
                oldest: FIRST,
                acknowledged: FIRST,
                window: config.flow_window.into(),
                round_trip: (100, 50),
                blind_from: 0,
                told: BTreeSet::new(),
                counts: [0; 6],
            }
        }

        fn next(&self) -> u64 {
            self.oldest + self.packets.len() as u64
        }

        fn unsent(&self) -> u64 {
            self.packets.iter().find(|(_, (_, sent, _))| !sent).map_or_else(|| self.next(), |(sequence, _)| *sequence)
        }

        fn push(&mut self, now: u64, origin: u64) -> Result<u64, Full> {
            self.drop_older_than(now, 1_000);
            if self.packets.len() == 64 {
                self.drop_older_than(now, 0);
            }
            if self.packets.len() == 64 {
                self.counts[3] += 1;
                return Err(Full);
            }
            let sequence = self.next();
            self.packets.insert(sequence, (origin, false, None));
            Ok(sequence)
        }

        fn drop_older_than(&mut self, now: u64, least: u64) {
            let Some(delay) = self.config.drop_delay.filter(|_| self.config.too_late_drop) else {
                return;
            };
            let age = ((self.config.latency + delay).as_millis() as u64).max(least) + 20;
            while let Some((&sequence, &(origin, sent, _))) = self.packets.first_key_value()
                && origin + age < now
            {
                self.packets.remove(&sequence);
                self.lost.remove(&sequence);
                self.oldest += 1;
                self.window += 1;
                self.counts[2] += 1;
                self.told.extend((!sent).then_some(sequence));
            }
        }

        fn poll(&mut self, now: u64) -> Option<(u64, bool)> {
            self.drop_older_than(now, 1_000);
            while let Some(sequence) = self.lost.pop_first() {
                let (_, _, resent_at) = self.packets.get_mut(&sequence).unwrap();
                let (smoothed, variation) = self.round_trip;
                let is_gated = self.config.peer_sends_nak_reports
                    && resent_at.is_some_and(|at| at + smoothed.saturating_sub(4 * variation) >= now);
                if !is_gated {
                    *resent_at = Some(now);
                    self.counts[1] += 1;
                    return Some((sequence, true));
                }
            }
            let unsent = self.unsent();
            let flight = unsent - self.oldest;
            if flight >= self.window.min(self.config.flow_window.into()) {
                return None;
            }
            self.packets.get_mut(&unsent)?.1 = true;
            if flight == 0 {
                self.blind_from = now + 10;
            }
            self.counts[0] += 1;
            Some((unsent, false))
        }

        fn ack(&mut self, now: u64, next_expected: u64, round_trip: Option<(u64, u64)>, room: Option<u32>) {
            if next_expected > self.unsent() || next_expected < self.acknowledged {
                return;
            }
            self.acknowledged = next_expected;
            self.blind_from = now + 10;
            self.round_trip = round_trip.unwrap_or(self.round_trip);
            if next_expected >= self.oldest {
                let left = self.window.saturating_sub(next_expected - self.oldest);
                self.window = room.map_or(left, u64::from);
                self.packets = self.packets.split_off(&next_expected);
                self.lost = self.lost.split_off(&next_expected);
                self.oldest = next_expected;
            }
        }

        fn nak(&mut self, first: u64, last: u64) {
            if first > last || last >= self.unsent() || first < FIRST {
                self.counts[5] += 1;
                return;
            }
            for sequence in first..=last {
                if sequence < self.oldest {
                    self.told.insert(sequence);
                } else {
                    self.counts[4] += u64::from(self.lost.insert(sequence));
                }
            }
        }

        fn timeout(&mut self, now: u64) {
            self.drop_older_than(now, 1_000);
            let (smoothed, variation) = self.round_trip;
            let at = self.blind_from + smoothed + 4 * variation + 20;
            let unsent = self.unsent();
            if !self.config.peer_sends_nak_reports && unsent > self.oldest && now >= at {
                self.blind_from = now;
                self.counts[4] += (self.oldest..unsent).filter(|sequence| self.lost.insert(*sequence)).count() as u64;
            }
        }

        fn check(&self, sender: &Sender, context: &str) {
            let stats = sender.stats();
            let counts = [
                stats.unique.packets,
                stats.retransmitted.packets,
                stats.dropped.packets,
                stats.refused.packets,
                stats.lost,
                stats.naks_invalid,
            ];
            assert_eq!(counts, self.counts, "{context}");
            assert_eq!((sender.oldest, sender.next_sequence()), (self.oldest, self.next()), "{context}");
            assert_eq!(stats.flight, self.unsent() - self.oldest, "{context}");
            assert_eq!(stats.buffered.packets, self.packets.len() as u64, "{context}");
            assert_eq!(u64::from(stats.flow_window), self.window, "{context}");
        }
    }

    /// A sender and packets for it; sequence numbers are counted from the first.
    struct Rig {
        sender: Sender,
        pool: Pool,
        pushed: u64,
        payload: Vec<u8>,
    }

    impl Rig {
        fn new(config: Config) -> Self {
            let sender = Sender::new(config, ms(0));
            Self { sender, pool: Pool::new(PoolLimits::default()), pushed: 0, payload: Vec::new() }
        }

        /// A sender that has sent `count` packets at the start.
        fn with(config: Config, count: u64) -> Self {
            let mut rig = Self::new(config);
            (0..count).for_each(|_| _ = rig.push(0));
            assert_eq!(rig.poll(0).len() as u64, count);
            rig
        }

        fn sent(count: u64) -> Self {
            Self::with(config(), count)
        }

        fn push(&mut self, at: u64) -> u64 {
            self.try_push(at).unwrap()
        }

        fn try_push(&mut self, at: u64) -> Result<u64, Full> {
            self.push_from(at, at).map(|sequence| sequence - FIRST)
        }

        fn push_from(&mut self, at: u64, origin: u64) -> Result<u64, Full> {
            let payload =
                if self.payload.is_empty() { self.pushed.to_be_bytes().to_vec() } else { self.payload.clone() };
            self.pushed += 1;
            let packet = self.pool.copy(&payload, Meta::default()).unwrap();
            self.sender.push(ms(at), Sealed { origin: ms(origin), key: 1, packet })
        }

        /// All that goes at one moment.
        fn poll(&mut self, at: u64) -> Vec<u64> {
            std::iter::from_fn(|| self.sender.poll(ms(at))).map(|out| out.sequence - FIRST).collect()
        }

        fn ack(&mut self, at: u64, next_expected: u64) {
            self.sender.handle_ack(ms(at), FIRST + next_expected, None, Some(8_192));
        }

        fn nak(&mut self, at: u64, first: u64, last: u64) {
            self.sender.handle_nak(ms(at), FIRST + first, FIRST + last);
        }

        fn drop_requests(&mut self) -> Vec<(u64, u64)> {
            let requests = std::iter::from_fn(|| self.sender.poll_drop_request());
            requests.map(|request| (request.first - FIRST, request.last - FIRST)).collect()
        }
    }

    /// SplitMix64.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ z >> 31
        }

        fn below(&mut self, limit: u64) -> u64 {
            self.next() % limit
        }
    }

    fn config() -> Config {
        Config::new(FIRST)
    }

    fn round_trip(smoothed_ms: u64, variation_ms: u64) -> RoundTrip {
        RoundTrip { smoothed: Duration::from_millis(smoothed_ms), variation: Duration::from_millis(variation_ms) }
    }

    fn ms(ms: u64) -> Time {
        Time::ZERO + Duration::from_millis(ms)
    }
}
