//! Null packets are left out on the way and put back at its end (TR-06-2 8.3).
//!
//! ```text
//! RTP's header extension: 0x5249, one word | N E size 0 0 0 | T nulls, 7 bits | upper half of the number
//! ```
//!
//! N: there are null packets to put back. E: the upper half is there. T: TS packets have 204 bytes. Of the seven bits the
//! highest is for the first TS packet.

use super::super::mpegts::{SYNC_BYTE, TS_PACKET_BYTES};
use crate::proto::rtp::ParseError;

/// What a packet has left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extension {
    /// A bit for each place, the highest of the seven for the first.
    pub nulls: u8,
    /// TS packets have 204 bytes.
    pub is_204: bool,
    /// Upper half of a sequence number of 32 bits.
    pub upper: Option<u16>,
}

impl Extension {
    /// Reads RTP's header extension; `None` if it is another one, or says nothing.
    #[must_use]
    pub fn parse(profile: u16, bytes: &[u8]) -> Option<Self> {
        let &[flags, places, u0, u1, ..] = bytes else { return None };
        if profile != PROFILE {
            return None;
        }
        Some(Self {
            nulls: if flags & HAS_NULLS == 0 { 0 } else { places & PLACES },
            is_204: places & IS_204 != 0,
            upper: (flags & HAS_UPPER != 0).then(|| u16::from_be_bytes([u0, u1])),
        })
    }

    /// The extension as it stands behind RTP's fixed header, for TS packets of 188 bytes.
    #[must_use]
    pub const fn bytes(self) -> [u8; EXTENSION_BYTES] {
        let [p0, p1] = PROFILE.to_be_bytes();
        [p0, p1, 0, 1, HAS_NULLS, self.nulls & PLACES, 0, 0]
    }
}

/// Says where `payload` has null packets that come back just the same, if it has any and is not made of them alone.
#[must_use]
pub fn find_nulls(payload: &[u8]) -> Option<Extension> {
    let (packets, rest) = payload.as_chunks::<TS_PACKET_BYTES>();
    if !rest.is_empty() || packets.len() > PLACES_MAX {
        return None;
    }
    let mut nulls = 0;
    for (place, packet) in packets.iter().enumerate() {
        if is_null(packet) {
            nulls |= FIRST_PLACE >> place;
        }
    }
    // Librist takes a packet without payload for none at all.
    let is_some = nulls != 0 && (nulls.count_ones() as usize) < packets.len();
    is_some.then_some(Extension { nulls, is_204: false, upper: None })
}

/// What is not left out of `payload`.
pub fn kept(payload: &[u8], extension: Extension) -> impl Iterator<Item = &[u8]> + Clone {
    let packets = payload.chunks(TS_PACKET_BYTES).enumerate();
    packets.filter(move |(place, _)| !extension.is_null(*place)).map(|(_, packet)| packet)
}

/// Bytes of `payload` with its null packets put back.
///
/// # Errors
/// [`ParseError::Length`] if it is not made of whole TS packets, or there would be more than seven.
pub const fn expanded_len(payload: &[u8], extension: Extension) -> Result<usize, ParseError> {
    let size = extension.packet_bytes();
    let nulls = extension.nulls.count_ones() as usize;
    if !payload.len().is_multiple_of(size) || payload.len() / size + nulls > PLACES_MAX {
        return Err(ParseError::Length);
    }
    Ok(payload.len() + nulls * size)
}

/// Writes `payload` with its null packets put back to `out`, which has [`expanded_len`] bytes.
pub fn expand(payload: &[u8], extension: Extension, out: &mut [u8]) {
    let size = extension.packet_bytes();
    let mut rest = payload.chunks_exact(size);
    for (place, slot) in out.chunks_exact_mut(size).enumerate() {
        match if extension.is_null(place) { None } else { rest.next() } {
            Some(packet) => slot.copy_from_slice(packet),
            None => {
                slot.fill(0xff);
                slot[..4].copy_from_slice(&NULL_HEADER);
                // The 16 bytes behind a packet of 204 are for its error correction, which nobody here checks.
            }
        }
    }
}

impl Extension {
    const fn is_null(self, place: usize) -> bool {
        place < PLACES_MAX && self.nulls & FIRST_PLACE >> place != 0
    }

    const fn packet_bytes(self) -> usize {
        if self.is_204 { TS_PACKET_BYTES + 16 } else { TS_PACKET_BYTES }
    }
}

/// Whether it is exactly what [`expand`] puts back.
fn is_null(packet: &[u8; TS_PACKET_BYTES]) -> bool {
    packet.starts_with(&NULL_HEADER) && packet[4..].iter().all(|byte| *byte == 0xff)
}

/// Bytes of the extension with its header.
pub const EXTENSION_BYTES: usize = 8;
/// Places that there are bits for.
pub const PLACES_MAX: usize = 7;

