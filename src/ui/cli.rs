//! Arguments and subcommands.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::bus::LagPolicy;
use crate::control::config::Listen;
use crate::engine::url::parse_coalesce;
use crate::path::failover::{KEY_FRAME_WAIT, SwitchAt};
use crate::path::health::Rules;
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
    Probe(Probe),
}

/// Run one flow now: sources before `--`, outputs after it. Several sources are failover in the given order,
/// or merged.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  anabranch route udp://0.0.0.0:5000 -- udp://10.0.0.2:6000 udp://10.0.0.3:6000
  anabranch route udp://@239.1.1.1:5000?iface=eth0 -- rtp://10.0.0.2:5004
  anabranch route rtp://:5000 rtp://:5002 -- udp://10.0.0.2:6000       the second source is the backup
  anabranch route --switch-on loss=20 rtp://:5000 rtp://:5002 -- udp://10.0.0.2:6000   leave the first at 2 % of loss, too
  anabranch route --merge rtp://:5000 rtp://:5002 -- udp://10.0.0.2:6000   both carry the same: what one loses the other has
  anabranch route udp://:5000 -- 'rtp://10.0.0.2:5004?iface=eth0&leg=10.1.0.2:5004@eth1'   the same over two networks
  anabranch route udp://:5000 -- 'srt://:9000?latency=200'              any number of callers pull it
  anabranch route 'srt://10.0.0.9:9000?passphrase=file:key.txt' -- udp://10.0.0.2:6000
  anabranch route rist://@:5000 -- 'rist://10.0.0.9:5000?profile=simple&buffer=300'
  anabranch route rtmp://@:1935/live/KEY -- udp://10.0.0.2:6000 rtmp://cdn.example/app/KEY
  anabranch route --coalesce 2ms udp://:5000 -- udp://10.0.0.2:6000    less CPU for 2 ms of latency
  anabranch route --analyse udp://:5000 -- udp://10.0.0.2:6000          and what is wrong with it, by TR 101 290
  anabranch route --json --stats 1 test:bars?rate=20M -- udp://127.0.0.1:6000

