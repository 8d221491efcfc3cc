//! Data and control packets, bytes to types and back (draft 3).
//!
//! ```text
//!  0                   1                   2                   3
//! |0|                    sequence number                          |   data (3.1)
//! |PP|O|KK|R|                 message number                      |
//! |                       timestamp, us                           |
//! |                   destination socket id                       |
//!
//! |1|         control type         |           subtype            |   control (3.2)
//! |                   type-specific information                   |
//! |                       timestamp, us                           |
//! |                   destination socket id                       |
//! ```

use std::ops::RangeInclusive;

use crate::units::Seq;

/// Bytes of the header of either kind.
pub const HEADER_BYTES: usize = 16;

/// Header of any packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// A data packet.
    Data(DataHeader),
    /// A control packet.
    Control(ControlHeader),
}

/// Header of a data packet (draft 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataHeader {
    /// Sequence number.
    pub sequence: Seq<31>,
    /// Which part of its message it is (PP): 0b11 for a whole one, as always in live mode.
    pub position: u8,
    /// Whether messages shall be kept in order (O).
    pub in_order: bool,
    /// Which key encrypted it (KK).
    pub key: KeyFlag,
    /// Sent before (R).
    pub retransmitted: bool,
    /// 26 bits; zero for a packet of the packet filter.
    pub message_number: u32,
    /// Microseconds since the sender's connection began, wrapping.
    pub timestamp: u32,
    /// Socket that it is meant for.
    pub destination: u32,
}

/// Which key encrypted a packet (draft 3.1, KK).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyFlag {
    /// None: the payload is in the clear.
    #[default]
    Clear,
    /// The even one.
    Even,
    /// The odd one.
    Odd,
    /// Not allowed in a data packet.
    Both,
}

/// Header of a control packet (draft 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlHeader {
    /// What it is.
    pub kind: ControlKind,
    /// Meaning depends on the kind: an ACK's number, a drop request's message number.
    pub information: u32,
    /// Microseconds since the sender's connection began, wrapping.
    pub timestamp: u32,
    /// Socket that it is meant for; zero for the listener.
    pub destination: u32,
}

/// Control types (draft 3.2, table 1), and subtypes of the user-defined one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlKind {
    /// Establishes a connection.
    Handshake,
    /// Nothing else was to say.
    KeepAlive,
    /// Acknowledges data.
    Ack,
    /// Reports data lost.
    Nak,
    /// Deprecated.
    CongestionWarning,
    /// The end.
    Shutdown,
    /// Answers an ACK.
    AckAck,
    /// Gives packets up.
    DropRequest,
    /// An error of file mode.
    PeerError,
    /// Handshake extension outside a handshake: new keys.
    KeyRequest,
    /// The answer to it.
    KeyResponse,
    /// Whatever else.
    Unknown {
        /// Control type, 15 bits.
        kind: u16,
        /// Subtype.
        subtype: u16,
    },
}

/// Why bytes are no packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Shorter than its kind needs.
    #[error("too short")]
    Short,
    /// Values that contradict each other.
    #[error("contradictory")]
    Contradictory,
}

impl Header {
    /// Reads the header; the body is the rest.
    ///
    /// # Errors
    /// [`Malformed::Short`] below 16 bytes.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let (Some(first), Some(second)) = (word(bytes, 0), word(bytes, 1)) else { return Err(Malformed::Short) };
        let (Some(timestamp), Some(destination)) = (word(bytes, 2), word(bytes, 3)) else {
            return Err(Malformed::Short);
        };
        if first & CONTROL != 0 {
            let kind = ControlKind::of((first >> 16) as u16 & 0x7fff, first as u16);
            return Ok(Self::Control(ControlHeader { kind, information: second, timestamp, destination }));
        }
        Ok(Self::Data(DataHeader {
            sequence: Seq::new(first),
            position: (second >> 30) as u8,
            in_order: second & IN_ORDER != 0,
            key: KeyFlag::of(second >> 27),
            retransmitted: second & RETRANSMITTED != 0,
            message_number: second & MESSAGE_NUMBER,
            timestamp,
            destination,
        }))
    }
}

