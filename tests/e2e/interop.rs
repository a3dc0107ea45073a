//! Environments of other people, and ours for them, against the real packages: OpenEnv, Gymnasium, reasoning-gym.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
};

use app::{
    interop::{command, openenv},
    rollout::{Section, play},
};
use rl::{Action, Done, Environment, Episode, Message, Sampling, Seed, Step};

use crate::{recipes::recipe, support::root};

/// The Python that has the packages; none, with a line that says so, when there is no such.
fn python() -> Option<String> {
    let python = std::env::var("NEXTSTATE_PYTHON").unwrap_or_else(|_| "python3".into());
    let there = Command::new(&python)
        // Looked for and not imported, which takes a while. From a folder with no package of ours.
        .args(["-c", "from importlib.util import find_spec as f; f('gymnasium').name, f('openenv').name, f('reasoning_gym').name"])
        .current_dir(root().join("decisions"))
        .output();
    if there.is_ok_and(|output| output.status.success()) {
        return Some(python);
    }
    let how = format!("{python} has not all of tests/interop/requirements.txt: pip install -r it");
    assert!(
        std::env::var_os("NEXTSTATE_REQUIRE_PYTHON").is_none(),
        "{how}"
    );
    eprintln!("skipped: {how}");
    None
}

/// A server in Python, ended when dropped.
struct Served {
    child: Child,
    address: String,
}

impl Served {
    /// Starts a script of the repository; none when there is no Python for it.
    fn start(script: &str, arguments: &[&str]) -> Option<Self> {
        let mut child = Command::new(python()?)
            .arg(root().join(script))
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines
            .map(Result::unwrap)
            .find_map(|line| Some(line.strip_prefix("listening on ")?.to_owned()))
            .unwrap_or_else(|| panic!("{script} ended before it listened"));
        let address = format!("http://127.0.0.1:{port}");
        Some(Self { child, address })
    }

