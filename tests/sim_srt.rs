//! SRT's caller and listener against each other in virtual time, over every kind of bad path.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anabranch::bus::{Meta, Pool, PoolLimits};
use anabranch::proto::rtp::{HEADER_BYTES, HeaderMode, Over, SenderConfig};
use anabranch::proto::srt::access::names;
use anabranch::proto::srt::crypto::{CipherMode, KeyLength, Passphrase};
use anabranch::proto::srt::error::Rejection;
use anabranch::proto::srt::{
    Applicant, Bandwidth, Caller, Config, Front, Heard, Listener, PAYLOAD_MAX, Service, Terms,
};
use anabranch::proto::{Core, Datagram, Event, Port, Stats, Surroundings, Tuning};
use anabranch::sim::link;
use anabranch::sim::loss::Model;
use anabranch::sim::net::{Clock, Delivery, Network, Node, NodeId};
use anabranch::sim::traffic::{Check, Numbered, Report};
use anabranch::units::{Bitrate, Seq, Time};

const CALLER: ([u8; 4], u16) = ([192, 0, 2, 1], 40_000);
const LISTENER: ([u8; 4], u16) = ([192, 0, 2, 2], 9_000);
const DELAY: Duration = Duration::from_millis(20);
const LATENCY: Duration = Duration::from_millis(200);
/// 10 Mb/s.
const PERIOD: Duration = Duration::from_micros(1_053);
const TAIL: u64 = 200;

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sends {
    Caller,
    Listener,
}

struct Rig {
    network: Network,
    sender: NodeId,
    receiver: NodeId,
    numbered: Numbered,
    check: Check,
    now: Time,
    /// Shortest and longest time from sending to release.
    took: Option<(Duration, Duration)>,
    sent_at: Vec<Time>,
    events: Vec<Event>,
}

impl Rig {
    fn new(seed: u64, sends: Sends, caller: Caller, listener: Config) -> Self {
        Self::with_clock(seed, sends, caller, listener, Clock::default())
    }

    fn with_clock(seed: u64, sends: Sends, caller: Caller, listener: Config, listeners_clock: Clock) -> Self {
        Self::with_listener(seed, sends, caller, self::listener(seed, sends, listener), listeners_clock)
    }

    fn with_listener(seed: u64, sends: Sends, caller: Caller, listener: Listener, listeners_clock: Clock) -> Self {
        let mut network = Network::new(seed);
        let caller = network.add(Node::new(caller).bind(Port::Media, CALLER.into()));
        let listener = network.add(Node::new(listener).bind(Port::Media, LISTENER.into()).with_clock(listeners_clock));
        let (sender, receiver) = if sends == Sends::Caller { (caller, listener) } else { (listener, caller) };
        let mut rig = Self::between(network, sender, receiver);
        rig.links(link::Config { delay: DELAY, ..link::Config::default() });
        // The listener has been up for a while when it is called.
        rig.idle(Duration::from_secs(1));
        rig
    }

    /// Two who call each other.
    fn rendezvous(seed: u64, sender: Config, receiver: Config) -> Self {
        let mut network = Network::new(seed);
        let side = |config, peer: ([u8; 4], u16), luck| {
            Caller::rendezvous(config, peer.into(), Pool::new(PoolLimits::default()), [seed as u8 ^ luck; 32])
        };
        let sender = network.add(Node::new(side(sender, LISTENER, 0)).bind(Port::Media, CALLER.into()));
        let receiver = network.add(Node::new(side(receiver, CALLER, 0x55)).bind(Port::Media, LISTENER.into()));
        Self::between(network, sender, receiver)
    }

    fn between(network: Network, sender: NodeId, receiver: NodeId) -> Self {
        Self {
            network,
            sender,
            receiver,
            numbered: Numbered::new(1_316),
            check: Check::default(),
            now: Time::ZERO,
            took: None,
            sent_at: Vec::new(),
            events: Vec::new(),
        }
    }

    /// Both ways.
    fn links(&mut self, config: link::Config) {
        self.network.link(self.sender, self.receiver, config);
        self.network.link(self.receiver, self.sender, config);
    }

    fn idle(&mut self, span: Duration) {
        self.now += span;
        self.network.run_until(self.now);
        self.collect();
    }

    fn send(&mut self, packets: usize, period: Duration) {
        for _ in 0..packets {
            let packet = self.numbered.packet(self.network.pool(), self.now).unwrap();
            self.sent_at.push(self.now);
            self.network.send(self.now, self.sender, packet);
            self.idle(period);
        }
    }

    fn collect(&mut self) {
        for delivery in self.network.take_packets(self.receiver) {
            self.check.handle(&delivery.packet);
            // The number stands after the first TS header.
            let number = u64::from_be_bytes(delivery.packet[4..12].try_into().unwrap());
            let took = delivery.at.since(self.sent_at[number as usize]);
            let (least, most) = self.took.unwrap_or((took, took));
            self.took = Some((least.min(took), most.max(took)));
        }
        for node in [self.sender, self.receiver] {
            self.events.extend(self.network.take_events(node).into_iter().map(|(_, event)| event));
        }
    }

    /// Sends some more over a path that has become good, so that losses at the very end are noticed.
    fn finish(&mut self) -> Report {
        self.links(link::Config { delay: DELAY, ..link::Config::default() });
        self.send(TAIL as usize, PERIOD);
        self.idle(Duration::from_secs(2));
        self.check.report(self.numbered.made())
    }

    fn received(&self) -> Stats {
        self.network.core(self.receiver).stats()
    }

    /// A figure of the receiver's and the same of the sender's.
    fn figures(&self, name: &str) -> (f64, f64) {
        let figure = |node| {
            let mut found = None;
            self.network.core(node).visit_details(&mut |figures| {
                found = figures.iter().find(|figure| figure.0 == name).map(|figure| figure.1);
            });
            found.unwrap()
        };
        (figure(self.receiver), figure(self.sender))
    }
}

fn config() -> Config {
    Config { receive_latency: LATENCY, peer_latency: LATENCY, ..Config::default() }
}

fn encrypted(length: KeyLength, cipher: CipherMode) -> Config {
    Config {
        passphrase: Some("thelocalmanager".parse().unwrap()),
        key_length: Some(length),
        cipher,
        key_refresh_packets: 2_000,
        key_announce_packets: 500,
        receive_latency: 3 * LATENCY,
        peer_latency: 3 * LATENCY,
        ..config()
    }
}

fn caller(seed: u64, config: Config) -> Caller {
    let pool = Pool::new(PoolLimits::default());
    Caller::new(config, SocketAddr::from(LISTENER), pool, [seed as u8; 32])
}

