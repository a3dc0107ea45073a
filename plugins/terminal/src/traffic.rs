//! Live traffic of terminal agents: which requests are theirs, what came back of a command, when a session is over.
//!
//! Goes by the markers that such agents are known to write, and by [`screen`](crate::screen) for how commands ended. Keeps nothing from
//! call to call.

use sdk::{Line, Message, Observation, Role, ToolCall, Turn};

use crate::{action, screen::Report};

/// What agents wrap around text that no person and no tool wrote: beginning and end of each.
const SYNTHETIC: [(&str, &str); 4] = [
    (
        "<<<BEGIN_OPENCLAW_INTERNAL_CONTEXT>>>",
        "<<<END_OPENCLAW_INTERNAL_CONTEXT>>>",
    ),
    ("<system-reminder>", "</system-reminder>"),
    ("<environment_details>", "</environment_details>"),
    ("<environment_context>", "</environment_context>"),
];

/// What a request that an agent makes for itself says, in lower case. Long enough that a person's request is not taken for one.
const SIDE_MARKERS: [&str; 14] = [
    "generate a concise title",
    "generate a short title",
    "title for this conversation",
    "title for this session",
    "you are a title generator",
    "you generate titles",
    "indicates a new conversation topic",
    "extract any file paths that this command",
    "determine the command prefix",
    "summarize this conversation",
    "summary of the conversation so far",
    "creating a detailed summary of the conversation",
    "pre-compaction memory flush",
    "heartbeat_ok",
];

/// A longer system prompt is an agent's, which may mention titles and summaries in passing.
const SHORT_SYSTEM: usize = 600;

/// What a person writes to begin anew.
const ENDINGS: [&str; 5] = ["/new", "/clear", "/reset", "/exit", "/quit"];

/// Which line a request is on.
pub fn classify(messages: &[Message]) -> Line {
    let Some(last) = last_words(messages) else {
        // Nobody said anything: a request that an agent made for itself, or one that we do not know.
        return Line::Unknown;
    };
    let system = messages.iter().find(|message| message.role == Role::System);
    let system = system.filter(|system| system.content.len() < SHORT_SYSTEM);
    if is_side(&last) || system.is_some_and(|system| is_side(&system.content)) {
        Line::Side
    } else {
        Line::Main
    }
}

/// Whether the last words of a person end the session.
pub fn ends(messages: &[Message]) -> bool {
    last_words(messages).is_some_and(|last| ENDINGS.contains(&last.trim().to_lowercase().as_str()))
}

/// What reacts to a turn: every tool result and people's words, without synthetic text; and what it says about the commands.
///
/// A result in a user's message counts only in this plugin's own format and after a reply that asks for a command: what a person writes
/// is never evidence.
pub fn next_state(turn: &Turn, new_messages: Vec<Message>) -> Option<Observation> {
    let messages: Vec<_> = new_messages.into_iter().filter_map(reaction).collect();
    if messages.is_empty() {
        return None;
    }
    let asked = action::asks_for_a_command(&turn.response);
    let reports = messages.iter().filter_map(|message| match message.role {
        Role::Tool => Some(Report::parse(&message.content)),
        _ if asked => Report::first_line(&message.content),
        _ => None,
    });
    let reports: Vec<_> = reports.filter(|report| report.failed.is_some()).collect();
    // Of several results the first that failed speaks for all.
    let failed = reports.iter().find(|report| report.failed == Some(true));
    let said = failed.or(reports.last()).copied().unwrap_or_default();
    let mut observation = Observation::new(messages);
    if let Some(code) = said.exit_code {
        observation = observation.with_evidence("exit-code", f64::from(code));
    }
    if let Some(failed) = said.failed {
        observation = observation.with_evidence("error", flag(failed));
    }
    if asked {
        observation = observation.with_evidence("repeated", flag(is_repeated(turn)));
    }
    Some(observation)
}

/// Yes and no as evidence.
pub(crate) fn flag(yes: bool) -> f64 {
    if yes { 1.0 } else { 0.0 }
}

/// Whether a reply asks for exactly what the one before it asked for.
fn is_repeated(turn: &Turn) -> bool {
    let mut before = turn
        .request
        .iter()
        .rev()
        .filter(|message| message.role == Role::Assistant);
    before.next().is_some_and(|before| {
        let (calls, earlier) = (&turn.response.tool_calls, &before.tool_calls);
        let same = |(one, two): (&ToolCall, &ToolCall)| {
            one.name == two.name && one.arguments_json.trim() == two.arguments_json.trim()
        };
        if calls.is_empty() {
            earlier.is_empty() && before.content.trim() == turn.response.content.trim()
        } else {
            calls.len() == earlier.len() && calls.iter().zip(earlier).all(same)
        }
    })
}

fn reaction(mut message: Message) -> Option<Message> {
    match message.role {
        Role::Tool => {
            // An empty result is a result, too.
            message.content = genuine(&message.content).unwrap_or_default();
            Some(message)
        }
        Role::User => {
            message.content = genuine(&message.content).filter(|text| !is_side(text))?;
            Some(message)
        }
        Role::System | Role::Assistant => None,
    }
}

fn last_words(messages: &[Message]) -> Option<String> {
    let people = messages.iter().filter(|message| message.role == Role::User);
    people
        .filter_map(|message| genuine(&message.content))
        .next_back()
}

fn is_side(text: &str) -> bool {
    let text = text.trim().to_lowercase();
    SIDE_MARKERS.iter().any(|marker| text.contains(marker))
}

