//! PES packets of one track that wait to go out, byte behind byte: those that were made here, and parts of access units
//! where they lie.

use std::collections::VecDeque;

use crate::proto::Payload;
use crate::proto::mpegts::packet::PAYLOAD_BYTES;

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
    parts: VecDeque<Part>,
    /// The bytes of [`Part::Own`], one part behind the other.
    own: Vec<u8>,
    /// What of these has gone out and not been moved away.
    head: usize,
    waiting_bytes: usize,
    units: VecDeque<Unit>,
}

/// For the bytes of a TS packet that lie in several places.
pub(super) type Room = Option<[u8; PAYLOAD_BYTES]>;

/// Bytes that follow each other and have not gone out.
#[derive(Debug)]
enum Part {
    /// So many of the queue's own.
    Own(usize),
    /// From there on.
    Shared(Payload, usize),
}

/// One or more PES packets that are being made, from the first byte on. Without [`Draft::commit`] there will have been none.
#[derive(Debug)]
pub(super) struct Draft<'queue> {
    queue: &'queue mut Queue,
    first_part: usize,
    first_own: usize,
    /// Where those of its own bytes begin that no part has yet.
    loose: usize,
    shared_bytes: usize,
    is_committed: bool,
}

impl Queue {
    /// Bytes that wait.
    pub(super) const fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// PES packets that wait.
    pub(super) fn waiting(&self) -> usize {
        self.units.len()
    }

    pub(super) fn front(&self) -> Option<&Unit> {
        self.units.front()
    }

    /// More is to come behind what waits.
    pub(super) fn begin(&mut self) -> Draft<'_> {
        // Moving at most as much as has gone out costs each byte no more than one more copy.
        if self.head >= self.own.len() - self.head {
            self.own.drain(..self.head);
            self.head = 0;
        }
        let (first_part, first_own) = (self.parts.len(), self.own.len());
        Draft { queue: self, first_part, first_own, loose: first_own, shared_bytes: 0, is_committed: false }
    }

    /// The next bytes of the first PES packet that lie in one place.
    #[inline]
    pub(super) fn run(&self) -> &[u8] {
        let run = match self.parts.front() {
            Some(Part::Own(len)) => self.own.get(self.head..self.head + len),
            Some(Part::Shared(payload, at)) => payload.get(*at..),
            None => None,
        };
        let (run, left) = (run.unwrap_or_default(), self.front().map_or(0, |unit| unit.left));
        run.get(..left).unwrap_or(run)
    }

    /// The next bytes of the first PES packet: all, or as many as a TS packet holds and perhaps more. They are gathered in `room`
    /// if they lie in several places.
    #[inline]
    pub(super) fn next_payload<'a>(&'a self, room: &'a mut Room) -> &'a [u8] {
        let left = self.front().map_or(0, |unit| unit.left);
        let run = self.run();
        if run.len() >= left.min(PAYLOAD_BYTES) { run } else { self.gather(left, room.insert([0; PAYLOAD_BYTES])) }
    }

    fn gather<'a>(&self, left: usize, room: &'a mut [u8; PAYLOAD_BYTES]) -> &'a [u8] {
        let (wanted, mut filled) = (left.min(PAYLOAD_BYTES), 0);
        let mut own = self.own.get(self.head..).unwrap_or_default();
        for part in &self.parts {
            let bytes = match part {
                Part::Own(len) => own.split_off(..*len).unwrap_or_default(),
                Part::Shared(payload, at) => payload.get(*at..).unwrap_or_default(),
            };
            let count = bytes.len().min(wanted - filled);
            room[filled..filled + count].copy_from_slice(&bytes[..count]);
            filled += count;
            if filled == wanted {
                break;
            }
        }
        &room[..filled]
    }

    /// So many bytes of the first PES packet have gone out. Gives it back if that was its end.
    pub(super) fn advance(&mut self, count: usize) -> Option<Unit> {
        self.pass(count);
        let unit = self.units.front_mut()?;
        unit.left = unit.left.saturating_sub(count);
        unit.is_whole = false;
        if unit.left == 0 { self.units.pop_front() } else { None }
    }

    /// Forgets the first PES packet.
    pub(super) fn drop_front(&mut self) {
        if let Some(unit) = self.units.pop_front() {
            self.pass(unit.left);
        }
    }

    /// Forgets everything, and how many whole PES packets that were.
    pub(super) fn clear(&mut self) -> u64 {
        let whole = self.units.iter().filter(|unit| unit.is_whole).count();
        *self = Self::default();
        whole as u64
    }

    fn pass(&mut self, mut count: usize) {
        self.waiting_bytes -= count;
        while count > 0
            && let Some(part) = self.parts.front_mut()
        {
            let left = match part {
                Part::Own(len) => *len,
                Part::Shared(payload, at) => payload.len() - *at,
            };
            let passed = left.min(count);
            match part {
                Part::Own(len) => {
                    *len -= passed;
                    self.head += passed;
                }
                Part::Shared(_, at) => *at += passed,
            }
            if passed == left {
                self.parts.pop_front();
            }
            count -= passed;
        }
    }
}

