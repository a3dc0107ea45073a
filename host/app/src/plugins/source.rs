//! Where a plugin is found: among the shipped ones by its name, in a folder, or among the installed ones.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use plugin::{Capability, Manifest, Plugin, PluginHost};

use super::language::Language;
use super::store::Store;
use crate::{compiled, outside::for_authors};

/// The manifest's file.
pub const MANIFEST: &str = "plugin.toml";
/// The component's file.
pub const COMPONENT: &str = "plugin.wasm";

/// What a configuration means by these names is in the program: no other plugin can be called so.
const NATIVE: [&str; 2] = ["words", "majority"];

/// Whether a name is the program's own.
pub fn is_taken(name: &str) -> bool {
    NATIVE.contains(&name) || bundled::find(name).is_some()
}

/// A plugin's files, not yet looked at.
#[derive(Debug)]
pub struct Source {
    /// `plugin.toml`
    pub manifest: String,
    /// `plugin.wasm`
    pub component: Vec<u8>,
    /// Its folder; none for a shipped or an installed one.
    pub folder: Option<PathBuf>,
    /// What was granted to it when it was installed; a configuration's word outranks it.
    pub grants: Vec<Capability>,
}

impl Source {
    /// Finds a plugin by what a configuration calls it.
    ///
    /// # Errors
    /// There is none, or a file of it is missing; the message says which, and how to make it.
    pub fn find(name: &str) -> anyhow::Result<Self> {
        if let Some(guest) = bundled::find(name) {
            return Ok(Self {
                manifest: guest.manifest.to_owned(),
                component: guest.component.to_vec(),
                folder: None,
                grants: Vec::new(),
            });
        }
        let folder = Path::new(name);
        let is_folder = folder.join(MANIFEST).is_file();
        if is_folder && Store::from_environment().is_ok_and(|store| store.has(name)) {
            tracing::warn!(
                plugin = name,
                "a folder here and an installed plugin have this name: the folder is used, without the installed one's grants; \
                 `./{name}` says that it is meant"
            );
        }
        if !is_folder && let Some((package, grants)) = Store::from_environment()?.find(name)? {
            return Ok(Self {
                manifest: package.text,
                component: package.component,
                folder: None,
                grants,
            });
        }
        let manifest = manifest(folder).with_context(|| {
            let shipped: Vec<&str> = bundled::ALL.iter().map(|guest| guest.name).collect();
            format!(
                "there is no plugin `{name}`: it is neither shipped ({}) nor installed, nor a folder with {MANIFEST}",
                shipped.join(", ")
            )
        })?;
        let path = folder.join(COMPONENT);
        ensure!(
            path.is_file(),
            "plugin `{name}` has no {COMPONENT}: it is made by `nextstate plugin build {name}`"
        );
        let component =
            std::fs::read(&path).with_context(|| format!("failed to read {}", path.display()))?;
        Ok(Self {
            manifest,
            component,
            folder: Some(folder.to_owned()),
            grants: Vec::new(),
        })
    }

    /// Loads it with these grants and this config.
    ///
    /// # Errors
    /// Those of [`PluginHost::load`].
    pub fn load(
        &self,
        host: &PluginHost,
        grants: &[Capability],
        section: &toml::Table,
    ) -> anyhow::Result<Plugin> {
        Ok(host.load(&self.manifest, &self.component, grants, section)?)
    }

    /// Loads it with all that it asks for: for its author, who trusts it.
    ///
    /// # Errors
    /// As [`Source::load`].
    pub fn load_trusted(&self, section: &toml::Table) -> anyhow::Result<Plugin> {
        let host = compiled::host(for_authors())?;
        self.load(&host, &self.wishes()?, section)
    }

    /// What it asks for.
    ///
    /// # Errors
    /// Its manifest is not valid; where that is a file of the author's, it is named.
    pub fn wishes(&self) -> anyhow::Result<Vec<Capability>> {
        let manifest = Manifest::parse(&self.manifest);
        let manifest = match &self.folder {
            Some(folder) => manifest
                .with_context(|| format!("failed to use {}", folder.join(MANIFEST).display()))?,
            None => manifest?,
        };
        Ok(manifest.capabilities)
    }

    /// Says to its author that the component is not made of the sources as they are now.
    pub(super) fn warn_when_stale(&self) {
        let Some(folder) = &self.folder else { return };
        let newer = Language::of(folder).and_then(|language| language.newer(folder));
        if let Some(newer) = newer {
            eprintln!(
                "warning: {} was changed after {COMPONENT} was made, which is looked at as it is; \
                 `nextstate plugin build {}` makes it anew",
                newer.display(),
                folder.display()
            );
        }
    }
}

/// The text of a folder's manifest.
///
/// # Errors
/// It cannot be read.
pub fn manifest(folder: &Path) -> anyhow::Result<String> {
    let path = folder.join(MANIFEST);
    std::fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))
}

/// Reads `key=value` pairs as a recipe's section would have them.
///
/// # Errors
/// The pair that is none, or whose value is no TOML.
pub fn section(pairs: &[String]) -> anyhow::Result<toml::Table> {
    let mut section = toml::Table::new();
    for pair in pairs {
        let table: toml::Table = pair.parse().with_context(|| {
            format!("--set {pair}: it must be KEY=VALUE in TOML, for example rl-weight=2.0 or mode='\"slow\"'")
        })?;
        section.extend(table);
    }
    Ok(section)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(name: &str) -> String {
        format!("{:#}", Source::find(name).unwrap_err())
    }

    #[test]
    fn a_shipped_plugin_is_found_by_its_name_and_loads() {
        let source = Source::find("binary-reward").unwrap();
        assert_eq!(source.folder, None);
        let section = section(&["rl-weight=2.0".to_owned()]).unwrap();
        let plugin = source.load_trusted(&section).unwrap();
        assert_eq!(plugin.manifest().name, "binary-reward");
    }

    #[test]
    fn what_is_missing_is_named_with_what_makes_it() {
        let error = refused("no-such-plugin");
        assert!(
            error.contains("neither shipped") && error.contains("binary-reward"),
            "{error}"
        );
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(MANIFEST), "name = 'x'").unwrap();
        let name = dir.path().display().to_string();
        assert!(
            refused(&name).contains("nextstate plugin build"),
            "{}",
            refused(&name)
        );
    }

    #[test]
    fn a_value_that_is_no_toml_is_refused() {
        let error = section(&["mode=slow".to_owned()]).unwrap_err();
        assert!(
            format!("{error:#}").contains("--set mode=slow"),
            "{error:#}"
        );
    }
}
