//! When a fault is on: always, or for a part of each period.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// When a fault is on, by the time since the stream began.
///
/// Written `always`, or `5s/60s` for the last 5 s of every 60 s: a stream begins well, so that receivers know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// From the first packet to the last.
    Always,
    /// At the end of each period.
    Part {
        /// How long it is on, at least [`SPAN_MIN`].
        span: Duration,
        /// How long until it comes again, longer than `span` and at most [`PERIOD_MAX`].
        period: Duration,
    },
}

impl Schedule {
    /// For how long it has been on; `None` while it is off.
    #[must_use]
    pub fn on_for(self, elapsed: Duration) -> Option<Duration> {
        let Self::Part { span, period } = self else { return Some(elapsed) };
        let within = elapsed.as_nanos() % period.as_nanos().max(1);
        let begins = period.saturating_sub(span).as_nanos();
        let on_for = within.checked_sub(begins)?;
        Some(Duration::from_nanos(u64::try_from(on_for).unwrap_or(u64::MAX)))
    }
}

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        if matches!(text, "" | "always") {
            return Ok(Self::Always);
        }
        let (span, period) = text.split_once('/').ok_or(ScheduleError)?;
        let (span, period) = (read_span(span).ok_or(ScheduleError)?, read_span(period).ok_or(ScheduleError)?);
        let fits = span >= SPAN_MIN && span < period && period <= PERIOD_MAX;
        if fits { Ok(Self::Part { span, period }) } else { Err(ScheduleError) }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Always => f.write_str("always"),
            Self::Part { span, period } => write!(f, "{}ms/{}ms", span.as_millis(), period.as_millis()),
        }
    }
}

/// Not a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write always, or how long in how long, as 5s/60s: 100ms and more, in less than 24h")]
pub struct ScheduleError;

/// A whole number with its unit: `20us`, `500ms`, `5s`, `2m`, `1h`.
pub(super) fn read_span(text: &str) -> Option<Duration> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit_at);
    let number = u64::from(number.parse::<u32>().ok()?);
    match unit {
        "us" => Some(Duration::from_micros(number)),
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_secs(number * 60)),
        "h" => Some(Duration::from_secs(number * 3_600)),
        _ => None,
    }
}

/// Shorter spans might fall between two packets of a slow stream. Judgement.
pub const SPAN_MIN: Duration = Duration::from_millis(100);
/// Longer ones are a mistake in the unit. Judgement.
pub const PERIOD_MAX: Duration = Duration::from_secs(24 * 3_600);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_is_on_at_the_end_of_each_period() {
        let schedule: Schedule = "5s/60s".parse().unwrap();
        let on_for = |ms| schedule.on_for(Duration::from_millis(ms)).map(|span| span.as_millis());
        assert_eq!([0, 54_999, 55_000, 59_999].map(on_for), [None, None, Some(0), Some(4_999)]);
        assert_eq!([60_000, 114_999, 117_000].map(on_for), [None, None, Some(2_000)]);
        assert_eq!("always".parse(), Ok(Schedule::Always));
        assert_eq!(Schedule::Always.on_for(Duration::ZERO), Some(Duration::ZERO));
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for text in ["5", "5s", "5s/", "/5s", "5s/5s", "6s/5s", "99ms/1s", "1s/25h", "1.5s/9s", "5x/60s", "-1s/5s"] {
            assert_eq!(text.parse::<Schedule>(), Err(ScheduleError), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived_and_what_is_read_is_read_again(text in "[0-9]{0,5}(us|ms|s|m|h)?/?[0-9]{0,5}(us|ms|s|m|h)?") {
            if let Ok(schedule) = text.parse::<Schedule>() {
                prop_assert_eq!(schedule.to_string().parse::<Schedule>(), Ok(schedule));
            }
        }

        #[test]
        fn it_is_on_for_its_share(span in 100_u64..5_000, more in 1_u64..5_000) {
            let (span, period) = (Duration::from_millis(span), Duration::from_millis(span + more));
            let schedule = Schedule::Part { span, period };
            let on = (0..period.as_millis() as u64 * 2).filter(|ms| schedule.on_for(Duration::from_millis(*ms)).is_some());
            prop_assert_eq!(on.count() as u128, span.as_millis() * 2);
        }
    }
}
