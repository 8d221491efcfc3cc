//! What the packets show: streams, pictures, sound.
//!
//! A transport stream's packets go through [`Demux`](crate::proto::mpegts::demux::Demux), which gives access units;
//! [`headers`] reads from those what a
//! player would be told (codec, size, rates), without decoding anything. All of it works on copies, is bounded, and never
//! runs where packets are forwarded.
//!
//! Documents: ISO/IEC 13818-1 (transport stream), 13818-2 and 11172-2 (MPEG video), 14496-10 (H.264), 23008-2 (HEVC),
//! 14496-3 and 13818-7 (AAC), 11172-3 and 13818-3 (MPEG audio), ETSI TS 102 366 (AC-3), ETSI EN 300 468 (descriptors).

mod ac3;
mod annexb;
#[cfg(feature = "av1")]
mod av1;
mod bits;
pub mod boundary;
pub mod decode;
pub mod frame;
mod grey;
pub mod headers;
mod loudness;
mod mpeg2;
pub mod pictures;
pub mod quality;
mod s302m;
pub mod sound;
pub mod thumbnail;
mod true_peak;
pub mod watch;

pub use decode::{Decoder, KeyFrames};
pub use frame::Frame;
pub use headers::Headers;
pub use pictures::Pictures;
pub use sound::SoundDecoder;
pub use thumbnail::Thumbnail;
