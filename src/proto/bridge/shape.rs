//! Size and rate of pictures, by the decoder configuration records that FLV has.

use super::record::hevc_formats;
use crate::proto::annexb::unescape;
use crate::proto::av1::{Kind, Sequence, obus};
use crate::proto::bits::Bits;
use crate::proto::rtmp::flv::Codec;

/// How large pictures are shown, and how many a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Shape {
    pub(super) width: u32,
    pub(super) height: u32,
    /// `None` if it is not said, or only how fine times are.
    pub(super) frame_rate: Option<f64>,
}

impl Shape {
    /// `None` for records that have no sequence header, or one that cannot be read. HEVC says its rate too far back in it.
    pub(super) fn parse(codec: Codec, record: &[u8]) -> Option<Self> {
        match codec {
            Codec::H264 => avc(&unescape(first_of_avc(record)?)),
            Codec::Hevc => {
                let formats = hevc_formats(&unescape(first_of_hevc(record)?))?;
                Self::new(formats.width.into(), formats.height.into(), None)
            }
            Codec::Av1 => {
                let obu = obus(record.get(4..)?).map_while(Result::ok).find(|obu| obu.kind == Kind::Sequence)?;
                let sequence = Sequence::parse(obu.payload)?;
                let timing = sequence.timing.map(|(units, scale)| (units.into(), scale.into()));
                Self::new(sequence.width.into(), sequence.height.into(), timing)
            }
            Codec::Vp9 | Codec::Aac | Codec::Opus | Codec::Ac3 | Codec::Eac3 => None,
        }
    }

    /// `timing` is how long a picture is shown, and parts of a second in which that is counted.
    fn new(width: u64, height: u64, timing: Option<(f64, f64)>) -> Option<Self> {
        let side = |pixels: u64| u32::try_from(pixels).ok().filter(|pixels| (1..=SIDE_PIXELS_MAX).contains(pixels));
        let frame_rate = timing.map(|(units, scale)| scale / units).filter(|rate| RATES.contains(rate));
        Some(Self { width: side(width)?, height: side(height)?, frame_rate })
    }
}

/// The first sequence parameter set (ISO/IEC 14496-15 5.3.3.1).
fn first_of_avc(record: &[u8]) -> Option<&[u8]> {
    let [_, _, _, _, _, _, high, low, sets @ ..] = record else { return None };
    sets.get(..usize::from(u16::from_be_bytes([*high, *low])))
}

/// Likewise (14496-15 8.3.3.1), of sets in arrays by their kinds.
fn first_of_hevc(record: &[u8]) -> Option<&[u8]> {
    let (arrays, mut rest) = record.get(22..)?.split_first()?;
    for _ in 0..*arrays {
        let ([kind, many @ ..], sets) = rest.split_first_chunk::<3>()?;
        rest = sets;
        for _ in 0..u16::from_be_bytes(*many) {
            let (len, sets) = rest.split_first_chunk()?;
            let (set, after) = sets.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
            if kind & 0x3f == HEVC_SEQUENCE {
                return Some(set);
            }
            rest = after;
        }
    }
    None
}

/// H.264 7.3.2.1.1.
fn avc(sequence: &[u8]) -> Option<Shape> {
    let mut bits = Bits::from(sequence, 32);
    bits.number()?;
    let chroma = if HIGH_PROFILES.contains(sequence.get(1)?) { skip_high(&mut bits)? } else { CHROMA_420 };
    bits.number()?; // log2_max_frame_num_minus4
    match bits.number()? {
        0 => {
            bits.number()?;
        }
        1 => {
            bits.skip(1);
            bits.number()?;
            bits.number()?;
            for _ in 0..bits.number_up_to(u8::MAX)? {
                bits.number()?;
            }
        }
        _ => {}
    }
    bits.number()?; // max_num_ref_frames
    bits.skip(1);
    let (across, down) = (u64::from(bits.number()?) + 1, u64::from(bits.number()?) + 1);
    let fields = if bits.flag()? { 1 } else { 2 };
    bits.skip(fields); // mb_adaptive_frame_field_flag, where there may be fields, direct_8x8_inference_flag
    let fields = fields as u64;
    let (mut cut_across, mut cut_down) = (0, 0);
    if bits.flag()? {
        let (step_across, step_down) = match chroma {
            CHROMA_420 => (2, 2),
            CHROMA_422 => (2, 1),
            _ => (1, 1),
        };
        cut_across = (u64::from(bits.number()?) + u64::from(bits.number()?)) * step_across;
        cut_down = (u64::from(bits.number()?) + u64::from(bits.number()?)) * step_down * fields;
    }
    let timing = if bits.flag()? { timing(&mut bits) } else { None };
    Shape::new((across * 16).checked_sub(cut_across)?, (down * 16 * fields).checked_sub(cut_down)?, timing)
}

