//! How good a source is beside delivering at all: what it loses, the errors of its transport stream, and what is seen and
//! heard of it.
//!
//! Counters that are kept anyway are looked at ten times a second; nothing is done for a packet. Each rule has a level over
//! the last second, and a gauge with a threshold, a lower one and a hold-off either way:
//!
//! ```text
//!            above the threshold for `hold_off`
//!    fine ──────────────────────────────────────────────────► faulty
//!      ▲                                                         │
//!      └── at most half the threshold for `return_hold_off` ─────┘
//! ```
//!
//! A second without packets says nothing: it ends either wait, and so does what is seen of a source while it is not known.
//! Whether a source that never was faulty may be returned to is another question: what is about to be known is waited for,
//! what cannot be known keeps nobody away.

use std::time::Duration;

use arrayvec::ArrayVec;

use crate::units::Time;

/// What makes a source faulty, and for how long. Nothing does unless it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Packets lost of a thousand, after all that recovers them. At least 1.
    pub loss_per_mille: Option<u32>,
    /// Errors of the transport stream, of the first priority of ETSI TR 101 290 (section 5.2.1), in a second. At least 1.
    pub ts_errors_per_second: Option<u32>,
    /// What must not be seen or heard of it.
    pub seen: Seen<bool>,
    /// How long a level must be above its threshold. Shorter than [`WINDOW`], a single burst is enough.
    pub hold_off: Duration,
    /// How long it must then be at half the threshold or below.
    pub return_hold_off: Duration,
}

impl Default for Rules {
    /// None; 2 s and 5 s. Judgement: twice the window, so that one burst does not count, and as long as the primary proves
    /// itself after a silence.
    fn default() -> Self {
        Self {
            loss_per_mille: None,
            ts_errors_per_second: None,
            seen: Seen::NONE,
            hold_off: Duration::from_secs(2),
            return_hold_off: Duration::from_secs(5),
        }
    }
}

impl Rules {
    /// Whether there is any.
    #[must_use]
    pub const fn is_any(&self) -> bool {
        self.loss_per_mille.is_some() || self.ts_errors_per_second.is_some() || self.seen.is_any()
    }
}

/// One value for each thing that can be wrong with pictures and sound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen<T> {
    /// The picture is black.
    pub black: T,
    /// The picture stands still.
    pub frozen: T,
    /// There is no sound in the sound.
    pub silent: T,
    /// No pictures come.
    pub no_video: T,
    /// No sound comes.
    pub no_audio: T,
}

impl<T> Seen<T> {
    /// The values in the order of [`Fault::ALL`].
    pub(crate) fn each(self) -> [T; 5] {
        [self.black, self.frozen, self.silent, self.no_video, self.no_audio]
    }
}

impl Seen<bool> {
    /// None of it.
    pub const NONE: Self = Self { black: false, frozen: false, silent: false, no_video: false, no_audio: false };

    /// Whether there is any.
    #[must_use]
    pub const fn is_any(&self) -> bool {
        self.black || self.frozen || self.silent || self.no_video || self.no_audio
    }
}

/// What is wrong with a source that delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Too many packets are lost.
    Loss,
    /// Too many errors in the transport stream.
    TsErrors,
    /// The picture is black.
    Black,
    /// The picture stands still.
    Frozen,
    /// There is no sound in the sound.
    SilentAudio,
    /// No pictures come.
    NoVideo,
    /// No sound comes.
    NoAudio,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Loss, Self::TsErrors, Self::Black, Self::Frozen, Self::SilentAudio, Self::NoVideo, Self::NoAudio];

    /// As events and metrics name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Loss => "loss",
            Self::TsErrors => "ts_errors",
            Self::Black => "black",
            Self::Frozen => "frozen",
            Self::SilentAudio => "silent_audio",
            Self::NoVideo => "no_video",
            Self::NoAudio => "no_audio",
        }
    }
}

/// What a source has counted since some moment, and what is seen of it now. Counters that went back have begun anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets taken in.
    pub packets: u64,
    /// Packets missing at their deadline.
    pub lost: u64,
    /// Errors of the first priority.
    pub ts_errors: u64,
    /// What is seen and heard of it; `None` where that is not known.
    pub seen: Seen<Option<bool>>,
    /// What of it is not known yet, but is about to be.
    pub awaited: Seen<bool>,
}

