//! The rules of an episode, on a page that is made by hand.

use std::cell::RefCell;

use sdk::browser::Node;
use serde_json::json;

use super::*;

/// A page with a field, a list of choices, a button that sends, and a list of much text.
#[derive(Default)]
struct Fake {
    field: RefCell<String>,
    choice: RefCell<String>,
    sent: RefCell<bool>,
    lines: usize,
    reward: RefCell<Option<f64>>,
    log: RefCell<Vec<String>>,
}

fn node(id: u32, depth: u32, role: &str, name: &str, drawn: bool) -> Node {
    let size = if drawn { 20.0 } else { 0.0 };
    Node {
        id,
        depth,
        role: role.into(),
        name: name.into(),
        value: String::new(),
        states: Vec::new(),
        x: f64::from(id),
        y: 0.0,
        width: size,
        height: size,
    }
}

impl Surface for Fake {
    fn tree(&self) -> Result<Vec<Node>, Fault> {
        let mut field = node(11, 0, "textbox", "Name", true);
        field.value = self.field.borrow().clone();
        let mut list = node(12, 0, "combobox", "City", true);
        list.value = self.choice.borrow().clone();
        let mut nodes = vec![
            field,
            list,
            node(13, 1, "option", "Oslo", false),
            node(14, 0, "button", "Send", true),
        ];
        nodes.extend((0..self.lines).map(|at| node(20, 0, "text", &format!("line {at}"), true)));
        Ok(nodes)
    }

    fn click(&self, node: u32) -> Result<(), Fault> {
        self.log.borrow_mut().push(format!("click {node}"));
        if node == 14 && self.reward.borrow().is_some() {
            *self.reward.borrow_mut() = Some(1.0);
        }
        self.sent.replace(*self.sent.borrow() || node == 14);
        Ok(())
    }

    fn click_at(&self, x: f64, y: f64) -> Result<(), Fault> {
        self.log.borrow_mut().push(format!("click-at {x} {y}"));
        Ok(())
    }

    fn drag(&self, from: (f64, f64), to: (f64, f64)) -> Result<(), Fault> {
        self.log.borrow_mut().push(format!("drag {from:?} {to:?}"));
        Ok(())
    }

    fn fill(&self, node: u32, text: &str) -> Result<(), Fault> {
        match node {
            11 => self.field.replace(text.into()),
            12 if text == "Oslo" => self.choice.replace(text.into()),
            _ => return Err(Fault::InvalidInput(format!("no choice {text}\nhere"))),
        };
        Ok(())
    }

    fn type_text(&self, _: &str) -> Result<(), Fault> {
        Err(Fault::Internal("the browser is gone".into()))
    }

    fn press(&self, key: &str) -> Result<(), Fault> {
        self.log.borrow_mut().push(format!("press {key}"));
        Ok(())
    }

    fn scroll(&self, _: f64, y: f64) -> Result<(), Fault> {
        self.log.borrow_mut().push(format!("scroll {y}"));
        Ok(())
    }

    fn evaluate(&self, script: &str) -> Result<String, Fault> {
        let state = json!({"name": *self.field.borrow(), "city": *self.choice.borrow(), "final": *self.sent.borrow()});
        let reward = *self.reward.borrow();
        Ok(match (script, reward) {
            (STATE, _) => state.to_string(),
            (miniwob::LOOK, Some(reward)) => {
                json!({"over": reward != 0.0, "reward": reward}).to_string()
            }
            _ => "\"Press \\n Send.\"".into(),
        })
    }
}

const RULES: Rules = Rules {
    max_turns: 6,
    tree_chars: 300,
    end_when_solved: true,
};

fn visit_with(page: Fake, rules: Rules) -> Visit<Fake> {
    let expected = json!({"name": "Anna", "city": "Oslo", "final": true});
    let draft = Draft::new("Send Anna to Oslo.", json!({}), expected, Vec::new());
    Visit::ours(page, draft, rules).unwrap()
}

fn visit() -> Visit<Fake> {
    visit_with(Fake::default(), RULES)
}

fn action(text: &str) -> sdk::Action {
    sdk::Action {
        reply: Message::new(Role::Assistant, text),
        finish: Finish::Stop,
    }
}

fn act<S: Surface + 'static>(
    visit: &mut Visit<S>,
    text: &str,
) -> (String, Option<Done>, [Option<f64>; 3]) {
    let step = visit.act(action(text)).unwrap();
    let evidence = ["error", "repeated", "changed"].map(|name| step.next.evidence(name));
    (step.next.messages[0].content.clone(), step.done, evidence)
}

fn metric(visit: &mut Visit<Fake>, name: &str) -> f64 {
    let outcome = visit.outcome().unwrap().unwrap();
    let found = outcome.metrics.iter().find(|metric| metric.name == name);
    found.unwrap().value
}

