//! What is seen and heard of a running flow, as JSON: thumbnail, metadata, content quality.

use std::time::SystemTime;

use serde::Serialize;
use utoipa::ToSchema;

use super::figures::rfc3339;
use crate::adapters::clock;
use crate::media::headers::{AudioFormat, Chroma, VideoFormat};
use crate::media::watch::{self, Content, Levels, Picture, Reason, Report};
use crate::proto::mpegts::{Media, Pid};
use crate::units::{Bitrate, Time};

/// A small picture of what outputs get.
#[derive(Debug, Serialize, ToSchema)]
pub struct Thumbnail {
    /// Whose.
    pub flow_id: String,
    /// JPEG, in base64.
    pub data: String,
    /// When the picture came; RFC 3339, UTC.
    pub timestamp: String,
    /// In pixels, which are square.
    pub width: u16,
    /// In pixels.
    pub height: u16,
}

/// What the transport stream carries.
#[derive(Debug, Serialize, ToSchema)]
pub struct Metadata {
    /// Whose.
    pub flow_id: String,
    /// In the order of the PAT; empty until their PMT came.
    pub programs: Vec<ProgramMetadata>,
    /// In the order of programs, and in theirs.
    pub streams: Vec<StreamMetadata>,
    /// How old this is, in milliseconds; null until there is anything.
    pub age_ms: Option<u64>,
}

/// One program.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProgramMetadata {
    /// `program_number`.
    pub program_id: u16,
    /// What viewers know it by.
    pub program_name: Option<String>,
    /// Who provides it.
    pub provider: Option<String>,
    /// Where its PMT is found.
    pub pmt_pid: u16,
    /// Where its clock is found.
    pub pcr_pid: Option<u16>,
}

/// One elementary stream, in ffprobe's words.
#[derive(Debug, Serialize, ToSchema)]
pub struct StreamMetadata {
    /// Its place in the list.
    pub index: usize,
    /// `video`, `audio`, `subtitle` or `data`.
    pub stream_type: &'static str,
    /// As ffprobe names it.
    pub codec: Option<String>,
    /// As ffprobe names it.
    pub profile: Option<String>,
    /// As coded: H.264's is ten times its number, HEVC's thirty times.
    pub level: Option<u8>,
    /// In pixels.
    pub width: Option<u32>,
    /// In pixels.
    pub height: Option<u32>,
    /// Layout of samples, as ffprobe names it: `yuv420p`.
    pub pixel_format: Option<String>,
    /// Width and height of a pixel: `16:11`.
    pub sample_aspect_ratio: Option<String>,
    /// Frames a second as a fraction: `25/1`.
    pub frame_rate: Option<String>,
    /// `progressive`, `tt` or `bb`.
    pub field_order: Option<String>,
    /// How colours are meant.
    pub colour: Option<Colour>,
    /// Of each channel, in hertz.
    pub sample_rate: Option<u32>,
    /// Channels of sound.
    pub channels: Option<u8>,
    /// Of what is coded, in bits per second, over the last second.
    pub bit_rate: Option<u64>,
    /// Where it is found.
    pub pid: u16,
    /// The program's number.
    pub program_id: u16,
    /// `stream_type` of the PMT.
    pub pmt_stream_type: u8,
    /// ISO 639 code.
    pub language: Option<String>,
    /// It is encrypted.
    pub scrambled: bool,
    /// `ok`, or why less is known than could be: a word for programs.
    pub state: &'static str,
    /// The same for people.
    pub detail: Option<String>,
}

/// How colours are meant: code points of ISO/IEC 23091-2, 2 for what is not said.
#[derive(Debug, Serialize, ToSchema)]
pub struct Colour {
    /// Samples use their whole range.
    pub full_range: bool,
    /// `colour_primaries`.
    pub primaries: u8,
    /// `transfer_characteristics`.
    pub transfer: u8,
    /// `matrix_coefficients`.
    pub matrix: u8,
}

/// Whether the picture is black or stands still, and the sound is silent. What is not known is null, never false.
#[derive(Debug, Serialize, ToSchema)]
pub struct ContentQuality {
    /// The picture has been black for two seconds.
    pub black_frame_detected: Option<bool>,
    /// Nothing has moved for two seconds.
    pub frozen_frame_detected: Option<bool>,
    /// There has been no sound for two seconds.
    pub silent_audio_detected: Option<bool>,
    /// Pictures came within the last two seconds.
    pub video_stream_present: Option<bool>,
    /// Sound came within the last two seconds.
    pub audio_stream_present: Option<bool>,
    /// When anything was last looked at or listened to; RFC 3339, UTC.
    pub last_check_time: Option<String>,
    /// Since when.
    pub since: Since,
    /// Loudness after EBU R 128, if there is any to measure.
    pub loudness: Option<Loudness>,
    /// Why something is not known.
    pub analysis: Analysis,
    /// How old this is, in milliseconds: 2000 at most, unless there is no computing time, and of what is older than 5000
    /// nothing is known any more; null until there is anything.
    pub age_ms: Option<u64>,
}

