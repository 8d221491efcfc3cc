//! What a receiver counts.

use std::time::Duration;

use super::AVERAGE_SHIFT;

/// Packets, and the bytes of their payloads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::proto::srt) struct Count {
    pub(in crate::proto::srt) packets: u64,
    pub(in crate::proto::srt) bytes: u64,
}

/// Counters since the start, and what is true now. The names of libsrt's statistics stand behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::proto::srt) struct Stats {
    /// Data packets in datagrams, all of them (`pktRecv`).
    pub(in crate::proto::srt) received: Count,
    /// Packets taken into the buffer (`pktRecvUnique`).
    pub(in crate::proto::srt) unique: Count,
    /// Packets that were missing when a later one came; bytes by the average (`pktRcvLoss`).
    pub(in crate::proto::srt) lost: Count,
    /// Packets with the R flag (`pktRcvRetrans`).
    pub(in crate::proto::srt) retransmitted: Count,
    /// Those of them that filled a gap.
    pub(in crate::proto::srt) recovered: Count,
    /// Packets rebuilt by FEC that had not come.
    pub(in crate::proto::srt) rebuilt: Count,
    /// Originals that came after a later one and filled a gap.
    pub(in crate::proto::srt) reordered: Count,
    /// Packets that came when their turn was over, given up or released (`pktRcvBelated`).
    pub(in crate::proto::srt) belated: Count,
    /// Those of them that had been given up.
    pub(in crate::proto::srt) late: Count,
    /// Packets that were held or had been released.
    pub(in crate::proto::srt) duplicate: Count,
    /// Packets that the buffer had no room for.
    pub(in crate::proto::srt) beyond: Count,
    /// Packets that came and could not be decrypted.
    pub(in crate::proto::srt) undecrypted: Count,
    /// Packets given up, those that could not be decrypted among them; bytes by the average (`pktRcvDrop`).
    pub(in crate::proto::srt) dropped: Count,
    /// Times that the peer was found beyond the buffer and followed.
    pub(in crate::proto::srt) jumps: u64,
    /// Drop requests that made no sense.
    pub(in crate::proto::srt) drop_requests_refused: u64,
    /// Acknowledgements made, full ones (`pktSentACK`).
    pub(in crate::proto::srt) acks: u64,
    /// Loss reports made (`pktSentNAK`).
    pub(in crate::proto::srt) naks: u64,
    /// By how much belated packets came late, smoothed (`pktRcvAvgBelatedTime`).
    pub(in crate::proto::srt) belated_by: Duration,
    /// Greatest distance of a reordered packet (`pktReorderDistance`).
    pub(in crate::proto::srt) reorder_distance: u64,
    /// Packets that a gap waits for before it is reported (`pktReorderTolerance`).
    pub(in crate::proto::srt) reorder_tolerance: u32,
    /// What is held now (`pktRcvBuf`).
    pub(in crate::proto::srt) held: Count,
    /// From the first packet held to the last (`msRcvBuf`).
    pub(in crate::proto::srt) held_span: Duration,
    /// Packets that there is room for (`byteAvailRcvBuf`, times the MSS).
    pub(in crate::proto::srt) available: u64,
    /// How much later packets are released because the clocks drift, in microseconds.
    pub(in crate::proto::srt) drift_us: i64,
}

impl Count {
    pub(super) const fn add(&mut self, bytes: usize) {
        self.packets += 1;
        self.bytes += bytes as u64;
    }

    pub(super) const fn add_average(&mut self, packets: u64, payload: u64) {
        self.packets += packets;
        self.bytes = self.bytes.saturating_add(packets.saturating_mul(payload >> AVERAGE_SHIFT));
    }
}
