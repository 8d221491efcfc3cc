//! The side that is called: it takes a stream from a publisher, or gives one to a player.
//!
//! ```text
//!  Connecting --connect--> Connected --publish, play--> Asking --accept--> Active --deleteStream--> Over
//!                                                          '----refuse----------------------------^
//! ```
//!
//! Who may come is the caller's to decide: with [`ServerMessage::Publish`] and [`ServerMessage::Play`] the core waits,
//! and listens no more, until [`Server::accept`] or [`Server::refuse`]. A second publisher for the same key is one more
//! decision: closing the first connection is the takeover.

use std::fmt;

use super::amf::Value;
use super::chunk::{Message, kind};
use super::config::Config;
use super::enhanced::{self, Capabilities};
use super::error::{End, Unsent, WORDS_BYTES_MAX};
use super::handshake::Handshake;
use super::link::{Command, Link, STREAM_BEGIN, STREAM_END, WINDOW_BYTES};
use super::stats::Stats;
use crate::proto::{Payload, Piece, StreamCore};
use crate::units::Time;

/// One connection that somebody made to us.
#[derive(Debug)]
pub struct Server {
    config: Config,
    link: Link,
    began: Time,
    state: State,
    request: Request,
    /// Message streams handed out.
    streams: u32,
    /// What is still to be told.
    end: Option<End>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Connecting,
    Connected,
    Asking(Role, u32),
    Active(Role, u32),
    Over,
}

/// What a peer wants to do with a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Send it.
    Publisher,
    /// Get it.
    Player,
}

/// What the peer said.
#[derive(Clone, Debug, PartialEq)]
pub enum ServerMessage {
    /// It wants to publish: to be answered with [`Server::accept`] or [`Server::refuse`].
    Publish(Request),
    /// It wants to play: as above.
    Play(Request),
    /// Audio, video or data of a publisher; data always in AMF0.
    Media(Message),
    /// The last one.
    Ended(End),
}

/// Which stream a peer asks for, and how.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// Application, without a query.
    pub app: String,
    /// Name of the stream without a query: of a publisher, a secret.
    pub key: String,
    /// What stood after a question mark behind the name, else behind the application, else in the URL.
    pub query: String,
    /// The URL that the peer says it called.
    pub tc_url: String,
    /// What the peer says that it is.
    pub flash_version: String,
    /// What it knows of enhanced RTMP.
    pub capabilities: Capabilities,
}

impl fmt::Debug for Request {
    /// Without what may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { app, flash_version, .. } = self;
        f.debug_struct("Request").field("app", app).field("flash_version", flash_version).finish_non_exhaustive()
    }
}

/// Why a peer is not let in, as it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Somebody else publishes under this key.
    InUse,
    /// The key, or what came with it, is wrong.
    Denied,
    /// There is no such stream.
    NotFound,
}

impl Server {
    /// A connection that begins `now`. `seed` fills the handshake, which need not be secret.
    #[must_use]
    pub fn new(now: Time, config: Config, seed: u64) -> Self {
        Self {
            config,
            link: Link::new(now, Handshake::server(seed), Vec::new(), config.send_bytes_max),
            began: now,
            state: State::Connecting,
            request: Request::default(),
            streams: 0,
            end: None,
        }
    }

    /// Lets the peer do what it asked for.
    pub fn accept(&mut self) {
        let State::Asking(role, stream) = self.state else {
            return;
        };
        self.state = State::Active(role, stream);
        self.link.expect_media();
        self.link.send_user_control(STREAM_BEGIN, &[stream]);
        if role == Role::Publisher {
            self.send_status(stream, "status", "NetStream.Publish.Start", "publishing");
            return;
        }
        self.send_status(stream, "status", "NetStream.Play.Reset", "playing");
        self.send_status(stream, "status", "NetStream.Play.Start", "playing");
        let access = [Value::text("|RtmpSampleAccess"), Value::Boolean(true), Value::Boolean(true)];
        let payload = super::amf::encode(&access).into();
        self.link.send(&Message { kind: kind::DATA, stream, timestamp_ms: 0, payload });
    }

