//! A disk in memory that has a page cache and can be made to die, tear, fail and fill up.
//!
//! What is written is in the cache until it is synced. A power loss keeps any subset of the sectors that were not: each is
//! written whole or not at all. Names (creations, renames, removals) are kept up to some point per folder, unless the folder
//! was synced. A sync that fails drops what it should have written, and a later one does not bring it back, as on Linux.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Disk, DiskFile, Guard};

const SECTOR: usize = 512;

/// What goes wrong, and at which operation; operations that change something count from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// From this operation on nothing works; if it is a write, the sectors of its first half reached the page cache.
    Kill(u64),
    /// This operation fails with an input/output error; the ones after it work.
    Error(u64),
}

/// A disk in memory. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct Simulated(Arc<Mutex<State>>);

#[derive(Clone, Debug, Default)]
struct State {
    files: HashMap<u64, Content>,
    next_file: u64,
    /// What a running process sees.
    names: BTreeMap<PathBuf, Node>,
    /// What a power loss leaves for certain.
    durable_names: BTreeMap<PathBuf, Node>,
    /// What happened to the names of a folder since it was synced.
    pending_names: BTreeMap<PathBuf, Vec<(PathBuf, Option<Node>)>>,
    locked: HashSet<PathBuf>,
    operations: u64,
    syncs: u64,
    fault: Option<Fault>,
    capacity: Option<u64>,
    dead: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    Folder,
    File(u64),
}

#[derive(Clone, Debug, Default)]
struct Content {
    cache: Vec<u8>,
    disk: Vec<u8>,
    dirty: BTreeSet<usize>,
}

impl Content {
    fn write(&mut self, bytes: &[u8], offset: usize) {
        let end = offset + bytes.len();
        if self.cache.len() < end {
            self.cache.resize(end, 0);
        }
        self.cache[offset..end].copy_from_slice(bytes);
        self.dirty.extend(offset / SECTOR..end.div_ceil(SECTOR));
    }

    fn write_back(&mut self, sector: usize) {
        let end = ((sector + 1) * SECTOR).min(self.cache.len());
        let start = (sector * SECTOR).min(end);
        if self.disk.len() < end {
            self.disk.resize(end, 0);
        }
        self.disk[start..end].copy_from_slice(&self.cache[start..end]);
    }

    fn sync(&mut self) {
        for sector in std::mem::take(&mut self.dirty) {
            self.write_back(sector);
        }
        self.disk.resize(self.cache.len(), 0);
    }
}

/// A small generator: the simulation must be the same for the same seed, for ever.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

fn refused(why: &'static str) -> io::Error {
    io::Error::other(why)
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(
        io::ErrorKind::NotFound,
        format!("{} is not there", path.display()),
    )
}

impl State {
    fn alive(&self) -> io::Result<()> {
        if self.dead {
            return Err(refused("the process was killed"));
        }
        Ok(())
    }

    /// Counts an operation that changes something. `Ok(true)`: it is the last one, and only begun.
    fn step(&mut self) -> io::Result<bool> {
        self.alive()?;
        let at = self.operations;
        self.operations += 1;
        match self.fault {
            Some(Fault::Kill(n)) if at >= n => {
                self.dead = true;
                Ok(true)
            }
            Some(Fault::Error(n)) if at == n => Err(refused("simulated input/output error")),
            _ => Ok(false),
        }
    }

    fn change(&mut self) -> io::Result<()> {
        if self.step()? {
            return Err(refused("the process was killed"));
        }
        Ok(())
    }

    fn used(&self) -> u64 {
        let live: HashSet<u64> = self
            .names
            .values()
            .filter_map(|node| match node {
                Node::File(id) => Some(*id),
                Node::Folder => None,
            })
            .collect();
        live.iter()
            .filter_map(|id| self.files.get(id))
            .map(|content| content.cache.len() as u64)
            .sum()
    }

