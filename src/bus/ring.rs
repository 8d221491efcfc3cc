//! Single-writer, many-reader ring: the only shared memory of a flow.
//!
//! A slot is a stamp and five words, all atomic. The publisher marks the stamp odd, writes the words, and stores the even
//! stamp of the packet's index. A reader on another thread reads stamp, words, counts the buffer up and reads the stamp
//! again: only if it is unchanged was the counted buffer the one that the slot meant. Counting up on a buffer that was
//! recycled meanwhile is harmless because headers are type-stable (see `pool`), and the reader gives it back at once.
//! Neither side ever waits for the other.
//!
//! A reader that only wants to look at packets need not count each: it announces a range of indices (a hazard), after
//! which the publisher puts what it must overwrite there aside instead of dropping it, until the reader is done.
//!
//! The publisher drops packets behind the slowest reader whenever it flushes, so a ring whose readers keep up holds few
//! buffers; a reader that stalls can hold back at most the ring's capacity and the batch that it was lent.

use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::ptr::{self, NonNull};

use super::packet::{Meta, Packet};
use super::pool::{Header, Pool, header_of};
use super::skip::{Skip, SkipStats};
use super::subscriber::{LagPolicy, Reader, Subscribe};
use super::sync::{Arc, AtomicBool, AtomicPtr, AtomicU64, Mutex, Ordering, fence};
use crate::units::Time;

/// The writing end. Dropping it ends the ring: readers get what is left and then [`super::Ended::Closed`].
#[derive(Debug)]
pub struct Publisher {
    shared: Arc<Shared>,
    /// Index of the next packet.
    head: u64,
    /// Oldest index still in the ring.
    tail: u64,
    /// Readers on other threads.
    readers: Vec<Arc<Reader>>,
    /// Overwritten packets, with their indices, that a reader may still be looking at.
    lent: Vec<(u64, Packet)>,
}

impl Publisher {
    /// A ring of `capacity` packets, rounded up to a power of two, for packets of `pool`.
    #[must_use]
    pub fn new(pool: Pool, capacity: usize) -> Self {
        let slots = capacity.next_power_of_two();
        let shared = Shared {
            slots: (0..slots).map(|_| Slot::default()).collect(),
            head: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            has_newcomers: AtomicBool::new(false),
            newcomers: Mutex::new(Vec::new()),
            left_lent: Mutex::new(Vec::new()),
            key_frame_readers: AtomicU64::new(0),
            pool,
        };
        Self { shared: Arc::new(shared), head: 0, tail: 0, readers: Vec::new(), lent: Vec::new() }
    }

    /// Puts a packet into the ring, over the oldest one if it is full. Readers on other threads see it after
    /// [`Publisher::flush`].
    ///
    /// # Panics
    /// If the packet is not of the ring's pool.
    pub fn publish(&mut self, packet: Packet) {
        assert!(self.shared.pool.owns(&packet), "packet of another pool");
        if self.head - self.tail == self.shared.capacity() {
            self.overwrite_until(self.tail + (self.shared.capacity() / OVERWRITTEN_SHARE).max(1));
        }
        let slot = self.shared.slot(self.head);
        slot.stamp.store(stamp(self.head) | 1, Ordering::Relaxed);
        fence(Ordering::Release);
        slot.write(packet);
        slot.stamp.store(stamp(self.head), Ordering::Release);
        self.head += 1;
    }

    /// Shows readers on other threads what was published, wakes those who wait, and drops what everyone has read.
    /// `oldest_local` is the lowest index that a [`LocalCursor`] still wants; [`Publisher::head`] if there is none.
    pub fn flush(&mut self, oldest_local: u64) {
        self.shared.head.store(self.head, Ordering::Release);
        // Pairs with the fences of readers that subscribe or go to sleep: either they see the new head, or we see them.
        fence(Ordering::SeqCst);
        let mut oldest = oldest_local.min(self.head);
        if self.knows_all_readers() {
            let readers = &self.readers;
            self.lent.retain(|(index, _)| readers.iter().any(|reader| reader.was_lent(*index)));
        } else {
            // Somebody is just subscribing, and may want anything from here on: drop nothing this time.
            oldest = 0;
        }
        self.readers.retain(|reader| !reader.is_gone());
        for reader in &self.readers {
            oldest = oldest.min(reader.cursor());
            reader.wake_if_waiting();
        }
        while self.tail < oldest {
            let slot = self.shared.slot(self.tail);
            slot.stamp.store(stamp(self.tail) | 1, Ordering::Relaxed);
            fence(Ordering::Release);
            drop(slot.packet());
            self.tail += 1;
        }
    }

