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
    let cargo = folder.join("Cargo.toml");
    let text = fs::read_to_string(&cargo)
        .with_context(|| format!("failed to read {}", cargo.display()))?;
    let CargoToml { package } = toml::from_str(&text)
        .with_context(|| format!("failed to find the package's name in {}", cargo.display()))?;
    let root = folder
        .canonicalize()
        .with_context(|| format!("failed to find {}", folder.display()))?;
    let job = builder::Job {
        cargo: Path::new("cargo"),
        rustc: Path::new("rustc"),
        root: &root,
        target_dir: &target_dir(&root),
        packages: &[&package.name],
        locked: false,
    };
    let components = job.run(&|said| eprintln!("{said}"))?;
    components
        .into_iter()
        .next()
        .with_context(|| "cargo made no component")
}

/// Cargo's own choice: the author's tests and builds share what they compile.
fn target_dir(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), Into::into)
}

pub(super) fn unit_tests(folder: &Path) -> Command {
    let mut command = Command::new("cargo");
    command
        .args(["test", "--quiet", "--lib", "--manifest-path"])
        .arg(folder.join("Cargo.toml"));
    builder::without_the_outer_build(&mut command);
    if let Some(target) = std::env::var_os("CARGO_TARGET_DIR") {
        command.env("CARGO_TARGET_DIR", target);
    }
    command
}