    fn set(&mut self, path: &Path, node: Option<Node>) {
        match node {
            Some(node) => self.names.insert(path.to_owned(), node),
            None => self.names.remove(path),
        };
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        self.pending_names
            .entry(folder)
            .or_default()
            .push((path.to_owned(), node));
    }

    fn file(&self, path: &Path) -> io::Result<u64> {
        match self.names.get(path) {
            Some(Node::File(id)) => Ok(*id),
            _ => Err(not_found(path)),
        }
    }

    fn is_dir(&self, path: &Path) -> bool {
        path.parent().is_none() || self.names.get(path) == Some(&Node::Folder)
    }

    fn folder_of(&self, path: &Path) -> io::Result<()> {
        match path.parent() {
            Some(parent) if !self.is_dir(parent) => Err(not_found(parent)),
            _ => Ok(()),
        }
    }

    /// What a power loss leaves of the names.
    fn surviving_names(&self, dice: &mut Dice, keep: u64) -> BTreeMap<PathBuf, Node> {
        let mut names = self.durable_names.clone();
        for pending in self.pending_names.values() {
            let kept = match keep {
                0 => 0,
                1 => pending.len(),
                _ => dice.roll() as usize % (pending.len() + 1),
            };
            for (path, node) in &pending[..kept] {
                match node {
                    Some(node) => names.insert(path.clone(), *node),
                    None => names.remove(path),
                };
            }
        }
        // What lies in a folder that is gone is gone.
        let all = names.clone();
        names.retain(|path, _| {
            path.ancestors()
                .skip(1)
                .filter(|a| a.parent().is_some())
                .all(|a| all.get(a) == Some(&Node::Folder))
        });
        names
    }
}

impl Simulated {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets what goes wrong next, or nothing; operations are counted from 0 again.
    pub fn arm(&self, fault: Option<Fault>) {
        let mut state = self.state();
        state.fault = fault;
        state.operations = 0;
    }

