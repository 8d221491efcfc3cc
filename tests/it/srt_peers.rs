//! SRT with libsrt on the other end, each side calling and each sending, over a path that takes its time and
//! loses. What has to come out is told in `srt::assert_whole`.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anabranch::engine::OutputStatus;

use crate::peers::{Peer, installed, wait_for_port};
use crate::proxy::Proxy;
use crate::srt::{DELAY, LATENCY, assert_whole, bad_path, figure, is_connected, latency, live_transmit, local, srt};
use crate::support::{Feed, Rig, Sink, TS, V4, flow, free_port, let_pass, udp, wait_until};

/// Who relays on the other end; both are built on libsrt.
#[derive(Clone, Copy)]
enum Relay {
    LiveTransmit,
    Ffmpeg,
}

impl Relay {
    fn is_installed(self) -> bool {
        installed(match self {
            Self::LiveTransmit => "srt-live-transmit",
            Self::Ffmpeg => "ffmpeg",
        })
    }

    /// Between UDP and SRT, in either direction.
    fn start(self, from: &str, to: &str, directory: &Path) -> Peer {
        let Self::Ffmpeg = self else { return live_transmit(&with_ms(from), &with_ms(to), directory) };
        let (from, to) = (for_ffmpeg(from), for_ffmpeg(to));
        let arguments = format!(
            "-hide_banner -loglevel warning -nostats -fflags nobuffer -f data -raw_packet_size 1316 -i {from} \
             -map 0 -c copy -flush_packets 1 -f data {to}"
        );
        Peer::start("ffmpeg", &arguments, directory)
    }

    /// What to feed it with once it reads UDP at `port`.
    fn feed(self, port: u16) -> Feed {
        wait_for_port(port);
        let mut feed = Feed::new(local(port), TS);
        // It does not open what it writes to before it has read something.
        if let Self::Ffmpeg = self {
            feed.send();
        }
        feed
    }
}

fn with_ms(url: &str) -> String {
    if url.starts_with("udp") { url.into() } else { format!("{url}&{}", latency()) }
}

/// It counts latency in microseconds, and reads UDP late on a busy machine.
fn for_ffmpeg(url: &str) -> String {
    if url.starts_with("udp") {
        format!("{url}?fifo_size=0&pkt_size=1316&buffer_size=2000000")
    } else {
        format!("{url}&latency={}", LATENCY.as_micros())
    }
}

fn calls(path: SocketAddr) -> String {
    srt(path, "mode=caller")
}

fn listens(port: u16) -> String {
    srt(local(port), "mode=listener")
}

/// Clocks that began at different times must not be taken for one another.
fn listen_for_a_while() {
    let_pass(Duration::from_secs(5));
}

/// At most two for each that was lost, in either direction.
fn assert_patient(sent_again: f64, proxy: &Proxy) {
    let lost = proxy.lost();
    assert!(sent_again > 0.0 && sent_again <= 2.0 * lost as f64, "{sent_again} sent again for {lost} lost");
}

fn receives_as_listener(relay: Relay) {
    if !relay.is_installed() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (rig, sink, port, listen) = (Rig::new(), Sink::new(V4), free_port(), local(free_port()));
    let _peer = relay.start(&listens(port), &sink.url(), directory.path());
    wait_for_port(port);
    listen_for_a_while();
    let proxy = bad_path(port, 0.05);
    rig.apply("f", flow([udp(listen)], [srt(proxy.address, &latency())]));
    rig.wait_event("f", "the connection", is_connected);
    assert_whole(Feed::new(listen, TS), &sink, &proxy);
    assert_patient(figure(&rig.output("f", "o1").details, "pktRetrans"), &proxy);
}

fn sends_as_caller(relay: Relay) {
    if !relay.is_installed() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (rig, sink, port, feed) = (Rig::new(), Sink::new(V4), free_port(), free_port());
    rig.apply("f", flow([with_ms(&listens(port))], [sink.url()]));
    listen_for_a_while();
    let proxy = bad_path(port, 0.05);
    let _peer = relay.start(&udp(local(feed)), &calls(proxy.address), directory.path());
    let feed = relay.feed(feed);
    rig.wait_event("f", "the connection", is_connected);
    assert_whole(feed, &sink, &proxy);
    let source = rig.source("f", "s1");
    assert!(source.recovered > 30, "{source:?}");
    assert!(figure(&source.details, "pktRcvLoss") > 30.0, "{source:?}");
    assert!((figure(&source.details, "msRcvTsbPdDelay") - 300.0).abs() < 1e-9, "{source:?}");
    assert!(source.round_trip.is_some_and(|span| span >= 2 * DELAY), "{source:?}");
    assert_patient(figure(&source.details, "pktRcvRetrans"), &proxy);
}

