//! What is said and done in an episode, as a person reads it: messages, next states, the oracle's word.
//!
//! Shared by `nextstate episode` and `nextstate plugin play`. All of it is foreign text: see the module `visible`.

use std::fmt::Write as _;

use rl::{Done, Message, Outcome};

use crate::visible;

/// How much of each text is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Lines: two thirds of them from the beginning, the others from the end.
    pub lines: usize,
    /// Characters of a line, at which it is wrapped.
    pub columns: usize,
}

impl Default for Cut {
    /// A screenful for a turn: a page's tree or a command's output is recognised by its beginning.
    fn default() -> Self {
        Self {
            lines: 12,
            columns: 108,
        }
    }
}

impl Cut {
    /// Everything is shown, line by line.
    pub const NOTHING: Self = Self {
        lines: usize::MAX,
        columns: usize::MAX,
    };
}

/// A message: its reasoning, its text, its calls.
pub(crate) fn message(out: &mut String, label: &str, message: &Message, cut: Cut) {
    if let Some(reasoning) = message.reasoning.as_deref().filter(|text| !text.is_empty()) {
        field(out, "thinks", reasoning, cut);
    }
    let calls = &message.tool_calls;
    if !message.content.is_empty() || calls.is_empty() {
        field(out, label, &message.content, cut);
    }
    for call in calls {
        let call = format!("{}({})", call.name, call.arguments);
        field(out, "call", &call, cut);
    }
}

/// A name, and a foreign text beside it: its beginning, and its end, where a request or an error usually stands.
pub(crate) fn field(out: &mut String, name: &str, text: &str, cut: Cut) {
    let lines = visible::lines(text.trim_end()).flat_map(|line| wrapped(&line, cut.columns));
    let mut lines: Vec<String> = lines.collect();
    if lines.len() > cut.lines {
        let tail = cut.lines / 3;
        let (head, left) = (cut.lines - tail, lines.len() - cut.lines);
        let left = match left {
            1 => "… 1 more line".to_owned(),
            left => format!("… {left} more lines"),
        };
        lines.splice(head..lines.len() - tail, [left]);
    }
    if lines.is_empty() {
        lines.push("(empty)".to_owned());
    }
    let mut label = name;
    for line in lines {
        let line = format!("{label:<10} {line}");
        let _ = writeln!(out, "{}", line.trim_end());
        label = "";
    }
}

/// A line in pieces of at most so many characters, at words where there are some.
fn wrapped(line: &str, columns: usize) -> Vec<String> {
    let mut rest: Vec<char> = line.chars().collect();
    let mut pieces = Vec::new();
    while rest.len() > columns {
        let space = rest[..columns].iter().rposition(|c| *c == ' ');
        // A word that is longer than the line is broken; so is one that only white space precedes.
        let at = space.filter(|at| rest[..*at].iter().any(|c| *c != ' '));
        let tail = rest.split_off(at.map_or(columns, |at| at + 1));
        pieces.push(rest.into_iter().collect());
        rest = tail;
    }
    pieces.push(rest.into_iter().collect());
    pieces
}

/// The oracle's word, with the numbers that it is made of.
pub(crate) fn outcome(outcome: Option<&Outcome>) -> String {
    let Some(outcome) = outcome else {
        return "no outcome".to_owned();
    };
    let metrics = numbers(&outcome.metrics);
    let metrics = match metrics.as_str() {
        "" => String::new(),
        some => format!(" ({some})"),
    };
    format!("outcome {:.2}{metrics}", outcome.score)
}

/// Named numbers, without zeros that say nothing.
pub(crate) fn numbers(named: &[(String, f64)]) -> String {
    let one = |(name, value): &(String, f64)| {
        let value = format!("{value:.2}");
        let short = value.trim_end_matches('0').trim_end_matches('.');
        format!("{} {short}", visible::word(name))
    };
    named.iter().map(one).collect::<Vec<_>>().join(" · ")
}

/// How an episode ended; none is the host's own limit.
pub(crate) fn ended(done: Option<Done>) -> &'static str {
    match done {
        Some(Done::Finished) => "finished",
        Some(Done::TurnLimit) => "truncated",
        Some(Done::Aborted) => "abandoned",
        None => "by host",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, lines: usize, columns: usize) -> String {
        let mut out = String::new();
        field(&mut out, "user", text, Cut { lines, columns });
        out
    }

    #[test]
    fn a_text_is_wrapped_at_words_and_cut_at_lines_and_what_is_left_out_is_counted() {
        assert_eq!(shown("", 3, 9), "user       (empty)\n");
        assert_eq!(
            shown("one two three\n\n  four", 9, 9),
            "user       one two\n           three\n\n             four\n"
        );
        assert_eq!(
            shown("abcdefghijkl", 9, 5),
            "user       abcde\n           fghij\n           kl\n"
        );
        assert_eq!(
            shown("a\nb\nc", 1, 9),
            "user       a\n           … 2 more lines\n"
        );
        assert_eq!(
            shown("a\nb", 1, 9),
            "user       a\n           … 1 more line\n"
        );
        let lines: String = (1..=9).map(|at| format!("{at}\n")).collect();
        let cut = shown(&lines, 6, 9);
        let words: Vec<&str> = cut.split_whitespace().collect();
        assert_eq!(words.join(" "), "user 1 2 3 4 … 3 more lines 8 9");
        let whole = "x".repeat(5_000);
        assert_eq!(
            shown(&whole, usize::MAX, usize::MAX),
            format!("user       {whole}\n")
        );
        // All white space and too long: it ends.
        assert!(shown(&format!("{}x", " ".repeat(50)), 99, 7).contains('x'));
    }

    #[test]
    fn numbers_are_short_and_their_names_harmless() {
        let named = [("exit-code".to_owned(), 0.0), ("a\u{1b}".to_owned(), 0.125)];
        assert_eq!(numbers(&named), "exit-code 0 · a\u{fffd} 0.12");
    }
}
