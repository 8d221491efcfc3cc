//! Arguments and subcommands.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::control::config::Listen;
use crate::engine::url::parse_coalesce;
use crate::path::merge::{RecoveryWindow, WINDOW_MAX};

/// Live-media transport: one feed in, many out, and no packet lost that could have been kept.
#[derive(Debug, Parser)]
#[command(name = "anabranch", version, about, arg_required_else_help = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Route(Route),
    Serve(Serve),
    Gen(Generate),
}

/// Run one flow now: sources before `--`, outputs after it. Several sources are failover in the given order,
/// or merged.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  anabranch route udp://0.0.0.0:5000 -- udp://10.0.0.2:6000 udp://10.0.0.3:6000
  anabranch route udp://@239.1.1.1:5000?iface=eth0 -- rtp://10.0.0.2:5004
  anabranch route rtp://:5000 rtp://:5002 -- udp://10.0.0.2:6000       the second source is the backup
  anabranch route --merge rtp://:5000 rtp://:5002 -- udp://10.0.0.2:6000   both carry the same: what one loses the other has
  anabranch route udp://:5000 -- 'srt://:9000?latency=200'              any number of callers pull it
  anabranch route 'srt://10.0.0.9:9000?passphrase=file:key.txt' -- udp://10.0.0.2:6000
  anabranch route --coalesce 2ms udp://:5000 -- udp://10.0.0.2:6000    less CPU for 2 ms of latency
  anabranch route --json --stats 1 test:bars?rate=20M -- udp://127.0.0.1:6000

Keys of udp:// and rtp:// sources: iface, rcvbuf, source; rtp:// also pt, reorder.
Keys of udp:// and rtp:// outputs: coalesce, dscp, iface, pkt_size, sndbuf, ttl; rtp:// also header, pt, ssrc.
Keys of srt://: libsrt's, as latency (ms), passphrase, pbkeylen, streamid, mode, maxbw; dscp, iface, rcvbuf, sndbuf.
Ctrl-C ends cleanly and prints totals.")]
pub(super) struct Route {
    /// Where packets come from: udp://, rtp://, srt:// or test:. One to eight.
    #[arg(required = true, value_name = "SOURCE")]
    pub(super) sources: Vec<String>,
    /// Where packets go to: udp://, rtp:// or srt://. Up to 256.
    #[arg(last = true, required = true, value_name = "OUTPUT")]
    pub(super) outputs: Vec<String>,
    /// Hold packets back for this long, so that several leave with one system call: 2ms, 500us. A URL's own coalesce
    /// goes first.
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = coalesce)]
    pub(super) coalesce: Duration,
    /// Merge the sources, which carry the same RTP packets (SMPTE ST 2022-7): what one of them loses another brings.
    #[arg(long)]
    pub(super) merge: bool,
    /// How far apart merged sources may be: 100ms unless given, at most 15s, or auto for as far as they are.
    #[arg(long, value_name = "TIME", requires = "merge", value_parser = recovery_window)]
    pub(super) recovery_window: Option<RecoveryWindow>,
    /// Silence after which a source counts as lost, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 500, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    pub(super) health_timeout_ms: u64,
    /// How long the first source must have been back before the flow returns to it, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(0..=3_600_000))]
    pub(super) hold_off_ms: u64,
    /// Print figures every N seconds; 0 for never. A terminal shows live lines unless this is given.
    #[arg(long, value_name = "N")]
    pub(super) stats: Option<u64>,
    /// Print one JSON object a line on stdout: events, figures, totals.
    #[arg(long)]
    pub(super) json: bool,
}

/// Run the engine with its HTTP API and its database.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  anabranch serve
  anabranch serve --demo                 a test signal to two outputs, and what to try next
  anabranch serve --config /etc/anabranch/anabranch.toml
  anabranch serve --config anabranch.toml --check-config

Every key of the config file can be set by environment, as ANABRANCH_API__LISTEN=127.0.0.1:9000.")]
pub(super) struct Serve {
    /// Config file; anabranch.example.toml explains every key. Without this, anabranch.toml here is read if there is one.
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Address of the HTTP API, 127.0.0.1:8080 unless the config says otherwise.
    #[arg(long, value_name = "ADDR:PORT")]
    pub(super) listen: Option<Listen>,
    /// Database file, anabranch.db unless the config says otherwise.
    #[arg(long, value_name = "FILE")]
    pub(super) db: Option<PathBuf>,
    /// Allow an address other than this machine's own without a token.
    #[arg(long)]
    pub(super) insecure_open: bool,
    /// Read the configuration, say what is wrong with it, and exit.
    #[arg(long)]
    pub(super) check_config: bool,
    /// Start with a test signal to two UDP outputs; keeps nothing unless --db is given.
    #[arg(long)]
    pub(super) demo: bool,
}

/// Send a built-in test stream of exactly constant bit rate: numbered packets, or a picture with sound.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  anabranch gen udp://127.0.0.1:5000
  anabranch gen --rate 20M rtp://239.1.1.1:5004?ttl=4
  anabranch gen --picture srt://127.0.0.1:9000      moving bars, clock and tone: H.264 and MPEG audio")]
pub(super) struct Generate {
    /// Where to: udp:// or rtp://.
    #[arg(required = true, value_name = "OUTPUT")]
    pub(super) outputs: Vec<String>,
    /// Send a picture with sound instead of numbered packets.
    #[arg(long)]
    pub(super) picture: bool,
    /// Rate of the transport stream: 500k, 20M, 1G.
    #[arg(long, default_value = "10M")]
    pub(super) rate: String,
    /// End after this many seconds instead of at Ctrl-C.
    #[arg(long, value_name = "N")]
    pub(super) seconds: Option<u64>,
    /// Print one JSON object a line on stdout.
    #[arg(long)]
    pub(super) json: bool,
}

fn coalesce(text: &str) -> Result<Duration, String> {
    parse_coalesce(text).ok_or_else(|| "write a time from 0 to 100ms, as 2ms".to_string())
}

fn recovery_window(text: &str) -> Result<RecoveryWindow, String> {
    if text == "auto" {
        return Ok(RecoveryWindow::Auto);
    }
    let wrong = || "write a time from 1ms to 15s, as 100ms, or auto".to_string();
    let window: Duration = humantime::parse_duration(text).map_err(|_| wrong())?;
    let fits = (Duration::from_millis(1)..=WINDOW_MAX).contains(&window);
    if fits { Ok(RecoveryWindow::Fixed(window)) } else { Err(wrong()) }
}
