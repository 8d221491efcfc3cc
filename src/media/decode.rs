//! Coded pictures to samples: H.264 and HEVC by the decoders of `rust_h264` and `rust_h265`, AV1 by `rav1d` (feature `av1`),
//! MPEG-1 and MPEG-2 by our own.
//!
//! Whoever decodes pictures from strangers does it where a panic or a second of computing hurts nobody: never on a thread
//! that forwards packets.

use std::fmt;

use rust_h264::decoder::{ChromaFormat, Decoder as H264Decoder, Frame as H264Frame};
use rust_h264::nal::NalUnitType;
use rust_h265::{DecodeLimits, Decoder as HevcDecoder, Frame as HevcFrame, PixelData};

#[cfg(feature = "av1")]
use super::av1;
use super::frame::{Display, Frame, Plane, Samples};
use super::grey::grey_picture;
use super::headers::{Chroma, Entry, FieldOrder, Headers, Picture, Structure, h264_layout, h264_sizes};
use super::mpeg2;
use crate::proto::mpegts::demux::{AccessUnit, Codec};
use crate::units::Ticks90k;

/// Why a picture was not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It uses what is not decoded here.
    #[error("not supported: {0}")]
    Unsupported(&'static str),
    /// It is larger than what is decoded here.
    #[error("larger than 8192x4352")]
    TooLarge,
    /// Its bits break the rules of the codec, or lean on pictures that did not come.
    #[error("damaged: {0}")]
    Damaged(&'static str),
}

/// Decodes pictures one after the other, in the order in which they are coded.
pub struct Decoder {
    codec: Codec,
    inner: Inner,
    /// The first field of a frame was decoded, its second one follows.
    field_open: bool,
}

enum Inner {
    H264(Box<H264Decoder>),
    Hevc(Box<HevcDecoder>),
    Mpeg(Box<mpeg2::Decoder>),
    #[cfg(feature = "av1")]
    Av1(av1::Decoder),
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder").field("codec", &self.codec).finish_non_exhaustive()
    }
}

impl Decoder {
    /// Of a codec of pictures. The decoder of AV1 may end the process over bad input: it is for one that does nothing else.
    ///
    /// # Errors
    /// [`DecodeError::Unsupported`] for codecs of sound, and for AV1 without the feature `av1`.
    pub fn new(codec: Codec) -> Result<Self, DecodeError> {
        let inner = match codec {
            Codec::H264 => Inner::H264(Box::default()),
            Codec::Hevc => Inner::Hevc(Box::new(HevcDecoder::with_limits(HEVC_LIMITS))),
            Codec::Mpeg1Video | Codec::Mpeg2Video => Inner::Mpeg(Box::default()),
            #[cfg(feature = "av1")]
            Codec::Av1 => Inner::Av1(av1::Decoder::new()?),
            #[cfg(not(feature = "av1"))]
            Codec::Av1 => return Err(DecodeError::Unsupported("built without AV1")),
            Codec::Aac
            | Codec::AacLatm
            | Codec::MpegAudio
            | Codec::Ac3
            | Codec::Eac3
            | Codec::Opus
            | Codec::Smpte302m => {
                return Err(DecodeError::Unsupported("no pictures"));
            }
        };
        Ok(Self { codec, inner, field_open: false })
    }

    /// The same, to begin with a unit that is not a key frame but the recovery point of a stream that refreshes its
    /// picture little by little: what was not refreshed yet is grey. Only for H.264; with other codecs it is as new.
    ///
    /// # Errors
    /// As [`Decoder::new`], and if the unit does not bring its parameter sets.
    pub fn at_recovery(unit: &AccessUnit) -> Result<Self, DecodeError> {
        let mut decoder = Self::new(unit.codec)?;
        let Inner::H264(inner) = &mut decoder.inner else { return Ok(decoder) };
        check_size(unit)?;
        let layout = h264_layout(&unit.bytes).ok_or(DecodeError::Damaged("no parameter sets"))?;
        let sets = rust_h264::nal::parse_annex_b(&unit.bytes).into_iter();
        let sets = sets.filter(|nal| nal.nal_unit_type == NalUnitType::Sps);
        for nal in sets.chain(grey_picture(&layout)) {
            inner.decode_nal(&nal).map_err(h264_error)?;
        }
        inner.flush();
        Ok(decoder)
    }

