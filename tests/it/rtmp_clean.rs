//! What real encoders publish, servers are pushed and players join: nothing in it is to be complained of, and each decoded
//! frame is the encoder's.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anabranch::engine::EventKind;
use anabranch::proto::mpegts::analysis::{Analyser, Indicator};
use anabranch::proto::mpegts::{Pid, TS_PACKET_BYTES, TsPacket};
use anabranch::proto::rtmp::amf::Value;
use anabranch::units::Time;

use crate::judge::{md5s, pcrs, warnings};
use crate::peers::{Peer, installed};
use crate::rtmp::{is_connected, metadata_of, new_ffmpeg, port};
use crate::support::{Feed, Rig, Sink, TS, V4, excuse_pause, flow, free_port, let_pass, patiently, udp, wait_until};

const PICTURE: &str = "-f lavfi -i testsrc2=s=320x180:r=25";
const SOUND: &str = "-f lavfi -i sine=1000:r=48000";
const H264: &str = "-c:v libx264 -preset ultrafast -g 25 -bf 2 -pix_fmt yuv420p";
const FRAMES: &[&str] = &["-fps_mode", "passthrough"];
const PLAIN: Port<'_> = Port { scheme: "rtmp", query: "", rate_bps: None };
const PACKETS: &[&str] = &["-c", "copy"];
const BOTH: &[(&str, &[&str])] = &[("0:v", FRAMES), ("0:a", FRAMES)];

#[test]
fn what_ffmpeg_publishes_comes_out_clean() {
    if installed("ffmpeg") {
        comes_out_clean("ffmpeg", &format!("{PICTURE} {SOUND} {H264} -c:a aac"), BOTH, PLAIN, by_ffmpeg("ffmpeg"));
    }
}

#[test]
fn what_comes_out_at_a_constant_rate_is_exact() {
    if installed("ffmpeg") {
        // By itself x264 names the level of that size, whose rate this picture does not keep to.
        let make = format!("{PICTURE} {SOUND} {H264} -level 3 -c:a aac");
        let port = Port { query: "?rate=4M", rate_bps: Some(4_000_000), ..PLAIN };
        comes_out_clean("ffmpeg", &make, BOTH, port, by_ffmpeg("ffmpeg"));
    }
}

#[test]
#[cfg(feature = "tls")]
fn what_comes_over_tls_comes_out_clean() {
    if installed("ffmpeg") {
        let (make, query) = (format!("{PICTURE} {SOUND} {H264} -c:a aac"), format!("?{}", crate::rtmps::identity()));
        let port = Port { scheme: "rtmps", query: &query, ..PLAIN };
        comes_out_clean("ffmpeg", &make, BOTH, port, by_ffmpeg("ffmpeg"));
    }
}

#[test]
fn what_a_newer_ffmpeg_publishes_comes_out_clean() {
    let Some(ffmpeg) = new_ffmpeg() else { return };
    comes_out_clean(&ffmpeg, &format!("{PICTURE} {SOUND} {H264} -c:a aac"), BOTH, PLAIN, by_ffmpeg(&ffmpeg));
}

#[test]
fn hevc_comes_out_clean() {
    let Some(ffmpeg) = new_ffmpeg() else { return };
    let hevc = "-c:v libx265 -preset ultrafast -x265-params log-level=none:keyint=25 -pix_fmt yuv420p";
    comes_out_clean(&ffmpeg, &format!("{PICTURE} {SOUND} {hevc} -c:a aac"), BOTH, PLAIN, by_ffmpeg(&ffmpeg));
}

#[test]
fn several_tracks_come_out_clean() {
    let Some(ffmpeg) = new_ffmpeg() else { return };
    let others = "-f lavfi -i testsrc=s=320x180:r=25 -f lavfi -i sine=500:r=48000 -map 0 -map 1 -map 2 -map 3";
    let tracks = &[("0:v:0", FRAMES), ("0:v:1", FRAMES), ("0:a:0", FRAMES), ("0:a:1", FRAMES)];
    comes_out_clean(&ffmpeg, &format!("{PICTURE} {SOUND} {others} {H264} -c:a aac"), tracks, PLAIN, by_ffmpeg(&ffmpeg));
}