fn listener(seed: u64, sends: Sends, config: Config) -> Listener {
    let service = if sends == Sends::Caller { Service::Receive } else { Service::Send { callers_max: 4 } };
    Listener::new(config, service, Pool::new(PoolLimits::default()), [seed as u8 ^ 0x55; 32])
}

/// Why there was no connection, as either side says it.
fn refusals(events: &[Event]) -> Vec<(&'static str, u32)> {
    let refusal = |event: &Event| match event {
        Event::PeerRefused { why, .. } => why.refusal,
        Event::PeerConnected { .. }
        | Event::CallersRefused { .. }
        | Event::PeerLost { .. }
        | Event::Restarted { .. }
        | Event::NotCarried(_)
        | Event::Ended => None,
    };
    events.iter().filter_map(refusal).collect()
}

/// All of `made`, and of what the end added.
fn whole(made: u64) -> Report {
    Report { received: made + TAIL, ..Report::default() }
}

#[test]
fn nothing_is_lost_on_a_lossy_path_and_everything_comes_at_its_time() {
    for seed in 0..8 {
        for sends in [Sends::Caller, Sends::Listener] {
            let mut rig = Rig::new(seed, sends, caller(seed, config()), config());
            rig.links(link::Config {
                loss: Model::Random { share: 0.05 },
                delay: DELAY,
                held_back: 0.01,
                held_back_by: Duration::from_millis(3),
                duplicated: 0.01,
                ..link::Config::default()
            });
            rig.send(3_000, PERIOD);
            assert_eq!(rig.finish(), whole(3_000), "seed {seed}, {sends:?} sends");
            let (least, most) = rig.took.unwrap();
            let exactly = LATENCY + DELAY;
            let is_right = |took: Duration| took.abs_diff(exactly) <= Duration::from_millis(5);
            assert!(is_right(least) && is_right(most), "seed {seed}, {sends:?} sends: {least:?} to {most:?}");
            let lost = rig.network.link_stats(rig.sender, rig.receiver).lost;
            let crossed = rig.network.link_stats(rig.sender, rig.receiver).sent;
            assert!(crossed < 3_000 + 2 * lost + 1_000, "seed {seed}: {crossed} datagrams for {lost} losses");
            assert!(rig.received().recovered > 100, "{:?}", rig.received());
        }
    }
}

#[test]
fn keys_of_every_length_change_while_packets_get_lost() {
    for (length, cipher, sends) in [
        (KeyLength::Aes128, CipherMode::Ctr, Sends::Caller),
        (KeyLength::Aes192, CipherMode::Ctr, Sends::Listener),
        (KeyLength::Aes256, CipherMode::Ctr, Sends::Caller),
        (KeyLength::Aes128, CipherMode::Gcm, Sends::Listener),
        (KeyLength::Aes256, CipherMode::Gcm, Sends::Caller),
    ] {
        let mut rig = Rig::new(3, sends, caller(3, encrypted(length, cipher)), encrypted(length, cipher));
        let loss = Model::Random { share: 0.1 };
        rig.links(link::Config { loss, delay: DELAY, ..link::Config::default() });
        rig.send(6_500, PERIOD);
        assert_eq!(rig.finish(), whole(6_500), "{length:?} {cipher:?}, {sends:?} sends");
    }
}

#[test]
fn sequence_numbers_wrap() {
    let caller = caller(1, config()).starting_at(Seq::new(0x7fff_ff00));
    let mut rig = Rig::new(1, Sends::Caller, caller, config());
    rig.links(link::Config { loss: Model::bursts(0.05, 4.0), delay: DELAY, ..link::Config::default() });
    rig.send(1_000, PERIOD);
    assert_eq!(rig.finish(), whole(1_000));
}

#[test]
fn timestamps_wrap_after_71_minutes_and_clocks_may_drift() {
    for skew_ppm in [-200, 200] {
        let clock = Clock { offset: Duration::from_secs(77), skew_ppm };
        let mut rig = Rig::with_clock(5, Sends::Caller, caller(5, config()), config(), clock);
        let made = 75 * 60 * 10;
        rig.send(made, Duration::from_millis(100));
        assert_eq!(rig.finish(), whole(made as u64), "{skew_ppm} ppm");
        let (least, most) = rig.took.unwrap();
        // A thousand acknowledgements make one correction, and here they take 100 s, which are 20 ms of drift.
        let is_near = |took: Duration| took.abs_diff(LATENCY + DELAY) <= Duration::from_millis(45);
        assert!(is_near(least) && is_near(most), "{skew_ppm} ppm: {least:?} to {most:?}");
    }
}

#[test]
fn a_blackout_costs_what_it_lasted_and_the_connection_lives() {
    let mut rig = Rig::new(7, Sends::Caller, caller(7, config()), config());
    rig.send(1_000, PERIOD);
    let good = link::Config { delay: DELAY, ..link::Config::default() };
    rig.links(link::Config { loss: Model::Random { share: 1.0 }, ..good });
    rig.send(3_000, PERIOD);
    rig.links(good);
    rig.send(2_000, PERIOD);
    let Report { lost, duplicated, corrupt, .. } = rig.finish();
    assert!((2_000..3_400).contains(&lost), "{lost} lost");
    assert_eq!((duplicated, corrupt), (0, 0));
    assert!(!rig.events.iter().any(|event| matches!(event, Event::PeerLost { .. })), "{:?}", rig.events);
}

#[test]
fn a_peer_that_is_gone_is_noticed_and_called_again() {
    let mut rig = Rig::new(9, Sends::Caller, caller(9, config()), config());
    rig.send(100, PERIOD);
    let good = link::Config { delay: DELAY, ..link::Config::default() };
    rig.links(link::Config { loss: Model::Random { share: 1.0 }, ..good });
    rig.idle(Duration::from_secs(7));
    let ends = rig.events.iter().filter(|event| matches!(event, Event::PeerLost { .. })).count();
    assert_eq!(ends, 2, "both sides noticed: {:?}", rig.events);
    rig.links(good);
    rig.idle(Duration::from_secs(10));
    rig.send(100, PERIOD);
    let Report { received, .. } = rig.finish();
    assert_eq!(received, 200 + TAIL);
}

#[test]
fn a_key_frame_of_3000_packets_at_once_goes_through() {
    let mut rig = Rig::new(11, Sends::Caller, caller(11, config()), config());
    rig.send(3_000, Duration::ZERO);
    rig.idle(Duration::from_secs(1));
    rig.send(100, PERIOD);
    assert_eq!(rig.finish(), whole(3_100));
    assert!(!rig.events.iter().any(|event| matches!(event, Event::PeerLost { .. })), "{:?}", rig.events);
}

