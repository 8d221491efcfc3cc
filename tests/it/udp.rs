//! UDP in, UDP out: every byte of every datagram, over the batched and the portable path.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;

use anabranch::adapters::IoKind;
use anabranch::bus::PoolLimits;
use anabranch::engine::EngineConfig;
use socket2::SockRef;

use crate::support::{Feed, Rig, Sink, TS, V4, V6, flow, free_port, perfect, roomy, udp, url_of, wait_until};

fn rig(io: IoKind) -> Rig {
    Rig::with(&EngineConfig { workers: 1, io, ..EngineConfig::default() })
}

/// One feed to `outputs` sinks: nothing lost, doubled, out of order or changed.
fn one_to_many(io: IoKind, ip: IpAddr, outputs: usize) {
    let rig = rig(io);
    let sinks: Vec<Sink> = (0..outputs).map(|_| Sink::new(ip)).collect();
    let listen = (ip, free_port()).into();
    rig.apply("f", flow([udp(listen)], sinks.iter().map(Sink::url)));
    let mut feed = Feed::new(listen, TS);
    feed.send_to_all(2_000, &sinks.iter().collect::<Vec<_>>());
    for sink in &sinks {
        sink.assert_perfect(feed.made());
    }
    wait_until("the counters", || rig.snapshot("f").outputs.iter().all(|output| output.packets == 2_000));
    let snapshot = rig.snapshot("f");
    assert_eq!((snapshot.sources[0].packets, snapshot.sources[0].bytes), (2_000, 2_000 * TS as u64));
    for output in &snapshot.outputs {
        assert_eq!(output.bytes, 2_000 * TS as u64);
        assert!(output.drops.by_cause().iter().all(|cause| cause.1 == 0), "{:?}", output.drops);
    }
}

#[test]
fn one_to_eight_over_ipv4() {
    one_to_many(IoKind::Best, V4, 8);
}

#[test]
fn one_to_eight_over_ipv6() {
    one_to_many(IoKind::Best, V6, 8);
}

#[test]
fn one_to_eight_over_the_portable_path() {
    one_to_many(IoKind::Portable, V4, 8);
}

#[test]
fn one_to_eight_over_the_portable_path_and_ipv6() {
    one_to_many(IoKind::Portable, V6, 8);
}

#[test]
fn one_to_two_hundred_and_fifty_six() {
    one_to_many_few(256);
}

/// As many outputs as a flow may have.
fn one_to_many_few(outputs: usize) {
    let rig = Rig::new();
    let sinks: Vec<Sink> = (0..outputs).map(|_| Sink::new(V4)).collect();
    let listen = (V4, free_port()).into();
    rig.apply("f", flow([udp(listen)], sinks.iter().map(Sink::url)));
    let mut feed = Feed::new(listen, TS);
    feed.send_to_all(100, &sinks.iter().collect::<Vec<_>>());
    sinks.iter().for_each(|sink| sink.assert_perfect(100));
}

/// A feed over IPv4 for an IPv6 output, and the other way round.
#[test]
fn families_mix() {
    for (from, to) in [(V4, V6), (V6, V4)] {
        let rig = Rig::new();
        let (sink, listen) = (Sink::new(to), (from, free_port()).into());
        rig.apply("f", flow([udp(listen)], [sink.url()]));
        let mut feed = Feed::new(listen, TS);
        feed.send_to_all(100, &[&sink]);
        sink.assert_perfect(100);
    }
}

#[test]
fn a_source_on_every_interface_takes_both_families() {
    let rig = Rig::new();
    let sink = Sink::keeping(V4);
    let port = free_port();
    rig.apply("f", flow([format!("udp://[::]:{port}")], [sink.url()]));
    Feed::new((V4, port).into(), TS).send();
    Feed::new((V6, port).into(), TS).send();
    sink.wait(2);
}

/// Payloads that are no transport stream, of every size that has an edge in the code: one byte, an Ethernet's longest,
/// one more than a small buffer, a jumbo frame, the longest that UDP has.
fn any_payload_passes(io: IoKind, ip: IpAddr) {
    let rig = rig(io);
    let sink = Sink::keeping(ip);
    let listen = (ip, free_port()).into();
    rig.apply("f", flow([udp(listen)], [sink.url()]));
    let feed = Feed::new(listen, TS);
    let sizes = [1, 187, 1_472, 2_048, 2_049, 9_000, 65_507, 1, 65_507, 1_472];
    let mut sent = Vec::new();
    for round in 0..20_usize {
        for size in sizes {
            let payload: Vec<u8> = (0..size).map(|at| (at * 7 + round) as u8).collect();
            feed.socket.send(&payload).unwrap();
            sent.push(payload);
            sink.wait(sent.len() as u64);
        }
    }
    // Compared by hand: a failing assert_eq would print megabytes.
    assert!(sink.kept() == sent, "something was changed");
    feed.socket.send(&[]).unwrap();
    wait_until("the empty datagram", || rig.source("f", "s1").drops.malformed == 1);
    wait_until("the counter", || rig.output("f", "o1").packets == sent.len() as u64);
    assert_eq!(sink.count(), sent.len() as u64);
}

