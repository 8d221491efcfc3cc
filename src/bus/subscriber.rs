//! A reader on any thread: its cursor, lag detection and drop policy.

use std::fmt;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

use super::packet::Packet;
use super::ring::{BorrowedPacket, Shared};
use super::skip::{Skip, SkipStats};
use super::sync::{Arc, AtomicBool, AtomicU64, AtomicWaker, Ordering, fence};

/// What a reader that fell behind wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LagPolicy {
    /// Go on with the oldest packet still there.
    #[default]
    DropOldest,
    /// Go on with the next packet in which a key frame begins ([`Meta::random_access`](super::Meta::random_access)), and
    /// with nothing older; after [`SKIP_MAX`](super::SKIP_MAX) without one, with the next packet of all. Nothing is put
    /// before it, and no byte is changed: tables come by themselves, ten times a second.
    ToNextKeyFrame,
    /// End: a hole is worse than an end.
    Disconnect,
}

/// Why there will be no more packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// The publisher is gone and everything was read.
    #[error("the flow has ended")]
    Closed,
    /// The reader fell behind and its policy is [`LagPolicy::Disconnect`].
    #[error("fell {missed} packets behind")]
    Lagged {
        /// Packets it missed.
        missed: u64,
    },
}

/// Makes subscribers of one ring; may be sent anywhere and kept.
#[derive(Clone)]
pub struct Subscribe(Arc<Shared>);

impl Subscribe {
    pub(super) const fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    /// A reader that starts with the next packet to be published.
    #[must_use]
    pub fn subscriber(&self, policy: LagPolicy) -> Subscriber {
        let reader = Arc::new(Reader::default());
        let next = self.0.add(Arc::clone(&reader));
        reader.cursor.store(next, Ordering::Release);
        if policy == LagPolicy::ToNextKeyFrame {
            self.0.key_frame_readers.fetch_add(1, Ordering::Relaxed);
        }
        let (shared, skip) = (Arc::clone(&self.0), Skip::NONE);
        Subscriber { shared, reader, next, known_head: next, missed: 0, skip, policy, ended: None }
    }
}

impl fmt::Debug for Subscribe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Subscribe")
    }
}

/// One reader of a ring.
pub struct Subscriber {
    shared: Arc<Shared>,
    reader: Arc<Reader>,
    /// Index of the next packet to read.
    next: u64,
    /// The head as last looked up.
    known_head: u64,
    missed: u64,
    skip: Skip,
    policy: LagPolicy,
    ended: Option<Ended>,
}

impl Subscriber {
    /// The next packet, `None` if there is none yet.
    ///
    /// # Errors
    /// [`Ended`], from then on every time.
    #[inline]
    pub fn try_recv(&mut self) -> Result<Option<Packet>, Ended> {
        if let Some(ended) = self.ended {
            return Err(ended);
        }
        loop {
            if self.next == self.known_head && !self.look_up_head()? {
                return Ok(None);
            }
            if let Some(packet) = self.shared.acquire(self.next) {
                self.advance_to(self.next + 1);
                if self.skip.passes(&packet.meta) {
                    return Ok(Some(packet));
                }
                continue;
            }
            self.lose()?;
        }
    }

    /// Lends up to `packets_max` waiting packets to `look`, which gets an empty batch if there are none. This is several
    /// times cheaper than [`Subscriber::try_recv`], which counts every packet up and down. What `look` leaves in the
    /// batch counts as read. However long it takes, the publisher goes on: packets overwritten before `look` came to
    /// them count as missed, and those it has got stay whole.
    ///
    /// # Errors
    /// [`Ended`], from then on every time.
    pub fn lend<R>(&mut self, packets_max: usize, look: impl FnOnce(&mut Lent<'_>) -> R) -> Result<R, Ended> {
        if let Some(ended) = self.ended {
            return Err(ended);
        }
        if self.look_up_head()? {
            self.pass_over(self.oldest())?;
        }
        let end = self.known_head.min(self.next + (packets_max as u64).min(LENT_MAX));
        self.reader.announce(self.next..end);
        let at_key_frames = self.policy == LagPolicy::ToNextKeyFrame;
        let (shared, next, skip) = (&*self.shared, self.next, self.skip);
        let mut lent = Lent { shared, next, end, missed: 0, missed_before: self.missed, skip, at_key_frames };
        let result = look(&mut lent);
        let missed = lent.missed;
        self.skip = lent.skip;
        self.reader.announce(end..end);
        self.advance_to(end);
        if missed > 0 {
            // What came after them was looked at already, by the policy.
            self.missed += missed;
            self.end_if_unwanted()?;
        }
        Ok(result)
    }

    /// The next packet, waiting for it if need be.
    ///
    /// # Errors
    /// [`Ended`], from then on every time.
    pub async fn recv(&mut self) -> Result<Packet, Ended> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// The same as a poll.
    ///
    /// # Errors
    /// [`Ended`], from then on every time.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Packet, Ended>> {
        if let Some(packet) = self.try_recv()? {
            return Poll::Ready(Ok(packet));
        }
        self.wake_on_packet(cx.waker());
        match self.try_recv()? {
            Some(packet) => Poll::Ready(Ok(packet)),
            None => Poll::Pending,
        }
    }

    /// Packets overwritten before they were read, since the last call.
    pub const fn take_missed(&mut self) -> u64 {
        std::mem::replace(&mut self.missed, 0)
    }

    /// Packets left out by [`LagPolicy::ToNextKeyFrame`], since the last call.
    pub const fn take_skipped(&mut self) -> SkipStats {
        self.skip.take_stats()
    }

