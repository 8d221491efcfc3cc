//! MPEG audio frame headers (11172-3 2.4.1.3, 13818-3 2.4.1.3).

use super::{AudioFormat, HeaderError};
use crate::media::bits::Bits;
use crate::proto::mpegts::demux::Codec;

/// The first frame header in `bytes`.
pub(super) fn read(bytes: &[u8]) -> Result<AudioFormat, HeaderError> {
    let headers = bytes.windows(4).take(SEARCH_BYTES).filter(|four| four[0] == 0xff && four[1] & 0xe0 == 0xe0);
    let mut error = HeaderError::Value;
    for header in headers {
        match read_header(header) {
            Ok(format) => return Ok(format),
            Err(other) => error = other,
        }
    }
    Err(error)
}

fn read_header(header: &[u8]) -> Result<AudioFormat, HeaderError> {
    let mut bits = Bits::new(header);
    bits.skip(11)?;
    let version = bits.take(2)?;
    let layer = bits.byte(2)?;
    bits.skip(1)?; // protection_bit
    let rate = bits.take(4)? as usize;
    let sampling = bits.take(2)? as usize;
    bits.skip(2)?; // padding_bit, private_bit
    let mono = bits.take(2)? == 3;
    let layer = match layer {
        1..=3 => 4 - layer,
        _ => return Err(HeaderError::Value),
    };
    // 3 is MPEG-1, 2 has half the rates, 0 (MPEG-2.5) a quarter, 1 is reserved.
    let divisor = match version {
        3 => 1,
        2 => 2,
        0 => 4,
        _ => return Err(HeaderError::Value),
    };
    let sample_rate = *[44_100, 48_000, 32_000].get(sampling).ok_or(HeaderError::Value)? / divisor;
    let table = match (divisor, layer) {
        (1, 1) => &KBPS_LAYER_1,
        (1, 2) => &KBPS_LAYER_2,
        (1, _) => &KBPS_LAYER_3,
        (_, 1) => &KBPS_LOW_LAYER_1,
        _ => &KBPS_LOW,
    };
    let kbps = *table.get(rate).ok_or(HeaderError::Value)?;
    Ok(AudioFormat {
        codec: Codec::MpegAudio,
        profile: None,
        layer: Some(layer),
        sample_rate,
        channels: Some(if mono { 1 } else { 2 }),
        // Index 0 is a free format.
        bit_rate: Some(kbps * 1_000).filter(|rate| *rate > 0),
    })
}

/// Layer and bytes of each whole frame in `bytes`. What is no frame is passed over; free formats are none here.
pub(in crate::media) fn frames(bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        loop {
            let at = rest.windows(4).position(|four| four[0] == 0xff && four[1] & 0xe0 == 0xe0)?;
            rest = rest.get(at..)?;
            let Some((layer, length)) = rest.get(..4).and_then(frame_length) else {
                rest = rest.get(1..)?;
                continue;
            };
            let (frame, after) = rest.split_at_checked(length)?;
            rest = after;
            return Some((layer, frame));
        }
    })
}

/// Layer and length in bytes (11172-3 2.4.3.1).
fn frame_length(header: &[u8]) -> Option<(u8, usize)> {
    let format = read_header(header).ok()?;
    let (layer, bit_rate) = (format.layer?, format.bit_rate?);
    let padding = u32::from(header.get(2)? >> 1 & 1);
    // MPEG-2 has frames of layer III of half the samples.
    let low = header.get(1)? >> 3 & 3 != 3;
    let length = match (layer, low) {
        (1, _) => (12 * bit_rate / format.sample_rate + padding) * 4,
        (3, true) => 72 * bit_rate / format.sample_rate + padding,
        _ => 144 * bit_rate / format.sample_rate + padding,
    };
    (length > 4).then_some((layer, length as usize))
}

/// Frames begin where the PES packet does; only broken ones have something before.
const SEARCH_BYTES: usize = 8_192;

/// 11172-3 2.4.2.3 and 13818-3 2.4.2.3; index 15 is forbidden.
const KBPS_LAYER_1: [u32; 15] = [0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448];
const KBPS_LAYER_2: [u32; 15] = [0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384];
const KBPS_LAYER_3: [u32; 15] = [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320];
const KBPS_LOW_LAYER_1: [u32; 15] = [0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256];
const KBPS_LOW: [u32; 15] = [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160];