impl Header {
    /// The socket that it is meant for; zero for a listener.
    #[must_use]
    pub const fn destination(&self) -> u32 {
        match self {
            Self::Data(header) => header.destination,
            Self::Control(header) => header.destination,
        }
    }
}

impl DataHeader {
    /// A whole message of its own, as every packet in live mode.
    #[must_use]
    pub const fn whole(sequence: Seq<31>, message_number: u32, timestamp: u32, destination: u32) -> Self {
        Self {
            sequence,
            position: WHOLE,
            in_order: false,
            key: KeyFlag::Clear,
            retransmitted: false,
            message_number,
            timestamp,
            destination,
        }
    }

    /// As it goes on the wire.
    #[must_use]
    #[inline]
    pub fn bytes(&self) -> [u8; HEADER_BYTES] {
        let second = (u32::from(self.position) << 30)
            | if self.in_order { IN_ORDER } else { 0 }
            | (self.key.bits() << 27)
            | if self.retransmitted { RETRANSMITTED } else { 0 }
            | (self.message_number & MESSAGE_NUMBER);
        header_bytes([self.sequence.value(), second, self.timestamp, self.destination])
    }
}

impl ControlHeader {
    /// As it goes on the wire.
    #[must_use]
    pub fn bytes(&self) -> [u8; HEADER_BYTES] {
        let (kind, subtype) = self.kind.numbers();
        let first = CONTROL | (u32::from(kind) << 16) | u32::from(subtype);
        header_bytes([first, self.information, self.timestamp, self.destination])
    }
}

impl KeyFlag {
    /// From the lowest two bits.
    #[must_use]
    pub const fn of(bits: u32) -> Self {
        match bits & 0b11 {
            0 => Self::Clear,
            1 => Self::Even,
            2 => Self::Odd,
            _ => Self::Both,
        }
    }

    /// The two bits.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self as u32
    }
}

impl ControlKind {
    const fn of(kind: u16, subtype: u16) -> Self {
        match (kind, subtype) {
            (0, _) => Self::Handshake,
            (1, _) => Self::KeepAlive,
            (2, _) => Self::Ack,
            (3, _) => Self::Nak,
            (4, _) => Self::CongestionWarning,
            (5, _) => Self::Shutdown,
            (6, _) => Self::AckAck,
            (7, _) => Self::DropRequest,
            (8, _) => Self::PeerError,
            (USER, 3) => Self::KeyRequest,
            (USER, 4) => Self::KeyResponse,
            _ => Self::Unknown { kind, subtype },
        }
    }

    const fn numbers(self) -> (u16, u16) {
        match self {
            Self::Handshake => (0, 0),
            Self::KeepAlive => (1, 0),
            Self::Ack => (2, 0),
            Self::Nak => (3, 0),
            Self::CongestionWarning => (4, 0),
            Self::Shutdown => (5, 0),
            Self::AckAck => (6, 0),
            Self::DropRequest => (7, 0),
            Self::PeerError => (8, 0),
            Self::KeyRequest => (USER, 3),
            Self::KeyResponse => (USER, 4),
            Self::Unknown { kind, subtype } => (kind, subtype),
        }
    }
}

/// Body of an acknowledgement (draft 3.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckBody {
    /// The first packet that has not come.
    pub next: Seq<31>,
    /// All but that, except in a light acknowledgement.
    pub figures: Option<AckFigures>,
}

/// What a full acknowledgement tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AckFigures {
    /// Smoothed round-trip time, µs.
    pub round_trip_us: u32,
    /// Its variation, µs.
    pub variation_us: u32,
    /// Packets that the receive buffer has room for.
    pub available: u32,
    /// Packets that arrive in a second.
    pub packets_per_second: u32,
    /// Packets that the link could carry in a second.
    pub capacity_per_second: u32,
    /// Bytes that arrive in a second.
    pub bytes_per_second: u32,
}

