//! What must hold for any bytes whatever; shared by the unit tests and the fuzz target.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Decoder, Direction, FecHeader};
use crate::bus::{Meta, Pool, PoolLimits};
use crate::proto::rtp;
use crate::units::{Seq, Time};

/// The body of the fuzz target `fec`, which tests call as well: bytes as a header, and as a script of media, FEC packets
/// of any kind and time for a decoder.
///
/// # Panics
/// If a header changes on the way, or a packet is rebuilt that had come, or twice, or from nothing.
pub fn check_any_bytes(bytes: &[u8]) {
    if let Ok((header, payload)) = FecHeader::parse(bytes) {
        assert_eq!(FecHeader::parse(&[&header.to_bytes()[..], payload].concat()), Ok((header, payload)));
    }
    let pool = Pool::new(PoolLimits { small_max: 4_096, large_max: 0 });
    let mut decoder = Decoder::new(pool.clone());
    let mut seen = BTreeSet::new();
    let (mut now, mut next, mut media) = (Time::ZERO, 1 << 16, 0);
    let mut script = bytes.iter().copied();
    while let Some(op) = script.next() {
        let mut take = |count: usize| -> Vec<u8> { script.by_ref().take(count).collect() };
        match op % 4 {
            0 => {
                let sequence = next + u64::from(op / 4 % 4);
                next = sequence + 1;
                let header = rtp::Header { sequence: Seq::new(sequence as u32), ..rtp::Header::default() };
                let datagram = [&header.to_bytes()[..], &take(usize::from(op / 16))].concat();
                if let Some(packet) = pool.copy(&datagram, Meta { arrival: now, ..Meta::default() }) {
                    media += 1;
                    seen.insert(sequence);
                    decoder.handle_media(now, sequence, &packet);
                }
            }
            1 => {
                let [behind, shape, count] = take(3)[..] else { return };
                let direction = if shape & 1 == 0 { Direction::Column } else { Direction::Row };
                let header = FecHeader {
                    base: Seq::new((next as u32).wrapping_sub(u32::from(behind))),
                    direction,
                    offset: shape >> 1,
                    count,
                    ..FecHeader::default()
                };
                let datagram = [&header.to_bytes()[..], &take(usize::from(op / 16))].concat();
                if let Some(packet) = pool.copy(&datagram, Meta { arrival: now, ..Meta::default() }) {
                    decoder.handle_fec(now, packet);
                }
            }
            2 => {
                if let Some(packet) = pool.copy(&take(usize::from(op)), Meta { arrival: now, ..Meta::default() }) {
                    decoder.handle_fec(now, packet);
                }
            }
            _ => {
                now += Duration::from_millis(u64::from(op));
                decoder.handle_timeout(now);
            }
        }
        while let Some(recovered) = decoder.poll_recovered() {
            assert!(media > 0, "rebuilt from nothing");
            assert!(seen.insert(recovered.sequence), "{} was there", recovered.sequence);
            assert!(recovered.packet.len() >= rtp::HEADER_BYTES);
        }
        assert!(decoder.poll_timeout().is_none_or(|due| due > now), "nothing is overdue");
    }
}
