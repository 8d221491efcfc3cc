//! Figures of a running flow as JSON.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::content::ContentQuality;
use super::ts::TsMetrics;
use crate::adapters::clock;
use crate::engine::{
    FlowSnapshot, LegSnapshot, MergeSnapshot, OutputSnapshot, OutputStatus, SourceSnapshot, SourceStatus,
};
use crate::path::health::Fault;
use crate::path::merge::{Histogram, LegStats};
use crate::units::Bitrate;

/// The figures of one flow that has no id of its own, for programs: what `GET /v1/flows/{id}/metrics` answers.
#[must_use]
pub fn metrics_json(snapshot: &FlowSnapshot) -> Value {
    let mut value = serde_json::to_value(FlowMetrics::new("", snapshot)).unwrap_or_default();
    value.as_object_mut().into_iter().for_each(|object| drop(object.remove("flow_id")));
    value
}

/// Figures of a running flow.
#[derive(Debug, Serialize, ToSchema)]
pub struct FlowMetrics {
    /// Which.
    pub flow_id: String,
    /// The source in use now.
    pub active_source: Option<String>,
    /// Its state.
    pub status: String,
    /// Since the flow was started.
    pub uptime_seconds: f64,
    /// Switches to another source, returns included.
    pub failover_count: u64,
    /// Switches to another source by cause, without returns.
    pub switch_causes: BTreeMap<&'static str, u64>,
    /// Returns to the primary source; part of `failover_count`.
    pub primary_return_count: u64,
    /// Changes of the source that waited for a key frame in vain: see `switch_at`.
    pub keyframe_timeouts: u64,
    /// Events of the flow that were not told because too many came at once.
    pub events_dropped: u64,
    /// Whether merged sources protect each other now: two or more deliver the same packets.
    pub merge_active: bool,
    /// Only where sources are merged.
    pub merge_stats: Option<MergeStats>,
    /// In configured order.
    pub source_metrics: Vec<SourceMetrics>,
    /// In configured order.
    pub output_metrics: Vec<OutputMetrics>,
    /// What is seen and heard of what outputs get, if `content_quality_enabled`.
    pub content_quality: Option<ContentQuality>,
    /// RFC 3339, UTC.
    pub timestamp: String,
}

/// Figures of merged sources, in packets; a and b are the first two.
#[derive(Debug, Serialize, ToSchema)]
pub struct MergeStats {
    /// Came from the first source.
    pub source_a_packets: u64,
    /// Came from the first source while later ones had come from others.
    pub source_a_gap_fills: u64,
    /// Came from the second source.
    pub source_b_packets: u64,
    /// Came from the second source while later ones had come from others.
    pub source_b_gap_fills: u64,
    /// Released, each once and in order.
    pub output_packets: u64,
    /// Given up: no source brought them in time.
    pub missing_packets: u64,
    /// Copies dropped.
    pub duplicate_packets: u64,
    /// Came after they were given up.
    pub late_packets: u64,
    /// Released or given up before their time, because more came than the merger holds.
    pub forced_packets: u64,
    /// Dropped because more was due at once than is kept.
    pub overflow_packets: u64,
    /// Times that the stream started over.
    pub restarts: u64,
    /// How long a missing packet is waited for at present.
    pub recovery_window_ms: f64,
    /// All of them, in configured order.
    pub legs: Vec<LegMetrics>,
    /// What comes out of it, unless `ts_analysis_enabled` is false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ts: Option<TsMetrics>,
}

/// Figures of one merged source, in packets.
#[derive(Debug, Serialize, ToSchema)]
pub struct LegMetrics {
    /// Name of the source.
    pub name: String,
    /// Whether it delivers.
    pub alive: bool,
    /// Whether it is merged now: it carries what the others do.
    pub merged: bool,
    /// Everything that came and what became of it, by name.
    pub packets: BTreeMap<&'static str, u64>,
    /// The recovery window that it would have needed of late.
    pub advised_window_ms: Option<f64>,
    /// How long after the first copy of a packet its own came; zero where it was the first.
    pub skew: Spans,
    /// How long after they were given up late packets came.
    pub late_by: Spans,
}

