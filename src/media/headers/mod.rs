//! Parameter sets and frame headers: codec, profile, size, rates, as a player is told them.
//!
//! [`Headers`] follows one stream. Figures and names are those that ffprobe prints for the same stream.

mod aac;
mod ac3;
mod av1;
mod h264;
mod hevc;
mod mpeg_audio;
mod mpeg_video;
mod opus;
mod vui;

use std::fmt;

pub(super) use self::ac3::{frames as ac3_frames, read as read_ac3};
pub(super) use self::h264::{Layout as H264Layout, layout as h264_layout, sizes as h264_sizes};
pub(super) use self::mpeg_audio::frames as mpeg_audio_frames;
use super::s302m;
use crate::proto::mpegts::demux::{AccessUnit, Codec};

/// Why a header could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// It ends too early.
    #[error("header is cut short")]
    Truncated,
    /// It has a value that its standard does not allow, or that no picture or sound can have.
    #[error("header has a value that is not allowed")]
    Value,
    /// It refers to a parameter set that did not come.
    #[error("header refers to a parameter set that did not come")]
    Unknown,
}

/// How a picture is coded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VideoFormat {
    /// What with.
    pub codec: Codec,
    /// The profile's name; `None` for one that has none here.
    pub profile: Option<&'static str>,
    /// The level as coded: H.264's is ten times its number, HEVC's thirty times, MPEG-2's a code of table 8-3, AV1's
    /// `seq_level_idx`.
    pub level: Option<u8>,
    /// Width in pixels, cropped.
    pub width: u32,
    /// Height in pixels, cropped, of a frame.
    pub height: u32,
    /// Subsampling of colour.
    pub chroma: Chroma,
    /// Bits of a luma sample.
    pub depth: u8,
    /// Width and height of a pixel; `None` if it is not said.
    pub sample_aspect: Option<(u32, u32)>,
    /// Frames a second as a fraction, if the headers say it.
    pub frame_rate: Option<(u32, u32)>,
    /// Order of the fields; `None` before a picture told.
    pub field_order: Option<FieldOrder>,
    /// How colours are meant.
    pub colour: Colour,
}

/// Subsampling of colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chroma {
    /// None: monochrome.
    Luma400,
    /// Half width, half height.
    Yuv420,
    /// Half width.
    Yuv422,
    /// Not subsampled.
    Yuv444,
}

impl Chroma {
    /// `chroma_format_idc` of H.264, HEVC and MPEG-2.
    pub(in crate::media) const fn from_idc(idc: u32) -> Option<Self> {
        match idc {
            0 => Some(Self::Luma400),
            1 => Some(Self::Yuv420),
            2 => Some(Self::Yuv422),
            3 => Some(Self::Yuv444),
            _ => None,
        }
    }

    /// Log2 of luma samples per chroma sample, across and down.
    #[must_use]
    pub const fn shifts(self) -> (u32, u32) {
        match self {
            Self::Yuv420 => (1, 1),
            Self::Yuv422 => (1, 0),
            Self::Luma400 | Self::Yuv444 => (0, 0),
        }
    }
}

/// Order of the fields of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldOrder {
    /// There are none.
    Progressive,
    /// The upper field is shown first.
    TopFirst,
    /// The lower field is shown first.
    BottomFirst,
}

impl fmt::Display for FieldOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Progressive => "progressive",
            Self::TopFirst => "tt",
            Self::BottomFirst => "bb",
        })
    }
}

/// How colours are meant: code points of ISO/IEC 23091-2, 2 for what is not said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Colour {
    /// Samples use their whole range, not 16 to 235.
    pub full_range: bool,
    /// `colour_primaries`.
    pub primaries: u8,
    /// `transfer_characteristics`.
    pub transfer: u8,
    /// `matrix_coefficients`.
    pub matrix: u8,
}

impl Default for Colour {
    fn default() -> Self {
        Self { full_range: false, primaries: 2, transfer: 2, matrix: 2 }
    }
}

