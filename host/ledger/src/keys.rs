//! The keys of sealed bodies: one for each subject, in slots of a file beside the log.
//!
//! Slots are filled with random keys and synced before they are ever used, so that a subject's first sealed record costs no
//! sync of its own; the record says which slot it used. Destroying a key overwrites its slot. This module does not know
//! which subject has which slot: the log does.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use crate::{
    Error, Result,
    disk::{self, Disk, Named},
    frame, mutant,
};

const MAGIC: &[u8; 8] = b"NSKEYS02";
const HEADER: u64 = 4096;
const SLOT: usize = 64;
const GONE: &[u8; 8] = b"KEYGONE2";
/// Slots are made by the kilobyte: 256 of them cost one write and one sync.
const BATCH: u32 = 256;
const NONCE: usize = 12;

/// What a slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    Key([u8; 32]),
    Destroyed,
    Damaged,
}

/// The key file.
#[derive(Debug)]
pub(crate) struct Keys {
    file: Mutex<Option<(Named, u32)>>,
    path: PathBuf,
    cache: Mutex<HashMap<u32, Slot>>,
}

pub(crate) fn path_in(dir: &Path) -> PathBuf {
    dir.join("keys")
}

/// Random bytes of the machine.
pub(crate) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|source| Error::Random {
        why: source.to_string().into(),
    })?;
    Ok(bytes)
}

fn check(slot: u32, content: &[u8]) -> [u8; 4] {
    frame::crc(slot, content).to_le_bytes()
}

fn encode(slot: u32, key: Option<&[u8; 32]>) -> [u8; SLOT] {
    let mut bytes = [0; SLOT];
    match key {
        Some(key) => bytes[..32].copy_from_slice(key),
        None => bytes[32..40].copy_from_slice(GONE),
    }
    let sum = check(slot, &bytes[..60]);
    bytes[60..].copy_from_slice(&sum);
    bytes
}

fn decode(slot: u32, bytes: &[u8]) -> Slot {
    if bytes.len() != SLOT || bytes[60..] != check(slot, &bytes[..60]) {
        return Slot::Damaged;
    }
    match <[u8; 32]>::try_from(&bytes[..32]) {
        Ok(_) if &bytes[32..40] == GONE => Slot::Destroyed,
        Ok(key) => Slot::Key(key),
        Err(_) => Slot::Damaged,
    }
}

fn offset(slot: u32) -> u64 {
    HEADER + u64::from(slot) * SLOT as u64
}

impl Keys {
    /// Opens the key file; a ledger that never sealed anything has none.
    pub(crate) fn open(disk: &dyn Disk, dir: &Path) -> Result<Self> {
        Self::open_with(disk, dir, Named::open)
    }

    /// The same for reading only.
    pub(crate) fn open_read(disk: &dyn Disk, dir: &Path) -> Result<Self> {
        Self::open_with(disk, dir, Named::open_read)
    }

    fn open_with(
        disk: &dyn Disk,
        dir: &Path,
        open: fn(&dyn Disk, &Path) -> Result<Named>,
    ) -> Result<Self> {
        let path = path_in(dir);
        let file = if disk.exists(&path) {
            let file = open(disk, &path)?;
            let mut magic = [0; 8];
            if file.len()? < HEADER || file.read_into(&mut magic, 0).is_err() || &magic != MAGIC {
                return Err(Error::KeysDamaged {
                    path,
                    slot: None,
                    why: "its header is not one",
                });
            }
            // A batch that was only begun is made again.
            let slots = (file.len()? - HEADER) / SLOT as u64;
            let whole = u32::try_from(slots).unwrap_or(u32::MAX) / BATCH * BATCH;
            Some((file, whole))
        } else {
            None
        };
        Ok(Self {
            file: Mutex::new(file),
            path,
            cache: Mutex::default(),
        })
    }

    /// How many slots there are.
    pub(crate) fn slots(&self) -> u32 {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.as_ref().map_or(0, |(_, slots)| *slots)
    }