/// What the profiles beyond Main have; gives `chroma_format_idc`.
fn skip_high(bits: &mut Bits<'_>) -> Option<u8> {
    let chroma = bits.number_up_to(3)?;
    bits.skip(usize::from(chroma == 3));
    bits.number()?;
    bits.number()?;
    bits.skip(1);
    if bits.flag()? {
        for list in 0..if chroma == 3 { 12 } else { 8 } {
            if bits.flag()? {
                skip_scaling_list(bits, if list < 6 { 16 } else { 64 })?;
            }
        }
    }
    Some(chroma)
}

/// H.264 7.3.2.1.1.1. A step to zero is the last one.
fn skip_scaling_list(bits: &mut Bits<'_>, size: u32) -> Option<()> {
    let mut scale = 8_i64;
    for _ in 0..size {
        let code = i64::from(bits.number()?);
        let step = if code & 1 == 1 { (code + 1) / 2 } else { -code / 2 };
        scale = (scale + step) & 0xff;
        if scale == 0 {
            break;
        }
    }
    Some(())
}

/// H.264 E.1.1: how long a picture of two fields is shown, in which parts of a second.
fn timing(bits: &mut Bits<'_>) -> Option<(f64, f64)> {
    if bits.flag()? && bits.byte(8)? == EXTENDED_SAR {
        bits.skip(32);
    }
    if bits.flag()? {
        bits.skip(1); // overscan_appropriate_flag
    }
    if bits.flag()? {
        bits.skip(4); // video_format, video_full_range_flag
        if bits.flag()? {
            bits.skip(24);
        }
    }
    if bits.flag()? {
        bits.number()?;
        bits.number()?;
    }
    if !bits.flag()? {
        return None;
    }
    let (units, scale) = (bits.take(32)?, bits.take(32)?);
    Some((f64::from(units) * 2.0, scale.into()))
}

