//! Several sources merged on real sockets: legs that lose packets, lag behind and get cut, and settings that change.

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anabranch::adapters::clock;
use anabranch::bus::{Pool, PoolLimits};
use anabranch::engine::{Cause, EventKind, FailoverMode, FlowConfig, MergeConfig, MergeSnapshot};
use anabranch::path::merge::{LegStats, Mode, RecoveryWindow};
use anabranch::proto::mpegts::{Generator, generator};
use anabranch::proto::rtp::Header;
use anabranch::proto::{Core, Surroundings};
use anabranch::sim::link;
use anabranch::sim::loss::Model;
use anabranch::sim::traffic;
use anabranch::units::{Bitrate, Seq, Time};
use serde_json::{Value, json};

use crate::http::TestServer;
use crate::proxy::Proxy;
use crate::support::{
    Feed, Rig, Sink, TS, V4, excuse_pause, flow, free_port, let_pass, patiently, perfect, url_of, wait_until,
};

/// Three legs, each with 5 % loss of its own, 0, 60 and about 150 ms behind; the third is SRT, which repairs its own.
/// Each is cut for a while, twice. Whatever one of the RTP legs brought comes out, once, in order and as it was sent.
#[test]
fn what_any_leg_brings_comes_out_once_and_in_order() {
    let (rig, carrier, sink) = (Rig::new(), Rig::new(), Sink::keeping(V4));
    let [one, two, three, into] = [(); 4].map(|()| SocketAddr::from((V4, free_port())));
    let after = |ms| link::Config { delay: Duration::from_millis(ms), ..link::Config::default() };
    let paths = [Proxy::two_way(one, 1, after(0)), Proxy::two_way(two, 2, after(60))];
    let lossy = link::Config { loss: Model::Random { share: 0.05 }, ..after(10) };
    let srt = Proxy::two_way(three, 3, lossy);
    let sources = [url_of("rtp", one, ""), url_of("rtp", two, ""), url_of("srt", three, SRT_IN)];
    rig.apply("f", merged(flow(sources, [sink.url()]), RecoveryWindow::Fixed(Duration::from_millis(800))));
    carrier.apply("f", flow([url_of("rtp", into, "")], [url_of("srt", srt.address, SRT_OUT)]));
    rig.wait_event("f", "the connection", |event| matches!(event, EventKind::PeerConnected { .. }));

    let mut feed = MultiFeed::new(&[paths[0].address, paths[1].address, into]);
    let mut random = fastrand::Rng::with_seed(7);
    let (mut passed, mut brought) = ([0_u64; 2], BTreeSet::new());
    let mut due = clock::now();
    for number in 0..PACKETS {
        let cut = is_cut(number);
        if is_cut(number.wrapping_sub(1)) != cut {
            let loss = if cut == Some(2) { Model::Random { share: 1.0 } } else { lossy.loss };
            srt.set_both(link::Config { loss, ..lossy });
        }
        let passes = [0, 1].map(|leg| cut != Some(leg) && random.f64() >= 0.05);
        for leg in 0..2 {
            passed[leg] += u64::from(passes[leg]);
        }
        if passes[0] || passes[1] {
            brought.insert(number);
        }
        feed.send(&[passes[0], passes[1], true]);
        due = (due + Duration::from_millis(1)).max(clock::now());
        while clock::now() < due {
            std::thread::park_timeout(due.since(clock::now()));
        }
    }
    wait_until("the last packet", || {
        let last = *brought.last().unwrap();
        sink.kept().last().and_then(|packet| traffic::number(packet)).is_some_and(|number| number >= last)
    });

    let came: Vec<u64> = sink.kept().iter().map(|packet| traffic::number(packet).expect("as it was sent")).collect();
    assert!(came.windows(2).all(|pair| pair[0] < pair[1]), "in order, each once");
    let came: BTreeSet<u64> = came.into_iter().collect();
    let missing: Vec<&u64> = brought.difference(&came).collect();
    assert!(missing.is_empty(), "{missing:?} of {}", brought.len());
    let by_srt_alone = came.difference(&brought).count() as u64;
    assert!(by_srt_alone > 0, "what both others lost");
    check_figures(&rig.snapshot("f").merge.unwrap(), passed, came.len() as u64);
    for name in ["s1", "s2", "s3"] {
        let source = || name.parse().unwrap();
        rig.wait_event("f", "a lost leg", |event| *event == EventKind::LegLost { source: source() });
        rig.wait_event("f", "its return", |event| *event == EventKind::LegRecovered { source: source() });
    }
    let events = rig.events("f");
    assert!(!events.iter().any(|event| matches!(event, EventKind::MergeError { .. })), "{events:?}");
    let begins = events.iter().filter(|event| matches!(event, EventKind::SourceActive { .. })).count();
    assert_eq!(begins, 1, "it never starts over: {events:?}");
    eprintln!("{} of {PACKETS} came, {} by RTP, {by_srt_alone} by SRT alone", came.len(), brought.len());
}

