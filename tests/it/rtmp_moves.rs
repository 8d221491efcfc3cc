//! Servers that ask to be called anew, that are not there, and pushes that end.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anabranch::bus::{Meta, Pool, PoolLimits};
use anabranch::engine::{EventKind, OutputStatus};
use anabranch::proto::StreamCore;
use anabranch::proto::rtmp::{Config, End, Message, Refusal, Server, ServerMessage, kind};
use anabranch::units::Time;
use socket2::SockRef;

use crate::rtmp::{is_connected, is_refused, port};
use crate::support::{Rig, Sink, V4, flow, let_pass, wait_until};

/// A server of the test's, with one caller.
struct Host {
    stream: TcpStream,
    core: Server,
    pool: Pool,
    /// Video that came, and whether it is a key frame.
    pictures: Vec<bool>,
    end: Option<End>,
}

impl Host {
    /// The next caller, who has said what he wants.
    fn of(listener: &TcpListener) -> Self {
        let stream = listener.accept().unwrap().0;
        stream.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
        let core = Server::new(Time::ZERO, Config::default(), 1);
        let pool = Pool::new(PoolLimits::default());
        let mut host = Self { stream, core, pool, pictures: Vec::new(), end: None };
        wait_until("what he wants", || host.step());
        host
    }

    fn letting_in(listener: &TcpListener) -> Self {
        let mut host = Self::of(listener);
        host.core.accept();
        host.flush();
        host
    }

