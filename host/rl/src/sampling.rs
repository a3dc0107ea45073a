//! How a token is drawn (algorithms §8).

use serde::{Deserialize, Serialize};

use crate::{Seed, TokenId};

/// The distribution that tokens are drawn from, after the model's logits.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Sampling {
    /// Divides the logits; 0 takes the most likely token (the lowest id wins a tie).
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
    /// Whether tokens come from another distribution than the one whose log-probs are recorded (that at the
    /// sampling temperature, before truncation). Such a turn is marked, so that its ratio can be corrected.
    pub fn truncates(&self) -> bool {
        self.temperature <= 0.0
            || self.top_k > 0
            || self.top_p < 1.0
            || self.min_p > 0.0
            || self.repetition_penalty != 1.0
            || !self.logit_bias.is_empty()
    }

    /// The temperature at which log-probs are recorded and trained: the sampling temperature, and 1 for
    /// greedy decoding, whose own distribution has no log-probs to learn from.
    pub fn logprob_temperature(&self) -> f32 {
        if self.temperature > 0.0 {
            self.temperature
        } else {
            1.0
        }
    }
}
