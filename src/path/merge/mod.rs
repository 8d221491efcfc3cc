//! Joins 2 to 8 legs that carry the same packets into one stream that has what any of them brought (SMPTE ST 2022-7).
//!
//! ```text
//!                first leg to deliver, or none of the merged ones delivers any more (Restarted)
//!            ┌──────────────────────────────────────────────────────────────────────────┐
//!   waiting ─┤                                                                          ├─► merged
//!      ▲     └─ four packets the same as those of merged legs (MergeStarted) ───────────┘     │
//!      └────── told to have restarted; sixteen packets in a row with a number or time ────────┘
//!              out of the blue, or other than those of the other legs (MergeError)
//! ```
//!
//! Packets are the same if the lower 16 bits of their sequence number, their RTP timestamp and their payload are. Each
//! leg's numbers are extended by its own core from its own start; the merger maps them to one axis, which goes on for
//! good: after a restart it continues further up with the same lower bits.
//!
//! A leg that waits for a second without having anything in common with the merged ones is named by
//! [`Event::MergeError`] and goes on waiting. What it brings is kept for as long as it may be needed, because it may
//! be the first to show that the sender has started over. When no merged leg has delivered for the leg timeout, a waiting
//! one carries on in their place, named or not: that is a restart, and better than nothing.

use std::collections::VecDeque;
use std::time::Duration;

use arrayvec::ArrayVec;

use super::failover::SOURCES_MAX;
use crate::bus::{Meta, Packet, Place, Window};
use crate::units::Time;

#[cfg(any(test, fuzzing))]
mod check;
mod clock;
mod leg;
mod membership;
#[cfg(test)]
mod tests;
mod trace;

pub use crate::units::Histogram;
#[cfg(any(test, fuzzing))]
pub use check::check_any_script;
pub use leg::LegStats;

use clock::ReleaseClock;
use leg::{Leg, State};
use trace::{Look, Traces};

/// Legs a flow may have: its sources.
pub const LEGS_MAX: usize = SOURCES_MAX;

/// How to merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// How long a missing packet is waited for.
    pub recovery_window: RecoveryWindow,
    /// When packets are released.
    pub mode: Mode,
    /// How long earlier packets of one leg may come after later ones: zero for legs whose own core puts them in order.
    /// While one leg is alone, gaps are waited for no longer than this.
    pub reorder_window: Duration,
    /// Silence after which a leg counts as lost.
    pub leg_timeout: Duration,
    /// How far apart the packet waited for and the latest one may lie; rounded up to a power of two between 64 and
    /// 32,768. Twice the recovery window's packets are needed where a leg is ahead by all of it.
    pub packets_max: usize,
}

impl Default for Config {
    /// 100 ms, on gaps, legs in order, 500 ms as in failover, 8,192 packets: at 1,316 bytes each 100 ms of 430 Mb/s.
    fn default() -> Self {
        Self {
            recovery_window: RecoveryWindow::Fixed(Duration::from_millis(100)),
            mode: Mode::OnGaps,
            reorder_window: Duration::ZERO,
            leg_timeout: Duration::from_millis(500),
            packets_max: 8_192,
        }
    }
}

/// How long a missing packet is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecoveryWindow {
    /// Always as long.
    Fixed(Duration),
    /// As the legs need it: what all but one in a thousand packets of the slowest one are behind the first, and 10 ms.
    /// Begins with 100 ms, grows at once, shrinks by 1 ms per second, is never longer than 15 s.
    Auto,
}

/// When packets are released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// At once while none is missing. At a gap what follows waits until it is filled or the window is over, and comes out
    /// at once then: no delay while all is well, and jitter when it is not.
    OnGaps,
    /// All with the same delay: the window after the moment at which the fastest leg brings them, going by the RTP
    /// timestamps, as ST 2022-7 receivers do. A single leg has that delay as well.
    Align,
}

/// What has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A leg carries what the merged ones do, and protects them from now on.
    MergeStarted {
        /// Which.
        leg: u8,
    },
    /// A leg does not carry what the merged ones do; it is not merged while there are any. Told once until it is merged or
    /// restarts.
    MergeError {
        /// Which.
        leg: u8,
        /// How it differs.
        why: Mismatch,
    },
    /// A leg, merged or not, has been silent for the leg timeout.
    LegLost {
        /// Which.
        leg: u8,
    },
    /// The last leg that delivered does not any more. Told after its [`Event::LegLost`].
    AllLost,
    /// A lost leg delivers again.
    LegRecovered {
        /// Which.
        leg: u8,
    },
    /// The stream starts over: what comes has nothing to do with what came. Released numbers go on further up.
    Restarted {
        /// The leg that showed it first.
        leg: u8,
    },
}

