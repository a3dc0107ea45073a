//! What a plugin stores, on the real host: found by later episodes, over a restart, until it is forgotten.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use app::config::Config;
use app::host::Host;
use app::http_agent::HttpAgent;
use bundled::fixtures::REACHING;
use loops::forget::Selector;
use loops::rollout::{self, Assignment, Event};
use plugin::Capability;
use rl::{EpisodeId, Sampling, Seed};

use crate::support::{config, with_host};

/// A host whose environment is the fixture that counts its episodes.
fn counting(folder: &Path) -> Config {
    let plugin = folder.join("reaching");
    fs::create_dir_all(&plugin).unwrap();
    fs::write(plugin.join("plugin.toml"), REACHING.manifest).unwrap();
    fs::write(plugin.join("plugin.wasm"), REACHING.component).unwrap();
    let mut config = config(&folder.join("data"));
    config.plugins.environment = plugin.to_string_lossy().into_owned();
    let all = Capability::ALL.map(|capability| capability.to_string());
    config.plugins.grants.insert("reaching".into(), all.into());
    config
}

/// What the guest says in each of these episodes.
fn visits(host: &Host, numbers: std::ops::Range<u32>) -> Vec<String> {
    let config = rollout::Config {
        concurrency: 1,
        max_turns: 1,
        sampling: Sampling {
            max_tokens: 4,
            ..Sampling::default()
        },
    };
    let assignments = numbers.map(|number| Assignment {
        episode: EpisodeId::new(format!("visit-{number}")),
        task: "store-visits".into(),
        seed: Seed::new(1),
        group: None,
    });
    let agent = Arc::new(HttpAgent::new(&host.url(), &host.trained_model(), None));
    let rollout = host
        .loops()
        .rollout(config, Arc::clone(host.environment()), agent)
        .unwrap()
        .storing_for("local".into());
    let (said, heard) = std::sync::mpsc::channel();
    let watch = move |event| match event {
        Event::Turn(turn) => said.send(turn.reaction[0].content.clone()).unwrap(),
        Event::Failed { error, .. } => said.send(error.chain()).unwrap(),
        Event::Ended(_) => {}
    };
    let run = rollout.run(assignments.collect(), host.shutdown(), Arc::new(watch));
    runtime().block_on(run).unwrap();
    drop(rollout);
    heard.try_iter().collect()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

#[test]
fn a_plugin_finds_what_it_stored_until_it_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    with_host(counting(folder.path()), |host| {
        assert_eq!(visits(host, 0..2), ["visit 1", "visit 2"]);
    });
    with_host(counting(folder.path()), |host| {
        assert_eq!(visits(host, 2..3), ["visit 3"]);
        let second = Selector::Session {
            tenant: None,
            session: "visit-1".into(),
        };
        let control = host.loops().control();
        let forgotten = runtime()
            .block_on(control.forget(second, |_, _, _| {}))
            .unwrap();
        // The third had counted on.
        assert_eq!(forgotten.request.subjects, ["visit-1", "visit-2"]);
        assert_eq!(visits(host, 3..4), ["visit 2"]);
    });
    with_host(counting(folder.path()), |host| {
        assert_eq!(visits(host, 4..5), ["visit 3"]);
    });
}
