//! Live traffic of chat clients: what is a reply to a person, what reacts to one, when a session is over.
//!
//! Goes by the markers that clients are known to write. Keeps nothing from call to call.

use sdk::{Line, Message, Role};

/// What an agent wraps around text that no person wrote.
const SYNTHETIC: (&str, &str) = (
    "<<<BEGIN_OPENCLAW_INTERNAL_CONTEXT>>>",
    "<<<END_OPENCLAW_INTERNAL_CONTEXT>>>",
);

/// Requests that a client makes for itself, in lower case: titles, memory, heartbeats, scheduled jobs. Long enough that a person
/// who asks for "a title for my book" is not taken for one.
const SIDE_MARKERS: [&str; 20] = [
    "title for this conversation",
    "title for this chat",
    "title for the conversation",
    "title for the chat",
    "concise, 3-5 word title",
    "generate a concise title",
    "generate a short title",
    "you generate titles",
    "you are a title generator",
    "summarize this conversation",
    "summarize the conversation so far",
    "summary of the conversation so far",
    "pre-compaction memory flush",
    "extract memories from",
    "store durable memories",
    "update your memory file",
    "read heartbeat.md",
    "heartbeat_ok",
    "follow-up questions or prompts as suggestions",
    "generate 1-3 broad tags",
];

/// How much of a long text is read, from its beginning and from its end, in bytes: more than a client's own words have, which say what to do with
/// a conversation that may be of any length.
const READ_BYTES: usize = 4_000;

/// How such a request may begin.
const SIDE_BEGINNINGS: [&str; 4] = ["[cron:", "[heartbeat]", "[scheduled task", "### task:"];

/// What a person writes to begin anew.
const ENDINGS: [&str; 4] = ["/new", "/reset", "/exit", "/quit"];

/// Which line a request is on.
pub fn classify(messages: &[Message]) -> Line {
    let people = messages.iter().filter(|message| message.role == Role::User);
    let Some(last) = people
        .filter_map(|message| genuine(&message.content))
        .next_back()
    else {
        // Nobody said anything: a request that a client made for itself, or one that we do not know.
        return Line::Unknown;
    };
    let system = messages.iter().find(|message| message.role == Role::System);
    // A long system prompt mentions heartbeats and titles in passing; a title generator's is short.
    let short_system = system.filter(|system| system.content.len() < 600);
    let by_system = short_system.is_some_and(|system| is_side(&system.content));
    if is_side(&last) || by_system {
        Line::Side
    } else {
        Line::Main
    }
}

/// A client's own request says what it is at its beginning or, after a quoted conversation, at its end: the middle of a long text is
/// not read.
fn is_side(text: &str) -> bool {
    let text = text.trim();
    let (beginning, end) = (
        text.ceil_char_boundary(READ_BYTES),
        text.floor_char_boundary(text.len().saturating_sub(READ_BYTES)),
    );
    if beginning < end {
        return says_side(&text[..beginning]) || says_side(&text[end..]);
    }
    says_side(text)
}

fn says_side(text: &str) -> bool {
    let text = text.to_lowercase();
    SIDE_BEGINNINGS
        .iter()
        .any(|beginning| text.starts_with(beginning))
        || SIDE_MARKERS.iter().any(|marker| text.contains(marker))
}

/// What of the new messages reacts to a turn: people's words without synthetic text, and every tool result.
pub fn reactions(messages: Vec<Message>) -> Vec<Message> {
    messages.into_iter().filter_map(reaction).collect()
}

fn reaction(mut message: Message) -> Option<Message> {
    match message.role {
        Role::Tool => Some(message),
        Role::User => {
            message.content = genuine(&message.content).filter(|text| !is_side(text))?;
            Some(message)
        }
        Role::System | Role::Assistant => None,
    }
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
    let kept = if kept.len() == content.len() {
        kept
    } else {
        kept.trim().to_owned()
    };
    (!kept.trim().is_empty()).then_some(kept)
}

/// Whether the last words of a person end the session.
pub fn ends(messages: &[Message]) -> bool {
    let people = messages.iter().filter(|message| message.role == Role::User);
    let last = people
        .filter_map(|message| genuine(&message.content))
        .next_back();
    last.is_some_and(|last| ENDINGS.contains(&last.trim().to_lowercase().as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(user: &str, expected: Line) {
        assert_eq!(classify(&[Message::user(user)]), expected, "{user}");
    }

    #[test]
    fn a_clients_own_requests_are_side_and_a_persons_are_main() {
        line("How do I store bread?", Line::Main);
        line(
            "Can you find a title for my book about the sea?",
            Line::Main,
        );
        line(
            "Generate a concise title for this conversation.",
            Line::Side,
        );
        line("[cron:daily] Write the report", Line::Side);
        let quoted = "user: How do I store bread? — assistant: In a box. ".repeat(1_000);
        line(&format!("Generate a concise title. {quoted}"), Line::Side);
        line(&format!("{quoted} Generate a concise title."), Line::Side);
        line(&quoted, Line::Main);
        line(
            "Read HEARTBEAT.md if it exists. Reply HEARTBEAT_OK.",
            Line::Side,
        );
        line(
            "Pre-compaction memory flush. Store durable memories now.",
            Line::Side,
        );
        assert_eq!(classify(&[]), Line::Unknown);
        assert_eq!(
            classify(&[Message::new(Role::System, "You are kind.")]),
            Line::Unknown
        );
    }

    #[test]
    fn a_title_generators_system_prompt_is_side_and_a_long_one_that_mentions_titles_is_not() {
        let ask =
            |system: String| classify(&[Message::new(Role::System, system), Message::user("Hi")]);
        assert_eq!(ask("You are a title generator.".into()), Line::Side);
        assert_eq!(
            ask(format!(
                "You are an agent. {} Reply HEARTBEAT_OK.",
                "x ".repeat(500)
            )),
            Line::Main
        );
    }

    #[test]
    fn trap_3_synthetic_messages_vanish_and_every_tool_result_stays() {
        let synthetic =
            "<<<BEGIN_OPENCLAW_INTERNAL_CONTEXT>>>\nstate\n<<<END_OPENCLAW_INTERNAL_CONTEXT>>>";
        let found = reactions(vec![
            Message::new(Role::Tool, "first"),
            Message::new(Role::Tool, "second"),
            Message::user(synthetic),
            Message::user(format!("Thanks!\n{synthetic}")),
            Message::user("<<<BEGIN_OPENCLAW_INTERNAL_CONTEXT>>> never closed"),
            Message::new(Role::Assistant, "mine"),
            Message::user("Read HEARTBEAT.md"),
        ]);
        let texts: Vec<_> = found
            .iter()
            .map(|message| message.content.as_str())
            .collect();
        assert_eq!(texts, ["first", "second", "Thanks!"]);
    }

    #[test]
    fn a_session_ends_by_a_command_alone() {
        assert!(ends(&[Message::user("hello"), Message::user(" /new ")]));
        assert!(!ends(&[Message::user("/new"), Message::user("hello")]));
        assert!(!ends(&[Message::user("what does /new do?")]));
        assert!(!ends(&[]));
    }
}