    /// Decodes what the unit holds, which [`Headers::read`] told. `None` after the first of two fields.
    ///
    /// # Errors
    /// Why there is no picture. The decoder has to be thrown away then.
    pub fn decode(&mut self, unit: &AccessUnit, picture: Picture) -> Result<Option<Frame>, DecodeError> {
        match &mut self.inner {
            Inner::H264(decoder) => {
                check_size(unit)?;
                let mut decoded = None;
                for nal in rust_h264::nal::parse_annex_b(&unit.bytes) {
                    decoded = decoder.decode_nal(&nal).map_err(h264_error)?.or(decoded);
                }
                // The decoder would give the first field away as a picture of half the height.
                self.field_open = picture.structure == Structure::Field && !self.field_open;
                if self.field_open {
                    return Ok(None);
                }
                decoder.flush().or(decoded).map(from_h264).transpose()
            }
            Inner::Hevc(decoder) => {
                let mut decoded = None;
                for nal in rust_h265::parse_annex_b(&unit.bytes) {
                    decoded = decoder.decode_nal(&nal).map_err(hevc_error)?.or(decoded);
                }
                while let Some(frame) = decoder.flush() {
                    decoded = Some(frame);
                }
                decoded.map(from_hevc).transpose()
            }
            Inner::Mpeg(decoder) => decoder.decode(&unit.bytes),
            #[cfg(feature = "av1")]
            Inner::Av1(decoder) => decoder.decode(&unit.bytes),
        }
    }
}

/// Picks the pictures of a stream that can be decoded alone, and decodes them when asked to.
#[derive(Debug)]
pub struct KeyFrames {
    headers: Headers,
    decoder: Option<Decoder>,
    state: State,
    counts: KeyFrameCounts,
}

/// Outcomes so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyFrameCounts {
    /// Pictures seen that may be decoded alone, or after which others build up.
    pub entries: u64,
    /// Pictures decoded.
    pub decoded: u64,
    /// Pictures that could not be.
    pub failed: u64,
}

/// A decoded picture of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// What it shows.
    pub frame: Frame,
    /// How it is meant.
    pub display: Display,
    /// When it is to be shown.
    pub pts: Option<Ticks90k>,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Waiting,
    /// The second field is missing.
    Field { pts: Option<Ticks90k> },
    /// So many pictures that others are predicted from come before the one that is whole.
    Recovering { frames: u16, pts: Option<Ticks90k> },
}

impl KeyFrames {
    /// Of a stream of pictures that no unit came from.
    #[must_use]
    pub fn new(codec: Codec) -> Self {
        Self { headers: Headers::new(codec), decoder: None, state: State::Waiting, counts: KeyFrameCounts::default() }
    }

    /// What its headers said.
    #[must_use]
    pub const fn headers(&self) -> &Headers {
        &self.headers
    }

    /// Outcomes so far.
    #[must_use]
    pub const fn counts(&self) -> KeyFrameCounts {
        self.counts
    }

