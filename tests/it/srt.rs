//! SRT: with libsrt on the other end over a bad path, and among ourselves.

use std::net::SocketAddr;
use std::time::Duration;

use anabranch::adapters::clock;
use anabranch::engine::{EventKind, OutputStatus};
use anabranch::sim::link;
use anabranch::sim::loss::Model;

use crate::peers::{Peer, installed, wait_for_port};
use crate::proxy::Proxy;
use crate::support::{Feed, Rig, Sink, TS, V4, flow, free_port, let_pass, perfect, udp, url_of, wait_until};

const DELAY: Duration = Duration::from_millis(20);
const LATENCY: Duration = Duration::from_millis(300);
/// One a millisecond: 10 Mb/s.
const PACKETS: u64 = 2_000;
/// Behind the packets that count, over a good path: a loss at the very end is noticed by nobody.
const TAIL: u64 = 300;

fn is_connected(event: &EventKind) -> bool {
    matches!(event, EventKind::PeerConnected { .. })
}

fn local(port: u16) -> SocketAddr {
    (V4, port).into()
}

fn srt(address: SocketAddr, query: &str) -> String {
    url_of("srt", address, query)
}

fn bad_path(listener: u16, loss: f64) -> Proxy {
    let loss = Model::Random { share: loss };
    Proxy::two_way(local(listener), 7, link::Config { loss, delay: DELAY, ..link::Config::default() })
}

/// Feeds `to`, and asserts that all of it comes to `sink` whole, in order, and no sooner than it should.
fn assert_whole(to: SocketAddr, sink: &Sink, proxy: &Proxy) {
    let started = clock::now();
    let mut feed = Feed::new(to, TS);
    feed.send();
    feed = feed.run_until(Duration::from_millis(1), 200);
    sink.wait(1);
    let first = clock::now().since(started);
    assert!(first >= LATENCY + DELAY - Duration::from_millis(5), "released after {first:?}");
    feed = feed.run_until(Duration::from_millis(1), PACKETS);
    proxy.set_media(link::Config { delay: DELAY, ..link::Config::default() });
    feed = feed.run_until(Duration::from_millis(1), PACKETS + TAIL);
    assert_eq!(feed.made(), PACKETS + TAIL);
    wait_until("the last packet", || sink.report(PACKETS).received >= PACKETS * 999 / 1_000 && sink.count() >= PACKETS);
    let report = sink.report(PACKETS);
    assert!(report.received * 1_000 >= PACKETS * 999, "{report:?}");
    assert_eq!((report.duplicated, report.reordered, report.corrupt), (0, 0, 0), "{report:?}");
}

/// srt-live-transmit between UDP and SRT.
fn live_transmit(from: &str, to: &str, directory: &std::path::Path) -> Peer {
    Peer::start("srt-live-transmit", &format!("-q {from} {to}"), directory)
}

fn latency() -> String {
    format!("latency={}", LATENCY.as_millis())
}

#[test]
fn libsrt_listens_and_receives_what_we_send() {
    if !installed("srt-live-transmit") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (rig, sink, port, listen) = (Rig::new(), Sink::new(V4), free_port(), local(free_port()));
    let from = format!("srt://:{port}?mode=listener&{}", latency());
    let _peer = live_transmit(&from, &sink.url(), directory.path());
    wait_for_port(port);
    // Clocks that began at different times must not be taken for one another.
    let_pass(Duration::from_secs(5));
    let proxy = bad_path(port, 0.05);
    rig.apply("f", flow([udp(listen)], [srt(proxy.address, &latency())]));
    rig.wait_event("f", "the connection", is_connected);
    assert_whole(listen, &sink, &proxy);
}

