//! Slices of MPEG-1 and MPEG-2 video, macroblock by macroblock (13818-2 6.2.4 to 6.2.6).

use super::block::{BitReader, Coding, Residual, decode_block};
use super::motion::{Kind, Prediction, Predictors, Source, Vectors};
use super::tables::{ALTERNATE, BLOCK_PATTERNS, NON_LINEAR_SCALE, ZIGZAG};
use super::{Canvas, PictureHeader, PictureKind, Sequence, Structure};
use crate::media::decode::DecodeError;
use crate::media::headers::Chroma;

/// What all slices of a picture share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context<'a> {
    pub(super) sequence: Sequence,
    pub(super) picture: &'a PictureHeader,
    /// Of intra and of other blocks, each for luma and colour.
    pub(super) weights: &'a [[[u8; 64]; 2]; 2],
    /// What forward and backward vectors point into: the frames with the top and the bottom field.
    pub(super) references: [Option<[&'a Canvas; 2]>; 2],
}

/// What `macroblock_type` says (tables B.2 to B.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Mode {
    intra: bool,
    scale: bool,
    /// Forward and backward.
    motion: [bool; 2],
    pattern: bool,
}

/// A slice that is being decoded.
#[derive(Debug)]
struct Slice<'a, 'b> {
    context: Context<'a>,
    bits: BitReader<'b>,
    coding: Coding<'a>,
    scale: i32,
    predictors: Predictors,
    /// How the macroblock before was moved, which skipped ones of B pictures are as well.
    last: Mode,
    column: usize,
    row: usize,
}

/// Decodes the slice with this start code onto `canvas`.
pub(super) fn decode(context: Context<'_>, canvas: &mut Canvas, code: u8, body: &[u8]) -> Result<(), DecodeError> {
    let (sequence, picture) = (context.sequence, context.picture);
    let mut bits = BitReader::new(body);
    let mut row = usize::from(code) - 1;
    if sequence.height > 2_800 {
        row |= (bits.take(3) as usize) << 7;
    }
    let scale = scale_of(&context, bits.take(5));
    // intra_slice and what may come after it, up to extra_bit_slice, which is zero.
    while bits.take(1) == 1 && !bits.is_over() {
        bits.take(8);
    }
    let column = bits.address_increment()? - 1;
    let coding = Coding {
        mpeg1: sequence.mpeg1,
        dc_precision: picture.dc_precision,
        table_one: picture.table_one,
        scan: if picture.alternate { &ALTERNATE } else { &ZIGZAG },
        weights: context.weights,
        predictors: [1 << (7 + picture.dc_precision); 3],
    };
    let predictors = Predictors::default();
    let mut slice = Slice { context, bits, coding, scale, predictors, last: Mode::default(), column, row };
    slice.place()?;
    loop {
        slice.macroblock(canvas)?;
        if slice.bits.is_over() {
            return Err(DecodeError::Damaged("a slice ends too early"));
        }
        // 23 zero bits stand before the next start code, or the end.
        if slice.bits.peek(23) == 0 {
            return Ok(());
        }
        for _ in 1..slice.bits.address_increment()? {
            slice.column += 1;
            slice.place()?;
            slice.skipped(canvas)?;
        }
        slice.column += 1;
        slice.place()?;
    }
}

fn scale_of(context: &Context<'_>, code: u32) -> i32 {
    match (context.picture.non_linear, context.sequence.mpeg1) {
        (true, _) => i32::from(NON_LINEAR_SCALE[code as usize & 31]),
        (false, _) => code as i32 * 2,
    }
}

impl Slice<'_, '_> {
    /// Whether the macroblock is inside of the picture. Only MPEG-1 has slices of more than one row.
    fn place(&mut self) -> Result<(), DecodeError> {
        let (across, mut down) = self.context.sequence.macroblocks();
        if self.context.picture.structure != Structure::Frame {
            down /= 2;
        }
        if self.context.sequence.mpeg1 {
            self.row += self.column / across;
            self.column %= across;
        }
        let inside = self.column < across && self.row < down;
        if inside { Ok(()) } else { Err(DecodeError::Damaged("a slice beside the picture")) }
    }

