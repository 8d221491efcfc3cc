//! Which source is active; when to switch and to return.
//!
//! All sources are kept warm: each delivers all the time, and the packets of one are forwarded.
//!
//! ```text
//!              first packet of any source
//!   no active ───────────────────────────► active ◄────────────────────────┐
//!                                             │ silent for `health_timeout` │
//!                                             ▼                            │
//!                             another alive? ── yes ── switch to the first ─┤ Switched
//!                                             │        in order            │
//!                                             no                           │
//!                                             ▼                            │
//!                                   stay; first to deliver ────────────────┤ Switched, or nothing if it is the same
//!                                                                          │
//!              active is a backup, primary alive for `hold_off` ───────────┘ SwitchedBack
//! ```
//!
//! The order is the primary first, then by index.

use std::time::Duration;

use arrayvec::ArrayVec;

use crate::units::Time;

/// Sources a flow may have. Judgement: more than anybody pays for, and an index fits everywhere.
pub const SOURCES_MAX: usize = 8;

/// When to leave a source and when to come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Index of the source to prefer; `None` never switches back.
    pub primary: Option<u8>,
    /// Silence after which a source counts as lost.
    pub health_timeout: Duration,
    /// How long the primary must have delivered, with no silence of `health_timeout`, before it is active again.
    pub hold_off: Duration,
}

impl Default for Config {
    /// No primary, 500 ms, 5 s. Judgement: longer than the pauses of a bursty sender, shorter than a viewer's patience;
    /// a primary that flaps every few seconds stays out.
    fn default() -> Self {
        Self { primary: None, health_timeout: Duration::from_millis(500), hold_off: Duration::from_secs(5) }
    }
}

/// What has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A source is active where none was; or the primary, which delivered its first packet just after a backup did at
    /// the start.
    Activated {
        /// Active now.
        source: u8,
    },
    /// The active source failed and another took over.
    Switched {
        /// Active until now.
        from: u8,
        /// Active now.
        to: u8,
        /// Why.
        cause: Cause,
    },
    /// The primary has proved itself and took over from a healthy backup.
    SwitchedBack {
        /// The backup that was active until now.
        from: u8,
        /// The primary.
        to: u8,
    },
    /// A source, active or not, has been silent for the health timeout.
    SourceLost {
        /// Which.
        source: u8,
    },
    /// A source, active or not, delivers for the first time or again.
    SourceAlive {
        /// Which.
        source: u8,
    },
}

/// Why the active source was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It was silent for the health timeout.
    Silent,
    /// It was taken out of the flow.
    Removed,
}

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Times that a failed active source was replaced.
    pub switches_total: u64,
    /// Times that the primary took over again from a healthy backup.
    pub returns_total: u64,
    /// Events that nobody fetched in time.
    pub events_dropped_total: u64,
}

/// Chooses the active one of up to [`SOURCES_MAX`] sources.
///
/// `now` is the moment of the call and must not run backwards. What waits on the sockets should be handled before
/// [`Failover::handle_timeout`]: a process that stood still for a while must not take that for silence.
#[derive(Clone, Debug)]
pub struct Failover {
    config: Config,
    sources: [Source; SOURCES_MAX],
    active: Option<u8>,
    /// When the first source of all became active.
    started: Option<Time>,
    /// Nothing is due before; may be earlier than the next deadline, never later.
    wake_at: Time,
    events: ArrayVec<Event, EVENTS_MAX>,
    stats: Stats,
}

impl Failover {
    /// A choice among no sources yet.
    ///
    /// # Panics
    /// If the primary's index is not below [`SOURCES_MAX`].
    #[must_use]
    pub fn new(config: Config) -> Self {
        let mut failover = Self {
            config,
            sources: [Source::default(); SOURCES_MAX],
            active: None,
            started: None,
            wake_at: NEVER,
            events: ArrayVec::new(),
            stats: Stats::default(),
        };
        failover.set_primary(config.primary);
        failover
    }

    /// A packet of `source` came. True: forward it.
    pub fn handle_packet(&mut self, now: Time, source: u8) -> bool {
        let Some(slot) = self.sources.get_mut(usize::from(source)) else {
            return false;
        };
        slot.last = now;
        if !matches!(slot.state, State::Alive { .. }) {
            self.handle_revival(now, source);
        }
        self.active == Some(source)
    }

