//! Finds reasoning and function calls in what a model writes, while it writes.
//!
//! Content goes out as it comes. A call goes out whole, when its JSON is complete and valid: text that was shown cannot be taken back, and a
//! call that turns out broken must stay text, exactly as sampled, never become `{}`. Does not run calls and does not give them ids.
//!
//! # Formats
//! - Hermes and Qwen: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`, any number, anywhere.
//! - Llama 3: the reply *begins* with `{"name": …, "parameters": {…}}` or `<|python_tag|>` and one; more may follow after `;`.
//! - Reasoning, in each of them: the reply begins with `<think>…</think>`.

use rl::ToolSpec;

use crate::detokenize::overlap;
use crate::template::ChatTemplate;

mod json;

use json::Found;

/// How a model writes calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToolFormat {
    /// Between `<tool_call>` and `</tool_call>`.
    Hermes,
    /// As the whole reply.
    Llama3,
}

impl ToolFormat {
    /// The format that a model's template shows to it.
    pub fn of(template: &ChatTemplate) -> Self {
        let source = template.source();
        let llama = source.contains("python_tag") || source.contains("\"parameters\": dictionary");
        if llama && !source.contains(OPEN) {
            Self::Llama3
        } else {
            Self::Hermes
        }
    }
}

/// A piece of a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// More of the answer.
    Content(String),
    /// More of the reasoning before the answer.
    Reasoning(String),
    /// A complete call.
    Call(Call),
}

/// A function call that the model asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The function's name.
    pub name: String,
    /// A JSON object, exactly as the model wrote it; `{}` only when it wrote a call without arguments.
    pub arguments: String,
}

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";
const PYTHON_TAG: &str = "<|python_tag|>";
const THINK: &str = "<think>";
const END_THINK: &str = "</think>";

/// Takes a reply apart as it comes.
#[derive(Debug)]
pub struct Parser {
    format: ToolFormat,
    /// Names of the functions that were offered.
    names: Vec<String>,
    state: State,
    /// Whether the last thing that came out was a call: white space after one is no content.
    after_call: bool,
    /// Text that is not decided yet.
    held: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing but white space has come.
    Start,
    Reasoning,
    /// After the reasoning: the answer has not begun.
    AfterReasoning,
    Content,
    /// Inside of a Hermes call.
    Call,
    /// In a reply that began like a Llama 3 call.
    Bare,
}

impl Parser {
    /// Starts a reply. Without `tools` no text is a call.
    pub fn new(format: ToolFormat, tools: &[ToolSpec]) -> Self {
        let names = tools.iter().map(|tool| tool.name.clone()).collect();
        Self {
            format,
            names,
            state: State::Start,
            after_call: false,
            held: String::new(),
        }
    }

    /// Takes more text and appends what is decided to `events`.
    pub fn push(&mut self, text: &str, events: &mut Vec<Event>) {
        self.held.push_str(text);
        loop {
            let before = events.len();
            let more = self.step(events);
            if let Some(last) = events.get(before..).and_then(<[Event]>::last) {
                self.after_call = matches!(last, Event::Call(_));
            }
            if !more {
                return;
            }
        }
    }

    /// Ends the reply: what was held back becomes a call when it is one, and content otherwise.
    pub fn finish(&mut self, events: &mut Vec<Event>) {
        let held = std::mem::take(&mut self.held);
        match self.state {
            State::Reasoning => reasoning(&held, events),
            // The end-of-turn token often stands where the closing tag should.
            State::Call => match json::call(held.strip_prefix(OPEN).unwrap_or(&held), true) {
                Found::Call(call, rest) if rest.trim().is_empty() => events.push(Event::Call(call)),
                _ => content(&held, events),
            },
            State::Bare => self.finish_bare(&held, events),
            // A thought that never began says nothing.
            State::Start if held.trim() == THINK => {}
            State::Start | State::AfterReasoning | State::Content => {
                if !(self.after_call && held.trim().is_empty()) {
                    content(&held, events);
                }
            }
        }
        self.state = State::Content;
    }

    /// Decides one thing; false when more text is needed.
    fn step(&mut self, events: &mut Vec<Event>) -> bool {
        match self.state {
            State::Start | State::AfterReasoning => self.begin(),
            State::Reasoning => self.think(events),
            State::Content => self.read_content(events),
            State::Call => self.read_call(events),
            State::Bare => self.read_bare(events),
        }
    }

    fn begin(&mut self) -> bool {
        let text = self.held.trim_start();
        if text.is_empty() {
            return false;
        }
        let maybe = |tag: &str| tag.starts_with(text) && tag.len() > text.len();
        if self.state == State::Start {
            if let Some(rest) = text.strip_prefix(THINK) {
                let rest = rest.trim_start_matches('\n');
                if rest.is_empty() {
                    // More blank lines may follow, however the reply is cut.
                    return false;
                }
                self.held = rest.to_owned();
                self.state = State::Reasoning;
                return true;
            }
            if maybe(THINK) {
                return false;
            }
        }
        if self.format == ToolFormat::Llama3 && !self.names.is_empty() {
            if maybe(PYTHON_TAG) {
                return false;
            }
            if text.starts_with('{') || text.starts_with(PYTHON_TAG) {
                self.state = State::Bare;
                return true;
            }
        }
        if self.state == State::AfterReasoning {
            // The blank line between reasoning and answer belongs to neither.
            self.held = text.to_owned();
        }
        self.state = State::Content;
        true
    }

