//! Counters over all connections that a core has had.

use super::connection::Connection;
use crate::proto::Stats;

/// What was counted outside of the connections that there are now.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    /// Of connections that ended.
    past: Stats,
    /// Datagrams that are no packets, outside of connections.
    pub malformed: u64,
    /// Packets for nobody.
    pub unexpected: u64,
    /// Packets that nobody was connected for.
    pub not_connected: u64,
}

impl Totals {
    /// A connection ended.
    pub(super) fn add(&mut self, connection: &Connection) {
        self.past = sum(self.past, &of(connection));
    }

    /// Everything so far, with the connections that there are now.
    pub(super) fn stats<'a>(&self, connections: impl Iterator<Item = &'a Connection>) -> Stats {
        let mut stats = self.past;
        let mut peers = 0;
        for connection in connections {
            peers += 1;
            stats = sum(stats, &of(connection));
            stats.round_trip = Some(connection.round_trip().0);
        }
        stats.peers = Some(peers);
        stats.malformed += self.malformed;
        stats.unexpected += self.unexpected;
        stats.not_connected += self.not_connected;
        stats
    }
}

fn of(connection: &Connection) -> Stats {
    let receive = connection.receiver_stats();
    let counts = connection.counts;
    Stats {
        received: receive.unique.packets,
        lost: receive.dropped.packets,
        recovered: receive.recovered.packets + receive.rebuilt.packets,
        duplicate: receive.duplicate.packets,
        late: receive.late.packets,
        reordered: receive.reordered.packets,
        malformed: counts.malformed,
        unexpected: counts.unexpected,
        no_buffer: counts.no_buffer,
        overflow: counts.overflow + receive.beyond.packets,
        ..Stats::default()
    }
}

fn sum(left: Stats, right: &Stats) -> Stats {
    Stats {
        received: left.received + right.received,
        lost: left.lost + right.lost,
        recovered: left.recovered + right.recovered,
        duplicate: left.duplicate + right.duplicate,
        late: left.late + right.late,
        reordered: left.reordered + right.reordered,
        malformed: left.malformed + right.malformed,
        unexpected: left.unexpected + right.unexpected,
        no_buffer: left.no_buffer + right.no_buffer,
        overflow: left.overflow + right.overflow,
        ..left
    }
}
