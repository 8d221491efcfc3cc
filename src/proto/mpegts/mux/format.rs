//! What a track carries and how its access units come: codec, framing, decoder configuration.

use super::av1::Av1;
use crate::proto::mpegts::Adaptation;

/// Codec of a track, how its access units are framed, and what a decoder must know beforehand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format(pub(super) Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Video(Video),
    Av1(Av1),
    /// Frames with ADTS header before them.
    AacAdts,
    /// Raw frames, which get the header.
    AacRaw(AdtsHeader),
    MpegAudio,
    Ac3,
    Eac3,
    Opus {
        channels: u8,
    },
}

/// H.264 or HEVC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Video {
    pub(super) codec: VideoCodec,
    pub(super) framing: Framing,
    /// The latest parameter sets, with start codes.
    pub(super) parameter_sets: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VideoCodec {
    H264,
    Hevc,
}

/// What stands before each NAL unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// A start code (ITU-T H.264 and H.265 annex B).
    StartCodes,
    /// Its length in that many bytes, 1 to 4 (ISO/IEC 14496-15).
    Lengths(usize),
}

/// The fields of an ADTS header that do not change (ISO/IEC 13818-7 6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AdtsHeader {
    profile: u8,
    rate_index: u8,
    channels: u8,
}

impl Format {
    /// H.264 as byte stream (ITU-T H.264 annex B), parameter sets among the access units.
    #[must_use]
    pub const fn h264() -> Self {
        Self::byte_stream(VideoCodec::H264)
    }

    /// HEVC as byte stream (ITU-T H.265 annex B), parameter sets among the access units.
    #[must_use]
    pub const fn hevc() -> Self {
        Self::byte_stream(VideoCodec::Hevc)
    }

    /// H.264 with lengths, as FLV and MP4 have it; `record` is the `AVCDecoderConfigurationRecord` (ISO/IEC 14496-15
    /// 5.3.3.1).
    ///
    /// # Errors
    /// If the record is cut short, of another version, or its parameter sets are longer than [`PARAMETER_SETS_MAX`].
    pub fn h264_with_record(record: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader(record);
        let head = reader.take(6)?;
        if head[0] != 1 {
            return Err(FormatError::Unsupported);
        }
        let mut parameter_sets = Vec::new();
        reader.units(usize::from(head[5] & 0x1f), &mut parameter_sets)?;
        let pictures = reader.take(1)?[0];
        reader.units(usize::from(pictures), &mut parameter_sets)?;
        // What follows for High profiles repeats what the sets say.
        Ok(Self::lengths(VideoCodec::H264, head[4], parameter_sets))
    }

    /// HEVC with lengths; `record` is the `HEVCDecoderConfigurationRecord` (ISO/IEC 14496-15 8.3.3.1).
    ///
    /// # Errors
    /// As [`Format::h264_with_record`].
    pub fn hevc_with_record(record: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader(record);
        let head = reader.take(23)?;
        // Encoders of old drafts wrote version 0 and nothing else differently.
        if head[0] > 1 {
            return Err(FormatError::Unsupported);
        }
        let mut parameter_sets = Vec::new();
        for _ in 0..head[22] {
            let array = reader.take(3)?;
            let count = usize::from(u16::from_be_bytes([array[1], array[2]]));
            reader.units(count, &mut parameter_sets)?;
        }
        Ok(Self::lengths(VideoCodec::Hevc, head[21], parameter_sets))
    }

    /// AAC, each access unit one or several frames with their ADTS headers.
    #[must_use]
    pub const fn aac_adts() -> Self {
        Self(Kind::AacAdts)
    }

    /// AAC, each access unit one raw frame; `config` is the `AudioSpecificConfig` (ISO/IEC 14496-3 1.6.2.1). Of HE-AAC
    /// the core is announced, as ADTS has no words for more; decoders find the rest.
    ///
    /// # Errors
    /// If the configuration is cut short, or cannot be said in ADTS: another object type, sampling rate or layout of
    /// channels.
    pub fn aac_with_config(config: &[u8]) -> Result<Self, FormatError> {
        let [first, second, rest @ ..] = config else {
            return Err(FormatError::Truncated);
        };
        let bits = u32::from_be_bytes([*first, *second, rest.first().copied().unwrap_or(0), 0]);
        let field = |at: u32, width: u32| (bits << at >> (32 - width)) as u8;
        let (object_type, rate_index, channels) = (field(0, 5), field(5, 4), field(9, 4));
        let profile = match object_type {
            1..=4 => object_type - 1,
            // SBR and PS name the extension's rate before the type of what they extend, which is always LC in practice.
            5 | 29 => 1,
            _ => return Err(FormatError::Unsupported),
        };
        if rate_index > 12 || !(1..=7).contains(&channels) {
            return Err(FormatError::Unsupported);
        }
        Ok(Self(Kind::AacRaw(AdtsHeader { profile, rate_index, channels })))
    }

