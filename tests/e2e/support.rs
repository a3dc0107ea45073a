//! A host with a tiny random model, and a client that speaks to it as users do.

use std::path::{Path, PathBuf};

use app::config::{Config, Dtype, ModelSection};
use app::host::{Host, Loaded};
use serde_json::{Value, json};

/// The repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .unwrap()
}

/// Two layers of random weights with a byte tokenizer: answers nonsense, at once, and needs no download.
pub(crate) fn tiny() -> ModelSection {
    let folder = root().join("host/policy/fixtures/tiny-llama");
    ModelSection {
        name: folder.to_string_lossy().into_owned(),
        dtype: Dtype::F32,
        threads: 2,
        ..ModelSection::default()
    }
}

/// A small host's configuration in this folder: any free port, the native word judge, a version every two samples.
pub(crate) fn config(data: &Path) -> Config {
    let mut config = Config {
        data: data.to_owned(),
        model: tiny(),
        ..Config::default()
    };
    config.gateway.listen.set_port(0);
    config.gateway.default_max_tokens = 24;
    config.engine.context = 512;
    config.engine.kv_bytes = 64 << 20;
    config.engine.prefix_bytes = 1 << 20;
    config.plugins.judge = "words".into();
    // Nothing of the person who runs the tests.
    config.plugins.cache = false;
    config.loops.train.batch_size = 2;
    config.train.rank = 4;
    config
}

/// Runs `test` against a started host, then stops the host cleanly.
pub(crate) fn with_host<T>(config: Config, test: impl FnOnce(&Host) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let loaded = Loaded::from_config(&config.model).unwrap();
    let host = runtime.block_on(Host::start(config, loaded)).unwrap();
    let result = test(&host);
    runtime.block_on(host.stop()).unwrap();
    result
}

/// A reply as a client sees it.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) version: Option<u64>,
    pub(crate) body: Value,
}

impl Reply {
    pub(crate) fn text(&self) -> &str {
        self.body["choices"][0]["message"]["content"]
            .as_str()
            .unwrap_or_default()
    }
}

/// Posts a chat completion.
pub(crate) fn chat(host: &Host, session: &str, messages: &[(&str, &str)]) -> Reply {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .build()
        .into();
    let messages: Vec<Value> = messages
        .iter()
        .map(|(role, text)| json!({"role": role, "content": text}))
        .collect();
    let mut response = agent
        .post(format!("{}/v1/chat/completions", host.url()))
        .header("x-session-id", session)
        .send_json(json!({"model": host.trained_model(), "messages": messages, "max_tokens": 16}))
        .unwrap();
    let version = response.headers().get("x-policy-version").map(|value| {
        value
            .to_str()
            .unwrap()
            .trim_start_matches('v')
            .parse()
            .unwrap()
    });
    Reply {
        status: response.status().as_u16(),
        version,
        body: response.body_mut().read_json().unwrap(),
    }
}

/// Asks the host until `done` says so. A bound in tries, not in time: every try asks the host.
pub(crate) fn until(
    host: &Host,
    what: &str,
    done: impl Fn(&loops::Status) -> bool,
) -> loops::Status {
    for _ in 0..3000 {
        let status = host.loops().status();
        if done(&status) {
            return status;
        }
        std::thread::park_timeout(std::time::Duration::from_millis(10));
    }
    panic!(
        "{what} did not happen; the host's status is {:#?}",
        host.loops().status()
    );
}

/// Whether one of these programs is there. Where `NEXTSTATE_REQUIRE_SANDBOX` says that they have to be, as in CI, a test goes on and fails.
pub(crate) fn has(programs: &[&str]) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&folders).any(|folder| {
        programs
            .iter()
            .any(|program| folder.join(program).is_file())
    });
    if !found {
        eprintln!("skipped: none of {programs:?} is on the path");
    }
    found || std::env::var_os("NEXTSTATE_REQUIRE_SANDBOX").is_some()
}
