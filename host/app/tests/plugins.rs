//! A plugin's author at the command line: from nothing to a plugin that a host can run, and what stops a wrong one.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

#[path = "../src/plugins/oci/registry.rs"]
#[expect(dead_code, reason = "the library's own tests use the rest")]
mod registry;

/// Runs `nextstate plugin` where the author is; behind `operator`, with the operator's store.
fn plugin(dir: &Path, args: &[&str]) -> Output {
    command(dir, args).output().unwrap()
}

fn command(dir: &Path, args: &[&str]) -> Command {
    let (store, args) = match args {
        ["operator", args @ ..] => ("operator", args),
        args => ("author", args),
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_nextstate"));
    command
        .arg("plugin")
        .args(args)
        .current_dir(dir)
        .env("NEXTSTATE_PLUGINS", dir.join(store))
        .env("NEXTSTATE_CACHE", dir.join("compiled"))
        .env("NEXTSTATE_KEYS", dir.join("keys"))
        // Nobody's passwords.
        .env("DOCKER_CONFIG", dir)
        .env_remove("NEXTSTATE_OCI_REGISTRY")
        .env_remove("NEXTSTATE_OCI_USER")
        .env_remove("NEXTSTATE_OCI_PASSWORD")
        // All projects of the test share what they compile.
        .env("CARGO_TARGET_DIR", dir.join("target"));
    command
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

#[track_caller]
fn works(dir: &Path, args: &[&str], expected: &str) -> String {
    let output = plugin(dir, args);
    let said = said(&output);
    assert!(
        output.status.success() && said.contains(expected),
        "{args:?}: {said}"
    );
    said
}

#[track_caller]
fn fails(dir: &Path, args: &[&str], expected: &str) {
    let output = plugin(dir, args);
    let said = said(&output);
    assert!(
        !output.status.success() && said.contains(expected),
        "{args:?}: {said}"
    );
    assert!(!said.contains("thread 'main'"), "{said}");
}

/// Replaces some text of a file, which must be there.
fn edit(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{from}");
    fs::write(path, text.replace(from, to)).unwrap();
}

#[test]
fn what_one_command_compiled_the_next_loads_unless_somebody_changed_it() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    works(dir, &["check", "binary-reward"], "is sound");
    let kept: Vec<_> = fs::read_dir(dir.join("compiled"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(kept.len(), 1, "{kept:?}");
    let read = || fs::read(&kept[0]).unwrap();
    let compiled = read();
    let long_ago = std::time::SystemTime::UNIX_EPOCH;
    let touched = || fs::metadata(&kept[0]).unwrap().modified().unwrap();
    let opened = fs::File::open(&kept[0]).unwrap();
    opened.set_modified(long_ago).unwrap();
    let said = works(dir, &["test", "binary-reward"], "none failed");
    assert!(!said.contains("cache"), "{said}");
    assert!(touched() > long_ago);

    let mut changed = compiled.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    fs::write(&kept[0], changed).unwrap();
    let said = works(dir, &["check", "binary-reward"], "is sound");
    assert!(said.contains("in the cache is not used"), "{said}");
    assert_eq!(read().len(), compiled.len());
    works(dir, &["check", "binary-reward"], "is sound");

    // A place that cannot be used is one line, and no reason to stop.
    fs::remove_dir_all(dir.join("compiled")).unwrap();
    fs::write(dir.join("compiled"), "no folder").unwrap();
    let said = works(dir, &["check", "binary-reward"], "is sound");
    assert_eq!(said.matches("are not kept").count(), 1, "{said}");
}

#[test]
fn each_kind_of_project_builds_passes_its_own_test_and_is_sound() {
    let dir = tempfile::tempdir().unwrap();
    for kind in ["reward", "judge", "environment"] {
        let name = format!("my-{kind}");
        works(
            dir.path(),
            &["new", &name, "--kind", kind],
            "nextstate plugin build",
        );
        fails(dir.path(), &["check", &name], "nextstate plugin build");
        works(dir.path(), &["build", &name], "plugin.wasm");
        works(dir.path(), &["check", &name], "is sound");
        works(dir.path(), &["test", &name], "none failed");
        let json = works(dir.path(), &["inspect", &name, "--json"], "sha256");
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["manifest"]["name"], name.as_str());
    }
    let reward = dir.path().join("my-reward");
    from_author_to_operator(dir.path(), &reward);
    wrong_ones(dir.path(), &reward);
}

/// A package is installed when its author is trusted and what it asks for is granted; a later version asks for what is new only.
fn from_author_to_operator(dir: &Path, reward: &Path) {
    let file = "my-reward-0.1.0.nsplugin";
    works(dir, &["pack", "my-reward"], file);
    let key = works(dir, &["key"], "").trim().to_owned();
    fails(
        dir,
        &["operator", "install", file],
        &format!("nextstate plugin trust NAME {key}"),
    );
    works(
        dir,
        &["operator", "trust", "ann", &key],
        "packages signed by ann",
    );
    fails(dir, &["operator", "install", file], "--grant config");
    fails(
        dir,
        &["operator", "inspect", "my-reward@0.1.0"],
        "nor installed",
    );
    let said = works(
        dir,
        &["operator", "install", file, "--grant", "config"],
        "in use",
    );
    assert!(
        said.contains("signed by   ann") && said.contains("asks for    config"),
        "{said}"
    );
    fs::rename(reward, dir.join("aside")).unwrap();
    works(dir, &["operator", "check", "my-reward"], "is sound");
    works(dir, &["operator", "list"], "installed, in use");
    fs::rename(dir.join("aside"), reward).unwrap();

    // The next version asks for one thing more; what was granted is not asked for again.
    let manifest = reward.join("plugin.toml");
    let good = fs::read_to_string(&manifest).unwrap();
    edit(&manifest, "0.1.0", "0.2.0");
    edit(&manifest, "[\"config\"]", "[\"config\", \"random\"]");
    works(dir, &["pack", "my-reward"], "my-reward-0.2.0.nsplugin");
    fs::write(&manifest, good).unwrap();
    let next = "my-reward-0.2.0.nsplugin";
    fails(
        dir,
        &["operator", "install", next],
        "--grant random grants it",
    );
    works(
        dir,
        &["operator", "install", next, "--grant", "random"],
        "instead of 0.1.0",
    );
    works(
        dir,
        &["operator", "use", "my-reward@0.1.0"],
        "0.1.0 is in use",
    );
    fails(
        dir,
        &["operator", "use", "my-reward@0.3.0"],
        "there is: 0.1.0, 0.2.0",
    );

    let mut bytes = fs::read(dir.join(file)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(dir.join("changed.nsplugin"), bytes).unwrap();
    fails(
        dir,
        &["operator", "install", "changed.nsplugin"],
        "changed after it was signed",
    );
    fails(
        dir,
        &["operator", "install", "my-reward/plugin.wasm"],
        "no plugin package",
    );
    works(dir, &["operator", "remove", "my-reward"], "removed");
    fails(
        dir,
        &["operator", "remove", "../author"],
        "no plugin's name",
    );
}

/// The same project with mistakes: each is named, and the plugin that worked stays.
fn wrong_ones(dir: &Path, reward: &Path) {
    let (source, manifest) = (reward.join("src/lib.rs"), reward.join("plugin.toml"));
    let component = fs::read(reward.join("plugin.wasm")).unwrap();
    let (good_source, good_manifest) = (
        fs::read_to_string(&source).unwrap(),
        fs::read_to_string(&manifest).unwrap(),
    );
    let kept = || assert_eq!(fs::read(reward.join("plugin.wasm")).unwrap(), component);

    edit(
        &source,
        "Ok(majority::decide(&votes))",
        "Ok(majority::decide(votes))",
    );
    fails(dir, &["build", "my-reward"], "does not compile");
    kept();
    fs::write(&source, &good_source).unwrap();
    works(
        dir,
        &["check", "my-reward"],
        "src/lib.rs was changed after plugin.wasm was made",
    );
    edit(&manifest, "version = ", "vers = ");
    fails(dir, &["check", "my-reward"], "my-reward/plugin.toml");
    fails(dir, &["check", "my-reward"], "line 2: ");
    fs::write(&manifest, &good_manifest).unwrap();

    edit(
        &manifest,
        "capabilities = [\"config\"]",
        "capabilities = []",
    );
    fails(
        dir,
        &["build", "my-reward"],
        "it imports `nextstate:plugin/config@0.1.0`",
    );
    kept();
    fs::write(&manifest, &good_manifest).unwrap();

    edit(
        &source,
        "Ok(majority::decide(&votes))",
        "static CALLS: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);\n\
         let calls = CALLS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);\n\
         Ok(majority::decide(&votes).filter(|_| calls < 6))",
    );
    works(dir, &["build", "my-reward"], "plugin.wasm");
    fails(
        dir,
        &["check", "my-reward"],
        "answered the same calls differently",
    );
    fs::write(&source, &good_source).unwrap();

    token_level(dir, &source, &manifest);
    fs::write(&source, &good_source).unwrap();
    fs::write(&manifest, &good_manifest).unwrap();

    edit(&source, "2.0 * score - 1.0", "score / 0.0");
    works(dir, &["build", "my-reward"], "plugin.wasm");
    fails(dir, &["check", "my-reward"], "which is not finite");
    fails(dir, &["test", "my-reward", "--no-unit"], "FAILED");
    fails(dir, &["test", "my-reward"], "the plugin's own tests failed");
    fails(
        dir,
        &["check", "my-reward", "--set", "outcome-weight=1000"],
        "1000 is greater than 100",
    );
}

/// What a rule says about tokens is asked for when its manifest says that it decides them, and only then.
fn token_level(dir: &Path, source: &Path, manifest: &Path) {
    edit(
        source,
        "    fn turn_rewards(",
        "    fn token_advantages(streams: sdk::TokenStreams) -> Result<Option<Vec<f64>>, Fault> {\n\
         \x20       Ok(Some(streams.behaviour[1..].iter().map(|_| 1.0).collect()))\n    }\n\n\
         \x20   fn turn_rewards(",
    );
    works(dir, &["build", "my-reward"], "plugin.wasm");
    works(dir, &["check", "my-reward"], "is sound");
    edit(manifest, "version =", "token-level = true\nversion =");
    fails(
        dir,
        &["check", "my-reward"],
        "token-advantages(4 tokens, advantage 1, 0 accepted hints) → FAILED: ",
    );
    edit(source, "streams.behaviour[1..]", "streams.behaviour");
    works(dir, &["build", "my-reward"], "plugin.wasm");
    works(dir, &["check", "my-reward"], "is sound");
}

/// Whether the tools of the other languages are here, or may be fetched. `.ci/run` says so.
fn has_languages(dir: &Path) -> bool {
    let wanted = std::env::var_os("NEXTSTATE_REQUIRE_LANGUAGES").is_some();
    if !wanted {
        eprintln!(
            "{}: skipped; set NEXTSTATE_REQUIRE_LANGUAGES=1 to build guests in Python and JavaScript, with their registries at hand",
            dir.display()
        );
    }
    wanted
}

#[test]
fn a_reward_rule_in_javascript_builds_passes_its_own_tests_and_says_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    works(
        dir,
        &["new", "my-js", "--kind", "reward", "--lang", "js"],
        "plugin.js",
    );
    if !has_languages(dir) {
        return;
    }
    works(dir, &["build", "my-js"], "plugin.wasm");
    let said = works(dir, &["check", "my-js"], "is sound");
    // Stubbed WASI leaves no import behind.
    assert!(said.contains("imports     log, metric, config\n"), "{said}");
    works(dir, &["test", "my-js"], "none failed");

    let (source, manifest) = (dir.join("my-js/plugin.js"), dir.join("my-js/plugin.toml"));
    edit(
        &source,
        "weight = get(\"outcome-weight\").val",
        "weight = get(\"no-key\").val",
    );
    fails(dir, &["test", "my-js"], "the plugin's own tests failed");
    works(dir, &["build", "my-js"], "plugin.wasm");
    fails(dir, &["test", "my-js", "--no-unit"], "TypeError");
    edit(
        &manifest,
        "capabilities = [\"config\"]",
        "capabilities = []",
    );
    fails(
        dir,
        &["build", "my-js"],
        "needs its capability in plugin.toml",
    );
}

/// CPython takes a debug build of the host half a minute to compile, so that each command here is one that must be.
#[test]
fn a_reward_rule_in_python_builds_and_passes_its_own_tests() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    works(
        dir,
        &["new", "my-py", "--kind", "reward", "--lang", "python"],
        "app.py",
    );
    if !has_languages(dir) {
        return;
    }
    works(dir, &["build", "my-py"], "plugin.wasm");
    let said = works(dir, &["test", "my-py"], "none failed");
    assert!(said.contains("Ran 2 tests"), "{said}");
    let source = dir.join("my-py/app.py");
    edit(
        &source,
        "2.0 * trajectory.outcome",
        "3.0 * trajectory.outcome",
    );
    fails(dir, &["test", "my-py"], "the plugin's own tests failed");
    edit(&dir.join("my-py/plugin.toml"), "[\"config\"]", "[]");
    fails(
        dir,
        &["build", "my-py"],
        "needs its capability in plugin.toml",
    );
}

#[test]
fn a_language_s_missing_tools_are_named_with_what_to_install() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for (language, remedy) in [
        (
            "python",
            "guests in Python need Python 3.11 or later with venv",
        ),
        (
            "js",
            "guests in JavaScript need Node.js 20.6 or later with npx",
        ),
    ] {
        works(
            dir,
            &["new", language, "--kind", "judge", "--lang", language],
            "nextstate plugin build",
        );
        let output = command(dir, &["build", language])
            .env("PATH", dir)
            .env_remove("NEXTSTATE_PYTHON")
            .output()
            .unwrap();
        let said = said(&output);
        assert!(!output.status.success() && said.contains(remedy), "{said}");
    }
    let output = command(dir, &["build", "python"])
        .env("NEXTSTATE_PYTHON", "/usr/bin/false")
        .output()
        .unwrap();
    let said = said(&output);
    assert!(said.contains("-m pip install componentize-py"), "{said}");
}

