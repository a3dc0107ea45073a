//! Compiles guests written in Rust to components: a nested cargo for [`TARGET`], then `wit-component` around each module.
//!
//! That target has no WASI at all, so any WASI import in a component is visibly a violation; `wasm32-wasip2` guests import it even
//! when they need nothing. Used by the build script of `bundled` for the shipped guests and by `nextstate plugin build` for
//! everybody else's, so that both are made alike. Start at [`Job::run`].

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use wit_component::ComponentEncoder;

/// What guests are compiled for.
pub const TARGET: &str = "wasm32-unknown-unknown";

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

/// Packages of one workspace to be compiled.
#[derive(Debug)]
pub struct Job<'a> {
    /// The cargo and the rustc to use.
    pub cargo: &'a Path,
    /// See [`Job::cargo`].
    pub rustc: &'a Path,
    /// The folder of the workspace's `Cargo.toml`. Paths in panic messages start here.
    pub root: &'a Path,
    /// Where cargo puts what it makes.
    pub target_dir: &'a Path,
    /// The packages; each makes one component.
    pub packages: &'a [&'a str],
    /// Whether `Cargo.lock` must be there and fit.
    pub locked: bool,
}

impl Job<'_> {
    /// Compiles every package; gives their components in the same order. `say` hears what is done beside compiling; cargo itself
    /// writes to standard error.
    ///
    /// # Errors
    /// No toolchain for [`TARGET`], with what to install; a package that does not compile; a module that is no component of a
    /// world.
    pub fn run(&self, say: &dyn Fn(&str)) -> Result<Vec<Vec<u8>>> {
        let mut cargo = toolchain(self.cargo, self.rustc, say)?;
        cargo
            .args(["build", "--release", "--target", TARGET])
            .args(self.locked.then_some("--locked"))
            .args(self.packages.iter().flat_map(|package| ["-p", package]))
            .arg("--manifest-path")
            .arg(self.root.join("Cargo.toml"))
            .arg("--target-dir")
            .arg(self.target_dir)
            .envs(PROFILE)
            .env("CARGO_ENCODED_RUSTFLAGS", remapped_paths(self.root));
        without_the_outer_build(&mut cargo);
        let status = cargo
            .status()
            .with_context(|| format!("failed to start {} for the guests", self.cargo.display()))?;
        ensure!(
            status.success(),
            "{} does not compile for {TARGET}; see the messages above",
            self.packages.join(", ")
        );
        let component = |package: &&str| {
            let file = format!("{}.wasm", package.replace('-', "_"));
            let module = self.target_dir.join(TARGET).join("release").join(file);
            let bytes = fs::read(&module)
                .with_context(|| format!("failed to read {}", module.display()))?;
            component(&bytes).with_context(|| format!("failed to wrap {package} as a component"))
        };
        self.packages.iter().map(component).collect()
    }
}

/// What runs a package's own tests on this machine. Macros and build scripts, which take most of the time, are those that
/// [`Job::run`] compiled: cargo shares them where the profile is the same, down to its link-time optimisation.
///
/// # Errors
/// `rustc` cannot be asked what it compiles for.
pub fn unit_tests(root: &Path, target_dir: &Path, package: &str) -> Result<Command> {
    let host = Command::new("rustc").arg("-vV").output();
    let host = host.context("failed to start rustc")?;
    let host = String::from_utf8_lossy(&host.stdout);
    let mut lines = host.lines();
    let host = lines.find_map(|line| line.strip_prefix("host: "));
    let host = host.context("`rustc -vV` does not say what it compiles for")?;
    let mut command = Command::new("cargo");
    command
        .args(["test", "--release", "--lib", "--target", host])
        .arg("--manifest-path")
        .arg(root.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(target_dir)
        .envs(PROFILE);
    // As in any test: an overflow is a failure. For the package alone, or its macros would be others.
    for check in ["overflow-checks", "debug-assertions"] {
        let setting = format!("profile.release.package.{package}.{check}=true");
        command.args(["--config", &setting]);
    }
    without_the_outer_build(&mut command);
    Ok(command)
}

/// A component around a core module that holds its world.
///
/// # Errors
/// The module is damaged, or it holds no world.
pub fn component(module: &[u8]) -> Result<Vec<u8>> {
    ComponentEncoder::default()
        .module(module)?
        .validate(true)
        .encode()
}

/// Takes the settings of a cargo that runs us out of a command's environment.
pub fn without_the_outer_build(command: &mut Command) {
    for name in LEAKING {
        command.env_remove(name);
    }
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

/// A cargo that can build for [`TARGET`]: the given one, after `rustup target add` if need be; else Debian's, which can build the
/// standard library from source.
fn toolchain(cargo: &Path, rustc: &Path, say: &dyn Fn(&str)) -> Result<Command> {
    if !has_target(rustc) {
        say(&format!("installing the Rust target {TARGET}"));
        let added = Command::new("rustup")
            .args(["target", "add", TARGET])
            .status();
        if !added.is_ok_and(|status| status.success()) || !has_target(rustc) {
            return debian_toolchain();
        }
    }
    Ok(Command::new(cargo))
}

/// Whether the standard library for [`TARGET`] is installed.
fn has_target(rustc: &Path) -> bool {
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
            "guests in Rust need Rust (https://rustup.rs) with the target {TARGET}, which could not be installed.\n\
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
