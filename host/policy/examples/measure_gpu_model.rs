//! Measures whole passes of a model in the shape of Qwen3-4B, with random weights, on this machine's GPU, against what the
//! machine needs at least. Prints the second table of `kernels/README.md`.
//!
//! `measure_gpu_model [LAYERS [PART…]]`; all 36 unless told otherwise, and of `decode`, `prompt`, `publish`, `train` and `train-otherwise`
//! (in other passes, and with nothing kept) all. `kernels/check-gpu` packs it. The floor of a decode step is the time to read the
//! weights and the keys and values once, at the rate of a copy in the same run; of a pass over many rows, its multiplications at the
//! rate of the tensor cores in the same run (of a training step: forward, and the gradient by the inputs).
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement prints"
)]

use kernels::adamw::AdamW;
use kernels::cuda::probe::{Instruction, peak};
use kernels::cuda::{Gpu, Priority};
use policy::{
    Adapter, AdapterGrads, Architecture, Draw, Kv, Logits, Model, ModelConfig, Pack, Pool, Rope,
    RopeScaling, Scratch, Segment, Tape, Target, Trainee,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Keys that a sequence has when a decode step is measured.
const KEYS: usize = 1024;

fn config(layers: usize) -> ModelConfig {
    ModelConfig {
        architecture: Architecture::Qwen3,
        vocab_size: 151_936,
        hidden: 2560,
        layers,
        heads: 32,
        kv_heads: 8,
        head_dim: 128,
        ffn: 9728,
        rms_eps: 1e-6,
        rope: Rope {
            theta: 1_000_000.0,
            scaling: RopeScaling::None,
        },
        context: 4096,
        tied: true,
        qk_norm: true,
        attention_bias: false,
        eos: vec![1],
        bos: None,
    }
}

fn main() {
    let layers = std::env::args()
        .nth(1)
        .map_or(36, |given| given.parse().unwrap());
    let parts: Vec<String> = std::env::args().skip(2).collect();
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|p| p == part);
    let (copy, product) = ceilings();
    println!(
        "copy {:.0} GB/s, tensor cores {:.0} TFLOP/s",
        copy / 1e9,
        product / 1e12
    );
    let start = Instant::now();
    let pool = Arc::new(Pool::new(4).unwrap());
    let model = Model::random_on_gpu(config(layers), 1, 0, 96 * (KEYS + 64), pool).unwrap();
    println!(
        "{layers} layers, {} MB, ready in {:.1} s",
        model.bytes() >> 20,
        start.elapsed().as_secs_f64()
    );
    let bench = Bench {
        model,
        copy,
        product,
    };
    let adapters: Vec<Adapter> = (0..if wanted("decode") || wanted("publish") {
        8
    } else {
        0
    })
        .map(|seed| Adapter::random(bench.model.config(), 16, 32.0, seed).unwrap())
        .collect();
    println!("\n| pass | ms | tokens/s | of the floor |\n|---|---|---|---|");
    if wanted("decode") {
        for batch in [1, 8, 64] {
            bench.decode(batch, &[]);
        }
        bench.decode(1, &adapters[..1]);
        bench.decode(64, &adapters);
    }
    if wanted("prompt") {
        bench.prefill(2048);
    }
    if wanted("publish") {
        bench.published(1, &adapters[..1]);
        bench.published(64, &adapters);
    }
    if wanted("train") {
        bench.train(8, 1024, 8, Tape::new());
    }
    if wanted("train-otherwise") {
        bench.train(8, 1024, 1, Tape::new());
        bench.train(8, 1024, 4, Tape::new());
        bench.train(8, 1024, 8, Tape::with_budget(0));
    }
}

/// What this GPU copies, in bytes read and written a second, and multiplies, in operations a second.
fn ceilings() -> (f64, f64) {
    let gpu = Gpu::open(0).unwrap();
    let on = gpu.stream(Priority::High).unwrap();
    let len = 1 << 28;
    let (mut from, mut to) = (gpu.buffer::<f32>(len).unwrap(), gpu.buffer(len).unwrap());
    on.zero(&mut from.view_mut()).unwrap();
    let copied = seconds(5, || {
        on.copy(from.view(), &mut to.view_mut()).unwrap();
        on.wait().unwrap();
    });
    let blocks = 12 * gpu.multiprocessors().unwrap() as usize;
    let mut out = gpu.buffer(blocks * 128).unwrap();
    let by = match gpu.is_hopper() {
        true => Instruction::Wgmma,
        false => Instruction::Mma,
    };
    let mut operations = 0;
    let multiplied = seconds(5, || {
        operations = peak(&on, by, 4000, &mut out.view_mut()).unwrap();
        on.wait().unwrap();
    });
    (8.0 * len as f64 / copied, operations as f64 / multiplied)
}

