//! Audio and video messages to access units with times of 90 kHz, and back: tags of FLV and of enhanced RTMP.
//!
//! ```text
//! audio   format 10 (AAC) << 4 | rate, size, type    packet type               body     FLV E.4.2
//! audio   9 << 4 | packet type                       FourCC                    body     E-RTMP "Enhanced Audio"
//! video   frame type << 4 | codec 7 (AVC)            packet type, offset (3)   body     FLV E.4.3
//! video   1 << 7 | frame type << 4 | packet type     FourCC, offset (3)        body     E-RTMP "Enhanced Video"
//! ```
//!
//! Enhanced ones may have modifiers before the packet type is known, and bodies of several tracks. Only H.264 and HEVC
//! have an offset, and only with packet type 1.

use super::chunk::{Message, kind};
use crate::proto::Payload;
use crate::units::Ticks90k;

/// One coded picture or audio frame, or what a decoder needs before the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessUnit {
    /// Which of several of a kind; zero where there is one.
    pub track: u8,
    /// What it is coded with.
    pub codec: Codec,
    /// What the bytes are.
    pub content: Content,
    /// When it is to be decoded.
    pub dts: Ticks90k,
    /// When it is to be shown.
    pub pts: Ticks90k,
    /// H.264 and HEVC: NAL units, each after its length as the header says. AAC: a raw frame. Others: a frame.
    pub bytes: Payload,
}

/// What a track is coded with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Codec {
    /// H.264.
    H264,
    /// H.265.
    Hevc,
    /// AV1.
    Av1,
    /// VP9.
    Vp9,
    /// AAC.
    Aac,
    /// Opus.
    Opus,
    /// AC-3.
    Ac3,
    /// E-AC-3.
    Eac3,
}

/// What a unit's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// What a decoder must know first: AVCDecoderConfigurationRecord, HEVCDecoderConfigurationRecord, AV1CodecConfigurationRecord,
    /// VPCodecConfigurationRecord, AudioSpecificConfig, or the Opus identification header. That of AC-3 is
    /// empty, where there is one.
    Header,
    /// A picture that others need, or any audio frame.
    KeyFrame,
    /// Another picture.
    Frame,
    /// Nothing: no more will come on this track.
    End,
}

/// Why bytes are no unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Ends within its header.
    #[error("truncated")]
    Truncated,
    /// A codec of FLV that is not carried here, by its number.
    #[error("codec {0}")]
    Codec(u8),
    /// A codec of enhanced RTMP that is not carried here.
    #[error("codec {0:?}")]
    FourCc([u8; 4]),
    /// A type of packet or of multitrack that is not known.
    #[error("packet type {0}")]
    PacketType(u8),
    /// More tracks in a message than are read.
    #[error("more than {TRACKS_MAX} tracks")]
    Tracks,
    /// Neither audio nor video.
    #[error("neither audio nor video")]
    Kind,
}

impl Codec {
    const ALL: [(Self, [u8; 4]); 8] = [
        (Self::H264, *b"avc1"),
        (Self::Hevc, *b"hvc1"),
        (Self::Av1, *b"av01"),
        (Self::Vp9, *b"vp09"),
        (Self::Aac, *b"mp4a"),
        (Self::Opus, *b"Opus"),
        (Self::Ac3, *b"ac-3"),
        (Self::Eac3, *b"ec-3"),
    ];

    /// Whether it codes pictures.
    #[must_use]
    pub const fn is_video(self) -> bool {
        matches!(self, Self::H264 | Self::Hevc | Self::Av1 | Self::Vp9)
    }

    /// Its name in enhanced RTMP.
    #[must_use]
    pub fn fourcc(self) -> [u8; 4] {
        Self::ALL.iter().find(|(codec, _)| *codec == self).map_or(*b"    ", |(_, fourcc)| *fourcc)
    }

    fn parse(fourcc: [u8; 4], is_video: bool) -> Result<Self, ParseError> {
        let known = Self::ALL.iter().find(|(codec, name)| *name == fourcc && codec.is_video() == is_video);
        known.map(|(codec, _)| *codec).ok_or(ParseError::FourCc(fourcc))
    }

    /// Whether pictures are shown in another order than decoded, as far as the tags know.
    const fn has_offset(self) -> bool {
        matches!(self, Self::H264 | Self::Hevc)
    }
}