    /// MPEG-1 audio of any layer (ISO/IEC 11172-3), each access unit one or several frames.
    #[must_use]
    pub const fn mpeg_audio() -> Self {
        Self(Kind::MpegAudio)
    }

    /// AC-3 (ETSI TS 102 366), signalled as DVB does.
    #[must_use]
    pub const fn ac3() -> Self {
        Self(Kind::Ac3)
    }

    /// Enhanced AC-3 (ETSI TS 102 366 annex E), signalled as DVB does.
    #[must_use]
    pub const fn eac3() -> Self {
        Self(Kind::Eac3)
    }

    /// Opus, each access unit one Opus packet, of 1 to 8 channels in the layout of RFC 7845 5.1.1.2.
    ///
    /// # Errors
    /// With another number of channels.
    pub const fn opus(channels: u8) -> Result<Self, FormatError> {
        if matches!(channels, 1..=8) { Ok(Self(Kind::Opus { channels })) } else { Err(FormatError::Unsupported) }
    }

    /// AV1 in the low overhead format, as FLV and MP4 have it, each access unit a temporal unit; `record` is the
    /// `AV1CodecConfigurationRecord` ("AV1 Codec ISO Media File Format Binding" 2.3). Few receivers read it in a transport
    /// stream yet ("Carriage of AV1 in MPEG-2 TS" 1.0).
    ///
    /// # Errors
    /// As [`Format::h264_with_record`].
    pub fn av1_with_record(record: &[u8]) -> Result<Self, FormatError> {
        Av1::new(record).map(Kind::Av1).map(Self)
    }

    /// VP9, which nobody has mapped to transport streams.
    ///
    /// # Errors
    /// Always, by name.
    pub const fn vp9() -> Result<Self, FormatError> {
        Err(FormatError::NoMapping("VP9"))
    }

    /// Whether it is a picture.
    #[must_use]
    pub const fn is_video(&self) -> bool {
        matches!(self.0, Kind::Video(_) | Kind::Av1(_))
    }

    /// What the adaptation field says where a decoder may start. Of AV1 also that this matters more than the rest (AV1 in TS
    /// 3.4).
    pub(super) fn random_access(&self) -> Adaptation<'static> {
        Adaptation { random_access: true, priority: matches!(self.0, Kind::Av1(_)), ..Adaptation::default() }
    }

    const fn byte_stream(codec: VideoCodec) -> Self {
        Self(Kind::Video(Video { codec, framing: Framing::StartCodes, parameter_sets: Vec::new() }))
    }

    fn lengths(codec: VideoCodec, length_field: u8, parameter_sets: Vec<u8>) -> Self {
        let framing = Framing::Lengths(usize::from(length_field & 0x03) + 1);
        Self(Kind::Video(Video { codec, framing, parameter_sets }))
    }

    /// `stream_type` (13818-1 table 2-34) and the descriptors behind it.
    pub(super) fn announcement(&self) -> (u8, Descriptors) {
        let mut descriptors = Descriptors::new();
        let stream_type = match &self.0 {
            Kind::Video(video) => match video.codec {
                VideoCodec::H264 => 0x1b,
                VideoCodec::Hevc => 0x24,
            },
            Kind::Av1(av1) => push(&mut descriptors, &av1.descriptors()),
            Kind::AacAdts | Kind::AacRaw(_) => 0x0f,
            Kind::MpegAudio => 0x03,
            // AC-3 and enhanced AC-3 descriptors without any of their fields (ETSI EN 300 468 annex D).
            Kind::Ac3 => push(&mut descriptors, &[0x6a, 1, 0]),
            Kind::Eac3 => push(&mut descriptors, &[0x7a, 1, 0]),
            // Registration, and the extension descriptor of DVB with the layout of the channels (Opus in MPEG-2 TS).
            Kind::Opus { channels } => {
                push(&mut descriptors, &[0x05, 4, b'O', b'p', b'u', b's', 0x7f, 2, 0x80, *channels])
            }
        };
        (stream_type, descriptors)
    }
}

impl AdtsHeader {
    /// The header of a frame of `frame_bytes`; `None` if that is longer than the field can say.
    pub(super) fn bytes(self, frame_bytes: usize) -> Option<[u8; ADTS_HEADER_BYTES]> {
        let length = frame_bytes + ADTS_HEADER_BYTES;
        (length < 1 << 13).then(|| {
            let bits = 0xfff1 << 40
                | u64::from(self.profile) << 38
                | u64::from(self.rate_index) << 34
                | u64::from(self.channels) << 30
                | (length as u64) << 13
                | 0x7ff << 2; // fullness that says nothing, one frame
            let [_, bytes @ ..] = bits.to_be_bytes();
            bytes
        })
    }
}

