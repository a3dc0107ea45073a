//! Which processes of a jail belong to which command, and how all of one command's are killed.
//!
//! Every command gets a mark that its processes inherit and cannot raise: the hard limit of file locks, which the kernel
//! stores and does not use. Marks fall from one command to the next. A process can lower its own, and only looks like a later command's
//! then, so that `mark <= that of the command` finds every process that the command started: those that made a session of their own and were
//! adopted by the jail's first process, too.

use std::{
    io::Read,
    time::{Duration, Instant},
};

use rustix::{
    fs::{Dir, Mode, OFlags, openat},
    io,
};

use super::{fail::failed, jail::Jail, wait};
use crate::Result;

/// The mark of a machine's first command.
pub(super) const FIRST_MARK: u64 = 1 << 40;
/// How long processes are killed one by one. A command that forks faster than this is met by killing everything.
const ONE_BY_ONE: Duration = Duration::from_millis(300);
/// Killed with one request.
const AT_ONCE: usize = 512;
/// How long dead processes may take to go.
const PATIENCE: Duration = Duration::from_secs(5);

/// A process of a jail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Process {
    /// As the jail sees it.
    number: u32,
    mark: u64,
}

/// Kills every process that a command started. Other commands' background processes live on, unless this one forks faster than it can be killed.
pub(super) fn kill_command(jail: &mut Jail, mark: u64) -> Result<()> {
    let until = Instant::now() + ONE_BY_ONE;
    let mut pause = Duration::from_micros(200);
    while Instant::now() < until {
        let all = list(jail)?;
        let own: Vec<u32> = all
            .iter()
            .filter(|p| p.mark <= mark)
            .map(|p| p.number)
            .collect();
        if own.is_empty() {
            return Ok(());
        }
        jail.kill(own.get(..AT_ONCE).unwrap_or(&own))?;
        wait::moment(pause);
        pause = (pause * 2).min(Duration::from_millis(5));
    }
    kill_all(jail)
}

/// Kills everything but the first process, and waits until it is gone.
pub(super) fn kill_all(jail: &mut Jail) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    let mut pause = Duration::from_micros(50);
    jail.kill_all()?;
    while !list(jail)?.is_empty() {
        if Instant::now() > until {
            return Err(failed("kill processes of a jail", "they do not die"));
        }
        wait::moment(pause);
        pause = (pause * 2).min(Duration::from_millis(5));
        jail.kill_all()?;
    }
    Ok(())
}

/// Whether anything lives besides the first process and a shell with this mark.
pub(super) fn any_but(jail: &Jail, mark: Option<u64>) -> Result<bool> {
    Ok(list(jail)?.iter().any(|p| Some(p.mark) != mark))
}

/// Every process but the first, without those that are dead and only wait to be forgotten.
fn list(jail: &Jail) -> Result<Vec<Process>> {
    let fail = |e: io::Errno| failed("list processes of a jail", e);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let proc = openat(jail.root(), "proc", flags, Mode::empty()).map_err(fail)?;
    let mut found = Vec::new();
    for entry in Dir::read_from(&proc).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(number) = name.parse().ok().filter(|number| *number != 1) else {
            continue;
        };
        let text = |file: &str| {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let file = openat(&proc, format!("{name}/{file}"), flags, Mode::empty()).ok()?;
            let mut text = Vec::new();
            std::fs::File::from(file)
                .take(16_384)
                .read_to_end(&mut text)
                .ok()?;
            Some(String::from_utf8_lossy(&text).into_owned())
        };
        let dead = text("stat").is_none_or(|stat| {
            // The name before the state may hold anything.
            let state = stat.rsplit_once(')').map(|(_, rest)| rest.trim_start());
            state.is_none_or(|state| state.starts_with(['Z', 'X']))
        });
        if dead {
            continue;
        }
        // One whose limits cannot be read is taken for the command's: killing too much is the safe side.
        let mark = text("limits")
            .and_then(|limits| mark_of(&limits))
            .unwrap_or(0);
        found.push(Process { number, mark });
    }
    Ok(found)
}

fn mark_of(limits: &str) -> Option<u64> {
    let locks = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max file locks"))?;
    let hard = locks.split_whitespace().nth(1)?;
    if hard == "unlimited" {
        Some(u64::MAX)
    } else {
        hard.parse().ok()
    }
}