    /// Gives up the older half of what the ring can hold, so that its buffers can be used anew. Readers that have not
    /// come that far count it as missed.
    pub fn shed(&mut self) {
        self.overwrite_until(self.head.saturating_sub(self.shared.capacity() / 2));
    }

    /// Index that the next packet will have.
    #[must_use]
    pub const fn head(&self) -> u64 {
        self.head
    }

    /// Packets the ring can hold.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.shared.slots.len()
    }

    /// A handle with which any thread can subscribe.
    #[must_use]
    pub fn subscribe(&self) -> Subscribe {
        Subscribe::new(Arc::clone(&self.shared))
    }

    /// Whether a reader on another thread needs packets to be marked in which key frames begin: [`Meta::random_access`].
    #[must_use]
    pub fn needs_key_frames(&self) -> bool {
        self.shared.key_frame_readers.load(Ordering::Relaxed) > 0
    }

    /// The next packet that `cursor` has not seen, without counting it up. `None` when it has seen all. What the ring
    /// has already overwritten is added to the cursor's missed count, and what its policy leaves out to that of skipped ones.
    #[inline]
    pub fn read<'ring>(&'ring self, cursor: &mut LocalCursor) -> Option<BorrowedPacket<'ring>> {
        cursor.catch_up(self);
        // Beyond the head is a cursor of another ring: that has nothing to read here.
        while cursor.next < self.head {
            let packet = ManuallyDrop::new(self.shared.slot(cursor.next).packet());
            cursor.next += 1;
            if cursor.skip.passes(&packet.meta) {
                return Some(BorrowedPacket { packet, ring: PhantomData });
            }
        }
        None
    }

    /// The next packet that `ahead` has read since `behind` was cloned from it. Nothing may have been published meanwhile, and
    /// `ahead` told at most once to go on at a key frame.
    pub fn read_again<'ring>(
        &'ring self,
        behind: &mut LocalCursor,
        ahead: &LocalCursor,
    ) -> Option<BorrowedPacket<'ring>> {
        if ahead.resumed_at == Some(behind.next) {
            behind.resume_at_key_frame();
        }
        if behind.next < ahead.next { self.read(behind) } else { None }
    }

    /// Takes packets before `end` from readers that may not have read them yet.
    fn overwrite_until(&mut self, end: u64) {
        let doomed = self.tail..end;
        for index in doomed.clone() {
            self.shared.slot(index).stamp.store(stamp(index) | 1, Ordering::Relaxed);
        }
        // Pairs with the fence of a reader that was lent packets: either it finds them stamped, or we see its range.
        fence(Ordering::SeqCst);
        let knows_all = self.knows_all_readers();
        for index in doomed {
            let packet = self.shared.slot(index).packet();
            if !knows_all || self.readers.iter().any(|reader| reader.was_lent(index)) {
                self.lent.push((index, packet));
            }
        }
        self.tail = self.tail.max(end);
    }

    /// False if somebody is just adding himself; never waits. After a `SeqCst` fence.
    fn knows_all_readers(&mut self) -> bool {
        if !self.shared.has_newcomers.load(Ordering::Relaxed) {
            return true;
        }
        let Ok(mut newcomers) = self.shared.newcomers.try_lock() else {
            return false;
        };
        self.readers.append(&mut newcomers);
        self.shared.has_newcomers.store(false, Ordering::Relaxed);
        true
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.shared.head.store(self.head, Ordering::Release);
        self.shared.closed.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
        let newcomers = self.shared.newcomers.lock().map(|mut list| std::mem::take(&mut *list)).unwrap_or_default();
        self.readers.extend(newcomers);
        if let Ok(mut left_lent) = self.shared.left_lent.lock() {
            left_lent.append(&mut self.lent);
        }
        for reader in &self.readers {
            reader.wake();
        }
    }
}

