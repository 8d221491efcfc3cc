//! The analyser against the generator's stream: clean, and with each fault by itself.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::bus::{Pool, PoolLimits};
use crate::proto::mpegts::psi::{Pat, Pmt, Section, packet_of};
use crate::proto::mpegts::{Adaptation, Generator, TsPacket, generator};
use crate::proto::{Core, Surroundings};
use crate::units::Ticks27M;

#[test]
fn a_clean_stream_is_good_in_everything_that_can_be_told() {
    let mut bench = Bench::default();
    bench.run(8, |_slot, _packet| Fate::Keep);
    let snapshot = bench.analyser.snapshot();
    assert_eq!(bench.events, []);
    for indicator in Indicator::ALL {
        let found = snapshot.indicator(indicator);
        assert_eq!((found.errors, found.warnings), (0, 0), "{indicator:?}");
        let is_absent = matches!(
            indicator,
            Indicator::NitError
                | Indicator::NitOtherError
                | Indicator::SdtError
                | Indicator::SdtOtherError
                | Indicator::EitError
                | Indicator::EitOtherError
                | Indicator::EitPfError
                | Indicator::TdtError
                | Indicator::PtsError
                | Indicator::DataDelayError
        );
        assert_eq!(matches!(found.state, State::Unknown(_)), is_absent, "{indicator:?} {found:?}");
    }
    assert_eq!((snapshot.is_constant, snapshot.worst_priority()), (Some(true), None));
    assert!(snapshot.pcr_rate.unwrap().as_bps().abs_diff(RATE_BPS) < RATE_BPS / 10_000);
    assert!(snapshot.rate.as_bps().abs_diff(RATE_BPS) < RATE_BPS / 100, "{}", snapshot.rate);
    assert!(snapshot.pcr_accuracy.unwrap() < Duration::from_nanos(100));
    let mdi = snapshot.mdi.unwrap();
    assert!(mdi.delay_factor.unwrap() < Duration::from_millis(3) && mdi.loss_rate == 0.0, "{mdi:?}");
    let longest = snapshot.delay_variation.buckets().last().unwrap().0;
    assert!(longest < Duration::from_millis(3), "{longest:?}");
}

#[test]
fn each_fault_raises_its_own_indicator() {
    let numbered = |packet: &TsPacket<'_>| packet.pid.value() == 0x100;
    // A packet without PCR is lost.
    assert_eq!(raised(|slot, packet| lose(slot == 5_000 && numbered(packet))), [Indicator::ContinuityCountError]);
    assert_eq!(
        raised(|slot, _| spoil(slot == 5_000, |bytes| bytes[0] = 0)),
        [Indicator::SyncByteError, Indicator::ContinuityCountError]
    );
    assert_eq!(
        raised(|slot, packet| spoil(slot > 5_000 && packet.pid == Pid::NULL, |bytes| bytes[1] |= 0x80)),
        [Indicator::TransportError]
    );
    // From 5 s to 6 s on.
    let at = |slot: u64| (3_300..4_400).contains(&slot);
    // Sixteen of them, so that the counter goes on.
    let without = |pid: u16| {
        let mut count = 0;
        raised(move |_, packet| {
            count += u32::from(packet.pid.value() == pid);
            swap_for_null(packet.pid.value() == pid && (20..36).contains(&count))
        })
    };
    assert_eq!(without(0), [Indicator::PatError]);
    assert_eq!(without(0x1000), [Indicator::PmtError]);
    assert_eq!(
        raised(|slot, packet| spoil(at(slot) && packet.pid.value() == 0x1000, |bytes| bytes[12] ^= 1)),
        [Indicator::PmtError, Indicator::CrcError]
    );
    // 270 ticks are 10 us.
    assert_eq!(
        raised(|slot, packet| shift_pcr(at(slot), packet, |n, pcr| pcr + n % 2 * 270)),
        [Indicator::PcrAccuracyError]
    );
    assert_eq!(
        raised(|slot, packet| shift_pcr(slot > 5_000, packet, |_, pcr| pcr + 27_000_000)),
        [Indicator::PcrDiscontinuityIndicatorError]
    );
    assert_eq!(
        raised(|slot, packet| without_pcr(at(slot), packet)),
        [Indicator::PcrRepetitionError, Indicator::PcrDiscontinuityIndicatorError]
    );
    let stray = |slot: u64, packet: &TsPacket<'_>| {
        spoil(slot > 5_000 && packet.pid == Pid::NULL, |bytes| {
            (bytes[1], bytes[2]) = (0x02, 0x22);
            bytes[3] = 0x10;
        })
    };
    // Its counter stands still, too.
    assert!(raised(stray).contains(&Indicator::UnreferencedPid));
    assert_eq!(
        raised(|slot, _| spoil(slot > 5_000, |bytes| bytes[0] = 0x46)),
        [Indicator::TsSyncLoss, Indicator::SyncByteError]
    );
}

