//! SRT: the subject turns UDP into SRT or SRT into UDP, and this engine is at the other end for everybody.

use std::process::Command;

use crate::Options;
use crate::child::{self, Measured};
use crate::peer::{Peer, Programs, url};

/// Which end is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Send,
    Receive,
}

/// What the connection is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Srt {
    pub(crate) end: End,
    pub(crate) encrypted: bool,
}

const LATENCY_MS: u32 = 120;
const PASSPHRASE: &str = "0123456789";

pub(crate) fn start(options: &Options, srt: Srt, peer: Peer, input: u16, output: u16) -> Result<Measured, String> {
    let text = |error: std::io::Error| error.to_string();
    // The first ones are taken for the input in a moment.
    let port = child::free_ports(8).map_err(text)?[7];
    let subject = srt.command(&options.programs, peer, [input, port, output]);
    let other = Srt { end: srt.end.other(), ..srt }.command(&options.programs, Peer::Anabranch, [input, port, output]);
    // Whoever listens is there first; callers come again by themselves, but not all of them.
    let other_first = srt.end == End::Send;
    let (first, second) = if other_first { (other, subject) } else { (subject, other) };
    let cpu = |is_subject| if is_subject { options.subject_cpu() } else { options.helper_cpu() };
    let first = Measured::start(first, cpu(!other_first)).map_err(text)?;
    crate::sys::sleep(std::time::Duration::from_millis(300));
    let second = Measured::start(second, cpu(other_first)).map_err(text)?;
    let (mut subject, other) = if other_first { (second, first) } else { (first, second) };
    subject.keep_beside(other);
    Ok(subject)
}

impl End {
    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Send => Self::Receive,
            Self::Receive => Self::Send,
        }
    }
}

impl Srt {
    /// `ports`: UDP in, SRT, UDP out.
    pub(crate) fn command(self, programs: &Programs, peer: Peer, ports: [u16; 3]) -> Command {
        let [input, port, output] = ports;
        let mode = match self.end {
            End::Send => "caller",
            End::Receive => "listener",
        };
        let mut srt = format!("srt://127.0.0.1:{port}?mode={mode}&latency={LATENCY_MS}");
        if self.encrypted {
            srt += &format!("&passphrase={PASSPHRASE}");
        }
        let (from, to) = match self.end {
            End::Send => (url(input), srt),
            End::Receive => (srt, url(output)),
        };
        if peer == Peer::Libsrt {
            let (role, from, to) = match self.end {
                End::Send => ("send", input, port),
                End::Receive => ("receive", port, output),
            };
            let mut command = Command::new(&programs.libsrt);
            command.args([role, &from.to_string(), &to.to_string()]);
            if self.encrypted {
                command.arg(PASSPHRASE);
            }
            return command;
        }
        if peer == Peer::SrtLiveTransmit {
            let mut command = Command::new("srt-live-transmit");
            command.args(["-q", "-s", "0", &from, &to]);
            return command;
        }
        let mut command = Command::new(&programs.anabranch);
        command.args(["route", &from, "--", &to]);
        command
    }
}
