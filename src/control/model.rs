//! JSON of the API: flows, sources and outputs as people write and read them, and as the store keeps them.
//!
//! These types say which fields exist and what a single value may be. What they mean together is decided in
//! [`wanted`](super::wanted).

use std::fmt;

use serde::de::{Deserializer, Error, Unexpected, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaType, Type};
use utoipa::{PartialSchema, ToSchema};

use super::problem::{Problem, from_json};
use crate::engine::url::{HIDDEN, with_secrets_of, without_secrets};
use crate::units::Bitrate;

/// A flow: the journey of one programme from 1 to 8 sources to 0 to 256 outputs.
///
/// In a request `source` alone is a flow's only source. Fields that only answers have (`id`, `status`, the times) may
/// stand in a request, so that an answer can be changed and sent back; they are not looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "a flow")]
pub struct Flow {
    /// Given by the server.
    #[schema(read_only)]
    pub id: Option<String>,
    /// What people call it; need not be unique.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// `STANDBY`, `STARTING`, `ACTIVE`, `STOPPING` or `ERROR`.
    #[schema(read_only)]
    pub status: Option<String>,
    /// The first source.
    pub source: Option<Source>,
    /// In order of preference, at most 8.
    #[serde(default, deserialize_with = "null_is_default")]
    pub sources: Vec<Source>,
    /// At most 256.
    #[serde(default, deserialize_with = "null_is_default")]
    pub outputs: Vec<Output>,
    /// How several sources work together.
    pub source_failover_config: Option<Failover>,
    /// What is watched in the pictures and sound.
    pub source_monitor_config: Option<Monitor>,
    /// When the flow may restart by itself; not available in this version.
    pub maintenance_window: Option<MaintenanceWindow>,
    /// RFC 3339, UTC.
    #[schema(read_only)]
    pub created_at: Option<String>,
    /// RFC 3339, UTC.
    #[schema(read_only)]
    pub updated_at: Option<String>,
    /// Last start; RFC 3339, UTC.
    #[schema(read_only)]
    pub started_at: Option<String>,
    /// Last stop; RFC 3339, UTC.
    #[schema(read_only)]
    pub stopped_at: Option<String>,
}

/// Where a flow takes packets from: `protocol` with single fields, or a `url`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "a source")]
pub struct Source {
    /// Unique among the flow's sources.
    pub name: String,
    /// Follows from `url` where that is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// Protocol and address in one, as `udp://@239.1.1.1:5000?iface=eth0`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Port to listen on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingest_port: Option<Port>,
    /// Address of this machine to listen on, or a multicast group to join; every interface if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingest_ip: Option<String>,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Networks that may send, separated by commas; everyone if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub whitelist_cidr: Option<String>,
    /// Host that `srt-caller` calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender_ip_address: Option<String>,
    /// Port that `srt-caller` calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender_control_port: Option<Port>,
    /// What is let in at most, in bytes per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bitrate: Option<BytesPerSecond>,
    /// Milliseconds. `rtp`: how long to wait for a missing packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_latency: Option<LatencyMs>,
    /// Milliseconds; for protocols that ask for lost packets again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_latency: Option<LatencyMs>,
    /// SRT stream id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_id: Option<String>,
    /// How what arrives is encrypted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decryption: Option<Encryption>,
    /// `CONNECTED`, `DISCONNECTED` or `ERROR`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(read_only)]
    pub status: Option<String>,
}

