//! Against PyTorch, on tiny random models: log-probs, greedy text, every LoRA gradient, ten AdamW steps.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use common::*;
use policy::checkpoint::Checkpoint;
use policy::{Dtype, Model, Pool};
use std::sync::Arc;

fn tiny(name: &str) -> Model {
    let checkpoint = Checkpoint::open(&fixtures().join(name)).unwrap();
    Model::load(&checkpoint, Dtype::F32, Arc::new(Pool::new(2).unwrap())).unwrap()
}

fn check_gradients(name: &str) {
    let model = tiny(name);
    let (adapter, grads) = gradients(&model, &fixture(name));
    let bytes = std::fs::read(fixtures().join(format!("{name}-grads.safetensors"))).unwrap();
    let expected = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    for (tensor, shape, range) in adapter.names_and_shapes() {
        let view = expected.tensor(&tensor).unwrap();
        assert_eq!(view.shape(), shape, "{tensor}");
        let numbers: Vec<f32> = view
            .data()
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect();
        let off = relative(&grads.values().unwrap()[range], &numbers);
        assert!(off < 1e-3, "{tensor}: off by {off:e}");
    }
}

#[test]
fn a_llama_with_scaled_rotation_gives_pytorchs_log_probs() {
    check_log_probs(&tiny("tiny-llama"), &fixture("tiny-llama"));
}

#[test]
fn a_qwen3_with_qk_norm_gives_pytorchs_log_probs() {
    check_log_probs(&tiny("tiny-qwen3"), &fixture("tiny-qwen3"));
}

#[test]
fn greedy_text_is_pytorchs_for_64_tokens() {
    check_greedy(&tiny("tiny-llama"), &fixture("tiny-llama"));
    check_greedy(&tiny("tiny-qwen3"), &fixture("tiny-qwen3"));
}

#[test]
fn every_llama_lora_gradient_is_autograds() {
    check_gradients("tiny-llama");
}

#[test]
fn every_qwen3_lora_gradient_is_autograds() {
    check_gradients("tiny-qwen3");
}

#[test]
fn ten_adamw_steps_lose_what_pytorchs_lose() {
    check_adam(&tiny("tiny-llama"), &fixture("tiny-llama"));
    check_adam(&tiny("tiny-qwen3"), &fixture("tiny-qwen3"));
}