fn check_figures(merge: &MergeSnapshot, passed: [u64; 2], came: u64) {
    assert_eq!(merge.stats.released, came);
    assert_eq!((merge.stats.overflow, merge.stats.forced, merge.stats.restarts), (0, 0, 0), "{:?}", merge.stats);
    let legs: Vec<&LegStats> = merge.legs.iter().map(|(_, leg)| leg).collect();
    assert_eq!([legs[0].received, legs[1].received], passed, "{merge:?}");
    assert!(legs.iter().all(|leg| leg.is_merged && leg.first > 0 && leg.lost > 0), "{merge:?}");
    // The first leg is ahead of the others by more than any gap is long: it fills none, and brings no copies.
    assert!(legs[1..].iter().all(|leg| leg.filled > 0 && leg.duplicate > 0), "{merge:?}");
    assert!(legs.iter().all(|leg| leg.mismatched + leg.unnumbered + leg.unexpected == 0), "{merge:?}");
    assert!(legs[0].first > legs[1].first && legs[1].first > legs[2].first, "the fastest comes first: {merge:?}");
    let skew = |leg: &LegStats| leg.advised_window.unwrap();
    assert!(skew(legs[1]) >= Duration::from_millis(60) && skew(legs[2]) >= Duration::from_millis(110), "{merge:?}");
}

/// One RTP sender whose packets come by RTP, by RIST and by SRT, each with 5 % loss of its own; one way after the other is
/// cut. Every packet comes out, once, in order and as it was sent.
#[test]
fn rtp_rist_and_srt_together_lose_nothing() {
    patiently(three_protocols);
}

