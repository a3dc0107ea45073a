//! The structure's own rules, as ordinary tests: floors, module headers, recipes, guests, kernels.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The floor of every crate of ours; a crate imports only from floors below its own.
const FLOORS: [(&str, u8); 13] = [
    ("kernels", 0),
    ("rl", 0),
    ("ledger", 0),
    ("bundled", 0),
    ("policy", 1),
    ("plugin", 1),
    ("sandbox", 1),
    ("worker", 2),
    ("serving", 2),
    ("trainer", 2),
    ("loops", 2),
    ("app", 4),
    ("tests", 5),
];

/// Heavy dependencies and the only crate of ours that may name them.
const FENCES: [(&str, &[&str]); 11] = [
    ("wasmtime", &["plugin"]),
    ("seccompiler", &["worker"]),
    ("rusqlite", &["ledger"]),
    ("axum", &["serving"]),
    ("hyper", &["serving"]),
    ("tokenizers", &["policy"]),
    ("safetensors", &["policy", "trainer"]),
    ("minijinja", &["policy"]),
    ("clap", &["app"]),
    ("tungstenite", &["app"]),
    ("tokio", &["serving", "loops", "app", "tests", "ledger"]),
];

/// Where wasmtime is given code that it did not just compile: one block, of one call (decision 0015).
const ARTEFACT: &str = "host/plugin/src/compiled/artefact.rs";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .unwrap()
}

fn metadata() -> cargo_metadata::Metadata {
    cargo_metadata::MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .exec()
        .unwrap()
}

fn files(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                files(&path, extension, found);
            }
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
}

fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in ["kernels", "host", "plugins", "tests"] {
        files(&root().join(folder), "rs", &mut found);
    }
    found
}

