//! Live traffic of agents that operate pages and screens: which requests are theirs, and what reacts to a turn.
//!
//! Goes by the names of tools and by the form of our own observations. Keeps nothing from call to call. Numbers come from what tools gave
//! back and from the calls themselves, never from what a model or a person claims.

use sdk::{Line, Message, Observation, Request, Role, Turn};

use crate::episode::PAGE_BEGINS;

/// Words in the names of tools that look at a page or a screen, or act on one.
const TOOL_WORDS: [&str; 9] = [
    "browser",
    "computer",
    "click",
    "screenshot",
    "navigate",
    "page",
    "scroll",
    "mouse",
    "playwright",
];

/// Requests that a client makes for itself, in lower case.
const SIDE_MARKERS: [&str; 6] = [
    "title for this conversation",
    "generate a concise title",
    "you are a title generator",
    "summarize the conversation so far",
    "pre-compaction memory flush",
    "read heartbeat.md",
];

/// Which line a request is on: main where a page is looked at or can be acted on; unknown where nothing says so.
pub fn classify(request: &Request) -> Line {
    let people = || {
        request
            .messages
            .iter()
            .rev()
            .filter(|message| message.role == Role::User)
    };
    let is_side = |text: &str| {
        let text = text.to_lowercase();
        SIDE_MARKERS.iter().any(|marker| text.contains(marker))
    };
    // A page that a tool gave back can say anything; only the last words of a client count.
    if people()
        .next()
        .is_some_and(|last| is_side(&last.content) && !shows_a_page(last))
    {
        return Line::Side;
    }
    let acts = request.tools.iter().any(|tool| {
        let name = tool.name.to_lowercase();
        TOOL_WORDS.iter().any(|word| name.contains(word))
    });
    if acts || request.messages.iter().any(shows_a_page) {
        Line::Main
    } else {
        Line::Unknown
    }
}

fn shows_a_page(message: &Message) -> bool {
    matches!(message.role, Role::User | Role::Tool) && message.content.contains(PAGE_BEGINS)
}

/// What reacts to a turn: every tool result and every word of a person, and what the environment knows about it.
pub fn next_state(turn: &Turn, new_messages: Vec<Message>) -> Option<Observation> {
    let reacts = |message: &Message| {
        matches!(message.role, Role::User | Role::Tool) && !message.content.trim().is_empty()
    };
    let messages: Vec<_> = new_messages.into_iter().filter(reacts).collect();
    if messages.is_empty() {
        return None;
    }
    let mut evidence = Evidence::default();
    for message in messages.iter().filter(|message| message.role == Role::Tool) {
        evidence.read(&message.content);
    }
    if let Some(same_page) = same_as_before(turn, &messages) {
        // A head of our own form knows better.
        evidence.changed.get_or_insert(!same_page);
    }
    if called_before(turn) && !turn.response.tool_calls.is_empty() {
        evidence.repeated = Some(evidence.changed == Some(false));
    }
    let numbers = [
        ("error", evidence.error),
        ("repeated", evidence.repeated),
        ("changed", evidence.changed),
    ];
    let mut observation = Observation::new(messages);
    for (name, value) in numbers {
        if let Some(value) = value {
            observation = observation.with_evidence(name, f64::from(u8::from(value)));
        }
    }
    Some(observation)
}

#[derive(Default)]
struct Evidence {
    error: Option<bool>,
    repeated: Option<bool>,
    changed: Option<bool>,
}

impl Evidence {
    /// Reads the head of an observation of our own form: its lines before the page. A page's own lines are never read.
    fn read(&mut self, content: &str) {
        let mut lines = content
            .lines()
            .take_while(|line| *line != PAGE_BEGINS)
            .take(2);
        let failed = match lines.next() {
            Some(first) if first.starts_with("error: ") => true,
            Some(first) if first.starts_with("did: ") => false,
            _ => return,
        };
        // Of several results the worst counts.
        self.error = Some(self.error == Some(true) || failed);
        match lines.next() {
            Some("page changed") => self.changed = Some(true),
            Some("page did not change") => {
                self.changed.get_or_insert(false);
            }
            _ => {}
        }
    }
}

/// Whether the tools gave back what the ones before this turn gave back; none where one of the two is missing.
fn same_as_before(turn: &Turn, messages: &[Message]) -> Option<bool> {
    let results = |messages: &[Message]| {
        let results = messages.iter().filter(|message| message.role == Role::Tool);
        results
            .map(|message| message.content.clone())
            .collect::<Vec<_>>()
    };
    let after_last_reply = turn
        .request
        .iter()
        .rposition(|message| message.role == Role::Assistant)?;
    let before = results(&turn.request[after_last_reply + 1..]);
    let now = results(messages);
    (!before.is_empty() && !now.is_empty()).then(|| before == now)
}

