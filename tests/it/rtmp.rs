//! RTMP in and out: our own ends against each other, then with real encoders, servers and players.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anabranch::adapters::{AcceptHook, Arrival, clock};
use anabranch::bus::{Meta, Pool, PoolLimits};
use anabranch::engine::{EngineConfig, EventKind};
use anabranch::proto::Detail;
use anabranch::proto::bridge::FromTs;
use anabranch::proto::mpegts::analysis::{Analyser, Indicator};
use anabranch::proto::rtmp::amf::Value;
use anabranch::proto::rtmp::flv::{Codec, Content};
use anabranch::proto::rtmp::{Message, metadata};

use crate::peers::{Peer, installed};
use crate::support::{Rig, Sink, V4, flow, free_port, let_pass, wait_for, wait_until};

/// A port that no TCP listener has, either.
pub(crate) fn port() -> u16 {
    wait_for("a free port", || Some(free_port()).filter(|port| TcpListener::bind((V4, *port)).is_ok()))
}

pub(crate) fn is_connected(kind: &EventKind) -> bool {
    matches!(kind, EventKind::PeerConnected { .. })
}

pub(crate) fn is_refused(kind: &EventKind, reason: &str) -> bool {
    matches!(kind, EventKind::ConnectionError { why, .. } if why.reason.contains(reason))
}

/// How many pictures ffmpeg decodes of what came, and what it says about them.
pub(crate) fn decoded(sink: &Sink, directory: &Path) -> (usize, String) {
    let path = directory.join("came.ts");
    fs::write(&path, sink.kept().concat()).unwrap();
    let ffmpeg = |arguments: &[&str]| Command::new("ffmpeg").arg("-i").arg(&path).args(arguments).output().unwrap();
    let frames = ffmpeg(&["-v", "error", "-map", "0:v", "-f", "framemd5", "-"]);
    let count = String::from_utf8(frames.stdout).unwrap().lines().filter(|line| !line.starts_with('#')).count();
    let said = ffmpeg(&["-v", "warning", "-f", "null", "-"]);
    (count, String::from_utf8_lossy(&said.stderr).into_owned())
}

/// No packet of it is missing, and clock and tables are there.
pub(crate) fn assert_clean(sink: &Sink) {
    let mut analyser = Analyser::new(clock::now());
    for (n, datagram) in (0_u64..).zip(sink.kept()) {
        analyser.handle_packet(clock::now() + Duration::from_micros(n), &datagram, None);
    }
    let snapshot = analyser.snapshot();
    for indicator in [Indicator::ContinuityCountError, Indicator::SyncByteError, Indicator::CrcError] {
        assert_eq!(snapshot.indicator(indicator).errors, 0, "{indicator:?}");
    }
    assert_eq!(snapshot.programs.len(), 1);
}

#[test]
fn pushed_and_taken_in_it_is_a_clean_stream_and_what_is_left_out_is_named() {
    let (rig, sink, port) = (Rig::new(), Sink::keeping(V4), port());
    rig.apply("in", flow([format!("rtmp://@127.0.0.1:{port}/live/cam1")], [sink.url()]));
    rig.apply("out", flow(["test:picture?rate=2M".to_owned()], [format!("rtmp://127.0.0.1:{port}/live/cam1")]));
    rig.wait_event("in", "the publisher", is_connected);
    rig.wait_event("out", "the server", is_connected);
    // RTMP has no form for MPEG audio of layer II here.
    rig.wait_event("out", "what is not carried", |kind| matches!(kind, EventKind::NotCarried { .. }));
    sink.wait(200);
    assert_clean(&sink);
    let source = rig.source("in", "s1");
    let figure = |name: &str| source.details.iter().find(|detail| detail.0 == name).map(|detail| detail.1);
    assert!(figure("unitsCarried").is_some_and(|units| units > 0.0), "{source:?}");
    rig.stop("out");
    rig.wait_event("in", "the end", |kind| matches!(kind, EventKind::PeerDisconnected { .. }));
}

#[test]
fn served_and_pulled_it_is_a_clean_stream() {
    let (rig, sink, port) = (Rig::new(), Sink::keeping(V4), port());
    // Who calls before there is anybody tries again.
    rig.apply("in", flow([format!("rtmp://127.0.0.1:{port}/live/cam1")], [sink.url()]));
    rig.wait_event("in", "nobody there", |kind| is_refused(kind, "nobody listens"));
    rig.apply("out", flow(["test:picture?rate=2M".to_owned()], [format!("rtmp://@127.0.0.1:{port}/live/cam1")]));
    rig.wait_event("out", "the player", is_connected);
    sink.wait(200);
    assert_clean(&sink);
}

