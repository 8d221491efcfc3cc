//! What a stream is, as `onMetaData` has it (FLV E.5; E-RTMP "Metadata Frame"): players show it, and servers their users.

use super::frames::AAC_RATES;
use super::shape::Shape;
use crate::proto::rtmp::amf::Value;
use crate::proto::rtmp::flv::{AccessUnit, Codec};

/// As far as the headers of its first picture and its first sound say.
pub(super) fn metadata(headers: &[AccessUnit]) -> Vec<(String, Value)> {
    let first = |is_video: bool| {
        let of_kind = headers.iter().filter(|header| header.codec.is_video() == is_video);
        of_kind.min_by_key(|header| header.track)
    };
    let mut fields = Vec::new();
    let mut number = |name: &str, value: f64| fields.push((name.to_owned(), Value::Number(value)));
    if let Some(picture) = first(true) {
        number("videocodecid", id(picture.codec));
        if let Some(shape) = Shape::parse(picture.codec, &picture.bytes) {
            number("width", shape.width.into());
            number("height", shape.height.into());
            if let Some(rate) = shape.frame_rate {
                number("framerate", rate);
            }
        }
    }
    let mut channels = None;
    if let Some(sound) = first(false) {
        number("audiocodecid", id(sound.codec));
        if let Some((rate_hz, count)) = sound_of(sound.codec, &sound.bytes) {
            number("audiosamplerate", rate_hz);
            channels = Some(count);
        }
    }
    fields.extend(channels.map(|count| ("stereo".to_owned(), Value::Boolean(count > 1))));
    fields.push(("encoder".to_owned(), Value::text("anabranch")));
    fields
}

/// The number of FLV (E.4.2.1, E.4.3.1), or for codecs that have none the FourCC as a number.
fn id(codec: Codec) -> f64 {
    match codec {
        Codec::H264 => 7.0,
        Codec::Aac => 10.0,
        Codec::Hevc | Codec::Av1 | Codec::Vp9 | Codec::Opus | Codec::Ac3 | Codec::Eac3 => {
            u32::from_be_bytes(codec.fourcc()).into()
        }
    }
}

/// Samples a second, and channels; of AAC by its `AudioSpecificConfig` (14496-3 1.6.2.1), of Opus by its header.
fn sound_of(codec: Codec, header: &[u8]) -> Option<(f64, u8)> {
    match (codec, header) {
        (Codec::Aac, [first, second, ..]) => {
            let rate_hz = *AAC_RATES.get(usize::from((first & 7) << 1 | second >> 7))?;
            Some((rate_hz as f64, second >> 3 & 15))
        }
        (Codec::Opus, _) => Some((48_000.0, *header.get(9)?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::rtmp::flv::Content;
    use crate::units::Ticks90k;

    fn header(codec: Codec, bytes: &[u8]) -> AccessUnit {
        let (dts, pts) = (Ticks90k(0), Ticks90k(0));
        AccessUnit { track: 0, codec, content: Content::Header, dts, pts, bytes: bytes.to_vec().into() }
    }

    fn number(name: &str, value: f64) -> (String, Value) {
        (name.to_owned(), Value::Number(value))
    }

    fn encoder() -> (String, Value) {
        ("encoder".to_owned(), Value::text("anabranch"))
    }

    #[test]
    fn what_headers_do_not_say_is_left_out() {
        assert_eq!(metadata(&[]), [encoder()]);
        let stereo = |is| ("stereo".to_owned(), Value::Boolean(is));
        let expected = [number("audiocodecid", 10.0), number("audiosamplerate", 44_100.0), stereo(false), encoder()];
        assert_eq!(metadata(&[header(Codec::Aac, &[0x12, 0x08])]), expected);
        let cut = [header(Codec::H264, &[1, 100]), header(Codec::Aac, &[0x17])];
        assert_eq!(metadata(&cut), [number("videocodecid", 7.0), number("audiocodecid", 10.0), encoder()]);
    }

    #[test]
    fn codecs_beyond_flv_are_named_by_their_fourcc() {
        let told = metadata(&[header(Codec::Hevc, &[]), header(Codec::Opus, b"OpusHead\x01\x02")]);
        assert_eq!(told[..2], [number("videocodecid", 1_752_589_105.0), number("audiocodecid", 1_332_770_163.0)]);
        assert_eq!(told[2..4], [number("audiosamplerate", 48_000.0), ("stereo".to_owned(), Value::Boolean(true))]);
    }
}
