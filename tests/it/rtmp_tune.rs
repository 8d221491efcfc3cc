//! Settings of an RTMP source that change under its publisher.

use std::time::Duration;

use anabranch::engine::EventKind;
use anabranch::proto::mpegts::{Pid, TS_PACKET_BYTES, TsPacket};

use crate::peers::{Peer, installed};
use crate::rtmp::{PICTURE, assert_clean, is_connected, is_refused, port};
use crate::rtmp_clean::assert_constant;
use crate::support::{Rig, Sink, TS, V4, flow, let_pass, wait_until};

fn is_end(kind: &EventKind) -> bool {
    matches!(kind, EventKind::PeerDisconnected { .. })
}

#[test]
fn a_publisher_stays_while_what_is_made_of_him_changes() {
    if !installed("ffmpeg") {
        return;
    }
    let (directory, rig, sink, port) = (tempfile::tempdir().unwrap(), Rig::new(), Sink::keeping(V4), port());
    let listen = |key: &str, query: &str| format!("rtmp://@127.0.0.1:{port}/live/{key}{query}");
    let set = |query: &str| rig.apply("in", flow([listen("cam1", query)], [sink.url()]));
    set("");
    let arguments = format!("-v error -nostdin -re {PICTURE} -f flv rtmp://127.0.0.1:{port}/live/cam1");
    let _ffmpeg = Peer::start("ffmpeg", &arguments, directory.path());
    sink.wait(50);
    // Of another flow it is no business of his, whatever changes.
    ["one", "two"].into_iter().for_each(|key| rig.apply("beside", flow([listen(key, "")], [sink.url()])));
    for rate_bps in [4_000_000, 3_000_000] {
        set(&format!("?rate={}M", rate_bps / 1_000_000));
        // What was sent before may still be on its way.
        let from = sink.count() + 50;
        sink.wait(from + 500);
        assert_constant(&sink.kept()[from as usize..].concat(), rate_bps);
    }
    set("");
    let is_null = |packet: &[u8]| TsPacket::parse(packet).unwrap().pid == Pid::NULL;
    wait_until("a varying rate", || {
        let last: Vec<u8> = sink.kept().iter().rev().take(50).flatten().copied().collect();
        last.len() < 50 * TS && !last.chunks(TS_PACKET_BYTES).any(is_null)
    });
    // Somebody else wants his place, and gets it when he may.
    rig.apply("other", flow(["test:picture?rate=2M".to_owned()], [format!("rtmp://127.0.0.1:{port}/live/cam1")]));
    rig.wait_event("in", "the refusal", |kind| is_refused(kind, "another publisher is there"));
    assert!(!rig.events("in").iter().any(is_end));
    assert_eq!(rig.events("in").iter().filter(|kind| is_connected(kind)).count(), 1);
    set("?takeover=1");
    rig.wait_event(
        "in",
        "the end",
        |kind| matches!(kind, EventKind::PeerDisconnected { why, .. } if why.reason.contains("took over")),
    );
    let ends = || rig.events("in").iter().filter(|kind| is_end(kind)).count();
    assert_eq!(ends(), 1);
    // A picture when he goes, for an hour; no, for a second.
    set("?absent=slate&grace=3600");
    rig.stop("other");
    wait_until("the other's end", || ends() == 2);
    let at_end = sink.count();
    sink.wait(at_end + 100);
    set("?absent=slate&grace=1");
    wait_until("silence", || {
        let before = sink.count();
        let_pass(Duration::from_millis(500));
        sink.count() == before
    });
    assert_clean(&sink);
}
