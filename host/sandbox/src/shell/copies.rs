//! `/work` as a file system in memory whose states are copied to the host's folder and back: for hosts that may not mount layers.
//!
//! Takes time in proportion to what `/work` holds. Emptying it is left to the jailed user, within the jail.

use std::{
    fs, io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{
    ChangeKind, Config,
    compare::Comparison,
    fail::{failed, refused},
    jail::Jail,
    memory::mount_memory,
    tree::{Copy, Tree},
};
use crate::Result;

const PATIENCE: Duration = Duration::from_secs(30);

/// Empties `/work`, whatever rights its folders have. Run in `/`.
pub(super) const EMPTY_WORK: &str = "chmod 755 /work && find /work -mindepth 1 -type d -exec chmod u+rwx {} \\; && find /work -mindepth 1 -delete";

/// The kept states of one machine.
#[derive(Debug)]
pub(super) struct Copies {
    folder: PathBuf,
    bytes: u64,
    /// The jail's user, where that is not the host's own.
    owner: Option<u32>,
    kept: usize,
}

impl Copies {
    /// Fills `/work` from the image. States will be kept in `folder`.
    pub(super) fn fill(
        jail: &Jail,
        config: &Config,
        owner: Option<u32>,
        folder: &Path,
        image: Option<&Path>,
    ) -> Result<Self> {
        let copies = Self {
            folder: folder.to_owned(),
            bytes: config.disk_bytes(),
            owner,
            kept: 0,
        };
        if let Some(owner) = owner {
            // What the jail mounts itself has no place for a file of the host's root.
            let mount = || {
                mount_memory("/tmp", owner, copies.bytes, 0o1777)?;
                mount_memory("/work", owner, copies.bytes, 0o755)
            };
            jail.inside(mount)
                .map_err(|e| failed("mount a machine's files", e))?;
        }
        if let Some(image) = image {
            copies.put(jail, image)?;
        }
        Ok(copies)
    }

    /// Keeps a copy of `/work`.
    pub(super) fn snapshot(&mut self, jail: &Jail) -> Result<u32> {
        let fail = |e: io::Error| failed("keep the state of a machine", e);
        let folder = self.path(self.kept);
        fs::create_dir(&folder).map_err(fail)?;
        let to = Tree::at(&folder).map_err(|e| fail(e.into()))?;
        let copy = self.copy(None);
        if let Err(why) = work(jail)?.copy_into(&to, copy) {
            super::folder::remove(&folder).map_err(fail)?;
            return Err(why);
        }
        self.kept += 1;
        u32::try_from(self.kept - 1).map_err(|e| failed("keep the state of a machine", e))
    }

    /// Puts a copy into `/work`, which [`EMPTY_WORK`] has emptied and in which nothing runs.
    pub(super) fn roll_back(&self, jail: &Jail, state: u32) -> Result<()> {
        self.put(jail, &self.state(state)?)
    }

    /// What differs from a kept state.
    pub(super) fn changes(&self, jail: &Jail, state: u32) -> Result<Vec<(Vec<u8>, ChangeKind)>> {
        let old = Tree::at(&self.state(state)?);
        let comparison = Comparison {
            old: &old.map_err(|e| failed("read a kept state", e))?,
            new: &work(jail)?,
            traces: &[],
            until: Instant::now() + PATIENCE,
        };
        comparison.changes()
    }

    /// How many states are kept.
    pub(super) fn kept(&self) -> usize {
        self.kept
    }

    /// Where a kept state is.
    pub(super) fn state(&self, state: u32) -> Result<PathBuf> {
        let state_number = state as usize;
        if state_number >= self.kept {
            let why = "it was never taken";
            return Err(refused(format!("use snapshot {state}"), why));
        }
        Ok(self.path(state_number))
    }

    fn path(&self, state: usize) -> PathBuf {
        self.folder.join(format!("state-{state}"))
    }

    fn put(&self, jail: &Jail, from: &Path) -> Result<()> {
        let from = Tree::at(from).map_err(|e| failed("read a kept state", e))?;
        let work = work(jail)?;
        let there = work.names(b"").map_err(|e| failed("look into /work", e))?;
        if !there.is_empty() {
            return Err(failed("fill /work", "it could not be emptied"));
        }
        from.copy_into(&work, self.copy(self.owner))
    }

    fn copy(&self, owner: Option<u32>) -> Copy {
        Copy {
            owner,
            bytes: self.bytes,
            until: Instant::now() + PATIENCE,
            layer: false,
        }
    }
}

fn work(jail: &Jail) -> Result<Tree> {
    let tree = Tree::below(jail.root().as_fd(), Path::new("work"));
    tree.map_err(|e| failed("open /work", e))
}
