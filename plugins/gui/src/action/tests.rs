//! The grammar: what is read, what is forgiven, and what is complained about.

use sdk::{Role, ToolCall};

use super::*;

fn text(content: &str) -> Result<Action, String> {
    read(&Message::new(Role::Assistant, content))
}

fn call(name: &str, arguments: &str) -> Result<Action, String> {
    let mut reply = Message::new(Role::Assistant, "");
    reply.tool_calls.push(ToolCall {
        id: "1".into(),
        name: name.into(),
        arguments_json: arguments.into(),
    });
    read(&reply)
}

fn click(node: usize) -> Action {
    let said = String::new();
    Action::Click { node, said }
}

fn fill(node: usize, text: &str) -> Action {
    let text = text.to_owned();
    Action::Fill { node, text }
}

#[test]
fn every_action_of_the_grammar_is_read_and_written_back() {
    for line in [
        "click [12]",
        "fill [12] some text",
        "select [3] Large",
        "type some text",
        "press Enter",
        "press Space",
        "press a",
        "scroll down",
        "drag [3] to [7]",
        "click-at 10 20.5",
        "done",
    ] {
        assert_eq!(text(line).unwrap().to_string(), line);
    }
}

#[test]
fn what_cannot_be_misunderstood_is_forgiven() {
    for line in [
        "Click [12]",
        "click 12",
        "  click [12]\n",
        "click [12].",
        "`click [12]`",
        "I press Save.\n```\nclick [12]\n```",
        "```text\nclick [12]\n```\nThat saves it.",
        "```click [12]```",
    ] {
        assert_eq!(text(line), Ok(click(12)), "{line}");
    }
    assert_eq!(text("fill [1] \"Anna\""), Ok(fill(1, "Anna")));
    assert_eq!(text("fill [1] 'Anna'"), Ok(fill(1, "Anna")));
    assert_eq!(text("fill 1 \u{201c}Anna\u{201d}"), Ok(fill(1, "Anna")));
    assert_eq!(text("fill [1] \"\""), Ok(fill(1, "")));
    assert_eq!(text("fill [1] 12\" wide"), Ok(fill(1, "12\" wide")));
    assert_eq!(text("press esc"), Ok(Action::Press("Escape".into())));
    assert_eq!(text("click-at (4, 5)"), text("click-at 4 5"));
    assert_eq!(text("drag 3 7"), text("drag [3] to [7]"));
}

#[test]
fn a_node_that_is_described_as_on_the_page_keeps_the_description() {
    let said = "button \"Save\"".to_owned();
    let described = Action::Click { node: 4, said };
    assert_eq!(text("click [4] button \"Save\""), Ok(described));
}

#[test]
fn anything_else_is_a_complaint_that_says_what_to_do() {
    for (line, hint) in [
        ("", "no action"),
        ("```\n```", "no action"),
        ("I will click the button.", "the actions are"),
        ("I will do it.\nclick [1]", "fenced block"),
        ("click [1]\nclick [2]", "more than one line"),
        ("```\nclick [1]\nclick [2]\n```", "several lines"),
        ("```\nclick [1]\n```\n```\nclick [2]\n```", "several fenced"),
        ("click", "click [n]"),
        ("click Save", "click [n]"),
        ("click [Save]", "click [n]"),
        ("click 12abc", "click [n]"),
        ("click [-1]", "click [n]"),
        ("fill [1]", "fill [n] text"),
        ("fill Name Anna", "fill [n] text"),
        ("select [1]", "select [n] choice"),
        ("type", "type text"),
        ("press Hyper", "no such key"),
        ("press", "no such key"),
        ("scroll", "scroll up"),
        ("scroll sideways", "scroll up"),
        ("drag [1]", "drag [n] to [m]"),
        ("drag [1] to [2] now", "drag [n] to [m]"),
        ("click-at 1", "click-at x y"),
        ("click-at -1 4", "click-at x y"),
        ("click-at NaN 4", "click-at x y"),
        ("click-at 1 2 3", "click-at x y"),
        ("done with it", "done, alone"),
    ] {
        let complaint = text(line).unwrap_err();
        assert!(complaint.contains(hint), "{line:?}: {complaint}");
    }
    assert!(text(&format!("type {}", "x".repeat(2_001))).is_err());
    assert!(text("click [99999999999999999999999]").is_err());
}

#[test]
fn tool_calls_of_the_same_names_do_the_same() {
    assert_eq!(call("click", r#"{"node": 12}"#), Ok(click(12)));
    assert_eq!(call("click", r#"{"node": "[12]"}"#), Ok(click(12)));
    assert_eq!(
        call("fill", r#"{"node": 1, "text": "a\nb"}"#),
        Ok(fill(1, "a\nb"))
    );
    assert_eq!(
        call("drag", r#"{"from": 3, "to": 7}"#),
        text("drag [3] to [7]")
    );
    assert_eq!(
        call("click_at", r#"{"x": 1, "y": 2}"#),
        text("click-at 1 2")
    );
    assert_eq!(call("press", r#"{"key": "Enter"}"#), text("press Enter"));
    assert_eq!(call("done", ""), Ok(Action::Done));
}

#[test]
fn broken_tool_calls_are_complaints() {
    for (name, arguments, hint) in [
        ("click", "{", "no JSON"),
        ("click", "{}", "`node`"),
        ("click", r#"{"node": 1.5}"#, "`node`"),
        ("fill", r#"{"node": 1}"#, "`text`"),
        ("click-at", r#"{"x": 1, "y": -2}"#, "`y`"),
        ("navigate", "{}", "no such tool"),
    ] {
        let complaint = call(name, arguments).unwrap_err();
        assert!(complaint.contains(hint), "{name} {arguments}: {complaint}");
    }
    let mut two = Message::new(Role::Assistant, "");
    for id in ["1", "2"] {
        two.tool_calls.push(ToolCall {
            id: id.into(),
            name: "done".into(),
            arguments_json: "{}".into(),
        });
    }
    assert!(read(&two).unwrap_err().contains("one at a time"));
}
