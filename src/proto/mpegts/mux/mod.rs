//! Our own multiplexer: access units in, a transport stream out (13818-1; repetition limits from TR 101 290 and ETSI
//! TS 101 154).
//!
//! One program, up to 16 tracks. At a varying rate everything leaves as soon as it comes; at a constant one, the rate is
//! exact, null packets fill it up, and PCR is right to the tick. In both, tables and PCR follow timers and not the
//! pictures:
//!
//! | PID | content | repeated every |
//! |---|---|---|
//! | 0x0000, 0x1000 | PAT, PMT | 80 ms, and at once when tracks change |
//! | 0x0011 | SDT | 500 ms |
//! | 0x0100 and up | tracks, PCR on the first picture's, else on the first | 25 ms |
//!
//! ```text
//!  access unit ─► Format: start codes, delimiter, parameter sets, ADTS ─► Queue of PES packets ──┐
//!                                                                                             ▼
//!  now ─► Clock ─► Timetable: PCR and tables due ──────────────────────────────────► TS packets
//! ```

mod av1;
#[cfg(any(test, fuzzing))]
mod check;
mod clock;
mod format;
mod multiplexer;
mod offsets;
pub(in crate::proto::mpegts) mod pace;
mod pes;
mod queue;
mod slew;
mod snap;
mod stats;
pub(in crate::proto::mpegts) mod tables;
#[cfg(test)]
mod tests;
pub(in crate::proto::mpegts) mod timetable;
mod track;
mod video;

#[cfg(any(test, fuzzing))]
pub use check::check_any_units;
pub use format::{Format, FormatError, PARAMETER_SETS_MAX};
pub use multiplexer::{
    AccessUnit, Config, ConfigError, DELAY_MAX, LATE_MAX, Multiplexer, RATE_MAX, RATE_MIN, TRACKS_MAX, TooManyTracks,
    TrackId, UNIT_BYTES_MAX, UNITS_MAX, WAITING_BYTES_MAX,
};
pub use stats::Stats;
pub use tables::{NAME_BYTES_MAX, Names};