    /// All files together may not be longer than this.
    pub fn limit(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    /// Operations that changed something since the last [`arm`](Self::arm).
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Files and folders synced since the disk was made.
    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// Bytes in all files.
    pub fn used(&self) -> u64 {
        self.state().used()
    }

    /// The disk as a new process finds it after the old one was killed: the page cache is still there.
    #[must_use]
    pub fn process_kill(&self) -> Self {
        let mut state = self.state().clone();
        state.locked.clear();
        state.fault = None;
        state.dead = false;
        state.operations = 0;
        Self(Arc::new(Mutex::new(state)))
    }

    /// The disk as it is after a power loss. Seed 0 loses all that was not synced, seed 1 nothing, others any part of it.
    #[must_use]
    pub fn crash(&self, seed: u64) -> Self {
        let state = self.state();
        let mut dice = Dice(seed);
        let names = state.surviving_names(&mut dice, seed);
        let mut files = HashMap::new();
        for node in names.values() {
            let Node::File(id) = node else { continue };
            let Some(content) = state.files.get(id) else {
                continue;
            };
            let mut content = content.clone();
            for sector in std::mem::take(&mut content.dirty) {
                if seed == 1 || (seed > 1 && dice.roll().is_multiple_of(2)) {
                    content.write_back(sector);
                }
            }
            content.cache = content.disk.clone();
            files.insert(*id, content);
        }
        Self(Arc::new(Mutex::new(State {
            files,
            next_file: state.next_file,
            durable_names: names.clone(),
            names,
            ..State::default()
        })))
    }

    /// A file's bytes, as a process sees them.
    pub fn read(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state();
        let id = state.file(path).ok()?;
        Some(state.files.get(&id)?.cache.clone())
    }

    /// Replaces a file's bytes, durably and uncounted: damage, for a test.
    pub fn replace(&self, path: &Path, bytes: Vec<u8>) {
        let mut state = self.state();
        if let Ok(id) = state.file(path) {
            let content = Content {
                disk: bytes.clone(),
                cache: bytes,
                dirty: BTreeSet::new(),
            };
            state.files.insert(id, content);
        }
    }
}

impl Disk for Simulated {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        state.change()?;
        state.folder_of(path)?;
        let id = state.next_file;
        state.next_file += 1;
        state.files.insert(id, Content::default());
        state.set(path, Some(Node::File(id)));
        Ok(Arc::new(Open {
            disk: self.clone(),
            id,
        }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.state();
        state.alive()?;
        let id = state.file(path)?;
        Ok(Arc::new(Open {
            disk: self.clone(),
            id,
        }))
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.open(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.change()?;
        let missing: Vec<_> = path
            .ancestors()
            .filter(|a| !state.is_dir(a))
            .map(Path::to_owned)
            .collect();
        for folder in missing.iter().rev() {
            state.set(folder, Some(Node::Folder));
        }
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.change()?;
        state.syncs += 1;
        for (path, node) in state.pending_names.remove(path).unwrap_or_default() {
            match node {
                Some(node) => state.durable_names.insert(path, node),
                None => state.durable_names.remove(&path),
            };
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.change()?;
        state.folder_of(to)?;
        let node = *state.names.get(from).ok_or_else(|| not_found(from))?;
        if node == Node::Folder {
            return Err(io::ErrorKind::Unsupported.into());
        }
        state.set(to, Some(node));
        state.set(from, None);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.change()?;
        state.file(path)?;
        state.set(path, None);
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        state.alive()?;
        Ok(state
            .names
            .keys()
            .filter(|name| name.parent() == Some(path))
            .filter_map(|name| name.file_name()?.to_str().map(str::to_owned))
            .collect())
    }

    fn exists(&self, path: &Path) -> bool {
        self.state().names.contains_key(path)
    }

    fn is_dir(&self, path: &Path) -> bool {
        self.state().is_dir(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Guard>> {
        let mut state = self.state();
        state.alive()?;
        if !state.locked.insert(path.to_owned()) {
            return Ok(None);
        }
        Ok(Some(Box::new(Held {
            disk: self.clone(),
            path: path.to_owned(),
        })))
    }

    fn spawn(&self, job: Box<dyn FnOnce() + Send>) {
        job();
    }
}

struct Held {
    disk: Simulated,
    path: PathBuf,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.disk.state().locked.remove(&self.path);
    }
}

#[derive(Debug)]
struct Open {
    disk: Simulated,
    id: u64,
}

impl DiskFile for Open {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let state = self.disk.state();
        state.alive()?;
        let bytes = state.files.get(&self.id).map(|content| &content.cache);
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let found = bytes
            .and_then(|bytes| bytes.get(start..start.checked_add(buf.len())?))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(found);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let last = state.step()?;
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        // A process does not die inside the copying of a sector.
        let half = (offset + bytes.len() / 2) / SECTOR * SECTOR;
        let bytes = if last {
            &bytes[..half.saturating_sub(offset)]
        } else {
            bytes
        };
        let len = state.files.get(&self.id).map_or(0, |c| c.cache.len());
        let growth = (offset + bytes.len()).saturating_sub(len) as u64;
        if growth > 0
            && let Some(capacity) = state.capacity
            && state.used() + growth > capacity
        {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if let Some(content) = state.files.get_mut(&self.id) {
            content.write(bytes, offset);
        }
        if last {
            return Err(refused("the process was killed"));
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let outcome = state.step();
        state.syncs += 1;
        let Some(content) = state.files.get_mut(&self.id) else {
            return outcome.map(|_| ());
        };
        match outcome {
            Ok(true) => Err(refused("the process was killed")),
            Ok(false) => {
                content.sync();
                Ok(())
            }
            Err(error) => {
                // The pages are marked clean, though they never reached the disk.
                content.dirty.clear();
                Err(error)
            }
        }
    }

    fn len(&self) -> io::Result<u64> {
        let state = self.disk.state();
        state.alive()?;
        Ok(state
            .files
            .get(&self.id)
            .map_or(0, |content| content.cache.len() as u64))
    }
}