fn filtered(text: &str, config: Config) -> Config {
    Config { packet_filter: Some(text.parse().unwrap()), ..config }
}

/// Runs with a filter and random loss of whatever is sent; says what became of it, and how many of 3200 were rebuilt.
fn run_filtered(seed: u64, sends: Sends, filter: &str, config: Config, share: f64) -> (Rig, Report, f64) {
    let caller = caller(seed, filtered(filter, config.clone())).starting_at(Seq::new(0x7fff_fc00));
    // The listener has nothing to say of it.
    let mut rig = Rig::new(seed, sends, caller, config);
    rig.links(link::Config { loss: Model::Random { share }, delay: DELAY, ..link::Config::default() });
    rig.send(3_000, PERIOD);
    let report = rig.finish();
    assert_eq!((report.duplicated, report.corrupt, report.reordered), (0, 0, 0), "seed {seed}");
    let supplied = rig.figures("pktRcvFilterSupply").0;
    (rig, report, supplied)
}

#[test]
fn without_loss_a_filter_costs_only_its_packets() {
    for (filter, extra) in [
        ("fec,cols:10,rows:5", 940..=959),
        ("fec,cols:10,rows:5,layout:even,arq:never", 960..=960),
        ("fec,cols:10,rows:-5,arq:always", 620..=639),
        ("fec,cols:8", 400..=400),
    ] {
        for sends in [Sends::Caller, Sends::Listener] {
            let (rig, report, supplied) = run_filtered(1, sends, filter, config(), 0.0);
            assert_eq!((report, supplied), (whole(3_000), 0.0), "{filter}");
            let Stats { recovered, duplicate, lost, malformed, unexpected, .. } = rig.received();
            assert_eq!([recovered, duplicate, lost, malformed, unexpected], [0; 5], "{filter}");
            let (came, went) = (rig.figures("pktRcvFilterExtra").0, rig.figures("pktSndFilterExtra").1);
            assert!(came == went && extra.contains(&(came as u64)), "{filter}: {came} of {went}");
            assert_eq!(rig.figures("pktRcvFilterLoss").0, 0.0);
            assert_eq!((rig.figures("pktSentNAK").0, rig.figures("pktRetrans").1), (0.0, 0.0));
        }
    }
}

#[test]
fn a_filter_alone_repairs_nearly_all_of_two_percent_loss_and_nothing_is_asked_for() {
    for seed in 0..6 {
        let sends = if seed % 2 == 0 { Sends::Caller } else { Sends::Listener };
        let filter = "fec,cols:10,rows:5,layout:staircase,arq:never";
        // Without these reports a sender would send everything again that is not acknowledged at once.
        let config = Config { nak_reports: seed % 3 != 0, ..config() };
        let (rig, report, supplied) = run_filtered(seed, sends, filter, config, 0.02);
        let lost = rig.network.link_stats(rig.sender, rig.receiver).lost;
        assert!(report.lost <= 3 && supplied > 40.0, "seed {seed}: {report:?}, {supplied} rebuilt, {lost} lost");
        assert_eq!(rig.received().recovered as f64, supplied);
        assert_eq!(rig.received().lost, report.lost);
        // Some of what its column could not repair its row still does later.
        let unrepaired = rig.figures("pktRcvFilterLoss").0 as u64;
        assert!((report.lost..=report.lost + 3).contains(&unrepaired), "seed {seed}: {unrepaired} of {report:?}");
        assert_eq!((rig.figures("pktSentNAK").0, rig.figures("pktRetrans").1), (0.0, 0.0), "seed {seed}");
        let (least, most) = rig.took.unwrap();
        let is_right = |took: Duration| took.abs_diff(LATENCY + DELAY) <= Duration::from_millis(5);
        assert!(is_right(least) && is_right(most), "seed {seed}: {least:?} to {most:?}");
    }
}

#[test]
fn what_a_filter_cannot_repair_is_asked_for_once_and_comes() {
    for seed in 0..6 {
        let sends = if seed % 2 == 0 { Sends::Caller } else { Sends::Listener };
        let (rig, report, supplied) = run_filtered(seed, sends, "fec,cols:10,arq:onreq", config(), 0.02);
        let again = rig.figures("pktRetrans").1;
        // Of what is asked for once, some is lost once more.
        assert!(report.lost <= 2 && supplied > 25.0, "seed {seed}: {report:?}, {supplied} rebuilt, {again} again");
        let unrepaired = rig.figures("pktRcvFilterLoss").0;
        assert!(again <= unrepaired && again + 4.0 >= unrepaired, "seed {seed}: {again} of {unrepaired} again");
        let (rig, report, supplied) = run_filtered(seed, sends, "fec,cols:10,arq:always", config(), 0.02);
        assert_eq!(report, whole(3_000), "seed {seed}");
        assert!(supplied > 10.0 && rig.figures("pktRetrans").1 > 40.0, "seed {seed}: {supplied} rebuilt");
    }
}

#[test]
fn encrypted_packets_are_rebuilt_while_keys_change() {
    for (length, cipher, sends) in [
        (KeyLength::Aes128, CipherMode::Ctr, Sends::Caller),
        (KeyLength::Aes256, CipherMode::Gcm, Sends::Listener),
        (KeyLength::Aes128, CipherMode::Gcm, Sends::Caller),
    ] {
        let config = Config { key_refresh_packets: 100, key_announce_packets: 40, ..encrypted(length, cipher) };
        let filter = "fec,cols:10,rows:5,arq:never";
        let (rig, report, supplied) = run_filtered(3, sends, filter, config, 0.02);
        assert!(report.lost <= 3 && supplied > 40.0, "{cipher:?}: {report:?}, {supplied} rebuilt");
        assert_eq!(rig.figures("pktRcvUndecrypt").0, 0.0, "{cipher:?}");
    }
}

#[test]
fn repairs_keep_to_the_rate_and_to_the_path() {
    let rate = Bandwidth::Max(Bitrate::from_bps(16_000_000));
    let config = Config { bandwidth: rate, payload_max: PAYLOAD_MAX, ..config() };
    let mut rig = Rig::new(5, Sends::Caller, caller(5, filtered("fec,cols:10,rows:5", config.clone())), config);
    // 1456 bytes fit a packet, but not with the four that a repair has more.
    rig.numbered = Numbered::new(PAYLOAD_MAX - 4);
    rig.send(500, Duration::ZERO);
    rig.idle(Duration::from_secs(1));
    let all = rig.figures("byteSent").1 as u64;
    assert_eq!(rig.figures("pktSentUnique").1, 500.0);
    assert_eq!(rig.finish().lost, 0);
    let repairs = rig.figures("pktSndFilterExtra").1;
    assert!(repairs > 90.0 && all > 590 * PAYLOAD_MAX as u64 - 2_400, "{repairs} repairs, {all} bytes");
    let took = Duration::from_secs_f64(all as f64 * 8.0 / 16e6);
    assert!(took > Duration::from_millis(430), "{took:?}");
}

