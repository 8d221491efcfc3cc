//! The process that decodes, asked directly: what it gave up, and what becomes of one that is taken over all the same.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anabranch::adapters::watchers::WORKER_ARGUMENT;
use anabranch::media::watch::wire::Request;
use anabranch::media::watch::{Failure, Findings, Job, Outcome, Work};
use anabranch::proto::mpegts::demux::{AccessUnit, Codec};

#[test]
fn a_worker_decodes_with_nothing_but_what_it_needs() {
    let mut worker = Worker::start();
    for number in [1, 2] {
        let outcome = worker.ask(number, PICTURE).unwrap();
        let Ok(Findings::Picture(findings)) = outcome.result else { panic!("{outcome:?}") };
        assert_eq!((outcome.number, findings.black), (number, Some(false)));
        assert_eq!(findings.same, (number > 1).then_some(true));
    }
    let pid = worker.child.id();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let value = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
    assert_eq!((value("Seccomp:"), value("NoNewPrivs:"), value("Threads:")), (Some("2"), Some("1"), Some("1")));
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let limit = |key: &str| {
        let line = limits.lines().find(|line| line.starts_with(key)).unwrap();
        line[key.len()..].split_whitespace().take(2).map(|max| max.parse().unwrap()).collect::<Vec<u64>>()
    };
    assert_eq!(limit("Max address space"), [1 << 30; 2]);
    assert_eq!((limit("Max open files"), limit("Max core file size")), (vec![0; 2], vec![0; 2]));
    assert_eq!(worker.end(), (Some(0), None, String::new()));
}

#[test]
fn a_worker_decodes_av1() {
    let mut worker = Worker::start();
    for number in [1, 2] {
        let outcome = worker.ask_of(Codec::Av1, number, AV1).unwrap();
        let Ok(Findings::Picture(findings)) = outcome.result else { panic!("{outcome:?}") };
        assert_eq!((outcome.number, findings.black), (number, Some(false)));
        assert_eq!(findings.same, (number > 1).then_some(true));
    }
    assert_eq!(worker.end(), (Some(0), None, String::new()));
}

#[test]
fn a_worker_that_opens_a_file_is_killed() {
    let mut worker = Worker::start();
    assert!(worker.ask(1, PICTURE).is_some() && worker.ask(2, b"open").is_none());
    assert_eq!(worker.end(), (None, Some(libc::SIGSYS), String::new()));
}

#[test]
fn a_worker_gets_no_two_gigabytes() {
    let mut worker = Worker::start();
    assert!(worker.ask(1, PICTURE).is_some() && worker.ask(2, b"fill").is_none());
    let (code, signal, told) = worker.end();
    assert!(code.is_none() && signal.is_some(), "{code:?}");
    assert!(told.contains("allocation of 2147483648 bytes failed"), "{told}");
}

#[test]
fn a_worker_that_aborts_is_gone_and_damaged_units_do_it_no_harm() {
    let mut worker = Worker::start();
    assert_eq!(worker.ask(1, b"nothing of it").unwrap().result, Err(Failure::Damaged));
    assert!(worker.ask(2, PICTURE).unwrap().result.is_ok());
    assert!(worker.ask(3, b"abort").is_none());
    let (code, signal, _) = worker.end();
    assert!(code.is_none() && signal.is_some(), "{code:?}");
}

struct Worker {
    child: Child,
    connection: UnixStream,
}

impl Worker {
    fn start() -> Self {
        let (connection, theirs) = UnixStream::pair().unwrap();
        connection.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_anabranch"))
            .env_clear()
            .env("ANABRANCH_DECODE_WORKER_TESTS", "1")
            .arg(WORKER_ARGUMENT)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut worker = Self { child, connection };
        assert_eq!(worker.read(), Some(Vec::new()), "it is ready");
        worker
    }

    /// What it says to a picture of these bytes; `None` if it is gone.
    fn ask(&mut self, number: u64, bytes: &[u8]) -> Option<Outcome> {
        self.ask_of(Codec::H264, number, bytes)
    }

    fn ask_of(&mut self, codec: Codec, number: u64, bytes: &[u8]) -> Option<Outcome> {
        let unit = AccessUnit { pid: Default::default(), codec, pts: None, dts: None, bytes: bytes.to_vec() };
        let work = Work::Picture { thumbnail: false, quality: true, anew: false };
        let request = Request::Do(1, Job { number, work, units: vec![Arc::new(unit)] }).encode();
        let length = u32::try_from(request.len()).unwrap().to_le_bytes();
        self.connection.write_all(&[&length[..], &request].concat()).unwrap();
        Some(Outcome::decode(&self.read()?).unwrap())
    }

    /// Its next message; `None` if it is gone.
    fn read(&mut self) -> Option<Vec<u8>> {
        let mut length = [0; 4];
        if let Err(error) = self.connection.read_exact(&mut length) {
            let is_gone = [std::io::ErrorKind::UnexpectedEof, std::io::ErrorKind::ConnectionReset];
            assert!(is_gone.contains(&error.kind()), "{error}");
            return None;
        }
        let mut answer = vec![0; u32::from_le_bytes(length) as usize];
        self.connection.read_exact(&mut answer).unwrap();
        Some(answer)
    }

    /// How it ended, and what it said on the way.
    fn end(self) -> (Option<i32>, Option<i32>, String) {
        drop(self.connection);
        let output = self.child.wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), output.status.signal(), told)
    }
}

const PICTURE: &[u8] = include_bytes!("../data/media/h264_mbaff");
const AV1: &[u8] = include_bytes!("../data/media/av1_main10_pq");
