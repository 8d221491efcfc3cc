//! Bodies of handshake packets: fixed part, extensions, rejections (draft 3.2.1).

use std::net::IpAddr;
use std::time::Duration;

use super::error::Rejection;
use super::packet::{Malformed, push, word};
use crate::units::Seq;

/// A handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// 4 in a caller's induction, 5 in all others.
    pub version: u32,
    /// Length of the sender's keys in units of 8 bytes; zero for none.
    pub encryption: u16,
    /// Meaning depends on the stage: see [`extension`].
    pub extension: u16,
    /// First sequence number of both directions.
    pub initial: Seq<31>,
    /// Longest IP packet.
    pub mtu: u32,
    /// Packets that may be in flight.
    pub flow_window: u32,
    /// What this is.
    pub stage: Stage,
    /// The sender's socket.
    pub socket_id: u32,
    /// Given by the listener, brought back by the caller.
    pub cookie: u32,
    /// The address that this is sent to, as its sender knows it.
    pub peer_ip: IpAddr,
}

/// Handshake types (draft table 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// A caller knocks, and the listener answers with a cookie.
    Induction,
    /// A peer of a rendezvous knocks.
    WaveAHand,
    /// Caller and listener say what they want.
    Conclusion,
    /// Ends a rendezvous.
    Agreement,
    /// Refused.
    Rejected(Rejection),
    /// Something else.
    Unknown(u32),
}

/// Values of the extension field.
pub mod extension {
    /// What a listener of version 5 puts into its induction (draft 4.3.1.1).
    pub const MAGIC: u16 = 0x4a17;
    /// A version 4 caller's induction: datagrams (UDT_DGRAM).
    pub const DATAGRAM: u16 = 2;
    /// HSREQ or HSRSP follows.
    pub const HANDSHAKE: u16 = 1;
    /// KMREQ or KMRSP follows.
    pub const KEYS: u16 = 2;
    /// Other extensions follow.
    pub const CONFIG: u16 = 4;
}

/// Flags of HSREQ and HSRSP (draft table 6).
pub mod flags {
    /// Sends with timestamps that can be delivered by.
    pub const TSBPD_SENDER: u32 = 1;
    /// Delivers by timestamps.
    pub const TSBPD_RECEIVER: u32 = 1 << 1;
    /// Knows encryption.
    pub const CRYPT: u32 = 1 << 2;
    /// Gives up what is too late.
    pub const TOO_LATE_DROP: u32 = 1 << 3;
    /// Reports losses again and again.
    pub const NAK_REPORT: u32 = 1 << 4;
    /// Marks retransmissions: bit 26 of the message number is the flag R.
    pub const REXMIT_FLAG: u32 = 1 << 5;
    /// Delivers a stream of bytes, not packets.
    pub const STREAM: u32 = 1 << 6;
    /// Knows packet filters.
    pub const FILTER: u32 = 1 << 7;
}

/// Version of SRT that we speak, as libsrt numbers it: 1.5.5.
pub const SRT_VERSION: u32 = 0x01_05_05;
/// The first that knows handshake version 5.
pub const SRT_VERSION_MIN: u32 = 0x01_03_00;

impl Handshake {
    /// Reads the fixed part; the extensions are the rest.
    ///
    /// # Errors
    /// [`Malformed::Short`] below 48 bytes.
    pub fn parse(body: &[u8]) -> Result<(Self, Extensions<'_>), Malformed> {
        let fixed = body.get(..FIXED_BYTES).ok_or(Malformed::Short)?;
        let word = |index| word(fixed, index).ok_or(Malformed::Short);
        let second = word(1)?;
        let mut ip = [0; 16];
        for (chunk, index) in ip.chunks_exact_mut(4).zip(8..) {
            chunk.copy_from_slice(&word(index)?.to_le_bytes());
        }
        let handshake = Self {
            version: word(0)?,
            encryption: (second >> 16) as u16,
            extension: second as u16,
            initial: Seq::new(word(2)?),
            mtu: word(3)?,
            flow_window: word(4)?,
            stage: Stage::of(word(5)?),
            socket_id: word(6)?,
            cookie: word(7)?,
            peer_ip: if ip[4..] == [0; 12] { IpAddr::from([ip[0], ip[1], ip[2], ip[3]]) } else { IpAddr::from(ip) },
        };
        Ok((handshake, Extensions { rest: &body[FIXED_BYTES..] }))
    }

