//! The receiving direction: gathers what comes, rebuilds what does not, and tells what cannot be rebuilt.
//!
//! Only what lies in a window up to the highest place heard of is looked at. Groups lie in rings that are long enough for
//! all that touch the window; the slot of a newer group is taken from an older one without looking at it, so that a jump
//! costs no more than a step.

use std::collections::VecDeque;
use std::ops::{Range, RangeInclusive};

use super::super::missing::Bits;
use super::super::packet::{DataHeader, KeyFlag};
use super::Member;
use super::config::Settled;
use super::encode::ROW_INDEX;
use super::parity::Parity;
use super::shape::{Shape, Span, Way};
use crate::bus::{Meta, Packet, Pool};
use crate::units::Time;

/// Rebuilds what got lost.
#[derive(Debug)]
pub(in super::super) struct Decoder {
    shape: Shape,
    first: u64,
    pool: Pool,
    /// Places looked at, a power of two.
    window: u64,
    /// One more than the highest place heard of.
    end: u64,
    /// Those of the window that came or were rebuilt.
    seen: Bits,
    rows: Box<[Group]>,
    columns: Box<[Group]>,
    /// Groups that end before this place were given up.
    swept: u64,
    /// The packet with the highest place that came.
    latest: Option<Latest>,
    rebuilt: VecDeque<Rebuilt>,
    lost: VecDeque<Range<u64>>,
    stats: Stats,
}

/// A packet that did not come, as it would have.
#[derive(Clone, Debug)]
pub(in super::super) struct Rebuilt {
    /// Extended.
    pub(in super::super) sequence: u64,
    /// From the packets around it: groups do not cover it.
    pub(in super::super) message_number: u32,
    /// The same.
    pub(in super::super) in_order: bool,
    pub(in super::super) timestamp: u32,
    pub(in super::super) key: KeyFlag,
    /// Its payload, and the arrival of the packet that it was rebuilt with.
    pub(in super::super) packet: Packet,
}

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Stats {
    /// Repairs that came (`pktRcvFilterExtra`), and the bytes of their payloads.
    pub(in super::super) repairs: u64,
    pub(in super::super) repair_bytes: u64,
    /// Packets rebuilt (`pktRcvFilterSupply`).
    pub(in super::super) rebuilt: u64,
    /// Packets that neither came nor could be rebuilt by the end of their groups (`pktRcvFilterLoss`; libsrt counts them
    /// only where it asks for them).
    pub(in super::super) lost: u64,
    /// Repairs that belong to no group, and groups in which other packets were than belong there.
    pub(in super::super) refused: u64,
    /// Packets not rebuilt because there was no buffer.
    pub(in super::super) no_buffer: u64,
}

#[derive(Clone, Copy, Debug)]
struct Latest {
    place: u64,
    message_number: u32,
    in_order: bool,
}

#[derive(Debug)]
struct Group {
    number: u64,
    /// Packets in the parity.
    count: u64,
    has_repair: bool,
    /// Its missing packet was rebuilt, or cannot be.
    is_spent: bool,
    parity: Parity,
}

impl Decoder {
    /// For packets from the extended number `first` on, with at most `payload_max` bytes.
    pub(super) fn new(settled: &Settled, first: u64, payload_max: usize, pool: Pool) -> Self {
        let shape = Shape::new(settled);
        let history = match (shape.has_columns(), shape.is_staircase()) {
            (true, true) => 3,
            (true, false) => 2,
            (false, _) => 4,
        };
        let window = (history * shape.matrix()).max(WINDOW_MIN).next_power_of_two();
        // What touches the window may begin before it and end behind it.
        let rows = if settled.has_row_repairs { window / shape.columns() + 2 } else { 0 };
        let columns = if shape.has_columns() { (window / shape.matrix() + 2) * shape.columns() } else { 0 };
        let groups = |count: u64| (0..count).map(|number| Group::new(number, payload_max)).collect();
        Self {
            shape,
            first,
            pool,
            window,
            end: 0,
            seen: Bits::new(window as usize),
            rows: groups(rows),
            columns: groups(columns),
            swept: 0,
            latest: None,
            rebuilt: VecDeque::new(),
            lost: VecDeque::new(),
            stats: Stats::default(),
        }
    }

