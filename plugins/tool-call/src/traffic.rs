//! Live traffic of agents that call tools: which requests are theirs, what reacts to a turn, and what is known about it.
//!
//! Evidence comes from what tools gave back and from the calls themselves, never from what a model or a person claims; where nothing is
//! known there is none. A hosted step takes its evidence from here, too. Keeps nothing from call to call.

use sdk::{Line, Message, Observation, Role, Turn};
use serde_json::Value;

use crate::{
    reader::{self, Reading},
    wire,
};

/// What an agent wraps around text that no person wrote.
const SYNTHETIC: (&str, &str) = (
    "<<<BEGIN_OPENCLAW_INTERNAL_CONTEXT>>>",
    "<<<END_OPENCLAW_INTERNAL_CONTEXT>>>",
);

/// Requests that a client makes for itself, in lower case. Long enough that a person who asks for a title is not taken for one.
const SIDE_MARKERS: [&str; 14] = [
    "title for this conversation",
    "title for this chat",
    "generate a concise title",
    "generate a short title",
    "you are a title generator",
    "summarize this conversation",
    "summarize the conversation so far",
    "summary of the conversation so far",
    "pre-compaction memory flush",
    "store durable memories",
    "read heartbeat.md",
    "heartbeat_ok",
    "follow-up questions or prompts as suggestions",
    "generate 1-3 broad tags",
];

/// How such a request may begin.
const SIDE_BEGINNINGS: [&str; 4] = ["[cron:", "[heartbeat]", "[scheduled task", "### task:"];

/// Shorter system prompts are a client's own; a long one mentions titles in passing.
const SHORT_SYSTEM: usize = 600;

/// Which line a request is on: main behind a person or a tool, side where a client asks for itself.
pub fn classify(messages: &[Message]) -> Line {
    // A tool can give back anything; only what a person or the client said last tells whose request it is.
    let said = messages
        .iter()
        .rev()
        .filter(|message| message.role == Role::User);
    let said = said.filter(|message| !is_ours(&message.content));
    let last_words = said.filter_map(|message| genuine(&message.content)).next();
    let system = messages.iter().find(|message| message.role == Role::System);
    let by_system = system
        .is_some_and(|system| system.content.len() < SHORT_SYSTEM && is_side(&system.content));
    if by_system || last_words.is_some_and(|words| is_side(&words)) {
        return Line::Side;
    }
    let real =
        |message: &&Message| message.role != Role::User || genuine(&message.content).is_some();
    match messages.iter().rev().find(real).map(|message| message.role) {
        Some(Role::User | Role::Tool) => Line::Main,
        _ => Line::Unknown,
    }
}

fn is_side(text: &str) -> bool {
    let text = text.trim().to_lowercase();
    let begins = SIDE_BEGINNINGS
        .iter()
        .any(|beginning| text.starts_with(beginning));
    begins || SIDE_MARKERS.iter().any(|marker| text.contains(marker))
}

/// A user message without its synthetic spans; none when nothing else is in it. A span that is never closed reaches to the end.
fn genuine(content: &str) -> Option<String> {
    let (begin, end) = SYNTHETIC;
    let mut kept = String::new();
    let mut rest = content;
    while let Some((before, inside)) = rest.split_once(begin) {
        kept.push_str(before);
        rest = inside.split_once(end).map_or("", |(_, after)| after);
    }
    kept.push_str(rest);
    let trimmed = kept.trim();
    (!trimmed.is_empty()).then(|| trimmed.to_owned())
}

/// Whether a user message is one of a hosted episode's that answers a call.
fn is_ours(content: &str) -> bool {
    wire::is_format_error(content) || wire::read_results(content).is_some()
}

/// What reacts to a turn: every tool result, and people's words without synthetic text.
pub fn next_state(turn: &Turn, new_messages: Vec<Message>) -> Option<Observation> {
    let messages: Vec<_> = new_messages.into_iter().filter_map(reaction).collect();
    (!messages.is_empty()).then(|| with_evidence(turn, messages))
}

fn reaction(mut message: Message) -> Option<Message> {
    match message.role {
        Role::Tool => Some(message),
        Role::User => {
            let words =
                genuine(&message.content).filter(|words| is_ours(words) || !is_side(words))?;
            message.content = words;
            Some(message)
        }
        Role::System | Role::Assistant => None,
    }
}

/// These messages as the next state of a turn, with what is known about them.
pub fn with_evidence(turn: &Turn, messages: Vec<Message>) -> Observation {
    let calls = calls(&turn.response);
    let mut error = Some(false);
    let mut changed = None;
    let mut results = 0;
    for message in &messages {
        let found = match message.role {
            Role::Tool => vec![Found::of(&message.content)],
            Role::User => Found::in_words(turn, &message.content),
            Role::System | Role::Assistant => Vec::new(),
        };
        results += found.len();
        for one in found {
            // Of several results the worst counts, and of several changes any.
            error = match (error, one.error) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            };
            changed = if changed == Some(true) {
                changed
            } else {
                one.changed.or(changed)
            };
        }
    }
    let repeated =
        (!calls.is_empty() && results > 0).then(|| previous_calls(&turn.request) == calls);
    if repeated == Some(true) && changed.is_none() && same_results(turn, &messages) {
        changed = Some(false);
    }
    let numbers = [
        ("error", error.filter(|_| results > 0)),
        ("repeated", repeated),
        ("changed", changed),
    ];
    let mut observation = Observation::new(messages);
    for (name, value) in numbers {
        if let Some(value) = value {
            observation = observation.with_evidence(name, f64::from(u8::from(value)));
        }
    }
    observation
}