    /// Tells the peer that it may not, and ends the connection.
    pub fn refuse(&mut self, why: Refusal) {
        let State::Asking(role, stream) = self.state else {
            return;
        };
        let (code, description) = match (role, why) {
            (Role::Publisher, Refusal::InUse) => ("NetStream.Publish.BadName", "already published"),
            (Role::Publisher, Refusal::Denied | Refusal::NotFound) => ("NetStream.Publish.Denied", "not authorized"),
            (Role::Player, Refusal::NotFound) => ("NetStream.Play.StreamNotFound", "no such stream"),
            (Role::Player, Refusal::Denied | Refusal::InUse) => ("NetStream.Play.Failed", "not authorized"),
        };
        self.send_status(stream, "error", code, description);
        self.finish(End::NotLetIn);
    }

    /// Audio, video or data for a player; its message stream is filled in.
    ///
    /// # Errors
    /// If nobody plays, or too much is waiting. Whoever sends video goes on with a key frame then.
    pub fn send(&mut self, message: &Message) -> Result<(), Unsent> {
        let State::Active(Role::Player, stream) = self.state else {
            return Err(Unsent::NotReady);
        };
        self.link.send_media(&Message { stream, ..message.clone() })
    }

    /// Asks the peer to connect anew, there if it is said where: to `tc_url`, the URL of an application, of at most
    /// [`WORDS_BYTES_MAX`] (E-RTMP, "Reconnect Request"). The connection goes on until the peer leaves it or it is closed,
    /// for which a round trip or two are enough. False if the peer does not know of that, or has no stream yet.
    pub fn request_reconnect(&mut self, tc_url: Option<&str>) -> bool {
        let is_known = self.request.capabilities.extended & enhanced::RECONNECT != 0;
        let fits = tc_url.is_none_or(|url| url.len() <= WORDS_BYTES_MAX);
        if !is_known || !fits || !matches!(self.state, State::Active(..)) {
            return false;
        }
        let mut fields = vec![
            ("level", Value::text("status")),
            ("code", Value::text(enhanced::RECONNECT_CODE)),
            ("description", Value::text("please connect anew")),
        ];
        fields.extend(tc_url.map(|url| ("tcUrl", Value::text(url))));
        let info = Value::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect());
        self.link.send_command(0, "onStatus", 0.0, &[Value::Null, info]);
        true
    }

    /// Bytes that wait to be sent.
    #[must_use]
    pub const fn waiting_bytes(&self) -> usize {
        self.link.waiting_bytes()
    }

    /// Counters since the beginning.
    #[must_use]
    pub const fn stats(&self) -> Stats {
        self.link.stats
    }

    /// Handles one message; gives it if it is the caller's.
    fn handle(&mut self, mut message: Message) -> Result<Option<ServerMessage>, End> {
        match message.kind {
            kind::COMMAND | kind::COMMAND_AMF3 => {
                let command = Command::parse(&message)?;
                return self.handle_command(&command);
            }
            kind::AUDIO | kind::VIDEO | kind::DATA | kind::DATA_AMF3 => {
                if self.state == State::Active(Role::Publisher, message.stream) {
                    self.link.stats.media += 1;
                    if matches!(message.kind, kind::AUDIO | kind::VIDEO) {
                        self.link.expect_media();
                    }
                    if message.kind == kind::DATA_AMF3 {
                        to_amf0(&mut message);
                    }
                    return Ok(Some(ServerMessage::Media(message)));
                }
                self.link.stats.unexpected += 1;
            }
            _ => self.link.stats.unexpected += 1,
        }
        Ok(None)
    }

    fn handle_command(&mut self, command: &Command) -> Result<Option<ServerMessage>, End> {
        let transaction = command.transaction;
        match (command.name.as_str(), self.state) {
            ("connect", State::Connecting) => self.connect(command),
            (_, State::Connecting) => self.link.stats.unexpected += 1,
            ("createStream", _) => {
                self.streams = (self.streams + 1).min(MESSAGE_STREAMS_MAX);
                let id = Value::Number(self.streams.into());
                self.link.send_command(0, "_result", transaction, &[Value::Null, id]);
            }
            ("publish", State::Connected) => return Ok(Some(self.ask(Role::Publisher, command))),
            ("play", State::Connected) => return Ok(Some(self.ask(Role::Player, command))),
            ("publish" | "play", _) => {
                self.send_status(command.stream, "error", "NetStream.Failed", "one stream for each connection");
            }
            ("deleteStream", State::Active(_, stream)) => {
                let named = command.values.get(1).and_then(Value::as_number);
                if named.is_none_or(|named| named == f64::from(stream)) {
                    return Err(End::Left);
                }
            }
            ("closeStream", State::Active(_, stream)) if command.stream == stream => return Err(End::Left),
            // What answers to these are for, nobody remembers; some encoders wait for them.
            ("releaseStream" | "FCPublish" | "FCUnpublish" | "FCSubscribe" | "_checkbw", _) => {
                self.answer(transaction, Value::Null);
            }
            ("getStreamLength", _) => self.answer(transaction, Value::Number(0.0)),
            ("deleteStream" | "closeStream" | "receiveAudio" | "receiveVideo" | "pause" | "seek", _) => {}
            _ => {
                self.link.stats.unknown_commands += 1;
                if transaction != 0.0 {
                    let info = status("error", "NetConnection.Call.Failed", "unknown command");
                    self.link.send_command(0, "_error", transaction, &[Value::Null, info]);
                }
            }
        }
        Ok(None)
    }

    /// RTMP 7.2.1.1, with E-RTMP's properties for those who know them.
    fn connect(&mut self, command: &Command) {
        let object = command.values.first().unwrap_or(&Value::Null);
        let text = |name: &str| object.field(name).and_then(Value::as_str).unwrap_or_default();
        let (app, query) = split_query(text("app"));
        let tc_url = text("tcUrl");
        let query = if query.is_empty() { split_query(tc_url).1 } else { query };
        self.request = Request {
            app: app.trim_matches('/').to_owned(),
            key: String::new(),
            query: query.to_owned(),
            tc_url: tc_url.to_owned(),
            flash_version: text("flashVer").to_owned(),
            capabilities: Capabilities::parse(object),
        };
        self.state = State::Connected;
        self.link.send_number(kind::WINDOW, WINDOW_BYTES);
        let mut bandwidth = WINDOW_BYTES.to_be_bytes().to_vec();
        bandwidth.push(LIMIT_DYNAMIC);
        self.link.send(&Message { kind: kind::PEER_BANDWIDTH, payload: bandwidth.into(), ..Message::default() });
        self.link.send_chunk_size(self.config.chunk_bytes);
        let mut properties = vec![
            ("fmsVer".to_owned(), Value::text("FMS/3,5,7,7009")),
            ("capabilities".to_owned(), Value::Number(31.0)),
            ("mode".to_owned(), Value::Number(1.0)),
        ];
        let extended = enhanced::RECONNECT | enhanced::MULTITRACK | enhanced::MODEX | enhanced::NANOSECONDS;
        if self.request.capabilities.is_enhanced() {
            properties.extend(Capabilities::ours(extended & self.request.capabilities.extended));
        }
        let mut info = vec![("objectEncoding".to_owned(), Value::Number(0.0))];
        info.extend(status("status", "NetConnection.Connect.Success", "connected").fields().iter().cloned());
        let values = [Value::Object(properties), Value::Object(info)];
        self.link.send_command(0, "_result", command.transaction, &values);
    }

    /// The peer asks for a stream: the caller is to say.
    fn ask(&mut self, role: Role, command: &Command) -> ServerMessage {
        let (key, query) = split_query(command.text(0).unwrap_or_default());
        let mut request = self.request.clone();
        key.clone_into(&mut request.key);
        if !query.is_empty() {
            query.clone_into(&mut request.query);
        }
        self.state = State::Asking(role, command.stream);
        match role {
            Role::Publisher => ServerMessage::Publish(request),
            Role::Player => ServerMessage::Play(request),
        }
    }

    fn answer(&mut self, transaction: f64, value: Value) {
        if transaction != 0.0 {
            self.link.send_command(0, "_result", transaction, &[Value::Null, value]);
        }
    }

    fn send_status(&mut self, stream: u32, level: &str, code: &str, description: &str) {
        self.link.send_command(stream, "onStatus", 0.0, &[Value::Null, status(level, code, description)]);
    }

    fn finish(&mut self, end: End) {
        if self.state != State::Over {
            self.state = State::Over;
            self.end = Some(end);
        }
    }
}

