//! Live traffic: lines, reactions and evidence, by tables.

use sdk::{Finish, ToolCall};

use super::*;

fn calling(calls: &[(&str, &str)]) -> Message {
    let call = |(name, arguments): &(&str, &str)| ToolCall {
        id: format!("id-{name}"),
        name: (*name).into(),
        arguments_json: (*arguments).into(),
    };
    Message {
        tool_calls: calls.iter().map(call).collect(),
        ..Message::new(Role::Assistant, "")
    }
}

fn says(text: &str) -> Message {
    Message::new(Role::Assistant, text)
}

fn tool(content: &str) -> Message {
    Message::new(Role::Tool, content)
}

fn user(content: &str) -> Message {
    Message::user(content)
}

fn turn(request: Vec<Message>, response: Message) -> Turn {
    Turn {
        request,
        response,
        finish: Finish::Stop,
    }
}

/// The evidence `error`, `repeated` and `changed`.
fn evidence(turn: &Turn, new: Vec<Message>) -> [Option<f64>; 3] {
    let observation = next_state(turn, new).unwrap();
    ["error", "repeated", "changed"].map(|name| observation.evidence(name))
}

const NO: Option<f64> = Some(0.0);
const YES: Option<f64> = Some(1.0);

#[test]
fn a_request_behind_a_person_or_a_tool_is_main_and_a_clients_own_is_side() {
    let line = |messages: Vec<Message>| classify(&messages);
    assert_eq!(line(vec![user("Book a table.")]), Line::Main);
    assert_eq!(
        line(vec![user("Book."), calling(&[("book", "{}")]), tool("ok")]),
        Line::Main
    );
    assert_eq!(line(vec![user("Book."), says("Done.")]), Line::Unknown);
    assert_eq!(line(vec![]), Line::Unknown);
    assert_eq!(
        line(vec![user("Generate a concise title for this.")]),
        Line::Side
    );
    assert_eq!(
        line(vec![user("[cron:daily] Write the report")]),
        Line::Side
    );
    let title = vec![
        Message::new(Role::System, "You are a title generator."),
        user("Hello"),
    ];
    assert_eq!(line(title), Line::Side);
    let long = format!("You are an agent. {} Reply HEARTBEAT_OK.", "x ".repeat(500));
    assert_eq!(
        line(vec![Message::new(Role::System, long), user("Hello")]),
        Line::Main
    );
    // A side request stays one in its tool loop, and what a tool gave back makes none.
    let flush = vec![
        user("Pre-compaction memory flush."),
        calling(&[("write", "{}")]),
        tool("ok"),
    ];
    assert_eq!(line(flush), Line::Side);
    let mail = vec![
        user("Read it."),
        calling(&[("read", "{}")]),
        tool("Summarize this conversation"),
    ];
    assert_eq!(line(mail), Line::Main);
    let in_words = user(r#"Result of read: {"text":"Summarize this conversation"}"#);
    assert_eq!(
        line(vec![user("Read it."), says(r#"{"name":"read"}"#), in_words]),
        Line::Main
    );
}

#[test]
fn trap_3_synthetic_messages_vanish_and_every_tool_result_stays() {
    let synthetic =
        "<<<BEGIN_OPENCLAW_INTERNAL_CONTEXT>>>\nstate\n<<<END_OPENCLAW_INTERNAL_CONTEXT>>>";
    let asked = turn(vec![user("Go.")], calling(&[("a", "{}"), ("b", "{}")]));
    let new = vec![
        tool("first"),
        tool("second"),
        user(synthetic),
        user(&format!("Thanks!\n{synthetic}")),
        user("<<<BEGIN_OPENCLAW_INTERNAL_CONTEXT>>> never closed"),
        says("mine"),
        Message::new(Role::System, "reminder"),
        user("Read HEARTBEAT.md"),
    ];
    let observation = next_state(&asked, new).unwrap();
    let texts: Vec<_> = observation
        .messages
        .iter()
        .map(|message| message.content.as_str())
        .collect();
    assert_eq!(texts, ["first", "second", "Thanks!"]);
    assert_eq!(next_state(&asked, vec![user(synthetic)]), None);
    assert_eq!(next_state(&asked, vec![]), None);
}

#[test]
fn errors_are_known_by_their_forms_and_nothing_is_made_up() {
    let table = [
        (r#"{"error":"precondition: no","changed":false}"#, YES),
        (r#"{"error":{"code":5}}"#, YES),
        (r#"{"error":null,"data":1}"#, NO),
        (r#"{"error":"","data":1}"#, NO),
        (r#"{"error":false}"#, NO),
        (r#"{"error":0}"#, NO),
        (r#"{"data":{"error":"inner"}}"#, NO),
        (r#"{"status":"error"}"#, YES),
        (r#"{"success":false}"#, YES),
        (r#"{"isError":true}"#, YES),
        ("[1, 2]", NO),
        ("Error: no such file", YES),
        (" ERROR: no such file", YES),
        ("Error executing tool read: x", YES),
        ("Traceback (most recent call last):\n  File", YES),
        // A log that tells of errors is no error; nor is it known to be none.
        ("starting\nError: retried", None),
        ("Errors are listed below", None),
        ("42 files", None),
        ("{not json", None),
    ];
    let asked = turn(vec![user("Go.")], calling(&[("a", "{}")]));
    for (content, expected) in table {
        assert_eq!(
            evidence(&asked, vec![tool(content)])[0],
            expected,
            "{content}"
        );
    }
    let both = |one: &str, other: &str| evidence(&asked, vec![tool(one), tool(other)])[0];
    assert_eq!(both("{}", r#"{"error":"x"}"#), YES);
    assert_eq!(both("plain", r#"{"error":"x"}"#), YES);
    assert_eq!(both("plain", "{}"), None);
    assert_eq!(both("{}", "{}"), NO);
}

#[test]
fn the_same_call_again_is_repeated_however_it_is_written() {
    let first = calling(&[("read", r#"{"path": "a", "line": 1}"#)]);
    let again = turn(
        vec![user("Go."), first.clone(), tool("plain")],
        calling(&[("read", r#"{"line":1,"path":"a"}"#)]),
    );
    assert_eq!(evidence(&again, vec![tool("other")]), [None, YES, None]);
    assert_eq!(evidence(&again, vec![tool("plain")]), [None, YES, NO]);
    let other = turn(
        vec![user("Go."), first.clone(), tool("plain")],
        calling(&[("read", "{}")]),
    );
    assert_eq!(evidence(&other, vec![tool("plain")]), [None, NO, None]);
    let in_words = r#"{"name": "read", "arguments": {"line": 1, "path": "a"}}"#;
    let in_words = turn(
        vec![user("Go."), first.clone(), tool("plain")],
        says(in_words),
    );
    assert_eq!(
        evidence(&in_words, vec![user(r#"Result of read: {"text":"x"}"#)]),
        [NO, YES, None]
    );
    let asked_again = turn(
        vec![
            user("Go."),
            first.clone(),
            tool("plain"),
            says("Done."),
            user("Again, please."),
        ],
        first.clone(),
    );
    assert_eq!(evidence(&asked_again, vec![tool("plain")])[1], NO);
    let broken = turn(
        vec![user("Go."), calling(&[("read", "{")]), tool("{}")],
        calling(&[("read", "{")]),
    );
    assert_eq!(evidence(&broken, vec![tool("{}")])[1], YES);
}

#[test]
fn changes_are_taken_from_results_and_any_change_is_one() {
    let asked = turn(vec![user("Go.")], calling(&[("a", "{}"), ("b", "{}")]));
    let changed =
        |results: &[&str]| evidence(&asked, results.iter().map(|result| tool(result)).collect())[2];
    assert_eq!(
        changed(&[r#"{"changed":true}"#, r#"{"error":"x","changed":false}"#]),
        YES
    );
    assert_eq!(
        changed(&[r#"{"error":"x","changed":false}"#, r#"{"changed":true}"#]),
        YES
    );
    assert_eq!(changed(&[r#"{"changed":false}"#, r#"{"text":"x"}"#]), NO);
    assert_eq!(changed(&[r#"{"text":"x"}"#]), None);
    assert_eq!(changed(&[r#"{"changed":"yes"}"#]), None);
}

#[test]
fn a_persons_words_are_no_evidence() {
    let claims = [
        r#"Result of read: {"error":"x","changed":false}"#,
        "Format error: the reply is empty. Write a call.",
        "Error: that is wrong",
        r#"{"error": "x"}"#,
    ];
    for claim in claims {
        let answered = turn(vec![user("Go.")], says("Done."));
        assert_eq!(evidence(&answered, vec![user(claim)]), [None; 3], "{claim}");
        let called = turn(vec![user("Go.")], calling(&[("read", "{}")]));
        assert_eq!(evidence(&called, vec![user(claim)]), [None; 3], "{claim}");
    }
}
