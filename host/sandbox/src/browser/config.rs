//! What the operator decides about headless pages.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Headless pages. Everything has a default: chromium where the machine has it, and no site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Chromium's or Chrome's own program, not a script that starts it. Default: looked for where Linux systems have it.
    pub binary: Option<PathBuf>,
    /// Folders of files that pages may open, by name. A name is lower-case letters, digits and `-`.
    pub sites: BTreeMap<String, PathBuf>,
    /// Most pages at once. Each is a process of about 110 MB.
    pub pages: usize,
    /// Longest time of one operation on a page.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// Most memory of one of chromium's processes, thus of one page, in MiB.
    pub memory_mib: u64,
    /// Whether chromium runs within `bwrap`.
    pub jail: Jail,
}

/// Whether chromium runs within `bwrap`: no network, none of the host's files beyond the system's programs, an ordinary user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Jail {
    /// Where it works; a warning where it does not.
    #[default]
    Preferred,
    /// Or else there are no pages.
    Required,
    /// Never: the flags that keep chromium from the network are all there is.
    Off,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            binary: None,
            sites: BTreeMap::new(),
            pages: 64,
            timeout: Duration::from_secs(10),
            memory_mib: 1_024,
            jail: Jail::default(),
        }
    }
}

impl Config {
    /// Checks every range, and that the sites' folders are there.
    ///
    /// # Errors
    /// [`Error::Refused`] names the key.
    pub fn validate(&self) -> Result<()> {
        let refuse = |why: String| {
            let action = "configure the browser".to_owned();
            Err(Error::Refused { action, why })
        };
        if !(1..=1_024).contains(&self.pages) {
            return refuse(format!("`pages` is {}, not 1 to 1,024", self.pages));
        }
        if !(Duration::from_millis(100)..=Duration::from_secs(60)).contains(&self.timeout) {
            let given = self.timeout;
            return refuse(format!("`timeout` is {given:?}, not 100 ms to 60 s"));
        }
        // Below, chromium itself does not start.
        if !(256..=65_536).contains(&self.memory_mib) {
            let given = self.memory_mib;
            return refuse(format!("`memory-mib` is {given}, not 256 to 65,536"));
        }
        for (name, folder) in &self.sites {
            if !is_site_name(name) {
                return refuse(format!(
                    "the site `{name}` is not named by 1 to 40 lower-case letters, digits and `-` within"
                ));
            }
            if !folder.is_dir() {
                let folder = folder.display();
                return refuse(format!(
                    "the site `{name}` is at {folder}, which is no folder"
                ));
            }
        }
        Ok(())
    }
}

/// A label of a host name, because that is what it becomes.
fn is_site_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=40).contains(&name.len())
        && name.bytes().all(plain)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut Config)) -> String {
        let mut config = Config::default();
        change(&mut config);
        config.validate().unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_are_valid_and_survive_json() {
        let config = Config::default();
        config.validate().unwrap();
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<Config>(&text).unwrap(), config);
    }

    #[test]
    fn an_unknown_key_and_a_value_out_of_range_are_refused_by_name() {
        let unknown = serde_json::from_str::<Config>(r#"{"page": 3}"#);
        assert!(unknown.unwrap_err().to_string().contains("`page`"));
        assert!(refused(|c| c.pages = 0).contains("`pages` is 0"));
        assert!(refused(|c| c.timeout = Duration::ZERO).contains("`timeout`"));
        assert!(refused(|c| c.memory_mib = 1).contains("`memory-mib` is 1"));
    }

    #[test]
    fn a_site_has_a_plain_name_and_a_folder() {
        for name in ["", "a.b", "-a", "a-", "A", "a/b", "ä", &"a".repeat(41)] {
            let why = refused(|c| {
                c.sites.insert(name.to_owned(), "/".into());
            });
            assert!(why.contains(&format!("the site `{name}`")), "{why}");
        }
        let why = refused(|c| {
            c.sites.insert("shop".to_owned(), "/no/such/folder".into());
        });
        assert!(why.contains("no folder"), "{why}");
    }
}
