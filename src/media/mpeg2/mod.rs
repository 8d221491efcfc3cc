//! Intra pictures of MPEG-1 and MPEG-2 video (11172-2, 13818-2 clauses 6 and 7), frame and field pictures, 4:2:0 and
//! 4:2:2.
//!
//! A picture with an error anywhere is given up: it would be shown as what the source looks like. Predicted pictures are
//! not decoded.

mod block;
mod tables;

use self::block::{BitReader, Coding, decode_block};
use self::tables::{ALTERNATE, DEFAULT_WEIGHTS, NON_LINEAR_SCALE, ZIGZAG};
use super::annexb::Units;
use super::bits::Bits;
use super::decode::{DecodeError, HEIGHT_MAX, WIDTH_MAX};
use super::frame::{Frame, Plane, Samples};
use super::headers::{Chroma, HeaderError};

/// Decodes intra pictures of one stream.
#[derive(Debug)]
pub(super) struct Decoder {
    sequence: Option<Sequence>,
    /// Luma's and colour's, row by row.
    weights: [[u8; 64]; 2],
    /// The frame whose second field is missing, and which one came.
    half: Option<(Canvas, Structure)>,
}

#[derive(Clone, Copy, Debug)]
struct Sequence {
    width: usize,
    height: usize,
    mpeg1: bool,
    progressive: bool,
    chroma: Chroma,
}

/// `picture_structure` (table 6-14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Structure {
    Top,
    Bottom,
    Frame,
}

/// Picture header and its extension.
#[derive(Clone, Copy, Debug)]
struct PictureHeader {
    structure: Structure,
    /// Bits that a DC coefficient has beyond 8.
    dc_precision: u32,
    frame_dct_only: bool,
    concealment_vectors: bool,
    f_code: [u8; 2],
    non_linear: bool,
    table_one: bool,
    alternate: bool,
}

/// Planes of whole macroblocks.
#[derive(Debug)]
struct Canvas {
    /// Width and samples.
    planes: [(usize, Vec<u8>); 3],
    macroblocks: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { sequence: None, weights: [DEFAULT_WEIGHTS; 2], half: None }
    }
}

impl Decoder {
    /// Decodes what the unit holds; `None` after the first of two fields.
    pub(super) fn decode(&mut self, bytes: &[u8]) -> Result<Option<Frame>, DecodeError> {
        let mut picture: Option<PictureHeader> = None;
        let mut canvas: Option<Canvas> = None;
        let mut finished = None;
        for unit in Units::new(bytes) {
            let [code, body @ ..] = unit else { continue };
            match *code {
                SEQUENCE => self.read_sequence(body).map_err(damaged)?,
                EXTENSION => self.read_extension(body, &mut picture).map_err(damaged)?,
                PICTURE => {
                    finished = self.close(picture.take(), canvas.take())?.or(finished);
                    picture = Some(read_picture(body)?);
                }
                FIRST_SLICE..=LAST_SLICE => {
                    let (Some(header), Some(sequence)) = (&picture, self.sequence) else {
                        return Err(DecodeError::Damaged("a slice before its headers"));
                    };
                    if sequence.width > WIDTH_MAX as usize || sequence.height > HEIGHT_MAX as usize {
                        return Err(DecodeError::TooLarge);
                    }
                    let canvas = canvas.get_or_insert_with(|| self.open(sequence, header.structure));
                    self.decode_slice(sequence, header, canvas, *code, body)?;
                }
                _ => {}
            }
        }
        Ok(self.close(picture, canvas)?.or(finished))
    }

    /// Where the picture goes: beside the field before it, or on a new canvas.
    fn open(&mut self, sequence: Sequence, structure: Structure) -> Canvas {
        match self.half.take() {
            Some((canvas, first)) if structure != Structure::Frame && structure != first => canvas,
            _ => Canvas::new(sequence),
        }
    }

    /// A picture is over; what came of it, once it has both fields.
    fn close(&mut self, picture: Option<PictureHeader>, canvas: Option<Canvas>) -> Result<Option<Frame>, DecodeError> {
        let (Some(picture), Some(canvas), Some(sequence)) = (picture, canvas, self.sequence) else {
            return Ok(None);
        };
        let (across, down) = sequence.macroblocks();
        let whole = across * down;
        if picture.structure != Structure::Frame && canvas.macroblocks == whole / 2 {
            self.half = Some((canvas, picture.structure));
            return Ok(None);
        }
        if canvas.macroblocks != whole {
            return Err(DecodeError::Damaged("macroblocks are missing"));
        }
        canvas.crop(sequence).map(Some)
    }

    /// 6.2.2.1.
    fn read_sequence(&mut self, body: &[u8]) -> Result<(), HeaderError> {
        let mut bits = Bits::new(body);
        let (width, height) = (bits.take(12)? as usize, bits.take(12)? as usize);
        bits.skip(4 + 4 + 18 + 1 + 10 + 1)?;
        self.weights = [DEFAULT_WEIGHTS; 2];
        if bits.flag()? {
            self.weights = [read_weights(&mut bits)?; 2];
        }
        if width == 0 || height == 0 {
            return Err(HeaderError::Value);
        }
        self.half = None;
        self.sequence = Some(Sequence { width, height, mpeg1: true, progressive: true, chroma: Chroma::Yuv420 });
        Ok(())
    }

