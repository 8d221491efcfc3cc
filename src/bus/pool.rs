//! Pool of receive buffers that grows to a bound; a dropped packet returns its buffer.
//!
//! Buffers come in two sizes: [`Pool::SMALL`] for any datagram of an Ethernet, [`Pool::LARGE`] for the longest datagram
//! UDP has. They are carved from slabs that live as long as the pool, so a buffer's header is valid memory even after
//! the buffer went back: the ring relies on that. Free buffers form a tagged Treiber stack: the buffer used last, whose
//! bytes are still in cache, is taken first.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};

use super::packet::{Meta, Packet};
use super::sync::{Arc, AtomicPtr, AtomicU32, AtomicU64, Ordering};

/// How many buffers a pool may hold, rounded up to whole slabs of 128.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolLimits {
    /// Buffers of 2 KiB.
    pub small_max: u32,
    /// Buffers of 64 KiB.
    pub large_max: u32,
}

impl Default for PoolLimits {
    /// 512 MiB of small and 128 MiB of large buffers. Memory is taken slab by slab and only when needed.
    fn default() -> Self {
        Self { small_max: 262_144, large_max: 2_048 }
    }
}

/// How much of a pool is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolUse {
    /// Bytes of buffers that the pool has reserved from the system.
    pub reserved_bytes: u64,
    /// Requests that found the bound reached.
    pub exhausted_total: u64,
}

/// Shared handle of a pool. The memory lives until the last handle and the last packet are gone.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

impl Pool {
    /// Bytes in a small buffer. Judgement: an Ethernet payload of 1500 with room in front for protocol headers.
    pub const SMALL: usize = 2_048;
    /// Bytes in a large buffer: no UDP payload is longer than 65,535.
    pub const LARGE: usize = 65_536;

    /// An empty pool.
    #[must_use]
    pub fn new(limits: PoolLimits) -> Self {
        Self(Arc::new(Inner {
            small: Class::new(Self::SMALL, limits.small_max),
            large: Class::new(Self::LARGE, limits.large_max),
        }))
    }

    /// A buffer of at least `size` bytes with whatever bytes it last held; `None` at the bound, or above
    /// [`Pool::LARGE`].
    #[must_use]
    pub fn take(&self, size: usize) -> Option<Buffer> {
        let class = match size {
            0..=Self::SMALL => &self.0.small,
            _ if size <= Self::LARGE => &self.0.large,
            _ => return None,
        };
        let header = class.take(Arc::as_ptr(&self.0))?;
        // The buffer keeps the pool alive; `Header::release` gives this count back.
        std::mem::forget(Arc::clone(&self.0));
        Some(Buffer { header })
    }

    /// Copies `bytes` into a packet of its own; `None` when the pool is at its bound.
    #[must_use]
    pub fn copy(&self, bytes: &[u8], meta: Meta) -> Option<Packet> {
        let mut buffer = self.take(bytes.len())?;
        buffer[..bytes.len()].copy_from_slice(bytes);
        Some(Packet::new(buffer, 0..bytes.len(), meta))
    }

    /// What the pool holds now.
    #[must_use]
    pub fn usage(&self) -> PoolUse {
        let classes = [&self.0.small, &self.0.large];
        PoolUse {
            reserved_bytes: classes.iter().map(|class| class.reserved_bytes()).sum(),
            exhausted_total: classes.iter().map(|class| class.exhausted.load(Ordering::Relaxed)).sum(),
        }
    }

    /// Whether `packet` lies in this pool.
    pub(super) fn owns(&self, packet: &Packet) -> bool {
        header_of(packet.parts().0).pool == Arc::as_ptr(&self.0)
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pool").field(&self.usage()).finish()
    }
}

/// A buffer that one owner may write.
pub struct Buffer {
    header: NonNull<Header>,
}

#[allow(unsafe_code, reason = "a buffer may be filled on one thread and frozen on another")]
// SAFETY: there is one owner, and the header's counters are atomic.
unsafe impl Send for Buffer {}

