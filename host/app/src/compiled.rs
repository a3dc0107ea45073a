//! Where compiled plugins are kept on this machine: for every host of this user, and for the commands that load plugins.

use std::sync::OnceLock;

use plugin::{Limits, PluginHost, compiled::Cache, outside::Outside};

use crate::home;

/// Most bytes that are kept unless the configuration says otherwise: 25 plugins with CPython inside, or 6,000 in Rust.
pub(crate) const MOST_BYTES: u64 = 1 << 30;

/// The cache: in `NEXTSTATE_CACHE`, with its key in `NEXTSTATE_KEYS`, or where the system keeps such things. None, and a word about it, where
/// there is no place for one.
pub(crate) fn cache(most_bytes: u64) -> Option<Cache> {
    let folder = home::folder("NEXTSTATE_CACHE", "XDG_CACHE_HOME", ".cache", "compiled");
    let keys = home::folder("NEXTSTATE_KEYS", "XDG_DATA_HOME", ".local/share", "keys");
    match folder.and_then(|folder| Ok((folder, keys?))) {
        Ok((folder, keys)) => Some(Cache::new(folder, keys.join("compiled"), most_bytes)),
        Err(problem) => {
            let problem = format!("{problem:#}");
            tracing::warn!(
                problem,
                "compiled components are not kept; plugins are compiled at each start"
            );
            None
        }
    }
}

/// Runs plugins for a command of their author's, who has no configuration.
///
/// # Errors
/// As [`PluginHost::with`].
pub(crate) fn host(offers: Outside) -> plugin::Result<PluginHost> {
    static CACHE: OnceLock<Option<Cache>> = OnceLock::new();
    let cache = CACHE.get_or_init(|| cache(MOST_BYTES)).clone();
    PluginHost::keeping(Limits::default(), offers, cache)
}