/// One source, judged by what it counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Health {
    latest: Option<(Time, Counts)>,
    samples: ArrayVec<Sample, SAMPLES>,
    gauges: [Gauge; Fault::ALL.len()],
    /// Of each fault, in thousandths of its threshold; `None` while it is not known, and where there is no rule.
    levels: [Option<u32>; Fault::ALL.len()],
    /// Since when packets come and no level is known to be above 1,000.
    clean_since: Option<Time>,
    /// Since when it is waited for what is about to be known.
    awaited_since: Option<Time>,
}

impl Health {
    /// Looks at what was counted until `now`, and tells what has changed: a fault, and whether it is there.
    pub(super) fn handle_counts(
        &mut self,
        now: Time,
        counts: Counts,
        rules: &Rules,
    ) -> ArrayVec<(Fault, bool), { Fault::ALL.len() }> {
        self.sample(now, counts);
        let levels = self.levels(now, rules);
        self.levels = levels;
        let is_awaited =
            rules.seen.each().into_iter().zip(counts.awaited.each()).any(|(rule, awaited)| rule && awaited);
        self.awaited_since = is_awaited.then(|| self.awaited_since.unwrap_or(now));
        let waits = self.awaited_since.is_some_and(|since| now < since + AWAITED_MAX);
        let is_clean = self.delivers() && !waits && self.level().is_none_or(|level| level <= AT_THRESHOLD);
        self.clean_since = is_clean.then(|| self.clean_since.unwrap_or(now));
        let gauges = self.gauges.iter_mut().zip(levels).zip(Fault::ALL);
        gauges.filter_map(|((gauge, level), fault)| Some((fault, gauge.update(now, level, rules)?))).collect()
    }

    /// What is wrong with it; the first, if several things are.
    pub(super) fn fault(&self) -> Option<Fault> {
        let mut faults = self.gauges.iter().zip(Fault::ALL);
        faults.find_map(|(gauge, fault)| matches!(gauge, Gauge::Faulty { .. }).then_some(fault))
    }

    /// What is wrong with it and is not becoming better.
    pub(super) fn lasting_fault(&self) -> Option<Fault> {
        let mut faults = self.gauges.iter().zip(Fault::ALL);
        faults.find_map(|(gauge, fault)| matches!(gauge, Gauge::Faulty { low_since: None }).then_some(fault))
    }

    /// How bad it is: 1,000 at the threshold; what is faulty is the worst while nothing is known. Of those that are neither
    /// faulty nor above a threshold none is worse than another.
    pub(super) fn severity(&self) -> u32 {
        match (self.level(), self.fault()) {
            (Some(level), Some(_)) => level.max(1),
            (Some(level), None) if level > AT_THRESHOLD => level,
            (None, Some(_)) => u32::MAX,
            (Some(_) | None, None) => 0,
        }
    }

    /// The highest level of all, in thousandths of its threshold; `None` while nothing is known.
    pub(super) fn level(&self) -> Option<u32> {
        self.levels.iter().flatten().max().copied()
    }

    /// Whether it is known if it has this fault.
    pub(super) const fn knows(&self, fault: Fault) -> bool {
        self.levels[fault as usize].is_some()
    }

    /// Since when it delivers and nothing is known to be above its threshold; `None` if something is, or it is faulty still. What
    /// is about to be known is waited for, for [`AWAITED_MAX`]. What cannot be known does not count: pictures that cannot be
    /// looked at would keep a source away for ever.
    pub(super) fn clean_since(&self) -> Option<Time> {
        self.clean_since.filter(|_| self.fault().is_none())
    }

    /// Whether a packet came in the window.
    fn delivers(&self) -> bool {
        self.samples.iter().any(|sample| sample.packets > 0)
    }

    fn sample(&mut self, now: Time, counts: Counts) {
        let Some((from, before)) = self.latest.replace((now, counts)) else { return };
        let packets = counts.packets.checked_sub(before.packets);
        let more =
            packets.zip(counts.lost.checked_sub(before.lost)).zip(counts.ts_errors.checked_sub(before.ts_errors));
        let Some(((packets, lost), ts_errors)) = more else {
            self.samples.clear();
            return;
        };
        self.samples.retain(|sample| now < sample.to + WINDOW);
        if self.samples.is_full() {
            self.samples.remove(0);
        }
        self.samples.push(Sample { from, to: now, packets, lost, ts_errors });
    }

