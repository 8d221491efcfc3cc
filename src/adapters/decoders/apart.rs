//! `Apart`: a process of its own that decodes, and what is done when it crashes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::pool::{Bench, cpu_max};
use crate::adapters::clock;
use crate::media::watch::wire::Request;
use crate::media::watch::{Failure, Findings, Job, Outcome, Work};
use crate::units::Time;

/// Has jobs done by a process, which is started when there is one, and again after it crashed.
///
/// A process says that it has given up what it does not need before it gets anything from a stream. One that could not even
/// do that, or could not be started at all, is nobody's crash.
///
/// What a process knew of a stream's pictures is the one that later ones are compared to. Its coded units are kept here,
/// so that the next process can be shown it again before it is asked about another: whoever brought down the one
/// before does not make others' pictures begin anew. How far it listened says each job of sound.
#[derive(Debug)]
pub(in crate::adapters) struct Apart {
    program: PathBuf,
    process: Option<imp::Process>,
    /// Processes started so far.
    started: u64,
    /// How often it failed in a row, and until when it is left alone therefore.
    failures: u32,
    not_before: Time,
    /// The last one could not be started.
    is_refused: bool,
    shown: BTreeMap<u64, Shown>,
}

/// The picture that a stream's later ones are compared to.
#[derive(Debug)]
struct Shown {
    job: Job,
    /// Which of all processes has seen it.
    process: u64,
}

impl Apart {
    /// Processes are this program, which has to call [`run_decode_worker`](super::run_decode_worker) first.
    pub(in crate::adapters) const fn new(program: PathBuf) -> Self {
        let (started, failures, not_before, is_refused) = (0, 0, Time::ZERO, false);
        Self { program, process: None, started, failures, not_before, is_refused, shown: BTreeMap::new() }
    }

    /// The process that is there, or another one as soon as it may be started; `None` while none can be.
    fn process(&mut self) -> Option<&mut imp::Process> {
        if self.process.is_none() {
            // After a crash it is there in a moment. Where none can be started all streams are to know that.
            if self.is_refused && clock::now() < self.not_before {
                return None;
            }
            pause_until(self.not_before);
            self.process = imp::Process::start(&self.program).ok();
            self.is_refused = self.process.is_none();
            if self.is_refused {
                self.put_off();
            } else {
                self.started += 1;
            }
        }
        self.process.as_mut()
    }

    fn put_off(&mut self) {
        self.failures += 1;
        self.not_before = clock::now() + (PAUSE_MIN * 2_u32.pow(self.failures.min(10) - 1)).min(PAUSE_MAX);
    }

    /// The same for one job, whatever the process knows.
    fn ask(&mut self, stream: u64, job: Job) -> Outcome {
        let (number, cpu_max) = (job.number, cpu_max(&job));
        // Waiting costs nothing.
        let Some(process) = self.process() else {
            return Outcome { number, result: Err(Failure::NotStarted), cpu: Duration::ZERO };
        };
        let started = clock::now();
        let outcome = process.ask(&Request::Do(stream, job), cpu_max).ok();
        // What it took says the system, and not who may have been taken over. Where it does not: what passed is never less.
        let cpu = process.spent().unwrap_or_else(|| clock::now().since(started));
        if let Some(outcome) = outcome.filter(|outcome| outcome.number == number) {
            self.failures = 0;
            return Outcome { cpu, ..outcome };
        }
        self.process = None;
        self.put_off();
        Outcome { number, result: Err(Failure::Crashed), cpu }
    }

    /// Shows a process that has not seen it what a picture will be compared to. What came of that, if it was needed.
    fn show_again(&mut self, stream: u64, work: &Work) -> Option<Outcome> {
        if !matches!(work, Work::Picture { quality: true, anew: false, .. }) {
            return None;
        }
        self.process();
        let shown = self.shown.get_mut(&stream).filter(|shown| shown.process != self.started)?;
        shown.process = self.started;
        let job = shown.job.clone();
        Some(self.ask(stream, job))
    }

