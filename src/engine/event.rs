//! Everything worth telling, as typed events: log line, stored row and counter all come from here.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

#[cfg(feature = "media")]
use super::seen;
#[cfg(feature = "media")]
use crate::media::watch;
use crate::path::failover::Cause;
use crate::path::health::Fault;
use crate::path::merge::Mismatch;
use crate::proto::PeerEnd;
use crate::proto::bridge::Uncarried;
use crate::proto::mpegts::Pid;
use crate::proto::mpegts::analysis::{Cue, Indicator};
use crate::units::{FlowId, OutputName, SourceName};

/// Something that happened to a flow.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Whose.
    pub flow: FlowId,
    /// When.
    pub at: SystemTime,
    /// What.
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum EventKind {
    /// The flow was put into the store.
    FlowCreated,
    /// The flow runs.
    FlowStarted,
    /// The flow was stopped as asked.
    FlowStopped,
    /// A fault of our own ended the flow; it is started again.
    FlowCrashed,
    /// A source delivers and is in use.
    SourceActive {
        /// Which.
        source: SourceName,
    },
    /// The flow switched to another source.
    SourceFailover {
        /// Until now.
        from: SourceName,
        /// From now on.
        to: SourceName,
        /// Why.
        cause: Cause,
        /// How long the old one had been silent, if that is why; else zero.
        silent: Duration,
    },
    /// The flow returned to its primary source.
    PrimaryRecovered {
        /// The primary.
        source: SourceName,
    },
    /// A source that delivered fell silent.
    SourceLost {
        /// Which.
        source: SourceName,
    },
    /// A source delivers for the first time, or again.
    SourceRecovered {
        /// Which.
        source: SourceName,
    },
    /// A source delivers, but is faulty by the rules of failover.
    SourceDegraded {
        /// Which.
        source: SourceName,
        /// What is wrong.
        fault: Fault,
    },
    /// A source is no longer faulty in this way.
    SourceRestored {
        /// Which.
        source: SourceName,
        /// What was wrong.
        fault: Fault,
    },
    /// A merged source carries what the others do, and protects them from now on.
    MergeStarted {
        /// Which.
        source: SourceName,
    },
    /// A source that is to be merged does not carry what the merged ones do.
    MergeError {
        /// Which.
        source: SourceName,
        /// How it differs.
        why: Mismatch,
    },
    /// A source that is merged, or to be merged, fell silent.
    LegLost {
        /// Which.
        source: SourceName,
    },
    /// No source of those that are merged delivers any more: all have ended, or fell silent.
    MergeEof,
    /// A lost leg delivers again.
    LegRecovered {
        /// Which.
        source: SourceName,
    },
    /// A source could not be opened or ended with an error.
    SourceError {
        /// Which.
        source: SourceName,
        /// Why.
        error: String,
    },
    /// A source will be opened again.
    SourceRetry {
        /// Which.
        source: SourceName,
        /// How many times so far.
        attempt: u32,
        /// After this time.
        wait: Duration,
    },
    /// The sender said that it ended.
    SourceEof {
        /// Which.
        source: SourceName,
    },
    /// The sender started over with another identity.
    SourceRestarted {
        /// Which.
        source: SourceName,
    },
    /// A source or an output is connected with a peer.
    PeerConnected {
        /// Of which source or output.
        end: EndName,
        /// With whom.
        peer: SocketAddr,
    },
    /// A connection of a source or an output ended.
    PeerDisconnected {
        /// Of which source or output.
        end: EndName,
        /// With whom.
        peer: SocketAddr,
        /// Why.
        why: PeerEnd,
    },
    /// A source or an output could not be connected. Told again when the reason changes, and of RTMP every ten minutes.
    ConnectionError {
        /// Of which source or output.
        end: EndName,
        /// With whom.
        peer: SocketAddr,
        /// Why.
        why: PeerEnd,
        /// How often since it was told last.
        count: u64,
    },
    /// Callers were sent away at an RTMP port. Each cause is told once a minute: to the flow that they wanted, of wrong keys to
    /// the one that has the application alone, and of others to the one that has the port alone.
    CallersRefused {
        /// Of which source or output.
        end: EndName,
        /// One of them.
        peer: SocketAddr,
        /// Why.
        reason: &'static str,
        /// How many.
        count: u64,
    },
    /// Something of a stream has no form on the other side of RTMP and is left out. Told once for each connection.
    NotCarried {
        /// Of which source or output.
        end: EndName,
        /// What.
        what: Uncarried,
    },
    /// Somebody exceeds a source's rate limit and keeps doing so.
    SourceAbuse {
        /// Which.
        source: SourceName,
    },
    /// An indicator of a transport stream (ETSI TR 101 290) came into error.
    TsError {
        /// Of which source; `None` for what sources are merged into.
        source: Option<SourceName>,
        /// Which.
        indicator: Indicator,
        /// Where, if it is on one PID.
        pid: Option<Pid>,
        /// Since the start.
        errors: u64,
    },
    /// It has been without errors for a while, or cannot be told any more.
    TsRecovered {
        /// Of which source; `None` for what sources are merged into.
        source: Option<SourceName>,
        /// Which.
        indicator: Indicator,
        /// Since the start.
        errors: u64,
    },
    /// A cue for splicing (SCTE 35) came for the first time.
    Scte35Cue {
        /// Of which source; `None` for what sources are merged into.
        source: Option<SourceName>,
        /// What it says.
        cue: Cue,
    },
    /// Something was seen or heard in pictures and sound.
    #[cfg(feature = "media")]
    Watched {
        /// Of which source; `None` for what outputs get.
        source: Option<SourceName>,
        /// What.
        event: watch::Event,
    },
    /// An output could not be opened, or what it sends is refused.
    OutputError {
        /// Which.
        output: OutputName,
        /// Why.
        error: String,
    },
    /// An output that was in error sends again.
    OutputRecovered {
        /// Which.
        output: OutputName,
    },
    /// A leg of an output does not work; the others go on.
    OutputLegError {
        /// Whose.
        output: OutputName,
        /// Where it leads.
        leg: String,
        /// Why.
        error: String,
    },
    /// A leg of an output works again.
    OutputLegRecovered {
        /// Whose.
        output: OutputName,
        /// Where it leads.
        leg: String,
    },
}

