//! MPEG-1 and MPEG-2 video (11172-2, 13818-2 clauses 6 and 7): frame and field pictures, 4:2:0 and 4:2:2.
//!
//! A picture with an error anywhere is given up: it would be shown as what the source looks like.

mod block;
mod motion;
mod slice;
mod tables;

use std::sync::Arc;

use self::slice::Context;
use self::tables::{DEFAULT_WEIGHTS, ZIGZAG};
use super::annexb::Units;
use super::bits::Bits;
use super::decode::{DecodeError, HEIGHT_MAX, WIDTH_MAX};
use super::frame::{Frame, Plane, Samples};
use super::headers::{Chroma, HeaderError};

/// Decodes the pictures of one stream.
#[derive(Debug)]
pub(super) struct Decoder {
    sequence: Option<Sequence>,
    /// Of intra and of other blocks, each luma's and colour's, row by row.
    weights: [[[u8; 64]; 2]; 2],
    /// The frame whose second field is missing, and which one came.
    half: Option<(Canvas, Structure)>,
    /// The last two frames that others are predicted from, the older one first.
    references: [Option<Arc<Canvas>>; 2],
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

/// `picture_coding_type` (table 6-12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PictureKind {
    Intra,
    Predicted,
    Bidirectional,
}

/// Picture header and its extension.
#[derive(Clone, Copy, Debug)]
struct PictureHeader {
    kind: PictureKind,
    structure: Structure,
    top_first: bool,
    /// Bits that a DC coefficient has beyond 8.
    dc_precision: u32,
    frame_dct_only: bool,
    concealment_vectors: bool,
    /// Forward and backward, across and down.
    f_code: [[u8; 2]; 2],
    /// Vectors of MPEG-1 may count whole samples, forward and backward.
    full_samples: [bool; 2],
    non_linear: bool,
    table_one: bool,
    alternate: bool,
}

/// Planes of whole macroblocks.
#[derive(Clone, Debug)]
struct Canvas {
    /// Width and samples.
    planes: [(usize, Vec<u8>); 3],
    macroblocks: usize,
    /// As many as there may be with those of the picture that is being decoded.
    macroblocks_max: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { sequence: None, weights: WEIGHTS, half: None, references: [None, None] }
    }
}

impl Decoder {
    /// What comes next does not continue what came: nothing is predicted from that.
    pub(super) fn restart(&mut self) {
        (self.half, self.references) = (None, [None, None]);
    }

    /// Decodes what the unit holds; `None` after the first of two fields.
    pub(super) fn decode(&mut self, bytes: &[u8]) -> Result<Option<Frame>, DecodeError> {
        let mut open: Option<(PictureHeader, Option<Open>)> = None;
        let mut finished = None;
        let mut pictures = 0;
        for unit in Units::new(bytes) {
            let [code, body @ ..] = unit else { continue };
            match *code {
                SEQUENCE => self.read_sequence(body).map_err(damaged)?,
                EXTENSION => self.read_extension(body, &mut open).map_err(damaged)?,
                PICTURE => {
                    pictures += 1;
                    if pictures > PICTURES_MAX {
                        // What is finished is worth as much as ever.
                        break;
                    }
                    finished = self.close(open.take())?.or(finished);
                    open = Some((read_picture(body)?, None));
                }
                FIRST_SLICE..=LAST_SLICE => {
                    let (Some((header, target)), Some(sequence)) = (&mut open, self.sequence) else {
                        return Err(DecodeError::Damaged("a slice before its headers"));
                    };
                    if sequence.width > WIDTH_MAX as usize || sequence.height > HEIGHT_MAX as usize {
                        return Err(DecodeError::TooLarge);
                    }
                    let target = target.get_or_insert_with(|| self.open(sequence, header));
                    let references = self.references_of(header, target.first.as_ref());
                    let context = Context { sequence, picture: header, weights: &self.weights, references };
                    slice::decode(context, &mut target.canvas, *code, body)?;
                }
                _ => {}
            }
        }
        Ok(self.close(open)?.or(finished))
    }

