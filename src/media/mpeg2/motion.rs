//! Motion vectors of MPEG-1 and MPEG-2 video and what is predicted with them (13818-2 7.6).

use super::block::BitReader;
use super::{Canvas, PictureHeader, Structure};
use crate::media::decode::DecodeError;
use crate::media::headers::Chroma;

/// How vectors move a macroblock (tables 6-17 and 6-18).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One for all of a frame.
    Frame,
    /// One for each field of a frame, or for a field.
    Field,
    /// One for the upper and one for the lower half of a field's macroblock.
    Halves,
    /// One, and a small difference for the fields of other parity.
    DualPrime,
}

/// Vectors of a macroblock in one direction, in half samples.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vectors {
    kind: Kind,
    /// Across and down.
    vectors: [[i32; 2]; 2],
    /// Whether a vector points into the bottom field.
    bottom: [bool; 2],
    difference: [i32; 2],
}

impl Vectors {
    /// Those of a macroblock that stays where it is, and of skipped ones.
    pub(super) const fn zero(structure: Structure) -> Self {
        let bottom = matches!(structure, Structure::Bottom);
        let kind = if matches!(structure, Structure::Frame) { Kind::Frame } else { Kind::Field };
        Self { kind, vectors: [[0; 2]; 2], bottom: [bottom; 2], difference: [0; 2] }
    }
}

/// What vectors are coded as differences to: by which vector, direction and axis (7.6.3).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Predictors([[[i32; 2]; 2]; 2]);

impl Predictors {
    /// Reads the vectors of a macroblock in a direction, 0 forward, 1 backward (6.2.5.2).
    pub(super) fn read(
        &mut self,
        bits: &mut BitReader<'_>,
        picture: &PictureHeader,
        kind: Kind,
        direction: usize,
    ) -> Result<Vectors, DecodeError> {
        let mut out = Vectors { kind, ..Vectors::zero(picture.structure) };
        let in_frame = picture.structure == Structure::Frame;
        let two = kind == Kind::Halves || kind == Kind::Field && in_frame;
        for index in 0..if two { 2 } else { 1 } {
            if matches!(kind, Kind::Field | Kind::Halves) {
                out.bottom[index] = bits.take(1) == 1;
            }
            for axis in 0..2 {
                // Vectors of fields count their rows, and frames have twice as many.
                let halved = axis == 1 && in_frame && kind != Kind::Frame;
                let known = &mut self.0[index][direction][axis];
                let vector = picture.moved(bits, if halved { *known >> 1 } else { *known }, direction, axis)?;
                *known = if halved { vector * 2 } else { vector };
                out.vectors[index][axis] = if picture.full_samples[direction] { vector * 2 } else { vector };
                if kind == Kind::DualPrime {
                    out.difference[axis] = bits.dual_prime();
                }
            }
        }
        if !two {
            self.0[1][direction] = self.0[0][direction];
        }
        Ok(out)
    }

    /// The vectors of the macroblock before, for skipped ones of B pictures (7.6.6.4).
    pub(super) fn repeated(&self, structure: Structure, direction: usize, full_samples: bool) -> Vectors {
        let [across, down] = self.0[0][direction];
        let vector = if full_samples { [across * 2, down * 2] } else { [across, down] };
        Vectors { vectors: [vector; 2], ..Vectors::zero(structure) }
    }
}

impl PictureHeader {
    /// A component of a vector: what is known, and a difference that wraps (7.6.3.1).
    fn moved(&self, bits: &mut BitReader<'_>, known: i32, direction: usize, axis: usize) -> Result<i32, DecodeError> {
        let size = u32::from(self.f_code[direction][axis]);
        if !(1..=9).contains(&size) {
            return Err(DecodeError::Damaged("no range of vectors"));
        }
        let code = bits.motion_code()?;
        let mut difference = code;
        if size > 1 && code != 0 {
            let rest = bits.take(size - 1) as i32;
            difference = (((code.abs() - 1) << (size - 1)) + rest + 1) * code.signum();
        }
        let half = 16 << (size - 1);
        Ok((known + difference + half).rem_euclid(2 * half) - half)
    }
}

/// What a macroblock is predicted to be, before coefficients are added: 16 samples in a row of luma, 8 of colour.
#[derive(Debug)]
pub(super) struct Prediction {
    pub(super) planes: [[u8; 256]; 3],
    /// Something was predicted already, so the next is averaged with it.
    filled: bool,
}