/// How a leg differs from the merged ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// Nothing in common: another programme, or too far behind.
    Unrelated,
    /// The same sequence numbers, other RTP timestamps.
    Timestamps,
    /// The same sequence numbers and RTP timestamps, other payload.
    Payload,
    /// The same RTP timestamps and payload, other sequence numbers: a second sender with a header of its own.
    Numbers,
}

/// Counters since the start, in packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Released, each once and in order.
    pub released: u64,
    /// Given up: no leg brought them in time.
    pub lost: u64,
    /// Copies dropped.
    pub duplicate: u64,
    /// Came after they were given up.
    pub late: u64,
    /// Released, or given up, before their time because the ring was full.
    pub forced: u64,
    /// Dropped because nobody fetched what was released.
    pub overflow: u64,
    /// Times that the stream started over.
    pub restarts: u64,
    /// Events that nobody fetched in time.
    pub events_dropped: u64,
    /// The recovery window in force.
    pub window: Duration,
}

/// Merges up to [`LEGS_MAX`] legs.
///
/// After each call, or a few, [`Merger::poll_packet`] is to be drained. `now` is the moment of the call and must not run
/// backwards. Memory is taken at the start and while queues warm up.
#[derive(Debug)]
pub struct Merger {
    config: Config,
    /// Missing packets are waited for this long.
    window: Duration,
    /// How far a timestamp may be from where the time that went by puts it, in ticks of 90 kHz.
    tolerance_90k: u32,
    ring: Window<Held>,
    traces: Traces,
    clock: ReleaseClock,
    /// Released already; all come before what the ring holds.
    out: VecDeque<Packet>,
    legs: Box<[Leg; LEGS_MAX]>,
    /// Whether there has been a packet.
    has_begun: bool,
    /// Whether the stream has begun anew since the last packet was released.
    begins_anew: bool,
    /// Other legs may be expected to bring what this stream begins with.
    begins_until: Time,
    /// Merged legs that are alive, and those of the others that may turn out to belong to them.
    partners: u8,
    members_alive: u8,
    /// One bit for each waiting leg that may be ahead of the others.
    watched: u8,
    /// Nothing but releases is due before; may be earlier than the next deadline, never later.
    wake_at: Time,
    next_second: Time,
    seconds: u64,
    events: ArrayVec<Event, EVENTS_MAX>,
    stats: Stats,
}

/// A packet that waits.
#[derive(Debug)]
struct Held {
    packet: Packet,
    /// On gaps: when the first of it and those held above came. Aligned: when it is due. Never later than that of one
    /// above.
    at: Time,
}

