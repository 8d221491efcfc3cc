//! `Loudness`: how loud sound is, after EBU R 128.
//!
//! Documents: ITU-R BS.1770-4 (Annex 1: weighting, gating; Annex 2: true peak), EBU Tech 3341 (momentary, short-term).
//!
//! Nothing is kept of the samples but the energy of each tenth of a second, so it is the last full tenth as of which things
//! are told, as often as Tech 3341 asks for.

use std::collections::VecDeque;
use std::f64::consts::PI;

use super::sound::{Place, Sound};
use super::true_peak::TruePeak;

/// Measures loudness after EBU R 128 (ITU-R BS.1770).
#[derive(Debug, Default)]
pub struct Loudness {
    meter: Meter,
    format: Option<(u32, u8)>,
    /// Energies of the last tenths, as many as are needed.
    tenths: VecDeque<f64>,
    blocks: Blocks,
    peak: f32,
}

impl Loudness {
    /// Takes the next samples. Another rate or number of channels begins anew.
    pub fn push(&mut self, sound: &Sound<'_>) {
        self.meter.push(sound);
        let measured = self.meter.take();
        self.add(&measured);
    }

    /// Takes what a [`Meter`] measured of the next samples. Of what was measured by several of them one after the other it
    /// misses no more than the tenths between them.
    pub fn add(&mut self, measured: &Measured) {
        if measured.format.is_some() && measured.format != self.format {
            let meter = std::mem::take(&mut self.meter);
            *self = Self { meter, format: measured.format, ..Self::default() };
        }
        for energy in &measured.tenths {
            if self.tenths.len() == SHORT_TERM_TENTHS {
                self.tenths.pop_front();
            }
            self.tenths.push_back(*energy);
            if self.tenths.len() >= MOMENTARY_TENTHS {
                self.blocks.push(self.energy(MOMENTARY_TENTHS));
            }
        }
        self.peak = self.peak.max(measured.peak);
    }

    /// Over the last 400 ms, in LUFS.
    #[must_use]
    pub fn momentary(&self) -> Option<f64> {
        loudness(self.energy(MOMENTARY_TENTHS))
    }

    /// Over the last 3 s, in LUFS.
    #[must_use]
    pub fn short_term(&self) -> Option<f64> {
        loudness(self.energy(SHORT_TERM_TENTHS))
    }

    /// Since the beginning, gated, in LUFS.
    #[must_use]
    pub fn integrated(&self) -> Option<f64> {
        loudness(self.blocks.energy())
    }

    /// The highest peak between samples of any channel since the beginning, in dBTP.
    #[must_use]
    pub fn true_peak(&self) -> Option<f64> {
        (self.peak > 0.0).then(|| 20.0 * f64::from(self.peak).log10())
    }

    /// Mean of the last tenths. What was before the beginning was silent.
    fn energy(&self, tenths: usize) -> f64 {
        self.tenths.iter().rev().take(tenths).sum::<f64>() / tenths as f64
    }
}

/// What was measured of a piece of sound.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured {
    /// Samples a second of each channel, and channels; `None` if there was no sound.
    pub format: Option<(u32, u8)>,
    /// Weighted energy of each tenth of a second that was full: its mean, a number that is not negative.
    pub tenths: Vec<f64>,
    /// The highest peak between samples since sound of that format began, 1 for full scale.
    pub peak: f32,
}

/// Measures what [`Loudness`] needs to know of the samples.
#[derive(Debug, Default)]
pub struct Meter {
    format: Option<(u32, u8)>,
    /// Of the channels.
    weights: [f64; CHANNELS_MAX],
    /// `None` of what is not measured.
    channels: Option<Channels>,
    tenths: Vec<f64>,
}

impl Meter {
    /// Takes the next samples. Another rate, or other channels, begin anew.
    pub fn push(&mut self, sound: &Sound<'_>) {
        let count = sound.channels.len();
        let format = Some((sound.rate, u8::try_from(count).unwrap_or(u8::MAX)));
        let weights = weights(sound.places);
        if self.format != format || self.weights != weights {
            let channels = Channels::new(count, sound.rate, &weights);
            *self = Self { format, weights, channels, tenths: Vec::new() };
        }
        if let Some(channels) = &mut self.channels {
            channels.push(sound.channels, &mut self.tenths);
        }
    }

