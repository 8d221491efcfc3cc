//! MPEG transport stream (ISO/IEC 13818-1, here "13818-1").
//!
//! [`TsPacket`] reads and writes the 188-byte packet, [`psi`] writes PAT and PMT. Nothing here changes a stream that
//! passes through the engine: only what the engine makes itself, or looks at, goes through these types.

mod packet;
pub mod psi;

pub use packet::{
    Adaptation, PCR_MODULUS_27M, ParseCounts, ParseError, Pid, SYNC_BYTE, TS_PACKET_BYTES, TsPacket, check_any_bytes,
};
