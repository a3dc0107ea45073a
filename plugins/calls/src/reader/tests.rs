//! The grammar of replies, form by form, and every format error.

use proptest::prelude::*;
use serde_json::json;

use super::*;

const ADD: &str = r#"{"name": "add_note", "arguments": {"text": "milk"}}"#;
const TWO: &str = r#"{"name":"b","arguments":{"n":2}}"#;

fn names(reply: &str) -> Vec<String> {
    match read(reply) {
        Ok(Reading::Calls(calls)) => calls.into_iter().map(|call| call.name).collect(),
        other => panic!("{reply}: {other:?}"),
    }
}

#[test]
fn every_form_of_the_grammar_is_read() {
    let one = [
        ADD.to_owned(),
        format!("  {ADD}\n"),
        format!("[{ADD}]"),
        format!("I will do it.\n{ADD}"),
        format!("<tool_call>{ADD}</tool_call>"),
        format!("<tool_call>\n{ADD}\n</tool_call>\n"),
        format!("<tool_call>\n{ADD}"),
        format!("I will do it. <tool_call>{ADD}</tool_call>"),
        format!("```json\n{ADD}\n```"),
        format!("Here:\n```\n{ADD}"),
        format!("```{ADD}```"),
        r#"{"name": "add_note", "parameters": {"text": "milk"}}"#.to_owned(),
        r#"{"name": "add_note", "arguments": "{\"text\": \"milk\"}"}"#.to_owned(),
        "{\n  \"name\": \"add_note\",\n  \"arguments\": {\"text\": \"milk\"}\n}".to_owned(),
    ];
    let expected = Call::new("add_note", json!({"text": "milk"}));
    for reply in one {
        assert_eq!(
            read(&reply),
            Ok(Reading::Calls(vec![expected.clone()])),
            "{reply}"
        );
    }
    let two = [
        format!("{ADD}\n{TWO}"),
        format!("{ADD}{TWO}"),
        format!("[{ADD}, {TWO}]"),
        format!("<tool_call>{ADD}</tool_call>\n<tool_call>{TWO}</tool_call>"),
        format!("<tool_call>{ADD}\n{TWO}</tool_call>"),
        format!("```\n{ADD}\n{TWO}\n```"),
        format!("```\n{ADD}\n```\n\n```json\n{TWO}\n```"),
    ];
    for reply in two {
        assert_eq!(names(&reply), ["add_note", "b"], "{reply}");
    }
    let bare = Call::new("list_notes", json!({}));
    assert_eq!(
        read(r#"{"name": "list_notes"}"#),
        Ok(Reading::Calls(vec![bare]))
    );
}

#[test]
fn words_are_an_answer() {
    for reply in [
        "Done.",
        "The total is 12 (with tax).",
        "I booked it [see the calendar].",
        "```\nplain text\n```",
        "Its name is \"Tea\".",
        "It is {open}.",
    ] {
        assert_eq!(
            read(&format!(" {reply}\n")),
            Ok(Reading::Answer(reply.to_owned()))
        );
    }
}

/// Replies that are neither calls nor answers, and how the reason begins.
const FORMAT_ERRORS: &[(&str, &str)] = &[
    ("", "the reply is empty"),
    (" \n ", "the reply is empty"),
    ("{", "the call is no valid JSON: EOF"),
    (
        r#"{"name": "x", "arguments": {}"#,
        "the call is no valid JSON: EOF",
    ),
    (
        r#"{'name': 'x'}"#,
        "the call is no valid JSON: key must be a string",
    ),
    (
        r#"{"name": x}"#,
        "the call is no valid JSON: expected value",
    ),
    ("{}", "the call has no `name`"),
    (r#"{"tool": "x"}"#, "the call has no `name`"),
    (r#"{"name": 7}"#, "`name` has to be the name of a tool"),
    (r#"{"name": " "}"#, "`name` has to be the name of a tool"),
    (
        r#"{"name": "x", "arguments": [1]}"#,
        "`arguments` has to be a JSON object",
    ),
    (
        r#"{"name": "x", "arguments": "milk"}"#,
        "`arguments` is no valid JSON: expected value",
    ),
    (
        r#"{"name": "x", "arguments": "[1]"}"#,
        "`arguments` has to be a JSON object",
    ),
    (
        r#"{"name": "x", "arguments": {}, "parameters": {}}"#,
        "there are both",
    ),
    (
        r#"{"name": "x", "text": "milk"}"#,
        "`text` is no part of a call",
    ),
    (r#"{"name": "x"} Result of x: 3"#, NOTHING_AFTER),
    ("{\"name\": \"x\"}\nI did it.", NOTHING_AFTER),
    (r#"[{"name": "x"}, 7]"#, "a call has to be a JSON object"),
    (
        "<tool_call></tool_call>",
        "there is no call where one should be",
    ),
    (
        "<tool_call>add milk</tool_call>",
        "the call is no valid JSON: expected value",
    ),
    ("<tool_call>7</tool_call>", "a call has to be a JSON object"),
    (
        "<tool_call>[]</tool_call>",
        "a call has to be a JSON object",
    ),
    (r#"<tool_call>{"name":"x"}</tool_call> done"#, NOTHING_AFTER),
    (
        r#"<tool_call>{"name":"x"}</tool_call> and <tool_call>{"name":"x"}</tool_call>"#,
        NOTHING_AFTER,
    ),
    (
        r#"{"name":"x"}</tool_call>"#,
        "there is a </tool_call> without <tool_call>",
    ),
    ("```json\n{\"name\": \"x\"}\n```\nI did it.", NOTHING_AFTER),
    (
        "```json\n{\"name\" \"x\"}\n```",
        "the call is no valid JSON: expected `:`",
    ),
    (
        r#"Call {"name": "x", "arguments": {}}"#,
        "a call has to begin on a line of its own",
    ),
    (
        r#"add_note(text="milk")"#,
        "a call has to begin on a line of its own",
    ),
];

#[test]
fn every_format_error_says_what_is_wrong() {
    for (reply, expected) in FORMAT_ERRORS {
        let error = read(reply).expect_err(reply);
        assert!(error.starts_with(expected), "{reply}: {error}");
    }
}

#[test]
fn deep_nesting_and_huge_numbers_are_format_errors() {
    let deep = format!(
        "{{\"name\": \"x\", \"arguments\": {}",
        "{\"a\":".repeat(10_000)
    );
    assert!(
        read(&deep)
            .unwrap_err()
            .starts_with("the call is no valid JSON: recursion limit")
    );
    let huge = r#"{"name": "x", "arguments": {"n": 1e999}}"#;
    assert!(
        read(huge)
            .unwrap_err()
            .starts_with("the call is no valid JSON: number out of range")
    );
}

fn any_call() -> impl Strategy<Value = Call> {
    let value = prop_oneof![
        any::<i32>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        // A text that holds a tag ends it; every other text survives.
        "[^<`]{0,20}".prop_map(Value::from),
    ];
    let arguments = proptest::collection::btree_map("[a-z_]{1,8}", value, 0..4);
    ("[a-z][a-z_]{0,10}", arguments).prop_map(|(name, arguments)| Call {
        name,
        arguments: arguments.into_iter().collect(),
    })
}

proptest! {
    #[test]
    fn calls_survive_every_wrapping(calls in proptest::collection::vec(any_call(), 1..4), form in 0..5) {
        let written: Vec<_> = calls.iter().map(Call::to_json).collect();
        let reply = match form {
            0 => written.join("\n"),
            1 => format!("[{}]", written.join(",")),
            2 => written.iter().map(|call| format!("<tool_call>\n{call}\n</tool_call>\n")).collect(),
            3 => format!("First this:\n```json\n{}\n```", written.join("\n")),
            _ => format!("Words.\n{}", written.join("\n")),
        };
        prop_assert_eq!(read(&reply), Ok(Reading::Calls(calls)));
    }

    #[test]
    fn no_text_makes_it_panic(text in any::<String>(), junk in r#"[{}\[\]",:`<>/a-z_\n \\()0-9]{0,80}"#) {
        for reply in [text, junk.clone(), format!("<tool_call>{junk}"), format!("{{\"name\":{junk}"), format!("```\n{junk}")] {
            let _ = read(&reply);
            let _ = arguments_of(&reply);
        }
    }

    #[test]
    fn plain_words_are_never_taken_for_a_call(words in "[A-Za-z0-9 .,'?!]{1,60}") {
        prop_assume!(!words.trim().is_empty());
        prop_assert_eq!(read(&words), Ok(Reading::Answer(words.trim().to_owned())));
    }
}