    /// Appends the fixed part as it goes on the wire. Addresses go with the bytes of each word turned round, as libsrt
    /// on the usual machines sends them.
    pub fn write(&self, out: &mut Vec<u8>) {
        push(out, self.version);
        push(out, (u32::from(self.encryption) << 16) | u32::from(self.extension));
        push(out, self.initial.value());
        push(out, self.mtu);
        push(out, self.flow_window);
        push(out, self.stage.number());
        push(out, self.socket_id);
        push(out, self.cookie);
        let mut ip = [0; 16];
        match self.peer_ip {
            IpAddr::V4(address) => ip[..4].copy_from_slice(&address.octets()),
            IpAddr::V6(address) => ip = address.octets(),
        }
        for word in ip.chunks_exact(4) {
            out.extend(word.iter().rev());
        }
    }
}

impl Stage {
    const fn of(number: u32) -> Self {
        match number {
            1 => Self::Induction,
            0 => Self::WaveAHand,
            CONCLUSION => Self::Conclusion,
            AGREEMENT => Self::Agreement,
            1_000.. if number < 0x8000_0000 => Self::Rejected(Rejection::of_wire(number)),
            _ => Self::Unknown(number),
        }
    }

    const fn number(self) -> u32 {
        match self {
            Self::Induction => 1,
            Self::WaveAHand => 0,
            Self::Conclusion => CONCLUSION,
            Self::Agreement => AGREEMENT,
            Self::Rejected(rejection) => rejection.wire(),
            Self::Unknown(number) => number,
        }
    }
}

/// The extensions of a handshake, one after the other; ends at the first that is cut.
#[derive(Clone, Debug)]
pub struct Extensions<'body> {
    rest: &'body [u8],
}

/// One extension (draft 3.2.1, table 5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extension<'body> {
    /// HSREQ: what the initiator wants.
    Request(Capabilities),
    /// HSRSP: what was settled.
    Response(Capabilities),
    /// KMREQ: key material.
    KeyRequest(&'body [u8]),
    /// KMRSP: the same again, or one word with an error.
    KeyResponse(&'body [u8]),
    /// Stream id.
    StreamId(String),
    /// Congestion control: `live` or `file`.
    Congestion(String),
    /// Packet filter's configuration.
    Filter(String),
    /// Group membership.
    Group(Group),
    /// Something else.
    Unknown(u16),
}

/// HSREQ and HSRSP (draft 3.2.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// As 0x010505 for 1.5.5.
    pub version: u32,
    /// See [`flags`].
    pub flags: u32,
    /// With what latency the sender of this receives.
    pub receive_latency: Duration,
    /// With what latency it wants the peer to receive.
    pub send_latency: Duration,
}

/// Group membership (draft 3.2.1.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// Of the peer's group.
    pub id: u32,
    /// [`GROUP_BROADCAST`] or [`GROUP_BACKUP`].
    pub kind: u8,
    /// 1: members are kept in step by message numbers, which libsrt does not do.
    pub flags: u8,
    /// Of this member; higher is preferred.
    pub weight: u16,
}

impl<'body> Iterator for Extensions<'body> {
    type Item = Result<Extension<'body>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let rest = std::mem::take(&mut self.rest);
        let Some(first) = word(rest, 0) else { return Some(Err(Malformed::Short)) };
        let bytes = (first & 0xffff) as usize * 4;
        let Some(content) = rest.get(4..4 + bytes) else { return Some(Err(Malformed::Short)) };
        self.rest = &rest[4 + bytes..];
        Some(Extension::parse((first >> 16) as u16, content))
    }
}

