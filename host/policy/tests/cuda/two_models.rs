//! Two models on one GPU: a caller's buffers and gradients are each one's in turn, a sequence is one's for good.

use super::*;
use crate::alone::alone;
use kernels::cuda::Gpu;

#[test]
fn models_that_share_buffers_do_not_repeat_each_others_steps() {
    if !driver::present() {
        return;
    }
    let model = |seed| Model::random_on_gpu(config(true), seed, 0, 512, pool()).unwrap();
    let models = [model(7), model(8)];
    // A step is recorded when it comes for the second time.
    let turns = [0, 0, 0, 0, 1, 1, 1, 0, 1, 0, 1];
    let run = |scratches: &mut [Scratch]| {
        let mut kvs = [Kv::new(&config(true)), Kv::new(&config(true))];
        let step = |i: usize| {
            let scratch = &mut scratches[i % scratches.len()];
            let segment = Segment {
                kv: &mut kvs[i],
                tokens: &[5],
                adapter: None,
                logits: Logits::Last,
            };
            models[i].forward(scratch, &mut [segment]).unwrap();
            scratch.logits(0).flat_map(bits).collect::<Vec<u32>>()
        };
        turns.map(step)
    };
    let expected = run(&mut [Scratch::new(), Scratch::new()]);
    let found = run(&mut [Scratch::new()]);
    assert!(found == expected);
}

#[test]
fn a_sequence_does_not_go_on_in_another_model_unless_it_is_empty() {
    if !driver::present() {
        return;
    }
    let model = |seed| Model::random_on_gpu(config(true), seed, 0, 128, pool()).unwrap();
    let [first, second] = [model(7), model(8)];
    let mut scratch = Scratch::new();
    let mut step = |model: &Model, kv: &mut Kv, tokens: &[u32]| {
        let logits = Logits::Last;
        let segment = Segment {
            kv,
            tokens,
            adapter: None,
            logits,
        };
        model.forward(&mut scratch, &mut [segment])?;
        Ok(scratch.logits(0).flat_map(bits).collect::<Vec<u32>>())
    };
    let mut kv = Kv::new(first.config());
    step(&first, &mut kv, &[1, 2, 3]).unwrap();
    let mut copy = Kv::new(first.config());
    copy.copy_prefix_from(&kv, 2).unwrap();
    for kv in [&mut kv, &mut copy] {
        let refused = step(&second, kv, &[4]);
        assert!(matches!(refused, Err(Error::Compute(_))), "{refused:?}");
    }
    assert_eq!((kv.len(), copy.len()), (3, 2));
    drop(copy);
    kv.truncate(0).unwrap();
    let expected = step(&second, &mut Kv::new(second.config()), &[5, 6]).unwrap();
    assert!(step(&second, &mut kv, &[5, 6]).unwrap() == expected);
    // All pages of the first are free again.
    step(&first, &mut Kv::new(first.config()), &[5; 128]).unwrap();
}

#[test]
fn gradients_and_a_tape_serve_models_of_two_vocabularies_in_turn() {
    let name = "two_models::gradients_and_a_tape_serve_models_of_two_vocabularies_in_turn";
    alone(name, || {
        let wide = ModelConfig {
            vocab_size: 352,
            ..config(true)
        };
        let models = [config(true), wide]
            .map(|config| Model::random_on_gpu(config, 7, 0, 256, pool()).unwrap());
        let (adapter, tokens) = (adapter(4, 7), text(5, 12));
        let targets = next_tokens(&tokens);
        let add = |model: &Model, tape: &mut Tape, grads: &mut AdapterGrads| {
            model
                .train_forward(tape, Some(&adapter), &tokens, &targets, 1.0)
                .unwrap();
            model.backward(tape, &adapter, &[0.1; 11], grads).unwrap();
        };
        let alone = [0, 1].map(|which| {
            let mut grads = AdapterGrads::zeros(&adapter);
            add(&models[which], &mut Tape::new(), &mut grads);
            grads.values().unwrap().into_owned()
        });
        let sum: Vec<f32> = (alone[0].iter().zip(&alone[1]))
            .map(|(first, second)| 2.0 * (first + second))
            .collect();
        for shared in [false, true] {
            let mut tapes = [Tape::new(), Tape::new()];
            let mut grads = AdapterGrads::zeros(&adapter);
            for which in [0, 1, 0, 1] {
                let tape = if shared { 0 } else { which };
                add(&models[which], &mut tapes[tape], &mut grads);
            }
            let error = relative(&grads.values().unwrap(), &sum);
            assert!(error < 1e-6, "{error}, one tape: {shared}");
        }
    });
}

#[test]
fn a_callers_buffers_gradients_and_moments_do_not_keep_the_keys_and_values_of_a_model_that_is_gone()
{
    let name = "two_models::a_callers_buffers_gradients_and_moments_do_not_keep_the_keys_and_values_of_a_model_that_is_gone";
    alone(name, || {
        let gpu = Gpu::open(0).unwrap();
        let free = || gpu.memory().unwrap().0;
        let (mut scratch, mut tape, adapter) = (Scratch::new(), Tape::new(), adapter(4, 7));
        // Two layers of keys and values of 64 numbers in bf16.
        let tokens = 1 << 16;
        let pages = tokens as u64 * 2 * 2 * 64 * 2;
        let before = free();
        let model = Model::random_on_gpu(config(true), 7, 0, tokens, pool()).unwrap();
        let mut kv = Kv::new(model.config());
        let segment = Segment {
            kv: &mut kv,
            tokens: &[1, 2],
            adapter: Some(&adapter),
            logits: Logits::Last,
        };
        model.forward(&mut scratch, &mut [segment]).unwrap();
        let targets = next_tokens(&[1, 2]);
        model
            .train_forward(&mut tape, Some(&adapter), &[1, 2], &targets, 1.0)
            .unwrap();
        let mut grads = AdapterGrads::zeros(&adapter);
        model
            .backward(&mut tape, &adapter, &[0.1], &mut grads)
            .unwrap();
        let adapter = Arc::new(adapter);
        let mut trainee = Trainee::new(&model, Arc::clone(&adapter), Default::default()).unwrap();
        let settings = AdamW {
            lr: 1e-2,
            beta1: 0.9,
            beta2: 0.98,
            eps: 1e-8,
            weight_decay: 0.01,
        };
        trainee.step(&model, &settings, 1, 1.0, &grads).unwrap();
        let copy = trainee.copy().unwrap();
        assert!(before - free() >= pages);
        drop(kv);
        drop(model);
        let kept = before - free();
        assert!(kept < pages / 2, "{kept} bytes of {pages}");
        // And they are there still.
        assert!(grads.values().unwrap().iter().any(|v| *v != 0.0));
        assert_eq!(trainee.moments().unwrap(), copy.moments().unwrap());
    });
}
