//! The merger behind lossy, slow and failing paths, in virtual time.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]
#![allow(clippy::print_stdout, reason = "a failing test shows its seed")]

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use anabranch::bus::{Meta, Packet, Pool, PoolLimits};
use anabranch::path::merge::{Config, Event, LegStats, Merger, Mismatch, Mode, RecoveryWindow, Stats};
use anabranch::sim::link::{self, Link, Order};
use anabranch::sim::loss::Model;
use anabranch::units::{Ticks90k, Time};

/// Three legs that lose 5 % each and are 0, 60 and 150 ms slow; every 10 s another one is pulled for 4 s. Ten minutes for
/// each of many seeds.
#[test]
fn what_came_on_any_leg_comes_out_once_and_in_order() {
    let mut hours = 0.0;
    for seed in 0..SEEDS {
        for mode in [Mode::OnGaps, Mode::Align] {
            println!("seed {seed} {mode:?}");
            let mut flow = Flow::new(Config { mode, recovery_window: WINDOW, ..Config::default() }, 3, seed);
            flow.every_ms = 5;
            for (leg, delay) in [0, 60, 150].into_iter().enumerate() {
                flow.impair(leg, lossy(0.05, delay));
            }
            flow.run_until_ms(1_000);
            for round in 0..60 {
                let pulled = (round % 3) as usize;
                flow.pulled = Some(pulled);
                flow.run_until_ms(1_000 + round * 10_000 + 4_000);
                flow.pulled = None;
                flow.run_until_ms(1_000 + round * 10_000 + 10_000);
            }
            flow.finish();
            let stats = flow.stats();
            assert_eq!((flow.out_of_order, flow.twice, flow.missing_that_came(), flow.changed), (0, 0, 0, 0));
            assert_eq!(stats.lost, flow.never_came(), "{stats:?}");
            assert_eq!((stats.late, stats.forced, stats.overflow, stats.restarts), (0, 0, 0, 0), "{stats:?}");
            for leg in 0..3 {
                let stats = flow.leg(leg);
                assert!(stats.unique > 0 && stats.lost > 0 && stats.is_merged && stats.mismatched == 0, "{stats:?}");
            }
            let told = |event: Event| flow.events.iter().filter(|(_, told)| *told == event).count();
            assert_eq!((told(Event::LegLost { leg: 1 }), told(Event::LegRecovered { leg: 1 })), (20, 20));
            assert_eq!(told(Event::MergeStarted { leg: 1 }), 1);
            hours += flow.now.as_ns() as f64 / 3.6e12;
        }
    }
    println!("{hours:.1} h of virtual time");
}

#[test]
fn on_gaps_nothing_waits_while_the_fast_leg_has_all() {
    let mut flow = Flow::new(Config { recovery_window: WINDOW, ..Config::default() }, 2, 1);
    flow.impair(1, lossy(0.0, 150));
    flow.run_until_ms(10_000);
    assert_eq!(flow.delay_max, Duration::ZERO);
    flow.impair(0, lossy(0.05, 0));
    flow.run_until_ms(20_000);
    assert_eq!(flow.delay_max, Duration::from_millis(150));
    flow.finish();
    assert_eq!(flow.stats().lost, 0);
}

#[test]
fn aligned_packets_all_have_the_same_delay() {
    let mut flow = Flow::new(Config { mode: Mode::Align, recovery_window: WINDOW, ..Config::default() }, 2, 3);
    let jittery = |delay_ms, jitter_ms| link::Config {
        jitter: Duration::from_millis(jitter_ms),
        order: Order::Free,
        ..lossy(0.05, delay_ms)
    };
    flow.impair(0, jittery(20, 30));
    flow.impair(1, jittery(90, 30));
    flow.run_until_ms(5_000);
    (flow.delay_max, flow.delay_min) = (Duration::ZERO, Duration::MAX);
    flow.run_until_ms(60_000);
    let spread = flow.delay_max.saturating_sub(flow.delay_min);
    assert!(spread <= Duration::from_millis(2), "{:?} to {:?}", flow.delay_min, flow.delay_max);
    let expected = Duration::from_millis(219)..Duration::from_millis(224);
    assert!(expected.contains(&flow.delay_min), "{:?}", flow.delay_min);
    assert_eq!(flow.stats().lost, flow.never_came());
}

