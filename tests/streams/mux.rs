//! The multiplexer: what ffmpeg made goes through it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anabranch::bus::{Pool, PoolLimits};
use anabranch::proto::mpegts::faults::{self, Fault};
use anabranch::proto::mpegts::mux::{AccessUnit, Config, Format, Multiplexer, Stats};
use anabranch::proto::mpegts::picture::Size;
use anabranch::proto::mpegts::{TestPicture, picture};
use anabranch::proto::rtmp::flv::{self, Content};
use anabranch::proto::{Core, Surroundings};
use anabranch::units::{Bitrate, Ticks90k, Time};

use super::bridge::messages;
use super::tools::{PICTURE, SOUND, frames, make, pcrs, tools, warnings, write};

#[test]
fn flv_with_b_frames_goes_through_and_every_frame_is_the_same() {
    let Some(folder) = tools(&["ffmpeg", "tsreport"]) else {
        return;
    };
    let source = folder.path().join("source.flv");
    let codecs = "-c:v libx264 -preset veryfast -g 25 -bf 3 -b:v 2M -maxrate 2M -bufsize 1M -c:a aac -ar 48000 -ac 2";
    make(&[PICTURE, SOUND, codecs], &source);
    let units = from_flv(&std::fs::read(&source).unwrap());
    for rate in [None, Some(4_000_000)] {
        let (stream, stats) = multiplex(&units, rate);
        let dropped = stats.malformed + stats.too_long + stats.overflow + stats.stale + stats.undecodable;
        assert_eq!((dropped, stats.late, stats.mended, stats.rebased), (0, 0, 0, 0), "{stats:?}");
        let path = write(&folder, "out.ts", &stream);
        judge(&path, rate);
        for track in ["0:v", "0:a"] {
            let (before, after) = (frames(&source, track), frames(&path, track));
            assert!(before.len() > 200, "{} frames", before.len());
            assert_eq!(before, after, "{rate:?} {track}");
        }
    }
}

#[test]
fn byte_streams_of_every_codec_go_through() {
    let Some(folder) = tools(&["ffmpeg", "tsreport"]) else {
        return;
    };
    let x265 = "-c:v libx265 -preset ultrafast -x265-params bframes=0:keyint=25:log-level=none:aud=1";
    let x264 = "-c:v libx264 -preset veryfast -g 25 -bf 0 -x264-params aud=1";
    let cases: [(&str, &str, &str, &str); 3] = [
        ("hevc", x265, "mp2", "-c:a mp2 -b:a 192k"),
        ("h264", x264, "ac3", "-c:a ac3 -b:a 192k"),
        ("h264", x264, "eac3", "-c:a eac3 -b:a 192k"),
    ];
    for (video, video_options, audio, audio_options) in cases {
        let (picture, sound) = (folder.path().join(video), folder.path().join(audio));
        make(&[PICTURE, video_options, "-f", video], &picture);
        make(&[SOUND, audio_options, "-ar 48000 -ac 2 -f", audio], &sound);
        let (video_format, delimiter) = match video {
            "hevc" => (Format::hevc(), 0x46),
            _ => (Format::h264(), 0x09),
        };
        let (audio_format, samples) = match audio {
            "mp2" => (Format::mpeg_audio(), 1_152),
            "ac3" => (Format::ac3(), 1_536),
            _ => (Format::eac3(), 1_536),
        };
        let mut units = by_delimiter(&std::fs::read(&picture).unwrap(), delimiter, &video_format);
        let frame_bytes = 192_000 / 8 * samples / 48_000;
        for (n, data) in std::fs::read(&sound).unwrap().chunks(frame_bytes).enumerate() {
            let dts = (n * samples * 90 / 48) as u64;
            units.push(Unit { track: 1, format: None, pts: dts, dts, data: data.into() });
        }
        units.insert(0, Unit { track: 1, format: Some(audio_format), pts: 0, dts: 0, data: Vec::new() });
        units.sort_by_key(|unit| unit.dts);
        for rate in [None, Some(6_000_000)] {
            let (stream, stats) = multiplex(&units, rate);
            assert_eq!((stats.malformed, stats.late, stats.mended), (0, 0, 0), "{video} {audio} {stats:?}");
            let path = write(&folder, "out.ts", &stream);
            judge(&path, rate);
            assert_eq!(frames(&picture, "0:v"), frames(&path, "0:v"), "{video} {rate:?}");
            assert_eq!(frames(&sound, "0:a"), frames(&path, "0:a"), "{audio} {rate:?}");
        }
    }
}

