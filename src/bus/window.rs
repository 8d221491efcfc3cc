//! `Window`: a ring of packets by sequence number, from the lowest one still wanted on.
//!
//! ```text
//!   forgotten | passed and missed |  held and free   |      free      | beyond
//!             |                start               end          start + capacity
//!       end - capacity
//! ```
//!
//! It knows which numbers came and holds their packets. When to give a number up, and what that means, is its owner's
//! business.

use std::ops::Range;

/// Holds items of type `T` by their extended sequence number, and remembers of numbers below its start whether they came.
///
/// All memory is taken at the start. Every operation costs the same however much is held, except that finding the next
/// held number behind a long gap, and moving far ahead, look at 64 numbers a step.
#[derive(Debug)]
pub struct Window<T> {
    /// A power of two; the item with number `n` lies in slot `n` modulo their count.
    slots: Box<[Option<T>]>,
    /// One bit for each slot, about the one number from `end - capacity` up to `end` that lies there: whether it came.
    came: Box<[u64]>,
    /// Nothing is remembered below.
    known: u64,
    start: u64,
    end: u64,
    held: usize,
    /// The lowest number held; anything when none is.
    first: u64,
}

/// Where a number lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At or above the start, and not here: may be inserted.
    Free,
    /// Here.
    Held,
    /// Below the start: came, and was taken or passed.
    Passed,
    /// Below the start: was skipped and has not come since.
    Missed,
    /// Too far below the start to know, or below the first start.
    Forgotten,
    /// Too far above the start to fit.
    Beyond,
}

impl<T> Window<T> {
    /// Fewest items a window holds: one word of the bits beside them.
    pub const CAPACITY_MIN: usize = 64;

    /// Most items a window holds: further apart, numbers of 16 bits have no order.
    pub const CAPACITY_MAX: usize = 32_768;

    /// An empty window that starts at `start`, for at least `capacity` items: rounded up to a power of two within
    /// [`Window::CAPACITY_MIN`] and [`Window::CAPACITY_MAX`].
    #[must_use]
    pub fn new(capacity: usize, start: u64) -> Self {
        let capacity = capacity.clamp(Self::CAPACITY_MIN, Self::CAPACITY_MAX).next_power_of_two();
        Self {
            slots: std::iter::repeat_with(|| None).take(capacity).collect(),
            came: vec![0; capacity / 64].into(),
            known: start,
            start,
            end: start,
            held: 0,
            first: start,
        }
    }

    /// How far numbers that fit lie apart, at most.
    #[must_use]
    pub const fn capacity(&self) -> u64 {
        self.slots.len() as u64
    }

    /// The lowest number not taken, passed or skipped.
    #[must_use]
    pub const fn start(&self) -> u64 {
        self.start
    }

