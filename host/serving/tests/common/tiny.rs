//! Models that need no download: one with random weights, one that says what a table says.
//!
//! Shared by unit tests, by the tests over HTTP and by the example.
#![allow(
    dead_code,
    clippy::expect_used,
    clippy::allow_attributes,
    reason = "test fixtures, of which each user needs a part"
)]

use std::path::Path;
use std::sync::Arc;

use policy::{
    Architecture, Checkpoint, Dtype, Model, ModelConfig, Pool, Rope, RopeScaling, Tokenizer,
};
use serde_json::{Value, json};

/// Ends a reply.
pub(crate) const END: u32 = 257;
/// Ids of [`tokenizer`].
pub(crate) const VOCAB: usize = 272;

/// What the scripted model knows beside bytes: (id, text).
const PHRASES: [(u32, &str); 8] = [
    (258, "Hello"),
    (259, " big"),
    (260, " wörld"),
    (
        261,
        "weather\", \"arguments\": {\"city\": \"Oslo\"}}\n</tool_call>",
    ),
    (262, "{\"city\": \"Oslo\"}}\n</tool_call>"),
    (263, "<think>\nHm"),
    (264, " yes.\n</think>\n\n"),
    (265, "."),
];

/// GPT-2's printable character for each byte.
fn letter(byte: u8) -> char {
    let plain = |b: u8| matches!(b, 33..=126 | 161..=172 | 174..=255);
    if plain(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|b| !plain(*b)).count();
    char::from_u32(256 + before as u32).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// A tokenizer of bytes, with ChatML's markers and a few phrases that text never encodes to.
pub(crate) fn tokenizer_json() -> Value {
    let mut vocab = serde_json::Map::new();
    for byte in 0..=255u8 {
        vocab.insert(letter(byte).to_string(), json!(byte));
    }
    for (id, text) in PHRASES {
        vocab.insert(text.bytes().map(letter).collect(), json!(id));
    }
    for id in 266..VOCAB {
        vocab.insert(format!("<unused{id}>"), json!(id));
    }
    json!({
        "version": "1.0",
        "added_tokens": [added_token(256, "<|im_start|>"), added_token(END, "<|im_end|>")],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    })
}

fn added_token(id: u32, text: &str) -> Value {
    json!({
        "id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true,
    })
}

/// The tokenizer of both models.
pub(crate) fn tokenizer() -> Tokenizer {
    let json = serde_json::to_vec(&tokenizer_json()).expect("plain JSON");
    Tokenizer::from_json(&json, Path::new("tiny")).expect("a tokenizer of bytes")
}

/// The shape of the random model.
pub(crate) fn config() -> ModelConfig {
    ModelConfig {
        architecture: Architecture::Llama,
        vocab_size: VOCAB,
        hidden: 32,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 8,
        ffn: 48,
        rms_eps: 1e-5,
        rope: Rope {
            theta: 10_000.0,
            scaling: RopeScaling::None,
        },
        context: 4096,
        tied: true,
        qk_norm: false,
        attention_bias: false,
        eos: vec![END],
        bos: None,
    }
}

/// Random weights.
pub(crate) fn random_model() -> Arc<Model> {
    random_model_in(Dtype::F32)
}

/// The same random weights, stored as `dtype`.
pub(crate) fn random_model_in(dtype: Dtype) -> Arc<Model> {
    let pool = Arc::new(Pool::new(2).expect("threads"));
    Arc::new(Model::random(config(), 7, dtype, pool).expect("small sizes"))
}

/// What follows what in the scripted model.
fn next(id: u32) -> u32 {
    match id {
        // A reply begins after the line break of ChatML's `assistant`.
        0x0a => 258,
        258 => 259,
        259 => 260,
        260 => 265,
        // `"` ends the beginning of a call of any function, ` ` that of a named one.
        0x22 => 261,
        0x20 => 262,
        // `?` in a reply's beginning makes it think first.
        0x3f => 263,
        263 => 264,
        264 => 258,
        _ => END,
    }
}

/// Writes a model that says "Hello big wörld." to everything, or calls `weather` when its reply begins as a call.
///
/// Its layers add nothing to the residual stream, its embeddings are unit vectors, and its output matrix is the table.
pub(crate) fn write_scripted(folder: &Path, context: usize) {
    let config = json!({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": VOCAB,
        "hidden_size": VOCAB, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 8, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "max_position_embeddings": context, "tie_word_embeddings": false, "eos_token_id": END,
        "hidden_act": "silu",
    });
    let unit = |row: usize, column: usize, size: f32| {
        (0..row * column)
            .map(move |i| if i / column == i % column { size } else { 0.0 })
            .collect::<Vec<f32>>()
    };
    let mut table = vec![0.0f32; VOCAB * VOCAB];
    for id in 0..VOCAB {
        // Row: the next token; column: this one.
        table[next(id as u32) as usize * VOCAB + id] = 4.0;
    }
    let zeros = |n: usize| vec![0.0f32; n];
    let ones = || vec![1.0f32; VOCAB];
    let layer = |name: &str| format!("model.layers.0.{name}.weight");
    let tensors: Vec<(String, Vec<usize>, Vec<f32>)> = vec![
        (
            "model.embed_tokens.weight".into(),
            vec![VOCAB, VOCAB],
            unit(VOCAB, VOCAB, 1.0),
        ),
        ("lm_head.weight".into(), vec![VOCAB, VOCAB], table),
        ("model.norm.weight".into(), vec![VOCAB], ones()),
        (layer("input_layernorm"), vec![VOCAB], ones()),
        (layer("post_attention_layernorm"), vec![VOCAB], ones()),
        (
            layer("self_attn.q_proj"),
            vec![16, VOCAB],
            zeros(16 * VOCAB),
        ),
        (layer("self_attn.k_proj"), vec![8, VOCAB], zeros(8 * VOCAB)),
        (layer("self_attn.v_proj"), vec![8, VOCAB], zeros(8 * VOCAB)),
        (
            layer("self_attn.o_proj"),
            vec![VOCAB, 16],
            zeros(16 * VOCAB),
        ),
        (layer("mlp.gate_proj"), vec![16, VOCAB], zeros(16 * VOCAB)),
        (layer("mlp.up_proj"), vec![16, VOCAB], zeros(16 * VOCAB)),
        (layer("mlp.down_proj"), vec![VOCAB, 16], zeros(16 * VOCAB)),
    ];
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, shape, values) in tensors {
        let start = data.len();
        data.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        let entry = json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]});
        header.insert(name, entry);
    }
    let header = Value::from(header).to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.bytes());
    bytes.extend(data);
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(folder.join(name), bytes).expect("a writable folder");
    };
    write("config.json", config.to_string().as_bytes());
    write("model.safetensors", &bytes);
    write("tokenizer.json", tokenizer_json().to_string().as_bytes());
}

/// The scripted model, loaded.
pub(crate) fn scripted_model(folder: &Path, context: usize) -> Arc<Model> {
    write_scripted(folder, context);
    let checkpoint = Checkpoint::open(folder).expect("a checkpoint");
    let pool = Arc::new(Pool::new(1).expect("threads"));
    Arc::new(Model::load(&checkpoint, Dtype::F32, pool).expect("a model"))
}
