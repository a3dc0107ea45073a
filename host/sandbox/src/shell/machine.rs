//! A machine as its owner sees it.

use std::{
    fmt,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::ExitStatus,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    cgroup::Group,
    command::{Leftovers, Shell, Texts},
    copies::{Copies, EMPTY_WORK},
    fail::{failed, refused},
    files::Files,
    folder,
    jail::Jail,
    layers::Layers,
    limits,
    machines::{Host, Permit},
    processes::{self, FIRST_MARK},
};
use crate::Result;

/// Work on a machine that no guest asked for, such as emptying a folder.
const CHORE: Duration = Duration::from_secs(30);
/// How long a command that is over may take to be gone, before everything is killed.
const STUBBORN: Duration = Duration::from_secs(1);

/// How a command ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// With this code.
    Exited(u32),
    /// By this signal.
    Killed(u32),
    /// It ran out of time, and was killed with everything that it had started.
    TimedOut,
}

/// What a command did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Output {
    /// How it ended.
    pub ending: Ending,
    /// Standard output, at most 65,536 bytes; what is no UTF-8 is shown as U+FFFD.
    pub stdout: String,
    /// Standard error, likewise.
    pub stderr: String,
    /// Whether either was cut.
    pub cut: bool,
}

/// How a file differs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChangeKind {
    /// It is new.
    Added,
    /// Its kind, rights or content is another.
    Modified,
    /// It is gone.
    Removed,
}

/// A difference between two states of `/work`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// Absolute; bytes that are no UTF-8 are shown as U+FFFD.
    pub path: String,
    /// How it differs.
    pub kind: ChangeKind,
}

/// A jailed machine, destroyed with every process, mount and file when it is dropped. Every method blocks for a bounded time.
pub struct Machine {
    // In the order in which they are destroyed: without its processes, the groups, files and the permit are free.
    jail: Jail,
    /// Waits for the next command.
    ready: Option<Shell>,
    leftovers: Leftovers,
    group: Group,
    store: Store,
    _folder: OwnFolder,
    next_mark: u64,
    host: Arc<Host>,
    _permit: Permit,
}

/// Where the states of `/work` are.
#[derive(Debug)]
pub(super) enum Store {
    Layers(Layers),
    Copies(Copies),
}

/// A machine's folder on the host.
#[derive(Debug)]
pub(super) struct OwnFolder(pub(super) PathBuf);

impl Drop for OwnFolder {
    fn drop(&mut self) {
        if let Err(why) = folder::remove(&self.0) {
            tracing::warn!(folder = %self.0.display(), %why, "a machine's files are left behind");
        }
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine")
            .field("jail", &self.jail.number())
            .finish_non_exhaustive()
    }
}

impl Machine {
    pub(super) fn new(
        host: Arc<Host>,
        permit: Permit,
        own: OwnFolder,
        group: Group,
        jail: Jail,
        store: Store,
    ) -> Self {
        let mut machine = Self {
            jail,
            ready: None,
            leftovers: Leftovers::default(),
            group,
            store,
            _folder: own,
            next_mark: FIRST_MARK,
            host,
            _permit: permit,
        };
        machine.stand_ready();
        machine
    }

    /// Runs `bash -c command` in a folder. What it leaves running in the background lives on.
    ///
    /// # Errors
    /// [`crate::Error::Refused`] for a folder that is none of the machine's, a time of 0 or above 60 s, or a command that is
    /// too long; [`crate::Error::Failed`] when the machine is broken.
    pub fn run(&mut self, command: &str, folder: &str, timeout: Duration) -> Result<Output> {
        let action = || format!("run a command in {folder:?}");
        if timeout.is_zero() || timeout > limits::LONGEST_TIME {
            let why = format!(
                "a time of {timeout:?}; above 0 to {:?} is allowed",
                limits::LONGEST_TIME
            );
            return Err(refused(action(), why));
        }
        if command.len() > limits::LONGEST_COMMAND || command.contains('\0') {
            let why = format!(
                "a command has at most {} bytes, none of them 0; write a file for more",
                limits::LONGEST_COMMAND
            );
            return Err(refused(action(), why));
        }
        self.usable()?;
        self.files().folder(folder, &action())?;
        self.run_in(command, folder, timeout)
    }

    fn run_in(&mut self, command: &str, folder: &str, timeout: Duration) -> Result<Output> {
        let until = Instant::now() + timeout;
        // One that a background process has killed meanwhile is replaced.
        let mut shell = match self.ready.take().filter(Shell::waits) {
            Some(shell) => shell,
            None => self.shell()?,
        };
        let status = shell.follow(command, folder, until, &mut self.leftovers);
        let stopped = match status {
            Some(_) => Ok(()),
            None => self.stop(&mut shell),
        };
        let Texts {
            stdout,
            stderr,
            cut,
        } = shell.finish(&mut self.leftovers);
        stopped?;
        self.stand_ready();
        Ok(Output {
            ending: status.map_or(Ending::TimedOut, ending),
            stdout,
            stderr,
            cut,
        })
    }