/// How often spans of which length occurred: two lists of equal length, shortest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct Spans {
    /// The longest span that each count is of.
    pub up_to_ms: Vec<f64>,
    /// How many were that long, and longer than the one before.
    pub counts: Vec<u64>,
}

/// Figures of a source.
#[derive(Debug, Serialize, ToSchema)]
pub struct SourceMetrics {
    /// Its name.
    pub name: String,
    /// `udp`, `rtp`, `rtp-fec`, `srt`, `test`.
    pub protocol: String,
    /// Its state.
    pub status: String,
    /// Whether packets flow.
    pub connected: bool,
    /// Why it is in error.
    pub error: Option<String>,
    /// Payload over the last second.
    pub bitrate_kbps: f64,
    /// Payload packets taken in.
    pub packets_received: u64,
    /// Payload bytes taken in.
    pub bytes_received: u64,
    /// Missing at their deadline.
    pub packets_lost: u64,
    /// Missing and brought back.
    pub packets_recovered: u64,
    /// Where the protocol measures it.
    pub round_trip_time_ms: Option<f64>,
    /// Interarrival jitter.
    pub jitter_ms: f64,
    /// Whether the flow uses this one now.
    pub source_selected: bool,
    /// Whether it is merged with others now.
    pub merge_active: bool,
    /// What is wrong with it by `switch_on`: `loss`, `ts_errors`, `black`, `frozen`, `silent_audio`, `no_video` or `no_audio`.
    pub fault: Option<&'static str>,
    /// SRT's own figures under libsrt's names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub srt: Option<BTreeMap<&'static str, f64>>,
    /// Figures of forward error correction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fec: Option<BTreeMap<&'static str, f64>>,
    /// RIST's own figures, under librist's names where it has them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rist: Option<BTreeMap<&'static str, f64>>,
    /// RTMP's own figures: what is carried, and why connections ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtmp: Option<BTreeMap<&'static str, f64>>,
    /// Its transport stream, unless `ts_analysis_enabled` is false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ts: Option<TsMetrics>,
    /// Datagrams that went no further, by cause.
    pub drops: BTreeMap<&'static str, u64>,
    /// Receive buffer that the kernel granted.
    pub receive_buffer_bytes: u64,
    /// Receive buffer that was asked for.
    pub receive_buffer_asked_bytes: u64,
    /// Times it was opened again after a failure.
    pub retries: u64,
}

/// Figures of an output.
#[derive(Debug, Serialize, ToSchema)]
pub struct OutputMetrics {
    /// Its name.
    pub name: String,
    /// `udp`, `rtp`, `rtp-fec`, `srt`, `test`.
    pub protocol: String,
    /// Its state.
    pub status: String,
    /// Whether packets flow.
    pub connected: bool,
    /// Why it is in error.
    pub error: Option<String>,
    /// Payload over the last second.
    pub bitrate_kbps: f64,
    /// Datagrams handed to the kernel.
    pub packets_sent: u64,
    /// Payload bytes handed to the kernel.
    pub bytes_sent: u64,
    /// Packets that left together with others in one send.
    pub packets_sent_gso: u64,
    /// Times the destination or the system began to refuse.
    pub disconnections: u64,
    /// Where the protocol measures it.
    pub round_trip_time_ms: Option<f64>,
    /// Packets of a hundred that the peer says it lost lately, where the protocol tells.
    pub peer_loss_percent: Option<f64>,
    /// SRT's own figures under libsrt's names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub srt: Option<BTreeMap<&'static str, f64>>,
    /// Figures of forward error correction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fec: Option<BTreeMap<&'static str, f64>>,
    /// RIST's own figures, under librist's names where it has them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rist: Option<BTreeMap<&'static str, f64>>,
    /// RTMP's own figures: what is carried, and why connections ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtmp: Option<BTreeMap<&'static str, f64>>,
    /// The transport stream that it takes to send, where `ts_analysis_enabled` is true for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ts: Option<TsMetrics>,
    /// Packets that did not go out, by cause; those of single legs are with the legs.
    pub drops: BTreeMap<&'static str, u64>,
    /// Times that it waited for a key frame in vain and went on without: see `policy`.
    pub keyframe_timeouts: u64,
    /// Where the same datagrams go several ways, each of them in configured order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub legs: Vec<OutputLegMetrics>,
    /// Send buffer that the kernel granted.
    pub send_buffer_bytes: u64,
    /// Send buffer that was asked for.
    pub send_buffer_asked_bytes: u64,
    /// Times it was opened again after a failure.
    pub retries: u64,
}

