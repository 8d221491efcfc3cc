//! What the watching thread does: reads rings, runs the watches, hands out jobs, takes outcomes, gives reports.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::{EventSink, Shared, WatchId, WatchersStats, lock};
use crate::adapters::clock;
use crate::adapters::decoders::{Pool, cpu_time, lower_priority};
use crate::bus::Subscriber;
use crate::media::watch::governor::Kind;
use crate::media::watch::{Failure, Governor, Outcome, Watch, Work};
use crate::units::Time;

/// Runs until the handle is gone.
pub(super) fn run(shared: &Shared, pool: io::Result<Pool>) {
    lower_priority(false);
    // Without a pool there still is metadata.
    let pool = pool.ok();
    let now = clock::now();
    let governor = Governor::new(now, shared.budget_per_mille.load(Relaxed));
    let mut watching =
        Watching { shared, pool, governor, streams: BTreeMap::new(), budget: 0, spent: cpu_time(), next_look: now };
    while !shared.ends.load(Relaxed) {
        watching.pass(clock::now());
        if watching.streams.is_empty() && !lock(&shared.wanted).is_changed {
            std::thread::park();
        } else {
            std::thread::park_timeout(LOOK_EVERY);
        }
    }
}

struct Watching<'a> {
    shared: &'a Shared,
    pool: Option<Pool>,
    governor: Governor,
    streams: BTreeMap<WatchId, Stream>,
    budget: u32,
    /// What this thread had taken when it was last accounted for.
    spent: Duration,
    next_look: Time,
}

struct Stream {
    watch: Watch,
    /// `None` once the flow has ended.
    packets: Option<Subscriber>,
    sink: EventSink,
    /// What the job that is being done is about.
    kind: Option<Kind>,
    reported_at: Option<Time>,
    is_news: bool,
}