    /// Of each fault, in thousandths of its threshold; `None` where there is no rule, or no packet in the window.
    fn levels(&self, now: Time, rules: &Rules) -> [Option<u32>; Fault::ALL.len()] {
        let sum = |count: fn(&Sample) -> u64| self.samples.iter().map(count).sum::<u64>();
        let (packets, lost, ts_errors) = (sum(|c| c.packets), sum(|c| c.lost), sum(|c| c.ts_errors));
        if !self.delivers() {
            return Default::default();
        }
        let span = self.samples.first().map_or(WINDOW, |sample| now.since(sample.from)).max(WINDOW);
        let ratio = |level: u128, threshold: Option<u32>| {
            let level = level / u128::from(threshold?.max(1));
            Some(u32::try_from(level).unwrap_or(u32::MAX))
        };
        // Thousandths of one per mille, and of one a second.
        let loss = u128::from(lost) * 1_000_000 / u128::from(packets.saturating_add(lost).max(1));
        let ts_errors = u128::from(ts_errors) * 1_000_000 / span.as_millis();
        let seen = self.latest.map(|(_, counts)| counts.seen).unwrap_or_default().each();
        let is_wanted = rules.seen.each();
        let of_seen = |at: usize| {
            let is_there = seen[at].filter(|_| is_wanted[at])?;
            Some(if is_there { SEEN_LEVEL } else { 0 })
        };
        [
            ratio(loss, rules.loss_per_mille),
            ratio(ts_errors, rules.ts_errors_per_second),
            of_seen(0),
            of_seen(1),
            of_seen(2),
            of_seen(3),
            of_seen(4),
        ]
    }
}

/// What was counted between two looks.
#[derive(Clone, Copy, Debug)]
struct Sample {
    from: Time,
    to: Time,
    packets: u64,
    lost: u64,
    ts_errors: u64,
}

/// A threshold with a hold-off either way.
#[derive(Clone, Copy, Debug)]
enum Gauge {
    Fine { above_since: Option<Time> },
    Faulty { low_since: Option<Time> },
}

impl Default for Gauge {
    fn default() -> Self {
        Self::Fine { above_since: None }
    }
}

impl Gauge {
    /// Takes in a level, in thousandths of the threshold; says whether the source is faulty if that has changed.
    fn update(&mut self, now: Time, level: Option<u32>, rules: &Rules) -> Option<bool> {
        let lasts = |since: &mut Option<Time>, is_so: bool, hold_off: Duration| {
            *since = is_so.then(|| since.unwrap_or(now));
            since.is_some_and(|since| now >= since + hold_off)
        };
        match self {
            Self::Fine { above_since } => {
                let is_above = level.is_some_and(|level| level > AT_THRESHOLD);
                lasts(above_since, is_above, rules.hold_off).then(|| *self = Self::Faulty { low_since: None })?;
                Some(true)
            }
            Self::Faulty { low_since } => {
                let is_low = level.is_some_and(|level| level <= AT_THRESHOLD / 2);
                lasts(low_since, is_low, rules.return_hold_off).then(|| *self = Self::default())?;
                Some(false)
            }
        }
    }
}

/// Levels are those of this span until now. Judgement: some packets of even a slow stream.
pub const WINDOW: Duration = Duration::from_secs(1);

/// Judgement: longer than it takes to know what a picture is like where key frames are far apart.
const AWAITED_MAX: Duration = Duration::from_secs(30);

/// How often counters are looked at.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(100);

const SAMPLES: usize = (WINDOW.as_millis() / LOOK_EVERY.as_millis()) as usize;

/// A level that is just at its threshold.
pub(super) const AT_THRESHOLD: u32 = 1_000;

