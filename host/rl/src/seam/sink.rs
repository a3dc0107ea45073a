//! Where the gateway hands every turn: it is acknowledged only when the sink says that it is durable.

use std::future::Future;
use std::pin::Pin;

use serde::{Deserialize, Serialize};

use crate::{
    AdapterName, FinishReason, Message, PolicyVersion, Rating, Result, Sampling, SessionId,
    TenantId, TokenId, ToolSpec, TurnId, TurnKind,
};

/// A boxed future, so that the seam needs no async runtime.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A request for a turn, before anything is computed.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TurnRequest {
    /// Whose it is.
    pub tenant: TenantId,
    /// The API key's public name; part of a derived session id.
    pub key: String,
    /// The adapter that was asked for; none for the base weights.
    pub adapter: Option<AdapterName>,
    /// Session id from the header, a body field or `prompt_cache_key`, in this order.
    pub session: Option<SessionId>,
    /// The person behind the request, as the client names them (`user`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// `x-turn-type`, when it was sent.
    pub kind: Option<TurnKind>,
    /// `x-session-done`: the session ends with this turn.
    pub session_done: bool,
    /// The request's messages.
    pub messages: Vec<Message>,
    /// The tools offered.
    pub tools: Vec<ToolSpec>,
}

/// A turn that has begun.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Ticket {
    /// The turn's id, which is also the reply's id.
    pub turn: TurnId,
    /// The session it was found to belong to.
    pub session: SessionId,
    /// Main, side or undecided.
    pub kind: TurnKind,
    /// The turn that it continues.
    pub parent: Option<TurnId>,
}

/// A turn as it was served.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Served {
    /// The version that served it.
    pub version: PolicyVersion,
    /// The digest of the adapter used; empty for the base weights.
    pub adapter_digest: String,
    /// The prompt's ids.
    pub prompt: Vec<TokenId>,
    /// The sampled ids.
    pub response: Vec<TokenId>,
    /// Behaviour log-probs.
    pub logprobs: Vec<f32>,
    /// How tokens were drawn.
    pub sampling: Sampling,
    /// The reply as the client saw it.
    pub reply: Message,
    /// Why it ended.
    pub finish: FinishReason,
}

/// A person's explicit judgement of a reply.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Feedback {
    /// Whose it is: feedback on another tenant's turn is refused as unknown.
    pub tenant: TenantId,
    /// The reply's id.
    pub turn: TurnId,
    /// 👍 or 👎.
    pub rating: Option<Rating>,
    /// How it should have been different: used as a hint.
    pub correction: Option<String>,
}

/// Where turns go.
pub trait TurnSink: Send + Sync {
    /// Finds the session, closes the turns that this request continues, classifies. Durable when it returns.
    fn begin(&self, request: TurnRequest) -> BoxFuture<'_, Result<Ticket>>;

    /// Records a served turn. Durable when it returns: only then is the reply acknowledged.
    fn finish(&self, ticket: Ticket, served: Served) -> BoxFuture<'_, Result<()>>;

    /// Records explicit feedback. Durable when it returns.
    fn feedback(&self, feedback: Feedback) -> BoxFuture<'_, Result<()>>;
}
