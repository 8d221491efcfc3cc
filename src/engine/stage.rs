//! `Stage`: which packets of a flow's sources go on to its ring. One source's at a time, or those of all, merged.

use std::time::Duration;

use super::config::{FailoverConfig, FailoverMode, FlowConfig, MergeConfig, SOURCES_MAX};
use super::event::EventKind;
use super::marks::Marks;
use super::stats::MergeSnapshot;
use crate::bus::{Meta, Packet};
use crate::path::failover::{SwitchAt, Switches};
use crate::path::health::{Counts, Fault};
use crate::path::{Failover, Merger, failover, merge};
use crate::units::{SourceName, Time};

/// Settings of either kind.
#[derive(Clone, Copy, Debug)]
pub(super) enum Config {
    Failover(failover::Config),
    Merge(merge::Config),
}

impl Config {
    /// What `wanted` asks for; `primary` is the slot of the preferred source.
    pub(super) fn new(wanted: &FlowConfig, primary: Option<u8>) -> Self {
        let FailoverConfig { mode, health_timeout, hold_off, switch_on, switch_at, .. } = wanted.failover;
        let MergeConfig { recovery_window, release } = match mode {
            FailoverMode::Failover => {
                return Self::Failover(failover::Config { primary, health_timeout, hold_off, switch_on, switch_at });
            }
            FailoverMode::Merge(merge) => merge,
        };
        let otherwise = merge::Config::default();
        let is_short = matches!(recovery_window, merge::RecoveryWindow::Fixed(window) if window <= SHORT_WINDOW);
        let packets_max = if is_short { otherwise.packets_max } else { PACKETS_OF_LONG_WINDOW };
        let leg_timeout = health_timeout;
        Self::Merge(merge::Config { recovery_window, mode: release, leg_timeout, packets_max, ..otherwise })
    }
}

/// One of the two at work. Sources are told by their slots; a merger's legs have the same numbers.
#[derive(Debug)]
pub(super) struct Stage {
    kind: Kind,
    marks: Marks,
    /// Whether a reader of the flow needs marks.
    marks_for_readers: bool,
    /// Of stages before this one.
    before: Totals,
    /// Source of the latest packet that was let through.
    latest: Option<u8>,
    /// One bit for each source whose next packet does not continue what it brought before.
    begins_anew: u8,
}

/// Changes of the source in use so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) switches: Switches,
    pub(super) returns: u64,
    /// Of both, those that waited for a key frame in vain.
    pub(super) key_frame_timeouts: u64,
}

const _: () = assert!(SOURCES_MAX <= u8::BITS as usize);

#[derive(Debug)]
enum Kind {
    Failover { failover: Box<Failover>, handover: Handover },
    Merge { merger: Box<Merger>, config: merge::Config, beginning: Beginning },
}

/// What makes one stage go on where another one stopped.
#[derive(Debug, Default)]
struct Handover {
    /// The latest packet that was let through, and whose it was.
    latest: Option<(u8, Meta)>,
    /// What makes numbers of each source those that a merger before had in common, wrapping.
    offsets: [Option<u64>; SOURCES_MAX],
    /// The first common number that was not let through.
    next: u64,
    /// Nothing is behind by more.
    until: Time,
}

impl Handover {
    /// After a merger: what it released does not come again from a source that is behind.
    fn after(merger: &Merger, now: Time) -> Self {
        let offsets = std::array::from_fn(|source| merger.offset_of(source as u8));
        Self { latest: None, offsets, next: merger.next_number(), until: now + merge::WINDOW_MAX }
    }

    /// Whether a packet that is to be let through has not been already.
    #[inline]
    fn passes(&mut self, now: Time, source: u8, packet: &Packet) -> bool {
        let offset = &mut self.offsets[usize::from(source)];
        if let Some(number) = offset.zip(packet.meta.sequence).map(|(offset, sequence)| sequence.wrapping_add(offset)) {
            let behind = self.next.wrapping_sub(number);
            if now >= self.until {
                *offset = None;
            } else if (1..=BEHIND_MAX).contains(&behind) {
                return false;
            } else {
                self.next = number.wrapping_add(1);
            }
        }
        self.latest = Some((source, packet.meta));
        true
    }

