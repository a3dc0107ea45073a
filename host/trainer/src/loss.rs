//! The loss of a sample and its derivative by each token's log-prob (algorithms §3).
//!
//! Pure arithmetic on slices, in f64. Does not run a model, does not know what an advantage means. The derivative by
//! the weights is [`policy`]'s; [`crate::LoraLearner`] puts the two together. Start at [`Objective::sample`].
//!
//! # Shapes
//! Every stream has one number a response token.

use rl::PolicyLoss;

/// Bound of `log π_ref − log π_θ` in the KL estimate: beyond it `exp` would drown every other token.
const KL_BOUND: f64 = 10.0;

/// What a step minimises: the mean over samples of the weighted mean over tokens of `surrogate + β · KL3`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Objective {
    /// The surrogate.
    pub policy_loss: PolicyLoss,
    /// ε.
    pub clip_low: f64,
    /// ε_high.
    pub clip_high: f64,
    /// Cap of the truncated importance weight; none leaves it out.
    pub tis_cap: Option<f64>,
    /// β.
    pub kl_beta: f64,
}

/// One sample's numbers.
#[derive(Clone, Copy, Debug)]
pub struct Streams<'a> {
    /// `log π_θ(a_t)`: of the weights being trained.
    pub logprobs: &'a [f32],
    /// `log π_old(a_t)`: of the weights at the step's start. Read only for the truncated importance weight.
    pub old: &'a [f32],
    /// `log π_ref(a_t)`: of the base; none leaves the KL out.
    pub reference: Option<&'a [f32]>,
    /// `log μ(a_t)`: recorded when the token was sampled.
    pub behaviour: &'a [f32],
    /// `A_t`.
    pub advantage: &'a [f32],
    /// A token with weight 0 is left out of the loss and of its denominator.
    pub weight: &'a [f32],
}

/// What one sample measured.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Figures {
    /// The surrogate's weighted mean over tokens.
    pub pg: f64,
    /// The weighted mean of KL3; 0 without a reference.
    pub kl: f64,
    /// Sum of `π_θ / μ` over weighted tokens.
    pub ratio_sum: f64,
    /// The largest `π_θ / μ` of a weighted token; NaN when one of them is.
    pub ratio_max: f64,
    /// Weighted tokens whose ratio the surrogate clipped.
    pub clipped: u64,
    /// Weighted tokens.
    pub tokens: u64,
}

impl Objective {
    /// The sample's figures, and `share · dloss/dlogprob` of each token into `dlogprobs` (overwritten). `share` is one over
    /// the number of samples that count, those with a positive weight. A sample without one gives zeros.
    ///
    /// # Panics
    /// When the streams' lengths differ; [`rl::Sample::validate`] and the model's log-probs rule that out.
    ///
    /// # Source
    /// PPO: Schulman et al. 2017, eq. 7, with the upper bound of DAPO (arXiv 2503.14476). CISPO: arXiv 2506.13585, eq. 4.
    /// GSPO: arXiv 2507.18071; its token variant (eq. 13), which equals the sequence variant when all tokens share one
    /// advantage. Truncated importance weight: Yao et al. 2025, "Your efficient RL framework secretly brings you
    /// off-policy RL training". KL3: Schulman 2020, "Approximating KL divergence", k3.
    ///
    /// ```
    /// use trainer::{Config, loss::Streams};
    /// let logprobs = [-1.0, -2.0];
    /// let fresh = Streams {
    ///     logprobs: &logprobs,
    ///     old: &logprobs,
    ///     reference: None,
    ///     behaviour: &logprobs,
    ///     advantage: &[1.0, -1.0],
    ///     weight: &[1.0, 1.0],
    /// };
    /// let mut dlogprobs = Vec::new();
    /// let figures = Config::default().objective().sample(&fresh, 1.0, &mut dlogprobs);
    /// assert_eq!((figures.ratio_max, figures.pg), (1.0, 0.0));
    /// assert_eq!(dlogprobs, [-0.5, 0.5]); // a descent step raises the first token and lowers the second
    /// ```
    pub fn sample(&self, streams: &Streams<'_>, share: f64, dlogprobs: &mut Vec<f32>) -> Figures {
        let n = streams.logprobs.len();
        dlogprobs.clear();
        dlogprobs.resize(n, 0.0);
        let total: f64 = streams.weight.iter().map(|w| f64::from(*w)).sum();
        let mut figures = Figures::default();
        if total <= 0.0 {
            return figures;
        }
        let sequence =
            (self.policy_loss == PolicyLoss::Gspo).then(|| self.sequence_ratio(streams, total));
        for t in (0..n).filter(|t| streams.weight[*t] > 0.0) {
            let token = Token::at(streams, t);
            let weight = f64::from(streams.weight[t]) / total;
            let surrogate = self.surrogate(&token, sequence);
            let (kl, dkl) = token
                .reference
                .map_or((0.0, 0.0), |r| kl3(r, token.logprob));
            figures.pg += weight * surrogate.loss;
            figures.kl += weight * kl;
            figures.clipped += u64::from(surrogate.clipped);
            figures.tokens += 1;
            let ratio = (token.logprob - token.behaviour).exp();
            figures.ratio_sum += ratio;
            if ratio.is_nan() || ratio > figures.ratio_max {
                figures.ratio_max = ratio;
            }
            dlogprobs[t] = single(share * weight * (surrogate.slope + self.kl_beta * dkl));
        }
        figures
    }

