//! Every setting reaches the number that it should: a coefficient that never arrives is the oldest bug of this field.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeSet;

use rl::{Batch, Learner as _, PolicyLoss, Proposal, Seed};
use trainer::{Config, LoraLearner};

fn two_steps(config: Config, batch: &Batch) -> Proposal {
    let (mut learner, _slot) = common::lora(&common::model(), config);
    common::advance(&mut learner, batch);
    learner.step(batch).unwrap()
}

#[test]
fn each_key_changes_the_weights_that_a_step_gives() {
    type Change = fn(&mut Config);
    let table: [(&str, Change); 14] = [
        ("lr", |c| c.lr = 2e-3),
        ("betas", |c| c.betas[0] = 0.5),
        ("betas", |c| c.betas[1] = 0.5),
        ("eps", |c| c.eps = 1e-2),
        ("weight-decay", |c| c.weight_decay = 0.5),
        ("grad-clip", |c| c.grad_clip = 1e-3),
        ("passes", |c| c.passes = 2),
        ("policy-loss", |c| {
            c.policy_loss = PolicyLoss::ImportanceSampling
        }),
        ("clip-low", |c| c.clip_low = Some(0.9)),
        ("clip-high", |c| c.clip_high = Some(5.0)),
        ("tis-cap", |c| c.tis_cap = Some(1.5)),
        ("kl-beta", |c| c.kl_beta = 0.5),
        ("rank", |c| c.rank = 2),
        ("alpha", |c| c.alpha = 16.0),
    ];
    let batch = common::stale(&common::model());
    // A small eps would leave AdamW blind to the gradient's scale, and so to the clip.
    let base = Config {
        eps: 1e-3,
        ..common::config()
    };
    let want = two_steps(base.clone(), &batch).adapter_digest;
    assert_eq!(want, two_steps(base.clone(), &batch).adapter_digest);
    for (key, change) in table {
        let mut config = base.clone();
        change(&mut config);
        assert_ne!(
            two_steps(config, &batch).adapter_digest,
            want,
            "`{key}` changes nothing"
        );
    }
    let tested: BTreeSet<&str> = table.iter().map(|(key, _)| *key).collect();
    let keys = serde_json::to_value(Config::default()).unwrap();
    let untested: Vec<&String> = keys
        .as_object()
        .unwrap()
        .keys()
        .filter(|key| !tested.contains(key.as_str()))
        .collect();
    assert_eq!(
        untested,
        ["max-ratio"],
        "it changes no weight; it refuses steps, which has its own test"
    );
}

#[test]
fn each_loss_and_the_importance_weight_give_their_own_step() {
    let batch = common::stale(&common::model());
    let mut seen = BTreeSet::new();
    for policy_loss in [
        PolicyLoss::Ppo,
        PolicyLoss::ImportanceSampling,
        PolicyLoss::Cispo,
        PolicyLoss::Gspo,
    ] {
        for tis_cap in [None, Some(2.0)] {
            // With the importance weight, ratios are to the step's start: only later passes leave 1.
            let passes = 4;
            let settings = Config {
                policy_loss,
                tis_cap,
                passes,
                ..common::config()
            };
            let config = Config {
                lr: 1e-2,
                eps: 1e-3,
                ..settings
            };
            seen.insert(two_steps(config, &batch).adapter_digest);
        }
    }
    assert_eq!(seen.len(), 8);
}

#[test]
fn max_ratio_decides_which_step_is_refused() {
    let batch = common::stale(&common::model());
    let step = |max_ratio| {
        let (mut learner, _slot) = common::lora(
            &common::model(),
            Config {
                max_ratio,
                ..common::config()
            },
        );
        learner.step(&batch)
    };
    assert!(step(3.0).is_ok());
    let error = step(2.0).unwrap_err().to_string();
    assert!(error.contains("above `max-ratio` 2"), "{error}");
}

#[test]
fn kl_is_measured_against_the_base_and_only_when_it_is_asked_for() {
    let model = common::model();
    let (mut learner, _slot) = common::lora(
        &model,
        Config {
            kl_beta: 0.1,
            ..common::config()
        },
    );
    let batch = common::batch(&model);
    let first = common::advance(&mut learner, &batch).metrics;
    assert_eq!((first.kl, first.loss), (0.0, first.pg_loss));
    let second = learner.step(&batch).unwrap().metrics;
    assert!(second.kl > 0.0);
    assert!((second.loss - (second.pg_loss + 0.1 * second.kl)).abs() < 1e-7);
    let (mut without, _slot) = common::lora(&model, common::config());
    common::advance(&mut without, &batch);
    assert_eq!(without.step(&batch).unwrap().metrics.kl, 0.0);
}

#[test]
fn passes_count_as_optimizer_steps() {
    let batch = common::batch(&common::model());
    let metrics = two_steps(
        Config {
            passes: 3,
            ..common::config()
        },
        &batch,
    )
    .metrics;
    assert_eq!(metrics.step, 6);
    assert!(
        metrics.ratio_max > 1.0,
        "later passes are off-policy: {metrics:?}"
    );
}

#[test]
fn settings_that_contradict_the_served_adapter_are_refused() {
    let model = common::model();
    let (mut learner, slot) = common::lora(&model, common::config());
    common::advance(&mut learner, &common::batch(&model));
    for (key, config) in [
        (
            "rank",
            Config {
                rank: 8,
                ..common::config()
            },
        ),
        (
            "alpha",
            Config {
                alpha: 4.0,
                ..common::config()
            },
        ),
        (
            "lr",
            Config {
                lr: -1.0,
                ..common::config()
            },
        ),
    ] {
        let again = LoraLearner::new(model.clone(), slot.clone(), config, Seed::new(3));
        let error = again.unwrap_err().to_string();
        assert!(error.contains(&format!("`{key}`")), "{error}");
    }
}

#[test]
fn a_proposal_names_every_setting() {
    let batch = common::batch(&common::model());
    let settings = two_steps(common::config(), &batch).settings;
    let config: Config = serde_json::from_value(settings).unwrap();
    assert_eq!((config.rank, config.clip_high), (4, Some(0.28)));
}
