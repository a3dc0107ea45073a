//! What a plugin has stored from one episode to the next: keys and values, their limits, and what one episode sees of them.
//!
//! Arithmetic only. [`Contents`] is what is stored at a place of the record, [`Session`] what one episode, or one turn of live traffic,
//! reads and changes, and [`Changes`] what it leaves behind. Who keeps them is behind [`crate::seam::Archive`]; the contract is
//! `wit/capabilities.wit`, interface `store`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};

/// Longest key, in bytes.
pub const KEY_BYTES: usize = 256;
/// Longest value, in bytes.
pub const VALUE_BYTES: usize = 64 << 10;
/// Most keys of a plugin and tenant.
pub const KEYS: usize = 1_000;
/// Most bytes of their keys and values together. All of it is in memory, for every tenant.
pub const TOTAL_BYTES: usize = 1 << 20;

/// Why something cannot be stored, or looked up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unfit {
    /// The key's length.
    #[error("a key of {0} bytes; 1 to {KEY_BYTES} are allowed")]
    Key(usize),
    /// Attack: a key that steers the terminal of whoever lists it.
    #[error("a key with a control character")]
    Control,
    /// The value's length.
    #[error("a value of {0} bytes; at most {VALUE_BYTES} are allowed")]
    Value(usize),
    /// The number of keys.
    #[error("{KEYS} keys are stored; remove one before another is put")]
    Keys,
    /// Everything together.
    #[error(
        "{0} bytes in keys and values would be stored; at most {TOTAL_BYTES} are allowed together"
    )]
    Total(usize),
    /// It is too late.
    #[error("what this episode or turn stores is recorded already")]
    Over,
}

/// Where a change is in the record: what was read says so by these, in the order of the record.
pub type Position = u64;

#[derive(Clone, PartialEq, Eq, Debug)]
struct Kept {
    value: Arc<[u8]>,
    /// The change that put it; none while its own episode goes on.
    by: Option<Position>,
}

/// What is stored. Cheap to clone as far as values go.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Contents {
    kept: BTreeMap<String, Kept>,
    bytes: usize,
}

/// One change: a value, or none for a key that was removed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Write {
    /// The key.
    pub key: String,
    /// Its value from now on.
    pub value: Option<Arc<[u8]>>,
}

/// What an episode or a turn leaves behind.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Changes {
    /// The changes of others whose values it read: what it wrote may hold something of them.
    pub read: Vec<Position>,
    /// What it wrote, by key.
    pub writes: Vec<Write>,
}

impl Changes {
    /// Whether there is nothing to record.
    pub fn is_empty(&self) -> bool {
        self.read.is_empty() && self.writes.is_empty()
    }
}

/// How much is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Size {
    /// Keys.
    pub keys: usize,
    /// Bytes of keys and values.
    pub bytes: usize,
}

impl Contents {
    /// How much it is.
    pub fn size(&self) -> Size {
        Size {
            keys: self.kept.len(),
            bytes: self.bytes,
        }
    }

    /// Every key with its value, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.kept
            .iter()
            .map(|(key, kept)| (key.as_str(), &*kept.value))
    }

    /// Takes up the changes that one episode or turn left at this place of the record: the last to write a key wins.
    ///
    /// # Errors
    /// [`Unfit::Keys`] or [`Unfit::Total`] where others have left no room for them; then none of them is taken up.
    pub fn apply(&mut self, at: Position, writes: &[Write]) -> Result<(), Unfit> {
        let mut next = self.clone();
        for write in writes {
            next.remove(&write.key);
            if let Some(value) = &write.value {
                next.insert(write.key.clone(), value.clone(), Some(at));
            }
        }
        let grows = next.bytes > self.bytes || next.kept.len() > self.kept.len();
        if grows {
            next.fits()?;
        }
        *self = next;
        Ok(())
    }

    fn fits(&self) -> Result<(), Unfit> {
        if self.kept.len() > KEYS {
            return Err(Unfit::Keys);
        }
        if self.bytes > TOTAL_BYTES {
            return Err(Unfit::Total(self.bytes));
        }
        Ok(())
    }

    fn remove(&mut self, key: &str) -> Option<Kept> {
        let kept = self.kept.remove(key)?;
        self.bytes -= key.len() + kept.value.len();
        Some(kept)
    }

    fn insert(&mut self, key: String, value: Arc<[u8]>, by: Option<Position>) {
        self.bytes += key.len() + value.len();
        self.kept.insert(key, Kept { value, by });
    }
}

