//! Where a person's own files of nextstate lie.

use std::env;
use std::path::PathBuf;

use anyhow::Context as _;

/// The folder `what`: what `own` says, else below the `xdg` folder, else below `fallback` in the home folder.
///
/// # Errors
/// When none of the three is set.
pub(crate) fn folder(own: &str, xdg: &str, fallback: &str, what: &str) -> anyhow::Result<PathBuf> {
    let set = |name: &str| {
        let value = env::var_os(name).filter(|value| !value.is_empty());
        value.map(PathBuf::from)
    };
    let below = |folder: PathBuf| folder.join("nextstate").join(what);
    set(own)
        .or_else(|| set(xdg).map(below))
        .or_else(|| Some(below(set("HOME")?.join(fallback))))
        .with_context(|| format!("there is no place for {what}: set {own} or HOME"))
}
