//! The clips: short, small, one for each way of coding, made once per build folder.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::{env, fs};

use anabranch::proto::mpegts::demux::{AccessUnit, Demux};
use anabranch::units::Time;

/// One way of coding.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recipe {
    pub(crate) name: &'static str,
    /// Filter of the picture; the source has 50 frames a second.
    filter: &'static str,
    /// Filter of the sound, a sine of 1 kHz; empty for none.
    sound: &'static str,
    /// Arguments of the encoders.
    arguments: &'static str,
    size: &'static str,
    seconds: &'static str,
}

/// The clip's file; `None` if it cannot be made.
pub(crate) fn made(recipe: &Recipe) -> Option<PathBuf> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clips");
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join(format!("{}.ts", recipe.name));
    if path.exists() {
        return Some(path);
    }
    if !installed() {
        return None;
    }
    let unfinished = folder.join(format!("{}.part", recipe.name));
    let mut command = Command::new("ffmpeg");
    command.args(["-hide_banner", "-loglevel", "error", "-nostdin", "-y"]);
    let source = format!("testsrc2=s={}:r=50,", recipe.size);
    let noisy = "noise=alls=12:allf=t:all_seed=7,format=yuv422p10le";
    command.args(["-f", "lavfi", "-i", &(source + noisy)]);
    command.args(["-f", "lavfi", "-i", "sine=1000:r=48000", "-t", recipe.seconds, "-map", "0:v", "-map", "1:a"]);
    // Not in the input, which forgets the order of fields.
    command.args(["-vf", recipe.filter]);
    if !recipe.sound.is_empty() {
        command.args(["-af", recipe.sound]);
    }
    command.args(recipe.arguments.split_whitespace());
    command.args(["-metadata:s:a", "language=deu", "-threads", "1", "-f", "mpegts"]).arg(&unfinished);
    let status = command.status().unwrap();
    assert!(status.success(), "{}: {command:?}", recipe.name);
    fs::rename(&unfinished, &path).unwrap();
    Some(path)
}

/// All clips of `recipes` that can be made, and those of the folder in `ANABRANCH_CLIPS`.
pub(crate) fn all(recipes: &[Recipe]) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = recipes.iter().filter_map(made).collect();
    if let Some(folder) = env::var_os("ANABRANCH_CLIPS") {
        let others = fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
        paths.extend(others.filter(|path| path.extension().is_some_and(|extension| extension == "ts")));
    }
    paths
}

/// The units of a file and the demultiplexer that gave them.
pub(crate) fn units(path: &Path) -> (Demux, Vec<AccessUnit>) {
    let mut demux = Demux::new();
    let mut units = Vec::new();
    for packets in fs::read(path).unwrap().chunks(188 * 7) {
        demux.push(Time::ZERO, packets);
        units.extend(std::iter::from_fn(|| demux.poll_unit()));
    }
    demux.finish();
    units.extend(std::iter::from_fn(|| demux.poll_unit()));
    (demux, units)
}

pub(crate) fn installed() -> bool {
    let there = Command::new("ffmpeg").arg("-version").output().is_ok_and(|output| output.status.success());
    if !there {
        assert!(env::var_os("ANABRANCH_REQUIRE_PEERS").is_none(), "ffmpeg is not installed");
        eprintln!("SKIPPED: ffmpeg is not installed");
    }
    there
}

const fn recipe(name: &'static str, filter: &'static str, arguments: &'static str) -> Recipe {
    Recipe { name, filter, sound: "", arguments, size: "640x352", seconds: "1.2" }
}

/// 60 packets of 1,024 samples: a shorter last one has another bit rate.
const fn whole_packets(name: &'static str, arguments: &'static str) -> Recipe {
    Recipe { seconds: "1.28", ..recipe(name, "scale=64:64,fps=25", arguments) }
}

