//! Rebuilds media packets that got lost, with the FEC packets that came beside them.
//!
//! ```text
//!  FEC packet --> nothing missing --> dropped
//!             --> one missing ------> is a later packet there? --yes--> rebuilt, and counts for its other group
//!             |                           |no: it may be on its way
//!             |                           +--> held --- a later one came, or the hold is over --> rebuilt
//!             +-> more missing ----> live group: each packet that comes counts, until one is missing
//! ```
//!
//! Media packets are referred to, never copied, while they are at most 640 packets behind the latest.

use std::collections::VecDeque;
use std::time::Duration;

use super::header::{Direction, FecHeader, HEADER_BYTES, Recovery};
use super::xor;
use crate::bus::{Meta, Packet, Pool};
use crate::proto::rtp;
use crate::units::{Seq, Time};

/// FEC packets and media in, what is missing of the media out.
///
/// Whatever fills a gap, be it a retransmission or another leg, is handed in like any other media packet.
#[derive(Debug)]
pub struct Decoder {
    pool: Pool,
    /// The packet with number `n` lies in slot `n` modulo their count.
    slots: Box<[Slot]>,
    /// The group with id `n` lies at `n` modulo their count; an id that is not found there is of one that is over.
    groups: Box<[Group]>,
    next_id: u64,
    /// The lowest number looked at, and one more than the highest there is; `None` before the first packet.
    range: Option<(u64, u64)>,
    /// Of the latest media packet.
    ssrc: u32,
    /// Groups that have just become whole but for one.
    solvable: Vec<u64>,
    held: VecDeque<Held>,
    hold: Duration,
    /// From the first packet protected to the FEC packet, of all FEC packets.
    delay: LongestDelay,
    /// The same of rows.
    row_delay: LongestDelay,
    recovered: VecDeque<Recovered>,
    stats: Stats,
}

/// A media packet that did not come, as it would have.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// Extended.
    pub sequence: u64,
    /// The whole RTP datagram. Its SSRC is that of the latest media packet, its arrival the moment it was rebuilt.
    pub packet: Packet,
}

/// Counters since the start, in packets, and what was learnt of the sender's matrix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// FEC packets of columns that came.
    pub columns_received: u64,
    /// FEC packets of rows that came.
    pub rows_received: u64,
    /// Media packets rebuilt.
    pub repaired: u64,
    /// Media packets that neither came nor could be rebuilt while they were looked at.
    pub unrepaired: u64,
    /// Datagrams that were no FEC packets.
    pub malformed: u64,
    /// FEC packets for media too far behind or ahead, or before any media.
    pub out_of_range: u64,
    /// FEC packets that protect other packets than they say.
    pub refused: u64,
    /// Media packets not rebuilt because there was no buffer.
    pub no_buffer: u64,
    /// FEC packets given up for newer ones, and rebuilt packets that nobody fetched.
    pub overflow: u64,
    /// L, as the latest FEC packet says; zero while not known.
    pub matrix_columns: u8,
    /// D, as the latest FEC packet of a column says; zero while not known.
    pub matrix_rows: u8,
}

#[derive(Debug, Default)]
struct Slot {
    sequence: u64,
    packet: Option<Packet>,
    /// Of the column and the row that wait for it; zero for none.
    groups: [u64; 2],
}

#[derive(Debug, Default)]
struct Group {
    id: u64,
    header: FecHeader,
    /// Extended.
    base: u64,
    missing: u8,
    /// `None` when there is nothing left to do.
    packet: Option<Packet>,
}

/// A group that could be solved if its missing packet were not the latest of all.
#[derive(Clone, Copy, Debug)]
struct Held {
    due: Time,
    id: u64,
    sequence: u64,
}

/// The longest in this period and the one before.
#[derive(Clone, Copy, Debug)]
struct LongestDelay {
    /// When this period began.
    since: Option<Time>,
    before: Duration,
    longest: Duration,
}