/// How sound is coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AudioFormat {
    /// What with.
    pub codec: Codec,
    /// The profile's name, as with AAC.
    pub profile: Option<&'static str>,
    /// Layer of MPEG audio, 1 to 3.
    pub layer: Option<u8>,
    /// Samples a second of each channel. Of AAC that doubles its rate without saying so (implicit SBR) the half.
    pub sample_rate: u32,
    /// Channels, if the header says how many.
    pub channels: Option<u8>,
    /// Bits a second, if the header says so.
    pub bit_rate: Option<u32>,
}

impl AudioFormat {
    /// The codec's name as ffprobe has it.
    #[must_use]
    pub fn codec_name(&self) -> String {
        self.layer.map_or_else(|| self.codec.to_string(), |layer| format!("mp{layer}"))
    }
}

/// What an access unit of video holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Picture {
    /// Where a decoder may start.
    pub entry: Entry,
    /// Which part of a frame it is.
    pub structure: Structure,
    /// Others may be predicted from it.
    pub reference: bool,
}

/// Where a decoder may start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Entry {
    /// Not here.
    #[default]
    None,
    /// At this very picture.
    Key,
    /// Here, and the picture so many frames later is whole.
    Recovery {
        /// How many that others are predicted from; 0 for this very picture.
        frames: u16,
    },
}

/// Which part of a frame a unit holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Structure {
    /// A frame, or both its fields.
    #[default]
    Frame,
    /// One field, the other follows in the next unit or came in the last.
    Field,
}

/// What is known of one stream from its headers.
#[derive(Debug)]
pub struct Headers {
    reader: Reader,
    video: Option<VideoFormat>,
    audio: Option<AudioFormat>,
    malformed: u64,
}

#[derive(Debug)]
enum Reader {
    H264(Box<h264::Reader>),
    Hevc(Box<hevc::Reader>),
    MpegVideo(mpeg_video::Reader),
    Av1,
    Audio,
}

impl Headers {
    /// Of a stream that no unit came from.
    #[must_use]
    pub fn new(codec: Codec) -> Self {
        let reader = match codec {
            Codec::H264 => Reader::H264(Box::default()),
            Codec::Hevc => Reader::Hevc(Box::default()),
            Codec::Mpeg1Video | Codec::Mpeg2Video => Reader::MpegVideo(mpeg_video::Reader::default()),
            Codec::Av1 => Reader::Av1,
            Codec::Aac
            | Codec::AacLatm
            | Codec::MpegAudio
            | Codec::Ac3
            | Codec::Eac3
            | Codec::Opus
            | Codec::Smpte302m => Reader::Audio,
        };
        Self { reader, video: None, audio: None, malformed: 0 }
    }

    /// Takes in what the unit's headers say. What it holds, if it is video.
    pub fn read(&mut self, unit: &AccessUnit) -> Option<Picture> {
        let video = match &mut self.reader {
            Reader::H264(reader) => reader.read(&unit.bytes),
            Reader::Hevc(reader) => reader.read(&unit.bytes),
            Reader::MpegVideo(reader) => reader.read(&unit.bytes),
            Reader::Av1 => av1::read(&unit.bytes),
            Reader::Audio => {
                self.read_audio(unit);
                return None;
            }
        };
        self.malformed += u64::from(video.malformed);
        if video.format.is_some() {
            self.video = video.format;
        }
        video.picture
    }

    /// How pictures are coded, once that is known.
    #[must_use]
    pub const fn video(&self) -> Option<&VideoFormat> {
        self.video.as_ref()
    }

    /// How sound is coded, once that is known.
    #[must_use]
    pub const fn audio(&self) -> Option<&AudioFormat> {
        self.audio.as_ref()
    }

    /// Headers that could not be read.
    #[must_use]
    pub const fn malformed(&self) -> u64 {
        self.malformed
    }

