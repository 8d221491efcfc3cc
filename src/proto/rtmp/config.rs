//! Settings of a connection.

use std::time::Duration;

/// What both sides may set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// How long a peer may take from the first byte to being ready: handshake, connecting, asking to publish or to play.
    pub setup_timeout: Duration,
    /// How long a publisher may bring neither audio nor video; also a server that is played from.
    pub idle_timeout: Duration,
    /// Size of the chunks sent, once the peer was told of it.
    pub chunk_bytes: u32,
    /// Most bytes that wait to be sent. What is above is refused, and counted.
    pub send_bytes_max: usize,
}

impl Default for Config {
    /// 10 s and 30 s: judgement, encoders are ready within one round trip or three and send audio all the time. Chunks as
    /// ffmpeg's, which all servers know. 8 MiB: 6 s at 10 Mb/s.
    fn default() -> Self {
        Self {
            setup_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
            chunk_bytes: 60_000,
            send_bytes_max: 8 << 20,
        }
    }
}
