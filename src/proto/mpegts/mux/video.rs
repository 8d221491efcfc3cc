//! An access unit of H.264 or HEVC as the byte stream that a transport stream carries (13818-1 2.14 and 2.17): delimiter
//! first, parameter sets before every picture that a decoder may start at, start codes before all NAL units.

use super::format::{Framing, PARAMETER_SETS_MAX, START_CODE, Video, VideoCodec};
use super::multiplexer::UNIT_BYTES_MAX;
use super::queue::Draft;
use super::stats::Unfit;
use crate::proto::Payload;
use crate::proto::annexb::{find_start_code, without_trailing_zeros};
use crate::proto::mpegts::TS_PACKET_BYTES;
use crate::proto::mpegts::decoder_buffers::DecoderBuffers;

impl Video {
    /// Appends the access unit `data` to `draft`, and says whether a decoder may start at it, which `hint` may claim
    /// beside what the unit shows. Parameter sets that come with it are kept for later pictures.
    ///
    /// # Errors
    /// If the framing is broken, there is no picture inside, or start codes make it longer than [`APPENDED_MAX`], or more than half
    /// of it is nothing; `draft` may then hold a part of it.
    pub(super) fn append(&mut self, data: &Payload, hint: bool, draft: &mut Draft<'_>) -> Result<bool, Unfit> {
        let head = self.look(data)?;
        if head.has_parameter_sets {
            self.learn(data);
        }
        let Some(picture) = head.picture else {
            return Err(Unfit::NoPicture);
        };
        let bytes_max = draft.len() + APPENDED_MAX;
        let random_access = hint || self.codec.is_random_access(picture);
        draft.own().extend_from_slice(self.codec.delimiter());
        if random_access && !head.has_parameter_sets {
            draft.own().extend_from_slice(&self.parameter_sets);
        }
        let codec = self.codec;
        for part in self.framing.units(self.codec, data) {
            let unit = part?;
            if codec.role(unit) != Role::Delimiter {
                if draft.len() + START_CODE.len() + unit.len() > bytes_max {
                    return Err(Unfit::TooLong);
                }
                draft.own().extend_from_slice(&START_CODE);
                draft.append_part(data, unit);
            }
        }
        // A part of it that waits keeps all of it.
        if draft.len() < data.len() / 2 {
            return Err(Unfit::Malformed);
        }
        Ok(random_access)
    }

    /// How long a receiver's transport buffer takes for a TS packet, by the parameter sets; zero if they do not tell. A sixth
    /// less fast than 13818-1 2.14.3.1 has it, as the buffer behind it goes by that rate.
    pub(super) fn packet_27m(&self) -> u64 {
        let codec = match self.codec {
            VideoCodec::H264 => "h264",
            VideoCodec::Hevc => "hevc",
        };
        let leak_bps = DecoderBuffers::of_video(codec, &self.parameter_sets).map_or(0, |buffers| buffers.leak.as_bps());
        (TS_PACKET_BYTES as u64 * 8 * 27_000_000 * 6 / 5).checked_div(leak_bps).unwrap_or(0)
    }

    /// Looks at the NAL units up to the first of a picture.
    fn look(&self, data: &[u8]) -> Result<Head, Unfit> {
        let mut head = Head::default();
        let mut sets = 0;
        for unit in self.framing.units(self.codec, data) {
            let unit = unit?;
            match self.codec.role(unit) {
                Role::Picture => {
                    head.picture = unit.first().copied();
                    break;
                }
                Role::ParameterSet(bit) => sets |= bit,
                Role::Delimiter | Role::Other => {}
            }
        }
        head.has_parameter_sets = sets == self.codec.all_parameter_sets();
        Ok(head)
    }

    /// Keeps the parameter sets of an access unit that has all kinds of them; longer ones than
    /// [`PARAMETER_SETS_MAX`] are not kept.
    fn learn(&mut self, data: &[u8]) {
        self.parameter_sets.clear();
        let codec = self.codec;
        for unit in self.framing.units(self.codec, data).map_while(Result::ok) {
            match codec.role(unit) {
                Role::Picture => break,
                Role::ParameterSet(_) if self.parameter_sets.len() + 4 + unit.len() <= PARAMETER_SETS_MAX => {
                    self.parameter_sets.extend_from_slice(&START_CODE);
                    self.parameter_sets.extend_from_slice(unit);
                }
                Role::ParameterSet(_) | Role::Delimiter | Role::Other => {}
            }
        }
    }
}

#[derive(Default)]
struct Head {
    /// First byte of the first NAL unit of the picture.
    picture: Option<u8>,
    has_parameter_sets: bool,
}

