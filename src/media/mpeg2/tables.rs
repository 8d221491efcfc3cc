//! Codes, scans and weights of MPEG-2 video (13818-2 clause 7 and annex B).

/// What a code of a coefficient says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    /// There is no such code.
    None,
    /// So many zeros, then this level; a sign bit follows.
    Coefficient { run: u8, level: u8 },
    /// Run and level follow as they are.
    Escape,
    /// The block has no more coefficients.
    End,
}

/// A table of codes of up to 16 bits, looked up by the bits that come next.
#[derive(Debug)]
pub(super) struct Codes {
    /// By the first 8 bits: codes that are no longer.
    short: [(Code, u8); 256],
    /// By all 16 bits where the first six are zero: longer codes.
    long: [(Code, u8); 1_024],
}

impl Codes {
    /// The code that `bits`, the next sixteen, begin with, and its length.
    pub(super) fn find(&self, bits: u16) -> (Code, u8) {
        let short = self.short[usize::from(bits >> 8)];
        if short.1 > 0 {
            return short;
        }
        self.long.get(usize::from(bits)).copied().unwrap_or((Code::None, 0))
    }

    /// From codes and their lengths in the order of runs and levels.
    const fn new(table: &[(u16, u8); COEFFICIENTS], end: (u16, u8)) -> Self {
        let mut codes = Self { short: [(Code::None, 0); 256], long: [(Code::None, 0); 1_024] };
        let (mut run, mut level) = (0, 1);
        let mut index = 0;
        while index < table.len() {
            codes.insert(Code::Coefficient { run, level }, table[index]);
            if level == LEVELS[run as usize] {
                run += 1;
                level = 1;
            } else {
                level += 1;
            }
            index += 1;
        }
        codes.insert(Code::Escape, ESCAPE);
        codes.insert(Code::End, end);
        codes
    }

    const fn insert(&mut self, code: Code, (bits, length): (u16, u8)) {
        let width = if length <= 8 { 8 } else { 16 };
        let mut at = (bits as usize) << (width - length);
        let end = (bits as usize + 1) << (width - length);
        while at < end {
            if length <= 8 {
                self.short[at] = (code, length);
            } else {
                self.long[at] = (code, length);
            }
            at += 1;
        }
    }
}

/// Table B.14.
pub(super) static TABLE_ZERO: Codes = Codes::new(&CODES_ZERO, (0b10, 2));
/// Table B.15.
pub(super) static TABLE_ONE: Codes = Codes::new(&CODES_ONE, (0b0110, 4));

/// Runs of 0 to 31 zeros have codes for so many levels.
const LEVELS: [u8; 32] =
    [40, 18, 5, 4, 3, 3, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1];
const COEFFICIENTS: usize = 111;
const ESCAPE: (u16, u8) = (1, 6);

#[rustfmt::skip]
const CODES_ZERO: [(u16, u8); COEFFICIENTS] = [
    (3, 2), (4, 4), (5, 5), (6, 7), (38, 8), (33, 8), (10, 10), (29, 12), (24, 12), (19, 12), (16, 12), (26, 13),
    (25, 13), (24, 13), (23, 13), (31, 14), (30, 14), (29, 14), (28, 14), (27, 14), (26, 14), (25, 14), (24, 14),
    (23, 14), (22, 14), (21, 14), (20, 14), (19, 14), (18, 14), (17, 14), (16, 14), (24, 15), (23, 15), (22, 15),
    (21, 15), (20, 15), (19, 15), (18, 15), (17, 15), (16, 15),
    (3, 3), (6, 6), (37, 8), (12, 10), (27, 12), (22, 13), (21, 13), (31, 15), (30, 15), (29, 15), (28, 15), (27, 15),
    (26, 15), (25, 15), (19, 16), (18, 16), (17, 16), (16, 16),
    (5, 4), (4, 7), (11, 10), (20, 12), (20, 13),
    (7, 5), (36, 8), (28, 12), (19, 13),
    (6, 5), (15, 10), (18, 12),
    (7, 6), (9, 10), (18, 13),
    (5, 6), (30, 12), (20, 16),
    (4, 6), (21, 12), (7, 7), (17, 12), (5, 7), (17, 13), (39, 8), (16, 13), (35, 8), (26, 16), (34, 8), (25, 16),
    (32, 8), (24, 16), (14, 10), (23, 16), (13, 10), (22, 16), (8, 10), (21, 16),
    (31, 12), (26, 12), (25, 12), (23, 12), (22, 12), (31, 13), (30, 13), (29, 13), (28, 13), (27, 13), (31, 16),
    (30, 16), (29, 16), (28, 16), (27, 16),
];

