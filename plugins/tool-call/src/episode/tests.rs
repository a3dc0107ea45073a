//! Episodes by hand: the reference, tricks, mistakes, limits.

use serde_json::json;

use super::*;
use crate::{families, oracle::UNSAID, schema::Function};

mod properties;

const RULES: Rules = Rules {
    style: Style::Plain,
    tools_in: ToolsIn::Message,
    max_turns: 12,
    max_calls: 16,
    calls_per_reply: 4,
    patience: 3,
    examples: 0,
};

fn start(task: &str) -> Session {
    Session::start(task, 7, RULES).unwrap()
}

fn text(content: impl Into<String>) -> Action {
    Action {
        reply: Message::new(Role::Assistant, content),
        finish: Finish::Stop,
    }
}

fn real(calls: &[(&str, &str)]) -> Action {
    let call = |(place, (name, arguments)): (usize, &(&str, &str))| ToolCall {
        id: format!("c{place}"),
        name: (*name).into(),
        arguments_json: (*arguments).into(),
    };
    let mut action = text("");
    action.reply.tool_calls = calls.iter().enumerate().map(call).collect();
    action.finish = Finish::ToolCalls;
    action
}

/// What a good model would say at the end of a request.
fn last_words(request: &Request) -> String {
    let value = request
        .answer
        .as_ref()
        .map(|expected| expected.value.as_str());
    format!("It is done: {}.", value.unwrap_or("all of it"))
}

fn value(session: &mut Session) -> f64 {
    session
        .outcome()
        .unwrap()
        .map_or(-1.0, |outcome| outcome.value)
}

fn metric(session: &mut Session, name: &str) -> f64 {
    let outcome = session.outcome().unwrap().unwrap();
    outcome
        .metrics
        .iter()
        .find(|metric| metric.name == name)
        .unwrap()
        .value
}

/// Says these replies until the episode is over; gives its value.
fn play(task: &str, replies: &[String]) -> f64 {
    let mut session = start(task);
    for reply in replies {
        if session.over {
            break;
        }
        session.act(text(reply)).unwrap();
    }
    value(&mut session)
}

fn all_tasks() -> impl Iterator<Item = String> {
    families::ALL.iter().flat_map(|family| {
        (1..=3).flat_map(move |difficulty| {
            [1, 2, 3, 17, 1001, 1002].map(|number| format!("{}/{difficulty}/{number}", family.name))
        })
    })
}

#[test]
fn the_reference_is_worth_everything_in_text_and_in_real_calls() {
    for task in all_tasks() {
        let requests = reference(&task, Style::Plain).unwrap();
        let (mut in_text, mut in_calls) = (start(&task), start(&task));
        assert_eq!(in_text.outcome().unwrap(), None);
        for (place, request) in requests.iter().enumerate() {
            for call in &request.calls {
                let step = in_text.act(text(call.to_json())).unwrap();
                assert_eq!(
                    (step.next.evidence("error"), step.done),
                    (Some(0.0), None),
                    "{task}"
                );
                let arguments = Value::Object(call.arguments.clone()).to_string();
                let step = in_calls.act(real(&[(&call.name, &arguments)])).unwrap();
                assert_eq!(step.next.messages[0].tool_call_id.as_deref(), Some("c0"));
                assert_eq!(step.next.evidence("error"), Some(0.0));
            }
            let is_last = place + 1 == requests.len();
            for session in [&mut in_text, &mut in_calls] {
                let step = session.act(text(last_words(request))).unwrap();
                assert_eq!(step.done, is_last.then_some(Done::Finished), "{task}");
                let said = &step.next.messages[0].content;
                assert!(
                    wire::THANKS.iter().any(|thanks| said.starts_with(thanks)),
                    "{task}: {said}"
                );
            }
        }
        for session in [&mut in_text, &mut in_calls] {
            assert_eq!(value(session), 1.0, "{task}");
            for name in [
                "format-valid",
                "tool-right",
                "arguments-right",
                "state-right",
                "requests-right",
            ] {
                assert_eq!(metric(session, name), 1.0, "{task}: {name}");
            }
            assert_eq!(metric(session, "errors"), 0.0);
        }
        assert!(matches!(
            in_text.act(text("More.")),
            Err(Fault::InvalidInput(_))
        ));
    }
}

#[test]
fn doing_nothing_is_worth_nothing() {
    for task in all_tasks() {
        let said: Vec<_> = reference(&task, Style::Plain)
            .unwrap()
            .iter()
            .map(last_words)
            .collect();
        assert_eq!(play(&task, &said), 0.0, "{task}");
        assert_eq!(play(&task, &vec!["I cannot.".into(); 12]), 0.0, "{task}");
        assert_eq!(play(&task, &vec![String::new(); 12]), 0.0, "{task}");
    }
}

