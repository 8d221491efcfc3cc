//! Sessions of libsrt played again: all that was said through our readers and writers, and what one side said to ours in
//! the place of the other.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use super::agree::{self, Latencies, Parties, Wishes};
use super::capture::{self, Side};
use super::connection::Connection;
use super::crypto::{CipherMode, Crypto, Derivation, KeyLength, KeyMaterial, KeyResponse};
use super::entropy::Entropy;
use super::error::Ended;
use super::handshake::{Capabilities, Extension, Handshake, SRT_VERSION, Stage};
use super::packet::{AckBody, ControlHeader, ControlKind, DataHeader, HEADER_BYTES, Header, KeyFlag, LossRanges};
use super::{Caller, Config, Listener, Service};
use crate::bus::{Meta, Packet, Pool, PoolLimits};
use crate::proto::{Core, Datagram, Event, Port, Transmit};
use crate::units::{Seq, Time};

const CONNECTED: [&str; 5] =
    ["plain-streamid-155", "loss5-reorder-155", "aes128ctr-151", "aes256gcm-155", "kmrefresh200-155"];
const REFUSED: [(&str, u32); 2] = [("reject-badsecret-155", 1_010), ("reject-unsecure-155", 1_011)];
const CALLER: ([u8; 4], u16) = ([127, 0, 0, 1], 40_000);
const LISTENER: ([u8; 4], u16) = ([127, 0, 0, 1], 24_001);
/// What the recorded programs put after the counter and the time in each packet, and how long each was.
const FILLER: u8 = 0x47;
const PAYLOAD: usize = 1_316;
/// Their clocks had run for a while when the recording began.
const HEAD_START: Duration = Duration::from_secs(60);

#[test]
fn every_datagram_is_read_and_written_back_as_it_was() {
    let mut kinds = BTreeMap::new();
    for name in CONNECTED.into_iter().chain(REFUSED.map(|session| session.0)) {
        for recorded in capture::read(name) {
            let (header, body) = split(&recorded.bytes);
            let (kind, again) = match header {
                Header::Data(header) => ("Data".into(), [&header.bytes(), body].concat()),
                Header::Control(header) => {
                    (format!("{:?}", header.kind), [&header.bytes()[..], &body_again(header.kind, body)].concat())
                }
            };
            assert!(again == recorded.bytes, "{name}: {header:?}, {:x?} became {again:x?}", recorded.bytes);
            *kinds.entry(kind).or_insert(0) += 1;
        }
    }
    let all = [
        ("Ack", 835),
        ("AckAck", 807),
        ("Data", 1_681),
        ("Handshake", 28),
        ("KeepAlive", 8),
        ("KeyRequest", 1),
        ("KeyResponse", 1),
        ("Nak", 101),
        ("Shutdown", 4),
    ];
    assert_eq!(kinds, all.map(|(kind, count)| (kind.to_string(), count)).into());
}

/// Of kinds without a body libsrt sends four bytes.
fn body_again(kind: ControlKind, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match kind {
        ControlKind::Handshake => {
            let (handshake, extensions) = Handshake::parse(body).unwrap();
            handshake.write(&mut out);
            extensions.for_each(|extension| extension.unwrap().write(&mut out));
        }
        ControlKind::Ack => AckBody::parse(body).unwrap().write(&mut out),
        ControlKind::Nak => LossRanges::parse(body).for_each(|range| LossRanges::write(&range.unwrap(), &mut out)),
        ControlKind::KeyRequest => out.extend(KeyMaterial::parse(body).unwrap().message()),
        ControlKind::KeyResponse => match KeyResponse::parse(body).unwrap() {
            KeyResponse::Echo(echo) => out.extend(echo),
            KeyResponse::Refused(state) => out.extend(state.message()),
        },
        ControlKind::KeepAlive | ControlKind::AckAck | ControlKind::Shutdown => out.extend([0; 4]),
        ControlKind::CongestionWarning
        | ControlKind::DropRequest
        | ControlKind::PeerError
        | ControlKind::Unknown { .. } => panic!("{kind:?} was not recorded"),
    }
    out
}

