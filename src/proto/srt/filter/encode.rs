//! The sending direction: gathers what goes out for the first time, and makes the repairs.

use arrayvec::ArrayVec;

use super::Member;
use super::config::Settled;
use super::parity::Parity;
use super::shape::{Shape, Way};
use crate::bus::{Meta, Packet, Pool};

/// Makes repairs.
#[derive(Debug)]
pub(in super::super) struct Encoder {
    shape: Shape,
    first: u64,
    row: Gathering,
    /// Groups of the same column come one after the other.
    columns: Box<[Gathering]>,
    /// For the packet handled last.
    ready: ArrayVec<Repair, 2>,
}

/// A repair but for what all packets of the connection have.
#[derive(Clone, Debug)]
pub(in super::super) struct Repair {
    /// Extended, of the last packet of the group.
    pub(in super::super) sequence: u64,
    /// Goes into the header's field, but is none.
    pub(in super::super) timestamp: u32,
    pub(in super::super) packet: Packet,
}

/// A group whose packets are going out.
#[derive(Debug)]
struct Gathering {
    group: u64,
    count: u64,
    parity: Parity,
}

impl Encoder {
    /// For packets from the extended number `first` on, with at most `payload_max` bytes.
    pub(super) fn new(settled: &Settled, first: u64, payload_max: usize) -> Self {
        let shape = Shape::new(settled);
        let columns = if shape.has_columns() { shape.columns() } else { 0 };
        let gathering = || Gathering { group: 0, count: 0, parity: Parity::new(payload_max) };
        Self {
            shape,
            first,
            row: gathering(),
            columns: (0..columns).map(|_| gathering()).collect(),
            ready: ArrayVec::new(),
        }
    }

    /// A packet goes out for the first time, later than all before it. What [`Encoder::poll`] then has goes behind it.
    /// A group of which a packet was given up before it went out has no repair. Says whether there were buffers for all
    /// repairs.
    pub(in super::super) fn handle(&mut self, pool: &Pool, member: &Member<'_>) -> bool {
        let Some(place) = member.sequence.checked_sub(self.first) else { return true };
        // Whoever does not poll loses what belongs to the past.
        self.ready.clear();
        let mut has_buffers = true;
        // libsrt sends the column's first, too.
        for way in [Way::Column, Way::Row] {
            let Some(group) = self.shape.group(way, place) else { continue };
            let column = (place % self.shape.columns()) as u8;
            let (gathering, index) = match way {
                Way::Row => (Some(&mut self.row), ROW_INDEX),
                Way::Column => (self.columns.get_mut(usize::from(column)), column),
            };
            let Some(gathering) = gathering else { continue };
            gathering.add(group, member);
            let span = self.shape.span(way, group);
            if place != span.last() || gathering.count != span.len {
                continue;
            }
            match gathering.repair(pool, index, member.sequence) {
                Some(repair) => self.ready.push(repair),
                None => has_buffers = false,
            }
        }
        has_buffers
    }

    /// The next repair to send; `None` when there is none left.
    pub(in super::super) fn poll(&mut self) -> Option<Repair> {
        self.ready.pop_at(0)
    }
}

impl Gathering {
    fn add(&mut self, group: u64, member: &Member<'_>) {
        if self.group != group || self.count == 0 {
            self.parity.clear();
            (self.group, self.count) = (group, 0);
        }
        self.parity.add(member);
        self.count += 1;
    }

    fn repair(&self, pool: &Pool, index: u8, sequence: u64) -> Option<Repair> {
        let len = self.parity.repair_len();
        let mut buffer = pool.take(len)?;
        self.parity.write(index, &mut buffer[..len]);
        let packet = Packet::new(buffer, 0..len, Meta::default());
        Some(Repair { sequence, timestamp: self.parity.timestamp(), packet })
    }
}

/// Instead of a column's number.
pub(super) const ROW_INDEX: u8 = 0xff;
