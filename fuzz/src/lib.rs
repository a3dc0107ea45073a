//! What the fuzz targets share: a host with small limits, and guests made of whatever the fuzzer says.
//!
//! Finds nothing itself; start at `fuzz_targets/`. [`contract`] makes guests of a world, [`edit`] spoils good ones.

pub mod contract;
pub mod edit;

use std::sync::OnceLock;

use plugin::{Capability, Limits, PluginHost, World};

/// A host on which a guest meets its limits soon.
pub fn host() -> &'static PluginHost {
    static HOST: OnceLock<PluginHost> = OnceLock::new();
    HOST.get_or_init(|| {
        let limits = Limits {
            component_bytes: 1 << 20,
            runtime_component_bytes: 1 << 20,
            function_bytes: 32 << 10,
            memory_bytes: 4 << 20,
            table_elements: 2_000,
            call_ms: 100,
            call_fuel: 1_000_000,
            output_bytes: 64 << 10,
            host_calls: 100,
            instances: 8,
            ..Limits::default()
        };
        PluginHost::new(limits).expect("these limits fit every machine")
    })
}

/// Loads a component as a host does, and calls all that it has. Whatever it is, this returns.
pub fn load_and_call(world: World, component: &[u8]) -> Result<usize, String> {
    let manifest = format!(
        "name = 'fuzzed'\nversion = '1'\nworld = '{}'\ndoc = 'x'\ncapabilities = ['random', 'clock', 'config', 'shell', 'browser']\n{}\
         [[config]]\nname = 'a-key'\ntype = 'text'\ndefault = 'x'\ndoc = 'x'\n",
        world.as_str(),
        if world == World::RewardPlugin {
            "token-level = true\nsees = 'group'\n"
        } else {
            ""
        },
    );
    let loaded = host().load(&manifest, component, &Capability::ALL, &toml::Table::new());
    let plugin = loaded.map_err(|error| error.to_string())?;
    let calls = app::plugins::drive::drive(&plugin, 1).map_err(|error| format!("{error:#}"))?;
    Ok(calls.iter().filter(|call| !call.is_failure()).count())
}
