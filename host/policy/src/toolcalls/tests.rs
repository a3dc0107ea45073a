//! What the parser of calls promises.

use proptest::prelude::*;

use super::*;

fn tools() -> Vec<ToolSpec> {
    ["get_weather", "f"]
        .map(|name| ToolSpec {
            name: name.into(),
            description: String::new(),
            parameters: "{}".into(),
        })
        .to_vec()
}

fn call(name: &str, arguments: &str) -> Call {
    Call {
        name: name.into(),
        arguments: arguments.into(),
    }
}

fn hermes(text: &str) -> (String, Vec<Call>) {
    let (content, _, calls) = split(text, ToolFormat::Hermes, &tools());
    (content, calls)
}

fn llama(text: &str) -> (String, Vec<Call>) {
    let (content, _, calls) = split(text, ToolFormat::Llama3, &tools());
    (content, calls)
}

#[test]
fn hermes_calls_come_out_with_their_arguments_untouched() {
    let text = "Let me see.\n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\":  \"Zürich\", \"days\": 1.50}}\n</tool_call>\n<tool_call>{\"arguments\": {}, \"name\": \"f\"}</tool_call>";
    let (content, calls) = hermes(text);
    assert_eq!(content, "Let me see.");
    assert_eq!(
        calls,
        [
            call("get_weather", "{\"city\":  \"Zürich\", \"days\": 1.50}"),
            call("f", "{}")
        ]
    );
}

#[test]
fn broken_calls_stay_text_to_the_letter() {
    for text in [
        "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": }\n</tool_call>",
        "<tool_call>{\"name\": \"f\", \"arguments\": [1]}</tool_call> and so on",
        "<tool_call>{\"arguments\": {}}</tool_call>",
        "<tool_call>{\"name\": \"f\"} {}</tool_call>",
        "<tool_call>f(1)</tool_call>",
        "<tool_call></tool_call>",
        "a <tool_call>{\"name\": \"f\", \"argum",
        "ends in <tool_c",
    ] {
        assert_eq!(hermes(text), (text.to_owned(), vec![]));
    }
}

#[test]
fn a_missing_closing_tag_does_not_lose_a_complete_call() {
    let (content, calls) = hermes("<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n");
    assert_eq!(
        (content.as_str(), calls),
        ("", vec![call("f", "{\"a\": 1}")])
    );
}

