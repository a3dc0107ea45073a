//! A machine's files, read and written from outside.
//!
//! Paths are resolved by the kernel as if the jail's root were the whole file system, so that no link can name a file of
//! the host; then the file that was found must lie in the mount of `/work` or of `/tmp`. Processes of the jail may change links and folders meanwhile:
//! what is checked is the open file, never the path.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    fs::{
        AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, StatxFlags, Uid, fchmod, fchown, fstat,
        ftruncate, mkdirat, openat2, statx,
    },
    io::Errno,
};

use super::{
    fail::{failed, refused},
    limits::{LARGEST_FILE, LONGEST_PATH},
};
use crate::{Error, Result};

/// Where a machine can keep files.
const PLACES: [&str; 2] = ["work", "tmp"];
const MODE: u32 = 0o644;
const MODE_EXECUTABLE: u32 = 0o755;

/// A view on a jail's files.
#[derive(Debug)]
pub(super) struct Files<'a> {
    pub(super) root: &'a OwnedFd,
    /// To whom new files are given; `None`: to the host's own user, who is the jail's.
    pub(super) owner: Option<u32>,
}

impl Files<'_> {
    /// Checks that a path names a folder of the machine.
    pub(super) fn folder(&self, path: &str, action: &str) -> Result<()> {
        let below = self.check(path, action)?;
        match self.open(below, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(folder) => self.check_place(&folder, action),
            Err(Errno::NOENT | Errno::NOTDIR) => Err(refused(action, "there is no such folder")),
            Err(e) => Err(trouble(e, action)),
        }
    }

    /// A file's content; `None` where there is no file.
    pub(super) fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
        let action = format!("read {path:?}");
        let below = self.check(path, &action)?;
        let file = match self.open(below, OFlags::RDONLY) {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::NOTDIR) => {
                return self.check_links(below, &action).map(|()| None);
            }
            Err(e) => return Err(trouble(e, &action)),
        };
        self.check_file(&file, &action)?;
        let mut content = Vec::new();
        let mut file = File::from(file).take(LARGEST_FILE as u64 + 1);
        let read = file.read_to_end(&mut content);
        read.map_err(|e| failed(&action, e))?;
        if content.len() > LARGEST_FILE {
            let why = format!("it is larger than {LARGEST_FILE} bytes");
            return Err(refused(action, why));
        }
        Ok(Some(content))
    }

    /// Writes a file, and makes the folders above it where they are missing.
    pub(super) fn write(&self, path: &str, content: &[u8], executable: bool) -> Result<()> {
        let action = format!("write {path:?}");
        let below = self.check(path, &action)?;
        if content.len() > LARGEST_FILE {
            let why = format!(
                "{} bytes; at most {LARGEST_FILE} are allowed",
                content.len()
            );
            return Err(refused(action, why));
        }
        let mode = Mode::from_raw_mode(if executable { MODE_EXECUTABLE } else { MODE });
        let file = match self.open(below, OFlags::WRONLY) {
            Ok(file) => file,
            Err(Errno::NOENT) if !self.is_link(below) => self.create(below, mode, &action)?,
            Err(e) => return Err(trouble(e, &action)),
        };
        self.check_file(&file, &action)?;
        ftruncate(&file, 0).map_err(|e| trouble(e, &action))?;
        fchmod(&file, mode).map_err(|e| trouble(e, &action))?;
        let full = |e: std::io::Error| match Errno::from_io_error(&e) {
            Some(e) => trouble(e, &action),
            None => failed(&action, e),
        };
        File::from(file).write_all(content).map_err(full)
    }

    fn create(&self, below: &str, mode: Mode, action: &str) -> Result<OwnedFd> {
        let fail = |e| trouble(e, action);
        let (above, name) = below.rsplit_once('/').unwrap_or((".", below));
        if matches!(name, "" | "." | "..") {
            return Err(refused(action, "it names no file"));
        }
        let above = self.make_folders(above, action)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let file = openat2(&above, name, flags | OFlags::CLOEXEC, mode, resolve).map_err(fail)?;
        self.give(&file).map_err(fail)?;
        Ok(file)
    }

    /// Opens a folder, after making what is missing of it. Each one that is gone through lies in the right place.
    fn make_folders(&self, path: &str, action: &str) -> Result<OwnedFd> {
        let fail = |e| trouble(e, action);
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let mut ends: Vec<usize> = path.match_indices('/').map(|(at, _)| at).collect();
        ends.push(path.len());
        let mut last: Option<OwnedFd> = None;
        for end in ends {
            let upto = path.get(..end).unwrap_or(path);
            let folder = match (self.open(upto, flags), &last) {
                (Err(Errno::NOENT), Some(above)) => {
                    let name = upto.rsplit('/').next().unwrap_or(upto);
                    let made = mkdirat(above, name, Mode::from_raw_mode(MODE_EXECUTABLE));
                    // A link to nothing, or a process that was faster: both show when it is opened.
                    made.or_else(|e| if e == Errno::EXIST { Ok(()) } else { Err(e) })
                        .map_err(fail)?;
                    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
                    let open = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                    let fresh = openat2(above, name, open, Mode::empty(), resolve).map_err(fail)?;
                    self.give(&fresh).map_err(fail)?;
                    fresh
                }
                (opened, _) => opened.map_err(fail)?,
            };
            self.check_place(&folder, action)?;
            last = Some(folder);
        }
        last.ok_or_else(|| refused(action, "it names no folder"))
    }

    /// Gives something new to the jail's user.
    fn give(&self, fd: &OwnedFd) -> rustix::io::Result<()> {
        let Some(owner) = self.owner else {
            return Ok(());
        };
        fchown(fd, Some(Uid::from_raw(owner)), Some(Gid::from_raw(owner)))
    }

    /// The path below the root, if it is one that may be asked for.
    fn check<'p>(&self, path: &'p str, action: &str) -> Result<&'p str> {
        if path.len() >= LONGEST_PATH || path.contains('\0') {
            let why = format!("a path has fewer than {LONGEST_PATH} bytes, none of them 0");
            return Err(refused(action, why));
        }
        let below = path.strip_prefix('/').filter(|below| {
            let first = below.split('/').next();
            PLACES.iter().any(|place| Some(*place) == first)
        });
        below.ok_or_else(|| refused(action, "a path begins with /work or /tmp"))
    }

    fn open(&self, below: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        // NONBLOCK: a pipe with no one at its other end must not hold the host.
        let flags = unblocking(flags) | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        openat2(self.root, below, flags, Mode::empty(), resolve)
    }

    /// Checks, for a path at which nothing was found, that no link on it leads elsewhere or nowhere.
    fn check_links(&self, below: &str, action: &str) -> Result<()> {
        let ends = below.match_indices('/').map(|(at, _)| at);
        for end in ends.chain([below.len()]) {
            let upto = below.get(..end).unwrap_or(below);
            if self.is_link(upto) {
                let target = self.open(upto, OFlags::PATH);
                self.check_place(&target.map_err(|e| trouble(e, action))?, action)?;
            }
        }
        Ok(())
    }

    /// Whether the path ends in a symbolic link, wherever that leads.
    fn is_link(&self, below: &str) -> bool {
        let link = self.open(below, OFlags::PATH | OFlags::NOFOLLOW);
        let kind = link
            .and_then(fstat)
            .map(|stat| FileType::from_raw_mode(stat.st_mode));
        kind == Ok(FileType::Symlink)
    }

    fn check_file(&self, file: &OwnedFd, action: &str) -> Result<()> {
        self.check_place(file, action)?;
        let stat = fstat(file).map_err(|e| failed(action, e))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok(()),
            FileType::Directory => Err(refused(action, "it is a folder")),
            _ => Err(refused(action, "it is no regular file")),
        }
    }

    fn check_place(&self, fd: &OwnedFd, action: &str) -> Result<()> {
        let fail = |e: Errno| failed(action, e);
        let own = mount(fd, "").map_err(fail)?;
        for place in PLACES {
            if mount(self.root, place).map_err(fail)? == own {
                return Ok(());
            }
        }
        Err(refused(action, "it leads out of /work and /tmp"))
    }
}

