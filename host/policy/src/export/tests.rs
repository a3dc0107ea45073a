//! What an exported model promises: it opens, and says what the base with the adapter says.

use std::cell::Cell;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use kernels::Pool;
use tempfile::TempDir;

use super::*;
use crate::checkpoint::Dtype;
use crate::checkpoint::gguf::Gguf;
use crate::checkpoint::tests::writer::{self, Writer};
use crate::config::Architecture;
use crate::{Kv, Logits, Model, Problem, Scratch, Segment, Special};

/// The writer's one-layer model with weights that a model can have.
fn base(folder: &TempDir, architecture: Architecture) -> Checkpoint {
    let path = folder.path().join("base.gguf");
    fs::write(&path, file(architecture).bytes()).unwrap();
    Checkpoint::open(&path).unwrap()
}

fn file(architecture: Architecture) -> Writer {
    let mut file = writer::llama();
    file.set(
        "tokenizer.chat_template",
        writer::string("{{ bos_token }}{{ messages[0].content }}"),
    );
    if architecture == Architecture::Qwen3 {
        let key = |key: &String| key.replace("llama.", "qwen3.");
        file.pairs = file
            .pairs
            .iter()
            .map(|(k, v)| (key(k), v.clone()))
            .collect();
        file.set("general.architecture", writer::string("qwen3"));
        for name in ["attn_q_norm", "attn_k_norm"] {
            file.tensors.push(writer::Stored {
                name: format!("blk.0.{name}.weight"),
                shape: vec![4],
                kind: 0,
                data: Vec::new(),
            });
        }
    }
    for (stream, tensor) in file.tensors.iter_mut().enumerate() {
        let count = tensor.shape.iter().product();
        // Numbers that BF16 holds exactly, so that what is left alone can be compared to the bit.
        let numbers = (0..count).map(|i| {
            let noise = crate::adapter::uniform(stream as u64, i) - 0.5;
            let middle = if tensor.shape.len() == 1 { 1.0 } else { 0.0 };
            half::bf16::from_f32(middle + noise).to_f32()
        });
        tensor.data = match tensor.kind {
            0 => numbers.flat_map(f32::to_le_bytes).collect(),
            _ => numbers
                .flat_map(|n| half::f16::from_f32(n).to_le_bytes())
                .collect(),
        };
    }
    file
}

/// An adapter that changes everything, by about as much as the weights themselves.
fn adapter(config: &crate::ModelConfig) -> Adapter {
    let mut adapter = Adapter::init(config, 2, 4.0, 7).unwrap();
    adapter.update(|params| {
        for (i, p) in params.iter_mut().enumerate() {
            *p += crate::adapter::uniform(9, i as u64) - 0.5;
        }
    });
    adapter
}

fn logits(checkpoint: &Checkpoint, adapter: Option<&Adapter>) -> Vec<f32> {
    let pool = Arc::new(Pool::new(1).unwrap());
    let model = Model::load(checkpoint, kernels::Dtype::F32, pool).unwrap();
    let (mut kv, mut scratch) = (Kv::new(model.config()), Scratch::new());
    let segment = Segment {
        kv: &mut kv,
        tokens: &[0, 40, 41, 42, 90, 17],
        adapter,
        logits: Logits::All,
    };
    model.forward(&mut scratch, &mut [segment]).unwrap();
    scratch.logits(0).flatten().copied().collect()
}

/// `|a − b|₂ / |b|₂`.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let norm = |v: &mut dyn Iterator<Item = f32>| v.map(|x| x * x).sum::<f32>().sqrt();
    norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied())
}

const QUIET: &Progress<'static> = &|_, _| {};

