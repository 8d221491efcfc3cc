//! RTP outputs of several legs (SMPTE ST 2022-7) on real sockets: what one leg loses, breaks or refuses is its own affair.

use std::net::SocketAddr;
use std::time::Duration;

use anabranch::engine::{EventKind, FailoverMode, LegSnapshot, MergeConfig, OutputStatus};
use anabranch::path::merge::RecoveryWindow;
use anabranch::proto::rtp::RtpPacket;
use anabranch::sim::link;
use anabranch::sim::loss::Model;
use anabranch::sim::traffic;
use serde_json::{Value, json};

use crate::cli::Cli;
use crate::http::TestServer;
use crate::proxy::Proxy;
use crate::support::{
    Feed, Rig, Sink, TS, V4, flow, free_block, free_port, let_pass, output, roomy, udp, url_of, wait_for, wait_until,
};

/// Three legs through bad networks, 0, 30 and 60 ms long, each with 1.5 % loss of its own, bursts included: the merger has
/// everything, and each leg's own receiver reports that leg's loss.
#[test]
fn the_merger_has_what_three_lossy_legs_bring() {
    let (sender, receiver, sink) = (Rig::new(), Rig::new(), Sink::new(V4));
    let from = SocketAddr::from((V4, free_port()));
    let into = [(); 3].map(|()| SocketAddr::from((V4, free_port())));
    let proxies = [0, 1, 2].map(|leg| Proxy::new(into[leg], 40 + leg as u64, Duration::from_millis(30 * leg as u64)));
    let mut merging = flow(into.map(|leg| url_of("rtp", leg, "")), [sink.url()]);
    let recovery_window = RecoveryWindow::Fixed(Duration::from_millis(400));
    merging.failover.mode = FailoverMode::Merge(MergeConfig { recovery_window, ..MergeConfig::default() });
    receiver.apply("merge", merging);
    sender.apply("send", flow([udp(from)], [legs_url(&proxies.each_ref().map(|proxy| proxy.address), "")]));
    let feed = Feed::new(from, TS);
    // The first packets are clean, so that all legs are merged before it gets hard.
    let feed = feed.run_until(Duration::from_micros(800), 300);
    for (leg, proxy) in proxies.iter().enumerate() {
        let delay = Duration::from_millis(30 * leg as u64);
        proxy.set_media(link::Config { delay, loss: Model::bursts(0.015, 3.0), ..link::Config::default() });
    }
    let feed = feed.run_until(Duration::from_micros(800), 6_000);
    proxies.iter().for_each(|proxy| proxy.set_media(link::Config::default()));
    let feed = feed.run_until(Duration::from_micros(800), 6_300);
    sink.assert_perfect(feed.made());

    let merge = receiver.snapshot("merge").merge.unwrap();
    assert_eq!((merge.stats.lost, merge.stats.late, merge.stats.restarts), (0, 0, 0), "{merge:?}");
    let lost = proxies.each_ref().map(|proxy| proxy.media().lost);
    assert!(lost.iter().all(|lost| *lost > 30), "{lost:?}");
    let legs = || sender.output("send", "o1").legs;
    wait_until("reports of every leg", || legs().iter().all(|leg| leg.peer_loss.is_some() && leg.round_trip.is_some()));
    let round_trips: Vec<Duration> = legs().iter().filter_map(|leg| leg.round_trip).collect();
    assert!(round_trips[2] >= Duration::from_millis(100), "each leg has its own: {round_trips:?}");
    assert!(round_trips[0] < round_trips[2], "{round_trips:?}");
    for leg in legs() {
        assert_eq!((leg.status, leg.packets, leg.disconnections), (OutputStatus::Connected, 6_300, 0), "{leg:?}");
    }
    assert_eq!(sender.output("send", "o1").packets, 6_300, "each once, however many legs");
    eprintln!("lost on the legs {lost:?}, in the end 0 of 6300");
}

