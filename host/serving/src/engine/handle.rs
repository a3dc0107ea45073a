//! How the rest of the host reaches the engine: streams for the gateway, blocking calls for the loops.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use policy::toolcalls::ToolFormat;
use policy::{Deployed, NO_BUCKET, Slot, Special};
use rl::{
    AdapterName, Completion, FinishReason, Message, Policy, PolicyCard, PolicyVersion,
    SampleRequest, SampledToken, ScoreRequest, TenantId, TokenFlow, TokenId, ToolSpec, Weights,
};
use tokio::sync::{mpsc, oneshot};

use super::job::{Event, Priority, Refusal, SampleJob};
use super::queue::{Permit, Queue, Work};
use super::sequence::Loaded;
use super::text::{Text, refused};
use crate::metrics::EngineMetrics;

/// The tenant of the loops' own work. Users' prompts are never reused for it, nor the other way round.
const LOOPS: &str = "(loops)";

/// What the engine's thread and its handles share.
pub(crate) struct Inner {
    pub(crate) queue: Arc<Queue>,
    pub(crate) text: Text,
    /// Bytes of its longest token.
    pub(crate) longest_token: usize,
    pub(crate) card: PolicyCard,
    pub(crate) adapters: BTreeMap<AdapterName, Arc<Slot>>,
    pub(crate) metrics: EngineMetrics,
}

impl Inner {
    /// What a session of this bucket gets of these weights.
    pub(crate) fn find(&self, weights: &Weights, bucket: u64) -> Result<Arc<Deployed>, Refusal> {
        let Weights::Adapter(name) = weights else {
            return Ok(Arc::default());
        };
        match self.adapters.get(name) {
            Some(slot) => Ok(slot.load_for(bucket)),
            None => Err(Refusal::UnknownAdapter { name: name.clone() }),
        }
    }

    /// The digests of all weights that a request can get now.
    pub(crate) fn digests(&self) -> Vec<Arc<str>> {
        let tried = |slot: &Slot| slot.trial().and_then(|(version, _)| slot.recent(version));
        let slots = self.adapters.values();
        let deployed = slots.flat_map(|slot| [Some(slot.load()), tried(slot)]);
        let adapters = deployed.flatten().filter_map(|d| d.adapter.clone());
        let digests = adapters.map(|adapter| adapter.digest().into());
        digests.chain(["".into()]).collect()
    }
}

/// A running engine, for those who ask it. Cheap to clone.
#[derive(Clone)]
pub struct EngineHandle {
    pub(crate) inner: Arc<Inner>,
}

impl fmt::Debug for EngineHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineHandle")
            .field("card", &self.inner.card)
            .finish_non_exhaustive()
    }
}

/// What the engine did so far and holds now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct Stats {
    /// Forward passes.
    pub steps: u64,
    /// Token rows computed.
    pub rows: u64,
    /// Prompt tokens of admitted requests.
    pub prompt_tokens: u64,
    /// Those whose keys and values were copied instead of computed.
    pub reused_tokens: u64,
    /// Tokens sampled.
    pub sampled_tokens: u64,
    /// Given tokens scored.
    pub scored_tokens: u64,
    /// Requests dropped because their caller went away.
    pub cancelled: u64,
    /// Requests that wait.
    pub waiting: usize,
    /// Sequences being computed.
    pub live: i64,
    /// Key and value bytes reserved by them.
    pub kv_bytes: i64,
    /// Key and value bytes kept for reuse.
    pub prefix_bytes: i64,
}

/// The events of one sample job. Dropping it makes the engine stop computing.
#[derive(Debug)]
pub struct TokenStream {
    events: mpsc::UnboundedReceiver<Event>,
    queue: Arc<Queue>,
    ended: bool,
}

impl TokenStream {
    /// The next event; none after [`Event::Done`] or [`Event::Failed`].
    pub async fn next(&mut self) -> Option<Event> {
        let event = self.events.recv().await;
        self.seen(event)
    }