    /// A data packet came. Packets that came before or are too old change nothing.
    pub(in super::super) fn handle_data(&mut self, arrival: Time, member: &Member<'_>) {
        let Some(place) = self.enter(member.sequence) else { return };
        if !self.seen.insert(place) {
            return;
        }
        if self.latest.is_none_or(|latest| latest.place < place) {
            let Member { message_number, in_order, .. } = *member;
            self.latest = Some(Latest { place, message_number, in_order });
        }
        for way in [Way::Row, Way::Column] {
            if let Some(group) = self.shape.group(way, place) {
                if let Some(group) = claim(self.groups_mut(way), group) {
                    group.add(member);
                }
                self.rebuild(way, group, arrival);
            }
        }
        self.sweep(place);
    }

    /// A repair came.
    pub(in super::super) fn handle_repair(&mut self, arrival: Time, sequence: u64, timestamp: u32, repair: &[u8]) {
        self.stats.repairs += 1;
        self.stats.repair_bytes += repair.len() as u64;
        let Some((way, number)) = self.group_of(sequence, repair) else {
            self.stats.refused += 1;
            return;
        };
        let Some(place) = self.enter(sequence) else { return };
        if let Some(group) = claim(self.groups_mut(way), number).filter(|group| !group.has_repair) {
            group.has_repair = group.parity.add_repair(timestamp, repair);
            self.rebuild(way, number, arrival);
        }
        self.sweep(place);
    }

    /// The next packet rebuilt; `None` when there is none left.
    pub(in super::super) fn poll_rebuilt(&mut self) -> Option<Rebuilt> {
        self.rebuilt.pop_front()
    }

    /// The next packets, by their extended numbers, that will not be rebuilt any more. Some of them may have come.
    pub(in super::super) fn poll_lost(&mut self) -> Option<RangeInclusive<u64>> {
        let lost = self.lost.pop_front()?;
        Some(self.first + lost.start..=self.first + lost.end - 1)
    }

    pub(in super::super) const fn stats(&self) -> Stats {
        self.stats
    }

    /// The group that a repair says it belongs to; `None` if its number is not that of such a group's last packet.
    fn group_of(&self, sequence: u64, repair: &[u8]) -> Option<(Way, u64)> {
        let place = sequence.checked_sub(self.first)?;
        let index = *repair.first()?;
        let way = if index == ROW_INDEX { Way::Row } else { Way::Column };
        let group = self.shape.group(way, place)?;
        let is_column = way == Way::Row || u64::from(index) == place % self.shape.columns();
        let is_last = self.shape.span(way, group).last() == place;
        (is_column && is_last && repair.len() > super::HEADER_BYTES).then_some((way, group))
    }

    /// The place of a packet that is not too old; moves the window up to it.
    fn enter(&mut self, sequence: u64) -> Option<u64> {
        let place = sequence.checked_sub(self.first)?;
        if place >= self.end {
            let start = (place + 1).saturating_sub(self.window);
            // What is not even looked at was lost as a whole.
            self.stats.lost += start.saturating_sub(self.end);
            self.seen.remove_range(self.end.max(start)..place + 1);
            self.end = place + 1;
        }
        (place >= self.window_start()).then_some(place)
    }

    const fn window_start(&self) -> u64 {
        self.end.saturating_sub(self.window)
    }

    const fn groups_mut(&mut self, way: Way) -> &mut [Group] {
        match way {
            Way::Row => &mut self.rows,
            Way::Column => &mut self.columns,
        }
    }

    /// Rebuilds what is missing of a group, if that is one packet, and then of those that have become whole but for one
    /// by that. Each turn makes one more place of the window seen, which bounds it.
    fn rebuild(&mut self, mut way: Way, mut group: u64, arrival: Time) {
        while let Some(place) = self.rebuild_one(way, group, arrival) {
            way = if way == Way::Row { Way::Column } else { Way::Row };
            let Some(other) = self.shape.group(way, place) else { return };
            group = other;
        }
    }

