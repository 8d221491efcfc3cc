//! Decoded pictures, sample by sample, against those of ffmpeg.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

#[cfg(feature = "av1")]
use anabranch::media::decode::Decoder;
use anabranch::media::frame::{Frame, Plane, Samples};
use anabranch::media::headers::{Entry, Structure};
use anabranch::media::thumbnail::{JPEG_BYTES_MAX, Scaled};
use anabranch::media::{Headers, KeyFrames, Pictures, Thumbnail};
use anabranch::proto::mpegts::demux::{AccessUnit, Codec};
use anabranch::units::Ticks90k;

use crate::clips::{self, REFRESHED, VIDEO};

#[test]
fn key_frames_are_those_of_ffmpeg() {
    for path in clips::all(&VIDEO) {
        let expected = reference(&path);
        let (demux, units) = clips::units(&path);
        let video = demux.streams().find(|stream| stream.codec.is_some_and(|codec| codec.is_video())).unwrap();
        let mut key_frames = KeyFrames::new(video.codec.unwrap());
        let (mut compared, mut worst) = (0, f64::INFINITY);
        for unit in units.iter().filter(|unit| unit.pid == video.entry.pid) {
            let Some(outcome) = key_frames.push(unit, true) else { continue };
            let shown = outcome.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let expected = &expected[&shown.pts.unwrap().0];
            worst = worst.min(psnr(&shown.frame, expected));
            compared += 1;
        }
        eprintln!("{}: {compared} pictures, PSNR {worst:.1} dB", path.display());
        assert!(compared > 0, "{}: none decoded", path.display());
        assert!(worst >= 60.0, "{}: {worst:.1} dB", path.display());
        // Only inverse transforms of MPEG video may round in their own way.
        assert!(
            worst == f64::INFINITY || path.file_name().unwrap().to_str().unwrap().starts_with("mpeg"),
            "{worst:.1} dB"
        );
    }
}

#[test]
fn every_picture_is_that_of_ffmpeg_in_the_order_in_which_they_are_shown() {
    for recipe in &VIDEO {
        let Some(path) = clips::made(recipe) else { return };
        let expected = reference(&path);
        let (_, units) = clips::units(&path);
        let units: Vec<_> = units.into_iter().filter(|unit| unit.codec.is_video()).collect();
        let (mut times, mut worst) = (expected.iter(), f64::INFINITY);
        for shown in Pictures::new(&units).unwrap() {
            let shown = shown.unwrap_or_else(|error| panic!("{}: {error}", recipe.name));
            let (pts, expected) = times.next().unwrap();
            assert_eq!(shown.pts.unwrap().0, *pts, "{}", recipe.name);
            worst = worst.min(psnr(&shown.frame, expected));
        }
        assert_eq!(times.next(), None, "{}", recipe.name);
        eprintln!("{}: {} pictures, PSNR {worst:.1} dB", recipe.name, expected.len());
        assert!(worst >= least(recipe.name), "{}: {worst:.1} dB", recipe.name);
    }
}

/// Only inverse transforms of MPEG video may round in their own way.
fn least(name: &str) -> f64 {
    if name.starts_with("mpeg") { 60.0 } else { f64::INFINITY }
}

#[test]
fn decoding_starts_at_any_key_frame_or_recovery_point() {
    for recipe in VIDEO.iter().chain([&REFRESHED]) {
        let Some(path) = clips::made(recipe) else { return };
        let expected = reference(&path);
        let (_, units) = clips::units(&path);
        let units: Vec<_> = units.into_iter().filter(|unit| unit.codec.is_video()).collect();
        let mut headers = Headers::new(units[0].codec);
        let entries = units.iter().map(|unit| headers.read(unit).unwrap().entry).collect::<Vec<_>>();
        // Not the first.
        let start = 1 + entries[1..].iter().position(|entry| *entry != Entry::None).unwrap();
        let mut key_frames = KeyFrames::new(units[0].codec);
        let shown = units[start..].iter().find_map(|unit| key_frames.push(unit, true));
        let refreshed = matches!(entries[start], Entry::Recovery { frames: 1.. });
        if recipe.name != "h264_intra_refresh" {
            let shown = shown.unwrap_or_else(|| panic!("{}: nothing from {start} on", recipe.name)).unwrap();
            assert!(psnr(&shown.frame, &expected[&shown.pts.unwrap().0]) >= least(recipe.name), "{}", recipe.name);
        }
        let mut compared = 0;
        for shown in Pictures::new(&units[start..]).unwrap() {
            let shown = shown.unwrap_or_else(|error| panic!("{}: {error}", recipe.name));
            let expected = &expected[&shown.pts.unwrap().0];
            assert!(psnr(&shown.frame, expected) >= least(recipe.name), "{} at {:?}", recipe.name, shown.pts);
            compared += 1;
        }
        let all = expected.range(units[start].pts.unwrap().0..).count();
        eprintln!("{}: {compared} of {all} pictures from {:?} on", recipe.name, entries[start]);
        assert!(if refreshed { compared < all } else { compared == all }, "{}: {compared}", recipe.name);
    }
}

