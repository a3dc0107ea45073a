//! Where what a plugin stores is kept, as an environment meets it.

use crate::{Result, store::Session};

/// What is stored for one episode, or one turn of live traffic: whose it is (the tenant) is the archive's to know, so that no
/// environment can ask for another's.
pub trait Archive: Send + Sync {
    /// A session on what the plugin of this name has stored. It is the environment's to name its plugin; no guest can. Opened again, as
    /// when a worker process died meanwhile, it begins anew, and what the one before wrote is nothing.
    ///
    /// # Errors
    /// The record could not be read.
    fn open(&self, plugin: &str) -> Result<Session>;
}

/// Nothing was stored before, and nothing is kept: every episode is the first, as in an exam, a test of a plugin, or a replay.
#[derive(Clone, Copy, Debug)]
pub struct Nowhere;

impl Archive for Nowhere {
    fn open(&self, _plugin: &str) -> Result<Session> {
        Ok(Session::default())
    }
}
