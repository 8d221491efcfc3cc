//! RTMP over TLS: our own ends, ffmpeg on the other one, and another's TLS in front of a server.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use anabranch::engine::EventKind;

use crate::peers::{Peer, installed};
use crate::rtmp::{assert_clean, ffmpeg_publishes, is_connected, is_refused, pictures, port};
use crate::support::{Rig, Sink, V4, flow, wait_until};

/// An authority of our own, and a certificate of it for this machine; good for a hundred years.
fn pem(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tls").join(name)
}

/// Of one who is called: his certificate and key.
pub(crate) fn identity() -> String {
    format!("tls_cert={}&tls_key={}", pem("cert.pem").display(), pem("key.pem").display())
}

fn authority() -> String {
    format!("tls_ca={}", pem("ca.pem").display())
}

fn picture() -> String {
    "test:picture?rate=2M".to_owned()
}

#[test]
fn pushed_and_pulled_over_tls_it_is_a_clean_stream() {
    for is_pushed in [true, false] {
        let (rig, sink, port) = (Rig::new(), Sink::keeping(V4), port());
        let called = format!("rtmps://@127.0.0.1:{port}/live/cam1?{}", identity());
        let calls = format!("rtmps://127.0.0.1:{port}/live/cam1?{}", authority());
        let (from, to) = if is_pushed { (called, calls) } else { (calls, called) };
        rig.apply("in", flow([from], [sink.url()]));
        rig.apply("out", flow([picture()], [to]));
        rig.wait_event("in", "the other end", is_connected);
        rig.wait_event("out", "the other end", is_connected);
        sink.wait(200);
        assert_clean(&sink);
    }
}

#[test]
fn who_cannot_be_believed_gets_nothing_and_is_named() {
    let (rig, sink, port) = (Rig::new(), Sink::keeping(V4), port());
    rig.apply("in", flow([format!("rtmps://@127.0.0.1:{port}/live/cam1?{}", identity())], [sink.url()]));
    let calls = |scheme: &str, host: &str, query: &str| format!("{scheme}://{host}:{port}/live/cam1{query}");
    let (ours, none) = (format!("?{}", authority()), String::new());
    for (name, url, told) in [
        ("c", calls("rtmp", "127.0.0.1", &none), ""),
        ("a", calls("rtmps", "127.0.0.1", &none), "nobody who is trusted"),
        ("b", calls("rtmps", "[::ffff:127.0.0.1]", &ours), "for another name"),
    ] {
        rig.apply(name, flow([picture()], [url]));
        rig.wait_event(name, "the refusal", |kind| is_refused(kind, told));
        rig.stop(name);
    }
    let is_named = |kind: &EventKind| matches!(kind, EventKind::CallersRefused { reason, .. } if reason.contains("does not speak TLS"));
    rig.wait_event("in", "no TLS", is_named);
    let figure = |name: &str| {
        let details = rig.source("in", "s1").details;
        details.into_iter().find(|detail| detail.0 == name).map_or(0.0, |detail| detail.1)
    };
    wait_until("the counters", || figure("tlsNotTls") >= 1.0 && figure("tlsRefused") >= 1.0);
    assert_eq!(sink.count(), 0);
    // Who says nothing is sent away in time, and in the meantime nobody else waits for him.
    let mut silent = TcpStream::connect((V4, port)).unwrap();
    silent.write_all(&[22]).unwrap();
    rig.apply("out", flow([picture()], [calls("rtmps", "localhost", &ours)]));
    sink.wait(50);
    let mut told = Vec::new();
    let _ = silent.read_to_end(&mut told);
    assert!(told.len() <= 7, "an alert at most: {told:?}");
    wait_until("the counter", || figure("tlsSlow") >= 1.0);
}

#[test]
fn certificates_that_cannot_be_used_and_mixed_ports_are_refused() {
    let (rig, sink, port) = (Rig::new(), Sink::keeping(V4), port());
    let listen = |key: &str, query: &str| format!("rtmps://@127.0.0.1:{port}/live/{key}?{query}");
    let missing = format!("tls_cert=/none.pem&tls_key={}", pem("key.pem").display());
    let error = rig.try_apply("a", flow([listen("one", &missing)], [sink.url()])).unwrap_err();
    assert!(format!("{error:?}").contains("/none.pem"), "{error:?}");
    rig.apply("a", flow([listen("one", &identity())], [sink.url()]));
    rig.apply("b", flow([listen("two", &identity())], [sink.url()]));
    let plain = format!("rtmp://@127.0.0.1:{port}/live/three");
    let error = rig.try_apply("c", flow([plain], [sink.url()])).unwrap_err();
    assert!(format!("{error:?}").contains("TLS"), "{error:?}");
}

#[test]
fn ffmpeg_publishes_to_us_over_tls() {
    ffmpeg_publishes("rtmps", &format!("?{}", identity()));
}

#[test]
fn ffmpeg_plays_from_us_over_tls() {
    if !installed("ffmpeg") {
        return;
    }
    let (directory, rig, port) = (tempfile::tempdir().unwrap(), Rig::new(), port());
    rig.apply("out", flow([picture()], [format!("rtmps://@127.0.0.1:{port}/live/cam1?{}", identity())]));
    let arguments = format!("-v error -nostdin -y -i rtmps://127.0.0.1:{port}/live/cam1 -c copy out.flv");
    let _peer = Peer::start("ffmpeg", &arguments, directory.path());
    wait_until("pictures", || pictures(&directory.path().join("out.flv")) >= 50);
}

#[test]
fn we_push_through_the_tls_of_nginx_and_pull_through_it() {
    let (directory, rig, sink) = (tempfile::tempdir().unwrap(), Rig::new(), Sink::keeping(V4));
    let (front, behind) = (port(), port());
    let config = format!(
        "stream {{ server {{ listen 127.0.0.1:{front} ssl; ssl_certificate {}; ssl_certificate_key {}; \
         proxy_pass 127.0.0.1:{behind}; }} }}",
        pem("cert.pem").display(),
        pem("key.pem").display()
    );
    let Some(_peer) = Peer::nginx("ngx_stream_module", &config, directory.path()) else { return };
    let secure = |key: &str| format!("rtmps://127.0.0.1:{front}/live/{key}?{}", authority());
    // There and back: pushed to a source of ours, which is served on the same port, and pulled.
    let listen = |key: &str| format!("rtmp://@127.0.0.1:{behind}/live/{key}");
    rig.apply("middle", flow([listen("cam1")], [listen("cam2")]));
    rig.apply("out", flow([picture()], [secure("cam1")]));
    rig.apply("in", flow([secure("cam2")], [sink.url()]));
    sink.wait(200);
    assert_clean(&sink);
}