impl Decoder {
    /// A decoder that knows nothing of the sender.
    #[must_use]
    pub fn new(pool: Pool) -> Self {
        Self {
            pool,
            slots: std::iter::repeat_with(Slot::default).take(SLOTS as usize).collect(),
            groups: std::iter::repeat_with(Group::default).take(GROUPS).collect(),
            next_id: 1,
            range: None,
            ssrc: 0,
            solvable: Vec::with_capacity(GROUPS),
            held: VecDeque::with_capacity(GROUPS),
            hold: HOLD,
            delay: LongestDelay::new(LEARNING),
            row_delay: LongestDelay::new(Duration::ZERO),
            recovered: VecDeque::with_capacity(RECOVERED_MAX),
            stats: Stats::default(),
        }
    }

    /// A media packet came, `datagram` with its RTP header. Numbers begin above zero. One that came before or is too old
    /// changes nothing.
    pub fn handle_media(&mut self, now: Time, sequence: u64, datagram: &Packet) {
        let Some(&[.., i0, i1, i2, i3]) = datagram.first_chunk::<{ rtp::HEADER_BYTES }>() else { return };
        self.ssrc = u32::from_be_bytes([i0, i1, i2, i3]);
        let (start, end) = *self.range.get_or_insert((sequence, sequence));
        if sequence < start {
            return;
        }
        if sequence >= end {
            self.advance(sequence + 1);
        }
        self.fill(sequence, datagram.clone());
        self.solve_all(now);
        if !self.held.is_empty() {
            self.release_held(now);
        }
    }

    /// A FEC packet came, to whichever port: what it protects stands in it.
    pub fn handle_fec(&mut self, now: Time, datagram: Packet) {
        let Ok((header, _)) = FecHeader::parse(&datagram) else {
            self.stats.malformed += 1;
            return;
        };
        self.learn(&header);
        let Some((start, end)) = self.range else {
            self.stats.out_of_range += 1;
            return;
        };
        let to_base = Seq::<16>::new(end as u32).distance(header.base);
        let base = end.saturating_add_signed(to_base.into());
        let last = base + u64::from(header.offset) * u64::from(header.count - 1);
        if base < start || last >= start + SLOTS {
            self.stats.out_of_range += 1;
            return;
        }
        if let Some(first) = self.packet(base) {
            let delay = datagram.meta.arrival.since(first.meta.arrival);
            self.delay.add(now, delay);
            if header.direction == Direction::Row {
                self.row_delay.add(now, delay);
            }
        }
        let missing = members(&header, base).filter(|sequence| self.packet(*sequence).is_none()).count();
        if missing == 0 {
            return;
        }
        let id = self.next_id;
        self.next_id += 1;
        for sequence in members(&header, base) {
            if self.packet(sequence).is_none() {
                self.slot_mut(sequence).groups[header.direction as usize] = id;
            }
        }
        let group = &mut self.groups[id as usize % GROUPS];
        self.stats.overflow += u64::from(group.packet.is_some());
        *group = Group { id, header, base, missing: missing as u8, packet: Some(datagram) };
        if missing == 1 {
            self.solvable.push(id);
            self.solve_all(now);
        }
    }

    /// `now` reached what [`Decoder::poll_timeout`] said.
    pub fn handle_timeout(&mut self, now: Time) {
        self.release_held(now);
    }

