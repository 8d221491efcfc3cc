//! Decoders' buffers against streams made slot by slot: what 13818-1 2.4.2 allows is good, and a little more is told.

use std::collections::VecDeque;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::bus::{Pool, PoolLimits};
use crate::proto::mpegts::analysis::{Analyser, IndicatorSnapshot, Snapshot, State};
use crate::proto::mpegts::psi::{Pat, Pmt, packet_of};
use crate::proto::mpegts::table::StreamEntry;
use crate::proto::mpegts::{Adaptation, PCR_MODULUS_27M, TS_PACKET_BYTES, TestPicture, TsPacket, picture};
use crate::proto::{Core, Surroundings};
use crate::units::Ticks27M;

const MP2: &[u8] = &[0xff, 0xfd, 0xa4, 0];
/// H.264 High at level 1 and at 4, MPEG-2 Main profile at Main level.
const LEVEL_1: &[u8] = &[0, 0, 1, 9, 0xf0, 0, 0, 1, 0x67, 66, 0, 10, 0xaa];
const LEVEL_4: &[u8] = &[0, 0, 1, 9, 0xf0, 0, 0, 1, 0x67, 100, 0, 40, 0xaa];
const MAIN: &[u8] = &[0, 0, 1, 0xb3, 0x2d, 0x02, 0x40, 0x33, 0, 0, 1, 0xb5, 0x14, 0x8a];

#[test]
fn sound_may_fill_its_buffer_of_3584_bytes_and_no_more() {
    // 600 bytes of every frame, 24 ms each: 6 frames are more than 3,584 bytes.
    let sound = |ahead_ms| Units { stream_type: 3, head: MP2, bytes: 586, every_ms: 24, ahead_ms, ..Units::default() };
    assert_eq!(errors(&run(&sound(100), 4)), [0, 0, 0]);
    let found = run(&sound(160), 4);
    assert!(errors(&found)[0] > 0 && errors(&found)[1..] == [0, 0], "{:?}", errors(&found));
    assert_eq!(found.indicator(Indicator::BufferError).pid, Some(MEDIA));
}

#[test]
fn several_frames_in_a_pes_packet_leave_one_by_one() {
    // Five frames of 576 bytes: all of them would be in time at the first one's DTS only if they came 40 ms before.
    let sound =
        |ahead_ms| Units { stream_type: 3, head: MP2, bytes: 2_880, every_ms: 120, ahead_ms, ..Units::default() };
    let spread = |ahead_ms| Units { gap: 7, ..sound(ahead_ms) };
    assert_eq!(errors(&run(&spread(30), 4)), [0, 0, 0]);
    assert_eq!(errors(&run(&sound(45), 4)), [0, 0, 0]);
    assert!(errors(&run(&sound(160), 4))[0] > 0, "more than a decoder holds");
    assert!(errors(&run(&Units { late_from_s: 3, ..spread(30) }, 6))[0] > 0);
}

#[test]
fn pictures_may_fill_what_their_level_allows() {
    // Two packets every 40 ms are 9,200 bytes a second, of 27,583 at level 1; 92,160 b/s leak from the transport buffer.
    let slow = |ahead_ms| Units { head: LEVEL_1, bytes: 340, every_ms: 40, ahead_ms, gap: 30, ..Units::default() };
    assert_eq!(errors(&run(&slow(2_500), 6)), [0, 0, 0]);
    let found = errors(&run(&slow(4_000), 6));
    assert!(found[0] > 0 && found[1..] == [0, 0], "{found:?}");
}

#[test]
fn packets_faster_than_a_transport_buffer_leaks_overflow_it() {
    let burst = |head, bytes| Units { head, bytes, every_ms: 200, ahead_ms: 500, ..Units::default() };
    // Two of them at once, then four; at level 4 forty.
    assert_eq!(errors(&run(&burst(LEVEL_1, 340), 4)), [0, 0, 0]);
    let found = errors(&run(&burst(LEVEL_1, 700), 4));
    assert!(found[0] > 0 && found[1..] == [0, 0], "{found:?}");
    assert_eq!(errors(&run(&burst(LEVEL_4, 7_000), 4)), [0, 0, 0]);
}

#[test]
fn a_transport_buffer_that_is_never_empty_is_told() {
    // A packet of 188 bytes every 16 ms is 94 kb/s, and 92,160 b/s leak; with every third away it is empty now and then.
    let steady = Units { head: LEVEL_1, bytes: 170, every_ms: 16, ahead_ms: 500, ..Units::default() };
    let found = errors(&run(&steady, 7));
    assert!(found[1] > 0 && found[2] == 0, "{found:?}");
    assert_eq!(errors(&run(&Units { every_ms: 24, ..steady }, 7)), [0, 0, 0]);
}