/// Since when something has been wrong; RFC 3339, UTC.
#[derive(Debug, Serialize, ToSchema)]
pub struct Since {
    /// The picture has been black.
    pub black_frame: Option<String>,
    /// The picture has stood still.
    pub frozen_frame: Option<String>,
    /// The sound has been silent.
    pub silent_audio: Option<String>,
}

/// Loudness after EBU R 128; null where nothing was loud enough.
#[derive(Debug, Serialize, ToSchema)]
pub struct Loudness {
    /// Over 400 ms, in LUFS.
    pub momentary_lufs: Option<f32>,
    /// Over 3 s, in LUFS.
    pub short_term_lufs: Option<f32>,
    /// Since the beginning, gated, in LUFS.
    pub integrated_lufs: Option<f32>,
    /// Since the beginning, in dBTP.
    pub true_peak_dbtp: Option<f32>,
}

/// How well pictures and sound are known.
#[derive(Debug, Serialize, ToSchema)]
pub struct Analysis {
    /// Of pictures.
    pub video: AnalysisState,
    /// Of sound.
    pub audio: AnalysisState,
    /// How often a key frame is looked at, in seconds: as far apart as the last two were by the stream's clock.
    pub sampled_every_sec: Option<f64>,
}

/// Whether something is known, or why not.
#[derive(Debug, Serialize, ToSchema)]
pub struct AnalysisState {
    /// `ok`, `off`, `no_stream`, `missing`, `waiting_keyframe`, `listening`, `scrambled`, `unsupported`, `damaged`, `budget`,
    /// `restarting` or `no_decoder`.
    pub state: &'static str,
    /// The same for people.
    pub detail: Option<String>,
}

impl Thumbnail {
    /// `picture` is of flow `id`.
    #[must_use]
    pub fn new(id: &str, picture: &Picture) -> Self {
        Self {
            flow_id: id.into(),
            data: base64(&picture.jpeg),
            timestamp: rfc3339(wall_at(picture.taken)),
            width: picture.width,
            height: picture.height,
        }
    }
}

impl Metadata {
    /// Of flow `id`; empty without a report.
    #[must_use]
    pub fn new(id: &str, report: Option<&Report>) -> Self {
        let metadata = report.map(|report| &*report.metadata);
        let programs = metadata.map_or(&[][..], |metadata| &metadata.programs);
        let streams = metadata.map_or(&[][..], |metadata| &metadata.streams);
        Self {
            flow_id: id.into(),
            programs: programs.iter().map(ProgramMetadata::from).collect(),
            streams: streams.iter().map(StreamMetadata::from).collect(),
            age_ms: report.map(age_ms),
        }
    }
}

impl From<&watch::ProgramMetadata> for ProgramMetadata {
    fn from(program: &watch::ProgramMetadata) -> Self {
        Self {
            program_id: program.number,
            program_name: program.name.clone(),
            provider: program.provider.clone(),
            pmt_pid: program.pmt_pid.value(),
            pcr_pid: program.pcr_pid.map(Pid::value),
        }
    }
}

impl From<&watch::StreamMetadata> for StreamMetadata {
    fn from(stream: &watch::StreamMetadata) -> Self {
        let (video, audio) = (stream.video.as_ref(), stream.audio.as_ref());
        let profile = video.and_then(|video| video.profile).or_else(|| audio.and_then(|audio| audio.profile));
        Self {
            index: stream.index,
            stream_type: match stream.media {
                Media::Video => "video",
                Media::Audio => "audio",
                Media::Subtitle => "subtitle",
                Media::Cue | Media::Sections | Media::Other => "data",
            },
            codec: stream.codec.as_ref().map(ToString::to_string),
            profile: profile.map(Into::into),
            level: video.and_then(|video| video.level),
            width: video.map(|video| video.width),
            height: video.map(|video| video.height),
            pixel_format: video.map(pixel_format),
            sample_aspect_ratio: video.and_then(|video| video.sample_aspect).map(|(x, y)| format!("{x}:{y}")),
            frame_rate: stream.frame_rate.map(|(number, of)| format!("{number}/{of}")),
            field_order: video.and_then(|video| video.field_order).map(|order| order.to_string()),
            colour: video.map(|video| Colour {
                full_range: video.colour.full_range,
                primaries: video.colour.primaries,
                transfer: video.colour.transfer,
                matrix: video.colour.matrix,
            }),
            sample_rate: audio.map(|audio| audio.sample_rate),
            channels: audio.and_then(|audio: &AudioFormat| audio.channels),
            bit_rate: stream.bit_rate.map(Bitrate::as_bps),
            pid: stream.pid.value(),
            program_id: stream.program,
            pmt_stream_type: stream.stream_type,
            language: stream.language.map(|code| String::from_utf8_lossy(&code).into_owned()),
            scrambled: stream.scrambled,
            state: state(stream.reason.as_ref()),
            detail: stream.reason.as_ref().map(ToString::to_string),
        }
    }
}