fn three_protocols() {
    let (rig, carrier, sink) = (Rig::new(), Rig::new(), Sink::new(V4));
    let [one, two, three, into_rist, into_srt] = [(); 5].map(|()| SocketAddr::from((V4, free_port())));
    let good = link::Config { delay: Duration::from_millis(10), ..link::Config::default() };
    let paths = [Proxy::two_way(one, 1, good), Proxy::new(two, 2, good.delay), Proxy::two_way(three, 3, good)];
    let [rtp, rist, srt] = paths.each_ref().map(|path| path.address);
    let sources = [url_of("rtp", one, ""), url_of("rist", two, RIST), url_of("srt", three, SRT_IN)];
    let sources = sources.map(|url| url.replace("rist://", "rist://@"));
    rig.apply("f", merged(flow(sources, [sink.url()]), RecoveryWindow::Fixed(Duration::from_millis(800))));
    let rist = url_of("rist", rist, &format!("{RIST}&header=keep"));
    carrier.apply("by rist", flow([url_of("rtp", into_rist, "")], [rist]));
    carrier.apply("by srt", flow([url_of("rtp", into_srt, "")], [url_of("srt", srt, SRT_OUT)]));
    wait_until("both connections", || {
        let connected = |event: &&EventKind| matches!(event, EventKind::PeerConnected { .. });
        rig.events("f").iter().filter(connected).count() == 2
    });

    let mut feed = MultiFeed::new(&[rtp, into_rist, into_srt]);
    let lossy = |share| link::Config { loss: Model::Random { share }, ..good };
    let mut due = clock::now();
    for number in 0..3 * TURN + TAIL {
        // Nobody misses what is lost at the very beginning or end.
        let (turn, step) = ((number / TURN) as usize, number % TURN);
        match (turn, step) {
            (0, TAIL) => paths.iter().for_each(|path| path.set_both(lossy(0.05))),
            (3, 0) => paths.iter().for_each(|path| path.set_both(good)),
            (..3, CUT_FROM) => paths[turn].set_both(lossy(1.0)),
            (..3, CUT_UNTIL) => paths[turn].set_both(lossy(0.05)),
            _ => {}
        }
        feed.send(&[true; 3]);
        due = (due + Duration::from_millis(1)).max(clock::now());
        while clock::now() < due {
            std::thread::park_timeout(due.since(clock::now()));
        }
    }
    wait_until("the last packet", || sink.range_from(0).0 == Some(feed.made() - 1));
    // What the fastest leg lost is waited for until the slowest brings it.
    excuse_pause(sink.take_longest_pause(), Duration::from_millis(500));
    assert_eq!(sink.report(feed.made()), perfect(feed.made()));
    let merge = rig.snapshot("f").merge.unwrap();
    assert_eq!((merge.stats.lost, merge.stats.restarts, merge.stats.forced), (0, 0, 0), "{merge:?}");
    assert!(merge.legs.iter().all(|(_, leg)| leg.is_merged && leg.mismatched + leg.unnumbered == 0), "{merge:?}");
    // Fastest to slowest; what the slowest could fill, a faster one mostly has.
    assert!(merge.legs[0].1.first > merge.legs[1].1.first && merge.legs[2].1.filled > 0, "{merge:?}");
    let recovered = |name: &str| rig.source("f", name).recovered;
    assert!(recovered("s2") > TURN / 40 && recovered("s3") > TURN / 40, "{:?}", rig.snapshot("f"));
    for name in ["s1", "s2", "s3"] {
        let source = || name.parse().unwrap();
        rig.wait_event("f", "a lost leg", |event| *event == EventKind::LegLost { source: source() });
        rig.wait_event("f", "its return", |event| *event == EventKind::LegRecovered { source: source() });
    }
}

/// Failover, merging in every way, and back, while packets flow: none is lost, and none comes twice.
#[test]
fn settings_change_while_packets_flow() {
    let (rig, sink) = (Rig::new(), Sink::new(V4));
    let legs = [(); 2].map(|()| SocketAddr::from((V4, free_port())));
    let plain = flow(legs.map(|leg| url_of("rtp", leg, "")), [sink.url()]);
    let ms = |ms| RecoveryWindow::Fixed(Duration::from_millis(ms));
    let mut aligned = merged(plain.clone(), ms(50));
    let align = MergeConfig { recovery_window: ms(50), release: Mode::Align };
    aligned.failover.mode = FailoverMode::Merge(align);
    let all = [plain.clone(), merged(plain.clone(), ms(100)), merged(plain.clone(), ms(40)), aligned];
    let mut feed = MultiFeed::new(&legs);
    for config in all.into_iter().chain([merged(plain.clone(), RecoveryWindow::Auto), plain]) {
        let is_merged = config.failover.mode != FailoverMode::Failover;
        rig.apply("f", config);
        for _ in 0..300 {
            feed.send(&[true, true]);
            sink.wait(feed.made());
        }
        wait_until("both", || rig.snapshot("f").sources.iter().all(|source| source.packets == feed.made()));
        let snapshot = rig.snapshot("f");
        assert_eq!(snapshot.merge.as_ref().is_some_and(MergeSnapshot::is_active), is_merged);
        assert!(snapshot.sources.iter().all(|source| source.merged == is_merged));
        assert_eq!(snapshot.active_source.map(|name| name.to_string()), Some("s1".into()));
    }
    sink.assert_perfect(feed.made());
    assert_eq!(rig.output("f", "o1").disconnections, 0);
}

