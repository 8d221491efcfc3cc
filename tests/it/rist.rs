//! RIST: with librist and GStreamer on the other end over a bad path, and among ourselves.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anabranch::engine::EventKind;
use anabranch::sim::link;
use anabranch::sim::loss::Model;

use crate::peers::{Peer, installed, wait_for_port};
use crate::proxy::Proxy;
use crate::srt::{DELAY, figure, is_connected, local};
use crate::support::{Feed, Rig, Sink, TS, V4, flow, free_port, let_pass, udp, url_of, wait_until};

/// One a millisecond: 10 Mb/s.
const PACKETS: u64 = 2_000;
/// Before the packets that count, until everybody has found each other.
const WARM_UP: u64 = 300;
/// Behind them, over a good path: a loss at the very end is noticed by nobody.
const TAIL: u64 = 500;
/// For librist, which has to be given time on a busy machine.
const BUFFER: &str = "buffer=500";
/// Longer than the buffer and the way.
const SETTLED: Duration = Duration::from_millis(1_400);

/// How both ends speak.
#[derive(Clone, Copy, Debug)]
struct Session {
    is_main: bool,
    /// Of both ends.
    query: &'static str,
    loss: f64,
}

const SIMPLE: Session = Session { is_main: false, query: "", loss: 0.05 };
const MAIN: Session = Session { is_main: true, query: "", loss: 0.05 };
const SESSIONS: [Session; 7] = [
    Session { loss: 0.0, ..SIMPLE },
    SIMPLE,
    Session { loss: 0.1, ..SIMPLE },
    Session { loss: 0.0, ..MAIN },
    Session { loss: 0.1, ..MAIN },
    Session { query: "&secret=hunter22&aes-type=128", ..MAIN },
    Session { query: "&secret=hunter22&aes-type=256", loss: 0.1, ..MAIN },
];

impl Session {
    /// Our query.
    fn ours(self) -> String {
        format!("profile={}&{BUFFER}{}", if self.is_main { "main" } else { "simple" }, self.query)
    }

    fn theirs(self) -> String {
        format!("{BUFFER}{}", self.query)
    }

    fn profile(self) -> u8 {
        u8::from(self.is_main)
    }

    /// A path to whoever listens, good at first.
    fn path(self, listener: u16) -> Proxy {
        let good = link::Config { delay: DELAY, ..link::Config::default() };
        if self.is_main {
            Proxy::two_way(local(listener), 7, good)
        } else {
            let proxy = Proxy::new(local(listener), 7, DELAY);
            proxy.set_media(good);
            proxy
        }
    }
}

fn rist(address: SocketAddr, query: &str) -> String {
    url_of("rist", address, query)
}

fn ristsender(session: Session, from: u16, to: &str, directory: &Path) -> Peer {
    let arguments = format!("-S 0 -p {} -i udp://127.0.0.1:{from} -o {to}", session.profile());
    Peer::start("ristsender", &arguments, directory)
}

fn ristreceiver(session: Session, from: &str, sink: &Sink, directory: &Path) -> Peer {
    let arguments = format!("-S 0 -p {} -i {from} -o {}", session.profile(), sink.url());
    Peer::start("ristreceiver", &arguments, directory)
}

/// Feeds over a path that is good, then bad for [`PACKETS`], then good; says how many of those and of the tail came.
fn feed_through(to: SocketAddr, sink: &Sink, proxy: &Proxy, loss: f64) -> u64 {
    let mut feed = Feed::new(to, TS);
    // Whoever was not there yet has missed some of these.
    while feed.made() < WARM_UP || sink.count() == 0 {
        let until = feed.made() + 1;
        assert!(until < 20 * WARM_UP, "nothing comes");
        feed = feed.run_until(Duration::from_millis(1), until);
    }
    let_pass(SETTLED);
    let (before, made) = (sink.count(), feed.made());
    let link = |share| link::Config { loss: Model::Random { share }, delay: DELAY, ..link::Config::default() };
    proxy.set_both(link(loss));
    feed = feed.run_until(Duration::from_millis(1), made + PACKETS);
    proxy.set_both(link(0.0));
    feed = feed.run_until(Duration::from_millis(1), made + PACKETS + TAIL);
    let_pass(SETTLED);
    let report = sink.report(feed.made());
    assert_eq!((report.duplicated, report.reordered, report.corrupt), (0, 0, 0), "{report:?}");
    sink.count() - before
}