#[test]
fn our_listener_answers_libsrts_caller_as_libsrts_listener_did() {
    for name in CONNECTED.into_iter().chain(REFUSED.map(|session| session.0)) {
        let session = Session::read(name);
        let pool = Pool::new(PoolLimits::default());
        let mut listener = Listener::new(session.listeners_config(), Service::Receive, pool.clone(), [7; 32]);
        let mut cookie = None;
        for (asked, answered) in session.exchanges() {
            let mut bytes = asked.bytes.clone();
            if let Some(cookie) = cookie {
                bytes[HEADER_BYTES + 28..HEADER_BYTES + 32].copy_from_slice(&u32::to_be_bytes(cookie));
            }
            listener.handle_datagram(asked.at, datagram(&pool, asked.at, CALLER.into(), &bytes));
            while let Some(work) = listener.poll_work() {
                listener.handle_done(asked.at, work.run());
            }
            let answer = bytes_of(&listener.poll_transmit().unwrap());
            assert!(listener.poll_transmit().is_none());
            let ((ours_header, ours), (theirs_header, theirs)) = (split(&answer), split(&answered.bytes));
            assert_eq!(ours_header.destination(), theirs_header.destination(), "{name}");
            let (ours, our_extensions) = Handshake::parse(ours).unwrap();
            let (theirs, their_extensions) = Handshake::parse(theirs).unwrap();
            cookie = Some(ours.cookie);
            // Drawn by chance; and libsrt 1.5.1 does not say the length of the keys again.
            let drawn = Handshake { cookie: theirs.cookie, socket_id: theirs.socket_id, ..ours.clone() };
            let encryption = if session.is_1_5_1() { 0 } else { ours.encryption };
            assert_eq!(Handshake { encryption, ..drawn }, theirs, "{name}");
            let theirs: Vec<_> = their_extensions.map(|extension| of_our_version(extension.unwrap())).collect();
            assert_eq!(our_extensions.collect::<Result<Vec<_>, _>>().unwrap(), theirs, "{name}");
        }
        let code = REFUSED.iter().find(|refused| refused.0 == name).map(|refused| refused.1);
        assert_eq!(refusal(listener.poll_event()), code.map(|code| ("refused", code)), "{name}");
    }
}

#[test]
fn our_caller_asks_as_libsrts_did_and_understands_the_answers() {
    let plain = ["plain-streamid-155", "loss5-reorder-155"].map(|name| (name, None));
    for (name, code) in plain.into_iter().chain(REFUSED.map(|(name, code)| (name, Some(code)))) {
        let session = Session::read(name);
        let pool = Pool::new(PoolLimits::default());
        let initial = session.asked.handshake.initial;
        let mut caller =
            Caller::new(session.callers_config(), LISTENER.into(), pool.clone(), [7; 32]).starting_at(initial);
        caller.handle_timeout(Time::ZERO + HEAD_START);
        for (asked, answered) in session.exchanges() {
            let question = bytes_of(&caller.poll_transmit().unwrap());
            let ours = Handshake::parse(split(&question).1).unwrap().0;
            if code.is_none() {
                let theirs = Handshake::parse(split(&asked.bytes).1).unwrap().0;
                let mut question = question.clone();
                question[HEADER_BYTES + 24..HEADER_BYTES + 28].copy_from_slice(&theirs.socket_id.to_be_bytes());
                assert!(question[HEADER_BYTES..] == asked.bytes[HEADER_BYTES..], "{name}: {question:x?}");
            }
            let mut bytes = answered.bytes.clone();
            bytes[12..16].copy_from_slice(&ours.socket_id.to_be_bytes());
            caller.handle_datagram(answered.at, datagram(&pool, answered.at, LISTENER.into(), &bytes));
        }
        assert_eq!(refusal(caller.poll_event()), code.map(|code| ("the peer refused", code)), "{name}");
    }
}

