//! The words around calls: how the model is told of its tools, of results and of mistakes, and how that is found again in a conversation.
//!
//! The same texts are what live traffic is read by ([`crate::traffic`]), so that a hosted step and its record carry the same evidence.

use sdk::{Message, Role};

pub use calls::answers::{
    CUT_OFF, format_error, is_format_error, read_results, results, tool_message,
};

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
}
