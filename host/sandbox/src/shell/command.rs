//! A shell that stands ready in a jail, is given one command, and is followed to its end.
//!
//! It enters the jail before it is needed, since that takes longer than most commands do. Nothing that it does or says is trusted: it belongs to the
//! jailed user, whose other processes may kill it, stop it or write in its place.

use std::{
    io::{self, Write},
    os::fd::{AsFd, OwnedFd},
    process::{Child, ChildStdin, ExitStatus},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags},
    io::ioctl_fionbio,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

use super::{
    cgroup::Group,
    fail::failed,
    jail::{CLOSE, JOIN, Jail, Kit},
    stream::Stream,
    wait,
};
use crate::Result;

/// Old streams that a machine's background processes still hold; the oldest beyond this are closed to them.
const LEFTOVERS: usize = 64;
/// Commands up to this size are read by the shell itself, which does it byte by byte; longer ones through a program.
const SHORT: usize = 2_048;

/// Sets the limits, takes folder and command from stdin, and becomes that command. Its arguments are limits for `ulimit`.
///
/// The mark is the limit of file locks, which the kernel keeps and inherits but does nothing with: see [`super::processes`].
const READY: &str = r#"ulimit -HS -x "$1" -u "$2" -t "$3" -f "$4" -n "$5" -v "$6" -c 0 -q 0 || exit 1
echo 1000 >/proc/self/oom_score_adj
IFS= read -r -d '' folder && IFS= read -r -d '' size || exit 1
if [ "$size" = short ]; then IFS= read -r -d '' command || exit 1
else command=$(cat; echo .); command=${command%.}; fi
cd -- "$folder" || exit 1
unset OLDPWD
exec bash -c "$command" </dev/null"#;

/// A shell in a jail, and outside of it the program that waits for it.
#[derive(Debug)]
pub(super) struct Shell {
    child: Child,
    ended: OwnedFd,
    stdin: Option<ChildStdin>,
    stdout: Stream,
    stderr: Stream,
    mark: u64,
}

/// What a command wrote; the streams go on to [`Leftovers`] where background processes hold them.
#[derive(Debug, Default)]
pub(super) struct Texts {
    pub(super) stdout: String,
    pub(super) stderr: String,
    pub(super) cut: bool,
}

/// Streams of commands that are over, held by what they left running. They are read while other commands run, so that a
/// background process that writes is neither killed by a closed pipe nor stopped for good by a full one.
#[derive(Debug, Default)]
pub(super) struct Leftovers(Vec<Stream>);

impl Leftovers {
    /// Closes all of them.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    fn keep(&mut self, stream: Option<Stream>) {
        self.0.extend(stream);
        if self.0.len() > LEFTOVERS {
            self.0.remove(0);
        }
    }

    fn read(&mut self, now: Instant) {
        self.0.iter_mut().for_each(|stream| stream.read(now));
        self.0.retain(Stream::is_open);
    }
}

impl Shell {
    /// Starts one; it need not be there yet when this returns.
    pub(super) fn start(kit: &Kit, group: &Group, jail: &Jail, mark: u64) -> Result<Self> {
        let fail = |e: io::Error| failed("start a shell in a jail", e);
        let config = &kit.config;
        let mut command = kit.command(group, &format!("{CLOSE}{JOIN}"));
        command.arg(&kit.programs.nsenter);
        command.args(["--target", &jail.number().to_string()]);
        command.args([
            "-U",
            "-m",
            "-p",
            "-n",
            "-i",
            "-u",
            "-C",
            "--preserve-credentials",
            "--",
        ]);
        command.args(["/bin/bash", "--norc", "--noprofile", "-c", READY, "bash"]);
        // Without control groups, the address space of each process is all that can be bounded.
        let space = match group.doors().next() {
            Some(_) => "unlimited".to_owned(),
            None => (config.memory_mib << 10).to_string(),
        };
        command.args([
            mark.to_string(),
            // The first process counts, too.
            (config.processes + 1).to_string(),
            config.cpu_seconds.to_string(),
            // Above what fits, so that a full disk shows as one.
            ((config.disk_bytes() >> 10) + 1_024).to_string(),
            config.open_files.to_string(),
            space,
        ]);
        // `/tmp` is home, so that what programs keep there does not show among the changes of `/work`.
        for (name, value) in [
            ("HOME", "/tmp"),
            ("USER", "user"),
            ("LOGNAME", "user"),
            ("SHELL", "/bin/bash"),
            ("LANG", "C.UTF-8"),
            ("TERM", "dumb"),
            // Wherever this host's git would look for it.
            ("GIT_CONFIG_SYSTEM", "/etc/gitconfig"),
        ] {
            command.env(name, value);
        }
        let mut child = command.spawn().map_err(fail)?;
        let missing = || io::Error::other("it has no pipes");
        let ended = pidfd_open(Pid::from_child(&child), PidfdFlags::empty());
        let stdin = child.stdin.take().ok_or_else(missing).map_err(fail)?;
        // The jailed side may never read: a write must not wait for it.
        ioctl_fionbio(&stdin, true).map_err(|e| fail(e.into()))?;
        let stdout = child.stdout.take().ok_or_else(missing).map_err(fail)?;
        let stderr = child.stderr.take().ok_or_else(missing).map_err(fail)?;
        Ok(Self {
            ended: ended.map_err(|e| fail(e.into()))?,
            child,
            stdin: Some(stdin),
            stdout: Stream::new(stdout.into()).map_err(fail)?,
            stderr: Stream::new(stderr.into()).map_err(fail)?,
            mark,
        })
    }

