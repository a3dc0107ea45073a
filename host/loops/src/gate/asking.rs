//! Asks the policy: probe replies drawn, and drawn replies scored, several at a time.
//!
//! Judges nothing. The order of the answers, and every bit of them, is independent of which thread asked.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use rl::{
    FinishReason, Message, Policy, SampleRequest, Sampling, ScoreRequest, Seed, TokenFlow, TokenId,
    Weights,
};
use serde::{Deserialize, Serialize};

use super::{Contest, GateConfig};
use crate::signs;

/// So many other questions a reply is held against: one can be alike by chance.
const OTHERS: usize = 3;

/// Asked at a time: as many as the engine computes for the loops in one step.
const THREADS: usize = 8;

/// A reply to a probe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Spoken {
    pub(super) tokens: Vec<TokenId>,
    pub(super) logprobs: Vec<f32>,
    pub(super) text: String,
    pub(super) cut_off: bool,
}

impl Spoken {
    pub(super) fn broken(&self) -> Option<&'static str> {
        signs::broken(&self.text, &self.tokens, &self.logprobs)
    }
}

/// One set of replies, and the digest of the weights that gave them.
pub(super) struct Replies {
    pub(super) spoken: Vec<Spoken>,
    pub(super) digest: String,
}

/// The policy and what it is asked.
pub(super) struct Asker<'a> {
    policy: &'a dyn Policy,
    prompts: Vec<Vec<TokenId>>,
    sampling: Sampling,
    seed: Seed,
}

impl<'a> Asker<'a> {
    /// Every version's examination draws anew: a reply that was lucky once is not lucky for ever.
    pub(super) fn new(
        config: &GateConfig,
        policy: &'a dyn Policy,
        contest: &Contest<'_>,
    ) -> rl::Result<Self> {
        let encode = |prompt: &str| policy.encode(&[Message::user(prompt)], &[], "");
        let probes = config.all_probes();
        Ok(Self {
            policy,
            prompts: probes
                .into_iter()
                .map(|probe| encode(&probe.prompt))
                .collect::<rl::Result<_>>()?,
            sampling: Sampling {
                temperature: config.temperature,
                max_tokens: config.reply_tokens,
                ..Sampling::default()
            },
            seed: config
                .seed
                .derive("gate")
                .derive(contest.adapter.as_str())
                .derive(&contest.version.to_string()),
        })
    }

    /// Replies of these weights to every probe. Equal seeds for all weights: differences are the weights'.
    pub(super) fn replies(&self, who: &[&Weights]) -> rl::Result<Vec<Replies>> {
        let count = self.prompts.len();
        let answers = at_once(who.len() * count, |job| {
            let (weights, probe) = (who[job / count], job % count);
            let mut sampling = self.sampling.clone();
            sampling.seed = self.seed.derive(&probe.to_string());
            let request = SampleRequest {
                weights: weights.clone(),
                prompt: self.prompts[probe].clone(),
                sampling,
            };
            self.policy.sample(request, &mut |_| TokenFlow::Continue)
        })?;
        let mut answers = answers.into_iter();
        let sets = who.iter().map(|weights| {
            let set: Vec<_> = answers.by_ref().take(count).collect();
            let digest = set.first().map(|c| c.adapter_digest.clone());
            let digest = digest.unwrap_or_default();
            if set.iter().any(|reply| reply.adapter_digest != digest) {
                return Err(rl::Error::Failed {
                    what: "the gate".into(),
                    why: format!("the weights {weights:?} changed while they were examined"),
                });
            }
            let spoken = set.into_iter().map(|reply| Spoken {
                tokens: reply.tokens,
                logprobs: reply.logprobs,
                text: reply.text,
                cut_off: reply.finish == FinishReason::Length,
            });
            Ok(Replies {
                spoken: spoken.collect(),
                digest,
            })
        });
        sets.collect()
    }

    /// Log-probs of given replies under given weights: each item is one set of replies.
    pub(super) fn scores(&self, items: &[(&Weights, &[Spoken])]) -> rl::Result<Vec<Vec<Vec<f32>>>> {
        let count = self.prompts.len();
        let answers = at_once(items.len() * count, |job| {
            let ((weights, replies), probe) = (items[job / count], job % count);
            let tokens = &replies[probe].tokens;
            if tokens.is_empty() {
                return Ok(Vec::new());
            }
            let mut scores = self.score(weights, probe, vec![tokens.clone()])?;
            Ok(scores.pop().unwrap_or_default())
        })?;
        let mut answers = answers.into_iter();
        let sets = items.iter();
        Ok(sets
            .map(|_| answers.by_ref().take(count).collect())
            .collect())
    }