    /// A source's numbers mean something new.
    fn forget(&mut self, source: u8) {
        self.offsets[usize::from(source)] = None;
        self.latest = self.latest.filter(|(latest, _)| *latest != source);
    }
}

/// Of a merged stream, which tells only when it begins anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beginning {
    Awaited,
    /// With a packet of this source; not told yet.
    Came(u8),
    Told,
}

impl Stage {
    /// A stage of no sources yet.
    pub(super) fn new(config: Config) -> Self {
        let kind = match config {
            Config::Failover(config) => {
                Kind::Failover { failover: Box::new(Failover::new(config)), handover: Handover::default() }
            }
            Config::Merge(config) => {
                Kind::Merge { merger: Box::new(Merger::new(config)), config, beginning: Beginning::Awaited }
            }
        };
        let (marks, before) = (Marks::default(), Totals::default());
        let mut stage = Self { kind, marks, marks_for_readers: false, before, latest: None, begins_anew: 0 };
        stage.set_marks();
        stage
    }

    /// One that does what `config` says, for `sources`, and goes on counting where this one ends. Between failover and merging
    /// it goes on with the packets as well: none comes again, and none is left out that the source in use brings.
    pub(super) fn successor(&self, config: Config, now: Time, sources: impl Iterator<Item = u8>) -> Self {
        let (latest, begins_anew) = (self.latest, u8::MAX);
        let mut next = Self { before: self.totals(), latest, begins_anew, ..Self::new(config) };
        next.mark_for_readers(self.marks_for_readers);
        sources.for_each(|source| next.add_source(now, source));
        match (&self.kind, &mut next.kind) {
            (Kind::Failover { handover, .. }, Kind::Merge { merger, .. }) => {
                handover.latest.iter().for_each(|(source, latest)| merger.resume(now, *source, latest));
            }
            (Kind::Merge { merger, .. }, Kind::Failover { handover, .. }) => {
                *handover = Handover::after(merger, now);
            }
            (Kind::Failover { .. } | Kind::Merge { .. }, _) => {}
        }
        next
    }

    /// Changes settings; false if that takes another stage.
    pub(super) fn set_config(&mut self, now: Time, wanted: Config) -> bool {
        match (&mut self.kind, wanted) {
            (Kind::Failover { failover, .. }, Config::Failover(wanted)) => {
                failover.set_config(wanted);
                self.set_marks();
            }
            (Kind::Merge { merger, config, .. }, Config::Merge(wanted))
                if (config.mode, config.packets_max) == (wanted.mode, wanted.packets_max) =>
            {
                *config = wanted;
                merger.set_config(now, wanted);
            }
            (Kind::Failover { .. } | Kind::Merge { .. }, Config::Failover(_) | Config::Merge(_)) => return false,
        }
        true
    }

    /// Whether a reader of the flow needs to know in which packets key frames begin.
    #[inline]
    pub(super) fn mark_for_readers(&mut self, is_needed: bool) {
        if self.marks_for_readers != is_needed {
            self.marks_for_readers = is_needed;
            self.set_marks();
        }
    }

    fn set_marks(&mut self) {
        let for_failover = match &self.kind {
            Kind::Failover { failover, .. } => failover.config().switch_at != SwitchAt::Once,
            Kind::Merge { .. } => false,
        };
        self.marks.set(self.marks_for_readers || for_failover);
    }

    /// A source begins, or begins anew with numbers of its own.
    pub(super) fn add_source(&mut self, now: Time, source: u8) {
        self.marks.restart(source);
        match &mut self.kind {
            Kind::Failover { failover, handover } => {
                failover.add_source(source);
                handover.forget(source);
                self.begins_anew |= 1 << source;
            }
            Kind::Merge { merger, .. } => {
                merger.add_leg(source);
                merger.restart(now, source);
            }
        }
    }

