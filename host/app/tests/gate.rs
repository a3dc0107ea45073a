//! The gate on the demo's real model, SmolLM2-135M-Instruct, through the engine: what passes, what does not, how long it takes.
//!
//! Without the model in the cache folder the test says that it was skipped and why; with `NEXTSTATE_REQUIRE_MODELS=1` it
//! fails instead.
#![expect(
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "tests; a skipped one says so"
)]

use std::path::PathBuf;
use std::sync::Arc;

use loops::gate::{Contest, Examination, GateConfig, GateMemory, examine};
use policy::{Adapter, Checkpoint, Deployed, Dtype, Model, Pool, Slot};
use rl::{AdapterName, PolicyVersion, Seed, Weights, candidate_of};
use serving::engine::{Config, Engine, EngineHandle, Parts, Running};

fn model_file() -> Option<PathBuf> {
    let under = |variable: &str, rest: &str| {
        std::env::var_os(variable).map(|root| PathBuf::from(root).join(rest))
    };
    let root = under("NEXTSTATE_MODELS", "")
        .or_else(|| under("XDG_CACHE_HOME", "nextstate/models"))
        .or_else(|| under("HOME", ".cache/nextstate/models"));
    let file = root
        .unwrap_or_default()
        .join("smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf");
    if file.is_file() {
        return Some(file);
    }
    let advice = format!("{} is not there; `nextstate model pull`", file.display());
    let required = std::env::var_os("NEXTSTATE_REQUIRE_MODELS").is_some_and(|v| v == "1");
    assert!(!required, "{advice}");
    eprintln!("skipped: {advice}");
    None
}

/// An engine with a live slot and a candidate's.
struct Bench {
    model: Arc<Model>,
    live: Arc<Slot>,
    candidate: Arc<Slot>,
    running: Running,
}

impl Bench {
    fn start() -> Option<Self> {
        let checkpoint = Checkpoint::open(&model_file()?).unwrap();
        let pool = Arc::new(Pool::new(Pool::default_threads()).unwrap());
        let model = Arc::new(Model::load(&checkpoint, Dtype::Bf16, pool).unwrap());
        let (live, candidate) = (Arc::new(Slot::default()), Arc::new(Slot::default()));
        let main = AdapterName::new("main");
        let parts = Parts {
            name: "smollm2".into(),
            model: Arc::clone(&model),
            tokenizer: Arc::new(checkpoint.tokenizer().unwrap()),
            template: Arc::new(checkpoint.template().unwrap()),
            adapters: [
                (candidate_of(&main), Arc::clone(&candidate)),
                (main, Arc::clone(&live)),
            ]
            .into(),
        };
        let registry = Arc::default();
        let engine = Engine::build(Config::default(), parts, &registry).unwrap();
        Some(Self {
            model,
            live,
            candidate,
            running: engine.start().unwrap(),
        })
    }

    fn engine(&self) -> EngineHandle {
        self.running.handle()
    }

    /// An adapter whose matrices were moved at random by up to `step` each.
    fn moved(&self, version: u64, step: f32) -> Deployed {
        let mut adapter = Adapter::init(self.model.config(), 16, 32.0, 1).unwrap();
        adapter.update(|params| {
            let mut state = Seed::new(version).get();
            for param in params {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                *param += ((state >> 40) as f32 / (1 << 23) as f32 - 1.0) * step;
            }
        });
        Deployed {
            version: PolicyVersion::new(version),
            adapter: Some(Arc::new(adapter)),
        }
    }

    fn ask(&self, version: u64, step: f32, memory: &mut GateMemory) -> Examination {
        let candidate = self.moved(version, step);
        self.candidate.publish(candidate.clone());
        let adapter = AdapterName::new("main");
        let contest = Contest {
            adapter: &adapter,
            candidate: &Weights::Adapter(candidate_of(&adapter)),
            version: PolicyVersion::new(version),
            live: &Weights::Adapter(adapter.clone()),
            live_version: self.live.load().version,
        };
        let seen = examine(&GateConfig::default(), &self.engine(), &contest, memory).unwrap();
        assert_eq!(seen.digest, candidate.adapter.as_ref().unwrap().digest());
        eprintln!(
            "v{version}, moved by {step}: {:.2} s, passed: {}",
            seen.seconds, seen.passed
        );
        for finding in &seen.guards {
            eprintln!(
                "  {:>10} {:?}: {}",
                finding.name, finding.value, finding.why
            );
        }
        for reply in &seen.replies {
            eprintln!(
                "  {:?} {} → {:?}; base {:?}",
                reply.done, reply.prompt, reply.reply, reply.base_reply
            );
        }
        seen
    }
}

#[test]
fn a_small_step_of_the_real_model_passes_and_a_thousandfold_one_does_not() {
    let Some(bench) = Bench::start() else { return };
    let mut memory = GateMemory::default();
    let first = bench.ask(1, 2e-3, &mut memory);
    assert!(first.passed, "{:?}", first.why());
    let done = first
        .replies
        .iter()
        .filter(|reply| reply.done == Some(true))
        .count();
    assert!(
        done >= 3,
        "the canary set is no test of a model that does {done} of 8"
    );
    bench.live.publish(bench.moved(1, 2e-3));
    let second = bench.ask(2, 4e-3, &mut memory);
    assert!(second.passed, "{:?}", second.why());
    bench.live.publish(bench.moved(2, 4e-3));
    let ruined = bench.ask(3, 0.5, &mut memory);
    assert!(!ruined.passed);
    assert_eq!(ruined.memory, second.memory);
}
