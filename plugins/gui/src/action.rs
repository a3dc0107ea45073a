//! Reads the one action of a reply.
//!
//! The grammar is [`GRAMMAR`]. It forgives what cannot be misunderstood (letter case of the verb, missing brackets, quotes around a text,
//! a fence around the action with words outside it) and nothing else: two actions, or words around an action without a fence, are a
//! complaint that the model reads. Knows no page: whether a number is on it is [`crate::episode`]'s business.

use std::fmt;

use sdk::Message;
use serde_json::Value;

/// The actions, as the model is told.
pub const GRAMMAR: &str = "click [n] | fill [n] text | select [n] choice | type text | press Enter | scroll down | \
                           drag [n] to [m] | click-at x y | done";

/// Longest text that is filled or typed, in characters.
const TEXT_CHARS: usize = 2_000;

/// What the model does.
#[derive(Clone, PartialEq, Debug)]
pub enum Action {
    /// Clicks a node. A model tends to repeat the node's description after its number; what it said is checked against the page.
    Click {
        /// The node's number.
        node: usize,
        /// What followed the number; usually nothing.
        said: String,
    },
    /// Replaces what a field holds.
    Fill {
        /// The field's number.
        node: usize,
        /// The new content.
        text: String,
    },
    /// Chooses from a list of choices.
    Select {
        /// The list's number.
        node: usize,
        /// The text of the choice.
        text: String,
    },
    /// Types where the focus is.
    Type(String),
    /// Presses a key, by its DOM name.
    Press(String),
    /// Scrolls.
    Scroll(Direction),
    /// Drags from the middle of one node to the middle of another.
    Drag {
        /// Where it begins.
        from: usize,
        /// Where it ends.
        to: usize,
    },
    /// Clicks a point, in CSS pixels.
    ClickAt {
        /// From the left.
        x: f64,
        /// From the top.
        y: f64,
    },
    /// Says that the task is done.
    Done,
}

/// Where to scroll.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// Towards the beginning.
    Up,
    /// Towards the end.
    Down,
    /// To the left.
    Left,
    /// To the right.
    Right,
}

impl Direction {
    fn read(word: &str) -> Option<Self> {
        match word.to_ascii_lowercase().as_str() {
            "up" => Some(Self::Up),
            "down" => Some(Self::Down),
            "left" => Some(Self::Left),
            "right" => Some(Self::Right),
            _ => None,
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Left => "left",
            Self::Right => "right",
        })
    }
}

impl fmt::Display for Action {
    /// As the grammar writes it; what a model said after a clicked node's number is left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Click { node, .. } => write!(f, "click [{node}]"),
            Self::Fill { node, text } => write!(f, "fill [{node}] {text}"),
            Self::Select { node, text } => write!(f, "select [{node}] {text}"),
            Self::Type(text) => write!(f, "type {text}"),
            Self::Press(key) if key == " " => write!(f, "press Space"),
            Self::Press(key) => write!(f, "press {key}"),
            Self::Scroll(direction) => write!(f, "scroll {direction}"),
            Self::Drag { from, to } => write!(f, "drag [{from}] to [{to}]"),
            Self::ClickAt { x, y } => write!(f, "click-at {x} {y}"),
            Self::Done => write!(f, "done"),
        }
    }
}

/// Reads the action of a reply.
///
/// # Errors
/// What is wrong with it, in words for the model.
pub fn read(reply: &Message) -> Result<Action, String> {
    match reply.tool_calls.as_slice() {
        [] => read_line(the_line(&reply.content)?),
        [call] => read_call(&call.name, &call.arguments_json),
        calls => Err(format!(
            "these are {} tool calls; make one at a time",
            calls.len()
        )),
    }
}

