//! MPEG-1 and MPEG-2 video: sequence and picture headers (11172-2 2.4.2, 13818-2 clause 6.2).

use super::{
    Chroma, Colour, Entry, FieldOrder, HeaderError, Picture, SIDE_PIXELS_MAX, Seen, Structure, VideoFormat, reduced,
};
use crate::media::annexb::Units;
use crate::media::bits::Bits;
use crate::proto::mpegts::demux::Codec;

/// What the last headers said.
#[derive(Debug, Default)]
pub(super) struct Reader {
    format: Option<VideoFormat>,
    sequence: Sequence,
    /// The first field of a frame is always told; its second one must not turn the order round.
    field_order: Option<FieldOrder>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sequence {
    width: u32,
    height: u32,
    aspect: u8,
    rate: u8,
    extension: Option<Extension>,
    colour: Colour,
}

#[derive(Clone, Copy, Debug)]
struct Extension {
    profile_and_level: u8,
    progressive: bool,
    chroma: u8,
    size_extension: (u32, u32),
    rate_extension: (u32, u32),
}

impl Reader {
    pub(super) fn read(&mut self, bytes: &[u8]) -> Seen {
        let mut seen = Seen::default();
        let (mut pictures, mut fields, mut first_intra) = (0, 0, false);
        for unit in Units::new(bytes) {
            let [code, body @ ..] = unit else { continue };
            match *code {
                SEQUENCE => {
                    if let Some(sequence) = seen.keep(read_sequence(body)) {
                        // The extension follows anew after each header, so what stood there is over.
                        self.sequence = sequence;
                    }
                }
                EXTENSION => {
                    let outcome = self.read_extension(body, &mut fields, pictures);
                    seen.keep(outcome);
                }
                // temporal_reference, then picture_coding_type: 1 is intra.
                PICTURE => {
                    let intra = Bits::new(body).take(13).is_ok_and(|bits| bits & 7 == 1);
                    first_intra |= intra && pictures == 0;
                    pictures += 1;
                }
                // No header follows the first slice, but for those of a second field.
                _ => {}
            }
        }
        let built = self.sequence.format(self.field_order);
        if self.sequence.width > 0 {
            self.format = seen.keep(built).or_else(|| self.format.take());
        }
        if pictures > 0 {
            // The second field may be predicted from the first.
            let entry = if first_intra { Entry::Key } else { Entry::None };
            let structure = if fields == 1 { Structure::Field } else { Structure::Frame };
            seen.picture = Some(Picture { entry, structure, reference: true });
        }
        seen.format = self.format.clone();
        seen
    }

    fn read_extension(&mut self, body: &[u8], fields: &mut u32, pictures: u32) -> Result<(), HeaderError> {
        let mut bits = Bits::new(body);
        match bits.take(4)? {
            1 => self.sequence.extension = Some(read_sequence_extension(&mut bits)?),
            2 => {
                bits.skip(3)?; // video_format
                if bits.flag()? {
                    self.sequence.colour = Colour {
                        full_range: false,
                        primaries: bits.byte(8)?,
                        transfer: bits.byte(8)?,
                        matrix: bits.byte(8)?,
                    };
                }
            }
            8 => self.read_picture_extension(&mut bits, fields, pictures)?,
            _ => {}
        }
        Ok(())
    }

