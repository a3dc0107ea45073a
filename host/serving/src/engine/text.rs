//! Conversations to token ids, with a fall-back for models whose template knows no tools.
//!
//! Message texts are data and never become special tokens. Does not parse replies ([`policy::toolcalls`] does).

use std::sync::Arc;

use parking_lot::Mutex;
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
    most: PromptSize,
    /// Held while a text is made tokens of, of clients and of the loops alike: what that takes is planned once.
    alone: Arc<Mutex<()>>,
}

impl Text {
    /// For prompts of this context.
    pub(crate) fn new(
        tokenizer: Arc<Tokenizer>,
        template: Arc<ChatTemplate>,
        context: usize,
    ) -> Self {
        Self {
            tokenizer,
            template,
            most: longest_prompt(context),
            alone: Arc::default(),
        }
    }

    /// The ids of a text, which is no longer than a prompt may be.
    pub(crate) fn plain(&self, text: &str) -> policy::Result<Vec<TokenId>> {
        let _alone = self.alone.lock();
        let (tokenizer, most) = (&self.tokenizer, self.most);
        tokenizer.encode_within(text, Special::Plain, most)
    }

    /// The ids of a conversation that ends where a reply begins with `reply_prefix`. `special` says whether the host
    /// vouches for the prefix.
    pub(crate) fn encode(
        &self,
        messages: &[Message],
        tools: &[ToolSpec],
        reply_prefix: &str,
        special: Special,
    ) -> policy::Result<Vec<TokenId>> {
        let _alone = self.alone.lock();
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
            ids.extend(
                self.tokenizer
                    .encode_within(reply_prefix, special, self.most)?,
            );
        }
        Ok(ids)
    }
}

/// The template said no to these messages, or a text is too long.
pub(crate) fn refused(error: policy::Error) -> rl::Error {
    if matches!(error, policy::Error::Tokenizer { .. }) {
        return failed(error);
    }
    let what = match error {
        policy::Error::PromptTooLong { .. } => "the tokenizer",
        _ => "the chat template",
    };
    rl::Error::Refused {
        what: what.into(),
        why: with_causes(&error),
    }
}

fn failed(error: policy::Error) -> rl::Error {
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
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;
    use rl::ToolCall;
    use serde_json::json;

    /// Every letter is a token.
    fn text(context: usize) -> Text {
        let vocab: serde_json::Map<_, _> = (b'a'..=b'z')
            .map(|letter| (char::from(letter).to_string(), (letter - b'a').into()))
            .collect();
        let bytes =
            json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false });
        let json = json!({
            "model": { "type": "BPE", "vocab": vocab, "merges": [] },
            "pre_tokenizer": bytes, "decoder": bytes,
        });
        let json = json.to_string();
        let tokenizer = Tokenizer::from_json(json.as_bytes(), "tokenizer.json".as_ref()).unwrap();
        Text::new(
            Arc::new(tokenizer),
            Arc::new(ChatTemplate::chatml()),
            context,
        )
    }

    #[test]
    fn what_a_plugin_has_made_tokens_of_is_no_longer_than_a_prompt_may_be() {
        let text = text(10);
        assert_eq!(text.plain("abc").unwrap(), [0, 1, 2]);
        for letters in [16, 161] {
            let long = "a".repeat(letters);
            let refused = refused(text.plain(&long).unwrap_err());
            assert!(matches!(refused, rl::Error::Refused { .. }), "{refused}");
            assert!(
                refused
                    .to_string()
                    .contains("more than 15 tokens, or 160 bytes"),
                "{refused}"
            );
            let prefix = text.encode(&[], &[], &long, Special::Plain);
            assert!(matches!(prefix, Err(policy::Error::PromptTooLong { .. })));
        }
    }

    #[test]
    fn one_text_is_made_tokens_of_at_a_time() {
        let text = text(10);
        let (done, seen) = mpsc::channel();
        std::thread::scope(|scope| {
            let first = text.alone.lock();
            scope.spawn(|| done.send(text.plain("abc").unwrap()));
            assert!(seen.recv_timeout(Duration::from_millis(100)).is_err());
            drop(first);
            assert_eq!(seen.recv().unwrap(), [0, 1, 2]);
        });
    }

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