    /// Looks at what is due at `now`: lost sources, a switch, the return to the primary. Calling it early is harmless.
    pub fn handle_timeout(&mut self, now: Time) {
        if now < self.wake_at {
            return;
        }
        for source in 0..SOURCES_MAX as u8 {
            let slot = &mut self.sources[usize::from(source)];
            if matches!(slot.state, State::Alive { .. }) && now >= slot.last + self.config.health_timeout {
                slot.state = State::Silent { before: true };
                self.tell(Event::SourceLost { source });
            }
        }
        if self.active.is_some_and(|active| !self.is_alive(active)) {
            self.replace_active(Cause::Silent);
        }
        if self.return_due().is_some_and(|due| now >= due) {
            self.switch_back();
        }
        self.wake_at = self.next_deadline();
    }

    /// When [`Failover::handle_timeout`] wants to be called; `None` for never. With a healthy flow that is about once
    /// per health timeout, not once per packet.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        (self.wake_at != NEVER).then_some(self.wake_at)
    }

    /// The oldest change not fetched yet. Of more than 32 waiting ones the newest are dropped and counted.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_at(0)
    }

    /// Makes room for a source; it takes part from its first packet on. No change if it is there already.
    ///
    /// # Panics
    /// If the index is not below [`SOURCES_MAX`].
    pub fn add_source(&mut self, source: u8) {
        let slot = &mut self.sources[usize::from(source)];
        if matches!(slot.state, State::Absent) {
            slot.state = State::Silent { before: false };
        }
    }

    /// Takes a source out. If it was the active one, the next alive one in order takes over at once; if it was the
    /// primary, there is none from now on.
    pub fn remove_source(&mut self, now: Time, source: u8) {
        self.handle_timeout(now);
        let Some(slot) = self.sources.get_mut(usize::from(source)) else {
            return;
        };
        slot.state = State::Absent;
        if self.config.primary == Some(source) {
            self.config.primary = None;
        }
        if self.active == Some(source) && !self.replace_active(Cause::Removed) {
            self.active = None;
        }
        self.wake_at = self.next_deadline();
    }

    /// Prefers another source from now on. The active one stays until the new primary has been alive for the hold-off;
    /// if it has been already, it takes over at the next packet or timeout.
    ///
    /// # Panics
    /// If the index is not below [`SOURCES_MAX`].
    pub fn set_primary(&mut self, primary: Option<u8>) {
        assert!(primary.is_none_or(|primary| usize::from(primary) < SOURCES_MAX), "{primary:?} is no source index");
        self.config.primary = primary;
        self.wake_at = self.next_deadline();
    }

    /// Changes all settings at once; who is alive and who is active stays.
    ///
    /// # Panics
    /// If the primary's index is not below [`SOURCES_MAX`].
    pub fn set_config(&mut self, config: Config) {
        self.config = config;
        self.set_primary(config.primary);
    }

    /// The settings in force.
    #[must_use]
    pub const fn config(&self) -> Config {
        self.config
    }

    /// The source whose packets are forwarded. It may be silent, if all are.
    #[must_use]
    pub const fn active(&self) -> Option<u8> {
        self.active
    }

    /// Whether `source` has delivered within the health timeout, as of the last call with a time.
    #[must_use]
    pub fn is_alive(&self, source: u8) -> bool {
        self.sources.get(usize::from(source)).is_some_and(|slot| matches!(slot.state, State::Alive { .. }))
    }

    /// Counters since the start.
    #[must_use]
    pub const fn stats(&self) -> Stats {
        self.stats
    }

    /// A source that was not alive has just delivered.
    #[cold]
    fn handle_revival(&mut self, now: Time, source: u8) {
        let slot = &mut self.sources[usize::from(source)];
        let first_time = match slot.state {
            State::Absent | State::Alive { .. } => return,
            State::Silent { before } => !before,
        };
        slot.state = State::Alive { since: now };
        self.tell(Event::SourceAlive { source });
        match self.active {
            None => self.activate(now, source),
            Some(active) if !self.is_alive(active) => {
                self.replace_active(Cause::Silent);
            }
            Some(active) if first_time && active != source && self.is_start_of_primary(now, source) => {
                self.activate(now, source);
            }
            Some(_) => {}
        }
        self.wake_at = self.next_deadline();
    }

    /// When all sources start together, chance decides which delivers first; the primary need not wait then.
    fn is_start_of_primary(&self, now: Time, source: u8) -> bool {
        self.config.primary == Some(source)
            && self.started.is_some_and(|started| now.since(started) < self.config.health_timeout)
    }

    fn activate(&mut self, now: Time, source: u8) {
        self.active = Some(source);
        self.started.get_or_insert(now);
        self.tell(Event::Activated { source });
    }

    /// Switches from the active source to the first alive one in order; false if there is none.
    fn replace_active(&mut self, cause: Cause) -> bool {
        let primary = self.config.primary;
        let next = primary.into_iter().chain(0..SOURCES_MAX as u8).find(|source| self.is_alive(*source));
        let (Some(from), Some(to)) = (self.active, next) else {
            return false;
        };
        self.active = Some(to);
        self.stats.switches_total += 1;
        self.tell(Event::Switched { from, to, cause });
        true
    }

    fn switch_back(&mut self) {
        if let (Some(from), Some(to)) = (self.active, self.config.primary) {
            self.active = Some(to);
            self.stats.returns_total += 1;
            self.tell(Event::SwitchedBack { from, to });
        }
    }

    /// When the primary will have been alive long enough; `None` if it is not alive, or active already.
    fn return_due(&self) -> Option<Time> {
        let primary = self.config.primary.filter(|_| self.active.is_some() && self.active != self.config.primary)?;
        match self.sources[usize::from(primary)].state {
            State::Alive { since } => Some(since + self.config.hold_off),
            State::Absent | State::Silent { .. } => None,
        }
    }

    fn next_deadline(&self) -> Time {
        let alive = self.sources.iter().filter(|slot| matches!(slot.state, State::Alive { .. }));
        let lost = alive.map(|slot| slot.last + self.config.health_timeout);
        lost.chain(self.return_due()).min().unwrap_or(NEVER)
    }

    fn tell(&mut self, event: Event) {
        if self.events.try_push(event).is_err() {
            self.stats.events_dropped_total += 1;
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Source {
    /// Arrival of its last packet.
    last: Time,
    state: State,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    /// No such source.
    #[default]
    Absent,
    /// Nothing for the health timeout, or nothing yet.
    Silent {
        /// Whether it has delivered earlier.
        before: bool,
    },
    /// Has delivered within the health timeout, without a longer silence since the given moment.
    Alive { since: Time },
}

/// Events that may wait. One call makes at most ten: eight lost sources, a switch, a return.
const EVENTS_MAX: usize = 32;

const NEVER: Time = Time::from_ns(u64::MAX);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CONFIG: Config =
        Config { primary: Some(0), health_timeout: Duration::from_millis(500), hold_off: Duration::from_secs(5) };

    #[test]
    fn the_first_to_deliver_is_active_at_once() {
        let mut failover = with_sources(CONFIG, 3);
        assert!(failover.handle_packet(ms(1), 2));
        assert!(!failover.handle_packet(ms(2), 1));
        assert_eq!(events(&mut failover)[..2], [Event::SourceAlive { source: 2 }, Event::Activated { source: 2 }]);
    }

    #[test]
    fn the_primary_does_not_wait_when_all_start_together() {
        let mut failover = with_sources(CONFIG, 2);
        failover.handle_packet(ms(1), 1);
        assert!(failover.handle_packet(ms(4), 0));
        assert!(!failover.handle_packet(ms(5), 1));
        assert_eq!(failover.stats(), Stats::default());
    }

    #[test]
    fn a_primary_that_starts_late_serves_its_hold_off() {
        let mut failover = with_sources(CONFIG, 2);
        deliver(&mut failover, 0..600, &[1]);
        deliver(&mut failover, 600..5_600, &[0, 1]);
        assert_eq!(failover.active(), Some(1));
        deliver(&mut failover, 5_600..5_601, &[0, 1]);
        assert_eq!(failover.active(), Some(0));
        assert_eq!(failover.stats().returns_total, 1);
    }

    #[test]
    fn a_silent_active_source_is_left_at_the_deadline_without_waiting_for_a_packet() {
        let mut failover = with_sources(CONFIG, 3);
        deliver(&mut failover, 0..1_000, &[0, 2]);
        failover.handle_packet(ms(1_400), 2);
        failover.handle_timeout(ms(1_498));
        assert_eq!(failover.active(), Some(0));
        assert!(failover.poll_timeout().unwrap() <= ms(1_499));
        failover.handle_timeout(ms(1_499));
        assert_eq!(failover.active(), Some(2));
        let switched = Event::Switched { from: 0, to: 2, cause: Cause::Silent };
        assert_eq!(events(&mut failover)[3..], [Event::SourceLost { source: 0 }, switched]);
    }

    #[test]
    fn a_late_timeout_still_switches() {
        let mut failover = with_sources(CONFIG, 2);
        deliver(&mut failover, 0..1, &[0, 1]);
        failover.handle_packet(ms(400), 1);
        assert!(!failover.handle_packet(ms(700), 1));
        failover.handle_timeout(ms(700));
        assert!(failover.handle_packet(ms(701), 1));
    }

    #[test]
    fn standing_still_is_no_silence_whichever_source_is_handled_first() {
        let mut failover = with_sources(CONFIG, 2);
        deliver(&mut failover, 0..1, &[0, 1]);
        assert!(!failover.handle_packet(ms(2_000), 1));
        assert!(failover.handle_packet(ms(2_000), 0));
        failover.handle_timeout(ms(2_000));
        assert_eq!(failover.active(), Some(0));
    }

    #[test]
    fn order_is_primary_then_index() {
        let mut failover = with_sources(Config { primary: Some(2), ..CONFIG }, 4);
        deliver(&mut failover, 0..100, &[3]);
        deliver(&mut failover, 100..101, &[0, 1, 2, 3]);
        assert_eq!(failover.active(), Some(2));
        deliver(&mut failover, 101..700, &[0, 1, 3]);
        assert_eq!(failover.active(), Some(0));
        deliver(&mut failover, 700..800, &[1, 2, 3]);
        deliver(&mut failover, 800..1_300, &[2, 3]);
        assert_eq!(failover.active(), Some(2), "the primary comes first among those that may replace, hold-off or not");
    }

    #[test]
    fn any_long_silence_restarts_the_hold_off() {
        let mut failover = with_sources(CONFIG, 2);
        deliver(&mut failover, 0..1_000, &[0, 1]);
        deliver(&mut failover, 1_000..2_000, &[1]);
        deliver(&mut failover, 2_000..6_900, &[0, 1]);
        deliver(&mut failover, 6_900..7_500, &[1]);
        deliver(&mut failover, 7_500..12_499, &[0, 1]);
        assert_eq!(failover.active(), Some(1));
        deliver(&mut failover, 12_499..12_501, &[0, 1]);
        assert_eq!(failover.active(), Some(0));
    }

    #[test]
    fn without_a_primary_nothing_switches_back() {
        let mut failover = with_sources(Config { primary: None, ..CONFIG }, 2);
        deliver(&mut failover, 0..10, &[0]);
        deliver(&mut failover, 10..1_000, &[1]);
        deliver(&mut failover, 1_000..60_000, &[0, 1]);
        assert_eq!(failover.active(), Some(1));
    }

    #[test]
    fn when_all_are_lost_the_active_stays_and_the_first_to_come_back_wins() {
        let mut failover = with_sources(CONFIG, 3);
        deliver(&mut failover, 0..10, &[0, 1, 2]);
        deliver(&mut failover, 10..2_000, &[]);
        assert_eq!(failover.active(), Some(0));
        assert_eq!(failover.poll_timeout(), None);
        assert!(failover.handle_packet(ms(2_000), 2));
        assert!(!failover.handle_packet(ms(2_001), 0));
        assert_eq!(failover.stats().switches_total, 1);
    }

    #[test]
    fn standing_still_switches_nothing() {
        let mut failover = with_sources(CONFIG, 2);
        deliver(&mut failover, 0..10, &[0, 1]);
        assert!(failover.handle_packet(ms(5_000), 0));
        assert_eq!(failover.stats().switches_total, 0);
    }

    #[test]
    fn removing_the_active_source_switches_at_once_and_others_disturb_nothing() {
        let mut failover = with_sources(CONFIG, 3);
        deliver(&mut failover, 0..10, &[0, 1, 2]);
        failover.remove_source(ms(10), 1);
        failover.add_source(5);
        assert_eq!(failover.active(), Some(0));
        events(&mut failover);
        failover.remove_source(ms(11), 0);
        assert_eq!(failover.active(), Some(2));
        assert_eq!(events(&mut failover), [Event::Switched { from: 0, to: 2, cause: Cause::Removed }]);
        assert!(!failover.handle_packet(ms(12), 0), "a removed source delivers to nobody");
        failover.remove_source(ms(13), 2);
        assert_eq!(failover.active(), None);
        assert!(failover.handle_packet(ms(14), 5));
    }

    #[test]
    fn a_new_primary_takes_over_once_it_has_proved_itself() {
        let mut failover = with_sources(CONFIG, 2);
        deliver(&mut failover, 0..1_000, &[0]);
        deliver(&mut failover, 1_000..2_000, &[0, 1]);
        failover.set_primary(Some(1));
        deliver(&mut failover, 2_000..5_999, &[0, 1]);
        assert_eq!(failover.active(), Some(0));
        deliver(&mut failover, 5_999..6_001, &[0, 1]);
        assert_eq!(failover.active(), Some(1));
    }

    #[test]
    fn unfetched_events_are_bounded_and_counted() {
        let mut failover = with_sources(CONFIG, 1);
        for second in 0..100 {
            failover.handle_timeout(ms(second * 1_000));
            failover.handle_packet(ms(second * 1_000), 0);
        }
        assert_eq!(events(&mut failover).len(), EVENTS_MAX);
        assert_eq!(failover.stats().events_dropped_total, 200 - EVENTS_MAX as u64);
    }

    proptest! {
        /// Whoever calls `handle_timeout` when asked sees, at every millisecond, what the definition says.
        #[test]
        fn random_schedules_agree_with_the_model(schedule in schedule(), primary in prop::option::of(0u8..4)) {
            let config = Config { primary, health_timeout: Duration::from_millis(20), hold_off: Duration::from_millis(70) };
            let mut failover = with_sources(config, 4);
            let mut model = Model { config, packets: vec![Vec::new(); 4], active: None, started: None };
            for (at, sources) in schedule.iter().enumerate() {
                let now = at as u64;
                if failover.poll_timeout().is_some_and(|due| due <= ms(now)) {
                    failover.handle_timeout(ms(now));
                }
                model.tick(now);
                prop_assert_eq!(failover.active(), model.active, "at {} ms before packets", now);
                for source in (0..4).filter(|source| sources & (1 << source) != 0) {
                    let forward = failover.handle_packet(ms(now), source);
                    prop_assert_eq!(forward, model.packet(now, source), "at {} ms from {}", now, source);
                }
            }
        }
    }

    /// Decides from the whole history of packets, millisecond by millisecond.
    struct Model {
        config: Config,
        packets: Vec<Vec<u64>>,
        active: Option<u8>,
        started: Option<u64>,
    }

    impl Model {
        fn tick(&mut self, now: u64) {
            let Some(active) = self.active else { return };
            if self.alive_since(active, now).is_none() {
                let order = self.config.primary.into_iter().chain(0..4);
                self.active = order.into_iter().find(|s| self.alive_since(*s, now).is_some()).or(Some(active));
            }
            let primary_since = self.config.primary.and_then(|primary| self.alive_since(primary, now));
            if primary_since.is_some_and(|since| now - since >= self.config.hold_off.as_millis() as u64) {
                self.active = self.config.primary;
            }
        }

        fn packet(&mut self, now: u64, source: u8) -> bool {
            let is_first = self.packets[usize::from(source)].is_empty();
            self.packets[usize::from(source)].push(now);
            let timeout = self.config.health_timeout.as_millis() as u64;
            let primary_starts = is_first
                && self.config.primary == Some(source)
                && self.started.is_some_and(|started| now - started < timeout);
            if self.active.is_none_or(|active| self.alive_since(active, now).is_none()) || primary_starts {
                self.active = Some(source);
                self.started.get_or_insert(now);
            }
            self.active == Some(source)
        }

        /// Start of the latest run of packets without a long silence, if that run has not ended by `now`.
        fn alive_since(&self, source: u8, now: u64) -> Option<u64> {
            let timeout = self.config.health_timeout.as_millis() as u64;
            let mut later = now;
            let run = self.packets[usize::from(source)].iter().rev().take_while(|at| {
                let gap = later - **at;
                later = **at;
                gap < timeout
            });
            run.last().copied()
        }
    }

    /// For every millisecond the set of sources that deliver, each in runs and pauses.
    fn schedule() -> impl Strategy<Value = Vec<u8>> {
        let runs = prop::collection::vec((0u64..40, 1u64..120, 1u64..25), 1..8);
        prop::collection::vec(runs, 4).prop_map(|sources| {
            let mut schedule = vec![0; 1_000];
            for (source, runs) in sources.iter().enumerate() {
                let mut at = 0;
                for (pause, run, every) in runs {
                    at += pause;
                    (at..at + run).step_by(*every as usize).for_each(|ms| schedule[ms as usize % 1_000] |= 1 << source);
                    at += run;
                }
            }
            schedule
        })
    }

    fn ms(ms: u64) -> Time {
        Time::from_ns(ms * 1_000_000)
    }

    fn with_sources(config: Config, count: u8) -> Failover {
        let mut failover = Failover::new(config);
        (0..count).for_each(|source| failover.add_source(source));
        failover
    }

    /// Every millisecond of `span` one packet of each of `sources`, and timeouts when asked for.
    fn deliver(failover: &mut Failover, span: std::ops::Range<u64>, sources: &[u8]) {
        for at in span {
            if failover.poll_timeout().is_some_and(|due| due <= ms(at)) {
                failover.handle_timeout(ms(at));
            }
            for source in sources {
                failover.handle_packet(ms(at), *source);
            }
        }
    }

    fn events(failover: &mut Failover) -> Vec<Event> {
        std::iter::from_fn(|| failover.poll_event()).collect()
    }
}