/// Where a flow sends packets to: `protocol` with single fields, or a `url`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an output")]
pub struct Output {
    /// Unique among the flow's outputs.
    pub name: String,
    /// Follows from `url` where that is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// Protocol and address in one, as `udp://10.0.0.9:5000?ttl=4`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Host to send to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// Port to send to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<Port>,
    /// In place of `destination` and `port`, for `rtp` and `rtp-fec`: 2 to 8 ways that the same datagrams go (SMPTE ST 2022-7), as
    /// `10.0.0.9:5004@eth1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub legs: Option<Vec<String>>,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Milliseconds; for protocols that send lost packets again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_latency: Option<LatencyMs>,
    /// Milliseconds; for protocols that send lost packets again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_latency: Option<LatencyMs>,
    /// Milliseconds over which bursts are spread; not available in this version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smoothing_latency: Option<LatencyMs>,
    /// RTMP stream key, where `url` ends with the application.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_key: Option<Secret>,
    /// Networks that may connect to an output that listens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cidr_allow_list: Option<Vec<String>>,
    /// How what leaves is encrypted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
    /// What is let out at most, in bytes per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bitrate: Option<BytesPerSecond>,
    /// Milliseconds that packets may be held back so that several leave with one system call; none if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coalesce_ms: Option<CoalesceMs>,
    /// Analysis of the transport stream that this output takes to send (ETSI TR 101 290): `ts` among its metrics. Off unless
    /// this is true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ts_analysis_enabled: Option<bool>,
    /// With what it goes on after it could not keep up; `drop-oldest` if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
    /// A disabled output is kept and sends nothing.
    #[serde(default, deserialize_with = "null_is_default")]
    pub status: OutputState,
}

/// With what an output goes on that could not keep up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// With the oldest packet still there.
    DropOldest,
    /// With the next one in which a key frame begins, or after ten seconds without one with the next one of all.
    #[serde(rename = "to-next-keyframe")]
    ToNextKeyFrame,
}

/// Names of protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// Datagrams whose payload is passed on as it is.
    Udp,
    /// RTP, RFC 3550.
    Rtp,
    /// The built-in test signal, as a source.
    Test,
    /// RTP with FEC of columns and rows, SMPTE ST 2022-1.
    RtpFec,
    /// RIST, Main profile unless a url says otherwise: a source is called, an output calls.
    Rist,
    /// SRT, called.
    SrtListener,
    /// SRT, calling.
    SrtCaller,
    /// SRT, both calling; not available in this version.
    SrtRendezvous,
    /// RTMP: its url says whether it calls or is called.
    Rtmp,
    /// Media over QUIC; not available in this version.
    Moq,
    /// A file; not available in this version.
    File,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Udp => "udp",
            Self::Rtp => "rtp",
            Self::Test => "test",
            Self::RtpFec => "rtp-fec",
            Self::Rist => "rist",
            Self::SrtListener => "srt-listener",
            Self::SrtCaller => "srt-caller",
            Self::SrtRendezvous => "srt-rendezvous",
            Self::Rtmp => "rtmp",
            Self::Moq => "moq",
            Self::File => "file",
        })
    }
}

/// Whether an output sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum OutputState {
    /// It does.
    #[default]
    Enabled,
    /// It does not.
    Disabled,
}

/// Encryption of one source or output.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "algorithm and passphrase")]
pub struct Encryption {
    /// Cipher and key length.
    pub algorithm: Algorithm,
    /// 10 to 79 characters. Answers show `***`.
    pub passphrase: Secret,
}

/// Cipher and key length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// 128 bits.
    Aes128,
    /// 192 bits.
    Aes192,
    /// 256 bits.
    Aes256,
}

/// How several sources work together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "failover settings")]
pub struct Failover {
    /// `DISABLED` keeps the flow on its primary source, whatever happens to that.
    #[serde(default)]
    pub state: FailoverState,
    /// One source at a time, or all merged.
    #[serde(default)]
    pub failover_mode: FailoverMode,
    /// How far apart merged sources may be, in milliseconds, or `auto` for as far as they are; 100 if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovery_window: Option<WindowMs>,
    /// Whether merged packets all have the same delay, that of the window, instead of waiting only at gaps.
    #[serde(default, skip_serializing_if = "is_false")]
    pub align: bool,
    /// Which source is preferred.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_priority: Option<SourcePriority>,
    /// How long the active source may be silent, in milliseconds; the server's setting if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_timeout_ms: Option<HealthTimeoutMs>,
    /// How long the primary must deliver before the flow returns to it, in milliseconds; 5000 if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold_off_ms: Option<Within<0, 3_600_000>>,
    /// What makes the flow leave a source that delivers; only silence does if not given. Not for `MERGE`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub switch_on: Option<SwitchOn>,
    /// With which packet another source begins while the last one delivers; `immediate` if not given. Not for `MERGE`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub switch_at: Option<SwitchAt>,
    /// How long a change waits for a key frame at most, in milliseconds, where `switch_at` is `keyframe`; 2000 if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub switch_wait_ms: Option<Within<0, 60_000>>,
}

