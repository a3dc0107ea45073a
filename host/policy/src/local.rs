//! The model called directly, one request after the other: the second implementation of [`rl::Policy`].
//!
//! For commands that need no server, and the plain reading of what the engine must compute. No queue, no batch, no shared
//! prefixes; the engine (`serving`) has those and gives the same bits. Start at [`Local::new`].

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use rl::{
    AdapterName, Completion, FinishReason, LEAST_TEMPERATURE, Message, PolicyCard, PolicyVersion,
    SampleRequest, SampledToken, Sampling, ScoreRequest, TokenFlow, TokenId, ToolSpec, Weights,
};

use crate::detokenize::Detokenizer;
use crate::sample::Sampler;
use crate::{
    Adapter, ChatTemplate, Deployed, Error, Kv, Logits, Model, Scratch, Segment, Slot, Special,
    Tokenizer,
};

/// Prompt rows that are computed at once: enough to fill the cores, small enough that activations stay small.
const PREFILL_ROWS: usize = 256;
/// Scored rows that are computed at once: each of them has a row of logits as wide as the vocabulary.
const SCORED_ROWS: usize = 64;

/// A model, its text, and the adapters that requests can ask for.
#[derive(Debug)]
pub struct Local {
    name: String,
    model: Arc<Model>,
    tokenizer: Arc<Tokenizer>,
    template: Arc<ChatTemplate>,
    adapters: BTreeMap<AdapterName, Arc<Slot>>,
    /// Buffers of the forward pass. Whoever holds them computes; the others wait.
    scratch: Mutex<Scratch>,
}

impl Local {
    /// A policy that knows the base weights only.
    pub fn new(
        name: &str,
        model: Arc<Model>,
        tokenizer: impl Into<Arc<Tokenizer>>,
        template: impl Into<Arc<ChatTemplate>>,
    ) -> Self {
        Self {
            name: name.into(),
            model,
            tokenizer: tokenizer.into(),
            template: template.into(),
            adapters: BTreeMap::new(),
            scratch: Mutex::new(Scratch::new()),
        }
    }

    /// The same with one more adapter; an equal name replaces it.
    #[must_use]
    pub fn with_adapter(mut self, name: AdapterName, slot: Arc<Slot>) -> Self {
        self.adapters.insert(name, slot);
        self
    }

    /// The ids of a text to go on from, with what this model puts before every text. Special tokens are recognised: for text
    /// that an operator wrote, not for data.
    ///
    /// # Errors
    /// [`Error::Tokenizer`].
    pub fn encode_prompt(&self, text: &str) -> crate::Result<Vec<TokenId>> {
        let mut ids = self.tokenizer.prefix().to_vec();
        ids.extend(self.tokenizer.encode(text, Special::Parse)?);
        Ok(ids)
    }

    /// The ids of a whole conversation, without the beginning of a further reply.
    ///
    /// # Errors
    /// Those of [`ChatTemplate::encode`].
    pub fn encode_transcript(
        &self,
        messages: &[Message],
        tools: &[ToolSpec],
    ) -> crate::Result<Vec<TokenId>> {
        self.template
            .encode(&self.tokenizer, messages, tools, false)
    }

    fn deployed(&self, weights: &Weights) -> rl::Result<Arc<Deployed>> {
        match weights {
            Weights::Base => Ok(Arc::new(Deployed::default())),
            Weights::Adapter(name) => match self.adapters.get(name) {
                Some(slot) => Ok(slot.load()),
                None => Err(refused(format!("there is no adapter {name}"))),
            },
        }
    }

    /// Appends a prompt without asking for logits.
    fn prefill(
        &self,
        scratch: &mut Scratch,
        kv: &mut Kv,
        adapter: Option<&Adapter>,
        tokens: &[TokenId],
    ) -> crate::Result<()> {
        for tokens in tokens.chunks(PREFILL_ROWS) {
            let logits = Logits::None;
            self.model.forward(
                scratch,
                &mut [Segment {
                    kv: &mut *kv,
                    tokens,
                    adapter,
                    logits,
                }],
            )?;
        }
        Ok(())
    }