#[test]
fn libsrt_calls_and_sends_to_us() {
    if !installed("srt-live-transmit") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (rig, sink, port, feed) = (Rig::new(), Sink::new(V4), free_port(), free_port());
    rig.apply("f", flow([srt(local(port), &format!("mode=listener&{}", latency()))], [sink.url()]));
    let proxy = bad_path(port, 0.05);
    let to = srt(proxy.address, &latency());
    let _peer = live_transmit(&format!("udp://127.0.0.1:{feed}"), &to, directory.path());
    wait_for_port(feed);
    rig.wait_event("f", "the connection", is_connected);
    assert_whole(local(feed), &sink, &proxy);
    let source = rig.source("f", "s1");
    assert!(source.recovered > 30, "{source:?}");
    let figure = |name| source.details.iter().find(|figure| figure.0 == name).unwrap().1;
    assert!(figure("pktRcvLoss") > 30.0 && figure("msRcvTsbPdDelay") == 300.0, "{source:?}");
    assert!(source.round_trip.is_some_and(|span| span >= 2 * DELAY), "{source:?}");
}

#[test]
fn libsrt_calls_and_receives_what_we_send() {
    if !installed("srt-live-transmit") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (rig, sink, port, listen) = (Rig::new(), Sink::new(V4), free_port(), local(free_port()));
    rig.apply("f", flow([udp(listen)], [srt(local(port), &format!("mode=listener&{}", latency()))]));
    assert_eq!(rig.output("f", "o1").status, OutputStatus::Disconnected);
    let proxy = bad_path(port, 0.05);
    let _peer = live_transmit(&srt(proxy.address, &latency()), &sink.url(), directory.path());
    rig.wait_event("f", "the connection", is_connected);
    assert_whole(listen, &sink, &proxy);
    assert_eq!(rig.output("f", "o1").status, OutputStatus::Connected);
}

#[test]
fn libsrt_listens_and_sends_to_us() {
    if !installed("srt-live-transmit") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (rig, sink, port, feed) = (Rig::new(), Sink::new(V4), free_port(), free_port());
    let to = format!("srt://:{port}?mode=listener&{}", latency());
    let _peer = live_transmit(&format!("udp://127.0.0.1:{feed}"), &to, directory.path());
    wait_for_port(port);
    let_pass(Duration::from_secs(5));
    let proxy = bad_path(port, 0.05);
    rig.apply("f", flow([srt(proxy.address, &latency())], [sink.url()]));
    rig.wait_event("f", "the connection", is_connected);
    wait_for_port(feed);
    assert_whole(local(feed), &sink, &proxy);
}

#[test]
fn keys_of_all_lengths_are_understood_by_libsrt_and_change_in_flight() {
    if !installed("srt-live-transmit") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let secret = "passphrase=a-secret-of-ours&kmrefreshrate=400&kmpreannounce=100";
    for key_length in [16, 24, 32] {
        let query = format!("{secret}&pbkeylen={key_length}&{}", latency());
        // There: encrypted by us, decrypted and encrypted again by libsrt, and back to us.
        let (rig, sink) = (Rig::new(), Sink::new(V4));
        let (listen, there, between, back) = (local(free_port()), free_port(), free_port(), free_port());
        rig.apply("back", flow([srt(local(back), &format!("mode=listener&{query}"))], [sink.url()]));
        let between = format!("udp://127.0.0.1:{between}");
        let to = srt(local(back), &query);
        let _second = live_transmit(&between, &to, directory.path());
        let _first = live_transmit(&format!("srt://:{there}?mode=listener&{query}"), &between, directory.path());
        wait_for_port(there);
        rig.apply("there", flow([udp(listen)], [srt(local(there), &query)]));
        rig.wait_event("there", "the connection", is_connected);
        rig.wait_event("back", "the connection", is_connected);
        let feed = Feed::new(listen, TS).run_until(Duration::from_millis(1), 2_000);
        sink.wait(feed.made());
        assert_eq!(sink.report(feed.made()), perfect(feed.made()), "{key_length} bytes");
    }
}

