//! The RTP header, read and written (RFC 3550 5.1, extension 5.3.1).

use std::ops::Range;

use super::error::ParseError;
use crate::units::Seq;

/// The fields of the fixed header that say something about the payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// For a transport stream: the time base is discontinuous here (RFC 2250 2).
    pub marker: bool,
    /// Seven bits.
    pub payload_type: u8,
    /// Goes up by one from packet to packet.
    pub sequence: Seq<16>,
    /// Sampling moment of the first payload byte, for a transport stream in ticks of 90 kHz, wrapping.
    pub timestamp: u32,
    /// Who sends.
    pub ssrc: u32,
}

impl Header {
    /// The header as it goes before a payload: no padding, no extension, no contributing sources.
    #[must_use]
    #[inline]
    pub fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let marker_and_type = u64::from(self.marker) << 7 | u64::from(self.payload_type & 0x7f);
        let first = u64::from(VERSION) << 62 | marker_and_type << 48 | u64::from(self.sequence.value()) << 32;
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&(first | u64::from(self.timestamp)).to_be_bytes());
        bytes[8..].copy_from_slice(&self.ssrc.to_be_bytes());
        bytes
    }
}

/// One RTP packet, borrowed from the datagram that carried it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtpPacket<'a> {
    /// The fixed header.
    pub header: Header,
    bytes: &'a [u8],
    payload_start: usize,
    payload_end: usize,
}

impl<'a> RtpPacket<'a> {
    /// Reads a whole datagram.
    ///
    /// # Errors
    /// The first thing that makes these bytes no RTP packet.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let Some((fixed, _)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Err(ParseError::Truncated);
        };
        let [b0, b1, s0, s1, t0, t1, t2, t3, i0, i1, i2, i3] = *fixed;
        if b0 >> 6 != VERSION {
            return Err(ParseError::Version);
        }
        let header = Header {
            marker: b1 & 0x80 != 0,
            payload_type: b1 & 0x7f,
            sequence: Seq::new(u32::from(u16::from_be_bytes([s0, s1]))),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            ssrc: u32::from_be_bytes([i0, i1, i2, i3]),
        };
        let payload = if b0 == VERSION << 6 { HEADER_BYTES..bytes.len() } else { variable_part(bytes, b0)? };
        Ok(Self { header, bytes, payload_start: payload.start, payload_end: payload.end })
    }

    /// Where in the datagram the payload stands; may be empty.
    #[must_use]
    pub const fn payload_range(&self) -> Range<usize> {
        self.payload_start..self.payload_end
    }

    /// The payload without padding; may be empty.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[self.payload_range()]
    }

    /// The contributing sources, at most 15.
    pub fn csrcs(&self) -> impl Iterator<Item = u32> + 'a {
        let list = &self.bytes[HEADER_BYTES..HEADER_BYTES + csrc_bytes(self.bytes[0])];
        list.as_chunks::<4>().0.iter().map(|bytes| u32::from_be_bytes(*bytes))
    }

    /// The header extension: what the profile calls it, and its bytes.
    #[must_use]
    pub fn extension(&self) -> Option<(u16, &'a [u8])> {
        let b0 = self.bytes[0];
        let before_payload = &self.bytes[HEADER_BYTES + csrc_bytes(b0)..self.payload_start];
        match before_payload {
            [p0, p1, _, _, extension @ ..] if b0 & EXTENSION != 0 => Some((u16::from_be_bytes([*p0, *p1]), extension)),
            _ => None,
        }
    }
}

/// The body of the fuzz target `rtp`, which tests call as well: reads any bytes, looks at every part, and reads again
/// what the header is written as.
///
/// # Panics
/// If parts overlap or the header changes.
pub fn check_any_bytes(bytes: &[u8]) {
    let Ok(packet) = RtpPacket::parse(bytes) else {
        return;
    };
    let extension_bytes = packet.extension().map_or(0, |(_, extension)| EXTENSION_HEADER_BYTES + extension.len());
    let before_payload = HEADER_BYTES + packet.csrcs().count() * 4 + extension_bytes;
    assert_eq!(packet.payload_range().start, before_payload);
    assert!(before_payload + packet.payload().len() <= bytes.len());
    assert_eq!(RtpPacket::parse(&packet.header.to_bytes()).map(|again| again.header), Ok(packet.header));
}

/// Measures contributing sources, extension and padding; says what is left for the payload.
#[cold]
fn variable_part(bytes: &[u8], b0: u8) -> Result<Range<usize>, ParseError> {
    let mut start = HEADER_BYTES + csrc_bytes(b0);
    if b0 & EXTENSION != 0 {
        let Some(&[_, _, words0, words1]) = bytes.get(start..start + EXTENSION_HEADER_BYTES) else {
            return Err(ParseError::Truncated);
        };
        start += EXTENSION_HEADER_BYTES + usize::from(u16::from_be_bytes([words0, words1])) * 4;
    }
    let payload = bytes.get(start..).ok_or(ParseError::Truncated)?;
    let mut end = bytes.len();
    if b0 & PADDING != 0 {
        // The last byte counts the padding, itself included.
        let padding = payload.last().map_or(0, |last| usize::from(*last));
        if padding == 0 || padding > payload.len() {
            return Err(ParseError::Padding);
        }
        end -= padding;
    }
    Ok(start..end)
}

const fn csrc_bytes(b0: u8) -> usize {
    (b0 & 0x0f) as usize * 4
}

/// Length of the fixed header.
pub const HEADER_BYTES: usize = 12;