/// Where a macroblock is and what it is predicted from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source<'a> {
    /// The frame with the top field, and that with the bottom field: the same but for the second field of a frame.
    pub(super) fields: [&'a Canvas; 2],
    pub(super) column: usize,
    pub(super) row: usize,
    pub(super) structure: Structure,
    pub(super) top_first: bool,
    pub(super) chroma: Chroma,
}

/// Rows of a frame or of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rows {
    All,
    Top,
    Bottom,
}

/// A piece of a macroblock: rows of luma from `first` on, each `step`th, as many as 16 / `parts`.
#[derive(Clone, Copy, Debug)]
struct Piece {
    rows: Rows,
    /// The piece's first row of luma in the frame or field that it is predicted from.
    y: usize,
    height: usize,
    first: usize,
    step: usize,
}

impl Prediction {
    pub(super) const fn new() -> Self {
        Self { planes: [[0; 256]; 3], filled: false }
    }

    /// Adds what `vectors` say (7.6.4).
    pub(super) fn add(&mut self, source: &Source<'_>, vectors: &Vectors) {
        let whole = Piece { rows: Rows::All, y: source.row * 16, height: 16, first: 0, step: 1 };
        let field = |bottom: bool| if bottom { Rows::Bottom } else { Rows::Top };
        let [first, second] = vectors.vectors;
        match (vectors.kind, source.structure) {
            (Kind::Frame, _) => self.piece(source, whole, first, self.filled),
            (Kind::Field, Structure::Frame) => {
                for (parity, vector) in [first, second].into_iter().enumerate() {
                    let rows = field(vectors.bottom[parity]);
                    let piece = Piece { rows, y: source.row * 8, height: 8, first: parity, step: 2 };
                    self.piece(source, piece, vector, self.filled);
                }
            }
            (Kind::Field, _) => {
                self.piece(source, Piece { rows: field(vectors.bottom[0]), ..whole }, first, self.filled);
            }
            (Kind::Halves, _) => {
                for (half, vector) in [first, second].into_iter().enumerate() {
                    let rows = field(vectors.bottom[half]);
                    let piece = Piece { rows, y: source.row * 16 + half * 8, height: 8, first: half * 8, step: 1 };
                    self.piece(source, piece, vector, self.filled);
                }
            }
            (Kind::DualPrime, Structure::Frame) => {
                for parity in [0, 1] {
                    let piece =
                        Piece { rows: field(parity == 1), y: source.row * 8, height: 8, first: parity, step: 2 };
                    self.piece(source, piece, first, false);
                    // The field of other parity is one or three fields away (table 7-12).
                    let distance = if (parity == 0) == source.top_first { 1 } else { 3 };
                    let vector = other_parity(first, vectors.difference, distance, parity == 1);
                    self.piece(source, Piece { rows: field(parity == 0), ..piece }, vector, true);
                }
            }
            (Kind::DualPrime, structure) => {
                let bottom = structure == Structure::Bottom;
                self.piece(source, Piece { rows: field(bottom), ..whole }, first, false);
                let vector = other_parity(first, vectors.difference, 1, bottom);
                self.piece(source, Piece { rows: field(!bottom), ..whole }, vector, true);
            }
        }
        self.filled = true;
    }

    fn piece(&mut self, source: &Source<'_>, piece: Piece, [across, down]: [i32; 2], average: bool) {
        let (shift_x, shift_y) = source.chroma.shifts();
        for (index, target) in self.planes.iter_mut().enumerate() {
            let (x, y) = if index == 0 { (0, 0) } else { (shift_x, shift_y) };
            // 7.6.3.7: towards zero.
            let (across, down) = (across / (1 << x), down / (1 << y));
            let (width, height) = (16 >> x, piece.height >> y);
            // Halves of a macroblock are one below the other, fields in turns.
            let first = if piece.step == 1 { piece.first >> y } else { piece.first };
            let canvas = source.fields[usize::from(piece.rows == Rows::Bottom)];
            let (stride, samples) = &canvas.planes[index];
            let (offset, step) = match piece.rows {
                Rows::All => (0, *stride),
                Rows::Top => (0, 2 * *stride),
                Rows::Bottom => (*stride, 2 * *stride),
            };
            let view = View { samples: samples.get(offset..).unwrap_or_default(), step, width: *stride };
            let at = [(source.column * 16) >> x, piece.y >> y];
            let block = view.block(at, [across, down], [width, height]);
            for (row, values) in block.iter().take(height).enumerate() {
                let start = (first + row * piece.step) * width;
                let Some(target) = target.get_mut(start..start + width) else { continue };
                for (target, value) in target.iter_mut().zip(values) {
                    *target = if average { mean(*target, *value) } else { *value };
                }
            }
        }
    }
}