    /// A picture was begun and needs the next unit, whether that is wanted or not.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        !matches!(self.state, State::Waiting)
    }

    /// Takes the stream's next unit, and decodes it if a picture is `wanted` and can be had from it. A picture that was
    /// begun, of two fields or at a recovery point, is finished in any case.
    ///
    /// Where nothing but recovery points comes (intra refresh, H.264), all pictures from one to the first that is whole
    /// are decoded, at most [`RECOVERY_FRAMES_MAX`] that others are predicted from.
    pub fn push(&mut self, unit: &AccessUnit, wanted: bool) -> Option<Result<Shown, DecodeError>> {
        let picture = self.headers.read(unit)?;
        self.counts.entries += u64::from(picture.entry != Entry::None);
        let refreshes = unit.codec == Codec::H264;
        let open = self.is_open();
        let state = match (std::mem::take(&mut self.state), picture.entry) {
            (State::Waiting, Entry::Key | Entry::Recovery { frames: 0 }) if wanted => State::Field { pts: unit.pts },
            (State::Waiting, Entry::Recovery { frames: frames @ 1..=RECOVERY_FRAMES_MAX }) if wanted && refreshes => {
                match Decoder::at_recovery(unit) {
                    Ok(decoder) => self.decoder = Some(decoder),
                    Err(error) => return Some(Err(self.failed(error))),
                }
                State::Recovering { frames, pts: None }
            }
            (State::Waiting, _) => return None,
            (State::Recovering { .. }, Entry::Key) => State::Field { pts: unit.pts },
            (begun, _) => begun,
        };
        if !open && let Some(Decoder { inner: Inner::Mpeg(decoder), .. }) = &mut self.decoder {
            decoder.restart();
        }
        let outcome = self.decode(unit, picture);
        self.settle(state, picture, unit.pts, outcome)
    }

    /// What comes of a unit that was decoded.
    fn settle(
        &mut self,
        state: State,
        picture: Picture,
        unit_pts: Option<Ticks90k>,
        outcome: Result<Option<Frame>, DecodeError>,
    ) -> Option<Result<Shown, DecodeError>> {
        match (outcome, state) {
            (Err(error), _) => Some(Err(self.failed(error))),
            (Ok(None), State::Recovering { frames, .. }) if picture.structure == Structure::Field => {
                self.state = State::Recovering { frames, pts: unit_pts };
                None
            }
            (Ok(None), State::Field { pts }) if picture.structure == Structure::Field => {
                self.state = State::Field { pts };
                None
            }
            (Ok(None), _) => Some(Err(self.failed(DecodeError::Damaged("no picture came of it")))),
            (Ok(Some(_)), State::Recovering { frames, .. }) if frames > 0 || !picture.reference => {
                let left = frames.saturating_sub(u16::from(picture.reference));
                self.state = State::Recovering { frames: left, pts: None };
                None
            }
            (Ok(Some(frame)), State::Field { pts } | State::Recovering { pts, .. }) => {
                self.counts.decoded += 1;
                Some(Ok(Shown { frame, display: display_of(&self.headers), pts: pts.or(unit_pts) }))
            }
            (Ok(Some(_)), State::Waiting) => None,
        }
    }

    fn decode(&mut self, unit: &AccessUnit, picture: Picture) -> Result<Option<Frame>, DecodeError> {
        let format = self.headers.video().ok_or(DecodeError::Damaged("no parameter sets"))?;
        if format.width > WIDTH_MAX || format.height > HEIGHT_MAX {
            return Err(DecodeError::TooLarge);
        }
        let decoder = match &mut self.decoder {
            Some(decoder) => decoder,
            none => none.insert(Decoder::new(unit.codec)?),
        };
        decoder.decode(unit, picture)
    }

    /// The decoder may be in any state after an error, so the next picture gets a new one.
    fn failed(&mut self, error: DecodeError) -> DecodeError {
        self.decoder = None;
        self.state = State::Waiting;
        self.counts.failed += 1;
        error
    }
}

/// Whether what decodes it may end the whole process over bad input: where that process does other things as well it is
/// not decoded.
pub(super) const fn may_abort(codec: Codec) -> bool {
    match codec {
        Codec::H264 | Codec::Hevc | Codec::Mpeg1Video | Codec::Mpeg2Video => false,
        Codec::Aac | Codec::AacLatm | Codec::MpegAudio | Codec::Ac3 | Codec::Eac3 | Codec::Smpte302m | Codec::Opus => {
            false
        }
        Codec::Av1 => cfg!(feature = "av1"),
    }
}

/// How the pictures of a stream are meant.
pub(super) fn display_of(headers: &Headers) -> Display {
    headers.video().map_or_else(Display::default, |format| Display {
        sample_aspect: format.sample_aspect,
        colour: format.colour,
        interlaced: !matches!(format.field_order, None | Some(FieldOrder::Progressive)),
    })
}

/// The decoder of H.264 believes any size, and a unit may bring more than one sequence.
fn check_size(unit: &AccessUnit) -> Result<(), DecodeError> {
    let too_large = h264_sizes(&unit.bytes).any(|(width, height)| width > WIDTH_MAX || height > HEIGHT_MAX);
    if too_large { Err(DecodeError::TooLarge) } else { Ok(()) }
}

fn from_h264(frame: H264Frame) -> Result<Frame, DecodeError> {
    let chroma = match frame.chroma_format {
        ChromaFormat::Yuv420 => Chroma::Yuv420,
        ChromaFormat::Yuv422 => Chroma::Yuv422,
    };
    let depth = frame.bit_depth;
    let samples = |bytes: Vec<u8>| {
        if depth == 8 {
            return Samples::Byte(bytes);
        }
        Samples::Word(bytes.as_chunks::<2>().0.iter().map(|bytes| u16::from_le_bytes(*bytes)).collect())
    };
    let chroma_size = (frame.chroma_width() as usize, frame.chroma_height() as usize);
    let planes = [
        Plane::new(frame.width as usize, frame.height as usize, samples(frame.y)),
        Plane::new(chroma_size.0, chroma_size.1, samples(frame.u)),
        Plane::new(chroma_size.0, chroma_size.1, samples(frame.v)),
    ];
    assemble(chroma, depth, planes)
}

