//! Real foreign tools on the other end: ffmpeg and GStreamer.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anabranch::bus::{Pool, PoolLimits};
use anabranch::engine::SourceStatus;
use anabranch::proto::mpegts::generator::{Config, Generator};
use anabranch::proto::{Core, Surroundings};
use anabranch::units::{Bitrate, Time};

use crate::support::{Feed, Rig, Sink, TS, V4, flow, free_port, is_bound, let_pass, skipped, udp, url_of, wait_until};

/// Whether `program` is there. If not, that is said loudly, or is a failure where peers are required.
pub(crate) fn installed(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        assert!(std::env::var_os("ANABRANCH_REQUIRE_PEERS").is_none_or(|value| value != "1"), "{program} is required");
        skipped(&format!("{program} not installed"));
    }
    found
}

/// A foreign program; killed at the end.
pub(crate) struct Peer(Child);

impl Peer {
    pub(crate) fn start(program: &str, arguments: &str, directory: &Path) -> Self {
        let log = fs::File::create(log_of(program, directory)).unwrap();
        let child = Command::new(program)
            .args(arguments.split_whitespace())
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        Self(child.unwrap())
    }

    /// nginx with one of its modules; `None` if one of them is not there. It is one process, so that nothing is left of it
    /// when that is killed.
    pub(crate) fn nginx(module: &str, content: &str, directory: &Path) -> Option<Self> {
        let module = Path::new("/usr/lib/nginx/modules").join(module).with_extension("so");
        if !installed("nginx") {
            return None;
        }
        if !module.exists() {
            skipped(&format!("{} is not installed", module.display()));
            return None;
        }
        let (module, home) = (module.display(), directory.display());
        let config = format!(
            "load_module {module}; daemon off; master_process off; pid {home}/pid; error_log {home}/error.log; \
             events {{}} {content}"
        );
        fs::write(directory.join("nginx.conf"), config).unwrap();
        Some(Self::start("nginx", &format!("-c {home}/nginx.conf -e {home}/error.log"), directory))
    }

    pub(crate) fn run(program: &str, arguments: &str, directory: &Path) {
        let mut peer = Self::start(program, arguments, directory);
        peer.wait(program, directory);
    }

