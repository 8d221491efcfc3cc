//! The header of a PES packet (13818-1 2.4.3.6).

use super::format::Kind;

/// Appends a header with PTS, and with DTS where that differs; both are cut to 33 bits. The length stays zero, which
/// says "until the next one starts" and is for pictures only.
pub(super) fn append_header(stream_id: u8, pts_90k: u64, dts_90k: u64, out: &mut Vec<u8>) {
    // An access unit starts right behind the header: data_alignment_indicator.
    out.extend_from_slice(&[0, 0, 1, stream_id, 0, 0, 0x84]);
    if pts_90k == dts_90k {
        out.extend_from_slice(&[0x80, 5]);
        out.extend_from_slice(&stamp(0x2, pts_90k));
    } else {
        out.extend_from_slice(&[0xc0, 10]);
        out.extend_from_slice(&stamp(0x3, pts_90k));
        out.extend_from_slice(&stamp(0x1, dts_90k));
    }
}

/// `stream_id` (13818-1 table 2-22).
pub(super) const fn stream_id(kind: &Kind) -> u8 {
    match kind {
        Kind::Video(_) => 0xe0,
        Kind::AacAdts | Kind::AacRaw(_) | Kind::MpegAudio => 0xc0,
        Kind::Av1(_) | Kind::Ac3 | Kind::Eac3 | Kind::Opus { .. } => PRIVATE_STREAM_1,
    }
}

/// Fills in the length of the PES packet `bytes`; false if it is too long to have one.
pub(super) fn set_length(bytes: &mut [u8]) -> bool {
    let length = u16::try_from(bytes.len().saturating_sub(LENGTH_END));
    match (length, bytes.first_chunk_mut::<LENGTH_END>()) {
        (Ok(length), Some(header)) => {
            header[4..].copy_from_slice(&length.to_be_bytes());
            true
        }
        _ => false,
    }
}

/// 33 bits in 3, 15 and 15, each followed by a marker.
const fn stamp(prefix: u8, ticks: u64) -> [u8; 5] {
    [
        prefix << 4 | (ticks >> 29) as u8 & 0x0e | 1,
        (ticks >> 22) as u8,
        (ticks >> 14) as u8 | 1,
        (ticks >> 7) as u8,
        (ticks << 1) as u8 | 1,
    ]
}

/// Longest header that [`append_header`] makes.
pub(super) const HEADER_BYTES_MAX: usize = 19;

/// Of AC-3, and of AV1 by its own document.
pub(super) const PRIVATE_STREAM_1: u8 = 0xbd;

/// The length counts what follows it.
const LENGTH_END: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_laid_out_as_in_the_standard() {
        let mut out = Vec::new();
        append_header(0xc0, 0x1_2345_6789, 0x1_2345_6789, &mut out);
        assert_eq!(out, [0, 0, 1, 0xc0, 0, 0, 0x84, 0x80, 5, 0x29, 0x8d, 0x15, 0xcf, 0x13]);
        assert!(set_length(&mut out));
        assert_eq!(out[4..6], [0, 8]);
        assert!(!set_length(&mut vec![0; 65_542]));
    }

    #[test]
    fn dts_is_written_only_where_it_differs() {
        let mut out = Vec::new();
        append_header(PRIVATE_STREAM_1, 2, 1, &mut out);
        assert_eq!(out, [0, 0, 1, 0xbd, 0, 0, 0x84, 0xc0, 10, 0x31, 0, 1, 0, 5, 0x11, 0, 1, 0, 3]);
        assert_eq!(out.len(), HEADER_BYTES_MAX);
    }
}
