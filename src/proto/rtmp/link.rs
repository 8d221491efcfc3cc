//! What both sides of a connection have in common: handshake, chunks, acknowledgements, pings, and a bounded queue of bytes
//! to send.

use std::collections::VecDeque;

use super::amf::{self, Value};
use super::chunk::{INPUTS_MAX, Message, Reader, Writer, kind};
use super::error::{Error, Unsent};
use super::handshake::Handshake;
use super::stats::Stats;
use crate::proto::{Payload, Piece};
use crate::units::Time;

/// A connection without the commands.
#[derive(Debug)]
pub(super) struct Link {
    handshake: Handshake,
    reader: Reader,
    writer: Writer,
    out: VecDeque<Piece>,
    out_bytes: usize,
    out_bytes_max: usize,
    /// What the peer sends between two acknowledgements (RTMP 5.4.4); zero for none.
    window_bytes: u64,
    acknowledged: u64,
    /// Pieces that were put in line and that left it, since the beginning.
    pushed: u64,
    popped: u64,
    /// Answers that were put in line since all that was before them left it, and where that ends.
    answers: usize,
    answers_end: u64,
    /// Messages that were looked at since the caller last got one, or was told to come again.
    skipped: usize,
    is_behind: bool,
    /// Why nothing that came since is looked at.
    broken: Option<Error>,
    /// When bytes last came.
    heard: Time,
    /// When audio or video last came, or became possible.
    pub(super) media_heard: Time,
    pub(super) stats: Stats,
}

/// A command (RTMP 7.1.1), from whichever envelope.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Command {
    /// Message stream that it came on.
    pub(super) stream: u32,
    pub(super) name: String,
    pub(super) transaction: f64,
    /// From the command object on.
    pub(super) values: Vec<Value>,
}

impl Command {
    /// Reads the payload of a message of `kind`.
    pub(super) fn parse(message: &Message) -> Result<Self, Error> {
        // The AMF3 envelope is a zero before values of AMF0 (as Flash and librtmp have it).
        let amf3 = message.kind == kind::COMMAND_AMF3 && message.payload.first() == Some(&0);
        let bytes = message.payload.get(usize::from(amf3)..).unwrap_or_default();
        let (name, rest) = amf::decode_name(bytes)?;
        let mut values = amf::decode(rest)?;
        let transaction = match values.first().and_then(Value::as_number) {
            Some(number) => {
                values.remove(0);
                number
            }
            None => 0.0,
        };
        Ok(Self { stream: message.stream, name, transaction, values })
    }

    /// The text that is argument `index`, counted without the command object.
    pub(super) fn text(&self, index: usize) -> Option<&str> {
        self.values.get(1 + index).and_then(Value::as_str)
    }

    /// A field of the object that is argument `index`, where the command object is argument zero.
    pub(super) fn info(&self, index: usize, name: &str) -> Option<&str> {
        self.values.get(index).and_then(|value| value.field(name)).and_then(Value::as_str)
    }
}

impl Link {
    pub(super) fn new(now: Time, handshake: Handshake, opening: Vec<u8>, out_bytes_max: usize) -> Self {
        let mut link = Self {
            handshake,
            reader: Reader::new(),
            writer: Writer::default(),
            out: VecDeque::new(),
            out_bytes: 0,
            out_bytes_max,
            window_bytes: 0,
            acknowledged: 0,
            pushed: 0,
            popped: 0,
            answers: 0,
            answers_end: 0,
            skipped: 0,
            is_behind: false,
            broken: None,
            heard: now,
            media_heard: now,
            stats: Stats::default(),
        };
        link.push_bytes(opening);
        link
    }

    pub(super) fn handle_bytes(&mut self, now: Time, bytes: Payload) {
        self.heard = now;
        self.stats.received_bytes += bytes.len() as u64;
        let fed = self.handshake.handle(&bytes).and_then(|(used, answer)| {
            self.push_bytes(answer);
            self.reader.push(bytes.slice(used..bytes.len()))
        });
        if let Err(error) = fed {
            self.broken.get_or_insert(error);
        }
        self.acknowledge();
    }

    /// As [`StreamCore::room`](crate::proto::StreamCore::room).
    pub(super) fn room(&mut self) -> Option<(&mut Vec<u8>, usize)> {
        // Without a whole handshake there is no chunk.
        self.reader.room().filter(|_| self.broken.is_none())
    }

    /// As [`StreamCore::handle_appended`](crate::proto::StreamCore::handle_appended).
    pub(super) fn handle_appended(&mut self, now: Time, count: usize) {
        self.heard = now;
        self.stats.received_bytes += count as u64;
        self.reader.appended(count);
        self.acknowledge();
    }

    /// The next message that is not about the connection itself.
    pub(super) fn poll(&mut self) -> Result<Option<Message>, Error> {
        if let Some(error) = self.broken {
            return Err(error);
        }
        self.is_behind = false;
        // Whoever does not take answers is not listened to.
        while self.has_room() {
            if self.skipped >= SKIPPED_MAX {
                (self.skipped, self.is_behind) = (0, true);
                return Ok(None);
            }
            self.skipped += 1;
            let polled = self.reader.poll();
            self.stats.aborted = self.reader.aborted();
            let Some(message) = polled? else {
                self.skipped = 0;
                return Ok(None);
            };
            match message.kind {
                kind::WINDOW => self.window_bytes = number(&message, 0)?.into(),
                kind::PEER_BANDWIDTH => self.send_number(kind::WINDOW, number(&message, 0)?),
                kind::ACKNOWLEDGEMENT => {}
                kind::USER_CONTROL => self.handle_user_control(&message)?,
                _ => return Ok(Some(message)),
            }
        }
        Ok(None)
    }

