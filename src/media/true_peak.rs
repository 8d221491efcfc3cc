//! `TruePeak`: the highest peak between samples, which is what a converter to analogue has to play.

/// Four times the rate, as ITU-R BS.1770-4 Annex 2 asks for at 48 kHz, by the same filter as libebur128 and those who compare to
/// it: a sinc of 49 taps in a Hann window.
#[derive(Debug)]
pub(super) struct TruePeak {
    interpolator: Interpolator,
    /// The last samples of each channel.
    tails: Vec<[f32; TAPS - 1]>,
    peak: f32,
}

#[derive(Clone, Copy, Debug)]
struct Interpolator {
    /// Of the three moments between two samples; that at a sample is the sample.
    phases: [[f32; TAPS]; PHASES],
    /// What they can make of samples up to 1.
    gain_max: f32,
}

impl TruePeak {
    pub(super) fn new(channels: usize) -> Self {
        Self { interpolator: Interpolator::new(), tails: vec![[0.0; TAPS - 1]; channels], peak: 0.0 }
    }

    /// Takes the next samples of each channel.
    pub(super) fn push(&mut self, channels: &[&[f32]]) {
        for (tail, channel) in self.tails.iter_mut().zip(channels) {
            for block in channel.chunks(BLOCK) {
                let mut samples = [0.0; BLOCK + TAPS - 1];
                samples[..TAPS - 1].copy_from_slice(tail);
                samples[TAPS - 1..][..block.len()].copy_from_slice(block);
                tail.copy_from_slice(&samples[block.len()..][..TAPS - 1]);
                self.peak = self.interpolator.peak(&samples, block.len(), self.peak);
            }
        }
    }

    /// 1 is full scale; 0 if nothing was heard.
    pub(super) const fn value(&self) -> f32 {
        self.peak
    }
}

impl Interpolator {
    fn new() -> Self {
        use std::f64::consts::PI;
        let (factor, window) = (PHASES as f64 + 1.0, (TAPS * (PHASES + 1)) as f64);
        let mut phases = [[0.0_f32; TAPS]; PHASES];
        for (phase, taps) in phases.iter_mut().enumerate() {
            for (tap, value) in taps.iter_mut().enumerate() {
                let at = tap as f64 * factor + phase as f64 + 1.0;
                let hann = 0.5 * (1.0 - (2.0 * PI * at / window).cos());
                let angle = (at - window / 2.0) * PI / factor;
                *value = (hann * angle.sin() / angle) as f32;
            }
        }
        let gains = phases.iter().map(|taps| taps.iter().map(|value| value.abs()).sum::<f32>());
        // More than what rounding adds.
        Self { phases, gain_max: gains.fold(1.0, f32::max) * 1.000_1 }
    }

    /// The higher of a peak and that of `count` samples and what is between them, behind those that are only looked back at.
    fn peak(&self, padded: &[f32; BLOCK + TAPS - 1], count: usize, peak: f32) -> f32 {
        let samples = &padded[..TAPS - 1 + count];
        let of_samples = highest(samples);
        let possible = of_samples * self.gain_max;
        // What cannot become the highest need not be looked at: in a programme that is nearly all of it.
        if possible <= peak || !possible.is_finite() {
            return peak;
        }
        let mut highest_yet = peak.max(of_samples);
        for taps in &self.phases {
            for at in (0..count).step_by(TILE) {
                let mut out = [0.0_f32; TILE];
                for (tap, gain) in taps.iter().rev().enumerate() {
                    let Some(samples) = padded[at + tap..].first_chunk::<TILE>() else { continue };
                    for (out, sample) in out.iter_mut().zip(samples) {
                        *out += gain * sample;
                    }
                }
                // Behind the last sample there is only what fills the tile.
                highest_yet = highest_yet.max(highest(&out[..TILE.min(count - at)]));
            }
        }
        highest_yet
    }
}

/// By their bits, which have the same order and can be compared several at a time; what is no number is above all numbers.
fn highest(values: &[f32]) -> f32 {
    let bits = values.iter().map(|value| value.abs().to_bits().cast_signed());
    f32::from_bits(bits.fold(0, i32::max).cast_unsigned())
}

/// Of each moment: 48 taps by four.
const TAPS: usize = 12;
const PHASES: usize = 3;
/// Small enough that a peak costs little around it, and large enough that little is copied.
const BLOCK: usize = 64;
/// As many as are computed together, in registers; divides a block.
const TILE: usize = 16;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn peaks_between_samples_are_found() {
        // A sine of a quarter of the rate, of which no sample is higher than 0.707.
        let samples: Vec<f32> = (0..1_000).map(|n| (std::f32::consts::FRAC_PI_4 * (2 * n + 1) as f32).sin()).collect();
        let mut peak = TruePeak::new(1);
        // Not from nothing at once, which is higher.
        let faded: Vec<f32> =
            samples.iter().enumerate().map(|(at, sample)| sample * (at as f32 / 500.0).min(1.0)).collect();
        peak.push(&[&faded]);
        assert!((peak.value() - 1.0).abs() < 0.01, "{}", peak.value());
    }

    proptest! {
        #[test]
        fn what_is_not_looked_at_would_not_have_been_the_highest(
            pieces in proptest::collection::vec((proptest::collection::vec(-1.0_f32..1.0, 0..300), 0.01_f32..1.0), 1..20)
        ) {
            let mut peak = TruePeak::new(2);
            let mut all = Vec::new();
            for (piece, level) in &pieces {
                let piece: Vec<f32> = piece.iter().map(|sample| sample * level).collect();
                peak.push(&[&piece, &[]]);
                all.extend(piece);
            }
            let Interpolator { phases, .. } = Interpolator::new();
            let mut expected = all.iter().fold(0.0_f64, |peak, sample| peak.max(f64::from(sample.abs())));
            for at in 0..all.len() {
                for taps in &phases {
                    let before = all[..=at].iter().rev();
                    let value: f64 = before.zip(taps).map(|(sample, gain)| f64::from(*sample) * f64::from(*gain)).sum();
                    expected = expected.max(value.abs());
                }
            }
            prop_assert!((f64::from(peak.value()) - expected).abs() < 1e-5, "{} {expected}", peak.value());
        }
    }
}
