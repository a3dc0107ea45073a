//! Large immutable values under the digest of their bytes, one file each.
//!
//! Writing is atomic and durable on return. Nothing is ever overwritten with other content. It does not know what a blob is.

use std::{
    io,
    path::{Path, PathBuf},
    process,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    Digest, Error, Result,
    disk::{self, Disk},
    mutant,
};

#[derive(Debug)]
pub(crate) struct Blobs {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    temp: AtomicU64,
}

pub(crate) fn path_in(dir: &Path) -> PathBuf {
    dir.join("blobs")
}

impl Blobs {
    pub(crate) fn open(disk: Arc<dyn Disk>, ledger: &Path) -> Result<Self> {
        let dir = path_in(ledger);
        disk::create_dir(&*disk, &dir)?;
        let temp = dir.join("tmp");
        disk::create_dir(&*disk, &temp)?;
        // Leftovers of a crash: never referenced, because a reference is made only after the rename.
        disk::clear(&*disk, &temp)?;
        Ok(Self {
            disk,
            dir,
            temp: AtomicU64::new(0),
        })
    }

    pub(crate) fn put(&self, bytes: &[u8]) -> Result<Digest> {
        let disk = &*self.disk;
        let digest = Digest::of(bytes);
        let path = file_of(&self.dir, &digest);
        let shelf = path.parent().unwrap_or(&self.dir);
        disk::create_dir(disk, shelf)?;
        if matches!(disk::read_file(disk, &path), Ok(Some(found)) if found == bytes) {
            // A process may have died before it made the name durable; the bytes were synced before that.
            disk::sync_dir(disk, shelf)?;
            return Ok(digest);
        }
        let count = self.temp.fetch_add(1, Ordering::Relaxed);
        let temp = format!("{}-{count}", process::id());
        let temp = self.dir.join("tmp").join(temp);
        if mutant::on("blob-without-rename") {
            write_in_place(disk, &path, bytes)
        } else if mutant::on("skip-blob-fsync") {
            write_without_sync(disk, &temp, &path, bytes)
        } else {
            disk::write_durable(disk, &temp, &path, bytes)
        }
        .map(|()| digest)
    }

    pub(crate) fn get(&self, digest: &Digest) -> Result<Vec<u8>> {
        let path = file_of(&self.dir, digest);
        let bytes =
            disk::read_file(&*self.disk, &path)?.ok_or(Error::NoBlob { digest: *digest })?;
        let found = Digest::of(&bytes);
        if found == *digest {
            Ok(bytes)
        } else {
            Err(Error::BlobDamaged {
                digest: *digest,
                found,
            })
        }
    }

    pub(crate) fn has(&self, digest: &Digest) -> bool {
        let path = file_of(&self.dir, digest);
        self.disk.exists(&path) && !self.disk.is_dir(&path)
    }

    /// Removes the file and makes that durable; false when there was none.
    pub(crate) fn remove(&self, digest: &Digest) -> Result<bool> {
        let path = file_of(&self.dir, digest);
        let removed = match self.disk.remove(&path) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(Error::file("remove", path)(error)),
        };
        // Also when it was not there: a process may have died between the two.
        match path.parent() {
            Some(shelf) if self.disk.is_dir(shelf) => disk::sync_dir(&*self.disk, shelf)?,
            _ => {}
        }
        Ok(removed)
    }

    pub(crate) fn all(&self) -> Result<Vec<Digest>> {
        list(&*self.disk, &self.dir)
    }
}

/// The digests that the files of a folder of blobs are named by; their bytes are not read.
pub(crate) fn list(disk: &dyn Disk, blobs: &Path) -> Result<Vec<Digest>> {
    let mut all = Vec::new();
    for shelf in disk::list(disk, blobs)? {
        for rest in disk::list(disk, &blobs.join(&shelf)).unwrap_or_default() {
            if let Ok(digest) = format!("{shelf}{rest}").parse() {
                all.push(digest);
            }
        }
    }
    Ok(all)
}

/// A deliberate bug.
fn write_in_place(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<()> {
    let file = disk::Named::create(disk, path)?;
    file.write(bytes, 0)?;
    file.sync()?;
    disk::sync_dir(disk, path.parent().unwrap_or(path))
}

/// A deliberate bug.
fn write_without_sync(disk: &dyn Disk, temp: &Path, path: &Path, bytes: &[u8]) -> Result<()> {
    disk::Named::create(disk, temp)?.write(bytes, 0)?;
    disk::rename(disk, temp, path)?;
    disk::sync_dir(disk, path.parent().unwrap_or(path))
}

/// `blobs/ab/cdef…`: 256 shelves keep the folders small.
pub(crate) fn file_of(dir: &Path, digest: &Digest) -> PathBuf {
    let name = digest.to_string();
    let (shelf, rest) = name.split_at(2);
    dir.join(shelf).join(rest)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::disk::Machine;

    fn open(dir: &tempfile::TempDir) -> Blobs {
        Blobs::open(Arc::new(Machine), dir.path()).unwrap()
    }

    #[test]
    fn a_blob_is_read_back_by_its_digest_and_writing_it_again_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = open(&dir);
        let digest = blobs.put(b"weights").unwrap();
        assert_eq!(blobs.put(b"weights").unwrap(), digest);
        assert_eq!(blobs.get(&digest).unwrap(), b"weights");
        assert!(blobs.has(&digest));
        assert_eq!(blobs.all().unwrap(), [digest]);
        assert!(blobs.remove(&digest).unwrap());
        assert!(!blobs.remove(&digest).unwrap());
        assert!(!blobs.has(&digest));
    }

    #[test]
    fn a_damaged_blob_is_refused_and_writing_it_again_heals_it() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = open(&dir);
        let digest = blobs.put(b"weights").unwrap();
        fs::write(file_of(&blobs.dir, &digest), b"weighty").unwrap();
        assert!(matches!(blobs.get(&digest), Err(Error::BlobDamaged { .. })));
        blobs.put(b"weights").unwrap();
        assert_eq!(blobs.get(&digest).unwrap(), b"weights");
    }

    #[test]
    fn an_unknown_blob_is_an_error_and_leftovers_of_a_crash_are_cleared() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = open(&dir);
        assert!(matches!(
            blobs.get(&Digest::of(b"?")),
            Err(Error::NoBlob { .. })
        ));
        fs::write(blobs.dir.join("tmp/1-1"), b"half").unwrap();
        let blobs = open(&dir);
        assert!(!blobs.dir.join("tmp/1-1").exists());
    }
}
