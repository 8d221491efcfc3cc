//! Sources that deliver, but badly, on real sockets: when they are left, and what the first packet afterwards says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anabranch::adapters::clock;
use anabranch::bus::LagPolicy;
use anabranch::engine::{EventKind, FlowConfig};
use anabranch::path::failover::{Cause, Switches};
use anabranch::path::health::{Fault, Rules};
use anabranch::proto::rtp::{HEADER_BYTES, Header, RtpPacket};
use anabranch::units::Seq;

use crate::support::{Feed, Rig, Sink, V4, flow, free_port, udp, url_of, wait_until};

const INTERVAL: Duration = Duration::from_millis(2);
const HOLD_OFF: Duration = Duration::from_millis(1_100);
const RETURN_HOLD_OFF: Duration = Duration::from_millis(700);

/// The first of two RTP sources loses 30 %: it is left, and returned to after it was good for the hold-off.
#[test]
fn a_lossy_primary_is_left_and_returned_to_after_the_hold_off() {
    let rig = Rig::new();
    let (sink, ports) = (Sink::keeping(V4), [0; 2].map(|_| SocketAddr::from((V4, free_port()))));
    let output = sink.url().replace("udp://", "rtp://");
    rig.apply("f", judged(flow(ports.map(|port| url_of("rtp", port, "reorder=5")), [output])));
    let mut reader = rig.engine.subscribe(&"f".parse().unwrap()).unwrap().subscriber(LagPolicy::DropOldest);
    let pair = Pair::start(ports, Harm::Lose);
    wait_until("the primary", || rig.source("f", "s1").selected && rig.source("f", "s2").packets > 500);
    assert_eq!(rig.source("f", "s1").fault, None);

    pair.harm(3);
    let is_failover = |event: &EventKind| matches!(event, EventKind::SourceFailover { .. });
    let [from, to] = ["s1", "s2"].map(|name| name.parse().unwrap());
    let cause = Cause::Faulty(Fault::Loss);
    let expected = EventKind::SourceFailover { from, to, cause, silent: Duration::ZERO };
    assert_eq!(rig.wait_event("f", "the failover", is_failover), expected);
    assert_eq!(expected.to_string(), "switched from s1 to s2: s1 loses too many packets");
    wait_until("the metrics", || rig.source("f", "s1").fault == Some(Fault::Loss));
    assert_eq!(rig.snapshot("f").switches, Switches { loss: 1, ..Switches::default() });
    wait_until("packets of the backup", || sink.kept().last().is_some_and(|last| is_of(last, 2)));

    let good_again = clock::now();
    pair.harm(0);
    rig.wait_event("f", "the return", |event| matches!(event, EventKind::PrimaryRecovered { .. }));
    assert!(clock::now().since(good_again) >= RETURN_HOLD_OFF);
    let fault = Fault::Loss;
    let restored = EventKind::SourceRestored { source: "s1".parse().unwrap(), fault };
    assert!(rig.events("f").contains(&restored));
    let kept = sink.kept().len();
    wait_until("packets of the primary", || sink.kept()[kept..].iter().any(|datagram| is_of(datagram, 1)));
    drop(pair);

    // The marker stands where the source changes, and nowhere else.
    let kept = sink.kept();
    let marked = |datagram: &[u8]| RtpPacket::parse(datagram).unwrap().header.marker;
    assert!(!marked(&kept[0]));
    let mut changes = 0;
    for pair in kept.windows(2) {
        let is_change = is_of(&pair[0], 1) != is_of(&pair[1], 1);
        assert_eq!(marked(&pair[1]), is_change);
        changes += u32::from(is_change);
    }
    assert_eq!(changes, 2);
    // Readers see the same on the bus.
    let marks = std::iter::from_fn(|| reader.try_recv().unwrap()).filter(|packet| packet.meta.discontinuity);
    assert!(marks.count() <= 2);
}

