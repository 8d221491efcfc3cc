//! The sender alone, and against a slow model.

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
        let interesting = [0, 1, FIRST - 1, FIRST, FIRST + 63, FIRST + 64, 1 << 31, 1 << 32, u64::MAX - 1, u64::MAX];
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
        let payload = if self.payload.is_empty() { self.pushed.to_be_bytes().to_vec() } else { self.payload.clone() };
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
