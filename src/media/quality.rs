//! Black, frozen and silent, as ffmpeg's filters `blackdetect`, `freezedetect` and `silencedetect` mean it with their
//! defaults, and loudness after EBU R 128.
//!
//! Detectors take pictures and samples in the order in which they are shown, and give back the spans that ended. A span
//! goes from the first picture or sample that is so to the first one that is not. What is still going on is what
//! `since` says. They keep nothing but one picture.

use super::frame::{Frame, Plane, Samples};
pub use super::loudness::{Loudness, Measured, Meter};
use super::sound::Sound;
use crate::units::Ticks90k;

/// From the first moment to the one at which it was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its first moment.
    pub start: Ticks90k,
    /// When it was over.
    pub end: Ticks90k,
}

/// Sees black pictures: 98 % of the pixels have no more than 10 % of luma's range.
#[derive(Debug, Default)]
pub struct Black {
    since: Option<Ticks90k>,
    last: Ticks90k,
}

impl Black {
    /// Takes the next picture; the span that it ends, if that was long enough.
    pub fn push(&mut self, frame: &Frame, full_range: bool, pts: Ticks90k) -> Option<Span> {
        self.last = pts;
        if is_black(frame, full_range) {
            self.since.get_or_insert(pts);
            return None;
        }
        span(self.since.take()?, pts)
    }

    /// Since when, if it has been black for long enough.
    #[must_use]
    pub fn since(&self) -> Option<Ticks90k> {
        Some(span(self.since?, self.last)?.start)
    }
}

/// Sees pictures that do not change: the mean difference of samples to the first of them is below -60 dB of the range.
#[derive(Debug, Default)]
pub struct Freeze {
    reference: Option<(Frame, Ticks90k)>,
    last: Ticks90k,
}

impl Freeze {
    /// Takes the next picture; the span that it ends, if that was long enough.
    pub fn push(&mut self, frame: &Frame, pts: Ticks90k) -> Option<Span> {
        self.last = pts;
        if let Some((reference, since)) = &self.reference {
            if is_same(reference, frame) {
                return None;
            }
            let span = span(*since, pts);
            self.reference = Some((frame.clone(), pts));
            return span;
        }
        self.reference = Some((frame.clone(), pts));
        None
    }

    /// Since when, if nothing has changed for long enough.
    #[must_use]
    pub fn since(&self) -> Option<Ticks90k> {
        let (_, since) = self.reference.as_ref()?;
        Some(span(*since, self.last)?.start)
    }
}

/// Hears silence: all samples of all channels are below -60 dB.
#[derive(Debug, Default)]
pub struct Silence {
    /// Samples of each channel since the last that was not silent.
    silent: u64,
    since: Option<Ticks90k>,
}

impl Silence {
    /// One that goes on where another one came to: see [`Silence::since`] and [`Silence::samples`].
    #[must_use]
    pub const fn resumed(since: Option<Ticks90k>, samples: u64) -> Self {
        Self { silent: samples, since }
    }

    /// Samples of each channel since the last that was not silent.
    #[must_use]
    pub const fn samples(&self) -> u64 {
        self.silent
    }

