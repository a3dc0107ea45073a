//! Reads a reply that is text: calls written as JSON, or an answer in words.
//!
//! # Grammar
//! ```text
//! reply  = [words] calls | answer
//! calls  = tagged | fenced | bare
//! tagged = ( "<tool_call>" items "</tool_call>" )+        the last closing tag may be missing
//! fenced = ( "```" [word] newline items newline "```" )+  the last closing fence may be missing
//! bare   = items                                          from the first line that begins with `{` or `[{` to the end
//! items  = ( call | "[" call ("," call)* "]" )+
//! call   = {"name": text, "arguments": object}
//! ```
//! Before the calls there may be words; between and after them there is nothing but white space, so that nobody makes up results.
//! `parameters` may stand for `arguments`, which may be left out, or be a text that holds the object. Of a key that is
//! written twice the last counts. An answer is any other text that has no call in it; what looks like a call and is none of the above is
//! malformed, and the reason is for the model. Knows no tools.

use serde_json::{Deserializer, Map, Value};

/// A call that could be read. Whether there is such a tool is not known yet.
#[derive(Clone, PartialEq, Debug)]
pub struct Call {
    /// The tool's name.
    pub name: String,
    /// Its arguments.
    pub arguments: Map<String, Value>,
}

impl Call {
    /// A call as a plan writes it; anything but an object is no argument at all.
    pub fn new(name: &str, arguments: Value) -> Self {
        let arguments = match arguments {
            Value::Object(arguments) => arguments,
            _ => Map::new(),
        };
        Self {
            name: name.to_owned(),
            arguments,
        }
    }

    /// The canonical form, as the grammar has it.
    pub fn to_json(&self) -> String {
        let name = Value::from(self.name.as_str());
        let arguments = Value::Object(self.arguments.clone());
        format!("{{\"name\": {name}, \"arguments\": {arguments}}}")
    }
}

/// What a reply is.
#[derive(Clone, PartialEq, Debug)]
pub enum Reading {
    /// Calls, at least one, in order.
    Calls(Vec<Call>),
    /// Words, without white space around them.
    Answer(String),
}

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";
const FENCE: &str = "```";

/// Reads a reply.
///
/// # Errors
/// What is wrong with it, in words for the model.
pub fn read(reply: &str) -> Result<Reading, String> {
    let reply = reply.trim();
    if reply.is_empty() {
        return Err("the reply is empty".into());
    }
    if reply.contains(OPEN) {
        return tagged(reply).map(Reading::Calls);
    }
    if reply.contains(CLOSE) {
        return Err(format!("there is a {CLOSE} without {OPEN}"));
    }
    if let Some(calls) = fenced(reply) {
        return calls.map(Reading::Calls);
    }
    if let Some(start) = bare(reply) {
        return items(&reply[start..]).map(Reading::Calls);
    }
    if is_call_in_words(reply) {
        return Err("a call has to begin on a line of its own, written as JSON".into());
    }
    Ok(Reading::Answer(reply.to_owned()))
}

const NOTHING_AFTER: &str = "nothing may follow a call";

fn tagged(reply: &str) -> Result<Vec<Call>, String> {
    let mut calls = Vec::new();
    let mut rest = reply;
    while let Some((before, inside)) = rest.split_once(OPEN) {
        if !calls.is_empty() && !before.trim().is_empty() {
            return Err(NOTHING_AFTER.into());
        }
        let (body, after) = inside.split_once(CLOSE).unwrap_or((inside, ""));
        calls.extend(items(body)?);
        rest = after;
    }
    if rest.trim().is_empty() {
        Ok(calls)
    } else {
        Err(NOTHING_AFTER.into())
    }
}

