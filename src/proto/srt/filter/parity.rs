//! The XOR of a group's packets, and what follows from it once all but one are in.

use super::super::packet::KeyFlag;
use super::{HEADER_BYTES, Member};

/// XOR of some packets, payloads filled up with zeros.
#[derive(Debug)]
pub(super) struct Parity {
    timestamp: u32,
    key: u8,
    length: u16,
    /// Length of the longest packet's payload.
    longest: usize,
    /// Length of the repair's payload, if there is one.
    covered: Option<usize>,
    payload_max: usize,
    /// Empty until it is needed for the first time: most connections send or receive, few do both.
    payload: Box<[u8]>,
}

/// What a group's parity has become when all of its packets but one are in it, and its repair: that one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Solved<'parity> {
    pub(super) timestamp: u32,
    pub(super) key: KeyFlag,
    pub(super) payload: &'parity [u8],
}

impl Parity {
    /// Of no packets, for payloads of at most `payload_max` bytes.
    pub(super) fn new(payload_max: usize) -> Self {
        Self { timestamp: 0, key: 0, length: 0, longest: 0, covered: None, payload_max, payload: Box::default() }
    }

    /// Of no packets again.
    pub(super) fn clear(&mut self) {
        let used = self.used();
        if let Some(used) = self.payload.get_mut(..used) {
            used.fill(0);
        }
        (self.timestamp, self.key, self.length, self.longest, self.covered) = (0, 0, 0, 0, None);
    }

    pub(super) fn timestamp(&self) -> u32 {
        self.timestamp
    }

    /// Adds a packet. What is longer than it may be is cut, and then nothing follows from it.
    pub(super) fn add(&mut self, member: &Member<'_>) {
        self.timestamp ^= member.timestamp;
        self.key ^= member.key.bits() as u8;
        self.length ^= member.payload.len() as u16;
        self.longest = self.longest.max(self.add_payload(member.payload));
    }

    /// Adds a repair by its timestamp and payload; says whether it had a header.
    pub(super) fn add_repair(&mut self, timestamp: u32, repair: &[u8]) -> bool {
        let Some((&[_, key, high, low], payload)) = repair.split_first_chunk::<HEADER_BYTES>() else { return false };
        self.timestamp ^= timestamp;
        self.key ^= key;
        self.length ^= u16::from_be_bytes([high, low]);
        self.covered = Some(self.add_payload(payload));
        true
    }

    /// Bytes of the repair.
    pub(super) const fn repair_len(&self) -> usize {
        HEADER_BYTES + self.longest
    }

    /// Writes the repair into as many bytes. No longer than the longest packet: libsrt always fills it up.
    pub(super) fn write(&self, index: u8, out: &mut [u8]) {
        let [high, low] = self.length.to_be_bytes();
        if let Some((header, payload)) = out.split_first_chunk_mut::<HEADER_BYTES>() {
            *header = [index, self.key, high, low];
            payload.iter_mut().zip(&self.payload).for_each(|(out, byte)| *out = *byte);
        }
    }

    /// The packet that is missing; `None` if there is none that could be so, as when the peer put other packets into its
    /// repair than belong there, or the repair is cut.
    pub(super) fn solve(&self) -> Option<Solved<'_>> {
        let length = usize::from(self.length);
        let covered = self.covered.filter(|covered| *covered >= self.longest)?;
        let (payload, rest) = self.payload.get(..covered)?.split_at_checked(length)?;
        let key = KeyFlag::of(u32::from(self.key));
        let is_possible = length > 0 && self.key < KeyFlag::Both as u8 && rest.iter().all(|byte| *byte == 0);
        is_possible.then_some(Solved { timestamp: self.timestamp, key, payload })
    }

    /// Says how many bytes of it were taken.
    fn add_payload(&mut self, payload: &[u8]) -> usize {
        if self.payload.is_empty() {
            self.payload = vec![0; self.payload_max].into();
        }
        self.payload.iter_mut().zip(payload).for_each(|(sum, byte)| *sum ^= *byte);
        payload.len().min(self.payload.len())
    }

    /// What lies behind is zero.
    fn used(&self) -> usize {
        self.longest.max(self.covered.unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(timestamp: u32, key: KeyFlag, payload: &[u8]) -> Member<'_> {
        Member { sequence: 0, message_number: 1, in_order: false, timestamp, key, payload }
    }

    #[test]
    fn what_is_missing_follows_from_the_others_and_the_repair() {
        let members = [
            member(10, KeyFlag::Even, b"one"),
            member(0xffff_ff00, KeyFlag::Odd, b"twelve bytes"),
            member(30, KeyFlag::Even, b"five5"),
        ];
        for missing in 0..3 {
            let mut sent = Parity::new(20);
            members.iter().for_each(|member| sent.add(member));
            let mut repair = vec![0; sent.repair_len()];
            sent.write(7, &mut repair);
            assert_eq!((repair.len(), repair[0]), (16, 7));
            let mut received = Parity::new(20);
            let others = members.iter().enumerate().filter(|(index, _)| *index != missing);
            others.for_each(|(_, member)| received.add(member));
            assert!(received.add_repair(sent.timestamp(), &repair));
            let Member { timestamp, key, payload, .. } = members[missing];
            assert_eq!(received.solve(), Some(Solved { timestamp, key, payload }));
            received.clear();
            assert_eq!(received.solve(), None);
            assert!(received.add_repair(5, &[0, 1, 0, 2, 7, 8]));
            assert_eq!(received.solve(), Some(Solved { timestamp: 5, key: KeyFlag::Even, payload: &[7, 8] }));
        }
    }

    #[test]
    fn what_no_packet_could_be_is_not_taken_for_one() {
        let packet = |key, length, payload: &[u8]| {
            let mut parity = Parity::new(4);
            assert!(parity.add_repair(1, &[&[0, key, 0, length], payload].concat()));
            parity.solve().map(|solved| solved.payload.to_vec())
        };
        assert_eq!(packet(2, 3, b"abc\0"), Some(b"abc".to_vec()));
        assert_eq!(packet(2, 4, b"abcdefgh"), Some(b"abcd".to_vec()));
        assert_eq!(packet(2, 5, b"abcdefgh"), None);
        assert_eq!(packet(2, 3, b"abcd"), None);
        assert_eq!(packet(2, 0, b"\0\0"), None);
        assert_eq!(packet(3, 3, b"abc"), None);
        assert_eq!(packet(4, 3, b"abc"), None);
        (0..4).for_each(|len| assert!(!Parity::new(4).add_repair(0, &[0; 4][..len])));
    }
}