/// The same bytes on every leg, FEC and reports included, from sockets of their own.
#[test]
fn every_leg_carries_the_same_bytes() {
    let rig = Rig::new();
    let from = SocketAddr::from((V4, free_port()));
    let bases = [(); 3].map(|()| SocketAddr::from((V4, free_block(3))));
    let at = |base: SocketAddr, distance: u16| Sink::keeping_on(roomy((base.ip(), base.port() + distance).into()));
    let sinks = bases.map(|base| [0, 1, 2, 4].map(|distance| at(base, distance)));
    rig.apply("f", flow([udp(from)], [legs_url(&bases, "fec=2022-1&l=5&d=5&rows=1&ttl=9")]));
    let mut feed = Feed::new(from, TS);
    let media: Vec<&Sink> = sinks.iter().map(|leg| &leg[0]).collect();
    feed.send_to_all(500, &media);
    rig.stop("f");
    for port in 0..4 {
        let count = [500, 2, 100, 100][port];
        let first = wait_for("the first leg", || Some(sinks[0][port].kept()).filter(|kept| kept.len() >= count));
        for leg in &sinks[1..] {
            leg[port].wait(first.len() as u64);
            assert!(leg[port].kept() == first, "port {port} differs");
        }
    }
    let numbers: Vec<u64> = sinks[2][0].kept().iter().filter_map(|datagram| traffic::number(&datagram[12..])).collect();
    assert_eq!(numbers, (0..500).collect::<Vec<u64>>());
}

/// Nobody listens on one leg: the others do not notice it, it is told with its reason, and told when somebody does.
#[test]
fn a_refused_leg_harms_nobody_and_comes_back() {
    let (rig, sinks) = (Rig::new(), [Sink::keeping(V4), Sink::keeping(V4)]);
    let (from, dead) = (SocketAddr::from((V4, free_port())), SocketAddr::from((V4, free_port())));
    rig.apply("f", flow([udp(from)], [legs_url(&[sinks[0].address, dead, sinks[1].address], "")]));
    let mut feed = Feed::new(from, TS);
    feed.send_to_all(1_000, &[&sinks[0], &sinks[1]]);
    assert!(sinks[0].kept() == sinks[1].kept());
    let failed = rig.wait_event("f", "the refusal", |event| matches!(event, EventKind::OutputLegError { .. }));
    let expected = format!("output o1, leg {dead}: the destination answers that nobody listens on this port");
    assert_eq!(failed.to_string(), expected);
    wait_until("the figures", || rig.output("f", "o1").packets == 1_000);
    let output = rig.output("f", "o1");
    assert_eq!((output.status, output.packets, output.disconnections), (OutputStatus::Connected, 1_000, 0));
    let [one, two, three] = <[LegSnapshot; 3]>::try_from(output.legs).unwrap();
    assert_eq!([&one, &two, &three].map(|leg| leg.status == OutputStatus::Connected), [true, false, true]);
    assert!(two.drops.refused > 0 && two.packets + two.drops.refused >= 1_000, "{two:?}");
    assert_eq!((one.packets, one.drops, three.packets, three.drops), (1_000, output.drops, 1_000, output.drops));

    let late = Sink::keeping_on(roomy(dead));
    wait_until("the leg's recovery", || {
        feed.send_to_all(1, &[&sinks[0], &sinks[1]]);
        rig.events("f").iter().any(|event| matches!(event, EventKind::OutputLegRecovered { .. }))
    });
    assert!(late.count() > 0);
    let made = feed.made() as usize;
    assert!([&sinks[0], &sinks[1]].iter().all(|sink| sink.kept().len() == made));
    let all_failed = rig.events("f").iter().any(|event| matches!(event, EventKind::OutputError { .. }));
    assert!(!all_failed, "two legs worked all the time");
}

/// Only when no leg works is the output in error.
#[test]
fn an_output_is_in_error_when_every_leg_is() {
    let rig = Rig::new();
    let from = SocketAddr::from((V4, free_port()));
    let dead = [(); 2].map(|()| SocketAddr::from((V4, free_port())));
    rig.apply("f", flow([udp(from)], [legs_url(&dead, "")]));
    let mut feed = Feed::new(from, TS);
    wait_until("the end of both", || {
        feed.send();
        let_pass(Duration::from_millis(1));
        rig.output("f", "o1").status == OutputStatus::Error
    });
    let told = rig.wait_event("f", "the error", |event| matches!(event, EventKind::OutputError { .. }));
    assert_eq!(told.to_string(), "output o1: no leg can be sent on");
    let sink = Sink::keeping_on(roomy(dead[1]));
    wait_until("one of them", || {
        feed.send();
        let_pass(Duration::from_millis(1));
        rig.output("f", "o1").status == OutputStatus::Connected
    });
    rig.wait_event("f", "the recovery", |event| matches!(event, EventKind::OutputRecovered { .. }));
    assert!(sink.count() > 0);
}

