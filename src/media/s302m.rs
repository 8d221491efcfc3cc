//! Linear PCM of AES3 in MPEG-2 transport streams (SMPTE ST 302): no codec, but samples with their bits turned round.

use super::decode::DecodeError;
use super::headers::{AudioFormat, HeaderError};
use super::sound::{Sound, places};
use crate::proto::mpegts::demux::Codec;

/// The header of a PES packet's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    /// Bytes behind the header.
    bytes: usize,
    channels: usize,
    /// Of a sample: 16, 20 or 24.
    bits: u32,
}

fn read_header(bytes: &[u8]) -> Result<Header, HeaderError> {
    let word = u32::from_be_bytes(*bytes.first_chunk::<4>().ok_or(HeaderError::Truncated)?);
    let bits = match word >> 4 & 3 {
        0 => 16,
        1 => 20,
        2 => 24,
        _ => return Err(HeaderError::Value),
    };
    Ok(Header { bytes: (word >> 16) as usize, channels: 2 + 2 * (word >> 14 & 3) as usize, bits })
}

/// What the header says; the rate is always 48 kHz.
pub(super) fn read(bytes: &[u8]) -> Result<AudioFormat, HeaderError> {
    let header = read_header(bytes)?;
    let sample_bits = header.channels * (header.bits + AES3_BITS) as usize;
    let samples = (header.bytes * 8 / sample_bits).max(1) as u32;
    Ok(AudioFormat {
        codec: Codec::Smpte302m,
        profile: None,
        layer: None,
        sample_rate: RATE_HZ,
        channels: Some(header.channels as u8),
        // With the header, which each packet has.
        bit_rate: Some(RATE_HZ * sample_bits as u32 + RATE_HZ * 32 / samples),
    })
}

/// Shows the samples of a PES packet's payload; `planes` is room for them.
pub(super) fn decode(
    bytes: &[u8],
    planes: &mut Vec<Vec<f32>>,
    show: &mut impl FnMut(Sound<'_>),
) -> Result<(), DecodeError> {
    let header = read_header(bytes).map_err(|_| DecodeError::Damaged("AES3 header"))?;
    let payload = bytes.get(4..4 + header.bytes).ok_or(DecodeError::Damaged("AES3 payload is cut short"))?;
    planes.resize_with(header.channels, Vec::new);
    planes.iter_mut().for_each(Vec::clear);
    let pair_bytes = (header.bits + AES3_BITS) as usize / 4;
    let mut channel = 0;
    for pair in payload.chunks_exact(pair_bytes) {
        let mut word = [0; 8];
        word[..pair_bytes].copy_from_slice(pair);
        let word = u64::from_be_bytes(word);
        let left = sample(word, header.bits);
        let right = sample(word << (header.bits + AES3_BITS), header.bits);
        let low = |value: i32| (value >> (32 - header.bits)) as u16;
        if (low(left), low(right)) == DATA_PREAMBLE {
            return Err(DecodeError::Unsupported("data in AES3, as Dolby E"));
        }
        for value in [left, right] {
            if let Some(plane) = planes.get_mut(channel) {
                plane.push(value as f32 / 2_147_483_648.0);
            }
            channel = (channel + 1) % header.channels;
        }
    }
    // The last sample of some channels may be missing.
    let samples = planes.iter().map(Vec::len).min().unwrap_or_default();
    let mut channels: [&[f32]; CHANNELS_MAX] = [&[]; CHANNELS_MAX];
    for (place, channel) in channels.iter_mut().enumerate().take(header.channels) {
        let from = if header.channels == ORDER_OF_SIX.len() { ORDER_OF_SIX[place] } else { place };
        *channel = planes.get(from).and_then(|plane| plane.get(..samples)).unwrap_or_default();
    }
    let places = places(header.channels);
    show(Sound { rate: RATE_HZ, channels: &channels[..header.channels.min(CHANNELS_MAX)], places });
    Ok(())
}

/// The sample at the top of `word`, least significant bit first, as the top of 32 bits.
const fn sample(word: u64, bits: u32) -> i32 {
    ((word >> (64 - bits)) as u32).reverse_bits() as i32
}

const RATE_HZ: u32 = 48_000;
/// Behind each sample: validity, user data, channel status, and the start of a block.
const AES3_BITS: u32 = 4;
const CHANNELS_MAX: usize = 8;
/// Six channels are those of SMPTE ST 320: left, right, centre, low frequencies, the two surrounds. Where each of MPEG's
/// order stands.
const ORDER_OF_SIX: [usize; 6] = [2, 0, 1, 4, 5, 3];
/// Pa and Pb of SMPTE ST 337 begin a burst of data; with more bits a sample only gets longer at its top.
const DATA_PREAMBLE: (u16, u16) = (0xf872, 0x4e1f);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_turned_round_and_data_is_not_taken_for_sound() {
        // Two samples of 16 bits, 0x4000 and -0x8000, least significant bit first, each followed by four bits.
        let bytes = [0, 5, 0, 0, 0x00, 0x02, 0xf0, 0x00, 0x1f];
        let mut shown = Vec::new();
        let mut show = |sound: Sound<'_>| shown.push(sound.channels.concat());
        decode(&bytes, &mut Vec::new(), &mut show).unwrap();
        assert_eq!(shown, [[0.5, -1.0]]);
        let pa = 0xf872_u16.reverse_bits().to_be_bytes();
        let pb = u32::from(0x4e1f_u16.reverse_bits()) << 4;
        let data = [0, 5, 0, 0, pa[0], pa[1], (pb >> 16) as u8, (pb >> 8) as u8, pb as u8];
        let error = decode(&data, &mut Vec::new(), &mut |_| {});
        assert!(matches!(error, Err(DecodeError::Unsupported(_))));
        for len in 0..bytes.len() {
            assert!(decode(&bytes[..len], &mut Vec::new(), &mut |_| {}).is_err());
        }
        // Three pairs, of which the third is missing the second time.
        let pair = |value: u8| [0, value, 0xf0 & value << 4, 0, 0];
        let mut six = vec![0, 25, 0x80, 0];
        (1..=5).for_each(|value| six.extend(pair(value)));
        let mut shown = Vec::new();
        let mut show = |sound: Sound<'_>| shown.extend(sound.channels.iter().map(|channel| channel.to_vec()));
        decode(&six, &mut Vec::new(), &mut show).unwrap();
        assert!(shown.iter().all(|channel| channel.len() == 1), "{shown:?}");
        let sample = |value: u8| f32::from((u16::from(value)).reverse_bits() as i16) / 32_768.0;
        // The first of each pair: left, centre, left surround are channels 0, 2 and 4.
        assert_eq!([shown[1][0], shown[0][0], shown[3][0]], [1, 2, 3].map(sample));
        let four = read(&[0x40, 0, 0x40, 0x20]).unwrap();
        assert_eq!((four.channels, four.bit_rate), (Some(4), Some(5_376_000 + 1_312)));
        assert_eq!(read(&[0, 5, 0, 0x30]), Err(HeaderError::Value));
    }
}
