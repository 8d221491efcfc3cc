//! `Sync`: finds the TS packets in a stream of bytes, and finds them again after damage.

use arrayvec::ArrayVec;

use super::packet::{SYNC_BYTE, TS_PACKET_BYTES};

/// Cuts bytes into TS packets of 188 bytes, whatever stands between them: nothing, a timestamp of 4 bytes (192 in all, as on
/// Blu-ray discs) or 16 check bytes (204 in all, DVB's Reed-Solomon code).
///
/// ```text
///               five sync bytes at the same distance
///   Searching ───────────────────────────────────────► Locked
///       ▲                                                │  one bad sync byte: the packet is left out, counted
///       └────────────────────────────────────────────────┘
///               two bad sync bytes in a row
/// ```
///
/// Both numbers are those of ETSI TR 101 290 5.2.1 (TS_sync_loss). Bytes may come in pieces of any length; fewer than
/// 1,024 of them wait for the next piece. A piece that begins with a packet although the last one ended within one makes
/// an end of that one: datagrams are cut short, not their successors.
#[derive(Clone, Debug, Default)]
pub struct Sync {
    /// Distance of the sync bytes; `None` while searching.
    stride: Option<usize>,
    /// Bytes to leave out before the next packet.
    skip: usize,
    carry: ArrayVec<u8, CARRY_BYTES_MAX>,
    stats: SyncStats,
}

/// What [`Sync`] comes across.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// A TS packet.
    Packet(&'a [u8; TS_PACKET_BYTES]),
    /// A packet without its sync byte, left out.
    BadSyncByte,
    /// Two of them; from here on the next packets are searched for.
    SyncLost,
    /// A packet that was cut short.
    Truncated,
}

/// Counters of [`Sync`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyncStats {
    /// TS packets found, with a good sync byte.
    pub packets: u64,
    /// Sync bytes that were not 0x47, where one had to be.
    pub sync_byte_errors: u64,
    /// Times that synchronisation was lost.
    pub sync_losses: u64,
    /// Bytes left out while searching.
    pub skipped_bytes: u64,
    /// Packets that a piece ended in the middle of.
    pub truncated: u64,
}

