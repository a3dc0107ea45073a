//! Every recipe under `examples/` starts and runs a few steps, on the tiny model instead of its own.

use std::sync::Arc;

use app::config::Config;
use app::history::{Request, Response, Workbench};
use app::http_agent::HttpAgent;
use loops::rollout::{self, Assignment};
use rl::{EpisodeId, NotTrainable, PolicyVersion, Sampling, Seed, TaskId};

use crate::support::{chat, config, has, root, until, with_host};

/// The recipe as it is, with only what makes it small: model, data folder, port, sizes.
pub(crate) fn recipe(name: &str, data: &std::path::Path) -> Config {
    let small = config(data);
    let mut recipe = Config::read(&root().join("examples").join(name).join("run.toml")).unwrap();
    recipe.data = small.data;
    recipe.model = small.model;
    recipe.gateway.listen.set_port(0);
    recipe.engine = small.engine;
    // Few of a random model's replies draw a hint that is accepted.
    recipe.loops.train.batch_size = 1;
    recipe.train.rank = small.train.rank;
    // A random model cannot judge: the words decide, the rest of the recipe is its own.
    recipe.plugins.judge = "words".into();
    recipe.plugins.cache = small.plugins.cache;
    recipe.plugins.config.remove("reaction-judge");
    recipe
}

fn a_few_steps(name: &str) {
    let folder = tempfile::tempdir().unwrap();
    with_host(recipe(name, folder.path()), |host| {
        let agent = Arc::new(HttpAgent::new(&host.url(), &host.trained_model(), None));
        let tasks: Vec<TaskId> = host.environment().tasks("train").unwrap();
        let config = rollout::Config {
            concurrency: 2,
            max_turns: 4,
            sampling: Sampling {
                max_tokens: 12,
                ..Sampling::default()
            },
        };
        let assignments = (0..2)
            .map(|i| Assignment {
                episode: EpisodeId::new(format!("recipe-{i}")),
                task: tasks[i].clone(),
                seed: Seed::new(i as u64),
                group: None,
            })
            .collect();
        let rollout = host
            .loops()
            .rollout(config, Arc::clone(host.environment()), agent)
            .unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let records = runtime
            .block_on(rollout.run(assignments, host.shutdown(), Arc::new(|_| {})))
            .unwrap();
        assert_eq!(records.len(), 2, "both conversations end");
        let status = until(host, "a version", |status| {
            status.live >= PolicyVersion::new(1)
        });
        assert!(status.trained >= 1, "{status:?}");
    });
}

#[test]
fn chat_binary_runs_a_few_steps() {
    a_few_steps("chat-binary");
}

#[test]
fn chat_opd_runs_a_few_steps() {
    a_few_steps("chat-opd");
}

#[test]
fn chat_combined_runs_a_few_steps() {
    a_few_steps("chat-combined");
}

/// The tiny model with room for a task's opening: its tokens are bytes.
pub(crate) fn with_room(folder: &std::path::Path) -> String {
    let model = folder.join("tiny-llama");
    std::fs::create_dir(&model).unwrap();
    for file in std::fs::read_dir(crate::support::tiny().name).unwrap() {
        let from = file.unwrap().path();
        let to = model.join(from.file_name().unwrap());
        if from.is_file() {
            std::fs::copy(from, to).unwrap();
        }
    }
    let path = model.join("config.json");
    let mut config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["max_position_embeddings"] = 8192.into();
    std::fs::write(&path, config.to_string()).unwrap();
    model.to_string_lossy().into_owned()
}

