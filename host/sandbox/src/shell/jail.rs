//! One jail: bubblewrap's namespaces, held open by a first process that the jailed user cannot touch.
//!
//! The first process is a shell with one errand: on a line of process numbers it kills them. It is the jail's process 1, which the
//! kernel protects from signals of its own jail, and it keeps one capability in the jail's user namespace, which keeps
//! processes without it from tracing it or opening its files. It ends when its stdin closes, so that a jail never outlives its host.

use std::{
    ffi::OsString,
    io::Write,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    fs::{Mode, OFlags, fstat, open, openat, stat},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space},
};

use super::{Config, cgroup::Group, fail::failed, programs::Programs, wait};
use crate::Result;

/// A jail that takes longer to start or to answer is broken.
const PATIENCE: Duration = Duration::from_secs(10);

/// Closes what a host holds open without the mark that keeps it from its children: it must not get into a jail.
pub(super) const CLOSE: &str = r#"for open in /proc/self/fd/*; do
open=${open##*/}
[ "$open" -le 2 ] || eval "exec $open>&-"
done
"#;

/// Joins the control groups named before `--`, then becomes what is named after it.
pub(super) const JOIN: &str = r#"ulimit -c 0
while [ "$1" != -- ]; do echo $$ >"$1" || exit 1; shift; done
shift
exec "$@""#;

/// The few files of `/etc` that programs ask for; none is the host's. Descriptor 3 is for what bwrap says about the jail.
const FILES: &str = r"exec 3>&2 4<<'END' 5<<'END' 6<<'END' 7<<'END' 8<<'END'
root:x:0:0:root:/:/bin/false
user:x:1000:1000:user:/tmp:/bin/bash
nobody:x:65534:65534:nobody:/:/bin/false
END
root:x:0:
user:x:1000:
nogroup:x:65534:
END
127.0.0.1 localhost machine
END
passwd: files
group: files
hosts: files
END
[user]
	name = user
	email = user@machine
[init]
	defaultBranch = main
[advice]
	detachedHead = false
END
";
const FILE_NAMES: [&str; 5] = ["passwd", "group", "hosts", "nsswitch.conf", "gitconfig"];

/// The host's files that are no one's secret, and that programs in `/usr` need. Few: each mount costs a fifth of a millisecond.
const ETC: [&str; 2] = ["alternatives", "ld.so.cache"];
/// Likewise, but links into `/usr` on most hosts, and left out where they are not.
const ETC_LINKS: [&str; 2] = ["localtime", "os-release"];
/// Where programs and libraries are, besides `/usr`; on most hosts links into it.
const SYSTEM: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];
const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];

/// What process 1 does. No user namespace can be made below the jail's: a process could be root in one.
const FIRST: &str = r"exec 2>/dev/null
echo 0 >/proc/sys/user/max_user_namespaces || exit 1
echo ready
while read -r processes; do kill -KILL $processes; echo done; done";

/// What every jail of a host is made with.
#[derive(Debug)]
pub(super) struct Kit {
    pub(super) programs: Programs,
    pub(super) config: Config,
    /// Whether this host is root: then jails belong to [`Config::user`], and the host mounts `/work` and `/tmp`.
    pub(super) root: bool,
    /// Whether `/work` is made of layers.
    pub(super) layered: bool,
}

/// A jail that lives until it is dropped.
#[derive(Debug)]
pub(super) struct Jail {
    /// bwrap, outside; it ends when the jail has.
    monitor: Child,
    requests: Option<ChildStdin>,
    answers: ChildStdout,
    first: OwnedFd,
    number: i32,
    root: OwnedFd,
    mounts: OwnedFd,
}

