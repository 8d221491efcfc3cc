//! `Eyes`: what is watched in pictures and sound: what a flow's outputs get, or each of its sources.
//!
//! Watching is done elsewhere, by one thread of low priority for all flows. Sources are watched one by one only while failover
//! judges by what is seen of them; each then has a ring of its own, which costs the packet path a count per packet.

use std::fmt;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::config::{FailoverMode, FlowConfig};
use super::event::{Event, EventKind};
use super::flow::{FlowCounters, SourceSlot};
use super::managed::{ManagedFlow, State};
use super::stats::WatchSnapshot;
use super::supervisor::{EngineConfig, Message};
use crate::adapters::clock;
use crate::adapters::watchers::{WatchId, Watchers, WatchersConfig};
use crate::bus::Subscribe;
use crate::media::watch::{Reason, Report, Settings};
use crate::path::health::Seen;
use crate::units::{FlowId, SourceName, Time};

/// Watches for all flows of an engine; begins with the first one that is watched.
#[derive(Clone)]
pub(super) struct Watching(Arc<Inner>);

struct Inner {
    config: WatchersConfig,
    watchers: Mutex<Option<Arc<Watchers>>>,
    supervisor: SyncSender<Message>,
}

impl Watching {
    pub(super) fn new(config: &EngineConfig, supervisor: SyncSender<Message>) -> Self {
        let config = config.watchers.clone();
        Self(Arc::new(Inner { config, watchers: Mutex::default(), supervisor }))
    }

    /// `None` if the system gives no thread; then it is tried again with the next stream.
    fn watchers(&self) -> Option<Arc<Watchers>> {
        let mut watchers = self.0.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        if watchers.is_none() {
            match Watchers::spawn(self.0.config.clone()) {
                Ok(started) => *watchers = Some(Arc::new(started)),
                Err(error) => tracing::error!(cause = %error, "nothing can be watched"),
            }
        }
        watchers.clone()
    }

    fn watch(&self, whose: Whose<'_>, packets: Subscribe, settings: Settings) -> Option<Eye> {
        let watchers = self.watchers()?;
        let (flow, source, counters) = (whose.flow.clone(), whose.source.cloned(), Arc::clone(whose.counters));
        let supervisor = self.0.supervisor.clone();
        let sink = move |_at: Time, event| {
            let kind = EventKind::Watched { source: source.clone(), event };
            let event = Event { flow: flow.clone(), at: clock::wall(), kind };
            if supervisor.try_send(Message::Happened(event)).is_err() {
                counters.watch_events_dropped.add(1);
            }
        };
        let id = watchers.add(packets, settings, Box::new(sink));
        Some(Eye { watchers, id })
    }
}

/// A stream to be watched.
struct Whose<'a> {
    flow: &'a FlowId,
    /// `None` for what outputs get.
    source: Option<&'a SourceName>,
    counters: &'a Arc<FlowCounters>,
}

/// A stream that is watched until this is dropped.
struct Eye {
    watchers: Arc<Watchers>,
    id: WatchId,
}

impl Eye {
    fn report(&self) -> Option<Arc<Report>> {
        self.watchers.report(self.id)
    }
}

impl Drop for Eye {
    fn drop(&mut self) {
        self.watchers.remove(self.id);
    }
}

/// What of one flow is watched at present.
pub(super) struct FlowEyes {
    watching: Watching,
    plan: Plan,
    flow: Option<Eye>,
    sources: Vec<(SourceSlot, Eye)>,
    /// When failover is to be told next what is seen.
    look_due: Option<Time>,
}

impl fmt::Debug for FlowEyes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlowEyes").field("plan", &self.plan).finish_non_exhaustive()
    }
}

/// What of a flow is to be watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Plan {
    #[default]
    Nothing,
    /// What outputs get.
    Flow(Settings),
    /// Each source.
    Sources(Settings),
}

impl Plan {
    fn new(config: &FlowConfig) -> Self {
        let (monitor, failover) = (&config.monitor, &config.failover);
        let settings = Settings { thumbnail_every: monitor.thumbnail_every, content_quality: monitor.content_quality };
        if failover.mode == FailoverMode::Failover && failover.switch_on.seen.is_any() {
            // What failover needs; whether it is shown, too, is another question.
            Self::Sources(Settings { content_quality: true, ..settings })
        } else if monitor.is_watching() {
            Self::Flow(settings)
        } else {
            Self::Nothing
        }
    }

    const fn settings(&self) -> Option<Settings> {
        match *self {
            Self::Nothing => None,
            Self::Flow(settings) | Self::Sources(settings) => Some(settings),
        }
    }
}

impl FlowEyes {
    pub(super) const fn new(watching: Watching) -> Self {
        Self { watching, plan: Plan::Nothing, flow: None, sources: Vec::new(), look_due: None }
    }

