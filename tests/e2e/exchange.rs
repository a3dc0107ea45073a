//! A plugin that is built again while the host runs takes the old one's place at the next turn; one that cannot be loaded does not.

use std::fs;
use std::path::Path;

use app::host::Host;
use loops::records::{self, JUDGED, JudgedRecord};

use crate::support::{chat, config, until, with_host};

/// Lets somebody praise a reply, and gives the rule that paid for it.
fn rule_of_a_new_turn(host: &Host, session: &str, judged: u64) -> String {
    let reply = chat(host, session, &[("user", "Hello")]);
    let conversation = [
        ("user", "Hello"),
        ("assistant", reply.text()),
        ("user", "thank you"),
    ];
    chat(host, session, &conversation);
    until(host, "a verdict", |status| status.judged == judged);
    let last = host.ledger().by_kind(JUDGED, ledger::Seq::FIRST).last();
    let record: JudgedRecord = records::decode(&last.unwrap().unwrap()).unwrap();
    record.rule
}

fn write(folder: &Path, version: &str, component: &[u8]) {
    let manifest = bundled::BINARY_REWARD.manifest;
    let manifest = manifest
        .replace("binary-reward", "mine")
        .replace("0.1.0", version);
    fs::write(folder.join("plugin.toml"), manifest).unwrap();
    fs::write(folder.join("plugin.wasm"), component).unwrap();
}

#[test]
fn a_plugin_that_is_built_again_takes_the_old_ones_place_at_the_next_turn() {
    let folder = tempfile::tempdir().unwrap();
    let mine = folder.path().join("mine");
    fs::create_dir(&mine).unwrap();
    write(&mine, "0.1.0", bundled::BINARY_REWARD.component);
    let mut config = config(&folder.path().join("data"));
    config.plugins.reward = mine.to_string_lossy().into_owned();
    config
        .plugins
        .grants
        .insert("mine".into(), vec!["config".into()]);
    with_host(config, |host| {
        assert_eq!(rule_of_a_new_turn(host, "s1", 1), "mine 0.1.0");
        // Damaged: the old one goes on, for as long as it takes.
        write(&mine, "0.2.0", b"no component");
        wait();
        assert_eq!(rule_of_a_new_turn(host, "s2", 2), "mine 0.1.0");
        write(&mine, "0.3.0", bundled::COMBINED_REWARD.component);
        // The combined rule's component needs a key that this manifest lacks, which shows only when it is asked.
        wait();
        write(&mine, "0.4.0", bundled::BINARY_REWARD.component);
        wait();
        assert_eq!(rule_of_a_new_turn(host, "s3", 3), "mine 0.4.0");
        // Another that sees more than a turn would leave turns waiting for nobody: refused until the host starts again.
        let manifest = fs::read_to_string(mine.join("plugin.toml")).unwrap();
        fs::write(
            mine.join("plugin.toml"),
            manifest
                .replace("0.4.0", "0.5.0")
                .replace("world = ", "sees = \"group\"\nworld = "),
        )
        .unwrap();
        wait();
        assert_eq!(rule_of_a_new_turn(host, "s4", 4), "mine 0.4.0");
    });
}

/// Plugins are looked at every second.
fn wait() {
    std::thread::park_timeout(std::time::Duration::from_millis(2_500));
}