#[test]
fn arguments_written_as_a_string_are_what_stands_in_it() {
    let (_, calls) =
        hermes(r#"<tool_call>{"name": "f", "arguments": "{\"a\": \"x\"}"}</tool_call>"#);
    assert_eq!(calls, [call("f", "{\"a\": \"x\"}")]);
    let text = r#"<tool_call>{"name": "f", "arguments": "{\"a\""}</tool_call>"#;
    assert_eq!(hermes(text), (text.to_owned(), vec![]));
}

#[test]
fn text_around_calls_is_content() {
    let (content, calls) = hermes("a\n<tool_call>{\"name\": \"f\"}</tool_call>\n b <b>");
    assert_eq!((content.as_str(), calls), ("ab <b>", vec![call("f", "{}")]));
    assert_eq!(hermes("  plain \n\n").0, "  plain \n\n");
}

#[test]
fn llama_calls_are_the_whole_reply() {
    let expected = vec![call("get_weather", "{\"city\": \"Oslo\"}")];
    let one = "{\"name\": \"get_weather\", \"parameters\": {\"city\": \"Oslo\"}}";
    assert_eq!(llama(one), (String::new(), expected.clone()));
    assert_eq!(
        llama(&format!("<|python_tag|>{one}")),
        (String::new(), expected)
    );
    let (content, calls) = llama(&format!("{one}; {one}\n"));
    assert_eq!((content.as_str(), calls.len()), ("", 2));
    for text in [
        "{\"name\": \"unknown\", \"parameters\": {}}",
        "{\"answer\": 42}",
        "{\"name\": \"f\", \"parameters\": {",
        "{ not json",
        "<|python_tag|>weather.call(1)",
        "Use {\"name\": \"f\", \"parameters\": {}}",
    ] {
        assert_eq!(llama(text), (text.to_owned(), vec![]), "{text}");
    }
}

#[test]
fn reasoning_is_kept_apart_from_the_answer() {
    let (content, reasoning, calls) = split(
        "<think>\nHm, <b>.\n</think>\n\nYes.",
        ToolFormat::Hermes,
        &tools(),
    );
    assert_eq!(
        (content.as_str(), reasoning.as_deref()),
        ("Yes.", Some("Hm, <b>."))
    );
    assert!(calls.is_empty());
    let (content, reasoning, _) = split("a <think>b</think>", ToolFormat::Hermes, &[]);
    assert_eq!((content.as_str(), reasoning), ("a <think>b</think>", None));
    let text = "<think>x</think>{\"name\": \"f\", \"parameters\": {}}";
    assert_eq!(
        split(text, ToolFormat::Llama3, &tools()).2,
        [call("f", "{}")]
    );
    // Cut off while it was thinking.
    assert_eq!(
        split("<think>\nx", ToolFormat::Hermes, &[]).1.as_deref(),
        Some("x")
    );
}

#[test]
fn without_tools_nothing_is_a_call() {
    let text = "<tool_call>{\"name\": \"f\"}</tool_call>";
    for format in [ToolFormat::Hermes, ToolFormat::Llama3] {
        assert_eq!(split(text, format, &[]).0, text);
    }
}

#[test]
fn content_is_not_held_back_longer_than_needed() {
    let mut parser = Parser::new(ToolFormat::Hermes, &tools());
    let mut events = Vec::new();
    parser.push("Hello", &mut events);
    assert_eq!(events, [Event::Content("Hello".into())]);
    parser.push(" <tool", &mut events);
    assert_eq!(events.len(), 1);
    parser.push("s>", &mut events);
    assert_eq!(events[1], Event::Content(" <tools>".into()));
}

#[test]
fn the_format_is_the_one_that_the_template_shows() {
    let of = |source: &str| ToolFormat::of(&ChatTemplate::new(source, None, None).unwrap());
    assert_eq!(of("<tool_call>"), ToolFormat::Hermes);
    assert_eq!(of("<|python_tag|>"), ToolFormat::Llama3);
    assert_eq!(of("neither"), ToolFormat::Hermes);
}

const PIECES: [&str; 14] = [
    "<tool_call>",
    "</tool_call>",
    "{\"name\": \"f\", \"arguments\": {\"a\": [1, \"é}\"]}}",
    "\n",
    " ",
    "<think>",
    "</think>",
    "text",
    "{",
    "}",
    "<|python_tag|>",
    "{\"name\": \"f\", \"parameters\": {}}",
    ";",
    "<tool",
];

fn joined(events: Vec<Event>) -> (String, String, Vec<Call>) {
    let (mut content, mut thoughts, mut calls) = (String::new(), String::new(), Vec::new());
    for event in events {
        match event {
            Event::Content(text) => content.push_str(&text),
            Event::Reasoning(text) => thoughts.push_str(&text),
            Event::Call(call) => calls.push(call),
        }
    }
    (content, thoughts, calls)
}

#[test]
fn blank_lines_before_a_thought_are_no_part_of_it_also_when_they_come_one_by_one() {
    let mut parser = Parser::new(ToolFormat::Hermes, &tools());
    let mut events = Vec::new();
    for piece in ["<think>", "\n", "\n", "hm", "</think>", "yes"] {
        parser.push(piece, &mut events);
    }
    parser.finish(&mut events);
    let (answer, thoughts, _) = joined(events);
    assert_eq!((answer.as_str(), thoughts.as_str()), ("yes", "hm"));
}

proptest! {
    #[test]
    fn however_a_reply_is_cut_the_result_is_the_same(
        pieces in prop::collection::vec(0..PIECES.len(), 0..10),
        llama: bool,
        cut in 1usize..7,
    ) {
        let text: String = pieces.iter().map(|i| PIECES[*i]).collect();
        let format = if llama { ToolFormat::Llama3 } else { ToolFormat::Hermes };
        let run = |cut: usize| {
            let mut parser = Parser::new(format, &tools());
            let mut events = Vec::new();
            let chars: Vec<char> = text.chars().collect();
            for piece in chars.chunks(cut) {
                parser.push(&piece.iter().collect::<String>(), &mut events);
            }
            parser.finish(&mut events);
            joined(events)
        };
        let whole = run(usize::MAX);
        prop_assert_eq!(&run(cut), &whole, "{}", text);
        if whole.2.is_empty() && whole.1.is_empty() && !text.contains("<think>") {
            prop_assert_eq!(&whole.0, &text);
        }
    }
}
