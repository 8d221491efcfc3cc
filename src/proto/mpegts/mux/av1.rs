//! Temporal units of AV1 as the PES packets that a transport stream has of them ("Carriage of AV1 in MPEG-2 TS", here "AV1
//! in TS"): one for each frame, with a delimiter before the first, and the sequence header before every one that a decoder
//! may start at.

use arrayvec::ArrayVec;

use super::format::{FormatError, PARAMETER_SETS_MAX};
use super::pes;
use super::stats::Unfit;
use super::track::{Appended, Times};
use crate::proto::av1::{Kind, Malformed, NO_INDICATION, RECORD_BYTES, Sequence, append_escaped, frames, obus};

/// A track of AV1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Av1 {
    /// The fields of the AV1 video descriptor (AV1 in TS 2.2).
    descriptor: [u8; RECORD_BYTES],
    /// The latest sequence header, an OBU of the low overhead format; empty as long as none came.
    sequence: Vec<u8>,
}

impl Av1 {
    /// By an `AV1CodecConfigurationRecord` ("AV1 Codec ISO Media File Format Binding" 2.3.3).
    pub(super) fn new(record: &[u8]) -> Result<Self, FormatError> {
        let (fields, rest) = record.split_first_chunk::<RECORD_BYTES>().ok_or(FormatError::Truncated)?;
        // Marker and version.
        if fields[0] != 0x81 {
            return Err(FormatError::Unsupported);
        }
        let mut format = Self { descriptor: *fields, sequence: Vec::new() };
        let mut range_and_gamut = NO_INDICATION;
        for obu in obus(rest) {
            let obu = obu.map_err(|Malformed| FormatError::Truncated)?;
            if obu.kind == Kind::Sequence {
                if obu.bytes.len() > PARAMETER_SETS_MAX {
                    return Err(FormatError::TooLong);
                }
                format.sequence.clear();
                obu.append(&mut format.sequence);
                range_and_gamut = Sequence::parse(obu.payload).map_or(NO_INDICATION, |it| it.range_and_gamut());
            }
        }
        format.descriptor[3] = format.descriptor[3] & 0x1f | range_and_gamut << 6;
        Ok(format)
    }

    /// The AV1 video descriptor behind the registration that must come first (AV1 in TS 2.1 and 2.2).
    pub(super) fn descriptors(&self) -> [u8; 12] {
        let [b0, b1, b2, b3] = self.descriptor;
        [0x05, 4, b'A', b'V', b'0', b'1', 0x80, 4, b0, b1, b2, b3]
    }

    /// Appends PES packets with the frames of the temporal unit `data` to `out`. A decoder may start at a key frame with a sequence header, or where `hint` says so. A sequence header that comes
    /// with it is kept for later ones.
    ///
    /// The frame that is shown has the unit's times; those before it are decoded a tick earlier each, and what they have
    /// for PTS means nothing (AV1 in TS 3.5).
    pub(super) fn append(
        &mut self,
        data: &[u8],
        hint: bool,
        times: Times,
        out: &mut Vec<u8>,
    ) -> Result<Appended, Unfit> {
        let frames = frames(data).map_err(|Malformed| Unfit::Malformed)?;
        let (first, _) = frames.first().ok_or(Unfit::NoPicture)?;
        let head = data.get(first.clone()).unwrap_or_default();
        let has_sequence = self.learn(head);
        let random_access = hint || has_sequence && frames.first().is_some_and(|(_, frame)| frame.is_key);
        let (start, mut ends) = (out.len(), ArrayVec::new());
        for (n, (range, _)) in frames.iter().enumerate() {
            let later = (frames.len() - 1 - n) as u64;
            let dts_90k = times.dts_90k.saturating_sub(later);
            let pts_90k = if later == 0 { times.pts_90k } else { dts_90k };
            let begin = out.len();
            pes::append_header(pes::PRIVATE_STREAM_1, pts_90k, dts_90k, out);
            if n == 0 {
                out.extend_from_slice(&DELIMITER);
            }
            let sequence = if n == 0 && random_access && !has_sequence { &self.sequence[..] } else { &[] };
            for obus in [sequence, data.get(range.clone()).unwrap_or_default()] {
                append_escaped(obus, out).map_err(|Malformed| Unfit::Malformed)?;
            }
            // Of what is longer it stays open, as that of all pictures.
            let _is_long = !pes::set_length(&mut out[begin..]);
            ends.push(out.len() - start);
        }
        Ok(Appended { random_access, ends })
    }

