//! `Pool`: the threads, what each has to do, and which of them came to no end.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::suspects::Suspects;
use super::system::{cpu_time, lower_priority, read_clock, thread_clock};
use crate::adapters::clock;
use crate::media::watch::governor::{COST_NS_MAX, Kind};
use crate::media::watch::{Examiners, Failure, Job, Outcome, Work};
use crate::units::Time;

/// Where jobs are done.
pub(in crate::adapters) trait Bench: Send {
    /// Does a job; whatever happens, there is an outcome.
    fn run(&mut self, stream: u64, job: Job) -> Outcome;

    /// A stream is not watched any more.
    fn forget(&mut self, stream: u64);
}

/// Takes the outcomes of streams' jobs, with what each was about, from any thread.
pub(in crate::adapters) type Deliver = Arc<dyn Fn(u64, Option<Kind>, Outcome) + Send + Sync>;
type MakeBench = Box<dyn Fn() -> Box<dyn Bench> + Send>;

/// Threads that do jobs: those for pictures, one for sound, which no picture is to keep waiting or to bring down, and one for
/// proofs, which take seconds. Streams that had a crash of late share the last one.
pub(in crate::adapters) struct Pool {
    /// The last two of them are for sound, and for proofs and suspects.
    slots: Vec<Slot>,
    suspects: Arc<Mutex<Suspects>>,
    make_bench: MakeBench,
    deliver: Deliver,
    /// Threads that came to no end and were left behind so far, and those of them that still have not ended.
    given_up: u64,
    lost: Vec<Arc<Progress>>,
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
    /// The jobs that it has, the first of them being done. At most [`TASKS_MAX`] and one.
    jobs: Mutex<Vec<Ticket>>,
    /// When it began, and what its clock showed then, in nanoseconds; zero while it has nothing to do.
    since_ns: AtomicU64,
    cpu_ns: AtomicU64,
    clock: AtomicI32,
    /// What the job may take of that.
    cpu_max_ns: AtomicU64,
    has_ended: AtomicBool,
}

/// A job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ticket {
    stream: u64,
    number: u64,
    /// `None` for a proof.
    kind: Option<Kind>,
}

impl Ticket {
    const fn new(stream: u64, job: &Job) -> Self {
        Self { stream, number: job.number, kind: job.work.kind() }
    }
}

impl Pool {
    /// Of so many threads for pictures, beside the others.
    ///
    /// # Errors
    /// A thread could not be started.
    pub(in crate::adapters) fn new(threads: usize, make_bench: MakeBench, deliver: Deliver) -> io::Result<Self> {
        let (suspects, lost) = (Arc::default(), Vec::new());
        let mut pool = Self { slots: Vec::new(), suspects, make_bench, deliver, given_up: 0, lost };
        for _ in 0..threads.max(1) + NOT_FOR_PICTURES {
            let slot = pool.start()?;
            pool.slots.push(slot);
        }
        Ok(pool)
    }

    /// Whether the thread for a stream's pictures or sound can take a job.
    pub(in crate::adapters) fn has_room(&self, now: Time, stream: u64, kind: Kind) -> bool {
        let slot = &self.slots[self.slot_of(now, stream, Some(kind))];
        lock(&slot.progress.jobs).len() <= TASKS_MAX
    }

    /// Whether a proof can be done now.
    pub(in crate::adapters) fn has_room_for_proof(&self) -> bool {
        self.slots.last().is_some_and(|slot| lock(&slot.progress.jobs).is_empty())
    }