    /// When a packet that nothing came behind is rebuilt all the same.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        self.held.front().map(|held| held.due)
    }

    /// The next packet rebuilt; `None` when there is none left.
    pub fn poll_recovered(&mut self) -> Option<Recovered> {
        self.recovered.pop_front()
    }

    /// The sender's numbers begin anew.
    pub fn restart(&mut self) {
        self.range = None;
        self.slots.iter_mut().for_each(|slot| *slot = Slot::default());
        self.groups.iter_mut().for_each(|group| group.packet = None);
        self.held.clear();
    }

    /// How long the latest packet of all is waited for before it is rebuilt: at least as long as packets may be
    /// reordered. Rows that take longer prolong it.
    pub fn set_hold(&mut self, hold: Duration) {
        self.hold = hold;
    }

    /// How long after a packet was sent the last FEC packet that may help to rebuild it comes, as was learnt from those
    /// of the last 10 to 20 seconds; at first 250 ms.
    #[must_use]
    pub fn delay(&self) -> Duration {
        // What a packet may need is the FEC packet of another one of its row, which comes up to L packets after its own.
        let longest = self.delay.longest();
        longest + longest / 4
    }

    /// Counters since the start.
    #[must_use]
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    fn learn(&mut self, header: &FecHeader) {
        let FecHeader { offset, count, .. } = *header;
        match header.direction {
            Direction::Column => {
                self.stats.columns_received += 1;
                (self.stats.matrix_columns, self.stats.matrix_rows) = (offset, count);
            }
            Direction::Row => {
                self.stats.rows_received += 1;
                self.stats.matrix_columns = count;
            }
        }
    }

    /// Moves the end on, and lets go of what is too far behind it then.
    fn advance(&mut self, end: u64) {
        let Some((start, _)) = self.range else { return };
        let start_then = end.saturating_sub(HORIZON).max(start);
        let known = start_then.min(start + SLOTS);
        for sequence in start..known {
            let slot = &mut self.slots[slot_index(sequence)];
            let was_there = slot.sequence == sequence && slot.packet.take().is_some();
            self.stats.unrepaired += u64::from(!was_there);
        }
        self.stats.unrepaired += start_then - known;
        self.range = Some((start_then, end));
    }

    fn fill(&mut self, sequence: u64, packet: Packet) {
        let slot = self.slot_mut(sequence);
        if slot.packet.is_some() {
            return;
        }
        slot.packet = Some(packet);
        for id in slot.groups {
            let Some(group) = self.groups.get_mut(id as usize % GROUPS).filter(|group| group.id == id) else {
                continue;
            };
            group.missing = group.missing.saturating_sub(1);
            match group.missing {
                0 => group.packet = None,
                1 if group.packet.is_some() => self.solvable.push(id),
                _ => {}
            }
        }
    }

    /// Each turn takes a group that has become whole but for one, which happens to a group once.
    fn solve_all(&mut self, now: Time) {
        while let Some(id) = self.solvable.pop() {
            self.solve(now, id, false);
        }
    }

    /// Rebuilds what is missing of a group. If that is the latest packet of all it is only done if `is_due`.
    fn solve(&mut self, now: Time, id: u64, is_due: bool) {
        let index = id as usize % GROUPS;
        let group = &self.groups[index];
        let (Some((start, end)), true, true) = (self.range, group.id == id, group.packet.is_some()) else { return };
        let mut missing = members(&group.header, group.base).filter(|sequence| self.packet(*sequence).is_none());
        let (first, second) = (missing.next(), missing.next());
        // What has been let go of is missing, too.
        let Some(sequence) = first.filter(|sequence| second.is_none() && *sequence >= start) else {
            self.groups[index].packet = None;
            return;
        };
        if sequence >= end && !is_due {
            self.hold_back(now, id, sequence);
            return;
        }
        let rebuilt = self.rebuild(now, group, sequence);
        self.groups[index].packet = None;
        let packet = match rebuilt {
            Ok(packet) => packet,
            Err(Failure::Refused) => return self.stats.refused += 1,
            Err(Failure::NoBuffer) => return self.stats.no_buffer += 1,
        };
        if sequence >= end {
            self.advance(sequence + 1);
        }
        self.stats.repaired += 1;
        self.fill(sequence, packet.clone());
        if self.recovered.len() == RECOVERED_MAX {
            self.recovered.pop_front();
            self.stats.overflow += 1;
        }
        self.recovered.push_back(Recovered { sequence, packet });
    }

    fn rebuild(&self, now: Time, group: &Group, sequence: u64) -> Result<Packet, Failure> {
        let sum = group.packet.as_ref().and_then(|packet| packet.get(HEADER_BYTES..)).ok_or(Failure::Refused)?;
        let mut buffer = self.pool.take(rtp::HEADER_BYTES + sum.len()).ok_or(Failure::NoBuffer)?;
        let mut recovery = group.header.recovery;
        let (fixed, rest) = buffer.split_at_mut(rtp::HEADER_BYTES);
        let rest = &mut rest[..sum.len()];
        rest.copy_from_slice(sum);
        for member in members(&group.header, group.base).filter_map(|member| self.packet(member)) {
            let (header, payload) = member.split_first_chunk().ok_or(Failure::Refused)?;
            if payload.len() > rest.len() {
                return Err(Failure::Refused);
            }
            recovery ^= Recovery::of(header, payload.len());
            xor(rest, payload);
        }
        let length = usize::from(recovery.length);
        // Shorter packets were filled up with zeros.
        if rest.get(length..).is_none_or(|filler| filler.iter().any(|byte| *byte != 0)) {
            return Err(Failure::Refused);
        }
        fixed.copy_from_slice(&recovery.to_rtp(Seq::new(sequence as u32), self.ssrc));
        Ok(Packet::new(buffer, 0..rtp::HEADER_BYTES + length, Meta { arrival: now, ..Meta::default() }))
    }

    fn hold_back(&mut self, now: Time, id: u64, sequence: u64) {
        if self.held.len() == GROUPS {
            self.held.pop_front();
        }
        let due = now + self.hold.max(self.row_delay.longest());
        self.held.push_back(Held { due, id, sequence });
    }

    fn release_held(&mut self, now: Time) {
        let mut index = 0;
        while let Some(&Held { due, id, sequence }) = self.held.get(index) {
            let is_passed = self.range.is_some_and(|(_, end)| sequence < end);
            if is_passed || due <= now {
                self.held.remove(index);
                self.solve(now, id, true);
                self.solve_all(now);
            } else {
                index += 1;
            }
        }
    }

    fn packet(&self, sequence: u64) -> Option<&Packet> {
        let slot = &self.slots[slot_index(sequence)];
        slot.packet.as_ref().filter(|_| slot.sequence == sequence)
    }

    /// The slot of a number in range, which is newer than what it held last.
    fn slot_mut(&mut self, sequence: u64) -> &mut Slot {
        let slot = &mut self.slots[slot_index(sequence)];
        if slot.sequence != sequence {
            *slot = Slot { sequence, ..Slot::default() };
        }
        slot
    }
}

