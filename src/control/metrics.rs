//! Prometheus text.
//!
//! Written afresh for every scrape from what runs at that moment, so the series of a removed flow, source or output are
//! gone with it. Labels are ids and names from the configuration and a fixed set of causes: their number is bounded by
//! the number of configured things.

use std::fmt::Write;
use std::sync::Arc;

use super::events::Counts;
use super::manager::{FlowCounts, Running};
use crate::adapters::clock;
use crate::bus::PoolUse;
use crate::engine::{
    FlowStatus, LegSnapshot, MergeSnapshot, OutputSnapshot, OutputStatus, SourceSnapshot, SourceStatus,
};
use crate::media::watch::Report;
use crate::path::health::Fault;
use crate::path::merge::LegStats;
use crate::proto::mpegts::analysis::{Indicator, Snapshot, State};

/// Everything in the text format 0.0.4.
#[must_use]
pub fn prometheus(flows: &[Running], counts: FlowCounts, pool: &PoolUse, events: &Counts) -> String {
    let mut text = Text(String::new());
    text.family("build_info", "gauge", "Version of this program.");
    text.sample("build_info", &[("version", env!("CARGO_PKG_VERSION"))], "1");
    text.family("flows", "gauge", "Flows that exist.");
    text.sample("flows", &[], counts.total);
    text.family("flows_active", "gauge", "Flows that run.");
    text.sample("flows_active", &[], counts.active);
    text.family("pool_reserved_bytes", "gauge", "Packet memory that is reserved.");
    text.sample("pool_reserved_bytes", &[], pool.reserved_bytes);
    text.family("pool_exhausted_total", "counter", "Times that packet memory was used up.");
    text.sample("pool_exhausted_total", &[], pool.exhausted_total);
    text.events(events);
    text.flows(flows);
    text.merges(flows);
    text.sources(flows);
    text.streams(flows);
    text.watched(flows);
    text.outputs(flows);
    text.output_legs(flows);
    text.0
}

