//! Black, frozen and silent spans, and loudness, against ffmpeg's filters.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::process::Command;

use anabranch::media::boundary::{Before, Edge, Turn, prove};
use anabranch::media::headers::Entry;
use anabranch::media::quality::{Black, Freeze, Loudness, Silence, Span};
use anabranch::media::{Decoder, Frame, Headers, KeyFrames, SoundDecoder};
use anabranch::proto::mpegts::demux::AccessUnit;
use anabranch::units::Ticks90k;

use crate::clips::{self, PROGRAMME};

#[test]
pub(crate) fn spans_are_those_of_ffmpeg_within_a_frame() {
    for recipe in &PROGRAMME {
        let Some(path) = clips::made(recipe) else { return };
        let log = filtered(&path, &["-vf", "blackdetect,freezedetect", "-af", "silencedetect"]);
        let (_, units) = clips::units(&path);
        let (black, frozen) = watch(&all_pictures(&units));
        agree("black", &black, &spans(&log, "black_start:", "black_end:"), FRAME_90K);
        agree("frozen", &frozen, &spans(&log, "freeze_start: ", "freeze_end: "), FRAME_90K);
        assert!(black.len() == 3 && frozen.len() >= 2, "{black:?} {frozen:?}");
        let silent = listen(&units).0;
        agree("silent", &silent, &spans(&log, "silence_start: ", "silence_end: "), MILLISECOND_90K);
        assert_eq!(silent.len(), 3);
    }
}

#[test]
fn edges_are_proven_to_the_picture_by_the_groups_around_them() {
    for recipe in &PROGRAMME {
        let Some(path) = clips::made(recipe) else { return };
        let log = filtered(&path, &["-vf", "blackdetect=d=0.04,freezedetect=d=0.2", "-an"]);
        let (_, units) = clips::units(&path);
        let units: Vec<_> = units.into_iter().filter(|unit| unit.codec.is_video()).collect();
        let mut edges = BTreeMap::<_, Edge>::new();
        let (mut earlier, mut before) = ((0, Before::default()), Before::default());
        for group in groups(&units) {
            let mut proof = prove(&units[group.clone()], before).unwrap();
            let at_end = proof.at_end;
            // What begins with the group may have begun before it, so the one before it is asked as well.
            if proof.edges.iter().any(|edge| edge.after.is_none()) {
                proof = prove(&units[earlier.0..group.end], earlier.1).unwrap();
                assert_eq!(proof.at_end, at_end);
            }
            (earlier, before) = ((group.start, before), at_end);
            let exact = proof.edges.iter().filter(|edge| edge.after.is_some());
            edges.extend(exact.map(|edge| ((edge.turn as u8, edge.at), *edge)));
        }
        let all = |turn| edges.values().filter(move |edge: &&Edge| edge.turn == turn).collect::<Vec<_>>();
        let pairs = |begins: Turn, ends| -> Vec<Span> {
            let ends = all(ends);
            let spans = all(begins).into_iter().filter_map(|begin| {
                let end = ends.iter().find(|end| end.at > begin.at)?;
                Some(Span { start: begin.at, end: end.at })
            });
            spans.collect()
        };
        let black = pairs(Turn::BlackBegins, Turn::BlackEnds);
        agree("black", &black, &spans(&log, "black_start:", "black_end:")[..black.len()], FRAME_90K);
        assert!(black.len() >= 3, "{black:?}");
        let long = |span: &Span| span.end.0 - span.start.0 >= 18_000;
        let frozen: Vec<_> = pairs(Turn::FreezeBegins, Turn::FreezeEnds).into_iter().filter(long).collect();
        agree("frozen", &frozen, &spans(&log, "freeze_start: ", "freeze_end: "), FRAME_90K);
        assert!(frozen.len() >= 2, "{frozen:?}");
        for edge in edges.values() {
            assert_eq!(edge.after.map(|after| edge.at.0 - after.0), Some(FRAME_90K), "{edge:?}");
        }
    }
}

/// From each key frame to the next one and what is shown before that, as the watch passes them.
fn groups(units: &[AccessUnit]) -> Vec<Range<usize>> {
    let mut headers = Headers::new(units[0].codec);
    let is_entry = |unit| headers.read(unit).unwrap().entry != Entry::None;
    let entries: Vec<bool> = units.iter().map(is_entry).collect();
    let starts: Vec<usize> = (0..units.len()).filter(|&at| entries[at]).collect();
    let closing = |start: usize| {
        let leading = units[start + 1..].iter().take_while(|unit| unit.pts < units[start].pts).count();
        start + 1 + leading
    };
    let ends = starts.iter().skip(1).map(|&start| closing(start)).chain([units.len()]);
    starts.iter().zip(ends).map(|(&start, end)| start..end).collect()
}