#[test]
fn tables_on_wrong_pids_and_tables_that_go_missing_are_told() {
    let sdt = |packet: &TsPacket<'_>| packet.pid == Pid::NULL;
    let insert = |until: u64, table_id: u8, pid: u8| {
        raised(|slot, packet| {
            // Of EIT present and following events, one behind the other.
            let halves = if table_id == 0x4e { 2 } else { 1 };
            let is_due = sdt(packet) && slot % 600 < 8 * halves && slot < until;
            spoil(is_due, move |bytes| *bytes = table((table_id, (slot / 8 % halves) as u8), pid, slot))
        })
    };
    assert_eq!(insert(u64::MAX, 0x42, 0x11), []);
    assert_eq!(insert(2_000, 0x42, 0x11), [Indicator::SdtError]);
    assert_eq!(insert(u64::MAX, 0x50, 0x11), [Indicator::SdtError]);
    assert_eq!(insert(u64::MAX, 0x4e, 0x12), []);
    assert_eq!(insert(2_000, 0x4e, 0x12), [Indicator::EitError]);
    assert_eq!(insert(u64::MAX, 0x40, 0x10), []);
    assert_eq!(insert(u64::MAX, 0x02, 0x10), [Indicator::NitError]);
    assert_eq!(insert(u64::MAX, 0x02, 0x01), [Indicator::CatError]);
    assert_eq!(insert(u64::MAX, 0x02, 0x13), [Indicator::RstError]);
    assert_eq!(insert(u64::MAX, 0x02, 0x14), [Indicator::TdtError]);
    // Following events never come.
    let half =
        raised(|slot, packet| spoil(sdt(packet) && slot % 600 < 8, move |bytes| *bytes = table((0x4e, 0), 0x12, slot)));
    assert_eq!(half, [Indicator::EitPfError]);
    // Every null packet, 12 ms apart.
    let crowded =
        raised(|slot, packet| spoil(sdt(packet) && slot > 2_000, move |bytes| *bytes = table((0x42, 0), 0x11, slot)));
    assert_eq!(crowded, [Indicator::SiRepetitionError]);
}

/// Where it must come every 2 s nobody hits the 2 s to the packet.
#[test]
fn a_table_that_comes_just_as_often_as_it_must_is_in_time() {
    for (table_id, pid, indicator, seconds) in [
        (0x40, 0x10, Indicator::NitError, 10),
        (0x42, 0x11, Indicator::SdtError, 2),
        (0x4e, 0x12, Indicator::EitError, 2),
        (0x70, 0x14, Indicator::TdtError, 30),
        (0x41, 0x10, Indicator::NitOtherError, 10),
    ] {
        for (late_ms, is_late) in [(50, false), (200, true)] {
            let halves = if table_id == 0x4e { 2 } else { 1 };
            let interval = (seconds * 1_000 + late_ms) * RATE_BPS / (188 * 8 * 1_000);
            let mut bench = Bench::default();
            let (mut due, mut number) = (0, 0);
            bench.run(3 * seconds + 2, |slot, packet| {
                if packet.pid != Pid::NULL || slot < due {
                    return Fate::Keep;
                }
                let bytes = table((table_id, number), pid, slot);
                number = (number + 1) % halves;
                due += if number == 0 { interval } else { 0 };
                Fate::Change(bytes)
            });
            let snapshot = bench.analyser.snapshot();
            let bad: Vec<_> =
                Indicator::ALL.into_iter().filter(|indicator| snapshot.indicator(*indicator).errors > 0).collect();
            assert_eq!(bad, if is_late { vec![indicator] } else { vec![] }, "{table_id:x} {late_ms} ms");
        }
    }
}

