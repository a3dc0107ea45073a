//! Samples with the engine, computes again as training does, and compares bits.
//!
//! Every setting has an engine of its own, so that its first round finds an empty prefix cache and its second a warm one. What is
//! asked comes from [`super::requests`], what was found goes to [`super::found`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use indicatif::ProgressBar;
use kernels::Isa;
use parking_lot::Mutex;
use policy::{Adapter, Deployed, Model, Pack, Pool, Slot, Tape, Target};
use prometheus_client::registry::Registry;
use rl::{PolicyVersion, TenantId, TokenId};
use serving::engine::{Config, Engine, EngineHandle, Event, Parts, Priority, Running, TokenStream};

use super::found::{Found, Mismatch, Setting};
use super::requests::{Plan, Request, name};
use crate::host::Loaded;

/// Prompt rows in a step: fewer than a tile of the products, some of them, many.
const CHUNKS: [usize; 3] = [5, 32, 128];
/// Requests computed at once: each alone, a few, a full batch.
const BATCHES: [usize; 3] = [1, 3, 16];
/// Rows that are computed with the plain instruction set, which takes a hundred times as long as the best: a few whole requests.
const PLAIN_ROWS: usize = 40;
/// Tokens of a reply that are computed with a narrower instruction set.
const NARROW: usize = 16;

/// Every number of threads with every size of a prompt's pieces, and all batch sizes with each.
pub(super) fn settings(threads: &[usize]) -> Vec<Setting> {
    let mut settings = Vec::with_capacity(threads.len() * CHUNKS.len());
    for (turn, &threads) in threads.iter().enumerate() {
        for (place, &prompt_rows) in CHUNKS.iter().enumerate() {
            settings.push(Setting {
                threads,
                prompt_rows,
                requests: BATCHES[(turn + place) % BATCHES.len()],
            });
        }
    }
    settings
}

/// What an engine of any setting may hold, at most.
pub(super) fn most() -> Config {
    Config {
        max_sequences: BATCHES.into_iter().max().unwrap_or(1),
        ..Config::default()
    }
}

/// Runs every setting.
///
/// # Errors
/// When the engine refuses a request or breaks, or answers with another adapter than it was asked for.
pub(super) fn check(
    loaded: &Loaded,
    plan: &Plan,
    settings: &[Setting],
    progress: &ProgressBar,
) -> anyhow::Result<Found> {
    let mut checking = Checking {
        plan,
        loaded: loaded.clone(),
        found: Found::default(),
        tape: Tape::new(),
        replies: HashMap::new(),
    };
    let mut threads_before = None;
    for setting in settings {
        let threads = setting.threads;
        let described = || {
            let Setting {
                prompt_rows,
                requests,
                ..
            } = setting;
            format!(
                "verify with {threads} threads, {prompt_rows} prompt rows a step and {requests} requests at once"
            )
        };
        if threads_before != Some(threads) {
            checking.use_threads(threads, Isa::best())?;
        }
        let asked = checking.setting(*setting).with_context(described)?;
        if threads_before != Some(threads) {
            checking.narrower(threads, &asked).with_context(described)?;
            threads_before = Some(threads);
        }
        progress.inc(1);
    }
    Ok(checking.found)
}

struct Checking<'a> {
    plan: &'a Plan,
    loaded: Loaded,
    found: Found,
    tape: Tape,
    /// Each request's first reply, by round and number.
    replies: HashMap<(&'static str, usize), Reply>,
}

/// A reply as the engine gave it.
#[derive(Clone, PartialEq, Debug, Default)]
struct Reply {
    tokens: Vec<TokenId>,
    logprobs: Vec<f32>,
    digest: String,
    reused: usize,
}

