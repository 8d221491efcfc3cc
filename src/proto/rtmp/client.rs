//! The side that calls: it pushes a stream to a server, or pulls one.
//!
//! ```text
//!  Connecting --_result--> Creating --_result--> Starting --onStatus--> Active --onStatus, close--> Over
//!  connect                 set chunk size        publish, or            media
//!                          releaseStream         play
//!                          FCPublish
//!                          createStream
//! ```
//!
//! The order is that of Adobe's encoder, which content delivery networks know. To connect anew is the caller's, also
//! when the server asks for it.

use std::fmt;

use super::amf::{self, Value};
use super::chunk::{Message, kind};
use super::config::Config;
use super::enhanced::{self, Capabilities};
use super::error::{End, Unsent, WORDS_BYTES_MAX};
use super::handshake::Handshake;
use super::link::{BUFFER_LENGTH, Command, Link, WINDOW_BYTES};
use super::server::{Role, to_amf0};
use super::stats::Stats;
use crate::proto::{Payload, Piece, StreamCore};
use crate::units::Time;

/// One connection that we made.
#[derive(Debug)]
pub struct Client {
    config: Config,
    link: Link,
    began: Time,
    state: State,
    role: Role,
    target: Target,
    /// What the server said of itself.
    capabilities: Capabilities,
    /// Came before the server's word, and is told behind it.
    early: Option<Message>,
    /// What is still to be told.
    end: Option<End>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Handshaking,
    Connecting,
    Creating,
    Starting(u32),
    Active(u32),
    Over,
}

/// Which stream of which server.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// URL of the application, as in `rtmp://host:1935/live`.
    pub tc_url: String,
    /// The application: the path of that URL.
    pub app: String,
    /// The stream, with a query if it has one: mostly a secret.
    pub key: String,
}

impl fmt::Debug for Target {
    /// Without what may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("app", &self.app).finish_non_exhaustive()
    }
}

/// What the server said.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientMessage {
    /// Media may be sent, or will come. Whoever pushes begins with metadata, codec headers and a key frame.
    Ready,
    /// Audio, video or data of a stream that is pulled; data always in AMF0.
    Media(Message),
    /// The server wants us to connect anew soon, there if it says where (E-RTMP, "Reconnect Request").
    Reconnect {
        /// Another URL of the application, at most [`WORDS_BYTES_MAX`].
        tc_url: Option<String>,
    },
    /// The last one.
    Ended(End),
}

impl Client {
    /// A connection that begins `now`: as [`Role::Publisher`] it pushes, as [`Role::Player`] it pulls. `seed` fills the
    /// handshake, which need not be secret.
    #[must_use]
    pub fn new(now: Time, config: Config, role: Role, target: Target, seed: u64) -> Self {
        let (handshake, opening) = Handshake::client(seed);
        Self {
            config,
            link: Link::new(now, handshake, opening, config.send_bytes_max),
            began: now,
            state: State::Handshaking,
            role,
            target,
            capabilities: Capabilities::default(),
            early: None,
            end: None,
        }
    }

    /// Audio, video or data to push; its message stream is filled in.
    ///
    /// # Errors
    /// If the server is not ready, or too much is waiting. Whoever sends video goes on with a key frame then.
    pub fn send(&mut self, message: &Message) -> Result<(), Unsent> {
        match (self.role, self.state) {
            (Role::Publisher, State::Active(stream)) => self.link.send_media(&Message { stream, ..message.clone() }),
            _ => Err(Unsent::NotReady),
        }
    }