#[test]
fn what_is_no_plugin_is_said_to_be_none() {
    let dir = tempfile::tempdir().unwrap();
    fails(dir.path(), &["build"], "nextstate plugin new");
    fails(dir.path(), &["check", "no-such-plugin"], "neither shipped");
    fs::write(dir.path().join("plugin.toml"), "name = 3").unwrap();
    fails(dir.path(), &["build"], "plugin.toml");
    works(dir.path(), &["list"], "reaction-judge");
    works(
        dir.path(),
        &["check", "combined-reward", "--set", "opd-weight=0.5"],
        "is sound",
    );
}

/// Plays an episode of the shipped tool calls with these words.
fn played(dir: &Path, words: &str) -> String {
    let mut child = command(
        dir,
        &[
            "play",
            "tool-call",
            "--record",
            "recordings",
            "--set",
            "difficulty=1",
        ],
    )
    .stdin(std::process::Stdio::piped())
    .stdout(std::process::Stdio::piped())
    .spawn()
    .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, words.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    said(&output)
}

#[test]
fn a_person_plays_an_episode_by_hand_and_its_recording_replays() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    works(dir, &["play", "tool-call", "--list"], "held-out: ");
    fails(
        dir,
        &["play", "tool-call", "--task", "no-such-task"],
        "--list says which there are",
    );
    let given_up = played(dir, "");
    assert!(given_up.contains("given up"), "{given_up}");
    let said = played(
        dir,
        "/call no_such_tool {\"a\": 1}\n\nI do not know.\u{1b}[2J\n\n",
    );
    for part in [
        "tool-call 0.1.0 · task ",
        "\nuser ",
        "no_such_tool({\"a\": 1})",
        "\nnext ",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert!(
        said.contains("know.\u{fffd}[2J") && !said.contains('\u{1b}'),
        "{said}"
    );
    assert!(said.contains("\noutcome 0.00"), "{said}");
    works(
        dir,
        &["replay", "tool-call", "recordings", "--set", "difficulty=1"],
        "2 episodes, all the same",
    );
}

