//! RIST with users and passwords: with librist on the other end, which calls or is called, and sends or receives.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anabranch::engine::EventKind;

use crate::peers::{Peer, installed, wait_for_port};
use crate::srt::{figure, is_connected, local};
use crate::support::{Feed, Rig, Sink, TS, V4, flow, free_port, udp, wait_until};

const LOGIN: &str = "username=alice&password=wonder";
const WRONG: &str = "username=alice&password=wander";
const BUFFER: &str = "buffer=200";
/// What has to come; one a millisecond.
const PACKETS: u64 = 200;

/// A line of ristsrppasswd for the user of [`LOGIN`].
const USERS: &str = include_str!("../data/rist/srp-027.txt");

fn users(directory: &Path) -> String {
    let path = directory.join("users");
    std::fs::write(&path, USERS).unwrap();
    path.display().to_string()
}

fn calls(port: u16, query: &str) -> String {
    format!("rist://127.0.0.1:{port}?{BUFFER}&{query}")
}

fn listens(port: u16, query: &str) -> String {
    format!("rist://@127.0.0.1:{port}?{BUFFER}&{query}")
}

fn ristsender(from: u16, options: &str, directory: &Path) -> Peer {
    Peer::start("ristsender", &format!("-S 0 -p 1 -i udp://127.0.0.1:{from} {options}"), directory)
}

fn ristreceiver(sink: &Sink, options: &str, directory: &Path) -> Peer {
    Peer::start("ristreceiver", &format!("-S 0 -p 1 -o {} {options}", sink.url()), directory)
}

/// Feeds until so much has come through.
fn feed_until_it_comes(to: SocketAddr, sink: &Sink) {
    let mut feed = Feed::new(to, TS);
    while sink.count() < PACKETS {
        assert!(feed.made() < 50 * PACKETS, "{} of {} came", sink.count(), feed.made());
        let until = feed.made() + 1;
        feed = feed.run_until(Duration::from_millis(1), until);
    }
}

#[test]
fn librist_calls_and_sends_to_us() {
    if !installed("ristsender") {
        return;
    }
    // The users of a file, and a single one; the second encrypted as well.
    for secret in ["", "&secret=hunter22&aes-type=128"] {
        let directory = tempfile::tempdir().unwrap();
        let (rig, sink, port, feed) = (Rig::new(), Sink::new(V4), free_port(), free_port());
        let accounts = if secret.is_empty() { format!("srpfile={}", users(directory.path())) } else { LOGIN.into() };
        rig.apply("f", flow([listens(port, &format!("{accounts}{secret}"))], [sink.url()]));
        let to = calls(port, &format!("{LOGIN}{secret}"));
        let _peer = ristsender(feed, &format!("-o {to}"), directory.path());
        wait_for_port(feed);
        rig.wait_event("f", "the connection", is_connected);
        feed_until_it_comes(local(feed), &sink);
        assert_eq!(figure(&rig.source("f", "s1").details, "auth_failed"), 0.0);
    }
}

#[test]
fn we_call_librist_and_send() {
    if !installed("ristreceiver") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (rig, sink, port, listen) = (Rig::new(), Sink::new(V4), free_port(), local(free_port()));
    let options = format!("-F {} -i {}", users(directory.path()), listens(port, ""));
    let _peer = ristreceiver(&sink, &options, directory.path());
    wait_for_port(port);
    rig.apply("f", flow([udp(listen)], [calls(port, LOGIN)]));
    rig.wait_event("f", "the connection", is_connected);
    feed_until_it_comes(listen, &sink);
}

#[test]
fn librist_calls_and_receives_from_us() {
    if !installed("ristreceiver") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (rig, sink, port, listen) = (Rig::new(), Sink::new(V4), free_port(), local(free_port()));
    rig.apply("f", flow([udp(listen)], [listens(port, LOGIN)]));
    let _peer = ristreceiver(&sink, &format!("-i {}", calls(port, LOGIN)), directory.path());
    rig.wait_event("f", "the connection", is_connected);
    feed_until_it_comes(listen, &sink);
}

#[test]
fn we_call_librist_and_receive() {
    if !installed("ristsender") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (rig, sink, port, feed) = (Rig::new(), Sink::new(V4), free_port(), free_port());
    let _peer = ristsender(feed, &format!("-o {}", listens(port, LOGIN)), directory.path());
    wait_for_port(port);
    rig.apply("f", flow([calls(port, LOGIN)], [sink.url()]));
    rig.wait_event("f", "the connection", is_connected);
    feed_until_it_comes(local(feed), &sink);
}

#[test]
fn a_wrong_password_brings_nothing_on_either_side() {
    if !installed("ristsender") || !installed("ristreceiver") {
        return;
    }
    let refused = |event: &EventKind| matches!(event, EventKind::ConnectionError { .. });
    let directory = tempfile::tempdir().unwrap();
    let (rig, sink, port, feed) = (Rig::new(), Sink::new(V4), free_port(), free_port());
    rig.apply("f", flow([listens(port, LOGIN)], [sink.url()]));
    let _peer = ristsender(feed, &format!("-o {}", calls(port, WRONG)), directory.path());
    wait_for_port(feed);
    let _fed = Feed::new(local(feed), TS).run_until(Duration::from_millis(1), PACKETS);
    let event = rig.wait_event("f", "the refusal", refused).to_string();
    assert!(event.contains("user or password is wrong") && !event.contains("nder"), "{event}");
    let figures = || rig.source("f", "s1").details;
    wait_until("the counter", || figure(&figures(), "auth_failed") > 0.0);
    assert!(figure(&figures(), "unauthenticated") > 0.0);
    assert_eq!((sink.count(), rig.source("f", "s1").packets), (0, 0));

    let (rig, sink, port, listen) = (Rig::new(), Sink::new(V4), free_port(), local(free_port()));
    let _peer = ristreceiver(&sink, &format!("-i {}", listens(port, LOGIN)), directory.path());
    wait_for_port(port);
    rig.apply("f", flow([udp(listen)], [calls(port, WRONG)]));
    let _fed = Feed::new(listen, TS).run_until(Duration::from_millis(1), PACKETS);
    let event = rig.wait_event("f", "the refusal", refused).to_string();
    assert!(event.contains("user or password is wrong") && !event.contains("nder"), "{event}");
    assert_eq!(sink.count(), 0);
    assert!(!rig.events("f").iter().any(is_connected), "{:?}", rig.events("f"));
}

#[test]
fn whoever_is_asked_and_has_no_user_is_told() {
    let (rig, sink, port, listen) = (Rig::new(), Sink::new(V4), free_port(), local(free_port()));
    let listener = Rig::new();
    listener.apply("f", flow([listens(port, LOGIN)], [sink.url()]));
    rig.apply("f", flow([udp(listen)], [calls(port, "")]));
    let refused = |event: &EventKind| matches!(event, EventKind::ConnectionError { .. });
    let event = rig.wait_event("f", "the refusal", refused).to_string();
    assert!(event.contains("asks for user and password"), "{event}");
}
