//! The model that acts, as the loops see it: sample with log-probs, score given tokens, a version number.

use serde::{Deserialize, Serialize};

use crate::{AdapterName, Message, PolicyVersion, Result, Sampling, TokenId, ToolSpec};

/// Which weights answer.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weights {
    /// The base model with every adapter off: the judge, and the reference of the KL.
    Base,
    /// The newest version of this adapter.
    Adapter(AdapterName),
}

/// What a policy is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PolicyCard {
    /// The base model's name.
    pub model: String,
    /// Most tokens of prompt and reply together.
    pub context: usize,
    /// Size of the vocabulary.
    pub vocab_size: usize,
}

/// Why a completion ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FinishReason {
    /// The stop token was sampled, or a stop text was reached.
    Stop,
    /// `max_tokens` or the context was used up.
    Length,
    /// The reply asks for tool calls.
    ToolCalls,
    /// The caller went away.
    Cancelled,
}

/// A request for tokens.
#[derive(Clone, PartialEq, Debug)]
pub struct SampleRequest {
    /// Which weights.
    pub weights: Weights,
    /// The prompt's ids.
    pub prompt: Vec<TokenId>,
    /// How tokens are drawn.
    pub sampling: Sampling,
}

/// One sampled token.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct SampledToken {
    /// Its id.
    pub id: TokenId,
    /// Its log-prob at the sampling temperature, before truncation.
    pub logprob: f32,
}

/// Whether the caller still wants tokens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TokenFlow {
    /// Go on.
    Continue,
    /// Stop computing: the caller went away.
    Stop,
}

/// A finished sample.
#[derive(Clone, PartialEq, Debug)]
pub struct Completion {
    /// The sampled ids, the stop token included if it was sampled.
    pub tokens: Vec<TokenId>,
    /// One for each id, bit for bit what the trainer recomputes.
    pub logprobs: Vec<f32>,
    /// The text: special tokens left out, cut at a stop text.
    pub text: String,
    /// Why it ended.
    pub finish: FinishReason,
    /// The version that sampled it.
    pub version: PolicyVersion,
    /// The digest of the adapter used; empty for the base weights.
    pub adapter_digest: String,
}

/// A request for the log-probs of given tokens.
#[derive(Clone, PartialEq, Debug)]
pub struct ScoreRequest {
    /// Which weights.
    pub weights: Weights,
    /// Comes before every continuation; at least one token.
    pub prompt: Vec<TokenId>,
    /// Each is scored after the prompt, independently; the prompt is computed once.
    pub continuations: Vec<Vec<TokenId>>,
    /// Divides the logits; above 0.
    pub temperature: f32,
}

/// The model that acts.
///
/// A row's numbers do not depend on what else the implementation computes at the same time.
pub trait Policy: Send + Sync {
    /// What it is.
    fn card(&self) -> PolicyCard;

    /// The newest version of these weights that new requests get.
    ///
    /// # Errors
    /// [`crate::Error::Refused`] for an adapter that is not there.
    fn version(&self, weights: &Weights) -> Result<PolicyVersion>;

    /// Renders a conversation with the model's chat template, ready for a reply that begins with
    /// `reply_prefix`. Message texts are data: they never become special tokens.
    ///
    /// # Errors
    /// [`crate::Error::Refused`] when the template refuses the messages.
    fn encode(
        &self,
        messages: &[Message],
        tools: &[ToolSpec],
        reply_prefix: &str,
    ) -> Result<Vec<TokenId>>;

    /// The ids of a text, special tokens disabled.
    ///
    /// # Errors
    /// [`crate::Error::Failed`] from the tokenizer.
    fn encode_text(&self, text: &str) -> Result<Vec<TokenId>>;

    /// Samples; blocks until the reply is complete. `on_token` sees every token as it is drawn.
    ///
    /// # Errors
    /// [`crate::Error::Refused`] when the prompt does not fit, [`crate::Error::Unavailable`] when the queue is full.
    fn sample(
        &self,
        request: SampleRequest,
        on_token: &mut dyn FnMut(SampledToken) -> TokenFlow,
    ) -> Result<Completion>;

    /// Log-probs of given tokens: one list for each continuation, one number for each of its tokens, the
    /// first included.
    ///
    /// # Errors
    /// As [`Policy::sample`].
    fn score(&self, request: ScoreRequest) -> Result<Vec<Vec<f32>>>;
}
