//! `Monitor`: the analysis of what a running flow's sources bring, and of what they are merged into; `Tap`, of what an output
//! takes to send.
//!
//! It runs on the flow's worker, right after the packets were taken in: they are in the processor's cache then, and looking at
//! one costs less than waking somebody else to do it.

use super::config::SOURCES_MAX;
use super::event::EventKind;
use crate::bus::{LocalCursor, Packet, Publisher};
use crate::proto::mpegts::analysis::{Analyser, Event, Snapshot, State};
use crate::units::{OutputName, SourceName, Time};

/// Analysers of a flow; none while nobody needs them.
#[derive(Debug, Default)]
pub(super) struct Monitor {
    needed: Needed,
    sources: [Option<Box<Watched>>; SOURCES_MAX],
    merged: Option<Box<Analyser>>,
    /// Outputs that have a [`Tap`], by name.
    outputs: Vec<OutputName>,
    /// What was found of them, by slot, once the flow is over.
    last: Vec<(u16, Box<Snapshot>)>,
}

/// What the analysis is for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Needed {
    /// Events and metrics.
    pub(super) events: bool,
    /// [`Monitor::errors`], by which failover judges sources.
    pub(super) errors: bool,
    /// The sources are merged: that stream is looked at, too.
    pub(super) merged: bool,
}

/// What analysers found, by slot of the source.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) sources: Vec<(u8, Box<Snapshot>)>,
    pub(super) merged: Option<Box<Snapshot>>,
    pub(super) outputs: Vec<(u16, Box<Snapshot>)>,
}

#[derive(Debug)]
struct Watched {
    analyser: Analyser,
    /// Packets in which no TS packet was found.
    unreadable: u64,
}

impl Watched {
    fn new(now: Time) -> Box<Self> {
        Box::new(Self { analyser: Analyser::new(now), unreadable: 0 })
    }
}

/// Looks at what an output takes from the ring to send, when it does: not at what it was too slow for, nor at what it leaves out
/// up to a key frame. What its rate limit or the system drops behind that is among its counters only.
#[derive(Debug)]
pub(super) struct Tap {
    analyser: Box<Analyser>,
}

impl Tap {
    pub(super) fn new(now: Time) -> Self {
        Self { analyser: Box::new(Analyser::new(now)) }
    }

    /// The output has read on, `from` there `to` here. Nothing was published meanwhile.
    pub(super) fn handle_taken(&mut self, now: Time, publisher: &Publisher, mut from: LocalCursor, to: &LocalCursor) {
        while let Some(packet) = publisher.read_again(&mut from, to) {
            if packet.meta.discontinuity {
                // Another source has numbers of its own.
                self.analyser.restart_sequence();
            }
            self.analyser.handle_packet(now, &packet, packet.meta.sequence);
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Time) {
        self.analyser.handle_timeout(now);
    }

    pub(super) fn poll_timeout(&self) -> Option<Time> {
        self.analyser.poll_timeout()
    }

    pub(super) fn snapshot(&self) -> Box<Snapshot> {
        Box::new(self.analyser.snapshot())
    }
}

impl Monitor {
    /// Has all of `sources` looked at as far as that is needed; what goes on keeps what it counted.
    pub(super) fn set(&mut self, now: Time, needed: Needed, sources: impl Iterator<Item = u8>) {
        self.needed = needed;
        if !self.is_looking() {
            *self = Self { outputs: std::mem::take(&mut self.outputs), ..Self::default() };
            return;
        }
        for slot in sources {
            if let Some(watched) = self.sources.get_mut(usize::from(slot)) {
                watched.get_or_insert_with(|| Watched::new(now));
            }
        }
        let is_merged = needed.events && needed.merged;
        self.merged = is_merged.then(|| self.merged.take().unwrap_or_else(|| Box::new(Analyser::new(now))));
    }

    /// Which outputs are watched.
    pub(super) fn set_outputs(&mut self, outputs: Vec<OutputName>) {
        self.outputs = outputs;
    }

    pub(super) fn watches_output(&self, name: &OutputName) -> bool {
        self.outputs.contains(name)
    }

    /// The flow is over: what was found of its outputs.
    pub(super) fn keep_outputs(&mut self, last: Vec<(u16, Box<Snapshot>)>) {
        self.last = last;
    }

    const fn is_looking(&self) -> bool {
        self.needed.events || self.needed.errors
    }

    /// Whether events and metrics are asked for.
    pub(super) const fn is_on(&self) -> bool {
        self.needed.events
    }

    /// A source begins anew.
    pub(super) fn start_source(&mut self, now: Time, slot: u8) {
        let is_looking = self.is_looking();
        if let Some(watched) = self.sources.get_mut(usize::from(slot)) {
            *watched = is_looking.then(|| Watched::new(now));
        }
    }

