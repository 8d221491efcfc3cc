//! The engine as a library: callbacks, limits of the ring, the end.

use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use anabranch::engine::{Engine, EngineConfig, EventKind, Mode};

use crate::support::{Feed, Rig, Sink, V4, flow, flow_id, free_port, lock, output, udp, wait_until};

#[test]
fn a_turn_may_bring_more_packets_than_the_ring_holds() {
    let rig = Rig::with(&EngineConfig { ring_packets: 32, ..EngineConfig::default() });
    let sink = Sink::new(V4);
    let port = free_port();
    // One packet is missing: all that come after it wait in the core, and leave it at once.
    rig.apply("f", flow([format!("rtp://127.0.0.1:{port}?reorder=300")], [sink.url()]));
    let socket = std::net::UdpSocket::bind((V4, 0)).unwrap();
    for sequence in (0..400_u16).filter(|sequence| *sequence != 3) {
        let mut datagram = vec![0x80, 33];
        datagram.extend(sequence.to_be_bytes());
        datagram.extend([0, 0, 0, 0, 0, 0, 0, 9]);
        datagram.extend([0x47; 188]);
        socket.send_to(&datagram, (V4, port)).unwrap();
    }
    sink.wait(399);
    assert_eq!(rig.output("f", "o1").drops.lagged, 0);
    assert_eq!(rig.source("f", "s1").lost, 1);
}

#[test]
fn a_held_back_output_fits_a_small_ring() {
    let rig = Rig::with(&EngineConfig { ring_packets: 16, ..EngineConfig::default() });
    let sink = Sink::new(V4);
    let input = (V4, free_port()).into();
    let mut config = flow([udp(input)], NO_OUTPUTS);
    let mut held = output("held", &sink.url());
    held.coalesce = Duration::from_millis(100);
    config.outputs.push(held);
    rig.apply("f", config);
    let mut feed = Feed::new(input, 188);
    feed.send_to_all(500, &[&sink]);
    assert_eq!(rig.output("f", "held").drops.lagged, 0);
}

#[test]
fn a_callback_may_look_at_the_flow_it_is_told_of() {
    let slot: Arc<Mutex<Weak<Mutex<Engine>>>> = Arc::default();
    let (seen, statuses) = sync_channel(64);
    let inside = Arc::clone(&slot);
    let engine = Engine::start(&EngineConfig::default(), move |event| {
        let engine = lock(&inside).upgrade();
        if let Some(engine) = engine {
            let snapshot = lock(&engine).snapshot(&event.flow);
            let _ = seen.try_send((event.kind, snapshot.map(|snapshot| snapshot.status)));
        }
    });
    let engine = Arc::new(Mutex::new(engine.unwrap()));
    *lock(&slot) = Arc::downgrade(&engine);
    let taken = std::net::UdpSocket::bind((V4, 0)).unwrap();
    let config = flow([udp(taken.local_addr().unwrap())], NO_OUTPUTS);
    let handle = lock(&engine).clone();
    handle.apply(&flow_id("f"), config, Mode::Lenient).unwrap();
    let (kind, status) = statuses.recv().unwrap();
    assert!(matches!(kind, EventKind::SourceError { .. }), "{kind:?}");
    assert!(status.is_some());
}

#[test]
fn the_engine_may_end_in_its_own_callback() {
    let slot: Arc<Mutex<Option<Engine>>> = Arc::default();
    let inside = Arc::clone(&slot);
    let (ended, told) = sync_channel(1);
    let engine = Engine::start(&EngineConfig::default(), move |event| {
        if event.kind == EventKind::FlowStarted {
            drop(lock(&inside).take());
            ended.send(()).unwrap();
        }
    });
    let engine = engine.unwrap();
    *lock(&slot) = Some(engine.clone());
    let input = (V4, free_port()).into();
    engine.apply(&flow_id("f"), flow([udp(input)], NO_OUTPUTS), Mode::Strict).unwrap();
    drop(engine);
    told.recv().unwrap();
    wait_until("the port to be free", || std::net::UdpSocket::bind(input).is_ok());
}

#[test]
fn the_named_primary_is_used_from_the_first_packet_on() {
    let rig = Rig::new();
    let (first, second) = ((V4, free_port()).into(), (V4, free_port()).into());
    let feeds = [first, second].map(|port| Feed::new(port, 188).run(Duration::from_millis(1)));
    let mut config = flow([udp(first), udp(second)], NO_OUTPUTS);
    config.failover.primary = Some("s2".parse().unwrap());
    rig.apply("f", config);
    wait_until("both sources", || rig.snapshot("f").sources.iter().all(|source| source.packets > 10));
    let snapshot = rig.snapshot("f");
    assert_eq!(
        (snapshot.active_source.map(|name| name.to_string()).as_deref(), snapshot.failover_total),
        (Some("s2"), 0)
    );
    drop(feeds);
}

const NO_OUTPUTS: [String; 0] = [];
