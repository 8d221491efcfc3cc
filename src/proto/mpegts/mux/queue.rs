//! PES packets of one track that wait to go out, byte behind byte.

use std::collections::VecDeque;

/// A PES packet, or what is left of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unit {
    /// Bytes that have not gone out.
    pub(super) left: usize,
    /// Nothing of it has gone out.
    pub(super) is_whole: bool,
    /// DTS on the stream's clock, in unwrapped ticks of 27 MHz.
    pub(super) dts_27m: u64,
    /// Not to go out before that.
    pub(super) not_before_27m: u64,
    /// Not worth going out any more after that, if nothing of it has.
    pub(super) not_after_27m: u64,
    /// A decoder may start at it.
    pub(super) random_access: bool,
}

/// Bytes and where each PES packet ends.
#[derive(Debug, Default)]
pub(super) struct Queue {
    bytes: Vec<u8>,
    /// What has gone out and not been moved away.
    head: usize,
    units: VecDeque<Unit>,
}

impl Queue {
    /// Bytes that wait.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.bytes.len() - self.head
    }

    /// PES packets that wait.
    pub(super) fn waiting(&self) -> usize {
        self.units.len()
    }

    pub(super) fn front(&self) -> Option<&Unit> {
        self.units.front()
    }

    /// A PES packet is about to be written to the [`Queue::writer`], from the index given back on;
    /// [`Queue::commit`] or [`Queue::take_back`] follows.
    pub(super) fn begin(&mut self) -> usize {
        // Moving at most as much as has gone out costs each byte no more than one more copy.
        if self.head >= self.waiting_bytes() {
            self.bytes.drain(..self.head);
            self.head = 0;
        }
        self.bytes.len()
    }

    pub(super) const fn writer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// What was written since becomes a PES packet.
    pub(super) fn commit(&mut self, unit: Unit) {
        self.units.push_back(unit);
    }

    /// What was written from `start` on goes away.
    pub(super) fn take_back(&mut self, start: usize) {
        self.bytes.truncate(start);
    }

    /// The bytes of the first PES packet that have not gone out.
    pub(super) fn front_bytes(&self) -> &[u8] {
        let left = self.front().map_or(0, |unit| unit.left);
        self.bytes.get(self.head..self.head + left).unwrap_or_default()
    }

    /// So many of them have. Gives the PES packet back if that was its end.
    pub(super) fn advance(&mut self, count: usize) -> Option<Unit> {
        self.head += count;
        let unit = self.units.front_mut()?;
        unit.left = unit.left.saturating_sub(count);
        unit.is_whole = false;
        if unit.left == 0 { self.units.pop_front() } else { None }
    }

    /// Forgets the first PES packet.
    pub(super) fn drop_front(&mut self) {
        if let Some(unit) = self.units.pop_front() {
            self.head += unit.left;
        }
    }

    /// Forgets everything, and how many whole PES packets that were.
    pub(super) fn clear(&mut self) -> u64 {
        let whole = self.units.iter().filter(|unit| unit.is_whole).count();
        *self = Self::default();
        whole as u64
    }
}
