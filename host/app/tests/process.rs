//! The program as an operator runs it: killed at any moment it goes on from its ledger; asked to stop it exits 0.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

fn tiny_llama() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../policy/fixtures/tiny-llama")
}

/// The command that serves a model in this folder, with more lines in `[plugins]`.
fn serve(folder: &Path, model: &Path, plugins: &str) -> Command {
    let config = folder.join("host.toml");
    let text = format!(
        "data = {data:?}\n[model]\nname = {model:?}\ndtype = \"f32\"\n[gateway]\nlisten = \"127.0.0.1:0\"\n\
         [engine]\ncontext = 512\nkv-bytes = 67108864\n[plugins]\njudge = \"words\"\n{plugins}\n\
         [loops.train]\nbatch-size = 2\n[train]\nrank = 4\n",
        data = folder.join("data"),
    );
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_nextstate"));
    command
        .args(["serve", "--config"])
        .arg(&config)
        .env("NEXTSTATE_CACHE", folder.join("compiled"))
        .env("NEXTSTATE_KEYS", folder.join("keys"));
    command
}

/// A host in a process of its own, with the tiny model and the word judge.
struct Process {
    child: Child,
    // Kept open: a closed pipe would end the host at its next line.
    stderr: BufReader<ChildStderr>,
    url: String,
}

impl Process {
    fn start(folder: &Path) -> Self {
        Self::with(folder, "")
    }

    /// With more lines in `[plugins]`.
    fn with(folder: &Path, plugins: &str) -> Self {
        Self::spawn(serve(folder, &tiny_llama(), plugins))
    }

    fn spawn(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        let url = loop {
            let mut line = String::new();
            assert_ne!(
                stderr.read_line(&mut line).unwrap(),
                0,
                "the host ended: {said}"
            );
            if let Some((_, url)) = line.trim().split_once(" at ") {
                break url.trim_end_matches("/v1").to_owned();
            }
            said.push_str(&line);
        };
        Self { child, stderr, url }
    }

    fn agent() -> ureq::Agent {
        ureq::Agent::config_builder()
            .http_status_as_error(false)
            .build()
            .into()
    }

    fn chat(&self, session: &str, messages: &Value) -> Value {
        let mut response = Self::agent()
            .post(format!("{}/v1/chat/completions", self.url))
            .header("x-session-id", session)
            .send_json(json!({"model": "tiny-llama:main", "messages": messages, "max_tokens": 8}))
            .unwrap();
        let status = response.status().as_u16();
        let body: Value = response.body_mut().read_json().unwrap();
        assert_eq!(status, 200, "{body}");
        body
    }

    fn complain(&self, session: &str) {
        let asked = json!({"role": "user", "content": "How do I boil an egg?"});
        let reply = self.chat(session, &json!([asked]));
        let complaint =
            json!({"role": "user", "content": "No, that is too long. Please make it shorter."});
        self.chat(
            session,
            &json!([asked, reply["choices"][0]["message"], complaint]),
        );
    }

    fn status(&self) -> Value {
        Self::agent()
            .get(format!("{}/v1/status", self.url))
            .call()
            .unwrap()
            .body_mut()
            .read_json()
            .unwrap()
    }