    /// The log-prob that the base gives each reply of these sets as an answer to another probe's question: the highest of [`OTHERS`].
    /// None for an empty reply, or when there is no other probe.
    pub(super) fn elsewhere(&self, sets: &[&[Spoken]]) -> rl::Result<Vec<Vec<Option<f64>>>> {
        let count = self.prompts.len();
        let others = OTHERS.min(count.saturating_sub(1));
        // What is held against a question, by set and place; its prompt is computed once for all of them.
        let held = |probe: usize| {
            let places = (1..=others).map(move |by| (probe + by) % count);
            let all = places.flat_map(|at| (0..sets.len()).map(move |set| (set, at)));
            all.filter(|(set, at)| !sets[*set][*at].tokens.is_empty())
        };
        let scored = at_once(count, |probe| {
            let tokens = held(probe).map(|(set, at)| sets[set][at].tokens.clone());
            let tokens: Vec<_> = tokens.collect();
            match tokens.is_empty() {
                true => Ok(Vec::new()),
                false => self.score(&Weights::Base, probe, tokens),
            }
        })?;
        let mut best: Vec<Vec<Option<f64>>> = vec![vec![None; count]; sets.len()];
        for (probe, scores) in scored.iter().enumerate() {
            for ((set, at), scores) in held(probe).zip(scores) {
                let (best, sum) = (&mut best[set][at], total(scores));
                *best = Some(best.map_or(sum, |known: f64| known.max(sum)));
            }
        }
        Ok(best)
    }

    fn score(
        &self,
        weights: &Weights,
        probe: usize,
        continuations: Vec<Vec<TokenId>>,
    ) -> rl::Result<Vec<Vec<f32>>> {
        let lengths: Vec<usize> = continuations.iter().map(Vec::len).collect();
        let scores = self.policy.score(ScoreRequest {
            weights: weights.clone(),
            prompt: self.prompts[probe].clone(),
            continuations,
            temperature: self.sampling.logprob_temperature(),
        })?;
        let got: Vec<usize> = scores.iter().map(Vec::len).collect();
        if got != lengths {
            let why = format!("{got:?} scores for {lengths:?} tokens");
            let what = "the policy".to_owned();
            return Err(rl::Error::Failed { what, why });
        }
        Ok(scores)
    }
}

/// The log-prob of a whole reply.
pub(super) fn total(logprobs: &[f32]) -> f64 {
    logprobs.iter().map(|logprob| f64::from(*logprob)).sum()
}

/// Answers to `count` questions, in order; the first failure in that order.
fn at_once<T: Send>(
    count: usize,
    ask: impl Fn(usize) -> rl::Result<T> + Sync,
) -> rl::Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let answers: Mutex<Vec<Option<rl::Result<T>>>> = Mutex::new((0..count).map(|_| None).collect());
    let work = || {
        loop {
            let question = next.fetch_add(1, Ordering::Relaxed);
            if question >= count {
                return;
            }
            let answer = ask(question);
            let failed = answer.is_err();
            answers.lock().unwrap_or_else(PoisonError::into_inner)[question] = Some(answer);
            if failed {
                next.store(count, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..THREADS.min(count) {
            let thread = std::thread::Builder::new().name("gate".into());
            // With fewer threads it takes longer and gives the same.
            if let Err(error) = thread.spawn_scoped(scope, work) {
                tracing::debug!(%error, "no thread for the gate");
            }
        }
        work();
    });
    let answers = answers.into_inner().unwrap_or_else(PoisonError::into_inner);
    // What was not asked comes after a failure, which is found first or stands behind it.
    let mut given = Vec::with_capacity(count);
    let mut missing = false;
    for answer in answers {
        match answer {
            Some(answer) => given.push(answer?),
            None => missing = true,
        }
    }
    if missing {
        let (what, why) = ("the gate".to_owned(), "a question was not asked".to_owned());
        return Err(rl::Error::Failed { what, why });
    }
    Ok(given)
}
