//! Tokens per second of a real model: `cargo bench -p policy --bench model -- PATH [THREADS [bf16|f32|q8|bf16-pairs [decode|adapters|sample|prefill|train]]]`.
//!
//! PATH is a GGUF file or a Hugging Face folder; weights are bf16 in memory unless told otherwise. Reports the median of several runs: decoding in
//! batches of 1, 8 and 32, without, with one and with eight adapters of rank 16; a prompt of 256 tokens; LoRA training steps of 4 × 256
//! tokens, AdamW included. Other processes on the machine make the figures worse, never better.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints"
)]

use kernels::adamw::AdamW;
use policy::{
    Adapter, AdapterGrads, Checkpoint, Dtype, Kv, Logits, Model, Pool, Sampler, Scratch, Segment,
    Tape, Target, Trainee,
};
use rl::Sampling;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

fn median(runs: usize, mut run: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..runs)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[runs / 2]
}

fn text(len: usize) -> Vec<u32> {
    (0..len)
        .map(|i| u32::try_from(1000 + i * 7919 % 30_000).unwrap())
        .collect()
}

fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    let Some(path) = arguments.first() else {
        println!("give the path of a model");
        return;
    };
    let threads = arguments
        .get(1)
        .map_or_else(Pool::default_threads, |t| t.parse().unwrap());
    let dtype = match arguments.get(2).map(String::as_str) {
        None | Some("bf16") => Dtype::Bf16,
        Some("f32") => Dtype::F32,
        Some("q8") => Dtype::Q8,
        Some("bf16-pairs") => Dtype::Bf16Pairs,
        Some(other) => {
            println!("{other} is none of bf16, f32, q8, bf16-pairs");
            return;
        }
    };
    let pool = Arc::new(Pool::new(threads).unwrap());
    let start = Instant::now();
    let checkpoint = Checkpoint::open(Path::new(path)).unwrap();
    let model = Model::load(&checkpoint, dtype, pool).unwrap();
    let loaded = start.elapsed().as_secs_f64();
    println!(
        "{:?}, {dtype:?}; loaded in {loaded:.1} s, {} MB",
        model.pool(),
        model.bytes() >> 20
    );
    let adapter = Adapter::init(model.config(), 16, 32.0, 1).unwrap();
    let only = arguments.get(3).map(String::as_str);
    let asked = |part| only.is_none_or(|only| only == part);
    let random = |seed| Adapter::random(model.config(), 16, 32.0, seed).unwrap();
    let eight: Vec<Adapter> = (0..8).map(random).collect();
    for batch in [1, 8, 32] {
        if asked("decode") {
            decode(&model, batch, &[]);
            decode(&model, batch, std::slice::from_ref(&adapter));
        }
    }
    if asked("decode") || asked("adapters") {
        decode(&model, 32, &eight);
    }
    drop(eight);
    if asked("sample") {
        sample(&model);
    }
    if asked("prefill") {
        prefill(&model);
    }
    if asked("train") {
        train(&model, adapter);
    }
}

/// Steps after a prompt of 32 tokens, of sequences among which adapters are dealt out.
fn decode(model: &Model, batch: usize, adapters: &[Adapter]) {
    let adapter = |at: usize| adapters.get(at % adapters.len().max(1));
    let (mut scratch, prompt) = (Scratch::new(), text(32));
    let mut kvs: Vec<Kv> = (0..batch).map(|_| Kv::new(model.config())).collect();
    for (at, kv) in kvs.iter_mut().enumerate() {
        kv.reserve(128);
        let segment = Segment {
            kv,
            tokens: &prompt,
            adapter: adapter(at),
            logits: Logits::None,
        };
        model.forward(&mut scratch, &mut [segment]).unwrap();
    }
    let step = median(20, || {
        let segment = |(at, kv)| Segment {
            kv,
            tokens: &[1234],
            adapter: adapter(at),
            logits: Logits::Last,
        };
        let mut segments: Vec<Segment<'_>> = kvs.iter_mut().enumerate().map(segment).collect();
        model.forward(&mut scratch, &mut segments).unwrap();
    });
    println!(
        "decode, batch {batch:2}, {} adapters: {:7.1} tok/s",
        adapters.len(),
        batch as f64 / step
    );
}

