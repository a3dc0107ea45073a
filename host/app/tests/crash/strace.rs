//! Fault injection into the calls of another process, by `strace`: which calls there are, and how one of them is met.
//!
//! `strace` counts the calls of each thread for itself. A call is therefore named by its kind, its place among the calls of that
//! kind that its thread makes from a given moment on, and, where that is still not its own, the file that it is about. A call that no
//! such name tells from an earlier one is not tried, and counted. Knows nothing of what the process does.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// Every call that changes a file or a folder, or makes such a change durable; `openat` also opens what is only read.
const CALLS: &str = "?open,?openat,?creat,?write,?pwrite64,?writev,?pwritev,?pwritev2,?fsync,?fdatasync,?sync_file_range,\
                     ?truncate,?ftruncate,?fallocate,?rename,?renameat,?renameat2,?link,?linkat,?symlink,?symlinkat,?unlink,\
                     ?unlinkat,?mkdir,?mkdirat,?rmdir,?copy_file_range,?sendfile,?msync";

/// A call as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    thread: u32,
    /// Its name.
    pub(crate) name: String,
    /// What it is about, with the process's id as `{pid}`; empty when that has no name.
    pub(crate) path: String,
    /// Whether it changes anything.
    changes: bool,
    injected: bool,
}

/// What is done to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// The process is killed when it makes the call; the call is not carried out.
    Kill,
    /// The call fails: the disk does not answer.
    Io,
    /// The call fails: there is no space.
    NoSpace,
}

impl Fault {
    fn word(self) -> &'static str {
        match self {
            Self::Kill => "signal=KILL",
            Self::Io => "error=EIO",
            Self::NoSpace => "error=ENOSPC",
        }
    }

    /// Whether a call of this name can meet it.
    pub(crate) fn concerns(self, call: &str) -> bool {
        let syncs = call.ends_with("sync");
        let writes = call.contains("write");
        match self {
            Self::Kill => true,
            Self::Io => syncs || writes,
            Self::NoSpace => {
                writes
                    || call.starts_with("open")
                    || call.starts_with("mkdir")
                    || call.starts_with("rename")
            }
        }
    }
}

/// How one call is told from all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The call's name.
    pub(crate) call: String,
    /// What it is about.
    pub(crate) path: String,
    /// Only calls about `path` are counted.
    by_path: bool,
    /// Counted from 1 in its thread; 0 means every one.
    pub(crate) nth: usize,
}

impl Place {
    /// A place that is known without a recording.
    pub(crate) fn about(call: &str, path: &Path, nth: usize) -> Self {
        Self {
            call: call.to_owned(),
            path: path.display().to_string(),
            by_path: true,
            nth,
        }
    }
}

/// What a trace does besides writing down.
pub(crate) type Injection<'a> = Option<(&'a Place, Fault)>;

/// Whether faults can be injected on this machine.
pub(crate) fn works() -> Result<(), String> {
    let tried = Command::new("strace")
        .args([
            "-D",
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            "trace=?openat",
            "-e",
            "inject=openat:error=EIO:when=999",
            "true",
        ])
        .stdin(Stdio::null())
        .output();
    said(tried)?;
    // To join a process that runs may be forbidden where to start one is not. This one ends when it is told to: on a busy machine
    // strace may take seconds to come.
    let mut other = Command::new("sleep")
        .arg("600")
        .spawn()
        .map_err(|error| error.to_string())?;
    let joined = Tracer::join(Path::new("/dev/null"), None, other.id());
    let tracer = joined.map(Tracer::detach);
    other.kill().map_err(|error| error.to_string())?;
    other.wait().map_err(|error| error.to_string())?;
    tracer
}

