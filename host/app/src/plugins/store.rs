//! The installed plugins of this machine, whose authors are trusted, and what was granted to them.
//!
//! A folder: `$NEXTSTATE_PLUGINS`, else `$XDG_DATA_HOME/nextstate/plugins`, else `~/.local/share/nextstate/plugins`. In it `signing.key`
//! (the key of whoever packs here), `trusted.toml` (names and public keys), and for each plugin a folder with its packages as they came
//! and `state.toml`: the version in use, and what was granted. A package is checked again each time that it is loaded.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use ed25519_dalek::{SigningKey, VerifyingKey};
use plugin::Capability;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::package::{self, Package, SUFFIX};
use crate::{durable, home, signing};

const STATE: &str = "state.toml";
// With a dot, which no plugin's name has: neither can take the other's place.
const KEY: &str = "signing.key";
const TRUSTED: &str = "trusted.toml";

/// The folder.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// What is known of one plugin beside its packages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct State {
    /// The version in use.
    pub current: String,
    /// What was granted, to whichever version.
    pub grants: Vec<Capability>,
}

/// One plugin of the store.
#[derive(Debug)]
pub struct Installed {
    /// Its name.
    pub name: String,
    /// Its versions.
    pub versions: Vec<String>,
    /// The version in use, and the grants.
    pub state: State,
}

impl Store {
    /// The store that the environment names.
    ///
    /// # Errors
    /// When neither `NEXTSTATE_PLUGINS`, `XDG_DATA_HOME` nor `HOME` is set.
    pub fn from_environment() -> anyhow::Result<Self> {
        let root = home::folder(
            "NEXTSTATE_PLUGINS",
            "XDG_DATA_HOME",
            ".local/share",
            "plugins",
        )?;
        Ok(Self::at(root))
    }

    /// A store in this folder, which need not exist yet.
    pub fn at(root: PathBuf) -> Self {
        Self { root }
    }

    fn made(&self, folder: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(folder)
            .with_context(|| format!("failed to make the folder {}", folder.display()))
    }

    /// The key that packages are signed with here, made at first use.
    ///
    /// # Errors
    /// The file system's, or a damaged key.
    pub fn signing_key(&self) -> anyhow::Result<SigningKey> {
        self.made(&self.root)?;
        signing::key_at(&self.root.join(KEY), "the signing key")
    }

    /// Whose packages may be installed: names and public keys.
    ///
    /// # Errors
    /// A damaged file.
    pub fn trusted(&self) -> anyhow::Result<BTreeMap<String, String>> {
        Ok(read(&self.root.join(TRUSTED))?.unwrap_or_default())
    }

    /// Trusts a key from now on, under a name; or nobody of that name.
    ///
    /// # Errors
    /// A key that is none; the file system's.
    pub fn trust(&self, name: &str, key: Option<&str>) -> anyhow::Result<()> {
        let mut trusted = self.trusted()?;
        match key {
            Some(key) => {
                let bytes = hex::decode(key)
                    .ok()
                    .and_then(|bytes| bytes.try_into().ok());
                let whole = bytes.is_some_and(|bytes| VerifyingKey::from_bytes(&bytes).is_ok());
                ensure!(
                    whole,
                    "`{key}` is no public key: it is 64 hexadecimal digits"
                );
                trusted.insert(name.to_owned(), key.to_lowercase());
            }
            None => {
                let known = trusted.remove(name);
                ensure!(known.is_some(), "nobody called `{name}` is trusted here");
            }
        }
        self.made(&self.root)?;
        write(&self.root.join(TRUSTED), &trusted)
    }

    /// What a trusted signer is called here.
    ///
    /// # Errors
    /// A signer whom nobody here trusts; the message says how to.
    pub fn signer(&self, package: &Package) -> anyhow::Result<String> {
        let trusted = self.trusted()?;
        if let Some((name, _)) = trusted.iter().find(|(_, key)| **key == package.signer) {
            return Ok(name.clone());
        }
        let own = self.root.join(KEY).exists();
        if own && hex::encode(self.signing_key()?.verifying_key().as_bytes()) == package.signer {
            return Ok("this machine".to_owned());
        }
        bail!(
            "{} {} is signed by {}, whom nobody here trusts; if you do: nextstate plugin trust NAME {}",
            package.manifest.name,
            package.manifest.version,
            package.signer,
            package.signer
        )
    }

