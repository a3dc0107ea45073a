//! Draws tokens: a pure function of logits, settings and (seed, request, position).
//!
//! Random numbers are counter-based, so a request gives the same tokens whatever shares its batch and however often it is preempted. The
//! recorded log-prob is not computed here (the kernels do, at the sampling temperature before truncation). No allocation per
//! token. Order of operations: logit bias, repetition penalty, temperature, top-k, top-p, min-p.

use std::cmp::Ordering;

use kernels::softmax;
use rl::{Sampling, TokenId};

use crate::error::{Error, Result};

mod philox;

pub use kernels::cuda::sample::Draw;

pub use philox::{philox4x32, uniform};

/// A token that a device drew.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Drawn {
    /// None when no token is possible: every logit is −∞ or not a number.
    pub token: Option<TokenId>,
    /// Its log-prob at the sampling temperature, or at 1 when that is 0, before any truncation: training's bits.
    pub log_prob: f32,
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
    /// What each token weighs; its sums over blocks of [`BLOCK`] tokens.
    weights: Vec<f32>,
    sums: Vec<f64>,
    /// Those that top-k, top-p and min-p leave; unused without them.
    candidates: Vec<Candidate>,
}

/// A token that may be drawn, with its weight: the exponential of its scaled logit less the largest.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    weight: f32,
    id: TokenId,
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
        let weighs = sampling.temperature > 0.0;
        let room = |needed: bool, len: usize| if needed { len } else { 0 };
        Ok(Self {
            sampling: sampling.clone(),
            request,
            seen: if penalised {
                vec![0; vocab.div_ceil(64)]
            } else {
                Vec::new()
            },
            logits: Vec::with_capacity(room(rewrites, vocab)),
            weights: Vec::with_capacity(room(weighs, vocab)),
            sums: Vec::with_capacity(room(weighs, vocab.div_ceil(BLOCK))),
            candidates: Vec::with_capacity(room(weighs && truncates(sampling), vocab)),
        })
    }

    /// Counts a token of the prompt or of the reply towards the repetition penalty.
    pub fn observe(&mut self, id: TokenId) {
        if let Some(word) = self.seen.get_mut(id as usize / 64) {
            *word |= 1 << (id % 64);
        }
    }

    /// The settings of [`Sampler::draw`] at `position`, for a device that draws by itself; none when this sampler changes the logits
    /// before it draws.
    pub fn plain(&self, position: u64) -> Option<Draw> {
        let changes = !self.seen.is_empty() || !self.sampling.logit_bias.is_empty();
        (!changes).then_some(Draw {
            seed: self.sampling.seed.get(),
            request: self.request,
            position,
            temperature: self.sampling.temperature,
            top_p: self.sampling.top_p,
            min_p: self.sampling.min_p,
            top_k: self.sampling.top_k,
        })
    }

    /// Draws the token at `position` (the number of tokens before it). `None` when no token is possible: every logit is −∞ or not
    /// a number.
    pub fn draw(&mut self, logits: &[f32], position: u64) -> Option<TokenId> {
        if self.seen.is_empty() && self.sampling.logit_bias.is_empty() {
            return self.pick(logits, position);
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
        let picked = self.pick(&own, position);
        self.logits = own;
        picked
    }

    fn pick(&mut self, logits: &[f32], position: u64) -> Option<TokenId> {
        let (best, max) = softmax::largest(logits)?;
        let best = id(best);
        // A temperature too small to divide by is greedy in all but name.
        let scale = 1.0 / self.sampling.temperature;
        if !(scale.is_finite() && max.is_finite()) {
            return Some(best);
        }
        softmax::weights(logits, max, scale, &mut self.weights);
        let at = uniform(self.sampling.seed.get(), self.request, position);
        let drawn = match truncates(&self.sampling) {
            true => self.among_candidates(at),
            false => self.among_all(at),
        };
        // Rounding can leave a sliver behind the last token.
        drawn.or(Some(best))
    }

    /// The token at a place in [0, 1) of all weights.
    fn among_all(&mut self, at: f64) -> Option<TokenId> {
        self.sums.clear();
        self.sums.extend(self.weights.chunks(BLOCK).map(sum));
        let mut left = at * self.sums.iter().sum::<f64>();
        let block = self.sums.iter().position(|&sum| {
            let here = left < sum;
            left -= if here { 0.0 } else { sum };
            here
        });
        let start = block.unwrap_or_default() * BLOCK;
        let tokens = &self.weights[start..];
        let place = tokens.iter().position(|&weight| {
            left -= f64::from(weight);
            left < 0.0
        });
        place.map(|place| id(start + place))
    }

    /// The same of what top-k, top-p and min-p leave.
    fn among_candidates(&mut self, at: f64) -> Option<TokenId> {
        let Sampling {
            top_k,
            top_p,
            min_p,
            ..
        } = self.sampling;
        let whole: f64 = self.weights.chunks(BLOCK).map(sum).sum();
        // What the cheapest of the three rules excludes is not even listed: tokens below the second of these weights sum to less
        // than 1 - p of the whole, so that none of them can be among the first p.
        let least = match (top_k, top_p < 1.0) {
            (1.., _) => 0.0,
            (0, true) => (1.0 - f64::from(top_p)) * whole / self.weights.len() as f64,
            (0, false) => f64::from(min_p),
        };
        let some = (0..).zip(&self.weights);
        let some = some.filter(|(_, weight)| **weight > 0.0 && f64::from(**weight) >= least);
        self.candidates.clear();
        self.candidates
            .extend(some.map(|(id, &weight)| Candidate { weight, id }));
        self.truncate(whole);
        let total: f64 = self.candidates.iter().map(|c| f64::from(c.weight)).sum();
        let mut left = at * total;
        for candidate in &self.candidates {
            left -= f64::from(candidate.weight);
            if left < 0.0 {
                return Some(candidate.id);
            }
        }
        self.candidates.last().map(|candidate| candidate.id)
    }

    /// Drops what top-k, top-p and min-p exclude; `whole` is the sum of all weights. The most likely token always stays.
    fn truncate(&mut self, whole: f64) {
        let Sampling {
            top_k,
            top_p,
            min_p,
            ..
        } = self.sampling;
        let k = top_k as usize;
        let mut total = whole;
        if k > 0 {
            if k < self.candidates.len() {
                self.candidates.select_nth_unstable_by(k - 1, heavier);
                self.candidates.truncate(k);
                // One order for one set: sums must not depend on the selection's internals.
                self.candidates.sort_unstable_by_key(|c| c.id);
            }
            total = self.candidates.iter().map(|c| f64::from(c.weight)).sum();
        }
        if top_p < 1.0 {
            let kept = heaviest(&mut self.candidates, f64::from(top_p) * total);
            self.candidates.truncate(kept);
            self.candidates.sort_unstable_by_key(|c| c.id);
        }
        if min_p > 0.0 {
            // The largest weight is exp(0) = 1.
            self.candidates.retain(|c| c.weight >= min_p);
        }
    }
}

