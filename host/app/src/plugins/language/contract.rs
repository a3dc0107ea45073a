//! What a project in Python or JavaScript is compiled against: the contract that lies in it, and a world of its own.
//!
//! Both toolchains import everything that a world offers, used or not. A plugin's world is therefore made of what its manifest lists:
//! so that it asks for nothing else, and a capability that is not listed is missing while it is built.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use plugin::{Manifest, World};

/// Where a build writes: in the project, so that editors and tests find the bindings; anew at every build.
pub(super) const BUILT: &str = ".nextstate";
/// The plugin's own world.
pub(super) const WORLD: &str = "this-plugin";
/// The contract in a project.
const CONTRACT: &str = "nextstate/wit";

/// Writes the contract with the plugin's own world into `.nextstate/wit`; gives that folder.
pub(super) fn write(folder: &Path, manifest: &Manifest) -> anyhow::Result<PathBuf> {
    let contract = folder.join(CONTRACT);
    let built = folder.join(BUILT).join("wit");
    fs::create_dir_all(&built)
        .with_context(|| format!("failed to make the folder {}", built.display()))?;
    let entries = fs::read_dir(&contract).with_context(|| {
        format!(
            "failed to read the contract in {}; a new project of `nextstate plugin new` has it",
            contract.display()
        )
    })?;
    let mut copied = 0;
    for entry in entries {
        let path = entry?.path();
        if let Some(name) = path
            .file_name()
            .filter(|_| path.extension().is_some_and(|e| e == "wit"))
        {
            fs::copy(&path, built.join(name))
                .with_context(|| format!("failed to copy {}", path.display()))?;
            copied += 1;
        }
    }
    ensure!(
        copied > 0,
        "{} holds no contract (*.wit)",
        contract.display()
    );
    let path = built.join("this-plugin.wit");
    fs::write(&path, world(manifest))
        .with_context(|| format!("failed to write {}", path.display()))?;
    Ok(built)
}

/// The interface that a world exports.
pub(super) fn interface(world: World) -> &'static str {
    match world {
        World::EnvironmentPlugin => "environment",
        World::JudgePlugin => "judge",
        World::RewardPlugin => "reward",
    }
}

fn world(manifest: &Manifest) -> String {
    let wanted = manifest.capabilities.iter().map(|wanted| wanted.as_str());
    let imports: Vec<String> = ["log", "metric"]
        .into_iter()
        .chain(wanted)
        .map(|name| format!("  import {name};"))
        .collect();
    format!(
        "/// What plugin.toml asks for.\nworld {WORLD} {{\n{}\n  export {};\n}}\n",
        imports.join("\n"),
        interface(manifest.world)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_s_world_imports_what_its_manifest_lists_and_nothing_else() {
        let manifest = Manifest::parse(
            "name = \"mine\"\nversion = \"0.1.0\"\nworld = \"reward-plugin\"\ndoc = \"x\"\ncapabilities = [\"random\"]",
        )
        .unwrap();
        assert_eq!(
            world(&manifest),
            "/// What plugin.toml asks for.\nworld this-plugin {\n  import log;\n  import metric;\n  import random;\n  export reward;\n}\n"
        );
    }

    #[test]
    fn a_project_without_the_contract_is_told_where_it_comes_from() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = Manifest::parse(
            "name = \"mine\"\nversion = \"0.1.0\"\nworld = \"reward-plugin\"\ndoc = \"x\"\ncapabilities = []",
        )
        .unwrap();
        let refused = format!("{:#}", write(dir.path(), &manifest).unwrap_err());
        assert!(refused.contains("nextstate/wit"), "{refused}");
        fs::create_dir_all(dir.path().join(CONTRACT)).unwrap();
        let refused = format!("{:#}", write(dir.path(), &manifest).unwrap_err());
        assert!(refused.contains("holds no contract"), "{refused}");
    }
}
