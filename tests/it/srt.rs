//! SRT: with libsrt on the other end over a bad path, and among ourselves.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use anabranch::adapters::clock;
use anabranch::engine::{Cause, EventKind};
use anabranch::path::AllowList;
use anabranch::proto::rtp::{Header, RtpPacket};
use anabranch::sim::link;
use anabranch::sim::loss::Model;

use crate::peers::{Peer, installed, wait_for_port};
use crate::proxy::Proxy;
use crate::rtp::RtpFeed;
use crate::support::{Feed, Rig, Sink, TS, V4, flow, free_port, let_pass, perfect, udp, url_of, wait_until};

pub(crate) const DELAY: Duration = Duration::from_millis(20);
pub(crate) const LATENCY: Duration = Duration::from_millis(300);
/// One a millisecond: 10 Mb/s.
const PACKETS: u64 = 2_000;
/// Behind the packets that count, over a good path: a loss at the very end is noticed by nobody.
const TAIL: u64 = 300;

pub(crate) fn is_connected(event: &EventKind) -> bool {
    matches!(event, EventKind::PeerConnected { .. })
}

pub(crate) fn local(port: u16) -> SocketAddr {
    (V4, port).into()
}

pub(crate) fn srt(address: SocketAddr, query: &str) -> String {
    url_of("srt", address, query)
}

pub(crate) fn bad_path(listener: u16, loss: f64) -> Proxy {
    let loss = Model::Random { share: loss };
    Proxy::two_way(local(listener), 7, link::Config { loss, delay: DELAY, ..link::Config::default() })
}

/// Feeds on, and asserts that all of it comes to `sink` whole, in order, and no sooner than it should.
pub(crate) fn assert_whole(mut feed: Feed, sink: &Sink, proxy: &Proxy) {
    let (before, started) = (feed.made(), clock::now());
    feed.send();
    feed = feed.run_until(Duration::from_millis(1), 200);
    sink.wait(before + 1);
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
pub(crate) fn live_transmit(from: &str, to: &str, directory: &std::path::Path) -> Peer {
    // It looks at UDP every ten milliseconds, and a busy machine lets it wait for longer than its buffer lasts.
    let buffer = if from.starts_with("udp://") { "?rcvbuf=2000000" } else { "" };
    let from = format!("{from}{buffer}");
    Peer::start("srt-live-transmit", &format!("-q {from} {to}"), directory)
}

/// Where nothing is asked for again, what is held up by a busy machine would count as lost.
const ROOMY: &str = "latency=900";

pub(crate) fn latency() -> String {
    format!("latency={}", LATENCY.as_millis())
}

/// One of libsrt's cases of SRTO_ENFORCEDENCRYPTION: who listens and who has which secret, and whether libsrt insists on
/// one. We always do.
#[derive(Clone, Copy, Debug)]
struct SecretsCase {
    we_listen: bool,
    they_insist: bool,
    ours: &'static str,
    theirs: &'static str,
}

impl SecretsCase {
    const NONE: &'static str = "";
    const ONE: &'static str = "&passphrase=the-right-secret";
    const OTHER: &'static str = "&passphrase=some-other-secret";

    fn all() -> impl Iterator<Item = Self> {
        [
            (Self::ONE, Self::ONE),
            (Self::ONE, Self::OTHER),
            (Self::ONE, Self::NONE),
            (Self::NONE, Self::ONE),
            (Self::NONE, Self::NONE),
        ]
        .into_iter()
        .flat_map(|(ours, theirs)| {
            [(false, false), (false, true), (true, false), (true, true)].map(|(we_listen, they_insist)| Self {
                we_listen,
                they_insist,
                ours,
                theirs,
            })
        })
    }

    fn reason(self) -> Option<&'static str> {
        match (self.ours == self.theirs, self.ours.is_empty() || self.theirs.is_empty()) {
            (true, _) => None,
            (false, true) => Some("(1011)"),
            (false, false) => Some("(1010)"),
        }
    }

    /// We get together, or we say why not and the peer gives up on what it may have taken for a connection.
    fn run(self) {
        let directory = tempfile::tempdir().unwrap();
        let (rig, sink, port, feed) = (Rig::new(), Sink::new(V4), free_port(), free_port());
        let insists = format!("enforcedencryption={}", u8::from(self.they_insist));
        let (ours, theirs) = if self.we_listen {
            (format!("mode=listener{}", self.ours), format!("{insists}{}", self.theirs))
        } else {
            (format!("mode=caller{}", self.ours), format!("mode=listener&{insists}{}", self.theirs))
        };
        let start = || live_transmit(&format!("udp://127.0.0.1:{feed}"), &srt(local(port), &theirs), directory.path());
        let _peer = (!self.we_listen).then(|| {
            let peer = start();
            wait_for_port(port);
            peer
        });
        rig.apply("f", flow([srt(local(port), &ours)], [sink.url()]));
        let _peer = self.we_listen.then(start);
        let is_outcome = |event: &EventKind| is_connected(event) || matches!(event, EventKind::ConnectionError { .. });
        let outcome = rig.wait_event("f", "the outcome", is_outcome).to_string();
        match self.reason() {
            None => assert!(outcome.contains(" connected"), "{self:?}: {outcome}"),
            Some(reason) => assert!(outcome.contains(reason) && !outcome.contains("secret"), "{self:?}: {outcome}"),
        }
    }
}

