//! RIST: with librist and GStreamer on the other end over a bad path, and among ourselves.

use std::cell::Cell;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anabranch::adapters::clock;
use anabranch::engine::EventKind;
use anabranch::sim::link;
use anabranch::sim::loss::Model;

use crate::peers::{Peer, installed, wait_for_port};
use crate::proxy::Proxy;
use crate::srt::{DELAY, figure, is_connected, local};
use crate::support::{
    Feed, Rig, Sink, TS, V4, excuse, excuse_pause, flow, free_port, let_pass, patiently, udp, url_of, wait_until,
};

/// 5 Mb/s: so slow that all sessions of a test fit beside each other.
const INTERVAL: Duration = Duration::from_millis(2);
/// Those that count, over a bad path.
const PACKETS: u64 = 800;
/// Before them, until everybody has found each other and measured the way.
const WARM_UP: u64 = 250;
/// Behind them, over a good path: a loss at the very end is noticed by nobody.
const TAIL: u64 = 150;
/// For librist, which has to be given time on a busy machine.
const BUFFER: &str = "buffer=700";
/// After so long a silence nothing more comes: more than the buffer and the way.
const SILENCE: Duration = Duration::from_secs(3);

/// A tenth of the buffer; undisturbed it is some milliseconds.
const PAUSE_MAX: Duration = Duration::from_millis(70);

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

/// Each case on a thread of its own: most of their time passes waiting.
fn in_parallel<T: Copy + Send>(cases: impl IntoIterator<Item = T>, run: impl Fn(T) + Sync) {
    std::thread::scope(|scope| {
        for case in cases {
            let run = &run;
            scope.spawn(move || patiently(|| run(case)));
        }
    });
}

fn lossy(share: f64) -> link::Config {
    link::Config { loss: Model::Random { share }, delay: DELAY, ..link::Config::default() }
}

/// What came of the packets that count, and of the tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Came {
    packets: u64,
    /// Of all, those that came again or out of order.
    twisted: u64,
}

const ALL: Came = Came { packets: PACKETS + TAIL, twisted: 0 };

/// Feeds over a path that is good, then bad for [`PACKETS`], then good; says how many of those and of the tail came.
fn feed_through(to: SocketAddr, sink: &Sink, proxy: &Proxy, loss: f64) -> Came {
    feed_when(|| true, to, sink, proxy, loss)
}

/// The same with a path that becomes bad only when both ends are `ready`.
fn feed_when(ready: impl Fn() -> bool, to: SocketAddr, sink: &Sink, proxy: &Proxy, loss: f64) -> Came {
    let bad = || {
        proxy.take_longest_pause();
        proxy.set_both(lossy(loss));
    };
    let came = feed_while(ready, to, sink, [&bad, &|| {}, &|| proxy.set_both(lossy(0.0))]);
    excuse_pause(proxy.take_longest_pause(), PAUSE_MAX);
    came
}

/// Does `steps` before the packets that count, in their middle and behind them.
fn feed_while(ready: impl Fn() -> bool, to: SocketAddr, sink: &Sink, steps: [&dyn Fn(); 3]) -> Came {
    let mut feed = Feed::new(to, TS);
    // Whoever was not there yet has missed some of these.
    while feed.made() < WARM_UP || sink.count() == 0 || !ready() {
        let until = feed.made() + 1;
        assert!(until < 40 * WARM_UP, "nothing comes");
        feed = feed.run_until(INTERVAL, until);
    }
    let first = feed.made();
    sink.take_longest_pause();
    for (step, packets) in steps.into_iter().zip([PACKETS / 2, PACKETS / 2, TAIL]) {
        step();
        let until = feed.made() + packets;
        feed = feed.run_until(INTERVAL, until);
    }
    let mut latest = (0, clock::now());
    wait_until("the last packet", || {
        if latest.0 != sink.count() {
            latest = (sink.count(), clock::now());
        }
        sink.range_from(first).0 == Some(feed.made() - 1) || clock::now().since(latest.1) > SILENCE
    });
    excuse_pause(sink.take_longest_pause(), PAUSE_MAX);
    let report = sink.report(feed.made());
    assert_eq!(report.corrupt, 0, "{report:?}");
    Came { packets: sink.range_from(first).1, twisted: report.duplicated + report.reordered }
}

/// Nothing is lost on its way to us, and what was lost on the line was asked for.
fn assert_received(rig: &Rig, session: Session, came: Came, proxy: &Proxy) {
    let source = rig.source("f", "s1");
    assert_eq!((source.lost, came), (0, ALL), "{session:?}: {source:?}");
    // Reports are no packets.
    assert!(source.bytes == source.packets * TS as u64, "{session:?}: {source:?}");
    let lost = proxy.lost() as f64;
    if session.loss > 0.0 {
        assert!(lost > PACKETS as f64 * session.loss * 0.5, "{session:?}: {lost}");
        // What was lost and lost again counts once; in the Main profile some of it were reports.
        assert!(source.recovered as f64 > lost * 0.6, "{session:?}: {source:?}");
        assert!(figure(&source.details, "nacks") > 5.0, "{session:?}: {source:?}");
    }
    // How many more than were lost depends on how busy the machine is; the simulator has the bound for an idle one.
    let [again, requested] = ["retransmitted", "requested"].map(|name| figure(&source.details, name));
    assert!(again <= requested, "{session:?}: {source:?}");
    wait_until("a round trip as the path has it", || {
        let round_trip = rig.source("f", "s1").round_trip.unwrap();
        assert!(round_trip >= 2 * DELAY, "{session:?}: {round_trip:?}");
        round_trip < 4 * DELAY
    });
    assert_eq!((source.drops.malformed, source.drops.unexpected), (0, 0), "{session:?}: {source:?}");
}

