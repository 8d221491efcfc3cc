//! One measurement: sink, subject and feed are started, the subject is watched for a while in steady state, all are ended.
//!
//! The subject has a CPU for itself and feed and sink share the other, the same for all: its cost is then not mixed with
//! theirs by the scheduler, and no subject gains from spreading over cores. CPU and losses are taken over the same numbers of the feed, after
//! everything has arrived at every output once and a warm-up has passed.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use serde_json::Value;

use crate::Options;
use crate::child::{self, Helper, Measured};
use crate::feed::Plan;
use crate::sys;
use crate::ts::DATAGRAM_BYTES;

/// What is sent to the subject and how often it has to send it on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) rate_bps: u64,
    pub(crate) flows: usize,
    pub(crate) outputs_per_flow: usize,
}

/// Figures by name; the unit is in the name.
pub(crate) type Sample = BTreeMap<&'static str, f64>;

/// Starts the subject with its input and output ports.
pub(crate) type Start<'a> = dyn Fn(&[u16], &[u16]) -> Result<Measured, String> + 'a;

const READY_MAX: Duration = Duration::from_secs(15);
const WARM_UP: Duration = Duration::from_millis(500);
/// For what is still on its way when the window ends: coalescing, buffers of peers.
const DRAIN: Duration = Duration::from_millis(300);
const POLL: Duration = Duration::from_millis(20);

/// What a direct feed into the sink shows, without any subject between.
pub(crate) fn baseline(options: &Options, load: Load) -> Result<Sample, String> {
    let load = Load { outputs_per_flow: 1, ..load };
    let (mut sink, outputs) = sink(options, load).map_err(|error| error.to_string())?;
    let mut feed = feed(options, load, &outputs).map_err(|error| error.to_string())?;
    wait_ready(&mut sink, outputs.len(), None)?;
    watch(options, &mut feed, &mut sink, None).map_err(|error| error.to_string())
}

pub(crate) fn measure(options: &Options, load: Load, start: &Start<'_>) -> Result<Sample, String> {
    let text = |error: io::Error| error.to_string();
    let (mut sink, outputs) = sink(options, load).map_err(text)?;
    let inputs = child::free_ports(load.flows).map_err(text)?;
    let mut subject = start(&inputs, &outputs)?;
    let mut feed = feed(options, load, &inputs).map_err(text)?;
    wait_ready(&mut sink, outputs.len(), Some(&mut subject))?;
    let sample = watch(options, &mut feed, &mut sink, Some(&subject));
    if subject.has_ended() {
        return Err(format!("ended while it was measured: {}", subject.complaint()));
    }
    sample.map_err(text)
}

pub(crate) fn sink(options: &Options, load: Load) -> io::Result<(Helper, Vec<u16>)> {
    let count = load.flows * load.outputs_per_flow;
    let choices = [options.sink_gro.clone(), options.sink_wake.clone()];
    let args = [count, load.outputs_per_flow].iter().map(usize::to_string).chain(choices).collect::<Vec<_>>();
    let mut sink = Helper::start("sink", &args, options.helper_cpu())?;
    let outputs = serde_json::from_str(&sink.listen()?)?;
    Ok((sink, outputs))
}

pub(crate) fn feed(options: &Options, load: Load, ports: &[u16]) -> io::Result<Helper> {
    let burst_us = options.feed_burst_us;
    let plan = Plan { rate_bps: load.rate_bps, burst_us, ports: ports.to_vec() };
    Helper::start("feed", &plan.to_args(), options.helper_cpu())
}

pub(crate) fn wait_ready(sink: &mut Helper, count: usize, mut subject: Option<&mut Measured>) -> Result<(), String> {
    let mut seen = 0;
    for _ in 0..READY_MAX.as_millis() / POLL.as_millis() {
        let answer = sink.ask_json("seen").map_err(|error| error.to_string())?;
        seen = answer.as_u64().unwrap_or(0);
        if seen == count as u64 {
            return Ok(());
        }
        if let Some(subject) = &mut subject
            && subject.has_ended()
        {
            return Err(format!("ended before it sent anything: {}", subject.complaint()));
        }
        sys::sleep(POLL);
    }
    let complaint = subject.map(|subject| subject.complaint()).unwrap_or_default();
    Err(format!("only {seen} of {count} outputs received within {} s: {complaint}", READY_MAX.as_secs()))
}

fn watch(options: &Options, feed: &mut Helper, sink: &mut Helper, subject: Option<&Measured>) -> io::Result<Sample> {
    sys::sleep(WARM_UP);
    let usage = || subject.map(|subject| subject.usage().ok_or_else(|| io::Error::other("it ended"))).transpose();
    let (from, ..) = position(feed)?;
    sink.ask(&format!("begin {from}"))?;
    let (start_ns, before, busy) = (sys::monotonic_ns(), usage()?, child::busy_ns(options.subject_cpu()));
    position(feed)?;
    sys::sleep(options.span);
    let (to, late_max_ns, late) = position(feed)?;
    let (end_ns, after) = (sys::monotonic_ns(), usage()?);
    let busy_ns = child::busy_ns(options.subject_cpu()) - busy;
    sys::sleep(DRAIN);
    let report = sink.ask_json(&format!("report {from} {to}"))?;
    let mut sample = sink_figures(&report);
    let span_ns = (end_ns - start_ns) as f64;
    sample.insert("seconds", span_ns / 1e9);
    sample.insert("feed_late_max_us", late_max_ns as f64 / 1000.0);
    sample.insert("feed_late_datagrams", late as f64);
    if let (Some(before), Some(after)) = (before, after) {
        let cpu_ns = (after.cpu_ns - before.cpu_ns) as f64;
        let delivered = sample["delivered"].max(1.0);
        sample.insert("cpu_us_per_datagram", cpu_ns / 1000.0 / delivered);
        sample.insert("cpu_s_per_gbit", cpu_ns / (delivered * DATAGRAM_BYTES as f64 * 8.0));
        sample.insert("cpu_percent", cpu_ns / span_ns * 100.0);
        sample.insert("rss_peak_mb", after.rss_peak_bytes as f64 / 1e6);
        sample.insert("switches_per_s", (after.switches - before.switches) as f64 / span_ns * 1e9);
        sample.insert("foreign_cpu_percent", ((busy_ns as f64 - cpu_ns) / span_ns * 100.0).max(0.0));
    }
    Ok(sample)
}

/// Next number of the feed; how late it was at most and how often since the last question.
pub(crate) fn position(feed: &mut Helper) -> io::Result<(u64, u64, u64)> {
    let answer = feed.ask("seq")?;
    let numbers: Vec<u64> = answer.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let &[next, late_max_ns, late] = numbers.as_slice() else { return Err(io::Error::other("the feed ended")) };
    Ok((next, late_max_ns, late))
}

const FROM_SINK: [&str; 13] = [
    "expected",
    "delivered",
    "worst_socket_lost",
    "duplicates",
    "reordered",
    "strays",
    "datagrams",
    "reshaped",
    "sink_drops",
    "latency_p50_us",
    "latency_p99_us",
    "latency_max_us",
    "jitter_p99_us",
];

fn sink_figures(report: &Value) -> Sample {
    let figure = |name| report[name].as_f64().unwrap_or(0.0);
    let mut sample: Sample = FROM_SINK.into_iter().map(|name| (name, figure(name))).collect();
    sample.insert("lost", figure("expected") - figure("delivered"));
    sample
}
