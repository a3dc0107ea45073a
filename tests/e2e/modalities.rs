//! The modalities on the real host: reference solutions through the guests, the jail and the browser score 1, nothing scores nothing, and
//! nothing is left behind.

use std::path::{Path, PathBuf};

use app::config::Config;
use app::guests::{Guests, load_plugins};
use app::outside::outside;
use rl::{Action, Done, Episode, Message, Outcome, Seed, TaskId};

use crate::support::{has, root};

/// The guests of a recipe, without a model: environment, jail and browser are what it takes.
fn guests(recipe: &str, section: &str, folder: &Path) -> Guests {
    guests_with(recipe, section, &[], folder)
}

/// The same, on a host that has these images.
fn guests_with(recipe: &str, section: &str, images: &[(&str, PathBuf)], folder: &Path) -> Guests {
    let path = root().join("examples").join(recipe).join("run.toml");
    let mut config = Config::read(&path).unwrap();
    config.plugins.judge = "none".into();
    config.plugins.reward = "majority".into();
    config.plugins.cache = false;
    config
        .plugins
        .config
        .insert(recipe.into(), section.parse().unwrap());
    let images = images.iter().cloned();
    let images = images.map(|(name, folder)| (name.to_owned(), folder));
    config.shell.images.extend(images);
    let offers = outside(&config, folder.join("sandbox"));
    load_plugins(&config.plugins, Seed::new(1), offers).unwrap()
}

/// An episode under way, and what it showed last.
struct Play {
    episode: Box<dyn Episode>,
    shown: String,
    done: Option<Done>,
    task: String,
}

impl Play {
    fn start(guests: &Guests, task: &str) -> Self {
        let mut episode = guests
            .environment
            .start(&TaskId::new(task), Seed::new(3))
            .unwrap_or_else(|error| panic!("{task}: {error}"));
        let first = episode.observe().unwrap().messages;
        Self {
            episode,
            shown: joined(&first),
            done: None,
            task: task.to_owned(),
        }
    }

    fn say(&mut self, reply: &str) {
        let action = Action {
            message: Message::assistant(reply),
            truncated: false,
        };
        let step = self.episode.act(&action);
        let step = step.unwrap_or_else(|error| panic!("{}: {reply}: {error}", self.task));
        self.shown = joined(&step.observation.messages);
        self.done = step.done;
    }

    fn outcome(&mut self) -> Outcome {
        let outcome = self.episode.outcome().unwrap();
        outcome.unwrap_or_else(|| panic!("{}: no outcome", self.task))
    }

    /// The whole score, and an end.
    fn assert_solved(mut self) {
        let outcome = self.outcome();
        let (task, shown) = (&self.task, &self.shown);
        assert!(
            outcome.score > 0.99,
            "{task}: {outcome:?}, last seen: {shown}"
        );
        assert!(self.done.is_some(), "{task} goes on: {shown}");
    }
}

fn joined(messages: &[Message]) -> String {
    let texts: Vec<_> = messages.iter().map(|m| m.content.as_str()).collect();
    texts.join("\n")
}

#[test]
fn tool_call_reference_solutions_score_one_and_silence_scores_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let guests = guests("tool-call", "difficulty = 3", folder.path());
    let tasks = guests.environment.tasks("train").unwrap();
    for task in tasks.iter().step_by(tasks.len() / 30) {
        let task = task.as_str();
        let mut idle = Play::start(&guests, task);
        idle.say("I cannot do that.");
        assert!(idle.outcome().score < 0.1, "{task}");
        let mut play = Play::start(&guests, task);
        let style = tool_call::draw::Style::Plain;
        for request in tool_call::episode::reference(task, style).unwrap() {
            for call in &request.calls {
                let arguments = serde_json::to_value(&call.arguments).unwrap();
                let call = serde_json::json!({"name": call.name, "arguments": arguments});
                play.say(&call.to_string());
            }
            let answer = request
                .answer
                .map_or("Done.".to_owned(), |answer| answer.value);
            play.say(&answer);
        }
        play.assert_solved();
    }
}