#[test]
fn pictures_of_two_fields_are_those_of_ffmpeg_however_they_are_packed() {
    if !clips::installed() {
        return;
    }
    for (name, order) in [
        ("h264_paff_b", &[0, 4, 2, 1, 3, 8, 6, 5, 7][..]),
        ("h264_paff_mixed", &[0, 1, 2, 3]),
        ("h264_paff_p", &[0, 1, 2]),
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/media").join(name);
        let expected = raw(&["-f", "h264"], &path);
        let bytes = std::fs::read(&path).unwrap();
        for packing in [Packing::Frame, Packing::Field, Packing::FieldWithTime] {
            let units = packed(&bytes, order, packing);
            let frames = expected.chunks(expected.len() / order.len());
            let shown: Vec<_> = Pictures::new(&units).unwrap().map(Result::unwrap).collect();
            assert_eq!(shown.len(), order.len(), "{name}");
            for (index, (shown, expected)) in shown.iter().zip(frames).enumerate() {
                assert_eq!(shown.pts, Some(Ticks90k(index as u64 * 3_600)), "{name}");
                assert_eq!(psnr(&shown.frame, expected), f64::INFINITY, "{name}, picture {index}, {packing:?}");
            }
            let mut key_frames = KeyFrames::new(Codec::H264);
            let key = units.iter().find_map(|unit| key_frames.push(unit, true)).unwrap().unwrap();
            assert_eq!((&key.frame, key.pts), (&shown[0].frame, Some(Ticks90k(0))), "{name}, {packing:?}");
            assert!(key.display.interlaced);
        }
    }
}

/// Of key frames alone, as the product asks for them, and of all; in a file of temporal units, as ffmpeg reads no AV1 in a
/// transport stream.
#[cfg(feature = "av1")]
#[test]
fn pictures_of_av1_are_those_of_ffmpeg() {
    if !clips::installed() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    for format in ["yuv420p", "yuv420p10le"] {
        let path = directory.path().join(format!("{format}.ivf"));
        let status = Command::new("ffmpeg")
            .args([
                "-v",
                "error",
                "-nostdin",
                "-f",
                "lavfi",
                "-i",
                "testsrc2=s=350x198:r=25,noise=alls=12:allf=t",
                "-t",
                "2",
            ])
            .args(["-pix_fmt", format, "-c:v", "libsvtav1", "-preset", "10", "-g", "10"])
            .arg(&path)
            .status();
        assert!(status.unwrap().success());
        let expected = raw(&["-f", "ivf"], &path);
        let (mut key_frames, mut decoder) = (KeyFrames::new(Codec::Av1), Decoder::new(Codec::Av1).unwrap());
        let (mut headers, mut keys, mut all) = (Headers::new(Codec::Av1), 0, 0);
        let units = temporal_units(&std::fs::read(&path).unwrap());
        let mut expected = expected.chunks(expected.len() / units.len());
        for unit in &units {
            let expected = expected.next().unwrap();
            if let Some(shown) = key_frames.push(unit, true) {
                assert_eq!(psnr(&shown.unwrap().frame, expected), f64::INFINITY, "{format}, key frame {keys}");
                keys += 1;
            }
            let picture = headers.read(unit).unwrap();
            let frame = decoder.decode(unit, picture).unwrap().unwrap();
            assert_eq!(psnr(&frame, expected), f64::INFINITY, "{format}, picture {all}");
            all += 1;
        }
        assert_eq!((keys, all), (5, 50), "{format}");
    }
}

