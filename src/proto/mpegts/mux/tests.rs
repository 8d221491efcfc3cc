//! The multiplexer against what receivers rely on.

use super::check::Checker;
use super::{AccessUnit, Config, Format, Multiplexer, Stats, TrackId, UNIT_BYTES_MAX, UNITS_MAX};
use crate::bus::{Packet, Pool, PoolLimits};
use crate::proto::mpegts::{Pid, TsPacket};
use crate::units::{Bitrate, Ticks90k, Time};

const VIDEO: Pid = Pid::from_low_bits(0x100);
const AUDIO: Pid = Pid::from_low_bits(0x101);

#[test]
fn pcr_and_tables_keep_their_time_without_any_access_unit() {
    for rate in [None, Some(250_000), Some(5_000_000)] {
        let mut bench = Bench::new(rate);
        bench.run_to(10_000);
        let checker = &bench.checker;
        assert!(checker.pcr_interval_max_27m <= 25 * 27_000 + 1, "{rate:?}: {}", checker.pcr_interval_max_27m);
        assert!((399..=420).contains(&checker.pcrs), "{rate:?}: {}", checker.pcrs);
        for (pid, count) in [(0, 125..=130), (0x1000, 125..=130), (0x11, 20..=21)] {
            let sections = checker.sections[&Pid::from_low_bits(pid)].len();
            assert!(count.contains(&sections), "{rate:?} {pid:x}: {sections}");
        }
    }
}

#[test]
fn constant_rate_is_exact() {
    for bps in [250_000, 3_333_333, 20_000_001] {
        let mut bench = Bench::new(Some(bps));
        bench.unit(0, 0);
        bench.run_to(10_000);
        let exact = bps * 10 / 8;
        assert!((exact..=exact + 1_316).contains(&bench.checker.bytes), "{bps}: {}", bench.checker.bytes);
    }
}

/// Whole pictures and sounds, legal all the while; at a constant rate exactly that.
#[test]
fn the_rate_changes_and_the_stream_goes_on() {
    let rates = [None, Some(5_000_000), Some(1_000_000), None, None, Some(3_333_333), Some(0), Some(700_000)];
    let mut bench = Bench::new(None);
    let (mut before, mut bps_before) = (0, None);
    for at_ms in (0..8_000).step_by(40) {
        bench.run_to(at_ms);
        if at_ms % 1_000 == 0 {
            let bps = rates[at_ms as usize / 1_000];
            bench.mux.set_rate(ms(at_ms), bps.map(Bitrate::from_bps));
            if let Some(bps) = bps_before {
                assert!((bench.checker.bytes - before).abs_diff(bps / 8) <= 1_316, "{bps} until {at_ms}");
            }
            before = bench.checker.bytes;
            // One that cannot be changes nothing.
            bps_before = if bps == Some(0) { bps_before } else { bps };
        }
        bench.unit(0, at_ms * 90);
        bench.unit(1, at_ms * 90);
    }
    bench.run_to(9_000);
    for pid in [VIDEO, AUDIO] {
        assert_eq!(bench.checker.units[&pid].len(), 200, "{pid:?}");
    }
    let maps = &bench.checker.sections[&Pid::from_low_bits(0x1000)];
    assert!(maps.iter().all(|map| *map == maps[0]));
    assert_eq!((bench.checker.discontinuities, bench.stats().stale), (0, 0));
}

#[test]
fn a_rate_that_changes_before_anything_came_leaves_tables_first() {
    for rates in [[Some(4_000_000), None], [None, Some(4_000_000)]] {
        let [before, after] = rates.map(|bps| bps.map(Bitrate::from_bps));
        let config = Config { rate: before, ..Config::default() };
        let mut mux = Multiplexer::new(config, Pool::new(PoolLimits::default())).unwrap();
        let track = mux.add_track(Format::h264(), None).unwrap();
        mux.set_rate(ms(0), after);
        mux.handle_access_unit(ms(10), track, &picture(0, 0));
        mux.handle_timeout(ms(20));
        let first = mux.poll_packet().unwrap();
        let pids: Vec<u16> = first.chunks(188).map(|bytes| TsPacket::parse(bytes).unwrap().pid.value()).collect();
        assert_eq!(pids[..2], [0, 0x1000], "{rates:?}: {pids:x?}");
    }
}

#[test]
fn everything_leaves_at_once_at_a_varying_rate() {
    let mut bench = Bench::new(None);
    for ms in (0..1_000).step_by(40) {
        bench.run_to(ms);
        bench.unit(0, ms * 90);
        let units = &bench.checker.units[&VIDEO];
        assert_eq!(units.len() as u64, ms / 40 + 1);
        assert_eq!(units.last().unwrap().len(), 14 + 6 + if ms == 0 { 18 } else { 6 } + 1_000, "{ms}");
    }
}