type Export = fn(&Checkpoint, &Adapter, &Path, &Progress<'_>) -> Result<()>;
const FORMATS: [Export; 2] = [merged_gguf, merged_safetensors];

#[test]
fn an_exported_model_says_what_the_base_with_the_adapter_says() {
    for architecture in [Architecture::Llama, Architecture::Qwen3] {
        for export in FORMATS {
            let folder = TempDir::new().unwrap();
            let base = base(&folder, architecture);
            let adapter = adapter(&base.config);
            let out = folder.path().join("out");
            export(&base, &adapter, &out, QUIET).unwrap();
            let merged = Checkpoint::open(&out).unwrap();
            assert_eq!(merged.config, base.config);
            let expected = logits(&base, Some(&adapter));
            let off = distance(&logits(&merged, None), &expected);
            assert!(off < 0.01, "{architecture:?}: {off}");
            // The test can tell: without the adapter, or merged twice, the logits are far away.
            assert!(distance(&logits(&base, None), &expected) > 0.1);
            assert!(distance(&logits(&merged, Some(&adapter)), &expected) > 0.1);
        }
    }
}

#[test]
fn every_merged_weight_is_the_nearest_bf16_of_base_plus_scaled_product() {
    let folder = TempDir::new().unwrap();
    let base = base(&folder, Architecture::Llama);
    let adapter = adapter(&base.config);
    for (n, export) in FORMATS.into_iter().enumerate() {
        let out = folder.path().join(n.to_string());
        export(&base, &adapter, &out, QUIET).unwrap();
        let merged = Checkpoint::open(&out).unwrap();
        let mut pairs = adapter.tensors();
        while let (Some((name, [rank, inputs], a)), Some((_, [outputs, _], b))) =
            (pairs.next(), pairs.next())
        {
            let name = name.replace("base_model.model.", "").replace("lora_A.", "");
            let shape = [outputs, inputs];
            let (before, after) = (
                base.tensor(&name, &shape).unwrap(),
                merged.tensor(&name, &shape).unwrap(),
            );
            for (i, (before, after)) in before.iter().zip(after).enumerate() {
                let (o, i) = (i / inputs, i % inputs);
                let sum: f64 = (0..rank)
                    .map(|r| f64::from(b[o * rank + r]) * f64::from(a[r * inputs + i]))
                    .sum();
                let exact = f64::from(*before) + 2.0 * sum;
                // Half a step of BF16, and what f32 loses on the way.
                let bound = exact.abs() / 256.0 + 1e-6;
                assert!(
                    (f64::from(after) - exact).abs() <= bound,
                    "{name}[{o}][{i}]"
                );
            }
        }
    }
}

#[test]
fn an_adapter_that_changes_nothing_gives_the_base_models_weights() {
    let folder = TempDir::new().unwrap();
    let base = base(&folder, Architecture::Llama);
    let fresh = Adapter::init(&base.config, 2, 4.0, 7).unwrap();
    let expected = logits(&base, None);
    for (n, export) in FORMATS.into_iter().enumerate() {
        let out = folder.path().join(n.to_string());
        export(&base, &fresh, &out, QUIET).unwrap();
        // The base's numbers are exact in BF16.
        assert_eq!(logits(&Checkpoint::open(&out).unwrap(), None), expected);
    }
}

#[test]
fn gguf_keeps_metadata_names_order_and_untouched_tensors_to_the_byte() {
    let folder = TempDir::new().unwrap();
    let mut file = file(Architecture::Llama);
    file.set("general.something", writer::list(5, &[vec![1, 2, 3, 4]]));
    file.tensors.reverse();
    let path = folder.path().join("base.gguf");
    fs::write(&path, file.bytes()).unwrap();
    let base = Checkpoint::open(&path).unwrap();
    let out = folder.path().join("out.gguf");
    merged_gguf(&base, &adapter(&base.config), &out, QUIET).unwrap();

    let (old, new) = (Gguf::open(&path).unwrap(), Gguf::open(&out).unwrap());
    let (old_bytes, new_bytes) = (fs::read(&path).unwrap(), fs::read(&out).unwrap());
    let (range, count) = old.pairs();
    assert_eq!((range.clone(), count), new.pairs());
    // Magic, version, counts and pairs.
    let end = usize::try_from(range.end).unwrap();
    assert_eq!(old_bytes[..end], new_bytes[..end]);
    let order = |file: &Gguf| {
        let mut names: Vec<_> = file
            .tensors()
            .iter()
            .map(|(n, t)| (t.offset, n.clone()))
            .collect();
        names.sort();
        names.into_iter().map(|(_, name)| name).collect::<Vec<_>>()
    };
    assert_eq!(order(&old), order(&new));
    assert_eq!(new_bytes.len() % 32, 0);
    let mut merged = 0;
    for (name, was) in old.tensors() {
        let is = &new.tensors()[name];
        assert_eq!(was.shape, is.shape);
        if name.ends_with("norm.weight") || name == "token_embd.weight" {
            let bytes = |all: &[u8], t: &crate::checkpoint::TensorInfo| {
                let begin = usize::try_from(t.offset).unwrap();
                all[begin..begin + usize::try_from(t.bytes).unwrap()].to_vec()
            };
            assert_eq!(was.dtype, is.dtype);
            assert_eq!(bytes(&old_bytes, was), bytes(&new_bytes, is), "{name}");
        } else {
            assert_eq!(is.dtype, Dtype::BF16);
            merged += 1;
        }
    }
    assert_eq!(merged, 7);
}

#[test]
fn a_quantised_base_is_merged_as_the_reader_dequantises_it() {
    let folder = TempDir::new().unwrap();
    let mut file = file(Architecture::Llama);
    // Wider, so that rows hold whole blocks of 32: width 32, two heads of 16.
    file.set("llama.embedding_length", writer::int(32));
    file.set("llama.feed_forward_length", writer::int(64));
    for (stream, tensor) in file.tensors.iter_mut().enumerate() {
        for axis in &mut tensor.shape {
            *axis = match *axis {
                8 => 32,
                4 => 16,
                12 => 64,
                other => other,
            };
        }
        let count: u64 = tensor.shape.iter().product();
        if tensor.shape.len() == 1 {
            tensor.data = (0..count).flat_map(|_| 1.0f32.to_le_bytes()).collect();
            continue;
        }
        tensor.kind = 8; // Q8_0: a half scale and 32 signed bytes
        let block = |n: u64| {
            let scale = half::f16::from_f32(0.004).to_le_bytes();
            let byte = move |i| (crate::adapter::uniform(stream as u64, n * 32 + i) * 256.0) as u8;
            scale.into_iter().chain((0..32).map(byte))
        };
        tensor.data = (0..count / 32).flat_map(block).collect();
    }
    let path = folder.path().join("base.gguf");
    fs::write(&path, file.bytes()).unwrap();
    let base = Checkpoint::open(&path).unwrap();
    let adapter = adapter(&base.config);
    let expected = logits(&base, Some(&adapter));
    assert!(distance(&logits(&base, None), &expected) > 0.1);
    for (n, export) in FORMATS.into_iter().enumerate() {
        let out = folder.path().join(n.to_string());
        export(&base, &adapter, &out, QUIET).unwrap();
        let off = distance(&logits(&Checkpoint::open(&out).unwrap(), None), &expected);
        assert!(off < 0.02, "{off}");
    }
    let out = Gguf::open(&folder.path().join("0")).unwrap();
    let kept = out.tensors()["token_embd.weight"].dtype;
    assert_eq!(kept, Dtype::Q8_0);
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures")
        .join(name)
}

#[test]
fn a_folder_of_a_gguf_base_has_its_tokenizer_and_template() {
    let text = "The <|end|> of 1234 héros\n";
    for name in ["", "llama-bpe", "qwen2", "smollm", "gpt-2"] {
        let folder = TempDir::new().unwrap();
        let mut file = file(Architecture::Llama);
        if !name.is_empty() {
            // The published rule and whatever the fixture's vocabulary needs, in the small model.
            file.set("tokenizer.ggml.pre", writer::string(name));
        }
        let path = folder.path().join("base.gguf");
        fs::write(&path, file.bytes()).unwrap();
        let base = Checkpoint::open(&path).unwrap();
        let out = folder.path().join("out");
        let fresh = Adapter::init(&base.config, 2, 4.0, 7).unwrap();
        merged_safetensors(&base, &fresh, &out, QUIET).unwrap();
        let made = Checkpoint::open(&out).unwrap();
        let (a, b) = (base.tokenizer().unwrap(), made.tokenizer().unwrap());
        for special in [Special::Parse, Special::Plain] {
            assert_eq!(
                a.encode(text, special).unwrap(),
                b.encode(text, special).unwrap()
            );
        }
        assert_eq!(
            (a.prefix(), a.bos(), a.eos()),
            (b.prefix(), b.bos(), b.eos()),
            "{name}"
        );
        assert_eq!(a.prefix().is_empty(), name != "llama-bpe");
        assert_eq!(a.special_ids(), b.special_ids());
        let settings = fs::read_to_string(out.join("tokenizer_config.json")).unwrap();
        let settings: serde_json::Value = serde_json::from_str(&settings).unwrap();
        assert_eq!(
            settings["chat_template"],
            "{{ bos_token }}{{ messages[0].content }}"
        );
        assert_eq!(settings["bos_token"], "<|begin|>");
    }
}

#[test]
fn a_folder_of_a_folder_keeps_its_small_files_and_is_no_gguf() {
    for name in ["tiny-llama", "tiny-qwen3"] {
        let base = Checkpoint::open(&fixture(name)).unwrap();
        let adapter = adapter(&base.config);
        let folder = TempDir::new().unwrap();
        let out = folder.path().join("deep/out");
        merged_safetensors(&base, &adapter, &out, QUIET).unwrap();
        for small in [
            "config.json",
            "generation_config.json",
            "tokenizer.json",
            "tokenizer_config.json",
        ] {
            let (old, new) = (
                fs::read(fixture(name).join(small)),
                fs::read(out.join(small)),
            );
            assert_eq!(old.unwrap(), new.unwrap(), "{small}");
        }
        let merged = Checkpoint::open(&out).unwrap();
        let expected = logits(&base, Some(&adapter));
        assert!(distance(&logits(&merged, None), &expected) < 0.02);
        assert!(distance(&logits(&base, None), &expected) > 0.1);

        let error = merged_gguf(&base, &adapter, &folder.path().join("x.gguf"), QUIET);
        assert!(matches!(error, Err(Error::NotAModel { .. })));
        assert!(!folder.path().join("x.gguf").exists());
    }
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_written() {
    let folder = TempDir::new().unwrap();
    let base = base(&folder, Architecture::Llama);
    let other = Checkpoint::open(&fixture("tiny-llama")).unwrap();
    let stranger = adapter(&other.config);
    let out = folder.path().join("new/out");
    for export in FORMATS {
        let error = export(&base, &stranger, &out, QUIET).unwrap_err();
        assert!(matches!(error, Error::AdapterSetting { .. }), "{error}");
    }
    // A file whose table contradicts its metadata.
    let mut file = file(Architecture::Llama);
    let down = file
        .tensors
        .iter_mut()
        .find(|t| t.name.contains("ffn_down"))
        .unwrap();
    down.shape.reverse();
    let path = folder.path().join("bad.gguf");
    fs::write(&path, file.bytes()).unwrap();
    let bad = Checkpoint::open(&path).unwrap();
    let error = merged_gguf(&bad, &adapter(&bad.config), &out, QUIET).unwrap_err();
    assert!(matches!(error, Error::TensorShape { .. }), "{error}");
    assert!(!folder.path().join("new").exists());
}

/// The files of a folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn a_failure_on_the_way_leaves_nothing_and_keeps_an_older_file() {
    let folder = TempDir::new().unwrap();
    let base = base(&folder, Architecture::Llama);
    let mut broken = adapter(&base.config);
    // The last matrix: by then much is written.
    broken.update(|params| *params.last_mut().unwrap() = f32::INFINITY);
    let older = folder.path().join("older.gguf");
    fs::write(&older, "an older export").unwrap();
    let before = names(folder.path());
    for export in FORMATS {
        let (out, most) = (folder.path().join("out"), Cell::new(0));
        let progress = |done, _| {
            most.set(done);
            assert!(
                !out.exists(),
                "something is under the final name before it is whole"
            );
        };
        let error = export(&base, &broken, &out, &progress).unwrap_err();
        let problem = matches!(
            error,
            Error::Field {
                problem: Problem::NonFinite { .. },
                ..
            }
        );
        assert!(problem, "{error}");
        assert!(most.get() > 0);
        assert_eq!(names(folder.path()), before);
    }
    merged_gguf(&base, &broken, &older, QUIET).unwrap_err();
    assert_eq!(fs::read_to_string(&older).unwrap(), "an older export");
}

#[test]
fn a_writer_that_is_torn_away_leaves_nothing_under_the_final_name() {
    let folder = TempDir::new().unwrap();
    let base = base(&folder, Architecture::Llama);
    let adapter = adapter(&base.config);
    let before = names(folder.path());
    for export in FORMATS {
        let out = folder.path().join("out");
        let torn = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            export(&base, &adapter, &out, &|done, total| {
                assert!(2 * done < total, "torn away");
            })
        }));
        assert!(torn.is_err());
        assert_eq!(names(folder.path()), before);
    }
}

