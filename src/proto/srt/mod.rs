//! SRT, handshake version 5, live mode.
//!
//! Follows draft-sharabayko-srt-01 (cited as "draft" with its section) and, where that leaves gaps, what libsrt 1.5 does
//! on the wire. Inside the core sequence numbers never wrap: they are extended to 64 bits at the edge.
//!
//! [`Caller`], [`CallerGroup`] and [`Listener`] are the cores. All end in connections, whose halves are `send` and
//! `receive`.

pub mod access;
mod acks;
mod agree;
mod arrival;
mod caller;
#[cfg(test)]
mod capture;
#[cfg(any(test, fuzzing))]
mod check;
mod config;
mod congestion;
mod connection;
mod cookies;
pub mod crypto;
mod entropy;
pub mod error;
pub mod filter;
mod front;
mod gate;
mod group;
pub mod handshake;
mod listener;
mod missing;
pub mod packet;
mod receive;
mod rendezvous;
#[cfg(test)]
mod replay;
mod resend;
mod send;
mod slow;
mod stats;
mod tsbpd;
mod waiting;

pub use caller::Caller;
#[cfg(any(test, fuzzing))]
pub use check::{check_any_bytes, check_any_group_path, check_any_path};
pub use config::{Config, PAYLOAD_LIVE, PAYLOAD_MAX, Tuning};
pub use congestion::Bandwidth;
pub use front::{Front, Heard};
pub use gate::{Applicant, Terms};
pub use group::{CallerGroup, GroupKind, GroupMember};
pub use listener::{Listener, Service};