/// H.264 7.3.2.1.1.
const HIGH_PROFILES: [u8; 13] = [100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135];
/// `chroma_format_idc` (H.264 table 6-1).
const CHROMA_420: u8 = 1;
const CHROMA_422: u8 = 2;
/// H.264 table E-1.
const EXTENDED_SAR: u8 = 255;
/// H.265 table 7-1.
const HEVC_SEQUENCE: u8 = 33;
/// Judgement: twice what any level has.
const SIDE_PIXELS_MAX: u32 = 1 << 15;
/// Judgement: where times are finer, encoders say how fine, and not how many pictures there are.
const RATES: std::ops::RangeInclusive<f64> = 1.0..=300.0;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Of x264: 160x120 at 25 Hz; 1920x1080 at 29.97 Hz with fields; 322x182 at 50 Hz, 4:2:2 with scaling lists, and 4:4:4.
    const AVC: [(&[u8], Shape); 4] = [
        (
            &[
                0x67, 0x64, 0x00, 0x0b, 0xac, 0xd9, 0x42, 0x84, 0x7e, 0x5c, 0x04, 0x40, 0x00, 0x00, 0x03, 0x00, 0x40,
                0x00, 0x00, 0x0c, 0x83, 0xc5, 0x0a, 0x65, 0x80,
            ],
            Shape { width: 160, height: 120, frame_rate: Some(25.0) },
        ),
        (
            &[
                0x67, 0x4d, 0x40, 0x28, 0xf4, 0x03, 0xc0, 0x22, 0x7e, 0xf0, 0x11, 0x00, 0x00, 0x03, 0x03, 0xe9, 0x00,
                0x00, 0xea, 0x60, 0x1f, 0x16, 0x2e, 0xa0,
            ],
            Shape { width: 1_920, height: 1_080, frame_rate: Some(30_000.0 / 1_001.0) },
        ),
        (
            &[
                0x67, 0x7a, 0x00, 0x15, 0xbc, 0xb4, 0x0a, 0x8c, 0xf1, 0x11, 0x78, 0x08, 0x80, 0x00, 0x00, 0x03, 0x00,
                0x80, 0x00, 0x00, 0x32, 0x07, 0x8b, 0x17, 0x50,
            ],
            Shape { width: 322, height: 182, frame_rate: Some(50.0) },
        ),
        (
            &[
                0x67, 0xf4, 0x00, 0x15, 0x91, 0x96, 0x81, 0x51, 0x9e, 0x3e, 0x2f, 0x01, 0x10, 0x00, 0x00, 0x03, 0x00,
                0x10, 0x00, 0x00, 0x06, 0x40, 0xf1, 0x62, 0xea,
            ],
            Shape { width: 322, height: 182, frame_rate: Some(50.0) },
        ),
    ];
    /// Of x265.
    const HEVC: [u8; 46] = [
        0x42, 0x01, 0x01, 0x01, 0x60, 0x00, 0x00, 0x03, 0x00, 0x90, 0x00, 0x00, 0x03, 0x00, 0x00, 0x03, 0x00, 0x3c,
        0xa0, 0x0a, 0x88, 0x0c, 0x1c, 0x44, 0xd9, 0x65, 0x65, 0x4a, 0x4c, 0x2f, 0x01, 0x68, 0x08, 0x00, 0x00, 0x03,
        0x00, 0x08, 0x00, 0x00, 0x03, 0x01, 0x90, 0x40, 0, 0,
    ];

    fn avc_record(set: &[u8]) -> Vec<u8> {
        [&[1, 100, 0, 11, 0xff, 0xe1, 0, set.len() as u8][..], set].concat()
    }

    #[test]
    fn size_and_rate_are_what_the_encoder_was_given() {
        for (set, shape) in AVC {
            assert_eq!(Shape::parse(Codec::H264, &avc_record(set)), Some(shape));
            for len in 0..set.len() {
                let cut = Shape::parse(Codec::H264, &avc_record(&set[..len]));
                let is_same = |cut: Shape| (cut.width, cut.height) == (shape.width, shape.height);
                assert!(cut.is_none_or(is_same), "{len}: {cut:?}");
            }
        }
        let others = [0xa0, 0, 1, 0, 2, 7, 7, 0xa1, 0, 1, 0, HEVC.len() as u8];
        let record = [&[1; 22][..], &[2], &others, &HEVC].concat();
        let shape = Shape { width: 322, height: 182, frame_rate: None };
        assert_eq!(Shape::parse(Codec::Hevc, &record), Some(shape));
        // Of libsvtav1.
        let sequence = [0x0a, 14, 0x02, 0, 0, 5, 0x21, 0xe7, 0xf6, 0x62, 0x57, 0xc8, 0x81, 0x01, 0, 0x82];
        let shape = Shape::parse(Codec::Av1, &[&[0x81, 0, 0x0c, 0][..], &sequence].concat()).unwrap();
        assert_eq!((shape.width, shape.height), (320, 180));
    }

    proptest! {
        #[test]
        fn any_record_has_a_shape_or_none(head in 0..3_usize, bytes: Vec<u8>) {
            let head = [&[1, 100, 0, 11, 0xff, 0xe1, 0, 40, 0x67][..], &[1; 22], &[0x81, 0, 0x0c, 0, 0x0a, 14]][head];
            for codec in [Codec::H264, Codec::Hevc, Codec::Av1] {
                if let Some(shape) = Shape::parse(codec, &[head, &bytes].concat()) {
                    prop_assert!(shape.width > 0 && shape.height > 0);
                }
            }
        }
    }
}