#[test]
fn secrets_that_differ_are_told_whether_or_not_libsrt_insists_on_one() {
    if !installed("srt-live-transmit") {
        return;
    }
    std::thread::scope(|scope| {
        for case in SecretsCase::all() {
            scope.spawn(move || case.run());
        }
    });
}

/// Feeds `to` over a path that is whole at first and then loses two percent of all datagrams, repairs as well, for good.
/// Says what came to `sink` of so many packets after each.
fn feed_with_filter(to: SocketAddr, sink: &Sink, proxy: &Proxy, mut between: impl FnMut()) {
    // A caller who is connected learns of it half a round trip later, and until then throws away what it is fed.
    let_pass(10 * DELAY);
    let feed = Feed::new(to, TS).run_until(Duration::from_millis(1), PACKETS);
    sink.wait(PACKETS);
    assert_eq!(sink.report(PACKETS), perfect(PACKETS));
    between();
    let loss = Model::Random { share: 0.02 };
    proxy.set_both(link::Config { loss, delay: DELAY, ..link::Config::default() });
    let feed = feed.run_until(Duration::from_millis(1), 2 * PACKETS);
    proxy.set_both(link::Config { delay: DELAY, ..link::Config::default() });
    let feed = feed.run_until(Duration::from_millis(1), 2 * PACKETS + TAIL);
    // Of 40 that get lost, columns of five alone cannot repair four on average, at times a dozen: two of one column.
    let least = feed.made() - proxy.lost() / 2;
    wait_until("what was repaired", || sink.report(feed.made()).received >= least);
    let report = sink.report(feed.made());
    assert_eq!((report.duplicated, report.reordered, report.corrupt), (0, 0, 0), "{report:?}");
    assert!(proxy.lost() > 25, "{} lost", proxy.lost());
}

fn good_path(listener: u16) -> Proxy {
    Proxy::two_way(local(listener), 7, link::Config { delay: DELAY, ..link::Config::default() })
}

