//! What must hold for any bytes whatever; shared by the unit tests and the fuzz targets.

use std::time::Duration;

use super::{Analyser, Indicator, State};
use crate::units::Time;

/// The second half of the fuzz target `ts_packets`, which tests call as well: bytes as packets of a bus. The first byte of each
/// says how long it is, how much later it comes and whether it has a number.
///
/// # Panics
/// If a counter disagrees with a state, or counts backwards.
pub fn check_any_stream(bytes: &[u8]) {
    let mut analyser = Analyser::new(Time::ZERO);
    let (mut now, mut sequence, mut priority_1_errors) = (Time::ZERO, 0, 0);
    let mut rest = bytes;
    while let Some((op, behind)) = rest.split_first() {
        let (piece, after) = behind.split_at((usize::from(*op) * 11).min(behind.len()));
        rest = after;
        now += Duration::from_millis(u64::from(op % 8) * u64::from(op % 32));
        sequence += u64::from(op % 3);
        analyser.handle_packet(now, piece, (op % 2 == 0).then_some(sequence));
        if op % 5 == 0 {
            analyser.handle_timeout(now);
        }
        if op % 7 == 0 {
            while analyser.poll_event().is_some() {}
        }
        assert!(analyser.priority_1_errors() >= priority_1_errors);
        priority_1_errors = analyser.priority_1_errors();
    }
    let snapshot = analyser.snapshot();
    let first = Indicator::ALL.iter().filter(|indicator| indicator.priority() == 1);
    assert_eq!(first.map(|indicator| snapshot.indicator(*indicator).errors).sum::<u64>(), priority_1_errors);
    for indicator in Indicator::ALL {
        let slot = snapshot.indicator(indicator);
        assert!(slot.state != State::Error || slot.errors > 0, "{indicator:?} {slot:?}");
    }
}