    /// What was measured since this was asked for last.
    pub fn take(&mut self) -> Measured {
        let peak = self.channels.as_ref().map_or(0.0, |channels| channels.true_peak.value());
        Measured { format: self.format, tenths: std::mem::take(&mut self.tenths), peak }
    }
}

/// Sound of one rate, and so many channels.
#[derive(Debug)]
struct Channels {
    rate: u32,
    weighting: Weighting,
    /// By twos, as a processor computes them.
    pairs: Vec<Pair>,
    /// Energy of the tenth of a second that is not full, and how many samples it has.
    energy: f64,
    filled: usize,
    true_peak: TruePeak,
}

impl Channels {
    /// `None` of what is not measured.
    fn new(channels: usize, rate: u32, weights: &[f64; CHANNELS_MAX]) -> Option<Self> {
        let weights = weights.get(..channels).filter(|weights| !weights.is_empty() && RATES_HZ.contains(&rate))?;
        let pair = |weights: &[f64]| Pair {
            weights: [weights[0], weights.get(1).copied().unwrap_or(0.0)],
            state: Default::default(),
        };
        Some(Self {
            rate,
            weighting: Weighting::new(f64::from(rate)),
            pairs: weights.chunks(2).map(pair).collect(),
            energy: 0.0,
            filled: 0,
            true_peak: TruePeak::new(channels),
        })
    }

    /// Adds the energies of those tenths that are full then.
    fn push(&mut self, channels: &[&[f32]], tenths: &mut Vec<f64>) {
        self.true_peak.push(channels);
        let count = channels.iter().map(|channel| channel.len()).min().unwrap_or(0);
        let tenth = (self.rate as usize + 5) / 10;
        let mut from = 0;
        while from < count {
            let to = count.min(from + tenth - self.filled);
            for (pair, channels) in self.pairs.iter_mut().zip(channels.chunks(2)) {
                // A last one alone is there twice, and has no weight the second time.
                let [first, second] = [channels[0], channels[channels.len() - 1]];
                self.energy += pair.energy(&self.weighting, &first[from..to], &second[from..to]);
            }
            self.filled += to - from;
            from = to;
            if self.filled == tenth {
                self.filled = 0;
                let energy = std::mem::take(&mut self.energy) / tenth as f64;
                // Samples need not be numbers.
                tenths.push(if energy.is_finite() { energy } else { 0.0 });
            }
        }
    }
}

/// Two channels on their way through the weighting.
#[derive(Debug)]
struct Pair {
    weights: [f64; 2],
    /// Of both filters, each with two for each channel.
    state: [[[f64; 2]; 2]; 2],
}

impl Pair {
    /// Weighted energy of the samples.
    fn energy(&mut self, weighting: &Weighting, first: &[f32], second: &[f32]) -> f64 {
        let Weighting { shelf, high_pass } = *weighting;
        let [mut of_shelf, mut of_high_pass] = self.state;
        let mut energy = [0.0; 2];
        for (first, second) in first.iter().zip(second) {
            let sample = [f64::from(*first), f64::from(*second)];
            let weighted = high_pass.next(&mut of_high_pass, shelf.next(&mut of_shelf, sample));
            for (energy, weighted) in energy.iter_mut().zip(weighted) {
                *energy += weighted * weighted;
            }
        }
        self.state = [of_shelf, of_high_pass];
        for value in self.state.iter_mut().flatten().flatten() {
            // Long before such numbers become so small that computing with them is slow.
            if !value.is_finite() || value.abs() < NOTHING {
                *value = 0.0;
            }
        }
        energy[0] * self.weights[0] + energy[1] * self.weights[1]
    }
}

/// The two filters of BS.1770-4 Annex 1, for any rate.
#[derive(Clone, Copy, Debug)]
struct Weighting {
    shelf: Filter,
    high_pass: Filter,
}

impl Weighting {
    /// By bilinear transform of analogue filters that, at 48 kHz, give the coefficients of BS.1770-4 tables 1 and 2.
    fn new(rate: f64) -> Self {
        let k = (PI * 1_681.974_450_955_533 / rate).tan();
        let q = 0.707_175_236_955_419_6;
        let high = 10_f64.powf(3.999_843_853_973_347 / 20.0);
        let band = high.powf(0.499_666_774_154_541_6);
        let scale = 1.0 + k / q + k * k;
        let shelf = Filter::new(
            [
                (high + band * k / q + k * k) / scale,
                2.0 * (k * k - high) / scale,
                (high - band * k / q + k * k) / scale,
            ],
            [2.0 * (k * k - 1.0) / scale, (1.0 - k / q + k * k) / scale],
        );
        let k = (PI * 38.135_470_876_024_44 / rate).tan();
        let q = 0.500_327_037_323_877_3;
        let scale = 1.0 + k / q + k * k;
        let high_pass = Filter::new([1.0, -2.0, 1.0], [2.0 * (k * k - 1.0) / scale, (1.0 - k / q + k * k) / scale]);
        Self { shelf, high_pass }
    }
}

