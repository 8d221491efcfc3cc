//! Sources and outputs that come, go and change while a flow runs.

use std::fs;
use std::net::UdpSocket;
use std::time::Duration;

use anabranch::engine::{Cause, EngineConfig, EventKind, Field, OutputStatus, SourceStatus};
use anabranch::units::DataSize;

use crate::support::{
    Feed, Rig, Sink, TS, V4, alone, flow, free_port, let_pass, output, perfect, source, udp, url_of, wait_until,
};

/// Another output comes and goes ten thousand times; the one that stays loses nothing, and the process is as it was.
#[test]
fn ten_thousand_outputs_come_and_go() {
    alone("change::ten_thousand_outputs_come_and_go", || {
        let rig = Rig::new();
        let (stays, listen) = (Sink::new(V4), (V4, free_port()).into());
        let comes_and_goes = Sink::new(V4);
        let without = flow([udp(listen)], [stays.url()]);
        let with = flow([udp(listen)], [stays.url(), comes_and_goes.url()]);
        rig.apply("f", without.clone());
        let mut feed = Feed::new(listen, 188);
        let mut cycles = |count: u32| {
            for cycle in 1..=count {
                rig.apply("f", with.clone());
                feed.send();
                rig.apply("f", without.clone());
                feed.send();
                if cycle % 16 == 0 {
                    stays.wait(feed.made());
                }
            }
            stays.assert_perfect(feed.made());
            (resident_bytes(), descriptors(), rig.engine.pool_usage().reserved_bytes)
        };
        let (resident, open, reserved) = cycles(1_000);
        let (resident_after, open_after, reserved_after) = cycles(10_000);
        assert_eq!(open_after, open);
        // A worker that was held up for a moment needs another slab of 256 KiB; a buffer lost per cycle would be 20 MiB.
        assert!(reserved_after <= reserved + (1 << 20), "{reserved} bytes of buffers before, {reserved_after} after");
        assert!(resident_after < resident + (2 << 20), "{resident} bytes resident before, {resident_after} after");
        assert_eq!(rig.snapshot("f").outputs.len(), 1);
        assert!(comes_and_goes.count() > 0);
    });
}

/// Whole flows, too: nothing of a stopped flow stays.
#[test]
fn flows_come_and_go() {
    alone("change::flows_come_and_go", || {
        let rig = Rig::with(&EngineConfig { workers: 2, ..EngineConfig::default() });
        let (sink, listen) = (Sink::new(V4), (V4, free_port()).into());
        let other = format!("rtp://127.0.0.1:{}", free_port());
        rig.apply("stays", flow([udp(listen)], [sink.url()]));
        let comes = flow([other], [format!("rtp://127.0.0.1:{}", free_port())]);
        let mut feed = Feed::new(listen, 188);
        let mut cycles = |count: u32| {
            for _ in 0..count {
                rig.apply("comes", comes.clone());
                feed.send_to_all(1, &[&sink]);
                rig.stop("comes");
            }
            (resident_bytes(), descriptors())
        };
        let (resident, open) = cycles(200);
        let (resident_after, open_after) = cycles(500);
        assert_eq!(open_after, open);
        assert!(resident_after < resident + (2 << 20), "{resident} bytes resident before, {resident_after} after");
        assert_eq!(sink.report(700), perfect(700));
    });
}

/// An output is changed again and again under a running feed. Not even this one misses a packet.
#[test]
fn changing_an_output_costs_no_packet() {
    let rig = Rig::new();
    let sinks: Vec<Sink> = (0..4).map(|_| Sink::new(V4)).collect();
    let listen = (V4, free_port()).into();
    let with = |query: &str| {
        let changed = url_of("udp", sinks[0].address, query);
        flow([udp(listen)], std::iter::once(changed).chain(sinks[1..].iter().map(Sink::url)))
    };
    rig.apply("f", with(""));
    let feed = Feed::new(listen, TS).run(Duration::from_micros(300));
    let before = sinks[1].count();
    for query in ["ttl=3", "dscp=46", "sndbuf=8192", "coalesce=3ms", "coalesce=1ms", ""].repeat(10) {
        rig.apply("f", with(query));
    }
    sinks[1].wait(before + 1_000);
    let made = feed.stop().made();
    sinks.iter().for_each(|sink| sink.assert_perfect(made));
    assert!(rig.events("f").iter().all(|event| !matches!(event, EventKind::OutputError { .. })));
}