#[test]
fn a_wrong_passphrase_is_told_on_both_sides_and_never_shown() {
    if !installed("srt-live-transmit") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (rig, sink, port, listen) = (Rig::new(), Sink::new(V4), free_port(), local(free_port()));
    let right = format!("srt://:{port}?mode=listener&passphrase=the-right-secret");
    let _peer = live_transmit(&right, &sink.url(), directory.path());
    wait_for_port(port);
    rig.apply("f", flow([udp(listen)], [srt(local(port), "passphrase=some-other-secret")]));
    let refused = |event: &EventKind| matches!(event, EventKind::ConnectionError { .. });
    let event = rig.wait_event("f", "the refusal", refused).to_string();
    assert!(event.contains("the passphrases differ (1010)"), "{event}");
    assert!(!event.contains("secret"), "{event}");
}

/// Two callers of one output; one is gone without a word, and the other does not notice.
#[test]
fn an_output_serves_many_callers_and_one_that_dies_hurts_nobody() {
    let (server, clients) = (Rig::new(), Rig::new());
    let (listen, port) = (local(free_port()), free_port());
    server.apply("f", flow([udp(listen)], [srt(local(port), "mode=listener&latency=50&peeridletimeo=500")]));
    let proxy = bad_path(port, 0.0);
    let sinks = [Sink::new(V4), Sink::new(V4)];
    clients.apply("good", flow([srt(local(port), "latency=50")], [sinks[0].url()]));
    clients.apply("dying", flow([srt(proxy.address, "latency=50")], [sinks[1].url()]));
    wait_until("both", || server.events("f").iter().filter(|event| is_connected(event)).count() == 2);
    let feed = Feed::new(listen, TS).run(Duration::from_millis(1));
    sinks.iter().for_each(|sink| sink.wait(100));
    drop(proxy);
    let lost = |event: &EventKind| matches!(event, EventKind::PeerDisconnected { .. });
    let event = server.wait_event("f", "the silence", lost).to_string();
    assert!(event.contains("fell silent"), "{event}");
    let made = feed.stop().made();
    sinks[0].assert_perfect(made);
}

#[test]
fn a_group_over_two_ways_does_not_notice_that_one_is_cut() {
    for kind in ["broadcast", "backup"] {
        let (server, client) = (Rig::new(), Rig::new());
        let (sink, listen, port) = (Sink::new(V4), local(free_port()), free_port());
        let query = "latency=1000&peeridletimeo=2500";
        server.apply("f", flow([srt(local(port), &format!("mode=listener&{query}"))], [sink.url()]));
        let (first, second) = (bad_path(port, 0.0), bad_path(port, 0.0));
        let group = format!("type={kind}&weight=2&nodes={}?weight=1&{query}", second.address);
        client.apply("f", flow([udp(listen)], [srt(first.address, &group)]));
        let connected = |rig: &Rig| rig.events("f").iter().filter(|event| is_connected(event)).count();
        wait_until("both", || connected(&server) == 2 && connected(&client) == 2);
        let feed = Feed::new(listen, TS).run(Duration::from_millis(1));
        sink.wait(300);
        drop(first);
        let lost = |event: &EventKind| matches!(event, EventKind::PeerDisconnected { .. });
        server.wait_event("f", "the silence", lost);
        client.wait_event("f", "the silence", lost);
        let made = feed.stop().made();
        sink.assert_perfect(made);
    }
}

#[test]
fn a_stream_id_opens_only_its_own_flow() {
    let (server, clients) = (Rig::new(), Rig::new());
    let (sink, listen, port) = (Sink::new(V4), local(free_port()), free_port());
    server.apply("f", flow([srt(local(port), "mode=listener&streamid=news")], [sink.url()]));
    clients.apply("wrong", flow([udp(local(free_port()))], [srt(local(port), "streamid=sports")]));
    let refused = |event: &EventKind| matches!(event, EventKind::ConnectionError { .. });
    let event = clients.wait_event("wrong", "the refusal", refused).to_string();
    assert!(event.contains("no such stream (1404)"), "{event}");
    clients.apply("right", flow([udp(listen)], [srt(local(port), "streamid=%23!::r=news,m=publish")]));
    clients.wait_event("right", "the connection", is_connected);
    let feed = Feed::new(listen, TS).run_until(Duration::from_millis(1), 300);
    sink.assert_perfect(feed.made());
}
