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
use rl::{FinishReason, Policy, SampleRequest, Sampling, TokenFlow, Weights};
use serde::{Deserialize, Serialize};

/// Longest computation of a completion; the engine's queue has a limit of its own.
const LONGEST: Duration = Duration::from_secs(120);
/// Completions at once. More would not be computed any sooner, and would leave the judge no place in the engine's queue.
const AT_ONCE: usize = 32;
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
    /// Resolves the names: `served` are the weights that clients can ask for.
    ///
    /// # Errors
    /// A name whose model this host does not serve.
    pub(crate) fn new(
        named: &BTreeMap<String, NamedModel>,
        policy: Arc<dyn Policy>,
        served: &BTreeMap<String, Weights>,
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
            door: Door::new(AT_ONCE),
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
        let name = request.model.clone();
        let known = self.models.known(&name)?;
        let prompt = self.models.policy.encode(&request.messages, &[], "");
        let prompt = prompt.map_err(refusal)?;
        let budget = known.tokens_per_episode;
        let used = self.used.get(&name).copied().unwrap_or(0);
        let length = u32::try_from(prompt.len()).unwrap_or(u32::MAX);
        let room = budget.saturating_sub(used).saturating_sub(length);
        if room == 0 {
            return Err(Refusal::Failed(format!(
                "model `{name}`: the prompt has {length} tokens, and {used} of the episode's {budget} are used; \
                 [models.{name}] tokens-per-episode sets them"
            )));
        }
        let sampling = Sampling {
            // From 0 to 2: every such number is one of f32, nearly enough.
            temperature: request.temperature as f32,
            seed: request.seed,
            max_tokens: request.max_tokens.min(known.max_tokens).min(room),
            stop: request.stop,
            ..Sampling::default()
        };
        let said = self.models.say(&known, prompt, &sampling)?;
        let tokens = length.saturating_add(u32::try_from(said.tokens.len()).unwrap_or(u32::MAX));
        let used = used.saturating_add(tokens);
        self.used.insert(name.clone(), used);
        let label = Label { name };
        self.models
            .tokens
            .get_or_create(&label)
            .inc_by(tokens.into());
        Ok(Completion {
            text: said.text,
            finish: said.finish,
            tokens,
            left: budget.saturating_sub(used),
        })
    }
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
    ) -> Result<rl::Completion, Refusal> {
        let busy = || Refusal::Failed(format!("the model had no time within {LONGEST:?}"));
        let _inside = self.door.enter(LONGEST).ok_or_else(busy)?;
        let mut wait = FIRST_WAIT;
        for attempt in 1.. {
            let request = SampleRequest {
                weights: known.weights.clone(),
                prompt: prompt.clone(),
                sampling: sampling.clone(),
            };
            let begun = Instant::now();
            let mut flow = |_| {
                if begun.elapsed() < LONGEST {
                    TokenFlow::Continue
                } else {
                    TokenFlow::Stop
                }
            };
            match self.policy.sample(request, &mut flow) {
                Ok(said) if said.finish == FinishReason::Cancelled => {
                    return Err(Refusal::Failed(format!(
                        "the model took longer than {LONGEST:?}"
                    )));
                }
                Ok(said) => return Ok(said),
                Err(error) if error.is_retryable() && attempt < ATTEMPTS => {
                    park_timeout(wait);
                    wait *= 2;
                }
                Err(error) => return Err(refusal(error)),
            }
        }
        Err(Refusal::Failed("the model was never asked".to_owned()))
    }
}

