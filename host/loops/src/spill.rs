//! Weights that are kept by their digest in a file without a name: whoever computes many versions holds none of them in memory.
//!
//! The file is gone when this is dropped, and when the process ends, however it does. Not for what must last: that is the ledger's.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use ledger::Digest;

use crate::{Error, Result};

/// Where such weights are.
#[derive(Debug)]
pub(crate) struct Spill {
    folder: PathBuf,
    /// None until there is something to keep.
    file: Option<File>,
    /// Where each begins, and how many bytes it has.
    places: HashMap<Digest, (u64, u64)>,
}

impl Spill {
    /// In this folder, on its disk.
    pub(crate) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            file: None,
            places: HashMap::new(),
        }
    }

    /// Keeps bytes; those that are kept already are not kept again.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn put(&mut self, digest: Digest, bytes: &[u8]) -> Result<()> {
        if self.places.contains_key(&digest) {
            return Ok(());
        }
        let written = self.write(bytes);
        let at = written.map_err(|source| self.failed(source))?;
        self.places.insert(digest, (at, bytes.len() as u64));
        Ok(())
    }

    /// What is kept under this digest.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn get(&self, digest: &Digest) -> Result<Option<Vec<u8>>> {
        let (Some(place), Some(file)) = (self.places.get(digest), &self.file) else {
            return Ok(None);
        };
        let read = read(file, *place);
        read.map(Some).map_err(|source| self.failed(source))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(tempfile::tempfile_in(&self.folder)?),
        };
        let at = file.seek(SeekFrom::End(0))?;
        file.write_all(bytes)?;
        Ok(at)
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::Spill {
            folder: self.folder.clone(),
            source: source.into(),
        }
    }
}

fn read(mut file: &File, (at, length): (u64, u64)) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(at))?;
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
    file.take(length).read_to_end(&mut bytes)?;
    match bytes.len() as u64 == length {
        true => Ok(bytes),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back_and_leaves_nothing_in_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let mut spill = Spill::new(folder.path());
        let texts: Vec<Vec<u8>> = (0..100_u8).map(|i| vec![i; usize::from(i)]).collect();
        for text in texts.iter().chain(&texts) {
            spill.put(Digest::of(text), text).unwrap();
        }
        for text in texts.iter().rev() {
            let back = spill.get(&Digest::of(text)).unwrap();
            assert_eq!(back.as_ref(), Some(text));
        }
        assert_eq!(spill.get(&Digest::of(b"another")).unwrap(), None);
        let length = spill.file.as_ref().unwrap().metadata().unwrap().len();
        assert_eq!(length, (0..100).sum::<u64>());
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_is_gone_is_an_error_that_names_it() {
        let mut spill = Spill::new(Path::new("/nowhere/at all"));
        let error = spill.put(Digest::of(b"x"), b"x").unwrap_err();
        assert!(error.to_string().contains("/nowhere/at all"), "{error}");
    }
}
