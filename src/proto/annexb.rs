//! NAL units in a byte stream (14496-10 and 23008-2, annex B), and start codes of MPEG video.

/// What stands between start codes `00 00 01`, without them and without empty ones. Zero bytes before a start code stay with
/// the unit: headers of MPEG video may end with such.
#[derive(Clone, Debug)]
pub(crate) struct Units<'a> {
    /// Behind a start code, or empty.
    rest: &'a [u8],
}

impl<'a> Units<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        let start = find_start_code(bytes).map_or(bytes.len(), |at| at + START_CODE.len());
        Self { rest: bytes.get(start..).unwrap_or_default() }
    }
}

impl<'a> Iterator for Units<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        while !self.rest.is_empty() {
            let end = find_start_code(self.rest);
            let (unit, rest) = match end {
                Some(end) => (&self.rest[..end], &self.rest[end + START_CODE.len()..]),
                None => (self.rest, &[][..]),
            };
            self.rest = rest;
            if !unit.is_empty() {
                return Some(unit);
            }
        }
        None
    }
}

/// A unit without the zero bytes behind it, which belong to the start code that follows (trailing_zero_8bits, zero_byte).
pub(crate) fn without_trailing_zeros(unit: &[u8]) -> &[u8] {
    let end = unit.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    &unit[..end]
}

/// A NAL unit without the bytes that keep start codes out of it (H.264 7.3.1).
pub(crate) fn unescape(unit: &[u8]) -> Vec<u8> {
    let (mut out, mut zeros) = (Vec::with_capacity(unit.len()), 0);
    for &byte in unit {
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        out.push(byte);
    }
    out
}

/// Appends bytes with those that keep start codes out of them (H.264 7.4.1).
pub(crate) fn append_escaped(bytes: &[u8], out: &mut Vec<u8>) {
    let mut zeros = 0;
    for &byte in bytes {
        if zeros >= 2 && byte <= 3 {
            out.push(3);
            zeros = 0;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        out.push(byte);
    }
}

/// Where `00 00 01` begins.
pub(crate) fn find_start_code(bytes: &[u8]) -> Option<usize> {
    // Every third byte is enough to see a start code, as its last byte cannot stand elsewhere in it.
    let mut at = 2;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            0 => at += 1,
            1 if bytes[at - 2..at] == [0, 0] => return Some(at - 2),
            _ => at += 3,
        }
    }
    None
}

const START_CODE: [u8; 3] = [0, 0, 1];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn units_lie_between_start_codes_of_three_or_four_bytes() {
        let bytes = [9, 0, 0, 0, 1, 7, 8, 0, 0, 1, 5, 0, 0, 3, 0, 0, 1, 0, 0, 1, 4];
        let units: Vec<&[u8]> = Units::new(&bytes).collect();
        assert_eq!(units, [&[7, 8][..], &[5, 0, 0, 3], &[4]]);
        let with_zero = Units::new(&[0, 0, 1, 7, 0, 0, 0, 1, 8]).next();
        assert_eq!((with_zero, with_zero.map(without_trailing_zeros)), (Some(&[7, 0][..]), Some(&[7][..])));
        assert_eq!(without_trailing_zeros(&[0, 0]), [0; 0]);
    }

    #[test]
    fn emulation_prevention_is_taken_out() {
        assert_eq!(unescape(&[1, 0, 0, 3, 1, 0, 0, 3, 0, 0, 3]), [1, 0, 0, 1, 0, 0, 0, 0]);
    }

    proptest! {
        #[test]
        fn escaped_bytes_have_no_start_code_and_come_back(bytes in proptest::collection::vec(0_u8..5, 0..64)) {
            let mut out = Vec::new();
            append_escaped(&bytes, &mut out);
            prop_assert!(!out.windows(3).any(|three| three[..2] == [0, 0] && three[2] < 3));
            prop_assert_eq!(unescape(&out), bytes);
        }

        #[test]
        fn the_search_finds_what_a_plain_one_finds(bytes in proptest::collection::vec(0_u8..3, 0..64)) {
            prop_assert_eq!(find_start_code(&bytes), bytes.windows(3).position(|window| window == START_CODE));
        }
    }
}
