//! What configurations promise.

use serde_json::{Value, json};

use super::gguf::{llama3_factors, llama3_from_factors};
use super::*;

fn llama() -> Value {
    json!({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 100, "hidden_size": 64,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 96,
        "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "max_position_embeddings": 4096,
        "tie_word_embeddings": true, "hidden_act": "silu", "bos_token_id": 1, "eos_token_id": [2, 3],
    })
}

fn read(config: &Value) -> Result<ModelConfig> {
    ModelConfig::from_hf(Path::new("config.json"), config, None)
}

#[test]
fn a_llama_configuration_is_read_whole() {
    let config = read(&llama()).unwrap();
    let expected = ModelConfig {
        architecture: Architecture::Llama,
        vocab_size: 100,
        hidden: 64,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 16,
        ffn: 96,
        rms_eps: 1e-5,
        rope: Rope {
            theta: 500_000.0,
            scaling: RopeScaling::None,
        },
        context: 4096,
        tied: true,
        qk_norm: false,
        attention_bias: false,
        eos: vec![2, 3],
        bos: Some(1),
    };
    assert_eq!(config, expected);
}

#[test]
fn qwen3_has_norms_on_queries_and_keys_and_heads_of_its_own_width() {
    let mut json = llama();
    json["model_type"] = json!("qwen3");
    json["architectures"] = json!(["Qwen3ForCausalLM"]);
    json["use_sliding_window"] = json!(false);
    json["sliding_window"] = json!(4096);
    json["layer_types"] = json!(["full_attention", "full_attention"]);
    let config = read(&json).unwrap();
    assert!(config.qk_norm);
    assert_eq!(config.head_dim, 128);
    json["head_dim"] = json!(32);
    assert_eq!(read(&json).unwrap().head_dim, 32);
}

#[test]
fn old_and_new_ways_to_write_rotary_scaling_mean_the_same() {
    let scaling = json!({
        "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    });
    let mut old = llama();
    old["rope_scaling"] = scaling.clone();
    let mut new = llama();
    new.as_object_mut().unwrap().remove("rope_theta");
    new["rope_parameters"] = scaling;
    new["rope_parameters"]["rope_theta"] = json!(500000.0);
    let expected = RopeScaling::Llama3 {
        factor: 32.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_context: 8192,
    };
    for json in [old, new] {
        assert_eq!(
            read(&json).unwrap().rope,
            Rope {
                theta: 500_000.0,
                scaling: expected
            }
        );
    }
    let mut linear = llama();
    linear["rope_scaling"] = json!({"type": "linear", "factor": 2.0});
    assert_eq!(
        read(&linear).unwrap().rope.scaling,
        RopeScaling::Linear { factor: 2.0 }
    );
}

#[test]
fn the_end_tokens_of_generation_config_come_first() {
    let generation = json!({"eos_token_id": [9, 2]});
    let config = ModelConfig::from_hf(Path::new("c"), &llama(), Some(&generation)).unwrap();
    assert_eq!(config.eos, [9, 2, 3]);
}

#[test]
fn what_would_change_the_arithmetic_is_refused_by_name() {
    let scaling = |kind: &str| json!({"rope_type": kind, "factor": 4.0});
    for (name, value) in [
        ("model_type", json!("gemma3")),
        ("model_type", json!(3)),
        ("model_type", Value::Null),
        ("architectures", json!(["LlamaForSequenceClassification"])),
        ("attention_bias", json!(true)),
        ("mlp_bias", json!(true)),
        ("hidden_act", json!("gelu")),
        ("sliding_window", json!(4096)),
        ("use_sliding_window", json!(true)),
        (
            "layer_types",
            json!(["full_attention", "sliding_attention"]),
        ),
        ("quantization_config", json!({"quant_method": "gptq"})),
        ("partial_rotary_factor", json!(0.5)),
        ("rope_scaling", json!("yarn")),
        ("rope_type", scaling("yarn")),
        ("rope_type", scaling("longrope")),
        ("rope_type", scaling("dynamic")),
    ] {
        let mut json = llama();
        json[if name == "rope_type" {
            "rope_scaling"
        } else {
            name
        }] = value;
        let error = read(&json).unwrap_err().to_string();
        assert!(error.contains(&format!("`{name}`")), "{name}: {error}");
    }
}

#[test]
fn sizes_out_of_bounds_are_refused_by_name() {
    for (name, value) in [
        ("hidden_size", json!(0)),
        ("hidden_size", json!(-64)),
        ("hidden_size", json!(66)),
        ("hidden_size", json!(1u64 << 60)),
        ("vocab_size", json!(1e9)),
        ("vocab_size", json!(null)),
        ("num_hidden_layers", json!(100_000)),
        ("num_key_value_heads", json!(3)),
        ("num_key_value_heads", json!(0)),
        ("head_dim", json!(15)),
        ("intermediate_size", json!("many")),
        ("rms_norm_eps", json!(0.0)),
        ("rms_norm_eps", json!(-1.0)),
        ("rope_theta", json!(0)),
        ("rope_theta", json!("x")),
        ("max_position_embeddings", json!(u64::MAX)),
        ("eos_token_id", json!(100)),
        ("eos_token_id", json!("</s>")),
        ("bos_token_id", json!(-1)),
        ("tie_word_embeddings", json!("yes")),
    ] {
        let mut json = llama();
        json[name] = value.clone();
        let error = read(&json).unwrap_err().to_string();
        assert!(error.contains(name), "{name} = {value}: {error}");
    }
}

#[test]
fn llama_cpps_table_of_factors_gives_back_llama_3s_parameters() {
    let factors: Vec<f32> = llama3_factors(500_000.0, 64, 32.0, 1.0, 4.0, 8192.0)
        .iter()
        .map(|f| *f as f32)
        .collect();
    let found = llama3_from_factors(500_000.0, 64, &factors);
    assert!(
        matches!(found, Some(RopeScaling::Llama3 { factor: 32.0, .. })),
        "{found:?}"
    );
    let mut other = factors.clone();
    other[10] *= 1.01;
    assert_eq!(llama3_from_factors(500_000.0, 64, &other), None);
    assert_eq!(llama3_from_factors(500_000.0, 64, &factors[1..]), None);
}
