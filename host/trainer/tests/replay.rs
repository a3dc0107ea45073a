//! A version restored in another process and trained again gives the same bytes: what revert and replay rest on.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::path::Path;
use std::sync::Arc;

use common::{advance, batch, config, fresh, lora, stale};
use policy::{Checkpoint, Dtype, Model, Pool};
use rl::{Batch, Learner, PolicyLoss, PolicyVersion, Proposal};
use trainer::Config;

fn model(threads: usize) -> Arc<Model> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policy/fixtures/tiny-llama");
    let checkpoint = Checkpoint::open(&folder).unwrap();
    let pool = Arc::new(Pool::new(threads).unwrap());
    Arc::new(Model::load(&checkpoint, Dtype::F32, pool).unwrap())
}

/// Three batches of different sizes and lengths.
fn batches(model: &Model) -> [Batch; 3] {
    let long = Batch {
        samples: vec![
            fresh(model, 4, 40, 0.5),
            fresh(model, 5, 3, -1.0),
            fresh(model, 6, 11, 1.0),
        ],
    };
    [batch(model), long, stale(model)]
}

fn settings() -> [Config; 3] {
    [
        config(),
        Config {
            passes: 2,
            weight_decay: 0.01,
            ..config()
        },
        Config {
            kl_beta: 0.05,
            policy_loss: PolicyLoss::Cispo,
            ..config()
        },
    ]
}

/// What a version is stored as.
fn blobs(proposal: &Proposal) -> (&[u8], &[u8], &str) {
    (
        &proposal.adapter,
        &proposal.optimizer,
        &proposal.adapter_digest,
    )
}

#[test]
fn steps_repeated_from_a_restored_version_give_the_same_bytes_on_any_number_of_threads() {
    let first = model(2);
    let batches = batches(&first);
    for config in settings() {
        let (mut learner, _slot) = lora(&first, config.clone());
        let kept: Vec<Proposal> = batches.iter().map(|b| advance(&mut learner, b)).collect();
        assert_ne!(kept[1].adapter_digest, kept[0].adapter_digest);
        for threads in [1, 2, 4] {
            let model = model(threads);
            let recorded = Config::from_json(&kept[0].settings).unwrap();
            let (mut again, slot) = lora(&model, recorded);
            again
                .restore(PolicyVersion::new(1), &kept[0].adapter, &kept[0].optimizer)
                .unwrap();
            for (batch, want) in batches.iter().zip(&kept).skip(1) {
                let got = advance(&mut again, batch);
                assert_eq!(blobs(&got), blobs(want), "{threads} threads, {config:?}");
                assert_eq!(got.metrics.loss.to_bits(), want.metrics.loss.to_bits());
                assert_eq!(got.settings, want.settings);
            }
            assert_eq!(
                slot.load().adapter.as_ref().unwrap().digest(),
                kept[2].adapter_digest
            );
        }
    }
}

#[test]
fn a_learner_that_did_other_things_before_repeats_the_same_bytes() {
    let model = model(2);
    let batches = batches(&model);
    for config in settings() {
        let (mut learner, _slot) = lora(&model, config.clone());
        let kept: Vec<Proposal> = batches.iter().map(|b| advance(&mut learner, b)).collect();
        // Other steps, a step that is not deployed and one that is refused leave buffers full of other numbers.
        let (mut busy, _slot) = lora(&model, config.clone());
        advance(&mut busy, &batches[1]);
        advance(&mut busy, &batches[2]);
        busy.step(&batches[1]).unwrap();
        let mut bad = batches[2].clone();
        bad.samples[1].behaviour[0] = -60.0;
        busy.step(&bad).unwrap_err();
        for round in 0..2 {
            busy.restore(PolicyVersion::new(1), &kept[0].adapter, &kept[0].optimizer)
                .unwrap();
            for (batch, want) in batches.iter().zip(&kept).skip(1) {
                assert_eq!(
                    blobs(&advance(&mut busy, batch)),
                    blobs(want),
                    "round {round}"
                );
            }
        }
        // The learner that made them, turned back, too.
        learner
            .restore(PolicyVersion::new(1), &kept[0].adapter, &kept[0].optimizer)
            .unwrap();
        assert_eq!(blobs(&advance(&mut learner, &batches[1])), blobs(&kept[1]));
    }
}