/// Decoders do not agree on what of Opus is played before the first sound; its packets are what they are.
#[test]
fn opus_beside_av1_comes_out_clean() {
    let Some(ffmpeg) = new_ffmpeg() else { return };
    let codecs = "-c:v libsvtav1 -preset 12 -svtav1-params lookahead=0 -g 25 -pix_fmt yuv420p -c:a libopus";
    let make = format!("{PICTURE} {SOUND} {codecs}");
    comes_out_clean(&ffmpeg, &make, &[("0:a", PACKETS)], PLAIN, by_ffmpeg(&ffmpeg));
}

#[test]
fn what_gstreamer_publishes_comes_out_clean() {
    by_gstreamer("rtmp2sink location=URL");
}

/// That of OBS's ancestors, too.
#[test]
fn what_librtmp_publishes_comes_out_clean() {
    by_gstreamer("rtmpsink location=URL");
}

/// A flow is published to, and pushes to two servers that record.
#[test]
fn what_is_pushed_arrives_frame_by_frame() {
    if !installed("ffmpeg") || !installed("rtmpdump") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (folder, home) = (directory.path(), directory.path().display());
    run("ffmpeg", &format!("{PICTURE} {SOUND} {H264} -c:a aac -t 4 source.flv"), folder);
    let (rig, port, to_nginx, to_ffmpeg) = (Rig::new(), port(), port(), port());
    let config = format!(
        "rtmp {{ server {{ listen 127.0.0.1:{to_nginx}; application live {{ live on; record all; record_path {home}; }} }} }}"
    );
    let Some(_nginx) = Peer::nginx("ngx_rtmp_module", &config, folder) else { return };
    let listen = format!("-v error -nostdin -y -listen 1 -i rtmp://127.0.0.1:{to_ffmpeg}/live/cam1 -c copy ffmpeg.flv");
    let _ffmpeg = Peer::start("ffmpeg", &listen, folder);
    let called = [to_nginx, to_ffmpeg].map(|port| format!("rtmp://127.0.0.1:{port}/live/cam1"));
    rig.apply("f", flow([format!("rtmp://@127.0.0.1:{port}/live/cam1")], called));
    wait_until("both servers", || rig.events("f").iter().filter(|kind| is_connected(kind)).count() == 2);
    // nginx does not record what it was told of the stream, but tells players.
    let play = format!("-q -v -r rtmp://127.0.0.1:{to_nginx}/live -y cam1 -o player.flv");
    let _player = Peer::start("rtmpdump", &play, folder);
    by_ffmpeg("ffmpeg")(folder, &format!("rtmp://127.0.0.1:{port}/live/cam1"));
    let sent = ["0:v", "0:a"].map(|track| (track, md5s("ffmpeg", &folder.join("source.flv"), track, FRAMES)));
    let has_all = |name: &str| sent.iter().all(|(track, sent)| has_frames(&folder.join(name), track, sent));
    wait_until("all of it at nginx", || has_all("cam1.flv"));
    rig.stop("f");
    wait_until("all of it at ffmpeg", || has_all("ffmpeg.flv"));
    wait_described(&folder.join("player.flv"));
    for name in ["cam1.flv", "ffmpeg.flv"] {
        wait_until("a whole file", || warnings(&folder.join(name)).is_empty());
    }
}

