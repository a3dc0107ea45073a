//! File trees: copied and compared, without trusting anything in them.
//!
//! A tree may be a hostile machine's own, and may change while it is read. Every step opens a path below the tree's root, through
//! no link; no step goes down by recursion; depth, entries, bytes and time are bounded. Only folders, regular files and links count: pipes, sockets and devices are left out.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    time::Instant,
};

use rustix::{
    fs::{
        AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps,
        Uid, XattrFlags, chownat, fchmod, fchown, fgetxattr, fsetxattr, fstat, ftruncate, futimens,
        mkdirat, mknodat, openat, openat2, readlinkat, symlinkat,
    },
    io::Errno,
};

use super::{fail::failed, files::unblocking};
use crate::Result;

/// No folder is deeper than this; what unpacks such a tree later must not run out of anything.
const DEEPEST: usize = 128;
/// An attribute by which overlayfs says that a folder hides the one below it.
const OPAQUE: &str = "trusted.overlay.opaque";

/// A tree below an open folder.
#[derive(Debug)]
pub(super) struct Tree {
    root: OwnedFd,
}

/// What a copy is bounded by, and what it keeps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Copy {
    /// To whom the copy is given; `None`: to the host's own user.
    pub(super) owner: Option<u32>,
    /// Most bytes of all files together.
    pub(super) bytes: u64,
    /// When it must be done.
    pub(super) until: Instant,
    /// Whether overlayfs's own marks are kept: the tree is a layer.
    pub(super) layer: bool,
}

pub(super) type Answer<T> = rustix::io::Result<T>;

/// A path below a tree's root; empty for the root itself.
pub(super) type Below = Vec<u8>;

impl Tree {
    /// The tree below a folder of the host.
    pub(super) fn at(path: &Path) -> Answer<Self> {
        Self::below(CWD, path)
    }

    /// The tree below `path`, which no one else can change, below an open folder.
    pub(super) fn below(folder: BorrowedFd<'_>, path: &Path) -> Answer<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(folder, path, flags, Mode::empty())?;
        Ok(Self { root })
    }

    pub(super) fn open(&self, path: &[u8], flags: OFlags) -> Answer<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        let flags = unblocking(flags) | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        openat2(&self.root, path, flags, Mode::empty(), resolve)
    }

    /// What is there, as an open descriptor that can only be looked at. `None`: nothing that counts.
    pub(super) fn look(&self, path: &[u8]) -> Answer<Option<(OwnedFd, Stat)>> {
        let fd = match self.open(path, OFlags::PATH) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            opened => opened?,
        };
        let stat = fstat(&fd)?;
        Ok(Some((fd, stat)))
    }

    /// The names in a folder, sorted.
    pub(super) fn names(&self, path: &[u8]) -> Answer<Vec<Vec<u8>>> {
        let folder = self.open(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut names = Vec::new();
        for entry in Dir::read_from(&folder)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// Copies everything into a tree that is empty and that no one else changes.
    pub(super) fn copy_into(&self, to: &Self, copy: Copy) -> Result<()> {
        let mut left = copy.bytes;
        let mut folders = vec![Below::new()];
        let mut done = Vec::new();
        while let Some(folder) = folders.pop() {
            let fail = |e: Errno| failed(format!("copy the folder {}", show(&folder)), e);
            for name in self.names(&folder).map_err(fail)? {
                let path = join(&folder, &name);
                let fail = |e: Errno| failed(format!("copy {}", show(&path)), e);
                if Instant::now() > copy.until {
                    return Err(failed(format!("copy {}", show(&path)), "it takes too long"));
                }
                let Some((fd, stat)) = self.look(&path).map_err(fail)? else {
                    continue;
                };
                if self
                    .copy_one(&fd, &stat, to, &path, copy, &mut left)
                    .map_err(fail)?
                {
                    if depth(&path) >= DEEPEST {
                        let why = format!("its folders are deeper than {DEEPEST}");
                        return Err(failed(format!("copy {}", show(&path)), why));
                    }
                    folders.push(path);
                }
            }
            done.push(folder);
        }
        // From the inside out: a folder that its owner may not write can only be closed when it is full.
        for folder in done.iter().rev() {
            let fail = |e: Errno| failed(format!("copy the folder {}", show(folder)), e);
            self.close(to, folder, copy).map_err(fail)?;
        }
        Ok(())
    }

    /// Copies one entry; whether it is a folder, whose content is to follow.
    fn copy_one(
        &self,
        fd: &OwnedFd,
        stat: &Stat,
        to: &Self,
        path: &[u8],
        copy: Copy,
        left: &mut u64,
    ) -> Answer<bool> {
        let (above, name) = split(path);
        let above = to.open(above, OFlags::PATH | OFlags::DIRECTORY)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                mkdirat(&above, name, Mode::RWXU)?;
                return Ok(true);
            }
            FileType::Symlink => {
                let target = readlinkat(fd, "", Vec::new())?;
                symlinkat(target, &above, name)?;
                if let Some(owner) = copy.owner {
                    let (user, group) = (Uid::from_raw(owner), Gid::from_raw(owner));
                    chownat(
                        &above,
                        name,
                        Some(user),
                        Some(group),
                        AtFlags::SYMLINK_NOFOLLOW,
                    )?;
                }
            }
            FileType::RegularFile => {
                let from = self.open(path, OFlags::RDONLY)?;
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let into = openat(&above, name, flags, Mode::RWXU)?;
                let into = copy_bytes(File::from(from), File::from(into), copy, left)?;
                finish(&into, stat, copy)?;
            }
            // A whiteout: overlayfs's mark for an entry that is gone.
            FileType::CharacterDevice if copy.layer && stat.st_rdev == 0 => {
                mknodat(&above, name, FileType::CharacterDevice, Mode::empty(), 0)?;
            }
            _ => {}
        }
        Ok(false)
    }

    /// Gives a copied folder the rights and times of the original.
    fn close(&self, to: &Self, folder: &[u8], copy: Copy) -> Answer<()> {
        let from = self.open(folder, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let into = to.open(folder, OFlags::RDONLY | OFlags::DIRECTORY)?;
        if copy.layer {
            let mut value = [0; 8];
            if let Ok(length) = fgetxattr(&from, OPAQUE, value.as_mut_slice()) {
                let value = value.get(..length).unwrap_or_default();
                fsetxattr(&into, OPAQUE, value, XattrFlags::empty())?;
            }
        }
        finish(&into, &fstat(&from)?, copy)
    }
}

