//! `nextstate plugin watch`: builds and checks a plugin again whenever its sources change, until it is stopped.
//!
//! A host whose configuration names the folder takes the new build at its next turn; one that does not build or is not sound leaves
//! `plugin.wasm` as it was.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;

use super::language::NOT_SOURCES;
use super::source::{COMPONENT, MANIFEST};
use super::{Folder, Which, build, check};

/// How often the sources are looked at.
const LOOK: Duration = Duration::from_millis(500);

pub(super) fn run(args: &Folder) -> anyhow::Result<()> {
    let folder = &args.folder;
    anyhow::ensure!(
        folder.join(MANIFEST).is_file(),
        "{} is no plugin's folder; `nextstate plugin new` makes one",
        folder.display()
    );
    let mut seen = BTreeMap::new();
    loop {
        let now = sources(folder)?;
        if now == seen {
            std::thread::park_timeout(LOOK);
            continue;
        }
        seen = now;
        let which = Which {
            plugin: folder.to_string_lossy().into_owned(),
            set: Vec::new(),
        };
        match build::run(args).and_then(|()| check::run(&which)) {
            Ok(()) => eprintln!("watching {} · Ctrl-C stops", folder.display()),
            Err(error) => {
                eprintln!("error: {error}");
                for cause in error.chain().skip(1) {
                    eprintln!("  because: {cause}");
                }
                eprintln!(
                    "watching {} for the next change · Ctrl-C stops",
                    folder.display()
                );
            }
        }
    }
}

/// Every source with its size and time.
fn sources(folder: &Path) -> anyhow::Result<BTreeMap<PathBuf, (u64, SystemTime)>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder)
            .with_context(|| format!("failed to read the folder {}", folder.display()))?;
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // An editor's file may be gone by now.
            let Ok(data) = entry.metadata() else { continue };
            if name.starts_with('.') || NOT_SOURCES.contains(&name.as_str()) || name == COMPONENT {
                continue;
            }
            if data.is_dir() {
                folders.push(entry.path());
            } else if data.is_file() && name != "Cargo.lock" && !name.ends_with(".lock") {
                found.insert(entry.path(), (data.len(), data.modified()?));
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_change_of_a_source_is_seen_and_that_of_a_product_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path();
        for made in ["src", "target/debug", ".git", "nextstate/wit"] {
            fs::create_dir_all(folder.join(made)).unwrap();
        }
        fs::write(folder.join("src/lib.rs"), "one").unwrap();
        let before = sources(folder).unwrap();
        assert_eq!(before.len(), 1);
        for product in [
            "target/debug/x",
            ".git/x",
            "nextstate/wit/x",
            COMPONENT,
            "Cargo.lock",
        ] {
            fs::write(folder.join(product), "made").unwrap();
        }
        assert_eq!(sources(folder).unwrap(), before);
        fs::write(folder.join("src/lib.rs"), "one more").unwrap();
        assert_ne!(sources(folder).unwrap(), before);
    }
}
