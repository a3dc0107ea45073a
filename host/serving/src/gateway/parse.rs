//! A reply's text into content, reasoning and tool calls, while it is sampled.
//!
//! The taking apart is [`policy::toolcalls`]'s; here calls get ids and indices, and a reply that must be a call is begun
//! for the model: the beginning is part of the prompt, never of the sampled tokens.

use policy::toolcalls::{Event, Parser, ToolFormat};
use rl::{ToolSpec, TurnId};

use super::messages::ToolChoice;
use super::reply::{CallDelta, Delta};
use crate::engine::EngineHandle;

/// How a reply is read, and how it must begin.
#[derive(Debug, Clone)]
pub(crate) struct Format {
    tools: ToolFormat,
    offered: Vec<ToolSpec>,
    prefix: String,
}

impl Format {
    pub(crate) fn new(engine: &EngineHandle, choice: &ToolChoice, tools: &[ToolSpec]) -> Self {
        Self::of(engine.tool_format(), choice, tools)
    }

    fn of(format: ToolFormat, choice: &ToolChoice, tools: &[ToolSpec]) -> Self {
        let name = match (choice, tools) {
            (ToolChoice::Named(name), _) => Some(name.as_str()),
            (ToolChoice::Required, [only]) => Some(only.name.as_str()),
            _ => None,
        };
        let (open, arguments) = match format {
            ToolFormat::Hermes => ("<tool_call>\n", "arguments"),
            ToolFormat::Llama3 => ("", "parameters"),
        };
        let prefix = match (choice, name) {
            (ToolChoice::None | ToolChoice::Auto, _) => String::new(),
            // Names hold letters, digits, `_` and `-` only: nothing to escape, and no special token.
            (_, Some(name)) => format!("{open}{{\"name\": \"{name}\", \"{arguments}\": "),
            (_, None) => format!("{open}{{\"name\": \""),
        };
        let offered = if *choice == ToolChoice::None {
            Vec::new()
        } else {
            tools.to_vec()
        };
        Self {
            tools: format,
            offered,
            prefix,
        }
    }

    /// Where a reply that must be a call ends: small models write on after it until their limit.
    pub(crate) fn stop(&self) -> Option<&'static str> {
        let begun = !self.prefix.is_empty();
        (begun && self.tools == ToolFormat::Hermes).then_some("</tool_call>")
    }

    /// What the prompt ends with.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }
}

/// Reads one reply.
#[derive(Debug)]
pub(crate) struct ReplyParser {
    parser: Parser,
    events: Vec<Event>,
    /// Not sampled: left out again when it did not become a call.
    prefix: String,
    call_ids: String,
    calls: usize,
}

impl ReplyParser {
    pub(crate) fn new(format: Format, turn: &TurnId) -> Self {
        let mut parser = Parser::new(format.tools, &format.offered);
        let mut events = Vec::new();
        parser.push(&format.prefix, &mut events);
        let turn = turn.as_str();
        Self {
            parser,
            events,
            prefix: format.prefix,
            call_ids: turn.strip_prefix("chatcmpl-").unwrap_or(turn).to_owned(),
            calls: 0,
        }
    }

    /// Takes more text; gives what is certain.
    pub(crate) fn push(&mut self, text: &str) -> Delta {
        self.parser.push(text, &mut self.events);
        self.take()
    }

    /// Gives what was held back.
    pub(crate) fn finish(&mut self) -> Delta {
        self.parser.finish(&mut self.events);
        self.take()
    }

