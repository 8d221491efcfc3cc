//! What a source or an output is at one moment, read from its counters.

use std::time::Duration;

use super::config::{OutputConfig, SourceConfig};
use super::flow::{OutputSlot, SourceSlot};
use super::managed::{Managed, State};
use super::stats::{LegSnapshot, OutputDrops, OutputSnapshot, SourceDrops, SourceSnapshot};
use super::status::{OutputStatus, SourceStatus};
use crate::adapters::{Counters, LegView};
use crate::path::health::Fault;
use crate::units::{Bitrate, Time};

/// What a source is to its flow now.
pub(super) struct Role {
    pub(super) selected: bool,
    pub(super) merged: bool,
    pub(super) fault: Option<Fault>,
}

impl Managed<SourceConfig, SourceSlot> {
    pub(super) fn snapshot(&self, now: Time, role: Role, health_timeout: Duration) -> SourceSnapshot {
        let mut snapshot = SourceSnapshot {
            name: self.config.name.clone(),
            status: SourceStatus::Error,
            error: self.error(),
            protocol: self.config.endpoint.protocol(),
            selected: role.selected,
            merged: role.merged,
            fault: role.fault,
            bitrate: Bitrate::ZERO,
            packets: 0,
            bytes: 0,
            lost: 0,
            recovered: 0,
            jitter: Duration::ZERO,
            round_trip: None,
            details: Vec::new(),
            ts: None,
            drops: SourceDrops::default(),
            rcvbuf_bytes: 0,
            rcvbuf_asked_bytes: 0,
            retry_total: self.retry_total,
        };
        let State::Open { counters, receive_buffer, .. } = &self.state else {
            return snapshot;
        };
        let core = counters.core.stats();
        let last = counters.last_packet_ns.value();
        // Where failover is switched off, silence is silence all the same.
        let alive = last > 0 && now.since(Time::from_ns(last)) < health_timeout.min(SILENCE_MAX);
        snapshot.status = if alive { SourceStatus::Connected } else { SourceStatus::Disconnected };
        snapshot.bitrate = counters.rate.rate(now);
        snapshot.packets = counters.packets.value();
        snapshot.bytes = counters.bytes.value();
        snapshot.lost = core.lost;
        snapshot.recovered = core.recovered;
        snapshot.jitter = core.jitter;
        snapshot.round_trip = core.round_trip;
        snapshot.details = counters.details.figures();
        snapshot.rcvbuf_bytes = receive_buffer.granted_bytes;
        snapshot.rcvbuf_asked_bytes = receive_buffer.asked_bytes;
        snapshot.drops = SourceDrops {
            malformed: core.malformed,
            unexpected: core.unexpected,
            duplicate: core.duplicate,
            late: core.late,
            not_allowed: counters.not_allowed.value(),
            over_limit: counters.over_limit.value(),
            kernel: counters.kernel_drops.value(),
            no_buffer: counters.no_buffer.value() + core.no_buffer,
            overflow: core.overflow,
        };
        snapshot
    }
}

impl Managed<OutputConfig, OutputSlot> {
    pub(super) fn snapshot(&self, now: Time) -> OutputSnapshot {
        let mut snapshot = OutputSnapshot {
            name: self.config.name.clone(),
            status: OutputStatus::Disconnected,
            error: self.error(),
            protocol: self.config.endpoint.protocol(),
            bitrate: Bitrate::ZERO,
            packets: 0,
            bytes: 0,
            gso_packets: 0,
            disconnections: 0,
            round_trip: None,
            peer_loss: None,
            details: Vec::new(),
            ts: None,
            drops: OutputDrops::default(),
            key_frame_timeout_total: 0,
            legs: Vec::new(),
            sndbuf_bytes: 0,
            sndbuf_asked_bytes: 0,
            retry_total: self.retry_total,
        };
        let State::Open { counters, send_buffer, legs, .. } = &self.state else {
            if matches!(self.state, State::Failed { .. }) {
                snapshot.status = OutputStatus::Error;
            }
            return snapshot;
        };
        let core = counters.core.stats();
        let failing = counters.failing.value() > 0;
        snapshot.status = match core.peers {
            _ if failing => OutputStatus::Error,
            Some(0) => OutputStatus::Disconnected,
            _ => OutputStatus::Connected,
        };
        snapshot.bitrate = counters.rate.rate(now);
        snapshot.packets = counters.packets.value();
        snapshot.bytes = counters.bytes.value();
        snapshot.legs = legs.iter().map(|leg| LegSnapshot::new(leg, now)).collect();
        let of_legs: u64 = snapshot.legs.iter().map(|leg| leg.gso_packets).sum();
        snapshot.gso_packets = counters.segmented.value() + of_legs;
        snapshot.disconnections = counters.disconnections.value();
        snapshot.round_trip = core.round_trip;
        snapshot.details = counters.details.figures();
        snapshot.peer_loss = peer_loss(core.peer_fraction_lost);
        snapshot.sndbuf_bytes = send_buffer.granted_bytes;
        snapshot.sndbuf_asked_bytes = send_buffer.asked_bytes;
        snapshot.key_frame_timeout_total = counters.skip_timeouts.value();
        let drops = drops(counters);
        snapshot.drops = OutputDrops {
            lagged: counters.lagged.value(),
            skipped_to_keyframe: counters.skipped.value(),
            too_long: drops.too_long + core.too_long,
            over_limit: counters.over_limit.value(),
            not_connected: core.not_connected,
            other: drops.other + core.overflow,
            ..drops
        };
        snapshot
    }
}

impl LegSnapshot {
    fn new(leg: &LegView, now: Time) -> Self {
        let LegView { config, counters } = leg;
        let core = counters.core.stats();
        let failing = counters.failing.value() > 0;
        Self {
            leg: config.to_string(),
            status: if failing { OutputStatus::Error } else { OutputStatus::Connected },
            bitrate: counters.rate.rate(now),
            packets: counters.packets.value(),
            bytes: counters.bytes.value(),
            gso_packets: counters.segmented.value(),
            disconnections: counters.disconnections.value(),
            round_trip: core.round_trip,
            peer_loss: peer_loss(core.peer_fraction_lost),
            drops: OutputDrops { lagged: core.overflow, ..drops(counters) },
        }
    }
}

/// Those that the system refused.
fn drops(counters: &Counters) -> OutputDrops {
    OutputDrops {
        refused: counters.refused.value(),
        unreachable: counters.unreachable.value(),
        too_long: counters.too_long.value(),
        other: counters.other.value(),
        fec: counters.fec_unsent.value(),
        ..OutputDrops::default()
    }
}

fn peer_loss(fraction: Option<u8>) -> Option<f64> {
    fraction.map(|fraction| f64::from(fraction) / 256.0)
}

/// Longest silence of a source that is still called connected.
const SILENCE_MAX: Duration = Duration::from_secs(60);
