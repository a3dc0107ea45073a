//! What the fuzz targets share: a host with small limits, and guests made of whatever the fuzzer says.
//!
//! Finds nothing itself; start at `fuzz_targets/`. [`contract`] makes guests of a world, [`edit`] spoils good ones.

pub mod contract;
pub mod edit;

use std::sync::OnceLock;

use app::plugins::drive::drive;
use plugin::{Capability, Limits, Plugin, PluginHost, World};

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

/// Loads a component as a host does, granted everything.
///
/// # Errors
/// What an operator would read.
pub fn load(world: World, component: &[u8]) -> Result<Plugin, String> {
    let (own, reaches) = match world {
        World::RewardPlugin => ("token-level = true\nsees = 'group'\n", ""),
        World::JudgePlugin => ("", ""),
        World::EnvironmentPlugin => ("", ", 'shell', 'browser', 'http', 'model', 'store'"),
    };
    let manifest = format!(
        "name = '{}'\nversion = '1'\nworld = '{}'\ndoc = 'x'\n{own}\
         capabilities = ['random', 'clock', 'config'{reaches}]\n\
         [[config]]\nname = 'a-key'\ntype = 'text'\ndefault = 'x'\ndoc = 'x'\n",
        contract::NAME,
        world.as_str(),
    );
    let section = toml::Table::new();
    host()
        .load(&manifest, component, &Capability::ALL, &section)
        .map_err(|error| format!("{error:?}"))
}

/// Calls all that a plugin has, as `plugin check` does. Whatever it answers, this returns.
pub fn call(plugin: &Plugin) {
    if let Ok(calls) = drive(plugin, 1) {
        // What a person would be shown.
        let _ = format!("{calls:?}");
    }
}
