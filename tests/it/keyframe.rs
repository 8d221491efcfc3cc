//! Key frames on the way of packets: where another source begins, and with what a reader goes on that fell behind.

use std::fs;
use std::time::Duration;

use anabranch::bus::{LagPolicy, Pool, PoolLimits};
use anabranch::engine::{EngineConfig, EventKind};
use anabranch::path::failover::{self, Failover, SwitchAt};
use anabranch::proto::mpegts::entry::Finder;
use anabranch::proto::mpegts::{TestPicture, picture};
use anabranch::proto::{Core, Surroundings};
use anabranch::units::{Bitrate, Time};

use crate::peers::{Peer, hashes_in, installed};
use crate::support::{Rig, V4, flow, free_port, wait_until};

const ALIGNED: SwitchAt = SwitchAt::KeyFrame { wait_max: Duration::from_secs(2) };

/// Two pictures that began at different times, in virtual time so that it is always the same packet at which the source
/// changes. At a key frame ffmpeg has nothing to say, and shows only pictures that one of the two sources has. Anywhere
/// else it shows others, and complains if the change cuts a large picture short.
#[test]
fn ffmpeg_sees_nothing_of_a_change_at_a_key_frame_and_much_of_another() {
    if !installed("ffmpeg") {
        return;
    }
    for (hold_off_ms, b_starts_ms) in [(3_610, 507), (3_330, 733)] {
        let alone = [0, 1].map(|source| pictures(&Run::new(Some(source), ALIGNED, hold_off_ms, b_starts_ms).out));
        let strange = |run: &Run| {
            let hashes = pictures(&run.out);
            assert!(hashes.len() > 150, "{} pictures of 7 s", hashes.len());
            hashes.iter().filter(|hash| !alone[0].contains(hash) && !alone[1].contains(hash)).count()
        };
        let aligned = Run::new(None, ALIGNED, hold_off_ms, b_starts_ms);
        let told = complaints(&aligned.out);
        assert!(told.is_empty() && strange(&aligned) == 0, "after {hold_off_ms} ms {}: {told}", strange(&aligned));
        let immediate = Run::new(None, SwitchAt::Once, hold_off_ms, b_starts_ms);
        assert!(immediate.changed_ms < aligned.changed_ms);
        assert!(strange(&immediate) > 5, "after {hold_off_ms} ms {}", strange(&immediate));
        // The key frame of the first source takes some 50 ms.
        let in_key_frame = aligned.key_frames_ms.iter().find(|at| **at > immediate.changed_ms).unwrap() + 20;
        let later = hold_off_ms + in_key_frame - immediate.changed_ms;
        let cut_short = Run::new(None, SwitchAt::Once, later, b_starts_ms);
        assert_eq!(cut_short.changed_ms, in_key_frame);
        assert!(!complaints(&cut_short.out).is_empty(), "after {later} ms ffmpeg is content");
    }
}

/// What two sources become of which the second is preferred once it has proved itself.
struct Run {
    out: Vec<u8>,
    changed_ms: u64,
    /// Of the first source.
    key_frames_ms: Vec<u64>,
}

