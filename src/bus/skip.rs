//! `Skip`: leaves packets out up to the next one that a decoder can begin with.

use std::time::Duration;

use super::packet::Meta;
use crate::units::Time;

/// What a reader leaves out that goes on at key frames.
#[derive(Clone, Copy, Debug)]
pub(super) struct Skip {
    is_skipping: bool,
    /// Arrival of the first packet that was left out; `None` before that.
    since: Option<Time>,
    stats: SkipStats,
}

/// What was left out up to the next key frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SkipStats {
    /// Packets left out.
    pub packets: u64,
    /// Times that it went on without a key frame, as none came for [`SKIP_MAX`].
    pub timeouts: u64,
}

impl Skip {
    /// Leaves nothing out.
    pub(super) const NONE: Self =
        Self { is_skipping: false, since: None, stats: SkipStats { packets: 0, timeouts: 0 } };

    /// Leaves out what comes next.
    pub(super) const fn begin(&mut self) {
        self.is_skipping = true;
    }

    pub(super) const fn end(&mut self) {
        self.is_skipping = false;
        self.since = None;
    }

    /// Whether a packet is to be read; false if it is left out.
    #[inline]
    pub(super) fn passes(&mut self, meta: &Meta) -> bool {
        !self.is_skipping || self.ends_with(meta)
    }

    /// Since the last call.
    pub(super) const fn take_stats(&mut self) -> SkipStats {
        std::mem::replace(&mut self.stats, SkipStats { packets: 0, timeouts: 0 })
    }

    #[cold]
    fn ends_with(&mut self, meta: &Meta) -> bool {
        let since = *self.since.get_or_insert(meta.arrival);
        let is_over = meta.arrival.since(since) >= SKIP_MAX;
        if meta.random_access || is_over {
            self.stats.timeouts += u64::from(!meta.random_access);
            self.end();
            return true;
        }
        self.stats.packets += 1;
        false
    }
}

