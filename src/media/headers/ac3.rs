//! AC-3 and E-AC-3 sync frames (ETSI TS 102 366 4.4 and E.1.3).

use super::{AudioFormat, HeaderError};
use crate::media::bits::Bits;
use crate::proto::mpegts::demux::Codec;

/// The first sync frame in `bytes`.
pub(super) fn read(bytes: &[u8]) -> Result<AudioFormat, HeaderError> {
    let at = bytes.windows(2).take(SEARCH_BYTES).position(|pair| pair == [0x0b, 0x77]);
    let frame = bytes.get(at.ok_or(HeaderError::Value)?..).unwrap_or_default();
    // bsid stands at the same place in both.
    match frame.get(5).ok_or(HeaderError::Truncated)? >> 3 {
        0..=10 => read_ac3(frame),
        11..=16 => read_eac3(frame),
        _ => Err(HeaderError::Value),
    }
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

/// Frames begin where the PES packet does; only broken ones have something before.
const SEARCH_BYTES: usize = 8_192;

const SAMPLE_RATES: [u32; 3] = [48_000, 44_100, 32_000];

/// By `acmod` (table 4.3).
const CHANNELS: [u8; 8] = [2, 1, 2, 3, 3, 4, 4, 5];

/// By `frmsizecod` / 2 (table 4.13).
const KBPS: [u32; 19] = [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640];