/// The line that holds the action: the only line of the only fenced block, or of the whole reply where there is no fence.
fn the_line(content: &str) -> Result<&str, String> {
    let mut inside = false;
    let mut blocks = 0;
    let (mut fenced, mut bare) = (Vec::new(), Vec::new());
    for line in content
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
    {
        if line.starts_with("```") {
            // A whole block on one line: ```click [1]```
            if let Some(one) = line
                .strip_prefix("```")
                .and_then(|rest| rest.strip_suffix("```"))
                && !one.is_empty()
            {
                blocks += 1;
                fenced.push(one.trim());
                continue;
            }
            inside = !inside;
            blocks += usize::from(inside);
        } else if inside {
            fenced.push(line);
        } else {
            bare.push(line);
        }
    }
    let lines = if blocks == 0 { bare } else { fenced };
    match lines.as_slice() {
        [] => Err("there is no action in this reply".into()),
        [line] if blocks <= 1 => Ok(unquoted(line, '`', '`')),
        _ if blocks > 1 => Err("there are several fenced blocks; give one action".into()),
        _ if blocks == 1 => Err("the fenced block has several lines; give one action".into()),
        _ => Err(
            "this is more than one line; give one action alone, or put it in a fenced block".into(),
        ),
    }
}

fn read_line(line: &str) -> Result<Action, String> {
    let (verb, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    match verb.to_ascii_lowercase().as_str() {
        "click" => {
            let (node, said) = numbered(rest).ok_or_else(|| usage("click [n]"))?;
            let said = said.trim_end_matches('.').to_owned();
            Ok(Action::Click { node, said })
        }
        "fill" => {
            let (node, text) = numbered(rest).ok_or_else(|| usage("fill [n] text"))?;
            let text = given_text(text, "fill [n] text")?;
            Ok(Action::Fill { node, text })
        }
        "select" => {
            let (node, text) = numbered(rest).ok_or_else(|| usage("select [n] choice"))?;
            let text = given_text(text, "select [n] choice")?;
            Ok(Action::Select { node, text })
        }
        "type" => given_text(rest, "type text").map(Action::Type),
        "press" => key(without_quotes(rest)).map(Action::Press),
        "scroll" => Direction::read(rest)
            .map(Action::Scroll)
            .ok_or_else(|| usage("scroll up, scroll down, scroll left or scroll right")),
        "drag" => two_nodes(rest).ok_or_else(|| usage("drag [n] to [m]")),
        "click-at" => point(rest).ok_or_else(|| usage("click-at x y, in pixels")),
        "done" | "done." if rest.is_empty() => Ok(Action::Done),
        "done" => Err(usage("done, alone")),
        _ => Err(format!("this is no action; the actions are: {GRAMMAR}")),
    }
}

fn usage(form: &str) -> String {
    format!("write it as: {form}")
}

/// A number, in brackets or not, and what follows it.
fn numbered(text: &str) -> Option<(usize, &str)> {
    let (number, rest) = match text.strip_prefix('[') {
        Some(inside) => inside.split_once(']')?,
        None => {
            let end = text.find(|c: char| !c.is_ascii_digit());
            text.split_at(end.unwrap_or(text.len()))
        }
    };
    let separate = rest.is_empty() || text.starts_with('[') || rest.starts_with([' ', '\t', '.']);
    let number = number.trim();
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    (separate && digits).then_some((number.parse().ok()?, rest.trim()))
}

fn two_nodes(text: &str) -> Option<Action> {
    let (from, rest) = numbered(text)?;
    let rest = rest.strip_prefix("to").unwrap_or(rest).trim();
    let (to, rest) = numbered(rest)?;
    matches!(rest, "" | ".").then_some(Action::Drag { from, to })
}

fn point(text: &str) -> Option<Action> {
    let text = text.trim_start_matches('(').trim_end_matches(')');
    let mut numbers = text
        .split([' ', ',', '\t'])
        .filter(|part| !part.is_empty())
        .map(str::parse::<f64>);
    let (x, y) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    let within = |number: f64| (0.0..=100_000.0).contains(&number);
    (numbers.next().is_none() && within(x) && within(y)).then_some(Action::ClickAt { x, y })
}

/// The text of an action; empty only where quotes say so.
fn given_text(text: &str, form: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err(format!("{} (\"\" for nothing)", usage(form)));
    }
    bounded(without_quotes(text))
}

fn bounded(text: &str) -> Result<String, String> {
    if text.chars().count() > TEXT_CHARS {
        return Err(format!("the text is longer than {TEXT_CHARS} characters"));
    }
    Ok(text.to_owned())
}

