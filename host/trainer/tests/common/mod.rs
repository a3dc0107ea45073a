//! A tiny real model, and batches for it.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "each test binary uses a part"
)]

use std::path::Path;
use std::sync::Arc;

use policy::{Checkpoint, Deployed, Dtype, Model, Pool, Slot, Tape, Target};
use rl::{Batch, Learner, PolicyVersion, Proposal, Sample, SampleId, Seed};
use trainer::{Config, FrozenLearner, LoraLearner};

/// The tiny Llama of `host/policy/fixtures`, in f32.
pub(crate) fn model() -> Arc<Model> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policy/fixtures/tiny-llama");
    let checkpoint = Checkpoint::open(&folder).expect("the fixture is committed");
    let pool = Arc::new(Pool::new(2).unwrap());
    Arc::new(Model::load(&checkpoint, Dtype::F32, pool).unwrap())
}

/// Small enough to be quick, and a step that is visible in f32.
pub(crate) fn config() -> Config {
    Config {
        rank: 4,
        alpha: 8.0,
        lr: 1e-3,
        ..Config::default()
    }
}

/// What `model` gives for a response after a prompt, with an adapter or without.
pub(crate) fn log_probs(model: &Model, slot: &Deployed, sample: &Sample) -> Vec<f32> {
    let mut tokens = sample.prompt.clone();
    tokens.extend(&sample.response);
    let targets: Vec<Target> = sample
        .response
        .iter()
        .enumerate()
        .map(|(t, token)| Target {
            row: sample.prompt.len() - 1 + t,
            token: *token,
        })
        .collect();
    let adapter = slot.adapter.as_deref();
    model
        .train_forward(
            &mut Tape::new(),
            adapter,
            &tokens,
            &targets,
            sample.temperature,
        )
        .unwrap()
}

/// A sample of the base weights: `behaviour` is what was recorded when version 0 served it.
pub(crate) fn fresh(model: &Model, number: u32, tokens: u32, advantage: f32) -> Sample {
    let id = |i: u32| (i * 37 + number * 101 + 5) % 250;
    let n = tokens as usize;
    let mut sample = Sample {
        id: SampleId::new(format!("sample-{number}")),
        turn: "turn".into(),
        adapter: "main".into(),
        version: PolicyVersion::BASE,
        prompt: (0..6).map(id).collect(),
        response: (6..6 + tokens).map(id).collect(),
        behaviour: vec![0.0; n],
        advantage: vec![advantage; n],
        weight: vec![1.0; n],
        temperature: 0.8,
    };
    sample.behaviour = log_probs(model, &Deployed::default(), &sample);
    sample
}

/// Two samples that pull in opposite directions.
pub(crate) fn batch(model: &Model) -> Batch {
    Batch {
        samples: vec![fresh(model, 1, 7, 1.0), fresh(model, 2, 4, -0.5)],
    }
}

/// Three attempts at one task, one of them at another temperature, and what was said after the first.
pub(crate) fn attempts(model: &Model) -> Batch {
    let mut samples: Vec<Sample> = (1..=4)
        .map(|i| fresh(model, i, 3 + 2 * i, [1.0, -0.5, 0.25][i as usize % 3]))
        .collect();
    let prompt: Vec<u32> = (0..40).map(|i| (i * 37 + 5) % 250).collect();
    samples[2].temperature = 1.0;
    for sample in &mut samples {
        sample.prompt.clone_from(&prompt);
    }
    let said = samples[0].response.clone();
    samples[3].prompt.extend(said);
    for sample in &mut samples {
        sample.behaviour = log_probs(model, &Deployed::default(), sample);
    }
    Batch { samples }
}

/// The same batch with other recorded log-probs, so that ratios are clipped on both sides.
pub(crate) fn stale(model: &Model) -> Batch {
    let mut batch = batch(model);
    for sample in &mut batch.samples {
        for (t, behaviour) in sample.behaviour.iter_mut().enumerate() {
            *behaviour -= [0.9, -0.7, 0.1][t % 3];
            *behaviour = behaviour.min(0.0);
        }
    }
    batch
}

pub(crate) fn lora(model: &Arc<Model>, config: Config) -> (LoraLearner, Arc<Slot>) {
    let slot = Arc::new(Slot::default());
    let learner = LoraLearner::new(Arc::clone(model), Arc::clone(&slot), config, Seed::new(3));
    (learner.unwrap(), slot)
}

pub(crate) fn frozen(model: &Arc<Model>, config: Config) -> (FrozenLearner, Arc<Slot>) {
    let slot = Arc::new(Slot::default());
    let learner = FrozenLearner::new(Arc::clone(model), Arc::clone(&slot), config, Seed::new(3));
    (learner.unwrap(), slot)
}

/// One step, made live as the next version.
pub(crate) fn advance(learner: &mut dyn Learner, batch: &Batch) -> Proposal {
    let proposal = learner.step(batch).unwrap();
    learner.deploy(proposal.parent.next()).unwrap();
    proposal
}
