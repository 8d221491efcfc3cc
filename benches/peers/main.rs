//! This engine beside `ffmpeg -c copy`, GStreamer and `socat` on the same feed in one run; `scripts/bench-peers` starts it.
#![allow(clippy::print_stdout, reason = "the table is the product of a benchmark")]
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on may panic; its children end with it")]
#![allow(clippy::wildcard_enum_match_arm, reason = "only some answers of foreign types matter here")]

mod child;
mod feed;
mod gate;
mod histogram;
mod line;
mod merge;
mod path;
mod peer;
mod raw;
mod report;
mod rist;
mod run;
mod serve;
mod sink;
mod srt;
mod sys;
mod ts;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

use peer::{Peer, Programs};
use report::{Entry, Outcome};
use rist::Rist;
use run::{Load, Sample};
use srt::{End, Srt};

const HELP: &str = "\
bench-peers [OPTIONS]: CPU, loss and latency of this engine beside its peers, on one feed, in one run

  --only NAME        only this scenario (may be repeated): fan50 fan50-coalesce 400x4 100x20 1to1 flows200
                     srt-send-20 srt-send-100 srt-send-100-aes srt-send-400 srt-receive-20 srt-receive-100
                     srt-receive-100-aes srt-receive-400 srt-line srt-gate rist-send-20 rist-send-200 rist-send-200-psk
                     rist-send-400-psk rist-send-600, the same with rist-receive, rist-gate merge3 idle
  --peer NAME        only this peer (may be repeated): raw raw-gso4 anabranch anabranch-coalesce ffmpeg ffmpeg-remux
                     gstreamer socat libsrt srt-live-transmit librist
  --runs N           repeat N times, interleaved (A B C A B C), and take medians; default 3
  --seconds N        length of the steady window of each measurement; default 5
  --quick            smoke test: 1 s, one run, fan50, 1to1, SRT and RIST at 20 Mb/s unless --only says otherwise
  --json FILE        also write everything as JSON
  --anabranch PATH   the engine to measure; default: the release binary beside this program
  --libsrt PATH      benches/peers/libsrt.c, built
  --sink-gro on|off  sinks take GSO trains whole, as a network card with segmentation offload would; default on
  --sink-wake timer|epoll
                     sinks look every millisecond (kernel stamps tell when a datagram came), or are woken by each; default
                     timer, because on loopback the sender pays for waking the receiver
  --feed-burst US    the feed wakes at most every US microseconds and then sends what is due; default 0:
                     exact to the datagram
  --no-pin           do not give the subject a CPU for itself
";

/// What was asked for.
#[derive(Debug)]
struct Options {
    only: Vec<String>,
    peers: Vec<String>,
    runs: usize,
    span: Duration,
    json: Option<PathBuf>,
    programs: Programs,
    sink_gro: String,
    sink_wake: String,
    feed_burst_us: u64,
    pin: bool,
}

impl Options {
    /// Feed and sink: never the subject's CPU.
    fn helper_cpu(&self) -> Option<usize> {
        self.subject_cpu().map(|_| 0)
    }

    fn subject_cpu(&self) -> Option<usize> {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        (self.pin && cpus > 1).then_some(1)
    }
}

struct Scenario {
    name: &'static str,
    load: Load,
    peers: &'static [Peer],
    over: Over,
}

/// What one side of the subject is.
#[derive(Clone, Copy)]
enum Over {
    Udp,
    Srt(Srt),
    Rist(Rist),
}

const fn load(rate_mbps: u64, outputs: usize) -> Load {
    Load { rate_bps: rate_mbps * 1_000_000, flows: 1, outputs_per_flow: outputs }
}

