//! `nextstate plugin build`: a project's sources to `plugin.wasm`, checked before it takes the old one's place.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, bail};
use indicatif::HumanBytes;
use plugin::Manifest;
use serde::Deserialize;

use super::Folder;
use super::source::{COMPONENT, MANIFEST, Source, manifest};

pub(super) fn run(args: &Folder) -> anyhow::Result<()> {
    let folder = &args.folder;
    let started = Instant::now();
    let text = manifest(folder).with_context(|| {
        format!(
            "{} is no plugin's folder; `nextstate plugin new` makes one",
            folder.display()
        )
    })?;
    let wanted = Manifest::parse(&text)
        .with_context(|| format!("failed to use {}", folder.join(MANIFEST).display()))?;
    let component = compile(folder)
        .with_context(|| format!("failed to build the plugin in {}", folder.display()))?;
    let source = Source {
        manifest: text,
        component,
        folder: Some(folder.clone()),
        grants: Vec::new(),
    };
    let plugin = source.load_trusted(&toml::Table::new())?;
    let path = folder.join(COMPONENT);
    crate::durable::write(&path, &source.component, 0o644)
        .with_context(|| format!("failed to write {}", path.display()))?;
    println!(
        "{}: {} {}, {}, {}, sha256 {}…, {:.1} s",
        path.display(),
        wanted.name,
        wanted.version,
        wanted.world.as_str(),
        HumanBytes(source.component.len() as u64),
        &plugin.digest()[..12],
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

#[derive(Deserialize)]
struct CargoToml {
    package: Package,
}

#[derive(Deserialize)]
struct Package {
    name: String,
}

fn compile(folder: &Path) -> anyhow::Result<Vec<u8>> {
    let cargo = folder.join("Cargo.toml");
    if !cargo.is_file() {
        bail!(
            "there is no Cargo.toml: guests in Rust are built here. A component that another toolchain made \
             (for the world in plugin.toml, without WASI) can be put beside it as {COMPONENT}; `nextstate plugin check` looks at it"
        );
    }
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
fn target_dir(root: &Path) -> std::path::PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), Into::into)
}
