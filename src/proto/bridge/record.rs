//! Parameter sets as they come in a byte stream, and the decoder configuration records that FLV has of them.

use crate::proto::annexb::unescape;
use crate::proto::bits::Bits;

/// H.264 or HEVC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VideoCodec {
    H264,
    Hevc,
}

/// What a NAL unit is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// A slice; whether of a picture that a decoder can start at.
    Picture {
        is_key: bool,
    },
    /// Which kind of parameter set, in the order in which a record has them.
    ParameterSet(u8),
    /// It says nothing that FLV does not say itself.
    Framing,
    Other,
}

impl VideoCodec {
    /// By `nal_unit_type` (H.264 table 7-1, H.265 table 7-1).
    pub(super) fn role(self, unit: &[u8]) -> Role {
        let Some(first) = unit.first() else {
            return Role::Framing;
        };
        match self {
            Self::H264 => match first & 0x1f {
                kind @ 1..=5 => Role::Picture { is_key: kind == 5 },
                kind @ 7..=8 => Role::ParameterSet(kind - 7),
                // Delimiter, ends of sequence and stream, filler.
                9..=12 => Role::Framing,
                _ => Role::Other,
            },
            Self::Hevc => match first >> 1 & 0x3f {
                kind @ 0..=31 => Role::Picture { is_key: matches!(kind, 16..=23) },
                kind @ 32..=34 => Role::ParameterSet(kind - 32),
                35..=38 => Role::Framing,
                _ => Role::Other,
            },
        }
    }

    const fn kinds(self) -> u8 {
        match self {
            Self::H264 => 2,
            Self::Hevc => 3,
        }
    }

    /// Bytes before the payload of a NAL unit.
    const fn header_bytes(self) -> usize {
        match self {
            Self::H264 => 1,
            Self::Hevc => 2,
        }
    }
}

/// The parameter sets in force, at most [`SETS_MAX`] of at most [`SETS_BYTES_MAX`] together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sets(Vec<(u8, Vec<u8>)>);

impl Sets {
    /// Goes on with what an access unit brought; true if that was all kinds. False, and nothing changes, if it is too
    /// much.
    pub(super) fn update(&mut self, codec: VideoCodec, brought: &[(u8, &[u8])]) -> bool {
        let is_complete = (0..codec.kinds()).all(|kind| brought.iter().any(|set| set.0 == kind));
        let mut next = if is_complete { Self::default() } else { self.clone() };
        for (kind, bytes) in brought {
            // Pictures may have several sets with numbers; of the others the newest one is in force.
            let is_same = |set: &(u8, Vec<u8>)| {
                let is_picture = *kind + 1 == codec.kinds();
                let number = |bytes: &[u8]| bytes.get(codec.header_bytes()..).and_then(number);
                set.0 == *kind && (!is_picture || number(&set.1) == number(bytes))
            };
            match next.0.iter_mut().find(|set| is_same(set)) {
                Some(set) => set.1 = bytes.to_vec(),
                None => next.0.push((*kind, bytes.to_vec())),
            }
        }
        let bytes: usize = next.0.iter().map(|set| set.1.len()).sum();
        if next.0.len() > SETS_MAX || bytes > SETS_BYTES_MAX {
            return false;
        }
        // The order in which a record has them.
        next.0.sort_by_key(|set| set.0);
        *self = next;
        is_complete
    }

    /// The decoder configuration record with lengths of four bytes; `None` as long as a kind is missing, or what has to
    /// stand in it cannot be read.
    pub(super) fn record(&self, codec: VideoCodec) -> Option<Vec<u8>> {
        match codec {
            VideoCodec::H264 => self.avc_record(),
            VideoCodec::Hevc => self.hevc_record(),
        }
    }

    fn of(&self, kind: u8) -> impl Iterator<Item = &Vec<u8>> + Clone {
        self.0.iter().filter(move |set| set.0 == kind).map(|set| &set.1)
    }

