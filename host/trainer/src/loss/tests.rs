//! The losses against PyTorch and against finite differences.

use proptest::prelude::*;
use rl::PolicyLoss;
use serde::Deserialize;

use super::{Objective, Streams};

const PLAIN: Objective = Objective {
    policy_loss: PolicyLoss::Ppo,
    clip_low: 0.2,
    clip_high: 0.28,
    tis_cap: None,
    kl_beta: 0.0,
};

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Fixture {
    settings: Settings,
    batch: Vec<Owned>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Settings {
    clip_low: f64,
    clip_high: f64,
    tis_cap: f64,
}

#[derive(Deserialize, Clone, Debug)]
struct Owned {
    logprobs: Vec<f32>,
    old: Vec<f32>,
    reference: Vec<f32>,
    behaviour: Vec<f32>,
    advantage: Vec<f32>,
    weight: Vec<f32>,
}

impl Owned {
    fn streams(&self) -> Streams<'_> {
        Streams {
            logprobs: &self.logprobs,
            old: &self.old,
            reference: Some(&self.reference),
            behaviour: &self.behaviour,
            advantage: &self.advantage,
            weight: &self.weight,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Case {
    policy_loss: PolicyLoss,
    tis: bool,
    kl_beta: f64,
    loss: f64,
    pg_loss: f64,
    kl: f64,
    dlogprobs: Vec<Vec<f64>>,
}

fn fixture() -> Fixture {
    serde_json::from_str(include_str!("../../fixtures/losses.json")).unwrap()
}

#[test]
fn every_loss_and_its_derivative_agree_with_pytorch() {
    let fixture = fixture();
    assert_eq!(fixture.cases.len(), 16);
    let mut clipped = 0;
    for case in &fixture.cases {
        let objective = Objective {
            policy_loss: case.policy_loss,
            clip_low: fixture.settings.clip_low,
            clip_high: fixture.settings.clip_high,
            tis_cap: case.tis.then_some(fixture.settings.tis_cap),
            kl_beta: case.kl_beta,
        };
        let counted = fixture
            .batch
            .iter()
            .filter(|s| s.weight.iter().sum::<f32>() > 0.0)
            .count();
        let share = 1.0 / f64::from(u32::try_from(counted).unwrap());
        let (mut pg, mut kl, mut dlogprobs) = (0.0, 0.0, Vec::new());
        for (sample, want) in fixture.batch.iter().zip(&case.dlogprobs) {
            let figures = objective.sample(&sample.streams(), share, &mut dlogprobs);
            pg += share * figures.pg;
            kl += share * figures.kl;
            clipped += figures.clipped;
            for (got, want) in dlogprobs.iter().zip(want) {
                assert!(
                    (f64::from(*got) - want).abs() <= 1e-6 * want.abs().max(1.0),
                    "{:?}: {got} is not {want}",
                    case.policy_loss
                );
            }
        }
        for (name, got, want) in [
            ("pg", pg, case.pg_loss),
            ("kl", kl, case.kl),
            ("loss", pg + case.kl_beta * kl, case.loss),
        ] {
            assert!(
                (got - want).abs() < 1e-9,
                "{:?} {name}: {got} is not {want}",
                case.policy_loss
            );
        }
    }
    assert!(
        clipped > 10,
        "the fixture must reach the clipped branches, it has {clipped}"
    );
}

/// Of the losses that hold no constant factors, so that the derivative is the loss's own.
#[test]
fn the_derivative_is_the_slope_of_the_loss() {
    let fixture = fixture();
    let step = 1e-3f32;
    for (policy_loss, kl_beta) in [
        (PolicyLoss::Ppo, 0.0),
        (PolicyLoss::Ppo, 0.5),
        (PolicyLoss::ImportanceSampling, 0.0),
        (PolicyLoss::ImportanceSampling, 0.5),
    ] {
        let objective = Objective {
            policy_loss,
            kl_beta,
            ..PLAIN
        };
        let loss = |sample: &Owned| {
            let figures = objective.sample(&sample.streams(), 1.0, &mut Vec::new());
            figures.pg + kl_beta * figures.kl
        };
        let mut checked = 0;
        for sample in &fixture.batch {
            let mut dlogprobs = Vec::new();
            objective.sample(&sample.streams(), 1.0, &mut dlogprobs);
            for (t, got) in dlogprobs.iter().enumerate() {
                let mut at = [sample.clone(), sample.clone()];
                at[0].logprobs[t] -= step;
                at[1].logprobs[t] += step;
                let width = f64::from(at[1].logprobs[t]) - f64::from(at[0].logprobs[t]);
                let slope = (loss(&at[1]) - loss(&at[0])) / width;
                let got = f64::from(*got);
                assert!(
                    (slope - got).abs() < 2e-4 * slope.abs().max(1.0),
                    "{got} is not {slope}"
                );
                checked += 1;
            }
        }
        assert_eq!(checked, 17);
    }
}

#[test]
fn a_sequence_ratio_shares_its_clip_among_all_tokens() {
    let sample = Owned {
        logprobs: vec![-0.5, -1.0],
        behaviour: vec![-1.0, -1.1],
        advantage: vec![1.0, 1.0],
        weight: vec![1.0, 1.0],
        old: vec![0.0; 2],
        reference: vec![-1.0; 2],
    };
    let mut dlogprobs = Vec::new();
    let ppo = PLAIN.sample(&sample.streams(), 1.0, &mut dlogprobs);
    assert_eq!((ppo.clipped, dlogprobs[0]), (1, 0.0));
    assert!(dlogprobs[1] < 0.0);
    let gspo = Objective {
        policy_loss: PolicyLoss::Gspo,
        ..PLAIN
    };
    let figures = gspo.sample(&sample.streams(), 1.0, &mut dlogprobs);
    assert_eq!(
        (figures.clipped, dlogprobs.as_slice()),
        (2, &[0.0, 0.0][..])
    );
}

#[test]
fn on_fresh_samples_every_ratio_is_exactly_one() {
    let mut sample = fixture().batch[0].clone();
    sample.logprobs.clone_from(&sample.behaviour);
    let figures = PLAIN.sample(&sample.streams(), 1.0, &mut Vec::new());
    assert_eq!(figures.ratio_max, 1.0);
    assert_eq!(
        (figures.ratio_sum, figures.clipped, figures.tokens),
        (4.0, 0, 4)
    );
}

#[test]
fn tokens_and_samples_without_weight_are_out_of_loss_and_denominator() {
    let fixture = fixture();
    let mut dlogprobs = Vec::new();
    let whole = PLAIN.sample(&fixture.batch[0].streams(), 1.0, &mut dlogprobs);
    let keep: Vec<usize> = (0..5)
        .filter(|t| fixture.batch[0].weight[*t] > 0.0)
        .collect();
    let pick = |stream: &[f32]| keep.iter().map(|t| stream[*t]).collect::<Vec<f32>>();
    let of = &fixture.batch[0];
    let short = Owned {
        logprobs: pick(&of.logprobs),
        old: pick(&of.old),
        reference: pick(&of.reference),
        behaviour: pick(&of.behaviour),
        advantage: pick(&of.advantage),
        weight: pick(&of.weight),
    };
    assert_eq!(PLAIN.sample(&short.streams(), 1.0, &mut Vec::new()), whole);
    assert_eq!(dlogprobs[2], 0.0);
    let nothing = PLAIN.sample(&fixture.batch[3].streams(), 1.0, &mut dlogprobs);
    assert_eq!(
        (nothing.tokens, nothing.pg, dlogprobs),
        (0, 0.0, vec![0.0; 3])
    );
}

#[test]
fn a_ratio_that_is_not_a_number_is_not_hidden_by_the_largest() {
    let mut sample = fixture().batch[0].clone();
    sample.logprobs[1] = f32::NAN;
    let figures = PLAIN.sample(&sample.streams(), 1.0, &mut Vec::new());
    assert!(figures.ratio_max.is_nan());
    sample.logprobs[1] = 3e3;
    let figures = PLAIN.sample(&sample.streams(), 1.0, &mut Vec::new());
    assert_eq!(figures.ratio_max, f64::INFINITY);
}

/// Streams of one length as the trainer may meet them: log-probs below 0, any advantage, weights with zeros among them.
fn any_streams() -> impl Strategy<Value = Owned> {
    let logprob = || -12.0f32..0.0;
    let token = (
        logprob(),
        logprob(),
        logprob(),
        logprob(),
        -3.0f32..3.0,
        0u8..4,
    );
    prop::collection::vec(token, 1..9).prop_map(|tokens| Owned {
        logprobs: tokens.iter().map(|t| t.0).collect(),
        old: tokens.iter().map(|t| t.1).collect(),
        reference: tokens.iter().map(|t| t.2).collect(),
        behaviour: tokens.iter().map(|t| t.3).collect(),
        advantage: tokens.iter().map(|t| t.4).collect(),
        weight: tokens.iter().map(|t| f32::from(t.5) / 2.0).collect(),
    })
}

fn any_objective() -> impl Strategy<Value = Objective> {
    let losses = [
        PolicyLoss::Ppo,
        PolicyLoss::ImportanceSampling,
        PolicyLoss::Cispo,
        PolicyLoss::Gspo,
    ];
    (
        prop::sample::select(losses.to_vec()),
        prop::option::of(1.0f64..4.0),
        0.0f64..1.0,
    )
        .prop_map(|(policy_loss, tis_cap, kl_beta)| Objective {
            policy_loss,
            tis_cap,
            kl_beta,
            ..PLAIN
        })
}

proptest! {
    #[test]
    fn every_loss_of_every_sample_is_finite_and_keeps_to_its_weights(
        sample in any_streams(), objective in any_objective()
    ) {
        let mut dlogprobs = Vec::new();
        let figures = objective.sample(&sample.streams(), 1.0, &mut dlogprobs);
        prop_assert!(figures.pg.is_finite() && figures.kl >= 0.0 && figures.ratio_max.is_finite());
        prop_assert_eq!(dlogprobs.len(), sample.weight.len());
        let weighted = sample.weight.iter().filter(|w| **w > 0.0).count();
        prop_assert_eq!(figures.tokens, weighted as u64);
        prop_assert!(figures.clipped <= figures.tokens);
        for (slope, weight) in dlogprobs.iter().zip(&sample.weight) {
            prop_assert!(slope.is_finite());
            prop_assert!(*weight > 0.0 || *slope == 0.0);
        }
    }

    #[test]
    fn only_the_proportions_of_weights_matter(sample in any_streams(), objective in any_objective()) {
        let mut doubled = sample.clone();
        doubled.weight.iter_mut().for_each(|w| *w *= 2.0);
        let (mut one, mut two) = (Vec::new(), Vec::new());
        let figures = objective.sample(&sample.streams(), 0.5, &mut one);
        prop_assert_eq!(objective.sample(&doubled.streams(), 0.5, &mut two), figures);
        prop_assert_eq!(one, two);
    }

    #[test]
    fn the_clip_only_ever_raises_the_loss(sample in any_streams()) {
        let free = Objective { policy_loss: PolicyLoss::ImportanceSampling, ..PLAIN };
        let clipped = PLAIN.sample(&sample.streams(), 1.0, &mut Vec::new());
        prop_assert!(clipped.pg >= free.sample(&sample.streams(), 1.0, &mut Vec::new()).pg);
    }
}
