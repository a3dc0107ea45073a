//! What the trainer sees: tokens and per-token streams, and nothing about where they came from
//! (algorithms §7).

use serde::{Deserialize, Serialize};

use crate::{AdapterName, LEAST_TEMPERATURE, PolicyVersion, SampleId, TokenId, TurnId};

/// A turn with an advantage and a weight for every response token.
///
/// One JSON object a line is also the format of `nextstate train --samples`.
///
/// # Shapes
/// `behaviour`, `advantage`, `weight`: one number for each id of `response`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// Unique; a sample is trained at most once in a lineage.
    pub id: SampleId,
    /// The turn it was made from.
    pub turn: TurnId,
    /// The line of versions that it trains.
    pub adapter: AdapterName,
    /// The version that sampled it.
    pub version: PolicyVersion,
    /// The prompt's ids.
    pub prompt: Vec<TokenId>,
    /// The sampled ids.
    pub response: Vec<TokenId>,
    /// `log μ(a_t)`: recorded at sampling, at `temperature`.
    pub behaviour: Vec<f32>,
    /// `A_t`.
    pub advantage: Vec<f32>,
    /// 0 leaves a token out of the loss *and* of its denominator.
    pub weight: Vec<f32>,
    /// The temperature of `behaviour` and of the trained log-probs.
    pub temperature: f32,
}

impl Sample {
    /// Checks lengths and numbers; says which stream is wrong.
    ///
    /// # Errors
    /// [`crate::Error::Refused`] naming the sample and the stream.
    pub fn validate(&self) -> crate::Result<()> {
        let refuse = |why: String| {
            Err(crate::Error::Refused {
                what: format!("sample {}", self.id),
                why,
            })
        };
        let n = self.response.len();
        if n == 0 {
            return refuse("its response holds no token".into());
        }
        if self.prompt.is_empty() {
            return refuse("its prompt holds no token, so its first token has no log-prob".into());
        }
        if !(self.temperature.is_finite() && self.temperature >= LEAST_TEMPERATURE) {
            let (found, least) = (self.temperature, LEAST_TEMPERATURE);
            return refuse(format!("temperature is {found}, below {least}"));
        }
        for (name, stream) in [
            ("behaviour", &self.behaviour),
            ("advantage", &self.advantage),
            ("weight", &self.weight),
        ] {
            if stream.len() != n {
                return refuse(format!(
                    "{name} has {} numbers for {n} tokens",
                    stream.len()
                ));
            }
            if let Some(at) = stream.iter().position(|x| !x.is_finite()) {
                return refuse(format!("{name}[{at}] is {}", stream[at]));
            }
        }
        if let Some(at) = self.behaviour.iter().position(|x| *x > 1e-3) {
            return refuse(format!(
                "behaviour[{at}] is {}, above log 1",
                self.behaviour[at]
            ));
        }
        if let Some(at) = self.weight.iter().position(|x| *x < 0.0) {
            return refuse(format!("weight[{at}] is negative"));
        }
        Ok(())
    }

    /// Whether any token moves the weights: only such samples count towards a batch.
    pub fn is_effective(&self) -> bool {
        self.weight
            .iter()
            .zip(&self.advantage)
            .any(|(w, a)| *w > 0.0 && *a != 0.0)
    }
}

/// The surrogate that turns ratios and advantages into a loss (algorithms §3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyLoss {
    /// `max(−A ρ, −A clip(ρ, 1−ε, 1+ε_high))`: PPO's clip with a higher upper bound (DAPO).
    #[default]
    Ppo,
    /// `−A ρ`: plain importance sampling.
    ImportanceSampling,
    /// `−A stopgrad(clip(ρ, 0, 1+ε_high)) log π`: CISPO (MiniMax-M1, arXiv 2506.13585).
    Cispo,
    /// PPO's clip on the sequence ratio `exp(mean_t log ρ_t)`: GSPO (arXiv 2507.18071).
    Gspo,
}

/// Samples that make one version.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Batch {
    /// In the order in which they are walked.
    pub samples: Vec<Sample>,
}

/// What a step measured. Written to `metrics.jsonl` and to the version's lineage.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct StepMetrics {
    /// The optimizer's step, from 1.
    pub step: u64,
    /// The whole loss.
    pub loss: f64,
    /// The policy-gradient part.
    pub pg_loss: f64,
    /// `KL3(π_θ ‖ π_ref)`, mean over weighted tokens; 0 when it is not computed.
    pub kl: f64,
    /// The gradient's 2-norm before clipping.
    pub grad_norm: f64,
    /// Mean of `ρ_t`.
    pub ratio_mean: f64,
    /// Largest `ρ_t`.
    pub ratio_max: f64,
    /// Share of weighted tokens whose ratio was clipped.
    pub clipped: f64,
    /// Fresh and rechecked tokens whose recomputed log-prob differs in any bit from the recorded one.
    pub mismatched: u64,
    /// Fresh tokens: those that the weights before the step sampled, so that both log-probs must be the same.
    #[serde(default)]
    pub fresh: u64,
    /// Tokens of older versions that were computed once more by the version that sampled them, so that both log-probs must be the same, too.
    #[serde(default)]
    pub rechecked: u64,
    /// Response tokens of the batch that are neither fresh nor rechecked: nobody looked whether they are computed as they were served.
    #[serde(default)]
    pub uncompared: u64,
    /// Weighted response tokens.
    pub tokens: u64,
    /// Samples in the batch.
    pub samples: u64,
    /// Wall time of the step, in seconds.
    pub seconds: f64,
}