#[test]
fn an_export_replaces_a_file_but_not_a_folder_with_something_in_it() {
    let folder = TempDir::new().unwrap();
    let base = base(&folder, Architecture::Llama);
    let adapter = adapter(&base.config);
    // Even the base itself: its bytes are read before they go.
    merged_gguf(&base, &adapter, base.path(), QUIET).unwrap();
    let once = Checkpoint::open(base.path()).unwrap();
    let expected = logits(&base, Some(&adapter));
    assert!(distance(&logits(&once, None), &expected) < 0.01);

    let full = folder.path().join("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("mine"), "mine").unwrap();
    let error = merged_safetensors(&base, &adapter, &full, QUIET).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    assert_eq!(names(&full), ["mine"]);
}

#[test]
fn progress_grows_to_the_size_of_what_is_written() {
    let folder = TempDir::new().unwrap();
    let base = base(&folder, Architecture::Llama);
    let adapter = adapter(&base.config);
    for (export, weights) in FORMATS.into_iter().zip(["", "model.safetensors"]) {
        let (out, last) = (
            folder.path().join(format!("out-{weights}")),
            Cell::new((0, 1)),
        );
        let progress = |done, total| {
            assert!(done >= last.get().0 && done <= total);
            last.set((done, total));
        };
        export(&base, &adapter, &out, &progress).unwrap();
        let written = if weights.is_empty() {
            out
        } else {
            out.join(weights)
        };
        let size = fs::metadata(written).unwrap().len();
        assert_eq!(last.get(), (size, size));
    }
}
