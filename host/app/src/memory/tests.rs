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
fn the_plan_of_the_defaults_has_these_parts() {
    let plan = fit(&mut Config::default(), &smollm2()).unwrap();
    let parts = plan.parts.iter();
    let parts: Vec<(&str, u64)> = parts.map(|part| (part.name, part.bytes >> 20)).collect();
    // What a part is computed from is measured in `tests/memory.rs`; here none is left out, or counted less than it was.
    let expected = [
        ("weights", 258),
        ("pages that they do not fill", 18),
        (
            "adapter: the versions that are kept, and those of running replies",
            463,
        ),
        ("adapters that are served only", 0),
        ("training: gradient, moments, and a proposal's", 204),
        ("aside: a second learner (forget, replay)", 209),
        ("aside: what operators have computed", 246),
        ("aside: an adapter that is imported", 94),
        ("training: inputs of the layers", 558),
        ("training: one layer, forward and backward", 581),
        ("training: keys and values of a pack", 188),
        ("training: tile of the vocabulary", 21),
        ("training: activations that are kept", 256),
        ("serving: keys and values", 1024),
        ("serving: kept prefixes", 256),
        ("serving: rows of a step, and samplers", 44),
        ("requests: connections", 8),
        ("requests: bodies and messages", 48),
        ("requests: replies that are not read yet", 16),
        ("requests: prompts that are made tokens of", 22),
        ("plugins", 32),
        ("the rest of the program", 152),
    ];
    assert_eq!(parts, expected);
}

#[test]
fn what_is_missed_least_shrinks_first_and_the_budget_is_met() {
    let facts = smollm2();
    let whole = fit(&mut Config::default(), &facts).unwrap();
    let bytes = |name| {
        let mut parts = whole.parts.iter();
        parts.find(|part| part.name.contains(name)).unwrap().bytes
    };
    let default = Config::default();
    let (running, one) = parts::running(&default, &facts.model);
    let (prefixes, mib) = (default.engine.prefix_bytes, 1 << 20);
    // Twelve versions are planned, of which three can be less.
    let versions = bytes("adapter: the versions") / 12 * 3;
    let activations = default.activation_bytes;
    let steps = [
        (prefixes / 2, 1),
        (prefixes + mib, 2),
        (prefixes + versions + mib, 3),
        (prefixes + versions + running - one + mib, 4),
        (prefixes + versions + running - one + activations + mib, 5),
    ];
    for (less, said) in steps {
        let budget = whole.total() - less;
        let mut config = with(&format!("{budget}B"));
        let plan = fit(&mut config, &facts).unwrap();
        assert!(plan.total() <= budget, "{} of {budget}", plan.total());
        assert_eq!(plan.shrunk.len(), said, "{:?}", plan.shrunk);
        assert!(
            plan.shrunk[0].contains("kept prefixes"),
            "{:?}",
            plan.shrunk
        );
        let engine = &config.engine;
        assert_eq!(engine.prefix_bytes == 0, said > 1);
        assert_eq!(engine.max_versions < default.engine.max_versions, said > 1);
        assert_eq!(engine.max_versions == 3, said > 2);
        assert_eq!(engine.kv_bytes < default.engine.kv_bytes, said > 2);
        assert!(engine.kv_bytes >= one, "one whole sequence always fits");
        assert_eq!(config.activation_bytes < activations, said > 3);
        assert_eq!(config.operators_compute, said < 5);
        // Nothing else is touched.
        config.engine.clone_from(&default.engine);
        config.activation_bytes = activations;
        config.operators_compute = true;
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
fn a_host_with_the_defaults_fits_three_gibibytes() {
    let plan = fit(&mut with("3GiB"), &smollm2()).unwrap();
    assert!(plan.total() <= 3 << 30, "{}", plan.table());
}

#[test]
fn the_demo_fits_the_budget_that_the_readme_gives_it() {
    let mut config: Config = toml::from_str(include_str!("../demo/recipe.toml")).unwrap();
    config.memory = Some("1792MiB".parse().unwrap());
    let plan = fit(&mut config, &smollm2()).unwrap();
    assert!(plan.total() <= 1792 << 20, "{}", plan.table());
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