/// Messages of one connection to units. Its clock goes on where the milliseconds wrap.
#[derive(Debug, Default)]
pub struct Reader {
    /// Unwrapped milliseconds of the last message.
    last_ms: Option<u64>,
}

impl Reader {
    /// The units of one message: mostly one, none for what is only about the player or has no bytes, several where there are
    /// tracks.
    pub fn read(&mut self, message: &Message) -> Units {
        let time_ms = match self.last_ms {
            None => message.timestamp_ms.into(),
            Some(last) => {
                let step = message.timestamp_ms.wrapping_sub(last as u32) as i32;
                // Before zero it is the same moment 2^32 ms later, also in the 33 bits of a transport stream.
                last.checked_add_signed(step.into()).unwrap_or_else(|| message.timestamp_ms.into())
            }
        };
        self.last_ms = Some(time_ms);
        let mut units = Units {
            payload: message.payload.clone(),
            at: 0,
            is_video: message.kind == kind::VIDEO,
            time_ms,
            nanoseconds: 0,
            is_key: true,
            packet_type: 0,
            tracks: 0,
            next: Next::Nothing,
        };
        units.next = match message.kind {
            kind::VIDEO => units.begin_video(),
            kind::AUDIO => units.begin_audio(),
            _ => Err(ParseError::Kind),
        }
        .unwrap_or_else(Next::Wrong);
        units
    }
}

/// The units of one message, one after the other.
#[derive(Debug)]
pub struct Units {
    payload: Payload,
    at: usize,
    is_video: bool,
    time_ms: u64,
    nanoseconds: u32,
    is_key: bool,
    packet_type: u8,
    /// Begun, of several: at most [`TRACKS_MAX`].
    tracks: usize,
    next: Next,
}

/// What comes next.
#[derive(Clone, Copy, Debug)]
enum Next {
    Nothing,
    Wrong(ParseError),
    /// All the rest.
    Whole(Codec),
    /// A track that is all the rest.
    OneTrack(Codec),
    /// Tracks with their sizes; each with its codec if there is none here.
    Tracks(Option<Codec>),
}

impl Units {
    fn begin_video(&mut self) -> Result<Next, ParseError> {
        if self.payload.is_empty() {
            return Ok(Next::Nothing);
        }
        let [first] = self.take()?;
        self.is_key = first >> 4 & 7 == KEY_FRAME;
        let is_command = first >> 4 & 7 == COMMAND_FRAME;
        if first & EX_HEADER != 0 {
            let packet_type = self.modifiers(first & 0x0f)?;
            // Seeking of players, not media.
            return if is_command && packet_type != METADATA { Ok(Next::Nothing) } else { self.tracks(packet_type) };
        }
        match first & 0x0f {
            _ if is_command => Ok(Next::Nothing),
            AVC => {
                let [packet_type] = self.take()?;
                self.packet_type = packet_type;
                // The offset is there with every type.
                if packet_type != CODED_FRAMES {
                    let _: [u8; 3] = self.take()?;
                }
                Ok(Next::Whole(Codec::H264))
            }
            other => Err(ParseError::Codec(other)),
        }
    }

    fn begin_audio(&mut self) -> Result<Next, ParseError> {
        if self.payload.is_empty() {
            return Ok(Next::Nothing);
        }
        let [first] = self.take()?;
        match first >> 4 {
            EX_AUDIO => {
                let packet_type = self.modifiers(first & 0x0f)?;
                self.tracks(packet_type)
            }
            AAC => {
                let [packet_type] = self.take()?;
                self.packet_type = packet_type;
                Ok(Next::Whole(Codec::Aac))
            }
            other => Err(ParseError::Codec(other)),
        }
    }

    /// Passes over modifiers, of which one is known (E-RTMP "ModEx"); gives the packet type that follows them.
    fn modifiers(&mut self, mut packet_type: u8) -> Result<u8, ParseError> {
        while packet_type == MODEX {
            let [size] = self.take()?;
            let size = match size {
                u8::MAX => usize::from(u16::from_be_bytes(self.take()?)) + 1,
                size => usize::from(size) + 1,
            };
            let data = self.payload.get(self.at..self.at + size).ok_or(ParseError::Truncated)?;
            let nanoseconds = data.first_chunk().map(|[a, b, c]| u32::from_be_bytes([0, *a, *b, *c]));
            self.at += size;
            let [next] = self.take()?;
            if next >> 4 == NANOSECONDS {
                self.nanoseconds = nanoseconds.unwrap_or_default().min(NANOSECONDS_MAX);
            }
            packet_type = next & 0x0f;
        }
        Ok(packet_type)
    }