    fn macroblock(&mut self, canvas: &mut Canvas) -> Result<(), DecodeError> {
        let picture = self.context.picture;
        let in_frame = picture.structure == Structure::Frame;
        let mode = self.mode()?;
        let moved = mode.motion[0] || mode.motion[1];
        let kind = if moved { self.kind()? } else { Kind::Frame };
        let coded = mode.intra || mode.pattern;
        let field_transform =
            in_frame && !self.context.sequence.mpeg1 && !picture.frame_dct_only && coded && self.bits.take(1) == 1;
        if mode.scale {
            self.scale = scale_of(&self.context, self.bits.take(5));
        }
        let concealed = mode.intra && picture.concealment_vectors;
        if concealed {
            let kind = if in_frame { Kind::Frame } else { Kind::Field };
            self.predictors.read(&mut self.bits, picture, kind, 0)?;
            self.bits.take(1); // marker_bit
        } else if mode.intra || picture.kind == PictureKind::Predicted && !mode.motion[0] {
            self.predictors = Predictors::default();
        }
        let place = Place { column: self.column, row: self.row, structure: picture.structure, field_transform };
        canvas.macroblocks += 1;
        self.last = mode;
        if mode.intra {
            return self.blocks(canvas, u32::MAX, true, place);
        }
        self.coding.reset();
        let mut vectors = [None; 2];
        for (direction, vectors) in vectors.iter_mut().enumerate() {
            if mode.motion[direction] {
                *vectors = Some(self.predictors.read(&mut self.bits, picture, kind, direction)?);
            }
        }
        if !moved {
            vectors[0] = Some(Vectors::zero(picture.structure));
        }
        self.predict(canvas, vectors, place)?;
        let pattern = if mode.pattern { self.pattern()? } else { 0 };
        self.blocks(canvas, pattern, false, place)
    }

    /// A macroblock that is not sent (7.6.6).
    fn skipped(&mut self, canvas: &mut Canvas) -> Result<(), DecodeError> {
        let picture = self.context.picture;
        let mut vectors = [None; 2];
        match picture.kind {
            PictureKind::Intra => return Err(DecodeError::Damaged("a macroblock is missing")),
            PictureKind::Predicted => {
                self.predictors = Predictors::default();
                vectors[0] = Some(Vectors::zero(picture.structure));
            }
            PictureKind::Bidirectional => {
                for (direction, vectors) in vectors.iter_mut().enumerate() {
                    if self.last.motion[direction] {
                        let full_samples = picture.full_samples[direction];
                        *vectors = Some(self.predictors.repeated(picture.structure, direction, full_samples));
                    }
                }
            }
        }
        self.coding.reset();
        let place = Place { column: self.column, row: self.row, structure: picture.structure, field_transform: false };
        canvas.macroblocks += 1;
        self.predict(canvas, vectors, place)
    }

    fn predict(&self, canvas: &mut Canvas, vectors: [Option<Vectors>; 2], place: Place) -> Result<(), DecodeError> {
        let mut prediction = Prediction::new();
        for (vectors, fields) in vectors.iter().zip(self.context.references) {
            let Some(vectors) = vectors else { continue };
            let fields = fields.ok_or(DecodeError::Damaged("predicted from a picture that did not come"))?;
            let source = Source {
                fields,
                column: place.column,
                row: place.row,
                structure: place.structure,
                top_first: self.context.picture.top_first,
                chroma: self.context.sequence.chroma,
            };
            prediction.add(&source, vectors);
        }
        canvas.put(&prediction, self.context.sequence.chroma, place);
        Ok(())
    }

    fn mode(&mut self) -> Result<Mode, DecodeError> {
        let bits = self.bits.peek(6);
        let mode =
            |intra, scale, forward, backward, pattern| Mode { intra, scale, motion: [forward, backward], pattern };
        let (length, mode) = match self.context.picture.kind {
            PictureKind::Intra => match bits {
                32.. => (1, mode(true, false, false, false, false)),
                16.. => (2, mode(true, true, false, false, false)),
                _ => return Err(DecodeError::Damaged("no macroblock type of an intra picture")),
            },
            PictureKind::Predicted => match bits {
                32.. => (1, mode(false, false, true, false, true)),
                16.. => (2, mode(false, false, false, false, true)),
                8.. => (3, mode(false, false, true, false, false)),
                6 | 7 => (5, mode(true, false, false, false, false)),
                4 | 5 => (5, mode(false, true, true, false, true)),
                2 | 3 => (5, mode(false, true, false, false, true)),
                1 => (6, mode(true, true, false, false, false)),
                0 => return Err(DecodeError::Damaged("no macroblock type of a predicted picture")),
            },
            PictureKind::Bidirectional => match bits {
                48.. => (2, mode(false, false, true, true, true)),
                32.. => (2, mode(false, false, true, true, false)),
                24.. => (3, mode(false, false, false, true, true)),
                16.. => (3, mode(false, false, false, true, false)),
                12.. => (4, mode(false, false, true, false, true)),
                8.. => (4, mode(false, false, true, false, false)),
                6 | 7 => (5, mode(true, false, false, false, false)),
                4 | 5 => (5, mode(false, true, true, true, true)),
                3 => (6, mode(false, true, true, false, true)),
                2 => (6, mode(false, true, false, true, true)),
                1 => (6, mode(true, true, false, false, false)),
                0 => return Err(DecodeError::Damaged("no macroblock type of a B picture")),
            },
        };
        self.bits.take(length);
        Ok(mode)
    }