/// What one result shows.
struct Found {
    error: Option<bool>,
    changed: Option<bool>,
}

/// How the text of a result begins when the call failed, in lower case.
const FAILURES: [&str; 6] = [
    "error:",
    "error executing",
    "error calling",
    "exception:",
    "<tool_use_error>",
    "traceback (most recent call last)",
];

impl Found {
    /// Reads a result. Text that does not begin like a failure may still be one: nothing is known then.
    fn of(content: &str) -> Self {
        let content = content.trim_start();
        match serde_json::from_str(content) {
            Ok(Value::Object(result)) => Self::in_object(&Value::Object(result)),
            Ok(Value::Array(_)) => Self {
                error: Some(false),
                changed: None,
            },
            _ => {
                let head: String = content.chars().take(40).collect();
                let head = head.to_lowercase();
                let failed = FAILURES.iter().any(|failure| head.starts_with(failure));
                Self {
                    error: failed.then_some(true),
                    changed: None,
                }
            }
        }
    }

    fn in_object(result: &Value) -> Self {
        let is = |key: &str, value: bool| result.get(key) == Some(&Value::Bool(value));
        let says_error = match result.get("error") {
            None | Some(Value::Null | Value::Bool(false)) => false,
            Some(Value::String(text)) => !text.is_empty(),
            Some(Value::Array(list)) => !list.is_empty(),
            Some(Value::Number(code)) => code.as_f64() != Some(0.0),
            Some(_) => true,
        };
        let status = result.get("status").and_then(Value::as_str) == Some("error");
        let failed = says_error
            || status
            || is("is_error", true)
            || is("isError", true)
            || is("success", false);
        Self {
            error: Some(failed),
            changed: result.get("changed").and_then(Value::as_bool),
        }
    }

    /// Results and format errors of a hosted episode, which come in the user's place. Read only after a reply that they can be
    /// about: a person's own words are no evidence.
    fn in_words(turn: &Turn, content: &str) -> Vec<Self> {
        if !turn.response.tool_calls.is_empty() {
            return Vec::new();
        }
        match reader::read(&turn.response.content) {
            Ok(Reading::Answer(_)) => Vec::new(),
            Ok(Reading::Calls(_)) | Err(_) if wire::is_format_error(content) => vec![Self {
                error: Some(true),
                changed: Some(false),
            }],
            Ok(Reading::Calls(_)) => {
                let results = wire::read_results(content).unwrap_or_default();
                results.iter().map(Self::in_object).collect()
            }
            Err(_) => Vec::new(),
        }
    }
}

/// The calls of a reply, real ones or in its text, in a form in which equal calls are equal.
fn calls(reply: &Message) -> Vec<(String, String)> {
    let canonical = |arguments: &str| {
        let parsed = reader::arguments_of(arguments);
        parsed.map_or_else(
            |_| arguments.to_owned(),
            |arguments| Value::Object(arguments).to_string(),
        )
    };
    if !reply.tool_calls.is_empty() {
        let calls = reply.tool_calls.iter();
        return calls
            .map(|call| (call.name.clone(), canonical(&call.arguments_json)))
            .collect();
    }
    match reader::read(&reply.content) {
        Ok(Reading::Calls(calls)) => {
            let calls = calls.into_iter();
            calls
                .map(|call| (call.name, Value::Object(call.arguments).to_string()))
                .collect()
        }
        Ok(Reading::Answer(_)) | Err(_) => Vec::new(),
    }
}

/// The calls of the reply before, where nobody spoke since: after new words the same call may well be due.
fn previous_calls(request: &[Message]) -> Vec<(String, String)> {
    for message in request.iter().rev() {
        match message.role {
            Role::Assistant => return calls(message),
            Role::User if !is_ours(&message.content) && genuine(&message.content).is_some() => {
                break;
            }
            Role::User | Role::Tool | Role::System => {}
        }
    }
    Vec::new()
}

/// Whether the results are those that came before this turn.
fn same_results(turn: &Turn, messages: &[Message]) -> bool {
    let results = |messages: &[Message]| {
        let results = messages
            .iter()
            .filter(|message| message.role == Role::Tool || is_ours(&message.content));
        results
            .map(|message| message.content.clone())
            .collect::<Vec<_>>()
    };
    let last_reply = turn
        .request
        .iter()
        .rposition(|message| message.role == Role::Assistant);
    last_reply.is_some_and(|place| results(&turn.request[place + 1..]) == results(messages))
}

#[cfg(test)]
mod tests;
