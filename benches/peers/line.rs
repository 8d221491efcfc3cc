//! SRT alone: what is sent is made by the sender, what is received goes nowhere, and both ends are measured.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::Options;
use crate::child::{self, Measured};
use crate::peer::Peer;
use crate::report::summary;
use crate::run::Sample;
use crate::serve::Service;
use crate::sys;
use crate::ts::DATAGRAM_BYTES;

struct Line {
    about: &'static str,
    /// On one port, each with a flow of its own at the other end.
    callers: usize,
    mbps: u64,
    encrypted: bool,
    peers: &'static [Peer],
}

const LINES: [Line; 3] = [
    Line { about: "1 Gb/s", callers: 1, mbps: 1_000, encrypted: false, peers: &[Peer::Anabranch, Peer::Libsrt] },
    Line {
        about: "1 Gb/s, AES-128",
        callers: 1,
        mbps: 1_000,
        encrypted: true,
        peers: &[Peer::Anabranch, Peer::Libsrt],
    },
    Line { about: "100 x 10 Mb/s from one port", callers: 100, mbps: 10, encrypted: false, peers: &[Peer::Anabranch] },
];
const WARM_UP: Duration = Duration::from_secs(2);
const QUERY: &str = "latency=120";
const PASSPHRASE: &str = "0123456789";

/// Runs all, prints a line for each and returns them as JSON.
pub(crate) fn run(options: &Options) -> Vec<Value> {
    println!("\nsrt-line: from nowhere to nowhere, CPU seconds per Gbit of either end");
    println!("  {:<28} {:<10} {:>8} {:>8} {:>8} {:>8}", "", "", "Gbit/s", "sender", "receiver", "lost");
    let mut rows = Vec::new();
    for line in &LINES {
        for &peer in line.peers {
            let runs = (0..options.runs).map(|_| line.measure(options, peer));
            match runs.collect::<Result<Vec<Sample>, String>>() {
                Ok(runs) => {
                    let median = summary(&runs);
                    println!(
                        "  {:<28} {:<10} {:>8.3} {:>8.3} {:>8.3} {:>8.0}",
                        line.about,
                        peer.name(),
                        median["gbit_per_s"],
                        median["sender_cpu_s_per_gbit"],
                        median["receiver_cpu_s_per_gbit"],
                        median["lost"],
                    );
                    rows.push(json!({"about": line.about, "name": peer.name(), "result": median, "runs": runs}));
                }
                Err(error) => println!("  !! {}, {}: {error}", line.about, peer.name()),
            }
        }
    }
    rows
}

/// Both ends of a line, and who tells what arrived.
struct Ends {
    sender: Measured,
    receiver: Measured,
    received: Tell,
}

type Tell = Box<dyn FnMut(&mut Measured) -> Result<Received, String>>;

/// Packets since the start.
#[derive(Clone, Copy, Default)]
struct Received {
    packets: f64,
    dropped: f64,
}

impl Line {
    fn measure(&self, options: &Options, peer: Peer) -> Result<Sample, String> {
        if let Some(missing) = peer.missing(&options.programs) {
            return Err(missing);
        }
        let port = child::free_ports(1).map_err(|error| error.to_string())?[0];
        let mut ends = match peer {
            Peer::Libsrt => self.libsrt(options, port)?,
            _ => self.anabranch(options, port)?,
        };
        sys::sleep(WARM_UP);
        let mut look = || -> Result<(Received, [u64; 2], u64), String> {
            let cpu = |end: &Measured| end.usage().map(|usage| usage.cpu_ns).ok_or("an end is gone");
            let received = (ends.received)(&mut ends.receiver)?;
            Ok((received, [cpu(&ends.sender)?, cpu(&ends.receiver)?], sys::monotonic_ns()))
        };
        let (before, cpu_before, started) = look()?;
        sys::sleep(options.span);
        let (after, cpu_after, ended) = look()?;
        let gbits = (after.packets - before.packets) * (DATAGRAM_BYTES * 8) as f64 / 1e9;
        let cost = |end: usize| (cpu_after[end] - cpu_before[end]) as f64 / 1e9 / gbits;
        Ok(Sample::from([
            ("gbit_per_s", gbits * 1e9 / (ended - started) as f64),
            ("sender_cpu_s_per_gbit", cost(0)),
            ("receiver_cpu_s_per_gbit", cost(1)),
            ("lost", after.dropped - before.dropped),
        ]))
    }

    fn libsrt(&self, options: &Options, port: u16) -> Result<Ends, String> {
        let start = |role: &str, arguments: [String; 2], cpu| {
            let mut command = Command::new(&options.programs.libsrt);
            command.arg(role).args(arguments).args(self.encrypted.then_some(PASSPHRASE));
            Measured::start(command, cpu).map_err(|error| error.to_string())
        };
        let receiver = start("take", [port.to_string(), "-".into()], options.subject_cpu())?;
        sys::sleep(Duration::from_millis(300));
        let sender = start("make", [self.mbps.to_string(), port.to_string()], options.helper_cpu())?;
        // It tells once a second, which is exact enough over several.
        let received = |receiver: &mut Measured| {
            let told = receiver.complaint();
            let last = told.rsplit(" / ").next().unwrap_or_default();
            let mut numbers = last.split(' ').map(str::parse);
            match (numbers.next(), numbers.next()) {
                (Some(Ok(packets)), Some(Ok(dropped))) => Ok(Received { packets, dropped }),
                _ => Err(told),
            }
        };
        Ok(Ends { sender, receiver, received: Box::new(received) })
    }

    /// The listener sends if it has many callers, and receives if there is only one.
    fn anabranch(&self, options: &Options, port: u16) -> Result<Ends, String> {
        let sender = Service::start(options, options.helper_cpu())?;
        let receiver = Service::start(options, options.subject_cpu())?;
        let secret = if self.encrypted { format!("&passphrase={PASSPHRASE}") } else { String::new() };
        let url = |mode: &str| format!("srt://127.0.0.1:{port}?mode={mode}&{QUERY}{secret}");
        let source = format!("test:bars?rate={}M", self.mbps);
        let mut flows = Vec::new();
        if self.callers == 1 {
            flows.push(receiver.start_flow(&url("listener"), [])?);
            sender.start_flow(&source, [url("caller")])?;
        } else {
            sender.start_flow(&source, [url("listener")])?;
            for _ in 0..self.callers {
                flows.push(receiver.start_flow(&url("caller"), [])?);
            }
        }
        let (receiver, metrics) = receiver.into_parts();
        let received = move |_: &mut Measured| {
            flows.iter().try_fold(Received::default(), |sum, flow| {
                let all = metrics(flow)?;
                let figure = |name: &str| {
                    all["source_metrics"][0]["srt"][name].as_f64().ok_or_else(|| format!("no {name} in {all}"))
                };
                Ok(Received { packets: sum.packets + figure("pktRecv")?, dropped: sum.dropped + figure("pktRcvDrop")? })
            })
        };
        Ok(Ends { sender: sender.into_parts().0, receiver, received: Box::new(received) })
    }
}