    /// `frame_motion_type` or `field_motion_type`.
    fn kind(&mut self) -> Result<Kind, DecodeError> {
        let picture = self.context.picture;
        if picture.structure == Structure::Frame && (self.context.sequence.mpeg1 || picture.frame_dct_only) {
            return Ok(Kind::Frame);
        }
        match (self.bits.take(2), picture.structure) {
            (1, _) => Ok(Kind::Field),
            (2, Structure::Frame) => Ok(Kind::Frame),
            (2, _) => Ok(Kind::Halves),
            (3, _) if picture.kind == PictureKind::Predicted => Ok(Kind::DualPrime),
            _ => Err(DecodeError::Damaged("no kind of motion")),
        }
    }

    /// `coded_block_pattern`: the first block is the highest of the bits that there are (table B.9, 6.2.5.3).
    fn pattern(&mut self) -> Result<u32, DecodeError> {
        let bits = self.bits.peek(9) as usize;
        let (length, index) = match bits {
            448.. => (3, 0),
            320.. => (4, 14 - (bits >> 5)),
            128.. => (5, 24 - (bits >> 4)),
            96.. => (6, 32 - (bits >> 3)),
            64.. => (7, 44 - (bits >> 2)),
            8.. => (8, 60 - (bits >> 1)),
            1.. => (9, 64 - bits),
            _ => return Err(DecodeError::Damaged("no pattern of blocks")),
        };
        self.bits.take(length);
        let pattern = u32::from(BLOCK_PATTERNS[index]);
        Ok(if self.context.sequence.chroma == Chroma::Yuv422 { pattern << 2 | self.bits.take(2) } else { pattern })
    }

    /// Decodes the blocks that `pattern` has.
    fn blocks(&mut self, canvas: &mut Canvas, pattern: u32, intra: bool, place: Place) -> Result<(), DecodeError> {
        let blocks = match self.context.sequence.chroma {
            Chroma::Yuv420 => 6,
            Chroma::Yuv422 => 8,
            Chroma::Luma400 | Chroma::Yuv444 => return Err(DecodeError::Unsupported("MPEG-2 video of 4:4:4")),
        };
        for block in 0..blocks {
            if pattern >> (blocks - 1 - block) & 1 == 1 {
                let plane = if block < 4 { 0 } else { 1 + block as usize % 2 };
                let residual = decode_block(&mut self.bits, &mut self.coding, plane, self.scale, intra)?;
                canvas.add(&residual, block as usize, blocks as usize, intra, place);
            }
        }
        Ok(())
    }
}

/// Where a macroblock goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    column: usize,
    row: usize,
    structure: Structure,
    /// Blocks hold rows of one field each.
    field_transform: bool,
}

impl Place {
    /// The row of the frame for a row of the macroblock, of `height`.
    const fn row_of(self, height: usize, row: usize) -> usize {
        let y = self.row * height + row;
        match self.structure {
            Structure::Frame => y,
            Structure::Top => y * 2,
            Structure::Bottom => y * 2 + 1,
        }
    }
}

impl Canvas {
    /// Writes what was predicted.
    fn put(&mut self, prediction: &Prediction, chroma: Chroma, place: Place) {
        let (shift_x, shift_y) = chroma.shifts();
        for (index, values) in prediction.planes.iter().enumerate() {
            let (x, y) = if index == 0 { (0, 0) } else { (shift_x, shift_y) };
            let (width, height) = (16 >> x, 16 >> y);
            let (stride, target) = &mut self.planes[index];
            for (row, values) in values.chunks_exact(width).take(height).enumerate() {
                let at = place.row_of(height, row) * *stride + place.column * width;
                if let Some(target) = target.get_mut(at..at + width) {
                    target.copy_from_slice(values);
                }
            }
        }
    }

    /// Adds a block to what was predicted, or to nothing (6.1.3.1).
    fn add(&mut self, residual: &Residual, block: usize, blocks: usize, intra: bool, place: Place) {
        let (plane, across, down, height) = match block {
            0..4 => (0, block % 2, block / 2, 16),
            _ => (1 + block % 2, 0, (block - 4) / 2, 4 * (blocks - 4)),
        };
        // Blocks of a field are interleaved, unless colour has but one block.
        let (first, step) = if place.field_transform && height == 16 { (down, 2) } else { (down * 8, 1) };
        let side = if plane == 0 { 16 } else { 8 };
        let (stride, target) = &mut self.planes[plane];
        for (index, values) in residual.iter().enumerate() {
            let at = place.row_of(height, first + index * step) * *stride + place.column * side + across * 8;
            let Some(target) = target.get_mut(at..at + 8) else { continue };
            for (sample, value) in target.iter_mut().zip(values) {
                let base = if intra { 0 } else { i32::from(*sample) };
                *sample = (base + value).clamp(0, 255) as u8;
            }
        }
    }
}