impl Merger {
    /// A merger of no legs yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let ring = Window::new(config.packets_max, 0);
        let window = match config.recovery_window {
            RecoveryWindow::Fixed(window) => window.min(WINDOW_MAX),
            RecoveryWindow::Auto => WINDOW_AT_START,
        };
        let mut merger = Self {
            config,
            window: Duration::ZERO,
            tolerance_90k: 0,
            traces: Traces::new(ring.capacity() as usize),
            ring,
            clock: ReleaseClock::default(),
            out: VecDeque::new(),
            legs: Box::default(),
            has_begun: false,
            begins_anew: false,
            begins_until: Time::ZERO,
            partners: 0,
            members_alive: 0,
            watched: 0,
            wake_at: NEVER,
            next_second: Time::ZERO,
            seconds: 0,
            events: ArrayVec::new(),
            stats: Stats::default(),
        };
        merger.set_window(window);
        merger
    }

    /// Makes room for a leg; it takes part from its first packet on. No change if it is there already.
    ///
    /// # Panics
    /// If the index is not below [`LEGS_MAX`].
    pub fn add_leg(&mut self, leg: u8) {
        let leg = &mut self.legs[usize::from(leg)];
        if leg.state == State::Absent {
            *leg = Leg::default();
            leg.state = State::Waiting;
        }
    }

    /// Changes the recovery window, the reorder window and the leg timeout; who is merged stays. The mode and
    /// `packets_max` stay as they were.
    pub fn set_config(&mut self, now: Time, config: Config) {
        let Config { recovery_window, reorder_window, leg_timeout, .. } = config;
        let is_other_window = recovery_window != self.config.recovery_window;
        self.config = Config { recovery_window, reorder_window, leg_timeout, ..self.config };
        if is_other_window && let RecoveryWindow::Fixed(window) = recovery_window {
            self.set_window(window.min(WINDOW_MAX));
        }
        self.refresh(now);
    }

    /// Takes a leg out. What it brought stays.
    pub fn remove_leg(&mut self, now: Time, leg: u8) {
        if let Some(slot) = self.legs.get_mut(usize::from(leg)) {
            *slot = Leg::default();
            self.refresh(now);
            self.settle(now);
        }
    }

    /// The sender of a leg has another identity: its SSRC changed. Its numbers mean something new from here on.
    pub fn restart(&mut self, now: Time, leg: u8) {
        let Some(leg) = self.legs.get_mut(usize::from(leg)).filter(|leg| leg.state != State::Absent) else {
            return;
        };
        leg.stats.unmerged += leg.drop_queue();
        let has_moved = leg.state == State::Member || leg.waiting.has_moved;
        leg.leave(now, has_moved);
        self.refresh(now);
        self.settle(now);
    }

    /// Goes on where somebody else stopped: the stream continues after `latest`, the newest packet of `leg`. Others join once
    /// they turn out to carry the same, and what they bring of before is not released again.
    pub fn resume(&mut self, now: Time, leg: u8, latest: &Meta) {
        let (Some(sequence), index) = (latest.sequence, usize::from(leg)) else { return };
        let Some(leg) = self.legs.get_mut(index).filter(|leg| leg.state == State::Waiting) else { return };
        leg.join(0);
        (leg.is_alive, leg.last) = (true, now);
        leg.last_merged = latest.rtp_timestamp.map(|timestamp| (latest.arrival, timestamp));
        self.ring.restart(sequence + 1);
        self.clock.restart(now);
        self.has_begun = true;
        self.begins_until = now + self.window;
        self.refresh(now);
    }

    /// The first common number that is neither released nor given up yet.
    #[must_use]
    pub const fn next_number(&self) -> u64 {
        self.ring.start()
    }

    /// What added to a leg's own numbers makes them the common ones, wrapping; `None` for one that is not merged.
    #[must_use]
    pub fn offset_of(&self, leg: u8) -> Option<u64> {
        let leg = self.legs.get(usize::from(leg)).filter(|leg| leg.state == State::Member && !leg.must_reanchor)?;
        Some(leg.offset)
    }

    /// Takes in a packet of a leg.
    pub fn push(&mut self, leg: u8, now: Time, packet: Packet) {
        let index = usize::from(leg);
        let Some(leg) = self.legs.get_mut(index) else { return };
        if leg.state == State::Absent {
            return;
        }
        leg.stats.received += 1;
        let Some(sequence) = packet.meta.sequence else {
            leg.stats.unnumbered += 1;
            return;
        };
        leg.last = now;
        if !leg.is_alive {
            self.revive(now, index);
        }
        if self.legs[index].state == State::Waiting {
            self.push_waiting(index, now, sequence, packet);
            return;
        }
        let number = self.number(index, sequence);
        if self.is_out_of_the_blue(index, now, number, packet.meta.rtp_timestamp) {
            self.push_unexpected(index, now, packet);
            return;
        }
        let leg = &mut self.legs[index];
        if !leg.waiting.queue.is_empty() {
            leg.stats.unexpected += leg.drop_queue();
        }
        leg.last_merged = packet.meta.rtp_timestamp.map(|timestamp| (now, timestamp));
        self.merge(index, now, now, number, packet);
        if self.legs[index].mismatches_row >= ROW {
            self.expel(index, now);
        }
    }

    /// Looks at what is due at `now` beside releases: lost legs, legs that do not fit, a restart. Calling it early is
    /// harmless.
    pub fn handle_timeout(&mut self, now: Time) {
        if now < self.wake_at {
            return;
        }
        let mut is_one_lost = false;
        for index in 0..LEGS_MAX {
            let leg = &mut self.legs[index];
            if leg.is_alive && now >= leg.last + self.config.leg_timeout {
                (leg.is_alive, leg.was_lost, is_one_lost) = (false, true, true);
                self.tell(Event::LegLost { leg: index as u8 });
            }
            self.judge(index, now);
        }
        if is_one_lost && self.legs.iter().all(|leg| !leg.is_alive) {
            self.tell(Event::AllLost);
        }
        if now >= self.next_second {
            self.adapt(now);
        }
        self.refresh(now);
        self.settle(now);
        self.drop_remains(now);
    }

    /// The next packet in order whose time has come by `now`; its sequence number is that of the common axis. It is a
    /// discontinuity if it is the first after [`Event::Restarted`], whatever its leg says of itself.
    #[inline]
    pub fn poll_packet(&mut self, now: Time) -> Option<Packet> {
        if let Some(packet) = self.out.pop_front() {
            self.stats.released += 1;
            return Some(packet);
        }
        loop {
            let (first, held) = self.ring.first()?;
            let is_next = first == self.ring.start();
            if now < self.release_at(is_next, held) {
                return None;
            }
            if is_next {
                self.stats.released += 1;
                let mut packet = self.ring.take()?.packet;
                packet.meta.discontinuity = std::mem::take(&mut self.begins_anew);
                return Some(packet);
            }
            let waited =
                now.since(held.at - if self.config.mode == Mode::Align { self.window } else { Duration::ZERO });
            self.give_up_before(first, now, waited);
        }
    }

    /// The oldest change not fetched yet. Of more than 32 waiting ones the newest are dropped and counted.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_at(0)
    }

    /// When [`Merger::handle_timeout`] and [`Merger::poll_packet`] want to be called; `None` for never.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        let release = self.ring.first().map(|(first, held)| self.release_at(first == self.ring.start(), held));
        let release = if self.out.is_empty() { release } else { Some(Time::ZERO) };
        let wake = (self.wake_at != NEVER).then_some(self.wake_at);
        release.into_iter().chain(wake).min()
    }

    /// Counters since the start.
    #[must_use]
    pub const fn stats(&self) -> Stats {
        Stats { window: self.window, ..self.stats }
    }

    /// Counters of one leg; `None` if there is no such leg.
    #[must_use]
    pub fn leg_stats(&self, leg: u8) -> Option<LegStats> {
        self.legs.get(usize::from(leg)).filter(|leg| leg.state != State::Absent).map(Leg::stats)
    }

    /// The common number of a merged leg's own.
    #[inline]
    fn number(&mut self, index: usize, sequence: u64) -> u64 {
        let leg = &mut self.legs[index];
        if leg.must_reanchor {
            leg.must_reanchor = false;
            if self.members_alive > 1 {
                leg.offset = nearest(self.ring.end(), sequence).wrapping_sub(sequence);
            }
        }
        sequence.wrapping_add(leg.offset)
    }

    /// Whether a packet of a merged leg continues nothing: its timestamp is not where the time that went by puts it, or
    /// its number is too far from the latest.
    #[inline]
    fn is_out_of_the_blue(&self, index: usize, now: Time, number: u64, timestamp: Option<u32>) -> bool {
        if let Some((at, last)) = self.legs[index].last_merged
            && let Some(timestamp) = timestamp
            && self.is_off((at, last), (now, timestamp))
        {
            return true;
        }
        let (end, capacity) = (self.ring.end(), self.ring.capacity());
        // Alone it may come back after a long gap.
        number.saturating_add(capacity) < end
            || (number >= end.saturating_add(capacity) && (self.members_alive > 1 || number > NUMBER_MAX))
    }

    /// Whether two timestamps of one leg do not fit when they came.
    #[inline]
    fn is_off(&self, (before, last): (Time, u32), (now, timestamp): (Time, u32)) -> bool {
        // Wraps every 13 hours, as does what it is compared with. No span that is multiplied here comes near 2^60 ns.
        let expected = (now.as_ns().saturating_sub(before.as_ns()).wrapping_mul(9) / 100_000) as u32;
        let off = timestamp.wrapping_sub(last).wrapping_sub(expected).cast_signed();
        off.unsigned_abs() > self.tolerance_90k
    }

    /// Takes in a packet that came at `arrival` and maps to `number`.
    #[inline]
    fn merge(&mut self, index: usize, arrival: Time, now: Time, number: u64, packet: Packet) {
        let look = Look::of(&packet);
        let bit = 1 << index;
        if self.watched != 0 {
            self.watch(now, number, look);
        }
        let leg = &mut self.legs[index];
        let Some(trace) = self.traces.find(number) else {
            self.merge_new(index, now, number, look, packet);
            return;
        };
        if trace.legs == 0 {
            let waited_us = trace.waited_us();
            trace.legs = bit;
            (trace.timestamp, trace.fingerprint) = (look.timestamp, look.fingerprint);
            let late_by = arrival.since(trace.at);
            let waited = Duration::from_micros(waited_us.into());
            self.ring.note(number);
            self.stats.late += 1;
            leg.stats.late += 1;
            leg.stats.reordered += u64::from(leg.span.count(number));
            leg.stats.late_by.record(late_by);
            self.count_skew(index, waited + late_by);
        } else if trace.look() != look {
            leg.stats.mismatched += 1;
            leg.mismatches_row += 1;
            let is_other_timestamp = trace.timestamp != look.timestamp;
            leg.waiting.blame = Some(if is_other_timestamp { Mismatch::Timestamps } else { Mismatch::Payload });
        } else {
            self.stats.duplicate += 1;
            leg.stats.duplicate += 1;
            leg.mismatches_row = 0;
            if trace.legs & bit == 0 {
                trace.legs |= bit;
                let skew = arrival.since(trace.at);
                leg.stats.reordered += u64::from(leg.span.count(number));
                self.count_skew(index, skew);
            }
        }
    }

    /// A number that no leg has brought yet.
    #[inline]
    fn merge_new(&mut self, index: usize, now: Time, number: u64, look: Look, mut packet: Packet) {
        let mut place = self.ring.place(number);
        if place == Place::Beyond {
            self.make_room(number, now);
            place = self.ring.place(number);
        }
        let leg = &mut self.legs[index];
        if place != Place::Free {
            leg.stats.stale += 1;
            return;
        }
        let (start, end) = (self.ring.start(), self.ring.end());
        if number < end {
            leg.stats.filled += u64::from(!leg.span.is_before_highest(number));
        }
        leg.stats.first += 1;
        leg.stats.reordered += u64::from(leg.span.count(number));
        leg.stats.skew.record(Duration::ZERO);
        let gone = self.traces.came(number, now, look, index, self.members_alive > 1);
        self.count_unique(gone);
        packet.meta.sequence = Some(number);
        let mut at = now;
        match self.config.mode {
            Mode::OnGaps if number == start && self.ring.is_empty() => {
                self.ring.pass();
                self.release(packet);
                return;
            }
            Mode::OnGaps => {}
            Mode::Align => at = self.clock.due(now, packet.meta.rtp_timestamp, self.window),
        }
        if number < end
            && let Some(next) = self.ring.next_held(number).and_then(|next| self.ring.get(next))
        {
            at = at.min(next.at);
        }
        // Free, as was seen above.
        let _ = self.ring.insert(number, Held { packet, at });
    }

    /// When what is held first may go, or what is missing before it is given up.
    #[inline]
    fn release_at(&self, is_next: bool, held: &Held) -> Time {
        match self.config.mode {
            Mode::Align => held.at,
            Mode::OnGaps if is_next => held.at,
            Mode::OnGaps => held.at + self.wait(),
        }
    }

    /// How long a missing packet is waited for at present.
    #[inline]
    fn wait(&self) -> Duration {
        let is_alone = self.config.mode == Mode::OnGaps && self.partners <= 1;
        if is_alone { self.config.reorder_window.min(self.window) } else { self.window }
    }

    #[inline]
    fn release(&mut self, mut packet: Packet) {
        // One call may release the ring, and then what each leg has queued.
        if self.out.len() < self.ring.capacity() as usize * (1 + LEGS_MAX) {
            packet.meta.discontinuity = std::mem::take(&mut self.begins_anew);
            self.out.push_back(packet);
        } else {
            self.stats.overflow += 1;
        }
    }

    /// Releases and gives up what is oldest until `number` fits.
    #[cold]
    fn make_room(&mut self, number: u64, now: Time) {
        while self.ring.place(number) == Place::Beyond {
            self.stats.forced += 1;
            match self.ring.take() {
                Some(held) => self.release(held.packet),
                None => self.give_up_before(number.saturating_sub(self.ring.capacity() - 1), now, Duration::ZERO),
            }
        }
    }

    /// Gives up what is missing before `number` and the lowest one held, and was waited for so long.
    #[cold]
    fn give_up_before(&mut self, number: u64, now: Time, waited: Duration) {
        let missed = self.ring.skip_to(number);
        self.stats.lost += missed.end - missed.start;
        let remembered = missed.start.max(missed.end.saturating_sub(self.ring.capacity()));
        for number in remembered..missed.end {
            let gone = self.traces.given_up(number, now, waited);
            self.count_unique(gone);
        }
    }

    #[inline]
    fn count_unique(&mut self, gone: trace::Trace) {
        if let Some(leg) = gone.only_leg().and_then(|leg| self.legs.get_mut(leg)) {
            leg.stats.unique += 1;
        }
    }

    #[inline]
    fn count_skew(&mut self, index: usize, skew: Duration) {
        let leg = &mut self.legs[index];
        leg.stats.skew.record(skew);
        if skew > self.window && self.config.recovery_window == RecoveryWindow::Auto && self.window < WINDOW_MAX {
            self.grow_window(index);
        }
    }

    #[cold]
    fn grow_window(&mut self, index: usize) {
        if let Some(wanted) = self.legs[index].advised_window().filter(|wanted| *wanted > self.window) {
            self.set_window(wanted.min(WINDOW_MAX));
        }
    }

    fn set_window(&mut self, window: Duration) {
        self.window = window;
        let tolerance = (window * 2).max(TOLERANCE_MIN);
        self.tolerance_90k = (tolerance.as_millis() * 90) as u32;
    }

    /// Once a second: the window shrinks, and old skews are forgotten.
    fn adapt(&mut self, now: Time) {
        self.next_second = now + SECOND;
        self.seconds += 1;
        if self.seconds.is_multiple_of(SKEW_PERIOD_SECONDS) {
            self.legs.iter_mut().for_each(Leg::age_skew);
        }
        if self.config.recovery_window == RecoveryWindow::Auto {
            let merged = self.legs.iter().filter(|leg| leg.is_alive && leg.state == State::Member);
            let advised = merged.filter_map(Leg::advised_window).max();
            let least = self.window.saturating_sub(SHRINK_EACH_SECOND);
            if let Some(advised) = advised {
                self.set_window(advised.min(WINDOW_MAX).max(least));
            }
        }
    }

    fn tell(&mut self, event: Event) {
        if self.events.try_push(event).is_err() {
            self.stats.events_dropped += 1;
        }
    }
}