Keys of udp:// and rtp:// sources: iface, rcvbuf, source; rtp:// also pt, reorder.
Keys of udp:// and rtp:// outputs: coalesce, dscp, iface, pkt_size, sndbuf, ttl; rtp:// also fec, header, leg, pt,
ssrc.
Keys of srt://: libsrt's, as latency (ms), passphrase, pbkeylen, streamid, mode, maxbw; dscp, iface, rcvbuf, sndbuf.
Keys of rist://: librist's, as buffer (ms), profile, secret, username, password; npd, nack; dscp, iface, rcvbuf.
Keys of rtmp:// sources that are called: takeover.
Ctrl-C ends cleanly and prints totals.")]
pub(super) struct Route {
    /// Where packets come from: udp://, rtp://, srt://, rist://, rtmp:// or test:. One to eight.
    #[arg(required = true, value_name = "SOURCE")]
    pub(super) sources: Vec<String>,
    /// Where packets go to: udp://, rtp://, srt://, rist:// or rtmp://. Up to 256.
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
    /// Release merged packets all with the same delay, that of the recovery window, instead of waiting only at gaps.
    #[arg(long, requires = "merge")]
    pub(super) align: bool,
    /// Analyse the transport stream of each source, and of what they are merged into (ETSI TR 101 290): a line below each
    /// among the figures, and events.
    #[arg(long)]
    pub(super) analyse: bool,
    /// The same of what each output takes to send.
    #[arg(long)]
    pub(super) analyse_outputs: bool,
    /// Silence after which a source counts as lost, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 500, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    pub(super) health_timeout_ms: u64,
    /// How long the first source must have been back before the flow returns to it, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(0..=3_600_000))]
    pub(super) hold_off_ms: u64,
    /// What makes the flow leave a source that delivers: loss=PER_MILLE, ts-errors=PER_SECOND, black, frozen, silent,
    /// no-video, no-audio; also hold-off=2s and return-hold-off=5s, for how long it must be so, and good again. As
    /// loss=20,black.
    #[arg(long, value_name = "RULES", conflicts_with = "merge", value_parser = switch_on)]
    pub(super) switch_on: Option<Rules>,
    /// With which packet another source begins while the last one delivers: immediate, the next one; or keyframe, the
    /// next one in which a key frame begins, so that a decoder shows no broken picture.
    #[arg(long, value_name = "WHEN", conflicts_with = "merge", default_value = "immediate", value_parser = ["immediate", "keyframe"])]
    switch_at: String,
    /// How long it waits for that key frame at most: 2s unless given, at most 60s.
    #[arg(long, value_name = "TIME", requires = "switch_at", value_parser = switch_wait)]
    switch_wait: Option<Duration>,
    /// With what an output goes on that could not keep up: drop-oldest, the oldest packet still there; or
    /// to-next-keyframe, the next one in which a key frame begins.
    #[arg(long, value_name = "POLICY", default_value = "drop-oldest", value_parser = ["drop-oldest", "to-next-keyframe"])]
    policy: String,
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
  anabranch gen --picture srt://127.0.0.1:9000      moving bars, clock and tone: H.264 and MPEG audio
  anabranch gen --picture --size 1920x1080 --fps 50 --name STUDIO-1 udp://127.0.0.1:5000
  anabranch gen --picture --fault black=5s/60s udp://127.0.0.1:5000      the last 5 s of every 60 s are black
  anabranch gen --picture --fault cc=1s/10s --fault pcr_jitter=20us udp://127.0.0.1:5000

A fault is on always, or as 5s/60s says. Each raises an alarm of its own, of TR 101 290 that of the number:
  picture and sound  black, freeze, silence, no_video (2.5), no_audio (1.6, 2.5)
  priority 1         sync_loss (1.1, 1.2), sync (1.2), pat_gap (1.3), cc (1.4), pmt_gap (1.5), pid_missing (1.6)
  priority 2         tei (2.1), crc (2.2), pcr_gap (2.3a, 2.3b), pcr_jump (2.3b), pcr_jitter (2.4), pts_gap (2.5),
                     scrambled (2.6)
  priority 3         nit_gap (3.1a), nit_other_gap (3.1b), si_repetition (3.2), buffer_overflow (3.3), unreferenced (3.4),
                     sdt_gap (3.5a), sdt_other_gap (3.5b), eit_gap (3.6a), eit_other_gap (3.6b),
                     eit_pf_gap (3.6a, 3.6c), rst (3.7), tdt_gap (3.8), empty_buffer (3.9), data_delay (3.10)
A gap must be longer than the indicator waits: 1.3 and 1.5 0.5 s, 1.6 5 s, 3.1 10 s, 3.5a and 3.6a 2 s, 3.8 30 s.
empty_buffer must last for more than 1 s, in a stream of 6 Mb/s and more.
Tables of others (3.1b, 3.5b, 3.6b) come with their fault: in time until it is on, then every 15 s, and may 10 s.
pcr_jitter=20us is how much, 10us unless given; 20us@1s/10s says when as well.
Numbered packets have none of black, freeze, silence, no_video, no_audio, pts_gap, nit_gap, si_repetition, sdt_gap,
eit_gap, eit_pf_gap, tdt_gap, empty_buffer, data_delay.")]
pub(super) struct Generate {
    /// Where to: udp://, rtp://, srt:// or rist://.
    #[arg(required = true, value_name = "OUTPUT")]
    pub(super) outputs: Vec<String>,
    /// Send a picture with sound instead of numbered packets.
    #[arg(long)]
    pub(super) picture: bool,
    /// Size of the picture: 1280x720, which it is unless given, or 1920x1080.
    #[arg(long, value_name = "SIZE", requires = "picture")]
    pub(super) size: Option<String>,
    /// Pictures a second: 25, which they are unless given, 30 or 50.
    #[arg(long, value_name = "N", requires = "picture")]
    pub(super) fps: Option<String>,
    /// What stands above the clock, and in the tables: up to 12 letters and digits.
    #[arg(long, value_name = "NAME", requires = "picture")]
    pub(super) name: Option<String>,
    /// Be wrong on purpose, so that an alarm can be seen; several may be given. See below.
    #[arg(long = "fault", value_name = "FAULT[=SPAN/PERIOD]")]
    pub(super) faults: Vec<String>,
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

/// Say what a live source or a file carries: programs, streams, rates, and what ETSI TR 101 290 says of it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  anabranch probe udp://@239.1.1.1:5000
  anabranch probe --seconds 30 'srt://10.0.0.9:9000?passphrase=file:key.txt'
  anabranch probe recording.ts
  anabranch probe --json recording.ts

A file is read as fast as it can be, and timed by its clock references.
Exit code: 0 if there was a transport stream, whatever is wrong with it; 1 if there was none; 2 for a wrong command line.")]
pub(super) struct Probe {
    /// udp://, rtp://, srt://, rist://, test: or the name of a file.
    #[arg(value_name = "INPUT")]
    pub(super) input: String,
    /// Look for so many seconds: 5 unless given, and all of a file.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(super) seconds: Option<u64>,
    /// Print one JSON object: `ts` of the metrics of a flow, and `streams` of its metadata.
    #[arg(long)]
    pub(super) json: bool,
}

impl Route {
    pub(super) fn switch_at(&self) -> SwitchAt {
        let wait_max = self.switch_wait.unwrap_or(KEY_FRAME_WAIT);
        if self.switch_at == "keyframe" { SwitchAt::KeyFrame { wait_max } } else { SwitchAt::Once }
    }

