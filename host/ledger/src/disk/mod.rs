//! The one door to the disk: every file that the ledger touches is touched through [`Disk`].
//!
//! [`Machine`] is the machine's file system. [`Simulated`] is a disk in memory with a page cache that loses, tears and fails
//! as told, so that a test can crash the ledger at each of its operations. No formats here.

mod machine;
mod simulated;

use std::{
    any::Any,
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

pub use machine::Machine;
pub use simulated::{Fault, Simulated};

use crate::{Error, Result, mutant};

/// Held while the lock is; dropping it releases the lock.
pub type Guard = Box<dyn Any + Send + Sync>;

/// A file system, as far as durability needs one. Paths are absolute or relative to wherever the disk says.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Creates an empty file, or empties the one that is there, for reading and writing.
    ///
    /// # Errors
    /// The file system's.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens a file for reading and writing.
    ///
    /// # Errors
    /// `NotFound`, or the file system's.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens a file for reading.
    ///
    /// # Errors
    /// `NotFound`, or the file system's.
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Creates a folder and those above it that are missing.
    ///
    /// # Errors
    /// The file system's.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    ///
    /// # Errors
    /// The file system's.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Moves a file or a folder, replacing a file of that name, atomically.
    ///
    /// # Errors
    /// The file system's.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    ///
    /// # Errors
    /// `NotFound`, or the file system's.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// The names in a folder, sorted; empty when there is no such folder.
    ///
    /// # Errors
    /// The file system's.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
    /// Whether there is a file or a folder of this name.
    fn exists(&self, path: &Path) -> bool;
    /// Whether there is a folder of this name.
    fn is_dir(&self, path: &Path) -> bool;
    /// Takes an exclusive lock on a file, creating it; `None` when somebody else has it.
    ///
    /// # Errors
    /// The file system's.
    fn lock(&self, path: &Path) -> io::Result<Option<Guard>>;
    /// Runs a job beside the caller. A simulated disk runs it in place, so that its operations have one order.
    fn spawn(&self, job: Box<dyn FnOnce() + Send>);
}

/// An open file.
pub trait DiskFile: fmt::Debug + Send + Sync {
    /// Fills `buf` from `offset` on.
    ///
    /// # Errors
    /// `UnexpectedEof` when the file ends before, or the file system's.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`, into the page cache.
    ///
    /// # Errors
    /// The file system's.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes what was written durable, and the length, but not the name.
    ///
    /// # Errors
    /// The file system's. What was not durable before may be lost from then on, whatever a later call says.
    fn sync(&self) -> io::Result<()>;
    /// The length in bytes.
    ///
    /// # Errors
    /// The file system's.
    fn len(&self) -> io::Result<u64>;
    /// Whether the length is zero.
    ///
    /// # Errors
    /// The file system's.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// An open file and its name, which its errors carry.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) path: Arc<Path>,
}

impl Named {
    pub(crate) fn create(disk: &dyn Disk, path: &Path) -> Result<Self> {
        let file = disk.create(path).map_err(Error::file("create", path))?;
        Ok(Self {
            file,
            path: path.into(),
        })
    }

    pub(crate) fn open(disk: &dyn Disk, path: &Path) -> Result<Self> {
        let file = disk.open(path).map_err(Error::file("open", path))?;
        Ok(Self {
            file,
            path: path.into(),
        })
    }

    pub(crate) fn open_read(disk: &dyn Disk, path: &Path) -> Result<Self> {
        let file = disk.open_read(path).map_err(Error::file("open", path))?;
        Ok(Self {
            file,
            path: path.into(),
        })
    }

    pub(crate) fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.read_into(&mut bytes, offset)?;
        Ok(bytes)
    }

    pub(crate) fn read_into(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.file
            .read_at(buf, offset)
            .map_err(Error::file("read", &*self.path))
    }

    pub(crate) fn write(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.file
            .write_at(bytes, offset)
            .map_err(Error::file("write", &*self.path))
    }

    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync().map_err(Error::file("sync", &*self.path))
    }

    pub(crate) fn len(&self) -> Result<u64> {
        self.file.len().map_err(Error::file("measure", &*self.path))
    }

    pub(crate) fn read_all(&self) -> Result<Vec<u8>> {
        let len = usize::try_from(self.len()?).unwrap_or(usize::MAX);
        self.read(0, len)
    }
}

/// Makes the names in `dir` durable.
pub(crate) fn sync_dir(disk: &dyn Disk, dir: &Path) -> Result<()> {
    if mutant::on("skip-folder-fsync") {
        return Ok(());
    }
    // The folder above a path of one part is the one that we are in.
    let dir = if dir.as_os_str().is_empty() {
        Path::new(".")
    } else {
        dir
    };
    disk.sync_dir(dir)
        .map_err(Error::file("sync the folder", dir))
}

/// Creates `dir` and the folders above it that are missing, from the top, and makes each name durable before the next.
pub(crate) fn create_dir(disk: &dyn Disk, dir: &Path) -> Result<()> {
    let missing: Vec<&Path> = dir
        .ancestors()
        .take_while(|a| !a.as_os_str().is_empty() && !disk.is_dir(a))
        .collect();
    let there = missing.last().map_or(Some(dir), |top| top.parent());
    if let Some(above) = there.and_then(Path::parent) {
        // The lowest one that is there may be a killed process's, whose name is not durable yet.
        match sync_dir(disk, above) {
            Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {
            }
            outcome => outcome?,
        }
    }
    for folder in missing.into_iter().rev() {
        disk.create_dir_all(folder)
            .map_err(Error::file("create", folder))?;
        sync_dir(disk, folder.parent().unwrap_or(folder))?;
    }
    Ok(())
}

/// Puts `bytes` at `path` so that after a crash either nothing or all of it is there: `temp` in the same file system is
/// written, synced and renamed, then the folder is synced.
pub(crate) fn write_durable(disk: &dyn Disk, temp: &Path, path: &Path, bytes: &[u8]) -> Result<()> {
    let placed = Named::create(disk, temp)
        .and_then(|file| {
            file.write(bytes, 0)?;
            file.sync()
        })
        .and_then(|()| rename(disk, temp, path));
    if placed.is_err() {
        // Its space may be what is missing. If it stays, it is overwritten or cleared one day.
        let _ = disk.remove(temp);
    }
    placed?;
    match path.parent() {
        Some(parent) => sync_dir(disk, parent),
        None => Ok(()),
    }
}

pub(crate) fn rename(disk: &dyn Disk, from: &Path, to: &Path) -> Result<()> {
    disk.rename(from, to)
        .map_err(Error::file("rename into place", to))
}

/// Removes a file, when it is there.
pub(crate) fn remove(disk: &dyn Disk, path: &Path) -> Result<()> {
    match disk.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::file("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Removes the files in a folder.
pub(crate) fn clear(disk: &dyn Disk, folder: &Path) -> Result<()> {
    for name in list(disk, folder)? {
        remove(disk, &folder.join(name))?;
    }
    Ok(())
}

pub(crate) fn list(disk: &dyn Disk, path: &Path) -> Result<Vec<String>> {
    disk.list(path).map_err(Error::file("list", path))
}

/// The file's content, or `None` when there is no such file.
pub(crate) fn read_file(disk: &dyn Disk, path: &Path) -> Result<Option<Vec<u8>>> {
    match disk.open_read(path) {
        Ok(file) => Named {
            file,
            path: path.into(),
        }
        .read_all()
        .map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file("open", path)(error)),
    }
}

/// A name beside `path` for its half-written self.
pub(crate) fn temp_of(path: &Path) -> PathBuf {
    path.with_extension("new")
}