#[test]
fn an_automatic_window_grows_to_the_skew_at_once_and_shrinks_slowly() {
    let mut flow = Flow::new(Config { recovery_window: RecoveryWindow::Auto, ..Config::default() }, 2, 5);
    flow.impair(0, lossy(0.02, 0));
    flow.impair(1, lossy(0.02, 150));
    flow.run_until_ms(2_000);
    let grown = flow.stats().window;
    assert!(grown >= Duration::from_millis(160) && grown <= Duration::from_millis(200), "{grown:?}");
    flow.run_until_ms(60_000);
    let (lost, never_came) = (flow.stats().lost, flow.never_came());
    assert!(lost.abs_diff(never_came) <= 5, "only what was missing before it grew: {lost} {never_came}");
    flow.impair(1, lossy(0.02, 30));
    flow.run_until_ms(160_000);
    // For up to two minutes it looks back at the longer skew.
    assert!(flow.stats().window >= grown - Duration::from_millis(101));
    flow.run_until_ms(400_000);
    let shrunk = flow.stats().window;
    assert!(shrunk >= Duration::from_millis(40) && shrunk <= Duration::from_millis(60), "{shrunk:?}");
}

#[test]
fn the_last_leg_goes_on_without_delay() {
    let mut flow = Flow::new(Config { recovery_window: WINDOW, ..Config::default() }, 2, 9);
    flow.impair(0, lossy(0.05, 10));
    flow.impair(1, lossy(0.05, 30));
    flow.run_until_ms(5_000);
    flow.pulled = Some(0);
    flow.run_until_ms(6_000);
    flow.delay_max = Duration::ZERO;
    flow.run_until_ms(60_000);
    assert_eq!(flow.delay_max, Duration::from_millis(30));
    assert!(flow.missing_that_came() == 0 && flow.out_of_order == 0);
}

/// The sender starts over, which each leg's core may tell or not, and shows at different times on each leg.
#[test]
fn a_sender_that_starts_over_costs_nothing() {
    for seed in 0..SEEDS / 2 {
        for is_told in [false, true] {
            println!("seed {seed} told {is_told}");
            let config = Config { recovery_window: WINDOW, ..Config::default() };
            let mut flow = Flow::new(config, 3, seed);
            flow.is_told = is_told;
            for (leg, delay) in [0, 60, 150].into_iter().enumerate() {
                flow.impair(leg, lossy(0.05, delay));
            }
            for life in 1..20 {
                flow.run_until_ms(life * 5_000);
                flow.start_over();
            }
            flow.run_until_ms(100_000);
            flow.finish();
            assert_eq!((flow.out_of_order, flow.twice, flow.changed), (0, 0, 0));
            assert_eq!(flow.stats().restarts, 19);
            // At the seam a leg may begin with a later packet than another, and end with an earlier one.
            assert!(flow.missing_that_came() <= 19 * 3, "{}", flow.missing_that_came());
        }
    }
}

#[test]
fn one_leg_that_starts_over_alone_joins_again() {
    for is_told in [false, true] {
        let mut flow = Flow::new(Config { recovery_window: WINDOW, ..Config::default() }, 2, 4);
        flow.is_told = is_told;
        flow.impair(0, lossy(0.05, 0));
        flow.impair(1, lossy(0.0, 40));
        flow.run_until_ms(5_000);
        // A gateway on the way is restarted: the same packets with another extension of their numbers.
        flow.extension[0] += 7 << 16;
        if is_told {
            flow.merger.restart(flow.now, 0);
        }
        flow.run_until_ms(20_000);
        flow.finish();
        assert!(flow.leg(0).is_merged && flow.stats().restarts == 0, "{:?}", flow.leg(0));
        assert_eq!((flow.missing_that_came(), flow.twice, flow.out_of_order), (0, 0, 0));
    }
}

#[test]
fn a_leg_that_does_not_fit_is_named_and_not_merged() {
    let strangers = [
        (Stranger::Programme, Mismatch::Unrelated),
        (Stranger::Timestamps, Mismatch::Timestamps),
        (Stranger::Payload, Mismatch::Payload),
        (Stranger::Numbers, Mismatch::Numbers),
    ];
    for (stranger, why) in strangers {
        let mut flow = Flow::new(Config { recovery_window: WINDOW, ..Config::default() }, 3, 2);
        flow.impair(0, lossy(0.02, 20));
        flow.impair(1, lossy(0.02, 50));
        flow.impair(2, lossy(0.02, 70));
        flow.stranger = Some((2, stranger));
        flow.run_until_ms(30_000);
        let named: Vec<Event> = flow.events.iter().map(|(_, event)| *event).collect();
        let expected = [Event::MergeStarted { leg: 1 }, Event::MergeError { leg: 2, why }];
        assert_eq!(named, expected, "{stranger:?}");
        assert!(flow.events[1].0 < Time::from_ns(2_500_000_000), "{stranger:?}");
        flow.finish();
        assert_eq!((flow.missing_that_came(), flow.twice, flow.out_of_order, flow.changed), (0, 0, 0, 0));
        // Once it is right it joins.
        flow.stranger = None;
        flow.run_until_ms(33_000);
        assert!(flow.leg(2).is_merged, "{stranger:?}");
    }
}

