//! What a receiver and a sender shall do; the defaults carry a transport stream.

use std::time::Duration;

use super::header::HEADER_BYTES;
use crate::proto::fec::{self, Matrix};

/// How to receive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiverConfig {
    /// Which payload types to take.
    pub payload_types: PayloadTypes,
    /// Longest that a packet is held because one before it is missing. Packets in order are never held. Zero gives up a
    /// gap at once.
    ///
    /// `None`, the default, is 25 ms, the reorder section of a RIST receiver (VSF TR-06-1:2020): it covers the reordering
    /// that routers do, and without retransmission longer waiting would only turn every loss into a longer stall. With
    /// `fec` it is that and as long as FEC packets were seen to need, at first 250 ms. Skew between legs is the merger's
    /// business.
    pub reorder_window: Option<Duration>,
    /// Most packets between the one missing and the latest, rounded up to a power of two, at most 32,768. Default 2,048:
    /// 25 ms at 860 Mb/s.
    pub reorder_packets_max: usize,
    /// Whether lost packets are rebuilt with what comes to the two FEC ports (SMPTE ST 2022-1).
    pub fec: bool,
    /// The canonical name in reports, `user@host` by custom (RFC 3550 6.5.1), at most 255 bytes.
    pub cname: String,
}

impl Default for ReceiverConfig {
    fn default() -> Self {
        Self {
            payload_types: PayloadTypes::Only(PAYLOAD_TYPE_MP2T),
            reorder_window: None,
            reorder_packets_max: 2_048,
            fec: false,
            cname: DEFAULT_CNAME.into(),
        }
    }
}

/// A choice of payload types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadTypes {
    /// This one.
    Only(u8),
    /// All 128.
    Any,
}

impl PayloadTypes {
    pub(super) const fn contains(self, payload_type: u8) -> bool {
        match self {
            Self::Only(only) => only == payload_type,
            Self::Any => true,
        }
    }
}

/// How to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SenderConfig {
    /// Where sequence number and timestamp come from. Default [`HeaderMode::New`].
    pub header: HeaderMode,
    /// Who sends; `None`, the default, for a random SSRC.
    pub ssrc: Option<u32>,
    /// Seven bits; default 33, a transport stream (RFC 3551 6).
    pub payload_type: u8,
    /// Longest payload in bytes. A longer packet is cut, a transport stream at the border of a TS packet. Default 1,456:
    /// what 1,500 bytes leave after IPv4, UDP, RTP and four more for a tunnel.
    pub payload_bytes_max: usize,
    /// Rows and columns that FEC packets are sent of (SMPTE ST 2022-1); they are 16 bytes longer than the media. Default
    /// none.
    pub fec: Option<Matrix>,
    /// The canonical name in reports, `user@host` by custom (RFC 3550 6.5.1), at most 255 bytes.
    pub cname: String,
}

impl Default for SenderConfig {
    fn default() -> Self {
        Self {
            header: HeaderMode::New,
            ssrc: None,
            payload_type: PAYLOAD_TYPE_MP2T,
            payload_bytes_max: 1_456,
            fec: None,
            cname: DEFAULT_CNAME.into(),
        }
    }
}

impl SenderConfig {
    /// With FEC, and payloads so much shorter that FEC packets are no longer than media would be without.
    #[must_use]
    pub fn with_fec(matrix: Matrix) -> Self {
        let config = Self::default();
        let longer = fec::HEADER_BYTES - HEADER_BYTES;
        Self { fec: Some(matrix), payload_bytes_max: config.payload_bytes_max - longer, ..config }
    }
}

/// Where the sequence number and timestamp of an outgoing packet come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeaderMode {
    /// From the packet's metadata where they stand there, so that a receiver sees the gaps of the source and can merge
    /// this output with another one of the same source. Such packets are never cut: their parts would need numbers that
    /// belong to others. What the metadata lacks is made as with `New`.
    Keep,
    /// Our own: numbers without gaps, timestamps from the packet's arrival.
    #[default]
    New,
}

impl ReceiverConfig {
    pub(super) fn first_window(&self) -> Duration {
        self.reorder_window.unwrap_or(REORDER_WINDOW)
    }
}

/// What packets are held for unless told otherwise.
pub(super) const REORDER_WINDOW: Duration = Duration::from_millis(25);

/// The static payload type of a transport stream (RFC 3551 6).
pub const PAYLOAD_TYPE_MP2T: u8 = 33;

const DEFAULT_CNAME: &str = "anabranch";
