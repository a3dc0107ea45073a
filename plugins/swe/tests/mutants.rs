//! The table of bugs and the oracle, against the real Python: every bug is noticed, every fix counts, and no cheat does.
//!
//! Machines are bubblewrap's here; the host's own have their tests in `host/sandbox`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

mod jail;

use std::thread;

use jail::Bubble;
use sdk::{
    Action, Done, Episode, Fault, Finish, Message, OutcomeScore, Role, Split, Step, ToolCall,
};
use swe::{
    episode::{Attempt, Limits},
    image, mutants,
    oracle::{self, Work},
    repos::{REPOS, Repo},
    score,
    task::Task,
};

/// The files of the image `instances`: one repository and one instance, as an operator lays them out.
fn instances() -> Vec<(&'static str, String)> {
    let tasks = serde_json::json!([
        {
            "instance_id": "app-1",
            "repo": "app",
            "problem_statement": "`half(3)` should be 1.5.",
            "test_cmd": "python3 -m unittest -q",
            "FAIL_TO_PASS": "[\"test_odd (tests.test_app.HalfTest)\"]",
            "PASS_TO_PASS": ["tests.test_app.HalfTest.test_even"],
            "test_patch": "--- a/tests/test_app.py\n+++ b/tests/test_app.py\n@@ -4,3 +4,6 @@\n class HalfTest(unittest.TestCase):\n     def test_even(self):\n         self.assertEqual(half(4), 2)\n+\n+    def test_odd(self):\n+        self.assertEqual(half(3), 1.5)\n",
        },
        {
            "instance_id": "app-2",
            "repo": "other",
            "split": "test",
            "problem_statement": "None.",
            "FAIL_TO_PASS": ["tests.test_other.T.test_a"],
            "test_patch": "",
        },
    ]);
    let tests = "import unittest\nfrom app import half\n\nclass HalfTest(unittest.TestCase):\n    def test_even(self):\n        self.assertEqual(half(4), 2)\n";
    vec![
        ("tasks.json", tasks.to_string()),
        (
            "app/app.py",
            "def half(number):\n    return number // 2\n".into(),
        ),
        ("app/tests/__init__.py", String::new()),
        ("app/tests/test_app.py", tests.into()),
        ("other/secret.py", "ANSWER = 42\n".into()),
    ]
}

const LIMITS: Limits = Limits {
    max_turns: 4,
    command_ms: 10_000,
    output_chars: 2000,
};

fn start(task: &str) -> Attempt<Bubble> {
    Attempt::start(Task::built_in(task).unwrap(), LIMITS).unwrap()
}

fn act(attempt: &mut Attempt<Bubble>, text: &str) -> Step {
    let action = Action {
        reply: Message::new(Role::Assistant, text),
        finish: Finish::Stop,
    };
    attempt.act(action).unwrap()
}

fn run(attempt: &mut Attempt<Bubble>, command: &str) -> Step {
    act(attempt, &format!("```bash\n{command}\n```"))
}

fn score(attempt: &mut Attempt<Bubble>) -> OutcomeScore {
    attempt.outcome().unwrap().expect("something was done")
}

fn metric(outcome: &OutcomeScore, name: &str) -> f64 {
    let found = outcome.metrics.iter().find(|metric| metric.name == name);
    found.expect("the metric is there").value
}

/// A task, its repository's main file, and the edit that takes the bug out.
fn fix(task: &str) -> (&'static str, String) {
    let mutant = mutants::of_task(task).unwrap();
    let changed = mutant.sources().unwrap();
    let (_, wrong) = changed
        .iter()
        .find(|(file, _)| *file == mutant.file)
        .unwrap();
    let line = |text: &str| text[..mutant.offset].matches('\n').count();
    let sound = mutant.repo.source(mutant.file).unwrap();
    let at = line(sound);
    let lines = |text: &str| -> String {
        let lines: Vec<_> = text.lines().collect();
        lines[at.saturating_sub(4)..(at + 4).min(lines.len())].join("\n")
    };
    let edit = format!(
        "```edit {}\n<<<<<<< SEARCH\n{}\n=======\n{}\n>>>>>>> REPLACE\n```",
        mutant.file,
        lines(wrong),
        lines(sound)
    );
    (mutant.file, edit)
}