#[test]
fn a_stranger_takes_over_when_nobody_else_is_left() {
    let mut flow = Flow::new(Config::default(), 3, 2);
    flow.stranger = Some((2, Stranger::Numbers));
    flow.run_until_ms(10_000);
    let before = flow.stats().released;
    flow.pulled = Some(0);
    flow.is_pulled_too = Some(1);
    flow.run_until_ms(20_000);
    assert_eq!(flow.stats().restarts, 1);
    assert!(flow.stats().released - before >= 9_990, "it brought all but nothing twice");
}

#[test]
fn legs_out_of_order_are_put_in_order() {
    for mode in [Mode::OnGaps, Mode::Align] {
        let config =
            Config { mode, recovery_window: WINDOW, reorder_window: Duration::from_millis(25), ..Config::default() };
        let mut flow = Flow::new(config, 2, 6);
        for (leg, delay) in [10, 80].into_iter().enumerate() {
            let free = link::Config {
                order: Order::Free,
                jitter: Duration::from_millis(20),
                duplicated: 0.02,
                ..lossy(0.05, delay)
            };
            flow.impair(leg, free);
        }
        flow.run_until_ms(20_000);
        flow.pulled = Some(1);
        flow.run_until_ms(40_000);
        flow.finish();
        assert_eq!((flow.twice, flow.out_of_order, flow.changed), (0, 0, 0));
        // What comes before the very first may be missing.
        assert!(flow.missing_that_came() <= 20, "{mode:?} {}", flow.missing_that_came());
        assert!(flow.leg(0).reordered > 1_000);
    }
}

const SEEDS: u64 = 8;

const WINDOW: RecoveryWindow = RecoveryWindow::Fixed(Duration::from_millis(200));

/// By what a leg differs from the others.
#[derive(Clone, Copy, Debug)]
enum Stranger {
    Programme,
    Timestamps,
    Payload,
    Numbers,
}

/// A sender, a link for each leg, and the merger.
struct Flow {
    pool: Pool,
    merger: Merger,
    links: Vec<Link>,
    on_the_way: BTreeMap<(Time, u64), (u8, Packet)>,
    put_on_the_way: u64,
    pulled: Option<usize>,
    is_pulled_too: Option<usize>,
    stranger: Option<(usize, Stranger)>,
    is_told: bool,
    /// Of the sequence numbers, for each leg.
    extension: Vec<u64>,
    life: u64,
    lives_told: Vec<u64>,
    now: Time,
    /// One packet in so many milliseconds.
    every_ms: u64,
    made: u64,
    /// Of each packet: whether it came on any leg that is no stranger, and how often it was released.
    came: Vec<bool>,
    released: Vec<u8>,
    last_released: Option<u64>,
    last_sequence: Option<u64>,
    out_of_order: u64,
    twice: u64,
    changed: u64,
    delay_max: Duration,
    delay_min: Duration,
    events: VecDeque<(Time, Event)>,
}

impl Flow {
    fn new(config: Config, legs: u8, seed: u64) -> Self {
        let mut merger = Merger::new(config);
        (0..legs).for_each(|leg| merger.add_leg(leg));
        let links = (0..legs).map(|leg| Link::new(link::Config::default(), seed * 100 + u64::from(leg)));
        Self {
            pool: Pool::new(PoolLimits { small_max: 32_768, large_max: 0 }),
            merger,
            links: links.collect(),
            on_the_way: BTreeMap::new(),
            put_on_the_way: 0,
            pulled: None,
            is_pulled_too: None,
            stranger: None,
            is_told: false,
            extension: (1..=legs.into()).map(|leg| leg << 16).collect(),
            life: 0,
            lives_told: vec![0; legs.into()],
            now: Time::ZERO,
            every_ms: 1,
            made: 0,
            came: Vec::new(),
            released: Vec::new(),
            last_released: None,
            last_sequence: None,
            out_of_order: 0,
            twice: 0,
            changed: 0,
            delay_max: Duration::ZERO,
            delay_min: Duration::MAX,
            events: VecDeque::new(),
        }
    }

    fn impair(&mut self, leg: usize, config: link::Config) {
        self.links[leg].set_config(config);
    }

    fn start_over(&mut self) {
        self.life += 1;
    }

    fn run_until_ms(&mut self, end_ms: u64) {
        while self.made * self.every_ms < end_ms {
            let at = Time::from_ns(self.made * self.every_ms * 1_000_000);
            self.deliver_until(at);
            self.send(at);
            self.made += 1;
        }
    }

    /// All that is on the way arrives and is released, before silence makes legs lost.
    fn finish(&mut self) {
        self.deliver_until(self.now + Duration::from_millis(400));
    }

