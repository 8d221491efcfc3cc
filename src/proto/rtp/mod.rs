//! RTP and RTCP (RFC 3550), as they carry a transport stream (RFC 2250, SMPTE ST 2022-2).
//!
//! [`Receiver`] and [`Sender`] are the cores, [`Leg`] has what a sender made go one
//! of several ways, and [`Over`] has RTP carried by another core. Below them, [`RtpPacket`] and
//! [`Header`] read and write the media, [`rtcp`] the reports about it, and [`Reorder`] puts packets in order.

mod config;
mod error;
mod feedback;
mod header;
mod leg;
pub(super) mod ntp;
mod numbering;
mod over;
pub(super) mod random;
mod receiver;
mod reorder;
pub mod rtcp;
mod sender;
pub(super) mod source;
#[cfg(test)]
mod tests;

pub use config::{HeaderMode, PAYLOAD_TYPE_MP2T, PayloadTypes, ReceiverConfig, SenderConfig};
pub use error::ParseError;
pub(in crate::proto) use header::VERSION;
pub use header::{HEADER_BYTES, Header, RtpPacket, check_any_bytes};
pub use leg::Leg;
#[cfg(feature = "rist")]
pub(super) use numbering::{Numbering, ticks_at};
pub use over::Over;
pub use receiver::Receiver;
pub use reorder::{Insertion, Reorder};
pub use sender::Sender;
