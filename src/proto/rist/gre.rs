//! The tunnel of the Main profile: GRE over UDP (TR-06-2 5, 6, 8; RFC 2784, RFC 2890).
//!
//! ```text
//!  0 1 2 3 4 5 6 7 0 1 2 3 4 5 6 7
//! |C|-|K|S|-------|-|H|RVer |Ver  |  type            type 0x88b6: reduced header and RTP or RTCP
//! [checksum, reserved: 32 bits]                           0x88b5: keep-alive
//! [nonce: 32 bits]                                        0x888e: EAPOL, never encrypted
//! [sequence number: 32 bits]                              0x0800: whole IP datagram
//! what follows is encrypted if there is a nonce           0xcce0: VSF, whose own 32 bits say which of these
//! ```
//!
//! Versions differ in the type (RVer 2 has VSF's, RVer 0 and 1 the experimental ones) and in how the counter of the
//! cipher is laid out. Peers change between them within one session, so each packet is read by what it says itself.

use arrayvec::ArrayVec;

use crate::proto::rtp::ParseError;

/// Which edition of the tunnel a packet follows (RVer).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// TR-06-2:2020.
    V0,
    /// TR-06-2:2021: another counter of the cipher.
    #[default]
    V1,
    /// TR-06-2:2022 and later: VSF's own type.
    V2,
}

impl Version {
    const fn of_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::V0),
            1 => Some(Self::V1),
            2 => Some(Self::V2),
            _ => None,
        }
    }

    const fn bits(self) -> u8 {
        match self {
            Self::V0 => 0,
            Self::V1 => 1,
            Self::V2 => 2,
        }
    }
}

/// The GRE header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Edition.
    pub version: Version,
    /// H: keys of 256 bits, where there is a nonce.
    pub has_long_key: bool,
    /// K: what follows is encrypted, with a key that belongs to this nonce.
    pub nonce: Option<[u8; 4]>,
    /// S: counts the packets of this direction.
    pub sequence: Option<u32>,
    /// What follows.
    pub protocol: u16,
}

impl Header {
    /// Reads the header of a datagram, and says where it ends.
    ///
    /// # Errors
    /// Too short, or of an edition that nobody knows.
    pub fn parse(bytes: &[u8]) -> Result<(Self, usize), ParseError> {
        let (&[flags, versions, p0, p1], _) = bytes.split_first_chunk::<4>().ok_or(ParseError::Truncated)?;
        if flags & ROUTING != 0 || versions & GRE_VERSION != 0 {
            return Err(ParseError::Version);
        }
        let version = Version::of_bits(versions >> 3 & 7).ok_or(ParseError::Version)?;
        let mut at = 4 + if flags & CHECKSUM == 0 { 0 } else { 4 };
        let mut field = |is_there: bool| {
            if !is_there {
                return Ok(None);
            }
            let rest = bytes.get(at..).ok_or(ParseError::Truncated)?;
            let (word, _) = rest.split_first_chunk::<4>().ok_or(ParseError::Truncated)?;
            at += 4;
            Ok(Some(*word))
        };
        let nonce = field(flags & KEY != 0)?;
        let sequence = field(flags & SEQUENCE != 0)?.map(u32::from_be_bytes);
        let header = Self {
            version,
            has_long_key: versions & LONG_KEY != 0,
            nonce,
            sequence,
            protocol: u16::from_be_bytes([p0, p1]),
        };
        if at > bytes.len() { Err(ParseError::Truncated) } else { Ok((header, at)) }
    }

    /// The header as it goes on the wire, without checksum.
    #[must_use]
    pub fn bytes(&self) -> ArrayVec<u8, HEADER_BYTES_MAX> {
        let flag = |is_there, flag| if is_there { flag } else { 0 };
        let flags = flag(self.nonce.is_some(), KEY) | flag(self.sequence.is_some(), SEQUENCE);
        let versions = self.version.bits() << 3 | flag(self.has_long_key, LONG_KEY);
        let [p0, p1] = self.protocol.to_be_bytes();
        let nonce = self.nonce.into_iter().flatten();
        [flags, versions, p0, p1]
            .into_iter()
            .chain(nonce)
            .chain(self.sequence.into_iter().flat_map(u32::to_be_bytes))
            .collect()
    }
}

/// What a tunnel carries, in the clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// RTP or RTCP.
    Reduced {
        /// Virtual ports.
        ports: Ports,
        /// Where it begins in what was read.
        at: usize,
    },
    /// Somebody is still there, and says what he can do.
    KeepAlive(KeepAlive),
    /// How much a sender can keep and a receiver keeps (TR-06-2:2022 buffer negotiation).
    Buffer {
        /// What the sender can keep at most, in milliseconds.
        sender_max_ms: u16,
        /// What the receiver keeps now, in milliseconds; zero from a sender.
        receiver_ms: u16,
    },
    /// Authentication; the rest is EAPOL.
    Eapol(&'a [u8]),
    /// Whole IP datagrams, announced nonces, and what is not known.
    Other,
}