#[test]
fn sound_of_a_burst_waits_at_a_varying_rate_and_is_not_lost() {
    let mut bench = Bench::new(None);
    let sent = |bench: &Bench| bench.checker.units.get(&AUDIO).map_or(0, Vec::len);
    // Ten seconds of it at once, in frames of 10 ms: what is decoded within 950 ms, of which the delay is 700, goes at once.
    for n in 0..1_000 {
        bench.unit(1, n * 900);
        if n == 200 {
            assert_eq!(sent(&bench), 26);
        }
    }
    assert_eq!(sent(&bench), 1_000 - UNITS_MAX / 2, "what would have no room goes early");
    bench.run_to(8_000);
    assert_eq!(sent(&bench), 26 + 8_000 / 10, "and no more until it is due");
    bench.run_to(10_000);
    assert_eq!((sent(&bench), bench.stats().overflow, bench.stats().late), (1_000, 0, 0));
}

#[test]
fn pts_and_dts_are_those_of_the_source_plus_the_delay() {
    let mut bench = Bench::new(None);
    bench.mux.handle_access_unit(ms(5), bench.video, &picture((1 << 33) - 1, 3_600));
    bench.drain();
    let header = &bench.checker.units[&VIDEO][0][..19];
    assert_eq!(header[7], 0xc0);
    assert_eq!(stamp(&header[9..14]), 62_999 + 3_600);
    assert_eq!(stamp(&header[14..19]), 62_999);
}

#[test]
fn times_that_jump_or_wrap_leave_the_streams_clock_alone() {
    for (from, to, rebased) in [((1 << 33) - 7_200, 1 << 33, 0), (90_000, 90_000_000, 1), (90_000_000, 90_000, 1)] {
        let mut bench = Bench::new(None);
        for n in 0..10_u64 {
            if n > 0 {
                bench.run_to(n * 40);
            }
            let dts = if n < 2 { from + n * 3_600 } else { to + (n - 2) * 3_600 };
            bench.unit(0, dts);
            // Audio jumps a little later.
            bench.unit(1, if n < 3 { from + n * 3_600 } else { to + (n - 2) * 3_600 });
        }
        let stamps = |pid| -> Vec<u64> {
            let units = &bench.checker.units[&pid];
            units.iter().map(|unit| stamp(&unit[9..14])).collect()
        };
        let first = (from + 63_000) % (1 << 33);
        let expected: Vec<u64> = (0..10).map(|n| (first + n * 3_600) % (1 << 33)).collect();
        assert_eq!(stamps(VIDEO), expected, "{from} to {to}");
        assert_eq!(stamps(AUDIO), expected, "{from} to {to}");
        assert_eq!((bench.stats().rebased, bench.checker.discontinuities), (rebased, 0));
    }
}

#[test]
fn what_stays_late_is_moved() {
    let mut bench = Bench::new(None);
    bench.unit(0, 0);
    for n in 0..100 {
        bench.run_to(1_500 + n * 40);
        bench.unit(0, 3_600 + n * 3_600);
    }
    // 51 pictures in the first two seconds, counted from the first late one.
    assert_eq!((bench.stats().late, bench.stats().rebased), (50, 1));
}

#[test]
fn a_decoder_can_start_at_each_random_access_point() {
    let mut bench = Bench::new(Some(5_000_000));
    for n in 0..50 {
        bench.run_to(n * 40);
        bench.unit(0, n * 3_600);
    }
    bench.run_to(3_000);
    let starts = &bench.checker.units[&VIDEO];
    assert_eq!(starts.len(), 50);
    assert!(starts.iter().all(|unit| unit[14..20] == [0, 0, 0, 1, 9, 0xf0]));
    assert_eq!(starts.iter().filter(|unit| unit[20..25] == [0, 0, 0, 1, 0x67]).count(), 2);
    assert_eq!(bench.random_access_packets, 2);
    assert_eq!(bench.stats().late, 0);
}

#[test]
fn pictures_before_the_first_random_access_point_are_not_sent() {
    let mut bench = Bench::new(None);
    for n in 1..30 {
        bench.run_to(n * 40);
        bench.unit(0, n * 3_600);
    }
    assert_eq!((bench.stats().undecodable, bench.stats().units), (24, 5));
}

