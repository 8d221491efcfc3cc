//! The part of video usability information that H.264 and HEVC have in common (14496-10 and 23008-2, annex E).

use super::{Colour, HeaderError, reduced};
use crate::media::bits::Bits;

/// Aspect ratio and colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Vui {
    pub(super) sample_aspect: Option<(u32, u32)>,
    pub(super) colour: Colour,
    /// `num_units_in_tick` and `time_scale`.
    pub(super) timing: Option<(u32, u32)>,
}

/// Reads from `aspect_ratio_info_present_flag` to the chroma locations.
pub(super) fn read_common(bits: &mut Bits<'_>) -> Result<Vui, HeaderError> {
    let mut vui = Vui::default();
    if bits.flag()? {
        let idc = bits.byte(8)?;
        vui.sample_aspect = if idc == EXTENDED_SAR {
            reduced(bits.take(16)?, bits.take(16)?)
        } else {
            SAMPLE_ASPECTS.get(usize::from(idc).wrapping_sub(1)).copied()
        };
    }
    if bits.flag()? {
        bits.skip(1)?; // overscan_appropriate_flag
    }
    if bits.flag()? {
        bits.skip(3)?; // video_format
        vui.colour.full_range = bits.flag()?;
        if bits.flag()? {
            vui.colour.primaries = bits.byte(8)?;
            vui.colour.transfer = bits.byte(8)?;
            vui.colour.matrix = bits.byte(8)?;
        }
    }
    if bits.flag()? {
        bits.ue()?; // chroma_sample_loc_type_top_field
        bits.ue()?; // chroma_sample_loc_type_bottom_field
    }
    Ok(vui)
}

const EXTENDED_SAR: u8 = 255;

/// Table E-1, from `aspect_ratio_idc` 1.
const SAMPLE_ASPECTS: [(u32, u32); 16] = [
    (1, 1),
    (12, 11),
    (10, 11),
    (16, 11),
    (40, 33),
    (24, 11),
    (20, 11),
    (32, 11),
    (80, 33),
    (18, 11),
    (15, 11),
    (64, 33),
    (160, 99),
    (4, 3),
    (3, 2),
    (2, 1),
];
