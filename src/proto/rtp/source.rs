//! What a receiver knows of one sender: its numbers, losses, jitter and last report (RFC 3550 A.1, A.3, A.8).

use std::time::Duration;

use super::header::Header;
use super::ntp;
use super::rtcp::{ReportBlock, SenderInfo};
use crate::units::{Extender, Seq, Ticks90k, Time};

/// One sender from its first packet until it starts over.
#[derive(Debug)]
pub(in crate::proto) struct Source {
    ssrc: u32,
    extender: Extender<16>,
    /// What to add to the extender's numbers so that those of two lives of a sender never meet.
    base: u64,
    /// The extender's first number.
    first: u64,
    received: u64,
    /// Expected and received at the last report.
    at_report: (u64, u64),
    /// Arrival minus timestamp in ticks of 90 kHz, wrapping; of the latest packet.
    transit: u32,
    /// Sixteen times the jitter in ticks.
    jitter_x16: u32,
    /// Middle of the NTP time in the last SR, and when it came.
    last_sr: Option<(u32, Time)>,
}

impl Source {
    /// A sender whose first packet has `header`. Its extended numbers lie above those of `before`.
    pub(in crate::proto) fn new(header: &Header, arrival: Time, before: Option<&Self>) -> Self {
        let extender = Extender::new(header.sequence);
        Self {
            ssrc: header.ssrc,
            extender,
            base: before.map_or(0, |before| before.sequence_of(before.extender.highest()) / CYCLE * CYCLE + CYCLE),
            first: extender.highest(),
            received: 0,
            at_report: (0, 0),
            transit: transit(header, arrival),
            jitter_x16: 0,
            last_sr: None,
        }
    }

    pub(in crate::proto) const fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// The extended number of the first packet.
    pub(in crate::proto) const fn first_sequence(&self) -> u64 {
        self.sequence_of(self.first)
    }

    /// Whether a packet of this sender is so near the latest that it needs no proof (RFC 3550 A.1).
    pub(in crate::proto) const fn is_near(&self, sequence: Seq<16>) -> bool {
        let step = self.step_to(sequence);
        -MISORDER_MAX <= step && step <= DROPOUT_MAX
    }

    /// Whether a packet far ahead comes from the same run of the sender, after an outage: its timestamp has gone on
    /// with the time that has passed.
    pub(in crate::proto) fn is_same_run(&self, header: &Header, arrival: Time) -> bool {
        let drift = transit(header, arrival).wrapping_sub(self.transit) as i32;
        self.step_to(header.sequence) > 0 && drift.unsigned_abs() < TRANSIT_CHANGE_MAX.0 as u32
    }

    /// Counts a packet and gives its extended sequence number.
    pub(in crate::proto) fn count(&mut self, header: &Header, arrival: Time) -> u64 {
        self.received += 1;
        // RFC 3550 A.8; the first packet adds nothing, as its transit is the one compared with.
        let transit = transit(header, arrival);
        let change = (transit.wrapping_sub(self.transit) as i32).unsigned_abs();
        self.transit = transit;
        self.jitter_x16 = (self.jitter_x16 - (self.jitter_x16.saturating_add(8) >> 4)).saturating_add(change);
        let number = self.extender.extend(header.sequence);
        self.sequence_of(number)
    }

    /// The extended number that a packet sent again has; it says nothing about the path.
    #[cfg(feature = "rist")]
    pub(in crate::proto) const fn place(&self, sequence: Seq<16>) -> u64 {
        self.sequence_of(self.extender.peek(sequence))
    }

    /// Takes note of an SR that came at `arrival`.
    pub(in crate::proto) const fn count_report(&mut self, info: &SenderInfo, arrival: Time) {
        self.last_sr = Some((ntp::middle(info.ntp), arrival));
    }

    /// The report block for this source; `None` when nothing came since the last.
    pub(in crate::proto) fn report(&mut self, now: Time) -> Option<ReportBlock> {
        let expected = self.extender.highest() - self.first + 1;
        let (expected_before, received_before) = std::mem::replace(&mut self.at_report, (expected, self.received));
        if self.received == received_before {
            return None;
        }
        let expected_since = expected - expected_before;
        let lost_since = expected_since.saturating_sub(self.received - received_before);
        let (last_sr, since_last_sr) = match self.last_sr {
            Some((last_sr, arrival)) => (last_sr, ntp::short_from_span(now.since(arrival))),
            None => (0, 0),
        };
        Some(ReportBlock {
            ssrc: self.ssrc,
            fraction_lost: (lost_since * 256).checked_div(expected_since).map_or(0, |share| share.min(255) as u8),
            lost: i32::try_from(expected as i64 - self.received as i64).unwrap_or(i32::MAX),
            // The extender starts in cycle one, reports in cycle zero.
            sequence_max: (self.extender.highest() - CYCLE) as u32,
            jitter: self.jitter_x16 >> 4,
            last_sr,
            since_last_sr,
        })
    }