#[rustfmt::skip]
const CODES_ONE: [(u16, u8); COEFFICIENTS] = [
    (2, 2), (6, 3), (7, 4), (28, 5), (29, 5), (5, 6), (4, 6), (123, 7), (124, 7), (35, 8), (34, 8), (250, 8),
    (251, 8), (254, 8), (255, 8), (31, 14), (30, 14), (29, 14), (28, 14), (27, 14), (26, 14), (25, 14), (24, 14),
    (23, 14), (22, 14), (21, 14), (20, 14), (19, 14), (18, 14), (17, 14), (16, 14), (24, 15), (23, 15), (22, 15),
    (21, 15), (20, 15), (19, 15), (18, 15), (17, 15), (16, 15),
    (2, 3), (6, 5), (121, 7), (39, 8), (32, 8), (22, 13), (21, 13), (31, 15), (30, 15), (29, 15), (28, 15), (27, 15),
    (26, 15), (25, 15), (19, 16), (18, 16), (17, 16), (16, 16),
    (5, 5), (7, 7), (252, 8), (12, 10), (20, 13),
    (7, 5), (38, 8), (28, 12), (19, 13),
    (6, 6), (253, 8), (18, 12),
    (7, 6), (4, 9), (18, 13),
    (6, 7), (30, 12), (20, 16),
    (4, 7), (21, 12), (5, 7), (17, 12), (120, 7), (17, 13), (122, 7), (16, 13), (33, 8), (26, 16), (37, 8), (25, 16),
    (36, 8), (24, 16), (5, 9), (23, 16), (7, 9), (22, 16), (13, 10), (21, 16),
    (31, 12), (26, 12), (25, 12), (23, 12), (22, 12), (31, 13), (30, 13), (29, 13), (28, 13), (27, 13), (31, 16),
    (30, 16), (29, 16), (28, 16), (27, 16),
];

/// Place of the coefficients in the order in which they come (figure 7-2), row by row.
pub(super) const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21,
    28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54,
    47, 55, 62, 63,
];
/// The other order (figure 7-3).
pub(super) const ALTERNATE: [u8; 64] = [
    0, 8, 16, 24, 1, 9, 2, 10, 17, 25, 32, 40, 48, 56, 57, 49, 41, 33, 26, 18, 3, 11, 4, 12, 19, 27, 34, 42, 50, 58,
    35, 43, 51, 59, 20, 28, 5, 13, 6, 14, 21, 29, 36, 44, 52, 60, 37, 45, 53, 61, 22, 30, 7, 15, 23, 31, 38, 46, 54,
    62, 39, 47, 55, 63,
];
/// Weights of coefficients where the stream brings none (6.3.11), row by row.
pub(super) const DEFAULT_WEIGHTS: [u8; 64] = [
    8, 16, 19, 22, 26, 27, 29, 34, 16, 16, 22, 24, 27, 29, 34, 37, 19, 22, 26, 27, 29, 34, 34, 38, 22, 22, 26, 27, 29,
    34, 37, 40, 22, 26, 27, 29, 32, 35, 40, 48, 26, 27, 29, 32, 35, 40, 48, 58, 26, 27, 29, 34, 38, 46, 56, 69, 27, 29,
    35, 38, 46, 56, 69, 83,
];
/// `coded_block_pattern` in the order of its codes, from `111` to `0000 0000 1` (table B.9).
pub(super) const BLOCK_PATTERNS: [u8; 64] = [
    60, 4, 8, 16, 32, 12, 48, 20, 40, 28, 44, 52, 56, 1, 61, 2, 62, 24, 36, 3, 63, 5, 9, 17, 33, 6, 10, 18, 34, 7, 11,
    19, 35, 13, 49, 21, 41, 14, 50, 22, 42, 15, 51, 23, 43, 25, 37, 26, 38, 29, 45, 53, 57, 30, 46, 54, 58, 31, 47, 55,
    59, 27, 39, 0,
];
/// `quantiser_scale` for `q_scale_type` 1 (table 7-6).
pub(super) const NON_LINEAR_SCALE: [u8; 32] = [
    0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 18, 20, 22, 24, 28, 32, 36, 40, 44, 48, 52, 56, 64, 72, 80, 88, 96, 104,
    112,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_code_begins_another_and_scans_visit_every_place() {
        for (table, end) in [(&CODES_ZERO, (0b10, 2)), (&CODES_ONE, (0b0110, 4))] {
            let mut codes: Vec<(u16, u8)> = table.to_vec();
            codes.extend([ESCAPE, end]);
            for (index, &(code, length)) in codes.iter().enumerate() {
                for &(other, other_length) in &codes[index + 1..] {
                    let common = length.min(other_length);
                    assert_ne!(code >> (length - common), other >> (other_length - common), "{code} {other}");
                }
                assert!(length <= 8 || (code as u32) << (16 - length) < 1_024, "{code} is found");
            }
        }
        for scan in [ZIGZAG, ALTERNATE, BLOCK_PATTERNS] {
            let mut places = scan.to_vec();
            places.sort_unstable();
            assert!(places.into_iter().eq(0..64));
        }
        assert_eq!(LEVELS.iter().map(|&count| usize::from(count)).sum::<usize>(), COEFFICIENTS);
    }
}
