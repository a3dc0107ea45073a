//! A property: whatever shares the engine with a request, the log-probs that it records are those of training, bit for bit.
//!
//! How weights are stored, arrivals, prompts, pieces of prompts, places, the prefix cache's size, adapters of several ranks, priorities,
//! temperatures and threads are drawn; training runs on another number of threads than serving.

use std::collections::BTreeMap;
use std::sync::Arc;

use policy::{Adapter, Deployed, Dtype, Model, Pool, Slot, Tape, Target};
use proptest::prelude::*;
use rl::{AdapterName, PolicyVersion, ScoreRequest, TokenId, Weights};

use super::{Bench, Config, Heard, Listener, Priority, SampleJob, job, prompt, tiny};

/// What a configuration's `dtype` may say.
const DTYPES: [Dtype; 4] = [Dtype::Bf16, Dtype::F32, Dtype::Q8, Dtype::Bf16Pairs];
/// Ranks of the adapters that are side by side.
const RANKS: [usize; 3] = [1, 5, 16];
/// Beginnings that prompts share, as conversations share a system prompt.
const BEGINNING: u64 = 40;

#[derive(Clone, Debug)]
struct Ask {
    /// Steps that the engine takes before it comes.
    after: usize,
    /// 0 is the base.
    adapter: usize,
    begins_alike: bool,
    length: u64,
    reply: u32,
    temperature: f32,
    top_p: f32,
    user: bool,
}

#[derive(Clone, Debug)]
struct Day {
    dtype: Dtype,
    asks: Vec<Ask>,
    prefill_rows: usize,
    max_sequences: usize,
    prefix_bytes: u64,
    threads: usize,
    trained_on: usize,
}

fn ask() -> impl Strategy<Value = Ask> {
    let temperature = prop_oneof![Just(0.0f32), Just(0.7), Just(1.0), Just(1.3)];
    let top_p = prop_oneof![Just(1.0f32), Just(0.8)];
    (
        0..4usize,
        0..=RANKS.len(),
        any::<bool>(),
        1..160u64,
        1..10u32,
        temperature,
        top_p,
        any::<bool>(),
    )
        .prop_map(
            |(after, adapter, begins_alike, length, reply, temperature, top_p, user)| Ask {
                after,
                adapter,
                begins_alike,
                length,
                reply,
                temperature,
                top_p,
                user,
            },
        )
}

fn day() -> impl Strategy<Value = Day> {
    let threads = || prop_oneof![Just(1usize), Just(2), Just(4)];
    (
        prop::sample::select(DTYPES.to_vec()),
        prop::collection::vec(ask(), 1..10),
        1..150usize,
        1..9usize,
        // None, room for a few, room for all.
        prop_oneof![Just(0u64), Just(64 << 10), Just(256 << 20)],
        threads(),
        threads(),
    )
        .prop_map(
            |(dtype, asks, prefill_rows, max_sequences, prefix_bytes, threads, trained_on)| Day {
                dtype,
                asks,
                prefill_rows,
                max_sequences,
                prefix_bytes,
                threads,
                trained_on,
            },
        )
}

fn adapters(model: &Model) -> Vec<Arc<Adapter>> {
    RANKS
        .map(|rank| Adapter::random(model.config(), rank, 2.0 * rank as f32, rank as u64))
        .map(|adapter| Arc::new(adapter.unwrap()))
        .into()
}

fn name(adapter: usize) -> AdapterName {
    format!("rank-{}", RANKS[adapter]).as_str().into()
}

fn wanted(ask: &Ask, seed: u64) -> SampleJob {
    let mut tokens = if ask.begins_alike {
        prompt(99, BEGINNING)
    } else {
        Vec::new()
    };
    tokens.extend(prompt(seed, ask.length));
    let weights = match ask.adapter.checked_sub(1) {
        None => Weights::Base,
        Some(adapter) => Weights::Adapter(name(adapter)),
    };
    let mut job = job(weights, tokens, ask.reply, seed);
    job.sampling.temperature = ask.temperature;
    job.sampling.top_p = ask.top_p;
    job
}