/// A recipe of hosted episodes, practised for a round on the tiny model, whose replies are nonsense: the whole path, to a payment.
fn a_round(name: &str) {
    let folder = tempfile::tempdir().unwrap();
    let mut config = recipe(name, folder.path());
    config.model.name = with_room(folder.path());
    config.engine.context = 8192;
    config.engine.kv_bytes = 256 << 20;
    config.rollout = app::rollout::Section {
        rounds: 1,
        groups: 1,
        attempts: 2,
        concurrency: 2,
        max_turns: 2,
        exam: 1,
        sampling: Sampling {
            max_tokens: 8,
            ..Sampling::default()
        },
        exam_sampling: Sampling {
            max_tokens: 8,
            temperature: 0.0,
            ..Sampling::default()
        },
        ..config.rollout
    };
    let loaded = app::host::Loaded::from_config(&config.model).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let recordings = folder.path().join("recordings");
    let played = app::rollout::play::play(config, loaded, Some(recordings.clone()));
    let story = runtime.block_on(played).unwrap();
    assert!(story.failed.is_empty(), "{story:?}");
    assert_eq!(story.rounds.len(), 1);
    assert!(
        story.rounds[0].turns >= 2 && story.after.is_some(),
        "{story:?}"
    );
    // What crossed the border is there to be played to another build: two exams of one task, two attempts.
    assert_eq!(std::fs::read_dir(&recordings).unwrap().count(), 4);
    told(folder.path());
}

/// The same four episodes can be read turn by turn.
fn told(data: &std::path::Path) {
    let bench = Workbench::offline(data, None).unwrap();
    let ask = |request| app::history::run(&bench, request, &mut |_| Ok(()));
    let tell = |id: &str| match ask(Request::Episode { id: id.to_owned() }) {
        Ok(Response::Episode(told)) => told,
        other => panic!("{id}: {other:?}"),
    };
    let Ok(Response::Episodes(episodes)) = ask(Request::Episodes { limit: 100 }) else {
        panic!("no list of episodes");
    };
    assert_eq!(episodes.len(), 4);
    for row in &episodes {
        let told = tell(&row.id);
        assert_eq!(told.turns.len(), row.turns, "{told:?}");
        assert!(!told.turns[0].seen.is_empty() && told.turns[0].reply.is_some());
        let practised = row.id.starts_with("practice");
        for turn in &told.turns {
            assert_eq!(turn.next.is_some(), practised, "{turn:?}");
            let is_side = turn.not_trainable == Some(NotTrainable::Side);
            assert_eq!(is_side, !practised, "{turn:?}");
        }
        assert_eq!(told.episode.as_ref(), Some(row));
    }
    let Ok(Response::Episodes(newest)) = ask(Request::Episodes { limit: 1 }) else {
        panic!("no list of episodes");
    };
    assert_eq!(newest[..], episodes[..1]);
    assert_eq!(tell("last").episode, newest.first().cloned());
    let id = "practice".to_owned();
    let several = ask(Request::Episode { id }).unwrap_err().to_string();
    assert!(
        several.contains("2 episodes begin with `practice`"),
        "{several}"
    );
}

#[test]
fn conversation_practises_a_round() {
    a_round("conversation");
}

#[test]
fn tool_call_practises_a_round() {
    a_round("tool-call");
}

#[test]
fn terminal_practises_a_round() {
    if has(&["bwrap"]) {
        a_round("terminal");
    }
}

#[test]
fn swe_practises_a_round() {
    if has(&["bwrap"]) {
        a_round("swe");
    }
}

#[test]
fn tool_import_practises_a_round() {
    if has(&["bwrap"]) {
        a_round("tool-import");
    }
}

#[test]
fn gui_practises_a_round() {
    if has(&["chromium", "chromium-browser", "google-chrome"]) {
        a_round("gui");
    }
}

#[test]
fn your_own_agent_serves_any_openai_client() {
    let folder = tempfile::tempdir().unwrap();
    with_host(recipe("your-own-agent", folder.path()), |host| {
        let reply = chat(host, "mine", &[("user", "Hello")]);
        assert_eq!((reply.status, reply.version), (200, Some(0)), "{reply:?}");
    });
}

// The recipe "interop" needs a server in Python: `interop.rs` runs it.
#[test]
fn every_recipe_is_named_by_a_test() {
    let this = include_str!("recipes.rs");
    for entry in std::fs::read_dir(root().join("examples")).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        assert!(
            this.contains(&format!("\"{name}\"")),
            "no test runs the recipe {name}"
        );
        assert!(
            root()
                .join("examples")
                .join(&name)
                .join("README.md")
                .is_file(),
            "{name} has no README"
        );
    }
}
