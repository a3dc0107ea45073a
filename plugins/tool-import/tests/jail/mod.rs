//! A machine for tests: bubblewrap around the real bash and Python. Not the host's: no limits but time.

use std::{fs, path::Path, process::Command};

use sdk::{
    Fault,
    shell::{Ending, Output},
};
use tempfile::TempDir;
use tool_import::jail::Jail;

/// `/work` and `/tmp` are two folders of a temporary one.
#[derive(Debug)]
pub(crate) struct Bubble {
    place: TempDir,
}

impl Bubble {
    fn host_path(&self, path: &str) -> Result<std::path::PathBuf, Fault> {
        let inside = path.strip_prefix('/').unwrap_or(path);
        let allowed = inside.starts_with("work/") || inside.starts_with("tmp/");
        if !allowed || inside.split('/').any(|part| part == "..") {
            return Err(Fault::InvalidInput(format!("{path} leads elsewhere")));
        }
        Ok(self.place.path().join(inside))
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap().path();
        let target = to.join(entry.file_name().unwrap());
        if entry.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&entry).unwrap(), target).unwrap();
        } else if entry.is_dir() {
            copy(&entry, &target);
        } else {
            fs::copy(&entry, target).unwrap();
        }
    }
}

/// Without bubblewrap there is nothing to test: said, and a failure only where `NEXTSTATE_REQUIRE_SANDBOX` says so, as in CI.
fn needs_bubblewrap() {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&folders).any(|folder| folder.join("bwrap").is_file());
    if !found && std::env::var_os("NEXTSTATE_REQUIRE_SANDBOX").is_none() {
        // Not by `eprintln!`, which the test harness keeps for itself.
        let _ = std::io::Write::write_all(
            &mut std::io::stderr(),
            b"skipped: bubblewrap is not on the path\n",
        );
        std::process::exit(0);
    }
}

impl Jail for Bubble {
    /// An image is the path of a folder here.
    fn create(image: &str) -> Result<Self, Fault> {
        needs_bubblewrap();
        let place = tempfile::tempdir().unwrap();
        for folder in ["work", "tmp"] {
            fs::create_dir(place.path().join(folder)).unwrap();
        }
        if image != "empty" {
            copy(Path::new(image), &place.path().join("work"));
        }
        Ok(Self { place })
    }

    fn run(&self, command: &str, timeout_ms: u32) -> Result<Output, Fault> {
        let host = |name: &str| self.place.path().join(name).display().to_string();
        let seconds = f64::from(timeout_ms) / 1000.0;
        let args = format!(
            "-s KILL {seconds} bwrap --unshare-all --die-with-parent --clearenv --setenv PATH /usr/bin:/bin --setenv HOME /tmp \
             --ro-bind /usr /usr --symlink usr/bin /bin --symlink usr/lib /lib --symlink usr/lib64 /lib64 --proc /proc --dev /dev \
             --bind {} /work --bind {} /tmp --chdir /work bash -c",
            host("work"),
            host("tmp")
        );
        let done = Command::new("timeout")
            .args(args.split_whitespace())
            .arg(command)
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let ending = match done.status.code() {
            Some(code) => Ending::Exited(u32::try_from(code).unwrap()),
            None => Ending::TimedOut,
        };
        Ok(Output {
            ending,
            stdout: text(&done.stdout),
            stderr: text(&done.stderr),
            cut: false,
        })
    }

    fn write_file(&self, path: &str, content: &[u8]) -> Result<(), Fault> {
        let path = self.host_path(path)?;
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).map_err(|error| Fault::InvalidInput(error.to_string()))
    }

    fn read_file(&self, path: &str) -> Result<Option<Vec<u8>>, Fault> {
        let path = self.host_path(path)?;
        if path.is_symlink() || path.is_dir() {
            return Err(Fault::InvalidInput(format!(
                "{} is no file",
                path.display()
            )));
        }
        Ok(fs::read(path).ok())
    }
}