/// However long that is: nothing is good only because it has been bad for a while.
#[test]
fn an_alarm_lasts_as_long_as_its_table_is_away() {
    for (table_id, pid, indicator, seconds) in [
        (0x40, 0x10, Indicator::NitError, 30),
        (0x41, 0x10, Indicator::NitOtherError, 30),
        (0x42, 0x11, Indicator::SdtError, 15),
        (0x46, 0x11, Indicator::SdtOtherError, 30),
        (0x4e, 0x12, Indicator::EitError, 15),
        (0x4f, 0x12, Indicator::EitOtherError, 30),
        (0x70, 0x14, Indicator::TdtError, 50),
    ] {
        let mut bench = Bench::default();
        bench.run(seconds, |slot, packet| {
            let halves = if matches!(table_id, 0x4e | 0x4f) { 2 } else { 1 };
            let is_due = packet.pid == Pid::NULL && slot < 2_000 && slot % 600 < 8 * halves;
            spoil(is_due, move |bytes| *bytes = table((table_id, (slot / 8 % halves) as u8), pid, slot))
        });
        let states: Vec<_> = bench.events.iter().map(|event| (event.indicator, event.state)).collect();
        // One half of an EIT is found missing before the other.
        let states: Vec<_> = states.into_iter().filter(|(indicator, _)| *indicator != Indicator::EitPfError).collect();
        assert_eq!(states, [(indicator, State::Error)], "{table_id:x}");
        // Each half five times in 12 s, and not once more as those of the one service there is.
        let errors = bench.analyser.snapshot().indicator(indicator).errors;
        assert!(table_id != 0x4e || errors == 10, "{errors}");
    }
    // Following events never come.
    let mut bench = Bench::default();
    bench.run(20, |slot, packet| {
        spoil(packet.pid == Pid::NULL && slot % 600 < 8, move |bytes| *bytes = table((0x4e, 0), 0x12, slot))
    });
    let states: Vec<_> = bench.events.iter().map(|event| (event.indicator, event.state)).collect();
    assert_eq!(states, [(Indicator::EitPfError, State::Error)]);
}

#[test]
fn an_alarm_ends_five_seconds_after_its_cause() {
    let mut bench = Bench::default();
    bench.run(12, |slot, packet| lose(slot == 2_000 && packet.pid.value() == 0x100));
    let states: Vec<_> = bench.events.iter().map(|event| (event.indicator, event.state)).collect();
    let indicator = Indicator::ContinuityCountError;
    assert_eq!(states, [(indicator, State::Error), (indicator, State::Good)]);
    assert_eq!(bench.analyser.priority_1_errors(), 1);
}

#[test]
fn silence_is_no_error_and_neither_is_what_follows() {
    let mut bench = Bench::default();
    bench.run(3, |_slot, _packet| Fate::Keep);
    bench.now += Duration::from_secs(20);
    bench.analyser.handle_timeout(bench.now);
    let snapshot = bench.analyser.snapshot();
    assert!(!snapshot.is_locked);
    assert_eq!(snapshot.indicator(Indicator::PatError).state, State::Unknown("nothing comes"));
    bench.run(3, |_slot, _packet| Fate::Keep);
    let snapshot = bench.analyser.snapshot();
    let errors: Vec<_> = Indicator::ALL.iter().filter(|indicator| snapshot.indicator(**indicator).errors > 0).collect();
    // What the pause did to PCR and counters is a fault of the stream.
    assert!(
        errors.iter().all(|indicator| !matches!(indicator, Indicator::PatError | Indicator::PmtError)),
        "{errors:?}"
    );
}

