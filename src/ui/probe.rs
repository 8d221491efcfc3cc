//! `anabranch probe`: what a live source or a file carries, and what is wrong with it.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufReader, Read, Write as _, stdout};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use serde_json::{Value, json};

use super::{Failure, cli, route};
use crate::control::content::StreamMetadata;
use crate::control::shutdown_signal;
use crate::control::ts::{TsMetrics, kind};
use crate::engine::{Engine, EngineConfig, FailoverConfig, FlowConfig, Mode, MonitorConfig};
use crate::media::watch::{Metadata, Settings, Watch};
use crate::proto::mpegts::analysis::{Analyser, Indicator, Snapshot, State};
use crate::proto::mpegts::{Observer, PcrReading, Pid, Scanner, Stream, TS_PACKET_BYTES};
use crate::units::{Bitrate, FlowId, Time};

pub(super) fn run(probe: &cli::Probe) -> Result<(), Failure> {
    let limit = probe.seconds.map(Duration::from_secs);
    let is_url = probe.input.contains("://") || probe.input.starts_with("test:");
    let Found { mut ts, metadata, span } = if is_url {
        live(&probe.input, limit.unwrap_or(LIVE_SPAN))?
    } else {
        file(probe.input.strip_prefix("file:").unwrap_or(&probe.input), limit)?
    };
    if ts.stats.sync.packets == 0 {
        let bytes = ts.stats.sync.skipped_bytes;
        let what = if bytes == 0 { "nothing came".into() } else { format!("no TS packets in {bytes} bytes") };
        return Err(anyhow!("{}: {what}", probe.input).into());
    }
    average(&mut ts, span);
    let streams: Vec<StreamMetadata> = metadata.streams.iter().map(StreamMetadata::from).collect();
    let text = if probe.json {
        let mut value = serde_json::to_value(TsMetrics::from(&*ts))?;
        if let Some(object) = value.as_object_mut() {
            // Over all that was seen, not only how it stood at the end.
            let judgement = Judgement::of(&ts, None);
            if judgement.errors > 0 {
                object.insert("verdict".into(), "error".into());
            }
            object.insert("worst_priority".into(), judgement.worst.into());
            let priorities = [1, 2, 3].map(|priority| Judgement::of(&ts, Some(priority)).to_json());
            object.insert("priorities".into(), priorities.to_vec().into());
            object.insert("streams".into(), serde_json::to_value(&streams)?);
            object.insert("input".into(), probe.input.clone().into());
            object.insert("seconds".into(), span.as_secs_f64().into());
        }
        format!("{value}\n")
    } else {
        describe(&probe.input, &ts, &streams, span)
    };
    // Whoever reads may have gone: that is no failure.
    let _ = stdout().write_all(text.as_bytes());
    Ok(())
}

/// What is to be said.
struct Found {
    ts: Box<Snapshot>,
    metadata: Arc<Metadata>,
    /// How long it was looked at.
    span: Duration,
}

/// Runs a flow without outputs for a while.
fn live(url: &str, span: Duration) -> Result<Found, Failure> {
    let config = FlowConfig {
        name: "probe".into(),
        sources: vec![route::source(0, url)?],
        outputs: Vec::new(),
        failover: FailoverConfig::default(),
        monitor: MonitorConfig { ts_analysis: true, ..MonitorConfig::default() },
    };
    let id: FlowId = "probe".parse().map_err(Failure::usage)?;
    let engine = Engine::start(&EngineConfig { workers: 1, ..EngineConfig::default() }, |_event| {})?;
    engine.apply(&id, config, Mode::Strict).map_err(Failure::usage)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        tokio::select! {
            result = shutdown_signal() => result,
            () = tokio::time::sleep(span) => Ok(()),
        }
    })?;
    let report = engine.watch(&id).and_then(|watched| watched.report);
    let last = engine.finish(&id);
    engine.shutdown();
    let source = last.and_then(|flow| flow.sources.into_iter().next());
    let source = source.ok_or_else(|| anyhow!("{url}: could not be opened"))?;
    let uptime = source.ts.as_ref().map_or(span, |ts| ts.span);
    let ts = source.ts.ok_or_else(|| anyhow!("{url}: {}", source.error.unwrap_or_else(|| "nothing came".into())))?;
    Ok(Found { ts, metadata: report.map(|report| Arc::clone(&report.metadata)).unwrap_or_default(), span: uptime })
}

