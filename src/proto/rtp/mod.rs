//! RTP and RTCP (RFC 3550), as they carry a transport stream (RFC 2250, SMPTE ST 2022-2).
//!
//! [`RtpPacket`] and [`Header`] read and write the media, [`rtcp`] the reports about it.

mod error;
mod header;
pub mod rtcp;

pub use error::ParseError;
pub use header::{HEADER_BYTES, Header, RtpPacket, check_any_bytes};
