//! `cargo bench -p tests [-- model]`: how fast weights move on a running host: publish, revert, replay, forget.
//!
//! Without a model it is the tiny random one, whose steps and tokens cost next to nothing: what is left is the host's own time.
//! `-- smollm2-135m-instruct` measures the demo's. Figures only: nothing is asserted.
#![expect(clippy::print_stdout, reason = "a command")]

use std::{
    env,
    ops::ControlFlow,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use app::{
    config::{Config, Dtype, ModelSection},
    host::{Host, Loaded},
};
use ledger::{Ledger, Seq, lineage};
use loops::{Line, forget::Selector, replay};
use rl::PolicyVersion;
use serde_json::{Value, json};

/// Reverts, there and back.
const REVERTS: usize = 20;
/// Versions that are trained and published under watch.
const VERSIONS: usize = 12;

fn main() -> anyhow::Result<()> {
    let model = env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let dir = tempfile::tempdir()?;
    let config = config(dir.path(), model.as_deref());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let loaded = Loaded::from_config(&config.model)?;
    println!("model {}", loaded.name);
    println!("| | count | p50 ms | max ms |");
    println!("|---|---|---|---|");
    let host = runtime.block_on(Host::start(config.clone(), loaded.clone()))?;
    row("a reply of one token", &mut alone(&host)?);
    row(
        "from the record of a trained version to the first token that it gave",
        &mut publishes(&host)?,
    );
    let (obeyed, seen) = reverts(&host, &runtime)?;
    row("revert, from the order to the answer: it is live", &mut {
        obeyed
    });
    row(
        "revert, from its record to the first token that it gave",
        &mut { seen },
    );
    forgetting(&host, &runtime)?;
    runtime.block_on(host.stop())?;
    replaying(&config, &loaded)
}

fn row(name: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let ms = |time: Option<&Duration>| time.map_or(f64::NAN, |t| t.as_secs_f64() * 1e3);
    println!(
        "| {name} | {} | {:.2} | {:.2} |",
        times.len(),
        ms(times.get(times.len() / 2)),
        ms(times.last())
    );
}

fn config(data: &Path, model: Option<&str>) -> Config {
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../host/policy/fixtures/tiny-llama");
    let mut config = Config {
        data: data.to_owned(),
        ..Config::default()
    };
    if model.is_none() {
        config.engine.context = 512;
        config.engine.kv_bytes = 64 << 20;
        config.engine.prefix_bytes = 1 << 20;
        config.train.rank = 4;
    }
    config.plugins.cache = false;
    config.model = ModelSection {
        name: model.map_or_else(|| tiny.to_string_lossy().into_owned(), str::to_owned),
        dtype: if model.is_none() {
            Dtype::F32
        } else {
            config.model.dtype
        },
        ..config.model
    };
    config.gateway.listen.set_port(0);
    config.plugins.judge = "words".into();
    config.loops.train.batch_size = 2;
    // Whether random weights may be served is not what is measured.
    config.loops.gate.enabled = false;
    config.loops.guard.enabled = false;
    config
}

struct Client {
    agent: ureq::Agent,
    url: String,
    model: String,
}

impl Client {
    fn new(host: &Host) -> Self {
        let agent = ureq::Agent::config_builder().http_status_as_error(false);
        Self {
            agent: agent.build().into(),
            url: format!("{}/v1/chat/completions", host.url()),
            model: host.trained_model(),
        }
    }

    /// The version that answered, and the reply.
    fn chat(
        &self,
        session: &str,
        kind: &str,
        messages: &Value,
        most: u32,
    ) -> anyhow::Result<(u64, String)> {
        let asked = self.agent.post(&self.url).header("x-session-id", session);
        let asked = asked.header("x-turn-type", kind).header("x-user", "ann");
        let body = json!({"model": self.model, "messages": messages, "max_tokens": most, "user": session.split('-').next()});
        let mut response = asked.send_json(body)?;
        let version = response.headers().get("x-policy-version");
        let version = version.context("no version in the reply")?.to_str()?;
        let version = version.trim_start_matches('v').parse()?;
        let body: Value = response.body_mut().read_json()?;
        let text = body["choices"][0]["message"]["content"].as_str();
        Ok((version, text.unwrap_or_default().to_owned()))
    }

    /// One conversation that gives a sample.
    fn complain(&self, session: &str) -> anyhow::Result<()> {
        let ask = json!({"role": "user", "content": "How do I boil an egg?"});
        let (_, reply) = self.chat(session, "main", &json!([ask]), 16)?;
        let said = json!({"role": "assistant", "content": reply});
        let no =
            json!({"role": "user", "content": "No, that is too long. Please make it shorter."});
        self.chat(session, "main", &json!([ask, said, no]), 1)?;
        Ok(())
    }

    fn probe(&self) -> anyhow::Result<u64> {
        let hi = json!([{"role": "user", "content": "hi"}]);
        Ok(self.chat("probe", "side", &hi, 1)?.0)
    }
}

fn alone(host: &Host) -> anyhow::Result<Vec<Duration>> {
    let client = Client::new(host);
    let mut times = Vec::new();
    for _ in 0..30 {
        let start = Instant::now();
        client.probe()?;
        times.push(start.elapsed());
    }
    Ok(times)
}

/// The next version's number and when its record was there.
fn next_version(ledger: &Ledger, after: &mut Seq, stop: &AtomicBool) -> Option<(u64, Instant)> {
    while !stop.load(Ordering::Relaxed) {
        if let Some(Ok(record)) = ledger.by_kind(lineage::KIND, after.next()).next() {
            *after = record.seq;
            let number = record.subject.rsplit_once(':')?.1.parse().ok()?;
            return Some((number, Instant::now()));
        }
        std::thread::yield_now();
    }
    None
}

/// Runs `work` while somebody asks without end and somebody watches the ledger: from each version's record to its first token.
fn watched<T: Send>(
    host: &Host,
    work: impl FnOnce() -> anyhow::Result<T> + Send,
) -> anyhow::Result<(T, Vec<Duration>)> {
    let stop = AtomicBool::new(false);
    let recorded = Mutex::new(Vec::new());
    let first: Mutex<Vec<(u64, Instant)>> = Mutex::default();
    let client = Client::new(host);
    let done = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut after = host.ledger().durable();
            while let Some(seen) = next_version(host.ledger(), &mut after, &stop) {
                if let Ok(mut recorded) = recorded.lock() {
                    recorded.push(seen);
                }
            }
        });
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let Ok(version) = client.probe() else { return };
                let Ok(mut first) = first.lock() else { return };
                if first.last().is_none_or(|(last, _)| *last != version) {
                    first.push((version, Instant::now()));
                }
            }
        });
        let done = work();
        // The last version's first token.
        std::thread::park_timeout(Duration::from_millis(500));
        stop.store(true, Ordering::Relaxed);
        done
    })?;
    let first = first.into_inner().unwrap_or_default();
    let recorded = recorded.into_inner().unwrap_or_default();
    let times = recorded.iter().filter_map(|(version, at)| {
        let seen = first.iter().find(|(first, _)| first == version)?;
        Some(seen.1.saturating_duration_since(*at))
    });
    Ok((done, times.collect()))
}

