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
//!
//! With [`Rules`], sources that deliver are judged by how well, too. A faulty active source is left for the first in order
//! that has been clean for a second, and of which it is known that it has not the same fault. Where there is none it is left for one that has been at most half as bad for the
//! hold-off, and else it stays. A source that fell silent is followed by the first one without a fault, or else by the least
//! bad. The primary is returned to when it has also been clean for `hold_off`. Switches for a fault, and returns, come no
//! sooner after another change than the rules' hold-off, which is always the same; only silence is answered at once.
//!
//! With [`SwitchAt::KeyFrame`] a change from a source that still delivers waits until a key frame of the next one comes, and
//! until then nothing changes for anybody. It is given up if what called for it has passed. A silent or removed source is left
//! at once, whatever comes from the next one: what a decoder can show of that is more than nothing.

use std::ops::Add;
use std::time::Duration;

use arrayvec::ArrayVec;

use super::health::{Counts, Fault, Health, LOOK_EVERY, Rules, WINDOW};
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
    /// What else makes a source unfit.
    pub switch_on: Rules,
    /// With which packet another source begins.
    pub switch_at: SwitchAt,
}

/// With which packet of the next source a change takes place, as long as the last one delivers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SwitchAt {
    /// With the next one.
    #[default]
    Once,
    /// With the next one in which a key frame begins, [`Failover::handle_key_frame`], or the next one of all after `wait_max`.
    KeyFrame {
        /// How long the last source is stayed with; see [`KEY_FRAME_WAIT`].
        wait_max: Duration,
    },
}

/// How long a change waits for a key frame where nothing else is said. Judgement: pictures that can be decoded alone are
/// hardly ever further apart in broadcasting.
pub const KEY_FRAME_WAIT: Duration = Duration::from_secs(2);

impl Default for Config {
    /// No primary, 500 ms, 5 s, silence only, no waiting. Judgement: longer than the pauses of a bursty sender, shorter than a viewer's patience;
    /// a primary that flaps every few seconds stays out.
    fn default() -> Self {
        let (health_timeout, hold_off) = (Duration::from_millis(500), Duration::from_secs(5));
        let (switch_on, switch_at) = (Rules::default(), SwitchAt::Once);
        Self { primary: None, health_timeout, hold_off, switch_on, switch_at }
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
    /// A source, active or not, has become faulty by the rules.
    SourceDegraded {
        /// Which.
        source: u8,
        /// What is wrong.
        fault: Fault,
    },
    /// A source is no longer faulty in this way.
    SourceRestored {
        /// Which.
        source: u8,
        /// What was wrong.
        fault: Fault,
    },
}

/// Why the active source was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It was silent for the health timeout.
    Silent,
    /// It was taken out of the flow.
    Removed,
    /// It delivers, but is faulty by the rules.
    Faulty(Fault),
}

impl Cause {
    /// As events and metrics name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Removed => "removed",
            Self::Faulty(fault) => fault.as_str(),
        }
    }
}

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Times that a failed active source was replaced, by cause.
    pub switches: Switches,
    /// Times that the primary took over again from a healthy backup.
    pub returns_total: u64,
    /// Of both, changes that waited for a key frame in vain.
    pub key_frame_timeouts_total: u64,
    /// Events that nobody fetched in time.
    pub events_dropped_total: u64,
}

/// Switches to another source by their cause, without returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Switches {
    /// The source was silent.
    pub silent: u64,
    /// It was taken out.
    pub removed: u64,
    /// It lost too many packets.
    pub loss: u64,
    /// Its transport stream had too many errors.
    pub ts_errors: u64,
    /// Its picture was black.
    pub black: u64,
    /// Its picture stood still.
    pub frozen: u64,
    /// There was no sound in its sound.
    pub silent_audio: u64,
    /// No pictures came.
    pub no_video: u64,
    /// No sound came.
    pub no_audio: u64,
}

/// Causes for which a source is left.
pub const CAUSES: usize = 2 + Fault::ALL.len();

impl Add for Switches {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let (mut counts, others) = (self.counts(), other.counts());
        counts.iter_mut().zip(others).for_each(|(count, other)| *count += other);
        Self::of_counts(counts)
    }
}

