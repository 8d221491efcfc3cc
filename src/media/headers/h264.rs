//! H.264: parameter sets, slice headers and SEI messages, as far as metadata needs them (14496-10 clause 7.3, annexes D
//! and E).

use super::vui::{self, Vui};
use super::{Chroma, Entry, FieldOrder, HeaderError, Picture, SIDE_PIXELS_MAX, Seen, Structure, VideoFormat, reduced};
use crate::media::annexb::{Units, unescape};
use crate::media::bits::Bits;
use crate::proto::mpegts::demux::Codec;

/// Parameter sets of one stream.
#[derive(Debug)]
pub(super) struct Reader {
    sequences: [Option<Sequence>; 32],
    /// By id; a picture parameter set is a few flags.
    pictures: Box<[Option<PictureSet>; 256]>,
    /// What the last slice used.
    active: Option<u8>,
    field_order: Option<FieldOrder>,
}

impl Default for Reader {
    fn default() -> Self {
        Self { sequences: [None; 32], pictures: Box::new([None; 256]), active: None, field_order: None }
    }
}

#[derive(Clone, Copy, Debug)]
struct PictureSet {
    sequence: u8,
    /// `bottom_field_pic_order_in_frame_present_flag`.
    bottom_order_present: bool,
}

/// A sequence parameter set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sequence {
    profile: u8,
    constraints: u8,
    level: u8,
    chroma: Chroma,
    separate_planes: bool,
    depth: u8,
    frame_number_bits: u32,
    /// `log2_max_pic_order_cnt_lsb` for order type 0.
    order_bits: Option<u32>,
    /// `delta_pic_order_always_zero_flag` is not set, for order type 1.
    order_deltas: bool,
    frames_only: bool,
    /// `mb_adaptive_frame_field_flag`.
    adaptive: bool,
    /// Of a frame.
    macroblocks: u32,
    width: u32,
    height: u32,
    vui: Vui,
    timing: PictureTiming,
}

/// What the slices of a sequence look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::media) struct Layout {
    /// Its `seq_parameter_set_id`.
    pub(in crate::media) sequence: u8,
    pub(in crate::media) frame_number_bits: u32,
    pub(in crate::media) order_bits: Option<u32>,
    pub(in crate::media) order_deltas: bool,
    pub(in crate::media) frames_only: bool,
    pub(in crate::media) adaptive: bool,
    pub(in crate::media) macroblocks: u32,
}

/// How picture timing SEI messages are laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct PictureTiming {
    /// Bits of both delays together, if they are there.
    delay_bits: usize,
    structure_present: bool,
}

/// What SEI messages and slices of one unit said.
#[derive(Debug, Default)]
struct Unit {
    idr: bool,
    /// `nal_ref_idc` of a slice is not zero.
    reference: bool,
    recovery: Option<u16>,
    /// `pic_struct`.
    structure: Option<u8>,
    fields: u32,
    frames: u32,
    /// `delta_pic_order_cnt_bottom`, or that of type 1.
    bottom_after: Option<i32>,
    first_field_bottom: Option<bool>,
}

impl Reader {
    pub(super) fn read(&mut self, bytes: &[u8]) -> Seen {
        let mut seen = Seen::default();
        let mut unit = Unit::default();
        // SEI messages are laid out as the sequence says that the slices after them refer to.
        let mut timing = None;
        for nal in Units::new(bytes) {
            let [header, body @ ..] = nal else { continue };
            match header & 0x1f {
                SLICE | SLICE_IDR => {
                    unit.reference |= header & 0x60 != 0;
                    let slice =
                        self.read_slice(&unescape(&body[..body.len().min(SLICE_BYTES)]), header & 0x1f, &mut unit);
                    seen.keep(slice);
                }
                SEI => {
                    let body = unescape(body);
                    for (kind, message) in Messages::new(&body) {
                        match kind {
                            PIC_TIMING => timing = Some(message.to_vec()),
                            RECOVERY_POINT => {
                                let frames = Bits::new(message).ue_max(u32::from(u16::MAX));
                                unit.recovery = seen.keep(frames).map(|frames| frames as u16);
                            }
                            _ => {}
                        }
                    }
                }
                SPS => {
                    if let Some((id, sequence)) = seen.keep(read_sequence(&unescape(body))) {
                        self.sequences[usize::from(id) & 31] = Some(sequence);
                    }
                }
                PPS => {
                    if let Some((id, picture)) = seen.keep(read_picture_set(&unescape(body))) {
                        self.pictures[usize::from(id)] = Some(picture);
                    }
                }
                _ => {}
            }
        }
        if let Some(timing) = timing {
            unit.structure = self.active_sequence().and_then(|sequence| read_structure(&timing, sequence));
        }
        self.finish(&unit, seen)
    }

