//! What stands behind the capability `model`: the host's own engine, by the names that the operator gave.
//!
//! Side traffic: what is said here is no turn, and nothing of it is judged or trained. Messages take the same way through the chat
//! template as those of the gateway, so that no text in them becomes a special token.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread::park_timeout;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use parking_lot::{Condvar, Mutex};
use plugin::outside::{Account, Completion, CompletionRequest, Models, Refusal};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use rl::{FinishReason, Message, Policy, SampleRequest, Sampling, TokenFlow, Weights};
use serde::{Deserialize, Serialize};

/// Longest that a plugin waits for a completion, from its question to the last token. (What is in the engine's queue when it is over stays
/// there for as long as the engine's `max-wait` allows, and gives no token after that.)
const LONGEST: Duration = Duration::from_secs(120);
/// A prompt with more bytes for each token that is left has no room, and is not read to be refused. Few tokens of any vocabulary are longer.
const BYTES_PER_TOKEN: u64 = 64;
/// An engine whose queue is full is asked this often before the guest is told.
const ATTEMPTS: u32 = 6;
/// The wait after the first failed attempt; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(200);

/// `[models.<name>]`: a model that plugins with the capability `model` may ask by this name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct NamedModel {
    /// The model as a client asks the gateway for it, for example `smollm2-135m-instruct`; without it the base model. (With
    /// `<base>:<adapter>` of the adapter in training the users change as it does, and an episode that a restart interrupts goes on with other words.)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Tokens of prompts and completions together, for each episode.
    pub tokens_per_episode: u32,
    /// Most tokens of one completion, whatever the plugin asks for.
    pub max_tokens: u32,
}

impl Default for NamedModel {
    fn default() -> Self {
        Self {
            policy: None,
            // About ten exchanges of a short conversation, whose history is read again for each.
            tokens_per_episode: 8_192,
            max_tokens: 128,
        }
    }
}

impl NamedModel {
    /// Checks the ranges.
    ///
    /// # Errors
    /// The first key that is out of range.
    pub fn validate(&self) -> anyhow::Result<()> {
        for (key, value) in [
            ("tokens-per-episode", self.tokens_per_episode),
            ("max-tokens", self.max_tokens),
        ] {
            ensure!(value > 0, "`{key}` is 0; at least 1 is allowed");
        }
        Ok(())
    }
}

/// Labels of what is counted.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Label {
    name: String,
}

/// A name, resolved.
#[derive(Clone)]
struct Known {
    weights: Weights,
    tokens_per_episode: u32,
    max_tokens: u32,
}

/// The names of a host, and the engine behind them.
pub(crate) struct NamedModels(Arc<Inner>);

struct Inner {
    policy: Arc<dyn Policy>,
    known: BTreeMap<String, Known>,
    tokens: Family<Label, Counter>,
    door: Door,
}

/// Completions at once: half of what the engine computes for the loops at once, so that the judge, who asks the same way, always has a
/// place. More would not be computed any sooner.
pub(crate) fn at_once(engine: &serving::engine::Config) -> usize {
    (engine.max_loop_sequences / 2).max(1)
}

/// Lets so many in at once; the others wait.
struct Door {
    free: Mutex<usize>,
    left: Condvar,
}

/// Somebody who was let in, until it is dropped.
struct Inside<'a>(&'a Door);

impl Door {
    fn new(at_once: usize) -> Self {
        Self {
            free: Mutex::new(at_once),
            left: Condvar::new(),
        }
    }

    /// None when it took too long.
    fn enter(&self, longest: Duration) -> Option<Inside<'_>> {
        let mut free = self.free.lock();
        let full = |free: &mut usize| *free == 0;
        if self
            .left
            .wait_while_for(&mut free, full, longest)
            .timed_out()
        {
            return None;
        }
        *free -= 1;
        Some(Inside(self))
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        *self.0.free.lock() += 1;
        self.0.left.notify_one();
    }
}

impl NamedModels {
    /// Resolves the names: `served` are the weights that clients can ask for, and `at_once` completions are computed at once.
    ///
    /// # Errors
    /// A name whose model this host does not serve.
    pub(crate) fn new(
        named: &BTreeMap<String, NamedModel>,
        policy: Arc<dyn Policy>,
        served: &BTreeMap<String, Weights>,
        at_once: usize,
        registry: &mut Registry,
    ) -> anyhow::Result<Self> {
        let resolve = |(name, named): (&String, &NamedModel)| {
            let weights = match &named.policy {
                None => Weights::Base,
                Some(policy) => {
                    let names: Vec<&str> = served.keys().map(String::as_str).collect();
                    let found = served.get(policy).with_context(|| {
                        let names = names.join(", ");
                        format!("[models.{name}] policy: this host serves no `{policy}` (it serves: {names})")
                    });
                    found?.clone()
                }
            };
            let known = Known {
                weights,
                tokens_per_episode: named.tokens_per_episode,
                max_tokens: named.max_tokens,
            };
            Ok((name.clone(), known))
        };
        let known = named.iter().map(resolve).collect::<anyhow::Result<_>>()?;
        let tokens = Family::default();
        registry.sub_registry_with_prefix("models").register(
            "tokens",
            "Prompt and completion tokens that plugins asked for, by the name in [models]",
            tokens.clone(),
        );
        Ok(Self(Arc::new(Inner {
            policy,
            known,
            tokens,
            door: Door::new(at_once),
        })))
    }
}

impl Models for NamedModels {
    fn account(&self) -> Box<dyn Account> {
        Box::new(Spending {
            models: Arc::clone(&self.0),
            used: BTreeMap::new(),
        })
    }
}

/// What an episode used, by name.
struct Spending {
    models: Arc<Inner>,
    used: BTreeMap<String, u32>,
}