#[test]
fn terminal_reference_solutions_score_one_on_the_hosts_own_machines() {
    if !has(&["bwrap"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let section = "difficulty = 0\nmax-turns = 12";
    let guests = guests("terminal", section, folder.path());
    let families: Vec<_> = terminal::families::all().collect();
    assert!(families.len() >= 40);
    for (index, family) in families.into_iter().enumerate() {
        let (difficulty, number) = (1 + index % 3, 7);
        let task = format!("{}/{difficulty}/{number}", family.name);
        if index % 8 == 0 {
            let mut idle = Play::start(&guests, &task);
            idle.say("```\ntrue\n```");
            assert!(idle.outcome().score < 0.01, "{task}");
        }
        let mut play = Play::start(&guests, &task);
        for command in family.task(difficulty, number).solution {
            if play.done.is_none() {
                play.say(&format!("```\n{command}\n```"));
            }
        }
        if play.done.is_none() {
            play.say("DONE");
        }
        play.assert_solved();
    }
}

#[test]
fn swe_bugs_that_are_taken_out_again_score_one_on_the_hosts_own_machines() {
    if !has(&["bwrap"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let guests = guests("swe", "", folder.path());
    let tasks = guests.environment.tasks("train").unwrap();
    assert!(tasks.len() >= 30);
    for task in tasks.iter().take(4) {
        let bug = swe::mutants::of_task(task.as_str()).unwrap();
        let mut idle = Play::start(&guests, task.as_str());
        idle.say("DONE");
        assert!(idle.outcome().score < 0.01, "{task}");
        let mut play = Play::start(&guests, task.as_str());
        let (file, before) = (bug.file, serde_json::to_string(bug.before).unwrap());
        let (from, to) = (bug.offset, bug.offset + bug.after.len());
        play.say(&format!(
            "```bash\npython3 - <<'END'\ns = open('{file}').read()\nopen('{file}', 'w').write(s[:{from}] + {before} + s[{to}:])\nEND\n```"
        ));
        play.say("DONE");
        play.assert_solved();
    }
}

#[test]
fn tool_import_right_calls_score_one_on_the_hosts_own_machines_and_silence_scores_nothing() {
    if !has(&["bwrap"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let fixtures = root().join("plugins/tool-import/tests/fixtures");
    let images = ["bfcl", "tau2"].map(|name| (name, fixtures.join(name)));
    let cases: [(&str, &str, &[&str]); 2] = [
        (
            "bfcl",
            "multi_turn_base_0",
            &[
                r#"{"name": "set_lamp", "arguments": {"room": "kitchen", "lamp": "ceiling"}}"#,
                "It is on.",
                r#"{"name": "see_room", "arguments": {"room": "kitchen"}}"#,
                r#"{"name": "add", "arguments": {"numbers": [100, 30]}}"#,
                "130.",
            ],
        ),
        (
            "tau2",
            "library/lend",
            &[
                r#"{"name": "get_book", "arguments": {"title": "Moss"}}"#,
                "It is on shelf 1,204. Shall I lend it to you?",
                r#"{"name": "lend_book", "arguments": {"title": "Moss", "reader": "bob"}}"#,
                "It is yours now.",
                "Goodbye.",
            ],
        ),
    ];
    for (format, task, replies) in cases {
        let section = format!("tasks-from = \"{format}\"\nimage = \"{format}\"");
        let place = folder.path().join(format);
        let guests = guests_with("tool-import", &section, &images, &place);
        let tasks = guests.environment.tasks("train").unwrap();
        assert!(tasks.contains(&TaskId::new(task)), "{tasks:?}");
        let mut idle = Play::start(&guests, task);
        while idle.done.is_none() {
            idle.say("I cannot do that.");
        }
        assert!(idle.outcome().score < 0.01, "{task}");
        let mut play = Play::start(&guests, task);
        for reply in replies {
            play.say(reply);
        }
        play.assert_solved();
    }
}

#[test]
fn code_problems_are_solved_by_their_programs_on_the_hosts_own_machines() {
    if !has(&["bwrap"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let guests = guests("tool-import", "difficulty = 3", folder.path());
    let tasks = guests.environment.tasks("train").unwrap();
    for task in tasks.iter().step_by(tasks.len() / 12) {
        let problem = tool_import::problems::problem(task.as_str()).unwrap();
        let mut idle = Play::start(&guests, task.as_str());
        idle.say("I do not know.");
        assert!(idle.outcome().score < 0.01, "{task}");
        let mut play = Play::start(&guests, task.as_str());
        let arguments = serde_json::json!({"code": problem.program});
        play.say(&serde_json::json!({"name": "python", "arguments": arguments}).to_string());
        assert!(play.shown.contains("\"exit-code\":0"), "{}", play.shown);
        play.say(&format!("Answer: {}", problem.answer));
        play.assert_solved();
    }
}

/// The number of the first line that shows a node of this role and name.
fn node(shown: &str, role: &str, name: &str) -> String {
    let label = format!("{role} \"{name}\"");
    // Not a line of the task's own words, nor `did: …`.
    let is_it = |line: &&str| line.trim_start().starts_with('[') && line.contains(&label);
    let line = shown.lines().find(is_it);
    let line = line.unwrap_or_else(|| panic!("no {label} in: {shown}"));
    let from = line.find('[').unwrap();
    line[from..=line.find(']').unwrap()].to_owned()
}

#[test]
fn gui_reference_solutions_score_one_in_the_hosts_own_browser() {
    use gui::draft::Step;
    if !has(&["chromium", "chromium-browser", "google-chrome"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let section = "difficulty = 0\nmax-turns = 15\ntree-chars = 20000";
    let guests = guests("gui", section, folder.path());
    let mut families = 0;
    for (index, family) in gui::families::ALL.iter().enumerate() {
        families += 1;
        let (difficulty, number) = (1 + u8::try_from(index % 3).unwrap(), 7);
        let task = format!("{}/{difficulty}/{number}", family.name);
        let mut play = Play::start(&guests, &task);
        for step in family.draft(difficulty, number).steps {
            let at = |role: &str, name: &str| node(&play.shown, role, name);
            let reply = match &step {
                Step::Click(role, name) => format!("click {}", at(role, name)),
                Step::Fill("combobox", name, text) => {
                    format!("select {} {text}", at("combobox", name))
                }
                Step::Fill(role, name, text) => format!("fill {} {text}", at(role, name)),
                Step::Drag([(from, a), (to, b)]) => {
                    format!("drag {} to {}", at(from, a), at(to, b))
                }
                Step::Press(key) => format!("press {key}"),
                Step::ScrollDown => "scroll down".to_owned(),
            };
            if play.done.is_none() {
                play.say(&reply);
                assert!(
                    !play.shown.starts_with("error"),
                    "{task}: {reply}: {}",
                    play.shown
                );
            }
        }
        if play.done.is_none() {
            play.say("done");
        }
        play.assert_solved();
    }
    assert!(families >= 15);
}

/// Processes of this user's whole machine, mounts, and files under a folder.
fn left(folder: &Path) -> (usize, usize, usize) {
    let count = |path: &Path| std::fs::read_dir(path).map_or(0, Iterator::count);
    let jails = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .filter(|line| String::from_utf8_lossy(line).contains("bwrap"))
        .count();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    (jails, mounts.lines().count(), count(folder))
}

#[test]
fn episodes_leave_no_process_mount_or_folder_behind() {
    if !has(&["bwrap"]) {
        return;
    }
    // 1,000 in the closing note's run; fewer where every developer waits.
    let episodes = std::env::var("NEXTSTATE_EPISODES");
    let episodes: usize = episodes.map_or(60, |number| number.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let guests = guests("terminal", "difficulty = 1", folder.path());
    let tasks = guests.environment.tasks("train").unwrap();
    let machines = folder.path().join("sandbox/machines");
    let mut before = None;
    for index in 0..episodes {
        let mut play = Play::start(&guests, tasks[index % tasks.len()].as_str());
        // What a policy does that does not know when to stop.
        play.say("```\nsleep 300 & (setsid sleep 300 &) ; mkfifo x; ls\n```");
        drop(play);
        if index == 0 {
            before = Some(left(&machines));
        }
    }
    let (jails, mounts, files) = left(&machines);
    let (_, mounts_before, files_before) = before.unwrap();
    assert_eq!((mounts, files), (mounts_before, files_before));
    // Other tests of this binary have machines of their own at the same time.
    assert!(jails < 20, "{jails} jails are left");
}