/// Two poles and two zeros, so arranged that each sample waits for one product and one sum of the last.
#[derive(Clone, Copy, Debug)]
struct Filter {
    direct: f64,
    /// From the sample, and from the first state, to each state.
    from_sample: [f64; 2],
    from_state: [f64; 2],
}

impl Filter {
    const fn new(b: [f64; 3], a: [f64; 2]) -> Self {
        let from_sample = [b[1] - a[0] * b[0], b[2] - a[1] * b[0]];
        Self { direct: b[0], from_sample, from_state: [-a[0], -a[1]] }
    }

    #[inline]
    fn next(&self, state: &mut [[f64; 2]; 2], sample: [f64; 2]) -> [f64; 2] {
        let [first, second] = *state;
        let mut out = [0.0; 2];
        for channel in 0..2 {
            out[channel] = self.direct * sample[channel] + first[channel];
            state[0][channel] =
                (self.from_sample[0] * sample[channel] + second[channel]) + self.from_state[0] * first[channel];
            state[1][channel] = self.from_sample[1] * sample[channel] + self.from_state[1] * first[channel];
        }
        out
    }
}

/// Energies of all blocks of 400 ms that are above the absolute threshold, by their loudness: it does not grow with time.
#[derive(Debug, Default)]
struct Blocks {
    /// Number and sum of the energies; none before the first.
    bins: Vec<(u64, f64)>,
}

impl Blocks {
    fn push(&mut self, energy: f64) {
        let Some(above) = loudness(energy).map(|loudness| loudness - ABSOLUTE_LUFS).filter(|above| *above > 0.0) else {
            return;
        };
        self.bins.resize(BINS, (0, 0.0));
        if let Some((count, sum)) = self.bins.get_mut(((above * BINS_PER_LU) as usize).min(BINS - 1)) {
            *count += 1;
            *sum += energy;
        }
    }

    /// Mean of what is above the relative threshold, which is 10 LU below the mean of all. To a bin's width.
    fn energy(&self) -> f64 {
        let used = || self.bins.iter().filter(|(count, _)| *count > 0);
        let mean = |bins: &mut dyn Iterator<Item = &(u64, f64)>| {
            let (count, sum) = bins.fold((0, 0.0), |(count, sum), bin| (count + bin.0, sum + bin.1));
            if count == 0 { 0.0 } else { sum / count as f64 }
        };
        let threshold = mean(&mut used()) / 10.0;
        mean(&mut used().filter(|(count, sum)| *sum > threshold * *count as f64))
    }
}

/// BS.1770-4 Annex 1, equation 2. Silence has none.
fn loudness(energy: f64) -> Option<f64> {
    let loudness = 10.0 * energy.log10() - 0.691;
    loudness.is_finite().then_some(loudness)
}

/// What each channel counts: BS.1770-4 table 3. It knows two surrounds; more of them count as ffmpeg's ebur128 has it.
fn weights(places: &[Place]) -> [f64; CHANNELS_MAX] {
    std::array::from_fn(|channel| match places.get(channel) {
        None | Some(Place::Front) => 1.0,
        Some(Place::Surround) => SURROUND,
        Some(Place::Apart) => 0.0,
    })
}

const SURROUND: f64 = 1.41;
/// More channels are not measured.
const CHANNELS_MAX: usize = 8;
/// Rates of AAC and MPEG audio.
const RATES_HZ: std::ops::RangeInclusive<u32> = 7_350..=96_000;
const MOMENTARY_TENTHS: usize = 4;
const SHORT_TERM_TENTHS: usize = 30;
const ABSOLUTE_LUFS: f64 = -70.0;
/// Where the relative threshold lies between bins they count or do not as a whole: a tenth of a LU is what is told to people.
const BINS_PER_LU: f64 = 10.0;
/// Up to 30 LUFS, which is louder than anything.
const BINS: usize = 1_000;
/// 600 dB below what is loudest.
const NOTHING: f64 = 1e-30;

