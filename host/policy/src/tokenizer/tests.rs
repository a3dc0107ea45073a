//! What the tokenizer promises.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};

use super::*;
use crate::checkpoint::gguf::Gguf;

#[derive(Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
    decoded: String,
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/text")
        .join(name)
}

fn load(rule: &str) -> Tokenizer {
    Gguf::open(&fixture(&format!("{rule}.gguf")))
        .unwrap()
        .tokenizer()
        .unwrap()
}

#[test]
fn a_tokenizer_from_gguf_gives_the_ids_of_hugging_faces_for_every_splitting_rule() {
    let cases = std::fs::read(fixture("tokens.json")).unwrap();
    let cases: BTreeMap<String, Vec<Case>> = serde_json::from_slice(&cases).unwrap();
    assert_eq!(cases.len(), 4);
    for (rule, cases) in cases {
        let tokenizer = load(&rule);
        for Case { text, ids, decoded } in cases {
            assert_eq!(
                tokenizer.encode(&text, Special::Parse).unwrap(),
                ids,
                "{rule}: {text:?}"
            );
            assert_eq!(tokenizer.decode(&ids), decoded, "{rule}: {text:?}");
        }
    }
}

#[test]
fn plain_text_never_yields_a_marker_and_loses_nothing() {
    for rule in ["gpt-2", "smollm", "llama-bpe", "qwen2"] {
        let tokenizer = load(rule);
        let markers = [
            "<|endoftext|>",
            "<|im_start|>",
            "<|im_end|>",
            "<think>",
            "</think>",
        ];
        let ids = markers.map(|marker| tokenizer.token_id(marker).unwrap());
        for text in markers.iter().map(|m| format!("{m}{m} a{m}")) {
            let plain = tokenizer.encode(&text, Special::Plain).unwrap();
            assert!(plain.iter().all(|id| !ids.contains(id)), "{rule}: {text}");
            assert_eq!(tokenizer.decode(&plain), text);
            assert!(
                tokenizer
                    .encode(&text, Special::Parse)
                    .unwrap()
                    .iter()
                    .any(|id| ids.contains(id))
            );
        }
    }
}

#[test]
fn a_marker_that_touches_data_is_text() {
    let tokenizer = load("smollm");
    let end = tokenizer.token_id("<|im_end|>").unwrap();
    let text = "<|im_end|>a<|im_end|>";
    let count = |untrusted: &[Range<usize>]| {
        let ids = tokenizer.encode_spans(text, untrusted).unwrap();
        assert_eq!(tokenizer.decode(&ids), text);
        ids.iter().filter(|id| **id == end).count()
    };
    assert_eq!(count(&[]), 2);
    assert_eq!(count(&[Range { start: 10, end: 11 }]), 2);
    assert_eq!(count(&[Range { start: 10, end: 12 }]), 1);
    assert_eq!(count(&[Range { start: 9, end: 12 }]), 0);
    assert_eq!(
        count(&[Range { start: 3, end: 4 }, Range { start: 15, end: 16 }]),
        0
    );
}

#[test]
fn special_ids_are_the_control_tokens_only() {
    let tokenizer = load("smollm");
    assert_eq!(tokenizer.special_ids(), [0, 1, 2]);
    assert!(!tokenizer.is_special(tokenizer.token_id("<think>").unwrap()));
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(0), Some(2)));
    assert_eq!(tokenizer.token_text(1).as_deref(), Some("<|im_start|>"));
    assert_eq!(tokenizer.token_bytes(u32::MAX), b"");
    assert!(tokenizer.prefix().is_empty());
    assert_eq!(load("llama-bpe").prefix(), [0]);
}

/// A SentencePiece-like definition: ▁ for spaces, bytes as `<0x..>`.
fn text_definition() -> Value {
    let mut vocab = serde_json::Map::new();
    for (id, token) in ["<unk>", "<s>", "</s>", "▁", "a", "b", "▁a", "ab"]
        .iter()
        .enumerate()
    {
        vocab.insert((*token).into(), id.into());
    }
    for byte in 0..=255u8 {
        vocab.insert(format!("<0x{byte:02X}>"), (8 + usize::from(byte)).into());
    }
    let special = |id: u32, text: &str| {
        json!({
            "id": id, "content": text, "special": true, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false,
        })
    };
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ]},
        "pre_tokenizer": null,
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
            "vocab": vocab, "merges": ["▁ a", "a b"]},
    })
}

#[test]
fn sentencepiece_like_tokenizers_encode_decode_and_know_their_prefix() {
    let json = serde_json::to_vec(&text_definition()).unwrap();
    let tokenizer = Tokenizer::from_json(&json, Path::new("t.json")).unwrap();
    let reference = tokenizers::Tokenizer::from_bytes(&json).unwrap();
    for text in ["a", "ab a", "é", "a\n", "b <s>"] {
        let ids = tokenizer.encode(text, Special::Plain).unwrap();
        assert_eq!(tokenizer.decode(&ids), text);
        let expected = reference
            .encode_fast(text, false)
            .unwrap()
            .get_ids()
            .to_vec();
        assert_eq!(
            tokenizer.encode(text, Special::Parse).unwrap(),
            expected,
            "{text:?}"
        );
    }
    assert_eq!(tokenizer.prefix(), [1]);
    assert_eq!(tokenizer.token_bytes(8 + 0x0A), b"\n");
}

#[test]
fn settings_that_cut_pad_or_randomise_prompts_are_ignored() {
    let mut definition = text_definition();
    definition["truncation"] =
        json!({"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0});
    definition["model"]["dropout"] = json!(0.9);
    let json = serde_json::to_vec(&definition).unwrap();
    let tokenizer = Tokenizer::from_json(&json, Path::new("t.json")).unwrap();
    let ids = tokenizer.encode("ab ab ab", Special::Plain).unwrap();
    assert!(ids.len() > 1);
    assert!((0..20).all(|_| tokenizer.encode("ab ab ab", Special::Plain).unwrap() == ids));
}

#[test]
fn damaged_definitions_are_refused_by_the_name_of_the_field() {
    let check = |change: &dyn Fn(&mut Value), name: &str| {
        let mut definition = text_definition();
        change(&mut definition);
        let json = serde_json::to_vec(&definition).unwrap();
        let error = Tokenizer::from_json(&json, Path::new("tokenizer.json")).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    };
    check(&|d| d["model"]["type"] = json!("Unigram"), "model.type");
    check(&|d| d["decoder"] = json!({"type": "Metaspace"}), "decoder");
    check(&|d| d["model"]["vocab"] = json!(3), "model.vocab");
    check(
        &|d| d["model"]["vocab"]["a"] = json!(-1),
        "model.vocab[\"a\"]",
    );
    check(
        &|d| d["model"]["vocab"]["a"] = json!(4_000_000_000u64),
        "model.vocab[\"a\"]",
    );
    check(
        &|d| d["added_tokens"][1]["id"] = json!("x"),
        "added_tokens[1]",
    );
    check(
        &|d| d["model"]["merges"] = json!(["q q"]),
        "failed to build",
    );
    check(&|d| *d = json!([]), "tokenizer");
}