    /// What the server says that it knows of enhanced RTMP.
    #[must_use]
    pub const fn capabilities(&self) -> &Capabilities {
        &self.capabilities
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

    /// RTMP 7.2.1.1.
    fn connect(&mut self) {
        let push = self.role == Role::Publisher;
        let mut object = vec![
            ("app".to_owned(), Value::text(&self.target.app)),
            (
                "flashVer".to_owned(),
                Value::text(if push { "FMLE/3.0 (compatible; anabranch)" } else { "LNX 9,0,124,2" }),
            ),
            ("tcUrl".to_owned(), Value::text(&self.target.tc_url)),
        ];
        if push {
            object.insert(1, ("type".to_owned(), Value::text("nonprivate")));
        } else {
            object.extend([
                ("fpad".to_owned(), Value::Boolean(false)),
                ("capabilities".to_owned(), Value::Number(15.0)),
                ("audioCodecs".to_owned(), Value::Number(4071.0)),
                ("videoCodecs".to_owned(), Value::Number(252.0)),
                ("videoFunction".to_owned(), Value::Number(1.0)),
            ]);
        }
        let extended = enhanced::RECONNECT | enhanced::MULTITRACK | enhanced::MODEX | enhanced::NANOSECONDS;
        object.extend(Capabilities::ours(extended));
        self.link.send_command(0, "connect", CONNECT, &[Value::Object(object)]);
        self.state = State::Connecting;
    }

    fn create(&mut self, command: &Command) {
        self.capabilities = Capabilities::parse(command.values.first().unwrap_or(&Value::Null));
        self.state = State::Creating;
        let key = Value::text(&self.target.key);
        if self.role == Role::Publisher {
            self.link.send_chunk_size(self.config.chunk_bytes);
            self.link.send_command(0, "releaseStream", RELEASE, &[Value::Null, key.clone()]);
            self.link.send_command(0, "FCPublish", ANNOUNCE, &[Value::Null, key]);
        } else {
            self.link.send_number(kind::WINDOW, WINDOW_BYTES);
        }
        self.link.send_command(0, "createStream", self.creation(), &[Value::Null]);
    }

    fn start(&mut self, command: &Command) -> Result<(), End> {
        let id = command.values.get(1).and_then(Value::as_number).unwrap_or_default();
        if !(id >= 1.0 && id <= f64::from(u32::MAX)) {
            return Err(refused("", "no message stream"));
        }
        let stream = id as u32;
        self.state = State::Starting(stream);
        let key = Value::text(&self.target.key);
        if self.role == Role::Publisher {
            self.link.send_command(stream, "publish", self.creation() + 1.0, &[Value::Null, key, Value::text("live")]);
        } else {
            self.link.send_command(
                stream,
                "play",
                self.creation() + 1.0,
                &[Value::Null, key, Value::Number(LIVE_OR_RECORDED)],
            );
            self.link.send_user_control(BUFFER_LENGTH, &[stream, BUFFER_MS]);
        }
        Ok(())
    }

    /// Handles one message; gives it if it is the caller's.
    fn handle(&mut self, mut message: Message) -> Result<Option<ClientMessage>, End> {
        match message.kind {
            kind::COMMAND | kind::COMMAND_AMF3 => {
                let command = Command::parse(&message)?;
                return self.handle_command(&command);
            }
            kind::AUDIO | kind::VIDEO | kind::DATA | kind::DATA_AMF3 => {
                let (State::Starting(stream) | State::Active(stream)) = self.state else {
                    self.link.stats.unexpected += 1;
                    return Ok(None);
                };
                if self.role == Role::Player && stream == message.stream {
                    self.link.stats.media += 1;
                    if matches!(message.kind, kind::AUDIO | kind::VIDEO) {
                        self.link.expect_media();
                    }
                    if message.kind == kind::DATA_AMF3 {
                        to_amf0(&mut message);
                    }
                    // Some servers send at once, and say nothing.
                    if self.state == State::Starting(stream) && matches!(message.kind, kind::AUDIO | kind::VIDEO) {
                        self.state = State::Active(stream);
                        self.early = Some(message);
                        return Ok(Some(ClientMessage::Ready));
                    }
                    return Ok(Some(ClientMessage::Media(message)));
                }
                self.link.stats.unexpected += 1;
            }
            _ => self.link.stats.unexpected += 1,
        }
        Ok(None)
    }

    fn handle_command(&mut self, command: &Command) -> Result<Option<ClientMessage>, End> {
        let is = |transaction: f64| command.transaction == transaction;
        match (command.name.as_str(), self.state) {
            ("_result", State::Connecting) if is(CONNECT) => self.create(command),
            ("_result", State::Creating) if is(self.creation()) => self.start(command)?,
            ("_error", State::Connecting) if is(CONNECT) => return Err(refusal(command)),
            ("_error", State::Creating) if is(self.creation()) => return Err(refusal(command)),
            ("_error", State::Starting(_)) if is(self.creation() + 1.0) => return Err(refusal(command)),
            ("onStatus", _) => return self.handle_status(command),
            ("close", _) => return Err(End::Left),
            ("_result" | "_error" | "onBWDone" | "onFCPublish" | "onFCUnpublish" | "onFCSubscribe", _) => {}
            _ => self.link.stats.unknown_commands += 1,
        }
        Ok(None)
    }

    fn handle_status(&mut self, command: &Command) -> Result<Option<ClientMessage>, End> {
        let code = command.info(1, "code").unwrap_or_default();
        match (code, self.state) {
            (enhanced::RECONNECT_CODE, _) => {
                let tc_url = command.info(1, "tcUrl").filter(|url| url.len() <= WORDS_BYTES_MAX).map(str::to_owned);
                Ok(Some(ClientMessage::Reconnect { tc_url }))
            }
            _ if command.info(1, "level") == Some("error") => Err(refusal(command)),
            ("NetStream.Publish.Start" | "NetStream.Play.Start", State::Starting(stream)) => {
                self.state = State::Active(stream);
                self.link.expect_media();
                Ok(Some(ClientMessage::Ready))
            }
            (
                "NetStream.Play.UnpublishNotify"
                | "NetStream.Play.Stop"
                | "NetStream.Play.Complete"
                | "NetStream.Unpublish.Success"
                | "NetConnection.Connect.Closed",
                _,
            ) => Err(End::Left),
            _ => Ok(None),
        }
    }

    /// The transaction that creates the message stream; those after it count on.
    const fn creation(&self) -> f64 {
        match self.role {
            Role::Publisher => ANNOUNCE + 1.0,
            Role::Player => CONNECT + 1.0,
        }
    }

    fn finish(&mut self, end: End) {
        if self.state != State::Over {
            self.state = State::Over;
            self.end = Some(end);
        }
    }
}

impl StreamCore for Client {
    type Message = ClientMessage;

