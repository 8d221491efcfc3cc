//! `TsWatch`: counts the errors of a source's transport stream for failover, while that asks for them.

use crate::bus::Packet;
use crate::proto::mpegts::Scanner;
use crate::units::Time;

/// Errors of the first priority (ETSI TR 101 290 5.2.1): TS_sync_loss, Sync_byte_error, Continuity_count_error.
#[derive(Debug, Default)]
pub(super) struct TsWatch {
    scanner: Scanner,
    /// Packets in which no TS packet was found.
    unreadable: u64,
}

impl TsWatch {
    pub(super) fn handle_packet(&mut self, now: Time, packet: &Packet) {
        self.scanner.push(now, packet, &mut ());
        // Lost once, and still so: that is no error less.
        self.unreadable += u64::from(!self.scanner.is_locked());
    }

    /// How many there were so far.
    pub(super) const fn errors(&self) -> u64 {
        let stats = self.scanner.stats();
        stats.sync.sync_losses + stats.sync.sync_byte_errors + stats.continuity_errors + self.unreadable
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::{Meta, Pool, PoolLimits};

    #[test]
    fn a_good_stream_has_no_errors_and_a_torn_one_has() {
        let pool = Pool::new(PoolLimits::default());
        let mut watch = TsWatch::default();
        let mut handle = |bytes: &[u8]| {
            let before = watch.errors();
            watch.handle_packet(Time::ZERO, &pool.copy(bytes, Meta::default()).unwrap());
            watch.errors() - before
        };
        for n in 0..100 {
            assert_eq!(handle(&seven(n)), 0);
        }
        assert_eq!(handle(&seven(101)), 1, "one is missing");
        let mut damaged = seven(102);
        damaged[188] = 0;
        assert_eq!(handle(&damaged), 2, "a sync byte, and the continuity");
        for _ in 0..10 {
            assert!(handle(&[0x20; 1_316]) > 0, "noise does not end at the first loss of sync");
        }
    }

    /// The `n`-th seven TS packets of a stream.
    fn seven(n: usize) -> Vec<u8> {
        let ts_packet = |n: usize| [&[0x47, 0x01, 0x00, 0x10 | (n % 16) as u8][..], &[n as u8; 184]].concat();
        (7 * n..7 * n + 7).flat_map(ts_packet).collect()
    }
}
