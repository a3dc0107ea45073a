//! The words around calls: which tools there are and how they are called, and what came back.
//!
//! Tools are shown as JSON, a line each, since their schemas are other people's. How results are told is in [`calls::answers`].

use calls::answers;
use sdk::{Message, Role};
use serde_json::{Value, json};

use crate::{
    driver::Tool,
    world::{Answer, Script},
};

/// Where the model reads which tools there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ToolsIn {
    /// Before the first request.
    Message,
    /// In a system message.
    System,
}

/// A call that is no call of any tool: copied, it earns nothing.
const EXAMPLE: &str = r#"{"name": "ping", "arguments": {"host": "h1", "count": 2}}"#;

/// Tools, a line each.
fn lines(tools: &[Tool]) -> String {
    let line = |tool: &Tool| {
        json!({"name": tool.name, "description": tool.description, "parameters": tool.parameters})
            .to_string()
    };
    let lines: Vec<_> = tools.iter().map(line).collect();
    lines.join("\n")
}

/// What the model is shown first.
pub fn opening(script: &Script, tools_in: ToolsIn) -> Vec<Message> {
    let (tools, words) = script
        .requests
        .first()
        .map_or((String::new(), ""), |first| {
            (lines(&first.tools), first.words.as_str())
        });
    let policy = script.policy.trim();
    let gap = if policy.is_empty() { "" } else { "\n\n" };
    let rules = format!(
        "{policy}{gap}You can use these tools, with the JSON Schemas of their arguments:\n{tools}\n\
         To use a tool, reply with the call as JSON and nothing after it, like this:\n{EXAMPLE}\n\
         Then you get the result. {}",
        script.ending
    );
    match tools_in {
        ToolsIn::Message => vec![Message::user(format!("{rules}\n\nRequest: {words}"))],
        ToolsIn::System => vec![Message::new(Role::System, rules), Message::user(words)],
    }
}

/// A later request, with the tools that are new.
pub fn request(words: &str, tools: &[Tool]) -> String {
    if tools.is_empty() {
        return words.to_owned();
    }
    let asked = if words.trim().is_empty() {
        "Can you do it now?"
    } else {
        words
    };
    let tools = lines(tools);
    format!("These tools can be used from now on as well:\n{tools}\n{asked}")
}

/// The results of calls that were written in text.
pub fn results(results: Vec<(String, Answer)>) -> Message {
    let told = |(name, answer): (String, Answer)| {
        let key = if answer.failed { "error" } else { "result" };
        let value = match serde_json::from_str(&answer.text) {
            Ok(Value::Object(object)) => Value::Object(object),
            _ => json!({key: answer.text}),
        };
        (name, value)
    };
    let told: Vec<_> = results.into_iter().map(told).collect();
    answers::results(&told)
}

#[cfg(test)]
mod tests {
    use calls::reader;

    use super::*;
    use crate::world::{Request, User};

    fn script() -> Script {
        Script {
            policy: "Be brief.".into(),
            requests: vec![Request {
                words: "Lamp on.".into(),
                tools: vec![Tool {
                    name: "lamp".into(),
                    description: "Sets the lamp".into(),
                    parameters: json!({"type": "object"}),
                }],
            }],
            user: User::Asks,
            ending: "Then say so.",
        }
    }

    #[test]
    fn the_opening_has_policy_tools_and_request_and_is_no_call_when_it_is_copied() {
        let [message] = opening(&script(), ToolsIn::Message).try_into().unwrap();
        assert!(message.content.starts_with("Be brief.\n\nYou can use"));
        assert!(message.content.contains("\n{\"description\":"));
        assert!(
            message
                .content
                .ends_with("Then say so.\n\nRequest: Lamp on.")
        );
        assert!(reader::read(&message.content).is_err());
        let [system, user] = opening(&script(), ToolsIn::System).try_into().unwrap();
        assert_eq!(
            (system.role, user.content.as_str()),
            (Role::System, "Lamp on.")
        );
    }

    #[test]
    fn tools_that_come_later_are_named_with_the_request() {
        let tools = &script().requests[0].tools;
        assert_eq!(request("Off.", &[]), "Off.");
        assert!(request("", tools).ends_with("\nCan you do it now?"));
        assert!(request("Off.", tools).contains("\"lamp\""));
    }

    #[test]
    fn a_result_that_is_no_object_becomes_one_and_can_be_read_again() {
        let answer = |text: &str, failed| Answer {
            text: text.into(),
            failed,
        };
        let message = results(vec![
            ("a".into(), answer("{\"x\": 1}", false)),
            ("b".into(), answer("two\nlines", false)),
            ("c".into(), answer("Error: no", true)),
        ]);
        assert_eq!(
            answers::read_results(&message.content),
            Some(vec![
                json!({"x": 1}),
                json!({"result": "two\nlines"}),
                json!({"error": "Error: no"})
            ])
        );
    }
}