/// Plays a file at the pace of its clock references, as fast as it can be read.
fn file(path: &str, limit: Option<Duration>) -> Result<Found, Failure> {
    let opened = File::open(Path::new(path)).with_context(|| format!("cannot open {path}"))?;
    let mut reader = BufReader::with_capacity(1 << 20, opened);
    let mut player = Player::default();
    let mut piece = [0; TS_PACKET_BYTES];
    loop {
        let len = read_full(&mut reader, &mut piece).with_context(|| format!("cannot read {path}"))?;
        player.push(piece.get(..len).unwrap_or_default());
        let is_over = limit.is_some_and(|limit| player.now.since(START) >= limit);
        if len < piece.len() || is_over {
            break;
        }
    }
    player.flush(player.pace);
    player.analyser.handle_timeout(player.now);
    player.watch.handle_timeout(player.watch.poll_timeout());
    let metadata = Arc::clone(player.watch.metadata());
    Ok(Found { ts: Box::new(player.analyser.snapshot()), metadata, span: player.now.since(START) })
}

fn read_full(reader: &mut impl Read, out: &mut [u8]) -> std::io::Result<usize> {
    let mut len = 0;
    while let Some(rest) = out.get_mut(len..).filter(|rest| !rest.is_empty()) {
        match reader.read(rest)? {
            0 => break,
            more => len += more,
        }
    }
    Ok(len)
}

/// Gives the bytes of a file the times that its PCRs imply: evenly between two of them.
struct Player {
    analyser: Analyser,
    watch: Watch,
    now: Time,
    finder: Scanner,
    clock: Clock,
    /// Since the last PCR; at most [`PENDING_BYTES_MAX`].
    pending: Vec<u8>,
    /// How much of that came before the first PCR, and tells nothing of the time between it and the second.
    before_clock: usize,
    /// Time that a piece takes, as of the last two PCRs.
    pace: Duration,
}

/// The first PID with PCR, and what the last one was.
#[derive(Default)]
struct Clock {
    pid: Option<Pid>,
    found: Option<PcrReading>,
}

impl Observer for Clock {
    fn handle_pcr(&mut self, _now: Time, pid: Pid, reading: &PcrReading) {
        if *self.pid.get_or_insert(pid) == pid {
            self.found = Some(*reading);
        }
    }
}

impl Default for Player {
    fn default() -> Self {
        Self {
            analyser: Analyser::new(START),
            watch: Watch::new(START, Settings::default()),
            now: START,
            finder: Scanner::default(),
            clock: Clock::default(),
            pending: Vec::new(),
            before_clock: 0,
            pace: Bitrate::from_bps(ASSUMED_BPS).time_for(crate::units::DataSize::from_bytes(TS_PACKET_BYTES as u64)),
        }
    }
}

impl Player {
    fn push(&mut self, piece: &[u8]) {
        self.finder.push(self.now, piece, &mut self.clock);
        if let Some(reading) = self.clock.found.take() {
            let pieces = ((self.pending.len() - self.before_clock) / TS_PACKET_BYTES) as u32;
            let step = reading.step.filter(|_| !reading.is_restart).and_then(|step| u64::try_from(step).ok());
            if let Some(step) = step.filter(|_| pieces > 0) {
                self.pace = Duration::from_nanos(step * 1_000 / 27) / pieces;
            }
            // Before the first interval is known, all waits for it.
            if step.is_some() || reading.is_restart && self.now > START {
                self.flush(self.pace);
            } else {
                self.before_clock = self.pending.len();
            }
        } else if self.pending.len() >= PENDING_BYTES_MAX {
            self.flush(self.pace);
        }
        self.pending.extend_from_slice(piece);
    }

    fn flush(&mut self, pace: Duration) {
        for piece in self.pending.chunks(TS_PACKET_BYTES) {
            self.analyser.handle_packet(self.now, piece, None);
            self.watch.handle_packet(self.now, piece);
            if self.now >= self.watch.poll_timeout() {
                self.watch.handle_timeout(self.now);
            }
            self.now += pace;
        }
        self.pending.clear();
        self.before_clock = 0;
    }
}

