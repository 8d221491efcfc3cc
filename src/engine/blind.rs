//! What stands for `eyes` in a build without the feature `media`: nothing is watched.

use std::sync::mpsc::SyncSender;

use super::flow::SourceSlot;
use super::managed::ManagedFlow;
use super::supervisor::{EngineConfig, Message};
use crate::units::Time;

/// Watches nothing.
#[derive(Clone)]
pub(super) struct Watching;

impl Watching {
    pub(super) fn new(_config: &EngineConfig, _supervisor: SyncSender<Message>) -> Self {
        Self
    }
}

/// Nothing of a flow is watched.
pub(super) struct FlowEyes;

impl FlowEyes {
    pub(super) fn new(_watching: Watching) -> Self {
        Self
    }

    pub(super) const fn forget_source(&self, _slot: SourceSlot) {}

    pub(super) const fn look_due(&self) -> Option<Time> {
        None
    }
}

impl ManagedFlow {
    pub(super) const fn adjust_eyes(&self) {}

    pub(super) const fn look(&self, _now: Time) {}
}
