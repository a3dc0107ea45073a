//! A whole model on a GPU: it computes what the CPU computes, and serving and training agree bit for bit.
//!
//! Runs on the stand-in driver (`kernels/emulator`), or with `NEXTSTATE_TEST_GPU=1` on this machine's GPU; skipped, loudly, without g++
//! unless `NEXTSTATE_REQUIRE_EMULATOR` is set.
#![expect(clippy::unwrap_used, reason = "tests")]

mod alone;
#[path = "../common/mod.rs"]
mod common;
#[path = "../../../../kernels/tests/cuda/done.rs"]
mod done;
mod driver;
mod load;
#[path = "../../../../kernels/tests/cuda/standin.rs"]
mod standin;
mod two_models;
mod wide_heads;

use common::*;
use kernels::adamw::AdamW;
use policy::{
    Adapter, AdapterGrads, Architecture, Dtype, Error, Kv, Logits, Model, ModelConfig, Pack, Pool,
    Rope, RopeScaling, Sampler, Scratch, Segment, Tape, Target, Trainee,
};
use rl::Sampling;
use std::sync::Arc;

/// The sizes are those that tensor cores take; the ratio of heads is one that small models have.
fn config(qk_norm: bool) -> ModelConfig {
    ModelConfig {
        architecture: Architecture::Qwen3,
        vocab_size: 176,
        hidden: 96,
        layers: 2,
        heads: 3,
        kv_heads: 1,
        head_dim: 64,
        ffn: 112,
        rms_eps: 1e-6,
        rope: Rope {
            theta: 10_000.0,
            scaling: RopeScaling::None,
        },
        context: 256,
        tied: true,
        qk_norm,
        attention_bias: false,
        eos: vec![1],
        bos: None,
    }
}

fn pool() -> Arc<Pool> {
    Arc::new(Pool::new(2).unwrap())
}

/// The same random weights on the GPU and on the CPU; none where nothing runs kernels.
fn models(qk_norm: bool) -> Option<(Model, Model)> {
    if !driver::present() {
        return None;
    }
    let gpu = Model::random_on_gpu(config(qk_norm), 7, 0, 2048, pool()).unwrap();
    let cpu = Model::random(config(qk_norm), 7, Dtype::Bf16, pool()).unwrap();
    Some((gpu, cpu))
}

fn text(seed: u64, len: u64) -> Vec<u32> {
    (0..len)
        .map(|i| (uniform(seed, i) * 176.0) as u32)
        .collect()
}

fn adapter(rank: usize, seed: u64) -> Adapter {
    Adapter::random(&config(true), rank, 16.0, seed).unwrap()
}

fn next_tokens(tokens: &[u32]) -> Vec<Target> {
    let pairs = tokens.windows(2).enumerate();
    pairs
        .map(|(row, pair)| Target {
            row,
            token: pair[1],
        })
        .collect()
}

fn trained(model: &Model, adapter: Option<&Adapter>, tokens: &[u32], temperature: f32) -> Vec<f32> {
    let targets = next_tokens(tokens);
    let tape = &mut Tape::new();
    model
        .train_forward(tape, adapter, tokens, &targets, temperature)
        .unwrap()
}

