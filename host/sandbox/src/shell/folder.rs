//! The host's folder: who owns it, and what a host that crashed left in it.
//!
//! ```text
//! owner            marks the folder as this module's; locked by the host that lives
//! images/<name>/   the images, as machines get them
//! machines/<n>/    machine.json: its control groups and its first process; states that are kept as copies
//! ```
//!
//! A folder without `owner` is only taken when it is empty: nothing of anyone else's is ever removed.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::{
    fs::{FlockOperation, flock},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use serde::{Deserialize, Serialize};

use super::{
    cgroup,
    fail::{failed, refused},
    wait,
};
use crate::Result;

const OWNER: &str = "owner";
const RECORD: &str = "machine.json";

/// A folder that this host owns until it is dropped.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// The kernel lets go of the lock when this host dies, however it dies.
    _lock: File,
}

/// What is needed to find the rest of a machine again.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) groups: Vec<PathBuf>,
    pub(super) first: Option<Process>,
}

/// A process, so that no other one with the same number is ever taken for it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Process {
    number: i32,
    /// In clock ticks since the boot.
    started: u64,
    boot: String,
}

impl Process {
    /// The process that has this number now.
    pub(super) fn of(number: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
        // The name before it is the process's own choice, and may hold anything.
        let (_, fields) = stat.rsplit_once(')')?;
        let started = fields.split_whitespace().nth(19)?.parse().ok()?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(Self {
            number,
            started,
            boot: boot.trim().to_owned(),
        })
    }

    /// When it started, in clock ticks since the boot.
    pub(super) fn started(&self) -> u64 {
        self.started
    }

    /// Kills it if it is still that process, and waits for its end.
    fn end(&self) {
        let Some(pid) = Pid::from_raw(self.number) else {
            return;
        };
        // First hold on to it, then look who it is: the number cannot pass on in between.
        let Ok(held) = pidfd_open(pid, PidfdFlags::empty()) else {
            return;
        };
        if Self::of(self.number).as_ref() == Some(self) {
            // It may have ended just now, which is as good.
            let _ = pidfd_send_signal(&held, Signal::KILL);
            use std::os::fd::AsFd as _;
            wait::readable(held.as_fd(), Instant::now() + Duration::from_secs(5));
        }
    }
}

impl Folder {
    /// Takes the folder, and removes what a host that crashed left in it.
    pub(super) fn take(path: &Path) -> Result<Self> {
        let action = || format!("take {} for machines", path.display());
        let fail = |e: io::Error| failed(action(), e);
        fs::create_dir_all(path).map_err(fail)?;
        let path = path.canonicalize().map_err(fail)?;
        let owner = path.join(OWNER);
        if !owner.is_file() && fs::read_dir(&path).map_err(fail)?.next().is_some() {
            let why = "it is not empty and no host made it; name a folder that is empty or does not exist";
            return Err(refused(action(), why));
        }
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600);
        let lock = options.open(&owner).map_err(fail)?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let why = "another host that lives uses it; name another folder";
            return Err(refused(action(), why));
        }
        let others = fs::Permissions::from_mode(0o700);
        fs::set_permissions(&path, others).map_err(fail)?;
        let folder = Self { path, _lock: lock };
        folder.clean().map_err(fail)?;
        for below in ["images", "machines"] {
            let made = fs::DirBuilder::new()
                .mode(0o700)
                .create(folder.path.join(below));
            made.map_err(fail)?;
        }
        Ok(folder)
    }

    /// Where an image is kept.
    pub(super) fn image(&self, name: &str) -> PathBuf {
        self.path.join("images").join(name)
    }

    /// Where a machine is kept.
    pub(super) fn machine(&self, number: u64) -> PathBuf {
        self.path.join("machines").join(number.to_string())
    }

    /// Removes every process, group and file of machines.
    fn clean(&self) -> io::Result<()> {
        let machines = self.path.join("machines");
        match fs::read_dir(&machines) {
            Ok(entries) => entries.flatten().for_each(|entry| end(&entry.path())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        for below in [machines, self.path.join("images")] {
            remove(&below)?;
        }
        Ok(())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(why) = self.clean() {
            tracing::warn!(folder = %self.path.display(), %why, "files of machines are left behind");
        }
    }
}

impl Record {
    /// Writes it into a machine's folder.
    pub(super) fn write(&self, folder: &Path) -> io::Result<()> {
        let text = serde_json::to_vec(self)?;
        // A crash in the middle leaves the old one, which knows everything that existed then.
        let fresh = folder.join("machine.json.new");
        fs::write(&fresh, text)?;
        fs::rename(&fresh, folder.join(RECORD))
    }
}

/// Ends what a machine's record names.
fn end(machine: &Path) {
    let record = fs::read(machine.join(RECORD)).ok();
    let record: Option<Record> = record.and_then(|text| serde_json::from_slice(&text).ok());
    let Some(record) = record else { return };
    if let Some(first) = record.first {
        tracing::info!(process = first.number, "ending what a crashed host left");
        first.end();
    }
    for group in record.groups {
        if let Err(why) = cgroup::remove(&group, Duration::from_secs(2)) {
            tracing::warn!(group = %group.display(), %why, "a control group is left behind");
        }
    }
}

/// Removes a folder with everything in it; none is fine.
pub(super) fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// A folder as a host leaves it that was killed while it had a machine whose first process is `first`.
    fn left_behind(first: Process) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(OWNER), "").unwrap();
        let machine = folder.path().join("machines/7");
        fs::create_dir_all(&machine).unwrap();
        fs::create_dir_all(folder.path().join("images/old")).unwrap();
        let record = Record {
            groups: Vec::new(),
            first: Some(first),
        };
        record.write(&machine).unwrap();
        folder
    }

    #[test]
    fn what_a_record_names_is_ended_and_its_files_are_removed() {
        let mut left = Command::new("sleep").arg("1000").spawn().unwrap();
        let folder = left_behind(Process::of(left.id().cast_signed()).unwrap());
        let taken = Folder::take(folder.path()).unwrap();
        assert!(!left.wait().unwrap().success());
        assert!(!taken.machine(7).exists());
        assert!(!taken.image("old").exists());
    }

    #[test]
    fn a_process_that_only_has_the_same_number_is_left_alone() {
        let mut other = Command::new("sleep").arg("1000").spawn().unwrap();
        let same = Process::of(other.id().cast_signed()).unwrap();
        for wrong in [
            Process {
                started: same.started - 1,
                boot: same.boot.clone(),
                ..same
            },
            Process {
                boot: "another".into(),
                ..same
            },
        ] {
            let folder = left_behind(wrong);
            drop(Folder::take(folder.path()).unwrap());
        }
        assert!(other.try_wait().unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[test]
    fn a_record_that_is_torn_does_not_stop_a_host() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(OWNER), "").unwrap();
        let machine = folder.path().join("machines/7");
        fs::create_dir_all(&machine).unwrap();
        fs::write(machine.join(RECORD), "{\"groups\": [").unwrap();
        let taken = Folder::take(folder.path()).unwrap();
        assert!(!taken.machine(7).exists());
    }
}