/// Why nothing was rebuilt.
enum Failure {
    Refused,
    NoBuffer,
}

impl LongestDelay {
    const fn new(before: Duration) -> Self {
        Self { since: None, before, longest: Duration::ZERO }
    }

    fn add(&mut self, now: Time, delay: Duration) {
        let since = *self.since.get_or_insert(now);
        if now.since(since) >= DELAY_PERIOD {
            (self.since, self.before, self.longest) = (Some(now), self.longest, Duration::ZERO);
        }
        self.longest = self.longest.max(delay.min(DELAY_MAX));
    }

    fn longest(&self) -> Duration {
        self.longest.max(self.before)
    }
}

fn members(header: &FecHeader, base: u64) -> impl Iterator<Item = u64> + use<> {
    let offset = u64::from(header.offset);
    (0..u64::from(header.count)).map(move |index| base + index * offset)
}

const fn slot_index(sequence: u64) -> usize {
    (sequence % SLOTS) as usize
}

/// Numbers that there are slots for: those behind the latest, and those ahead of it that FEC packets may speak of.
const SLOTS: u64 = 1_024;

/// Packets behind the latest that are kept. The last column of a matrix comes less than two matrices and a row after its
/// first packet: 544 packets for the largest that there are. The rest is for sockets that are emptied one after the other.
const HORIZON: u64 = 640;

/// Groups that wait for packets. At the limits of the standard and with half of all packets lost there are 80.
const GROUPS: usize = 256;

/// Rebuilt packets that may wait. Whoever runs the decoder fetches them after each packet, which brings at most a matrix.
const RECOVERED_MAX: usize = 256;

/// What is taken for the delay at first. Judgement: two matrices of 100 packets at 10 Mb/s.
const LEARNING: Duration = Duration::from_millis(200);

/// A longer delay is not believed: nobody waits for it.
const DELAY_MAX: Duration = Duration::from_secs(8);

/// Judgement: rates change with the programme, and what happens every few seconds shall not be forgotten.
const DELAY_PERIOD: Duration = Duration::from_secs(10);

/// The reorder section of a RIST receiver (VSF TR-06-1), until told otherwise.
const HOLD: Duration = Duration::from_millis(25);