    fn read_extension(&mut self, body: &[u8], picture: &mut Option<PictureHeader>) -> Result<(), HeaderError> {
        let mut bits = Bits::new(body);
        match (bits.take(4)?, &mut self.sequence, picture) {
            // 6.2.2.3.
            (1, Some(sequence), _) => {
                bits.skip(8)?;
                sequence.mpeg1 = false;
                sequence.progressive = bits.flag()?;
                sequence.chroma = Chroma::from_idc(bits.take(2)?).ok_or(HeaderError::Value)?;
                sequence.width |= (bits.take(2)? as usize) << 12;
                sequence.height |= (bits.take(2)? as usize) << 12;
            }
            // 6.2.3.2.
            (3, ..) => {
                if bits.flag()? {
                    self.weights = [read_weights(&mut bits)?; 2];
                }
                if bits.flag()? {
                    read_weights(&mut bits)?;
                }
                if bits.flag()? {
                    self.weights[1] = read_weights(&mut bits)?;
                }
            }
            // 6.2.3.1.
            (8, _, Some(picture)) => {
                // Vectors of concealment are forward ones, which come first.
                picture.f_code = [bits.byte(4)?, bits.byte(4)?];
                bits.skip(8)?;
                picture.dc_precision = bits.take(2)?;
                picture.structure = match bits.take(2)? {
                    1 => Structure::Top,
                    2 => Structure::Bottom,
                    3 => Structure::Frame,
                    _ => return Err(HeaderError::Value),
                };
                bits.skip(1)?; // top_field_first
                picture.frame_dct_only = bits.flag()?;
                picture.concealment_vectors = bits.flag()?;
                picture.non_linear = bits.flag()?;
                picture.table_one = bits.flag()?;
                picture.alternate = bits.flag()?;
            }
            _ => {}
        }
        Ok(())
    }

    /// 6.2.4.
    fn decode_slice(
        &self,
        sequence: Sequence,
        picture: &PictureHeader,
        canvas: &mut Canvas,
        code: u8,
        body: &[u8],
    ) -> Result<(), DecodeError> {
        let mut bits = BitReader::new(body);
        let mut row = usize::from(code) - 1;
        if sequence.height > 2_800 {
            row |= (bits.take(3) as usize) << 7;
        }
        let scale_of = |code: u32| match (picture.non_linear, sequence.mpeg1) {
            (true, _) => i32::from(NON_LINEAR_SCALE[code as usize & 31]),
            (false, _) => code as i32 * 2,
        };
        let mut scale = scale_of(bits.take(5));
        // intra_slice and what may come after it, up to extra_bit_slice, which is zero.
        while bits.take(1) == 1 && !bits.is_over() {
            bits.take(8);
        }
        let (across, mut down) = sequence.macroblocks();
        if picture.structure != Structure::Frame {
            down /= 2;
        }
        let mut column = bits.address_increment()? - 1;
        let mut coding = Coding {
            mpeg1: sequence.mpeg1,
            dc_precision: picture.dc_precision,
            table_one: picture.table_one,
            scan: if picture.alternate { &ALTERNATE } else { &ZIGZAG },
            weights: &self.weights,
            predictors: [1 << (7 + picture.dc_precision); 3],
        };
        loop {
            // Only MPEG-1 has slices of more than one row.
            if sequence.mpeg1 {
                row += column / across;
                column %= across;
            }
            if column >= across || row >= down {
                return Err(DecodeError::Damaged("a slice beside the picture"));
            }
            let with_scale = match bits.take(2) {
                2 | 3 => {
                    bits.put_back(1);
                    false
                }
                1 => true,
                _ => return Err(DecodeError::Damaged("no macroblock type of an intra picture")),
            };
            let field_dct = picture.structure == Structure::Frame
                && !sequence.mpeg1
                && !picture.frame_dct_only
                && bits.take(1) == 1;
            if with_scale {
                scale = scale_of(bits.take(5));
            }
            if picture.concealment_vectors {
                skip_concealment(&mut bits, picture);
            }
            let place = Place { column, row, structure: picture.structure, field_dct };
            canvas.decode_macroblock(&mut bits, &mut coding, sequence.chroma, scale, place)?;
            canvas.macroblocks += 1;
            if bits.is_over() {
                return Err(DecodeError::Damaged("a slice ends too early"));
            }
            // 23 zero bits stand before the next start code, or the end.
            if bits.peek(23) == 0 {
                return Ok(());
            }
            column += bits.address_increment()?;
        }
    }
}

/// Where a macroblock goes.
#[derive(Clone, Copy, Debug)]
struct Place {
    column: usize,
    row: usize,
    structure: Structure,
    field_dct: bool,
}

impl Sequence {
    /// Macroblocks across and down of a frame (6.3.3).
    const fn macroblocks(&self) -> (usize, usize) {
        let down = if self.progressive { self.height.div_ceil(16) } else { self.height.div_ceil(32) * 2 };
        (self.width.div_ceil(16), down)
    }
}