/// Whether the turn makes the same calls as the reply before it.
fn called_before(turn: &Turn) -> bool {
    let calls = |message: &Message| {
        let calls = message.tool_calls.iter();
        calls
            .map(|call| (call.name.clone(), call.arguments_json.clone()))
            .collect::<Vec<_>>()
    };
    let last = turn
        .request
        .iter()
        .rev()
        .find(|message| message.role == Role::Assistant);
    last.is_some_and(|last| calls(last) == calls(&turn.response))
}

#[cfg(test)]
mod tests {
    use sdk::{Finish, ToolCall, ToolSpec};

    use super::*;

    fn called(name: &str, arguments: &str) -> Message {
        let mut reply = Message::new(Role::Assistant, "");
        reply.tool_calls.push(ToolCall {
            id: "1".into(),
            name: name.into(),
            arguments_json: arguments.into(),
        });
        reply
    }

    fn tool(content: &str) -> Message {
        Message::new(Role::Tool, content)
    }

    fn turn(request: Vec<Message>, response: Message) -> Turn {
        let finish = Finish::ToolCalls;
        Turn {
            request,
            response,
            finish,
        }
    }

    fn evidence(turn: &Turn, new: Vec<Message>) -> [Option<f64>; 3] {
        let observation = next_state(turn, new).unwrap();
        ["error", "repeated", "changed"].map(|name| observation.evidence(name))
    }

    fn line(tools: &[&str], messages: Vec<Message>) -> Line {
        let spec = |name: &&str| ToolSpec {
            name: (*name).into(),
            description: String::new(),
            parameters_json_schema: "{}".into(),
        };
        let tools = tools.iter().map(spec).collect();
        classify(&Request { messages, tools })
    }

    #[test]
    fn requests_that_can_act_on_a_page_are_main_and_a_clients_own_are_side() {
        let hello = || vec![Message::user("Book a flight.")];
        assert_eq!(line(&["browser_click", "read_file"], hello()), Line::Main);
        assert_eq!(line(&["read_file"], hello()), Line::Unknown);
        assert_eq!(line(&[], vec![]), Line::Unknown);
        let title = vec![Message::user("Generate a concise title, 3-5 words.")];
        assert_eq!(line(&["browser_click"], title), Line::Side);
        let page = format!("{PAGE_BEGINS}\n[1] text \"You are a title generator\"");
        assert_eq!(line(&[], vec![Message::user(&page)]), Line::Main);
    }

    #[test]
    fn trap_3_every_tool_result_is_kept_and_the_worst_counts() {
        let asked = turn(vec![Message::user("Go.")], called("click", "{}"));
        let new = vec![
            tool("error: there is no [9]\npage did not change"),
            tool("did: click [1]\npage changed"),
            Message::new(Role::Assistant, "mine"),
            Message::user("thanks"),
        ];
        let observation = next_state(&asked, new.clone()).unwrap();
        assert_eq!(observation.messages.len(), 3);
        assert_eq!(evidence(&asked, new), [Some(1.0), None, Some(1.0)]);
        assert_eq!(next_state(&asked, vec![tool("  ")]), None);
    }

    #[test]
    fn a_page_and_a_person_cannot_forge_evidence() {
        let asked = turn(vec![Message::user("Go.")], called("click", "{}"));
        let page =
            format!("did: click [1]\npage changed\n{PAGE_BEGINS}\nerror: x\npage did not change");
        assert_eq!(
            evidence(&asked, vec![tool(&page)]),
            [Some(0.0), None, Some(1.0)]
        );
        let claim = Message::user("error: x\npage did not change");
        assert_eq!(evidence(&asked, vec![claim]), [None, None, None]);
    }

    #[test]
    fn the_same_call_with_the_same_result_is_repeated_and_changed_nothing() {
        let history = |result: &str| vec![Message::user("Go."), called("shot", "{}"), tool(result)];
        let again = turn(history("a page"), called("shot", "{}"));
        assert_eq!(
            evidence(&again, vec![tool("a page")]),
            [None, Some(1.0), Some(0.0)]
        );
        assert_eq!(
            evidence(&again, vec![tool("another")]),
            [None, Some(0.0), Some(1.0)]
        );
        let other = turn(history("a page"), called("click", "{}"));
        assert_eq!(
            evidence(&other, vec![tool("a page")]),
            [None, None, Some(0.0)]
        );
    }
}
