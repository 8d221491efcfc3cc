//! Encoder and decoder against each other, and against what libsrt recorded.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::capture;
use super::super::handshake::{Extension, Handshake};
use super::super::missing::tests::Random;
use super::super::packet::{ControlKind, DataHeader, HEADER_BYTES as PACKET_HEADER_BYTES, Header};
use super::shape::{Shape, Way};
use super::*;
use crate::bus::PoolLimits;
use crate::units::{Extender, Seq, Time};

/// The 31 bits of the wire wrap a few packets later.
const FIRST: u64 = (2 << 31) - 20;
const PAYLOAD_MAX: usize = 200;
const SHAPES: [&str; 8] = [
    "fec,cols:10,rows:5",
    "fec,cols:10,rows:5,layout:even",
    "fec,cols:4,rows:9",
    "fec,cols:2,rows:2",
    "fec,cols:7",
    "fec,cols:2",
    "fec,cols:6,rows:-4",
    "fec,cols:3,rows:-2,layout:even",
];

#[test]
fn any_single_loss_is_rebuilt_as_it_was() {
    for text in SHAPES {
        let rig = Rig::new(text);
        let sent = rig.send(4 * rig.shape.matrix());
        for lost in 0..3 * rig.shape.matrix() {
            let is_covered = [Way::Row, Way::Column].iter().any(|way| rig.shape.group(*way, lost).is_some());
            let mut decoder = rig.decoder();
            let mut rebuilt = rig.receive(&mut decoder, &sent, |wire| wire.place() != Some(lost));
            assert_eq!(rebuilt.remove(&lost), is_covered, "{text} without {lost}");
            assert!(rebuilt.is_empty());
            assert_eq!(decoder.stats().lost, u64::from(!is_covered), "{text} without {lost}");
        }
    }
}

#[test]
fn without_loss_nothing_is_rebuilt_or_lost() {
    for text in SHAPES {
        let rig = Rig::new(text);
        let sent = rig.send(10 * rig.shape.matrix());
        let mut decoder = rig.decoder();
        assert!(rig.receive(&mut decoder, &sent, |_| true).is_empty());
        let repairs = sent.iter().filter(|wire| wire.place().is_none()).count() as u64;
        let stats = decoder.stats();
        assert_eq!(stats, Stats { repairs, repair_bytes: stats.repair_bytes, ..Stats::default() }, "{text}");
        assert!(repairs > 0 && decoder.poll_lost().is_none());
    }
}

#[test]
fn rows_and_columns_help_each_other() {
    let rig = Rig::new("fec,cols:3,rows:3,layout:even");
    let sent = rig.send(18);
    // Only column 1 misses a single packet; then row 0 does, then column 0.
    let lost = [0, 1, 3, 5];
    let mut decoder = rig.decoder();
    let rebuilt = rig.receive(&mut decoder, &sent, |wire| wire.place().is_none_or(|place| !lost.contains(&place)));
    assert_eq!(rebuilt.into_iter().collect::<Vec<_>>(), lost);
    // A square has two in each of its groups.
    let lost = [0, 1, 3, 4];
    let mut decoder = rig.decoder();
    let rebuilt = rig.receive(&mut decoder, &sent, |wire| wire.place().is_none_or(|place| !lost.contains(&place)));
    assert!(rebuilt.is_empty());
    assert_eq!(rig.lost(&mut decoder), BTreeSet::from(lost));
    assert_eq!(decoder.stats().lost, 4);
}

#[test]
fn a_burst_as_long_as_a_row_and_longer_is_rebuilt_from_columns() {
    for (text, burst) in [("fec,cols:10,rows:5", 12), ("fec,cols:10,rows:5,layout:even", 10), ("fec,cols:6,rows:-4", 6)]
    {
        let rig = Rig::new(text);
        let sent = rig.send(6 * rig.shape.matrix());
        let lost = 2 * rig.shape.matrix()..2 * rig.shape.matrix() + burst;
        let mut decoder = rig.decoder();
        let is_kept = |wire: &Wire| wire.place().is_none_or(|place| !lost.contains(&place));
        let rebuilt = rig.receive(&mut decoder, &sent, is_kept);
        assert_eq!(rebuilt.into_iter().collect::<Vec<_>>(), lost.clone().collect::<Vec<_>>(), "{text}");
    }
}

