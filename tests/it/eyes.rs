//! Pictures and sound of running flows over HTTP: thumbnails, metadata, content quality, and failover by them.

use std::fs;
use std::io::{Read, Write};
#[cfg(feature = "av1")]
use std::net::TcpStream;
use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::http::{Answer, TestServer};
use crate::peers::{Peer, installed};
#[cfg(feature = "av1")]
use crate::rtmp::new_ffmpeg;
use crate::support::{free_port, wait_for, wait_until};

/// The built-in picture, by all three ways to look at it.
#[test]
fn the_test_picture_is_seen() {
    let (directory, server) = server();
    let sink = UdpSocket::bind("127.0.0.1:0").unwrap();
    sink.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let output = format!("udp://{}", sink.local_addr().unwrap());
    let path = started(
        &server,
        &["test:picture?rate=3M"],
        &json!({ "outputs": [{ "name": "o", "url": output }],
            "source_monitor_config": {
                "thumbnail_enabled": true, "thumbnail_interval_sec": 1, "content_quality_enabled": true
            }
        }),
    );
    let ffprobe = fs::File::create(directory.path().join("out.ts")).and_then(|mut file| {
        let mut datagram = [0; 2_048];
        for _ in 0..600 {
            let length = sink.recv(&mut datagram)?;
            file.write_all(&datagram[..length])?;
        }
        Ok(directory.path().join("out.ts"))
    });

    let thumbnail = wait_for("a thumbnail", || {
        let answer = server.get(&format!("{path}/thumbnail"));
        if answer.status != 200 {
            assert_eq!(answer.refusal().1, "thumbnail_unavailable", "{answer:?}");
        }
        (answer.status == 200).then(|| answer.json())
    });
    assert_eq!((thumbnail["width"].as_u64(), thumbnail["height"].as_u64()), (Some(480), Some(270)));
    let jpeg = base64(thumbnail["data"].as_str().unwrap());
    assert_eq!(size_of_jpeg(&jpeg), Some((480, 270)));
    assert!(jpeg.len() <= 20 * 1_024, "{} bytes", jpeg.len());
    if let Some(keep) = std::env::var_os("ANABRANCH_KEEP_THUMBNAIL") {
        fs::write(keep, &jpeg).unwrap();
    }
    a_browser_gets_it(&server, &path);

    let metadata = wait_for("metadata of both streams", || {
        let metadata = server.get(&format!("{path}/metadata")).json();
        let is_whole = |n: usize| metadata["streams"][n]["bit_rate"].is_u64();
        (is_whole(0) && is_whole(1)).then_some(metadata)
    });
    assert_eq!(metadata["programs"][0]["program_name"], "Test picture");
    equals_what_ffprobe_says(&metadata, &ffprobe.unwrap());

    nothing_is_wrong_with_it(&server, &path);
    what_is_switched_off_is_gone(&server, &path);
    server.delete(&path);
    let id = path.rsplit('/').next().unwrap();
    assert!(!server.get("/metrics").body.contains(id));
}

