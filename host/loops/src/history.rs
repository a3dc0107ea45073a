//! What a history is recognised by: which of its messages count, and their hashes. Pure text; no sessions here.

use rl::{Message, Role};
use sha2::{Digest as _, Sha256};

/// Blocks that an agent adds to a request for the model only, and that are gone from the next one.
const SYNTHETIC: [(&str, &str); 1] = [(
    "<<<BEGIN_OPENCLAW_INTERNAL_CONTEXT>>>",
    "<<<END_OPENCLAW_INTERNAL_CONTEXT>>>",
)];

/// The messages that a history is recognised by: without system prompts (agents re-render them) and without what an agent
/// adds for one request only.
pub(crate) fn visible(messages: &[Message]) -> Vec<Message> {
    messages
        .iter()
        .filter(|message| message.role != Role::System)
        .filter_map(|message| {
            let content = strip(&message.content);
            let emptied = content.trim().is_empty() && !message.content.trim().is_empty();
            let mut message = message.clone();
            message.content = content;
            (!emptied).then_some(message)
        })
        .collect()
}

/// The text without its synthetic blocks. A block without an end goes on to the end of the text.
pub(crate) fn strip(text: &str) -> String {
    let mut text = text.to_owned();
    for (begin, end) in SYNTHETIC {
        while let Some(from) = text.find(begin) {
            let after = from + begin.len();
            let to = text[after..]
                .find(end)
                .map_or(text.len(), |at| after + at + end.len());
            text.replace_range(from..to, "");
        }
    }
    text
}

/// [`Message::content_hash`], with tool arguments read as JSON: clients write them with other spaces and orders.
pub(crate) fn hash(message: &Message) -> u128 {
    let mut message = message.clone();
    for call in &mut message.tool_calls {
        if let Ok(value) = serde_json::from_str::<serde_json::Value>(&call.arguments) {
            call.arguments = canonical(&value);
        }
    }
    let text = message.content_hash();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&Sha256::digest(text.as_bytes())[..16]);
    u128::from_le_bytes(bytes)
}

fn canonical(value: &serde_json::Value) -> String {
    use serde_json::Value;
    match value {
        Value::Object(map) => {
            let mut fields: Vec<_> = map
                .iter()
                .map(|(key, value)| format!("{key:?}:{}", canonical(value)))
                .collect();
            fields.sort();
            format!("{{{}}}", fields.join(","))
        }
        Value::Array(items) => {
            format!(
                "[{}]",
                items.iter().map(canonical).collect::<Vec<_>>().join(",")
            )
        }
        plain => plain.to_string(),
    }
}
