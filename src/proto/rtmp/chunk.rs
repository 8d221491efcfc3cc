//! Chunk streams: messages out of bytes that come in any pieces, and back (RTMP 5.3, 5.4).
//!
//! ```text
//! basic header   fmt (2 bits), chunk stream id in 1 to 3 bytes
//! fmt 0          timestamp, message length (3 bytes each), type (1), message stream id (4, little-endian)
//! fmt 1          timestamp delta, message length, type
//! fmt 2          timestamp delta
//! fmt 3          nothing: the message goes on, or the next is like the last
//! extended       timestamp or delta in 4 bytes, where its field says 0xffffff
//! ```

use std::collections::VecDeque;

use arrayvec::ArrayVec;

use super::Error;
use crate::proto::{Payload, Piece, WireHeader};

/// One message (RTMP 5.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Its type; those of this protocol are in [`kind`].
    pub kind: u8,
    /// The message stream that it belongs to; zero for the connection itself.
    pub stream: u32,
    /// In milliseconds, wrapping.
    pub timestamp_ms: u32,
    /// What it carries.
    pub payload: Payload,
}

/// Types of messages (RTMP 5.4, 6.2, 7.1).
pub mod kind {
    /// Set Chunk Size: the reader obeys it, nobody else sees it.
    pub const CHUNK_SIZE: u8 = 1;
    /// Abort Message: as above.
    pub const ABORT: u8 = 2;
    /// Acknowledgement.
    pub const ACKNOWLEDGEMENT: u8 = 3;
    /// User Control Message.
    pub const USER_CONTROL: u8 = 4;
    /// Window Acknowledgement Size.
    pub const WINDOW: u8 = 5;
    /// Set Peer Bandwidth.
    pub const PEER_BANDWIDTH: u8 = 6;
    /// Audio.
    pub const AUDIO: u8 = 8;
    /// Video.
    pub const VIDEO: u8 = 9;
    /// Data in an AMF3 envelope.
    pub const DATA_AMF3: u8 = 15;
    /// Command in an AMF3 envelope.
    pub const COMMAND_AMF3: u8 = 17;
    /// Data: metadata and the like.
    pub const DATA: u8 = 18;
    /// Command.
    pub const COMMAND: u8 = 20;
}

/// Bytes in, messages out.
#[derive(Debug, Default)]
pub struct Reader {
    /// Not yet read; of the first, `at` bytes are.
    input: VecDeque<Payload>,
    at: usize,
    /// The beginning of a header whose rest has not come, and seldom up to 3 bytes more.
    carry: ArrayVec<u8, HEADER_BYTES_MAX>,
    streams: Vec<ChunkStream>,
    /// The chunk that is being read: index of its stream, bytes still to come.
    chunk: Option<(usize, usize)>,
    /// Largest chunk that the peer sends, zero for 128.
    chunk_bytes: usize,
    held_bytes: usize,
    /// Messages that were given up before they were whole.
    aborted: u64,
}

/// What is known of a chunk stream.
#[derive(Debug, Default)]
struct ChunkStream {
    id: u32,
    header: Header,
    /// Whether the message has begun and is not whole.
    is_within: bool,
    partial: Vec<u8>,
}

/// What chunks after the first leave out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Header {
    timestamp_ms: u32,
    delta_ms: u32,
    /// What the extended field said, if there was one.
    extended: Option<u32>,
    length: u32,
    kind: u8,
    stream: u32,
    /// Whether the last header had all fields, so that there is no delta.
    is_full: bool,
}

/// What a chunk begins with.
struct Begin {
    id: u32,
    format: u8,
    header: Header,
    used: usize,
}

impl Reader {
    /// A reader of a peer's chunks from the first one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The next bytes of the connection. At most [`INPUTS_MAX`] parts wait to be read.
    ///
    /// # Errors
    /// [`Error::Overrun`] if too many are waiting.
    pub fn push(&mut self, bytes: Payload) -> Result<(), Error> {
        if self.input.len() >= INPUTS_MAX {
            return Err(Error::Overrun);
        }
        if !bytes.is_empty() {
            self.input.push_back(bytes);
        }
        Ok(())
    }

    /// Where the next bytes of the connection belong, and how many of them: behind those of a message that is not whole, if
    /// much of a chunk is still to come. [`Reader::appended`] tells how many were put there.
    pub fn room(&mut self) -> Option<(&mut Vec<u8>, usize)> {
        let (index, left) = self.chunk.filter(|_| self.input.is_empty() && self.carry.is_empty())?;
        let stream = self.streams.get_mut(index)?;
        let (partial, length) = (&mut stream.partial, stream.header.length as usize);
        if left < ROOM_BYTES_MIN {
            return None;
        }
        self.held_bytes += grow(partial, 1, length);
        let count = left.min(partial.capacity() - partial.len());
        (self.held_bytes <= HELD_BYTES_MAX).then_some((partial, count))
    }

