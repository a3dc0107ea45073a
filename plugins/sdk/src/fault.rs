//! Small helpers around messages and faults, so that a plugin reads well.

use crate::{Fault, Message, NamedValue, Role};

impl Fault {
    /// The author's words, whatever the case.
    pub fn text(&self) -> &str {
        match self {
            Fault::Unsupported(text)
            | Fault::InvalidInput(text)
            | Fault::InvalidConfig(text)
            | Fault::Internal(text) => text,
        }
    }
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
}

impl NamedValue {
    /// A number under a name.
    pub fn new(name: impl Into<String>, value: f64) -> Self {
        Self {
            name: name.into(),
            value,
        }
    }
}