#[test]
fn the_first_packets_of_a_staircase_have_only_their_row() {
    let rig = Rig::new("fec,cols:10,rows:5");
    let sent = rig.send(120);
    let mut decoder = rig.decoder();
    let rebuilt = rig.receive(&mut decoder, &sent, |wire| wire.place() != Some(1) && wire.place() != Some(12));
    assert_eq!(rebuilt, BTreeSet::from([1, 12]));
    let mut decoder = rig.decoder();
    for wire in sent.iter().filter(|wire| ![Some(1), Some(2)].contains(&wire.place())) {
        rig.feed(&mut decoder, wire);
        // Said when their row is over, as nothing else can help them.
        let expected = if wire.sequence - FIRST > 9 { BTreeSet::from([1, 2]) } else { BTreeSet::new() };
        let lost = rig.lost(&mut decoder);
        assert_eq!(lost, if wire.place() == Some(10) { expected } else { BTreeSet::new() }, "{wire:?}");
    }
    assert_eq!((decoder.stats().rebuilt, decoder.stats().lost), (0, 2));
}

#[test]
fn what_cannot_be_rebuilt_is_told_when_its_last_group_is_over() {
    for (text, told_at) in [("fec,cols:10,rows:5", 102), ("fec,cols:10,rows:5,layout:even", 92), ("fec,cols:6", 75)] {
        let rig = Rig::new(text);
        let sent = rig.send(150);
        let span = rig.shape.span(if text.contains("rows") { Way::Column } else { Way::Row }, 11);
        // Both packets and their rows' repairs.
        let lost: BTreeSet<u64> = span.places().skip(1).take(2).collect();
        let rows: Vec<u64> = lost.iter().map(|place| place / rig.shape.columns()).collect();
        let mut decoder = rig.decoder();
        let mut told = BTreeMap::new();
        for wire in &sent {
            let place = wire.sequence - FIRST;
            let is_row_repair = wire.place().is_none() && wire.bytes[0] == 0xff;
            let is_hit = is_row_repair && rows.contains(&(place / rig.shape.columns()));
            if wire.place().is_some_and(|place| lost.contains(&place)) || is_hit {
                continue;
            }
            rig.feed(&mut decoder, wire);
            rig.lost(&mut decoder).into_iter().for_each(|lost| assert_eq!(told.insert(lost, place), None));
        }
        assert_eq!(told, lost.iter().map(|lost| (*lost, told_at)).collect(), "{text}");
    }
}

#[test]
fn what_is_asked_for_again_helps_to_rebuild_the_rest() {
    let rig = Rig::new("fec,cols:6");
    let sent = rig.send(12);
    let mut decoder = rig.decoder();
    let lost = [2, 4];
    assert!(
        rig.receive(&mut decoder, &sent, |wire| wire.place().is_none_or(|place| !lost.contains(&place))).is_empty()
    );
    let again = sent.iter().find(|wire| wire.place() == Some(2)).unwrap();
    assert_eq!(rig.feed(&mut decoder, again), BTreeSet::from([4]));
    // Both come once more.
    for wire in sent.iter().filter(|wire| wire.place().is_some_and(|place| lost.contains(&place))) {
        assert!(rig.feed(&mut decoder, wire).is_empty());
    }
    assert_eq!(decoder.stats().rebuilt, 1);
}

#[test]
fn a_group_of_which_a_packet_never_went_out_has_no_repair() {
    let rig = Rig::new("fec,cols:3,rows:2,layout:even");
    let mut encoder = rig.encoder();
    let mut repairs = Vec::new();
    for place in (0..24).filter(|place| !(4..10).contains(place)) {
        let data = rig.data(place);
        encoder.handle(&rig.pool, &data.member());
        let ready = std::iter::from_fn(|| encoder.poll());
        repairs.extend(ready.map(|repair| (repair.sequence - FIRST, repair.packet[0] as i8)));
    }
    let expected =
        [(2, -1), (3, 0), (14, -1), (15, 0), (16, 1), (17, 2), (17, -1), (20, -1), (21, 0), (22, 1), (23, 2), (23, -1)];
    assert_eq!(repairs, expected);
}