    /// Asks until the host says so; bounded in tries.
    fn until(&self, what: &str, done: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..3000 {
            let status = self.status();
            if done(&status) {
                return status;
            }
            std::thread::park_timeout(std::time::Duration::from_millis(10));
        }
        panic!("{what} did not happen: {}", self.status());
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// A test that fails leaves no host behind.
impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The processes that this one started.
fn children(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of = |task: std::io::Result<std::fs::DirEntry>| {
        let list = std::fs::read_to_string(task.ok()?.path().join("children")).ok()?;
        let pids = list.split_whitespace().map(|pid| pid.parse().unwrap());
        Some(pids.collect::<Vec<u32>>())
    };
    tasks.filter_map(of).flatten().collect()
}

#[test]
fn a_host_whose_plugins_run_apart_learns_though_their_workers_are_killed() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::with(folder.path(), "isolation = \"process\"");
    let judged = |status: &Value| status["judged"].as_u64().unwrap();
    // An environment and a rule, each with a spare.
    let workers_without = |killed: u32| {
        let begun = Instant::now();
        loop {
            let workers = children(process.child.id());
            if workers.len() == 4 && !workers.contains(&killed) {
                return workers;
            }
            assert!(begun.elapsed() < Duration::from_secs(120), "{workers:?}");
            std::thread::park_timeout(Duration::from_millis(20));
        }
    };
    for round in 1..=4 {
        process.complain(&format!("s{round}"));
        process.until("a verdict", |status| judged(status) == round);
        let pid = workers_without(0)[0];
        let killed = Command::new("kill").arg("-9").arg(pid.to_string()).status();
        assert!(killed.unwrap().success());
        workers_without(pid);
    }
    process.kill();
    // Two plugins, whose workers were started many times.
    let kept = std::fs::read_dir(folder.path().join("compiled")).unwrap();
    assert_eq!(kept.count(), 2);
}

/// The turns that a status counts, however they were classified.
fn turns(status: &Value) -> u64 {
    status["turns"]
        .as_object()
        .unwrap()
        .values()
        .filter_map(Value::as_u64)
        .sum()
}

#[test]
fn a_host_killed_at_once_after_a_reply_has_that_reply_when_it_starts_again() {
    let folder = tempfile::tempdir().unwrap();
    for round in 1..=3u64 {
        let host = Process::start(folder.path());
        assert_eq!(
            turns(&host.status()),
            round - 1,
            "an acknowledged turn was lost, or one appeared"
        );
        host.chat(
            &format!("round-{round}"),
            &json!([{"role": "user", "content": "Hi"}]),
        );
        host.kill();
    }
}

#[test]
fn a_host_killed_after_a_version_serves_it_again_and_trains_no_sample_twice() {
    let folder = tempfile::tempdir().unwrap();
    let host = Process::start(folder.path());
    host.complain("one");
    host.complain("two");
    host.complain("three");
    let before = host.until("a version", |status| status["live"] == 1);
    host.kill();

    let host = Process::start(folder.path());
    let reply = host.chat("again", &json!([{"role": "user", "content": "Hi"}]));
    let print = reply["system_fingerprint"].as_str().unwrap();
    assert!(print.contains("@v1"), "{print}");
    // The third complaint's sample waits in the ledger for its batch; a fourth fills it.
    host.complain("four");
    let after = host.until("the second version", |status| status["live"] == 2);
    assert_eq!(before["trained"], 2, "{before}");
    assert_eq!(after["trained"], 4, "{after}");
    let versions = after["versions"].as_array().unwrap();
    let mut samples: Vec<&str> = versions
        .iter()
        .flat_map(|v| v["samples"].as_array().unwrap())
        .map(|s| s.as_str().unwrap())
        .collect();
    let all = samples.len();
    samples.sort_unstable();
    samples.dedup();
    assert_eq!(
        (all, samples.len()),
        (4, 4),
        "a sample was trained twice: {versions:?}"
    );
    host.kill();
}

#[test]
fn a_host_that_is_asked_to_stop_finishes_and_exits_0() {
    let folder = tempfile::tempdir().unwrap();
    let mut host = Process::start(folder.path());
    host.chat("one", &json!([{"role": "user", "content": "Hi"}]));
    let killed = Command::new("kill")
        .args(["-TERM", &host.child.id().to_string()])
        .status()
        .unwrap();
    assert!(killed.success());
    let status = host.child.wait().unwrap();
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut host.stderr, &mut rest).unwrap();
    assert!(status.success(), "{status}: {rest}");
    assert!(rest.contains("stopped"), "{rest}");
}

#[test]
fn a_second_host_on_the_same_folder_refuses_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let host = Process::start(folder.path());
    let output = Command::new(env!("CARGO_BIN_EXE_nextstate"))
        .args(["log", "--data"])
        .arg(folder.path().join("data"))
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("ledger") && said.contains("another"),
        "{said}"
    );
    host.kill();
}