#[test]
fn data_may_wait_for_a_second_and_for_ten_where_the_codec_says_so() {
    let ahead = |stream_type, head, ahead_ms| Units {
        stream_type,
        head,
        bytes: 300,
        every_ms: 40,
        ahead_ms,
        ..Units::default()
    };
    assert_eq!(errors(&run(&ahead(0x02, MAIN, 950), 3)), [0, 0, 0]);
    assert!(matches!(errors(&run(&ahead(0x02, MAIN, 1_050), 3)), [0, 0, delays] if delays > 0));
    assert_eq!(errors(&run(&ahead(0x1b, LEVEL_4, 9_900), 3)), [0, 0, 0]);
    assert!(matches!(errors(&run(&ahead(0x1b, LEVEL_4, 10_100), 3)), [0, 0, delays] if delays > 0));
}

#[test]
fn data_that_come_too_late_are_told_at_once_or_if_they_always_do_after_a_while() {
    let pictures = Units { head: LEVEL_4, bytes: 2_000, every_ms: 40, ahead_ms: 100, ..Units::default() };
    assert_eq!(errors(&run(&pictures, 6)), [0, 0, 0]);
    let found = errors(&run(&Units { late_from_s: 3, ..pictures }, 6));
    assert!(found[0] > 0 && found[1..] == [0, 0], "{found:?}");
    let always = Units { ahead_ms: -100, ..pictures };
    let found = run(&always, 4);
    assert_eq!(errors(&found), [0, 0, 0], "the clock may be another one");
    assert!(is_unknown(&found, Indicator::BufferError));
    assert!(errors(&run(&always, 9))[0] > 0);
}

#[test]
fn what_does_not_tell_its_buffers_is_unknown() {
    let pictures = Units { head: LEVEL_4, bytes: 2_000, every_ms: 40, ahead_ms: 100, ..Units::default() };
    let found = run(&pictures, 4);
    assert_eq!((found.unmodelled_streams, found.indicator(Indicator::EmptyBufferError).state), (0, State::Good));
    for unknown in [
        // No parameter sets, and a codec that has no model here.
        Units { head: &[0, 0, 1, 0x65], ..pictures },
        Units { stream_type: 0x11, head: &[0x56, 0xe0], ..pictures },
    ] {
        let found = run(&unknown, 4);
        assert_eq!((found.unmodelled_streams, errors(&found)), (1, [0, 0, 0]));
        assert!(is_unknown(&found, Indicator::BufferError) && is_unknown(&found, Indicator::EmptyBufferError));
        assert_eq!(found.indicator(Indicator::DataDelayError).state, State::Good);
    }
    // The burst that overflows is none where the rate varies, and the delay is still one.
    let varying = Units { varies: true, head: LEVEL_1, bytes: 4_000, ahead_ms: 11_000, ..pictures };
    let found = run(&varying, 4);
    assert!(is_unknown(&found, Indicator::BufferError), "{:?}", found.indicator(Indicator::BufferError));
    assert!(matches!(errors(&found), [0, 0, delays] if delays > 0), "{:?}", errors(&found));
}

#[test]
fn test_pictures_of_any_rate_fit_into_decoders() {
    for (bps, size, picture_rate) in [
        (1_000_000, picture::Size::Hd720, 25),
        (3_000_000, picture::Size::Hd1080, 50),
        (30_000_000, picture::Size::Hd720, 25),
        (100_000_000, picture::Size::Hd720, 30),
    ] {
        let surroundings = Surroundings { pool: Pool::new(PoolLimits::default()), seed: 1, unix_ns_at_zero: 0 };
        let config = picture::Config::new(Bitrate::from_bps(bps)).unwrap().with_size(size);
        let mut core = TestPicture::new(config.with_picture_rate(picture_rate).unwrap(), &surroundings);
        let mut analyser = Analyser::new(Time::ZERO);
        while let Some(due) = core.poll_timeout().filter(|due| *due < Time::ZERO + Duration::from_millis(3_500)) {
            core.handle_timeout(due);
            while let Some(packet) = core.poll_packet() {
                analyser.handle_packet(packet.meta.arrival, &packet, None);
            }
        }
        let found = analyser.snapshot();
        for (_, indicator) in INDICATORS {
            let slot = found.indicator(indicator);
            assert_eq!((slot.errors, slot.state), (0, State::Good), "{bps} {indicator:?}");
        }
    }
}