/// Rates over all that was seen, instead of the last second.
fn average(snapshot: &mut Snapshot, span: Duration) {
    let rate = |packets: u64| {
        let bps = packets as f64 * TS_PACKET_BYTES as f64 * 8.0 / span.as_secs_f64().max(1e-3);
        Bitrate::from_bps(bps as u64)
    };
    snapshot.rate = rate(snapshot.stats.sync.packets);
    snapshot.null_rate = rate(snapshot.stats.nulls);
    snapshot.pids.iter_mut().for_each(|pid| pid.rate = rate(pid.packets));
}

fn describe(input: &str, ts: &Snapshot, streams: &[StreamMetadata], span: Duration) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "{input}: {} in {:.1} s, {} TS packets of {} bytes, {:.1} % null",
        ts.rate,
        span.as_secs_f64(),
        ts.stats.sync.packets,
        ts.stride.unwrap_or(TS_PACKET_BYTES),
        ts.stats.nulls as f64 * 100.0 / ts.stats.sync.packets.max(1) as f64,
    );
    if let Some(rate) = ts.pcr_rate {
        let constancy = match ts.is_constant {
            Some(true) => "constant",
            Some(false) => "not constant",
            None => "too short to tell whether constant",
        };
        let _ = writeln!(text, "by PCR: {rate}, {constancy}");
    }
    for program in &ts.programs {
        let service = program.service.as_ref();
        let name = service.map_or_else(String::new, |service| format!(" \"{}\" ({})", service.name, service.provider));
        let _ = writeln!(text, "program {}{name}, PMT on PID {}", program.number, program.pmt_pid.value());
        for stream in program.pmt.iter().flat_map(|pmt| &pmt.streams) {
            let is_clock = program.pmt.as_ref().is_some_and(|pmt| pmt.pcr_pid == Some(stream.pid));
            let is_it = |seen: &&StreamMetadata| (seen.program_id, seen.pid) == (program.number, stream.pid.value());
            describe_stream(&mut text, ts, stream, streams.iter().find(is_it), is_clock);
        }
    }
    if ts.cues.sections() > 0 {
        let found = ts.cues;
        let _ = writeln!(
            text,
            "splice information: {}, {}, {}, {}, {}",
            count(found.inserts, "insert"),
            count(found.time_signals, "time signal"),
            count(found.nulls, "null"),
            count(found.encrypted, "encrypted section"),
            count(found.malformed, "malformed section"),
        );
        ts.last_cue.iter().for_each(|cue| _ = writeln!(text, "  last: {cue}"));
    }
    describe_verdict(&mut text, ts);
    text
}

fn describe_stream(text: &mut String, ts: &Snapshot, stream: &Stream, seen: Option<&StreamMetadata>, is_clock: bool) {
    let found = ts.pids.iter().find(|pid| pid.pid == stream.pid);
    let rate = found.map_or(Bitrate::ZERO, |pid| pid.rate);
    let captions = if found.is_some_and(|pid| pid.has_captions == Some(true)) { "captions" } else { "" };
    let codec = seen.and_then(|seen| seen.codec.clone()).or_else(|| stream.codec.map(Into::into));
    let codec = codec.unwrap_or_else(|| format!("type 0x{:02x}", stream.stream_type));
    let language = stream.language.map(|code| String::from_utf8_lossy(&code).into_owned()).unwrap_or_default();
    let clock = if is_clock { "PCR" } else { "" };
    let line = format!(
        "  PID {:<5} {:<9} {codec:<14} {language:<4} {:>12} {clock:3} {captions}",
        stream.pid.value(),
        kind(stream.media),
        rate.to_string(),
    );
    let _ = writeln!(text, "{}", line.trim_end());
    let format = seen.map(describe_format).unwrap_or_default();
    if !format.is_empty() {
        let _ = writeln!(text, "{:22}{format}", "");
    }
}