    /// Audio or video came, or may come from now on. Other data and pings also come of an encoder that hangs.
    pub(super) const fn expect_media(&mut self) {
        self.media_heard = self.heard;
    }

    /// As [`StreamCore::is_behind`](crate::proto::StreamCore::is_behind).
    pub(super) const fn is_behind(&self) -> bool {
        self.is_behind
    }

    /// The caller gets something.
    pub(super) const fn told(&mut self) {
        self.skipped = 0;
    }

    pub(super) fn is_ready(&self) -> bool {
        self.handshake.is_done()
    }

    pub(super) fn is_taking(&self) -> bool {
        // Nothing of a peer who does not take what it caused.
        self.broken.is_none() && self.reader.waiting() < INPUTS_MAX / 2 && self.has_room()
    }

    /// Whether more may be caused. Answers are bounded by number, as the shortest take more memory than bytes.
    const fn has_room(&self) -> bool {
        self.out_bytes <= self.out_bytes_max && (self.answers < ANSWERS_MAX || self.popped >= self.answers_end)
    }

    pub(super) fn poll_transmit(&mut self) -> Option<Piece> {
        let piece = self.out.pop_front()?;
        self.out_bytes -= piece.len();
        self.popped += 1;
        Some(piece)
    }

    pub(super) const fn waiting_bytes(&self) -> usize {
        self.out_bytes
    }

    /// Media, if not too much is waiting.
    pub(super) fn send_media(&mut self, message: &Message) -> Result<(), Unsent> {
        if self.out_bytes + message.payload.len() > self.out_bytes_max {
            self.stats.overflow += 1;
            return Err(Unsent::Full);
        }
        self.stats.sent += 1;
        self.put(message);
        Ok(())
    }

    /// What is no media.
    pub(super) fn send(&mut self, message: &Message) {
        if self.popped >= self.answers_end {
            (self.answers, self.answers_end) = (0, self.pushed + 1);
        }
        self.answers += 1;
        self.put(message);
    }

    fn put(&mut self, message: &Message) {
        let before = self.out.len();
        self.writer.write(message, &mut self.out);
        self.count_from(before);
    }

    pub(super) fn send_chunk_size(&mut self, size_bytes: u32) {
        let before = self.out.len();
        self.writer.set_chunk_size(size_bytes, &mut self.out);
        self.count_from(before);
    }

    /// A command, or an answer to one.
    pub(super) fn send_command(&mut self, stream: u32, name: &str, transaction: f64, values: &[Value]) {
        let mut payload = amf::encode(&[Value::text(name), Value::Number(transaction)]);
        payload.extend(amf::encode(values));
        self.send(&Message { kind: kind::COMMAND, stream, timestamp_ms: 0, payload: payload.into() });
    }

    /// A protocol control message that is one number (RTMP 5.4).
    pub(super) fn send_number(&mut self, kind: u8, number: u32) {
        self.send(&Message { kind, payload: number.to_be_bytes().to_vec().into(), ..Message::default() });
    }

    /// User control (RTMP 7.1.7).
    pub(super) fn send_user_control(&mut self, event: u16, numbers: &[u32]) {
        let mut payload = event.to_be_bytes().to_vec();
        numbers.iter().for_each(|number| payload.extend(number.to_be_bytes()));
        self.send(&Message { kind: kind::USER_CONTROL, payload: payload.into(), ..Message::default() });
    }

    fn handle_user_control(&mut self, message: &Message) -> Result<(), Error> {
        let event = message.payload.first_chunk().map(|bytes| u16::from_be_bytes(*bytes)).ok_or(Error::Control)?;
        if event == PING_REQUEST {
            self.send_user_control(PING_RESPONSE, &[number(message, 2)?]);
        }
        Ok(())
    }

    /// RTMP 5.4.3, at most once for what came at once.
    fn acknowledge(&mut self) {
        let received = self.stats.received_bytes;
        if self.window_bytes > 0 && received - self.acknowledged >= self.window_bytes {
            self.acknowledged = received;
            // Wraps, as all senders let it.
            self.send_number(kind::ACKNOWLEDGEMENT, received as u32);
        }
    }

    fn push_bytes(&mut self, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            let before = self.out.len();
            self.out.push_back(Piece { payload: bytes.into(), ..Piece::default() });
            self.count_from(before);
        }
    }

    fn count_from(&mut self, before: usize) {
        self.out_bytes += self.out.range(before..).map(Piece::len).sum::<usize>();
        self.pushed += (self.out.len() - before) as u64;
    }
}

fn number(message: &Message, at: usize) -> Result<u32, Error> {
    let bytes = message.payload.get(at..).and_then(|bytes| bytes.first_chunk());
    bytes.map(|bytes| u32::from_be_bytes(*bytes)).ok_or(Error::Control)
}

/// Message stream `_` begins (RTMP 7.1.7).
pub(super) const STREAM_BEGIN: u16 = 0;
/// Message stream `_` is at its end.
pub(super) const STREAM_END: u16 = 1;
/// How many milliseconds the player of message stream `_` holds.
pub(super) const BUFFER_LENGTH: u16 = 3;
const PING_REQUEST: u16 = 6;
const PING_RESPONSE: u16 = 7;

/// Answers that wait for a peer who takes none. Judgement: far more than anybody honest asks for at once; 20 kB.
pub(super) const ANSWERS_MAX: usize = 128;

/// Messages that nobody gets to see, before others have their turn: pings, or none at all, in a byte or seven each.
/// Judgement: far more than in a row from anybody honest.
pub(super) const SKIPPED_MAX: usize = 256;

/// What is asked to be acknowledged. Judgement: what Adobe's and most other servers say.
pub(super) const WINDOW_BYTES: u32 = 2_500_000;
