//! `Packet`: one unit on the bus, and what it carries beside its bytes.

use std::fmt;
use std::ops::{Deref, Range};
use std::ptr::NonNull;

use super::pool::{Buffer, Header};
use crate::units::Time;

/// What is known of a packet beside its payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// When it came: the kernel's stamp of the datagram that carried it, where there is one. Of a protocol that holds
    /// packets back to even out their delay: when it was due.
    pub arrival: Time,
    /// Index of the flow's source that it came from.
    pub source: u8,
    /// Whether it does not continue what came before it: numbers, timestamps and clocks begin anew. On a flow's bus the
    /// first packet after a switch of source, after its sender started over or connected again, and after a merged stream
    /// began anew; of a protocol core, the first packet of every run. A reader that missed packets may have missed it.
    pub discontinuity: bool,
    /// Whether a decoder may begin with it: a key frame begins in it. Looked for only while a reader of the flow's bus or
    /// failover needs to know, and false otherwise.
    pub random_access: bool,
    /// Extended sequence number, where the protocol has one. At most 2^63.
    pub sequence: Option<u64>,
    /// RTP timestamp, where the protocol has one.
    pub rtp_timestamp: Option<u32>,
}

/// A refcounted slice of a pooled buffer. Cloning counts up; the last one dropped returns the buffer to its pool.
pub struct Packet {
    header: NonNull<Header>,
    offset: u32,
    len: u32,
    /// Arrival, source and sequence.
    pub meta: Meta,
}

const _: () = assert!(size_of::<Packet>() <= 56, "a packet is moved several times on its way");

#[allow(unsafe_code, reason = "a packet crosses threads with its counted reference")]
// SAFETY: the buffer is immutable while any packet refers to it, and its count is atomic.
unsafe impl Send for Packet {}
#[allow(unsafe_code, reason = "a packet is read from several threads")]
// SAFETY: as above; `&Packet` only reads.
unsafe impl Sync for Packet {}

impl Packet {
    /// The bytes `range` of `buffer`, which nobody can write any more.
    ///
    /// # Panics
    /// If `range` lies outside the buffer.
    #[must_use]
    pub fn new(buffer: Buffer, range: Range<usize>, meta: Meta) -> Self {
        assert!(range.start <= range.end && range.end <= buffer.len(), "{range:?} outside the buffer");
        Self { header: buffer.into_header(), offset: range.start as u32, len: (range.end - range.start) as u32, meta }
    }

    /// A part of this packet, sharing its buffer.
    ///
    /// # Panics
    /// If `range` lies outside the packet.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        self.clone().into_slice(range)
    }

    /// The same without keeping the whole: nothing to count.
    ///
    /// # Panics
    /// If `range` lies outside the packet.
    #[must_use]
    pub fn into_slice(mut self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len(), "{range:?} outside the packet");
        self.offset += range.start as u32;
        self.len = (range.end - range.start) as u32;
        self
    }

    /// What follows the first `start` bytes, without keeping the whole.
    ///
    /// # Panics
    /// If the packet is shorter than that.
    #[must_use]
    pub fn into_slice_from(self, start: usize) -> Self {
        let end = self.len();
        self.into_slice(start..end)
    }

    /// The payload, to be changed in place; `None` while somebody else refers to the buffer.
    #[allow(unsafe_code, reason = "the bytes are reached through the header's pointer")]
    pub fn bytes_mut(&mut self) -> Option<&mut [u8]> {
        let header = header(self);
        // SAFETY: offset and length were checked against the buffer, and the only reference to it is ours, borrowed
        // for as long as the slice lives.
        header.is_unique().then(|| unsafe {
            std::slice::from_raw_parts_mut(header.data().add(self.offset as usize), self.len as usize)
        })
    }

    /// Length of the payload in bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there is no payload.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) const fn parts(&self) -> (NonNull<Header>, u32, u32) {
        (self.header, self.offset, self.len)
    }

    /// Takes over one counted reference.
    pub(super) const fn from_parts(header: NonNull<Header>, offset: u32, len: u32, meta: Meta) -> Self {
        Self { header, offset, len, meta }
    }
}

#[allow(unsafe_code, reason = "reads the header that the counted reference keeps valid")]
const fn header(packet: &Packet) -> &Header {
    // SAFETY: a packet holds a counted reference, and a header outlives its references.
    unsafe { packet.header.as_ref() }
}

impl Deref for Packet {
    type Target = [u8];

    #[inline]
    #[allow(unsafe_code, reason = "the bytes are reached through the header's pointer")]
    fn deref(&self) -> &[u8] {
        // SAFETY: offset and length were checked against the buffer, which stays immutable while referred to.
        unsafe { std::slice::from_raw_parts(header(self).data().add(self.offset as usize), self.len()) }
    }
}

impl Clone for Packet {
    #[inline]
    fn clone(&self) -> Self {
        header(self).acquire();
        Self { ..*self }
    }
}

impl Drop for Packet {
    #[inline]
    fn drop(&mut self) {
        Header::release(self.header);
    }
}

impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packet").field("len", &self.len).field("meta", &self.meta).finish_non_exhaustive()
    }
}
