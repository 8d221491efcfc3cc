//! RTMP and enhanced RTMP, server and client.
//!
//! Follows "Adobe's Real Time Messaging Protocol" 1.0 of 2012 (cited as "RTMP" with its section), AMF0 of 2007, "Adobe
//! Flash Video File Format" 10.1 (cited as "FLV"), and Veovera's "Enhanced RTMP" v2 (cited as "E-RTMP"); where these leave
//! gaps, what ffmpeg, librtmp, GStreamer and nginx-rtmp do on the wire.
//!
//! From the wire upwards: [`handshake`], [`chunk`] streams that carry messages, [`amf`] values in those that are commands.

pub mod amf;
pub mod chunk;
mod error;
pub mod handshake;

pub use error::Error;
