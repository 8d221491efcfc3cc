//! Allow-lists and rate limits: what is refused is counted and disturbs nobody.

use std::net::{SocketAddr, UdpSocket};
use std::num::NonZeroU32;
use std::time::Duration;

use anabranch::engine::EventKind;
use anabranch::path::{AllowList, limit};
use anabranch::units::Bitrate;

use crate::support::{Feed, Rig, Sink, TS, V4, flow, free_port, let_pass, udp, wait_until};

fn limited(packets_per_second: u32) -> limit::Config {
    limit::Config {
        packets_per_second: NonZeroU32::new(packets_per_second),
        burst: Duration::from_millis(100),
        abuse_after: Some(Duration::from_millis(200)),
        ..limit::Config::default()
    }
}

#[test]
fn only_listed_senders_are_let_in() {
    let rig = Rig::new();
    let (sink, listen) = (Sink::new(V4), SocketAddr::from((V4, free_port())));
    let mut config = flow([udp(listen)], [sink.url()]);
    config.sources[0].allow = AllowList::new(vec!["127.0.0.8/30".parse().unwrap()]).unwrap();
    rig.apply("f", config);
    let from = |last| Feed::from(UdpSocket::bind(SocketAddr::from(([127, 0, 0, last], 0))).unwrap(), listen, TS);
    let (mut friend, mut stranger) = (from(9), from(7));
    for _ in 0..20 {
        (0..10).for_each(|_| stranger.send());
        friend.send_to_all(10, &[&sink]);
    }
    sink.assert_perfect(200);
    wait_until("the counter", || rig.source("f", "s1").drops.not_allowed == 200);
    assert_eq!(rig.source("f", "s1").packets, 200);
}

/// A stranger alone does not make a source alive.
#[test]
fn strangers_do_not_count_as_a_source() {
    let rig = Rig::new();
    let (sink, ports) = (Sink::new(V4), [free_port(), free_port()]);
    let [guarded, open] = ports.map(|port| SocketAddr::from((V4, port)));
    let mut config = flow([udp(guarded), udp(open)], [sink.url()]);
    config.sources[0].allow = AllowList::new(vec!["192.0.2.1".parse().unwrap()]).unwrap();
    rig.apply("f", config);
    let mut stranger = Feed::new(guarded, TS);
    (0..50).for_each(|_| stranger.send());
    let mut feed = Feed::new(open, TS);
    feed.send_to_all(50, &[&sink]);
    wait_until("the counter", || rig.source("f", "s1").drops.not_allowed == 50);
    assert_eq!(rig.snapshot("f").active_source.map(|name| name.to_string()).as_deref(), Some("s2"));
}

/// A sender at far above its limit: its excess is dropped and called abuse once, another flow on the same worker loses
/// nothing.
#[test]
fn a_sender_over_its_limit_harms_only_itself() {
    let rig = Rig::new();
    let (sink, listen) = (Sink::new(V4), (V4, free_port()).into());
    let (other_sink, other) = (Sink::new(V4), (V4, free_port()).into());
    let mut config = flow([udp(listen)], [sink.url()]);
    config.sources[0].limit = Some(limited(100));
    rig.apply("limited", config);
    rig.apply("other", flow([udp(other)], [other_sink.url()]));
    let flood = Feed::new(listen, TS).run(Duration::from_micros(200));
    let feed = Feed::new(other, TS).run(Duration::from_millis(1));
    let is_abuse = |event: &EventKind| matches!(event, EventKind::SourceAbuse { .. });
    rig.wait_event("limited", "the abuse", is_abuse);
    let_pass(Duration::from_millis(500));
    let (flood, feed) = (flood.stop(), feed.stop());
    other_sink.assert_perfect(feed.made());
    wait_until("all of them", || {
        let source = rig.source("limited", "s1");
        source.packets + source.drops.over_limit == flood.made()
    });
    let source = rig.source("limited", "s1");
    assert!(source.packets > 10, "the limit itself always gets through, not only {}", source.packets);
    assert!(source.drops.over_limit > source.packets);
    sink.wait(source.packets);
    assert_eq!(sink.report(source.packets).corrupt, 0);
    assert_eq!(rig.events("limited").iter().filter(|event| is_abuse(event)).count(), 1);
    assert!(!rig.events("other").iter().any(is_abuse));
}

#[test]
fn an_output_over_its_limit_does_not_hold_up_the_others() {
    let rig = Rig::new();
    let (free, limited_sink, listen) = (Sink::new(V4), Sink::new(V4), (V4, free_port()).into());
    let mut config = flow([udp(listen)], [free.url(), limited_sink.url()]);
    config.outputs[1].limit = Some(limit::Config { bitrate: Some(Bitrate::from_bps(500_000)), ..limited(1_000_000) });
    rig.apply("f", config);
    let mut feed = Feed::new(listen, TS);
    feed.send_to_all(2_000, &[&free]);
    free.assert_perfect(2_000);
    wait_until("all of them", || {
        let output = rig.output("f", "o2");
        output.packets + output.drops.over_limit == 2_000
    });
    let output = rig.output("f", "o2");
    assert!(output.drops.over_limit > 0 && output.packets > 4, "{output:?}");
    limited_sink.wait(output.packets);
}
