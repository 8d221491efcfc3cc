//! Who is measured, with which command line, and why that one: for each peer the cheapest form that still delivers every byte.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::sys::SOCKET_BUFFER_BYTES;

/// One program that takes a feed from a port to other ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Raw,
    RawGso4,
    Anabranch,
    AnabranchCoalesce,
    Ffmpeg,
    FfmpegRemux,
    Gstreamer,
    Socat,
    Libsrt,
    SrtLiveTransmit,
    /// `ristsender` or `ristreceiver`.
    Librist,
}

/// Where the programs are that are not on the path.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    pub(crate) anabranch: PathBuf,
    /// Built from `libsrt.c`; empty if that could not be done.
    pub(crate) libsrt: PathBuf,
}

impl Peer {
    pub(crate) const ALL: [Self; 11] = [
        Self::Raw,
        Self::RawGso4,
        Self::Anabranch,
        Self::AnabranchCoalesce,
        Self::Ffmpeg,
        Self::FfmpegRemux,
        Self::Gstreamer,
        Self::Socat,
        Self::Libsrt,
        Self::SrtLiveTransmit,
        Self::Librist,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::RawGso4 => "raw-gso4",
            Self::Anabranch => "anabranch",
            Self::AnabranchCoalesce => "anabranch-coalesce",
            Self::Ffmpeg => "ffmpeg",
            Self::FfmpegRemux => "ffmpeg-remux",
            Self::Gstreamer => "gstreamer",
            Self::Socat => "socat",
            Self::Libsrt => "libsrt",
            Self::SrtLiveTransmit => "srt-live-transmit",
            Self::Librist => "librist",
        }
    }

    pub(crate) fn is_anabranch(self) -> bool {
        matches!(self, Self::Anabranch | Self::AnabranchCoalesce)
    }

    /// Why it cannot run here, if it cannot.
    pub(crate) fn missing(self, programs: &Programs) -> Option<String> {
        let program = match self {
            Self::Raw | Self::RawGso4 => return None,
            Self::Anabranch | Self::AnabranchCoalesce => programs.anabranch.as_path(),
            Self::Ffmpeg | Self::FfmpegRemux => Path::new("ffmpeg"),
            Self::Gstreamer => Path::new("gst-launch-1.0"),
            Self::Socat => Path::new("socat"),
            Self::Libsrt if programs.libsrt.as_os_str().is_empty() => {
                return Some("libsrt's headers are not installed".into());
            }
            Self::Libsrt => programs.libsrt.as_path(),
            Self::SrtLiveTransmit => Path::new("srt-live-transmit"),
            Self::Librist => Path::new("ristsender"),
        };
        (!is_installed(program)).then(|| format!("{} is not installed", program.display()))
    }

    pub(crate) fn command(self, programs: &Programs, port: u16, outputs: &[u16]) -> Command {
        match self {
            Self::Raw => raw(0, port, outputs),
            Self::RawGso4 => raw(4, port, outputs),
            Self::Anabranch => anabranch(programs, &[], port, outputs),
            Self::AnabranchCoalesce => anabranch(programs, &["--coalesce", "2ms"], port, outputs),
            Self::Ffmpeg => ffmpeg(port, outputs),
            Self::FfmpegRemux => ffmpeg_remux(port, outputs),
            Self::Gstreamer => gstreamer(port, outputs),
            Self::Socat => socat(port, outputs),
            Self::Libsrt | Self::SrtLiveTransmit | Self::Librist => unreachable!("only in scenarios of SRT and RIST"),
        }
    }
}

fn is_installed(program: &Path) -> bool {
    let on_path = || {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
    };
    if program.components().count() > 1 { program.is_file() } else { on_path() }
}

fn raw(train: u16, port: u16, outputs: &[u16]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg("raw").args([train, port].iter().chain(outputs).map(u16::to_string));
    command
}

fn anabranch(programs: &Programs, options: &[&str], port: u16, outputs: &[u16]) -> Command {
    let mut command = Command::new(&programs.anabranch);
    command.arg("route").args(options).arg(url(port)).arg("--").args(outputs.iter().copied().map(url));
    command
}

/// The cheapest `-c copy`. `-f data` passes datagrams on unparsed: no demuxing, and what arrives is what was sent. No receive
/// thread (`fifo_size=0`), which saves a copy and a task switch for each datagram. A flush for each packet, without which
/// datagrams wait for the next. One `tee` and connected sockets, which save a route look-up for each send.
fn ffmpeg(port: u16, outputs: &[u16]) -> Command {
    let source = format!("{}?fifo_size=0&pkt_size=1316&buffer_size={SOCKET_BUFFER_BYTES}", url(port));
    let slave =
        |&port: &u16| format!("[f=data]{}?pkt_size=1316&connect=1&buffer_size={SOCKET_BUFFER_BYTES}", url(port));
    let slaves: Vec<_> = outputs.iter().map(slave).collect();
    let mut command = quiet_ffmpeg();
    command.args(["-fflags", "nobuffer", "-f", "data", "-raw_packet_size", "1316", "-i", &source]);
    command.args(["-map", "0", "-c", "copy", "-flush_packets", "1", "-f", "tee", &slaves.join("|")]);
    command
}

/// The `-c copy` people type: the stream is demuxed and muxed again for each output, so the bytes are not kept. Only buffers
/// are enlarged and the search for streams is cut short.
fn ffmpeg_remux(port: u16, outputs: &[u16]) -> Command {
    let source = format!("{}?buffer_size={SOCKET_BUFFER_BYTES}&overrun_nonfatal=1", url(port));
    let mut command = quiet_ffmpeg();
    command.args(["-probesize", "200000", "-analyzeduration", "0", "-f", "mpegts", "-i", &source]);
    for &port in outputs {
        let output = format!("{}?pkt_size=1316&buffer_size={SOCKET_BUFFER_BYTES}", url(port));
        command.args(["-map", "0", "-c", "copy", "-f", "mpegts", &output]);
    }
    command
}

fn quiet_ffmpeg() -> Command {
    let mut command = Command::new("ffmpeg");
    command.args(["-hide_banner", "-loglevel", "error", "-nostats", "-nostdin"]);
    command
}

/// No clock in the way (`sync=false`), large buffers, no sender address and no last sample kept: nothing it does not need.
fn gstreamer(port: u16, outputs: &[u16]) -> Command {
    let clients: Vec<_> = outputs.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let mut command = Command::new("gst-launch-1.0");
    command.args(["-q", "udpsrc", "address=127.0.0.1", &format!("port={port}")]);
    command.args([&format!("buffer-size={SOCKET_BUFFER_BYTES}"), "retrieve-sender-address=false"]);
    command.args(["!", "multiudpsink", "sync=false", "async=false", "enable-last-sample=false"]);
    command.args([&format!("buffer-size={SOCKET_BUFFER_BYTES}"), &format!("clients={}", clients.join(","))]);
    command
}

/// One direction (`-u`), and a connected output, which saves the kernel a route look-up for each write. One output only.
fn socat(port: u16, outputs: &[u16]) -> Command {
    let mut command = Command::new("socat");
    command.args(["-u", "-b", "2048"]);
    command.arg(format!("UDP4-RECV:{port},bind=127.0.0.1,rcvbuf={SOCKET_BUFFER_BYTES}"));
    command.arg(format!("UDP4:127.0.0.1:{},sndbuf={SOCKET_BUFFER_BYTES}", outputs[0]));
    command
}

pub(crate) fn url(port: u16) -> String {
    format!("udp://127.0.0.1:{port}")
}
