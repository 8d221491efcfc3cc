//! RTP in and out on real sockets: headers, restarts, reports, and what is no RTP.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anabranch::engine::EventKind;
use anabranch::proto::rtp::{Header, RtpPacket};
use anabranch::units::Seq;

use crate::proxy::Proxy;
use crate::support::{Feed, Rig, Sink, TS, V4, V6, flow, free_port, udp, url_of, wait_until};

/// Sends RTP by hand: numbered payload under any header.
pub(crate) struct RtpFeed {
    feed: Feed,
    ssrc: u32,
    sequence: u32,
}

impl RtpFeed {
    pub(crate) fn new(target: SocketAddr, ssrc: u32, sequence: u32) -> Self {
        Self { feed: Feed::new(target, TS), ssrc, sequence }
    }

    /// Says what it sent.
    pub(crate) fn send(&mut self) -> Vec<u8> {
        let header = Header {
            marker: false,
            payload_type: 33,
            sequence: Seq::new(self.sequence),
            timestamp: self.sequence.wrapping_mul(90),
            ssrc: self.ssrc,
        };
        self.sequence += 1;
        let datagram = [&header.to_bytes()[..], &self.feed.next()].concat();
        self.feed.socket.send(&datagram).unwrap();
        datagram
    }
}

#[test]
fn rtp_carries_every_byte() {
    for ip in [V4, V6] {
        let rig = Rig::new();
        let (sink, listen) = (Sink::new(ip), (ip, free_port()).into());
        let between = (ip, free_port()).into();
        rig.apply("in", flow([url_of("rtp", between, "")], [sink.url()]));
        rig.apply("out", flow([udp(listen)], [url_of("rtp", between, "")]));
        let mut feed = Feed::new(listen, TS);
        feed.send_to_all(2_000, &[&sink]);
        sink.assert_perfect(2_000);
        wait_until("the counter", || rig.output("out", "o1").packets == 2_000);
        assert_eq!(rig.output("out", "o1").bytes, 2_000 * TS as u64, "payload, without headers");
        assert_eq!(rig.source("in", "s1").lost, 0);
    }
}

/// Headers do not keep packets from leaving together.
#[test]
fn rtp_is_coalesced() {
    let rig = Rig::new();
    let (sink, listen, between) = (Sink::new(V4), (V4, free_port()).into(), (V4, free_port()).into());
    rig.apply("in", flow([url_of("rtp", between, "")], [sink.url()]));
    rig.apply("out", flow([udp(listen)], [url_of("rtp", between, "coalesce=10ms")]));
    let mut feed = Feed::new(listen, TS);
    for _ in 0..20 {
        (0..10).for_each(|_| feed.send());
        sink.wait(feed.made());
    }
    sink.assert_perfect(200);
    wait_until("packets that shared a send", || rig.output("out", "o1").gso_packets >= 100);
}

/// A kept header shows the numbers, gaps and timestamps of the source, over the wrap; a new one has no gaps.
#[test]
fn a_kept_header_keeps_its_numbers() {
    let rig = Rig::new();
    let (kept, new, listen) = (Sink::keeping(V4), Sink::keeping(V4), (V4, free_port()).into());
    let outputs = [url_of("rtp", kept.address, "header=keep"), url_of("rtp", new.address, "ssrc=77")];
    rig.apply("f", flow([url_of("rtp", listen, "reorder=10")], outputs));
    let mut sender = RtpFeed::new(listen, 5, 65_500);
    let mut sent = Vec::new();
    for n in 0..200 {
        if n % 40 == 17 {
            sender.sequence += 3;
        }
        sent.push((sender.sequence as u16, sender.sequence.wrapping_mul(90)));
        sender.send();
        // A gap is held for the window; then it goes on.
        kept.wait(n + 1);
    }
    new.wait(200);
    let headers = |sink: &Sink| sink.kept().iter().map(|datagram| RtpPacket::parse(datagram).unwrap().header).collect();
    let kept: Vec<Header> = headers(&kept);
    assert_eq!(kept.iter().map(|header| (header.sequence.value() as u16, header.timestamp)).collect::<Vec<_>>(), sent);
    let new: Vec<Header> = headers(&new);
    assert!(new.windows(2).all(|pair| pair[0].sequence.add(1) == pair[1].sequence));
    assert!(new.iter().all(|header| header.ssrc == 77));
    assert_eq!(rig.source("f", "s1").lost, 5 * 3);
}

#[test]
fn a_gap_is_given_up_without_further_traffic() {
    let rig = Rig::new();
    let (sink, listen) = (Sink::new(V4), (V4, free_port()).into());
    rig.apply("f", flow([url_of("rtp", listen, "")], [sink.url()]));
    let mut sender = RtpFeed::new(listen, 5, 100);
    sender.send();
    sender.sequence += 1;
    sender.send();
    sink.assert_perfect(2);
    wait_until("the loss", || rig.source("f", "s1").lost == 1);
}

#[test]
fn a_sender_that_starts_over_is_followed_without_a_loss() {
    let rig = Rig::new();
    let (sink, listen) = (Sink::new(V4), (V4, free_port()).into());
    rig.apply("f", flow([url_of("rtp", listen, "")], [sink.url()]));
    let mut sender = RtpFeed::new(listen, 5, 100);
    for (ssrc, sequence) in [(5, 100), (6, 40_000), (6, 100), (5, 65_530)] {
        (sender.ssrc, sender.sequence) = (ssrc, sequence);
        (0..100).for_each(|_| _ = sender.send());
        sink.wait(sender.feed.made());
    }
    sink.assert_perfect(400);
    wait_until("three restarts", || {
        rig.events("f").iter().filter(|event| matches!(event, EventKind::SourceRestarted { .. })).count() == 3
    });
    assert_eq!(rig.source("f", "s1").lost, 0);
}