/// Virtual ports, which tell media and its RTCP apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Of whoever sends this.
    pub source: u16,
    /// Of whoever gets it: even for media, the odd one after it for RTCP.
    pub destination: u16,
}

/// A keep-alive (TR-06-2 5.4.2): what stands behind it is JSON for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeepAlive {
    /// Hardware address of whoever sends it, or any other name.
    pub mac: [u8; 6],
    /// Flags X R B A P E L N, D T V J F and three reserved, the first the highest.
    pub capabilities: u16,
}

impl KeepAlive {
    /// Null packets may be left out (N).
    pub const NULL_PACKETS: u16 = 0x0100;
    /// The session ends (D).
    pub const DISCONNECT: u16 = 0x0080;
    /// Packets of VSF's type are understood (V).
    pub const VSF_TYPE: u16 = 0x0020;
}

impl<'a> Content<'a> {
    /// Reads what follows a header of type `protocol`.
    ///
    /// # Errors
    /// Shorter than its kind needs.
    pub fn parse(protocol: u16, bytes: &'a [u8]) -> Result<Self, ParseError> {
        match protocol {
            REDUCED => Self::reduced(bytes, 0),
            KEEP_ALIVE => Self::keep_alive(bytes),
            EAPOL => Ok(Self::Eapol(bytes)),
            VSF => {
                let (&[t0, t1, s0, s1], rest) = bytes.split_first_chunk::<4>().ok_or(ParseError::Truncated)?;
                match [u16::from_be_bytes([t0, t1]), u16::from_be_bytes([s0, s1])] {
                    [0, VSF_REDUCED] => Self::reduced(rest, 4),
                    [0, VSF_KEEP_ALIVE] => Self::keep_alive(rest),
                    [0, VSF_BUFFER] => {
                        let (&[m0, m1, r0, r1], _) = rest.split_first_chunk::<4>().ok_or(ParseError::Truncated)?;
                        let [sender_max_ms, receiver_ms] = [[m0, m1], [r0, r1]].map(u16::from_be_bytes);
                        Ok(Self::Buffer { sender_max_ms, receiver_ms })
                    }
                    _ => Ok(Self::Other),
                }
            }
            _ => Ok(Self::Other),
        }
    }

    fn reduced(bytes: &[u8], before: usize) -> Result<Self, ParseError> {
        let (&[s0, s1, d0, d1], _) = bytes.split_first_chunk::<4>().ok_or(ParseError::Truncated)?;
        let ports = Ports { source: u16::from_be_bytes([s0, s1]), destination: u16::from_be_bytes([d0, d1]) };
        Ok(Self::Reduced { ports, at: before + 4 })
    }

    fn keep_alive(bytes: &[u8]) -> Result<Self, ParseError> {
        let (&[m0, m1, m2, m3, m4, m5, c0, c1], _) = bytes.split_first_chunk::<8>().ok_or(ParseError::Truncated)?;
        let mac = [m0, m1, m2, m3, m4, m5];
        Ok(Self::KeepAlive(KeepAlive { mac, capabilities: u16::from_be_bytes([c0, c1]) }))
    }
}

/// Type and what goes before RTP or RTCP.
pub(super) fn reduced_prefix(version: Version, ports: Ports) -> (u16, ArrayVec<u8, PREFIX_BYTES_MAX>) {
    let ports = ports.source.to_be_bytes().into_iter().chain(ports.destination.to_be_bytes());
    if version == Version::V2 {
        (VSF, vsf(VSF_REDUCED).into_iter().chain(ports).collect())
    } else {
        (REDUCED, ports.collect())
    }
}

/// Type and bytes of a keep-alive.
pub(super) fn keep_alive_bytes(version: Version, keep_alive: KeepAlive) -> (u16, ArrayVec<u8, 12>) {
    let bytes = keep_alive.mac.into_iter().chain(keep_alive.capabilities.to_be_bytes());
    if version == Version::V2 {
        (VSF, vsf(VSF_KEEP_ALIVE).into_iter().chain(bytes).collect())
    } else {
        (KEEP_ALIVE, bytes.collect())
    }
}

/// VSF's own header: RIST, and which kind of packet.
const fn vsf(subtype: u16) -> [u8; 4] {
    let [s0, s1] = subtype.to_be_bytes();
    [0, 0, s0, s1]
}

/// Longest header that we write.
pub const HEADER_BYTES_MAX: usize = 12;
/// Longest that goes between the header and RTP.
pub(super) const PREFIX_BYTES_MAX: usize = 8;

const CHECKSUM: u8 = 0x80;
const ROUTING: u8 = 0x40;
const KEY: u8 = 0x20;
const SEQUENCE: u8 = 0x10;
const LONG_KEY: u8 = 0x40;
const GRE_VERSION: u8 = 0x07;