#[test]
fn what_libsrts_sender_sent_is_released_in_order_and_on_time() {
    for (name, count) in CONNECTED.into_iter().zip([284, 759, 284, 60, 284]) {
        let session = Session::read(name);
        let played = session.play_to_receiver();
        let due: BTreeMap<u32, Time> =
            session.data().map(|(_, header, _)| (header.sequence.value(), session.due(header.timestamp))).collect();
        assert_eq!(played.released.len(), count, "{name}");
        for (n, (at, packet)) in played.released.iter().enumerate() {
            let sequence = session.asked.handshake.initial.add(n as u32);
            assert_eq!(packet[..8], (n as u64).to_be_bytes(), "{name}");
            assert!(packet[16..].iter().all(|byte| *byte == FILLER), "{name} {n}");
            assert_eq!(packet.meta.sequence.map(|extended| Seq::new(extended as u32)), Some(sequence), "{name}");
            assert_eq!(packet.meta.arrival, due[&sequence.value()], "{name} {n}");
            assert!(*at >= packet.meta.arrival && at.since(packet.meta.arrival) <= TOGETHER, "{name} {n} at {at:?}");
        }
        let stats = played.connection.receiver_stats();
        assert_eq!((stats.dropped.packets, stats.beyond.packets, stats.undecrypted.packets), (0, 0, 0), "{name}");
        assert_eq!((played.connection.counts.malformed, played.connection.counts.unexpected), (0, 0), "{name}");
        assert_eq!((stats.drift_us, played.connection.round_trip().0), (0, session.round_trip()), "{name}");
        // What libsrt had acknowledged in the end is acknowledged.
        assert_eq!(acknowledged(&played.sent), session.asked.handshake.initial.add(count as u32), "{name}");
        if session.is_whole() {
            let theirs = session.datagrams(Side::Listener).map(|recorded| recorded.bytes.clone()).collect::<Vec<_>>();
            assert_eq!(acknowledged(&played.sent), acknowledged(&theirs), "{name}");
            assert_eq!(played.connection.ended(), Some(Ended::ByPeer), "{name}");
        }
    }
}

#[test]
fn losses_are_reported_that_libsrts_receiver_reported() {
    for name in CONNECTED {
        let session = Session::read(name);
        let played = session.play_to_receiver();
        let theirs: Vec<_> = session.datagrams(Side::Listener).map(|recorded| recorded.bytes.clone()).collect();
        let (ours, theirs) = (reported(&played.sent), reported(&theirs));
        assert_eq!(ours, theirs, "{name}");
        let again: BTreeSet<_> = session
            .data()
            .filter(|(_, header, _)| header.retransmitted)
            .map(|(_, header, _)| header.sequence.value())
            .collect();
        assert_eq!(ours, again, "{name}: what was asked for came");
        let stats = played.connection.receiver_stats();
        let expected = if name == "loss5-reorder-155" { (48, 53, 43, 5) } else { (0, 0, 0, 0) };
        let counted = [stats.lost, stats.retransmitted, stats.recovered, stats.reordered].map(|count| count.packets);
        assert_eq!(counted, <[u64; 4]>::from(expected), "{name}");
    }
}

#[test]
fn new_keys_are_taken_and_answered_as_by_libsrts_receiver() {
    let session = Session::read("kmrefresh200-155");
    let played = session.play_to_receiver();
    let theirs: Vec<_> = session.datagrams(Side::Listener).map(|recorded| recorded.bytes.clone()).collect();
    let answer = |sent| bodies(sent, ControlKind::KeyResponse).next().unwrap().to_vec();
    assert_eq!(answer(&played.sent), answer(&theirs));
    let keys: BTreeSet<_> = session.data().map(|(_, header, _)| header.key.bits()).collect();
    assert_eq!(keys, BTreeSet::from([KeyFlag::Even.bits(), KeyFlag::Odd.bits()]));
}

