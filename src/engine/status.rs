//! State of flow, source and output.

use std::fmt;

/// State of a flow, as the API names it. `Standby → Starting → Active → Stopping → Standby`; `Error` is a flow none
/// of whose sources could be opened, and which is being retried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FlowStatus {
    /// Not running.
    #[default]
    Standby,
    /// Being set up.
    Starting,
    /// Running.
    Active,
    /// Being taken down.
    Stopping,
    /// Wanted, but no source could be opened.
    Error,
}

/// State of a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SourceStatus {
    /// Packets arrive.
    Connected,
    /// Nothing arrives, or the flow does not run.
    #[default]
    Disconnected,
    /// Could not be opened; retried.
    Error,
}

/// State of an output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutputStatus {
    /// Open: packets go out.
    Connected,
    /// Disabled, or the flow does not run.
    #[default]
    Disconnected,
    /// Could not be opened, or the system refuses what it sends; retried.
    Error,
}

impl fmt::Display for FlowStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Standby => "STANDBY",
            Self::Starting => "STARTING",
            Self::Active => "ACTIVE",
            Self::Stopping => "STOPPING",
            Self::Error => "ERROR",
        })
    }
}

impl fmt::Display for SourceStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Connected => "CONNECTED",
            Self::Disconnected => "DISCONNECTED",
            Self::Error => "ERROR",
        })
    }
}

impl fmt::Display for OutputStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Connected => "CONNECTED",
            Self::Disconnected => "DISCONNECTED",
            Self::Error => "ERROR",
        })
    }
}
