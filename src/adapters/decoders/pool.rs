//! `Pool`: the threads, what each has to do, and which of them came to no end.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::system::{cpu_time, lower_priority, read_clock, thread_clock};
use crate::adapters::clock;
use crate::media::watch::{Examiners, Failure, Job, Outcome};
use crate::units::Time;

/// Where jobs are done.
pub(in crate::adapters) trait Bench: Send {
    /// Does a job; whatever happens, there is an outcome.
    fn run(&mut self, stream: u64, job: Job) -> Outcome;

    /// A stream is not watched any more.
    fn forget(&mut self, stream: u64);
}

/// Takes outcomes, from any thread.
pub(in crate::adapters) type Deliver = Arc<dyn Fn(u64, Outcome) + Send + Sync>;
type MakeBench = Box<dyn Fn() -> Box<dyn Bench> + Send>;

/// Threads that do jobs.
pub(in crate::adapters) struct Pool {
    slots: Vec<Slot>,
    make_bench: MakeBench,
    deliver: Deliver,
    /// Threads that came to no end and were left behind.
    given_up: u64,
}

struct Slot {
    tasks: SyncSender<Task>,
    progress: Arc<Progress>,
}

enum Task {
    Do(u64, Job),
    Forget(u64),
}

/// What a thread does, to be seen by others.
#[derive(Debug, Default)]
struct Progress {
    /// Stream and number of the jobs that it has, the first of them being done. At most [`TASKS_MAX`] and one.
    jobs: Mutex<Vec<(u64, u64)>>,
    /// When it began, and what its clock showed then, in nanoseconds; zero while it has nothing to do.
    since_ns: AtomicU64,
    cpu_ns: AtomicU64,
    clock: AtomicI32,
}

impl Pool {
    /// Of so many threads.
    ///
    /// # Errors
    /// A thread could not be started.
    pub(in crate::adapters) fn new(threads: usize, make_bench: MakeBench, deliver: Deliver) -> io::Result<Self> {
        let mut pool = Self { slots: Vec::new(), make_bench, deliver, given_up: 0 };
        for _ in 0..threads.max(1) {
            let slot = pool.start()?;
            pool.slots.push(slot);
        }
        Ok(pool)
    }

    /// Whether the stream's thread can take a job.
    pub(in crate::adapters) fn has_room(&self, stream: u64) -> bool {
        let slot = &self.slots[self.slot_of(stream)];
        lock(&slot.progress.jobs).len() <= TASKS_MAX
    }

    /// Has a job done. False if there is no room for it.
    pub(in crate::adapters) fn submit(&self, stream: u64, job: Job) -> bool {
        let slot = &self.slots[self.slot_of(stream)];
        let number = job.number;
        lock(&slot.progress.jobs).push((stream, number));
        match slot.tasks.try_send(Task::Do(stream, job)) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                lock(&slot.progress.jobs).retain(|job| *job != (stream, number));
                false
            }
        }
    }

    /// A stream is not watched any more. Where this is not taken the stream is forgotten when there are too many.
    pub(in crate::adapters) fn forget(&self, stream: u64) {
        let _ = self.slots[self.slot_of(stream)].tasks.try_send(Task::Forget(stream));
    }

    /// Leaves threads behind that come to no end, with others in their places. Threads cannot be ended; there are never more
    /// than [`GIVEN_UP_MAX`] of them, and then nothing is decoded there any more.
    pub(in crate::adapters) fn handle_timeout(&mut self, now: Time) {
        for index in 0..self.slots.len() {
            if !self.slots[index].progress.is_stuck(now) || self.given_up >= GIVEN_UP_MAX {
                continue;
            }
            let Ok(slot) = self.start() else { continue };
            self.given_up += 1;
            let old = std::mem::replace(&mut self.slots[index], slot);
            // Whatever it still brings is not expected any more.
            for (stream, number) in lock(&old.progress.jobs).drain(..) {
                let cpu = if number == 0 { Duration::ZERO } else { STUCK_CPU };
                (self.deliver)(stream, Outcome { number, result: Err(Failure::Crashed), cpu });
            }
        }
    }

    /// Threads that were left behind so far.
    pub(in crate::adapters) const fn given_up(&self) -> u64 {
        self.given_up
    }

    const fn slot_of(&self, stream: u64) -> usize {
        (stream % self.slots.len() as u64) as usize
    }

    fn start(&self) -> io::Result<Slot> {
        let (tasks, inbox) = sync_channel(WAITING_MAX);
        let progress = Arc::new(Progress::default());
        let (bench, deliver) = ((self.make_bench)(), Arc::clone(&self.deliver));
        let shared = Arc::clone(&progress);
        let thread = std::thread::Builder::new().name("anabranch-decode".into());
        thread.spawn(move || run(bench, &inbox, &shared, &*deliver))?;
        Ok(Slot { tasks, progress })
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("threads", &self.slots.len())
            .field("given_up", &self.given_up)
            .finish_non_exhaustive()
    }
}