#[test]
fn our_sender_makes_the_datagrams_of_libsrts_and_sends_again_what_libsrts_receiver_asks_for() {
    for name in CONNECTED {
        let session = Session::read(name);
        let played = session.play_to_sender();
        let ours: BTreeSet<&Vec<u8>> = played.sent.iter().collect();
        let (mut compared, mut again) = (0, BTreeSet::new());
        for (_, header, bytes) in session.data() {
            // The second key was drawn by chance.
            if header.key == KeyFlag::Odd {
                continue;
            }
            // In counter mode some are cut.
            let mut same = ours.range(bytes.to_vec()..).next().into_iter();
            assert!(same.any(|ours| ours.starts_with(bytes)), "{name}: {header:?}");
            compared += 1;
            if header.retransmitted {
                again.insert(header.sequence.value());
            }
        }
        assert!(compared >= 60, "{name}: {compared}");
        let ours_again = played.sent.iter().filter_map(|bytes| match split(bytes).0 {
            Header::Data(header) => header.retransmitted.then_some(header.sequence.value()),
            Header::Control(_) => None,
        });
        assert_eq!(ours_again.collect::<BTreeSet<_>>(), again, "{name}");
        // Of libsrt's 53 came, on a way that lost 5 %.
        let count = played.connection.sender_stats().retransmitted.packets;
        assert!(if again.is_empty() { count == 0 } else { (53..=60).contains(&count) }, "{name}: {count}");
    }
}

/// A recorded session, in the time of [`HEAD_START`].
struct Session {
    name: &'static str,
    recorded: Vec<capture::Recorded>,
    asked: Conclusion,
    answered: Conclusion,
}

/// The second handshake of one side.
struct Conclusion {
    at: Time,
    timestamp: u32,
    handshake: Handshake,
    wishes: Wishes,
}

impl Session {
    fn read(name: &'static str) -> Self {
        let mut recorded = capture::read(name);
        recorded.iter_mut().for_each(|recorded| recorded.at += HEAD_START);
        let conclusion = |index: usize| {
            let (Header::Control(header), body) = split(&recorded[index].bytes) else { panic!("no handshake") };
            let (handshake, extensions) = Handshake::parse(body).unwrap();
            let wishes = Wishes::of(extensions).unwrap();
            Conclusion { at: recorded[index].at, timestamp: header.timestamp, handshake, wishes }
        };
        let (asked, answered) = (conclusion(2), conclusion(3));
        assert_eq!(asked.handshake.stage, Stage::Conclusion);
        Self { name, recorded, asked, answered }
    }

    /// Induction and conclusion, each with its answer.
    fn exchanges(&self) -> [(&capture::Recorded, &capture::Recorded); 2] {
        let [a, b, c, d] = self.recorded.first_chunk().unwrap();
        assert_eq!([a, b, c, d].map(|recorded| recorded.from), [Side::Caller, Side::Listener].repeat(2)[..]);
        [(a, b), (c, d)]
    }

    fn is_1_5_1(&self) -> bool {
        self.name.ends_with("151")
    }

    /// Whether it was recorded to its end.
    fn is_whole(&self) -> bool {
        self.name != "aes256gcm-155"
    }

    fn latency(&self) -> Duration {
        self.asked.wishes.request.unwrap().receive_latency
    }

    /// As it was recorded.
    fn round_trip(&self) -> Duration {
        if self.name == "loss5-reorder-155" { Duration::from_millis(40) } else { Duration::from_micros(100) }
    }

