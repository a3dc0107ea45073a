//! Every recipe under `examples/` starts and runs a few steps, on the tiny model instead of its own.

use std::sync::Arc;

use app::config::Config;
use app::http_agent::HttpAgent;
use loops::rollout::{self, Assignment};
use rl::{EpisodeId, PolicyVersion, Sampling, Seed, TaskId};

use crate::support::{chat, config, root, until, with_host};

/// The recipe as it is, with only what makes it small: model, data folder, port, sizes.
fn recipe(name: &str, data: &std::path::Path) -> Config {
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

#[test]
fn your_own_agent_serves_any_openai_client() {
    let folder = tempfile::tempdir().unwrap();
    with_host(recipe("your-own-agent", folder.path()), |host| {
        let reply = chat(host, "mine", &[("user", "Hello")]);
        assert_eq!((reply.status, reply.version), (200, Some(0)), "{reply:?}");
    });
}

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