#[test]
fn a_goodbye_is_told() {
    let rig = Rig::new();
    let (sink, listen, between) = (Sink::new(V4), (V4, free_port()).into(), (V4, free_port()).into());
    rig.apply("in", flow([url_of("rtp", between, "")], [sink.url()]));
    rig.apply("out", flow([udp(listen)], [url_of("rtp", between, "")]));
    let is_end = |event: &EventKind| matches!(event, EventKind::SourceEof { .. });
    Feed::new(listen, TS).send_to_all(100, &[&sink]);
    assert!(!rig.events("in").iter().any(is_end));
    rig.stop("out");
    rig.wait_event("in", "the end", is_end);
    // Another one may begin.
    rig.apply("out", flow([udp(listen)], [url_of("rtp", between, "")]));
    Feed::new(listen, TS).send_to_all(100, &[&sink]);
    rig.apply("out", flow([udp(listen)], [] as [&str; 0]));
    wait_until("the second end", || rig.events("in").iter().filter(|event| is_end(event)).count() == 2);
}

/// Sender and receiver reports, 40 ms each way.
#[test]
fn reports_measure_the_round_trip() {
    let rig = Rig::new();
    let (sink, listen) = (Sink::new(V4), (V4, free_port()).into());
    let receiver = SocketAddr::from((V4, free_port()));
    let proxy = Proxy::new(receiver, 1, Duration::from_millis(40));
    rig.apply("in", flow([url_of("rtp", receiver, "")], [sink.url()]));
    rig.apply("out", flow([udp(listen)], [url_of("rtp", proxy.address, "")]));
    let feed = Feed::new(listen, TS).run(Duration::from_millis(2));
    wait_until("a round trip", || rig.output("out", "o1").round_trip.is_some());
    let output = rig.output("out", "o1");
    assert!(output.round_trip >= Some(Duration::from_millis(79)), "{output:?}");
    assert_eq!(output.peer_loss, Some(0.0));
    let made = feed.stop().made();
    sink.assert_perfect(made);
    assert_eq!(rig.source("in", "s1").drops.malformed, 0);
}

/// Whatever comes to the two ports and is no RTP is counted; what is goes on.
#[test]
fn what_is_no_rtp_is_counted_and_harms_nothing() {
    let rig = Rig::new();
    let (sink, listen) = (Sink::new(V4), SocketAddr::from((V4, free_port())));
    rig.apply("f", flow([url_of("rtp", listen, "")], [sink.url()]));
    let stranger = UdpSocket::bind((V4, 0)).unwrap();
    let control = SocketAddr::from((V4, listen.port() + 1));
    let mut sender = RtpFeed::new(listen, 5, 100);
    // Too short, version 0, padding beyond the end, CSRC list beyond the end, a bare transport stream, RTCP cut short.
    let bad: [&[u8]; 7] =
        [&[], &[0x80], &[0; 40], &[0xa0; 13], &[0x8f; 20], &[0x47; 188], &[0x80, 200, 0, 6, 1, 2, 3, 4, 5]];
    for _ in 0..10 {
        for datagram in bad {
            stranger.send_to(datagram, listen).unwrap();
            stranger.send_to(datagram, control).unwrap();
        }
        sender.send();
    }
    sink.assert_perfect(10);
    wait_until("the count", || {
        let drops = rig.source("f", "s1").drops;
        // An empty control datagram is a compound of nothing: neither good nor bad.
        drops.malformed + drops.unexpected >= 10 * (7 + 6)
    });
    assert_eq!(rig.source("f", "s1").packets, 10);
}

#[test]
fn another_payload_type_is_unexpected_unless_any_will_do() {
    let rig = Rig::new();
    let [strict, open] = [free_port(), free_port()].map(|port| SocketAddr::from((V4, port)));
    let sinks = [Sink::new(V4), Sink::new(V4)];
    rig.apply("strict", flow([url_of("rtp", strict, "")], [sinks[0].url()]));
    rig.apply("open", flow([url_of("rtp", open, "pt=any")], [sinks[1].url()]));
    let listen = (V4, free_port()).into();
    let outputs = [strict, open].map(|address| url_of("rtp", address, "pt=96"));
    rig.apply("out", flow([udp(listen)], outputs));
    Feed::new(listen, TS).send_to_all(100, &[&sinks[1]]);
    sinks[1].assert_perfect(100);
    wait_until("the count", || rig.source("strict", "s1").drops.unexpected == 100);
    assert_eq!(sinks[0].count(), 0);
}

/// A control port in use is refused like a media port.
#[test]
fn the_control_port_is_needed_too() {
    let rig = Rig::new();
    let port = free_port();
    let taken = UdpSocket::bind((V4, port + 1)).unwrap();
    let wanted = flow([url_of("rtp", (V4, port).into(), "")], ["udp://127.0.0.1:9"]);
    let error = rig.try_apply("f", wanted.clone()).unwrap_err();
    assert!(error.to_string().contains(&format!("127.0.0.1:{} is in use", port + 1)), "{error}");
    drop(taken);
    rig.apply("f", wanted);
}