/// Log-probs of every next token as serving records them, from pieces of the given sizes, next to other sequences.
fn served(
    model: &Model,
    adapter: Option<&Adapter>,
    tokens: &[u32],
    temperature: f32,
    sizes: &[usize],
) -> Vec<f32> {
    let (mut kv, mut scratch) = (Kv::new(model.config()), Scratch::new());
    let mut neighbour = Kv::new(model.config());
    let other = self::adapter(20, 99);
    let mut out = Vec::new();
    for &size in sizes.iter().cycle() {
        let rest = &tokens[kv.len()..];
        if rest.is_empty() {
            break;
        }
        let piece = &rest[..size.min(rest.len())];
        let begin = kv.len();
        let own = Segment {
            kv: &mut kv,
            tokens: piece,
            adapter,
            logits: Logits::All,
        };
        let beside = Segment {
            kv: &mut neighbour,
            tokens: &[3],
            adapter: Some(&other),
            logits: Logits::Last,
        };
        model.forward(&mut scratch, &mut [beside, own]).unwrap();
        for (i, row) in scratch.logits(1).enumerate() {
            let Some(&next) = tokens.get(begin + i + 1) else {
                break;
            };
            let normalizer = model.normalizer(row, temperature).unwrap();
            out.push(normalizer.log_prob(row[next as usize]));
        }
    }
    out
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn log_probs_are_the_cpus_to_the_precision_of_bf16() {
    for qk_norm in [true, false] {
        let Some((gpu, cpu)) = models(qk_norm) else {
            return;
        };
        assert!(
            gpu.bytes() <= cpu.bytes(),
            "both hold bf16; panels are filled up"
        );
        let tokens = text(1, 77);
        for adapter in [None, Some(&adapter(5, 3))] {
            let found = trained(&gpu, adapter, &tokens, 0.8);
            let expected = trained(&cpu, adapter, &tokens, 0.8);
            let worst = found.iter().zip(&expected).map(|(f, e)| (f - e).abs());
            let worst = worst.fold(0.0, f32::max);
            assert!(worst < 0.05, "{worst}");
        }
    }
}

#[test]
fn serving_records_the_bits_that_training_computes() {
    let Some((gpu, _)) = models(true) else { return };
    let tokens = text(2, 90);
    for adapter in [None, Some(&adapter(5, 4))] {
        let expected = bits(&trained(&gpu, adapter, &tokens, 0.7));
        for sizes in [&[90][..], &[1], &[64, 1, 1, 7], &[33]] {
            let found = bits(&served(&gpu, adapter, &tokens, 0.7, sizes));
            assert!(found == expected, "{sizes:?}");
        }
    }
}

#[test]
fn tokens_that_are_given_are_scored_beside_drawn_ones_with_the_bits_of_training() {
    let Some((gpu, _)) = models(false) else {
        return;
    };
    let (tokens, own) = (text(2, 40), adapter(5, 4));
    let expected = bits(&trained(&gpu, Some(&own), &tokens, 0.7));
    let mut kvs = [(); 3].map(|()| Kv::new(gpu.config()));
    let (mut scratch, mut found) = (Scratch::new(), Vec::new());
    for piece in [0..33, 33..39] {
        let known = &tokens[piece.start + 1..=piece.end];
        let draw = Sampler::new(&Sampling::default(), 0, 176).unwrap().plain(0);
        let asked = [
            Logits::Draw(draw.unwrap()),
            Logits::Given(known, 0.7),
            Logits::Last,
        ];
        let mut batch: Vec<Segment<'_>> = (kvs.iter_mut().zip(asked))
            .map(|(kv, logits)| Segment {
                kv,
                tokens: &tokens[piece.clone()],
                adapter: Some(&own),
                logits,
            })
            .collect();
        gpu.forward(&mut scratch, &mut batch).unwrap();
        assert!(scratch.drawn(0).is_some() && scratch.given(2).is_empty());
        assert_eq!((scratch.logits(1).len(), scratch.logits(2).len()), (0, 1));
        let given = scratch.given(1);
        assert!(
            given
                .iter()
                .map(|g| g.token)
                .eq(known.iter().copied().map(Some))
        );
        found.extend(given.iter().map(|g| g.log_prob));
    }
    assert!(bits(&found) == expected);
}

/// What segment `i` goes on with: the token that was drawn for it, or, where its logits came, the one that the host draws.
fn next(
    gpu: &Model,
    scratch: &Scratch,
    i: usize,
    (mut sampler, position): (Sampler, u64),
    temperature: f32,
) -> (u32, f32) {
    let mut rows = scratch.logits(i);
    if let Some(drawn) = scratch.drawn(i) {
        assert!(rows.next().is_none());
        return (drawn.token.unwrap(), drawn.log_prob);
    }
    let row = rows.next().unwrap();
    let token = sampler.draw(row, position).unwrap();
    let normalizer = gpu.normalizer(row, temperature).unwrap();
    (token, normalizer.log_prob(row[token as usize]))
}

#[test]
fn a_token_is_drawn_there_as_the_host_draws_it_and_its_log_prob_has_the_bits_of_training() {
    let Some((gpu, _)) = models(true) else { return };
    let sampling = |temperature: f32, top_k: u32, top_p: f32, seed: u64| Sampling {
        temperature,
        top_k,
        top_p,
        seed: rl::Seed::new(seed),
        ..Sampling::default()
    };
    let settings = [
        sampling(0.0, 0, 1.0, 1),
        sampling(0.7, 0, 1.0, 2),
        sampling(1.3, 12, 1.0, 3),
        sampling(1.0, 0, 0.8, 4),
    ];
    let adapters = [None, Some(adapter(5, 3)), None, Some(adapter(2, 4))];
    let mut scratch = Scratch::new();
    let mut kvs: Vec<Kv> = (0..4).map(|_| Kv::new(gpu.config())).collect();
    let mut tokens: Vec<Vec<u32>> = (0..4).map(|i| text(20 + i, 5 + 3 * i)).collect();
    let mut recorded = vec![Vec::new(); 4];
    // Steps are repeated as they were recorded from the third on; twice a row's logits are asked for, and once a longer pass comes
    // between, for which all rows get other memory.
    for step in 0..12 {
        if step == 7 {
            let segment = Segment {
                kv: &mut Kv::new(gpu.config()),
                tokens: &text(30, 100),
                adapter: adapters[1].as_ref(),
                logits: Logits::All,
            };
            gpu.forward(&mut scratch, &mut [segment]).unwrap();
        }
        let mut asked = Vec::new();
        let samplers: Vec<Sampler> = settings
            .iter()
            .map(|s| Sampler::new(s, 0, 176).unwrap())
            .collect();
        for (i, kv) in kvs.iter_mut().enumerate() {
            let draw = samplers[i].plain(tokens[i].len() as u64).unwrap();
            let logits = match (step, i) {
                (5 | 8, 1) => Logits::Last,
                _ => Logits::Draw(draw),
            };
            let start = kv.len();
            asked.push(Segment {
                kv,
                tokens: &tokens[i][start..],
                adapter: adapters[i].as_ref(),
                logits,
            });
        }
        gpu.forward(&mut scratch, &mut asked).unwrap();
        for (i, sampler) in samplers.into_iter().enumerate() {
            let temperature = settings[i].logprob_temperature();
            let position = tokens[i].len() as u64;
            let (token, log_prob) = next(&gpu, &scratch, i, (sampler, position), temperature);
            tokens[i].push(token);
            recorded[i].push(log_prob);
        }
    }
    for i in 0..4 {
        let temperature = settings[i].logprob_temperature();
        let all = trained(&gpu, adapters[i].as_ref(), &tokens[i], temperature);
        let begin = all.len() - recorded[i].len();
        assert!(bits(&all[begin..]) == bits(&recorded[i]), "{i}");
        // Without any recorded step, and by the host.
        let (mut kv, mut scratch) = (Kv::new(gpu.config()), Scratch::new());
        let mut sampler = Sampler::new(&settings[i], 0, 176).unwrap();
        let segment = Segment {
            kv: &mut kv,
            tokens: &tokens[i],
            adapter: adapters[i].as_ref(),
            logits: Logits::All,
        };
        gpu.forward(&mut scratch, &mut [segment]).unwrap();
        for (at, row) in scratch.logits(0).enumerate().skip(begin) {
            let Some(&token) = tokens[i].get(at + 1) else {
                break;
            };
            assert_eq!(sampler.draw(row, at as u64 + 1), Some(token), "{i}, {at}");
        }
    }
}

#[test]
fn steps_keep_their_bits_while_others_adapters_are_made_ready_and_thrown_out() {
    let Some((gpu, _)) = models(true) else { return };
    let (own, tokens) = (adapter(3, 2), text(14, 24));
    let expected = bits(&trained(&gpu, Some(&own), &tokens, 1.0));
    // More than there are places for.
    let others: Vec<Adapter> = (100..166).map(|seed| adapter(1, seed)).collect();
    std::thread::scope(|scope| {
        let publisher = scope.spawn(|| others.iter().try_for_each(|other| gpu.prepare(other)));
        let found = served(&gpu, Some(&own), &tokens, 1.0, &[1]);
        assert!(bits(&found) == expected);
        publisher.join().unwrap().unwrap();
    });
    let last = others.last().unwrap();
    let before = bits(&trained(&gpu, Some(last), &tokens[..5], 1.0));
    assert!(before != bits(&trained(&gpu, Some(&own), &tokens[..5], 1.0)));
    assert!(
        gpu.prepare(&Adapter::random(&config(true), 65, 16.0, 1).unwrap())
            .is_err(),
        "its rank"
    );
}

#[test]
fn a_copied_beginning_goes_on_with_the_same_bits_and_its_source_does_not_notice() {
    let Some((gpu, _)) = models(true) else { return };
    let tokens = text(5, 150);
    let mut scratch = Scratch::new();
    let mut run = |kv: &mut Kv, tokens: &[u32]| {
        let logits = Logits::All;
        let segment = Segment {
            kv,
            tokens,
            adapter: None,
            logits,
        };
        gpu.forward(&mut scratch, &mut [segment]).unwrap();
        scratch.logits(0).flat_map(bits).collect::<Vec<u32>>()
    };
    let mut whole = Kv::new(gpu.config());
    let all = run(&mut whole, &tokens);
    let next = {
        let longer = [&tokens[..], &[9]].concat();
        run(&mut Kv::new(gpu.config()), &longer).split_off(150 * 176)
    };
    // In the middle of a page, and at its end; the copies go on differently before the source does.
    for cut in [70, 128] {
        let mut copy = Kv::new(gpu.config());
        copy.copy_prefix_from(&whole, cut).unwrap();
        assert_eq!(copy.len(), cut);
        let _ = run(&mut copy, &text(6, 40));
        // What the copy wrote is on pages of its own: the source still sees all that it saw.
        assert!(run(&mut whole, &[9]) == next, "{cut}");
        let mut again = Kv::new(gpu.config());
        again.copy_prefix_from(&whole, cut).unwrap();
        assert!(run(&mut again, &tokens[cut..]) == all[cut * 176..], "{cut}");
        whole.truncate(cut).unwrap();
        assert!(run(&mut whole, &tokens[cut..]) == all[cut * 176..], "{cut}");
    }
    assert!(whole.copy_prefix_from(&Kv::new(gpu.config()), 1).is_err());
}

#[test]
fn gradients_are_the_cpus_to_the_precision_of_bf16_and_the_same_every_time() {
    for qk_norm in [true, false] {
        let Some((gpu, cpu)) = models(qk_norm) else {
            return;
        };
        let adapter = adapter(5, 6);
        let tokens = text(3, 70);
        let targets = next_tokens(&tokens);
        let upstream: Vec<f32> = (0..targets.len())
            .map(|i| (i % 5) as f32 * 0.2 - 0.3)
            .collect();
        let run = |model: &Model, tape: &mut Tape| {
            let mut grads = AdapterGrads::zeros(&adapter);
            model
                .train_forward(tape, Some(&adapter), &tokens, &targets, 0.9)
                .unwrap();
            model
                .backward(tape, &adapter, &upstream, &mut grads)
                .unwrap();
            grads.values().unwrap().to_vec()
        };
        let expected = run(&cpu, &mut Tape::new());
        let found = run(&gpu, &mut Tape::new());
        let error = relative(&found, &expected);
        assert!(error < 0.02, "{error}");
        // Kept or computed again, and on buffers that hold more than is asked for.
        let mut used = Tape::with_budget(0);
        trained_long(&gpu, &mut used, &adapter);
        assert!(bits(&run(&gpu, &mut used)) == bits(&found));
    }
}

/// Gradients of a few sequences in one pack or in several.
fn gradients(model: &Model, tape: &mut Tape, adapter: &Adapter, packs: &[&[u64]]) -> AdapterGrads {
    let mut grads = AdapterGrads::zeros(adapter);
    for seeds in packs {
        let mut pack = Pack::default();
        for &seed in *seeds {
            let tokens = text(seed, 20 + seed);
            pack.push(&tokens, &next_tokens(&tokens)).unwrap();
        }
        model.train_pack(tape, Some(adapter), &pack, 1.0).unwrap();
        let upstream: Vec<f32> = (0..pack.targets().len())
            .map(|i| (i % 5) as f32 * 0.2 - 0.3)
            .collect();
        model
            .backward(tape, adapter, &upstream, &mut grads)
            .unwrap();
    }
    grads
}

#[test]
fn gradients_stay_on_the_gpu_from_pass_to_pass_and_are_cleared_there() {
    let Some((gpu, cpu)) = models(true) else {
        return;
    };
    let adapter = adapter(4, 9);
    let mut tape = Tape::new();
    let packs: [&[u64]; 2] = [&[1, 30, 5], &[40]];
    let mut grads = gradients(&gpu, &mut tape, &adapter, &packs);
    let sum = grads.values().unwrap().into_owned();
    let expected = gradients(&cpu, &mut Tape::new(), &adapter, &packs);
    let error = relative(&sum, &expected.values().unwrap());
    assert!(error < 0.02, "{error}");
    let (norm, of) = (
        grads.norm(&pool()).unwrap(),
        expected.norm(&pool()).unwrap(),
    );
    assert!((norm / of - 1.0).abs() < 0.01, "{norm}, {of}");
    grads.clear();
    assert!(grads.values().unwrap().iter().all(|v| *v == 0.0));
    assert!(grads.norm(&pool()).unwrap() == 0.0);
    // Whatever the tape and the gradients held before.
    let again = gradients(&gpu, &mut tape, &adapter, &packs);
    assert!(bits(&again.values().unwrap()) == bits(&sum));
    // What has come to a GPU goes on on a CPU.
    let tokens = text(3, 9);
    let targets = next_tokens(&tokens);
    let (mut both, mut alone) = (again, AdapterGrads::zeros(&adapter));
    for grads in [&mut both, &mut alone] {
        let mut tape = Tape::new();
        cpu.train_forward(&mut tape, Some(&adapter), &tokens, &targets, 1.0)
            .unwrap();
        cpu.backward(&mut tape, &adapter, &[0.5; 8], grads).unwrap();
    }
    let alone = alone.values().unwrap();
    let sum: Vec<f32> = alone.iter().zip(&sum).map(|(a, b)| a + b).collect();
    assert!(relative(&both.values().unwrap(), &sum) < 1e-6);
}

#[test]
fn an_optimizers_step_has_the_cpus_bits() {
    let Some((gpu, cpu)) = models(true) else {
        return;
    };
    let settings = AdamW {
        lr: 1e-2,
        beta1: 0.9,
        beta2: 0.98,
        eps: 1e-8,
        weight_decay: 0.01,
    };
    let adapter = Arc::new(adapter(4, 9));
    let mut tape = Tape::new();
    let grads = gradients(&gpu, &mut tape, &adapter, &[&[7]]);
    let mut on_host = AdapterGrads::zeros(&adapter);
    let start = |model| Trainee::new(model, Arc::clone(&adapter), Default::default()).unwrap();
    let (mut here, mut there) = (start(&cpu), start(&gpu));
    for step in 1..4 {
        let before = there.copy().unwrap();
        there.step(&gpu, &settings, step, 0.7, &grads).unwrap();
        here.step(&cpu, &settings, step, 0.7, &grads).unwrap();
        let params = |t: &Trainee| bits(t.adapter().params());
        assert!(params(&there) == params(&here), "step {step}");
        assert!(there.adapter().digest() == here.adapter().digest());
        let [first, second] = there.moments().unwrap();
        let [also_first, also_second] = here.moments().unwrap();
        assert!(bits(&first) == bits(&also_first) && bits(&second) == bits(&also_second));
        // The copy has not moved, and moves in the same way.
        let mut copy = before;
        assert!(params(&copy) != params(&there));
        copy.step(&gpu, &settings, step, 0.7, &grads).unwrap();
        assert!(params(&copy) == params(&there));
        // The new parameters compute on both.
        let tokens = text(step, 12);
        let found = trained(&gpu, Some(there.adapter()), &tokens, 1.0);
        let expected = trained(&cpu, Some(there.adapter()), &tokens, 1.0);
        assert!(relative(&found, &expected) < 0.02);
    }
    // Gradients that are zeros, on the host.
    on_host.clear();
    there.step(&gpu, &settings, 4, 1.0, &on_host).unwrap();
    here.step(&cpu, &settings, 4, 1.0, &on_host).unwrap();
    assert!(bits(there.adapter().params()) == bits(here.adapter().params()));
    assert!(
        there.step(&gpu, &settings, 0, 1.0, &grads).is_err(),
        "steps count from 1"
    );
    let short = vec![0.0; 3];
    assert!(Trainee::new(&gpu, adapter, [short.clone(), short]).is_err());
}

fn trained_long(model: &Model, tape: &mut Tape, adapter: &Adapter) {
    let tokens = text(8, 100);
    let targets = next_tokens(&tokens);
    model
        .train_forward(tape, Some(adapter), &tokens, &targets, 1.0)
        .unwrap();
}

#[test]
fn a_pack_is_trained_as_its_sequences_are() {
    let Some((gpu, _)) = models(true) else { return };
    let adapter = adapter(4, 7);
    // A page is shared, and the rest of the beginning is there for each.
    let (prompt, mut pack) = (text(10, 75), Pack::default());
    let mut alone = Vec::new();
    for seed in [11, 12] {
        let tokens = [prompt.clone(), text(seed, 15)].concat();
        pack.push(&tokens, &next_tokens(&tokens)).unwrap();
        alone.extend(trained(&gpu, Some(&adapter), &tokens, 1.0));
    }
    let together = gpu
        .train_pack(&mut Tape::new(), Some(&adapter), &pack, 1.0)
        .unwrap();
    assert!(bits(&together) == bits(&alone));
}

/// Attempts at one task: what they share is longer than a page of keys, and ends in the middle of one.
#[test]
fn the_gradients_of_a_pack_are_the_sums_of_its_sequences() {
    let Some((gpu, cpu)) = models(true) else {
        return;
    };
    let adapter = adapter(4, 8);
    let (prompt, mut pack) = (text(14, 150), Pack::default());
    let mut sequences = Vec::new();
    for seed in [15, 16, 17] {
        let tokens = [prompt.clone(), text(seed, 12 + seed)].concat();
        // The response, and some of what is shared.
        let targets: Vec<Target> = next_tokens(&tokens)[100..].to_vec();
        pack.push(&tokens, &targets).unwrap();
        sequences.push((tokens, targets));
    }
    let slope = |i: usize| (i % 7) as f32 * 0.1 - 0.25;
    let upstream: Vec<f32> = (0..sequences.iter().map(|(_, t)| t.len()).sum())
        .map(slope)
        .collect();
    let together = |model: &Model| {
        let (mut tape, mut grads) = (Tape::new(), AdapterGrads::zeros(&adapter));
        model
            .train_pack(&mut tape, Some(&adapter), &pack, 1.0)
            .unwrap();
        model
            .backward(&mut tape, &adapter, &upstream, &mut grads)
            .unwrap();
        grads.values().unwrap().into_owned()
    };
    let mut alone = AdapterGrads::zeros(&adapter);
    let mut rest = &upstream[..];
    for (tokens, targets) in &sequences {
        let (mut tape, own) = (Tape::new(), rest.split_at(targets.len()));
        gpu.train_forward(&mut tape, Some(&adapter), tokens, targets, 1.0)
            .unwrap();
        gpu.backward(&mut tape, &adapter, own.0, &mut alone)
            .unwrap();
        rest = own.1;
    }
    let found = together(&gpu);
    let error = relative(&found, &alone.values().unwrap());
    assert!(error < 0.01, "against each alone: {error}");
    let error = relative(&found, &together(&cpu));
    assert!(error < 0.02, "against the CPU: {error}");
    assert!(bits(&together(&gpu)) == bits(&found));
}

#[test]
fn an_adapter_that_changed_is_another_and_many_come_and_go() {
    let Some((gpu, _)) = models(true) else { return };
    let tokens = text(13, 20);
    let first = adapter(2, 1);
    let before = bits(&trained(&gpu, Some(&first), &tokens, 1.0));
    let mut changed = first.clone();
    changed.update(|params| params.iter_mut().for_each(|p| *p *= 1.5));
    assert!(bits(&trained(&gpu, Some(&changed), &tokens, 1.0)) != before);
    // More than there are places for: the first is thrown out, and comes back.
    for seed in 2..70 {
        trained(&gpu, Some(&adapter(1, seed)), &tokens[..3], 1.0);
    }
    assert!(bits(&trained(&gpu, Some(&first), &tokens, 1.0)) == before);
}

#[test]
fn what_a_gpu_cannot_do_is_refused() {
    let Some((gpu, cpu)) = models(true) else {
        return;
    };
    let small = ModelConfig {
        head_dim: 32,
        ..config(true)
    };
    let refused = Model::random_on_gpu(small, 1, 0, 64, pool()).unwrap_err();
    assert!(format!("{refused:?}").contains("head_dim"), "{refused:?}");
    assert!(
        Model::random_on_gpu(config(true), 1, 5, 64, pool()).is_err(),
        "no such GPU"
    );
    // A sequence that began on the CPU does not go on here.
    let mut kv = Kv::new(cpu.config());
    let mut scratch = Scratch::new();
    let mut step = |model: &Model, kv: &mut Kv, tokens: &[u32]| {
        let logits = Logits::Last;
        let segment = Segment {
            kv,
            tokens,
            adapter: None,
            logits,
        };
        model.forward(&mut scratch, &mut [segment])
    };
    step(&cpu, &mut kv, &[1, 2, 3]).unwrap();
    assert!(matches!(step(&gpu, &mut kv, &[4]), Err(Error::Compute(_))));
    // More than the pages hold.
    let scarce = Model::random_on_gpu(config(true), 1, 0, 64, pool()).unwrap();
    let mut kv = Kv::new(scarce.config());
    step(&scarce, &mut kv, &[5; 60]).unwrap();
    assert!(step(&scarce, &mut kv, &[5; 10]).is_err());
    assert_eq!(kv.len(), 60);
    drop(kv);
    step(&scarce, &mut Kv::new(scarce.config()), &[5; 64]).unwrap();
    let too_large = adapter(65, 1);
    let mut tape = Tape::new();
    let outcome = gpu.train_forward(&mut tape, Some(&too_large), &[1, 2], &[], 1.0);
    assert!(outcome.is_err(), "its rank");
}
