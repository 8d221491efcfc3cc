//! A small H.264 encoder for pictures made of cells of one colour, 16 by 16 samples each (ITU-T H.264, here "H.264").
//!
//! One cell is one macroblock, `Intra_16x16`, predicted from its left or upper neighbour, and all that is coded is the
//! difference of three numbers. With these quantisers a coefficient of one is a step of one, and without the deblocking
//! filter nothing touches what was coded: decoders show exactly the cells. Cells that did not change are skipped.

/// A colour as luma and two chroma samples (ITU-R BT.709, 16 to 235 and 16 to 240).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Colour(pub(super) [u8; 3]);

/// What pictures are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// Cells from left to right.
    pub(super) columns: usize,
    /// Cells from top to bottom.
    pub(super) rows: usize,
    /// Lines of the last row that are not shown, an even number.
    pub(super) cropped_lines: u32,
    /// Pictures a second.
    pub(super) rate: u32,
    /// Ten times the level that holds so much (H.264 table A-1).
    pub(super) level: u32,
}

/// Encodes one picture after the other.
#[derive(Debug)]
pub(super) struct Encoder {
    shape: Shape,
    /// What the last picture shows.
    shown: Vec<Colour>,
    /// Since the last IDR picture.
    frame_num: u32,
    idr_id: u32,
    bits: Bits,
}

impl Encoder {
    pub(super) fn new(shape: Shape) -> Self {
        let shown = vec![MIDDLE; shape.columns * shape.rows];
        Self { shape, shown, frame_num: 0, idr_id: 0, bits: Bits::default() }
    }

    /// Appends an access unit with start codes that shows `cells`, row by row; `is_idr` for one that a decoder may start
    /// at.
    pub(super) fn encode(&mut self, cells: &[Colour], is_idr: bool, out: &mut Vec<u8>) {
        if is_idr {
            self.frame_num = 0;
            self.idr_id ^= 1;
            self.parameter_sets(out);
        }
        self.slice_header(is_idr);
        let mut skipped = 0;
        for (index, colour) in cells.iter().enumerate().take(self.shown.len()) {
            if !is_idr && self.shown.get(index) == Some(colour) {
                skipped += 1;
                continue;
            }
            if !is_idr {
                self.bits.ue(skipped);
                skipped = 0;
            }
            self.macroblock(index, *colour, is_idr);
        }
        if skipped > 0 {
            self.bits.ue(skipped);
        }
        self.bits.end_unit(if is_idr { 0x65 } else { 0x41 }, out);
        self.frame_num += 1;
    }

    /// H.264 7.3.3.
    fn slice_header(&mut self, is_idr: bool) {
        let bits = &mut self.bits;
        bits.ue(0); // first_mb_in_slice
        bits.ue(if is_idr { 7 } else { 5 }); // all slices I, or P
        bits.ue(0);
        bits.put(self.frame_num % 16, 4);
        if is_idr {
            bits.ue(self.idr_id);
            bits.put(0, 2); // no_output_of_prior_pics_flag, long_term_reference_flag
        } else {
            bits.put(0, 3); // no override of the count of references, no other order, sliding window
        }
        bits.se(0);
        bits.ue(1); // disable_deblocking_filter_idc
    }

    /// H.264 7.3.5: an `Intra_16x16` macroblock with nothing but the coefficients of its mean.
    fn macroblock(&mut self, index: usize, colour: Colour, is_idr: bool) {
        // Modes of luma and chroma have different numbers (H.264 tables 8-4 and 8-5).
        let columns = self.shape.columns;
        let (mode, chroma_mode, neighbour) = if !index.is_multiple_of(columns) {
            (1, 1, index.checked_sub(1))
        } else if index >= columns {
            (0, 2, index.checked_sub(columns))
        } else {
            (2, 0, None)
        };
        let predicted = neighbour.and_then(|neighbour| self.shown.get(neighbour)).copied().unwrap_or(MIDDLE);
        let [luma, blue, red] = [0, 1, 2].map(|n: usize| i32::from(colour.0[n]) - i32::from(predicted.0[n]));
        let has_chroma = blue != 0 || red != 0;
        let intra_type = 1 + mode + if has_chroma { 4 } else { 0 };
        let bits = &mut self.bits;
        bits.ue(if is_idr { intra_type } else { 5 + intra_type });
        bits.ue(chroma_mode);
        bits.se(0); // mb_qp_delta
        bits.coefficient(luma, &LUMA_TOKENS);
        if has_chroma {
            bits.coefficient(blue, &CHROMA_TOKENS);
            bits.coefficient(red, &CHROMA_TOKENS);
        }
        if let Some(shown) = self.shown.get_mut(index) {
            *shown = colour;
        }
    }