    /// Where the picture goes: beside the field before it, or on a new canvas.
    fn open(&mut self, sequence: Sequence, picture: &PictureHeader) -> Open {
        let (across, down) = sequence.macroblocks();
        let macroblocks = if picture.structure == Structure::Frame { across * down } else { across * down / 2 };
        let mut open = match self.half.take() {
            Some((canvas, first)) if picture.structure != Structure::Frame && picture.structure != first => {
                let first = (picture.kind == PictureKind::Predicted).then(|| canvas.clone());
                Open { canvas, first }
            }
            _ => Open { canvas: Canvas::new(sequence), first: None },
        };
        open.canvas.macroblocks_max = open.canvas.macroblocks + macroblocks;
        open
    }

    /// What forward and backward vectors point into (7.6.2.1). A second field's forward ones may mean the `first` one.
    fn references_of<'a>(&'a self, picture: &PictureHeader, first: Option<&'a Canvas>) -> [Option<[&'a Canvas; 2]>; 2] {
        let [older, newer] = [0, 1].map(|index: usize| self.references[index].as_deref());
        let both = |frame: Option<&'a Canvas>| frame.map(|frame| [frame; 2]);
        match (picture.kind, first) {
            (PictureKind::Intra, _) => [None, None],
            (PictureKind::Bidirectional, _) => [both(older), both(newer)],
            (PictureKind::Predicted, None) => [both(newer), None],
            (PictureKind::Predicted, Some(first)) => {
                // Where no frame came before, the other field is not used by streams that can be decoded from here.
                let other = newer.unwrap_or(first);
                let fields = if picture.structure == Structure::Top { [other, first] } else { [first, other] };
                [Some(fields), None]
            }
        }
    }

    /// A picture is over; what came of it, once it has both fields.
    fn close(&mut self, open: Option<(PictureHeader, Option<Open>)>) -> Result<Option<Frame>, DecodeError> {
        let (Some((picture, Some(Open { canvas, .. }))), Some(sequence)) = (open, self.sequence) else {
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
        let frame = canvas.crop(sequence)?;
        if picture.kind != PictureKind::Bidirectional {
            self.references = [self.references[1].take(), Some(Arc::new(canvas))];
        }
        Ok(Some(frame))
    }

    /// 6.2.2.1.
    fn read_sequence(&mut self, body: &[u8]) -> Result<(), HeaderError> {
        let mut bits = Bits::new(body);
        let (width, height) = (bits.take(12)? as usize, bits.take(12)? as usize);
        bits.skip(4 + 4 + 18 + 1 + 10 + 1)?;
        self.weights = WEIGHTS;
        for weights in &mut self.weights {
            if bits.flag()? {
                *weights = [read_weights(&mut bits)?; 2];
            }
        }
        if width == 0 || height == 0 {
            return Err(HeaderError::Value);
        }
        self.half = None;
        let sequence = Sequence { width, height, mpeg1: true, progressive: true, chroma: Chroma::Yuv420 };
        self.sequence = Some(sequence);
        Ok(())
    }

    fn read_extension(
        &mut self,
        body: &[u8],
        open: &mut Option<(PictureHeader, Option<Open>)>,
    ) -> Result<(), HeaderError> {
        let mut bits = Bits::new(body);
        match (bits.take(4)?, &mut self.sequence, open) {
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
                for weights in &mut self.weights {
                    if bits.flag()? {
                        *weights = [read_weights(&mut bits)?; 2];
                    }
                }
                for weights in &mut self.weights {
                    if bits.flag()? {
                        weights[1] = read_weights(&mut bits)?;
                    }
                }
            }
            // 6.2.3.1.
            (8, _, Some((picture, None))) => {
                picture.f_code = [[bits.byte(4)?, bits.byte(4)?], [bits.byte(4)?, bits.byte(4)?]];
                picture.full_samples = [false; 2];
                picture.dc_precision = bits.take(2)?;
                picture.structure = match bits.take(2)? {
                    1 => Structure::Top,
                    2 => Structure::Bottom,
                    3 => Structure::Frame,
                    _ => return Err(HeaderError::Value),
                };
                picture.top_first = bits.flag()?;
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
}

/// A picture that is being decoded.
#[derive(Debug)]
struct Open {
    canvas: Canvas,
    /// The first field, if this is the second and may be predicted from it.
    first: Option<Canvas>,
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
        Self { planes: [plane(across * 16, down * 16), colour(), colour()], macroblocks: 0, macroblocks_max: 0 }
    }

    /// One more macroblock comes. Without a bound a few bytes could have the same ones decoded over and over.
    const fn begin_macroblock(&mut self) -> Result<(), DecodeError> {
        if self.macroblocks == self.macroblocks_max {
            return Err(DecodeError::Damaged("more macroblocks than the picture has"));
        }
        self.macroblocks += 1;
        Ok(())
    }

    fn crop(&self, sequence: Sequence) -> Result<Frame, DecodeError> {
        let (shift_x, shift_y) = sequence.chroma.shifts();
        let mut index = 0;
        let planes = self.planes.each_ref().map(|(stride, samples)| {
            let (x, y) = if index == 0 { (0, 0) } else { (shift_x, shift_y) };
            index += 1;
            let (width, height) = (sequence.width.div_ceil(1 << x), sequence.height.div_ceil(1 << y));
            let mut cropped = Vec::with_capacity(width * height);
            for row in samples.chunks_exact(*stride).take(height) {
                // A header may have changed the size since; then there are too few.
                cropped.extend_from_slice(row.get(..width).unwrap_or_default());
            }
            Plane::new(width, height, Samples::Byte(cropped))
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
    let kind = match bits.take(13).map_err(damaged)? & 7 {
        1 => PictureKind::Intra,
        2 => PictureKind::Predicted,
        3 => PictureKind::Bidirectional,
        _ => return Err(DecodeError::Unsupported("D pictures of MPEG-1")),
    };
    let (mut f_code, mut full_samples) = ([[1; 2]; 2], [false; 2]);
    let mut read = || -> Result<(), HeaderError> {
        bits.skip(16)?; // vbv_delay
        let directions = if kind == PictureKind::Bidirectional { 2 } else { 1 };
        for (full_samples, f_code) in full_samples.iter_mut().zip(&mut f_code).take(directions) {
            *full_samples = bits.flag()?;
            *f_code = [bits.byte(3)?; 2];
        }
        Ok(())
    };
    if kind != PictureKind::Intra {
        read().map_err(damaged)?;
    }
    Ok(PictureHeader {
        kind,
        structure: Structure::Frame,
        top_first: true,
        dc_precision: 0,
        frame_dct_only: true,
        concealment_vectors: false,
        f_code,
        full_samples,
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

fn damaged(error: HeaderError) -> DecodeError {
    DecodeError::Damaged(match error {
        HeaderError::Truncated => "a header is cut short",
        HeaderError::Value | HeaderError::Unknown => "a header has a value that is not allowed",
    })
}

/// A PES packet has one as a rule, or both fields of one; some have a few.
const PICTURES_MAX: usize = 16;
/// Start code values (table 6-1).
const PICTURE: u8 = 0x00;
const FIRST_SLICE: u8 = 0x01;
const LAST_SLICE: u8 = 0xaf;
const SEQUENCE: u8 = 0xb3;
const EXTENSION: u8 = 0xb5;
/// Where the stream brings none (6.3.11).
const WEIGHTS: [[[u8; 64]; 2]; 2] = [[DEFAULT_WEIGHTS; 2], [[16; 64]; 2]];
