//! Conversations to token ids, with a fall-back for models whose template knows no tools.
//!
//! Message texts are data and never become special tokens. Does not parse replies ([`policy::toolcalls`] does).

use std::sync::Arc;

use policy::{ChatTemplate, PromptSize, Special, Tokenizer};
use rl::{Message, Role, TokenId, ToolSpec};

/// Most bytes of a prompt's text for each token of the context: three times what languages and code have. Only pages of spaces have more.
const TEXT: usize = 16;
/// What making tokens of a prompt takes (`tests/prompts.rs`): for each byte of its text, for each of its tokens, and to see whether it is too
/// long.
const FOR_BYTE: usize = 120;
const FOR_TOKEN: usize = 300;
const FOR_LOOK: usize = 12 << 20;

/// How long a prompt is made tokens of. One that is up to half as long again as the context is told its length.
pub fn longest_prompt(context: usize) -> PromptSize {
    PromptSize {
        bytes: context * TEXT,
        tokens: context + context / 2,
    }
}

/// Most bytes that making tokens of a prompt takes.
pub fn prompt_bytes(context: usize) -> usize {
    let most = longest_prompt(context);
    FOR_LOOK.max(most.bytes * FOR_BYTE + 2 * most.tokens * FOR_TOKEN)
}

/// The tokenizer and the chat template of a model.
#[derive(Debug, Clone)]
pub(crate) struct Text {
    pub(crate) tokenizer: Arc<Tokenizer>,
    pub(crate) template: Arc<ChatTemplate>,
    /// How long a prompt may be.
    pub(crate) most: PromptSize,
}

impl Text {
    /// The ids of a conversation that ends where a reply begins with `reply_prefix`. `special` says whether the host
    /// vouches for the prefix.
    pub(crate) fn encode(
        &self,
        messages: &[Message],
        tools: &[ToolSpec],
        reply_prefix: &str,
        special: Special,
    ) -> policy::Result<Vec<TokenId>> {
        let has_tools = !tools.is_empty()
            || messages
                .iter()
                .any(|m| m.role == Role::Tool || !m.tool_calls.is_empty());
        let encode = |messages: &[Message], tools: &[ToolSpec]| {
            let (template, tokenizer) = (&self.template, &self.tokenizer);
            template.encode_within(tokenizer, messages, tools, true, self.most)
        };
        let mut ids = if has_tools && !self.template.supports_tools() {
            encode(&with_tools_in_words(messages, tools), &[])
        } else {
            encode(messages, tools)
        }?;
        if !reply_prefix.is_empty() {
            ids.extend(self.tokenizer.encode(reply_prefix, special)?);
        }
        Ok(ids)
    }
}

/// The template said no to these messages, or they are too long.
pub(crate) fn refused(error: policy::Error) -> rl::Error {
    if matches!(error, policy::Error::Tokenizer { .. }) {
        return failed(error);
    }
    rl::Error::Refused {
        what: "the chat template".into(),
        why: with_causes(&error),
    }
}

pub(crate) fn failed(error: policy::Error) -> rl::Error {
    rl::Error::Failed {
        what: "the tokenizer".into(),
        why: with_causes(&error),
    }
}

/// An error and everything beneath it, on one line.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// The Hermes convention in plain messages: definitions in the system message, calls in the assistant's text, results
/// in a user message.
fn with_tools_in_words(messages: &[Message], tools: &[ToolSpec]) -> Vec<Message> {
    let mut out: Vec<Message> = Vec::with_capacity(messages.len() + 1);
    let instructions = instructions(tools);
    let mut rest = messages;
    if !instructions.is_empty() {
        let mut system = instructions;
        if let Some((first, others)) = messages
            .split_first()
            .filter(|(m, _)| m.role == Role::System)
        {
            system = format!("{}\n\n{system}", first.content);
            rest = others;
        }
        out.push(Message::system(system));
    }
    for message in rest {
        match message.role {
            Role::Assistant if !message.tool_calls.is_empty() => {
                let mut content = message.content.clone();
                for call in &message.tool_calls {
                    if !content.is_empty() {
                        content.push('\n');
                    }
                    let name = serde_json::Value::from(call.name.as_str());
                    content.push_str("<tool_call>\n{\"name\": ");
                    content.push_str(&name.to_string());
                    content.push_str(", \"arguments\": ");
                    content.push_str(&call.arguments);
                    content.push_str("}\n</tool_call>");
                }
                out.push(Message::assistant(content));
            }
            Role::Tool => {
                let result = format!("<tool_response>\n{}\n</tool_response>", message.content);
                match out.last_mut() {
                    // Results of parallel calls are one turn of the user.
                    Some(last)
                        if last.role == Role::User
                            && last.content.starts_with("<tool_response>") =>
                    {
                        last.content.push('\n');
                        last.content.push_str(&result);
                    }
                    _ => out.push(Message::user(result)),
                }
            }
            _ => out.push(message.clone()),
        }
    }
    out
}

fn instructions(tools: &[ToolSpec]) -> String {
    if tools.is_empty() {
        return String::new();
    }
    let mut text =
        "You may call functions to help the user. Their signatures are:\n<tools>\n".to_owned();
    for tool in tools {
        let parameters: serde_json::Value =
            serde_json::from_str(&tool.parameters).unwrap_or_else(|_| serde_json::json!({}));
        let function = serde_json::json!({
            "type": "function",
            "function": {
                "name": tool.name, "description": tool.description, "parameters": parameters,
            },
        });
        text.push_str(&function.to_string());
        text.push('\n');
    }
    text.push_str(
        "</tools>\n\nTo call one, write its name and arguments as JSON:\n<tool_call>\n\
         {\"name\": <function name>, \"arguments\": <object>}\n</tool_call>",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use rl::ToolCall;

    #[test]
    fn a_template_without_tools_still_shows_definitions_calls_and_all_results() {
        let tool = ToolSpec {
            name: "weather".into(),
            description: "Tells the weather".into(),
            parameters: r#"{"type":"object"}"#.into(),
        };
        let mut call = Message::assistant("");
        call.tool_calls.push(ToolCall {
            id: "1".into(),
            name: "weather".into(),
            arguments: r#"{"city": "Oslo"}"#.into(),
        });
        let result = |text: &str| Message::new(Role::Tool, text);
        let messages = [
            Message::system("Be brief."),
            Message::user("Weather?"),
            call,
            result("rain"),
            result("wind"),
        ];
        let seen = with_tools_in_words(&messages, &[tool]);
        let roles: Vec<Role> = seen.iter().map(|m| m.role).collect();
        assert_eq!(
            roles,
            [Role::System, Role::User, Role::Assistant, Role::User]
        );
        assert!(seen[0].content.starts_with("Be brief.\n\nYou may call"));
        assert!(seen[0].content.contains(r#""name":"weather""#));
        let call = "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Oslo\"}}\n</tool_call>";
        assert_eq!(seen[2].content, call);
        assert!(seen[3].content.contains("rain") && seen[3].content.contains("wind"));
    }
}