fn refusal(error: rl::Error) -> Refusal {
    match error {
        rl::Error::Refused { .. } => Refusal::Invalid(error.to_string()),
        error => Refusal::Failed(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use rl::{
        Message, PolicyCard, PolicyVersion, SampledToken, ScoreRequest, Seed, TokenId, ToolSpec,
    };

    use super::*;

    /// A policy that says its weights and its seed; a token is a byte.
    struct Echo;

    impl Policy for Echo {
        fn card(&self) -> PolicyCard {
            PolicyCard {
                model: "echo".into(),
                context: 1 << 20,
                vocab_size: 256,
            }
        }
        fn version(&self, _: &Weights) -> rl::Result<PolicyVersion> {
            Ok(PolicyVersion::BASE)
        }
        fn encode(&self, list: &[Message], _: &[ToolSpec], _: &str) -> rl::Result<Vec<TokenId>> {
            Ok(list
                .iter()
                .flat_map(|one| one.content.bytes())
                .map(TokenId::from)
                .collect())
        }
        fn encode_text(&self, text: &str) -> rl::Result<Vec<TokenId>> {
            Ok(text.bytes().map(TokenId::from).collect())
        }
        fn sample(
            &self,
            request: SampleRequest,
            _: &mut dyn FnMut(SampledToken) -> TokenFlow,
        ) -> rl::Result<rl::Completion> {
            let count = request.sampling.max_tokens as usize;
            Ok(rl::Completion {
                tokens: vec![1; count],
                logprobs: vec![0.0; count],
                text: format!("{:?} {}", request.weights, request.sampling.seed.get()),
                finish: FinishReason::Length,
                version: PolicyVersion::BASE,
                adapter_digest: String::new(),
            })
        }
        fn score(&self, _: ScoreRequest) -> rl::Result<Vec<Vec<f32>>> {
            Ok(Vec::new())
        }
    }

    fn named(text: &str) -> anyhow::Result<NamedModels> {
        let config = crate::config::Config::parse(text)?;
        let adapter = Weights::Adapter("own".into());
        let served = BTreeMap::from([
            ("echo".to_owned(), Weights::Base),
            ("echo:own".to_owned(), adapter),
        ]);
        NamedModels::new(
            &config.models,
            Arc::new(Echo),
            &served,
            &mut Registry::default(),
        )
    }

    fn request(model: &str, prompt: &str, max_tokens: u32) -> CompletionRequest {
        CompletionRequest {
            model: model.to_owned(),
            messages: vec![Message::user(prompt)],
            max_tokens,
            temperature: 0.5,
            stop: Vec::new(),
            seed: Seed::new(7),
        }
    }

    #[test]
    fn a_name_means_the_base_unless_it_says_otherwise_and_one_that_is_not_served_is_refused_at_start()
     {
        let text = "[models.plain]\n[models.mine]\npolicy = 'echo:own'";
        let mut account = named(text).unwrap().account();
        let mut said = |name| account.complete(request(name, "hi", 4)).unwrap().text;
        assert_eq!(said("plain"), "Base 7");
        assert!(said("mine").starts_with("Adapter("));
        let error = named("[models.mine]\npolicy = 'gpt'")
            .err()
            .unwrap()
            .to_string();
        assert!(
            error.contains("`gpt`") && error.contains("echo, echo:own"),
            "{error}"
        );
    }

    #[test]
    fn an_unknown_name_is_told_the_known_ones() {
        let unknown = |text: &str| {
            let refusal = named(text)
                .unwrap()
                .account()
                .complete(request("user", "hi", 4));
            match refusal {
                Err(Refusal::Invalid(why)) => why,
                other => panic!("{other:?}"),
            }
        };
        assert!(unknown("[models.a]\n[models.b]").contains("it names: a, b"));
        assert!(unknown("").contains("[models.user]"));
    }

    #[test]
    fn a_budget_holds_for_an_episode_counts_prompts_and_is_named_when_it_is_used_up() {
        let models = named("[models.user]\ntokens-per-episode = 20\nmax-tokens = 6").unwrap();
        let mut account = models.account();
        let first = account.complete(request("user", "12345", 100)).unwrap();
        assert_eq!((first.tokens, first.left), (11, 9));
        let second = account.complete(request("user", "12345", 100)).unwrap();
        assert_eq!((second.tokens, second.left), (9, 0));
        let Err(Refusal::Failed(why)) = account.complete(request("user", "12345", 1)) else {
            panic!("the budget is used up");
        };
        assert!(
            why.contains("tokens-per-episode") && why.contains("20 of the episode's 20"),
            "{why}"
        );
        // Another episode has one of its own; both are counted by name.
        models.account().complete(request("user", "1", 1)).unwrap();
        let label = Label {
            name: "user".to_owned(),
        };
        assert_eq!(models.0.tokens.get_or_create(&label).get(), 22);
    }

    #[test]
    fn no_more_than_a_few_are_inside_at_once_and_who_waits_too_long_is_told() {
        let door = Door::new(2);
        let first = door.enter(Duration::ZERO).unwrap();
        let _second = door.enter(Duration::ZERO).unwrap();
        assert!(door.enter(Duration::from_millis(1)).is_none());
        std::thread::scope(|scope| {
            let third = scope.spawn(|| door.enter(LONGEST).is_some());
            drop(first);
            assert!(third.join().unwrap());
        });
        assert_eq!(*door.free.lock(), 1);
    }

    #[test]
    fn a_limit_of_nothing_is_refused_by_name() {
        let error = format!(
            "{:#}",
            named("[models.user]\nmax-tokens = 0").err().unwrap()
        );
        assert!(
            error.contains("[models.user]") && error.contains("max-tokens"),
            "{error}"
        );
    }
}
