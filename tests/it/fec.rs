//! RTP with forward error correction on real sockets: ourselves, ffmpeg and GStreamer over paths that lose media, columns
//! and rows alike.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anabranch::adapters::clock;
use anabranch::engine::SourceSnapshot;
use anabranch::proto::fec::FecHeader;
use anabranch::proto::rtp::RtpPacket;
use anabranch::sim::link::{self, Link};
use anabranch::sim::loss::Model;
use anabranch::sim::traffic;

use crate::peers::{Peer, installed, wait_for_port};
use crate::support::{Feed, Rig, Sink, TS, V4, flow, free_block, free_port, lock, roomy, udp, url_of, wait_until};

/// Shares of media, columns and rows that get lost. With 8x4 no decoder brings back more than 100, 99.95, 99.40 and
/// 95.25 % in the long run; here it is known for each run what could be brought back.
const SHARES: [f64; 4] = [0.01, 0.02, 0.05, 0.1];

#[test]
fn lost_packets_come_back_between_us() {
    let rig = Rig::new();
    let fan = Fan::new(&SHARES);
    let receivers = Receivers::start(&rig, &fan);
    let listen = (V4, free_port()).into();
    rig.apply("out", flow([udp(listen)], [url_of("rtp-fec", fan.address, "ssrc=7")]));
    let feed = Feed::new(listen, TS).run_until(Duration::from_micros(300), PACKETS);
    wait_until("the last packet", || fan.passed() == feed.made());
    receivers.check(&rig, &fan);
    // All rows, and all columns but those of the last matrix. They are looked at from time to time.
    wait_until("the figures", || {
        let details: BTreeMap<_, _> = rig.output("out", "o1").details.into_iter().collect();
        (details["rows_sent"], details["columns_sent"]) == (PACKETS as f64 / 8.0, PACKETS as f64 / 4.0 - 8.0)
    });
    let output = rig.output("out", "o1");
    assert_eq!((output.protocol, output.packets), ("rtp-fec", PACKETS));
    // What came without loss is what was sent.
    assert_eq!(receivers.good.count(), PACKETS);
    let numbers = receivers.good.kept().iter().map(|packet| traffic::number(packet)).collect::<Option<Vec<u64>>>();
    assert!(numbers.unwrap().is_sorted());
}

#[test]
fn ffmpeg_sends_fec_to_us() {
    if !installed("ffmpeg") {
        return;
    }
    let rig = Rig::new();
    let fan = Fan::new(&SHARES);
    let receivers = Receivers::start(&rig, &fan);
    let directory = tempfile::tempdir().unwrap();
    let command = format!(
        "-hide_banner -loglevel warning -re -f lavfi -i testsrc=size=320x240:rate=25 -t 9 -c:v mpeg2video -b:v 2M \
         -f rtp_mpegts -mpegts_muxer_options muxrate=16000000 -fec prompeg=l=8:d=4 {}",
        url_of("rtp", fan.address, "pkt_size=1328")
    );
    Peer::run("ffmpeg", &command, directory.path());
    assert!(fan.passed() > GOOD_END, "ffmpeg sent {}", fan.passed());
    receivers.check(&rig, &fan);
}

#[test]
fn gstreamer_sends_fec_to_us() {
    if !installed("gst-launch-1.0") {
        return;
    }
    let rig = Rig::new();
    let fan = Fan::new(&SHARES);
    let receivers = Receivers::start(&rig, &fan);
    let directory = tempfile::tempdir().unwrap();
    let (port, from) = (fan.address.port(), free_port());
    let command = format!(
        "-q udpsrc address=127.0.0.1 port={from} buffer-size=4000000 \
         caps=video/mpegts,systemstream=true,packetsize=188 ! rtpmp2tpay ssrc=0 mtu=1328 \
         ! rtpst2022-1-fecenc name=e rows=4 columns=8 e.src ! udpsink host=127.0.0.1 port={port} \
         e.fec_0 ! udpsink host=127.0.0.1 port={} async=false e.fec_1 ! udpsink host=127.0.0.1 port={} async=false",
        port + 2,
        port + 4
    );
    let _peer = Peer::start("gst-launch-1.0", &command, directory.path());
    wait_for_port(from);
    let feed = Feed::new((V4, from).into(), TS).run_until(Duration::from_micros(400), PACKETS);
    wait_until("the last packet", || fan.passed() == feed.made());
    receivers.check(&rig, &fan);
    assert_eq!(receivers.good.count(), PACKETS);
}