/// Position of a reader on the publisher's own thread.
#[derive(Clone, Debug)]
pub struct LocalCursor {
    next: u64,
    missed: u64,
    /// Whether it goes on at key frames.
    at_key_frames: bool,
    /// Where it was told last to go on at a key frame.
    resumed_at: Option<u64>,
    skip: Skip,
}

impl LocalCursor {
    /// Starts with the next packet that will be published.
    #[must_use]
    pub const fn at_head(publisher: &Publisher) -> Self {
        Self { next: publisher.head, missed: 0, at_key_frames: false, resumed_at: None, skip: Skip::NONE }
    }

    /// What it does when it falls behind, from now on. With [`LagPolicy::ToNextKeyFrame`] whoever publishes marks key frames;
    /// [`LagPolicy::Disconnect`] is for a [`super::Subscriber`], and here the same as [`LagPolicy::DropOldest`].
    pub const fn set_policy(&mut self, policy: LagPolicy) {
        self.at_key_frames = matches!(policy, LagPolicy::ToNextKeyFrame);
        if !self.at_key_frames {
            self.resumed_at = None;
            self.skip.end();
        }
    }

    /// Whether it goes on at key frames when it falls behind.
    #[must_use]
    pub const fn goes_on_at_key_frames(&self) -> bool {
        self.at_key_frames
    }

    /// What it read did not all arrive: goes on with the next key frame, if that is its policy.
    pub const fn resume_at_key_frame(&mut self) {
        if self.at_key_frames {
            self.resumed_at = Some(self.next);
            self.skip.begin();
        }
    }

    /// Index of the next packet it will read.
    #[must_use]
    pub const fn next(&self) -> u64 {
        self.next
    }

    /// Packets published and not read.
    #[must_use]
    pub const fn unread(&self, publisher: &Publisher) -> u64 {
        publisher.head.saturating_sub(self.next)
    }

    /// Packets overwritten before they were read, since the last call.
    pub const fn take_missed(&mut self) -> u64 {
        std::mem::replace(&mut self.missed, 0)
    }

    /// Packets left out by its policy, since the last call.
    pub const fn take_skipped(&mut self) -> SkipStats {
        self.skip.take_stats()
    }

    /// Arrival of the oldest packet not yet read.
    #[must_use]
    pub fn oldest_arrival(&self, publisher: &Publisher) -> Option<Time> {
        let oldest = self.next.max(publisher.tail);
        (oldest < publisher.head).then(|| publisher.shared.slot(oldest).arrival())
    }

    const fn catch_up(&mut self, publisher: &Publisher) {
        if self.next < publisher.tail {
            self.missed += publisher.tail - self.next;
            self.next = publisher.tail;
            self.resume_at_key_frame();
        }
    }
}

/// A packet lent by the ring: to a [`LocalCursor`] for as long as nothing new is published, to a
/// [`super::Subscriber`] for a batch. Clone it to keep it.
#[derive(Debug)]
pub struct BorrowedPacket<'ring> {
    /// Never dropped: the count belongs to the ring.
    packet: ManuallyDrop<Packet>,
    ring: PhantomData<&'ring Shared>,
}

impl Deref for BorrowedPacket<'_> {
    type Target = Packet;

    fn deref(&self) -> &Packet {
        &self.packet
    }
}

/// What publisher and readers share.
#[derive(Debug)]
pub(super) struct Shared {
    slots: Box<[Slot]>,
    /// Packets published and flushed.
    pub(super) head: AtomicU64,
    pub(super) closed: AtomicBool,
    has_newcomers: AtomicBool,
    newcomers: Mutex<Vec<Arc<Reader>>>,
    /// What the publisher had put aside when it ended.
    left_lent: Mutex<Vec<(u64, Packet)>>,
    /// Subscribers that go on at key frames.
    pub(super) key_frame_readers: AtomicU64,
    /// Keeps the buffers that slots may name valid memory.
    pool: Pool,
}