/// What one episode, or one turn of live traffic, reads and changes: what was stored when it began, and what it wrote since.
/// Clones are the same session.
#[derive(Clone, Debug, Default)]
pub struct Session(Arc<Mutex<Draft>>);

#[derive(Debug, Default)]
struct Draft {
    /// What was stored when it began.
    before: Arc<Contents>,
    /// The same with what it wrote; shared until it writes.
    now: Arc<Contents>,
    written: BTreeSet<String>,
    read: BTreeSet<Position>,
    closed: bool,
}

impl Session {
    /// A session on what is stored now.
    pub fn new(contents: Arc<Contents>) -> Self {
        Self(Arc::new(Mutex::new(Draft {
            now: Arc::clone(&contents),
            before: contents,
            ..Draft::default()
        })))
    }

    /// The value of a key.
    ///
    /// # Errors
    /// A key that can be none; [`Unfit::Over`].
    pub fn get(&self, key: &str) -> Result<Option<Arc<[u8]>>, Unfit> {
        let mut draft = self.open()?;
        check(key)?;
        let Some(kept) = draft.now.kept.get(key).cloned() else {
            return Ok(None);
        };
        draft.read.extend(kept.by);
        Ok(Some(kept.value))
    }

    /// Stores a value under a key.
    ///
    /// # Errors
    /// A key or value that can be none, or no room; [`Unfit::Over`].
    pub fn put(&self, key: &str, value: &[u8]) -> Result<(), Unfit> {
        let mut draft = self.open()?;
        check(key)?;
        if value.len() > VALUE_BYTES {
            return Err(Unfit::Value(value.len()));
        }
        // Checked before it is done: nothing has to be undone.
        let now = &draft.now;
        let old = now.kept.get(key).map(|kept| key.len() + kept.value.len());
        let bytes = now.bytes - old.unwrap_or(0) + key.len() + value.len();
        if old.is_none() && now.kept.len() >= KEYS {
            return Err(Unfit::Keys);
        }
        if bytes > TOTAL_BYTES && bytes > now.bytes {
            return Err(Unfit::Total(bytes));
        }
        let now = Arc::make_mut(&mut draft.now);
        now.remove(key);
        now.insert(key.to_owned(), value.into(), None);
        draft.written.insert(key.to_owned());
        Ok(())
    }

    /// Removes a key; one that is not there is none afterwards, too.
    ///
    /// # Errors
    /// A key that can be none; [`Unfit::Over`].
    pub fn remove(&self, key: &str) -> Result<(), Unfit> {
        let mut draft = self.open()?;
        check(key)?;
        if draft.now.kept.contains_key(key) {
            Arc::make_mut(&mut draft.now).remove(key);
        }
        // Attack: keys that are put and removed again without end; nothing is left of one that nobody had stored before.
        if draft.before.kept.contains_key(key) {
            draft.written.insert(key.to_owned());
        } else {
            draft.written.remove(key);
        }
        Ok(())
    }

    /// The keys that begin with this, in the order of their bytes.
    ///
    /// # Errors
    /// A prefix that no key has; [`Unfit::Over`].
    pub fn keys(&self, prefix: &str) -> Result<Vec<String>, Unfit> {
        let mut guard = self.open()?;
        if !prefix.is_empty() {
            check(prefix)?;
        }
        let draft = &mut *guard;
        let mut keys = Vec::new();
        let from = draft.now.kept.range(prefix.to_owned()..);
        for (key, kept) in from.take_while(|(key, _)| key.starts_with(prefix)) {
            keys.push(key.clone());
            draft.read.extend(kept.by);
        }
        Ok(keys)
    }

    /// What it leaves behind. Nothing can be read or written through it any more.
    pub fn close(&self) -> Changes {
        let mut draft = self.lock();
        draft.closed = true;
        let written = std::mem::take(&mut draft.written);
        let read = std::mem::take(&mut draft.read);
        let write = |key: String| Write {
            value: draft.now.kept.get(&key).map(|kept| kept.value.clone()),
            key,
        };
        Changes {
            read: read.into_iter().collect(),
            writes: written.into_iter().map(write).collect(),
        }
    }

    fn open(&self) -> Result<MutexGuard<'_, Draft>, Unfit> {
        let draft = self.lock();
        if draft.closed {
            return Err(Unfit::Over);
        }
        Ok(draft)
    }

    fn lock(&self) -> MutexGuard<'_, Draft> {
        // Every change is whole before anything can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn check(key: &str) -> Result<(), Unfit> {
    if !(1..=KEY_BYTES).contains(&key.len()) {
        return Err(Unfit::Key(key.len()));
    }
    if key.contains(char::is_control) {
        return Err(Unfit::Control);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
