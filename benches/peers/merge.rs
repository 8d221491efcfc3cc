//! Hitless merge: one RTP sender whose packets come by RTP, RIST and SRT over paths that lose and lag, one of them cut at a
//! time.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::Options;
use crate::child::{self, Helper, Measured};
use crate::path::{self, Path};
use crate::peer::{Peer, url};
use crate::report::summary;
use crate::rist::even_ports;
use crate::run::{self, Load, Sample};
use crate::sys;
use crate::ts::DATAGRAM_BYTES;

const LOAD: Load = Load { rate_bps: 50_000_000, flows: 1, outputs_per_flow: 1 };
/// Each leg on its own, and both ways.
const LOSS: f64 = 0.05;
/// With what RIST and SRT hold packets for, legs are 0, about 150 and about 130 ms behind the sender.
const DELAYS_MS: [u64; 3] = [0, 10, 10];
const RIST: &str = "buffer=140&reorder-buffer=5";
const SRT: &str = "latency=120&payload=rtp";
const WINDOW: &str = "400ms";
/// Legs are cut so often in a run, one after the other, each time for half of what that gives.
const CUTS: u32 = 6;
/// A run is so many times as long as others: a minute for 5 s.
const LONGER: u32 = 12;
/// Longer than the window.
const DRAIN: Duration = Duration::from_millis(900);

/// Runs it, prints what came of it and returns it as JSON.
pub(crate) fn run(options: &Options) -> Vec<Value> {
    let span = options.span * LONGER;
    println!(
        "\nmerge3: RTP, RIST and SRT at 50 Mb/s, {:.0} % lost on each, one cut every {:.0} s, {:.0} s",
        LOSS * 100.0,
        (span / CUTS).as_secs_f64(),
        span.as_secs_f64()
    );
    let mut runs = Vec::new();
    for _ in 0..options.runs {
        match measure(options, span) {
            Ok(sample) => runs.push(sample),
            Err(error) => println!("  !! {error}"),
        }
    }
    let median = summary(&runs);
    median.iter().for_each(|(name, value)| println!("  {name} {value:.3}"));
    if runs.is_empty() { Vec::new() } else { vec![json!({"name": "merge3", "result": median, "runs": runs})] }
}

fn measure(options: &Options, span: Duration) -> Result<Sample, String> {
    let text = |error: std::io::Error| error.to_string();
    if let Some(missing) = Peer::Anabranch.missing(&options.programs) {
        return Err(missing);
    }
    let (mut sink, outputs) = run::sink(options, LOAD).map_err(text)?;
    let input = child::free_ports(1).map_err(text)?[0];
    let ports = even_ports(4).map_err(text)?;
    let path = |leg: usize| {
        let delay = Duration::from_millis(DELAYS_MS[leg]);
        Path::new(ports[leg], LOSS, delay, path::rist).map_err(text)
    };
    let paths = [path(0)?, path(1)?, path(2)?];
    let route = |words: &[&str], cpu| {
        let mut command = Command::new(&options.programs.anabranch);
        command.arg("route").args(words);
        Measured::start(command, cpu).map_err(text)
    };
    let at = |scheme: &str, port: u16, query: &str| format!("{scheme}://127.0.0.1:{port}?{query}");
    let legs = [
        format!("rtp://127.0.0.1:{}", ports[0]),
        format!("rist://@127.0.0.1:{}?{RIST}", ports[1]),
        at("srt", ports[2], &format!("mode=listener&{SRT}")),
    ];
    let [rtp, rist, srt] = &legs;
    let mut subject = route(
        &["--merge", "--recovery-window", WINDOW, rtp, rist, srt, "--", &url(outputs[0])],
        options.subject_cpu(),
    )?;
    // One numbers the packets, another sends them three ways with those numbers.
    let numbered = format!("rtp://127.0.0.1:{}", ports[3]);
    let ways = [
        at("rtp", paths[0].port, "header=keep"),
        at("rist", paths[1].port, &format!("header=keep&{RIST}")),
        at("srt", paths[2].port, &format!("mode=caller&header=keep&{SRT}")),
    ];
    let splitter = route(&[&numbered, "--", &ways[0], &ways[1], &ways[2]], options.helper_cpu())?;
    let _numberer = route(&[&url(input), "--", &numbered], options.helper_cpu())?;
    subject.keep_beside(splitter);
    sys::sleep(Duration::from_secs(2));
    let mut feed = run::feed(options, LOAD, &[input]).map_err(text)?;
    run::wait_ready(&mut sink, 1, Some(&mut subject))?;
    sys::sleep(Duration::from_secs(2));

    watch(span, (&mut feed, &mut sink), &subject, &paths).map_err(|error| error.to_string())
}

fn watch(
    span: Duration,
    (feed, sink): (&mut Helper, &mut Helper),
    subject: &Measured,
    paths: &[Path],
) -> std::io::Result<Sample> {
    let usage = || subject.usage().map(|usage| usage.cpu_ns).ok_or_else(|| std::io::Error::other("it ended"));
    let (from, ..) = run::position(feed)?;
    sink.ask(&format!("begin {from}"))?;
    let before = usage()?;
    for cut in 0..CUTS {
        let path = &paths[cut as usize % paths.len()];
        sys::sleep(span / CUTS / 2);
        path.cut(true);
        sys::sleep(span / CUTS / 2);
        path.cut(false);
    }
    let (to, ..) = run::position(feed)?;
    let used = usage()? - before;
    sys::sleep(DRAIN);
    let report = sink.ask_json(&format!("report {from} {to}"))?;
    let figure = |name: &str| report[name].as_f64().unwrap_or(0.0);
    let gbits = figure("delivered") * (DATAGRAM_BYTES * 8) as f64 / 1e9;
    Ok(Sample::from([
        ("expected", figure("expected")),
        ("lost", figure("expected") - figure("delivered")),
        ("duplicates", figure("duplicates")),
        ("reordered", figure("reordered")),
        ("reshaped", figure("reshaped")),
        ("sink_drops", figure("sink_drops")),
        ("cpu_s_per_gbit", used as f64 / 1e9 / gbits),
        ("latency_p50_ms", figure("latency_p50_us") / 1e3),
        ("latency_p99_ms", figure("latency_p99_us") / 1e3),
        ("latency_max_ms", figure("latency_max_us") / 1e3),
    ]))
}