#[cfg(test)]
mod tests {
    use std::f64::consts::TAU;

    use super::super::sound::places;
    use super::*;

    #[test]
    fn a_sine_of_minus_23_decibels_is_as_loud_as_the_document_says() {
        // EBU Tech 3341, cases 1 and 2: 1 kHz stereo at -23 dBFS has -23 LUFS, at -33 dBFS -33 LUFS.
        for (level, rate) in [(-23.0, 48_000), (-33.0, 48_000), (-23.0, 44_100), (-23.0, 96_000)] {
            let mut loudness = Loudness::default();
            play(&mut loudness, rate, 20.0, level);
            for value in [loudness.momentary(), loudness.short_term(), loudness.integrated()] {
                assert!((value.unwrap() - level).abs() < 0.05, "{value:?}");
            }
            assert!((loudness.true_peak().unwrap() - level).abs() < 0.1);
            loudness.push(&Sound { rate, channels: &[], places: &[] });
            assert_eq!(loudness.momentary(), None);
        }
    }

    #[test]
    fn what_is_quiet_does_not_count() {
        // EBU Tech 3341, cases 3 to 5: seconds at each level; all are -23 LUFS.
        let cases: [&[(f64, f64)]; 3] = [
            &[(10.0, -36.0), (60.0, -23.0), (10.0, -36.0)],
            &[(10.0, -72.0), (10.0, -36.0), (60.0, -23.0), (10.0, -36.0), (10.0, -72.0)],
            &[(20.0, -26.0), (20.1, -20.0), (20.0, -26.0)],
        ];
        for case in cases {
            let mut loudness = Loudness::default();
            case.iter().for_each(|(seconds, level)| play(&mut loudness, 48_000, *seconds, *level));
            assert!((loudness.integrated().unwrap() + 23.0).abs() < 0.1, "{case:?}: {:?}", loudness.integrated());
        }
    }

    #[test]
    fn surrounds_count_more_and_low_frequencies_nothing() {
        // EBU Tech 3341, case 6: left and right at -28, centre at -24, surrounds at -30 dBFS.
        let tone = |level: f64| sine(48_000, 48_000 * 20, level);
        let [side, centre, surround, low] = [-28.0, -24.0, -30.0, -3.0].map(tone);
        let mut loudness = Loudness::default();
        let channels = [&centre, &side, &side, &surround, &surround, &low].map(Vec::as_slice);
        loudness.push(&Sound { rate: 48_000, channels: &channels, places: places(6) });
        assert!((loudness.integrated().unwrap() + 23.0).abs() < 0.1, "{:?}", loudness.integrated());
        let mut of_five = Loudness::default();
        of_five.push(&Sound { rate: 48_000, channels: &channels[..5], places: places(5) });
        assert_eq!(of_five.integrated(), loudness.integrated());
        let (mut one, mut two) = (Loudness::default(), Loudness::default());
        one.push(&Sound { rate: 48_000, channels: &[&centre], places: &[] });
        two.push(&Sound { rate: 48_000, channels: &[&centre, &centre], places: &[] });
        assert!((two.integrated().unwrap() - one.integrated().unwrap() - 10.0 * 2_f64.log10()).abs() < 1e-9);
    }

    #[test]
    fn pieces_of_any_length_are_as_loud_as_the_whole() {
        let samples: Vec<f32> = sine(48_000, 48_000 * 4, -10.0).iter().enumerate().map(shape).collect();
        let mut whole = Loudness::default();
        whole.push(&Sound { rate: 48_000, channels: &[&samples, &samples], places: &[] });
        for len in [1, 7, 1_152, 1_536, 4_800, 4_801] {
            let mut loudness = Loudness::default();
            for piece in samples.chunks(len) {
                loudness.push(&Sound { rate: 48_000, channels: &[piece, piece], places: &[] });
            }
            for (value, expected) in [
                (loudness.momentary(), whole.momentary()),
                (loudness.short_term(), whole.short_term()),
                (loudness.integrated(), whole.integrated()),
                (loudness.true_peak(), whole.true_peak()),
            ] {
                assert!((value.unwrap() - expected.unwrap()).abs() < 1e-9, "{len}: {value:?} {expected:?}");
            }
        }
    }