    /// Interarrival jitter.
    pub(in crate::proto) fn jitter(&self) -> Duration {
        Duration::from_nanos(u64::from(self.jitter_x16) * 100_000 / (9 * 16))
    }

    /// Steps from the highest number to `sequence`.
    const fn step_to(&self, sequence: Seq<16>) -> i32 {
        Seq::<16>::new(self.extender.highest() as u32).distance(sequence)
    }

    const fn sequence_of(&self, number: u64) -> u64 {
        self.base + number
    }
}

fn transit(header: &Header, arrival: Time) -> u32 {
    let arrival_90k = Ticks90k::from_span(arrival.since(Time::ZERO)).0 as u32;
    arrival_90k.wrapping_sub(header.timestamp)
}

/// Sequence numbers in one cycle.
const CYCLE: u64 = 1 << 16;

/// A packet this far ahead of the latest is still believed at once (RFC 3550 A.1).
pub(in crate::proto) const DROPOUT_MAX: i32 = 3_000;

/// A packet this far behind the latest is still believed. RFC 3550 A.1 says 100, which is 6 ms at 200 Mb/s; ten times
/// that is still far from what a restart at a random number would hit.
pub(in crate::proto) const MISORDER_MAX: i32 = 1_000;

/// Transit times further apart than one second belong to two clocks. Judgement: no path changes by as much, and a random
/// timestamp comes as near once in 24,000 restarts.
const TRANSIT_CHANGE_MAX: Ticks90k = Ticks90k(90_000);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_follows_the_formula_of_the_standard() {
        // Packets sent every 20 ms, arriving 0, 10, 0, 10 ms late: |D| is 900 ticks each time.
        let mut source = Source::new(&header(0), at_ms(0), None);
        let mut expected = 0_f64;
        for n in 0..100_u32 {
            source.count(&header(n), at_ms(u64::from(n) * 20 + u64::from(n % 2) * 10));
            expected += if n == 0 { 0.0 } else { (900.0 - expected) / 16.0 };
        }
        let ticks = f64::from(source.report(at_ms(2_000)).unwrap().jitter);
        assert!((ticks - expected).abs() < 2.0, "{ticks} {expected}");
        assert!((source.jitter().as_secs_f64() * 90_000.0 - expected).abs() < 2.0);
    }

    #[test]
    fn absurd_timestamps_leave_no_lasting_jitter() {
        let mut source = Source::new(&header(0), at_ms(0), None);
        for n in 0..10_u32 {
            source.count(&Header { timestamp: (n % 2) << 31, ..header(n) }, at_ms(0));
        }
        for n in 10..400_u32 {
            source.count(&header(n), at_ms(u64::from(n) * 20));
        }
        assert!(source.jitter() < Duration::from_secs(1), "{:?}", source.jitter());
    }

    #[test]
    fn losses_are_reported_as_in_the_standard() {
        let mut source = Source::new(&header(65_530), at_ms(0), None);
        for n in (0..100).filter(|n| n % 4 != 3) {
            source.count(&header(65_530 + n), at_ms(0));
        }
        let block = source.report(at_ms(0)).unwrap();
        // 99 of the numbers up to 98 were expected, 75 came.
        assert_eq!((block.lost, block.fraction_lost), (24, (24 * 256 / 99) as u8));
        assert_eq!(block.sequence_max, 65_530 + 98);
        assert_eq!(source.report(at_ms(1)), None);
        source.count(&header(65_530 + 98), at_ms(0));
        assert_eq!(source.report(at_ms(2)).map(|block| (block.lost, block.fraction_lost)), Some((23, 0)));
    }

    #[test]
    fn the_age_of_the_last_sender_report_is_told() {
        let mut source = Source::new(&header(0), at_ms(0), None);
        source.count(&header(0), at_ms(0));
        source.count_report(&SenderInfo { ntp: 0x0123_4567_89ab_cdef, ..SenderInfo::default() }, at_ms(100));
        let block = source.report(at_ms(350)).unwrap();
        assert_eq!((block.last_sr, block.since_last_sr), (0x4567_89ab, 65_536 / 4));
    }

    #[test]
    fn numbers_of_two_lives_never_meet() {
        let mut before = Source::new(&header(65_000), at_ms(0), None);
        let highest = (0..2_000).map(|n| before.count(&header(65_000 + n), at_ms(0))).max().unwrap();
        for first in [0, 100, 32_768, 65_535] {
            let mut after = Source::new(&header(first), at_ms(0), Some(&before));
            let extended = after.count(&header(first), at_ms(0));
            assert_eq!(extended as u16, first as u16);
            assert!(extended > highest);
            assert!(after.count(&header(first.wrapping_sub(1_000)), at_ms(0)) > highest);
        }
    }

    fn header(n: u32) -> Header {
        Header { sequence: Seq::new(n), timestamp: n.wrapping_mul(1_800), ssrc: 1, ..Header::default() }
    }

    fn at_ms(ms: u64) -> Time {
        Time::from_ns(ms * 1_000_000)
    }
}