    /// Has a job done. False if there is no room for it.
    pub(in crate::adapters) fn submit(&self, now: Time, stream: u64, job: Job) -> bool {
        let ticket = Ticket::new(stream, &job);
        let slot = &self.slots[self.slot_of(now, stream, ticket.kind)];
        lock(&slot.progress.jobs).push(ticket);
        match slot.tasks.try_send(Task::Do(stream, job)) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                lock(&slot.progress.jobs).retain(|job| *job != ticket);
                false
            }
        }
    }

    /// A stream is not watched any more. Where this is not taken the stream is forgotten when there are too many.
    pub(in crate::adapters) fn forget(&self, stream: u64) {
        lock(&self.suspects).forget(stream);
        for slot in &self.slots {
            let _ = slot.tasks.try_send(Task::Forget(stream));
        }
    }

    /// Leaves threads behind that come to no end, with others in their places. Threads cannot be ended; there are never more
    /// than [`LOST_MAX`] of them at a time, and then nothing is decoded there until one of them ends after all.
    pub(in crate::adapters) fn handle_timeout(&mut self, now: Time) {
        self.lost.retain(|progress| !progress.has_ended.load(Relaxed));
        for index in 0..self.slots.len() {
            if !self.slots[index].progress.is_stuck(now) || self.lost.len() >= LOST_MAX {
                continue;
            }
            let Ok(slot) = self.start() else { continue };
            self.given_up += 1;
            let old = std::mem::replace(&mut self.slots[index], slot);
            // Whatever it still brings is not expected any more. The first is what it is at.
            let mut cpu = Duration::from_nanos(old.progress.cpu_max_ns.load(Relaxed));
            for Ticket { stream, number, kind } in lock(&old.progress.jobs).drain(..) {
                let cpu = std::mem::take(&mut cpu);
                if let Some(kind) = kind.filter(|_| !cpu.is_zero()) {
                    lock(&self.suspects).handle_crash(now, stream, kind);
                }
                (self.deliver)(stream, kind, Outcome { number, result: Err(Failure::Crashed), cpu });
            }
            self.lost.push(old.progress);
        }
    }

    /// Threads that were left behind so far.
    pub(in crate::adapters) const fn given_up(&self) -> u64 {
        self.given_up
    }

    fn slot_of(&self, now: Time, stream: u64, kind: Option<Kind>) -> usize {
        let for_pictures = self.slots.len() - NOT_FOR_PICTURES;
        match kind.filter(|kind| !lock(&self.suspects).has(now, stream, *kind)) {
            Some(Kind::Picture) => (stream % for_pictures as u64) as usize,
            Some(Kind::Sound) => for_pictures,
            None => for_pictures + 1,
        }
    }

    fn start(&self) -> io::Result<Slot> {
        let (tasks, inbox) = sync_channel(WAITING_MAX);
        let progress = Arc::new(Progress::default());
        let (bench, deliver) = ((self.make_bench)(), Arc::clone(&self.deliver));
        let (shared, suspects) = (Arc::clone(&progress), Arc::clone(&self.suspects));
        let thread = std::thread::Builder::new().name("anabranch-decode".into());
        thread.spawn(move || run(bench, &inbox, &shared, &suspects, &*deliver))?;
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
    fn begin(&self, job: &Job) {
        self.cpu_max_ns.store(nanos(cpu_max(job)), Relaxed);
        self.cpu_ns.store(nanos(cpu_time()), Relaxed);
        self.since_ns.store(clock::now().as_ns(), Relaxed);
    }

    fn end(&self) {
        self.since_ns.store(0, Relaxed);
    }

    /// Whether it comes to no end.
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
        let spent = cpu.map(|cpu| cpu.saturating_sub(Duration::from_nanos(self.cpu_ns.load(Relaxed))));
        let cpu_max = Duration::from_nanos(self.cpu_max_ns.load(Relaxed));
        // One that waits for a process ends that first, and may have to wait before it starts another.
        is_stuck(passed / 2, spent, cpu_max)
    }
}

/// Whether a job that began so long ago, and has taken so much computing time of what it may, comes to no end. Who runs only
/// when nobody else does may have to wait for very long: that is not its fault.
pub(super) fn is_stuck(passed: Duration, spent: Option<Duration>, cpu_max: Duration) -> bool {
    spent.map_or(passed >= cpu_max * UNKNOWN_SHARE, |spent| spent >= cpu_max) || passed >= STUCK_ANYWAY
}

/// A process that waits for something other than its turn, while it is waited for.
#[cfg(any(target_os = "linux", test))]
#[derive(Debug, Default)]
pub(super) struct Idle {
    spent: Option<Duration>,
    since: Option<Time>,
}

#[cfg(any(target_os = "linux", test))]
impl Idle {
    /// Whether it has done nothing for [`IDLE_MAX`] though it could have run. `is_runnable` if it only waits for its turn.
    pub(super) fn handle_look(&mut self, now: Time, spent: Option<Duration>, is_runnable: bool) -> bool {
        let has_run = spent.is_none() || self.spent != spent;
        self.spent = spent;
        if has_run || is_runnable {
            self.since = None;
            return false;
        }
        now.since(*self.since.get_or_insert(now)) >= IDLE_MAX
    }
}

