//! The languages that a plugin can be written in: how a project of each becomes a component, and how its own tests are run.
//!
//! A project's language is told by its files. The toolchains are their own (`cargo`, componentize-py, componentize-qjs): nothing here
//! compiles. What they make imports no WASI, since the host has none (decisions 0002 and 0010).

mod contract;
mod javascript;
mod python;
mod rust;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use plugin::Manifest;

use super::source::COMPONENT;

/// Folders in which nothing is a source.
pub(super) const NOT_SOURCES: [&str; 4] = ["target", "node_modules", "__pycache__", "nextstate"];

/// A language that plugins are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Language {
    /// Small and fast components; needs cargo
    Rust,
    /// CPython inside, 18 MB; needs Python 3.11 or later
    Python,
    /// QuickJS inside, 1.6 MB; needs Node.js 20.6 or later
    #[value(alias = "javascript")]
    Js,
}

impl Language {
    const ALL: [Language; 3] = [Language::Rust, Language::Python, Language::Js];

    /// The language of a project, by its files; none where it is none that is built here.
    pub(super) fn of(folder: &Path) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|language| folder.join(language.mark()).is_file())
    }

    /// The file that a project of this language has.
    pub(super) fn mark(self) -> &'static str {
        match self {
            Language::Rust => "Cargo.toml",
            Language::Python => "app.py",
            Language::Js => "plugin.js",
        }
    }

    /// Makes the component of a project.
    pub(super) fn compile(self, folder: &Path, manifest: &Manifest) -> anyhow::Result<Vec<u8>> {
        match self {
            Language::Rust => rust::compile(folder),
            Language::Python => python::compile(folder, manifest),
            Language::Js => javascript::compile(folder, manifest),
        }
    }

    /// Whether a file of a project goes into its component.
    fn is_source(self, name: &str) -> bool {
        match self {
            Language::Rust => name.ends_with(".rs") || name == "Cargo.toml",
            Language::Python => name.ends_with(".py") && !name.starts_with("test_"),
            Language::Js => name.ends_with(".js") && !name.ends_with(".test.js"),
        }
    }

    /// A source of a project that was changed after its component was made, if there is one.
    pub(super) fn newer(self, folder: &Path) -> Option<PathBuf> {
        let changed = |path: &Path| fs::metadata(path).and_then(|data| data.modified()).ok();
        let made = changed(&folder.join(COMPONENT))?;
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).ok()?.flatten() {
                let (path, name) = (entry.path(), entry.file_name());
                let name = name.to_string_lossy();
                if name.starts_with('.') || NOT_SOURCES.contains(&&*name) {
                    continue;
                }
                if path.is_dir() {
                    folders.push(path);
                } else if self.is_source(&name) && changed(&path).is_some_and(|at| at > made) {
                    return Some(path);
                }
            }
        }
        None
    }

    /// What an author is told about a guest that broke without a word of its own.
    pub(super) fn of_silence(self) -> Option<&'static str> {
        match self {
            // A panic is logged by the kit, and an exception by CPython.
            Language::Rust | Language::Python => None,
            Language::Js => Some(
                "a plugin in JavaScript breaks so, without a word, when its answer has another shape than the contract's: \
                 a misspelt tag, a field that is missing. `nextstate plugin wit judge.question` shows a shape",
            ),
        }
    }

    /// What runs the project's own tests, outside the sandbox.
    pub(super) fn unit_tests(self, folder: &Path) -> anyhow::Result<Command> {
        match self {
            Language::Rust => rust::unit_tests(folder),
            Language::Python => python::unit_tests(folder),
            Language::Js => Ok(javascript::unit_tests(folder)),
        }
    }
}

/// The language of a project that is to be built.
pub(super) fn of(folder: &Path) -> anyhow::Result<Language> {
    let marks: Vec<&str> = Language::ALL.map(Language::mark).to_vec();
    Language::of(folder).with_context(|| {
        format!(
            "there is none of {}: guests in Rust, Python and JavaScript are built here. A component that another toolchain made \
             (for the world in plugin.toml, without WASI) can be put beside it as {COMPONENT}; `nextstate plugin check` looks at it",
            marks.join(", ")
        )
    })
}

/// Runs a tool to its end. What it says is shown only where it fails, which it does often enough with a reason of the author's:
/// `remedy` is for that, `install` for a tool that is not there.
fn run(command: &mut Command, what: &str, install: &str, remedy: &str) -> anyhow::Result<Output> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("failed to start `{program}` to {what}: {install}"))?;
    if output.status.success() {
        return Ok(output);
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    bail!(
        "`{program}` failed to {what} ({}): {remedy}. It said:\n{}",
        output.status,
        without_backtrace(&said)
    );
}

/// What a tool says without its own stack, which is of no use to an author.
fn without_backtrace(said: &str) -> &str {
    let end = said.find("\nStack backtrace:").unwrap_or(said.len());
    said.get(..end).unwrap_or(said).trim_end()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn a_project_s_language_is_told_by_its_files() {
        let dir = tempfile::tempdir().unwrap();
        let refused = of(dir.path()).unwrap_err().to_string();
        assert!(refused.contains("Cargo.toml, app.py, plugin.js"));
        fs::write(dir.path().join("plugin.js"), "").unwrap();
        assert_eq!(of(dir.path()).unwrap(), Language::Js);
        fs::write(dir.path().join("Cargo.toml"), "").unwrap();
        assert_eq!(of(dir.path()).unwrap(), Language::Rust);
    }

    #[test]
    fn a_source_that_is_newer_than_the_component_is_found_and_what_does_not_go_into_it_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path();
        let put = |path: &str, hours: u64| {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let file = fs::File::create(path).unwrap();
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(3_600 * hours);
            file.set_modified(at).unwrap();
        };
        put("app.py", 1);
        assert_eq!(Language::Python.newer(folder), None, "nothing is built yet");
        put(COMPONENT, 2);
        for other in [
            "test_app.py",
            "plugin.toml",
            "README.md",
            ".venv/x.py",
            "nextstate/y.py",
        ] {
            put(other, 3);
        }
        assert_eq!(Language::Python.newer(folder), None);
        put("words/animals.py", 3);
        let newer = Language::Python.newer(folder).unwrap();
        assert_eq!(newer, folder.join("words/animals.py"));
    }

    #[test]
    fn a_tool_that_is_missing_or_fails_is_named_with_what_to_do() {
        let missing = run(
            &mut Command::new("no-such-tool"),
            "build",
            "install it",
            "mend it",
        )
        .unwrap_err();
        assert_eq!(
            missing.to_string(),
            "failed to start `no-such-tool` to build: install it"
        );
        let mut fails = Command::new("sh");
        fails.args([
            "-c",
            "echo a reason >&2; echo; echo Stack backtrace:; exit 3",
        ]);
        let failed = run(&mut fails, "build", "install it", "mend it")
            .unwrap_err()
            .to_string();
        assert!(failed.contains("mend it") && failed.contains("exit status: 3"));
    }
}