    /// Takes the next samples, of which the first is at `pts`; the last span that ends in them, if that was long enough.
    /// Gaps between calls are not looked for.
    pub fn push(&mut self, sound: &Sound<'_>, pts: Ticks90k) -> Option<Span> {
        let rate = u64::from(sound.rate.max(1));
        let needed = rate * SPAN_MIN_90K / 90_000;
        let at = |index: u64| pts.0 + index * 90_000 / rate;
        let mut ended = None;
        let count = sound.channels.iter().map(|channel| channel.len()).min().unwrap_or(0);
        let is_loud = |index: &usize| sound.channels.iter().any(|channel| !is_silent(channel[*index]));
        let mut from = 0;
        while from < count {
            // Of so few samples only what is before the first loud one and behind the last can be part of a silence.
            let to = count.min(from + needed.min(PIECE) as usize);
            let loud = (from..to).find(is_loud);
            let quiet_to = loud.unwrap_or(to);
            self.silent += (quiet_to - from) as u64;
            // The rate may change, and so what is needed.
            if self.silent >= needed && self.since.is_none() && quiet_to > from {
                let reached = (quiet_to as u64).saturating_sub(self.silent - needed).max(from as u64 + 1);
                self.since = Some(Ticks90k(at(reached).saturating_sub(SPAN_MIN_90K)));
            }
            if let Some(first) = loud {
                ended = self.since.take().map(|start| Span { start, end: Ticks90k(at(first as u64)) }).or(ended);
                let last = (first..to).rfind(is_loud).unwrap_or(first);
                self.silent = (to - 1 - last) as u64;
            }
            from = to;
        }
        ended
    }

    /// Since when, if it has been silent for long enough.
    #[must_use]
    pub const fn since(&self) -> Option<Ticks90k> {
        self.since
    }
}

fn is_silent(sample: f32) -> bool {
    sample.abs() < SILENCE_MAX
}

/// From one moment to a later one, if that is long enough. A clock that went back says nothing.
fn span(start: Ticks90k, end: Ticks90k) -> Option<Span> {
    let long_enough = end.0.checked_sub(start.0).is_some_and(|ticks| ticks >= SPAN_MIN_90K);
    long_enough.then_some(Span { start, end })
}

pub(super) fn is_black(frame: &Frame, full_range: bool) -> bool {
    let unit = f64::from(1_u32 << (frame.depth.clamp(8, 16) - 8));
    let (black, range) = if full_range { (0.0, 256.0 * unit - 1.0) } else { (16.0 * unit, 219.0 * unit) };
    let limit = (black + BLACK_PIXEL_MAX * range) as u32;
    let luma = &frame.planes[0];
    let dark = match &luma.samples {
        Samples::Byte(samples) => samples.iter().filter(|&&sample| u32::from(sample) <= limit).count(),
        Samples::Word(samples) => samples.iter().filter(|&&sample| u32::from(sample) <= limit).count(),
    };
    dark as f64 / luma.samples.len() as f64 >= BLACK_SHARE_MIN
}

pub(super) fn is_same(reference: &Frame, frame: &Frame) -> bool {
    let (mut sum, mut count) = (0_u64, 0);
    for (before, now) in reference.planes.iter().zip(&frame.planes) {
        if (before.width, before.height) != (now.width, now.height) || reference.depth != frame.depth {
            return false;
        }
        count += now.samples.len();
        sum += match (&before.samples, &now.samples) {
            (Samples::Byte(before), Samples::Byte(now)) => difference(before, now),
            (Samples::Word(before), Samples::Word(now)) => difference(before, now),
            _ => return false,
        };
    }
    sum as f64 / count as f64 / f64::from(1_u32 << frame.depth) <= FREEZE_MAX
}

/// A sixteenth of a frame's samples, spread over all of it: enough to say whether another one is like it where there is no
/// room for the whole.
#[derive(Clone, Debug)]
pub(super) struct Sampled(Frame);

impl Sampled {
    pub(super) fn new(frame: &Frame) -> Self {
        Self(Frame { chroma: frame.chroma, depth: frame.depth, planes: frame.planes.each_ref().map(sampled) })
    }

    /// See [`is_same`], of these samples alone.
    pub(super) fn is_same(&self, frame: &Frame) -> bool {
        is_same(&self.0, &Self::new(frame).0)
    }

    pub(super) const fn frame(&self) -> &Frame {
        &self.0
    }
}

