//! All pictures of a run of units, decoded one after the other and given in the order in which they are shown.

use std::collections::{BTreeMap, BTreeSet};

use super::decode::{DecodeError, Decoder, HEIGHT_MAX, Shown, WIDTH_MAX, display_of};
use super::frame::Frame;
use super::headers::{Entry, Headers, Structure};
use crate::proto::mpegts::demux::AccessUnit;
use crate::units::Ticks90k;

/// Decodes a run of units that begins where a decoder may start. Pictures come in the order in which they are shown;
/// those that are shown before the first one (leading pictures of an open group) are left out, and so are those before
/// the picture at which a recovery point is over.
///
/// It ends with the first error: what comes after a damaged picture may lean on it.
#[derive(Debug)]
pub struct Pictures<'a> {
    units: std::slice::Iter<'a, AccessUnit>,
    headers: Headers,
    decoder: Option<Decoder>,
    /// Times of pictures that are not decoded yet.
    expected: BTreeSet<u64>,
    /// Decoded pictures that others are shown before.
    held: BTreeMap<u64, Frame>,
    /// The first picture's time, which those of the others are unwrapped from.
    origin: u64,
    /// When the first of two fields is shown.
    field: Option<u64>,
    /// Pictures that others are predicted from, until what is decoded is whole.
    recovering: u16,
    /// The first whole picture; what is shown before it may lean on what came before the recovery point.
    whole_from: u64,
    decoded: u32,
    failed: bool,
}

impl<'a> Pictures<'a> {
    /// Of units of one stream without a gap, in the order in which they came.
    ///
    /// # Errors
    /// [`DecodeError::Damaged`] if there is none, if one has no PTS but is a picture of its own, or if times lie further
    /// from the first than [`SPAN_MAX_90K`].
    pub fn new(units: &'a [AccessUnit]) -> Result<Self, DecodeError> {
        let first = units.first().ok_or(DecodeError::Damaged("no pictures"))?;
        let origin = first.pts.ok_or(DecodeError::Damaged("a picture without a time"))?.0;
        let mut expected = BTreeSet::new();
        for unit in units {
            let Some(pts) = unit.pts else { continue };
            let at = unwrapped(origin, pts.0);
            if at.abs_diff(origin) > SPAN_MAX_90K {
                return Err(DecodeError::Damaged("times of pictures jump"));
            }
            if at >= origin {
                expected.insert(at);
            }
        }
        Ok(Self {
            units: units.iter(),
            headers: Headers::new(first.codec),
            decoder: None,
            expected,
            held: BTreeMap::new(),
            origin,
            field: None,
            recovering: 0,
            whole_from: origin,
            decoded: 0,
            failed: false,
        })
    }

    /// What the headers of the units so far said.
    #[must_use]
    pub const fn headers(&self) -> &Headers {
        &self.headers
    }

    /// Pictures decoded so far, shown or not: what it cost.
    #[must_use]
    pub const fn decoded(&self) -> u32 {
        self.decoded
    }

    /// The next picture that nothing is shown before any more.
    fn ready(&mut self) -> Option<Shown> {
        let (&at, _) = self.held.first_key_value()?;
        if self.expected.first().is_some_and(|&expected| expected < at) {
            return None;
        }
        let (at, frame) = self.held.pop_first()?;
        Some(Shown { frame, display: display_of(&self.headers), pts: Some(Ticks90k(at)) })
    }