impl Progress {
    fn begin(&self) {
        self.cpu_ns.store(nanos(cpu_time()), Relaxed);
        self.since_ns.store(clock::now().as_ns(), Relaxed);
    }

    fn end(&self) {
        self.since_ns.store(0, Relaxed);
    }

    /// Long enough by the clock on the wall is not enough: whoever runs only when nobody else does may have to wait for long.
    fn is_stuck(&self, now: Time) -> bool {
        let since = self.since_ns.load(Relaxed);
        if since == 0 {
            return false;
        }
        let passed = now.since(Time::from_ns(since));
        let cpu = match self.clock.load(Relaxed) {
            0 => None,
            clock => read_clock(clock),
        };
        let spent =
            cpu.map_or(Duration::ZERO, |cpu| cpu.saturating_sub(Duration::from_nanos(self.cpu_ns.load(Relaxed))));
        // One that waits for a process ends that first, and may have to wait before it starts another.
        is_stuck(passed, Some(spent)) && (passed >= STUCK_ANYWAY * 2 || spent >= STUCK_CPU)
    }
}

/// Whether a job that began so long ago, and has taken so much computing time, comes to no end.
pub(super) fn is_stuck(passed: Duration, spent: Option<Duration>) -> bool {
    (passed >= STUCK && spent.is_none_or(|spent| spent >= STUCK_CPU)) || passed >= STUCK_ANYWAY
}

fn run(
    mut bench: Box<dyn Bench>,
    inbox: &Receiver<Task>,
    progress: &Progress,
    deliver: &(dyn Fn(u64, Outcome) + Sync),
) {
    lower_priority(true);
    progress.clock.store(thread_clock().unwrap_or(0), Relaxed);
    while let Ok(task) = inbox.recv() {
        let (stream, job) = match task {
            Task::Do(stream, job) => (stream, job),
            Task::Forget(stream) => {
                bench.forget(stream);
                continue;
            }
        };
        let number = job.number;
        progress.begin();
        let outcome = bench.run(stream, job);
        progress.end();
        // Nobody waits for it if the thread was given up meanwhile.
        let is_expected = {
            let mut jobs = lock(&progress.jobs);
            let place = jobs.iter().position(|job| *job == (stream, number));
            place.map(|place| jobs.swap_remove(place)).is_some()
        };
        if !is_expected {
            return;
        }
        deliver(stream, outcome);
    }
}

/// Does jobs right there.
#[derive(Debug, Default)]
pub(in crate::adapters) struct InProcess {
    examiners: Examiners,
}

impl Bench for InProcess {
    fn run(&mut self, stream: u64, job: Job) -> Outcome {
        let before = cpu_time();
        // What panicked within is thrown away, so nothing half done is seen.
        let result = catch_unwind(AssertUnwindSafe(|| self.examiners.examine(stream, &job)));
        Outcome {
            number: job.number,
            result: result.unwrap_or(Err(Failure::Crashed)),
            cpu: cpu_time().saturating_sub(before),
        }
    }