/// Computing time that a job may take.
pub(super) fn cpu_max(job: &Job) -> Duration {
    match job.work {
        Work::Sound { .. } => SOUND_CPU_MAX,
        Work::Picture { .. } => {
            let units = u32::try_from(job.units.len()).unwrap_or(u32::MAX);
            BUILT_UP_CPU.saturating_add(UNIT_CPU.saturating_mul(units)).clamp(PICTURE_CPU_MAX, BUILT_UP_CPU_MAX)
        }
        Work::Proof { .. } => PROOF_CPU_MAX,
    }
}

fn run(
    mut bench: Box<dyn Bench>,
    inbox: &Receiver<Task>,
    progress: &Progress,
    suspects: &Mutex<Suspects>,
    deliver: &(dyn Fn(u64, Option<Kind>, Outcome) + Sync),
) {
    let _ended = Ended(progress);
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
        let ticket = Ticket::new(stream, &job);
        progress.begin(&job);
        let outcome = bench.run(stream, job);
        progress.end();
        if let (Err(Failure::Crashed), Some(kind)) = (&outcome.result, ticket.kind) {
            lock(suspects).handle_crash(clock::now(), stream, kind);
        }
        // Nobody waits for it if the thread was given up meanwhile.
        let is_expected = {
            let mut jobs = lock(&progress.jobs);
            let place = jobs.iter().position(|job| *job == ticket);
            place.map(|place| jobs.remove(place)).is_some()
        };
        if !is_expected {
            return;
        }
        deliver(stream, ticket.kind, outcome);
    }
}

/// Tells that the thread ends, whyever.
struct Ended<'a>(&'a Progress);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.has_ended.store(true, Relaxed);
    }
}

/// Does jobs right there.
#[derive(Debug)]
pub(in crate::adapters) struct InProcess {
    examiners: Examiners,
}

impl InProcess {
    /// With what decides which codecs may be decoded there.
    pub(in crate::adapters) const fn new(examiners: Examiners) -> Self {
        Self { examiners }
    }
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
/// Threads for sound, and for proofs and suspects.
const NOT_FOR_PICTURES: usize = 2;
/// Two seconds of sound in 128 units take some ten milliseconds.
const SOUND_CPU_MAX: Duration = Duration::from_secs(1);
/// The largest pictures take half a second.
const PICTURE_CPU_MAX: Duration = Duration::from_secs(2);
/// One that builds up over 250 takes a few: those of 1080 lines 10 to 35 ms each.
const BUILT_UP_CPU: Duration = Duration::from_secs(1);
const UNIT_CPU: Duration = Duration::from_millis(40);
const BUILT_UP_CPU_MAX: Duration = Duration::from_nanos(COST_NS_MAX);
/// The largest take 9 s.
const PROOF_CPU_MAX: Duration = Duration::from_secs(30);
/// Where nobody knows what it took: a twelfth of the time that passed.
const UNKNOWN_SHARE: u32 = 12;
/// Not even what runs only when nobody else does waits for so long. What waits for something else is ended before that.
const STUCK_ANYWAY: Duration = Duration::from_secs(600);
/// Longer than a disk keeps anybody waiting.
#[cfg(any(target_os = "linux", test))]
const IDLE_MAX: Duration = Duration::from_secs(30);
/// Each of them takes what it can get of a processor.
const LOST_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::super::Apart;
    use super::*;
    use crate::proto::mpegts::Pid;
    use crate::proto::mpegts::demux::{AccessUnit, Codec};

    #[test]
    fn panics_are_caught_and_the_next_job_is_done() {
        let (sender, outcomes) = sync_channel(16);
        let deliver: Deliver = Arc::new(move |stream, _, outcome| sender.send((stream, outcome)).unwrap());
        let pool = Pool::new(1, Box::new(|| Box::new(Moody)), deliver).unwrap();
        for number in [13, 14] {
            assert!(pool.submit(clock::now(), 5, job(number)));
            let (stream, outcome) = outcomes.recv_timeout(Duration::from_secs(30)).unwrap();
            let expected = if number == 13 { Failure::Crashed } else { Failure::Damaged };
            assert_eq!((stream, outcome.number, outcome.result), (5, number, Err(expected)));
        }
    }

