//! Snapshots of all counters, as the product shows them.

use std::time::Duration;

use super::status::{FlowStatus, OutputStatus, SourceStatus};
#[cfg(feature = "media")]
use crate::media::watch;
use crate::path::failover::Switches;
use crate::path::health::Fault;
use crate::path::merge;
use crate::proto::Detail;
use crate::proto::mpegts::analysis;
use crate::units::{Bitrate, OutputName, SourceName};

/// One running flow at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowSnapshot {
    /// State of the whole.
    pub status: FlowStatus,
    /// The source in use now; the first one in use where they are merged.
    pub active_source: Option<SourceName>,
    /// Since the flow was started.
    pub uptime: Duration,
    /// Switches to another source, returns included.
    pub failover_total: u64,
    /// Switches to another source by cause, without returns.
    pub switches: Switches,
    /// Returns to the primary.
    pub primary_return_total: u64,
    /// Of both, those that waited for a key frame in vain.
    pub key_frame_timeout_total: u64,
    /// Events that were not told because too many came at once.
    pub events_dropped_total: u64,
    /// Where sources are merged.
    pub merge: Option<MergeSnapshot>,
    /// Where they are, what they are merged into, if that is analysed.
    pub merged_ts: Option<Box<analysis::Snapshot>>,
    /// What is seen and heard of what outputs get, if it is watched.
    #[cfg(feature = "media")]
    pub watch: Option<Box<WatchSnapshot>>,
    /// In configured order.
    pub sources: Vec<SourceSnapshot>,
    /// In configured order.
    pub outputs: Vec<OutputSnapshot>,
}

/// What is seen and heard of a flow at one moment.
#[cfg(feature = "media")]
#[derive(Clone, Debug, PartialEq)]
pub struct WatchSnapshot {
    /// What is wanted of it.
    pub settings: watch::Settings,
    /// What outputs get; where sources are watched one by one, the active one. `None` at the very beginning.
    pub report: Option<std::sync::Arc<watch::Report>>,
    /// Where sources are watched one by one, for failover to judge, each of them.
    pub sources: Vec<(SourceName, std::sync::Arc<watch::Report>)>,
}

/// Merged sources at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergeSnapshot<Name = SourceName> {
    /// What came out.
    pub stats: merge::Stats,
    /// What each leg brought, in configured order.
    pub legs: Vec<(Name, merge::LegStats)>,
}

impl<Name> MergeSnapshot<Name> {
    /// Whether any leg protects another now: two or more deliver the same packets.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.legs.iter().filter(|(_, leg)| leg.is_alive && leg.is_merged).count() > 1
    }
}

impl MergeSnapshot<u8> {
    /// With names instead of slots, in the order of `names`.
    pub(super) fn named<'a>(mut self, names: impl Iterator<Item = (u8, &'a SourceName)>) -> MergeSnapshot {
        let leg = |(slot, name): (u8, &SourceName)| {
            let (_, leg) = self.legs.iter_mut().find(|leg| leg.0 == slot)?;
            Some((name.clone(), std::mem::take(leg)))
        };
        MergeSnapshot { legs: names.filter_map(leg).collect(), stats: self.stats }
    }
}

/// One source at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceSnapshot {
    /// Its name.
    pub name: SourceName,
    /// Its state.
    pub status: SourceStatus,
    /// Why it is in error.
    pub error: Option<String>,
    /// `udp`, `rtp`, `rtp-fec`, `srt`, `test`.
    pub protocol: &'static str,
    /// Whether the flow uses this one now.
    pub selected: bool,
    /// Whether it is merged with others now.
    pub merged: bool,
    /// What is wrong with it by the rules of failover.
    pub fault: Option<Fault>,
    /// Over the last second.
    pub bitrate: Bitrate,
    /// Payload packets taken in.
    pub packets: u64,
    /// Payload bytes taken in.
    pub bytes: u64,
    /// Missing at their deadline.
    pub lost: u64,
    /// Missing and brought back.
    pub recovered: u64,
    /// Interarrival jitter.
    pub jitter: Duration,
    /// Where the protocol measures it.
    pub round_trip: Option<Duration>,
    /// What the protocol's users know it by, under their names; empty where there is nothing of the kind.
    pub details: Vec<Detail>,
    /// What its transport stream is like, if that is analysed.
    pub ts: Option<Box<analysis::Snapshot>>,
    /// Datagrams that went no further, by cause.
    pub drops: SourceDrops,
    /// Receive buffer that the kernel granted, in bytes; zero without a socket.
    pub rcvbuf_bytes: u64,
    /// Receive buffer that was asked for, in bytes.
    pub rcvbuf_asked_bytes: u64,
    /// Times it was opened again after a failure.
    pub retry_total: u64,
}