#[test]
fn filters_that_do_not_go_together_are_refused_on_either_side() {
    let no_filter = Config { packet_filter: None, ..config() };
    for (ours, theirs, is_refused) in [
        ("fec,cols:10", "fec,cols:20", true),
        ("fec", "fec,rows:5", true),
        ("fec,arq:never", "fec,cols:10,arq:onreq", true),
        ("fec", "fec,cols:10", false),
        ("", "fec,cols:10", false),
        ("", "", false),
    ] {
        let config = |text: &str| if text.is_empty() { no_filter.clone() } else { filtered(text, no_filter.clone()) };
        let mut rig = Rig::new(17, Sends::Caller, caller(17, config(ours)), config(theirs));
        rig.idle(Duration::from_secs(1));
        let refusals = refusals(&rig.events).into_iter().filter(|(_, code)| *code == 1_014);
        assert_eq!(refusals.count() >= 2, is_refused, "{ours} {theirs}: {:?}", rig.events);
        assert_eq!(rig.received().peers == Some(1), !is_refused, "{ours} {theirs}");
    }
}

#[test]
fn a_wrong_passphrase_is_refused_with_the_reason_and_the_listener_lives_on() {
    let wrong = Config { passphrase: Some("somethingelse".parse().unwrap()), ..config() };
    let right = encrypted(KeyLength::Aes128, CipherMode::Ctr);
    let gcm = encrypted(KeyLength::Aes128, CipherMode::Gcm);
    for (ours, theirs, code) in [
        (wrong, right.clone(), 1_010),
        (config(), right.clone(), 1_011),
        (right.clone(), config(), 1_011),
        (gcm, right, 1_017),
    ] {
        let mut rig = Rig::new(13, Sends::Caller, caller(13, ours), theirs);
        rig.idle(Duration::from_secs(1));
        let refusals = refusals(&rig.events);
        assert!(refusals.len() >= 2 && refusals.iter().all(|(_, given)| *given == code), "{code}: {:?}", rig.events);
    }
}

#[test]
fn whoever_is_refused_again_and_again_is_told_of_once_a_minute_with_how_often() {
    let wrong = Config { passphrase: passphrase("somethingelse"), ..config() };
    let mut rig = Rig::new(14, Sends::Caller, caller(14, wrong), encrypted(KeyLength::Aes128, CipherMode::Ctr));
    rig.idle(Duration::from_secs(1_300));
    let counts = |who: &str| -> Vec<u64> {
        let count = |event: &Event| {
            let Event::PeerRefused { why, count, .. } = event else { return None };
            why.refusal.is_some_and(|(by, _)| by == who).then_some(*count)
        };
        rig.events.iter().filter_map(count).collect()
    };
    let (told, heard) = (counts("refused"), counts("the peer refused"));
    assert!((20..=22).contains(&told.len()), "by the listener: {told:?}");
    assert!(heard.len() == 3, "by the caller, every ten minutes: {heard:?}");
    for counts in [told, heard] {
        assert!(counts[0] == 1 && counts[1..].iter().all(|count| *count > 1), "{counts:?}");
    }
}

/// As libsrt's does that does not insist on a passphrase: it takes itself for connected, and only the caller knows better.
#[test]
fn a_listener_whose_answer_is_not_taken_is_told_at_once() {
    let pool = Pool::new(PoolLimits::default());
    let config = encrypted(KeyLength::Aes128, CipherMode::Ctr);
    let listener = Listener::new(config.clone(), Service::Receive, pool.clone(), [1; 32]);
    let mut cores: [Box<dyn Core>; 2] = [Box::new(caller(14, config)), Box::new(listener)];
    let addresses: [SocketAddr; 2] = [CALLER.into(), LISTENER.into()];
    let now = Time::ZERO + Duration::from_secs(1);
    cores[0].handle_timeout(now);
    for from in [0, 1].repeat(8) {
        while let Some(transmit) = cores[from].poll_transmit() {
            let mut bytes = transmit.header.to_vec();
            bytes.extend(transmit.payload.iter().flat_map(|payload| payload.iter()));
            // The end of the only long answer, the keys that come back.
            if from == 1 && bytes.len() > 100 {
                *bytes.last_mut().unwrap() ^= 1;
            }
            let packet = pool.copy(&bytes, Meta { arrival: now, ..Meta::default() }).unwrap();
            cores[1 - from].handle_datagram(now, Datagram { port: Port::Media, peer: addresses[from], packet });
        }
        while let Some(work) = cores[from].poll_work() {
            cores[from].handle_done(now, work.run());
        }
    }
    let events = cores.map(|mut core| std::iter::from_fn(|| core.poll_event()).collect::<Vec<_>>());
    assert!(
        matches!(events[0][..], [Event::PeerRefused { why, .. }] if why.refusal.is_some_and(|told| told.1 == 1_010)),
        "{events:?}"
    );
    assert!(matches!(events[1][..], [Event::PeerConnected { .. }, Event::PeerLost { .. }]), "{events:?}");
}

#[test]
fn a_hundred_thousand_callers_who_never_come_back_leave_nothing() {
    let pool = Pool::new(PoolLimits::default());
    let mut listener = Listener::new(config(), Service::Receive, pool.clone(), [1; 32]);
    let mut prober = caller(2, config());
    prober.handle_timeout(Time::ZERO);
    let transmit = prober.poll_transmit().unwrap();
    let bytes = [&transmit.header[..], &transmit.payload.unwrap()[..]].concat();
    for n in 0..100_000_u32 {
        let packet = pool.copy(&bytes, Meta::default()).unwrap();
        let peer = SocketAddr::from(((n | 0x0a00_0000).to_be_bytes(), 1_000));
        let now = Time::ZERO + Duration::from_micros(u64::from(n));
        listener.handle_datagram(now, Datagram { port: Port::Media, peer, packet });
        assert!(listener.poll_transmit().is_some());
    }
    assert_eq!(listener.stats().peers, Some(0));
    assert_eq!(pool.usage().reserved_bytes, 128 * Pool::SMALL as u64);
    assert_eq!(listener.poll_timeout(), None);
}