#[test]
fn repairs_that_belong_to_no_group_are_counted_and_change_nothing() {
    let rig = Rig::new("fec,cols:10,rows:5");
    let sent = rig.send(100);
    let mut decoder = rig.decoder();
    rig.receive(&mut decoder, &sent, |wire| wire.place() != Some(55));
    let repair = [0xff, 0, 0, 1, 9];
    let column = [0, 0, 0, 1, 9];
    for (place, repair) in [
        // Not the last of its row, nor of any column.
        (58, &repair[..]),
        (57, &column[..]),
        // The last of column 5, but called 0; and of no column at all.
        (45, &column[..]),
        (3, &[3, 0, 0, 1, 9][..]),
        // Too short.
        (59, &repair[..4]),
        (59, &repair[..1]),
        (59, &[]),
    ] {
        let before = decoder.stats();
        decoder.handle_repair(Time::ZERO, FIRST + place, 0, repair);
        let after = decoder.stats();
        assert_eq!(after.refused, before.refused + 1, "{place} {repair:?}");
        assert!(decoder.poll_rebuilt().is_none());
    }
    decoder.handle_repair(Time::ZERO, FIRST - 1, 0, &repair);
    decoder.handle_repair(Time::ZERO, 0, 0, &repair);
    assert_eq!((decoder.stats().refused, decoder.stats().rebuilt), (9, 1));
}

#[test]
fn a_repair_that_is_cut_rebuilds_nothing_or_the_right_thing() {
    for text in ["fec,cols:5", "fec,cols:4,rows:-3,layout:even"] {
        let rig = Rig::new(text);
        let sent = rig.send(12);
        let (missing, last) = (4, if text.contains("rows") { 8 } else { 4 });
        let repair = sent.iter().find(|wire| wire.place().is_none() && wire.sequence - FIRST == last).unwrap();
        for len in 0..=repair.bytes.len() {
            let mut decoder = rig.decoder();
            for wire in sent.iter().filter(|wire| wire.place().is_some_and(|place| place != missing)) {
                rig.feed(&mut decoder, wire);
            }
            let cut = Wire { bytes: repair.bytes[..len].to_vec(), ..repair.clone() };
            // Feeding compares it with what was sent.
            let rebuilt = rig.feed(&mut decoder, &cut);
            assert!(rebuilt.is_empty() || len == repair.bytes.len(), "{text} cut to {len}");
        }
    }
}

#[test]
fn a_jump_costs_no_more_than_a_step_and_what_is_behind_is_forgotten() {
    for text in SHAPES {
        let rig = Rig::new(text);
        let mut decoder = rig.decoder();
        let matrix = rig.shape.matrix();
        rig.receive(&mut decoder, &rig.send(2 * matrix), |_| true);
        // A multiple of the matrix, so that what comes after can be the same again.
        let far = (1 << 40) / matrix * matrix;
        let mut numbers = Random(5);
        for jump in [far, 2 * far, 3 * far + matrix] {
            let mut encoder = rig.encoder();
            let lost = jump + 2 * matrix + numbers.below(matrix);
            let mut rebuilt = BTreeSet::new();
            for place in jump..jump + 5 * matrix {
                let data = rig.data(place);
                encoder.handle(&rig.pool, &data.member());
                if place != lost {
                    rebuilt.extend(rig.feed(&mut decoder, &data));
                }
                while let Some(repair) = encoder.poll() {
                    rebuilt.extend(rig.feed(&mut decoder, &Wire::of(repair)));
                }
            }
            assert_eq!(rebuilt, BTreeSet::from([lost]), "{text} after a jump to {jump}");
            let before = decoder.stats();
            assert!(rig.feed(&mut decoder, &rig.data(matrix)).is_empty());
            assert_eq!(decoder.stats(), before);
            assert!(rig.lost(&mut decoder).contains(&(jump - 1)), "{text} after a jump to {jump}");
        }
    }
}

#[test]
fn message_numbers_of_what_was_rebuilt_wrap_too() {
    let rig = Rig { message_offset: (1 << 26) - 8, ..Rig::new("fec,cols:5,rows:3") };
    let sent = rig.send(60);
    for lost in 0..40 {
        let mut decoder = rig.decoder();
        // Feeding compares the whole header with what was sent.
        let rebuilt = rig.receive(&mut decoder, &sent, |wire| wire.place() != Some(lost));
        assert_eq!(rebuilt, BTreeSet::from([lost]));
    }
}

