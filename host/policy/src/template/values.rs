//! Messages and tools as a template's values, with placeholders for the texts that are data.
//!
//! The shapes are those that transformers documents for `apply_chat_template`.

use std::collections::HashSet;

use minijinja::value::{Value, ValueKind};
use rl::{Message, Role, ToolSpec};

use super::Rendered;
use crate::error::{Error, Result};

// Unicode noncharacters: no font, keyboard or tokenizer uses them.
const BEGIN: char = '\u{FDD0}';
const MIDDLE: char = '\u{FDD1}';
const END: char = '\u{FDD2}';

/// Stands placeholders in the place of texts that are data, and puts the texts back.
///
/// A placeholder is `BEGIN nonce MIDDLE index " END`. The quotation mark shows how often the template wrote the placeholder as
/// JSON, so that the text can be escaped as often.
pub(super) struct Places {
    /// Digits that make placeholders unlike anything in the texts; without them, texts stay where they are.
    nonce: Option<String>,
    /// In the order in which placeholders were given out.
    texts: Vec<String>,
}

impl Places {
    /// Leaves texts as they are.
    pub(super) fn none() -> Self {
        Self {
            nonce: None,
            texts: Vec::new(),
        }
    }

    /// Replaces every text of these messages and tools.
    pub(super) fn of(messages: &[Message], tools: &[ToolSpec]) -> Self {
        Self {
            nonce: Some(nonce(messages, tools)),
            texts: Vec::new(),
        }
    }

    /// Whether texts are replaced.
    pub(super) fn are_used(&self) -> bool {
        self.nonce.is_some()
    }

    fn text(&mut self, text: &str) -> Value {
        let core = text.trim();
        let Some(nonce) = self.nonce.as_ref().filter(|_| !core.is_empty()) else {
            return Value::from(text);
        };
        let (before, after) = ends(text, core);
        let index = self.texts.len();
        self.texts.push(core.into());
        Value::from(format!(
            "{before}{BEGIN}{nonce}{MIDDLE}{index}\"{END}{after}"
        ))
    }

    /// The text with the placeholders' texts back in place; none when it would have more than `most` bytes.
    pub(super) fn put_back(&self, rendered: &str, most: usize) -> Option<Rendered> {
        let open = format!(
            "{BEGIN}{}{MIDDLE}",
            self.nonce.as_deref().unwrap_or_default()
        );
        let mut result = Rendered {
            text: String::new(),
            untrusted: Vec::new(),
        };
        let mut pieces = rendered.split(&open);
        let push = |to: &mut String, text: &str| {
            let fits = to.len() + text.len() <= most;
            fits.then(|| to.push_str(text))
        };
        push(&mut result.text, pieces.next().unwrap_or_default())?;
        for piece in pieces {
            // A template that cut a placeholder in two loses the text, and nothing else.
            let Some((text, after)) = self.text_of(piece) else {
                push(&mut result.text, piece)?;
                continue;
            };
            let start = result.text.len();
            push(&mut result.text, &text)?;
            result.untrusted.push(start..result.text.len());
            push(&mut result.text, after)?;
        }
        Some(result)
    }

    /// The text of the placeholder whose rest the piece begins with, and what follows it.
    fn text_of<'a>(&self, piece: &'a str) -> Option<(String, &'a str)> {
        let (inside, after) = piece.split_once(END)?;
        let inside = inside.strip_suffix('"')?;
        let index = inside.trim_end_matches('\\');
        let mut text = self.texts.get(index.parse::<usize>().ok()?)?.clone();
        // Once as JSON puts one backslash before a quotation mark, twice three, and so on.
        let mut backslashes = inside.len() - index.len();
        while backslashes > 0 {
            let quoted = serde_json::to_string(&text).ok()?;
            text = quoted.get(1..quoted.len() - 1)?.to_owned();
            backslashes /= 2;
        }
        Some((text, after))
    }
}

/// The white space before and after the core.
fn ends<'a>(text: &'a str, core: &str) -> (&'a str, &'a str) {
    let before = text.len() - text.trim_start().len();
    (&text[..before], &text[before + core.len()..])
}

/// The smallest number that follows a [`BEGIN`] in no text.
fn nonce(messages: &[Message], tools: &[ToolSpec]) -> String {
    let mut taken = HashSet::new();
    for text in texts(messages, tools) {
        for (at, _) in text.match_indices(BEGIN) {
            let digits: String = text[at..]
                .chars()
                .skip(1)
                .take_while(char::is_ascii_digit)
                .collect();
            taken.insert(digits);
        }
    }
    // There are fewer taken numbers than texts have characters, so the search ends.
    (0..=taken.len())
        .map(|n| n.to_string())
        .find(|n| !taken.contains(n))
        .unwrap_or_default()
}