    /// What is granted to a plugin; nothing to one that is not there.
    ///
    /// # Errors
    /// A damaged file.
    pub fn state(&self, name: &str) -> anyhow::Result<Option<State>> {
        read(&self.folder(name)?.join(STATE))
    }

    /// Keeps a package, and uses it from now on, with these grants.
    ///
    /// # Errors
    /// The same version with another content; the file system's.
    pub fn put(
        &self,
        package: &Package,
        bytes: &[u8],
        grants: &[Capability],
    ) -> anyhow::Result<()> {
        let (name, version) = (&package.manifest.name, &package.manifest.version);
        let folder = self.folder(name)?;
        self.made(&folder)?;
        let path = folder.join(format!("{version}.{SUFFIX}"));
        if path.exists() {
            let (there, _) = package::read(&path)?;
            ensure!(
                there.digest() == package.digest() && there.text == package.text,
                "{name} {version} is installed with another content: a version is never replaced; \
                 `nextstate plugin remove {name}@{version}` makes room for it"
            );
        } else {
            durable::write(&path, bytes, 0o644)
                .with_context(|| format!("failed to write {}", path.display()))?;
        }
        let state = State {
            current: version.clone(),
            grants: grants.to_vec(),
        };
        write(&folder.join(STATE), &state)
    }

    /// Uses another version that is installed.
    ///
    /// # Errors
    /// There is no such version, or it asks for more than was granted.
    pub fn use_version(&self, name: &str, version: &str) -> anyhow::Result<()> {
        let (package, _) = package::read(&self.there(name, version)?)?;
        let state = self.state(name)?.unwrap_or_default();
        let asked = package.manifest.capabilities.iter();
        if let Some(refused) = asked.copied().find(|asked| !state.grants.contains(asked)) {
            bail!(
                "{name} {version} asks for `{refused}`, which is not granted: install it again with --grant"
            );
        }
        let state = State {
            current: version.to_owned(),
            ..state
        };
        write(&self.folder(name)?.join(STATE), &state)
    }

    /// Removes a version, or all of a plugin with what was granted to it.
    ///
    /// # Errors
    /// It is not there, or is the version in use while there are others.
    pub fn remove(&self, name: &str, version: Option<&str>) -> anyhow::Result<()> {
        let versions = self.versions(name)?;
        let gone = |path: PathBuf| {
            fs::remove_file(&path).with_context(|| format!("failed to remove {}", path.display()))
        };
        if let Some(version) = version.filter(|_| versions.len() > 1) {
            let path = self.there(name, version)?;
            let current = self.state(name)?.unwrap_or_default().current;
            ensure!(
                current != version,
                "{name} {version} is in use; `nextstate plugin use {name}@…` another first"
            );
            return gone(path);
        }
        if let Some(version) = version {
            self.there(name, version)?;
        }
        ensure!(!versions.is_empty(), "no plugin `{name}` is installed");
        let folder = self.folder(name)?;
        fs::remove_dir_all(&folder)
            .with_context(|| format!("failed to remove {}", folder.display()))
    }

    /// Finds an installed plugin: `name`, in the version in use, or `name@version`. Gives what is granted to it, too.
    ///
    /// # Errors
    /// A damaged or changed package, or one whose signer is not trusted any more.
    pub fn find(&self, name: &str) -> anyhow::Result<Option<(Package, Vec<Capability>)>> {
        let (name, version) = split(name);
        if !is_name(name) {
            return Ok(None);
        }
        let Some(state) = self.state(name)? else {
            return Ok(None);
        };
        let path = self.there(name, version.unwrap_or(&state.current))?;
        let (package, _) = package::read(&path)?;
        ensure!(
            package.manifest.name == name,
            "{} holds the plugin `{}`",
            path.display(),
            package.manifest.name
        );
        self.signer(&package)?;
        Ok(Some((package, state.grants)))
    }