    /// Makes sure that the slot numbered `slot` is there and durable.
    pub(crate) fn prepare(&self, disk: &dyn Disk, slot: u32) -> Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        self.grow(&mut file, disk, slot)
    }

    fn grow(&self, file: &mut Option<(Named, u32)>, disk: &dyn Disk, slot: u32) -> Result<()> {
        if file.is_none() {
            let mut bytes = vec![0; usize::try_from(HEADER).unwrap_or(0)];
            bytes[..8].copy_from_slice(MAGIC);
            bytes.extend(batch(0)?);
            disk::write_durable(disk, &disk::temp_of(&self.path), &self.path, &bytes)?;
            *file = Some((Named::open(disk, &self.path)?, BATCH));
        }
        if let Some((file, slots)) = file.as_mut() {
            while slot >= *slots {
                file.write(&batch(*slots)?, offset(*slots))?;
                if !mutant::on("key-used-before-fsync") {
                    file.sync()?;
                }
                *slots += BATCH;
            }
        }
        Ok(())
    }

    /// The same ahead of time; does nothing before the first key.
    pub(crate) fn prepare_ahead(&self, disk: &dyn Disk, slot: u32) -> Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if file.is_none() {
            return Ok(());
        }
        self.grow(&mut file, disk, slot)
    }

    /// Makes what is read here durable: a sync that failed leaves it in the page cache, looking clean. Destroyed keys are
    /// written again, and so are the slots that no record uses yet, unless a batch is in use and they are whole.
    pub(crate) fn heal(&self, free: u32) -> Result<()> {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((file, slots)) = file.as_ref() else {
            if free > 0 {
                return Err(Error::KeysDamaged {
                    path: self.path.clone(),
                    slot: None,
                    why: "it is not there, but sealed records are",
                });
            }
            return Ok(());
        };
        for first in (0..*slots).step_by(BATCH as usize) {
            let bytes = file.read(offset(first), BATCH as usize * SLOT)?;
            for (slot, bytes) in (first..).zip(bytes.chunks_exact(SLOT)) {
                let found = decode(slot, bytes);
                if slot < free && found == Slot::Destroyed {
                    file.write(bytes, offset(slot))?;
                } else if slot >= free && (free <= first || !matches!(found, Slot::Key(_))) {
                    file.write(&encode(slot, Some(&random()?)), offset(slot))?;
                }
            }
        }
        self.cached().clear();
        file.sync()
    }

    /// What is in a slot.
    pub(crate) fn get(&self, slot: u32) -> Result<Slot> {
        if let Some(found) = self.cached().get(&slot) {
            return Ok(*found);
        }
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((file, slots)) = file.as_ref().filter(|(_, slots)| slot < *slots) else {
            return Ok(Slot::Damaged);
        };
        debug_assert_eq!(slots % BATCH, 0, "batches are whole");
        let first = slot / BATCH * BATCH;
        let bytes = file.read(offset(first), BATCH as usize * SLOT)?;
        // While the file is held, so that a key that is being destroyed is not put back.
        let mut cache = self.cached();
        for (slot, bytes) in (first..).zip(bytes.chunks_exact(SLOT)) {
            cache.entry(slot).or_insert_with(|| decode(slot, bytes));
        }
        Ok(cache.get(&slot).copied().unwrap_or(Slot::Damaged))
    }

    /// Overwrites slots; durable on return. Says how many still held a key.
    pub(crate) fn destroy(&self, slots: &[u32]) -> Result<u64> {
        let mut held = 0;
        for slot in slots {
            held += u64::from(matches!(self.get(*slot)?, Slot::Key(_)));
        }
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((file, _)) = file.as_ref() {
            for slot in slots {
                file.write(&encode(*slot, None), offset(*slot))?;
            }
            if !slots.is_empty() && !mutant::on("erase-without-sync") {
                file.sync()?;
            }
        }
        let mut cache = self.cached();
        for slot in slots {
            cache.insert(*slot, Slot::Destroyed);
        }
        Ok(held)
    }

    pub(crate) fn damaged(&self, slot: u32) -> Error {
        Error::KeysDamaged {
            path: self.path.clone(),
            slot: Some(slot),
            why: "its checksum does not agree, or it is not there",
        }
    }

    fn cached(&self) -> std::sync::MutexGuard<'_, HashMap<u32, Slot>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bytes of a key file with whatever `old` still holds of the first `used` slots, and how many of those it does not:
/// they count as destroyed from now on. Nothing when there are no keys at all.
pub(crate) fn repaired(old: &[u8], used: u32) -> Result<(Vec<u8>, u64)> {
    let start = usize::try_from(HEADER).unwrap_or(0);
    let slots = old.get(start..).unwrap_or_default().len() / SLOT;
    let slots = u32::try_from(slots).unwrap_or(u32::MAX).max(used);
    if slots == 0 {
        return Ok((Vec::new(), 0));
    }
    let mut bytes = vec![0; start];
    bytes[..8].copy_from_slice(MAGIC);
    let mut lost = 0;
    for slot in 0..slots.next_multiple_of(BATCH) {
        let at = start + slot as usize * SLOT;
        let found = old
            .get(at..at + SLOT)
            .map(|bytes| (bytes, decode(slot, bytes)));
        match found {
            Some((whole, Slot::Key(_) | Slot::Destroyed)) => bytes.extend_from_slice(whole),
            _ if slot < used => {
                lost += 1;
                bytes.extend(encode(slot, None));
            }
            _ => bytes.extend(encode(slot, Some(&random()?))),
        }
    }
    Ok((bytes, lost))
}

fn batch(first: u32) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(BATCH as usize * SLOT);
    for slot in first..first + BATCH {
        bytes.extend(encode(slot, Some(&random()?)));
    }
    Ok(bytes)
}

/// What is authenticated beside the body: a sealed body cannot be passed off as another subject's.
fn context(kind: &str, subject: &str) -> Vec<u8> {
    [kind.as_bytes(), &[0], subject.as_bytes()].concat()
}

/// The cipher with a subject's key; `None` never, since the key has its length.
fn cipher(key: &[u8; 32]) -> Option<LessSafeKey> {
    let key = UnboundKey::new(&CHACHA20_POLY1305, key).ok()?;
    Some(LessSafeKey::new(key))
}

/// Nonce, encrypted body, tag.
pub(crate) fn seal(key: &[u8; 32], kind: &str, subject: &str, body: &[u8]) -> Result<Vec<u8>> {
    let nonce: [u8; NONCE] = random()?;
    let mut sealed = Vec::with_capacity(frame::SEAL_OVERHEAD + body.len());
    sealed.extend_from_slice(&nonce);
    sealed.extend_from_slice(body);
    let tag = cipher(key).and_then(|cipher| {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let aad = Aad::from(context(kind, subject));
        cipher
            .seal_in_place_separate_tag(nonce, aad, &mut sealed[NONCE..])
            .ok()
    });
    let tag = tag.ok_or_else(|| Error::Random {
        why: "the cipher refused the body".into(),
    })?;
    sealed.extend_from_slice(tag.as_ref());
    Ok(sealed)
}

/// The body again, in the memory of `body`; `None` when it is not what was sealed with this key.
pub(crate) fn unseal(
    key: &[u8; 32],
    kind: &str,
    subject: &str,
    sealed: &[u8],
    mut body: Vec<u8>,
) -> Option<Vec<u8>> {
    let (nonce, sealed) = sealed.split_first_chunk::<NONCE>()?;
    body.clear();
    body.extend_from_slice(sealed);
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let aad = Aad::from(context(kind, subject));
    let opened = cipher(key)?.open_in_place(nonce, aad, &mut body).ok()?;
    let len = opened.len();
    body.truncate(len);
    Some(body)
}