/// x264's own distance of key frames is 250 pictures.
#[test]
fn who_joins_between_rare_key_frames_hears_sound_and_gets_the_picture_from_the_next_one() {
    if !installed("rtmpdump") || !installed("ffmpeg") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (source, player) = (directory.path().join("source.ts"), directory.path().join("player.flv"));
    let rare = H264.replace("-g 25", "-g 250 -keyint_min 250");
    run("ffmpeg", &format!("{PICTURE} {SOUND} {rare} -c:a aac -t 13 source.ts"), directory.path());
    let (rig, listen, port) = (Rig::new(), (V4, free_port()).into(), port());
    rig.apply("f", flow([udp(listen)], [format!("rtmp://@127.0.0.1:{port}/live/cam1")]));
    let stream = fs::read(&source).unwrap();
    let (before, after) = stream.split_at(stream.len() * 2 / 13);
    send(listen, before);
    let arguments = format!("-q -v -r rtmp://127.0.0.1:{port}/live -y cam1 -o player.flv");
    let _player = Peer::start("rtmpdump", &arguments, directory.path());
    rig.wait_event("f", "the player", is_connected);
    send(listen, after);
    let sent = md5s("ffmpeg", &source, "0:v", FRAMES);
    wait_until("all pictures", || has_frames(&player, "0:v", &sent[250..]));
    // He came at two seconds, and it waited until seven.
    assert!(md5s("ffmpeg", &player, "0:a", FRAMES).len() > 5 * 48_000 / 1_024);
    rig.stop("f");
    wait_until("a whole file", || warnings(&player).is_empty());
    wait_described(&player);
}

/// Whoever writes down what he is told is told what our picture and sound are.
fn wait_described(file: &Path) {
    let expected =
        [("width", 320.0), ("height", 180.0), ("framerate", 25.0), ("videocodecid", 7.0), ("audiocodecid", 10.0)];
    wait_until("what it is", || {
        let told = metadata_of(file);
        expected.iter().all(|(name, value)| told.contains(&((*name).to_owned(), Value::Number(*value))))
    });
}

/// Whether a file that grows has all of these frames, and asserts that they are the same. Nobody knows that the last one is whole
/// before another begins.
fn has_frames(file: &Path, track: &str, sent: &[String]) -> bool {
    let came = md5s("ffmpeg", file, track, FRAMES);
    if came.len() + 1 < sent.len() {
        return false;
    }
    let is_same = came.iter().zip(&sent[..sent.len() - LAST]).all(|(came, sent)| came == sent);
    assert!(is_same, "{track} of {}", file.display());
    true
}

/// Faster than it plays.
fn send(to: SocketAddr, stream: &[u8]) {
    let feed = Feed::new(to, TS);
    for datagram in stream.chunks(TS) {
        feed.socket.send(datagram).unwrap();
        let_pass(Duration::from_millis(1));
    }
}

fn by_gstreamer(sink: &str) {
    if !installed("gst-launch-1.0") || !installed("ffmpeg") {
        return;
    }
    comes_out_clean("ffmpeg", &format!("{PICTURE} {SOUND} {H264} -c:a aac"), BOTH, PLAIN, |directory, url| {
        let sink = sink.replace("URL", url);
        let arguments = format!(
            "-q filesrc location=source.flv ! flvdemux name=d d.video ! queue ! h264parse ! flvmux name=m streamable=true \
             ! {sink} sync=true d.audio ! queue ! aacparse ! m."
        );
        Peer::run("gst-launch-1.0", &arguments, directory);
    });
}

fn by_ffmpeg(ffmpeg: &str) -> impl Fn(&Path, &str) {
    move |directory, url| run(ffmpeg, &format!("-re -i source.flv -map 0 -c copy -f flv {url}"), directory)
}

fn run(ffmpeg: &str, arguments: &str, directory: &Path) {
    let mut command = Command::new(ffmpeg);
    command.args(["-v", "error", "-nostdin", "-y"]).args(arguments.split_whitespace()).current_dir(directory);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// How a publisher is waited for, and what is made of him.
#[derive(Clone, Copy)]
struct Port<'a> {
    scheme: &'a str,
    query: &'a str,
    /// As the query says.
    rate_bps: Option<u64>,
}