/// Every fourth sample of every fourth row, each row's beginning one further on than that above.
fn sampled(plane: &Plane) -> Plane {
    fn pick<T: Copy>(samples: &[T], width: usize) -> Vec<T> {
        let rows = samples.chunks(width.max(1)).step_by(SAMPLED);
        rows.enumerate()
            .flat_map(|(row, samples)| samples.iter().skip(row % SAMPLED).step_by(SAMPLED))
            .copied()
            .collect()
    }
    let samples = match &plane.samples {
        Samples::Byte(samples) => Samples::Byte(pick(samples, plane.width)),
        Samples::Word(samples) => Samples::Word(pick(samples, plane.width)),
    };
    // Its size is that of the whole: others have to be as large.
    Plane { width: plane.width, height: plane.height, samples }
}

fn difference<T: Copy + Into<i32>>(before: &[T], now: &[T]) -> u64 {
    // By rows' worth, so that a sum of 32 bits is enough inside.
    let pieces = before.chunks(1_024).zip(now.chunks(1_024));
    let sum = |(before, now): (&[T], &[T])| -> u32 {
        before.iter().zip(now).map(|(before, now)| ((*before).into() - (*now).into()).unsigned_abs()).sum()
    };
    pieces.map(|piece| u64::from(sum(piece))).sum()
}