/// What becomes of a row of logits: a token and its log-prob.
fn sample(model: &Model) {
    let vocab = model.config().vocab_size;
    let logits: Vec<f32> = (0..vocab)
        .map(|i| (i * 7919 % 1000) as f32 / 80.0)
        .collect();
    let plain = Sampling {
        temperature: 1.0,
        ..Sampling::default()
    };
    let nucleus = Sampling {
        top_p: 0.9,
        ..plain.clone()
    };
    let greedy = Sampling {
        temperature: 0.0,
        ..plain.clone()
    };
    for (what, sampling) in [
        ("greedy", greedy),
        ("temperature 1", plain),
        ("top-p 0.9", nucleus),
    ] {
        let mut sampler = Sampler::new(&sampling, 0, vocab).unwrap();
        let mut position = 0;
        let time = median(200, || {
            position += 1;
            let normalizer = model.normalizer(&logits, sampling.temperature).unwrap();
            let token = sampler.draw(&logits, position).unwrap();
            std::hint::black_box(normalizer.log_prob(logits[token as usize]));
        });
        println!("a token, {what:13}: {:7.1} µs", 1e6 * time);
    }
}

fn prefill(model: &Model) {
    let (mut scratch, prompt) = (Scratch::new(), text(256));
    let time = median(5, || {
        let mut kv = Kv::new(model.config());
        let segment = Segment {
            kv: &mut kv,
            tokens: &prompt,
            adapter: None,
            logits: Logits::Last,
        };
        model.forward(&mut scratch, &mut [segment]).unwrap();
    });
    println!("prefill of 256        : {:7.1} tok/s", 256.0 / time);
}

fn train(model: &Model, adapter: Adapter) {
    let tokens = text(256);
    let targets: Vec<Target> = (0..255)
        .map(|row| Target {
            row,
            token: tokens[row + 1],
        })
        .collect();
    let upstream = vec![-1.0 / 1020.0; 255];
    let settings = AdamW {
        lr: 1e-4,
        beta1: 0.9,
        beta2: 0.98,
        eps: 1e-8,
        weight_decay: 0.0,
    };
    let (mut tape, mut grads) = (Tape::new(), AdapterGrads::zeros(&adapter));
    let mut trainee = Trainee::new(model, Arc::new(adapter), Default::default()).unwrap();
    let (mut forward, mut backward, mut optimizer, mut step) = (0.0, 0.0, 0.0, 0);
    let time = median(3, || {
        grads.clear();
        for _ in 0..4 {
            let start = Instant::now();
            model
                .train_forward(&mut tape, Some(trainee.adapter()), &tokens, &targets, 1.0)
                .unwrap();
            forward += start.elapsed().as_secs_f64();
            let start = Instant::now();
            model
                .backward(&mut tape, trainee.adapter(), &upstream, &mut grads)
                .unwrap();
            backward += start.elapsed().as_secs_f64();
        }
        let start = Instant::now();
        step += 1;
        let scale = (1.0 / grads.norm(model.pool()).unwrap()).min(1.0) as f32;
        trainee.step(model, &settings, step, scale, &grads).unwrap();
        optimizer += start.elapsed().as_secs_f64();
    });
    println!("train, 4 x 256        : {:7.1} tok/s", 1024.0 / time);
    let all = forward + backward + optimizer;
    let [f, b, o] = [forward, backward, optimizer].map(|part| 100.0 * part / all);
    println!("  of it forward {f:.0} %, backward {b:.0} %, AdamW {o:.0} %");
}