impl Account for Spending {
    fn complete(&mut self, request: CompletionRequest) -> Result<Completion, Refusal> {
        self.complete_until(request, Instant::now() + LONGEST)
    }
}

impl Spending {
    fn complete_until(
        &mut self,
        request: CompletionRequest,
        until: Instant,
    ) -> Result<Completion, Refusal> {
        // Attack: a guest that took its worker process over, and with it the checks on that side.
        request.check()?;
        let name = request.model.clone();
        let known = self.models.known(&name)?;
        let budget = known.tokens_per_episode;
        let used = self.used.get(&name).copied().unwrap_or(0);
        let left = budget.saturating_sub(used);
        let no_room = |prompt: String| {
            Err(Refusal::Failed(format!(
                "model `{name}`: the prompt has {prompt}, and {used} of the episode's {budget} tokens are used; \
                 [models.{name}] tokens-per-episode sets them"
            )))
        };
        // Attack: megabytes, question after question, that are made into tokens only to be refused.
        let bytes: usize = request.messages.iter().map(bytes).sum();
        if bytes as u64 > BYTES_PER_TOKEN * u64::from(left) {
            return no_room(format!("{bytes} bytes"));
        }
        let prompt = self.models.policy.encode(&request.messages, &[], "");
        let prompt = prompt.map_err(refusal)?;
        let length = u32::try_from(prompt.len()).unwrap_or(u32::MAX);
        let room = left.saturating_sub(length);
        if room == 0 {
            return no_room(format!("{length} tokens"));
        }
        let sampling = Sampling {
            // From 0 to 2: every such number is one of f32, nearly enough.
            temperature: request.temperature as f32,
            seed: request.seed,
            max_tokens: request.max_tokens.min(known.max_tokens).min(room),
            stop: request.stop,
            ..Sampling::default()
        };
        let asked = self.models.say(&known, prompt, &sampling, until);
        let tokens = asked
            .sampled
            .map_or(0, |sampled| length.saturating_add(sampled));
        let used = used.saturating_add(tokens);
        self.used.insert(name.clone(), used);
        let label = Label { name };
        self.models
            .tokens
            .get_or_create(&label)
            .inc_by(tokens.into());
        let said = asked.said?;
        Ok(Completion {
            text: said.text,
            finish: said.finish,
            tokens,
            left: budget.saturating_sub(used),
        })
    }
}

/// What the engine made of a question.
struct Asked {
    said: Result<rl::Completion, Refusal>,
    /// Tokens that were sampled, also where nothing came of them; none where the engine did not begin.
    sampled: Option<u32>,
}

impl Asked {
    fn refused(why: Refusal) -> Self {
        Self {
            said: Err(why),
            sampled: None,
        }
    }
}

/// Bytes of a message that may become tokens.
fn bytes(message: &Message) -> usize {
    message.content.len() + message.reasoning.as_ref().map_or(0, String::len)
}

impl Inner {
    fn known(&self, name: &str) -> Result<Known, Refusal> {
        self.known.get(name).cloned().ok_or_else(|| {
            let names: BTreeSet<&str> = self.known.keys().map(String::as_str).collect();
            let names: Vec<&str> = names.into_iter().collect();
            let which = if names.is_empty() {
                format!("none; a section [models.{name}] of its configuration names one")
            } else {
                names.join(", ")
            };
            Refusal::Invalid(format!(
                "this host names no model `{name}` (it names: {which})"
            ))
        })
    }

    /// Asks the engine, with patience when it is busy.
    fn say(
        &self,
        known: &Known,
        prompt: Vec<rl::TokenId>,
        sampling: &Sampling,
        until: Instant,
    ) -> Asked {
        let left = || until.saturating_duration_since(Instant::now());
        let Some(_inside) = self.door.enter(left()) else {
            let why = format!("the model had no time within {LONGEST:?}");
            return Asked::refused(Refusal::Failed(why));
        };
        let mut wait = FIRST_WAIT;
        let mut attempt = 1;
        loop {
            let request = SampleRequest {
                weights: known.weights.clone(),
                prompt: prompt.clone(),
                sampling: sampling.clone(),
            };
            let mut sampled: u32 = 0;
            let mut flow = |_| {
                sampled = sampled.saturating_add(1);
                if left().is_zero() {
                    TokenFlow::Stop
                } else {
                    TokenFlow::Continue
                }
            };
            let said = self.policy.sample(request, &mut flow);
            match said {
                // A full queue; one that was waited in is `TimedOut`.
                Err(rl::Error::Unavailable { .. })
                    if sampled == 0 && attempt < ATTEMPTS && left() > wait =>
                {
                    park_timeout(wait);
                    wait *= 2;
                    attempt += 1;
                }
                said => return asked(said, sampled),
            }
        }
    }
}

fn asked(said: rl::Result<rl::Completion>, sampled: u32) -> Asked {
    match said {
        Ok(said) => {
            let whole = u32::try_from(said.tokens.len()).unwrap_or(u32::MAX);
            let cancelled = said.finish == FinishReason::Cancelled;
            let late = || Refusal::Failed(format!("the model did not finish within {LONGEST:?}"));
            Asked {
                said: if cancelled { Err(late()) } else { Ok(said) },
                sampled: Some(whole.max(sampled)),
            }
        }
        Err(error) => {
            let unread = error.is_retryable() || matches!(error, rl::Error::Refused { .. });
            Asked {
                said: Err(refusal(error)),
                sampled: (sampled > 0 || !unread).then_some(sampled),
            }
        }
    }
}

fn refusal(error: rl::Error) -> Refusal {
    match error {
        rl::Error::Refused { .. } => Refusal::Invalid(error.to_string()),
        error => Refusal::Failed(error.to_string()),
    }
}

#[cfg(test)]
mod tests;