#[test]
fn key_frames_alone_find_the_same_black_within_a_group_of_pictures() {
    for recipe in &PROGRAMME {
        let Some(path) = clips::made(recipe) else { return };
        let log = filtered(&path, &["-vf", "blackdetect=d=2.1", "-an"]);
        let (_, units) = clips::units(&path);
        let video: Vec<_> = units.iter().filter(|unit| unit.codec.is_video()).collect();
        let mut key_frames = KeyFrames::new(video[0].codec);
        let shown = video.iter().filter_map(|unit| key_frames.push(unit, true)).map(Result::unwrap);
        let pictures: Vec<_> = shown.map(|shown| (shown.pts.unwrap(), shown.frame)).collect();
        agree("black", &watch(&pictures).0, &spans(&log, "black_start:", "black_end:"), 25 * FRAME_90K);
    }
}

#[test]
fn loudness_is_that_of_ffmpeg() {
    for recipe in &PROGRAMME {
        let Some(path) = clips::made(recipe) else { return };
        let log = filtered(&path, &["-vn", "-af", "ebur128=peak=true"]);
        let summary = log.rsplit("Integrated loudness:").next().unwrap();
        let (_, units) = clips::units(&path);
        let loudness = listen(&units).1;
        let integrated = number_after(summary, "I:");
        let peak = number_after(summary, "Peak:");
        assert!((loudness.integrated().unwrap() - integrated).abs() <= 0.1, "{:?} {integrated}", loudness.integrated());
        assert!((loudness.true_peak().unwrap() - peak).abs() <= 0.2, "{:?} {peak}", loudness.true_peak());
    }
}

/// All pictures in the order in which they are shown.
fn all_pictures(units: &[AccessUnit]) -> Vec<(Ticks90k, Frame)> {
    let video: Vec<_> = units.iter().filter(|unit| unit.codec.is_video()).collect();
    let (mut headers, mut decoder) = (Headers::new(video[0].codec), Decoder::new(video[0].codec).unwrap());
    let decoded = video.into_iter().filter_map(|unit| {
        let picture = headers.read(unit).unwrap();
        Some((unit.pts.unwrap(), decoder.decode(unit, picture).unwrap()?))
    });
    let mut pictures: Vec<_> = decoded.collect();
    pictures.sort_by_key(|(pts, _)| *pts);
    pictures
}

fn watch(pictures: &[(Ticks90k, Frame)]) -> (Vec<Span>, Vec<Span>) {
    let (mut black, mut freeze) = (Black::default(), Freeze::default());
    let (mut blacks, mut freezes) = (Vec::new(), Vec::new());
    for (pts, frame) in pictures {
        blacks.extend(black.push(frame, false, *pts));
        freezes.extend(freeze.push(frame, *pts));
    }
    // What is left at the end lasts until there, as ffmpeg has it for black.
    let end = pictures.last().unwrap().0;
    blacks.extend(black.since().map(|start| Span { start, end }));
    (blacks, freezes)
}

fn listen(units: &[AccessUnit]) -> (Vec<Span>, Loudness) {
    let sound: Vec<_> = units.iter().filter(|unit| !unit.codec.is_video()).collect();
    let mut decoder = SoundDecoder::new(sound[0].codec).unwrap();
    let (mut silence, mut loudness, mut spans) = (Silence::default(), Loudness::default(), Vec::new());
    for unit in sound {
        let mut pts = unit.pts.unwrap();
        let outcome = decoder.decode(unit, |sound| {
            spans.extend(silence.push(&sound, pts));
            loudness.push(&sound);
            pts.0 += sound.channels[0].len() as u64 * 90_000 / u64::from(sound.rate);
        });
        outcome.unwrap();
    }
    (spans, loudness)
}

pub(crate) fn agree(what: &str, found: &[Span], expected: &[Span], tolerance: u64) {
    let near = |found: Ticks90k, expected: Ticks90k| found.0.abs_diff(expected.0) <= tolerance;
    let all = found
        .iter()
        .zip(expected)
        .all(|(found, expected)| near(found.start, expected.start) && near(found.end, expected.end));
    assert!(all && found.len() == expected.len(), "{what}: found {found:?}, ffmpeg says {expected:?}");
}

/// What a filter says on the standard error output, with times as they are in the file.
pub(crate) fn filtered(path: &Path, filters: &[&str]) -> String {
    let output = Command::new("ffmpeg")
        .args(["-hide_banner", "-nostats", "-nostdin", "-copyts", "-i"])
        .arg(path)
        .args(filters)
        .args(["-f", "null", "-"])
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Spans that have both a start and an end in the log.
pub(crate) fn spans(log: &str, start: &str, end: &str) -> Vec<Span> {
    let times = |key: &str| -> Vec<Ticks90k> {
        let places = log.match_indices(key).map(|(at, _)| number_after(&log[at..], key));
        places.map(|seconds| Ticks90k((seconds * 90_000.0).round() as u64)).collect()
    };
    times(start).into_iter().zip(times(end)).map(|(start, end)| Span { start, end }).collect()
}

pub(crate) fn number_after(text: &str, key: &str) -> f64 {
    let rest = &text[text.find(key).unwrap() + key.len()..];
    let word = rest.split_whitespace().next().unwrap();
    word.parse().unwrap_or_else(|_| panic!("{key} {word}"))
}

const FRAME_90K: u64 = 3_600;
pub(crate) const MILLISECOND_90K: u64 = 90;