fn check_mutants_of(repo: &Repo) {
    for mutant in mutants::all().filter(|mutant| mutant.repo.name == repo.name) {
        let name = mutant.task();
        let task = Task::built_in(&name).unwrap();
        let machine: Bubble = task.lay_out().unwrap();
        let answers = score::answers(&oracle::drive(&task, &machine).unwrap());
        for check in &task.checks {
            let wrong = answers.get(&check.name) != Some(&check.right);
            assert_eq!(wrong, check.failing, "{name}: {}", check.name);
        }
        assert_eq!(
            answers.get(mutant.shown).map(String::as_str),
            Some(mutant.got),
            "{name}"
        );
        let grade = score::grade(&task.checks, &answers);
        assert_eq!((grade.value(false), grade.broke), (0.0, 0), "{name}");
    }
}

fn check_original(repo: &Repo) {
    let mutant = mutants::all()
        .find(|mutant| mutant.repo.name == repo.name)
        .unwrap();
    let task = Task::built_in(&mutant.task()).unwrap();
    let bytes = |content: &str| Some(content.as_bytes().to_vec());
    let files = repo
        .sources
        .iter()
        .map(|(file, content)| ((*file).to_owned(), bytes(content)));
    let work = Work {
        files: files.collect(),
        void: None,
    };
    let grade = oracle::examine::<Bubble>(&task, &work).unwrap();
    assert!(grade.resolved, "{}: {grade:?}", repo.name);
}

#[test]
fn every_repository_is_sound_and_every_bug_in_it_is_noticed_as_the_table_says() {
    thread::scope(|scope| {
        for half in REPOS.chunks(REPOS.len() / 2) {
            scope.spawn(move || {
                for repo in half {
                    check_original(repo);
                    check_mutants_of(repo);
                }
            });
        }
    });
}

#[test]
fn an_attempt_that_takes_the_bug_out_scores_one() {
    for split in [Split::Train, Split::HeldOut] {
        let task = &mutants::tasks(split)[0];
        let mut attempt = start(task);
        let opening = attempt.observe().unwrap();
        assert_eq!(opening, attempt.observe().unwrap());
        assert_eq!(attempt.outcome().unwrap(), None);
        let (file, edit) = fix(task);
        let seen = run(
            &mut attempt,
            &format!("git log --oneline && git status --short && cat {file}"),
        );
        assert_eq!(seen.next.evidence("exit-code"), Some(0.0));
        assert_eq!(seen.next.evidence("changed"), Some(0.0));
        assert_eq!(score(&mut attempt).value, 0.0);
        let edited = act(&mut attempt, &edit);
        assert_eq!(edited.next.evidence("changed"), Some(1.0), "{edited:?}");
        assert_eq!(score(&mut attempt).value, 1.0);
        let end = act(&mut attempt, "DONE");
        assert_eq!(end.done, Some(Done::Finished));
        let outcome = score(&mut attempt);
        let names = [
            "resolved",
            "fixed-share",
            "broke",
            "void",
            "edits",
            "commands",
        ];
        let metrics = names.map(|name| metric(&outcome, name));
        assert_eq!(
            (outcome.value, metrics),
            (1.0, [1.0, 1.0, 0.0, 0.0, 1.0, 1.0])
        );
    }
}