/// "RI".
const PROFILE: u16 = 0x5249;
const HAS_NULLS: u8 = 0x80;
const HAS_UPPER: u8 = 0x40;
const IS_204: u8 = 0x80;
const PLACES: u8 = 0x7f;
const FIRST_PLACE: u8 = 0x40;
/// PID 0x1fff, payload only, counter zero.
const NULL_HEADER: [u8; 4] = [SYNC_BYTE, 0x1f, 0xff, 0x10];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::capture::read;
    use super::*;
    use crate::proto::rtp::RtpPacket;

    fn ts(nulls: &[bool]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (n, is_null) in nulls.iter().enumerate() {
            let mut packet = [if *is_null { 0xff } else { n as u8 }; TS_PACKET_BYTES];
            packet[..4].copy_from_slice(if *is_null { &NULL_HEADER } else { &[SYNC_BYTE, 0x40, 0x11, 0x10] });
            bytes.extend(packet);
        }
        bytes
    }

    fn there_and_back(payload: &[u8]) -> Option<(usize, Vec<u8>)> {
        let extension = find_nulls(payload)?;
        let wire = extension.bytes();
        assert_eq!(Extension::parse(u16::from_be_bytes([wire[0], wire[1]]), &wire[4..]), Some(extension));
        let short = kept(payload, extension).collect::<Vec<_>>().concat();
        let mut out = vec![0; expanded_len(&short, extension).unwrap()];
        expand(&short, extension, &mut out);
        Some((short.len(), out))
    }

    /// As librist 0.2.11 sent it: the last three of seven are left out.
    #[test]
    fn a_recorded_packet_gets_its_null_packets_back() {
        let recorded = read("npd-0211");
        let media = recorded.iter().find(|recorded| recorded.bytes.len() > 700).unwrap();
        let rtp = RtpPacket::parse(&media.bytes[16..]).unwrap();
        let (profile, bytes) = rtp.extension().unwrap();
        let extension = Extension::parse(profile, bytes).unwrap();
        assert_eq!(extension, Extension { nulls: 0b000_0111, is_204: false, upper: None });
        assert_eq!((rtp.payload().len(), expanded_len(rtp.payload(), extension)), (4 * 188, Ok(7 * 188)));
        let mut out = vec![0; 7 * 188];
        expand(rtp.payload(), extension, &mut out);
        assert_eq!(out[..4 * 188], *rtp.payload());
        assert_eq!(find_nulls(&out), Some(extension));
        assert_eq!(extension.bytes()[..], media.bytes[28..36]);
    }

    /// TR-06-2 8.5: one null packet among seven, and others.
    #[test]
    fn places_count_from_the_first_packet() {
        let places = |nulls: &[bool]| find_nulls(&ts(nulls)).map(|extension| extension.nulls);
        assert_eq!(places(&[true, false, false, false, false, false, false]), Some(0b100_0000));
        assert_eq!(places(&[false, false, false, false, false, false, true]), Some(0b000_0001));
        assert_eq!(places(&[false, true]), Some(0b010_0000));
        assert_eq!(places(&[false; 7]), None);
        assert_eq!(places(&[true; 7]), None, "a packet without payload would look like none");
        assert_eq!(places(&[true; 8]), None);
    }

    #[test]
    fn only_what_comes_back_the_same_is_left_out() {
        let mut other = ts(&[false, true]);
        other[200] = 0;
        assert_eq!(find_nulls(&other), None);
        assert_eq!(find_nulls(&ts(&[false, true])[..300]), None);
    }

    #[test]
    fn more_than_seven_and_broken_packets_are_refused() {
        let extension = Extension { nulls: 0x7f, is_204: false, upper: None };
        assert_eq!(expanded_len(&ts(&[false]), extension), Err(ParseError::Length));
        assert_eq!(expanded_len(&[0; 187], Extension { nulls: 1, ..extension }), Err(ParseError::Length));
        assert_eq!(expanded_len(&[0; 204], Extension { nulls: 1, is_204: true, upper: None }), Ok(408));
        (0..4).for_each(|len| assert_eq!(Extension::parse(PROFILE, &[0xff; 4][..len]), None));
        assert_eq!(Extension::parse(0xbede, &[0xff; 4]), None);
    }

    proptest! {
        #[test]
        fn any_mixture_comes_back_as_it_was(nulls in prop::collection::vec(any::<bool>(), 1..8)) {
            let payload = ts(&nulls);
            if let Some((len, back)) = there_and_back(&payload) {
                prop_assert_eq!(len, nulls.iter().filter(|is_null| !**is_null).count() * TS_PACKET_BYTES);
                prop_assert_eq!(back, payload);
            }
        }
    }
}