fn said(tried: std::io::Result<Output>) -> Result<(), String> {
    match tried {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn traced(log: &Path, injection: Injection<'_>, pid: Option<u32>) -> Command {
    let mut command = Command::new("strace");
    command.args(["-f", "-y", "-s", "0", "-o"]).arg(log);
    command.args(["-e", &format!("trace={CALLS}")]);
    if let Some((place, fault)) = injection {
        let when = match place.nth {
            0 => "1+".to_owned(),
            nth => nth.to_string(),
        };
        let inject = format!("inject={}:{}:when={when}", place.call, fault.word());
        command.args(["-e", &inject]);
        if place.by_path {
            let pid = pid.map_or_else(|| "{pid}".to_owned(), |pid| pid.to_string());
            command.args(["-P", &place.path.replace("{pid}", &pid)]);
        }
    }
    command
}

/// The command that runs a program under trace; the program is the child, the tracer stays out of sight.
pub(crate) fn launch(log: &Path, injection: Injection<'_>, program: &str) -> Command {
    let mut command = traced(log, injection, None);
    command.args(["-D", "-qq", program]);
    command
}

/// A tracer beside a running process.
pub(crate) struct Tracer(Child);

impl Tracer {
    /// Returns when every thread of the process is traced.
    pub(crate) fn attach(log: &Path, injection: Injection<'_>, pid: u32) -> Self {
        Self::join(log, injection, pid).unwrap()
    }

    /// As [`Tracer::attach`], or why it may not.
    fn join(log: &Path, injection: Injection<'_>, pid: u32) -> Result<Self, String> {
        let mut child = traced(log, injection, Some(pid))
            .args(["-p", &pid.to_string()])
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        while !said.contains("attached") {
            let read = stderr.read_line(&mut said);
            if read.map_err(|error| error.to_string())? == 0 {
                let _ = child.wait();
                return Err(said);
            }
        }
        child.stderr = None;
        // What it says later is not awaited, but its pipe must not fill up.
        std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
        Ok(Self(child))
    }

    /// Lets the process go on without it; a process that has ended ended it.
    pub(crate) fn detach(mut self) {
        if self.0.try_wait().unwrap().is_none() {
            // Asked to, strace lets go of every thread; killed, it would leave them stopped.
            let asked = Command::new("kill")
                .args(["-TERM", &self.0.id().to_string()])
                .status();
            assert!(asked.unwrap().success() || self.0.try_wait().unwrap().is_some());
        }
        for _ in 0..200 {
            if self.0.try_wait().unwrap().is_some() {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        // Now and then it waits for a thread of a killed process that has ended long ago.
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Ends the tracer of a process that has ended, which keeps that process from being gone.
pub(crate) fn release(pid: u32) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let tracer = status
        .lines()
        .find_map(|line| line.strip_prefix("TracerPid:"))
        .map(str::trim)
        .filter(|tracer| *tracer != "0");
    if let Some(tracer) = tracer {
        // It may have ended by itself just now.
        let _ = Command::new("kill").args(["-KILL", tracer]).status();
    }
}

/// The calls in a log that are about files under `data`, and the other ones, in their order.
pub(crate) fn calls(log: &Path, pid: u32) -> Vec<Call> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let mut calls: Vec<Call> = Vec::new();
    for line in text.lines() {
        let Some((thread, rest)) = line.trim_start().split_once(' ') else {
            continue;
        };
        let (Ok(thread), rest) = (thread.parse(), rest.trim_start()) else {
            continue;
        };
        if rest.starts_with('<') {
            // The end of a call that was seen before.
            if rest.contains("(INJECTED)")
                && let Some(call) = calls.iter_mut().rev().find(|call| call.thread == thread)
            {
                call.injected = true;
            }
            continue;
        }
        let Some((name, arguments)) = rest.split_once('(') else {
            continue;
        };
        if !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            continue;
        }
        calls.push(Call {
            thread,
            name: name.to_owned(),
            path: about(name, arguments).replace(&format!("/{pid}-"), "/{pid}-"),
            changes: !name.starts_with("open")
                || arguments.contains("O_CREAT")
                || arguments.contains("O_TRUNC"),
            injected: rest.contains("(INJECTED)"),
        });
    }
    calls
}

/// The file that a call is about: the path that it names, or that of its descriptor.
fn about(name: &str, arguments: &str) -> String {
    let named = !(name.contains("write")
        || name.contains("sync")
        || name == "ftruncate"
        || name == "fallocate");
    let (open, close) = if named { ('"', '"') } else { ('<', '>') };
    let inside = arguments
        .split_once(open)
        .and_then(|(_, rest)| rest.split_once(close));
    inside.map_or_else(String::new, |(path, _)| path.to_owned())
}

/// What was seen, made places.
#[derive(Debug, Default)]
pub(crate) struct Places {
    /// In the order of the calls.
    pub(crate) places: Vec<Place>,
    /// Calls that have no name of their own.
    pub(crate) hidden: Vec<Call>,
}

/// The places of all calls that change something under `data`.
pub(crate) fn places(calls: &[Call], data: &Path) -> Places {
    // For each way to count: which call is the first to have that number.
    type Counted<'a> = (&'a str, Option<&'a str>, usize);
    let mut first: HashMap<Counted<'_>, usize> = HashMap::new();
    let mut counts: HashMap<(u32, &str, Option<&str>), usize> = HashMap::new();
    let mut numbers = Vec::new();
    for (index, call) in calls.iter().enumerate() {
        let mut number = |path| {
            let count = counts
                .entry((call.thread, call.name.as_str(), path))
                .or_default();
            *count += 1;
            first
                .entry((call.name.as_str(), path, *count))
                .or_insert(index);
            *count
        };
        numbers.push((number(Some(call.path.as_str())), number(None)));
    }
    let mut found = Places::default();
    for (index, call) in calls.iter().enumerate() {
        if !call.changes || !Path::new(&call.path).starts_with(data) {
            continue;
        }
        let (of_path, of_all) = numbers[index];
        let own = |path, nth| first.get(&(call.name.as_str(), path, nth)) == Some(&index);
        let place = |by_path, nth| Place {
            call: call.name.clone(),
            path: call.path.clone(),
            by_path,
            nth,
        };
        if own(Some(call.path.as_str()), of_path) {
            found.places.push(place(true, of_path));
        } else if own(None, of_all) {
            found.places.push(place(false, of_all));
        } else {
            found.hidden.push(call.clone());
        }
    }
    found
}

/// Whether a fault other than a kill was met, and what was done to the same file afterwards.
pub(crate) fn after_fault(calls: &[Call]) -> Option<(&Call, Vec<&Call>)> {
    let at = calls.iter().position(|call| call.injected)?;
    let same = calls[at + 1..]
        .iter()
        .filter(|call| call.path == calls[at].path && call.changes);
    Some((&calls[at], same.collect()))
}