pub(crate) const H264_MBAFF: Recipe = recipe(
    "h264_mbaff",
    "tinterlace=mode=interleave_top,fieldorder=tff,format=yuv420p",
    "-c:v libx264 -preset fast -profile:v high -flags +ildct+ilme -x264-params tff=1:keyint=12:bframes=2 -c:a aac",
);

/// Every way of coding pictures that is decoded, beside [`H264_MBAFF`].
pub(crate) const VIDEO: [Recipe; 16] = [
    H264_MBAFF,
    recipe(
        "h264_baseline",
        "fps=25",
        "-pix_fmt yuv420p -c:v libx264 -preset veryfast -profile:v baseline -g 12 -c:a aac",
    ),
    recipe(
        "h264_main",
        "fps=25",
        "-pix_fmt yuv420p -c:v libx264 -preset veryfast -profile:v main -g 12 -bf 2 -c:a aac",
    ),
    recipe(
        "h264_high_slices",
        "fps=30000/1001,crop=628:346,setsar=16/11,setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709",
        "-pix_fmt yuv420p -c:v libx264 -preset veryfast -profile:v high -x264-params slices=4:keyint=12:bframes=2 -c:a aac",
    ),
    recipe(
        "h264_fake_interlaced",
        "fps=25",
        "-pix_fmt yuv420p -c:v libx264 -preset veryfast -profile:v main -x264-params fake-interlaced=1:keyint=12 -c:a aac",
    ),
    recipe(
        "h264_open_gop",
        "fps=25",
        "-pix_fmt yuv420p -c:v libx264 -preset veryfast -x264-params open-gop=1:keyint=10:min-keyint=10:scenecut=0:bframes=2 -c:a aac",
    ),
    recipe(
        "h264_intra_refresh",
        "fps=25",
        "-pix_fmt yuv420p -c:v libx264 -preset veryfast -x264-params intra-refresh=1:keyint=10 -c:a aac",
    ),
    recipe(
        "h264_hi10",
        "fps=25",
        "-pix_fmt yuv420p10le -c:v libx264 -preset veryfast -profile:v high10 -g 12 -c:a aac",
    ),
    recipe(
        "h264_hi422",
        "fps=25",
        "-pix_fmt yuv422p10le -c:v libx264 -preset veryfast -profile:v high422 -g 12 -c:a aac",
    ),
    recipe(
        "h264_hi422_intra_interlaced",
        "tinterlace=mode=interleave_top,fieldorder=tff,format=yuv422p10le",
        "-c:v libx264 -preset veryfast -profile:v high422 -flags +ildct+ilme -x264-params tff=1:keyint=1 -c:a aac",
    ),
    recipe(
        "hevc_main",
        "fps=25",
        "-pix_fmt yuv420p -c:v libx265 -preset superfast -x265-params keyint=12:log-level=0 -c:a aac",
    ),
    recipe(
        "hevc_main10_full",
        "fps=50,crop=634:350,setparams=range=full",
        "-pix_fmt yuv420p10le -c:v libx265 -preset superfast -x265-params keyint=12:log-level=0:range=full -c:a aac",
    ),
    recipe(
        "mpeg2_interlaced",
        "tinterlace=mode=interleave_top,fieldorder=tff,scale=720:576:interl=1,setsar=64/45,format=yuv420p",
        "-c:v mpeg2video -flags +ilme+ildct -alternate_scan 1 -top 1 -b:v 8M -maxrate 8M -bufsize 2M -g 12 -bf 2 -c:a mp2",
    ),
    recipe(
        "mpeg2_422",
        "tinterlace=mode=interleave_bottom,fieldorder=bff,format=yuv422p",
        "-c:v mpeg2video -flags +ilme+ildct -top 0 -intra_vlc 1 -non_linear_quant 1 -qmax 28 -dc 10 -b:v 20M -maxrate 20M -bufsize 4M -g 12 -bf 2 -c:a mp2",
    ),
    recipe("mpeg2_progressive", "fps=25,setsar=1", "-pix_fmt yuv420p -c:v mpeg2video -q:v 3 -g 12 -bf 2 -c:a mp2"),
    recipe("mpeg1", "fps=25,setsar=1", "-pix_fmt yuv420p -c:v mpeg1video -q:v 3 -g 12 -bf 2 -c:a mp2"),
];

