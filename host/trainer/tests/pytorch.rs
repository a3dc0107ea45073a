//! Ten AdamW steps of the whole learner against PyTorch (`fixtures/make_fixtures.py`).

mod common;

use rl::{Batch, PolicyVersion, Sample, SampleId, StepMetrics};
use serde::Deserialize;
use trainer::Config;

#[derive(Deserialize)]
struct Fixture {
    settings: Config,
    samples: Vec<Given>,
    steps: Vec<Measured>,
}

#[derive(Deserialize)]
struct Given {
    prompt: Vec<u32>,
    response: Vec<u32>,
    temperature: f32,
    behaviour: Vec<f32>,
    advantage: Vec<f32>,
    weight: Vec<f32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Measured {
    loss: f64,
    pg_loss: f64,
    kl: f64,
    grad_norm: f64,
    ratio_mean: f64,
    ratio_max: f64,
}

#[test]
fn ten_steps_have_the_losses_norms_and_ratios_of_pytorch() {
    let fixture: Fixture = serde_json::from_str(include_str!("../fixtures/steps.json")).unwrap();
    let samples = fixture
        .samples
        .into_iter()
        .enumerate()
        .map(|(i, given)| Sample {
            id: SampleId::new(i.to_string()),
            turn: "turn".into(),
            adapter: "main".into(),
            version: PolicyVersion::BASE,
            prompt: given.prompt,
            response: given.response,
            behaviour: given.behaviour,
            advantage: given.advantage,
            weight: given.weight,
            temperature: given.temperature,
        });
    let batch = Batch {
        samples: samples.collect(),
    };
    let (mut learner, _slot) = common::lora(&common::model(), fixture.settings);
    assert_eq!(fixture.steps.len(), 10);
    let mut worst: f64 = 0.0;
    for (number, want) in fixture.steps.iter().enumerate() {
        let StepMetrics {
            loss,
            pg_loss,
            kl,
            grad_norm,
            ratio_mean,
            ratio_max,
            ..
        } = common::advance(&mut learner, &batch).metrics;
        for (name, got, want) in [
            ("loss", loss, want.loss),
            ("pg loss", pg_loss, want.pg_loss),
            ("kl", kl, want.kl),
            ("grad norm", grad_norm, want.grad_norm),
            ("mean ratio", ratio_mean, want.ratio_mean),
            ("largest ratio", ratio_max, want.ratio_max),
        ] {
            let off = (got - want).abs() / want.abs().max(1.0);
            worst = worst.max(off);
            assert!(
                off < 1e-4,
                "step {}: {name} is {got}, PyTorch says {want}",
                number + 1
            );
        }
    }
    eprintln!("largest difference from PyTorch: {worst:.2e}");
}