#[test]
fn a_payload_that_is_no_transport_stream_is_unknown_and_costs_little() {
    let mut analyser = Analyser::new(Time::ZERO);
    let mut now = Time::ZERO;
    for _ in 0..5_000 {
        now += Duration::from_millis(1);
        analyser.handle_packet(now, &[0x80; 1_316], None);
    }
    let snapshot = analyser.snapshot();
    let unknown = State::Unknown("no TS packets are found");
    assert!(snapshot.indicators.iter().all(|indicator| indicator.state == unknown));
    assert!(snapshot.stats.sync.skipped_bytes < 2_000 * 1_316);
    assert_eq!((analyser.priority_1_errors(), analyser.poll_event()), (0, None));
}

#[test]
fn numbers_tell_losses_that_counters_cannot() {
    let mut bench = Bench::default();
    bench.run_numbered(3, |n| n == 400 || (500..503).contains(&n));
    assert!((bench.losses.iter().sum::<f64>() - 28.0).abs() < 1.0, "{:?}", bench.losses);
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..4_000)) {
        check_any_stream(&bytes);
    }

    #[test]
    fn broken_streams_are_survived(edits in proptest::collection::vec((any::<u64>(), any::<u8>()), 0..100)) {
        let mut bench = Bench::default();
        bench.run(2, |_slot, _packet| Fate::Keep);
        let mut bytes = bench.bytes.clone();
        for (at, byte) in edits {
            let at = (at % bytes.len() as u64) as usize;
            bytes[at] = byte;
        }
        let pieces: Vec<u8> = bytes.chunks(1_320).flat_map(|piece| [&[120], piece].concat()).collect();
        check_any_stream(&pieces);
    }
}

/// 1 Mb/s: 664.9 TS packets a second.
const RATE_BPS: u64 = 1_000_000;

type Spoiler = Box<dyn Fn(&mut [u8; 188])>;

/// What becomes of a TS packet.
enum Fate {
    Keep,
    Lose,
    Change([u8; 188]),
    Spoil(Spoiler),
}

fn lose(is: bool) -> Fate {
    if is { Fate::Lose } else { Fate::Keep }
}

fn spoil(is: bool, how: impl Fn(&mut [u8; 188]) + 'static) -> Fate {
    if is { Fate::Spoil(Box::new(how)) } else { Fate::Keep }
}

fn swap_for_null(is: bool) -> Fate {
    let mut null = [0xff; 188];
    null[..4].copy_from_slice(&[0x47, 0x1f, 0xff, 0x10]);
    if is { Fate::Change(null) } else { Fate::Keep }
}

/// Another PCR; `n` goes up with each.
fn shift_pcr(is: bool, packet: &TsPacket<'_>, shift: impl Fn(u64, u64) -> u64) -> Fate {
    let Some(Ticks27M(pcr)) = packet.adaptation.and_then(|adaptation| adaptation.pcr).filter(|_| is) else {
        return Fate::Keep;
    };
    change(packet, Some(Ticks27M(shift(pcr / 1_000_000, pcr))))
}

fn without_pcr(is: bool, packet: &TsPacket<'_>) -> Fate {
    let has_pcr = packet.adaptation.is_some_and(|adaptation| adaptation.pcr.is_some());
    if is && has_pcr { change(packet, None) } else { Fate::Keep }
}

fn change(packet: &TsPacket<'_>, pcr: Option<Ticks27M>) -> Fate {
    let mut out = [0; 188];
    let adaptation = Some(Adaptation { pcr, ..packet.adaptation.unwrap_or_default() });
    TsPacket { adaptation, ..*packet }.write(&mut out);
    Fate::Change(out)
}

/// A packet with a table that has nothing in it.
fn table((table_id, number): (u8, u8), pid: u8, slot: u64) -> [u8; 188] {
    let mut section: Section = Pat { stream_id: 1, version: 0, programs: &[] }.section();
    let len = section.len() - 4;
    section[0] = table_id;
    section[6] = number;
    let crc = crate::proto::mpegts::psi::crc32(&section[..len]);
    section[len..].copy_from_slice(&crc.to_be_bytes());
    let mut packet = packet_of(&section, Pid::from_low_bits(pid.into()));
    // Any counter goes that announces itself: these come at any time.
    packet[3] = 0x30 | (slot % 16) as u8;
    let payload: Vec<u8> = packet[4..186].to_vec();
    packet[4..6].copy_from_slice(&[1, 0x80]);
    packet[6..].copy_from_slice(&payload);
    packet
}

