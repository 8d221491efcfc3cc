//! What the watching thread does: reads rings, runs the watches, hands out jobs, takes outcomes, gives reports.

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use super::open::Open;
use super::pace::{CONTENT_EVERY, LOOK_EVERY, METADATA_EVERY, Pace};
use super::{EventSink, Shared, WatchId, lock};
use crate::adapters::clock;
use crate::adapters::decoders::{Pool, cpu_time, lower_priority};
use crate::bus::Subscriber;
use crate::media::watch::governor::Kind;
use crate::media::watch::shares::shares;
use crate::media::watch::{Event, Failure, Governor, Job, Outcome, Settings, Watch};
use crate::units::Time;

/// Runs until the handle is gone.
pub(super) fn run(shared: &Shared, pool: io::Result<Pool>) {
    lower_priority(false);
    // Without a pool there still is metadata.
    let pool = pool.ok();
    let now = clock::now();
    let governor = Governor::new(now, shared.budget_per_mille.load(Relaxed));
    let mut watching = Watching {
        shared,
        pool,
        governor,
        streams: BTreeMap::new(),
        budget: 0,
        spent: cpu_time(),
        next_share: now,
        looks: 0,
    };
    while !shared.ends.load(Relaxed) {
        watching.pass(clock::now());
        match watching.poll_timeout() {
            None if !lock(&shared.wanted).is_changed => std::thread::park(),
            None => {}
            Some(due) => std::thread::park_timeout(due.since(clock::now())),
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
    /// When memory is shared out again.
    next_share: Time,
    looks: u64,
}

struct Stream {
    watch: Watch,
    /// `None` once the flow has ended.
    packets: Option<Subscriber>,
    sink: EventSink,
    /// What was told and is not over.
    open: Open,
    /// Rings when packets come while the thread sleeps.
    alarm: Arc<Alarm>,
    pace: Pace,
    /// After a failure it is not looked at before that, whatever comes.
    paused_until: Time,
    reported_at: Option<Time>,
    is_news: bool,
    restarts: u64,
}

/// Wakes the thread for a stream of which packets come again.
struct Alarm {
    has_rung: AtomicBool,
    thread: Thread,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.has_rung.store(true, Relaxed);
        self.thread.unpark();
    }
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
        self.look(now);
        self.share_memory(now);
        self.hand_out(now);
        self.hand_out_proof(now);
        self.account(now);
    }

    /// When there is something to do, if nobody says so before.
    fn poll_timeout(&self) -> Option<Time> {
        let due = self.streams.values().map(|stream| stream.pace.due()).min()?;
        // Somebody waits for computing time.
        Some(if self.governor.is_waited_for() { due.min(clock::now() + LOOK_EVERY) } else { due })
    }

    fn take_wanted(&mut self, now: Time) {
        let mut wanted = lock(&self.shared.wanted);
        if !std::mem::take(&mut wanted.is_changed) {
            return;
        }
        self.next_share = now;
        let removed: Vec<WatchId> =
            self.streams.keys().filter(|id| !wanted.streams.contains_key(id)).copied().collect();
        for (id, stream) in &mut wanted.streams {
            if let Some((packets, sink)) = stream.newcomer.take() {
                self.streams.insert(*id, Stream::new(now, stream.settings, packets, sink));
            } else if let Some(known) =
                self.streams.get_mut(id).filter(|known| *known.watch.settings() != stream.settings)
            {
                known.set(now, stream.settings);
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
        for (id, kind, outcome) in outcomes {
            let id = WatchId(id);
            stats.jobs += 1;
            stats.crashes += u64::from(outcome.result == Err(Failure::Crashed));
            let cpu_ns = u64::try_from(outcome.cpu.as_nanos()).unwrap_or(u64::MAX);
            stats.decoding_cpu_ns = stats.decoding_cpu_ns.saturating_add(cpu_ns);
            self.take_outcome(now, id, kind, outcome);
        }
    }

    fn take_outcome(&mut self, now: Time, id: WatchId, kind: Option<Kind>, outcome: Outcome) {
        match kind {
            Some(kind) => self.governor.handle_cost(now, id.0, kind, outcome.cpu),
            None => self.governor.handle_proof_cost(now, outcome.cpu),
        }
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.is_news = true;
        stream.guarded(now, |stream| stream.watch.handle_outcome(now, outcome));
        stream.ask(now, id, &mut self.governor);
    }

    fn look(&mut self, now: Time) {
        self.governor.handle_timeout(now);
        for (id, stream) in &mut self.streams {
            if stream.alarm.has_rung.swap(false, Relaxed) && stream.paused_until <= now {
                stream.pace.pause(now);
            }
            if now < stream.pace.due() {
                continue;
            }
            self.looks += 1;
            let governor = &mut self.governor;
            stream.guarded(now, |stream| {
                // Asked for before the look, so that none comes unnoticed in between.
                let has_alarm = stream.pace.wants_alarm();
                if has_alarm {
                    stream.set_alarm();
                }
                let packets = stream.read(now);
                stream.pace.handle_look(now, packets, stream.every_max(), has_alarm);
                stream.watch.handle_timeout(now);
                governor.set_stream(id.0, stream.watch.wanted_every());
                if let Some((every, is_stretched)) = governor.every(id.0) {
                    stream.watch.set_every(every, is_stretched);
                }
                while let Some(event) = stream.watch.poll_event() {
                    stream.tell(now, event);
                }
            });
            stream.ask(now, *id, &mut self.governor);
            stream.report(*id, now, self.shared);
        }
    }

    /// Coded pictures of all streams together keep a bound.
    fn share_memory(&mut self, now: Time) {
        if now < self.next_share {
            return;
        }
        self.next_share = now + SHARED_EVERY;
        let keeps = |stream: &&mut Stream| stream.watch.settings().content_quality;
        let held: Vec<usize> =
            self.streams.values_mut().filter(keeps).map(|stream| stream.watch.bytes_kept()).collect();
        lock(&self.shared.stats).bytes_kept = held.iter().sum::<usize>() as u64;
        for (stream, share) in self.streams.values_mut().filter(keeps).zip(shares(&held)) {
            stream.guarded(now, |stream| stream.watch.set_bytes_max(share));
        }
    }

    fn hand_out(&mut self, now: Time) {
        let Some(pool) = &self.pool else { return };
        while let Some((id, kind)) = self.governor.poll_grant(now, |id, kind| pool.has_room(now, id, kind)) {
            let job = self.streams.get_mut(&WatchId(id)).and_then(|stream| {
                let job = stream.guarded(now, |stream| stream.watch.poll_job(now, kind)).flatten();
                job.map(|job| (stream, job))
            });
            let Some((stream, job)) = job else {
                self.governor.handle_cost(now, id, kind, Duration::ZERO);
                continue;
            };
            if let Some(outcome) = submit(pool, now, id, job) {
                self.governor.handle_cost(now, id, kind, Duration::ZERO);
                stream.watch.handle_outcome(now, outcome);
            }
        }
    }

    fn hand_out_proof(&mut self, now: Time) {
        let Some(pool) = &self.pool else { return };
        if !pool.has_room_for_proof() {
            return;
        }
        let Some(id) = self.governor.poll_proof(now).map(WatchId) else { return };
        let stream = self.streams.get_mut(&id);
        let job = stream.and_then(|stream| {
            let job = stream.guarded(now, |stream| stream.watch.poll_proof(now)).flatten();
            job.map(|job| (stream, job))
        });
        let Some((stream, job)) = job else {
            self.governor.handle_proof_cost(now, Duration::ZERO);
            return;
        };
        if let Some(outcome) = submit(pool, now, id.0, job) {
            self.governor.handle_proof_cost(now, Duration::ZERO);
            stream.watch.handle_outcome(now, outcome);
        }
    }

    fn account(&mut self, now: Time) {
        let spent = cpu_time();
        self.governor.handle_overhead(now, spent.saturating_sub(self.spent));
        self.spent = spent;
        let mut stats = lock(&self.shared.stats);
        stats.watching_cpu_ns = u64::try_from(spent.as_nanos()).unwrap_or(u64::MAX);
        stats.threads_given_up = self.pool.as_ref().map_or(0, Pool::given_up);
        stats.looks = self.looks;
    }
}

/// Has a job done. What there is instead of an outcome if nobody can do it.
fn submit(pool: &Pool, now: Time, stream: u64, job: Job) -> Option<Outcome> {
    let number = job.number;
    let is_taken = pool.submit(now, stream, job);
    (!is_taken).then_some(Outcome { number, result: Err(Failure::NotStarted), cpu: Duration::ZERO })
}

impl Stream {
    fn new(now: Time, settings: Settings, packets: Subscriber, sink: EventSink) -> Self {
        Self {
            watch: Watch::new(now, settings),
            packets: Some(packets),
            sink,
            open: Open::default(),
            alarm: Arc::new(Alarm { has_rung: AtomicBool::new(false), thread: std::thread::current() }),
            pace: Pace::new(now),
            paused_until: now,
            reported_at: None,
            is_news: true,
            restarts: 0,
        }
    }

    fn set(&mut self, now: Time, settings: Settings) {
        self.watch.set(settings);
        self.is_news = true;
        self.pace.pause(now);
    }

    fn every_max(&self) -> Duration {
        let Settings { thumbnail_every, content_quality } = *self.watch.settings();
        if content_quality || thumbnail_every.is_some() { CONTENT_EVERY } else { METADATA_EVERY }
    }

    /// Asks for computing time for what the watch has.
    fn ask(&mut self, now: Time, id: WatchId, governor: &mut Governor) {
        self.guarded(now, |stream| {
            Kind::ALL.into_iter().for_each(|kind| governor.ask(id.0, kind, stream.watch.has_job(now, kind)));
            while !governor.ask_proof(id.0, stream.watch.waiting_proof()) {
                stream.watch.refuse_proof();
            }
        });
    }

    fn tell(&mut self, now: Time, event: Event) {
        self.is_news = true;
        self.open.handle(now, &event);
        (self.sink)(now, event);
    }

    /// Has the next packet told of.
    fn set_alarm(&self) {
        if let Some(packets) = &self.packets {
            packets.wake_on_packet(&Waker::from(Arc::clone(&self.alarm)));
        }
    }

    /// Whatever a stream makes its watch do, others are watched on: one that fails begins anew after a while. `None` if it did.
    fn guarded<R>(&mut self, now: Time, run: impl FnOnce(&mut Self) -> R) -> Option<R> {
        // What is half done is thrown away.
        if let Ok(result) = catch_unwind(AssertUnwindSafe(|| run(self))) {
            return Some(result);
        }
        self.restarts += 1;
        tracing::error!(count = self.restarts, "watching a stream failed, and begins anew");
        self.watch = self.watch.begun_anew(now);
        // The new one does not know what the old one told. Whoever takes it may be what failed.
        for event in std::mem::take(&mut self.open).close(now) {
            self.is_news = true;
            let _failed_again = catch_unwind(AssertUnwindSafe(|| (self.sink)(now, event)));
        }
        // What it failed at is not looked at again.
        let is_over = self.packets.as_mut().is_some_and(|packets| packets.lend(BATCH_PACKETS, |_| ()).is_err());
        if is_over {
            self.packets = None;
        }
        let pause = (RESTART_PAUSE * 2_u32.pow(self.restarts.min(8) as u32 - 1)).min(RESTART_PAUSE_MAX);
        self.paused_until = now + pause;
        self.pace.pause(self.paused_until);
        None
    }

    /// How many packets there were.
    fn read(&mut self, now: Time) -> usize {
        let mut total = 0;
        let Some(packets) = &mut self.packets else { return total };
        for _ in 0..BATCHES_MAX {
            let watch = &mut self.watch;
            let read = packets.lend(BATCH_PACKETS, |lent| {
                let (mut count, mut told) = (0, 0);
                while let Some(packet) = lent.next() {
                    // Before what came after them.
                    let missed = lent.missed() - told;
                    if missed > 0 {
                        told += missed;
                        watch.handle_missed(missed);
                    }
                    watch.handle_packet(now, &packet);
                    count += 1;
                }
                (count, told)
            });
            let missed = packets.take_missed();
            let (Ok((_, told)) | Err((_, told))) = read.map_err(|_ended| (0, 0));
            if missed > told {
                self.watch.handle_missed(missed - told);
            }
            let Ok((count, _)) = read else {
                self.packets = None;
                return total;
            };
            total += count;
            if count < BATCH_PACKETS {
                return total;
            }
        }
        total
    }

    fn report(&mut self, id: WatchId, now: Time, shared: &Shared) {
        let is_due = self.reported_at.is_none_or(|at| now.since(at) >= REPORT_EVERY);
        let is_news = self.is_news && self.reported_at.is_none_or(|at| now.since(at) >= NEWS_EVERY);
        if !is_due && !is_news {
            return;
        }
        (self.reported_at, self.is_news) = (Some(now), false);
        let Some(mut report) = self.guarded(now, |stream| stream.watch.report(now)) else { return };
        report.counts.restarts = self.restarts;
        let before = lock(&shared.reports).insert(id, Arc::new(report));
        // Freed outside of the lock, if nobody else has it.
        drop(before);
    }
}

/// As many as can be lent at once, and a gigabit per second of them.
const BATCH_PACKETS: usize = 1_024;
const BATCHES_MAX: usize = 4;
const REPORT_EVERY: Duration = Duration::from_millis(900);
const NEWS_EVERY: Duration = Duration::from_millis(100);
const SHARED_EVERY: Duration = Duration::from_secs(1);
/// After a watch failed, and after many in a row.
const RESTART_PAUSE: Duration = Duration::from_secs(1);
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::{LagPolicy, Meta, PoolLimits, Publisher};
    use crate::media::watch::{Defect, Reason};
    use crate::proto::mpegts::psi::{Pat, Pmt, packet_of};
    use crate::proto::mpegts::{Pid, TS_PACKET_BYTES, TsPacket};

    #[test]
    fn what_was_told_is_over_where_watching_begins_anew() {
        let publisher = Publisher::new(crate::bus::Pool::new(PoolLimits::default()), 16);
        let subscriber = publisher.subscribe().subscriber(LagPolicy::DropOldest);
        let told = Arc::new(std::sync::Mutex::new(Vec::new()));
        let events = Arc::clone(&told);
        let sink = Box::new(move |_, event| lock(&events).push(event));
        let mut stream = Stream::new(Time::ZERO, Settings::default(), subscriber, sink);
        let lasted = Duration::from_secs(2);
        stream.tell(Time::ZERO, Event::Began { defect: Defect::Black, lasted });
        stream.tell(Time::ZERO, Event::AudioMissing);
        lock(&told).clear();
        let now = Time::ZERO + Duration::from_secs(3);
        let failed = stream.guarded(now, |_| panic!("this is meant to be seen in the output of the test"));
        assert_eq!(failed, None::<()>);
        let ended = Event::Ended {
            defect: Defect::Black,
            lasted,
            between: (lasted, lasted),
            lost_sight: Some(Reason::Restarting),
        };
        assert_eq!(*lock(&told), [ended, Event::AudioBack { missed: Duration::from_secs(3) }]);
        stream.guarded(now, |_| panic!("this is meant to be seen in the output of the test"));
        assert_eq!(lock(&told).len(), 2, "once");
    }

    #[test]
    fn packets_that_come_again_are_told_of() {
        let pool = crate::bus::Pool::new(PoolLimits::default());
        let mut publisher = Publisher::new(pool.clone(), 16);
        let subscriber = publisher.subscribe().subscriber(LagPolicy::DropOldest);
        let stream = Stream::new(Time::ZERO, Settings::default(), subscriber, Box::new(|_, _| {}));
        stream.set_alarm();
        assert!(!stream.alarm.has_rung.load(Relaxed));
        publisher.publish(pool.copy(&[0; TS_PACKET_BYTES], Meta::default()).unwrap());
        publisher.flush(publisher.head());
        assert!(stream.alarm.has_rung.swap(false, Relaxed));
        publisher.publish(pool.copy(&[0; TS_PACKET_BYTES], Meta::default()).unwrap());
        publisher.flush(publisher.head());
        assert!(!stream.alarm.has_rung.load(Relaxed), "once");
    }

    #[test]
    fn what_was_missed_is_told_before_what_came_after_it() {
        let pool = crate::bus::Pool::new(PoolLimits::default());
        let mut publisher = Publisher::new(pool.clone(), 16);
        let subscriber = publisher.subscribe().subscriber(LagPolicy::DropOldest);
        let mut stream = Stream::new(Time::ZERO, Settings::default(), subscriber, Box::new(|_, _| {}));
        let mut publish = |packet: [u8; TS_PACKET_BYTES]| {
            publisher.publish(pool.copy(&packet, Meta::default()).unwrap());
            publisher.flush(publisher.head());
        };
        let (table, video) = (Pid::from_low_bits(0x100), Pid::from_low_bits(0x101));
        let pmt = Pmt { program: 1, version: 0, pcr_pid: video, streams: &[(0x1b, video)] };
        // So that it is known where packets begin.
        let nothing = TsPacket { pid: Pid::NULL, payload: Some(&[0; 184]), ..TsPacket::default() };
        let mut bytes = [0; TS_PACKET_BYTES];
        nothing.write(&mut bytes);
        (0..5).for_each(|_| publish(bytes));
        publish(packet_of(&Pat { stream_id: 1, version: 0, programs: &[(1, table)] }.section(), Pid::PAT));
        publish(packet_of(&pmt.section(), table));
        let packet = |is_start, counter: u8| {
            let mut payload = vec![0, 0, 1, 0xe0, 0, 0, 0x80, 0x80, 5, 0x21, 0, 1, 0, 1, 0, 0, 1, 0x09, 0xf0];
            payload.resize(184, 0xff);
            let packet =
                TsPacket { payload_unit_start: is_start, pid: video, payload: Some(&payload), ..TsPacket::default() };
            let mut bytes = [0; TS_PACKET_BYTES];
            packet.write(&mut bytes);
            bytes[3] = bytes[3] & 0xf0 | (counter % 16);
            bytes
        };
        publish(packet(true, 0));
        assert_eq!(stream.read(Time::ZERO), 8);
        // As many are overwritten as the counter has values, so it does not show.
        (1..=31).for_each(|counter| publish(packet(false, counter)));
        publish(packet(true, 0));
        assert_eq!(stream.read(Time::ZERO), 16);
        let counts = stream.watch.counts();
        assert_eq!((counts.packets_missed, counts.units, counts.units_damaged), (16, 0, 1));
    }
}