    /// As libsrt's listener was configured.
    fn listeners_config(&self) -> Config {
        let (passphrase, key_length) = match self.name {
            "aes128ctr-151" => (Some("thelocalmanager"), None),
            "aes256gcm-155" => (Some("thelocalmanager"), Some(KeyLength::Aes256)),
            "kmrefresh200-155" => (Some("thelocalmanager"), Some(KeyLength::Aes128)),
            "reject-badsecret-155" => (Some("not that of the caller"), None),
            _ => (None, None),
        };
        let is_gcm = self.name == "aes256gcm-155";
        Config {
            receive_latency: self.latency(),
            passphrase: passphrase.map(|passphrase| passphrase.parse().unwrap()),
            key_length,
            cipher: if is_gcm { CipherMode::Gcm } else { CipherMode::Ctr },
            flow_window: self.asked.handshake.flow_window,
            key_refresh_packets: 0,
            ..Config::default()
        }
    }

    /// As libsrt's caller was configured, but for its passphrase.
    fn callers_config(&self) -> Config {
        Config {
            peer_latency: self.latency(),
            stream_id: self.asked.wishes.stream_id.clone(),
            passphrase: None,
            ..self.listeners_config()
        }
    }

    /// A connection of ours in the place of libsrt's, with the ids that it had.
    fn connect(&self, side: Side, epoch: Time) -> Connection {
        let config = self.listeners_config();
        let (theirs, ours, capabilities) = match side {
            Side::Listener => (&self.asked, &self.answered, self.asked.wishes.request.unwrap()),
            Side::Caller => (&self.answered, &self.asked, self.answered.wishes.response.unwrap()),
        };
        let base = (theirs.at, theirs.timestamp);
        let (local_id, initial) = (ours.handshake.socket_id, ours.handshake.initial);
        let parties = Parties { local_id, peer: CALLER.into(), epoch, initial, base };
        let latencies = Latencies { receive: self.latency(), send: self.latency() };
        let settled = agree::settle(&config, parties, &theirs.handshake, &capabilities, latencies);
        let crypto = self.asked.wishes.key_request.as_ref().map(|request| {
            let passphrase = config.passphrase.as_ref().unwrap();
            let kek = Derivation::answer(passphrase, None, request).unwrap().run();
            let mut crypto = Crypto::respond(passphrase, kek, None, config.refresh(), request).unwrap();
            crypto.set_peer_version(capabilities.version);
            crypto
        });
        let pool = Pool::new(PoolLimits::default());
        Connection::new(ours.at, settled, &config, pool, (crypto, Entropy::new([1; 32])))
    }

    /// All that a side said after the handshake.
    fn datagrams(&self, from: Side) -> impl Iterator<Item = &capture::Recorded> {
        self.recorded[4..].iter().filter(move |recorded| recorded.from == from)
    }

    /// The data packets, as they came.
    fn data(&self) -> impl Iterator<Item = (Time, DataHeader, &[u8])> {
        self.datagrams(Side::Caller).filter_map(|recorded| match split(&recorded.bytes).0 {
            Header::Data(header) => Some((recorded.at, header, &recorded.bytes[..])),
            Header::Control(_) => None,
        })
    }

    /// When a packet is due: the latency after it was sent, by the clock that the handshake showed (draft 4.5).
    fn due(&self, timestamp: u32) -> Time {
        let after = timestamp.checked_sub(self.asked.timestamp).unwrap();
        self.asked.at + Duration::from_micros(after.into()) + self.latency()
    }

    /// What libsrt's sender sent, to a receiver of ours.
    fn play_to_receiver(&self) -> Player {
        let mut player = Player::new(self.connect(Side::Listener, self.answered.at));
        player.answering = Some(Answering {
            round_trip: self.round_trip(),
            base: (self.asked.at, self.asked.timestamp),
            local_id: self.answered.handshake.socket_id,
            waiting: VecDeque::new(),
        });
        for recorded in self.datagrams(Side::Caller) {
            if !is_of_kind(&recorded.bytes, ControlKind::AckAck) {
                player.receive(recorded.at, &recorded.bytes);
            }
        }
        player.run(player.now + 2 * self.latency());
        player
    }

