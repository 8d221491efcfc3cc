//! What a driver counts, written by its worker and read by anybody.

use std::sync::OnceLock;
use std::time::Duration;

use crate::bus::{LocalCursor, SkipStats};
use crate::proto::{Detail, Stats};
use crate::units::{Counter, RateMeter};

/// Counters of one source or output. Packets and bytes are payload that was taken in or handed to the kernel.
#[derive(Debug, Default)]
pub struct Counters {
    /// Media packets.
    pub packets: Counter,
    /// Their payload bytes.
    pub bytes: Counter,
    /// Their rate.
    pub rate: RateMeter,
    /// When the last one passed.
    pub last_packet_ns: Counter,
    /// Datagrams from senders that are not on the allow-list.
    pub not_allowed: Counter,
    /// Datagrams over the rate limit.
    pub over_limit: Counter,
    /// Datagrams that the kernel dropped for a full receive buffer.
    pub kernel_drops: Counter,
    /// Datagrams for which the pool had no buffer.
    pub no_buffer: Counter,
    /// Times that something waited, and was not lost, as the pool had no buffer for it.
    pub short_of_buffers: Counter,
    /// Packets overwritten in the ring before they could be sent.
    pub lagged: Counter,
    /// Packets left out up to the next key frame after others were missed.
    pub skipped: Counter,
    /// Times that no key frame came for too long.
    pub skip_timeouts: Counter,
    /// Datagrams that shared a segmented send with others.
    pub segmented: Counter,
    /// Datagrams to a port where nobody listens.
    pub refused: Counter,
    /// Datagrams without a way to their destination.
    pub unreachable: Counter,
    /// Datagrams longer than allowed.
    pub too_long: Counter,
    /// Datagrams refused by the system for another reason.
    pub other: Counter,
    /// FEC packets that the system did not take.
    pub fec_unsent: Counter,
    /// Times the system began to refuse.
    pub disconnections: Counter,
    /// 1 while the system refuses.
    pub failing: Counter,
    /// Events that nobody fetched in time.
    pub events_dropped: Counter,
    /// What the core counts.
    pub core: CoreCounters,
    /// What its protocol has beside that.
    pub details: DetailCounters,
}

/// A protocol's own figures where other threads can read them.
#[derive(Debug, Default)]
pub struct DetailCounters(OnceLock<Box<[(&'static str, Counter)]>>);

impl DetailCounters {
    pub(super) fn set(&self, details: &[Detail]) {
        let cells = self.0.get_or_init(|| details.iter().map(|(name, _)| (*name, Counter::default())).collect());
        for ((_, cell), (_, value)) in cells.iter().zip(details) {
            cell.set(value.to_bits());
        }
    }

    /// Name and value of each, as last written; empty for a protocol without any.
    #[must_use]
    pub fn figures(&self) -> Vec<Detail> {
        let cells = self.0.get().map_or(&[][..], |cells| cells);
        cells.iter().map(|(name, cell)| (*name, f64::from_bits(cell.value()))).collect()
    }
}

/// A core's [`Stats`] where other threads can read them.
#[derive(Debug, Default)]
pub struct CoreCounters {
    received: Counter,
    lost: Counter,
    recovered: Counter,
    duplicate: Counter,
    late: Counter,
    reordered: Counter,
    malformed: Counter,
    unexpected: Counter,
    no_buffer: Counter,
    overflow: Counter,
    too_long: Counter,
    not_connected: Counter,
    /// Plus one; zero for a protocol without connections.
    peers: Counter,
    jitter_ns: Counter,
    /// Plus one; zero for unknown.
    round_trip_ns: Counter,
    /// Plus one; zero for unknown.
    peer_fraction_lost: Counter,
}

impl Counters {
    /// Grows whenever the pool has no buffer.
    #[must_use]
    pub fn shortages(&self) -> u64 {
        self.no_buffer.value() + self.short_of_buffers.value()
    }

    /// What a reader of the ring missed since the last call.
    pub(super) fn count_missed(&self, cursor: &mut LocalCursor) {
        self.lagged.add(cursor.take_missed());
        if cursor.goes_on_at_key_frames() {
            let SkipStats { packets, timeouts } = cursor.take_skipped();
            self.skipped.add(packets);
            self.skip_timeouts.add(timeouts);
        }
    }
}

impl CoreCounters {
    pub(super) fn set(&self, stats: &Stats) {
        self.received.set(stats.received);
        self.lost.set(stats.lost);
        self.recovered.set(stats.recovered);
        self.duplicate.set(stats.duplicate);
        self.late.set(stats.late);
        self.reordered.set(stats.reordered);
        self.malformed.set(stats.malformed);
        self.unexpected.set(stats.unexpected);
        self.no_buffer.set(stats.no_buffer);
        self.overflow.set(stats.overflow);
        self.too_long.set(stats.too_long);
        self.not_connected.set(stats.not_connected);
        self.peers.set(stats.peers.map_or(0, |peers| u64::from(peers) + 1));
        self.jitter_ns.set(nanos(stats.jitter));
        self.round_trip_ns.set(stats.round_trip.map_or(0, |span| nanos(span).saturating_add(1)));
        self.peer_fraction_lost.set(stats.peer_fraction_lost.map_or(0, |fraction| u64::from(fraction) + 1));
    }

    /// The core's stats as last written.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            received: self.received.value(),
            lost: self.lost.value(),
            recovered: self.recovered.value(),
            duplicate: self.duplicate.value(),
            late: self.late.value(),
            reordered: self.reordered.value(),
            malformed: self.malformed.value(),
            unexpected: self.unexpected.value(),
            no_buffer: self.no_buffer.value(),
            overflow: self.overflow.value(),
            too_long: self.too_long.value(),
            not_connected: self.not_connected.value(),
            peers: self.peers.value().checked_sub(1).map(|peers| peers as u32),
            jitter: Duration::from_nanos(self.jitter_ns.value()),
            round_trip: self.round_trip_ns.value().checked_sub(1).map(Duration::from_nanos),
            peer_fraction_lost: self.peer_fraction_lost.value().checked_sub(1).map(|fraction| fraction as u8),
        }
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