/// The number nearest to `to` that has the lower 16 bits of `sequence`: all that legs have in common.
const fn nearest(to: u64, sequence: u64) -> u64 {
    let ahead = (sequence as u16).wrapping_sub(to as u16).cast_signed();
    match to.checked_add_signed(ahead as i64) {
        Some(number) => number,
        None => to.wrapping_add(sequence as u16 as u64),
    }
}

/// No longer recovery window is taken. Judgement, with a look at AWS MediaConnect, which ends there as well.
pub const WINDOW_MAX: Duration = Duration::from_secs(15);

/// Before anything is known of the legs: the API's default.
const WINDOW_AT_START: Duration = Duration::from_millis(100);

/// Slow, so that a window that was needed once is still there when it is needed again.
const SHRINK_EACH_SECOND: Duration = Duration::from_millis(1);

/// Skews are looked back at for one to two of these. Judgement: at a thousand packets a second one in a thousand is
/// sixty then.
const SKEW_PERIOD_SECONDS: u64 = 60;

const SECOND: Duration = Duration::from_secs(1);

/// How far timestamps may be off at least. Judgement: more than senders burst.
const TOLERANCE_MIN: Duration = Duration::from_secs(2);

/// Packets in a row that contradict what is known until they are believed. Judgement: more than a network damages or
/// misdirects in a row.
const ROW: u32 = 16;

/// No number goes up to here in any lifetime; what does would wrap next.
const NUMBER_MAX: u64 = 1 << 62;

/// Events that may wait. One call makes at most 17: eight legs lost, eight named, a restart.
const EVENTS_MAX: usize = 32;

const NEVER: Time = Time::from_ns(u64::MAX);
