//! Messages of a conversation, in the shape that chat templates and the OpenAI API share.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Who speaks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions of the application (`developer` messages count as system).
    System,
    /// The person, or a scripted one.
    User,
    /// The policy.
    Assistant,
    /// The result of a tool call.
    Tool,
}

impl Role {
    /// The word that templates and the API use.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
        }
    }
}

/// A function call that the policy asked for.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct ToolCall {
    /// The id that the tool's result refers to.
    pub id: String,
    /// The function's name.
    pub name: String,
    /// The arguments: JSON text, exactly as the model wrote it.
    pub arguments: String,
}

/// A function that the policy may call.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct ToolSpec {
    /// The function's name.
    pub name: String,
    /// What it does.
    pub description: String,
    /// JSON Schema of the arguments, as text.
    pub parameters: String,
}

/// One message.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// The text; parts are joined by the gateway. Untrusted unless the host wrote it.
    #[serde(default)]
    pub content: String,
    /// Reasoning that the model wrote before its answer, when the client sends it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
    /// Calls that an assistant message asks for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// The call that a tool message answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// The speaker's or the tool's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl Message {
    /// A message with only text.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self {
            role,
            content: content.into(),
            reasoning: None,
            tool_calls: Vec::new(),
            tool_call_id: None,
            name: None,
        }
    }

    /// A user's message.
    pub fn user(content: impl Into<String>) -> Self {
        Self::new(Role::User, content)
    }

    /// A reply of the policy.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new(Role::Assistant, content)
    }

    /// A system message.
    pub fn system(content: impl Into<String>) -> Self {
        Self::new(Role::System, content)
    }

    /// A hash by which a reply is recognised when a client sends it back as history.
    ///
    /// Covers role, text with the white space at both ends left out (clients trim), and the calls' names and
    /// arguments. Leaves out reasoning (clients drop it), call ids and names (clients rewrite them).
    pub fn content_hash(&self) -> String {
        let mut hash = Sha256::new();
        let mut field = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        field(self.role.as_str().as_bytes());
        field(self.content.trim().as_bytes());
        for call in &self.tool_calls {
            field(call.name.as_bytes());
            field(call.arguments.trim().as_bytes());
        }
        hex::encode(hash.finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_recognised_after_a_client_trimmed_it_and_dropped_its_reasoning() {
        let mut served = Message::assistant("Hello there.\n");
        served.reasoning = Some("thinking".into());
        assert_eq!(
            served.content_hash(),
            Message::assistant("Hello there.").content_hash()
        );
        assert_ne!(
            served.content_hash(),
            Message::user("Hello there.").content_hash()
        );
        assert_ne!(
            served.content_hash(),
            Message::assistant("Hello there!").content_hash()
        );
    }
}