/// The level of what is seen to be wrong. Judgement: a picture with any loss is better than none, so it is more than twice
/// the level of losing everything where one per mille is too much.
const SEEN_LEVEL: u32 = 4_000_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULES: Rules = Rules {
        loss_per_mille: Some(100),
        ts_errors_per_second: Some(4),
        seen: Seen::NONE,
        hold_off: Duration::from_secs(2),
        return_hold_off: Duration::from_secs(3),
    };

    #[test]
    fn loss_counts_as_a_fault_after_the_hold_off_and_not_before() {
        let mut rig = Rig::default();
        assert_eq!(rig.run(20, (100, 11, 0)), [], "10 % is the threshold, these are 9.9 %");
        assert_eq!(rig.run(20, (100, 12, 0)), []);
        assert_eq!(rig.run(9, (100, 12, 0)), [(Fault::Loss, true)], "the window had to fill first");
        assert_eq!(rig.health.fault(), Some(Fault::Loss));
        assert_eq!(rig.health.lasting_fault(), Some(Fault::Loss));
    }

    #[test]
    fn a_single_burst_is_no_fault() {
        let mut rig = Rig::default();
        rig.run(10, (100, 0, 0));
        rig.run(1, (0, 5_000, 0));
        assert_eq!(rig.run(100, (100, 0, 0)), []);
    }

    #[test]
    fn a_fault_ends_after_its_hold_off_at_half_the_threshold() {
        let mut rig = Rig::default();
        assert_eq!(rig.run(40, (100, 0, 1)), [(Fault::TsErrors, true)]);
        // Three a second are neither above four nor at most two.
        assert_eq!(rig.run_each(100, |n| (100, 0, u64::from(n % 10 < 3))), []);
        assert_eq!(rig.health.lasting_fault(), Some(Fault::TsErrors));
        assert_eq!(rig.run_each(30, |n| (100, 0, u64::from(n % 10 < 2))), []);
        assert_eq!(rig.health.lasting_fault(), None);
        assert_eq!(rig.run_each(10, |n| (100, 0, u64::from(n % 10 < 2))), [(Fault::TsErrors, false)]);
        assert!(rig.health.clean_since().is_some());
    }

    #[test]
    fn silence_proves_nothing() {
        let mut rig = Rig::default();
        assert_eq!(rig.run(40, (100, 100, 0)), [(Fault::Loss, true)]);
        assert_eq!(rig.run(100, (0, 0, 0)), []);
        assert_eq!((rig.health.fault(), rig.health.severity()), (Some(Fault::Loss), u32::MAX));
        assert_eq!(rig.run(35, (100, 0, 0)), [(Fault::Loss, false)]);
    }

    #[test]
    fn counters_that_begin_anew_are_no_loss() {
        let mut rig = Rig::default();
        rig.run(10, (100, 5, 0));
        rig.counts = Counts::default();
        assert_eq!(rig.run(1, (1, 0, 0)), []);
        assert_eq!(rig.health.level(), None);
        assert_eq!(rig.run(30, (100, 0, 0)), []);
        assert_eq!(rig.health.level(), Some(0));
    }

    #[test]
    fn without_rules_nothing_is_known() {
        let mut rig = Rig { rules: Rules::default(), ..Rig::default() };
        assert_eq!(rig.run(100, (100, 100, 100)), []);
        assert_eq!((rig.health.severity(), rig.health.level()), (0, None));
    }

    #[test]
    fn what_is_about_to_be_known_is_waited_for_but_not_for_ever() {
        let rules = Rules { seen: Seen { black: true, ..Seen::NONE }, ..RULES };
        let mut rig = Rig { rules, ..Rig::default() };
        rig.counts.awaited = Seen { black: true, ..Seen::NONE };
        rig.run(290, (100, 0, 0));
        assert_eq!(rig.health.clean_since(), None);
        rig.counts.seen.black = Some(true);
        rig.counts.awaited.black = false;
        assert_eq!(rig.run(21, (100, 0, 0)), [(Fault::Black, true)], "and never was it clean");
        let mut rig = Rig { rules, ..Rig::default() };
        rig.counts.awaited = Seen { black: true, ..Seen::NONE };
        rig.run(310, (100, 0, 0));
        assert!(rig.health.clean_since().is_some());
        // Nobody asked for that.
        let mut rig = Rig { rules, ..Rig::default() };
        rig.counts.awaited = Seen { frozen: true, ..Seen::NONE };
        rig.run(5, (100, 0, 0));
        assert!(rig.health.clean_since().is_some());
    }

    #[test]
    fn what_is_seen_is_a_fault_after_the_hold_off_and_what_is_not_known_is_none() {
        let rules = Rules { seen: Seen { black: true, no_audio: true, ..Seen::NONE }, ..RULES };
        let mut rig = Rig { rules, ..Rig::default() };
        let with = |rig: &mut Rig, black: Option<bool>, looks| {
            // A rule for what is frozen was not given.
            rig.counts.seen = Seen { black, frozen: Some(true), ..Seen::default() };
            rig.run(looks, (100, 0, 0))
        };
        assert_eq!(with(&mut rig, None, 100), []);
        assert!(!rig.health.knows(Fault::Black) && rig.health.knows(Fault::Loss));
        assert_eq!(with(&mut rig, Some(true), 20), []);
        assert_eq!(with(&mut rig, None, 1), [], "a moment of doubt ends the wait");
        assert_eq!(with(&mut rig, Some(true), 20), []);
        assert_eq!(with(&mut rig, Some(true), 1), [(Fault::Black, true)]);
        assert_eq!(with(&mut rig, None, 100), [], "nor is it well because it is not known");
        assert_eq!(with(&mut rig, Some(false), 31), [(Fault::Black, false)]);
        assert!(rig.health.clean_since().is_some());
        rig.counts.seen.no_audio = Some(true);
        assert_eq!(rig.run(100, (0, 0, 0)), [], "a source that delivers nothing is silent, and not without sound");
    }

    #[test]
    fn what_delivers_and_is_not_known_to_be_bad_is_clean() {
        let seen = Seen { black: true, ..Seen::NONE };
        let mut rig = Rig { rules: Rules { seen, ..Rules::default() }, ..Rig::default() };
        rig.run(10, (100, 0, 0));
        assert!(rig.health.clean_since().is_some() && rig.health.level().is_none());
        rig.run(11, (0, 0, 0));
        assert_eq!(rig.health.clean_since(), None, "nothing comes");
        rig.run(1, (100, 0, 0));
        assert!(rig.health.clean_since().is_some());
        rig.counts.seen.black = Some(true);
        rig.run(1, (100, 0, 0));
        assert_eq!(rig.health.clean_since(), None, "black, if only for a moment");
    }

    #[test]
    fn nonsense_does_not_overflow() {
        let mut health = Health::default();
        for (at, count) in [0, u64::MAX, 0, u64::MAX, u64::MAX - 1].into_iter().enumerate() {
            let counts = Counts { packets: count, lost: count, ts_errors: count, ..Counts::default() };
            health.handle_counts(Time::from_ns(at as u64 * 100_000_000), counts, &RULES);
        }
    }

    proptest! {
        /// Faults are those that a look at the whole history finds.
        #[test]
        fn random_counts_agree_with_the_model(spans in prop::collection::vec((1u32..45, 0u64..30, 0u64..3), 1..20)) {
            let mut rig = Rig::default();
            let mut history = Vec::new();
            let mut faulty = false;
            for (looks, lost, pause) in spans {
                let packets = if pause == 0 { 0 } else { 100 };
                for _ in 0..looks {
                    rig.run(1, (packets, lost, 0));
                    history.push((packets, lost));
                    faulty = model(&history, faulty);
                    prop_assert_eq!(rig.health.fault().is_some(), faulty, "after {} looks", history.len());
                }
            }
        }
    }

    /// Whether the latest looks, one window each, were all such that what was so before changes.
    fn model(history: &[(u64, u64)], faulty: bool) -> bool {
        let level = |end: usize| {
            let window = &history[end.saturating_sub(10)..end];
            let (packets, lost) = window.iter().fold((0, 0), |sum, look| (sum.0 + look.0, sum.1 + look.1));
            (packets > 0).then(|| 1_000.0 * lost as f64 / (packets + lost) as f64)
        };
        let looks = if faulty { 31 } else { 21 };
        if history.len() < looks {
            return faulty;
        }
        let mut levels = (history.len() + 1 - looks..=history.len()).map(level);
        // A level is cut to thousandths of the threshold.
        let changes = levels.all(|level| level.is_some_and(|level| if faulty { level < 50.1 } else { level >= 100.1 }));
        changes != faulty
    }

    struct Rig {
        health: Health,
        rules: Rules,
        counts: Counts,
        looks: u64,
    }

    impl Default for Rig {
        fn default() -> Self {
            let mut rig = Self { health: Health::default(), rules: RULES, counts: Counts::default(), looks: 0 };
            rig.run(1, (0, 0, 0));
            rig
        }
    }

    impl Rig {
        /// So many looks, before each of which so many packets, losses and errors were counted.
        fn run(&mut self, looks: u64, counts: (u64, u64, u64)) -> Vec<(Fault, bool)> {
            self.run_each(looks, |_| counts)
        }

        fn run_each(&mut self, looks: u64, counts: impl Fn(u64) -> (u64, u64, u64)) -> Vec<(Fault, bool)> {
            let mut changes = Vec::new();
            for n in 0..looks {
                let (packets, lost, ts_errors) = counts(n);
                self.counts.packets += packets;
                self.counts.lost += lost;
                self.counts.ts_errors += ts_errors;
                let now = Time::from_ns(self.looks * 100_000_000);
                self.looks += 1;
                changes.extend(self.health.handle_counts(now, self.counts, &self.rules));
            }
            changes
        }
    }
}
