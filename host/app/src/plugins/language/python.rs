//! Guests in Python: componentize-py, in a virtual environment of the project's.
//!
//! The component holds CPython with `app.py` imported: there is no file system to import from later.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use plugin::Manifest;

use super::contract::{self, BUILT, WORLD};
use super::run;

/// The release whose CPython the host knows (`host/plugin/src/runtimes.rs`).
const TOOL: &str = "componentize-py==0.25.1";
const VERSION: &str = "componentize-py 0.25.";
/// The tool without its script, whose name differs from system to system.
const MAIN: &str = "import sys; from componentize_py import script; sys.exit(script())";
const INSTALL_PYTHON: &str = "guests in Python need Python 3.11 or later with venv (Debian: apt-get install python3 python3-venv); \
     NEXTSTATE_PYTHON names one that has componentize-py";

pub(super) fn compile(folder: &Path, manifest: &Manifest) -> anyhow::Result<Vec<u8>> {
    let python = python(folder)?;
    let wit = contract::write(folder, manifest)?;
    let tool = || {
        let mut command = python.command();
        command
            .args(["-c", MAIN, "--world", WORLD, "--wit-path"])
            .arg(&wit);
        command
    };
    let bindings = bindings(folder);
    // Of the last build: a capability that plugin.toml no longer lists must not be found by a test.
    if bindings.exists() {
        fs::remove_dir_all(&bindings)
            .with_context(|| format!("failed to clear {}", bindings.display()))?;
    }
    run(
        tool().arg("bindings").arg(&bindings),
        "write the bindings",
        INSTALL_PYTHON,
        "the contract in nextstate/wit may have changed",
    )?;
    let output = folder.join(BUILT).join("plugin.wasm");
    eprintln!("componentize-py puts app.py and CPython into a component");
    run(
        tool()
            .args([
                "componentize",
                "--stub-wasi",
                "nextstate_entry",
                "--python-path",
            ])
            .arg(folder.join("nextstate/python"))
            .arg("--python-path")
            .arg(folder)
            .arg("--output")
            .arg(&output),
        "make a component of app.py",
        INSTALL_PYTHON,
        "an import of `wit_world.imports` that fails needs its capability in plugin.toml; the rest is app.py's own",
    )?;
    fs::read(&output).with_context(|| format!("failed to read {}", output.display()))
}

pub(super) fn unit_tests(folder: &Path) -> anyhow::Result<Command> {
    // Whoever has a component already needs no tool for its tests.
    let mut command = installed(folder).unwrap_or_else(Python::system).command();
    let bindings = bindings(Path::new("."));
    command
        .args(["-m", "unittest"])
        .current_dir(folder)
        .env("PYTHONPATH", bindings);
    ensure!(
        self::bindings(folder).is_dir(),
        "the tests need the types that `nextstate plugin build` writes to {}",
        self::bindings(folder).display()
    );
    Ok(command)
}

fn bindings(folder: &Path) -> PathBuf {
    folder.join(BUILT).join("bindings")
}

/// An interpreter.
struct Python {
    program: PathBuf,
    /// Its virtual environment, whose packages come along.
    home: Option<PathBuf>,
}

impl Python {
    fn system() -> Self {
        let program = PathBuf::from("python3");
        Self {
            program,
            home: None,
        }
    }

    /// In a virtual environment.
    fn inside(home: PathBuf) -> Self {
        let program = if cfg!(windows) {
            "Scripts/python.exe"
        } else {
            "bin/python"
        };
        Self {
            program: home.join(program),
            home: Some(home),
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env_remove("PYTHONPATH").env_remove("PYTHONHOME");
        if let Some(home) = &self.home {
            command.env("VIRTUAL_ENV", home);
        }
        command
    }

    /// Whether it has the tool, in the release that the host knows.
    fn has_tool(&self) -> bool {
        let output = self.command().args(["-c", MAIN, "--version"]).output();
        output.is_ok_and(|output| {
            output.status.success() && String::from_utf8_lossy(&output.stdout).starts_with(VERSION)
        })
    }
}

/// The interpreter that is there for this project.
fn installed(folder: &Path) -> Option<Python> {
    let named = env::var_os("NEXTSTATE_PYTHON").map(PathBuf::from);
    let named = named.map(|program| {
        // `<home>/bin/python`
        let home = program
            .ancestors()
            .nth(2)
            .filter(|home| home.join("pyvenv.cfg").is_file());
        Python {
            home: home.map(Path::to_owned),
            program,
        }
    });
    named.or_else(|| {
        let own = Python::inside(absolute(&folder.join(".venv")));
        own.program.is_file().then_some(own)
    })
}

/// An interpreter with componentize-py; makes it where there is none.
fn python(folder: &Path) -> anyhow::Result<Python> {
    let there = installed(folder);
    if let Some(python) = &there
        && python.has_tool()
    {
        return Ok(Python {
            program: python.program.clone(),
            home: python.home.clone(),
        });
    }
    if let Some(named) = there.filter(|_| env::var_os("NEXTSTATE_PYTHON").is_some()) {
        let program = named.program.display();
        anyhow::bail!(
            "NEXTSTATE_PYTHON is {program}, which does not have {TOOL}: `{program} -m pip install {TOOL}` installs it; \
             without that variable the project gets an environment of its own"
        );
    }
    let home = absolute(&folder.join(".venv"));
    let old =
        "import sys; sys.exit(sys.version_info < (3, 11) and 'this is Python ' + sys.version)";
    run(
        Python::system().command().args(["-c", old]),
        "look at its version",
        INSTALL_PYTHON,
        INSTALL_PYTHON,
    )?;
    run(
        Python::system().command().args(["-m", "venv"]).arg(&home),
        "make .venv",
        INSTALL_PYTHON,
        INSTALL_PYTHON,
    )?;
    eprintln!("installing {TOOL} into {}, once", home.display());
    let python = Python::inside(home);
    run(
        python.command().args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            TOOL,
        ]),
        "install componentize-py",
        INSTALL_PYTHON,
        "the first build needs a package index (a mirror: PIP_INDEX_URL)",
    )?;
    ensure!(
        python.has_tool(),
        "{TOOL} was installed into {} and does not start",
        folder.join(".venv").display()
    );
    Ok(python)
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