/// At such rates datagrams gather in each socket, and FEC packets are often read before what they protect.
#[test]
fn nothing_is_rebuilt_where_nothing_is_lost() {
    let rig = Rig::new();
    let (sink, listen) = (Sink::new(V4), (V4, free_port()).into());
    let between = SocketAddr::from((V4, free_block(3)));
    rig.apply("in", flow([url_of("rtp-fec", between, "")], [sink.url()]));
    rig.apply("out", flow([udp(listen)], [url_of("rtp", between, "fec=2022-1&l=5&d=5&rows=1")]));
    let feed = Feed::new(listen, TS).run_until(Duration::from_micros(80), PACKETS);
    sink.assert_perfect(feed.made());
    wait_until("the figures", || rig.source("in", "s1").packets == PACKETS);
    let SourceSnapshot { recovered, lost, drops, .. } = rig.source("in", "s1");
    assert_eq!((recovered, lost, drops.duplicate, drops.late), (0, 0, 0, 0));
}

/// GStreamer's decoder repeats and reorders what it puts out; what counts here is that it can use what we send.
#[test]
fn gstreamer_recovers_with_what_we_send() {
    if !installed("gst-launch-1.0") {
        return;
    }
    let rig = Rig::new();
    let shares = [0.01, 0.05];
    let fan = Fan::new(&shares);
    let directory = tempfile::tempdir().unwrap();
    let sinks: Vec<Sink> = shares.iter().map(|_| Sink::keeping(V4)).collect();
    let mut peers = Vec::new();
    for (bad, sink) in fan.bad.iter().zip(&sinks) {
        let port = bad.port();
        let mut command = format!(
            "-q rtpst2022-1-fecdec name=d size-time=3000000000 d.src ! udpsink host=127.0.0.1 port={} sync=false",
            sink.address.port()
        );
        let media = "application/x-rtp,media=video,clock-rate=90000,encoding-name=MP2T,payload=33";
        let pads = [
            (0, "sink", media),
            (2, "fec_0", "application/x-rtp,payload=96"),
            (4, "fec_1", "application/x-rtp,payload=96"),
        ];
        for (distance, pad, caps) in pads {
            write!(
                command,
                " udpsrc address=127.0.0.1 port={} buffer-size=4000000 caps={caps} ! d.{pad}",
                port + distance
            )
            .unwrap();
        }
        peers.push(Peer::start("gst-launch-1.0", &command, directory.path()));
        [0, 2, 4].iter().for_each(|distance| wait_for_port(port + distance));
    }
    let listen = (V4, free_port()).into();
    rig.apply("out", flow([udp(listen)], [url_of("rtp", fan.address, "fec=2022-1&l=8&d=4&rows=1")]));
    let feed = Feed::new(listen, TS).run_until(Duration::from_micros(400), PACKETS);
    wait_until("the last packet", || fan.passed() == feed.made());
    for (index, (sink, lost_max)) in sinks.iter().zip([3, 20]).enumerate() {
        let (_, lost) = fan.media(index);
        let came = || {
            let kept = sink.kept();
            let numbers =
                kept.iter().filter_map(|datagram| traffic::number(RtpPacket::parse(datagram).ok()?.payload()));
            numbers.collect::<BTreeSet<u64>>().len() as u64
        };
        wait_until("GStreamer's recovery", || came() + lost_max >= PACKETS);
        assert!(lost > 10 * lost_max, "{lost} were lost");
    }
}

/// Whoever has no use for FEC receives the media, and that nobody listens to the FEC ports disturbs nothing.
#[test]
fn fec_is_no_burden_to_whoever_does_not_want_it() {
    let rig = Rig::new();
    let (sink, listen) = (Sink::new(V4), (V4, free_port()).into());
    let between = SocketAddr::from((V4, free_block(3)));
    rig.apply("in", flow([url_of("rtp", between, "")], [sink.url()]));
    rig.apply("out", flow([udp(listen)], [url_of("rtp", between, "fec=2022-1&l=5&d=5&rows=1")]));
    Feed::new(listen, TS).send_to_all(500, &[&sink]);
    sink.assert_perfect(500);
    let output = rig.output("out", "o1");
    assert_eq!((output.packets, output.disconnections), (500, 0), "{output:?}");
    assert!(output.drops.fec > 0, "{output:?}");
    assert_eq!(rig.source("in", "s1").details, []);
}