    /// H.264 7.3.2.1 and 7.3.2.2: Constrained Baseline.
    fn parameter_sets(&mut self, out: &mut Vec<u8>) {
        let (shape, bits) = (self.shape, &mut self.bits);
        bits.put(66 << 16 | 0xc0 << 8 | shape.level, 24);
        bits.ue(0); // seq_parameter_set_id
        bits.ue(0); // frame_num has four bits
        bits.ue(2); // shown in the order of coding
        bits.ue(1); // one reference
        bits.put(0, 1);
        bits.ue(shape.columns as u32 - 1);
        bits.ue(shape.rows as u32 - 1);
        bits.put(0b11, 2); // frames only, direct_8x8_inference
        bits.put(u32::from(shape.cropped_lines > 0), 1);
        if shape.cropped_lines > 0 {
            bits.put(0b111, 3); // nothing at left, right and top
            bits.ue(shape.cropped_lines / 2);
        }
        bits.put(1, 1); // VUI
        bits.put(0b0011_0101, 8); // video_signal_type: unspecified format, limited range, with colours
        bits.put(BT_709 << 16 | BT_709 << 8 | BT_709, 24);
        bits.put(0b01, 2); // timing_info
        bits.put(1, 32);
        bits.put(2 * shape.rate, 32);
        bits.put(0b1_0000, 5); // fixed_frame_rate_flag
        bits.end_unit(0x67, out);
        bits.ue(0);
        bits.ue(0);
        bits.put(0, 2); // CAVLC, no field order
        bits.ue(0);
        bits.ue(0);
        bits.ue(0);
        bits.put(0, 3); // no weights
        bits.se(28 - 26); // luma quantiser 28: steps of one
        bits.se(0);
        bits.se(22 - 28); // chroma quantiser 22: steps of one
        bits.put(0b100, 3); // deblocking_filter_control_present_flag
        bits.end_unit(0x68, out);
    }
}

/// Primaries, transfer and matrix of ITU-R BT.709 (H.264 tables E-3 to E-5).
const BT_709: u32 = 1;

/// What is predicted where there is no neighbour (H.264 8.3.3.3 and 8.3.4).
const MIDDLE: Colour = Colour([128; 3]);

/// `coeff_token` of no coefficient, of a one, and of a larger one (H.264 table 9-5), as value and length.
type Tokens = [(u32, u32); 3];
const LUMA_TOKENS: Tokens = [(0b1, 1), (0b01, 2), (0b00_0101, 6)];
const CHROMA_TOKENS: Tokens = [(0b01, 2), (0b1, 1), (0b00_0111, 6)];

/// Bits of one NAL unit.
#[derive(Debug, Default)]
struct Bits {
    bytes: Vec<u8>,
    /// The bits that make no byte yet, and how many they are.
    rest: u64,
    count: u32,
}

impl Bits {
    fn put(&mut self, value: u32, width: u32) {
        self.rest = self.rest << width | u64::from(value);
        self.count += width;
        while self.count >= 8 {
            self.count -= 8;
            self.bytes.push((self.rest >> self.count) as u8);
        }
    }

    /// H.264 9.1.
    fn ue(&mut self, value: u32) {
        let width = (value + 1).ilog2();
        self.put(0, width);
        self.put(value + 1, width + 1);
    }

    /// H.264 9.1.1.
    fn se(&mut self, value: i32) {
        let magnitude = value.unsigned_abs() * 2;
        self.ue(if value > 0 { magnitude - 1 } else { magnitude });
    }

    /// One block of which only the first coefficient may be other than zero (H.264 9.2).
    fn coefficient(&mut self, level: i32, tokens: &Tokens) {
        let magnitude = level.unsigned_abs();
        let (token, width) = tokens[magnitude.min(2) as usize];
        self.put(token, width);
        let is_negative = u32::from(level < 0);
        match magnitude {
            0 => return,
            1 => self.put(is_negative, 1),
            _ => {
                // The first level behind fewer than three ones is counted from two (H.264 9.2.2.1).
                let code = 2 * magnitude - 4 + is_negative;
                match code {
                    0..14 => self.put(1, code + 1),
                    14..30 => self.put(1 << 4 | (code - 14), 15 + 4),
                    _ => self.put(1 << 12 | (code - 30), 16 + 12),
                }
            }
        }
        self.put(1, 1); // total_zeros: none before it
    }

    /// Writes what was put as a NAL unit: start code, header, `rbsp_trailing_bits`, emulation prevention (H.264 7.4.1).
    fn end_unit(&mut self, header: u8, out: &mut Vec<u8>) {
        self.put(1, 1);
        self.put(0, (8 - self.count) % 8);
        out.extend_from_slice(&[0, 0, 0, 1, header]);
        let mut zeros = 0;
        for byte in self.bytes.drain(..) {
            if zeros >= 2 && byte <= 3 {
                out.push(3);
                zeros = 0;
            }
            out.push(byte);
            zeros = if byte == 0 { zeros + 1 } else { 0 };
        }
    }
}