    /// Keeps what later pictures are compared to from here on, as whoever decodes does.
    fn keep(&mut self, stream: u64, job: Job, outcome: &Outcome) {
        let Work::Picture { quality, anew, .. } = job.work else { return };
        let is_compared_to = match &outcome.result {
            Ok(Findings::Picture(findings)) => quality && findings.same != Some(true),
            Ok(Findings::Sound(_) | Findings::Proof(_)) | Err(_) => false,
        };
        if anew || is_compared_to || outcome.result == Err(Failure::Crashed) {
            self.shown.remove(&stream);
        }
        let bytes = bytes_of(&job);
        let kept: usize = self.shown.values().map(|shown| bytes_of(&shown.job)).sum();
        if is_compared_to && bytes <= SHOWN_BYTES_MAX && kept + bytes <= ALL_SHOWN_BYTES_MAX {
            let work = Work::Picture { thumbnail: false, quality: true, anew: true };
            self.shown.insert(stream, Shown { job: Job { work, ..job }, process: self.started });
        }
    }
}

impl Bench for Apart {
    fn run(&mut self, stream: u64, job: Job) -> Outcome {
        let again = self.show_again(stream, &job.work);
        let cpu = again.as_ref().map_or(Duration::ZERO, |again| again.cpu);
        let has_failed = |again: &Outcome| matches!(again.result, Err(Failure::Crashed | Failure::NotStarted));
        let outcome = match again.filter(has_failed) {
            Some(again) => Outcome { number: job.number, ..again },
            None => {
                let outcome = self.ask(stream, job.clone());
                Outcome { cpu: outcome.cpu + cpu, ..outcome }
            }
        };
        self.keep(stream, job, &outcome);
        outcome
    }

    fn forget(&mut self, stream: u64) {
        self.shown.remove(&stream);
        let told = self.process.as_mut().map(|process| process.tell(&Request::Forget(stream)));
        if told.is_some_and(|told| told.is_err()) {
            self.process = None;
        }
    }
}

fn bytes_of(job: &Job) -> usize {
    job.units.iter().map(|unit| unit.bytes.len()).sum()
}

/// The thread has nothing else to do.
fn pause_until(until: Time) {
    loop {
        let left = until.since(clock::now());
        if left.is_zero() {
            return;
        }
        std::thread::park_timeout(left);
    }
}

#[cfg(target_os = "linux")]
mod imp {
    use std::io::{self, Read, Write};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    use std::path::Path;
    use std::process::{Child, Command, Stdio};
    use std::time::Duration;

    use super::super::pool::{Idle, is_stuck};
    use super::super::system::{is_runnable, process_clock, read_clock};
    use super::super::worker::{READY, read_message, write_message};
    use crate::adapters::clock;
    use crate::adapters::watchers::WORKER_ARGUMENT;
    use crate::media::watch::Outcome;
    use crate::media::watch::wire::Request;
    use crate::units::Time;

    #[derive(Debug)]
    pub(super) struct Process {
        child: Child,
        connection: UnixStream,
        /// What its clock showed when the job began.
        spent: Duration,
        message: Vec<u8>,
    }

    impl Process {
        pub(super) fn start(program: &Path) -> io::Result<Self> {
            let (connection, theirs) = UnixStream::pair()?;
            // Whoever waits has a look now and then whether the other side is stuck.
            connection.set_read_timeout(Some(LOOK_EVERY))?;
            connection.set_write_timeout(Some(LOOK_EVERY))?;
            let mut command = Command::new(program);
            // What the environment tells is none of its business.
            command.env_clear().arg(WORKER_ARGUMENT).stdin(Stdio::from(OwnedFd::from(theirs)));
            let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
            // It has their end of the connection, which is to end with the process.
            drop(command);
            let mut process = Self { child, connection, spent: Duration::ZERO, message: Vec::new() };
            if process.read(START_CPU_MAX)? && process.message == READY {
                return Ok(process);
            }
            Err(io::ErrorKind::InvalidData.into())
        }

