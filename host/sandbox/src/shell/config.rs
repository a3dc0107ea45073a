//! What an operator sets for jailed machines.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{fail::refused, limits};
use crate::Result;

/// Memory that stays for processes when a machine's files have taken all that they may.
const LEAST_FOR_PROCESSES_MIB: u64 = 32;
/// No setting may be beyond these; they only keep the arithmetic and the kernel's own limits out of trouble.
const MOST_MIB: u64 = 1 << 20;
const MOST_COUNT: u64 = 1 << 20;

/// `[shell]`: which images there are, and how much a machine may use.
///
/// A machine's files live in memory: a host needs up to `machines` times `memory-mib`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Folders whose files a machine's `/work` begins with, by name. They are copied when they are first used: a later
    /// change of the folder is not seen until the host starts again. `empty` is always there and cannot be set.
    pub images: BTreeMap<String, PathBuf>,
    /// Most machines at once.
    pub machines: usize,
    /// Memory of one machine: processes and files together, where control groups can be used; otherwise the address space of each
    /// process. At least 32 MiB more than `/work` and `/tmp` can take.
    pub memory_mib: u64,
    /// Processes and threads of one machine at once.
    pub processes: u64,
    /// Size of `/work` and of `/tmp`, each. An image does not count, the states that are kept do.
    pub disk_mib: u64,
    /// Processor time of each process of a command.
    pub cpu_seconds: u64,
    /// Most processor time of a machine, in percent of one processor; needs control groups.
    pub cpu_percent: u64,
    /// Open files of each process.
    pub open_files: u64,
    /// More of the host's folders that every machine can read, at the same place, for example `/opt/node`. `/usr` is always there.
    pub also_readable: Vec<PathBuf>,
    /// The user and group as which commands run when the host runs as root; no one else may use it. An ordinary user's machines
    /// run as that user.
    pub user: u32,
    /// Whether control groups are used where this host may make them.
    pub control_groups: bool,
    /// Whether `/work` is made of overlay layers where this host may mount them (as root); otherwise states are copies, which
    /// take time in proportion to their size.
    pub overlay: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            images: BTreeMap::new(),
            machines: 128,
            memory_mib: 512,
            processes: 128,
            disk_mib: 128,
            cpu_seconds: 60,
            cpu_percent: 100,
            open_files: 1_024,
            also_readable: Vec::new(),
            // Above every range that distributions, containers and systemd give out.
            user: 2_000_000_000,
            control_groups: true,
            overlay: true,
        }
    }
}

impl Config {
    /// Checks every value, and that the images are there.
    ///
    /// # Errors
    /// [`crate::Error::Refused`] with the key, its value and what is allowed.
    pub fn validate(&self) -> Result<()> {
        let refuse = |key: &str, why: String| Err(refused(format!("take shell.{key}"), why));
        if self.machines == 0 {
            return refuse("machines", "it is 0; at least 1 is needed".into());
        }
        for (key, value, least, most) in [
            ("memory-mib", self.memory_mib, 1, MOST_MIB),
            ("disk-mib", self.disk_mib, 1, MOST_MIB),
            ("processes", self.processes, 4, MOST_COUNT),
            ("cpu-seconds", self.cpu_seconds, 1, MOST_COUNT),
            ("cpu-percent", self.cpu_percent, 1, 100_000),
            ("open-files", self.open_files, 32, MOST_COUNT),
        ] {
            if value < least || value > most {
                let why = format!("it is {value}; {least} to {most} is allowed");
                return refuse(key, why);
            }
        }
        let least = 2 * self.disk_mib + LEAST_FOR_PROCESSES_MIB;
        if self.memory_mib < least {
            let why = format!(
                "it is {}; /work and /tmp live in memory and can take {} MiB: set at least {least}, or a smaller disk-mib",
                self.memory_mib,
                2 * self.disk_mib
            );
            return refuse("memory-mib", why);
        }
        if self.user == 0 || self.user >= i32::MAX as u32 {
            let why = format!("it is {}; 1 to {} is allowed", self.user, i32::MAX - 1);
            return refuse("user", why);
        }
        for path in &self.also_readable {
            let plain = path
                .components()
                .all(|part| !matches!(part, std::path::Component::ParentDir));
            if !path.is_absolute() || !plain || path.parent().is_none() || !path.exists() {
                let why = format!("{} is no absolute path of this host", path.display());
                return refuse("also-readable", why);
            }
        }
        self.images.iter().try_for_each(|(name, folder)| {
            if name == limits::EMPTY {
                return refuse("images.empty", "this image is built in; take another name".into());
            }
            let fits = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"-_.".contains(&c);
            let plain = name.len() <= 64 && name.bytes().all(fits) && !name.starts_with('.');
            if name.is_empty() || !plain {
                let why = "a name is up to 64 of a to z, 0 to 9, `-`, `_` and `.`, and does not begin with `.`";
                return refuse(&format!("images.{name:?}"), why.into());
            }
            if !folder.is_dir() {
                let why = format!("{} is no folder that can be read", folder.display());
                return refuse(&format!("images.{name}"), why);
            }
            Ok(())
        })
    }

    /// Bytes that `/work`, and `/tmp`, may hold.
    pub(super) fn disk_bytes(&self) -> u64 {
        self.disk_mib << 20
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid_and_every_bad_value_is_named() {
        Config::default().validate().unwrap();
        type Change = fn(&mut Config);
        let bad: [(&str, Change); 12] = [
            ("machines", |config| config.machines = 0),
            ("memory-mib", |config| config.memory_mib = 0),
            ("memory-mib", |config| {
                config.memory_mib = 2 * config.disk_mib
            }),
            ("disk-mib", |config| config.disk_mib = u64::MAX),
            ("processes", |config| config.processes = 0),
            ("cpu-seconds", |config| config.cpu_seconds = 0),
            ("cpu-percent", |config| config.cpu_percent = 0),
            ("open-files", |config| config.open_files = 3),
            ("user", |config| config.user = 0),
            ("also-readable", |config| {
                config.also_readable.push("/usr/../etc".into())
            }),
            ("images.empty", |config| {
                drop(config.images.insert("empty".into(), "/usr".into()))
            }),
            ("images.", |config| {
                drop(config.images.insert("../x".into(), "/usr".into()))
            }),
        ];
        for (key, change) in bad {
            let mut config = Config::default();
            change(&mut config);
            let why = config.validate().unwrap_err();
            assert!(
                why.is_refusal() && why.to_string().contains(key),
                "{key}: {why}"
            );
        }
    }

    #[test]
    fn keys_are_as_documented_and_unknown_ones_are_refused() {
        let text = r#"{"images": {"a": "/usr"}, "memory-mib": 300, "also-readable": ["/usr"]}"#;
        let config: Config = serde_json::from_str(text).unwrap();
        assert_eq!(config.memory_mib, 300);
        config.validate().unwrap();
        assert!(serde_json::from_str::<Config>(r#"{"memory": 300}"#).is_err());
    }
}
