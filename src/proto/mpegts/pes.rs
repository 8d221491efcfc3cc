//! Headers of PES packets: which kind, how long, when to show (13818-1 2.4.3.6).

use crate::units::Ticks90k;

/// What stands before the data of a PES packet. Times are as on the wire, 33 bits, and wrap after 26.5 hours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PesHeader {
    /// `stream_id` (13818-1 table 2-22): 0xe0 to 0xef video, 0xc0 to 0xdf audio, 0xbd private.
    pub stream_id: u8,
    /// Bytes behind the length field, header included; `None` where the length is open, as it may be for video.
    pub packet_bytes: Option<u16>,
    /// Bytes of the header: the data begin here.
    pub header_bytes: usize,
    /// Presentation time stamp.
    pub pts: Option<Ticks90k>,
    /// Decoding time stamp, where it differs.
    pub dts: Option<Ticks90k>,
    /// The data begin with a start of their own (`data_alignment_indicator`).
    pub is_aligned: bool,
    /// `PES_scrambling_control` is not zero.
    pub is_scrambled: bool,
}

impl PesHeader {
    /// Reads the header at the start of `bytes`, which is the payload of a TS packet with `payload_unit_start_indicator`.
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse(bytes: &[u8]) -> Result<Self, PesError> {
        let Some(([0, 0, 1, stream_id, l1, l2], rest)) = bytes.split_first_chunk::<6>() else {
            return Err(if bytes.len() < 6 { PesError::Truncated } else { PesError::StartCode });
        };
        let length = u16::from_be_bytes([*l1, *l2]);
        let mut header = Self {
            stream_id: *stream_id,
            packet_bytes: (length != 0).then_some(length),
            header_bytes: 6,
            ..Self::default()
        };
        if is_bare(*stream_id) {
            return Ok(header);
        }
        let Some(([b0, flags, len], rest)) = rest.split_first_chunk::<3>() else { return Err(PesError::Truncated) };
        if b0 >> 6 != 0b10 {
            return Err(PesError::Marker);
        }
        header.header_bytes = 9 + usize::from(*len);
        header.is_aligned = b0 & 0x04 != 0;
        header.is_scrambled = b0 & 0x30 != 0;
        let fields = rest.get(..usize::from(*len)).ok_or(PesError::Truncated)?;
        if flags & 0x80 != 0 {
            header.pts = Some(read_stamp(fields)?);
        }
        if flags & 0xc0 == 0xc0 {
            header.dts = Some(read_stamp(fields.get(STAMP_BYTES..).unwrap_or_default())?);
        }
        Ok(header)
    }

    /// Whether it carries pictures.
    #[must_use]
    pub const fn is_video(&self) -> bool {
        matches!(self.stream_id, 0xe0..=0xef)
    }
}

/// Why bytes are no PES header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PesError {
    /// It does not end within the TS packet.
    #[error("PES header is cut short")]
    Truncated,
    /// No `packet_start_code_prefix`.
    #[error("no PES start code")]
    StartCode,
    /// The fixed bits before the flags are wrong.
    #[error("wrong marker bits in a PES header")]
    Marker,
}

/// Streams whose PES packets have nothing behind the length (13818-1 table 2-21): maps, padding, private 2, ECM, EMM,
/// directory, DSM-CC, H.222.1 type E.
const fn is_bare(stream_id: u8) -> bool {
    matches!(stream_id, 0xbc | 0xbe | 0xbf | 0xf0 | 0xf1 | 0xf2 | 0xf8 | 0xff)
}

/// 33 bits in five bytes, with a marker bit after 3, 15 and 15 of them.
fn read_stamp(fields: &[u8]) -> Result<Ticks90k, PesError> {
    let [b0, b1, b2, b3, b4] = *fields.first_chunk::<STAMP_BYTES>().ok_or(PesError::Truncated)?;
    if b0 & b2 & b4 & 1 == 0 {
        return Err(PesError::Marker);
    }
    let high = u64::from(b0 >> 1 & 0x07);
    let middle = u64::from(u16::from_be_bytes([b1, b2]) >> 1);
    let low = u64::from(u16::from_be_bytes([b3, b4]) >> 1);
    Ok(Ticks90k(high << 30 | middle << 15 | low))
}

const STAMP_BYTES: usize = 5;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Video, length open, aligned, PTS 1 s and DTS 0.96 s.
    const VIDEO: [u8; 20] =
        [0, 0, 1, 0xe0, 0, 0, 0x84, 0xc0, 10, 0x31, 0x00, 0x05, 0xbf, 0x21, 0x11, 0x00, 0x05, 0xa3, 0x01, 0xaa];

    #[test]
    fn times_read_as_the_standard_lays_them_out() {
        let header = PesHeader::parse(&VIDEO).unwrap();
        assert_eq!((header.pts, header.dts), (Some(Ticks90k(90_000)), Some(Ticks90k(86_400))));
        assert_eq!((header.header_bytes, header.packet_bytes, header.is_aligned), (19, None, true));
        assert!(header.is_video() && !header.is_scrambled);
    }

    #[test]
    fn every_truncation_of_the_header_is_refused() {
        for len in 0..19 {
            assert_eq!(PesHeader::parse(&VIDEO[..len]), Err(PesError::Truncated));
        }
    }

    #[test]
    fn private_2_and_padding_have_no_more_header() {
        let header = PesHeader::parse(&[0, 0, 1, 0xbf, 0, 2, 0xff, 0xff]).unwrap();
        assert_eq!((header.header_bytes, header.packet_bytes, header.pts), (6, Some(2), None));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = PesHeader::parse(&bytes);
            let _ = PesHeader::parse(&[&[0, 0, 1], &bytes[..]].concat());
        }

        #[test]
        fn stamps_of_33_bits_survive(pts in 0_u64..1 << 33) {
            let stamp = [
                0x21 | (pts >> 29) as u8 & 0x0e, (pts >> 22) as u8, (pts >> 14) as u8 | 1, (pts >> 7) as u8,
                (pts << 1) as u8 | 1,
            ];
            let bytes = [&[0, 0, 1, 0xc0, 0, 0, 0x80, 0x80, 5], &stamp[..]].concat();
            prop_assert_eq!(PesHeader::parse(&bytes).unwrap().pts, Some(Ticks90k(pts)));
        }
    }
}