#[test]
fn every_dependency_descends_a_floor() {
    let floors: BTreeMap<&str, u8> = FLOORS.into_iter().collect();
    let mut wrong = Vec::new();
    for package in metadata().packages {
        let Some(own) = floors.get(package.name.as_str()) else {
            continue;
        };
        for dependency in &package.dependencies {
            // A test may bring in anything it needs to test against.
            if dependency.kind == cargo_metadata::DependencyKind::Development {
                continue;
            }
            if let Some(other) = floors.get(dependency.name.as_str())
                && other >= own
            {
                wrong.push(format!(
                    "{} (floor {own}) → {} (floor {other})",
                    package.name, dependency.name
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "edges that leave the floors: {wrong:#?}");
}

#[test]
fn every_crate_of_the_host_has_a_floor() {
    let floors: BTreeMap<&str, u8> = FLOORS.into_iter().collect();
    let missing: Vec<String> = metadata()
        .packages
        .into_iter()
        .filter(|p| !p.manifest_path.as_str().contains("/plugins/"))
        .map(|p| p.name.to_string())
        .filter(|name| !floors.contains_key(name.as_str()))
        .collect();
    assert!(
        missing.is_empty(),
        "give these crates a floor in FLOORS: {missing:?}"
    );
}

#[test]
fn heavy_dependencies_stay_behind_their_fences() {
    let fences: BTreeMap<&str, &[&str]> = FENCES.into_iter().collect();
    let mut wrong = Vec::new();
    for package in metadata().packages {
        for dependency in &package.dependencies {
            if dependency.kind == cargo_metadata::DependencyKind::Development {
                continue;
            }
            if let Some(allowed) = fences.get(dependency.name.as_str())
                && !allowed.contains(&package.name.as_str())
            {
                wrong.push(format!("{} → {}", package.name, dependency.name));
            }
        }
    }
    assert!(wrong.is_empty(), "imports across a fence: {wrong:#?}");
}

#[test]
fn every_module_says_what_it_is() {
    let silent: Vec<PathBuf> = sources()
        .into_iter()
        .filter(|path| !std::fs::read_to_string(path).unwrap().starts_with("//!"))
        .collect();
    assert!(
        silent.is_empty(),
        "these files do not open with `//!`: {silent:#?}"
    );
}

#[test]
fn unsafe_code_lives_in_kernels_and_behind_the_guests_macro() {
    let needle = ["unsafe", " {"].concat();
    let strays: Vec<PathBuf> = sources()
        .into_iter()
        .filter(|path| {
            let path = path.strip_prefix(root()).unwrap();
            // The hostile guests break rules on purpose.
            let exempt = [
                "kernels",
                "plugins/sdk",
                "plugins/faulty",
                "plugins/reaching",
                ARTEFACT,
                // Tests: allocators that count, and what loads the stand-in driver.
                "host/app/tests/memory.rs",
                "host/serving/tests/allocations.rs",
                "host/serving/tests/prompts.rs",
                "host/policy/tests/cuda/driver.rs",
            ];
            !exempt.iter().any(|folder| path.starts_with(folder))
        })
        .filter(|path| std::fs::read_to_string(path).unwrap().contains(&needle))
        .collect();
    assert!(
        strays.is_empty(),
        "unsafe blocks outside `kernels`: {strays:#?}"
    );
    let artefact = std::fs::read_to_string(root().join(ARTEFACT)).unwrap();
    assert_eq!(artefact.matches(&needle).count(), 1, "{ARTEFACT}");
}

#[test]
fn every_plugin_has_a_manifest_and_is_named_by_a_test() {
    let mut tests = String::new();
    for path in sources() {
        let text = std::fs::read_to_string(&path).unwrap();
        if path.components().any(|c| c.as_os_str() == "tests") || text.contains("#[cfg(test)]") {
            tests.push_str(&text);
        }
    }
    for entry in std::fs::read_dir(root().join("plugins")).unwrap() {
        let folder = entry.unwrap().path();
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        if ["sdk", "calls", "bundled", "builder"].contains(&name.as_str()) || !folder.is_dir() {
            continue;
        }
        assert!(
            folder.join("plugin.toml").is_file(),
            "plugins/{name} has no plugin.toml"
        );
        assert!(
            tests.contains(&name) || tests.contains(&name.replace('-', "_").to_uppercase()),
            "no test names the plugin {name}"
        );
    }
}

#[test]
fn every_todo_is_an_issue() {
    let needle = ["TO", "DO"].concat();
    let found: Vec<PathBuf> = sources()
        .into_iter()
        .filter(|path| {
            let text = std::fs::read_to_string(path).unwrap();
            text.lines()
                .any(|line| line.contains(&needle) && !line.contains("issue"))
        })
        .collect();
    assert!(found.is_empty(), "unowned notes to self: {found:#?}");
}

/// Files of `kernels/src` that are no ops.
const NO_OPS: [&str; 12] = [
    "ahead.rs",
    "error.rs",
    "lib.rs",
    "memory.rs",
    "packed.rs",
    "peak.rs",
    "pool.rs",
    "reference.rs",
    "rows.rs",
    "simd.rs",
    "tile.rs",
    "unpack.rs",
];

/// Sources of `kernels/cuda` that are no ops.
const NO_KERNELS: [&str; 1] = ["probe.cu"];

/// The first table below a heading of `kernels/README.md`, without its head: cells of each row.
fn table<'a>(readme: &'a str, heading: &str) -> Vec<Vec<&'a str>> {
    let (_, below) = readme.split_once(&format!("\n{heading}\n")).unwrap();
    let rows = below.lines().skip_while(|line| !line.starts_with('|'));
    let rows = rows.take_while(|line| line.starts_with('|')).skip(2);
    let cells = |line: &'a str| line.trim_matches('|').split(" | ").map(str::trim).collect();
    rows.map(cells).collect()
}

/// What stands between backticks.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// Names in a folder, without what is in folders of it.
fn names(folder: &Path, extension: &str) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names
        .filter(|name| name.ends_with(&format!(".{extension}")))
        .collect();
    names.sort();
    names
}

#[test]
fn every_op_is_a_triple_with_a_row_that_says_all_of_it() {
    let kernels = root().join("kernels");
    let readme = std::fs::read_to_string(kernels.join("README.md")).unwrap();
    let reference = std::fs::read_to_string(kernels.join("src/reference.rs")).unwrap();
    let ops = table(&readme, "## The ops");
    let mut wrong = Vec::new();
    let (mut on_cpu, mut on_gpu) = (Vec::new(), Vec::new());
    for row in &ops {
        let [op, _, _, cpu, gpu, plain, _] = row[..] else {
            panic!("a row of seven cells: {row:?}");
        };
        for (place, folder, end, found) in [
            (cpu, "src", ".rs", &mut on_cpu),
            (gpu, "cuda", ".cu", &mut on_gpu),
        ] {
            let files = quoted(place).filter(|name| name.ends_with(end));
            let before = found.len();
            found.extend(files.map(str::to_owned));
            if found.len() == before {
                wrong.push(format!("{op} names no {end}"));
            }
            for file in &found[before..] {
                let own = kernels.join(folder).join(file);
                if !own.is_file() && !root().join(file).is_file() {
                    wrong.push(format!("{op} names {file}, which is not there"));
                }
            }
        }
        let specified =
            |name| reference.contains(&format!("pub fn {name}(")) || kernels.join(name).is_file();
        if quoted(plain).next().is_none() || !quoted(plain).all(specified) {
            wrong.push(format!("{op} has no reference {plain}"));
        }
    }
    for (folder, extension, named, exempt) in [
        ("src", "rs", &on_cpu, &NO_OPS[..]),
        ("cuda", "cu", &on_gpu, &NO_KERNELS[..]),
    ] {
        for file in names(&kernels.join(folder), extension) {
            if !named.contains(&file) && !exempt.contains(&file.as_str()) {
                wrong.push(format!("kernels/{folder}/{file} has no row"));
            }
        }
    }
    // What each device does: its order of sums, its tolerance, its figures.
    let cpu_rows = table(&readme, "## On a CPU");
    let own: Vec<&str> = cpu_rows.iter().map(|row| row[0]).collect();
    let all: Vec<&str> = ops.iter().map(|row| row[0]).collect();
    assert_eq!(own, all, "rows of a CPU, and of all ops");
    let kernel_rows = table(&readme, "### The kernels");
    let mut own: Vec<String> = kernel_rows
        .iter()
        .flat_map(|row| quoted(row[0]).map(|name| format!("{name}.cu")))
        .collect();
    own.sort();
    on_gpu.sort();
    on_gpu.dedup();
    assert_eq!(own, on_gpu, "rows of a GPU, and of all ops");
    let rows = ops.iter().chain(&cpu_rows).chain(&kernel_rows);
    let empty = rows.filter(|row| row.iter().any(|cell| cell.is_empty()));
    wrong.extend(empty.map(|row| format!("an empty cell: {row:?}")));
    assert!(wrong.is_empty(), "kernels/README.md: {wrong:#?}");
}

#[test]
fn every_op_has_a_benchmark() {
    let kernels = root().join("kernels");
    let mut benches = String::new();
    for name in names(&kernels.join("benches/ops"), "rs") {
        benches.push_str(&std::fs::read_to_string(kernels.join("benches/ops").join(name)).unwrap());
    }
    let library = std::fs::read_to_string(kernels.join("src/lib.rs")).unwrap();
    let mut missing = Vec::new();
    for module in library.lines().filter_map(|l| l.strip_prefix("pub mod ")) {
        let module = module.trim_end_matches(';');
        let file = kernels.join("src").join(module).with_extension("rs");
        if NO_OPS.contains(&format!("{module}.rs").as_str()) || !file.is_file() {
            continue;
        }
        let mut sources = vec![file];
        if kernels.join("src").join(module).is_dir() {
            files(&kernels.join("src").join(module), "rs", &mut sources);
        }
        for source in sources {
            let text = std::fs::read_to_string(source).unwrap();
            for line in text.lines().filter_map(|l| l.strip_prefix("pub fn ")) {
                let name = line.split(['(', '<']).next().unwrap();
                if !benches.contains(&format!("{module}::{name}(")) {
                    missing.push(format!("{module}::{name}"));
                }
            }
        }
    }
    assert!(missing.is_empty(), "no row in benches/ops: {missing:?}");
}