impl Shared {
    pub(super) fn capacity(&self) -> u64 {
        self.slots.len() as u64
    }

    /// The packet with this index, counted up; `None` if it has been overwritten.
    #[inline]
    pub(super) fn acquire(&self, index: u64) -> Option<Packet> {
        let slot = self.slot(index);
        if slot.stamp.load(Ordering::Acquire) != stamp(index) {
            return None;
        }
        let words = slot.words();
        let header = words.header?;
        if !header_of(header).try_acquire() {
            return None;
        }
        fence(Ordering::Acquire);
        if slot.stamp.load(Ordering::Relaxed) == stamp(index) {
            words.into_packet()
        } else {
            Header::release(header);
            None
        }
    }

    /// The packet with this index without counting it up; `None` if it has been overwritten. The caller's reader has
    /// the index in its announced range for as long as the result lives.
    #[inline]
    pub(super) fn lend<'ring>(&self, index: u64) -> Option<BorrowedPacket<'ring>> {
        let slot = self.slot(index);
        if slot.stamp.load(Ordering::Acquire) != stamp(index) {
            return None;
        }
        let words = slot.words();
        fence(Ordering::Acquire);
        if slot.stamp.load(Ordering::Relaxed) != stamp(index) {
            return None;
        }
        Some(BorrowedPacket { packet: ManuallyDrop::new(words.into_packet()?), ring: PhantomData })
    }

    /// Adds a reader and returns the index of the first packet that it can count on.
    pub(super) fn add(&self, reader: Arc<Reader>) -> u64 {
        if let Ok(mut newcomers) = self.newcomers.lock() {
            newcomers.push(reader);
            self.has_newcomers.store(true, Ordering::Relaxed);
        }
        fence(Ordering::SeqCst);
        self.head.load(Ordering::Acquire)
    }

    fn slot(&self, index: u64) -> &Slot {
        &self.slots[index as usize & (self.slots.len() - 1)]
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        for slot in &self.slots {
            let stamp = slot.stamp.load(Ordering::Acquire);
            if stamp != 0 && stamp & 1 == 0 {
                drop(slot.packet());
            }
        }
    }
}

/// One packet taken apart into words. Filling a cache line, so that neighbours do not disturb each other.
#[repr(align(64))]
#[derive(Debug)]
struct Slot {
    /// `stamp(index)` while the packet may be read, odd or zero otherwise.
    stamp: AtomicU64,
    header: AtomicPtr<Header>,
    /// Offset in the upper, length in the lower half.
    span: AtomicU64,
    arrival_ns: AtomicU64,
    /// Extended sequence number plus one; zero for none.
    sequence: AtomicU64,
    /// RTP timestamp in the lower half, its presence in bit 32, the discontinuity in bit 33, random access in bit
    /// 34, the source from bit 40.
    rtp_and_source: AtomicU64,
}

impl Default for Slot {
    fn default() -> Self {
        Self {
            stamp: AtomicU64::new(0),
            header: AtomicPtr::new(ptr::null_mut()),
            span: AtomicU64::new(0),
            arrival_ns: AtomicU64::new(0),
            sequence: AtomicU64::new(0),
            rtp_and_source: AtomicU64::new(0),
        }
    }
}

impl Slot {
    /// Moves a packet and its count into the words.
    fn write(&self, packet: Packet) {
        let (header, offset, len) = packet.parts();
        let Meta { arrival, source, discontinuity, random_access, sequence, rtp_timestamp } = packet.meta;
        std::mem::forget(packet);
        let rtp = rtp_timestamp.map_or(0, |timestamp| (1 << 32) | u64::from(timestamp));
        self.header.store(header.as_ptr(), Ordering::Relaxed);
        self.span.store((u64::from(offset) << 32) | u64::from(len), Ordering::Relaxed);
        self.arrival_ns.store(arrival.as_ns(), Ordering::Relaxed);
        self.sequence.store(sequence.map_or(0, |number| number + 1), Ordering::Relaxed);
        let flags = u64::from(discontinuity) << 33 | u64::from(random_access) << 34;
        let rtp_and_source = rtp | flags | u64::from(source) << 40;
        self.rtp_and_source.store(rtp_and_source, Ordering::Relaxed);
    }

