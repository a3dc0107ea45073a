//! One draw from logits that nobody changes any more: temperature, top-k, top-p, min-p.

use std::cmp::Ordering;

use kernels::softmax;
use rl::TokenId;

use super::{Draw, uniform};

/// The memory of a draw, which the next one uses again.
#[derive(Debug, Default)]
pub(crate) struct Picker {
    /// What each token weighs; its sums over blocks of [`BLOCK`] tokens.
    weights: Vec<f32>,
    sums: Vec<f64>,
    /// Those that top-k, top-p and min-p leave; unused without them.
    pub(super) candidates: Vec<Candidate>,
}

/// A token that may be drawn, with its weight: the exponential of its scaled logit less the largest.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    weight: f32,
    pub(super) id: TokenId,
}

impl Picker {
    /// The token that the settings draw; none when no token is possible.
    pub(crate) fn pick(&mut self, draw: &Draw, logits: &[f32]) -> Option<TokenId> {
        let (best, max) = softmax::largest(logits)?;
        let best = id(best);
        // At temperature 0 there is nothing to divide by.
        let scale = 1.0 / draw.temperature;
        if !(scale.is_finite() && max.is_finite()) {
            return Some(best);
        }
        softmax::weights(logits, max, scale, &mut self.weights);
        let at = uniform(draw.seed, draw.request, draw.position);
        let drawn = match truncates(draw) {
            true => self.among_candidates(draw, at),
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
    fn among_candidates(&mut self, draw: &Draw, at: f64) -> Option<TokenId> {
        let Draw {
            top_k,
            top_p,
            min_p,
            ..
        } = *draw;
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
        // At once, so that a later draw with more of them finds room.
        self.candidates.reserve(self.weights.len());
        self.candidates
            .extend(some.map(|(id, &weight)| Candidate { weight, id }));
        self.truncate(draw, whole);
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
    fn truncate(&mut self, draw: &Draw, whole: f64) {
        let Draw {
            top_k,
            top_p,
            min_p,
            ..
        } = *draw;
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
    // In whole numbers, whose sum does not depend on the order in which the selection leaves them.
    let weight = |some: &[Candidate]| -> f64 {
        let sum: u64 = some
            .iter()
            .map(|c| (f64::from(c.weight) * UNIT) as u64)
            .sum();
        sum as f64 / UNIT
    };
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

/// What a weight, at most 1, counts in whole numbers: four million of them fit.
const UNIT: f64 = (1u64 << 42) as f64;

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

fn truncates(draw: &Draw) -> bool {
    draw.top_k > 0 || draw.top_p < 1.0 || draw.min_p > 0.0
}

fn id(place: usize) -> TokenId {
    TokenId::try_from(place).unwrap_or(TokenId::MAX)
}
