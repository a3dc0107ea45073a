//! Finding compiled code and keeping it. Nothing here is needed: whatever goes wrong, the component is compiled as if there were no cache.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use sha2::{Digest as _, Sha256};

use super::{
    artefact::Artefact,
    engine::EngineDigest,
    folder::{Folder, Found, Problem},
    key::Key,
    sealed::{self, Maker, Name, Refusal},
};
use crate::{error::Result, host, limits::Limits, load::budget, manifest::World};

/// Most bytes of code that a worker may hand out: of the smallest component, and for each byte of one. Rust guests become 5 times their
/// size, QuickJS 4 times, CPython twice. Attack: a worker in its guest's hands that hands out as much as the folder holds, so that
/// everybody else's code is evicted.
const LEAST_CODE_BYTES: u64 = 4 << 20;
const CODE_PER_BYTE: u64 = 16;

/// A folder of compiled components. Cheap to clone; several hosts may have the same folder.
#[derive(Clone)]
pub struct Cache {
    inner: Arc<Inner>,
}

struct Inner {
    folder: PathBuf,
    key_file: PathBuf,
    most_bytes: u64,
    key: OnceLock<Key>,
    trouble: OnceLock<String>,
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cache").field(&self.inner.folder).finish()
    }
}

impl Cache {
    /// Keeps at most so many bytes in this folder, vouched for by the key in this file. Neither has to exist.
    pub fn new(folder: PathBuf, key_file: PathBuf, most_bytes: u64) -> Self {
        Self {
            inner: Arc::new(Inner {
                folder,
                key_file,
                most_bytes,
                key: OnceLock::new(),
                trouble: OnceLock::new(),
            }),
        }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.inner.folder
    }

    /// What first kept it from working, if anything did.
    pub fn trouble(&self) -> Option<&str> {
        self.inner.trouble.get().map(String::as_str)
    }

    /// What this host compiled before.
    pub(crate) fn own(&self, component: [u8; 32], engine: EngineDigest) -> Option<Artefact> {
        self.find(&own(component, engine), u64::MAX, Artefact::open)
    }

    /// Keeps what this host compiled.
    pub(crate) fn keep_own(&self, component: [u8; 32], engine: EngineDigest, code: &[u8]) {
        self.keep(&own(component, engine), code);
    }

    /// It verified, and yet wasmtime does not take it.
    pub(crate) fn refuse_own(&self, component: [u8; 32], engine: EngineDigest) {
        self.refuse(&own(component, engine), Refusal::Engine);
    }

    fn find<T>(
        &self,
        name: &Name,
        most_bytes: u64,
        open: impl FnOnce(&Key, &Name, Vec<u8>) -> Result<T, Refusal>,
    ) -> Option<T> {
        let file = name.file();
        let found = self.with_key(|key, folder| {
            let most = most_bytes.min(self.inner.most_bytes);
            let opened = match folder.read(&file, sealed::file_bytes(most))? {
                Found::Nothing => return Ok(None),
                Found::Refused(refusal) => Err(refusal),
                Found::Bytes(bytes) => open(key, name, bytes),
            };
            if opened.is_ok() {
                folder.used(&file);
            }
            Ok(Some(opened))
        });
        match found?? {
            Ok(opened) => Some(opened),
            Err(refusal) => {
                self.refuse(name, refusal);
                None
            }
        }
    }

    fn keep(&self, name: &Name, code: &[u8]) {
        let bytes = sealed::file_bytes(code.len() as u64);
        if bytes > self.inner.most_bytes {
            tracing::info!(bytes, "compiled code is more than may be kept");
            return;
        }
        self.with_key(|key, folder| {
            // Room first: a full disk is no reason to keep what is old instead of what is used.
            folder.evict(self.inner.most_bytes - bytes)?;
            folder.write(&name.file(), &[&sealed::header(key, name, code), code])
        });
    }

    fn refuse(&self, name: &Name, refusal: Refusal) {
        let file = name.file();
        tracing::warn!(
            folder = %self.inner.folder.display(),
            file,
            why = %refusal,
            "compiled code in the cache is not used: it is removed, and the component compiled again"
        );
        self.with(|folder| folder.remove(&file));
    }

    fn with_key<T>(&self, work: impl FnOnce(&Key, &Folder) -> Result<T, Problem>) -> Option<T> {
        self.with(|folder| {
            let key = match self.inner.key.get() {
                Some(key) => key,
                None => {
                    let key = Key::at(&self.inner.key_file)?;
                    self.inner.key.get_or_init(|| key)
                }
            };
            work(key, folder)
        })
    }

    /// Does something in the folder. What goes wrong is said once.
    fn with<T>(&self, work: impl FnOnce(&Folder) -> Result<T, Problem>) -> Option<T> {
        let done = Folder::open(&self.inner.folder).and_then(|folder| work(&folder));
        done.map_err(|problem| {
            let problem = problem.to_string();
            if self.inner.trouble.set(problem.clone()).is_ok() {
                tracing::warn!(
                    problem,
                    "compiled components are not kept; plugins are compiled at each start"
                );
            }
        })
        .ok()
    }
}

fn own(component: [u8; 32], engine: EngineDigest) -> Name {
    Name {
        component,
        engine,
        maker: Maker::Host,
    }
}

/// One component's code for its worker processes: as bytes, which this process has no way to load.
#[derive(Clone, Debug)]
pub struct ForWorkers {
    cache: Cache,
    name: Name,
    most_bytes: u64,
}

impl ForWorkers {
    /// For workers of this component with these limits.
    ///
    /// # Errors
    /// [`crate::Error::Start`] when no engine can be made.
    pub fn new(cache: Cache, component: &[u8], limits: &Limits, world: World) -> Result<Self> {
        let engine = host::digest(limits, budget(world))?;
        Ok(Self {
            cache,
            name: Name {
                component: Sha256::digest(component).into(),
                engine,
                maker: Maker::Worker,
            },
            most_bytes: (component.len() as u64)
                .saturating_mul(CODE_PER_BYTE)
                .max(LEAST_CODE_BYTES),
        })
    }

    /// Most bytes that its code may have.
    pub fn most_bytes(&self) -> u64 {
        self.most_bytes
    }

    /// What a worker of it compiled before.
    pub fn find(&self) -> Option<Vec<u8>> {
        self.cache.find(&self.name, self.most_bytes, sealed::open)
    }

    /// Keeps what a worker compiled before anybody called it.
    pub fn keep(&self, code: &[u8]) {
        if code.len() as u64 <= self.most_bytes {
            self.cache.keep(&self.name, code);
        }
    }
}