/// Figures of one leg of an output.
#[derive(Debug, Serialize, ToSchema)]
pub struct OutputLegMetrics {
    /// Where it leads, as `10.0.0.2:5004@eth1`.
    pub leg: String,
    /// Its state.
    pub status: String,
    /// Payload over the last second.
    pub bitrate_kbps: f64,
    /// Datagrams handed to the kernel.
    pub packets_sent: u64,
    /// Payload bytes handed to the kernel.
    pub bytes_sent: u64,
    /// Packets that left together with others in one send.
    pub packets_sent_gso: u64,
    /// Times the destination or the system began to refuse.
    pub disconnections: u64,
    /// To the receiver at its end.
    pub round_trip_time_ms: Option<f64>,
    /// Packets of a hundred that this receiver says it lost lately.
    pub peer_loss_percent: Option<f64>,
    /// Packets that did not go out on this leg, by cause.
    pub drops: BTreeMap<&'static str, u64>,
}

impl FlowMetrics {
    /// The figures of flow `id` in `snapshot`, as of now.
    #[must_use]
    pub fn new(id: &str, snapshot: &FlowSnapshot) -> Self {
        Self {
            flow_id: id.into(),
            active_source: snapshot.active_source.as_ref().map(ToString::to_string),
            status: snapshot.status.to_string(),
            uptime_seconds: snapshot.uptime.as_secs_f64(),
            failover_count: snapshot.failover_total,
            switch_causes: snapshot.switches.by_cause().into(),
            primary_return_count: snapshot.primary_return_total,
            keyframe_timeouts: snapshot.key_frame_timeout_total,
            events_dropped: snapshot.events_dropped_total,
            merge_active: snapshot.merge.as_ref().is_some_and(MergeSnapshot::is_active),
            merge_stats: snapshot.merge.as_ref().map(|merge| MergeStats {
                ts: snapshot.merged_ts.as_deref().map(TsMetrics::from),
                ..MergeStats::from(merge)
            }),
            source_metrics: snapshot.sources.iter().map(SourceMetrics::from).collect(),
            output_metrics: snapshot.outputs.iter().map(OutputMetrics::from).collect(),
            content_quality: content_quality(snapshot),
            timestamp: rfc3339(clock::wall()),
        }
    }
}

impl From<&SourceSnapshot> for SourceMetrics {
    fn from(source: &SourceSnapshot) -> Self {
        Self {
            name: source.name.to_string(),
            protocol: source.protocol.into(),
            status: source.status.to_string(),
            connected: source.status == SourceStatus::Connected,
            error: source.error.clone(),
            bitrate_kbps: kbps(source.bitrate),
            packets_received: source.packets,
            bytes_received: source.bytes,
            packets_lost: source.lost,
            packets_recovered: source.recovered,
            round_trip_time_ms: source.round_trip.map(|span| span.as_secs_f64() * 1e3),
            jitter_ms: source.jitter.as_secs_f64() * 1e3,
            source_selected: source.selected,
            merge_active: source.merged,
            fault: source.fault.map(Fault::as_str),
            srt: details_of("srt", source.protocol, &source.details),
            fec: details_of("rtp-fec", source.protocol, &source.details),
            rist: details_of("rist", source.protocol, &source.details),
            rtmp: details_of("rtmp", source.protocol, &source.details),
            ts: source.ts.as_deref().map(TsMetrics::from),
            drops: source.drops.by_cause().into(),
            receive_buffer_bytes: source.rcvbuf_bytes,
            receive_buffer_asked_bytes: source.rcvbuf_asked_bytes,
            retries: source.retry_total,
        }
    }
}

