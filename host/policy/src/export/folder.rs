//! A Hugging Face folder of a merged model.
//!
//! Copies the small files of a base that is such a folder; makes them from the metadata of one that is a GGUF file. The
//! arithmetic is [`super::merge`]'s.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::Progress;
use super::merge::Merge;
use super::part::Sink;
use crate::checkpoint::gguf::Gguf;
use crate::checkpoint::read_small;
use crate::config::{Architecture, ModelConfig, RopeScaling};
use crate::error::{Error, Result};
use crate::tokenizer;

/// What decides a model's behaviour beside its weights, as published folders have it.
const SMALL: [&str; 9] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
];
/// Published tokenizers reach 35 MB.
const MAX_SMALL: u64 = 256 << 20;

pub(super) fn write(merge: &Merge<'_>, folder: &Path, progress: &Progress<'_>) -> Result<()> {
    match merge.base.gguf() {
        None => copy_small(merge.base.path(), folder)?,
        Some(file) => {
            let config = config_json(merge.config());
            write_json(&folder.join("config.json"), &config)?;
            let tokens = tokenizer::standalone(file.metadata())?;
            write_json(&folder.join("tokenizer.json"), &tokens)?;
            let settings = tokenizer_config(file, merge.config())?;
            write_json(&folder.join("tokenizer_config.json"), &settings)?;
        }
    }
    weights(merge, &folder.join("model.safetensors"), progress)
}

fn copy_small(from: &Path, to: &Path) -> Result<()> {
    for name in SMALL {
        let source = from.join(name);
        if source.is_file() {
            write_file(&to.join(name), &read_small(&source, MAX_SMALL)?)?;
        }
    }
    Ok(())
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut sink = Sink::create(path)?;
    sink.write(bytes)?;
    sink.finish()
}

fn write_json(path: &Path, value: &Value) -> Result<()> {
    let text = serde_json::to_vec_pretty(value).map_err(|source| Error::Json {
        path: path.into(),
        source,
    })?;
    write_file(path, &text)
}

/// The tensors of a model, in the order in which they are used.
fn tensors(config: &ModelConfig) -> Vec<(String, Vec<usize>)> {
    use crate::adapter::Projection;
    let (c, v) = (config.hidden, config.vocab_size);
    let mut tensors = vec![("model.embed_tokens.weight".to_owned(), vec![v, c])];
    for layer in 0..config.layers {
        let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
        tensors.push((name("input_layernorm"), vec![c]));
        if config.qk_norm {
            for part in ["self_attn.q_norm", "self_attn.k_norm"] {
                tensors.push((name(part), vec![config.head_dim]));
            }
        }
        tensors.push((name("post_attention_layernorm"), vec![c]));
        for projection in Projection::ALL {
            let (outputs, inputs) = projection.shape(config);
            tensors.push((name(projection.module()), vec![outputs, inputs]));
        }
    }
    tensors.push(("model.norm.weight".to_owned(), vec![c]));
    if !config.tied {
        tensors.push(("lm_head.weight".to_owned(), vec![v, c]));
    }
    tensors
}

fn weights(merge: &Merge<'_>, path: &Path, progress: &Progress<'_>) -> Result<()> {
    let tensors = tensors(merge.config());
    let mut header = Map::new();
    header.insert("__metadata__".into(), json!({"format": "pt"}));
    let mut end = 0u64;
    for (name, shape) in &tensors {
        let begin = end;
        end += 2 * shape.iter().map(|&n| n as u64).product::<u64>();
        let entry = json!({"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]});
        header.insert(name.clone(), entry);
    }
    let mut header = Value::Object(header).to_string();
    // The data starts at a multiple of 8, as the reference implementation has it.
    header.extend(std::iter::repeat_n(
        ' ',
        header.len().next_multiple_of(8) - header.len(),
    ));
    let mut sink = Sink::create(path)?;
    sink.write(&(header.len() as u64).to_le_bytes())?;
    sink.write(header.as_bytes())?;
    let total = sink.written() + end;
    progress(sink.written(), total);
    for (name, shape) in &tensors {
        let numbers = merge.tensor(name, shape)?;
        sink.write(&merge.bf16(name, &numbers)?)?;
        progress(sink.written(), total);
    }
    sink.finish()
}

/// What [`ModelConfig::from_hf`] reads.
fn config_json(config: &ModelConfig) -> Value {
    let (kind, class) = match config.architecture {
        Architecture::Llama => ("llama", "LlamaForCausalLM"),
        Architecture::Qwen3 => ("qwen3", "Qwen3ForCausalLM"),
    };
    let scaling = match config.rope.scaling {
        RopeScaling::None => Value::Null,
        RopeScaling::Linear { factor } => {
            json!({"rope_type": "linear", "factor": short(factor)})
        }
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_context,
        } => json!({
            "rope_type": "llama3",
            "factor": short(factor),
            "low_freq_factor": short(low_freq_factor),
            "high_freq_factor": short(high_freq_factor),
            "original_max_position_embeddings": original_context,
        }),
    };
    let eos = match config.eos.as_slice() {
        [] => Value::Null,
        [one] => json!(one),
        several => json!(several),
    };
    json!({
        "architectures": [class],
        "model_type": kind,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.ffn,
        "hidden_act": "silu",
        "attention_bias": config.attention_bias,
        "rms_norm_eps": short(config.rms_eps),
        "rope_theta": short(config.rope.theta),
        "rope_scaling": scaling,
        "max_position_embeddings": config.context,
        "tie_word_embeddings": config.tied,
        "bos_token_id": config.bos,
        "eos_token_id": eos,
        "torch_dtype": "bfloat16",
    })
}

/// The double that is written as the single is: 1e-5, not 9.999999747378752e-6. Read as a single it is the same.
fn short(number: f32) -> f64 {
    number.to_string().parse().unwrap_or(f64::from(number))
}

fn tokenizer_config(file: &Gguf, config: &ModelConfig) -> Result<Value> {
    let meta = file.metadata();
    let tokens = meta.strings("tokenizer.ggml.tokens")?;
    let text = |key: &str| -> Result<Option<&String>> {
        let id = meta.token(key)?.and_then(|id| usize::try_from(id).ok());
        Ok(id.and_then(|id| tokens.get(id)))
    };
    let mut settings = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": text("tokenizer.ggml.bos_token_id")?,
        "eos_token": text("tokenizer.ggml.eos_token_id")?,
        "clean_up_tokenization_spaces": false,
        "model_max_length": config.context,
    });
    if let Some(template) = meta.optional_string("tokenizer.chat_template")? {
        settings["chat_template"] = template.into();
    }
    Ok(settings)
}