impl Kit {
    /// A program that starts in these control groups, as the jail's user, with no way to more rights.
    pub(super) fn command(&self, group: &Group, script: &str) -> Command {
        let mut command = Command::new(&self.programs.bash);
        command
            .args(["--norc", "--noprofile", "-c", script, "bash"])
            .args(group.doors())
            .arg("--")
            .arg(&self.programs.setsid)
            .arg(&self.programs.setpriv)
            .arg("--no-new-privs");
        if self.root {
            let user = self.config.user;
            command.args([format!("--reuid={user}"), format!("--regid={user}")]);
            command.arg("--clear-groups");
        }
        // Only what std can hand to posix_spawn: a fork would copy the page tables of a host that maps a whole model.
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn arguments(&self) -> Vec<OsString> {
        let mut list: Vec<OsString> = Vec::new();
        let mut add = |words: &[&str]| list.extend(words.iter().map(OsString::from));
        add(&["--unshare-user", "--uid", "1000", "--gid", "1000"]);
        add(&["--unshare-pid", "--unshare-net", "--unshare-ipc"]);
        add(&[
            "--unshare-uts",
            "--hostname",
            "machine",
            "--unshare-cgroup-try",
        ]);
        add(&["--as-pid-1", "--clearenv", "--chdir", "/"]);
        add(&["--cap-drop", "ALL", "--cap-add", "CAP_SYS_RESOURCE"]);
        add(&["--ro-bind", "/usr", "/usr"]);
        for name in SYSTEM {
            let path = format!("/{name}");
            match std::fs::read_link(&path) {
                Ok(target) => add(&["--symlink", &target.to_string_lossy(), &path]),
                Err(_) => add(&["--ro-bind-try", &path, &path]),
            }
        }
        add(&["--perms", "0755", "--dir", "/etc"]);
        for name in ETC {
            let path = format!("/etc/{name}");
            add(&["--ro-bind-try", &path, &path]);
        }
        for name in ETC_LINKS {
            let path = format!("/etc/{name}");
            if let Ok(target) = std::fs::read_link(&path) {
                add(&["--symlink", &target.to_string_lossy(), &path]);
            }
        }
        for (name, descriptor) in FILE_NAMES.iter().zip(4..) {
            add(&[
                "--perms",
                "0644",
                "--file",
                &format!("{descriptor}"),
                &format!("/etc/{name}"),
            ]);
        }
        add(&["--proc", "/proc", "--dir", "/dev"]);
        for name in DEVICES {
            let path = format!("/dev/{name}");
            add(&["--dev-bind", &path, &path]);
        }
        add(&["--symlink", "/proc/self/fd", "/dev/fd"]);
        for (name, descriptor) in ["stdin", "stdout", "stderr"].iter().zip(0..) {
            add(&[
                "--symlink",
                &format!("/proc/self/fd/{descriptor}"),
                &format!("/dev/{name}"),
            ]);
        }
        add(&[
            "--symlink",
            "/tmp",
            "/dev/shm",
            "--symlink",
            "/tmp",
            "/var/tmp",
        ]);
        let size = self.config.disk_bytes().to_string();
        if self.root {
            add(&["--dir", "/tmp", "--dir", "/work", "--dir", "/.layers"]);
        } else {
            add(&["--size", &size, "--perms", "1777", "--tmpfs", "/tmp"]);
            add(&["--size", &size, "--perms", "0755", "--tmpfs", "/work"]);
        }
        for path in &self.config.also_readable {
            list.extend(["--ro-bind".into(), path.into(), path.into()]);
        }
        list.extend(["--remount-ro", "/", "--info-fd", "3", "--"].map(OsString::from));
        list.extend(["/bin/bash", "--norc", "--noprofile", "-c", FIRST].map(OsString::from));
        list
    }
}

impl Jail {
    /// Starts a jail in these control groups, and waits until it is ready.
    pub(super) fn start(kit: &Kit, group: &Group) -> Result<Self> {
        let fail = |why: String| failed("start a jail", why);
        let mut command = kit.command(group, &format!("{CLOSE}{FILES}{JOIN}"));
        command.arg(&kit.programs.bwrap).args(kit.arguments());
        let mut monitor = command.spawn().map_err(|e| fail(format!("{e}")))?;
        let until = Instant::now() + PATIENCE;
        let (Some(requests), Some(mut answers), Some(mut said)) = (
            monitor.stdin.take(),
            monitor.stdout.take(),
            monitor.stderr.take(),
        ) else {
            return Err(fail("it has no pipes".into()));
        };
        let about = wait::read_until(&mut said, 16_384, until, |text| text.contains(&b'}'));
        let ready = wait::read_until(&mut answers, 64, until, |text| text.ends_with(b"ready\n"));
        // Not before: until it is ready, its root is still the host's.
        let opened = if ready == b"ready\n" {
            open_jail(&about)
        } else {
            Err("its first process did not begin".into())
        };
        match opened {
            Ok((number, first, root, mounts)) => Ok(Self {
                monitor,
                requests: Some(requests),
                answers,
                first,
                number,
                root,
                mounts,
            }),
            Err(why) => {
                // Its stdin closes, so that it ends if it lives at all; its last words are why.
                drop(requests);
                let soon = Instant::now() + Duration::from_millis(500);
                let more = wait::read_until(&mut said, 16_384, soon, |_| false);
                let words = [about, more].concat();
                let words = String::from_utf8_lossy(&words);
                let words: Vec<&str> = words
                    .lines()
                    .filter(|l| l.starts_with("bwrap:") || l.contains(": "))
                    .collect();
                end(&mut monitor);
                Err(fail(format!("{why}; it said: {:?}", words.join(" "))))
            }
        }
    }

    /// The number of its first process, as the host sees it.
    pub(super) fn number(&self) -> i32 {
        self.number
    }