    fn handle_bytes(&mut self, now: Time, bytes: Payload) {
        if self.state == State::Over {
            return;
        }
        self.link.handle_bytes(now, bytes);
        if self.state == State::Handshaking && self.link.is_ready() {
            self.connect();
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
            let end = if matches!(self.state, State::Active(_)) { End::Silent } else { End::Slow };
            self.finish(end);
        }
    }

    fn handle_close(&mut self, _now: Time) {
        if let State::Starting(stream) | State::Active(stream) = self.state {
            if self.role == Role::Publisher {
                let key = Value::text(&self.target.key);
                self.link.send_command(0, "FCUnpublish", self.creation() + 2.0, &[Value::Null, key]);
            }
            self.link.send_command(
                0,
                "deleteStream",
                self.creation() + 3.0,
                &[Value::Null, Value::Number(stream.into())],
            );
        }
        self.finish(End::Closed);
    }

    fn poll_transmit(&mut self) -> Option<Piece> {
        self.link.poll_transmit()
    }

    fn poll_message(&mut self) -> Option<ClientMessage> {
        if let Some(message) = self.early.take() {
            return Some(ClientMessage::Media(message));
        }
        while self.state != State::Over {
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
        self.end.take().map(ClientMessage::Ended)
    }

    fn is_behind(&self) -> bool {
        self.state != State::Over && self.link.is_behind()
    }

    fn poll_timeout(&self) -> Option<Time> {
        match (self.state, self.role) {
            (State::Over, _) => None,
            (State::Active(_), Role::Player) => Some(self.link.media_heard + self.config.idle_timeout),
            // A server that is pushed to may be silent; it shows by not reading that it is gone.
            (State::Active(_), Role::Publisher) => None,
            _ => Some(self.began + self.config.setup_timeout),
        }
    }

    fn is_taking(&self) -> bool {
        self.state != State::Over && self.link.is_taking()
    }

    fn is_over(&self) -> bool {
        self.state == State::Over
    }
}

/// Metadata as a publisher sends it: `@setDataFrame`, `onMetaData` and its fields.
#[must_use]
pub fn set_data_frame(timestamp_ms: u32, metadata: Vec<(String, Value)>) -> Message {
    let values = [Value::text("@setDataFrame"), Value::text("onMetaData"), Value::EcmaArray(metadata)];
    Message { kind: kind::DATA, stream: 0, timestamp_ms, payload: amf::encode(&values).into() }
}

/// What a stream is, as a server tells players.
#[must_use]
pub fn on_metadata(timestamp_ms: u32, metadata: Vec<(String, Value)>) -> Message {
    let values = [Value::text("onMetaData"), Value::EcmaArray(metadata)];
    Message { kind: kind::DATA, stream: 0, timestamp_ms, payload: amf::encode(&values).into() }
}

/// The fields of `onMetaData`, as a publisher or a server sends them; `None` for other data.
#[must_use]
pub fn metadata(message: &Message) -> Option<Vec<(String, Value)>> {
    if message.kind != kind::DATA {
        return None;
    }
    let values = amf::decode(&message.payload).ok()?;
    let named = values.strip_prefix(&[Value::text("@setDataFrame")]).unwrap_or(&values);
    match named {
        [Value::String(name), fields, ..] if name == "onMetaData" => Some(fields.fields().to_vec()),
        _ => None,
    }
}

/// What the server said against us.
fn refusal(command: &Command) -> End {
    refused(command.info(1, "code").unwrap_or_default(), command.info(1, "description").unwrap_or_default())
}

fn refused(code: &str, description: &str) -> End {
    let cut = |text: &str| text[..text.floor_char_boundary(WORDS_BYTES_MAX)].to_owned();
    End::Refused { code: cut(code), description: cut(description) }
}

const CONNECT: f64 = 1.0;
const RELEASE: f64 = 2.0;
const ANNOUNCE: f64 = 3.0;

/// A live stream of that name, or else a recorded one (RTMP 7.2.2.1).
const LIVE_OR_RECORDED: f64 = -2_000.0;

/// What a player says that it holds. Judgement: as ffmpeg and librtmp; servers of live streams ignore it.
const BUFFER_MS: u32 = 3_000;
