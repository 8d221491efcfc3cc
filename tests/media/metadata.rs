//! Programs, streams and what their headers say: equal to ffprobe, field by field.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anabranch::media::Headers;
use anabranch::media::headers::{AudioFormat, Chroma, VideoFormat};
use serde_json::Value;

use crate::clips::{self, AUDIO, VIDEO};

#[test]
fn headers_say_what_ffprobe_prints() {
    let mut paths = clips::all(&VIDEO);
    paths.extend(AUDIO.iter().filter_map(clips::made));
    let mut wrong = Vec::new();
    for path in &paths {
        wrong.extend(compare(path).into_iter().map(|what| format!("{}: {what}", path.display())));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn compare(path: &Path) -> Vec<String> {
    let expected = probe(path);
    let (demux, units) = clips::units(path);
    let mut headers: BTreeMap<_, _> =
        demux.streams().filter_map(|stream| Some((stream.entry.pid, Headers::new(stream.codec?)))).collect();
    for unit in &units {
        headers.get_mut(&unit.pid).unwrap().read(unit);
    }
    let mut wrong = Vec::new();
    let programs = demux.programs().list();
    let pcr_pid = programs[0].pmt.as_ref().unwrap().pcr_pid;
    let program = &expected["programs"][0];
    check(&mut wrong, "program", &program["program_num"], programs[0].number.to_string());
    check(&mut wrong, "pmt_pid", &program["pmt_pid"], programs[0].pmt_pid.value().to_string());
    check(&mut wrong, "pcr_pid", &program["pcr_pid"], pcr_pid.unwrap().value().to_string());
    let service = programs[0].service.as_ref().map_or("", |service| &service.name);
    check(&mut wrong, "service_name", &program["tags"]["service_name"], service.into());
    let streams: Vec<_> = demux.streams().collect();
    assert_eq!(expected["streams"].as_array().unwrap().len(), streams.len());
    for (expected, stream) in expected["streams"].as_array().unwrap().iter().zip(streams) {
        check(&mut wrong, "pid", &expected["id"], format!("{:#x}", stream.entry.pid.value()));
        if let Some(language) = stream.entry.language {
            check(&mut wrong, "language", &expected["tags"]["language"], String::from_utf8_lossy(&language).into());
        }
        let headers = &headers[&stream.entry.pid];
        if headers.malformed() > 0 {
            wrong.push(format!("{} headers malformed", headers.malformed()));
        }
        match (headers.video(), headers.audio()) {
            (Some(video), None) => check_video(&mut wrong, expected, video),
            (None, Some(audio)) => check_audio(&mut wrong, expected, audio),
            _ => wrong.push("not read".into()),
        }
    }
    wrong
}

fn check_video(wrong: &mut Vec<String>, expected: &Value, video: &VideoFormat) {
    check(wrong, "codec", &expected["codec_name"], video.codec.to_string());
    check(wrong, "profile", &expected["profile"], video.profile.unwrap_or("absent").into());
    check(wrong, "level", &expected["level"], video.level.map_or_else(|| "-99".into(), |level| level.to_string()));
    check(wrong, "width", &expected["width"], video.width.to_string());
    check(wrong, "height", &expected["height"], video.height.to_string());
    let chroma = match video.chroma {
        Chroma::Luma400 => "gray",
        Chroma::Yuv420 => "yuv420p",
        Chroma::Yuv422 => "yuv422p",
        Chroma::Yuv444 => "yuv444p",
    };
    let deep = if video.depth > 8 { format!("{}le", video.depth) } else { String::new() };
    // ffprobe's name of 8-bit full range.
    let pixels = expected["pix_fmt"].as_str().unwrap().replace("yuvj", "yuv");
    check(wrong, "pix_fmt", &pixels.into(), format!("{chroma}{deep}"));
    if expected["sample_aspect_ratio"].is_string() || video.sample_aspect.is_some() {
        let aspect = video.sample_aspect.map_or_else(|| "absent".into(), |(width, height)| format!("{width}:{height}"));
        check(wrong, "sample_aspect_ratio", &expected["sample_aspect_ratio"], aspect);
    }
    if let Some((frames, seconds)) = video.frame_rate {
        check(wrong, "r_frame_rate", &expected["r_frame_rate"], format!("{frames}/{seconds}"));
    } else {
        wrong.push("no frame rate".into());
    }
    // ffprobe reads no field order of HEVC.
    if !expected["field_order"].is_null() {
        let order = video.field_order.map_or_else(|| "absent".into(), |order| order.to_string());
        check(wrong, "field_order", &expected["field_order"], order);
    }
    let range = if video.colour.full_range { "pc" } else { "tv" };
    if expected["color_range"].is_string() {
        check(wrong, "color_range", &expected["color_range"], range.into());
    }
    let named = |code| if code == 1 { "bt709".to_string() } else { format!("code {code}") };
    for (field, code) in [
        ("color_space", video.colour.matrix),
        ("color_primaries", video.colour.primaries),
        ("color_transfer", video.colour.transfer),
    ] {
        if expected[field].is_string() || code != 2 {
            check(wrong, field, &expected[field], named(code));
        }
    }
}

fn check_audio(wrong: &mut Vec<String>, expected: &Value, audio: &AudioFormat) {
    // Beside video of a high rate ffprobe gives up before it looked at the sound.
    if expected["sample_rate"] == "0" {
        return;
    }
    check(wrong, "codec", &expected["codec_name"], audio.codec_name());
    check(wrong, "sample_rate", &expected["sample_rate"], audio.sample_rate.to_string());
    check(wrong, "channels", &expected["channels"], audio.channels.unwrap_or(0).to_string());
    if let Some(profile) = audio.profile {
        check(wrong, "profile", &expected["profile"], profile.into());
    }
    if let Some(rate) = audio.bit_rate {
        check(wrong, "bit_rate", &expected["bit_rate"], rate.to_string());
    }
}

fn check(wrong: &mut Vec<String>, field: &str, expected: &Value, found: String) {
    let absent = expected.is_null().then(|| "absent".to_string());
    let expected =
        absent.unwrap_or_else(|| expected.as_str().map_or_else(|| expected.to_string(), |text| text.to_string()));
    if expected != found {
        wrong.push(format!("{field} is {found}, ffprobe says {expected}"));
    }
}

fn probe(path: &Path) -> Value {
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-show_streams", "-show_programs", "-of", "json"])
        .arg(path)
        .output()
        .unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}