    /// As [`TokenStream::next`], for threads.
    ///
    /// # Panics
    /// When called from an asynchronous task.
    pub fn blocking_next(&mut self) -> Option<Event> {
        let event = self.events.blocking_recv();
        self.seen(event)
    }

    fn seen(&mut self, event: Option<Event>) -> Option<Event> {
        if self.ended {
            return None;
        }
        // The sender is only dropped without a last event when the engine's thread broke.
        let event = event.unwrap_or_else(|| {
            Event::Failed(Refusal::Stopped {
                why: self.queue.why_closed(),
            })
        });
        self.ended = matches!(event, Event::Done { .. } | Event::Failed(_));
        Some(event)
    }
}

impl Permit {
    /// Puts the job into the queue.
    pub fn submit(self, job: SampleJob) -> TokenStream {
        let (sender, events) = mpsc::unbounded_channel();
        let queue = Arc::clone(self.queue());
        self.enqueue(Work::Sample {
            job,
            events: sender,
        });
        TokenStream {
            events,
            queue,
            ended: false,
        }
    }
}

impl EngineHandle {
    /// What the policy is. Its context is what this engine can hold, which may be less than the model's.
    pub fn card(&self) -> &PolicyCard {
        &self.inner.card
    }

    /// The adapters that requests can ask for.
    pub fn adapters(&self) -> impl Iterator<Item = &AdapterName> {
        self.inner.adapters.keys()
    }

    /// The version and digest that new requests get.
    ///
    /// # Errors
    /// [`Refusal::UnknownAdapter`].
    pub fn deployed(&self, weights: &Weights) -> Result<(PolicyVersion, Arc<str>), Refusal> {
        let found = self.inner.find(weights, NO_BUCKET)?;
        let Loaded {
            version, digest, ..
        } = Loaded::from(&*found);
        Ok((version, digest))
    }

    /// Most tokens that a reply to a prompt of this length can have.
    ///
    /// # Errors
    /// [`Refusal::PromptTooLong`] when there is no room for any; [`Refusal::Invalid`] for an empty prompt.
    pub fn room_for(&self, prompt: usize) -> Result<u32, Refusal> {
        let context = self.inner.card.context;
        if prompt == 0 {
            return Err(Refusal::Invalid {
                why: "the prompt holds no token".into(),
            });
        }
        match context.checked_sub(prompt) {
            None | Some(0) => Err(Refusal::PromptTooLong { prompt, context }),
            Some(room) => Ok(u32::try_from(room).unwrap_or(u32::MAX)),
        }
    }

    /// Fewer tokens than a text of so many bytes can have, without looking at it: each is the longest there is, of characters that
    /// normalizing makes a quarter as long.
    pub fn least_tokens(&self, bytes: usize) -> usize {
        bytes / (4 * self.inner.longest_token)
    }

    /// Reserves a place in the queue, before anything about a request is recorded.
    ///
    /// # Errors
    /// [`Refusal::QueueFull`], [`Refusal::TenantFull`], [`Refusal::Draining`], [`Refusal::Stopped`].
    pub fn reserve(&self, priority: Priority, tenant: &TenantId) -> Result<Permit, Refusal> {
        self.inner.queue.reserve(priority, tenant)
    }

    /// Renders a conversation ready for a reply that begins with `reply_prefix`, which the host vouches for.
    ///
    /// # Errors
    /// When the template refuses the messages; [`policy::Error::PromptTooLong`].
    pub fn encode_chat(
        &self,
        messages: &[Message],
        tools: &[ToolSpec],
        reply_prefix: &str,
    ) -> policy::Result<Vec<TokenId>> {
        self.inner
            .text
            .encode(messages, tools, reply_prefix, Special::Parse)
    }

    /// The bytes of a token; not always UTF-8 by themselves.
    pub fn token_bytes(&self, id: TokenId) -> Vec<u8> {
        self.inner.text.tokenizer.token_bytes(id).to_vec()
    }

    /// How this model writes tool calls.
    pub fn tool_format(&self) -> ToolFormat {
        ToolFormat::of(&self.inner.text.template)
    }

