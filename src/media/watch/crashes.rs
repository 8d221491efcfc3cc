//! `Crashes`: how long a stream is left alone after what decodes it crashed.

use std::time::Duration;

/// Counts crashes until so much was decoded well that they are no pattern: one that goes well in between says nothing.
#[derive(Debug, Default)]
pub(super) struct Crashes {
    count: u32,
    /// Decoded since the last.
    well: u32,
}

impl Crashes {
    pub(super) const fn new() -> Self {
        Self { count: 0, well: 0 }
    }

    /// Something was decoded.
    pub(super) const fn handle_success(&mut self) {
        self.well = self.well.saturating_add(1);
        if self.well >= FORGIVEN_AFTER {
            self.count = 0;
        }
    }

    /// Another crash: nothing is to be decoded for so long.
    pub(super) fn handle_crash(&mut self) -> Duration {
        (self.count, self.well) = (self.count.saturating_add(1), 0);
        PAUSE_MIN * 2_u32.pow(self.count.min(DOUBLED_MAX + 1) - 1)
    }
}

/// Judgement: half a minute of pictures, a quarter of one of sound.
const FORGIVEN_AFTER: u32 = 30;
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// Half a minute at most.
const DOUBLED_MAX: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_well_between_crashes_shortens_no_pause() {
        let mut crashes = Crashes::new();
        let pauses: Vec<u64> = (0..8)
            .map(|_| {
                (1..FORGIVEN_AFTER).for_each(|_| crashes.handle_success());
                crashes.handle_crash().as_secs()
            })
            .collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 32, 32]);
        (0..FORGIVEN_AFTER).for_each(|_| crashes.handle_success());
        assert_eq!(crashes.handle_crash(), PAUSE_MIN);
    }
}
