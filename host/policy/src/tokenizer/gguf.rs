//! A tokenizer from GGUF metadata: byte-level byte-pair encoding with the splitting rule that the file names.
//!
//! Writes the same definition that Hugging Face's `tokenizer.json` of the model has, and hands it to the same builder. The rules
//! are those of the models' own files; "default" is llama.cpp's, for files that name none. SentencePiece tokenizers
//! in GGUF are refused.

use serde_json::{Map, Value, json};

use super::{Tokenizer, build};
use crate::checkpoint::gguf::Metadata;
use crate::error::{Problem, Result, field};

/// llama.cpp's token types.
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;
const UNUSED: i64 = 5;

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)";

/// Builds the tokenizer that the metadata describe.
pub(crate) fn from_gguf(meta: &Metadata) -> Result<Tokenizer> {
    let mut tokenizer = build::from_value(definition(meta)?, meta.path())?;
    tokenizer.bos = meta.token("tokenizer.ggml.bos_token_id")?;
    tokenizer.eos = meta.token("tokenizer.ggml.eos_token_id")?;
    tokenizer.prefix = prefix(meta)?.into_iter().collect();
    Ok(tokenizer)
}

/// The `tokenizer.json` that a folder without the GGUF file needs: the same definition, and what a text starts with.
pub(crate) fn standalone(meta: &Metadata) -> Result<Value> {
    let mut definition = definition(meta)?;
    let tokens = meta.strings("tokenizer.ggml.tokens")?;
    let prefix = prefix(meta)?.and_then(|id| {
        let text = tokens.get(usize::try_from(id).ok()?)?;
        Some((id, text))
    });
    if let Some((id, text)) = prefix {
        let start = json!({"SpecialToken": {"id": text, "type_id": 0}});
        let sequence = |name: &str, kind: u8| json!({"Sequence": {"id": name, "type_id": kind}});
        definition["post_processor"] = json!({
            "type": "TemplateProcessing",
            "single": [start, sequence("A", 0)],
            "pair": [start, sequence("A", 0), {"SpecialToken": {"id": text, "type_id": 1}}, sequence("B", 1)],
            "special_tokens": {text: {"id": text, "ids": [id], "tokens": [text]}},
        });
    }
    Ok(definition)
}

/// The token that a bare text starts with, when there is one.
fn prefix(meta: &Metadata) -> Result<Option<u32>> {
    let adds_bos = if meta.has("tokenizer.ggml.add_bos_token") {
        meta.flag("tokenizer.ggml.add_bos_token")?
    } else {
        rule(meta)?.adds_bos
    };
    let bos = meta.token("tokenizer.ggml.bos_token_id")?;
    Ok(bos.filter(|_| adds_bos))
}

/// What the model's `tokenizer.json` says, without a post-processor.
fn definition(meta: &Metadata) -> Result<Value> {
    let path = meta.path();
    let model = meta.string("tokenizer.ggml.model")?;
    if model != "gpt2" {
        let problem = Problem::Unsupported {
            value: format!("the tokenizer kind {model:?}"),
        };
        return Err(field(path, "tokenizer.ggml.model", problem));
    }
    let rule = rule(meta)?;
    let tokens = meta.strings("tokenizer.ggml.tokens")?;
    let types = meta.integers("tokenizer.ggml.token_type")?;
    if types.len() != tokens.len() {
        let value = format!("{} long", types.len());
        let problem = Problem::Inconsistent {
            value,
            rule: "it needs one entry per token",
        };
        return Err(field(path, "tokenizer.ggml.token_type", problem));
    }
    let mut vocab = Map::new();
    let mut added = Vec::new();
    for (id, (token, kind)) in tokens.iter().zip(types).enumerate() {
        if *kind == UNUSED || token.is_empty() {
            continue;
        }
        if matches!(*kind, CONTROL | USER_DEFINED) {
            added.push(json!({
                "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": *kind == CONTROL,
            }));
        } else if vocab.insert(token.clone(), id.into()).is_some() {
            let name = format!("tokenizer.ggml.tokens[{id}]");
            return Err(field(path, name, Problem::Duplicate));
        }
    }
    // Added tokens that are not markers (runs of spaces) must keep their ids: the library looks them up in the vocabulary.
    for token in &added {
        if let Some(text) = token["content"].as_str() {
            vocab.entry(text).or_insert_with(|| token["id"].clone());
        }
    }
    let merges = meta.strings("tokenizer.ggml.merges")?;
    for (i, merge) in merges.iter().enumerate() {
        let known = |text: &str| vocab.contains_key(text);
        let good = merge
            .split_once(' ')
            .is_some_and(|(a, b)| known(a) && known(b) && known(&merge.replacen(' ', "", 1)));
        if !good {
            let value = format!("{merge:?}");
            let rule = "it must be two tokens that make a third";
            let name = format!("tokenizer.ggml.merges[{i}]");
            return Err(field(path, name, Problem::Inconsistent { value, rule }));
        }
    }
    Ok(json!({
        "version": "1.0",
        "added_tokens": added,
        "normalizer": rule.normalizer,
        "pre_tokenizer": rule.pre_tokenizer,
        "post_processor": null,
        "decoder": byte_level(false),
        "model": {
            "type": "BPE", "vocab": vocab, "merges": merges, "ignore_merges": rule.ignore_merges,
            "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
        },
    }))
}

/// How text is cut into pieces before merging.
struct Rule {
    normalizer: Value,
    pre_tokenizer: Value,
    /// A piece that is a token as a whole stays one, whatever the merges would make of it.
    ignore_merges: bool,
    /// Whether a text starts with the BOS token when the file does not say.
    adds_bos: bool,
}

fn rule(meta: &Metadata) -> Result<Rule> {
    let key = "tokenizer.ggml.pre";
    let name = meta.optional_string(key)?.unwrap_or("default");
    let plain = |pre_tokenizer| Rule {
        normalizer: Value::Null,
        pre_tokenizer,
        ignore_merges: false,
        adds_bos: false,
    };
    Ok(match name {
        "gpt-2" => plain(byte_level(true)),
        "smollm" => {
            let digits = json!({"type": "Digits", "individual_digits": true});
            plain(sequence(vec![digits, byte_level(true)]))
        }
        "llama-bpe" | "llama3" | "llama-v3" => Rule {
            ignore_merges: true,
            adds_bos: true,
            ..plain(sequence(vec![split(LLAMA3), byte_level(false)]))
        },
        "qwen2" => Rule {
            normalizer: json!({"type": "NFC"}),
            ..plain(sequence(vec![split(QWEN2), byte_level(false)]))
        },
        "default" => {
            let steps = [r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"];
            let mut steps: Vec<Value> = steps.into_iter().map(split).collect();
            steps.push(byte_level(false));
            plain(sequence(steps))
        }
        other => {
            let problem = Problem::Unsupported {
                value: format!("the splitting rule {other:?}"),
            };
            return Err(field(meta.path(), key, problem));
        }
    })
}

fn byte_level(use_regex: bool) -> Value {
    json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex,
    })
}

fn split(regex: &str) -> Value {
    json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false})
}

fn sequence(steps: Vec<Value>) -> Value {
    json!({"type": "Sequence", "pretokenizers": steps})
}