    fn tracks(&mut self, packet_type: u8) -> Result<Next, ParseError> {
        let multitrack = if self.is_video { VIDEO_MULTITRACK } else { AUDIO_MULTITRACK };
        self.packet_type = packet_type;
        if packet_type != multitrack {
            // Colours and channel layouts: nobody needs them who passes media on.
            return Ok(if packet_type == METADATA { Next::Nothing } else { Next::Whole(self.codec()?) });
        }
        let [types] = self.take()?;
        self.packet_type = types & 0x0f;
        match types >> 4 {
            ONE_TRACK => Ok(Next::OneTrack(self.codec()?)),
            MANY_TRACKS => Ok(Next::Tracks(Some(self.codec()?))),
            MANY_CODECS => Ok(Next::Tracks(None)),
            other => Err(ParseError::PacketType(other)),
        }
    }

    /// The next track with its size, and what it is coded with.
    fn track(&mut self, codec: Option<Codec>) -> Result<Option<AccessUnit>, ParseError> {
        let fourcc = if codec.is_none() { Some(self.take()?) } else { None };
        let [track, s0, s1, s2] = self.take()?;
        let end = self.at + u32::from_be_bytes([0, s0, s1, s2]) as usize;
        if end > self.payload.len() {
            return Err(ParseError::Truncated);
        }
        let codec = match (codec, fourcc) {
            (Some(codec), _) => Ok(codec),
            (None, Some(fourcc)) => Codec::parse(fourcc, self.is_video),
            (None, None) => Err(ParseError::Truncated),
        };
        let unit = codec.and_then(|codec| self.unit(track, codec, end));
        self.at = end;
        unit
    }

    /// What lies between here and `end`.
    fn unit(&mut self, track: u8, codec: Codec, end: usize) -> Result<Option<AccessUnit>, ParseError> {
        let content = match (self.packet_type, self.is_video) {
            (SEQUENCE_START, _) => Content::Header,
            (CODED_FRAMES, false) => Content::KeyFrame,
            (CODED_FRAMES, true) | (CODED_FRAMES_X, true) if self.is_key => Content::KeyFrame,
            (CODED_FRAMES, true) | (CODED_FRAMES_X, true) => Content::Frame,
            (SEQUENCE_END, _) => Content::End,
            (METADATA, _) => return Ok(None),
            (other, _) => return Err(ParseError::PacketType(other)),
        };
        let mut offset_ms = 0;
        if self.packet_type == CODED_FRAMES && codec.has_offset() {
            let [o0, o1, o2] = self.take()?;
            // Sign-extended from 24 bits.
            offset_ms = i64::from(i32::from_be_bytes([o0, o1, o2, 0]) >> 8);
        }
        if self.at > end {
            return Err(ParseError::Truncated);
        }
        if self.at == end && matches!(content, Content::KeyFrame | Content::Frame) {
            return Ok(None);
        }
        let dts_90k = self.time_ms.saturating_mul(90).saturating_add(u64::from(self.nanoseconds) * 9 / 100_000);
        Ok(Some(AccessUnit {
            track,
            codec,
            content,
            dts: Ticks90k(dts_90k),
            pts: Ticks90k(dts_90k.saturating_add_signed(offset_ms * 90)),
            bytes: self.payload.slice(self.at..end),
        }))
    }

    fn codec(&mut self) -> Result<Codec, ParseError> {
        Codec::parse(self.take()?, self.is_video)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], ParseError> {
        let taken = self.payload.get(self.at..).and_then(|rest| rest.first_chunk()).ok_or(ParseError::Truncated)?;
        self.at += N;
        Ok(*taken)
    }
}

