//! What `route` and `gen` tell while they run: live lines, figures every few seconds, or JSON for machines.

use std::time::Duration;

use serde_json::{Value, json};

use super::live::{LiveBlock, write};
use crate::control::metrics_json;
use crate::control::ts::verdict;
use crate::engine::{Event, FlowSnapshot, LegSnapshot, MergeSnapshot, OutputSnapshot, Severity, SourceSnapshot};
use crate::proto::mpegts::analysis::{Indicator, Snapshot as Ts};

/// How to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// One line per source and output, drawn over and over.
    Live,
    /// Plain lines, figures at an interval or never.
    Lines(Option<Duration>),
    /// JSON, one object a line.
    Json(Option<Duration>),
}

impl Style {
    /// `stats` is in seconds, zero for never.
    pub(super) fn choose(json: bool, stats: Option<u64>, terminal: bool) -> Self {
        let interval = stats.filter(|seconds| *seconds > 0).map(Duration::from_secs);
        if json {
            Self::Json(interval)
        } else if terminal && stats.is_none() {
            Self::Live
        } else {
            Self::Lines(interval)
        }
    }
}

/// Tells what happens, in one style.
#[derive(Debug)]
pub(super) struct Reporter {
    style: Style,
    live: LiveBlock,
    name_width: usize,
}

impl Reporter {
    /// Names are padded to `name_width` characters.
    pub(super) fn new(style: Style, name_width: usize) -> Self {
        Self { style, live: LiveBlock::default(), name_width }
    }

    /// How often figures are wanted.
    pub(super) const fn interval(&self) -> Option<Duration> {
        match self.style {
            Style::Live => Some(LIVE_INTERVAL),
            Style::Lines(interval) | Style::Json(interval) => interval,
        }
    }

    pub(super) fn event(&mut self, event: &Event) {
        let severity = event.kind.severity();
        let time = humantime::format_rfc3339_millis(event.at);
        if matches!(self.style, Style::Json(_)) {
            return print(&json!({
                "type": "event", "event": event.kind.type_name(), "severity": severity.as_str(),
                "message": event.kind.to_string(), "timestamp": time.to_string(),
                "source": event.kind.source().map(ToString::to_string),
                "output": event.kind.output().map(ToString::to_string),
            }));
        }
        let mark = if severity == Severity::Info { "" } else { severity.as_str() };
        let line = format!("{time} {mark}{}{}", if mark.is_empty() { "" } else { ": " }, event.kind);
        if self.style == Style::Live {
            self.live.print_above(&line);
        } else {
            write(&format!("{line}\n"));
        }
    }

    pub(super) fn figures(&mut self, snapshot: &FlowSnapshot) {
        match self.style {
            Style::Live => self.live.draw(&self.lines(snapshot)),
            Style::Lines(_) => write(&joined(&self.lines(snapshot))),
            Style::Json(_) => print(&typed("stats", snapshot)),
        }
    }

    /// Draws several flows at once, each under its name.
    pub(super) fn figures_of<'a>(&mut self, flows: impl Iterator<Item = (&'a str, &'a FlowSnapshot)>) {
        let mut lines = Vec::new();
        for (name, snapshot) in flows {
            lines.push(format!("{name}: {}", snapshot.status));
            lines.extend(self.lines(snapshot));
        }
        self.live.draw(&lines);
    }

    pub(super) fn totals(&mut self, snapshot: &FlowSnapshot) {
        match self.style {
            Style::Json(_) => print(&typed("totals", snapshot)),
            Style::Live | Style::Lines(_) => {
                let end = format!("ended after {:.1} s", snapshot.uptime.as_secs_f64());
                if self.style == Style::Live {
                    self.live.print_above(&end);
                } else {
                    write(&format!("{end}\n"));
                }
                write(&joined(&self.lines(snapshot)));
            }
        }
    }

    fn lines(&self, snapshot: &FlowSnapshot) -> Vec<String> {
        let width = self.name_width;
        let below = move |ts: Option<&Ts>| ts.map(|ts| ts_line(ts, width));
        let sources = snapshot
            .sources
            .iter()
            .flat_map(|source| std::iter::once(source_line(source, width)).chain(below(source.ts.as_deref())));
        let merge = snapshot.merge.iter().map(|merge| merge_line(merge, width));
        let merge = merge.chain(below(snapshot.merged_ts.as_deref()));
        let outputs = snapshot.outputs.iter().flat_map(|output| {
            let legs = output.legs.iter().map(move |leg| leg_line(leg, width));
            std::iter::once(output_line(output, width)).chain(below(output.ts.as_deref())).chain(legs)
        });
        sources.chain(merge).chain(outputs).collect()
    }
}