    fn forget(&mut self, stream: u64) {
        self.examiners.forget(stream);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// Jobs that wait for a thread beside the one that it does: it need not wait for the next, and none waits for long.
const TASKS_MAX: usize = 2;
/// Room on the way to a thread: it may not have fetched the next job when it counts as done with the last, and streams
/// to be forgotten go the same way.
const WAITING_MAX: usize = 4 * TASKS_MAX;
/// The largest pictures take half a second.
const STUCK: Duration = Duration::from_secs(10);
const STUCK_CPU: Duration = Duration::from_secs(5);
const STUCK_ANYWAY: Duration = Duration::from_secs(60);
/// Each of them takes what it can get of a processor for ever.
const GIVEN_UP_MAX: u64 = 4;

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;
    use crate::media::watch::Work;

    #[test]
    fn panics_are_caught_and_the_next_job_is_done() {
        let (sender, outcomes) = sync_channel(16);
        let deliver: Deliver = Arc::new(move |stream, outcome| sender.send((stream, outcome)).unwrap());
        let pool = Pool::new(1, Box::new(|| Box::new(Moody)), deliver).unwrap();
        for number in [13, 14] {
            assert!(pool.submit(5, job(number)));
            let (stream, outcome) = outcomes.recv_timeout(Duration::from_secs(30)).unwrap();
            let expected = if number == 13 { Failure::Crashed } else { Failure::Damaged };
            assert_eq!((stream, outcome.number, outcome.result), (5, number, Err(expected)));
        }
    }

    #[test]
    fn a_thread_without_end_is_replaced() {
        let (sender, outcomes) = sync_channel(16);
        let deliver: Deliver = Arc::new(move |_, outcome| sender.send(outcome).unwrap());
        let mut pool = Pool::new(1, Box::new(|| Box::new(Moody)), deliver).unwrap();
        assert!(pool.submit(5, job(99)) && pool.submit(6, job(3)));
        // Only once it has begun can it be seen to take long.
        let begun = |pool: &Pool| pool.slots[0].progress.since_ns.load(Relaxed) > 0;
        for _ in 0..3_000 {
            if begun(&pool) {
                break;
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        pool.handle_timeout(clock::now());
        assert_eq!(pool.given_up(), 0);
        pool.handle_timeout(clock::now() + STUCK_ANYWAY * 2);
        assert_eq!(pool.given_up(), 1);
        let both = [(); 2].map(|()| outcomes.recv_timeout(Duration::from_secs(30)).unwrap());
        assert!(both.iter().all(|outcome| outcome.result == Err(Failure::Crashed)));
        assert!(pool.submit(5, job(7)));
        assert_eq!(outcomes.recv_timeout(Duration::from_secs(30)).unwrap().number, 7);
    }

    #[test]
    fn waiting_alone_does_not_make_a_job_stuck() {
        let seconds = Duration::from_secs;
        assert!(!is_stuck(seconds(9), Some(seconds(9))));
        assert!(is_stuck(seconds(10), Some(seconds(5))));
        assert!(!is_stuck(seconds(30), Some(seconds(1))));
        assert!(is_stuck(seconds(60), Some(seconds(1))));
    }

    /// Panics at 13, never ends at 99.
    struct Moody;

    impl Bench for Moody {
        fn run(&mut self, _stream: u64, job: Job) -> Outcome {
            let number = job.number;
            let result = catch_unwind(|| {
                assert!(number != 13, "this is meant to be seen in the output of the test");
                if number == 99 {
                    loop {
                        std::thread::park();
                    }
                }
                Err(Failure::Damaged)
            });
            Outcome { number, result: result.unwrap_or(Err(Failure::Crashed)), cpu: Duration::ZERO }
        }

        fn forget(&mut self, _stream: u64) {}
    }

    fn job(number: u64) -> Job {
        Job { number, work: Work::Sound { anew: false }, units: Vec::new() }
    }
}