/// Defaults of all three filters: two seconds.
pub const SPAN_MIN_90K: u64 = 2 * 90_000;
/// `pixel_black_th` of ffmpeg's blackdetect.
const BLACK_PIXEL_MAX: f64 = 0.10;
/// `picture_black_ratio_th` of it.
const BLACK_SHARE_MIN: f64 = 0.98;
const SAMPLED: usize = 4;
/// `noise` of freezedetect and silencedetect: -60 dB.
const FREEZE_MAX: f64 = 0.001;
const SILENCE_MAX: f32 = 0.001;
/// Samples that are looked at together.
const PIECE: u64 = 1_024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::media::headers::Chroma;

    #[test]
    fn black_lasts_from_the_first_black_picture_to_the_first_other_one() {
        let mut black = Black::default();
        let pushes = |black: &mut Black, luma, from: u64, to| {
            (from..to).filter_map(|n| black.push(&flat(luma), false, Ticks90k(n * 3_600))).collect::<Vec<_>>()
        };
        assert_eq!(pushes(&mut black, 100, 0, 10), []);
        assert_eq!(pushes(&mut black, 37, 10, 61), []);
        assert_eq!(black.since(), Some(Ticks90k(36_000)));
        let ended = Span { start: Ticks90k(36_000), end: Ticks90k(61 * 3_600) };
        assert_eq!(pushes(&mut black, 38, 61, 70), [ended]);
        assert_eq!((pushes(&mut black, 16, 70, 119), black.since()), (vec![], None), "49 pictures are too short");
        assert_eq!(pushes(&mut black, 38, 119, 120), []);
    }

    #[test]
    fn a_freeze_is_measured_against_its_first_picture() {
        let mut freeze = Freeze::default();
        let mut ended = Vec::new();
        for n in 0..200_u64 {
            let luma = if n < 150 { 100 } else { 120 };
            ended.extend(freeze.push(&flat(luma), Ticks90k(n * 3_600)));
        }
        assert_eq!(ended, [Span { start: Ticks90k(0), end: Ticks90k(150 * 3_600) }]);
        assert_eq!(freeze.since(), None);
        assert!(!is_same(&flat(100), &flat(101)));
    }

    #[test]
    fn silence_is_exact_to_the_sample() {
        let mut silence = Silence::default();
        let loud = vec![0.5_f32; 4_800];
        let quiet = vec![0.0_f32; 4_800];
        let mut ended = Vec::new();
        for n in 0..40_u64 {
            let samples = if (5..30).contains(&n) { &quiet } else { &loud };
            let sound = Sound { rate: 48_000, channels: &[samples, samples], places: &[] };
            ended.extend(silence.push(&sound, Ticks90k(n * 9_000)));
        }
        assert_eq!(ended, [Span { start: Ticks90k(5 * 9_000), end: Ticks90k(30 * 9_000) }]);
        let one_side = Sound { rate: 48_000, channels: &[&quiet, &loud], places: &[] };
        assert_eq!((silence.push(&one_side, Ticks90k(0)), silence.since()), (None, None));
    }

    proptest! {
        /// A model that looks at each sample by itself.
        #[test]
        fn silences_are_those_that_a_slow_look_at_each_sample_finds(
            rate in 1_u32..3_000,
            runs in proptest::collection::vec((any::<bool>(), 1_usize..7_000), 1..20),
            cut in 1_usize..5_000
        ) {
            let samples: Vec<f32> =
                runs.iter().flat_map(|(is_loud, len)| vec![if *is_loud { 0.5 } else { 0.0 }; *len]).collect();
            let (mut silence, mut silent, mut since) = (Silence::default(), 0, None);
            let (needed, mut pts) = (u64::from(rate) * 2, 1_000_000);
            for piece in samples.chunks(cut) {
                let at = |index: usize| pts + index as u64 * 90_000 / u64::from(rate);
                let mut ended = None;
                for (index, sample) in piece.iter().enumerate() {
                    silent = if *sample == 0.0 { silent + 1 } else { 0 };
                    if silent == needed {
                        since = Some(Ticks90k(at(index + 1) - SPAN_MIN_90K));
                    } else if let (0, Some(start)) = (silent, since) {
                        ended = Some(Span { start, end: Ticks90k(at(index)) });
                        since = None;
                    }
                }
                let sound = Sound { rate, channels: &[piece, &vec![0.0; piece.len()]], places: &[] };
                prop_assert_eq!((silence.push(&sound, Ticks90k(pts)), silence.since()), (ended, since));
                pts = at(piece.len());
            }
        }
    }

    #[test]
    fn silence_is_heard_when_the_rate_changes_meanwhile() {
        let mut silence = Silence::default();
        let quiet = vec![0.0_f32; 91_200];
        silence.push(&Sound { rate: 48_000, channels: &[&quiet], places: &[] }, Ticks90k(0));
        assert_eq!(silence.since(), None, "1.9 s");
        silence.push(&Sound { rate: 32_000, channels: &[&quiet[..6_400]], places: &[] }, Ticks90k(171_000));
        assert!(silence.since().is_some());
    }

    #[test]
    fn a_few_samples_tell_what_all_of_them_do() {
        let noise = |seed: u32| {
            let mut state = seed;
            let mut plane = |width: usize, height: usize| {
                let samples = std::iter::repeat_with(|| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 24) as u8
                });
                Plane { width, height, samples: Samples::Byte(samples.take(width * height).collect()) }
            };
            let planes = [plane(160, 90), plane(80, 45), plane(80, 45)];
            Frame { chroma: Chroma::Yuv420, depth: 8, planes }
        };
        let sampled = Sampled::new(&noise(1));
        assert!(sampled.is_same(&noise(1)) && !sampled.is_same(&noise(2)));
        // A small thing moves: 16 by 16 of 160 by 90.
        let mut moved = noise(1);
        let Samples::Byte(samples) = &mut moved.planes[0].samples else { unreachable!("bytes") };
        samples.chunks_mut(160).skip(40).take(16).for_each(|row| row[70..86].iter_mut().for_each(|luma| *luma ^= 0xff));
        assert!(!is_same(&noise(1), &moved) && !sampled.is_same(&moved));
        let bytes: usize = sampled.frame().planes.iter().map(|plane| plane.samples.len()).sum();
        assert!(bytes <= 160 * 90 * 3 / 2 / 15, "{bytes}");
        assert!(!sampled.is_same(&flat(100)), "of another size");
    }

    fn flat(luma: u8) -> Frame {
        let plane = |width: usize, height: usize, sample| Plane {
            width,
            height,
            samples: Samples::Byte(vec![sample; width * height]),
        };
        Frame { chroma: Chroma::Yuv420, depth: 8, planes: [plane(16, 16, luma), plane(8, 8, 128), plane(8, 8, 128)] }
    }
}
