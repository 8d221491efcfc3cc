//! A decoded picture: three planes of samples.

use super::headers::{Chroma, Colour};

/// A decoded picture, cropped; both fields woven together if there are two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Subsampling of the second and third plane. Monochrome pictures have 4:2:0 planes of grey.
    pub chroma: Chroma,
    /// Bits of a sample: 8 to 16.
    pub depth: u8,
    /// Luma, then the two differences of colour.
    pub planes: [Plane; 3],
}

/// One plane, row by row without padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plane {
    /// Samples in a row; never zero.
    pub width: usize,
    /// Rows; never zero.
    pub height: usize,
    /// `width` times `height` of them.
    pub samples: Samples,
}

/// Samples of 8 bits, or of more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Samples {
    /// Of 8 bits.
    Byte(Vec<u8>),
    /// Of 9 to 16 bits.
    Word(Vec<u16>),
}

/// How a picture is meant to be shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Display {
    /// Width and height of a pixel.
    pub sample_aspect: Option<(u32, u32)>,
    /// What samples mean.
    pub colour: Colour,
    /// The two fields show different moments.
    pub interlaced: bool,
}

impl Plane {
    /// A plane; `None` if there are not as many samples as its size says.
    pub(super) fn new(width: usize, height: usize, samples: Samples) -> Option<Self> {
        let fits = width > 0 && height > 0 && width.checked_mul(height) == Some(samples.len());
        fits.then_some(Self { width, height, samples })
    }
}

impl Samples {
    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        match self {
            Self::Byte(samples) => samples.len(),
            Self::Word(samples) => samples.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Frame {
    /// Width in pixels.
    #[must_use]
    pub const fn width(&self) -> usize {
        self.planes[0].width
    }

    /// Height in pixels.
    #[must_use]
    pub const fn height(&self) -> usize {
        self.planes[0].height
    }
}