#[test]
fn flows_share_a_port_and_keys_keep_strangers_out() {
    let (rig, first, second, port) = (Rig::new(), Sink::keeping(V4), Sink::keeping(V4), port());
    let listen = |key: &str, query: &str| format!("rtmp://@127.0.0.1:{port}/live/{key}{query}");
    rig.apply("one", flow([listen("one", "")], [first.url()]));
    rig.apply("two", flow([listen("two", "?takeover=1")], [second.url()]));
    assert!(rig.try_apply("three", flow([listen("one", "")], [first.url()])).is_err(), "the stream is taken");
    let call = |key: &str| format!("rtmp://127.0.0.1:{port}/live/{key}");
    rig.apply("a", flow(["test:picture?rate=2M".to_owned()], [call("one"), call("two")]));
    first.wait(50);
    second.wait(50);
    // A wrong key, a second publisher, and one who takes over.
    rig.apply("b", flow(["test:picture?rate=2M".to_owned()], [call("wrong"), call("one"), call("two")]));
    let is_wrong = |detail: &Detail| detail.0 == "portWrongKey" && detail.1 >= 1.0;
    let wrong_keys = |flow: &str| rig.source(flow, "s1").details.iter().any(is_wrong);
    wait_until("the wrong key", || wrong_keys("one") && wrong_keys("two"));
    rig.wait_event("one", "the second publisher", |kind| is_refused(kind, "another publisher"));
    rig.wait_event(
        "two",
        "the takeover",
        |kind| matches!(kind, EventKind::PeerDisconnected { why, .. } if why.reason.contains("took over")),
    );
    rig.wait_event("b", "the refusal", |kind| is_refused(kind, "not authorized"));
    // He comes again by himself, and takes nothing back.
    rig.wait_event("two", "the end of it", |kind| is_refused(kind, "took over from there"));
    assert!(!rig.events("one").iter().any(|kind| matches!(kind, EventKind::PeerDisconnected { .. })));
}

#[test]
fn a_publisher_that_comes_back_finds_its_outputs_and_goes_on_cleanly() {
    let (rig, sink, port) = (Rig::new(), Sink::keeping(V4), port());
    rig.apply("in", flow([format!("rtmp://@127.0.0.1:{port}/live/cam1")], [sink.url()]));
    let publisher = || flow(["test:picture?rate=2M".to_owned()], [format!("rtmp://127.0.0.1:{port}/live/cam1")]);
    for _ in 0..2 {
        let before = sink.count();
        rig.apply("out", publisher());
        sink.wait(before + 100);
        rig.stop("out");
    }
    assert_clean(&sink);
    assert_eq!(rig.events("in").iter().filter(|kind| is_connected(kind)).count(), 2);
}

#[test]
fn while_a_publisher_is_gone_there_is_a_picture_in_the_same_stream_for_a_while() {
    let (rig, sink, port) = (Rig::new(), Sink::keeping(V4), port());
    rig.apply("in", flow([format!("rtmp://@127.0.0.1:{port}/live/cam1?absent=slate&grace=3")], [sink.url()]));
    let publish = || {
        rig.apply("out", flow(["test:picture?rate=2M".to_owned()], [format!("rtmp://127.0.0.1:{port}/live/cam1")]));
    };
    publish();
    sink.wait(100);
    rig.stop("out");
    rig.wait_event("in", "the end", |kind| matches!(kind, EventKind::PeerDisconnected { .. }));
    let at_end = sink.count();
    sink.wait(at_end + 50);
    assert!(sink.take_longest_pause() < Duration::from_secs(3), "the picture came late");
    publish();
    let came_back = || rig.events("in").iter().filter(|kind| is_connected(kind)).count() == 2;
    wait_until("the publisher", came_back);
    let back = sink.count();
    sink.wait(back + 100);
    rig.stop("out");
    // Nobody comes: it ends.
    wait_until("silence", || {
        let before = sink.count();
        let_pass(Duration::from_millis(500));
        sink.count() == before
    });
    assert_clean(&sink);
}