#[test]
fn a_diff_and_a_tool_call_work_like_an_edit() {
    let task = "roman/".to_owned();
    let task = mutants::tasks(Split::Train)
        .into_iter()
        .find(|id| id.starts_with(&task))
        .unwrap();
    let mutant = mutants::of_task(&task).unwrap();
    let changed = mutant.sources().unwrap();
    let (_, wrong) = &changed[0];
    let sound = mutant.repo.source("roman.py").unwrap();
    let at = sound[..mutant.offset].matches('\n').count();
    let line = |text: &str| text.lines().nth(at).unwrap().to_owned();

    let mut by_diff = start(&task);
    let (before, after) = (
        wrong.lines().nth(at - 1).unwrap(),
        wrong.lines().nth(at + 1).unwrap(),
    );
    let diff = format!(
        "```diff\n--- a/roman.py\n+++ b/roman.py\n@@ -{at},9 +{at},9 @@\n {before}\n-{}\n+{}\n {after}\n```",
        line(wrong),
        line(sound)
    );
    let step = act(&mut by_diff, &diff);
    assert_eq!(step.next.evidence("exit-code"), Some(0.0), "{step:?}");
    assert_eq!(score(&mut by_diff).value, 1.0);
    let again = act(&mut by_diff, &diff);
    assert_eq!(again.next.evidence("error"), Some(1.0));

    let mut by_call = start(&task);
    let whole = |text: &str| format!("{before}\n{}\n{after}\n", line(text));
    let arguments =
        serde_json::json!({"path": "roman.py", "search": whole(wrong), "replace": whole(sound)});
    let mut reply = Message::new(Role::Assistant, "");
    reply.tool_calls.push(ToolCall {
        id: "call-7".into(),
        name: "edit".into(),
        arguments_json: arguments.to_string(),
    });
    let finish = Finish::ToolCalls;
    let step = by_call.act(Action { reply, finish }).unwrap();
    let answer = &step.next.messages[0];
    assert_eq!(
        (answer.role, answer.tool_call_id.as_deref()),
        (Role::Tool, Some("call-7"))
    );
    assert_eq!(score(&mut by_call).value, 1.0, "{step:?}");
}

#[test]
fn what_is_shown_says_how_a_command_ended_and_whether_it_was_there_before() {
    let mut attempt = start(&mutants::tasks(Split::Train)[0]);
    let first = run(&mut attempt, "echo out; echo err >&2; exit 3");
    assert_eq!(
        first.next.messages[0].content,
        "exit code: 3\nout\nstderr:\nerr"
    );
    assert_eq!(
        (
            first.next.evidence("error"),
            first.next.evidence("repeated")
        ),
        (Some(1.0), Some(0.0))
    );
    let second = run(&mut attempt, "echo out; echo err >&2; exit 3");
    assert_eq!(second.next.evidence("repeated"), Some(1.0));
    let unread = act(&mut attempt, "I would look at the file.");
    assert!(unread.next.messages[0].content.starts_with("error: "));
    assert_eq!(unread.next.evidence("error"), Some(1.0));
    let last = run(&mut attempt, "touch new.txt");
    assert_eq!(last.next.evidence("changed"), Some(1.0));
    assert_eq!(last.done, Some(Done::Truncated));
    let after = Action {
        reply: Message::new(Role::Assistant, "DONE"),
        finish: Finish::Stop,
    };
    assert!(matches!(attempt.act(after), Err(Fault::InvalidInput(_))));
}

#[test]
fn changed_tests_config_and_shadow_modules_make_a_correct_fix_void() {
    let task = &mutants::tasks(Split::Train)[0];
    let (_, edit) = fix(task);
    for cheat in [
        "sed -i s/assertEqual/assertTrue/ tests/test_*.py",
        "rm -r tests",
        "printf '[tool.x]\\n' > pyproject.toml",
        "printf 'import os; os._exit(0)' > sitecustomize.py",
        "mkdir unittest && touch unittest/__init__.py",
        "printf 'exit 0' > .git/hooks/post-commit",
    ] {
        let mut attempt = start(task);
        act(&mut attempt, &edit);
        run(&mut attempt, cheat);
        let outcome = score(&mut attempt);
        assert_eq!(
            (outcome.value, metric(&outcome, "void")),
            (0.0, 1.0),
            "{cheat}"
        );
        assert_eq!(metric(&outcome, "resolved"), 0.0);
    }
}