impl Switches {
    /// Of whatever cause.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts().iter().sum()
    }

    /// Every cause with the name that metrics use.
    #[must_use]
    pub fn by_cause(&self) -> [(&'static str, u64); CAUSES] {
        let faults = Fault::ALL.map(Fault::as_str);
        let counts = self.counts();
        std::array::from_fn(|at| match at {
            0 => (Cause::Silent.as_str(), counts[0]),
            1 => (Cause::Removed.as_str(), counts[1]),
            _ => (faults[at - 2], counts[at]),
        })
    }

    /// Silent, removed, and then as [`Fault::ALL`].
    #[must_use]
    pub const fn counts(&self) -> [u64; CAUSES] {
        let Self { silent, removed, loss, ts_errors, black, frozen, silent_audio, no_video, no_audio } = *self;
        [silent, removed, loss, ts_errors, black, frozen, silent_audio, no_video, no_audio]
    }

    /// What [`Switches::counts`] told.
    #[must_use]
    pub const fn of_counts(counts: [u64; CAUSES]) -> Self {
        let [silent, removed, loss, ts_errors, black, frozen, silent_audio, no_video, no_audio] = counts;
        Self { silent, removed, loss, ts_errors, black, frozen, silent_audio, no_video, no_audio }
    }

    const fn count(&mut self, cause: Cause) {
        let count = match cause {
            Cause::Silent => &mut self.silent,
            Cause::Removed => &mut self.removed,
            Cause::Faulty(Fault::Loss) => &mut self.loss,
            Cause::Faulty(Fault::TsErrors) => &mut self.ts_errors,
            Cause::Faulty(Fault::Black) => &mut self.black,
            Cause::Faulty(Fault::Frozen) => &mut self.frozen,
            Cause::Faulty(Fault::SilentAudio) => &mut self.silent_audio,
            Cause::Faulty(Fault::NoVideo) => &mut self.no_video,
            Cause::Faulty(Fault::NoAudio) => &mut self.no_audio,
        };
        *count += 1;
    }
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
    /// When another source became active.
    changed: Time,
    /// A change that waits for a key frame.
    pending: Option<Pending>,
    /// Nothing but a look at the counters is due before; may be earlier than the next deadline, never later.
    wake_at: Time,
    look_at: Time,
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
            sources: Default::default(),
            active: None,
            started: None,
            changed: Time::ZERO,
            pending: None,
            wake_at: NEVER,
            look_at: NEVER,
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

    /// The same for a packet in which a key frame begins: a change to its source that waits for one takes place before it.
    pub fn handle_key_frame(&mut self, now: Time, source: u8) -> bool {
        let forward = self.handle_packet(now, source);
        if self.pending.is_none_or(|pending| pending.to != source) {
            return forward;
        }
        self.carry_out(now);
        self.wake_at = self.next_deadline();
        self.active == Some(source)
    }

    /// Whether [`Failover::handle_counts`] is to be called now.
    #[must_use]
    pub fn wants_counts(&self, now: Time) -> bool {
        now >= self.look_at
    }

    /// What the sources have counted until `now`, to judge them by the rules.
    pub fn handle_counts(&mut self, now: Time, counts: impl IntoIterator<Item = (u8, Counts)>) {
        let rules = self.config.switch_on;
        for (source, counts) in counts {
            let Some(slot) = self.sources.get_mut(usize::from(source)) else { continue };
            if matches!(slot.state, State::Absent) {
                continue;
            }
            for (fault, is_there) in slot.health.handle_counts(now, counts, &rules) {
                let (degraded, restored) =
                    (Event::SourceDegraded { source, fault }, Event::SourceRestored { source, fault });
                self.tell(if is_there { degraded } else { restored });
            }
        }
        self.look_at = now + LOOK_EVERY;
        self.compare(now);
        self.leave_faulty(now);
        if self.config.switch_on.is_any() {
            // Not at the very moment that it is due: between two looks nobody knows how good the primary is.
            self.return_if_due(now);
        }
        self.wake_at = self.next_deadline();
    }

    /// Looks at what is due at `now`: lost sources, a switch, the return to the primary. Calling it early is harmless.
    pub fn handle_timeout(&mut self, now: Time) {
        if now >= self.look_at {
            // Nobody has given counts.
            self.look_at = now + LOOK_EVERY;
        }
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
            self.replace_active(now, Cause::Silent);
        }
        if !self.config.switch_on.is_any() {
            self.return_if_due(now);
        }
        if self.pending.is_some_and(|pending| !self.is_alive(pending.to)) {
            self.pending = None;
        }
        if self.pending.is_some_and(|pending| now >= pending.until) {
            self.stats.key_frame_timeouts_total += 1;
            self.carry_out(now);
        }
        self.wake_at = self.next_deadline();
    }

    /// When [`Failover::handle_timeout`] wants to be called, and before it [`Failover::handle_counts`] if there are rules;
    /// `None` for never. With a healthy flow that is about once per health timeout, not once per packet.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        let due = self.wake_at.min(self.look_at);
        (due != NEVER).then_some(due)
    }

    /// The oldest change not fetched yet. Of more than 64 waiting ones the newest are dropped and counted.
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
        *slot = Source::default();
        if self.config.primary == Some(source) {
            self.config.primary = None;
        }
        self.pending = self.pending.filter(|pending| pending.to != source);
        if self.active == Some(source) && !self.replace_active(now, Cause::Removed) {
            self.active = None;
        }
        self.wake_at = self.next_deadline();
    }

    /// Prefers another source from now on. The active one stays until the new primary has been alive for the hold-off;
    /// if it has been already, it takes over at the next timeout, or with rules at the next look at the counters.
    ///
    /// # Panics
    /// If the index is not below [`SOURCES_MAX`].
    pub fn set_primary(&mut self, primary: Option<u8>) {
        assert!(primary.is_none_or(|primary| usize::from(primary) < SOURCES_MAX), "{primary:?} is no source index");
        self.config.primary = primary;
        // What is still called for is found so again.
        self.pending = None;
        self.wake_at = self.next_deadline();
    }

    /// Changes all settings at once; who is alive and who is active stays. By other rules, all are judged anew.
    ///
    /// # Panics
    /// If the primary's index is not below [`SOURCES_MAX`].
    pub fn set_config(&mut self, config: Config) {
        if config.switch_on != self.config.switch_on {
            self.sources.iter_mut().for_each(|slot| (slot.health, slot.better_since) = Default::default());
        }
        self.config = config;
        let looks = config.switch_on.is_any() && self.active.is_some();
        self.look_at = match self.look_at {
            NEVER if looks => self.changed,
            look_at if looks => look_at,
            _ => NEVER,
        };
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

    /// What is wrong with `source` by the rules, as of the last counts.
    #[must_use]
    pub fn fault(&self, source: u8) -> Option<Fault> {
        self.sources.get(usize::from(source)).and_then(|slot| slot.health.fault())
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
                self.replace_active(now, Cause::Silent);
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
        self.set_active(now, source);
        self.started.get_or_insert(now);
        if self.config.switch_on.is_any() {
            self.look_at = self.look_at.min(now);
        }
        self.tell(Event::Activated { source });
    }

    fn set_active(&mut self, now: Time, source: u8) {
        self.active = Some(source);
        self.changed = now;
        self.pending = None;
        self.sources.iter_mut().for_each(|slot| slot.better_since = None);
    }

    /// Notes which sources are clearly better than the active one.
    fn compare(&mut self, now: Time) {
        let Some(active) = self.active else { return };
        let bad = u64::from(self.sources[usize::from(active)].health.severity());
        for slot in &mut self.sources {
            let level = slot.health.level().filter(|_| bad > 0 && matches!(slot.state, State::Alive { .. }));
            let is_better = level.is_some_and(|level| u64::from(level) * 2 <= bad);
            slot.better_since = is_better.then(|| slot.better_since.unwrap_or(now));
        }
    }

    /// Leaves an active source that is faulty for one that is not, or is clearly less so.
    fn leave_faulty(&mut self, now: Time) {
        match self.better_than_active(now) {
            Some((to, fault)) => self.change(now, to, Reason::Fault(fault)),
            None => self.pending = self.pending.filter(|pending| pending.reason == Reason::Return),
        }
    }

    /// What to leave the active source for, and why.
    fn better_than_active(&self, now: Time) -> Option<(u8, Fault)> {
        let active = self.active.filter(|active| self.is_alive(*active))?;
        let fault = self.sources[usize::from(active)].health.lasting_fault()?;
        let hold_off = self.config.switch_on.hold_off;
        if now < self.changed + hold_off {
            return None;
        }
        let slot = |source: u8| &self.sources[usize::from(source)];
        let bad = slot(active).health.severity().max(slot(active).health.level().unwrap_or(0));
        let is_clean = |source: &u8| {
            let health = &slot(*source).health;
            health.knows(fault)
                && health.level() <= Some(bad)
                && health.clean_since().is_some_and(|since| now >= since + WINDOW)
        };
        let is_better = |source: &u8| {
            let since = slot(*source).better_since.filter(|_| slot(*source).health.knows(fault));
            since.is_some_and(|since| now >= since + hold_off)
        };
        let others = || self.in_order().filter(|source| *source != active && self.is_alive(*source));
        let clean = others().find(is_clean);
        let better = || others().filter(is_better).min_by_key(|source| slot(*source).health.level());
        Some((clean.or_else(better)?, fault))
    }

    /// Returns to the primary if it has proved itself; gives the return up if it has not any more.
    fn return_if_due(&mut self, now: Time) {
        let is_due = self.return_due().is_some_and(|due| now >= due);
        match (is_due, self.config.primary) {
            (true, Some(primary)) => self.change(now, primary, Reason::Return),
            _ => self.pending = self.pending.filter(|pending| pending.reason != Reason::Return),
        }
    }

    /// Leaves an active source that delivers: at once, or with a key frame.
    fn change(&mut self, now: Time, to: u8, reason: Reason) {
        match (self.config.switch_at, self.pending) {
            (SwitchAt::Once, _) => {
                self.pending = Some(Pending { to, reason, until: now });
                self.carry_out(now);
            }
            (SwitchAt::KeyFrame { wait_max }, None) => {
                self.pending = Some(Pending { to, reason, until: now + wait_max });
            }
            // However often its aim changes, it is carried out in time.
            (SwitchAt::KeyFrame { .. }, Some(pending)) => self.pending = Some(Pending { to, reason, ..pending }),
        }
    }

    /// Makes the change that waits.
    fn carry_out(&mut self, now: Time) {
        let (Some(from), Some(Pending { to, reason, .. })) = (self.active, self.pending.take()) else { return };
        match reason {
            Reason::Fault(fault) => self.switch(now, from, to, Cause::Faulty(fault)),
            Reason::Return => {
                self.set_active(now, to);
                self.stats.returns_total += 1;
                self.tell(Event::SwitchedBack { from, to });
            }
        }
    }

    /// All sources that there can be; the primary comes twice.
    fn in_order(&self) -> impl Iterator<Item = u8> + use<> {
        self.config.primary.into_iter().chain(0..SOURCES_MAX as u8)
    }

    fn switch(&mut self, now: Time, from: u8, to: u8, cause: Cause) {
        self.set_active(now, to);
        self.stats.switches.count(cause);
        self.tell(Event::Switched { from, to, cause });
    }

    /// Switches from the active source to the least bad alive one, the first in order of equals; false if there is none.
    fn replace_active(&mut self, now: Time, cause: Cause) -> bool {
        let severity = |source: &u8| self.sources[usize::from(*source)].health.severity();
        let next = self.in_order().filter(|source| self.is_alive(*source)).min_by_key(severity);
        let (Some(from), Some(to)) = (self.active, next) else {
            return false;
        };
        self.switch(now, from, to, cause);
        true
    }

    /// When the primary will have been alive, and clean, long enough; `None` if it is not so, or active already.
    fn return_due(&self) -> Option<Time> {
        let primary = self.config.primary.filter(|_| self.active.is_some() && self.active != self.config.primary)?;
        let slot = &self.sources[usize::from(primary)];
        let State::Alive { since } = slot.state else { return None };
        if !self.config.switch_on.is_any() {
            return Some(since + self.config.hold_off);
        }
        let clean_since = slot.health.clean_since()?;
        Some((since.max(clean_since) + self.config.hold_off).max(self.changed + self.config.switch_on.hold_off))
    }

    fn next_deadline(&self) -> Time {
        let alive = self.sources.iter().filter(|slot| matches!(slot.state, State::Alive { .. }));
        let lost = alive.map(|slot| slot.last + self.config.health_timeout);
        // With rules that is found out when the counters are looked at.
        let is_timed = !self.config.switch_on.is_any() && self.pending.is_none();
        let return_due = self.return_due().filter(|_| is_timed);
        lost.chain(return_due).chain(self.pending.map(|pending| pending.until)).min().unwrap_or(NEVER)
    }

    fn tell(&mut self, event: Event) {
        if self.events.try_push(event).is_err() {
            self.stats.events_dropped_total += 1;
        }
    }
}