/// `ffmpeg` makes four seconds, `publish` sends them to a URL, and what comes out of the flow is judged: of each of `tracks`
/// the MD5s that ffmpeg makes of it with these options.
fn comes_out_clean(
    ffmpeg: &str,
    make: &str,
    tracks: &[(&str, &[&str])],
    port: Port<'_>,
    publish: impl Fn(&Path, &str),
) {
    if !installed("ffmpeg") || !installed("tsreport") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    run(ffmpeg, &format!("{make} -t 4 source.flv"), directory.path());
    let source = directory.path().join("source.flv");
    let sent: Vec<Vec<String>> = tracks.iter().map(|(track, options)| md5s(ffmpeg, &source, track, options)).collect();
    patiently(|| {
        let (rig, sink, number) = (Rig::new(), Sink::keeping(V4), crate::rtmp::port());
        let Port { scheme, query, rate_bps } = port;
        rig.apply("in", flow([format!("{scheme}://@127.0.0.1:{number}/live/cam1{query}")], [sink.url()]));
        publish(directory.path(), &format!("{scheme}://127.0.0.1:{number}/live/cam1"));
        rig.wait_event("in", "the end", |kind| matches!(kind, EventKind::PeerDisconnected { .. }));
        excuse_pause(sink.take_longest_pause(), PCR_INTERVAL_MAX);
        let stream = directory.path().join("came.ts");
        for ((track, options), sent) in tracks.iter().zip(&sent) {
            assert!(sent.len() >= 90, "{} in {track}", sent.len());
            let mut came = Vec::new();
            wait_until("all of it", || {
                fs::write(&stream, sink.kept().concat()).unwrap();
                came = md5s(ffmpeg, &stream, track, options);
                came.len() >= sent.len()
            });
            assert!(came == *sent, "{track}: others than {} that were sent", sent.len());
        }
        let details = rig.source("in", "s1").details;
        let carried = details.iter().find(|detail| detail.0 == "unitsCarried").map(|detail| detail.1);
        assert_eq!(carried, Some(md5s(ffmpeg, &source, "0", PACKETS).len() as f64));
        // Of pictures that it cannot read it says what it likes.
        if tracks.iter().any(|(track, _)| track.starts_with("0:v")) {
            assert_eq!(warnings(&stream), [""; 0]);
        }
        pcrs(&stream);
        let stream = fs::read(&stream).unwrap();
        rate_bps.into_iter().for_each(|bps| assert_constant(&stream, bps));
        // There sound leaves just before it is heard, and at the end for so long alone.
        let tail = rate_bps.map_or(0, |bps| bps as usize / 8 * 7 / 10 / TS_PACKET_BYTES * TS_PACKET_BYTES);
        assert_clean(&stream[..stream.len() - tail]);
    });
}

/// No indicator of TR 101 290 shows anything, and clock and tables come as often as they must: by the stream's own clock, which
/// does not care when this machine sends and receives.
fn assert_clean(stream: &[u8]) {
    let passed = by_clock(stream);
    let mut analyser = Analyser::new(Time::ZERO);
    for (packet, (at, _)) in stream.chunks(TS_PACKET_BYTES).zip(&passed) {
        analyser.handle_packet(Time::ZERO + *at, packet, None);
    }
    let snapshot = analyser.snapshot();
    for indicator in Indicator::ALL {
        let seen = snapshot.indicator(indicator);
        assert_eq!((seen.errors, seen.warnings), (0, 0), "{indicator:?} {seen:?}");
    }
    let mut clock: Vec<Duration> = passed.iter().map(|(from, _)| *from).collect();
    clock.dedup();
    let longest = clock.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    assert!(longest <= PCR_INTERVAL_MAX, "{longest:?} from PCR to PCR");
    let [program] = &snapshot.programs[..] else { panic!("{:?}", snapshot.programs) };
    for pid in [Pid::PAT, program.pmt_pid] {
        let packets = stream.chunks(TS_PACKET_BYTES).map(|packet| TsPacket::parse(packet).unwrap());
        let tables: Vec<_> =
            packets.zip(&passed).filter(|(packet, _)| packet.pid == pid).map(|(_, passed)| passed).collect();
        // From the last moment of one to the first of the next it was longer still.
        let longest = tables.windows(2).map(|pair| pair[1].0.saturating_sub(pair[0].1)).max().unwrap();
        assert!(longest <= TABLE_INTERVAL_MAX, "{longest:?} from table to table on {pid:?}");
        let mean = (clock[clock.len() - 1] - clock[0]) / (tables.len() - 1) as u32;
        assert!(mean <= TABLE_INTERVAL_MAX, "{mean:?} from table to table on {pid:?}");
    }
}

