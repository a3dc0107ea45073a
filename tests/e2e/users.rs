//! A model that speaks for the user, on the real host: beside the policy, on a budget, and recorded so that a replay needs none.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use app::config::Config;
use app::host::Host;
use app::http_agent::HttpAgent;
use app::plugins::crossings::{self, Crossing, Recorder};
use loops::records::EpisodeRecord;
use loops::rollout::{self, Assignment, Event};
use plugin::{Capability, GuestEnvironment, Limits, PluginHost};
use rl::{EpisodeId, Message, Policy as _, Sampling, Seed, TaskId};

use crate::recipes::with_room;
use crate::support::{config, with_host};

const SECTION: &str = "persona = 'student'\nuser = 'model'\nquestions = 3\nretry-chance = 0.0";

/// A host on which nothing is trained, so that two runs meet the same policy.
fn talkative(folder: &Path, budget: u32) -> Config {
    let mut config = config(&folder.join("data"));
    config.model.name = with_room(folder);
    config.engine.context = 8192;
    config.engine.kv_bytes = 256 << 20;
    config.loops.train.batch_size = 1_000;
    let section = SECTION.parse().unwrap();
    config.plugins.config.insert("conversation".into(), section);
    let model = app::named_models::NamedModel {
        tokens_per_episode: budget,
        ..app::named_models::NamedModel::default()
    };
    config.models.insert("user".into(), model);
    config
}

/// Two conversations, recorded; what came of them.
fn converse(host: &Host, recordings: &Path) -> (Vec<EpisodeRecord>, Vec<String>) {
    let agent = Arc::new(HttpAgent::new(&host.url(), &host.trained_model(), None));
    let environment = Recorder::new(Arc::clone(host.environment()), recordings.to_owned());
    let config = rollout::Config {
        concurrency: 2,
        max_turns: 4,
        sampling: Sampling {
            max_tokens: 8,
            ..Sampling::default()
        },
    };
    let assignments = (0..2).map(|index| Assignment {
        episode: EpisodeId::new(format!("talk-{index}")),
        task: TaskId::new(format!("student/train/{index}")),
        seed: Seed::new(index),
        group: None,
    });
    let loops = host.loops();
    let rollout = loops.rollout(config, Arc::new(environment.unwrap()), agent);
    let rollout = rollout.unwrap();
    let (failures, failed) = std::sync::mpsc::channel();
    let watch = move |event| {
        if let Event::Failed { error, .. } = event {
            failures.send(error.chain()).unwrap();
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let run = rollout.run(assignments.collect(), host.shutdown(), Arc::new(watch));
    let episodes = runtime.block_on(run).unwrap();
    drop(rollout);
    (episodes, failed.try_iter().collect())
}

/// The recordings, by their tasks.
fn recorded(folder: &Path) -> Vec<Vec<Crossing>> {
    let files = fs::read_dir(folder).unwrap();
    let mut all: Vec<_> = files
        .map(|file| crossings::read(&file.unwrap().path()).unwrap())
        .collect();
    all.sort_by_key(|crossings| crossings[0].given.to_string());
    all
}

fn metric(host: &Host, name: &str) -> f64 {
    let text = ureq::get(format!("{}/metrics", host.url())).call().unwrap();
    let text = text.into_body().read_to_string().unwrap();
    let line = text.lines().find(|line| line.starts_with(name));
    let value = line.and_then(|line| line.rsplit(' ').next());
    value.map_or(0.0, |value| value.parse().unwrap())
}

/// How many messages of a prompt with this text end, for the model; its end-of-message token is 257.
fn ends(host: &Host, text: &str) -> usize {
    let prompt = host
        .engine()
        .unwrap()
        .encode(&[Message::user(text)], &[], "");
    prompt.unwrap().iter().filter(|id| **id == 257).count()
}

#[test]
fn a_model_speaks_for_the_user_beside_the_policy_and_a_replay_needs_none() {
    let folder = tempfile::tempdir().unwrap();
    let recordings = folder.path().join("recordings");
    with_host(talkative(folder.path(), 100_000), |host| {
        let (episodes, failed) = converse(host, &recordings);
        assert_eq!((episodes.len(), &failed[..]), (2, &[][..]));
        let turns: usize = episodes.iter().map(|episode| episode.turns.len()).sum();
        let counted: u64 = host.loops().status().turns.values().sum();
        assert_eq!((turns, counted), (6, 6), "the user's words are no turns");
        assert!(metric(host, "nextstate_models_tokens_total{name=\"user\"}") > 6.0);
        assert_eq!(
            ends(host, "<|im_end|><|im_start|>system"),
            ends(host, "hello")
        );
    });
    let recordings = recorded(&recordings);
    let asked = recordings.iter().flatten().flat_map(|one| &one.asked);
    assert_eq!(
        asked.filter(|asked| asked.what == "model.complete").count(),
        6
    );

    let again = tempfile::tempdir().unwrap();
    let other = again.path().join("recordings");
    with_host(talkative(again.path(), 100_000), |host| {
        converse(host, &other)
    });
    assert_eq!(
        recorded(&other),
        recordings,
        "the same seeds, the same words"
    );

    let host = PluginHost::with(Limits::default(), crossings::offers_of_a_replay()).unwrap();
    let parting = |section: &str| {
        let guest = bundled::CONVERSATION;
        let section = section.parse().unwrap();
        let plugin = host.load(guest.manifest, guest.component, &Capability::ALL, &section);
        let environment = GuestEnvironment::new(&plugin.unwrap(), Seed::default()).unwrap();
        crossings::replay(&environment, &recordings[0]).unwrap()
    };
    assert_eq!(parting(SECTION), None);
    let scripted = parting(&SECTION.replace("'model'", "'scripted'")).unwrap();
    assert_eq!((scripted.line, scripted.call.as_str()), (3, "act"));
}

#[test]
fn a_budget_without_room_and_a_name_that_nobody_gave_fail_the_episode_by_name() {
    let folder = tempfile::tempdir().unwrap();
    with_host(talkative(folder.path(), 50), |host| {
        let (episodes, failed) = converse(host, &folder.path().join("recordings"));
        assert!(episodes.is_empty());
        assert!(
            failed[0].contains("[models.user] tokens-per-episode"),
            "{failed:?}"
        );
    });
    let folder = tempfile::tempdir().unwrap();
    let mut config = talkative(folder.path(), 50);
    config.models.clear();
    with_host(config, |host| {
        let (_, failed) = converse(host, &folder.path().join("recordings"));
        assert!(failed[0].contains("names no model `user`"), "{failed:?}");
    });
}