/// A flow that starts while its sender is at work: all outputs begin with the same packet.
#[test]
fn all_outputs_begin_with_the_same_packet() {
    let sinks: Vec<Sink> = (0..50).map(|_| Sink::new(V4)).collect();
    for round in 0..5 {
        let rig = Rig::new();
        let listen = (V4, free_port()).into();
        let feed = Feed::new(listen, 188 + round).run(Duration::from_micros(100));
        let before: Vec<u64> = sinks.iter().map(Sink::count).collect();
        rig.apply("f", flow([udp(listen)], sinks.iter().map(Sink::url)));
        sinks[49].wait(before[49] + 20);
        drop(feed);
        wait_until("the same everywhere", || {
            let counts = sinks.iter().zip(&before).map(|(sink, before)| sink.count() - before);
            counts.clone().all(|count| count == rig.source("f", "s1").packets)
        });
    }
}

/// What an output was holding back leaves before the output does.
#[test]
fn a_flow_that_ends_sends_what_it_held_back() {
    let rig = Rig::new();
    let (sink, listen) = (Sink::new(V4), (V4, free_port()).into());
    let config = flow([udp(listen)], [url_of("udp", sink.address, "coalesce=100ms")]);
    let mut feed = Feed::new(listen, TS);
    for round in 0..10 {
        rig.apply("f", config.clone());
        (0..5).for_each(|_| feed.send());
        wait_until("the packets", || rig.source("f", "s1").packets == 5);
        if round % 2 == 0 {
            let without = flow([udp(listen)], [] as [&str; 0]);
            rig.apply("f", without);
        }
        rig.stop("f");
    }
    sink.assert_perfect(50);
}

#[test]
fn a_disabled_output_is_kept_and_sends_nothing() {
    let rig = Rig::new();
    let (on, off, listen) = (Sink::new(V4), Sink::new(V4), (V4, free_port()).into());
    let mut config = flow([udp(listen)], [on.url(), off.url()]);
    config.outputs[1].enabled = false;
    rig.apply("f", config.clone());
    let mut feed = Feed::new(listen, TS);
    feed.send_to_all(100, &[&on]);
    assert_eq!((off.count(), rig.output("f", "o2").status), (0, OutputStatus::Disconnected));
    config.outputs[1].enabled = true;
    rig.apply("f", config.clone());
    feed.send_to_all(100, &[&on, &off]);
    config.outputs[1].enabled = false;
    rig.apply("f", config);
    feed.send_to_all(100, &[&on]);
    assert_eq!((on.count(), off.count()), (300, 100));
}

/// The new source binds the port of the old one.
#[test]
fn a_source_is_replaced_on_its_port() {
    let rig = Rig::new();
    let (sink, listen) = (Sink::new(V4), (V4, free_port()).into());
    rig.apply("f", flow([udp(listen)], [sink.url()]));
    let mut feed = Feed::new(listen, TS);
    for bytes in [1_048_576, 2_097_152, 4_194_304].repeat(4) {
        rig.apply("f", flow([url_of("udp", listen, &format!("rcvbuf={bytes}"))], [sink.url()]));
        feed.send_to_all(50, &[&sink]);
        assert_eq!(rig.source("f", "s1").rcvbuf_asked_bytes, bytes);
    }
    sink.assert_perfect(600);
}

/// As does a source of another name and protocol.
#[test]
fn a_source_gives_its_port_to_another_one() {
    let rig = Rig::new();
    let (sink, listen) = (Sink::keeping(V4), (V4, free_port()).into());
    rig.apply("f", flow([udp(listen)], [sink.url()]));
    Feed::new(listen, TS).send();
    sink.wait(1);
    let mut config = flow([udp(listen)], [sink.url()]);
    config.sources = vec![source("other", &url_of("rtp", listen, ""))];
    rig.apply("f", config.clone());
    assert_eq!(rig.source("f", "other").status, SourceStatus::Disconnected);
    config.sources = vec![source("s1", &udp(listen))];
    rig.apply("f", config);
    Feed::new(listen, TS).send();
    sink.wait(2);
}