    /// So many bytes were put where [`Reader::room`] said, no more than it said.
    pub fn appended(&mut self, count: usize) {
        if let Some((_, left)) = &mut self.chunk {
            *left = left.saturating_sub(count);
        }
    }

    /// Parts that came and were not read to their end.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.input.len()
    }

    /// Messages that were given up before they were whole.
    #[must_use]
    pub const fn aborted(&self) -> u64 {
        self.aborted
    }

    /// The next whole message; `None` when more bytes are needed.
    ///
    /// # Errors
    /// What makes these bytes no chunk stream. There is no way on after that.
    pub fn poll(&mut self) -> Result<Option<Message>, Error> {
        loop {
            if self.chunk.is_none() && !self.begin()? {
                return Ok(None);
            }
            let Some(message) = self.take()? else {
                if self.chunk.is_some() {
                    return Ok(None);
                }
                continue;
            };
            match message.kind {
                kind::CHUNK_SIZE => self.set_chunk_size(&message.payload)?,
                kind::ABORT => self.abort(&message.payload)?,
                _ => return Ok(Some(message)),
            }
        }
    }

    /// Reads the header of the next chunk; `false` when more bytes are needed.
    fn begin(&mut self) -> Result<bool, Error> {
        let begin = loop {
            let rest = self.input.front().and_then(|part| part.get(self.at..)).unwrap_or_default();
            if self.carry.is_empty() && rest.len() >= HEADER_BYTES_MAX {
                if let Some(begin) = self.parse(rest)? {
                    break begin;
                }
                return Ok(false);
            }
            let mut view = self.carry.clone();
            view.extend(rest.iter().copied().take(view.remaining_capacity()));
            if let Some(begin) = self.parse(&view)? {
                break begin;
            }
            // Shorter than any whole header: all that there is fits.
            self.carry = view;
            self.at = 0;
            if self.input.pop_front().is_none() {
                return Ok(false);
            }
        };
        self.skip(begin.used);
        self.open(&begin)?;
        Ok(true)
    }

    /// Reads a header, of which `bytes` may be too few.
    fn parse(&self, bytes: &[u8]) -> Result<Option<Begin>, Error> {
        let Some((id, format, mut used)) = parse_basic(bytes) else {
            return Ok(None);
        };
        let fields = bytes.get(used..).unwrap_or_default();
        let known = self.streams.iter().find(|stream| stream.id == id);
        let mut header = known.map(|stream| stream.header).unwrap_or_default();
        let field_bytes = match format {
            0 => 11,
            1 => 7,
            2 => 3,
            _ => 0,
        };
        let Some(fields) = fields.get(..field_bytes) else {
            return Ok(None);
        };
        used += field_bytes;
        match *fields {
            [t0, t1, t2, l0, l1, l2, kind, s0, s1, s2, s3] => {
                let timestamp_ms = u32::from_be_bytes([0, t0, t1, t2]);
                let (length, stream) = (u32::from_be_bytes([0, l0, l1, l2]), u32::from_le_bytes([s0, s1, s2, s3]));
                header = Header { timestamp_ms, delta_ms: 0, extended: None, length, kind, stream, is_full: true };
            }
            [t0, t1, t2, l0, l1, l2, kind] => {
                // librtmp begins chunk stream 2 like this, with nothing earlier to refer to.
                let (delta_ms, length) = (u32::from_be_bytes([0, t0, t1, t2]), u32::from_be_bytes([0, l0, l1, l2]));
                header = Header { delta_ms, length, kind, extended: None, is_full: false, ..header };
            }
            [t0, t1, t2] if known.is_some() => {
                let delta_ms = u32::from_be_bytes([0, t0, t1, t2]);
                header = Header { delta_ms, extended: None, is_full: false, ..header };
            }
            _ if known.is_some() => {
                let Some(repeated) = repeats(header.extended, bytes.get(used..).unwrap_or_default()) else {
                    return Ok(None);
                };
                used += repeated;
                return Ok(Some(Begin { id, format, header, used }));
            }
            _ => return Err(Error::NoEarlierHeader),
        }
        let field = if format == 0 { &mut header.timestamp_ms } else { &mut header.delta_ms };
        if *field == EXTENDED {
            let Some(extended) = bytes.get(used..).and_then(|rest| rest.first_chunk()) else {
                return Ok(None);
            };
            *field = u32::from_be_bytes(*extended);
            header.extended = Some(*field);
            used += extended.len();
        }
        Ok(Some(Begin { id, format, header, used }))
    }

    /// Takes note of a header: a message begins or goes on.
    fn open(&mut self, begin: &Begin) -> Result<(), Error> {
        let index = match self.streams.iter().position(|stream| stream.id == begin.id) {
            Some(index) => index,
            None if self.streams.len() >= CHUNK_STREAMS_MAX => return Err(Error::ChunkStreams),
            None => {
                self.streams.push(ChunkStream { id: begin.id, ..ChunkStream::default() });
                self.streams.len() - 1
            }
        };
        let chunk_bytes = self.chunk_bytes();
        let Some(stream) = self.streams.get_mut(index) else {
            return Err(Error::ChunkStreams);
        };
        if !stream.is_within || begin.format != 3 {
            if stream.is_within {
                self.held_bytes -= stream.partial.capacity();
                self.aborted += 1;
            }
            stream.begin(begin);
        }
        let left = (stream.header.length as usize).saturating_sub(stream.partial.len());
        self.chunk = Some((index, left.min(chunk_bytes)));
        Ok(())
    }

    /// Takes what has come of the chunk; gives the message if that made it whole.
    fn take(&mut self) -> Result<Option<Message>, Error> {
        let Some((index, mut left)) = self.chunk else {
            return Ok(None);
        };
        let Some(stream) = self.streams.get_mut(index) else {
            return Ok(None);
        };
        let length = stream.header.length as usize;
        if let Some(front) = self.input.front()
            && left == length
            && left > 0
            && self.carry.is_empty()
            && stream.partial.is_empty()
            && front.len() - self.at >= left
        {
            let payload = front.slice(self.at..self.at + left);
            let message = stream.finish(payload);
            self.chunk = None;
            self.skip(left);
            return Ok(Some(message));
        }
        while left > 0 {
            let Some(bytes) = next_bytes(&self.carry, self.input.front(), self.at) else {
                self.chunk = Some((index, left));
                return Ok(None);
            };
            let bytes = bytes.get(..left).unwrap_or(bytes);
            let taken = bytes.len();
            self.held_bytes += grow(&mut stream.partial, taken, length);
            if self.held_bytes > HELD_BYTES_MAX {
                return Err(Error::Held);
            }
            stream.partial.extend_from_slice(bytes);
            left -= taken;
            skip(&mut self.carry, &mut self.input, &mut self.at, taken);
        }
        self.chunk = None;
        if stream.partial.len() < length {
            return Ok(None);
        }
        self.held_bytes -= stream.partial.capacity();
        let payload = std::mem::take(&mut stream.partial).into();
        Ok(Some(stream.finish(payload)))
    }

    fn skip(&mut self, bytes: usize) {
        skip(&mut self.carry, &mut self.input, &mut self.at, bytes);
    }

    /// RTMP 5.4.1: 1 to 2^31 - 1, of which everything above 2^24 - 1 means the same.
    fn set_chunk_size(&mut self, payload: &[u8]) -> Result<(), Error> {
        let size = u32::from_be_bytes(*payload.first_chunk().ok_or(Error::Control)?);
        if size == 0 || size > i32::MAX as u32 {
            return Err(Error::ChunkSize(size));
        }
        self.chunk_bytes = (size as usize).min(CHUNK_BYTES_MAX);
        Ok(())
    }

    const fn chunk_bytes(&self) -> usize {
        if self.chunk_bytes == 0 { CHUNK_BYTES } else { self.chunk_bytes }
    }

    /// RTMP 5.4.2.
    fn abort(&mut self, payload: &[u8]) -> Result<(), Error> {
        let id = u32::from_be_bytes(*payload.first_chunk().ok_or(Error::Control)?);
        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.id == id && stream.is_within) {
            self.held_bytes -= stream.partial.capacity();
            stream.partial = Vec::new();
            stream.is_within = false;
            self.aborted += 1;
        }
        Ok(())
    }
}

