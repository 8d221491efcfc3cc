//! What a flow is: sources, outputs, redundancy. Values here are already parsed and valid one by one.

use std::time::Duration;

use crate::adapters::{rist, rtmp, rtp, srt, udp};
use crate::bus::LagPolicy;
use crate::path::{AllowList, failover, health, limit, merge};
use crate::proto::mpegts::{faults, generator, picture};
use crate::units::{OutputName, SourceName};

pub use crate::path::failover::SOURCES_MAX;

/// Most outputs a flow may have.
pub const OUTPUTS_MAX: usize = 256;
/// Longest time that an output may hold packets back to send several at once.
pub const COALESCE_MAX: Duration = Duration::from_millis(100);

/// The configured journey of one programme.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowConfig {
    /// What people call it; need not be unique.
    pub name: String,
    /// 1 to [`SOURCES_MAX`], in order of preference.
    pub sources: Vec<SourceConfig>,
    /// 0 to [`OUTPUTS_MAX`].
    pub outputs: Vec<OutputConfig>,
    /// How several sources work together.
    pub failover: FailoverConfig,
    /// What is watched.
    pub monitor: MonitorConfig,
}

/// What is watched in what the sources bring, and in what outputs send. Nothing, unless it is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MonitorConfig {
    /// The transport stream of each source, and of what they are merged into: see
    /// [`Analyser`](crate::proto::mpegts::analysis::Analyser).
    pub ts_analysis: bool,
    /// Outputs of which is analysed what they take to send, and when: packets that they were too slow for are missing there.
    /// Names of none of the flow's outputs mean nothing.
    pub outputs: Vec<OutputName>,
    /// How often a small picture is taken of what outputs get, at least a second; `None` for never. Needs the feature `media`.
    pub thumbnail_every: Option<Duration>,
    /// Whether black, frozen and silent are looked for in what outputs get, and loudness is measured. Needs the feature `media`.
    pub content_quality: bool,
}

impl MonitorConfig {
    /// Whether pictures and sound are watched, and be it only for their metadata.
    #[must_use]
    pub const fn is_watching(&self) -> bool {
        self.ts_analysis || self.thumbnail_every.is_some() || self.content_quality
    }
}

/// How several sources work together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailoverConfig {
    /// One at a time, or all merged.
    pub mode: FailoverMode,
    /// Preferred source; the first one if none is named.
    pub primary: Option<SourceName>,
    /// The active source, or a merged one, may be silent for this long.
    pub health_timeout: Duration,
    /// The primary must have been healthy for this long before the flow returns to it.
    pub hold_off: Duration,
    /// What makes it leave a source that delivers; merged ones are not judged.
    pub switch_on: health::Rules,
    /// With which packet another source begins, while the last one delivers.
    pub switch_at: failover::SwitchAt,
}

/// One source at a time, or all merged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FailoverMode {
    /// The primary while it delivers, else the next one that does.
    #[default]
    Failover,
    /// All, as legs that carry the same packets (SMPTE ST 2022-7). Each must have a packet sequence:
    /// [`SourceEndpoint::has_sequence`].
    Merge(MergeConfig),
}

/// How legs are merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MergeConfig {
    /// How long a missing packet is waited for.
    pub recovery_window: merge::RecoveryWindow,
    /// When packets are released.
    pub release: merge::Mode,
}

impl Default for MergeConfig {
    /// 100 ms, on gaps; see [`merge::Config`].
    fn default() -> Self {
        let merge::Config { recovery_window, mode: release, .. } = Default::default();
        Self { recovery_window, release }
    }
}

/// Where a flow takes packets from.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceConfig {
    /// Unique within the flow.
    pub name: SourceName,
    /// Protocol and address.
    pub endpoint: SourceEndpoint,
    /// Senders that are let in; empty for everyone.
    pub allow: AllowList,
    /// How much is let in; `None` for everything.
    pub limit: Option<limit::Config>,
}

/// Protocol and address of a source.
#[derive(Clone, Debug, PartialEq)]
pub enum SourceEndpoint {
    /// `udp://`
    Udp(udp::SourceConfig),
    /// `rtp://`
    Rtp(rtp::SourceConfig),
    /// `srt://`
    Srt(Box<srt::EndpointConfig>),
    /// `rist://`
    Rist(Box<rist::EndpointConfig>),
    /// `rtmp://`
    Rtmp(Box<rtmp::EndpointConfig>),
    /// `test:`, a built-in signal.
    Test(Box<TestConfig>),
}

/// A built-in signal, and what is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TestConfig {
    /// Which one.
    pub signal: TestSignal,
    /// What is wrong on purpose.
    pub faults: faults::Config,
}

/// Which built-in signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TestSignal {
    /// `test:bars`, numbered packets.
    Numbers(generator::Config),
    /// `test:picture`, a picture with sound.
    Picture(picture::Config),
}

/// Where a flow sends packets to.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputConfig {
    /// Unique within the flow.
    pub name: OutputName,
    /// Protocol and address.
    pub endpoint: OutputEndpoint,
    /// A disabled output is kept and sends nothing.
    pub enabled: bool,
    /// How long packets may be held back so that several leave with one system call; zero for not at all.
    pub coalesce: Duration,
    /// With what it goes on after it could not keep up. As it has nobody to tell, [`LagPolicy::Disconnect`] is
    /// [`LagPolicy::DropOldest`] here.
    pub policy: LagPolicy,
    /// How much goes out; `None` for everything.
    pub limit: Option<limit::Config>,
    /// Who may call, where it waits for callers.
    pub allow: AllowList,
}

/// Protocol and address of an output.
#[derive(Clone, Debug, PartialEq)]
pub enum OutputEndpoint {
    /// `udp://`
    Udp(udp::OutputConfig),
    /// `rtp://`
    Rtp(rtp::OutputConfig),
    /// `srt://`
    Srt(Box<srt::EndpointConfig>),
    /// `rist://`
    Rist(Box<rist::EndpointConfig>),
    /// `rtmp://`
    Rtmp(Box<rtmp::EndpointConfig>),
}

impl Default for FailoverConfig {
    /// The first source, half a second of silence, five seconds of proof; see [`crate::path::failover::Config`].
    fn default() -> Self {
        let failover::Config { health_timeout, hold_off, switch_on, switch_at, .. } = Default::default();
        Self { mode: FailoverMode::Failover, primary: None, health_timeout, hold_off, switch_on, switch_at }
    }
}