    fn open(&self, section: &str) -> openenv::Remote {
        openenv::open(&self.address, &section.parse().unwrap()).unwrap()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn say(episode: &mut dyn Episode, text: &str) -> Step {
    let action = Action {
        message: Message::assistant(text),
        truncated: false,
    };
    episode.act(&action).unwrap()
}

fn last(messages: &[Message]) -> &str {
    &messages.last().unwrap().content
}

#[test]
fn a_gymnasium_lake_is_crossed_and_fallen_into() {
    let lake = [
        "gym",
        "FrozenLake-v1",
        "--make",
        "is_slippery=false",
        "--port",
        "0",
    ];
    let Some(served) = Served::start("examples/interop/bridge.py", &lake) else {
        return;
    };
    let environment = served.open("");
    assert_eq!(environment.card().name, "openenv/gymnasium FrozenLake-v1");
    rl::seam::conformance::environment(&environment, "train").unwrap();
    let task = environment.tasks("held-out").unwrap().remove(0);
    let start = || environment.start(&task, Seed::new(1)).unwrap();

    let mut crossing = start();
    let first = crossing.observe().unwrap().messages;
    let told = last(&first);
    assert!(
        told.contains("from 0 to 3") && told.contains("1 down"),
        "{told}"
    );
    assert!(told.contains("[S]FFF"), "{told}");
    // What is no action costs a turn: a word, and a number that the environment's schema rules out.
    let step = say(&mut *crossing, "down");
    assert!(
        last(&step.observation.messages).contains("not an integer"),
        "{step:?}"
    );
    let step = say(&mut *crossing, "7");
    assert!(
        last(&step.observation.messages).contains("less than or equal to 3"),
        "{step:?}"
    );
    for reply in ["1", "{\"action\": 1}", "2", "1", "```json\n2\n```"] {
        assert_eq!(say(&mut *crossing, reply).done, None, "{reply}");
    }
    assert_eq!(say(&mut *crossing, "2").done, Some(Done::Finished));
    let outcome = crossing.outcome().unwrap().unwrap();
    assert_eq!(outcome.score, 1.0);
    assert!(
        outcome.metrics.contains(&("valid-replies".into(), 0.75)),
        "{outcome:?}"
    );
    drop(crossing);

    let mut falling = start();
    say(&mut *falling, "2");
    assert_eq!(say(&mut *falling, "1").done, Some(Done::Finished));
    assert_eq!(falling.outcome().unwrap().unwrap().score, 0.0);
}

#[test]
fn other_gymnasium_environments_are_played_by_their_seeds() {
    let section = "reward-min = -1.0\nreward-max = 1.0\nmax-turns = 3";
    for (id, shown, reply) in [
        ("Blackjack-v1", "observation: [", "0"),
        ("CliffWalking-v1", "o  o", "0"),
    ] {
        let Some(served) = Served::start("examples/interop/bridge.py", &["gym", id, "--port", "0"])
        else {
            return;
        };
        let environment = served.open(section);
        let start = |seed: &str| {
            let mut episode = environment.start(&seed.into(), Seed::new(1)).unwrap();
            let told = last(&episode.observe().unwrap().messages).to_owned();
            (episode, told)
        };
        let (first, told) = start("seed-3");
        assert!(told.contains(shown), "{id}: {told}");
        drop(first);
        let (mut again, same) = start("seed-3");
        assert_eq!(told, same, "{id}");
        let done = (0..3).find_map(|_| say(&mut *again, reply).done);
        assert!(done.is_some(), "{id}");
        let outcome = again.outcome().unwrap().unwrap();
        assert!((0.0..=1.0).contains(&outcome.score), "{id}: {outcome:?}");
    }
}

#[test]
fn reasoning_gym_marks_answers_with_its_own_scorer() {
    let sums = [
        "reasoning-gym",
        "chain_sum",
        "--seed",
        "7",
        "--size",
        "2000",
        "--port",
        "0",
    ];
    let Some(served) = Served::start("examples/interop/bridge.py", &sums) else {
        return;
    };
    let environment = served.open("train-tasks = 40\nheld-out-tasks = 5");
    let mut questions = Vec::new();
    for split in ["train", "held-out"] {
        for task in environment.tasks(split).unwrap().iter().take(3) {
            let mut episode = environment.start(task, Seed::new(1)).unwrap();
            let question = last(&episode.observe().unwrap().messages).to_owned();
            let right = questions.len() % 2 == 0;
            let answer = sum(&question) + i64::from(!right);
            let step = say(&mut *episode, &answer.to_string());
            assert_eq!(step.done, Some(Done::Finished));
            let score = episode.outcome().unwrap().unwrap().score;
            assert_eq!(score == 1.0, right, "{question} {answer} {score}");
            questions.push(question);
        }
    }
    questions.sort();
    questions.dedup();
    assert_eq!(questions.len(), 6);
    let beyond = environment
        .start(&"seed-2000".into(), Seed::new(1))
        .map(drop)
        .unwrap_err();
    assert!(beyond.to_string().contains("--size"), "{beyond}");
}

/// The sum that a question ends with: `…: 12 - 3 + 4 =`.
fn sum(question: &str) -> i64 {
    let terms = question
        .rsplit(':')
        .next()
        .unwrap()
        .trim_end_matches('=')
        .trim();
    let mut sign = 1;
    let mut total = 0;
    for term in terms.split(' ') {
        match term {
            "+" => sign = 1,
            "-" => sign = -1,
            number => total += sign * number.parse::<i64>().unwrap(),
        }
    }
    total
}

#[test]
fn what_openenv_init_makes_is_an_environment_here() {
    let Some(python) = python() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let made = Command::new(python)
        .args([
            "-c",
            "from openenv.cli.__main__ import main; main()",
            "init",
            "echo_env",
        ])
        .arg("--output-dir")
        .arg(folder.path())
        .output()
        .unwrap();
    let project = folder.path().join("echo_env");
    assert!(project.is_dir(), "{made:?}");
    let served = Served::start("tests/interop/echo.py", &[project.to_str().unwrap()]).unwrap();
    // It rewards long messages, never ends, and its server allows one session.
    let environment = served.open("max-turns = 2\nreward-max = 2.0");
    for _ in 0..2 {
        let mut episode = environment.start(&"seed-1".into(), Seed::new(1)).unwrap();
        let step = say(&mut *episode, "Hello");
        assert_eq!(step.done, None);
        assert!(
            last(&step.observation.messages).contains("echoed_message: Hello"),
            "{step:?}"
        );
        let step = say(&mut *episode, "{\"message\": \"a longer message\"}");
        assert_eq!(step.done, Some(Done::TurnLimit));
        assert_eq!(episode.outcome().unwrap().unwrap().score, 0.75);
    }
}

#[test]
fn the_host_practises_on_an_openenv_server() {
    let lake = ["gym", "FrozenLake-v1", "--port", "0"];
    let Some(served) = Served::start("examples/interop/bridge.py", &lake) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let mut config = recipe("interop", folder.path());
    config.engine.context = 2048;
    config.plugins.judge = "none".into();
    config.plugins.environment = format!("{}{}", openenv::PREFIX, served.address);
    let section = config.plugins.config.get_mut(openenv::SECTION).unwrap();
    section.insert("sessions".into(), 2.into());
    // More turns do not fit the tiny model's context.
    section.insert("max-turns".into(), 2.into());
    let sampling = Sampling {
        max_tokens: 8,
        ..Sampling::default()
    };
    config.rollout = Section {
        rounds: 1,
        groups: 1,
        attempts: 4,
        exam: 2,
        sampling: sampling.clone(),
        exam_sampling: sampling,
        ..config.rollout
    };
    let loaded = app::host::Loaded::from_config(&config.model).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let story = runtime.block_on(play::play(config, loaded, None)).unwrap();
    assert_eq!(story.failed, Vec::<String>::new());
    assert_eq!(story.environment, "openenv/gymnasium FrozenLake-v1 1");
    assert_eq!(story.rounds[0].turns, 8);
    // Nonsense is no action, and has an outcome all the same.
    assert_eq!(story.rounds[0].metrics["valid-replies"], 0.0);
    assert_eq!(story.after.unwrap().scores.len(), 2);
}

#[test]
fn the_official_openenv_client_plays_an_environment_of_ours() {
    let Some(python) = python() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("host.toml");
    std::fs::write(&config, "[plugins]\ncache = false\n").unwrap();
    let args = command::Args {
        plugin: "tool-call".into(),
        set: vec!["difficulty=1".into(), "tools-in=\"card\"".into()],
        grant: Vec::new(),
        config: Some(config),
        listen: "127.0.0.1:0".parse().unwrap(),
        episodes: 3,
        idle: 60,
    };
    let hosting = command::host(&args).unwrap();
    let handle = hosting.server.handle();
    let serving = thread::spawn(move || hosting.server.run());
    let output = Command::new(python)
        .arg(root().join(Path::new("tests/interop/check.py")))
        .env("NEXTSTATE_URL", format!("http://{}", handle.addr()))
        .output()
        .unwrap();
    handle.stop();
    serving.join().unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complained}");
    assert!(said.contains(" 0 failed"), "{said}");
}
