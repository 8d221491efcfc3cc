//! Black and freeze on pictures that look like them, in every way of coding: all pictures against ffmpeg's filters, and
//! key frames alone against those.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anabranch::media::quality::{Black, Freeze, SPAN_MIN_90K, Span};
use anabranch::media::{KeyFrames, Pictures};
use anabranch::proto::mpegts::demux::AccessUnit;
use anabranch::units::Ticks90k;

use crate::clips;
use crate::quality::{agree, filtered, number_after, spans};

#[test]
fn black_and_frozen_spans_are_those_of_ffmpeg_in_every_way_of_coding() {
    if !clips::installed() {
        return;
    }
    for (name, filter, arguments) in CODINGS {
        let path = made(name, filter, arguments);
        let log = filtered(&path, &["-vf", "blackdetect,freezedetect", "-an"]);
        let black = spans(&log, "black_start:", "black_end:");
        let mut frozen = spans(&log, "freeze_start: ", "freeze_end: ");
        assert!(black.len() >= 2 && !frozen.is_empty(), "{name}: {black:?} {frozen:?}");
        let (_, units) = clips::units(&path);
        let (found_black, found_frozen) = watch(&units);
        agree(&format!("{name}, black"), &found_black, &black, FRAME_90K);
        agree(&format!("{name}, frozen"), &found_frozen, &frozen, FRAME_90K);
        // One that is not over at the end has no end in the log.
        if log.matches("freeze_start: ").count() > frozen.len() {
            let start = number_after(&log[log.rfind("freeze_start: ").unwrap()..], "freeze_start: ");
            frozen.push(Span { start: Ticks90k((start * 90_000.0).round() as u64), end: Ticks90k(u64::MAX / 2) });
        }
        let (sampled_black, sampled_frozen) = sample(&units);
        for (what, sampled, all) in [("black", &sampled_black, &black), ("frozen", &sampled_frozen, &frozen)] {
            // Between key frames that are equal the predicted pictures of MPEG-2 differ enough for ffmpeg's filter.
            let pulses = name.starts_with("mpeg2") && what == "frozen";
            for span in sampled.iter().filter(|_| !pulses) {
                let inside =
                    |real: &Span| real.start.0 <= span.start.0 + FRAME_90K && span.end.0 <= real.end.0 + FRAME_90K;
                assert!(all.iter().any(inside), "{name}: {what} {span:?} is none of {all:?}");
            }
            // As long as the shortest and the groups around it, so that key frames must see it.
            let long = all.iter().filter(|span| span.end.0 - span.start.0 >= SPAN_MIN_90K + GROUP_90K).count();
            assert!(sampled.len() >= long.min(1), "{name}: {what} {sampled:?} of {all:?}");
        }
        eprintln!(
            "{name}: black {} of {}, frozen {} of {}",
            sampled_black.len(),
            black.len(),
            sampled_frozen.len(),
            frozen.len()
        );
    }
}

fn watch(units: &[AccessUnit]) -> (Vec<Span>, Vec<Span>) {
    let units: Vec<_> = units.iter().filter(|unit| unit.codec.is_video()).cloned().collect();
    let (mut black, mut freeze) = (Black::default(), Freeze::default());
    let (mut blacks, mut freezes, mut last) = (Vec::new(), Vec::new(), Ticks90k(0));
    for shown in Pictures::new(&units).unwrap() {
        let shown = shown.unwrap();
        last = shown.pts.unwrap();
        blacks.extend(black.push(&shown.frame, shown.display.colour.full_range, last));
        freezes.extend(freeze.push(&shown.frame, last));
    }
    // What is left at the end lasts until there, as ffmpeg has it for black.
    blacks.extend(black.since().map(|start| Span { start, end: last }));
    (blacks, freezes)
}

/// From the first to the last key frame that is so, where that is long enough: what is certain without the others.
fn sample(units: &[AccessUnit]) -> (Vec<Span>, Vec<Span>) {
    let video: Vec<_> = units.iter().filter(|unit| unit.codec.is_video()).collect();
    let mut key_frames = KeyFrames::new(video[0].codec);
    let (mut black, mut freeze) = (Black::default(), Freeze::default());
    let (mut blacks, mut freezes) = (Vec::<Span>::new(), Vec::<Span>::new());
    for shown in video.iter().filter_map(|unit| key_frames.push(unit, true)) {
        let shown = shown.unwrap();
        let at = shown.pts.unwrap();
        black.push(&shown.frame, shown.display.colour.full_range, at);
        freeze.push(&shown.frame, at);
        for (spans, since) in [(&mut blacks, black.since()), (&mut freezes, freeze.since())] {
            let Some(start) = since else { continue };
            spans.pop_if(|last| last.start == start);
            spans.push(Span { start, end: at });
        }
    }
    (blacks, freezes)
}

