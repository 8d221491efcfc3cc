//! What one side wants of a connection; the names in brackets are libsrt's options.

use std::time::Duration;

use super::agree;
use super::congestion::Bandwidth;
use super::crypto::{CipherMode, KeyLength, Passphrase, Refresh, TAG_BYTES};
use super::filter;

/// What one side wants; the handshake settles what both get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Least time from sending to release of what we receive (`rcvlatency`).
    pub receive_latency: Duration,
    /// The same for what the peer receives (`peerlatency`).
    pub peer_latency: Duration,
    /// Who we are or what we want, for the listener to decide by (`streamid`).
    pub stream_id: String,
    /// What the keys are made from; `None` neither encrypts nor accepts an encrypted connection (`passphrase`).
    pub passphrase: Option<Passphrase>,
    /// Length of the keys that a caller makes; `None` for what the listener proposes, or 16 bytes. A listener takes
    /// the caller's (`pbkeylen`).
    pub key_length: Option<KeyLength>,
    /// How payload is encrypted (`cryptomode`).
    pub cipher: CipherMode,
    /// Packets after which the key changes; zero never changes it (`kmrefreshrate`).
    pub key_refresh_packets: u64,
    /// Packets before and after the change in which both keys are known (`kmpreannounce`).
    pub key_announce_packets: u64,
    /// How fast to send (`maxbw`, `inputbw`, `oheadbw`).
    pub bandwidth: Bandwidth,
    /// Whether what is too late is given up, on either side (`tlpktdrop`).
    pub too_late_drop: bool,
    /// How much longer than its latency the sender keeps what is late; `None` keeps it (`snddropdelay`).
    pub send_drop_delay: Option<Duration>,
    /// Whether what is missing is reported again and again (`nakreport`).
    pub nak_reports: bool,
    /// Whether a listener takes members of groups (`groupconnect`).
    pub groups: bool,
    /// Most packets that a gap may wait for reordering (`lossmaxttl`).
    pub reorder_max: u32,
    /// Repairs instead of retransmissions, or beside them. A caller who wants them is not connected without; a listener
    /// has none for callers who do not ask (`packetfilter`).
    pub packet_filter: Option<filter::Config>,
    /// Longest IP packet (`mss`).
    pub mtu: u16,
    /// Longest payload of a packet that we make (`payloadsize`).
    pub payload_max: usize,
    /// Whether packets that are longer than a peer takes are cut; if not, that peer does not get them.
    pub cut: bool,
    /// Packets that may be in flight (`fc`).
    pub flow_window: u32,
    /// Packets in the send and in the receive buffer.
    pub buffer_packets: usize,
    /// How long a handshake may take (`conntimeo`).
    pub connect_timeout: Duration,
    /// Silence after which the peer is given up (`peeridletimeo`).
    pub idle_timeout: Duration,
    /// How long a listener that sends puts up with a caller for whom it drops packets in every second, as they are too
    /// late or there is no room; zero for ever.
    pub slow_timeout: Duration,
}

impl Default for Config {
    /// libsrt's defaults for live mode, except that the send rate has no limit and groups are taken.
    fn default() -> Self {
        Self {
            receive_latency: Duration::from_millis(120),
            peer_latency: Duration::ZERO,
            stream_id: String::new(),
            passphrase: None,
            key_length: None,
            cipher: CipherMode::Ctr,
            key_refresh_packets: 1 << 24,
            key_announce_packets: 1 << 12,
            bandwidth: Bandwidth::Unlimited,
            too_late_drop: true,
            send_drop_delay: Some(Duration::ZERO),
            nak_reports: true,
            groups: true,
            reorder_max: 0,
            packet_filter: None,
            mtu: 1_500,
            payload_max: PAYLOAD_LIVE,
            cut: true,
            flow_window: 25_600,
            buffer_packets: 8_192,
            connect_timeout: Duration::from_secs(3),
            idle_timeout: Duration::from_secs(5),
            slow_timeout: Duration::from_secs(10),
        }
    }
}

/// What of a [`Config`] may change while a connection lives: what the peer was told nothing of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// As in [`Config::bandwidth`].
    pub bandwidth: Bandwidth,
    /// As in [`Config::send_drop_delay`].
    pub send_drop_delay: Option<Duration>,
    /// As in [`Config::reorder_max`].
    pub reorder_max: u32,
    /// As in [`Config::connect_timeout`]; a handshake that is under way keeps to the one it began with.
    pub connect_timeout: Duration,
    /// As in [`Config::idle_timeout`].
    pub idle_timeout: Duration,
    /// As in [`Config::key_refresh_packets`]; a key that was used for longer already changes as soon as may be.
    pub key_refresh_packets: u64,
    /// As in [`Config::key_announce_packets`].
    pub key_announce_packets: u64,
}

impl Config {
    /// What of it may change while a connection lives.
    #[must_use]
    pub const fn tuning(&self) -> Tuning {
        Tuning {
            bandwidth: self.bandwidth,
            send_drop_delay: self.send_drop_delay,
            reorder_max: self.reorder_max,
            connect_timeout: self.connect_timeout,
            idle_timeout: self.idle_timeout,
            key_refresh_packets: self.key_refresh_packets,
            key_announce_packets: self.key_announce_packets,
        }
    }

    /// The same with another tuning.
    #[must_use]
    pub fn tuned(self, tuning: &Tuning) -> Self {
        let Tuning {
            bandwidth,
            send_drop_delay,
            reorder_max,
            connect_timeout,
            idle_timeout,
            key_refresh_packets,
            key_announce_packets,
        } = *tuning;
        Self {
            bandwidth,
            send_drop_delay,
            reorder_max,
            connect_timeout,
            idle_timeout,
            key_refresh_packets,
            key_announce_packets,
            ..self
        }
    }

    pub(super) fn tune(&mut self, tuning: &Tuning) {
        *self = std::mem::take(self).tuned(tuning);
    }

    /// Bytes that a packet surely has room for, if the peer's MTU is no less than ours; `may_filter` if there may be a
    /// packet filter.
    #[must_use]
    pub fn room(&self, is_ipv4: bool, may_filter: bool) -> usize {
        let is_sealed = self.passphrase.is_some() && self.cipher == CipherMode::Gcm;
        let tag = if is_sealed { TAG_BYTES } else { 0 };
        let filter = if may_filter { filter::HEADER_BYTES } else { 0 };
        agree::payload_max(usize::from(self.mtu), is_ipv4).min(PAYLOAD_MAX) - tag - filter
    }

    pub(super) fn refresh(&self) -> Refresh {
        self.tuning().refresh()
    }
}

impl Tuning {
    pub(super) fn refresh(&self) -> Refresh {
        let every = self.key_refresh_packets;
        // Half of the span at most, or the next key would be announced before this one is old (libsrt).
        let announce = self.key_announce_packets.min(every.saturating_sub(1) / 2);
        Refresh { every, announce }
    }
}

/// Seven TS packets.
pub const PAYLOAD_LIVE: usize = 1_316;
/// What an MTU of 1500 leaves after IPv4, UDP and SRT headers.
pub const PAYLOAD_MAX: usize = 1_456;
