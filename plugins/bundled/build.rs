//! Compiles the guests of `plugins/*` to components, so that nobody needs a step before `cargo run` or `cargo test`.
//!
//! A nested cargo builds them for `wasm32-unknown-unknown` into `guests/` under the target directory (shared by the dev and
//! release builds of the host), and `wit-component` wraps each module. That target has no WASI at all, so any WASI import in a
//! component is visibly a violation; `wasm32-wasip2` guests import it even when they need nothing.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use wit_component::ComponentEncoder;

const TARGET: &str = "wasm32-unknown-unknown";

/// The guests that are built; each is a folder of `plugins/` and exposed by `src/lib.rs`.
const GUESTS: [&str; 5] = [
    "conversation",
    "reaction-judge",
    "binary-reward",
    "combined-reward",
    "faulty",
];

/// Variables of the outer cargo (or of `cargo clippy`) that would leak the host's settings into the guests' build.
const LEAKING: [&str; 10] = [
    "RUSTFLAGS",
    "RUSTDOCFLAGS",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_BUILD_TARGET_DIR",
    "CARGO_TARGET_DIR",
    "CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS",
    "RUSTC_WORKSPACE_WRAPPER",
    "CLIPPY_ARGS",
    "CARGO_INCREMENTAL",
];

/// Small guests compile and load fast; a trap ends the instance, so nothing needs to unwind.
const PROFILE: [(&str, &str); 6] = [
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "s"),
    ("CARGO_PROFILE_RELEASE_LTO", "true"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1"),
    ("CARGO_PROFILE_RELEASE_STRIP", "true"),
    ("CARGO_PROFILE_RELEASE_DEBUG", "0"),
    ("CARGO_PROFILE_RELEASE_PANIC", "abort"),
];

fn main() -> Result<()> {
    let plugins = PathBuf::from(variable("CARGO_MANIFEST_DIR")?)
        .join("..")
        .canonicalize()?;
    let root = plugins.parent().context("plugins/ has no parent folder")?;
    let out = PathBuf::from(variable("OUT_DIR")?);
    watch();

    let target_dir = guests_dir(&out)?;
    let mut cargo = toolchain()?;
    cargo
        .args(["build", "--release", "--locked", "--target", TARGET])
        .args(GUESTS.iter().flat_map(|guest| ["-p", guest]))
        .arg("--manifest-path")
        .arg(root.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target_dir)
        .envs(PROFILE)
        .env("CARGO_ENCODED_RUSTFLAGS", remapped_paths(root));
    for name in LEAKING {
        cargo.env_remove(name);
    }
    let status = cargo
        .status()
        .context("failed to start the nested cargo of the guests")?;
    ensure!(
        status.success(),
        "the guests in plugins/ do not compile for {TARGET}; see the messages above"
    );

    for guest in GUESTS {
        let file = format!("{}.wasm", guest.replace('-', "_"));
        let module = target_dir.join(TARGET).join("release").join(file);
        let component = wrap(&module)
            .with_context(|| format!("failed to wrap guest {guest} as a component"))?;
        fs::write(out.join(format!("{guest}.wasm")), component)?;
    }
    Ok(())
}

/// Names what the guests are made of. Relative to this package, so that two checkouts can share a target directory.
fn watch() {
    for file in ["build.rs", "../../wit", "../../Cargo.lock"] {
        println!("cargo::rerun-if-changed={file}");
    }
    for guest in GUESTS.iter().chain(&["sdk"]) {
        println!("cargo::rerun-if-changed=../{guest}/src");
        println!("cargo::rerun-if-changed=../{guest}/Cargo.toml");
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

/// Panic messages name source files: keep this machine's folders out of them, so that the same source gives the same component.
fn remapped_paths(root: &Path) -> String {
    let home = env::var("CARGO_HOME").ok().map(PathBuf::from);
    let home = home.or_else(|| env::home_dir().map(|home| home.join(".cargo")));
    let remap = |from: &Path, to: &str| format!("--remap-path-prefix={}={to}", from.display());
    let flags = [
        Some(remap(root, "nextstate")),
        home.map(|home| remap(&home, "cargo")),
    ];
    flags
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join("\u{1f}")
}

fn wrap(module: &Path) -> Result<Vec<u8>> {
    let bytes = fs::read(module).with_context(|| format!("failed to read {}", module.display()))?;
    ComponentEncoder::default()
        .module(&bytes)?
        .validate(true)
        .encode()
}

/// A cargo that can build for [`TARGET`]: the one that runs us, after `rustup target add` if need be; else Debian's, which can
/// build the standard library from source.
fn toolchain() -> Result<Command> {
    let rustc = variable("RUSTC")?;
    if !has_target(&rustc) {
        println!("cargo::warning=installing the Rust target {TARGET} for the guests");
        let added = Command::new("rustup")
            .args(["target", "add", TARGET])
            .status();
        if !added.is_ok_and(|status| status.success()) || !has_target(&rustc) {
            return debian_toolchain();
        }
    }
    Ok(Command::new(variable("CARGO")?))
}

/// Whether the standard library for [`TARGET`] is installed.
fn has_target(rustc: &str) -> bool {
    let output = Command::new(rustc)
        .args(["--print", "target-libdir", "--target", TARGET])
        .output();
    let Ok(output) = output else { return false };
    let folder = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    output.status.success() && folder.is_dir()
}

/// Debian's Rust with its sources and LLVM's linker, all from packages.
fn debian_toolchain() -> Result<Command> {
    let (cargo, rustc, linker) = ("/usr/bin/cargo", "/usr/bin/rustc", "/usr/bin/wasm-ld-14");
    let sources = Path::new("/usr/lib/rustlib/src/rust/library");
    let sources_elsewhere = Path::new("/usr/src").is_dir()
        && fs::read_dir("/usr/src")?
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().starts_with("rustc"));
    let installed = [cargo, rustc, linker]
        .iter()
        .all(|file| Path::new(file).exists());
    if !installed || !(sources.is_dir() || sources_elsewhere) {
        bail!(
            "the guests in plugins/ need the Rust target {TARGET}, and it could not be installed.\n\
             With rustup and a network: rustup target add {TARGET}\n\
             On Debian without rustup's servers: apt-get install -y --no-install-recommends \
             cargo-web rustc-web rust-web-src lld-14"
        );
    }
    let mut command = Command::new(cargo);
    command
        .env("RUSTC", rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker)
        .arg("-Zbuild-std=std,panic_abort");
    Ok(command)
}

fn variable(name: &str) -> Result<String> {
    env::var(name).with_context(|| format!("cargo did not set {name}"))
}
