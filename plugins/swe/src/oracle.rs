//! The oracle: a copy of the model's sources on a fresh machine, untouched tests, hidden cases, and answers compared here.
//!
//! Nothing of the model's machine is trusted but the text of its files: no process, no module, no test, no exit code. The
//! right answers to hidden cases never leave the plugin, so that code which runs among them cannot claim to have passed.

use sdk::Fault;
use sdk::shell::ChangeKind;

use crate::{
    jail::Jail,
    score::{Grade, answers, grade},
    task::{Task, own_command},
};

const DRIVER: &str = include_str!("../score/driver.py");

/// Where the oracle keeps its own files: out of the repository's folder.
const PLACE: &str = "/tmp/oracle";

/// Most changed files that are copied.
const MOST_FILES: usize = 200;

/// What the model did to a repository: all that the oracle takes over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Files with their new content, and none for those that are gone.
    pub files: Vec<(String, Option<Vec<u8>>)>,
    /// The first change that makes the attempt void.
    pub void: Option<String>,
}

/// Reads what changed since a state of the model's machine.
///
/// # Errors
/// Only where the machine itself is broken: a file that cannot be read counts as gone.
pub fn collect<J: Jail>(task: &Task, machine: &J, since: u32) -> Result<Work, Fault> {
    let changes = machine.changes(since)?;
    let void = task.protected.broken_by(&changes).map(str::to_owned);
    // Sources first: however many files the model made, these are taken over.
    let mut paths: Vec<String> = task.sources.clone();
    for change in &changes {
        let Some(path) = task.protected.relative(&change.path) else {
            continue;
        };
        if task.protected.is_solution(path) && !paths.iter().any(|known| known == path) {
            paths.push(path.to_owned());
        }
    }
    let removed = |path: &str| {
        changes.iter().any(|change| {
            change.kind == ChangeKind::Removed
                && task.protected.relative(&change.path) == Some(path)
        })
    };
    let mut files = Vec::new();
    for path in paths.into_iter().take(MOST_FILES) {
        let content = if removed(&path) {
            None
        } else {
            match machine.read_file(&format!("{}/{path}", task.folder())) {
                Ok(content) => content,
                // Too large, no file, or a link that leads elsewhere.
                Err(Fault::InvalidInput(_)) => None,
                Err(fault) => return Err(fault),
            }
        };
        files.push((path, content));
    }
    Ok(Work { files, void })
}

/// Runs all checks against the model's work, on a machine that the model has never touched.
///
/// # Errors
/// Whatever the machine says no to.
pub fn examine<J: Jail>(task: &Task, work: &Work) -> Result<Grade, Fault> {
    let machine: J = task.lay_out()?;
    let folder = task.folder();
    let gone = |content: &Option<Vec<u8>>| content.is_none();
    for (path, _) in work.files.iter().filter(|(_, content)| gone(content)) {
        own_command(&machine, &format!("rm -rf -- {}", quoted(path)), folder)?;
    }
    for (path, content) in &work.files {
        if let Some(content) = content {
            machine.write_file(&format!("{folder}/{path}"), content)?;
        }
    }
    if let Some(patch) = &task.test_patch {
        let file = format!("{PLACE}/tests.patch");
        machine.write_file(&file, patch.as_bytes())?;
        own_command(&machine, &format!("git apply {file}"), folder)?;
    }
    let said = drive(task, &machine)?;
    Ok(grade(&task.checks, &answers(&said)))
}

/// What the driver says about the repository on a machine.
///
/// # Errors
/// Whatever the machine says no to. A driver that ran out of time has said what it has said.
pub fn drive<J: Jail>(task: &Task, machine: &J) -> Result<String, Fault> {
    machine.write_file(&format!("{PLACE}/driver.py"), DRIVER.as_bytes())?;
    let mut cases = "-".to_owned();
    if let Some(hidden) = &task.cases {
        cases = format!("{PLACE}/hidden.py");
        machine.write_file(&cases, hidden.as_bytes())?;
    }
    let tests: Vec<&str> = task
        .checks
        .iter()
        .filter(|check| check.right == "ok")
        .map(|check| check.name.as_str())
        .collect();
    machine.write_file(&format!("{PLACE}/tests"), tests.join("\n").as_bytes())?;
    let command = format!(
        "export PYTHONHASHSEED=0; exec python3 -s -B {PLACE}/driver.py {} {cases} {PLACE}/tests {}",
        task.folder(),
        task.check_seconds,
    );
    Ok(machine.run(&command, PLACE, 60_000)?.stdout)
}

/// A path as bash reads it.
fn quoted(path: &str) -> String {
    format!("'{}'", path.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_to_bash() {
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("a'; rm -rf ~ #"), r"'a'\''; rm -rf ~ #'");
    }
}
