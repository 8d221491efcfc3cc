//! HEVC: sequence parameter sets with their usability information, and what kind a picture is (23008-2 clause 7.3,
//! annexes D and E).

use super::h264::Messages;
use super::vui::{self, Vui};
use super::{Chroma, Entry, FieldOrder, HeaderError, Picture, SIDE_PIXELS_MAX, Seen, Structure, VideoFormat, reduced};
use crate::media::annexb::{Units, unescape};
use crate::media::bits::Bits;
use crate::proto::mpegts::demux::Codec;

/// Parameter sets of one stream.
#[derive(Debug)]
pub(super) struct Reader {
    sequences: [Option<Sequence>; 16],
    /// Sequence of each picture parameter set.
    pictures: [Option<u8>; 64],
    active: Option<u8>,
    field_order: Option<FieldOrder>,
}

impl Default for Reader {
    fn default() -> Self {
        Self { sequences: [None; 16], pictures: [None; 64], active: None, field_order: None }
    }
}

/// A sequence parameter set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sequence {
    profile: u8,
    level: u8,
    chroma: u8,
    depth: u8,
    width: u32,
    height: u32,
    vui: Vui,
    /// `field_seq_flag`: pictures are fields.
    fields: bool,
    /// `frame_field_info_present_flag`: picture timing begins with `pic_struct`.
    structure_present: bool,
}