/// The clips of all of them, with their names.
pub(crate) fn all() -> Vec<(&'static str, PathBuf)> {
    CODINGS.map(|(name, filter, arguments)| (name, made(name, filter, arguments))).into()
}

fn made(name: &str, filter: &str, arguments: &str) -> PathBuf {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clips");
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join(format!("content_{name}.ts"));
    if !path.exists() {
        let unfinished = path.with_extension("part");
        let mut command = Command::new("ffmpeg");
        command.args(["-v", "error", "-nostdin", "-y", "-filter_complex", &format!("{CONTENT},{filter}[out]")]);
        command.args(["-map", "[out]"]).args(arguments.split_whitespace());
        command.args(["-threads", "1", "-f", "mpegts"]).arg(&unfinished);
        assert!(command.status().unwrap().success(), "{command:?}");
        fs::rename(&unfinished, &path).unwrap();
    }
    path
}

/// Movement; black; a fade from it; black with noise; a small box that creeps over grey; a still picture; a logo on black;
/// letterbox; a fade to black that lasts too short; a dark picture with lamps.
const CONTENT: &str = "\
    testsrc2=s=192x112:r=50:d=3,format=yuv422p10[a];\
    color=black:s=192x112:r=50:d=3.2,format=yuv422p10[b];\
    testsrc2=s=192x112:r=50:d=2,format=yuv422p10,fade=in:d=1.6[c];\
    color=black:s=192x112:r=50:d=3,format=yuv422p10,noise=alls=5:allf=t:all_seed=5[d];\
    color=gray:s=192x112:r=50:d=2.5[e0];color=white:s=24x24:r=50:d=2.5[e1];[e0][e1]overlay=x='20+t*20':y=40,format=yuv422p10[e];\
    testsrc2=s=192x112:r=50:d=0.02,format=yuv422p10,loop=loop=174:size=1,setpts=N/50/TB[f];\
    color=black:s=192x112:r=50:d=3,format=yuv422p10,drawbox=x=8:y=8:w=24:h=24:c=white:t=fill[g];\
    testsrc2=s=192x112:r=50:d=2.5,format=yuv422p10,drawbox=w=iw:h=20:c=black:t=fill,drawbox=y=92:w=iw:h=20:c=black:t=fill[h];\
    testsrc2=s=192x112:r=50:d=3,format=yuv422p10,fade=out:d=0.5,fade=in:st=2:d=0.5[i];\
    [a][b][c][d][e][f][g][h][i]concat=n=9";

const PROGRESSIVE: &str = "fps=25";
const INTERLACED: &str = "tinterlace=mode=interleave_top,fieldorder=tff";
const CODINGS: [(&str, &str, &str); 7] = [
    ("h264", PROGRESSIVE, "-pix_fmt yuv420p -c:v libx264 -preset veryfast -x264-params keyint=25:bframes=2 -crf 20"),
    (
        "h264_full_range",
        "fps=25,scale=out_range=full",
        "-pix_fmt yuv420p -color_range pc -c:v libx264 -preset veryfast -x264-params keyint=25:bframes=2:fullrange=on -crf 20",
    ),
    ("h264_10_bit", PROGRESSIVE, "-pix_fmt yuv420p10le -c:v libx264 -preset veryfast -x264-params keyint=25 -crf 20"),
    (
        "h264_interlaced",
        INTERLACED,
        "-pix_fmt yuv420p -c:v libx264 -preset veryfast -flags +ildct+ilme -x264-params tff=1:keyint=25 -crf 20",
    ),
    ("hevc", PROGRESSIVE, "-pix_fmt yuv420p -c:v libx265 -preset superfast -x265-params keyint=25:log-level=0 -crf 22"),
    ("mpeg2", PROGRESSIVE, "-pix_fmt yuv420p -c:v mpeg2video -q:v 3 -g 12 -bf 2"),
    (
        "mpeg2_interlaced",
        INTERLACED,
        "-pix_fmt yuv422p -c:v mpeg2video -flags +ilme+ildct -top 1 -alternate_scan 1 -q:v 3 -g 12 -bf 2",
    ),
];
const FRAME_90K: u64 = 3_600;
const GROUP_90K: u64 = 90_000;