    fn decode(&mut self, unit: &AccessUnit) -> Result<(), DecodeError> {
        let picture = self.headers.read(unit).ok_or(DecodeError::Damaged("no picture in a unit"))?;
        let first_field = self.field.take();
        let at = match (first_field, unit.pts) {
            (Some(at), _) => at,
            (None, Some(pts)) => unwrapped(self.origin, pts.0),
            (None, None) => return Err(DecodeError::Damaged("a picture without a time")),
        };
        if at < self.origin {
            self.field = (picture.structure == Structure::Field && first_field.is_none()).then_some(at);
            return Ok(());
        }
        let format = self.headers.video().ok_or(DecodeError::Damaged("no parameter sets"))?;
        if format.width > WIDTH_MAX || format.height > HEIGHT_MAX {
            return Err(DecodeError::TooLarge);
        }
        let decoder = match &mut self.decoder {
            Some(decoder) => decoder,
            none => {
                let decoder = match picture.entry {
                    Entry::Key | Entry::Recovery { frames: 0 } => Decoder::new(unit.codec)?,
                    Entry::Recovery { frames } => {
                        (self.recovering, self.whole_from) = (frames, u64::MAX);
                        Decoder::at_recovery(unit)?
                    }
                    Entry::None => return Err(DecodeError::Damaged("no decoder can start here")),
                };
                none.insert(decoder)
            }
        };
        let frame = decoder.decode(unit, picture)?;
        // A second field may have a time of its own.
        if let Some(pts) = unit.pts {
            self.expected.remove(&unwrapped(self.origin, pts.0));
        }
        let Some(frame) = frame else {
            if picture.structure == Structure::Field {
                self.field = Some(at);
                self.expected.insert(at);
            }
            return Ok(());
        };
        self.expected.remove(&at);
        self.decoded += 1;
        if self.recovering > 0 {
            self.recovering -= u16::from(picture.reference);
            return Ok(());
        }
        if self.whole_from == u64::MAX && picture.reference {
            self.whole_from = at;
        }
        if at < self.whole_from {
            return Ok(());
        }
        if self.held.insert(at, frame).is_some() || self.held.len() > HELD_MAX {
            return Err(DecodeError::Damaged("order of pictures"));
        }
        Ok(())
    }
}

impl Iterator for Pictures<'_> {
    type Item = Result<Shown, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        loop {
            if let Some(shown) = self.ready() {
                return Some(Ok(shown));
            }
            let Some(unit) = self.units.next() else {
                // A field or a picture that never became whole holds up the others no longer.
                if self.expected.is_empty() {
                    return None;
                }
                self.expected.clear();
                continue;
            };
            if let Err(error) = self.decode(unit) {
                self.failed = true;
                return Some(Err(error));
            }
        }
    }
}

/// A time of 33 bits as near as it can be to `origin`, which may be one that was unwrapped.
const fn unwrapped(origin: u64, pts: u64) -> u64 {
    let ahead = pts.wrapping_sub(origin) & (WRAP_90K - 1);
    let back = WRAP_90K - ahead;
    if ahead <= WRAP_90K / 2 || back > origin { origin.saturating_add(ahead) } else { origin - back }
}

/// Times further from the first one are of another clock.
pub const SPAN_MAX_90K: u64 = 60 * 90_000;
/// PTS has 33 bits (13818-1 2.4.3.7).
const WRAP_90K: u64 = 1 << 33;
/// Pictures that wait for one that is shown before them: no decoded picture buffer has more (14496-10 A.3.1, 23008-2
/// A.4.1).
const HELD_MAX: usize = 17;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::mpegts::demux::Codec;

    #[test]
    fn times_go_on_where_their_bits_begin_anew() {
        assert_eq!(unwrapped(WRAP_90K - 10, 5), WRAP_90K + 5);
        assert_eq!(unwrapped(WRAP_90K + 5, WRAP_90K - 10), WRAP_90K - 10);
        assert_eq!(unwrapped(3 * WRAP_90K + 7, 9), 3 * WRAP_90K + 9);
        assert_eq!(unwrapped(100, 40), 40);
    }

    #[test]
    fn what_is_no_run_of_pictures_is_refused() {
        let damaged =
            |units: &[AccessUnit]| Pictures::new(units).map_or_else(Some, |mut pictures| pictures.next()?.err());
        let unit = |pts: Option<u64>, bytes: &[u8]| AccessUnit {
            pid: Default::default(),
            codec: Codec::H264,
            pts: pts.map(Ticks90k),
            dts: None,
            bytes: bytes.to_vec(),
        };
        assert_eq!(damaged(&[]), Some(DecodeError::Damaged("no pictures")));
        assert_eq!(damaged(&[unit(None, &[])]), Some(DecodeError::Damaged("a picture without a time")));
        assert_eq!(damaged(&[unit(Some(1), &[1, 2])]), Some(DecodeError::Damaged("no picture in a unit")));
        let jump = [unit(Some(1), &[]), unit(Some(2 + SPAN_MAX_90K), &[])];
        assert_eq!(damaged(&jump), Some(DecodeError::Damaged("times of pictures jump")));
    }
}