impl Buffer {
    pub(super) const fn into_header(self) -> NonNull<Header> {
        let header = self.header;
        std::mem::forget(self);
        header
    }
}

impl Deref for Buffer {
    type Target = [u8];

    #[allow(unsafe_code, reason = "the bytes are reached through the header's pointer")]
    fn deref(&self) -> &[u8] {
        let header = header_of(self.header);
        // SAFETY: the slab has `capacity` initialised bytes here, and only this owner may write them.
        unsafe { std::slice::from_raw_parts(header.data, header.capacity) }
    }
}

impl DerefMut for Buffer {
    #[allow(unsafe_code, reason = "the bytes are reached through the header's pointer")]
    fn deref_mut(&mut self) -> &mut [u8] {
        let header = header_of(self.header);
        // SAFETY: as above. A ring reader may hold a spare count on a recycled header for a moment, but reads no
        // bytes before it has checked that the slot still means this buffer, which it cannot while we own it.
        unsafe { std::slice::from_raw_parts_mut(header.data, header.capacity) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        Header::release(self.header);
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("capacity", &self.len()).finish_non_exhaustive()
    }
}

/// Book-keeping of one buffer.
pub(super) struct Header {
    refs: AtomicU32,
    /// Next free buffer: its index plus one, zero for none.
    next: AtomicU32,
    index: u32,
    pool: *const Inner,
    data: *mut u8,
    capacity: usize,
}

impl Header {
    pub(super) const fn data(&self) -> *mut u8 {
        self.data
    }

    /// Whether nobody else holds a reference. A ring reader may hold a spare count on a recycled header for a moment,
    /// but reads no bytes by it.
    pub(super) fn is_unique(&self) -> bool {
        self.refs.load(Ordering::Acquire) == 1
    }

    /// Counts up; the caller already holds a reference.
    ///
    /// Aborts the process long before the count can wrap, as `Arc` does: only forgotten packets lead there.
    #[inline]
    pub(super) fn acquire(&self) {
        if self.refs.fetch_add(1, Ordering::Relaxed) > REFS_MAX {
            std::process::abort();
        }
    }

    /// Counts up unless the buffer is free; the caller holds no reference and must check afterwards what it got.
    #[inline]
    pub(super) fn try_acquire(&self) -> bool {
        let mut refs = self.refs.load(Ordering::Relaxed);
        while refs != 0 {
            match self.refs.compare_exchange_weak(refs, refs + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => refs = now,
            }
        }
        false
    }

    /// Counts down; the last one returns the buffer. By pointer, because with the last buffer of a pool without handles
    /// the header itself is gone afterwards.
    #[inline]
    pub(super) fn release(header: NonNull<Self>) {
        if header_of(header).refs.fetch_sub(1, Ordering::AcqRel) == 1 {
            Self::give_back(header);
        }
    }

