//! The plan of a host's memory against what is really allocated, by a model large enough that odds and ends do not matter.
#![expect(
    unsafe_code,
    reason = "an allocator that counts is an allocator; everything else is the system's"
)]
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::print_stdout, reason = "the figures")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use app::config::{Config, Dtype};
use app::memory::{Facts, parts};
use policy::{
    Adapter, Architecture, Deployed, Kv, Logits, Model, ModelConfig, Pool, Rope, RopeScaling,
    Scratch, Segment, Slot,
};
use rl::{Batch, Learner as _, PolicyVersion, Sample, SampleId, Seed};
use trainer::influence::{reply_gradient, sample_gradient};
use trainer::{LoraLearner, Workspace};

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is the system allocator's own; counting touches no memory but two atomics.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(counted(layout), Relaxed) + counted(layout);
        PEAK.fetch_max(live, Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(counted(layout), Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

/// The blocks in which weights lie side by side take addresses, and memory only as far as they are filled: [`Model::bytes`] knows how far. An
/// adapter fills the pages that it has, and so does what a pass goes through, which is not rounded to whole pages.
fn counted(layout: Layout) -> usize {
    let whole = layout.size().is_multiple_of(2 << 20);
    if layout.align() == 2 << 20 && layout.size() >= 64 << 20 && whole {
        0
    } else {
        layout.size()
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What `make` leaves allocated, and the most that it held meanwhile, in bytes.
fn measured<T>(make: impl FnOnce() -> T) -> (T, u64, u64) {
    let before = LIVE.load(Relaxed);
    PEAK.store(before, Relaxed);
    let made = make();
    let (after, peak) = (LIVE.load(Relaxed), PEAK.load(Relaxed));
    (
        made,
        after.saturating_sub(before) as u64,
        (peak - before) as u64,
    )
}

/// What two threads keep for themselves to compute in, and small lists: the plan has them in the rest of the program.
const THREADS: u64 = 4 << 20;

/// Counted is planned, but for `percent` of it less, and `slack` more.
fn near(what: &str, planned: u64, counted: u64, percent: u64, slack: u64) {
    println!("{what}: planned {planned}, counted {counted}");
    assert!(
        counted <= planned + slack,
        "{what}: planned {planned}, counted {counted}"
    );
    let least = planned - planned * percent / 100;
    assert!(
        counted >= least,
        "{what}: planned {planned}, counted {counted}"
    );
}

fn shape(qk_norm: bool, tied: bool) -> ModelConfig {
    ModelConfig {
        architecture: if qk_norm {
            Architecture::Qwen3
        } else {
            Architecture::Llama
        },
        vocab_size: 4100,
        hidden: 96,
        layers: 3,
        heads: 6,
        kv_heads: 2,
        head_dim: 32,
        ffn: 200,
        rms_eps: 1e-5,
        rope: Rope {
            theta: 1e4,
            scaling: RopeScaling::None,
        },
        context: 2100,
        tied,
        qk_norm,
        attention_bias: false,
        eos: vec![2],
        bos: None,
    }
}

fn planned(config: &Config, model: &ModelConfig, name: &str) -> u64 {
    let facts = Facts {
        model: model.clone(),
        files: 0,
        adapters: 0,
    };
    let (parts, _) = parts(config, &facts);
    let found = parts.iter().filter(|part| part.name.contains(name));
    found.map(|part| part.bytes).sum()
}

fn config(dtype: Dtype) -> Config {
    let mut config = Config::default();
    config.model.dtype = dtype;
    config.activation_bytes = 0;
    config.loops.train.batch_size = 1;
    config.train.rank = 8;
    config.engine.max_sequences = 2;
    config
}

fn weights(dtype: Dtype, model: &ModelConfig, pool: &Arc<Pool>) -> Arc<Model> {
    let (loaded, held, _) =
        measured(|| Model::random(model.clone(), 3, dtype.into(), Arc::clone(pool)).unwrap());
    near(
        &format!("weights in {dtype:?}"),
        planned(&config(dtype), model, "weights"),
        held + loaded.bytes() as u64,
        3,
        64 << 10,
    );
    Arc::new(loaded)
}

/// Versions that are planned: six, and one of each of two sequences.
const VERSIONS: u64 = 6 + 2;

fn adapters(model: &Model, config: &Config) {
    // The second one fills more than a huge page.
    for rank in [8, 64] {
        let mut config = config.clone();
        config.train.rank = rank;
        let (adapter, held, _) =
            measured(|| Adapter::random(model.config(), rank, 16.0, 1).unwrap());
        let planned = planned(&config, model.config(), "adapter: the versions");
        near("versions", planned, VERSIONS * held, 2, 64 << 10);
        // Nothing of it stays beside the weights, which do.
        let ((), held, _) = measured(|| drop(adapter.clone()));
        assert_eq!(held, 0);
        let before = LIVE.load(Relaxed);
        drop(adapter);
        let back = (before - LIVE.load(Relaxed)) as u64;
        assert!(
            VERSIONS * back + (64 << 10) >= planned - planned / 50,
            "{back}"
        );
    }
}

fn sample(tokens: &[u32]) -> Sample {
    let (prompt, response) = tokens.split_at(16);
    let all = |value: f32| vec![value; response.len()];
    Sample {
        id: SampleId::new("one"),
        turn: "turn".into(),
        adapter: "main".into(),
        version: PolicyVersion::BASE,
        prompt: prompt.to_vec(),
        response: response.to_vec(),
        behaviour: all(-8.0),
        advantage: all(1.0),
        weight: all(1.0),
        temperature: 1.0,
    }
}

/// One sample of the whole context: more rows than a pack takes.
fn batch(context: usize) -> Batch {
    let tokens: Vec<u32> = (0..context as u32).map(|i| i * 7 % 4000).collect();
    Batch {
        samples: vec![sample(&tokens)],
    }
}

/// Samples in one pack, each of which leaves the first one a little earlier than the one before: as many nodes as there can be, and most of the
/// rows before each of them.
fn forks(count: u32) -> Batch {
    let first: Vec<u32> = (0..1800).map(|i| i * 7 % 4000).collect();
    let fork = |number: u32| {
        let shared = first.len() - 20 * number as usize;
        let own = (0..30).map(|i| (i * 11 + number) % 4000);
        let tokens: Vec<u32> = first[..shared].iter().copied().chain(own).collect();
        sample(&tokens)
    };
    Batch {
        samples: (0..count).map(fork).collect(),
    }
}

fn settings(config: &Config) -> trainer::Config {
    trainer::Config {
        // The recorded log-probs are made up.
        max_ratio: 1e30,
        ..config.train.clone()
    }
}

/// A step in a memory of its own; its figures are those of the parts of the plan that `batch` needs.
fn training(what: &str, model: &Arc<Model>, config: &Config, batch: &Batch, percent: u64) {
    let shape = model.config();
    let slot = Arc::new(Slot::new(Deployed::default()));
    let space = Workspace::new(0);
    let (mut learner, begun, _) = measured(|| {
        let (model, seed) = (Arc::clone(model), Seed::new(1));
        LoraLearner::new(model, Arc::clone(&slot), settings(config), seed)
            .unwrap()
            .with_workspace(space.clone())
    });
    let (proposal, _, peak) = measured(|| learner.step(batch).unwrap());
    let of = |name| planned(config, shape, name);
    // The proposal is written nowhere here, and of the versions there are two; of the second learner nothing.
    let version = of("adapter: the versions") / VERSIONS;
    let activations = ["inputs of the layers", "one layer", "of a pack", "tile"].map(of);
    let learner_bytes = of("gradient, moments");
    let most = activations.iter().sum::<u64>() + learner_bytes + 2 * version;
    near(what, most, begun + peak, percent, THREADS);
    drop(proposal);
    looking_back(model, config, &space, &batch.samples[0]);
}

/// What a pass of one length leaves is not held beside what another one needs.
fn other_lengths(model: &Arc<Model>, config: &Config, context: usize) {
    let slot = Arc::new(Slot::new(Deployed::default()));
    let mut learner = LoraLearner::new(Arc::clone(model), slot, settings(config), Seed::new(1))
        .unwrap()
        .with_workspace(Workspace::new(16 << 20));
    let mut step = |rows| drop(learner.step(&batch(rows)).unwrap());
    let (_, once, _) = measured(|| step(context));
    let (_, more, peak) = measured(|| (0..3).for_each(|i| step(context - i % 2 * 900)));
    println!("after a step {once} are held, after others {more} more, {peak} more at most");
    assert!(
        more < 2 << 20 && peak < 6 << 20,
        "{more} and {peak} beside {once}"
    );
}

/// What `blame` asks is computed where training was: a gradient is new, and what is given of it.
fn looking_back(model: &Model, config: &Config, space: &Workspace, sample: &Sample) {
    let adapter = Adapter::init(model.config(), 8, config.train.alpha, 1).unwrap();
    model.prepare(&adapter).unwrap();
    let gradient = 4 * adapter.params().len() as u64;
    let settings = settings(config);
    let (found, _, peak) =
        measured(|| sample_gradient(model, space, &adapter, &settings, sample, 1).unwrap());
    near("a sample's gradient", 2 * gradient, peak, 100, 512 << 10);
    drop(found);
    let (prompt, reply) = (&sample.prompt, &sample.response);
    let (found, _, peak) =
        measured(|| reply_gradient(model, space, &adapter, prompt, reply, 1.0).unwrap());
    near("a reply's gradient", 2 * gradient, peak, 100, 512 << 10);
    drop(found);
}

fn serving(model: &Model, config: &Config) {
    let shape = model.config();
    let mut kv = Kv::new(shape);
    let tokens: Vec<u32> = (0..130).map(|i| i * 13 % 4000).collect();
    let (_, held, _) = measured(|| kv.reserve(2100));
    near(
        "two sequences",
        planned(config, shape, "serving: keys"),
        2 * held,
        2,
        64 << 10,
    );
    let mut scratch = Scratch::new();
    let adapter = Adapter::random(shape, 8, 16.0, 1).unwrap();
    let (_, held, peak) = measured(|| {
        let segment = Segment {
            kv: &mut kv,
            tokens: &tokens,
            adapter: Some(&adapter),
            logits: Logits::All,
        };
        model.forward(&mut scratch, &mut [segment]).unwrap();
    });
    let samplers = 2 * shape.vocab_size as u64 * 16;
    let planned = planned(config, shape, "rows of a step") - samplers;
    println!("after a step of serving {held} are held");
    near("a step of serving", planned, peak, 10, THREADS);
}

// One test: the counts are the process's.
#[test]
fn what_is_planned_is_what_is_allocated() {
    let pool = Arc::new(Pool::new(2).expect("threads"));
    for (dtype, qk_norm, tied) in [
        (Dtype::Bf16, false, true),
        (Dtype::F32, true, false),
        (Dtype::Q8, false, false),
        (Dtype::Bf16Pairs, true, true),
    ] {
        let config = config(dtype);
        let model = weights(dtype, &shape(qk_norm, tied), &pool);
        adapters(&model, &config);
        // The other two differ in weights alone.
        if matches!(dtype, Dtype::Bf16 | Dtype::Bf16Pairs) {
            let context = model.config().context;
            training("a step", &model, &config, &batch(context), 20);
            other_lengths(&model, &config, context);
            let mut several = config.clone();
            several.loops.train.batch_size = 6;
            training("a step on forks", &model, &several, &forks(6), 20);
        }
        serving(&model, &config);
    }
}