#[test]
fn another_codec_makes_a_new_version_of_the_map_at_once() {
    let mut bench = Bench::new(None);
    bench.unit(0, 0);
    let versions = |bench: &Bench| -> Vec<(u8, u8)> {
        let sections = &bench.checker.sections[&Pid::from_low_bits(0x1000)];
        sections.iter().map(|section| (section[5] >> 1 & 0x1f, section[12])).collect()
    };
    assert_eq!(versions(&bench), [(0, 0x1b)]);
    bench.mux.set_format(bench.video, Format::h264());
    bench.run_to(1);
    assert_eq!(versions(&bench), [(0, 0x1b)]);
    bench.mux.set_format(bench.video, Format::hevc());
    bench.run_to(2);
    assert_eq!(versions(&bench), [(0, 0x1b), (1, 0x24)]);
}

#[test]
fn the_version_of_the_map_never_comes_back_to_that_which_was_sent() {
    let mut bench = Bench::new(None);
    bench.unit(0, 0);
    for n in 1..=31 {
        bench.mux.set_format(bench.video, if n % 2 == 1 { Format::hevc() } else { Format::h264() });
    }
    bench.mux.set_format(bench.audio, Format::ac3());
    bench.run_to(1);
    let sections = &bench.checker.sections[&Pid::from_low_bits(0x1000)];
    assert_eq!(sections.iter().map(|section| section[5] >> 1 & 0x1f).collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn what_builds_on_a_picture_that_was_malformed_is_not_sent() {
    let record = [1, 0x64, 0, 31, 0xff, 0xe1, 0, 1, 0x67, 1, 0, 1, 0x68];
    let mut mux = Multiplexer::new(Config::default(), Pool::new(PoolLimits::default())).unwrap();
    let track = mux.add_track(Format::h264_with_record(&record).unwrap(), None).unwrap();
    let (idr, p): (&[u8], &[u8]) = (&[0, 0, 0, 2, 0x65, 1], &[0, 0, 0, 2, 0x41, 1]);
    // Cut; of a delimiter alone, which nothing builds on; with an empty NAL unit, which is left out.
    for (n, data) in (0..).zip([idr, p, &p[..5], p, idr, p, &[0, 0, 0, 2, 9, 0xf0], p, &[&[0; 4], p].concat()]) {
        let (at, data) = (Ticks90k(n * 3_600), data.to_vec().into());
        let unit = AccessUnit { pts: at, dts: at, random_access: false, data };
        mux.handle_access_unit(ms(n * 40), track, &unit);
    }
    let stats = mux.stats();
    assert_eq!((stats.units, stats.malformed, stats.undecodable), (6, 2, 1), "{stats:?}");
    let mut checker = Checker::default();
    while let Some(packet) = mux.poll_packet() {
        checker.packet(&packet);
    }
    let last = &checker.units[&VIDEO][5];
    assert_eq!(last[14..], [0, 0, 0, 1, 9, 0xf0, 0, 0, 0, 1, 0x41, 1]);
}

#[test]
fn what_start_codes_make_of_many_short_units_is_bounded() {
    let record = [1, 0x64, 0, 31, 0xfc, 0xe1, 0, 1, 0x67, 1, 0, 1, 0x68];
    let mut mux = Multiplexer::new(Config::default(), Pool::new(PoolLimits::default())).unwrap();
    let track = mux.add_track(Format::h264_with_record(&record).unwrap(), None).unwrap();
    for (n, count) in (0..).zip([UNIT_BYTES_MAX / 6, UNIT_BYTES_MAX / 2, UNIT_BYTES_MAX / 6]) {
        let data = [1, 0x65].repeat(count).into();
        let unit = AccessUnit { pts: Ticks90k(n), dts: Ticks90k(n), random_access: false, data };
        mux.handle_access_unit(ms(0), track, &unit);
    }
    // The second one would have 10 MB.
    assert_eq!((mux.stats().units, mux.stats().too_long), (2, 1));
}

#[test]
fn a_rate_too_low_drops_whole_pictures_and_stays_in_time() {
    let mut bench = Bench::new(Some(250_000));
    for n in 0..1_000 {
        bench.run_to(n * 40);
        bench.unit(0, n * 3_600);
    }
    let stats = bench.stats();
    assert!(stats.stale > 0 && stats.undecodable > 0 && stats.late < 200, "{stats:?}");
    assert!(bench.checker.units[&VIDEO].len() > 500, "{stats:?}");
    let (_, before) = bench.checker.units[&VIDEO].split_last().unwrap();
    assert!(before.iter().all(|unit| unit.len() >= 1_026));
}

#[test]
fn what_waits_is_bounded() {
    let mut bench = Bench::new(Some(250_000));
    let mut data = picture(0, 0).data.to_vec();
    data.resize(UNIT_BYTES_MAX, 1);
    for n in 0..5 {
        let unit = AccessUnit { pts: Ticks90k(n), dts: Ticks90k(n), random_access: false, data: data.clone().into() };
        bench.mux.handle_access_unit(ms(0), bench.video, &unit);
    }
    assert_eq!((bench.stats().units, bench.stats().overflow), (1, 4));
    data.push(1);
    let unit = AccessUnit { pts: Ticks90k(9), dts: Ticks90k(9), random_access: false, data: data.into() };
    bench.mux.handle_access_unit(ms(0), bench.video, &unit);
    assert_eq!(bench.stats().too_long, 1);
}

#[test]
fn an_empty_pool_loses_nothing_at_a_varying_rate() {
    let pool = Pool::new(PoolLimits { small_max: 128, large_max: 0 });
    let mut mux = Multiplexer::new(Config::default(), pool.clone()).unwrap();
    let track = mux.add_track(Format::h264(), None).unwrap();
    let taken: Vec<_> = (0..128).map(|_| pool.take(1)).collect();
    mux.handle_access_unit(ms(0), track, &picture(0, 0));
    assert!(mux.poll_packet().is_none());
    assert!(mux.poll_timeout().unwrap() > ms(0));
    drop(taken);
    let mut checker = Checker::default();
    checker.packet(&mux.poll_packet().unwrap());
    checker.packet(&mux.poll_packet().unwrap());
    assert_eq!(checker.units[&VIDEO].len(), 1);
    assert_eq!(mux.stats().no_buffer, 1);
}

#[test]
fn a_long_pause_is_left_out_and_pcr_says_so() {
    for rate in [None, Some(2_000_000)] {
        let mut bench = Bench::new(rate);
        bench.run_to(100);
        bench.mux.handle_timeout(ms(5_000));
        bench.run_to(5_010);
        assert_eq!(bench.checker.discontinuities, 1, "{rate:?}");
        assert!(bench.checker.bytes < 40_000, "{rate:?}");
    }
}

#[test]
fn a_source_whose_clock_is_off_is_never_dropped() {
    for ppm in [30, -30, 100, -100] {
        let stats = drift(ppm, None, 24 * 3_600);
        assert_eq!((stats.late, stats.stale, stats.overflow, stats.rebased), (0, 0, 0, 0), "{ppm}: {stats:?}");
        assert_eq!((stats.units, stats.mended, stats.undecodable), (24 * 3_600 * 5 / 2, 0, 0), "{ppm}: {stats:?}");
    }
    for ppm in [100, -100] {
        let stats = drift(ppm, Some(250_000), 1_800);
        assert_eq!((stats.late, stats.stale, stats.overflow, stats.rebased), (0, 0, 0, 0), "{ppm}: {stats:?}");
    }
}

/// Counters after so many seconds of pictures every 400 ms of a clock that is `ppm` faster than ours; PCR keeps within
/// 30 ppm of ours.
fn drift(ppm: i32, rate_bps: Option<u64>, seconds: u64) -> Stats {
    let config = Config { rate: rate_bps.map(Bitrate::from_bps), ..Config::default() };
    let mut mux = Multiplexer::new(config, Pool::new(PoolLimits::default())).unwrap();
    let video = mux.add_track(Format::h264(), None).unwrap();
    let (data, mut first, mut last) = (picture(0, 0).data, None, None);
    let mut drain = |mux: &mut Multiplexer| {
        while let Some(packet) = mux.poll_packet() {
            let pcr = packet.chunks(188).find_map(|bytes| TsPacket::parse(bytes).unwrap().adaptation?.pcr);
            last = pcr.map(|pcr| (packet.meta.arrival, pcr.0)).or(last);
            first = first.or(last);
        }
    };
    for n in 0..seconds * 5 / 2 {
        let now = Time::from_ns((n as f64 * 4e8 / (1.0 + f64::from(ppm) * 1e-6)) as u64);
        if rate_bps.is_some() {
            while let Some(due) = mux.poll_timeout().filter(|due| *due < now) {
                mux.handle_timeout(due);
                drain(&mut mux);
            }
        }
        let dts = Ticks90k(n * 36_000);
        let unit = AccessUnit { pts: dts, dts, random_access: true, data: data.clone() };
        mux.handle_access_unit(now, video, &unit);
        drain(&mut mux);
    }
    let ((from, from_27m), (to, to_27m)) = first.zip(last).unwrap();
    let by_ours = to.since(from).as_secs_f64();
    let off = ((to_27m + (300 << 33) - from_27m) % (300 << 33)) as f64 / 27e6 / by_ours;
    // The wrap after 26.5 h is the only one there can be; at a varying rate PCR is up to a call older than its packet.
    let tolerance = 30e-6 + if rate_bps.is_none() { 1.0 / by_ours } else { 0.1 / by_ours };
    assert!((off - 1.0).abs() < tolerance, "{ppm}: {off}");
    mux.stats()
}

#[test]
fn times_in_milliseconds_come_out_exact() {
    let mut bench = Bench::new(None);
    for n in 0..300_u64 {
        let ms = n * 1_001 / 30;
        bench.run_to(ms);
        bench.unit(0, ms * 90);
    }
    let stamps: Vec<u64> = bench.checker.units[&VIDEO].iter().map(|unit| stamp(&unit[9..14])).collect();
    let steps: Vec<u64> = stamps[100..].windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(steps.len() > 100 && steps.iter().all(|step| step % 3_003 == 0), "{steps:?}");
}

/// A multiplexer with a picture and sound, and its stream checked.
struct Bench {
    mux: Multiplexer,
    video: TrackId,
    audio: TrackId,
    checker: Checker,
    random_access_packets: usize,
    now_ms: u64,
}

impl Bench {
    fn new(rate_bps: Option<u64>) -> Self {
        let config = Config { rate: rate_bps.map(Bitrate::from_bps), ..Config::default() };
        let mut mux = Multiplexer::new(config, Pool::new(PoolLimits::default())).unwrap();
        let video = mux.add_track(Format::h264(), None).unwrap();
        let audio = mux.add_track(Format::mpeg_audio(), Some(*b"eng")).unwrap();
        Self { mux, video, audio, checker: Checker::default(), random_access_packets: 0, now_ms: 0 }
    }

    /// A picture, every 25th of them IDR, or a frame of sound.
    fn unit(&mut self, track: u8, dts: u64) {
        let now = ms(self.now_ms);
        if track == 0 {
            self.mux.handle_access_unit(now, self.video, &picture(dts, 0));
        } else {
            let data = [&[0xff, 0xfd][..], &[0; 400]].concat().into();
            let unit = AccessUnit { pts: Ticks90k(dts), dts: Ticks90k(dts), random_access: false, data };
            self.mux.handle_access_unit(now, self.audio, &unit);
        }
        self.drain();
    }

    fn run_to(&mut self, until_ms: u64) {
        if self.mux.poll_timeout().is_none() {
            self.mux.handle_timeout(ms(0));
        }
        self.drain();
        while let Some(due) = self.mux.poll_timeout().filter(|due| *due <= ms(until_ms)) {
            self.mux.handle_timeout(due);
            self.drain();
        }
        self.now_ms = until_ms;
        self.mux.handle_timeout(ms(until_ms));
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(packet) = self.mux.poll_packet() {
            self.checker.packet(&packet);
            self.random_access_packets += count_video_random_access(&packet);
        }
    }

    fn stats(&self) -> Stats {
        self.mux.stats()
    }
}

fn count_video_random_access(packet: &Packet) -> usize {
    let parsed = packet.chunks(188).map(|bytes| TsPacket::parse(bytes).unwrap());
    parsed.filter(|ts| ts.pid == VIDEO && ts.adaptation.is_some_and(|adaptation| adaptation.random_access)).count()
}

/// About a kilobyte; IDR at whole seconds and off the grid of 40 ms.
fn picture(dts: u64, shown_after: u64) -> AccessUnit {
    let mut data = Vec::new();
    let is_idr = !dts.is_multiple_of(3_600) || dts.is_multiple_of(90_000);
    if is_idr {
        data.extend([0, 0, 0, 1, 0x67, 1, 0, 0, 0, 1, 0x68, 1, 0, 0, 0, 1, 0x65, 0x88]);
    } else {
        data.extend([0, 0, 0, 1, 0x41, 0x9a]);
    }
    data.resize(data.len() + 1_000, 0x55);
    AccessUnit { pts: Ticks90k(dts + shown_after), dts: Ticks90k(dts), random_access: false, data: data.into() }
}

fn stamp(bytes: &[u8]) -> u64 {
    let byte = |at: usize| u64::from(bytes[at]);
    (byte(0) >> 1 & 7) << 30 | byte(1) << 22 | (byte(2) >> 1) << 15 | byte(3) << 7 | byte(4) >> 1
}

fn ms(ms: u64) -> Time {
    Time::from_ns(ms * 1_000_000)
}