impl Run {
    /// Of both sources, or of what `only` one of them brings.
    fn new(only: Option<u8>, switch_at: SwitchAt, hold_off_ms: u64, b_starts_ms: u64) -> Self {
        let pool = Pool::new(PoolLimits::default());
        let config = picture::Config::new(Bitrate::from_bps(1_500_000)).unwrap();
        let mut sources = [0, 1].map(|seed| {
            let surroundings = Surroundings { pool: pool.clone(), seed, unix_ns_at_zero: 0 };
            (TestPicture::new(config, &surroundings), Finder::default())
        });
        let hold_off = Duration::from_millis(hold_off_ms);
        let config = failover::Config { primary: Some(1), hold_off, switch_at, ..failover::Config::default() };
        let mut failover = Failover::new(config);
        (0..2).for_each(|source| failover.add_source(source));
        let mut run = Self { out: Vec::new(), changed_ms: 0, key_frames_ms: Vec::new() };
        for ms in 0..7_000 {
            let now = Time::from_ns(ms * 1_000_000);
            if failover.poll_timeout().is_some_and(|due| due <= now) {
                failover.handle_timeout(now);
            }
            for (source, (picture, finder)) in (0..).zip(&mut sources) {
                if source == 1 && ms < b_starts_ms {
                    continue;
                }
                picture.handle_timeout(now);
                while let Some(packet) = picture.poll_packet() {
                    let is_key_frame = finder.handle_packet(&packet);
                    let forward = match is_key_frame {
                        true => failover.handle_key_frame(now, source),
                        false => failover.handle_packet(now, source),
                    };
                    if only.map_or(forward, |only| only == source) {
                        run.out.extend_from_slice(&packet);
                    }
                    if is_key_frame && source == 0 {
                        run.key_frames_ms.push(ms);
                    }
                }
            }
            if failover.active() == Some(1) && run.changed_ms == 0 {
                run.changed_ms = ms;
            }
        }
        assert!(run.changed_ms > 0 && failover.stats().key_frame_timeouts_total == 0);
        run
    }
}

/// Hashes of the pictures that ffmpeg shows.
fn pictures(stream: &[u8]) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("out.ts"), stream).unwrap();
    let arguments = "-nostdin -v error -i out.ts -map 0:v -vsync passthrough -f framemd5 pictures.md5";
    Peer::run("ffmpeg", arguments, directory.path());
    hashes_in(&directory.path().join("pictures.md5"))
}

/// What ffmpeg has to say while it decodes.
fn complaints(stream: &[u8]) -> String {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("out.ts"), stream).unwrap();
    Peer::run("ffmpeg", "-nostdin -v error -i out.ts -f null -", directory.path());
    fs::read_to_string(directory.path().join("ffmpeg.log")).unwrap()
}

/// Of streams by several encoders, with and without `random_access_indicator`.
#[test]
fn key_frames_are_found_where_ffprobe_finds_them() {
    if !installed("ffmpeg") || !installed("ffprobe") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    for encoder in [
        "mpeg2video -g 12 -bf 2",
        "libx264 -preset veryfast -x264-params open-gop=1:bframes=2:keyint=25:min-keyint=25",
        "libx264 -preset veryfast -x264-params intra-refresh=1:keyint=25",
        "libx265 -preset ultrafast -x265-params keyint=25:log-level=none",
    ] {
        let inputs = "-f lavfi -i testsrc2=size=320x240:rate=25 -f lavfi -i sine";
        let arguments = format!("-nostdin -v error -y {inputs} -t 4 -c:v {encoder} -c:a mp2 made.ts");
        Peer::run("ffmpeg", &arguments, directory.path());
        let arguments = "-v quiet -select_streams v:0 -show_entries packet=flags,pos -of csv=p=0 made.ts";
        Peer::run("ffprobe", arguments, directory.path());
        let told = fs::read_to_string(directory.path().join("ffprobe.log")).unwrap();
        let packets = told.lines().filter_map(|line| line.split_once(','));
        let keys =
            packets.filter(|(_, flags)| flags.contains('K')).map(|(position, _)| position.parse::<usize>().unwrap());
        let expected: Vec<usize> = keys.map(|position| position / 1_316).collect();
        assert!((4..12).contains(&expected.len()), "{encoder}: {told}");
        let mut stream = fs::read(directory.path().join("made.ts")).unwrap();
        assert_eq!(found(&stream), expected, "{encoder}");
        for packet in stream.chunks_mut(188).filter(|packet| packet[3] & 0x20 != 0 && packet[4] > 0) {
            packet[5] &= !0x40;
        }
        assert_eq!(found(&stream), expected, "{encoder}, without the indicator");
    }
}

/// Which packets of 1,316 bytes begin with a key frame.
fn found(stream: &[u8]) -> Vec<usize> {
    let mut finder = Finder::default();
    let packets = stream.chunks(1_316).enumerate();
    packets.filter(|(_, packet)| finder.handle_packet(packet)).map(|(index, _)| index).collect()
}

