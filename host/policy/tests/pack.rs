//! Sequences trained together: each log-prob has the bits that it has alone, the gradient is the sum.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use common::*;
use policy::{Adapter, AdapterGrads, Dtype, Error, Model, Pack, Pool, Tape, Target};
use std::sync::Arc;

/// Two attempts at one prompt, a conversation that goes on after the first, and a stranger.
fn sequences() -> Vec<Vec<u32>> {
    let text =
        |seed, len| -> Vec<u32> { (0..len).map(|i| (uniform(seed, i) * 77.0) as u32).collect() };
    let prompt = text(1, 41);
    let first = [prompt.clone(), text(2, 19)].concat();
    let second = [prompt, text(3, 33)].concat();
    let later = [first.clone(), text(4, 40)].concat();
    vec![second, first, text(5, 23), later]
}

fn model(dtype: Dtype, threads: usize, qk_norm: bool) -> Model {
    let config = ragged(qk_norm);
    Model::random(config, 9, dtype, Arc::new(Pool::new(threads).unwrap())).unwrap()
}

/// Every second token from the 30th on.
fn asked(tokens: &[u32]) -> Vec<Target> {
    let rows = (10..tokens.len() - 1).step_by(2);
    rows.map(|row| Target {
        row,
        token: tokens[row + 1],
    })
    .collect()
}

fn slope(targets: usize, salt: usize) -> Vec<f32> {
    (0..targets)
        .map(|i| ((i + salt) % 7) as f32 * 0.1 - 0.2)
        .collect()
}

struct Run {
    log_probs: Vec<f32>,
    grads: Vec<f32>,
}

fn run(model: &Model, tape: &mut Tape, adapter: &Adapter, packs: &[&[usize]]) -> Run {
    let all = sequences();
    let mut grads = AdapterGrads::zeros(adapter);
    let mut log_probs = vec![Vec::new(); all.len()];
    for &members in packs {
        let mut pack = Pack::default();
        let mut upstream = Vec::new();
        for &i in members {
            let targets = asked(&all[i]);
            pack.push(&all[i], &targets).unwrap();
            upstream.extend(slope(targets.len(), i));
        }
        let mut found = model
            .train_pack(tape, Some(adapter), &pack, 0.8)
            .unwrap()
            .into_iter();
        for &i in members {
            log_probs[i] = found.by_ref().take(asked(&all[i]).len()).collect();
        }
        model
            .backward(tape, adapter, &upstream, &mut grads)
            .unwrap();
    }
    Run {
        log_probs: log_probs.concat(),
        grads: grads.values().unwrap().to_vec(),
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn a_score_has_the_bits_of_training_and_no_gradient() {
    let (model, mut tape) = (model(Dtype::F32, 2, false), Tape::new());
    let adapter = noisy(Adapter::init(model.config(), 5, 16.0, 3).unwrap(), 3);
    let mut pack = Pack::default();
    for tokens in sequences() {
        pack.push(&tokens, &asked(&tokens)).unwrap();
    }
    let trained = model.train_pack(&mut tape, Some(&adapter), &pack, 0.8);
    let scored = model.score_pack(&mut tape, Some(&adapter), &pack, 0.8);
    let scored = scored.unwrap();
    assert_eq!(bits(&trained.unwrap()), bits(&scored));
    let mut grads = AdapterGrads::zeros(&adapter);
    let back = model.backward(&mut tape, &adapter, &vec![1.0; scored.len()], &mut grads);
    assert!(matches!(back, Err(Error::Gradients { expected: 0, .. })));
}

#[test]
fn log_probs_have_their_bits_and_gradients_are_the_sum() {
    for (dtype, qk_norm) in [(Dtype::Bf16, true), (Dtype::F32, false), (Dtype::Q8, true)] {
        let model = model(dtype, 2, qk_norm);
        let adapter = noisy(Adapter::init(model.config(), 5, 16.0, 3).unwrap(), 3);
        let alone = run(
            &model,
            &mut Tape::new(),
            &adapter,
            &[&[0], &[1], &[2], &[3]],
        );
        let mut together = None;
        for budget in [usize::MAX, 0] {
            let mut tape = Tape::with_budget(budget);
            for packs in [&[&[0usize, 1, 2, 3][..]][..], &[&[3, 0], &[1, 2]]] {
                let found = run(&model, &mut tape, &adapter, packs);
                assert!(
                    bits(&found.log_probs) == bits(&alone.log_probs),
                    "{dtype:?}"
                );
                let error = relative(&found.grads, &alone.grads);
                assert!(error < 1e-5, "{dtype:?}: {error}");
                if packs.len() == 1 {
                    // Kept or computed again: the same bits.
                    let bits = bits(&found.grads);
                    assert!(together.get_or_insert_with(|| bits.clone()) == &bits);
                }
            }
        }
    }
}

#[test]
fn gradients_of_a_pack_do_not_depend_on_threads() {
    let mut expected = None;
    for threads in [1, 2, 3] {
        let model = model(Dtype::Bf16, threads, true);
        let adapter = noisy(Adapter::init(model.config(), 5, 16.0, 3).unwrap(), 3);
        let found = run(&model, &mut Tape::new(), &adapter, &[&[0, 1, 2, 3]]);
        let found = bits(&found.grads);
        assert!(expected.get_or_insert_with(|| found.clone()) == &found);
    }
}

#[test]
fn a_pack_beyond_the_context_or_the_vocabulary_is_refused() {
    let model = model(Dtype::F32, 1, false);
    let attempt = |tokens: &[u32]| {
        let mut pack = Pack::default();
        // The first fits; the second goes on from it.
        pack.push(&[5; 200], &[]).unwrap();
        pack.push(tokens, &[]).unwrap();
        model.train_pack(&mut Tape::new(), None, &pack, 1.0)
    };
    assert!(attempt(&[5; 256]).is_ok());
    let (tokens, context) = (257, 256);
    assert!(matches!(
        attempt(&[5; 257]),
        Err(Error::TooLong { tokens: t, context: c }) if (t, c) == (tokens, context)
    ));
    assert!(matches!(
        attempt(&[77; 20]),
        Err(Error::Token {
            token: 77,
            vocab: 77
        })
    ));
}