/// How pictures or sound are coded, as far as it is known.
fn describe_format(seen: &StreamMetadata) -> String {
    let size = seen.width.zip(seen.height).map(|(width, height)| format!("{width}x{height}"));
    // A frame rate of 30000/1001 is 29.97, one of 25/1 is 25.
    let rate = seen.frame_rate.as_ref().and_then(|rate| rate.split_once('/')).and_then(|(number, of)| {
        let rate = number.parse::<f64>().ok()? / of.parse::<f64>().ok()?;
        Some(format!("{} fps", (rate * 100.0).round() / 100.0))
    });
    let channels = seen.channels.map(|channels| match channels {
        1 => "mono".into(),
        2 => "stereo".into(),
        more => format!("{more} channels"),
    });
    let parts = [
        seen.profile.clone(),
        size,
        rate,
        seen.field_order.clone(),
        seen.pixel_format.clone(),
        seen.sample_rate.map(|rate| format!("{rate} Hz")),
        channels,
        // Why there is not more to say.
        seen.detail.clone(),
    ];
    parts.into_iter().flatten().collect::<Vec<String>>().join(", ")
}

/// A verdict on all that was seen, on each priority, and every indicator with what is to be said of it.
fn describe_verdict(text: &mut String, ts: &Snapshot) {
    let _ = match Judgement::of(ts, None) {
        Judgement { errors: 0, warnings: 0, .. } => writeln!(text, "TR 101 290: good"),
        Judgement { errors: 0, warnings, .. } => {
            writeln!(text, "TR 101 290: good, with {}", count(warnings, "warning"))
        }
        Judgement { errors, worst, .. } => {
            let gravest = worst.map_or_else(String::new, |priority| format!(", the gravest of priority {priority}"));
            writeln!(text, "TR 101 290: {}{gravest}", count(errors, "error"))
        }
    };
    for priority in 1..=3 {
        let Judgement { errors, .. } = Judgement::of(ts, Some(priority));
        let verdict = if errors == 0 { "good".into() } else { count(errors, "error") };
        let _ = writeln!(text, "  priority {priority}: {verdict}");
        for indicator in Indicator::ALL.into_iter().filter(|indicator| indicator.priority() == priority) {
            describe_indicator(text, ts, indicator);
        }
    }
}

fn describe_indicator(text: &mut String, ts: &Snapshot, indicator: Indicator) {
    let found = ts.indicator(indicator);
    let on = found.pid.map_or_else(String::new, |pid| format!(", last on PID {}", pid.value()));
    let warnings = if found.warnings > 0 { format!(", {}", count(found.warnings, "warning")) } else { String::new() };
    let (mark, what) = match found.state {
        _ if found.errors > 0 => ("ERROR", format!("{}{warnings}{on}", count(found.errors, "error"))),
        _ if found.warnings > 0 => ("warning", format!("{}{on}", count(found.warnings, "warning"))),
        State::Unknown(why) => ("unknown", why.into()),
        State::Good | State::Warning | State::Error => ("good", String::new()),
    };
    let line = format!("    {:4} {:33} {mark:8} {what}", indicator.number(), indicator.name());
    let _ = writeln!(text, "{}", line.trim_end());
}

/// What is to be said of all indicators, or of those of one priority, over all that was seen.
struct Judgement {
    errors: u64,
    warnings: u64,
    worst: Option<u8>,
}

impl Judgement {
    fn of(ts: &Snapshot, priority: Option<u8>) -> Self {
        let chosen = |indicator: &Indicator| priority.is_none_or(|priority| indicator.priority() == priority);
        let indicators: Vec<Indicator> = Indicator::ALL.into_iter().filter(chosen).collect();
        let bad = indicators.iter().filter(|indicator| ts.indicator(**indicator).errors > 0);
        Self {
            errors: indicators.iter().map(|indicator| ts.indicator(*indicator).errors).sum(),
            warnings: indicators.iter().map(|indicator| ts.indicator(*indicator).warnings).sum(),
            worst: bad.map(|indicator| indicator.priority()).min(),
        }
    }

    fn to_json(&self) -> Value {
        let verdict = if self.errors > 0 { "error" } else { "good" };
        json!({ "verdict": verdict, "errors": self.errors, "warnings": self.warnings })
    }
}

fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// Judgement: PCR, tables and a GOP or two.
const LIVE_SPAN: Duration = Duration::from_secs(5);
/// Later than zero, so that there is a time before.
const START: Time = Time::from_ns(1_000_000_000);
/// Without PCR a file is taken to have this rate.
const ASSUMED_BPS: u64 = 10_000_000;
/// Two seconds at 40 Mb/s.
const PENDING_BYTES_MAX: usize = 10_000_000;
