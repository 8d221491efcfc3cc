//! Numbered payloads in the shape of a transport stream, and a check of what arrives of them.

use crate::bus::{Meta, Packet, Pool};
use crate::units::Time;

/// Makes packets numbered from zero. Every 188 bytes are a TS packet of PID 0x100 with the right continuity counter;
/// the number stands after the first TS header, and the rest follows from it, so that damage shows.
#[derive(Clone, Debug)]
pub struct Numbered {
    next: u64,
    bytes: usize,
}

impl Numbered {
    /// Packets of `bytes` bytes: 1316 for seven TS packets.
    ///
    /// # Panics
    /// If they are too short for header and number, below 12 bytes.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        assert!(bytes >= NUMBER_END, "{bytes} bytes hold no number");
        Self { next: 0, bytes }
    }

    /// The next packet, said to have arrived at `now`; `None` when the pool is at its bound.
    pub fn packet(&mut self, pool: &Pool, now: Time) -> Option<Packet> {
        let mut buffer = pool.take(self.bytes)?;
        fill(&mut buffer[..self.bytes], self.next);
        self.next += 1;
        Some(Packet::new(buffer, 0..self.bytes, Meta { arrival: now, ..Meta::default() }))
    }

    /// Packets made.
    #[must_use]
    pub const fn made(&self) -> u64 {
        self.next
    }
}

/// What became of numbered packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Different ones that arrived.
    pub received: u64,
    /// Did not arrive.
    pub lost: u64,
    /// Arrived again.
    pub duplicated: u64,
    /// Arrived for the first time, but after a later one.
    pub reordered: u64,
    /// Not as they were made, or with a number above [`Check::NUMBERS_MAX`].
    pub corrupt: u64,
}

/// Checks packets of one [`Numbered`].
#[derive(Clone, Debug, Default)]
pub struct Check {
    /// One bit for each number.
    seen: Vec<u64>,
    highest: Option<u64>,
    report: Report,
}

impl Check {
    /// Numbers that can be checked: 2 MiB of bits, half an hour at 100 Mb/s.
    pub const NUMBERS_MAX: u64 = 1 << 24;

    /// A packet arrived.
    pub fn handle(&mut self, payload: &[u8]) {
        let Some(number) = number(payload).filter(|number| *number < Self::NUMBERS_MAX) else {
            self.report.corrupt += 1;
            return;
        };
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        if self.seen.len() <= word {
            self.seen.resize(word + 1, 0);
        }
        if self.seen[word] & bit != 0 {
            self.report.duplicated += 1;
            return;
        }
        self.seen[word] |= bit;
        self.report.received += 1;
        self.report.reordered += u64::from(self.highest > Some(number));
        self.highest = self.highest.max(Some(number));
    }

    /// The highest number that arrived.
    #[must_use]
    pub const fn highest(&self) -> Option<u64> {
        self.highest
    }

    /// Different ones from the number `first` on that arrived.
    #[must_use]
    pub fn received_from(&self, first: u64) -> u64 {
        let skip = (first / 64) as usize;
        let of_first = self.seen.get(skip).map_or(0, |word| word >> (first % 64)).count_ones();
        let of_others: u32 = self.seen.iter().skip(skip + 1).map(|word| word.count_ones()).sum();
        u64::from(of_first + of_others)
    }

    /// What became of the first `made` packets, if no more were made.
    #[must_use]
    pub const fn report(&self, made: u64) -> Report {
        Report { lost: made.saturating_sub(self.report.received), ..self.report }
    }
}

/// The number of an undamaged packet.
#[must_use]
pub fn number(payload: &[u8]) -> Option<u64> {
    let number = u64::from_be_bytes(payload.get(TS_HEADER_BYTES..NUMBER_END)?.try_into().ok()?);
    let mut expected = vec![0; payload.len()];
    fill(&mut expected, number);
    (expected == payload).then_some(number)
}

fn fill(payload: &mut [u8], number: u64) {
    let ts_packets = payload.len().div_ceil(TS_PACKET_BYTES) as u64;
    for (index, ts_packet) in payload.chunks_mut(TS_PACKET_BYTES).enumerate() {
        let count = number.wrapping_mul(ts_packets).wrapping_add(index as u64);
        ts_packet.fill(number.wrapping_mul(31).wrapping_add(count) as u8);
        // Sync byte, PID 0x100, payload only, continuity counter (ISO/IEC 13818-1 2.4.3.2).
        let header = [0x47, 0x01, 0x00, 0x10 | (count as u8 & 0x0f)];
        let len = ts_packet.len().min(TS_HEADER_BYTES);
        ts_packet[..len].copy_from_slice(&header[..len]);
    }
    payload[TS_HEADER_BYTES..NUMBER_END].copy_from_slice(&number.to_be_bytes());
}

const TS_PACKET_BYTES: usize = 188;
const TS_HEADER_BYTES: usize = 4;
const NUMBER_END: usize = TS_HEADER_BYTES + 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::PoolLimits;

    #[test]
    fn lost_duplicated_reordered_and_corrupt_packets_are_told_apart() {
        let pool = Pool::new(PoolLimits::default());
        let mut numbered = Numbered::new(1_316);
        let packets: Vec<Packet> = (0..10).filter_map(|_| numbered.packet(&pool, Time::ZERO)).collect();
        let mut check = Check::default();
        for index in [0, 1, 4, 3, 3, 5, 9, 4] {
            check.handle(&packets[index]);
        }
        let mut damaged = packets[7].to_vec();
        damaged[1_000] ^= 1;
        check.handle(&damaged);
        check.handle(&packets[8][..1_128]);
        let report = check.report(numbered.made());
        assert_eq!(report, Report { received: 6, lost: 4, duplicated: 2, reordered: 1, corrupt: 2 });
    }

    #[test]
    fn any_size_that_holds_a_number_is_checked() {
        let pool = Pool::new(PoolLimits::default());
        for bytes in (12..400).chain([1_316, 1_472, 65_000]) {
            let packet = Numbered::new(bytes).packet(&pool, Time::ZERO).unwrap();
            assert_eq!(number(&packet), Some(0), "{bytes} bytes");
        }
        assert_eq!(number(&[0x47; 11]), None);
        assert_eq!(number(&[0xff; 188]), None);
    }

    #[test]
    fn continuity_counters_go_on_from_packet_to_packet() {
        let pool = Pool::new(PoolLimits::default());
        let mut numbered = Numbered::new(188 * 7);
        let packets: Vec<Packet> = (0..9).filter_map(|_| numbered.packet(&pool, Time::ZERO)).collect();
        let counters = packets.iter().flat_map(|packet| packet.chunks(188).map(|ts_packet| ts_packet[3] & 0x0f));
        assert!(counters.enumerate().all(|(index, counter)| usize::from(counter) == index % 16));
    }
}