/// Out of a file in the form IVF: a header of 32 bytes, then length, time in pictures and bytes of each.
#[cfg(feature = "av1")]
fn temporal_units(file: &[u8]) -> Vec<AccessUnit> {
    let (mut rest, mut units) = (&file[32..], Vec::new());
    while let Some((length, after)) = rest.split_first_chunk() {
        let (bytes, after) = after[8..].split_at(u32::from_le_bytes(*length) as usize);
        let (bytes, pts) = (bytes.to_vec(), Some(Ticks90k(units.len() as u64 * 3_600)));
        units.push(AccessUnit { pid: Default::default(), codec: Codec::Av1, pts, dts: None, bytes });
        rest = after;
    }
    units
}

/// What a PES packet holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Packing {
    Frame,
    /// The second field has no PTS.
    Field,
    FieldWithTime,
}

/// Units out of a byte stream whose frames are to be shown in this order; each picture has one slice.
pub(crate) fn packed(bytes: &[u8], order: &[u64], packing: Packing) -> Vec<AccessUnit> {
    let starts: Vec<usize> = (0..bytes.len() - 3).filter(|&at| bytes[at..at + 3] == [0, 0, 1]).collect();
    let ends = starts.iter().skip(1).copied().chain([bytes.len()]);
    let unit = |pts| AccessUnit { pid: Default::default(), codec: Codec::H264, pts, dts: None, bytes: Vec::new() };
    let (mut units, mut headers) = (Vec::<AccessUnit>::new(), Headers::new(Codec::H264));
    let (mut open, mut order, mut field) = (unit(None), order.iter(), false);
    for (start, end) in starts.iter().zip(ends) {
        open.bytes.extend(&bytes[*start..end]);
        if !matches!(bytes[start + 3] & 0x1f, 1 | 5) {
            continue;
        }
        let structure = headers.read(&open).unwrap().structure;
        let second = field;
        field = structure == Structure::Field && !second;
        if second && packing == Packing::Frame {
            units.last_mut().unwrap().bytes.append(&mut open.bytes);
        } else if second {
            let first = units.last().unwrap().pts.unwrap();
            open.pts = (packing == Packing::FieldWithTime).then_some(Ticks90k(first.0 + 1_800));
            units.push(std::mem::replace(&mut open, unit(None)));
        } else {
            open.pts = order.next().map(|index| Ticks90k(index * 3_600));
            units.push(std::mem::replace(&mut open, unit(None)));
        }
    }
    units
}

#[test]
fn thumbnails_show_what_ffmpeg_scales() {
    for path in clips::all(&VIDEO) {
        let (demux, units) = clips::units(&path);
        let video = demux.streams().find(|stream| stream.codec.is_some_and(|codec| codec.is_video())).unwrap();
        let mut key_frames = KeyFrames::new(video.codec.unwrap());
        let mut video = units.iter().filter(|unit| unit.pid == video.entry.pid);
        let shown = video.find_map(|unit| key_frames.push(unit, true)).unwrap().unwrap();
        let thumbnail = Thumbnail::new(&shown.frame, &shown.display).unwrap();
        assert!(thumbnail.jpeg.len() <= JPEG_BYTES_MAX, "{}: {} bytes", path.display(), thumbnail.jpeg.len());
        let (width, height) = (thumbnail.width, thumbnail.height);
        let compressed = rgb(&["-f", "mjpeg", "-i", "-"], &thumbnail.jpeg, "", (width, height));
        let file = path.to_str().unwrap();
        // Of few rows only one field is taken, as two would show as a comb.
        let one_field =
            shown.display.interlaced && (height * 7 / 4..height * 3).contains(&(shown.frame.height() as u16));
        let fields = if one_field { "field=type=top," } else { "" };
        // Where the stream does not say which matrix, large pictures are taken for BT.709; ffmpeg never does.
        let unsaid = shown.display.colour.matrix == 2 && shown.frame.height() >= 720;
        let filter = if unsaid { "setparams=colorspace=bt709," } else { "" }.to_string() + fields;
        let theirs = rgb(&["-i", file, "-map", "0:v"], &[], &filter, (width, height));
        let scaled: Vec<u8> =
            Scaled::new(&shown.frame, &shown.display).pixels.as_chunks::<3>().0.iter().flat_map(to_rgb).collect();
        let (before, after) = (psnr_of(&scaled, &theirs), psnr_of(&compressed, &theirs));
        let bytes = thumbnail.jpeg.len();
        eprintln!("{}: {width}x{height}, {before:.1} dB, as JPEG {bytes} bytes, {after:.1} dB", path.display());
        assert!(before >= 30.0, "{}: {before:.1} dB", path.display());
        assert!(after >= 25.0, "{}: {after:.1} dB", path.display());
    }
}