    /// Of all outputs.
    pub(super) fn policy(&self) -> LagPolicy {
        if self.policy == "to-next-keyframe" { LagPolicy::ToNextKeyFrame } else { LagPolicy::DropOldest }
    }
}

fn switch_wait(text: &str) -> Result<Duration, String> {
    let wait: Option<Duration> = humantime::parse_duration(text).ok();
    wait.filter(|wait| *wait <= KEY_FRAME_WAIT_MAX).ok_or_else(|| "write a time up to 60s, as 2s".to_string())
}

fn coalesce(text: &str) -> Result<Duration, String> {
    parse_coalesce(text).ok_or_else(|| "write a time from 0 to 100ms, as 2ms".to_string())
}

fn switch_on(text: &str) -> Result<Rules, String> {
    let mut rules = Rules::default();
    for part in text.split(',') {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        let number = |max| value.parse().ok().filter(|number| (1..=max).contains(number));
        let time = || humantime::parse_duration(value).ok().filter(|time| *time <= HOLD_OFF_MAX);
        let is_good = match key {
            "loss" => number(999).map(|number| rules.loss_per_mille = Some(number)),
            "ts-errors" => number(100_000).map(|number| rules.ts_errors_per_second = Some(number)),
            "black" | "frozen" | "silent" | "no-video" | "no-audio" => value.is_empty().then(|| {
                let seen = &mut rules.seen;
                *match key {
                    "black" => &mut seen.black,
                    "frozen" => &mut seen.frozen,
                    "silent" => &mut seen.silent,
                    "no-video" => &mut seen.no_video,
                    _ => &mut seen.no_audio,
                } = true;
            }),
            "hold-off" => time().map(|time| rules.hold_off = time),
            "return-hold-off" => time().map(|time| rules.return_hold_off = time),
            _ => return Err(format!("{key} is none of loss, ts-errors, {SEEN}, hold-off, return-hold-off")),
        };
        is_good.ok_or_else(|| match key {
            "loss" => "write packets lost of a thousand, from 1 to 999, as loss=20".to_string(),
            "ts-errors" => "write errors in a second, from 1 to 100000, as ts-errors=5".to_string(),
            "hold-off" | "return-hold-off" => format!("write a time up to 1h, as {key}=2s"),
            _ => format!("write {key} without a value"),
        })?;
    }
    if rules.is_any() { Ok(rules) } else { Err(format!("give loss, ts-errors, or one of {SEEN}, as loss=20,black")) }
}

/// Rules without a threshold.
const SEEN: &str = "black, frozen, silent, no-video, no-audio";

/// As in the API.
const KEY_FRAME_WAIT_MAX: Duration = Duration::from_secs(60);
/// As in the API.
const HOLD_OFF_MAX: Duration = Duration::from_secs(3_600);

fn recovery_window(text: &str) -> Result<RecoveryWindow, String> {
    if text == "auto" {
        return Ok(RecoveryWindow::Auto);
    }
    let wrong = || "write a time from 1ms to 15s, as 100ms, or auto".to_string();
    let window: Duration = humantime::parse_duration(text).map_err(|_| wrong())?;
    let fits = (Duration::from_millis(1)..=WINDOW_MAX).contains(&window);
    if fits { Ok(RecoveryWindow::Fixed(window)) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::health::Seen;

    #[test]
    fn key_frames_are_asked_for_by_flags() {
        let route = |flags: &str| {
            let text = format!("anabranch route {flags} udp://:5000 -- udp://10.0.0.2:6000");
            match Arguments::try_parse_from(text.split_whitespace()).map(|arguments| arguments.command) {
                Ok(Command::Route(route)) => Some((route.switch_at(), route.policy())),
                _ => None,
            }
        };
        let after = |ms| SwitchAt::KeyFrame { wait_max: Duration::from_millis(ms) };
        assert_eq!(route(""), Some((SwitchAt::Once, LagPolicy::DropOldest)));
        assert_eq!(route("--switch-at keyframe"), Some((after(2_000), LagPolicy::DropOldest)));
        let both = "--switch-at keyframe --switch-wait 700ms --policy to-next-keyframe";
        assert_eq!(route(both), Some((after(700), LagPolicy::ToNextKeyFrame)));
        for wrong in
            ["--switch-at now", "--switch-at keyframe --switch-wait 61s", "--policy disconnect", "--switch-wait 1s"]
        {
            assert_eq!(route(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn rules_are_read_and_what_is_wrong_is_told() {
        let hold_off = Duration::from_millis(700);
        let expected = Rules { loss_per_mille: Some(20), ts_errors_per_second: Some(5), hold_off, ..Rules::default() };
        assert_eq!(switch_on("loss=20,ts-errors=5,hold-off=700ms"), Ok(expected));
        let seen = Seen { black: true, no_audio: true, ..Seen::NONE };
        assert_eq!(switch_on("black,no-audio"), Ok(Rules { seen, ..Rules::default() }));
        for (text, problem) in [
            ("", "is none of loss"),
            ("los=20", "los is none of loss"),
            ("loss", "from 1 to 999"),
            ("loss=0", "from 1 to 999"),
            ("loss=1000", "from 1 to 999"),
            ("ts-errors=x", "errors in a second"),
            ("loss=20,hold-off=2h", "up to 1h, as hold-off=2s"),
            ("hold-off=2s", "give loss, ts-errors, or one of black"),
            ("black=1", "write black without a value"),
        ] {
            let told = switch_on(text).unwrap_err();
            assert!(told.contains(problem), "{text}: {told}");
        }
    }
}