/// Every function with made-up arguments of the right types.
fn spray(functions: &[Function]) -> Vec<String> {
    use crate::schema::Kind;
    let value = |kind: Kind| match kind {
        Kind::Text => json!("x"),
        Kind::Whole(least, _) => json!(least),
        Kind::Number => json!(1),
        Kind::Flag => json!(true),
        Kind::Choice(_, options) => json!(options[0]),
    };
    let call = |function: &Function| {
        let arguments = function
            .parameters
            .iter()
            .map(|parameter| (parameter.name.to_owned(), value(parameter.kind)));
        Call::new(function.name, Value::Object(arguments.collect())).to_json()
    };
    functions.iter().map(call).collect()
}

#[test]
fn no_trick_beats_honest_partial_work() {
    for family in families::ALL {
        for number in [1, 5, 1003] {
            let task = format!("{}/1/{number}", family.name);
            let request = reference(&task, Style::Plain).unwrap().remove(0);
            let mut session = start(&task);
            let opening = session.observe().unwrap().messages[0].content.clone();
            let functions = session.world.functions();
            let example = opening
                .lines()
                .find(|line| line.starts_with('{'))
                .unwrap()
                .to_owned();
            let right = request.calls[0].to_json();
            // The right tool, with arguments of which none is right.
            let wrong = request.calls[0]
                .arguments
                .keys()
                .map(|name| (name.clone(), json!("nothing")));
            let wrong = Call::new(&request.calls[0].name, Value::Object(wrong.collect())).to_json();
            let honest = play(&task, &[wrong, "Done.".into()]);
            assert!(
                (honest - (oracle::FORMAT + oracle::TOOL)).abs() < 1e-9,
                "{task}: {honest}"
            );
            let sprayed = spray(functions);
            let all_numbers: Vec<_> = (0..400).map(|number| number.to_string()).collect();
            let tricks: Vec<(&str, Vec<String>)> = vec![
                ("says that it is done", vec!["Done.".into()]),
                ("copies the prompt", vec![opening.clone(), "Done.".into()]),
                ("copies the example", vec![example.clone(), "Done.".into()]),
                ("repeats the example", vec![example; 12]),
                (
                    "names the tools",
                    vec![
                        functions
                            .iter()
                            .map(|function| function.name)
                            .collect::<Vec<_>>()
                            .join(", "),
                    ],
                ),
                (
                    "calls every tool",
                    [sprayed.clone(), vec!["Done.".into()]].concat(),
                ),
                (
                    "calls every tool at once",
                    vec![sprayed[..sprayed.len().min(4)].join("\n"), "Done.".into()],
                ),
                ("writes broken calls", vec!["{\"name\":".into(); 12]),
                (
                    "makes up a result",
                    vec![
                        format!("{right}\nResult: {{\"changed\":true}}"),
                        "Done.".into(),
                    ],
                ),
                ("lists all numbers", vec![all_numbers.join(" ")]),
                ("guesses without looking", vec![last_words(&request)]),
            ];
            for (trick, replies) in tricks {
                let worth = play(&task, &replies);
                assert!(
                    worth < honest,
                    "{task}: {trick} is worth {worth}, honest work {honest}"
                );
            }
        }
    }
}

#[test]
fn doing_too_much_and_undoing_are_worth_less_than_an_honest_mistake() {
    let done = || "Done.".to_owned();
    let honest = oracle::FORMAT + oracle::TOOL;
    let first = |task: &str| reference(task, Style::Plain).unwrap()[0].calls[0].clone();
    let overdone = |task: &str, more: &[String]| {
        let replies = [vec![first(task).to_json()], more.to_vec(), vec![done()]].concat();
        let worth = play(task, &replies);
        assert!(worth > 0.0 && worth < honest, "{task}: {worth}");
    };
    let todo = "todo-add/1/3";
    overdone(todo, &[first(todo).to_json()]);
    overdone(todo, &vec![first(todo).to_json(); 8]);
    overdone(
        todo,
        &[Call::new("delete_todo", json!({"id": 4})).to_json()],
    );
    overdone(
        todo,
        &[Call::new("complete_todo", json!({"id": 1})).to_json()],
    );
    let bank = "bank-transfer/1/3";
    let sent = first(bank).arguments;
    let back = json!({"from": sent["to"], "to": sent["from"], "amount": sent["amount"]});
    overdone(bank, &[Call::new("transfer", back).to_json()]);
    overdone(
        "calendar-book/1/3",
        &[Call::new("cancel_event", json!({"id": 4})).to_json()],
    );
}