/// The only version there is (RFC 3550 5.1).
pub(in crate::proto) const VERSION: u8 = 2;
const PADDING: u8 = 0x20;
const EXTENSION: u8 = 0x10;
const EXTENSION_HEADER_BYTES: usize = 4;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A media packet of librist 0.2.7, first bytes as captured.
    const RIST: [u8; 16] =
        [0x80, 0x21, 0x00, 0x06, 0xd9, 0xec, 0x36, 0x65, 0x78, 0x8c, 0xcd, 0x28, 0x47, 0x40, 0x11, 0x10];

    #[test]
    fn a_captured_packet_is_read_and_its_header_written_back() {
        let packet = RtpPacket::parse(&RIST).unwrap();
        let expected = Header {
            marker: false,
            payload_type: 33,
            sequence: Seq::new(6),
            timestamp: 0xd9ec_3665,
            ssrc: 0x788c_cd28,
        };
        assert_eq!(packet.header, expected);
        assert_eq!(packet.payload(), &RIST[12..]);
        assert_eq!(packet.header.to_bytes(), RIST[..12]);
        assert_eq!(packet.extension(), None);
    }

    #[test]
    fn every_truncation_is_refused_or_shortens_the_payload() {
        let builder = rtp_types::RtpPacketBuilder::<&[u8], &[u8]>::new();
        let whole = builder.payload_type(33).add_csrc(1).add_csrc(2).extension(0x5249, &[9; 8]).payload(&[7; 20]);
        let whole = whole.write_vec().unwrap();
        for len in 0..whole.len() {
            match RtpPacket::parse(&whole[..len]) {
                Ok(packet) => assert_eq!(packet.payload().len(), len - 32),
                Err(error) => assert!(error == ParseError::Truncated && len < 32, "{len}"),
            }
        }
    }

    #[test]
    fn padding_must_fit() {
        let mut bytes = RIST;
        bytes[0] |= PADDING;
        for (last, payload) in [(1, Some(3)), (4, Some(0)), (0, None), (5, None), (255, None)] {
            bytes[15] = last;
            let outcome = RtpPacket::parse(&bytes).map(|packet| packet.payload().len());
            assert_eq!(outcome, payload.ok_or(ParseError::Padding), "{last}");
        }
        assert_eq!(RtpPacket::parse(&bytes[..12]), Err(ParseError::Padding));
    }

    #[test]
    fn other_versions_are_refused() {
        for version in [0, 1, 3] {
            let mut bytes = RIST;
            bytes[0] = version << 6;
            assert_eq!(RtpPacket::parse(&bytes), Err(ParseError::Version));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_as_rtp_types_reads_them(
            b0 in prop_oneof![Just(0x80), 0x80_u8..0xc0, any::<u8>()],
            rest in proptest::collection::vec(any::<u8>(), 0..120), words in 0_u8..6, last in 0_u8..12
        ) {
            let mut bytes = vec![b0];
            bytes.extend(rest);
            // Lengths that random bytes would hardly ever hit.
            let words_at = HEADER_BYTES + csrc_bytes(b0) + 2;
            if let Some(field) = bytes.get_mut(words_at..words_at + 2) {
                field.copy_from_slice(&[0, words]);
            }
            *bytes.last_mut().unwrap() = last;
            check_any_bytes(&bytes);
            agree(&bytes)?;
        }

        #[test]
        fn what_rtp_types_writes_is_read(
            csrcs in proptest::collection::vec(any::<u32>(), 0..16), marker: bool, payload_type in 0_u8..128,
            sequence: u16, timestamp: u32, ssrc: u32, words in 0_usize..5, padding in 0_u8..9
        ) {
            let extension = vec![3; words * 4];
            let mut builder = rtp_types::RtpPacketBuilder::<&[u8], &[u8]>::new()
                .marker_bit(marker).payload_type(payload_type).sequence_number(sequence).timestamp(timestamp)
                .ssrc(ssrc).maybe_padding((padding > 0).then_some(padding)).payload(b"payload");
            for csrc in &csrcs {
                builder = builder.add_csrc(*csrc);
            }
            if words > 0 {
                builder = builder.extension(0xbede, &extension);
            }
            let bytes = builder.write_vec().unwrap();
            let packet = RtpPacket::parse(&bytes).unwrap();
            let sequence = Seq::new(u32::from(sequence));
            prop_assert_eq!(packet.header, Header { marker, payload_type, sequence, timestamp, ssrc });
            prop_assert_eq!(packet.payload(), b"payload");
            agree(&bytes)?;
        }
    }

    /// Our reading of `bytes` and that of rtp-types are the same.
    fn agree(bytes: &[u8]) -> Result<(), TestCaseError> {
        let Ok(theirs) = rtp_types::RtpPacket::parse(bytes) else {
            prop_assert!(RtpPacket::parse(bytes).is_err(), "only rtp-types refuses {bytes:02x?}");
            return Ok(());
        };
        let ours = RtpPacket::parse(bytes).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(ours.header.marker, theirs.marker_bit());
        prop_assert_eq!(ours.header.payload_type, theirs.payload_type());
        prop_assert_eq!(ours.header.sequence.value(), u32::from(theirs.sequence_number()));
        prop_assert_eq!(ours.header.timestamp, theirs.timestamp());
        prop_assert_eq!(ours.header.ssrc, theirs.ssrc());
        prop_assert_eq!(ours.csrcs().collect::<Vec<_>>(), theirs.csrc().collect::<Vec<_>>());
        prop_assert_eq!(ours.extension(), theirs.extension());
        prop_assert_eq!(ours.payload(), theirs.payload());
        Ok(())
    }
}