    #[allow(unsafe_code, reason = "the pool is kept alive by the count that this buffer took")]
    fn give_back(header: NonNull<Self>) {
        let (pool, capacity) = (header_of(header).pool, header_of(header).capacity);
        // SAFETY: `Pool::take` left one count of the `Arc` behind for this buffer; it is taken back here, once.
        let pool = unsafe { Arc::from_raw(pool) };
        let class = if capacity == Pool::SMALL { &pool.small } else { &pool.large };
        class.push(header, header);
    }
}

struct Inner {
    small: Class,
    large: Class,
}

#[allow(unsafe_code, reason = "slabs hold raw pointers")]
// SAFETY: all shared state is atomic; slab memory is reached only through counted references.
unsafe impl Send for Inner {}
#[allow(unsafe_code, reason = "slabs hold raw pointers")]
// SAFETY: as above.
unsafe impl Sync for Inner {}

/// Buffers of one size.
struct Class {
    size: usize,
    /// Top of the stack of free buffers: a tag that changes on every push and pop, and the index plus one.
    free: AtomicU64,
    slabs: Box<[AtomicPtr<Slab>]>,
    /// Slabs claimed so far.
    claimed: AtomicU32,
    exhausted: AtomicU64,
}

struct Slab {
    headers: Box<[Header]>,
    data: NonNull<u8>,
    layout: Layout,
}

/// More references than there can be packets in memory.
const REFS_MAX: u32 = u32::MAX / 2;

/// Buffers carved at once. Judgement: 256 KiB of small buffers, 8 MiB of large ones, of which only what is touched
/// becomes resident.
#[cfg(not(loom))]
const SLAB_BUFFERS: u32 = 128;
#[cfg(loom)]
const SLAB_BUFFERS: u32 = 2;

impl Class {
    fn new(size: usize, buffers_max: u32) -> Self {
        let slabs = buffers_max.div_ceil(SLAB_BUFFERS);
        Self {
            size,
            free: AtomicU64::new(0),
            slabs: (0..slabs).map(|_| AtomicPtr::new(ptr::null_mut())).collect(),
            claimed: AtomicU32::new(0),
            exhausted: AtomicU64::new(0),
        }
    }

    fn take(&self, pool: *const Inner) -> Option<NonNull<Header>> {
        let header = match self.pop() {
            Some(header) => header,
            None => self.grow(pool)?,
        };
        // Release: a ring reader that counts up on this value must see that the slot it came from is retired.
        header_of(header).refs.store(1, Ordering::Release);
        Some(header)
    }

    fn pop(&self) -> Option<NonNull<Header>> {
        let mut top = self.free.load(Ordering::Acquire);
        loop {
            let index = (top as u32).checked_sub(1)?;
            let header = self.header(index);
            let next = header_of(header).next.load(Ordering::Relaxed);
            match self.free.compare_exchange_weak(top, retag(top, next), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(header),
                Err(now) => top = now,
            }
        }
    }

    /// Puts the chain from `first` to `last`, linked already, on the stack.
    fn push(&self, first: NonNull<Header>, last: NonNull<Header>) {
        let mut top = self.free.load(Ordering::Relaxed);
        loop {
            header_of(last).next.store(top as u32, Ordering::Relaxed);
            let new = retag(top, header_of(first).index + 1);
            match self.free.compare_exchange_weak(top, new, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => top = now,
            }
        }
    }

    /// Adds a slab, keeps its first buffer and frees the others.
    fn grow(&self, pool: *const Inner) -> Option<NonNull<Header>> {
        let limit = self.slabs.len() as u32;
        let claim = self.claimed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < limit).then_some(n + 1));
        let Ok(claim) = claim else {
            self.exhausted.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        let slab = Box::leak(Box::new(Slab::new(self.size, claim * SLAB_BUFFERS, pool)));
        self.slabs[claim as usize].store(slab, Ordering::Release);
        if let [_, second, .., last] = &*slab.headers {
            self.push(second.into(), last.into());
        } else if let [_, second] = &*slab.headers {
            self.push(second.into(), second.into());
        }
        Some(NonNull::from(&slab.headers[0]))
    }

    #[allow(unsafe_code, reason = "slabs are reached through raw pointers so that they can grow without a lock")]
    fn header(&self, index: u32) -> NonNull<Header> {
        let slab = self.slabs[(index / SLAB_BUFFERS) as usize].load(Ordering::Acquire);
        // SAFETY: an index is on the stack only after its slab was stored, and slabs live as long as the pool.
        let slab = unsafe { &*slab };
        NonNull::from(&slab.headers[(index % SLAB_BUFFERS) as usize])
    }

    fn reserved_bytes(&self) -> u64 {
        u64::from(self.claimed.load(Ordering::Relaxed)) * u64::from(SLAB_BUFFERS) * self.size as u64
    }
}