/// Nothing is lost on its way to us, and the figures show that something was on the line.
fn assert_received(rig: &Rig, session: Session, came: u64) {
    let source = rig.source("f", "s1");
    assert_eq!((source.lost, came), (0, PACKETS + TAIL), "{session:?}: {source:?}");
    // Reports are no packets.
    assert!(source.bytes == source.packets * TS as u64, "{session:?}: {source:?}");
    if session.loss > 0.0 {
        let expected = PACKETS as f64 * session.loss;
        assert!(source.recovered as f64 > expected * 0.6, "{session:?}: {source:?}");
        assert!(figure(&source.details, "nacks") > 10.0, "{session:?}: {source:?}");
        assert!(figure(&source.details, "retransmitted") < expected * 1.8, "{session:?}: {source:?}");
    }
    let round_trip = source.round_trip.unwrap();
    assert!(round_trip >= 2 * DELAY && round_trip < 3 * DELAY, "{session:?}: {round_trip:?}");
    assert_eq!((source.drops.malformed, source.drops.unexpected), (0, 0), "{session:?}: {source:?}");
}

#[test]
fn librist_sends_to_us() {
    if !installed("ristsender") {
        return;
    }
    for session in SESSIONS {
        let directory = tempfile::tempdir().unwrap();
        let (rig, sink, port, feed) = (Rig::new(), Sink::new(V4), free_port(), free_port());
        let proxy = session.path(port);
        rig.apply("f", flow([format!("rist://@:{port}?{}", session.ours())], [sink.url()]));
        let _peer = ristsender(session, feed, &rist(proxy.address, &session.theirs()), directory.path());
        wait_for_port(feed);
        rig.wait_event("f", "the connection", is_connected);
        let came = feed_through(local(feed), &sink, &proxy, session.loss);
        assert_received(&rig, session, came);
    }
}

#[test]
fn librist_receives_from_us() {
    if !installed("ristreceiver") {
        return;
    }
    for session in SESSIONS {
        let directory = tempfile::tempdir().unwrap();
        let (rig, sink, port, listen) = (Rig::new(), Sink::new(V4), free_port(), local(free_port()));
        let proxy = session.path(port);
        let from = format!("rist://@127.0.0.1:{port}?{}", session.theirs());
        let _peer = ristreceiver(session, &from, &sink, directory.path());
        wait_for_port(port);
        rig.apply("f", flow([udp(listen)], [rist(proxy.address, &session.ours())]));
        rig.wait_event("f", "the connection", is_connected);
        let came = feed_through(listen, &sink, &proxy, session.loss);
        let output = rig.output("f", "o1");
        // Librist itself loses some when the machine is busy.
        assert!(came >= (PACKETS + TAIL) * 999 / 1_000, "{session:?}: {came} {output:?}");
        if session.loss > 0.0 {
            let again = figure(&output.details, "retransmitted");
            let expected = PACKETS as f64 * session.loss;
            assert!(again > expected * 0.7 && again < expected * 1.6, "{session:?}: {output:?}");
        }
    }
}