impl Sync {
    /// Takes in the next bytes and hands out the packets that are whole, and what is wrong between them.
    #[inline]
    pub fn push(&mut self, bytes: &[u8], mut each: impl FnMut(Found<'_>)) {
        let rest = if self.carry.is_empty() { bytes } else { self.push_to_carry(bytes, &mut each) };
        if rest.is_empty() {
            return;
        }
        let rest = self.run(rest, &mut each);
        self.keep(rest);
    }

    /// Whether packets are found now.
    #[must_use]
    pub const fn is_locked(&self) -> bool {
        self.stride.is_some()
    }

    /// Distance of the sync bytes, 188, 192 or 204; `None` while searching.
    #[must_use]
    pub const fn stride(&self) -> Option<usize> {
        self.stride
    }

    /// Counters since the start.
    #[must_use]
    pub const fn stats(&self) -> SyncStats {
        self.stats
    }

    /// What waited and `bytes` together; gives what is left of `bytes` when nothing older waits any more.
    #[cold]
    fn push_to_carry<'b>(&mut self, bytes: &'b [u8], each: &mut impl FnMut(Found<'_>)) -> &'b [u8] {
        if self.begins_anew(bytes) {
            self.stats.truncated += 1;
            self.carry.clear();
            each(Found::Truncated);
            return bytes;
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let mut both = std::mem::take(&mut self.carry);
            let before = both.len();
            let (head, behind) = rest.split_at(rest.len().min(CARRY_BYTES_MAX - before));
            both.extend(head.iter().copied());
            let left = self.run(&both, each);
            if left.len() <= head.len() {
                let used = head.len() - left.len();
                return rest.get(used..).unwrap_or_default();
            }
            self.keep(left);
            rest = behind;
        }
        rest
    }

    /// Whether `bytes` do not go on with the packet that waits, but begin with another one.
    fn begins_anew(&self, bytes: &[u8]) -> bool {
        let Some(stride) = self.stride else { return false };
        let is_sync = |at: usize| bytes.get(at).map(|byte| *byte == SYNC_BYTE);
        let goes_on = stride.checked_sub(self.carry.len()).and_then(is_sync);
        goes_on == Some(false) && is_sync(0) == Some(true) && is_sync(stride) != Some(false)
    }

    /// Hands out all that is whole; gives what is not.
    #[inline]
    fn run<'b>(&mut self, mut bytes: &'b [u8], each: &mut impl FnMut(Found<'_>)) -> &'b [u8] {
        loop {
            let Some(stride) = self.stride else {
                let (skipped, stride) = search(bytes);
                self.stats.skipped_bytes += skipped as u64;
                bytes = bytes.get(skipped..).unwrap_or_default();
                if stride.is_none() {
                    return bytes;
                }
                self.stride = stride;
                continue;
            };
            if self.skip > 0 {
                let skip = self.skip.min(bytes.len());
                self.skip -= skip;
                bytes = bytes.get(skip..).unwrap_or_default();
            }
            let Some((packet, rest)) = bytes.split_first_chunk::<TS_PACKET_BYTES>() else { return bytes };
            if packet[0] == SYNC_BYTE {
                self.stats.packets += 1;
                each(Found::Packet(packet));
            } else {
                // Whether the one after it is bad as well decides.
                let Some(next) = bytes.get(stride) else { return bytes };
                self.stats.sync_byte_errors += 1;
                if *next != SYNC_BYTE {
                    self.stats.sync_byte_errors += 1;
                    self.stats.sync_losses += 1;
                    self.stride = None;
                    each(Found::SyncLost);
                    continue;
                }
                each(Found::BadSyncByte);
            }
            self.skip = stride - TS_PACKET_BYTES;
            bytes = rest;
        }
    }

    fn keep(&mut self, rest: &[u8]) {
        self.carry.clear();
        // It always fits: less than a packet and its successor's sync byte, or less than a search needs.
        self.carry.extend(rest.iter().copied().take(CARRY_BYTES_MAX));
    }
}

/// How many bytes belong to no packet, and the distance of the sync bytes from there on; `None` if more bytes are needed to
/// tell.
fn search(bytes: &[u8]) -> (usize, Option<usize>) {
    let mut at = 0;
    while let Some(next) = bytes.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == SYNC_BYTE)) {
        at += next;
        let mut is_undecided = false;
        for stride in STRIDES {
            let mut syncs = (0..SYNCS_TO_LOCK).map(|n| bytes.get(at + n * stride).map(|byte| *byte == SYNC_BYTE));
            match syncs.find(|sync| *sync != Some(true)) {
                None => return (at, Some(stride)),
                Some(missing) => is_undecided |= missing.is_none(),
            }
        }
        if is_undecided {
            return (at, None);
        }
        at += 1;
    }
    (bytes.len(), None)
}

/// Most usual first.
const STRIDES: [usize; 3] = [TS_PACKET_BYTES, 192, 204];
/// ETSI TR 101 290 5.2.1.
const SYNCS_TO_LOCK: usize = 5;
/// What waits at most is a search's: four distances and not yet a fifth sync byte. There must be room for a packet and more
/// beside it, so that each step gets on.
const CARRY_BYTES_MAX: usize = 2_048;
const _: () = assert!(CARRY_BYTES_MAX > 2 * SYNCS_TO_LOCK * STRIDES[2]);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn packets_of_all_three_distances_are_found() {
        for (before, after) in [(0, 0), (4, 0), (0, 16)] {
            let mut bytes = Vec::new();
            for n in 0..20 {
                bytes.extend(vec![0x11; before]);
                bytes.extend(numbered(n));
                bytes.extend(vec![0x22; after]);
            }
            let mut sync = Sync::default();
            assert_eq!(found(&mut sync, [&bytes[..]]), (0..20).collect::<Vec<_>>());
            assert_eq!(sync.stride(), Some(TS_PACKET_BYTES + before + after));
        }
    }

    #[test]
    fn one_bad_sync_byte_costs_one_packet() {
        let mut bytes = stream(0..20);
        bytes[7 * TS_PACKET_BYTES] = 0x48;
        let mut sync = Sync::default();
        let expected: Vec<u8> = (0..20).filter(|n| *n != 7).collect();
        assert_eq!(found(&mut sync, bytes.chunks(1_316)), expected);
        assert_eq!((sync.stats().sync_byte_errors, sync.stats().sync_losses), (1, 0));
    }

