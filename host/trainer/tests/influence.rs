//! What the gradients behind `blame` promise.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::Arc;

use common::{advance, attempts, batch, config, fresh, lora, model, stale};
use policy::{Adapter, Deployed, Model, Slot};
use rl::{Batch, PolicyLoss, Sample, Seed};
use trainer::influence::{StepTaken, influence, reply_gradient, sample_gradient};
use trainer::{Config, LoraLearner, Workspace};

/// An adapter whose A and B both matter.
fn adapter(model: &Model) -> Adapter {
    let mut adapter = Adapter::init(model.config(), 4, 8.0, 3).unwrap();
    adapter.update(|params| {
        for (i, p) in params.iter_mut().enumerate() {
            *p += [0.02, -0.01, 0.03, 0.0, -0.02][i % 5];
        }
    });
    adapter
}

/// The mean log-prob of a sample's response.
fn mean(model: &Model, adapter: &Adapter, sample: &Sample) -> f64 {
    let deployed = Deployed {
        adapter: Some(Arc::new(adapter.clone())),
        ..Deployed::default()
    };
    let all = common::log_probs(model, &deployed, sample);
    all.iter().map(|l| f64::from(*l)).sum::<f64>() / all.len() as f64
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(x, y)| f64::from(*x) * f64::from(*y))
        .sum()
}

fn moved(adapter: &Adapter, along: &[f32], by: f64) -> Adapter {
    let from = adapter.params().iter().zip(along);
    let params = from.map(|(p, d)| (f64::from(*p) + by * f64::from(*d)) as f32);
    adapter.with_params(params.collect()).unwrap()
}

#[test]
fn a_replys_gradient_agrees_with_finite_differences_in_every_direction_tried() {
    let model = model();
    let (adapter, sample) = (adapter(&model), fresh(&model, 1, 7, 1.0));
    let reply = |t| {
        reply_gradient(
            &model,
            &Workspace::default(),
            &adapter,
            &sample.prompt,
            &sample.response,
            t,
        )
        .unwrap()
    };
    let found = reply(sample.temperature);
    assert!((found.mean_log_prob - mean(&model, &adapter, &sample)).abs() < 1e-9);
    let size = dot(&found.values, &found.values).sqrt();
    assert!(size > 1e-2, "{size}");
    // Along the gradient, along its A's and B's alone by a mask, and along its signs.
    let along: [Vec<f32>; 3] = [
        found.values.clone(),
        found
            .values
            .iter()
            .enumerate()
            .map(|(i, g)| if i % 3 == 0 { *g } else { 0.0 })
            .collect(),
        found.values.iter().map(|g| g.signum()).collect(),
    ];
    for direction in along {
        let length = dot(&direction, &direction).sqrt();
        let h = 1e-2 / length;
        let ahead = mean(&model, &moved(&adapter, &direction, h), &sample);
        let behind = mean(&model, &moved(&adapter, &direction, -h), &sample);
        let (slope, expected) = ((ahead - behind) / (2.0 * h), dot(&found.values, &direction));
        assert!(
            (slope / expected - 1.0).abs() < 1e-2,
            "{slope} is not {expected}"
        );
    }
    // Greedy replies are trained at temperature 1.
    assert_eq!(reply(0.0).values, reply(1.0).values);
    assert_ne!(reply(0.0).values, found.values);
}

#[test]
fn the_samples_gradients_add_up_to_the_batchs() {
    let model = model();
    let mut batch = stale(&model);
    let mut unweighted = fresh(&model, 3, 5, 1.0);
    unweighted.weight.fill(0.0);
    batch.samples.push(unweighted);
    for config in [
        config(),
        Config {
            kl_beta: 0.1,
            policy_loss: PolicyLoss::Cispo,
            ..config()
        },
        Config {
            policy_loss: PolicyLoss::ImportanceSampling,
            ..config()
        },
    ] {
        let (mut learner, slot) = lora(&model, config.clone());
        advance(&mut learner, &batch);
        let at = slot.load().adapter.clone().unwrap();
        let whole = advance(&mut learner, &batch);
        let parts: Vec<Vec<f32>> = batch
            .samples
            .iter()
            .map(|s| sample_gradient(&model, &Workspace::default(), &at, &config, s, 2).unwrap())
            .collect();
        assert!(parts[2].iter().all(|g| *g == 0.0), "no weight, no gradient");
        let sum: Vec<f32> = (0..parts[0].len())
            .map(|i| parts.iter().map(|p| p[i]).sum())
            .collect();
        let norm = dot(&sum, &sum).sqrt();
        assert!(
            (norm / whole.metrics.grad_norm - 1.0).abs() < 1e-5,
            "{norm} is not {}",
            whole.metrics.grad_norm
        );
    }
}

#[test]
fn what_begins_alike_is_trained_together_and_moves_what_it_would_move_alone() {
    let model = model();
    let config = config();
    let (mut learner, slot) = lora(&model, config.clone());
    let batch = attempts(&model);
    let first = advance(&mut learner, &batch);
    assert_eq!((first.metrics.mismatched, first.metrics.fresh), (0, 32));
    let at = slot.load().adapter.clone().unwrap();
    let whole = advance(&mut learner, &batch);
    let mut sum = vec![0.0; at.params().len()];
    for sample in &batch.samples {
        let alone =
            sample_gradient(&model, &Workspace::default(), &at, &config, sample, 4).unwrap();
        sum.iter_mut().zip(alone).for_each(|(s, g)| *s += g);
    }
    let norm = dot(&sum, &sum).sqrt();
    assert!((norm / whole.metrics.grad_norm - 1.0).abs() < 1e-5);
}