fn publishes(host: &Host) -> anyhow::Result<Vec<Duration>> {
    let client = Client::new(host);
    let train = || {
        for version in 0..VERSIONS {
            for person in ["ann", "bob"] {
                client.complain(&format!("{person}-{version}"))?;
            }
            let wanted = version as u64 + 1;
            while host.loops().status().live.get() < wanted {
                std::thread::park_timeout(Duration::from_millis(1));
            }
        }
        Ok(())
    };
    Ok(watched(host, train)?.1)
}

fn reverts(
    host: &Host,
    runtime: &tokio::runtime::Runtime,
) -> anyhow::Result<(Vec<Duration>, Vec<Duration>)> {
    let control = host.loops().control();
    let live = host.loops().status().live.get();
    let work = || {
        let mut times = Vec::new();
        for turn in 0..REVERTS {
            let to = PolicyVersion::new(live - 1 - turn as u64 % 2);
            let start = Instant::now();
            runtime.block_on(control.revert(to, "measured"))?;
            times.push(start.elapsed());
            // The learner goes on from there meanwhile; a person does not revert twice within its time.
            std::thread::park_timeout(Duration::from_millis(300));
        }
        Ok(times)
    };
    watched(host, work)
}

fn forgetting(host: &Host, runtime: &tokio::runtime::Runtime) -> anyhow::Result<()> {
    let user = "bob".to_owned();
    let bob = Selector::User { tenant: None, user };
    let start = Instant::now();
    let forgotten = runtime.block_on(host.loops().control().forget(bob, |_, _, _| {}))?;
    let time = start.elapsed().as_secs_f64();
    println!(
        "\nforget one of two people: {} turns, {} steps again, {:.3} s: {:.1} steps/s",
        forgotten.request.turns.len(),
        forgotten.record.computed,
        time,
        forgotten.record.computed as f64 / time
    );
    Ok(())
}

fn replaying(config: &Config, loaded: &Loaded) -> anyhow::Result<()> {
    let ledger = Ledger::open(config.data.join("ledger"), ledger::Options::default())?;
    let adapter = config.loops.adapter.clone();
    let bench = app::training::bench(loaded, &adapter);
    let line = Line::read(ledger, adapter, config.loops.train.rules())?;
    let options = replay::Options {
        gate: config.loops.gate.clone(),
        ..replay::Options::default()
    };
    let start = Instant::now();
    let replayed = replay::replay(&line, &bench, options, &|_, _, _| ControlFlow::Continue(()))?;
    let time = start.elapsed().as_secs_f64();
    println!(
        "replay: {} steps, {:.3} s: {:.1} steps/s, exact: {}",
        replayed.steps.len(),
        time,
        replayed.steps.len() as f64 / time,
        replayed.is_exact()
    );
    Ok(())
}
