//! What a checkpoint's readers promise.

use std::fs;

use ::safetensors::tensor::{Dtype as StoredDtype, TensorView, serialize_to_file};
use tempfile::TempDir;

use super::*;

mod hostile;
pub(crate) mod writer;

use writer::{llama, numbers};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/text")
        .join(name)
}

#[test]
fn every_block_format_dequantises_to_the_bit_as_the_gguf_package_does() {
    let file = gguf::Gguf::open(&fixture("quantized.gguf")).unwrap();
    let expected = safetensors::SafeTensors::open(&fixture("quantized.safetensors")).unwrap();
    assert_eq!(file.tensors().len(), 9);
    for name in file.tensors().keys() {
        let (found, expected) = (file.read(name).unwrap(), expected.read(name).unwrap());
        assert_eq!(found.len(), 3 * 512);
        let differs = found
            .iter()
            .zip(&expected)
            .position(|(a, b)| a.to_bits() != b.to_bits());
        assert_eq!(differs, None, "{name}");
    }
}

/// A file or folder of its own.
fn write(folder: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn a_gguf_file_opens_under_hugging_faces_names() {
    let folder = TempDir::new().unwrap();
    let path = write(&folder, "tiny.gguf", &llama().bytes());
    // The folder with one GGUF file in it is as good as the file.
    for path in [path.as_path(), folder.path()] {
        let checkpoint = Checkpoint::open(path).unwrap();
        let config = &checkpoint.config;
        assert_eq!(
            (
                config.hidden,
                config.heads,
                config.kv_heads,
                config.head_dim
            ),
            (8, 2, 1, 4)
        );
        assert!(config.tied && !config.qk_norm);
        assert_eq!(
            (config.eos.as_slice(), config.bos),
            ([1].as_slice(), Some(0))
        );
        assert_eq!(checkpoint.name, "tiny");
        assert!(checkpoint.has("model.embed_tokens.weight") && !checkpoint.has("lm_head.weight"));
        let down = checkpoint
            .tensor("model.layers.0.mlp.down_proj.weight", &[8, 12])
            .unwrap();
        assert_eq!(down, numbers(96));
        assert!(checkpoint.tokenizer().unwrap().vocab_size() > 256);
        assert_eq!(checkpoint.fingerprint().unwrap().len(), 64);
    }
    write(&folder, "second.gguf", b"");
    assert!(matches!(
        Checkpoint::open(folder.path()),
        Err(Error::NotAModel { .. })
    ));
}

#[test]
fn llamas_query_and_key_rows_are_put_back_into_halves() {
    let folder = TempDir::new().unwrap();
    let checkpoint = Checkpoint::open(&write(&folder, "t.gguf", &llama().bytes())).unwrap();
    // The converter writes row 2 i + s of a head from row i + s * 2 (head width 4).
    let q = checkpoint
        .tensor("model.layers.0.self_attn.q_proj.weight", &[8, 8])
        .unwrap();
    let first_of_row: Vec<f32> = q.iter().step_by(8).copied().collect();
    let stored = numbers(64);
    let order = [0usize, 2, 1, 3, 4, 6, 5, 7].map(|row| stored[row * 8]);
    assert_eq!(first_of_row, order);
    let v = checkpoint
        .tensor("model.layers.0.self_attn.v_proj.weight", &[4, 8])
        .unwrap();
    assert_eq!(v, numbers(32));
}

#[test]
fn a_missing_or_misshapen_tensor_is_named() {
    let folder = TempDir::new().unwrap();
    let checkpoint = Checkpoint::open(&write(&folder, "t.gguf", &llama().bytes())).unwrap();
    let name = "model.layers.0.mlp.down_proj.weight";
    let error = checkpoint.tensor(name, &[12, 8]).unwrap_err().to_string();
    assert!(error.contains(name) && error.contains("[8, 12]"), "{error}");
    for name in [
        "model.layers.7.mlp.down_proj.weight",
        "nonsense",
        "model.layers.x.mlp.up_proj.weight",
    ] {
        let error = checkpoint.tensor(name, &[8, 12]).unwrap_err();
        assert!(matches!(error, Error::MissingTensor { .. }), "{error}");
    }
}

#[test]
fn the_fingerprint_follows_every_byte() {
    let folder = TempDir::new().unwrap();
    let mut bytes = llama().bytes();
    let print = |bytes: &[u8]| {
        Checkpoint::open(&write(&folder, "t.gguf", bytes))
            .unwrap()
            .fingerprint()
            .unwrap()
    };
    let before = print(&bytes);
    assert_eq!(print(&bytes), before);
    *bytes.last_mut().unwrap() ^= 1;
    assert_ne!(print(&bytes), before);
}

/// The parts of a tiny Hugging Face folder.
fn hugging_face(folder: &TempDir, files: &[(&str, &[(&str, f32)])]) {
    let config = serde_json::json!({
        "model_type": "llama", "vocab_size": 4, "hidden_size": 2, "num_hidden_layers": 1,
        "num_attention_heads": 1, "intermediate_size": 2,
    });
    write(folder, "config.json", config.to_string().as_bytes());
    for (file, tensors) in files {
        let data: Vec<(&str, Vec<u8>)> = tensors
            .iter()
            .map(|(name, value)| {
                (
                    *name,
                    [*value; 2].iter().flat_map(|v| v.to_le_bytes()).collect(),
                )
            })
            .collect();
        let views = data.iter().map(|(name, bytes)| {
            (
                *name,
                TensorView::new(StoredDtype::F32, vec![1, 2], bytes).unwrap(),
            )
        });
        serialize_to_file(views, None, &folder.path().join(file)).unwrap();
    }
}

#[test]
fn a_folder_opens_with_one_file_or_with_shards() {
    let folder = TempDir::new().unwrap();
    hugging_face(
        &folder,
        &[
            ("model-1.safetensors", &[("a", 1.0)]),
            ("model-2.safetensors", &[("b", 2.0)]),
        ],
    );
    let index = r#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}"#;
    write(&folder, "model.safetensors.index.json", index.as_bytes());
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(checkpoint.tensor("b", &[1, 2]).unwrap(), [2.0, 2.0]);
    assert!(checkpoint.has("a") && !checkpoint.has("c"));
    hugging_face(&folder, &[("model.safetensors", &[("c", 3.0)])]);
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(checkpoint.tensor("c", &[1, 2]).unwrap(), [3.0, 3.0]);
}

#[test]
fn an_index_may_not_point_out_of_its_folder_or_at_the_wrong_file() {
    let folder = TempDir::new().unwrap();
    hugging_face(&folder, &[("model-1.safetensors", &[("a", 1.0)])]);
    for (index, part) in [
        (
            r#"{"weight_map": {"a": "../model-1.safetensors"}}"#,
            "weight_map.a",
        ),
        (r#"{"weight_map": {"a": "/etc/passwd"}}"#, "weight_map.a"),
        (
            r#"{"weight_map": {"b": "model-1.safetensors"}}"#,
            "weight_map.b",
        ),
        (
            r#"{"weight_map": {"a": "missing.safetensors"}}"#,
            "missing.safetensors",
        ),
        (r#"{"weight_map": []}"#, "index.json"),
    ] {
        write(&folder, "model.safetensors.index.json", index.as_bytes());
        let error = Checkpoint::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn a_folders_template_comes_from_the_jinja_file_then_from_the_settings() {
    let folder = TempDir::new().unwrap();
    hugging_face(&folder, &[("model.safetensors", &[("a", 1.0)])]);
    let template = || Checkpoint::open(folder.path()).and_then(|c| c.template());
    assert_eq!(
        template().unwrap().source(),
        ChatTemplate::chatml().source()
    );
    let list = br#"{"chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]}"#;
    write(&folder, "tokenizer_config.json", list);
    assert_eq!(template().unwrap().source(), "d");
    write(
        &folder,
        "tokenizer_config.json",
        br#"{"chat_template": "{{ bos_token }}s", "bos_token": {"content": "<s>"}}"#,
    );
    assert_eq!(template().unwrap().render(&[], &[], false).unwrap(), "<s>s");
    write(&folder, "tokenizer_config.json", br#"{"chat_template": 3}"#);
    assert!(
        template()
            .unwrap_err()
            .to_string()
            .contains("chat_template")
    );
    write(&folder, "tokenizer_config.json", b"{}");
    write(&folder, "chat_template.jinja", b"file");
    assert_eq!(template().unwrap().source(), "file");
}
