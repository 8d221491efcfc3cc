//! The verbs of a core over a byte stream (TCP, TLS): those of [`Core`](super::Core), with bytes for datagrams.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

use super::WireHeader;
use crate::units::Time;

/// A protocol over one connection that keeps bytes in order, without IO.
///
/// Whoever runs it feeds it with `handle_bytes` and `handle_timeout`, then drains `poll_message` and `poll_transmit`, then
/// waits until `poll_timeout`. Bytes are looked at only as messages are polled, so that whoever does not drain holds back
/// the peer, and nobody else.
pub trait StreamCore {
    /// What the peer said that is not the core's own business.
    type Message;

    /// The next bytes came from the peer. Only while [`StreamCore::is_taking`].
    fn handle_bytes(&mut self, now: Time, bytes: Payload);

    /// Where the next bytes are to lie in the end, if that is known: behind those that are there, so many at most, for which
    /// there is capacity. Bytes that are read into it are not moved again. [`StreamCore::handle_appended`] tells of them, and
    /// [`StreamCore::handle_bytes`] of what came behind them. Only while [`StreamCore::is_taking`].
    fn room(&mut self) -> Option<(&mut Vec<u8>, usize)> {
        None
    }

    /// The next bytes came from the peer, and lie where [`StreamCore::room`] said.
    fn handle_appended(&mut self, now: Time, count: usize) {
        let _ = (now, count);
    }

    /// `now` reached what [`StreamCore::poll_timeout`] said. Calling it early is harmless.
    fn handle_timeout(&mut self, now: Time);

    /// The end, by us: what the peer should know of it is left in [`StreamCore::poll_transmit`].
    fn handle_close(&mut self, now: Time);

    /// The next bytes to send; `None` when there are none left.
    fn poll_transmit(&mut self) -> Option<Piece>;

    /// The next thing that the peer said, in order; `None` when there is none left, or [`StreamCore::is_behind`].
    fn poll_message(&mut self) -> Option<Self::Message>;

    /// Whether there is more to be looked at, after so much that was nobody's business that others should have their turn.
    fn is_behind(&self) -> bool {
        false
    }

    /// When [`StreamCore::handle_timeout`] wants to be called; `None` for never.
    fn poll_timeout(&self) -> Option<Time>;

    /// Whether more bytes may come. While not, the peer shall wait: nothing is to be read.
    fn is_taking(&self) -> bool;

    /// Whether the connection is to be closed once everything is sent.
    fn is_over(&self) -> bool;
}

/// Bytes to send: a header of the core's own, and a payload that others may share.
#[derive(Clone, Debug, Default)]
pub struct Piece {
    /// What goes before the payload.
    pub header: WireHeader,
    /// The rest, never copied.
    pub payload: Payload,
}

impl Piece {
    /// Length of the whole in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.header.len() + self.payload.len()
    }

    /// Whether there is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Bytes that are shared, not copied.
#[derive(Clone, Default)]
pub struct Payload {
    /// `None` for no bytes.
    memory: Option<Arc<Vec<u8>>>,
    range: Range<usize>,
}

impl Payload {
    /// A part of it, sharing the memory.
    ///
    /// # Panics
    /// If `range` lies outside.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len(), "{range:?} outside the payload");
        if range.is_empty() {
            return Self::default();
        }
        Self { memory: self.memory.clone(), range: self.range.start + range.start..self.range.start + range.end }
    }

    /// The same bytes as `part`, which lies in it, sharing the memory.
    ///
    /// # Panics
    /// If `part` lies elsewhere.
    #[must_use]
    pub fn part(&self, part: &[u8]) -> Self {
        let start = (part.as_ptr() as usize).wrapping_sub(self.as_ptr() as usize);
        self.slice(start..start.wrapping_add(part.len()))
    }

    /// Bytes of the memory that it keeps.
    #[must_use]
    pub fn kept_bytes(&self) -> usize {
        self.memory.as_ref().map_or(0, |memory| memory.capacity())
    }
}

impl From<&[u8]> for Payload {
    fn from(bytes: &[u8]) -> Self {
        bytes.to_vec().into()
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        let range = 0..bytes.len();
        Self { memory: (!bytes.is_empty()).then(|| Arc::new(bytes)), range }
    }
}

impl Deref for Payload {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.memory.as_ref().and_then(|memory| memory.get(self.range.clone())).unwrap_or_default()
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Payload {}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payload").field("len", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_parts_are_the_same_bytes_wherever_they_lie() {
        let whole = Payload::from(&b"0123456789"[..]);
        let part = whole.slice(2..9);
        assert_eq!(&*part, b"2345678");
        assert_eq!(&*part.slice(1..3), b"34");
        assert_eq!(&*part.part(&whole[4..6]), b"45");
        assert!(part.slice(7..7).is_empty());
        assert_eq!((part.kept_bytes(), Payload::default().kept_bytes()), (10, 0));
    }
}