#[test]
fn the_first_sight_is_the_task_the_actions_and_the_page() {
    let mut visit = visit();
    let first = visit.observe().unwrap();
    let text = &first.messages[0].content;
    assert!(text.starts_with("Task: Send Anna to Oslo.\nReply with one action: click [n] |"));
    let page = format!(
        "{PAGE_BEGINS}\n[1] textbox \"Name\"\n[2] combobox \"City\"\n  [3] option \"Oslo\"\n[4] button \"Send\"\n{PAGE_ENDS}"
    );
    assert!(text.ends_with(&page), "{text}");
    assert_eq!(visit.observe().unwrap(), first);
    assert_eq!(visit.outcome().unwrap(), None);
}

#[test]
fn a_task_is_solved_step_by_step_and_the_episode_ends() {
    let mut visit = visit();
    let (text, done, evidence) = act(&mut visit, "fill [1] Anna");
    assert!(
        text.starts_with("did: fill [1] textbox \"Name\" with \"Anna\"\npage changed\n--- page"),
        "{text}"
    );
    assert_eq!((done, evidence), (None, [Some(0.0), Some(0.0), Some(1.0)]));
    assert_eq!(visit.outcome().unwrap().unwrap().value, 1.0 / 6.0);
    act(&mut visit, "select [2] Oslo");
    let (text, done, _) = act(&mut visit, "click [4]");
    assert!(
        text.starts_with("did: click [4] button \"Send\"\n"),
        "{text}"
    );
    assert_eq!(done, Some(Done::Finished));
    assert_eq!(visit.outcome().unwrap().unwrap().value, 1.0);
    assert_eq!(
        (metric(&mut visit, "solved"), metric(&mut visit, "actions")),
        (1.0, 3.0)
    );
    assert!(matches!(
        visit.act(action("done")),
        Err(Fault::InvalidInput(_))
    ));
}

#[test]
fn clicking_a_choice_of_a_closed_list_chooses_it() {
    let mut visit = visit();
    act(&mut visit, "click [3]");
    assert_eq!(*visit.page.choice.borrow(), "Oslo");
    assert!(visit.page.log.borrow().is_empty());
}

#[test]
fn what_cannot_be_taken_back_ends_the_episode_without_credit() {
    let mut visit = visit();
    act(&mut visit, "fill [1] Anna");
    let (_, done, _) = act(&mut visit, "click [4]");
    assert_eq!(done, Some(Done::Abandoned));
    assert_eq!(visit.outcome().unwrap().unwrap().value, 0.0);
}

#[test]
fn errors_are_told_counted_and_change_nothing() {
    let rules = Rules {
        max_turns: 20,
        ..RULES
    };
    let mut visit = visit_with(Fake::default(), rules);
    for (reply, hint) in [
        (
            "I will press Send",
            "error: this is no action; the actions are",
        ),
        (
            "click [9]",
            "error: there is no [9] in the page as it was shown last\npage did not change",
        ),
        ("click [0]", "there is no [0]"),
        (
            "click [4] textbox \"Name\"",
            "error: [4] is button \"Send\", not textbox",
        ),
        ("fill [4] x", "error: [4] is button \"Send\", no field"),
        ("select [2] Rome", "error: no choice Rome here\n"),
        ("drag [1] to [3]", "error: [3] is not drawn"),
    ] {
        let (text, done, evidence) = act(&mut visit, reply);
        assert!(text.contains(hint), "{reply}: {text}");
        assert_eq!(
            (done, evidence[0], evidence[2]),
            (None, Some(1.0), Some(0.0)),
            "{reply}"
        );
    }
    assert!(visit.page.log.borrow().is_empty());
    assert_eq!(metric(&mut visit, "errors"), 7.0);
    assert_eq!(metric(&mut visit, "format-valid"), 1.0 - 1.0 / 7.0);
}

#[test]
fn a_browser_that_is_gone_is_a_fault_and_no_reproach_to_the_model() {
    let mut visit = visit();
    assert!(matches!(
        visit.act(action("type x")),
        Err(Fault::Internal(_))
    ));
}

#[test]
fn trap_15_a_reply_that_was_cut_off_does_nothing_and_is_no_error() {
    let mut visit = visit();
    let cut = sdk::Action {
        finish: Finish::Length,
        ..action("fill [1] An")
    };
    let step = visit.act(cut).unwrap();
    assert!(step.next.messages[0].content.contains("cut off") && step.next.evidence.is_empty());
    assert_eq!(*visit.page.field.borrow(), "");
    act(&mut visit, "fill [1] Anna");
    assert_eq!(
        (
            metric(&mut visit, "errors"),
            metric(&mut visit, "format-valid")
        ),
        (0.0, 1.0)
    );
}