/// Over a path so bad that every message of the handshake is lost in some run.
#[test]
fn two_who_call_each_other_meet() {
    for seed in 0..40 {
        let config = if seed % 2 == 0 { config() } else { encrypted(KeyLength::Aes256, CipherMode::Gcm) };
        let mut rig = Rig::rendezvous(seed, config.clone(), config);
        let bad = link::Config { loss: Model::Random { share: 0.4 }, delay: DELAY, ..link::Config::default() };
        // One of them is heard sooner.
        let deaf = link::Config { loss: Model::Random { share: 1.0 }, ..bad };
        rig.links(bad);
        let (from, to) = if seed % 4 < 2 { (rig.sender, rig.receiver) } else { (rig.receiver, rig.sender) };
        rig.network.link(from, to, deaf);
        rig.idle(Duration::from_secs(2));
        assert_eq!(rig.events, [], "seed {seed}");
        rig.links(bad);
        rig.idle(Duration::from_secs(4));
        let connected = rig.events.iter().filter(|event| matches!(event, Event::PeerConnected { .. })).count();
        assert_eq!((connected, rig.events.len()), (2, 2), "seed {seed}: {:?}", rig.events);
        rig.links(link::Config { loss: Model::Random { share: 0.02 }, delay: DELAY, ..link::Config::default() });
        rig.send(500, PERIOD);
        assert_eq!(rig.finish(), whole(500), "seed {seed}");
    }
}

#[test]
fn a_rendezvous_with_the_wrong_passphrase_or_none_is_told_why() {
    let of = |passphrase: &str| Config { passphrase: passphrase.parse().ok(), ..config() };
    for seed in 0..8 {
        for (other, codes) in [("someothersecret", [1_010, 1_010]), ("", [1_011, 1_011])] {
            let mut rig = Rig::rendezvous(seed, of("thelocalmanager"), of(other));
            rig.links(link::Config { delay: DELAY, ..link::Config::default() });
            rig.idle(Duration::from_secs(3));
            let mut told: Vec<u32> = Vec::new();
            for event in &rig.events {
                let Event::PeerRefused { why, .. } = event else { unreachable!("seed {seed}: {event:?}") };
                told.extend(why.refusal.map(|refusal| refusal.1));
            }
            assert!(told.starts_with(&codes), "seed {seed}, {other}: {:?}", rig.events);
        }
    }
}

#[test]
fn one_side_of_a_rendezvous_that_starts_anew_is_met_again() {
    for seed in 0..4 {
        let mut rig = Rig::rendezvous(seed, config(), config());
        rig.links(link::Config { delay: DELAY, ..link::Config::default() });
        rig.idle(Duration::from_secs(1));
        rig.send(100, PERIOD);
        // Nothing passes for so long that one side gives up, and both must.
        rig.links(link::Config { loss: Model::Random { share: 1.0 }, ..link::Config::default() });
        rig.idle(Duration::from_secs(7));
        rig.links(link::Config { delay: DELAY, ..link::Config::default() });
        rig.idle(Duration::from_secs(3));
        let connected = rig.events.iter().filter(|event| matches!(event, Event::PeerConnected { .. })).count();
        assert_eq!(connected, 4, "seed {seed}: {:?}", rig.events);
        rig.send(100, PERIOD);
        let report = rig.finish();
        assert_eq!((report.received, report.reordered), (200 + TAIL, 0), "seed {seed}: {report:?}");
    }
}

#[test]
fn a_rate_changes_while_packets_flow_and_for_connections_to_come() {
    for sends in [Sends::Caller, Sends::Listener] {
        let mut rig = Rig::new(3, sends, caller(3, config()), config());
        let tuned = |bps| Config { bandwidth: Bandwidth::Max(Bitrate::from_bps(bps)), ..config() };
        let tune = |rig: &mut Rig, config: Config| rig.network.tune(rig.now, rig.sender, Tuning::Srt(config.tuning()));
        // 256 packets at once, of 1,360 bytes with their headers.
        let burst = |rig: &mut Rig| {
            let before = rig.figures("pktSentUnique").1;
            rig.send(256, Duration::ZERO);
            rig.idle(Duration::from_millis(100));
            let sent = rig.figures("pktSentUnique").1 - before;
            rig.idle(Duration::from_secs(2));
            sent
        };
        assert_eq!(burst(&mut rig), 256.0, "{sends:?}: no limit");
        tune(&mut rig, tuned(8_000_000));
        let sent = burst(&mut rig);
        assert!((70.0..80.0).contains(&sent), "{sends:?}: {sent} in 100 ms of 8 Mb/s");
        // What waits goes at the new rate, too, and at once.
        rig.send(256, Duration::ZERO);
        tune(&mut rig, config());
        let before = rig.figures("pktSentUnique").1;
        rig.idle(Duration::from_micros(1));
        assert!(rig.figures("pktSentUnique").1 - before > 250.0, "{sends:?}");
        rig.idle(Duration::from_secs(1));
        assert_eq!(rig.check.report(768).lost, 0, "{sends:?}");
        assert!(rig.events.iter().all(|event| matches!(event, Event::PeerConnected { .. })), "{:?}", rig.events);
        // Another connection.
        tune(&mut rig, tuned(8_000_000));
        rig.links(link::Config { loss: Model::Random { share: 1.0 }, ..link::Config::default() });
        rig.idle(Duration::from_secs(10));
        rig.links(link::Config { delay: DELAY, ..link::Config::default() });
        rig.idle(Duration::from_secs(10));
        let connected = rig.events.iter().filter(|event| matches!(event, Event::PeerConnected { .. })).count();
        assert_eq!(connected, 4, "{sends:?}: {:?}", rig.events);
        let sent = burst(&mut rig);
        assert!((70.0..80.0).contains(&sent), "{sends:?}: {sent} in 100 ms of 8 Mb/s, on the next connection");
    }
}

#[test]
fn patience_with_a_silent_peer_changes_on_the_connection_that_there_is() {
    for (tuned, lives) in [(Duration::from_secs(20), true), (Duration::from_secs(1), false)] {
        let mut rig = Rig::new(4, Sends::Caller, caller(4, config()), config());
        let tuning = Tuning::Srt(Config { idle_timeout: tuned, ..config() }.tuning());
        rig.network.tune(rig.now, rig.sender, tuning);
        rig.network.tune(rig.now, rig.receiver, tuning);
        rig.links(link::Config { loss: Model::Random { share: 1.0 }, ..link::Config::default() });
        // As it is, five seconds.
        rig.idle(if lives { Duration::from_secs(15) } else { Duration::from_secs(3) });
        let lost = rig.events.iter().filter(|event| matches!(event, Event::PeerLost { .. })).count();
        assert_eq!(lost, if lives { 0 } else { 2 }, "{tuned:?}: {:?}", rig.events);
    }
}

