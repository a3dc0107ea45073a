//! Draws tokens: a pure function of logits, settings and (seed, request, position).
//!
//! Random numbers are counter-based, so a request gives the same tokens whatever shares its batch and however often it is preempted. The
//! recorded log-prob is not computed here (the kernels do, at the sampling temperature before truncation). No allocation per
//! token. Order of operations: logit bias, repetition penalty, temperature, top-k, top-p, min-p.

use rl::{Sampling, TokenId};

use crate::error::{Error, Result};

mod philox;
mod pick;

pub use kernels::cuda::sample::Draw;

pub use philox::{philox4x32, uniform};
pub(crate) use pick::Picker;

/// A token that a device drew.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Drawn {
    /// None when no token is possible: every logit is −∞ or not a number.
    pub token: Option<TokenId>,
    /// Its log-prob at the sampling temperature, or at 1 when that is 0, before any truncation: training's bits.
    pub log_prob: f32,
}

impl Drawn {
    pub(crate) const NONE: Drawn = Drawn {
        token: None,
        log_prob: f32::NAN,
    };
}

/// Draws the tokens of one request.
#[derive(Debug)]
pub struct Sampler {
    sampling: Sampling,
    /// Which of the requests under one seed (choice `n` of one call, vote number): 0 when there is only one.
    request: u64,
    /// One bit per token that the repetition penalty has seen; empty without a penalty.
    seen: Vec<u64>,
    logits: Vec<f32>,
    picker: Picker,
}

impl Sampler {
    /// Takes the settings of a request, and memory for `vocab` tokens.
    ///
    /// # Errors
    /// [`Error::Sampling`] when a setting is out of its range.
    pub fn new(sampling: &Sampling, request: u64, vocab: usize) -> Result<Self> {
        check(sampling)?;
        let penalised = sampling.repetition_penalty != 1.0;
        let rewrites = penalised || !sampling.logit_bias.is_empty();
        Ok(Self {
            sampling: sampling.clone(),
            request,
            seen: if penalised {
                vec![0; vocab.div_ceil(64)]
            } else {
                Vec::new()
            },
            logits: Vec::with_capacity(if rewrites { vocab } else { 0 }),
            picker: Picker::default(),
        })
    }

    /// Counts a token of the prompt or of the reply towards the repetition penalty.
    pub fn observe(&mut self, id: TokenId) {
        if let Some(word) = self.seen.get_mut(id as usize / 64) {
            *word |= 1 << (id % 64);
        }
    }

    /// The settings of [`Sampler::draw`] at `position`, for a pass that draws by itself; none when this sampler changes the logits
    /// before it draws.
    pub fn plain(&self, position: u64) -> Option<Draw> {
        let changes = !self.seen.is_empty() || !self.sampling.logit_bias.is_empty();
        (!changes).then(|| self.settings(position))
    }

    fn settings(&self, position: u64) -> Draw {
        Draw {
            seed: self.sampling.seed.get(),
            request: self.request,
            position,
            temperature: match self.sampling.is_greedy() {
                true => 0.0,
                false => self.sampling.temperature,
            },
            top_p: self.sampling.top_p,
            min_p: self.sampling.min_p,
            top_k: self.sampling.top_k,
        }
    }

    /// Draws the token at `position` (the number of tokens before it). `None` when no token is possible: every logit is −∞ or not
    /// a number.
    pub fn draw(&mut self, logits: &[f32], position: u64) -> Option<TokenId> {
        let settings = self.settings(position);
        if self.seen.is_empty() && self.sampling.logit_bias.is_empty() {
            return self.picker.pick(&settings, logits);
        }
        let mut own = std::mem::take(&mut self.logits);
        own.clear();
        own.extend_from_slice(logits);
        for &(id, bias) in &self.sampling.logit_bias {
            if let Some(logit) = own.get_mut(id as usize) {
                *logit += bias;
            }
        }
        let penalty = self.sampling.repetition_penalty;
        for (at, &word) in self.seen.iter().enumerate() {
            let mut left = word;
            while left != 0 {
                let id = 64 * at + left.trailing_zeros() as usize;
                left &= left - 1;
                if let Some(logit) = own.get_mut(id) {
                    *logit = if *logit > 0.0 {
                        *logit / penalty
                    } else {
                        *logit * penalty
                    };
                }
            }
        }
        let picked = self.picker.pick(&settings, &own);
        self.logits = own;
        picked
    }
}

fn check(sampling: &Sampling) -> Result<()> {
    let Sampling {
        temperature,
        top_p,
        min_p,
        repetition_penalty,
        ..
    } = *sampling;
    let bad = |setting, value: f32, rule| {
        Err(Error::Sampling {
            setting,
            value,
            rule,
        })
    };
    if !(0.0..=100.0).contains(&temperature) {
        return bad("temperature", temperature, "it must be between 0 and 100");
    }
    if !(top_p > 0.0 && top_p <= 1.0) {
        return bad("top-p", top_p, "it must be above 0 and at most 1");
    }
    if !(0.0..=1.0).contains(&min_p) {
        return bad("min-p", min_p, "it must be between 0 and 1");
    }
    if !(repetition_penalty > 0.0 && repetition_penalty <= 100.0) {
        return bad(
            "repetition-penalty",
            repetition_penalty,
            "it must be above 0 and at most 100",
        );
    }
    match sampling.logit_bias.iter().find(|(_, bias)| bias.is_nan()) {
        Some((_, bias)) => bad("logit-bias", *bias, "it must be a number"),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