/// Every feed is spaced to the datagram: the hardest case for whoever wants to put several together.
const SCENARIOS: [Scenario; 24] = [
    Scenario {
        name: "fan50",
        load: load(20, 50),
        peers: &[Peer::Raw, Peer::Anabranch, Peer::Gstreamer, Peer::Ffmpeg, Peer::FfmpegRemux],
        over: Over::Udp,
    },
    Scenario {
        name: "fan50-coalesce",
        load: load(20, 50),
        peers: &[Peer::Raw, Peer::RawGso4, Peer::AnabranchCoalesce],
        over: Over::Udp,
    },
    Scenario {
        name: "400x4",
        load: load(400, 4),
        peers: &[Peer::Raw, Peer::RawGso4, Peer::Anabranch, Peer::Gstreamer, Peer::Ffmpeg],
        over: Over::Udp,
    },
    Scenario {
        name: "100x20",
        load: load(100, 20),
        peers: &[Peer::Raw, Peer::RawGso4, Peer::Anabranch, Peer::Gstreamer, Peer::Ffmpeg],
        over: Over::Udp,
    },
    Scenario {
        name: "1to1",
        load: load(50, 1),
        peers: &[Peer::Raw, Peer::Anabranch, Peer::Socat, Peer::Gstreamer, Peer::Ffmpeg, Peer::FfmpegRemux],
        over: Over::Udp,
    },
    Scenario {
        name: FLOWS,
        load: Load { rate_bps: 2_000_000, flows: 200, outputs_per_flow: 2 },
        peers: &[Peer::Anabranch],
        over: Over::Udp,
    },
    srt_scenario("srt-send-20", End::Send, 20, false),
    srt_scenario("srt-send-100", End::Send, 100, false),
    srt_scenario("srt-send-100-aes", End::Send, 100, true),
    srt_scenario("srt-send-400", End::Send, 400, false),
    srt_scenario("srt-receive-20", End::Receive, 20, false),
    srt_scenario("srt-receive-100", End::Receive, 100, false),
    srt_scenario("srt-receive-100-aes", End::Receive, 100, true),
    srt_scenario("srt-receive-400", End::Receive, 400, false),
    rist_scenario("rist-send-20", End::Send, 20, false),
    rist_scenario("rist-send-200", End::Send, 200, false),
    rist_scenario("rist-send-200-psk", End::Send, 200, true),
    rist_scenario("rist-send-400-psk", End::Send, 400, true),
    rist_scenario("rist-send-600", End::Send, 600, false),
    rist_scenario("rist-receive-20", End::Receive, 20, false),
    rist_scenario("rist-receive-200", End::Receive, 200, false),
    rist_scenario("rist-receive-200-psk", End::Receive, 200, true),
    rist_scenario("rist-receive-400-psk", End::Receive, 400, true),
    rist_scenario("rist-receive-600", End::Receive, 600, false),
];

const fn srt_scenario(name: &'static str, end: End, rate_mbps: u64, encrypted: bool) -> Scenario {
    let peers = &[Peer::Anabranch, Peer::Libsrt, Peer::SrtLiveTransmit];
    Scenario { name, load: load(rate_mbps, 1), peers, over: Over::Srt(Srt { end, encrypted }) }
}

const fn rist_scenario(name: &'static str, end: End, rate_mbps: u64, encrypted: bool) -> Scenario {
    let peers = &[Peer::Anabranch, Peer::Librist];
    Scenario { name, load: load(rate_mbps, 1), peers, over: Over::Rist(Rist { end, encrypted }) }
}

const FLOWS: &str = "flows200";
const IDLE: &str = "idle";
const LINE: &str = "srt-line";
const GATE: &str = "srt-gate";
const RIST_GATE: &str = "rist-gate";
const MERGE: &str = "merge3";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match args.split_first() {
        Some((role, args)) if role == "feed" => feed::main(args),
        Some((role, args)) if role == "sink" => sink::main(args),
        Some((role, args)) if role == "raw" => raw::main(args),
        _ if args.iter().any(|arg| arg == "--help" || arg == "-h") => print!("{HELP}"),
        // `cargo test --all-targets` runs a bench without any argument: nothing to test then.
        _ if std::env::args().len() == 1 => println!("nothing to do: run scripts/bench-peers"),
        _ => return bench(&args),
    }
    ExitCode::SUCCESS
}