    /// What is in this slot is another source from now on, or the same one opened anew, or none.
    pub(super) fn forget_source(&mut self, slot: SourceSlot) {
        self.sources.retain(|(watched, _)| *watched != slot);
    }

    /// When failover is to be told what is seen.
    pub(super) const fn look_due(&self) -> Option<Time> {
        self.look_due
    }
}

impl ManagedFlow {
    /// Watches what is to be watched by the configuration in force, and nothing else. What is watched already goes on.
    pub(super) fn adjust_eyes(&mut self) {
        let plan = self.config().map(Plan::new).unwrap_or_default();
        if let (Some(settings), true) = (plan.settings(), plan != self.eyes.plan) {
            let eyes = self.eyes.flow.iter().chain(self.eyes.sources.iter().map(|(_, eye)| eye));
            eyes.for_each(|eye| eye.watchers.set(eye.id, settings));
        }
        self.eyes.plan = plan;
        let is_of_flow = matches!(plan, Plan::Flow(_));
        if !is_of_flow {
            self.eyes.flow = None;
        }
        if let (Plan::Flow(settings), true) = (plan, self.eyes.flow.is_none()) {
            let whose = Whose { flow: &self.id, source: None, counters: &self.counters };
            self.eyes.flow = self.eyes.watching.watch(whose, self.subscribe(), settings);
        }
        match plan {
            Plan::Sources(settings) => self.watch_sources(settings),
            Plan::Nothing | Plan::Flow(_) => self.watch_no_source(),
        }
    }

    fn watch_sources(&mut self, settings: Settings) {
        for at in 0..self.sources.len() {
            let slot = self.sources[at].slot;
            let is_open = matches!(self.sources[at].state, State::Open { .. });
            let is_watched = self.eyes.sources.iter().any(|(watched, _)| *watched == slot);
            if !is_open || is_watched {
                continue;
            }
            let pool = self.pool.clone();
            let ring = self.visit(move |flow, _cx| flow.open_ring(slot, pool));
            let source = Some(&self.sources[at].config.name);
            let whose = Whose { flow: &self.id, source, counters: &self.counters };
            let eye = ring.and_then(|ring| self.eyes.watching.watch(whose, ring, settings));
            self.counters.see(slot, Seen::default(), ALL_AWAITED);
            self.eyes.sources.extend(eye.map(|eye| (slot, eye)));
        }
        self.eyes.look_due.get_or_insert_with(clock::now);
    }

    fn watch_no_source(&mut self) {
        self.eyes.look_due = None;
        for (slot, _) in std::mem::take(&mut self.eyes.sources) {
            self.counters.see(slot, Seen::default(), Seen::NONE);
            self.visit(move |flow, _cx| flow.close_ring(slot));
        }
    }

    /// Tells failover what is seen of each source.
    pub(super) fn look(&mut self, now: Time) {
        if self.eyes.look_due.is_none_or(|due| now < due) {
            return;
        }
        for source in &self.sources {
            let eye = self.eyes.sources.iter().find(|(slot, _)| *slot == source.slot);
            let (seen, awaited) = match eye.map(|(_, eye)| eye.report()) {
                Some(Some(report)) => seen(&report, now),
                Some(None) => (Seen::default(), ALL_AWAITED),
                None => (Seen::default(), Seen::NONE),
            };
            self.counters.see(source.slot, seen, awaited);
        }
        self.eyes.look_due = Some(now + LOOK_EVERY);
    }

    /// What is seen, if anything is watched.
    pub(super) fn watch_snapshot(&self) -> Option<Box<WatchSnapshot>> {
        self.eyes.plan.settings()?;
        let monitor = &self.config()?.monitor;
        let settings = Settings { thumbnail_every: monitor.thumbnail_every, content_quality: monitor.content_quality };
        let now = clock::now();
        let of_source = |(slot, eye): &(SourceSlot, Eye)| {
            let source = self.sources.iter().find(|source| source.slot == *slot)?;
            Some((source.config.name.clone(), current(eye.report()?, now)))
        };
        let each: Vec<(SourceName, Arc<Report>)> = self.eyes.sources.iter().filter_map(of_source).collect();
        let active = self.counters.active.value().checked_sub(1);
        let of_active = self.eyes.sources.iter().find(|(slot, _)| Some(u64::from(slot.0)) == active);
        let eye = self.eyes.flow.as_ref().or_else(|| of_active.map(|(_, eye)| eye));
        let report = eye.and_then(Eye::report).map(|report| current(report, now));
        Some(Box::new(WatchSnapshot { settings, report, sources: each }))
    }
}

/// What is shown of a report: not as the present what is too old to be that.
fn current(report: Arc<Report>, now: Time) -> Arc<Report> {
    if now.since(report.at) > REPORT_OLD { Arc::new(report.outdated()) } else { report }
}