/// Each PCR is where it lies at that rate (13818-1 2.4.2.2), and our analyser says so.
pub(crate) fn assert_constant(stream: &[u8], bps: u64) {
    let packets = stream.chunks(TS_PACKET_BYTES).map(|packet| TsPacket::parse(packet).unwrap().adaptation?.pcr);
    let pcrs: Vec<(usize, u64)> = packets.enumerate().filter_map(|(at, pcr)| Some((at, pcr?.0))).collect();
    let (first, first_27m) = pcrs[0];
    assert!(pcrs.len() > 30, "{}", pcrs.len());
    for (at, pcr_27m) in pcrs {
        let by_bytes_ns = ((at - first) * TS_PACKET_BYTES * 8) as f64 * 1e9 / bps as f64;
        let by_clock_ns = (pcr_27m - first_27m) as f64 * 1e3 / 27.0;
        let beside_ns = by_clock_ns - by_bytes_ns;
        assert!(beside_ns.abs() <= PCR_ACCURACY_NS, "{beside_ns} ns in packet {at}");
    }
    let mut analyser = Analyser::new(Time::ZERO);
    for (packet, (at, _)) in stream.chunks(TS_PACKET_BYTES).zip(by_clock(stream)) {
        analyser.handle_packet(Time::ZERO + at, packet, None);
    }
    let accuracy = analyser.snapshot().pcr_accuracy.unwrap();
    assert!(accuracy <= Duration::from_nanos(PCR_ACCURACY_NS as u64), "{accuracy:?}");
}

/// Between which two moments each TS packet passes by: of the PCR before it, or its own, and of the one behind it.
fn by_clock(stream: &[u8]) -> Vec<(Duration, Duration)> {
    let pcr = |packet| TsPacket::parse(packet).unwrap().adaptation.and_then(|adaptation| adaptation.pcr);
    let pcrs =
        stream.chunks(TS_PACKET_BYTES).map(|packet| pcr(packet).map(|pcr| Duration::from_nanos(pcr.0 * 1_000 / 27)));
    let pcrs: Vec<Option<Duration>> = pcrs.collect();
    let first = pcrs.iter().flatten().next().copied().unwrap();
    let from: Vec<Duration> = pcrs
        .iter()
        .scan(first, |latest, pcr| {
            *latest = pcr.unwrap_or(*latest);
            Some(*latest)
        })
        .collect();
    let last = from[from.len() - 1];
    let mut to: Vec<Duration> = pcrs
        .iter()
        .rev()
        .scan(last, |next, pcr| {
            let after = *next;
            *next = pcr.unwrap_or(*next);
            Some(pcr.unwrap_or(after))
        })
        .collect();
    to.reverse();
    from.into_iter().zip(to).collect()
}

/// Of as many pictures the decoder may need the very last one.
const LAST: usize = 3;
/// TR 101 290, 2.3a.
const PCR_INTERVAL_MAX: Duration = Duration::from_millis(40);
/// TR 101 290, 2.4.
const PCR_ACCURACY_NS: f64 = 500.0;
/// ETSI TS 101 154, 4.1.7.
const TABLE_INTERVAL_MAX: Duration = Duration::from_millis(100);
