//! Budgets on the shape of SmolLM2-135M: what shrinks, in which order, and what a refusal says.

use policy::{Architecture, Deployed, Rope, RopeScaling, Slot};
use rl::PolicyVersion;

use super::*;

fn smollm2() -> Facts {
    Facts {
        model: ModelConfig {
            architecture: Architecture::Llama,
            vocab_size: 49152,
            hidden: 576,
            layers: 30,
            heads: 9,
            kv_heads: 3,
            head_dim: 64,
            ffn: 1536,
            rms_eps: 1e-5,
            rope: Rope {
                theta: 1e5,
                scaling: RopeScaling::None,
            },
            context: 8192,
            tied: true,
            qk_norm: false,
            attention_bias: false,
            eos: vec![2],
            bos: None,
        },
        files: 93 << 20,
        adapters: 0,
    }
}

fn with(memory: &str) -> Config {
    Config {
        memory: Some(memory.parse().unwrap()),
        ..Config::default()
    }
}

#[test]
fn without_a_budget_nothing_changes_and_the_plan_is_the_whole() {
    let mut config = Config::default();
    let plan = fit(&mut config, &smollm2()).unwrap();
    assert_eq!(config, Config::default());
    assert!(plan.shrunk.is_empty());
    let weights = &plan.parts[0];
    // 134.5 million parameters of two bytes, and the angles of 8192 positions.
    assert_eq!((weights.name, weights.bytes >> 20), ("weights", 258));
    assert!(plan.table().contains("259 MiB"), "{}", plan.table());
}

#[test]
fn prefixes_shrink_first_then_sequences_then_activations_and_the_budget_is_met() {
    let facts = smollm2();
    let whole = fit(&mut Config::default(), &facts).unwrap().total();
    let default = Config::default();
    let (running, one) = parts::running(&default, &facts.model);
    let steps = [
        (default.engine.prefix_bytes / 2, 1),
        (default.engine.prefix_bytes + (1 << 20), 2),
        (default.engine.prefix_bytes + running - one + (1 << 20), 3),
    ];
    for (less, said) in steps {
        let mut config = with(&format!("{}B", whole - less));
        let plan = fit(&mut config, &facts).unwrap();
        assert!(
            plan.total() <= whole - less,
            "{} of {}",
            plan.total(),
            whole - less
        );
        assert_eq!(plan.shrunk.len(), said, "{:?}", plan.shrunk);
        assert!(
            plan.shrunk[0].contains("kept prefixes"),
            "{:?}",
            plan.shrunk
        );
        let engine = &config.engine;
        assert_eq!(engine.prefix_bytes == 0, said > 1);
        assert_eq!(engine.kv_bytes < default.engine.kv_bytes, said > 1);
        assert!(engine.kv_bytes >= one, "one whole sequence always fits");
        assert_eq!(config.activation_bytes < default.activation_bytes, said > 2);
        // Nothing else is touched.
        config.engine.clone_from(&default.engine);
        config.activation_bytes = default.activation_bytes;
        config.memory = None;
        assert_eq!(config, default);
    }
}

#[test]
fn a_host_that_never_fits_is_refused_with_its_parts_and_changes_that_do() {
    let facts = smollm2();
    let error = fit(&mut with("2GiB"), &facts).unwrap_err().to_string();
    for part in [
        "the memory budget is 2.00 GiB",
        "nothing was loaded",
        "weights",
        "training: inputs of the layers",
        "together",
    ] {
        assert!(error.contains(part), "no `{part}` in:\n{error}");
    }
    let context = error
        .lines()
        .find_map(|line| line.strip_prefix("  [engine] context = "));
    let mut config = with("2GiB");
    config.engine.context = context.expect(&error).parse().unwrap();
    assert!(fit(&mut config, &facts).is_ok(), "{error}");
    let least = error
        .lines()
        .find_map(|line| line.strip_prefix("  memory = \""));
    let least = least.and_then(|line| line.split('"').next()).expect(&error);
    assert!(fit(&mut with(least), &facts).is_ok(), "{error}");
    // Not a smaller rank or shorter weights alone: what does not help is not said.
    let error = fit(&mut with("64MiB"), &facts).unwrap_err().to_string();
    assert!(error.contains("or several at once"), "{error}");
}

#[test]
fn a_slot_keeps_as_many_versions_as_the_plan_counts() {
    let slot = Slot::default();
    let numbers = 1..=10;
    for number in numbers.clone() {
        slot.publish(Deployed {
            version: PolicyVersion::new(number),
            adapter: None,
        });
    }
    let kept = numbers.filter(|n| slot.recent(PolicyVersion::new(*n)).is_some());
    assert_eq!(kept.count(), 4);
}
