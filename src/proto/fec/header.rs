//! The header of a FEC packet, read and written (SMPTE ST 2022-1 section 8; layout as ffmpeg and GStreamer write it).
//!
//! ```text
//!  0                   1                   2                   3
//! |2 0|P|X|  CC   |M|  payload type |      sequence number          |  RTP header, of which P, X, CC
//! |                          timestamp                              |  and M are recovery fields
//! |                          SSRC, zero                             |
//! |      SNBase, low bits         |       length recovery           |
//! |E| PT recovery |                    mask, zero                   |
//! |                       timestamp recovery                        |
//! |N|D|type |index|    offset     |      NA       | SNBase ext bits |
//! ```

use std::ops::BitXorAssign;

use crate::proto::rtp;
use crate::units::Seq;

/// What stands before the XOR of the payloads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FecHeader {
    /// Of the FEC packet itself; rows and columns count apart.
    pub sequence: Seq<16>,
    /// Of the FEC packet itself, in ticks of the media's clock.
    pub timestamp: u32,
    /// Of the first packet protected (SNBase).
    pub base: Seq<16>,
    /// Whether it protects a row or a column (D).
    pub direction: Direction,
    /// From one packet protected to the next: L for a column, 1 for a row.
    pub offset: u8,
    /// How many packets are protected (NA): D for a column, L for a row. At least 2, and `offset` times this is at most
    /// [`MATRIX_PACKETS_MAX`].
    pub count: u8,
    /// XOR of the headers.
    pub recovery: Recovery,
}

/// Whether packets one after the other are protected, or every L-th.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// Every L-th.
    #[default]
    Column,
    /// One after the other.
    Row,
}

/// XOR of what differs in the headers of media packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// P, X and CC.
    pub flags: u8,
    /// M and payload type.
    pub marker_and_type: u8,
    /// Timestamps.
    pub timestamp: u32,
    /// Lengths of what follows the fixed header, in bytes: contributing sources, extension, payload, padding.
    pub length: u16,
}

/// Why bytes are no FEC packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Shorter than its header.
    #[error("truncated")]
    Truncated,
    /// Not RTP version 2.
    #[error("not version 2")]
    Version,
    /// Not the XOR of a row or a column: with a mask (RFC 2733), an extended header, or another code.
    #[error("another kind of FEC")]
    Kind,
    /// A group that no matrix has.
    #[error("wrong group")]
    Group,
}

impl FecHeader {
    /// Reads a whole datagram: the header, and the XOR of the payloads.
    ///
    /// # Errors
    /// The first thing that makes these bytes no FEC packet.
    pub fn parse(bytes: &[u8]) -> Result<(Self, &[u8]), ParseError> {
        let Some((fixed, payload)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Err(ParseError::Truncated);
        };
        let [
            b0,
            b1,
            s0,
            s1,
            t0,
            t1,
            t2,
            t3,
            _,
            _,
            _,
            _,
            n0,
            n1,
            l0,
            l1,
            e,
            m0,
            m1,
            m2,
            r0,
            r1,
            r2,
            r3,
            kind,
            offset,
            count,
            _,
        ] = *fixed;
        if b0 >> 6 != rtp::VERSION {
            return Err(ParseError::Version);
        }
        // E is one, but there are senders that leave it zero. The index is of no use with XOR.
        if (kind & (EXTENSION | TYPE), m0, m1, m2) != (0, 0, 0, 0) {
            return Err(ParseError::Kind);
        }
        if offset == 0 || count < 2 || u16::from(offset) * u16::from(count) > MATRIX_PACKETS_MAX {
            return Err(ParseError::Group);
        }
        let header = Self {
            sequence: seq(s0, s1),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            base: seq(n0, n1),
            direction: if kind & ROW == 0 { Direction::Column } else { Direction::Row },
            offset,
            count,
            recovery: Recovery {
                flags: b0 & FLAGS,
                marker_and_type: b1 & MARKER | e & !MARKER,
                timestamp: u32::from_be_bytes([r0, r1, r2, r3]),
                length: u16::from_be_bytes([l0, l1]),
            },
        };
        Ok((header, payload))
    }

