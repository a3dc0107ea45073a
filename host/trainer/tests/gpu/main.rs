//! Training on a GPU: what a version served there is trained there, bit for bit, and the next version is served without a pause.
//!
//! Runs on the stand-in driver (`kernels/emulator`), or with `NEXTSTATE_TEST_GPU=1` on this machine's GPU; skipped, loudly, without g++
//! unless `NEXTSTATE_REQUIRE_EMULATOR` is set.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "../../../policy/tests/cuda/driver.rs"]
mod driver;
#[path = "../../../../kernels/tests/cuda/standin.rs"]
mod standin;

use std::sync::Arc;

use policy::{
    Architecture, Deployed, Kv, Logits, Model, ModelConfig, Pool, Rope, RopeScaling, Scratch,
    Segment, Slot,
};
use rl::{Batch, Learner, PolicyVersion, Sample, SampleId, Seed};
use trainer::{Config, LoraLearner};

fn model(head_dim: usize) -> Arc<Model> {
    let config = ModelConfig {
        architecture: Architecture::Qwen3,
        vocab_size: 112,
        hidden: 64,
        layers: 2,
        heads: 2,
        kv_heads: 1,
        head_dim,
        ffn: 96,
        rms_eps: 1e-6,
        rope: Rope {
            theta: 10_000.0,
            scaling: RopeScaling::None,
        },
        context: 128,
        tied: true,
        qk_norm: true,
        attention_bias: false,
        eos: vec![1],
        bos: None,
    };
    let pool = Arc::new(Pool::new(2).unwrap());
    Arc::new(Model::random_on_gpu(config, 3, 0, 1024, pool).unwrap())
}

fn config() -> Config {
    Config {
        rank: 4,
        alpha: 8.0,
        lr: 5e-3,
        ..Config::default()
    }
}

/// Log-probs of a response as serving records them: the prompt at once, then token by token.
fn served(model: &Model, deployed: &Deployed, prompt: &[u32], response: &[u32]) -> Vec<f32> {
    let (mut kv, mut scratch) = (Kv::new(model.config()), Scratch::new());
    let mut recorded = Vec::new();
    let mut next = prompt.to_vec();
    for &token in response {
        let segment = Segment {
            kv: &mut kv,
            tokens: &next,
            adapter: deployed.adapter.as_deref(),
            logits: Logits::Last,
        };
        model.forward(&mut scratch, &mut [segment]).unwrap();
        let row = scratch.logits(0).next().unwrap();
        let normalizer = model.normalizer(row, 0.8).unwrap();
        recorded.push(normalizer.log_prob(row[token as usize]));
        next = vec![token];
    }
    recorded
}

fn batch(model: &Model, slot: &Slot) -> Batch {
    let deployed = slot.load();
    let sample = |number: u32, advantage: f32| {
        let id = |i: u32| (i * 37 + number * 29 + 5) % 112;
        let prompt: Vec<u32> = (0..20).map(|i| (i * 11 + 2) % 112).collect();
        let response: Vec<u32> = (0..6).map(id).collect();
        Sample {
            id: SampleId::new(format!("sample-{number}")),
            turn: "turn".into(),
            adapter: "main".into(),
            version: deployed.version,
            behaviour: served(model, &deployed, &prompt, &response),
            advantage: vec![advantage; 6],
            weight: vec![1.0; 6],
            temperature: 0.8,
            prompt,
            response,
        }
    };
    Batch {
        samples: vec![sample(1, 1.0), sample(2, -0.5)],
    }
}

#[test]
fn every_version_is_trained_on_the_bits_that_it_served() {
    if !driver::present() {
        return;
    }
    for head_dim in [64, 128] {
        trains(model(head_dim));
    }
}

fn trains(model: Arc<Model>) {
    let slot = Arc::new(Slot::default());
    let seed = Seed::new(3);
    let mut learner =
        LoraLearner::new(Arc::clone(&model), Arc::clone(&slot), config(), seed).unwrap();
    let mean = |batch: &Batch| batch.samples[0].behaviour.iter().sum::<f32>() / 6.0;
    let first = mean(&batch(&model, &slot));
    for version in 1..=3 {
        let step = learner.step(&batch(&model, &slot)).unwrap();
        let figures = (step.metrics.mismatched, step.metrics.fresh);
        assert_eq!(figures, (0, 12), "version {version}");
        learner.deploy(PolicyVersion::new(version)).unwrap();
    }
    let last = mean(&batch(&model, &slot));
    assert!(last > first + 0.05, "what is praised: {first}, then {last}");
}

#[test]
fn a_step_that_is_computed_again_has_the_same_bytes() {
    if !driver::present() {
        return;
    }
    let (model, config) = (model(64), config());
    let start = || {
        let slot = Arc::new(Slot::default());
        let (model, config) = (Arc::clone(&model), config.clone());
        let learner = LoraLearner::new(model, Arc::clone(&slot), config, Seed::new(3)).unwrap();
        (slot, learner)
    };
    let (slot, mut learner) = start();
    let first = learner.step(&batch(&model, &slot)).unwrap();
    learner.deploy(PolicyVersion::new(1)).unwrap();
    let later = batch(&model, &slot);
    let second = learner.step(&later).unwrap();
    // Twice, and from what is on disk, without what a GPU still has.
    let (_, mut other) = start();
    other
        .restore(PolicyVersion::new(1), &first.adapter, &first.optimizer)
        .unwrap();
    for mut learner in [learner, other] {
        let again = learner.step(&later).unwrap();
        assert!(again.adapter == second.adapter);
        assert!(again.optimizer == second.optimizer);
        assert_eq!(again.adapter_digest, second.adapter_digest);
        let norm = |p: &rl::Proposal| p.metrics.grad_norm.to_bits();
        assert_eq!(norm(&again), norm(&second));
    }
}