#[test]
fn the_fec_ports_are_needed_too() {
    let rig = Rig::new();
    let port = free_block(3);
    let wanted = flow([url_of("rtp", (V4, port).into(), "fec=2022-1")], ["udp://127.0.0.1:9"]);
    for distance in [2, 4] {
        let taken = UdpSocket::bind((V4, port + distance)).unwrap();
        let error = rig.try_apply("f", wanted.clone()).unwrap_err();
        assert!(error.to_string().contains(&format!("127.0.0.1:{} is in use", port + distance)), "{error}");
        drop(taken);
    }
    rig.apply("f", wanted);
}

/// Flows that receive what a [`Fan`] passes on: one without loss, the others with FEC.
struct Receivers {
    good: Sink,
    bad: Vec<Sink>,
}

impl Receivers {
    fn start(rig: &Rig, fan: &Fan) -> Self {
        let receivers = Self { good: Sink::keeping(V4), bad: fan.bad.iter().map(|_| Sink::keeping(V4)).collect() };
        rig.apply("good", flow([url_of("rtp", fan.good, "")], [receivers.good.url()]));
        for (index, (address, sink)) in fan.bad.iter().zip(&receivers.bad).enumerate() {
            rig.apply(&format!("bad{index}"), flow([url_of("rtp-fec", *address, "")], [sink.url()]));
        }
        receivers
    }

    /// What came with loss is what came without, in its order and once, but for as few as may be missing.
    fn check(&self, rig: &Rig, fan: &Fan) {
        self.good.wait(fan.passed());
        let sent = self.good.kept();
        for (index, (sink, share)) in self.bad.iter().zip(SHARES).enumerate() {
            let (seen, lost) = fan.media(index);
            let source = || rig.source(&format!("bad{index}"), "s1");
            wait_until("the end", || source().packets + source().lost == seen && sink.count() == source().packets);
            let came = sink.kept();
            let mut rest = sent.iter();
            assert!(
                came.iter().all(|packet| rest.any(|sent| sent == packet)),
                "{share}: repeated, reordered or changed"
            );
            let SourceSnapshot { recovered, lost: missing, .. } = source();
            let hopeless = fan.hopeless(index);
            let back = 1.0 - missing as f64 / lost as f64;
            eprintln!(
                "{share}: {lost} of {seen} lost, {recovered} came back: {back:.4}; {missing} did not, {hopeless} could not"
            );
            // On a busy machine FEC packets may be read too late.
            assert!((hopeless..=hopeless + 2 + lost / 50).contains(&missing), "{share}");
            assert!((lost as f64 / (GOOD_END - GOOD_START) as f64 - share).abs() < share * 0.4, "{share}: {lost} lost");
            let details: BTreeMap<_, _> = source().details.into_iter().collect();
            assert_eq!((details["matrix_columns"], details["matrix_rows"]), (8.0, 4.0), "{share}: {details:?}");
            assert_eq!((details["malformed"], details["refused"]), (0.0, 0.0), "{share}: {details:?}");
        }
    }
}