/// What a NAL unit is to us.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Delimiter,
    /// One kind of them, as a bit.
    ParameterSet(u8),
    Picture,
    Other,
}

impl VideoCodec {
    /// By `nal_unit_type` (H.264 table 7-1, H.265 table 7-1).
    fn role(self, unit: &[u8]) -> Role {
        let Some(first) = unit.first() else {
            return Role::Other;
        };
        match self {
            Self::H264 => match first & 0x1f {
                1..=5 => Role::Picture,
                7 => Role::ParameterSet(1),
                8 => Role::ParameterSet(2),
                9 => Role::Delimiter,
                _ => Role::Other,
            },
            Self::Hevc => match first >> 1 & 0x3f {
                0..=31 => Role::Picture,
                32 => Role::ParameterSet(1),
                33 => Role::ParameterSet(2),
                34 => Role::ParameterSet(4),
                35 => Role::Delimiter,
                _ => Role::Other,
            },
        }
    }

    const fn all_parameter_sets(self) -> u8 {
        match self {
            Self::H264 => 3,
            Self::Hevc => 7,
        }
    }

    /// IDR pictures of H.264, IRAP pictures of HEVC.
    const fn is_random_access(self, first: u8) -> bool {
        match self {
            Self::H264 => first & 0x1f == 5,
            Self::Hevc => matches!(first >> 1 & 0x3f, 16..=23),
        }
    }

    /// An access unit delimiter that allows every type of picture.
    const fn delimiter(self) -> &'static [u8] {
        match self {
            Self::H264 => &[0, 0, 0, 1, 0x09, 0xf0],
            Self::Hevc => &[0, 0, 0, 1, 0x46, 0x01, 0x50],
        }
    }
}

impl Framing {
    /// The NAL units of an access unit, without empty ones. With start codes, the first slice and all that follows it come as one
    /// piece, as what is asked about stands before it, and slices are what is long.
    fn units(self, codec: VideoCodec, data: &[u8]) -> Units<'_> {
        let rest = match self {
            Self::StartCodes => after_start_code(data).unwrap_or_default(),
            Self::Lengths(_) => data,
        };
        Units { framing: self, codec, rest }
    }
}

struct Units<'a> {
    framing: Framing,
    codec: VideoCodec,
    rest: &'a [u8],
}

impl<'a> Iterator for Units<'a> {
    type Item = Result<&'a [u8], Unfit>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            let unit = match self.framing {
                Framing::StartCodes => Ok(self.next_by_start_code()),
                Framing::Lengths(width) => self.next_by_length(width),
            };
            if unit != Ok(&[]) {
                return Some(unit);
            }
        }
        None
    }
}

impl<'a> Units<'a> {
    fn next_by_length(&mut self, width: usize) -> Result<&'a [u8], Unfit> {
        let rest = std::mem::take(&mut self.rest);
        let (length, rest) = rest.split_at_checked(width).ok_or(Unfit::Malformed)?;
        let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        let (unit, rest) = rest.split_at_checked(length).ok_or(Unfit::Malformed)?;
        self.rest = rest;
        Ok(unit)
    }

    fn next_by_start_code(&mut self) -> &'a [u8] {
        let rest = std::mem::take(&mut self.rest);
        if self.codec.role(rest) == Role::Picture {
            return rest;
        }
        let at = find_start_code(rest).unwrap_or(rest.len());
        let (unit, behind) = rest.split_at(at);
        self.rest = behind.get(3..).unwrap_or_default();
        without_trailing_zeros(unit)
    }
}

fn after_start_code(data: &[u8]) -> Option<&[u8]> {
    data.get(find_start_code(data)? + 3..)
}

