//! AAC: ADTS frames (13818-7 6.2) and LOAS/LATM with its stream configuration (14496-3 1.6 and 1.7).

use super::{AudioFormat, HeaderError};
use crate::media::bits::Bits;
use crate::proto::mpegts::demux::Codec;

/// The first ADTS header in `bytes`.
pub(super) fn read_adts(bytes: &[u8]) -> Result<AudioFormat, HeaderError> {
    let at = bytes.windows(2).take(SEARCH_BYTES).position(|pair| pair[0] == 0xff && pair[1] & 0xf6 == 0xf0);
    let mut bits = Bits::new(bytes.get(at.ok_or(HeaderError::Value)?..).unwrap_or_default());
    bits.skip(16)?;
    let object = bits.byte(2)? + 1;
    let rate = bits.take(4)?;
    bits.skip(1)?; // private_bit
    let channels = bits.byte(3)?;
    let sample_rate = *SAMPLE_RATES.get(rate as usize).ok_or(HeaderError::Value)?;
    Ok(format(Codec::Aac, object, sample_rate, CHANNELS.get(usize::from(channels)).copied().flatten()))
}

/// The first LATM frame in `bytes`: [`HeaderError::Unknown`] if it leaves the configuration to one before.
pub(super) fn read_loas(bytes: &[u8]) -> Result<AudioFormat, HeaderError> {
    let at = bytes.windows(2).take(SEARCH_BYTES).position(|pair| pair[0] == 0x56 && pair[1] & 0xe0 == 0xe0);
    let mut bits = Bits::new(bytes.get(at.ok_or(HeaderError::Value)?..).unwrap_or_default());
    bits.skip(24)?; // sync and length
    if bits.flag()? {
        return Err(HeaderError::Unknown); // useSameStreamMux
    }
    // StreamMuxConfig (1.7.3).
    let version = bits.flag()?;
    if version && bits.flag()? {
        return Err(HeaderError::Unknown); // audioMuxVersionA has no layout yet
    }
    if version {
        skip_latm_value(&mut bits)?; // taraBufferFullness
    }
    bits.skip(1 + 6 + 4 + 3)?; // allStreamsSameTimeFraming, numSubFrames, numProgram, numLayer
    if version {
        skip_latm_value(&mut bits)?; // ascLen
    }
    read_config(&mut bits)
}

/// `AudioSpecificConfig` (1.6.2.1), as far as it says rate and channels.
fn read_config(bits: &mut Bits<'_>) -> Result<AudioFormat, HeaderError> {
    let object = read_object(bits)?;
    let mut rate = read_rate(bits)?;
    let channels = bits.byte(4)?;
    if object == SBR || object == PS {
        rate = read_rate(bits)?;
    }
    let channels = CHANNELS.get(usize::from(channels)).copied().flatten();
    Ok(format(Codec::AacLatm, object, rate, if object == PS { Some(2) } else { channels }))
}

fn format(codec: Codec, object: u8, sample_rate: u32, channels: Option<u8>) -> AudioFormat {
    let profile = match object {
        1 => Some("Main"),
        2 => Some("LC"),
        3 => Some("SSR"),
        4 => Some("LTP"),
        SBR => Some("HE-AAC"),
        23 => Some("LD"),
        PS => Some("HE-AACv2"),
        39 => Some("ELD"),
        _ => None,
    };
    AudioFormat { codec, profile, layer: None, sample_rate, channels, bit_rate: None }
}

fn read_object(bits: &mut Bits<'_>) -> Result<u8, HeaderError> {
    match bits.byte(5)? {
        31 => Ok(32 + bits.byte(6)?),
        object => Ok(object),
    }
}

fn read_rate(bits: &mut Bits<'_>) -> Result<u32, HeaderError> {
    let index = bits.take(4)? as usize;
    let rate = if index == 15 { bits.take(24)? } else { *SAMPLE_RATES.get(index).ok_or(HeaderError::Value)? };
    if rate == 0 { Err(HeaderError::Value) } else { Ok(rate) }
}

/// `LatmGetValue` (1.7.3.1).
fn skip_latm_value(bits: &mut Bits<'_>) -> Result<(), HeaderError> {
    let bytes = bits.take(2)? + 1;
    bits.skip(8 * bytes as usize)
}

/// Frames begin where the PES packet does; only broken ones have something before.
const SEARCH_BYTES: usize = 8_192;
/// Audio object types (table 1.17).
const SBR: u8 = 5;
const PS: u8 = 29;

/// Table 1.18.
const SAMPLE_RATES: [u32; 13] =
    [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350];

/// Table 1.19; 0 says that the configuration lists them, which is not read.
const CHANNELS: [Option<u8>; 16] = [
    None,
    Some(1),
    Some(2),
    Some(3),
    Some(4),
    Some(5),
    Some(6),
    Some(8),
    None,
    None,
    None,
    Some(7),
    Some(8),
    None,
    Some(8),
    None,
];