#[test]
fn librist_pulls_from_us_and_is_pulled_from() {
    if !installed("ristreceiver") || !installed("ristsender") {
        return;
    }
    for session in [MAIN, Session { query: "&secret=hunter22&aes-type=256", ..MAIN }] {
        let directory = tempfile::tempdir().unwrap();
        let (rig, sink, port, listen) = (Rig::new(), Sink::new(V4), free_port(), local(free_port()));
        let proxy = session.path(port);
        rig.apply("f", flow([udp(listen)], [format!("rist://@:{port}?{}", session.ours())]));
        let peer = ristreceiver(session, &rist(proxy.address, &session.theirs()), &sink, directory.path());
        rig.wait_event("f", "the connection", is_connected);
        let came = feed_through(listen, &sink, &proxy, session.loss);
        assert!(came >= (PACKETS + TAIL) * 999 / 1_000, "{session:?}: {came}");
        assert!(figure(&rig.output("f", "o1").details, "retransmitted") > 50.0, "{session:?}");
        drop(peer);
        rig.wait_event("f", "its end", |event| matches!(event, EventKind::PeerDisconnected { .. }));

        let (rig, sink, port, feed) = (Rig::new(), Sink::new(V4), free_port(), free_port());
        let proxy = session.path(port);
        let to = format!("rist://@127.0.0.1:{port}?{}", session.theirs());
        let _peer = ristsender(session, feed, &to, directory.path());
        wait_for_port(port);
        rig.apply("f", flow([rist(proxy.address, &session.ours())], [sink.url()]));
        rig.wait_event("f", "the connection", is_connected);
        let came = feed_through(local(feed), &sink, &proxy, session.loss);
        assert_received(&rig, session, came);
    }
}

#[test]
fn another_secret_brings_nothing() {
    if !installed("ristsender") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (rig, sink, port, feed) = (Rig::new(), Sink::new(V4), free_port(), free_port());
    rig.apply("f", flow([format!("rist://@:{port}?secret=hunter23")], [sink.url()]));
    let to = rist(local(port), "secret=hunter22&aes-type=128");
    let _peer = ristsender(MAIN, feed, &to, directory.path());
    wait_for_port(feed);
    let feed = Feed::new(local(feed), TS).run_until(Duration::from_millis(1), 500);
    let refused = |event: &EventKind| matches!(event, EventKind::ConnectionError { .. });
    let event = rig.wait_event("f", "the refusal", refused).to_string();
    assert!(event.contains("passphrases differ") && !event.contains("hunter"), "{event}");
    assert_eq!((feed.made(), sink.count()), (500, 0));
}

#[test]
fn gstreamer_sends_to_us_and_keeps_its_name() {
    if !installed("gst-launch-1.0") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (rig, sink, port, feed) = (Rig::new(), Sink::new(V4), free_port(), free_port());
    let proxy = SIMPLE.path(port);
    rig.apply("f", flow([format!("rist://@:{port}?{}", SIMPLE.ours())], [sink.url()]));
    let pipeline = format!(
        "-q udpsrc port={feed} buffer-size=4000000 caps=video/mpegts,systemstream=true,packetsize=188 \
         ! rtpmp2tpay mtu=1328 ! ristsink address=127.0.0.1 port={} sender-buffer=1200",
        proxy.address.port()
    );
    let _peer = Peer::start("gst-launch-1.0", &pipeline, directory.path());
    wait_for_port(feed);
    let came = feed_through(local(feed), &sink, &proxy, SIMPLE.loss);
    let source = rig.source("f", "s1");
    assert_eq!((source.lost, came), (0, PACKETS + TAIL), "{source:?}");
    assert!(source.recovered > 50, "{source:?}");
    // It would take another SSRC after a collision.
    let restarted = |event: &EventKind| !is_connected(event) && event.to_string().contains("restart");
    assert!(!rig.events("f").iter().any(restarted), "{:?}", rig.events("f"));
}