fn bench(args: &[String]) -> ExitCode {
    let options = match options(args) {
        Ok(options) => options,
        Err(wrong) => {
            println!("{wrong}; see --help");
            return ExitCode::from(2);
        }
    };
    let machine = report::machine();
    println!("{} CPUs, {}, kernel {}", machine["cpus"], machine["cpu_model"], machine["kernel"]);
    let wanted = |name: &str| options.only.is_empty() || options.only.iter().any(|only| only == name);
    let mut outcomes = Vec::new();
    for scenario in SCENARIOS.iter().filter(|scenario| wanted(scenario.name)) {
        let outcome = run_scenario(&options, scenario);
        outcome.print();
        outcomes.push(outcome);
    }
    let line = if wanted(LINE) { line::run(&options) } else { Vec::new() };
    let gate = if wanted(GATE) { gate::run(&options) } else { Vec::new() };
    let rist_gate = if wanted(RIST_GATE) { rist::gate(&options) } else { Vec::new() };
    let merge = if wanted(MERGE) { merge::run(&options) } else { Vec::new() };
    if wanted(IDLE) {
        let outcome = run_idle(&options);
        outcome.print();
        outcomes.push(outcome);
    }
    if let Some(path) = &options.json {
        let scenarios: Vec<_> = outcomes.iter().map(Outcome::json).collect();
        let chosen = json!({
            "runs": options.runs,
            "seconds": options.span.as_secs_f64(),
            "sink_gro": options.sink_gro,
            "sink_wake": options.sink_wake,
            "feed_burst_us": options.feed_burst_us,
            "subject_cpu": options.subject_cpu(),
        });
        let all = json!({
            "machine": machine,
            "options": chosen,
            "scenarios": scenarios,
            "srt_line": line,
            "srt_gate": gate,
            "rist_gate": rist_gate,
            "merge": merge,
        });
        std::fs::write(path, format!("{all:#}\n")).unwrap();
    }
    // A peer that fails is its own business; the engine failing is ours.
    let failed = outcomes.iter().flat_map(|outcome| &outcome.entries);
    let failed = failed.filter(|entry| entry.is_anabranch && entry.command != SKIPPED && !entry.troubles.is_empty());
    ExitCode::from(u8::from(failed.count() > 0))
}

/// In place of the command line of a peer that is not there.
const SKIPPED: &str = "skipped";

fn run_scenario(options: &Options, scenario: &Scenario) -> Outcome {
    let load = scenario.load;
    let about = format!(
        "{} x {} Mb/s to {} each, {}-byte datagrams, bursts of {} us",
        load.flows,
        load.rate_bps / 1_000_000,
        load.outputs_per_flow,
        ts::DATAGRAM_BYTES,
        options.feed_burst_us
    );
    let wanted = |peer: &&Peer| options.peers.is_empty() || options.peers.iter().any(|name| name == peer.name());
    let peers: Vec<_> = scenario.peers.iter().filter(wanted).copied().collect();
    let mut outcome = Outcome {
        name: scenario.name,
        about,
        baselines: Vec::new(),
        entries: peers.iter().map(|&peer| entry(options, peer, scenario)).collect(),
    };
    for run in 1..=options.runs {
        let baseline = run::baseline(options, load).unwrap_or_else(|error| panic!("feed to sink: {error}"));
        for (entry, &peer) in outcome.entries.iter_mut().zip(&peers) {
            if entry.command == SKIPPED {
                continue;
            }
            println!("{} run {run}/{}: {}", scenario.name, options.runs, entry.name);
            match run::measure(options, load, &|inputs, outputs| start(options, scenario, peer, inputs, outputs)) {
                Ok(sample) => entry.runs.push(with_added(sample, &baseline)),
                Err(error) => entry.troubles.push(error),
            }
        }
        outcome.baselines.push(baseline);
    }
    outcome
}

fn start(
    options: &Options,
    scenario: &Scenario,
    peer: Peer,
    inputs: &[u16],
    outputs: &[u16],
) -> Result<child::Measured, String> {
    if scenario.name == FLOWS {
        return serve::start_flows(options, inputs, outputs);
    }
    let command = match scenario.over {
        Over::Srt(srt) => return srt::start(options, srt, peer, inputs[0], outputs[0]),
        Over::Rist(rist) => return rist::start(options, rist, peer, inputs[0], outputs[0]),
        Over::Udp => peer.command(&options.programs, inputs[0], outputs),
    };
    child::Measured::start(command, options.subject_cpu()).map_err(|error| error.to_string())
}

fn entry(options: &Options, peer: Peer, scenario: &Scenario) -> Entry {
    let missing = peer.missing(&options.programs);
    if let Some(missing) = &missing {
        println!("!! SKIPPED {} in {}: {missing}", peer.name(), scenario.name);
    }
    let command = if scenario.name == FLOWS {
        "anabranch serve".into()
    } else {
        // Two outputs are enough to show the form.
        let outputs = &[6001, 6002][..scenario.load.outputs_per_flow.min(2)];
        let command = match scenario.over {
            Over::Srt(srt) => srt.command(&options.programs, peer, [5000, 9000, 6001]),
            Over::Rist(rist) => rist.command(&options.programs, peer, [5000, 9000, 6001]),
            Over::Udp => peer.command(&options.programs, 5000, outputs),
        };
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    };
    Entry {
        name: peer.name(),
        is_anabranch: peer.is_anabranch(),
        command: if missing.is_some() { SKIPPED.into() } else { command },
        runs: Vec::new(),
        troubles: missing.into_iter().collect(),
    }
}

