//! The binary as people run it: `route` and `gen`, their output, their exit codes.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use anabranch::proto::mpegts::generator::number_of;
use serde_json::Value;

use crate::rtp::RtpFeed;
use crate::support::{Feed, Sink, TS, V4, free_port, lock, udp, url_of, wait_for, wait_until};

/// A running `anabranch`; killed if the test fails.
pub(crate) struct Cli {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Cli {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut child = command(arguments).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&lines);
        let reader = std::thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).for_each(|line| lock(&into).push(line));
        });
        Self { child, lines, reader: Some(reader) }
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        lock(&self.lines).clone()
    }

    /// Waits for a line with `text` on stdout.
    pub(crate) fn wait_line(&self, text: &str) -> String {
        wait_for(text, || self.lines().into_iter().find(|line| line.contains(text)))
    }

    #[allow(unsafe_code, reason = "the standard library sends no signals but SIGKILL")]
    pub(crate) fn signal(&self, signal: i32) {
        // SAFETY: takes no memory; the child is not waited for yet, so the id is its own.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
    }

    /// Waits for the end: exit status, all lines of stdout, stderr.
    pub(crate) fn finish(mut self) -> (ExitStatus, Vec<String>, String) {
        let status = wait_for("the end of the process", || self.child.try_wait().unwrap());
        self.reader.take().unwrap().join().unwrap();
        let mut stderr = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        (status, self.lines(), stderr)
    }

    /// Ctrl-C, then as [`Cli::finish`].
    fn interrupt(self) -> (ExitStatus, Vec<String>, String) {
        self.signal(libc::SIGINT);
        self.finish()
    }
}

