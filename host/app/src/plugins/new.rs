//! `nextstate plugin new`: a project that builds and passes its own test, with the contract and the SDK inside it.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use bundled::kit;
use plugin::Manifest;

use super::source::{MANIFEST, is_taken};
use super::{Kind, Language, NewArgs};

const IGNORE: &str = "/target\n/plugin.wasm\n/.nextstate\n/.venv\n__pycache__\n/node_modules\n";
/// Where the kit lies in a project: as in this repository, since the SDK's sources name the contract's folder.
const KIT: &str = "nextstate";

struct Template {
    manifest: &'static str,
    key: &'static str,
    grants: &'static str,
}

fn template(kind: Kind) -> Template {
    match kind {
        Kind::Environment => Template {
            manifest: include_str!("templates/environment.toml"),
            key: "environment",
            grants: "[]",
        },
        Kind::Judge => Template {
            manifest: include_str!("templates/judge.toml"),
            key: "judge",
            grants: "[]",
        },
        Kind::Reward => Template {
            manifest: include_str!("templates/reward.toml"),
            key: "reward",
            grants: "[\"config\"]",
        },
    }
}

/// A file of a project, by its path in it; `plugin-name`, `plugin-kind` and `plugin-grants` are filled in.
type File = (&'static str, &'static str);

/// What an author writes; the first is the plugin itself.
fn sources(language: Language, kind: Kind) -> &'static [File] {
    use Kind::{Environment, Judge, Reward};
    match (language, kind) {
        (Language::Rust, Environment) => {
            &[("src/lib.rs", include_str!("templates/environment.rs"))]
        }
        (Language::Rust, Judge) => &[("src/lib.rs", include_str!("templates/judge.rs"))],
        (Language::Rust, Reward) => &[("src/lib.rs", include_str!("templates/reward.rs"))],
        (Language::Python, Environment) => &[
            ("app.py", include_str!("templates/python/environment.py")),
            (
                "test_app.py",
                include_str!("templates/python/environment_test.py"),
            ),
        ],
        (Language::Python, Judge) => &[
            ("app.py", include_str!("templates/python/judge.py")),
            (
                "test_app.py",
                include_str!("templates/python/judge_test.py"),
            ),
        ],
        (Language::Python, Reward) => &[
            ("app.py", include_str!("templates/python/reward.py")),
            (
                "test_app.py",
                include_str!("templates/python/reward_test.py"),
            ),
        ],
        (Language::Js, Environment) => &[
            ("plugin.js", include_str!("templates/js/environment.js")),
            (
                "plugin.test.js",
                include_str!("templates/js/environment.test.js"),
            ),
        ],
        (Language::Js, Judge) => &[
            ("plugin.js", include_str!("templates/js/judge.js")),
            ("plugin.test.js", include_str!("templates/js/judge.test.js")),
        ],
        (Language::Js, Reward) => &[
            ("plugin.js", include_str!("templates/js/reward.js")),
            (
                "plugin.test.js",
                include_str!("templates/js/reward.test.js"),
            ),
        ],
    }
}

/// What comes with it.
fn surroundings(language: Language) -> &'static [File] {
    match language {
        Language::Rust => &[
            ("Cargo.toml", include_str!("templates/Cargo.toml.in")),
            ("README.md", include_str!("templates/README.md.in")),
            ("nextstate/plugins/sdk/Cargo.toml", kit::SDK_MANIFEST),
        ],
        Language::Python => &[
            ("README.md", include_str!("templates/python/README.md.in")),
            (
                "nextstate/python/nextstate_entry.py",
                include_str!("templates/python/nextstate_entry.py"),
            ),
            (
                "nextstate/python/environment.py",
                include_str!("templates/python/environment_entry.py"),
            ),
        ],
        Language::Js => &[
            ("README.md", include_str!("templates/js/README.md.in")),
            ("package.json", include_str!("templates/js/package.json.in")),
            ("nextstate/js/kit.js", include_str!("templates/js/kit.js")),
            (
                "nextstate/js/native.js",
                include_str!("templates/js/native.js"),
            ),
        ],
    }
}

pub(super) fn run(args: &NewArgs) -> anyhow::Result<()> {
    let folder = &args.folder;
    make(folder, args.kind, args.lang)
        .with_context(|| format!("failed to make a plugin in {}", folder.display()))?;
    let shown = folder.display();
    let source = sources(args.lang, args.kind)
        .first()
        .map_or(MANIFEST, |(path, _)| path);
    let play = match args.kind {
        Kind::Environment => format!("\n  nextstate plugin play {shown}"),
        Kind::Judge | Kind::Reward => String::new(),
    };
    println!(
        "{shown}: a plugin that builds and passes its own test.\n\
         It is written in {source}, what it is and asks for in plugin.toml, the contract in {KIT}/wit.\n\n\
         Next:\n  nextstate plugin build {shown}\n  nextstate plugin check {shown}\n  nextstate plugin test {shown}{play}"
    );
    Ok(())
}

fn make(folder: &Path, kind: Kind, language: Language) -> anyhow::Result<()> {
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
        "`{name}` does not begin with a letter, and a package must"
    );
    for taken in ["sdk", "std", "core", "alloc", "test"] {
        ensure!(
            language != Language::Rust || name != taken,
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
        (MANIFEST.to_owned(), manifest),
        (".gitignore".to_owned(), IGNORE.to_owned()),
    ];
    let own = [sources(language, kind), surroundings(language)].concat();
    files.extend(
        own.iter()
            .map(|(path, text)| ((*path).to_owned(), fill(text))),
    );
    files.extend(
        kit::FILES
            .iter()
            .filter(|file| language == Language::Rust || file.path.starts_with("wit/"))
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
        format!(
            "{:#}",
            make(folder, Kind::Reward, Language::Rust).unwrap_err()
        )
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
            for language in [Language::Rust, Language::Python, Language::Js] {
                let lines = sources(language, kind)
                    .iter()
                    .map(|(_, text)| text.lines().count());
                assert!(lines.sum::<usize>() < 100, "{kind:?} in {language:?}");
            }
            let grants: toml::Table = format!("all = {}", template.grants).parse().unwrap();
            assert_eq!(
                grants["all"].as_array().unwrap().len(),
                manifest.capabilities.len()
            );
        }
    }

    #[test]
    fn a_project_is_of_the_language_it_was_made_in_and_has_the_contract() {
        let dir = tempfile::tempdir().unwrap();
        for language in [Language::Rust, Language::Python, Language::Js] {
            let folder = dir
                .path()
                .join(language.mark().to_lowercase().replace('.', "-"));
            make(&folder, Kind::Environment, language).unwrap();
            assert_eq!(Language::of(&folder), Some(language));
            let has = |path: &str| folder.join(path).is_file();
            assert!(
                has("nextstate/wit/types.wit") && has("README.md"),
                "{language:?}"
            );
            assert_eq!(
                has("nextstate/plugins/sdk/src/lib.rs"),
                language == Language::Rust
            );
            let name = folder.file_name().unwrap().to_str().unwrap();
            let readme = fs::read_to_string(folder.join("README.md")).unwrap();
            assert!(
                readme.contains(name) && !readme.contains("plugin-name"),
                "{readme}"
            );
        }
    }
}
