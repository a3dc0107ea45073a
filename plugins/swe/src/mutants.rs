//! The bugs: small changes of the built-in repositories that hidden cases notice.
//!
//! A table made by `tests/generate.py`, which knows the operators (a flipped comparison, an off-by-one, swapped arguments, a wrong
//! variable ...), and checked by `tests/mutants.rs`.

use sdk::{Fault, Split};

use crate::repos::{REPOS, Repo};

const TABLE: &str = include_str!("../repos/mutants.txt");

/// One bug in one repository.
#[derive(Clone, Debug)]
pub struct Mutant {
    /// Where it is.
    pub repo: &'static Repo,
    /// Its operator and a number, for example `off-by-one-1`.
    pub name: &'static str,
    /// The source file.
    pub file: &'static str,
    /// Where in the file, in bytes.
    pub offset: usize,
    /// What is there in the sound file.
    pub before: &'static str,
    /// What is there instead.
    pub after: &'static str,
    /// The hidden cases that come out wrong; at least three.
    pub killed_by: Vec<&'static str>,
    /// The visible tests that come out wrong, if any.
    pub broken_tests: Vec<&'static str>,
    /// The case that the issue tells of.
    pub shown: &'static str,
    /// What that case answers.
    pub got: &'static str,
}

fn read(line: &'static str) -> Option<Mutant> {
    let fields: Vec<&'static str> = line.split('\t').collect();
    let [
        repo,
        name,
        file,
        offset,
        before,
        after,
        killed_by,
        broken,
        shown,
        got,
    ] = fields[..]
    else {
        return None;
    };
    let list = |field: &'static str| field.split(',').filter(|name| !name.is_empty()).collect();
    Some(Mutant {
        repo: Repo::named(repo)?,
        name,
        file,
        offset: offset.parse().ok()?,
        before,
        after,
        killed_by: list(killed_by),
        broken_tests: list(broken),
        shown,
        got,
    })
}

/// All bugs, in the table's order.
pub fn all() -> impl Iterator<Item = Mutant> {
    TABLE
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(read)
}

/// The ids of a split's tasks, `repository/mutant`; neighbours are of different repositories.
pub fn tasks(split: Split) -> Vec<String> {
    let mut of_repo: Vec<Vec<String>> = REPOS
        .iter()
        .filter(|repo| repo.split == split)
        .map(|repo| {
            let mine = all().filter(|mutant| mutant.repo.name == repo.name);
            mine.map(|mutant| mutant.task()).collect()
        })
        .collect();
    let mut ids = Vec::new();
    while of_repo.iter().any(|tasks| !tasks.is_empty()) {
        for tasks in of_repo.iter_mut().filter(|tasks| !tasks.is_empty()) {
            ids.push(tasks.remove(0));
        }
    }
    ids
}

/// The bug of a task.
///
/// # Errors
/// `invalid-input` for a task that does not exist.
pub fn of_task(task: &str) -> Result<Mutant, Fault> {
    all()
        .find(|mutant| mutant.task() == task)
        .ok_or_else(|| Fault::InvalidInput(format!("there is no task `{task}`")))
}

impl Mutant {
    /// The id of its task.
    pub fn task(&self) -> String {
        format!("{}/{}", self.repo.name, self.name)
    }

    /// The source files of the repository with the bug in them.
    ///
    /// # Errors
    /// `internal` when the table does not fit the sources: it was not made anew after a change.
    pub fn sources(&self) -> Result<Vec<(&'static str, String)>, Fault> {
        let stale = || {
            let what = format!("mutants.txt does not fit {}: {}", self.repo.name, self.name);
            Fault::Internal(what)
        };
        let sound = self.repo.source(self.file).ok_or_else(stale)?;
        let end = self.offset + self.before.len();
        if sound.get(self.offset..end) != Some(self.before) {
            return Err(stale());
        }
        let (head, tail) = (&sound[..self.offset], &sound[end..]);
        let with_bug = format!("{head}{}{tail}", self.after);
        let files = self.repo.sources.iter().map(|(name, content)| {
            let content = if *name == self.file {
                with_bug.clone()
            } else {
                (*content).to_owned()
            };
            (*name, content)
        });
        Ok(files.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_is_a_bug_that_fits_the_sources() {
        let lines = TABLE.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(all().count(), lines);
        for mutant in all() {
            let changed = mutant.sources().unwrap();
            let sound = mutant.repo.source(mutant.file).unwrap();
            let with_bug = &changed
                .iter()
                .find(|(name, _)| *name == mutant.file)
                .unwrap()
                .1;
            assert_ne!(with_bug, sound, "{}", mutant.task());
            assert!(mutant.killed_by.len() >= 3, "{}", mutant.task());
            assert!(
                mutant.killed_by.contains(&mutant.shown),
                "{}",
                mutant.task()
            );
        }
    }

    #[test]
    fn there_are_enough_tasks_and_no_repository_is_in_both_splits() {
        let (train, held_out) = (tasks(Split::Train), tasks(Split::HeldOut));
        assert!(
            train.len() >= 30 && held_out.len() >= 8,
            "{} {}",
            train.len(),
            held_out.len()
        );
        let all: std::collections::BTreeSet<_> = train.iter().chain(&held_out).collect();
        assert_eq!(all.len(), train.len() + held_out.len());
        assert!(all.iter().all(|task| task.len() <= 200));
        let repos = |tasks: &[String]| -> std::collections::BTreeSet<String> {
            let repo = |task: &String| task.split('/').next().unwrap().to_owned();
            tasks.iter().map(repo).collect()
        };
        assert!(repos(&train).is_disjoint(&repos(&held_out)));
        assert_ne!(train[0].split('/').next(), train[1].split('/').next());
    }

    #[test]
    fn a_task_that_does_not_exist_is_a_fault() {
        for task in ["", "roman", "roman/x", "../roman", "no such task"] {
            assert!(
                matches!(of_task(task), Err(Fault::InvalidInput(_))),
                "{task}"
            );
        }
    }
}