impl Drop for Class {
    #[allow(unsafe_code, reason = "gives back what `grow` leaked")]
    fn drop(&mut self) {
        for slab in &self.slabs {
            let slab = slab.load(Ordering::Acquire);
            if !slab.is_null() {
                // SAFETY: stored once by `grow` from a leaked box; no buffer is out, or the pool would still live.
                drop(unsafe { Box::from_raw(slab) });
            }
        }
    }
}

impl Slab {
    #[allow(unsafe_code, reason = "allocates zeroed pages without touching them")]
    fn new(size: usize, first_index: u32, pool: *const Inner) -> Self {
        let layout = Layout::array::<u8>(size * SLAB_BUFFERS as usize)
            .and_then(|layout| layout.align_to(64))
            .unwrap_or_else(|_| unreachable!("slab sizes are small constants"));
        // SAFETY: the layout is not empty.
        let data = NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout));
        let headers = (0..SLAB_BUFFERS).map(|n| Header {
            refs: AtomicU32::new(0),
            // The first buffer goes to the caller; from the second on they are chained.
            next: AtomicU32::new(if n + 1 < SLAB_BUFFERS { first_index + n + 2 } else { 0 }),
            index: first_index + n,
            pool,
            // SAFETY: `n` buffers of `size` bytes lie before it inside the allocation.
            data: unsafe { data.as_ptr().add(n as usize * size) },
            capacity: size,
        });
        Self { headers: headers.collect(), data, layout }
    }
}

impl Drop for Slab {
    #[allow(unsafe_code, reason = "gives back what `new` allocated")]
    fn drop(&mut self) {
        // SAFETY: allocated by `new` with this layout.
        unsafe { dealloc(self.data.as_ptr(), self.layout) };
    }
}

/// The stack's top with another index and the next tag.
const fn retag(top: u64, index_plus_one: u32) -> u64 {
    ((top >> 32).wrapping_add(1) << 32) | index_plus_one as u64
}

#[allow(unsafe_code, reason = "headers are type-stable: valid as long as their pool")]
pub(super) const fn header_of<'pool>(header: NonNull<Header>) -> &'pool Header {
    // SAFETY: every caller holds either a counted reference or a handle of the pool, and slabs are never freed before.
    unsafe { header.as_ref() }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_packet_returns_its_buffer_and_the_latest_is_reused_first() {
        let pool = Pool::new(PoolLimits { small_max: 128, large_max: 0 });
        let packet = pool.copy(b"one", Meta::default()).unwrap();
        let address = packet.as_ptr();
        drop(packet);
        assert_eq!(pool.take(10).unwrap().as_ptr(), address);
    }

    #[test]
    fn the_bound_holds_and_is_counted() {
        let pool = Pool::new(PoolLimits { small_max: 128, large_max: 0 });
        let taken: Vec<Buffer> = (0..128).map(|_| pool.take(1).unwrap()).collect();
        assert!(pool.take(1).is_none());
        assert!(pool.take(Pool::SMALL + 1).is_none());
        assert_eq!(pool.usage(), PoolUse { reserved_bytes: 128 * 2_048, exhausted_total: 2 });
        drop(taken);
        assert!(pool.take(1).is_some());
    }

    #[test]
    fn a_packet_outlives_its_pool_handle() {
        let pool = Pool::new(PoolLimits::default());
        let packet = pool.copy(&[7; 60_000], Meta::default()).unwrap();
        drop(pool);
        let part = packet.slice(100..200);
        drop(packet);
        assert_eq!(*part, [7; 100]);
    }

    #[test]
    fn threads_share_a_pool() {
        let pool = Pool::new(PoolLimits::default());
        let rounds = if cfg!(miri) { 50 } else { 20_000 };
        std::thread::scope(|scope| {
            for thread in 0..4_u8 {
                let pool = &pool;
                scope.spawn(move || {
                    for _ in 0..rounds {
                        let packets: Vec<Packet> =
                            (0..5).map(|_| pool.copy(&[thread; 64], Meta::default()).unwrap()).collect();
                        assert!(packets.iter().all(|packet| **packet == [thread; 64]));
                    }
                });
            }
        });
    }
}