impl ChunkStream {
    /// A message begins; what there was of another is gone.
    fn begin(&mut self, begin: &Begin) {
        let before = self.header;
        self.header = begin.header;
        self.partial = Vec::new();
        self.is_within = true;
        match begin.format {
            0 => {}
            // By RTMP 5.3.1.2.4 the timestamp is the delta then. ffmpeg means that, when both are the same small number;
            // librtmp and others mean that no time has passed.
            3 if before.is_full && before.timestamp_ms <= DELTA_LIKELY_MS => {
                self.header.delta_ms = before.timestamp_ms;
                self.header.is_full = false;
                self.header.timestamp_ms = before.timestamp_ms.wrapping_mul(2);
            }
            _ => self.header.timestamp_ms = before.timestamp_ms.wrapping_add(self.header.delta_ms),
        }
    }

    fn finish(&mut self, payload: Payload) -> Message {
        self.is_within = false;
        let Header { timestamp_ms, kind, stream, .. } = self.header;
        Message { kind, stream, timestamp_ms, payload }
    }
}

/// Chunk stream id, format and length of a basic header (RTMP 5.3.1.1).
fn parse_basic(bytes: &[u8]) -> Option<(u32, u8, usize)> {
    let (first, rest) = bytes.split_first()?;
    let format = first >> 6;
    Some(match (first & 0x3f, rest) {
        (0, [low, ..]) => (64 + u32::from(*low), format, 2),
        (1, [low, high, ..]) => (64 + u32::from(*low) + 256 * u32::from(*high), format, 3),
        (0 | 1, _) => return None,
        (id, _) => (id.into(), format, 1),
    })
}

