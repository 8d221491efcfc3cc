//! When to acknowledge, and the round-trip time that the answers show (draft 4.8.1, 4.10).

use std::time::Duration;

use crate::units::{Seq, Time};

/// Which ACK is wanted when, and which were sent.
#[derive(Debug)]
pub(super) struct Acks {
    /// Number of the last full one.
    number: Seq<31>,
    /// What the last full one asked for, and when.
    last: (u64, Time),
    /// The last that the peer answered: its number, and what it asked for.
    confirmed: (Seq<31>, u64),
    next_at: Time,
    /// Packets since the timer ran, and how many times 64 of them the next light ACK waits for.
    packets: u32,
    light: u32,
    /// Whether the last full one said that there is no room.
    was_full: bool,
    /// Full ACKs that are not answered, by their number modulo the length.
    sent: Box<[Option<SentAck>]>,
}

#[derive(Clone, Copy, Debug)]
struct SentAck {
    number: Seq<31>,
    next: u64,
    at: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// A light one.
    Light,
    /// A full one, which is to be recorded.
    Full,
}

impl Acks {
    /// Expects `first`.
    pub(super) fn new(first: u64, now: Time) -> Self {
        Self {
            number: Seq::new(0),
            last: (first, now),
            confirmed: (Seq::new(0), first),
            next_at: now + ACK_INTERVAL,
            packets: 0,
            light: 1,
            was_full: false,
            sent: vec![None; ACKS_SENT].into(),
        }
    }

    /// A data packet came.
    pub(super) const fn count_packet(&mut self) {
        self.packets = self.packets.saturating_add(1);
    }

    /// What is to be sent now if `next` is the first packet not come and the buffer has room for `available` packets.
    pub(super) fn poll(&mut self, now: Time, next: u64, available: u64, round_trip: &RoundTrip) -> Option<Wanted> {
        if now >= self.next_at {
            let deadline = self.deadline(next, available, round_trip);
            self.next_at = now + ACK_INTERVAL;
            (self.packets, self.light) = (0, 1);
            return deadline.filter(|at| *at <= now).map(|_| Wanted::Full);
        }
        if self.packets / LIGHT_EVERY < self.light {
            return None;
        }
        self.light = self.packets / LIGHT_EVERY + 1;
        if self.is_opening(available) {
            return Some(Wanted::Full);
        }
        (next != self.confirmed.1).then_some(Wanted::Light)
    }

    /// When a full ACK is to be sent, should nothing change.
    pub(super) fn deadline(&self, next: u64, available: u64, round_trip: &RoundTrip) -> Option<Time> {
        if self.is_opening(available) || next > self.last.0 {
            return Some(self.next_at);
        }
        // Sent, but not answered yet.
        (next > self.confirmed.1).then(|| self.next_at.max(self.last.1 + round_trip.patience()))
    }

    /// A full ACK is sent; gives its number.
    pub(super) fn record(&mut self, now: Time, next: u64, available: u64) -> u32 {
        self.number = self.number.add(1);
        self.last = (next, now);
        self.was_full = available == 0;
        self.sent[self.number.value() as usize % ACKS_SENT] = Some(SentAck { number: self.number, next, at: now });
        self.number.value()
    }

    /// Whether the peer, told last that there was no room, has to learn that there is some.
    const fn is_opening(&self, available: u64) -> bool {
        self.was_full && available > 0
    }

    /// When the ACK was sent that the peer answers; `None` if it was never sent, or a later one was answered before.
    pub(super) fn confirm(&mut self, number: u32) -> Option<Time> {
        let sent = self.sent[number as usize % ACKS_SENT].take_if(|sent| sent.number.value() == number)?;
        if self.confirmed.0.distance(sent.number) <= 0 {
            return None;
        }
        self.confirmed = (sent.number, self.confirmed.1.max(sent.next));
        Some(sent.at)
    }
}

/// Smoothed round-trip time (draft 4.10).
#[derive(Debug)]
pub(super) struct RoundTrip {
    smoothed: Duration,
    variation: Duration,
    is_measured: bool,
}

impl Default for RoundTrip {
    fn default() -> Self {
        Self { smoothed: Duration::from_millis(100), variation: Duration::from_millis(50), is_measured: false }
    }
}

impl RoundTrip {
    /// A guess until there was a sample.
    pub(super) const fn smoothed(&self) -> Duration {
        self.smoothed
    }

    pub(super) const fn variation(&self) -> Duration {
        self.variation
    }

    /// Takes in a sample; the first one counts alone.
    pub(super) fn insert(&mut self, sample: Duration) {
        if self.is_measured {
            self.variation = (self.variation * 3 + self.smoothed.abs_diff(sample)) / 4;
            self.smoothed = (self.smoothed * 7 + sample) / 8;
        } else {
            (self.smoothed, self.variation, self.is_measured) = (sample, sample / 2, true);
        }
    }

    /// Time after which an answer is not to be expected any more.
    pub(super) fn patience(&self) -> Duration {
        self.smoothed + self.variation * 4
    }

    /// Time between two periodic NAKs (draft 4.8.2, libsrt's live mode).
    pub(super) fn nak_interval(&self) -> Duration {
        (self.patience() / 2).max(NAK_INTERVAL_MIN)
    }
}

/// Time between two full ACKs (draft 4.8.1).
const ACK_INTERVAL: Duration = Duration::from_millis(10);

/// Packets after which a light ACK is sent before that (draft 4.8.1).
const LIGHT_EVERY: u32 = 64;

/// Full ACKs that an answer may be outstanding for: those of about five seconds, after which a peer counts as gone.
const ACKS_SENT: usize = 512;

/// Shortest time between two periodic NAKs (libsrt 1.5).
const NAK_INTERVAL_MIN: Duration = Duration::from_millis(20);