fn texts<'a>(messages: &'a [Message], tools: &'a [ToolSpec]) -> impl Iterator<Item = &'a str> {
    let of_message = |m: &'a Message| {
        let calls = m
            .tool_calls
            .iter()
            .flat_map(|c| [&c.id, &c.name, &c.arguments]);
        let optional = [&m.reasoning, &m.tool_call_id, &m.name]
            .into_iter()
            .flatten();
        std::iter::once(&m.content)
            .chain(calls)
            .chain(optional)
            .map(String::as_str)
    };
    let of_tool = |t: &'a ToolSpec| [t.name.as_str(), &t.description, &t.parameters];
    messages
        .iter()
        .flat_map(of_message)
        .chain(tools.iter().flat_map(of_tool))
}

/// Bytes of all texts.
pub(super) fn size(messages: &[Message], tools: &[ToolSpec]) -> usize {
    texts(messages, tools).map(str::len).sum()
}

/// How a template wants its messages.
#[derive(Clone, Copy)]
pub(super) struct Style {
    /// It looks for reasoning in an assistant's content, which it cannot do in a placeholder: we do it instead.
    pub(super) finds_reasoning: bool,
}

/// A message. Keys without a value are left out: templates ask whether they are there.
pub(super) fn message(message: &Message, style: Style, places: &mut Places) -> Value {
    let mut content = message.content.as_str();
    let mut reasoning = message.reasoning.as_deref();
    let is_assistant = message.role == Role::Assistant;
    if style.finds_reasoning && is_assistant && reasoning.is_none() {
        // As Qwen's templates take it apart: the last <think> before the first </think>, and what follows the last one.
        if let (Some((thoughts, _)), Some((_, answer))) = (
            content.split_once("</think>"),
            content.rsplit_once("</think>"),
        ) {
            let thoughts = thoughts.trim_end_matches('\n').rsplit("<think>").next();
            reasoning = thoughts.map(|text| text.trim_start_matches('\n'));
            content = answer.trim_start_matches('\n');
        }
    }
    let mut pairs = vec![
        ("role", Value::from(message.role.as_str())),
        ("content", places.text(content)),
    ];
    if let Some(reasoning) = reasoning {
        pairs.push(("reasoning_content", places.text(reasoning)));
    }
    if !message.tool_calls.is_empty() {
        let mut calls = Vec::new();
        for call in &message.tool_calls {
            let arguments = arguments(&call.arguments, places);
            let name = places.text(&call.name);
            let function = Value::from_pairs([("name", name), ("arguments", arguments)]);
            let id = places.text(&call.id);
            let kind = Value::from("function");
            calls.push(Value::from_pairs([
                ("id", id),
                ("type", kind),
                ("function", function),
            ]));
        }
        pairs.push(("tool_calls", Value::from(calls)));
    }
    for (key, value) in [
        ("tool_call_id", &message.tool_call_id),
        ("name", &message.name),
    ] {
        if let Some(value) = value {
            pairs.push((key, places.text(value)));
        }
    }
    Value::from_pairs(pairs)
}

/// Arguments that are a JSON object become one, for templates print it with `tojson`; anything else stays the text that the model
/// wrote. Broken JSON never becomes `{}`.
fn arguments(text: &str, places: &mut Places) -> Value {
    match serde_json::from_str::<Value>(text) {
        Ok(value) if value.kind() == ValueKind::Map => leaves(&value, places),
        _ => places.text(text),
    }
}

/// The tools, or none.
pub(super) fn tools(tools: &[ToolSpec], places: &mut Places) -> Result<Value> {
    if tools.is_empty() {
        return Ok(Value::from(()));
    }
    let mut list = Vec::new();
    for tool in tools {
        let fail = |source| Error::ToolParameters {
            name: tool.name.clone(),
            source,
        };
        let parameters: Value =
            serde_json::from_str(&tool.parameters).map_err(|source| fail(Some(source)))?;
        if parameters.kind() != ValueKind::Map {
            return Err(fail(None));
        }
        let name = places.text(&tool.name);
        let description = places.text(&tool.description);
        let parameters = leaves(&parameters, places);
        let function = Value::from_pairs([
            ("name", name),
            ("description", description),
            ("parameters", parameters),
        ]);
        let kind = Value::from("function");
        list.push(Value::from_pairs([("type", kind), ("function", function)]));
    }
    Ok(Value::from(list))
}

/// Replaces every text inside of a JSON value, keys too. The parser that made the value bounds its depth.
fn leaves(value: &Value, places: &mut Places) -> Value {
    let items = || value.try_iter().into_iter().flatten();
    match value.kind() {
        ValueKind::String => places.text(value.as_str().unwrap_or_default()),
        ValueKind::Seq => items().map(|item| leaves(&item, places)).collect(),
        ValueKind::Map => {
            let pair = |key: Value, places: &mut Places| {
                let inner = value.get_item(&key).unwrap_or_default();
                (leaves(&key, places), leaves(&inner, places))
            };
            Value::from_pairs(items().map(|key| pair(key, places)))
        }
        _ => value.clone(),
    }
}