impl Iterator for Units {
    type Item = Result<AccessUnit, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let end = self.payload.len();
            let unit = match std::mem::replace(&mut self.next, Next::Nothing) {
                Next::Nothing => return None,
                Next::Wrong(error) => return Some(Err(error)),
                Next::Whole(codec) => self.unit(0, codec, end),
                Next::OneTrack(codec) => self.take().and_then(|[track]| self.unit(track, codec, end)),
                Next::Tracks(_) if self.at >= end => return None,
                Next::Tracks(_) if self.tracks == TRACKS_MAX => return Some(Err(ParseError::Tracks)),
                Next::Tracks(codec) => {
                    self.tracks += 1;
                    let unit = self.track(codec);
                    // A track of an unknown codec does not end the others.
                    if unit != Err(ParseError::Truncated) {
                        self.next = Next::Tracks(codec);
                    }
                    unit
                }
            };
            if let Some(unit) = unit.transpose() {
                return Some(unit);
            }
        }
    }
}

/// A unit as a message: in FLV's form where there is one, else in that of enhanced RTMP. The message stream is left zero.
///
/// Its times wrap after 2^32 ms. An offset of more than 2^23 ms is cut to that.
#[must_use]
pub fn write(unit: &AccessUnit) -> Message {
    let &AccessUnit { track, codec, content, dts, pts, ref bytes } = unit;
    let (dts_ms, pts_ms) = (dts.0 / 90, pts.0 / 90);
    let offset_ms = (pts_ms as i64).wrapping_sub(dts_ms as i64).clamp(-OFFSET_MS_MAX, OFFSET_MS_MAX - 1);
    let [.., o0, o1, o2] = offset_ms.to_be_bytes();
    let frame = if content == Content::Frame { INTER_FRAME } else { KEY_FRAME } << 4;
    let packet_type = match content {
        Content::Header => SEQUENCE_START,
        Content::KeyFrame | Content::Frame if codec.has_offset() && offset_ms == 0 => CODED_FRAMES_X,
        Content::KeyFrame | Content::Frame => CODED_FRAMES,
        Content::End => SEQUENCE_END,
    };
    let mut payload = Vec::with_capacity(PREFIX_BYTES_MAX + bytes.len());
    match (codec, track) {
        (Codec::H264, 0) => {
            let offset = if content == Content::Header || content == Content::End { [0; 3] } else { [o0, o1, o2] };
            let packet_type = if packet_type == CODED_FRAMES_X { CODED_FRAMES } else { packet_type };
            payload.extend([frame | AVC, packet_type]);
            payload.extend(offset);
        }
        (Codec::Aac, 0) if content != Content::End => payload.extend([AAC_FIRST, packet_type]),
        _ => {
            let (first, multitrack) = if codec.is_video() {
                (EX_HEADER | frame, VIDEO_MULTITRACK)
            } else {
                (EX_AUDIO << 4, AUDIO_MULTITRACK)
            };
            match track {
                0 => payload.push(first | packet_type),
                _ => payload.extend([first | multitrack, ONE_TRACK << 4 | packet_type]),
            }
            payload.extend(codec.fourcc());
            if track != 0 {
                payload.push(track);
            }
            if packet_type == CODED_FRAMES && codec.has_offset() {
                payload.extend([o0, o1, o2]);
            }
        }
    }
    payload.extend_from_slice(bytes);
    let kind = if codec.is_video() { kind::VIDEO } else { kind::AUDIO };
    Message { kind, stream: 0, timestamp_ms: dts_ms as u32, payload: payload.into() }
}

/// Any payload is read or refused, and what was read is written so that it reads the same but for less than a
/// millisecond. The first byte says of what kind it is.
#[cfg(any(test, fuzzing))]
pub fn check_any_bytes(bytes: &[u8]) {
    let Some((first, payload)) = bytes.split_first() else {
        return;
    };
    let kind = [kind::AUDIO, kind::VIDEO, kind::DATA][usize::from(first % 3)];
    let message = Message { kind, stream: 1, timestamp_ms: u32::from(*first) << 24, payload: payload.to_vec().into() };
    let mut units = 0;
    for unit in Reader::default().read(&message) {
        units += 1;
        let Ok(unit) = unit else {
            continue;
        };
        assert_eq!(unit.codec.is_video(), kind == kind::VIDEO);
        let again: Vec<_> = Reader::default().read(&write(&unit)).collect();
        let [Ok(again)] = &again[..] else {
            panic!("{unit:?} {again:?}");
        };
        assert_eq!((again.track, again.codec, &again.bytes), (unit.track, unit.codec, &unit.bytes));
        assert_eq!(again.content, unit.content);
        assert!(unit.dts.0 - again.dts.0 < 90, "{unit:?} {again:?}");
        let offset = |unit: &AccessUnit| unit.pts.0 as i64 - unit.dts.0 as i64;
        if unit.content != Content::Header && unit.content != Content::End {
            assert!((offset(&unit) - offset(again)).abs() < 180, "{unit:?} {again:?}");
        }
    }
    assert!(units <= 1 + (payload.len() / 4).min(TRACKS_MAX));
}