impl Drop for Cli {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_anabranch"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Exit code and stderr of a command that ends at once.
fn refused(arguments: &[&str]) -> (Option<i32>, String) {
    let (status, _, stderr) = Cli::start(arguments).finish();
    (status.code(), stderr)
}

#[test]
fn one_feed_to_fifty_places_and_ctrl_c() {
    let sinks: Vec<Sink> = (0..50).map(|_| Sink::new(V4)).collect();
    let listen = SocketAddr::from((V4, free_port()));
    let (source, outputs): (_, Vec<String>) = (udp(listen), sinks.iter().map(Sink::url).collect());
    let arguments: Vec<&str> = ["route", &source, "--"].into_iter().chain(outputs.iter().map(String::as_str)).collect();
    let route = Cli::start(&arguments);
    route.wait_line("flow started");
    let mut feed = Feed::new(listen, TS);
    feed.send_to_all(300, &sinks.iter().collect::<Vec<_>>());
    sinks.iter().for_each(|sink| sink.assert_perfect(300));
    let (status, lines, stderr) = route.interrupt();
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
    assert!(lines.iter().any(|line| line.contains("source source-1 is in use")), "{lines:#?}");
    let totals = lines.iter().position(|line| line.starts_with("ended after")).unwrap();
    assert_eq!(lines.len(), totals + 1 + 51, "one line for the source and each output");
    assert!(lines[totals + 1..].iter().all(|line| line.contains("300 packets")), "{lines:#?}");
}

#[test]
fn json_lines_parse() {
    let (sink, listen) = (Sink::new(V4), SocketAddr::from((V4, free_port())));
    let route = Cli::start(&["route", "--json", "--stats", "1", &udp(listen), "--", &sink.url()]);
    route.wait_line("flow_started");
    let mut feed = Feed::new(listen, TS);
    feed.send_to_all(200, &[&sink]);
    wait_until("figures", || route.lines().iter().any(|line| line.contains(r#""packets_received":200"#)));
    route.signal(libc::SIGTERM);
    let (status, lines, stderr) = route.finish();
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
    let lines: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of_type = |kind: &'static str| lines.iter().filter(move |line| line["type"] == kind);
    assert_eq!(of_type("event").next().unwrap()["event"], "flow_started");
    assert!(of_type("stats").count() >= 1);
    assert_eq!(of_type("totals").count(), 1);
    let totals = lines.last().unwrap();
    assert_eq!(totals["source_metrics"][0]["packets_received"], 200);
    assert_eq!(totals["output_metrics"][0]["packets_sent"], 200);
    assert_eq!(totals["output_metrics"][0]["drops"]["lagged"], 0);
}

#[test]
fn sources_are_merged_with_one_delay_and_the_window_that_they_need() {
    let sink = Sink::new(V4);
    let legs = [(); 2].map(|()| SocketAddr::from((V4, free_port())));
    let [one, two] = legs.map(|leg| url_of("rtp", leg, ""));
    let options = ["--merge", "--recovery-window", "auto", "--align", "--stats", "1"];
    let route = Cli::start(&[&["route"][..], &options, &[&one, &two, "--", &sink.url()]].concat());
    route.wait_line("flow started");
    let mut feeds = legs.map(|leg| RtpFeed::new(leg, 7, 100));
    for _ in 0..200 {
        feeds.iter_mut().for_each(|feed| drop(feed.send()));
    }
    sink.assert_perfect(200);
    let line = route.wait_line("PROTECTED");
    assert!(line.contains("lost 0"), "{line}");
    assert_eq!(route.interrupt().0.code(), Some(0));
    let (code, stderr) = refused(&["route", "--align", &one, "--", &sink.url()]);
    assert!(code == Some(2) && stderr.contains("--merge"), "{stderr}");
}

#[test]
fn figures_come_at_the_interval_that_was_asked_for() {
    let sink = Sink::new(V4);
    let route = Cli::start(&["route", "--stats", "1", "test:bars?rate=2M", "--", &sink.url()]);
    wait_until("two figures", || route.lines().iter().filter(|line| line.contains("output-1")).count() >= 2);
    let (status, ..) = route.interrupt();
    assert_eq!(status.code(), Some(0));
}

/// `gen` to `route` to here: every numbered packet of the transport stream, in order, once.
#[test]
fn the_test_stream_passes_through_two_processes() {
    for scheme in ["udp", "rtp"] {
        let (sink, listen) = (Sink::keeping(V4), SocketAddr::from((V4, free_port())));
        let between = url_of(scheme, listen, "");
        let route = Cli::start(&["route", "--coalesce", "2ms", &between, "--", &sink.url()]);
        route.wait_line("flow started");
        let generate = Cli::start(&["gen", "--rate", "10M", "--seconds", "2", &between]);
        let (status, lines, _) = generate.finish();
        assert_eq!(status.code(), Some(0), "{lines:#?}");
        // `gen` tells how many it sent in its last line.
        let sent: u64 =
            lines.last().unwrap().split(" packets").next().unwrap().rsplit(' ').next().unwrap().parse().unwrap();
        assert!(sent > 1_000, "{sent}");
        sink.wait(sent);
        let stream = sink.kept().concat();
        assert_eq!(stream.len(), sent as usize * TS);
        let numbers: Vec<u64> = stream.chunks(188).filter_map(number_of).collect();
        // A machine that stood still makes the generator leave packets out; the numbers go on without a gap.
        let wrong = numbers.windows(2).find(|pair| pair[1] != pair[0] + 1);
        assert_eq!((numbers.first(), wrong), (Some(&0), None), "{scheme}: {} numbers", numbers.len());
        assert!(numbers.len() > stream.len() / 188 / 2);
        assert_eq!(route.interrupt().0.code(), Some(0));
    }
}

#[test]
fn what_cannot_be_is_refused_with_the_fix() {
    let taken = UdpSocket::bind((V4, free_port())).unwrap();
    let taken = taken.local_addr().map(|address| (taken, address)).unwrap();
    let in_use = udp(taken.1);
    let ok = "udp://127.0.0.1:9";
    let too_many: Vec<&str> = ["route", "test:", "--"].into_iter().chain([ok; 257]).collect();
    let nine_sources: Vec<&str> = ["route"].into_iter().chain(["test:"; 9]).chain(["--", ok]).collect();
    let cases: [(&[&str], &str); 14] = [
        (&["route", "udp://127.0.0.1:0", "--", ok], "port wrong, write udp://HOST:PORT with a port from 1 to 65535"),
        (&["route", "udp://127.0.0.1:99999", "--", ok], "with a port from 1 to 65535"),
        (&["route", "test:", "--", "udp://127.0.0.1:99999"], "with a port from 1 to 65535"),
        (&["route", "test:", "--", "udp://127.0.0.1"], "port missing"),
        (&["route", "test:", "--", "udp://127.0.0.1:9?tttl=4"], "unknown key tttl, known are coalesce, dscp"),
        (&["route", "test:", "--", "udp://127.0.0.1:9?ttl=256"], "write a number from 1 to 255"),
        (&["route", "udp://127.0.0.1:9?ttl=4", "--", ok], "unknown key ttl, known are iface, rcvbuf, source"),
        (&["route", "test:", "--", "srt+udp://127.0.0.1:9"], "unknown scheme, write one of udp://, rtp://"),
        (&["route", "test:", "--", "test:"], "can only be a source"),
        (&["route", "udp://203.0.113.1:5000", "--", ok], "203.0.113.1:5000"),
        (&["route", &in_use, "--", ok], "is in use by another flow or program: choose another port"),
        (&too_many, "at most 256 are allowed"),
        (&nine_sources, "at most 8 are allowed"),
        (&["gen", "--rate", "1", ok], "from 250k to 10G"),
    ];
    for (arguments, fix) in cases {
        let (code, stderr) = refused(arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{arguments:?}: {stderr}");
        assert!(stderr.contains(fix), "{arguments:?}: {stderr}");
    }
}

/// What the command line itself refuses has more lines, as every program of its kind, and the same code.
#[test]
fn a_mistyped_command_is_explained() {
    for arguments in [
        &["rout"][..],
        &["route"],
        &["route", "test:"],
        &["route", "--coalesce", "1s", "test:", "--", "udp://127.0.0.1:9"],
        &["route", "--health-timeout-ms", "1", "test:", "--", "udp://127.0.0.1:9"],
        &[],
    ] {
        let (code, stderr) = refused(arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {stderr}");
        assert!(!stderr.is_empty(), "{arguments:?}");
    }
    let (code, stderr) = refused(&["route", "--help"]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
}

/// A closed terminal or pipe does not end the flow.
#[test]
fn nobody_has_to_read_what_is_printed() {
    let (sink, listen) = (Sink::new(V4), SocketAddr::from((V4, free_port())));
    let mut route = command(&["route", "--json", "--stats", "1", &udp(listen), "--", &sink.url()]).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(route.stdout.take().unwrap()).read_line(&mut first).unwrap();
    let mut feed = Feed::new(listen, TS);
    for _ in 0..30 {
        feed.send_to_all(10, &[&sink]);
        crate::support::let_pass(std::time::Duration::from_millis(50));
    }
    assert_eq!(route.try_wait().unwrap(), None, "it still runs");
    let route = Cli { child: route, lines: Arc::default(), reader: Some(std::thread::spawn(|| {})) };
    assert_eq!(route.interrupt().0.code(), Some(0));
}

/// Two sources on the command line are primary and backup.
#[test]
fn sources_are_merged() {
    let sink = Sink::new(V4);
    let legs = [free_port(), free_port()].map(|port| url_of("rtp", SocketAddr::from((V4, port)), ""));
    let into = SocketAddr::from((V4, free_port()));
    let kept = legs.each_ref().map(|leg| format!("{leg}?header=keep"));
    let merge = Cli::start(&["route", "--merge", "--recovery-window", "auto", &legs[0], &legs[1], "--", &sink.url()]);
    merge.wait_line("flow started");
    let split = Cli::start(&["route", &url_of("rtp", into, ""), "--", &kept[0], &kept[1]]);
    split.wait_line("flow started");
    let mut feed = RtpFeed::new(into, 5, 65_500);
    for sent in 1..=200 {
        feed.send();
        sink.wait(sent);
    }
    merge.wait_line("is in use");
    merge.wait_line("source source-2 is merged with the others");
    sink.assert_perfect(200);
    assert_eq!(split.interrupt().0.code(), Some(0));
    assert_eq!(merge.interrupt().0.code(), Some(0));
    let (code, stderr) = refused(&["route", "--merge", "udp://:5000", "rtp://:5002", "--", &sink.url()]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("which source source-1 has not: use rtp or rtp-fec"), "{stderr}");
}

#[test]
fn the_second_source_is_the_backup() {
    let sink = Sink::new(V4);
    let [primary, backup] = [free_port(), free_port()].map(|port| SocketAddr::from((V4, port)));
    let arguments =
        ["route", "--health-timeout-ms", "150", "--hold-off-ms", "100", &udp(primary), &udp(backup), "--", &sink.url()]
            .map(String::from);
    let route = Cli::start(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    route.wait_line("flow started");
    let interval = std::time::Duration::from_millis(5);
    let first = Feed::new(primary, TS).run(interval);
    route.wait_line("source source-1 is in use");
    let _second = Feed::new(backup, TS).run(interval);
    route.wait_line("source source-2 delivers");
    let first = first.stop();
    route.wait_line("switched from source-1 to source-2: source-1 was silent for 150 ms");
    let _first = first.run(interval);
    route.wait_line("returned to primary source source-1");
    assert_eq!(route.interrupt().0.code(), Some(0));
}
