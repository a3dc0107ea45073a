//! Large immutable values under the digest of their bytes, one file each.
//!
//! Writing is atomic and durable on return. Nothing is ever overwritten with other content. It does not know what a blob is.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{Digest, Error, Result, files};

#[derive(Debug)]
pub(crate) struct Blobs {
    dir: PathBuf,
    temp: AtomicU64,
}

pub(crate) fn path_in(dir: &Path) -> PathBuf {
    dir.join("blobs")
}

impl Blobs {
    pub(crate) fn open(ledger: &Path) -> Result<Self> {
        let dir = path_in(ledger);
        files::create_dir(&dir)?;
        let temp = dir.join("tmp");
        // Leftovers of a crash: never referenced, because a reference is made only after the rename.
        match fs::remove_dir_all(&temp) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::file("clear", &temp)(error));
            }
            _ => files::create_dir(&temp)?,
        }
        Ok(Self {
            dir,
            temp: AtomicU64::new(0),
        })
    }

    /// For reading only: a folder that nobody may change.
    pub(crate) fn reading(ledger: &Path) -> Self {
        Self {
            dir: path_in(ledger),
            temp: AtomicU64::new(0),
        }
    }

    pub(crate) fn put(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        let path = file_of(&self.dir, &digest);
        let shelf = path.parent().unwrap_or(&self.dir);
        files::create_dir(shelf)?;
        let there = |found: Vec<u8>| found == bytes || crate::mutant::on("damaged-blob-kept");
        if fs::read(&path).is_ok_and(there) {
            // It may have been renamed into place by a process that died before it synced the folder.
            files::sync_dir(shelf)?;
            return Ok(digest);
        }
        let count = self.temp.fetch_add(1, Ordering::Relaxed);
        let temp = self
            .dir
            .join("tmp")
            .join(format!("{}-{count}", process::id()));
        files::write_durable(&temp, &path, bytes)?;
        Ok(digest)
    }

    pub(crate) fn get(&self, digest: &Digest) -> Result<Vec<u8>> {
        let path = file_of(&self.dir, digest);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NoBlob { digest: *digest });
            }
            Err(error) => return Err(Error::file("read", path)(error)),
        };
        let found = Digest::of(&bytes);
        if found == *digest || crate::mutant::on("blob-not-checked") {
            Ok(bytes)
        } else {
            Err(Error::BlobDamaged {
                digest: *digest,
                found,
            })
        }
    }

    pub(crate) fn remove(&self, digest: &Digest) -> Result<bool> {
        let path = file_of(&self.dir, digest);
        match fs::remove_file(&path) {
            Ok(()) => files::sync_dir(path.parent().unwrap_or(&self.dir)).map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::file("remove", path)(error)),
        }
    }

    pub(crate) fn list(&self) -> Result<Vec<Digest>> {
        let mut found = Vec::new();
        let shelves = fs::read_dir(&self.dir).map_err(Error::file("list", &self.dir))?;
        for shelf in shelves {
            let shelf = shelf.map_err(Error::file("list", &self.dir))?.path();
            if !shelf.is_dir() {
                continue;
            }
            for blob in fs::read_dir(&shelf).map_err(Error::file("list", &shelf))? {
                let blob = blob.map_err(Error::file("list", &shelf))?.path();
                found.extend(digest_of(&blob));
            }
        }
        Ok(found)
    }

    pub(crate) fn has(&self, digest: &Digest) -> bool {
        file_of(&self.dir, digest).is_file()
    }
}

/// `blobs/ab/cdef…`: 256 shelves keep the folders small.
fn file_of(dir: &Path, digest: &Digest) -> PathBuf {
    let name = digest.to_string();
    let (shelf, rest) = name.split_at(2);
    dir.join(shelf).join(rest)
}

/// The digest that a blob's path names; `None` for temporary files and anything else.
pub(crate) fn digest_of(path: &Path) -> Option<Digest> {
    let rest = path.file_name()?.to_str()?;
    let shelf = path.parent()?.file_name()?.to_str()?;
    format!("{shelf}{rest}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_read_back_by_its_digest_and_writing_it_again_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path()).unwrap();
        let digest = blobs.put(b"weights").unwrap();
        assert_eq!(blobs.put(b"weights").unwrap(), digest);
        assert_eq!(blobs.get(&digest).unwrap(), b"weights");
        assert!(blobs.has(&digest));
        assert_eq!(digest_of(&file_of(&blobs.dir, &digest)), Some(digest));
    }

    #[test]
    fn a_damaged_blob_is_refused_and_writing_it_again_heals_it() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path()).unwrap();
        let digest = blobs.put(b"weights").unwrap();
        fs::write(file_of(&blobs.dir, &digest), b"weighty").unwrap();
        assert!(matches!(blobs.get(&digest), Err(Error::BlobDamaged { .. })));
        blobs.put(b"weights").unwrap();
        assert_eq!(blobs.get(&digest).unwrap(), b"weights");
    }

    #[test]
    fn an_unknown_blob_is_an_error_and_leftovers_of_a_crash_are_cleared() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path()).unwrap();
        assert!(matches!(
            blobs.get(&Digest::of(b"?")),
            Err(Error::NoBlob { .. })
        ));
        fs::write(blobs.dir.join("tmp/1-1"), b"half").unwrap();
        let blobs = Blobs::open(dir.path()).unwrap();
        assert!(!blobs.dir.join("tmp/1-1").exists());
    }
}
