//! What bad input on an RTMP port gets: a closed connection with a counted reason, and nobody else's trouble.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use anabranch::adapters::clock;
use anabranch::engine::{EventKind, Severity};
use anabranch::proto::StreamCore;
use anabranch::proto::rtmp::{Client, ClientMessage, Config, Message, Role, Target, kind};
use anabranch::units::Time;
use socket2::SockRef;

use crate::peers::{Peer, installed};
use crate::rtmp::port;
use crate::support::{Rig, Sink, V4, flow, let_pass, wait_until};

/// A flow with a publisher that is nobody's enemy.
struct Good {
    rig: Rig,
    sink: Sink,
    address: SocketAddr,
}

impl Good {
    fn new() -> Self {
        let (rig, sink, port) = (Rig::new(), Sink::keeping(V4), port());
        let listen = |key: &str| format!("rtmp://@127.0.0.1:{port}/live/{key}");
        rig.apply("good", flow([listen("good")], [sink.url()]));
        rig.apply("bad", flow([listen("bad")], [sink.url()]));
        rig.apply("out", flow(["test:picture?rate=2M".to_owned()], [format!("rtmp://127.0.0.1:{port}/live/good")]));
        sink.wait(20);
        Self { rig, sink, address: (V4, port).into() }
    }

    fn figure(&self, flow: &str, name: &str) -> f64 {
        let details = self.rig.source(flow, "s1").details;
        details.into_iter().find(|detail| detail.0 == name).unwrap().1
    }

    /// The other publisher noticed nothing.
    fn assert_unharmed(&self) {
        let before = self.sink.count();
        self.sink.wait(before + 20);
        let is_end = |kind: &EventKind| matches!(kind, EventKind::PeerDisconnected { .. });
        assert!(!self.rig.events("good").iter().any(is_end));
    }
}

/// A client of ours on a socket of the test's.
pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
    core: Client,
}

impl Raw {
    pub(crate) fn new(address: SocketAddr, role: Role, key: &str) -> Self {
        let target = Target { tc_url: format!("rtmp://{address}/live"), app: "live".into(), key: key.into() };
        let core = Client::new(Time::ZERO, Config::default(), role, target, 1);
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Self { stream, core }
    }

    /// Talks until the server agrees; false if it does not.
    pub(crate) fn is_let_in(&mut self) -> bool {
        loop {
            let said = self.core.poll_message();
            while let Some(piece) = self.core.poll_transmit() {
                self.stream.write_all(&piece.header).unwrap();
                self.stream.write_all(&piece.payload).unwrap();
            }
            match said {
                Some(ClientMessage::Ready) => return true,
                Some(ClientMessage::Ended(_)) => return false,
                Some(_) => {}
                None => {
                    let mut buffer = [0; 1_024];
                    let Ok(len @ 1..) = self.stream.read(&mut buffer) else { return false };
                    self.core.handle_bytes(Time::ZERO, buffer[..len].into());
                }
            }
        }
    }

    /// Sends a frame of AAC, and its header before the first.
    pub(crate) fn send_sound(&mut self, ms: u32) {
        let header = (ms == 0).then(|| vec![0xaf, 0, 0x12, 0x10]);
        for payload in header.into_iter().chain([vec![0xaf, 1, 0x21, 0x10, 4, 0x60, 0x8c, 0x1c]]) {
            let message =
                Message { kind: kind::AUDIO, timestamp_ms: ms, payload: payload.into(), ..Message::default() };
            self.core.send(&message).unwrap();
        }
        while let Some(piece) = self.core.poll_transmit() {
            self.stream.write_all(&piece.header).unwrap();
            self.stream.write_all(&piece.payload).unwrap();
        }
    }

    /// Sends the handshake and these bytes behind it, and nothing that makes sense.
    fn after_handshake(address: SocketAddr, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut hello = vec![3];
        hello.extend([0; 1_536]);
        stream.write_all(&hello).unwrap();
        let mut answer = [0; 1 + 2 * 1_536];
        stream.read_exact(&mut answer).unwrap();
        stream.write_all(&answer[1..=1_536]).unwrap();
        let _not_all_may_be_taken = stream.write_all(bytes);
        stream
    }
}

/// Waits until the server has closed it.
fn wait_for_end(stream: &mut TcpStream) {
    let mut buffer = [0; 4_096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Set chunk size (RTMP 5.4.1).
fn chunk_size(size: u32) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0];
    bytes.extend(size.to_be_bytes());
    bytes
}

/// All but the end of a message of 16 MiB, the longest that can be said, on each of three chunk streams.
fn endless() -> Vec<u8> {
    let mut bytes = chunk_size((1 << 24) - 2);
    for chunk_stream in 4..7 {
        bytes.extend([chunk_stream, 0, 0, 0, 0xff, 0xff, 0xff, 9, 1, 0, 0, 0]);
        bytes.resize(bytes.len() + (1 << 24) - 2, 0);
    }
    bytes
}