/// As JFIF has it.
fn to_rgb(&[y, cb, cr]: &[u8; 3]) -> [u8; 3] {
    let [y, cb, cr] = [f32::from(y), f32::from(cb) - 128.0, f32::from(cr) - 128.0];
    [y + 1.402 * cr, y - 0.344_136 * cb - 0.714_136 * cr, y + 1.772 * cb]
        .map(|value| value.round().clamp(0.0, 255.0) as u8)
}

fn psnr_of(ours: &[u8], theirs: &[u8]) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    let squares: f64 = ours.iter().zip(theirs).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    10.0 * (255.0_f64.powi(2) * ours.len() as f64 / squares).log10()
}

/// The first picture of an input, scaled by area, as RGB.
fn rgb(input: &[&str], stdin: &[u8], filter: &str, (width, height): (u16, u16)) -> Vec<u8> {
    let filter = format!("{filter}scale={width}:{height}:flags=area+accurate_rnd+full_chroma_int");
    let mut child = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin"])
        .args(input)
        .args(["-frames:v", "1", "-vf", &filter])
        .args(["-pix_fmt", "rgb24", "-f", "rawvideo", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(stdin).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.stdout.len(), usize::from(width) * usize::from(height) * 3);
    output.stdout
}

/// Peak signal to noise over all planes; infinite for equal ones.
fn psnr(frame: &Frame, expected: &[u8]) -> f64 {
    let ours: Vec<u16> = frame.planes.iter().flat_map(samples).collect();
    let theirs: Vec<u16> = if frame.depth > 8 {
        expected.as_chunks::<2>().0.iter().map(|bytes| u16::from_le_bytes(*bytes)).collect()
    } else {
        expected.iter().map(|&byte| byte.into()).collect()
    };
    assert_eq!(ours.len(), theirs.len());
    let squares: f64 = ours.iter().zip(&theirs).map(|(a, b)| f64::from(i32::from(*a) - i32::from(*b)).powi(2)).sum();
    let peak = f64::from((1_u32 << frame.depth) - 1);
    10.0 * (peak.powi(2) * ours.len() as f64 / squares).log10()
}

fn samples(plane: &Plane) -> Vec<u16> {
    match &plane.samples {
        Samples::Byte(samples) => samples.iter().map(|&sample| sample.into()).collect(),
        Samples::Word(samples) => samples.clone(),
    }
}

/// What ffmpeg decodes, by PTS.
fn reference(path: &Path) -> BTreeMap<u64, Vec<u8>> {
    let times = Command::new("ffprobe")
        .args(["-v", "error", "-select_streams", "v", "-show_entries", "frame=pts", "-of", "csv=p=0"])
        .arg(path)
        .output()
        .unwrap();
    let times = String::from_utf8(times.stdout).unwrap();
    let times: Vec<u64> = times.lines().filter_map(|line| line.split(',').next()?.parse().ok()).collect();
    let raw = raw(&[], path);
    assert!(!times.is_empty() && raw.len().is_multiple_of(times.len()), "{}: {} frames", path.display(), times.len());
    let frame_bytes = raw.len() / times.len();
    times.iter().copied().zip(raw.chunks(frame_bytes).map(<[u8]>::to_vec)).collect()
}

/// What ffmpeg decodes, frame after frame.
fn raw(format: &[&str], path: &Path) -> Vec<u8> {
    let raw = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-threads", "1"])
        .args(format)
        .arg("-i")
        .arg(path)
        .args(["-map", "0:v", "-vsync", "passthrough", "-f", "rawvideo", "-"])
        .output()
        .unwrap();
    raw.stdout
}