/// From failover to merging and back while one path is 40 ms behind the other, whichever is the first: no packet is lost, and
/// none comes twice.
#[test]
fn merging_is_switched_on_and_off_between_two_packets() {
    for slow in [0, 1] {
        let (rig, sink) = (Rig::new(), Sink::new(V4));
        let legs = [(); 2].map(|()| SocketAddr::from((V4, free_port())));
        let delay = Duration::from_millis(40);
        let path = Proxy::two_way(legs[slow], 9, link::Config { delay, ..link::Config::default() });
        let plain = flow(legs.map(|leg| url_of("rtp", leg, "")), [sink.url()]);
        let merging = merged(plain.clone(), RecoveryWindow::Fixed(Duration::from_millis(200)));
        let mut targets = legs;
        targets[slow] = path.address;
        let mut feed = MultiFeed::new(&targets);
        let mut send = |count, to: [bool; 2]| {
            for _ in 0..count {
                feed.send(&to);
                let_pass(Duration::from_millis(1));
            }
            feed.made()
        };
        rig.apply("f", plain.clone());
        // The primary first: it would take over from the other one with what that had brought already.
        send(100, [true, false]);
        rig.wait_event("f", "the first source", |event| matches!(event, EventKind::SourceActive { .. }));
        send(100, [true, true]);
        for _ in 0..3 {
            rig.apply("f", merging.clone());
            send(200, [true, true]);
            assert!(rig.snapshot("f").merge.is_some_and(|merge| merge.is_active()));
            rig.apply("f", plain.clone());
            send(200, [true, true]);
        }
        let made = send(100, [true, true]);
        sink.assert_perfect(made);
    }
}

/// A leg comes while the flow runs, is alone after the other left, and is alone from the beginning.
#[test]
fn legs_come_and_go() {
    let (rig, sink) = (Rig::new(), Sink::new(V4));
    let legs = [(); 2].map(|()| SocketAddr::from((V4, free_port())));
    let both = flow(legs.map(|leg| url_of("rtp", leg, "")), [sink.url()]);
    let both = merged(both, RecoveryWindow::Fixed(Duration::from_millis(100)));
    let only = |index: usize| FlowConfig { sources: vec![both.sources[index].clone()], ..both.clone() };
    let mut feed = MultiFeed::new(&legs);
    for (config, to, is_active) in [
        (only(0), [true, false], false),
        (both.clone(), [true, true], true),
        (only(1), [false, true], false),
        (both.clone(), [true, true], true),
    ] {
        rig.apply("f", config);
        for _ in 0..300 {
            feed.send(&to);
            sink.wait(feed.made());
        }
        wait_until("the figures", || rig.snapshot("f").merge.unwrap().is_active() == is_active);
    }
    sink.assert_perfect(feed.made());
}

/// The sender starts over, with another SSRC and then with other numbers only: every packet comes out once, the legs are merged
/// again, and what is released goes on.
#[test]
fn a_sender_that_starts_over_on_all_legs_is_followed() {
    for other_ssrc in [true, false] {
        let (rig, sink) = (Rig::new(), Sink::keeping(V4));
        let legs = [(); 2].map(|()| SocketAddr::from((V4, free_port())));
        let config = flow(legs.map(|leg| url_of("rtp", leg, "")), [sink.url()]);
        rig.apply("f", merged(config, RecoveryWindow::Fixed(Duration::from_millis(100))));
        let mut feed = MultiFeed::new(&legs);
        for _ in 0..300 {
            feed.send(&[true, true]);
            sink.wait(feed.made());
        }
        if other_ssrc {
            feed.ssrc += 1;
        }
        feed.sequence = 30_000;
        for number in 0..600 {
            // Each leg has losses of its own again.
            feed.send(&[number % 10 != 5, number % 10 != 7]);
            let_pass(Duration::from_millis(1));
        }
        wait_until("the last packet", || sink.kept().last().and_then(|packet| traffic::number(packet)) == Some(899));
        wait_until("both merged", || rig.snapshot("f").merge.unwrap().is_active());
        let numbers: Vec<u64> = sink.kept().iter().filter_map(|packet| traffic::number(packet)).collect();
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "in order, each once");
        let missing = (0..900).filter(|number| !numbers.contains(number)).count();
        let merge = rig.snapshot("f").merge.unwrap();
        eprintln!("another SSRC: {other_ssrc}, {missing} missing, {:?}", merge.stats);
        assert_eq!(missing, 0, "{merge:?}");
        assert_eq!(merge.stats.restarts, 1, "{merge:?}");
        let restarted = rig.events("f").iter().any(|event| matches!(event, EventKind::SourceRestarted { .. }));
        assert!(restarted, "a jump of the numbers is one, too");
        assert!(!rig.events("f").iter().any(|event| matches!(event, EventKind::MergeError { .. })));
    }
}

