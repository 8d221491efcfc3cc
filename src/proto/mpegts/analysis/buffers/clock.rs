//! `Clock`: when each byte of a stream enters a decoder, by the PCRs of one program (13818-1 2.4.2.3).

use crate::proto::mpegts::{PcrReading, Pid, Scanner, TS_PACKET_BYTES};
use crate::units::{Bitrate, Ticks90k};

/// A program's clock, unwrapped. A jump begins another time, with another number.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    pub(super) pid: Pid,
    /// Where the last PCR stood, and what it was.
    last: Option<(u64, i64)>,
    pub(super) pace: Pace,
    /// For each byte, in parts of a tick of 27 MHz.
    byte_parts: u64,
    packet_27m: u64,
    /// The number of the time that has begun.
    pub(super) era: u32,
}

/// What is known of the rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    Unknown,
    Varying,
    Constant,
}

/// When a TS packet enters a decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    /// Its first byte, in unwrapped ticks of 27 MHz.
    pub(super) at: i64,
    /// How long it lasts.
    pub(super) packet_27m: u64,
}

impl Clock {
    pub(super) const fn new(pid: Pid) -> Self {
        Self { pid, last: None, pace: Pace::Unknown, byte_parts: 0, packet_27m: 0, era: 0 }
    }

    pub(super) fn handle_pcr(&mut self, reading: &PcrReading) {
        let before = self.last.map(|(_, ticks)| ticks);
        let ticks = match (before, reading.step) {
            (Some(before), Some(step)) if !reading.is_restart => before.saturating_add(step),
            _ => {
                self.era = self.era.wrapping_add(1);
                reading.pcr.0 as i64
            }
        };
        self.last = Some((reading.position, ticks));
    }

    /// What was known of the time is not any more.
    pub(super) const fn begin_anew(&mut self) {
        self.last = None;
        self.era = self.era.wrapping_add(1);
    }

    /// Takes in the rate that PCRs show.
    pub(super) fn review(&mut self, scanner: &Scanner) {
        let meter = scanner.pid(self.pid).and_then(|pid| pid.pcr_meter());
        let rate = meter.and_then(|meter| meter.rate()).filter(|rate| *rate > Bitrate::ZERO);
        let pace = match (rate, meter.and_then(|meter| meter.is_constant())) {
            (Some(_), Some(true)) => Pace::Constant,
            (Some(_), Some(false)) => Pace::Varying,
            _ => Pace::Unknown,
        };
        if std::mem::replace(&mut self.pace, pace) != pace {
            self.era = self.era.wrapping_add(1);
        }
        if let Some(rate) = rate {
            self.byte_parts = (8 * SECOND_27M as u64).saturating_mul(1 << PART_BITS) / rate.as_bps();
            let packet_27m = self.byte_parts.saturating_mul(TS_PACKET_BYTES as u64) >> PART_BITS;
            self.packet_27m = packet_27m.min(SECOND_27M as u64);
        }
    }

    /// When the packet that begins at byte `position` enters; `None` without PCR or rate.
    ///
    /// Behind the last PCR the rate goes on as it was: where it is constant, that is what the next PCR will say. Where it
    /// varies nobody knows before the next one, and it is so much later at most as PCRs may be apart.
    #[inline]
    pub(super) fn moment(&self, position: u64) -> Option<Moment> {
        let (last_position, ticks) = self.last?;
        let parts = position.saturating_sub(last_position).saturating_mul(self.byte_parts);
        let since = (parts >> PART_BITS) as i64;
        let since = match self.pace {
            Pace::Constant => since,
            Pace::Varying => since.min(PCR_INTERVAL_MAX_27M),
            Pace::Unknown => return None,
        };
        Some(Moment { at: ticks.saturating_add(since), packet_27m: self.packet_27m })
    }

    /// Whether there was a PCR.
    pub(super) const fn is_running(&self) -> bool {
        self.last.is_some()
    }
}

/// When an access unit with this time stamp is decoded, on the clock that shows `at`: the nearest such time.
pub(super) const fn unwrap(at: i64, stamp: Ticks90k) -> i64 {
    const UNUSED_BITS: u32 = 64 - 33;
    let at_90k = at / 300;
    let ahead = ((stamp.0 as i64).wrapping_sub(at_90k) << UNUSED_BITS) >> UNUSED_BITS;
    at_90k.saturating_add(ahead).saturating_mul(300)
}

pub(super) const SECOND_27M: i64 = 27_000_000;
/// TR 101 290 2.3b.
const PCR_INTERVAL_MAX_27M: i64 = SECOND_27M / 10;
const PART_BITS: u32 = 24;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proto::mpegts::PCR_MODULUS_27M;
    use crate::units::Ticks27M;

    #[test]
    fn bytes_come_between_references_at_the_streams_rate() {
        let mut clock = Clock::new(Pid::NULL);
        // A byte is 27 ticks: 8 Mb/s.
        (clock.pace, clock.byte_parts, clock.packet_27m) = (Pace::Constant, 27 << PART_BITS, 27 * 188);
        assert_eq!(clock.moment(0), None);
        let reading = |position, pcr, step| PcrReading {
            pcr: Ticks27M(pcr),
            position,
            step,
            is_restart: step.is_none(),
            ..PcrReading::default()
        };
        clock.handle_pcr(&reading(1_880, PCR_MODULUS_27M - 27, None));
        let at = |clock: &Clock, position| clock.moment(position).map(|moment| moment.at - PCR_MODULUS_27M as i64);
        assert_eq!([1_880, 2_068].map(|position| at(&clock, position)), [Some(-27), Some(187 * 27)]);
        let era = clock.era;
        clock.handle_pcr(&reading(3_880, 1_999 * 27, Some(54_000)));
        assert_eq!((at(&clock, 3_881), clock.era), (Some(2_000 * 27), era), "the wrap is none");
        clock.pace = Pace::Varying;
        assert_eq!(at(&clock, 3_880 + 200_000), Some(1_999 * 27 + 2_700_000), "as late as the next PCR may be");
        clock.handle_pcr(&reading(4_000, 5, None));
        assert!(clock.era != era && clock.moment(4_000).is_some_and(|moment| moment.at == 5));
    }

    proptest! {
        #[test]
        fn a_stamp_is_the_nearest_of_its_kind(at in 0_i64..1 << 50, ahead in -(1_i64 << 31)..1 << 31) {
            let at_90k = at / 300;
            let stamp = Ticks90k((at_90k + ahead).rem_euclid(1 << 33) as u64);
            prop_assert_eq!(unwrap(at, stamp), (at_90k + ahead) * 300);
        }
    }
}