/// Every PID is a stream of one of many programs, clocks jump, and stamps are any.
#[test]
fn a_hostile_stream_finds_its_bounds() {
    let mut analyser = Analyser::new(Time::ZERO);
    let programs: Vec<(u16, Pid)> = (1..=70).map(|n| (n, Pid::from_low_bits(0x20 + n))).collect();
    let pat = [&[0][..], &Pat { stream_id: 1, version: 0, programs: &programs }.section()].concat();
    let pat = (0..).zip(pat.chunks(184)).map(|(n, chunk)| packet((Pid::PAT, n), n == 0, None, chunk));
    let mut packets: VecDeque<_> = pat.collect();
    for (number, pmt_pid) in &programs {
        let streams: Vec<(u8, Pid)> = (0..30).map(|n| (0x1b, Pid::from_low_bits(0x400 + number * 30 + n))).collect();
        let pmt = Pmt { program: *number, version: 0, pcr_pid: streams[0].1, streams: &streams };
        packets.push_back(packet_of(&pmt.section(), *pmt_pid));
    }
    let mut random = 1_u64;
    for n in 0..60_000_u64 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let pid = if n % 3 == 0 { 0x41e } else { (random >> 40) as u16 & 0x1fff };
        let stamp = if n % 2 == 0 { random >> 20 } else { n * 100 + 90_000 };
        let pcr = if n % 5_000 == 0 { random >> 8 } else { n * 40_608 };
        let packet = packets.pop_front().unwrap_or_else(|| {
            let header = pes_header(stamp % (1 << 33), 0, LEVEL_4);
            let pcr = (n % 9 == 0).then_some(Ticks27M(pcr % PCR_MODULUS_27M));
            let adaptation = pcr.map(|_| Adaptation { pcr, ..Adaptation::default() });
            packet((Pid::from_low_bits(pid), n as u8 & 15), n % 3 < 2, adaptation, &header)
        });
        analyser.handle_packet(Time::from_ns(n * 1_504_000), &packet, None);
        if n % 1_000 == 0 {
            check(&analyser.judge.buffers);
        }
    }
    let buffers = &analyser.judge.buffers;
    assert_eq!((buffers.streams.len(), buffers.systems.len()), (STREAMS_MAX, PROGRAMS_MAX));
    assert!(analyser.snapshot().unmodelled_streams > 0);
}

proptest! {
    #[test]
    fn any_stamps_and_clocks_are_survived(
        steps in proptest::collection::vec((any::<u64>(), any::<u32>(), 0_u8..8, 0_u16..400), 0..300)
    ) {
        let entry = mpegts::Stream::new(
            &StreamEntry { stream_type: 3, pid: MEDIA, descriptors: &[] }, None,
        );
        let mut clock = Clock::new(MEDIA);
        let mut stream = Stream::new(&entry, 0);
        clock.pace = Pace::Constant;
        let mut position = 0;
        for (stamp, step, kind, bytes) in steps {
            position += u64::from(step % 100_000);
            let reading = PcrReading {
                pcr: Ticks27M(stamp % PCR_MODULUS_27M), position, step: Some(step.into()), is_restart: kind == 0,
                ..PcrReading::default()
            };
            clock.handle_pcr(&reading);
            let stamp = if kind % 2 == 0 { stamp } else { u64::from(step) };
            let payload = pes_header(stamp % (1 << 33), bytes, MP2);
            let header = PesHeader::parse(&payload).ok().filter(|_| kind != 3);
            let seen = Seen {
                pid: MEDIA, position, payload: &payload, unit_start: kind > 2, random_access: kind == 4,
                after_loss: kind == 5, is_scrambled: kind == 6,
            };
            let _ = stream.handle_packet(&clock, &seen, header.as_ref());
            let _ = stream.pass(&clock, position + 188);
            stream.check();
        }
    }
}

const MEDIA: Pid = Pid::from_low_bits(0x100);
const CLOCK: Pid = Pid::from_low_bits(0x1f0);
const RATE_BPS: u64 = 2_000_000;

/// Access units of one stream, each in a PES packet of its own.
#[derive(Clone, Copy)]
struct Units {
    stream_type: u8,
    /// What each begins with.
    head: &'static [u8],
    bytes: usize,
    every_ms: i64,
    /// From the moment the first packet is sent to DTS.
    ahead_ms: i64,
    /// Slots that are left free behind each packet.
    gap: u64,
    /// From this second on they come 300 ms later than they should; zero for never.
    late_from_s: i64,
    /// Every fourth slot is left out now and then.
    varies: bool,
}

impl Default for Units {
    fn default() -> Self {
        let (stream_type, head, bytes, every_ms) = (0x1b, LEVEL_4, 1_000, 40);
        Self { stream_type, head, bytes, every_ms, ahead_ms: 100, gap: 0, late_from_s: 0, varies: false }
    }
}