    fn finish(&mut self, unit: &Unit, mut seen: Seen) -> Seen {
        if unit.fields + unit.frames > 0 {
            let entry = match unit.recovery {
                _ if unit.idr => Entry::Key,
                Some(frames) => Entry::Recovery { frames },
                None => Entry::None,
            };
            let structure = if unit.fields == 1 { Structure::Field } else { Structure::Frame };
            seen.picture = Some(Picture { entry, structure, reference: unit.reference });
            self.field_order = self.order_of(unit).or(self.field_order);
        }
        seen.format = self.active_sequence().map(|sequence| sequence.format(self.field_order));
        seen
    }

    fn active_sequence(&self) -> Option<&Sequence> {
        self.active.and_then(|id| self.sequences.get(usize::from(id))?.as_ref())
    }

    /// Table D-1 where picture timing says it, else by the order counts of the fields (8.2.1).
    fn order_of(&self, unit: &Unit) -> Option<FieldOrder> {
        let sequence = self.active_sequence()?;
        if unit.fields > 0 {
            // The second field alone says nothing of the order.
            return match (unit.first_field_bottom, self.field_order) {
                (_, Some(order @ (FieldOrder::TopFirst | FieldOrder::BottomFirst))) => Some(order),
                (Some(true), _) => Some(FieldOrder::BottomFirst),
                (Some(false), _) => Some(FieldOrder::TopFirst),
                (None, _) => None,
            };
        }
        if let Some(structure) = unit.structure {
            return Some(match structure {
                3 | 5 => FieldOrder::TopFirst,
                4 | 6 => FieldOrder::BottomFirst,
                _ => FieldOrder::Progressive,
            });
        }
        if sequence.frames_only {
            return Some(FieldOrder::Progressive);
        }
        Some(match unit.bottom_after.unwrap_or(0) {
            1.. => FieldOrder::TopFirst,
            0 => FieldOrder::Progressive,
            _ => FieldOrder::BottomFirst,
        })
    }

    /// A slice header up to the order count (7.3.3).
    fn read_slice(&mut self, body: &[u8], kind: u8, unit: &mut Unit) -> Result<(), HeaderError> {
        let mut bits = Bits::new(body);
        let first_macroblock = bits.ue()?;
        bits.ue_max(9)?; // slice_type
        let picture_id = bits.ue_max(255)?;
        let picture = self.pictures.get(picture_id as usize).copied().flatten().ok_or(HeaderError::Unknown)?;
        let id = usize::from(picture.sequence);
        let sequence = self.sequences.get(id).copied().flatten().ok_or(HeaderError::Unknown)?;
        self.active = Some(picture.sequence);
        unit.idr |= kind == SLICE_IDR;
        if first_macroblock != 0 {
            return Ok(());
        }
        if sequence.separate_planes {
            bits.skip(2)?;
        }
        bits.skip(sequence.frame_number_bits as usize)?;
        let field = !sequence.frames_only && bits.flag()?;
        if field {
            let bottom = bits.flag()?;
            unit.fields += 1;
            unit.first_field_bottom = unit.first_field_bottom.or(Some(bottom));
            return Ok(());
        }
        unit.frames += 1;
        if kind == SLICE_IDR {
            bits.ue()?; // idr_pic_id
        }
        if let Some(order_bits) = sequence.order_bits {
            bits.skip(order_bits as usize)?;
            if picture.bottom_order_present {
                unit.bottom_after = Some(bits.se()?);
            }
        } else if sequence.order_deltas && picture.bottom_order_present {
            bits.se()?;
            unit.bottom_after = Some(bits.se()?);
        }
        Ok(())
    }
}

impl Sequence {
    fn format(&self, field_order: Option<FieldOrder>) -> VideoFormat {
        VideoFormat {
            codec: Codec::H264,
            profile: profile_name(self.profile, self.constraints),
            level: Some(self.level),
            width: self.width,
            height: self.height,
            chroma: self.chroma,
            depth: self.depth,
            sample_aspect: self.vui.sample_aspect,
            // A tick is a field (E.2.1).
            frame_rate: self.vui.timing.and_then(|(units, scale)| reduced(scale, units.checked_mul(2)?)),
            field_order,
            colour: self.vui.colour,
        }
    }
}

/// Width and height of each sequence parameter set in `bytes` that can be read.
pub(in crate::media) fn sizes(bytes: &[u8]) -> impl Iterator<Item = (u32, u32)> + '_ {
    let bodies = Units::new(bytes).filter_map(|nal| nal.split_first().filter(|(header, _)| **header & 0x1f == SPS));
    let sequences = bodies.filter_map(|(_, body)| read_sequence(&unescape(body)).ok());
    sequences.map(|(_, sequence)| (sequence.width, sequence.height))
}