    /// The jail's root folder, as something to open files below.
    pub(super) fn root(&self) -> &OwnedFd {
        &self.root
    }

    /// Whether its first process lives.
    pub(super) fn lives(&self) -> bool {
        !wait::readable(self.first.as_fd(), Instant::now())
    }

    /// Kills processes by the numbers that they have inside.
    pub(super) fn kill(&mut self, processes: &[u32]) -> Result<()> {
        let words: Vec<String> = processes.iter().map(u32::to_string).collect();
        self.ask(&words.join(" "))
    }

    /// Kills every process but the first, in one step that no fork escapes.
    pub(super) fn kill_all(&mut self) -> Result<()> {
        self.ask("-1")
    }

    fn ask(&mut self, line: &str) -> Result<()> {
        let fail = |why: &str| failed("kill processes of a jail", why);
        let requests = self.requests.as_mut().ok_or_else(|| fail("it is closed"))?;
        // One line at a time, each far below a pipe's size, and each answered: this cannot block.
        let asked = requests.write_all(format!("{line}\n").as_bytes());
        asked.map_err(|e| fail(&e.to_string()))?;
        let until = Instant::now() + PATIENCE;
        let answer = wait::read_until(&mut self.answers, 64, until, |text| text.ends_with(b"\n"));
        if answer == b"done\n" {
            Ok(())
        } else {
            Err(fail("its first process does not answer"))
        }
    }

    /// Does something within the jail's mounts, as root, on a thread of its own.
    ///
    /// Only for paths that the jailed user cannot change.
    pub(super) fn inside<T: Send>(
        &self,
        work: impl FnOnce() -> rustix::io::Result<T> + Send,
    ) -> std::io::Result<T> {
        std::thread::scope(|scope| {
            let enter = || {
                // A thread that shares its folder and root with others may not change its mounts.
                #[expect(
                    deprecated,
                    reason = "unsafe only for descriptors, which this does not touch"
                )]
                rustix::thread::unshare(UnshareFlags::FS)?;
                move_into_link_name_space(self.mounts.as_fd(), Some(LinkNameSpaceType::Mount))?;
                work()
            };
            let thread = std::thread::Builder::new().spawn_scoped(scope, enter)?;
            let panicked = |_| std::io::Error::other("the thread panicked");
            Ok(thread.join().map_err(panicked)??)
        })
    }
}

/// The first process that bwrap names, held, with the jail's root and mounts.
fn open_jail(about: &[u8]) -> std::result::Result<(i32, OwnedFd, OwnedFd, OwnedFd), String> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct About {
        child_pid: i32,
    }
    let from = about.iter().position(|byte| *byte == b'{');
    let text = from.and_then(|from| about.get(from..)).unwrap_or_default();
    let about: About =
        serde_json::from_slice(text).map_err(|_| "bwrap did not make a jail".to_owned())?;
    let pid = Pid::from_raw(about.child_pid).ok_or("bwrap named no process")?;
    let fail = |e: rustix::io::Errno| format!("its first process cannot be reached: {e}");
    let first = pidfd_open(pid, PidfdFlags::empty()).map_err(fail)?;
    let process = format!("/proc/{}", about.child_pid);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let process = open(Path::new(&process), flags, Mode::empty()).map_err(fail)?;
    let root = openat(&process, "root", flags, Mode::empty()).map_err(fail)?;
    let place = |stat: rustix::fs::Stat| (stat.st_dev, stat.st_ino);
    let inner = fstat(&root).map(place).map_err(fail)?;
    if inner == stat("/").map(place).map_err(fail)? {
        return Err("its root is the host's own".into());
    }
    let readable = OFlags::RDONLY | OFlags::CLOEXEC;
    let mounts = openat(&process, "ns/mnt", readable, Mode::empty()).map_err(fail)?;
    Ok((about.child_pid, first, root, mounts))
}

/// Waits for bwrap to end, and kills it when it does not.
fn end(monitor: &mut Child) {
    let pid = Pid::from_child(monitor);
    let Ok(ended) = pidfd_open(pid, PidfdFlags::empty()) else {
        return;
    };
    if wait::end_of(monitor, ended.as_fd(), Instant::now() + PATIENCE).is_none() {
        tracing::warn!(
            process = pid.as_raw_nonzero(),
            "a jail did not end; killing its monitor"
        );
        let _ = pidfd_send_signal(&ended, Signal::KILL);
        wait::end_of(monitor, ended.as_fd(), Instant::now() + PATIENCE);
    }
}

impl Drop for Jail {
    fn drop(&mut self) {
        // The kernel kills whatever else is in there with it.
        let _ = pidfd_send_signal(&self.first, Signal::KILL);
        drop(self.requests.take());
        end(&mut self.monitor);
    }
}