    /// The log-probs of `continuation` after what is in the cache and then `last`. The cache grows.
    fn score_one(
        &self,
        scratch: &mut Scratch,
        kv: &mut Kv,
        adapter: Option<&Adapter>,
        (last, continuation): (TokenId, &[TokenId]),
        temperature: f32,
    ) -> crate::Result<Vec<f32>> {
        let mut logprobs = Vec::with_capacity(continuation.len());
        let mut before = last;
        let mut fed = Vec::with_capacity(SCORED_ROWS);
        for asked in continuation.chunks(SCORED_ROWS) {
            fed.clear();
            fed.push(before);
            fed.extend_from_slice(&asked[..asked.len() - 1]);
            before = asked[asked.len() - 1];
            let segment = Segment {
                kv: &mut *kv,
                tokens: &fed,
                adapter,
                logits: Logits::All,
            };
            self.model.forward(scratch, &mut [segment])?;
            for (row, token) in scratch.logits(0).zip(asked) {
                let vocab = row.len();
                let logit = row.get(*token as usize);
                let logit = *logit.ok_or(Error::Token {
                    token: *token,
                    vocab,
                })?;
                logprobs.push(self.model.normalizer(row, temperature)?.log_prob(logit));
            }
        }
        Ok(logprobs)
    }

    fn try_sample(
        &self,
        deployed: &Deployed,
        prompt: &[TokenId],
        sampling: &Sampling,
        on_token: &mut dyn FnMut(SampledToken) -> TokenFlow,
    ) -> crate::Result<Completion> {
        let config = self.model.config();
        let adapter = deployed.adapter.as_deref();
        let mut sampler = Sampler::new(sampling, 0, config.vocab_size)?;
        prompt.iter().for_each(|id| sampler.observe(*id));
        let mut scratch = self.scratch.lock();
        let mut kv = Kv::new(config);
        let (mut next, before) = match prompt.split_last() {
            Some((last, before)) => (*last, before),
            None => return Err(Error::EmptySequence),
        };
        self.prefill(&mut scratch, &mut kv, adapter, before)?;
        let mut reply = Reply::new(&self.tokenizer, &sampling.stop);
        let room = self.model.context().saturating_sub(prompt.len());
        let most = room.min(usize::try_from(sampling.max_tokens).unwrap_or(usize::MAX));
        while reply.tokens.len() < most {
            let tokens = &[next];
            let segment = Segment {
                kv: &mut kv,
                tokens,
                adapter,
                logits: Logits::Last,
            };
            self.model.forward(&mut scratch, &mut [segment])?;
            let Some(logits) = scratch.logits(0).next() else {
                break;
            };
            let position = kv.len() as u64;
            // No token is possible only when every logit is −∞ or not a number: broken weights, and a reply that ends.
            let Some(id) = sampler.draw(logits, position) else {
                break;
            };
            let normalizer = self
                .model
                .normalizer(logits, sampling.logprob_temperature())?;
            let token = SampledToken {
                id,
                logprob: normalizer.log_prob(logits[id as usize]),
            };
            sampler.observe(id);
            next = id;
            reply.push(&self.tokenizer, token, config.eos.contains(&id));
            if reply.finish == FinishReason::Stop {
                on_token(token);
                break;
            }
            if on_token(token) == TokenFlow::Stop {
                reply.finish = FinishReason::Cancelled;
                break;
            }
        }
        Ok(reply.into_completion(deployed))
    }
}

/// A reply in the making.
struct Reply {
    tokens: Vec<TokenId>,
    logprobs: Vec<f32>,
    text: String,
    words: Detokenizer,
    finish: FinishReason,
}

impl Reply {
    fn new(tokenizer: &Tokenizer, stop: &[String]) -> Self {
        Self {
            tokens: Vec::new(),
            logprobs: Vec::new(),
            text: String::new(),
            words: Detokenizer::new(tokenizer, stop),
            finish: FinishReason::Length,
        }
    }

