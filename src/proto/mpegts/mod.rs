//! MPEG transport stream (ISO/IEC 13818-1, here "13818-1"; tables of DVB from EN 300 468, limits from ETSI TR 101 290).
//!
//! [`TsPacket`] reads and writes the 188-byte packet, [`psi`] writes PAT and PMT, [`mux`] makes streams of access units,
//! [`generator`] and [`picture`] are constant-rate test streams as cores without sockets, [`faults`] spoils them. [`Scanner`] looks at a stream
//! that passes by: [`Sync`] finds the packets, [`section`] and [`table`] read the tables that make up [`Programs`],
//! [`PesHeader`] and [`PcrMeter`] the times; [`analysis`] says what is wrong, and [`entry`] where a decoder may begin. Nothing here changes a stream that passes
//! through the engine: only what the engine makes itself, or looks at, goes through these types.

pub mod analysis;
#[cfg(any(test, fuzzing))]
mod check;
mod decoder_buffers;
pub mod demux;
pub mod entry;
pub mod faults;
pub mod generator;
pub mod mux;
pub(crate) mod opus;
mod packet;
mod pcr;
mod pes;
pub mod picture;
mod pid_set;
mod programs;
pub mod psi;
#[cfg(test)]
mod references;
mod scanner;
pub mod scte35;
pub mod section;
mod stream;
mod sync;
pub mod table;
#[cfg(test)]
mod tests;
mod text;

#[cfg(any(test, fuzzing))]
pub use check::{check_any_stream, check_any_tables, check_any_unit};
pub use generator::Generator;
pub use packet::{
    Adaptation, PCR_MODULUS_27M, ParseCounts, ParseError, Pid, SYNC_BYTE, TS_PACKET_BYTES, TsPacket, check_any_bytes,
};
pub use pcr::{ACCURACY_NS, POINTS_MAX, PcrMeter, PcrReading};
pub use pes::{PesError, PesHeader};
pub use picture::TestPicture;
pub use programs::{PROGRAMS_MAX, Program, ProgramMap, Programs, ProgramsStats, STREAMS_MAX, Service};
pub use scanner::{Observer, PidStats, Scanner, ScannerStats, Seen};
pub use stream::{Media, Stream, format_identifier};
pub use sync::{Found, Sync, SyncStats};
pub use text::read_text;
