//! The cache folder: one folder a model, complete or not there.
//!
//! ```text
//! <root>/<model>/…                     a complete model; only ever made by a rename
//! <root>/.<model>.<source>.partial/…   files of a download under way, kept so that the next pull goes on
//! <root>/.<model>.lock                 held while somebody pulls it
//! ```
//! `<model>` is a known name, or `org--name` with `@revision` when one was asked for. Knows nothing of networks.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::Listed;
use crate::home;

/// The cache folder.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// Held while a model is pulled; released when dropped, and by the system when the process dies.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Store {
    /// The folder that the environment names.
    ///
    /// # Errors
    /// When neither `NEXTSTATE_MODELS`, `XDG_CACHE_HOME` nor `HOME` is set.
    pub fn from_environment() -> anyhow::Result<Self> {
        let root = home::folder("NEXTSTATE_MODELS", "XDG_CACHE_HOME", ".cache", "models")?;
        Ok(Self::at(root))
    }

    /// A store in this folder, which need not exist yet.
    pub fn at(root: PathBuf) -> Self {
        Self { root }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The path of a complete model: the folder of a Hugging Face model, or the one GGUF file in it.
    ///
    /// # Errors
    /// When the folder is there but holds no model.
    pub fn find(&self, folder: &str) -> anyhow::Result<Option<PathBuf>> {
        let path = self.root.join(folder);
        if !path.is_dir() {
            return Ok(None);
        }
        model_in(&path).map(Some)
    }

    /// Waits until nobody else pulls this model.
    ///
    /// # Errors
    /// When the cache folder cannot be made or locked.
    pub fn lock(&self, folder: &str) -> anyhow::Result<Lock> {
        fs::create_dir_all(&self.root)
            .with_context(|| format!("create {}", self.root.display()))?;
        let path = self.root.join(format!(".{folder}.lock"));
        let open = || -> std::io::Result<File> {
            let file = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)?;
            file.lock()?;
            Ok(file)
        };
        let file = open().with_context(|| format!("lock {}", path.display()))?;
        Ok(Lock { _file: file })
    }

    /// The folder of a download under way. `source` tells apart what must not be mixed (a commit, a package).
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn partial(&self, folder: &str, source: &str) -> anyhow::Result<PathBuf> {
        let path = self.root.join(format!(".{folder}.{source}.partial"));
        fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(path)
    }

    /// Makes a finished download the model, in one step, and removes what other attempts left.
    ///
    /// # Errors
    /// When the download holds no model, or the disk refuses.
    pub fn finish(&self, partial: &Path, folder: &str) -> anyhow::Result<()> {
        model_in(partial)?;
        let sync = |path: &Path| File::open(path).and_then(|file| file.sync_all());
        for entry in fs::read_dir(partial).with_context(|| format!("list {}", partial.display()))? {
            let file = entry?.path();
            sync(&file).with_context(|| format!("flush {}", file.display()))?;
        }
        let last = self.root.join(folder);
        sync(partial)
            .and_then(|()| fs::rename(partial, &last))
            .and_then(|()| sync(&self.root))
            .with_context(|| format!("rename {} to {}", partial.display(), last.display()))?;
        let prefix = format!(".{folder}.");
        for entry in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(&prefix) && name.ends_with(".partial") {
                // The model is complete; what is left of other attempts only takes room.
                let _kept = fs::remove_dir_all(entry.path());
            }
        }
        Ok(())
    }

    /// The complete models, by name.
    ///
    /// # Errors
    /// When the folder is there but cannot be read.
    pub fn list(&self) -> anyhow::Result<Vec<Listed>> {
        let mut models = Vec::new();
        if !self.root.is_dir() {
            return Ok(models);
        }
        let entries =
            fs::read_dir(&self.root).with_context(|| format!("list {}", self.root.display()))?;
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().replacen("--", "/", 1);
            if name.starts_with('.') || !entry.path().is_dir() {
                continue;
            }
            let Ok(path) = model_in(&entry.path()) else {
                continue;
            };
            let files = fs::read_dir(entry.path())?.flatten();
            let bytes = files
                .filter_map(|file| file.metadata().ok())
                .map(|file| file.len())
                .sum();
            models.push(Listed { name, path, bytes });
        }
        models.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(models)
    }
}

/// The path by which `policy` opens what is in a folder.
fn model_in(folder: &Path) -> anyhow::Result<PathBuf> {
    if folder.join("config.json").is_file() {
        return Ok(folder.into());
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "gguf")
        {
            found.push(path);
        }
    }
    match found.pop() {
        Some(path) if found.is_empty() => Ok(path),
        _ => bail!(
            "{} holds no model; remove it and pull again",
            folder.display()
        ),
    }
}
