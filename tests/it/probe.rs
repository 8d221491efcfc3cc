//! `anabranch probe` and the analysis of running flows: against ffprobe and tsreport, and through the API.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;

use anabranch::bus::{Pool, PoolLimits};
use anabranch::proto::mpegts::psi::{Pat, Pmt, packet_of};
use anabranch::proto::mpegts::{Generator, Observer, PcrReading, Pid, Scanner, generator};
use anabranch::proto::{Core, Surroundings};
use anabranch::units::{Bitrate, Time};
use serde_json::{Value, json};

use crate::cli::Cli;
use crate::http::{TestServer, free_port};
use crate::peers::installed;
use crate::support::V4;

const BROADCAST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/ts/test-026.ts");

#[test]
fn a_file_is_what_ffprobe_says_it_is() {
    if !installed("ffprobe") {
        return;
    }
    let ours = probe(&["--json", BROADCAST]);
    let program = &ours["programs"][0];
    let arguments = ["-v", "error", "-of", "json", "-show_programs", BROADCAST];
    let output = Command::new("ffprobe").args(arguments).output().unwrap();
    let theirs: Value = serde_json::from_slice(&output.stdout).unwrap();
    let other = &theirs["programs"][0];
    assert_eq!(program["program_id"], other["program_id"]);
    assert_eq!(program["program_name"], other["tags"]["service_name"]);
    assert_eq!(program["provider"], other["tags"]["service_provider"]);
    assert_eq!((&program["pmt_pid"], &program["pcr_pid"]), (&other["pmt_pid"], &other["pcr_pid"]));
    let streams = |list: &Value, codec: &str, pid: &dyn Fn(&Value) -> Value| {
        let mut found: Vec<(String, String, String)> = list
            .as_array()
            .unwrap()
            .iter()
            .map(|stream| {
                let language =
                    if stream["language"].is_null() { &stream["tags"]["language"] } else { &stream["language"] };
                (pid(stream).to_string(), stream[codec].to_string(), language.to_string())
            })
            .collect();
        found.sort();
        found
    };
    let number = |text: &Value| {
        let hex = text.as_str().unwrap().trim_start_matches("0x");
        Value::from(u16::from_str_radix(hex, 16).unwrap())
    };
    assert_eq!(
        streams(&program["streams"], "codec", &|stream| stream["pid"].clone()),
        streams(&other["streams"], "codec_name", &|stream| number(&stream["id"]))
    );
}

