//! RIST: the subject turns UDP into RIST or RIST into UDP, with this engine at the other end for everybody; and what is sent
//! again on a path that loses.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::Options;
use crate::child::{self, Helper, Measured};
use crate::path::{self, Path};
use crate::peer::{Peer, Programs, url};
use crate::run::{self, Load};
use crate::srt::End;
use crate::sys;

/// What the session is like: the Simple profile in the clear, the Main profile with AES-128.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rist {
    pub(crate) end: End,
    pub(crate) encrypted: bool,
}

/// What 16-bit numbers hold at 600 Mb/s is half a second.
const BUFFER_MS: u32 = 200;
/// Librist sends nothing again while more than this is sent in all; in kbit/s.
const BANDWIDTH: u32 = 2_000_000;
const SECRET: &str = "0123456789";

pub(crate) fn start(options: &Options, rist: Rist, peer: Peer, input: u16, output: u16) -> Result<Measured, String> {
    let text = |error: std::io::Error| error.to_string();
    let port = even_ports(1).map_err(text)?[0];
    let subject = rist.command(&options.programs, peer, [input, port, output]);
    let other = Rist { end: rist.end.other(), ..rist };
    let other = other.command(&options.programs, Peer::Anabranch, [input, port, output]);
    // Whoever receives is called, and there first.
    let other_first = rist.end == End::Send;
    let (first, second) = if other_first { (other, subject) } else { (subject, other) };
    let cpu = |is_subject| if is_subject { options.subject_cpu() } else { options.helper_cpu() };
    let first = Measured::start(first, cpu(!other_first)).map_err(text)?;
    sys::sleep(Duration::from_millis(300));
    let second = Measured::start(second, cpu(other_first)).map_err(text)?;
    let (mut subject, other) = if other_first { (second, first) } else { (first, second) };
    subject.keep_beside(other);
    // Librist's receiver drops what comes before the first reports.
    sys::sleep(Duration::from_millis(300));
    Ok(subject)
}

/// Even ports with a free one after each, not the first ones that are free: inputs take those in a moment.
pub(crate) fn even_ports(count: usize) -> std::io::Result<Vec<u16>> {
    let free = child::free_ports(8 + 4 * count)?;
    let pairs = free[6..].windows(2).filter(|pair| pair[0] % 2 == 0 && pair[1] == pair[0] + 1);
    let found: Vec<u16> = pairs.map(|pair| pair[0]).take(count).collect();
    if found.len() == count { Ok(found) } else { Err(std::io::Error::other("not enough free pairs of UDP ports")) }
}

impl Rist {
    /// `ports`: UDP in, RIST, UDP out.
    pub(crate) fn command(self, programs: &Programs, peer: Peer, ports: [u16; 3]) -> Command {
        let [input, port, output] = ports;
        let secret = if self.encrypted { format!("&secret={SECRET}&aes-type=128") } else { String::new() };
        let query = format!("buffer={BUFFER_MS}&bandwidth={BANDWIDTH}{secret}");
        command(programs, peer, self.encrypted, self.end, &query, [input, port, output])
    }
}

fn command(programs: &Programs, peer: Peer, is_main: bool, end: End, query: &str, ports: [u16; 3]) -> Command {
    let [input, port, output] = ports;
    let (from, to) = match end {
        End::Send => (url(input), format!("rist://127.0.0.1:{port}?{query}")),
        End::Receive => (format!("rist://@127.0.0.1:{port}?{query}"), url(output)),
    };
    if peer == Peer::Librist {
        let mut command = Command::new(if end == End::Send { "ristsender" } else { "ristreceiver" });
        command.args(["-S", "0", "-p", if is_main { "1" } else { "0" }, "-i", &from, "-o", &to]);
        return command;
    }
    let profile = format!("profile={}&", if is_main { "main" } else { "simple" });
    let [from, to] = [from, to].map(|url| url.replace("buffer=", &format!("{profile}buffer=")));
    let mut command = Command::new(&programs.anabranch);
    command.args(["route", &from, "--", &to]);
    command
}

const GATE_LOAD: Load = Load { rate_bps: 20_000_000, flows: 1, outputs_per_flow: 1 };
const GATE_QUERY: &str = "buffer=400";
const GATE_LOSSES: [f64; 2] = [0.05, 0.1];
const GATE_DRAIN: Duration = Duration::from_millis(900);
/// Sender and receiver.
const PAIRS: [(Peer, Peer); 4] = [
    (Peer::Anabranch, Peer::Anabranch),
    (Peer::Anabranch, Peer::Librist),
    (Peer::Librist, Peer::Anabranch),
    (Peer::Librist, Peer::Librist),
];