/// On a running flow: readers see that another source begins with a key frame.
#[test]
fn a_flow_changes_its_source_at_a_key_frame() {
    let rig = Rig::new();
    let mut config = flow(["test:picture?rate=2M", "test:picture?rate=2M"], [""; 0]);
    config.failover.switch_at = ALIGNED;
    config.failover.hold_off = Duration::from_millis(100);
    rig.apply("f", config.clone());
    let mut reader = rig.engine.subscribe(&"f".parse().unwrap()).unwrap().subscriber(LagPolicy::DropOldest);
    wait_until("both", || rig.snapshot("f").sources.iter().all(|source| source.packets > 200));
    let mut changes = Vec::new();
    for name in ["s2", "s1", "s2"] {
        config.failover.primary = Some(name.parse().unwrap());
        rig.apply("f", config.clone());
        wait_until("the change", || {
            while let Some(packet) = reader.try_recv().unwrap() {
                if packet.meta.discontinuity {
                    changes.push((packet.meta.source, packet.meta.random_access));
                }
            }
            rig.source("f", name).selected
                && changes.last().is_some_and(|(source, _)| *source == u8::from(name == "s2"))
        });
        rig.wait_event("f", "the return", |event| {
            *event == EventKind::PrimaryRecovered { source: name.parse().unwrap() }
        });
    }
    let snapshot = rig.snapshot("f");
    // On a machine that stands still for two seconds no key frame comes in time, and that is counted.
    let in_vain = changes.iter().filter(|(_, is_key_frame)| !is_key_frame).count() as u64;
    assert!(in_vain <= snapshot.key_frame_timeout_total, "{changes:?}");
    assert_eq!(changes.len(), 3, "{changes:?}");
}

/// A reader that sleeps for longer than the ring goes on with a key frame.
#[test]
fn a_reader_that_fell_behind_goes_on_with_a_key_frame() {
    let rig = Rig::with(&EngineConfig { workers: 1, ring_packets: 64, ..EngineConfig::default() });
    rig.apply("f", flow(["test:picture?rate=5M"], [""; 0]));
    let mut reader = rig.engine.subscribe(&"f".parse().unwrap()).unwrap().subscriber(LagPolicy::ToNextKeyFrame);
    wait_until("a first packet", || reader.try_recv().unwrap().is_some());
    for _ in 0..3 {
        let before = rig.source("f", "s1").packets;
        wait_until("more than the ring holds", || rig.source("f", "s1").packets > before + 200);
        let mut first = None;
        wait_until("the key frame", || {
            first = reader.try_recv().unwrap();
            first.is_some()
        });
        let skipped = reader.take_skipped();
        assert!(reader.take_missed() > 0);
        assert!(first.unwrap().meta.random_access || skipped.timeouts > 0, "{skipped:?}");
    }
}

/// An SRT output over a line that is too slow drops what is too late, and goes on with key frames.
#[test]
fn an_output_whose_protocol_drops_goes_on_with_key_frames() {
    let rig = Rig::new();
    let port = free_port();
    rig.apply("in", flow([format!("srt://{V4}:{port}?mode=listener&latency=20")], [""; 0]));
    // 125,000 bytes a second for a stream of 5 Mb/s.
    let output = format!("srt://{V4}:{port}?mode=caller&latency=20&maxbw=125000");
    let mut config = flow(["test:picture?rate=5M"], [output]);
    rig.apply("f", config.clone());
    wait_until("the connection", || rig.output("f", "o1").packets > 100);
    assert_eq!(rig.output("f", "o1").drops.skipped_to_keyframe, 0);
    config.outputs[0].policy = LagPolicy::ToNextKeyFrame;
    rig.apply("f", config);
    wait_until("the policy", || rig.output("f", "o1").drops.skipped_to_keyframe > 200);
    let (before, connections) = (rig.output("f", "o1").packets, rig.output("f", "o1").disconnections);
    wait_until("more packets", || rig.output("f", "o1").packets > before + 20);
    assert_eq!(rig.output("f", "o1").disconnections, connections, "the change of policy opened nothing anew");
}