#[test]
fn a_port_in_use_changes_nothing() {
    let rig = Rig::new();
    let (sink, listen) = (Sink::new(V4), (V4, free_port()).into());
    let running = flow([udp(listen)], [sink.url()]);
    rig.apply("f", running.clone());
    let taken = UdpSocket::bind((V4, free_port())).unwrap();
    let taken = taken.local_addr().map(|address| (taken, address)).unwrap();
    let mut wanted = running;
    wanted.sources.push(source("s2", &udp(taken.1)));
    wanted.outputs[0] = output("o1", &url_of("udp", sink.address, "ttl=9"));
    wanted.outputs.push(output("o2", &sink.url()));
    let feed = Feed::new(listen, TS).run(Duration::from_micros(500));
    sink.wait(100);
    for _ in 0..20 {
        let error = rig.try_apply("f", wanted.clone()).unwrap_err();
        assert_eq!(error.field, Field::Source(1));
        assert!(matches!(error.cause, Cause::InUse { .. }), "{error}");
    }
    let made = feed.stop().made();
    sink.assert_perfect(made);
    wait_until("the counter", || rig.output("f", "o1").packets == made);
    assert_eq!((rig.snapshot("f").sources.len(), rig.snapshot("f").outputs.len()), (1, 1));
}

/// The source had to give up its port before it turned out that the change as a whole cannot be.
#[test]
fn a_refused_change_gives_the_old_source_its_port_back() {
    let rig = Rig::new();
    let (sink, listen) = (Sink::new(V4), (V4, free_port()).into());
    rig.apply("f", flow([udp(listen)], [sink.url()]));
    let mut feed = Feed::new(listen, TS);
    feed.send_to_all(10, &[&sink]);
    let taken = UdpSocket::bind((V4, free_port())).unwrap();
    let taken_url = udp(taken.local_addr().unwrap());
    for _ in 0..10 {
        let wanted = flow([url_of("udp", listen, "rcvbuf=1048576"), taken_url.clone()], [sink.url()]);
        let error = rig.try_apply("f", wanted).unwrap_err();
        assert_eq!(error.field, Field::Source(1));
        let source = rig.source("f", "s1");
        assert_eq!(source.error, None);
        assert_ne!(source.status, SourceStatus::Error);
        assert_eq!(source.rcvbuf_asked_bytes, 8 << 20, "the old settings are in force");
        feed.send_to_all(10, &[&sink]);
    }
    sink.assert_perfect(110);
}

/// A flow that cannot start leaves no socket behind.
#[test]
fn a_flow_that_cannot_start_holds_no_port() {
    let rig = Rig::new();
    let (first, second) = ((V4, free_port()).into(), (V4, free_port()).into());
    let taken = UdpSocket::bind(second).unwrap();
    for _ in 0..20 {
        let error = rig.try_apply("f", flow([udp(first), udp(second)], [udp(first)])).unwrap_err();
        assert_eq!(error.field, Field::Source(1));
        assert!(rig.engine.snapshot(&crate::support::flow_id("f")).is_none());
        drop(UdpSocket::bind(first).unwrap());
    }
    drop(taken);
    rig.apply("f", flow([udp(first), udp(second)], [udp(first)]));
}

/// What failed is opened again by itself, and what was replaced meanwhile is not.
#[test]
fn a_failed_source_is_retried_until_the_port_is_free() {
    let rig = Rig::new();
    let (sink, listen) = (Sink::new(V4), (V4, free_port()).into());
    let taken = UdpSocket::bind(listen).unwrap();
    rig.apply_leniently("f", flow([udp(listen)], [sink.url()]));
    assert_eq!(rig.source("f", "s1").status, SourceStatus::Error);
    rig.wait_event("f", "the announcement", |event| matches!(event, EventKind::SourceRetry { attempt: 1, .. }));
    drop(taken);
    wait_until("the retry", || rig.source("f", "s1").error.is_none());
    Feed::new(listen, TS).send_to_all(10, &[&sink]);
    assert_eq!(rig.source("f", "s1").retry_total, 1);
}