#[test]
fn opus_goes_through_without_a_picture() {
    let Some(folder) = tools(&["ffmpeg", "tsreport"]) else {
        return;
    };
    let source = folder.path().join("source.ogg");
    make(&[SOUND, "-c:a libopus -b:a 128k -ac 2"], &source);
    let unit = |format, dts, data| Unit { track: 0, format, pts: dts, dts, data };
    let mut units = vec![unit(Some(Format::opus(2).unwrap()), 0, Vec::new())];
    // What comes first is about the stream (RFC 7845 3); packets of 20 ms follow.
    let packets = ogg_packets(&std::fs::read(&source).unwrap()).into_iter().skip(2);
    units.extend((0..).zip(packets).map(|(n, data)| unit(None, n * 1_800, data)));
    for rate in [None, Some(500_000)] {
        let (stream, stats) = multiplex(&units, rate);
        assert_eq!((stats.malformed, stats.late, stats.mended), (0, 0, 0), "{stats:?}");
        let path = write(&folder, "out.ts", &stream);
        assert!(warnings(&path).is_empty());
        // In Ogg the first and the last are cut to what was encoded.
        let (before, after) = (frames(&source, "0:a"), frames(&path, "0:a"));
        assert_eq!(before.len(), after.len());
        assert_eq!(before[1..before.len() - 1], after[1..after.len() - 1], "{rate:?}");
    }
}

fn ogg_packets(bytes: &[u8]) -> Vec<Vec<u8>> {
    let (mut packets, mut packet, mut rest) = (Vec::new(), Vec::new(), bytes);
    while rest.starts_with(b"OggS") {
        let (lacing, mut body) = rest[27..].split_at(usize::from(rest[26]));
        for length in lacing {
            packet.extend_from_slice(&body[..usize::from(*length)]);
            body = &body[usize::from(*length)..];
            if *length < 255 {
                packets.push(std::mem::take(&mut packet));
            }
        }
        rest = body;
    }
    packets
}

#[test]
fn the_test_picture_is_shown_cell_by_cell_and_its_tone_is_clean() {
    let Some(folder) = tools(&["ffmpeg", "tsreport"]) else {
        return;
    };
    let config = picture::Config::new(Bitrate::from_bps(2_000_000)).unwrap();
    let stream = signal(config, faults::Config::default(), Duration::from_secs(11));
    let path = write(&folder, "out.ts", &stream);
    judge(&path, Some(2_000_000));
    let decoded = decode(&path, &["-map", "0:v", "-f", "rawvideo", "-pix_fmt", "yuv420p"]);
    let frames: Vec<&[u8]> = decoded.chunks_exact(1_280 * 720 * 3 / 2).collect();
    assert_eq!(frames.len(), 275);
    for (number, frame) in frames.iter().enumerate() {
        let luma = |column: usize, row: usize| frame[row * 1_280 + column];
        let is_flat = |cell: usize| {
            let (left, top) = (cell % 80 * 16, cell / 80 * 16);
            (0..256).all(|n| luma(left + n % 16, top + n / 16) == luma(left, top))
        };
        assert!((0..80 * 45).all(is_flat), "picture {number}");
        let marker: Vec<usize> = (0..80).filter(|column| luma(column * 16, 719) == 235).collect();
        assert_eq!(marker, [number % 80]);
    }
    // The tone is a sine of 1 kHz at -18 dB: what a notch leaves of it lies at the least bit of 16.
    let samples = decode(&path, &["-map", "0:a", "-f", "s16le"]);
    let left: Vec<f64> =
        samples.chunks_exact(4).map(|both| f64::from(i16::from_le_bytes([both[0], both[1]]))).collect();
    let steady = &left[4_800..480_000];
    let peak = steady.iter().fold(0.0_f64, |peak, sample| peak.max(sample.abs()));
    let turn = 2.0 * (std::f64::consts::TAU * 1_000.0 / 48_000.0).cos();
    let notched = steady.windows(3).map(|three| three[0] - turn * three[1] + three[2]);
    let rest = notched.fold(0.0_f64, |rest, sample| rest.max(sample.abs()));
    eprintln!("peak {:.2} dB, rest {rest:.2} steps", 20.0 * (peak / 32_768.0).log10());
    assert!((peak - 32_768.0 * 10_f64.powf(-18.0 / 20.0)).abs() < 50.0 && rest < 4.0, "{peak} {rest}");
}