#[test]
fn any_payload_passes_byte_for_byte() {
    any_payload_passes(IoKind::Best, V4);
    any_payload_passes(IoKind::Best, V6);
}

#[test]
fn any_payload_passes_byte_for_byte_over_the_portable_path() {
    any_payload_passes(IoKind::Portable, V4);
    any_payload_passes(IoKind::Portable, V6);
}

/// The sender hands the kernel trains of datagrams, which loopback passes on whole to a socket that takes such.
fn trains_are_taken_apart(io: IoKind, ip: IpAddr) {
    let rig = rig(io);
    let sink = Sink::new(ip);
    let listen = (ip, free_port()).into();
    rig.apply("f", flow([udp(listen)], [sink.url()]));
    let mut feed = Feed::new(listen, TS);
    set_segment(&feed.socket, TS as i32);
    // The kernel's limit of 64 segments, fewer where 64 KiB end first.
    for datagrams in [2, 7, 49, 1, 33].repeat(8) {
        let train: Vec<u8> = (0..datagrams).flat_map(|_| feed.next()).collect();
        feed.socket.send(&train).unwrap();
        sink.wait(feed.made());
    }
    sink.assert_perfect(feed.made());
    wait_until("the counter", || rig.source("f", "s1").packets == feed.made());
}

#[test]
fn trains_of_datagrams_are_taken_apart() {
    trains_are_taken_apart(IoKind::Best, V4);
    trains_are_taken_apart(IoKind::Best, V6);
}

#[test]
fn trains_of_datagrams_are_taken_apart_for_the_portable_path() {
    trains_are_taken_apart(IoKind::Portable, V4);
    trains_are_taken_apart(IoKind::Portable, V6);
}

/// The last datagram of a train may be shorter than the others.
#[test]
fn a_train_may_end_with_a_shorter_datagram() {
    for io in [IoKind::Best, IoKind::Portable] {
        let rig = rig(io);
        let sink = Sink::keeping(V4);
        let listen = (V4, free_port()).into();
        rig.apply("f", flow([udp(listen)], [sink.url()]));
        let feed = Feed::new(listen, TS);
        set_segment(&feed.socket, 1_000);
        feed.socket.send(&[7; 30_001]).unwrap();
        sink.wait(31);
        let lengths: Vec<usize> = sink.kept().iter().map(Vec::len).collect();
        assert_eq!(lengths, [vec![1_000; 30], vec![1]].concat());
    }
}

/// Packets wait for each other, leave with one system call, and the last ones do not wait for more to come.
#[test]
fn coalesced_packets_leave_together_and_none_stays() {
    for ip in [V4, V6] {
        let rig = Rig::new();
        let (together, at_once) = (Sink::new(ip), Sink::new(ip));
        let listen = (ip, free_port()).into();
        let coalesced = url_of("udp", together.address, "coalesce=20ms");
        rig.apply("f", flow([udp(listen)], [coalesced, at_once.url()]));
        let mut feed = Feed::new(listen, TS);
        for burst in [7, 1, 30, 49, 50, 120, 3] {
            (0..burst).for_each(|_| feed.send());
            together.wait(feed.made());
        }
        together.assert_perfect(feed.made());
        at_once.assert_perfect(feed.made());
        // The last of them may be on their way into the counter.
        wait_until("packets that shared a send", || rig.output("f", "o1").gso_packets >= 150);
    }
}

#[test]
fn coalescing_can_be_switched_on_and_off_while_packets_wait() {
    let rig = Rig::new();
    let (sink, listen) = (Sink::new(V4), (V4, free_port()).into());
    let mut feed = Feed::new(listen, TS);
    for coalesce in ["100ms", "0", "50ms", "1ms", "100ms", "0"] {
        rig.apply("f", flow([udp(listen)], [url_of("udp", sink.address, &format!("coalesce={coalesce}"))]));
        (0..5).for_each(|_| feed.send());
    }
    sink.assert_perfect(30);
    // The output was never opened anew, or its counter would have been.
    wait_until("the counter", || rig.output("f", "o1").packets == 30);
}

/// A source so busy that it rests between wake-ups: GSO engages by itself and the end of the burst is not forgotten.
#[test]
fn a_busy_source_is_served_in_groups() {
    let rig = Rig::new();
    let sinks: Vec<Sink> = (0..4).map(|_| Sink::new(V4)).collect();
    let listen = (V4, free_port()).into();
    rig.apply("f", flow([udp(listen)], sinks.iter().map(Sink::url)));
    let mut feed = Feed::new(listen, 188);
    let mut sent = 0;
    // At least two measuring windows at far above the busy rate, on whatever machine.
    wait_until("GSO", || {
        for _ in 0..32 {
            (0..16).for_each(|_| feed.send());
            sent += 16;
            sinks.iter().for_each(|sink| sink.wait(sent - 16));
        }
        sinks.iter().for_each(|sink| sink.wait(sent));
        rig.output("f", "o1").gso_packets > 0
    });
    sinks.iter().for_each(|sink| sink.assert_perfect(sent));
}