impl AckBody {
    /// Reads a light one of 4 bytes, or one with at least the figures that every version has: 16 bytes.
    ///
    /// # Errors
    /// [`Malformed::Short`].
    pub fn parse(body: &[u8]) -> Result<Self, Malformed> {
        let next = Seq::new(word(body, 0).ok_or(Malformed::Short)?);
        let (Some(round_trip_us), Some(variation_us), Some(available)) = (word(body, 1), word(body, 2), word(body, 3))
        else {
            return Ok(Self { next, figures: None });
        };
        let rest = |index| word(body, index).unwrap_or(0);
        let figures = AckFigures {
            round_trip_us,
            variation_us,
            available,
            packets_per_second: rest(4),
            capacity_per_second: rest(5),
            bytes_per_second: rest(6),
        };
        Ok(Self { next, figures: Some(figures) })
    }

    /// Appends it as it goes on the wire.
    pub fn write(&self, out: &mut Vec<u8>) {
        push(out, self.next.value());
        if let Some(figures) = self.figures {
            push(out, figures.round_trip_us);
            push(out, figures.variation_us);
            push(out, figures.available);
            push(out, figures.packets_per_second);
            push(out, figures.capacity_per_second);
            push(out, figures.bytes_per_second);
        }
    }
}

/// Body of a drop request (draft 3.2.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropBody {
    /// The first packet given up.
    pub first: Seq<31>,
    /// The last one.
    pub last: Seq<31>,
}

impl DropBody {
    /// Reads it.
    ///
    /// # Errors
    /// [`Malformed::Short`]; [`Malformed::Contradictory`] if the last is before the first.
    pub fn parse(body: &[u8]) -> Result<Self, Malformed> {
        let (Some(first), Some(last)) = (word(body, 0), word(body, 1)) else { return Err(Malformed::Short) };
        let (first, last) = (Seq::new(first), Seq::new(last));
        if first.distance(last) < 0 { Err(Malformed::Contradictory) } else { Ok(Self { first, last }) }
    }

    /// Appends it as it goes on the wire.
    pub fn write(&self, out: &mut Vec<u8>) {
        push(out, self.first.value());
        push(out, self.last.value());
    }
}

/// The ranges of a loss list (draft appendix A): a number alone, or two of which the first has its top bit set. Ends at
/// the first that makes no sense.
#[derive(Clone, Debug)]
pub struct LossRanges<'body> {
    rest: &'body [u8],
}

impl<'body> LossRanges<'body> {
    /// The list in a NAK's body.
    #[must_use]
    pub const fn parse(body: &'body [u8]) -> Self {
        Self { rest: body }
    }

    /// Appends one range as it goes on the wire.
    pub fn write(range: &RangeInclusive<Seq<31>>, out: &mut Vec<u8>) {
        if range.start() == range.end() {
            push(out, range.start().value());
        } else {
            push(out, range.start().value() | RANGE);
            push(out, range.end().value());
        }
    }
}

impl Iterator for LossRanges<'_> {
    type Item = Result<RangeInclusive<Seq<31>>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let rest = std::mem::take(&mut self.rest);
        let Some(start) = word(rest, 0) else { return Some(Err(Malformed::Short)) };
        if start & RANGE == 0 {
            self.rest = &rest[4..];
            return Some(Ok(Seq::new(start)..=Seq::new(start)));
        }
        let Some(end) = word(rest, 1) else { return Some(Err(Malformed::Short)) };
        let range = Seq::new(start)..=Seq::new(end);
        if end & RANGE != 0 || range.start().distance(*range.end()) < 0 {
            return Some(Err(Malformed::Contradictory));
        }
        self.rest = &rest[8..];
        Some(Ok(range))
    }
}

