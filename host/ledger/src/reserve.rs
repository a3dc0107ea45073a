//! The reserve: room on the disk that is held back, so that work which was accepted can still be recorded when the disk fills.
//!
//! It asks the file system how much is free and says no *before* the database runs out. It holds no file and reads no record.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use crate::{Error, Result};

/// Enough for the turns in flight (64 of 64 KiB), a version of a small model and the database's own log.
const HELD_BACK: u64 = 64 << 20;

#[derive(Debug)]
pub(crate) struct Reserve {
    dir: PathBuf,
    full: AtomicBool,
}

impl Reserve {
    pub(crate) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            full: AtomicBool::new(false),
        }
    }

    /// Whether there is more than what is held back. A file system that does not say counts as one with room: a write will tell.
    pub(crate) fn check(&self) -> Result<()> {
        let free = rustix::fs::statvfs(&self.dir)
            .map(|fs| fs.f_bavail.saturating_mul(fs.f_frsize))
            .unwrap_or(u64::MAX);
        let full = free < HELD_BACK;
        if full != self.full.swap(full, Ordering::Relaxed) {
            if full {
                tracing::warn!(
                    free,
                    held_back = HELD_BACK,
                    "the disk is full: new work is refused until there is room"
                );
            } else {
                tracing::info!(free, "there is room on the disk again");
            }
        }
        if full { Err(Error::Full) } else { Ok(()) }
    }
}