    /// One more than the highest number that came or was skipped.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.end
    }

    /// Items held.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.held
    }

    /// Whether nothing is held.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Where `number` lies.
    #[must_use]
    pub const fn place(&self, number: u64) -> Place {
        if number >= self.end {
            return if number - self.start < self.capacity() { Place::Free } else { Place::Beyond };
        }
        if number < self.known || self.end - number > self.capacity() {
            return Place::Forgotten;
        }
        match (number >= self.start, self.has_come(number)) {
            (true, true) => Place::Held,
            (true, false) => Place::Free,
            (false, true) => Place::Passed,
            (false, false) => Place::Missed,
        }
    }

    /// Holds an item from now on.
    ///
    /// # Errors
    /// The item, if its number is not [`Place::Free`].
    pub fn insert(&mut self, number: u64, item: T) -> Result<(), T> {
        if self.place(number) != Place::Free {
            return Err(item);
        }
        if number >= self.end {
            self.clear(self.end..number);
            self.end = number + 1;
        }
        self.set(number);
        let slot = self.slot(number);
        self.slots[slot] = Some(item);
        self.first = if self.held == 0 { number } else { self.first.min(number) };
        self.held += 1;
        Ok(())
    }

    /// The number at the start came and needs no holding: moves past it. Without effect if it is held.
    pub fn pass(&mut self) {
        if self.held > 0 && self.first == self.start {
            return;
        }
        self.set(self.start);
        self.start += 1;
        self.end = self.end.max(self.start);
    }

    /// Takes the item at the start and moves past it; `None` if that one is not held.
    pub fn take(&mut self) -> Option<T> {
        if self.held == 0 || self.first != self.start {
            return None;
        }
        let slot = self.slot(self.start);
        let item = self.slots[slot].take();
        self.held -= 1;
        self.start += 1;
        if self.held > 0 {
            self.first = self.next_held(self.start).unwrap_or(self.start);
        }
        item
    }

    /// Gives up what is missing, up to `number` or the lowest held one, and starts there; says which numbers that were.
    /// Nothing happens if that is not ahead.
    pub fn skip_to(&mut self, number: u64) -> Range<u64> {
        let from = self.start;
        let target = if self.held > 0 { number.min(self.first) } else { number };
        if target <= from {
            return from..from;
        }
        if target > self.end {
            self.clear(self.end.max(target.saturating_sub(self.capacity()))..target);
            self.end = target;
        }
        self.start = target;
        from..target
    }

    /// A number that was [`Place::Missed`] came after all and is [`Place::Passed`] from now on; false, and no change, for
    /// all others.
    pub fn note(&mut self, number: u64) -> bool {
        let is_missed = self.place(number) == Place::Missed;
        if is_missed {
            self.set(number);
        }
        is_missed
    }

    /// The lowest held number and its item.
    #[must_use]
    pub fn first(&self) -> Option<(u64, &T)> {
        if self.held == 0 {
            return None;
        }
        self.slots[self.slot(self.first)].as_ref().map(|item| (self.first, item))
    }

    /// The item with this number, if it is held.
    #[must_use]
    pub fn get(&self, number: u64) -> Option<&T> {
        if self.place(number) != Place::Held {
            return None;
        }
        self.slots[self.slot(number)].as_ref()
    }

    /// The lowest held number that is not below `from`.
    #[must_use]
    pub fn next_held(&self, from: u64) -> Option<u64> {
        let mut from = from.max(self.start);
        while from < self.end {
            let slot = self.slot(from);
            let word = self.came[slot / 64] >> (slot % 64);
            if word != 0 {
                let number = from + u64::from(word.trailing_zeros());
                return (number < self.end).then_some(number);
            }
            from += 64 - slot as u64 % 64;
        }
        None
    }

    /// Drops all that is held, forgets what came, and starts at `start`.
    pub fn restart(&mut self, start: u64) {
        let mut at = self.start;
        while let Some(number) = self.next_held(at) {
            let slot = self.slot(number);
            self.slots[slot] = None;
            at = number + 1;
        }
        self.came.fill(0);
        (self.known, self.start, self.end, self.first, self.held) = (start, start, start, start, 0);
    }

    const fn slot(&self, number: u64) -> usize {
        number as usize & (self.slots.len() - 1)
    }

    const fn has_come(&self, number: u64) -> bool {
        let slot = self.slot(number);
        self.came[slot / 64] & 1 << (slot % 64) != 0
    }

    fn set(&mut self, number: u64) {
        let slot = self.slot(number);
        self.came[slot / 64] |= 1 << (slot % 64);
    }

    /// Nothing is known to have come of `numbers`, which are no more than fit.
    fn clear(&mut self, numbers: Range<u64>) {
        let Range { start: mut from, end } = numbers;
        while from < end {
            let slot = self.slot(from);
            let len = (64 - slot as u64 % 64).min(end - from);
            self.came[slot / 64] &= !((u64::MAX >> (64 - len)) << (slot % 64));
            from += len;
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn capacity_is_a_power_of_two_within_its_bounds() {
        for (wanted, given) in [(0, 64), (64, 64), (65, 128), (8_192, 8_192), (1_000_000, 32_768)] {
            assert_eq!(Window::<u8>::new(wanted, 0).capacity(), given);
        }
    }

    #[test]
    fn what_is_missing_is_found_and_skipped() {
        let mut window = Window::new(64, 100);
        window.pass();
        assert_eq!(window.insert(104, 'd'), Ok(()));
        assert_eq!(window.insert(102, 'b'), Ok(()));
        assert_eq!(window.take(), None);
        assert_eq!((window.first(), window.next_held(103)), (Some((102, &'b')), Some(104)));
        assert_eq!(window.skip_to(110), 101..102);
        assert_eq!((window.take(), window.take(), window.place(103)), (Some('b'), None, Place::Free));
        assert_eq!(window.skip_to(110), 103..104);
        assert_eq!((window.take(), window.len(), window.start(), window.end()), (Some('d'), 0, 105, 105));
        assert_eq!(window.skip_to(110), 105..110);
        let places = [99, 100, 101, 104, 109, 110, 173, 174].map(|number| window.place(number));
        assert_eq!(places[..4], [Place::Forgotten, Place::Passed, Place::Missed, Place::Passed]);
        assert_eq!(places[4..], [Place::Missed, Place::Free, Place::Free, Place::Beyond]);
        assert!(window.note(101) && !window.note(101) && !window.note(110));
    }

    #[test]
    fn items_are_dropped_with_a_restart() {
        let item = std::rc::Rc::new(());
        let mut window = Window::new(64, 0);
        for number in [1, 2, 40, 63] {
            window.insert(number, std::rc::Rc::clone(&item)).unwrap();
        }
        window.restart(1_000);
        assert_eq!(std::rc::Rc::strong_count(&item), 1);
        assert_eq!((window.place(63), window.first()), (Place::Forgotten, None));
    }

    #[derive(Clone, Debug)]
    enum Operation {
        Insert(i64),
        Pass,
        Take,
        Skip(i64),
        Note(i64),
        Restart(u64),
    }

    proptest! {
        #[test]
        fn any_operations_agree_with_sets_that_remember_everything(
            start in 0u64..300,
            operations in prop::collection::vec(operation(), 1..400),
        ) {
            let mut window = Window::new(64, start);
            let mut model = Model { known: start, start, end: start, ..Model::default() };
            for operation in operations {
                let near = |by: i64| model.start.saturating_add_signed(by);
                match operation {
                    Operation::Insert(by) => {
                        let number = near(by);
                        prop_assert_eq!(window.insert(number, number), model.insert(number));
                    }
                    Operation::Pass => {
                        window.pass();
                        model.pass();
                    }
                    Operation::Take => prop_assert_eq!(window.take(), model.take()),
                    Operation::Skip(by) => {
                        let number = near(by);
                        prop_assert_eq!(window.skip_to(number), model.skip_to(number));
                    }
                    Operation::Note(by) => {
                        let number = near(by);
                        prop_assert_eq!(window.note(number), model.note(number));
                    }
                    Operation::Restart(start) => {
                        window.restart(start);
                        model = Model { known: start, start, end: start, ..Model::default() };
                    }
                }
                prop_assert_eq!(window.first().map(|(number, item)| (number, *item)), model.first());
                prop_assert_eq!((window.len(), window.start(), window.end()), (model.held.len(), model.start, model.end));
                for number in model.start.saturating_sub(80)..model.start + 80 {
                    prop_assert_eq!(window.place(number), model.place(number), "{}", number);
                    prop_assert_eq!(window.get(number), model.held.get(&number));
                    let next = model.held.range(number..).next().map(|(number, _)| *number);
                    prop_assert_eq!(window.next_held(number), next);
                }
            }
        }
    }

    fn operation() -> impl Strategy<Value = Operation> {
        prop_oneof![
            8 => (-70i64..70).prop_map(Operation::Insert),
            3 => (0i64..6).prop_map(Operation::Insert),
            4 => Just(Operation::Pass),
            6 => Just(Operation::Take),
            3 => (-5i64..30).prop_map(Operation::Skip),
            1 => (0i64..400).prop_map(Operation::Skip),
            3 => (-70i64..3).prop_map(Operation::Note),
            1 => (0u64..1_000_000).prop_map(Operation::Restart),
        ]
    }

    #[derive(Default)]
    struct Model {
        known: u64,
        start: u64,
        end: u64,
        held: BTreeMap<u64, u64>,
        passed: BTreeSet<u64>,
    }

    impl Model {
        fn place(&self, number: u64) -> Place {
            if self.held.contains_key(&number) {
                Place::Held
            } else if number >= self.start + 64 {
                Place::Beyond
            } else if number >= self.start {
                Place::Free
            } else if number < self.known || number + 64 < self.end {
                Place::Forgotten
            } else if self.passed.contains(&number) {
                Place::Passed
            } else {
                Place::Missed
            }
        }

        fn first(&self) -> Option<(u64, u64)> {
            self.held.first_key_value().map(|(number, item)| (*number, *item))
        }

        fn insert(&mut self, number: u64) -> Result<(), u64> {
            if self.place(number) != Place::Free {
                return Err(number);
            }
            self.held.insert(number, number);
            self.end = self.end.max(number + 1);
            Ok(())
        }

        fn pass(&mut self) {
            if self.place(self.start) == Place::Free {
                self.move_past(self.start);
            }
        }

        fn take(&mut self) -> Option<u64> {
            let item = self.held.remove(&self.start)?;
            self.move_past(self.start);
            Some(item)
        }

        fn move_past(&mut self, number: u64) {
            self.passed.insert(number);
            self.start = number + 1;
            self.end = self.end.max(self.start);
        }

        fn skip_to(&mut self, number: u64) -> Range<u64> {
            let from = self.start;
            let target = self.first().map_or(number, |(first, _)| number.min(first)).max(from);
            self.start = target;
            self.end = self.end.max(target);
            from..target
        }

        fn note(&mut self, number: u64) -> bool {
            self.place(number) == Place::Missed && self.passed.insert(number)
        }
    }
}