    fn words(&self) -> Words {
        Words {
            header: NonNull::new(self.header.load(Ordering::Relaxed)),
            span: self.span.load(Ordering::Relaxed),
            arrival_ns: self.arrival_ns.load(Ordering::Relaxed),
            sequence: self.sequence.load(Ordering::Relaxed),
            rtp_and_source: self.rtp_and_source.load(Ordering::Relaxed),
        }
    }

    /// The packet in a slot that is in use, for the publisher. The caller decides whether it takes over the count.
    fn packet(&self) -> Packet {
        self.words().into_packet().unwrap_or_else(|| unreachable!("a slot in use names a buffer"))
    }

    fn arrival(&self) -> Time {
        Time::from_ns(self.arrival_ns.load(Ordering::Relaxed))
    }
}

struct Words {
    header: Option<NonNull<Header>>,
    span: u64,
    arrival_ns: u64,
    sequence: u64,
    rtp_and_source: u64,
}

impl Words {
    fn into_packet(self) -> Option<Packet> {
        let meta = Meta {
            arrival: Time::from_ns(self.arrival_ns),
            source: (self.rtp_and_source >> 40) as u8,
            discontinuity: self.rtp_and_source & (1 << 33) != 0,
            random_access: self.rtp_and_source & (1 << 34) != 0,
            sequence: self.sequence.checked_sub(1),
            rtp_timestamp: (self.rtp_and_source & (1 << 32) != 0).then_some(self.rtp_and_source as u32),
        };
        Some(Packet::from_parts(self.header?, (self.span >> 32) as u32, self.span as u32, meta))
    }
}

/// When a full ring overwrites, it gives up one part of so many at once, to look at its readers once for all of them.
const OVERWRITTEN_SHARE: u64 = 64;