#[test]
fn garbage_never_panics_and_nothing_grows() {
    for seed in 0..40 {
        let mut random = Random(seed);
        let rig = Rig::new(SHAPES[seed as usize % SHAPES.len()]);
        let mut decoder = rig.decoder();
        let mut place = 0_u64;
        for _ in 0..3_000 {
            place = match random.below(50) {
                0 => random.next() >> (2 + random.below(60)),
                1..5 => place.saturating_sub(random.below(100)),
                5 => place + random.below(1_000),
                _ => place + random.below(3),
            };
            let bytes: Vec<u8> = (0..random.below(12)).map(|_| random.below(4) as u8 * 85).collect();
            let sequence = [FIRST + place, place][usize::from(random.below(30) == 0)];
            if random.below(3) == 0 {
                decoder.handle_repair(Time::ZERO, sequence, random.next() as u32, &bytes);
            } else {
                let member = Member { sequence, payload: &bytes, ..rig.data(0).member() };
                decoder.handle_data(Time::ZERO, &member);
            }
            let mut count = 0;
            while let Some(rebuilt) = decoder.poll_rebuilt() {
                assert!((1..=PAYLOAD_MAX).contains(&rebuilt.packet.len()));
                count += 1;
            }
            while let Some(lost) = decoder.poll_lost() {
                assert!(lost.start() <= lost.end());
                count += 1;
            }
            assert!(count <= 8 * rig.shape.matrix().max(64), "seed {seed}: {count}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Until the window moves on, all is rebuilt that somebody with all the time in the world would, and nothing else.
    #[test]
    fn all_is_rebuilt_that_can_be(shape in 0..SHAPES.len(), seed in any::<u64>(), loss in 0_u64..40, mess in any::<bool>()) {
        let rig = Rig::new(SHAPES[shape]);
        let mut random = Random(seed);
        let mut came = rig.send(2 * rig.shape.matrix());
        came.retain(|_| random.below(100) >= loss);
        if mess {
            let again: Vec<Wire> = came.iter().filter(|_| random.below(10) == 0).cloned().collect();
            came.extend(again);
            for index in 1..came.len() {
                let other = index - random.below(6.min(index as u64)) as usize;
                came.swap(index, other);
            }
        }
        let mut decoder = rig.decoder();
        let rebuilt = rig.receive(&mut decoder, &came, |_| true);
        // In a mess a repair may come before the last packet of its group, which is then rebuilt and comes as well.
        let came_too: BTreeSet<u64> = came.iter().filter_map(Wire::place).collect();
        prop_assert_eq!(&rebuilt - &came_too, rig.solve(&came));
        prop_assert!(mess || rebuilt.is_disjoint(&came_too));
        prop_assert_eq!(decoder.stats().refused, 0);
    }

    /// On a long way, all that misses alone in its row is rebuilt, and whatever else is, is right.
    #[test]
    fn a_long_way_with_random_loss(shape in 0..SHAPES.len(), seed in any::<u64>(), loss in 1_u64..20) {
        let rig = Rig::new(SHAPES[shape]);
        let mut random = Random(seed);
        let sent = rig.send(20 * rig.shape.matrix());
        let came: Vec<Wire> = sent.iter().filter(|_| random.below(100) >= loss).cloned().collect();
        let mut decoder = rig.decoder();
        let rebuilt = rig.receive(&mut decoder, &came, |_| true);
        let possible = rig.solve(&came);
        prop_assert!(rebuilt.is_subset(&possible));
        let simple = rig.solve_once(&came);
        prop_assert!(rebuilt.is_superset(&simple), "{:?}", simple.difference(&rebuilt));
    }
}

#[test]
fn libsrts_handshake_and_repairs_are_made_alike() {
    let capture = Capture::read();
    let agreed = answer(None, Some(&capture.asked)).unwrap().unwrap();
    let ours: Config = capture.asked.parse().unwrap();
    // As libsrt's listener, which was configured like its caller, answered.
    let answered = answer(Some(&ours), Some(&capture.asked)).unwrap().unwrap();
    assert_eq!(answered.config.to_string(), capture.answered);
    assert_eq!(answered.settled, agreed.settled);
    assert_eq!(conclude(Some(&ours), Some(&capture.answered)).unwrap().unwrap().settled, agreed.settled);
    let pool = Pool::new(PoolLimits::default());
    let mut encoder = Encoder::new(&agreed.settled, capture.first, 1_316);
    let mut compared = 0;
    for (header, sequence, payload) in &capture.packets {
        if header.message_number == 0 {
            let repair = encoder.poll().unwrap();
            assert_eq!((repair.sequence, repair.timestamp), (*sequence, header.timestamp));
            assert!(&*repair.packet == payload, "repair at {}", sequence - capture.first);
            assert!(!header.retransmitted && header.position == 0b11);
            compared += 1;
        } else {
            assert!(encoder.poll().is_none());
            encoder.handle(&pool, &member(header, *sequence, payload));
        }
    }
    assert_eq!(compared, 23);
}

#[test]
fn any_packet_that_libsrt_sent_is_rebuilt_from_the_others() {
    let capture = Capture::read();
    let settled = answer(None, Some(&capture.asked)).unwrap().unwrap().settled;
    let pool = Pool::new(PoolLimits::default());
    for (lost, sequence, payload) in capture.packets.iter().filter(|packet| packet.0.message_number != 0) {
        let place = sequence - capture.first;
        if place >= 100 {
            // The capture ends in its row.
            continue;
        }
        let mut decoder = Decoder::new(&settled, capture.first, 1_316, pool.clone());
        for (header, sequence, payload) in capture.packets.iter().filter(|packet| packet.0 != *lost) {
            match header.message_number {
                0 => decoder.handle_repair(Time::ZERO, *sequence, header.timestamp, payload),
                _ => decoder.handle_data(Time::ZERO, &member(header, *sequence, payload)),
            }
        }
        let rebuilt = decoder.poll_rebuilt().unwrap();
        assert_eq!(rebuilt.header(lost.destination), *lost, "without {place}");
        assert!(*rebuilt.packet == **payload, "without {place}");
        assert!(decoder.poll_rebuilt().is_none());
        assert_eq!((decoder.stats().refused, decoder.stats().lost), (0, 0));
    }
}

/// An excerpt of a session of two libsrt 1.5.5: what both said of the filter, and the first packets.
struct Capture {
    asked: String,
    answered: String,
    /// Extended number of the first packet.
    first: u64,
    packets: Vec<(DataHeader, u64, Vec<u8>)>,
}

impl Capture {
    fn read() -> Self {
        let (mut texts, mut extender, mut packets) = (Vec::new(), None, Vec::new());
        for mut recorded in capture::read("fec-10x5-staircase-155") {
            let body = recorded.bytes.split_off(PACKET_HEADER_BYTES);
            match Header::parse(&recorded.bytes).unwrap() {
                Header::Control(header) => {
                    assert_eq!(header.kind, ControlKind::Handshake);
                    texts.extend(Handshake::parse(&body).unwrap().1.find_map(|extension| match extension {
                        Ok(Extension::Filter(text)) => Some(text),
                        _ => None,
                    }));
                }
                Header::Data(header) => {
                    let extender = extender.get_or_insert_with(|| Extender::new(header.sequence));
                    packets.push((header, extender.extend(header.sequence), body));
                }
            }
        }
        let [asked, answered] = texts.try_into().unwrap();
        Self { asked, answered, first: packets[0].1, packets }
    }
}

fn member<'payload>(header: &DataHeader, sequence: u64, payload: &'payload [u8]) -> Member<'payload> {
    let DataHeader { message_number, in_order, timestamp, key, .. } = *header;
    Member { sequence, message_number, in_order, timestamp, key, payload }
}

/// Both ends, and what goes from one to the other.
struct Rig {
    settled: Settled,
    shape: Shape,
    pool: Pool,
    /// What message numbers are ahead of places.
    message_offset: u64,
}

/// A packet on its way.
#[derive(Clone, Debug)]
struct Wire {
    sequence: u64,
    /// Zero for a repair.
    message_number: u32,
    timestamp: u32,
    key: KeyFlag,
    bytes: Vec<u8>,
}

impl Wire {
    fn of(repair: Repair) -> Self {
        let Repair { sequence, timestamp, packet } = repair;
        Self { sequence, message_number: 0, timestamp, key: KeyFlag::Clear, bytes: packet.to_vec() }
    }

    /// Of a data packet.
    fn place(&self) -> Option<u64> {
        (self.message_number != 0).then(|| self.sequence - FIRST)
    }

    fn member(&self) -> Member<'_> {
        let Self { sequence, message_number, timestamp, key, .. } = *self;
        Member { sequence, message_number, in_order: true, timestamp, key, payload: &self.bytes }
    }
}