/// Silence on one leg is that leg's; silence on all is the end, told once, and over when packets come again.
#[test]
fn the_end_of_all_legs_is_told() {
    let (rig, sink) = (Rig::new(), Sink::new(V4));
    let legs = [(); 2].map(|()| SocketAddr::from((V4, free_port())));
    let mut config = flow(legs.map(|leg| url_of("rtp", leg, "")), [sink.url()]);
    config.failover.health_timeout = Duration::from_millis(300);
    rig.apply("f", merged(config, RecoveryWindow::Fixed(Duration::from_millis(50))));
    let mut feed = MultiFeed::new(&legs);
    let is_end = |event: &EventKind| *event == EventKind::MergeEof;
    let mut send = |count, to: [bool; 2]| {
        for _ in 0..count {
            feed.send(&to);
            sink.wait(feed.made());
            let_pass(Duration::from_millis(1));
        }
    };
    send(50, [true, true]);
    send(500, [true, false]);
    rig.wait_event("f", "one leg", |event| matches!(event, EventKind::LegLost { .. }));
    assert!(!rig.events("f").iter().any(is_end));
    rig.wait_event("f", "the end", is_end);
    let_pass(Duration::from_millis(400));
    send(50, [true, true]);
    rig.wait_event("f", "its return", |event| matches!(event, EventKind::LegRecovered { .. }));
    assert_eq!(rig.events("f").iter().filter(|event| is_end(event)).count(), 1);
    assert_eq!(EventKind::MergeEof.to_string(), "no merged source delivers any more");
}

#[test]
fn what_has_no_sequence_is_not_merged() {
    let rig = Rig::new();
    let plain = flow([url_of("rtp", (V4, free_port()).into(), ""), "test:".into()], [] as [&str; 0]);
    let error = rig.try_apply("f", merged(plain, RecoveryWindow::Auto)).unwrap_err();
    assert_eq!(error.cause, Cause::NoSequence { name: "s2".into(), fix: "use rtp or rtp-fec" });
}

