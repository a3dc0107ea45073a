//! `cargo bench -p worker --bench loads -- FOLDER…`: how long a plugin takes to load, compiled and kept, in the host and in a worker. Of the
//! plugins in these folders, beside a shipped one. Figures only: nothing is asserted.
#![expect(clippy::print_stdout, reason = "a command")]

use std::{
    error::Error,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use bundled::BINARY_REWARD;
use plugin::{Capability, Limits, Manifest, PluginHost, compiled::Cache, outside::Outside};
use rl::Seed;
use worker::{Config, Given, Program, Workers};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Loads of a kept component, of which the middle one is shown.
const LOADS: usize = 5;

struct Guest {
    manifest: String,
    component: Vec<u8>,
}

fn main() -> Outcome<()> {
    println!(
        "| | component | compiled, in the host | kept | compiled, in a worker | kept | on disk |\n|---|---|---|---|---|---|---|"
    );
    let shipped = Guest {
        manifest: BINARY_REWARD.manifest.to_owned(),
        component: BINARY_REWARD.component.to_vec(),
    };
    row(&shipped)?;
    // Cargo hands its own argument over as well.
    for folder in std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
    {
        let file = |name| Path::new(&folder).join(name);
        row(&Guest {
            manifest: fs::read_to_string(file("plugin.toml"))?,
            component: fs::read(file("plugin.wasm"))?,
        })?;
    }
    Ok(())
}

fn row(guest: &Guest) -> Outcome<()> {
    let dir = tempfile::tempdir()?;
    let (folder, key) = (
        dir.path().join("compiled"),
        dir.path().join("keys/compiled"),
    );
    let cache = Cache::new(folder.clone(), key, 1 << 30);
    let here = || in_the_host(guest, &cache);
    let apart = || in_a_worker(guest, &cache);
    let (compiled, kept) = (here()?, middle(here)?);
    let (compiled_apart, kept_apart) = (apart()?, middle(apart)?);
    let mut bytes = 0;
    for file in fs::read_dir(folder)? {
        bytes += file?.metadata()?.len();
    }
    println!(
        "| {} | {} KB | {compiled:.1?} | {kept:.1?} | {compiled_apart:.1?} | {kept_apart:.1?} | 2 × {} KB |",
        Manifest::admit(&guest.manifest, &Capability::ALL, &toml::Table::new())?.name,
        guest.component.len() / 1_000,
        bytes / 2_000,
    );
    Ok(())
}

fn middle(load: impl Fn() -> Outcome<Duration>) -> Outcome<Duration> {
    let times: Outcome<Vec<_>> = (0..LOADS).map(|_| load()).collect();
    let mut times = times?;
    times.sort_unstable();
    Ok(times[LOADS / 2])
}

fn in_the_host(guest: &Guest, cache: &Cache) -> Outcome<Duration> {
    let host = PluginHost::keeping(Limits::default(), Outside::default(), Some(cache.clone()))?;
    let (all, section) = (&Capability::ALL, toml::Table::new());
    let started = Instant::now();
    host.load(&guest.manifest, &guest.component, all, &section)?;
    Ok(started.elapsed())
}

/// From nothing to a worker that answers, its process included.
fn in_a_worker(guest: &Guest, cache: &Cache) -> Outcome<Duration> {
    let given = Given {
        manifest: guest.manifest.clone(),
        component: guest.component.clone(),
        grants: Capability::ALL.to_vec(),
        section: toml::Table::new(),
        limits: Limits::default(),
        run: Seed::new(1),
        cache: Some(cache.clone()),
    };
    let program = Program {
        path: env!("CARGO_BIN_EXE_worker-alone").into(),
        arguments: Vec::new(),
    };
    let config = Config {
        spare: false,
        ..Config::default()
    };
    let started = Instant::now();
    Workers::start(given, Outside::default(), program, config)?;
    Ok(started.elapsed())
}
