//! The arithmetic contract, in bits: a row's result does not depend on what surrounds it.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use common::*;
use kernels::Isa;
use policy::{
    Adapter, AdapterGrads, Dtype, Error, Kv, Logits, Model, ModelConfig, Pool, Sampler, Scratch,
    Segment, Tape, Target,
};
use rl::Sampling;
use std::sync::Arc;

/// What a configuration's `dtype` may say.
const DTYPES: [Dtype; 4] = [Dtype::F32, Dtype::Bf16, Dtype::Q8, Dtype::Bf16Pairs];

fn config() -> ModelConfig {
    ragged(true)
}

fn model(dtype: Dtype, threads: usize) -> Model {
    Model::random(config(), 9, dtype, Arc::new(Pool::new(threads).unwrap())).unwrap()
}

fn text(seed: u64, len: u64) -> Vec<u32> {
    (0..len).map(|i| (uniform(seed, i) * 77.0) as u32).collect()
}

fn some_adapter(rank: usize, seed: u64) -> Adapter {
    noisy(Adapter::init(&config(), rank, 16.0, seed).unwrap(), seed)
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// Logits of every row, from chunks of the given sizes.
fn chunked(model: &Model, adapter: Option<&Adapter>, tokens: &[u32], sizes: &[usize]) -> Vec<u32> {
    let (mut kv, mut scratch) = (Kv::new(model.config()), Scratch::new());
    let mut out = Vec::new();
    let mut rest = tokens;
    for &size in sizes.iter().cycle() {
        if rest.is_empty() {
            return out;
        }
        let (now, later) = rest.split_at(size.min(rest.len()));
        let segment = Segment {
            kv: &mut kv,
            tokens: now,
            adapter,
            logits: Logits::All,
        };
        model.forward(&mut scratch, &mut [segment]).unwrap();
        out.extend(scratch.logits(0).flat_map(bits));
        rest = later;
    }
    out
}

#[test]
fn cached_decoding_and_chunked_prefill_equal_one_pass() {
    for dtype in DTYPES {
        let model = model(dtype, 2);
        let (tokens, adapter) = (text(1, 100), some_adapter(3, 1));
        for adapter in [None, Some(&adapter)] {
            let whole = chunked(&model, adapter, &tokens, &[100]);
            for sizes in [&[1][..], &[31], &[32], &[33], &[1, 14, 15, 7]] {
                assert!(
                    chunked(&model, adapter, &tokens, sizes) == whole,
                    "{dtype:?} {sizes:?}"
                );
            }
        }
    }
}

#[test]
fn a_pass_draws_what_a_sampler_draws_and_scores_what_is_given_and_hands_over_other_logits() {
    let settings = [(0.0, 0, 1.0), (0.7, 0, 1.0), (1.3, 12, 1.0), (1.0, 0, 0.8)];
    let settings = settings.map(|(temperature, top_k, top_p)| Sampling {
        temperature,
        top_k,
        top_p,
        ..Sampling::default()
    });
    // The i-th of `what` in one pass: 'd' draws, 'l' asks for the last row, 'a' for all, 'n' for none, 'g' gives each row a token.
    let run = |model: &Model, what: [char; 4]| {
        let mut scratch = Scratch::new();
        let mut kvs = [(); 4].map(|()| Kv::new(model.config()));
        let tokens = [3, 40, 1, 9].map(|len| text(len, len));
        let samplers = settings.each_ref().map(|s| Sampler::new(s, 0, 77).unwrap());
        let mut segments: Vec<Segment<'_>> = (kvs.iter_mut().zip(&tokens).zip(&samplers))
            .zip(what)
            .map(|(((kv, tokens), sampler), what)| Segment {
                kv,
                tokens,
                adapter: None,
                logits: match what {
                    'd' => Logits::Draw(sampler.plain(tokens.len() as u64).unwrap()),
                    'l' => Logits::Last,
                    'a' => Logits::All,
                    'g' => Logits::Given(tokens, 0.7),
                    _ => Logits::None,
                },
            })
            .collect();
        model.forward(&mut scratch, &mut segments).unwrap();
        (0..4)
            .map(|i| {
                let rows: Vec<Vec<f32>> = scratch.logits(i).map(<[f32]>::to_vec).collect();
                (rows, scratch.given(i).to_vec(), tokens[i].clone())
            })
            .collect::<Vec<_>>()
    };
    for threads in [1, 2] {
        let model = model(Dtype::Bf16, threads);
        let logits = run(&model, ['a'; 4]);
        for what in [
            "dddd", "dlad", "ndnl", "aldd", "dadn", "gggg", "gdla", "ngag", "ldgn",
        ] {
            let kinds: Vec<char> = what.chars().collect();
            let found = run(&model, kinds.clone().try_into().unwrap());
            for (i, (rows, found, tokens)) in found.into_iter().enumerate() {
                let (all, len) = (&logits[i].0, tokens.len());
                let expected: &[Vec<f32>] = match kinds[i] {
                    'a' => all,
                    'l' => &all[len - 1..],
                    _ => &[],
                };
                assert!(rows == expected, "{what} {i}");
                let log_prob = |row: &[f32], token: u32, temperature| {
                    let normalizer = model.normalizer(row, temperature).unwrap();
                    normalizer.log_prob(row[token as usize])
                };
                let row = &all[len - 1];
                let mut sampler = Sampler::new(&settings[i], 0, 77).unwrap();
                let expected: Vec<(Option<u32>, f32)> = match kinds[i] {
                    'd' => {
                        let token = sampler.draw(row, len as u64).unwrap();
                        let temperature = settings[i].logprob_temperature();
                        vec![(Some(token), log_prob(row, token, temperature))]
                    }
                    'g' => (tokens.iter().zip(all))
                        .map(|(&token, row)| (Some(token), log_prob(row, token, 0.7)))
                        .collect(),
                    _ => Vec::new(),
                };
                let found: Vec<_> = found.iter().map(|d| (d.token, d.log_prob)).collect();
                assert!(found == expected, "{what} {i}: {found:?} {expected:?}");
            }
        }
    }
}

#[test]
fn a_batch_of_strangers_with_other_adapters_changes_nothing() {
    for dtype in DTYPES {
        a_batch_of_strangers(&model(dtype, 2), dtype);
    }
}

fn a_batch_of_strangers(model: &Model, dtype: Dtype) {
    let adapters = [None, Some(some_adapter(3, 1)), Some(some_adapter(17, 2))];
    let texts = [text(1, 40), text(2, 1), text(3, 75)];
    let mut kvs: Vec<Kv> = texts.iter().map(|_| Kv::new(model.config())).collect();
    let mut segments: Vec<Segment<'_>> = kvs
        .iter_mut()
        .zip(&texts)
        .zip(&adapters)
        .map(|((kv, tokens), adapter)| Segment {
            kv,
            tokens,
            adapter: adapter.as_ref(),
            logits: Logits::All,
        })
        .collect();
    let mut scratch = Scratch::new();
    model.forward(&mut scratch, &mut segments).unwrap();
    for (i, (tokens, adapter)) in texts.iter().zip(&adapters).enumerate() {
        let together: Vec<u32> = scratch.logits(i).flat_map(bits).collect();
        assert!(
            together == chunked(model, adapter.as_ref(), tokens, &[1000]),
            "{dtype:?}: sequence {i}"
        );
    }
}

#[test]
fn threads_and_instruction_sets_change_nothing() {
    let (tokens, adapter) = (text(4, 60), some_adapter(5, 3));
    for dtype in DTYPES {
        let expected = chunked(&model(dtype, 1), Some(&adapter), &tokens, &[60]);
        for &isa in Isa::available() {
            for threads in [1, 2, 4] {
                let pool = Arc::new(Pool::with_isa(threads, isa).unwrap());
                let model = Model::random(config(), 9, dtype, pool).unwrap();
                let found = chunked(&model, Some(&adapter), &tokens, &[60]);
                assert!(found == expected, "{dtype:?}, {isa:?}, {threads} threads");
            }
        }
    }
}

#[test]
fn training_computes_the_log_probs_that_serving_recorded() {
    let (prompt, adapter) = (text(5, 20), some_adapter(4, 4));
    let ways = [(None, 0.0), (Some(&adapter), 0.7), (Some(&adapter), 1.3)];
    let all = DTYPES
        .into_iter()
        .flat_map(|dtype| ways.map(|way| (dtype, way)));
    for (dtype, (adapter, temperature)) in all {
        let model = model(dtype, 2);
        let (mut kv, mut scratch) = (Kv::new(model.config()), Scratch::new());
        let (mut tokens, mut input, mut recorded) = (prompt.clone(), prompt.clone(), Vec::new());
        for step in 0..50 {
            let segment = Segment {
                kv: &mut kv,
                tokens: &input,
                adapter,
                logits: Logits::Last,
            };
            model.forward(&mut scratch, &mut [segment]).unwrap();
            let logits = scratch.logits(0).next().unwrap();
            let token = (uniform(6, step) * 77.0) as u32;
            let normalizer = model.normalizer(logits, temperature).unwrap();
            recorded.push(normalizer.log_prob(logits[token as usize]));
            tokens.push(token);
            input = vec![token];
        }
        let targets: Vec<Target> = next_tokens(&tokens)
            .into_iter()
            .skip(prompt.len() - 1)
            .collect();
        let trained = if temperature == 0.0 { 1.0 } else { temperature };
        let mut tape = Tape::new();
        let found = model
            .train_forward(&mut tape, adapter, &tokens, &targets, trained)
            .unwrap();
        assert_eq!(
            bits(&found),
            bits(&recorded),
            "{dtype:?}, temperature {temperature}"
        );
    }
}

#[test]
fn going_on_from_a_truncated_or_copied_prefix_equals_starting_anew() {
    for dtype in DTYPES {
        going_on(&model(dtype, 1), dtype);
    }
}

fn going_on(model: &Model, dtype: Dtype) {
    let tokens = text(7, 70);
    let whole = chunked(model, None, &tokens, &[70]);
    let mut scratch = Scratch::new();
    let mut first = Kv::new(model.config());
    let mut wrong = tokens[..45].to_vec();
    wrong.extend(text(8, 20));
    let segment = Segment {
        kv: &mut first,
        tokens: &wrong,
        adapter: None,
        logits: Logits::None,
    };
    model.forward(&mut scratch, &mut [segment]).unwrap();
    let mut second = Kv::new(model.config());
    second.copy_prefix_from(&first, 45).unwrap();
    first.truncate(45).unwrap();
    for kv in [&mut first, &mut second] {
        assert_eq!(kv.len(), 45);
        let segment = Segment {
            kv,
            tokens: &tokens[45..],
            adapter: None,
            logits: Logits::All,
        };
        model.forward(&mut scratch, &mut [segment]).unwrap();
        let found: Vec<u32> = scratch.logits(0).flat_map(bits).collect();
        assert!(found == whole[45 * 77..], "{dtype:?}");
    }
}

#[test]
fn gradients_do_not_depend_on_threads_or_instruction_sets() {
    let (tokens, adapter) = (text(9, 80), some_adapter(5, 5));
    let targets = next_tokens(&tokens);
    let upstream: Vec<f32> = (0..targets.len())
        .map(|i| (i % 7) as f32 * 0.1 - 0.2)
        .collect();
    for dtype in DTYPES {
        let mut expected = None;
        for &isa in Isa::available() {
            for threads in [1, 2, 3] {
                let pool = Arc::new(Pool::with_isa(threads, isa).unwrap());
                let model = Model::random(config(), 9, dtype, pool).unwrap();
                let (mut tape, mut grads) = (Tape::new(), AdapterGrads::zeros(&adapter));
                model
                    .train_forward(&mut tape, Some(&adapter), &tokens, &targets, 0.9)
                    .unwrap();
                model
                    .backward(&mut tape, &adapter, &upstream, &mut grads)
                    .unwrap();
                let found = bits(&grads.values().unwrap());
                assert!(
                    expected.get_or_insert_with(|| found.clone()) == &found,
                    "{dtype:?} {isa:?} {threads}"
                );
            }
        }
    }
}

#[test]
fn intermediate_results_kept_or_computed_again_give_the_same_gradients() {
    let model = model(Dtype::Bf16, 2);
    let adapter = some_adapter(5, 8);
    // Both layers, one of the long sequence's, one of the short one's, none.
    let mut tapes = [1 << 30, 200_000, 100_000, 0].map(Tape::with_budget);
    // A long sequence before a short one: buffers hold more than is asked for.
    for (seed, len) in [(12, 90), (13, 33)] {
        let tokens = text(seed, len);
        let targets = next_tokens(&tokens);
        let upstream: Vec<f32> = (0..targets.len()).map(|i| (i % 3) as f32 - 0.7).collect();
        let run = |tape: &mut Tape| {
            let mut grads = AdapterGrads::zeros(&adapter);
            model
                .train_forward(tape, Some(&adapter), &tokens, &targets, 1.0)
                .unwrap();
            model
                .backward(tape, &adapter, &upstream, &mut grads)
                .unwrap();
            bits(&grads.values().unwrap())
        };
        let found = tapes.each_mut().map(run);
        assert!(found.iter().all(|bits| *bits == found[0]));
    }
}

#[test]
fn several_targets_in_a_row_add_their_gradients() {
    let model = model(Dtype::F32, 2);
    let (tokens, adapter) = (text(10, 12), some_adapter(2, 6));
    let at = |row, token| Target { row, token };
    // In no order, and with the same row three times.
    let targets = [at(7, 3), at(2, 5), at(7, 9), at(11, 0), at(7, 3)];
    let upstream = [0.5, -1.0, 0.25, 2.0, -0.125];
    let run = |targets: &[Target], upstream: &[f32]| {
        let (mut tape, mut grads) = (Tape::new(), AdapterGrads::zeros(&adapter));
        let log_probs = model
            .train_forward(&mut tape, Some(&adapter), &tokens, targets, 1.0)
            .unwrap();
        model
            .backward(&mut tape, &adapter, upstream, &mut grads)
            .unwrap();
        (log_probs, grads.values().unwrap().to_vec())
    };
    let (together, total) = run(&targets, &upstream);
    let mut sum = vec![0.0; total.len()];
    for i in 0..targets.len() {
        let (alone, grads) = run(&targets[i..=i], &upstream[i..=i]);
        assert_eq!(alone[0].to_bits(), together[i].to_bits());
        sum.iter_mut().zip(grads).for_each(|(s, g)| *s += g);
    }
    assert!(relative(&sum, &total) < 1e-5);
}

#[test]
fn a_gradient_is_the_slope_of_the_log_prob() {
    let model = model(Dtype::F32, 2);
    let (tokens, adapter) = (text(11, 40), some_adapter(3, 7));
    let targets = next_tokens(&tokens);
    let upstream: Vec<f32> = (0..targets.len())
        .map(|i| (i % 5) as f32 * 0.1 - 0.15)
        .collect();
    let loss = |adapter: &Adapter, tape: &mut Tape| -> f64 {
        let l = model
            .train_forward(tape, Some(adapter), &tokens, &targets, 1.0)
            .unwrap();
        l.iter()
            .zip(&upstream)
            .map(|(l, g)| f64::from(*l) * f64::from(*g))
            .sum()
    };
    let (mut tape, mut grads) = (Tape::new(), AdapterGrads::zeros(&adapter));
    loss(&adapter, &mut tape);
    model
        .backward(&mut tape, &adapter, &upstream, &mut grads)
        .unwrap();
    // Along the gradient itself the slope is its squared norm; central differences of step h err by h².
    let norm = kernels::adamw::norm(model.pool(), &grads.values().unwrap());
    let moved = |h: f64| {
        let params = adapter
            .params()
            .iter()
            .zip(grads.values().unwrap().into_owned());
        let params = params.map(|(p, g)| p + (h / norm) as f32 * g).collect();
        loss(&adapter.with_params(params).unwrap(), &mut Tape::new())
    };
    let slope = (moved(1e-2) - moved(-1e-2)) / 2e-2;
    assert!(
        (slope / norm - 1.0).abs() < 2e-3,
        "slope {slope}, gradient {norm}"
    );
}

#[test]
fn a_step_like_the_one_before_keeps_its_buffers() {
    let model = model(Dtype::Bf16, 1);
    let (mut kv, mut scratch) = (Kv::new(model.config()), Scratch::new());
    kv.reserve(64);
    let mut place = None;
    for token in 0..40 {
        let segment = Segment {
            kv: &mut kv,
            tokens: &[token],
            adapter: None,
            logits: Logits::Last,
        };
        model.forward(&mut scratch, &mut [segment]).unwrap();
        let here = scratch.logits(0).next().unwrap().as_ptr();
        assert_eq!(*place.get_or_insert(here), here);
    }
}

#[test]
fn what_cannot_be_computed_is_refused_and_changes_nothing() {
    let model = model(Dtype::F32, 1);
    let (mut kv, mut scratch) = (Kv::new(model.config()), Scratch::new());
    let mut run = |tokens: &[u32], adapter: Option<&Adapter>| {
        let segment = Segment {
            kv: &mut kv,
            tokens,
            adapter,
            logits: Logits::Last,
        };
        let outcome = model.forward(&mut scratch, &mut [segment]);
        assert_eq!(kv.len(), 0);
        outcome.unwrap_err()
    };
    assert!(matches!(run(&[], None), Error::EmptySequence));
    assert!(matches!(
        run(&[3, 77], None),
        Error::Token {
            token: 77,
            vocab: 77
        }
    ));
    assert!(matches!(
        run(&text(1, 257), None),
        Error::TooLong {
            tokens: 257,
            context: 256
        }
    ));
    let other = ModelConfig {
        ffn: 51,
        ..config()
    };
    let adapter = Adapter::init(&other, 2, 4.0, 1).unwrap();
    assert!(matches!(
        run(&[1], Some(&adapter)),
        Error::AdapterSetting { .. }
    ));
    assert!(Adapter::init(&other, 0, 4.0, 1).is_err());
    assert!(Adapter::init(&other, 2, f32::NAN, 1).is_err());
    let mut tape = Tape::new();
    let target = Target { row: 2, token: 0 };
    let outcome = model.train_forward(&mut tape, None, &[1, 2], &[target], 1.0);
    assert!(matches!(outcome, Err(Error::TargetRow { row: 2, rows: 2 })));
    let target = Target { row: 1, token: 0 };
    for temperature in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        assert!(
            model
                .train_forward(&mut tape, None, &[1, 2], &[target], temperature)
                .is_err()
        );
    }
    let adapter = some_adapter(2, 1);
    model
        .train_forward(&mut tape, Some(&adapter), &[1, 2], &[target], 1.0)
        .unwrap();
    let mut grads = AdapterGrads::zeros(&adapter);
    let outcome = model.backward(&mut tape, &adapter, &[1.0, 2.0], &mut grads);
    assert!(matches!(
        outcome,
        Err(Error::Gradients {
            found: 2,
            expected: 1
        })
    ));
}

