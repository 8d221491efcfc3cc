//! What the bus costs beside `tokio::sync::broadcast` and a crossbeam channel per reader: same packets, same readers.
//!
//! The figures are nanoseconds per packet (`publish`) and per packet and reader (`deliver`, `threads`), so lines can be
//! compared and divided. Everybody carries the same refcounted packets of 1,316 bytes in batches of [`BATCH`] to
//! [`READERS`] readers, who take all of it before the next batch comes. What the bus spends on a flush, on looking at
//! its readers and on giving buffers back counts as publishing.
#![allow(clippy::unwrap_used, reason = "a bench that cannot go on may panic")]
#![allow(clippy::disallowed_methods, reason = "times parts of a round, which criterion's own clock cannot")]

use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anabranch::bus::{BorrowedPacket, LagPolicy, LocalCursor, Meta, Packet, Pool, PoolLimits, Publisher, Subscriber};
use criterion::{Criterion, criterion_group, criterion_main};
use crossbeam_channel as crossbeam;
use tokio::sync::broadcast;

criterion_group!(benches, publish, deliver, threads);
criterion_main!(benches);

fn publish(criterion: &mut Criterion) {
    parts(criterion, &format!("publish to {READERS}"), BATCH, |round| round.0);
}

fn deliver(criterion: &mut Criterion) {
    parts(criterion, &format!("deliver to {READERS}"), BATCH * READERS, |round| round.1);
}

/// Publisher on this thread, all readers on another: publishing, crossing to the other processor and reading together.
fn threads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group(format!("threads to {READERS}"));
    group.sample_size(20).measurement_time(Duration::from_secs(1));
    group.bench_function("bus", |bencher| bencher.iter_custom(across_threads::<Publisher>));
    group.bench_function("tokio broadcast", |bencher| bencher.iter_custom(across_threads::<broadcast::Sender<_>>));
    group.bench_function("crossbeam channels", |bencher| bencher.iter_custom(across_threads::<Channels>));
}

/// One part of the rounds of everybody, in nanoseconds per unit, of which a round has `units`.
fn parts(criterion: &mut Criterion, name: &str, units: usize, part: fn((Duration, Duration)) -> Duration) {
    let mut group = criterion.benchmark_group(name);
    // A round takes longer than the part that is timed, and criterion plans by the latter: little will be plenty.
    group.sample_size(20).warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_millis(200));
    let everybody: [(&str, Box<dyn Round>); 5] = [
        ("bus", Box::new(Remote::<Publisher>::new())),
        ("bus, counted packets", Box::new(Remote::<Counted>::new())),
        ("bus, local cursors", Box::new(Local::new())),
        ("tokio broadcast", Box::new(Remote::<broadcast::Sender<Packet>>::new())),
        ("crossbeam channels", Box::new(Remote::<Channels>::new())),
    ];
    for (name, mut one) in everybody {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|wanted| {
                let rounds = wanted.div_ceil(units as u64);
                let spent: Duration = (0..rounds).map(|_| part(one.round())).sum();
                scale(spent, wanted, rounds * units as u64)
            });
        });
    }
}

/// Only whole rounds are run; criterion wants the time of what it asked for.
fn scale(spent: Duration, wanted: u64, done: u64) -> Duration {
    Duration::from_nanos((spent.as_nanos() * u128::from(wanted) / u128::from(done)) as u64)
}

/// Something that brings one batch to all readers.
trait Round {
    /// How long publishing and reading took.
    fn round(&mut self) -> (Duration, Duration);
}

/// Readers that could be on other threads, read on this one.
struct Remote<B: Bus> {
    pool: Pool,
    bus: B,
    readers: Vec<B::Reader>,
}

impl<B: Bus> Remote<B> {
    fn new() -> Self {
        let pool = Pool::new(PoolLimits::default());
        let (bus, readers) = B::open(&pool);
        Self { pool, bus, readers }
    }
}

impl<B: Bus> Round for Remote<B> {
    fn round(&mut self) -> (Duration, Duration) {
        let batch = batch(&self.pool);
        let start = Instant::now();
        self.bus.publish(batch);
        let published = Instant::now();
        let read: usize = self.readers.iter_mut().map(B::read).sum();
        let delivered = Instant::now();
        assert_eq!(read, BATCH * READERS);
        (published - start, delivered - published)
    }
}

/// Readers on the publisher's own thread, as a flow's outputs are.
struct Local {
    pool: Pool,
    publisher: Publisher,
    cursors: Vec<LocalCursor>,
}

impl Local {
    fn new() -> Self {
        let pool = Pool::new(PoolLimits::default());
        let publisher = Publisher::new(pool.clone(), CAPACITY);
        let cursors = vec![LocalCursor::at_head(&publisher); READERS];
        Self { pool, publisher, cursors }
    }
}

impl Round for Local {
    fn round(&mut self) -> (Duration, Duration) {
        let batch = batch(&self.pool);
        let start = Instant::now();
        batch.into_iter().for_each(|packet| self.publisher.publish(packet));
        let published = Instant::now();
        let mut read = 0;
        for cursor in &mut self.cursors {
            while let Some(packet) = self.publisher.read(cursor) {
                black_box(packet.len());
                read += 1;
            }
        }
        let delivered = Instant::now();
        assert_eq!(read, BATCH * READERS);
        let oldest = self.cursors.iter().map(LocalCursor::next).min().unwrap();
        self.publisher.flush(oldest);
        (published - start + delivered.elapsed(), delivered - published)
    }
}

