//! Live traffic of coding agents: which requests are the work itself, and what came back after a turn.
//!
//! Goes by the markers that clients are known to write. What a tool's output says of itself is believed only to its own
//! disadvantage: a failure counts as evidence, a claimed success does not.

use sdk::{Line, Message, Observation, Role, Turn};

/// Spans that clients put into messages, and no person wrote.
const SYNTHETIC: [(&str, &str); 3] = [
    ("<system-reminder>", "</system-reminder>"),
    ("<environment_details>", "</environment_details>"),
    (
        "<<<BEGIN_OPENCLAW_INTERNAL_CONTEXT>>>",
        "<<<END_OPENCLAW_INTERNAL_CONTEXT>>>",
    ),
];

/// Requests that a client makes for itself, in lower case: titles, summaries, topics, guards of commands.
const SIDE_MARKERS: [&str; 16] = [
    "generate a concise title",
    "generate a short title",
    "title for this conversation",
    "title for this coding session",
    "you are a title generator",
    "you generate titles",
    "5-10 word title",
    "isnewtopic",
    "summarize this conversation",
    "summarize this coding conversation",
    "create a detailed summary of the conversation so far",
    "your task is to create a detailed summary",
    "extract any file paths that this command reads or modifies",
    "determine the command prefix",
    "generate a commit message for",
    "conversation compaction",
];

/// What a person writes to begin anew.
const ENDINGS: [&str; 5] = ["/new", "/reset", "/clear", "/exit", "/quit"];

/// Which line a request is on.
pub fn classify(messages: &[Message]) -> Line {
    let shown = |message: &&Message| matches!(message.role, Role::User | Role::Tool);
    let Some(last) = messages.iter().rfind(shown) else {
        return Line::Unknown;
    };
    if last.role == Role::Tool {
        // Tools are the work itself; nobody titles a chat with them.
        return Line::Main;
    }
    let Some(said) = messages.iter().rev().filter(shown).find_map(genuine) else {
        return Line::Unknown;
    };
    let system = messages.iter().find(|message| message.role == Role::System);
    // A long system prompt mentions titles in passing; a title generator's is short.
    let short = system.filter(|system| system.content.len() < 1_200);
    if is_side(&said) || short.is_some_and(|system| is_side(&system.content)) {
        Line::Side
    } else {
        Line::Main
    }
}

fn is_side(text: &str) -> bool {
    let text = text.to_lowercase();
    SIDE_MARKERS.iter().any(|marker| text.contains(marker))
}

/// A message's text without what clients put into it; none when nothing else is there.
fn genuine(message: &Message) -> Option<String> {
    let mut text = message.content.clone();
    for (begin, end) in SYNTHETIC {
        let mut kept = String::new();
        let mut rest = text.as_str();
        while let Some((before, inside)) = rest.split_once(begin) {
            kept.push_str(before);
            // A span that is never closed reaches to the end.
            rest = inside.split_once(end).map_or("", |(_, after)| after);
        }
        kept.push_str(rest);
        text = kept;
    }
    let untouched = text.len() == message.content.len();
    let text = if untouched {
        text
    } else {
        text.trim().to_owned()
    };
    (!text.trim().is_empty()).then_some(text)
}

/// What came back after a turn: every tool result and people's words; none when nothing in it reacts to the turn.
pub fn next_state(turn: &Turn, new_messages: Vec<Message>) -> Option<Observation> {
    let messages: Vec<Message> = new_messages.into_iter().filter_map(reaction).collect();
    if messages.is_empty() {
        return None;
    }
    let failed = messages
        .iter()
        .filter(|message| message.role == Role::Tool)
        .filter_map(|message| failure(&message.content))
        .next_back();
    let mut next = Observation::new(messages);
    if let Some(code) = failed {
        next = next
            .with_evidence("exit-code", f64::from(code))
            .with_evidence("error", 1.0);
    }
    if !turn.response.tool_calls.is_empty() {
        let again = f64::from(u8::from(repeats(turn)));
        next = next.with_evidence("repeated", again);
    }
    Some(next)
}

fn reaction(mut message: Message) -> Option<Message> {
    match message.role {
        // An empty result is a result: the command printed nothing.
        Role::Tool => {
            message.content = genuine(&message).unwrap_or_default();
            Some(message)
        }
        Role::User => {
            message.content = genuine(&message).filter(|text| !is_side(text))?;
            Some(message)
        }
        Role::System | Role::Assistant => None,
    }
}

/// The exit code of a failure that a tool's result states in its first line, where agents put it.
fn failure(result: &str) -> Option<u32> {
    let first = result.lines().next()?.trim().to_lowercase();
    let rest = first
        .strip_prefix("error: ")
        .unwrap_or(&first)
        .strip_prefix("exit code")?;
    let rest = rest.trim_start_matches([':', ' ']);
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok().filter(|code| *code != 0)
}