    fn send(&mut self, at: Time) {
        self.came.push(false);
        self.released.push(0);
        for leg in 0..self.links.len() {
            let packet = self.packet(leg, at);
            if self.pulled == Some(leg) || self.is_pulled_too == Some(leg) {
                continue;
            }
            for arrival in self.links[leg].carry(at, packet.len()) {
                self.on_the_way.insert((arrival, self.put_on_the_way), (leg as u8, packet.clone()));
                self.put_on_the_way += 1;
            }
        }
    }

    fn packet(&self, leg: usize, at: Time) -> Packet {
        let stranger = self.stranger.filter(|(stranger, _)| *stranger == leg).map(|(_, stranger)| stranger);
        // Each life has numbers and a clock of its own.
        let mut sequence = self.made + 65_000 + self.life * 1_000_003;
        let mut ticks = Ticks90k::from_span(at.since(Time::ZERO)).0 + self.life * 400_000_000;
        let mut payload = [0x47_u8; 188];
        payload[90..98].copy_from_slice(&self.made.to_be_bytes());
        payload[98..106].copy_from_slice(&self.life.to_be_bytes());
        match stranger {
            None => {}
            Some(Stranger::Programme) => (sequence, ticks, payload[0]) = (sequence + 30_000, ticks ^ 1 << 31, 0),
            Some(Stranger::Timestamps) => ticks += 45_000,
            Some(Stranger::Payload) => payload[187] = 0,
            Some(Stranger::Numbers) => sequence += 1_000,
        }
        let sequence = Some(sequence + self.extension[leg]);
        let meta = Meta { arrival: at, sequence, rtp_timestamp: Some(ticks as u32), ..Meta::default() };
        self.pool.copy(&payload, meta).unwrap()
    }

    fn deliver_until(&mut self, end: Time) {
        loop {
            let arrival = self.on_the_way.first_key_value().map(|((arrival, _), _)| *arrival);
            let due = self.merger.poll_timeout().map(|due| due.max(self.now));
            let Some(next) = arrival.into_iter().chain(due).min().filter(|next| *next <= end) else {
                break;
            };
            self.now = next;
            while let Some(entry) = self.on_the_way.first_entry().filter(|entry| entry.key().0 <= next) {
                let (leg, packet) = entry.remove();
                let is_stranger = self.stranger.is_some_and(|(stranger, _)| stranger == usize::from(leg));
                let number = number(&packet);
                let life = u64::from_be_bytes(packet[98..106].try_into().unwrap());
                if self.is_told && life > self.lives_told[usize::from(leg)] {
                    self.lives_told[usize::from(leg)] = life;
                    self.merger.restart(self.now, leg);
                }
                if !is_stranger {
                    self.came[number as usize] = true;
                }
                self.merger.push(leg, self.now, packet);
            }
            self.run();
        }
        self.now = self.now.max(end);
    }

    fn run(&mut self) {
        if self.merger.poll_timeout().is_some_and(|due| due <= self.now) {
            self.merger.handle_timeout(self.now);
        }
        while let Some(packet) = self.merger.poll_packet(self.now) {
            let number = number(&packet);
            self.changed += u64::from(packet[0] != 0x47 || packet[187] != 0x47);
            self.out_of_order +=
                u64::from(self.last_released > Some(number) || self.last_sequence >= packet.meta.sequence);
            self.twice += u64::from(self.released[number as usize] > 0);
            self.released[number as usize] += 1;
            (self.last_released, self.last_sequence) = (Some(number), packet.meta.sequence);
            let delay = self.now.since(packet.meta.arrival);
            (self.delay_max, self.delay_min) = (self.delay_max.max(delay), self.delay_min.min(delay));
        }
        while let Some(event) = self.merger.poll_event() {
            self.events.push_back((self.now, event));
        }
    }

    /// Packets that came on a leg, from the first one released on, and were not released.
    fn missing_that_came(&self) -> usize {
        let since_first = self.came.iter().zip(&self.released).skip_while(|(_, released)| **released == 0);
        since_first.filter(|(came, released)| **came && **released == 0).count()
    }

    /// Packets between the first and the last released that no leg brought.
    fn never_came(&self) -> u64 {
        let last = self.last_released.map_or(0, |last| last as usize);
        let since_first = self.came[..last].iter().skip_while(|came| !**came);
        since_first.filter(|came| !**came).count() as u64
    }

    fn stats(&self) -> Stats {
        self.merger.stats()
    }

    fn leg(&self, leg: u8) -> LegStats {
        self.merger.leg_stats(leg).unwrap()
    }
}

fn number(packet: &Packet) -> u64 {
    u64::from_be_bytes(packet[90..98].try_into().unwrap())
}

fn lossy(share: f64, delay_ms: u64) -> link::Config {
    link::Config { loss: Model::Random { share }, delay: Duration::from_millis(delay_ms), ..link::Config::default() }
}
