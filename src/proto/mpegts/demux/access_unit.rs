//! One coded picture or audio frame with its times, and what it is coded with.

use std::fmt;

use crate::proto::mpegts::{Pid, table};
use crate::units::Ticks90k;

/// What one PES packet carried: a picture (or a field of one), or audio frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessUnit {
    /// Where it came from.
    pub pid: Pid,
    /// What it is coded with.
    pub codec: Codec,
    /// When it is to be shown: 33 bits as sent, not unwrapped.
    pub pts: Option<Ticks90k>,
    /// When it is to be decoded, if that is another moment.
    pub dts: Option<Ticks90k>,
    /// The coded bytes, at most [`UNIT_BYTES_MAX`].
    pub bytes: Vec<u8>,
}

/// Largest access unit that is kept. The largest that was seen, an intra picture of 4:2:2 video at 160 Mb/s, has 1.2 MB.
pub const UNIT_BYTES_MAX: usize = 8 << 20;

/// What a stream is coded with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Codec {
    /// MPEG-1 video.
    Mpeg1Video,
    /// MPEG-2 video.
    Mpeg2Video,
    /// H.264.
    H264,
    /// H.265.
    Hevc,
    /// AV1: one frame, or all of a temporal unit.
    Av1,
    /// AAC in ADTS frames.
    Aac,
    /// AAC in LATM frames with LOAS sync.
    AacLatm,
    /// MPEG audio of layer I, II or III.
    MpegAudio,
    /// AC-3.
    Ac3,
    /// E-AC-3.
    Eac3,
    /// Opus, each packet with its control header.
    Opus,
    /// Linear PCM of AES3 (SMPTE ST 302).
    Smpte302m,
}

impl Codec {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Mpeg1Video,
        Self::Mpeg2Video,
        Self::H264,
        Self::Hevc,
        Self::Av1,
        Self::Aac,
        Self::AacLatm,
        Self::MpegAudio,
        Self::Ac3,
        Self::Eac3,
        Self::Opus,
        Self::Smpte302m,
    ];

    /// The codec of a `stream_type` (13818-1 table 2-34, and ATSC A/53 for AC-3) with the stream's descriptors: private
    /// PES data says in a descriptor what it is (EN 300 468 table 12). `None` for what is not read here.
    #[must_use]
    pub fn from_stream_type(stream_type: u8, descriptors: &[u8]) -> Option<Self> {
        match stream_type {
            0x01 => Some(Self::Mpeg1Video),
            0x02 => Some(Self::Mpeg2Video),
            0x03 | 0x04 => Some(Self::MpegAudio),
            0x0f => Some(Self::Aac),
            0x11 => Some(Self::AacLatm),
            0x1b => Some(Self::H264),
            0x24 => Some(Self::Hevc),
            0x81 => Some(Self::Ac3),
            0x87 => Some(Self::Eac3),
            0x06 => table::descriptors(descriptors).find_map(|(tag, body)| match (tag, body) {
                (0x6a, _) | (0x05, [b'A', b'C', b'-', b'3', ..]) => Some(Self::Ac3),
                (0x7a, _) | (0x05, [b'E', b'A', b'C', b'3', ..]) => Some(Self::Eac3),
                (0x05, [b'H', b'E', b'V', b'C', ..]) => Some(Self::Hevc),
                // The latter is what GStreamer calls it, of which the PES packets have no start codes within.
                (0x05, [b'A', b'V', b'0', b'1', ..] | [b'A', b'V', b'1', b'G', ..]) => Some(Self::Av1),
                (0x05, [b'O', b'p', b'u', b's', ..]) => Some(Self::Opus),
                (0x05, [b'B', b'S', b'S', b'D', ..]) => Some(Self::Smpte302m),
                _ => None,
            }),
            _ => None,
        }
    }

    /// Whether it codes pictures.
    #[must_use]
    pub const fn is_video(self) -> bool {
        matches!(self, Self::Mpeg1Video | Self::Mpeg2Video | Self::H264 | Self::Hevc | Self::Av1)
    }
}

/// As ffprobe names it; layers of MPEG audio are told apart only by their headers.
impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mpeg1Video => "mpeg1video",
            Self::Mpeg2Video => "mpeg2video",
            Self::H264 => "h264",
            Self::Hevc => "hevc",
            Self::Av1 => "av1",
            Self::Aac => "aac",
            Self::AacLatm => "aac_latm",
            Self::MpegAudio => "mp2",
            Self::Ac3 => "ac3",
            Self::Eac3 => "eac3",
            Self::Opus => "opus",
            Self::Smpte302m => "s302m",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_data_is_what_a_descriptor_says() {
        let ac3 = [0x0a, 4, b'd', b'e', b'u', 0, 0x6a, 1, 0];
        assert_eq!(Codec::from_stream_type(0x06, &ac3), Some(Codec::Ac3));
        for len in 0..ac3.len() - 1 {
            assert_eq!(Codec::from_stream_type(0x06, &ac3[..len]), None);
        }
        assert_eq!(Codec::from_stream_type(0x06, &[5, 4, b'H', b'E', b'V', b'C']), Some(Codec::Hevc));
        assert_eq!(Codec::from_stream_type(0x06, &[5, 4, b'A', b'V', b'0', b'1']), Some(Codec::Av1));
        assert_eq!(Codec::from_stream_type(0x1b, &[]), Some(Codec::H264));
    }
}