/// A text without its synthetic spans; none when nothing else is in it. A span that is never closed reaches to the end.
fn genuine(content: &str) -> Option<String> {
    let mut kept = content.to_owned();
    for (begin, end) in SYNTHETIC {
        while let Some(from) = kept.find(begin) {
            let inside = from + begin.len();
            let to = kept[inside..]
                .find(end)
                .map_or(kept.len(), |at| inside + at + end.len());
            kept.replace_range(from..to, "");
        }
    }
    if kept.len() < content.len() {
        kept = kept.trim().to_owned();
    }
    (!kept.trim().is_empty()).then_some(kept)
}

#[cfg(test)]
mod tests {
    use sdk::Finish;

    use super::*;

    fn tool(text: &str) -> Message {
        Message::new(Role::Tool, text)
    }

    fn asking(command: &str) -> Message {
        let mut message = Message::new(Role::Assistant, "");
        let arguments_json = format!("{{\"command\":\"{command}\"}}");
        message.tool_calls.push(ToolCall {
            id: command.into(),
            name: "bash".into(),
            arguments_json,
        });
        message
    }

    fn turn(request: Vec<Message>, response: Message) -> Turn {
        Turn {
            request,
            response,
            finish: Finish::Stop,
        }
    }

    fn evidence(response: Message, new_messages: Vec<Message>) -> [Option<f64>; 3] {
        let next = next_state(
            &turn(vec![Message::user("Fix it.")], response),
            new_messages,
        )
        .unwrap();
        ["exit-code", "error", "repeated"].map(|name| next.evidence(name))
    }

    #[test]
    fn an_agents_own_requests_are_side_and_its_loop_is_main() {
        let line = |messages: &[Message], expected| {
            assert_eq!(classify(messages), expected, "{messages:?}")
        };
        line(&[Message::user("Why does the build fail?")], Line::Main);
        line(
            &[Message::user("Fix it."), asking("ls"), tool("a b")],
            Line::Main,
        );
        line(
            &[Message::user(
                "Analyze if this message indicates a new conversation topic.",
            )],
            Line::Side,
        );
        line(
            &[
                Message::new(Role::System, "You are a title generator."),
                Message::user("Fix it."),
            ],
            Line::Side,
        );
        let long = format!(
            "You are an agent. {} You generate titles.",
            "x ".repeat(400)
        );
        line(
            &[Message::new(Role::System, long), Message::user("Fix it.")],
            Line::Main,
        );
        line(
            &[Message::user(
                "<system-reminder>The list is empty.</system-reminder>",
            )],
            Line::Unknown,
        );
        line(&[], Line::Unknown);
    }

    #[test]
    fn trap_3_every_tool_result_stays_and_synthetic_text_vanishes() {
        let next = next_state(
            &turn(vec![], asking("ls")),
            vec![
                tool("first"),
                tool("second\n<system-reminder>be brief</system-reminder>"),
                tool(""),
                Message::user("<environment_details>cwd</environment_details>"),
                Message::user("Stop it. <system-reminder>never closed"),
                Message::new(Role::Assistant, "mine"),
            ],
        );
        let texts: Vec<_> = next
            .unwrap()
            .messages
            .into_iter()
            .map(|message| message.content)
            .collect();
        assert_eq!(texts, ["first", "second", "", "Stop it."]);
        let nothing = vec![Message::user("<system-reminder>x</system-reminder>")];
        assert_eq!(next_state(&turn(vec![], asking("ls")), nothing), None);
    }

    #[test]
    fn a_failure_among_parallel_results_is_not_lost() {
        let results = vec![
            tool("exit code: 0\na"),
            tool("exit code: 2\nstderr:\nno"),
            tool("exit code: 0"),
        ];
        assert_eq!(
            evidence(asking("ls"), results),
            [Some(2.0), Some(1.0), Some(0.0)]
        );
        assert_eq!(
            evidence(asking("ls"), vec![tool("Exit code: 0")]),
            [Some(0.0), Some(0.0), Some(0.0)]
        );
        assert_eq!(
            evidence(asking("ls"), vec![tool("a.txt")]),
            [None, None, Some(0.0)]
        );
    }

    #[test]
    fn what_a_person_writes_is_no_evidence() {
        let claim = || vec![Message::user("exit code: 1\nit failed")];
        assert_eq!(
            evidence(Message::new(Role::Assistant, "Hello."), claim()),
            [None; 3]
        );
        let command = Message::new(Role::Assistant, "```bash\nls\n```");
        assert_eq!(
            evidence(command.clone(), claim()),
            [Some(1.0), Some(1.0), Some(0.0)]
        );
        let complaint = vec![Message::user("bash: x: command not found")];
        assert_eq!(evidence(command, complaint), [None, None, Some(0.0)]);
    }

    #[test]
    fn the_same_call_again_is_repeated_and_another_is_not() {
        let request = || vec![Message::user("Fix it."), asking("ls"), tool("a")];
        let repeated = |response| {
            next_state(&turn(request(), response), vec![tool("a")])
                .unwrap()
                .evidence("repeated")
        };
        assert_eq!(repeated(asking("ls")), Some(1.0));
        assert_eq!(repeated(asking("pwd")), Some(0.0));
    }

    #[test]
    fn a_session_ends_by_a_command_alone() {
        assert!(ends(&[Message::user("hello"), Message::user(" /clear ")]));
        assert!(!ends(&[Message::user("/new"), Message::user("hello")]));
        assert!(!ends(&[Message::user("what does /new do?")]));
    }
}
