//! The keys of sealed bodies: one for each subject, in slots of a file beside the database.
//!
//! Slots are filled with random keys and synced before any of them is used, so that a subject's first sealed record costs no
//! sync of its own; the record says which slot it is. Destroying a key overwrites its slot: what it sealed can never be read
//! again, in no copy of the database. This module does not know which subject has which slot.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use chacha20poly1305::{
    ChaCha20Poly1305, KeyInit as _, Nonce,
    aead::{Aead as _, Payload},
};

use crate::{Digest, Error, Result, Seq, files};

const MAGIC: &[u8; 8] = b"NSKEYS02";
/// The header has a page of its own.
const HEADER: u64 = 4096;
/// A key (32 bytes) and the first 8 bytes of its SHA-256, so that a damaged key is not taken for another one.
const SLOT: u64 = 40;
/// Slots that are made at a time: one write and one sync for as many subjects.
const BATCH: u64 = 1024;

/// What a slot holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    Whole([u8; 32]),
    Destroyed,
}

/// The key file.
#[derive(Debug)]
pub(crate) struct Keys {
    path: PathBuf,
    file: File,
    slots: Mutex<u64>,
}

pub(crate) fn path_in(dir: &Path) -> PathBuf {
    dir.join("keys")
}

impl Keys {
    /// Opens the file, creating it when there is none.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let path = path_in(dir);
        if !path.exists() {
            let mut header = vec![0; 4096];
            header[..8].copy_from_slice(MAGIC);
            files::write_durable(&dir.join("keys.new"), &path, &header)?;
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600);
        let file = options.open(&path).map_err(Error::file("open", &path))?;
        let mut magic = [0; 8];
        file.read_exact_at(&mut magic, 0)
            .map_err(Error::file("read", &path))?;
        if &magic != MAGIC {
            return Err(Error::KeysDamaged { path, slot: None });
        }
        let length = file.metadata().map_err(Error::file("read", &path))?.len();
        // Half a slot at the end is of a batch that was never used.
        let slots = length.saturating_sub(HEADER) / SLOT;
        Ok(Self {
            path,
            file,
            slots: Mutex::new(slots),
        })
    }

    /// Makes sure that a slot can be used: on return its key is durable.
    pub(crate) fn provide(&self, slot: u64) -> Result<()> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        while slot >= *slots {
            let mut batch = Vec::new();
            for _ in 0..BATCH {
                let mut key = [0; 32];
                getrandom::fill(&mut key).map_err(|source| Error::Random {
                    why: source.to_string().into(),
                })?;
                batch.extend_from_slice(&key);
                batch.extend_from_slice(&check(&key));
            }
            self.file
                .write_all_at(&batch, HEADER + *slots * SLOT)
                .map_err(Error::file("write", &self.path))?;
            self.file
                .sync_all()
                .map_err(Error::file("sync", &self.path))?;
            *slots += BATCH;
        }
        Ok(())
    }

    /// What a slot holds.
    pub(crate) fn get(&self, slot: u64) -> Result<Key> {
        let mut bytes = [0; SLOT as usize];
        self.file
            .read_exact_at(&mut bytes, HEADER + slot * SLOT)
            .map_err(Error::file("read", &self.path))?;
        if bytes == [0; SLOT as usize] {
            return Ok(Key::Destroyed);
        }
        let mut key = [0; 32];
        key.copy_from_slice(&bytes[..32]);
        if bytes[32..] == check(&key) {
            Ok(Key::Whole(key))
        } else {
            Err(Error::KeysDamaged {
                path: self.path.clone(),
                slot: Some(slot),
            })
        }
    }

    /// Destroys keys; durable on return. Gives how many there were.
    pub(crate) fn destroy(&self, slots: &[u64]) -> Result<u64> {
        let mut count = 0;
        for slot in slots {
            if self.get(*slot)? != Key::Destroyed && !crate::mutant::on("key-not-destroyed") {
                self.file
                    .write_all_at(&[0; SLOT as usize], HEADER + slot * SLOT)
                    .map_err(Error::file("write", &self.path))?;
                count += 1;
            }
        }
        if !crate::mutant::on("erase-without-sync") {
            self.file
                .sync_all()
                .map_err(Error::file("sync", &self.path))?;
        }
        Ok(count)
    }

    /// Seals a body for its place.
    pub(crate) fn seal(&self, slot: u64, seq: Seq, body: &[u8]) -> Result<Vec<u8>> {
        let slot = match crate::mutant::on("one-key-for-all") {
            true => 0,
            false => slot,
        };
        let Key::Whole(key) = self.get(slot)? else {
            return Err(Error::KeyDestroyed { seq });
        };
        let place = seq.get().to_le_bytes();
        let payload = Payload {
            msg: body,
            aad: &place,
        };
        cipher(&key)
            .encrypt(&nonce(seq), payload)
            .map_err(|_| Error::Unsealable { seq })
    }

    /// Opens a sealed body; `None` when its key was destroyed.
    pub(crate) fn unseal(&self, slot: u64, seq: Seq, sealed: &[u8]) -> Result<Option<Vec<u8>>> {
        let slot = match crate::mutant::on("one-key-for-all") {
            true => 0,
            false => slot,
        };
        let Key::Whole(key) = self.get(slot)? else {
            return Ok(None);
        };
        let place = seq.get().to_le_bytes();
        let payload = Payload {
            msg: sealed,
            aad: &place,
        };
        cipher(&key)
            .decrypt(&nonce(seq), payload)
            .map(Some)
            .map_err(|_| Error::Unsealable { seq })
    }
}

fn cipher(key: &[u8; 32]) -> ChaCha20Poly1305 {
    ChaCha20Poly1305::new(key.into())
}

/// A place is used once, and a key seals one body a place.
fn nonce(seq: Seq) -> Nonce {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&seq.get().to_le_bytes());
    bytes.into()
}

fn check(key: &[u8; 32]) -> [u8; 8] {
    let digest = Digest::of(key);
    let mut first = [0; 8];
    first.copy_from_slice(&digest.as_bytes()[..8]);
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_is_read_again_until_its_key_is_destroyed() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::open(dir.path()).unwrap();
        keys.provide(3).unwrap();
        let at = Seq::new(9);
        let sealed = keys.seal(3, at, b"hello").unwrap();
        assert_ne!(sealed[..5], *b"hello");
        assert_eq!(keys.unseal(3, at, &sealed).unwrap().unwrap(), b"hello");
        assert!(keys.unseal(2, at, &sealed).is_err(), "another key");
        assert!(keys.unseal(3, Seq::new(8), &sealed).is_err(), "elsewhere");
        assert_eq!(keys.destroy(&[3]).unwrap(), 1);
        assert_eq!(keys.destroy(&[3]).unwrap(), 0);
        drop(keys);
        let keys = Keys::open(dir.path()).unwrap();
        assert_eq!(keys.unseal(3, at, &sealed).unwrap(), None);
        assert!(matches!(
            keys.seal(3, at, b"x"),
            Err(Error::KeyDestroyed { .. })
        ));
        assert!(matches!(keys.get(2).unwrap(), Key::Whole(_)));
    }

    #[test]
    fn a_damaged_key_is_an_error_that_names_its_slot_and_a_foreign_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::open(dir.path()).unwrap();
        keys.provide(0).unwrap();
        keys.file.write_all_at(&[7], HEADER + 3).unwrap();
        let Err(error) = keys.get(0) else {
            panic!("read")
        };
        assert!(error.to_string().contains("slot 0"), "{error}");
        keys.file.write_all_at(b"something", 0).unwrap();
        assert!(Keys::open(dir.path()).is_err());
    }
}
