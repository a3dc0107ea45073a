//! How differently two adapters go on from the same text: the exact Kullback-Leibler divergence at every token of a reply.
//!
//! Over the whole vocabulary, in f64, at most 64 rows of logits a side at a time. Does not sample; [`greedy`] is here because
//! a probe's reply is the most likely one. How the *weights* differ is [`crate::compare()`]'s. Start at [`divergence()`].

use rl::TokenId;
use serde::Serialize;

use crate::{Adapter, Error, Kv, Logits, Model, Result, Scratch, Segment};

/// Prompt rows that are computed at once.
const PREFILL_ROWS: usize = 256;
/// Reply rows that are computed at once: each has a row of logits a side.
const SCORED_ROWS: usize = 64;

/// What two adapters make of one reply.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Divergence {
    /// `KL(a ‖ b)` of the next token's distribution, in nats, before each token of the reply.
    pub kl: Vec<f64>,
    /// Their mean.
    pub mean: f64,
    /// The largest.
    pub max: f64,
    /// Where the largest is: a position in the reply, from 0.
    pub at: usize,
    /// The reply's log-probs under a: bit for bit those that serving records.
    pub log_probs_a: Vec<f32>,
    /// The same under b.
    pub log_probs_b: Vec<f32>,
}

/// Compares two adapters, of which an absent one is the base, on `reply` after `prompt`. Temperature 0 counts as 1.
///
/// # Errors
/// [`Error::EmptySequence`] for an empty prompt or reply; [`Error::Compute`] for a temperature that is not one; those of
/// [`Model::forward`].
pub fn divergence(
    model: &Model,
    prompt: &[TokenId],
    reply: &[TokenId],
    a: Option<&Adapter>,
    b: Option<&Adapter>,
    temperature: f32,
) -> Result<Divergence> {
    let (Some((last, before)), false) = (prompt.split_last(), reply.is_empty()) else {
        return Err(Error::EmptySequence);
    };
    let temperature = if temperature == 0.0 { 1.0 } else { temperature };
    let mut sides = [Side::new(model, a, before)?, Side::new(model, b, before)?];
    let mut kl = Vec::with_capacity(reply.len());
    let mut log_probs = [(); 2].map(|()| Vec::with_capacity(reply.len()));
    let mut previous = *last;
    for asked in reply.chunks(SCORED_ROWS) {
        let mut fed = vec![previous];
        fed.extend_from_slice(&asked[..asked.len() - 1]);
        previous = asked[asked.len() - 1];
        for side in &mut sides {
            side.feed(model, &fed, Logits::All)?;
        }
        let [one, two] = &sides;
        let rows = one.scratch.logits(0).zip(two.scratch.logits(0));
        for ((p, q), token) in rows.zip(asked) {
            for (row, kept) in [p, q].into_iter().zip(&mut log_probs) {
                let vocab = row.len();
                let logit = row.get(*token as usize).copied();
                let logit = logit.ok_or(Error::Token {
                    token: *token,
                    vocab,
                })?;
                kept.push(model.normalizer(row, temperature)?.log_prob(logit));
            }
            kl.push(row_divergence(p, q, temperature.into()));
        }
    }
    let (mut max, mut at) = (kl[0], 0);
    for (i, value) in kl.iter().enumerate() {
        // A divergence that is not a number is worse than any that is.
        if *value > max || (value.is_nan() && !max.is_nan()) {
            (max, at) = (*value, i);
        }
    }
    let [log_probs_a, log_probs_b] = log_probs;
    Ok(Divergence {
        mean: kl.iter().sum::<f64>() / kl.len() as f64,
        kl,
        max,
        at,
        log_probs_a,
        log_probs_b,
    })
}

/// The most likely reply, token by token; of equal logits the lower id. Ends with a token that ends every reply (it is the
/// last one), at `most` tokens, or where the context is full.
///
/// # Errors
/// [`Error::EmptySequence`] for an empty prompt; those of [`Model::forward`].
pub fn greedy(
    model: &Model,
    adapter: Option<&Adapter>,
    prompt: &[TokenId],
    most: usize,
) -> Result<Vec<TokenId>> {
    let Some((last, before)) = prompt.split_last() else {
        return Err(Error::EmptySequence);
    };
    let most = most.min(model.context().saturating_sub(prompt.len()));
    let mut side = Side::new(model, adapter, before)?;
    let (mut reply, mut next) = (Vec::new(), *last);
    while reply.len() < most {
        side.feed(model, &[next], Logits::Last)?;
        let Some(best) = side.scratch.logits(0).next().and_then(argmax) else {
            break;
        };
        reply.push(best);
        next = best;
        if model.config().eos.contains(&best) {
            break;
        }
    }
    Ok(reply)
}