/// Flags with which opening does nothing but open. One that only looks may not say so.
pub(super) fn unblocking(flags: OFlags) -> OFlags {
    if flags.contains(OFlags::PATH) {
        flags
    } else {
        flags | OFlags::NOCTTY | OFlags::NONBLOCK
    }
}

/// The mount that a file lies in.
fn mount(fd: impl AsFd, path: &str) -> rustix::io::Result<u64> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW;
    let stat = statx(fd, path, flags, StatxFlags::MNT_ID)?;
    let known = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::MNT_ID);
    if known {
        Ok(stat.stx_mnt_id)
    } else {
        Err(Errno::NOSYS)
    }
}

/// What the kernel's refusal says about the caller's path.
fn trouble(e: Errno, action: &str) -> Error {
    match e {
        Errno::NOENT | Errno::EXIST => refused(action, "it goes through a link that leads nowhere"),
        Errno::NOTDIR => refused(action, "something on the way is no folder"),
        Errno::LOOP | Errno::XDEV => {
            refused(action, "it goes through a link that may not be followed")
        }
        Errno::ISDIR => refused(action, "it is a folder"),
        Errno::NXIO => refused(action, "it is no regular file"),
        Errno::NAMETOOLONG | Errno::INVAL => {
            refused(action, "a name in it is too long or malformed")
        }
        Errno::ROFS => refused(action, "it leads out of /work and /tmp"),
        Errno::TXTBSY => refused(action, "it is a program that runs"),
        Errno::ACCESS | Errno::PERM => refused(action, "the machine's user may not"),
        Errno::NOSPC | Errno::DQUOT => failed(action, "the machine's disk is full"),
        e => failed(action, e),
    }
}
