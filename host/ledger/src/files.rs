//! The file operations that durability rests on, in one place. No formats here.

use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
};

use crate::{Error, Result};

/// Makes the names in `dir` durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(Error::file("sync the folder", dir))
}

/// Creates `dir` and makes its name durable.
pub(crate) fn create_dir(dir: &Path) -> Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(dir).map_err(Error::file("create", dir))?;
    match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
        _ => Ok(()),
    }
}

/// Puts `bytes` at `path` so that after a crash either nothing or all of it is there: `temp` in the same file system is
/// written, synced and renamed, then the folder is synced.
pub(crate) fn write_durable(temp: &Path, path: &Path, bytes: &[u8]) -> Result<()> {
    let temp = match crate::mutant::on("blob-in-place") {
        true => path,
        false => temp,
    };
    let mut file = File::create(temp).map_err(Error::file("create", temp))?;
    file.write_all(bytes).map_err(Error::file("write", temp))?;
    if !crate::mutant::on("blob-without-sync") {
        file.sync_all().map_err(Error::file("sync", temp))?;
    }
    drop(file);
    fs::rename(temp, path).map_err(Error::file("rename into place", path))?;
    match path.parent() {
        Some(_) if crate::mutant::on("name-without-sync") => Ok(()),
        Some(parent) => sync_dir(parent),
        None => Ok(()),
    }
}