    /// Counts so far.
    pub fn stats(&self) -> Stats {
        let m = &self.inner.metrics;
        Stats {
            steps: m.steps.get(),
            rows: m.rows.get(),
            prompt_tokens: m.prompt_tokens.get(),
            reused_tokens: m.reused_tokens.get(),
            sampled_tokens: m.sampled_tokens.get(),
            scored_tokens: m.scored_tokens.get(),
            cancelled: m.cancelled.get(),
            waiting: self.inner.queue.waiting(),
            live: m.live.get(),
            kv_bytes: m.kv_bytes.get(),
            prefix_bytes: m.prefix_bytes.get(),
        }
    }

    /// Throws away every key and value that is kept for prompts that begin alike: for an erasure. No request that is made
    /// after this returns reuses anything computed before; an idle engine gives the memory back at once, a busy one before
    /// its next step. What is being computed right now ends as usual and is not kept.
    pub fn forget_prefixes(&self) {
        self.inner.queue.forget();
    }

    fn loop_permit(&self) -> rl::Result<Permit> {
        Ok(self.reserve(Priority::Loop, &TenantId::new(LOOPS))?)
    }
}

impl Policy for EngineHandle {
    fn card(&self) -> PolicyCard {
        self.inner.card.clone()
    }

    fn version(&self, weights: &Weights) -> rl::Result<PolicyVersion> {
        Ok(self.deployed(weights)?.0)
    }

    fn encode(
        &self,
        messages: &[Message],
        tools: &[ToolSpec],
        reply_prefix: &str,
    ) -> rl::Result<Vec<TokenId>> {
        // The prefix is a plugin's: whatever it looks like, it is text.
        self.inner
            .text
            .encode(messages, tools, reply_prefix, Special::Plain)
            .map_err(refused)
    }

    fn encode_text(&self, text: &str) -> rl::Result<Vec<TokenId>> {
        self.inner.text.plain(text).map_err(refused)
    }

    fn sample(
        &self,
        request: SampleRequest,
        on_token: &mut dyn FnMut(SampledToken) -> TokenFlow,
    ) -> rl::Result<Completion> {
        let SampleRequest {
            weights,
            prompt,
            mut sampling,
        } = request;
        sampling.max_tokens = sampling.max_tokens.min(self.room_for(prompt.len())?);
        let job = SampleJob {
            weights,
            bucket: NO_BUCKET,
            prompt,
            sampling,
            top_logprobs: 0,
        };
        let mut stream = self.loop_permit()?.submit(job);
        let mut done = Completion {
            tokens: Vec::new(),
            logprobs: Vec::new(),
            text: String::new(),
            finish: FinishReason::Cancelled,
            version: PolicyVersion::BASE,
            adapter_digest: String::new(),
        };
        while let Some(event) = stream.blocking_next() {
            match event {
                Event::Started(started) => {
                    done.version = started.version;
                    done.adapter_digest = started.adapter_digest.to_string();
                }
                Event::Token(token) => {
                    done.tokens.push(token.id);
                    done.logprobs.push(token.logprob);
                    done.text.push_str(&token.text);
                    let seen = SampledToken {
                        id: token.id,
                        logprob: token.logprob,
                    };
                    if on_token(seen) == TokenFlow::Stop {
                        break;
                    }
                }
                Event::Done { finish, text } => {
                    done.text.push_str(&text);
                    done.finish = finish;
                }
                Event::Failed(refusal) => return Err(refusal.into()),
            }
        }
        Ok(done)
    }

    fn score(&self, request: ScoreRequest) -> rl::Result<Vec<Vec<f32>>> {
        let permit = self.loop_permit()?;
        let (sender, answer) = oneshot::channel();
        permit.enqueue(Work::Score {
            request,
            answer: sender,
        });
        let answered = answer.blocking_recv();
        let stopped = || Refusal::Stopped {
            why: self.inner.queue.why_closed(),
        };
        Ok(answered.map_err(|_| stopped()).and_then(|answer| answer)?)
    }
}