    /// `exp` of the weighted mean of the log-ratios.
    fn sequence_ratio(&self, streams: &Streams<'_>, total: f64) -> f64 {
        let mut mean = 0.0;
        for t in (0..streams.logprobs.len()).filter(|t| streams.weight[*t] > 0.0) {
            let weight = f64::from(streams.weight[t]) / total;
            mean += weight * self.log_ratio(&Token::at(streams, t));
        }
        mean.exp()
    }

    /// To the recorded probabilities; to those at the step's start when another factor corrects for the engine.
    fn log_ratio(&self, token: &Token) -> f64 {
        let from = if self.tis_cap.is_some() {
            token.old
        } else {
            token.behaviour
        };
        token.logprob - from
    }

    fn surrogate(&self, token: &Token, sequence: Option<f64>) -> Surrogate {
        let correction = self
            .tis_cap
            .map_or(1.0, |cap| (token.old - token.behaviour).exp().min(cap));
        let advantage = token.advantage * correction;
        let ratio = sequence.unwrap_or_else(|| self.log_ratio(token).exp());
        let (low, high) = (1.0 - self.clip_low, 1.0 + self.clip_high);
        match self.policy_loss {
            PolicyLoss::ImportanceSampling => Surrogate {
                loss: -advantage * ratio,
                slope: -advantage * ratio,
                clipped: false,
            },
            PolicyLoss::Cispo => {
                let factor = ratio.min(high);
                let slope = -advantage * factor;
                Surrogate {
                    loss: slope * token.logprob,
                    slope,
                    clipped: ratio > high,
                }
            }
            PolicyLoss::Ppo | PolicyLoss::Gspo => {
                let free = -advantage * ratio;
                let bound = -advantage * ratio.clamp(low, high);
                let clipped = bound > free;
                Surrogate {
                    loss: if clipped { bound } else { free },
                    slope: if clipped { 0.0 } else { free },
                    clipped,
                }
            }
        }
    }
}

/// One token's numbers, widened.
struct Token {
    logprob: f64,
    old: f64,
    reference: Option<f64>,
    behaviour: f64,
    advantage: f64,
}

impl Token {
    fn at(streams: &Streams<'_>, t: usize) -> Self {
        Self {
            logprob: streams.logprobs[t].into(),
            old: streams.old[t].into(),
            reference: streams.reference.map(|reference| reference[t].into()),
            behaviour: streams.behaviour[t].into(),
            advantage: streams.advantage[t].into(),
        }
    }
}

struct Surrogate {
    loss: f64,
    /// Its derivative by the token's log-prob.
    slope: f64,
    clipped: bool,
}

/// `exp(d) − d − 1` with `d = log π_ref − log π_θ` clamped, and its derivative by `log π_θ`.
fn kl3(reference: f64, logprob: f64) -> (f64, f64) {
    let d = reference - logprob;
    let bounded = d.clamp(-KL_BOUND, KL_BOUND);
    let slope = if d == bounded { 1.0 - d.exp() } else { 0.0 };
    (bounded.exp() - bounded - 1.0, slope)
}

fn single(x: f64) -> f32 {
    x as f32
}

#[cfg(test)]
mod tests;