/// Publishes batches while another thread reads.
fn across_threads<B: Bus>(wanted: u64) -> Duration {
    let pool = Pool::new(PoolLimits::default());
    let (mut bus, mut readers) = B::open(&pool);
    let rounds = wanted.div_ceil((BATCH * READERS) as u64);
    let [published, delivered] = [const { AtomicU64::new(0) }; 2];
    let mut spent = Duration::ZERO;
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..=rounds {
                wait_for(&published, round);
                let mut read = 0;
                while read < BATCH * READERS {
                    read += readers.iter_mut().map(B::read).sum::<usize>();
                }
                delivered.store(round, Ordering::Release);
            }
        });
        for round in 1..=rounds {
            let batch = batch(&pool);
            let start = Instant::now();
            bus.publish(batch);
            published.store(round, Ordering::Release);
            wait_for(&delivered, round);
            spent += start.elapsed();
        }
    });
    scale(spent, wanted, rounds * (BATCH * READERS) as u64)
}

fn wait_for(counter: &AtomicU64, value: u64) {
    let mut spins = 0;
    while counter.load(Ordering::Acquire) < value {
        spins += 1;
        if spins % SPINS_MAX == 0 { thread::yield_now() } else { spin_loop() }
    }
}

/// Publisher and readers of one kind.
trait Bus: Sized {
    type Reader: Send;

    fn open(pool: &Pool) -> (Self, Vec<Self::Reader>);

    fn publish(&mut self, batch: Vec<Packet>);

    /// Takes everything that is there.
    fn read(reader: &mut Self::Reader) -> usize;
}

impl Bus for Publisher {
    type Reader = Subscriber;

    fn open(pool: &Pool) -> (Self, Vec<Subscriber>) {
        let publisher = Self::new(pool.clone(), CAPACITY);
        let subscribe = publisher.subscribe();
        let readers = (0..READERS).map(|_| subscribe.subscriber(LagPolicy::DropOldest)).collect();
        (publisher, readers)
    }

    fn publish(&mut self, batch: Vec<Packet>) {
        batch.into_iter().for_each(|packet| Self::publish(self, packet));
        self.flush(u64::MAX);
    }

    fn read(reader: &mut Subscriber) -> usize {
        let look = |packet: BorrowedPacket<'_>| black_box(packet.len()) / PACKET_BYTES;
        reader.lend(BATCH, |batch| batch.map(look).sum()).unwrap()
    }
}

/// The bus with readers that get packets to keep, as those of the others do.
struct Counted(Publisher);

impl Bus for Counted {
    type Reader = Subscriber;

    fn open(pool: &Pool) -> (Self, Vec<Subscriber>) {
        let (publisher, readers) = Publisher::open(pool);
        (Self(publisher), readers)
    }

    fn publish(&mut self, batch: Vec<Packet>) {
        Bus::publish(&mut self.0, batch);
    }

    fn read(reader: &mut Subscriber) -> usize {
        count(|| reader.try_recv().unwrap())
    }
}

impl Bus for broadcast::Sender<Packet> {
    type Reader = broadcast::Receiver<Packet>;

    fn open(_: &Pool) -> (Self, Vec<Self::Reader>) {
        let (sender, _) = broadcast::channel(CAPACITY);
        let readers = (0..READERS).map(|_| sender.subscribe()).collect();
        (sender, readers)
    }

    fn publish(&mut self, batch: Vec<Packet>) {
        for packet in batch {
            assert!(self.send(packet).is_ok());
        }
    }

    fn read(reader: &mut Self::Reader) -> usize {
        count(|| reader.try_recv().ok())
    }
}

/// A channel for each reader.
struct Channels(Vec<crossbeam::Sender<Packet>>);

impl Bus for Channels {
    type Reader = crossbeam::Receiver<Packet>;

    fn open(_: &Pool) -> (Self, Vec<Self::Reader>) {
        let (senders, readers) = (0..READERS).map(|_| crossbeam::bounded(CAPACITY)).unzip();
        (Self(senders), readers)
    }

    fn publish(&mut self, batch: Vec<Packet>) {
        for packet in batch {
            for sender in &self.0 {
                sender.try_send(packet.clone()).unwrap();
            }
        }
    }

    fn read(reader: &mut Self::Reader) -> usize {
        count(|| reader.try_recv().ok())
    }
}

fn count(mut next: impl FnMut() -> Option<Packet>) -> usize {
    let mut read = 0;
    while let Some(packet) = next() {
        black_box(packet.len());
        read += 1;
    }
    read
}

fn batch(pool: &Pool) -> Vec<Packet> {
    (0..BATCH).map(|_| pool.copy(&[0x47; PACKET_BYTES], Meta::default()).unwrap()).collect()
}

const READERS: usize = 50;
/// What one wake-up of a worker brings at some hundred Mb/s.
const BATCH: usize = 64;
/// The engine's own default; the others get the same.
const CAPACITY: usize = 1_024;
const PACKET_BYTES: usize = 1_316;
/// The machine may have but one processor to spare.
const SPINS_MAX: u32 = 1_000;