impl Draft<'_> {
    /// Bytes that it has.
    pub(super) fn len(&self) -> usize {
        self.queue.own.len() - self.first_own + self.shared_bytes
    }

    /// Where bytes can be appended.
    pub(super) const fn own(&mut self) -> &mut Vec<u8> {
        &mut self.queue.own
    }

    /// Its bytes, as long as none are shared.
    pub(super) fn own_bytes(&mut self) -> &mut [u8] {
        &mut self.queue.own[self.first_own..]
    }

    /// Appends `bytes`, which lie in `whole`: without a copy where that is worth it, and would not keep far more
    /// memory than it has bytes for as long as it waits.
    pub(super) fn append_part(&mut self, whole: &Payload, bytes: &[u8]) {
        if bytes.len() < SHARED_BYTES_MIN || whole.kept_bytes() > KEPT_SHARE_MAX * whole.len() {
            self.queue.own.extend_from_slice(bytes);
            return;
        }
        let loose = self.queue.own.len() - self.loose;
        if loose > 0 {
            self.queue.parts.push_back(Part::Own(loose));
            self.loose += loose;
        }
        self.queue.parts.push_back(Part::Shared(whole.part(bytes), 0));
        self.shared_bytes += bytes.len();
    }

    /// What was appended is these PES packets, to their last byte.
    pub(super) fn commit(mut self, units: impl IntoIterator<Item = Unit>) {
        self.is_committed = true;
        let (loose, len) = (self.queue.own.len() - self.loose, self.len());
        match self.queue.parts.back_mut() {
            Some(Part::Own(before)) => *before += loose,
            _ if loose > 0 => self.queue.parts.push_back(Part::Own(loose)),
            _ => {}
        }
        self.queue.waiting_bytes += len;
        self.queue.units.extend(units);
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if !self.is_committed {
            self.queue.own.truncate(self.first_own);
            self.queue.parts.truncate(self.first_part);
        }
    }
}

/// Shorter parts are copied. Judgement: a copy of that costs as much as the two gathered TS packets that a part begins and ends
/// with.
const SHARED_BYTES_MIN: usize = 2_048;
/// Judgement: a message has little beside its picture, but it may have other tracks.
const KEPT_SHARE_MAX: usize = 2;

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    proptest! {
        /// Against a plain list of bytes; what is left out of a draft leaves nothing behind.
        #[test]
        fn what_was_appended_comes_out_whatever_parts_it_lies_in(
            rounds in vec(
                (
                    vec((any::<bool>(), 0..SHARED_BYTES_MIN, 0..2 * SHARED_BYTES_MIN), 0..5),
                    any::<bool>(),
                    vec(any::<Index>(), 0..60),
                    0..10_u8,
                ),
                0..60,
            ),
        ) {
            let whole: Payload = (0..3 * SHARED_BYTES_MIN).map(|n| ((n * n) >> 3) as u8).collect::<Vec<u8>>().into();
            let (mut queue, mut model) = (Queue::default(), VecDeque::new());
            for (parts, is_committed, steps, fate) in rounds {
                let (mut draft, mut expected) = (queue.begin(), Vec::new());
                for (is_shared, from, len) in parts {
                    let part = &whole[from..from + len];
                    match is_shared {
                        true => draft.append_part(&whole, part),
                        false => draft.own().extend_from_slice(part),
                    }
                    expected.extend_from_slice(part);
                }
                prop_assert_eq!(draft.len(), expected.len());
                if is_committed && !expected.is_empty() {
                    draft.commit([unit(expected.len())]);
                    model.push_back(expected);
                } else {
                    drop(draft);
                }
                for step in steps {
                    let Some(first) = model.front_mut() else { break };
                    let mut room = None;
                    let next = queue.next_payload(&mut room);
                    prop_assert!(next.len() >= first.len().min(PAYLOAD_BYTES));
                    prop_assert_eq!(next, &first[..next.len()]);
                    let count = 1 + step.index(next.len());
                    first.drain(..count);
                    prop_assert_eq!(queue.advance(count).is_some(), first.is_empty());
                    model.retain(|unit| !unit.is_empty());
                }
                if fate == 0 {
                    queue.drop_front();
                    model.pop_front();
                }
                prop_assert_eq!(queue.waiting_bytes(), model.iter().map(Vec::len).sum::<usize>());
                prop_assert_eq!(queue.waiting(), model.len());
            }
        }
    }

    #[test]
    fn long_parts_stay_where_they_are_unless_they_keep_much_else() {
        let bytes = [7; 10_000];
        let whole = Payload::from(bytes.to_vec());
        let of_much = Payload::from([7; 100_000].to_vec()).slice(0..10_000);
        for (payload, len, is_shared) in [(&whole, 9_000, true), (&whole, 900, false), (&of_much, 9_000, false)] {
            let mut queue = Queue::default();
            let mut draft = queue.begin();
            draft.append_part(payload, &payload[..len]);
            draft.commit([unit(len)]);
            assert_eq!(queue.run().as_ptr() == payload.as_ptr(), is_shared, "{len}");
            assert_eq!(queue.run(), &bytes[..len]);
        }
    }

    fn unit(left: usize) -> Unit {
        Unit { left, is_whole: true, dts_27m: 0, not_before_27m: 0, not_after_27m: 0, random_access: false }
    }
}
