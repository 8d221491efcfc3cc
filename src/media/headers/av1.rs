//! AV1: sequence headers, and what kind a picture is (AV1 5.5 and 5.9).

use super::reduced;
use super::{Chroma, Colour, Entry, FieldOrder, HeaderError, Picture, SIDE_PIXELS_MAX, Seen, Structure, VideoFormat};
use crate::proto::av1::{Frame, Kind, Malformed, Sequence, obus, without_start_codes};
use crate::proto::mpegts::demux::Codec;

/// What one unit says: a frame, or a temporal unit.
pub(super) fn read(bytes: &[u8]) -> Seen {
    let mut seen = Seen::default();
    let mut frame: Option<Frame> = None;
    let Some(bytes) = seen.keep(without_start_codes(bytes).map_err(|Malformed| HeaderError::Value)) else {
        return seen;
    };
    for obu in obus(&bytes) {
        let Some(obu) = seen.keep(obu.map_err(|Malformed| HeaderError::Truncated)) else { break };
        if obu.kind == Kind::Sequence {
            seen.format = seen.keep(format(obu.payload)).or_else(|| seen.format.take());
        }
        frame = frame.or_else(|| obu.frame());
    }
    seen.picture = frame.map(|frame| {
        let is_key = frame.is_key && frame.is_shown && seen.format.is_some();
        let entry = if is_key { Entry::Key } else { Entry::None };
        Picture { entry, structure: Structure::Frame, reference: true }
    });
    seen
}

fn format(payload: &[u8]) -> Result<VideoFormat, HeaderError> {
    let sequence = Sequence::parse(payload).ok_or(HeaderError::Value)?;
    let Sequence { width, height, colour, .. } = sequence;
    if width.max(height) > SIDE_PIXELS_MAX {
        return Err(HeaderError::Value);
    }
    let chroma = match colour.subsampling {
        _ if colour.is_monochrome => Chroma::Luma400,
        (true, true) => Chroma::Yuv420,
        (true, false) => Chroma::Yuv422,
        (false, _) => Chroma::Yuv444,
    };
    Ok(VideoFormat {
        codec: Codec::Av1,
        profile: ["Main", "High", "Professional"].get(usize::from(sequence.profile)).copied(),
        level: Some(sequence.level),
        width,
        height,
        chroma,
        depth: colour.depth,
        // Said of each frame only, as the size that it is to be shown at.
        sample_aspect: None,
        frame_rate: sequence.timing.and_then(|(units, scale)| reduced(scale, units)),
        // There are no fields.
        field_order: Some(FieldOrder::Progressive),
        colour: Colour {
            full_range: colour.full_range,
            primaries: colour.primaries,
            transfer: colour.transfer,
            matrix: colour.matrix,
        },
    })
}