    pub(super) fn remove_source(&mut self, now: Time, source: u8) {
        match &mut self.kind {
            Kind::Failover { failover, .. } => failover.remove_source(now, source),
            Kind::Merge { merger, .. } => merger.remove_leg(now, source),
        }
    }

    /// The sender of a source has started over: its numbers mean something new.
    pub(super) fn restart_source(&mut self, now: Time, source: u8) {
        match &mut self.kind {
            Kind::Failover { handover, .. } => handover.forget(source),
            Kind::Merge { merger, .. } => merger.restart(now, source),
        }
    }

    /// Takes in a packet and gives the first that is to be published; [`Stage::poll_packet`] has more.
    #[inline]
    pub(super) fn handle_packet(&mut self, now: Time, source: u8, mut packet: Packet) -> Option<Packet> {
        match &mut self.kind {
            Kind::Failover { failover, handover } => {
                self.marks.mark(source, &mut packet);
                let forward = if packet.meta.random_access {
                    failover.handle_key_frame(now, source)
                } else {
                    failover.handle_packet(now, source)
                };
                if !forward || !handover.passes(now, source, &packet) {
                    return None;
                }
                if self.latest != Some(source) || self.begins_anew & (1 << source) != 0 || packet.meta.discontinuity {
                    self.mark(source, &mut packet);
                }
                Some(packet)
            }
            Kind::Merge { merger, .. } => {
                merger.push(source, now, packet);
                self.poll_packet(now)
            }
        }
    }

    /// The next packet whose time has come by `now`.
    #[inline]
    pub(super) fn poll_packet(&mut self, now: Time) -> Option<Packet> {
        match &mut self.kind {
            Kind::Failover { .. } => None,
            Kind::Merge { merger, beginning, .. } => {
                let packet = merger.poll_packet(now);
                if *beginning == Beginning::Awaited
                    && let Some(packet) = &packet
                {
                    *beginning = Beginning::Came(packet.meta.source);
                }
                let mut packet = packet?;
                self.marks.mark_merged(&mut packet);
                if self.begins_anew != 0 || self.latest.is_none() || packet.meta.discontinuity {
                    self.mark(packet.meta.source, &mut packet);
                    self.begins_anew = 0;
                }
                Some(packet)
            }
        }
    }

    /// What begins here does not continue what came before it, if anything did.
    #[cold]
    fn mark(&mut self, source: u8, packet: &mut Packet) {
        packet.meta.discontinuity = self.latest.is_some();
        self.latest = Some(source);
        self.begins_anew &= !(1 << source);
    }

    /// The next packet that still waits, at the end of the stage.
    pub(super) fn poll_remains(&mut self, now: Time) -> Option<Packet> {
        self.poll_packet(now + FAR)
    }