/// Passes media and FEC on to several receivers, to one all of it and to each other one what its links let through.
struct Fan {
    address: SocketAddr,
    good: SocketAddr,
    bad: Vec<SocketAddr>,
    passed: Arc<AtomicU64>,
    /// Numbers of media packets.
    sent: Arc<Mutex<BTreeSet<u16>>>,
    /// To the bad ones, for media, columns and rows.
    ways: [Vec<Arc<Mutex<Way>>>; 3],
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Fan {
    fn new(shares: &[f64]) -> Self {
        let address = || SocketAddr::from((V4, free_block(3)));
        let ways = |port: u64| -> Vec<Arc<Mutex<Way>>> {
            let way = |(index, share): (usize, &f64)| {
                let config = link::Config { loss: Model::Random { share: *share }, ..link::Config::default() };
                Arc::new(Mutex::new(Way { link: Link::new(config, index as u64 * 10 + port), groups: Vec::new() }))
            };
            shares.iter().enumerate().map(way).collect()
        };
        let mut fan = Self {
            address: address(),
            good: address(),
            bad: shares.iter().map(|_| address()).collect(),
            passed: Arc::default(),
            sent: Arc::default(),
            ways: [ways(0), ways(1), ways(2)],
            stop: Arc::default(),
            threads: Vec::new(),
        };
        let [media, columns, rows] = fan.ways.clone();
        fan.relay(0, media);
        fan.relay(2, columns);
        fan.relay(4, rows);
        fan
    }

    /// Media packets so far.
    fn passed(&self) -> u64 {
        self.passed.load(Ordering::Acquire)
    }

    /// Media packets for a receiver, and how many of them it lost.
    fn media(&self, index: usize) -> (u64, u64) {
        (self.passed(), lock(&self.ways[0][index]).link.stats().lost)
    }

    /// How many of them no decoder could have brought back: after as many turns as it takes through all groups.
    fn hopeless(&self, index: usize) -> u64 {
        let [media, columns, rows] = [0, 1, 2].map(|port| lock(&self.ways[port][index]).groups.clone());
        let sent = lock(&self.sent).clone();
        let mut came: BTreeSet<u16> = media.into_iter().flatten().collect();
        loop {
            let before = came.len();
            for group in columns.iter().chain(&rows) {
                let missing: Vec<u16> = group.iter().filter(|number| !came.contains(number)).copied().collect();
                if let [one] = missing[..] {
                    came.insert(one);
                }
            }
            if came.len() == before {
                return sent.difference(&came).count() as u64;
            }
        }
    }

    fn relay(&mut self, distance: u16, ways: Vec<Arc<Mutex<Way>>>) {
        let after = |address: SocketAddr| SocketAddr::new(address.ip(), address.port() + distance);
        let from = roomy(after(self.address));
        from.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let to = UdpSocket::bind((V4, 0)).unwrap();
        let (good, bad) = (after(self.good), self.bad.iter().copied().map(after).collect::<Vec<_>>());
        let (passed, sent, stop) = (Arc::clone(&self.passed), Arc::clone(&self.sent), Arc::clone(&self.stop));
        self.threads.push(std::thread::spawn(move || {
            let mut buffer = [0; 2_048];
            while !stop.load(Ordering::Relaxed) {
                let Ok(len) = from.recv(&mut buffer) else { continue };
                let datagram = &buffer[..len];
                // An answer to an earlier datagram is none to this one; whoever does not listen misses it.
                let send = |to_address: &SocketAddr| {
                    if to.send_to(datagram, to_address).is_err() {
                        let _ = to.send_to(datagram, to_address);
                    }
                };
                let is_lossy = (GOOD_START..GOOD_END).contains(&passed.load(Ordering::Acquire));
                send(&good);
                let group = group(datagram);
                for (way, address) in ways.iter().zip(&bad) {
                    let mut way = lock(way);
                    if !is_lossy || !way.link.carry(clock::now(), len).is_empty() {
                        send(address);
                        way.groups.push(group.clone());
                    }
                }
                if distance == 0 {
                    lock(&sent).extend(group);
                    passed.fetch_add(1, Ordering::AcqRel);
                }
            }
        }));
    }
}

/// One direction to one receiver.
struct Way {
    link: Link,
    /// What each datagram that it let through is about.
    groups: Vec<Vec<u16>>,
}

/// The numbers that a FEC packet protects, or the one of a media packet. A test sends less than a cycle of them.
fn group(datagram: &[u8]) -> Vec<u16> {
    let header = RtpPacket::parse(datagram).unwrap().header;
    if header.payload_type == 33 {
        return vec![header.sequence.value() as u16];
    }
    let (header, _) = FecHeader::parse(datagram).unwrap();
    let step = u32::from(header.offset);
    (0..u32::from(header.count)).map(|n| header.base.add(n * step).value() as u16).collect()
}

impl Drop for Fan {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

const PACKETS: u64 = 12_000;
/// Media packets after which loss begins, and before which it ends: each matrix in between is sent to its end.
const GOOD_START: u64 = 500;
const GOOD_END: u64 = 11_500;