    /// By which the processes of its command are known.
    pub(super) fn mark(&self) -> u64 {
        self.mark
    }

    /// Whether it is still there.
    pub(super) fn waits(&self) -> bool {
        !wait::readable(self.ended.as_fd(), Instant::now())
    }

    /// Gives it a command and follows it until it ends or the time is over: `None` is out of time.
    pub(super) fn follow(
        &mut self,
        command: &str,
        folder: &str,
        until: Instant,
        leftovers: &mut Leftovers,
    ) -> Option<ExitStatus> {
        let mut request = request(command, folder);
        loop {
            let now = Instant::now();
            if now >= until {
                return None;
            }
            let wake = self.wait_for_news(!request.is_empty(), now, until, leftovers);
            if wake.is_err() {
                // Poll itself has failed: nothing that the command did. Look at everything after a moment.
                wait::moment(Duration::from_millis(1));
            }
            self.send(&mut request);
            let now = Instant::now();
            self.stdout.read(now);
            self.stderr.read(now);
            leftovers.read(now);
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
        }
    }

    fn wait_for_news(
        &self,
        sending: bool,
        now: Instant,
        until: Instant,
        leftovers: &Leftovers,
    ) -> io::Result<()> {
        let streams = [&self.stdout, &self.stderr];
        let streams = streams.into_iter().chain(&leftovers.0);
        let mut fds = vec![PollFd::from_borrowed_fd(self.ended.as_fd(), PollFlags::IN)];
        if let Some(stdin) = self.stdin.as_ref().filter(|_| sending) {
            fds.push(PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::OUT));
        }
        fds.extend(streams.clone().filter_map(|stream| stream.interest(now)));
        let until = streams.filter_map(Stream::wakes).fold(until, Instant::min);
        wait::ready(&mut fds, until)?;
        Ok(())
    }

    /// Sends what fits. The end of the request closes stdin.
    fn send(&mut self, request: &mut Vec<u8>) {
        let Some(stdin) = &mut self.stdin else { return };
        match stdin.write(request) {
            Ok(n) => drop(request.drain(..n)),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            // Someone in the jail has closed or killed it; how it ended will tell.
            Err(_) => request.clear(),
        }
        if request.is_empty() {
            self.stdin = None;
        }
    }

    /// What its command wrote; the program outside is ended if it has not.
    pub(super) fn finish(mut self, leftovers: &mut Leftovers) -> Texts {
        self.end();
        let (stdout, cut_stdout, left_stdout) = self.stdout.finish();
        let (stderr, cut_stderr, left_stderr) = self.stderr.finish();
        leftovers.keep(left_stdout);
        leftovers.keep(left_stderr);
        Texts {
            stdout,
            stderr,
            cut: cut_stdout || cut_stderr,
        }
    }

    /// Whether the program outside ends in that time.
    pub(super) fn ends_within(&mut self, time: Duration) -> bool {
        // It follows its shell into a stop, and must go on to see it die.
        let _ = pidfd_send_signal(&self.ended, Signal::CONT);
        wait::end_of(&mut self.child, self.ended.as_fd(), Instant::now() + time).is_some()
    }

    /// Kills the program outside: nothing enters the jail by it any more.
    pub(super) fn kill(&mut self) {
        let _ = pidfd_send_signal(&self.ended, Signal::KILL);
        self.ends_within(Duration::from_secs(5));
    }

    /// Ends the program outside, after what it waits for was killed.
    fn end(&mut self) {
        if !self.ends_within(Duration::from_secs(1)) {
            self.kill();
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // One that has no command yet may still be on its way in. It ends there by itself, since its stdin is closed.
        self.stdin = None;
        self.kill();
    }
}

/// A command as [`READY`] reads it.
fn request(command: &str, folder: &str) -> Vec<u8> {
    if command.len() <= SHORT {
        format!("{folder}\0short\0{command}\0").into_bytes()
    } else {
        format!("{folder}\0long\0{command}").into_bytes()
    }
}