/// A retry that is due belongs to the settings that failed, not to those that have replaced them.
#[test]
fn a_source_that_was_mended_is_not_opened_again() {
    let rig = Rig::new();
    let (sink, listen) = (Sink::new(V4), (V4, free_port()).into());
    let taken = UdpSocket::bind((V4, free_port())).unwrap();
    rig.apply_leniently("f", flow([udp(taken.local_addr().unwrap())], [sink.url()]));
    rig.apply("f", flow([udp(listen)], [sink.url()]));
    let feed = Feed::new(listen, TS).run(Duration::from_millis(1));
    // Longer than the first wait, which is 600 ms at most.
    let_pass(Duration::from_millis(900));
    let made = feed.stop().made();
    sink.assert_perfect(made);
    assert_eq!((rig.source("f", "s1").error, rig.source("f", "s1").retry_total), (None, 0));
}

#[test]
fn an_output_that_was_disabled_after_a_failure_stays_so() {
    let rig = Rig::new();
    let listen = (V4, free_port()).into();
    let failing = "udp://10.255.255.1:9?iface=nosuchif0";
    let mut config = flow([udp(listen)], [failing]);
    rig.apply_leniently("f", config.clone());
    assert_eq!(rig.output("f", "o1").status, OutputStatus::Error);
    config.outputs[0].enabled = false;
    rig.apply("f", config);
    let_pass(Duration::from_millis(900));
    let output = rig.output("f", "o1");
    assert_eq!((output.status, output.error, output.retry_total), (OutputStatus::Disconnected, None, 0));
}

/// An output that failed to open is opened again, and that is told.
#[test]
fn a_failed_output_recovers() {
    let rig = Rig::new();
    let listen = (V4, free_port()).into();
    let sink = Sink::new(V4);
    rig.apply_leniently("f", flow([udp(listen)], ["udp://10.255.255.1:9?iface=nosuchif0".to_string(), sink.url()]));
    rig.wait_event("f", "the error", |event| matches!(event, EventKind::OutputError { .. }));
    wait_until("a retry", || rig.output("f", "o1").retry_total >= 1);
    Feed::new(listen, TS).send_to_all(50, &[&sink]);
    let mended = Sink::new(V4);
    rig.apply("f", flow([udp(listen)], [mended.url(), sink.url()]));
    assert_eq!(rig.output("f", "o1").status, OutputStatus::Connected);
    Feed::new(listen, TS).send_to_all(50, &[&mended]);
}

/// Sources come and go around the one in use.
#[test]
fn sources_come_and_go_around_the_active_one() {
    let rig = Rig::new();
    let sink = Sink::new(V4);
    let ports: Vec<std::net::SocketAddr> = (0..8).map(|_| (V4, free_port()).into()).collect();
    let with = |count: usize| flow(ports[..count].iter().map(|port| udp(*port)), [sink.url()]);
    rig.apply("f", with(1));
    let feed = Feed::new(ports[0], TS).run(Duration::from_micros(500));
    sink.wait(50);
    for count in [2, 8, 3, 5, 1, 8, 1].repeat(10) {
        rig.apply("f", with(count));
    }
    let made = feed.stop().made();
    sink.assert_perfect(made);
    assert_eq!(rig.snapshot("f").failover_total, 0);
}

/// What the API calls `rcvbuf`: the kernel may grant less than was asked for, and both are told.
#[test]
fn buffers_are_told_as_asked_and_as_granted() {
    let rig = Rig::new();
    let listen = (V4, free_port()).into();
    let sink = Sink::new(V4);
    let asked = DataSize::from_bytes(1 << 30).as_bytes();
    rig.apply(
        "f",
        flow([url_of("udp", listen, &format!("rcvbuf={asked}"))], [url_of("udp", sink.address, "sndbuf=4096")]),
    );
    let (source, output) = (rig.source("f", "s1"), rig.output("f", "o1"));
    assert_eq!((source.rcvbuf_asked_bytes, output.sndbuf_asked_bytes), (asked, 4_096));
    assert!(source.rcvbuf_bytes > 0 && source.rcvbuf_bytes <= asked, "{}", source.rcvbuf_bytes);
    assert!(output.sndbuf_bytes > 0);
}

fn resident_bytes() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4_096
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}
