//! Damaged and hostile files: an error that names the field, never a panic and never memory out of proportion.

use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use tempfile::TempDir;

use super::writer::{Writer, int, list, llama, string, text, value};
use crate::checkpoint::gguf::Gguf;
use crate::checkpoint::safetensors::SafeTensors;
use crate::checkpoint::{Checkpoint, Dtype};
use crate::error::Result;

fn on_disk(folder: &TempDir, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join("x.gguf");
    fs::write(&path, bytes).unwrap();
    path
}

/// Opens a file and touches everything in it.
fn use_all(path: &std::path::Path) -> Result<()> {
    let file = Gguf::open(path)?;
    for name in file.tensors().keys() {
        file.read(name)?;
    }
    let checkpoint = Checkpoint::open(path)?;
    let tokenizer = checkpoint.tokenizer()?;
    tokenizer.encode("hello <|end|>", crate::Special::Parse)?;
    checkpoint.template()?;
    Ok(())
}

/// A file with this change must be refused by this name.
fn check(change: &dyn Fn(&mut Writer), name: &str) {
    let folder = TempDir::new().unwrap();
    let mut file = llama();
    change(&mut file);
    let error = use_all(&on_disk(&folder, &file.bytes()))
        .unwrap_err()
        .to_string();
    assert!(error.contains(name), "{name}: {error}");
}

#[test]
fn a_spoiled_gguf_field_is_named() {
    check(
        &|f| f.set("general.architecture", string("mamba")),
        "general.architecture",
    );
    check(
        &|f| f.set("general.architecture", int(3)),
        "general.architecture",
    );
    check(&|f| f.set("general.alignment", int(3)), "general.alignment");
    check(&|f| f.set("llama.block_count", int(0)), "llama.block_count");
    check(
        &|f| f.set("llama.block_count", string("1")),
        "llama.block_count",
    );
    check(
        &|f| f.set("llama.attention.head_count_kv", int(3)),
        "head_count_kv",
    );
    check(
        &|f| f.set("llama.rope.dimension_count", int(2)),
        "llama.rope.dimension_count",
    );
    check(
        &|f| f.set("llama.rope.scaling.type", string("yarn")),
        "llama.rope.scaling.type",
    );
    check(
        &|f| f.set("llama.attention.sliding_window", int(64)),
        "llama.attention.sliding_window",
    );
    check(
        &|f| f.set("llama.expert_count", int(8)),
        "llama.expert_count",
    );
    check(
        &|f| f.set("tokenizer.ggml.model", string("llama")),
        "tokenizer.ggml.model",
    );
    check(
        &|f| f.set("tokenizer.ggml.pre", string("tekken")),
        "tokenizer.ggml.pre",
    );
    check(
        &|f| f.set("tokenizer.ggml.merges", list(8, &[text("h q!")])),
        "tokenizer.ggml.merges[0]",
    );
    check(
        &|f| f.set("tokenizer.ggml.token_type", list(5, &[vec![0; 4]])),
        "tokenizer.ggml.token_type",
    );
    check(
        &|f| f.set("tokenizer.ggml.eos_token_id", int(99_999)),
        "eos_token_id",
    );
    check(
        &|f| f.set("tokenizer.chat_template", int(1)),
        "tokenizer.chat_template",
    );
}

#[test]
fn a_spoiled_gguf_value_or_tensor_is_named() {
    check(&|f| f.set("odd", list(9, &[])), "odd");
    check(&|f| f.set("odd", value(77, &[])), "odd");
    check(&|f| f.set("odd", value(7, &[2])), "odd");
    check(&|f| f.set("odd", value(8, &[255; 8])), "odd");
    check(
        &|f| {
            f.set(
                "odd",
                value(9, &[[5, 0, 0, 0].as_slice(), &[255; 8]].concat()),
            )
        },
        "odd",
    );
    check(
        &|f| f.pairs.push(("llama.block_count".into(), int(1))),
        "llama.block_count",
    );
    check(&|f| f.tensors[3].kind = 99, "blk.0.attn_q.weight");
    check(
        &|f| f.tensors[3].shape = vec![u64::MAX / 2, 1 << 40],
        "blk.0.attn_q.weight",
    );
    check(&|f| f.tensors[3].shape = vec![0, 8], "blk.0.attn_q.weight");
    check(&|f| f.tensors[3].shape = vec![1; 9], "blk.0.attn_q.weight");
    check(&|f| f.tensors[3].shape = vec![8, 800], "blk.0.");
    check(&|f| f.tensors[3].kind = 12, "blk.0.attn_q.weight");
    check(
        &|f| f.tensors[3].name = "blk.0.attn_k.weight".into(),
        "blk.0.attn_k.weight",
    );
    check(
        &|f| f.tensors[3].data[..4].copy_from_slice(&f32::NAN.to_le_bytes()),
        "blk.0.attn_q.weight",
    );
}

