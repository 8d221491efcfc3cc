//! Why the engine refused something, and where in the configuration the cause lies.

use std::fmt;

/// Why a wanted configuration was not applied. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {cause}")]
pub struct ApplyError {
    /// The part of the flow at fault.
    pub field: Field,
    /// What is wrong with it.
    pub cause: Cause,
}

/// A part of a flow's configuration; its text is the path that the API uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// The flow as a whole.
    Flow,
    /// The list of sources.
    Sources,
    /// One source, by index.
    Source(usize),
    /// The list of outputs.
    Outputs,
    /// One output, by index.
    Output(usize),
    /// `source_failover_config`.
    Failover,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// A flow needs a source.
    #[error("a flow needs at least one source")]
    NoSource,
    /// More than the limit.
    #[error("at most {max} are allowed")]
    TooMany {
        /// The limit.
        max: usize,
    },
    /// The name is taken within the flow.
    #[error("the name {name} is used twice")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// Names no source of the flow.
    #[error("there is no source named {name}")]
    UnknownSource {
        /// The name.
        name: String,
    },
    /// Cannot be merged.
    #[error("MERGE needs packets with sequence numbers, which source {name} has not: {fix}, or choose FAILOVER")]
    NoSequence {
        /// The source.
        name: String,
        /// What it could be instead.
        fix: &'static str,
    },
    /// Cannot be judged by what they lose.
    #[error(
        "no source can tell what it lost, as rtp, rtp-fec, rist and srt can: leave loss_per_mille out, or judge by \
         ts_errors_per_second"
    )]
    NoLosses,
    /// Nothing can be seen.
    #[error("this program was built without the feature media: leave out what needs pictures and sound")]
    NoMedia,
    /// Somebody else has the port.
    #[error("{address} is in use by another flow or program: choose another port or stop the other")]
    InUse {
        /// What was asked for.
        address: String,
    },
    /// The system refused.
    #[error("{0}")]
    System(String),
    /// The engine has as many flows as it may.
    #[error("the engine runs its limit of {max} flows: raise engine.max_flows")]
    TooManyFlows {
        /// The limit.
        max: usize,
    },
    /// The engine is shutting down.
    #[error("the engine is shutting down")]
    Closing,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flow => f.write_str("flow"),
            Self::Sources => f.write_str("sources"),
            Self::Source(index) => write!(f, "sources[{index}]"),
            Self::Outputs => f.write_str("outputs"),
            Self::Output(index) => write!(f, "outputs[{index}]"),
            Self::Failover => f.write_str("source_failover_config"),
        }
    }
}