    /// The header as it goes before the XOR of the payloads: payload type 96, SSRC zero, E set.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let Recovery { flags, marker_and_type, timestamp, length } = self.recovery;
        let mut bytes = [0; HEADER_BYTES];
        bytes[0] = rtp::VERSION << 6 | flags & FLAGS;
        bytes[1] = marker_and_type & MARKER | PAYLOAD_TYPE;
        bytes[2..4].copy_from_slice(&(self.sequence.value() as u16).to_be_bytes());
        bytes[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
        bytes[12..14].copy_from_slice(&(self.base.value() as u16).to_be_bytes());
        bytes[14..16].copy_from_slice(&length.to_be_bytes());
        bytes[16] = EXTENDED | marker_and_type & !MARKER;
        bytes[20..24].copy_from_slice(&timestamp.to_be_bytes());
        bytes[24] = if self.direction == Direction::Row { ROW } else { 0 };
        bytes[25] = self.offset;
        bytes[26] = self.count;
        bytes
    }
}

impl Recovery {
    /// Of one media packet: its fixed header, and the length of the rest. A datagram's length fits.
    #[must_use]
    pub const fn of(fixed: &[u8; rtp::HEADER_BYTES], rest_bytes: usize) -> Self {
        let [b0, b1, _, _, t0, t1, t2, t3, ..] = *fixed;
        Self {
            flags: b0 & FLAGS,
            marker_and_type: b1,
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            length: rest_bytes as u16,
        }
    }

    /// The fixed header of the packet that is left when all others were taken away.
    #[must_use]
    pub fn to_rtp(&self, sequence: Seq<16>, ssrc: u32) -> [u8; rtp::HEADER_BYTES] {
        let header = rtp::Header {
            marker: self.marker_and_type & MARKER != 0,
            payload_type: self.marker_and_type & !MARKER,
            sequence,
            timestamp: self.timestamp,
            ssrc,
        };
        let mut bytes = header.to_bytes();
        bytes[0] |= self.flags;
        bytes
    }
}

impl BitXorAssign for Recovery {
    fn bitxor_assign(&mut self, other: Self) {
        self.flags ^= other.flags;
        self.marker_and_type ^= other.marker_and_type;
        self.timestamp ^= other.timestamp;
        self.length ^= other.length;
    }
}

fn seq(high: u8, low: u8) -> Seq<16> {
    Seq::new(u32::from(u16::from_be_bytes([high, low])))
}

/// Length of RTP header and FEC header.
pub const HEADER_BYTES: usize = rtp::HEADER_BYTES + 16;

/// Most packets in a matrix that is taken in. The standard's limit is 100; there is equipment that goes up to 256.
pub const MATRIX_PACKETS_MAX: u16 = 256;

