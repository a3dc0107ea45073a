//! Compiles the guests of `plugins/*` to components, so that nobody needs a step before `cargo run` or `cargo test`.
//!
//! They are built into `guests/` under the target directory, shared by the dev and release builds of the host.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use builder::Job;

/// The guests that are built; each is a folder of `plugins/` and exposed by `src/lib.rs`.
const GUESTS: [&str; 18] = [
    "conversation",
    "tool-call",
    "terminal",
    "swe",
    "tool-import",
    "gui",
    "reaction-judge",
    "step-judge",
    "binary-reward",
    "combined-reward",
    "outcome-reward",
    "step-wise-reward",
    "grpo-reward",
    "dr-grpo-reward",
    "rloo-reward",
    "length-guarded-reward",
    "faulty",
    "reaching",
];

fn main() -> Result<()> {
    let plugins = PathBuf::from(variable("CARGO_MANIFEST_DIR")?)
        .join("..")
        .canonicalize()?;
    let root = plugins.parent().context("plugins/ has no parent folder")?;
    let out = PathBuf::from(variable("OUT_DIR")?);
    watch();
    let (cargo, rustc) = (variable("CARGO")?, variable("RUSTC")?);
    let target_dir = guests_dir(&out)?;
    let job = Job {
        cargo: Path::new(&cargo),
        rustc: Path::new(&rustc),
        root,
        target_dir: &target_dir,
        packages: &GUESTS,
        locked: true,
    };
    let components = job.run(&|said| println!("cargo::warning={said} for the guests"))?;
    for (guest, component) in GUESTS.iter().zip(components) {
        fs::write(out.join(format!("{guest}.wasm")), component)?;
    }
    Ok(())
}

/// Names what the guests are made of. Relative to this package, so that two checkouts can share a target directory.
fn watch() {
    for file in ["build.rs", "../../wit", "../../Cargo.lock"] {
        println!("cargo::rerun-if-changed={file}");
    }
    for guest in GUESTS.iter().chain(&["sdk", "calls"]) {
        println!("cargo::rerun-if-changed=../{guest}/src");
        println!("cargo::rerun-if-changed=../{guest}/Cargo.toml");
        // What sources embed.
        for folder in ["driver", "pages", "repos", "score"] {
            if Path::new("..").join(guest).join(folder).is_dir() {
                println!("cargo::rerun-if-changed=../{guest}/{folder}");
            }
        }
    }
    for name in ["RUSTC_WRAPPER", "RUSTUP_TOOLCHAIN"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
}

/// `<target>/guests`: `OUT_DIR` is `<target>/<profile>/build/<package>-<hash>/out`.
fn guests_dir(out: &Path) -> Result<PathBuf> {
    let target = out
        .ancestors()
        .nth(4)
        .context("OUT_DIR is not inside a target directory")?;
    Ok(target.join("guests"))
}

fn variable(name: &str) -> Result<String> {
    env::var(name).with_context(|| format!("cargo did not set {name}"))
}