impl Watching<'_> {
    fn pass(&mut self, now: Time) {
        self.take_wanted(now);
        let budget = self.shared.budget_per_mille.load(Relaxed);
        if budget != self.budget {
            self.budget = budget;
            self.governor.set_budget(now, budget);
        }
        self.take_outcomes(now);
        // It may have been woken for an outcome alone.
        if now >= self.next_look {
            self.next_look = now + LOOK_EVERY;
            self.look(now);
        }
        self.hand_out(now);
        self.account(now);
    }

    fn take_wanted(&mut self, now: Time) {
        let mut wanted = lock(&self.shared.wanted);
        if !std::mem::take(&mut wanted.is_changed) {
            return;
        }
        let removed: Vec<WatchId> =
            self.streams.keys().filter(|id| !wanted.streams.contains_key(id)).copied().collect();
        for (id, stream) in &mut wanted.streams {
            if let Some((packets, sink)) = stream.newcomer.take() {
                let watch = Watch::new(now, stream.settings);
                let packets = Some(packets);
                self.streams.insert(*id, Stream { watch, packets, sink, kind: None, reported_at: None, is_news: true });
            } else if let Some(known) =
                self.streams.get_mut(id).filter(|known| *known.watch.settings() != stream.settings)
            {
                known.watch.set(stream.settings);
            }
        }
        drop(wanted);
        for id in removed {
            self.streams.remove(&id);
            self.governor.remove_stream(id.0);
            if let Some(pool) = &self.pool {
                pool.forget(id.0);
            }
            // It may have been reported between its removal and now.
            lock(&self.shared.reports).remove(&id);
        }
    }

    fn take_outcomes(&mut self, now: Time) {
        if let Some(pool) = &mut self.pool {
            pool.handle_timeout(now);
        }
        let outcomes = std::mem::take(&mut *lock(&self.shared.outcomes));
        if outcomes.is_empty() {
            return;
        }
        let mut stats = lock(&self.shared.stats);
        for (id, outcome) in outcomes {
            let id = WatchId(id);
            stats.jobs += 1;
            stats.crashes += u64::from(outcome.result == Err(Failure::Crashed));
            stats.decoding_cpu_ns += u64::try_from(outcome.cpu.as_nanos()).unwrap_or(u64::MAX);
            let stream = self.streams.get_mut(&id);
            let kind = stream.as_ref().and_then(|stream| stream.kind).unwrap_or(Kind::Picture);
            self.governor.handle_cost(now, id.0, kind, outcome.cpu);
            if let Some(stream) = stream {
                stream.kind = None;
                stream.watch.handle_outcome(now, outcome);
                stream.is_news = true;
            }
        }
    }

    fn look(&mut self, now: Time) {
        self.governor.handle_timeout(now);
        for (id, stream) in &mut self.streams {
            stream.read(now);
            stream.watch.handle_timeout(now);
            self.governor.set_stream(id.0, stream.watch.wanted_every());
            if let Some((every, is_stretched)) = self.governor.every(id.0) {
                stream.watch.set_every(every, is_stretched);
            }
            let job = stream.watch.has_job(now).then_some(Kind::Picture);
            self.governor.ask(id.0, job);
            while let Some(event) = stream.watch.poll_event() {
                stream.is_news = true;
                (stream.sink)(now, event);
            }
            stream.report(*id, now, self.shared);
        }
    }

    fn hand_out(&mut self, now: Time) {
        let Some(pool) = &self.pool else { return };
        while let Some(id) = self.governor.poll_grant(now, |id| pool.has_room(id)) {
            let stream = self.streams.get_mut(&WatchId(id));
            let Some((stream, job)) = stream.and_then(|stream| stream.watch.poll_job(now).map(|job| (stream, job)))
            else {
                self.governor.handle_cost(now, id, Kind::Picture, Duration::ZERO);
                continue;
            };
            let kind = match job.work {
                Work::Picture { .. } => Kind::Picture,
                Work::Sound { .. } => Kind::Sound,
                Work::Proof { .. } => Kind::Proof,
            };
            let number = job.number;
            stream.kind = Some(kind);
            if !pool.submit(id, job) {
                let outcome = Outcome { number, result: Err(Failure::Crashed), cpu: Duration::ZERO };
                self.governor.handle_cost(now, id, kind, Duration::ZERO);
                stream.watch.handle_outcome(now, outcome);
            }
        }
    }

    fn account(&mut self, now: Time) {
        let spent = cpu_time();
        self.governor.handle_overhead(now, spent.saturating_sub(self.spent));
        self.spent = spent;
        let mut stats = lock(&self.shared.stats);
        stats.watching_cpu_ns = u64::try_from(spent.as_nanos()).unwrap_or(u64::MAX);
        let WatchersStats { threads_given_up, .. } = &mut *stats;
        *threads_given_up = self.pool.as_ref().map_or(0, Pool::given_up);
    }
}

impl Stream {
    fn read(&mut self, now: Time) {
        let Some(packets) = &mut self.packets else { return };
        for _ in 0..BATCHES_MAX {
            let watch = &mut self.watch;
            let read = packets.lend(BATCH_PACKETS, |lent| {
                let mut count = 0;
                for packet in lent {
                    watch.handle_packet(now, &packet);
                    count += 1;
                }
                count
            });
            let missed = packets.take_missed();
            if missed > 0 {
                watch.handle_missed(missed);
            }
            match read {
                Ok(count) if count == BATCH_PACKETS => {}
                Ok(_) => return,
                Err(_ended) => {
                    self.packets = None;
                    return;
                }
            }
        }
    }

    fn report(&mut self, id: WatchId, now: Time, shared: &Shared) {
        let is_due = self.reported_at.is_none_or(|at| now.since(at) >= REPORT_EVERY);
        let is_news = self.is_news && self.reported_at.is_none_or(|at| now.since(at) >= NEWS_EVERY);
        if !is_due && !is_news {
            return;
        }
        (self.reported_at, self.is_news) = (Some(now), false);
        let report = Arc::new(self.watch.report(now));
        let before = lock(&shared.reports).insert(id, report);
        // Freed outside of the lock, if nobody else has it.
        drop(before);
    }
}

/// A fiftieth of a second of packets waits in a ring at most, which is little, and looking costs little.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// As many as can be lent at once, and a gigabit per second of them.
const BATCH_PACKETS: usize = 1_024;
const BATCHES_MAX: usize = 4;
const REPORT_EVERY: Duration = Duration::from_millis(900);
const NEWS_EVERY: Duration = Duration::from_millis(100);
