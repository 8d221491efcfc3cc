//! AV1 as files, FLV and transport streams carry it: open bitstream units (OBUs) one behind the other ("AV1 Bitstream &
//! Decoding Process Specification", here "AV1"; "Carriage of AV1 in MPEG-2 TS" 1.0 of AOM, here "AV1 in TS").
//!
//! Files and FLV have the low overhead format (AV1 5.2): each OBU says how long it is, and a sample is a temporal unit,
//! which shows one frame and may bring others that are shown later. Transport streams have start codes before OBUs, as
//! H.264 has, and a PES packet for each frame.

mod sequence;

use std::borrow::Cow;
use std::ops::Range;

use arrayvec::ArrayVec;

use super::annexb;
pub(crate) use sequence::{NO_INDICATION, RECORD_BYTES, Sequence};

/// One OBU of the low overhead format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Obu<'a> {
    pub(crate) kind: Kind,
    /// All of it.
    pub(crate) bytes: &'a [u8],
    /// Without its header.
    pub(crate) payload: &'a [u8],
}

/// What an OBU holds (AV1 6.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Sequence,
    /// A temporal unit begins.
    Delimiter,
    FrameHeader,
    /// More of the frame whose header came: tiles, or its header again.
    MoreOfFrame,
    /// A header and tiles.
    Frame,
    Other,
}

/// The beginning of a frame's header (AV1 5.9.2). That of a sequence of a single still picture may leave these bits out;
/// such have no place in a live stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// A key frame, and not one that came before and is shown now.
    pub(crate) is_key: bool,
    pub(crate) is_shown: bool,
}

/// Bytes are no OBUs, or more than are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

impl<'a> Obu<'a> {
    /// The one at the start of `bytes`. Where it does not say how long it is it goes on to their end.
    pub(crate) fn first(bytes: &'a [u8]) -> Option<Self> {
        let (kind, header_bytes, payload_bytes) = read_header(bytes)?;
        let end = payload_bytes.map_or(Some(bytes.len()), |length| header_bytes.checked_add(length))?;
        Some(Self { kind, bytes: bytes.get(..end)?, payload: bytes.get(header_bytes..end)? })
    }

    /// Appends it as one that says how long it is.
    pub(crate) fn append(&self, out: &mut Vec<u8>) {
        let Some((header, rest)) = self.bytes.split_first() else { return };
        out.push(header | HAS_SIZE);
        out.extend(rest.first().filter(|_| header & HAS_EXTENSION != 0));
        let mut size = self.payload.len();
        while size > 0x7f {
            out.push(size as u8 | 0x80);
            size >>= 7;
        }
        out.push(size as u8);
        out.extend_from_slice(self.payload);
    }

    /// What frame begins in it.
    pub(crate) fn frame(&self) -> Option<Frame> {
        frame(self.kind, self.payload)
    }
}

/// Kind, and the frame if one begins in it, of the OBU of which `bytes` are the beginning.
pub(crate) fn look(bytes: &[u8]) -> Option<(Kind, Option<Frame>)> {
    let (kind, header_bytes, _) = read_header(bytes)?;
    Some((kind, frame(kind, bytes.get(header_bytes..).unwrap_or_default())))
}

/// Bits of the first byte: `show_existing_frame`, `frame_type` in two, `show_frame`.
fn frame(kind: Kind, payload: &[u8]) -> Option<Frame> {
    let first = payload.first().filter(|_| matches!(kind, Kind::FrameHeader | Kind::Frame))?;
    let is_repeated = first & 0x80 != 0;
    Some(Frame { is_key: !is_repeated && first & 0x60 == 0, is_shown: is_repeated || first & 0x10 != 0 })
}

/// Kind, bytes of the header, and those of the payload if that is said (AV1 5.3.1 and 5.3.2).
fn read_header(bytes: &[u8]) -> Option<(Kind, usize, Option<usize>)> {
    let first = *bytes.first().filter(|first| *first & FORBIDDEN == 0)?;
    let kind = match first >> 3 {
        1 => Kind::Sequence,
        2 => Kind::Delimiter,
        3 => Kind::FrameHeader,
        4 | 7 => Kind::MoreOfFrame,
        6 => Kind::Frame,
        _ => Kind::Other,
    };
    let mut header_bytes = if first & HAS_EXTENSION == 0 { 1 } else { 2 };
    if first & HAS_SIZE == 0 {
        return Some((kind, header_bytes, None));
    }
    let mut size = 0;
    for shift in (0..SIZE_BYTES_MAX).map(|n| n * 7) {
        let byte = bytes.get(header_bytes)?;
        header_bytes += 1;
        size |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((kind, header_bytes, Some(usize::try_from(size).ok()?)));
        }
    }
    None
}

/// The OBUs of the low overhead format; an error, and then no more, where there is none.
pub(crate) fn obus(bytes: &[u8]) -> impl Iterator<Item = Result<Obu<'_>, Malformed>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let obu = Obu::first(rest);
        rest = obu.and_then(|obu| rest.get(obu.bytes.len()..)).unwrap_or_default();
        Some(obu.ok_or(Malformed))
    })
}