impl<'body> Extension<'body> {
    fn parse(kind: u16, content: &'body [u8]) -> Result<Self, Malformed> {
        Ok(match kind {
            HSREQ => Self::Request(Capabilities::parse(content)?),
            HSRSP => Self::Response(Capabilities::parse(content)?),
            KMREQ => Self::KeyRequest(content),
            KMRSP => Self::KeyResponse(content),
            SID => Self::StreamId(text(content)?),
            CONGESTION_CONTROL => Self::Congestion(text(content)?),
            FILTER => Self::Filter(text(content)?),
            GROUP => Self::Group(Group::parse(content)?),
            _ => Self::Unknown(kind),
        })
    }

    /// Appends it as it goes on the wire.
    pub fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        push(out, 0);
        let kind = match self {
            Self::Request(capabilities) => capabilities.write(out, HSREQ),
            Self::Response(capabilities) => capabilities.write(out, HSRSP),
            Self::KeyRequest(material) => write_bytes(out, material, KMREQ),
            Self::KeyResponse(material) => write_bytes(out, material, KMRSP),
            Self::StreamId(text) => write_text(out, text, SID),
            Self::Congestion(text) => write_text(out, text, CONGESTION_CONTROL),
            Self::Filter(text) => write_text(out, text, FILTER),
            Self::Group(group) => group.write(out),
            Self::Unknown(kind) => *kind,
        };
        let words = (out.len() - start - 4) / 4;
        out[start..start + 4].copy_from_slice(&((u32::from(kind) << 16) | words as u32).to_be_bytes());
    }
}

impl Capabilities {
    fn parse(content: &[u8]) -> Result<Self, Malformed> {
        let (Some(version), Some(flags), Some(latency)) = (word(content, 0), word(content, 1), word(content, 2)) else {
            return Err(Malformed::Short);
        };
        let ms = |ms: u32| Duration::from_millis(u64::from(ms & 0xffff));
        Ok(Self { version, flags, receive_latency: ms(latency >> 16), send_latency: ms(latency) })
    }

    fn write(&self, out: &mut Vec<u8>, kind: u16) -> u16 {
        let ms = |span: Duration| span.as_millis().min(0xffff) as u32;
        push(out, self.version);
        push(out, self.flags);
        push(out, (ms(self.receive_latency) << 16) | ms(self.send_latency));
        kind
    }

    /// Whether all of `flags` were announced.
    #[must_use]
    pub const fn has(&self, flags: u32) -> bool {
        self.flags & flags == flags
    }
}

impl Group {
    fn parse(content: &[u8]) -> Result<Self, Malformed> {
        let (Some(id), Some(rest)) = (word(content, 0), word(content, 1)) else { return Err(Malformed::Short) };
        Ok(Self { id, kind: (rest >> 24) as u8, flags: (rest >> 16) as u8, weight: rest as u16 })
    }

    fn write(&self, out: &mut Vec<u8>) -> u16 {
        push(out, self.id);
        push(out, (u32::from(self.kind) << 24) | (u32::from(self.flags) << 16) | u32::from(self.weight));
        GROUP
    }
}

/// Texts come with the bytes of each word turned round, filled up with zeros.
fn text(content: &[u8]) -> Result<String, Malformed> {
    if content.len() > TEXT_BYTES_MAX {
        return Err(Malformed::Contradictory);
    }
    let mut bytes: Vec<u8> = content.chunks_exact(4).flat_map(|word| word.iter().rev().copied()).collect();
    bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
    String::from_utf8(bytes).map_err(|_| Malformed::Contradictory)
}

fn write_text(out: &mut Vec<u8>, text: &str, kind: u16) -> u16 {
    for chunk in text.as_bytes()[..text.len().min(TEXT_BYTES_MAX)].chunks(4) {
        let mut word = [0; 4];
        word[..chunk.len()].copy_from_slice(chunk);
        word.reverse();
        out.extend_from_slice(&word);
    }
    kind
}

fn write_bytes(out: &mut Vec<u8>, bytes: &[u8], kind: u16) -> u16 {
    out.extend_from_slice(bytes);
    kind
}

