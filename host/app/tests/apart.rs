//! Plugins in worker processes of the real program, with what is behind their capabilities in the host.
#![cfg(target_os = "linux")]
#![expect(
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "tests; a skipped one says so"
)]

use std::path::{Path, PathBuf};

use app::config::{Config, Isolation};
use app::guests::{Guests, load_plugins};
use app::outside::outside;
use rl::{Action, Message, Seed};

fn guests(recipe: &str, folder: &Path) -> Guests {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let mut config = Config::read(&examples.join(recipe).join("run.toml")).unwrap();
    config.plugins.isolation = Isolation::Process;
    config.plugins.cache = false;
    config.plugins.workers.program = Some(PathBuf::from(env!("CARGO_BIN_EXE_nextstate")));
    let offers = outside(&config, folder.join("sandbox"));
    load_plugins(&config.plugins, Seed::new(1), offers).unwrap()
}

#[test]
fn a_shell_is_the_hosts_and_its_guest_is_not() {
    if !Path::new("/usr/bin/bwrap").exists() {
        let required = std::env::var_os("NEXTSTATE_REQUIRE_SANDBOX").is_some();
        assert!(!required, "bubblewrap is not there");
        eprintln!("skipped: bubblewrap is not there");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let guests = guests("terminal", folder.path());
    let tasks = guests.environment.tasks("train").unwrap();
    let mut episode = guests.environment.start(&tasks[0], Seed::new(1)).unwrap();
    let action = Action {
        message: Message::assistant("```\necho $((40 + 2)) in $(pwd)\n```"),
        truncated: false,
    };
    let step = episode.act(&action).unwrap();
    let shown = &step.observation.messages[0].content;
    assert!(shown.contains("42 in /work"), "{shown}");
    assert!(guests.judge.name().starts_with("step-judge"));
    assert!(guests.reward.name().starts_with("step-wise-reward"));
}

#[test]
fn a_grant_that_is_missing_is_said_with_its_remedy() {
    let mut config = Config::default();
    config.plugins.isolation = Isolation::Process;
    config.plugins.cache = false;
    config.plugins.environment = "terminal".into();
    config.plugins.judge = "none".into();
    config.plugins.reward = "majority".into();
    let offers = plugin::outside::Outside::default();
    let error = load_plugins(&config.plugins, Seed::new(1), offers).unwrap_err();
    let words = format!("{error:#}");
    assert!(
        words.contains("[plugins.grants] terminal = [\"config\"]"),
        "{words}"
    );
}
