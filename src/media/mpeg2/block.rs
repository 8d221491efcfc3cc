//! One block of 8 by 8 samples: its codes, weights and inverse transform (13818-2 7.2 to 7.5).

use super::tables::{Code, TABLE_ONE, TABLE_ZERO};
use crate::media::decode::DecodeError;

/// Reads the bits of a slice; behind the end there are zeros.
#[derive(Debug)]
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// What blocks of a slice have in common, and what they know of those before.
#[derive(Debug)]
pub(super) struct Coding<'a> {
    pub(super) mpeg1: bool,
    pub(super) dc_precision: u32,
    pub(super) table_one: bool,
    pub(super) scan: &'static [u8; 64],
    /// Of intra and of other blocks, each for luma and colour.
    pub(super) weights: &'a [[[u8; 64]; 2]; 2],
    /// DC coefficients of the blocks before, for each plane.
    pub(super) predictors: [i32; 3],
}

impl<'a> BitReader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// More was read than there is.
    pub(super) const fn is_over(&self) -> bool {
        self.at > self.bytes.len() * 8
    }

    /// The next `count` bits, at most 32, which stay.
    pub(super) fn peek(&self, count: u32) -> u32 {
        let rest = self.bytes.get(self.at / 8..).unwrap_or_default();
        let word = rest.first_chunk::<8>().map_or_else(
            || {
                let mut padded = [0; 8];
                padded[..rest.len().min(8)].copy_from_slice(&rest[..rest.len().min(8)]);
                u64::from_be_bytes(padded)
            },
            |bytes| u64::from_be_bytes(*bytes),
        );
        ((word << (self.at % 8)) >> 32 >> (32 - count)) as u32
    }

    /// The next `count` bits, at most 31.
    pub(super) fn take(&mut self, count: u32) -> u32 {
        let bits = self.peek(count);
        self.at += count as usize;
        bits
    }

    /// `macroblock_address_increment` with its escapes (table B.1): at least 1.
    pub(super) fn address_increment(&mut self) -> Result<usize, DecodeError> {
        let mut sum = 0;
        loop {
            let bits = self.peek(11) as usize;
            match bits {
                8 => sum += 33,
                15 => {} // stuffing of MPEG-1
                _ => break,
            }
            self.at += 11;
            if self.is_over() {
                return Err(DecodeError::Damaged("a slice ends too early"));
            }
        }
        let bits = self.peek(11) as usize;
        let (length, value) = match bits {
            1_024.. => (1, 1),
            512.. => (3, 5 - (bits >> 8)),
            256.. => (4, 7 - (bits >> 7)),
            128.. => (5, 9 - (bits >> 6)),
            96.. => (7, 15 - (bits >> 4)),
            48.. => (8, 21 - (bits >> 3)),
            36.. => (10, 39 - (bits >> 1)),
            24.. => (11, 57 - bits),
            _ => return Err(DecodeError::Damaged("no macroblock address")),
        };
        self.at += length;
        Ok(sum + value)
    }

    /// `motion_code` (table B.10).
    pub(super) fn motion_code(&mut self) -> Result<i32, DecodeError> {
        let bits = self.peek(10);
        let (length, size) = match bits {
            512.. => (1, 0),
            256.. => (3, 1),
            128.. => (4, 2),
            64.. => (5, 3),
            48.. => (7, 4),
            24.. => (8, 10 - (bits >> 3)),
            18.. => (10, 19 - (bits >> 1)),
            12.. => (11, 28 - bits),
            _ => return Err(DecodeError::Damaged("no code of a vector")),
        };
        // The last bit is the sign.
        let negative = length > 1 && self.peek(length) & 1 == 1;
        self.at += length as usize;
        Ok(if negative { -(size as i32) } else { size as i32 })
    }

    /// `dmvector` (table B.11).
    pub(super) fn dual_prime(&mut self) -> i32 {
        if self.take(1) == 0 {
            return 0;
        }
        if self.take(1) == 0 { 1 } else { -1 }
    }

    /// `dct_dc_size` and the difference that it is the size of (tables B.12 and B.13).
    fn dc_difference(&mut self, luma: bool) -> i32 {
        let ones = (self.peek(16) as u16).leading_ones();
        let (length, size) = if luma {
            match ones {
                0 => (2, 1 + (self.peek(2) & 1)),
                1 if self.peek(3) == 0b100 => (3, 0),
                1 => (3, 3),
                2 => (3, 4),
                ones => ((ones + 1).min(9), ones.min(9) + 2),
            }
        } else {
            match ones {
                0 => (2, self.peek(2)),
                1 => (2, 2),
                ones => ((ones + 1).min(10), ones.min(10) + 1),
            }
        };
        self.at += length as usize;
        let size = size.min(11);
        let value = self.take(size) as i32;
        if size > 0 && value >> (size - 1) == 0 { value + 1 - (1 << size) } else { value }
    }
}

