//! The receiver alone, against a slow model, and in hours of virtual time.

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
            let other = [sequence, sequence.wrapping_add(random.below(100)), wild, u64::MAX][random.below(4) as usize];
            match random.below(8) {
                0 => rig.receiver.handle_drop_request(sequence, other),
                1 => rig.receiver.handle_ack_ack(ms(random.below(2 * now + 1)), wild as u32, other as u32),
                2 => rig.receiver.handle_ack_ack(ms(now), rig.receiver.stats().acks as u32, other as u32),
                3 => rig.receiver.handle_undecrypted(ms(now), sequence, Origin::Original, ms(now), 9),
                4 => rig.receiver.report(sequence, other),
                _ => {
                    let packet = rig.pool.copy(&[7; 9], Meta { arrival: ms(now), ..Meta::default() }).unwrap();
                    let origin = [Origin::Original, Origin::Retransmitted, Origin::Rebuilt][random.below(3) as usize];
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