/// How slices are laid out after the last sequence parameter set in `bytes` that can be read.
pub(in crate::media) fn layout(bytes: &[u8]) -> Option<Layout> {
    let bodies = Units::new(bytes).filter_map(|nal| nal.split_first().filter(|(header, _)| **header & 0x1f == SPS));
    let (id, sequence) = bodies.filter_map(|(_, body)| read_sequence(&unescape(body)).ok()).last()?;
    Some(Layout {
        sequence: id,
        frame_number_bits: sequence.frame_number_bits,
        order_bits: sequence.order_bits,
        order_deltas: sequence.order_deltas,
        frames_only: sequence.frames_only,
        adaptive: sequence.adaptive,
        macroblocks: sequence.macroblocks,
    })
}

fn profile_name(profile: u8, constraints: u8) -> Option<&'static str> {
    let intra = constraints & 0x10 != 0;
    Some(match profile {
        66 if constraints & 0x40 != 0 => "Constrained Baseline",
        66 => "Baseline",
        77 => "Main",
        88 => "Extended",
        100 => "High",
        110 if intra => "High 10 Intra",
        110 => "High 10",
        122 if intra => "High 4:2:2 Intra",
        122 => "High 4:2:2",
        244 if intra => "High 4:4:4 Intra",
        244 => "High 4:4:4 Predictive",
        44 => "CAVLC 4:4:4",
        118 => "Multiview High",
        128 => "Stereo High",
        _ => return None,
    })
}

/// 7.3.2.1.1.
fn read_sequence(body: &[u8]) -> Result<(u8, Sequence), HeaderError> {
    let mut bits = Bits::new(body);
    let profile = bits.byte(8)?;
    let constraints = bits.byte(8)?;
    let level = bits.byte(8)?;
    let id = bits.ue_max(31)? as u8;
    let (mut chroma, mut separate_planes, mut depth) = (Chroma::Yuv420, false, 8);
    if HIGH_PROFILES.contains(&profile) {
        let idc = bits.ue_max(3)?;
        chroma = Chroma::from_idc(idc).ok_or(HeaderError::Value)?;
        separate_planes = idc == 3 && bits.flag()?;
        depth = 8 + bits.ue_max(6)? as u8;
        bits.ue_max(6)?; // bit_depth_chroma_minus8
        bits.skip(1)?; // qpprime_y_zero_transform_bypass_flag
        if bits.flag()? {
            for list in 0..if idc == 3 { 12 } else { 8 } {
                if bits.flag()? {
                    skip_scaling_list(&mut bits, if list < 6 { 16 } else { 64 })?;
                }
            }
        }
    }
    let frame_number_bits = bits.ue_max(12)? + 4;
    let order_type = bits.ue_max(2)?;
    let (mut order_bits, mut order_deltas) = (None, false);
    if order_type == 0 {
        order_bits = Some(bits.ue_max(12)? + 4);
    } else if order_type == 1 {
        order_deltas = !bits.flag()?;
        bits.se()?;
        bits.se()?;
        for _ in 0..bits.ue_max(255)? {
            bits.se()?;
        }
    }
    bits.ue_max(16)?; // max_num_ref_frames
    bits.skip(1)?; // gaps_in_frame_num_value_allowed_flag
    let (across, down) = (bits.ue_max(SIDE_PIXELS_MAX / 16)? + 1, bits.ue_max(SIDE_PIXELS_MAX / 16)? + 1);
    let frames_only = bits.flag()?;
    let adaptive = !frames_only && bits.flag()?;
    bits.skip(1)?; // direct_8x8_inference_flag
    let field_factor = if frames_only { 1 } else { 2 };
    let (width, height) = read_crop(&mut bits, across * 16, down * 16 * field_factor, chroma, field_factor)?;
    let (vui, timing) = if bits.flag()? { read_vui(&mut bits)? } else { Default::default() };
    let sequence = Sequence {
        profile,
        constraints,
        level,
        chroma,
        separate_planes,
        depth,
        frame_number_bits,
        order_bits,
        order_deltas,
        frames_only,
        adaptive,
        macroblocks: across * down * field_factor,
        width,
        height,
        vui,
        timing,
    };
    Ok((id, sequence))
}