    /// Rebuilds the packet that is missing of a group, and adds it to its other group.
    fn rebuild_one(&mut self, way: Way, number: u64, arrival: Time) -> Option<u64> {
        let span = self.shape.span(way, number);
        let is_in_window = span.first >= self.window_start();
        let groups = match way {
            Way::Row => &mut self.rows,
            Way::Column => &mut self.columns,
        };
        let group = claim(groups, number)?;
        let is_solvable = group.has_repair && !group.is_spent && group.count + 1 == span.len;
        if !is_solvable || !is_in_window {
            return None;
        }
        let place = span.places().find(|place| !self.seen.contains(*place))?;
        group.is_spent = true;
        let Some(solved) = group.parity.solve() else {
            self.stats.refused += 1;
            return None;
        };
        let Some(packet) = self.pool.copy(solved.payload, Meta { arrival, ..Meta::default() }) else {
            self.stats.no_buffer += 1;
            return None;
        };
        let rebuilt = Rebuilt {
            sequence: self.first + place,
            message_number: message_number(self.latest, place),
            in_order: self.latest.is_some_and(|latest| latest.in_order),
            timestamp: solved.timestamp,
            key: solved.key,
            packet,
        };
        self.seen.insert(place);
        self.stats.rebuilt += 1;
        let other = if way == Way::Row { Way::Column } else { Way::Row };
        if let Some(number) = self.shape.group(other, place)
            && let Some(group) = claim(self.groups_mut(other), number)
        {
            group.add(&rebuilt.member());
        }
        self.rebuilt.push_back(rebuilt);
        Some(place)
    }

    /// Gives up what belongs to groups that end before `place`, as their repairs have come or never will. With rows only
    /// libsrt waits for another third of a row, and so do we.
    fn sweep(&mut self, place: u64) {
        let until = if self.shape.has_columns() { place } else { place.saturating_sub(self.shape.columns() / 3 + 1) };
        let start = self.window_start();
        if self.swept < start {
            self.give_up(self.swept..start);
            self.swept = start;
        }
        while self.swept < until {
            self.give_up_ending_at(self.swept);
            self.swept += 1;
        }
    }

    fn give_up_ending_at(&mut self, place: u64) {
        if let Some(column) = self.shape.group(Way::Column, place) {
            let span = self.shape.span(Way::Column, column);
            if span.last() == place {
                self.give_up_missing(span);
            }
        }
        let row = self.shape.row_span(place / self.shape.columns());
        if row.last() == place {
            // With columns a row is not the last hope, except for what belongs to no column.
            for missing in row.places() {
                if self.shape.group(Way::Column, missing).is_none() {
                    self.give_up_missing(Span { first: missing, step: 1, len: 1 });
                }
            }
        }
    }

    fn give_up_missing(&mut self, span: Span) {
        let start = self.window_start();
        for place in span.places().filter(|place| *place >= start) {
            if !self.seen.contains(place) {
                self.stats.lost += 1;
                self.give_up(place..place + 1);
            }
        }
    }

    fn give_up(&mut self, places: Range<u64>) {
        match self.lost.back_mut() {
            Some(last) if last.end == places.start => last.end = places.end,
            _ => self.lost.push_back(places),
        }
    }
}

impl Rebuilt {
    /// The header that it would have come with.
    pub(in super::super) const fn header(&self, destination: u32) -> DataHeader {
        let Self { message_number, in_order, timestamp, key, .. } = *self;
        let sequence = crate::units::Seq::new(self.sequence as u32);
        DataHeader { key, in_order, ..DataHeader::whole(sequence, message_number, timestamp, destination) }
    }

    fn member(&self) -> Member<'_> {
        let Self { sequence, message_number, in_order, timestamp, key, .. } = *self;
        Member { sequence, message_number, in_order, timestamp, key, payload: &self.packet }
    }
}

impl Group {
    fn new(number: u64, payload_max: usize) -> Self {
        Self { number, count: 0, has_repair: false, is_spent: false, parity: Parity::new(payload_max) }
    }

    fn add(&mut self, member: &Member<'_>) {
        self.parity.add(member);
        self.count += 1;
    }
}

/// The group of that number; `None` if a newer one has its slot.
fn claim(groups: &mut [Group], number: u64) -> Option<&mut Group> {
    let slot = number.checked_rem(groups.len() as u64)?;
    let group = groups.get_mut(slot as usize)?;
    if group.number < number {
        group.parity.clear();
        (group.number, group.count, group.has_repair, group.is_spent) = (number, 0, false, false);
    }
    (group.number == number).then_some(group)
}

/// Message numbers go along with sequence numbers in live mode, from 1 to the last of 26 bits and then from 1 again.
fn message_number(latest: Option<Latest>, place: u64) -> u32 {
    let Some(latest) = latest else { return 1 };
    let steps = place.wrapping_sub(latest.place) as i64;
    let number = (i64::from(latest.message_number) - 1).saturating_add(steps).rem_euclid(MESSAGE_NUMBER_MAX);
    number as u32 + 1
}

/// One word of the bits.
const WINDOW_MIN: u64 = 64;
const MESSAGE_NUMBER_MAX: i64 = (1 << 26) - 1;
