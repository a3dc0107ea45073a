//! Whole episodes on real machines: right calls are worth 1, idleness and wrong calls nothing, and what is wrong with an image is said.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod jail;

use std::{fs, path::Path};

use jail::Bubble;
use sdk::{Action, Done, Episode, Fault, Finish, Message, Role, Split, Step};
use tempfile::TempDir;
use tool_import::{
    Source, begin,
    driver::{Driver, Format, Made},
    listed, problems,
    session::{Rules, Session},
    wire::ToolsIn,
};

const RULES: Rules = Rules {
    tools_in: ToolsIn::Message,
    max_turns: 30,
    max_calls: 30,
    calls_per_reply: 8,
    patience: 3,
    output_chars: 4_000,
};

const TIMEOUT_MS: u32 = 10_000;

fn image(name: &str) -> String {
    format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn start(image: &str, format: Format, task: &str) -> Session {
    let source = Source::Image(image.into(), format);
    begin::<Bubble>(&source, task, TIMEOUT_MS, RULES).unwrap()
}

fn say(session: &mut Session, reply: &str) -> Step {
    let reply = Message::new(Role::Assistant, reply);
    let finish = Finish::Stop;
    session.act(Action { reply, finish }).unwrap()
}

fn value(session: &mut Session) -> f64 {
    session.outcome().unwrap().unwrap().value
}

fn reference(image: &str, format: Format, task: &str) -> Vec<Vec<Made>> {
    let driver: Driver<Bubble> = Driver::create(image, format).unwrap();
    driver.open(task).unwrap().reference
}

/// Plays calls and ends each request in words; `last` are the words of the end.
fn play(session: &mut Session, turns: &[Vec<Made>], last: &str) -> Option<Done> {
    let mut done = None;
    for turn in turns {
        for call in turn {
            say(session, &serde_json::to_string(call).unwrap());
        }
        done = say(session, last).done;
    }
    done.or_else(|| say(session, last).done)
}

fn everywhere(image: &str, format: Format) -> Vec<String> {
    let list = |split| listed::<Bubble>(image, format, &[], split).unwrap();
    [list(Split::Train), list(Split::HeldOut)].concat()
}

#[test]
fn the_right_calls_are_worth_one_and_idleness_and_wrong_calls_nothing() {
    for (name, format, told) in [
        ("bfcl", Format::Bfcl, "Done."),
        ("tau2", Format::Tau2, "It is on shelf 1,204."),
    ] {
        let image = image(name);
        let tasks = everywhere(&image, format);
        assert!(tasks.len() >= 3, "{tasks:?}");
        for task in tasks {
            let reference = reference(&image, format, &task);
            let mut right = start(&image, format, &task);
            assert_eq!(play(&mut right, &reference, told), Some(Done::Finished));
            assert_eq!(value(&mut right), 1.0, "{task}");
            let nothing = vec![Vec::new(); reference.len()];
            let mut idle = start(&image, format, &task);
            assert_eq!(play(&mut idle, &nothing, told), Some(Done::Finished));
            assert_eq!(value(&mut idle), 0.0, "{task}");
            let mut wrong = reference;
            let call = wrong.iter_mut().flatten().next_back().unwrap();
            for argument in call.arguments.values_mut() {
                *argument = "something else".into();
            }
            if call.arguments.is_empty() {
                call.name = "see_room".into();
            }
            let mut session = start(&image, format, &task);
            play(&mut session, &wrong, told);
            assert_eq!(value(&mut session), 0.0, "{task}");
        }
    }
}

/// `NEXTSTATE_TOOL_IMAGES` names a folder with what `examples/tool-import/fetch.py` makes, as `bfcl` and `tau2`; without it there is
/// nothing to do. `NEXTSTATE_TOOL_STEP`: every how manieth task.
#[test]
fn the_right_calls_of_published_tasks_are_worth_one_where_somebody_fetched_them() {
    let Ok(images) = std::env::var("NEXTSTATE_TOOL_IMAGES") else {
        return;
    };
    let step = std::env::var("NEXTSTATE_TOOL_STEP").map_or(40, |step| step.parse().unwrap());
    for (name, format) in [("bfcl", Format::Bfcl), ("tau2", Format::Tau2)] {
        let image = format!("{images}/{name}");
        for task in everywhere(&image, format).iter().step_by(step) {
            let driver: Driver<Bubble> = Driver::create(&image, format).unwrap();
            let opened = driver.open(task).unwrap();
            let mut session = start(&image, format, task);
            let words = format!("Done: {}", opened.communicate.join("; "));
            play(&mut session, &opened.reference, &words);
            assert_eq!(value(&mut session), 1.0, "{task}");
        }
    }
}

#[test]
fn splits_and_families_are_those_of_the_lists() {
    let bfcl = image("bfcl");
    let of = |image: &str, format, families: &[&str], split| {
        let families: Vec<_> = families.iter().map(|name| (*name).to_owned()).collect();
        listed::<Bubble>(image, format, &families, split)
    };
    assert_eq!(
        of(&bfcl, Format::Bfcl, &["base"], Split::Train).unwrap(),
        ["multi_turn_base_0", "multi_turn_base_1"]
    );
    assert_eq!(
        of(&bfcl, Format::Bfcl, &[], Split::HeldOut).unwrap(),
        ["multi_turn_base_4"]
    );
    let tau2 = image("tau2");
    // Neither one that is done when nothing is, nor one for a judge, nor one whose user has tools.
    assert_eq!(
        of(&tau2, Format::Tau2, &["library"], Split::Train).unwrap(),
        ["library/lend", "library/back"]
    );
    assert_eq!(
        of(&tau2, Format::Tau2, &[], Split::HeldOut).unwrap(),
        ["library/held"]
    );
    let error = of(&tau2, Format::Tau2, &["retail"], Split::Train).unwrap_err();
    assert!(matches!(error, Fault::InvalidConfig(why) if why.contains("`retail`")));
}

#[test]
fn the_model_reads_tools_and_requests_and_an_excluded_or_withheld_tool_is_not_there() {
    let bfcl = image("bfcl");
    let opening = |task: &str| {
        let mut session = start(&bfcl, Format::Bfcl, task);
        let shown = session.observe().unwrap().messages[0].content.clone();
        (session, shown)
    };
    let (mut session, shown) = opening("multi_turn_base_1");
    assert!(shown.contains("\"name\":\"see_room\"") && !shown.contains("dance"));
    assert!(shown.contains("\"type\":\"object\"") && shown.contains("\"type\":\"number\""));
    assert!(shown.ends_with("Request: Which rooms are there?"));
    let told = say(
        &mut session,
        r#"{"name": "see_room", "arguments": {"room": "attic"}}"#,
    )
    .next;
    assert_eq!(
        told.messages[0].content,
        r#"Result of see_room: {"error":"there is no room attic"}"#
    );
    assert_eq!(told.evidence("error"), Some(1.0));
    let (mut session, shown) = opening("multi_turn_miss_func_0");
    assert!(!shown.contains("set_lamp"));
    let later = say(&mut session, "I cannot.").next.messages[0]
        .content
        .clone();
    assert!(later.contains("\"name\":\"set_lamp\""), "{later}");
    let mut session = start(&image("tau2"), Format::Tau2, "library/lend");
    let shown = session.observe().unwrap().messages[0].content.clone();
    assert!(shown.starts_with("# Rules of the library"), "{shown}");
    assert!(shown.contains("You are bob.\nYou want to know the shelf."));
}

#[test]
fn a_call_that_never_ends_has_not_happened_and_the_episode_goes_on() {
    let bfcl = image("bfcl");
    let source = Source::Image(bfcl.clone(), Format::Bfcl);
    let task = "multi_turn_base_4";
    let mut session = begin::<Bubble>(&source, task, 1_000, RULES).unwrap();
    let told = say(&mut session, r#"{"name": "dance", "arguments": {}}"#).next;
    assert!(told.messages[0].content.contains("took too long"));
    let reference = reference(&bfcl, Format::Bfcl, task);
    play(&mut session, &reference, "Done.");
    assert_eq!(value(&mut session), 1.0);
}

/// An image of BFCL's with one file of the package replaced.
fn with_file(path: &str, content: &str) -> (TempDir, String) {
    with_file_of("bfcl", &format!("bfcl_eval/{path}"), content)
}

fn with_file_of(name: &str, path: &str, content: &str) -> (TempDir, String) {
    let place = tempfile::tempdir().unwrap();
    let copied = std::process::Command::new("cp")
        .args(["-r", &image(name), &place.path().display().to_string()])
        .status()
        .unwrap();
    assert!(copied.success());
    let image = place.path().join(name);
    fs::write(image.join(path), content).unwrap();
    (place, image.display().to_string())
}

const QUESTIONS: &str = "data/BFCL_v0_multi_turn_base.json";
const ANSWERS: &str = "data/possible_answer/BFCL_v0_multi_turn_base.json";
const HOUSE: &str = "eval_checker/multi_turn_eval/func_source_code/house.py";

fn entry(more: &str) -> String {
    format!(
        r#"{{"id": "multi_turn_base_4", "question": [[{{"role": "user", "content": "?"}}]], "initial_config": {{}}, "involved_classes": ["HouseAPI"]{more}}}"#
    )
}

fn answer(call: &str) -> String {
    serde_json::json!({"id": "multi_turn_base_4", "ground_truth": [[call]]}).to_string()
}

#[test]
fn a_list_that_cannot_be_used_is_named_with_its_line_and_the_reason() {
    let huge = format!("{{\"id\": \"{}\"}}", "x".repeat(200));
    for (content, part) in [
        ("{\"id\": \"multi_turn_base_0\"}\n{", "line 2, is no JSON"),
        ("[1]", "line 1, is no object"),
        ("{}", "is no id of a task"),
        ("{\"id\": \"a b\"}", "is no id of a task"),
        (huge.as_str(), "is no id of a task"),
        ("\u{1}", "is no JSON"),
    ] {
        let (_place, image) = with_file(QUESTIONS, content);
        let error = listed::<Bubble>(&image, Format::Bfcl, &[], Split::Train).unwrap_err();
        let Fault::InvalidConfig(why) = error else {
            panic!("{content}: {error:?}");
        };
        assert!(why.contains(part) && why.contains("of bfcl: list"), "{why}");
    }
}

#[test]
fn a_list_beyond_all_measure_is_not_read() {
    let (_place, image) = with_file(QUESTIONS, "");
    let path = Path::new(&image).join("bfcl_eval").join(QUESTIONS);
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len((64 << 20) + 1).unwrap();
    let error = listed::<Bubble>(&image, Format::Bfcl, &[], Split::Train).unwrap_err();
    assert!(matches!(error, Fault::InvalidConfig(why) if why.contains("more than 67108864 bytes")));
}

#[test]
fn a_task_that_cannot_be_used_is_a_fault_that_says_why() {
    let nested = format!(r#", "deep": {}1{}"#, "[".repeat(5_000), "]".repeat(5_000));
    for (path, content, part) in [
        (
            QUESTIONS,
            entry(r#", "involved_classes": ["GoneAPI"]"#),
            "defines the class GoneAPI",
        ),
        (
            QUESTIONS,
            entry(r#", "involved_classes": ["../../etc/x"]"#),
            "is no name of a class",
        ),
        (
            QUESTIONS,
            entry(r#", "initial_config": 3"#),
            "`initial_config`",
        ),
        (
            QUESTIONS,
            entry(r#", "initial_config": {"HouseAPI": 3}"#),
            "cannot take its scenario",
        ),
        (QUESTIONS, entry(r#", "question": []"#), "0 questions"),
        (
            QUESTIONS,
            entry(r#", "question": [[{"role": "user"}]]"#),
            "has no text",
        ),
        (QUESTIONS, entry(&nested), "is no JSON"),
        (ANSWERS, String::new(), "has no right calls"),
        (
            ANSWERS,
            answer("__import__('os').system('id')"),
            "is no call with plain values",
        ),
        (
            ANSWERS,
            answer("list_rooms("),
            "is no call with plain values",
        ),
        (
            ANSWERS,
            answer("see_room(room=open('/etc/passwd'))"),
            "is no call with plain values",
        ),
        (
            ANSWERS,
            answer("__init__()"),
            "is no call with plain values",
        ),
        (
            HOUSE,
            "class HouseAPI:\n    import nothing_like_this".into(),
            "cannot be imported",
        ),
        (
            HOUSE,
            "class HouseAPI:\n    pass\nraise SystemExit(3)".into(),
            "ended with",
        ),
    ] {
        let (_place, image) = with_file(path, &content);
        let source = Source::Image(image, Format::Bfcl);
        let started = begin::<Bubble>(&source, "multi_turn_base_4", TIMEOUT_MS, RULES);
        match started {
            Err(Fault::InvalidConfig(why)) => assert!(why.contains(part), "{why}"),
            other => panic!("{content}: {other:?}"),
        }
    }
}

#[test]
fn a_domain_that_cannot_be_used_is_a_fault_that_says_why() {
    let one = |more: &str| {
        let actions = r#"[{"name": "get_book", "arguments": {"title": "Moss"}}]"#;
        format!(
            r#"[{{"id": "lend", "user_scenario": {{"instructions": "?"}}, "evaluation_criteria": {{"actions": {actions}}}{more}}}]"#
        )
    };
    let data = "data/tau2/domains/library";
    for (path, content, part) in [
        (format!("{data}/tasks.json"), "{".to_owned(), "is no JSON"),
        (format!("{data}/tasks.json"), "{}".to_owned(), "is no list"),
        (
            format!("{data}/tasks.json"),
            "[]".to_owned(),
            "there is no task",
        ),
        (
            format!("{data}/tasks.json"),
            one(r#", "evaluation_criteria": 3"#),
            "of another form",
        ),
        (
            format!("{data}/tasks.json"),
            one(r#", "user_scenario": {}"#),
            "has no instructions",
        ),
        (
            format!("{data}/tasks.json"),
            one(r#", "id": "a b""#),
            "there is no task",
        ),
        (
            format!("{data}/tasks.json"),
            one(
                r#", "initial_state": {"initialization_actions": [{"env_type": "assistant", "func_name": "gone"}]}"#,
            ),
            "cannot begin",
        ),
        (format!("{data}/db.json"), "[]".to_owned(), "cannot begin"),
        (
            "tau2/domains/library/tools.py".into(),
            String::new(),
            "nothing to use",
        ),
        (
            "tau2/domains/library/tools.py".into(),
            "import gone".into(),
            "cannot be imported",
        ),
    ] {
        let (_place, image) = with_file_of("tau2", &path, &content);
        let source = Source::Image(image, Format::Tau2);
        match begin::<Bubble>(&source, "library/lend", TIMEOUT_MS, RULES) {
            Err(Fault::InvalidConfig(why)) => assert!(why.contains(part), "{why}"),
            other => panic!("{content}: {other:?}"),
        }
    }
}

#[test]
fn a_link_out_of_the_image_is_not_followed_and_an_empty_image_says_what_is_missing() {
    let (_place, image) = with_file(HOUSE, "");
    let answers = Path::new(&image).join("bfcl_eval").join(ANSWERS);
    fs::remove_file(&answers).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &answers).unwrap();
    let source = Source::Image(image, Format::Bfcl);
    let started = begin::<Bubble>(&source, "multi_turn_base_0", TIMEOUT_MS, RULES);
    assert!(matches!(started, Err(Fault::InvalidConfig(why)) if why.contains("out of the image")));
    let nothing = tempfile::tempdir().unwrap();
    let nothing = nothing.path().display().to_string();
    for (format, part) in [
        (Format::Bfcl, "BFCL_*multi_turn_*.json"),
        (Format::Tau2, "<domain>/tasks.json"),
    ] {
        let error = listed::<Bubble>(&nothing, format, &[], Split::Train).unwrap_err();
        assert!(matches!(error, Fault::InvalidConfig(why) if why.contains(part)));
    }
}

#[test]
fn every_problem_is_solved_by_its_program_through_the_interpreter() {
    let choice = problems::Choice {
        families: Vec::new(),
        difficulty: 3,
        train: 2,
        held_out: 1,
    };
    for task in problems::ids(&choice, Split::Train).unwrap() {
        let program = problems::problem(&task).unwrap().program;
        let mut session = begin::<Bubble>(&Source::Code, &task, TIMEOUT_MS, RULES).unwrap();
        let call = serde_json::json!({"name": "python", "arguments": {"code": program}});
        let told = say(&mut session, &call.to_string()).next;
        let shown = told.messages[0].content.clone();
        let (_, result) = shown.split_once(": ").unwrap();
        let result: serde_json::Value = serde_json::from_str(result).unwrap();
        let printed = result["output"].as_str().unwrap();
        let done = say(&mut session, &format!("I ran it.\n{printed}")).done;
        assert_eq!(
            (done, value(&mut session)),
            (Some(Done::Finished), 1.0),
            "{task}: {shown}"
        );
        let mut idle = begin::<Bubble>(&Source::Code, &task, TIMEOUT_MS, RULES).unwrap();
        say(&mut idle, "I do not know.");
        assert_eq!(value(&mut idle), 0.0, "{task}");
    }
}

#[test]
fn a_program_that_fails_hangs_or_takes_the_programs_place_is_an_answer() {
    let task = "digit-sum/1/1";
    let mut session = begin::<Bubble>(&Source::Code, task, 1_000, RULES).unwrap();
    let mut run = |code: &str| {
        let call = serde_json::json!({"name": "python", "arguments": {"code": code}});
        let next = say(&mut session, &call.to_string()).next;
        (next.messages[0].content.clone(), next.evidence("error"))
    };
    let (told, error) = run("1 / 0");
    assert!(
        told.contains("ZeroDivisionError") && error == Some(1.0),
        "{told}"
    );
    let (told, error) = run("while True: pass");
    assert!(told.contains("124") || told.contains("137"), "{told}");
    assert_eq!(error, Some(1.0));
    run("import os\nos.remove('/work/.program.py')\nos.mkdir('/work/.program.py')");
    let (told, error) = run("print(1)");
    assert!(told.contains("error") && error == Some(1.0), "{told}");
}