/// What failover is told of a report, and what of it is about to be known: nothing, if it is too old to be true.
fn seen(report: &Report, now: Time) -> (Seen<Option<bool>>, Seen<bool>) {
    if now.since(report.at) > REPORT_OLD {
        return (Seen::default(), Seen::NONE);
    }
    let content = &report.content;
    let seen = Seen {
        black: content.black,
        frozen: content.frozen,
        silent: content.silent,
        no_video: content.video_present.map(|is_there| !is_there),
        no_audio: content.audio_present.map(|is_there| !is_there),
    };
    let (sees, hears) = (is_awaited(content.video.as_ref()), is_awaited(content.audio.as_ref()));
    let awaited = Seen {
        black: sees && seen.black.is_none(),
        frozen: sees && seen.frozen.is_none(),
        silent: hears && seen.silent.is_none(),
        no_video: seen.no_video.is_none(),
        no_audio: seen.no_audio.is_none(),
    };
    (seen, awaited)
}

/// Whether what is not known for this reason is about to be.
fn is_awaited(reason: Option<&Reason>) -> bool {
    matches!(reason, Some(Reason::Listening | Reason::WaitingKeyFrame | Reason::Restarting | Reason::Missing))
}

/// Of a source that was not looked at yet.
const ALL_AWAITED: Seen<bool> = Seen { black: true, frozen: true, silent: true, no_video: true, no_audio: true };
/// As often as a flow looks at what else its sources do.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Reports are two seconds old at most, unless the machine has no time for watching.
const REPORT_OLD: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{FailoverConfig, MergeConfig, MonitorConfig, SourceConfig, url};
    use crate::media::watch::Content;
    use crate::path::AllowList;

    fn flow(monitor: MonitorConfig, seen: Seen<bool>) -> FlowConfig {
        let mut failover = FailoverConfig::default();
        failover.switch_on.seen = seen;
        let source = SourceConfig {
            name: "s1".parse().unwrap(),
            endpoint: url::parse_source("test:").unwrap(),
            allow: AllowList::default(),
            limit: None,
        };
        FlowConfig { name: "a".into(), sources: vec![source], outputs: Vec::new(), failover, monitor }
    }

    #[test]
    fn sources_are_watched_one_by_one_only_where_failover_judges_them() {
        let every = Some(Duration::from_secs(5));
        let monitor = || MonitorConfig { thumbnail_every: every, ..MonitorConfig::default() };
        let settings = Settings { thumbnail_every: every, content_quality: false };
        assert_eq!(Plan::new(&flow(MonitorConfig::default(), Seen::NONE)), Plan::Nothing);
        let analysed = MonitorConfig { ts_analysis: true, ..MonitorConfig::default() };
        assert_eq!(Plan::new(&flow(analysed, Seen::NONE)), Plan::Flow(Settings::default()));
        assert_eq!(Plan::new(&flow(monitor(), Seen::NONE)), Plan::Flow(settings));
        let judged = Settings { content_quality: true, ..settings };
        let mut wanted = flow(monitor(), Seen { frozen: true, ..Seen::NONE });
        assert_eq!(Plan::new(&wanted), Plan::Sources(judged));
        wanted.failover.mode = FailoverMode::Merge(MergeConfig::default());
        assert_eq!(Plan::new(&wanted), Plan::Flow(settings), "merged sources are not judged");
    }

    #[test]
    fn what_is_not_known_is_not_told() {
        let content = Content { black: Some(true), video_present: Some(true), video: None, ..Content::default() };
        let report = Report { content, ..Report::default() };
        let told = Seen { black: Some(true), no_video: Some(false), ..Seen::default() };
        let shown = |now| current(Arc::new(report.clone()), now).content.clone();
        assert_eq!(shown(Time::ZERO + REPORT_OLD), report.content);
        let outdated = shown(Time::ZERO + REPORT_OLD + LOOK_EVERY);
        assert_eq!((outdated.black, outdated.video_present, outdated.video), (None, None, Some(Reason::Budget)));
        assert_eq!(outdated.audio, Some(Reason::Off), "that has not changed");
        let audio = Seen { no_audio: true, ..Seen::NONE };
        assert_eq!(seen(&report, Time::ZERO + REPORT_OLD), (told, audio));
        let outdated = seen(&report, Time::ZERO + REPORT_OLD + LOOK_EVERY);
        assert_eq!(outdated, (Seen::default(), Seen::NONE), "it is too old");
        // What is about to be known is waited for, what cannot be is not.
        for (reason, is_awaited) in
            [(Reason::WaitingKeyFrame, true), (Reason::Scrambled, false), (Reason::Budget, false)]
        {
            let content = Content { video: Some(reason), video_present: Some(true), ..Content::default() };
            let (told, awaited) = seen(&Report { content, ..Report::default() }, Time::ZERO);
            assert_eq!((told.black, awaited.black, awaited.no_video), (None, is_awaited, false));
        }
    }
}