/// Datagrams of a source that went no further, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceDrops {
    /// No packet of this protocol.
    pub malformed: u64,
    /// Well-formed but not for us: another SSRC, payload type.
    pub unexpected: u64,
    /// Came again.
    pub duplicate: u64,
    /// After their deadline.
    pub late: u64,
    /// Sender not on the allow-list.
    pub not_allowed: u64,
    /// Over the rate limit.
    pub over_limit: u64,
    /// Dropped by the kernel because the socket's buffer was full.
    pub kernel: u64,
    /// No buffer left in the pool.
    pub no_buffer: u64,
    /// A queue of the core was full.
    pub overflow: u64,
}

impl SourceDrops {
    /// Every cause with the name that metrics use.
    #[must_use]
    pub const fn by_cause(&self) -> [(&'static str, u64); 9] {
        [
            ("malformed", self.malformed),
            ("unexpected", self.unexpected),
            ("duplicate", self.duplicate),
            ("late", self.late),
            ("not_allowed", self.not_allowed),
            ("over_limit", self.over_limit),
            ("kernel", self.kernel),
            ("no_buffer", self.no_buffer),
            ("overflow", self.overflow),
        ]
    }
}

/// One output at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputSnapshot {
    /// Its name.
    pub name: OutputName,
    /// Its state.
    pub status: OutputStatus,
    /// Why it is in error.
    pub error: Option<String>,
    /// `udp`, `rtp`.
    pub protocol: &'static str,
    /// Over the last second.
    pub bitrate: Bitrate,
    /// Media datagrams handed to the kernel.
    pub packets: u64,
    /// Payload bytes handed to the kernel.
    pub bytes: u64,
    /// Datagrams that left in a GSO send together with others.
    pub gso_packets: u64,
    /// Times the destination or the system began to refuse.
    pub disconnections: u64,
    /// Where the protocol measures it.
    pub round_trip: Option<Duration>,
    /// Share of packets, 0 to 1, that the peer says it lost lately, where the protocol tells.
    pub peer_loss: Option<f64>,
    /// What the protocol's users know it by, under their names; empty where there is nothing of the kind.
    pub details: Vec<Detail>,
    /// What the transport stream is like that it takes to send, if that is analysed.
    pub ts: Option<Box<analysis::Snapshot>>,
    /// Packets that did not go out, by cause; those of single legs are with the legs.
    pub drops: OutputDrops,
    /// Times that its policy waited for a key frame in vain and it went on without.
    pub key_frame_timeout_total: u64,
    /// Where the same datagrams go several ways, each of them in configured order; else empty.
    pub legs: Vec<LegSnapshot>,
    /// Send buffer that the kernel granted, in bytes.
    pub sndbuf_bytes: u64,
    /// Send buffer that was asked for, in bytes.
    pub sndbuf_asked_bytes: u64,
    /// Times it was opened again after a failure.
    pub retry_total: u64,
}

/// One leg of an output at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct LegSnapshot {
    /// Where it leads.
    pub leg: String,
    /// Its state.
    pub status: OutputStatus,
    /// Over the last second.
    pub bitrate: Bitrate,
    /// Media datagrams handed to the kernel.
    pub packets: u64,
    /// Payload bytes handed to the kernel.
    pub bytes: u64,
    /// Datagrams that left in a GSO send together with others.
    pub gso_packets: u64,
    /// Times the destination or the system began to refuse.
    pub disconnections: u64,
    /// To the receiver at its end.
    pub round_trip: Option<Duration>,
    /// Share of packets, 0 to 1, that this receiver says it lost lately.
    pub peer_loss: Option<f64>,
    /// Packets that did not go out on this leg, by cause; `lagged` are those for which its socket had no room for too long.
    pub drops: OutputDrops,
}

/// Packets of an output that did not go out, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutputDrops {
    /// Overwritten in the ring before this output could send them.
    pub lagged: u64,
    /// Left out up to the next key frame after others were dropped, by its policy.
    pub skipped_to_keyframe: u64,
    /// The destination answered that nobody listens (ICMP port unreachable).
    pub refused: u64,
    /// No route, no such host, interface down.
    pub unreachable: u64,
    /// Longer than the path allows.
    pub too_long: u64,
    /// Over the rate limit.
    pub over_limit: u64,
    /// Nobody was connected to take them.
    pub not_connected: u64,
    /// Any other error of the system.
    pub other: u64,
    /// FEC packets that the system did not take or nobody listens to; the media beside them is not concerned.
    pub fec: u64,
}

impl OutputDrops {
    /// Every cause with the name that metrics use.
    #[must_use]
    pub const fn by_cause(&self) -> [(&'static str, u64); 9] {
        [
            ("lagged", self.lagged),
            ("skipped_to_keyframe", self.skipped_to_keyframe),
            ("refused", self.refused),
            ("unreachable", self.unreachable),
            ("too_long", self.too_long),
            ("over_limit", self.over_limit),
            ("not_connected", self.not_connected),
            ("other", self.other),
            ("fec", self.fec),
        ]
    }
}
