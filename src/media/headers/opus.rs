//! Opus: what a packet's first byte says ("Opus in MPEG-2 TS", RFC 6716 3.1).

use super::{AudioFormat, HeaderError};
use crate::proto::mpegts::demux::Codec;
use crate::proto::mpegts::opus::{ControlHeaderError, read_control_header};

/// The first packet in `bytes`. Channels of more than one coded stream are not seen in it, but in the PMT.
pub(super) fn read(bytes: &[u8]) -> Result<AudioFormat, HeaderError> {
    let (header_bytes, _) = read_control_header(bytes).map_err(|error| match error {
        ControlHeaderError::Truncated => HeaderError::Truncated,
        ControlHeaderError::Prefix => HeaderError::Value,
    })?;
    let toc = bytes.get(header_bytes).ok_or(HeaderError::Truncated)?;
    let channels = Some(if toc & STEREO == 0 { 1 } else { 2 });
    Ok(AudioFormat {
        codec: Codec::Opus,
        profile: None,
        layer: None,
        sample_rate: SAMPLE_RATE,
        channels,
        bit_rate: None,
    })
}

/// Of the first byte of a packet.
const STEREO: u8 = 0x04;
/// Whatever went in, that comes out (RFC 6716 2).
const SAMPLE_RATE: u32 = 48_000;
