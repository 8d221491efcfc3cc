//! NAL units of a byte stream, as far as what is read of them goes.

use crate::proto::annexb;

pub(super) use crate::proto::annexb::Units;

/// The payload of a NAL unit without the bytes that keep start codes out of it, cut off at [`HEADER_BYTES_MAX`].
pub(super) fn unescape(unit: &[u8]) -> Vec<u8> {
    annexb::unescape(&unit[..unit.len().min(HEADER_BYTES_MAX)])
}

/// No parameter set or SEI message that matters here is longer; the longest are HEVC parameter sets with scaling lists.
pub(super) const HEADER_BYTES_MAX: usize = 4_096;