impl Reader {
    pub(super) fn read(&mut self, bytes: &[u8]) -> Seen {
        let mut seen = Seen::default();
        let (mut entry, mut pictures, mut timing, mut recovery) = (Entry::None, 0, None, None);
        for nal in Units::new(bytes) {
            let [header, layer_and_temporal, body @ ..] = nal else { continue };
            let kind = header >> 1 & 0x3f;
            // Other layers (nuh_layer_id) are other pictures of the same moment.
            if header & 1 != 0 || layer_and_temporal >> 3 != 0 {
                continue;
            }
            match kind {
                0..=9 | 16..=21 => {
                    let body = unescape(&body[..body.len().min(SLICE_BYTES)]);
                    let first = self.read_slice(&body, kind);
                    pictures += u32::from(seen.keep(first).unwrap_or(false));
                    if kind >= 16 {
                        entry = Entry::Key;
                    }
                }
                SPS => {
                    if let Some((id, sequence)) = seen.keep(read_sequence(&unescape(body))) {
                        self.sequences[usize::from(id) & 15] = Some(sequence);
                    }
                }
                PPS => {
                    if let Some((id, sequence)) = seen.keep(read_picture_set(&unescape(body))) {
                        self.pictures[usize::from(id) & 63] = Some(sequence);
                    }
                }
                PREFIX_SEI => {
                    for (kind, message) in Messages::new(&unescape(body)) {
                        match kind {
                            PIC_TIMING => timing = message.first().map(|byte| byte >> 4),
                            RECOVERY_POINT => recovery = Bits::new(message).se().ok(),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        if pictures > 0 {
            if let (Entry::None, Some(frames @ 0..=MAX_RECOVERY)) = (entry, recovery) {
                entry = Entry::Recovery { frames: frames as u16 };
            }
            let fields = self.active_sequence().is_some_and(|sequence| sequence.fields);
            let structure = if fields && pictures == 1 { Structure::Field } else { Structure::Frame };
            seen.picture = Some(Picture { entry, structure, reference: true });
            self.field_order = self.order_of(timing).or(self.field_order);
        }
        seen.format = self.active_sequence().and_then(|sequence| sequence.format(self.field_order));
        seen
    }

    fn active_sequence(&self) -> Option<&Sequence> {
        self.active.and_then(|id| self.sequences.get(usize::from(id))?.as_ref())
    }

    /// Table D.2.
    fn order_of(&self, structure: Option<u8>) -> Option<FieldOrder> {
        if !self.active_sequence()?.structure_present {
            return None;
        }
        match structure? {
            0 | 7 | 8 => Some(FieldOrder::Progressive),
            3 | 5 | 10 | 11 => Some(FieldOrder::TopFirst),
            4 | 6 | 9 | 12 => Some(FieldOrder::BottomFirst),
            _ => None,
        }
    }

    /// Which sequence the slice belongs to, and whether it is the picture's first (7.3.6.1).
    fn read_slice(&mut self, body: &[u8], kind: u8) -> Result<bool, HeaderError> {
        let mut bits = Bits::new(body);
        let first = bits.flag()?;
        if kind >= 16 {
            bits.skip(1)?; // no_output_of_prior_pics_flag
        }
        let picture = bits.ue_max(63)? as usize;
        let sequence = self.pictures.get(picture).copied().flatten().ok_or(HeaderError::Unknown)?;
        self.active = Some(sequence);
        Ok(first)
    }
}

impl Sequence {
    fn format(&self, field_order: Option<FieldOrder>) -> Option<VideoFormat> {
        Some(VideoFormat {
            codec: Codec::Hevc,
            profile: match self.profile {
                1 => Some("Main"),
                2 => Some("Main 10"),
                3 => Some("Main Still Picture"),
                4 => Some("Rext"),
                9 => Some("Scc"),
                _ => None,
            },
            level: Some(self.level),
            width: self.width,
            height: self.height,
            chroma: Chroma::from_idc(u32::from(self.chroma))?,
            depth: self.depth,
            sample_aspect: self.vui.sample_aspect,
            frame_rate: self.vui.timing.and_then(|(units, scale)| reduced(scale, units)),
            field_order,
            colour: self.vui.colour,
        })
    }
}

/// 7.3.2.2.1.
fn read_sequence(body: &[u8]) -> Result<(u8, Sequence), HeaderError> {
    let mut bits = Bits::new(body);
    let mut sequence = Sequence::default();
    bits.skip(4)?; // sps_video_parameter_set_id
    let sub_layers = bits.take(3)?;
    bits.skip(1)?; // sps_temporal_id_nesting_flag
    (sequence.profile, sequence.level) = read_profile(&mut bits, sub_layers)?;
    let id = bits.ue_max(15)? as u8;
    sequence.chroma = bits.ue_max(3)? as u8;
    if sequence.chroma == 3 {
        bits.skip(1)?; // separate_colour_plane_flag
    }
    let chroma = Chroma::from_idc(u32::from(sequence.chroma)).ok_or(HeaderError::Value)?;
    let (width, height) = (bits.ue_max(SIDE_PIXELS_MAX)?, bits.ue_max(SIDE_PIXELS_MAX)?);
    (sequence.width, sequence.height) = read_window(&mut bits, width, height, chroma)?;
    sequence.depth = 8 + bits.ue_max(8)? as u8;
    bits.ue_max(8)?; // bit_depth_chroma_minus8
    let order_bits = bits.ue_max(12)? + 4;
    let all_layers = bits.flag()?;
    for _ in if all_layers { 0 } else { sub_layers }..=sub_layers {
        bits.ue()?; // sps_max_dec_pic_buffering_minus1
        bits.ue()?; // sps_max_num_reorder_pics
        bits.ue()?; // sps_max_latency_increase_plus1
    }
    for _ in 0..6 {
        bits.ue()?; // sizes of coding and transform blocks
    }
    if bits.flag()? && bits.flag()? {
        skip_scaling_lists(&mut bits)?;
    }
    bits.skip(2)?; // amp_enabled_flag, sample_adaptive_offset_enabled_flag
    if bits.flag()? {
        bits.skip(8)?; // pcm_sample_bit_depth
        bits.ue()?;
        bits.ue()?;
        bits.skip(1)?;
    }
    skip_reference_sets(&mut bits)?;
    if bits.flag()? {
        for _ in 0..bits.ue_max(32)? {
            bits.skip(order_bits as usize + 1)?;
        }
    }
    bits.skip(2)?; // sps_temporal_mvp_enabled_flag, strong_intra_smoothing_enabled_flag
    if bits.flag()? {
        read_vui(&mut bits, &mut sequence)?;
    }
    Ok((id, sequence))
}

/// `profile_tier_level` (7.3.3): profile and level.
fn read_profile(bits: &mut Bits<'_>, sub_layers: u32) -> Result<(u8, u8), HeaderError> {
    bits.skip(3)?; // general_profile_space, general_tier_flag
    let mut profile = bits.byte(5)?;
    let compatible = bits.take(32)?;
    if profile == 0 {
        // Whoever leaves the profile open says which ones can decode it.
        profile = (1..32).find(|bit| compatible >> (31 - bit) & 1 == 1).unwrap_or(0);
    }
    bits.skip(48)?; // source and constraint flags
    let level = bits.byte(8)?;
    if sub_layers > 0 {
        let flags = bits.take(16)?;
        for layer in 0..sub_layers {
            let pair = flags >> (14 - 2 * layer);
            bits.skip(if pair & 2 == 0 { 0 } else { 88 } + if pair & 1 == 0 { 0 } else { 8 })?;
        }
    }
    Ok((profile, level))
}

/// What the conformance window leaves (7.4.3.2.1).
fn read_window(bits: &mut Bits<'_>, width: u32, height: u32, chroma: Chroma) -> Result<(u32, u32), HeaderError> {
    let (mut across, mut down) = (0, 0);
    if bits.flag()? {
        across = bits.ue_max(SIDE_PIXELS_MAX)? + bits.ue_max(SIDE_PIXELS_MAX)?;
        down = bits.ue_max(SIDE_PIXELS_MAX)? + bits.ue_max(SIDE_PIXELS_MAX)?;
    }
    let (shift_x, shift_y) = chroma.shifts();
    let width = width.checked_sub(across << shift_x).ok_or(HeaderError::Value)?;
    let height = height.checked_sub(down << shift_y).ok_or(HeaderError::Value)?;
    if width == 0 || height == 0 { Err(HeaderError::Value) } else { Ok((width, height)) }
}

/// `scaling_list_data` (7.3.4).
fn skip_scaling_lists(bits: &mut Bits<'_>) -> Result<(), HeaderError> {
    for size in 0..4_u32 {
        for _ in 0..if size == 3 { 2 } else { 6 } {
            if !bits.flag()? {
                bits.ue()?; // scaling_list_pred_matrix_id_delta
                continue;
            }
            if size > 1 {
                bits.se()?; // scaling_list_dc_coef_minus8
            }
            for _ in 0..64.min(1 << (4 + 2 * size)) {
                bits.se()?;
            }
        }
    }
    Ok(())
}

/// `st_ref_pic_set` of all sets (7.3.7), of which only the number of pictures is kept, as the next set needs it.
fn skip_reference_sets(bits: &mut Bits<'_>) -> Result<(), HeaderError> {
    let mut before = 0;
    for set in 0..bits.ue_max(64)? {
        if set > 0 && bits.flag()? {
            bits.skip(1)?; // delta_rps_sign
            bits.ue()?; // abs_delta_rps_minus1
            let mut kept = 0;
            for _ in 0..=before {
                // used_by_curr_pic_flag, and use_delta_flag where that is not set.
                if bits.flag()? || bits.flag()? {
                    kept += 1;
                }
            }
            before = kept;
        } else {
            before = bits.ue_max(16)? + bits.ue_max(16)?;
            for _ in 0..before {
                bits.ue()?; // delta_poc_minus1
                bits.skip(1)?; // used_by_curr_pic_flag
            }
        }
        if before > 32 {
            return Err(HeaderError::Value);
        }
    }
    Ok(())
}

/// E.2.1, up to the timing.
fn read_vui(bits: &mut Bits<'_>, sequence: &mut Sequence) -> Result<(), HeaderError> {
    sequence.vui = vui::read_common(bits)?;
    bits.skip(1)?; // neutral_chroma_indication_flag
    sequence.fields = bits.flag()?;
    sequence.structure_present = bits.flag()?;
    if bits.flag()? {
        for _ in 0..4 {
            bits.ue()?; // default display window: a hint only
        }
    }
    if bits.flag()? {
        sequence.vui.timing = Some((bits.take(32)?, bits.take(32)?));
    }
    Ok(())
}

/// 7.3.2.3, its two ids.
fn read_picture_set(body: &[u8]) -> Result<(u8, u8), HeaderError> {
    let mut bits = Bits::new(body);
    Ok((bits.ue_max(63)? as u8, bits.ue_max(15)? as u8))
}

/// NAL unit types (table 7-1).
const SPS: u8 = 33;
const PPS: u8 = 34;
const PREFIX_SEI: u8 = 39;
/// SEI payload types (D.2.1).
const PIC_TIMING: usize = 1;
const RECOVERY_POINT: usize = 6;
/// More frames than that nobody waits for.
const MAX_RECOVERY: i32 = 1_000;
/// More than the part of a slice header that is read here can have.
const SLICE_BYTES: usize = 16;
