//! The structure's own rules, as ordinary tests: floors, module headers, recipes, guests.

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
const FENCES: [(&str, &[&str]); 10] = [
    ("wasmtime", &["plugin"]),
    ("seccompiler", &["worker"]),
    ("rusqlite", &["ledger"]),
    ("axum", &["serving"]),
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