/// Content type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Name, type and help of a metric, and how to read it; `None` where it is not measured.
type Family<Of> = (&'static str, &'static str, &'static str, fn(&Of) -> Option<String>);

const FLOWS: [Family<Running>; 5] = [
    ("flow_up", "gauge", "1 if the flow runs, 0 if none of its sources can be opened.", |flow| {
        flag(flow.snapshot.status == FlowStatus::Active)
    }),
    ("flow_uptime_seconds", "gauge", "Time since the flow was started.", |flow| {
        number(flow.snapshot.uptime.as_secs_f64())
    }),
    ("flow_failovers_total", "counter", "Switches to another source, returns included.", |flow| {
        number(flow.snapshot.failover_total)
    }),
    ("flow_primary_returns_total", "counter", "Returns to the primary source.", |flow| {
        number(flow.snapshot.primary_return_total)
    }),
    ("flow_keyframe_timeouts_total", "counter", "Changes of the source that waited for a key frame in vain.", |flow| {
        number(flow.snapshot.key_frame_timeout_total)
    }),
];

const SOURCES: [Family<SourceSnapshot>; 11] = [
    ("source_up", "gauge", "1 if packets arrive.", |source| flag(source.status == SourceStatus::Connected)),
    ("source_selected", "gauge", "1 if the flow uses this source now.", |source| flag(source.selected)),
    ("source_bitrate_bps", "gauge", "Payload over the last second, in bits per second.", |source| {
        number(source.bitrate.as_bps())
    }),
    ("source_packets_total", "counter", "Payload packets taken in.", |source| number(source.packets)),
    ("source_bytes_total", "counter", "Payload bytes taken in.", |source| number(source.bytes)),
    ("source_lost_packets_total", "counter", "Packets missing at their deadline.", |source| number(source.lost)),
    ("source_recovered_packets_total", "counter", "Packets that were missing and brought back.", |source| {
        number(source.recovered)
    }),
    ("source_jitter_seconds", "gauge", "Interarrival jitter.", |source| number(source.jitter.as_secs_f64())),
    ("source_round_trip_seconds", "gauge", "Round-trip time, where the protocol measures it.", |source| {
        source.round_trip.and_then(|span| number(span.as_secs_f64()))
    }),
    ("source_receive_buffer_bytes", "gauge", "Receive buffer that the kernel granted.", |source| {
        number(source.rcvbuf_bytes)
    }),
    ("source_retries_total", "counter", "Times it was opened again after a failure.", |source| {
        number(source.retry_total)
    }),
];

const STREAMS: [Family<Snapshot>; 10] = [
    ("ts_sync", "gauge", "1 if TS packets are found.", |ts| flag(ts.is_locked)),
    ("ts_bitrate_bps", "gauge", "TS packets over the last second, in bits per second.", |ts| number(ts.rate.as_bps())),
    ("ts_null_bitrate_bps", "gauge", "Null packets of that.", |ts| number(ts.null_rate.as_bps())),
    ("ts_pcr_bitrate_bps", "gauge", "Rate that the stream was made for, by PCR.", |ts| {
        ts.pcr_rate.and_then(|rate| number(rate.as_bps()))
    }),
    ("ts_pcr_accuracy_seconds", "gauge", "Greatest error of a PCR over the last second, at a constant rate.", |ts| {
        ts.pcr_accuracy.and_then(|error| number(error.as_secs_f64()))
    }),
    ("ts_packets_total", "counter", "TS packets found.", |ts| number(ts.stats.sync.packets)),
    ("ts_lost_packets_min_total", "counter", "TS packets missing by continuity counters, at least.", |ts| {
        number(ts.stats.lost_min)
    }),
    ("ts_mdi_delay_factor_seconds", "gauge", "Media Delivery Index: delay factor (RFC 4445).", |ts| {
        ts.mdi?.delay_factor.and_then(|delay| number(delay.as_secs_f64()))
    }),
    ("ts_splice_sections_total", "counter", "Sections of splice information (SCTE 35).", |ts| {
        number(ts.cues.sections())
    }),
    ("ts_mdi_loss_rate", "gauge", "Media Delivery Index: TS packets lost in a second (RFC 4445).", |ts| {
        number(ts.mdi?.loss_rate)
    }),
];

const WATCHED: [Family<Report>; 15] = [
    ("video_black", "gauge", "1 if the picture is black, 0 if not; none if unknown.", |of| {
        of.content.black.and_then(flag)
    }),
    ("video_frozen", "gauge", "1 if the picture stands still, 0 if not; none if unknown.", |of| {
        of.content.frozen.and_then(flag)
    }),
    ("video_present", "gauge", "1 if pictures come.", |of| of.content.video_present.and_then(flag)),
    ("audio_silent", "gauge", "1 if the sound is silent, 0 if not; none if unknown.", |of| {
        of.content.silent.and_then(flag)
    }),
    ("audio_present", "gauge", "1 if sound comes.", |of| of.content.audio_present.and_then(flag)),
    ("audio_loudness_momentary_lufs", "gauge", "Loudness over 400 ms (EBU R 128).", |of| {
        level(of.content.loudness?.momentary_lufs)
    }),
    ("audio_loudness_short_term_lufs", "gauge", "Loudness over 3 s (EBU R 128).", |of| {
        level(of.content.loudness?.short_term_lufs)
    }),
    ("audio_loudness_integrated_lufs", "gauge", "Loudness since the beginning (EBU R 128).", |of| {
        level(of.content.loudness?.integrated_lufs)
    }),
    ("audio_true_peak_dbtp", "gauge", "Highest peak between samples since the beginning.", |of| {
        level(of.content.loudness?.true_peak_dbtp)
    }),
    ("thumbnail_age_seconds", "gauge", "Age of the latest thumbnail.", |of| {
        of.thumbnail.as_ref().and_then(|picture| number(clock::now().since(picture.taken).as_secs_f64()))
    }),
    ("decode_cpu_seconds_total", "counter", "Computing time spent on looking and listening.", |of| {
        number(of.counts.cpu_ns as f64 / 1e9)
    }),
    ("decode_pictures_total", "counter", "Pictures decoded.", |of| number(of.counts.pictures_decoded)),
    ("decode_failures_total", "counter", "Pictures and units of sound that could not be decoded.", |of| {
        number(of.counts.pictures_failed + of.counts.sounds_failed)
    }),
    ("decoder_restarts_total", "counter", "Decoders that crashed or took too long.", |of| {
        number(of.counts.decoder_restarts)
    }),
    ("watch_missed_packets_total", "counter", "Packets that were overwritten before they were looked at.", |of| {
        number(of.counts.packets_missed)
    }),
];

const OUTPUTS: [Family<OutputSnapshot>; 11] = [
    ("output_up", "gauge", "1 if packets go out.", |output| flag(output.status == OutputStatus::Connected)),
    ("output_bitrate_bps", "gauge", "Payload over the last second, in bits per second.", |output| {
        number(output.bitrate.as_bps())
    }),
    ("output_packets_total", "counter", "Media datagrams handed to the kernel.", |output| number(output.packets)),
    ("output_bytes_total", "counter", "Payload bytes handed to the kernel.", |output| number(output.bytes)),
    ("output_gso_packets_total", "counter", "Datagrams that left together with others in one send.", |output| {
        number(output.gso_packets)
    }),
    ("output_disconnections_total", "counter", "Times the destination or the system began to refuse.", |output| {
        number(output.disconnections)
    }),
    (
        "output_keyframe_timeouts_total",
        "counter",
        "Times that it went on without the key frame it waited for.",
        |output| number(output.key_frame_timeout_total),
    ),
    ("output_round_trip_seconds", "gauge", "Round-trip time, where the protocol measures it.", |output| {
        output.round_trip.and_then(|span| number(span.as_secs_f64()))
    }),
    ("output_peer_loss_ratio", "gauge", "Share of packets that the peer says it lost lately.", |output| {
        output.peer_loss.and_then(number)
    }),
    ("output_send_buffer_bytes", "gauge", "Send buffer that the kernel granted.", |output| number(output.sndbuf_bytes)),
    ("output_retries_total", "counter", "Times it was opened again after a failure.", |output| {
        number(output.retry_total)
    }),
];

const OUTPUT_LEGS: [Family<LegSnapshot>; 7] = [
    ("output_leg_up", "gauge", "1 if the leg of the output works.", |leg| flag(leg.status == OutputStatus::Connected)),
    ("output_leg_bitrate_bps", "gauge", "Payload over the last second, in bits per second.", |leg| {
        number(leg.bitrate.as_bps())
    }),
    ("output_leg_packets_total", "counter", "Media datagrams handed to the kernel.", |leg| number(leg.packets)),
    ("output_leg_bytes_total", "counter", "Payload bytes handed to the kernel.", |leg| number(leg.bytes)),
    ("output_leg_disconnections_total", "counter", "Times the destination or the system began to refuse.", |leg| {
        number(leg.disconnections)
    }),
    ("output_leg_round_trip_seconds", "gauge", "Round-trip time to the receiver at its end.", |leg| {
        leg.round_trip.and_then(|span| number(span.as_secs_f64()))
    }),
    ("output_leg_peer_loss_ratio", "gauge", "Share of packets that this receiver says it lost lately.", |leg| {
        leg.peer_loss.and_then(number)
    }),
];

const MERGES: [Family<MergeSnapshot>; 6] = [
    ("merge_active", "gauge", "1 if two or more merged sources deliver the same packets.", |merge| {
        flag(merge.is_active())
    }),
    ("merge_output_packets_total", "counter", "Packets released, each once and in order.", |merge| {
        number(merge.stats.released)
    }),
    ("merge_missing_packets_total", "counter", "Packets that no source brought in time.", |merge| {
        number(merge.stats.lost)
    }),
    ("merge_late_packets_total", "counter", "Packets that came after they were given up.", |merge| {
        number(merge.stats.late)
    }),
    ("merge_restarts_total", "counter", "Times that the merged stream started over.", |merge| {
        number(merge.stats.restarts)
    }),
    ("merge_recovery_window_seconds", "gauge", "How long a missing packet is waited for.", |merge| {
        number(merge.stats.window.as_secs_f64())
    }),
];

const LEGS: [Family<LegStats>; 3] = [
    ("leg_up", "gauge", "1 if the merged source delivers.", |leg| flag(leg.is_alive)),
    ("leg_merged", "gauge", "1 if it carries what the others do.", |leg| flag(leg.is_merged)),
    ("leg_advised_window_seconds", "gauge", "The recovery window that it would have needed of late.", |leg| {
        leg.advised_window.and_then(|window| number(window.as_secs_f64()))
    }),
];

struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "# HELP {PREFIX}{name} {help}\n# TYPE {PREFIX}{name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.0.push_str(PREFIX);
        self.0.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            let _ = write!(self.0, "{}{label}=\"", if index == 0 { '{' } else { ',' });
            escape(&mut self.0, text);
            self.0.push('"');
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    fn events(&mut self, events: &Counts) {
        self.family("events_total", "counter", "Events since the start of the process.");
        for (kind, count) in &events.by_type {
            self.sample("events_total", &[("type", kind)], count);
        }
        self.family("events_dropped_total", "counter", "Events that were not stored.");
        self.sample("events_dropped_total", &[("cause", "queue_full")], events.dropped_queue_full);
        self.sample("events_dropped_total", &[("cause", "storage")], events.dropped_storage);
    }

    fn flows(&mut self, flows: &[Running]) {
        self.family("flow_info", "gauge", "Name of the flow.");
        for flow in flows {
            self.sample("flow_info", &[("flow", flow.id.as_str()), ("name", &flow.name)], 1);
        }
        for (name, kind, help, read) in FLOWS {
            self.family(name, kind, help);
            for flow in flows {
                self.sample(name, &[("flow", flow.id.as_str())], read(flow).unwrap_or_default());
            }
        }
        self.family("flow_switches_total", "counter", "Switches to another source by cause, without returns.");
        for flow in flows {
            for (cause, count) in flow.snapshot.switches.by_cause() {
                self.sample("flow_switches_total", &[("flow", flow.id.as_str()), ("cause", cause)], count);
            }
        }
    }

    fn merges(&mut self, flows: &[Running]) {
        let merged = || flows.iter().filter_map(|flow| flow.snapshot.merge.as_ref().map(|merge| (flow, merge)));
        for (name, kind, help, read) in MERGES {
            self.family(name, kind, help);
            for (flow, merge) in merged() {
                self.sample(name, &[("flow", flow.id.as_str())], read(merge).unwrap_or_default());
            }
        }
        let legs = || merged().flat_map(|(flow, merge)| merge.legs.iter().map(move |(name, leg)| (flow, name, leg)));
        for (name, kind, help, read) in LEGS {
            self.family(name, kind, help);
            for (flow, source, leg) in legs() {
                if let Some(value) = read(leg) {
                    self.sample(name, &[("flow", flow.id.as_str()), ("source", source.as_str())], value);
                }
            }
        }
        self.family("leg_packets_total", "counter", "Packets of merged sources and what became of them, by name.");
        for (flow, source, leg) in legs() {
            for (name, count) in leg.by_name() {
                let labels = [("flow", flow.id.as_str()), ("source", source.as_str()), ("name", name)];
                self.sample("leg_packets_total", &labels, count);
            }
        }
    }

    fn sources(&mut self, flows: &[Running]) {
        let all = || flows.iter().flat_map(|flow| flow.snapshot.sources.iter().map(move |source| (flow, source)));
        for (name, kind, help, read) in SOURCES {
            self.family(name, kind, help);
            for (flow, source) in all() {
                if let Some(value) = read(source) {
                    self.sample(name, &[("flow", flow.id.as_str()), ("source", source.name.as_str())], value);
                }
            }
        }
        self.family("source_drops_total", "counter", "Datagrams that went no further, by cause.");
        for (flow, source) in all() {
            for (cause, count) in source.drops.by_cause() {
                let labels = [("flow", flow.id.as_str()), ("source", source.name.as_str()), ("cause", cause)];
                self.sample("source_drops_total", &labels, count);
            }
        }
        self.family("source_fault", "gauge", "1 while the source is faulty in this way by switch_on.");
        for (flow, source) in all() {
            for fault in Fault::ALL {
                let labels = [("flow", flow.id.as_str()), ("source", source.name.as_str()), ("fault", fault.as_str())];
                self.sample("source_fault", &labels, u8::from(source.fault == Some(fault)));
            }
        }
        self.family("source_detail", "gauge", "The protocol's own figures under the names of its users.");
        for (flow, source) in all() {
            for (name, value) in &source.details {
                let (flow, source_name) = (flow.id.as_str(), source.name.as_str());
                let labels = [("flow", flow), ("source", source_name), ("protocol", source.protocol), ("name", *name)];
                self.sample("source_detail", &labels, value);
            }
        }
    }

    /// Of sources that are analysed, under an empty name of what they are merged into, and of outputs that are.
    fn streams(&mut self, flows: &[Running]) {
        let all = || {
            flows.iter().flat_map(|flow| {
                let sources = flow.snapshot.sources.iter();
                let sources = sources.filter_map(|source| Some((source.name.as_str(), source.ts.as_deref()?)));
                let outputs = flow.snapshot.outputs.iter();
                let outputs =
                    outputs.filter_map(|output| Some((("output", output.name.as_str()), output.ts.as_deref()?)));
                let streams = sources.chain(flow.snapshot.merged_ts.as_deref().map(|ts| ("", ts)));
                let streams = streams.map(|(name, ts)| (("source", name), ts)).chain(outputs);
                streams.map(move |(of, ts)| ([("flow", flow.id.as_str()), of], ts))
            })
        };
        for (name, kind, help, read) in STREAMS {
            self.family(name, kind, help);
            for (labels, ts) in all() {
                if let Some(value) = read(ts) {
                    self.sample(name, &labels, value);
                }
            }
        }
        self.family("ts_errors_total", "counter", "Errors by indicator of ETSI TR 101 290.");
        for ([flow, source], ts) in all() {
            for indicator in Indicator::ALL {
                let priority = indicator.priority().to_string();
                let labels = [flow, source, ("indicator", indicator.name()), ("priority", &priority)];
                self.sample("ts_errors_total", &labels, ts.indicator(indicator).errors);
            }
        }
        self.family("ts_state", "gauge", "Indicators of ETSI TR 101 290: 0 good, 1 warning, 2 error; none if unknown.");
        for ([flow, source], ts) in all() {
            for indicator in Indicator::ALL {
                let state = match ts.indicator(indicator).state {
                    State::Unknown(_) => continue,
                    State::Good => 0,
                    State::Warning => 1,
                    State::Error => 2,
                };
                self.sample("ts_state", &[flow, source, ("indicator", indicator.name())], state);
            }
        }
    }

    /// Of sources that are watched one by one, or else under an empty name of what outputs get.
    fn watched(&mut self, flows: &[Running]) {
        let of_flow = |flow: &Running| {
            let watch = flow.snapshot.watch.as_deref();
            let sources = watch.map_or(&[][..], |watch| &watch.sources);
            let whole = watch.filter(|watch| watch.sources.is_empty()).and_then(|watch| watch.report.clone());
            let mut reports: Vec<(String, Arc<Report>)> =
                sources.iter().map(|(name, report)| (name.to_string(), Arc::clone(report))).collect();
            reports.extend(whole.map(|report| (String::new(), report)));
            (flow.id.to_string(), reports)
        };
        let all: Vec<_> = flows.iter().map(of_flow).collect();
        for (name, kind, help, read) in WATCHED {
            self.family(name, kind, help);
            for (flow, reports) in &all {
                for (source, report) in reports {
                    if let Some(value) = read(report) {
                        self.sample(name, &[("flow", flow), ("source", source)], value);
                    }
                }
            }
        }
    }

    fn outputs(&mut self, flows: &[Running]) {
        let all = || flows.iter().flat_map(|flow| flow.snapshot.outputs.iter().map(move |output| (flow, output)));
        for (name, kind, help, read) in OUTPUTS {
            self.family(name, kind, help);
            for (flow, output) in all() {
                if let Some(value) = read(output) {
                    self.sample(name, &[("flow", flow.id.as_str()), ("output", output.name.as_str())], value);
                }
            }
        }
        self.family("output_drops_total", "counter", "Packets that did not go out, by cause.");
        for (flow, output) in all() {
            for (cause, count) in output.drops.by_cause() {
                let labels = [("flow", flow.id.as_str()), ("output", output.name.as_str()), ("cause", cause)];
                self.sample("output_drops_total", &labels, count);
            }
        }
        self.family("output_detail", "gauge", "The protocol's own figures under the names of its users.");
        for (flow, output) in all() {
            for (name, value) in &output.details {
                let (flow, output_name) = (flow.id.as_str(), output.name.as_str());
                let labels = [("flow", flow), ("output", output_name), ("protocol", output.protocol), ("name", *name)];
                self.sample("output_detail", &labels, value);
            }
        }
    }

    fn output_legs(&mut self, flows: &[Running]) {
        let outputs = || flows.iter().flat_map(|flow| flow.snapshot.outputs.iter().map(move |output| (flow, output)));
        let all = || outputs().flat_map(|(flow, output)| output.legs.iter().map(move |leg| (flow, output, leg)));
        for (name, kind, help, read) in OUTPUT_LEGS {
            self.family(name, kind, help);
            for (flow, output, leg) in all() {
                if let Some(value) = read(leg) {
                    let labels = [("flow", flow.id.as_str()), ("output", output.name.as_str()), ("leg", &leg.leg)];
                    self.sample(name, &labels, value);
                }
            }
        }
        self.family("output_leg_drops_total", "counter", "Packets that did not go out on this leg, by cause.");
        for (flow, output, leg) in all() {
            for (cause, count) in leg.drops.by_cause() {
                let (flow, output, leg) = (flow.id.as_str(), output.name.as_str(), leg.leg.as_str());
                let labels = [("flow", flow), ("output", output), ("leg", leg), ("cause", cause)];
                self.sample("output_leg_drops_total", &labels, count);
            }
        }
    }
}

