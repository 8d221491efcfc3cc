//! What other programs sent each other, for tests; `tests/data/README.md` says what there is.

use std::path::Path;

use crate::proto::Port;
use crate::units::Time;

/// A datagram of a recorded session.
#[derive(Clone, Debug)]
pub(super) struct Recorded {
    /// When it passed; the first one of a session at zero.
    pub(super) at: Time,
    pub(super) from: Side,
    pub(super) port: Port,
    pub(super) bytes: Vec<u8>,
}

/// Who sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Sender,
    Receiver,
}

/// Reads `tests/data/rist/NAME.bin`. A record is a time in microseconds (32 bits), side and port (8 bits), the length of
/// the datagram and of what is kept of it (16 bits each), all big-endian, and that; the rest is its last byte again.
pub(super) fn read(name: &str) -> Vec<Recorded> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/rist").join(name).with_extension("bin");
    let file = std::fs::read(path).unwrap();
    let (mut rest, mut all) = (&file[..], Vec::new());
    while let Some((head, after)) = rest.split_first_chunk::<9>() {
        let us = u64::from(u32::from_be_bytes(head[..4].try_into().unwrap()));
        let from = if head[4] & 1 == 0 { Side::Sender } else { Side::Receiver };
        let port = if head[4] & 2 == 0 { Port::Media } else { Port::Control };
        let [len, kept] = [5, 7].map(|at| usize::from(u16::from_be_bytes([head[at], head[at + 1]])));
        let (datagram, after) = after.split_at(kept);
        let mut bytes = datagram.to_vec();
        bytes.resize(len, datagram[kept - 1]);
        all.push(Recorded { at: Time::from_ns(us * 1_000), from, port, bytes });
        rest = after;
    }
    assert!(rest.is_empty(), "{name} is cut");
    all
}

/// Bytes from their digits; blanks do not count.
pub(super) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter_map(|digit| Some(digit.to_digit(16)? as u8)).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}
