//! Guests in Rust: `cargo` and the crate that also builds the shipped ones.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use serde::Deserialize;

#[derive(Deserialize)]
struct CargoToml {
    package: Package,
}

#[derive(Deserialize)]
struct Package {
    name: String,
}

pub(super) fn compile(folder: &Path) -> anyhow::Result<Vec<u8>> {
    let package = package(folder)?;
    let root = root(folder)?;
    let job = builder::Job {
        cargo: Path::new("cargo"),
        rustc: Path::new("rustc"),
        root: &root,
        target_dir: &target_dir(&root),
        packages: &[&package],
        locked: false,
    };
    let components = job.run(&|said| eprintln!("{said}"))?;
    components
        .into_iter()
        .next()
        .with_context(|| "cargo made no component")
}

/// The package's name.
fn package(folder: &Path) -> anyhow::Result<String> {
    let cargo = folder.join("Cargo.toml");
    let text = fs::read_to_string(&cargo)
        .with_context(|| format!("failed to read {}", cargo.display()))?;
    let CargoToml { package } = toml::from_str(&text)
        .with_context(|| format!("failed to find the package's name in {}", cargo.display()))?;
    Ok(package.name)
}

fn root(folder: &Path) -> anyhow::Result<PathBuf> {
    folder
        .canonicalize()
        .with_context(|| format!("failed to find {}", folder.display()))
}

/// Cargo's own choice: the author's tests and builds share what they compile.
fn target_dir(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), Into::into)
}

pub(super) fn unit_tests(folder: &Path) -> anyhow::Result<Command> {
    let root = root(folder)?;
    builder::unit_tests(&root, &target_dir(&root), &package(folder)?)
}