/// What training computes for a reply.
fn trained(
    model: &Model,
    adapter: Option<&Adapter>,
    job: &SampleJob,
    reply: &[TokenId],
) -> Vec<u32> {
    let mut tokens = job.prompt.clone();
    tokens.extend(reply);
    let targets: Vec<Target> = (job.prompt.len() - 1..)
        .zip(reply)
        .map(|(row, &token)| Target { row, token })
        .collect();
    let temperature = job.sampling.logprob_temperature();
    let logprobs = model.train_forward(&mut Tape::new(), adapter, &tokens, &targets, temperature);
    bits(&logprobs.unwrap())
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|number| number.to_bits()).collect()
}

/// Lets a day pass; each request with what it heard, and the prompt tokens that were copied.
fn pass(bench: &mut Bench, day: &Day) -> Vec<(SampleJob, Heard)> {
    let mut running: Vec<(SampleJob, Listener)> = Vec::new();
    for (ask, seed) in day.asks.iter().zip(0..) {
        // An idle engine would wait for work.
        let busy = |bench: &Bench| bench.handle.stats().live > 0;
        for _ in 0..ask.after {
            if busy(bench) {
                bench.worker.turn();
            }
        }
        let job = wanted(ask, seed);
        let priority = if ask.user {
            Priority::User
        } else {
            Priority::Loop
        };
        running.push((job.clone(), bench.sample_as(priority, job)));
    }
    running
        .into_iter()
        .map(|(job, mut listener)| (job, bench.finish(&mut listener).0))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(40) })]

    #[test]
    fn what_is_recorded_is_what_training_computes_whatever_the_engine_does_beside(day in day()) {
        let on = |threads| tiny::random_model_in(day.dtype).on(Arc::new(Pool::new(threads).unwrap()));
        let (serves, trains) = (Arc::new(on(day.threads)), on(day.trained_on));
        let adapters = adapters(&serves);
        let slots: BTreeMap<_, _> = adapters
            .iter()
            .enumerate()
            .map(|(index, adapter)| {
                let version = PolicyVersion::new(index as u64 + 1);
                let adapter = Some(Arc::clone(adapter));
                (name(index), Arc::new(Slot::new(Deployed { version, adapter })))
            })
            .collect();
        let config = Config {
            prefill_rows: day.prefill_rows,
            max_sequences: day.max_sequences,
            max_loop_sequences: day.max_sequences,
            prefix_bytes: day.prefix_bytes,
            ..Config::default()
        };
        let mut bench = Bench::with(config, serves, slots);
        // The second time, what was kept of the first is there.
        for _ in 0..2 {
            let heard = pass(&mut bench, &day);
            for (ask, (job, heard)) in day.asks.iter().zip(&heard) {
                let adapter = ask.adapter.checked_sub(1).map(|index| &*adapters[index]);
                let reply = heard.ids();
                prop_assert_eq!(reply.len(), ask.reply as usize);
                let digest = adapter.map_or(String::new(), Adapter::digest);
                prop_assert_eq!(&*heard.started.as_ref().unwrap().adapter_digest, digest);
                let recorded: Vec<u32> = heard.bits().iter().map(|(_, bits)| *bits).collect();
                prop_assert_eq!(&recorded, &trained(&trains, adapter, job, &reply));
                let scored = score(&mut bench, job, reply);
                prop_assert_eq!(&recorded, &scored);
            }
        }
        let copied = bench.handle.stats().reused_tokens > 0;
        // A second time finds at least a prompt of its own length again.
        let long = day.asks.iter().any(|ask| ask.begins_alike);
        prop_assert!(copied || day.prefix_bytes < 256 << 20 || !long);
    }
}

fn score(bench: &mut Bench, job: &SampleJob, reply: Vec<TokenId>) -> Vec<u32> {
    let mut answer = bench.score(ScoreRequest {
        weights: job.weights.clone(),
        prompt: job.prompt.clone(),
        continuations: vec![reply],
        temperature: job.sampling.logprob_temperature(),
    });
    loop {
        bench.worker.turn();
        if let Ok(scores) = answer.try_recv() {
            return bits(&scores.unwrap()[0]);
        }
    }
}
