//! What is refused before it runs, and how the refusal reads.

use bundled::{BINARY_REWARD, fixtures::FAULTY};
use plugin::{Capability, GuestJudge, GuestReward, Limits, PluginHost};

use crate::support::{faulty, host, load, load_error};

#[test]
fn an_import_that_the_manifest_does_not_list_is_named() {
    let host = host();
    let manifest = FAULTY.manifest.replace(
        r#"["config", "random", "clock"]"#,
        r#"["config", "random"]"#,
    );
    let refused = host.load(
        &manifest,
        FAULTY.component,
        &Capability::ALL,
        &toml::Table::new(),
    );
    assert_eq!(
        load_error(refused),
        "faulty: it imports `nextstate:plugin/clock@0.1.0`, which its manifest does not list"
    );
}

#[test]
fn an_import_from_outside_the_contract_is_named() {
    let host = host();
    let smuggled = [
        (
            "wasi:filesystem/preopens@0.2.0",
            "wasi:filesystem/preopens@0.2.0",
        ),
        ("nextstate:plugin/log@9.9.9", "nextstate:plugin/log@9.9.9"),
        (
            "nextstate:plugin/shell@0.1.0",
            "nextstate:plugin/shell@0.1.0",
        ),
    ];
    for (import, named) in smuggled {
        let refused = host.load(
            BINARY_REWARD.manifest,
            &component_importing(import),
            &Capability::ALL,
            &toml::Table::new(),
        );
        let said = load_error(refused);
        assert!(said.contains(&format!("it imports `{named}`")), "{said}");
    }
}

/// The smallest component that imports an empty instance of this name, byte by byte.
fn component_importing(name: &str) -> Vec<u8> {
    let mut bytes = b"\0asm\x0d\0\x01\0".to_vec();
    // Type section: one instance type without declarations.
    bytes.extend([7, 3, 1, 0x42, 0]);
    // Import section: one instance of that type.
    let length = u8::try_from(name.len()).unwrap();
    bytes.extend([10, length + 5, 1, 0, length]);
    bytes.extend(name.as_bytes());
    bytes.extend([5, 0]);
    bytes
}

#[test]
fn a_capability_that_was_not_granted_is_named() {
    let host = host();
    let refused = host.load(
        BINARY_REWARD.manifest,
        BINARY_REWARD.component,
        &[],
        &toml::Table::new(),
    );
    assert_eq!(
        load_error(refused),
        "binary-reward: it asks for the capability `config`, which is not granted to it"
    );
}

#[test]
fn a_config_that_breaks_the_schema_is_refused_before_anything_runs() {
    let host = host();
    let said = load_error(load(&host, BINARY_REWARD, "rl-wieght = 1.0"));
    assert!(said.contains("config key `rl-wieght`"), "{said}");
    let said = load_error(load(&host, BINARY_REWARD, "rl-weight = 'much'"));
    assert!(
        said.contains("`rl-weight`: it must be of type number"),
        "{said}"
    );
}

#[test]
fn bytes_that_are_no_component_are_refused() {
    let host = host();
    let refuse = |bytes: &[u8]| {
        load_error(host.load(
            BINARY_REWARD.manifest,
            bytes,
            &Capability::ALL,
            &toml::Table::new(),
        ))
    };
    assert!(refuse(b"").contains("not valid"));
    assert!(refuse(b"hello, world").contains("not valid"));
    assert!(refuse(b"\0asm\x01\0\0\0").contains("a core module, not a component"));
    let mut cut = BINARY_REWARD.component.to_vec();
    cut.truncate(cut.len() / 2);
    assert!(refuse(&cut).contains("not valid"));
    let mut flipped = BINARY_REWARD.component.to_vec();
    for at in (64..flipped.len()).step_by(997) {
        flipped[at] ^= 0x55;
    }
    refuse(&flipped);
}