    /// Keeps the sequence header among these OBUs; true if there is one. One that is longer than any is not kept.
    fn learn(&mut self, bytes: &[u8]) -> bool {
        let found = obus(bytes).map_while(Result::ok).filter(|obu| obu.kind == Kind::Sequence).last();
        if let Some(obu) = found.filter(|obu| obu.bytes.len() <= PARAMETER_SETS_MAX) {
            self.sequence.clear();
            obu.append(&mut self.sequence);
        }
        found.is_some()
    }
}

/// A temporal delimiter behind its start code.
const DELIMITER: [u8; 5] = [0, 0, 1, 0x12, 0];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Of libsvtav1, 320x180, with its header and size.
    const SEQUENCE: [u8; 16] = [0x0a, 14, 0x02, 0, 0, 5, 0x21, 0xe7, 0xf6, 0x62, 0x57, 0xc8, 0x81, 0x01, 0, 0x82];
    const KEY: [u8; 4] = [0x32, 2, 0x10, 9];
    /// A frame that is not shown, and one that is.
    const TWO: [u8; 9] = [0x32, 3, 0x20, 0, 0, 0x1a, 2, 0x30, 0];
    const TIMES: Times = Times { pts_90k: 9_000, dts_90k: 9_000, not_before_27m: 0, not_after_27m: u64::MAX };

    #[test]
    fn a_record_becomes_the_descriptor() {
        let format = format();
        assert_eq!(format.descriptors(), *b"\x05\x04AV01\x80\x04\x81\x00\x0c\xc0");
        assert_eq!(format.sequence, SEQUENCE);
        for (record, error) in [
            (&[0x81, 0, 0x0c][..], FormatError::Truncated),
            (&[0x81, 0, 0x0c, 0, 0x0a, 9], FormatError::Truncated),
            (&[0x82, 0, 0x0c, 0], FormatError::Unsupported),
        ] {
            assert_eq!(Av1::new(record), Err(error));
        }
        assert!(Av1::new(&[0x81, 0, 0x0c, 0]).unwrap().sequence.is_empty());
    }

    #[test]
    fn each_frame_has_a_pes_packet_of_its_own() {
        let (mut format, mut out) = (format(), vec![7]);
        let appended = format.append(&[&SEQUENCE[..], &KEY].concat(), false, TIMES, &mut out).unwrap();
        assert_eq!((appended.random_access, &appended.ends[..]), (true, &[out.len() - 1][..]));
        // Delimiter and sequence header before it, which has no bytes that look like a start code.
        let body = [&DELIMITER[..], &[0, 0, 1], &SEQUENCE, &[0, 0, 1], &KEY].concat();
        assert_eq!(out[15..], body);
        assert_eq!(out[1..8], [0, 0, 1, 0xbd, 0, (body.len() + 8) as u8, 0x84]);
        out.clear();
        let appended = format.append(&TWO, false, TIMES, &mut out).unwrap();
        assert_eq!((appended.random_access, &appended.ends[..]), (false, &[27, out.len()][..]));
        assert_eq!(out[14..27], [&DELIMITER[..], &[0, 0, 1, 0x32, 3, 0x20, 0, 0]].concat());
        assert_eq!(out[27 + 14..], [0, 0, 1, 0x1a, 2, 0x30, 0]);
        // The one that is not shown is decoded a tick earlier.
        assert_eq!((out[13], out[27 + 13]), (((9_000 - 1) << 1 | 1) as u8, (9_000 << 1 | 1) as u8));
    }

    #[test]
    fn a_key_frame_without_sequence_header_gets_the_one_that_is_known() {
        let (mut format, mut out) = (format(), Vec::new());
        let mut append = |hint| {
            out.clear();
            let appended = format.append(&KEY, hint, TIMES, &mut out).unwrap();
            (appended.random_access, out.windows(SEQUENCE.len()).any(|bytes| bytes == SEQUENCE))
        };
        assert_eq!((append(true), append(false)), ((true, true), (false, false)));
        assert_eq!(format.append(&SEQUENCE, true, TIMES, &mut Vec::new()), Err(Unfit::NoPicture));
        assert_eq!(format.append(&[0x32, 9, 0], true, TIMES, &mut Vec::new()), Err(Unfit::Malformed));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(
            data in proptest::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(0x32), any::<u8>()], 0..200), hint: bool
        ) {
            let (mut format, mut out) = (format(), Vec::new());
            if let Ok(appended) = format.append(&data, hint, TIMES, &mut out) {
                prop_assert_eq!(appended.ends.last(), Some(&out.len()));
                prop_assert!(appended.ends.windows(2).all(|pair| pair[0] < pair[1]));
            }
            let _ = Av1::new(&data);
        }
    }

    fn format() -> Av1 {
        Av1::new(&[&[0x81, 0, 0x0c, 0][..], &SEQUENCE].concat()).unwrap()
    }
}
