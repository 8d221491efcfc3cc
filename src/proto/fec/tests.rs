//! Encoder and decoder against captured packets, against each other, and against a slow model.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::bus::{Meta, Packet, Pool, PoolLimits};
use crate::proto::rtp;
use crate::units::{Seq, Time};

const CAPTURES: [(&str, &[u8]); 2] = [
    ("ffmpeg", include_bytes!("../../../tests/data/fec/ffmpeg-8x4.bin")),
    ("GStreamer", include_bytes!("../../../tests/data/fec/gstreamer-8x4.bin")),
];

#[test]
fn our_fec_packets_are_those_of_the_peers() {
    for (peer, capture) in CAPTURES {
        let mut encoder = Encoder::new(Matrix::DEFAULT, pool(), 0);
        let mut ours = BTreeMap::new();
        for (_, media) in records(capture).iter().filter(|(port, _)| *port == 0) {
            let (fixed, rest) = media.split_first_chunk().unwrap();
            encoder.handle(fixed, rest);
            while let Some(FecPacket { packet, .. }) = encoder.poll() {
                ours.insert(key(&packet), packet.to_vec());
            }
        }
        let mut compared = 0;
        for (port, theirs) in records(capture).iter().filter(|(port, _)| *port != 0) {
            let ours = &ours[&key(theirs)];
            // Sequence number and timestamp are the sender's choice.
            assert_eq!((ours[..2].to_vec(), &ours[8..]), (theirs[..2].to_vec(), &theirs[8..]), "{peer} {port}");
            compared += 1;
        }
        assert!(compared >= 15, "{peer} {compared}");
    }
}

#[test]
fn each_packet_of_the_peers_first_matrix_is_rebuilt() {
    for (peer, capture) in CAPTURES {
        let records = records(capture);
        let media: Vec<&[u8]> = records.iter().filter(|(port, _)| *port == 0).map(|(_, bytes)| *bytes).collect();
        for missing in &media[1..32] {
            let mut run = Run::new();
            for (port, bytes) in &records {
                match port {
                    0 if bytes == missing => {}
                    0 => run.media(bytes),
                    _ => run.fec(bytes),
                }
            }
            assert_eq!(run.recovered.len(), 1, "{peer}");
            assert_eq!(run.recovered.values().next().unwrap()[..], **missing, "{peer}");
            let stats = run.decoder.stats();
            assert_eq!((stats.matrix_columns, stats.matrix_rows, stats.refused), (8, 4, 0));
        }
    }
}

#[test]
fn nothing_is_rebuilt_where_nothing_is_missing() {
    for (peer, capture) in CAPTURES {
        let mut run = Run::new();
        for (port, bytes) in records(capture) {
            if port == 0 { run.media(bytes) } else { run.fec(bytes) }
        }
        run.wait(Duration::from_millis(1));
        assert_eq!((run.recovered.len(), run.decoder.stats().repaired), (0, 0), "{peer}");
    }
}

#[test]
fn a_fec_packet_before_its_last_media_packet_waits_for_it() {
    let sent = send("4,rows", 8, 100);
    let mut run = Run::new();
    (0..3).for_each(|n| run.media(&sent.media[n]));
    run.fec(&sent.fec[0].1);
    assert_eq!(run.decoder.poll_timeout(), Some(run.now + Duration::from_millis(25)));
    run.media(&sent.media[3]);
    assert!(run.recovered.is_empty());
    run.wait(Duration::from_secs(1));
    assert!(run.recovered.is_empty());
}

#[test]
fn a_packet_is_rebuilt_when_a_later_one_came_or_after_the_hold() {
    for later_one in [true, false] {
        let sent = send("4,rows", 8, 100);
        let mut run = Run::new();
        (0..3).for_each(|n| run.media(&sent.media[n]));
        run.fec(&sent.fec[0].1);
        if later_one {
            run.media(&sent.media[4]);
        } else {
            run.wait(Duration::from_millis(24));
            assert!(run.recovered.is_empty());
            run.wait(Duration::from_millis(1));
        }
        assert_eq!(run.recovered.len(), 1);
        assert_eq!(run.decoder.poll_timeout(), None);
        // The original is of no more use.
        run.media(&sent.media[3]);
        assert_eq!(run.decoder.stats().repaired, 1);
    }
}

