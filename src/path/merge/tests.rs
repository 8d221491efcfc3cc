//! Single behaviours of the merger; whole scenarios are in `tests/sim_merge.rs`.

use super::*;
use crate::bus::{Meta, Pool, PoolLimits};

#[test]
fn legs_with_other_upper_bits_are_brought_onto_one_axis_across_a_wrap() {
    let mut run = Run::new(Config::default(), 3);
    for number in 65_500..65_600 {
        for (leg, upper) in [(0, 0), (1, 7 << 16), (2, 90 << 32)] {
            run.push_as(leg, number, number + upper);
        }
        run.wait_ms(1);
    }
    assert_eq!(run.released(), (65_500..65_600).collect::<Vec<_>>());
    assert_eq!(run.merger.stats().duplicate, 200);
}

#[test]
fn a_gap_is_filled_by_the_other_leg_and_what_follows_waits_for_it() {
    let mut run = Run::merged(Config::default());
    run.push(0, 10);
    run.push(0, 12);
    run.push(0, 13);
    assert_eq!(run.released(), [10]);
    run.wait_ms(60);
    for number in 10..14 {
        run.push(1, number);
    }
    assert_eq!(run.released(), [11, 12, 13]);
    let leg = run.leg(1);
    assert_eq!((leg.first, leg.filled, leg.duplicate, leg.late), (1, 1, 13, 0));
    assert_eq!((run.merger.stats().lost, run.leg(0).lost), (0, 1));
}

#[test]
fn a_packet_that_all_legs_lost_is_given_up_after_the_window() {
    let mut run = Run::merged(Config::default());
    run.push(0, 11);
    let gap_seen = run.now;
    assert!(run.merger.poll_timeout().unwrap() <= gap_seen + MS * 100);
    run.wait_ms(99);
    assert!(run.released().is_empty());
    run.wait_ms(1);
    assert_eq!((run.released(), run.merger.stats().lost), (vec![11], 1));
}

#[test]
fn another_window_and_leg_timeout_hold_from_now_on_and_legs_stay_merged() {
    let mut run = Run::merged(Config::default());
    run.push(0, 11);
    run.wait_ms(20);
    let (recovery_window, leg_timeout) = (RecoveryWindow::Fixed(MS * 40), MS * 60);
    run.merger.set_config(run.now, Config { recovery_window, leg_timeout, ..Config::default() });
    assert!(run.released().is_empty());
    run.wait_ms(20);
    assert_eq!((run.released(), run.merger.stats().lost, run.merger.stats().window), (vec![11], 1, MS * 40));
    assert!(run.leg(0).is_merged && run.leg(1).is_merged);
    assert!(!run.events().iter().any(|event| matches!(event, Event::LegLost { .. })));
    run.wait_ms(20);
    let lost = run.events();
    assert_eq!(lost, [Event::LegLost { leg: 0 }, Event::LegLost { leg: 1 }, Event::AllLost]);
}

#[test]
fn a_late_packet_is_counted_with_how_late_it_was_and_advises_a_longer_window() {
    let mut run = Run::merged(Config::default());
    run.push(0, 11);
    run.wait_ms(100);
    assert_eq!(run.released(), [11]);
    run.wait_ms(30);
    run.push(1, 10);
    run.push(1, 10);
    assert!(run.released().is_empty());
    let leg = run.leg(1);
    assert_eq!((leg.late, leg.duplicate, run.merger.stats().late), (1, 11, 1));
    let (longest, count) = leg.late_by.buckets().next().unwrap();
    assert!(count == 1 && (30..=38).contains(&longest.as_millis()), "{longest:?}");
    assert!((140..=170).contains(&leg.advised_window.unwrap().as_millis()), "{:?}", leg.advised_window);
}

#[test]
fn copies_on_the_same_leg_are_duplicates_without_skew() {
    let mut run = Run::merged(Config::default());
    run.push(0, 10);
    let before = run.leg(0).skew.total();
    run.push(0, 10);
    assert_eq!((run.released(), run.leg(0).duplicate), (vec![10], 1));
    assert_eq!(run.leg(0).skew.total(), before);
}

#[test]
fn what_only_one_leg_brought_is_known_when_it_leaves_the_ring() {
    let mut run = Run::merged(Config { packets_max: 64, ..Config::default() });
    for number in 10..200 {
        run.push(0, number);
        if number % 10 != 0 {
            run.push(1, number);
        }
        assert_eq!(run.released(), [number]);
        run.wait_ms(1);
    }
    assert_eq!((run.leg(0).unique, run.leg(1).unique), (13, 0));
}