/// The order in which rules keep candidates.
fn heavier(a: &Candidate, b: &Candidate) -> Ordering {
    b.weight.total_cmp(&a.weight).then(a.id.cmp(&b.id))
}

/// Brings the heaviest candidates to the front, and counts how many of them weigh `goal` together. Halves that are not wanted are never
/// sorted.
fn heaviest(candidates: &mut [Candidate], goal: f64) -> usize {
    const FEW: usize = 64;
    let weight = |some: &[Candidate]| -> f64 { some.iter().map(|c| f64::from(c.weight)).sum() };
    // Those before `first` weigh `before`, less than the goal; those before `end` reach it, if any do.
    let (mut first, mut end, mut before) = (0, candidates.len(), 0.0);
    while end - first > FEW {
        let middle = (end - first) / 2;
        let part = &mut candidates[first..end];
        part.select_nth_unstable_by(middle, heavier);
        let half = weight(&part[..middle]);
        if before + half >= goal {
            end = first + middle;
        } else {
            before += half;
            first += middle;
        }
    }
    candidates[first..end].sort_unstable_by(heavier);
    let reached = candidates[first..end].iter().position(|c| {
        before += f64::from(c.weight);
        before >= goal
    });
    reached.map_or(end, |place| first + place + 1)
}

/// Tokens whose weights are added first.
const BLOCK: usize = 512;

/// In eight chains, which a processor adds side by side.
fn sum(weights: &[f32]) -> f64 {
    let (body, tail) = weights.as_chunks::<8>();
    let mut chains = [0.0; 8];
    for some in body {
        for (chain, &weight) in chains.iter_mut().zip(some) {
            *chain += f64::from(weight);
        }
    }
    let tail: f64 = tail.iter().map(|&weight| f64::from(weight)).sum();
    chains.iter().sum::<f64>() + tail
}

fn truncates(sampling: &Sampling) -> bool {
    sampling.top_k > 0 || sampling.top_p < 1.0 || sampling.min_p > 0.0
}

fn id(place: usize) -> TokenId {
    TokenId::try_from(place).unwrap_or(TokenId::MAX)
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
