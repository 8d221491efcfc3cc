//! EAP over the tunnel (EAPOL, IEEE 802.1X 11.3; EAP, RFC 3748 4; its method SRP, draft-ietf-pppext-eap-srp-03, as TR-06-2
//! annex D uses it with SHA-256).
//!
//! ```text
//!  0               1               2               3
//! | version       | 0 EAP, 1 start| length of what follows        |
//! | code          | identifier    | length with these four        |
//! | type          | 19: subtype   | ...
//!
//! identity       1           request: -                          response: user
//! challenge      19  1       request: name, salt, generator, N   response: A
//! server key     19  2       request: B                          response: flags (32 bits), M1
//! validator      19  3       request: flags (32 bits), M2        response: -, or since version 3 code 3, success
//! passphrase     19  16      request: -                          response: flags (8 bits), passphrase
//! ```

use super::math::Hash;
use crate::proto::rtp::ParseError;

/// One message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    /// Of EAPOL: 2 until librist 0.2.7, then 3, with 4 for the newest.
    pub(super) version: u8,
    pub(super) message: Message<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message<'a> {
    /// A client wants in.
    Start,
    /// The server asks; the client, too, for a passphrase.
    Request(u8, Request<'a>),
    Response(u8, Response<'a>),
    Success(u8),
    Failure(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request<'a> {
    Identity,
    Challenge {
        salt: &'a [u8],
        /// A group other than the usual one is asked for.
        is_other_group: bool,
    },
    ServerKey(&'a [u8]),
    ServerProof {
        /// What the server sends is encrypted with the key that both agreed on.
        is_keyed: bool,
        proof: Hash,
    },
    Passphrase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Response<'a> {
    Identity(&'a [u8]),
    ClientKey(&'a [u8]),
    ClientProof {
        /// What the client sends is encrypted with the key that both agreed on.
        is_keyed: bool,
        proof: Hash,
    },
    Validated,
    /// What goes by is encrypted with the key that both agreed on.
    SessionKey,
    /// It is encrypted with this, wrapped by AES-CTR under the key that both agreed on.
    Passphrase {
        wrapped: &'a [u8],
        is_long_key: bool,
    },
}

impl<'a> Frame<'a> {
    /// Reads what follows the tunnel's header. Bytes behind the message do not count.
    ///
    /// # Errors
    /// Shorter than it says, or nothing that belongs here.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let (&[version, kind, l0, l1], rest) = bytes.split_first_chunk::<4>().ok_or(ParseError::Truncated)?;
        if kind == START {
            // Librist counts the header as well here.
            return Ok(Self { version, message: Message::Start });
        }
        if kind != EAP {
            return Err(ParseError::Version);
        }
        let eap = rest.get(..usize::from(u16::from_be_bytes([l0, l1]))).ok_or(ParseError::Truncated)?;
        let (&[code, identifier, l0, l1], rest) = eap.split_first_chunk::<4>().ok_or(ParseError::Truncated)?;
        let length = usize::from(u16::from_be_bytes([l0, l1])).checked_sub(4).ok_or(ParseError::Truncated)?;
        let body = rest.get(..length).ok_or(ParseError::Truncated)?;
        let message = match code {
            REQUEST => Message::Request(identifier, Request::parse(body)?),
            RESPONSE => Message::Response(identifier, Response::parse(body)?),
            SUCCESS => Message::Success(identifier),
            FAILURE => Message::Failure(identifier),
            _ => return Err(ParseError::Version),
        };
        Ok(Self { version, message })
    }

    /// The message as it follows the tunnel's header.
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let (code, identifier, parts): (u8, u8, [&[u8]; 4]) = match &self.message {
            Message::Start => return vec![self.version, START, 0, 0],
            Message::Success(identifier) => (SUCCESS, *identifier, [&[]; 4]),
            Message::Failure(identifier) => (FAILURE, *identifier, [&[]; 4]),
            Message::Request(identifier, Request::Challenge { salt, .. }) => {
                let [l0, l1] = (salt.len() as u16).to_be_bytes();
                return self.framed(REQUEST, *identifier, &[&[SRP, CHALLENGE, 0, 0, l0, l1], salt, &[0, 0]]);
            }
            Message::Request(identifier, request) => (REQUEST, *identifier, request.parts()),
            Message::Response(identifier, response) => (RESPONSE, *identifier, response.parts()),
        };
        self.framed(code, identifier, &parts)
    }

    fn framed(self, code: u8, identifier: u8, parts: &[&[u8]]) -> Vec<u8> {
        let length = 4 + parts.iter().map(|part| part.len()).sum::<usize>();
        let [l0, l1] = (length as u16).to_be_bytes();
        let mut bytes = vec![self.version, EAP, l0, l1, code, identifier, l0, l1];
        parts.iter().for_each(|part| bytes.extend(*part));
        bytes
    }
}

impl<'a> Request<'a> {
    fn parse(body: &'a [u8]) -> Result<Self, ParseError> {
        match *body {
            [IDENTITY, ..] => Ok(Self::Identity),
            [SRP, CHALLENGE, ref rest @ ..] => {
                let (_name, rest) = counted(rest)?;
                let (salt, rest) = counted(rest)?;
                let (generator, _modulus) = counted(rest)?;
                Ok(Self::Challenge { salt, is_other_group: !generator.is_empty() })
            }
            [SRP, SERVER_KEY, ref key @ ..] => Ok(Self::ServerKey(key)),
            [SRP, VALIDATOR, ref rest @ ..] => {
                let (is_keyed, proof) = proof(rest)?;
                Ok(Self::ServerProof { is_keyed, proof })
            }
            [SRP, PASSPHRASE, ..] => Ok(Self::Passphrase),
            [] | [SRP] => Err(ParseError::Truncated),
            _ => Err(ParseError::Version),
        }
    }

    /// What it consists of; a challenge has more parts.
    fn parts(&self) -> [&[u8]; 4] {
        match self {
            Self::Identity => [&[IDENTITY], &[], &[], &[]],
            Self::Challenge { .. } => [&[]; 4],
            Self::ServerKey(key) => [&[SRP, SERVER_KEY], key, &[], &[]],
            Self::ServerProof { is_keyed, proof } => [&[SRP, VALIDATOR], flags(*is_keyed), proof, &[]],
            Self::Passphrase => [&[SRP, PASSPHRASE], &[], &[], &[]],
        }
    }
}

impl<'a> Response<'a> {
    fn parse(body: &'a [u8]) -> Result<Self, ParseError> {
        match *body {
            [IDENTITY, ref user @ ..] => Ok(Self::Identity(user)),
            [SRP, CHALLENGE, ref key @ ..] => Ok(Self::ClientKey(key)),
            [SRP, SERVER_KEY, ref rest @ ..] => {
                let (is_keyed, proof) = proof(rest)?;
                Ok(Self::ClientProof { is_keyed, proof })
            }
            [SRP, VALIDATOR, ..] => Ok(Self::Validated),
            [SRP, PASSPHRASE, flags, ref wrapped @ ..] if flags & SESSION_KEY == 0 => {
                Ok(Self::Passphrase { wrapped, is_long_key: flags & LONG_KEY != 0 })
            }
            [SRP, PASSPHRASE, ..] if body.len() > 2 => Ok(Self::SessionKey),
            [] | [SRP] | [SRP, PASSPHRASE] => Err(ParseError::Truncated),
            _ => Err(ParseError::Version),
        }
    }

    fn parts(&self) -> [&[u8]; 4] {
        match self {
            Self::Identity(user) => [&[IDENTITY], user, &[], &[]],
            Self::ClientKey(key) => [&[SRP, CHALLENGE], key, &[], &[]],
            Self::ClientProof { is_keyed, proof } => [&[SRP, SERVER_KEY], flags(*is_keyed), proof, &[]],
            Self::Validated => [&[SRP, VALIDATOR], &[], &[], &[]],
            Self::SessionKey => [&[SRP, PASSPHRASE], &[SESSION_KEY], &[], &[]],
            Self::Passphrase { wrapped, is_long_key: true } => [&[SRP, PASSPHRASE], &[LONG_KEY], wrapped, &[]],
            Self::Passphrase { wrapped, is_long_key: false } => [&[SRP, PASSPHRASE], &[0], wrapped, &[]],
        }
    }
}

/// Whether a datagram is a message without any tunnel: so librist since 0.2.8 sends what it repeats.
pub(in super::super) fn is_bare(datagram: &[u8]) -> bool {
    matches!(*datagram, [2..=4, EAP, l0, l1, REQUEST..=FAILURE, _, e0, e1, ..]
        if [l0, l1] == [e0, e1] && usize::from(u16::from_be_bytes([l0, l1])) + 4 == datagram.len())
}

/// A field that says its length, and what follows it.
fn counted(bytes: &[u8]) -> Result<(&[u8], &[u8]), ParseError> {
    let (&[l0, l1], rest) = bytes.split_first_chunk::<2>().ok_or(ParseError::Truncated)?;
    rest.split_at_checked(usize::from(u16::from_be_bytes([l0, l1]))).ok_or(ParseError::Truncated)
}

fn proof(bytes: &[u8]) -> Result<(bool, Hash), ParseError> {
    let (flags, rest) = bytes.split_first_chunk::<4>().ok_or(ParseError::Truncated)?;
    let (proof, _) = rest.split_first_chunk::<32>().ok_or(ParseError::Truncated)?;
    Ok((flags[3] & KEYED != 0, *proof))
}

const fn flags(is_keyed: bool) -> &'static [u8] {
    if is_keyed { &[0, 0, 0, KEYED] } else { &[0; 4] }
}

const EAP: u8 = 0;
const START: u8 = 1;

const REQUEST: u8 = 1;
const RESPONSE: u8 = 2;
const SUCCESS: u8 = 3;
const FAILURE: u8 = 4;

const IDENTITY: u8 = 1;
const SRP: u8 = 19;

const CHALLENGE: u8 = 1;
const SERVER_KEY: u8 = 2;
const VALIDATOR: u8 = 3;
const PASSPHRASE: u8 = 0x10;

const KEYED: u8 = 1;
const SESSION_KEY: u8 = 0x80;
const LONG_KEY: u8 = 0x40;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::capture::hex;
    use super::*;

    fn is_read(digits: &str, message: Message<'_>, version: u8) {
        let bytes = hex(digits);
        assert_eq!(Frame::parse(&bytes), Ok(Frame { version, message }));
        assert_eq!(Frame { version, message }.to_bytes(), bytes, "{message:?}");
    }

    #[test]
    fn messages_of_librist_are_read_and_written_alike() {
        let proof = [0x41; 32];
        let digits = "41".repeat(32);
        is_read("02010000", Message::Start, 2);
        is_read("02000005013d000501", Message::Request(0x3d, Request::Identity), 2);
        is_read("0200000a023d000a01616c696365", Message::Response(0x3d, Response::Identity(b"alice")), 2);
        let challenge = Request::Challenge { salt: &[7; 32], is_other_group: false };
        let text = format!("0200002c013e002c1301000000 20{}0000", "07".repeat(32));
        is_read(&text, Message::Request(0x3e, challenge), 2);
        is_read("03000008024200081301 6b02", Message::Response(0x42, Response::ClientKey(&[0x6b, 2])), 3);
        is_read("03000008014300081302 2fd2", Message::Request(0x43, Request::ServerKey(&[0x2f, 0xd2])), 3);
        let of_client = Response::ClientProof { is_keyed: false, proof };
        is_read(&format!("0300002a0243002a130200000000{digits}"), Message::Response(0x43, of_client), 3);
        let of_server = Request::ServerProof { is_keyed: true, proof };
        is_read(&format!("0300002a0144002a130300000001{digits}"), Message::Request(0x44, of_server), 3);
        is_read("020000060240000 61303", Message::Response(0x40, Response::Validated), 2);
        is_read("0200000403410004", Message::Success(0x41), 2);
        is_read("0300000601c100061310", Message::Request(0xc1, Request::Passphrase), 3);
        is_read("0300000702c10007131080", Message::Response(0xc1, Response::SessionKey), 3);
        let wrapped = Response::Passphrase { wrapped: &[1, 2], is_long_key: true };
        is_read("0300000902c100091310400102", Message::Response(0xc1, wrapped), 3);
        // What librist does in its own way.
        assert_eq!(Frame::parse(&hex("03010004")).unwrap().message, Message::Start);
        assert_eq!(Frame::parse(&hex("03000006034400060000")).unwrap().message, Message::Success(0x44));
    }

    #[test]
    fn another_group_is_seen() {
        let frame = hex("03000011013e00111301 0000 000109 000102 abcdef");
        let Message::Request(_, Request::Challenge { salt, is_other_group }) = Frame::parse(&frame).unwrap().message
        else {
            unreachable!("a challenge");
        };
        assert_eq!((salt, is_other_group), (&[9][..], true));
    }

    #[test]
    fn every_truncation_is_refused() {
        let proof = [5; 32];
        let salt = [1; 32];
        for message in [
            Message::Request(1, Request::Challenge { salt: &salt, is_other_group: false }),
            Message::Request(1, Request::ServerProof { is_keyed: true, proof }),
            Message::Response(1, Response::ClientProof { is_keyed: true, proof }),
            Message::Response(1, Response::SessionKey),
            Message::Success(1),
        ] {
            let bytes = Frame { version: 3, message }.to_bytes();
            for len in 0..bytes.len() {
                assert_eq!(Frame::parse(&bytes[..len]), Err(ParseError::Truncated), "{message:?} {len}");
                // The same with lengths that fit.
                if len >= 8 {
                    let mut short = bytes[..len].to_vec();
                    short[3] = (len - 4) as u8;
                    short[7] = (len - 4) as u8;
                    let is_whole = matches!(message, Message::Success(_));
                    assert_eq!(Frame::parse(&short).is_ok(), is_whole, "{message:?} {len}");
                }
            }
        }
    }

    #[test]
    fn only_messages_without_tunnel_are_taken_for_such() {
        assert!(is_bare(&hex("0300000501410005 01")));
        // Tunnel headers of every kind.
        for other in ["0000888e02010000", "1010888e0000000103000005 0141000501", "000088b6800007b180c80006", "03"] {
            assert!(!is_bare(&hex(other)), "{other}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_back_alike(bytes in prop::collection::vec(any::<u8>(), 0..80), kind in 0..5_usize) {
            // Most of what is drawn would be refused by its first bytes.
            let head = [[1, 1, 0], [1, 19, 1], [2, 19, 2], [2, 19, 16], [3, 0, 0]][kind];
            let len = (bytes.len() + 6) as u8;
            let mut frame = vec![3, 0, 0, len, head[0], 9, 0, len, head[1], head[2]];
            frame.extend(&bytes);
            super::super::check::check_frame(&frame);
            super::super::check::check_frame(&bytes);
        }
    }
}