#[test]
fn gstreamer_receives_from_us() {
    if !installed("gst-launch-1.0") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (rig, sink, port, listen) = (Rig::new(), Sink::new(V4), free_port(), local(free_port()));
    let proxy = SIMPLE.path(port);
    let pipeline = format!(
        "-q ristsrc address=127.0.0.1 port={port} receiver-buffer=1000 ! rtpmp2tdepay \
         ! udpsink host=127.0.0.1 port={} sync=false",
        sink.address.port()
    );
    let _peer = Peer::start("gst-launch-1.0", &pipeline, directory.path());
    wait_for_port(port);
    rig.apply("f", flow([udp(listen)], [rist(proxy.address, &SIMPLE.ours())]));
    let came = feed_through(listen, &sink, &proxy, SIMPLE.loss);
    let output = rig.output("f", "o1");
    // One in some thousands is GStreamer's own; on a busy machine it asks late, or not at all.
    assert!(came >= (PACKETS + TAIL) * 99 / 100, "{came} {output:?}");
    assert!(figure(&output.details, "retransmitted") > 50.0, "{output:?}");
    assert!(output.round_trip.is_some_and(|span| span > DELAY), "{output:?}");
}

#[test]
fn we_speak_with_ourselves_in_every_way() {
    let secret = "&secret=hunter22&aes-type=256&key-rotation=500&npd=1";
    for (session, pulls) in [(SIMPLE, false), (MAIN, false), (MAIN, true), (Session { query: secret, ..MAIN }, true)] {
        let (rig, sink, port, listen) = (Rig::new(), Sink::new(V4), free_port(), local(free_port()));
        let proxy = session.path(port);
        let (there, here) = (format!("rist://@:{port}?{}", session.ours()), rist(proxy.address, &session.ours()));
        let (output, source) = if pulls { (there, here) } else { (here, there) };
        rig.apply("f", flow([source], [sink.url()]));
        rig.apply("sends", flow([udp(listen)], [output]));
        rig.wait_event("f", "the connection", is_connected);
        rig.wait_event("sends", "the connection", is_connected);
        let came = feed_through(listen, &sink, &proxy, session.loss);
        assert_received(&rig, session, came);
        rig.stop("sends");
        rig.wait_event("f", "the end", |event| matches!(event, EventKind::PeerDisconnected { .. }));
        wait_until("nobody", || rig.source("f", "s1").packets > 0);
    }
}

/// Two paths that each lose 2 %, one of which ends for good in the middle.
fn over_two_paths(to: SocketAddr, sink: &Sink, paths: [Proxy; 2]) -> u64 {
    let [first, second] = paths;
    let mut feed = Feed::new(to, TS);
    while feed.made() < WARM_UP || sink.count() == 0 {
        let until = feed.made() + 1;
        assert!(until < 20 * WARM_UP, "nothing comes");
        feed = feed.run_until(Duration::from_millis(1), until);
    }
    let_pass(SETTLED);
    let (before, made) = (sink.count(), feed.made());
    let lossy = |share| link::Config { loss: Model::Random { share }, delay: DELAY, ..link::Config::default() };
    [&first, &second].iter().for_each(|path| path.set_both(lossy(0.02)));
    feed = feed.run_until(Duration::from_millis(1), made + PACKETS / 2);
    drop(first);
    feed = feed.run_until(Duration::from_millis(1), made + PACKETS);
    second.set_both(lossy(0.0));
    feed = feed.run_until(Duration::from_millis(1), made + PACKETS + TAIL);
    let_pass(SETTLED);
    let report = sink.report(feed.made());
    assert_eq!((report.duplicated, report.reordered, report.corrupt), (0, 0, 0), "{report:?}");
    sink.count() - before
}