/// None where no fenced block looks like a call.
fn fenced(reply: &str) -> Option<Result<Vec<Call>, String>> {
    let mut calls = String::new();
    let mut block: Option<String> = None;
    let mut after = false;
    for line in reply.lines() {
        let is_fence = line.trim_start().starts_with(FENCE);
        match &mut block {
            Some(body) if is_fence => {
                if looks_like_call(body) {
                    calls.push_str(body);
                    after = false;
                }
                block = None;
            }
            Some(body) => {
                body.push_str(line);
                body.push('\n');
            }
            None if is_fence => {
                let one_line = line.trim().trim_start_matches('`');
                let one_line = one_line.strip_suffix(FENCE).unwrap_or_default();
                if looks_like_call(one_line) {
                    calls.push_str(one_line);
                    after = false;
                } else {
                    block = Some(String::new());
                }
            }
            None => after |= !calls.is_empty() && !line.trim().is_empty(),
        }
        if after {
            return Some(Err(NOTHING_AFTER.into()));
        }
    }
    if let Some(body) = block.filter(|body| looks_like_call(body)) {
        calls.push_str(&body);
    }
    (!calls.is_empty()).then(|| items(&calls))
}

/// Where the first line begins that looks like a call.
fn bare(reply: &str) -> Option<usize> {
    let mut start = 0;
    for line in reply.split_inclusive('\n') {
        if !line.trim().is_empty() && looks_like_call(&reply[start..]) {
            return Some(start);
        }
        start += line.len();
    }
    None
}

fn looks_like_call(text: &str) -> bool {
    let text = text.trim_start();
    let in_list = text.strip_prefix('[').map(str::trim_start);
    text.starts_with('{') || in_list.is_some_and(|inside| inside.starts_with('{'))
}

/// Whether words have a call in them, in the JSON form or as programs write it.
fn is_call_in_words(reply: &str) -> bool {
    let json = reply.contains("\"name\"")
        && (reply.contains("\"arguments\"") || reply.contains("\"parameters\""));
    let written = reply
        .strip_suffix(')')
        .and_then(|call| call.split_once('('));
    let snake = |name: &str| {
        name.contains('_') && name.chars().all(|c| c == '_' || c.is_ascii_alphanumeric())
    };
    json || written.is_some_and(|(name, _)| snake(name))
}

/// One value after another, each a call or a list of calls.
fn items(body: &str) -> Result<Vec<Call>, String> {
    let mut calls = Vec::new();
    for value in Deserializer::from_str(body).into_iter::<Value>() {
        match value {
            Err(_) if !calls.is_empty() => return Err(NOTHING_AFTER.into()),
            Err(error) => return Err(format!("the call is no valid JSON: {error}")),
            Ok(Value::Array(list)) if !list.is_empty() => {
                for value in list {
                    calls.push(call(value)?);
                }
            }
            Ok(value) => calls.push(call(value)?),
        }
    }
    if calls.is_empty() {
        return Err("there is no call where one should be".into());
    }
    Ok(calls)
}

fn call(value: Value) -> Result<Call, String> {
    let Value::Object(mut call) = value else {
        return Err("a call has to be a JSON object".into());
    };
    let name = match call.remove("name") {
        Some(Value::String(name)) if !name.trim().is_empty() => name.trim().to_owned(),
        Some(_) => return Err("`name` has to be the name of a tool".into()),
        None => return Err("the call has no `name`".into()),
    };
    let arguments = match (call.remove("arguments"), call.remove("parameters")) {
        (Some(_), Some(_)) => return Err("there are both `arguments` and `parameters`".into()),
        (Some(given), None) | (None, Some(given)) => arguments(given)?,
        (None, None) => Map::new(),
    };
    match call.keys().next() {
        None => Ok(Call { name, arguments }),
        Some(key) => {
            let key: String = key.chars().take(40).collect();
            Err(format!(
                "`{key}` is no part of a call: arguments go into `arguments`"
            ))
        }
    }
}

fn arguments(given: Value) -> Result<Map<String, Value>, String> {
    match given {
        Value::Object(arguments) => Ok(arguments),
        Value::String(text) => arguments_of(&text),
        _ => Err("`arguments` has to be a JSON object".into()),
    }
}

/// The arguments of a real tool call, which are JSON as the model wrote it; nothing at all is no argument.
///
/// # Errors
/// They are no JSON object.
pub fn arguments_of(text: &str) -> Result<Map<String, Value>, String> {
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    match serde_json::from_str(text) {
        Ok(Value::Object(arguments)) => Ok(arguments),
        Ok(_) => Err("`arguments` has to be a JSON object".into()),
        Err(error) => Err(format!("`arguments` is no valid JSON: {error}")),
    }
}

#[cfg(test)]
mod tests;