/// Every member sends everything.
pub const GROUP_BROADCAST: u8 = 1;
/// One member sends.
pub const GROUP_BACKUP: u8 = 2;
/// What the id of a group has, and that of a socket has not (libsrt 1.5).
pub const GROUP_ID: u32 = 1 << 30;
/// Flag of a group that is kept in step by message numbers.
pub const GROUP_BY_MESSAGES: u8 = 1;

const FIXED_BYTES: usize = 48;
const CONCLUSION: u32 = 0xffff_ffff;
const AGREEMENT: u32 = 0xffff_fffe;
const HSREQ: u16 = 1;
const HSRSP: u16 = 2;
const KMREQ: u16 = 3;
const KMRSP: u16 = 4;
const SID: u16 = 5;
const CONGESTION_CONTROL: u16 = 6;
const FILTER: u16 = 7;
const GROUP: u16 = 8;
/// Longest stream id, and more than any other text needs (draft 3.2.1.3).
pub const TEXT_BYTES_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Handshake {
        Handshake {
            version: 5,
            encryption: 2,
            extension: extension::HANDSHAKE | extension::CONFIG,
            initial: Seq::new(0x7fff_fff0),
            mtu: 1_500,
            flow_window: 8_192,
            stage: Stage::Conclusion,
            socket_id: 77,
            cookie: 0xdead_beef,
            peer_ip: IpAddr::from([127, 0, 0, 1]),
        }
    }

    fn extensions() -> Vec<Extension<'static>> {
        let capabilities = Capabilities {
            version: SRT_VERSION,
            flags: 0xbf,
            receive_latency: Duration::from_millis(120),
            send_latency: Duration::from_millis(65_535),
        };
        vec![
            Extension::Request(capabilities),
            Extension::KeyRequest(&[1; 8]),
            Extension::StreamId("#!::u=anna,r=news".into()),
            Extension::Congestion("live".into()),
            Extension::Filter("fec,cols:10,rows:5".into()),
            Extension::Group(Group { id: 0x4000_0001, kind: 1, flags: 1, weight: 3 }),
        ]
    }

    fn bytes() -> Vec<u8> {
        let mut out = Vec::new();
        sample().write(&mut out);
        extensions().iter().for_each(|extension| extension.write(&mut out));
        out
    }

    #[test]
    fn a_handshake_reads_back_and_is_refused_or_shorter_wherever_it_is_cut() {
        let bytes = bytes();
        let (handshake, read) = Handshake::parse(&bytes).unwrap();
        assert_eq!(handshake, sample());
        assert_eq!(read.collect::<Result<Vec<_>, _>>(), Ok(extensions()));
        for len in 0..bytes.len() {
            match Handshake::parse(&bytes[..len]) {
                Err(error) => assert!(len < FIXED_BYTES, "{error}"),
                Ok((_, read)) => assert!(read.filter(Result::is_ok).count() < extensions().len()),
            }
        }
    }

    #[test]
    fn stream_ids_of_every_length_survive() {
        for len in [1, 2, 3, 4, 5, 509, 510, 511, 512] {
            let id = "x".repeat(len);
            let mut out = Vec::new();
            Extension::StreamId(id.clone()).write(&mut out);
            let read = Extensions { rest: &out }.next();
            assert_eq!(read, Some(Ok(Extension::StreamId(id))));
        }
    }

    #[test]
    fn stages_keep_their_numbers() {
        for number in [0, 1, 2, 1_000, 1_010, 2_999, 0x7fff_ffff, 0x8000_0000, AGREEMENT, CONCLUSION] {
            assert_eq!(Stage::of(number).number(), number);
        }
        assert_eq!(Stage::of(1_010), Stage::Rejected(Rejection::BAD_SECRET));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..400)) {
            if let Ok((handshake, extensions)) = Handshake::parse(&body) {
                let mut again = Vec::new();
                handshake.write(&mut again);
                let mut fixed = body[..FIXED_BYTES].to_vec();
                // A sequence number has 31 bits.
                fixed[8] &= 0x7f;
                prop_assert_eq!(again, fixed);
                prop_assert!(extensions.count() <= body.len() / 4);
            }
        }
    }
}