#[test]
fn given_tokens_that_cannot_be_scored_are_refused_and_change_nothing() {
    let model = model(Dtype::F32, 1);
    let (mut kv, mut scratch) = (Kv::new(model.config()), Scratch::new());
    let mut given = |tokens: &[u32], temperature| {
        let segment = Segment {
            kv: &mut kv,
            tokens: &[1, 2],
            adapter: None,
            logits: Logits::Given(tokens, temperature),
        };
        let outcome = model.forward(&mut scratch, &mut [segment]);
        assert_eq!(kv.len(), 0);
        outcome.unwrap_err()
    };
    assert!(
        matches!(given(&[1], 1.0), Error::Compute(_)),
        "one is missing"
    );
    assert!(matches!(given(&[1, 77], 1.0), Error::Token { .. }));
    for temperature in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        assert!(matches!(given(&[1, 2], temperature), Error::Compute(_)));
    }
}

#[test]
fn an_adapters_digest_changes_with_every_part_of_it() {
    let adapter = some_adapter(2, 1);
    let same = Adapter::from_params(&config(), 2, 16.0, adapter.params().to_vec()).unwrap();
    assert_eq!(adapter.digest(), same.digest());
    let other = Adapter::from_params(&config(), 2, 8.0, adapter.params().to_vec()).unwrap();
    assert_ne!(adapter.digest(), other.digest());
    let mut params = adapter.params().to_vec();
    params[5] = -params[5];
    assert_ne!(
        adapter.digest(),
        adapter.with_params(params).unwrap().digest()
    );
    assert_eq!(adapter.digest().len(), 64);
}
