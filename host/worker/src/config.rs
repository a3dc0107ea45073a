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

/// What to start as a worker: a program that calls [`crate::run`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Program {
    /// Its file.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
}
