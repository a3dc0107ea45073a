//! Messages and tools as a template's values, with marks that show in the output which text is data.
//!
//! The shapes are those that transformers documents for `apply_chat_template`.

use std::collections::HashSet;

use minijinja::value::{Value, ValueKind};
use rl::{Message, ToolSpec};

use super::Rendered;
use crate::error::{Error, Result};

// Unicode noncharacters: no font, keyboard or tokenizer uses them.
const BEGIN: char = '\u{FDD0}';
const MIDDLE: char = '\u{FDD1}';
const END: char = '\u{FDD2}';

/// What to do with each text that is data.
pub(super) struct Marks {
    mode: Mode,
    /// Digits that make the marks unlike anything in the texts.
    nonce: String,
    /// In the order in which placeholders were given out.
    texts: Vec<String>,
}

enum Mode {
    None,
    Around,
    Instead,
}

impl Marks {
    /// Leaves texts as they are.
    pub(super) fn none() -> Self {
        Self {
            mode: Mode::None,
            nonce: String::new(),
            texts: Vec::new(),
        }
    }

    /// Puts a mark before and after each text.
    pub(super) fn around(messages: &[Message], tools: &[ToolSpec]) -> Self {
        Self {
            mode: Mode::Around,
            nonce: nonce(messages, tools),
            texts: Vec::new(),
        }
    }

    /// Puts a placeholder in the place of each text.
    pub(super) fn instead(messages: &[Message], tools: &[ToolSpec]) -> Self {
        Self {
            mode: Mode::Instead,
            nonce: nonce(messages, tools),
            texts: Vec::new(),
        }
    }

    fn open(&self) -> String {
        format!("{BEGIN}{}{MIDDLE}", self.nonce)
    }

    fn close(&self) -> String {
        format!("{MIDDLE}{}{END}", self.nonce)
    }

    fn text(&mut self, text: &str) -> Value {
        let core = text.trim();
        if core.is_empty() {
            return Value::from(text);
        }
        match self.mode {
            Mode::None => Value::from(text),
            Mode::Around => {
                let (before, after) = ends(text, core);
                Value::from(format!(
                    "{before}{}{core}{}{after}",
                    self.open(),
                    self.close()
                ))
            }
            Mode::Instead => {
                let (before, after) = ends(text, core);
                let place = format!("{before}{}{}{END}{after}", self.open(), self.texts.len());
                self.texts.push(core.into());
                Value::from(place)
            }
        }
    }

    /// The text without the marks, or `None` when they are not in pairs.
    pub(super) fn cut_out(&self, marked: &str) -> Option<Rendered> {
        let (open, close) = (self.open(), self.close());
        let mut rendered = Rendered {
            text: String::new(),
            untrusted: Vec::new(),
        };
        let mut rest = marked;
        while let Some((before, after)) = rest.split_once(&open) {
            let (data, after) = after.split_once(&close)?;
            if before.contains(&close) || data.contains(&open) {
                return None;
            }
            rendered.text.push_str(before);
            let start = rendered.text.len();
            rendered.text.push_str(data);
            rendered.untrusted.push(start..rendered.text.len());
            rest = after;
        }
        if rest.contains(&close) {
            return None;
        }
        rendered.text.push_str(rest);
        Some(rendered)
    }

    /// The text with the placeholders' texts back in place.
    pub(super) fn put_back(&self, marked: &str) -> Rendered {
        let open = self.open();
        let mut rendered = Rendered {
            text: String::new(),
            untrusted: Vec::new(),
        };
        let mut pieces = marked.split(&open);
        rendered.text.push_str(pieces.next().unwrap_or_default());
        for piece in pieces {
            let found = piece.split_once(END).and_then(|(number, after)| {
                Some((self.texts.get(number.parse::<usize>().ok()?)?, after))
            });
            // A template that cut a placeholder in two loses the text, and nothing else.
            let (text, after) = found.map_or(("", piece), |(text, after)| (text.as_str(), after));
            let start = rendered.text.len();
            rendered.text.push_str(text);
            if !text.is_empty() {
                rendered.untrusted.push(start..rendered.text.len());
            }
            rendered.text.push_str(after);
        }
        rendered
    }
}

/// The white space before and after the core.
fn ends<'a>(text: &'a str, core: &str) -> (&'a str, &'a str) {
    let before = text.len() - text.trim_start().len();
    (&text[..before], &text[before + core.len()..])
}

/// The smallest number that follows a [`BEGIN`] or [`MIDDLE`] in no text.
fn nonce(messages: &[Message], tools: &[ToolSpec]) -> String {
    let mut taken = HashSet::new();
    for text in texts(messages, tools) {
        for (at, _) in text.match_indices([BEGIN, MIDDLE]) {
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

/// A message. Keys without a value are left out: templates ask whether they are there.
pub(super) fn message(message: &Message, marks: &mut Marks) -> Value {
    let mut pairs = vec![
        ("role", Value::from(message.role.as_str())),
        ("content", marks.text(&message.content)),
    ];
    if let Some(reasoning) = &message.reasoning {
        pairs.push(("reasoning_content", marks.text(reasoning)));
    }
    if !message.tool_calls.is_empty() {
        let mut calls = Vec::new();
        for call in &message.tool_calls {
            let arguments = arguments(&call.arguments, marks);
            let name = marks.text(&call.name);
            let function = Value::from_pairs([("name", name), ("arguments", arguments)]);
            let id = marks.text(&call.id);
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
            pairs.push((key, marks.text(value)));
        }
    }
    Value::from_pairs(pairs)
}

/// Arguments that are a JSON object become one, for templates print it with `tojson`; anything else stays the text that the model
/// wrote. Broken JSON never becomes `{}`.
fn arguments(text: &str, marks: &mut Marks) -> Value {
    match serde_json::from_str::<Value>(text) {
        Ok(value) if value.kind() == ValueKind::Map => leaves(&value, marks),
        _ => marks.text(text),
    }
}

/// The tools, or none.
pub(super) fn tools(tools: &[ToolSpec], marks: &mut Marks) -> Result<Value> {
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
        let name = marks.text(&tool.name);
        let description = marks.text(&tool.description);
        let parameters = leaves(&parameters, marks);
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

/// Marks every text inside of a JSON value, keys too. The parser that made the value bounds its depth.
fn leaves(value: &Value, marks: &mut Marks) -> Value {
    let items = || value.try_iter().into_iter().flatten();
    match value.kind() {
        ValueKind::String => marks.text(value.as_str().unwrap_or_default()),
        ValueKind::Seq => items().map(|item| leaves(&item, marks)).collect(),
        ValueKind::Map => {
            let pair = |key: Value, marks: &mut Marks| {
                let inner = value.get_item(&key).unwrap_or_default();
                (leaves(&key, marks), leaves(&inner, marks))
            };
            Value::from_pairs(items().map(|key| pair(key, marks)))
        }
        _ => value.clone(),
    }
}