    /// What libsrt's sender was given to send to a sender of ours, and what its receiver said to it.
    fn play_to_sender(&self) -> Player {
        // The fastest was on its way for no time.
        let began =
            |recorded: &capture::Recorded| recorded.at - Duration::from_micros(timestamp_of(&recorded.bytes).into());
        let epoch = self.datagrams(Side::Caller).map(began).min().unwrap();
        let mut player = Player::new(self.connect(Side::Caller, epoch));
        let mut given = self.given(epoch).into_iter().peekable();
        let mut said = self.datagrams(Side::Listener).peekable();
        loop {
            match (given.peek(), said.peek()) {
                (Some(next), said) if said.is_none_or(|recorded| next.0 <= recorded.at) => {
                    player.send(next.0, &next.1);
                    given.next();
                }
                (_, Some(recorded)) => {
                    player.receive(recorded.at, &recorded.bytes);
                    said.next();
                }
                _ => return player,
            }
        }
    }

    /// The payloads by when they were sent first; each came at least once.
    fn given(&self, epoch: Time) -> Vec<(Time, Vec<u8>)> {
        let mut crypto = self.asked.wishes.key_request.as_ref().map(|request| {
            let config = self.listeners_config();
            let passphrase = config.passphrase.as_ref().unwrap();
            let kek = Derivation::answer(passphrase, None, request).unwrap().run();
            Crypto::respond(passphrase, kek, None, config.refresh(), request).unwrap()
        });
        let mut given = BTreeMap::new();
        for (_, header, bytes) in self.data().filter(|packet| packet.1.key != KeyFlag::Odd) {
            let mut payload = bytes[HEADER_BYTES..].to_vec();
            let len = crypto.as_mut().map(|crypto| crypto.open(header.key, &header.bytes(), &mut payload).unwrap());
            payload.truncate(len.unwrap_or(payload.len()));
            payload.resize(PAYLOAD, FILLER);
            given.insert(header.message_number, (epoch + Duration::from_micros(header.timestamp.into()), payload));
        }
        given.into_values().collect()
    }
}

/// Runs a connection in recorded time.
struct Player {
    connection: Connection,
    pool: Pool,
    now: Time,
    sent: Vec<Vec<u8>>,
    released: Vec<(Time, Packet)>,
    answering: Option<Answering>,
}

/// Answers acknowledgements, as those that were recorded answer others.
struct Answering {
    round_trip: Duration,
    /// A moment and what the peer's clock showed.
    base: (Time, u32),
    local_id: u32,
    /// When the answer to which number comes.
    waiting: VecDeque<(Time, u32)>,
}

impl Answering {
    fn note(&mut self, now: Time, datagram: &[u8]) {
        if let (Header::Control(header), body) = split(datagram)
            && header.kind == ControlKind::Ack
            && AckBody::parse(body).unwrap().figures.is_some()
        {
            self.waiting.push_back((now + self.round_trip, header.information));
        }
    }

    fn answer(&self, at: Time, number: u32) -> Vec<u8> {
        let timestamp = self.base.1.wrapping_add(at.since(self.base.0).as_micros() as u32);
        let (kind, destination) = (ControlKind::AckAck, self.local_id);
        let header = ControlHeader { kind, information: number, timestamp, destination };
        [&header.bytes()[..], &[0; 4]].concat()
    }
}

impl Player {
    fn new(connection: Connection) -> Self {
        let pool = Pool::new(PoolLimits::default());
        Self { connection, pool, now: Time::ZERO, sent: Vec::new(), released: Vec::new(), answering: None }
    }

    fn receive(&mut self, at: Time, bytes: &[u8]) {
        self.run(at);
        self.handle(at, bytes);
    }

    fn handle(&mut self, at: Time, bytes: &[u8]) {
        let packet = self.pool.copy(bytes, Meta { arrival: at, ..Meta::default() }).unwrap();
        self.connection.handle(at, &split(bytes).0, packet);
        self.drain();
    }