impl Coding<'_> {
    /// DC coefficients are not predicted any more.
    pub(super) const fn reset(&mut self) {
        self.predictors = [1 << (7 + self.dc_precision); 3];
    }
}

/// Samples, or what is added to those that were predicted; row by row.
pub(super) type Residual = [[i32; 8]; 8];

/// Decodes a block of `plane`.
pub(super) fn decode_block(
    bits: &mut BitReader<'_>,
    coding: &mut Coding<'_>,
    plane: usize,
    scale: i32,
    intra: bool,
) -> Result<Residual, DecodeError> {
    let weights = &coding.weights[usize::from(!intra)][plane.min(1)];
    let mut block = [0_i32; 64];
    let (mut place_of_last, mut sum) = (None, 0);
    if intra {
        let predictor = &mut coding.predictors[plane];
        *predictor = (*predictor + bits.dc_difference(plane == 0)).clamp(-4_096, 4_095);
        block[0] = *predictor << (3 - coding.dc_precision);
        (place_of_last, sum) = (Some(0), block[0]);
    }
    let table = if intra && coding.table_one { &TABLE_ONE } else { &TABLE_ZERO };
    loop {
        // There is always a first coefficient, so that the code of the end means another one (7.2.2.2).
        let (code, length) = if place_of_last.is_none() && bits.peek(1) == 1 {
            (Code::Coefficient { run: 0, level: 1 }, 1)
        } else {
            table.find(bits.peek(16) as u16)
        };
        bits.at += usize::from(length);
        let (run, level) = match code {
            Code::End => break,
            Code::Coefficient { run, level } => {
                let negative = bits.take(1) == 1;
                (usize::from(run), if negative { -i32::from(level) } else { i32::from(level) })
            }
            Code::Escape => (bits.take(6) as usize, escaped_level(bits, coding.mpeg1)),
            Code::None => return Err(DecodeError::Damaged("no code of a coefficient")),
        };
        let index = place_of_last.map_or(0, |last| last + 1) + run;
        place_of_last = Some(index);
        let Some(&place) = coding.scan.get(index) else {
            return Err(DecodeError::Damaged("more coefficients than a block has"));
        };
        let place = usize::from(place);
        let doubled = if intra { 2 * level } else { 2 * level + level.signum() };
        let mut value = doubled * i32::from(weights[place]) * scale / 32;
        if coding.mpeg1 && value & 1 == 0 {
            value -= value.signum(); // 11172-2 2.4.4.1: even values move towards zero
        }
        let value = value.clamp(-2_048, 2_047);
        block[place] = value;
        sum += value;
    }
    // 7.4.4: the sum of all is made odd.
    if !coding.mpeg1 && sum & 1 == 0 {
        block[63] ^= 1;
    }
    Ok(inverse_transform(&block))
}

fn escaped_level(bits: &mut BitReader<'_>, mpeg1: bool) -> i32 {
    if !mpeg1 {
        return (bits.take(12) as i32) << 20 >> 20;
    }
    match bits.take(8) {
        0 => bits.take(8) as i32,
        128 => bits.take(8) as i32 - 256,
        level => (level as i32) << 24 >> 24,
    }
}