    fn read_audio(&mut self, unit: &AccessUnit) {
        let format = match unit.codec {
            Codec::Aac => aac::read_adts(&unit.bytes),
            Codec::AacLatm => aac::read_loas(&unit.bytes),
            Codec::MpegAudio => mpeg_audio::read(&unit.bytes),
            Codec::Ac3 | Codec::Eac3 => ac3::read(&unit.bytes),
            Codec::Opus => opus::read(&unit.bytes),
            Codec::Smpte302m => s302m::read(&unit.bytes),
            Codec::Mpeg1Video | Codec::Mpeg2Video | Codec::H264 | Codec::Hevc | Codec::Av1 => return,
        };
        match format {
            Ok(format) => self.audio = Some(format),
            // A frame of LATM may leave the configuration to the one before.
            Err(HeaderError::Unknown) => {}
            Err(HeaderError::Truncated | HeaderError::Value) => self.malformed += 1,
        }
    }
}

/// What one unit of video said.
#[derive(Debug, Default)]
struct Seen {
    format: Option<VideoFormat>,
    picture: Option<Picture>,
    malformed: u32,
}

impl Seen {
    /// Keeps what could be read and counts what could not.
    fn keep<T>(&mut self, outcome: Result<T, HeaderError>) -> Option<T> {
        self.malformed += u32::from(outcome.is_err());
        outcome.ok()
    }
}

/// The body of the fuzz target `media_headers`, which tests call as well: any bytes as units of every codec, twice, as the
/// second unit meets what the first left behind.
///
/// # Panics
/// If a size is beyond what is allowed.
pub fn check_any_bytes(bytes: &[u8]) {
    for codec in Codec::ALL {
        let mut headers = Headers::new(codec);
        let (first, second) = bytes.split_at(bytes.len() / 2);
        for part in [bytes, first, second] {
            headers.read(&AccessUnit { pid: Default::default(), codec, pts: None, dts: None, bytes: part.to_vec() });
            if let Some(video) = headers.video() {
                assert!((1..=SIDE_PIXELS_MAX).contains(&video.width) && (1..=SIDE_PIXELS_MAX).contains(&video.height));
                assert!(video.frame_rate.is_none_or(|(frames, seconds)| frames > 0 && seconds > 0));
                assert!(video.sample_aspect.is_none_or(|(width, height)| width > 0 && height > 0));
                assert!((8..=16).contains(&video.depth));
            }
            assert!(headers.audio().is_none_or(|audio| audio.sample_rate > 0));
        }
    }
}

/// Divides by what both have in common; `None` if one is zero.
const fn reduced(first: u32, second: u32) -> Option<(u32, u32)> {
    if first == 0 || second == 0 {
        return None;
    }
    let (mut a, mut b) = (first, second);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    Some((first / a, second / a))
}