    fn send(&mut self, at: Time, payload: &[u8]) {
        self.run(at);
        let packet = self.pool.copy(payload, Meta { arrival: at, ..Meta::default() }).unwrap();
        self.connection.send(at, &packet);
        self.drain();
    }

    /// Everything that is due until then.
    fn run(&mut self, until: Time) {
        loop {
            let due = self.connection.poll_timeout();
            let waiting = self.answering.as_mut().map(|answering| &mut answering.waiting);
            if let Some((at, number)) =
                waiting.and_then(|waiting| waiting.pop_front_if(|answer| answer.0 <= due.min(until)))
            {
                self.now = at;
                let answer = self.answering.as_ref().map(|answering| answering.answer(at, number));
                self.handle(at, &answer.unwrap());
            } else if due <= until {
                assert!(due > self.now, "no progress at {due:?}");
                self.now = due;
                self.connection.handle_timeout(due);
                self.drain();
            } else {
                self.now = until;
                return;
            }
        }
    }

    fn drain(&mut self) {
        while let Some(transmit) = self.connection.poll_transmit() {
            let bytes = bytes_of(&transmit);
            if let Some(answering) = &mut self.answering {
                answering.note(self.now, &bytes);
            }
            self.sent.push(bytes);
        }
        while let Some(packet) = self.connection.poll_packet() {
            self.released.push((self.now, packet));
        }
    }
}

/// Bodies of one kind of control packet among `datagrams`.
fn bodies(datagrams: &[Vec<u8>], kind: ControlKind) -> impl Iterator<Item = &[u8]> {
    datagrams.iter().filter(move |bytes| is_of_kind(bytes, kind)).map(|bytes| split(bytes).1)
}

/// What the last acknowledgement asked for.
fn acknowledged(sent: &[Vec<u8>]) -> Seq<31> {
    AckBody::parse(bodies(sent, ControlKind::Ack).last().unwrap()).unwrap().next
}

/// All that was ever reported lost.
fn reported(sent: &[Vec<u8>]) -> BTreeSet<u32> {
    let ranges = bodies(sent, ControlKind::Nak).flat_map(LossRanges::parse).map(Result::unwrap);
    ranges.flat_map(|range| range.start().value()..=range.end().value()).collect()
}

/// Why there is no connection; `None` if there is one.
fn refusal(event: Option<Event>) -> Option<(&'static str, u32)> {
    match event.unwrap() {
        Event::PeerConnected { .. } => None,
        Event::PeerRefused { why, .. } => why.refusal,
        event @ (Event::PeerLost { .. }
        | Event::CallersRefused { .. }
        | Event::Restarted { .. }
        | Event::NotCarried(_)
        | Event::Ended) => {
            panic!("{event:?}")
        }
    }
}

fn of_our_version(extension: Extension<'_>) -> Extension<'_> {
    if let Extension::Response(theirs) = extension {
        return Extension::Response(Capabilities { version: SRT_VERSION, ..theirs });
    }
    extension
}

fn is_of_kind(datagram: &[u8], kind: ControlKind) -> bool {
    matches!(split(datagram).0, Header::Control(header) if header.kind == kind)
}

fn split(datagram: &[u8]) -> (Header, &[u8]) {
    (Header::parse(datagram).unwrap(), &datagram[HEADER_BYTES..])
}

fn timestamp_of(datagram: &[u8]) -> u32 {
    match split(datagram).0 {
        Header::Data(header) => header.timestamp,
        Header::Control(header) => header.timestamp,
    }
}

fn bytes_of(transmit: &Transmit) -> Vec<u8> {
    [&transmit.header[..], transmit.payload.as_deref().unwrap_or_default()].concat()
}

fn datagram(pool: &Pool, at: Time, peer: SocketAddr, bytes: &[u8]) -> Datagram {
    let packet = pool.copy(bytes, Meta { arrival: at, ..Meta::default() }).unwrap();
    Datagram { port: Port::Media, peer, packet }
}

/// Packets that are due within this leave together.
const TOGETHER: Duration = Duration::from_millis(1);
