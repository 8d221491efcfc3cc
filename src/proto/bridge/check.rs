//! What must hold for any publisher and any stream; shared by the unit tests and the fuzz target.

use super::{FromTs, ToTs, UNCARRIED_MAX};
use crate::bus::{Meta, Pool, PoolLimits};
use crate::proto::mpegts::mux::Config;
use crate::proto::mpegts::{SYNC_BYTE, TS_PACKET_BYTES};
use crate::proto::rtmp::flv::Content;
use crate::proto::rtmp::{Message, kind};
use crate::units::Time;

/// The body of the fuzz target `bridge`: any messages become a transport stream, which is read back; after that the bytes
/// are read as TS packets themselves, with sync bytes put right.
///
/// Each message is its length in a byte, its kind, how many times 8 ms it came later, and its bytes.
///
/// # Panics
/// If a stream is not legal, or a bound does not hold.
pub fn check_any_bridge(bytes: &[u8]) {
    let pool = Pool::new(PoolLimits { small_max: 1_024, large_max: 0 });
    let mut to_ts = ToTs::new(Config::default(), pool.clone()).unwrap_or_else(|error| unreachable!("{error}"));
    let mut from_ts = FromTs::new();
    let (mut rest, mut ms, mut now) = (bytes, 0_u32, Time::ZERO);
    while let Some(([len, what, later], after)) = rest.split_first_chunk() {
        let (payload, after) = after.split_at(after.len().min(usize::from(*len)));
        rest = after;
        let step_ms = u32::from(*later) * 8;
        now += std::time::Duration::from_millis(step_ms.into());
        ms = ms.wrapping_add(if what & 0x40 == 0 { step_ms } else { step_ms << 24 });
        match what & 0x3f {
            0x3f => to_ts.begin(),
            0x3e => {
                let interrupted = to_ts.interrupt();
                to_ts.resume(interrupted);
            }
            _ => {}
        }
        to_ts.handle_timeout(now);
        pass(&mut to_ts, &mut from_ts);
        let kind = if what & 0x80 == 0 { kind::VIDEO } else { kind::AUDIO };
        to_ts.handle_message(now, &Message { kind, stream: 1, timestamp_ms: ms, payload: payload.to_vec().into() });
        pass(&mut to_ts, &mut from_ts);
    }
    from_ts.finish();
    look(&mut from_ts);
    assert!(std::iter::from_fn(|| to_ts.poll_uncarried()).count() <= UNCARRIED_MAX * (1 + bytes.len() / 3));
    let counts = from_ts.demux_counts();
    assert_eq!((counts.bad_header, counts.too_long), (0, 0), "our own stream");
    let mut from_ts = FromTs::new();
    for chunk in bytes.chunks(TS_PACKET_BYTES) {
        let mut packet = [0xff; TS_PACKET_BYTES];
        packet[..chunk.len()].copy_from_slice(chunk);
        packet[0] = SYNC_BYTE;
        let meta = Meta { discontinuity: chunk.first() == Some(&0), ..Meta::default() };
        if let Some(packet) = pool.copy(&packet, meta) {
            from_ts.handle_packet(Time::ZERO, &packet);
            look(&mut from_ts);
        }
    }
    from_ts.finish();
    look(&mut from_ts);
}

fn pass(to_ts: &mut ToTs, from_ts: &mut FromTs) {
    while let Some(packet) = to_ts.poll_packet() {
        assert!(!packet.is_empty() && packet.len().is_multiple_of(TS_PACKET_BYTES));
        from_ts.handle_packet(packet.meta.arrival, &packet);
        look(from_ts);
    }
}

fn look(from_ts: &mut FromTs) {
    while let Some(unit) = from_ts.poll_unit() {
        assert!(unit.pts >= unit.dts && unit.content != Content::End);
        assert!(!unit.bytes.is_empty(), "{unit:?}");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_messages_and_streams_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            check_any_bridge(&bytes);
        }

        #[test]
        fn any_units_with_headers_are_survived(parts in proptest::collection::vec((0..6_usize, any::<Vec<u8>>()), 0..20)) {
            let heads = [
                &b"\x17\x00\x00\x00\x00\x01\x64\x00\x0b\xff\xe1\x00\x04\x67\x64\x00\x0b\x01\x00\x02\x68\xee"[..],
                b"\x17\x01\x00\x00\x50\x00\x00\x00\x02\x65\x88",
                b"\x27\x01\x00\x00\x00\x00\x00\x00\x02\x41",
                b"\xaf\x00\x11\x90",
                b"\xaf\x01",
                b"\x91ac-3\x0b\x77",
            ];
            let mut script = Vec::new();
            for (head, tail) in parts {
                let tail = if head == 0 || head == 3 { &[][..] } else { &tail[..] };
                let payload = [heads[head], tail].concat();
                script.extend([payload.len() as u8, if head < 3 { 0 } else { 0x80 }, 5]);
                script.extend(payload);
            }
            check_any_bridge(&script);
        }
    }
}