pub(super) const KEEP_ALIVE: u16 = 0x88b5;
pub(super) const REDUCED: u16 = 0x88b6;
pub(super) const EAPOL: u16 = 0x888e;
pub(super) const VSF: u16 = 0xcce0;
const VSF_REDUCED: u16 = 0x0000;
const VSF_KEEP_ALIVE: u16 = 0x8000;
const VSF_BUFFER: u16 = 0x8002;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::capture::{hex, read};
    use super::*;

    #[test]
    fn every_recorded_packet_is_read_and_its_header_written_back() {
        for name in ["main-027", "main-0211", "npd-0211", "psk128-027", "psk256-027", "psk256-0211"] {
            for recorded in read(name) {
                let (header, at) = Header::parse(&recorded.bytes).unwrap();
                assert_eq!(header.bytes()[..], recorded.bytes[..at], "{name}");
                assert_eq!(header.nonce.is_some(), name.starts_with("psk"));
                assert_eq!(header.has_long_key, name.starts_with("psk256"));
                if header.nonce.is_none() {
                    let content = Content::parse(header.protocol, &recorded.bytes[at..]).unwrap();
                    assert_eq!(matches!(content, Content::Other), header.protocol == 0x0800, "{name}: {content:?}");
                }
            }
        }
    }

    #[test]
    fn each_kind_is_told_apart() {
        let content = |text: &str| {
            let bytes = hex(text);
            let (header, at) = Header::parse(&bytes).unwrap();
            match Content::parse(header.protocol, &bytes[at..]).unwrap() {
                Content::Eapol(_) => unreachable!("not here"),
                Content::Reduced { ports, at } => Content::Reduced { ports, at },
                Content::KeepAlive(keep_alive) => Content::KeepAlive(keep_alive),
                Content::Buffer { sender_max_ms, receiver_ms } => Content::Buffer { sender_max_ms, receiver_ms },
                Content::Other => Content::Other,
            }
        };
        let keep_alive = KeepAlive { mac: [0xa2, 0x88, 0x95, 0x50, 0xd6, 0x39], capabilities: 0x2520 };
        assert_eq!(content("1010cce00000000000008000a2889550d6392520"), Content::KeepAlive(keep_alive));
        assert_eq!(content("100888b500000003a2889550d6392520"), Content::KeepAlive(keep_alive));
        let buffer = Content::Buffer { sender_max_ms: 2_000, receiver_ms: 0 };
        assert_eq!(content("1010cce0000000060000800207d000000000"), buffer);
        let ports = Ports { source: 32_769, destination: 1_968 };
        assert_eq!(content("000088b6800107b08021"), Content::Reduced { ports, at: 4 });
        assert_eq!(content("1010cce00000002500000000800107b08021"), Content::Reduced { ports, at: 8 });
    }

    #[test]
    fn what_is_written_is_read() {
        let ports = Ports { source: 1_971, destination: 1_968 };
        for version in [Version::V0, Version::V1, Version::V2] {
            let (protocol, prefix) = reduced_prefix(version, ports);
            assert_eq!(Content::parse(protocol, &prefix), Ok(Content::Reduced { ports, at: prefix.len() }));
            let keep_alive = KeepAlive { mac: [2; 6], capabilities: 0x0180 };
            let (protocol, bytes) = keep_alive_bytes(version, keep_alive);
            assert_eq!(Content::parse(protocol, &bytes), Ok(Content::KeepAlive(keep_alive)));
        }
    }

    #[test]
    fn every_truncation_is_refused() {
        for text in
            ["1010cce00000000000008000a2889550d6392520", "304888b50057165200000003", "9008 88b5 00000000 00000001"]
        {
            let bytes = hex(text);
            let (header, at) = Header::parse(&bytes).unwrap();
            (0..at).for_each(|len| assert_eq!(Header::parse(&bytes[..len]), Err(ParseError::Truncated), "{len}"));
            for len in 0..bytes.len() - at {
                assert_eq!(Content::parse(header.protocol, &bytes[at..at + len]), Err(ParseError::Truncated));
            }
        }
        assert_eq!(Header::parse(&hex("400888b6")), Err(ParseError::Version));
        assert_eq!(Header::parse(&hex("000988b6")), Err(ParseError::Version));
        assert_eq!(Header::parse(&hex("001888b6")), Err(ParseError::Version));
    }

    proptest! {
        #[test]
        fn any_header_survives_the_way(
            version in 0_u8..3, has_long_key: bool, nonce: Option<[u8; 4]>, sequence: Option<u32>, protocol: u16,
            rest in prop::collection::vec(any::<u8>(), 0..40)
        ) {
            let version = Version::of_bits(version).unwrap();
            let header = Header { version, has_long_key, nonce, sequence, protocol };
            let mut bytes = header.bytes().to_vec();
            let at = bytes.len();
            bytes.extend(&rest);
            prop_assert_eq!(Header::parse(&bytes), Ok((header, at)));
            if let Ok(Content::Reduced { at, .. }) = Content::parse(protocol, &rest) {
                prop_assert!(at <= rest.len());
            }
        }
    }
}
