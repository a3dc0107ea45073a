//! The policy as a user of an environment meets it: messages in, a reply out.

use serde::{Deserialize, Serialize};

use crate::{Message, PolicyVersion, Result, Sampling, SessionId, ToolSpec, TurnId};

/// What an agent is asked.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct AgentRequest {
    /// The conversation's id.
    pub session: SessionId,
    /// The whole conversation.
    pub messages: Vec<Message>,
    /// The tools of the environment.
    pub tools: Vec<ToolSpec>,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// The conversation ends with this reply.
    pub session_done: bool,
}

/// Its reply.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct AgentReply {
    /// The turn's id.
    pub turn: TurnId,
    /// The reply.
    pub message: Message,
    /// Whether it was cut by the token limit.
    pub truncated: bool,
    /// The version that served it.
    pub version: PolicyVersion,
    /// Tokens of the reply.
    pub tokens: u32,
}

/// The policy as a user meets it.
pub trait Agent: Send + Sync {
    /// Replies; the turn is durable when this returns.
    ///
    /// # Errors
    /// Whatever serving the turn ran into.
    fn reply(&self, request: AgentRequest) -> Result<AgentReply>;
}
