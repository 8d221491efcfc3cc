//! How long the way to the peer and back takes.

use std::time::Duration;

use crate::units::Time;

/// Smoothed, and held within what is believed.
#[derive(Clone, Copy, Debug)]
pub(super) struct RoundTrip {
    bounds: (Duration, Duration),
    smoothed: Option<Duration>,
    /// When an echo came back last: nothing else counts beside those.
    echoed: Option<Time>,
}

impl RoundTrip {
    pub(super) fn new((least, most): (Duration, Duration)) -> Self {
        Self { bounds: (least, most.max(least)), smoothed: None, echoed: None }
    }

    /// An echo came back, or the like, after `span`.
    pub(super) fn echo(&mut self, now: Time, span: Duration) {
        self.echoed = Some(now);
        self.add(span);
    }

    /// A packet came `span` after it was asked for, once: for peers without echoes. It may also have been on its way.
    pub(super) fn answer(&mut self, now: Time, span: Duration) {
        if self.echoed.is_none_or(|echoed| now.since(echoed) > ECHO_HOLDS) {
            self.add(span);
        }
    }

    /// What was measured; `None` before the first time.
    pub(super) const fn measured(&self) -> Option<Duration> {
        self.smoothed
    }

    /// What to go by.
    pub(super) fn assumed(&self) -> Duration {
        self.smoothed.unwrap_or(UNKNOWN).clamp(self.bounds.0, self.bounds.1)
    }

    fn add(&mut self, span: Duration) {
        let span = span.min(self.bounds.1);
        self.smoothed = Some(self.smoothed.map_or(span, |smoothed| (smoothed * 7 + span) / 8));
    }
}

/// Judgement: half a continent away.
const UNKNOWN: Duration = Duration::from_millis(50);
const ECHO_HOLDS: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn echoes_go_before_answers_and_bounds_hold() {
        let ms = Duration::from_millis;
        let mut round_trip = RoundTrip::new((ms(5), ms(500)));
        assert_eq!((round_trip.measured(), round_trip.assumed()), (None, UNKNOWN));
        round_trip.answer(Time::ZERO, ms(80));
        assert_eq!(round_trip.assumed(), ms(80));
        round_trip.echo(Time::ZERO, ms(40));
        assert_eq!(round_trip.assumed(), ms(75));
        round_trip.answer(Time::ZERO + ms(900), ms(400));
        assert_eq!(round_trip.measured(), Some(ms(75)));
        (0..99).for_each(|_| round_trip.echo(Time::ZERO, Duration::ZERO));
        assert_eq!(round_trip.assumed(), ms(5));
        (0..99).for_each(|_| round_trip.echo(Time::ZERO, Duration::from_secs(9)));
        assert!(round_trip.assumed() > ms(490));
    }
}