/// One stream all the while, with sound in it that nobody hears; each channel of every layout is silent.
#[test]
fn a_slate_goes_on_with_silence_in_place_of_sound() {
    if !installed("ffmpeg") {
        return;
    }
    for (channels, layout) in [(1, "mono"), (2, "stereo"), (3, "3.0"), (4, "4.0"), (5, "5.0"), (6, "5.1"), (8, "7.1")] {
        let (directory, rig, sink, port) = (tempfile::tempdir().unwrap(), Rig::new(), Sink::keeping(V4), port());
        rig.apply("in", flow([format!("rtmp://@127.0.0.1:{port}/live/cam1?absent=slate&grace=2")], [sink.url()]));
        let sound = format!("-af aformat=channel_layouts={layout} -ar 44100");
        let arguments =
            format!("-v error -nostdin -re {PICTURE} {sound} -t 1 -f flv rtmp://127.0.0.1:{port}/live/cam1");
        Peer::run("ffmpeg", &arguments, directory.path());
        rig.wait_event("in", "the end", |kind| matches!(kind, EventKind::PeerDisconnected { .. }));
        let at_end = sink.count();
        sink.wait(at_end + 20);
        wait_until("silence", || {
            let before = sink.count();
            let_pass(Duration::from_millis(500));
            sink.count() == before
        });
        let path = directory.path().join("came.ts");
        fs::write(&path, sink.kept().concat()).unwrap();
        let mut ffmpeg = Command::new("ffmpeg");
        ffmpeg.args(["-v", "warning", "-i"]).arg(&path).args(["-map", "0:a", "-f", "s16le", "-"]);
        let output = ffmpeg.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{layout}");
        // A second of sound and most of two without.
        let second = 44_100 * channels * 2;
        assert!(output.stdout.len() > second * 2, "{} bytes of {layout}", output.stdout.len());
        assert!(output.stdout.len() < second * 7 / 2, "{} bytes of {layout}", output.stdout.len());
        let (heard, silent) = output.stdout.split_at(second * 5 / 4);
        assert!(heard.iter().any(|byte| *byte != 0) && silent.iter().all(|byte| *byte == 0), "{layout}");
        assert_clean(&sink);
        let maps = sink.kept().concat();
        let maps: BTreeSet<&[u8]> = maps.chunks(188).filter(|ts| ts[1..3] == [0x50, 0]).map(|ts| &ts[4..]).collect();
        assert_eq!(maps.len(), 1, "no track comes or goes");
    }
}

#[test]
fn a_backup_steps_in_for_a_publisher_and_goes_when_he_is_back() {
    let (rig, sink, port) = (Rig::new(), Sink::keeping(V4), port());
    let listen = |key: &str| format!("rtmp://@127.0.0.1:{port}/live/{key}");
    let publish = |id: &str, key: &str| {
        rig.apply(id, flow(["test:picture?rate=2M".to_owned()], [format!("rtmp://127.0.0.1:{port}/live/{key}")]));
    };
    let mut config = flow([listen("main"), listen("backup")], [sink.url()]);
    config.failover.health_timeout = Duration::from_millis(500);
    config.failover.hold_off = Duration::from_secs(1);
    rig.apply("in", config);
    let wait_active = |name: &str| {
        wait_until(name, || rig.snapshot("in").active_source.is_some_and(|active| active.as_str() == name));
    };
    publish("a", "main");
    publish("b", "backup");
    wait_active("s1");
    rig.stop("a");
    wait_active("s2");
    let on_backup = sink.count();
    sink.wait(on_backup + 50);
    publish("a", "main");
    wait_active("s1");
}

#[test]
fn whoever_embeds_the_engine_is_asked_who_may_come() {
    let hook = AcceptHook::new(|arrival: &Arrival| {
        assert!(!arrival.publishes || arrival.key == "cam1");
        if arrival.query == "slow" {
            let_pass(Duration::from_millis(200));
        }
        arrival.query != "token=wrong"
    });
    let rig = Rig::with(&EngineConfig { workers: 1, accept: Some(hook), ..EngineConfig::default() });
    let (sink, port) = (Sink::keeping(V4), port());
    rig.apply("in", flow([format!("rtmp://@127.0.0.1:{port}/live/cam1")], [sink.url()]));
    let call = |query: &str| format!("rtmp://127.0.0.1:{port}/live/cam1?{query}");
    rig.apply("a", flow(["test:picture?rate=2M".to_owned()], [call("token=wrong")]));
    let is_denied =
        |kind: &EventKind| matches!(kind, EventKind::CallersRefused { reason, .. } if reason.contains("accept hook"));
    rig.wait_event("in", "the refusal", is_denied);
    rig.wait_event("a", "the refusal", |kind| is_refused(kind, "not authorized"));
    rig.stop("a");
    rig.apply("a", flow(["test:picture?rate=2M".to_owned()], [call("slow")]));
    rig.wait_event("in", "the publisher", is_connected);
    sink.wait(50);
}

