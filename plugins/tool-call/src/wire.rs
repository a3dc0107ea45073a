//! The words around calls: how the model is told of its tools, of results and of mistakes, and how that is found again in a conversation.
//!
//! The same texts are what live traffic is read by ([`crate::traffic`]), so that a hosted step and its record carry the same evidence.

use sdk::{Message, Role};
use serde_json::Value;

use crate::schema::Function;

/// Where the model reads which tools there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ToolsIn {
    /// Before the first request, in short form.
    Message,
    /// In a system message, in short form.
    System,
    /// In the modality card, as JSON Schemas.
    Card,
}

/// A call that is no call of any API: copied, it earns nothing.
const EXAMPLE: &str = r#"{"name": "ping", "arguments": {"host": "h1", "count": 2}}"#;

/// The tools and the format.
fn instructions(functions: &[Function]) -> String {
    let line = |function: &Function| format!("- {}: {}\n", function.signature(), function.doc);
    let tools: String = functions.iter().map(line).collect();
    format!(
        "You can use these tools:\n{tools}To use a tool, reply with the call as JSON and nothing after it, like this:\n\
         {EXAMPLE}\nThen you get the result. When all is done, reply in words, without a call."
    )
}

/// What the model is shown first. `examples` are requests with their first call, for models that follow an example rather than
/// an instruction.
pub fn opening(
    functions: &[Function],
    tools_in: ToolsIn,
    examples: &[(String, String)],
    request: &str,
) -> Vec<Message> {
    let shown = |(request, call): &(String, String)| format!("\n\nRequest: {request}\n{call}");
    let shown: String = examples.iter().map(shown).collect();
    match tools_in {
        ToolsIn::Message => {
            let instructions = instructions(functions);
            vec![Message::user(format!(
                "{instructions}{shown}\n\nRequest: {request}"
            ))]
        }
        ToolsIn::System => vec![
            Message::new(Role::System, instructions(functions) + &shown),
            Message::user(request),
        ],
        ToolsIn::Card => vec![Message::user(request)],
    }
}

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

/// What the user says about a request that is done.
pub const THANKS: [&str; 4] = [
    "Thank you.",
    "Great, thanks.",
    "That is right, thank you.",
    "Perfect.",
];

/// What the user says about one that is not, or not as it should be.
pub const COMPLAINTS: [&str; 4] = [
    "That is not what I asked for.",
    "No, that is not right.",
    "You did not do what I wanted.",
    "That is wrong.",
];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{apis, reader};

    #[test]
    fn the_opening_says_tools_format_and_request_in_the_place_that_is_wanted() {
        let functions = &apis::calendar::FUNCTIONS;
        let [message] = opening(functions, ToolsIn::Message, &[], "Book it.")
            .try_into()
            .unwrap();
        assert!(
            message.content.contains(
                "\n- add_event(title: text, day: weekday, hour: 8-18): books a new event\n"
            )
        );
        assert!(
            message.content.contains(EXAMPLE) && message.content.ends_with("\n\nRequest: Book it.")
        );
        let [system, user] = opening(functions, ToolsIn::System, &[], "Book it.")
            .try_into()
            .unwrap();
        assert_eq!(
            (system.role, user.content.as_str()),
            (Role::System, "Book it.")
        );
        assert!(message.content.starts_with(&system.content));
        let [user] = opening(functions, ToolsIn::Card, &[], "Book it.")
            .try_into()
            .unwrap();
        assert_eq!(user.content, "Book it.");
    }

    #[test]
    fn a_copied_opening_is_no_call() {
        let [message] = opening(
            &apis::calendar::FUNCTIONS,
            ToolsIn::Message,
            &[],
            "Book it.",
        )
        .try_into()
        .unwrap();
        assert_eq!(
            reader::read(&message.content),
            Err("nothing may follow a call".into())
        );
    }

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