/// FLV E.4.3.1, E-RTMP VideoFrameType.
const KEY_FRAME: u8 = 1;
const INTER_FRAME: u8 = 2;
const COMMAND_FRAME: u8 = 5;

/// FLV E.4.3.1.
const AVC: u8 = 7;
/// FLV E.4.2.1.
const AAC: u8 = 10;
/// AAC with the rest as FLV E.4.2.1 wants it: 44 kHz, 16 bits, stereo, whatever it is.
const AAC_FIRST: u8 = 0xaf;

/// E-RTMP isExVideoHeader.
const EX_HEADER: u8 = 0x80;
/// E-RTMP SoundFormat ExHeader.
const EX_AUDIO: u8 = 9;

/// E-RTMP VideoPacketType, AudioPacketType; the first three are FLV's, too.
const SEQUENCE_START: u8 = 0;
const CODED_FRAMES: u8 = 1;
const SEQUENCE_END: u8 = 2;
const CODED_FRAMES_X: u8 = 3;
/// Metadata of video, MultichannelConfig of audio.
const METADATA: u8 = 4;
const AUDIO_MULTITRACK: u8 = 5;
const VIDEO_MULTITRACK: u8 = 6;
const MODEX: u8 = 7;

/// E-RTMP TimestampOffsetNano.
const NANOSECONDS: u8 = 0;
/// Less than a millisecond.
const NANOSECONDS_MAX: u32 = 999_999;

/// E-RTMP AvMultitrackType.
const ONE_TRACK: u8 = 0;
const MANY_TRACKS: u8 = 1;
const MANY_CODECS: u8 = 2;

/// Tracks that are read of one message, so that none takes long, whatever it has. Judgement: each quality of a ladder and each
/// language of a studio; they may come in messages of their own.
const TRACKS_MAX: usize = 16;

/// What 24 bits with a sign can say.
const OFFSET_MS_MAX: i64 = 1 << 23;

