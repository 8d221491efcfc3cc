//! SRT over a path that loses: how much arrives, how exactly in time, and what is sent again for it.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::Options;
use crate::child::{self, Helper, Measured};
use crate::path::{self, DELAY, Path};
use crate::peer::{Peer, url};
use crate::run::{self, Load};
use crate::sys;

const LOAD: Load = Load { rate_bps: 20_000_000, flows: 1, outputs_per_flow: 1 };
const LATENCY_MS: u64 = 200;
const LOSSES: [f64; 2] = [0.02, 0.05];
/// Clocks that began at different times must not be taken for one another.
const LISTENER_LEAD: Duration = Duration::from_secs(5);
const DRAIN: Duration = Duration::from_millis(900);

/// Sender and receiver.
const PAIRS: [(Peer, Peer); 6] = [
    (Peer::Anabranch, Peer::Anabranch),
    (Peer::Anabranch, Peer::SrtLiveTransmit),
    (Peer::SrtLiveTransmit, Peer::Anabranch),
    (Peer::Anabranch, Peer::Ffmpeg),
    (Peer::Ffmpeg, Peer::Anabranch),
    (Peer::SrtLiveTransmit, Peer::SrtLiveTransmit),
];

/// Runs all pairs, in both directions of calling, and prints a line for each; returns them as JSON.
pub(crate) fn run(options: &Options) -> Vec<Value> {
    println!("\nsrt-gate: 20 Mb/s, {} ms each way, latency {LATENCY_MS} ms", DELAY.as_millis());
    println!(
        "  sender             receiver           calls     loss  arrived  p50 ms  p99 ms   dup  reord  again/loss"
    );
    let mut rows = Vec::new();
    for (sender, receiver) in PAIRS {
        for sender_calls in [true, false] {
            for loss in LOSSES {
                let names = (sender.name(), receiver.name());
                let calls = if sender_calls { "sender" } else { "receiver" };
                match measure(options, (sender, receiver), sender_calls, loss) {
                    Ok(row) => {
                        let figure = |name: &str| row[name].as_f64().unwrap_or(f64::NAN);
                        println!(
                            "  {:<18} {:<18} {calls:<8} {loss:>5} {:>7.3}% {:>7.1} {:>7.1} {:>5} {:>6} {:>11.2}",
                            names.0,
                            names.1,
                            figure("arrived_percent"),
                            figure("latency_p50_ms"),
                            figure("latency_p99_ms"),
                            figure("duplicates"),
                            figure("reordered"),
                            figure("sent_again_per_loss"),
                        );
                        rows.push(row);
                    }
                    Err(error) => println!("  !! {} to {}, {calls} calls, {loss}: {error}", names.0, names.1),
                }
            }
        }
    }
    rows
}

fn measure(options: &Options, pair: (Peer, Peer), sender_calls: bool, loss: f64) -> Result<Value, String> {
    let text = |error: std::io::Error| error.to_string();
    for peer in [pair.0, pair.1] {
        if let Some(missing) = peer.missing(&options.programs) {
            return Err(missing);
        }
    }
    let (mut sink, outputs) = run::sink(options, LOAD).map_err(text)?;
    let ports = child::free_ports(8).map_err(text)?;
    let (input, listen) = (ports[0], ports[7]);
    let path = Path::new(listen, loss, DELAY, path::srt).map_err(text)?;
    let srt = |calls: bool| {
        let (port, mode) = if calls { (path.port, "caller") } else { (listen, "listener") };
        (port, mode)
    };
    let sender = command(options, pair.0, &url(input), srt(sender_calls), true);
    let receiver = command(options, pair.1, &url(outputs[0]), srt(!sender_calls), false);
    let (first, second) = if sender_calls { (receiver, sender) } else { (sender, receiver) };
    let _first = Measured::start(first, None).map_err(text)?;
    sys::sleep(LISTENER_LEAD);
    let mut second = Measured::start(second, None).map_err(text)?;
    let mut feed = run::feed(options, LOAD, &[input]).map_err(text)?;
    run::wait_ready(&mut sink, 1, Some(&mut second))?;
    sys::sleep(Duration::from_secs(1));
    watch(options, &mut feed, &mut sink, &path, (pair, sender_calls, loss)).map_err(text)
}

fn watch(
    options: &Options,
    feed: &mut Helper,
    sink: &mut Helper,
    path: &Path,
    (pair, sender_calls, loss): ((Peer, Peer), bool, f64),
) -> std::io::Result<Value> {
    let (from, ..) = run::position(feed)?;
    sink.ask(&format!("begin {from}"))?;
    path.counts.take();
    sys::sleep(options.span);
    let (to, ..) = run::position(feed)?;
    let [data, lost, again] = path.counts.take();
    sys::sleep(DRAIN);
    let report = sink.ask_json(&format!("report {from} {to}"))?;
    let figure = |name: &str| report[name].as_f64().unwrap_or(0.0);
    Ok(json!({
        "sender": pair.0.name(),
        "receiver": pair.1.name(),
        "caller": if sender_calls { "sender" } else { "receiver" },
        "loss": loss,
        "arrived_percent": 100.0 * figure("delivered") / figure("expected"),
        "duplicates": figure("duplicates"),
        "reordered": figure("reordered"),
        "latency_p50_ms": figure("latency_p50_us") / 1000.0,
        "latency_p99_ms": figure("latency_p99_us") / 1000.0,
        "data_packets": data,
        "lost_on_the_path": lost,
        "sent_again_per_loss": again as f64 / lost.max(1) as f64,
    }))
}

fn command(options: &Options, peer: Peer, udp: &str, (port, mode): (u16, &str), sends: bool) -> Command {
    let ms = if peer == Peer::Ffmpeg { LATENCY_MS * 1000 } else { LATENCY_MS };
    let srt = format!("srt://127.0.0.1:{port}?mode={mode}&latency={ms}");
    let (from, to) = if sends { (udp, srt.as_str()) } else { (srt.as_str(), udp) };
    match peer {
        Peer::SrtLiveTransmit => {
            let mut command = Command::new("srt-live-transmit");
            command.args(["-q", "-s", "0", from, to]);
            command
        }
        // Bytes as they are, as in the scenarios of UDP.
        Peer::Ffmpeg => {
            let with = |url: &str| {
                if url.starts_with("udp") { format!("{url}?fifo_size=0&pkt_size=1316") } else { url.into() }
            };
            let mut command = Command::new("ffmpeg");
            command.args(["-hide_banner", "-loglevel", "error", "-nostats", "-nostdin", "-fflags", "nobuffer"]);
            command.args(["-f", "data", "-raw_packet_size", "1316", "-i", &with(from), "-map", "0", "-c", "copy"]);
            command.args(["-flush_packets", "1", "-f", "data", &with(to)]);
            command
        }
        _ => {
            let mut command = Command::new(&options.programs.anabranch);
            command.args(["route", from, "--", to]);
            command
        }
    }
}