/// Copies what a file holds; its holes stay holes, so that a huge empty file costs nothing.
fn copy_bytes(mut from: File, mut into: File, copy: Copy, left: &mut u64) -> Answer<OwnedFd> {
    let io = |e: std::io::Error| Errno::from_io_error(&e).unwrap_or(Errno::IO);
    let mut chunk = vec![0; 1 << 16];
    let mut at = 0;
    loop {
        at = match rustix::fs::seek(&from, rustix::fs::SeekFrom::Data(at)) {
            // Nothing but a hole is left.
            Err(Errno::NXIO) => break,
            at => at?,
        };
        let hole = rustix::fs::seek(&from, rustix::fs::SeekFrom::Hole(at))?;
        from.seek(SeekFrom::Start(at)).map_err(io)?;
        into.seek(SeekFrom::Start(at)).map_err(io)?;
        while at < hole {
            let want = usize::try_from(hole - at)
                .unwrap_or(usize::MAX)
                .min(chunk.len());
            let part = chunk.get_mut(..want).unwrap_or_default();
            let n = from.read(part).map_err(io)?;
            if n == 0 {
                break;
            }
            *left = left.checked_sub(n as u64).ok_or(Errno::FBIG)?;
            if Instant::now() > copy.until {
                return Err(Errno::TIMEDOUT);
            }
            into.write_all(part.get(..n).unwrap_or_default())
                .map_err(io)?;
            at += n as u64;
        }
        if at < hole {
            break;
        }
    }
    let length = fstat(&from)?.st_size.unsigned_abs();
    ftruncate(&into, length)?;
    Ok(into.into())
}

/// Owner, rights (without those that would lend someone's identity) and time of change.
fn finish(into: &OwnedFd, stat: &Stat, copy: Copy) -> Answer<()> {
    if let Some(owner) = copy.owner {
        fchown(into, Some(Uid::from_raw(owner)), Some(Gid::from_raw(owner)))?;
    }
    fchmod(into, Mode::from_raw_mode(stat.st_mode & 0o777))?;
    let time = Timespec {
        tv_sec: stat.st_mtime,
        tv_nsec: stat.st_mtime_nsec.try_into().unwrap_or(0),
    };
    futimens(
        into.as_fd(),
        &Timestamps {
            last_access: time,
            last_modification: time,
        },
    )
}

/// A path as an error shows it.
pub(super) fn show(path: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(path))
}

/// The path of an entry of a folder.
pub(super) fn join(folder: &[u8], name: &[u8]) -> Below {
    if folder.is_empty() {
        name.to_vec()
    } else {
        [folder, b"/", name].concat()
    }
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (
            path.get(..at).unwrap_or_default(),
            path.get(at + 1..).unwrap_or_default(),
        ),
        None => (&[], path),
    }
}

fn depth(path: &[u8]) -> usize {
    path.split(|byte| *byte == b'/').count()
}
