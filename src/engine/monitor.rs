//! `Monitor`: the analysis of what a running flow's sources bring, and of what they are merged into.
//!
//! It runs on the flow's worker, right after the packets were taken in: they are in the processor's cache then, and looking at
//! one costs less than waking somebody else to do it.

use super::config::SOURCES_MAX;
use super::event::EventKind;
use crate::bus::Packet;
use crate::proto::mpegts::analysis::{Analyser, Event, Snapshot, State};
use crate::units::{SourceName, Time};

/// Analysers of a flow; none while it is switched off.
#[derive(Debug, Default)]
pub(super) struct Monitor {
    is_on: bool,
    sources: [Option<Box<Analyser>>; SOURCES_MAX],
    merged: Option<Box<Analyser>>,
}

/// What analysers found, by slot of the source.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) sources: Vec<(u8, Box<Snapshot>)>,
    pub(super) merged: Option<Box<Snapshot>>,
}

impl Monitor {
    /// Switches the analysis on or off for all of `sources`; what goes on keeps what it counted.
    pub(super) fn set(&mut self, now: Time, is_on: bool, sources: impl Iterator<Item = u8>, is_merging: bool) {
        self.is_on = is_on;
        if !is_on {
            *self = Self::default();
            return;
        }
        for slot in sources {
            if let Some(analyser) = self.sources.get_mut(usize::from(slot)) {
                analyser.get_or_insert_with(|| Box::new(Analyser::new(now)));
            }
        }
        self.merged = is_merging.then(|| self.merged.take().unwrap_or_else(|| Box::new(Analyser::new(now))));
    }

    pub(super) const fn is_on(&self) -> bool {
        self.is_on
    }

    /// A source begins anew.
    pub(super) fn start_source(&mut self, now: Time, slot: u8) {
        if let Some(analyser) = self.sources.get_mut(usize::from(slot)) {
            *analyser = self.is_on.then(|| Box::new(Analyser::new(now)));
        }
    }

    pub(super) fn remove_source(&mut self, slot: u8) {
        if let Some(analyser) = self.sources.get_mut(usize::from(slot)) {
            *analyser = None;
        }
    }

    #[inline]
    pub(super) fn handle_packets(&mut self, slot: u8, packets: &[Packet]) {
        let Some(Some(analyser)) = self.sources.get_mut(usize::from(slot)) else { return };
        for packet in packets {
            analyser.handle_packet(packet.meta.arrival, packet, packet.meta.sequence);
        }
    }

    /// A packet is released by the merger.
    #[inline]
    pub(super) fn handle_merged(&mut self, now: Time, packet: &Packet) {
        if let Some(analyser) = &mut self.merged {
            analyser.handle_packet(now, packet, packet.meta.sequence);
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Time) {
        self.analysers_mut().for_each(|(_, analyser)| analyser.handle_timeout(now));
    }

    pub(super) fn poll_timeout(&self) -> Option<Time> {
        if !self.is_on {
            return None;
        }
        let sources = self.sources.iter().flatten();
        sources.chain(&self.merged).filter_map(|analyser| analyser.poll_timeout()).min()
    }

    /// The next change of an indicator; `name` knows the sources, and the merged stream has none.
    pub(super) fn poll_event(&mut self, name: impl Fn(u8) -> Option<SourceName>) -> Option<EventKind> {
        if !self.is_on {
            return None;
        }
        self.analysers_mut().find_map(|(slot, analyser)| {
            let Event { indicator, state, pid, errors } = analyser.poll_event()?;
            let source = slot.and_then(&name);
            Some(if state == State::Error {
                EventKind::TsError { source, indicator, pid, errors }
            } else {
                EventKind::TsRecovered { source, indicator, errors }
            })
        })
    }

    pub(super) fn findings(&self) -> Findings {
        let sources = (0..).zip(&self.sources);
        let sources = sources.filter_map(|(slot, analyser)| Some((slot, Box::new(analyser.as_ref()?.snapshot()))));
        Findings {
            sources: sources.collect(),
            merged: self.merged.as_ref().map(|analyser| Box::new(analyser.snapshot())),
        }
    }

    fn analysers_mut(&mut self) -> impl Iterator<Item = (Option<u8>, &mut Box<Analyser>)> {
        let sources = (0_u8..).zip(&mut self.sources);
        let sources = sources.filter_map(|(slot, analyser)| Some((Some(slot), analyser.as_mut()?)));
        sources.chain(self.merged.as_mut().map(|analyser| (None, analyser)))
    }
}