#[test]
fn the_hold_is_as_long_as_a_row() {
    let sent = send("4,rows", 12, 100);
    let mut run = Run::new();
    for n in 0..4 {
        run.media(&sent.media[n]);
        run.now += Duration::from_millis(20);
    }
    run.fec(&sent.fec[0].1);
    (4..7).for_each(|n| run.media(&sent.media[n]));
    run.fec(&sent.fec[1].1);
    assert_eq!(run.decoder.poll_timeout(), Some(run.now + Duration::from_millis(80)));
}

#[test]
fn rows_help_columns_and_columns_help_rows() {
    // Column 0 of a 4x4 matrix misses two, and so does row 1: 0, 4 and 5 are missing.
    let sent = send("4x4", 48, 100);
    let mut run = Run::new();
    for (n, media) in sent.media.iter().enumerate() {
        // The first matrix only starts the decoder.
        if ![16, 20, 21].contains(&n) {
            run.media(media);
        }
        sent.fec.iter().filter(|(after, _)| *after == n).for_each(|(_, fec)| run.fec(fec));
    }
    assert_eq!(run.recovered.keys().map(|n| n - FIRST).collect::<Vec<_>>(), [16, 20, 21]);
}

#[test]
fn a_matrix_may_change_in_flight() {
    let first = send("8x4", 96, 100);
    let second = send_from("5x10", 96, 300, 100);
    let mut run = Run::new();
    for (sent, from) in [(&first, 0), (&second, 96)] {
        for (n, media) in sent.media.iter().enumerate() {
            if (n + from) % 13 != 5 {
                run.media(media);
            }
            sent.fec.iter().filter(|(after, _)| *after == n).for_each(|(_, fec)| run.fec(fec));
        }
    }
    run.wait(Duration::from_secs(1));
    let stats = run.decoder.stats();
    assert_eq!((stats.matrix_columns, stats.matrix_rows), (5, 10));
    assert_eq!(stats.repaired, (0..396).filter(|n| n % 13 == 5).count() as u64);
}

#[test]
fn a_fec_packet_that_does_not_fit_its_media_is_refused() {
    let sent = send("4,rows", 8, 100);
    for (at, value) in [(14, 0xff), (15, 0x01), (30, 0xff)] {
        let mut run = Run::new();
        (4..7).for_each(|n| run.media(&sent.media[n]));
        let mut fec = sent.fec[1].1.clone();
        // A length beyond the payload; a shorter one; one with filler that is not zero.
        fec[at] ^= value;
        if at == 30 {
            fec.push(1);
        }
        run.fec(&fec);
        run.wait(Duration::from_secs(1));
        assert_eq!((run.recovered.len(), run.decoder.stats().refused), (0, 1), "{at}");
    }
}

#[test]
fn media_too_far_from_the_latest_is_out_of_range() {
    let sent = send("8x4", 3_000, 20);
    let mut run = Run::new();
    run.fec(&sent.fec[0].1);
    assert_eq!(run.decoder.stats().out_of_range, 1, "before any media");
    run.media(&sent.media[0]);
    run.media(&sent.media[2_000]);
    for (_, fec) in &sent.fec {
        run.fec(fec);
    }
    let stats = *run.decoder.stats();
    assert!(stats.out_of_range > 100, "{stats:?}");
    assert_eq!((run.recovered.len(), stats.unrepaired), (0, 2_000 - 639 - 1));
    run.decoder.restart();
    run.media(&sent.media[5]);
    run.media(&sent.media[6]);
    assert_eq!(run.decoder.stats().unrepaired, stats.unrepaired);
}

#[test]
fn the_delay_is_learnt_and_forgotten() {
    let mut run = Run::new();
    let sent = send("8x4", 12_000, 20);
    assert_eq!(run.decoder.delay(), Duration::from_millis(250));
    for (n, media) in sent.media.iter().enumerate() {
        run.media(media);
        sent.fec.iter().filter(|(after, _)| *after == n).for_each(|(_, fec)| run.fec(fec));
        run.now += Duration::from_millis(if n < 300 { 5 } else { 2 });
        if n == 300 {
            // The last column comes behind the first packet of the last row of the next matrix: 28 + 32 - 7.
            assert_eq!(run.decoder.delay(), Duration::from_millis(5 * 53 * 5 / 4) + Duration::from_micros(250));
        }
    }
    assert_eq!(run.decoder.delay(), Duration::from_micros(2 * 53 * 5_000 / 4));
}

