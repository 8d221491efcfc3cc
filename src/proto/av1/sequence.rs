//! The sequence header of AV1 (AV1 5.5), and what is derived from it: the configuration record of FLV and MP4, and the
//! descriptor of transport streams.

use crate::proto::bits::Bits;

/// What a sequence header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sequence {
    pub(crate) profile: u8,
    /// `seq_level_idx` of the first operating point.
    pub(crate) level: u8,
    high_tier: bool,
    /// The largest that pictures have.
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// `num_units_in_display_tick` times ticks of a picture, and `time_scale`, of a constant frame rate.
    pub(crate) timing: Option<(u32, u32)>,
    pub(crate) colour: ColourConfig,
}

/// `color_config` (AV1 5.5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ColourConfig {
    /// 8, 10 or 12 bits.
    pub(crate) depth: u8,
    pub(crate) is_monochrome: bool,
    pub(crate) full_range: bool,
    /// Code points of ISO/IEC 23091-2.
    pub(crate) primaries: u8,
    pub(crate) transfer: u8,
    pub(crate) matrix: u8,
    /// Half as many samples of colour across and down.
    pub(crate) subsampling: (bool, bool),
    chroma_position: u8,
}

impl Sequence {
    /// Reads the payload of a sequence header; `None` if it ends too early or says what is not allowed.
    pub(crate) fn parse(payload: &[u8]) -> Option<Self> {
        let mut bits = Bits::from(payload, 0);
        let profile = bits.byte(3).filter(|profile| *profile <= 2)?;
        bits.skip(1); // still_picture
        let is_reduced = bits.flag()?;
        let (mut timing, mut level, mut high_tier) = (None, 0, false);
        if is_reduced {
            level = bits.byte(5)?;
        } else {
            let mut delay_bits = None;
            if bits.flag()? {
                timing = read_timing(&mut bits)?;
                delay_bits = read_decoder_model(&mut bits)?;
            }
            let has_display_delay = bits.flag()?;
            for point in 0..=bits.byte(5)? {
                bits.skip(12); // operating_point_idc
                let (point_level, point_tier) = read_point(&mut bits, delay_bits, has_display_delay)?;
                if point == 0 {
                    (level, high_tier) = (point_level, point_tier);
                }
            }
        }
        let (width_bits, height_bits) = (bits.take(4)? + 1, bits.take(4)? + 1);
        let (width, height) = (bits.take(width_bits)? + 1, bits.take(height_bits)? + 1);
        skip_tools(&mut bits, is_reduced)?;
        let colour = read_colour(&mut bits, profile)?;
        Some(Self { profile, level, high_tier, width, height, timing, colour })
    }

    /// `AV1CodecConfigurationRecord` ("AV1 Codec ISO Media File Format Binding" 2.3.3) up to its OBUs.
    pub(crate) fn record(&self) -> [u8; RECORD_BYTES] {
        let colour = &self.colour;
        let flags = [
            self.high_tier,
            colour.depth > 8,
            colour.depth > 10,
            colour.is_monochrome,
            colour.subsampling.0,
            colour.subsampling.1,
        ];
        let flags = flags.into_iter().fold(0, |bits, flag| bits << 1 | u8::from(flag));
        [0x81, self.profile << 5 | self.level, flags << 2 | colour.chroma_position, 0]
    }

    /// `hdr_wcg_idc` (AV1 in TS 2.2).
    pub(crate) const fn range_and_gamut(&self) -> u8 {
        match (self.colour.primaries, self.colour.transfer) {
            // BT.2020 with PQ or HLG; with another known curve.
            (9, 16 | 18) => 2,
            (9, 1 | 6 | 14 | 15) => 1,
            (1, 1 | 6) => 0,
            _ => NO_INDICATION,
        }
    }
}

/// `timing_info` (AV1 5.5.3): the two numbers of a frame rate, where it is constant.
fn read_timing(bits: &mut Bits<'_>) -> Option<Option<(u32, u32)>> {
    let (units, scale) = (bits.take(32)?, bits.take(32)?);
    if !bits.flag()? {
        return Some(None);
    }
    let ticks = bits.number()?.checked_add(1)?;
    Some(units.checked_mul(ticks).map(|units| (units, scale)))
}

/// `decoder_model_info` (AV1 5.5.4): how many bits delays have.
fn read_decoder_model(bits: &mut Bits<'_>) -> Option<Option<usize>> {
    if !bits.flag()? {
        return Some(None);
    }
    let delay_bits = usize::from(bits.byte(5)?) + 1;
    bits.skip(32 + 5 + 5);
    Some(Some(delay_bits))
}