impl Rig {
    fn new(text: &str) -> Self {
        let settled = answer(None, Some(text)).unwrap().unwrap().settled;
        let pool = Pool::new(PoolLimits::default());
        Self { settled, shape: Shape::new(&settled), pool, message_offset: 0 }
    }

    fn encoder(&self) -> Encoder {
        Encoder::new(&self.settled, FIRST, PAYLOAD_MAX)
    }

    fn decoder(&self) -> Decoder {
        Decoder::new(&self.settled, FIRST, PAYLOAD_MAX, self.pool.clone())
    }

    /// The data packet of a place: each of another length, with whatever bytes.
    fn data(&self, place: u64) -> Wire {
        let mut random = Random(place);
        let len = 1 + random.below(PAYLOAD_MAX as u64);
        Wire {
            sequence: FIRST + place,
            message_number: ((place + self.message_offset) % ((1 << 26) - 1)) as u32 + 1,
            timestamp: random.next() as u32,
            key: KeyFlag::of(random.below(3) as u32),
            bytes: (0..len).map(|_| random.next() as u8).collect(),
        }
    }

    /// All that goes out for so many data packets.
    fn send(&self, packets: u64) -> Vec<Wire> {
        let mut encoder = self.encoder();
        let mut sent = Vec::new();
        for place in 0..packets {
            let data = self.data(place);
            assert!(encoder.handle(&self.pool, &data.member()));
            sent.push(data);
            sent.extend(std::iter::from_fn(|| encoder.poll()).map(Wire::of));
        }
        sent
    }