#[test]
fn work_that_is_done_and_never_reported_is_worth_less_than_finished_work() {
    let call = reference("home-set/1/1", Style::Plain).unwrap()[0].calls[0].to_json();
    let mut session = start("home-set/1/1");
    for turn in 1..=12 {
        let step = session.act(text(&call)).unwrap();
        assert_eq!(step.done, (turn == 12).then_some(Done::Truncated));
        // The first call sets the light, the others set what is set.
        let (changed, repeated) = if turn == 1 { (1.0, 0.0) } else { (0.0, 1.0) };
        assert_eq!(step.next.evidence("changed"), Some(changed));
        assert_eq!(step.next.evidence("repeated"), Some(repeated));
    }
    assert_eq!(value(&mut session), UNSAID);
    assert_eq!(metric(&mut session, "repeated"), 11.0);
}

#[test]
fn a_half_right_task_of_two_requests_stays_below_half() {
    let task = "calendar-book/3/2";
    let requests = reference(task, Style::Plain).unwrap();
    let right = requests[0].calls[0].to_json();
    assert_eq!(
        play(task, &[right.clone(), "Done.".into(), "Done.".into()]),
        0.25
    );
    let cancel = Call::new("cancel_event", json!({"id": 4})).to_json();
    let undone = play(task, &[right, "Done.".into(), cancel, "Done.".into()]);
    assert!((0.25..0.5).contains(&undone), "{undone}");
}

#[test]
fn the_user_goes_on_with_a_complaint_or_with_thanks() {
    let task = "message-send/3/4";
    let requests = reference(task, Style::Plain).unwrap();
    let mut session = start(task);
    let step = session.act(text("I do not want to.")).unwrap();
    let said = &step.next.messages[0].content;
    assert!(
        wire::COMPLAINTS
            .iter()
            .any(|complaint| said.starts_with(complaint)),
        "{said}"
    );
    assert!(
        said.ends_with(&requests[1].words) && step.done.is_none(),
        "{said}"
    );
    assert_eq!(step.next.evidence, []);
}

#[test]
fn format_errors_are_reported_and_patience_ends() {
    let mut session = start("todo-add/1/1");
    let step = session.act(text("{\"name\": \"add_todo\"")).unwrap();
    let said = &step.next.messages[0];
    assert_eq!(said.role, Role::User);
    assert!(
        said.content
            .starts_with("Format error: the call is no valid JSON: EOF"),
        "{}",
        said.content
    );
    assert_eq!(step.next.evidence("error"), Some(1.0));
    assert_eq!(session.act(text("")).unwrap().done, None);
    assert_eq!(session.act(text("{}")).unwrap().done, Some(Done::Abandoned));
    assert_eq!(
        (value(&mut session), metric(&mut session, "format-valid")),
        (0.0, 0.0)
    );
    let mut session = start("todo-add/1/1");
    for turn in 0..12 {
        let reply = if turn % 2 == 0 {
            "{}"
        } else {
            r#"{"name":"list_todos"}"#
        };
        let step = session.act(text(reply)).unwrap();
        assert_eq!(step.done, (turn == 11).then_some(Done::Truncated), "{turn}");
    }
    assert_eq!(metric(&mut session, "format-valid"), 0.5);
}

#[test]
fn too_many_calls_in_a_reply_are_none_and_too_many_in_all_end_the_episode() {
    let call = r#"{"name":"recall","arguments":{"name":"trip"}}"#;
    let mut session = start("units-convert/1/1");
    let step = session.act(text([call; 5].join("\n"))).unwrap();
    assert!(
        step.next.messages[0]
            .content
            .starts_with("Format error: these are 5 calls, and 4 are allowed")
    );
    assert_eq!(metric(&mut session, "calls"), 0.0);
    let step = session.act(real(&[("recall", "{}"); 5])).unwrap();
    assert_eq!(step.next.messages.len(), 5);
    assert_eq!(
        (
            metric(&mut session, "calls"),
            metric(&mut session, "format-valid")
        ),
        (0.0, 0.0)
    );
    for turn in 1..=5 {
        let step = session.act(text([call; 4].join("\n"))).unwrap();
        assert_eq!(step.next.messages[0].content.lines().count(), 4);
        assert_eq!(step.done, (turn == 5).then_some(Done::Truncated), "{turn}");
    }
}