    /// True if he asked for something.
    fn step(&mut self) -> bool {
        let mut buffer = [0; 16 << 10];
        match self.stream.read(&mut buffer) {
            Ok(0) => self.end = self.end.take().or(Some(End::Closed)),
            Ok(len) => self.core.handle_bytes(Time::ZERO, self.pool.copy(&buffer[..len], Meta::default()).unwrap()),
            Err(error) => assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}"),
        }
        let mut has_asked = false;
        while let Some(said) = self.core.poll_message() {
            match said {
                ServerMessage::Publish(_) | ServerMessage::Play(_) => has_asked = true,
                // Each begins with its kind, then its codec; the one after that says that it is no header (FLV E.4.3).
                ServerMessage::Media(message) if message.kind == kind::VIDEO && message.payload.get(1) == Some(&1) => {
                    self.pictures.push(message.payload[0] >> 4 == 1);
                }
                ServerMessage::Media(_) => {}
                ServerMessage::Ended(end) => self.end = Some(end),
            }
        }
        self.flush();
        has_asked
    }

    fn flush(&mut self) {
        while let Some(piece) = self.core.poll_transmit() {
            self.stream.write_all(&piece.header).unwrap();
            self.stream.write_all(&piece.payload).unwrap();
        }
    }

    fn wait(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        wait_until(what, || {
            self.step();
            is_so(self)
        });
    }

    fn ask_to_move(&mut self, to: Option<SocketAddr>) {
        let url = to.map(|address| format!("rtmp://{address}/other"));
        assert!(self.core.request_reconnect(url.as_deref()));
        self.flush();
    }

    /// Sends a frame of AAC, and its header before the first.
    fn send_sound(&mut self, ms: u32) {
        let header = (ms == 0).then(|| vec![0xaf, 0, 0x12, 0x10]);
        for payload in header.into_iter().chain([vec![0xaf, 1, 0x21, 0x10, 4, 0x60, 0x8c, 0x1c]]) {
            let message =
                Message { kind: kind::AUDIO, timestamp_ms: ms, payload: payload.into(), ..Message::default() };
            self.core.send(&message).unwrap();
        }
        self.flush();
    }
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((V4, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn has_moved(kind: &EventKind) -> bool {
    matches!(kind, EventKind::PeerDisconnected { why, .. } if why.reason.contains("asked for another"))
}

#[test]
fn a_push_is_moved_at_a_key_frame_and_no_picture_is_missing() {
    let (rig, [(first, address), (second, elsewhere)]) = (Rig::new(), [(); 2].map(|()| listener()));
    rig.apply("out", flow(["test:picture?rate=2M".to_owned()], [format!("rtmp://{address}/live/cam1")]));
    let mut old = Host::letting_in(&first);
    old.wait("two key frames", |host| host.pictures.iter().filter(|is_key| **is_key).count() > 1);
    let gop = old.pictures.iter().skip(1).position(|is_key| *is_key).unwrap() + 1;
    let dropped = rig.output("out", "o1").drops.other;
    old.ask_to_move(Some(elsewhere));
    let mut new = Host::letting_in(&second);
    new.wait("pictures", |host| host.pictures.len() > 10);
    old.wait("the end", |host| host.end.is_some());
    assert_eq!(old.end, Some(End::Left));
    assert_eq!((old.pictures.len() % gop, new.pictures[0]), (0, true), "{:?}", old.pictures);
    rig.wait_event("out", "the move", has_moved);
    let output = rig.output("out", "o1");
    assert_eq!((output.disconnections, output.drops.other), (0, dropped));
}

#[test]
fn a_server_that_takes_a_stream_once_gets_it_after_the_old_connection() {
    let (rig, (listener, address)) = (Rig::new(), listener());
    rig.apply("out", flow(["test:picture?rate=2M".to_owned()], [format!("rtmp://{address}/live/cam1")]));
    let mut old = Host::letting_in(&listener);
    old.wait("pictures", |host| !host.pictures.is_empty());
    old.ask_to_move(None);
    let mut refused = Host::of(&listener);
    refused.core.refuse(Refusal::InUse);
    refused.flush();
    old.wait("the end", |host| host.end.is_some());
    let mut new = Host::letting_in(&listener);
    new.wait("pictures", |host| !host.pictures.is_empty());
    rig.wait_event("out", "the move", has_moved);
    assert!(!rig.events("out").iter().any(|kind| is_refused(kind, "")));
}

#[test]
fn a_pull_is_moved_with_the_first_sound_from_elsewhere() {
    let (rig, sink, [(first, address), (second, elsewhere)]) =
        (Rig::new(), Sink::new(V4), [(); 2].map(|()| listener()));
    rig.apply("in", flow([format!("rtmp://{address}/live/cam1")], [sink.url()]));
    let mut old = Host::letting_in(&first);
    let play = |host: &mut Host, from: u32| {
        for n in from..from + 50 {
            host.send_sound(n * 20);
            let_pass(Duration::from_millis(5));
        }
    };
    play(&mut old, 0);
    old.ask_to_move(Some(elsewhere));
    let mut new = Host::letting_in(&second);
    // As long as nothing comes from there, it is of use here.
    play(&mut old, 50);
    old.step();
    assert_eq!(old.end, None);
    play(&mut new, 0);
    old.wait("the end", |host| host.end.is_some());
    rig.wait_event("in", "the move", has_moved);
    let before = sink.count();
    play(&mut new, 50);
    sink.wait(before + 1);
    assert_eq!(rig.events("in").iter().filter(|kind| is_connected(kind)).count(), 2);
}

#[test]
fn what_was_handed_to_a_slow_server_arrives_when_its_push_is_stopped() {
    let rig = Rig::new();
    let (listener, address) = listener();
    SockRef::from(&listener).set_recv_buffer_size(16 << 10).unwrap();
    rig.apply("out", flow(["test:picture?rate=20M".to_owned()], [format!("rtmp://{address}/live/cam1")]));
    let mut host = Host::letting_in(&listener);
    wait_until("a crowd", || {
        let details = rig.output("out", "o1").details;
        details.iter().any(|detail| detail.0 == "unitsSent" && detail.1 > 100.0)
    });
    // Unread, that would reset the connection, and what is under way be lost.
    host.stream.write_all(&[2, 0, 0, 0, 0, 0, 4, 3, 0, 0, 0, 0, 0, 0, 0, 1]).unwrap();
    rig.stop("out");
    let (mut tail, mut buffer) = (Vec::new(), vec![0; 1 << 20]);
    host.stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    loop {
        let len = host.stream.read(&mut buffer).unwrap();
        if len == 0 {
            break;
        }
        tail.extend_from_slice(&buffer[..len]);
        tail.drain(..tail.len().saturating_sub(1_000));
    }
    let has = |word: &[u8]| tail.windows(word.len()).any(|window| window == word);
    assert!(has(b"FCUnpublish") && has(b"deleteStream"));
}

#[test]
fn a_push_that_is_refused_for_long_is_in_error_and_recovers() {
    let (rig, sink, port) = (Rig::new(), Sink::new(V4), port());
    rig.apply("out", flow(["test:picture?rate=2M".to_owned()], [format!("rtmp://127.0.0.1:{port}/live/cam1")]));
    let is_error =
        |kind: &EventKind| matches!(kind, EventKind::OutputError { error, .. } if error.contains("nobody listens"));
    rig.wait_event("out", "the error", is_error);
    assert_eq!(rig.output("out", "o1").status, OutputStatus::Error);
    rig.apply("in", flow([format!("rtmp://@127.0.0.1:{port}/live/cam1")], [sink.url()]));
    rig.wait_event("out", "the end of it", |kind| matches!(kind, EventKind::OutputRecovered { .. }));
    let output = rig.output("out", "o1");
    assert_eq!((output.status, output.disconnections), (OutputStatus::Connected, 0));
    let refusals = rig.events("out").iter().filter(|kind| is_refused(kind, "")).count();
    assert_eq!(refusals, 1, "told once");
}