fn receives_as_caller(relay: Relay) {
    if !relay.is_installed() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (rig, sink, port, listen) = (Rig::new(), Sink::new(V4), free_port(), local(free_port()));
    rig.apply("f", flow([udp(listen)], [with_ms(&listens(port))]));
    assert_eq!(rig.output("f", "o1").status, OutputStatus::Disconnected);
    listen_for_a_while();
    let proxy = bad_path(port, 0.05);
    let _peer = relay.start(&calls(proxy.address), &sink.url(), directory.path());
    rig.wait_event("f", "the connection", is_connected);
    assert_whole(Feed::new(listen, TS), &sink, &proxy);
    let output = rig.output("f", "o1");
    assert_eq!(output.status, OutputStatus::Connected);
    assert_patient(figure(&output.details, "pktRetrans"), &proxy);
}

fn sends_as_listener(relay: Relay) {
    if !relay.is_installed() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (rig, sink, port, feed) = (Rig::new(), Sink::new(V4), free_port(), free_port());
    let _peer = relay.start(&udp(local(feed)), &listens(port), directory.path());
    let feed = relay.feed(feed);
    wait_for_port(port);
    listen_for_a_while();
    let proxy = bad_path(port, 0.05);
    rig.apply("f", flow([srt(proxy.address, &latency())], [sink.url()]));
    rig.wait_event("f", "the connection", is_connected);
    assert_whole(feed, &sink, &proxy);
    assert_patient(figure(&rig.source("f", "s1").details, "pktRcvRetrans"), &proxy);
}

#[test]
fn live_transmit_listens_and_receives_what_we_send() {
    receives_as_listener(Relay::LiveTransmit);
}

#[test]
fn live_transmit_calls_and_sends_to_us() {
    sends_as_caller(Relay::LiveTransmit);
}

#[test]
fn live_transmit_calls_and_receives_what_we_send() {
    receives_as_caller(Relay::LiveTransmit);
}

#[test]
fn live_transmit_listens_and_sends_to_us() {
    sends_as_listener(Relay::LiveTransmit);
}

#[test]
fn ffmpeg_listens_and_receives_what_we_send() {
    receives_as_listener(Relay::Ffmpeg);
}

#[test]
fn ffmpeg_calls_and_sends_to_us() {
    sends_as_caller(Relay::Ffmpeg);
}

#[test]
fn ffmpeg_calls_and_receives_what_we_send() {
    receives_as_caller(Relay::Ffmpeg);
}

#[test]
fn ffmpeg_listens_and_sends_to_us() {
    sends_as_listener(Relay::Ffmpeg);
}

/// From us to libsrt and back to us, while each way loses a tenth of all datagrams, those about keys as well.
fn keys_change_in_flight(key_length: usize) {
    if !installed("srt-live-transmit") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let secret = "passphrase=a-secret-of-ours&kmrefreshrate=1000&kmpreannounce=400";
    let query = format!("{secret}&pbkeylen={key_length}&latency=900");
    let (rig, sink) = (Rig::new(), Sink::new(V4));
    let (listen, there, between, back) = (local(free_port()), free_port(), free_port(), free_port());
    rig.apply("back", flow([srt(local(back), &format!("mode=listener&{query}"))], [sink.url()]));
    let paths = [bad_path(there, 0.1), bad_path(back, 0.1)];
    let between = format!("udp://127.0.0.1:{between}");
    let _second = live_transmit(&between, &srt(paths[1].address, &query), directory.path());
    let _first = live_transmit(&format!("srt://:{there}?mode=listener&{query}"), &between, directory.path());
    wait_for_port(there);
    rig.apply("there", flow([udp(listen)], [srt(paths[0].address, &query)]));
    rig.wait_event("there", "the connection", is_connected);
    rig.wait_event("back", "the connection", is_connected);
    let feed = Feed::new(listen, TS).run_until(Duration::from_millis(1), 4_000);
    // What gets lost at the very end is noticed by nobody.
    let whole = feed.made();
    let feed = feed.run_until(Duration::from_millis(1), whole + 300);
    wait_until("the last packets", || sink.report(feed.made()).received >= whole);
    let report = sink.report(whole);
    let spoiled = [report.lost, report.duplicated, report.reordered, report.corrupt];
    assert_eq!(spoiled, [0; 4], "{key_length} bytes");
    let undecrypted = figure(&rig.source("back", "s1").details, "pktRcvUndecrypt");
    assert!(undecrypted.abs() < 0.5, "{undecrypted} packets were not decrypted");
}

#[test]
fn keys_of_128_bits_change_in_flight() {
    keys_change_in_flight(16);
}

#[test]
fn keys_of_192_bits_change_in_flight() {
    keys_change_in_flight(24);
}

#[test]
fn keys_of_256_bits_change_in_flight() {
    keys_change_in_flight(32);
}