/// How many of `bytes`, which follow a header of format 3, repeat the extended timestamp: RTMP 5.3.1.3 wants that, and
/// some senders do not. `None` when that is not yet to be told.
fn repeats(extended: Option<u32>, bytes: &[u8]) -> Option<usize> {
    let Some(extended) = extended.map(u32::to_be_bytes) else {
        return Some(0);
    };
    match bytes.first_chunk() {
        Some(bytes) => Some(if *bytes == extended { extended.len() } else { 0 }),
        None if extended.starts_with(bytes) => None,
        None => Some(0),
    }
}

/// What comes next: of the carry, else of the first part.
fn next_bytes<'a>(carry: &'a [u8], front: Option<&'a Payload>, at: usize) -> Option<&'a [u8]> {
    if carry.is_empty() { front?.get(at..) } else { Some(carry) }
}

/// Passes over bytes of the carry, then of the first part.
fn skip<const N: usize>(carry: &mut ArrayVec<u8, N>, input: &mut VecDeque<Payload>, at: &mut usize, bytes: usize) {
    let carried = bytes.min(carry.len());
    carry.drain(..carried);
    *at += bytes - carried;
    if input.front().is_some_and(|front| *at >= front.len()) {
        input.pop_front();
        *at = 0;
    }
}

/// Makes room for `more` bytes of `length` in all; gives by how much the capacity grew. What was announced is not reserved
/// before it comes, but for the usual size.
fn grow(partial: &mut Vec<u8>, more: usize, length: usize) -> usize {
    let before = partial.capacity();
    let needed = partial.len() + more;
    if needed > before {
        let reserve = if needed > PROVED_BYTES { RESERVE_BYTES } else { PROVED_BYTES };
        let wanted = length.min((2 * before).max(needed).max(reserve));
        partial.reserve_exact(wanted - partial.len());
    }
    partial.capacity() - before
}

/// Messages in, bytes out.
#[derive(Debug)]
pub struct Writer {
    chunk_bytes: usize,
    /// What was last sent on each chunk stream, by its id.
    last: [Option<Last>; WRITER_STREAMS],
}

/// What may be left out of the next header.
#[derive(Clone, Copy, Debug)]
struct Last {
    timestamp_ms: u32,
    length: usize,
    kind: u8,
    stream: u32,
}

/// The chunk streams that are written on. Which message goes on which is the sender's choice; these are ffmpeg's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Of protocol control messages (RTMP 5.4).
    Control = 2,
    /// Of commands.
    Command = 3,
    /// Of audio.
    Audio = 4,
    /// Of data.
    Data = 5,
    /// Of video.
    Video = 6,
}

impl Lane {
    /// The usual one for a type of message.
    #[must_use]
    pub const fn of(kind: u8) -> Self {
        match kind {
            kind::AUDIO => Self::Audio,
            kind::VIDEO => Self::Video,
            kind::DATA | kind::DATA_AMF3 => Self::Data,
            kind::COMMAND | kind::COMMAND_AMF3 => Self::Command,
            _ => Self::Control,
        }
    }
}

impl Default for Writer {
    fn default() -> Self {
        Self { chunk_bytes: CHUNK_BYTES, last: [None; WRITER_STREAMS] }
    }
}

impl Writer {
    /// Sends larger chunks from now on: the message that tells the peer so is written first.
    pub fn set_chunk_size(&mut self, size_bytes: u32, out: &mut VecDeque<Piece>) {
        let size_bytes = size_bytes.clamp(1, CHUNK_BYTES_MAX as u32);
        let payload = size_bytes.to_be_bytes().to_vec().into();
        self.write(&Message { kind: kind::CHUNK_SIZE, payload, ..Message::default() }, out);
        self.chunk_bytes = size_bytes as usize;
    }

    /// Cuts a message into chunks. What is above [`MESSAGE_BYTES_MAX`] cannot be said, and is left out.
    pub fn write(&mut self, message: &Message, out: &mut VecDeque<Piece>) {
        let length = message.payload.len();
        if length > MESSAGE_BYTES_MAX as usize {
            return;
        }
        let lane = Lane::of(message.kind) as u8;
        let Some(last) = self.last.get_mut(usize::from(lane)) else {
            return;
        };
        let (header, time) = header_after(*last, lane, message);
        *last = Some(Last { timestamp_ms: message.timestamp_ms, length, kind: message.kind, stream: message.stream });
        let mut begin = length.min(self.chunk_bytes);
        out.push_back(Piece { header, payload: message.payload.slice(0..begin) });
        let mut next = WireHeader::new();
        next.push(3 << 6 | lane);
        if time >= EXTENDED {
            next.extend(time.to_be_bytes());
        }
        while begin < length {
            let end = length.min(begin + self.chunk_bytes);
            out.push_back(Piece { header: next.clone(), payload: message.payload.slice(begin..end) });
            begin = end;
        }
    }
}

