//! How a token is drawn (algorithms §8).

use serde::{Deserialize, Serialize};

use crate::{Seed, TokenId};

/// The least temperature that logits are divided by. The gradient of a log-prob grows with 1 / temperature until it is no number.
pub const LEAST_TEMPERATURE: f32 = 1e-3;

/// The distribution that tokens are drawn from, after the model's logits.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Sampling {
    /// Divides the logits; below [`LEAST_TEMPERATURE`], as at 0, the most likely token is taken (the lowest id wins a tie).
    pub temperature: f32,
    /// Keep only the k most likely tokens; 0 keeps all.
    pub top_k: u32,
    /// Keep the most likely tokens whose probabilities reach this sum; 1 keeps all.
    pub top_p: f32,
    /// Drop tokens less likely than this share of the most likely one; 0 keeps all.
    pub min_p: f32,
    /// Divides (or multiplies, when negative) logits of tokens seen before; 1 leaves them.
    pub repetition_penalty: f32,
    /// Added to the logits of these ids.
    pub logit_bias: Vec<(TokenId, f32)>,
    /// The same request with the same seed gives the same tokens, whatever shares its batch.
    pub seed: Seed,
    /// Most tokens to draw.
    pub max_tokens: u32,
    /// Texts at which the reply ends; they are not part of it.
    pub stop: Vec<String>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            logit_bias: Vec::new(),
            seed: Seed::default(),
            max_tokens: 256,
            stop: Vec::new(),
        }
    }
}

impl Sampling {
    /// Whether the most likely token is taken.
    pub fn is_greedy(&self) -> bool {
        self.temperature < LEAST_TEMPERATURE
    }

    /// Whether tokens come from another distribution than the one whose log-probs are recorded (that at the
    /// sampling temperature, before truncation). Such a turn is marked, so that its ratio can be corrected.
    pub fn truncates(&self) -> bool {
        self.is_greedy()
            || self.top_k > 0
            || self.top_p < 1.0
            || self.min_p > 0.0
            || self.repetition_penalty != 1.0
            || !self.logit_bias.is_empty()
    }

    /// The temperature at which log-probs are recorded and trained: the sampling temperature, and 1 for
    /// greedy decoding, whose own distribution has no log-probs to learn from.
    pub fn logprob_temperature(&self) -> f32 {
        if self.is_greedy() {
            1.0
        } else {
            self.temperature
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temperature_that_nothing_can_be_divided_by_is_that_of_the_most_likely_token() {
        let at = |temperature| Sampling {
            temperature,
            ..Sampling::default()
        };
        for tiny in [0.0, f32::from_bits(1), 1e-39, 1e-6, 9.9e-4] {
            assert!(at(tiny).is_greedy() && at(tiny).truncates(), "{tiny}");
            assert_eq!(at(tiny).logprob_temperature(), 1.0);
        }
        for some in [LEAST_TEMPERATURE, 0.7, 2.0] {
            assert!(!at(some).is_greedy() && !at(some).truncates(), "{some}");
            assert_eq!(at(some).logprob_temperature(), some);
        }
    }
}