/// An access unit with its delimiter, parameter sets, and start codes that are a little longer than lengths of two bytes.
const APPENDED_MAX: usize = UNIT_BYTES_MAX + PARAMETER_SETS_MAX + 1_024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::format::{Format, Kind};
    use super::super::queue::{Queue, Unit};
    use super::*;

    const SPS: &[u8] = &[0x67, 1, 2];
    const PPS: &[u8] = &[0x68, 3];
    const IDR: &[u8] = &[0x65, 0x88, 0, 0, 3, 9];
    const P: &[u8] = &[0x41, 0x9a, 7];
    const DELIMITER: &[u8] = &[0x09, 0xf0];

    #[test]
    fn a_random_access_point_gets_delimiter_and_parameter_sets() {
        let mut video = h264();
        let first = stream(&[DELIMITER, SPS, PPS, IDR]);
        assert_eq!(appended(&mut video, &first), (Ok(true), first.clone()));
        for (unit, random_access, expected) in [(P, false, stream(&[DELIMITER, P])), (IDR, true, first)] {
            assert_eq!(appended(&mut video, &stream(&[unit])), (Ok(random_access), expected));
        }
    }

    #[test]
    fn short_start_codes_and_trailing_zeros_are_understood() {
        let data = [&[0, 0, 1][..], SPS, &[0, 0, 0, 0, 1], PPS, &[0, 0, 1], IDR, &[0, 0, 1], IDR].concat();
        let slices = [IDR, &[0, 0, 1], IDR].concat();
        assert_eq!(appended(&mut h264(), &data), (Ok(true), stream(&[DELIMITER, SPS, PPS, &slices])));
    }

    #[test]
    fn lengths_become_start_codes() {
        let mut video = Video { framing: Framing::Lengths(2), parameter_sets: stream(&[SPS, PPS]), ..h264() };
        let data = [&[0, 6][..], IDR, &[0, 6], IDR].concat();
        assert_eq!(appended(&mut video, &data), (Ok(true), stream(&[DELIMITER, SPS, PPS, IDR, IDR])));
        for cut in [1, 2, 7] {
            assert_eq!(appended(&mut video, &data[..cut]).0, Err(Unfit::Malformed), "{cut}");
        }
    }

    #[test]
    fn a_cut_access_unit_is_refused_beyond_its_first_slice_too() {
        let mut video = Video { framing: Framing::Lengths(1), ..h264() };
        assert_eq!(appended(&mut video, &[3, 0x41, 1, 2, 9, 0x41]).0, Err(Unfit::Malformed));
    }

    /// As it would be kept as long as the rest waits.
    #[test]
    fn an_access_unit_that_is_mostly_nothing_is_refused() {
        let mut video = Video { framing: Framing::Lengths(1), ..h264() };
        let with = |nothing: usize| [vec![0; nothing], vec![3, 0x41, 1, 2]].concat();
        assert_eq!(appended(&mut video, &with(4)).0, Ok(false));
        assert_eq!(appended(&mut video, &with(40)).0, Err(Unfit::Malformed));
    }

    #[test]
    fn long_slices_stay_where_they_are() {
        let mut video = Video { framing: Framing::Lengths(2), ..h264() };
        let slice = [&[0x41, 7][..], &[0x55; 10_000]].concat();
        let data = [&[0, 2, 6, 5][..], &(slice.len() as u16).to_be_bytes(), &slice].concat();
        assert_eq!(appended(&mut video, &data), (Ok(false), stream(&[DELIMITER, &[6, 5], &slice])));
    }

    #[test]
    fn without_a_picture_parameter_sets_are_kept_and_nothing_is_sent() {
        let mut video = h264();
        assert_eq!(appended(&mut video, &stream(&[SPS, PPS])).0, Err(Unfit::NoPicture));
        assert_eq!(video.parameter_sets, stream(&[SPS, PPS]));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(
            data in proptest::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(0x65), any::<u8>()], 0..200),
            width in 0_usize..5, hevc in any::<bool>(),
        ) {
            let framing = if width == 0 { Framing::StartCodes } else { Framing::Lengths(width) };
            let codec = if hevc { VideoCodec::Hevc } else { VideoCodec::H264 };
            let mut video = Video { codec, framing, parameter_sets: Vec::new() };
            let mut queue = Queue::default();
            let mut draft = queue.begin();
            let _ = video.append(&data.clone().into(), false, &mut draft);
            prop_assert!(draft.len() <= video.parameter_sets.len() + 7 + 4 * data.len());
        }
    }

    /// What comes out of a queue then.
    fn appended(video: &mut Video, data: &[u8]) -> (Result<bool, Unfit>, Vec<u8>) {
        let mut queue = Queue::default();
        let mut draft = queue.begin();
        let result = video.append(&data.to_vec().into(), false, &mut draft);
        let left = draft.len();
        draft.commit([Unit {
            left,
            is_whole: true,
            dts_27m: 0,
            not_before_27m: 0,
            not_after_27m: 0,
            random_access: false,
        }]);
        let mut out = Vec::new();
        while queue.waiting_bytes() > 0 {
            let len = out.len();
            out.extend_from_slice(queue.run());
            queue.advance(out.len() - len);
        }
        (result, out)
    }

    fn h264() -> Video {
        let Kind::Video(video) = Format::h264().0 else {
            unreachable!("a picture");
        };
        video
    }

    fn stream(units: &[&[u8]]) -> Vec<u8> {
        units.iter().flat_map(|unit| [&START_CODE, *unit].concat()).collect()
    }
}