    fn wait(&mut self, program: &str, directory: &Path) {
        let mut status = None;
        wait_until(program, || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        let log = fs::read_to_string(log_of(program, directory)).unwrap_or_default();
        assert!(status.is_some_and(|status| status.success()), "{program}: {log}");
    }
}

/// Where a program writes to, which may be given with its path.
fn log_of(program: &str, directory: &Path) -> PathBuf {
    let name = Path::new(program).file_name().unwrap();
    directory.join(name).with_added_extension("log")
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until somebody on this machine has the UDP port.
pub(crate) fn wait_for_port(port: u16) {
    wait_until("the peer's socket", || is_bound(port));
}

/// A transport stream of the built-in generator, in packets of 1316 bytes.
fn stream(packets: usize) -> Vec<Vec<u8>> {
    let config = Config::new(Bitrate::from_bps(10_000_000), 7).unwrap();
    let pool = Pool::new(PoolLimits::default());
    let mut generator = Generator::new(config, &Surroundings { pool, seed: 0, unix_ns_at_zero: 0 });
    let mut out = Vec::new();
    let mut now = Time::ZERO;
    while out.len() < packets {
        generator.handle_timeout(now);
        while let Some(packet) = generator.poll_packet() {
            out.push(packet.to_vec());
        }
        now += Duration::from_millis(10);
    }
    out.truncate(packets);
    out
}

/// Sends `packets`, one a millisecond.
fn send_paced<'a>(target: SocketAddr, packets: impl IntoIterator<Item = &'a [u8]>) {
    let feed = Feed::new(target, TS);
    for packet in packets {
        feed.socket.send(packet).unwrap();
        let_pass(Duration::from_millis(1));
    }
}

#[test]
fn gstreamer_writes_what_we_send_as_rtp() {
    gstreamer_writes(|to| url_of("rtp", to, ""));
}

/// Nobody listens on the first leg, and GStreamer knows nothing of it.
#[test]
fn gstreamer_writes_what_comes_on_one_of_two_legs() {
    let dead = SocketAddr::from((V4, free_port()));
    gstreamer_writes(|to| url_of("rtp", dead, &format!("leg={to}")));
}

fn gstreamer_writes(output: impl Fn(SocketAddr) -> String) {
    if !installed("gst-launch-1.0") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (listen, to) = (SocketAddr::from((V4, free_port())), SocketAddr::from((V4, free_port())));
    let _peer = Peer::start(
        "gst-launch-1.0",
        &format!(
            "-q udpsrc address=127.0.0.1 port={} buffer-size=4000000 \
             caps=application/x-rtp,media=video,clock-rate=90000,encoding-name=MP2T,payload=33 \
             ! rtpmp2tdepay ! filesink location=out.ts buffer-mode=unbuffered",
            to.port()
        ),
        directory.path(),
    );
    wait_for_port(to.port());
    let rig = Rig::new();
    rig.apply("f", flow([udp(listen)], [output(to)]));
    let packets = stream(1_000);
    send_paced(listen, packets.iter().map(Vec::as_slice));
    let sent = packets.concat();
    let written = || fs::read(directory.path().join("out.ts")).unwrap_or_default();
    wait_until("the file", || written().len() >= sent.len());
    assert!(written() == sent, "the file differs from what was sent");
}

#[test]
fn gstreamer_sends_rtp_to_us() {
    if !installed("gst-launch-1.0") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let sent = stream(1_000).concat();
    fs::write(directory.path().join("in.ts"), &sent).unwrap();
    let rig = Rig::new();
    let (sink, listen) = (Sink::keeping(V4), SocketAddr::from((V4, free_port())));
    rig.apply("f", flow([url_of("rtp", listen, "")], [sink.url()]));
    // Whole TS packets in each buffer are what the payloader asks for; `max-bitrate` paces them.
    Peer::run(
        "gst-launch-1.0",
        &format!(
            "-q filesrc location=in.ts blocksize=1316 \
             ! video/mpegts,systemstream=true,packetsize=188 ! rtpmp2tpay ! \
             udpsink host=127.0.0.1 port={} sync=false max-bitrate=40000000",
            listen.port()
        ),
        directory.path(),
    );
    wait_until("every byte", || sink.bytes() >= sent.len() as u64);
    assert!(sink.kept().concat() == sent, "what came differs from the file");
    assert_eq!(rig.source("f", "s1").lost, 0);
}

#[test]
fn ffmpeg_sends_rtp_to_us() {
    if !installed("ffmpeg") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let rig = Rig::new();
    let (sink, listen) = (Sink::keeping(V4), SocketAddr::from((V4, free_port())));
    rig.apply("f", flow([url_of("rtp", listen, "")], [sink.url()]));
    Peer::run(
        "ffmpeg",
        &format!(
            "-hide_banner -loglevel warning -re -f lavfi -i testsrc=size=320x240:rate=25 -t 3 \
             -c:v mpeg2video -b:v 2M -f rtp_mpegts rtp://127.0.0.1:{}",
            listen.port()
        ),
        directory.path(),
    );
    wait_until("the end", || rig.source("f", "s1").status == SourceStatus::Disconnected);
    let source = rig.source("f", "s1");
    assert!(source.packets > 50, "{source:?}");
    assert_eq!((source.lost, source.drops.malformed, source.drops.unexpected), (0, 0, 0), "{source:?}");
    sink.wait(source.packets);
    let received = sink.kept().concat();
    assert_eq!(received.len() as u64, source.bytes);
    assert!(received.chunks(188).all(|packet| packet.len() == 188 && packet[0] == 0x47));
    // What passed decodes to every picture.
    fs::write(directory.path().join("received.ts"), &received).unwrap();
    assert_eq!(picture_hashes("-i received.ts", directory.path()).len(), 75);
}

#[test]
fn ffmpeg_plays_what_we_send_as_rtp() {
    ffmpeg_plays("rtp");
}

#[test]
fn ffmpeg_plays_what_we_send_as_udp() {
    ffmpeg_plays("udp");
}

/// A file through the engine into ffmpeg: the same pictures as from the file itself.
fn ffmpeg_plays(scheme: &str) {
    if !installed("ffmpeg") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    Peer::run(
        "ffmpeg",
        "-hide_banner -loglevel warning -f lavfi -i testsrc=size=320x240:rate=25 -t 6 \
         -c:v mpeg2video -b:v 2M -g 12 -f mpegts in.ts",
        directory.path(),
    );
    let original = picture_hashes("-i in.ts", directory.path());
    assert_eq!(original.len(), 150);
    let (listen, to) = (SocketAddr::from((V4, free_port())), SocketAddr::from((V4, free_port())));
    let mut peer = Peer::start(
        "ffmpeg",
        &format!(
            "-hide_banner -loglevel warning -analyzeduration 500000 -probesize 200000 -i {} \
             -map 0:v -c copy -frames:v 100 -f framemd5 live.md5",
            url_of(scheme, to, "")
        ),
        directory.path(),
    );
    wait_for_port(to.port());
    let rig = Rig::new();
    rig.apply("f", flow([udp(listen)], [url_of(scheme, to, "")]));
    let bytes = fs::read(directory.path().join("in.ts")).unwrap();
    send_paced(listen, bytes.chunks(TS));
    peer.wait("ffmpeg", directory.path());
    let live = hashes_in(&directory.path().join("live.md5"));
    // ffmpeg may need some pictures to find out what comes; from then on it has every one.
    let first = original.iter().position(|hash| *hash == live[0]).unwrap();
    assert!(first < 40, "{scheme}: {first} pictures are missing at the start");
    assert!(live == original[first..first + 100], "{scheme}: other pictures than in the file");
}

/// Hashes of the coded pictures, in order.
fn picture_hashes(input: &str, directory: &Path) -> Vec<String> {
    let output: PathBuf = directory.join("pictures.md5");
    Peer::run(
        "ffmpeg",
        &format!("-hide_banner -loglevel warning -y {input} -map 0:v -c copy -f framemd5 pictures.md5"),
        directory,
    );
    hashes_in(&output)
}

/// The hashes in a file of ffmpeg's framemd5.
pub(crate) fn hashes_in(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    // Stream, DTS, PTS, duration, size, hash.
    lines.map(|line| line.split(',').nth(5).unwrap().trim().to_string()).collect()
}
