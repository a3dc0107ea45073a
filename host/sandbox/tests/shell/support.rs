//! A host for one test, and short ways to use its machines.

use std::{fs, path::Path, time::Duration};

use sandbox::shell::{Config, Ending, Machine, Machines, Output};
use tempfile::TempDir;

/// Longer than any command here needs on a busy computer.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// A host and its folder.
pub(crate) struct Host {
    pub(crate) machines: Machines,
    pub(crate) folder: TempDir,
}

impl Host {
    /// Whether this host may mount layers.
    pub(crate) fn layers(&self) -> bool {
        let mut machine = self.machines.create("empty").unwrap();
        said(&mut machine, "cat /proc/self/mountinfo").contains("overlay overlay")
    }
}

/// A host whose config is changed by `change`.
pub(crate) fn host(change: impl FnOnce(&mut Config)) -> Host {
    crate::needs::one_of(&["bwrap"]);
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    change(&mut config);
    let machines = match Machines::new(config, &folder.path().join("machines")) {
        Ok(machines) => machines,
        Err(why) => panic!("{why}"),
    };
    Host { machines, folder }
}

/// A host as it is by default, and a machine with an empty `/work`.
pub(crate) fn machine() -> (Host, Machine) {
    let host = host(|_| {});
    let machine = host.machines.create("empty").unwrap();
    (host, machine)
}

/// Runs in `/work`.
pub(crate) fn run(machine: &mut Machine, command: &str) -> Output {
    machine.run(command, "/work", LONG).unwrap()
}

/// Runs in `/work`, must succeed, and gives what it wrote.
pub(crate) fn said(machine: &mut Machine, command: &str) -> String {
    let output = run(machine, command);
    assert_eq!(output.ending, Ending::Exited(0), "{command}: {output:?}");
    output.stdout
}

/// A folder with these files.
pub(crate) fn image(folder: &Path, files: &[(&str, &str)]) -> std::path::PathBuf {
    let image = folder.join("image");
    for (path, content) in files {
        let path = image.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    image
}

/// Whether the file is there before a long time is over.
pub(crate) fn appears(machine: &mut Machine, path: &str) -> bool {
    (0..600).any(|_| {
        std::thread::park_timeout(Duration::from_millis(50));
        machine.read_file(path).unwrap().is_some()
    })
}
