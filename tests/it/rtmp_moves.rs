//! Servers that ask to be called anew, that are not there, and pushes that end.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

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
    /// Video that came, and whether it is a key frame.
    pictures: Vec<bool>,
    end: Option<End>,
}

impl Host {
    /// The next caller, who has said what he wants.
    fn of(listener: &TcpListener) -> Self {
        Self::on(listener.accept().unwrap().0)
    }

    fn on(stream: TcpStream) -> Self {
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
        let core = Server::new(Time::ZERO, Config::default(), 1);
        let mut host = Self { stream, core, pictures: Vec::new(), end: None };
        wait_until("what he wants", || host.step());
        host
    }

    fn letting_in(listener: &TcpListener) -> Self {
        Self::of(listener).let_in()
    }

    /// If somebody calls.
    fn try_letting_in(listener: &TcpListener) -> Option<Self> {
        Some(Self::on(listener.accept().ok()?.0).let_in())
    }

    fn let_in(mut self) -> Self {
        self.core.accept();
        self.flush();
        self
    }

    /// True if he asked for something.
    fn step(&mut self) -> bool {
        let mut buffer = [0; 16 << 10];
        match self.stream.read(&mut buffer) {
            Ok(0) => self.end = self.end.take().or(Some(End::Closed)),
            Ok(len) => self.core.handle_bytes(Time::ZERO, buffer[..len].into()),
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

    /// All at once, so that it comes together.
    fn flush(&mut self) {
        let mut bytes = Vec::new();
        while let Some(piece) = self.core.poll_transmit() {
            bytes.extend_from_slice(&piece.header);
            bytes.extend_from_slice(&piece.payload);
        }
        self.stream.write_all(&bytes).unwrap();
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
        if ms == 0 {
            self.send(kind::AUDIO, ms, &[0xaf, 0, 0x12, 0x10]);
        }
        self.send(kind::AUDIO, ms, &[0xaf, 1, 0x21, 0x10, 4, 0x60, 0x8c, 0x1c]);
    }

    /// Sends the header of pictures.
    fn send_header(&mut self) {
        let record = [1, 0x64, 0, 31, 0xff, 0xe1, 0, 4, 0x67, 0x64, 0, 31, 1, 0, 4, 0x68, 0xee, 0x3c, 0x80];
        self.send(kind::VIDEO, 0, &[&[0x17, 0, 0, 0, 0], &record[..]].concat());
    }

    /// Sends a slice of a picture, nothing that could be decoded.
    fn send_picture(&mut self, ms: u32, is_key: bool) {
        let [frame, slice] = if is_key { [0x17, 0x65] } else { [0x27, 0x41] };
        self.send(kind::VIDEO, ms, &[frame, 1, 0, 0, 0, 0, 0, 0, 4, slice, 0x88, 0x84, 0x21]);
    }

    fn send(&mut self, kind: u8, timestamp_ms: u32, payload: &[u8]) {
        let message = Message { kind, timestamp_ms, payload: payload.to_vec().into(), ..Message::default() };
        self.core.send(&message).unwrap();
        self.flush();
    }
}

/// A pull whose server sent a picture, and then asked for another connection.
struct Move {
    rig: Rig,
    sink: Sink,
    old: Host,
    first: TcpListener,
    second: TcpListener,
}

impl Move {
    fn of_a_pull() -> Self {
        let (rig, sink, [(first, address), (second, elsewhere)]) =
            (Rig::new(), Sink::new(V4), [(); 2].map(|()| listener()));
        rig.apply("in", flow([format!("rtmp://{address}/live/cam1")], [sink.url()]));
        let mut old = Host::letting_in(&first);
        old.send_header();
        old.send_picture(0, true);
        old.ask_to_move(Some(elsewhere));
        Self { rig, sink, old, first, second }
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
fn a_pull_is_moved_with_the_first_key_frame_from_elsewhere() {
    let Move { rig, sink: _sink, mut old, first: _first, second } = Move::of_a_pull();
    let mut new = Host::letting_in(&second);
    new.send_header();
    for n in 0..50 {
        old.send_picture(40 * (n + 1), false);
        new.send_sound(40 * n);
        new.send_picture(40 * n, false);
        let_pass(Duration::from_millis(5));
    }
    old.step();
    assert_eq!(old.end, None, "nobody could see what comes from there");
    new.send_picture(2_000, true);
    old.wait("the end", |host| host.end.is_some());
    rig.wait_event("in", "the move", has_moved);
    let carried = || {
        let details = rig.source("in", "s1").details;
        details.into_iter().find(|detail| detail.0 == "unitsCarried").map_or(0.0, |detail| detail.1)
    };
    let before = carried();
    new.send_picture(2_040, false);
    new.send_sound(2_040);
    wait_until("both of them", || carried() >= before + 2.0);
    assert_eq!(rig.source("in", "s1").drops.unexpected, 0, "their headers came before");
}

/// The old connection ends before there was a key frame: what the new one said so far holds.
#[test]
fn a_pull_whose_server_does_not_wait_for_a_key_frame_goes_on_elsewhere() {
    let Move { rig, sink, old, first: _first, second } = Move::of_a_pull();
    let mut new = Host::letting_in(&second);
    new.send_header();
    new.send_sound(0);
    for n in 1..20 {
        new.send_picture(40 * n, false);
        let_pass(Duration::from_millis(5));
    }
    drop(old);
    rig.wait_event("in", "the move", has_moved);
    wait_until("pictures", || {
        new.send_picture(2_000, true);
        sink.count() > 50
    });
    assert_eq!(rig.source("in", "s1").drops.unexpected, 0);
}

/// Its pictures have gone on in the place of the old one's, which has no headers there any more.
#[test]
fn a_pull_whose_new_server_ends_with_its_first_picture_begins_anew() {
    let Move { rig, sink, mut old, first, second } = Move::of_a_pull();
    let new = Host::of(&second);
    // All of it, and the end, comes at once.
    SockRef::from(&new.stream).set_tcp_cork(true).unwrap();
    let mut new = new.let_in();
    new.send_header();
    new.send_picture(0, true);
    new.stream.shutdown(Shutdown::Write).unwrap();
    wait_until("the end", || {
        old.send_picture(40, false);
        old.step();
        old.end.is_some()
    });
    let mut again = Host::letting_in(&first);
    again.send_header();
    wait_until("pictures", || {
        again.send_picture(0, true);
        sink.count() > 50
    });
    assert_eq!(rig.source("in", "s1").drops.unexpected, 0);
}

#[test]
fn a_server_that_sends_us_on_before_it_takes_anything_is_passed_over() {
    let (rig, [(first, address), (second, elsewhere), (third, beyond)]) = (Rig::new(), [(); 3].map(|()| listener()));
    rig.apply("out", flow(["test:picture?rate=2M".to_owned()], [format!("rtmp://{address}/live/cam1")]));
    let mut old = Host::letting_in(&first);
    old.wait("pictures", |host| !host.pictures.is_empty());
    old.ask_to_move(Some(elsewhere));
    let mut between = Host::of(&second);
    between.core.accept();
    between.ask_to_move(Some(beyond));
    let mut new = Host::letting_in(&third);
    new.wait("pictures", |host| !host.pictures.is_empty());
    old.wait("the end", |host| host.end.is_some());
    between.wait("its end", |host| host.end.is_some());
    assert!(new.pictures[0] && between.pictures.is_empty());
}

/// Each of them agrees, sends us on, and is gone.
#[test]
fn a_push_that_is_sent_on_for_ever_is_called_less_and_less_and_in_error() {
    let (rig, (listener, address)) = (Rig::new(), listener());
    rig.apply("out", flow(["test:picture?rate=2M".to_owned()], [format!("rtmp://{address}/live/cam1")]));
    listener.set_nonblocking(true).unwrap();
    let is_error = |kind: &EventKind| matches!(kind, EventKind::OutputError { .. });
    wait_until("the error", || {
        if let Some(mut host) = Host::try_letting_in(&listener) {
            host.ask_to_move(Some(address));
        }
        rig.events("out").iter().any(is_error)
    });
}

/// What went to the old server while the new one waited for a key frame was not lost.
#[test]
fn pictures_that_an_old_server_took_to_its_end_count_as_sent() {
    let (rig, [(first, address), (second, elsewhere)]) = (Rig::new(), [(); 2].map(|()| listener()));
    rig.apply("out", flow(["test:picture?rate=2M".to_owned()], [format!("rtmp://{address}/live/cam1")]));
    let mut old = Host::letting_in(&first);
    old.wait("two key frames", |host| host.pictures.iter().filter(|is_key| **is_key).count() > 1);
    let gop = old.pictures.iter().skip(1).position(|is_key| *is_key).unwrap() + 1;
    let dropped = rig.output("out", "o1").drops.other;
    old.ask_to_move(Some(elsewhere));
    let mut new = Host::letting_in(&second);
    old.wait("most of a group", |host| host.end.is_some() || host.pictures.len() % gop > gop / 2);
    let taken = (old.pictures.len() % gop) as u64;
    drop(old);
    new.wait("pictures", |host| !host.pictures.is_empty());
    let missing = rig.output("out", "o1").drops.other - dropped;
    assert!(taken + missing <= gop as u64, "{taken} {missing} {gop}");
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