    /// 6.2.3.1.
    fn read_picture_extension(
        &mut self,
        bits: &mut Bits<'_>,
        fields: &mut u32,
        pictures: u32,
    ) -> Result<(), HeaderError> {
        bits.skip(16 + 2)?; // f_code, intra_dc_precision
        let structure = bits.take(2)?;
        let top_first = bits.flag()?;
        bits.skip(6)?; // frame_pred_frame_dct to chroma_420_type, with repeat_first_field in between
        let progressive = bits.flag()?;
        let progressive = progressive || self.sequence.extension.is_some_and(|extension| extension.progressive);
        *fields += u32::from(structure != FRAME);
        let top = if structure == FRAME { top_first } else { structure == TOP_FIELD };
        if pictures <= 1 {
            self.field_order = Some(match (progressive, top) {
                (true, _) => FieldOrder::Progressive,
                (false, true) => FieldOrder::TopFirst,
                (false, false) => FieldOrder::BottomFirst,
            });
        }
        Ok(())
    }
}

impl Sequence {
    fn format(&self, field_order: Option<FieldOrder>) -> Result<VideoFormat, HeaderError> {
        let (mut width, mut height) = (self.width, self.height);
        let mut rate = FRAME_RATES.get(usize::from(self.rate)).copied().filter(|rate| rate.0 > 0);
        let (mut chroma, mut profile, mut level) = (Chroma::Yuv420, None, None);
        if let Some(extension) = self.extension {
            width |= extension.size_extension.0 << 12;
            height |= extension.size_extension.1 << 12;
            let (factor, divisor) = extension.rate_extension;
            rate = rate.map(|(frames, seconds)| (frames * (factor + 1), seconds * (divisor + 1)));
            chroma = match extension.chroma {
                1..=3 => Chroma::from_idc(u32::from(extension.chroma)).ok_or(HeaderError::Value)?,
                _ => return Err(HeaderError::Value),
            };
            profile = PROFILES.get(usize::from(extension.profile_and_level >> 4 & 7)).copied().flatten();
            level = Some(extension.profile_and_level & 0xf);
        }
        let allowed = 1..=SIDE_PIXELS_MAX;
        if !allowed.contains(&width) || !allowed.contains(&height) {
            return Err(HeaderError::Value);
        }
        Ok(VideoFormat {
            codec: if self.extension.is_some() { Codec::Mpeg2Video } else { Codec::Mpeg1Video },
            profile,
            level,
            width,
            height,
            chroma,
            depth: 8,
            sample_aspect: self.sample_aspect(width, height),
            frame_rate: rate.and_then(|(frames, seconds)| reduced(frames, seconds)),
            field_order: if self.extension.is_some() { field_order } else { Some(FieldOrder::Progressive) },
            colour: self.colour,
        })
    }

    /// 13818-2 table 6-3 gives the aspect of the picture, but for square pixels. That of MPEG-1 is not read.
    fn sample_aspect(&self, width: u32, height: u32) -> Option<(u32, u32)> {
        let (across, down) = match (self.aspect, self.extension) {
            (1, _) => return Some((1, 1)),
            (2, Some(_)) => (4, 3),
            (3, Some(_)) => (16, 9),
            (4, Some(_)) => (221, 100),
            _ => return None,
        };
        reduced(across * height, down * width)
    }
}

/// 6.2.2.1.
fn read_sequence(body: &[u8]) -> Result<Sequence, HeaderError> {
    let mut bits = Bits::new(body);
    let (width, height) = (bits.take(12)?, bits.take(12)?);
    let (aspect, rate) = (bits.byte(4)?, bits.byte(4)?);
    Ok(Sequence { width, height, aspect, rate, ..Sequence::default() })
}

/// 6.2.2.3.
fn read_sequence_extension(bits: &mut Bits<'_>) -> Result<Extension, HeaderError> {
    let profile_and_level = bits.byte(8)?;
    let progressive = bits.flag()?;
    let chroma = bits.byte(2)?;
    let size_extension = (bits.take(2)?, bits.take(2)?);
    bits.skip(12 + 1 + 8 + 1)?; // bit_rate_extension, marker_bit, vbv_buffer_size_extension, low_delay
    let rate_extension = (bits.take(2)?, bits.take(5)?);
    Ok(Extension { profile_and_level, progressive, chroma, size_extension, rate_extension })
}

/// Start code values (table 6-1).
const PICTURE: u8 = 0x00;
const SEQUENCE: u8 = 0xb3;
const EXTENSION: u8 = 0xb5;
/// `picture_structure` (table 6-14).
const TOP_FIELD: u32 = 1;
const FRAME: u32 = 3;

/// Table 6-4: frames and seconds.
const FRAME_RATES: [(u32, u32); 9] =
    [(0, 1), (24_000, 1_001), (24, 1), (25, 1), (30_000, 1_001), (30, 1), (50, 1), (60_000, 1_001), (60, 1)];

/// Table 8-2, and 0 for the profiles whose code has the escape bit: only 4:2:2 is in use.
const PROFILES: [Option<&str>; 8] = [
    Some("4:2:2"),
    Some("High"),
    Some("Spatially Scalable"),
    Some("SNR Scalable"),
    Some("Main"),
    Some("Simple"),
    None,
    None,
];