#[test]
fn one_of_two_paths_ends_and_nothing_is_lost() {
    for (session, weights) in [(SIMPLE, ["0", "0"]), (MAIN, ["0", "0"]), (MAIN, ["2", "1"])] {
        let (rig, sink, port, listen) = (Rig::new(), Sink::new(V4), free_port(), local(free_port()));
        // With one port for all paths.
        let paths = [session.path(port), session.path(port)];
        rig.apply("f", flow([format!("rist://@:{port}?{}", session.ours())], [sink.url()]));
        // What goes over the dead path at the very end is missed by nobody: by then it must be known to be dead.
        let nodes =
            format!("session-timeout=600&weight={}&nodes={}?weight={}", weights[0], paths[1].address, weights[1]);
        let output = rist(paths[0].address, &format!("{}&{nodes}", session.ours()));
        rig.apply("sends", flow([udp(listen)], [output]));
        rig.wait_event("f", "the connection", is_connected);
        rig.wait_event("sends", "the connection", is_connected);
        let came = over_two_paths(listen, &sink, paths);
        let source = rig.source("f", "s1");
        assert_eq!((source.lost, came), (0, PACKETS + TAIL), "{session:?} {weights:?}: {source:?}");
    }
}

#[test]
fn librist_merges_what_we_send_over_two_paths() {
    if !installed("ristreceiver") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (rig, sink, listen) = (Rig::new(), Sink::new(V4), local(free_port()));
    let ports = [free_port(), free_port()];
    let paths = ports.map(|port| MAIN.path(port));
    let from = ports.map(|port| format!("rist://@127.0.0.1:{port}?{BUFFER}")).join(",");
    let _peer = ristreceiver(MAIN, &from, &sink, directory.path());
    ports.into_iter().for_each(wait_for_port);
    let nodes = format!("{}&nodes={}", MAIN.ours(), paths[1].address);
    rig.apply("f", flow([udp(listen)], [rist(paths[0].address, &nodes)]));
    rig.wait_event("f", "the connection", is_connected);
    let came = over_two_paths(listen, &sink, paths);
    assert!(came >= (PACKETS + TAIL) * 999 / 1_000, "{came} {:?}", rig.output("f", "o1"));
}

#[test]
fn librist_sends_to_us_over_two_paths() {
    if !installed("ristsender") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (rig, sink, port, feed) = (Rig::new(), Sink::new(V4), free_port(), free_port());
    let paths = [MAIN.path(port), MAIN.path(port)];
    rig.apply("f", flow([format!("rist://@:{port}?{}", MAIN.ours())], [sink.url()]));
    let to = [&paths[0], &paths[1]].map(|path| rist(path.address, "buffer=500&weight=0")).join(",");
    let _peer = ristsender(MAIN, feed, &to, directory.path());
    wait_for_port(feed);
    rig.wait_event("f", "the connection", is_connected);
    let came = over_two_paths(local(feed), &sink, paths);
    let source = rig.source("f", "s1");
    assert_eq!((source.lost, came), (0, PACKETS + TAIL), "{source:?}");
    assert!(source.drops.duplicate > PACKETS / 3, "{source:?}");
}

#[test]
fn whoever_comes_first_waits_for_the_other() {
    for (pulls, source_first) in [(false, true), (false, false), (true, true), (true, false)] {
        let (rig, sink, port, listen) = (Rig::new(), Sink::new(V4), free_port(), local(free_port()));
        let (there, here) = (format!("rist://@127.0.0.1:{port}?buffer=100"), rist(local(port), "buffer=100"));
        let (output, source) = if pulls { (there, here) } else { (here, there) };
        let start = |is_source: bool| {
            if is_source {
                rig.apply("f", flow([source.as_str()], [sink.url()]));
            } else {
                rig.apply("sends", flow([udp(listen)], [output.as_str()]));
            }
        };
        start(source_first);
        // Long enough for the system to say that nobody is there.
        let_pass(Duration::from_millis(300));
        start(!source_first);
        rig.wait_event("f", "the connection", is_connected);
        rig.wait_event("sends", "the connection", is_connected);
        let feed = Feed::new(listen, TS).run_until(Duration::from_millis(1), 200);
        sink.wait(200);
        assert_eq!(sink.report(feed.made()).received, 200, "pulls {pulls}, source first {source_first}");
    }
}
