//! Counters over all connections that a core has had.

use super::connection::Connection;
use super::group::Group;
use super::{receive, send};
use crate::proto::{Detail, Stats};
use std::time::Duration;

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

    /// A group ended.
    pub(super) fn add_group(&mut self, group: &Group) {
        self.past = sum(self.past, &group.stats());
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
    let (counts, filter) = (connection.counts, connection.filter_stats());
    let own = Stats {
        malformed: counts.malformed + filter.refused,
        unexpected: counts.unexpected,
        no_buffer: counts.no_buffer + filter.no_buffer,
        overflow: counts.overflow,
        too_long: counts.too_long,
        ..Stats::default()
    };
    // What became of the packets is the group's to tell.
    if connection.receiver.is_shared { own } else { sum(own, &of_merged(&connection.receiver)) }
}

/// What became of the packets that a receiver keeps.
pub(super) fn of_merged(receiver: &receive::Receiver) -> Stats {
    let receive = receiver.stats();
    Stats {
        received: receive.unique.packets,
        lost: receive.dropped.packets,
        recovered: receive.recovered.packets + receive.rebuilt.packets,
        duplicate: receive.duplicate.packets,
        late: receive.late.packets,
        reordered: receive.reordered.packets,
        overflow: receive.beyond.packets,
        ..Stats::default()
    }
}

pub(super) fn sum(left: Stats, right: &Stats) -> Stats {
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
        too_long: left.too_long + right.too_long,
        ..left
    }
}

/// Figures of `connections` together, under libsrt's names (`CBytePerfMon`). What can be summed is summed since each
/// connection began; the rest is that of the last one. Bytes are of the payload.
pub(super) fn libsrt<'a>(connections: impl Iterator<Item = &'a Connection>) -> [Detail; FIGURES] {
    let mut sum = [0.0; SUMS.len()];
    let mut last = [0.0; LAST.len()];
    for connection in connections {
        let (sent, received) = (connection.sender_stats(), connection.receiver_stats());
        let each = sums(connection, &sent, &received);
        sum.iter_mut().zip(each).for_each(|(sum, each)| *sum += each as f64);
        last = state(connection, &sent, &received);
    }
    let mut figures = [("", 0.0); FIGURES];
    let named = SUMS.into_iter().zip(sum).chain(LAST.into_iter().zip(last));
    figures.iter_mut().zip(named).for_each(|(figure, named)| *figure = named);
    figures
}

/// The same of a group's members, with what only the whole of them can tell: what was sent and what was received, each
/// once, what was lost on all links, and what is held (libsrt's group statistics).
pub(super) fn libsrt_of_group<'a>(
    group: &Group,
    connections: impl Iterator<Item = &'a Connection>,
) -> [Detail; FIGURES] {
    let (sent, received) = group.figures();
    let whole = [
        ("pktSentUnique", sent.packets),
        ("byteSentUnique", sent.bytes),
        ("pktRecvUnique", received.unique.packets),
        ("byteRecvUnique", received.unique.bytes),
        ("pktRcvDrop", received.dropped.packets),
        ("byteRcvDrop", received.dropped.bytes),
        ("pktRcvBuf", received.held.packets),
        ("byteRcvBuf", received.held.bytes),
        ("msRcvBuf", received.held_span.as_millis() as u64),
    ];
    let mut figures = libsrt(connections);
    for (name, value) in whole {
        figures.iter_mut().filter(|figure| figure.0 == name).for_each(|figure| figure.1 = value as f64);
    }
    figures
}

const SUMS: [&str; 33] = [
    "pktSent",
    "pktSentUnique",
    "pktRetrans",
    "pktSndLoss",
    "pktSndDrop",
    "byteSent",
    "byteSentUnique",
    "byteRetrans",
    "byteSndDrop",
    "pktRecvACK",
    "pktRecvNAK",
    "pktRecv",
    "pktRecvUnique",
    "pktRcvLoss",
    "pktRcvDrop",
    "pktRcvRetrans",
    "pktRcvBelated",
    "pktRcvUndecrypt",
    "byteRecv",
    "byteRecvUnique",
    "byteRcvLoss",
    "byteRcvDrop",
    "byteRcvUndecrypt",
    "pktSentACK",
    "pktSentNAK",
    "pktSndBuf",
    "byteSndBuf",
    "pktRcvBuf",
    "byteRcvBuf",
    "pktSndFilterExtra",
    "pktRcvFilterExtra",
    "pktRcvFilterSupply",
    "pktRcvFilterLoss",
];

fn sums(connection: &Connection, sent: &send::Stats, received: &receive::Stats) -> [u64; SUMS.len()] {
    let (unique, again) = (sent.unique, sent.retransmitted);
    let (counts, filter) = (connection.counts, connection.filter_stats());
    [
        unique.packets + again.packets + counts.repairs_sent,
        unique.packets,
        again.packets,
        sent.lost,
        sent.dropped.packets,
        unique.bytes + again.bytes + counts.repair_bytes_sent,
        unique.bytes,
        again.bytes,
        sent.dropped.bytes,
        counts.acks_received,
        counts.naks_received,
        received.received.packets + filter.repairs,
        received.unique.packets,
        received.lost.packets,
        received.dropped.packets,
        received.retransmitted.packets,
        received.belated.packets,
        received.undecrypted.packets,
        received.received.bytes + filter.repair_bytes,
        received.unique.bytes,
        received.lost.bytes,
        received.dropped.bytes,
        received.undecrypted.bytes,
        received.acks,
        received.naks,
        sent.buffered.packets,
        sent.buffered.bytes,
        received.held.packets,
        received.held.bytes,
        counts.repairs_sent,
        filter.repairs,
        filter.rebuilt,
        filter.lost,
    ]
}

const LAST: [&str; 13] = [
    "msRTT",
    "pktFlightSize",
    "pktFlowWindow",
    "usPktSndPeriod",
    "mbpsMaxBW",
    "msSndBuf",
    "msRcvBuf",
    "msSndTsbPdDelay",
    "msRcvTsbPdDelay",
    "pktReorderDistance",
    "pktReorderTolerance",
    "pktRcvAvgBelatedTime",
    "mbpsBandwidth",
];

fn state(connection: &Connection, sent: &send::Stats, received: &receive::Stats) -> [f64; LAST.len()] {
    let ms = |span: Duration| span.as_secs_f64() * 1e3;
    let settled = connection.settled();
    [
        ms(connection.round_trip().0),
        sent.flight as f64,
        f64::from(sent.flow_window),
        sent.period.as_secs_f64() * 1e6,
        // libsrt says -1 for any rate.
        sent.rate.map_or(-1.0, |rate| rate.as_bps() as f64 / 1e6),
        ms(sent.buffered_span),
        ms(received.held_span),
        ms(settled.send_latency),
        ms(settled.receive_latency),
        received.reorder_distance as f64,
        f64::from(received.reorder_tolerance),
        ms(received.belated_by),
        f64::from(connection.link_packets_per_second()) * settled.payload_max as f64 * 8.0 / 1e6,
    ]
}

const FIGURES: usize = SUMS.len() + LAST.len();