pub(crate) fn figure(details: &[(&'static str, f64)], name: &str) -> f64 {
    details.iter().find(|figure| figure.0 == name).unwrap().1
}

#[test]
fn libsrts_repairs_replace_what_got_lost_on_the_way_to_us() {
    if !installed("srt-live-transmit") {
        return;
    }
    // The last one is about packets as they travel, which is encrypted.
    in_parallel(
        [
            (true, "", "fec,cols:10,rows:5,layout:staircase,arq:never"),
            (false, "fec,cols:10,rows:5,arq:never", "fec"),
            (true, "fec", "fec,cols:8,rows:4,layout:even,arq:never"),
            (false, "fec,arq:never,layout:staircase", "fec,cols:6,rows:-5"),
            (true, "", "fec,cols:10,rows:5,arq:never&passphrase=a-secret-of-ours"),
        ],
        libsrts_repairs,
    );
}

/// Once for each of: whether we listen, our filter and theirs.
fn in_parallel(cases: [(bool, &'static str, &'static str); 5], run: fn(bool, &str, &str)) {
    std::thread::scope(|scope| {
        for (we_listen, ours, theirs) in cases {
            scope.spawn(move || run(we_listen, ours, theirs));
        }
    });
}

fn libsrts_repairs(we_listen: bool, ours: &str, theirs: &str) {
    let directory = tempfile::tempdir().unwrap();
    let (rig, sink, port, feed) = (Rig::new(), Sink::new(V4), free_port(), free_port());
    let proxy = good_path(port);
    let secret = theirs.split_once('&').map_or("", |both| both.1);
    let ours = format!("{ROOMY}&{secret}&packetfilter={ours}");
    let theirs = format!("{ROOMY}&packetfilter={theirs}");
    let from = format!("udp://127.0.0.1:{feed}");
    let _peer = if we_listen {
        rig.apply("f", flow([srt(local(port), &format!("mode=listener&{ours}"))], [sink.url()]));
        live_transmit(&from, &srt(proxy.address, &theirs), directory.path())
    } else {
        let peer = live_transmit(&from, &format!("srt://:{port}?mode=listener&{theirs}"), directory.path());
        wait_for_port(port);
        rig.apply("f", flow([srt(proxy.address, &ours)], [sink.url()]));
        peer
    };
    rig.wait_event("f", "the connection", is_connected);
    wait_for_port(feed);
    feed_with_filter(local(feed), &sink, &proxy, || {
        let source = rig.source("f", "s1");
        assert_eq!((source.recovered, source.drops.duplicate, source.lost), (0, 0, 0), "{theirs}: {source:?}");
        assert!(figure(&source.details, "pktRcvFilterExtra") > 300.0, "{theirs}: {source:?}");
    });
    let source = rig.source("f", "s1");
    let supplied = figure(&source.details, "pktRcvFilterSupply");
    assert!(supplied > 15.0 && source.recovered == supplied as u64, "{theirs}: {source:?}");
    assert_eq!(figure(&source.details, "pktSentNAK"), 0.0, "{theirs}");
    assert_eq!(figure(&source.details, "pktRcvRetrans"), 0.0, "{theirs}");
}

#[test]
fn our_repairs_replace_what_got_lost_on_the_way_to_libsrt() {
    if !installed("srt-live-transmit") {
        return;
    }
    in_parallel(
        [
            (false, "fec,cols:10,rows:5,layout:staircase,arq:never", "fec"),
            (true, "", "fec,cols:10,rows:5,arq:never"),
            (false, "fec", "fec,cols:8,rows:4,layout:even,arq:never"),
            (true, "fec,cols:6,rows:-5", "fec,arq:never"),
            (false, "fec,cols:10,rows:5,arq:never&passphrase=a-secret-of-ours", "&passphrase=a-secret-of-ours"),
        ],
        our_repairs,
    );
}

fn our_repairs(we_listen: bool, ours: &str, theirs: &str) {
    let directory = tempfile::tempdir().unwrap();
    let (rig, sink, port, listen) = (Rig::new(), Sink::new(V4), free_port(), local(free_port()));
    let proxy = good_path(port);
    let theirs = if theirs.starts_with('&') { theirs.into() } else { format!("&packetfilter={theirs}") };
    let (ours, theirs) = (format!("{ROOMY}&packetfilter={ours}"), format!("{ROOMY}{theirs}"));
    let _peer = if we_listen {
        rig.apply("f", flow([udp(listen)], [srt(local(port), &format!("mode=listener&{ours}"))]));
        live_transmit(&srt(proxy.address, &theirs), &sink.url(), directory.path())
    } else {
        let from = format!("srt://:{port}?mode=listener&{theirs}");
        let peer = live_transmit(&from, &sink.url(), directory.path());
        wait_for_port(port);
        rig.apply("f", flow([udp(listen)], [srt(proxy.address, &ours)]));
        peer
    };
    rig.wait_event("f", "the connection", is_connected);
    feed_with_filter(listen, &sink, &proxy, || {
        let output = rig.output("f", "o1");
        assert!(figure(&output.details, "pktSndFilterExtra") > 300.0, "{ours}: {output:?}");
    });
    let output = rig.output("f", "o1");
    assert_eq!(figure(&output.details, "pktRecvNAK"), 0.0, "{ours}");
    assert_eq!(figure(&output.details, "pktRetrans"), 0.0, "{ours}");
}

#[test]
fn what_a_filter_could_not_repair_is_asked_for_by_either_side() {
    if !installed("srt-live-transmit") {
        return;
    }
    for arq in ["onreq", "always"] {
        let directory = tempfile::tempdir().unwrap();
        let query = format!("{}&packetfilter=fec,cols:10,arq:{arq}", latency());
        // There over the bad path, and back over another one.
        let (rig, sink) = (Rig::new(), Sink::new(V4));
        let (listen, there, between, back) = (local(free_port()), free_port(), free_port(), free_port());
        let paths = [bad_path(there, 0.02), bad_path(back, 0.02)];
        rig.apply("back", flow([srt(local(back), &format!("mode=listener&{query}"))], [sink.url()]));
        let between = format!("udp://127.0.0.1:{between}");
        let _second = live_transmit(&between, &srt(paths[1].address, &query), directory.path());
        let _first = live_transmit(&format!("srt://:{there}?mode=listener&{query}"), &between, directory.path());
        wait_for_port(there);
        rig.apply("there", flow([udp(listen)], [srt(paths[0].address, &query)]));
        rig.wait_event("there", "the connection", is_connected);
        rig.wait_event("back", "the connection", is_connected);
        let feed = Feed::new(listen, TS).run_until(Duration::from_millis(1), PACKETS);
        paths.iter().for_each(|path| path.set_both(link::Config { delay: DELAY, ..link::Config::default() }));
        let feed = feed.run_until(Duration::from_millis(1), PACKETS + TAIL);
        let least = PACKETS * 995 / 1_000 + TAIL;
        wait_until("the last packet", || sink.report(feed.made()).received >= least);
        let (output, source) = (rig.output("there", "o1"), rig.source("back", "s1"));
        assert!(figure(&source.details, "pktRcvFilterSupply") > 10.0, "{arq}: {source:?}");
        assert!(figure(&source.details, "pktSentNAK") > 0.0, "{arq}: {source:?}");
        assert!(figure(&source.details, "pktRcvRetrans") > 0.0, "{arq}: {source:?}");
        assert!(figure(&output.details, "pktRetrans") > 0.0, "{arq}: {output:?}");
    }
}

#[test]
fn libsrt_and_we_refuse_filters_that_do_not_go_together() {
    if !installed("srt-live-transmit") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (rig, sink, port, listen) = (Rig::new(), Sink::new(V4), free_port(), local(free_port()));
    let theirs = format!("srt://:{port}?mode=listener&packetfilter=fec,cols:20");
    let _listener = live_transmit(&theirs, &sink.url(), directory.path());
    wait_for_port(port);
    rig.apply("calls", flow([udp(listen)], [srt(local(port), "packetfilter=fec,cols:10")]));
    let ours = local(free_port());
    rig.apply("listens", flow([srt(ours, "mode=listener&packetfilter=fec,cols:10")], [sink.url()]));
    let feed = format!("udp://127.0.0.1:{}", free_port());
    let _caller = live_transmit(&feed, &srt(ours, "packetfilter=fec,cols:20"), directory.path());
    let refused = |event: &EventKind| matches!(event, EventKind::ConnectionError { .. });
    for flow in ["calls", "listens"] {
        let event = rig.wait_event(flow, "the refusal", refused).to_string();
        assert!(event.contains("the packet filters do not go together (1014)"), "{event}");
    }
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
fn an_output_that_listens_is_changed_on_its_own_port_and_lets_in_whom_it_shall() {
    let (server, clients) = (Rig::new(), Rig::new());
    let (sink, listen, port) = (Sink::new(V4), local(free_port()), free_port());
    let served = |query: &str| flow([udp(listen)], [srt(local(port), &format!("mode=listener&{query}"))]);
    server.apply("f", served("latency=50"));
    clients.apply("c", flow([srt(local(port), "latency=20")], [sink.url()]));
    clients.wait_event("c", "the connection", is_connected);
    server.apply("f", served("latency=80"));
    let again = || clients.events("c").iter().filter(|event| is_connected(event)).count() == 2;
    wait_until("the connection to the changed output", again);
    let mut closed = served("latency=80");
    closed.outputs[0].allow = AllowList::new(vec!["203.0.113.0/24".parse().unwrap()]).unwrap();
    server.apply("f", closed);
    let lost =
        || clients.events("c").iter().filter(|event| matches!(event, EventKind::PeerDisconnected { .. })).count() == 2;
    wait_until("the end of the connection", lost);
    let silent = |event: &EventKind| matches!(event, EventKind::ConnectionError { .. });
    let event = clients.wait_event("c", "no answer", silent).to_string();
    assert!(event.contains("answer"), "{event}");
}

/// Whoever of the two begins, whoever sends; every other time encrypted.
#[test]
fn libsrt_is_met_in_a_rendezvous() {
    if !installed("srt-live-transmit") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    for (we_send, we_begin) in [(true, true), (true, false), (false, true), (false, false)] {
        let (rig, sink, feed) = (Rig::new(), Sink::new(V4), free_port());
        let (ours, theirs) = (free_port(), free_port());
        let secret = if we_begin { "&passphrase=a-secret-of-ours&pbkeylen=24" } else { "" };
        let srt = |local: u16, peer: u16| {
            format!("srt://127.0.0.1:{peer}?mode=rendezvous&port={local}&adapter=127.0.0.1&{}{secret}", latency())
        };
        let udp = format!("udp://127.0.0.1:{feed}");
        let begin = || {
            let ours = srt(ours, theirs);
            rig.apply("f", if we_send { flow([udp.clone()], [ours]) } else { flow([ours], [sink.url()]) });
        };
        let context = format!("we send: {we_send}, we begin: {we_begin}");
        if we_begin {
            begin();
            let_pass(Duration::from_secs(2));
        }
        let theirs = srt(theirs, ours);
        let (from, to) = if we_send { (theirs, sink.url()) } else { (udp.clone(), theirs) };
        let _peer = live_transmit(&from, &to, directory.path());
        if !we_begin {
            let_pass(Duration::from_secs(2));
            begin();
        }
        rig.wait_event("f", &context, is_connected);
        // It begins to read when it is connected, too.
        wait_for_port(feed);
        let mut packets = Feed::new(local(feed), TS).run_until(Duration::from_millis(1), 500);
        packets = packets.run_until(Duration::from_millis(1), 1_000);
        wait_until(&context, || sink.count() >= 900);
        let report = sink.report(packets.made());
        assert_eq!((report.duplicated, report.reordered, report.corrupt), (0, 0, 0), "{context}: {report:?}");
    }
}

/// A name is looked up on the way in (strict), and by the resolver's threads (lenient).
#[test]
fn a_source_calls_by_name() {
    let (server, clients) = (Rig::new(), Rig::new());
    // Written so it is a name for the resolver.
    let address = ("LocalHost", free_port()).to_socket_addrs().unwrap().next().unwrap();
    server.apply("f", flow([udp(local(free_port()))], [srt(address, "mode=listener")]));
    let by_name = flow([format!("srt://LocalHost:{}", address.port())], [Sink::new(V4).url()]);
    clients.apply("strict", by_name.clone());
    clients.wait_event("strict", "the connection", is_connected);
    clients.apply_leniently("lenient", by_name);
    clients.wait_event("lenient", "the connection", is_connected);
    let error = clients.try_apply("wrong", flow(["srt://no.such.invalid:9000"], ["udp://127.0.0.1:9"])).unwrap_err();
    assert!(error.to_string().starts_with("sources[0]: no.such.invalid"), "{error}");
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

/// Each with a passphrase of its own, on whichever worker it is.
#[test]
fn one_port_takes_callers_onto_the_flows_that_their_stream_ids_name() {
    let (server, clients) = (Rig::new(), Rig::new());
    let port = free_port();
    let names = ["news", "sports", "weather"];
    let sinks = names.map(|_| Sink::new(V4));
    let listener = |name: &str| {
        let secret = format!("the-secret-of-{name}");
        srt(local(port), &format!("mode=listener&latency=50&streamid={name}&passphrase={secret}"))
    };
    for (name, sink) in names.iter().zip(&sinks) {
        server.apply(name, flow([listener(name)], [sink.url()]));
    }
    let error = server.try_apply("other", flow([listener("news")], [sinks[0].url()])).unwrap_err();
    assert!(matches!(error.cause, Cause::InUse { .. }) && error.to_string().contains("news"), "{error}");
    let error = server.try_apply("other", flow([srt(local(port), "mode=listener")], [sinks[0].url()])).unwrap_err();
    assert!(matches!(error.cause, Cause::InUse { .. }), "{error}");

    let mut feeds = Vec::new();
    for name in names {
        let listen = local(free_port());
        let query = format!("latency=50&streamid=%23!::r={name},m=publish&passphrase=the-secret-of-{name}");
        clients.apply(name, flow([udp(listen)], [srt(local(port), &query)]));
        clients.wait_event(name, "the connection", is_connected);
        feeds.push(Feed::new(listen, TS).run(Duration::from_millis(1)));
    }
    let refused = |event: &EventKind| matches!(event, EventKind::ConnectionError { .. });
    for (id, query, reason) in [
        ("unknown", "streamid=chess&passphrase=the-secret-of-news", "no such stream (1404)"),
        ("nameless", "passphrase=the-secret-of-news", "no such stream (1404)"),
        ("wrong", "streamid=news&passphrase=the-secret-of-sports", "(1409)"),
    ] {
        clients.apply(id, flow([udp(local(free_port()))], [srt(local(port), query)]));
        let event = clients.wait_event(id, reason, refused).to_string();
        assert!(event.contains(reason), "{id}: {event}");
    }
    sinks.iter().for_each(|sink| sink.wait(300));
    for (feed, sink) in feeds.into_iter().zip(&sinks) {
        sink.assert_perfect(feed.stop().made());
    }

    // The place of one that has gone is free, and who was connected comes back to the next.
    server.stop("news");
    server.apply("again", flow([listener("news")], [sinks[0].url()]));
    server.wait_event("again", "the connection", is_connected);
}

#[test]
fn libsrt_finds_its_flow_by_stream_id() {
    if !installed("srt-live-transmit") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (rig, sink, port, feed) = (Rig::new(), Sink::new(V4), free_port(), free_port());
    rig.apply("other", flow([srt(local(port), "mode=listener&streamid=other")], [Sink::new(V4).url()]));
    rig.apply("f", flow([srt(local(port), &format!("mode=listener&streamid=main&{}", latency()))], [sink.url()]));
    let proxy = bad_path(port, 0.05);
    let to = srt(proxy.address, &format!("{}&streamid=main", latency()));
    let _peer = live_transmit(&format!("udp://127.0.0.1:{feed}"), &to, directory.path());
    wait_for_port(feed);
    rig.wait_event("f", "the connection", is_connected);
    assert_whole(Feed::new(local(feed), TS), &sink, &proxy);
}

#[test]
fn libsrt_is_told_that_a_stream_is_not_here() {
    if !installed("srt-live-transmit") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (rig, port) = (Rig::new(), free_port());
    rig.apply("f", flow([srt(local(port), "mode=listener&streamid=main")], [Sink::new(V4).url()]));
    let arguments = format!("-v -loglevel:note udp://:{} {}", free_port(), srt(local(port), "streamid=chess"));
    let _peer = Peer::start("srt-live-transmit", &arguments, directory.path());
    // So libsrt calls whatever comes from access_control.h; a code that it does not know is an unknown error.
    wait_until("the reason", || {
        let log = std::fs::read_to_string(directory.path().join("srt-live-transmit.log")).unwrap_or_default();
        log.contains("Application-defined rejection reason")
    });
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

/// What waits at a low rate shows that it is in force, and comes whole when the rate is high again.
#[test]
fn settings_change_on_the_connection_that_there_is() {
    for we_listen in [false, true] {
        let (server, client) = (Rig::new(), Rig::new());
        let (sink, listen, port) = (Sink::new(V4), local(free_port()), free_port());
        let ends = |query: &str| {
            let waits = srt(local(port), &format!("mode=listener&latency=2000{query}"));
            let calls = srt(local(port), &format!("latency=2000{query}"));
            if we_listen { (waits, calls) } else { (calls, waits) }
        };
        let apply_sender = |query: &str| client.apply("f", flow([udp(listen)], [ends(query).0]));
        let apply_receiver = |query: &str| server.apply("f", flow([ends(query).1], [sink.url()]));
        apply_receiver("");
        apply_sender("");
        for rig in [&server, &client] {
            rig.wait_event("f", "the connection", is_connected);
        }
        let feed = Feed::new(listen, TS).run_until(Duration::from_millis(1), 100);
        sink.wait(100);
        // Ten packets a second.
        apply_sender("&maxbw=13600&peeridletimeo=9000");
        apply_receiver("&lossmaxttl=20&conntimeo=1000");
        let feed = feed.run_until(Duration::from_millis(1), 140);
        wait_until("packets to wait", || figure(&client.output("f", "o1").details, "pktSndBuf") >= 30.0);
        assert!(figure(&client.output("f", "o1").details, "mbpsMaxBW") < 0.2);
        apply_sender("");
        sink.assert_perfect(feed.made());
        for rig in [&server, &client] {
            let events = rig.events("f");
            let is_quiet = |event: &EventKind| {
                !matches!(event, EventKind::PeerDisconnected { .. } | EventKind::ConnectionError { .. })
            };
            assert!(events.iter().all(is_quiet), "we listen: {we_listen}: {events:?}");
            assert_eq!(events.iter().filter(|event| is_connected(event)).count(), 1, "{events:?}");
        }
    }
}

/// Over an output that listens, and over a source that shares its port; the numbers wrap on the way.
#[test]
fn rtp_goes_through_srt_with_every_byte_number_and_timestamp() {
    let (listens, calls) = ("mode=listener&latency=400&payload=rtp", "latency=400&payload=rtp");
    for (output, source) in [
        (format!("{listens}&header=keep"), calls.into()),
        (format!("{calls}&header=keep&streamid=news"), format!("{listens}&streamid=news")),
    ] {
        let (sender, receiver, sink) = (Rig::new(), Rig::new(), Sink::keeping(V4));
        let (listen, port) = (local(free_port()), local(free_port()));
        let sends = flow([url_of("rtp", listen, "")], [srt(port, &output)]);
        let receives = flow([srt(port, &source)], [url_of("rtp", sink.address, "header=keep")]);
        if output.contains("listener") {
            sender.apply("f", sends);
            receiver.apply("f", receives);
        } else {
            receiver.apply("f", receives);
            sender.apply("f", sends);
        }
        sender.wait_event("f", "the connection", is_connected);
        receiver.wait_event("f", "the connection", is_connected);
        let mut feed = RtpFeed::new(listen, 5, 65_400);
        let pace = |feed: &mut RtpFeed| {
            let_pass(Duration::from_millis(1));
            feed.send()
        };
        let sent: Vec<Vec<u8>> = (0..300).map(|_| pace(&mut feed)).collect();
        sink.wait(300);
        let came = sink.kept();
        assert_eq!(came.len(), 300, "{output}");
        for (came, sent) in came.iter().zip(&sent) {
            let [came, sent] = [came, sent].map(|datagram| RtpPacket::parse(datagram).unwrap());
            assert_eq!(came.payload(), sent.payload(), "{output}");
            assert_eq!(came.header, Header { ssrc: came.header.ssrc, ..sent.header }, "{output}");
        }
        let source = receiver.source("f", "s1");
        assert_eq!((source.packets, source.drops.malformed, source.lost), (300, 0, 0), "{output}");
        assert_eq!(source.bytes, 300 * TS as u64, "payload, without headers");
    }
}

/// Who does not take the header off gets it, new and of a transport stream; and who expects one counts what has none.
#[test]
fn rtp_in_srt_is_seen_by_whoever_does_not_ask_for_it() {
    let (server, client) = (Rig::new(), Rig::new());
    let (raw, listen) = (Sink::keeping(V4), local(free_port()));
    let (carried, bare) = (local(free_port()), local(free_port()));
    let outputs = [srt(carried, "mode=listener&latency=50&payload=rtp"), srt(bare, "mode=listener&latency=50")];
    server.apply("f", flow([udp(listen)], outputs));
    client.apply("raw", flow([srt(carried, "latency=50")], [raw.url()]));
    client.apply("strict", flow([srt(bare, "latency=50&payload=rtp")], [Sink::new(V4).url()]));
    client.wait_event("raw", "the connection", is_connected);
    client.wait_event("strict", "the connection", is_connected);
    wait_until("both", || server.events("f").iter().filter(|event| is_connected(event)).count() == 2);
    let feed = Feed::new(listen, TS).run_until(Duration::from_millis(1), 200);
    raw.wait(feed.made());
    let headers: Vec<Header> = raw.kept().iter().map(|packet| RtpPacket::parse(packet).unwrap().header).collect();
    assert!(headers.iter().all(|header| header.payload_type == 33 && header.ssrc == headers[0].ssrc));
    assert!(headers.windows(2).all(|pair| pair[0].sequence.add(1) == pair[1].sequence));
    assert!(raw.kept().iter().all(|packet| packet.len() == 12 + TS));
    wait_until("what is no RTP", || client.source("strict", "s1").drops.malformed == 200);
    assert_eq!(client.source("strict", "s1").packets, 0);
}

/// From us to libsrt, which sees the headers, and on to us, who take them off.
#[test]
fn rtp_goes_through_srt_by_way_of_libsrt() {
    if !installed("srt-live-transmit") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (rig, sink, listen) = (Rig::new(), Sink::new(V4), local(free_port()));
    let (there, back) = (free_port(), free_port());
    rig.apply("back", flow([srt(local(back), "mode=listener&latency=400&payload=rtp")], [sink.url()]));
    // Longer than its default for what it sends.
    let to = srt(local(back), "latency=400&payloadsize=1456");
    let _peer = live_transmit(&format!("srt://:{there}?mode=listener&latency=400"), &to, directory.path());
    rig.wait_event("back", "the connection", is_connected);
    wait_for_port(there);
    rig.apply("there", flow([udp(listen)], [srt(local(there), "latency=400&payload=rtp")]));
    rig.wait_event("there", "the connection", is_connected);
    let feed = Feed::new(listen, TS).run_until(Duration::from_millis(1), 1_000);
    sink.assert_perfect(feed.made());
    assert_eq!(rig.source("back", "s1").bytes, feed.made() * TS as u64);
}