/// A change that is called for.
#[derive(Clone, Copy, Debug)]
struct Pending {
    to: u8,
    reason: Reason,
    /// When it takes place without a key frame.
    until: Time,
}

/// Why a source that delivers is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Fault(Fault),
    /// For the primary.
    Return,
}

#[derive(Clone, Debug, Default)]
struct Source {
    /// Arrival of its last packet.
    last: Time,
    state: State,
    health: Health,
    /// Since when it has been at most half as bad as the active one.
    better_since: Option<Time>,
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

/// Events that may wait. One call makes at most 57: seven faults of eight sources each, and a switch.
const EVENTS_MAX: usize = 64;

const NEVER: Time = Time::from_ns(u64::MAX);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::path::health::Seen;

    const CONFIG: Config = Config {
        primary: Some(0),
        health_timeout: Duration::from_millis(500),
        hold_off: Duration::from_secs(5),
        switch_on: Rules {
            loss_per_mille: None,
            ts_errors_per_second: None,
            seen: Seen::NONE,
            hold_off: Duration::from_secs(2),
            return_hold_off: Duration::from_secs(3),
        },
        switch_at: SwitchAt::Once,
    };

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
        assert_eq!(failover.stats().switches.total(), 1);
    }

    #[test]
    fn standing_still_switches_nothing() {
        let mut failover = with_sources(CONFIG, 2);
        deliver(&mut failover, 0..10, &[0, 1]);
        assert!(failover.handle_packet(ms(5_000), 0));
        assert_eq!(failover.stats().switches.total(), 0);
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

    const KEY_FRAMES: Config = Config { switch_at: SwitchAt::KeyFrame { wait_max: Duration::from_secs(2) }, ..CONFIG };

    #[test]
    fn a_return_waits_for_the_key_frame_of_the_primary() {
        let mut failover = with_sources(KEY_FRAMES, 2);
        deliver(&mut failover, 0..600, &[1]);
        deliver(&mut failover, 600..6_000, &[0, 1]);
        assert_eq!(failover.active(), Some(1), "due at 5,600 ms");
        assert!(failover.handle_key_frame(ms(6_000), 1), "one of the backup says nothing");
        events(&mut failover);
        assert!(failover.handle_key_frame(ms(6_001), 0), "forwarded, from its first byte on");
        assert_eq!(events(&mut failover), [Event::SwitchedBack { from: 1, to: 0 }]);
        assert!(!failover.handle_packet(ms(6_002), 1));
        assert!(!failover.handle_key_frame(ms(6_003), 1), "nothing waits any more");
        assert_eq!((failover.stats().returns_total, failover.stats().key_frame_timeouts_total), (1, 0));
    }

    #[test]
    fn a_change_without_a_key_frame_takes_place_after_the_wait() {
        let mut failover = with_sources(KEY_FRAMES, 2);
        deliver(&mut failover, 0..600, &[1]);
        deliver(&mut failover, 600..7_600, &[0, 1]);
        assert_eq!((failover.active(), failover.stats().key_frame_timeouts_total), (Some(1), 0));
        deliver(&mut failover, 7_600..7_601, &[0, 1]);
        assert_eq!((failover.active(), failover.stats().key_frame_timeouts_total), (Some(0), 1));
    }

    #[test]
    fn a_silent_source_is_left_at_once_and_so_is_one_that_falls_silent_while_a_change_waits() {
        let mut failover = with_sources(KEY_FRAMES, 2);
        deliver(&mut failover, 0..600, &[0, 1]);
        deliver(&mut failover, 600..1_100, &[1]);
        assert_eq!(failover.active(), Some(1));
        deliver(&mut failover, 1_100..6_200, &[0, 1]);
        deliver(&mut failover, 6_200..6_700, &[0]);
        assert_eq!(failover.active(), Some(0));
        let Stats { switches, returns_total, key_frame_timeouts_total, .. } = failover.stats();
        assert_eq!((switches.silent, returns_total, key_frame_timeouts_total), (2, 0, 0));
    }

    #[test]
    fn a_change_is_given_up_if_what_called_for_it_has_passed() {
        let mut failover = with_sources(KEY_FRAMES, 3);
        deliver(&mut failover, 0..600, &[1]);
        deliver(&mut failover, 600..6_000, &[0, 1]);
        deliver(&mut failover, 6_000..6_600, &[1]);
        assert!(!failover.handle_key_frame(ms(6_600), 0), "the primary was silent and serves its hold-off again");
        deliver(&mut failover, 6_601..11_700, &[0, 1]);
        failover.remove_source(ms(11_700), 0);
        assert_eq!(failover.active(), Some(1));
        deliver(&mut failover, 11_700..20_000, &[1, 2]);
        assert_eq!((failover.active(), failover.stats().key_frame_timeouts_total), (Some(1), 0));
    }

    #[test]
    fn a_lossy_source_is_kept_until_the_key_frame_and_kept_for_good_if_it_recovers_first() {
        let mut run = Judged::new(Config { switch_on: judging().switch_on, ..KEY_FRAMES }, 2);
        run.pass(30, &[Some(0), Some(0)]);
        run.pass(25, &[Some(300), Some(0)]);
        assert_eq!((run.failover.active(), run.failover.fault(0)), (Some(0), Some(Fault::Loss)));
        run.pass(15, &[Some(0), Some(0)]);
        assert_eq!(run.failover.active(), Some(0), "it is becoming better");
        run.pass(60, &[Some(300), Some(0)]);
        assert_eq!(run.failover.active(), Some(1));
        assert_eq!(run.failover.stats().key_frame_timeouts_total, 1);
    }

    proptest! {
        /// Nothing is ever withheld: of the active source every packet is forwarded, of the others none, and whoever waits
        /// for key frames changes at most `wait_max` later than whoever does not.
        #[test]
        fn waiting_for_key_frames_holds_nothing_back(schedule in schedule(), every in 1u64..200) {
            let (health_timeout, hold_off) = (Duration::from_millis(20), Duration::from_millis(70));
            let wait_max = Duration::from_millis(30);
            let config = Config { health_timeout, hold_off, switch_at: SwitchAt::KeyFrame { wait_max }, ..CONFIG };
            let mut failover = with_sources(config, 4);
            let mut due_since = None;
            for (at, sources) in (0..).zip(&schedule) {
                if failover.poll_timeout().is_some_and(|due| due <= ms(at)) {
                    failover.handle_timeout(ms(at));
                }
                prop_assert!(failover.poll_timeout().is_none_or(|due| due > ms(at)), "asks in a loop at {} ms", at);
                for source in (0..4).filter(|source| sources & (1 << source) != 0) {
                    let is_key_frame = (at + u64::from(source) * 7).is_multiple_of(every);
                    let forward = match is_key_frame {
                        true => failover.handle_key_frame(ms(at), source),
                        false => failover.handle_packet(ms(at), source),
                    };
                    prop_assert_eq!(forward, failover.active() == Some(source), "at {} ms from {}", at, source);
                }
                let is_due = failover.return_due().is_some_and(|due| due <= ms(at));
                due_since = is_due.then(|| due_since.unwrap_or(at));
                prop_assert!(due_since.is_none_or(|since| at - since <= 30), "waits since {:?} at {} ms", due_since, at);
                events(&mut failover);
            }
        }
    }

    /// 2 % of loss for 2 s; at most 1 % for 3 s.
    fn judging() -> Config {
        Config { switch_on: Rules { loss_per_mille: Some(20), ..CONFIG.switch_on }, ..CONFIG }
    }

    #[test]
    fn a_lossy_primary_is_left_and_returned_to_after_the_hold_off() {
        let mut run = Judged::new(judging(), 2);
        run.pass(30, &[Some(0), Some(0)]);
        run.pass(25, &[Some(300), Some(0)]);
        let fault = Fault::Loss;
        let degraded = Event::SourceDegraded { source: 0, fault };
        let switched = Event::Switched { from: 0, to: 1, cause: Cause::Faulty(fault) };
        assert_eq!(run.told.iter().map(|told| told.1).collect::<Vec<_>>()[3..], [degraded, switched]);
        assert_eq!(run.told.last().map(|told| told.0), Some(3_110 + 2_000), "2 % of the second show at 3,110 ms");
        assert_eq!(run.failover.fault(0), Some(fault));
        run.pass(50, &[Some(0), Some(0)]);
        assert_eq!(run.failover.active(), Some(1));
        run.pass(20, &[Some(0), Some(0)]);
        assert_eq!((run.failover.active(), run.failover.fault(0)), (Some(0), None));
        assert_eq!(run.failover.stats().switches, Switches { loss: 1, ..Switches::default() });
    }

    #[test]
    fn nobody_switches_to_what_is_no_better() {
        let mut run = Judged::new(judging(), 3);
        run.pass(60, &[Some(300), Some(200), Some(300)]);
        assert_eq!(run.failover.active(), Some(0));
        run.pass(60, &[Some(300), Some(140), Some(100)]);
        assert_eq!(run.failover.active(), Some(2), "the best of those that are clearly better");
        run.pass(60, &[Some(300), Some(60), Some(100)]);
        assert_eq!(run.failover.active(), Some(2));
        run.pass(60, &[Some(300), Some(10), Some(100)]);
        assert_eq!(run.failover.active(), Some(1));
        // Silence is worse than loss, and the least bad one follows.
        run.pass(20, &[Some(300), None, Some(100)]);
        assert_eq!(run.failover.active(), Some(2));
        run.pass(20, &[Some(300), None, None]);
        assert_eq!(run.failover.active(), Some(0));
    }

    #[test]
    fn a_backup_with_loss_does_not_follow_a_silent_primary_if_there_is_a_better_one() {
        let mut run = Judged::new(judging(), 3);
        run.pass(40, &[Some(0), Some(100), Some(0)]);
        run.pass(10, &[None, Some(100), Some(0)]);
        assert_eq!(run.failover.active(), Some(2));
    }

    /// Black and missing sound for 2 s; 2 % of loss.
    fn looking() -> Config {
        let seen = Seen { black: true, no_audio: true, ..Seen::NONE };
        Config { switch_on: Rules { loss_per_mille: Some(20), seen, ..CONFIG.switch_on }, ..CONFIG }
    }

    #[test]
    fn a_black_primary_is_left_for_a_picture_and_returned_to_when_it_has_one() {
        let mut run = Judged::new(looking(), 2);
        run.show(&[Some(false), Some(false)]);
        run.pass(30, &[Some(0), Some(0)]);
        run.show(&[Some(true), Some(false)]);
        run.pass(25, &[Some(0), Some(0)]);
        let fault = Fault::Black;
        let degraded = Event::SourceDegraded { source: 0, fault };
        let switched = Event::Switched { from: 0, to: 1, cause: Cause::Faulty(fault) };
        assert_eq!(run.told.iter().map(|told| told.1).collect::<Vec<_>>()[3..], [degraded, switched]);
        assert_eq!(run.failover.stats().switches, Switches { black: 1, ..Switches::default() });
        // Not known is not well: it was black when it was last seen.
        run.show(&[None, Some(false)]);
        run.pass(200, &[Some(0), Some(0)]);
        assert_eq!(run.failover.active(), Some(1));
        run.show(&[Some(false), Some(false)]);
        run.pass(60, &[Some(0), Some(0)]);
        assert_eq!(run.failover.active(), Some(0));
    }

    #[test]
    fn nobody_leaves_a_black_source_for_what_is_black_or_not_known() {
        for other in [Some(true), None] {
            let mut run = Judged::new(looking(), 2);
            run.show(&[Some(true), other]);
            run.pass(200, &[Some(0), Some(0)]);
            assert_eq!((run.failover.active(), run.failover.fault(0)), (Some(0), Some(Fault::Black)), "{other:?}");
            run.pass(10, &[None, Some(0)]);
            assert_eq!(run.failover.active(), Some(1), "silence is worse than anything");
        }
    }

    #[test]
    fn what_is_not_known_is_no_fault_and_keeps_nobody_away() {
        let mut run = Judged::new(looking(), 2);
        run.pass(100, &[Some(0), Some(0)]);
        assert_eq!(run.failover.active(), Some(0));
        run.pass(10, &[None, Some(0)]);
        assert_eq!(run.failover.active(), Some(1));
        run.pass(70, &[Some(0), Some(0)]);
        assert_eq!(run.failover.active(), Some(0));
        run.pass(60, &[Some(300), Some(0)]);
        assert_eq!(run.failover.active(), Some(1), "loss is known of both");
    }

    /// Rules for what is seen, and nothing that could be seen: scrambled, or no time to look.
    #[test]
    fn a_primary_that_cannot_be_looked_at_is_returned_to_by_rules_of_content_alone() {
        let seen = Seen { black: true, ..Seen::NONE };
        let mut run = Judged::new(Config { switch_on: Rules { seen, ..CONFIG.switch_on }, ..CONFIG }, 2);
        run.pass(30, &[Some(0), Some(0)]);
        run.pass(10, &[None, Some(0)]);
        assert_eq!(run.failover.active(), Some(1));
        run.pass(49, &[Some(0), Some(0)]);
        assert_eq!(run.failover.active(), Some(1), "it has to prove itself first");
        run.pass(5, &[Some(0), Some(0)]);
        assert_eq!(run.failover.active(), Some(0));
        // One that was seen to be black is not.
        run.show(&[Some(true), Some(false)]);
        run.pass(30, &[Some(0), Some(0)]);
        assert_eq!(run.failover.active(), Some(1));
        run.show(&[None, Some(false)]);
        run.pass(200, &[Some(0), Some(0)]);
        assert_eq!(run.failover.active(), Some(1));
    }

    #[test]
    fn a_poor_picture_is_better_than_none() {
        let mut run = Judged::new(looking(), 2);
        run.show(&[Some(true), Some(false)]);
        run.pass(80, &[Some(0), Some(400)]);
        assert_eq!(run.failover.active(), Some(1));
        run.show(&[Some(true), Some(false)]);
        run.pass(200, &[Some(0), Some(400)]);
        assert_eq!(run.failover.active(), Some(1), "nor is it left for black");
    }

    #[test]
    fn other_rules_judge_anew_and_none_judge_nothing() {
        let mut run = Judged::new(judging(), 1);
        run.pass(60, &[Some(300)]);
        assert_eq!(run.failover.fault(0), Some(Fault::Loss));
        run.failover.set_config(CONFIG);
        assert_eq!(run.failover.fault(0), None);
        assert!(!run.failover.wants_counts(ms(1_000_000)));
        run.failover.set_config(judging());
        assert!(run.failover.wants_counts(ms(run.at)));
        run.pass(60, &[Some(300)]);
        assert_eq!(run.failover.fault(0), Some(Fault::Loss));
    }

    #[test]
    fn whoever_gives_no_counts_is_not_asked_in_a_loop() {
        let mut failover = with_sources(judging(), 1);
        failover.handle_packet(ms(0), 0);
        assert_eq!(failover.poll_timeout(), Some(ms(0)));
        failover.handle_timeout(ms(0));
        assert_eq!(failover.poll_timeout(), Some(ms(100)));
    }

    proptest! {
        #[test]
        fn random_losses_make_no_one_flap(
            spans in prop::collection::vec((1u64..60, prop::array::uniform3(loss())), 1..25),
        ) {
            check_that_no_one_flaps(&spans)?;
        }
    }

    /// The primary's five seconds are over at 5,600 ms, between two looks, and its loss has just begun.
    #[test]
    fn nobody_returns_by_what_was_true_at_the_last_look() {
        let good = Some(0);
        let spans =
            [(1, [good, None, None]), (5, [None, None, good]), (44, [good, None, good]), (6, [Some(34), None, good])];
        check_that_no_one_flaps(&spans).unwrap();
    }

    /// Changes for a fault, and returns, are a hold-off apart from any other, and never for the worse.
    fn check_that_no_one_flaps(spans: &[(u64, [Option<u64>; 3])]) -> Result<(), TestCaseError> {
        let mut run = Judged::new(judging(), 3);
        for (looks, losses) in spans {
            run.pass(*looks, losses);
        }
        run.pass(120, &[Some(300), Some(300), Some(0)]);
        prop_assert_eq!(run.failover.active(), Some(2), "the only good one");
        run.pass(120, &[Some(10), Some(0), Some(0)]);
        prop_assert_eq!(run.failover.active(), Some(0), "the primary is good enough");
        let mut changed = None;
        for (at, event) in &run.told {
            let (from, to, is_at_once) = match *event {
                Event::Switched { from, to, cause } => (from, to, cause == Cause::Silent),
                Event::SwitchedBack { from, to } => (from, to, false),
                Event::Activated { .. } => {
                    changed = Some(*at);
                    continue;
                }
                Event::SourceLost { .. }
                | Event::SourceAlive { .. }
                | Event::SourceDegraded { .. }
                | Event::SourceRestored { .. } => continue,
            };
            let before = changed.replace(*at).unwrap_or(0);
            if is_at_once {
                continue;
            }
            prop_assert!(at - before >= 2_000, "changes at {} and {} ms", before, at);
            let [from, to] = [from, to].map(|source| run.level(source, *at));
            let is_fine = to <= 20.1;
            let is_better = to <= from + 0.1 && matches!(event, Event::Switched { .. });
            let is_return = is_fine && matches!(event, Event::SwitchedBack { .. });
            prop_assert!(is_better || is_return, "at {} ms {:?} from {} to {} per mille", at, event, from, to);
        }
        Ok(())
    }

    /// Per mille, or silence.
    fn loss() -> impl Strategy<Value = Option<u64>> {
        prop_oneof![1 => Just(None), 4 => Just(Some(0)), 2 => (0u64..60).prop_map(Some), 2 => (0u64..900).prop_map(Some)]
    }

    /// Sources that bring a packet in each 10 ms, and count what they lose.
    struct Judged {
        failover: Failover,
        at: u64,
        counts: Vec<Counts>,
        /// Every 10 ms what each has counted so far.
        history: Vec<Vec<Counts>>,
        told: Vec<(u64, Event)>,
    }

    impl Judged {
        fn new(config: Config, sources: u8) -> Self {
            let counts = vec![Counts::default(); usize::from(sources)];
            Self { failover: with_sources(config, sources), at: 0, counts, history: Vec::new(), told: Vec::new() }
        }

        /// For so many tenths of a second each source loses so many packets of a thousand, or is silent.
        fn pass(&mut self, tenths: u64, losses: &[Option<u64>]) {
            for _ in 0..tenths * 10 {
                self.history.push(self.counts.clone());
                if self.failover.wants_counts(ms(self.at)) {
                    self.failover.handle_counts(ms(self.at), (0..).zip(self.counts.iter().copied()));
                }
                if self.failover.poll_timeout().is_some_and(|due| due <= ms(self.at)) {
                    self.failover.handle_timeout(ms(self.at));
                }
                for ((source, counts), loss) in (0..).zip(&mut self.counts).zip(losses) {
                    if let Some(loss) = loss {
                        self.failover.handle_packet(ms(self.at), source);
                        counts.packets += 1_000 - loss;
                        counts.lost += loss;
                    }
                }
                self.told.extend(std::iter::from_fn(|| self.failover.poll_event()).map(|event| (self.at, event)));
                self.at += 10;
            }
        }

        /// Whether each is seen to be black from now on.
        fn show(&mut self, black: &[Option<bool>]) {
            self.counts.iter_mut().zip(black).for_each(|(counts, black)| counts.seen.black = *black);
        }

        /// Loss in the second before a moment, per mille.
        fn level(&self, source: u8, at: u64) -> f64 {
            let now = self.history[at as usize / 10][usize::from(source)];
            let then = self.history[(at as usize / 10).saturating_sub(100)][usize::from(source)];
            let (packets, lost) = (now.packets - then.packets, now.lost - then.lost);
            1_000.0 * lost as f64 / (packets + lost).max(1) as f64
        }
    }

    proptest! {
        /// Whoever calls `handle_timeout` when asked sees, at every millisecond, what the definition says.
        #[test]
        fn random_schedules_agree_with_the_model(schedule in schedule(), primary in prop::option::of(0u8..4)) {
            let (health_timeout, hold_off) = (Duration::from_millis(20), Duration::from_millis(70));
            let config = Config { primary, health_timeout, hold_off, ..CONFIG };
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