#[test]
fn a_server_with_a_name_is_found_whenever_it_comes() {
    let (rig, sink, port) = (Rig::new(), Sink::keeping(V4), port());
    rig.apply("out", flow(["test:picture?rate=2M".to_owned()], [format!("rtmp://localhost:{port}/live/cam1")]));
    rig.wait_event("out", "nobody there", |kind| is_refused(kind, "nobody listens"));
    // Wherever the name leads here.
    rig.apply("in", flow([format!("rtmp://@[::]:{port}/live/cam1")], [sink.url()]));
    rig.wait_event("out", "the server", is_connected);
    sink.wait(50);
}

pub(crate) const PICTURE: &str = "-f lavfi -i testsrc2=s=320x180:r=25 -f lavfi -i sine=1000:r=48000 -c:v libx264 -preset \
                       ultrafast -g 25 -bf 2 -pix_fmt yuv420p -c:a aac";

/// Whatever ffmpeg publishes comes out whole; `query` is that of our port.
pub(crate) fn ffmpeg_publishes(scheme: &str, query: &str) {
    if !installed("ffmpeg") {
        return;
    }
    let (directory, rig, sink, port) = (tempfile::tempdir().unwrap(), Rig::new(), Sink::keeping(V4), port());
    rig.apply("in", flow([format!("{scheme}://@127.0.0.1:{port}/live/cam1{query}")], [sink.url()]));
    let arguments = format!("-v error -nostdin -re {PICTURE} -t 4 -f flv {scheme}://127.0.0.1:{port}/live/cam1");
    Peer::run("ffmpeg", &arguments, directory.path());
    rig.wait_event("in", "the end", |kind| matches!(kind, EventKind::PeerDisconnected { .. }));
    wait_until("all pictures", || decoded(&sink, directory.path()).0 == 100);
    assert_clean(&sink);
    assert_eq!(decoded(&sink, directory.path()).1, "");
}

/// A newer ffmpeg than the system's, which knows enhanced RTMP: named by `ANABRANCH_NEW_FFMPEG`, or that of Python's package
/// `imageio-ffmpeg`.
pub(crate) fn new_ffmpeg() -> Option<String> {
    let python = || {
        let script = "import imageio_ffmpeg; print(imageio_ffmpeg.get_ffmpeg_exe())";
        let output =
            Command::new("python3").args(["-c", script]).output().ok().filter(|output| output.status.success());
        Some(String::from_utf8(output?.stdout).unwrap().trim().to_owned())
    };
    let found = std::env::var("ANABRANCH_NEW_FFMPEG").ok().or_else(python);
    if found.is_none() {
        let is_required = std::env::var_os("ANABRANCH_REQUIRE_PEERS").is_some_and(|value| value == "1");
        assert!(!is_required, "a newer ffmpeg is required");
        crate::support::skipped("no newer ffmpeg: ANABRANCH_NEW_FFMPEG does not name one");
    }
    found
}

/// What a newer ffmpeg publishes with these arguments, once the publisher is gone.
fn published_by(ffmpeg: &str, arguments: &str) -> (Rig, Sink) {
    let (directory, rig, sink, port) = (tempfile::tempdir().unwrap(), Rig::new(), Sink::keeping(V4), port());
    rig.apply("in", flow([format!("rtmp://@127.0.0.1:{port}/live/cam1")], [sink.url()]));
    let publish = format!("-v error -nostdin -re {arguments} -f flv rtmp://127.0.0.1:{port}/live/cam1");
    let output = Command::new(ffmpeg).args(publish.split_whitespace()).current_dir(directory.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    rig.wait_event("in", "the end", |kind| matches!(kind, EventKind::PeerDisconnected { .. }));
    (rig, sink)
}

/// Codecs of what came, as our analyser names them.
fn codecs(sink: &Sink) -> Vec<Option<&'static str>> {
    let mut analyser = Analyser::new(clock::now());
    for (n, datagram) in (0_u64..).zip(sink.kept()) {
        analyser.handle_packet(clock::now() + Duration::from_micros(n), &datagram, None);
    }
    let pmt = analyser.snapshot().programs[0].pmt.clone().unwrap();
    pmt.streams.iter().map(|stream| stream.codec).collect()
}