impl Checking<'_> {
    fn use_threads(&mut self, threads: usize, isa: Isa) -> anyhow::Result<()> {
        let pool = Pool::with_isa(threads, isa)
            .with_context(|| format!("start {threads} compute threads"))?;
        self.loaded.model = Arc::new(self.loaded.model.on(Arc::new(pool)));
        Ok(())
    }

    /// Both rounds under one setting. Gives the requests of the first and their replies.
    fn setting(&mut self, setting: Setting) -> anyhow::Result<Vec<(Request, Reply)>> {
        let engine = self.start(setting)?;
        let handle = engine.handle();
        let config = self.loaded.model.config().clone();
        let cold = self.plan.requests(&config, handle.card().context)?;
        let replies = self.round(setting, "cold", &handle, &cold)?;
        let asked = cold.iter().zip(&replies).enumerate();
        let warm: Vec<Request> = asked
            .map(|(index, (request, reply))| self.plan.next(&config, request, index, &reply.tokens))
            .collect();
        self.round(setting, "warm", &handle, &warm)?;
        engine.shutdown()?;
        Ok(cold.into_iter().zip(replies).collect())
    }

    fn start(&self, setting: Setting) -> anyhow::Result<Running> {
        let adapters = self.plan.weights.iter().enumerate();
        let adapters = adapters
            .map(|(index, (_, adapter))| {
                let slot = Slot::new(Deployed {
                    version: PolicyVersion::new(index as u64 + 1),
                    adapter: Some(Arc::clone(adapter)),
                });
                (name(index), Arc::new(slot))
            })
            .collect();
        let config = Config {
            prefill_rows: setting.prompt_rows,
            max_sequences: setting.requests,
            // All are asked at once and none may be turned away.
            max_waiting: usize::MAX,
            max_waiting_per_tenant: usize::MAX,
            max_wait: Duration::from_secs(u64::from(u32::MAX)),
            ..most()
        };
        let Loaded {
            name,
            model,
            tokenizer,
            template,
            workspace: _,
            aside: _,
        } = self.loaded.clone();
        let parts = Parts {
            name,
            model,
            tokenizer,
            template,
            adapters,
        };
        let registry = Arc::new(Mutex::new(Registry::default()));
        Ok(Engine::build(config, parts, &registry)?.start()?)
    }

    /// Asks everything at once, then compares each reply.
    fn round(
        &mut self,
        setting: Setting,
        cache: &'static str,
        handle: &EngineHandle,
        requests: &[Request],
    ) -> anyhow::Result<Vec<Reply>> {
        let tenant = TenantId::new("verify");
        let mut streams = Vec::with_capacity(requests.len());
        for request in requests {
            let permit = handle.reserve(Priority::User, &tenant)?;
            streams.push(permit.submit(request.job.clone()));
        }
        let mut replies = Vec::with_capacity(requests.len());
        for (index, (stream, request)) in streams.into_iter().zip(requests).enumerate() {
            let reply = read(stream).with_context(|| format!("sample reply {index}"))?;
            self.compare((setting, cache, index), request, &reply)
                .with_context(|| format!("compare reply {index}"))?;
            replies.push(reply);
        }
        Ok(replies)
    }

    /// Counts one reply's tokens under everything that was varied.
    fn compare(
        &mut self,
        (setting, cache, request): (Setting, &'static str, usize),
        asked: &Request,
        reply: &Reply,
    ) -> anyhow::Result<()> {
        let plan = self.plan;
        let (label, adapter) = match asked.adapter.map(|index| &plan.weights[index]) {
            Some((label, adapter)) => (label.as_str(), Some(&**adapter)),
            None => ("base", None),
        };
        let digest = adapter.map_or(String::new(), Adapter::digest);
        if reply.digest != digest {
            let used = &reply.digest;
            bail!("it was asked of {label} ({digest:?}), and says that {used:?} answered");
        }
        let trained = trained(
            &self.loaded.model,
            &mut self.tape,
            adapter,
            asked,
            &reply.tokens,
        )?;
        let sampling = &asked.job.sampling;
        let temperature = match sampling.top_p {
            1.0 => sampling.temperature.to_string(),
            top_p => format!("{}, top-p {top_p}", sampling.temperature),
        };
        let differ = unlike(&reply.logprobs, &trained);
        let variations = [
            ("threads", setting.threads.to_string()),
            ("prompt rows", setting.prompt_rows.to_string()),
            ("requests at once", setting.requests.to_string()),
            ("prefix cache", cache.to_owned()),
            ("weights", label.to_owned()),
            ("temperature", temperature),
        ];
        self.found.count(&variations, &differ);
        self.found.tokens += reply.tokens.len() as u64;
        self.found.reused += reply.reused as u64;
        for at in (0..differ.len()).filter(|at| differ[*at]) {
            self.found.show(Mismatch {
                setting,
                request,
                at,
                token: reply.tokens[at],
                served: reply.logprobs[at],
                trained: trained[at],
            });
        }
        match self.replies.get(&(cache, request)) {
            None => drop(self.replies.insert((cache, request), reply.clone())),
            Some(first) => {
                let differ = unlike(&reply.logprobs, &first.logprobs);
                let differ: Vec<bool> = (differ.into_iter().enumerate())
                    .map(|(at, differs)| differs || reply.tokens.get(at) != first.tokens.get(at))
                    .collect();
                let value = "under every other setting".to_owned();
                self.found.count(&[("the same again", value)], &differ);
            }
        }
        Ok(())
    }

    /// The beginnings of replies, trained on each narrower instruction set: of all of them, or with the plain one of those that there is time for.
    fn narrower(&mut self, threads: usize, asked: &[(Request, Reply)]) -> anyhow::Result<()> {
        if self.loaded.model.is_on_gpu() {
            return Ok(());
        }
        for &isa in Isa::available().iter().filter(|isa| **isa != Isa::best()) {
            self.use_threads(threads, isa)?;
            let mut room = match isa {
                Isa::Portable => PLAIN_ROWS,
                _ => usize::MAX,
            };
            for (request, reply) in asked {
                let length = reply.tokens.len().min(NARROW);
                let rows = request.job.prompt.len() + length.saturating_sub(1);
                let Some(rest) = room.checked_sub(rows) else {
                    continue;
                };
                room = rest;
                let adapter = request.adapter.map(|index| &*self.plan.weights[index].1);
                let tokens = &reply.tokens[..length];
                let model = &self.loaded.model;
                let trained = trained(model, &mut self.tape, adapter, request, tokens)?;
                let differ = unlike(&reply.logprobs[..length], &trained);
                let value = format!("{isa:?}").to_lowercase();
                self.found.count(&[("instruction set", value)], &differ);
            }
        }
        self.use_threads(threads, Isa::best())
    }
}