    /// `AVCDecoderConfigurationRecord` (ISO/IEC 14496-15 5.3.3.1).
    fn avc_record(&self) -> Option<Vec<u8>> {
        let first = self.of(0).next()?;
        let [_, profile, compatibility, level, ..] = *first.first_chunk::<4>()?;
        let mut record = vec![1, profile, compatibility, level, 0xfc | 3];
        record.push(0xe0 | self.of(0).count() as u8);
        append(&mut record, self.of(0));
        self.of(1).next()?;
        record.push(self.of(1).count() as u8);
        append(&mut record, self.of(1));
        if matches!(profile, 100 | 110 | 122 | 144) {
            let formats = avc_formats(&unescape(first))?;
            record.extend([0xfc | formats.chroma, 0xf8 | formats.luma_depth, 0xf8 | formats.chroma_depth, 0]);
        }
        Some(record)
    }

    /// `HEVCDecoderConfigurationRecord` (ISO/IEC 14496-15 8.3.3.1).
    fn hevc_record(&self) -> Option<Vec<u8>> {
        let sequence = unescape(self.of(1).next()?);
        // Two bytes of NAL header, then identifiers, then profile_tier_level (H.265 7.3.3).
        let head = *sequence.get(2)?;
        let profile = sequence.get(3..15)?;
        let formats = hevc_formats(&sequence)?.formats;
        let mut record = vec![1];
        record.extend_from_slice(profile);
        // No least segmentation, no parallelism known.
        record.extend([0xf0, 0, 0xfc, 0xfc | formats.chroma, 0xf8 | formats.luma_depth, 0xf8 | formats.chroma_depth]);
        // No average frame rate, no constant one; number of temporal layers, whether they nest, lengths of four bytes.
        record.extend([0, 0, ((head >> 1 & 7).min(6) + 1) << 3 | (head & 1) << 2 | 3, 3]);
        for kind in 0..3 {
            self.of(kind).next()?;
            record.push(0x80 | (32 + kind));
            record.extend((self.of(kind).count() as u16).to_be_bytes());
            append(&mut record, self.of(kind));
        }
        Some(record)
    }
}

fn append<'a>(record: &mut Vec<u8>, sets: impl Iterator<Item = &'a Vec<u8>>) {
    for set in sets {
        // They are shorter than SETS_BYTES_MAX.
        record.extend((set.len() as u16).to_be_bytes());
        record.extend_from_slice(set);
    }
}

/// What a record repeats of a sequence parameter set.
struct Formats {
    chroma: u8,
    /// Minus eight.
    luma_depth: u8,
    chroma_depth: u8,
}

/// Of HEVC, and how large pictures are shown.
pub(super) struct HevcFormats {
    formats: Formats,
    pub(super) width: u32,
    pub(super) height: u32,
}

/// H.264 7.3.2.1.1, of the profiles that have it.
fn avc_formats(sequence: &[u8]) -> Option<Formats> {
    let mut bits = Bits::from(sequence, 32);
    bits.number()?;
    let chroma = bits.number_up_to(3)?;
    if chroma == 3 {
        bits.skip(1);
    }
    Some(Formats { chroma, luma_depth: bits.number_up_to(6)?, chroma_depth: bits.number_up_to(6)? })
}

/// H.265 7.3.2.2.1.
pub(super) fn hevc_formats(sequence: &[u8]) -> Option<HevcFormats> {
    let layers = sequence.get(2)? >> 1 & 7;
    let mut bits = Bits::from(sequence, 15 * 8);
    if layers > 0 {
        let flags: Vec<(u8, u8)> = (0..layers).map(|_| Some((bits.bit()?, bits.bit()?))).collect::<Option<_>>()?;
        bits.skip(usize::from(8 - layers) * 2);
        let bytes: usize = flags.iter().map(|(profile, level)| usize::from(profile * 11 + level)).sum();
        bits.skip(bytes * 8);
    }
    bits.number()?;
    let chroma = bits.number_up_to(3)?;
    if chroma == 3 {
        bits.skip(1);
    }
    let (mut width, mut height) = (bits.number()?, bits.number()?);
    if bits.bit()? == 1 {
        let (across, down) = (if matches!(chroma, 1 | 2) { 2 } else { 1 }, if chroma == 1 { 2 } else { 1 });
        for (side, step) in [(&mut width, across), (&mut height, down)] {
            for _ in 0..2 {
                *side = side.saturating_sub(bits.number()?.saturating_mul(step));
            }
        }
    }
    let formats = Formats { chroma, luma_depth: bits.number_up_to(7)?, chroma_depth: bits.number_up_to(7)? };
    Some(HevcFormats { formats, width, height })
}