/// What a peer asked us for it got. What it loses, doubles or puts out of order beside that, as librist does on a busy
/// machine, is its own doing, but not always.
fn assert_sent(rig: &Rig, session: Session, came: Came, lost: u64) {
    let output = rig.output("f", "o1");
    let [requested, again, skipped, too_soon, unavailable] =
        ["requested", "retransmitted", "bandwidth_skipped", "bloat_skipped", "unavailable"]
            .map(|name| figure(&output.details, name) as u64);
    assert_eq!((again + too_soon + unavailable, skipped), (requested, 0), "{session:?}: {output:?}");
    assert!(came.packets + lost >= PACKETS + TAIL, "{session:?}: {came:?} {lost} {output:?}");
    excuse(|| format!("the peer did not ask for all: {came:?}"));
    assert!(session.loss == 0.0 || again as f64 > lost as f64 * 0.6, "{session:?}: {lost} {output:?}");
    assert!(came.packets >= (PACKETS + TAIL) * 98 / 100 && came.twisted == 0, "{session:?}: {came:?} {output:?}");
}

#[test]
fn librist_sends_to_us() {
    if !installed("ristsender") {
        return;
    }
    in_parallel(SESSIONS, |session| {
        let directory = tempfile::tempdir().unwrap();
        let (rig, sink, port, feed) = (Rig::new(), Sink::new(V4), free_port(), free_port());
        let proxy = session.path(port);
        rig.apply("f", flow([format!("rist://@:{port}?{}", session.ours())], [sink.url()]));
        let _peer = ristsender(session, feed, &rist(proxy.address, &session.theirs()), directory.path());
        wait_for_port(feed);
        rig.wait_event("f", "the connection", is_connected);
        let came = feed_through(local(feed), &sink, &proxy, session.loss);
        assert_received(&rig, session, came, &proxy);
    });
}

#[test]
fn librist_receives_from_us() {
    if !installed("ristreceiver") {
        return;
    }
    in_parallel(SESSIONS, |session| {
        let directory = tempfile::tempdir().unwrap();
        let (rig, sink, port, listen) = (Rig::new(), Sink::new(V4), free_port(), local(free_port()));
        let proxy = session.path(port);
        let from = format!("rist://@127.0.0.1:{port}?{}", session.theirs());
        let _peer = ristreceiver(session, &from, &sink, directory.path());
        wait_for_port(port);
        rig.apply("f", flow([udp(listen)], [rist(proxy.address, &session.ours())]));
        rig.wait_event("f", "the connection", is_connected);
        let came = feed_through(listen, &sink, &proxy, session.loss);
        assert_sent(&rig, session, came, proxy.lost());
    });
}

#[test]
fn librist_pulls_from_us_and_is_pulled_from() {
    if !installed("ristreceiver") || !installed("ristsender") {
        return;
    }
    let secret = Session { query: "&secret=hunter22&aes-type=256", ..MAIN };
    in_parallel([(MAIN, true), (secret, true), (MAIN, false), (secret, false)], |(session, pulls)| {
        let directory = tempfile::tempdir().unwrap();
        let (rig, sink, port, listen) = (Rig::new(), Sink::new(V4), free_port(), free_port());
        let proxy = session.path(port);
        if pulls {
            rig.apply("f", flow([udp(local(listen))], [format!("rist://@:{port}?{}", session.ours())]));
            let peer = ristreceiver(session, &rist(proxy.address, &session.theirs()), &sink, directory.path());
            rig.wait_event("f", "the connection", is_connected);
            let came = feed_through(local(listen), &sink, &proxy, session.loss);
            assert_sent(&rig, session, came, proxy.lost());
            drop(peer);
            rig.wait_event("f", "its end", |event| matches!(event, EventKind::PeerDisconnected { .. }));
        } else {
            let to = format!("rist://@127.0.0.1:{port}?{}", session.theirs());
            let _peer = ristsender(session, listen, &to, directory.path());
            wait_for_port(port);
            rig.apply("f", flow([rist(proxy.address, &session.ours())], [sink.url()]));
            rig.wait_event("f", "the connection", is_connected);
            let came = feed_through(local(listen), &sink, &proxy, session.loss);
            assert_received(&rig, session, came, &proxy);
        }
    });
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
    patiently(|| {
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
        assert_eq!((source.lost, came), (0, ALL), "{source:?}");
        assert!(source.recovered as f64 > proxy.lost() as f64 * 0.6, "{source:?}");
        // It would take another SSRC after a collision.
        let restarted = |event: &EventKind| !is_connected(event) && event.to_string().contains("restart");
        assert!(!rig.events("f").iter().any(restarted), "{:?}", rig.events("f"));
    });
}

