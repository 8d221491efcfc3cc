//! AC-3 and E-AC-3 sync frames (ETSI TS 102 366 4.4 and E.1.3).

use super::{AudioFormat, HeaderError};
use crate::media::bits::Bits;
use crate::proto::mpegts::demux::Codec;

/// The first sync frame in `bytes`.
pub(in crate::media) fn read(bytes: &[u8]) -> Result<AudioFormat, HeaderError> {
    let at = bytes.windows(2).take(SEARCH_BYTES).position(|pair| pair == SYNC);
    let frame = bytes.get(at.ok_or(HeaderError::Value)?..).unwrap_or_default();
    // bsid stands at the same place in both.
    match frame.get(5).ok_or(HeaderError::Truncated)? >> 3 {
        0..=10 => read_ac3(frame),
        11..=16 => read_eac3(frame),
        _ => Err(HeaderError::Value),
    }
}

/// Sync frames to be decoded one after the other: of E-AC-3 each with the dependent ones that add channels to it, of
/// several programmes the first.
pub(in crate::media) fn frames(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        loop {
            let at = rest.windows(2).position(|pair| pair == SYNC)?;
            rest = rest.get(at..)?;
            let Some((mut length, independent)) = substream(rest) else {
                rest = rest.get(SYNC.len()..)?;
                continue;
            };
            while let Some((more, None)) = rest.get(length..).and_then(substream) {
                length += more;
            }
            let (frame, after) = rest.split_at_checked(length)?;
            rest = after;
            if independent.is_none_or(|id| id == 0) {
                return Some(frame);
            }
        }
    })
}

/// Length of the sync frame that `bytes` begin with, and its number if it is an independent one.
fn substream(bytes: &[u8]) -> Option<(usize, Option<u8>)> {
    let header = bytes.first_chunk::<6>().filter(|header| header.starts_with(&SYNC))?;
    if header[5] >> 3 > 10 {
        let length = (usize::from(header[2] & 7) << 8 | usize::from(header[3])) * 2 + 2;
        let independent = (header[2] >> 6 != 1).then_some(header[2] >> 3 & 7);
        return Some((length, independent));
    }
    let (sampling, size) = (usize::from(header[4] >> 6), usize::from(header[4] & 0x3f));
    let kbps = *KBPS.get(size / 2)? as usize;
    // Words of 16 bits in 1536 samples; at 44.1 kHz that is no whole number, and odd sizes are one longer.
    let words = match sampling {
        0 => kbps * 2,
        1 => kbps * 96_000 / 44_100 + (size & 1),
        2 => kbps * 3,
        _ => return None,
    };
    Some((words * 2, Some(0)))
}

fn read_ac3(frame: &[u8]) -> Result<AudioFormat, HeaderError> {
    let mut bits = Bits::new(frame);
    bits.skip(32)?; // syncword, crc1
    let sampling = bits.take(2)? as usize;
    let size = bits.take(6)? as usize;
    let reduction = bits.take(5)?.saturating_sub(8); // bsid above 8 halves the rates
    bits.skip(3)?; // bsmod
    let mode = bits.byte(3)?;
    if mode & 1 != 0 && mode != 1 {
        bits.skip(2)?; // cmixlev
    }
    if mode & 4 != 0 {
        bits.skip(2)?; // surmixlev
    }
    if mode == 2 {
        bits.skip(2)?; // dsurmod
    }
    let low_frequency = bits.flag()?;
    let sample_rate = *SAMPLE_RATES.get(sampling).ok_or(HeaderError::Value)? >> reduction;
    let kbps = *KBPS.get(size / 2).ok_or(HeaderError::Value)?;
    Ok(format(Codec::Ac3, sample_rate, mode, low_frequency, (kbps * 1_000) >> reduction))
}

fn read_eac3(frame: &[u8]) -> Result<AudioFormat, HeaderError> {
    let mut bits = Bits::new(frame);
    bits.skip(16 + 2 + 3)?; // syncword, strmtyp, substreamid
    let bytes = (bits.take(11)? + 1) * 2;
    let sampling = bits.take(2)? as usize;
    let (sample_rate, blocks) = if sampling == 3 {
        (*SAMPLE_RATES.get(bits.take(2)? as usize).ok_or(HeaderError::Value)? / 2, 6)
    } else {
        let rate = *SAMPLE_RATES.get(sampling).ok_or(HeaderError::Value)?;
        (rate, [1, 2, 3, 6].get(bits.take(2)? as usize).copied().unwrap_or(6))
    };
    let mode = bits.byte(3)?;
    let low_frequency = bits.flag()?;
    // A frame is `blocks` times 256 samples.
    let bit_rate = u64::from(bytes) * 8 * u64::from(sample_rate) / (blocks * 256);
    Ok(format(Codec::Eac3, sample_rate, mode, low_frequency, bit_rate as u32))
}

fn format(codec: Codec, sample_rate: u32, mode: u8, low_frequency: bool, bit_rate: u32) -> AudioFormat {
    let channels = CHANNELS[usize::from(mode & 7)] + u8::from(low_frequency);
    AudioFormat { codec, profile: None, layer: None, sample_rate, channels: Some(channels), bit_rate: Some(bit_rate) }
}

const SYNC: [u8; 2] = [0x0b, 0x77];

/// Frames begin where the PES packet does; only broken ones have something before.
const SEARCH_BYTES: usize = 8_192;

const SAMPLE_RATES: [u32; 3] = [48_000, 44_100, 32_000];

/// By `acmod` (table 4.3).
const CHANNELS: [u8; 8] = [2, 1, 2, 3, 3, 4, 4, 5];

/// By `frmsizecod` / 2 (table 4.13).
const KBPS: [u32; 19] = [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_follow_each_other_with_what_depends_on_them() {
        // 64 kb/s at 48 kHz and, odd, at 44.1 kHz; bsid 8.
        let ac3 = |sampling_and_size: u8, bytes: usize| {
            let mut frame = vec![0x0b, 0x77, 0, 0, sampling_and_size, 0x40];
            frame.resize(bytes, 0);
            frame
        };
        let bytes = [vec![1, 2], ac3(0x08, 256), ac3(0x49, 280), ac3(0x08, 256)[..100].to_vec()].concat();
        assert_eq!(frames(&bytes).map(<[u8]>::len).collect::<Vec<_>>(), [256, 280]);
        // E-AC-3 of 20 bytes: programme 0, what depends on it, programme 1, programme 0; bsid 16.
        let eac3 = |kind: u8, id: u8| {
            let mut frame = vec![0x0b, 0x77, kind << 6 | id << 3, 9, 0, 0x80];
            frame.resize(20, 0);
            frame
        };
        let bytes = [eac3(0, 0), eac3(1, 0), eac3(0, 1), eac3(0, 0)].concat();
        assert_eq!(frames(&bytes).map(<[u8]>::len).collect::<Vec<_>>(), [40, 20]);
    }
}
