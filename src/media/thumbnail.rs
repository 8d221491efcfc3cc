//! Samples to a small JPEG: each plane averaged down to its size, then one matrix to full-range BT.601, which is what
//! JFIF means, in the aspect in which the picture is meant to be seen.

use jpeg_encoder::{ColorType, Encoder, EncodingError, SamplingFactor};

use super::frame::{Display, Frame, Plane, Samples};

/// A small picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thumbnail {
    /// Width in pixels, which are square.
    pub width: u16,
    /// Height in pixels.
    pub height: u16,
    /// The JFIF file.
    pub jpeg: Vec<u8>,
}

impl Thumbnail {
    /// Of a picture, as large as fits into [`WIDTH_MAX`] by [`HEIGHT_MAX`] and not larger than it is. Where the file
    /// would be longer than [`JPEG_BYTES_MAX`] its quality is lower.
    ///
    /// # Errors
    /// The encoder failed; it has no reason to.
    pub fn new(frame: &Frame, display: &Display) -> Result<Self, EncodingError> {
        let Scaled { width, height, pixels } = Scaled::new(frame, display);
        let mut jpeg = Vec::new();
        for quality in QUALITIES {
            jpeg = Vec::with_capacity(JPEG_BYTES_MAX);
            let mut encoder = Encoder::new(&mut jpeg, quality);
            encoder.set_sampling_factor(SamplingFactor::F_2_2);
            encoder.set_optimized_huffman_tables(true);
            encoder.encode(&pixels, width, height, ColorType::Ycbcr)?;
            if jpeg.len() <= JPEG_BYTES_MAX {
                break;
            }
        }
        Ok(Self { width, height, jpeg })
    }
}

/// A picture at the size of a thumbnail, before it is compressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scaled {
    /// Width in pixels, which are square.
    pub width: u16,
    /// Height in pixels.
    pub height: u16,
    /// Y, Cb and Cr of each pixel as JFIF means them: BT.601, full range.
    pub pixels: Vec<u8>,
}

impl Scaled {
    /// Of a picture, as large as fits into [`WIDTH_MAX`] by [`HEIGHT_MAX`] and not larger than it is.
    #[must_use]
    pub fn new(frame: &Frame, display: &Display) -> Self {
        let (width, height) = size_of(frame, display);
        Self { width, height, pixels: pixels(frame, display, width, height) }
    }
}

/// The size in square pixels, even in both directions.
fn size_of(frame: &Frame, display: &Display) -> (u16, u16) {
    let (across, down) = display.sample_aspect.unwrap_or((1, 1));
    // Pixels of more than 4:1 either way are not believed.
    let aspect = (f64::from(across) / f64::from(down)).clamp(0.25, 4.0);
    let (width, height) = (frame.width() as f64 * aspect, frame.height() as f64);
    let scale = (f64::from(WIDTH_MAX) / width).min(f64::from(HEIGHT_MAX) / height).min(1.0);
    let even = |length: f64, max: u16| ((length * scale / 2.0).round() as u16 * 2).clamp(2, max);
    (even(width, WIDTH_MAX), even(height, HEIGHT_MAX))
}

/// Y, Cb and Cr of each pixel.
fn pixels(frame: &Frame, display: &Display, width: u16, height: u16) -> Vec<u8> {
    let size = (usize::from(width), usize::from(height));
    let one_field = takes_one_field(frame, display, size.1);
    let [luma, blue, red] = [0, 1, 2].map(|index| scale_plane(&frame.planes[index], size, one_field));
    let matrix = Matrix::of(frame, display);
    let samples = luma.iter().zip(&blue).zip(&red);
    samples.flat_map(|((&y, &cb), &cr)| matrix.apply([y, cb, cr])).collect()
}

/// Two fields of different moments show as a comb unless many rows are averaged, if one alone has about enough rows.
fn takes_one_field(frame: &Frame, display: &Display, height: usize) -> bool {
    display.interlaced && (height * 7 / 4..height * 3).contains(&frame.height())
}

/// Averages what lies under each pixel of the smaller plane.
fn scale_plane(plane: &Plane, size: (usize, usize), one_field: bool) -> Vec<f32> {
    match &plane.samples {
        Samples::Byte(samples) => average(samples, plane.width, plane.height, size, one_field),
        Samples::Word(samples) => average(samples, plane.width, plane.height, size, one_field),
    }
}