impl ContentQuality {
    /// Of the last report; before there is one nothing is known.
    #[must_use]
    pub fn new(report: Option<&Report>) -> Self {
        let content = report.map_or_else(|| Content::unknown(Reason::Listening), |report| report.content.clone());
        Self { age_ms: report.map(age_ms), ..Self::of(&content) }
    }

    fn of(content: &Content) -> Self {
        let time = |time: Option<Time>| time.map(|time| rfc3339(wall_at(time)));
        Self {
            black_frame_detected: content.black,
            frozen_frame_detected: content.frozen,
            silent_audio_detected: content.silent,
            video_stream_present: content.video_present,
            audio_stream_present: content.audio_present,
            last_check_time: time(content.last_check),
            since: Since {
                black_frame: time(content.black_since),
                frozen_frame: time(content.frozen_since),
                silent_audio: time(content.silent_since),
            },
            loudness: content.loudness.as_ref().map(Loudness::from),
            analysis: Analysis {
                video: content.video.as_ref().into(),
                audio: content.audio.as_ref().into(),
                sampled_every_sec: content.sampled_every.map(|every| every.as_secs_f64()),
            },
            age_ms: None,
        }
    }
}

impl From<&Levels> for Loudness {
    fn from(levels: &Levels) -> Self {
        // What is not finite is no JSON.
        let finite = |level: Option<f32>| level.filter(|level| level.is_finite());
        Self {
            momentary_lufs: finite(levels.momentary_lufs),
            short_term_lufs: finite(levels.short_term_lufs),
            integrated_lufs: finite(levels.integrated_lufs),
            true_peak_dbtp: finite(levels.true_peak_dbtp),
        }
    }
}

impl From<Option<&Reason>> for AnalysisState {
    fn from(reason: Option<&Reason>) -> Self {
        Self { state: state(reason), detail: reason.map(ToString::to_string) }
    }
}

fn state(reason: Option<&Reason>) -> &'static str {
    reason.map_or("ok", Reason::code)
}

/// As ffprobe names it.
fn pixel_format(video: &VideoFormat) -> String {
    let layout = match video.chroma {
        Chroma::Luma400 => "gray",
        Chroma::Yuv420 => "yuv420p",
        Chroma::Yuv422 => "yuv422p",
        Chroma::Yuv444 => "yuv444p",
    };
    let range = if video.colour.full_range && video.depth == 8 && video.chroma != Chroma::Luma400 { "j" } else { "" };
    let layout = if range.is_empty() { layout.to_string() } else { layout.replacen("yuv", "yuvj", 1) };
    if video.depth == 8 { layout } else { format!("{layout}{}le", video.depth) }
}

fn age_ms(report: &Report) -> u64 {
    u64::try_from(clock::now().since(report.at).as_millis()).unwrap_or(u64::MAX)
}

/// The wall-clock moment of a monotonic one, by the clocks of now.
#[must_use]
pub fn wall_at(time: Time) -> SystemTime {
    let now = clock::wall();
    now.checked_sub(clock::now().since(time)).unwrap_or(now)
}

/// RFC 4648 section 4.
fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for digit in 0..4 {
            let value = (bits >> (18 - 6 * digit) & 63) as u8;
            text.push(if digit > group.len() {
                '='
            } else {
                char::from(match value {
                    0..26 => b'A' + value,
                    26..52 => b'a' + (value - 26),
                    52..62 => b'0' + (value - 52),
                    62 => b'+',
                    _ => b'/',
                })
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn base64_is_that_of_the_standard() {
        let examples = ["", "f", "fo", "foo", "foob", "fooba", "foobar"].map(|text| base64(text.as_bytes()));
        assert_eq!(examples, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"]);
        assert_eq!(base64(&[0xfb, 0xff, 0xfe]), "+//+");
    }

    #[test]
    fn what_is_not_known_is_null_with_a_reason() {
        let content = Content {
            video: Some(Reason::Unsupported("av1".into())),
            audio: None,
            silent: Some(false),
            loudness: Some(Levels { true_peak_dbtp: Some(f32::NEG_INFINITY), ..Levels::default() }),
            ..Content::default()
        };
        let nothing = serde_json::to_value(ContentQuality::new(None)).unwrap();
        assert_eq!((&nothing["analysis"]["video"]["state"], &nothing["age_ms"]), (&json!("listening"), &Value::Null));
        let report = Report { content, ..Report::default() };
        let json = serde_json::to_value(ContentQuality::new(Some(&report))).unwrap();
        assert!(json["age_ms"].is_u64());
        assert_eq!(json["black_frame_detected"], Value::Null);
        assert_eq!(json["silent_audio_detected"], false);
        let video = json!({ "state": "unsupported", "detail": "not decoded here: av1" });
        assert_eq!((&json["analysis"]["video"], &json["analysis"]["audio"]["state"]), (&video, &json!("ok")));
        assert_eq!(json["loudness"]["true_peak_dbtp"], Value::Null);
    }
}
