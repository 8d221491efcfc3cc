//! MPEG transport stream (ISO/IEC 13818-1, here "13818-1"; repetition limits from ETSI TR 101 290).
//!
//! [`TsPacket`] reads and writes the 188-byte packet, [`psi`] writes PAT and PMT, [`mux`] makes streams of access units,
//! [`generator`] and [`picture`] are constant-rate test streams as cores without sockets. Nothing here changes a stream that passes through the engine: only what the engine
//! makes itself, or looks at, goes through these types.

pub mod generator;
pub mod mux;
mod packet;
pub mod picture;
pub mod psi;

pub use generator::Generator;
pub use packet::{
    Adaptation, PCR_MODULUS_27M, ParseCounts, ParseError, Pid, SYNC_BYTE, TS_PACKET_BYTES, TsPacket, check_any_bytes,
};
pub use picture::TestPicture;
