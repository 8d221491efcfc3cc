//! What is remembered of the latest numbers: who brought them and when, and what they looked like.

use std::time::Duration;

use crate::bus::Packet;
use crate::units::Time;

/// Traces of the latest numbers, as many as the window has slots.
#[derive(Debug)]
pub(super) struct Traces {
    traces: Box<[Trace]>,
}

/// The trace of one number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trace {
    /// When it first came, or was given up.
    pub(super) at: Time,
    /// Its lower bits; with the slot that is unmistakable.
    number: u32,
    /// RTP timestamp; for how many microseconds it was waited for, if it was given up.
    pub(super) timestamp: u32,
    pub(super) fingerprint: u32,
    /// One bit for each leg that brought it; none if it was given up.
    pub(super) legs: u8,
    /// Whether there were other legs that could have brought it.
    pub(super) is_shared: bool,
    is_set: bool,
}

/// How a packet is told from others with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    /// Its RTP timestamp; zero for all packets of a leg that has none.
    pub(super) timestamp: u32,
    pub(super) fingerprint: u32,
}

impl Look {
    pub(super) fn of(packet: &Packet) -> Self {
        Self { timestamp: packet.meta.rtp_timestamp.unwrap_or(0), fingerprint: fingerprint(packet) }
    }
}

impl Trace {
    pub(super) const fn look(&self) -> Look {
        Look { timestamp: self.timestamp, fingerprint: self.fingerprint }
    }

    /// For how long a number that was given up was waited for.
    pub(super) const fn waited_us(&self) -> u32 {
        self.timestamp
    }

    /// The leg that alone brought this number, though others could have.
    pub(super) const fn only_leg(&self) -> Option<usize> {
        if self.is_shared && self.legs.is_power_of_two() { Some(self.legs.trailing_zeros() as usize) } else { None }
    }
}

impl Traces {
    /// For `len` numbers, a power of two.
    pub(super) fn new(len: usize) -> Self {
        debug_assert!(len.is_power_of_two(), "{len} traces");
        Self { traces: vec![NOTHING; len].into() }
    }

    /// The trace of `number`, if it is among the latest.
    #[inline]
    pub(super) fn find(&mut self, number: u64) -> Option<&mut Trace> {
        let slot = self.slot(number);
        let trace = &mut self.traces[slot];
        (trace.is_set && trace.number == number as u32).then_some(trace)
    }

    /// `number` came for the first time; returns the trace that has to go for it.
    #[inline]
    pub(super) fn came(&mut self, number: u64, at: Time, look: Look, leg: usize, is_shared: bool) -> Trace {
        let Look { timestamp, fingerprint } = look;
        let legs = 1 << leg;
        self.put(Trace { at, number: number as u32, timestamp, fingerprint, legs, is_shared, is_set: true }, number)
    }

    /// `number` was given up after it was waited for so long; returns the trace that has to go for it.
    pub(super) fn given_up(&mut self, number: u64, at: Time, waited: Duration) -> Trace {
        let timestamp = u32::try_from(waited.as_micros()).unwrap_or(u32::MAX);
        self.put(Trace { at, number: number as u32, timestamp, is_set: true, ..NOTHING }, number)
    }

    /// Whether any number has this look.
    pub(super) fn has_look(&self, look: Look) -> bool {
        self.traces.iter().any(|trace| trace.legs != 0 && trace.look() == look)
    }

    /// Forgets all; the leg of each number that one alone brought.
    pub(super) fn clear(&mut self) -> impl Iterator<Item = usize> + '_ {
        self.traces.iter_mut().filter_map(|trace| std::mem::replace(trace, NOTHING).only_leg())
    }

    const fn put(&mut self, trace: Trace, number: u64) -> Trace {
        let slot = self.slot(number);
        std::mem::replace(&mut self.traces[slot], trace)
    }

    const fn slot(&self, number: u64) -> usize {
        number as usize & (self.traces.len() - 1)
    }
}

const NOTHING: Trace =
    Trace { at: Time::ZERO, number: 0, timestamp: 0, fingerprint: 0, legs: 0, is_shared: false, is_set: false };

/// Length and three samples of the payload. Of two transport streams at least the PIDs, the continuity counters and the
/// coded bytes in the middle differ; nobody tries to be taken for another who may send on this leg anyway.
#[inline]
fn fingerprint(payload: &[u8]) -> u32 {
    let middle = payload.get(payload.len() / 2..).and_then(|half| half.first_chunk::<8>());
    let (Some(first), Some(middle), Some(last)) = (payload.first_chunk::<8>(), middle, payload.last_chunk::<8>())
    else {
        return payload.iter().fold(payload.len() as u32, |sum, byte| mix(sum.into(), (*byte).into()) as u32);
    };
    let [first, middle, last] = [first, middle, last].map(|chunk| u64::from_le_bytes(*chunk));
    let mixed = mix(mix(mix(payload.len() as u64, first), middle), last);
    (mixed ^ mixed >> 32) as u32
}

/// Multiplication by an odd number loses nothing; the rotation brings the upper bits down again.
const fn mix(sum: u64, word: u64) -> u64 {
    (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_changed_byte_of_those_looked_at_shows() {
        for len in [0, 1, 7, 8, 15, 16, 188, 1_316] {
            let payload = vec![0x47_u8; len];
            let looked_at =
                if len < 16 { (0..len).collect() } else { vec![0, 7, len / 2, len / 2 + 7, len - 8, len - 1] };
            for at in looked_at {
                let mut other = payload.clone();
                other[at] ^= 1;
                assert_ne!(fingerprint(&payload), fingerprint(&other), "byte {at} of {len}");
            }
            assert_ne!(fingerprint(&payload), fingerprint(&[&payload[..], &[0x47]].concat()));
        }
    }

    #[test]
    fn a_trace_goes_when_its_slot_is_needed() {
        let look = Look { timestamp: 1, fingerprint: 2 };
        let mut traces = Traces::new(64);
        assert!(traces.find(0).is_none());
        assert_eq!(traces.came(7, Time::ZERO, look, 3, true).only_leg(), None);
        assert!(traces.has_look(look));
        assert!(traces.find(71).is_none());
        assert_eq!(traces.given_up(71, Time::ZERO, Duration::ZERO).only_leg(), Some(3));
        assert!(traces.find(7).is_none());
        assert_eq!(traces.find(71).map(|trace| trace.legs), Some(0));
        assert!(!traces.has_look(look));
        traces.came(9, Time::ZERO, look, 2, true);
        assert_eq!(traces.clear().collect::<Vec<_>>(), [2]);
        assert!(traces.find(71).is_none());
    }
}
