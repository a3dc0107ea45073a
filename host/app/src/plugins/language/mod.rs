//! The languages that a plugin can be written in: how a project of each becomes a component, and how its own tests are run.
//!
//! A project's language is told by its files. The toolchains are their own (`cargo`, componentize-py, componentize-qjs): nothing here
//! compiles. What they make imports no WASI, since the host has none (decisions 0002 and 0010).

mod contract;
mod javascript;
mod python;
mod rust;

use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use plugin::Manifest;

use super::source::COMPONENT;

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

    /// What runs the project's own tests, outside the sandbox.
    pub(super) fn unit_tests(self, folder: &Path) -> anyhow::Result<Command> {
        match self {
            Language::Rust => Ok(rust::unit_tests(folder)),
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

/// Runs a tool to its end. What it says is shown only where it fails, which it does often enough with a reason of the author's.
fn run(command: &mut Command, what: &str, remedy: &str) -> anyhow::Result<Output> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("failed to start `{program}` to {what}: {remedy}"))?;
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
    use std::fs;

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
    fn a_tool_that_is_missing_or_fails_is_named_with_what_to_do() {
        let missing = run(&mut Command::new("no-such-tool"), "build", "install it").unwrap_err();
        assert_eq!(
            missing.to_string(),
            "failed to start `no-such-tool` to build: install it"
        );
        let mut fails = Command::new("sh");
        fails.args([
            "-c",
            "echo a reason >&2; echo; echo Stack backtrace:; exit 3",
        ]);
        let failed = run(&mut fails, "build", "mend it").unwrap_err().to_string();
        assert!(failed.contains("mend it") && failed.contains("exit status: 3"));
    }
}
