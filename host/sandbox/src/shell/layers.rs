//! `/work` as overlay layers in memory, mounted by a host that is root: a state is kept and put back without copying.
//!
//! ```text
//! /.layers          the host's own: the jailed user cannot enter it
//! /.layers/image    the image; read only
//! /.layers/<n>/u    a layer, in a file system of its own size; the newest is the upper one of /work, the others are frozen
//! ```
//!
//! Everything is mounted within the jail's mounts and goes away with them. To drop a layer is to unmount it: nobody walks
//! through what a jail has written.

use std::{
    ffi::CString,
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    time::{Duration, Instant},
};

use rustix::{
    fs::{AtFlags, CWD, Gid, Mode, Uid, chownat, fstatfs, mkdirat},
    mount::{
        MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_remount, move_mount,
        open_tree, unmount,
    },
};

use super::{
    ChangeKind, Config,
    compare::Comparison,
    fail::{failed, refused},
    jail::Jail,
    memory::mount_memory,
    tree::{Answer, Copy, Tree},
};
use crate::Result;

const WORK: &str = "/work";
const TMP: &str = "/tmp";
const OWN: &str = "/.layers";
const IMAGE: &str = "/.layers/image";
const VIEW: &str = "/.layers/view";
/// A kept state needs room for what comes after it.
const LEAST: u64 = 64 << 10;
const PATIENCE: Duration = Duration::from_secs(30);

/// The layers of one machine.
#[derive(Debug)]
pub(super) struct Layers {
    user: u32,
    /// What `/work` may hold, frozen layers included.
    bytes: u64,
    /// What the frozen layers hold.
    frozen: u64,
    /// Frozen layers of each kept state, from the lowest up.
    states: Vec<Vec<u32>>,
    /// Frozen layers below the upper one.
    lower: Vec<u32>,
    upper: u32,
    next: u32,
}

impl Layers {
    /// Mounts `/work` and `/tmp`.
    pub(super) fn mount(jail: &Jail, config: &Config, image: Option<&Path>) -> Result<Self> {
        let fail = |e: io::Error| failed("mount a machine's files", e);
        let image = image
            .map(detached)
            .transpose()
            .map_err(|e| fail(e.into()))?;
        let layers = Self {
            user: config.user,
            bytes: config.disk_bytes(),
            frozen: 0,
            states: Vec::new(),
            lower: Vec::new(),
            upper: 0,
            next: 1,
        };
        let mount_all = || {
            mount_memory(OWN, 0, 1 << 20, 0o700)?;
            mkdirat(CWD, IMAGE, Mode::RWXU)?;
            mkdirat(CWD, VIEW, Mode::RWXU)?;
            if let Some(image) = &image {
                let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
                move_mount(image, "", CWD, IMAGE, flags)?;
            }
            mount_memory(TMP, config.user, layers.bytes, 0o1777)?;
            layers.add(layers.upper, layers.bytes)?;
            layers.mount_work()
        };
        jail.inside(mount_all).map_err(fail)?;
        Ok(layers)
    }

    /// Keeps the state of `/work`.
    ///
    /// Processes that run hold `/work` as it is mounted, and go on to write there: then its upper layer is copied. While none runs, it is
    /// frozen, and a new one is put on top.
    pub(super) fn snapshot(&mut self, jail: &Jail, alone: bool) -> Result<u32> {
        let action = "keep the state of a machine";
        let fail = |e: io::Error| failed(action, e);
        let used = self.used(jail).map_err(|e| fail(e.into()))?;
        let left = self.bytes.saturating_sub(self.frozen + used);
        let needed = if alone { LEAST } else { used + LEAST };
        if left < needed {
            let why = "the machine's disk is full: what is kept counts";
            return Err(failed(action, why));
        }
        let fresh = self.next;
        self.next += 1;
        let mut lower = self.lower.clone();
        if alone {
            lower.push(self.upper);
            let after = Self {
                lower: lower.clone(),
                upper: fresh,
                states: Vec::new(),
                ..*self
            };
            let put_on_top = || {
                after.add(fresh, left)?;
                // Detached at first: the new one is seen only when it is whole.
                unmount(WORK, UnmountFlags::DETACH)?;
                after.mount_work()
            };
            jail.inside(put_on_top).map_err(fail)?;
            self.lower.clone_from(&lower);
            self.upper = fresh;
        } else {
            lower.push(fresh);
            self.copy_upper(jail, fresh, used, left)?;
        }
        self.frozen += used;
        self.states.push(lower);
        u32::try_from(self.states.len() - 1).map_err(|e| failed(action, e))
    }

    /// Copies the upper layer into a new, frozen one, and takes its size from what the upper one may still grow to.
    fn copy_upper(&self, jail: &Jail, fresh: u32, used: u64, left: u64) -> Result<()> {
        let fail = |e: io::Error| failed("copy a layer", e);
        jail.inside(|| self.add(fresh, used + LEAST))
            .map_err(fail)?;
        let copied = layer(jail, self.upper)
            .and_then(|from| Ok((from, layer(jail, fresh)?)))
            .map_err(|e| fail(e.into()))
            .and_then(|(from, to)| {
                let copy = Copy {
                    owner: Some(self.user),
                    bytes: used + LEAST,
                    until: Instant::now() + PATIENCE,
                    layer: true,
                };
                from.copy_into(&to, copy)
            });
        let settle = || match &copied {
            Ok(()) => mount_remount(
                folder(self.upper).as_str(),
                MountFlags::NOSUID | MountFlags::NODEV,
                format!("size={}", left.max(LEAST)).as_str(),
            ),
            Err(_) => unmount(folder(fresh).as_str(), UnmountFlags::DETACH),
        };
        let settled = jail.inside(settle).map_err(fail);
        copied.and(settled)
    }