#[test]
fn columns_make_no_burst_and_the_end_sends_the_rest() {
    let sent = send("8x4", 64, 20);
    let columns: Vec<usize> = sent.of(Direction::Column).map(|(after, _)| *after).collect();
    assert_eq!(columns, [32, 36, 40, 44, 48, 52, 56, 60, 63, 63, 63, 63, 63, 63, 63, 63]);
    let rows: Vec<usize> = sent.of(Direction::Row).map(|(after, _)| *after).collect();
    assert_eq!(rows, [7, 15, 23, 31, 39, 47, 55, 63]);
}

#[test]
fn a_gap_in_what_is_sent_begins_a_new_matrix() {
    let mut encoder = Encoder::new(matrix("4x4"), pool(), 7);
    let mut bases = Vec::new();
    for n in (0..10).chain(20..60) {
        let media = media(n, 20);
        let (fixed, rest) = media.split_first_chunk().unwrap();
        encoder.handle(fixed, rest);
        while let Some(FecPacket { direction, packet }) = encoder.poll() {
            if direction == Direction::Column {
                bases.push(number(&[&[0; 2][..], &packet[12..14]].concat()) - FIRST);
            }
        }
    }
    assert_eq!(bases, [20, 21, 22, 23, 36, 37]);
}

#[test]
fn without_buffers_nothing_is_made_and_all_is_counted() {
    let mut encoder = Encoder::new(Matrix::DEFAULT, Pool::new(PoolLimits { small_max: 0, large_max: 0 }), 7);
    for n in 0..64 {
        let media = media(n, 20);
        let (fixed, rest) = media.split_first_chunk().unwrap();
        encoder.handle(fixed, rest);
        assert!(encoder.poll().is_none());
    }
    assert_eq!(encoder.no_buffer(), 128);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Any matrix, lengths, and loss of media, columns and rows; near datagrams change places.
    #[test]
    fn what_the_model_rebuilds_is_rebuilt(
        columns in 1_u8..21, rows in 4_u8..21, sends_rows: bool, lost_per_mille in 0_u32..300, seed: u64, swaps in 0_u32..3
    ) {
        let Ok(matrix) = Matrix::new(columns, rows, sends_rows) else { return Ok(()) };
        let mut random = fastrand(seed);
        let sent = send_with(matrix, 0, 500, |_| 20 + (random() % 4 * 100) as usize);
        let mut datagrams = sent.in_order();
        for at in 1..datagrams.len() {
            if swaps > 0 && random() % 10 < u64::from(swaps) {
                datagrams.swap(at - 1, at);
            }
        }
        // The first one starts decoder and model alike.
        let first = datagrams.iter().position(|(is_media, bytes)| *is_media && *bytes == sent.media[0]).unwrap();
        let first = datagrams.remove(first);
        datagrams.retain(|_| random() % 1_000 >= u64::from(lost_per_mille));
        datagrams.insert(0, first);
        check_against_model(&datagrams, &sent)?;
    }

    /// Columns that begin a row lower each, with no rows: groups in no way aligned with each other.
    #[test]
    fn a_staircase_is_rebuilt_as_by_the_model(lost_per_mille in 0_u64..300, seed: u64, with_rows: bool) {
        let mut random = fastrand(seed);
        let (columns, rows) = (6_u64, 5_u64);
        let mut sent = Sent::default();
        for n in 0..500_u64 {
            sent.media.push(media(n, 20 + (random() % 3 * 50) as usize));
            // Packet n ends the column that began 24 packets before if its row is one that this column begins with.
            let (row, column) = (n / columns, n % columns);
            let span = columns * (rows - 1);
            if n >= span && (row + 1 + column) % rows == 0 {
                sent.fec.push((n as usize, fec(&sent.media, (n - span..=n).step_by(6), Direction::Column)));
            }
            if with_rows && column == 5 {
                sent.fec.push((n as usize, fec(&sent.media, n - 5..=n, Direction::Row)));
            }
        }
        let mut datagrams = sent.in_order();
        let first = datagrams.remove(0);
        datagrams.retain(|_| random() % 1_000 >= lost_per_mille);
        datagrams.insert(0, first);
        check_against_model(&datagrams, &sent)?;
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        check_any_bytes(&bytes);
    }
}