/// Main profile in the clear over a path that loses both ways: prints a line for each pair and returns them as JSON.
pub(crate) fn gate(options: &Options) -> Vec<Value> {
    println!(
        "\nrist-gate: 20 Mb/s, {} ms each way, {GATE_QUERY}; again and ideal in % of the media",
        path::DELAY.as_millis()
    );
    println!("  sender       receiver       loss  arrived  p50 ms  jitter p99 ms   dup  reord   again   ideal");
    let mut rows = Vec::new();
    for (sender, receiver) in PAIRS {
        for loss in GATE_LOSSES {
            match measure(options, (sender, receiver), loss) {
                Ok(row) => {
                    let figure = |name: &str| row[name].as_f64().unwrap_or(f64::NAN);
                    println!(
                        "  {:<12} {:<12} {loss:>6} {:>7.3}% {:>7.1} {:>14.2} {:>5} {:>6} {:>7.2} {:>7.2}",
                        sender.name(),
                        receiver.name(),
                        figure("arrived_percent"),
                        figure("latency_p50_ms"),
                        figure("jitter_p99_ms"),
                        figure("duplicates"),
                        figure("reordered"),
                        figure("sent_again_percent"),
                        figure("ideal_percent"),
                    );
                    rows.push(row);
                }
                Err(error) => println!("  !! {} to {}, {loss}: {error}", sender.name(), receiver.name()),
            }
        }
    }
    rows
}

fn measure(options: &Options, (sender, receiver): (Peer, Peer), loss: f64) -> Result<Value, String> {
    let text = |error: std::io::Error| error.to_string();
    for peer in [sender, receiver] {
        if let Some(missing) = peer.missing(&options.programs) {
            return Err(missing);
        }
    }
    let (mut sink, outputs) = run::sink(options, GATE_LOAD).map_err(text)?;
    let input = child::free_ports(1).map_err(text)?[0];
    let listen = even_ports(1).map_err(text)?[0];
    let path = Path::new(listen, loss, path::DELAY, path::rist).map_err(text)?;
    let end = |peer, end, port| command(&options.programs, peer, true, end, GATE_QUERY, [input, port, outputs[0]]);
    let _receiver = Measured::start(end(receiver, End::Receive, listen), None).map_err(text)?;
    sys::sleep(Duration::from_millis(500));
    let mut sender_process = Measured::start(end(sender, End::Send, path.port), None).map_err(text)?;
    sys::sleep(Duration::from_millis(500));
    let mut feed = run::feed(options, GATE_LOAD, &[input]).map_err(text)?;
    run::wait_ready(&mut sink, 1, Some(&mut sender_process))?;
    sys::sleep(Duration::from_secs(2));
    watch(options, &mut feed, &mut sink, &path, (sender, receiver, loss)).map_err(text)
}

fn watch(
    options: &Options,
    feed: &mut Helper,
    sink: &mut Helper,
    path: &Path,
    (sender, receiver, loss): (Peer, Peer, f64),
) -> std::io::Result<Value> {
    let (from, ..) = run::position(feed)?;
    sink.ask(&format!("begin {from}"))?;
    path.counts.take();
    sys::sleep(options.span);
    let (to, ..) = run::position(feed)?;
    let [data, lost, again] = path.counts.take().map(|count| count as f64);
    sys::sleep(GATE_DRAIN);
    let report = sink.ask_json(&format!("report {from} {to}"))?;
    let figure = |name: &str| report[name].as_f64().unwrap_or(0.0);
    // What really was lost, not what was asked for.
    let share = lost / data.max(1.0);
    Ok(json!({
        "sender": sender.name(),
        "receiver": receiver.name(),
        "loss": loss,
        "arrived_percent": 100.0 * figure("delivered") / figure("expected"),
        "duplicates": figure("duplicates"),
        "reordered": figure("reordered"),
        "latency_p50_ms": figure("latency_p50_us") / 1000.0,
        "jitter_p99_ms": figure("jitter_p99_us") / 1000.0,
        "sent_again_percent": 100.0 * again / (data - again).max(1.0),
        "ideal_percent": 100.0 * share / (1.0 - share),
    }))
}
