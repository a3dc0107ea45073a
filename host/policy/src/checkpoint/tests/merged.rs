//! A merged model says what the base model and the adapter say together.

use std::sync::Arc;

use tempfile::TempDir;

use super::{llama, write};
use crate::checkpoint::Checkpoint;
use crate::{Adapter, Dtype, Kv, Logits, Model, Pool, Scratch, Segment};

/// An adapter that changes something: fresh ones have B = 0.
fn adapter(checkpoint: &Checkpoint) -> Adapter {
    let mut adapter = Adapter::init(&checkpoint.config, 2, 4.0, 7).unwrap();
    adapter.update(|params| {
        for (place, value) in params.iter_mut().enumerate() {
            *value += 0.05 * ((place % 13) as f32 - 6.0) / 6.0;
        }
    });
    adapter
}

fn logits(checkpoint: &Checkpoint, adapter: Option<&Adapter>) -> Vec<f32> {
    let pool = Arc::new(Pool::new(1).unwrap());
    let model = Model::load(checkpoint, Dtype::F32, pool).unwrap();
    let (mut scratch, mut kv) = (Scratch::new(), Kv::new(model.config()));
    let segment = Segment {
        kv: &mut kv,
        tokens: &[3, 5, 8, 2],
        adapter,
        logits: Logits::All,
    };
    model.forward(&mut scratch, &mut [segment]).unwrap();
    scratch.logits(0).flatten().copied().collect()
}

fn says_the_same(base: &Checkpoint, out: &std::path::Path) {
    let adapter = adapter(base);
    base.export_merged(&adapter, out).unwrap();
    let merged = Checkpoint::open(out).unwrap();
    let together = logits(base, Some(&adapter));
    let (alone, before) = (logits(&merged, None), logits(base, None));
    let apart = |a: &[f32], b: &[f32]| {
        let pairs = a.iter().zip(b);
        pairs.map(|(x, y)| (x - y).abs()).fold(0.0, f32::max)
    };
    assert!(
        apart(&together, &before) > 1e-2,
        "the adapter changes nothing"
    );
    assert!(
        apart(&together, &alone) < 1e-4,
        "{}",
        apart(&together, &alone)
    );
    assert!(merged.tokenizer().is_ok() && merged.template().is_ok());
}

#[test]
fn a_folder_is_merged_into_a_folder() {
    let folder = TempDir::new().unwrap();
    for name in ["tiny-llama", "tiny-qwen3"] {
        let base = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
        let base = Checkpoint::open(&base.join(name)).unwrap();
        says_the_same(&base, &folder.path().join(name));
    }
}

#[test]
fn a_gguf_file_is_merged_into_a_gguf_file_with_its_other_tensors_as_they_were() {
    let folder = TempDir::new().unwrap();
    let base = write(&folder, "base.gguf", &llama().bytes());
    let base = Checkpoint::open(&base).unwrap();
    let out = folder.path().join("merged.gguf");
    let adapter = adapter(&base);
    base.export_merged(&adapter, &out).unwrap();
    let merged = Checkpoint::open(&out).unwrap();
    assert!(merged.tokenizer().is_ok() && merged.template().is_ok());
    let all: Vec<_> = adapter.tensors().collect();
    for pair in all.chunks_exact(2) {
        let [(name, [rank, inputs], a), (_, [outputs, _], b)] = pair else {
            panic!("A and B of a map stand side by side");
        };
        let name = name.trim_start_matches("base_model.model.");
        let name = name.replace(".lora_A.weight", ".weight");
        let shape = [*outputs, *inputs];
        let (before, after) = (base.tensor(&name, &shape), merged.tensor(&name, &shape));
        let (before, after) = (before.unwrap(), after.unwrap());
        for (at, (before, after)) in before.iter().zip(&after).enumerate() {
            let (o, i) = (at / inputs, at % inputs);
            let delta: f32 = (0..*rank)
                .map(|r| b[o * rank + r] * a[r * inputs + i])
                .sum();
            // alpha / rank is 2
            assert!(
                (before + 2.0 * delta - after).abs() < 1e-5,
                "{name}[{o}, {i}]"
            );
        }
    }
    let (old, new) = (
        super::gguf::Gguf::open(base.path()).unwrap(),
        super::gguf::Gguf::open(&out).unwrap(),
    );
    assert_eq!(old.tensors().len(), new.tensors().len());
    for (name, info) in old.tensors() {
        let after = &new.tensors()[name];
        let projection = info.shape.len() == 2 && name.starts_with("blk.");
        assert_eq!(
            old.read(name).unwrap() == new.read(name).unwrap(),
            !projection,
            "{name}"
        );
        assert!(projection || after.dtype == info.dtype, "{name}");
    }
}

#[test]
fn an_adapter_of_another_model_is_refused_and_nothing_is_written() {
    let folder = TempDir::new().unwrap();
    let fixtures = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let one = Checkpoint::open(&fixtures.join("tiny-llama")).unwrap();
    let other = Checkpoint::open(&write(&folder, "b.gguf", &llama().bytes())).unwrap();
    let out = folder.path().join("out");
    assert!(one.export_merged(&adapter(&other), &out).is_err());
    assert!(!out.exists());
}