/// What stands before the bytes of a unit at most.
const PREFIX_BYTES_MAX: usize = 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn legacy_tags_are_read_and_written_back() {
        let video = [0x27, 1, 0, 0, 80, 0xde, 0xad];
        let unit = one(kind::VIDEO, 40, &video);
        assert_eq!((unit.codec, unit.content, unit.track), (Codec::H264, Content::Frame, 0));
        assert_eq!((unit.dts, unit.pts, &*unit.bytes), (Ticks90k(3_600), Ticks90k(10_800), &[0xde, 0xad][..]));
        assert_eq!(&*write(&unit).payload, &video);
        for (kind, tag, content) in [
            (kind::VIDEO, &[0x17, 0, 0, 0, 0, 1, 100][..], Content::Header),
            (kind::VIDEO, &[0x17, 1, 0xff, 0xff, 0xd8, 1], Content::KeyFrame),
            (kind::VIDEO, &[0x17, 2, 0, 0, 0], Content::End),
            (kind::AUDIO, &[0xaf, 0, 0x12, 0x10], Content::Header),
            (kind::AUDIO, &[0xaf, 1, 9, 9], Content::KeyFrame),
        ] {
            let unit = one(kind, 1_000, tag);
            assert_eq!((unit.content, &*write(&unit).payload), (content, tag));
        }
        assert_eq!(one(kind::VIDEO, 1_000, &[0x17, 1, 0xff, 0xff, 0xd8, 1]).pts, Ticks90k(960 * 90));
    }

    #[test]
    fn enhanced_tags_are_read_and_written_back() {
        for (kind, tag, codec, content) in [
            (kind::VIDEO, &b"\x90hvc1\x01\x02"[..], Codec::Hevc, Content::Header),
            (kind::VIDEO, b"\xa1hvc1\x00\x00\x28body", Codec::Hevc, Content::Frame),
            (kind::VIDEO, b"\x93hvc1body", Codec::Hevc, Content::KeyFrame),
            (kind::VIDEO, b"\x91av01body", Codec::Av1, Content::KeyFrame),
            (kind::VIDEO, b"\xa1vp09body", Codec::Vp9, Content::Frame),
            (kind::VIDEO, b"\x92av01", Codec::Av1, Content::End),
            (kind::AUDIO, b"\x90OpusOpusHead", Codec::Opus, Content::Header),
            (kind::AUDIO, b"\x91ac-3body", Codec::Ac3, Content::KeyFrame),
            (kind::AUDIO, b"\x91ec-3body", Codec::Eac3, Content::KeyFrame),
            (kind::VIDEO, b"\x96\x00hvc1\x02rec", Codec::Hevc, Content::Header),
            (kind::VIDEO, b"\x96\x01avc1\x01\x00\x00\x01body", Codec::H264, Content::KeyFrame),
            (kind::AUDIO, b"\x95\x01mp4a\x07body", Codec::Aac, Content::KeyFrame),
        ] {
            let unit = one(kind, 7, tag);
            assert_eq!((unit.codec, unit.content), (codec, content));
            assert_eq!(&*write(&unit).payload, tag);
        }
    }

    #[test]
    fn modifiers_are_passed_over_and_nanoseconds_count() {
        // 3 bytes of nanoseconds, then 2 bytes that nobody knows, then coded frames.
        let unit = one(kind::VIDEO, 1, b"\x97\x02\x07\xa1\x20\x07\x01zz\xf3hvc1body");
        assert_eq!((unit.dts, &*unit.bytes), (Ticks90k(90 + 45), &b"body"[..]));
        // A length that takes two bytes.
        let long = [&b"\x97\xff\x01\x2b"[..], &[0; 300], b"\x11Opusbody"].concat();
        assert_eq!(&*one(kind::AUDIO, 1, &long[..]).bytes, b"body");
    }

    #[test]
    fn many_tracks_come_one_after_the_other() {
        let same = b"\x96\x11av01\x00\x00\x00\x02ab\x01\x00\x00\x01c";
        let units: Vec<_> = read(kind::VIDEO, 5, same).map(Result::unwrap).collect();
        assert_eq!(
            units.iter().map(|unit| (unit.track, &*unit.bytes)).collect::<Vec<_>>(),
            [(0, &b"ab"[..]), (1, &b"c"[..])]
        );
        let mixed = b"\x95\x21Opus\x00\x00\x00\x01axxxx\x01\x00\x00\x01bec-3\x02\x00\x00\x01c";
        let units: Vec<_> = read(kind::AUDIO, 5, mixed).map(|unit| unit.map(|unit| (unit.track, unit.codec))).collect();
        assert_eq!(units, [Ok((0, Codec::Opus)), Err(ParseError::FourCc(*b"xxxx")), Ok((2, Codec::Eac3))]);
        let long = b"\x95\x11Opus\x00\x00\x00\x09a";
        assert_eq!(read(kind::AUDIO, 5, long).collect::<Vec<_>>(), [Err(ParseError::Truncated)]);
    }

    #[test]
    fn a_message_has_so_many_tracks_and_empty_ones_are_no_units() {
        let tracks = |count: u8, body: &[u8]| {
            let one = |track: u8| [&[track, 0, 0, body.len() as u8][..], body].concat();
            [b"\x95\x11Opus".to_vec(), (0..count).flat_map(one).collect()].concat()
        };
        let units: Vec<_> = read(kind::AUDIO, 5, &tracks(200, b"a")).collect();
        assert_eq!((units.len(), units.last()), (TRACKS_MAX + 1, Some(&Err(ParseError::Tracks))));
        assert!(read(kind::AUDIO, 5, &tracks(16, b"a")).all(|unit| unit.is_ok()));
        assert_eq!(read(kind::AUDIO, 5, &tracks(200, b"")).collect::<Vec<_>>(), [Err(ParseError::Tracks)]);
        for (kind, tag) in [(kind::AUDIO, &b"\xaf\x01"[..]), (kind::VIDEO, b"\x27\x01\x00\x00\x00")] {
            assert_eq!(read(kind, 5, tag).count(), 0);
        }
    }

    #[test]
    fn what_is_not_media_gives_nothing_or_a_reason() {
        for (kind, tag) in [
            (kind::VIDEO, &b""[..]),
            (kind::AUDIO, b""),
            (kind::VIDEO, b"\x57\x00"),
            (kind::VIDEO, b"\xd1\x00"),
            (kind::VIDEO, b"\x94hvc1\x02"),
            (kind::AUDIO, b"\x94Opus\x01\x06"),
        ] {
            assert_eq!(read(kind, 0, tag).count(), 0, "{tag:?}");
        }
        for (kind, tag, error) in [
            (kind::VIDEO, &b"\x12"[..], ParseError::Codec(2)),
            (kind::AUDIO, b"\x2f", ParseError::Codec(2)),
            (kind::VIDEO, b"\x91Opus", ParseError::FourCc(*b"Opus")),
            (kind::VIDEO, b"\x95av01", ParseError::PacketType(5)),
            (kind::VIDEO, b"\x96\x30", ParseError::PacketType(3)),
            (kind::DATA, b"\x00", ParseError::Kind),
        ] {
            assert_eq!(read(kind, 0, tag).collect::<Vec<_>>(), [Err(error)]);
        }
    }

    #[test]
    fn every_truncation_is_refused_or_shortens_the_unit() {
        for (kind, tag) in [
            (kind::VIDEO, &b"\x17\x01\x00\x00\x00body"[..]),
            (kind::AUDIO, b"\xaf\x01body"),
            (kind::VIDEO, b"\x97\x02\x00\x00\x64\x01hvc1\x00\x00\x01body"),
            (kind::VIDEO, b"\x96\x11av01\x00\x00\x00\x02ab\x01\x00\x00\x01c"),
        ] {
            for len in 0..tag.len() {
                for unit in read(kind, 0, &tag[..len]) {
                    assert!(unit.is_ok() || unit == Err(ParseError::Truncated), "{len} {unit:?}");
                }
            }
        }
    }

    #[test]
    fn the_clock_goes_on_where_milliseconds_wrap() {
        let mut reader = Reader::default();
        let mut dts = |timestamp_ms: u32| {
            let message = Message { kind: kind::AUDIO, stream: 1, timestamp_ms, payload: vec![0xaf, 1, 0].into() };
            reader.read(&message).next().unwrap().unwrap().dts.0 / 90
        };
        assert_eq!(dts(u32::MAX - 10), u64::from(u32::MAX) - 10);
        assert_eq!(dts(10), u64::from(u32::MAX) + 11);
        assert_eq!(dts(u32::MAX), u64::from(u32::MAX), "a little back");
        assert_eq!(dts(1_000_000), u64::from(u32::MAX) + 1_000_001);
    }

    /// As whoever has times below zero writes them.
    #[test]
    fn a_clock_that_steps_below_zero_does_not_stand_still() {
        let mut reader = Reader::default();
        let times = [40, u32::MAX - 19, 20, u32::MAX - 10_000_000, u32::MAX - 9_999_960];
        let dts = times.map(|timestamp_ms| {
            let message = Message { kind: kind::AUDIO, stream: 1, timestamp_ms, payload: vec![0xaf, 1, 0].into() };
            reader.read(&message).next().unwrap().unwrap().dts.0 % (1 << 33)
        });
        let steps: Vec<u64> = dts.windows(2).map(|pair| pair[1].wrapping_sub(pair[0]) % (1 << 33)).collect();
        let back = |ms: u64| (1 << 33) - ms * 90;
        assert_eq!(steps, [back(60), 40 * 90, back(10_000_021), 40 * 90]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(first: u8, bytes: Vec<u8>) {
            check_any_bytes(&[&[first][..], &bytes].concat());
            for head in [&b"\x91hvc1"[..], b"\x97\x02\x00\x00\x64\x01hvc1", b"\x96\x21", b"\x96\x11avc1", b"\x17\x01"] {
                check_any_bytes(&[&[1], head, &bytes].concat());
            }
        }
    }

    fn one(kind: u8, timestamp_ms: u32, tag: &[u8]) -> AccessUnit {
        let mut units = read(kind, timestamp_ms, tag);
        let unit = units.next().unwrap().unwrap();
        assert!(units.next().is_none());
        unit
    }

    fn read(kind: u8, timestamp_ms: u32, tag: &[u8]) -> Units {
        Reader::default().read(&Message { kind, stream: 1, timestamp_ms, payload: tag.to_vec().into() })
    }
}
