//! What the numeric tests share: fixtures made by `fixtures/make_fixtures.py`, and comparisons.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "each test binary uses a part"
)]

use policy::{
    Adapter, AdapterGrads, Architecture, Kv, Logits, Model, ModelConfig, Rope, RopeScaling,
    Scratch, Segment, Tape, Target,
};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Sizes that are no multiples of a vector or a panel.
pub(crate) fn ragged(qk_norm: bool) -> ModelConfig {
    ModelConfig {
        architecture: Architecture::Qwen3,
        vocab_size: 77,
        hidden: 36,
        layers: 2,
        heads: 6,
        kv_heads: 2,
        head_dim: 12,
        ffn: 50,
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

/// The folder of the fixtures.
pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// A fixture's JSON.
pub(crate) fn fixture(name: &str) -> Value {
    let path = fixtures().join(format!("{name}.json"));
    let text = std::fs::read_to_string(&path).expect("the fixture is committed");
    serde_json::from_str(&text).unwrap()
}

pub(crate) fn tokens(value: &Value) -> Vec<u32> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|v| u32::try_from(v.as_u64().unwrap()).unwrap())
        .collect()
}

pub(crate) fn floats(value: &Value) -> Vec<f32> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v.as_f64().unwrap() as f32)
        .collect()
}

/// The fixtures' adapter: A as in [`Adapter::init`], B of the same numbers times 0.02.
pub(crate) fn adapter(model: &Model, setting: &Value) -> Adapter {
    let rank = usize::try_from(setting["rank"].as_u64().unwrap()).unwrap();
    let alpha = setting["alpha"].as_f64().unwrap() as f32;
    let seed = setting["seed"].as_u64().unwrap();
    noisy(
        Adapter::init(model.config(), rank, alpha, seed).unwrap(),
        seed,
    )
}

/// Fills B, which starts at zero.
pub(crate) fn noisy(mut adapter: Adapter, seed: u64) -> Adapter {
    let bs: Vec<_> = adapter
        .names_and_shapes()
        .filter(|(name, ..)| name.contains("lora_B"))
        .map(|(.., range)| range)
        .collect();
    adapter.update(|params| {
        for place in bs.into_iter().flatten() {
            params[place] = (2.0 * uniform(seed, place as u64) - 1.0) * 0.02;
        }
    });
    adapter
}

/// As in `policy::adapter` and in the script.
pub(crate) fn uniform(seed: u64, place: u64) -> f32 {
    let mix = |mut z: u64| {
        z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    (mix(mix(seed) ^ place) >> 40) as f32 / (1u64 << 24) as f32
}

/// Every token after the first, as a target.
pub(crate) fn next_tokens(tokens: &[u32]) -> Vec<Target> {
    tokens[1..]
        .iter()
        .enumerate()
        .map(|(row, &token)| Target { row, token })
        .collect()
}

/// The greedy continuation, through the cache.
pub(crate) fn greedy(
    model: &Model,
    adapter: Option<&Adapter>,
    prompt: &[u32],
    count: usize,
) -> Vec<u32> {
    let (mut kv, mut scratch) = (Kv::new(model.config()), Scratch::new());
    let mut input = prompt.to_vec();
    let mut out = Vec::new();
    for _ in 0..count {
        let segment = Segment {
            kv: &mut kv,
            tokens: &input,
            adapter,
            logits: Logits::Last,
        };
        model.forward(&mut scratch, &mut [segment]).unwrap();
        let logits = scratch.logits(0).next().unwrap();
        let mut best = 0;
        for (i, &l) in logits.iter().enumerate() {
            if l > logits[best] {
                best = i;
            }
        }
        input = vec![u32::try_from(best).unwrap()];
        out.extend(&input);
    }
    out
}

/// Fails when two lists differ by more than `tolerance` anywhere.
#[track_caller]
pub(crate) fn close(what: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!(
            (f - e).abs() <= tolerance,
            "{what}[{i}]: {f}, PyTorch says {e}"
        );
    }
}

