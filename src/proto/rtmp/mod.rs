//! RTMP and enhanced RTMP, server and client.
//!
//! Follows "Adobe's Real Time Messaging Protocol" 1.0 of 2012 (cited as "RTMP" with its section), AMF0 of 2007, "Adobe
//! Flash Video File Format" 10.1 (cited as "FLV"), and Veovera's "Enhanced RTMP" v2 (cited as "E-RTMP"); where these leave
//! gaps, what ffmpeg, librtmp, GStreamer and nginx-rtmp do on the wire.
//!
//! From the wire upwards: [`handshake`], [`chunk`] streams that carry messages, [`amf`] values in those that are commands,
//! [`flv`] tags in those that are audio and video, and the cores [`Server`] and [`Client`]. Both run over any [`StreamCore`](super::StreamCore) driver.

pub mod amf;
#[cfg(any(test, fuzzing))]
mod check;
pub mod chunk;
mod client;
mod config;
pub mod enhanced;
pub mod error;
pub mod flv;
pub mod handshake;
mod link;
#[cfg(test)]
pub(in crate::proto) mod replay;
mod server;
mod stats;
#[cfg(test)]
mod tests;

#[cfg(any(test, fuzzing))]
pub use check::{check_any_path, check_any_peer};
pub use chunk::{Message, kind};
pub use client::{Client, ClientMessage, Target, metadata, on_metadata, set_data_frame};
pub use config::Config;
pub use enhanced::Capabilities;
pub use error::{End, Error, Unsent};
pub use server::{Refusal, Request, Role, Server, ServerMessage};
pub use stats::Stats;