    /// Whether some version of a plugin is installed.
    pub fn has(&self, name: &str) -> bool {
        let (name, _) = split(name);
        is_name(name) && self.state(name).is_ok_and(|state| state.is_some())
    }

    /// All that is installed.
    ///
    /// # Errors
    /// The file system's, or a damaged file.
    pub fn installed(&self) -> anyhow::Result<Vec<Installed>> {
        let mut all = Vec::new();
        for name in names(&self.root)? {
            if is_name(&name)
                && self.root.join(&name).is_dir()
                && let Some(state) = self.state(&name)?
            {
                let versions = self.versions(&name)?;
                all.push(Installed {
                    name,
                    versions,
                    state,
                });
            }
        }
        Ok(all)
    }

    fn versions(&self, name: &str) -> anyhow::Result<Vec<String>> {
        let names = names(&self.folder(name)?)?;
        let suffix = format!(".{SUFFIX}");
        Ok(names
            .iter()
            .filter_map(|name| name.strip_suffix(&suffix))
            .map(str::to_owned)
            .collect())
    }

    /// A plugin's folder: never a way out of the store.
    fn folder(&self, name: &str) -> anyhow::Result<PathBuf> {
        ensure!(
            is_name(name),
            "`{name}` is no plugin's name: lower-case words joined by `-`"
        );
        Ok(self.root.join(name))
    }

    fn there(&self, name: &str, version: &str) -> anyhow::Result<PathBuf> {
        let versions = self.versions(name)?;
        ensure!(
            versions.iter().any(|known| known == version),
            "{name} {version} is not installed; there is: {}",
            if versions.is_empty() {
                "nothing".to_owned()
            } else {
                versions.join(", ")
            }
        );
        Ok(self.folder(name)?.join(format!("{version}.{SUFFIX}")))
    }
}

/// `name@version`
pub fn split(name: &str) -> (&str, Option<&str>) {
    name.split_once('@')
        .map_or((name, None), |(name, version)| (name, Some(version)))
}

/// What a folder of the store can be called: never a way out of it.
fn is_name(name: &str) -> bool {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !name.is_empty() && name.chars().all(word)
}

/// The names in a folder, in order; none in one that is not there.
fn names(folder: &Path) -> anyhow::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        entries => entries.with_context(|| format!("failed to read {}", folder.display()))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("failed to read {}", folder.display()))?;
        names.extend(entry.file_name().into_string().ok());
    }
    names.sort();
    Ok(names)
}

fn read<T: DeserializeOwned>(path: &Path) -> anyhow::Result<Option<T>> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        text => text.with_context(|| format!("failed to read {}", path.display()))?,
    };
    let value = toml::from_str(&text).with_context(|| format!("{} is damaged", path.display()))?;
    Ok(Some(value))
}

