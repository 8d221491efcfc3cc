//! Counters of one connection.

/// Since its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes that came, handshake and headers included.
    pub received_bytes: u64,
    /// Audio, video and data messages that came.
    pub media: u64,
    /// Messages of unknown types, on other message streams, or at the wrong time.
    pub unexpected: u64,
    /// Commands that are not known here.
    pub unknown_commands: u64,
    /// Messages that the peer gave up before they were whole.
    pub aborted: u64,
    /// Audio, video and data messages that were put in line to be sent.
    pub sent: u64,
    /// Those that were not, because too much was waiting.
    pub overflow: u64,
}