/// `|found − expected|₂ / |expected|₂`.
pub(crate) fn relative(found: &[f32], expected: &[f32]) -> f64 {
    let norm =
        |v: &mut dyn Iterator<Item = f32>| v.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt();
    let difference = norm(&mut found.iter().zip(expected).map(|(f, e)| f - e));
    difference / norm(&mut expected.iter().copied()).max(1e-30)
}

/// Log-probs of all prompts without adapter and of the adapter's case, against the fixture.
pub(crate) fn check_log_probs(model: &Model, fixture: &Value) {
    let mut tape = Tape::new();
    for case in fixture["plain"].as_array().unwrap() {
        let prompt = tokens(&case["tokens"]);
        let found = model
            .train_forward(&mut tape, None, &prompt, &next_tokens(&prompt), 1.0)
            .unwrap();
        close("log-probs", &found, &floats(&case["log_probs"]), 2e-4);
    }
}

/// Greedy tokens of all prompts, with and without the adapter.
pub(crate) fn check_greedy(model: &Model, fixture: &Value) {
    for case in fixture["plain"].as_array().unwrap() {
        let expected = tokens(&case["greedy"]);
        let found = greedy(model, None, &tokens(&case["tokens"]), expected.len());
        assert_eq!(found, expected);
    }
    let (case, adapter) = (&fixture["lora"], adapter(model, &fixture["adapter"]));
    let expected = tokens(&case["greedy"]);
    assert_eq!(
        greedy(
            model,
            Some(&adapter),
            &tokens(&case["tokens"]),
            expected.len()
        ),
        expected
    );
}

/// The gradients of the adapter's case; checks its log-probs on the way.
pub(crate) fn gradients(model: &Model, fixture: &Value) -> (Adapter, AdapterGrads) {
    let (case, adapter) = (&fixture["lora"], adapter(model, &fixture["adapter"]));
    let prompt = tokens(&case["tokens"]);
    let temperature = case["temperature"].as_f64().unwrap() as f32;
    let mut tape = Tape::new();
    let mut grads = AdapterGrads::zeros(&adapter);
    let targets = next_tokens(&prompt);
    let found = model
        .train_forward(&mut tape, Some(&adapter), &prompt, &targets, temperature)
        .unwrap();
    close(
        "log-probs with the adapter",
        &found,
        &floats(&case["log_probs"]),
        2e-4,
    );
    model
        .backward(&mut tape, &adapter, &floats(&case["upstream"]), &mut grads)
        .unwrap();
    (adapter, grads)
}

/// Ten AdamW steps: the losses before each.
pub(crate) fn check_adam(model: &Model, fixture: &Value) {
    let case = &fixture["adam"];
    let number = |name: &str| case[name].as_f64().unwrap() as f32;
    let settings = kernels::adamw::AdamW {
        lr: number("lr"),
        beta1: number("beta1"),
        beta2: number("beta2"),
        eps: number("eps"),
        weight_decay: number("weight_decay"),
    };
    let prompt = tokens(&case["tokens"]);
    let targets = next_tokens(&prompt);
    let mut adapter = adapter(model, &fixture["adapter"]);
    let mut grads = AdapterGrads::zeros(&adapter);
    let len = adapter.params().len();
    let (mut first, mut second) = (vec![0.0; len], vec![0.0; len]);
    let mut tape = Tape::new();
    let mut losses = Vec::new();
    let upstream = vec![-1.0 / targets.len() as f32; targets.len()];
    for step in 1..=10 {
        grads.clear();
        let log_probs = model
            .train_forward(&mut tape, Some(&adapter), &prompt, &targets, 1.0)
            .unwrap();
        losses.push(-log_probs.iter().sum::<f32>() / log_probs.len() as f32);
        model
            .backward(&mut tape, &adapter, &upstream, &mut grads)
            .unwrap();
        let norm = kernels::adamw::norm(model.pool(), &grads.values().unwrap());
        // As torch's clip_grad_norm_.
        let scale = (f64::from(number("clip")) / (norm + 1e-6)).min(1.0) as f32;
        adapter.update(|params| {
            kernels::adamw::step(
                model.pool(),
                &settings,
                step,
                scale,
                params,
                &grads.values().unwrap(),
                &mut first,
                &mut second,
            )
            .unwrap();
        });
    }
    close("losses", &losses, &floats(&case["losses"]), 1e-4);
}