/// A stream of 2 Mb/s with these units, and tables and PCR on PIDs of their own.
fn run(units: &Units, seconds: i64) -> Snapshot {
    let mut analyser = Analyser::new(Time::ZERO);
    let pat = packet_of(&Pat { stream_id: 1, version: 0, programs: &[(1, PMT)] }.section(), Pid::PAT);
    let streams = &[(units.stream_type, MEDIA)];
    let pmt = packet_of(&Pmt { program: 1, version: 0, pcr_pid: CLOCK, streams }.section(), PMT);
    let (mut unit, mut free_at, mut ccs) = (0, 0, [0_u8; 3]);
    let mut waiting: VecDeque<(bool, Vec<u8>)> = VecDeque::new();
    let mut next_cc = |slot: usize| {
        ccs[slot] = (ccs[slot] + 1) & 15;
        ccs[slot]
    };
    let slots = seconds as u64 * RATE_BPS / (TS_PACKET_BYTES as u64 * 8);
    for slot in 0..slots {
        let ticks = slot * TS_PACKET_BYTES as u64 * 8 * 27_000_000 / RATE_BPS;
        let ms = ticks as i64 / 27_000;
        let is_late = units.late_from_s > 0 && ms >= units.late_from_s * 1_000;
        if unit * units.every_ms + if is_late { 300 } else { 0 } <= ms {
            let dts_90k = (1_000 + unit * units.every_ms + units.ahead_ms) * 90;
            let length = if units.stream_type == 3 { units.bytes as u16 + 8 } else { 0 };
            let mut bytes = pes_header(dts_90k as u64, length, units.head);
            bytes.resize(units.bytes + 14, 0x55);
            waiting.extend(bytes.chunks(184).enumerate().map(|(n, chunk)| (n == 0, chunk.to_vec())));
            unit += 1;
        }
        let out = match slot % 133 {
            0 => {
                let mut pat = pat;
                pat[3] |= next_cc(0);
                pat
            }
            1 => {
                let mut pmt = pmt;
                pmt[3] |= next_cc(1);
                pmt
            }
            n if n % 33 == 2 => {
                let adaptation = Some(Adaptation { pcr: Some(Ticks27M(ticks + 27_000_000)), ..Adaptation::default() });
                let mut out = [0; TS_PACKET_BYTES];
                TsPacket { pid: CLOCK, adaptation, ..TsPacket::default() }.write(&mut out);
                out
            }
            _ if slot >= free_at && !waiting.is_empty() => {
                free_at = slot + 1 + units.gap;
                let (is_first, payload) = waiting.pop_front().unwrap();
                packet((MEDIA, next_cc(2)), is_first, None, &payload)
            }
            _ if units.varies && slot % 700 < 350 => continue,
            _ => packet((Pid::NULL, 0), false, None, &[0xff; 184]),
        };
        analyser.handle_packet(Time::from_ns(ticks * 1_000 / 27), &out, None);
        if slot % 100 == 0 {
            check(&analyser.judge.buffers);
        }
    }
    let found = analyser.snapshot();
    assert_eq!(found.stats.continuity_errors, 0);
    found
}

const PMT: Pid = Pid::from_low_bits(0x1000);

/// Video or audio with PTS.
fn pes_header(stamp: u64, length: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 1, if length == 0 { 0xe0 } else { 0xc0 }];
    bytes.extend(length.to_be_bytes());
    bytes.extend([0x84, 0x80, 5, 0x21 | (stamp >> 29) as u8 & 0x0e, (stamp >> 22) as u8, (stamp >> 14) as u8 | 1]);
    bytes.extend([(stamp >> 7) as u8, (stamp << 1) as u8 | 1]);
    bytes.extend(data);
    bytes
}

fn packet(
    (pid, cc): (Pid, u8),
    payload_unit_start: bool,
    adaptation: Option<Adaptation<'_>>,
    payload: &[u8],
) -> [u8; TS_PACKET_BYTES] {
    let mut out = [0; TS_PACKET_BYTES];
    TsPacket { pid, cc, payload_unit_start, adaptation, payload: Some(payload), ..TsPacket::default() }.write(&mut out);
    out
}

/// Of 3.3, 3.9 and 3.10.
fn errors(found: &Snapshot) -> [u64; 3] {
    INDICATORS.map(|(_, indicator)| found.indicator(indicator).errors)
}

fn is_unknown(found: &Snapshot, indicator: Indicator) -> bool {
    matches!(found.indicator(indicator), IndicatorSnapshot { state: State::Unknown(_), errors: 0, .. })
}

fn check(buffers: &Buffers) {
    buffers.streams.iter().for_each(Stream::check);
}
