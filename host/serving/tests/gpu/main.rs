//! The engine with a model on a GPU: what it answers has the bits of the model called directly.
//!
//! Runs on the stand-in driver (`kernels/emulator`), or with `NEXTSTATE_TEST_GPU=1` on this machine's GPU; skipped, loudly, without g++
//! unless `NEXTSTATE_REQUIRE_EMULATOR` is set.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "../../../policy/tests/cuda/driver.rs"]
mod driver;
#[path = "../../../../kernels/tests/cuda/standin.rs"]
mod standin;
#[path = "../common/tiny.rs"]
mod tiny;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use policy::{
    Adapter, ChatTemplate, Deployed, Kv, Logits, Model, ModelConfig, Pool, Scratch, Segment, Slot,
};
use prometheus_client::registry::Registry;
use rl::{
    Completion, Policy, PolicyVersion, SampleRequest, Sampling, ScoreRequest, Seed, TokenFlow,
    TokenId, Weights,
};
use serving::engine::{Config, Engine, EngineHandle, Parts};

/// The sizes are those that tensor cores take.
fn model() -> Arc<Model> {
    let config = ModelConfig {
        hidden: 64,
        heads: 2,
        kv_heads: 1,
        head_dim: 64,
        ffn: 64,
        context: 256,
        ..tiny::config()
    };
    let pool = Arc::new(Pool::new(1).unwrap());
    Arc::new(Model::random_on_gpu(config, 7, 0, 2048, pool).unwrap())
}

fn prompt(seed: u64, length: u64) -> Vec<TokenId> {
    (0..length)
        .map(|i| ((i * 31 + seed * 17 + i * i) % 250) as TokenId)
        .collect()
}

/// Log-probs of a reply, from the whole of it in one pass.
fn direct(
    model: &Model,
    adapter: Option<&Adapter>,
    prompt: &[TokenId],
    reply: &[TokenId],
) -> Vec<u32> {
    let tokens = [prompt, reply].concat();
    let (mut kv, mut scratch) = (Kv::new(model.config()), Scratch::new());
    let segment = Segment {
        kv: &mut kv,
        tokens: &tokens,
        adapter,
        logits: Logits::All,
    };
    model.forward(&mut scratch, &mut [segment]).unwrap();
    let rows = scratch.logits(0).skip(prompt.len() - 1).zip(reply);
    rows.map(|(row, &id)| {
        let normalizer = model.normalizer(row, 1.0).unwrap();
        normalizer.log_prob(row[id as usize]).to_bits()
    })
    .collect()
}

fn sample(engine: &EngineHandle, weights: &Weights, prompt: &[TokenId], seed: u64) -> Completion {
    let request = SampleRequest {
        weights: weights.clone(),
        prompt: prompt.to_vec(),
        sampling: Sampling {
            max_tokens: 6,
            seed: Seed::new(seed),
            ..Sampling::default()
        },
    };
    engine
        .sample(request, &mut |_| TokenFlow::Continue)
        .unwrap()
}

#[test]
fn a_prompt_is_one_step_on_a_gpu_unless_the_setting_says_otherwise() {
    if !driver::present() {
        return;
    }
    let model = model();
    let by = |prefill_rows| Config {
        prefill_rows,
        ..Config::default()
    };
    for (config, steps) in [(Config::default(), 1), (by(64), 4)] {
        let parts = Parts {
            name: "tiny".into(),
            model: Arc::clone(&model),
            tokenizer: Arc::new(tiny::tokenizer()),
            template: Arc::new(ChatTemplate::chatml()),
            adapters: BTreeMap::new(),
        };
        let registry = Arc::new(Mutex::new(Registry::default()));
        let running = Engine::build(config, parts, &registry)
            .unwrap()
            .start()
            .unwrap();
        let engine = running.handle();
        let request = SampleRequest {
            weights: Weights::Base,
            prompt: prompt(1, 200),
            sampling: Sampling {
                max_tokens: 1,
                ..Sampling::default()
            },
        };
        let done = engine.sample(request, &mut |_| TokenFlow::Continue);
        assert_eq!(done.unwrap().tokens.len(), 1);
        assert_eq!(engine.stats().steps, steps);
    }
}

#[test]
fn replies_and_scores_have_the_bits_of_the_model_called_directly() {
    if !driver::present() {
        return;
    }
    let model = model();
    let adapters = [3, 5]
        .map(|rank| Arc::new(Adapter::random(model.config(), rank, 16.0, rank as u64).unwrap()));
    let names = ["first", "second"];
    let slot = |adapter: &Arc<Adapter>| {
        Arc::new(Slot::new(Deployed {
            version: PolicyVersion::new(1),
            adapter: Some(Arc::clone(adapter)),
        }))
    };
    let parts = Parts {
        name: "tiny".into(),
        model: Arc::clone(&model),
        tokenizer: Arc::new(tiny::tokenizer()),
        template: Arc::new(ChatTemplate::chatml()),
        adapters: BTreeMap::from([0, 1].map(|i| (names[i].into(), slot(&adapters[i])))),
    };
    let registry = Arc::new(Mutex::new(Registry::default()));
    let running = Engine::build(Config::default(), parts, &registry)
        .unwrap()
        .start()
        .unwrap();
    let engine = running.handle();
    let all = [
        (Weights::Base, None),
        (Weights::Adapter(names[0].into()), Some(&adapters[0])),
        (Weights::Adapter(names[1].into()), Some(&adapters[1])),
    ];
    // Side by side; the second time on what is kept of the first, to the middle of a page.
    for (length, round) in [(80, 0), (90, 1)] {
        let tokens = prompt(1, length);
        let reused = engine.stats().reused_tokens;
        std::thread::scope(|scope| {
            for (weights, adapter) in &all {
                let (engine, model, tokens) = (&engine, &model, &tokens);
                scope.spawn(move || {
                    let done = sample(engine, weights, tokens, round);
                    let found: Vec<u32> = done.logprobs.iter().map(|l| l.to_bits()).collect();
                    let adapter = adapter.map(|adapter| &**adapter);
                    assert!(found == direct(model, adapter, tokens, &done.tokens));
                    let scored = engine
                        .score(ScoreRequest {
                            weights: weights.clone(),
                            prompt: tokens.clone(),
                            continuations: vec![done.tokens.clone(), done.tokens[..1].to_vec()],
                            temperature: 1.0,
                        })
                        .unwrap();
                    assert_eq!(scored, [&done.logprobs[..], &done.logprobs[..1]]);
                });
            }
        });
        // What is scored is always known already.
        let known = engine.stats().reused_tokens - reused;
        assert!(known >= 3 * 64 * (1 + round), "{known}");
    }
    running.shutdown().unwrap();
}