impl Canvas {
    fn new(sequence: Sequence) -> Self {
        let (across, down) = sequence.macroblocks();
        let (shift_x, shift_y) = sequence.chroma.shifts();
        let plane = |width: usize, height: usize| (width, vec![0; width * height]);
        let colour = || plane((across * 16) >> shift_x, (down * 16) >> shift_y);
        Self { planes: [plane(across * 16, down * 16), colour(), colour()], macroblocks: 0 }
    }

    /// The blocks of a macroblock (6.2.5 and 6.1.3.1).
    fn decode_macroblock(
        &mut self,
        bits: &mut BitReader<'_>,
        coding: &mut Coding<'_>,
        chroma: Chroma,
        scale: i32,
        place: Place,
    ) -> Result<(), DecodeError> {
        let colour_blocks: usize = match chroma {
            Chroma::Yuv420 => 1,
            Chroma::Yuv422 => 2,
            Chroma::Luma400 | Chroma::Yuv444 => return Err(DecodeError::Unsupported("MPEG-2 video of 4:4:4")),
        };
        for block in 0..4 + 2 * colour_blocks {
            let (plane, across, down, height) = match block {
                0..4 => (0, block % 2, block / 2, 16),
                _ => (1 + block % 2, 0, (block - 4) / 2, 8 * colour_blocks),
            };
            let samples = decode_block(bits, coding, plane, scale)?;
            // Blocks of a field are interleaved, unless colour has but one block.
            let (first, step) = if place.field_dct && height == 16 { (down, 2) } else { (down * 8, 1) };
            let side = if plane == 0 { 16 } else { 8 };
            let (stride, target) = &mut self.planes[plane];
            for (index, samples) in samples.as_chunks::<8>().0.iter().enumerate() {
                let mut y = place.row * height + first + index * step;
                y = match place.structure {
                    Structure::Frame => y,
                    Structure::Top => y * 2,
                    Structure::Bottom => y * 2 + 1,
                };
                let at = y * *stride + place.column * side + across * 8;
                if let Some(target) = target.get_mut(at..at + 8) {
                    target.copy_from_slice(samples);
                }
            }
        }
        Ok(())
    }

    fn crop(self, sequence: Sequence) -> Result<Frame, DecodeError> {
        let (shift_x, shift_y) = sequence.chroma.shifts();
        let mut index = 0;
        let planes = self.planes.map(|(stride, samples)| {
            let (x, y) = if index == 0 { (0, 0) } else { (shift_x, shift_y) };
            index += 1;
            let (width, height) = (sequence.width.div_ceil(1 << x), sequence.height.div_ceil(1 << y));
            let rows = samples.chunks_exact(stride).take(height);
            Plane::new(width, height, Samples::Byte(rows.flat_map(|row| &row[..width]).copied().collect()))
        });
        let [Some(luma), Some(blue), Some(red)] = planes else {
            return Err(DecodeError::Damaged("planes of a wrong size"));
        };
        Ok(Frame { chroma: sequence.chroma, depth: 8, planes: [luma, blue, red] })
    }
}

/// 6.2.3; what MPEG-1 has no extension for is as the extension would say.
fn read_picture(body: &[u8]) -> Result<PictureHeader, DecodeError> {
    let mut bits = Bits::new(body);
    if bits.take(13).map_err(damaged)? & 7 != INTRA {
        return Err(DecodeError::Unsupported("predicted pictures of MPEG video"));
    }
    Ok(PictureHeader {
        structure: Structure::Frame,
        dc_precision: 0,
        frame_dct_only: true,
        concealment_vectors: false,
        f_code: [1; 2],
        non_linear: false,
        table_one: false,
        alternate: false,
    })
}

/// A matrix in the order of the zigzag scan (6.3.11).
fn read_weights(bits: &mut Bits<'_>) -> Result<[u8; 64], HeaderError> {
    let mut weights = [0; 64];
    for place in ZIGZAG {
        weights[usize::from(place)] = bits.byte(8)?;
    }
    Ok(weights)
}

/// Motion vectors that only help to conceal errors (6.2.5.2), and a marker bit.
fn skip_concealment(bits: &mut BitReader<'_>, picture: &PictureHeader) {
    if picture.structure != Structure::Frame {
        bits.take(1); // motion_vertical_field_select
    }
    for f_code in picture.f_code {
        if bits.skip_motion_code() {
            bits.take(u32::from(f_code.max(1) - 1));
        }
    }
    bits.take(1);
}

fn damaged(error: HeaderError) -> DecodeError {
    DecodeError::Damaged(match error {
        HeaderError::Truncated => "a header is cut short",
        HeaderError::Value | HeaderError::Unknown => "a header has a value that is not allowed",
    })
}

/// Start code values (table 6-1).
const PICTURE: u8 = 0x00;
const FIRST_SLICE: u8 = 0x01;
const LAST_SLICE: u8 = 0xaf;
const SEQUENCE: u8 = 0xb3;
const EXTENSION: u8 = 0xb5;
/// `picture_coding_type` (table 6-12).
const INTRA: u32 = 1;