fn with_added(mut sample: Sample, baseline: &Sample) -> Sample {
    for (added, name) in [("added_p50_us", "latency_p50_us"), ("added_p99_us", "latency_p99_us")] {
        sample.insert(added, sample[name] - baseline[name]);
    }
    sample
}

fn run_idle(options: &Options) -> Outcome {
    let missing = Peer::Anabranch.missing(&options.programs);
    let mut entry = Entry {
        name: Peer::Anabranch.name(),
        is_anabranch: true,
        command: if missing.is_some() { SKIPPED.into() } else { "anabranch serve".into() },
        runs: Vec::new(),
        troubles: missing.into_iter().collect(),
    };
    for _ in 0..if entry.command == SKIPPED { 0 } else { options.runs } {
        match serve::idle(options) {
            Ok(sample) => entry.runs.push(sample),
            Err(error) => entry.troubles.push(error),
        }
    }
    let about = "serve with one started flow and no feed; start-up is spawn to the first 200 on /health".into();
    Outcome { name: IDLE, about, baselines: Vec::new(), entries: vec![entry] }
}

fn options(args: &[String]) -> Result<Options, String> {
    let beside = std::env::current_exe().ok().and_then(|path| Some(path.parent()?.parent()?.join("anabranch")));
    let mut options = Options {
        only: Vec::new(),
        peers: Vec::new(),
        runs: 3,
        span: Duration::from_secs(5),
        json: None,
        programs: Programs { anabranch: beside.unwrap_or_default(), libsrt: PathBuf::new() },
        sink_gro: "on".into(),
        sink_wake: "timer".into(),
        feed_burst_us: 0,
        pin: true,
    };
    let mut quick = false;
    let mut args = args.iter();
    while let Some(name) = args.next() {
        let mut value = || args.next().cloned().ok_or_else(|| format!("{name} needs a value"));
        match name.as_str() {
            "--only" => options.only.push(one_of(name, value()?, &scenario_names())?),
            "--peer" => options.peers.push(one_of(name, value()?, &Peer::ALL.map(Peer::name))?),
            "--runs" => options.runs = usize::try_from(number(name, &value()?)?.max(1)).unwrap_or(1),
            "--seconds" => options.span = Duration::from_secs(number(name, &value()?)?.max(1)),
            "--quick" => (quick, options.runs, options.span) = (true, 1, Duration::from_secs(1)),
            "--json" => options.json = Some(value()?.into()),
            "--anabranch" => {
                options.programs.anabranch = std::path::absolute(value()?).map_err(|wrong| wrong.to_string())?
            }
            "--libsrt" => options.programs.libsrt = value()?.into(),
            "--sink-gro" => options.sink_gro = one_of(name, value()?, &["on", "off"])?,
            "--sink-wake" => options.sink_wake = one_of(name, value()?, &["timer", "epoll"])?,
            "--feed-burst" => options.feed_burst_us = number(name, &value()?)?,
            "--no-pin" => options.pin = false,
            _ => return Err(format!("unknown option {name}")),
        }
    }
    if quick && options.only.is_empty() {
        options.only = ["fan50", "1to1", "srt-send-20", "srt-receive-20", "rist-send-20", "rist-receive-20"]
            .map(String::from)
            .to_vec();
    }
    Ok(options)
}

fn scenario_names() -> Vec<&'static str> {
    SCENARIOS.iter().map(|scenario| scenario.name).chain([LINE, GATE, RIST_GATE, MERGE, IDLE]).collect()
}

fn one_of(name: &str, value: String, known: &[&str]) -> Result<String, String> {
    if known.contains(&value.as_str()) {
        return Ok(value);
    }
    Err(format!("{name} {value}: known are {}", known.join(", ")))
}

fn number(name: &str, value: &str) -> Result<u64, String> {
    value.parse().map_err(|_| format!("{name} {value}: not a whole number"))
}