/// As ffmpeg and GStreamer have it. A receiver goes by the port.
const PAYLOAD_TYPE: u8 = 96;
const FLAGS: u8 = 0x3f;
const MARKER: u8 = 0x80;
const EXTENDED: u8 = 0x80;
const EXTENSION: u8 = 0x80;
const ROW: u8 = 0x40;
const TYPE: u8 = 0x38;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// ffmpeg 5.1, 8x4: a column and a row.
    const COLUMN: [u8; 32] = [
        0x80, 0x60, 0x09, 0x7d, 0x00, 0x0c, 0x87, 0xb7, 0, 0, 0, 0, 0x0f, 0xb3, 0, 0, 0x80, 0, 0, 0, 0, 0, 0x0e, 0x10,
        0, 8, 4, 0, 0, 0x41, 0x11, 0x0b,
    ];
    const ROW_OF_8: [u8; 32] = [
        0x80, 0x60, 0x05, 0x4b, 0x00, 0x0c, 0x87, 0xb7, 0, 0, 0, 0, 0x0f, 0xb3, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0x40,
        1, 8, 0, 0, 0x41, 0x11, 0x0d,
    ];

    #[test]
    fn captured_headers_are_read_and_written_back() {
        let column = FecHeader {
            sequence: Seq::new(0x097d),
            timestamp: 0x000c_87b7,
            base: Seq::new(0x0fb3),
            direction: Direction::Column,
            offset: 8,
            count: 4,
            recovery: Recovery { timestamp: 0x0e10, ..Recovery::default() },
        };
        let row = FecHeader {
            sequence: Seq::new(0x054b),
            direction: Direction::Row,
            offset: 1,
            count: 8,
            recovery: Recovery::default(),
            ..column
        };
        for (bytes, header) in [(COLUMN, column), (ROW_OF_8, row)] {
            assert_eq!(FecHeader::parse(&bytes), Ok((header, &bytes[HEADER_BYTES..])));
            assert_eq!(header.to_bytes(), bytes[..HEADER_BYTES]);
        }
    }

    #[test]
    fn every_truncation_is_refused_or_shortens_the_payload() {
        for len in 0..COLUMN.len() {
            match FecHeader::parse(&COLUMN[..len]) {
                Ok((_, payload)) => assert_eq!(payload.len(), len - HEADER_BYTES),
                Err(error) => assert!(error == ParseError::Truncated && len < HEADER_BYTES, "{len}"),
            }
        }
    }

    #[test]
    fn other_kinds_and_absurd_groups_are_refused() {
        let changed = |at: usize, value: u8| {
            let mut bytes = COLUMN;
            bytes[at] = value;
            FecHeader::parse(&bytes).map(|_| ())
        };
        assert_eq!(changed(0, 0x40), Err(ParseError::Version));
        for (at, value) in [(17, 1), (18, 1), (19, 1), (24, 0x80), (24, 0x08), (24, 0x20)] {
            assert_eq!(changed(at, value), Err(ParseError::Kind), "{at} {value:x}");
        }
        for (at, value) in [(25, 0), (26, 0), (26, 1), (25, 65), (26, 33), (26, 255)] {
            assert_eq!(changed(at, value), Err(ParseError::Group), "{at} {value}");
        }
        // E zero, another payload type, the largest matrix.
        for (at, value) in [(16, 0), (1, 0x61), (25, 64), (26, 32)] {
            assert_eq!(changed(at, value), Ok(()), "{at} {value}");
        }
    }

    #[test]
    fn what_is_left_of_the_headers_is_the_one_that_is_missing() {
        let headers = [[0x80, 33, 0, 1, 0, 0, 0, 9, 1, 2, 3, 4], [0xb2, 0xa1, 0, 2, 0xff, 0, 0, 7, 1, 2, 3, 4]];
        let mut all = Recovery::of(&headers[0], 1_316);
        all ^= Recovery::of(&headers[1], 200);
        all ^= Recovery::of(&headers[0], 1_316);
        assert_eq!(all.length, 200);
        assert_eq!(all.to_rtp(Seq::new(2), 0x0102_0304), headers[1]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            sequence: u16, timestamp: u32, base: u16, row: bool, offset in 1_u8..16, count in 2_u8..17,
            flags in 0_u8..64, marker_and_type: u8, recovered: u32, length: u16
        ) {
            let header = FecHeader {
                sequence: Seq::new(sequence.into()), timestamp, base: Seq::new(base.into()),
                direction: if row { Direction::Row } else { Direction::Column }, offset, count,
                recovery: Recovery { flags, marker_and_type, timestamp: recovered, length },
            };
            let bytes = header.to_bytes();
            prop_assert_eq!(FecHeader::parse(&bytes), Ok((header, &[][..])));
        }
    }
}