    /// Places of what is rebuilt with it, each compared with what was sent.
    fn feed(&self, decoder: &mut Decoder, wire: &Wire) -> BTreeSet<u64> {
        if wire.message_number == 0 {
            decoder.handle_repair(Time::ZERO, wire.sequence, wire.timestamp, &wire.bytes);
        } else {
            decoder.handle_data(Time::ZERO, &wire.member());
        }
        let mut places = BTreeSet::new();
        while let Some(rebuilt) = decoder.poll_rebuilt() {
            let place = rebuilt.sequence - FIRST;
            let sent = self.data(place);
            assert!(*rebuilt.packet == sent.bytes[..], "another payload at {place}");
            assert_eq!((rebuilt.timestamp, rebuilt.key), (sent.timestamp, sent.key), "{place}");
            assert_eq!((rebuilt.message_number, rebuilt.in_order), (sent.message_number, true), "{place}");
            assert_eq!(rebuilt.header(1).sequence, Seq::new(sent.sequence as u32));
            assert!(places.insert(place), "{place} twice");
        }
        places
    }

    fn receive(&self, decoder: &mut Decoder, sent: &[Wire], keep: impl Fn(&Wire) -> bool) -> BTreeSet<u64> {
        sent.iter().filter(|wire| keep(wire)).flat_map(|wire| self.feed(decoder, wire)).collect()
    }

    /// Places told to be lost since the last time; a jump only by its ends.
    fn lost(&self, decoder: &mut Decoder) -> BTreeSet<u64> {
        let mut lost = BTreeSet::new();
        while let Some(range) = decoder.poll_lost() {
            if range.end() - range.start() < 1_000 {
                lost.extend(range.map(|sequence| sequence - FIRST));
            } else {
                lost.extend([*range.start() - FIRST, *range.end() - FIRST]);
            }
        }
        lost
    }

    /// Groups whose repairs came, as sets of places.
    fn groups(&self, came: &[Wire]) -> Vec<Vec<u64>> {
        let repairs = came.iter().filter(|wire| wire.message_number == 0);
        let group = |wire: &Wire| {
            let way = if wire.bytes[0] == 0xff { Way::Row } else { Way::Column };
            let group = self.shape.group(way, wire.sequence - FIRST).unwrap();
            self.shape.span(way, group).places().collect()
        };
        repairs.map(group).collect()
    }

    /// What can be rebuilt at all: whole but for one, again and again.
    fn solve(&self, came: &[Wire]) -> BTreeSet<u64> {
        let groups = self.groups(came);
        let mut known: BTreeSet<u64> = came.iter().filter_map(Wire::place).collect();
        let mut solved = BTreeSet::new();
        loop {
            let missing = |group: &Vec<u64>| {
                let mut missing = group.iter().filter(|place| !known.contains(place));
                missing.next().copied().filter(|_| missing.next().is_none())
            };
            let Some(place) = groups.iter().find_map(missing) else { return solved };
            known.insert(place);
            solved.insert(place);
        }
    }

    /// What one group alone is enough for.
    fn solve_once(&self, came: &[Wire]) -> BTreeSet<u64> {
        let known: BTreeSet<u64> = came.iter().filter_map(Wire::place).collect();
        let groups = self.groups(came);
        let missing =
            groups.iter().map(|group| group.iter().filter(|place| !known.contains(place)).collect::<Vec<_>>());
        missing.filter(|missing| missing.len() == 1).map(|missing| *missing[0]).collect()
    }
}