/// Box filter: adds rows up first, so that each sample is read once and in order.
fn average<T: Copy + Into<u32>>(
    samples: &[T],
    width: usize,
    height: usize,
    (across, down): (usize, usize),
    one_field: bool,
) -> Vec<f32> {
    let columns: Vec<Share> = (0..across).map(|x| Share::new(x, across, width)).collect();
    let (rows, step) = if one_field { (height.div_ceil(2), 2) } else { (height, 1) };
    let mut out = Vec::with_capacity(across * down);
    let mut sums = vec![0_f32; width];
    for y in 0..down {
        sums.fill(0.0);
        let share = Share::new(y, down, rows);
        for (row, weight) in (share.first..).zip(&share.weights) {
            let at = row * step * width;
            for (sum, sample) in sums.iter_mut().zip(samples.get(at..at + width).unwrap_or_default()) {
                *sum += (*sample).into() as f32 * weight;
            }
        }
        for column in &columns {
            let under = sums.iter().skip(column.first).zip(&column.weights);
            out.push(under.map(|(sum, weight)| sum * weight).sum());
        }
    }
    out
}

/// Which samples lie under one of fewer, and their shares of it, one in all.
#[derive(Debug)]
struct Share {
    first: usize,
    weights: Vec<f32>,
}

impl Share {
    /// Under the one at `index` of `to`, of `from`: at least one.
    fn new(index: usize, to: usize, from: usize) -> Self {
        // In parts of a sample, `to` each.
        let (start, end) = (index * from, (index + 1) * from);
        let first = start / to;
        let parts = (first..end.div_ceil(to)).map(|at| end.min((at + 1) * to) - start.max(at * to));
        Self { first, weights: parts.map(|parts| parts as f32 / from as f32).collect() }
    }
}

/// From the picture's Y'CbCr to that of JFIF.
#[derive(Clone, Copy, Debug)]
struct Matrix {
    /// What black and no colour are, and the factors that make the rest 0 to 1 and -0.5 to 0.5.
    black: f32,
    grey: f32,
    luma_scale: f32,
    colour_scale: f32,
    /// Of red and blue in luma.
    red: f32,
    blue: f32,
}

impl Matrix {
    fn of(frame: &Frame, display: &Display) -> Self {
        let depth = u32::from(frame.depth.clamp(8, 16));
        let unit = (1_u32 << (depth - 8)) as f32;
        let peak = ((1_u32 << depth) - 1) as f32;
        let (black, luma_range, colour_range) =
            if display.colour.full_range { (0.0, peak, peak) } else { (16.0 * unit, 219.0 * unit, 224.0 * unit) };
        // ISO/IEC 23091-2 table 4; where nothing is said it goes by the size, as players do.
        let (red, blue) = match display.colour.matrix {
            1 => BT709,
            4 => (0.30, 0.11),
            5 | 6 => BT601,
            7 => (0.212, 0.087),
            9 | 10 => (0.2627, 0.0593),
            _ if frame.height() >= 720 => BT709,
            _ => BT601,
        };
        let grey = 128.0 * unit;
        Self { black, grey, luma_scale: 1.0 / luma_range, colour_scale: 1.0 / colour_range, red, blue }
    }

    fn apply(&self, [y, cb, cr]: [f32; 3]) -> [u8; 3] {
        let y = (y - self.black) * self.luma_scale;
        let (cb, cr) = ((cb - self.grey) * self.colour_scale, (cr - self.grey) * self.colour_scale);
        let red = y + 2.0 * (1.0 - self.red) * cr;
        let blue = y + 2.0 * (1.0 - self.blue) * cb;
        let green = (y - self.red * red - self.blue * blue) / (1.0 - self.red - self.blue);
        let [red, green, blue] = [red, green, blue].map(|value| value.clamp(0.0, 1.0));
        let y = BT601.0 * red + (1.0 - BT601.0 - BT601.1) * green + BT601.1 * blue;
        let cb = (blue - y) / (2.0 * (1.0 - BT601.1)) + 0.5;
        let cr = (red - y) / (2.0 * (1.0 - BT601.0)) + 0.5;
        [y, cb, cr].map(|value| (value * 255.0).round().clamp(0.0, 255.0) as u8)
    }
}