        /// Has the job done, which may take so much computing time.
        pub(super) fn ask(&mut self, request: &Request, cpu_max: Duration) -> io::Result<Outcome> {
            self.spent = self.cpu().unwrap_or_default();
            write_message(&mut self.patient(cpu_max), &request.encode())?;
            if !self.read(cpu_max)? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Outcome::decode(&self.message).map_err(|_| io::ErrorKind::InvalidData.into())
        }

        /// Its next message; false if there is none any more.
        fn read(&mut self, cpu_max: Duration) -> io::Result<bool> {
            let mut message = std::mem::take(&mut self.message);
            let result = read_message(&mut self.patient(cpu_max), &mut message);
            self.message = message;
            result
        }

        fn patient(&self, cpu_max: Duration) -> Patient<'_> {
            let (connection, pid, spent) = (&self.connection, self.child.id(), self.spent);
            Patient { connection, pid, began: clock::now(), spent, cpu_max, idle: Idle::default() }
        }

        pub(super) fn tell(&mut self, request: &Request) -> io::Result<()> {
            write_message(&mut self.connection, &request.encode())
        }

        /// What it took for its last job, if that is known.
        pub(super) fn spent(&self) -> Option<Duration> {
            self.cpu().map(|cpu| cpu.saturating_sub(self.spent))
        }

        fn cpu(&self) -> Option<Duration> {
            read_clock(process_clock(self.child.id())?)
        }

        #[cfg(test)]
        pub(super) fn id(&self) -> u32 {
            self.child.id()
        }

        fn kill(&mut self) {
            let _it_may_be_dead = self.child.kill();
            let _nor_is_this_needed = self.child.wait();
        }
    }

    impl Drop for Process {
        fn drop(&mut self) {
            self.kill();
        }
    }

    /// Waits for the other side until it is stuck.
    struct Patient<'a> {
        connection: &'a UnixStream,
        pid: u32,
        began: Time,
        spent: Duration,
        cpu_max: Duration,
        idle: Idle,
    }

    impl Patient<'_> {
        fn retry<T>(&mut self, mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
            loop {
                let result = attempt();
                let waits = result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
                if !waits {
                    return result;
                }
                let spent = process_clock(self.pid).and_then(read_clock).map(|cpu| cpu.saturating_sub(self.spent));
                let now = clock::now();
                let is_idle = self.idle.handle_look(now, spent, is_runnable(self.pid));
                if is_idle || is_stuck(now.since(self.began), spent, self.cpu_max) {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
        }
    }

    impl Read for Patient<'_> {
        fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            let mut connection = self.connection;
            self.retry(|| connection.read(bytes))
        }
    }

    impl Write for Patient<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut connection = self.connection;
            self.retry(|| connection.write(bytes))
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    const LOOK_EVERY: Duration = Duration::from_secs(1);
    /// It takes some milliseconds.
    const START_CPU_MAX: Duration = Duration::from_secs(10);
}

#[cfg(not(target_os = "linux"))]
mod imp {
    use std::io;
    use std::path::Path;
    use std::time::Duration;

    use crate::media::watch::Outcome;
    use crate::media::watch::wire::Request;

    #[derive(Debug)]
    pub(super) struct Process;

    impl Process {
        pub(super) fn start(_program: &Path) -> io::Result<Self> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub(super) fn ask(&mut self, _request: &Request, _cpu_max: Duration) -> io::Result<Outcome> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub(super) fn tell(&mut self, _request: &Request) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub(super) const fn spent(&self) -> Option<Duration> {
            None
        }
    }
}

