//! Files and folders that appear under their name whole or not at all.
//!
//! Written beside the place under a name of their own, flushed, then renamed. What is left of a failure is removed; after a
//! crash `.NAME.PID.part` may stay.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::error::{Result, io};

/// A file that is being written.
pub(super) struct Sink {
    file: BufWriter<File>,
    path: PathBuf,
    written: u64,
}

impl Sink {
    /// Starts a file.
    pub(super) fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).map_err(io("create", path))?;
        Ok(Self {
            file: BufWriter::with_capacity(1 << 20, file),
            path: path.into(),
            written: 0,
        })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file
            .write_all(bytes)
            .map_err(io("write", &self.path))?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Zeros up to a multiple of `alignment`.
    pub(super) fn pad(&mut self, alignment: u64) -> Result<()> {
        let zeros = self.written.next_multiple_of(alignment) - self.written;
        self.write(&vec![0; usize::try_from(zeros).unwrap_or(0)])
    }

    /// Bytes so far.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Flushes to the disk.
    pub(super) fn finish(self) -> Result<()> {
        let path = self.path;
        let file = self.file.into_inner().map_err(|e| e.into_error());
        file.and_then(|file| file.sync_all())
            .map_err(io("flush", path))
    }
}

/// Writes a file through `write`.
pub(super) fn file(out: &Path, write: impl FnOnce(&mut Sink) -> Result<()>) -> Result<()> {
    let part = Part::beside(out)?;
    let mut sink = Sink::create(&part.path)?;
    write(&mut sink)?;
    sink.finish()?;
    part.place(out)
}

/// Makes a folder through `write`, which flushes the files that it makes.
pub(super) fn folder(out: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let part = Part::beside(out)?;
    fs::create_dir(&part.path).map_err(io("create", &part.path))?;
    write(&part.path)?;
    sync(&part.path)?;
    part.place(out)
}

/// A place beside the final one, cleared when it is dropped.
struct Part {
    path: PathBuf,
    parent: PathBuf,
}

impl Part {
    fn beside(out: &Path) -> Result<Self> {
        let parent: PathBuf = match out.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.into(),
            _ => ".".into(),
        };
        fs::create_dir_all(&parent).map_err(io("create", &parent))?;
        let mut name = OsString::from(".");
        name.push(out.file_name().unwrap_or_default());
        name.push(format!(".{}.part", std::process::id()));
        let part = Self {
            path: parent.join(name),
            parent,
        };
        part.clear(); // a crashed process of the same id may have left one
        Ok(part)
    }

    fn place(self, out: &Path) -> Result<()> {
        fs::rename(&self.path, out).map_err(io("rename to its final name", &self.path))?;
        sync(&self.parent)
    }

    fn clear(&self) {
        // Usually there is nothing, and a left-over that cannot be removed harms nothing.
        let _left = if self.path.is_dir() {
            fs::remove_dir_all(&self.path)
        } else {
            fs::remove_file(&self.path)
        };
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.clear();
    }
}

fn sync(folder: &Path) -> Result<()> {
    File::open(folder)
        .and_then(|file| file.sync_all())
        .map_err(io("flush", folder))
}
