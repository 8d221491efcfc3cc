//! Every codec of sound: silence and loudness against ffmpeg's filters.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{fs, io::Write};

use anabranch::media::SoundDecoder;
use anabranch::media::quality::{Loudness, Silence, Span};
use anabranch::media::sound::Sound;
use anabranch::proto::mpegts::demux::AccessUnit;
use syom::{EncodeContainer, EncodeOptions};

use crate::clips;
use crate::quality::{MILLISECOND_90K, agree, filtered, number_after, spans};

#[test]
fn every_codec_is_as_silent_and_as_loud_as_ffmpeg_says() {
    if !clips::installed() {
        return;
    }
    for (name, arguments) in CODECS {
        check(name, &made(name, arguments));
    }
    for (name, options, format) in [
        ("he_aac", EncodeOptions::adts().with_he(true).with_bitrate_bps(64_000), "aac"),
        ("he_aac_v2", EncodeOptions::adts().with_he_v2(true).with_bitrate_bps(32_000), "aac"),
        (
            "he_aac_latm",
            EncodeOptions::adts().with_container(EncodeContainer::Latm).with_he(true).with_bitrate_bps(64_000),
            "loas",
        ),
    ] {
        check(name, &made_by_syom(name, &options, format));
    }
}

fn check(name: &str, path: &Path) {
    let (_, units) = clips::units(path);
    assert!(units.len() > 20, "{name}: {} units", units.len());
    let heard = listen(&units);
    let log = filtered(path, &["-af", "silencedetect"]);
    let silent = spans(&log, "silence_start: ", "silence_end: ");
    assert_eq!(silent.len(), 2, "{name}: {log}");
    // Of AC-3 what fades out below -60 dB depends on the noise that each decoder makes up.
    let tolerance = if name.contains("ac3") { 4 * MILLISECOND_90K } else { MILLISECOND_90K };
    agree(name, &heard.silent, &silent, tolerance);
    let log = filtered(path, &["-af", "ebur128=peak=true"]);
    let summary = log.rsplit("Integrated loudness:").next().unwrap();
    let (momentary, short_term) = loudest(path);
    let mut worst = 0.0_f64;
    for (what, found, expected) in [
        ("integrated", heard.integrated, number_after(summary, "I:")),
        ("momentary", heard.momentary, momentary),
        ("short-term", heard.short_term, short_term),
        ("true peak", heard.true_peak, number_after(summary, "Peak:")),
    ] {
        worst = worst.max((found - expected).abs());
        // ffmpeg prints tenths.
        assert!((found - expected).abs() <= 0.15, "{name}: {what} is {found:.2}, ffmpeg says {expected}");
    }
    eprintln!("{name}: {:.2} LUFS, {:.2} dBTP, at most {worst:.2} off", heard.integrated, heard.true_peak);
}

#[derive(Debug)]
struct Heard {
    silent: Vec<Span>,
    integrated: f64,
    momentary: f64,
    short_term: f64,
    true_peak: f64,
}

fn listen(units: &[AccessUnit]) -> Heard {
    let sound: Vec<_> = units.iter().filter(|unit| !unit.codec.is_video()).collect();
    let mut decoder = SoundDecoder::new(sound[0].codec).unwrap();
    let (mut silence, mut loudness, mut silent) = (Silence::default(), Loudness::default(), Vec::new());
    let (mut momentary, mut short_term, mut seen) = (f64::MIN, f64::MIN, 0);
    for unit in sound {
        let mut pts = unit.pts.unwrap();
        let outcome = decoder.decode(unit, |sound| {
            silent.extend(silence.push(&sound, pts));
            let count = sound.channels[0].len();
            // Tenths of a second, at which ffmpeg looks.
            let mut from = 0;
            while from < count {
                let to = count.min(from + 4_800 - seen % 4_800);
                let piece: Vec<&[f32]> = sound.channels.iter().map(|channel| &channel[from..to]).collect();
                loudness.push(&Sound { channels: &piece, ..sound });
                (seen, from) = (seen + to - from, to);
                if seen % 4_800 == 0 {
                    momentary = momentary.max(loudness.momentary().unwrap_or(f64::MIN));
                    short_term = short_term.max(loudness.short_term().unwrap_or(f64::MIN));
                }
            }
            pts.0 += count as u64 * 90_000 / u64::from(sound.rate);
        });
        outcome.unwrap();
    }
    let (integrated, true_peak) = (loudness.integrated().unwrap(), loudness.true_peak().unwrap());
    Heard { silent, integrated, momentary, short_term, true_peak }
}

