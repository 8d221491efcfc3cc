//! The packet filter `fec`: parity packets of rows and columns, from which lost packets are rebuilt without asking for
//! them again.
//!
//! The draft has no packet filter. This follows libsrt 1.5: its document "SRT Packet Filtering & FEC", and where that
//! leaves gaps or differs, what libsrt 1.5.1 and 1.5.5 do on the wire. Packets lie in a matrix, row by row from the first
//! packet of the connection on. Each row and each column is a group, and behind a group's last packet goes one more, a
//! repair: the XOR of the timestamps, keys, lengths and payloads of its packets, as they travel, which is encrypted. Of
//! each group one lost packet can be rebuilt, and that may make another group whole but for one.
//!
//! ```text
//!   cols:3,rows:2, even          staircase: each column starts a row lower, until there are no more rows
//!    0  1  2   row 0              A  -  C   row 0
//!    3  4  5   row 1              A  B  C   row 1
//!    6  7  8   row 2              D  B  F   row 2
//! ```
//!
//! A repair is a data packet (draft 3.1) with message number zero, the sequence number of the last packet of its group
//! and the timestamps' XOR for a timestamp. Its payload:
//!
//! ```text
//! | column, or -1 |   XOR of KK   |        XOR of lengths         |
//! |       XOR of payloads, the shorter ones filled up with zeros  |
//! ```

mod config;
mod decode;
mod encode;
mod parity;
mod shape;
#[cfg(test)]
mod tests;

pub(super) use config::{Agreed, Settled, answer, conclude};
pub use config::{Arq, Config, ConfigError, Layout};
pub(super) use decode::{Decoder, Rebuilt, Stats};
pub(super) use encode::{Encoder, Repair};

use super::packet::KeyFlag;
use crate::bus::Pool;

/// Both directions of one connection.
#[derive(Debug)]
pub(super) struct Filter {
    pub(super) arq: Arq,
    pub(super) encoder: Encoder,
    pub(super) decoder: Decoder,
}

impl Filter {
    /// For a connection whose first packets, sent and received, have the extended numbers `first` and whose payloads have
    /// at most `payload_max` bytes, those of repairs included.
    pub(super) fn new(settled: &Settled, first: (u64, u64), payload_max: usize, pool: Pool) -> Self {
        let payload_max = payload_max.saturating_sub(HEADER_BYTES);
        Self {
            arq: settled.arq,
            encoder: Encoder::new(settled, first.0, payload_max),
            decoder: Decoder::new(settled, first.1, payload_max, pool),
        }
    }
}

/// A data packet as it travels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member<'payload> {
    /// Extended.
    pub(super) sequence: u64,
    /// Message number, 26 bits and not zero.
    pub(super) message_number: u32,
    /// Whether messages shall be kept in order (O).
    pub(super) in_order: bool,
    pub(super) timestamp: u32,
    pub(super) key: KeyFlag,
    pub(super) payload: &'payload [u8],
}

/// What a repair's payload begins with, and so what all other payloads must be shorter by.
pub(super) const HEADER_BYTES: usize = 4;

/// No bytes may make a reader of configurations or repairs panic; what is read as a configuration reads back, and nothing
/// is rebuilt from a repair alone.
#[cfg(any(test, fuzzing))]
pub(super) fn check_any_bytes(bytes: &[u8]) {
    let text = std::str::from_utf8(bytes).ok();
    if let Some(config) = text.and_then(|text| text.parse::<Config>().ok()) {
        assert_eq!(config.to_string().parse(), Ok(config));
    }
    let _ = (answer(None, text), conclude(None, text));
    let config = Config { columns: Some(2), rows: Some(2), ..Config::default() };
    let Ok(Some(agreed)) = answer(None, Some(&config.to_string())) else { return };
    let pool = Pool::new(crate::bus::PoolLimits { small_max: 128, large_max: 0 });
    let mut decoder = Decoder::new(&agreed.settled, 0, bytes.len(), pool);
    for place in 0..8 {
        decoder.handle_repair(crate::units::Time::ZERO, place, 0, bytes);
    }
    assert!(decoder.poll_rebuilt().is_none(), "rebuilt from nothing");
}