fn raised(fate: impl FnMut(u64, &TsPacket<'_>) -> Fate) -> Vec<Indicator> {
    let mut bench = Bench::default();
    bench.run(10, fate);
    let snapshot = bench.analyser.snapshot();
    Indicator::ALL.into_iter().filter(|indicator| snapshot.indicator(*indicator).errors > 0).collect()
}

/// A generator before an analyser, in time.
struct Bench {
    generator: Generator,
    analyser: Analyser,
    now: Time,
    slot: u64,
    events: Vec<Event>,
    losses: Vec<f64>,
    bytes: Vec<u8>,
}

impl Default for Bench {
    fn default() -> Self {
        let pool = Pool::new(PoolLimits::default());
        let config = generator::Config::new(Bitrate::from_bps(RATE_BPS), 1).unwrap();
        let generator = Generator::new(config, &Surroundings { pool, seed: 1, unix_ns_at_zero: 0 });
        let (analyser, now) = (Analyser::new(Time::ZERO), Time::ZERO);
        Self { generator, analyser, now, slot: 0, events: Vec::new(), losses: Vec::new(), bytes: Vec::new() }
    }
}

impl Bench {
    fn run(&mut self, seconds: u64, mut fate: impl FnMut(u64, &TsPacket<'_>) -> Fate) {
        let end = self.now + Duration::from_secs(seconds);
        while self.now < end {
            self.generator.handle_timeout(self.now);
            while let Some(packet) = self.generator.poll_packet() {
                let mut bytes: [u8; 188] = packet[..].try_into().unwrap();
                let what = fate(self.slot, &TsPacket::parse(&bytes).unwrap());
                self.slot += 1;
                match what {
                    Fate::Keep => {}
                    Fate::Lose => continue,
                    Fate::Change(to) => bytes = to,
                    Fate::Spoil(how) => how(&mut bytes),
                }
                self.bytes.extend(bytes);
                self.analyser.handle_packet(packet.meta.arrival, &bytes, None);
            }
            self.analyser.handle_timeout(self.now);
            self.events.extend(std::iter::from_fn(|| self.analyser.poll_event()));
            self.now = self.generator.poll_timeout().unwrap();
        }
    }

    /// Seven TS packets to a packet, which is `lost` by its number.
    fn run_numbered(&mut self, seconds: u64, lost: impl Fn(u64) -> bool) {
        let mut clean = Self::default();
        clean.run(seconds * 10, |_slot, _packet| Fate::Keep);
        for (n, piece) in (0..).zip(clean.bytes.chunks(1_316)) {
            let now = Time::from_ns(n * 10_528_000);
            if !lost(n) {
                self.analyser.handle_packet(now, piece, Some(n));
            }
            if n % 95 == 0 {
                self.losses.extend(self.analyser.snapshot().mdi.map(|mdi| mdi.loss_rate).filter(|rate| *rate > 0.0));
            }
        }
        self.losses.dedup();
    }
}

/// A stream with video, of which times are known.
#[test]
fn presentation_times_and_streams_that_go_missing_are_told() {
    let video = Pid::from_low_bits(0x100);
    let pat = Pat { stream_id: 1, version: 0, programs: &[(1, Pid::from_low_bits(0x1000))] }.section();
    let streams = [(0x1b, video), (0x0f, Pid::from_low_bits(0x101))];
    let pmt = Pmt { program: 1, version: 0, pcr_pid: video, streams: &streams }.section();
    let mut analyser = Analyser::new(Time::ZERO);
    let mut cc = 0;
    for n in 0..1_200_u64 {
        let now = Time::from_ns(n * 10_000_000);
        let mut pes = [0; 184];
        pes[..14].copy_from_slice(&[0, 0, 1, 0xe0, 0, 0, 0x80, 0x80, 5, 0x21, 0, 1, 0, 1]);
        if (300..375).contains(&n) {
            pes[7] = 0;
        }
        let mut packets = vec![[0; 188]];
        TsPacket { payload_unit_start: true, pid: video, cc, payload: Some(&pes), ..TsPacket::default() }
            .write(&mut packets[0]);
        cc = (cc + 1) % 16;
        if n % 10 == 0 {
            for (section, pid) in [(&pat, 0), (&pmt, 0x1000)] {
                let mut table = packet_of(section, Pid::from_low_bits(pid));
                table[3] |= (n / 10 % 16) as u8;
                packets.push(table);
            }
        }
        analyser.handle_packet(now, &packets.concat(), None);
    }
    let snapshot = analyser.snapshot();
    assert_eq!(snapshot.indicator(Indicator::PtsError).errors, 1);
    // 0x101 never came, in 12 s.
    let missing = snapshot.indicator(Indicator::PidError);
    assert_eq!((missing.errors, missing.pid.map(Pid::value)), (2, Some(0x101)));
    assert_eq!(snapshot.indicator(Indicator::PcrRepetitionError).state, State::Unknown("no PCR"));
}

/// A packet that is scrambled for a moment hides nothing, and a stream that is hides its PTS and no more.
#[test]
fn scrambled_packets_hide_presentation_times_only_while_they_come() {
    let errors = |is_scrambled: fn(u64) -> bool, has_pts: fn(u64) -> bool| {
        let video = Pid::from_low_bits(0x100);
        let pat = Pat { stream_id: 1, version: 0, programs: &[(1, Pid::from_low_bits(0x1000))] }.section();
        let pmt = Pmt { program: 1, version: 0, pcr_pid: video, streams: &[(0x1b, video)] }.section();
        let mut analyser = Analyser::new(Time::ZERO);
        for n in 0..1_000_u64 {
            let mut pes = [0; 184];
            pes[..14].copy_from_slice(&[
                0,
                0,
                1,
                0xe0,
                0,
                0,
                0x80,
                if has_pts(n) { 0x80 } else { 0 },
                5,
                0x21,
                0,
                1,
                0,
                1,
            ]);
            let mut packets = vec![[0; 188]];
            let cc = (n % 16) as u8;
            TsPacket { payload_unit_start: true, pid: video, cc, payload: Some(&pes), ..TsPacket::default() }
                .write(&mut packets[0]);
            if is_scrambled(n) {
                packets[0][3] |= 0x80;
                packets[0][4..].fill(0x55);
            }
            if n % 10 == 0 {
                for (section, pid) in [(&pat, 0), (&pmt, 0x1000)] {
                    let mut table = packet_of(section, Pid::from_low_bits(pid));
                    table[3] |= (n / 10 % 16) as u8;
                    packets.push(table);
                }
            }
            analyser.handle_packet(Time::from_ns(n * 10_000_000), &packets.concat(), None);
        }
        analyser.snapshot().indicator(Indicator::PtsError).errors
    };
    assert_eq!(errors(|n| n == 100, |_| true), 0);
    assert_eq!(errors(|n| n == 100, |n| !(300..375).contains(&n)), 1);
    assert_eq!(errors(|n| (200..800).contains(&n), |_| true), 0);
    assert_eq!(errors(|n| (200..600).contains(&n), |n| !(700..775).contains(&n)), 1);
}

/// Cues are repeated, as they come over the air; captions are there for a while.
#[test]
fn cues_are_told_once_and_captions_while_they_are_there() {
    let (video, cue_pid) = (Pid::from_low_bits(0x100), Pid::from_low_bits(0x1f0));
    let pat = Pat { stream_id: 1, version: 0, programs: &[(1, Pid::from_low_bits(0x1000))] }.section();
    let pmt = Pmt { program: 1, version: 0, pcr_pid: video, streams: &[(0x1b, video), (0x86, cue_pid)] }.section();
    let mut analyser = Analyser::new(Time::ZERO);
    let (mut cc, mut cue_cc) = (0, 0);
    let mut cues = Vec::new();
    let mut captions = Vec::new();
    for n in 0..2_000_u64 {
        let now = Time::from_ns(n * 10_000_000);
        let mut pes = [0; 184];
        pes[..14].copy_from_slice(&[0, 0, 1, 0xe0, 0, 0, 0x80, 0x80, 5, 0x21, 0, 1, 0, 1]);
        if (800..1_200).contains(&n) {
            pes[40..52].copy_from_slice(&[0, 0, 1, 6, 0xb5, 0, 0x31, b'G', b'A', b'9', b'4', 3]);
        }
        let mut packets = vec![[0; 188]];
        TsPacket { payload_unit_start: true, pid: video, cc, payload: Some(&pes), ..TsPacket::default() }
            .write(&mut packets[0]);
        cc = (cc + 1) % 16;
        if n % 10 == 0 {
            for (section, pid) in [(&pat, 0), (&pmt, 0x1000)] {
                let mut table = packet_of(section, Pid::from_low_bits(pid));
                table[3] |= (n / 10 % 16) as u8;
                packets.push(table);
            }
        }
        let sections: &[&[u8]] = match n {
            500 | 560 | 620 => &[&OUT],
            700 => &[&OUT[..20], &NULL],
            1_500 => &[&NULL],
            _ => &[],
        };
        for section in sections {
            let mut table = packet_of(&section.iter().copied().collect(), cue_pid);
            table[3] |= cue_cc;
            cue_cc = (cue_cc + 1) % 16;
            packets.push(table);
        }
        analyser.handle_packet(now, &packets.concat(), None);
        cues.extend(std::iter::from_fn(|| analyser.poll_cue()).map(|cue| (n, cue)));
        if n % 100 == 99 {
            let snapshot = analyser.snapshot();
            captions.push(snapshot.pids.iter().find(|pid| pid.pid == video).unwrap().has_captions);
            let tables = snapshot.pids.iter().find(|pid| pid.pid == Pid::PAT).unwrap();
            assert_eq!(tables.has_captions, None);
        }
    }
    let [(500, cue)] = cues[..] else { panic!("{cues:?}") };
    assert_eq!((cue.name(), cue.direction(), cue.event_id), ("Splice Insert", Direction::Out, 0x4800_008f));
    assert_eq!((cue.pid, cue.pts.map(|pts| pts.0), cue.is_cancelled), (cue_pid, Some(0x7369_c02e), false));
    assert_eq!(cue.duration.unwrap().as_millis(), 60_293);
    let snapshot = analyser.snapshot();
    let expected = CueStats { inserts: 3, nulls: 2, malformed: 1, repeated: 2, ..CueStats::default() };
    assert_eq!((snapshot.cues, snapshot.last_cue), (expected, Some(cue)));
    assert_eq!(snapshot.indicator(Indicator::UnreferencedPid).errors, 0);
    assert_eq!(snapshot.indicator(Indicator::CrcError).errors, 0);
    // Unknown for 5 s, then absent; there from 8 s to 12 s, and 5 s more until they count as gone.
    let seconds = |what| captions.iter().filter(|found| **found == what).count();
    assert_eq!(seconds(None), 5, "{captions:?}");
    assert!((8..=9).contains(&seconds(Some(true))), "{captions:?}");
    assert_eq!((captions[7], captions[8], captions[19]), (Some(false), Some(true), Some(false)));
}

/// SCTE 35 clause 14.2.
const OUT: [u8; 50] = [
    0xfc, 0x30, 0x2f, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xf0, 0x14, 0x05, 0x48, 0x00, 0x00, 0x8f, 0x7f,
    0xef, 0xfe, 0x73, 0x69, 0xc0, 0x2e, 0xfe, 0x00, 0x52, 0xcc, 0xf5, 0x00, 0x00, 0x00, 0x00, 0x00, 0x0a, 0x00, 0x08,
    0x43, 0x55, 0x45, 0x49, 0x00, 0x00, 0x01, 0x35, 0x62, 0xdb, 0xa3, 0x0a,
];
const NULL: [u8; 20] = [
    0xfc, 0x30, 0x11, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xff, 0xf0, 0x00, 0x00, 0x00, 0x00, 0x7a, 0x4f, 0xbf,
    0xff,
];