    #[test]
    fn a_stream_whose_decoder_cannot_be_started_is_no_suspect() {
        let (sender, outcomes) = sync_channel(16);
        let deliver: Deliver = Arc::new(move |_, _, outcome| sender.send(outcome).unwrap());
        let missing = tempfile::tempdir().unwrap().path().join("missing");
        let pool = Pool::new(1, Box::new(move || Box::new(Apart::new(missing.clone()))), deliver).unwrap();
        for (kind, work) in [(Kind::Picture, PICTURE), (Kind::Sound, SOUND)] {
            let place = pool.slot_of(clock::now(), 5, Some(kind));
            assert!(pool.submit(clock::now(), 5, Job { work, ..job(1) }));
            assert_eq!(outcomes.recv_timeout(Duration::from_secs(30)).unwrap().result, Err(Failure::NotStarted));
            assert_eq!(pool.slot_of(clock::now(), 5, Some(kind)), place);
        }
    }

    #[test]
    fn a_thread_without_end_is_replaced() {
        let (sender, outcomes) = sync_channel(16);
        let deliver: Deliver = Arc::new(move |_, _, outcome| sender.send(outcome).unwrap());
        let mut pool = Pool::new(1, Box::new(|| Box::new(Moody)), deliver).unwrap();
        let now = clock::now();
        assert!(pool.submit(now, 5, job(99)) && pool.submit(now, 6, job(3)));
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
        assert_eq!((pool.given_up(), pool.lost.len()), (1, 1));
        let both = [(); 2].map(|()| outcomes.recv_timeout(Duration::from_secs(30)).unwrap());
        assert!(both.iter().all(|outcome| outcome.result == Err(Failure::Crashed)));
        for (stream, number) in [(5, 7), (6, 8)] {
            assert!(pool.submit(now, stream, job(number)));
            assert_eq!(outcomes.recv_timeout(Duration::from_secs(30)).unwrap().number, number);
        }
        // Who only waited is not to blame.
        assert_eq!([5, 6].map(|stream| pool.slot_of(now, stream, Some(Kind::Picture))), [2, 0]);
        // It ends after all, and there is room for others.
        ENDS.store(true, Relaxed);
        for _ in 0..3_000 {
            pool.handle_timeout(clock::now());
            if pool.lost.is_empty() {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        panic!("it has ended");
    }

    #[test]
    fn a_proof_keeps_nobody_waiting() {
        let (sender, outcomes) = sync_channel(16);
        let deliver: Deliver = Arc::new(move |_, _, outcome| sender.send(outcome).unwrap());
        let pool = Pool::new(1, Box::new(|| Box::new(Moody)), deliver).unwrap();
        assert!(pool.has_room_for_proof());
        let now = clock::now();
        assert!(pool.submit(now, 5, Job { work: PROOF, ..job(98) }));
        assert!(!pool.has_room_for_proof() && pool.has_room(now, 5, Kind::Picture));
        for number in 1..=12 {
            assert!(pool.submit(clock::now(), 5, job(number)));
            assert_eq!(outcomes.recv_timeout(Duration::from_secs(30)).unwrap().number, number);
        }
        assert!(!pool.has_room_for_proof());
    }

    #[test]
    fn a_stream_that_hangs_by_turns_keeps_nobody_else_waiting() {
        let (release, released) = sync_channel(0);
        let released = Arc::new(Mutex::new(released));
        let (sender, outcomes) = sync_channel(16);
        let deliver: Deliver = Arc::new(move |_, _, outcome| sender.send(outcome).unwrap());
        let pool = Pool::new(1, Box::new(move || Box::new(Hanging(Arc::clone(&released)))), deliver).unwrap();
        let submit = |stream, work, number| assert!(pool.submit(clock::now(), stream, Job { work, ..job(number) }));
        let outcome = || outcomes.recv_timeout(Duration::from_secs(30)).unwrap();
        for round in 0..4 {
            submit(1, PICTURE, 1);
            assert_eq!(outcome().result, Err(Failure::Damaged));
            submit(1, PICTURE, HANGS);
            for number in 2..10 {
                assert!(pool.has_room(clock::now(), 2, Kind::Sound));
                submit(2, SOUND, number);
                assert_eq!(outcome().number, number, "its sound is not kept waiting");
                // The first time nobody knows.
                if round > 0 {
                    submit(2, PICTURE, number);
                    assert_eq!(outcome().number, number);
                }
            }
            release.send(()).unwrap();
            assert_eq!(outcome().result, Err(Failure::Crashed));
            submit(2, PICTURE, 10);
            assert_eq!(outcome().number, 10);
        }
        pool.forget(1);
        assert_eq!(pool.slot_of(clock::now(), 1, Some(Kind::Picture)), 0);
    }

    #[test]
    fn waiting_alone_does_not_make_a_job_stuck() {
        let seconds = Duration::from_secs;
        let unit = AccessUnit { pid: Pid::default(), codec: Codec::H264, pts: None, dts: None, bytes: Vec::new() };
        let unit = Arc::new(unit);
        let stuck = |passed, spent, (work, units)| {
            let units = vec![Arc::clone(&unit); units];
            is_stuck(seconds(passed), spent, cpu_max(&Job { number: 1, work, units }))
        };
        for (job, max) in [((PICTURE, 2), 2), ((PICTURE, 100), 5), ((PICTURE, 2_048), 10), ((SOUND, 128), 1)] {
            let below = Some(seconds(max) - Duration::from_millis(1));
            assert!(!stuck(599, below, job) && stuck(600, below, job) && stuck(max, Some(seconds(max)), job));
            assert!(!stuck(max * 12 - 1, None, job) && stuck(max * 12, None, job));
        }
        let proof = (PROOF, 250);
        assert!(!stuck(11, Some(seconds(9)), proof), "the largest proof that is allowed");
        assert!(stuck(31, Some(seconds(30)), proof) && stuck(600, Some(seconds(1)), proof));
    }

    #[test]
    fn who_waits_for_its_turn_is_not_idle_and_who_sleeps_is() {
        let at = |seconds| Time::ZERO + Duration::from_secs(seconds);
        let ms = |ms| Some(Duration::from_millis(ms));
        let mut idle = Idle::default();
        // It runs now and then, or waits for its turn, or nobody knows.
        for second in 0..100 {
            assert!(!idle.handle_look(at(second), ms(second / 20), false));
        }
        assert!((100..200).all(|second| !idle.handle_look(at(second), ms(5), true)));
        assert!((200..300).all(|second| !idle.handle_look(at(second), None, false)));
        assert!((300..331).all(|second| !idle.handle_look(at(second), ms(5), false)));
        assert!(idle.handle_look(at(331), ms(5), false));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_process_that_is_stopped_is_not_runnable() {
        use super::super::system::is_runnable;
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let sleeps = (0..3_000).any(|_| {
            std::thread::park_timeout(Duration::from_millis(10));
            !is_runnable(child.id())
        });
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(sleeps && is_runnable(child.id()), "nothing is known of one that is gone");
    }

    const PICTURE: Work = Work::Picture { thumbnail: true, quality: true, anew: true };
    const SOUND: Work = Work::Sound { before: None };
    const PROOF: Work = Work::Proof { black: false, frozen: false };
    static ENDS: AtomicBool = AtomicBool::new(false);

    /// Panics at 13, never ends at 98, and at 99 only when it is told to.
    struct Moody;

    impl Bench for Moody {
        fn run(&mut self, _stream: u64, job: Job) -> Outcome {
            let number = job.number;
            let result = catch_unwind(|| {
                assert!(number != 13, "this is meant to be seen in the output of the test");
                while number == 98 || number == 99 && !ENDS.load(Relaxed) {
                    std::thread::park_timeout(Duration::from_millis(10));
                }
                Err(Failure::Damaged)
            });
            Outcome { number, result: result.unwrap_or(Err(Failure::Crashed)), cpu: Duration::ZERO }
        }

        fn forget(&mut self, _stream: u64) {}
    }

    /// Hangs at [`HANGS`] until something is sent, and is killed then.
    struct Hanging(Arc<Mutex<Receiver<()>>>);

    impl Bench for Hanging {
        fn run(&mut self, _stream: u64, job: Job) -> Outcome {
            let number = job.number;
            let failure = if number == HANGS {
                lock(&self.0).recv().unwrap();
                Failure::Crashed
            } else {
                Failure::Damaged
            };
            Outcome { number, result: Err(failure), cpu: Duration::ZERO }
        }

        fn forget(&mut self, _stream: u64) {}
    }

    const HANGS: u64 = 98;

    fn job(number: u64) -> Job {
        Job { number, work: PICTURE, units: Vec::new() }
    }
}