impl StreamCore for Server {
    type Message = ServerMessage;

    fn handle_bytes(&mut self, now: Time, bytes: Payload) {
        if self.state != State::Over {
            self.link.handle_bytes(now, bytes);
        }
    }

    fn room(&mut self) -> Option<(&mut Vec<u8>, usize)> {
        if self.state == State::Over { None } else { self.link.room() }
    }

    fn handle_appended(&mut self, now: Time, count: usize) {
        self.link.handle_appended(now, count);
    }

    fn handle_timeout(&mut self, now: Time) {
        if self.poll_timeout().is_some_and(|at| at <= now) {
            let end = if matches!(self.state, State::Active(..)) { End::Silent } else { End::Slow };
            self.finish(end);
        }
    }

    fn handle_close(&mut self, _now: Time) {
        match self.state {
            State::Active(Role::Player, stream) => {
                self.link.send_user_control(STREAM_END, &[stream]);
                self.send_status(stream, "status", "NetStream.Play.UnpublishNotify", "no longer published");
            }
            State::Active(Role::Publisher, stream) => {
                self.send_status(stream, "status", "NetStream.Unpublish.Success", "closed by the server");
            }
            State::Connecting | State::Connected | State::Asking(..) | State::Over => {}
        }
        self.finish(End::Closed);
    }

