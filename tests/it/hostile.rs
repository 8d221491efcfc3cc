//! Streams made to harm whoever looks into them, through a flow of which everything is looked at.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anabranch::bus::LagPolicy;
use anabranch::engine::MonitorConfig;
use anabranch::proto::mpegts::psi::{Pat, Pmt, packet_of};
use anabranch::proto::mpegts::{Pid, TS_PACKET_BYTES};

use crate::support::{Feed, Rig, Sink, TS, V4, flow, flow_id, free_port, udp, wait_until};

/// They come out as they went in, and another flow of the same worker loses nothing.
#[test]
fn hostile_streams_pass_untouched_and_harm_nobody() {
    let rig = Rig::new();
    let (sink, other_sink) = (Sink::keeping(V4), Sink::new(V4));
    let [listen, other] = [(); 2].map(|()| SocketAddr::from((V4, free_port())));
    let mut wanted = flow([udp(listen)], [sink.url()]);
    wanted.outputs[0].policy = LagPolicy::ToNextKeyFrame;
    wanted.monitor = MonitorConfig {
        ts_analysis: true,
        outputs: vec![wanted.outputs[0].name.clone()],
        thumbnail_every: Some(Duration::from_secs(1)),
        content_quality: true,
    };
    rig.apply("f", wanted);
    rig.apply("other", flow([udp(other)], [other_sink.url()]));
    let beside = Feed::new(other, TS).run(Duration::from_millis(1));
    let feed = Feed::new(listen, TS);
    let mut sent = Vec::new();
    let mut random = fastrand::Rng::with_seed(5);
    for payload in hostile(&mut random) {
        feed.socket.send(&payload).unwrap();
        sent.push(payload);
        if sent.len() % 16 == 0 {
            sink.wait(sent.len() as u64);
        }
    }
    sink.wait(sent.len() as u64);
    // Compared by hand: a failing assert_eq would print megabytes.
    assert!(sink.kept() == sent, "something was changed");
    wait_until("the counter", || rig.output("f", "o1").packets == sent.len() as u64);
    let source = rig.source("f", "s1");
    assert!(source.drops.by_cause().iter().all(|cause| cause.1 == 0), "{:?}", source.drops);
    let output = rig.output("f", "o1");
    assert!(output.drops.by_cause().iter().all(|cause| cause.1 == 0), "{:?}", output.drops);
    assert!(source.ts.unwrap().stats.continuity_errors > 0 && output.ts.unwrap().stats.continuity_errors > 0);
    let seen = || rig.engine.watch(&flow_id("f")).and_then(|watched| watched.report);
    // On a busy machine nobody may have had time for a look.
    let mut again = sent.iter().cycle();
    wait_until("a look at it", || {
        again.by_ref().take(16).for_each(|payload| drop(feed.socket.send(payload)));
        seen().is_some_and(|report| report.counts.units > 0 && report.counts.restarts == 0)
    });
    let made = beside.stop().made();
    other_sink.assert_perfect(made);
}

/// Datagrams of several kinds: a broadcast with wrong bits, tables that change with each packet, units that begin on all
/// PIDs and never end, pictures of 8192x4352 that are not there, descriptors beyond their tables, and no sense at all.
fn hostile(random: &mut fastrand::Rng) -> Vec<Vec<u8>> {
    let mut kinds: [Vec<[u8; TS_PACKET_BYTES]>; 5] = Default::default();
    kinds[0] = broadcast(random);
    for n in 0..5_000_u32 {
        let program = |number| (number, Pid::from_low_bits(0x1000 + number));
        let pat = Pat { stream_id: 1, version: (n % 32) as u8, programs: &[1, 2, 3].map(program) };
        let pid = Pid::from_low_bits(0x100 + (n % 0xe00) as u16);
        let number = 1 + (n % 3) as u16;
        let pmt =
            Pmt { program: number, version: (n / 3 % 32) as u8, pcr_pid: pid, streams: &[(0x1b, pid), (0x0f, pid)] };
        let mut table = packet_of(&pmt.section(), program(number).1);
        if n % 5 == 0 {
            // The length of the program's descriptors, or of a stream's: beyond what is there.
            table[if n % 2 == 0 { 15 } else { 20 }] ^= 0x0f;
        }
        kinds[1].extend([packet_of(&pat.section(), Pid::PAT), table]);
        kinds[2].push(beginning(Pid::from_low_bits((n % 0x2000) as u16), n as u8, random));
        let mut noise = [0; TS_PACKET_BYTES];
        random.fill(&mut noise);
        kinds[3].push(noise);
        noise[0] = 0x47;
        kinds[4].push(noise);
    }
    let mut all = Vec::new();
    for kind in kinds {
        all.extend(kind.chunks(7).map(<[_]>::concat));
    }
    all
}

/// As it was sent, with every hundredth packet spoiled.
fn broadcast(random: &mut fastrand::Rng) -> Vec<[u8; TS_PACKET_BYTES]> {
    let bytes = fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/ts/test-026.ts")).unwrap();
    let packets = bytes.chunks_exact(TS_PACKET_BYTES).take(7_000);
    let mut packets: Vec<[u8; TS_PACKET_BYTES]> = packets.map(|packet| packet.try_into().unwrap()).collect();
    for packet in packets.iter_mut().step_by(100) {
        for _ in 0..3 {
            packet[random.usize(..TS_PACKET_BYTES)] = random.u8(..);
        }
    }
    packets
}

/// A PES packet of unknown length with a key frame of 8192x4352 pixels (H.264 level 5.1), of which only the headers come.
fn beginning(pid: Pid, cc: u8, random: &mut fastrand::Rng) -> [u8; TS_PACKET_BYTES] {
    let mut packet = [0; TS_PACKET_BYTES];
    random.fill(&mut packet[60..]);
    let [high, low] = pid.value().to_be_bytes();
    packet[..4].copy_from_slice(&[0x47, 0x40 | high, low, 0x10 | cc & 0x0f]);
    packet[4..18].copy_from_slice(&[0, 0, 1, 0xe0, 0, 0, 0x80, 0x80, 5, 0x21, 0, 1, cc | 1, 1]);
    packet[18..26].copy_from_slice(&[0, 0, 0, 1, 0x67, 0x64, 0, 0x33]);
    packet[26..26 + SPS.len()].copy_from_slice(&SPS);
    let at = 26 + SPS.len();
    packet[at..at + 12].copy_from_slice(&[0, 0, 1, 0x68, 0xee, 0x3c, 0x80, 0, 0, 1, 0x65, 0x88]);
    packet
}

/// Behind profile and level: 4:2:0 of 8 bits, order type 2, 512 by 272 macroblocks of frames.
const SPS: [u8; 8] = [0xac, 0xb4, 0x00, 0x40, 0x00, 0x11, 0x0c, 0x80];
