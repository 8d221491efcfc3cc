//! SRT, handshake version 5, live mode.
//!
//! Follows draft-sharabayko-srt-01 (cited as "draft" with its section) and, where that leaves gaps, what libsrt 1.5 does
//! on the wire. Inside the core sequence numbers never wrap: they are extended to 64 bits at the edge.

mod acks;
mod arrival;
mod congestion;
pub mod error;
pub mod handshake;
mod missing;
pub mod packet;
mod receive;
mod resend;
mod send;
mod tsbpd;