#[test]
fn a_component_beyond_the_size_cap_is_refused_unread() {
    let limits = Limits {
        component_bytes: 1_000,
        instances: 4,
        ..Limits::default()
    };
    let host = PluginHost::new(limits).unwrap();
    let said = load_error(load(&host, BINARY_REWARD, ""));
    assert!(said.contains("and 1000 are allowed"), "{said}");
    let limits = Limits {
        function_bytes: 10,
        instances: 4,
        ..Limits::default()
    };
    let host = PluginHost::new(limits).unwrap();
    let said = load_error(load(&host, BINARY_REWARD, ""));
    assert!(said.contains("a function of the component has"), "{said}");
}

/// A component of two that call each other with a string (`two-components.wat`): between their memories the engine puts an adapter of its
/// own, which once made it panic. JavaScript guests are made of several.
#[test]
fn components_inside_a_component_are_joined_and_what_does_not_fit_its_world_is_refused() {
    let plugin = host().load(
        BINARY_REWARD.manifest,
        include_bytes!("two-components.wasm"),
        &Capability::ALL,
        &toml::Table::new(),
    );
    let refused = GuestReward::new(&plugin.unwrap()).map(drop);
    let said = format!("{:?}", refused.unwrap_err());
    assert!(said.contains("reward-plugin"), "{said}");
}

#[test]
fn a_module_with_several_memories_is_refused_though_the_engine_knows_them() {
    let mut component = b"\0asm\x0d\0\x01\0".to_vec();
    // A core module of one section: two memories.
    component.extend([1, 15]);
    component.extend(b"\0asm\x01\0\0\0");
    component.extend([5, 5, 2, 0, 1, 0, 1]);
    let refused = host().load(
        BINARY_REWARD.manifest,
        &component,
        &Capability::ALL,
        &toml::Table::new(),
    );
    let said = load_error(refused);
    assert!(said.contains("multiple memories"), "{said}");
}

#[test]
fn a_table_that_begins_beyond_its_limit_is_refused() {
    let mut component = b"\0asm\x0d\0\x01\0".to_vec();
    // A core module of one section: a table of 2^27 - 1 functions.
    component.extend([1, 17]);
    component.extend(b"\0asm\x01\0\0\0");
    component.extend([4, 7, 1, 0x70, 0, 0xff, 0xff, 0xff, 0x3f]);
    let refused = host().load(
        BINARY_REWARD.manifest,
        &component,
        &Capability::ALL,
        &toml::Table::new(),
    );
    let said = load_error(refused);
    assert!(said.contains("table"), "{said}");
}

#[test]
fn a_component_of_another_world_than_its_manifest_says_is_refused() {
    let host = host();
    let manifest = BINARY_REWARD
        .manifest
        .replace("reward-plugin", "judge-plugin");
    let plugin = host
        .load(
            &manifest,
            BINARY_REWARD.component,
            &Capability::ALL,
            &toml::Table::new(),
        )
        .unwrap();
    let said = GuestJudge::new(&plugin).unwrap_err();
    assert!(
        std::error::Error::source(&said)
            .unwrap()
            .to_string()
            .contains("judge"),
        "{said:?}"
    );
    let rule = GuestReward::new(&faulty(&host, "judge-plugin", "none", 0)).unwrap_err();
    let said = std::error::Error::source(&rule).unwrap().to_string();
    assert_eq!(
        said,
        "it is of the world `judge-plugin`, and `reward-plugin` is wanted"
    );
}

#[test]
fn more_instances_than_the_kernel_maps_are_refused_at_start() {
    let said = PluginHost::new(Limits {
        instances: 1 << 24,
        ..Limits::default()
    })
    .unwrap_err();
    assert!(said.to_string().contains("vm.max_map_count"), "{said}");
}

#[test]
fn live_instances_are_limited_and_come_back() {
    let host = PluginHost::new(Limits {
        instances: 3,
        ..Limits::default()
    })
    .unwrap();
    let plugin = faulty(&host, "environment-plugin", "none", 0);
    let environment = plugin::GuestEnvironment::new(&plugin, rl::Seed::new(1)).unwrap();
    let start = || rl::Environment::start(&environment, &"lazy".into(), rl::Seed::new(1));
    let (one, two) = (start().unwrap(), start().unwrap());
    let said = crate::support::words(start());
    assert!(said.contains("live instances"), "{said}");
    drop((one, two));
    start().unwrap();
}
