//! What a RIST sender and receiver shall do.

use std::time::Duration;

use super::crypto::{KeyLength, Secret};
use super::rtcp::RequestFormat;
use crate::proto::rtp::HeaderMode;
use crate::units::Bitrate;

/// Settings of one end. Both ends use most of them alike; what only one needs says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Which profile.
    pub profile: Profile,
    /// How long a receiver holds each packet, so that what is missing can be asked for again; a sender keeps packets for
    /// as long. Default 1 s (TR-06-1, and librist).
    pub buffer: Duration,
    /// How long a receiver waits for a packet that may only be late before it asks for it. Default 25 ms
    /// (TR-06-1:2020).
    pub reorder: Duration,
    /// Shortest and longest round trip that is believed. Default 5 ms and 500 ms, as librist has it.
    pub round_trip: (Duration, Duration),
    /// How a receiver asks for packets.
    pub requests: RequestFormat,
    /// Whether a sender numbers and stamps its packets itself, the default, or as they were when they came: then what it
    /// sends can be merged with other ways that they took.
    pub header: HeaderMode,
    /// What a sender may send in all, media and packets sent again; media itself is never held back. `None`, the
    /// default: as much again as the media takes.
    pub bandwidth: Option<Bitrate>,
    /// The canonical name in reports (RFC 3550 6.5.1), 1 to 128 bytes.
    pub cname: String,
    /// A peer that has been silent for so long is lost. Default 2 s.
    pub session_timeout: Duration,
    /// Time between two keep-alives of the Main profile, one to ten seconds (TR-06-2 5.4.2). Default 1 s.
    pub keep_alive: Duration,
    /// Encrypts the Main profile.
    pub secret: Option<Secret>,
    /// Length of the key that a sender, or a receiver with its reports, uses; what the peer has is read from its packets.
    pub key_length: KeyLength,
    /// Packets after which a new key is used. Default 2^31, half of those that one may serve.
    pub key_rotation: u32,
    /// Whether a sender of the Main profile leaves out null packets of a transport stream. Receivers always put them
    /// back.
    pub null_packet_deletion: bool,
    /// Virtual port of the media at the receiver, even; its RTCP has the next one. Default 1968, as librist.
    pub virtual_port: u16,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            profile: Profile::Main,
            buffer: Duration::from_secs(1),
            reorder: Duration::from_millis(25),
            round_trip: (Duration::from_millis(5), Duration::from_millis(500)),
            requests: RequestFormat::Shorter,
            header: HeaderMode::New,
            bandwidth: None,
            cname: "anabranch".into(),
            session_timeout: Duration::from_secs(2),
            keep_alive: Duration::from_secs(1),
            secret: None,
            key_length: KeyLength::Aes128,
            key_rotation: 1 << 31,
            null_packet_deletion: false,
            virtual_port: 1_968,
        }
    }
}

impl Config {
    /// How long datagrams may wait before the core sees them: a small part of the buffer, as what is to be sent again
    /// has less time.
    pub(super) fn patience(&self) -> Duration {
        (self.buffer / 32).min(Duration::from_millis(2))
    }
}

/// A part of the specification.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// RTP on one port, RTCP on the next (TR-06-1).
    Simple,
    /// Both through one port, and encrypted if wanted (TR-06-2). The default, as for librist.
    #[default]
    Main,
}

/// Longest payload of one packet in bytes: what 1,500 leave after IPv4, UDP, the longest tunnel header, RTP and its
/// extension.
pub(super) const PAYLOAD_BYTES_MAX: usize = 1_500 - 20 - 8 - 12 - 8 - 12 - 8;