impl From<&OutputSnapshot> for OutputMetrics {
    fn from(output: &OutputSnapshot) -> Self {
        Self {
            name: output.name.to_string(),
            protocol: output.protocol.into(),
            status: output.status.to_string(),
            connected: output.status == OutputStatus::Connected,
            error: output.error.clone(),
            bitrate_kbps: kbps(output.bitrate),
            packets_sent: output.packets,
            bytes_sent: output.bytes,
            packets_sent_gso: output.gso_packets,
            disconnections: output.disconnections,
            round_trip_time_ms: output.round_trip.map(|span| span.as_secs_f64() * 1e3),
            peer_loss_percent: output.peer_loss.map(|share| share * 100.0),
            srt: details_of("srt", output.protocol, &output.details),
            fec: details_of("rtp-fec", output.protocol, &output.details),
            rist: details_of("rist", output.protocol, &output.details),
            rtmp: details_of("rtmp", output.protocol, &output.details),
            ts: output.ts.as_deref().map(TsMetrics::from),
            drops: output.drops.by_cause().into(),
            keyframe_timeouts: output.key_frame_timeout_total,
            legs: output.legs.iter().map(OutputLegMetrics::from).collect(),
            send_buffer_bytes: output.sndbuf_bytes,
            send_buffer_asked_bytes: output.sndbuf_asked_bytes,
            retries: output.retry_total,
        }
    }
}

impl From<&LegSnapshot> for OutputLegMetrics {
    fn from(leg: &LegSnapshot) -> Self {
        Self {
            leg: leg.leg.clone(),
            status: leg.status.to_string(),
            bitrate_kbps: kbps(leg.bitrate),
            packets_sent: leg.packets,
            bytes_sent: leg.bytes,
            packets_sent_gso: leg.gso_packets,
            disconnections: leg.disconnections,
            round_trip_time_ms: leg.round_trip.map(millis),
            peer_loss_percent: leg.peer_loss.map(|share| share * 100.0),
            drops: leg.drops.by_cause().into(),
        }
    }
}

impl From<&MergeSnapshot> for MergeStats {
    fn from(merge: &MergeSnapshot) -> Self {
        let leg = |index: usize| merge.legs.get(index).map_or((0, 0), |(_, leg)| (leg.received, leg.filled));
        let ((source_a_packets, source_a_gap_fills), (source_b_packets, source_b_gap_fills)) = (leg(0), leg(1));
        let stats = merge.stats;
        Self {
            source_a_packets,
            source_a_gap_fills,
            source_b_packets,
            source_b_gap_fills,
            output_packets: stats.released,
            missing_packets: stats.lost,
            duplicate_packets: stats.duplicate,
            late_packets: stats.late,
            forced_packets: stats.forced,
            overflow_packets: stats.overflow,
            restarts: stats.restarts,
            recovery_window_ms: millis(stats.window),
            legs: merge.legs.iter().map(|(name, leg)| LegMetrics::new(name.as_str(), leg)).collect(),
            ts: None,
        }
    }
}

impl LegMetrics {
    fn new(name: &str, leg: &LegStats) -> Self {
        Self {
            name: name.into(),
            alive: leg.is_alive,
            merged: leg.is_merged,
            packets: leg.by_name().into(),
            advised_window_ms: leg.advised_window.map(millis),
            skew: Spans::from(&leg.skew),
            late_by: Spans::from(&leg.late_by),
        }
    }
}

impl From<&Histogram> for Spans {
    fn from(histogram: &Histogram) -> Self {
        let (up_to_ms, counts) = histogram.buckets().map(|(up_to, count)| (millis(up_to), count)).unzip();
        Self { up_to_ms, counts }
    }
}

fn content_quality(snapshot: &FlowSnapshot) -> Option<ContentQuality> {
    let watch = snapshot.watch.as_deref().filter(|watch| watch.settings.content_quality)?;
    Some(ContentQuality::new(watch.report.as_deref()))
}

fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}

/// The figures, if they are this protocol's.
fn details_of(wanted: &str, protocol: &str, details: &[crate::proto::Detail]) -> Option<BTreeMap<&'static str, f64>> {
    (wanted == protocol && !details.is_empty()).then(|| details.iter().copied().collect())
}

/// RFC 3339 in UTC, with milliseconds, as every answer shows times.
#[must_use]
pub fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

fn kbps(rate: Bitrate) -> f64 {
    rate.as_bps() as f64 / 1e3
}