#[test]
fn nothing_is_lost_when_keys_are_told_to_change_more_often() {
    let config = encrypted(KeyLength::Aes256, CipherMode::Gcm);
    for sends in [Sends::Caller, Sends::Listener] {
        let mut rig = Rig::new(6, sends, caller(6, config.clone()), config.clone());
        rig.send(1_000, PERIOD);
        let often = Config { key_refresh_packets: 150, key_announce_packets: 70, ..config.clone() };
        rig.network.tune(rig.now, rig.sender, Tuning::Srt(often.tuning()));
        rig.send(2_000, PERIOD);
        assert_eq!(rig.finish(), whole(3_000), "{sends:?}");
        assert_eq!(rig.figures("pktRcvUndecrypt").0, 0.0, "{sends:?}");
    }
}

fn passphrase(name: &str) -> Option<Passphrase> {
    Some(format!("the-secret-of-{name}").parse().unwrap())
}

/// Lets in those who want one of two streams, each on its own terms.
fn two_streams(applicant: &Applicant<'_>) -> Result<Terms, Rejection> {
    match applicant.access.and_then(|access| access.resource()) {
        Some(name @ "news") => Ok(Terms { passphrase: passphrase(name), latency: Some(3 * LATENCY) }),
        Some(name @ "sports") => Ok(Terms { passphrase: passphrase(name), latency: None }),
        Some(_) => Err(Rejection::NOT_FOUND),
        None => Err(Rejection::BAD_REQUEST),
    }
}

#[test]
fn each_stream_of_a_gate_has_its_own_passphrase_and_latency() {
    for sends in [Sends::Caller, Sends::Listener] {
        for (name, latency) in [("news", 3 * LATENCY), ("sports", LATENCY)] {
            let asked = Arc::new(AtomicU32::new(0));
            let count = Arc::clone(&asked);
            let listener = listener(31, sends, config()).with_gate(move |applicant| {
                count.fetch_add(1, Ordering::Relaxed);
                two_streams(applicant)
            });
            let stream_id = format!("#!::u=anna,r={name},m=publish");
            let caller = caller(31, Config { passphrase: passphrase(name), stream_id, ..config() });
            let mut rig = Rig::with_listener(31, sends, caller, listener, Clock::default());
            rig.links(link::Config { delay: DELAY, loss: Model::Random { share: 0.02 }, ..link::Config::default() });
            rig.send(1_000, PERIOD);
            assert_eq!(rig.finish(), whole(1_000), "{sends:?} {name}");
            let (least, most) = rig.took.unwrap();
            assert!(least >= latency && most < latency + 2 * DELAY, "{sends:?} {name}: {least:?} {most:?}");
            assert_eq!(asked.load(Ordering::Relaxed), 1);
        }
    }
}

#[test]
fn whoever_has_not_the_passphrase_of_his_stream_is_refused() {
    for (stream_id, passphrase, code) in [
        ("#!::r=news", passphrase("sports"), 1_010),
        ("#!::r=news", None, 1_011),
        ("#!::r=chess", passphrase("news"), 1_404),
        ("news", passphrase("news"), 1_400),
    ] {
        let caller = caller(32, Config { passphrase, stream_id: stream_id.into(), ..config() });
        let listener = listener(32, Sends::Caller, config()).with_gate(two_streams);
        let mut rig = Rig::with_listener(32, Sends::Caller, caller, listener, Clock::default());
        rig.idle(Duration::from_secs(1));
        let refusals = refusals(&rig.events);
        assert!(refusals.len() >= 2 && refusals.iter().all(|(_, given)| *given == code), "{code}: {:?}", rig.events);
    }
}

#[test]
fn a_caller_is_told_the_code_with_which_a_gate_refuses_him() {
    for (rejection, code) in
        [(Rejection::new(2_042), 2_042), (Rejection::FORBIDDEN, 1_403), (Rejection::UNKNOWN_KEY, 1_001)]
    {
        let listener = listener(33, Sends::Caller, config()).with_gate(move |applicant| {
            assert_eq!((applicant.peer, applicant.stream_id), (CALLER.into(), "chess"));
            assert_eq!((applicant.version, applicant.is_encrypted, applicant.access), (0x01_05_05, true, None));
            Err(rejection)
        });
        let ours = Config { passphrase: passphrase("chess"), stream_id: "chess".into(), ..config() };
        let mut rig = Rig::with_listener(33, Sends::Caller, caller(33, ours), listener, Clock::default());
        rig.idle(Duration::from_secs(1));
        let refusals = refusals(&rig.events);
        assert!(
            refusals.contains(&("the peer refused", code)) && refusals.contains(&("refused", code)),
            "{refusals:?}"
        );
        assert!(rig.events.iter().all(|event| matches!(event, Event::PeerRefused { .. })), "{:?}", rig.events);
    }
}

/// Whose connection has fallen silent makes room for others, but not for those who may not come in.
#[test]
fn nobody_loses_his_place_to_one_whom_a_gate_refuses() {
    for (stream_id, is_lost) in [("anna", true), ("nobody", false)] {
        let listener = listener(34, Sends::Caller, config()).with_gate(|applicant| match applicant.stream_id {
            "nobody" => Err(Rejection::FORBIDDEN),
            _ => Ok(Terms::default()),
        });
        let mut rig = Rig::with_listener(34, Sends::Caller, caller(34, config()), listener, Clock::default());
        rig.links(link::Config { loss: Model::Random { share: 1.0 }, ..link::Config::default() });
        rig.idle(Duration::from_secs(2));
        let other = caller(35, Config { stream_id: stream_id.into(), ..config() });
        let address = ([192, 0, 2, 3], 40_000);
        rig.network.add(Node::new(other).bind(Port::Media, address.into()));
        rig.idle(Duration::from_secs(1));
        let lost =
            rig.events.iter().any(|event| matches!(event, Event::PeerLost { peer, .. } if *peer == CALLER.into()));
        assert_eq!(lost, is_lost, "{:?}", rig.events);
        assert_eq!(refusals(&rig.events).is_empty(), is_lost, "{:?}", rig.events);
    }
}

#[test]
fn a_gate_is_asked_once_while_keys_are_derived_however_often_a_caller_asks() {
    let asked = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&asked);
    let mut listener = listener(36, Sends::Caller, config()).with_gate(move |applicant| {
        count.fetch_add(1, Ordering::Relaxed);
        two_streams(applicant)
    });
    let stream_id = "#!::r=news".into();
    let mut caller = caller(36, Config { passphrase: passphrase("news"), stream_id, ..config() });
    let mut works = Vec::new();
    for turn in 0..10 {
        let now = Time::ZERO + Duration::from_millis(100 * turn);
        caller.handle_timeout(now);
        while let Some(work) = caller.poll_work() {
            caller.handle_done(now, work.run());
        }
        carry(now, &mut caller, CALLER.into(), &mut listener);
        carry(now, &mut listener, LISTENER.into(), &mut caller);
        works.extend(listener.poll_work());
    }
    assert_eq!((asked.load(Ordering::Relaxed), works.len()), (1, 1));
    let now = Time::ZERO + Duration::from_secs(1);
    works.into_iter().for_each(|work| listener.handle_done(now, work.run()));
    assert_eq!(listener.stats().peers, Some(1));
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

