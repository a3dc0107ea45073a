//! Finds the programs that a jail is made with, and says which package or setting is missing when there is no jail.

use std::path::{Path, PathBuf};

use super::fail::unavailable;
use crate::{Error, Result};

/// Where programs are looked for: never in the caller's `PATH`, which says nothing about what the jail may run.
const FOLDERS: [&str; 5] = ["/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/local/bin"];

/// The programs outside of the jail, each as an absolute path.
#[derive(Clone, Debug)]
pub(super) struct Programs {
    pub(super) bash: PathBuf,
    pub(super) bwrap: PathBuf,
    pub(super) nsenter: PathBuf,
    pub(super) setpriv: PathBuf,
    pub(super) setsid: PathBuf,
}

impl Programs {
    /// Finds all of them.
    pub(super) fn find() -> Result<Self> {
        Ok(Self {
            bash: find("bash", "bash")?,
            bwrap: find("bwrap", "bubblewrap")?,
            nsenter: find("nsenter", "util-linux")?,
            setpriv: find("setpriv", "util-linux")?,
            setsid: find("setsid", "util-linux")?,
        })
    }
}

fn find(name: &str, package: &str) -> Result<PathBuf> {
    let there = FOLDERS.iter().map(|folder| Path::new(folder).join(name));
    there
        .into_iter()
        .find(|path| path.is_file())
        .ok_or_else(|| {
            unavailable(format!(
                "the program `{name}` is not in {}; install it: apt-get install {package}",
                FOLDERS.join(", ")
            ))
        })
}

/// What the probe's failure means on this computer, and what to do about it.
pub(super) fn explain(failure: &Error) -> Error {
    let setting = |path: &str| {
        let value = std::fs::read_to_string(path).ok()?;
        value.trim().parse::<u64>().ok()
    };
    let advice = if setting("/proc/sys/user/max_user_namespaces") == Some(0) {
        "user namespaces are switched off: sysctl -w user.max_user_namespaces=10000"
    } else if setting("/proc/sys/kernel/unprivileged_userns_clone") == Some(0) {
        "user namespaces are for root only: sysctl -w kernel.unprivileged_userns_clone=1"
    } else if setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == Some(1) {
        "AppArmor keeps programs from user namespaces: give bwrap a profile that allows `userns`, or \
         sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
    } else if !failure.to_string().contains("start a jail") {
        "that is not about namespaces: look at what it says"
    } else {
        "the kernel or a surrounding container does not let bwrap make namespaces: allow unprivileged user namespaces there \
         (in Docker: --security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined)"
    };
    unavailable(format!("a first machine did not work: {failure}; {advice}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named_with_its_package() {
        let why = find("no-such-program", "some-package").unwrap_err();
        assert!(matches!(why, Error::Unavailable { .. }), "{why}");
        assert!(
            why.to_string().contains("apt-get install some-package"),
            "{why}"
        );
    }
}
