//! What adapter folders promise.

use tempfile::TempDir;

use super::*;
use crate::config::{Architecture, Rope, RopeScaling};

fn model() -> ModelConfig {
    ModelConfig {
        architecture: Architecture::Llama,
        vocab_size: 16,
        hidden: 8,
        layers: 2,
        heads: 2,
        kv_heads: 1,
        head_dim: 4,
        ffn: 12,
        rms_eps: 1e-5,
        rope: Rope {
            theta: 1e4,
            scaling: RopeScaling::None,
        },
        context: 16,
        tied: true,
        qk_norm: false,
        attention_bias: false,
        eos: vec![1],
        bos: None,
    }
}

fn adapter() -> Adapter {
    let mut adapter = Adapter::init(&model(), 3, 6.0, 1).unwrap();
    adapter.update(|params| {
        params
            .iter_mut()
            .zip(0..)
            .for_each(|(p, i)| *p = i as f32 * 0.25)
    });
    adapter
}

fn saved() -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("adapter");
    save(&path, "org/model", &adapter()).unwrap();
    (folder, path)
}

#[test]
fn an_adapter_comes_back_as_it_was_saved() {
    let (folder, path) = saved();
    let loaded = load(&path, &model()).unwrap();
    assert_eq!(loaded.params(), adapter().params());
    assert_eq!((loaded.rank(), loaded.alpha()), (3, 6.0));
    assert_eq!(loaded.digest(), adapter().digest());
    let bytes = fs::read(path.join(WEIGHTS)).unwrap();
    assert_eq!(bytes, adapter().to_safetensors().unwrap());
    let again = Adapter::from_safetensors(&bytes, &model(), 6.0).unwrap();
    assert_eq!(again.digest(), adapter().digest());
    // Nothing is left beside it.
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn saving_again_replaces_the_folder() {
    let (folder, path) = saved();
    let other = Adapter::init(&model(), 2, 4.0, 1).unwrap();
    save(&path, "org/model", &other).unwrap();
    assert_eq!(load(&path, &model()).unwrap().rank(), 2);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn an_adapter_on_some_of_the_maps_leaves_the_others_alone() {
    let (_folder, path) = saved();
    let targets = serde_json::json!({
        "peft_type": "LORA", "r": 3, "lora_alpha": 6, "target_modules": ["q_proj", "v_proj"],
    });
    fs::write(path.join(CONFIG), targets.to_string()).unwrap();
    let all = adapter();
    let kept = |name: &str| name.contains("q_proj") || name.contains("v_proj");
    let data: Vec<(String, Vec<usize>, Vec<u8>)> = all
        .tensors()
        .filter(|(name, ..)| kept(name))
        .map(|(n, s, v)| {
            (
                n,
                s.to_vec(),
                v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            )
        })
        .collect();
    let views = data.iter().map(|(n, s, b)| {
        (
            n.as_str(),
            TensorView::new(StoredDtype::F32, s.clone(), b).unwrap(),
        )
    });
    fs::write(path.join(WEIGHTS), serialize(views, None).unwrap()).unwrap();
    let loaded = load(&path, &model()).unwrap();
    for ((name, _, found), (_, _, expected)) in loaded.tensors().zip(all.tensors()) {
        if kept(&name) {
            assert_eq!(found, expected, "{name}");
        } else {
            assert!(found.iter().all(|v| *v == 0.0), "{name}");
        }
    }
}

#[test]
fn variants_of_lora_are_refused_by_the_name_of_their_field() {
    let path = Path::new(CONFIG);
    let good: Value = serde_json::from_str(&config_json("m", 16, 32.0)).unwrap();
    let config = parse_config(&good, path).unwrap();
    assert_eq!(
        (config.rank, config.alpha, config.targets.len()),
        (16, 32.0, 7)
    );
    assert_eq!(config.base_model.as_deref(), Some("m"));
    for (name, value) in [
        ("peft_type", json!("IA3")),
        ("use_dora", json!(true)),
        ("use_rslora", json!(true)),
        ("bias", json!("all")),
        ("lora_bias", json!(true)),
        ("modules_to_save", json!(["lm_head"])),
        ("rank_pattern", json!({"q_proj": 8})),
        ("alpha_pattern", json!({"q_proj": 8})),
        ("layers_to_transform", json!([0])),
        ("fan_in_fan_out", json!(true)),
        ("target_modules", json!(["q_proj", "lm_head"])),
        ("target_modules", json!(".*q_proj")),
        ("target_modules", json!([])),
        ("target_modules", json!(null)),
        ("r", json!(0)),
        ("r", json!("16")),
        ("r", json!(1 << 20)),
        ("lora_alpha", json!(0)),
        ("lora_alpha", json!(-1.0)),
        ("lora_alpha", json!(null)),
    ] {
        let mut config = good.clone();
        config[name] = value;
        let error = parse_config(&config, path).unwrap_err().to_string();
        assert!(error.contains(&format!("`{name}`")), "{error}");
    }
}

#[test]
fn weights_that_do_not_fit_are_refused_by_the_name_of_the_tensor() {
    let (_folder, path) = saved();
    let mut other = model();
    other.ffn = 16;
    let error = load(&path, &other).unwrap_err().to_string();
    assert!(error.contains("mlp.gate_proj.lora_B.weight"), "{error}");
    other = model();
    other.layers = 1;
    let error = load(&path, &other).unwrap_err().to_string();
    assert!(error.contains("layers.1."), "{error}");
    other.layers = 3;
    let error = load(&path, &other).unwrap_err();
    assert!(matches!(error, Error::MissingTensor { .. }), "{error}");
    let mut bytes = fs::read(path.join(WEIGHTS)).unwrap();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::INFINITY.to_le_bytes());
    fs::write(path.join(WEIGHTS), &bytes).unwrap();
    let error = load(&path, &model()).unwrap_err().to_string();
    assert!(error.contains("non-finite"), "{error}");
    bytes.truncate(end - 1);
    fs::write(path.join(WEIGHTS), &bytes).unwrap();
    assert!(matches!(
        load(&path, &model()),
        Err(Error::Safetensors { .. })
    ));
}
