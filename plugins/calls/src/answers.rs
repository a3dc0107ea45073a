//! How results are told: as text for calls that were written as text, else as tool messages; and what a reply hears that cannot be read.
//!
//! A text of results can be read again ([`read_results`]), so that a hosted step and its record carry the same evidence.

use sdk::{Message, Role};
use serde_json::Value;

const RESULT: &str = "Result of ";

/// The results of calls that were written in text: a line each.
pub fn results(results: &[(String, Value)]) -> Message {
    let lines = results.iter();
    let lines: Vec<_> = lines
        .map(|(name, value)| format!("{RESULT}{}: {value}", one_line(name)))
        .collect();
    Message::user(lines.join("\n"))
}

/// A name that a model made up may hold anything.
fn one_line(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(60)
        .collect()
}

/// The values of such a message; none where it is something else.
pub fn read_results(content: &str) -> Option<Vec<Value>> {
    let value = |line: &str| {
        let (_, value) = line.strip_prefix(RESULT)?.split_once(": {")?;
        serde_json::from_str(&format!("{{{value}")).ok()
    };
    content
        .lines()
        .map(value)
        .collect::<Option<Vec<_>>>()
        .filter(|values| !values.is_empty())
}

/// The result of a real tool call.
pub fn tool_message(id: &str, name: &str, result: String) -> Message {
    Message {
        tool_call_id: Some(id.to_owned()),
        name: Some(name.to_owned()),
        ..Message::new(Role::Tool, result)
    }
}

const FORMAT_ERROR: &str = "Format error: ";

/// What the model reads after a reply that is neither a call nor an answer.
pub fn format_error(why: &str) -> Message {
    Message::user(format!(
        "{FORMAT_ERROR}{why}. Write a call as {{\"name\": \"...\", \"arguments\": {{...}}}} and nothing after it."
    ))
}

/// Whether a message says that a reply could not be read.
pub fn is_format_error(content: &str) -> bool {
    content.starts_with(FORMAT_ERROR)
}

/// What the model reads after a reply that was cut off: it is not wrong, it is not there. No error, therefore.
pub const CUT_OFF: &str =
    "Your reply was cut off before its end, and nothing was done. Make it shorter.";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn results_are_found_again_whatever_is_in_them() {
        let values = [
            json!({"text": "a\nResult of x: {}"}),
            json!({"error": "no"}),
        ];
        let named = [
            ("read_file".to_owned(), values[0].clone()),
            ("a\nb: c".to_owned(), values[1].clone()),
        ];
        let message = results(&named);
        assert_eq!(read_results(&message.content), Some(values.to_vec()));
        for other in [
            "",
            "Result of x",
            "Result of x: 3",
            "Result of x: {",
            "Thanks!",
            "Result of x: {}\nThanks!",
        ] {
            assert_eq!(read_results(other), None, "{other}");
        }
    }
}