/// Whether the turn makes the very calls of an earlier message.
fn repeats(turn: &Turn) -> bool {
    let same = |message: &Message| {
        let (now, then) = (&turn.response.tool_calls, &message.tool_calls);
        now.len() == then.len()
            && now
                .iter()
                .zip(then)
                .all(|(a, b)| a.name == b.name && a.arguments_json == b.arguments_json)
    };
    let earlier = turn.request.iter();
    earlier
        .filter(|message| message.role == Role::Assistant)
        .any(same)
}

/// Whether the last words of a person end the session.
pub fn ends(messages: &[Message]) -> bool {
    let people = messages.iter().filter(|message| message.role == Role::User);
    let last = people.filter_map(genuine).next_back();
    last.is_some_and(|last| ENDINGS.contains(&last.trim().to_lowercase().as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sdk::{Finish, ToolCall};

    fn assistant(command: &str) -> Message {
        let mut message = Message::new(Role::Assistant, "");
        message.tool_calls.push(ToolCall {
            id: command.into(),
            name: "bash".into(),
            arguments_json: format!("{{\"command\": \"{command}\"}}"),
        });
        message
    }

    fn turn(earlier: &[&str], now: &str) -> Turn {
        let mut request = vec![Message::user("Fix it.")];
        request.extend(earlier.iter().map(|command| assistant(command)));
        Turn {
            request,
            response: assistant(now),
            finish: Finish::ToolCalls,
        }
    }

    fn tool(content: &str) -> Message {
        Message::new(Role::Tool, content)
    }

    #[test]
    fn work_is_main_and_a_clients_own_requests_are_side() {
        let line = |messages: &[Message]| classify(messages);
        assert_eq!(line(&[Message::user("Fix the failing test.")]), Line::Main);
        assert_eq!(line(&[Message::user("Fix it."), tool("ok")]), Line::Main);
        for side in [
            "Generate a concise title for this session.",
            "Please write a 5-10 word title for the following conversation:",
            "Your task is to create a detailed summary of the conversation so far",
        ] {
            assert_eq!(line(&[Message::user(side)]), Line::Side, "{side}");
        }
        let system = Message::new(
            Role::System,
            "Analyze if this is new. Fields: isNewTopic, title.",
        );
        assert_eq!(line(&[system, Message::user("Fix it.")]), Line::Side);
        assert_eq!(line(&[]), Line::Unknown);
        assert_eq!(
            line(&[Message::user("<system-reminder>x</system-reminder>")]),
            Line::Unknown
        );
    }

    #[test]
    fn trap_3_every_tool_result_stays_and_synthetic_spans_go() {
        let next = next_state(
            &turn(&[], "ls"),
            vec![
                assistant("ls"),
                tool("a.py"),
                tool(""),
                tool("b.py\n<system-reminder>be good</system-reminder>"),
                Message::user("<system-reminder>only this</system-reminder>"),
                Message::user("Go on."),
            ],
        )
        .unwrap();
        let texts: Vec<_> = next
            .messages
            .iter()
            .map(|message| message.content.as_str())
            .collect();
        assert_eq!(texts, ["a.py", "", "b.py", "Go on."]);
        assert_eq!(next_state(&turn(&[], "ls"), vec![assistant("ls")]), None);
    }

    #[test]
    fn a_failure_is_evidence_and_a_claimed_success_is_none() {
        let code = |result: &str| {
            let next = next_state(&turn(&[], "ls"), vec![tool(result)]).unwrap();
            (next.evidence("exit-code"), next.evidence("error"))
        };
        assert_eq!(code("exit code: 2\nno such file"), (Some(2.0), Some(1.0)));
        assert_eq!(code("Error: Exit code 1\nx"), (Some(1.0), Some(1.0)));
        assert_eq!(code("exit code: 0\nall is well"), (None, None));
        assert_eq!(code("it printed\nexit code: 1"), (None, None));
    }

    #[test]
    fn the_same_call_again_is_repeated() {
        let repeated = |earlier: &[&str]| {
            let next = next_state(&turn(earlier, "ls"), vec![tool("a")]).unwrap();
            next.evidence("repeated")
        };
        assert_eq!(repeated(&["pwd"]), Some(0.0));
        assert_eq!(repeated(&["ls", "pwd"]), Some(1.0));
    }

    #[test]
    fn a_session_ends_by_a_command_alone() {
        assert!(ends(&[Message::user("hello"), Message::user("/clear")]));
        assert!(!ends(&[Message::user("what does /clear do?")]));
    }
}