/// Level and tier of an operating point.
fn read_point(bits: &mut Bits<'_>, delay_bits: Option<usize>, has_display_delay: bool) -> Option<(u8, bool)> {
    let level = bits.byte(5)?;
    let high_tier = level > 7 && bits.flag()?;
    if let Some(delay_bits) = delay_bits
        && bits.flag()?
    {
        bits.skip(2 * delay_bits + 1);
    }
    if has_display_delay && bits.flag()? {
        bits.skip(4);
    }
    Some((level, high_tier))
}

/// From `frame_id_numbers_present_flag` to `enable_restoration`.
fn skip_tools(bits: &mut Bits<'_>, is_reduced: bool) -> Option<()> {
    if !is_reduced && bits.flag()? {
        bits.skip(4 + 3);
    }
    bits.skip(3); // superblocks of 128, two of intra
    if !is_reduced {
        bits.skip(4); // four of inter
        let has_order_hint = bits.flag()?;
        if has_order_hint {
            bits.skip(2);
        }
        // seq_choose_screen_content_tools, or seq_force_screen_content_tools.
        if (bits.flag()? || bits.flag()?) && !bits.flag()? {
            bits.skip(1); // seq_force_integer_mv
        }
        if has_order_hint {
            bits.skip(3);
        }
    }
    bits.skip(3);
    Some(())
}

fn read_colour(bits: &mut Bits<'_>, profile: u8) -> Option<ColourConfig> {
    let is_high = bits.flag()?;
    let depth = match (profile, is_high) {
        (2, true) if bits.flag()? => 12,
        (_, true) => 10,
        (_, false) => 8,
    };
    let is_monochrome = profile != 1 && bits.flag()?;
    let [primaries, transfer, matrix] =
        if bits.flag()? { [bits.byte(8)?, bits.byte(8)?, bits.byte(8)?] } else { [2; 3] };
    let is_srgb = !is_monochrome && (primaries, transfer, matrix) == (1, 13, 0);
    let full_range = is_srgb || bits.flag()?;
    let subsampling = match profile {
        _ if is_monochrome => (true, true),
        _ if is_srgb => (false, false),
        0 => (true, true),
        1 => (false, false),
        _ if depth == 12 => {
            let across = bits.flag()?;
            (across, across && bits.flag()?)
        }
        _ => (true, false),
    };
    let has_position = subsampling == (true, true) && !is_monochrome;
    let chroma_position = if has_position { bits.byte(2)? } else { 0 };
    Some(ColourConfig { depth, is_monochrome, full_range, primaries, transfer, matrix, subsampling, chroma_position })
}

/// Of the configuration record without the OBUs behind it.
pub(crate) const RECORD_BYTES: usize = 4;
/// `hdr_wcg_idc` where nothing is known.
pub(crate) const NO_INDICATION: u8 = 3;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Of libsvtav1: Main, 320x180, 8 bits, BT.709 as matrix only. Of libaom: High, 320x180 4:4:4.
    const SVT: [u8; 14] = [0x02, 0, 0, 5, 0x21, 0xe7, 0xf6, 0x62, 0x57, 0xc8, 0x81, 0x01, 0, 0x82];
    const HIGH: [u8; 10] = [0x20, 0, 0, 4, 0x3c, 0xfe, 0xcc, 0xda, 0xf9, 0x02];

    #[test]
    fn recorded_headers_say_what_ffprobe_prints() {
        let svt = Sequence::parse(&SVT).unwrap();
        assert_eq!((svt.profile, svt.level, svt.width, svt.height), (0, 0, 320, 180));
        let colour = svt.colour;
        assert_eq!((colour.depth, colour.subsampling, colour.full_range), (8, (true, true), false));
        assert_eq!((colour.primaries, colour.transfer, colour.matrix), (2, 2, 1));
        assert_eq!((svt.record(), svt.range_and_gamut()), ([0x81, 0, 0x0c, 0], NO_INDICATION));
        let high = Sequence::parse(&HIGH).unwrap();
        assert_eq!((high.profile, high.width, high.height), (1, 320, 180));
        assert_eq!((high.colour.subsampling, high.record()), ((false, false), [0x81, 0x20, 0, 0]));
    }

    #[test]
    fn every_truncation_is_refused() {
        // The last bits say something of colour that is not kept, and of grain.
        for len in 0..SVT.len() - 1 {
            assert_eq!(Sequence::parse(&SVT[..len]), None, "{len}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(sequence) = Sequence::parse(&bytes) {
                prop_assert!(sequence.width <= 1 << 16 && sequence.height <= 1 << 16);
            }
        }
    }
}
