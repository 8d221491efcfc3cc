//! What must hold for any peer and any path whatever; shared by the unit tests and the fuzz targets.

use std::collections::VecDeque;
use std::time::Duration;

use super::chunk::{Message, kind};
use super::handshake::PART_BYTES;
use super::{Client, ClientMessage, Config, End, Refusal, Role, Server, ServerMessage, Target};
use crate::proto::{Payload, StreamCore};
use crate::units::Time;

/// Whatever a peer says after the handshake, a server and a client end at most once, say nothing after that, and queue no
/// more than they may. The first byte says who hears it.
pub fn check_any_peer(bytes: &[u8]) {
    let Some((first, bytes)) = bytes.split_first() else {
        return;
    };
    let config = Config { send_bytes_max: 4_096, ..Config::default() };
    let handshake = [vec![3], vec![0; 2 * PART_BYTES]].concat();
    let bytes = [&handshake[..], bytes].concat();
    match first % 3 {
        0 => hear(Server::new(Time::ZERO, config, 1), &bytes, |server, said| match said {
            ServerMessage::Publish(_) => server.accept(),
            ServerMessage::Play(_) => server.refuse(Refusal::NotFound),
            ServerMessage::Media(_) | ServerMessage::Ended(_) => {}
        }),
        way => {
            let role = if way == 1 { Role::Publisher } else { Role::Player };
            hear(Client::new(Time::ZERO, config, role, target(), 1), &bytes, |_, _| {});
        }
    }
}

fn hear<C: StreamCore<Message: std::fmt::Debug>>(
    mut core: C,
    bytes: &[u8],
    mut answer: impl FnMut(&mut C, C::Message),
) {
    let (mut now, mut sent, mut said) = (Time::ZERO, 0, 0);
    for part in bytes.chunks(1_000) {
        now += Duration::from_millis(1);
        if core.is_taking() {
            core.handle_bytes(now, part.into());
        }
        while let Some(message) = core.poll_message() {
            answer(&mut core, message);
            said += 1;
        }
        core.handle_timeout(now);
        while let Some(piece) = core.poll_transmit() {
            sent += piece.len();
        }
    }
    assert!(said <= bytes.len());
    // Each byte that comes causes a bounded answer.
    assert!(sent <= 4 * PART_BYTES + 4_096 * (1 + bytes.len() / 4), "{sent}");
    core.handle_close(now);
    let last = core.poll_message();
    assert!(core.is_over() && core.poll_message().is_none() && core.poll_timeout().is_none(), "{last:?}");
    core.handle_timeout(now + Duration::from_secs(100));
    assert!(core.poll_message().is_none());
}

/// A client and a server over a connection that cuts as `script` says. Without damage everything comes, in order.
/// The first byte says who sends; with its high bit set, bytes are damaged on the way, and nothing is expected but an end
/// without panic.
pub fn check_any_path(script: &[u8]) {
    let Some((first, script)) = script.split_first() else {
        return;
    };
    let role = if first % 2 == 0 { Role::Publisher } else { Role::Player };
    let mut pair = Pair::new(role, Config { chunk_bytes: 50 + u32::from(first / 2 % 64) * 20, ..Config::default() });
    for op in script.iter().copied().take(OPERATIONS_MAX) {
        match op % 4 {
            0 => pair.send(usize::from(op) * 64),
            1 => _ = pair.carry(usize::from(op), (*first >= 0x80).then_some(op)),
            _ => _ = pair.carry(usize::from(op) * 8, None),
        }
    }
    if *first < 0x80 {
        pair.settle();
        assert_eq!((&pair.ends, pair.came == pair.sent), (&Vec::new(), true));
    }
}

