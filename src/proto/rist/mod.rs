//! RIST: Reliable Internet Stream Transport, Simple and Main profile.
//!
//! Follows VSF TR-06-1:2018 (Simple; with the echoes of the 2020 edition) and TR-06-2:2020 (Main; with the tunnel
//! versions 1 and 2 that later editions have, as librist 0.2.7 and 0.2.11 send them). Media is RTP (RFC 3550) with a
//! transport stream (RFC 2250); what is missing is asked for by RTCP and sent again.
//!
//! ```text
//! Simple   sender                    receiver            Main   either side calls the other's one port;
//!          any port -- RTP -----> P                             each datagram is GRE, perhaps encrypted, with
//!          any port -- RTCP ----> P + 1                         virtual ports for RTP and RTCP inside
//!          same port <- RTCP ---- P + 1
//! ```
//!
//! [`Sender`] and [`Receiver`] are the cores. Not there: the Advanced profile, DTLS, whole IP datagrams through the tunnel, and
//! receiving several paths on ports of their own: on one port they merge by themselves.

#[cfg(test)]
mod capture;
#[cfg(any(test, fuzzing))]
mod check;
mod config;
pub mod crypto;
pub mod error;
pub mod gre;
mod history;
pub mod npd;
mod playout;
mod receiver;
#[cfg(test)]
mod replay;
mod round_trip;
pub mod rtcp;
mod sender;
pub mod srp;
mod stats;
mod window;
mod wire;

#[cfg(any(test, fuzzing))]
pub use check::{check_any_bytes, check_any_path};
pub use config::{Config, Profile};
pub use receiver::Receiver;
pub use sender::{Leg, Sender};
