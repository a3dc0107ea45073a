//! A machine for tests: bubblewrap around the real bash, git and Python. Not the host's: no limits but time.

use std::{cell::RefCell, collections::BTreeMap, fs, path::Path, process::Command};

use sdk::{
    Fault,
    shell::{Change, ChangeKind, Ending, Output},
};
use swe::jail::Jail;
use tempfile::TempDir;

type Files = BTreeMap<String, Vec<u8>>;

/// `/work` and `/tmp` are two folders of a temporary one.
#[derive(Debug)]
pub(crate) struct Bubble {
    place: TempDir,
    kept: RefCell<Vec<Files>>,
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

    fn files(&self) -> Files {
        let mut found = Files::new();
        let root = self.place.path().join("work");
        walk(&root, &root, &mut found);
        found
    }

    /// Fills `/work` like an operator's image.
    fn fill(&self, image: &str) {
        if image == "instances" {
            let root = self.place.path().join("work");
            for (path, content) in super::instances() {
                let file = root.join(path);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, content).unwrap();
            }
        }
    }
}

fn walk(root: &Path, folder: &Path, found: &mut Files) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            walk(root, &path, found);
        } else {
            let name = path
                .strip_prefix(root)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            found.insert(name, fs::read(&path).unwrap_or_default());
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
    fn create(image: &str) -> Result<Self, Fault> {
        needs_bubblewrap();
        let place = tempfile::tempdir().unwrap();
        for folder in ["work", "tmp"] {
            fs::create_dir(place.path().join(folder)).unwrap();
        }
        let kept = RefCell::default();
        let bubble = Self { place, kept };
        bubble.fill(image);
        Ok(bubble)
    }

    fn run(&self, command: &str, folder: &str, timeout_ms: u32) -> Result<Output, Fault> {
        let host = |name: &str| self.place.path().join(name).display().to_string();
        let seconds = f64::from(timeout_ms) / 1000.0;
        let done = Command::new("timeout")
            .args(["-s", "KILL", &seconds.to_string(), "bwrap"])
            .args(["--unshare-all", "--die-with-parent", "--clearenv"])
            .args([
                "--setenv",
                "PATH",
                "/usr/bin:/bin",
                "--setenv",
                "HOME",
                "/tmp",
            ])
            .args(["--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin"])
            .args([
                "--symlink",
                "usr/lib",
                "/lib",
                "--symlink",
                "usr/lib64",
                "/lib64",
            ])
            .args(["--proc", "/proc", "--dev", "/dev"])
            .args([
                "--bind",
                &host("work"),
                "/work",
                "--bind",
                &host("tmp"),
                "/tmp",
            ])
            .args(["--chdir", folder, "bash", "-c", command])
            .output()
            .expect("bubblewrap and coreutils are installed");
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

    fn snapshot(&self) -> Result<u32, Fault> {
        self.kept.borrow_mut().push(self.files());
        Ok(u32::try_from(self.kept.borrow().len() - 1).unwrap())
    }

    fn changes(&self, since: u32) -> Result<Vec<Change>, Fault> {
        let kept = self.kept.borrow();
        let before = &kept[usize::try_from(since).unwrap()];
        let now = self.files();
        let change = |path: &String, kind| Change {
            path: path.clone(),
            kind,
        };
        let mut changes = Vec::new();
        for (path, content) in &now {
            match before.get(path) {
                None => changes.push(change(path, ChangeKind::Added)),
                Some(old) if old != content => changes.push(change(path, ChangeKind::Modified)),
                Some(_) => {}
            }
        }
        let gone = before.keys().filter(|path| !now.contains_key(*path));
        changes.extend(gone.map(|path| change(path, ChangeKind::Removed)));
        Ok(changes)
    }
}