/// The front answers whoever knocks, and the gate of the listener behind it whoever brings the cookie back.
#[test]
fn a_gate_decides_behind_a_front_as_well() {
    let pool = Pool::new(PoolLimits::default());
    let front = Front::new(pool.clone(), [9; 32]);
    for (user, code) in [("anna", None), ("otto", Some(1_403))] {
        let listener = listener(37, Sends::Caller, Config { stream_id: "news".into(), ..config() });
        let mut listener = listener.behind([9; 32]).with_gate(|applicant| {
            let user = applicant.access.and_then(|access| access.user());
            if user == Some("anna") { Ok(Terms::default()) } else { Err(Rejection::FORBIDDEN) }
        });
        let mut caller = caller(37, Config { stream_id: format!("#!::u={user},r=news"), ..config() });
        caller.handle_timeout(Time::ZERO);
        let mut wanted = 0;
        while let Some(transmit) = caller.poll_transmit() {
            let bytes = [&transmit.header[..], transmit.payload.as_deref().unwrap_or_default()].concat();
            let packet = pool.copy(&bytes, Meta::default()).unwrap();
            let datagram = Datagram { port: Port::Media, peer: CALLER.into(), packet };
            match front.handle(Time::ZERO, &datagram) {
                Heard::Answer(answer) => {
                    let packet = answer.payload.clone().unwrap();
                    let bytes = [&answer.header[..], &packet[..]].concat();
                    let packet = pool.copy(&bytes, Meta::default()).unwrap();
                    caller.handle_datagram(Time::ZERO, Datagram { port: Port::Media, peer: LISTENER.into(), packet });
                }
                Heard::Wanted(stream_id) => {
                    assert!(names(&stream_id, "news"));
                    wanted += 1;
                    listener.handle_datagram(Time::ZERO, datagram);
                }
                Heard::Nothing => {}
            }
        }
        carry(Time::ZERO, &mut listener, LISTENER.into(), &mut caller);
        let told = std::iter::from_fn(|| caller.poll_event()).collect::<Vec<_>>();
        let told: Vec<u32> = refusals(&told).into_iter().map(|(_, code)| code).collect();
        assert_eq!((wanted, told), (1, Vec::from_iter(code)), "{user}");
        assert_eq!(listener.stats().peers, Some(u32::from(code.is_none())), "{user}");
    }
}

/// Brings each datagram of `from` twice.
fn carry(now: Time, from: &mut dyn Core, address: SocketAddr, to: &mut dyn Core) {
    let pool = Pool::new(PoolLimits::default());
    while let Some(transmit) = from.poll_transmit() {
        let bytes = [&transmit.header[..], transmit.payload.as_deref().unwrap_or_default()].concat();
        for _ in 0..2 {
            let packet = pool.copy(&bytes, Meta::default()).unwrap();
            to.handle_datagram(now, Datagram { port: Port::Media, peer: address, packet });
        }
    }
}

/// A listener that sends to eight callers, the first of them behind a link of half the rate.
struct Crowd {
    network: Network,
    listener: NodeId,
    callers: Vec<NodeId>,
    checks: Vec<Check>,
    numbered: Numbered,
    now: Time,
    events: Vec<Event>,
}

impl Crowd {
    fn new(served: Config, narrow: link::Config) -> Self {
        let mut network = Network::new(17);
        let pool = network.pool().clone();
        let service = Service::Send { callers_max: 16 };
        let listener = Listener::new(served, service, pool, [0x55; 32]);
        let listener = network.add(Node::new(listener).bind(Port::Media, LISTENER.into()));
        let good = link::Config { delay: DELAY, ..link::Config::default() };
        let callers: Vec<NodeId> = (0..8)
            .map(|n: u16| {
                let address = SocketAddr::from(([198, 51, 100, 1 + n as u8], 40_000 + n));
                let id = network.add(Node::new(caller(u64::from(n), config())).bind(Port::Media, address));
                network.link(listener, id, if n == 0 { narrow } else { good });
                network.link(id, listener, good);
                id
            })
            .collect();
        let (checks, numbered) = (vec![Check::default(); callers.len()], Numbered::new(1_316));
        let mut crowd = Self { network, listener, callers, checks, numbered, now: Time::ZERO, events: Vec::new() };
        crowd.idle(Duration::from_secs(1));
        crowd
    }

    fn idle(&mut self, span: Duration) {
        self.now += span;
        self.network.run_until(self.now);
        self.events.extend(self.network.take_events(self.listener).into_iter().map(|(_, event)| event));
        for (caller, check) in self.callers.iter().zip(&mut self.checks) {
            let packets = self.network.take_packets(*caller);
            packets.iter().for_each(|delivery| check.handle(&delivery.packet));
        }
    }

    fn send(&mut self, span: Duration) {
        for _ in 0..span.div_duration_f64(PERIOD) as u64 {
            let packet = self.numbered.packet(self.network.pool(), self.now).unwrap();
            self.network.send(self.now, self.listener, packet);
            self.idle(PERIOD);
        }
    }

    /// Sends for eight seconds, and says what the listener told of connections since they all came.
    fn run(mut self) -> Vec<Event> {
        self.events.clear();
        self.send(Duration::from_secs(8));
        // A goodbye waits in the queue of the link as all else does.
        self.idle(Duration::from_secs(4));
        let (told, made) = (self.events, self.numbered.made());
        for check in &self.checks[1..] {
            assert_eq!(check.report(made), Report { received: made, ..Report::default() }, "{told:?}");
        }
        assert!(self.checks[0].report(made).lost > made / 10, "{told:?}");
        told
    }
}

/// A link with a long queue, where packets are too late; and one with a short one, but a limit to what is sent again.
fn half_the_rate() -> [(link::Config, Bandwidth); 2] {
    let (delay, bandwidth) = (DELAY, Some(Bitrate::from_bps(5_000_000)));
    let narrow = |queue| link::Config { delay, bandwidth, queue, ..link::Config::default() };
    [
        (narrow(Duration::from_secs(2)), Bandwidth::Unlimited),
        (narrow(Duration::from_millis(100)), Bandwidth::Max(Bitrate::from_bps(12_000_000))),
    ]
}