#[allow(clippy::unnecessary_wraps, reason = "families that are not always measured have the same type")]
fn number(value: impl ToString) -> Option<String> {
    Some(value.to_string())
}

fn level(level: Option<f32>) -> Option<String> {
    level.filter(|level| level.is_finite()).and_then(number)
}

fn flag(is_so: bool) -> Option<String> {
    number(u8::from(is_so))
}

/// Label values escape backslash, quote and line feed.
fn escape(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
}

const PREFIX: &str = "anabranch_";

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::engine::{FlowSnapshot, OutputDrops, SourceDrops, WatchSnapshot};
    use crate::media::watch::{Content, Settings, WatchCounts};
    use crate::path::failover::Switches;
    use crate::path::merge;
    use crate::proto::mpegts::analysis::Analyser;
    use crate::units::{Bitrate, Time};

    fn running() -> Running {
        let source = SourceSnapshot {
            name: r#"a"\b"#.parse().unwrap(),
            status: SourceStatus::Connected,
            error: None,
            protocol: "udp",
            selected: true,
            merged: true,
            fault: Some(Fault::TsErrors),
            bitrate: Bitrate::from_bps(20_000_000),
            packets: u64::MAX,
            bytes: 7,
            lost: 0,
            recovered: 0,
            jitter: Duration::from_micros(250),
            round_trip: None,
            details: vec![("pktRcvLoss", 7.5)],
            ts: Some(Box::new(Analyser::new(Time::ZERO).snapshot())),
            drops: SourceDrops { kernel: 3, ..SourceDrops::default() },
            rcvbuf_bytes: 0,
            rcvbuf_asked_bytes: 0,
            retry_total: 0,
        };
        let output_leg = LegSnapshot {
            leg: "10.0.0.2:5004@eth1".into(),
            status: OutputStatus::Error,
            bitrate: Bitrate::ZERO,
            packets: 9,
            bytes: 0,
            gso_packets: 0,
            disconnections: 1,
            round_trip: None,
            peer_loss: Some(0.25),
            drops: OutputDrops { refused: 4, ..OutputDrops::default() },
        };
        let leg = LegStats { filled: 5, is_alive: true, ..LegStats::default() };
        let stats = merge::Stats { window: Duration::from_millis(100), ..merge::Stats::default() };
        let merge = MergeSnapshot { stats, legs: vec![(source.name.clone(), leg)] };
        let content = Content { black: Some(false), silent: Some(true), ..Content::default() };
        let counts = WatchCounts { cpu_ns: 1_500_000_000, ..WatchCounts::default() };
        let report = Some(Arc::new(Report { content, counts, ..Report::default() }));
        let watch = WatchSnapshot { settings: Settings::default(), report, sources: Vec::new() };
        let snapshot = FlowSnapshot {
            status: FlowStatus::Active,
            active_source: None,
            uptime: Duration::from_millis(1_500),
            failover_total: 2,
            switches: Switches { loss: 1, ..Switches::default() },
            primary_return_total: 1,
            key_frame_timeout_total: 0,
            events_dropped_total: 0,
            merge: Some(merge),
            merged_ts: None,
            watch: Some(Box::new(watch)),
            sources: vec![source],
            outputs: vec![output(output_leg)],
        };
        Running { id: "7".parse().unwrap(), name: "news".into(), snapshot }
    }

    fn output(leg: LegSnapshot) -> OutputSnapshot {
        OutputSnapshot {
            name: "north".parse().unwrap(),
            status: OutputStatus::Connected,
            error: None,
            protocol: "rtp",
            bitrate: Bitrate::ZERO,
            packets: 13,
            bytes: 0,
            gso_packets: 0,
            disconnections: 0,
            round_trip: None,
            peer_loss: None,
            details: Vec::new(),
            ts: None,
            drops: OutputDrops::default(),
            key_frame_timeout_total: 0,
            legs: vec![leg],
            sndbuf_bytes: 0,
            sndbuf_asked_bytes: 0,
            retry_total: 0,
        }
    }

    fn text(flows: &[Running]) -> String {
        let counts = FlowCounts { total: 2, active: flows.len() };
        let events = Counts { by_type: BTreeMap::from([("flow_started", 4)]), ..Counts::default() };
        prometheus(flows, counts, &PoolUse { reserved_bytes: 4_096, exhausted_total: 0 }, &events)
    }

    #[test]
    fn values_are_exact_and_labels_escaped() {
        let text = text(&[running()]);
        for line in [
            "anabranch_flows 2",
            "anabranch_pool_reserved_bytes 4096",
            "anabranch_events_total{type=\"flow_started\"} 4",
            "anabranch_flow_info{flow=\"7\",name=\"news\"} 1",
            "anabranch_flow_uptime_seconds{flow=\"7\"} 1.5",
            r#"anabranch_source_packets_total{flow="7",source="a\"\\b"} 18446744073709551615"#,
            r#"anabranch_source_jitter_seconds{flow="7",source="a\"\\b"} 0.00025"#,
            r#"anabranch_flow_switches_total{flow="7",cause="loss"} 1"#,
            r#"anabranch_source_fault{flow="7",source="a\"\\b",fault="ts_errors"} 1"#,
            r#"anabranch_source_drops_total{flow="7",source="a\"\\b",cause="kernel"} 3"#,
            "anabranch_merge_recovery_window_seconds{flow=\"7\"} 0.1",
            r#"anabranch_video_black{flow="7",source=""} 0"#,
            r#"anabranch_audio_silent{flow="7",source=""} 1"#,
            r#"anabranch_decode_cpu_seconds_total{flow="7",source=""} 1.5"#,
            r#"anabranch_ts_errors_total{flow="7",source="a\"\\b",indicator="pat_error",priority="1"} 0"#,
            r#"anabranch_leg_up{flow="7",source="a\"\\b"} 1"#,
            r#"anabranch_leg_packets_total{flow="7",source="a\"\\b",name="filled"} 5"#,
            r#"anabranch_ts_sync{flow="7",source="a\"\\b"} 0"#,
            r#"anabranch_output_leg_up{flow="7",output="north",leg="10.0.0.2:5004@eth1"} 0"#,
            r#"anabranch_output_leg_peer_loss_ratio{flow="7",output="north",leg="10.0.0.2:5004@eth1"} 0.25"#,
            r#"anabranch_output_leg_drops_total{flow="7",output="north",leg="10.0.0.2:5004@eth1",cause="refused"} 4"#,
            r#"anabranch_source_detail{flow="7",source="a\"\\b",protocol="udp",name="pktRcvLoss"} 7.5"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} not in\n{text}");
        }
        assert!(!text.contains("source_round_trip_seconds{"));
        assert!(!text.contains("video_frozen{"), "it is not known");
    }

    #[test]
    fn every_sample_has_its_help_and_type_before_it_once() {
        let text = text(&[running()]);
        let mut announced = std::collections::BTreeSet::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                assert!(announced.insert(rest.split(' ').next().unwrap().to_string()), "{line} twice");
            } else if !line.starts_with('#') {
                let name = line.split(['{', ' ']).next().unwrap();
                assert!(announced.contains(name), "{line}");
            }
        }
    }

    #[test]
    fn without_flows_there_are_no_series_of_flows() {
        assert!(!text(&[]).lines().any(|line| line.contains("flow=\"")));
    }
}