#[test]
fn every_truncation_of_a_gguf_file_is_an_error() {
    let folder = TempDir::new().unwrap();
    let bytes = llama().bytes();
    use_all(&on_disk(&folder, &bytes)).unwrap();
    for length in (0..bytes.len()).step_by(7) {
        use_all(&on_disk(&folder, &bytes[..length])).unwrap_err();
    }
}

/// A safetensors file with two tensors.
fn tensors() -> Vec<u8> {
    let header = br#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"BF16","shape":[1,2],"data_offsets":[8,12]}}"#;
    [
        &(header.len() as u64).to_le_bytes(),
        header.as_slice(),
        &[0; 12],
    ]
    .concat()
}

#[test]
fn a_spoiled_safetensors_header_is_named() {
    let folder = TempDir::new().unwrap();
    let open = |bytes: &[u8]| SafeTensors::open(&on_disk(&folder, bytes));
    let file = open(&tensors()).unwrap();
    assert_eq!(file.tensors()["b"].dtype, Dtype::BF16);
    assert_eq!(file.read("b").unwrap(), [0.0, 0.0]);
    let good = String::from_utf8(tensors()[8..tensors().len() - 12].to_vec()).unwrap();
    for (from, to, name) in [
        ("[0,8]", "[0,9]", "a"),
        ("[0,8]", "[8,0]", "a"),
        ("[8,12]", "[8,13]", "b"),
        ("[8,12]", "[4,8]", "b"),
        ("\"shape\":[2]", "\"shape\":[3]", "a"),
        ("\"shape\":[2]", "\"shape\":[9223372036854775807,4]", "a"),
        ("BF16", "I64", "b"),
        ("\"dtype\":\"F32\",", "", "a"),
    ] {
        let header = good.replacen(from, to, 1);
        assert_ne!(header, good);
        let bytes = [
            &(header.len() as u64).to_le_bytes(),
            header.as_bytes(),
            &[0; 12],
        ]
        .concat();
        let error = open(&bytes).unwrap_err().to_string();
        assert!(error.contains(&format!("`{name}`")), "{to}: {error}");
    }
    for length in [u64::MAX, 1 << 40, 4096] {
        let mut bytes = tensors();
        bytes[..8].copy_from_slice(&length.to_le_bytes());
        assert!(
            open(&bytes)
                .unwrap_err()
                .to_string()
                .contains("header length")
        );
    }
    for length in 0..tensors().len() {
        open(&tensors()[..length]).unwrap_err();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn no_damage_to_a_gguf_file_makes_a_panic(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let folder = TempDir::new().unwrap();
        let mut bytes = llama().bytes();
        for (place, byte) in damage {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        let _either = use_all(&on_disk(&folder, &bytes));
    }

    #[test]
    fn no_damage_to_a_safetensors_file_makes_a_panic(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let folder = TempDir::new().unwrap();
        let mut bytes = tensors();
        for (place, byte) in damage {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if let Ok(file) = SafeTensors::open(&on_disk(&folder, &bytes)) {
            for name in file.tensors().keys() {
                let _either = file.read(name);
            }
        }
    }

    #[test]
    fn any_bytes_of_whole_blocks_dequantise_to_the_right_count(bytes in prop::collection::vec(any::<u8>(), 0..4000)) {
        for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16, Dtype::Q8_0, Dtype::Q4_0, Dtype::Q4_1, Dtype::Q4_K, Dtype::Q5_K, Dtype::Q6_K] {
            let (block, size) = dtype.block();
            let whole = bytes.len() / size;
            let mut out = Vec::new();
            dtype.decode(&bytes[..whole * size], &mut out);
            prop_assert_eq!(out.len(), whole * block);
        }
    }
}