/// After a crash, and after many in a row.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Coded pictures to be shown again, of one stream and of all: a key frame of 50 Mb/s has 1.2 MB. Larger ones, and those
/// for which there is no room, are not kept, and their streams' next pictures are compared to nothing after a crash.
const SHOWN_BYTES_MAX: usize = 4 << 20;
const ALL_SHOWN_BYTES_MAX: usize = 64 << 20;

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::fs;
    use std::process::Command;

    use tempfile::TempDir;

    use super::*;
    use crate::media::watch::Work;

    #[test]
    fn a_process_that_cannot_be_started_is_nobodys_crash_and_is_tried_again() {
        let missing = tempfile::tempdir().unwrap().path().join("missing");
        // One that is not there, and one that ends before it is ready.
        for (folder, program) in [(None, missing), (script("exit 1", "", 7))] {
            let mut apart = Apart::new(program);
            assert_eq!(apart.run(5, job(7)).result, Err(Failure::NotStarted));
            // Nobody waits for the next attempt.
            apart.not_before = clock::now() + Duration::from_secs(3_600);
            assert_eq!((apart.run(6, job(7)).result, apart.failures), (Err(Failure::NotStarted), 1));
            let before = clock::now();
            apart.not_before = before;
            assert_eq!((apart.run(5, job(7)).result, apart.failures), (Err(Failure::NotStarted), 2));
            assert!(apart.not_before > before, "later and later");
            let (_folder, program) = script("", "", 7);
            (apart.program, apart.not_before) = (program, before);
            assert_eq!((apart.run(5, job(7)).result, apart.failures), (Err(Failure::Damaged), 0));
            drop(folder);
        }
    }

    #[test]
    fn a_process_that_ends_costs_one_job() {
        let (_folder, mut apart) = apart("[ -e $0.was ] || { : >$0.was; exit 1; }", 8);
        let crashed = apart.run(5, job(7));
        assert_eq!((crashed.number, crashed.result), (7, Err(Failure::Crashed)));
        let outcome = apart.run(5, job(8));
        assert_eq!((outcome.number, outcome.result, apart.failures), (8, Err(Failure::Damaged), 0));
    }

    /// The answer that is prepared says an hour.
    #[test]
    fn what_a_job_took_says_the_system() {
        let (_folder, mut apart) = apart("", 7);
        let outcome = apart.run(5, job(7));
        assert_eq!(outcome.result, Err(Failure::Damaged));
        assert!(outcome.cpu < Duration::from_secs(60), "{outcome:?}");
    }

    #[test]
    fn an_answer_to_something_else_is_a_crash() {
        let (_folder, mut apart) = apart("", 8);
        assert_eq!(apart.run(5, job(7)).result, Err(Failure::Crashed));
        assert!(apart.process.is_none());
    }

    #[test]
    fn a_process_that_comes_to_no_end_is_ended_by_what_it_takes() {
        let (_folder, mut apart) = apart("while :; do :; done", 7);
        apart.process().unwrap();
        let mut process = apart.process.take().unwrap();
        let cpu_max = Duration::from_millis(200);
        let error = process.ask(&Request::Do(5, job(7)), cpu_max).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
        assert!(process.spent().unwrap() >= cpu_max);
        let pid = process.id();
        drop(process);
        assert!(!fs::exists(format!("/proc/{pid}")).unwrap(), "it is still there");
    }

    /// Started for it is a script, which answers that job `number` was damaged, whatever it was asked.
    fn apart(first: &str, number: u64) -> (TempDir, Apart) {
        let (folder, program) = script("", first, number);
        (folder.unwrap(), Apart::new(program))
    }

    /// One that does this before it says that it is ready, and that before it answers.
    fn script(unready: &str, first: &str, number: u64) -> (Option<TempDir>, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let [text, program, answer] = ["text", "program", "answer"].map(|name| folder.path().join(name));
        let message = Outcome { number, result: Err(Failure::Damaged), cpu: Duration::from_secs(3_600) }.encode();
        let length = (message.len() as u32).to_le_bytes();
        fs::write(&answer, [&length[..], &message].concat()).unwrap();
        let answer = answer.display();
        let ready = "printf '\\0\\0\\0\\0' >&0";
        let lines = ["#!/bin/sh", unready, ready, first, &format!("/bin/cat {answer} >&0"), "exec /bin/cat >/dev/null"];
        fs::write(&text, lines.join("\n")).unwrap();
        // Written by another process: what is open for writing here would be so in children that others start.
        let made = Command::new("install").args(["-m", "755"]).args([&text, &program]).status().unwrap();
        assert!(made.success());
        (Some(folder), program)
    }

    fn job(number: u64) -> Job {
        Job { number, work: Work::Sound { before: None }, units: Vec::new() }
    }
}