    /// Asks for one call of `waker` at the next flush that has packets, or when the ring ends; look once more afterwards.
    pub fn wake_on_packet(&self, waker: &Waker) {
        self.reader.register(waker);
        self.reader.waiting.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// False if there is nothing new.
    fn look_up_head(&mut self) -> Result<bool, Ended> {
        self.known_head = self.shared.head.load(Ordering::Acquire);
        if self.known_head != self.next {
            return Ok(true);
        }
        if !self.shared.closed.load(Ordering::Acquire) {
            return Ok(false);
        }
        // The last packets may have come between the two loads.
        self.known_head = self.shared.head.load(Ordering::Acquire);
        if self.known_head == self.next { Err(Ended::Closed) } else { Ok(true) }
    }

    /// The wanted packet is gone: passes over it and all others that surely are.
    fn lose(&mut self) -> Result<(), Ended> {
        self.known_head = self.shared.head.load(Ordering::Acquire);
        self.pass_over(self.oldest().max(self.next + 1))
    }

    /// The oldest index that the ring may still have.
    fn oldest(&self) -> u64 {
        self.known_head.saturating_sub(self.shared.capacity())
    }

    /// Goes on with index `next` if that is ahead, and counts what lies between.
    fn pass_over(&mut self, next: u64) -> Result<(), Ended> {
        let missed = next.saturating_sub(self.next);
        if missed == 0 {
            return Ok(());
        }
        self.advance_to(next);
        self.count_missed(missed)
    }

    fn count_missed(&mut self, packets: u64) -> Result<(), Ended> {
        self.missed += packets;
        if self.policy == LagPolicy::ToNextKeyFrame {
            self.skip.begin();
        }
        self.end_if_unwanted()
    }

    /// After packets were missed.
    fn end_if_unwanted(&mut self) -> Result<(), Ended> {
        if self.policy != LagPolicy::Disconnect {
            return Ok(());
        }
        let ended = Ended::Lagged { missed: self.missed };
        self.ended = Some(ended);
        // It holds nothing back any more.
        self.reader.gone.store(true, Ordering::Release);
        Err(ended)
    }

    fn advance_to(&mut self, next: u64) {
        self.next = next;
        self.reader.cursor.store(next, Ordering::Release);
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        if self.policy == LagPolicy::ToNextKeyFrame {
            self.shared.key_frame_readers.fetch_sub(1, Ordering::Relaxed);
        }
        self.reader.gone.store(true, Ordering::Release);
    }
}

impl fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscriber").field("next", &self.next).field("policy", &self.policy).finish_non_exhaustive()
    }
}

/// Packets lent for the time of a call, oldest first: see [`Subscriber::lend`].
#[derive(Debug)]
pub struct Lent<'batch> {
    shared: &'batch Shared,
    next: u64,
    end: u64,
    missed: u64,
    missed_before: u64,
    skip: Skip,
    at_key_frames: bool,
}

impl Lent<'_> {
    /// Packets missed before the one that was given last, of those that [`Subscriber::take_missed`] has not told yet.
    #[must_use]
    pub const fn missed(&self) -> u64 {
        self.missed_before + self.missed
    }
}

impl<'batch> Iterator for Lent<'batch> {
    type Item = BorrowedPacket<'batch>;

    #[inline]
    fn next(&mut self) -> Option<BorrowedPacket<'batch>> {
        while self.next < self.end {
            let packet = self.shared.lend(self.next);
            self.next += 1;
            match packet {
                Some(packet) if self.skip.passes(&packet.meta) => return Some(packet),
                Some(_) => {}
                None => {
                    self.missed += 1;
                    if self.at_key_frames {
                        self.skip.begin();
                    }
                }
            }
        }
        None
    }
}

/// Packets lent at once. What is lent and overwritten is kept in memory; this bounds it, per reader.
const LENT_MAX: u64 = 1_024;

/// What the publisher sees of a reader. Aligned so that readers do not share cache lines.
#[repr(align(128))]
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// Lowest index it may still want.
    cursor: AtomicU64,
    /// Range it was lent: the first index times 65,536, plus the number of packets.
    lent: AtomicU64,
    waiting: AtomicBool,
    gone: AtomicBool,
    waker: AtomicWaker,
}

impl Reader {
    pub(super) fn cursor(&self) -> u64 {
        self.cursor.load(Ordering::Acquire)
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// Tells the publisher of a range before the reader looks at its packets, or with an empty one that it is done.
    fn announce(&self, range: std::ops::Range<u64>) {
        self.lent.store((range.start << 16) | (range.end - range.start), Ordering::Release);
        if !range.is_empty() {
            // Pairs with the publisher's fence between stamping packets as overwritten and asking who was lent them.
            fence(Ordering::SeqCst);
        }
    }

    /// Whether it may be looking at this packet.
    pub(super) fn was_lent(&self, index: u64) -> bool {
        let lent = self.lent.load(Ordering::Acquire);
        index.wrapping_sub(lent >> 16) < lent & 0xffff
    }

    /// The caller has issued a `SeqCst` fence after storing the head.
    pub(super) fn wake_if_waiting(&self) {
        if self.waiting.load(Ordering::Relaxed) {
            self.wake();
        }
    }

    pub(super) fn wake(&self) {
        self.waiting.store(false, Ordering::Relaxed);
        self.waker.wake();
    }

    #[cfg(not(loom))]
    fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    #[cfg(loom)]
    fn register(&self, waker: &Waker) {
        self.waker.register_by_ref(waker);
    }
}