/// With which packet another source begins while the last one delivers. A silent source is left at once either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SwitchAt {
    /// With the next one.
    Immediate,
    /// With the next one in which a key frame begins: a decoder shows no broken picture of the new source.
    KeyFrame,
}

/// What makes a flow leave a source that delivers: one of the thresholds or of what is seen, at least.
///
/// It goes to the next source that has been below all thresholds for a second, or to one that is at most half as bad, and
/// else it stays. It returns to the primary after that has been below them for `hold_off_ms` of the flow, and for
/// `return_hold_off_ms` at half of them if it was faulty. There is one change within the hold-off at most.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "what to switch on")]
pub struct SwitchOn {
    /// Packets lost of a thousand within a second, after all that recovers them. Needs a source of
    /// `rtp`, `rtp-fec`, `rist` or SRT.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss_per_mille: Option<Within<1, 999>>,
    /// Errors of the transport stream in a second, of the first priority of TR 101 290.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ts_errors_per_second: Option<Within<1, 100_000>>,
    /// The picture is black. This and the next four need all sources to be decoded, within the server's budget; of a source of
    /// which it is not known it is not so, and no source is left for one of which it is not known.
    #[serde(default, skip_serializing_if = "is_false")]
    pub black: bool,
    /// The picture stands still.
    #[serde(default, skip_serializing_if = "is_false")]
    pub frozen: bool,
    /// There is no sound in the sound.
    #[serde(default, skip_serializing_if = "is_false")]
    pub silent: bool,
    /// Packets come, but no pictures.
    #[serde(default, skip_serializing_if = "is_false")]
    pub no_video: bool,
    /// Packets come, but no sound.
    #[serde(default, skip_serializing_if = "is_false")]
    pub no_audio: bool,
    /// For how long it must be so, in milliseconds; 2000 if not given. Below 1000 a single burst is enough.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold_off_ms: Option<Within<0, 3_600_000>>,
    /// For how long it must be at most half as much until the source is good again, in milliseconds; 5000 if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub return_hold_off_ms: Option<Within<0, 3_600_000>>,
}

/// How far apart merged sources may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowMs {
    /// Milliseconds.
    Fixed(Within<1, 15_000>),
    /// As far as they are.
    Auto,
}

impl Serialize for WindowMs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Fixed(ms) => ms.serialize(serializer),
            Self::Auto => serializer.serialize_str("auto"),
        }
    }
}

impl<'de> Deserialize<'de> for WindowMs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WindowVisitor)
    }
}

struct WindowVisitor;