/// A source or an output of a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndName {
    /// A source.
    Source(SourceName),
    /// An output.
    Output(OutputName),
}

impl fmt::Display for EndName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(source) => write!(f, "source {source}"),
            Self::Output(output) => write!(f, "output {output}"),
        }
    }
}

/// A stream that is analysed.
struct Whose<'a>(Option<&'a SourceName>);

impl fmt::Display for Whose<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(source) => write!(f, "transport stream of source {source}"),
            None => f.write_str("merged transport stream"),
        }
    }
}

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Good to know.
    Info,
    /// Someone should look today.
    Warning,
    /// Somebody is not served.
    Error,
}

impl Severity {
    /// As the API names it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

impl EventKind {
    /// The stable name that scripts match.
    #[must_use]
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::FlowCreated => "flow_created",
            Self::FlowStarted => "flow_started",
            Self::FlowStopped => "flow_stopped",
            Self::FlowCrashed => "flow_crashed",
            Self::SourceActive { .. } => "source_active",
            Self::SourceFailover { .. } => "source_failover",
            Self::PrimaryRecovered { .. } => "primary_recovered",
            Self::SourceLost { .. } => "source_lost",
            Self::SourceRecovered { .. } => "source_recovered",
            Self::SourceDegraded { .. } => "source_degraded",
            Self::SourceRestored { .. } => "source_restored",
            Self::MergeStarted { .. } => "merge_started",
            Self::MergeError { .. } => "merge_error",
            Self::LegLost { .. } => "leg_lost",
            Self::MergeEof => "merge_eof",
            Self::LegRecovered { .. } => "leg_recovered",
            Self::SourceError { .. } => "source_error",
            Self::SourceRetry { .. } => "source_retry",
            Self::SourceEof { .. } => "source_eof",
            Self::SourceRestarted { .. } => "source_restarted",
            Self::SourceAbuse { .. } => "source_abuse",
            Self::TsError { .. } => "ts_error",
            Self::TsRecovered { .. } => "ts_recovered",
            Self::Scte35Cue { .. } => "scte35_cue",
            #[cfg(feature = "media")]
            Self::Watched { event, .. } => seen::type_name(event),
            Self::PeerConnected { .. } => "peer_connected",
            Self::PeerDisconnected { .. } => "peer_disconnected",
            Self::ConnectionError { .. } => "connection_error",
            Self::CallersRefused { .. } => "callers_refused",
            Self::NotCarried { .. } => "not_carried",
            Self::OutputError { .. } => "output_error",
            Self::OutputRecovered { .. } => "output_recovered",
            Self::OutputLegError { .. } => "output_leg_error",
            Self::OutputLegRecovered { .. } => "output_leg_recovered",
        }
    }

    /// How much it matters.
    #[must_use]
    pub const fn severity(&self) -> Severity {
        match self {
            Self::TsError { indicator, .. } => match indicator.priority() {
                1 => Severity::Error,
                2 => Severity::Warning,
                _ => Severity::Info,
            },
            #[cfg(feature = "media")]
            Self::Watched { event, .. } => seen::severity(event),
            Self::FlowCreated
            | Self::FlowStarted
            | Self::FlowStopped
            | Self::SourceActive { .. }
            | Self::PrimaryRecovered { .. }
            | Self::SourceRecovered { .. }
            | Self::SourceRestored { .. }
            | Self::MergeStarted { .. }
            | Self::LegRecovered { .. }
            | Self::PeerConnected { .. }
            | Self::TsRecovered { .. }
            | Self::Scte35Cue { .. }
            | Self::OutputRecovered { .. }
            | Self::OutputLegRecovered { .. } => Severity::Info,
            Self::SourceFailover { .. }
            | Self::SourceLost { .. }
            | Self::SourceDegraded { .. }
            | Self::LegLost { .. }
            | Self::MergeEof
            | Self::MergeError { .. }
            | Self::SourceRetry { .. }
            | Self::SourceEof { .. }
            | Self::SourceRestarted { .. }
            | Self::PeerDisconnected { .. }
            | Self::CallersRefused { .. }
            | Self::NotCarried { .. }
            | Self::SourceAbuse { .. }
            | Self::OutputLegError { .. } => Severity::Warning,
            Self::FlowCrashed | Self::SourceError { .. } | Self::ConnectionError { .. } | Self::OutputError { .. } => {
                Severity::Error
            }
        }
    }

    /// The source it is about.
    #[must_use]
    pub const fn source(&self) -> Option<&SourceName> {
        match self {
            Self::SourceFailover { to: source, .. }
            | Self::SourceActive { source }
            | Self::PrimaryRecovered { source }
            | Self::SourceLost { source }
            | Self::SourceRecovered { source }
            | Self::SourceDegraded { source, .. }
            | Self::SourceRestored { source, .. }
            | Self::MergeStarted { source }
            | Self::MergeError { source, .. }
            | Self::LegLost { source }
            | Self::LegRecovered { source }
            | Self::SourceError { source, .. }
            | Self::SourceRetry { source, .. }
            | Self::SourceEof { source }
            | Self::SourceRestarted { source }
            | Self::SourceAbuse { source }
            | Self::TsError { source: Some(source), .. }
            | Self::TsRecovered { source: Some(source), .. }
            | Self::Scte35Cue { source: Some(source), .. }
            | Self::PeerConnected { end: EndName::Source(source), .. }
            | Self::PeerDisconnected { end: EndName::Source(source), .. }
            | Self::ConnectionError { end: EndName::Source(source), .. }
            | Self::CallersRefused { end: EndName::Source(source), .. }
            | Self::NotCarried { end: EndName::Source(source), .. } => Some(source),
            #[cfg(feature = "media")]
            Self::Watched { source, .. } => source.as_ref(),
            Self::PeerConnected { .. }
            | Self::PeerDisconnected { .. }
            | Self::ConnectionError { .. }
            | Self::CallersRefused { .. }
            | Self::NotCarried { .. }
            | Self::FlowCreated
            | Self::FlowStarted
            | Self::FlowStopped
            | Self::FlowCrashed
            | Self::TsError { .. }
            | Self::TsRecovered { .. }
            | Self::Scte35Cue { .. }
            | Self::MergeEof
            | Self::OutputError { .. }
            | Self::OutputRecovered { .. }
            | Self::OutputLegError { .. }
            | Self::OutputLegRecovered { .. } => None,
        }
    }

    /// The output it is about.
    #[must_use]
    pub const fn output(&self) -> Option<&OutputName> {
        if let Self::OutputError { output, .. }
        | Self::OutputRecovered { output }
        | Self::OutputLegError { output, .. }
        | Self::OutputLegRecovered { output, .. }
        | Self::PeerConnected { end: EndName::Output(output), .. }
        | Self::PeerDisconnected { end: EndName::Output(output), .. }
        | Self::ConnectionError { end: EndName::Output(output), .. }
        | Self::CallersRefused { end: EndName::Output(output), .. }
        | Self::NotCarried { end: EndName::Output(output), .. } = self
        {
            Some(output)
        } else {
            None
        }
    }
}