/// Big-endian word number `index`.
pub(super) fn word(bytes: &[u8], index: usize) -> Option<u32> {
    let bytes = bytes.get(index * 4..index * 4 + 4)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

/// Appends a big-endian word.
pub(super) fn push(out: &mut Vec<u8>, word: u32) {
    out.extend_from_slice(&word.to_be_bytes());
}

fn header_bytes(words: [u32; 4]) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    for (chunk, word) in bytes.chunks_exact_mut(4).zip(words) {
        chunk.copy_from_slice(&word.to_be_bytes());
    }
    bytes
}

const CONTROL: u32 = 1 << 31;
const RANGE: u32 = 1 << 31;
/// Both the first and the last part of a message.
const WHOLE: u8 = 0b11;
const IN_ORDER: u32 = 1 << 29;
const RETRANSMITTED: u32 = 1 << 26;
const MESSAGE_NUMBER: u32 = (1 << 26) - 1;
/// Control type of what libsrt adds to UDT.
const USER: u16 = 0x7fff;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn headers_read_back_as_they_were_written(words in any::<[u32; 4]>(), cut in 0usize..16) {
            let bytes = header_bytes(words);
            let again = match Header::parse(&bytes).unwrap() {
                Header::Data(header) => header.bytes(),
                Header::Control(header) => header.bytes(),
            };
            let loses_subtype = matches!(Header::parse(&bytes), Ok(Header::Control(ControlHeader { kind, .. }))
                if !matches!(kind, ControlKind::Unknown { .. }));
            if loses_subtype {
                prop_assert_eq!(&again[4..], &bytes[4..]);
            } else {
                prop_assert_eq!(again, bytes);
            }
            prop_assert_eq!(Header::parse(&bytes[..cut]), Err(Malformed::Short));
        }

        #[test]
        fn loss_lists_read_back(starts in prop::collection::vec((any::<u32>(), 0u32..100), 0..50)) {
            let ranges: Vec<_> =
                starts.iter().map(|(start, len)| Seq::<31>::new(*start)..=Seq::<31>::new(*start).add(*len)).collect();
            let mut body = Vec::new();
            ranges.iter().for_each(|range| LossRanges::write(range, &mut body));
            let read: Result<Vec<_>, _> = LossRanges::parse(&body).collect();
            prop_assert_eq!(read, Ok(ranges));
        }

        #[test]
        fn any_bytes_are_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Header::parse(&body);
            let _ = AckBody::parse(&body);
            let _ = DropBody::parse(&body);
            prop_assert!(LossRanges::parse(&body).count() <= body.len() / 4 + 1);
        }
    }

    #[test]
    fn acknowledgements_come_light_small_and_full() {
        let figures =
            AckFigures { round_trip_us: 1, variation_us: 2, available: 3, bytes_per_second: 6, ..Default::default() };
        let full = AckBody { next: Seq::new(9), figures: Some(figures) };
        let mut bytes = Vec::new();
        full.write(&mut bytes);
        assert_eq!(bytes.len(), 28);
        assert_eq!(AckBody::parse(&bytes), Ok(full));
        assert_eq!(AckBody::parse(&bytes[..4]), Ok(AckBody { next: Seq::new(9), figures: None }));
        assert_eq!(AckBody::parse(&bytes[..16]).unwrap().figures.unwrap().bytes_per_second, 0);
        assert_eq!(AckBody::parse(&bytes[..3]), Err(Malformed::Short));
    }

    #[test]
    fn a_range_without_its_end_is_refused() {
        let mut body = Vec::new();
        LossRanges::write(&(Seq::new(5)..=Seq::new(7)), &mut body);
        let cut: Vec<_> = LossRanges::parse(&body[..4]).collect();
        assert_eq!(cut, [Err(Malformed::Short)]);
        let backwards = [(5_u32 | RANGE).to_be_bytes(), 4_u32.to_be_bytes()].concat();
        assert_eq!(LossRanges::parse(&backwards).collect::<Vec<_>>(), [Err(Malformed::Contradictory)]);
    }
}