    fn think(&mut self, events: &mut Vec<Event>) -> bool {
        if let Some((before, after)) = self.held.split_once(END_THINK) {
            reasoning(before.trim_end_matches('\n'), events);
            self.held = after.to_owned();
            self.state = State::AfterReasoning;
            return true;
        }
        let tail = overlap(&self.held, END_THINK);
        let body = &self.held[..self.held.len() - tail];
        let keep = self.held.len() - body.trim_end_matches('\n').len();
        let rest = self.held.split_off(self.held.len() - keep);
        reasoning(&self.held, events);
        self.held = rest;
        false
    }

    fn read_content(&mut self, events: &mut Vec<Event>) -> bool {
        if self.after_call {
            // The white space behind a call is not part of the answer either, whenever it comes.
            self.held = self.held.trim_start().to_owned();
            if self.held.is_empty() {
                return false;
            }
        }
        if self.format != ToolFormat::Hermes || self.names.is_empty() {
            content(&std::mem::take(&mut self.held), events);
            return false;
        }
        let (keep, found) = match self.held.find(OPEN) {
            Some(at) => (self.held.len() - at, true),
            None => (overlap(&self.held, OPEN), false),
        };
        // The white space before a call is not part of the answer, so it waits for what follows.
        let body = self.held[..self.held.len() - keep].trim_end().len();
        let rest = self.held.split_off(body);
        content(&std::mem::replace(&mut self.held, rest), events);
        if found {
            self.state = State::Call;
        }
        found
    }

    fn read_call(&mut self, events: &mut Vec<Event>) -> bool {
        let Some((inside, after)) = self.held.split_once(CLOSE) else {
            return false;
        };
        let body = inside.trim_start().strip_prefix(OPEN).unwrap_or(inside);
        match json::call(body, true) {
            Found::Call(call, rest) if rest.trim().is_empty() => {
                events.push(Event::Call(call));
                self.held = after.trim_start().to_owned();
            }
            _ => {
                let broken = self.held.len() - after.len();
                let rest = self.held.split_off(broken);
                content(&std::mem::replace(&mut self.held, rest), events);
            }
        }
        self.state = State::Content;
        true
    }

    fn read_bare(&mut self, events: &mut Vec<Event>) -> bool {
        let text = strip_bare(&self.held);
        if text.is_empty() || (PYTHON_TAG.starts_with(text) && text != PYTHON_TAG) {
            return false;
        }
        match json::call(text, false) {
            Found::Incomplete => false,
            Found::Call(call, rest) if self.names.contains(&call.name) => {
                self.held = rest.to_owned();
                events.push(Event::Call(call));
                true
            }
            _ => {
                self.state = State::Content;
                true
            }
        }
    }

    fn finish_bare(&self, held: &str, events: &mut Vec<Event>) {
        let text = strip_bare(held);
        match json::call(text, false) {
            Found::Call(call, rest)
                if self.names.contains(&call.name) && rest.trim().is_empty() =>
            {
                events.push(Event::Call(call));
            }
            _ if text.is_empty() && self.after_call => {}
            _ => content(held, events),
        }
    }
}

/// Takes a complete reply apart: content, reasoning, calls.
pub fn split(
    text: &str,
    format: ToolFormat,
    tools: &[ToolSpec],
) -> (String, Option<String>, Vec<Call>) {
    let mut parser = Parser::new(format, tools);
    let mut events = Vec::new();
    parser.push(text, &mut events);
    parser.finish(&mut events);
    let (mut answer, mut thoughts, mut calls) = (String::new(), None, Vec::new());
    for event in events {
        match event {
            Event::Content(text) => answer.push_str(&text),
            Event::Reasoning(text) => thoughts.get_or_insert_with(String::new).push_str(&text),
            Event::Call(call) => calls.push(call),
        }
    }
    (answer, thoughts, calls)
}

/// What stands before a bare call: white space, the tag, separators.
fn strip_bare(text: &str) -> &str {
    let text = text.trim_start_matches([' ', '\t', '\r', '\n', ';']);
    text.strip_prefix(PYTHON_TAG).unwrap_or(text).trim_start()
}

fn content(text: &str, events: &mut Vec<Event>) {
    if !text.is_empty() {
        events.push(Event::Content(text.to_owned()));
    }
}

fn reasoning(text: &str, events: &mut Vec<Event>) {
    if !text.is_empty() {
        events.push(Event::Reasoning(text.to_owned()));
    }
}

#[cfg(test)]
mod tests;