#[test]
fn gstreamer_receives_from_us() {
    if !installed("gst-launch-1.0") {
        return;
    }
    patiently(|| {
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
        // It takes some time, perhaps a second, before it asks for anything.
        proxy.set_both(lossy(SIMPLE.loss));
        let before = Cell::new(0);
        let asks = || {
            before.set(proxy.lost());
            figure(&rig.output("f", "o1").details, "requested") > 0.0
        };
        let came = feed_when(asks, listen, &sink, &proxy, SIMPLE.loss);
        assert_sent(&rig, SIMPLE, came, proxy.lost() - before.get());
        assert!(rig.output("f", "o1").round_trip.is_some_and(|span| span > DELAY));
    });
}

#[test]
fn we_speak_with_ourselves_in_every_way() {
    let secret = "&secret=hunter22&aes-type=256&key-rotation=250&npd=1";
    let secret = Session { query: secret, ..MAIN };
    in_parallel([(SIMPLE, false), (MAIN, false), (MAIN, true), (secret, true)], |(session, pulls)| {
        let (rig, sink, port, listen) = (Rig::new(), Sink::new(V4), free_port(), local(free_port()));
        let proxy = session.path(port);
        let (there, here) = (format!("rist://@:{port}?{}", session.ours()), rist(proxy.address, &session.ours()));
        let (output, source) = if pulls { (there, here) } else { (here, there) };
        rig.apply("f", flow([source], [sink.url()]));
        rig.apply("sends", flow([udp(listen)], [output]));
        rig.wait_event("f", "the connection", is_connected);
        rig.wait_event("sends", "the connection", is_connected);
        let came = feed_through(listen, &sink, &proxy, session.loss);
        assert_received(&rig, session, came, &proxy);
        rig.stop("sends");
        rig.wait_event("f", "the end", |event| matches!(event, EventKind::PeerDisconnected { .. }));
    });
}

/// Two paths that each lose 2 %, one of which ends for good in the middle.
fn over_two_paths(to: SocketAddr, sink: &Sink, paths: [Proxy; 2]) -> Came {
    let [first, second] = paths;
    let first = Cell::new(Some(first));
    let bad = || {
        second.take_longest_pause();
        let path = first.take();
        path.iter().chain([&second]).for_each(|path| path.set_both(lossy(0.02)));
        first.set(path);
    };
    let came = feed_while(|| true, to, sink, [&bad, &|| drop(first.take()), &|| second.set_both(lossy(0.0))]);
    excuse_pause(second.take_longest_pause(), PAUSE_MAX);
    came
}

#[test]
fn one_of_two_paths_ends_and_nothing_is_lost() {
    in_parallel([(SIMPLE, ["0", "0"]), (MAIN, ["0", "0"]), (MAIN, ["2", "1"])], |(session, weights)| {
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
        assert_eq!((source.lost, came), (0, ALL), "{session:?} {weights:?}: {source:?}");
    });
}

#[test]
fn librist_merges_what_we_send_over_two_paths() {
    if !installed("ristreceiver") {
        return;
    }
    patiently(|| {
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
        excuse(|| format!("the peer did not ask for all: {came:?}"));
        let is_whole = came.packets >= (PACKETS + TAIL) * 98 / 100 && came.twisted == 0;
        assert!(is_whole, "{came:?} {:?}", rig.output("f", "o1"));
    });
}

#[test]
fn librist_sends_to_us_over_two_paths() {
    if !installed("ristsender") {
        return;
    }
    patiently(|| {
        let directory = tempfile::tempdir().unwrap();
        let (rig, sink, port, feed) = (Rig::new(), Sink::new(V4), free_port(), free_port());
        let paths = [MAIN.path(port), MAIN.path(port)];
        rig.apply("f", flow([format!("rist://@:{port}?{}", MAIN.ours())], [sink.url()]));
        let to = [&paths[0], &paths[1]].map(|path| rist(path.address, &format!("{BUFFER}&weight=0"))).join(",");
        let _peer = ristsender(MAIN, feed, &to, directory.path());
        wait_for_port(feed);
        rig.wait_event("f", "the connection", is_connected);
        let came = over_two_paths(local(feed), &sink, paths);
        let source = rig.source("f", "s1");
        // Librist may go on answering over the path that has ended.
        let [requested, again] = ["requested", "retransmitted"].map(|name| figure(&source.details, name) as u64);
        if source.lost > 0 && requested >= again + 5 * source.lost {
            excuse(|| format!("the peer did not answer: {requested} asked for, {again} sent again"));
        }
        assert_eq!((source.lost, came), (0, ALL), "{source:?}");
        assert!(source.drops.duplicate > PACKETS / 3, "{source:?}");
    });
}

#[test]
fn whoever_comes_first_waits_for_the_other() {
    in_parallel([(false, true), (false, false), (true, true), (true, false)], |(pulls, source_first)| {
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
    });
}