#[test]
fn a_full_ring_releases_before_the_time() {
    let mut run = Run::merged(Config { packets_max: 64, ..Config::default() });
    for number in 11..80 {
        run.push(0, number);
    }
    assert_eq!(run.released(), (11..80).collect::<Vec<_>>());
    let stats = run.merger.stats();
    assert_eq!((stats.lost, stats.forced > 0), (1, true));
}

#[test]
fn what_nobody_fetches_is_dropped_and_counted() {
    let mut run = Run::merged(Config { packets_max: 64, ..Config::default() });
    for number in 10..1_010 {
        run.push(0, number);
    }
    assert_eq!(run.released(), (10..586).collect::<Vec<_>>());
    assert_eq!(run.merger.stats().overflow, 1_000 - 576);
}

#[test]
fn single_packets_out_of_the_blue_disturb_nothing() {
    let mut run = Run::merged(Config::default());
    for number in 10..60 {
        run.push(0, number);
        run.push_as(0, number + 1_000_000, number + 500_000);
        run.push_with(1, number, number, 1 << 31);
        run.push(1, number);
        run.wait_ms(1);
    }
    assert_eq!(run.released(), (10..60).collect::<Vec<_>>());
    assert_eq!((run.leg(0).unexpected, run.leg(1).unexpected), (49, 50));
    assert!(run.merger.stats().restarts == 0 && run.leg(0).is_merged && run.leg(1).is_merged);
}

#[test]
fn a_merged_leg_that_begins_to_carry_other_payload_is_put_out() {
    let mut run = Run::merged(Config::default());
    for number in 10..40 {
        run.push(0, number);
        run.push_with(1, number + 777, number, 0_u32.wrapping_sub(777 * 90));
        run.wait_ms(1);
    }
    assert_eq!(run.released(), (10..40).collect::<Vec<_>>());
    assert_eq!(run.leg(1).mismatched, 16);
    assert!(run.events().contains(&Event::MergeError { leg: 1, why: Mismatch::Payload }));
    assert!(!run.leg(1).is_merged);
}

#[test]
fn packets_without_numbers_are_dropped_and_counted() {
    let mut run = Run::merged(Config::default());
    let packet = run.pool.copy(b"x", Meta::default()).unwrap();
    run.merger.push(0, run.now, packet);
    assert_eq!((run.released(), run.leg(0).unnumbered), (vec![], 1));
}

#[test]
fn legs_without_timestamps_are_merged_by_number_and_payload() {
    let mut run = Run::new(Config { mode: Mode::Align, ..Config::default() }, 2);
    for number in 0..50 {
        for leg in 0..2 {
            let mut packet = run.packet(number, number, 0);
            packet.meta.rtp_timestamp = None;
            run.merger.push(leg, run.now, packet);
        }
        run.wait_ms(1);
    }
    run.wait_ms(100);
    assert_eq!(run.released(), (0..50).collect::<Vec<_>>());
    assert_eq!(run.merger.stats().duplicate, 50);
}

#[test]
fn a_leg_that_comes_back_with_its_wraps_miscounted_is_mapped_anew() {
    let mut run = Run::merged(Config::default());
    for number in 10..80_000 {
        run.push(0, number);
        run.wait_ms(1);
        run.released();
    }
    // 70 s of silence are more than one wrap.
    for number in 80_000..80_100 {
        run.push(0, number);
        run.push_as(1, number, number - 65_536);
        run.wait_ms(1);
    }
    assert_eq!(run.released(), (80_000..80_100).collect::<Vec<_>>());
    assert_eq!((run.leg(1).unexpected, run.leg(1).duplicate), (0, 110));
}

#[test]
fn the_whole_flow_may_pause_and_its_losses_are_counted() {
    let mut run = Run::merged(Config::default());
    run.wait_ms(60_000);
    for number in 60_010..60_020 {
        run.push(0, number);
        run.push(1, number);
        run.wait_ms(1);
    }
    // What is missing might still come.
    run.wait_ms(100);
    assert_eq!(run.released(), (60_010..60_020).collect::<Vec<_>>());
    assert_eq!((run.merger.stats().lost, run.merger.stats().restarts), (60_000, 0));
}

#[test]
fn silence_and_return_of_a_leg_are_told() {
    let mut run = Run::merged(Config::default());
    run.events();
    for number in 10..1_000 {
        run.push(0, number);
        if number > 800 {
            run.push(1, number);
        }
        run.wait_ms(1);
    }
    assert_eq!(run.events(), [Event::LegLost { leg: 1 }, Event::LegRecovered { leg: 1 }]);
    assert!(run.leg(1).is_alive);
}

#[test]
fn unfetched_events_are_bounded_and_counted() {
    let mut run = Run::merged(Config::default());
    run.events();
    for number in (1_000..101_000).step_by(1_000) {
        run.wait_ms(1_000);
        run.push(0, number);
    }
    assert_eq!(run.events().len(), EVENTS_MAX);
    assert!(run.merger.stats().events_dropped > 100);
}