/// Even, never zero, and different for every packet.
const fn stamp(index: u64) -> u64 {
    (index + 1) << 1
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;
    use crate::bus::{Ended, LagPolicy, PoolLimits, Subscriber};

    fn ring(capacity: usize) -> (Pool, Publisher) {
        let pool = Pool::new(PoolLimits::default());
        (pool.clone(), Publisher::new(pool, capacity))
    }

    fn numbered(pool: &Pool, number: u64) -> Packet {
        let (sequence, rtp_timestamp) = (Some(number), Some(7));
        let (discontinuity, random_access) = (number % 2 == 1, number.is_multiple_of(10));
        let arrival = Time::from_ns(number);
        let meta = Meta { arrival, source: 3, discontinuity, random_access, sequence, rtp_timestamp };
        pool.copy(&number.to_be_bytes(), meta).unwrap()
    }

    fn numbers(publisher: &Publisher, cursor: &mut LocalCursor) -> Vec<u64> {
        std::iter::from_fn(|| publisher.read(cursor)?.meta.sequence).collect()
    }

    #[test]
    fn readers_on_both_sides_see_bytes_and_metadata() {
        let (pool, mut publisher) = ring(4);
        let mut subscriber = publisher.subscribe().subscriber(LagPolicy::DropOldest);
        let mut cursor = LocalCursor::at_head(&publisher);
        publisher.publish(numbered(&pool, 5));
        let lent = publisher.read(&mut cursor).unwrap();
        assert_eq!(**lent, *5_u64.to_be_bytes().as_slice());
        let meta = lent.meta;
        assert_eq!(meta, numbered(&pool, 5).meta);
        assert_eq!(subscriber.try_recv().map(|packet| packet.is_some()), Ok(false), "not flushed yet");
        publisher.flush(cursor.next());
        assert_eq!(subscriber.try_recv().unwrap().unwrap().meta, meta);
    }

    #[test]
    fn a_reader_that_falls_behind_learns_how_much_it_missed() {
        let (pool, mut publisher) = ring(4);
        let mut slow = LocalCursor::at_head(&publisher);
        let mut remote = publisher.subscribe().subscriber(LagPolicy::DropOldest);
        let mut strict = publisher.subscribe().subscriber(LagPolicy::Disconnect);
        for number in 0..10 {
            publisher.publish(numbered(&pool, number));
            publisher.flush(slow.next());
        }
        assert_eq!(numbers(&publisher, &mut slow), [6, 7, 8, 9]);
        assert_eq!(slow.take_missed(), 6);
        assert_eq!(remote.try_recv().unwrap().unwrap().meta.sequence, Some(6));
        assert_eq!(remote.take_missed(), 6);
        assert_eq!(strict.try_recv().unwrap_err(), Ended::Lagged { missed: 6 });
        assert_eq!(strict.try_recv().unwrap_err(), Ended::Lagged { missed: 6 }, "the end stays as it was");
    }

    #[test]
    fn a_cursor_of_another_ring_reads_nothing() {
        let ((pool, mut long), (_, short)) = (ring(4), ring(4));
        (0..3).for_each(|number| long.publish(numbered(&pool, number)));
        let mut cursor = LocalCursor::at_head(&long);
        assert!(short.read(&mut cursor).is_none());
        assert_eq!(cursor.unread(&short), 0);
    }

    #[test]
    fn a_ring_gives_buffers_back_when_asked_to() {
        let (pool, mut publisher) = ring(8);
        let mut cursor = LocalCursor::at_head(&publisher);
        (0..8).for_each(|number| publisher.publish(numbered(&pool, number)));
        publisher.shed();
        assert_eq!(numbers(&publisher, &mut cursor), [4, 5, 6, 7]);
        assert_eq!(cursor.take_missed(), 4);
    }

    #[test]
    fn what_everyone_has_read_goes_back_to_the_pool() {
        let (pool, mut publisher) = ring(1_024);
        let mut cursor = LocalCursor::at_head(&publisher);
        for number in 0..100_000 {
            publisher.publish(numbered(&pool, number));
            assert_eq!(numbers(&publisher, &mut cursor), [number]);
            publisher.flush(cursor.next());
        }
        assert_eq!(pool.usage().reserved_bytes, 128 * Pool::SMALL as u64, "one slab did");
    }

    #[test]
    fn a_reader_that_is_gone_holds_nothing_back() {
        let (pool, mut publisher) = ring(1_024);
        drop(publisher.subscribe().subscriber(LagPolicy::DropOldest));
        for number in 0..10_000 {
            publisher.publish(numbered(&pool, number));
            publisher.flush(u64::MAX);
        }
        assert_eq!(pool.usage().reserved_bytes, 128 * Pool::SMALL as u64);
    }

    #[test]
    fn the_end_comes_after_the_last_packet() {
        let (pool, mut publisher) = ring(4);
        let mut subscriber = publisher.subscribe().subscriber(LagPolicy::DropOldest);
        publisher.publish(numbered(&pool, 0));
        drop(publisher);
        assert!(subscriber.try_recv().unwrap().is_some());
        assert_eq!(subscriber.try_recv().unwrap_err(), Ended::Closed);
    }

    #[test]
    fn lent_packets_outlive_their_slots_and_their_publisher() {
        let (pool, mut publisher) = ring(4);
        let mut subscriber = publisher.subscribe().subscriber(LagPolicy::DropOldest);
        (0..4).for_each(|number| publisher.publish(numbered(&pool, number)));
        publisher.flush(u64::MAX);
        let seen = subscriber.lend(3, |batch| {
            let first = batch.next().unwrap();
            let second = batch.next().unwrap();
            for number in 4..9 {
                publisher.publish(numbered(&pool, number));
                publisher.flush(u64::MAX);
            }
            drop(publisher);
            assert!(batch.next().is_none(), "the third was overwritten before anybody looked");
            [&first, &second].map(|packet| u64::from_be_bytes(packet[..].try_into().unwrap()))
        });
        assert_eq!(seen, Ok([0, 1]));
        assert_eq!(subscriber.take_missed(), 1);
        let left = subscriber.lend(99, |batch| batch.map(|packet| packet.meta.sequence.unwrap()).collect::<Vec<_>>());
        assert_eq!((left, subscriber.take_missed()), (Ok(vec![5, 6, 7, 8]), 2));
        assert_eq!(subscriber.lend(1, |_| ()), Err(Ended::Closed));
    }

    #[test]
    fn what_was_lent_goes_back_to_the_pool_with_the_next_flush() {
        let (pool, mut publisher) = ring(64);
        let mut subscriber = publisher.subscribe().subscriber(LagPolicy::DropOldest);
        for _ in 0..1_000 {
            (0..64).for_each(|number| publisher.publish(numbered(&pool, number)));
            publisher.flush(u64::MAX);
            subscriber
                .lend(64, |_| {
                    (0..64).for_each(|number| publisher.publish(numbered(&pool, number)));
                    assert_eq!(publisher.lent.len(), 64);
                })
                .unwrap();
            publisher.flush(u64::MAX);
            subscriber.lend(64, |_| ()).unwrap();
            assert!(publisher.lent.is_empty());
        }
        assert_eq!(pool.usage().reserved_bytes, 128 * Pool::SMALL as u64);
    }

    #[test]
    fn a_strict_reader_ends_when_a_lent_batch_has_a_hole() {
        let (pool, mut publisher) = ring(2);
        let mut strict = publisher.subscribe().subscriber(LagPolicy::Disconnect);
        (0..3).for_each(|number| publisher.publish(numbered(&pool, number)));
        publisher.flush(u64::MAX);
        assert_eq!(strict.lend(9, |batch| batch.count()), Err(Ended::Lagged { missed: 1 }));
        assert_eq!(strict.try_recv().unwrap_err(), Ended::Lagged { missed: 1 });
    }

    #[test]
    fn a_waiting_reader_is_pending_until_the_flush() {
        let (pool, mut publisher) = ring(4);
        let mut subscriber = publisher.subscribe().subscriber(LagPolicy::DropOldest);
        let mut received = pin!(subscriber.recv());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(received.as_mut().poll(&mut cx).is_pending());
        publisher.publish(numbered(&pool, 0));
        assert!(received.as_mut().poll(&mut cx).is_pending());
        publisher.flush(u64::MAX);
        assert!(received.as_mut().poll(&mut cx).is_ready());
    }

    #[test]
    fn readers_on_other_threads_never_see_a_wrong_packet() {
        let (pool, mut publisher) = ring(16);
        let packets = if cfg!(miri) { 200 } else { 200_000 };
        let readers: Vec<_> = (0..4).map(|_| publisher.subscribe().subscriber(LagPolicy::DropOldest)).collect();
        std::thread::scope(|scope| {
            for (number, mut reader) in readers.into_iter().enumerate() {
                scope.spawn(move || {
                    let (mut read, mut missed) = (0, 0);
                    // Half of them keep each packet, half of them only look, several at a time.
                    while let Ok(now) = if number % 2 == 0 { keep_one(&mut reader) } else { look_at_some(&mut reader) }
                    {
                        read += now;
                        missed += reader.take_missed();
                        if now == 0 {
                            std::thread::yield_now();
                        }
                    }
                    assert_eq!(read + missed + reader.take_missed(), packets);
                });
            }
            for number in 0..packets {
                publisher.publish(numbered(&pool, number));
                if number % 3 == 0 {
                    publisher.flush(u64::MAX);
                }
            }
            drop(publisher);
        });
    }

    fn keep_one(reader: &mut Subscriber) -> Result<u64, Ended> {
        Ok(reader.try_recv()?.inspect(check).map_or(0, |_| 1))
    }

    fn look_at_some(reader: &mut Subscriber) -> Result<u64, Ended> {
        reader.lend(10, |batch| {
            let packets: Vec<_> = batch.collect();
            packets.iter().for_each(|packet| check(packet));
            std::thread::yield_now();
            packets.iter().for_each(|packet| check(packet));
            packets.len() as u64
        })
    }

    fn check(packet: &Packet) {
        assert_eq!(**packet, packet.meta.sequence.unwrap().to_be_bytes());
    }
}