/// Its decoder may end the process over bad input, and this one has more to do.
#[cfg(feature = "av1")]
#[test]
fn av1_is_not_decoded_on_threads_of_the_engine() {
    let Some(ffmpeg) = new_ffmpeg() else { return };
    let (directory, server) = server();
    let port = free_port();
    let url = format!("127.0.0.1:{port}/live/cam1");
    let watched = json!({ "source_monitor_config": { "thumbnail_enabled": true, "thumbnail_interval_sec": 1 } });
    let path = started(&server, &[format!("rtmp://@{url}")], &watched);
    wait_until("the port", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    let picture = "-f lavfi -i testsrc2=s=640x360:r=25 -t 60 -pix_fmt yuv420p -c:v libsvtav1 -preset 12 -g 25";
    let publish = format!("-v error -nostdin -re {picture} -svtav1-params lookahead=0 -f flv rtmp://{url}");
    let _peer = Peer::start(&ffmpeg, &publish, directory.path());
    let refusal = || server.get(&format!("{path}/thumbnail")).json()["error"].as_str().unwrap_or_default().to_owned();
    wait_until("the reason", || refusal().contains("unsupported"));
}

/// The file for browsers: as a whole once, and then only what has changed.
fn a_browser_gets_it(server: &TestServer, path: &str) {
    let ask = |headers: &str| {
        let mut stream = server.send("GET", &format!("{path}/thumbnail.jpg"), headers, "").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
        let body = answer.split_off(end + 4);
        (String::from_utf8(answer).unwrap().to_ascii_lowercase(), body)
    };
    // There is another picture each second; one of the answers is in time.
    wait_until("a picture that is not sent again", || {
        let (head, jpeg) = ask("");
        assert!(head.starts_with("http/1.1 200") && head.contains("content-type: image/jpeg"), "{head}");
        assert!(head.contains("cache-control: no-store") && head.contains("last-modified: "), "{head}");
        assert_eq!(size_of_jpeg(&jpeg), Some((480, 270)));
        let tag = head.split("etag: ").nth(1).and_then(|rest| rest.lines().next()).unwrap().to_string();
        let (head, body) = ask(&format!("If-None-Match: {tag}\r\n"));
        head.starts_with("http/1.1 304") && body.is_empty() && head.contains(&tag)
    });
}

/// In content quality, metrics and for Prometheus.
fn nothing_is_wrong_with_it(server: &TestServer, path: &str) {
    let quality = format!("{path}/content-quality");
    let is_known = |answer: &Answer| {
        let json = answer.json();
        ["black_frame_detected", "frozen_frame_detected", "silent_audio_detected"]
            .iter()
            .all(|key| json[key].is_boolean())
            && json["loudness"]["momentary_lufs"].is_f64()
    };
    wait_until("content quality", || is_known(&server.get(&quality)));
    let content = server.get(&quality).json();
    for (key, expected) in [
        ("black_frame_detected", false),
        ("frozen_frame_detected", false),
        ("silent_audio_detected", false),
        ("video_stream_present", true),
        ("audio_stream_present", true),
    ] {
        assert_eq!(content[key], expected, "{key}: {content}");
    }
    assert!(content["last_check_time"].as_str().unwrap().ends_with('Z'));
    assert_eq!(
        (&content["analysis"]["audio"]["state"], &content["since"]["black_frame"]),
        (&json!("ok"), &Value::Null)
    );
    assert!(content["loudness"]["momentary_lufs"].as_f64().unwrap() < 0.0, "{content}");
    let metrics = server.get(&format!("{path}/metrics")).json();
    assert_eq!(metrics["content_quality"]["black_frame_detected"], false);
    let text = server.get("/metrics").body;
    let id = path.rsplit('/').next().unwrap();
    assert!(text.contains(&format!("anabranch_video_black{{flow=\"{id}\",source=\"\"}} 0\n")), "{text}");
    assert!(text.contains(&format!("anabranch_decode_cpu_seconds_total{{flow=\"{id}\",source=\"\"}} ")), "{text}");
}

/// ffprobe's words about what came out of the flow, if it is there.
fn equals_what_ffprobe_says(metadata: &Value, file: &Path) {
    if !installed("ffprobe") {
        return;
    }
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-print_format", "json", "-show_streams"])
        .arg(file)
        .output()
        .unwrap();
    let probed: Value = serde_json::from_slice(&output.stdout).unwrap();
    // It takes the table of events for a stream.
    let is_stream = |stream: &&Value| stream["codec_name"] != "epg";
    let theirs: Vec<&Value> = probed["streams"].as_array().unwrap().iter().filter(is_stream).collect();
    let ours = metadata["streams"].as_array().unwrap();
    assert_eq!(ours.len(), theirs.len(), "{metadata} {probed}");
    for (ours, theirs) in ours.iter().zip(theirs) {
        let pid = format!("0x{:x}", ours["pid"].as_u64().unwrap());
        assert_eq!(theirs["id"], pid);
        for (our, their) in [
            ("stream_type", "codec_type"),
            ("codec", "codec_name"),
            ("width", "width"),
            ("height", "height"),
            ("pixel_format", "pix_fmt"),
            ("channels", "channels"),
        ] {
            assert_eq!(ours[our], theirs[their], "{our}: {ours} {theirs}");
        }
        if ours["stream_type"] == "video" {
            assert_eq!((&ours["frame_rate"], &ours["profile"]), (&theirs["r_frame_rate"], &theirs["profile"]));
            assert_eq!((&ours["level"], &ours["field_order"]), (&theirs["level"], &theirs["field_order"]));
        } else {
            assert_eq!(ours["sample_rate"].to_string(), theirs["sample_rate"].as_str().unwrap());
        }
    }
}

/// On a running flow, which goes on.
fn what_is_switched_off_is_gone(server: &TestServer, path: &str) {
    let before = server.get(&format!("{path}/metrics")).json()["source_metrics"][0]["packets_received"].as_u64();
    let off = json!({ "source_monitor_config": { "ts_analysis_enabled": true } });
    assert_eq!(server.put(path, &off).status, 200);
    for what in ["thumbnail", "thumbnail.jpg", "content-quality"] {
        let refusal = server.get(&format!("{path}/{what}")).refusal();
        assert_eq!(refusal, (404, "not_enabled".into(), String::new()), "{what}");
    }
    assert_eq!(server.get(&format!("{path}/metadata")).status, 200, "which comes with the analysis");
    assert_eq!(server.get(&format!("{path}/metrics")).json()["content_quality"], Value::Null);
    let nothing = json!({ "source_monitor_config": { "ts_analysis_enabled": false } });
    assert_eq!(server.put(path, &nothing).status, 200);
    assert_eq!(server.get(&format!("{path}/metadata")).refusal().1, "not_enabled");
    let after = server.get(&format!("{path}/metrics")).json()["source_metrics"][0]["packets_received"].as_u64();
    assert!(after >= before && before.is_some(), "the source was not opened anew");
    let again = json!({ "source_monitor_config": { "thumbnail_enabled": true } });
    assert_eq!(server.put(path, &again).status, 200);
    wait_until("a thumbnail again", || server.get(&format!("{path}/thumbnail")).status == 200);
}

/// The primary is black and silent, the backup is not.
#[test]
fn a_black_primary_is_told_and_left() {
    if !installed("ffmpeg") {
        return;
    }
    let (directory, server) = server();
    let ports = [free_port(), free_port()];
    let path = started(
        &server,
        &ports.map(|port| format!("udp://127.0.0.1:{port}")),
        &json!({
            "source_failover_config": {
                "switch_on": { "black": true, "silent": true, "hold_off_ms": 500 }, "health_timeout_ms": 20_000
            },
            "source_monitor_config": { "content_quality_enabled": true },
        }),
    );
    let black = "-f lavfi -i color=black:size=320x180:rate=25 -f lavfi -i anullsrc=r=48000:cl=stereo";
    let picture = "-f lavfi -i testsrc2=size=320x180:rate=25 -f lavfi -i sine=frequency=440:sample_rate=48000";
    let _peers = [(black, ports[0]), (picture, ports[1])].map(|(what, port)| {
        let codecs = "-c:v mpeg2video -b:v 800k -g 12 -c:a mp2 -b:a 128k";
        // Not in step with the other: the tests' directory has a log of each.
        let log = directory.path().join(port.to_string());
        fs::create_dir(&log).unwrap();
        let to = format!("udp://127.0.0.1:{port}?pkt_size=1316");
        Peer::start("ffmpeg", &format!("-hide_banner -loglevel warning -re {what} {codecs} -f mpegts {to}"), &log)
    });
    let find = |kind: &str| {
        let events = server.get(&format!("{path}/events?limit=1000")).json();
        events["events"].as_array().unwrap().iter().find(|event| event["type"] == kind).cloned()
    };
    let told = wait_for("the black picture", || find("black_detected"));
    assert_eq!((&told["data"]["source"], &told["severity"]), (&json!("s1"), &json!("warning")), "{told}");
    assert!(told["data"]["lasted_ms"].as_u64().unwrap() >= 2_000, "{told}");
    assert_eq!(wait_for("the silence", || find("silent_detected"))["data"]["source"], "s1");
    let switched = wait_for("the failover", || find("source_failover"));
    assert_eq!((&switched["data"]["from"], &switched["data"]["to"]), (&json!("s1"), &json!("s2")), "{switched}");
    let cause = switched["data"]["cause"].as_str().unwrap();
    assert!(["black", "silent_audio"].contains(&cause), "{switched}");
    // What is shown is what outputs get now.
    wait_until("the picture of the backup", || {
        let content = server.get(&format!("{path}/content-quality")).json();
        content["black_frame_detected"] == false && content["silent_audio_detected"] == false
    });
    let metrics = server.get(&format!("{path}/metrics")).json();
    assert_eq!(metrics["active_source"], "s2");
    assert_eq!(metrics["switch_causes"][cause], 1, "{metrics}");
    let id = path.rsplit('/').next().unwrap();
    let lines = [("s1", 1), ("s2", 0)]
        .map(|(source, is_black)| format!("anabranch_video_black{{flow=\"{id}\",source=\"{source}\"}} {is_black}\n"));
    // On a busy machine it may not be known for a moment.
    wait_until("what is seen of both", || {
        let text = server.get("/metrics").body;
        lines.iter().all(|line| text.contains(line))
    });
}

/// A codec that is not decoded here: nothing is said of its pictures, but why.
#[test]
fn what_cannot_be_decoded_is_not_known_and_why() {
    if !installed("ffmpeg") {
        return;
    }
    let (directory, server) = server();
    let port = free_port();
    let path = started(
        &server,
        &[format!("udp://127.0.0.1:{port}")],
        &json!({
            "source_monitor_config": {
                "thumbnail_enabled": true, "thumbnail_interval_sec": 1, "content_quality_enabled": true
            },
        }),
    );
    let picture = "-f lavfi -i testsrc2=size=160x90:rate=25 -f lavfi -i sine=frequency=440:sample_rate=48000";
    let codecs = "-c:v mpeg4 -b:v 300k -c:a mp2 -b:a 128k";
    let to = format!("udp://127.0.0.1:{port}?pkt_size=1316");
    let arguments = format!("-hide_banner -loglevel warning -re {picture} {codecs} -f mpegts {to}");
    let _peer = Peer::start("ffmpeg", &arguments, directory.path());
    let quality = format!("{path}/content-quality");
    wait_until("the sound", || server.get(&quality).json()["silent_audio_detected"] == false);
    let content = server.get(&quality).json();
    assert_eq!((&content["black_frame_detected"], &content["frozen_frame_detected"]), (&Value::Null, &Value::Null));
    assert_eq!(content["analysis"]["video"]["state"], "unsupported", "{content}");
    assert!(content["analysis"]["video"]["detail"].as_str().unwrap().contains("mpeg4"), "{content}");
    wait_until("pictures", || server.get(&quality).json()["video_stream_present"] == true);
    let answer = server.get(&format!("{path}/thumbnail"));
    assert_eq!(answer.refusal(), (404, "thumbnail_unavailable".into(), String::new()));
    assert!(answer.json()["error"].as_str().unwrap().contains("unsupported"), "{answer:?}");
}

fn server() -> (TempDir, TestServer) {
    let directory = tempfile::tempdir().unwrap();
    let server = TestServer::start(TestServer::settings(directory.path()));
    (directory, server)
}

/// Creates and starts a flow from sources `s1`, `s2`, … with more fields; its path.
fn started(server: &TestServer, sources: &[impl AsRef<str>], fields: &Value) -> String {
    let mut flow = fields.clone();
    let sources = (1..).zip(sources).map(|(n, url)| json!({ "name": format!("s{n}"), "url": url.as_ref() }));
    flow["sources"] = sources.collect();
    flow["name"] = json!("watched");
    let created = server.post("/v1/flows", &flow);
    assert_eq!(created.status, 201, "{created:?}");
    let path = format!("/v1/flows/{}", created.json()["id"].as_str().unwrap());
    let answer = server.post(&format!("{path}/start"), &json!({}));
    assert_eq!(answer.status, 200, "{answer:?}");
    path
}

fn base64(text: &str) -> Vec<u8> {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits =
        text.bytes().filter(|byte| *byte != b'=').map(|byte| alphabet.iter().position(|a| *a == byte).unwrap());
    let (mut bits, mut count, mut bytes) = (0_u32, 0, Vec::new());
    for digit in digits {
        bits = bits << 6 | digit as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}

/// Width and height in the frame header of a JFIF file.
fn size_of_jpeg(jpeg: &[u8]) -> Option<(u16, u16)> {
    let mut rest = jpeg.strip_prefix(&[0xff, 0xd8])?;
    loop {
        let &[0xff, marker, high, low, ..] = rest else { return None };
        if let (0xc0..=0xc2, &[y1, y0, x1, x0, ..]) = (marker, rest.get(5..)?) {
            return Some((u16::from_be_bytes([x1, x0]), u16::from_be_bytes([y1, y0])));
        }
        rest = rest.get(2 + usize::from(u16::from_be_bytes([high, low]))..)?;
    }
}