#[test]
fn a_caller_who_cannot_keep_up_is_sent_away_and_hurts_nobody() {
    for (narrow, bandwidth) in half_the_rate() {
        let slow_timeout = Duration::from_secs(3);
        let told = Crowd::new(Config { slow_timeout, bandwidth, ..config() }, narrow).run();
        let first = SocketAddr::from(([198, 51, 100, 1], 40_000));
        let Some((Event::PeerLost { peer, why }, again)) = told.split_first() else {
            unreachable!("the slow one is lost: {told:?}")
        };
        assert_eq!((*peer, why.reason), (first, "could not keep up: raise latency or lower the rate"));
        // He was told, and may call again.
        assert_eq!(again, [Event::PeerConnected { peer: first }]);
    }
}

#[test]
fn nobody_is_sent_away_if_that_is_not_wanted() {
    for (narrow, bandwidth) in half_the_rate() {
        let told = Crowd::new(Config { slow_timeout: Duration::ZERO, bandwidth, ..config() }, narrow).run();
        assert_eq!(told, []);
    }
}

/// Two who carry RTP, and the numbers and timestamps that came of it.
struct RtpRig {
    rig: Rig,
    came: Vec<(u64, u32)>,
}

impl RtpRig {
    /// Whoever calls sends.
    fn new(seed: u64, header: HeaderMode) -> Self {
        let mut network = Network::new(seed);
        let pool = network.pool().clone();
        let listener = Listener::new(carrying(), Service::Receive, pool.clone(), [seed as u8 ^ 0x55; 32]);
        let sender = SenderConfig { header, payload_bytes_max: PAYLOAD_MAX - HEADER_BYTES, ..SenderConfig::default() };
        let surroundings = Surroundings { pool, seed, unix_ns_at_zero: 0 };
        let caller = Over::new(caller(seed, carrying()), &sender, &surroundings);
        let listener = Over::new(listener, &SenderConfig::default(), &surroundings);
        let caller = network.add(Node::new(caller).bind(Port::Media, CALLER.into()));
        let listener = network.add(Node::new(listener).bind(Port::Media, LISTENER.into()));
        let mut rig = Self { rig: Rig::between(network, caller, listener), came: Vec::new() };
        rig.loss(0.0);
        rig.idle(Duration::from_secs(1));
        rig
    }

    fn loss(&mut self, share: f64) {
        let loss = Model::Random { share };
        self.rig.links(link::Config { loss, delay: DELAY, ..link::Config::default() });
    }

    fn idle(&mut self, span: Duration) {
        self.rig.now += span;
        self.rig.network.run_until(self.rig.now);
        for Delivery { packet, .. } in self.rig.network.take_packets(self.rig.receiver) {
            self.rig.check.handle(&packet);
            self.came.push((packet.meta.sequence.unwrap(), packet.meta.rtp_timestamp.unwrap()));
        }
        self.rig.collect();
    }

    /// With numbers and timestamps that say how many were made.
    fn send(&mut self, packets: usize) {
        for _ in 0..packets {
            let made = self.rig.numbered.made();
            let mut packet = self.rig.numbered.packet(self.rig.network.pool(), self.rig.now).unwrap();
            packet.meta.sequence = Some(FIRST_NUMBER + made);
            packet.meta.rtp_timestamp = Some(made as u32);
            self.rig.network.send(self.rig.now, self.rig.sender, packet);
            self.idle(PERIOD);
        }
    }

    /// What became of what was made, once it is all there or lost.
    fn finish(&mut self) -> Report {
        self.loss(0.0);
        self.send(TAIL as usize);
        self.idle(Duration::from_secs(2));
        let told = |event: &Event| matches!(event, Event::Restarted { .. } | Event::PeerLost { .. });
        assert!(!self.rig.events.iter().any(told), "{:?}", self.rig.events);
        assert!(self.came.is_sorted(), "{:?}", self.came);
        let Stats { malformed, unexpected, .. } = self.rig.received();
        assert_eq!((malformed, unexpected), (0, 0));
        self.rig.check.report(self.rig.numbered.made())
    }
}

/// 16 bits wrap after some more.
const FIRST_NUMBER: u64 = 65_000;

/// Room for headers, and nothing is cut.
fn carrying() -> Config {
    Config { payload_max: PAYLOAD_MAX, cut: false, ..config() }
}

#[test]
fn rtp_in_srt_keeps_its_numbers_over_loss_and_wrap() {
    for seed in 0..4 {
        for header in [HeaderMode::Keep, HeaderMode::New] {
            let mut rig = RtpRig::new(seed, header);
            // Until the round trip is known, what is lost twice is asked for again too late.
            rig.send(300);
            rig.loss(0.05);
            rig.send(1_200);
            assert_eq!(rig.finish(), whole(1_500), "seed {seed}, {header:?}");
            let (first, first_timestamp) = rig.came[0];
            for (number, (sequence, timestamp)) in rig.came.iter().enumerate() {
                assert_eq!(*sequence, first + number as u64, "seed {seed}, {header:?}");
                let ticks = timestamp.wrapping_sub(first_timestamp);
                let expected = if header == HeaderMode::Keep { number as f64 } else { number as f64 * 94.77 };
                assert!((f64::from(ticks) - expected).abs() <= 1.0, "seed {seed}, {header:?}: {number} at {ticks}");
            }
            let is_kept = (first % 65_536, first_timestamp) == (FIRST_NUMBER, 0);
            assert_eq!(is_kept, header == HeaderMode::Keep, "seed {seed}");
        }
    }
}

#[test]
fn what_srt_loses_is_a_gap_in_the_numbers_of_rtp_and_no_restart() {
    let mut rig = RtpRig::new(3, HeaderMode::Keep);
    rig.send(1_000);
    rig.loss(1.0);
    rig.send(3_900);
    rig.loss(0.0);
    rig.send(1_000);
    let report = rig.finish();
    assert!(report.lost > 2_900, "{report:?}");
    let [first, last] = [rig.came[0].0, rig.came[rig.came.len() - 1].0];
    assert_eq!(last - first + 1, report.received + report.lost);
}

/// Seeds that once lost a packet: it was asked for again as late as the longest path would allow.
#[test]
fn what_gets_lost_before_the_round_trip_is_known_is_asked_for_again_in_time() {
    for seed in [2, 23, 52, 60, 72, 120] {
        for sends in [Sends::Caller, Sends::Listener] {
            let mut rig = Rig::new(seed, sends, caller(seed, config()), config());
            rig.links(link::Config { delay: DELAY, loss: Model::Random { share: 0.05 }, ..link::Config::default() });
            rig.send(400, PERIOD);
            assert_eq!(rig.finish(), whole(400), "seed {seed}, {sends:?} sends");
        }
    }
}