impl Visitor<'_> for WindowVisitor {
    type Value = WindowMs;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number from 1 to 15000, or \"auto\"")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<WindowMs, E> {
        let number = WithinVisitor::<1, 15_000>.visit_u64(number);
        number.map(|ms| WindowMs::Fixed(Within(ms)))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<WindowMs, E> {
        let number = WithinVisitor::<1, 15_000>.visit_i64(number);
        number.map(|ms| WindowMs::Fixed(Within(ms)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<WindowMs, E> {
        if text == "auto" { Ok(WindowMs::Auto) } else { Err(E::invalid_value(Unexpected::Str(text), &self)) }
    }
}

impl PartialSchema for WindowMs {
    fn schema() -> RefOr<Schema> {
        let auto = ObjectBuilder::new().schema_type(SchemaType::Type(Type::String)).enum_values(Some(["auto"]));
        // Not imported: in derived code the full name would then count as too long.
        utoipa::openapi::schema::OneOfBuilder::new().item(Within::<1, 15_000>::schema()).item(auto).into()
    }
}

impl ToSchema for WindowMs {}

/// Whether a flow changes its source by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum FailoverState {
    /// It does.
    #[default]
    Enabled,
    /// It does not.
    Disabled,
}

/// One source at a time, or all merged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum FailoverMode {
    /// One at a time.
    #[default]
    Failover,
    /// All merged by sequence number; each must be `rtp`, `rtp-fec`, `rist`, or SRT with `payload=rtp` in its `url`.
    Merge,
}

/// Which source is preferred.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "a primary source")]
pub struct SourcePriority {
    /// Name of a source; the first one if not given.
    pub primary_source: Option<String>,
}

/// What is watched in the pictures and sound.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "monitor settings")]
pub struct Monitor {
    /// Small pictures of what outputs get.
    #[serde(default)]
    pub thumbnail_enabled: bool,
    /// Seconds between two pictures; 5 if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thumbnail_interval_sec: Option<Within<1, 3_600>>,
    /// Black, frozen and silent detection, and loudness.
    #[serde(default)]
    pub content_quality_enabled: bool,
    /// Analysis of the transport stream of each source (ETSI TR 101 290): `ts` in the metrics, and events; and metadata of
    /// what outputs get. On unless this is false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ts_analysis_enabled: Option<bool>,
}

/// When a flow may restart by itself.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "a maintenance window")]
pub struct MaintenanceWindow {
    /// `Monday` to `Sunday`.
    pub day_of_week: String,
    /// UTC.
    pub start_hour: Within<0, 23>,
}

/// A UDP or TCP port.
pub type Port = Within<1, 65_535>;
/// Milliseconds of receive buffer.
pub type LatencyMs = Within<0, 15_000>;
/// Milliseconds that packets may be held back; the end is [`COALESCE_MAX`](crate::engine::config::COALESCE_MAX).
pub type CoalesceMs = Within<0, 100>;
/// Milliseconds of silence.
pub type HealthTimeoutMs = Within<10, 60_000>;
/// Bytes per second, up to 100 Gb/s.
pub type BytesPerSecond = Within<1, 12_500_000_000>;

impl Flow {
    /// Reads a flow from the body of a request.
    ///
    /// # Errors
    /// The field at fault and the fix.
    pub fn from_json(text: &[u8]) -> Result<Self, Problem> {
        from_json(text)
    }

    /// The same flow without passphrases and stream keys, for whoever asks.
    #[must_use]
    pub fn without_secrets(mut self) -> Self {
        for source in self.sources.iter_mut().chain(&mut self.source) {
            source.decryption.iter_mut().for_each(|encryption| encryption.passphrase.hide());
            source.url.iter_mut().for_each(|url| *url = without_secrets(url));
        }
        for output in &mut self.outputs {
            output.encryption.iter_mut().for_each(|encryption| encryption.passphrase.hide());
            let is_beside = output.stream_key.is_some();
            output.stream_key.iter_mut().for_each(Secret::hide);
            output.url.iter_mut().for_each(|url| *url = shown_url(url, is_beside));
        }
        self
    }

    /// Puts the secrets of `old` where this one shows them hidden, as it does if somebody sends back what he was shown.
    #[must_use]
    pub fn with_secrets_of(mut self, old: &Self) -> Self {
        for source in self.sources.iter_mut().chain(&mut self.source) {
            let mut olds = old.sources.iter().chain(&old.source);
            let Some(old) = olds.find(|old| old.name == source.name) else { continue };
            restore_url(&mut source.url, old.url.as_ref());
            restore_passphrase(&mut source.decryption, old.decryption.as_ref());
        }
        for output in &mut self.outputs {
            let Some(old) = old.outputs.iter().find(|old| old.name == output.name) else { continue };
            restore_url(&mut output.url, old.url.as_ref());
            restore_passphrase(&mut output.encryption, old.encryption.as_ref());
            if output.stream_key.as_ref().is_some_and(Secret::is_hidden) {
                output.stream_key.clone_from(&old.stream_key);
            }
        }
        self
    }
}

/// As it may be shown; with its key beside it, the URL ends with the application.
fn shown_url(url: &str, is_key_beside: bool) -> String {
    let whole = format!("{}/{HIDDEN}", url.trim_end_matches('/'));
    let shown = without_secrets(&whole);
    match shown.strip_suffix(HIDDEN) {
        Some(shown) if is_key_beside && shown.trim_end_matches('/') == url.trim_end_matches('/') => url.into(),
        Some(shown) if is_key_beside && !url.contains('?') => shown.trim_end_matches('/').into(),
        _ => without_secrets(url),
    }
}

fn restore_url(url: &mut Option<String>, old: Option<&String>) {
    if let (Some(url), Some(old)) = (url, old) {
        *url = with_secrets_of(url, old);
    }
}

fn restore_passphrase(encryption: &mut Option<Encryption>, old: Option<&Encryption>) {
    if let (Some(encryption), Some(old)) = (encryption, old)
        && encryption.passphrase.is_hidden()
    {
        encryption.passphrase.clone_from(&old.passphrase);
    }
}

impl BytesPerSecond {
    /// As a bit rate.
    #[must_use]
    pub const fn as_bitrate(self) -> Bitrate {
        Bitrate::from_bps(self.0 * 8)
    }
}

/// For what is not shown unless it was asked for.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

/// Clients that have nothing to say often say `null`.
fn null_is_default<'de, T: Default + Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// A whole number from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Within<const MIN: u64, const MAX: u64>(u64);

impl<const MIN: u64, const MAX: u64> Within<MIN, MAX> {
    /// The bare number.
    #[must_use]
    pub const fn value(self) -> u64 {
        self.0
    }
}

impl Port {
    /// As sockets take it.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0 as u16
    }
}

