//! RTMP connections that stand and bring nothing, or too much at once.

use std::io::Write;
use std::time::Duration;

use anabranch::bus::PoolLimits;
use anabranch::engine::{EngineConfig, EventKind};
use anabranch::proto::rtmp::Role;

use crate::rtmp::port;
use crate::rtmp_bad::Raw;
use crate::support::{Rig, Sink, V4, flow, free_port, let_pass, udp, wait_until};

fn is_end(kind: &EventKind) -> bool {
    matches!(kind, EventKind::PeerDisconnected { .. })
}

fn figure(rig: &Rig, name: &str) -> f64 {
    let details = rig.source("in", "s1").details;
    details.into_iter().find(|detail| detail.0 == name).map_or(0.0, |detail| detail.1)
}

/// Sends sound, a frame of it every 20 ms, until `is_enough`.
fn publish(raw: &mut Raw, is_enough: impl Fn() -> bool) {
    for n in 0..1_500 {
        if is_enough() {
            return;
        }
        raw.send_sound(n * 20);
        let_pass(Duration::from_millis(20));
    }
    panic!("never enough");
}

/// He writes no more and closes nothing, as one whose cable is pulled.
#[test]
fn a_publisher_who_freezes_is_backed_up_and_gives_up_his_place() {
    let (rig, sink, port) = (Rig::new(), Sink::keeping(V4), port());
    let listen = |key: &str| format!("rtmp://@127.0.0.1:{port}/live/{key}");
    let mut config = flow([listen("main"), listen("backup")], [sink.url()]);
    config.failover.health_timeout = Duration::from_millis(500);
    config.failover.hold_off = Duration::from_secs(1);
    rig.apply("in", config);
    let start = |id: &str, key: &str| {
        rig.apply(id, flow(["test:picture?rate=2M".to_owned()], [format!("rtmp://127.0.0.1:{port}/live/{key}")]));
    };
    let is_active = |name: &str| rig.snapshot("in").active_source.is_some_and(|active| active.as_str() == name);
    let mut raw = Raw::new((V4, port).into(), Role::Publisher, "main");
    assert!(raw.is_let_in());
    publish(&mut raw, || sink.count() > 20);
    start("b", "backup");
    publish(&mut raw, || rig.source("in", "s2").packets > 20 && is_active("s1"));
    wait_until("the backup", || is_active("s2"));
    assert!(!rig.events("in").iter().any(is_end), "he is still there");
    start("a", "main");
    wait_until("the newcomer in his place", || is_active("s1"));
    let took =
        |kind: &EventKind| matches!(kind, EventKind::PeerDisconnected { why, .. } if why.reason.contains("took over"));
    assert!(rig.events("in").iter().any(took));
}

#[test]
fn a_publisher_who_freezes_gets_a_slate_and_goes_on() {
    let (rig, sink, port) = (Rig::new(), Sink::keeping(V4), port());
    rig.apply("in", flow([format!("rtmp://@127.0.0.1:{port}/live/cam1?absent=slate&grace=60")], [sink.url()]));
    let mut raw = Raw::new((V4, port).into(), Role::Publisher, "cam1");
    assert!(raw.is_let_in());
    publish(&mut raw, || sink.count() > 20);
    let figure = |name: &str| figure(&rig, name);
    let (frozen, carried) = (sink.count(), figure("unitsCarried"));
    wait_until("the slate", || sink.count() > frozen + 100 && figure("unitsCarried") > carried + 20.0);
    let unexpected = rig.source("in", "s1").drops.unexpected;
    let carried = figure("unitsCarried");
    publish(&mut raw, || figure("unitsCarried") > carried + 100.0);
    assert_eq!(rig.source("in", "s1").drops.unexpected, unexpected, "his header still holds");
    assert!(!rig.events("in").iter().any(is_end));
}

/// Each message of it is four bytes long, and would be a packet of its own.
#[test]
fn a_flood_of_tiny_messages_takes_no_buffers_from_others() {
    let pool = PoolLimits { small_max: 4_096, ..PoolLimits::default() };
    let rig = Rig::with(&EngineConfig { workers: 1, pool, ..EngineConfig::default() });
    let (sink, beside, port, feed) = (Sink::new(V4), Sink::new(V4), port(), free_port());
    rig.apply("in", flow([format!("rtmp://@127.0.0.1:{port}/live/cam1")], [sink.url()]));
    rig.apply("udp", flow([udp((V4, feed).into())], [beside.url()]));
    let mut raw = Raw::new((V4, port).into(), Role::Publisher, "cam1");
    assert!(raw.is_let_in());
    raw.send_sound(0);
    let mut stream = raw.stream.try_clone().unwrap();
    let flood = std::thread::spawn(move || {
        // The first has a whole header (RTMP 5.3.1), the others none.
        let _the_end_of_the_test_closes_it = stream.write_all(&[4, 0, 0, 0, 0, 0, 3, 8, 1, 0, 0, 0, 0xaf, 1, 0]);
        let _likewise = stream.write_all(&[0xc4, 0xaf, 1, 0].repeat(500_000));
    });
    let socket = std::net::UdpSocket::bind((V4, 0)).unwrap();
    let mut packet = [0xff; 1_316];
    packet.iter_mut().step_by(188).for_each(|sync| *sync = 0x47);
    while !flood.is_finished() {
        socket.send_to(&packet, (V4, feed)).unwrap();
        let_pass(Duration::from_millis(1));
    }
    flood.join().unwrap();
    wait_until("the sounds", || figure(&rig, "unitsCarried") > 500_000.0);
    assert_eq!((rig.source("udp", "s1").drops.no_buffer, rig.source("in", "s1").drops.no_buffer), (0, 0));
}