#[test]
fn honest_traces_of_work_are_not_void() {
    let task = &mutants::tasks(Split::Train)[0];
    let (_, edit) = fix(task);
    let mut attempt = start(task);
    act(&mut attempt, &edit);
    run(
        &mut attempt,
        "python3 -m unittest && git commit -qam fix && echo 'x = 1' > scratch.py && echo > tests/test_more.py && ln -s /etc/passwd link",
    );
    let outcome = score(&mut attempt);
    assert_eq!((outcome.value, metric(&outcome, "void")), (1.0, 0.0));
}

#[test]
fn code_that_fakes_success_from_within_does_not_score() {
    let task = "roman/".to_owned();
    let task = mutants::tasks(Split::Train)
        .into_iter()
        .find(|id| id.starts_with(&task))
        .unwrap();
    let always = "class Any(int):\n    __eq__ = lambda a, b: True\n    __repr__ = lambda a: 'True'\nto_roman = from_roman = add = subtract = sort_numerals = is_roman = lambda *a, **k: Any()";
    for cheat in [
        "import os; os._exit(0)",
        "import sys; sys.exit(0)",
        "import unittest; unittest.TestCase.assertEqual = lambda *a: None; unittest.TestCase.run = lambda self, result: result.startTest(self)",
        "import os\nfor fd in range(3, 20):\n    try: os.write(fd, b'case\\tTrue')\n    except OSError: pass\nos._exit(0)",
        "import os, signal; os.kill(os.getppid(), signal.SIGKILL)",
        "import sys; sys.modules['driver'] = sys.modules['__main__']; sys.modules['__main__'].render = lambda *a: 'True'",
        "raise SystemExit",
        "import time; time.sleep(30)",
        always,
    ] {
        let mut attempt = start(&task);
        let step = run(
            &mut attempt,
            &format!("cat >> roman.py <<'END'\n{cheat}\nEND"),
        );
        assert_eq!(step.next.evidence("exit-code"), Some(0.0));
        let outcome = score(&mut attempt);
        assert_eq!(
            (outcome.value, metric(&outcome, "resolved")),
            (0.0, 0.0),
            "{cheat}"
        );
    }
}

#[test]
fn a_source_that_is_gone_or_a_link_scores_nothing_and_harms_nothing() {
    let task = mutants::tasks(Split::Train)
        .into_iter()
        .find(|id| id.starts_with("calc/"))
        .unwrap();
    for harm in ["rm calc.py", "ln -sf /etc/passwd calc.py", "rm -rf .git *"] {
        let mut attempt = start(&task);
        run(&mut attempt, harm);
        assert_eq!(score(&mut attempt).value, 0.0, "{harm}");
    }
}

#[test]
fn an_operators_image_holds_tasks_whose_tests_stay_hidden() {
    let ids = |split| image::tasks::<Bubble>("instances", split).unwrap();
    assert_eq!(ids(Split::Train), ["image/app-1"]);
    assert_eq!(ids(Split::HeldOut), ["image/app-2"]);
    assert!(image::task::<Bubble>("instances", "image/none").is_err());
    assert!(image::tasks::<Bubble>("empty", Split::Train).is_err());

    let task = image::task::<Bubble>("instances", "image/app-1").unwrap();
    let mut attempt = Attempt::<Bubble>::start(task.clone(), LIMITS).unwrap();
    let seen = run(&mut attempt, "pwd; ls /work; grep -rl test_odd /work; true");
    assert_eq!(
        seen.next.messages[0].content,
        "exit code: 0\n/work/app\napp"
    );
    assert_eq!(score(&mut attempt).value, 0.0);
    let fixed = run(
        &mut attempt,
        "sed -i 's|//|/|' app.py && python3 -m unittest -q",
    );
    assert_eq!(fixed.next.evidence("exit-code"), Some(0.0), "{fixed:?}");
    let outcome = score(&mut attempt);
    assert_eq!((outcome.value, metric(&outcome, "fixed-share")), (1.0, 1.0));

    let mut cheat = Attempt::<Bubble>::start(task, LIMITS).unwrap();
    run(
        &mut cheat,
        "echo 'import os; os._exit(0)' >> app.py; : > tests/test_app.py",
    );
    let outcome = score(&mut cheat);
    assert_eq!((outcome.value, metric(&outcome, "void")), (0.0, 1.0));
}