#[test]
fn a_package_from_a_registry_is_installed_on_the_same_terms_as_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (guest, folder) = (bundled::BINARY_REWARD, dir.join("my-rule"));
    fs::create_dir(&folder).unwrap();
    let manifest = guest.manifest.replace("binary-reward", "my-rule");
    fs::write(folder.join("plugin.toml"), manifest).unwrap();
    fs::write(folder.join("plugin.wasm"), guest.component).unwrap();
    let registry = registry::Registry::start();
    let place = format!("{}/ann/my-rule", registry.address);
    let said = works(
        dir,
        &["push", "my-rule", &place],
        "plugin install oci://127.0.0.1",
    );
    let fixed = said.split_whitespace().last().unwrap();
    works(dir, &["pack", "my-rule"], "my-rule-0.1.0.nsplugin");
    works(
        dir,
        &["push", "my-rule-0.1.0.nsplugin", &format!("{place}:latest")],
        &format!("{place}:latest: my-rule 0.1.0"),
    );

    let key = works(dir, &["key"], "").trim().to_owned();
    fails(
        dir,
        &["operator", "install", fixed],
        &format!("nextstate plugin trust NAME {key}"),
    );
    works(dir, &["operator", "trust", "ann", &key], "ann");
    fails(dir, &["operator", "install", fixed], "--grant config");
    works(
        dir,
        &["operator", "install", fixed, "--grant", "config"],
        "signed by   ann",
    );
    works(dir, &["operator", "list"], "installed, in use");

    let tag = format!("oci://{place}:0.1.0");
    fails(dir, &["pull", &tag], "--out names another");
    // Nothing answers there; what is on this machine is asked without it.
    let around = command(dir, &["pull", &tag, "--out", "around.nsplugin"])
        .env("ALL_PROXY", "http://127.0.0.1:9")
        .env("HTTP_PROXY", "http://127.0.0.1:9")
        .env_remove("NO_PROXY")
        .env_remove("no_proxy")
        .output()
        .unwrap();
    assert!(around.status.success(), "{around:?}");
    works(dir, &["pull", &tag, "--out", "again.nsplugin"], "signed by");
    assert_eq!(
        fs::read(dir.join("again.nsplugin")).unwrap(),
        fs::read(dir.join("my-rule-0.1.0.nsplugin")).unwrap()
    );
    fails(dir, &["pull", "my-rule"], "names a registry");
    fails(
        dir,
        &["push", "my-rule", "ann/my-rule"],
        "no registry's host",
    );
}