/// The shortest header for a message, and what it says of the time: with all fields for the first and where the time goes
/// back.
fn header_after(last: Option<Last>, lane: u8, message: &Message) -> (WireHeader, u32) {
    let length = message.payload.len();
    let delta = |last: Last| message.timestamp_ms.wrapping_sub(last.timestamp_ms);
    let last = last.filter(|last| last.stream == message.stream && delta(*last) <= i32::MAX as u32);
    let (format, time) = match last {
        None => (0, message.timestamp_ms),
        Some(last) if (last.length, last.kind) == (length, message.kind) => (2, delta(last)),
        Some(last) => (1, delta(last)),
    };
    let mut header = WireHeader::new();
    let [_, t0, t1, t2] = time.min(EXTENDED).to_be_bytes();
    header.extend([format << 6 | lane, t0, t1, t2]);
    if format < 2 {
        let [_, l0, l1, l2] = (length as u32).to_be_bytes();
        header.extend([l0, l1, l2, message.kind]);
    }
    if format == 0 {
        header.extend(message.stream.to_le_bytes());
    }
    if time >= EXTENDED {
        header.extend(time.to_be_bytes());
    }
    (header, time)
}

/// Largest chunk until something else is agreed on (RTMP 5.4.1).
pub const CHUNK_BYTES: usize = 128;

/// Largest chunk of all: no message is longer than its length field can say.
pub const CHUNK_BYTES_MAX: usize = MESSAGE_BYTES_MAX as usize;

/// Longest message: what its length field can say (RTMP 5.3.1.2.1).
pub const MESSAGE_BYTES_MAX: u32 = (1 << 24) - 1;

/// Most chunk streams that a peer may use. Judgement: encoders use up to six; each costs under 100 bytes.
pub const CHUNK_STREAMS_MAX: usize = 64;

/// Most memory for messages that are not whole. Judgement: two of the longest.
pub const HELD_BYTES_MAX: usize = 32 << 20;

/// Most parts that wait to be read. Judgement: a driver reads one, then drains.
pub const INPUTS_MAX: usize = 16;

/// Basic header of 3 bytes, message header of 11, extended timestamp.
const HEADER_BYTES_MAX: usize = 18;

/// The timestamp field that says that the extended one follows (RTMP 5.3.1.3).
const EXTENDED: u32 = 0x00ff_ffff;

/// Memory for a message that is longer than [`PROVED_BYTES`], at once if it has so much. Measurement: pictures of 50 Mb/s have
/// 250 KB, and were copied twice more while they grew.
const RESERVE_BYTES: usize = 1 << 18;
/// Reserved before so much came. Judgement: beginnings of messages on all chunk streams of a stranger are 64 kB then; what is
/// reserved and not written to takes no memory, and the first read of a long message brings twice as much.
const PROVED_BYTES: usize = 1_024;

/// A chunk of which less is to come is read with what follows it. Judgement: most of them come in one packet.
const ROOM_BYTES_MIN: usize = 4_096;

/// Longest frame whose duration a first timestamp may be. Judgement: 4 pictures a second.
const DELTA_LIKELY_MS: u32 = 250;

/// Ids up to that of [`Lane::Video`].
const WRITER_STREAMS: usize = Lane::Video as usize + 1;

#[cfg(any(test, fuzzing))]
pub use check::check_any_bytes;

/// What must hold for any bytes whatever.
#[cfg(any(test, fuzzing))]
mod check {
    use super::*;

    /// Read in pieces as the first byte says, any bytes give the same messages and the same end as read in one piece;
    /// what they hold is bounded; and the messages are read the same when written again.
    pub fn check_any_bytes(bytes: &[u8]) {
        let Some((cut, bytes)) = bytes.split_first() else {
            return;
        };
        let (whole, end) = read(bytes, (2_000, false));
        let (in_parts, end_in_parts) = read(bytes, (1 + usize::from(*cut), true));
        assert_eq!((&whole, end), (&in_parts, end_in_parts));
        let (mut writer, mut pieces) = (Writer::default(), VecDeque::new());
        writer.set_chunk_size(1 + u32::from(*cut), &mut pieces);
        for message in &whole {
            writer.write(message, &mut pieces);
        }
        let written: Vec<u8> = pieces.iter().flat_map(|piece| [&piece.header[..], &piece.payload].concat()).collect();
        assert_eq!(read(&written, (2_000, true)), (whole, None));
    }