#[test]
fn impossible_chunk_sizes_and_lengths_cost_the_connection_alone() {
    let good = Good::new();
    for (bytes, figure, reason) in [
        (chunk_size(0), "endsBrokenProtocol", "chunk size"),
        (chunk_size(1 << 31), "endsBrokenProtocol", "chunk size"),
        (endless(), "endsOversize", "too long"),
    ] {
        let mut raw = Raw::new(good.address, Role::Publisher, "bad");
        assert!(raw.is_let_in());
        let before = good.figure("bad", figure);
        // Not all of it may be taken.
        let _ = raw.stream.write_all(&bytes);
        wait_for_end(&mut raw.stream);
        wait_until("the count", || good.figure("bad", figure) > before);
        let told =
            |kind: &EventKind| matches!(kind, EventKind::PeerDisconnected { why, .. } if why.reason.contains(reason));
        good.rig.wait_event("bad", "the reason", told);
    }
    good.assert_unharmed();
}

#[test]
fn who_breaks_the_protocol_before_asking_for_a_stream_is_counted_at_the_port() {
    let good = Good::new();
    for (bytes, figure) in [(chunk_size(0), "portBrokenProtocol"), (endless(), "portOversize")] {
        wait_for_end(&mut Raw::after_handshake(good.address, &bytes));
        wait_until("the count", || good.figure("bad", figure) == 1.0);
    }
    let mut stream = TcpStream::connect(good.address).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    wait_for_end(&mut stream);
    wait_until("the count", || good.figure("bad", "portBrokenProtocol") == 2.0);
    // Two flows have the application: neither hears of a wrong key, nor of the noise of strangers.
    let is_told = |kind: &EventKind| matches!(kind, EventKind::CallersRefused { .. });
    let is_error = |kind: &EventKind| kind.severity() == Severity::Error;
    let try_wrong = || assert!(!Raw::new(good.address, Role::Publisher, "wrong").is_let_in());
    try_wrong();
    wait_until("the count", || good.figure("bad", "portWrongKey") == 1.0);
    let events = ["good", "bad"].map(|flow| good.rig.events(flow)).concat();
    assert!(!events.iter().any(|kind| is_told(kind) || is_error(kind)));
    // To the one who is alone it is told, and is no error of his.
    good.rig.stop("bad");
    (0..3).for_each(|_| try_wrong());
    let is_wrong = |kind: &EventKind| matches!(kind, EventKind::CallersRefused { reason, count: 1, .. } if reason.contains("key is wrong"));
    good.rig.wait_event("good", "the wrong key", is_wrong);
    wait_until("the count", || good.figure("good", "portWrongKey") == 4.0);
    let events = good.rig.events("good");
    assert_eq!((events.iter().filter(|kind| is_told(kind)).count(), events.iter().any(is_error)), (1, false));
    good.assert_unharmed();
}

/// One byte at a time, from one address.
#[test]
fn slow_handshakes_end_in_time_and_keep_nobody_out() {
    let good = Good::new();
    let start = clock::now();
    let mut slow: Vec<TcpStream> = (0..70).map(|_| TcpStream::connect(good.address).unwrap()).collect();
    let mut last = start;
    wait_until("the end of all", || {
        if clock::now().since(last) > Duration::from_millis(500) {
            last = clock::now();
            slow.iter_mut().for_each(|stream| {
                let _ = stream.write(&[3]);
            });
        }
        good.figure("bad", "portSlow") >= 70.0
    });
    assert!(clock::now().since(start) >= Duration::from_secs(4), "the time they have");
    good.assert_unharmed();
    let mut raw = Raw::new(good.address, Role::Publisher, "bad");
    assert!(raw.is_let_in());
}

/// As another address of this machine has room while one crowds.
#[test]
fn a_crowd_from_one_address_keeps_no_other_out() {
    let good = Good::new();
    let crowd: Vec<TcpStream> = (0..520).map(|_| TcpStream::connect(good.address).unwrap()).collect();
    wait_until("the crowd", || good.figure("bad", "portCrowded") >= 8.0);
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(IpAddr::from([127, 0, 0, 2]), 0).into()).unwrap();
    socket.connect(&good.address.into()).unwrap();
    let mut raw = Raw { stream: socket.into(), ..Raw::new(good.address, Role::Publisher, "bad") };
    raw.stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    assert!(raw.is_let_in());
    drop(crowd);
}