/// What is left of the coded size after cropping (7.4.2.1.1).
fn read_crop(
    bits: &mut Bits<'_>,
    width: u32,
    height: u32,
    chroma: Chroma,
    field_factor: u32,
) -> Result<(u32, u32), HeaderError> {
    let (mut left, mut right, mut top, mut bottom) = (0, 0, 0, 0);
    if bits.flag()? {
        left = bits.ue_max(SIDE_PIXELS_MAX)?;
        right = bits.ue_max(SIDE_PIXELS_MAX)?;
        top = bits.ue_max(SIDE_PIXELS_MAX)?;
        bottom = bits.ue_max(SIDE_PIXELS_MAX)?;
    }
    let (shift_x, shift_y) = chroma.shifts();
    let width = width.checked_sub((left + right) << shift_x).ok_or(HeaderError::Value)?;
    let height = height.checked_sub(((top + bottom) << shift_y) * field_factor).ok_or(HeaderError::Value)?;
    let allowed = 1..=SIDE_PIXELS_MAX;
    if allowed.contains(&width) && allowed.contains(&height) { Ok((width, height)) } else { Err(HeaderError::Value) }
}

/// 7.3.2.1.1.1, only to get past it.
fn skip_scaling_list(bits: &mut Bits<'_>, size: u32) -> Result<(), HeaderError> {
    let (mut last, mut next) = (8_i32, 8_i32);
    for _ in 0..size {
        if next != 0 {
            next = last.wrapping_add(bits.se()?) & 0xff;
        }
        if next != 0 {
            last = next;
        }
    }
    Ok(())
}

/// E.1.1, up to `pic_struct_present_flag`.
fn read_vui(bits: &mut Bits<'_>) -> Result<(Vui, PictureTiming), HeaderError> {
    let mut vui = vui::read_common(bits)?;
    if bits.flag()? {
        vui.timing = Some((bits.take(32)?, bits.take(32)?));
        bits.skip(1)?; // fixed_frame_rate_flag
    }
    let mut timing = PictureTiming::default();
    let (mut reference, mut delays) = (false, 0);
    for _ in ["nal_hrd_parameters", "vcl_hrd_parameters"] {
        if bits.flag()? {
            reference = true;
            delays = read_reference_decoder(bits)?;
        }
    }
    if reference {
        bits.skip(1)?; // low_delay_hrd_flag
        timing.delay_bits = delays;
    }
    timing.structure_present = bits.flag()?;
    Ok((vui, timing))
}

/// E.1.2: bits of the two delays in picture timing.
fn read_reference_decoder(bits: &mut Bits<'_>) -> Result<usize, HeaderError> {
    let count = bits.ue_max(31)? + 1;
    bits.skip(8)?; // bit_rate_scale, cpb_size_scale
    for _ in 0..count {
        bits.ue()?;
        bits.ue()?;
        bits.skip(1)?;
    }
    bits.skip(5)?; // initial_cpb_removal_delay_length_minus1
    let removal = bits.take(5)? + 1;
    let output = bits.take(5)? + 1;
    bits.skip(5)?; // time_offset_length
    Ok((removal + output) as usize)
}

/// 7.3.2.2, up to the flag that slice headers need.
fn read_picture_set(body: &[u8]) -> Result<(u8, PictureSet), HeaderError> {
    let mut bits = Bits::new(body);
    let id = bits.ue_max(255)? as u8;
    let sequence = bits.ue_max(31)? as u8;
    bits.skip(1)?; // entropy_coding_mode_flag
    Ok((id, PictureSet { sequence, bottom_order_present: bits.flag()? }))
}

/// `pic_struct` of a picture timing message (D.1.3).
fn read_structure(message: &[u8], sequence: &Sequence) -> Option<u8> {
    if !sequence.timing.structure_present {
        return None;
    }
    let mut bits = Bits::new(message);
    bits.skip(sequence.timing.delay_bits).ok()?;
    bits.byte(4).ok()
}

/// SEI messages (7.3.2.3): type and payload; one that is longer than its NAL unit ends them.
pub(super) struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Messages<'a> {
    pub(super) const fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    /// Type and length each are a sum of bytes, of which all but the last are 255.
    fn number(&mut self) -> Option<usize> {
        let mut sum = 0;
        loop {
            let (&byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            sum += usize::from(byte);
            if byte != 0xff {
                return Some(sum);
            }
        }
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = (usize, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        // One byte alone is the trailing bits.
        if self.rest.len() < 2 {
            return None;
        }
        let kind = self.number()?;
        let length = self.number()?;
        let (message, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some((kind, message))
    }
}

/// Profiles with `chroma_format_idc` (7.3.2.1.1).
const HIGH_PROFILES: [u8; 13] = [100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135];

/// NAL unit types (table 7-1).
const SLICE: u8 = 1;
const SLICE_IDR: u8 = 5;
const SEI: u8 = 6;
const SPS: u8 = 7;
const PPS: u8 = 8;
/// SEI payload types (D.1.1).
const PIC_TIMING: usize = 1;
const RECOVERY_POINT: usize = 6;
/// More than the part of a slice header that is read here can have.
const SLICE_BYTES: usize = 48;