/// Adds a descriptor; private PES data is what it describes.
fn push(descriptors: &mut Descriptors, bytes: &[u8]) -> u8 {
    descriptors.extend(bytes.iter().copied());
    super::super::psi::STREAM_TYPE_PRIVATE_PES
}

/// Descriptors of one track.
pub(super) type Descriptors = arrayvec::ArrayVec<u8, DESCRIPTORS_BYTES_MAX>;

/// Why a format is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The configuration ends before it should.
    #[error("configuration cut short")]
    Truncated,
    /// It is well-formed and cannot be carried.
    #[error("configuration not supported")]
    Unsupported,
    /// More than [`PARAMETER_SETS_MAX`].
    #[error("parameter sets too long")]
    TooLong,
    /// A codec that transport streams have no agreed place for.
    #[error("{0} cannot be carried in a transport stream")]
    NoMapping(&'static str),
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], FormatError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(FormatError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    /// Moves `count` NAL units with lengths of 16 bits behind start codes.
    fn units(&mut self, count: usize, out: &mut Vec<u8>) -> Result<(), FormatError> {
        for _ in 0..count {
            let length = self.take(2)?;
            let unit = self.take(usize::from(u16::from_be_bytes([length[0], length[1]])))?;
            if out.len() + START_CODE.len() + unit.len() > PARAMETER_SETS_MAX {
                return Err(FormatError::TooLong);
            }
            out.extend_from_slice(&START_CODE);
            out.extend_from_slice(unit);
        }
        Ok(())
    }
}

/// The longer start code, as the first NAL unit of an access unit and parameter sets must have (H.264 B.1.2).
pub(super) const START_CODE: [u8; 4] = [0, 0, 0, 1];

/// Those of AV1, and a language.
pub(super) const DESCRIPTORS_BYTES_MAX: usize = 12 + 6;

/// Length of an ADTS header without CRC.
const ADTS_HEADER_BYTES: usize = 7;

/// Bytes that the parameter sets of a track may have together. Judgement: real ones have a tenth of it.
pub const PARAMETER_SETS_MAX: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    const AVC_RECORD: [u8; 19] = [1, 0x64, 0, 31, 0xff, 0xe1, 0, 4, 0x67, 0x64, 0, 31, 1, 0, 4, 0x68, 0xee, 0x3c, 0x80];

    #[test]
    fn a_record_becomes_parameter_sets_with_start_codes() {
        let Format(Kind::Video(video)) = Format::h264_with_record(&AVC_RECORD).unwrap() else {
            unreachable!("a picture");
        };
        assert_eq!(video.framing, Framing::Lengths(4));
        assert_eq!(video.parameter_sets, [0, 0, 0, 1, 0x67, 0x64, 0, 31, 0, 0, 0, 1, 0x68, 0xee, 0x3c, 0x80]);
    }

    #[test]
    fn every_truncation_is_refused() {
        for len in 0..AVC_RECORD.len() {
            assert_eq!(Format::h264_with_record(&AVC_RECORD[..len]), Err(FormatError::Truncated), "{len}");
        }
        let mut hevc = vec![1; 22];
        hevc.extend([1, 0x20, 0, 1, 0, 3, 0x40, 1, 0x0c]);
        assert!(Format::hevc_with_record(&hevc).is_ok());
        for len in 0..hevc.len() {
            assert_eq!(Format::hevc_with_record(&hevc[..len]), Err(FormatError::Truncated), "{len}");
        }
    }

    #[test]
    fn records_that_claim_much_are_refused_in_little_memory() {
        let mut hevc = vec![1; 22];
        hevc.push(255);
        hevc.extend(
            [0x20, 0xff, 0xff].into_iter().chain([0x10, 0x00].into_iter().chain([7; 0x1000]).cycle().take(99_999)),
        );
        assert_eq!(Format::hevc_with_record(&hevc), Err(FormatError::TooLong));
    }

    #[test]
    fn an_adts_header_says_what_the_configuration_says() {
        // LC, 48 kHz, stereo.
        let Format(Kind::AacRaw(header)) = Format::aac_with_config(&[0x11, 0x90]).unwrap() else {
            unreachable!("raw AAC");
        };
        assert_eq!(header.bytes(100), Some([0xff, 0xf1, 0x4c, 0x80, 0x0d, 0x7f, 0xfc]));
        assert_eq!(header.bytes(8_185), None);
    }

    #[test]
    fn what_adts_cannot_say_is_refused() {
        assert_eq!(Format::aac_with_config(&[0x11]), Err(FormatError::Truncated));
        for config in [[0xf9, 0x90], [0x17, 0x90], [0x11, 0x80]] {
            assert_eq!(Format::aac_with_config(&config), Err(FormatError::Unsupported), "{config:x?}");
        }
        assert_eq!(Format::opus(0), Err(FormatError::Unsupported));
        let told = Format::vp9().unwrap_err().to_string();
        assert_eq!(told, "VP9 cannot be carried in a transport stream");
    }
}