/// Highest momentary and short-term loudness.
fn loudest(path: &Path) -> (f64, f64) {
    let output = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-i"])
        .arg(path)
        .args(["-af", "ebur128=metadata=1,ametadata=mode=print:file=-", "-f", "null", "-"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let highest = |key: &str| {
        let values = text.lines().filter_map(|line| line.strip_prefix(key)?.parse::<f64>().ok());
        values.fold(f64::MIN, f64::max)
    };
    (highest("lavfi.r128.M="), highest("lavfi.r128.S="))
}

fn made(name: &str, arguments: &str) -> PathBuf {
    written(name, |path| {
        let mut command = Command::new("ffmpeg");
        command.args(["-v", "error", "-nostdin", "-y", "-f", "lavfi", "-i", PROGRAMME]);
        command.args(arguments.split_whitespace()).args(["-strict", "-2", "-f", "mpegts"]).arg(path);
        assert!(command.status().unwrap().success(), "{command:?}");
    })
}

/// ffmpeg as Debian has it does not encode HE-AAC.
fn made_by_syom(name: &str, options: &EncodeOptions, format: &str) -> PathBuf {
    written(name, |path| {
        let raw = Command::new("ffmpeg")
            .args(["-v", "error", "-nostdin", "-f", "lavfi", "-i", PROGRAMME, "-ac", "2", "-f", "f32le", "-"])
            .output()
            .unwrap();
        let samples: Vec<f32> = raw.stdout.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let channel = |index| samples.iter().skip(index).step_by(2).copied().collect::<Vec<f32>>();
        let coded = syom::encode_with(&[channel(0), channel(1)], 48_000, options).unwrap();
        let mut child = Command::new("ffmpeg")
            .args(["-v", "error", "-y", "-f", format, "-i", "-", "-c", "copy", "-f", "mpegts"])
            .arg(path)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&coded).unwrap();
        assert!(child.wait().unwrap().success());
    })
}

fn written(name: &str, write: impl FnOnce(&Path)) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clips");
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join(format!("sound_{name}.ts"));
    if !path.exists() {
        let unfinished = path.with_extension("part");
        write(&unfinished);
        fs::rename(&unfinished, &path).unwrap();
    }
    path
}

/// Two tones and noise that change in level, two silences that are long enough, one too short, one that is only quiet.
const PROGRAMME: &str = "aevalsrc=\
    '(0.2*sin(600*PI*t)*(0.2+mod(floor(t),3)/2)+0.1*sin(5000*PI*t)*gt(mod(t,0.5),0.2)+0.04*(random(0)-0.5))\
    *not(between(t,3,5.5))*not(between(t,7,8.2))*not(between(t,11,13.3))*if(between(t,9,10.5),0.005,1)|\
    (0.25*sin(440*PI*t)*(0.3+mod(floor(t*2),2)/2)+0.04*(random(1)-0.5))\
    *not(between(t,3,5.6))*not(between(t,7,8.4))*not(between(t,11,13.3))*if(between(t,9,10.5),0.005,1)'\
    :s=48000:d=15:c=stereo";

const CODECS: [(&str, &str); 15] = [
    ("aac", "-c:a aac -b:a 192k"),
    ("aac_latm", "-c:a aac -b:a 160k -mpegts_flags latm"),
    ("aac_51", "-c:a aac -ac 6 -b:a 384k"),
    // Each channel is another one, so that it shows which counts as what: low frequencies most, then those behind.
    ("aac_quad", "-af pan=4.0|FL=0.5*c0|FR=0.3*c1|FC=0.2*c0|BC=0.9*c1 -c:a aac -b:a 384k"),
    ("aac_50", "-af pan=5.0|FL=0.5*c0|FR=0.3*c1|FC=0.2*c0|BL=0.9*c1|BR=0.7*c0 -c:a aac -b:a 448k"),
    ("aac_51_all", "-af pan=5.1|FL=0.5*c0|FR=0.3*c1|FC=0.2*c0|LFE=c0|BL=0.9*c1|BR=0.7*c0 -c:a aac -b:a 448k"),
    (
        "aac_71",
        "-af pan=7.1|FL=0.5*c0|FR=0.3*c1|FC=0.2*c0|LFE=c0|BL=0.9*c1|BR=0.2*c0|SL=0.2*c1|SR=0.9*c0 -c:a aac -b:a 640k",
    ),
    ("mp2", "-c:a mp2 -b:a 192k"),
    ("mp3", "-c:a libmp3lame -b:a 160k"),
    ("ac3", "-c:a ac3 -b:a 256k"),
    ("ac3_51", "-af pan=5.1|c0=c0|c1=c1|c2=0.5*c0+0.3*c1|c3=0.2*c0|c4=0.7*c1|c5=0.6*c0 -c:a ac3 -b:a 448k"),
    ("eac3", "-c:a eac3 -b:a 256k"),
    ("eac3_51", "-af pan=5.1|c0=c0|c1=c1|c2=0.5*c0+0.3*c1|c3=0.2*c0|c4=0.7*c1|c5=0.6*c0 -c:a eac3 -b:a 448k"),
    ("s302m", "-c:a s302m -sample_fmt s16"),
    ("s302m_24", "-af pan=quad|c0=c0|c1=c1|c2=0.5*c1|c3=0.5*c0 -c:a s302m -sample_fmt s32"),
];
