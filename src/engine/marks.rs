//! `Marks`: in which packets key frames begin, looked for only while somebody needs to know.

use super::config::SOURCES_MAX;
use crate::bus::Packet;
use crate::proto::mpegts::entry::Finder;

/// Of each source, or of what they are merged into.
#[derive(Debug, Default)]
pub(super) struct Marks {
    is_on: bool,
    /// By slot; a source that nothing came from has none.
    sources: [Option<Box<Finder>>; SOURCES_MAX],
    merged: Option<Box<Finder>>,
}

impl Marks {
    /// Begins to look, or forgets all it knows.
    pub(super) fn set(&mut self, is_on: bool) {
        if self.is_on != is_on {
            *self = Self { is_on, ..Self::default() };
        }
    }

    /// Another stream comes from this source.
    pub(super) fn restart(&mut self, source: u8) {
        if let Some(finder) = self.sources.get_mut(usize::from(source)) {
            *finder = None;
        }
    }

    /// Marks a packet as it comes from a source.
    #[inline]
    pub(super) fn mark(&mut self, source: u8, packet: &mut Packet) {
        if self.is_on
            && let Some(finder) = self.sources.get_mut(usize::from(source))
        {
            packet.meta.random_access = finder.get_or_insert_default().handle_packet(packet);
        }
    }

    /// Marks a packet as it comes from the merger.
    #[inline]
    pub(super) fn mark_merged(&mut self, packet: &mut Packet) {
        if self.is_on {
            packet.meta.random_access = self.merged.get_or_insert_default().handle_packet(packet);
        }
    }
}