/// Legs are added, moved and taken away while packets flow: those that stay lose and repeat nothing, and the stream goes
/// on with its SSRC and numbers.
#[test]
fn legs_change_while_packets_flow() {
    let (rig, stays, others) =
        (Rig::new(), Sink::keeping(V4), [Sink::keeping(V4), Sink::keeping(V4), Sink::keeping(V4)]);
    let from = SocketAddr::from((V4, free_port()));
    let [a, b, c] = others.each_ref().map(|sink| sink.address);
    let mut feed = Feed::new(from, TS);
    let here = stays.address;
    for (legs, alive) in [
        (vec![here, a], vec![0]),
        (vec![here, a, b], vec![0, 1]),
        (vec![c, here], vec![2]),
        (vec![here, c, a], vec![0, 2]),
        (vec![b, a, here], vec![0, 1]),
    ] {
        rig.apply("f", flow([udp(from)], [legs_url(&legs, "")]));
        let mut sinks: Vec<&Sink> = alive.iter().map(|at: &usize| &others[*at]).collect();
        sinks.push(&stays);
        feed.send_to_all(200, &sinks);
        let names: Vec<String> = rig.output("f", "o1").legs.iter().map(|leg| leg.leg.clone()).collect();
        assert_eq!(names, legs.iter().map(ToString::to_string).collect::<Vec<_>>());
    }
    let kept = stays.kept();
    let packets: Vec<RtpPacket<'_>> = kept.iter().map(|datagram| RtpPacket::parse(datagram).unwrap()).collect();
    let numbers: Vec<u64> = packets.iter().filter_map(|packet| traffic::number(packet.payload())).collect();
    assert_eq!(numbers, (0..1_000).collect::<Vec<u64>>());
    for pair in packets.windows(2) {
        assert_eq!(pair[1].header.ssrc, pair[0].header.ssrc);
        assert_eq!(pair[1].header.sequence, pair[0].header.sequence.add(1));
    }
    wait_until("the figures", || rig.output("f", "o1").packets == 1_000);
}

/// A leg that cannot be opened is refused where somebody waits for the answer, and tried again where nobody does.
#[test]
fn a_leg_without_interface_is_told_and_harms_nobody() {
    let (rig, sink) = (Rig::new(), Sink::keeping(V4));
    let from = SocketAddr::from((V4, free_port()));
    let url = url_of("rtp", sink.address, "leg=10.0.0.1:5004@nosuch0");
    let error = rig.try_apply("f", flow([udp(from)], [&url])).unwrap_err().to_string();
    assert!(error.contains("there is no interface nosuch0"), "{error}");
    rig.apply_leniently("f", flow([udp(from)], [&url]));
    let mut feed = Feed::new(from, TS);
    feed.send_to_all(100, &[&sink]);
    rig.wait_event("f", "the reason", |event| {
        matches!(event, EventKind::OutputLegError { leg, error, .. }
            if leg == "10.0.0.1:5004@nosuch0" && error.contains("no interface nosuch0"))
    });
    wait_until("the figures", || {
        let legs = rig.output("f", "o1").legs;
        (legs[0].packets, legs[1].drops.unreachable) == (100, 100)
    });
    // On a running output it is the same.
    let moved = flow([udp(from)], [url_of("rtp", sink.address, "leg=10.0.0.1:5004@nosuch1")]);
    let error = rig.try_apply("f", moved).unwrap_err();
    assert_eq!(error.field.to_string(), "outputs[0]");
    feed.send_to_all(100, &[&sink]);
}