/// The frames of a temporal unit, each with what stands before it: the access units of a transport stream (AV1 in TS 3.3).
/// Delimiters lie in none.
pub(crate) fn frames(unit: &[u8]) -> Result<ArrayVec<(Range<usize>, Frame), FRAMES_MAX>, Malformed> {
    let mut frames = ArrayVec::<(Range<usize>, Frame), FRAMES_MAX>::new();
    let (mut at, mut begun) = (0, 0);
    for obu in obus(unit) {
        let obu = obu?;
        let (start, end) = (at, at + obu.bytes.len());
        at = end;
        match (obu.frame(), frames.last_mut()) {
            (Some(frame), _) => {
                frames.try_push((begun..end, frame)).map_err(|_| Malformed)?;
                begun = end;
            }
            (None, Some((range, _))) if obu.kind == Kind::MoreOfFrame => (range.end, begun) = (end, end),
            (None, _) if obu.kind == Kind::Delimiter && begun == start => begun = end,
            (None, _) => {}
        }
    }
    // What stands behind the last frame belongs to it.
    if let Some((range, _)) = frames.last_mut() {
        range.end = unit.len();
    }
    Ok(frames)
}

/// Appends OBUs of the low overhead format as a transport stream has them: start codes before them, and none within (AV1 in
/// TS 3.2).
pub(crate) fn append_escaped(obus_bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    for obu in obus(obus_bytes) {
        out.extend_from_slice(&[0, 0, 1]);
        annexb::append_escaped(obu?.bytes, out);
    }
    Ok(())
}

/// What a PES packet carried, in the low overhead format. There are senders who put that into transport streams as it is.
pub(crate) fn without_start_codes(bytes: &[u8]) -> Result<Cow<'_, [u8]>, Malformed> {
    if !bytes.starts_with(&[0, 0]) {
        return Ok(Cow::Borrowed(bytes));
    }
    let mut out = Vec::with_capacity(bytes.len());
    for unit in annexb::Units::new(bytes) {
        let unit = annexb::unescape(unit);
        Obu::first(&unit).ok_or(Malformed)?.append(&mut out);
    }
    Ok(Cow::Owned(out))
}

/// Frames of one temporal unit. Judgement: twice as many as there are places for frames to come, AV1 3.
pub(crate) const FRAMES_MAX: usize = 16;

/// `leb128()`, AV1 4.10.5.
const SIZE_BYTES_MAX: u32 = 8;

const FORBIDDEN: u8 = 0x80;
const HAS_EXTENSION: u8 = 0x04;
const HAS_SIZE: u8 = 0x02;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// With sizes: delimiter, sequence header, a key frame that is shown.
    const KEY: &[u8] = &[0x12, 0, 0x0a, 1, 9, 0x32, 3, 0x10, 0, 0];
    /// A frame that is not shown, in header and tiles, and one that is.
    const TWO: &[u8] = &[0x12, 0, 0x1a, 1, 0x20, 0x22, 1, 7, 0x32, 1, 0x30, 0x7a, 1, 0];

    #[test]
    fn a_temporal_unit_has_its_frames_one_behind_the_other() {
        let shown = |is_key| Frame { is_key, is_shown: true };
        assert_eq!(frames(KEY).unwrap()[..], [(2..10, shown(true))]);
        let hidden = Frame { is_key: false, is_shown: false };
        assert_eq!(frames(TWO).unwrap()[..], [(2..8, hidden), (8..14, shown(false))]);
        // Shown again by its header alone.
        assert_eq!(frames(&[0x1a, 1, 0x90]).unwrap()[..], [(0..3, shown(false))]);
        assert_eq!(frames(&[0x0a, 1, 9]), Ok(ArrayVec::new()));
    }

    #[test]
    fn start_codes_come_and_go() {
        let mut out = Vec::new();
        append_escaped(KEY, &mut out).unwrap();
        assert_eq!(out, [0, 0, 1, 0x12, 0, 0, 0, 1, 0x0a, 1, 9, 0, 0, 1, 0x32, 3, 0x10, 0, 0]);
        assert_eq!(without_start_codes(&out).unwrap(), KEY);
        // Without sizes, which transport streams need not have, and with a layer.
        let bare = [0, 0, 1, 0x10, 0, 0, 1, 0x34, 8, 0x10, 0, 0, 3, 1];
        assert_eq!(without_start_codes(&bare).unwrap()[..], [0x12, 0, 0x36, 8, 4, 0x10, 0, 0, 1]);
        assert_eq!(without_start_codes(KEY).unwrap(), KEY, "as it is");
    }

    #[test]
    fn every_truncation_is_refused_or_ends_between_two() {
        let ends = [0, 2, 5, 10];
        for len in 0..KEY.len() {
            assert_eq!(obus(&KEY[..len]).all(|obu| obu.is_ok()), ends.contains(&len), "{len}");
        }
        assert_eq!(frames(&[0x1a, 1, 0x90].repeat(FRAMES_MAX + 1)), Err(Malformed));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_within_bounds(
            bytes in proptest::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(0x32), any::<u8>()], 0..200)
        ) {
            let _ = without_start_codes(&bytes);
            if let Ok(frames) = frames(&bytes) {
                prop_assert!(frames.iter().all(|(range, _)| range.start < range.end && range.end <= bytes.len()));
                prop_assert!(frames.windows(2).all(|pair| pair[0].0.end <= pair[1].0.start));
            }
        }

        #[test]
        fn what_a_transport_stream_carries_comes_back(
            parts in proptest::collection::vec((0..16_u8, proptest::collection::vec(0..4_u8, 0..300)), 1..6)
        ) {
            let mut unit = Vec::new();
            for (kind, payload) in &parts {
                let bytes = [&[kind << 3][..], payload].concat();
                Obu::first(&bytes).unwrap().append(&mut unit);
            }
            let mut out = Vec::new();
            append_escaped(&unit, &mut out).unwrap();
            let codes = out.windows(3).filter(|bytes| *bytes == [0, 0, 1]).count();
            prop_assert_eq!(codes, parts.len());
            prop_assert!(!out.windows(3).any(|bytes| bytes == [0, 0, 2]));
            prop_assert_eq!(&without_start_codes(&out).unwrap()[..], &unit[..]);
        }
    }
}