fn without_quotes(text: &str) -> &str {
    let (straight, single) = (unquoted(text, '"', '"'), unquoted(text, '\'', '\''));
    [straight, single, unquoted(text, '\u{201c}', '\u{201d}')]
        .into_iter()
        .min_by_key(|candidate| candidate.len())
        .unwrap_or(text)
}

fn unquoted(text: &str, open: char, close: char) -> &str {
    text.strip_prefix(open)
        .and_then(|rest| rest.strip_suffix(close))
        .unwrap_or(text)
}

/// Keys that have a name of more than one character.
const KEYS: [&str; 14] = [
    "Enter",
    "Tab",
    "Escape",
    "Backspace",
    "Delete",
    "ArrowUp",
    "ArrowDown",
    "ArrowLeft",
    "ArrowRight",
    "Home",
    "End",
    "PageUp",
    "PageDown",
    "Space",
];

fn key(name: &str) -> Result<String, String> {
    let lower = name.to_ascii_lowercase();
    let long = match lower.as_str() {
        "return" => "enter",
        "esc" => "escape",
        "up" => "arrowup",
        "down" => "arrowdown",
        "left" => "arrowleft",
        "right" => "arrowright",
        other => other,
    };
    let known = KEYS.iter().find(|known| known.eq_ignore_ascii_case(long));
    match known {
        Some(&"Space") => Ok(" ".into()),
        Some(known) => Ok((*known).into()),
        None if name.chars().count() == 1 && !name.chars().all(char::is_control) => {
            Ok(name.to_owned())
        }
        None => Err(format!(
            "there is no such key; press one character or one of {}",
            KEYS.join(", ")
        )),
    }
}

/// Reads a tool call: the verb is its name, and its arguments are `node`, `text`, `key`, `direction`, `from`, `to`, `x` and `y`.
fn read_call(name: &str, arguments: &str) -> Result<Action, String> {
    let arguments = if arguments.trim().is_empty() {
        Value::Null
    } else {
        serde_json::from_str(arguments)
            .map_err(|_| "the arguments of the tool call are no JSON".to_owned())?
    };
    let argument = |key: &str| arguments.get(key);
    let node = |key: &str| {
        argument(key)
            .and_then(whole)
            .ok_or_else(|| format!("the tool {name} needs a number `{key}`"))
    };
    let text = |key: &str| match argument(key).and_then(Value::as_str) {
        Some(text) => bounded(text),
        None => Err(format!("the tool {name} needs a text `{key}`")),
    };
    let number = |key: &str| {
        argument(key)
            .and_then(Value::as_f64)
            .filter(|number| (0.0..=100_000.0).contains(number))
            .ok_or_else(|| format!("the tool {name} needs a number `{key}`"))
    };
    match name.to_ascii_lowercase().replace('_', "-").as_str() {
        "click" => Ok(Action::Click {
            node: node("node")?,
            said: String::new(),
        }),
        "fill" => Ok(Action::Fill {
            node: node("node")?,
            text: text("text")?,
        }),
        "select" => Ok(Action::Select {
            node: node("node")?,
            text: text("text")?,
        }),
        "type" => text("text").map(Action::Type),
        "press" => key(&text("key")?).map(Action::Press),
        "scroll" => Direction::read(&text("direction")?)
            .map(Action::Scroll)
            .ok_or_else(|| "`direction` is up, down, left or right".into()),
        "drag" => Ok(Action::Drag {
            from: node("from")?,
            to: node("to")?,
        }),
        "click-at" => Ok(Action::ClickAt {
            x: number("x")?,
            y: number("y")?,
        }),
        "done" => Ok(Action::Done),
        _ => Err(
            "there is no such tool; the tools are click, fill, select, type, press, scroll, drag, click-at and done"
                .into(),
        ),
    }
}

/// A node's number, which models also write as a text.
fn whole(value: &Value) -> Option<usize> {
    match value {
        Value::Number(number) => usize::try_from(number.as_u64()?).ok(),
        Value::String(text) => numbered(text.trim())
            .filter(|(_, rest)| rest.is_empty())
            .map(|(number, _)| number),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