#[test]
fn an_output_of_several_legs_over_http() {
    let directory = tempfile::tempdir().unwrap();
    let server = TestServer::start(TestServer::settings(directory.path()));
    let (sinks, from) = ([Sink::keeping(V4), Sink::keeping(V4)], SocketAddr::from((V4, free_port())));
    let legs = sinks.each_ref().map(|sink| sink.address.to_string());
    let wanted =
        |output: Value| json!({ "name": "news", "sources": [{ "name": "a", "url": udp(from) }], "outputs": [output] });
    for (output, field) in [
        (json!({ "name": "n", "protocol": "rtp", "legs": ["10.0.0.1:5004"] }), "outputs[0].legs"),
        (json!({ "name": "n", "protocol": "rtp", "legs": [legs[0], legs[0]] }), "outputs[0].legs[1]"),
        (json!({ "name": "n", "protocol": "rtp", "legs": legs, "port": 5004 }), "outputs[0].port"),
        (json!({ "name": "n", "url": "rtp://10.0.0.1:5004", "legs": legs }), "outputs[0].legs"),
    ] {
        let answer = server.post("/v1/flows", &wanted(output));
        assert_eq!(answer.refusal(), (400, "invalid_value".into(), field.to_string()));
    }
    let udp_legs = json!({ "name": "n", "protocol": "udp", "destination": "10.0.0.1", "port": 1, "legs": legs });
    assert_eq!(server.post("/v1/flows", &wanted(udp_legs)).refusal().1, "not_applicable");
    let created = server.post("/v1/flows", &wanted(json!({ "name": "n", "protocol": "rtp", "legs": legs })));
    assert_eq!((created.status, &created.json()["outputs"][0]["legs"]), (201, &json!(legs)), "{created:?}");
    let path = format!("/v1/flows/{}", created.json()["id"].as_str().unwrap());
    assert_eq!(server.post(&format!("{path}/start"), &json!({})).status, 200);
    let mut feed = Feed::new(from, TS);
    feed.send_to_all(100, &[&sinks[0], &sinks[1]]);

    let metrics = || server.get(&format!("{path}/metrics")).json();
    wait_until("the figures", || metrics()["output_metrics"][0]["packets_sent"] == 100);
    let found = metrics();
    let output = &found["output_metrics"][0];
    assert_eq!((&output["packets_sent"], &output["connected"]), (&json!(100), &json!(true)), "{found}");
    let leg = &output["legs"][1];
    assert_eq!(
        (&leg["leg"], &leg["packets_sent"], &leg["drops"]["refused"]),
        (&json!(legs[1]), &json!(100), &json!(0))
    );
    let prometheus = server.get("/metrics").body;
    assert!(prometheus.contains("anabranch_output_leg_packets_total{"), "{prometheus}");
    let third = Sink::keeping(V4);
    let changed = server.put(&format!("{path}/outputs/n"), &json!({ "legs": [legs[0], third.address.to_string()] }));
    assert_eq!(changed.status, 200, "{changed:?}");
    feed.send_to_all(100, &[&sinks[0], &third]);
    let kept = sinks[0].kept();
    let numbers: Vec<u64> = kept.iter().filter_map(|datagram| traffic::number(&datagram[12..])).collect();
    assert_eq!(numbers, (0..200).collect::<Vec<u64>>(), "the leg that stays notices nothing");
    let ssrc = |datagram: &Vec<u8>| datagram[8..12].to_vec();
    assert_eq!(kept.first().map(ssrc), third.kept().first().map(ssrc));
}

#[test]
fn route_shows_every_leg() {
    let sinks = [Sink::keeping(V4), Sink::keeping(V4)];
    let url = legs_url(&sinks.each_ref().map(|sink| sink.address), "");
    let cli = Cli::start(&["route", "--stats", "1", "test:bars?rate=5M", "--", &url]);
    let line = cli.wait_line(&format!("leg {}", sinks[1].address));
    assert!(line.contains("CONNECTED"), "{line}");
    sinks.iter().for_each(|sink| sink.wait(10));
}

/// An output that already runs alone gets its second leg: it is opened anew for that, and goes on.
#[test]
fn an_output_becomes_one_of_several_legs() {
    let (rig, sinks) = (Rig::new(), [Sink::keeping(V4), Sink::keeping(V4)]);
    let from = SocketAddr::from((V4, free_port()));
    let mut config = flow([udp(from)], [url_of("rtp", sinks[0].address, "")]);
    rig.apply("f", config.clone());
    let mut feed = Feed::new(from, TS);
    feed.send_to_all(50, &[&sinks[0]]);
    config.outputs = vec![output("o1", &legs_url(&sinks.each_ref().map(|sink| sink.address), ""))];
    rig.apply("f", config);
    feed.send_to_all(50, &[&sinks[0], &sinks[1]]);
    let numbers = |sink: &Sink| -> Vec<u64> {
        sink.kept().iter().filter_map(|datagram| traffic::number(&datagram[12..])).collect()
    };
    assert_eq!(numbers(&sinks[0]), (0..100).collect::<Vec<u64>>());
    assert_eq!(numbers(&sinks[1]), (50..100).collect::<Vec<u64>>());
}

/// The first of `legs` is the URL's own address.
fn legs_url(legs: &[SocketAddr], query: &str) -> String {
    let further: Vec<String> = legs[1..].iter().map(|leg| format!("leg={leg}")).collect();
    let query = [&[query.to_string()][..], &further].concat();
    url_of("rtp", legs[0], query.join("&").trim_start_matches('&'))
}