#[test]
fn flows_are_merged_over_http() {
    let directory = tempfile::tempdir().unwrap();
    let server = TestServer::start(TestServer::settings(directory.path()));
    let sink = Sink::new(V4);
    let legs = [(); 2].map(|()| SocketAddr::from((V4, free_port())));
    let source = |name: &str, leg: SocketAddr, protocol: &str| json!({ "name": name, "protocol": protocol, "ingest_ip": "127.0.0.1", "ingest_port": leg.port() });
    let mut wanted = json!({
        "name": "news",
        "sources": [source("a", legs[0], "rtp"), source("b", legs[1], "udp")],
        "outputs": [{ "name": "one", "url": sink.url() }],
        "source_failover_config": { "failover_mode": "MERGE", "recovery_window": 150 },
    });
    let answer = server.post("/v1/flows", &wanted);
    let field = "source_failover_config.failover_mode".to_string();
    assert_eq!(answer.refusal(), (400, "invalid_value".into(), field));
    assert!(answer.json()["error"].as_str().is_some_and(|text| text.contains("source b")), "{answer:?}");
    wanted["sources"][1] = source("b", legs[1], "rtp");
    let created = server.post("/v1/flows", &wanted);
    assert_eq!(created.status, 201, "{created:?}");
    let failover = &created.json()["source_failover_config"];
    assert_eq!((&failover["failover_mode"], &failover["recovery_window"]), (&json!("MERGE"), &json!(150)));
    let path = format!("/v1/flows/{}", created.json()["id"].as_str().unwrap());
    assert_eq!(server.post(&format!("{path}/start"), &json!({})).status, 200);

    let mut feed = MultiFeed::new(&legs);
    for number in 0..200 {
        feed.send(&[number % 10 != 5, true]);
        sink.wait(feed.made());
    }
    let metrics = || server.get(&format!("{path}/metrics")).json();
    wait_until("all copies", || metrics()["merge_stats"]["source_a_packets"] == 180);
    let found = metrics();
    assert_eq!((&found["merge_active"], &found["active_source"]), (&json!(true), &json!("a")), "{found}");
    let stats = &found["merge_stats"];
    assert_eq!(figures(stats, ["source_b_packets", "output_packets", "missing_packets"]), [200, 200, 0], "{stats}");
    assert_eq!(stats["recovery_window_ms"], 150.0);
    assert_eq!(figures(&stats["legs"][0]["packets"], ["received", "lost", "mismatched"]), [180, 20, 0], "{stats}");
    let skew = &stats["legs"][1]["skew"];
    let counts: Vec<u64> = skew["counts"].as_array().unwrap().iter().filter_map(Value::as_u64).collect();
    assert_eq!(counts.iter().sum::<u64>(), 200, "{skew}");
    assert_eq!(skew["up_to_ms"].as_array().unwrap().len(), counts.len());
    let prometheus = server.get("/metrics").body;
    assert!(prometheus.contains("anabranch_merge_output_packets_total"), "{prometheus}");
    let events = server.get(&format!("{path}/events")).json();
    let merged = |event: &Value| event["type"] == "merge_started" && event["severity"] == "info";
    assert!(events["events"].as_array().unwrap().iter().any(merged), "{events}");
    wanted["source_failover_config"] = json!({ "failover_mode": "MERGE", "recovery_window": "auto", "align": true });
    let changed = server.put(&path, &wanted);
    assert_eq!(changed.status, 200, "{changed:?}");
    let failover = &changed.json()["source_failover_config"];
    assert_eq!((&failover["recovery_window"], &failover["align"]), (&json!("auto"), &json!(true)));
    for _ in 0..100 {
        feed.send(&[true, true]);
        let_pass(Duration::from_millis(1));
    }
    wait_until("all of them", || metrics()["merge_stats"]["output_packets"] == 100);
    sink.assert_perfect(300);
}

fn figures<const N: usize>(of: &Value, names: [&str; N]) -> [u64; N] {
    names.map(|name| of[name].as_u64().unwrap_or(u64::MAX))
}

/// What one leg lost is wrong in that leg and not in what comes of both; what both lost is wrong there, too.
#[test]
fn what_legs_are_merged_into_is_analysed_as_well() {
    let directory = tempfile::tempdir().unwrap();
    let server = TestServer::start(TestServer::settings(directory.path()));
    let ports = [free_port(), free_port()];
    let sources =
        [0, 1].map(|leg| json!({ "name": format!("s{leg}"), "url": format!("rtp://127.0.0.1:{}", ports[leg]) }));
    let flow = json!({
        "name": "merged", "sources": sources,
        "source_failover_config": { "failover_mode": "MERGE", "recovery_window": 200 },
        "source_monitor_config": { "ts_analysis_enabled": true },
    });
    let created = server.post("/v1/flows", &flow);
    assert_eq!(created.status, 201, "{created:?}");
    let path = format!("/v1/flows/{}", created.json()["id"].as_str().unwrap());
    assert_eq!(server.post(&format!("{path}/start"), &json!({})).status, 200);

    let pool = Pool::new(PoolLimits::default());
    let surroundings = Surroundings { pool, seed: 0, unix_ns_at_zero: 0 };
    let mut signal = Generator::new(generator::Config::new(Bitrate::from_bps(2_000_000), 7).unwrap(), &surroundings);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let start = clock::now();
    let mut number = 0_u16;
    let mut play_until = |lost: [u16; 2], done: &dyn Fn(&Value) -> bool| {
        let begin = clock::now();
        let before = number;
        loop {
            let now = clock::now();
            signal.handle_timeout(Time::ZERO + now.since(start));
            while let Some(packet) = signal.poll_packet() {
                let mut datagram = vec![0x80, 33];
                datagram.extend(number.to_be_bytes());
                datagram.extend((u32::from(number) * 474).to_be_bytes());
                datagram.extend([0, 0, 0, 7]);
                datagram.extend_from_slice(&packet);
                for leg in 0..2 {
                    if number != before.wrapping_add(lost[leg]) {
                        socket.send_to(&datagram, ("127.0.0.1", ports[leg])).unwrap();
                    }
                }
                number = number.wrapping_add(1);
            }
            let metrics = server.get(&format!("{path}/metrics")).json();
            if done(&metrics) {
                return;
            }
            assert!(now.since(begin) < Duration::from_secs(30), "{metrics}");
            std::thread::park_timeout(Duration::from_millis(20));
        }
    };
    let errors = |metrics: &Value| {
        let of = |ts: &Value| ts["tr_101_290"]["continuity_count_error"]["errors"].as_u64();
        let legs = [0, 1].map(|leg| of(&metrics["source_metrics"][leg]["ts"]));
        (legs, of(&metrics["merge_stats"]["ts"]))
    };
    let is_wrong = |legs: &[Option<u64>]| legs.iter().all(|errors| *errors > Some(0));
    // Each loses one of its own.
    play_until([100, 150], &|metrics| {
        let (legs, both) = errors(metrics);
        is_wrong(&legs) && both == Some(0) && number_of(metrics) > 2_000
    });
    play_until([50, 50], &|metrics| errors(metrics).1 > Some(0));
}