/// The median of several runs, after one that does not count.
fn seconds(runs: usize, mut run: impl FnMut()) -> f64 {
    run();
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
        .map(|i| (1000 + i * 7919 % 130_000) as u32)
        .collect()
}

struct Bench {
    model: Model,
    copy: f64,
    product: f64,
}

impl Bench {
    /// Multiplications of the layers' matrices and of the head, for one row: twice the weights.
    fn weights(&self) -> f64 {
        self.model.bytes() as f64 / 2.0
    }

    fn line(&self, pass: &str, tokens: usize, took: f64, floor: f64) {
        println!(
            "| {pass} | {:.2} | {:.0} | {:.0} % |",
            1e3 * took,
            tokens as f64 / took,
            100.0 * floor / took
        );
    }

    /// Steps of `batch` sequences that have [`KEYS`] keys, each with one of the adapters; every step draws its tokens.
    fn decode(&self, batch: usize, adapters: &[Adapter]) {
        let (mut scratch, prompt) = (Scratch::new(), text(KEYS));
        let mut kvs: Vec<Kv> = (0..batch).map(|_| Kv::new(self.model.config())).collect();
        let of = |i: usize| (!adapters.is_empty()).then(|| &adapters[i % adapters.len()]);
        for (i, kv) in kvs.iter_mut().enumerate() {
            let segment = Segment {
                kv,
                tokens: &prompt,
                adapter: of(i),
                logits: Logits::None,
            };
            self.model.forward(&mut scratch, &mut [segment]).unwrap();
        }
        let mut step = 0;
        let took = seconds(32, || {
            let segments = kvs.iter_mut().enumerate();
            let mut segments: Vec<Segment<'_>> = segments
                .map(|(i, kv)| Segment {
                    kv,
                    tokens: &[1234],
                    adapter: of(i),
                    logits: Logits::Draw(Draw {
                        temperature: 0.8,
                        position: step,
                        ..Draw::GREEDY
                    }),
                })
                .collect();
            self.model.forward(&mut scratch, &mut segments).unwrap();
            step += 1;
        });
        let c = self.model.config();
        let keys = 4 * c.layers * batch * KEYS * c.kv_heads * c.head_dim;
        let floor = (self.model.bytes() + keys) as f64 / self.copy;
        let beside = match adapters.len() {
            0 => String::new(),
            n => format!(", {n} adapters"),
        };
        self.line(
            &format!("decode, batch {batch}, {KEYS} keys{beside}"),
            batch,
            took,
            floor,
        );
    }

    fn prefill(&self, len: usize) {
        let (mut scratch, prompt) = (Scratch::new(), text(len));
        let took = seconds(5, || {
            let mut kv = Kv::new(self.model.config());
            let segment = Segment {
                kv: &mut kv,
                tokens: &prompt,
                adapter: None,
                logits: Logits::Last,
            };
            self.model.forward(&mut scratch, &mut [segment]).unwrap();
        });
        let c = self.model.config();
        let head = (c.vocab_size * c.hidden) as f64;
        let attention = 2.0 * (c.layers * c.heads * c.head_dim * len) as f64 * len as f64;
        let floor = (2.0 * (self.weights() - head) * len as f64 + attention) / self.product;
        self.line(&format!("a prompt of {len}"), len, took, floor);
    }

    /// Steps of `batch` sequences, while another thread publishes: how long a step takes at most, and a fresh adapter until it is ready.
    fn published(&self, batch: usize, adapters: &[Adapter]) {
        let (mut scratch, prompt) = (Scratch::new(), text(KEYS));
        let mut kvs: Vec<Kv> = (0..batch).map(|_| Kv::new(self.model.config())).collect();
        let mut fresh: Vec<Adapter> = adapters.to_vec();
        for adapter in &mut fresh {
            adapter.update(|params| params[0] += 1.0);
            let _ = adapter.digest();
        }
        for (i, kv) in kvs.iter_mut().enumerate() {
            let segment = Segment {
                kv,
                tokens: &prompt,
                adapter: Some(&adapters[i % adapters.len()]),
                logits: Logits::None,
            };
            self.model.forward(&mut scratch, &mut [segment]).unwrap();
        }
        let mut gaps = |of: &dyn Fn(usize) -> usize, until: &dyn Fn(usize) -> bool| {
            let mut longest = 0.0_f64;
            let mut all = 0.0;
            let mut steps = 0;
            while until(steps) {
                let segments = kvs.iter_mut().enumerate().map(|(i, kv)| Segment {
                    kv,
                    tokens: &[7],
                    adapter: Some(match of(i) {
                        place if place < adapters.len() => &adapters[place],
                        place => &fresh[place - adapters.len()],
                    }),
                    logits: Logits::Draw(Draw::GREEDY),
                });
                let mut segments: Vec<Segment<'_>> = segments.collect();
                let start = Instant::now();
                self.model.forward(&mut scratch, &mut segments).unwrap();
                let took = 1e3 * start.elapsed().as_secs_f64();
                (longest, all, steps) = (longest.max(took), all + took, steps + 1);
            }
            (longest, all / steps as f64)
        };
        let count = adapters.len();
        gaps(&|i| i % count, &|step| step < 4);
        let idle = gaps(&|i| i % count, &|step| step < 30);
        let done = AtomicBool::new(false);
        let (mut ready, mut busy) = (0.0, idle);
        std::thread::scope(|scope| {
            let publisher = scope.spawn(|| {
                let start = Instant::now();
                for adapter in &fresh {
                    self.model.prepare(adapter).unwrap();
                }
                done.store(true, Ordering::Release);
                1e3 * start.elapsed().as_secs_f64() / count as f64
            });
            busy = gaps(&|i| i % count, &|_| !done.load(Ordering::Acquire));
            ready = publisher.join().unwrap();
        });
        // From one step to the next everybody has the fresh ones.
        let first = gaps(&|i| count + i % count, &|step| step < 1);
        println!(
            "| publishing, batch {batch}: steps {:.2} ms, longest {:.2}; while published {:.2}, longest {:.2}; first with it {:.2} | {ready:.2} | – | – |",
            idle.1, idle.0, busy.1, busy.0, first.0
        );
    }