/// Runs the program; gives whether it succeeded, and what it said on both outputs.
fn run(args: &[&str]) -> (bool, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_nextstate"))
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.success(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[test]
fn the_commands_work_on_a_live_host_and_on_its_folder_alike() {
    let folder = tempfile::tempdir().unwrap();
    let host = Process::start(folder.path());
    host.complain("one");
    host.complain("two");
    host.until("a version", |status| status["live"] == 1);
    let url = host.url.clone();
    let live = |args: &[&str]| run(&[args, &["--url", &url]].concat());
    assert!(live(&["tag", "first", "v1"]).0);
    let (ok, graph, _) = live(&["log", "--graph"]);
    assert!(
        ok && graph.starts_with("*  v1 ") && graph.contains("(head, tag first)"),
        "{graph}"
    );
    let (_, json, said) = live(&["log", "--json"]);
    let row: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (
            row["version"].as_u64(),
            row["live"].as_bool(),
            said.as_str()
        ),
        (Some(1), Some(true), "")
    );
    let (ok, _, said) = live(&["forget", "--session", "one"]);
    assert!(
        !ok && said.contains("1 sample") && said.contains("--yes"),
        "{said}"
    );
    let (ok, _, said) = live(&["show", "nothing"]);
    assert!(
        !ok && said.contains("no version `nothing`") && said.contains("first"),
        "{said}"
    );
    host.kill();

    let data = folder.path().join("data").to_string_lossy().into_owned();
    let offline = |args: &[&str]| run(&[args, &["--data", &data]].concat());
    assert_eq!(
        offline(&["log", "--graph"]).1,
        graph,
        "the folder tells the same history"
    );
    let (ok, said, _) = offline(&["revert", "base"]);
    assert!(ok && said.contains("the base model again"), "{said}");
    let out = folder.path().join("peft").to_string_lossy().into_owned();
    assert!(offline(&["export", "first", "--out", &out]).0);
    assert!(Path::new(&out).join("adapter_config.json").is_file());
    let (ok, said, error) = offline(&["replay", "--verify"]);
    assert!(ok && said.contains("bit for bit"), "{said}{error}");
    let (ok, said, error) = offline(&["forget", "--session", "one", "--yes"]);
    assert!(ok && said.contains("forgotten: 2 turns"), "{said}{error}");
    let (ok, said, error) = offline(&["ledger", "verify"]);
    assert!(ok && said.contains("sound"), "{said}{error}");
}

#[test]
fn a_ledger_that_is_damaged_is_refused_with_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let host = Process::start(folder.path());
    host.chat("one", &json!([{"role": "user", "content": "Hi"}]));
    host.kill();
    let data = folder.path().join("data");
    let mark = data.join("ledger").join("mark");
    let bytes = std::fs::read(&mark).unwrap();
    std::fs::write(&mark, vec![0xa5; bytes.len()]).unwrap();
    let data = data.to_string_lossy().into_owned();
    let (ok, _, said) = run(&["log", "--data", &data]);
    assert!(
        !ok && said.contains("ledger verify") && said.contains("ledger repair"),
        "{said}"
    );
    let (ok, said, _) = run(&["ledger", "verify", "--data", &data]);
    assert!(
        !ok && said.contains("mark") && said.contains("NOT SOUND"),
        "{said}"
    );
    let to = folder
        .path()
        .join("repaired")
        .to_string_lossy()
        .into_owned();
    let (ok, said, error) = run(&["ledger", "repair", "--data", &data, "--to", &to]);
    assert!(ok && said.contains("nothing was lost"), "{said}{error}");
    let (ok, said, error) = run(&["ledger", "verify", "--data", &to]);
    assert!(ok && said.contains("sound"), "{said}{error}");
    let (ok, _, said) = run(&["ledger", "repair", "--data", &data, "--to", &to]);
    assert!(!ok && said.contains(&to), "{said}");
}

/// What a command that must fail says.
fn refused(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{said}");
    said
}

#[test]
fn a_host_over_its_budget_is_refused_with_its_parts_before_a_weight_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("tiny-llama");
    std::fs::create_dir(&model).unwrap();
    for file in std::fs::read_dir(tiny_llama()).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), model.join(file.file_name())).unwrap();
    }
    // A model without one of its weights: whoever reads them says so.
    let weights = model.join("model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    let name = b"model.norm.weight";
    let at = bytes.windows(name.len()).position(|w| w == name).unwrap();
    bytes[at + 6..at + 10].copy_from_slice(b"gone");
    std::fs::write(&weights, bytes).unwrap();

    let serve = || serve(folder.path(), &model, "");
    let said = refused(&mut serve());
    assert!(said.contains("model.norm.weight"), "{said}");
    let said = refused(serve().args(["--memory", "64MiB"]));
    for part in [
        "the memory budget is 64 MiB",
        "nothing was loaded",
        "weights",
        "serving: keys and values",
        "the rest of the program",
    ] {
        assert!(said.contains(part), "no `{part}` in:\n{said}");
    }
    assert!(!said.contains("norm"), "{said}");
}

#[test]
fn a_host_with_the_least_budget_that_it_asks_for_learns_and_keeps_it() {
    let folder = tempfile::tempdir().unwrap();
    let serve = || serve(folder.path(), &tiny_llama(), "");
    let said = refused(serve().args(["--memory", "64MiB"]));
    let least = said.split_once("memory = \"").unwrap().1;
    let least = least.split_once('"').unwrap().0;
    let mut command = serve();
    command.args(["--memory", least]);
    let host = Process::spawn(command);
    host.complain("one");
    host.complain("two");
    host.until("a version", |status| status["live"] == 1);
    host.complain("three");
    // It would need a learner of its own.
    let (ok, _, said) = run(&["blame", "Hi", "--url", &host.url]);
    assert!(!ok && said.contains("not planned for `blame`"), "{said}");

    let status = std::fs::read_to_string(format!("/proc/{}/status", host.child.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let peak: u64 = line
        .unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    let least: u64 = least.strip_suffix("MiB").unwrap().parse().unwrap();
    assert!(peak <= least << 10, "{peak} kB of {least} MiB: {status}");
    host.kill();

    // With more it is answered.
    let mut command = serve();
    command.args(["--memory", "64GiB"]);
    let host = Process::spawn(command);
    let blame = |method| run(&["blame", "Hi", "--method", method, "--url", &host.url]);
    for method in ["gradient", "replay"] {
        let (ok, _, said) = blame(method);
        assert!(ok, "{said}");
    }
    host.kill();
}