fn read(mut stream: TokenStream) -> anyhow::Result<Reply> {
    let mut reply = Reply::default();
    while let Some(event) = stream.blocking_next() {
        match event {
            Event::Started(started) => {
                reply.digest = started.adapter_digest.to_string();
                reply.reused = started.reused;
            }
            Event::Token(token) => {
                reply.tokens.push(token.id);
                reply.logprobs.push(token.logprob);
            }
            Event::Done { .. } => {}
            Event::Failed(refusal) => return Err(refusal.into()),
        }
    }
    Ok(reply)
}

/// The log-probs of a reply's tokens as training computes them.
fn trained(
    model: &Model,
    tape: &mut Tape,
    adapter: Option<&Adapter>,
    asked: &Request,
    reply: &[TokenId],
) -> anyhow::Result<Vec<f32>> {
    let prompt = &asked.job.prompt;
    let mut tokens = prompt.clone();
    // The last token is predicted, never fed.
    tokens.extend_from_slice(&reply[..reply.len().saturating_sub(1)]);
    let targets: Vec<Target> = (prompt.len() - 1..)
        .zip(reply)
        .map(|(row, &token)| Target { row, token })
        .collect();
    let temperature = asked.job.sampling.logprob_temperature();
    let mut pack = Pack::default();
    pack.push(&tokens, &targets)?;
    model
        .score_pack(tape, adapter, &pack, temperature)
        .context("compute the same tokens as training does")
}

/// Which of the numbers differ in any bit. A number that only one side has differs.
fn unlike(one: &[f32], other: &[f32]) -> Vec<bool> {
    let bits = |side: &[f32], at: usize| side.get(at).map(|number| number.to_bits());
    (0..one.len().max(other.len()))
        .map(|at| bits(one, at) != bits(other, at))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_compared_by_their_bits_and_missing_ones_differ() {
        let nan = f32::NAN;
        assert_eq!(
            unlike(&[0.0, nan, 1.0], &[-0.0, nan, 1.0]),
            [true, false, false]
        );
        let next = f32::from_bits((-2.5f32).to_bits() + 1);
        assert_eq!(unlike(&[-2.5], &[next, 1.0]), [true, true]);
    }

    #[test]
    fn every_number_of_threads_meets_every_chunk_and_every_batch() {
        let all = settings(&[1, 2, 4]);
        for threads in [1, 2, 4] {
            let of = |pick: fn(&Setting) -> usize| {
                let mine = all.iter().filter(|s| s.threads == threads);
                let mut values: Vec<usize> = mine.map(pick).collect();
                values.sort_unstable();
                values
            };
            assert_eq!(of(|s| s.prompt_rows), CHUNKS);
            assert_eq!(of(|s| s.requests), BATCHES);
        }
        for batch in BATCHES {
            let with = all.iter().filter(|s| s.requests == batch);
            let mut chunks: Vec<usize> = with.map(|s| s.prompt_rows).collect();
            chunks.sort_unstable();
            assert_eq!(chunks, CHUNKS, "{batch} requests at once");
        }
    }
}