    #[test]
    fn what_several_meters_measure_one_after_the_other_is_as_loud_as_the_whole() {
        // Louder and louder, so that whatever is forgotten shows.
        let pieces = [(12.0, -36.0), (12.0, -30.0), (12.0, -26.0)];
        let (mut whole, mut loudness) = (Loudness::default(), Loudness::default());
        for (seconds, level) in pieces {
            play(&mut whole, 48_000, seconds, level);
            let samples = sine(48_000, (48_000.0 * seconds) as usize + 2_000, level);
            let mut meter = Meter::default();
            // Some units that show nothing come first.
            loudness.add(&meter.take());
            for piece in samples.chunks(1_024) {
                meter.push(&Sound { rate: 48_000, channels: &[piece, piece], places: &[] });
                loudness.add(&meter.take());
            }
        }
        let close = |one: Option<f64>, other: Option<f64>| (one.unwrap() - other.unwrap()).abs() < 0.05;
        assert!(close(loudness.integrated(), whole.integrated()), "{:?}", loudness.integrated());
        assert!(close(loudness.true_peak(), whole.true_peak()) && close(loudness.short_term(), whole.short_term()));
        let other = Measured { format: Some((44_100, 2)), ..Measured::default() };
        loudness.add(&other);
        assert_eq!((loudness.integrated(), loudness.true_peak()), (None, None));
    }

    #[test]
    fn the_weighting_is_that_of_the_document() {
        // BS.1770-4 tables 1 and 2.
        let expected = Weighting {
            shelf: Filter::new(
                [1.535_124_859_586_97, -2.691_696_189_406_38, 1.198_392_810_852_85],
                [-1.690_659_293_182_41, 0.732_480_774_215_85],
            ),
            high_pass: Filter::new([1.0, -2.0, 1.0], [-1.990_047_454_833_98, 0.990_072_250_366_21]),
        };
        let of = |filter: Filter| [[filter.direct; 2], filter.from_sample, filter.from_state].concat();
        let weighting = Weighting::new(48_000.0);
        for (filter, expected) in [(weighting.shelf, expected.shelf), (weighting.high_pass, expected.high_pass)] {
            let close = of(filter).iter().zip(of(expected)).all(|(value, expected)| (value - expected).abs() < 1e-9);
            assert!(close, "{filter:?} {expected:?}");
        }
    }

    #[test]
    fn what_is_no_number_or_silent_has_no_loudness_and_does_no_lasting_harm() {
        let mut loudness = Loudness::default();
        loudness.push(&Sound { rate: 48_000, channels: &[&[0.0; 48_000], &[0.0; 48_000]], places: &[] });
        assert_eq!((loudness.momentary(), loudness.integrated(), loudness.true_peak()), (None, None, None));
        loudness.push(&Sound { rate: 48_000, channels: &[&[f32::NAN; 480], &[f32::INFINITY; 480]], places: &[] });
        play(&mut loudness, 48_000, 10.0, -23.0);
        for value in [loudness.momentary(), loudness.short_term(), loudness.true_peak()] {
            assert!((value.unwrap() + 23.0).abs() < 0.1, "{value:?}");
        }
    }

    #[test]
    fn only_what_can_be_measured_is() {
        let channels = [&[0.5_f32; 48_000][..]; 9];
        for (rate, count, is_measured) in
            [(48_000, 8, true), (48_000, 9, false), (7_349, 2, false), (7_350, 2, true), (96_001, 2, false)]
        {
            let mut loudness = Loudness::default();
            loudness.push(&Sound { rate, channels: &channels[..count], places: &[] });
            assert_eq!(loudness.true_peak().is_some(), is_measured, "{rate} {count}");
        }
    }

    fn play(loudness: &mut Loudness, rate: u32, seconds: f64, level: f64) {
        let samples = sine(rate, (f64::from(rate) * seconds) as usize, level);
        for piece in samples.chunks(1_024) {
            loudness.push(&Sound { rate, channels: &[piece, piece], places: &[] });
        }
    }

    /// 1 kHz, with a peak of so many decibels.
    fn sine(rate: u32, count: usize, level: f64) -> Vec<f32> {
        let amplitude = 10_f64.powf(level / 20.0);
        (0..count).map(|n| (amplitude * (n as f64 * TAU * 1_000.0 / f64::from(rate)).sin()) as f32).collect()
    }

    /// Louder and quieter by turns.
    fn shape((at, sample): (usize, &f32)) -> f32 {
        sample * ((at / 3_000 % 5) as f32 / 4.0)
    }
}