#[test]
fn long_packets_are_cut_for_an_output_that_asks_for_it() {
    for io in [IoKind::Best, IoKind::Portable] {
        let rig = rig(io);
        let sink = Sink::keeping(V4);
        let listen = (V4, free_port()).into();
        rig.apply("f", flow([udp(listen)], [url_of("udp", sink.address, "pkt_size=188")]));
        let mut feed = Feed::new(listen, TS);
        let sent = feed.next();
        feed.socket.send(&sent).unwrap();
        sink.wait(7);
        assert_eq!(sink.kept().concat(), sent);
        assert!(sink.kept().iter().all(|datagram| datagram.len() == 188));
        assert_eq!(sink.bytes(), TS as u64);
    }
}

/// A pool at its bound: what finds no buffer is counted, what does goes on.
#[test]
fn what_finds_no_buffer_is_counted() {
    for io in [IoKind::Best, IoKind::Portable] {
        let pool = PoolLimits { small_max: 128, large_max: 0 };
        let rig = Rig::with(&EngineConfig { workers: 1, io, pool, ..EngineConfig::default() });
        let (sink, listen) = (Sink::new(V4), (V4, free_port()).into());
        rig.apply("f", flow([udp(listen)], [sink.url()]));
        let mut feed = Feed::new(listen, TS);
        for _ in 0..20 {
            feed.socket.send(&[1; 9_000]).unwrap();
            feed.send_to_all(10, &[&sink]);
        }
        sink.assert_perfect(200);
        wait_until("the counter", || rig.source("f", "s1").drops.no_buffer == 20);
        assert_eq!(rig.source("f", "s1").packets, 200);
    }
}

/// More buffers wanted than there are: packets that wait for a coalescing output hold all of them.
#[test]
fn an_empty_pool_recovers() {
    let pool = PoolLimits { small_max: 128, large_max: 0 };
    let rig = Rig::with(&EngineConfig { workers: 1, pool, ..EngineConfig::default() });
    let (sink, listen) = (Sink::new(V4), (V4, free_port()).into());
    let ids: Vec<String> = (0..4).map(|n| format!("f{n}")).collect();
    let listens: Vec<SocketAddr> = (0..4).map(|_| (V4, free_port()).into()).collect();
    for (id, listen) in ids.iter().zip(&listens) {
        rig.apply(id, flow([udp(*listen)], [url_of("udp", sink.address, "coalesce=100ms")]));
    }
    rig.apply("last", flow([udp(listen)], [sink.url()]));
    let dropped = || ids.iter().map(|id| rig.source(id, "s1").drops.no_buffer).sum::<u64>();
    let mut sent = 0;
    wait_until("an empty pool", || {
        for listen in &listens {
            let mut feed = Feed::new(*listen, TS);
            (0..45).for_each(|_| feed.send());
        }
        sent += 4 * 45;
        wait_until("all of them", || sink.count() + dropped() == sent);
        dropped() > 0
    });
    let before = sink.count();
    let mut feed = Feed::new(listen, TS);
    (0..20).for_each(|_| feed.send());
    sink.wait(before + 20);
}

/// More flows than workers, each with its own port.
#[test]
fn flows_do_not_mix() {
    let rig = Rig::with(&EngineConfig { workers: 2, ..EngineConfig::default() });
    let flows: Vec<(Sink, Feed)> = (0..20)
        .map(|n| {
            let (sink, listen) = (Sink::new(V4), (V4, free_port()).into());
            rig.apply(&format!("f{n}"), flow([udp(listen)], [sink.url()]));
            (sink, Feed::new(listen, 188 + n))
        })
        .collect();
    let flows: Vec<_> = flows
        .into_iter()
        .map(|(sink, mut feed)| {
            std::thread::spawn(move || {
                feed.send_to_all(300, &[&sink]);
                (sink.report(300), sink.bytes(), 300 * feed.next().len() as u64)
            })
        })
        .collect();
    for flow in flows {
        let (report, bytes, expected) = flow.join().unwrap();
        assert_eq!((report, bytes), (perfect(300), expected));
    }
}

/// What the socket does not read is not mixed up with what another one sends: a burst that no window holds back.
#[test]
fn a_burst_waits_in_the_source_buffer() {
    let rig = Rig::new();
    let listen = (V4, free_port()).into();
    let sink = Sink::checking_on(roomy((V4, free_port()).into()));
    rig.apply("f", flow([udp(listen)], [sink.url()]));
    let mut feed = Feed::new(listen, TS);
    (0..400).for_each(|_| feed.send());
    sink.assert_perfect(400);
}

#[allow(unsafe_code, reason = "no crate sets UDP_SEGMENT")]
fn set_segment(socket: &std::net::UdpSocket, bytes: i32) {
    let fd = SockRef::from(socket).as_raw_fd();
    // SAFETY: pointer and length describe `bytes`.
    let result = unsafe {
        libc::setsockopt(fd, libc::SOL_UDP, libc::UDP_SEGMENT, (&raw const bytes).cast(), size_of::<i32>() as u32)
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}