/// One sequence under one adapter.
struct Side<'a> {
    adapter: Option<&'a Adapter>,
    kv: Kv,
    scratch: Scratch,
}

impl<'a> Side<'a> {
    fn new(model: &Model, adapter: Option<&'a Adapter>, before: &[TokenId]) -> Result<Self> {
        let mut side = Self {
            adapter,
            kv: Kv::new(model.config()),
            scratch: Scratch::new(),
        };
        for tokens in before.chunks(PREFILL_ROWS) {
            side.feed(model, tokens, Logits::None)?;
        }
        Ok(side)
    }

    fn feed(&mut self, model: &Model, tokens: &[TokenId], logits: Logits) -> Result<()> {
        let segment = Segment {
            kv: &mut self.kv,
            tokens,
            adapter: self.adapter,
            logits,
        };
        model.forward(&mut self.scratch, &mut [segment])
    }
}

fn argmax(logits: &[f32]) -> Option<TokenId> {
    let mut best: Option<(usize, f32)> = None;
    for (i, logit) in logits.iter().enumerate() {
        if *logit > best.map_or(f32::NEG_INFINITY, |(_, most)| most) {
            best = Some((i, *logit));
        }
    }
    best.and_then(|(i, _)| TokenId::try_from(i).ok())
}

/// `Σ p (ln p − ln q)`, not below 0.
fn row_divergence(p: &[f32], q: &[f32], temperature: f64) -> f64 {
    let (sum_p, sum_q) = (log_sum(p, temperature), log_sum(q, temperature));
    let mut sum = 0.0;
    for (p, q) in p.iter().zip(q) {
        let log_p = f64::from(*p) / temperature - sum_p;
        let share = log_p.exp();
        if share > 0.0 {
            sum += share * (log_p - (f64::from(*q) / temperature - sum_q));
        }
    }
    // `max` would turn not-a-number, which broken weights give, into 0.
    if sum < 0.0 { 0.0 } else { sum }
}

/// `ln Σ exp(x / T)`.
fn log_sum(logits: &[f32], temperature: f64) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let max = f64::from(max) / temperature;
    let sum: f64 = logits
        .iter()
        .map(|x| (f64::from(*x) / temperature - max).exp())
        .sum();
    max + sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rows_divergence_is_that_of_the_distributions_and_never_negative() {
        let (p, q) = ([0.0f32, 1.0, -2.0], [0.5f32, 0.5, 0.0]);
        let soft = |x: &[f32; 3], t: f64| {
            let e = x.map(|x| (f64::from(x) / t).exp());
            let sum: f64 = e.iter().sum();
            e.map(|e| e / sum)
        };
        for t in [0.5, 1.0, 2.0] {
            let (a, b) = (soft(&p, t), soft(&q, t));
            let expected: f64 = a.iter().zip(b).map(|(a, b)| a * (a / b).ln()).sum();
            assert!((row_divergence(&p, &q, t) - expected).abs() < 1e-14);
        }
        assert_eq!(row_divergence(&p, &p, 1.0), 0.0);
        let shifted = p.map(|x| x + 30.0);
        assert!(row_divergence(&p, &shifted, 1.0) < 1e-12);
        assert!(row_divergence(&p, &[0.0, f32::NAN, 0.0], 1.0).is_nan());
        assert!(row_divergence(&[800.0, -800.0], &[-800.0, 800.0], 1.0) > 1599.0);
    }

    #[test]
    fn the_most_likely_is_the_first_of_equals_and_there_is_none_without_numbers() {
        assert_eq!(argmax(&[1.0, 3.0, 3.0, f32::NAN]), Some(1));
        assert_eq!(argmax(&[f32::NAN, f32::NEG_INFINITY]), None);
    }
}