#[test]
fn trap_12_the_same_useless_action_is_repeated_and_a_useful_one_is_not() {
    let mut visit = visit();
    let repeated = |visit: &mut Visit<Fake>, text| act(visit, text).2[1];
    assert_eq!(repeated(&mut visit, "press Tab"), Some(0.0));
    assert_eq!(repeated(&mut visit, "press Tab"), Some(1.0));
    assert_eq!(repeated(&mut visit, "fill [1] a"), Some(0.0));
    assert_eq!(repeated(&mut visit, "fill [1] a"), Some(0.0));
    assert_eq!(repeated(&mut visit, "fill 1 a"), Some(1.0));
}

#[test]
fn an_episode_ends_by_done_or_by_its_limit() {
    let mut visit = visit();
    let (text, done, evidence) = act(&mut visit, "done");
    assert_eq!((text.as_str(), done), ("did: done", Some(Done::Finished)));
    assert_eq!(evidence, [Some(0.0), Some(0.0), None]);
    let mut visit = self::visit();
    let endings: Vec<_> = (0..6).map(|_| act(&mut visit, "press a").1).collect();
    assert_eq!(endings[4..], [None, Some(Done::Truncated)]);
}

#[test]
fn without_end_when_solved_the_model_has_to_say_done() {
    let rules = Rules {
        end_when_solved: false,
        ..RULES
    };
    let mut visit = visit_with(Fake::default(), rules);
    for reply in ["fill [1] Anna", "select [2] Oslo", "click [4]"] {
        assert_eq!(act(&mut visit, reply).1, None);
    }
    assert_eq!(act(&mut visit, "done").1, Some(Done::Finished));
    assert_eq!(visit.outcome().unwrap().unwrap().value, 1.0);
}

#[test]
fn scrolling_pages_through_what_is_too_long_and_only_what_is_shown_can_be_meant() {
    let page = Fake {
        lines: 60,
        ..Fake::default()
    };
    let mut visit = visit_with(page, RULES);
    let last = visit.shown.end;
    assert!(
        act(&mut visit, &format!("click [{}]", last + 1))
            .0
            .starts_with("error: ")
    );
    let (text, _, evidence) = act(&mut visit, "scroll down");
    assert!(
        text.contains(&format!("[{}] text", last + 1)) && evidence[2] == Some(1.0),
        "{text}"
    );
    assert!(act(&mut visit, "click [1]").0.starts_with("error: "));
    assert!(
        act(&mut visit, &format!("click [{}]", last + 1))
            .0
            .starts_with("did: ")
    );
    act(&mut visit, "scroll up");
    assert_eq!(visit.shown.start, 0);
    assert_eq!(act(&mut visit, "scroll up").2[2], Some(0.0));
}

#[test]
fn tool_calls_are_answered_by_tool_messages() {
    let mut visit = visit();
    let mut calls = action("");
    for id in ["a", "b"] {
        calls.reply.tool_calls.push(sdk::ToolCall {
            id: id.into(),
            name: "click".into(),
            arguments_json: r#"{"node": 4}"#.into(),
        });
    }
    let answers = visit.act(calls.clone()).unwrap().next.messages;
    let ids: Vec<_> = answers
        .iter()
        .map(|answer| answer.tool_call_id.as_deref())
        .collect();
    assert_eq!(ids, [Some("a"), Some("b")]);
    assert!(
        answers
            .iter()
            .all(|answer| answer.role == Role::Tool && answer.content.starts_with("error: "))
    );
    calls.reply.tool_calls.pop();
    let answers = visit.act(calls).unwrap().next.messages;
    assert!(answers[0].content.starts_with("did: click [4]"));
}

#[test]
fn a_miniwob_page_is_over_when_it_says_so_and_its_reward_is_not_shown() {
    let page = Fake {
        reward: RefCell::new(Some(0.0)),
        ..Fake::default()
    };
    let rules = Rules {
        end_when_solved: false,
        ..RULES
    };
    let mut visit = Visit::miniwob(page, "click-test", 1, rules).unwrap();
    assert!(
        visit.observe().unwrap().messages[0]
            .content
            .starts_with("Task: Press Send.\n")
    );
    assert_eq!(act(&mut visit, "press a").1, None);
    let (text, done, evidence) = act(&mut visit, "click [4]");
    assert_eq!(text, "did: click [4] button \"Send\"\npage changed");
    assert_eq!((done, evidence[2]), (Some(Done::Finished), Some(1.0)));
    assert_eq!(visit.outcome().unwrap().unwrap().value, 1.0);
}
