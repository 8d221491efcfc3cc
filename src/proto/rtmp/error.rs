//! Why a connection cannot go on, and why it ended.

use super::amf;

/// What the peer did that ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Another version than 3 in C0 or S0: encrypted RTMP, or something else altogether.
    #[error("version {0} instead of 3")]
    Version(u8),
    /// A chunk that goes on where nothing began on its chunk stream.
    #[error("chunk without an earlier header on its chunk stream")]
    NoEarlierHeader,
    /// A chunk size of zero, or above 2^31.
    #[error("chunk size {0}")]
    ChunkSize(u32),
    /// More than [`CHUNK_STREAMS_MAX`](super::chunk::CHUNK_STREAMS_MAX) chunk streams.
    #[error("too many chunk streams")]
    ChunkStreams,
    /// Unfinished messages of more than [`HELD_BYTES_MAX`](super::chunk::HELD_BYTES_MAX).
    #[error("too many bytes in unfinished messages")]
    Held,
    /// More bytes were fed than the core asked for.
    #[error("fed while it was not taking")]
    Overrun,
    /// A protocol control message without its fields.
    #[error("short control message")]
    Control,
    /// A command that is no AMF0.
    #[error("command: {0}")]
    Amf(#[from] amf::Error),
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum End {
    /// The peer broke the protocol.
    #[error(transparent)]
    Broken(#[from] Error),
    /// The peer was not ready in time.
    #[error("not ready in time")]
    Slow,
    /// Neither audio nor video came for too long.
    #[error("silent for too long")]
    Silent,
    /// The peer said that it is done.
    #[error("ended by the peer")]
    Left,
    /// The server did not want us, in its words.
    #[error("refused: {code} {description}")]
    Refused {
        /// As in `NetStream.Publish.BadName`, at most [`WORDS_BYTES_MAX`].
        code: String,
        /// For people, at most [`WORDS_BYTES_MAX`].
        description: String,
    },
    /// We did not want the peer.
    #[error("not let in")]
    NotLetIn,
    /// We closed it.
    #[error("closed")]
    Closed,
}

/// Longest text of a peer that is passed on. Judgement: a line.
pub const WORDS_BYTES_MAX: usize = 256;

/// Why a message was not put in line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsent {
    /// Nobody is ready for it.
    #[error("not ready")]
    NotReady,
    /// Too much is waiting to be sent.
    #[error("too much is waiting")]
    Full,
}