/// Decoder and model get the same datagrams and rebuild the same packets, as they were.
fn check_against_model(datagrams: &[(bool, Vec<u8>)], sent: &Sent) -> Result<(), TestCaseError> {
    let mut run = Run::new();
    let mut model = Model::default();
    for (is_media, bytes) in datagrams {
        if *is_media {
            run.media(bytes);
            model.came.insert(number(bytes));
        } else {
            run.fec(bytes);
            model.add(bytes);
        }
        run.now += Duration::from_micros(100);
    }
    run.wait(Duration::from_secs(60));
    let rebuilt = model.rebuild();
    // What came all the same, after a later one, was rebuilt too early.
    let needed = run.recovered.keys().filter(|number| !run.came.contains(number));
    prop_assert_eq!(needed.copied().collect::<BTreeSet<_>>(), rebuilt);
    for (sequence, bytes) in &run.recovered {
        prop_assert_eq!(bytes, &sent.media[(sequence - FIRST) as usize]);
    }
    prop_assert_eq!(run.decoder.stats().refused, 0);
    Ok(())
}

/// Looks at every group again and again until nothing more can be rebuilt.
#[derive(Default)]
struct Model {
    came: BTreeSet<u64>,
    groups: Vec<Vec<u64>>,
}

impl Model {
    fn add(&mut self, fec: &[u8]) {
        let (header, _) = FecHeader::parse(fec).unwrap();
        let base = FIRST + u64::from(Seq::<16>::new(FIRST as u32).distance(header.base).cast_unsigned());
        let members = (0..u64::from(header.count)).map(|n| base + n * u64::from(header.offset)).collect();
        self.groups.push(members);
    }

    fn rebuild(mut self) -> BTreeSet<u64> {
        let mut rebuilt = BTreeSet::new();
        loop {
            let before = rebuilt.len();
            for group in &self.groups {
                let missing: Vec<u64> = group.iter().filter(|n| !self.came.contains(n)).copied().collect();
                if let [one] = missing[..] {
                    self.came.insert(one);
                    rebuilt.insert(one);
                }
            }
            if rebuilt.len() == before {
                return rebuilt;
            }
        }
    }
}

struct Run {
    pool: Pool,
    decoder: Decoder,
    now: Time,
    recovered: BTreeMap<u64, Vec<u8>>,
    came: BTreeSet<u64>,
}

impl Run {
    fn new() -> Self {
        let pool = pool();
        let (recovered, came) = (BTreeMap::new(), BTreeSet::new());
        Self { decoder: Decoder::new(pool.clone()), pool, now: Time::ZERO, recovered, came }
    }

    fn packet(&self, bytes: &[u8]) -> Packet {
        self.pool.copy(bytes, Meta { arrival: self.now, ..Meta::default() }).unwrap()
    }

    fn media(&mut self, bytes: &[u8]) {
        let sequence = number(bytes);
        self.came.insert(sequence);
        let packet = self.packet(bytes);
        self.decoder.handle_media(self.now, sequence, &packet);
        self.drain();
    }

    fn fec(&mut self, bytes: &[u8]) {
        let packet = self.packet(bytes);
        self.decoder.handle_fec(self.now, packet);
        self.drain();
    }

    fn wait(&mut self, span: Duration) {
        self.now += span;
        self.decoder.handle_timeout(self.now);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(Recovered { sequence, packet }) = self.decoder.poll_recovered() {
            assert!(!self.came.contains(&sequence), "{sequence} had come");
            assert!(self.recovered.insert(sequence, packet.to_vec()).is_none(), "{sequence} came again");
        }
    }
}

/// Media, and FEC packets with the index of the media packet that they follow.
#[derive(Default)]
struct Sent {
    media: Vec<Vec<u8>>,
    fec: Vec<(usize, Vec<u8>)>,
}

impl Sent {
    fn of(&self, direction: Direction) -> impl Iterator<Item = &(usize, Vec<u8>)> {
        self.fec.iter().filter(move |(_, fec)| FecHeader::parse(fec).unwrap().0.direction == direction)
    }

    fn in_order(&self) -> Vec<(bool, Vec<u8>)> {
        let mut out = Vec::new();
        for (n, media) in self.media.iter().enumerate() {
            out.push((true, media.clone()));
            out.extend(self.fec.iter().filter(|(after, _)| *after == n).map(|(_, fec)| (false, fec.clone())));
        }
        out
    }
}

fn send(matrix: &str, packets: u64, bytes: usize) -> Sent {
    send_from(matrix, 0, packets, bytes)
}

