//! Forward error correction of RTP by rows and columns (SMPTE ST 2022-1, which is Pro-MPEG Code of Practice 3 release 2).
//!
//! Media packets lie in a matrix of L columns and D rows, row by row. Beside the media go FEC packets, each the XOR of one
//! column (to the media's port plus 2) or of one row (plus 4). Of each group one lost packet can be rebuilt, and that may
//! make another group whole but for one. [`Encoder`] makes FEC packets, [`Decoder`] rebuilds media with them.
//!
//! ```text
//!            L = 4
//!        0   1   2   3   -> row, right behind its last packet
//! D = 3  4   5   6   7   -> row
//!        8   9  10  11   -> row
//!        |   |   |   |
//!        v   v   v   v   columns, one for each D packets of the next matrix, so that they make no burst
//! ```
//!
//! The standard's text is not public: what is here follows the packets of ffmpeg and GStreamer, which are kept as test
//! data, and the limits that makers of equipment publish.

#[cfg(any(test, fuzzing))]
mod check;
mod decoder;
mod encoder;
mod header;
mod matrix;
#[cfg(test)]
mod tests;

#[cfg(any(test, fuzzing))]
pub use check::check_any_bytes;
pub use decoder::{Decoder, Recovered, Stats};
pub use encoder::{Encoder, FecPacket};
pub use header::{Direction, FecHeader, HEADER_BYTES, MATRIX_PACKETS_MAX, ParseError, Recovery};
pub use matrix::{Matrix, MatrixError};

/// Adds `from` to `into` as far as both reach.
fn xor(into: &mut [u8], from: &[u8]) {
    into.iter_mut().zip(from).for_each(|(into, from)| *into ^= *from);
}