fn source_line(source: &SourceSnapshot, width: usize) -> String {
    let mark = if source.selected { '>' } else { ' ' };
    let drops = drops(&source.drops.by_cause());
    let lost = if source.lost > 0 { format!("  lost {}", source.lost) } else { String::new() };
    let error = source.error.as_ref().map(|error| format!("  {error}")).unwrap_or_default();
    let rate = source.bitrate.to_string();
    format!(
        "{mark} {:width$}  {:12}  {rate:>12}  {:>11} packets{lost}{drops}{error}",
        source.name.as_str(),
        source.status,
        source.packets
    )
}

fn merge_line(merge: &MergeSnapshot, width: usize) -> String {
    let stats = merge.stats;
    let filled: Vec<String> = merge.legs.iter().map(|(_, leg)| leg.filled.to_string()).collect();
    format!(
        "  {:width$}  {:12}  {:>9} ms  {:>11} packets  lost {}  filled {}",
        "merged",
        if merge.is_active() { "PROTECTED" } else { "UNPROTECTED" },
        stats.window.as_millis(),
        stats.released,
        stats.lost,
        filled.join("/")
    )
}

fn output_line(output: &OutputSnapshot, width: usize) -> String {
    let drops = drops(&output.drops.by_cause());
    let error = output.error.as_ref().map(|error| format!("  {error}")).unwrap_or_default();
    let rate = output.bitrate.to_string();
    format!(
        "  {:width$}  {:12}  {rate:>12}  {:>11} packets{drops}{error}",
        output.name.as_str(),
        output.status,
        output.packets
    )
}

fn leg_line(leg: &LegSnapshot, width: usize) -> String {
    let (drops, rate) = (drops(&leg.drops.by_cause()), leg.bitrate.to_string());
    let lost = leg.peer_loss.map(|share| format!("  peer lost {:.1} %", share * 100.0)).unwrap_or_default();
    format!("  {:width$}  {:12}  {rate:>12}  {:>11} packets  leg {}{lost}{drops}", "", leg.status, leg.packets, leg.leg)
}

/// What the transport stream is like now, and every indicator that had errors.
fn ts_line(ts: &Ts, width: usize) -> String {
    let verdict = match ts.worst_priority() {
        Some(priority) => format!("TS ERROR P{priority}"),
        None => format!("TS {}", verdict(ts).to_uppercase()),
    };
    let bad = Indicator::ALL.into_iter().filter(|indicator| ts.indicator(*indicator).errors > 0);
    let bad: String = bad.map(|bad| format!("  {} {}", bad.name(), ts.indicator(bad).errors)).collect();
    let mdi = ts.mdi.and_then(|mdi| Some((mdi.delay_factor?, mdi.loss_rate)));
    let mdi = mdi.map(|(delay, loss)| format!("  MDI {:.1}:{loss:.0}", delay.as_secs_f64() * 1e3)).unwrap_or_default();
    let (rate, packets) = (ts.rate.to_string(), ts.stats.sync.packets);
    format!("  {:width$}  {verdict:12}  {rate:>12}  {packets:>11} TS packets{mdi}{bad}", "")
}

fn drops(by_cause: &[(&'static str, u64)]) -> String {
    let told = by_cause.iter().filter(|cause| cause.1 > 0);
    told.map(|(cause, count)| format!("  {cause} {count}")).collect()
}

fn joined(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn typed(kind: &str, snapshot: &FlowSnapshot) -> Value {
    let mut value = metrics_json(snapshot);
    value["type"] = kind.into();
    value
}

fn print(value: &Value) {
    write(&format!("{value}\n"));
}

const LIVE_INTERVAL: Duration = Duration::from_secs(1);
