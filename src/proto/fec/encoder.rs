//! Makes FEC packets of the media that goes out.

use std::collections::VecDeque;
use std::mem;

use super::header::{Direction, FecHeader, HEADER_BYTES, Recovery};
use super::matrix::Matrix;
use super::xor;
use crate::bus::{Buffer, Meta, Packet, Pool};
use crate::proto::rtp;
use crate::units::Seq;

/// Media in, FEC packets out: each row behind its last packet, each column some time in the next matrix.
///
/// The XOR is made in the pooled buffer that goes out. A matrix whose packets are not numbered one after the other is
/// given up and a new one begun, as a group can only name such packets.
#[derive(Debug)]
pub struct Encoder {
    matrix: Matrix,
    pool: Pool,
    /// Packets of the matrix so far.
    place: u16,
    next_sequence: Seq<16>,
    row: Parity,
    columns: Vec<Parity>,
    /// Columns of the matrix before that have not been sent. All of them have before the next ones come.
    waiting: VecDeque<Parity>,
    ready: VecDeque<FecPacket>,
    /// Of the next FEC packet, columns and rows.
    sequences: [Seq<16>; 2],
    timestamp: u32,
    no_buffer: u64,
}

/// One datagram to send.
#[derive(Clone, Debug)]
pub struct FecPacket {
    /// Columns go to the port two after the media's, rows to the one four after it.
    pub direction: Direction,
    /// The whole datagram.
    pub packet: Packet,
}

/// A group whose packets are going out.
#[derive(Debug, Default)]
struct Parity {
    base: Seq<16>,
    recovery: Recovery,
    /// Bytes of the longest packet behind its fixed header.
    longest: usize,
    /// `None` while there are no packets, and if there was no buffer for them.
    buffer: Option<Buffer>,
}

impl Encoder {
    /// An encoder without packets. The low bits of `seed` are where its FEC packets begin to count.
    #[must_use]
    pub fn new(matrix: Matrix, pool: Pool, seed: u64) -> Self {
        let columns = usize::from(matrix.columns());
        Self {
            matrix,
            pool,
            place: 0,
            next_sequence: Seq::new(0),
            row: Parity::default(),
            columns: std::iter::repeat_with(Parity::default).take(columns).collect(),
            waiting: VecDeque::with_capacity(columns),
            ready: VecDeque::with_capacity(columns + 1),
            sequences: [Seq::new(seed as u32), Seq::new((seed >> 16) as u32)],
            timestamp: 0,
            no_buffer: 0,
        }
    }

    /// A media packet goes out: its fixed RTP header, and all that follows. What [`Encoder::poll`] then has goes behind it.
    pub fn handle(&mut self, fixed: &[u8; rtp::HEADER_BYTES], rest: &[u8]) {
        let [_, _, s0, s1, t0, t1, t2, t3, ..] = *fixed;
        let sequence = Seq::new(u32::from(u16::from_be_bytes([s0, s1])));
        self.timestamp = u32::from_be_bytes([t0, t1, t2, t3]);
        if sequence != self.next_sequence {
            self.begin();
        }
        self.next_sequence = sequence.add(1);
        let (length, depth) = (u16::from(self.matrix.columns()), u16::from(self.matrix.rows()));
        let column = self.place % length;
        if self.matrix.sends_rows() {
            let has_buffer = self.row.add(&self.pool, column == 0, sequence, fixed, rest);
            self.no_buffer += u64::from(!has_buffer);
            if column + 1 == length {
                let row = mem::take(&mut self.row);
                self.send(Direction::Row, row);
            }
        }
        if let Some(parity) = self.columns.get_mut(usize::from(column)) {
            let has_buffer = parity.add(&self.pool, self.place < length, sequence, fixed, rest);
            self.no_buffer += u64::from(!has_buffer);
            if self.place.is_multiple_of(depth)
                && let Some(column) = self.waiting.pop_front()
            {
                self.send(Direction::Column, column);
            }
        }
        self.place += 1;
        if self.place == self.matrix.packets() {
            self.waiting.extend(self.columns.iter_mut().map(mem::take));
            self.place = 0;
        }
    }

    /// No media follows: what waits for its turn is due now.
    pub fn finish(&mut self) {
        while let Some(column) = self.waiting.pop_front() {
            self.send(Direction::Column, column);
        }
    }

    /// The next FEC packet to send; `None` when there is none left.
    pub fn poll(&mut self) -> Option<FecPacket> {
        self.ready.pop_front()
    }

    /// The matrix.
    #[must_use]
    pub const fn matrix(&self) -> Matrix {
        self.matrix
    }

    /// Times that there was no buffer for a packet to be added to; its group is not sent then.
    #[must_use]
    pub const fn no_buffer(&self) -> u64 {
        self.no_buffer
    }

    fn begin(&mut self) {
        self.place = 0;
        self.row = Parity::default();
        self.columns.iter_mut().for_each(|column| *column = Parity::default());
    }

    fn send(&mut self, direction: Direction, parity: Parity) {
        let (offset, count) = match direction {
            Direction::Column => (self.matrix.columns(), self.matrix.rows()),
            Direction::Row => (1, self.matrix.columns()),
        };
        let Some(mut buffer) = parity.buffer else { return };
        let sequence = &mut self.sequences[direction as usize];
        let header = FecHeader {
            sequence: *sequence,
            timestamp: self.timestamp,
            base: parity.base,
            direction,
            offset,
            count,
            recovery: parity.recovery,
        };
        *sequence = sequence.add(1);
        buffer[..HEADER_BYTES].copy_from_slice(&header.to_bytes());
        let packet = Packet::new(buffer, 0..HEADER_BYTES + parity.longest, Meta::default());
        // Whoever does not poll loses the oldest.
        if self.ready.len() == self.ready.capacity() {
            self.ready.pop_front();
        }
        self.ready.push_back(FecPacket { direction, packet });
    }
}

impl Parity {
    /// Adds a packet; says whether there was a buffer for it.
    fn add(
        &mut self,
        pool: &Pool,
        is_first: bool,
        sequence: Seq<16>,
        fixed: &[u8; rtp::HEADER_BYTES],
        rest: &[u8],
    ) -> bool {
        let needed = HEADER_BYTES + rest.len();
        if is_first {
            *self = Self { base: sequence, buffer: pool.take(needed), ..Self::default() };
        } else if self.buffer.as_ref().is_some_and(|buffer| buffer.len() < needed) {
            let longer = pool.take(needed);
            let used = HEADER_BYTES + self.longest;
            self.buffer = self.buffer.take().zip(longer).map(|(buffer, mut longer)| {
                longer[..used].copy_from_slice(&buffer[..used]);
                longer
            });
        }
        let Some(buffer) = &mut self.buffer else { return false };
        self.recovery ^= Recovery::of(fixed, rest.len());
        // Beyond what is used lie bytes of somebody else.
        let (common, beyond) = rest.split_at(rest.len().min(self.longest));
        let sum = &mut buffer[HEADER_BYTES..];
        xor(&mut sum[..common.len()], common);
        sum[common.len()..rest.len()].copy_from_slice(beyond);
        self.longest = self.longest.max(rest.len());
        true
    }
}