/// As behind the address of a site whose power comes back.
#[test]
fn hundreds_of_publishers_come_at_once_from_one_address() {
    let (rig, sink, port) = (Rig::new(), Sink::keeping(V4), port());
    // One is let in, and the others are told so.
    rig.apply("in", flow([format!("rtmp://@127.0.0.1:{port}/live/cam1")], [sink.url()]));
    let address = (V4, port).into();
    let mut all: Vec<Raw> = (0..500).map(|_| Raw::new(address, Role::Publisher, "cam1")).collect();
    let talk = |raws: &mut [Raw]| raws.iter_mut().map(|raw| usize::from(raw.is_let_in())).sum::<usize>();
    let let_in: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = all.chunks_mut(10).map(|raws| scope.spawn(move || talk(raws))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    let figure =
        |name: &str| rig.source("in", "s1").details.into_iter().find(|detail| detail.0 == name).map(|detail| detail.1);
    // A busy machine may be too slow for some.
    let heard = || figure("endsRefused").unwrap() + figure("portSlow").unwrap() + let_in as f64;
    wait_until("all", || heard() >= 500.0);
    assert_eq!((figure("portCrowded"), heard()), (Some(0.0), 500.0));
    assert!(let_in > 0);
}

/// A player is paused for longer than a path takes to be found dead.
#[test]
fn who_closes_his_window_for_a_while_is_still_there() {
    let (rig, port) = (Rig::new(), port());
    rig.apply("out", flow(["test:picture?rate=2M".to_owned()], [format!("rtmp://@127.0.0.1:{port}/live/cam1")]));
    let mut paused = Raw::new((V4, port).into(), Role::Player, "cam1");
    SockRef::from(&paused.stream).set_recv_buffer_size(4_096).unwrap();
    assert!(paused.is_let_in());
    let_pass(Duration::from_secs(20));
    // More than could be on the way.
    let mut left = 1_usize << 20;
    let mut buffer = vec![0; 1 << 16];
    while left > 0 {
        let len = paused.stream.read(&mut buffer).unwrap();
        assert!(len > 0, "it was closed");
        left = left.saturating_sub(len);
    }
    assert!(!rig.events("out").iter().any(|kind| matches!(kind, EventKind::PeerDisconnected { .. })));
}

#[test]
fn a_player_that_reads_nothing_goes_on_with_a_key_frame_and_the_other_misses_nothing() {
    if !installed("ffmpeg") {
        return;
    }
    let (directory, rig, port) = (tempfile::tempdir().unwrap(), Rig::new(), port());
    let feed = SocketAddr::from((V4, crate::support::free_port()));
    let mut config = flow([crate::support::udp(feed)], [format!("rtmp://@127.0.0.1:{port}/live/cam1")]);
    config.outputs[0].policy = anabranch::bus::LagPolicy::ToNextKeyFrame;
    rig.apply("out", config);
    let arguments = format!(
        "-v error -nostdin -re -f lavfi -i testsrc2=s=640x360:r=25,noise=alls=60:allf=t -c:v libx264 -preset ultrafast \
         -g 25 -b:v 8M -maxrate 8M -bufsize 2M -pix_fmt yuv420p -f mpegts udp://{feed}?pkt_size=1316"
    );
    let _peer = Peer::start("ffmpeg", &arguments, directory.path());
    let play = format!("-v error -nostdin -y -i rtmp://127.0.0.1:{port}/live/cam1 -c copy -f flv out.flv");
    // Its log must not be the encoder's.
    std::fs::create_dir(directory.path().join("player")).unwrap();
    let _player = Peer::start("ffmpeg", &play, &directory.path().join("player"));
    rig.wait_event("out", "the player", |kind| matches!(kind, EventKind::PeerConnected { .. }));
    let figure = |name: &str| {
        let details = rig.output("out", "o1").details;
        details.into_iter().find(|detail| detail.0 == name).map_or(0.0, |detail| detail.1)
    };
    let mut lazy = Raw::new((V4, port).into(), Role::Player, "cam1");
    SockRef::from(&lazy.stream).set_recv_buffer_size(4_096).unwrap();
    assert!(lazy.is_let_in());
    wait_until("what is left out", || figure("unitsOverflow") > 0.0 && figure("unitsBeforeKeyFrame") > 10.0);
    // It is still there, and reads on.
    let before = figure("unitsSent");
    let mut buffer = vec![0; 1 << 16];
    wait_until("more", || {
        let _ = lazy.stream.read(&mut buffer).unwrap();
        figure("unitsSent") > before + 10.0
    });
    assert!(!rig.events("out").iter().any(|kind| matches!(kind, EventKind::PeerDisconnected { .. })));
    let played = directory.path().join("player/out.flv");
    let mut times = Vec::new();
    wait_until("what the other played", || {
        times = picture_times(&played);
        times.len() > 100
    });
    assert!(times.windows(2).all(|pair| (39..=41).contains(&(pair[1] - pair[0]))), "{times:?}");
}

/// Milliseconds at which the pictures of a file are decoded.
fn picture_times(path: &std::path::Path) -> Vec<i64> {
    let mut ffmpeg = std::process::Command::new("ffmpeg");
    ffmpeg.args(["-v", "quiet", "-i"]).arg(path).args(["-map", "0:v", "-c", "copy", "-f", "framecrc", "-"]);
    let text = String::from_utf8(ffmpeg.output().unwrap().stdout).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split(',').nth(1).unwrap().trim().parse().unwrap()).collect()
}