    /// Cut into parts of this length, of which as much is put where it belongs as there is room for, or nothing.
    pub(super) fn read(bytes: &[u8], parts: (usize, bool)) -> (Vec<Message>, Option<Error>) {
        let (mut reader, mut messages) = (Reader::new(), Vec::new());
        let (cut, uses_room) = parts;
        for mut part in bytes.chunks(cut) {
            if let Some((room, count)) = reader.room().filter(|_| uses_room) {
                let capacity = room.capacity();
                let put = part.split_off(..count.min(part.len())).unwrap_or_default();
                room.extend_from_slice(put);
                assert_eq!(room.capacity(), capacity);
                reader.appended(put.len());
            }
            assert_eq!(reader.push(part.into()), Ok(()));
            loop {
                match reader.poll() {
                    Ok(Some(message)) => messages.push(message),
                    Ok(None) => break,
                    Err(error) => return (messages, Some(error)),
                }
                assert!(reader.held_bytes <= HELD_BYTES_MAX && reader.streams.len() <= CHUNK_STREAMS_MAX);
            }
            assert_eq!(reader.waiting(), 0);
            let held: usize = reader.streams.iter().map(|stream| stream.partial.capacity()).sum();
            assert_eq!(reader.held_bytes, held);
        }
        (messages, None)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::check::read;
    use super::*;

    #[test]
    fn the_first_example_of_the_standard_is_read() {
        // RTMP 5.3.2.1: four audio messages of 32 bytes, 20 ms apart.
        let bytes = [
            &[0x03, 0, 0x03, 0xe8, 0, 0, 32, 8, 0x39, 0x30, 0, 0][..],
            &[1; 32],
            &[0x83, 0, 0, 20],
            &[2; 32],
            &[0xc3],
            &[3; 32],
            &[0xc3],
            &[4; 32],
        ]
        .concat();
        let (messages, end) = read_all(&bytes);
        let times: Vec<u32> = messages.iter().map(|message| message.timestamp_ms).collect();
        assert_eq!((times, end), (vec![1_000, 1_020, 1_040, 1_060], None));
        assert!(messages.iter().all(|message| message.stream == 12_345 && message.payload.kept_bytes() == bytes.len()));
        assert_eq!(&*messages[3].payload, &[4; 32]);
    }

    #[test]
    fn the_second_example_of_the_standard_is_read() {
        // RTMP 5.3.2.2: a video message of 307 bytes in three chunks.
        let bytes = [
            &[0x04, 0, 0x03, 0xe8, 0, 1, 51, 9, 0x3a, 0x30, 0, 0][..],
            &[1; 128],
            &[0xc4],
            &[2; 128],
            &[0xc4],
            &[3; 51],
        ]
        .concat();
        let (messages, end) = read_all(&bytes);
        assert_eq!((messages.len(), end), (1, None));
        assert_eq!(&*messages[0].payload, [&[1; 128][..], &[2; 128], &[3; 51]].concat());
    }

    #[test]
    fn messages_of_several_chunk_streams_interleave() {
        let video = [&[0x06, 0, 0, 0, 0, 1, 44, 9, 1, 0, 0, 0][..], &[9; 128]].concat();
        let audio = [&[0x04, 0, 0, 0, 0, 0, 50, 8, 1, 0, 0, 0][..], &[8; 50]].concat();
        let bytes = [&video[..], &audio, &[0xc6], &[9; 128], &[0xc4], &[7; 50], &[0xc6], &[9; 44]].concat();
        let (messages, end) = read_all(&bytes);
        let lengths: Vec<_> = messages.iter().map(|message| (message.kind, message.payload.len())).collect();
        assert_eq!((lengths, end), (vec![(8, 50), (8, 50), (9, 300)], None));
    }

    #[test]
    fn what_is_put_where_it_belongs_is_read_as_what_came_in_packets() {
        let mut pieces = VecDeque::new();
        let mut writer = Writer::default();
        writer.set_chunk_size(60_000, &mut pieces);
        let lengths = [200_000, 300, 90_000, 60_000, 5_000];
        let payload = |length: usize| (0..length).map(|n| ((n * length) >> 7) as u8).collect::<Vec<u8>>();
        for length in lengths {
            let kind = if length < 1_000 { kind::AUDIO } else { kind::VIDEO };
            writer.write(&Message { kind, payload: payload(length).into(), ..Message::default() }, &mut pieces);
        }
        let bytes: Vec<u8> = pieces.iter().flat_map(|piece| [&piece.header[..], &piece.payload].concat()).collect();
        for cut in [1_000, 1_999, 2_048] {
            let (messages, end) = read(&bytes, (cut, true));
            assert_eq!((messages.len(), end), (lengths.len(), None), "{cut}");
            for (message, length) in messages.iter().zip(lengths) {
                assert!(*message.payload == payload(length), "{cut}: {length}");
            }
        }
        let mut reader = Reader::new();
        for part in bytes[..20_000].chunks(2_000) {
            reader.push(part.into()).unwrap();
            assert_eq!(reader.poll(), Ok(None));
        }
        let (room, count) = reader.room().unwrap();
        assert!(room.len() > 19_000 && count > 30_000 && room.len() + count <= 60_000, "the rest of the chunk");
    }

    #[test]
    fn extended_timestamps_may_be_repeated_or_not() {
        let first =
            [&[0x06, 0xff, 0xff, 0xff, 0, 0, 200, 9, 1, 0, 0, 0, 0x01, 0x02, 0x03, 0x04][..], &[9; 128]].concat();
        let with = [&first[..], &[0xc6, 1, 2, 3, 4], &[5; 72]].concat();
        let without = [&first[..], &[0xc6], &[5; 72]].concat();
        for bytes in [with, without] {
            let (messages, end) = read_all(&bytes);
            assert_eq!((messages.len(), end), (1, None));
            assert_eq!(messages[0].timestamp_ms, 0x0102_0304);
            assert_eq!(&*messages[0].payload, [&[9; 128][..], &[5; 72]].concat());
        }
    }

    #[test]
    fn what_only_looks_like_an_extended_timestamp_is_payload_at_any_cut() {
        let first = [&[0x06, 0xff, 0xff, 0xff, 0, 0, 130, 9, 1, 0, 0, 0, 1, 2, 3, 4][..], &[9; 128]].concat();
        // The last two bytes of the first message begin as the field would; an audio message follows.
        let bytes = [&first[..], &[0xc6, 1, 2], &[0x04, 0, 0, 0, 0, 0, 1, 8, 1, 0, 0, 0, 7]].concat();
        for cut in 1..bytes.len() {
            let (messages, end) = read(&bytes, (cut, true));
            assert_eq!((messages.len(), end), (2, None), "{cut}");
            assert_eq!(&messages[0].payload[127..], &[9, 1, 2]);
        }
    }

    #[test]
    fn a_first_header_without_a_stream_is_taken_and_one_without_a_length_is_not() {
        let (messages, end) = read_all(&[0x42, 0, 0, 5, 0, 0, 4, 3, 0, 0, 1, 0]);
        assert_eq!((messages.len(), messages[0].timestamp_ms, end), (1, 5, None));
        assert_eq!(read_all(&[0x82, 0, 0, 5]).1, Some(Error::NoEarlierHeader));
        assert_eq!(read_all(&[0xc2]).1, Some(Error::NoEarlierHeader));
    }

    #[test]
    fn a_message_like_a_full_one_is_later_only_by_what_a_frame_may_last() {
        for (first, expected) in [(20, 40), (0, 0), (90_000, 90_000)] {
            let [_, t0, t1, t2] = u32::to_be_bytes(first);
            let (messages, _) = read_all(&[0x04, t0, t1, t2, 0, 0, 1, 8, 1, 0, 0, 0, 7, 0xc4, 7]);
            assert_eq!(messages[1].timestamp_ms, expected);
        }
    }

    #[test]
    fn sizes_and_aborts_are_obeyed() {
        let size = |size: u32| [&[0x02, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0][..], &size.to_be_bytes()].concat();
        let head = [0x04, 0, 0, 0, 0, 0, 200, 8, 1, 0, 0, 0];
        let (messages, end) = read_all(&[&size(200)[..], &head, &[1; 200]].concat());
        assert_eq!((messages.len(), end), (1, None));
        for wrong in [0, 0x8000_0000, u32::MAX] {
            assert_eq!(read_all(&size(wrong)).1, Some(Error::ChunkSize(wrong)));
        }
        let large = [&size(i32::MAX as u32)[..], &head, &[1; 200]].concat();
        assert_eq!(read_all(&large).0.len(), 1);
        let abort = [&head[..], &[1; 128], &[0x02, 0, 0, 0, 0, 0, 4, 2, 0, 0, 0, 0, 0, 0, 0, 4]].concat();
        let (messages, end) = read_all(&[&abort[..], &[0xc4], &[2; 128], &[0xc4], &[3; 72]].concat());
        assert_eq!((messages.len(), end), (1, None));
        assert_eq!(messages[0].payload[0], 2);
    }

    #[test]
    fn a_new_header_gives_up_what_was_unfinished() {
        let head = [0x04, 0, 0, 0, 0, 0, 200, 8, 1, 0, 0, 0];
        let mut reader = Reader::new();
        let bytes = [&head[..], &[1; 128], &head, &[2; 128], &[0xc4], &[2; 72]].concat();
        reader.push(bytes.into()).unwrap();
        let message = reader.poll().unwrap().unwrap();
        assert_eq!((message.payload[0], reader.aborted()), (2, 1));
        assert_eq!(reader.held_bytes, 0);
    }

    #[test]
    fn ids_of_all_lengths_are_read_and_their_number_is_bounded() {
        let head = [0, 0, 0, 0, 0, 1, 8, 1, 0, 0, 0, 7];
        for basic in [&[63][..], &[0, 255], &[1, 0, 0], &[1, 255, 255]] {
            assert_eq!(read_all(&[basic, &head[..]].concat()).0.len(), 1);
        }
        let bytes: Vec<u8> = (2..=255).flat_map(|id| [&[0, id][..], &head[..]].concat()).collect();
        let (messages, end) = read_all(&bytes);
        assert_eq!((messages.len(), end), (CHUNK_STREAMS_MAX, Some(Error::ChunkStreams)));
    }

    #[test]
    fn what_unfinished_messages_hold_is_bounded() {
        // Three messages of 16 MiB, each without its last byte.
        let mut reader = Reader::new();
        let mut feed = |bytes: &[u8]| {
            bytes.chunks(60_000).try_for_each(|part| {
                reader.push(part.into()).unwrap();
                reader.poll().map(|message| assert_eq!(message, None))
            })
        };
        feed(&[0x02, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0, 0, 0xff, 0xff, 0xf0]).unwrap();
        let body = vec![0; 0x00ff_fff0];
        let ends = [4, 5, 6].map(|id| feed(&[id, 0, 0, 0, 0xff, 0xff, 0xff, 9, 1, 0, 0, 0]).and_then(|()| feed(&body)));
        assert_eq!(ends, [Ok(()), Ok(()), Err(Error::Held)]);
    }

    #[test]
    fn a_message_announced_takes_no_memory_before_it_comes() {
        let mut reader = Reader::new();
        for id in 2..60 {
            let head = [&[id, 0, 0, 0, 0xff, 0xff, 0xff, 9, 1, 0, 0, 0][..], &[7; 128]].concat();
            reader.push(head.into()).unwrap();
            assert_eq!(reader.poll(), Ok(None));
        }
        assert!(reader.held_bytes <= 64 * PROVED_BYTES);
    }

    #[test]
    fn more_than_it_takes_is_refused() {
        let mut reader = Reader::new();
        let part = Payload::from(&[0x04][..]);
        let pushed = (0..=INPUTS_MAX).map(|_| reader.push(part.clone())).collect::<Vec<_>>();
        assert_eq!(pushed.iter().filter(|pushed| pushed.is_ok()).count(), INPUTS_MAX);
        assert_eq!(pushed.last(), Some(&Err(Error::Overrun)));
    }

    #[test]
    fn headers_are_as_short_as_the_last_one_allows() {
        let message = |timestamp_ms, len: usize| Message {
            kind: kind::VIDEO,
            stream: 1,
            timestamp_ms,
            payload: vec![7; len].into(),
        };
        let (mut writer, mut out) = (Writer::default(), VecDeque::new());
        for (timestamp_ms, len, expected) in
            [(1_000, 9, 12), (1_040, 8, 8), (1_080, 8, 4), (1_000, 8, 12), (0x0200_0000, 8, 8), (5, 8, 12)]
        {
            writer.write(&message(timestamp_ms, len), &mut out);
            assert_eq!(out.pop_back().unwrap().header.len(), expected, "{timestamp_ms}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_at_any_cut_and_chunk_size(
            messages in proptest::collection::vec(any_message(), 1..20), size in 1_u32..3_000, cut in 1_usize..3_000
        ) {
            let (mut writer, mut out) = (Writer::default(), VecDeque::new());
            writer.set_chunk_size(size, &mut out);
            messages.iter().for_each(|message| writer.write(message, &mut out));
            let bytes: Vec<u8> = out.iter().flat_map(|piece| [&piece.header[..], &piece.payload].concat()).collect();
            prop_assert_eq!(read(&bytes, (cut, true)), (messages, None));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>, begin in 0_usize..4) {
            check_any_bytes(&bytes);
            // Most of those are refused at once; these begin well.
            let head = [0x04, 0xff, 0xff, 0xff, 0, 0, 150, 8, 1, 0, 0, 0, 0, 1, 2, 3];
            check_any_bytes(&[&[7][..], &head, &[0; 128], &[0xc4, 0, 1, 2][..begin + 1], &bytes].concat());
        }
    }

    fn any_message() -> impl Strategy<Value = Message> {
        let kinds = prop_oneof![Just(kind::AUDIO), Just(kind::VIDEO), Just(kind::COMMAND), Just(kind::DATA)];
        let times = prop_oneof![0_u32..100, any::<u32>(), 0xff_fff0_u32..0x100_0010];
        (kinds, 0_u32..3, times, proptest::collection::vec(any::<u8>(), 0..4_000)).prop_map(
            |(kind, stream, timestamp_ms, payload)| Message { kind, stream, timestamp_ms, payload: payload.into() },
        )
    }

    fn read_all(bytes: &[u8]) -> (Vec<Message>, Option<Error>) {
        read(bytes, (2_000, true))
    }
}