#[test]
fn a_leg_that_was_taken_out_delivers_to_nobody() {
    let mut run = Run::merged(Config::default());
    run.merger.remove_leg(run.now, 0);
    run.push(0, 10);
    assert_eq!((run.released(), run.merger.leg_stats(0)), (vec![], None));
    run.push(1, 10);
    assert_eq!(run.released(), [10]);
    run.merger.add_leg(0);
    for number in 11..20 {
        run.push(0, number);
        run.push(1, number);
    }
    assert_eq!(run.released(), (11..20).collect::<Vec<_>>());
    assert!(run.leg(0).is_merged && run.leg(0).duplicate + run.leg(0).first == 9);
}

#[test]
fn what_was_passed_on_before_is_not_released_again_and_nothing_is_left_out() {
    let mut run = Run::new(Config::default(), 2);
    let latest = Meta { sequence: Some(20), rtp_timestamp: None, arrival: run.now, ..Meta::default() };
    run.merger.resume(run.now, 0, &latest);
    // The other leg is ten behind, and comes first.
    for number in 11..60 {
        run.push(1, number);
        run.push(0, number + 10);
    }
    assert_eq!(run.released(), (21..70).collect::<Vec<_>>());
    assert!(run.leg(1).is_merged, "{:?}", run.leg(1));
    assert_eq!((run.merger.next_number(), run.merger.offset_of(1), run.merger.stats().restarts), (70, Some(0), 0));
}

#[test]
fn after_a_restart_numbers_go_on_further_up_with_the_same_lower_bits() {
    let mut run = Run::merged(Config::default());
    run.merger.restart(run.now, 0);
    run.merger.restart(run.now, 1);
    run.push_with(0, 5, 5, 1 << 31);
    let packet = run.merger.poll_packet(run.now).unwrap();
    let number = packet.meta.sequence.unwrap();
    assert!(number > 65_536 && number as u16 == 5, "{number}");
    assert!(packet.meta.discontinuity);
    // What a leg says of itself is not so of all.
    let mut packet = run.packet(6, 6, 1 << 31);
    packet.meta.discontinuity = true;
    run.merger.push(0, run.now, packet);
    assert_eq!(run.merger.poll_packet(run.now).map(|packet| packet.meta.discontinuity), Some(false));
    assert!(run.events().contains(&Event::Restarted { leg: 0 }));
}

/// Two or more legs; packet `n` belongs to millisecond `n` of the sender's clock.
struct Run {
    pool: Pool,
    merger: Merger,
    now: Time,
}

impl Run {
    fn new(config: Config, legs: u8) -> Self {
        let mut merger = Merger::new(config);
        (0..legs).for_each(|leg| merger.add_leg(leg));
        let pool = Pool::new(PoolLimits { small_max: 4_096, large_max: 0 });
        Self { pool, merger, now: Time::from_ns(1_000_000_000) }
    }

    /// Two legs that are merged and have brought the packets 0 to 9.
    fn merged(config: Config) -> Self {
        let mut run = Self::new(config, 2);
        for number in 0..10 {
            run.push(0, number);
            run.push(1, number);
            run.wait_ms(1);
        }
        assert_eq!(run.released(), (0..10).collect::<Vec<_>>());
        run
    }

    fn push(&mut self, leg: u8, number: u64) {
        self.push_as(leg, number, number);
    }

    /// Packet `number` with another sequence number.
    fn push_as(&mut self, leg: u8, number: u64, sequence: u64) {
        self.push_with(leg, number, sequence, 0);
    }

    fn push_with(&mut self, leg: u8, number: u64, sequence: u64, ticks: u32) {
        let packet = self.packet(number, sequence, ticks);
        self.merger.push(leg, self.now, packet);
    }

    fn packet(&self, number: u64, sequence: u64, ticks: u32) -> Packet {
        let rtp_timestamp = Some((number as u32).wrapping_mul(90).wrapping_add(ticks));
        let meta = Meta { sequence: Some(sequence), rtp_timestamp, ..Meta::default() };
        self.pool.copy(&[number.to_be_bytes(); 4].concat(), meta).unwrap()
    }

    fn wait_ms(&mut self, ms: u32) {
        self.now += MS * ms;
        self.merger.handle_timeout(self.now);
    }

    fn released(&mut self) -> Vec<u64> {
        let packets = std::iter::from_fn(|| self.merger.poll_packet(self.now));
        packets.map(|packet| u64::from_be_bytes(packet[..8].try_into().unwrap())).collect()
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.merger.poll_event()).collect()
    }

    fn leg(&self, leg: u8) -> LegStats {
        self.merger.leg_stats(leg).unwrap()
    }
}

const MS: Duration = Duration::from_millis(1);