    pub(super) fn handle_timeout(&mut self, now: Time) {
        match &mut self.kind {
            Kind::Failover { failover, .. } => failover.handle_timeout(now),
            Kind::Merge { merger, .. } => merger.handle_timeout(now),
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Time> {
        match &self.kind {
            Kind::Failover { failover, .. } => failover.poll_timeout(),
            Kind::Merge { merger, .. } => merger.poll_timeout(),
        }
    }

    /// The oldest change not told yet; those of sources without a name are not told.
    pub(super) fn poll_event(&mut self, name: impl Fn(u8) -> Option<SourceName>) -> Option<EventKind> {
        loop {
            let kind = match &mut self.kind {
                Kind::Failover { failover, .. } => of_failover(failover.poll_event()?, failover.config(), &name),
                Kind::Merge { beginning: beginning @ Beginning::Came(_), .. } => {
                    let Beginning::Came(source) = std::mem::replace(beginning, Beginning::Told) else { continue };
                    name(source).map(|source| EventKind::SourceActive { source })
                }
                Kind::Merge { merger, .. } => of_merge(merger.poll_event()?, &name),
            };
            if kind.is_some() {
                return kind;
            }
        }
    }

    /// The one source in use, where there is one.
    pub(super) const fn active(&self) -> Option<u8> {
        match &self.kind {
            Kind::Failover { failover, .. } => failover.active(),
            Kind::Merge { .. } => None,
        }
    }

    pub(super) const fn is_merging(&self) -> bool {
        matches!(self.kind, Kind::Merge { .. })
    }

    /// What is wrong with a source by the rules.
    pub(super) fn fault(&self, source: u8) -> Option<Fault> {
        match &self.kind {
            Kind::Failover { failover, .. } => failover.fault(source),
            Kind::Merge { .. } => None,
        }
    }

    /// Whether the counts of [`Stage::handle_counts`] need errors of the transport streams.
    pub(super) fn judges_ts(&self) -> bool {
        matches!(&self.kind, Kind::Failover { failover, .. } if failover.config().switch_on.ts_errors_per_second.is_some())
    }

    /// Whether [`Stage::handle_counts`] is to be called now, before [`Stage::handle_timeout`].
    pub(super) fn wants_counts(&self, now: Time) -> bool {
        matches!(&self.kind, Kind::Failover { failover, .. } if failover.wants_counts(now))
    }

    /// What the sources have counted so far.
    pub(super) fn handle_counts(&mut self, now: Time, counts: impl Iterator<Item = (u8, Counts)>) {
        if let Kind::Failover { failover, .. } = &mut self.kind {
            failover.handle_counts(now, counts);
        }
    }

    /// Changes so far.
    pub(super) fn totals(&self) -> Totals {
        match &self.kind {
            Kind::Failover { failover, .. } => {
                let failover::Stats { switches, returns_total, key_frame_timeouts_total, .. } = failover.stats();
                Totals {
                    switches: self.before.switches + switches,
                    returns: self.before.returns + returns_total,
                    key_frame_timeouts: self.before.key_frame_timeouts + key_frame_timeouts_total,
                }
            }
            Kind::Merge { .. } => self.before,
        }
    }

    /// What a merger counts, with legs by slot; `None` where nothing is merged.
    pub(super) fn merge_snapshot(&self) -> Option<MergeSnapshot<u8>> {
        let Kind::Merge { merger, .. } = &self.kind else { return None };
        let legs = 0..merge::LEGS_MAX as u8;
        let legs = legs.filter_map(|leg| merger.leg_stats(leg).map(|stats| (leg, stats))).collect();
        Some(MergeSnapshot { stats: merger.stats(), legs })
    }
}

fn of_failover(
    event: failover::Event,
    config: failover::Config,
    name: impl Fn(u8) -> Option<SourceName>,
) -> Option<EventKind> {
    match event {
        failover::Event::Activated { source } => name(source).map(|source| EventKind::SourceActive { source }),
        failover::Event::Switched { from, to, cause } => {
            let silent = match cause {
                failover::Cause::Silent => config.health_timeout,
                failover::Cause::Removed | failover::Cause::Faulty(_) => Duration::ZERO,
            };
            name(from).zip(name(to)).map(|(from, to)| EventKind::SourceFailover { from, to, cause, silent })
        }
        failover::Event::SwitchedBack { to, .. } => name(to).map(|source| EventKind::PrimaryRecovered { source }),
        failover::Event::SourceLost { source } => name(source).map(|source| EventKind::SourceLost { source }),
        failover::Event::SourceDegraded { source, fault } => {
            name(source).map(|source| EventKind::SourceDegraded { source, fault })
        }
        failover::Event::SourceRestored { source, fault } => {
            name(source).map(|source| EventKind::SourceRestored { source, fault })
        }
        failover::Event::SourceAlive { source } => name(source).map(|source| EventKind::SourceRecovered { source }),
    }
}

fn of_merge(event: merge::Event, name: impl Fn(u8) -> Option<SourceName>) -> Option<EventKind> {
    match event {
        merge::Event::MergeStarted { leg } => name(leg).map(|source| EventKind::MergeStarted { source }),
        merge::Event::MergeError { leg, why } => name(leg).map(|source| EventKind::MergeError { source, why }),
        merge::Event::LegLost { leg } => name(leg).map(|source| EventKind::LegLost { source }),
        merge::Event::AllLost => Some(EventKind::MergeEof),
        merge::Event::LegRecovered { leg } => name(leg).map(|source| EventKind::LegRecovered { source }),
        // The stream begins, or begins anew, with what this one brings.
        merge::Event::Restarted { leg } => name(leg).map(|source| EventKind::SourceActive { source }),
    }
}

/// Recovery windows up to here do with as many packets as is usual: at 1,316 bytes each 172 Mb/s, if a leg is ahead by all
/// of it.
const SHORT_WINDOW: Duration = Duration::from_millis(250);
/// All that a merger can have: 15 s of 11 Mb/s.
const PACKETS_OF_LONG_WINDOW: usize = 32_768;
/// Packets that a source may be behind; more is another stream. As many as a merger can hold.
const BEHIND_MAX: u64 = PACKETS_OF_LONG_WINDOW as u64;
/// Longer than anything waits: no recovery window is longer than 15 s.
const FAR: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::{Meta, Pool, PoolLimits};

    #[test]
    fn what_does_not_continue_what_came_before_is_marked() {
        let failover = failover::Config { primary: Some(0), ..failover::Config::default() };
        let mut rig =
            Rig { stage: Stage::new(Config::Failover(failover)), pool: Pool::new(PoolLimits::default()), at: 0 };
        (0..2).for_each(|source| rig.stage.add_source(Time::ZERO, source));
        assert_eq!(rig.push(0, true), Some(false), "nothing came before");
        assert_eq!(rig.push(0, false), Some(false));
        assert_eq!(rig.push(0, true), Some(true), "the core says so");
        assert_eq!(rig.push(1, true), None);
        rig.stage.remove_source(rig.now(), 0);
        assert_eq!(rig.push(1, false), Some(true), "another source");
        assert_eq!(rig.push(1, false), Some(false));
        rig.stage.add_source(rig.now(), 1);
        assert_eq!(rig.push(1, false), Some(true), "opened anew");
        let merge = Config::Merge(merge::Config::default());
        rig.stage = rig.stage.successor(merge, rig.now(), [1].into_iter());
        assert_eq!(rig.push(1, true), Some(true), "merged from now on");
        assert_eq!(rig.push(1, true), Some(false));
        rig.stage.restart_source(rig.now(), 1);
        assert_eq!(rig.push(1, true), Some(true), "the sender started over");
        rig.stage = rig.stage.successor(Config::Failover(failover), rig.now(), [1].into_iter());
        assert_eq!(rig.push(1, false), Some(true), "not merged any more");
        assert_eq!(rig.push(1, false), Some(false));
    }

    struct Rig {
        stage: Stage,
        pool: Pool,
        at: u64,
    }

    impl Rig {
        fn now(&self) -> Time {
            Time::from_ns(self.at * 1_000_000)
        }

        /// The mark of what comes out for a packet that its core has given this one.
        fn push(&mut self, source: u8, discontinuity: bool) -> Option<bool> {
            self.at += 1;
            let rtp_timestamp = Some(self.at as u32 * 90);
            let meta = Meta { source, discontinuity, sequence: Some(self.at), rtp_timestamp, ..Meta::default() };
            let packet = self.pool.copy(&[0x47; 188], meta).unwrap();
            self.stage.handle_packet(self.now(), source, packet).map(|packet| packet.meta.discontinuity)
        }
    }
}