const fn complaint(fault: Fault) -> &'static str {
    match fault {
        Fault::Loss => "loses too many packets",
        Fault::TsErrors => "has too many transport stream errors",
        Fault::Black => "has a black picture",
        Fault::Frozen => "has a picture that stands still",
        Fault::SilentAudio => "has silent sound",
        Fault::NoVideo => "has no pictures",
        Fault::NoAudio => "has no sound",
    }
}

const fn relief(fault: Fault) -> &'static str {
    match fault {
        Fault::Loss => "loses few packets",
        Fault::TsErrors => "has few transport stream errors",
        Fault::Black => "has a picture that is not black",
        Fault::Frozen => "has a picture that moves",
        Fault::SilentAudio => "has sound that is not silent",
        Fault::NoVideo => "has pictures",
        Fault::NoAudio => "has sound",
    }
}

/// The sentence that people read.
impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FlowCreated => f.write_str("flow created"),
            Self::FlowStarted => f.write_str("flow started"),
            Self::FlowStopped => f.write_str("flow stopped"),
            Self::FlowCrashed => f.write_str("an internal fault ended the flow; it is started again"),
            Self::SourceActive { source } => write!(f, "source {source} is in use"),
            Self::SourceFailover { from, to, cause, silent } => {
                write!(f, "switched from {from} to {to}: {from} ")?;
                match cause {
                    Cause::Silent => write!(f, "was silent for {} ms", silent.as_millis()),
                    Cause::Removed => f.write_str("was removed"),
                    Cause::Faulty(fault) => f.write_str(complaint(*fault)),
                }
            }
            Self::SourceDegraded { source, fault } => write!(f, "source {source} {}", complaint(*fault)),
            Self::SourceRestored { source, fault } => write!(f, "source {source} {} again", relief(*fault)),
            Self::PrimaryRecovered { source } => write!(f, "returned to primary source {source}"),
            Self::SourceLost { source } => write!(f, "source {source} fell silent"),
            Self::SourceRecovered { source } => write!(f, "source {source} delivers"),
            Self::MergeStarted { source } => write!(f, "source {source} is merged with the others"),
            Self::MergeError { source, why } => {
                let how = match why {
                    Mismatch::Unrelated => "it has nothing in common with them, or is too far behind",
                    Mismatch::Timestamps => "its RTP timestamps differ",
                    Mismatch::Payload => "its payload differs",
                    Mismatch::Numbers => "its sequence numbers differ: a second sender with a header of its own",
                };
                write!(f, "source {source} cannot be merged with the others: {how}")
            }
            Self::LegLost { source } => write!(f, "leg {source} fell silent"),
            Self::MergeEof => f.write_str("no merged source delivers any more"),
            Self::LegRecovered { source } => write!(f, "leg {source} delivers again"),
            Self::SourceError { source, error } => write!(f, "source {source}: {error}"),
            Self::SourceRetry { source, attempt, wait } => {
                write!(f, "source {source} will be opened again in {} ms, attempt {attempt}", wait.as_millis())
            }
            Self::SourceEof { source } => write!(f, "source {source} said that it ended"),
            Self::SourceRestarted { source } => write!(f, "source {source} started over"),
            Self::PeerConnected { end, peer } => write!(f, "{end} is connected with {peer}"),
            Self::PeerDisconnected { end, peer, why } => write!(f, "{end} lost {peer}: {why}"),
            Self::ConnectionError { end, peer, why, count } => {
                write!(f, "{end} and {peer} did not get together: {why}")?;
                if *count > 1 { write!(f, ", {count} times") } else { Ok(()) }
            }
            Self::CallersRefused { end, peer, reason, count } => {
                write!(f, "{count} sent away at the port of {end}, {peer} the last of them: {reason}")
            }
            Self::NotCarried { end, what } => write!(f, "{end}: {what}"),
            Self::SourceAbuse { source } => write!(f, "source {source} keeps exceeding its rate limit"),
            Self::TsError { source, indicator, pid, .. } => {
                write!(f, "{}: {}", Whose(source.as_ref()), indicator.name())?;
                pid.map_or(Ok(()), |pid| write!(f, " on PID {}", pid.value()))
            }
            Self::TsRecovered { source, indicator, .. } => {
                write!(f, "{}: {} is over", Whose(source.as_ref()), indicator.name())
            }
            Self::Scte35Cue { source, cue } => write!(f, "{}: {cue}", Whose(source.as_ref())),
            #[cfg(feature = "media")]
            Self::Watched { source, event } => seen::write(f, source.as_ref(), event),
            Self::OutputError { output, error } => write!(f, "output {output}: {error}"),
            Self::OutputRecovered { output } => write!(f, "output {output} sends again"),
            Self::OutputLegError { output, leg, error } => write!(f, "output {output}, leg {leg}: {error}"),
            Self::OutputLegRecovered { output, leg } => write!(f, "output {output}, leg {leg} sends again"),
        }
    }
}
