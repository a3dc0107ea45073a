//! Guests in JavaScript: componentize-qjs, which `npx` gets from the npm registry and keeps.
//!
//! The component holds QuickJS with `plugin.js` evaluated: there is no file system to import from later.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use plugin::Manifest;

use super::contract::{self, BUILT, WORLD};
use super::run;

/// The release that the templates were tried with.
const TOOL: &str = "componentize-qjs@0.4.5";
const INSTALL_NODE: &str = "guests in JavaScript need Node.js 20.6 or later with npx (https://nodejs.org), and the npm registry the first time";
const REMEDY: &str = "the first time it needs the npm registry; an import of `nextstate:plugin/…` that fails needs its capability in plugin.toml; the rest is plugin.js's own";

pub(super) fn compile(folder: &Path, manifest: &Manifest) -> anyhow::Result<Vec<u8>> {
    contract::write(folder, manifest)?;
    let built = folder.join(BUILT);
    let interface = contract::interface(manifest.world);
    // The kit first: it makes `console`, which plugin.js may use while it is evaluated.
    let entry = format!(
        "import {{ exported }} from \"../nextstate/js/kit.js\";\nimport * as plugin from \"../plugin.js\";\n\n\
         export const {interface} = exported(\"{interface}\", plugin);\n"
    );
    let path = built.join("entry.js");
    fs::write(&path, entry).with_context(|| format!("failed to write {}", path.display()))?;
    eprintln!("{TOOL} puts plugin.js and QuickJS into a component");
    let mut command = Command::new(if cfg!(windows) { "npx.cmd" } else { "npx" });
    command
        .args([
            "--yes",
            TOOL,
            "--sync",
            "--stub-wasi",
            "--module-root",
            ".",
            "--world",
            WORLD,
        ])
        .args([
            "--wit",
            ".nextstate/wit",
            "--js",
            ".nextstate/entry.js",
            "--output",
            ".nextstate/plugin.wasm",
        ])
        .current_dir(folder);
    run(
        &mut command,
        "make a component of plugin.js",
        INSTALL_NODE,
        REMEDY,
    )?;
    let output = built.join("plugin.wasm");
    fs::read(&output).with_context(|| format!("failed to read {}", output.display()))
}

pub(super) fn unit_tests(folder: &Path) -> Command {
    let mut command = Command::new("node");
    command.arg("--test").current_dir(folder);
    command
}