/// How long a key frame is waited for, by the arrival of packets. Judgement: as long as a group of pictures ever is; a stream
/// without any must not stay away.
pub const SKIP_MAX: Duration = Duration::from_secs(10);

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::bus::{LagPolicy, LocalCursor, Packet, Pool, PoolLimits, Publisher, Subscriber};

    #[test]
    fn whoever_misses_packets_goes_on_with_a_key_frame_and_nothing_before_it() {
        let mut rig = Rig::new(8);
        rig.publish(0..13, 10);
        let expected = [10, 11, 12];
        assert_eq!(rig.local(), expected);
        assert_eq!((rig.cursor.take_missed(), rig.cursor.take_skipped().packets), (5, 5));
        assert_eq!(rig.remote(), expected);
        assert_eq!((rig.reader.take_missed(), rig.reader.take_skipped().packets), (5, 5));
        assert_eq!(rig.borrowed(64), expected);
        assert_eq!((rig.lender.take_missed(), rig.lender.take_skipped().packets), (5, 5));
        rig.publish(13..17, 10);
        assert_eq!([rig.local(), rig.remote(), rig.borrowed(64)], [[13, 14, 15, 16]; 3], "nobody missed anything");
    }

    #[test]
    fn a_stream_without_key_frames_goes_on_after_ten_seconds() {
        let mut rig = Rig::new(8);
        rig.publish(0..9, 1_000_000);
        assert_eq!([rig.local(), rig.remote(), rig.borrowed(2)], [[0; 0]; 3]);
        for number in 9..20_000 {
            // A packet each millisecond, and the first left out was the second of all.
            rig.publish(number..number + 1, 1_000_000);
            let [local, remote, borrowed] = [rig.local(), rig.remote(), rig.borrowed(2)];
            assert_eq!(local.len(), usize::from(number >= 10_001), "{number}");
            assert_eq!((&remote, &borrowed), (&local, &local));
        }
        let expected = SkipStats { packets: 10_000, timeouts: 1 };
        assert_eq!([rig.cursor.take_skipped(), rig.reader.take_skipped(), rig.lender.take_skipped()], [expected; 3]);
    }

    #[test]
    fn other_policies_ask_for_no_marks_and_leave_nothing_out() {
        let rig = Rig::new(8);
        assert!(rig.publisher.needs_key_frames());
        let subscribe = rig.publisher.subscribe();
        let Rig { mut publisher, pool, mut cursor, reader, lender, .. } = rig;
        drop((reader, lender));
        let _others = [LagPolicy::DropOldest, LagPolicy::Disconnect].map(|policy| subscribe.subscriber(policy));
        assert!(!publisher.needs_key_frames());
        for number in 0..20 {
            publisher.publish(packet(&pool, number, 100));
        }
        cursor.set_policy(LagPolicy::DropOldest);
        cursor.resume_at_key_frame();
        assert_eq!(publisher.read(&mut cursor).and_then(|packet| packet.meta.sequence), Some(12));
    }

    #[test]
    fn a_loss_behind_the_reader_is_followed_by_a_key_frame_too() {
        let mut rig = Rig::new(32);
        rig.publish(0..5, 10);
        assert_eq!(rig.local().len(), 5);
        rig.cursor.resume_at_key_frame();
        rig.publish(5..12, 10);
        assert_eq!(rig.local(), [10, 11]);
        assert_eq!((rig.cursor.take_missed(), rig.cursor.take_skipped().packets), (0, 5));
    }

    proptest! {
        /// Readers of every kind: after what they missed comes a key frame, and every packet is read, missed or left out.
        #[test]
        fn every_packet_is_accounted_for(
            turns in prop::collection::vec((0_u64..20, any::<[bool; 3]>(), 1_usize..20), 1..40), every in 1_u64..15,
        ) {
            let mut rig = Rig::new(8);
            let mut head = 0;
            let mut seen: [Vec<u64>; 3] = Default::default();
            for (count, reads, batch) in turns.into_iter().chain([(0, [true; 3], 1_000)]) {
                rig.publish(head..head + count, every);
                head += count;
                if reads[0] { seen[0].extend(rig.local()) }
                if reads[1] { seen[1].extend(rig.remote()) }
                if reads[2] { seen[2].extend(rig.borrowed(batch)) }
            }
            let Rig { cursor, reader, lender, .. } = &mut rig;
            let counts = [
                (cursor.take_missed(), cursor.take_skipped()), (reader.take_missed(), reader.take_skipped()),
                (lender.take_missed(), lender.take_skipped()),
            ];
            for (seen, (missed, skipped)) in seen.iter().zip(counts) {
                prop_assert_eq!(seen.len() as u64 + missed + skipped.packets, head);
                prop_assert_eq!(skipped.timeouts, 0);
                prop_assert!(seen.windows(2).all(|two| two[1] == two[0] + 1 || (two[1] > two[0] && two[1].is_multiple_of(every))));
                prop_assert!(seen.first().is_none_or(|first| *first == 0 || first.is_multiple_of(every)));
            }
        }
    }

    /// A ring and a reader of each kind, all of which go on at key frames.
    struct Rig {
        pool: Pool,
        publisher: Publisher,
        cursor: LocalCursor,
        reader: Subscriber,
        lender: Subscriber,
    }

    impl Rig {
        fn new(capacity: usize) -> Self {
            let pool = Pool::new(PoolLimits::default());
            let publisher = Publisher::new(pool.clone(), capacity);
            let mut cursor = LocalCursor::at_head(&publisher);
            cursor.set_policy(LagPolicy::ToNextKeyFrame);
            let subscribe = publisher.subscribe();
            let [reader, lender] = [(); 2].map(|()| subscribe.subscriber(LagPolicy::ToNextKeyFrame));
            Self { pool, publisher, cursor, reader, lender }
        }

        /// Packets of a millisecond each, of which one of `every` begins with a key frame.
        fn publish(&mut self, numbers: std::ops::Range<u64>, every: u64) {
            for number in numbers {
                self.publisher.publish(packet(&self.pool, number, every));
            }
            self.publisher.flush(self.cursor.next());
        }

        fn local(&mut self) -> Vec<u64> {
            std::iter::from_fn(|| self.publisher.read(&mut self.cursor)?.meta.sequence).collect()
        }

        fn remote(&mut self) -> Vec<u64> {
            std::iter::from_fn(|| self.reader.try_recv().unwrap()?.meta.sequence).collect()
        }

        fn borrowed(&mut self, batch: usize) -> Vec<u64> {
            let mut all = Vec::new();
            // More turns than the ring has packets.
            for _ in 0..9 {
                let numbers =
                    |lent: &mut crate::bus::Lent<'_>| lent.filter_map(|packet| packet.meta.sequence).collect();
                let some: Vec<u64> = self.lender.lend(batch, numbers).unwrap();
                all.extend(some);
            }
            all
        }
    }

    fn packet(pool: &Pool, number: u64, every: u64) -> Packet {
        let random_access = number.is_multiple_of(every);
        let arrival = Time::from_ns(number * 1_000_000);
        pool.copy(&[0x47], Meta { arrival, random_access, sequence: Some(number), ..Meta::default() }).unwrap()
    }
}
