//! What the engine is asked while it is verified: prompts of many lengths, every adapter, several temperatures.
//!
//! All of it follows from the seed. Computes nothing.

use std::sync::Arc;

use policy::{Adapter, ModelConfig};
use rl::{Sampling, Seed, TokenId, Weights};
use serving::engine::SampleJob;

/// Ranks of the adapters that are made for a check: one, an odd one, the usual one.
const RANKS: [usize; 3] = [1, 7, 16];
/// Tokens of prompts, before they are cut to what the context holds.
const LENGTHS: [usize; 8] = [1, 150, 40, 9, 203, 64, 17, 90];
/// Temperature and top-p of a request.
const DRAWS: [(f32, f32); 4] = [(1.0, 1.0), (0.7, 0.9), (0.0, 1.0), (1.0, 0.8)];
/// Longer replies show nothing new; more of them do.
const LONGEST_REPLY: usize = 64;
/// Tokens that every other prompt begins with, as conversations with one system prompt do.
const SHARED: usize = 24;
/// Tokens that a conversation goes on with after a reply.
const NEXT: usize = 3;

/// A check's work.
#[derive(Debug)]
pub(super) struct Plan {
    /// Adapters and what they are called in the report.
    pub(super) weights: Vec<(String, Arc<Adapter>)>,
    /// Tokens to sample in all.
    pub(super) tokens: usize,
    /// Settings among which they are shared.
    pub(super) settings: usize,
    /// Where everything comes from.
    pub(super) seed: u64,
}

/// A request, and what the report calls its weights.
#[derive(Clone, Debug)]
pub(super) struct Request {
    /// For the engine.
    pub(super) job: SampleJob,
    /// The adapter's place in [`Plan::weights`]; none for the base.
    pub(super) adapter: Option<usize>,
}

/// The adapters that every check brings.
pub(super) fn made_adapters(
    config: &ModelConfig,
    seed: u64,
) -> policy::Result<Vec<(String, Arc<Adapter>)>> {
    RANKS
        .into_iter()
        .map(|rank| {
            let adapter = Adapter::random(
                config,
                rank,
                2.0 * rank as f32,
                seed.wrapping_add(rank as u64),
            )?;
            Ok((format!("rank {rank}"), Arc::new(adapter)))
        })
        .collect()
}

/// The name under which the engine knows an adapter.
pub(super) fn name(index: usize) -> rl::AdapterName {
    format!("adapter-{index}").as_str().into()
}

impl Plan {
    /// Requests of one setting, and tokens of each reply: each request is asked twice, cold and warm.
    fn sizes(&self) -> (usize, usize) {
        let replies = self.tokens.div_ceil(2 * self.settings);
        let least = LENGTHS.len().max(self.weights.len() + 1);
        let requests = least.max(replies.div_ceil(LONGEST_REPLY));
        (requests, replies.div_ceil(requests))
    }

    /// The first round's requests, the shortest prompt first. They fit `context` twice over.
    ///
    /// # Errors
    /// When no prompt does.
    pub(super) fn requests(
        &self,
        config: &ModelConfig,
        context: usize,
    ) -> anyhow::Result<Vec<Request>> {
        let (requests, reply) = self.sizes();
        let taken = 2 * reply + NEXT;
        let Some(longest) = context.checked_sub(taken).filter(|room| *room > 0) else {
            anyhow::bail!(
                "a context of {context} tokens holds no prompt before two replies of {reply} tokens each; ask for fewer --tokens"
            );
        };
        let shared = self.text(config, "shared", SHARED);
        Ok((0..requests)
            .map(|index| {
                // Not in step with the adapters: each of them is drawn from in every way.
                let draw = (index + index / (self.weights.len() + 1)) % DRAWS.len();
                let length = LENGTHS[index % LENGTHS.len()].min(longest);
                let mut prompt = self.text(config, &format!("prompt-{index}"), length);
                if index % 2 == 1 && length > SHARED {
                    prompt[..SHARED].copy_from_slice(&shared);
                }
                let adapter = (index % (self.weights.len() + 1)).checked_sub(1);
                let (temperature, top_p) = DRAWS[draw];
                let sampling = Sampling {
                    temperature,
                    top_p,
                    seed: Seed::new(self.seed).derive(&format!("draw-{index}")),
                    max_tokens: u32::try_from(reply).unwrap_or(u32::MAX),
                    // A reply that ends early would compare less than was asked for. The recorded log-probs know no bias.
                    logit_bias: config.eos.iter().map(|id| (*id, -100.0)).collect(),
                    ..Sampling::default()
                };
                let weights = adapter.map_or(Weights::Base, |index| Weights::Adapter(name(index)));
                Request {
                    job: SampleJob {
                        weights,
                        bucket: policy::NO_BUCKET,
                        prompt,
                        sampling,
                        top_logprobs: 0,
                    },
                    adapter,
                }
            })
            .collect())
    }

    /// The conversation goes on: the reply, and a few more tokens.
    pub(super) fn next(
        &self,
        config: &ModelConfig,
        request: &Request,
        index: usize,
        reply: &[TokenId],
    ) -> Request {
        let mut next = request.clone();
        next.job.prompt.extend_from_slice(reply);
        let more = self.text(config, &format!("next-{index}"), NEXT);
        next.job.prompt.extend(more);
        next
    }

    /// Any ids of the vocabulary: the arithmetic does not ask what they mean.
    fn text(&self, config: &ModelConfig, name: &str, length: usize) -> Vec<TokenId> {
        let seed = Seed::new(self.seed).derive(name);
        let vocabulary = config.vocab_size as u64;
        (0..length)
            .map(|at| seed.derive(&at.to_string()).get() % vocabulary)
            .map(|id| TokenId::try_from(id).unwrap_or_default())
            .collect()
    }
}