/// 7.6.3.6: the vector scaled by its distance, the difference, and half a row between fields.
fn other_parity(vector: [i32; 2], difference: [i32; 2], distance: i32, bottom: bool) -> [i32; 2] {
    let scaled = |axis: usize| ((vector[axis] * distance + i32::from(vector[axis] > 0)) >> 1) + difference[axis];
    [scaled(0), scaled(1) + if bottom { 1 } else { -1 }]
}

/// Rows of a plane.
#[derive(Clone, Copy, Debug)]
struct View<'a> {
    samples: &'a [u8],
    /// From one row to the next.
    step: usize,
    width: usize,
}

impl View<'_> {
    /// Samples around `at` moved by half samples. What is outside of the picture is as its edge is: only damaged vectors
    /// point there.
    fn block(&self, at: [usize; 2], vector: [i32; 2], [width, height]: [usize; 2]) -> [[u8; 16]; 16] {
        let rows = (self.samples.len().saturating_sub(self.width)) / self.step + 1;
        let (x, y) = (at[0] as i32 + (vector[0] >> 1), at[1] as i32 + (vector[1] >> 1));
        let (half_x, half_y) = (vector[0] & 1 == 1, vector[1] & 1 == 1);
        let mut block = [[0; 16]; 16];
        let mut above = [0; 17];
        for row in 0..height + usize::from(half_y) {
            let from = (y + row as i32).clamp(0, rows as i32 - 1) as usize * self.step;
            let line = self.samples.get(from..from + self.width).unwrap_or_default();
            let mut now = [0; 17];
            let inside = usize::try_from(x).ok().and_then(|x| line.get(x..x + width + 1));
            if let Some(inside) = inside {
                now[..=width].copy_from_slice(inside);
            } else {
                for (column, sample) in now.iter_mut().enumerate().take(width + 1) {
                    let from = (x + column as i32).clamp(0, self.width as i32 - 1) as usize;
                    *sample = line.get(from).copied().unwrap_or_default();
                }
            }
            if half_y && row > 0 {
                blend(&mut block[row - 1], &above, &now, half_x);
            } else if !half_y {
                blend(&mut block[row], &now, &now, half_x);
            }
            above = now;
        }
        block
    }
}

/// Means of two samples, or of four.
fn blend(out: &mut [u8; 16], upper: &[u8; 17], lower: &[u8; 17], half_x: bool) {
    let equal = upper == lower;
    for (column, out) in out.iter_mut().enumerate() {
        *out = match (half_x, equal) {
            (false, _) => mean(upper[column], lower[column]),
            (true, true) => mean(upper[column], upper[column + 1]),
            (true, false) => {
                let sum = u16::from(upper[column])
                    + u16::from(upper[column + 1])
                    + u16::from(lower[column])
                    + u16::from(lower[column + 1]);
                ((sum + 2) >> 2) as u8
            }
        };
    }
}

const fn mean(a: u8, b: u8) -> u8 {
    ((a as u16 + b as u16 + 1) >> 1) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_samples_are_means_and_edges_go_on() {
        let samples: Vec<u8> = (0..16).map(|value| value * 10).collect();
        let view = View { samples: &samples, step: 4, width: 4 };
        assert_eq!(view.block([0, 0], [2, 2], [2, 2])[0][..2], [50, 60]);
        assert_eq!(view.block([0, 0], [1, 0], [2, 2])[0][..2], [5, 15]);
        assert_eq!(view.block([0, 0], [1, 1], [2, 2])[0][..2], [25, 35]);
        assert_eq!(view.block([0, 0], [-20, -20], [2, 2])[1][..2], [0, 0]);
        assert_eq!(view.block([0, 0], [20, 20], [2, 2])[0][..2], [150, 150]);
        assert_eq!(other_parity([3, -3], [0, 1], 1, false), [2, -2]);
    }
}