    /// `ends`: whether this token ends every reply of the model; its text then is not part of it.
    fn push(&mut self, tokenizer: &Tokenizer, token: SampledToken, ends: bool) {
        self.tokens.push(token.id);
        self.logprobs.push(token.logprob);
        if !ends {
            self.text.push_str(&self.words.push(tokenizer, token.id));
        }
        if ends || self.words.stopped() {
            self.finish = FinishReason::Stop;
        }
    }

    fn into_completion(mut self, deployed: &Deployed) -> Completion {
        self.text.push_str(&self.words.finish());
        Completion {
            tokens: self.tokens,
            logprobs: self.logprobs,
            text: self.text,
            finish: self.finish,
            version: deployed.version,
            adapter_digest: deployed
                .adapter
                .as_ref()
                .map_or(String::new(), |a| a.digest()),
        }
    }
}

impl rl::Policy for Local {
    fn card(&self) -> PolicyCard {
        PolicyCard {
            model: self.name.clone(),
            context: self.model.context(),
            vocab_size: self.model.config().vocab_size,
        }
    }

    fn version(&self, weights: &Weights) -> rl::Result<PolicyVersion> {
        Ok(self.deployed(weights)?.version)
    }

    fn encode(
        &self,
        messages: &[Message],
        tools: &[ToolSpec],
        reply_prefix: &str,
    ) -> rl::Result<Vec<TokenId>> {
        let ids = self.template.encode(&self.tokenizer, messages, tools, true);
        let mut ids = ids.map_err(|error| at_seam(&error))?;
        ids.extend(self.encode_text(reply_prefix)?);
        Ok(ids)
    }

    fn encode_text(&self, text: &str) -> rl::Result<Vec<TokenId>> {
        self.tokenizer
            .encode(text, Special::Plain)
            .map_err(|error| at_seam(&error))
    }

    fn sample(
        &self,
        request: SampleRequest,
        on_token: &mut dyn FnMut(SampledToken) -> TokenFlow,
    ) -> rl::Result<Completion> {
        let SampleRequest {
            weights,
            prompt,
            sampling,
        } = request;
        let (length, context) = (prompt.len(), self.model.context());
        if length >= context {
            let why =
                format!("a prompt of {length} tokens leaves no room in a context of {context}");
            return Err(refused(why));
        }
        let deployed = self.deployed(&weights)?;
        self.try_sample(&deployed, &prompt, &sampling, on_token)
            .map_err(|error| at_seam(&error))
    }

    fn score(&self, request: ScoreRequest) -> rl::Result<Vec<Vec<f32>>> {
        let ScoreRequest {
            weights,
            prompt,
            continuations,
            temperature,
        } = request;
        if !(temperature.is_finite() && temperature >= LEAST_TEMPERATURE) {
            return Err(refused(format!(
                "temperature is {temperature}, below {LEAST_TEMPERATURE}"
            )));
        }
        let Some((last, before)) = prompt.split_last() else {
            return Err(refused("the prompt holds no token".into()));
        };
        let deployed = self.deployed(&weights)?;
        let adapter = deployed.adapter.as_deref();
        let mut scratch = self.scratch.lock();
        let mut kv = Kv::new(self.model.config());
        let mut score = || -> crate::Result<Vec<Vec<f32>>> {
            self.prefill(&mut scratch, &mut kv, adapter, before)?;
            let mut all = Vec::with_capacity(continuations.len());
            for continuation in &continuations {
                let asked = (*last, continuation.as_slice());
                all.push(self.score_one(&mut scratch, &mut kv, adapter, asked, temperature)?);
                kv.truncate(before.len())?;
            }
            Ok(all)
        };
        score().map_err(|error| at_seam(&error))
    }
}

fn refused(why: String) -> rl::Error {
    rl::Error::Refused {
        what: "the policy".into(),
        why,
    }
}

/// A refusal of the request, unless the library or an op failed.
fn at_seam(error: &Error) -> rl::Error {
    let mut why = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(source) = cause {
        why.push_str(": ");
        why.push_str(&source.to_string());
        cause = source.source();
    }
    let what = "the policy".to_owned();
    match error {
        Error::Tokenizer { .. } | Error::Compute(_) => rl::Error::Failed { what, why },
        _ => rl::Error::Refused { what, why },
    }
}
