//! Decoded pictures, sample by sample, against those of ffmpeg.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anabranch::media::frame::{Frame, Plane, Samples};
use anabranch::media::headers::Entry;
use anabranch::media::thumbnail::JPEG_BYTES_MAX;
use anabranch::media::{Headers, KeyFrames, Pictures, Thumbnail};

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
    for recipe in VIDEO.iter().filter(|recipe| !recipe.name.starts_with("mpeg")) {
        let Some(path) = clips::made(recipe) else { return };
        let expected = reference(&path);
        let (_, units) = clips::units(&path);
        let units: Vec<_> = units.into_iter().filter(|unit| unit.codec.is_video()).collect();
        let mut times = expected.iter();
        for shown in Pictures::new(&units).unwrap() {
            let shown = shown.unwrap_or_else(|error| panic!("{}: {error}", recipe.name));
            let (pts, expected) = times.next().unwrap();
            assert_eq!(shown.pts.unwrap().0, *pts, "{}", recipe.name);
            assert_eq!(psnr(&shown.frame, expected), f64::INFINITY, "{} at {pts}", recipe.name);
        }
        assert_eq!(times.next(), None, "{}", recipe.name);
    }
}

#[test]
fn decoding_starts_at_any_key_frame_or_recovery_point() {
    for recipe in VIDEO.iter().filter(|recipe| !recipe.name.starts_with("mpeg")).chain([&REFRESHED]) {
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
            assert_eq!(psnr(&shown.frame, &expected[&shown.pts.unwrap().0]), f64::INFINITY, "{}", recipe.name);
        }
        let mut compared = 0;
        for shown in Pictures::new(&units[start..]).unwrap() {
            let shown = shown.unwrap_or_else(|error| panic!("{}: {error}", recipe.name));
            let expected = &expected[&shown.pts.unwrap().0];
            assert_eq!(psnr(&shown.frame, expected), f64::INFINITY, "{} at {:?}", recipe.name, shown.pts);
            compared += 1;
        }
        let all = expected.range(units[start].pts.unwrap().0..).count();
        eprintln!("{}: {compared} of {all} pictures from {:?} on", recipe.name, entries[start]);
        assert!(if refreshed { compared < all } else { compared == all }, "{}: {compared}", recipe.name);
    }
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
        let ours = rgb(&["-f", "mjpeg", "-i", "-"], &thumbnail.jpeg, "", (width, height));
        let file = path.to_str().unwrap();
        // Of few rows only one field is taken, as two would show as a comb.
        let one_field =
            shown.display.interlaced && (height * 7 / 4..height * 3).contains(&(shown.frame.height() as u16));
        let fields = if one_field { "field=type=top," } else { "" };
        // Where the stream does not say which matrix, large pictures are taken for BT.709; ffmpeg never does.
        let unsaid = shown.display.colour.matrix == 2 && shown.frame.height() >= 720;
        let filter = if unsaid { "setparams=colorspace=bt709," } else { "" }.to_string() + fields;
        let theirs = rgb(&["-i", file, "-map", "0:v"], &[], &filter, (width, height));
        let squares: f64 = ours.iter().zip(&theirs).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
        let psnr = 10.0 * (255.0_f64.powi(2) * ours.len() as f64 / squares).log10();
        eprintln!("{}: {width}x{height}, {} bytes, PSNR {psnr:.1} dB", path.display(), thumbnail.jpeg.len());
        assert!(psnr >= 25.0, "{}: {psnr:.1} dB", path.display());
    }
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
    let raw = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-threads", "1", "-i"])
        .arg(path)
        .args(["-map", "0:v", "-vsync", "passthrough", "-f", "rawvideo", "-"])
        .output()
        .unwrap();
    assert!(
        !times.is_empty() && raw.stdout.len().is_multiple_of(times.len()),
        "{}: {} frames",
        path.display(),
        times.len()
    );
    let frame_bytes = raw.stdout.len() / times.len();
    times.iter().copied().zip(raw.stdout.chunks(frame_bytes).map(<[u8]>::to_vec)).collect()
}