/// The first of two UDP sources has three broken packets of ten; the second is good.
#[test]
fn a_primary_with_a_broken_transport_stream_is_left() {
    let rig = Rig::new();
    let (sink, ports) = (Sink::keeping(V4), [0; 2].map(|_| SocketAddr::from((V4, free_port()))));
    let mut config = judged(flow(ports.map(udp), [sink.url()]));
    config.failover.switch_on.loss_per_mille = None;
    rig.apply("f", config.clone());
    let pair = Pair::start(ports, Harm::Damage);
    pair.harm(3);
    wait_until("the primary", || rig.source("f", "s1").selected && rig.source("f", "s2").packets > 500);
    // Nobody has asked for it yet.
    assert_eq!(rig.source("f", "s1").fault, None);
    config.failover.switch_on.ts_errors_per_second = Some(20);
    rig.apply("f", config);
    let is_failover = |event: &EventKind| matches!(event, EventKind::SourceFailover { .. });
    let event = rig.wait_event("f", "the failover", is_failover);
    assert_eq!(event.to_string(), "switched from s1 to s2: s1 has too many transport stream errors");
    assert_eq!((rig.source("f", "s1").lost, rig.source("f", "s2").fault), (0, None));
    wait_until("packets of the backup", || sink.kept().last().is_some_and(|last| last.len() == 376));
    pair.harm(0);
    rig.wait_event("f", "the return", |event| matches!(event, EventKind::PrimaryRecovered { .. }));
}

/// 5 % of loss.
fn judged(config: FlowConfig) -> FlowConfig {
    let mut config = config;
    // A busy machine is not silence.
    config.failover.health_timeout = Duration::from_secs(20);
    config.failover.hold_off = RETURN_HOLD_OFF;
    config.failover.switch_on =
        Rules { loss_per_mille: Some(50), hold_off: HOLD_OFF, return_hold_off: RETURN_HOLD_OFF, ..Rules::default() };
    config
}

/// Whether the payload is as long as that of a source's.
fn is_of(datagram: &[u8], source: usize) -> bool {
    datagram.len() == HEADER_BYTES + 188 * source
}

/// What is wrong with a sender.
#[derive(Clone, Copy, PartialEq)]
enum Harm {
    /// RTP, and packets are missing.
    Lose,
    /// UDP, and sync bytes are damaged.
    Damage,
}

/// Two senders with packets of one and of two TS packets, the first of which does not send all as it should.
struct Pair {
    of_ten: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Pair {
    fn start(targets: [SocketAddr; 2], harm: Harm) -> Self {
        let (of_ten, stop) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
        let (harmed, ended) = (Arc::clone(&of_ten), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut feeds = [Feed::new(targets[0], 188), Feed::new(targets[1], 376)];
            let mut sequence = 0_u32;
            while !ended.load(Ordering::Relaxed) {
                for (ssrc, feed) in (1..).zip(&mut feeds) {
                    let header = Header {
                        marker: false,
                        payload_type: 33,
                        sequence: Seq::new(sequence),
                        timestamp: sequence.wrapping_mul(180),
                        ssrc,
                    };
                    let is_harmed = ssrc == 1 && sequence % 10 < harmed.load(Ordering::Relaxed);
                    let mut payload = feed.next();
                    if harm == Harm::Damage && is_harmed {
                        payload[0] = 0;
                    }
                    let datagram = match harm {
                        Harm::Lose => [&header.to_bytes()[..], &payload].concat(),
                        Harm::Damage => payload,
                    };
                    if harm == Harm::Damage || !is_harmed {
                        feed.socket.send(&datagram).unwrap();
                    }
                }
                sequence += 1;
                std::thread::park_timeout(INTERVAL);
            }
        });
        Self { of_ten, stop, thread: Some(thread) }
    }

    /// So many of ten packets of the first from now on.
    fn harm(&self, of_ten: u32) {
        self.of_ten.store(of_ten, Ordering::Relaxed);
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.thread.take().map(JoinHandle::join));
    }
}