#[test]
fn the_samples_parts_of_the_first_adamw_step_are_the_step() {
    let (model, config) = (model(), config());
    let batch = batch(&model);
    let (mut learner, slot) = lora(&model, config.clone());
    let start = trainer_start(&model, &config);
    let first = advance(&mut learner, &batch);
    let end = slot.load().adapter.clone().unwrap();
    // The first step has no momentum: the samples' parts alone are the step.
    let taken = StepTaken::adamw(
        &config,
        &first.optimizer,
        end.params().len(),
        first.metrics.grad_norm,
    )
    .unwrap();
    let parts: Vec<Vec<f32>> = batch
        .samples
        .iter()
        .map(|s| {
            taken
                .preconditioned(
                    &sample_gradient(&model, &Workspace::default(), &start, &config, s, 2).unwrap(),
                )
                .unwrap()
        })
        .collect();
    let predicted: Vec<f32> = (0..parts[0].len())
        .map(|i| parts[0][i] + parts[1][i])
        .collect();
    let real: Vec<f32> = end
        .params()
        .iter()
        .zip(start.params())
        .map(|(e, s)| e - s)
        .collect();
    let cosine = dot(&predicted, &real) / (dot(&predicted, &predicted) * dot(&real, &real)).sqrt();
    let ratio = (dot(&predicted, &predicted) / dot(&real, &real)).sqrt();
    assert!(
        cosine > 0.9999 && (ratio - 1.0).abs() < 1e-3,
        "cosine {cosine}, ratio {ratio}"
    );
}

/// What the learner of `common::lora` starts from.
fn trainer_start(model: &Model, config: &Config) -> Adapter {
    Adapter::init(model.config(), config.rank, config.alpha, 3).unwrap()
}

#[test]
fn a_step_on_one_sample_changes_its_log_prob_by_about_what_is_predicted() {
    let model = model();
    let start = Arc::new(adapter(&model));
    let mut sample = fresh(&model, 1, 7, 1.0);
    let served = Deployed {
        adapter: Some(Arc::clone(&start)),
        ..Deployed::default()
    };
    sample.behaviour = common::log_probs(&model, &served, &sample);
    let reply = reply_gradient(
        &model,
        &Workspace::default(),
        &start,
        &sample.prompt,
        &sample.response,
        sample.temperature,
    )
    .unwrap();
    for (advantage, raises) in [(1.0, true), (-1.0, false)] {
        let config = Config {
            lr: 1e-6,
            ..config()
        };
        sample.advantage.fill(advantage);
        let own =
            sample_gradient(&model, &Workspace::default(), &start, &config, &sample, 1).unwrap();
        // AdamW without a past: the sample's part is the whole step.
        let slot = Arc::new(Slot::new(served.clone()));
        let learner = LoraLearner::new(
            Arc::clone(&model),
            Arc::clone(&slot),
            config.clone(),
            Seed::new(3),
        );
        let step = advance(
            &mut learner.unwrap(),
            &Batch {
                samples: vec![sample.clone()],
            },
        );
        let after = slot.load().adapter.clone().unwrap();
        let taken =
            StepTaken::adamw(&config, &step.optimizer, own.len(), step.metrics.grad_norm).unwrap();
        let predicted = taken.influence(&reply.values, &own).unwrap();
        let real = mean(&model, &after, &sample) - reply.mean_log_prob;
        assert_eq!(predicted > 0.0, raises, "{predicted}");
        assert!(
            (real / predicted - 1.0).abs() < 0.05,
            "predicted {predicted}, real {real}"
        );
        // The same for plain descent, in a step that is taken here.
        let lr = 1e-4;
        let predicted = influence(&reply.values, &own, lr).unwrap();
        let real = mean(&model, &moved(&start, &own, -lr), &sample) - reply.mean_log_prob;
        assert_eq!(predicted > 0.0, raises, "{predicted}");
        assert!(
            (real / predicted - 1.0).abs() < 0.05,
            "predicted {predicted}, real {real}"
        );
    }
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let (model, config) = (model(), config());
    let (adapter, sample) = (adapter(&model), fresh(&model, 1, 7, 1.0));
    let says = |error: trainer::Error, part: &str| {
        assert!(
            error.to_string().contains(part),
            "{error} does not say: {part}"
        );
    };
    says(
        influence(&[1.0], &[1.0, 2.0], 1.0).unwrap_err(),
        "has 2 numbers",
    );
    says(
        reply_gradient(&model, &Workspace::default(), &adapter, &[], &[1], 1.0).unwrap_err(),
        "holds no token",
    );
    says(
        reply_gradient(&model, &Workspace::default(), &adapter, &[1], &[], 1.0).unwrap_err(),
        "holds no token",
    );
    says(
        sample_gradient(&model, &Workspace::default(), &adapter, &config, &sample, 0).unwrap_err(),
        "counts no sample",
    );
    let other = Config {
        rank: 8,
        ..config.clone()
    };
    says(
        sample_gradient(&model, &Workspace::default(), &adapter, &other, &sample, 1).unwrap_err(),
        "`rank`",
    );
    let mut foreign = sample.clone();
    foreign.behaviour[0] = -60.0;
    says(
        sample_gradient(
            &model,
            &Workspace::default(),
            &adapter,
            &config,
            &foreign,
            1,
        )
        .unwrap_err(),
        "ratio",
    );
    says(
        StepTaken::adamw(&config, b"no", 3, 1.0).unwrap_err(),
        "optimizer state",
    );
}