fn write(path: &Path, value: &impl Serialize) -> anyhow::Result<()> {
    durable::write(path, toml::to_string(value)?.as_bytes(), 0o644)
        .with_context(|| format!("failed to write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(store: &Store, from: &str, to: &str) -> (Package, Vec<u8>) {
        let manifest = bundled::BINARY_REWARD
            .manifest
            .replace("binary-reward", "mine")
            .replace(from, to);
        let key = store.signing_key().unwrap();
        let bytes = package::seal(&manifest, bundled::BINARY_REWARD.component, &key).unwrap();
        (package::open(&bytes).unwrap(), bytes)
    }

    fn why<T: std::fmt::Debug>(result: anyhow::Result<T>) -> String {
        format!("{:#}", result.unwrap_err())
    }

    #[test]
    fn a_version_is_used_pinned_rolled_back_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(dir.path().join("plugins"));
        assert!(store.find("mine").unwrap().is_none());
        for version in ["0.1.0", "0.2.0"] {
            let (package, bytes) = packed(&store, "0.1.0", version);
            store
                .put(&package, &bytes, &package.manifest.capabilities)
                .unwrap();
        }
        let version = |name: &str| store.find(name).unwrap().unwrap().0.manifest.version;
        assert_eq!(version("mine"), "0.2.0");
        assert_eq!(version("mine@0.1.0"), "0.1.0");
        store.use_version("mine", "0.1.0").unwrap();
        assert_eq!(version("mine"), "0.1.0");
        assert!(why(store.find("mine@0.3.0")).contains("there is: 0.1.0, 0.2.0"));
        assert!(why(store.remove("mine", Some("0.1.0"))).contains("in use"));
        store.remove("mine", Some("0.2.0")).unwrap();
        store.remove("mine", None).unwrap();
        assert!(store.find("mine").unwrap().is_none());
        assert!(why(store.remove("mine", None)).contains("no plugin `mine`"));
    }

    #[test]
    fn a_version_is_never_replaced_by_another_content() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(dir.path().to_owned());
        let (first, bytes) = packed(&store, "0.1.0", "0.1.0");
        store.put(&first, &bytes, &[]).unwrap();
        let (other, bytes) = packed(&store, "+1 or -1", "either");
        assert!(why(store.put(&other, &bytes, &[])).contains("never replaced"));
    }

    #[test]
    fn what_was_changed_on_the_disk_or_is_trusted_no_more_is_not_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let (store, author) = (
            Store::at(dir.path().join("here")),
            Store::at(dir.path().join("there")),
        );
        let (package, bytes) = packed(&author, "0.1.0", "0.1.0");
        assert!(why(store.signer(&package)).contains("whom nobody here trusts"));
        store.trust("ann", Some(&package.signer)).unwrap();
        assert_eq!(store.signer(&package).unwrap(), "ann");
        store.put(&package, &bytes, &[]).unwrap();
        assert!(store.find("mine").unwrap().is_some());
        store.trust("ann", None).unwrap();
        assert!(why(store.find("mine")).contains("whom nobody here trusts"));
        store.trust("ann", Some(&package.signer)).unwrap();
        let path = store.there("mine", "0.1.0").unwrap();
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(why(store.find("mine")).contains("changed after it was signed"));
        assert!(why(store.trust("bob", Some("xyz"))).contains("no public key"));
        assert!(why(store.trust("bob", None)).contains("nobody called"));
    }

    #[test]
    fn a_version_that_asks_for_more_is_not_used_without_a_grant() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(dir.path().to_owned());
        let (first, bytes) = packed(&store, "0.1.0", "0.1.0");
        store
            .put(&first, &bytes, &first.manifest.capabilities)
            .unwrap();
        let (more, bytes) = packed(
            &store,
            "capabilities = [\"config\"]",
            "capabilities = [\"config\", \"random\"]",
        );
        // As if it had come by another way than `install`.
        let folder = store.folder("mine").unwrap();
        fs::write(folder.join("0.9.0").with_added_extension(SUFFIX), bytes).unwrap();
        assert_eq!(more.manifest.capabilities.len(), 2);
        assert!(why(store.use_version("mine", "0.9.0")).contains("asks for `random`"));
    }

    #[test]
    fn no_name_leads_out_of_the_store() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(dir.path().join("store"));
        fs::create_dir_all(dir.path().join("outside")).unwrap();
        fs::write(
            dir.path().join("outside").join(STATE),
            "current = '1'\ngrants = []",
        )
        .unwrap();
        for name in ["../outside", "/etc", "", "."] {
            assert!(store.find(name).unwrap().is_none(), "{name}");
            assert!(
                why(store.remove(name, None)).contains("no plugin's name"),
                "{name}"
            );
            assert!(
                why(store.use_version(name, "1")).contains("no plugin's name"),
                "{name}"
            );
        }
        assert!(dir.path().join("outside").join(STATE).exists());
    }
}