    pub(super) fn remove_source(&mut self, slot: u8) {
        if let Some(watched) = self.sources.get_mut(usize::from(slot)) {
            *watched = None;
        }
    }

    #[inline]
    pub(super) fn handle_packets(&mut self, slot: u8, packets: &[Packet]) {
        let Some(Some(watched)) = self.sources.get_mut(usize::from(slot)) else { return };
        for packet in packets {
            watched.analyser.handle_packet(packet.meta.arrival, packet, packet.meta.sequence);
            watched.unreadable += u64::from(!watched.analyser.scanner().is_locked());
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
        if !self.is_looking() {
            return None;
        }
        let sources = self.sources.iter().flatten().map(|watched| &watched.analyser);
        sources.chain(self.merged.as_deref()).filter_map(Analyser::poll_timeout).min()
    }

    /// The next change of an indicator; `name` knows the sources, and the merged stream has none.
    pub(super) fn poll_event(&mut self, name: impl Fn(u8) -> Option<SourceName>) -> Option<EventKind> {
        if !self.needed.events {
            return None;
        }
        // Of legs that carry the same cues those of what they are merged into are told.
        let tells_all = self.merged.is_none();
        self.analysers_mut().find_map(|(slot, analyser)| {
            while let Some(cue) = analyser.poll_cue() {
                if tells_all || slot.is_none() {
                    return Some(EventKind::Scte35Cue { source: slot.and_then(&name), cue });
                }
            }
            let Event { indicator, state, pid, errors } = analyser.poll_event()?;
            let source = slot.and_then(&name);
            Some(if state == State::Error {
                EventKind::TsError { source, indicator, pid, errors }
            } else {
                EventKind::TsRecovered { source, indicator, errors }
            })
        })
    }

    /// Errors of the first priority of a source so far (ETSI TR 101 290 5.2.1), and packets in which no TS packet was found:
    /// sync that was lost once and stays so is no error less.
    pub(super) fn errors(&self, slot: u8) -> u64 {
        let watched = self.sources.get(usize::from(slot)).and_then(Option::as_ref);
        watched.map_or(0, |watched| watched.analyser.priority_1_errors() + watched.unreadable)
    }

    pub(super) fn findings(&self) -> Findings {
        let outputs = self.last.clone();
        if !self.needed.events {
            return Findings { outputs, ..Findings::default() };
        }
        let sources = (0..).zip(&self.sources);
        let sources =
            sources.filter_map(|(slot, watched)| Some((slot, Box::new(watched.as_ref()?.analyser.snapshot()))));
        Findings {
            sources: sources.collect(),
            merged: self.merged.as_ref().map(|analyser| Box::new(analyser.snapshot())),
            outputs,
        }
    }

    fn analysers_mut(&mut self) -> impl Iterator<Item = (Option<u8>, &mut Analyser)> {
        let sources = (0_u8..).zip(&mut self.sources);
        let sources = sources.filter_map(|(slot, watched)| Some((Some(slot), &mut watched.as_mut()?.analyser)));
        sources.chain(self.merged.as_deref_mut().map(|analyser| (None, analyser)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::{LagPolicy, Meta, Pool, PoolLimits};
    use crate::proto::mpegts::analysis::Indicator;

    #[test]
    fn a_torn_stream_has_errors_and_noise_goes_on_having_them() {
        let pool = Pool::new(PoolLimits::default());
        let mut monitor = Monitor::default();
        monitor.set(Time::ZERO, Needed { errors: true, ..Needed::default() }, [1].into_iter());
        let mut handle = |bytes: &[u8]| {
            let before = monitor.errors(1);
            monitor.handle_packets(1, &[pool.copy(bytes, Meta::default()).unwrap()]);
            monitor.errors(1) - before
        };
        // Until five sync bytes were seen nothing can be told.
        handle(&seven(0));
        for n in 1..100 {
            assert_eq!(handle(&seven(n)), 0);
        }
        assert_eq!(handle(&seven(101)), 1, "one is missing");
        let mut damaged = seven(102);
        damaged[188] = 0;
        assert_eq!(handle(&damaged), 2, "a sync byte, and the continuity");
        for _ in 0..10 {
            assert!(handle(&[0x20; 1_316]) > 0, "noise does not end at the first loss of sync");
        }
        assert!(monitor.findings().sources.is_empty(), "nobody asked");
        monitor.set(Time::ZERO, Needed::default(), [1].into_iter());
        assert_eq!((monitor.errors(1), monitor.poll_timeout()), (0, None));
    }

    #[test]
    fn what_legs_are_merged_into_is_judged_by_itself() {
        let pool = Pool::new(PoolLimits::default());
        let mut monitor = Monitor::default();
        let needed = Needed { events: true, errors: false, merged: true };
        monitor.set(Time::ZERO, needed, 0..2);
        let mut told = Vec::new();
        let mut play = |monitor: &mut Monitor, range: std::ops::Range<usize>, lost: [usize; 2]| {
            for n in range {
                let now = Time::from_ns(n as u64 * 1_000_000);
                let packet = pool.copy(&seven(n), Meta { arrival: now, ..Meta::default() }).unwrap();
                for leg in (0..2).filter(|leg| n != lost[usize::from(*leg)]) {
                    monitor.handle_packets(leg, std::slice::from_ref(&packet));
                }
                if lost != [n; 2] {
                    monitor.handle_merged(now, &packet);
                }
                assert!(monitor.poll_timeout().is_some());
                monitor.handle_timeout(now);
                while let Some(event) = monitor.poll_event(|slot| format!("s{slot}").parse().ok()) {
                    if let EventKind::TsError { source, indicator: Indicator::ContinuityCountError, .. } = event {
                        told.push(source.map(|source| source.to_string()));
                    }
                }
            }
            std::mem::take(&mut told)
        };
        let of = |name: &str| Some(name.to_string());
        assert_eq!(play(&mut monitor, 0..200, [50, 70]), [of("s0"), of("s1")]);
        assert_eq!(play(&mut monitor, 200..400, [250; 2]), [None], "the legs were wrong before");
        let errors = |monitor: &Monitor| {
            let Findings { sources, merged, .. } = monitor.findings();
            let errors = |found: &Snapshot| found.stats.continuity_errors;
            (sources.iter().map(|(_, found)| errors(found)).collect(), merged.as_deref().map(errors))
        };
        assert_eq!(errors(&monitor), (vec![2, 2], Some(1)));
        monitor.set(Time::ZERO, needed, 0..2);
        assert_eq!(errors(&monitor), (vec![2, 2], Some(1)), "what goes on keeps what it counted");
        monitor.set(Time::ZERO, Needed { merged: false, ..needed }, 0..2);
        assert_eq!(errors(&monitor), (vec![2, 2], None));
        monitor.set(Time::ZERO, needed, 0..2);
        assert_eq!(errors(&monitor), (vec![2, 2], Some(0)), "and what is merged again begins anew");
    }

    #[test]
    fn a_tap_sees_what_an_output_takes_and_not_what_it_is_too_slow_for() {
        let pool = Pool::new(PoolLimits::default());
        let mut publisher = Publisher::new(pool.clone(), 4);
        let mut output = LocalCursor::at_head(&publisher);
        let mut tap = Tap::new(Time::ZERO);
        let mut now = Time::ZERO;
        // Fourteen packets one by one, then ten at once into a ring of four.
        for n in 0..24 {
            publisher.publish(pool.copy(&seven(n), Meta::default()).unwrap());
            publisher.flush(output.next());
            now += std::time::Duration::from_millis(1);
            if !(14..23).contains(&n) {
                let from = output.clone();
                while publisher.read(&mut output).is_some() {}
                tap.handle_taken(now, &publisher, from, &output);
            }
        }
        let found = tap.snapshot();
        assert_eq!(output.take_missed(), 6);
        assert_eq!(found.stats.sync.packets, (24 - 6) * 7);
        assert_eq!(found.stats.continuity_errors, 1);
        assert_eq!(found.span.as_millis(), 23, "by when it was sent");
    }

    #[test]
    fn a_tap_does_not_see_what_an_output_leaves_out_up_to_a_key_frame() {
        let pool = Pool::new(PoolLimits::default());
        let mut publisher = Publisher::new(pool.clone(), 64);
        let mut output = LocalCursor::at_head(&publisher);
        output.set_policy(LagPolicy::ToNextKeyFrame);
        let mut tap = Tap::new(Time::ZERO);
        let mut taken = 0;
        // Of ten packets each, in which the seventh begins with a key frame, behind losses of what was sent before.
        for turn in 0..6 {
            for n in 10 * turn..10 * turn + 10 {
                let meta = Meta { random_access: n % 10 == 6, ..Meta::default() };
                publisher.publish(pool.copy(&seven(n), meta).unwrap());
            }
            publisher.flush(output.next());
            let from = output.clone();
            if turn % 2 == 1 {
                output.resume_at_key_frame();
            }
            while publisher.read(&mut output).is_some() {
                taken += 1;
            }
            tap.handle_taken(Time::from_ns(turn as u64), &publisher, from, &output);
        }
        assert_eq!((taken, output.take_skipped().packets), (3 * 10 + 3 * 4, 3 * 6));
        let found = tap.snapshot();
        assert_eq!((found.stats.sync.packets, found.stats.continuity_errors), (taken * 7, 3));
    }

    /// The `n`-th seven TS packets of a stream.
    fn seven(n: usize) -> Vec<u8> {
        let ts_packet = |n: usize| [&[0x47, 0x01, 0x00, 0x10 | (n % 16) as u8][..], &[n as u8; 184]].concat();
        (7 * n..7 * n + 7).flat_map(ts_packet).collect()
    }
}