    /// Writes a file of at most 1 MiB, and makes the folders above it where they are missing.
    ///
    /// # Errors
    /// [`crate::Error::Refused`] for a path that leads out of `/work` and `/tmp`, or too large a content;
    /// [`crate::Error::Failed`] when the disk is full or the machine is broken.
    pub fn write_file(&mut self, path: &str, content: &[u8], executable: bool) -> Result<()> {
        self.usable()?;
        self.files().write(path, content, executable)
    }

    /// A file's content; `None` where there is no file.
    ///
    /// # Errors
    /// [`crate::Error::Refused`] for a path that leads out of `/work` and `/tmp`, what is no regular file, or a file of more than 1 MiB;
    /// [`crate::Error::Failed`] when the machine is broken.
    pub fn read_file(&mut self, path: &str) -> Result<Option<Vec<u8>>> {
        self.usable()?;
        self.files().read(path)
    }

    /// Keeps the state of `/work`, and gives its number, from 0 up. Processes are not part of it and go on.
    ///
    /// # Errors
    /// [`crate::Error::Refused`] above 16 of them; [`crate::Error::Failed`] when the disk is full or the machine is broken.
    pub fn snapshot(&mut self) -> Result<u32> {
        self.usable()?;
        let kept = match &self.store {
            Store::Layers(layers) => layers.kept(),
            Store::Copies(copies) => copies.kept(),
        };
        if kept >= limits::SNAPSHOTS {
            let why = format!("at most {} states of a machine are kept", limits::SNAPSHOTS);
            return Err(refused("keep the state of a machine", why));
        }
        match &mut self.store {
            Store::Layers(layers) => {
                let waiting = self.ready.as_ref().map(Shell::mark);
                let alone = !processes::any_but(&self.jail, waiting)?;
                layers.snapshot(&self.jail, alone)
            }
            Store::Copies(copies) => copies.snapshot(&self.jail),
        }
    }

    /// Puts `/work` back to a state that was kept; what runs is killed. Later states stay kept.
    ///
    /// # Errors
    /// [`crate::Error::Refused`] for a number that no snapshot has; [`crate::Error::Failed`] when the machine is broken.
    pub fn roll_back(&mut self, snapshot: u32) -> Result<()> {
        self.usable()?;
        self.check_snapshot(snapshot)?;
        let waiting = self.ready.take();
        processes::kill_all(&mut self.jail)?;
        self.leftovers.clear();
        drop(waiting);
        if let Store::Copies(_) = self.store {
            self.run_in(EMPTY_WORK, "/", CHORE)?;
        }
        match &mut self.store {
            Store::Layers(layers) => layers.roll_back(&self.jail, snapshot)?,
            Store::Copies(copies) => copies.roll_back(&self.jail, snapshot)?,
        }
        if self.ready.is_none() {
            self.stand_ready();
        }
        Ok(())
    }

    /// What differs in `/work` from a state that was kept: sorted by path, at most 1,000.
    ///
    /// # Errors
    /// [`crate::Error::Refused`] for a number that no snapshot has; [`crate::Error::Failed`] when the machine is broken.
    pub fn changes(&mut self, since: u32) -> Result<Vec<Change>> {
        self.usable()?;
        let changes = match &self.store {
            Store::Layers(layers) => layers.changes(&self.jail, since)?,
            Store::Copies(copies) => copies.changes(&self.jail, since)?,
        };
        let change = |(path, kind): (Vec<u8>, ChangeKind)| Change {
            path: format!("/work/{}", String::from_utf8_lossy(&path)),
            kind,
        };
        let changes = changes.into_iter().take(limits::CHANGES);
        Ok(changes.map(change).collect())
    }

    fn check_snapshot(&self, snapshot: u32) -> Result<()> {
        match &self.store {
            Store::Layers(layers) => layers.check(snapshot),
            Store::Copies(copies) => copies.state(snapshot).map(drop),
        }
    }

    /// Kills everything that the shell's command has started, however long that takes to be seen.
    fn stop(&mut self, shell: &mut Shell) -> Result<()> {
        let until = Instant::now() + STUBBORN;
        while Instant::now() < until {
            processes::kill_command(&mut self.jail, shell.mark())?;
            if shell.ends_within(Duration::from_millis(20)) {
                return processes::kill_command(&mut self.jail, shell.mark());
            }
        }
        // It has not entered the jail yet, or hides its end: with the way in gone, nothing of it escapes.
        shell.kill();
        processes::kill_all(&mut self.jail)
    }

    fn usable(&self) -> Result<()> {
        if self.jail.lives() {
            return Ok(());
        }
        let why = "it is gone: its first process has ended, as by lack of memory; make another one";
        Err(failed("use a machine", why))
    }

    fn files(&self) -> Files<'_> {
        Files {
            root: self.jail.root(),
            owner: self.host.owner(),
        }
    }

    /// Starts the next command's shell before it is asked for.
    fn stand_ready(&mut self) {
        // What is wrong will be said when it is needed.
        self.ready = self.shell().ok();
    }

    fn shell(&mut self) -> Result<Shell> {
        self.usable()?;
        let mark = self.next_mark;
        self.next_mark -= 1;
        Shell::start(self.host.kit(), &self.group, &self.jail, mark)
    }
}

fn ending(status: ExitStatus) -> Ending {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ending::Exited(code.unsigned_abs()),
        (None, signal) => Ending::Killed(signal.unwrap_or(0).unsigned_abs()),
    }
}