#[test]
fn real_calls_with_broken_arguments_are_answered_each() {
    let mut session = start("home-set/1/1");
    let step = session
        .act(real(&[
            ("read_room", "{\"room\":"),
            ("set_lights", "{}"),
            ("read_room", "[1]"),
        ]))
        .unwrap();
    let errors = step.next.messages.iter().map(|message| {
        assert_eq!((message.role, message.name.is_some()), (Role::Tool, true));
        serde_json::from_str::<Value>(&message.content).unwrap()["error"]
            .as_str()
            .unwrap()
            .to_owned()
    });
    let errors: Vec<_> = errors.collect();
    assert!(
        errors[0].starts_with("bad-json: `arguments` is no valid JSON"),
        "{errors:?}"
    );
    assert!(
        errors[1]
            .starts_with("unknown-tool: there is no tool `set_lights`; the tools are read_room"),
        "{errors:?}"
    );
    assert_eq!(errors[2], "bad-json: `arguments` has to be a JSON object");
    assert_eq!(metric(&mut session, "errors"), 3.0);
    let many = vec![("read_room", "{}"); 1_000];
    assert!(session.act(real(&many)).unwrap().next.messages.len() <= 256);
}

#[test]
fn trap_15_a_reply_that_was_cut_off_is_neither_an_answer_nor_an_error() {
    let mut session = start("home-set/1/1");
    let call = reference("home-set/1/1", Style::Plain).unwrap()[0].calls[0].to_json();
    for reply in ["I will set the", &call] {
        let cut = Action {
            finish: Finish::Length,
            ..text(reply)
        };
        let step = session.act(cut).unwrap();
        assert_eq!((step.done, step.next.evidence("error")), (None, None));
    }
    let mut cut = real(&[("read_room", "{}")]);
    cut.finish = Finish::Length;
    let step = session.act(cut).unwrap();
    assert_eq!(step.next.messages[0].tool_call_id.as_deref(), Some("c0"));
    assert_eq!(step.next.evidence("error"), None);
    let counted = ["cut", "errors", "calls", "format-valid"].map(|name| metric(&mut session, name));
    assert_eq!((counted, value(&mut session)), ([3.0, 0.0, 0.0, 0.0], 0.0));
    session.act(text(call)).unwrap();
    session.act(text("Done.")).unwrap();
    assert_eq!(
        (value(&mut session), metric(&mut session, "format-valid")),
        (1.0, 1.0)
    );
}

#[test]
fn the_task_alone_makes_the_opening_and_the_seed_the_reactions() {
    let opening = |seed| {
        Session::start("shop-order/2/9", seed, RULES)
            .unwrap()
            .observe()
            .unwrap()
    };
    assert_eq!(opening(1), opening(2));
    let reaction = |seed| {
        let mut session = Session::start("shop-order/2/9", seed, RULES).unwrap();
        session.act(text("No.")).unwrap().next.messages[0]
            .content
            .clone()
    };
    assert_eq!(reaction(3), reaction(3));
    let all: std::collections::BTreeSet<_> = (0..40).map(reaction).collect();
    assert_eq!(all.len(), wire::COMPLAINTS.len());
}

#[test]
fn a_snapshot_of_another_config_is_a_fault() {
    let mut session = start("files-write/1/1");
    let call = reference("files-write/1/1", Style::Plain).unwrap()[0].calls[0].to_json();
    session.act(text(format!("{call}\n{call}"))).unwrap();
    let snapshot = session.snapshot().unwrap();
    assert!(Session::restore(&snapshot, RULES).is_ok());
    let strict = Rules {
        calls_per_reply: 1,
        ..RULES
    };
    let error = Session::restore(&snapshot, strict).unwrap_err();
    assert!(
        matches!(&error, Fault::InvalidInput(why) if why.contains("another config")),
        "{error:?}"
    );
    assert!(Session::start("files-write/1/0", 1, RULES).is_err());
}

#[test]
fn examples_are_other_tasks_of_the_family_with_their_first_call() {
    let rules = Rules {
        examples: 2,
        ..RULES
    };
    let shown = |task: &str| {
        let mut session = Session::start(task, 1, rules).unwrap();
        session.observe().unwrap().messages[0].content.clone()
    };
    let opening = shown("calendar-move/1/1000");
    assert_eq!(opening.matches("\n\nRequest: ").count(), 3);
    assert_eq!(opening.matches("\n{\"name\": \"move_event\"").count(), 2);
    // Its own solution is not among them.
    let own = reference("calendar-move/1/1000", rules.style).unwrap();
    assert!(!opening.contains(&own[0].calls[0].to_json()));
    assert!(opening.ends_with(&own[0].words));
}