/// The Exp-Golomb code at the start.
fn number(bytes: &[u8]) -> Option<u32> {
    Bits::from(&unescape(bytes.get(..bytes.len().min(8))?), 0).number()
}

/// Parameter sets of one track. What five bits of a record can say (ISO/IEC 14496-15 5.3.3.1).
const SETS_MAX: usize = 31;
/// Their bytes together. Judgement: real ones have a tenth of it, and our multiplexer takes no more back.
const SETS_BYTES_MAX: usize = 4_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proto::mpegts::mux::Format;

    /// Of x264: High, 160x120.
    const SPS: [u8; 24] = [
        0x67, 0x64, 0x00, 0x0b, 0xac, 0xd9, 0x42, 0x84, 0xfb, 0x01, 0x10, 0x00, 0x00, 0x03, 0x00, 0x10, 0x00, 0x00,
        0x03, 0x03, 0x28, 0xf1, 0x42, 0x99,
    ];

    #[test]
    fn a_record_says_what_the_sets_say() {
        let mut sets = Sets::default();
        assert_eq!(sets.record(VideoCodec::H264), None);
        assert!(sets.update(VideoCodec::H264, &[(0, &SPS), (1, &[0x68, 0xee, 0x3c, 0x80])]));
        let record = sets.record(VideoCodec::H264).unwrap();
        assert_eq!(record[..6], [1, 0x64, 0, 11, 0xff, 0xe1]);
        assert_eq!(record[record.len() - 4..], [0xfd, 0xf8, 0xf8, 0]);
        assert!(Format::h264_with_record(&record).is_ok());
        // The same number replaces, another one is added.
        assert!(!sets.update(VideoCodec::H264, &[(1, &[0x68, 0xef])]));
        assert_eq!(sets.0.len(), 2);
        assert!(!sets.update(VideoCodec::H264, &[(1, &[0x68, 0x5f])]));
        assert_eq!(sets.0.len(), 3);
        assert!(sets.update(VideoCodec::H264, &[(0, &SPS), (1, &[0x68, 0xee, 0x3c, 0x80])]));
        assert_eq!(sets.0.len(), 2);
    }

    #[test]
    fn more_sets_than_there_is_room_for_change_nothing() {
        let mut sets = Sets::default();
        assert!(sets.update(VideoCodec::H264, &[(0, &SPS), (1, &[0x68, 0xee])]));
        let before = sets.clone();
        assert!(!sets.update(VideoCodec::H264, &[(0, &SPS), (1, &[0xff; SETS_BYTES_MAX])]));
        assert_eq!(sets, before);
    }

    proptest! {
        #[test]
        fn any_sets_make_a_record_or_none(brought in proptest::collection::vec((0..3_u8, any::<Vec<u8>>()), 0..8)) {
            for codec in [VideoCodec::H264, VideoCodec::Hevc] {
                let mut sets = Sets::default();
                let brought: Vec<(u8, &[u8])> = brought.iter().map(|(kind, bytes)| (*kind, &bytes[..])).collect();
                sets.update(codec, &brought);
                if let Some(record) = sets.record(codec) {
                    let format = match codec {
                        VideoCodec::H264 => Format::h264_with_record(&record),
                        VideoCodec::Hevc => Format::hevc_with_record(&record),
                    };
                    prop_assert!(format.is_ok());
                }
            }
        }
    }
}