#[test]
fn a_file_has_as_many_packets_as_tsreport_counts() {
    let found = Command::new("tsreport").arg(BROADCAST).output();
    let Ok(output) = found else {
        installed("tsreport");
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let ours = probe(&["--json", BROADCAST]);
    assert!(text.contains(&format!("Read {} TS packets", ours["packets"])), "{text}");
    assert_eq!((&ours["verdict"], &ours["continuity_errors"]), (&"good".into(), &0.into()));
}

/// Clock references: how many, how far apart, the rate they imply, and how far they lie beside the line through the two before.
/// Whole numbers must be equal; errors are told in ticks of 90 kHz and may differ by one of them.
#[test]
fn clock_references_are_what_tsreport_says_they_are() {
    if Command::new("tsreport").arg(BROADCAST).output().is_err() {
        installed("tsreport");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let made = directory.path().join("made.ts");
    std::fs::write(&made, generated()).unwrap();
    let jitter = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/ts/test-064.ts");
    for path in [Path::new(BROADCAST), Path::new(jitter), &made] {
        let output = Command::new("tsreport").arg("-b").arg(path).output().unwrap();
        let report = String::from_utf8_lossy(&output.stdout).into_owned();
        let theirs = |label: &str| -> f64 {
            let rest = report.split(label).nth(1).unwrap_or_else(|| panic!("no {label} in {report}"));
            let number: String = rest.trim_start().chars().take_while(|c| c.is_ascii_digit() || *c == '-').collect();
            number.parse().unwrap()
        };
        let clocks = clocks(&std::fs::read(path).unwrap());
        let (first, last) = (clocks[0], clocks[clocks.len() - 1]);
        let gaps = || clocks.windows(2).map(|pair| pair[1].1 - pair[0].1);
        assert_eq!(clocks.len() as f64, theirs("PCRs found:"), "{path:?}");
        assert_eq!(gaps().filter(|gap| *gap > 2_700_000).count() as f64, theirs("Bad (>.1s) gaps:"), "{path:?}");
        assert_eq!((gaps().max().unwrap() / 300) as f64, theirs("Max gap:"), "{path:?}");
        assert_eq!((first.1 / 300) as f64, theirs("  First PCR "), "{path:?}");
        assert_eq!((last.1 / 300) as f64, theirs("t, last "), "{path:?}");
        let rate = (last.0 - first.0) * 27_000_000 / (last.1 - first.1) * 8;
        assert_eq!(rate as f64, theirs("Overall stream rate="), "{path:?}");
        let errors = clocks.windows(3).map(|three| {
            let slope = (three[1].1 - three[0].1) as f64 / (three[1].0 - three[0].0) as f64;
            let expected = slope.mul_add((three[2].0 - three[1].0) as f64, three[1].1 as f64);
            (three[2].1 as f64 - expected) / 300.0
        });
        let (least, greatest) =
            errors.fold((0.0, 0.0), |(least, greatest): (f64, f64), error| (least.min(error), greatest.max(error)));
        let (their_least, their_greatest) = (theirs("Linear PCR prediction errors: min="), theirs("t, max="));
        assert!((least - their_least).abs() <= 1.0, "{path:?} {least} {their_least}");
        assert!((greatest - their_greatest).abs() <= 1.0, "{path:?} {greatest} {their_greatest}");
    }
}

/// Position in bytes and value of each PCR of a file, as the scanner reads them. A PCR is found in the piece that it lies in.
fn clocks(bytes: &[u8]) -> Vec<(u64, u64)> {
    struct Values(Vec<u64>);
    impl Observer for Values {
        fn handle_pcr(&mut self, _now: Time, _pid: Pid, reading: &PcrReading) {
            self.0.push(reading.pcr.0);
        }
    }
    let (mut scanner, mut values) = (Scanner::default(), Values(Vec::new()));
    scanner.push(Time::ZERO, bytes, &mut values);
    let has_pcr = |packet: &[u8]| packet[3] & 0x20 != 0 && packet[4] >= 7 && packet[5] & 0x10 != 0;
    let positions = (0..).step_by(188).zip(bytes.chunks(188)).filter(|(_, packet)| has_pcr(packet)).map(|(at, _)| at);
    positions.zip(values.0).collect()
}

/// Three seconds of the built-in signal.
fn generated() -> Vec<u8> {
    let config = generator::Config::new(Bitrate::from_bps(5_000_000), 7).unwrap();
    let pool = Pool::new(PoolLimits::default());
    let mut generator = Generator::new(config, &Surroundings { pool, seed: 0, unix_ns_at_zero: 0 });
    let mut bytes = Vec::new();
    while let Some(now) = generator.poll_timeout().filter(|now| *now < Time::from_ns(3_000_000_000)) {
        generator.handle_timeout(now);
        while let Some(packet) = generator.poll_packet() {
            bytes.extend_from_slice(&packet);
        }
    }
    bytes
}

#[test]
fn people_read_programs_streams_and_a_verdict() {
    let (status, lines, stderr) = Cli::start(&["probe", BROADCAST]).finish();
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
    let parts = [
        "program 257 \"France 2\" (GR1 A)",
        "PID 120",
        "h264",
        "High, 1920x1080, 25 fps, tt, yuv420p",
        "TR 101 290: good",
    ];
    for part in parts.into_iter().chain(["eac3", "48000 Hz, stereo", "dvb_subtitle"]) {
        assert!(lines.iter().any(|line| line.contains(part)), "{part} not in {lines:#?}");
    }
}

#[test]
fn a_live_source_is_probed_for_as_long_as_said() {
    let live = probe(&["--json", "--seconds", "2", "test:picture?rate=5M"]);
    let [picture, sound] = [0, 1].map(|n| &live["streams"][n]);
    assert_eq!(
        (&picture["codec"], &picture["height"], &picture["frame_rate"]),
        (&"h264".into(), &720.into(), &"25/1".into())
    );
    assert_eq!(
        (&sound["codec"], &sound["sample_rate"], &sound["channels"]),
        (&"mp2".into(), &48_000.into(), &2.into())
    );
    assert_eq!((&live["verdict"], &live["constant_bitrate"]), (&"good".into(), &true.into()));
    let rate = live["bitrate_bps"].as_f64().unwrap();
    assert!((4.5e6..5.5e6).contains(&rate), "{rate}");
}

#[test]
fn exit_codes_tell_no_stream_from_a_wrong_command() {
    let exit = |arguments: &[&str]| {
        let (status, _, stderr) = Cli::start(arguments).finish();
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        status.code()
    };
    assert_eq!(exit(&["probe", "/nowhere/at-all.ts"]), Some(1));
    assert_eq!(exit(&["probe", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")]), Some(1));
    let silent = SocketAddr::from((V4, free_port()));
    assert_eq!(exit(&["probe", "--seconds", "1", &format!("udp://{silent}")]), Some(1));
    assert_eq!(exit(&["probe", "nonsense://1"]), Some(2));
}

#[test]
fn a_flow_shows_and_tells_what_is_wrong_unless_that_is_switched_off() {
    let directory = tempfile::tempdir().unwrap();
    let server = TestServer::start(TestServer::settings(directory.path()));
    let port = free_port();
    let source = json!({ "name": "main", "protocol": "udp", "ingest_port": port, "ingest_ip": "127.0.0.1" });
    let created = server.post("/v1/flows", &json!({ "name": "news", "sources": [source] }));
    let path = format!("/v1/flows/{}", created.json()["id"].as_str().unwrap());
    assert_eq!(server.post(&format!("{path}/start"), &json!({})).status, 200);

    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    let bytes = std::fs::read(BROADCAST).unwrap();
    let mut datagrams: Vec<&[u8]> = bytes.chunks(1_316).take(100).collect();
    datagrams.remove(50);
    for datagram in datagrams {
        sender.send_to(datagram, ("127.0.0.1", port)).unwrap();
        std::thread::yield_now();
    }
    let metrics = format!("{path}/metrics");
    let ts = |answer: Value| answer["source_metrics"][0]["ts"].clone();
    server.wait_until(&metrics, |answer| ts(answer.json())["continuity_errors"].as_u64() > Some(0));
    let found = ts(server.get(&metrics).json());
    assert_eq!(found["programs"][0]["streams"][0]["codec"], "h264", "{found}");
    assert_eq!(found["tr_101_290"]["continuity_count_error"]["state"], "error", "{found}");
    let text = server.get("/metrics").body;
    assert!(text.contains("anabranch_ts_errors_total{") && text.contains("indicator=\"continuity_count_error\""));
    let events = format!("{path}/events");
    server.wait_until(&events, |answer| answer.body.contains("ts_error"));
    let events = server.get(&events).json();
    let event = events["events"].as_array().unwrap().iter().find(|event| event["type"] == "ts_error").unwrap();
    assert_eq!((&event["severity"], &event["data"]["indicator"]), (&"error".into(), &"continuity_count_error".into()));

    let off = json!({ "source_monitor_config": { "ts_analysis_enabled": false } });
    let mut wanted = server.get(&path).json();
    wanted["source_monitor_config"] = off["source_monitor_config"].clone();
    let changed = server.ask("PUT", &path, &wanted.to_string());
    assert_eq!(changed.status, 200, "{changed:?}");
    server.wait_until(&metrics, |answer| ts(answer.json()).is_null());
    assert_eq!(server.get(&metrics).json()["source_metrics"][0]["packets_received"], 99, "it was not opened anew");
}

/// What an output takes to send is looked at where it is asked for, and cues are told of.
#[test]
fn an_output_is_analysed_on_request_and_cues_are_events() {
    let directory = tempfile::tempdir().unwrap();
    let server = TestServer::start(TestServer::settings(directory.path()));
    let (port, sink) = (free_port(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let url = format!("udp://{}", sink.local_addr().unwrap());
    let created = server.post(
        "/v1/flows",
        &json!({
            "name": "news", "sources": [{ "name": "main", "url": format!("udp://127.0.0.1:{port}") }],
            "outputs": [{ "name": "seen", "url": url, "ts_analysis_enabled": true }, { "name": "unseen", "url": url }],
        }),
    );
    let path = format!("/v1/flows/{}", created.json()["id"].as_str().unwrap());
    assert_eq!(server.post(&format!("{path}/start"), &json!({})).status, 200);
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    for datagram in cue_stream().chunks(1_316) {
        sender.send_to(datagram, ("127.0.0.1", port)).unwrap();
    }
    let metrics = format!("{path}/metrics");
    let output = |answer: Value, n: usize| answer["output_metrics"][n].clone();
    server.wait_until(&metrics, |answer| output(answer.json(), 0)["ts"]["scte35"]["inserts"] == 2);
    let found = server.get(&metrics).json();
    assert_eq!(output(found.clone(), 0)["ts"]["continuity_errors"], 0, "{found}");
    assert_eq!(output(found.clone(), 0)["ts"]["scte35"]["last_cue"]["direction"], "out", "{found}");
    assert!(output(found.clone(), 1)["ts"].is_null(), "{found}");
    assert_eq!(found["source_metrics"][0]["ts"]["programs"][0]["scte35"], true, "{found}");
    let text = server.get("/metrics").body;
    let sections =
        |line: &&str| line.starts_with("anabranch_ts_splice_sections_total{") && line.contains("output=\"seen\"");
    assert!(text.lines().any(|line| sections(&line) && line.ends_with(" 2")), "{text}");
    let events = format!("{path}/events");
    server.wait_until(&events, |answer| answer.body.contains("scte35_cue"));
    let events = server.get(&events).json();
    let cues: Vec<&Value> =
        events["events"].as_array().unwrap().iter().filter(|event| event["type"] == "scte35_cue").collect();
    let [cue] = cues[..] else { panic!("{cues:?}") };
    let data = &cue["data"];
    assert_eq!(
        (&data["source"], &data["direction"], &data["cancelled"]),
        (&"main".into(), &"out".into(), &false.into())
    );
    assert_eq!((&data["event_id"], &data["pts_90k"]), (&0x4800_008f_u32.into(), &0x7369_c02e_u32.into()));
    assert!((data["duration_ms"].as_f64().unwrap() - 60_293.567).abs() < 0.001, "{data}");

    // Another answer to who is watched opens nothing anew.
    let sent = output(found, 0)["packets_sent"].as_u64();
    for (name, wanted) in [("seen", false), ("unseen", true)] {
        let change = json!({ "ts_analysis_enabled": wanted }).to_string();
        assert_eq!(server.ask("PUT", &format!("{path}/outputs/{name}"), &change).status, 200);
    }
    server.wait_until(&metrics, |answer| {
        let found = answer.json();
        output(found.clone(), 0)["ts"].is_null() && output(found, 1)["ts"]["verdict"] == "unknown"
    });
    assert_eq!(output(server.get(&metrics).json(), 0)["packets_sent"].as_u64(), sent);
}

/// PAT, PMT and a cue (SCTE 35 clause 14.2), twice, in whole datagrams.
fn cue_stream() -> Vec<u8> {
    let (pmt_pid, cue_pid) = (Pid::from_low_bits(0x1000), Pid::from_low_bits(0x1f0));
    let pat = Pat { stream_id: 1, version: 0, programs: &[(1, pmt_pid)] };
    let pmt = Pmt { program: 1, version: 0, pcr_pid: Pid::NULL, streams: &[(0x86, cue_pid)] };
    let cue = "fc302f000000000000fffff014054800008f7feffe7369c02efe0052ccf500000000000a0008435545490000013562dba30a";
    let cue = (0..cue.len()).step_by(2).map(|at| u8::from_str_radix(&cue[at..at + 2], 16).unwrap());
    let mut null = [0xff; 188];
    null[..4].copy_from_slice(&[0x47, 0x1f, 0xff, 0x10]);
    let mut bytes = Vec::new();
    for cc in 0..2 {
        let tables = [packet_of(&pat.section(), Pid::PAT), packet_of(&pmt.section(), pmt_pid)];
        for mut packet in tables.into_iter().chain([packet_of(&cue.clone().collect(), cue_pid)]) {
            packet[3] |= cc;
            bytes.extend(packet);
        }
        (0..4).for_each(|_| bytes.extend(null));
    }
    bytes
}

#[test]
fn route_shows_the_analysis_when_asked() {
    let sink = UdpSocket::bind("127.0.0.1:0").unwrap();
    let output = format!("udp://{}", sink.local_addr().unwrap());
    let cli =
        Cli::start(&["route", "--analyse", "--analyse-outputs", "--stats", "1", "test:bars?rate=2M", "--", &output]);
    cli.wait_line("TS GOOD");
    cli.signal(libc::SIGINT);
    let (status, lines, _) = cli.finish();
    assert_eq!(status.code(), Some(0));
    let of_streams = lines.iter().rev().take(4).filter(|line| line.contains("TS GOOD")).count();
    assert_eq!(of_streams, 2, "{lines:#?}");
}

fn probe(arguments: &[&str]) -> Value {
    let (status, lines, stderr) = Cli::start(&[&["probe"], arguments].concat()).finish();
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
    serde_json::from_str(&lines[0]).unwrap()
}