/// Longest side of a picture that is believed: level 6.2 of H.264 and HEVC allows up to 16888.
const SIDE_PIXELS_MAX: u32 = 16_888;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn recorded_headers_read_as_ffprobe_reads_them() {
        let video = |codec, bytes| read(codec, bytes).video().cloned().unwrap();
        let mbaff = video(Codec::H264, MBAFF);
        assert_eq!((mbaff.profile, mbaff.width, mbaff.height), (Some("High"), 640, 352));
        assert_eq!((mbaff.field_order, mbaff.frame_rate), (Some(FieldOrder::TopFirst), Some((25, 1))));
        let cropped = video(Codec::H264, CROPPED);
        assert_eq!((cropped.width, cropped.height, cropped.sample_aspect), (628, 346, Some((16, 11))));
        assert_eq!((cropped.frame_rate, cropped.colour.matrix), (Some((30_000, 1_001)), 1));
        let deep = video(Codec::Hevc, HEVC);
        assert_eq!((deep.profile, deep.width, deep.height, deep.depth), (Some("Main 10"), 634, 350, 10));
        assert!(deep.colour.full_range);
        let av1 = video(Codec::Av1, AV1);
        assert_eq!((av1.profile, av1.level, av1.width, av1.height), (Some("Main"), Some(0), 174, 98));
        let pq = Colour { full_range: true, primaries: 9, transfer: 16, matrix: 9 };
        assert_eq!((av1.chroma, av1.depth, av1.colour), (Chroma::Yuv420, 10, pq));
        let mpeg2 = video(Codec::Mpeg2Video, MPEG2);
        assert_eq!((mpeg2.width, mpeg2.height, mpeg2.sample_aspect), (720, 576, Some((64, 45))));
        let surround = *read(Codec::Eac3, EAC3).audio().unwrap();
        assert_eq!((surround.channels, surround.sample_rate, surround.bit_rate), (Some(6), 48_000, Some(384_000)));
        let opus = *read(Codec::Opus, &[0x7f, 0xe0, 2, 0xfc, 0]).audio().unwrap();
        assert_eq!((opus.channels, opus.sample_rate), (Some(2), 48_000));
        let latm = *read(Codec::AacLatm, LATM).audio().unwrap();
        assert_eq!((latm.profile, latm.channels, latm.sample_rate), (Some("LC"), Some(1), 44_100));
    }

    #[test]
    fn first_pictures_are_entries() {
        let all = [(Codec::H264, MBAFF), (Codec::Hevc, HEVC), (Codec::Av1, AV1), (Codec::Mpeg2Video, MPEG2)];
        for (codec, bytes) in all {
            let picture = Headers::new(codec).read(&unit(codec, bytes)).unwrap();
            assert_eq!((picture.entry, picture.structure), (Entry::Key, Structure::Frame), "{codec}");
        }
    }

    #[test]
    fn every_truncation_is_read_without_harm() {
        for bytes in [MBAFF, CROPPED, HEVC, AV1, MPEG2, EAC3, LATM] {
            for len in 0..bytes.len().min(160) {
                check_any_bytes(&bytes[..len]);
            }
        }
    }

    #[test]
    fn a_picture_of_absurd_size_is_refused() {
        // An HEVC sequence of 2^31 pixels across, and an MPEG-2 one without any.
        assert!(read(Codec::Mpeg2Video, &[0, 0, 1, 0xb3, 0, 0, 0, 0x13, 0, 0, 0, 0]).video().is_none());
        let mut bits = vec![0, 0, 1, 0x42, 1, 1, 1];
        bits.extend([0x60, 0, 0, 0, 0x90, 0, 0, 0, 0, 0, 0x3f, 0xa0, 0, 0, 0, 0x80, 0, 0, 0]);
        assert!(read(Codec::Hevc, &bits).video().is_none());
    }

    proptest! {
        #[test]
        fn changed_headers_are_read_without_harm(
            which in 0_usize..7,
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12)
        ) {
            let mut bytes = [MBAFF, CROPPED, HEVC, AV1, MPEG2, EAC3, LATM][which].to_vec();
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            check_any_bytes(&bytes);
        }
    }

    fn read(codec: Codec, bytes: &[u8]) -> Headers {
        let mut headers = Headers::new(codec);
        headers.read(&unit(codec, bytes));
        headers
    }

    fn unit(codec: Codec, bytes: &[u8]) -> AccessUnit {
        AccessUnit { pid: Default::default(), codec, pts: None, dts: None, bytes: bytes.to_vec() }
    }

    const MBAFF: &[u8] = include_bytes!("../../../tests/data/media/h264_mbaff");
    const CROPPED: &[u8] = include_bytes!("../../../tests/data/media/h264_high_slices");
    const HEVC: &[u8] = include_bytes!("../../../tests/data/media/hevc_main10_full");
    const AV1: &[u8] = include_bytes!("../../../tests/data/media/av1_main10_pq");
    const MPEG2: &[u8] = include_bytes!("../../../tests/data/media/mpeg2_interlaced");
    const EAC3: &[u8] = include_bytes!("../../../tests/data/media/eac3_51");
    const LATM: &[u8] = include_bytes!("../../../tests/data/media/aac_latm");
}