fn send_from(matrix: &str, from: u64, packets: u64, bytes: usize) -> Sent {
    let Some(columns) = matrix.strip_suffix(",rows") else {
        return send_with(self::matrix(matrix), from, packets, |_| bytes);
    };
    // There are senders of rows alone.
    let mut sent = send_with(self::matrix(&format!("{columns}x4")), from, packets, |_| bytes);
    sent.fec.retain(|(_, fec)| FecHeader::parse(fec).unwrap().0.direction == Direction::Row);
    sent
}

fn send_with(matrix: Matrix, from: u64, packets: u64, mut bytes: impl FnMut(u64) -> usize) -> Sent {
    let mut encoder = Encoder::new(matrix, pool(), 7);
    let mut sent = Sent::default();
    for n in 0..packets {
        let media = media(from + n, bytes(n));
        let (fixed, rest) = media.split_first_chunk().unwrap();
        encoder.handle(fixed, rest);
        if n + 1 == packets {
            encoder.finish();
        }
        while let Some(FecPacket { packet, .. }) = encoder.poll() {
            sent.fec.push((n as usize, packet.to_vec()));
        }
        sent.media.push(media);
    }
    assert_eq!(encoder.no_buffer(), 0);
    sent
}

/// The FEC packet of these numbers, made the slow way.
fn fec(media: &[Vec<u8>], numbers: impl Iterator<Item = u64>, direction: Direction) -> Vec<u8> {
    let numbers: Vec<u64> = numbers.collect();
    let mut header = FecHeader {
        base: Seq::new((FIRST + numbers[0]) as u32),
        direction,
        offset: (numbers[1] - numbers[0]) as u8,
        count: numbers.len() as u8,
        ..FecHeader::default()
    };
    let mut sum = Vec::new();
    for number in numbers {
        let (fixed, rest) = media[number as usize].split_first_chunk().unwrap();
        header.recovery ^= Recovery::of(fixed, rest.len());
        sum.resize(sum.len().max(rest.len()), 0);
        sum.iter_mut().zip(rest).for_each(|(sum, byte)| *sum ^= byte);
    }
    [&header.to_bytes()[..], &sum].concat()
}

/// The `n`-th media packet with `bytes` behind its fixed header; some have a marker, some an extension.
fn media(n: u64, bytes: usize) -> Vec<u8> {
    let header = rtp::Header {
        marker: n.is_multiple_of(7),
        payload_type: 33,
        sequence: Seq::new((FIRST + n) as u32),
        timestamp: n as u32 * 1_234,
        ssrc: 0x0102_0304,
    };
    let mut out = header.to_bytes().to_vec();
    out.extend((0..bytes).map(|at| (n as usize * 31 + at * 7) as u8));
    if n.is_multiple_of(5) {
        out[0] |= 0x10;
        out[12..16].copy_from_slice(&[0xbe, 0xde, 0, 1]);
    }
    out
}

/// The extended number of a media packet; not more than a cycle after the first.
fn number(media: &[u8]) -> u64 {
    let low = u32::from(u16::from_be_bytes([media[2], media[3]]));
    FIRST + u64::from(Seq::<16>::new(FIRST as u32).distance(Seq::new(low)).cast_unsigned())
}

/// Base, offset and count.
fn key(fec: &[u8]) -> (u32, u8, u8) {
    let (header, _) = FecHeader::parse(fec).unwrap();
    (header.base.value(), header.offset, header.count)
}

/// Distance of the port from the media's, and the datagram.
fn records(mut capture: &[u8]) -> Vec<(u8, &[u8])> {
    let mut out = Vec::new();
    while let [port, high, low, rest @ ..] = capture {
        let (datagram, rest) = rest.split_at(usize::from(u16::from_be_bytes([*high, *low])));
        out.push((*port, datagram));
        capture = rest;
    }
    out
}

fn pool() -> Pool {
    Pool::new(PoolLimits { small_max: 4_096, large_max: 0 })
}

/// xorshift64*: enough to choose with.
fn fastrand(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed | 1;
    move || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
    }
}

/// Near the wrap.
const FIRST: u64 = (1 << 16) + 65_400;

fn matrix(text: &str) -> Matrix {
    let (columns, rows) = text.split_once('x').unwrap();
    Matrix::new(columns.parse().unwrap(), rows.parse().unwrap(), true).unwrap()
}