/// Annex A, in single precision: some rows and columns are empty, so by coefficient.
fn inverse_transform(block: &[i32; 64]) -> Residual {
    let mut rows = [[0_f32; 8]; 8];
    for (row, coefficients) in rows.iter_mut().zip(block.as_chunks::<8>().0) {
        for (&coefficient, basis) in coefficients.iter().zip(&BASIS) {
            if coefficient != 0 {
                let coefficient = coefficient as f32;
                for (sample, factor) in row.iter_mut().zip(basis) {
                    *sample += coefficient * factor;
                }
            }
        }
    }
    let mut samples = [[0_f32; 8]; 8];
    for (row, basis) in rows.iter().zip(&BASIS) {
        for (samples, factor) in samples.iter_mut().zip(basis) {
            for (sample, value) in samples.iter_mut().zip(row) {
                *sample += value * factor;
            }
        }
    }
    samples.map(|row| row.map(|sample| (sample + 0.5).floor() as i32))
}

/// `C(u) / 2 * cos((2 x + 1) u pi / 16)` by `u`, then `x`.
#[rustfmt::skip]
const BASIS: [[f32; 8]; 8] = [
    [C4, C4, C4, C4, C4, C4, C4, C4],
    [C1, C3, C5, C7, -C7, -C5, -C3, -C1],
    [C2, C6, -C6, -C2, -C2, -C6, C6, C2],
    [C3, -C7, -C1, -C5, C5, C1, C7, -C3],
    [C4, -C4, -C4, C4, C4, -C4, -C4, C4],
    [C5, -C1, C7, C3, -C3, -C7, C1, -C5],
    [C6, -C2, C2, -C6, -C6, C2, -C2, C6],
    [C7, -C5, C3, -C1, C1, -C3, C5, -C7],
];
/// `cos(n pi / 16) / 2`.
const C1: f32 = 0.490_392_64;
const C2: f32 = 0.461_939_77;
const C3: f32 = 0.415_734_8;
const C4: f32 = 0.353_553_4;
const C5: f32 = 0.277_785_1;
const C6: f32 = 0.191_341_71;
const C7: f32 = 0.097_545_16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_sizes_are_those_of_the_tables() {
        let increment = |bits: &[u8]| BitReader::new(bits).address_increment().unwrap();
        assert_eq!(increment(&[0b1000_0000, 0, 0]), 1);
        assert_eq!(increment(&[0b0110_0000, 0, 0]), 2);
        assert_eq!(increment(&[0b0011_0000, 0, 0]), 4);
        assert_eq!(increment(&[0b0001_1000, 0, 0]), 6);
        assert_eq!(increment(&[0b0000_1110, 0, 0]), 8);
        assert_eq!(increment(&[0b0000_1011, 0, 0]), 10);
        assert_eq!(increment(&[0b0000_0110, 0, 0]), 15);
        assert_eq!(increment(&[0b0000_0101, 0b1100_0000, 0]), 16);
        assert_eq!(increment(&[0b0000_0100, 0b1000_0000, 0]), 21);
        assert_eq!(increment(&[0b0000_0100, 0b0110_0000, 0]), 22);
        assert_eq!(increment(&[0b0000_0011, 0b0000_0000, 0]), 33);
        assert_eq!(increment(&[0b0000_0001, 0b0001_0000, 0]), 34);
        let luma = |bits: &[u8]| BitReader::new(bits).dc_difference(true);
        assert_eq!((luma(&[0b1000_0000]), luma(&[0b0010_0000]), luma(&[0b0000_0000])), (0, 1, -1));
        assert_eq!((luma(&[0b1011_0000]), luma(&[0b1101_0000])), (4, 8));
        let colour = |bits: &[u8]| BitReader::new(bits).dc_difference(false);
        assert_eq!((colour(&[0b0000_0000]), colour(&[0b0110_0000]), colour(&[0b1101_0000])), (0, 1, 4));
    }

    #[test]
    fn codes_of_vectors_are_those_of_the_table() {
        let code = |bits: u16| BitReader::new(&(bits << 5).to_be_bytes()).motion_code().ok();
        let codes =
            [0b100_0000_0000, 0b010_0000_0000, 0b011_0000_0000, 0b000_0110_0000, 0b000_0010_1110, 0b000_0001_1001];
        assert_eq!(codes.map(code), [Some(0), Some(1), Some(-1), Some(4), Some(-8), Some(-16)]);
        assert_eq!(code(0b000_0001_0111), None);
    }

    #[test]
    fn a_block_of_one_coefficient_is_flat() {
        let mut block = [0; 64];
        block[0] = 8 * 100;
        assert_eq!(inverse_transform(&block), [[100; 8]; 8]);
    }
}