    /// A training step on sequences of `len` tokens, some together in a pass: forward, backward, norm, AdamW, and the new parameters' way
    /// to the host.
    fn train(&self, sequences: usize, len: usize, together: usize, mut tape: Tape) {
        let adapter = Adapter::init(self.model.config(), 16, 32.0, 1).unwrap();
        let mut grads = AdapterGrads::zeros(&adapter);
        let mut trainee = Trainee::new(&self.model, Arc::new(adapter), Default::default()).unwrap();
        let settings = AdamW {
            lr: 1e-5,
            beta1: 0.9,
            beta2: 0.98,
            eps: 1e-8,
            weight_decay: 0.0,
        };
        let mut pack = Pack::default();
        for i in 0..together {
            let mut tokens = text(len);
            tokens[0] += i as u32;
            let targets: Vec<Target> = (0..len - 1)
                .map(|row| Target {
                    row,
                    token: tokens[row + 1],
                })
                .collect();
            pack.push(&tokens, &targets).unwrap();
        }
        let upstream = vec![-1.0 / len as f32; pack.targets().len()];
        let [
            mut forward,
            mut backward,
            mut optimizer,
            mut publish,
            mut moments,
        ] = [0.0; 5];
        let mut step = 0;
        let took = seconds(3, || {
            grads.clear();
            for _ in 0..sequences / together {
                let start = Instant::now();
                self.model
                    .train_pack(&mut tape, Some(trainee.adapter()), &pack, 1.0)
                    .unwrap();
                forward += start.elapsed().as_secs_f64();
                let start = Instant::now();
                self.model
                    .backward(&mut tape, trainee.adapter(), &upstream, &mut grads)
                    .unwrap();
                backward += start.elapsed().as_secs_f64();
            }
            let start = Instant::now();
            let norm = grads.norm(self.model.pool()).unwrap();
            backward += start.elapsed().as_secs_f64();
            step += 1;
            let (start, scale) = (Instant::now(), (1.0 / norm).min(1.0) as f32);
            trainee
                .step(&self.model, &settings, step, scale, &grads)
                .unwrap();
            optimizer += start.elapsed().as_secs_f64();
            let start = Instant::now();
            trainee.adapter().digest();
            publish += start.elapsed().as_secs_f64();
            let start = Instant::now();
            trainee.moments().unwrap();
            moments += start.elapsed().as_secs_f64();
        }) - (publish + moments) / 4.0;
        let c = self.model.config();
        let rows = (sequences * len) as f64;
        // Attention: two products forward, five backward, over half of the square.
        let attention = 7.0 * (c.layers * c.heads * c.head_dim * len) as f64 * rows;
        let floor = (4.0 * self.weights() * rows + attention) / self.product;
        self.line(
            &format!("training, {sequences} × {len}, {together} in a pass, rank 16"),
            sequences * len,
            took,
            floor,
        );
        // Four runs, of which the first does not count above.
        let [forward, backward, optimizer, publish, moments] =
            [forward, backward, optimizer, publish, moments].map(|all| 1e3 * all / 4.0);
        println!(
            "  forward {forward:.1} ms, backward {backward:.1} ms, AdamW and the parameters' way to the host {optimizer:.1} ms; not in the time above: their digest {publish:.1} ms, the moments' way to the host {moments:.1} ms"
        );
    }
}
