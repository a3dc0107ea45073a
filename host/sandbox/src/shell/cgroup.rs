//! Control groups, version 1 or 2: what bounds a whole machine's memory, processes and processor time.
//!
//! Used where this host may make groups below its own (version 1, as root) or below an empty, delegated one (version 2).
//! Where it may not, resource limits bound each process instead; nothing else depends on groups.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{Config, fail::failed, wait};
use crate::Result;

/// The groups of one machine go into these.
#[derive(Clone, Debug)]
pub(super) struct Groups {
    parents: Vec<Parent>,
}

#[derive(Clone, Debug)]
struct Parent {
    folder: PathBuf,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// Version 1, one hierarchy a controller.
    Memory,
    Pids,
    Cpu,
    /// Version 2: all of them in one.
    Unified,
}

/// The groups that hold one machine; removed when dropped.
#[derive(Debug, Default)]
pub(super) struct Group {
    folders: Vec<PathBuf>,
}

impl Groups {
    /// Where groups can be made: `None` when nowhere, or not for both memory and processes.
    pub(super) fn find() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        Self::unified(&mounts, &own).or_else(|| Self::separate(&mounts, &own))
    }

    fn unified(mounts: &str, own: &str) -> Option<Self> {
        let path = own.lines().find_map(|line| line.strip_prefix("0::"))?;
        let folder = mounted(mounts, "cgroup2", None, path)?;
        let offered = fs::read_to_string(folder.join("cgroup.controllers")).ok()?;
        let offered: Vec<&str> = offered.split_whitespace().collect();
        if !offered.contains(&"memory") || !offered.contains(&"pids") {
            return None;
        }
        // Refused while processes are in this group itself, unless it is the root: then there are no groups for us.
        for controller in ["memory", "pids", "cpu"] {
            let enabled = fs::write(
                folder.join("cgroup.subtree_control"),
                format!("+{controller}"),
            );
            if enabled.is_err() && controller != "cpu" {
                return None;
            }
        }
        let kind = Kind::Unified;
        Some(Self {
            parents: vec![Parent { folder, kind }],
        })
    }

    fn separate(mounts: &str, own: &str) -> Option<Self> {
        let find = |name: &str, kind| {
            let path = own.lines().find_map(|line| {
                let mut parts = line.splitn(3, ':').skip(1);
                let controllers = parts.next()?;
                controllers
                    .split(',')
                    .any(|c| c == name)
                    .then(|| parts.next())?
            })?;
            let folder = mounted(mounts, "cgroup", Some(name), path)?;
            Some(Parent { folder, kind })
        };
        let mut parents = vec![find("memory", Kind::Memory)?, find("pids", Kind::Pids)?];
        parents.extend(find("cpu", Kind::Cpu));
        Some(Self { parents })
    }

    /// Where the groups of that name are, or will be.
    pub(super) fn folders(&self, name: &str) -> Vec<PathBuf> {
        let folder = |parent: &Parent| parent.folder.join(name);
        self.parents.iter().map(folder).collect()
    }

    /// Makes the groups of one machine, with the operator's limits.
    pub(super) fn create(&self, name: &str, config: &Config) -> Result<Group> {
        let mut group = Group::default();
        for parent in &self.parents {
            let folder = parent.folder.join(name);
            fs::create_dir(&folder)
                .map_err(|e| failed(format!("make control group {}", folder.display()), e))?;
            group.folders.push(folder.clone());
            limit(&folder, parent.kind, config)
                .map_err(|e| failed(format!("limit control group {}", folder.display()), e))?;
        }
        Ok(group)
    }
}

fn limit(folder: &Path, kind: Kind, config: &Config) -> io::Result<()> {
    let set = |file: &str, value: String| fs::write(folder.join(file), value);
    let bytes = (config.memory_mib << 20).to_string();
    // The jail's first process, bwrap, and what starts a command are not the machine's own.
    let processes = (config.processes + 8).to_string();
    let period = 100_000;
    let quota = (config.cpu_percent * period / 100).max(1_000);
    match kind {
        Kind::Memory => {
            set("memory.limit_in_bytes", bytes.clone())?;
            // Only there where swap is accounted.
            set("memory.memsw.limit_in_bytes", bytes).or(Ok(()))
        }
        Kind::Pids => set("pids.max", processes),
        Kind::Cpu => set("cpu.cfs_quota_us", quota.to_string()).or(Ok(())),
        Kind::Unified => {
            set("memory.max", bytes)?;
            set("memory.swap.max", "0".into()).or(Ok::<(), io::Error>(()))?;
            set("pids.max", processes)?;
            set("cpu.max", format!("{quota} {period}")).or(Ok(()))
        }
    }
}

/// The folder of a group: `path` as the kernel names it, below the place where its hierarchy is mounted.
fn mounted(mounts: &str, kind: &str, controller: Option<&str>, path: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (place, filesystem) = line.split_once(" - ")?;
        let mut filesystem = filesystem.split(' ');
        if filesystem.next()? != kind {
            return None;
        }
        let options = filesystem.nth(1)?;
        if controller.is_some_and(|name| !options.split(',').any(|option| option == name)) {
            return None;
        }
        let mut place = place.split(' ').skip(3);
        let (root, point) = (place.next()?, place.next()?);
        let below = Path::new(path).strip_prefix(root).ok()?;
        let folder = Path::new(point).join(below);
        folder.is_dir().then_some(folder)
    })
}

impl Group {
    /// Files into which a process writes its number to join.
    pub(super) fn doors(&self) -> impl Iterator<Item = PathBuf> {
        self.folders
            .iter()
            .map(|folder| folder.join("cgroup.procs"))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for folder in self.folders.iter().rev() {
            if let Err(why) = remove(folder, Duration::from_secs(2)) {
                tracing::warn!(group = %folder.display(), %why, "a machine's control group is left behind");
            }
        }
    }
}

/// Removes a group; processes that are dying keep it for a moment.
pub(super) fn remove(folder: &Path, patience: Duration) -> io::Result<()> {
    let until = Instant::now() + patience;
    loop {
        match fs::remove_dir(folder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(_) if Instant::now() < until => wait::moment(Duration::from_millis(1)),
            outcome => return outcome,
        }
    }
}