impl<'de, const MIN: u64, const MAX: u64> Deserialize<'de> for Within<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_u64(WithinVisitor::<MIN, MAX>).map(Self)
    }
}

struct WithinVisitor<const MIN: u64, const MAX: u64>;

impl<const MIN: u64, const MAX: u64> Visitor<'_> for WithinVisitor<MIN, MAX> {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from {MIN} to {MAX}")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<u64, E> {
        let fits = (MIN..=MAX).contains(&number);
        if fits { Ok(number) } else { Err(E::invalid_value(Unexpected::Unsigned(number), &self)) }
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<u64, E> {
        match u64::try_from(number) {
            Ok(number) => self.visit_u64(number),
            Err(_) => Err(E::invalid_value(Unexpected::Signed(number), &self)),
        }
    }
}

impl<const MIN: u64, const MAX: u64> PartialSchema for Within<MIN, MAX> {
    fn schema() -> RefOr<Schema> {
        let integer = ObjectBuilder::new().schema_type(SchemaType::Type(Type::Integer));
        RefOr::T(Schema::Object(integer.minimum(Some(MIN)).maximum(Some(MAX)).build()))
    }
}

impl<const MIN: u64, const MAX: u64> ToSchema for Within<MIN, MAX> {
    fn name() -> std::borrow::Cow<'static, str> {
        format!("From{MIN}To{MAX}").into()
    }
}

/// A text that no log, event or answer shows.
#[derive(Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// What stands in the place of a secret.
    pub const HIDDEN: &'static str = HIDDEN;

    fn hide(&mut self) {
        self.0 = Self::HIDDEN.into();
    }

    /// Whether it is what stands for one.
    pub(super) fn is_hidden(&self) -> bool {
        self.0 == Self::HIDDEN
    }

    /// The secret itself, for those who need it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::HIDDEN)
    }
}

impl PartialSchema for Secret {
    fn schema() -> RefOr<Schema> {
        String::schema()
    }
}

impl ToSchema for Secret {}