    /// Puts `/work` back to a kept state. Nothing may run.
    pub(super) fn roll_back(&mut self, jail: &Jail, state: u32) -> Result<()> {
        let fail = |e: io::Error| failed("put a machine's files back", e);
        let lower = self.state(state)?.clone();
        let (old, fresh) = (self.upper, self.next);
        self.next += 1;
        self.lower = lower;
        self.upper = fresh;
        let left = self.bytes.saturating_sub(self.frozen).max(LEAST);
        let replace = || {
            unmount(WORK, UnmountFlags::DETACH)?;
            unmount(folder(old).as_str(), UnmountFlags::DETACH)?;
            self.add(fresh, left)?;
            self.mount_work()
        };
        jail.inside(replace).map_err(fail)
    }

    /// What differs from a kept state.
    pub(super) fn changes(&self, jail: &Jail, state: u32) -> Result<Vec<(Vec<u8>, ChangeKind)>> {
        let fail = |e: io::Error| failed("compare the states of a machine", e);
        let kept = self.state(state)?;
        let shared = kept
            .iter()
            .zip(&self.lower)
            .take_while(|(a, b)| a == b)
            .count();
        let apart = kept
            .iter()
            .skip(shared)
            .chain(self.lower.iter().skip(shared));
        let traces = apart
            .chain([&self.upper])
            .map(|number| layer(jail, *number));
        let traces: Vec<Tree> = traces.collect::<Answer<_>>().map_err(|e| fail(e.into()))?;
        let options = option(&format!("lowerdir={},{TUNING}", below(kept)))?;
        let show = || {
            mount(
                "overlay",
                VIEW,
                "overlay",
                MountFlags::RDONLY,
                options.as_c_str(),
            )
        };
        jail.inside(show).map_err(fail)?;
        let compared = tree(jail, VIEW).and_then(|old| Ok((old, tree(jail, WORK)?)));
        let compared = compared.map_err(|e| fail(e.into())).and_then(|(old, new)| {
            let comparison = Comparison {
                old: &old,
                new: &new,
                traces: &traces,
                until: Instant::now() + PATIENCE,
            };
            comparison.changes()
        });
        let hidden = jail.inside(|| unmount(VIEW, UnmountFlags::DETACH));
        hidden.map_err(fail)?;
        compared
    }

    /// How many states are kept.
    pub(super) fn kept(&self) -> usize {
        self.states.len()
    }

    /// Whether a state has this number.
    pub(super) fn check(&self, state: u32) -> Result<()> {
        self.state(state).map(drop)
    }

    fn state(&self, state: u32) -> Result<&Vec<u32>> {
        let unknown = || refused(format!("use snapshot {state}"), "it was never taken");
        self.states.get(state as usize).ok_or_else(unknown)
    }

    /// Bytes that the upper layer holds.
    fn used(&self, jail: &Jail) -> Answer<u64> {
        let tree = layer(jail, self.upper)?;
        let stat = fstatfs(&tree.open(b"", rustix::fs::OFlags::RDONLY)?)?;
        Ok((stat.f_blocks - stat.f_bfree) * stat.f_bsize.unsigned_abs())
    }

    /// Makes an empty layer. Within the jail's mounts.
    fn add(&self, number: u32, bytes: u64) -> Answer<()> {
        let folder = folder(number);
        mkdirat(CWD, folder.as_str(), Mode::RWXU)?;
        mount_memory(&folder, 0, bytes, 0o700)?;
        for (part, owner) in [("u", self.user), ("w", 0)] {
            let path = format!("{folder}/{part}");
            mkdirat(CWD, path.as_str(), Mode::from_raw_mode(0o755))?;
            let (user, group) = (Uid::from_raw(owner), Gid::from_raw(owner));
            chownat(
                CWD,
                path.as_str(),
                Some(user),
                Some(group),
                AtFlags::empty(),
            )?;
        }
        Ok(())
    }

    /// Mounts `/work` of its layers. Within the jail's mounts.
    fn mount_work(&self) -> Answer<()> {
        let upper = folder(self.upper);
        let lower = below(&self.lower);
        let options = format!("lowerdir={lower},upperdir={upper}/u,workdir={upper}/w,{TUNING}");
        let options = CString::new(options).map_err(|_| rustix::io::Errno::INVAL)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount("overlay", WORK, "overlay", flags, options.as_c_str())
    }
}

/// Layers stay readable by themselves: no links between them.
const TUNING: &str = "redirect_dir=nofollow,metacopy=off,index=off,xino=off";

fn folder(number: u32) -> String {
    format!("{OWN}/{number}")
}

/// The lower layers as overlayfs wants them: the highest first.
fn below(frozen: &[u32]) -> String {
    let mut layers: Vec<String> = frozen
        .iter()
        .rev()
        .map(|n| format!("{OWN}/{n}/u"))
        .collect();
    layers.push(IMAGE.to_owned());
    layers.join(":")
}

fn option(text: &str) -> Result<CString> {
    CString::new(text).map_err(|e| failed("name mount options", e))
}

/// An image's folder, ready to be mounted elsewhere.
fn detached(image: &Path) -> Answer<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    open_tree(CWD, image, flags)
}

fn layer(jail: &Jail, number: u32) -> Answer<Tree> {
    tree(jail, &format!("{}/u", folder(number)))
}

fn tree(jail: &Jail, path: &str) -> Answer<Tree> {
    Tree::below(jail.root().as_fd(), Path::new(path.trim_start_matches('/')))
}
