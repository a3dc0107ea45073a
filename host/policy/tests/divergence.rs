//! The divergence between two adapters, against the definition on whole rows, and the greedy reply.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::Arc;

use common::{fixtures, noisy};
use policy::divergence::{divergence, greedy};
use policy::{
    Adapter, Checkpoint, Dtype, Error, Kv, Logits, Model, Pool, Scratch, Segment, Tape, Target,
};

fn model() -> Model {
    let checkpoint = Checkpoint::open(&fixtures().join("tiny-llama")).unwrap();
    Model::load(&checkpoint, Dtype::F32, Arc::new(Pool::new(2).unwrap())).unwrap()
}

fn adapter(model: &Model, seed: u64) -> Adapter {
    noisy(Adapter::init(model.config(), 4, 64.0, seed).unwrap(), seed)
}

/// All logits of a sequence, computed in one go.
fn rows(model: &Model, adapter: Option<&Adapter>, tokens: &[u32]) -> Vec<Vec<f64>> {
    let (mut kv, mut scratch) = (Kv::new(model.config()), Scratch::new());
    let segment = Segment {
        kv: &mut kv,
        tokens,
        adapter,
        logits: Logits::All,
    };
    model.forward(&mut scratch, &mut [segment]).unwrap();
    scratch
        .logits(0)
        .map(|row| row.iter().map(|x| f64::from(*x)).collect())
        .collect()
}

fn softmax(row: &[f64], temperature: f64) -> Vec<f64> {
    let e: Vec<f64> = row.iter().map(|x| (x / temperature).exp()).collect();
    let sum: f64 = e.iter().sum();
    e.iter().map(|e| e / sum).collect()
}

#[test]
fn every_position_has_the_divergence_of_its_two_distributions() {
    let model = model();
    let (one, two) = (adapter(&model, 1), adapter(&model, 2));
    let tokens: Vec<u32> = (0..400).map(|i| (i * 7 + 3) % 250).collect();
    // Replies below, at and above the rows that are computed at once, and a prompt of several pieces.
    for (cut, end) in [(1, 2), (5, 68), (5, 69), (5, 70), (300, 400)] {
        let (prompt, reply) = (&tokens[..cut], &tokens[cut..end]);
        for (a, b) in [
            (Some(&one), None),
            (None, Some(&one)),
            (Some(&one), Some(&two)),
        ] {
            let found = divergence(&model, prompt, reply, a, b, 0.7).unwrap();
            let (p, q) = (
                rows(&model, a, &tokens[..end - 1]),
                rows(&model, b, &tokens[..end - 1]),
            );
            assert_eq!(found.kl.len(), reply.len());
            for (i, kl) in found.kl.iter().enumerate() {
                let (p, q) = (
                    softmax(&p[cut - 1 + i], 0.7f32.into()),
                    softmax(&q[cut - 1 + i], 0.7f32.into()),
                );
                let expected: f64 = p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum();
                assert!(expected > 1e-6, "the adapters differ at {i}: {expected}");
                assert!((kl - expected).abs() < 1e-10, "{i}: {kl} is not {expected}");
            }
            assert_eq!(found.kl[found.at], found.max);
            assert!(found.kl.iter().all(|kl| *kl <= found.max));
            let mean = found.kl.iter().sum::<f64>() / found.kl.len() as f64;
            assert!((found.mean - mean).abs() < 1e-12);
        }
    }
}

#[test]
fn log_probs_are_the_trainers_bits_and_equal_adapters_do_not_diverge() {
    let model = model();
    let one = adapter(&model, 1);
    let tokens: Vec<u32> = (0..90).map(|i| (i * 11 + 1) % 250).collect();
    let found = divergence(&model, &tokens[..9], &tokens[9..], Some(&one), None, 0.7).unwrap();
    let targets: Vec<Target> = (9..90)
        .map(|t| Target {
            row: t - 1,
            token: tokens[t],
        })
        .collect();
    for (adapter, log_probs) in [(Some(&one), &found.log_probs_a), (None, &found.log_probs_b)] {
        let trained = model.train_forward(&mut Tape::new(), adapter, &tokens, &targets, 0.7);
        assert_eq!(&trained.unwrap(), log_probs);
    }
    let same = divergence(
        &model,
        &tokens[..9],
        &tokens[9..],
        Some(&one),
        Some(&one),
        0.7,
    )
    .unwrap();
    assert_eq!((same.mean, same.max, same.at), (0.0, 0.0, 0));
    // Greedy's recorded log-probs are those at temperature 1.
    let at = |t| divergence(&model, &tokens[..9], &tokens[9..], Some(&one), None, t).unwrap();
    assert_eq!(at(0.0), at(1.0));
    assert_eq!(serde_json::to_value(&same).unwrap()["max"], 0.0);
}

#[test]
fn nothing_to_compare_and_numbers_that_are_none_are_refused() {
    let model = model();
    assert!(matches!(
        divergence(&model, &[], &[1], None, None, 1.0),
        Err(Error::EmptySequence)
    ));
    assert!(matches!(
        divergence(&model, &[1], &[], None, None, 1.0),
        Err(Error::EmptySequence)
    ));
    assert!(matches!(
        divergence(&model, &[1], &[999], None, None, 1.0),
        Err(Error::Token { .. })
    ));
    assert!(divergence(&model, &[1], &[2], None, None, -1.0).is_err());
    assert!(matches!(
        greedy(&model, None, &[], 4),
        Err(Error::EmptySequence)
    ));
}

#[test]
fn the_greedy_reply_is_the_most_likely_one_and_ends_where_it_must() {
    let model = model();
    let one = adapter(&model, 1);
    for adapter in [None, Some(&one)] {
        let expected = common::greedy(&model, adapter, &[5, 6, 7, 8], 12);
        let ends = expected
            .iter()
            .position(|id| model.config().eos.contains(id));
        let found = greedy(&model, adapter, &[5, 6, 7, 8], 12).unwrap();
        assert_eq!(found, expected[..ends.map_or(12, |at| at + 1)]);
    }
    let full: Vec<u32> = (0..512).map(|i| i % 250).collect();
    assert!(greedy(&model, None, &full, 3).unwrap().is_empty());
    assert!(greedy(&model, None, &full[..511], 3).unwrap().len() <= 1);
}
