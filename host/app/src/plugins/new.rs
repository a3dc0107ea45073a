//! `nextstate plugin new`: a project that builds and passes its own test, with the contract and the SDK inside it.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use bundled::kit;
use plugin::Manifest;

use super::source::is_taken;
use super::{Kind, NewArgs};

const CARGO: &str = include_str!("templates/Cargo.toml.in");
const README: &str = include_str!("templates/README.md.in");
const IGNORE: &str = "/target\n/plugin.wasm\n";
/// Where the kit lies in a project: as in this repository, since the SDK's sources name the contract's folder.
const KIT: &str = "nextstate";

struct Template {
    manifest: &'static str,
    source: &'static str,
    key: &'static str,
    grants: &'static str,
}

fn template(kind: Kind) -> Template {
    match kind {
        Kind::Environment => Template {
            manifest: include_str!("templates/environment.toml"),
            source: include_str!("templates/environment.rs"),
            key: "environment",
            grants: "[]",
        },
        Kind::Judge => Template {
            manifest: include_str!("templates/judge.toml"),
            source: include_str!("templates/judge.rs"),
            key: "judge",
            grants: "[]",
        },
        Kind::Reward => Template {
            manifest: include_str!("templates/reward.toml"),
            source: include_str!("templates/reward.rs"),
            key: "reward",
            grants: "[\"config\"]",
        },
    }
}

pub(super) fn run(args: &NewArgs) -> anyhow::Result<()> {
    let folder = &args.folder;
    make(folder, args.kind)
        .with_context(|| format!("failed to make a plugin in {}", folder.display()))?;
    let shown = folder.display();
    println!(
        "{shown}: a plugin that builds and passes its own test.\n\
         The rule is in src/lib.rs, what it is and asks for in plugin.toml, the contract in {KIT}/wit.\n\n\
         Next:\n  nextstate plugin build {shown}\n  nextstate plugin check {shown}\n  nextstate plugin test {shown}"
    );
    Ok(())
}

fn make(folder: &Path, kind: Kind) -> anyhow::Result<()> {
    let name = folder
        .file_name()
        .and_then(|name| name.to_str())
        .with_context(|| "its last part must be the plugin's name")?;
    let template = template(kind);
    let fill = |text: &str| {
        text.replace("plugin-name", name)
            .replace("plugin-kind", template.key)
            .replace("plugin-grants", template.grants)
    };
    let manifest = fill(template.manifest);
    // Before anything is written: the name becomes a package's and a manifest's.
    Manifest::parse(&manifest)?;
    ensure!(
        name.starts_with(|c: char| c.is_ascii_lowercase()),
        "`{name}` does not begin with a letter, and a Rust package must"
    );
    for taken in ["sdk", "std", "core", "alloc", "test"] {
        ensure!(
            name != taken,
            "a Rust package cannot be called `{name}` here"
        );
    }
    if is_taken(name) {
        bail!(
            "`{name}` is shipped with nextstate: a plugin of that name could not be told from it"
        );
    }
    if folder.exists() {
        let empty = fs::read_dir(folder)
            .with_context(|| "it is there, and is no folder")?
            .next()
            .is_none();
        ensure!(
            empty,
            "the folder is there and is not empty; nothing was written"
        );
    }
    let mut files = vec![
        ("plugin.toml".to_owned(), manifest),
        ("Cargo.toml".to_owned(), fill(CARGO)),
        ("README.md".to_owned(), fill(README)),
        (".gitignore".to_owned(), IGNORE.to_owned()),
        ("src/lib.rs".to_owned(), template.source.to_owned()),
        (
            format!("{KIT}/plugins/sdk/Cargo.toml"),
            kit::SDK_MANIFEST.to_owned(),
        ),
    ];
    files.extend(
        kit::FILES
            .iter()
            .map(|file| (format!("{KIT}/{}", file.path), file.text.to_owned())),
    );
    for (path, text) in files {
        let path = folder.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)
                .with_context(|| format!("failed to make the folder {}", parent.display()))?;
        }
        fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(folder: &Path) -> String {
        format!("{:#}", make(folder, Kind::Reward).unwrap_err())
    }

    #[test]
    fn a_name_that_cannot_be_one_is_refused_before_anything_is_written() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "My Plugin",
            "7-up",
            "sdk",
            "binary-reward",
            "words",
            "ümlaut",
        ] {
            let folder = dir.path().join(name);
            assert!(refused(&folder).contains(name), "{name}");
            assert!(!folder.exists(), "{name}");
        }
    }

    #[test]
    fn a_folder_with_something_in_it_is_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("mine");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("thesis.txt"), "years of work").unwrap();
        assert!(refused(&folder).contains("not empty"));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    }

    #[test]
    fn every_kind_s_manifest_is_valid_and_its_source_is_short() {
        for kind in [Kind::Environment, Kind::Judge, Kind::Reward] {
            let template = template(kind);
            let manifest = Manifest::parse(template.manifest).unwrap();
            assert_eq!(manifest.world.as_str(), format!("{}-plugin", template.key));
            assert!(template.source.lines().count() < 100, "{kind:?}");
            let grants: toml::Table = format!("all = {}", template.grants).parse().unwrap();
            assert_eq!(
                grants["all"].as_array().unwrap().len(),
                manifest.capabilities.len()
            );
        }
    }
}