#[test]
fn av1_and_opus_in_enhanced_rtmp_are_taken_in() {
    let Some(ffmpeg) = new_ffmpeg() else { return };
    let (_rig, sink) = published_by(
        &ffmpeg,
        "-f lavfi -i testsrc2=s=320x180:r=25 -f lavfi -i sine=1000:r=48000 -c:v libsvtav1 -preset 12 -svtav1-params \
         lookahead=0 -g 25 -pix_fmt yuv420p -c:a libopus -t 3",
    );
    // ffmpeg reads no AV1 in a transport stream; `tests/streams` has its pictures decoded.
    assert_eq!(codecs(&sink), [Some("av1"), Some("opus")]);
    let mut bridge = FromTs::new();
    let pool = Pool::new(PoolLimits::default());
    let mut count = 0;
    for datagram in sink.kept() {
        bridge.handle_packet(clock::now(), &pool.copy(&datagram, Meta::default()).unwrap());
        count += std::iter::from_fn(|| bridge.poll_unit())
            .filter(|unit| unit.codec == Codec::Av1 && unit.content != Content::Header)
            .count();
    }
    assert_eq!((count, bridge.stats().malformed), (75, 0));
    assert_clean(&sink);
}

/// What a file of FLV that grows says of its stream (FLV E.3, E.4.4.1), the last time that it does.
pub(crate) fn metadata_of(path: &Path) -> Vec<(String, Value)> {
    let file = fs::read(path).unwrap_or_default();
    // Behind the header and a size of nothing: kind, size, time and stream of each tag, its body, and its size once more.
    let (mut rest, mut told) = (file.get(13..).unwrap_or_default(), Vec::new());
    while let Some((&[kind, a, b, c, ..], behind)) = rest.split_first_chunk::<11>() {
        let Some((body, behind)) = behind.split_at_checked(u32::from_be_bytes([0, a, b, c]) as usize) else { break };
        let message = Message { kind, payload: body.to_vec().into(), ..Message::default() };
        told = metadata(&message).unwrap_or(told);
        rest = behind.get(4..).unwrap_or_default();
    }
    told
}

/// A file of FLV that grows, and the pictures in it.
pub(crate) fn pictures(path: &Path) -> usize {
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "quiet", "-i"]).arg(path).args(["-map", "0:v", "-f", "framemd5", "-"]);
    let text = ffmpeg.output().unwrap().stdout;
    String::from_utf8(text).unwrap().lines().filter(|line| !line.starts_with('#')).count()
}

#[test]
fn rtmpdump_plays_from_us() {
    if !installed("rtmpdump") || !installed("ffmpeg") {
        return;
    }
    let (directory, rig, port) = (tempfile::tempdir().unwrap(), Rig::new(), port());
    rig.apply("out", flow(["test:picture?rate=2M".to_owned()], [format!("rtmp://@127.0.0.1:{port}/live/cam1")]));
    let arguments = format!("-q -v -r rtmp://127.0.0.1:{port}/live -y cam1 -o out.flv");
    let _peer = Peer::start("rtmpdump", &arguments, directory.path());
    wait_until("pictures", || pictures(&directory.path().join("out.flv")) >= 50);
}

#[test]
fn we_push_to_ffmpeg() {
    if !installed("ffmpeg") {
        return;
    }
    let (directory, rig, port) = (tempfile::tempdir().unwrap(), Rig::new(), port());
    rig.apply("out", flow(["test:picture?rate=2M".to_owned()], [format!("rtmp://127.0.0.1:{port}/live/cam1")]));
    let arguments = format!("-v error -nostdin -y -listen 1 -i rtmp://127.0.0.1:{port}/live/cam1 -c copy out.flv");
    let _peer = Peer::start("ffmpeg", &arguments, directory.path());
    rig.wait_event("out", "the server", is_connected);
    wait_until("pictures", || pictures(&directory.path().join("out.flv")) >= 50);
}

#[test]
fn we_push_to_nginx_and_pull_from_it() {
    let (directory, rig, sink, port) = (tempfile::tempdir().unwrap(), Rig::new(), Sink::keeping(V4), port());
    let config = format!("rtmp {{ server {{ listen 127.0.0.1:{port}; application live {{ live on; }} }} }}");
    let Some(peer) = Peer::nginx("ngx_rtmp_module", &config, directory.path()) else { return };
    let url = format!("rtmp://127.0.0.1:{port}/live/cam1");
    rig.apply("out", flow(["test:picture?rate=2M".to_owned()], [url.clone()]));
    rig.wait_event("out", "nginx", is_connected);
    rig.apply("in", flow([url], [sink.url()]));
    sink.wait(200);
    assert_clean(&sink);
    // Nothing is lost while nothing happens.
    let_pass(Duration::from_secs(1));
    assert!(!rig.events("out").iter().any(|kind| matches!(kind, EventKind::PeerDisconnected { .. })));
    drop(peer);
    assert!(TcpListener::bind((V4, port)).is_ok(), "something of nginx is left");
}