    fn poll_transmit(&mut self) -> Option<Piece> {
        self.link.poll_transmit()
    }

    fn poll_message(&mut self) -> Option<ServerMessage> {
        while !matches!(self.state, State::Asking(..) | State::Over) {
            let handled = match self.link.poll() {
                Ok(None) => return None,
                Ok(Some(message)) => self.handle(message),
                Err(error) => Err(error.into()),
            };
            match handled {
                Ok(None) => {}
                Ok(said) => {
                    self.link.told();
                    return said;
                }
                Err(end) => self.finish(end),
            }
        }
        self.end.take().map(ServerMessage::Ended)
    }

    fn is_behind(&self) -> bool {
        self.state != State::Over && self.link.is_behind()
    }

    fn poll_timeout(&self) -> Option<Time> {
        match self.state {
            State::Connecting | State::Connected => Some(self.began + self.config.setup_timeout),
            State::Active(Role::Publisher, _) => Some(self.link.media_heard + self.config.idle_timeout),
            // The caller takes its time; players have nothing to say, and show by not reading that they are gone.
            State::Asking(..) | State::Active(Role::Player, _) | State::Over => None,
        }
    }

    fn is_taking(&self) -> bool {
        !matches!(self.state, State::Asking(..) | State::Over) && self.link.is_taking()
    }

    fn is_over(&self) -> bool {
        self.state == State::Over
    }
}

/// An information object (RTMP 7.2.2).
fn status(level: &str, code: &str, description: &str) -> Value {
    Value::object([
        ("level", Value::text(level)),
        ("code", Value::text(code)),
        ("description", Value::text(description)),
    ])
}

fn split_query(text: &str) -> (&str, &str) {
    text.split_once('?').unwrap_or((text, ""))
}

/// Takes data out of its AMF3 envelope: a zero before values of AMF0.
pub(super) fn to_amf0(message: &mut Message) {
    if message.payload.first() == Some(&0) {
        message.payload = message.payload.slice(1..message.payload.len());
    }
    message.kind = kind::DATA;
}

/// RTMP 5.4.5.
const LIMIT_DYNAMIC: u8 = 2;

/// Highest id that is handed out; all further streams are that one. Judgement: encoders make one.
const MESSAGE_STREAMS_MAX: u32 = 16;