/// A stream that has one key frame, the first, and then is refreshed column by column.
pub(crate) const REFRESHED: Recipe = Recipe {
    seconds: "2.4",
    ..recipe(
        "h264_refreshed",
        "fps=25",
        "-pix_fmt yuv420p -c:v libx264 -preset veryfast -x264-params intra-refresh=1:keyint=10:bframes=1:b-pyramid=0 -c:a aac",
    )
};

/// Every way of coding sound that is read.
pub(crate) const AUDIO: [Recipe; 10] = [
    recipe("aac_latm", "scale=64:64,fps=25", "-c:v mpeg2video -c:a aac -ac 1 -ar 44100 -mpegts_flags latm"),
    recipe("aac_51", "scale=64:64,fps=25", "-c:v mpeg2video -c:a aac -ac 6"),
    recipe("mp2", "scale=64:64,fps=25", "-c:v mpeg2video -c:a mp2 -ac 2 -b:a 192k"),
    recipe("mp2_half_rate", "scale=64:64,fps=25", "-c:v mpeg2video -c:a mp2 -ac 1 -ar 24000 -b:a 64k"),
    recipe("mp3", "scale=64:64,fps=25", "-c:v mpeg2video -c:a libmp3lame -ac 2 -b:a 128k"),
    recipe("ac3", "scale=64:64,fps=25", "-c:v mpeg2video -c:a ac3 -ac 2 -b:a 192k"),
    recipe("ac3_51", "scale=64:64,fps=25", "-c:v mpeg2video -c:a ac3 -ac 6 -b:a 448k"),
    recipe("eac3_51", "scale=64:64,fps=25", "-c:v mpeg2video -c:a eac3 -ac 6 -b:a 384k"),
    whole_packets("s302m", "-c:v mpeg2video -c:a s302m -strict -2 -ac 2 -sample_fmt s16"),
    whole_packets("s302m_24", "-c:v mpeg2video -c:a s302m -strict -2 -ac 6 -sample_fmt s32"),
];

/// A programme with everything that the detectors look for, and what looks like it: black with and without a logo, a
/// slow fade, letterbox, a still picture, silence too short and long enough.
pub(crate) const PROGRAMME: [Recipe; 2] = [
    Recipe {
        name: "programme_aac",
        filter: CONTENT,
        sound: SILENCES,
        arguments: "-pix_fmt yuv420p -c:v libx264 -preset veryfast -x264-params keyint=25:bframes=2 -b:v 2M -c:a aac -ac 2",
        size: "320x176",
        seconds: "26",
    },
    Recipe {
        name: "programme_mp2",
        filter: CONTENT,
        sound: SILENCES,
        arguments: "-pix_fmt yuv420p10le -c:v libx265 -preset superfast -x265-params keyint=25:log-level=0 -b:v 2M -c:a mp2 -ac 2",
        size: "320x176",
        seconds: "26",
    },
];

const CONTENT: &str = "fps=25,\
    drawbox=t=fill:c=black:enable='between(t,3,5.99)',\
    drawbox=t=fill:w=iw:h=24:c=black:enable='between(t,6,8)',\
    loop=loop=74:size=1:start=225,setpts=N/25/TB,\
    drawbox=t=fill:c=black:enable='between(t,14,15.5)',\
    drawbox=t=fill:c=black:enable='between(t,17,20)',drawbox=t=fill:x=4:y=4:w=20:h=40:c=white:enable='between(t,17,18)',\
    fade=t=out:st=21:d=1.5:enable='gte(t,21)'";
const SILENCES: &str = "volume=0:enable='between(t,2,5)',volume=0:enable='between(t,7,8.5)',volume=-55dB:enable='between(t,9,12)',volume=0:enable='between(t,15,18.3)'";
