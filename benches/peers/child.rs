//! Child processes: always ended, asked over pipes, and their cost read from `/proc`.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::UdpSocket;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::sys;

/// A process under measurement. Killed when dropped.
pub(crate) struct Measured {
    child: Child,
    errors: File,
    /// Removed after the process has ended.
    folder: Option<TempDir>,
    /// Who is needed beside it and is not measured.
    beside: Option<Box<Self>>,
}

/// What a process has used so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    pub(crate) cpu_ns: u64,
    pub(crate) switches: u64,
    pub(crate) rss_peak_bytes: u64,
}

impl Measured {
    pub(crate) fn start(mut command: Command, cpu: Option<usize>) -> io::Result<Self> {
        let errors = tempfile::tempfile()?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors.try_clone()?);
        Ok(Self { child: sys::spawn(&mut command, cpu)?, errors, folder: None, beside: None })
    }

    pub(crate) fn keep(&mut self, folder: TempDir) {
        self.folder = Some(folder);
    }

    pub(crate) fn keep_beside(&mut self, other: Self) {
        self.beside = Some(Box::new(other));
    }

    pub(crate) fn usage(&self) -> Option<Usage> {
        let pid = self.child.id();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let switches = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten().filter_map(|task| {
            let status = fs::read_to_string(task.path().join("status")).ok()?;
            Some(number(&status, "voluntary_ctxt_switches:")? + number(&status, "nonvoluntary_ctxt_switches:")?)
        });
        Some(Usage {
            cpu_ns: sys::cpu_ns(pid)?,
            switches: switches.sum(),
            rss_peak_bytes: number(&status, "VmHWM:")? * 1024,
        })
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// The last lines it wrote to standard error.
    pub(crate) fn complaint(&mut self) -> String {
        let mut text = Vec::new();
        if self.errors.seek(SeekFrom::Start(0)).is_ok() {
            let _ = self.errors.read_to_end(&mut text);
        }
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(3)..].join(" / ")
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        end(&mut self.child);
        drop(self.folder.take());
        drop(self.beside.take());
    }
}

fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

fn number(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

/// A role of this same program that answers one line for each line asked. Killed when dropped.
pub(crate) struct Helper {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Helper {
    pub(crate) fn start(role: &str, args: &[String], cpu: Option<usize>) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(role).args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = sys::spawn(&mut command, cpu)?;
        let questions = child.stdin.take().expect("piped");
        let answers = BufReader::new(child.stdout.take().expect("piped"));
        Ok(Self { child, questions, answers })
    }

    pub(crate) fn ask(&mut self, question: &str) -> io::Result<String> {
        writeln!(self.questions, "{question}")?;
        self.listen()
    }

    pub(crate) fn ask_json(&mut self, question: &str) -> io::Result<Value> {
        Ok(serde_json::from_str(&self.ask(question)?)?)
    }

    pub(crate) fn listen(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            return Err(io::Error::other("a helper process ended"));
        }
        Ok(line)
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Ports nobody listens on, outside the range the kernel hands out by itself, so that no socket opened meanwhile takes one.
pub(crate) fn free_ports(count: usize) -> io::Result<Vec<u16>> {
    let first = 20_000 + u16::try_from(std::process::id() % 8_000).unwrap_or(0);
    let free: Vec<_> =
        (first..32_000).filter(|&port| UdpSocket::bind(sys::loopback(port)).is_ok()).take(count).collect();
    if free.len() == count { Ok(free) } else { Err(io::Error::other("not enough free UDP ports")) }
}

/// Busy time of one CPU or of all, whoever used it: shows when something else ran beside a measurement.
pub(crate) fn busy_ns(cpu: Option<usize>) -> u64 {
    let name = cpu.map_or_else(|| "cpu".into(), |cpu| format!("cpu{cpu}"));
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().find(|line| line.split_whitespace().next() == Some(&name)).unwrap_or_default();
    let ticks: Vec<u64> = line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal: all but idle and iowait, in hundredths of a second.
    let busy: u64 = ticks.iter().take(8).enumerate().filter(|(at, _)| !matches!(at, 3 | 4)).map(|(_, tick)| tick).sum();
    busy * 10_000_000
}
