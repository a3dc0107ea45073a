//! What an operator may say about worker processes.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

/// `[plugins.workers]`
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Most memory of a worker process, in bytes: its guests' instances together, and what compiling takes.
    pub memory_bytes: u64,
    /// Longest time to start a worker, compile its plugin included.
    #[serde(with = "humantime_serde")]
    pub load: Duration,
    /// Longest time until a call is answered, without what the host does for it meanwhile. The limits of a guest's call are far
    /// below: a worker that takes longer is not well, and is killed.
    #[serde(with = "humantime_serde")]
    pub answer: Duration,
    /// The program to start as a worker, with the argument `worker`; without it, the host's own.
    pub program: Option<PathBuf>,
    /// Whether a second worker of each plugin waits, compiled, to take over at once. Costs its memory.
    pub spare: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            memory_bytes: 2 << 30,
            load: Duration::from_secs(120),
            answer: Duration::from_secs(30),
            program: None,
            spare: true,
        }
    }
}

impl Config {
    /// Checks every range.
    ///
    /// # Errors
    /// The key that is out of range, and what is allowed.
    pub fn validate(&self) -> Result<(), OutOfRange> {
        let hours = |time: &Duration| {
            (Duration::from_millis(100)..=Duration::from_secs(3_600)).contains(time)
        };
        if self.memory_bytes < 64 << 20 {
            return Err(OutOfRange("memory-bytes", "64 MiB or more: 67108864"));
        }
        if !hours(&self.load) {
            return Err(OutOfRange("load", "from 100ms to 1h"));
        }
        if !hours(&self.answer) {
            return Err(OutOfRange("answer", "from 100ms to 1h"));
        }
        Ok(())
    }
}

/// A number that makes no sense.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`{0}` is out of range: it may be {1}")]
pub struct OutOfRange(&'static str, &'static str);

/// What to start as a worker: a program that calls [`crate::run`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Program {
    /// Its file.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
}