/// A client and a server, and the bytes between them.
pub(super) struct Pair {
    pub(super) now: Time,
    role: Role,
    pub(super) client: Client,
    pub(super) server: Server,
    up: VecDeque<u8>,
    down: VecDeque<u8>,
    /// What the server says to whoever asks.
    pub(super) verdict: Option<Refusal>,
    sent: Vec<Message>,
    pub(super) came: Vec<Message>,
    pub(super) requests: Vec<super::Request>,
    pub(super) ends: Vec<End>,
    pub(super) reconnects: Vec<Option<String>>,
    pub(super) is_ready: bool,
}

impl Pair {
    pub(super) fn new(role: Role, config: Config) -> Self {
        Self {
            now: Time::ZERO,
            role,
            client: Client::new(Time::ZERO, config, role, target(), 1),
            server: Server::new(Time::ZERO, config, 2),
            up: VecDeque::new(),
            down: VecDeque::new(),
            verdict: None,
            sent: Vec::new(),
            came: Vec::new(),
            requests: Vec::new(),
            ends: Vec::new(),
            reconnects: Vec::new(),
            is_ready: false,
        }
    }

    /// Media of `len` bytes, from whichever side sends.
    pub(super) fn send(&mut self, len: usize) {
        let kind = [kind::VIDEO, kind::AUDIO, kind::DATA][len % 3];
        let payload = Payload::from((0..len).map(|n| n as u8).collect::<Vec<_>>());
        let message = Message { kind, stream: 0, timestamp_ms: 20 * self.sent.len() as u32, payload };
        let sent = match self.role {
            Role::Publisher => self.client.send(&message),
            Role::Player => self.server.send(&message),
        };
        if sent.is_ok() {
            self.sent.push(Message { stream: 1, ..message });
        }
    }

    /// Until nothing moves any more.
    pub(super) fn settle(&mut self) {
        while self.carry(2_000, None) {}
    }

    /// At most `len` bytes each way, one of them damaged if asked for. Whether there were any.
    pub(super) fn carry(&mut self, len: usize, damage: Option<u8>) -> bool {
        self.now += Duration::from_micros(10);
        let up = pass(&mut self.client, &mut self.up, &mut self.server, self.now, len, damage);
        while let Some(said) = self.server.poll_message() {
            match said {
                ServerMessage::Publish(request) | ServerMessage::Play(request) => {
                    self.requests.push(request);
                    match self.verdict {
                        Some(why) => self.server.refuse(why),
                        None => self.server.accept(),
                    }
                }
                ServerMessage::Media(message) => self.came.push(message),
                ServerMessage::Ended(end) => self.ends.push(end),
            }
        }
        let down = pass(&mut self.server, &mut self.down, &mut self.client, self.now, len, damage);
        while let Some(said) = self.client.poll_message() {
            match said {
                ClientMessage::Ready => self.is_ready = true,
                ClientMessage::Media(message) => {
                    // That samples may be read is not ours.
                    if !message.payload.starts_with(b"\x02\x00\x11|RtmpSampleAccess") {
                        self.came.push(message);
                    }
                }
                ClientMessage::Reconnect { tc_url } => self.reconnects.push(tc_url),
                ClientMessage::Ended(end) => self.ends.push(end),
            }
        }
        up || down
    }
}

fn pass<A: StreamCore, B: StreamCore>(
    from: &mut A,
    wire: &mut VecDeque<u8>,
    to: &mut B,
    now: Time,
    len: usize,
    damage: Option<u8>,
) -> bool {
    while let Some(piece) = from.poll_transmit() {
        wire.extend(&piece.header);
        wire.extend(&*piece.payload);
    }
    if !to.is_taking() && !to.is_over() {
        return false;
    }
    let mut part: Vec<u8> = wire.drain(..len.min(wire.len())).collect();
    if let (Some(damage), Some(byte)) = (damage, part.last_mut()) {
        *byte ^= damage | 1;
    }
    let has_passed = !part.is_empty();
    to.handle_bytes(now, part.into());
    has_passed
}

fn target() -> Target {
    Target { tc_url: "rtmp://there/live".into(), app: "live".into(), key: "key?token=t".into() }
}

/// Of a script: more only take time.
const OPERATIONS_MAX: usize = 256;
