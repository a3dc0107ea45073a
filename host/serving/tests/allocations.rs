//! What the engine allocates for a token in steady state: counted, for the whole process.
//!
//! A token's text is a string of its own, since it leaves the engine's thread, and keys and values grow by a block every 32 tokens.
//! There must be nothing else, however many sequences there are and whichever adapters they use.
#![expect(
    unsafe_code,
    reason = "an allocator that counts is an allocator; everything else is the system's"
)]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
#![expect(clippy::print_stdout, reason = "the figures")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;
use policy::{
    Adapter, ChatTemplate, Deployed, Kv, Logits, Model, Pool, Sampler, Scratch, Segment, Slot,
};
use prometheus_client::registry::Registry;
use rl::{AdapterName, PolicyVersion, Sampling, Seed, TenantId, Weights};
use serving::engine::{Config, Engine, Event, Parts, Priority, Running, SampleJob, TokenStream};

#[path = "common/tiny.rs"]
mod tiny;

/// More bytes than any piece of text here.
const LARGE: usize = 200;

struct Counting;

static SMALL: AtomicUsize = AtomicUsize::new(0);
static BIG: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is the system allocator's own; counting touches no memory but two atomics.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let count = if layout.size() < LARGE { &SMALL } else { &BIG };
        count.fetch_add(1, Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn counts() -> (usize, usize) {
    (SMALL.load(Relaxed), BIG.load(Relaxed))
}

fn adapter(model: &Model, rank: usize) -> Adapter {
    Adapter::random(model.config(), rank, 8.0, rank as u64).unwrap()
}

fn sampling(seed: u64, tokens: u32) -> Sampling {
    Sampling {
        // Nearly flat, so that a reply does not end by itself.
        temperature: 3.0,
        top_p: 0.9,
        top_k: 50,
        repetition_penalty: 1.1,
        logit_bias: vec![(tiny::END, f32::NEG_INFINITY)],
        max_tokens: tokens,
        seed: Seed::new(seed),
        ..Sampling::default()
    }
}

fn start(model: &Arc<Model>, names: &[&str]) -> Running {
    let slot = |rank| {
        Arc::new(Slot::new(Deployed {
            version: PolicyVersion::new(1),
            adapter: Some(Arc::new(adapter(model, rank))),
        }))
    };
    let names = names.iter().map(|name| AdapterName::new(*name));
    let adapters: BTreeMap<_, _> = names.zip((2..).map(slot)).collect();
    let parts = Parts {
        name: "tiny".into(),
        model: Arc::clone(model),
        tokenizer: Arc::new(tiny::tokenizer()),
        template: Arc::new(ChatTemplate::chatml()),
        adapters,
    };
    let registry = Arc::new(Mutex::new(Registry::default()));
    Engine::build(Config::default(), parts, &registry)
        .unwrap()
        .start()
        .unwrap()
}

fn hear(stream: &mut TokenStream, tokens: usize) {
    let mut heard = 0;
    while heard < tokens {
        match stream.blocking_next().expect("it goes on") {
            Event::Token(_) => heard += 1,
            Event::Started(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

// One test: the counts are the process's.
#[test]
fn a_token_costs_its_text_and_a_share_of_a_block_of_keys_and_values_and_the_model_allocates_nothing()
 {
    let model = tiny::random_model();
    the_model_and_the_sampler_allocate_nothing(&model);

    const STREAMS: usize = 4;
    const TOKENS: usize = 192;
    let running = start(&model, &["a", "b"]);
    let handle = running.handle();
    let mut streams: Vec<TokenStream> = (0..STREAMS)
        .map(|i| {
            let tenant = TenantId::new("somebody");
            let permit = handle.reserve(Priority::User, &tenant).unwrap();
            permit.submit(SampleJob {
                weights: match ["a", "b"].get(i) {
                    Some(name) => Weights::Adapter(AdapterName::new(*name)),
                    None => Weights::Base,
                },
                bucket: 0,
                prompt: (10..40).collect(),
                sampling: sampling(i as u64, 2048),
                top_logprobs: 0,
            })
        })
        .collect();
    streams.iter_mut().for_each(|stream| hear(stream, TOKENS));
    // What the engine sampled, not what was heard: it may be ahead of its listeners.
    let sampled = || handle.stats().sampled_tokens;
    let (before, first) = (counts(), sampled());
    streams.iter_mut().for_each(|stream| hear(stream, TOKENS));
    let (after, last) = (counts(), sampled());
    let (small, big) = (after.0 - before.0, after.1 - before.1);
    let tokens = last - first;
    let each = |count: usize| count as f64 / tokens as f64;
    println!(
        "a token: {:.2} small allocations, {:.3} large ones",
        each(small),
        each(big)
    );
    // Its text, of tokens that show one, with room for a step between the two readings.
    assert!(
        each(small) <= 1.05,
        "{small} small ones for {tokens} tokens"
    );
    // A block of keys and values, and one of the channel, for 32 tokens each; the list of tokens doubles now and then.
    assert!(
        each(big) <= 3.0 / 32.0,
        "{big} large ones for {tokens} tokens"
    );
    drop(streams);
    running.shutdown().unwrap();
}

/// The same positions again and again: what the first rounds allocate stays.
fn the_model_and_the_sampler_allocate_nothing(model: &Model) {
    // One thread: when another meets a kind of work for the first time is the system's choice.
    let model = &model.on(Arc::new(Pool::new(1).unwrap()));
    let adapters = [adapter(model, 2), adapter(model, 5)];
    let mut scratch = Scratch::new();
    let mut kvs: Vec<Kv> = (0..4).map(|_| Kv::new(model.config())).collect();
    let mut samplers: Vec<Sampler> = (0..4)
        .map(|i| Sampler::new(&sampling(i, 64), 0, tiny::VOCAB).unwrap())
        .collect();
    kvs.iter_mut().for_each(|kv| kv.reserve(128));
    let mut last = [[1_u32]; 4];
    let mut before = (0, 0);
    for step in 0..200_u64 {
        if step == 100 {
            before = counts();
            kvs.iter_mut().for_each(|kv| kv.truncate(0).unwrap());
        }
        let [a, b, c, d] = &mut kvs[..] else {
            panic!("four")
        };
        let mut segments = [(a, 0), (b, 1), (c, 2), (d, 3)].map(|(kv, i)| Segment {
            kv,
            tokens: &last[i],
            adapter: adapters.get(i),
            logits: Logits::Last,
        });
        model.forward(&mut scratch, &mut segments).unwrap();
        for (i, sampler) in samplers.iter_mut().enumerate() {
            let logits = scratch.logits(i).next().unwrap();
            model.normalizer(logits, 1.0).unwrap();
            let drawn = sampler.draw(logits, step).unwrap();
            sampler.observe(drawn);
            last[i] = [drawn];
        }
    }
    assert_eq!(
        counts(),
        before,
        "100 steps of four sequences allocate nothing"
    );
}