    #[test]
    fn garbage_between_packets_costs_none_of_them() {
        let bytes = [stream(0..20), vec![0xee; 50], stream(20..40)].concat();
        let mut sync = Sync::default();
        assert_eq!(found(&mut sync, bytes.chunks(1_316)), (0..40).collect::<Vec<_>>());
        let stats = sync.stats();
        assert_eq!((stats.sync_byte_errors, stats.sync_losses, stats.skipped_bytes), (2, 1, 50));
        assert!(sync.is_locked());
    }

    #[test]
    fn a_datagram_cut_short_does_not_spoil_the_next_one() {
        let (first, second) = (stream(0..7), stream(7..14));
        let mut sync = Sync::default();
        let expected: Vec<u8> = (0..14).filter(|n| *n != 6).collect();
        assert_eq!(found(&mut sync, [&first[..1_300], &second]), expected);
        assert_eq!((sync.stats().truncated, sync.stats().sync_byte_errors), (1, 0));
    }

    #[test]
    fn a_stream_that_is_none_keeps_nothing() {
        let mut sync = Sync::default();
        assert!(found(&mut sync, [&[0x55; 100_000][..], &[0x47, 0, 0][..]]).is_empty());
        assert_eq!(sync.carry.len(), 3);
        assert_eq!(sync.stats().skipped_bytes, 100_000);
    }

    proptest! {
        #[test]
        fn how_bytes_are_cut_changes_nothing(
            before in proptest::collection::vec(any::<u8>(), 0..600),
            cuts in proptest::collection::vec(1_usize..3_000, 1..20),
        ) {
            // Too short for a false lock to last; no other sync bytes, so that pieces never seem to begin anew.
            let before: Vec<u8> = before.into_iter().map(|byte| if byte == SYNC_BYTE { 0 } else { byte }).collect();
            let bytes = [before, stream(0..40)].concat();
            let (mut whole, mut cut) = (Sync::default(), Sync::default());
            let expected = found(&mut whole, [&bytes[..]]);
            prop_assert_eq!(expected.len(), 40);
            let mut rest = &bytes[..];
            let mut pieces = Vec::new();
            for len in cuts.into_iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, behind) = rest.split_at(len.min(rest.len()));
                pieces.push(piece);
                rest = behind;
            }
            prop_assert_eq!(found(&mut cut, pieces), expected);
            prop_assert_eq!(cut.stats(), whole.stats());
        }

        #[test]
        fn every_byte_is_accounted_for(pieces in proptest::collection::vec(hostile(), 1..20)) {
            let mut sync = Sync::default();
            let mut packets = 0;
            for piece in &pieces {
                sync.push(piece, |found| packets += u64::from(matches!(found, Found::Packet(_))));
                prop_assert!(sync.carry.len() < 1_024);
            }
            let total: usize = pieces.iter().map(Vec::len).sum();
            prop_assert!(sync.stats().packets == packets);
            prop_assert!(sync.stats().skipped_bytes + packets * 188 <= total as u64);
        }
    }

    /// Bytes with many sync bytes among them, at all distances.
    fn hostile() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![3 => Just(SYNC_BYTE), 1 => any::<u8>()];
        let dense = proptest::collection::vec(byte, 0..1_500);
        let sparse = (0_u8..20, 1_u8..20).prop_map(|(from, count)| stream(from..from + count));
        prop_oneof![dense, sparse]
    }

    fn found<'a>(sync: &mut Sync, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
        let mut numbers = Vec::new();
        for piece in pieces {
            sync.push(piece, |found| {
                if let Found::Packet(packet) = found {
                    numbers.push(packet[5]);
                }
            });
        }
        numbers
    }

    fn stream(numbers: std::ops::Range<u8>) -> Vec<u8> {
        numbers.flat_map(numbered).collect()
    }

    /// No byte but the first is a sync byte.
    fn numbered(n: u8) -> [u8; TS_PACKET_BYTES] {
        let mut packet = [0xaa; TS_PACKET_BYTES];
        packet[0] = SYNC_BYTE;
        packet[5] = n;
        packet
    }
}
