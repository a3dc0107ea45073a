//! A folder that is its owner's alone, and files in it that are there whole or not at all.
//!
//! Every look goes through the folder's descriptor and follows no link, so that what was checked is what is read. Several hosts use one folder at
//! once: a file appears under its name by a rename, and one that somebody else just removed is no mistake.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::DirBuilderExt as _,
    },
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::{
    fs::{
        AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_NOW, fstat,
        linkat, openat, renameat, statat, unlinkat, utimensat,
    },
    io::Errno,
    process::geteuid,
};

use super::{
    key::random,
    sealed::{Name, Refusal},
};

/// How a file that is being written is called, until it is whole.
const NEW: &str = ".new-";

/// What is still being written after so long never will be whole.
const ABANDONED: Duration = Duration::from_secs(3_600);

/// Why nothing can be kept here.
#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    #[error("{doing} {path}: {source}")]
    Files {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("the folder {path} {what}: let it be yours alone, or remove it")]
    Folder { path: PathBuf, what: &'static str },
    #[error("the key {path}: {what}; remove it, and another is made")]
    Key { path: PathBuf, what: &'static str },
    #[error("the system gives no random numbers")]
    NoRandomness,
}

/// What there is under a name.
pub(super) enum Found {
    Nothing,
    Refused(Refusal),
    Bytes(Vec<u8>),
}

pub(super) struct Folder {
    path: PathBuf,
    folder: OwnedFd,
}

impl Folder {
    /// Opens it, made where it is missing.
    pub(super) fn open(path: &Path) -> Result<Self, Problem> {
        let failed = |doing| {
            let path = path.to_owned();
            move |source| Problem::Files {
                doing,
                path,
                source,
            }
        };
        let made = std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path);
        made.map_err(failed("make the folder"))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let refused = |what| Problem::Folder {
            path: path.to_owned(),
            what,
        };
        let folder = match openat(CWD, path, flags, Mode::empty()) {
            Err(Errno::NOTDIR | Errno::LOOP) => return Err(refused("is a link")),
            opened => opened.map_err(|error| failed("open the folder")(error.into()))?,
        };
        let data = fstat(&folder).map_err(|error| failed("look at the folder")(error.into()))?;
        if data.st_uid != geteuid().as_raw() {
            return Err(refused("is another user's"));
        }
        if Mode::from_raw_mode(data.st_mode).intersects(Mode::WGRP | Mode::WOTH) {
            return Err(refused("can be written by others"));
        }
        Ok(Self {
            path: path.to_owned(),
            folder,
        })
    }

    fn failed(&self, doing: &'static str, name: &str) -> impl FnOnce(io::Error) -> Problem {
        let path = self.path.join(name);
        move |source| Problem::Files {
            doing,
            path,
            source,
        }
    }

    pub(super) fn has(&self, name: &str) -> Result<bool, Problem> {
        match statat(&self.folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(false),
            found => {
                let found = found.map_err(|error| self.failed("look for", name)(error.into()));
                found.map(|_| true)
            }
        }
    }

    /// A file's bytes, when it is a plain file of its owner's alone and not longer than it may be.
    pub(super) fn read(&self, name: &str, most: u64) -> Result<Found, Problem> {
        // What is no file must not keep us waiting to open it.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(&self.folder, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(Found::Nothing),
            Err(Errno::LOOP | Errno::NXIO) => return Ok(Found::Refused(Refusal::Kind)),
            Err(Errno::ACCESS) => return Ok(Found::Refused(Refusal::Mode)),
            opened => opened.map_err(|error| self.failed("open", name)(error.into()))?,
        };
        let data = fstat(&file).map_err(|error| self.failed("look at", name)(error.into()))?;
        if let Err(refusal) = own(&data, most) {
            return Ok(Found::Refused(refusal));
        }
        let length = u64::try_from(data.st_size).unwrap_or_default();
        let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
        let read = File::from(file).take(length + 1).read_to_end(&mut bytes);
        read.map_err(self.failed("read", name))?;
        Ok(Found::Bytes(bytes))
    }

    /// Says that it was of use just now. Not being able to is no reason to do without it.
    pub(super) fn used(&self, name: &str) {
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_NOW,
        };
        let now = Timestamps {
            last_access: now,
            last_modification: now,
        };
        let _ = utimensat(&self.folder, name, &now, AtFlags::SYMLINK_NOFOLLOW);
    }

    pub(super) fn remove(&self, name: &str) -> Result<(), Problem> {
        let removed = match unlinkat(&self.folder, name, AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            // Whoever may write here can make a folder, too.
            Err(Errno::ISDIR | Errno::PERM) => unlinkat(&self.folder, name, AtFlags::REMOVEDIR),
            removed => removed,
        };
        removed.map_err(|error| self.failed("remove", name)(error.into()))
    }

    /// Writes a file of these parts, in place of one that was there; durable on return.
    pub(super) fn write(&self, name: &str, parts: &[&[u8]]) -> Result<(), Problem> {
        let new = self.write_new(parts)?;
        let renamed = renameat(&self.folder, &new, &self.folder, name);
        if renamed.is_err() {
            let _ = self.remove(&new);
        }
        renamed.map_err(|error| self.failed("rename to", name)(error.into()))?;
        self.sync()
    }

    /// Writes a file unless there is one by now, which then is as good.
    pub(super) fn write_first(&self, name: &str, bytes: &[u8]) -> Result<(), Problem> {
        let new = self.write_new(&[bytes])?;
        let linked = linkat(&self.folder, &new, &self.folder, name, AtFlags::empty());
        self.remove(&new)?;
        match linked {
            Err(Errno::EXIST) => Ok(()),
            linked => {
                linked.map_err(|error| self.failed("link to", name)(error.into()))?;
                self.sync()
            }
        }
    }

    fn write_new(&self, parts: &[&[u8]]) -> Result<String, Problem> {
        let mut number = [0; 16];
        random(&mut number)?;
        let new = format!("{NEW}{}", hex::encode(number));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let made = openat(
            &self.folder,
            &new,
            flags | OFlags::CLOEXEC,
            Mode::RUSR | Mode::WUSR,
        );
        let made = made.map_err(|error| self.failed("make", &new)(error.into()))?;
        let mut file = File::from(made);
        let written = parts.iter().try_for_each(|part| file.write_all(part));
        let written = written.and_then(|()| file.sync_all());
        if written.is_err() {
            let _ = self.remove(&new);
        }
        written.map_err(self.failed("write", &new))?;
        Ok(new)
    }

    fn sync(&self) -> Result<(), Problem> {
        let folder = self.folder.as_fd().try_clone_to_owned().map(File::from);
        let synced = folder.and_then(|folder| folder.sync_all());
        synced.map_err(self.failed("make durable", ""))
    }

    /// Removes what was not used for longest until all kept files together have at most so many bytes, and what never was written
    /// to its end. What is called otherwise is somebody else's.
    pub(super) fn evict(&self, most_bytes: u64) -> Result<(), Problem> {
        let listed = Dir::read_from(&self.folder);
        let listed = listed.map_err(|error| self.failed("list", "")(error.into()))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default();
        let mut kept = Vec::new();
        for entry in listed {
            let entry = entry.map_err(|error| self.failed("list", "")(error.into()))?;
            let Ok(name) = entry.file_name().to_str() else {
                continue;
            };
            // Another host may have removed it.
            let Ok(data) = statat(&self.folder, name, AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            let used = last_used(&data);
            if name.starts_with(NEW) && now.saturating_sub(used) > ABANDONED {
                self.remove(name)?;
            } else if Name::is_file(name) {
                let bytes = u64::try_from(data.st_size).unwrap_or_default();
                kept.push((used, bytes, name.to_owned()));
            }
        }
        kept.sort_unstable();
        let mut total: u64 = kept.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, bytes, name) in kept {
            if total <= most_bytes {
                break;
            }
            self.remove(&name)?;
            total -= bytes;
        }
        Ok(())
    }
}

/// A file of before 1970 is old.
fn last_used(data: &Stat) -> Duration {
    let seconds = u64::try_from(data.st_mtime).unwrap_or_default();
    Duration::new(
        seconds,
        u32::try_from(data.st_mtime_nsec).unwrap_or_default(),
    )
}

/// Whether a file is plain, its owner's alone and not longer than it may be.
fn own(data: &Stat, most: u64) -> Result<(), Refusal> {
    if FileType::from_raw_mode(data.st_mode) != FileType::RegularFile {
        return Err(Refusal::Kind);
    }
    if data.st_uid != geteuid().as_raw() {
        return Err(Refusal::Owner);
    }
    if Mode::from_raw_mode(data.st_mode).intersects(Mode::RWXG | Mode::RWXO) {
        return Err(Refusal::Mode);
    }
    if u64::try_from(data.st_size).is_ok_and(|length| length <= most) {
        return Ok(());
    }
    Err(Refusal::Size)
}
