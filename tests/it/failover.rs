//! Several sources on real sockets: who is used when.

use std::net::SocketAddr;
use std::time::Duration;

use anabranch::engine::{EventKind, FlowConfig};
use anabranch::path::failover::Cause;

use crate::support::{Feed, Rig, RunningFeed, Sink, V4, flow, free_port, source, udp, wait_until};

const HEALTH_TIMEOUT: Duration = Duration::from_millis(200);
const HOLD_OFF: Duration = Duration::from_millis(600);
const INTERVAL: Duration = Duration::from_millis(2);

fn with_sources(ports: &[SocketAddr], sink: &Sink) -> FlowConfig {
    let mut config = flow(ports.iter().map(|port| udp(*port)), [sink.url()]);
    config.failover.health_timeout = HEALTH_TIMEOUT;
    config.failover.hold_off = HOLD_OFF;
    config
}

fn ports(count: usize) -> Vec<SocketAddr> {
    (0..count).map(|_| (V4, free_port()).into()).collect()
}

/// A feed whose packets are 188 times `n` bytes long, so that a sink sees which one it gets.
fn feed(port: SocketAddr, n: usize) -> RunningFeed {
    Feed::new(port, 188 * n).run(INTERVAL)
}

fn active(rig: &Rig) -> Option<String> {
    rig.snapshot("f").active_source.map(|name| name.to_string())
}

fn wait_active(rig: &Rig, name: &str) {
    wait_until(name, || active(rig).as_deref() == Some(name));
}

/// The length of the latest datagram says whose it is.
fn wait_for_packets_of(sink: &Sink, n: usize) {
    wait_until("packets of the source", || sink.kept().last().is_some_and(|last| last.len() == 188 * n));
}

#[test]
fn the_backup_takes_over_and_the_primary_returns() {
    let rig = Rig::new();
    let (sink, ports) = (Sink::keeping(V4), ports(3));
    rig.apply("f", with_sources(&ports, &sink));
    let primary = feed(ports[0], 1);
    wait_active(&rig, "s1");
    let backups = [feed(ports[1], 2), feed(ports[2], 3)];
    wait_until("warm backups", || rig.snapshot("f").sources.iter().all(|source| source.packets > 0));
    wait_active(&rig, "s1");

    let primary = primary.stop();
    let event = rig.wait_event("f", "the failover", |event| matches!(event, EventKind::SourceFailover { .. }));
    let [from, to] = ["s1", "s2"].map(|name| name.parse().unwrap());
    let expected = EventKind::SourceFailover { from, to, cause: Cause::Silent, silent: HEALTH_TIMEOUT };
    assert_eq!(event, expected);
    wait_active(&rig, "s2");
    wait_for_packets_of(&sink, 2);
    rig.wait_event("f", "the loss", |event| *event == EventKind::SourceLost { source: "s1".parse().unwrap() });

    let primary = primary.run(INTERVAL);
    rig.wait_event("f", "the return", |event| *event == EventKind::PrimaryRecovered { source: "s1".parse().unwrap() });
    wait_active(&rig, "s1");
    wait_for_packets_of(&sink, 1);
    let snapshot = rig.snapshot("f");
    assert_eq!((snapshot.failover_total, snapshot.primary_return_total), (2, 1));
    let feeds = backups.map(RunningFeed::stop);
    // Backups are kept warm: they took in everything all the time.
    for (feed, name) in feeds.iter().zip(["s2", "s3"]) {
        wait_until("the counter", || rig.source("f", name).packets == feed.made());
    }
    drop(primary);
}

/// What came from one source is forwarded whole while it is in use; nothing is mixed in from the others.
#[test]
fn only_the_active_source_is_forwarded() {
    let rig = Rig::new();
    let (sink, ports) = (Sink::keeping(V4), ports(2));
    let mut config = with_sources(&ports, &sink);
    config.failover.health_timeout = Duration::from_secs(20);
    rig.apply("f", config);
    let mut primary = Feed::new(ports[0], 188);
    primary.send_to_all(1, &[&sink]);
    let backup = feed(ports[1], 2);
    wait_until("the backup", || rig.source("f", "s2").packets > 20);
    primary.send_to_all(200, &[&sink]);
    wait_until("the backup", || rig.source("f", "s2").packets > 40);
    drop(backup);
    assert!(sink.kept().iter().all(|datagram| datagram.len() == 188));
    assert_eq!(sink.count(), 201);
}

#[test]
fn backups_are_tried_in_order() {
    let rig = Rig::new();
    let (sink, ports) = (Sink::keeping(V4), ports(4));
    rig.apply("f", with_sources(&ports, &sink));
    let mut feeds = Vec::new();
    for (n, port) in ports.iter().enumerate() {
        feeds.push(feed(*port, n + 1));
        wait_until("the source", || rig.snapshot("f").sources[n].packets > 0);
    }
    for n in 1..=3 {
        wait_active(&rig, &format!("s{n}"));
        drop(feeds.remove(0));
        wait_active(&rig, &format!("s{}", n + 1));
    }
    wait_for_packets_of(&sink, 4);
}

#[test]
fn the_named_primary_is_preferred() {
    let rig = Rig::new();
    let (sink, ports) = (Sink::keeping(V4), ports(2));
    let mut config = with_sources(&ports, &sink);
    rig.apply("f", config.clone());
    let _feeds = [feed(ports[0], 1), feed(ports[1], 2)];
    wait_active(&rig, "s1");
    wait_until("the other", || rig.source("f", "s2").packets > 0);
    config.failover.primary = Some("s2".parse().unwrap());
    rig.apply("f", config.clone());
    wait_active(&rig, "s2");
    // The order of the list changes nothing while a primary is named.
    config.sources.reverse();
    rig.apply("f", config.clone());
    config.failover.primary = Some("s1".parse().unwrap());
    rig.apply("f", config);
    wait_active(&rig, "s1");
    wait_for_packets_of(&sink, 1);
}

#[test]
fn the_next_source_takes_over_when_the_active_one_is_removed() {
    let rig = Rig::new();
    let (sink, ports) = (Sink::keeping(V4), ports(2));
    rig.apply("f", with_sources(&ports, &sink));
    let _feeds = [feed(ports[0], 1), feed(ports[1], 2)];
    wait_until("both", || rig.snapshot("f").sources.iter().all(|source| source.packets > 0));
    wait_active(&rig, "s1");
    let mut config = with_sources(&ports, &sink);
    config.sources = vec![source("s2", &udp(ports[1]))];
    rig.apply("f", config);
    wait_active(&rig, "s2");
    wait_for_packets_of(&sink, 2);
    let event = rig.wait_event("f", "the failover", |event| matches!(event, EventKind::SourceFailover { .. }));
    assert_eq!(event.to_string(), "switched from s1 to s2: s1 was removed");
}

/// All silent: the last one in use stays so, and whoever delivers first is used.
#[test]
fn the_first_to_deliver_after_a_silence_is_used() {
    let rig = Rig::new();
    let (sink, ports) = (Sink::keeping(V4), ports(2));
    rig.apply("f", with_sources(&ports, &sink));
    let primary = feed(ports[0], 1);
    wait_active(&rig, "s1");
    drop(primary);
    rig.wait_event("f", "the loss", |event| matches!(event, EventKind::SourceLost { .. }));
    assert_eq!(active(&rig).as_deref(), Some("s1"));
    let _backup = feed(ports[1], 2);
    wait_active(&rig, "s2");
    wait_for_packets_of(&sink, 2);
}