fn number_of(metrics: &Value) -> u64 {
    metrics["merge_stats"]["ts"]["packets"].as_u64().unwrap_or(0)
}

fn merged(mut config: FlowConfig, recovery_window: RecoveryWindow) -> FlowConfig {
    config.failover.mode = FailoverMode::Merge(MergeConfig { recovery_window, ..MergeConfig::default() });
    config
}

/// The leg that is cut while packet `number` is sent.
fn is_cut(number: u64) -> Option<usize> {
    (number % CUT_EVERY >= CUT_AFTER).then_some((number / CUT_EVERY % 3) as usize)
}

/// Sends the same numbered RTP packets to several targets; the sequence wraps soon.
struct MultiFeed {
    payload: Feed,
    socket: UdpSocket,
    targets: Vec<SocketAddr>,
    ssrc: u32,
    sequence: u32,
}

impl MultiFeed {
    fn new(targets: &[SocketAddr]) -> Self {
        let socket = UdpSocket::bind((V4, 0)).unwrap();
        Self { payload: Feed::new(targets[0], TS), socket, targets: targets.to_vec(), ssrc: 5, sequence: 65_000 }
    }

    fn made(&self) -> u64 {
        self.payload.made()
    }

    /// The next packet, to the targets that are to have it.
    fn send(&mut self, to: &[bool]) {
        let (sequence, ssrc) = (self.sequence, self.ssrc);
        self.sequence += 1;
        let timestamp = sequence.wrapping_mul(90);
        let header = Header { marker: false, payload_type: 33, sequence: Seq::new(sequence), timestamp, ssrc };
        let datagram = [&header.to_bytes()[..], &self.payload.next()].concat();
        for (target, _) in self.targets.iter().zip(to).filter(|(_, to)| **to) {
            self.socket.send_to(&datagram, target).unwrap();
        }
    }
}

/// 15 s of 10.5 Mb/s.
const PACKETS: u64 = 15_000;
/// One leg after the other is cut for 1.2 s, 1.3 s after the one before is back.
const CUT_EVERY: u64 = 2_500;
const CUT_AFTER: u64 = 1_300;
/// Packets of each leg's turn in the other test, and where in it the leg is cut: for a second.
const TURN: u64 = 1_800;
const CUT_FROM: u64 = 500;
const CUT_UNTIL: u64 = 1_500;
const TAIL: u64 = 300;
const RIST: &str = "profile=simple&buffer=400";
const SRT_IN: &str = "mode=listener&latency=120&payload=rtp";
const SRT_OUT: &str = "mode=caller&latency=120&payload=rtp&header=keep";