#[test]
fn the_test_picture_is_whole_in_every_size_and_rate() {
    let Some(folder) = tools(&["ffmpeg", "ffprobe", "tsreport"]) else {
        return;
    };
    for (size, rate, bps, expected) in [
        (Size::Hd720, 50, 1_500_000, "1280,720,tv,bt709,progressive,50/1"),
        (Size::Hd1080, 25, 2_000_000, "1920,1080,tv,bt709,progressive,25/1"),
        (Size::Hd1080, 30, 2_000_000, "1920,1080,tv,bt709,progressive,30/1"),
        (Size::Hd1080, 50, 3_000_000, "1920,1080,tv,bt709,progressive,50/1"),
    ] {
        let config = picture::Config::new(Bitrate::from_bps(bps)).unwrap().with_size(size);
        let config = config.with_picture_rate(rate).and_then(|config| config.with_name("Studio 1")).unwrap();
        let path = write(&folder, "out.ts", &signal(config, faults::Config::default(), Duration::from_secs(11)));
        judge(&path, Some(bps));
        let fields = "stream=width,height,field_order,color_range,color_space,r_frame_rate";
        let mut ffprobe = Command::new("ffprobe");
        ffprobe.args(["-v", "error", "-select_streams", "v", "-of", "csv=p=0", "-show_entries", fields]);
        let told = String::from_utf8(ffprobe.arg(&path).output().unwrap().stdout).unwrap();
        assert_eq!(told.lines().next(), Some(expected), "{size:?} {rate}");
        assert_eq!(frames(&path, "0:v").len(), 11 * rate as usize, "{size:?} {rate}");
    }
}

#[test]
fn black_frozen_and_silent_spans_are_where_ffmpeg_finds_them() {
    let Some(folder) = tools(&["ffmpeg"]) else {
        return;
    };
    let mut faults = faults::Config::default();
    for (fault, schedule) in [(Fault::Black, "3s/20s"), (Fault::Freeze, "4s/12s"), (Fault::Silence, "2500ms/6s")] {
        faults.set(fault, schedule).unwrap();
    }
    let config = picture::Config::new(Bitrate::from_bps(2_000_000)).unwrap();
    let path = write(&folder, "out.ts", &signal(config, faults, Duration::from_secs(21)));
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-hide_banner", "-i"]).arg(&path);
    ffmpeg.args(["-vf", "blackdetect,freezedetect", "-af", "silencedetect", "-f", "null", "-"]);
    let told = String::from_utf8(ffmpeg.output().unwrap().stderr).unwrap();
    let found = |key: &str| -> Vec<f64> {
        told.split(key).skip(1).filter_map(|rest| rest.split_whitespace().next()?.parse().ok()).collect()
    };
    // In seconds since the first picture, as ffmpeg counts from there; a black picture stands still, too.
    let is_near = |found: &[f64], expected: &[f64], tolerance: f64| {
        found.len() == expected.len() && found.iter().zip(expected).all(|(one, other)| (one - other).abs() <= tolerance)
    };
    let (black, frozen, silent) = (found("black_start:"), found("freeze_start:"), found("silence_start:"));
    assert!(is_near(&black, &[17.0], 0.04), "{black:?}");
    assert!(is_near(&frozen, &[7.96, 17.0], 0.04), "{frozen:?}");
    assert!(is_near(&silent, &[3.5, 9.5, 15.5], 0.06), "{silent:?}");
}

/// What the test picture sends in that time, from two seconds to noon on.
fn signal(config: picture::Config, faults: faults::Config, span: Duration) -> Vec<u8> {
    let pool = Pool::new(PoolLimits::default());
    let surroundings = Surroundings { pool, seed: 0, unix_ns_at_zero: (12 * 3_600 - 2) * 1_000_000_000 };
    let mut signal = TestPicture::new(config, &surroundings).with_faults(faults);
    let mut stream = Vec::new();
    while let Some(due) = signal.poll_timeout().filter(|due| *due < Time::ZERO + span) {
        signal.handle_timeout(due);
        while let Some(packet) = signal.poll_packet() {
            stream.extend_from_slice(&packet);
        }
    }
    stream
}

fn decode(path: &Path, options: &[&str]) -> Vec<u8> {
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "error", "-i"]).arg(path).args(options).arg("-").output().unwrap().stdout
}

/// What goes into the multiplexer, in order of DTS.
struct Unit {
    track: usize,
    /// The track starts, or goes on, with this; no data then.
    format: Option<Format>,
    pts: u64,
    dts: u64,
    data: Vec<u8>,
}

