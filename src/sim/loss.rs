//! Loss models: none, random, burst.

/// Which datagrams get lost. Shares and probabilities are between 0 and 1; what lies outside acts as the nearer end.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Model {
    /// None.
    #[default]
    None,
    /// Each with the same probability, whatever happened to those before.
    Random {
        /// Share of datagrams lost.
        share: f64,
    },
    /// A good and a bad state, with a step between them before each datagram (E. N. Gilbert 1960, E. O. Elliott 1963).
    GilbertElliott {
        /// Probability of a step from good to bad.
        to_bad: f64,
        /// Probability of a step from bad to good.
        to_good: f64,
        /// Share lost in the good state.
        loss_in_good: f64,
        /// Share lost in the bad state.
        loss_in_bad: f64,
    },
}

impl Model {
    /// Loses the given share of datagrams, `length` in a row on average (at least one). Shares above
    /// `length / (length + 1)` cannot be had: there is one good datagram between two bursts.
    #[must_use]
    pub fn bursts(share: f64, length: f64) -> Self {
        let length = length.max(1.0);
        let share = share.clamp(0.0, length / (length + 1.0));
        Self::GilbertElliott {
            to_bad: share / (length * (1.0 - share)),
            to_good: 1.0 / length,
            loss_in_good: 0.0,
            loss_in_bad: 1.0,
        }
    }
}

/// A model at work.
#[derive(Clone, Debug)]
pub struct Loss {
    model: Model,
    is_bad: bool,
}

impl Loss {
    /// Starts in the good state.
    #[must_use]
    pub const fn new(model: Model) -> Self {
        Self { model, is_bad: false }
    }

    /// Whether the next datagram is lost.
    pub fn loses(&mut self, rng: &mut fastrand::Rng) -> bool {
        match self.model {
            Model::None => false,
            Model::Random { share } => rng.f64() < share,
            Model::GilbertElliott { to_bad, to_good, loss_in_good, loss_in_bad } => {
                let step = if self.is_bad { to_good } else { to_bad };
                self.is_bad ^= rng.f64() < step;
                rng.f64() < if self.is_bad { loss_in_bad } else { loss_in_good }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::print_stdout, reason = "a failing test shows its seed")]
mod tests {
    use super::*;

    #[test]
    fn random_loss_has_its_share_and_mostly_single_losses() {
        let (share, length) = measure(Model::Random { share: 0.05 });
        assert!((0.048..0.052).contains(&share), "{share}");
        assert!((1.03..1.08).contains(&length), "{length}");
    }

    #[test]
    fn bursts_have_their_share_and_length() {
        for (share, length) in [(0.01, 1.0), (0.05, 4.0), (0.2, 10.0), (0.5, 3.0)] {
            let (measured, measured_length) = measure(Model::bursts(share, length));
            assert!((measured / share - 1.0).abs() < 0.05, "{measured} for {share}");
            assert!((measured_length / length - 1.0).abs() < 0.05, "{measured_length} for {length}");
        }
    }

    #[test]
    fn impossible_shares_are_the_nearest_possible_ones() {
        assert_eq!(measure(Model::Random { share: -1.0 }).0, 0.0);
        assert_eq!(measure(Model::Random { share: 2.0 }).0, 1.0);
        let (share, _) = measure(Model::bursts(0.9, 1.0));
        assert!((0.49..0.51).contains(&share), "{share}");
    }

    /// Share lost, and mean length of the runs, among a million.
    fn measure(model: Model) -> (f64, f64) {
        let seed = 7;
        println!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut loss = Loss::new(model);
        let (mut lost, mut bursts, mut in_burst) = (0u32, 0u32, false);
        for _ in 0..1_000_000 {
            let loses = loss.loses(&mut rng);
            lost += u32::from(loses);
            bursts += u32::from(loses && !in_burst);
            in_burst = loses;
        }
        (f64::from(lost) / 1e6, f64::from(lost) / f64::from(bursts.max(1)))
    }
}
