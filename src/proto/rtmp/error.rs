//! Why a connection cannot go on.

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
    /// A message longer than [`MESSAGE_BYTES_MAX`](super::chunk::MESSAGE_BYTES_MAX).
    #[error("message of {0} bytes")]
    MessageTooLong(u32),
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