fn from_hevc(frame: HevcFrame) -> Result<Frame, DecodeError> {
    let chroma = match frame.chroma_format_idc {
        1 => Chroma::Yuv420,
        3 => Chroma::Yuv444,
        _ => return Err(DecodeError::Unsupported("HEVC with another subsampling than 4:2:0 and 4:4:4")),
    };
    let samples = |data: PixelData| match data {
        PixelData::U8(samples) => Samples::Byte(samples),
        PixelData::U16(samples) => Samples::Word(samples),
    };
    let (width, height) = (frame.width as usize, frame.height as usize);
    let (shift_x, shift_y) = chroma.shifts();
    let chroma_size = (width.div_ceil(1 << shift_x), height.div_ceil(1 << shift_y));
    let planes = [
        Plane::new(width, height, samples(frame.y)),
        Plane::new(chroma_size.0, chroma_size.1, samples(frame.u)),
        Plane::new(chroma_size.0, chroma_size.1, samples(frame.v)),
    ];
    assemble(chroma, frame.bit_depth, planes)
}

pub(super) fn assemble(chroma: Chroma, depth: u8, planes: [Option<Plane>; 3]) -> Result<Frame, DecodeError> {
    let [Some(luma), Some(blue), Some(red)] = planes else {
        return Err(DecodeError::Damaged("planes of a wrong size"));
    };
    Ok(Frame { chroma, depth, planes: [luma, blue, red] })
}

fn h264_error(error: rust_h264::error::DecodeError) -> DecodeError {
    use rust_h264::error::DecodeError as Error;
    match error {
        Error::Unsupported(what) => DecodeError::Unsupported(what),
        Error::InvalidSyntax(what) => DecodeError::Damaged(what),
        Error::UnexpectedEof => DecodeError::Damaged("ends too early"),
    }
}

fn hevc_error(error: rust_h265::DecodeError) -> DecodeError {
    use rust_h265::DecodeError as Error;
    match error {
        Error::Unsupported(what) => DecodeError::Unsupported(what),
        Error::ResourceLimit(_) => DecodeError::TooLarge,
        Error::InvalidSyntax(what) => DecodeError::Damaged(what),
        Error::UnexpectedEof | _ => DecodeError::Damaged("ends too early"),
    }
}

/// The body of the fuzz target `media_mpeg2`, which tests call as well: any bytes as units of MPEG video. The other
/// decoders are fuzzed where they are made.
///
/// # Panics
/// If a picture is larger than allowed.
pub fn check_any_bytes(bytes: &[u8]) {
    let mut key_frames = KeyFrames::new(Codec::Mpeg2Video);
    let mut all = mpeg2::Decoder::default();
    let (first, second) = bytes.split_at(bytes.len() / 2);
    for part in [bytes, first, second, bytes] {
        if let Ok(Some(frame)) = all.decode(part) {
            assert!(frame.width() <= WIDTH_MAX as usize && frame.height() <= HEIGHT_MAX as usize);
        }
        let bytes = part.to_vec();
        let unit = AccessUnit { pid: Default::default(), codec: Codec::Mpeg2Video, pts: None, dts: None, bytes };
        if let Some(Ok(shown)) = key_frames.push(&unit, true) {
            assert!(shown.frame.width() <= WIDTH_MAX as usize && shown.frame.height() <= HEIGHT_MAX as usize);
        }
    }
}