/// The box that a thumbnail fits into: 16:9 fills it.
pub const WIDTH_MAX: u16 = 480;
/// See [`WIDTH_MAX`].
pub const HEIGHT_MAX: u16 = 270;
/// Longest file that is wanted.
pub const JPEG_BYTES_MAX: usize = 20_000;
/// Of the encoder, tried in this order. Noise over the whole picture may need the last ones.
const QUALITIES: [u8; 7] = [90, 82, 75, 60, 45, 30, 15];
/// Shares of red and blue in luma.
const BT601: (f32, f32) = (0.299, 0.114);
const BT709: (f32, f32) = (0.2126, 0.0722);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::headers::{Chroma, Colour};

    #[test]
    fn the_aspect_is_that_of_the_display() {
        let size = |width, height, sample_aspect| {
            let display = Display { sample_aspect, ..Display::default() };
            size_of(&flat(width, height, [16, 128, 128]), &display)
        };
        assert_eq!(size(1_920, 1_080, Some((1, 1))), (480, 270));
        assert_eq!(size(1_440, 1_080, Some((4, 3))), (480, 270));
        assert_eq!(size(720, 576, Some((16, 15))), (360, 270));
        assert_eq!(size(720, 576, Some((64, 45))), (480, 270));
        assert_eq!(size(1_080, 1_920, None), (152, 270));
        assert_eq!(size(64, 64, None), (64, 64));
        assert_eq!(size(2, 2, Some((1, u32::MAX))), (2, 2));
    }

    #[test]
    fn shares_add_up_and_leave_nothing_out() {
        for (to, from) in [(480, 1_920), (270, 1_080), (480, 640), (264, 176), (2, 2), (1, 7)] {
            let mut taken = vec![0.0; from];
            for index in 0..to {
                let share = Share::new(index, to, from);
                assert!((share.weights.iter().sum::<f32>() - 1.0).abs() < 1e-5);
                for (at, weight) in share.weights.iter().enumerate() {
                    taken[share.first + at] += weight * from as f32 / to as f32;
                }
            }
            assert!(taken.iter().all(|taken: &f32| (taken - 1.0).abs() < 1e-3), "{to} of {from}");
        }
        let samples: Vec<u8> = (0..8).collect();
        assert_eq!(average(&samples, 4, 2, (2, 1), false), [2.5, 4.5]);
        assert_eq!(average(&samples, 4, 2, (2, 1), true), [0.5, 2.5]);
    }

    #[test]
    fn black_and_white_span_the_whole_range() {
        let colour_of = |samples, display: &Display| pixels(&flat(64, 64, samples), display, 2, 2)[..3].to_vec();
        let limited = Display::default();
        assert_eq!(colour_of([16, 128, 128], &limited), [0, 128, 128]);
        assert_eq!(colour_of([235, 128, 128], &limited), [255, 128, 128]);
        let full = Display { colour: Colour { full_range: true, ..Colour::default() }, ..Display::default() };
        assert_eq!(colour_of([255, 128, 128], &full), [255, 128, 128]);
        // Pure red in BT.709 (63, 102, 240) is pure red in BT.601's full range (76, 85, 255).
        let bt709 = Display { colour: Colour { matrix: 1, ..Colour::default() }, ..Display::default() };
        let red = colour_of([63, 102, 240], &bt709);
        assert!(red.iter().zip([76, 85, 255]).all(|(found, expected)| found.abs_diff(expected) <= 1), "{red:?}");
    }

    #[test]
    fn noise_makes_no_long_file() {
        let mut seed = 1_u32;
        let mut noise = |count: usize| -> Vec<u8> {
            std::iter::repeat_with(|| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (seed >> 24) as u8
            })
            .take(count)
            .collect()
        };
        let plane = |width: usize, height: usize, samples| Plane { width, height, samples: Samples::Byte(samples) };
        let planes =
            [plane(480, 270, noise(480 * 270)), plane(240, 135, noise(240 * 135)), plane(240, 135, noise(240 * 135))];
        let frame = Frame { chroma: Chroma::Yuv420, depth: 8, planes };
        let thumbnail = Thumbnail::new(&frame, &Display::default()).unwrap();
        assert!(thumbnail.jpeg.len() < 2 * JPEG_BYTES_MAX, "{} bytes", thumbnail.jpeg.len());
        let thumbnail = Thumbnail::new(&flat(480, 270, [100, 90, 200]), &Display::default()).unwrap();
        assert!(thumbnail.jpeg.len() < 5_000 && thumbnail.jpeg.starts_with(&[0xff, 0xd8]));
    }

    fn flat(width: usize, height: usize, samples: [u8; 3]) -> Frame {
        let plane = |width: usize, height: usize, sample| Plane {
            width,
            height,
            samples: Samples::Byte(vec![sample; width * height]),
        };
        let planes = [
            plane(width, height, samples[0]),
            plane(width.div_ceil(2), height.div_ceil(2), samples[1]),
            plane(width.div_ceil(2), height.div_ceil(2), samples[2]),
        ];
        Frame { chroma: Chroma::Yuv420, depth: 8, planes }
    }
}