    fn take(&mut self) -> Delta {
        let mut delta = Delta::default();
        for event in self.events.drain(..) {
            match event {
                Event::Content(text) => {
                    let text = match text.strip_prefix(self.prefix.as_str()) {
                        Some(rest) if !self.prefix.is_empty() => rest.to_owned(),
                        _ => text,
                    };
                    self.prefix.clear();
                    // White space after a call belongs to the format, not to the answer.
                    if self.calls == 0 || !text.trim().is_empty() {
                        delta.content.push_str(&text);
                    }
                }
                Event::Reasoning(text) => delta.reasoning.push_str(&text),
                Event::Call(call) => {
                    self.prefix.clear();
                    let index = self.calls;
                    self.calls += 1;
                    delta.calls.push(CallDelta {
                        index,
                        id: Some(format!("call_{}_{index}", self.call_ids)),
                        name: Some(call.name),
                        arguments: String::new(),
                    });
                    delta.calls.push(CallDelta {
                        index,
                        id: None,
                        name: None,
                        arguments: call.arguments,
                    });
                }
            }
        }
        delta
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tools(names: &[&str]) -> Vec<ToolSpec> {
        let tool = |name: &&str| ToolSpec {
            name: (*name).into(),
            description: String::new(),
            parameters: "{}".into(),
        };
        names.iter().map(tool).collect()
    }

    fn read(format: Format, pieces: &[&str]) -> (String, Vec<CallDelta>) {
        let mut parser = ReplyParser::new(format, &TurnId::new("chatcmpl-7"));
        let mut seen: Vec<Delta> = pieces.iter().map(|piece| parser.push(piece)).collect();
        seen.push(parser.finish());
        let content = seen.iter().map(|delta| delta.content.as_str()).collect();
        (
            content,
            seen.into_iter().flat_map(|delta| delta.calls).collect(),
        )
    }

    #[test]
    fn a_named_call_is_begun_for_the_model_and_read_back_whole() {
        let choice = ToolChoice::Named("weather".into());
        let format = Format::of(ToolFormat::Hermes, &choice, &tools(&["weather", "time"]));
        assert_eq!(
            format.prefix(),
            "<tool_call>\n{\"name\": \"weather\", \"arguments\": "
        );
        assert_eq!(format.stop(), Some("</tool_call>"));
        // The stop text is not part of the reply.
        let (content, calls) = read(format, &["{\"city\":", " \"Oslo\"}}", "\n"]);
        assert_eq!(content, "");
        assert_eq!(calls[0].id.as_deref(), Some("call_7_0"));
        assert_eq!(calls[0].name.as_deref(), Some("weather"));
        assert_eq!(calls[1].arguments, "{\"city\": \"Oslo\"}");
    }

    #[test]
    fn a_begun_call_that_comes_to_nothing_shows_only_what_was_sampled() {
        let format = Format::of(
            ToolFormat::Hermes,
            &ToolChoice::Required,
            &tools(&["a", "b"]),
        );
        assert_eq!(format.prefix(), "<tool_call>\n{\"name\": \"");
        let (content, calls) = read(format, &["oh no, ", "I cannot"]);
        assert_eq!((content.as_str(), calls.len()), ("oh no, I cannot", 0));
    }

    #[test]
    fn without_tools_text_that_looks_like_a_call_is_text() {
        let text = "<tool_call>{\"name\": \"a\", \"arguments\": {}}</tool_call>";
        let format = Format::of(ToolFormat::Hermes, &ToolChoice::None, &tools(&["a"]));
        assert_eq!(read(format, &[text]), (text.to_owned(), Vec::new()));
    }

    #[test]
    fn parallel_calls_have_their_own_ids_and_indices() {
        let format = Format::of(ToolFormat::Hermes, &ToolChoice::Auto, &tools(&["a"]));
        let call = "<tool_call>\n{\"name\": \"a\", \"arguments\": {}}\n</tool_call>\n";
        let (content, calls) = read(format, &["Two. ", call, call]);
        assert_eq!(content, "Two.");
        let ids: Vec<_> = calls.iter().filter_map(|call| call.id.as_deref()).collect();
        assert_eq!(ids, ["call_7_0", "call_7_1"]);
        assert_eq!(calls.last().map(|call| call.index), Some(1));
    }
}
