//! `Bitrate`, `DataSize`: never a bare integer for bits or bytes.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Bits per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bitrate(u64);

impl Bitrate {
    /// Nothing moves.
    pub const ZERO: Self = Self(0);

    /// A rate of `bps` bits per second.
    #[must_use]
    pub const fn from_bps(bps: u64) -> Self {
        Self(bps)
    }

    /// Bits per second.
    #[must_use]
    pub const fn as_bps(self) -> u64 {
        self.0
    }

    /// The time that `size` takes at this rate; the longest possible span at rate zero.
    #[must_use]
    pub fn time_for(self, size: DataSize) -> Duration {
        let bits_ns = u128::from(size.as_bytes()) * 8 * 1_000_000_000;
        bits_ns
            .checked_div(u128::from(self.0))
            .map_or(Duration::MAX, |ns| Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX)))
    }
}

/// Reads `20M`, `500k`, `1.5G` or plain bits per second.
impl FromStr for Bitrate {
    type Err = ParseRateError;

    fn from_str(text: &str) -> Result<Self, ParseRateError> {
        let (digits, scale) = match text.as_bytes().last() {
            Some(b'k' | b'K') => (&text[..text.len() - 1], 1e3),
            Some(b'm' | b'M') => (&text[..text.len() - 1], 1e6),
            Some(b'g' | b'G') => (&text[..text.len() - 1], 1e9),
            _ => (text, 1.0),
        };
        let number: f64 = digits.parse().map_err(|_| ParseRateError)?;
        let bps = number * scale;
        if !bps.is_finite() || !(0.0..=1e12).contains(&bps) {
            return Err(ParseRateError);
        }
        Ok(Self(bps.round() as u64))
    }
}

/// Not a bit rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a bit rate: write bits per second, or 500k, 20M, 1.5G")]
pub struct ParseRateError;

impl fmt::Display for Bitrate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bps = self.0 as f64;
        if bps >= 1e9 {
            write!(f, "{:.2} Gb/s", bps / 1e9)
        } else if bps >= 1e6 {
            write!(f, "{:.2} Mb/s", bps / 1e6)
        } else {
            write!(f, "{:.1} kb/s", bps / 1e3)
        }
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DataSize(u64);

impl DataSize {
    /// A size of `bytes` bytes.
    #[must_use]
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Bytes.
    #[must_use]
    pub const fn as_bytes(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_scale() {
        assert_eq!("20M".parse(), Ok(Bitrate::from_bps(20_000_000)));
        assert_eq!("1.5G".parse(), Ok(Bitrate::from_bps(1_500_000_000)));
        assert_eq!("500k".parse(), Ok(Bitrate::from_bps(500_000)));
        assert_eq!("64000".parse(), Ok(Bitrate::from_bps(64_000)));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "M", "-1", "NaN", "inf", "1e300", "20 M", "20Mb"] {
            assert_eq!(text.parse::<Bitrate>(), Err(ParseRateError), "{text}");
        }
    }

    #[test]
    fn a_datagram_at_20_mbps_takes_526_us() {
        let span = Bitrate::from_bps(20_000_000).time_for(DataSize::from_bytes(1316));
        assert_eq!(span, Duration::from_nanos(526_400));
        assert_eq!(Bitrate::ZERO.time_for(DataSize::from_bytes(1)), Duration::MAX);
    }
}