/// Largest picture that is decoded: level 5.2 of H.264 and HEVC, which is 4K with room.
pub const WIDTH_MAX: u32 = 8_192;
/// See [`WIDTH_MAX`].
pub const HEIGHT_MAX: u32 = 4_352;
/// Pictures that may be decoded to have one of a stream without key frames: ten seconds of 25 a second. The largest
/// intervals that encoders choose are a few seconds.
pub const RECOVERY_FRAMES_MAX: u16 = 250;
const HEVC_LIMITS: DecodeLimits =
    DecodeLimits { max_picture_pixels: 8_192 * 4_352, max_picture_memory_bytes: 512 << 20 };

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_small_mpeg2_picture_is_decoded_and_every_truncation_of_it_is_refused() {
        let picture = grey_picture();
        let mut decoder = mpeg2::Decoder::default();
        let frame = decoder.decode(&picture).unwrap().unwrap();
        assert_eq!((frame.width(), frame.height()), (32, 16));
        assert!(frame.planes.iter().all(|plane| plane.samples == Samples::Byte(vec![128; plane.samples.len()])));
        for len in 0..picture.len() - 4 {
            let outcome = mpeg2::Decoder::default().decode(&picture[..len]);
            assert!(!matches!(outcome, Ok(Some(_))), "{len} of {} bytes", picture.len());
            check_any_bytes(&picture[..len]);
        }
    }

    #[test]
    fn few_bytes_do_not_have_much_decoded() {
        let picture = grey_picture();
        let slice = picture.windows(4).position(|bytes| bytes == [0, 0, 1, 1]).unwrap();
        let end = picture.len() - 4;
        let mut twice = picture[..end].to_vec();
        twice.extend_from_slice(&picture[slice..]);
        let refusal = Err(DecodeError::Damaged("more macroblocks than the picture has"));
        assert_eq!(mpeg2::Decoder::default().decode(&twice), refusal);
        // Of more than sixteen pictures none is decoded, but those before are worth as much as ever.
        let sixteen = mpeg2::Decoder::default().decode(&PREDICTED.repeat(4)).unwrap();
        let mut broken = PREDICTED.repeat(4);
        broken.extend([0, 0, 1, 0, 0xff, 0xff]);
        for more in [PREDICTED.repeat(5), broken] {
            assert_eq!(mpeg2::Decoder::default().decode(&more).unwrap(), sixteen);
        }
        assert!(sixteen.is_some());
    }

    #[test]
    fn a_sequence_of_absurd_size_is_refused_before_anything_is_allocated() {
        let mut picture = grey_picture();
        // Two bits more of each side, in a sequence extension.
        let extension = [0, 0, 1, 0xb5, 0x14, 0x8b, 0xe0, 0, 0, 0];
        picture.splice(12..12, extension);
        assert_eq!(mpeg2::Decoder::default().decode(&picture), Err(DecodeError::TooLarge));
    }

    proptest! {
        #[test]
        fn changed_pictures_do_no_harm(
            predicted in any::<bool>(),
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)
        ) {
            let mut picture = if predicted { PREDICTED.to_vec() } else { grey_picture() };
            for (at, value) in changes {
                let at = at.index(picture.len());
                picture[at] = value;
            }
            check_any_bytes(&picture);
        }
    }

    #[test]
    fn what_is_predicted_from_pictures_that_did_not_come_is_refused() {
        let starts: Vec<usize> = (0..PREDICTED.len() - 4).filter(|&at| PREDICTED[at..at + 4] == [0, 0, 1, 0]).collect();
        assert_eq!(starts.len(), 4);
        let mut decoder = mpeg2::Decoder::default();
        assert!(decoder.decode(&PREDICTED[..starts[1]]).unwrap().is_some());
        assert!(decoder.decode(&PREDICTED[starts[1]..starts[2]]).unwrap().is_some());
        decoder.restart();
        assert!(matches!(decoder.decode(&PREDICTED[starts[1]..starts[2]]), Err(DecodeError::Damaged(_))));
    }

    const PREDICTED: &[u8] = include_bytes!("../../tests/data/media/mpeg2_predicted");

    /// An MPEG-1 sequence of 32 by 16 pixels and an intra picture whose blocks all have a DC difference of zero.
    fn grey_picture() -> Vec<u8> {
        let mut bytes = vec![0, 0, 1, 0xb3, 0x02, 0x00, 0x10, 0x13, 0xff, 0xff, 0xe0, 0x00];
        bytes.extend([0, 0, 1, 0x00, 0x00, 0x0f, 0xff, 0xf8]);
        // Scale 1, no extra information; twice: address 1, intra, 100 10 four times, 00 10 twice.
        let macroblock = "11".to_string() + &"10010".repeat(4) + &"0010".repeat(2);
        let bits = "000010".to_string() + &macroblock.repeat(2);
        bytes.extend([0, 0, 1, 0x01]);
        for byte in bits.as_bytes().chunks(8) {
            bytes.push((0..8).fold(0, |sum, at| sum << 1 | byte.get(at).map_or(0, |bit| bit - b'0')));
        }
        bytes.extend([0, 0, 1, 0xb7]);
        bytes
    }
}
