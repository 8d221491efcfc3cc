//! Whether units of a stream come.

use std::time::Duration;

use crate::units::Time;

/// Present while units come, missing once none came for two seconds, present again once they have come for half a second.
#[derive(Debug)]
pub(super) struct Presence {
    state: State,
    last: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing came yet, but it is too early to say that nothing comes.
    Unknown,
    Present,
    Missing {
        since: Time,
        /// When units began to come again.
        again: Option<Time>,
    },
}

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Missing,
    Back { missed: Duration },
}

impl Presence {
    /// Of a stream that should begin now.
    pub(super) const fn new(now: Time) -> Self {
        Self { state: State::Unknown, last: now }
    }

    pub(super) fn handle_unit(&mut self, now: Time) -> Option<Turn> {
        let pause = now.since(self.last);
        self.last = now;
        match &mut self.state {
            State::Present => None,
            State::Unknown => {
                self.state = State::Present;
                None
            }
            State::Missing { since, again } => {
                if pause >= GONE {
                    *again = None;
                }
                let began = *again.get_or_insert(now);
                if now.since(began) < BACK {
                    return None;
                }
                let missed = began.since(*since);
                self.state = State::Present;
                Some(Turn::Back { missed })
            }
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Time) -> Option<Turn> {
        if now.since(self.last) < GONE || matches!(self.state, State::Missing { .. }) {
            return None;
        }
        self.state = State::Missing { since: self.last, again: None };
        Some(Turn::Missing)
    }

    pub(super) const fn value(&self) -> Option<bool> {
        match self.state {
            State::Unknown => None,
            State::Present => Some(true),
            State::Missing { .. } => Some(false),
        }
    }
}

/// As long as a defect has to last.
const GONE: Duration = Duration::from_secs(2);
/// Judgement: a single unit after a break is no stream yet.
const BACK: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_missing_after_two_seconds_and_back_after_half_a_second_of_units() {
        let mut presence = Presence::new(ms(0));
        assert_eq!((presence.value(), presence.handle_timeout(ms(1_999))), (None, None));
        assert_eq!((presence.handle_unit(ms(1_000)), presence.value()), (None, Some(true)));
        assert_eq!(presence.handle_timeout(ms(3_000)), Some(Turn::Missing));
        assert_eq!((presence.handle_timeout(ms(9_000)), presence.value()), (None, Some(false)));
        // One alone does not make it come back.
        assert_eq!(presence.handle_unit(ms(10_000)), None);
        assert_eq!(presence.handle_unit(ms(12_500)), None);
        assert_eq!(presence.handle_unit(ms(12_900)), None);
        assert_eq!(presence.handle_unit(ms(13_000)), Some(Turn::Back { missed: Duration::from_millis(11_500) }));
        assert_eq!(presence.value(), Some(true));
    }

    fn ms(ms: u64) -> Time {
        Time::from_ns(ms * 1_000_000)
    }
}
