//! Between what RTMP carries and transport streams, as cores without IO.
//!
//! It lies beside the two protocols, as neither shall know of the other. [`ToTs`] makes a transport stream of the messages
//! of a publisher, [`FromTs`] makes access units as FLV has them of a transport stream, and a [`Feed`] passes those on to
//! one peer, so that it can start and go on after a gap.
//!
//! ```text
//!  RTMP messages ─► flv::Reader ─► ToTs: headers become formats, access units keep their times ─► Multiplexer ─► packets
//!
//!  packets ─► Demux ─► FromTs: start codes become lengths, parameter sets and ADTS become headers ─► Feed ─► messages
//! ```
//!
//! The three kinds of access units stay apart, as they are not the same: that of a demultiplexer has 33 bits of time or
//! none, that of a multiplexer borrows its bytes and leaves the codec to its track, and that of FLV may be a header. So
//! do the two kinds of codecs: only seven are common to both, and each side's list says what that side can read.

mod av1;
#[cfg(any(test, fuzzing))]
mod check;
mod clock;
mod feed;
mod frames;
mod from_ts;
mod metadata;
mod prelude;
mod record;
mod shape;
mod silence;
#[cfg(test)]
mod tests;
mod to_ts;
mod uncarried;

#[cfg(any(test, fuzzing))]
pub use check::check_any_bridge;
pub use feed::{Feed, FeedStats, Pictures, Takes};
pub use from_ts::{FromTs, FromTsStats};
pub use prelude::Prelude;
pub use silence::Silence;
pub use to_ts::{Interrupted, QUIET_MIN, ToTs, ToTsStats};
pub use uncarried::{UNCARRIED_MAX, Uncarried};