/// The stream as a program would make it live.
fn multiplex(units: &[Unit], rate: Option<u64>) -> (Vec<u8>, Stats) {
    let (rate, delay) = (rate.map(Bitrate::from_bps), Duration::from_millis(400));
    let config = Config { rate, delay, ..Config::default() };
    let mut mux = Multiplexer::new(config, Pool::new(PoolLimits::default())).unwrap();
    let mut tracks = [None; 2];
    for unit in units {
        if let Some(format) = &unit.format {
            tracks[unit.track] = Some(mux.add_track(format.clone(), Some(*b"und")).unwrap());
        }
    }
    let mut out = Vec::new();
    for unit in units.iter().filter(|unit| unit.format.is_none()) {
        let now = Time::ZERO + Duration::from_nanos(unit.dts * 100_000 / 9);
        run(&mut mux, now, &mut out);
        let (pts, dts) = (Ticks90k(unit.pts), Ticks90k(unit.dts));
        let unit_data = AccessUnit { pts, dts, random_access: false, data: unit.data.clone().into() };
        mux.handle_access_unit(now, tracks[unit.track].unwrap(), &unit_data);
        drain(&mut mux, &mut out);
    }
    let last = units.last().map_or(0, |unit| unit.dts);
    // The last frame of sound goes out shortly before it is decoded.
    run(&mut mux, Time::ZERO + Duration::from_nanos(last * 100_000 / 9 + 350_000_000), &mut out);
    (out, mux.stats())
}

fn run(mux: &mut Multiplexer, until: Time, out: &mut Vec<u8>) {
    while let Some(due) = mux.poll_timeout().filter(|due| *due < until) {
        mux.handle_timeout(due);
        drain(mux, out);
    }
}

fn drain(mux: &mut Multiplexer, out: &mut Vec<u8>) {
    while let Some(packet) = mux.poll_packet() {
        out.extend_from_slice(&packet);
    }
}

/// ffmpeg reads it without a word, tsreport finds no fault in its PCR.
fn judge(path: &Path, rate: Option<u64>) {
    let told = warnings(path);
    assert!(told.is_empty(), "{rate:?}: {told:?}");
    for pair in pcrs(path).windows(2).skip(1) {
        assert!(pair[1][0] - pair[0][0] >= 27_000, "{rate:?}: {pair:?}");
        // Bytes a second between the two, which a PCR that is 100 ns wrong would change by twenty or more.
        if let Some(rate) = rate {
            assert!(pair[1][2].abs_diff(rate / 8) <= 2, "{pair:?}");
        }
    }
    let output = Command::new("tsreport").args(["-buffering", "-quiet"]).arg(path).output().unwrap();
    let report = String::from_utf8(output.stdout).unwrap();
    assert!(report.contains("Bad (>.1s) gaps: 0") && report.contains("PID 0101"), "{report}");
    assert!(rate.is_none() || report.contains("Linear PCR prediction errors: min=0t, max=0t"), "{report}");
}

/// Pictures of 25 Hz without reordering, split before each access unit delimiter.
fn by_delimiter(bytes: &[u8], delimiter: u8, format: &Format) -> Vec<Unit> {
    let is_start = |at: &usize| bytes[*at..].starts_with(&[0, 0, 0, 1]) && bytes.get(at + 4) == Some(&delimiter);
    let mut starts: Vec<usize> = (0..bytes.len()).filter(is_start).collect();
    starts.push(bytes.len());
    let mut units = vec![Unit { track: 0, format: Some(format.clone()), pts: 0, dts: 0, data: Vec::new() }];
    for (n, span) in starts.windows(2).enumerate() {
        let dts = n as u64 * 3_600;
        units.push(Unit { track: 0, format: None, pts: dts, dts, data: bytes[span[0]..span[1]].into() });
    }
    units
}

/// One track of each kind of a file of FLV.
fn from_flv(file: &[u8]) -> Vec<Unit> {
    let (mut reader, mut units) = (flv::Reader::default(), Vec::new());
    for unit in messages(file).iter().flat_map(|message| reader.read(message)) {
        let unit = unit.unwrap();
        let is_video = unit.codec.is_video();
        let format = match (unit.content, is_video) {
            (Content::End, _) => continue,
            (Content::Header, true) => Some(Format::h264_with_record(&unit.bytes).unwrap()),
            (Content::Header, false) => Some(Format::aac_with_config(&unit.bytes).unwrap()),
            (Content::KeyFrame | Content::Frame, _) => None,
        };
        let data = unit.bytes.to_vec();
        units.push(Unit { track: usize::from(!is_video), format, pts: unit.pts.0, dts: unit.dts.0, data });
    }
    units
}
